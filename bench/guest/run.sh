#!/usr/bin/env bash
# Boot and the guest workloads: ours (run, record, replay) and, where qemu-system-x86_64 is installed, QEMU's
# plain TCG and its icount recording of the same guest. Everything takes turns within each round, so that
# a slow moment of the host hits all alike; medians of the rounds are printed.
#   bench/guest/run.sh [ROUNDS]      ROUNDS defaults to 3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rounds=${1:-3}
ours=build/release/understudy kernel=build/guest/vmlinuz initrd=build/guest/initrd.img
[[ -x $ours && -f $kernel ]] || { echo "build first: ./dev build && ./dev guest" >&2; exit 3; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
boot='console=ttyS0 quiet panic=-1 us.ip=none us.run=true'
suite='console=ttyS0 quiet panic=-1 us.ip=none "us.run=us-bench cpu"'

# timed NAME LIMIT COMMAND...: appends the wall seconds to NAME; a run past its limit counts as "hung".
timed() {
  local name=$1 limit=$2 began=$EPOCHREALTIME
  shift 2
  if timeout "$limit" "$@" >"$work/out" 2>"$work/err" </dev/null; then
    awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }' >>"$work/$name"
  else
    echo "$name: exit $?" >>"$work/failed"
  fi
}

qemu() { # NAME LIMIT CMDLINE OPTIONS...
  local name=$1 limit=$2 cmdline=$3
  shift 3
  timed "$name" "$limit" qemu-system-x86_64 -machine microvm -accel tcg -m 256 -display none \
    -serial stdio -monitor none -no-reboot -nodefaults -nic none -kernel "$work/vmlinux" \
    -initrd "$initrd" -append "$cmdline" "$@"
}

# PVH needs the ELF inside the bzImage: its payload is an xz stream at the offset its header names.
unpack_kernel() {
  local number offset size
  number() { od -An -t "u$2" -j "$1" -N "$2" "$kernel" | tr -d ' '; }
  offset=$(($(number 584 4) + ($(number 497 1) + 1) * 512))
  size=$(number 588 4)
  tail -c +$((offset + 1)) "$kernel" | head -c "$size" | xz -dc --single-stream >"$work/vmlinux" 2>/dev/null || true
  [[ -s $work/vmlinux ]]
}

have_qemu=no
if command -v qemu-system-x86_64 >/dev/null && unpack_kernel; then have_qemu=yes; fi

measure() { # WHAT CMDLINE LIMIT
  local what=$1 cmdline=$2 limit=$3
  local vm=(--kernel "$kernel" --initrd "$initrd" --memory 256M --cmdline "$cmdline")
  timed "$what-run" "$limit" "$ours" -q run "${vm[@]}" --stats "$work/$what.json"
  rm -rf "$work/rec"
  timed "$what-record" "$limit" "$ours" -q record -o "$work/rec" "${vm[@]}" --stats "$work/$what-record.json"
  timed "$what-replay" "$limit" "$ours" -q replay "$work/rec"
  if [[ $have_qemu = yes ]]; then
    qemu "$what-qemu-icount-record" "$limit" "$cmdline" \
      -icount "shift=3,sleep=off,rr=record,rrfile=$work/qemu.log"
    qemu "$what-qemu-tcg" "$limit" "$cmdline"
  fi
}

median() { [[ -s $work/$1 ]] && sort -n "$work/$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }' || true; }
field() { sed -n "s/.*\"$2\": \([0-9]*\).*/\1/p" "$work/$1.json"; }

table() { # WHAT
  local what=$1 name value base
  base=$(median "$what-run")
  echo "$what, median seconds of $rounds (x run)"
  for name in run record replay qemu-icount-record qemu-tcg; do
    value=$(median "$what-$name")
    [[ -n $value ]] || continue
    awk -v n="$name" -v v="$value" -v b="$base" 'BEGIN { printf "  %-20s %8.2f  (%.2f)\n", n, v, v / b }'
  done
  awk -v i="$(field "$what" instructions)" -v s="$base" 'BEGIN { printf "  %-20s %8.0f million a second\n", "instructions", i / s / 1e6 }'
  echo "  log                  $(field "$what-record" log_bytes) bytes"
}

for ((round = 1; round <= rounds; ++round)); do measure boot "$boot" 90; done
table boot
for ((round = 1; round <= rounds; ++round)); do measure suite "$suite" 600; done
table suite
[[ ! -s $work/failed ]] || { echo "runs without a figure:"; sort "$work/failed" | uniq -c; }
[[ $have_qemu = yes ]] || echo "QEMU was not measured: qemu-system-x86_64 is not installed"
