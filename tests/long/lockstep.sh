#!/usr/bin/env bash
# The interpreter and the translator on whole guests: what one recorded the other replays, every epoch's registers
# and devices and every so often all memory compared, until MILLIONS of instructions went by without a difference.
#   tests/long/lockstep.sh [MILLIONS]      default 20000
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
most=${1:-20000} done_so_far=0 epochs=0
other() { if [[ $1 = interpret ]]; then echo translate; else echo interpret; fi; }

# both_ways COMMAND: one recording by each executor, replayed by both.
both_ways() {
  local by against digest
  for by in interpret translate; do
    rm -rf "$work/rec"
    guest_of "us.ip=none \"us.run=$1\""
    "$UNDERSTUDY" -q record -o "$work/rec" "${guest[@]}" --executor "$by" </dev/null >/dev/null ||
      fail "recording $1 by $by"
    digest=
    for against in "$(other "$by")" "$by"; do
      "$UNDERSTUDY" -q replay "$work/rec" --executor "$against" --stats "$work/stats.json" >/dev/null ||
        fail "$1, recorded by $by, replayed by $against"
      [[ -z $digest || $digest = "$(json "$work/stats.json" final_digest)" ]] || fail "$1: final digests differ"
      digest=$(json "$work/stats.json" final_digest)
    done
    done_so_far=$((done_so_far + $(json "$work/stats.json" instructions) / 1000000))
    epochs=$((epochs + $(json "$work/stats.json" verified_epochs)))
  done
  echo "$1: the same; $done_so_far million instructions, $epochs epochs so far"
}

while [[ $done_so_far -lt $most ]]; do
  for command in true "us-bench syscall" "us-bench tree" "us-bench mm" "us-bench forkexec" \
    "us-bench pipe" "us-bench sha256" "us-bench int" "us-bench shloop"; do
    both_ways "$command"
    [[ $done_so_far -lt $most ]] || break
  done
done
