#!/usr/bin/env bash
# What protection costs: one guest with a loop on the processor, a loop that syncs, and a Redis server with
# a client outside (one write after the other, then 16 at once), unprotected and protected in turn on
# this host, and the ratios. Root: over tap devices; others: over a VDE switch.
#   bench/ft/run.sh [ROUNDS]     (1)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rounds=${1:-1}
way=vde
[[ $(id -u) != 0 || ! -c /dev/net/tun ]] || way=tap
understudy=$(realpath "${UNDERSTUDY:-build/release/understudy}")
client=$(realpath "${REDIS_CLIENT:-build/release/bench/ft/redis_client}")
images=$(realpath "${UNDERSTUDY_GUEST:-build/guest}")
[[ -n ${UNDERSTUDY_GUEST:-} ]] || ./dev guest >/dev/null
[[ -f $images/redis.img ]] || tools/guest/redis.sh "$images"
guest_run=/us/pair-bench.sh
# shellcheck source=tools/dev/pair-lib.sh
. tools/dev/pair-lib.sh

field() { sed -n "s/.*\"$2\": *\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p" "$1" | head -n 1; }

serving_or_over() { grep -q "Server initialized" "$out/vm.out" || ! kill -0 "$1"; }

# Redis's own benchmark, where it is installed (Debian's redis-tools): one client at a time or 16 requests at once.
# Lines "name",requests a second,average,min,p50,p95,p99,max latency in ms.
standard_client() { # PIPELINE
  command -v redis-benchmark >/dev/null || return 0
  "${inside[@]}" redis-benchmark -h "$client_host" -p "$client_port" -c 1 -P "$1" -n $((400 * $1)) -t set,get --csv \
    >"$out/redis-benchmark.csv" 2>"$out/redis-benchmark.err" || fail "redis-benchmark: $(cat "$out/redis-benchmark.err")"
}
column() { awk -F '"' -v t="$2" -v f="$3" '$2 == t { print $(2 * f) }' "$1/redis-benchmark.csv" 2>/dev/null || true; }

# Log bytes made so far and the time, while a pair runs.
log_seen() { # MODE
  [[ $1 == protected ]] || return 0
  "${inside[@]}" "$understudy" status demo --json >"$out/status.json" || fail "no status of the VM"
  echo "$(field "$out/status.json" log_bytes) $(date +%s.%N)"
}
log_rate() { awk -v from="$1" -v to="$2" 'BEGIN { split(from, a); split(to, b); if (b[2] > a[2]) printf "%.0f", (b[1] - a[1]) / (b[2] - a[2]) / 1000 }'; }

# one MODE PIPELINE: runs the guest once; figures into $out/MODE-PIPELINE.*
one() {
  local mode=$1 pipeline=$2 live
  out=build/bench-ft/$mode-$pipeline
  rm -rf "$out"
  mkdir -p "$out"
  out=$(realpath "$out")
  run=$(mktemp -d "${TMPDIR:-/tmp}/understudy-bench.XXXXXX")
  started=()
  trap clean_up EXIT
  export UNDERSTUDY_RUNTIME_DIR=$run/control
  make_network
  make_pair
  if [[ $mode == protected ]]; then
    start "$out/standby" "${inside[@]}" "$understudy" standby "$out/standby.toml" --listen "127.0.0.1:$log_port"
    sleep 0.3
    start "$out/vm" "${inside[@]}" "$understudy" protect "$out/primary.toml" --stats "$out/vm.json"
  else
    start "$out/vm" "${inside[@]}" "$understudy" run "$out/primary.toml" --stats "$out/vm.json"
  fi
  live=$last
  wait_for 300 "Redis" serving_or_over "$live"
  grep -q "Server initialized" "$out/vm.out" || fail "the VM ended before Redis served: $(tail -n 3 "$out/vm.out")"
  local from
  from=$(log_seen "$mode")
  standard_client "$pipeline"
  "${inside[@]}" "$client" "$client_host" "$client_port" 8 --pipeline "$pipeline" >"$out/client.json" ||
    fail "the client: $(cat "$out/client.json")"
  log_rate "$from" "$(log_seen "$mode")" >"$out/log-rate"
  wait_for 60 "the guest's end" grep -q "redis: ended" "$out/vm.out"
  wait "$live" || fail "the VM ended with $?"
  clean_up
  trap - EXIT
}

guest_ms() { sed -n "s/.*@@END $2 .*guest_ns=\([0-9]*\).*/\1/p" "$1/vm.out" | awk '{printf "%.1f", $1 / 1e6}'; }
sync_ms() { sed -n 's/.*@@SYNC \([0-9.]*\) \([0-9.]*\).*/\1 \2/p' "$1/vm.out" | awk '{printf "%.1f", ($2 - $1) * 1000}'; }

# row NAME UNPROTECTED PROTECTED UNIT more|less: what is better
row() {
  awk -v n="$1" -v a="$2" -v b="$3" -v u="$4" -v better="$5" 'BEGIN {
    printf "%-34s %12.1f %12.1f %-6s %6.2f\n", n, a, b, u, better == "more" ? b / a : a / b }'
}

# Columns of redis-benchmark --csv: 2 requests a second, 5 and 7 the median and p99 latency in ms.
standard_rows() {
  [[ -s $p-1/redis-benchmark.csv && -s $u-1/redis-benchmark.csv ]] || { echo "redis-benchmark is not installed (redis-tools)"; return; }
  local many test
  for many in 1 16; do
    for test in SET GET; do
      row "redis-benchmark $test -P $many" "$(column $u-$many $test 2)" "$(column $p-$many $test 2)" /s more
      row "  median latency" "$(column $u-$many $test 5)" "$(column $p-$many $test 5)" ms less
      row "  p99 latency" "$(column $u-$many $test 7)" "$(column $p-$many $test 7)" ms less
    done
  done
}

main() {
  local round p=build/bench-ft/protected u=build/bench-ft/unprotected
  for ((round = 1; round <= rounds; round++)); do
    one unprotected 1
    one protected 1
    one unprotected 16
    one protected 16
    printf '%-34s %12s %12s %-6s %6s   (round %d, %s; ratio: 1 is no cost)\n' "what" "unprotected" "protected" "" "ratio" "$round" "$way"
    row "integer loop" "$(guest_ms $u-1 int)" "$(guest_ms $p-1 int)" ms less
    row "SHA-256" "$(guest_ms $u-1 sha256)" "$(guest_ms $p-1 sha256)" ms less
    row "300 synced writes" "$(sync_ms $u-1)" "$(sync_ms $p-1)" ms less
    row "Redis SET, one by one" "$(field $u-1/client.json sets_per_second)" "$(field $p-1/client.json sets_per_second)" /s more
    row "Redis GET, one by one" "$(field $u-1/client.json gets_per_second)" "$(field $p-1/client.json gets_per_second)" /s more
    row "Redis SET, 16 at once" "$(field $u-16/client.json sets_per_second)" "$(field $p-16/client.json sets_per_second)" /s more
    standard_rows
    echo "one SET: median $(field $u-1/client.json wait_p50_ms) and $(field $p-1/client.json wait_p50_ms) ms," \
      "p99 $(field $u-1/client.json wait_p99_ms) and $(field $p-1/client.json wait_p99_ms) ms"
    echo "outputs held: median $(field $p-1/vm.json hold_p50_seconds) s, p99 $(field $p-1/vm.json hold_p99_seconds) s;" \
      "last pause for a state transfer $(field $p-1/vm.json last_pause_seconds) s;" \
      "log while the clients run $(cat $p-1/log-rate) kB/s, 16 at once $(cat $p-16/log-rate) kB/s;" \
      "in all, state transfer included, $(field $p-1/vm.json log_bytes) bytes"
  done
}

main
