#!/usr/bin/env bash
# One VM, one client, one TCP connection, and again and again the primary is killed (kill -9) at a
# random moment, the standby takes over, gets a new standby, and is killed in its turn. At the end
# every acknowledged write must be there and the file system clean. Beside Redis a writer in the guest appends
# numbers to a file, syncs it and then says them on the console: what was said must be in the file.
#   tests/long/failovers.sh [COUNT] [vde|tap] [primary|secondary|both]
# COUNT kills (200), of the primary (default), of the secondary (which must only make the primary run on
# alone and be protected again), or of either. Needs `./dev build`, `./dev guest`, tools/guest/redis.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
count=${1:-200}
way=${2:-tap}
victim=${3:-primary}
understudy=$(realpath "${UNDERSTUDY:-build/release/understudy}")
client=$(realpath "${REDIS_CLIENT:-build/release/bench/ft/redis_client}")
images=$(realpath "${UNDERSTUDY_GUEST:-build/guest}")
out=build/long/failovers-$way-$victim
guest_run=/us/redis.sh guest_options=us.fsload=1
seed=${SEED:-$RANDOM}
# shellcheck source=tools/dev/pair-lib.sh
. tools/dev/pair-lib.sh

start_standby() {
  log_port=$(free_port)
  start "$out/side-$1" "${inside[@]}" "$understudy" standby "$out/standby.toml" \
    --listen "127.0.0.1:$log_port" --node "test/side-$1"
  other=$last
  wait_for 10 "a standby" grep -q listening "$out/side-$1.log"
}

# fs.log holds 1, 2, 3 … without a gap, at least up to what any side's console said.
check_said() {
  said=$(cat "$out"/*.out | tr -d '\r' | sed -n 's/^@@FS \([0-9]*\)$/\1/p' | sort -n | tail -n 1)
  PATH=$PATH:/sbin:/usr/sbin debugfs -R 'cat /fs.log' "$out/disk.img" 2>/dev/null >"$out/fs.log"
  kept=$(wc -l <"$out/fs.log")
  seq "$kept" | cmp - "$out/fs.log" || fail "the synced file has a gap"
  [[ -n $said ]] || fail "the guest's writer never said anything"
  ((kept >= said)) || fail "the guest said line $said was synced, the file ends with $kept"
}

main() {
  RANDOM=$seed
  echo "failovers: seed $seed; alone: SEED=$seed $0 $count $way $victim"
  start_vm_and_client
  local n kill_primary before worst=0 took
  for ((n = 1; n <= count; n++)); do
    sleep "$((RANDOM % 2)).$((RANDOM % 10))"
    kill -0 "$client_pid" 2>/dev/null || fail "the client ended: $(cat "$out/client.log")"
    before=$(<"$out/progress")
    case $victim in
      primary) kill_primary=1 ;;
      secondary) kill_primary=0 ;;
      *) kill_primary=$((RANDOM % 2)) ;;
    esac
    if [[ $kill_primary == 1 ]]; then
      murder "$live"
      live=$other
      wait_for 30 "take-over $n" grep -q "^understudy: live:" "$out/side-$((n - 1)).log"
      took=$(sed -n 's/^understudy: live: .*detection \([0-9]*\).*drain \([0-9]*\).*arbiter \([0-9]*\).*live \([0-9]*\).*/\1+\2+\3+\4/p' "$out/side-$((n - 1)).log")
      ((took <= worst)) || worst=$((took))
      swap_networks
    else
      murder "$other"
    fi
    wait_for 60 "writes after kill $n" written $((before + 20))
    start_standby "$n"
    enable_standby "after kill $n"
    ((n % 10 != 0)) || echo "failovers: $n of $count; $(<"$out/progress") writes; slowest take-over $worst ms"
  done
  end_client
  check_said
  echo "failovers: $count kills ($victim, $way): $(cat "$out/client.out"); slowest take-over $worst ms; e2fsck clean;" \
    "$said synced lines said, $kept kept"
}

main
