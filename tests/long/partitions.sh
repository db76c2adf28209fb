#!/usr/bin/env bash
# One VM, one client, one TCP connection; again and again the network between primary and standby breaks,
# both ways or one. Exactly one side may live on: the other must halt with exit 9, whoever it is. The
# survivor gets a new standby. At the end every acknowledged write must be there.
#   tests/long/partitions.sh [COUNT] [vde|tap]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
count=${1:-50}
way=${2:-tap}
understudy=$(realpath "${UNDERSTUDY:-build/release/understudy}")
client=$(realpath "${REDIS_CLIENT:-build/release/bench/ft/redis_client}")
relay=$(realpath "${RELAY:-build/release/bench/ft/relay}")
images=$(realpath "${UNDERSTUDY_GUEST:-build/guest}")
out=build/long/partitions-$way
guest_run=/us/redis.sh
seed=${SEED:-$RANDOM}
# shellcheck source=tools/dev/pair-lib.sh
. tools/dev/pair-lib.sh

# A standby, and the network that leads to it.
start_standby() {
  local port
  port=$(free_port)
  log_port=$(free_port)
  start "$out/side-$1" "${inside[@]}" "$understudy" standby "$out/standby.toml" --listen "127.0.0.1:$port" \
    --node "test/side-$1"
  other=$last
  wait_for 10 "a standby" grep -q listening "$out/side-$1.log"
  start "$out/relay-$1" "${inside[@]}" "$relay" "$log_port" "$port"
  network=$last
}

alive() { [[ -d /proc/$1 && $(awk '{print $3}' "/proc/$1/stat") != Z ]]; }
one_is_gone() { ! alive "$live" || ! alive "$other"; }

main() {
  RANDOM=$seed
  echo "partitions: seed $seed; alone: SEED=$seed $0 $count $way"
  start_vm_and_client
  local n how loser status before primaries=0 secondaries=0
  for ((n = 1; n <= count; n++)); do
    sleep "$((RANDOM % 2)).$((RANDOM % 10))"
    how=$((RANDOM % 3))
    case $how in
      0) kill -STOP "$network" ;;
      1) kill -USR1 "$network" ;;
      2) kill -USR2 "$network" ;;
    esac
    wait_for 30 "one side to halt (partition $n, kind $how)" one_is_gone
    before=$(<"$out/progress")
    if alive "$live"; then loser=$other; else loser=$live; fi
    status=0
    wait "$loser" || status=$?
    [[ $status == 9 ]] || fail "partition $n, kind $how: the side that halted ended with $status, not 9"
    if [[ $loser == "$live" ]]; then
      live=$other
      primaries=$((primaries + 1))
      swap_networks
    else
      secondaries=$((secondaries + 1))
    fi
    kill -CONT "$network"
    kill -HUP "$network"
    sleep 0.3
    alive "$live" || fail "partition $n, kind $how: the other side is gone as well"
    murder "$network"
    wait_for 60 "writes after partition $n, kind $how" written $((before + 20))
    start_standby "$n"
    enable_standby "after partition $n"
    ((n % 10 != 0)) || echo "partitions: $n of $count; $(<"$out/progress") writes"
  done
  end_client
  echo "partitions: $count ($way): $primaries primaries and $secondaries secondaries halted, one side lived each time; $(cat "$out/client.out")"
}

main
