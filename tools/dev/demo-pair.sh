#!/usr/bin/env bash
# The demo of the main job: a Redis server in a protected VM, a client that counts acknowledged
# writes over one TCP connection, and the primary killed in the middle. Leaves nothing behind but
# build/demo/pair-*.
#   tools/dev/demo-pair.sh [vde|tap]    vde (default): needs no root; tap: bridge and namespace, root
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
way=${1:-vde}
understudy=$(realpath "${UNDERSTUDY:-build/release/understudy}")
client=$(realpath "${REDIS_CLIENT:-build/release/bench/ft/redis_client}")
images=$(realpath "${UNDERSTUDY_GUEST:-build/guest}")
seconds=${DEMO_SECONDS:-12}
out=build/demo/pair-$way
guest_run=/us/redis.sh
# shellcheck source=tools/dev/pair-lib.sh
. tools/dev/pair-lib.sh

main() {
  rm -rf "$out"
  mkdir -p "$out"
  out=$(realpath "$out")
  # Sockets have short names.
  run=$(mktemp -d "${TMPDIR:-/tmp}/understudy-demo.XXXXXX")
  trap clean_up EXIT
  export UNDERSTUDY_RUNTIME_DIR=$run/control
  make_network
  make_pair

  step "A standby waits; the primary boots Debian's kernel with a Redis server in it"
  start "$out/standby" "${inside[@]}" "$understudy" standby "$out/standby.toml" --listen "127.0.0.1:$log_port" \
    --stats "$out/standby.json" --events "$out/events.jsonl"
  standby=$last
  start "$out/primary" "${inside[@]}" "$understudy" protect "$out/primary.toml"
  primary=$last
  wait_for 120 "protection" state_is protected
  panel
  wait_for 120 "Redis" grep -q "Server initialized" "$out/primary.out"
  start "$out/client" "${inside[@]}" "$client" "$client_host" "$client_port" "$seconds" \
    --progress "$out/progress"
  client_pid=$last
  wait_for 120 "the first writes" written 20

  step "The client writes, over one TCP connection; now the primary is killed (kill -9)"
  sleep 2
  panel
  echo "writes acknowledged so far: $(<"$out/progress")"
  murder "$primary"  # also in a namespace: ip became it
  local before
  before=$(<"$out/progress")
  wait_for 60 "writes after the take-over" written $((before + 20))

  step "The standby has taken over; the same connection goes on"
  panel
  wait "$client_pid" || fail "the client lost writes or its connection: $(cat "$out/client.out" "$out/client.log")"
  wait_for 30 "the guest's end" grep -q "redis: ended" "$out/standby.out"
  wait "$standby" || fail "the side that took over ended with status $?"

  step "What came of it"
  check_disk
  echo "writes acknowledged: $(field "$out/client.out" acknowledged)"
  echo "writes found:        $(field "$out/client.out" found)"
  echo "longest wait:        $(field "$out/client.out" longest_wait_ms) ms, the failover in it"
  echo "failover:            $(sed -n 's/^understudy: live: //p' "$out/standby.log")"
  echo "connections:         one, from first write to last check; e2fsck -f finds the disk clean"
}

main
