#!/usr/bin/env bash
# check.sh UNITS PROGRAM: systemd finds nothing to say about the unit templates in UNITS, and a
# side that lost the arbiter is not started again. PROGRAM, as they name it, need not be installed.
set -euo pipefail
units=$1 program=$2
command -v systemd-analyze >/dev/null || { echo "SKIPPED: no systemd-analyze (apt-get install systemd)"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Something that can be executed where the program will be.
ln -s /bin/true "$folder/understudy"
status=0
for side in protect standby; do
  unit=understudy-$side@.service
  sed "s|$program|$folder/understudy|" "$units/$unit" >"$folder/$unit"
  if grep -n '@[A-Z_]*@' "$folder/$unit"; then status=1; fi
  grep -qE "^ExecStart=$folder/understudy $side " "$folder/$unit" || { echo "$unit: starts something else"; status=1; }
  grep -qE '^RestartPreventExitStatus=.*\b9\b' "$folder/$unit" || { echo "$unit: 9 would be restarted"; status=1; }
done
said=$(SYSTEMD_UNIT_PATH="$folder:" systemd-analyze verify --man=no "$folder"/understudy-{protect,standby}@.service 2>&1) || status=1
said=$(grep -F understudy <<<"$said" || true)
[[ -z $said ]] || { echo "$said"; status=1; }
exit "$status"
