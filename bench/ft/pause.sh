#!/usr/bin/env bash
# How long a running guest stands still when it is given a secondary: a guest of 256 MiB that writes 96 MiB of its
# memory again and again, with bytes that do not compress, is disabled and enabled COUNT times.
#   bench/ft/pause.sh [COUNT]     (10)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
count=${1:-10}
understudy=$(realpath "${UNDERSTUDY:-build/release/understudy}")
images=$(realpath "${UNDERSTUDY_GUEST:-build/guest}")
work=$(mktemp -d "${TMPDIR:-/tmp}/understudy-pause.XXXXXX")
started=()
clean_up() {
  kill "${started[@]}" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap clean_up EXIT
fail() {
  echo "FAILED: $*" >&2
  tail -n 5 "$work"/*.log >&2
  exit 1
}
wait_for() { # WHAT COMMAND...
  local what=$1 n
  shift
  for ((n = 0; n < 600; n++)); do
    ! "$@" >/dev/null 2>&1 || return 0
    sleep 0.1
  done
  fail "waited 60 s for $what"
}
export UNDERSTUDY_RUNTIME_DIR=$work/control
(umask 077 && head -c 32 /dev/urandom >"$work/key")
cat >"$work/vm.toml" <<END
name = "pause"
memory = "256M"
[boot]
kernel = "$images/vmlinuz"
initrd = "$images/initrd.img"
cmdline = "console=ttyS0 quiet us.ip=none us.run=\"head -c 16777216 /dev/urandom >/tmp/s; echo writing; cd /tmp; while :; do cat s s s s s s >f; echo written; done\""
[ft]
arbiter = "file:$work/arbiter"
credentials = "psk:$work/key"
END

status() { "$understudy" status pause --json --role primary; }
protected() { status | grep -q '"state": *"protected"'; }
field() { status | sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p"; }

"$understudy" standby "$work/vm.toml" --listen 127.0.0.1:0 >/dev/null 2>"$work/standby.log" </dev/null &
started+=($!)
wait_for "the standby" grep -q '^understudy: listening' "$work/standby.log"
port=$(sed -n 's/^understudy: listening: .*:\([0-9]*\)$/\1/p' "$work/standby.log")
"$understudy" protect "$work/vm.toml" --secondary "127.0.0.1:$port" >"$work/console.txt" 2>"$work/primary.log" </dev/null &
started+=($!)
wait_for "the guest's writer" grep -q '^writing' "$work/console.txt"
wait_for "protection" protected
for ((n = 1; n <= count; n++)); do
  "$understudy" disable pause >/dev/null 2>"$work/disable.log"
  sleep 0.5
  began=$EPOCHREALTIME
  "$understudy" enable pause --secondary "127.0.0.1:$port" >/dev/null 2>"$work/enable.log"
  wait_for "protection" protected
  awk -v b="$began" -v e="$EPOCHREALTIME" -v p="$(field last_pause_seconds)" 'BEGIN { printf "%.1f %.2f\n", p * 1000, e - b }' >>"$work/pauses"
done
sort -n "$work/pauses" | awk -v w="$(grep -c '^written' "$work/console.txt")" '{ p[NR] = $1; s += $2 } END {
  printf "pause of a running guest of 256 MiB that keeps writing (%d rounds of 96 MiB), %d times: median %.1f ms, longest %.1f ms; enabling took %.2f s on average\n", w, NR, p[int((NR + 1) / 2)], p[NR], s / NR }'
