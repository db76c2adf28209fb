#!/usr/bin/env bash
# costs.sh [ROUNDS [PART...]]: what recording and replaying cost, in turns within ROUNDS (5) rounds so that a slow moment of
# the host hits all alike: processor seconds (user and system) and wall seconds of run, record and replay,
# bound by the processor and by disk and network; then log bytes of boot, of idling at 250 Hz, of a download; and
# how long the replay of an idle time takes; and what recording costs with the guest traced (--ipt-check), boot
# and bound by the processor. Medians, and their ratios; on a host that others use too, the least say more.
# Parts: boot, idle, download, processor, io, trace; without any, all.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
rounds=${1:-5}
shift $(($# > 0))
parts=${*:-boot idle download processor io trace}
idle_seconds=${IDLE_SECONDS:-60}
download_mib=8
cd "$work"

# cost NAME COMMAND...: appends "processor wall" seconds to NAME.
cost() {
  local name=$1
  shift
  local TIMEFORMAT='%U %S %R'
  { time "$@" >out.txt 2>err.txt </dev/null; } 2>time.txt || fail "$name: $* ended with an error: $(cat err.txt)"
  awk '{ print $1 + $2, $3 }' time.txt >>"$name"
}
least() { sort -n -k "$2,$2" "$1" | awk -v f="$2" 'NR == 1 { print $f }'; }
median() { sort -n -k "$2,$2" "$1" | awk -v f="$2" '{ v[NR] = $f } END { print v[int((NR + 1) / 2)] }'; }

# compare WHAT COMMAND_LINE OPTIONS...
compare() {
  local what=$1 round name
  guest_of "$2"
  shift 2
  for ((round = 0; round < rounds; ++round)); do
    rm -rf "$what-recording"
    cost "$what-run" "$UNDERSTUDY" -q run "${guest[@]}" "$@"
    cost "$what-record" "$UNDERSTUDY" -q record -o "$what-recording" "${guest[@]}" "$@"
    cost "$what-replay" "$UNDERSTUDY" -q replay "$what-recording"
  done
  echo "$what: seconds of processor time, and of wall time, medians of $rounds"
  for name in run record replay; do
    echo "  $name $(median "$what-$name" 1) $(median "$what-$name" 2)"
  done
  awk -v u="$(median "$what-run" 1)" -v r="$(median "$what-record" 1)" -v p="$(median "$what-replay" 1)" \
    'BEGIN { printf "  record/run %.3f, replay/record %.3f (processor time)\n", r / u, p / r }'
  awk -v u="$(least "$what-run" 1)" -v r="$(least "$what-record" 1)" -v p="$(least "$what-replay" 1)" \
    'BEGIN { printf "  of the least disturbed rounds: %.2f, %.2f, %.2f s; record/run %.3f, replay/record %.3f\n", u, r, p, r / u, p / r }'
}

# trace_cost WHAT COMMAND_LINE: recording, the guest traced against not.
trace_cost() {
  local what=$1 round
  guest_of "$2"
  for ((round = 0; round < rounds; ++round)); do
    rm -rf "$what-off-recording" "$what-on-recording"
    cost "$what-off" "$UNDERSTUDY" -q record -o "$what-off-recording" --no-ipt-check "${guest[@]}"
    cost "$what-on" "$UNDERSTUDY" -q record -o "$what-on-recording" --ipt-check "${guest[@]}"
  done
  awk -v a="$(median "$what-off" 1)" -v b="$(median "$what-on" 1)" -v w="$what" -v n="$rounds" \
    'BEGIN { printf "recording %s: %.2f s not traced, %.2f s traced, ratio %.3f (processor time, medians of %d)\n", w, a, b, b / a, n }'
}

bytes_of() { json <("$UNDERSTUDY" log info --json "$1") bytes; }

boot_bytes() {
  guest_of 'us.ip=none us.run=true'
  "$UNDERSTUDY" -q record -o boot "${guest[@]}" >out.txt </dev/null
  echo "log of Debian's boot to power-off: $(bytes_of boot) bytes"
}

# Against a guest that does not idle, so that boot does not count.
idle_bytes() {
  local with without
  for time in 0 "$idle_seconds"; do
    guest_of "us.ip=none nohz=off \"us.run=sleep $time\""
    "$UNDERSTUDY" -q record -o "idle$time" "${guest[@]}" >out.txt </dev/null
  done
  without=$(bytes_of idle0) with=$(bytes_of "idle$idle_seconds")
  awk -v w="$with" -v o="$without" -v s="$idle_seconds" \
    'BEGIN { printf "idle at 250 Hz: %.1f log bytes a tick\n", (w - o) / (s * 250) }'
  guest_of "us.ip=none \"us.run=sleep $idle_seconds\""
  "$UNDERSTUDY" -q record -o tickless "${guest[@]}" >out.txt </dev/null
  for what in "idle$idle_seconds" tickless idle0; do
    cost "$what-replay" "$UNDERSTUDY" -q replay "$what"
    echo "  replay of $what: $(median "$what-replay" 1) s of processor time, boot included"
  done
}

# download WHAT: the payload is in web/WHAT.
download_bytes() {
  guest_of "us.url=http://10.0.2.2:$web_port/$1 \"us.run=wget -q -O - http://10.0.2.2:$web_port/$1 | wc -c\""
  "$UNDERSTUDY" -q record -o "download-$1" --net slirp "${guest[@]}" >out.txt </dev/null
  tr -d '\r' <out.txt | grep -qx "$((download_mib << 20))" || fail "download of $1"
  "$UNDERSTUDY" -q replay "download-$1" >/dev/null
  awk -v b="$(bytes_of "download-$1")" -v n=$((download_mib << 20)) -v w="$1" -v o="$(bytes_of boot)" \
    'BEGIN { printf "download of %s: %.3f log bytes a byte of payload (boot taken off)\n", w, (b - o) / n }'
}

serve_files() {
  [[ ! -d web ]] || return 0
  mkdir web
  head -c $((download_mib << 20)) /dev/urandom >web/random
  head -c $((download_mib << 20)) < <(while :; do cat "$root"/docs/*.md; done) >web/text
  serve_web web
}

for part in $parts; do
  case $part in
    boot) boot_bytes ;;
    idle) idle_bytes ;;
    download)
      serve_files
      [[ -d boot ]] || boot_bytes
      download_bytes random
      download_bytes text
      ;;
    processor) compare processor 'us.ip=none "us.run=us-bench -s 8 cpu"' ;;
    io)
      serve_files
      head -c 67108864 /dev/urandom >disk.img
      compare disk-and-network "us.url=http://10.0.2.2:$web_port/random \"us.run=us-bench -s 25 diskread diskread4k diskwrite; wget -q -O - http://10.0.2.2:$web_port/random | wc -c\"" \
        --disk disk.img --net slirp
      ;;
    trace)
      trace_cost boot-traced 'us.ip=none us.run=true'
      trace_cost processor-traced 'us.ip=none "us.run=us-bench -s 8 cpu"'
      ;;
    *) fail "no such part: $part" ;;
  esac
done
