#!/usr/bin/env bash
# Boot to power-off and the guest workloads: ours (run, record, replay) and, where qemu-system-x86_64 is installed,
# QEMU's plain TCG and its icount recording and replay of the same guest, both from the unpacked kernel; the row
# "packed" is a plain boot from Debian's bzImage. Everything takes turns within each round, so that a slow moment of
# the host hits all alike; medians of the rounds are printed. A workload's time is the host's, between its two marker
# lines on the guest's console. The disk's workloads (256 MiB read and 128 MiB written in pieces of 128 KiB, 16 MiB
# read in pieces of 4 KiB, past the guest's page cache) run apart; QEMU has its PC for them, since its microvm has no
# PCI.
#   bench/guest/run.sh [ROUNDS]      ROUNDS defaults to 3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rounds=${1:-3}
ours=${UNDERSTUDY:-build/release/understudy} kernel=build/guest/vmlinuz initrd=build/guest/initrd.img
[[ -x $ours && -f $kernel ]] || { echo "build first: ./dev build && ./dev guest" >&2; exit 3; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
boot='console=ttyS0 quiet panic=-1 us.ip=none us.run=true'
suite='console=ttyS0 quiet panic=-1 us.ip=none "us.run=us-bench cpu"'
disk='console=ttyS0 quiet panic=-1 us.ip=none "us.run=us-bench diskread diskread4k diskwrite"'

# Passes lines on, each behind the host's time.
stamp() { while IFS= read -r line; do printf '%s %s\n' "$EPOCHREALTIME" "${line%$'\r'}"; done; }

# timed NAME LIMIT COMMAND...: appends the wall seconds to NAME and those of each workload to NAME.WORKLOAD; a run
# past its limit counts as "hung".
timed() {
  local name=$1 limit=$2 began=$EPOCHREALTIME workload seconds
  shift 2
  if timeout "$limit" "$@" </dev/null 2>"$work/err" | stamp >"$work/out"; then
    awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }' >>"$work/$name"
    while read -r workload seconds; do
      echo "$seconds" >>"$work/$name.$workload"
    done < <(awk '$2 == "@@BEGIN" { began[$3] = $1 } $2 == "@@END" { printf "%s %.3f\n", $3, $1 - began[$3] }' "$work/out")
  else
    echo "$name: exit $?" >>"$work/failed"
  fi
}

qemu() { # NAME LIMIT CMDLINE OPTIONS...
  local name=$1 limit=$2 cmdline=$3
  shift 3
  timed "$name" "$limit" qemu-system-x86_64 -machine "${qemu_machine:-microvm}" -accel tcg -m 256 -display none \
    -serial stdio -monitor none -no-reboot -nodefaults -nic none -kernel "$kernel" \
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

have_qemu=no packed=$kernel
if unpack_kernel; then
  kernel=$work/vmlinux
  if command -v qemu-system-x86_64 >/dev/null; then have_qemu=yes; fi
fi

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
    [[ ! -s $work/qemu.log ]] || stat -c %s "$work/qemu.log" >"$work/$what-qemu-log"
    qemu "$what-qemu-icount-replay" "$limit" "$cmdline" \
      -icount "shift=3,sleep=off,rr=replay,rrfile=$work/qemu.log"
    qemu "$what-qemu-tcg" "$limit" "$cmdline"
  fi
}

measure_packed() {
  local kernel=$packed
  timed packed-run 90 "$ours" -q run --kernel "$kernel" --initrd "$initrd" --memory 256M --cmdline "$boot"
  if [[ $have_qemu = yes ]]; then qemu packed-qemu-tcg 90 "$boot"; fi
}

# Recording a disk, QEMU needs its clock to sleep: with sleep=off it does not get past the disk's probe.
measure_disk() {
  local vm=(--kernel "$kernel" --initrd "$initrd" --memory 256M --cmdline "$disk" --disk "$work/disk.img")
  local qemu_machine=pc rr=shift=3,rrfile=$work/qemu.log
  local replayed=(-drive "driver=blkreplay,if=none,image=image,id=disk" -device virtio-blk-pci,drive=disk)
  local image=(-drive "file=$work/disk.img,if=none,id=image,format=raw,snapshot=on")
  timed disk-run 300 "$ours" -q run "${vm[@]}"
  rm -rf "$work/rec"
  timed disk-record 300 "$ours" -q record -o "$work/rec" "${vm[@]}" --stats "$work/disk-record.json"
  timed disk-replay 300 "$ours" -q replay "$work/rec"
  [[ $have_qemu = yes ]] || return 0
  qemu disk-qemu-icount-record 300 "$disk" "${image[@]}" "${replayed[@]}" -icount "$rr,rr=record"
  [[ ! -s $work/qemu.log ]] || stat -c %s "$work/qemu.log" >"$work/disk-qemu-log"
  qemu disk-qemu-icount-replay 300 "$disk" "${image[@]}" "${replayed[@]}" -icount "$rr,rr=replay"
  qemu disk-qemu-tcg 300 "$disk" "${image[@]}" -device virtio-blk-pci,drive=image
}

median() { [[ -s $work/$1 ]] && sort -n "$work/$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }' || true; }
field() { sed -n "s/.*\"$2\": \([0-9]*\).*/\1/p" "$work/$1.json"; }
logged() { cat "$work/$1-qemu-log" 2>/dev/null || echo -; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a == "" || b == "" || b == 0) print "-"; else printf "%.2f", a / b }'; }
kinds="run record replay qemu-tcg qemu-icount-record qemu-icount-replay"

row() { # LABEL FILE_SUFFIX WHAT MILLIONS_OF_INSTRUCTIONS
  local kind cells=() recorded rival
  for kind in $kinds; do cells+=("$(median "$3-$kind$2")"); done
  recorded=${cells[1]} rival=${cells[4]}
  printf '%-10s %8s %8s %8s %8s %9s %9s %9s %9s %9s\n' "$1" "${cells[0]}" "${cells[1]:--}" "${cells[2]:--}" \
    "${cells[3]:--}" "${cells[4]:--}" "${cells[5]:--}" "$(ratio "$recorded" "$rival")" \
    "$(ratio "${cells[0]}" "${cells[3]}")" "$(awk -v m="$4" -v s="${cells[0]}" 'BEGIN { if (m == "" || s + 0 == 0) print "-"; else printf "%.0f", m / s }')"
}

# Instructions of one workload: a run of it alone, less a boot.
millions_of() {
  local vm=(--kernel "$kernel" --initrd "$initrd" --memory 256M --cmdline "console=ttyS0 quiet panic=-1 us.ip=none \"us.run=us-bench $1\"")
  timeout 600 "$ours" -q run "${vm[@]}" --stats "$work/one.json" </dev/null >"$work/out" 2>"$work/err" || return 0
  echo $((($(field one instructions) - $(field boot instructions)) / 1000000))
}

head -c $((256 << 20)) /dev/urandom >"$work/disk.img"  # ours logs what is read, QEMU replays from the image
for ((round = 1; round <= rounds; ++round)); do
  measure boot "$boot" 90
  measure_packed
  measure suite "$suite" 600
  measure_disk
done
echo "median seconds of $rounds; QEMU: $(qemu-system-x86_64 --version 2>/dev/null | head -n 1)"
printf '%-10s %8s %8s %8s %8s %9s %9s %9s %9s %9s\n' "" run record replay TCG "rr record" "rr replay" "rec/rr" "run/TCG" "M instr/s"
row boot "" boot "$(($(field boot instructions) / 1000000))"
row packed "" packed ""
for workload in int sha256 tree syscall pipe forkexec mm shloop; do
  row "$workload" ".$workload" suite "$(millions_of "$workload")"
done
row "all+boot" "" suite "$(($(field suite instructions) / 1000000))"
for workload in diskread diskread4k diskwrite; do row "$workload" ".$workload" disk ""; done
row "disk+boot" "" disk ""
echo "log bytes: boot $(field boot-record log_bytes), all $(field suite-record log_bytes), disk $(field disk-record log_bytes); QEMU's boot $(logged boot), all $(logged suite), disk $(logged disk)"
[[ ! -s $work/failed ]] || { echo "runs without a figure:"; sort "$work/failed" | uniq -c; }
[[ $have_qemu = yes ]] || echo "QEMU was not measured: qemu-system-x86_64 is not installed"
