#!/usr/bin/env bash
# kill_many.sh [N] [SEED]: N (500) recordings, each killed with SIGKILL at a random moment after its folder appeared;
# nine in ten of a small guest that never ends, one in ten of Debian booting and writing to a disk. Each must
# replay to the last whole frame of its log and say so: exit 7, no divergence, every record that `log info`
# counts.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
count=${1:-500}
seed=${2:-$RANDOM}
RANDOM=$seed
echo "seed $seed"
cd "$work"
gcc -m32 -nostdlib -static -no-pie -Wl,-Ttext=0x200000,--build-id=none,-z,noexecstack \
  -o endless.elf "$root/tests/vm/endless.S"

# kill_one NUMBER MILLISECONDS KIND: leaves one word in result.NUMBER.
kill_one() {
  local n=$1 folder=rec$1 status=0 guest=(--memory 32M --kernel endless.elf) pid
  if [[ $3 == debian ]]; then
    truncate -s 16M "disk$n"
    guest_of 'us.ip=none "us.run=mke2fs -F /dev/vda; while :; do head -c 300000 /dev/urandom >/dev/vda; sync; done"'
    guest+=(--disk "disk$n")
  fi
  "$UNDERSTUDY" -q record -o "$folder" "${guest[@]}" >"out$n" 2>"err$n" </dev/null &
  pid=$!
  wait_for 60 test -e "$folder/manifest" || fail "$n: no recording; $(cat "err$n")"
  sleep "$(($2 / 1000)).$(printf %03d $(($2 % 1000)))"
  kill -KILL "$pid"
  wait "$pid" 2>/dev/null || true
  "$UNDERSTUDY" log info --json "$folder" >"info$n" || fail "$n: log info ended with $?"
  grep -q '"complete": false' "info$n" || fail "$n: a killed recording passes as complete"
  "$UNDERSTUDY" replay "$folder" --stats "stats$n" >"again$n" 2>"talk$n" </dev/null || status=$?
  [[ $status == 7 ]] || fail "$n: replay ended with $status: $(cat "talk$n")"
  if grep -q 'nothing to replay' "talk$n"; then
    echo early >"result.$n"
  else
    grep -q 'the log ends here: ' "talk$n" || fail "$n: it does not say that the log ends: $(cat "talk$n")"
    [[ $(json "stats$n" divergences) == 0 ]] || fail "$n: divergences"
    [[ $(json "stats$n" records) == "$(json "info$n" records)" ]] ||
      fail "$n: $(json "stats$n" records) records replayed of $(json "info$n" records)"
    cmp -s -n "$(stat -c %s "out$n")" "out$n" "again$n" ||
      cmp -s -n "$(stat -c %s "again$n")" "out$n" "again$n" || fail "$n: another console"
    if grep -q 'torn frame' "talk$n"; then echo torn; else echo between; fi >"result.$n"
    json "stats$n" records >"records.$n"
  fi
  rm -rf "$folder" "disk$n" "out$n" "again$n" "talk$n" "err$n" "info$n" "stats$n"
}

for ((n = 0; n < count; n += 2)); do
  kind=small most=700
  if ((n % 20 == 0)); then kind=debian most=6000; fi
  kill_one "$n" $((RANDOM % most)) "$kind" &
  first=$!
  kill_one $((n + 1)) $((RANDOM % most)) "$kind" &
  second=$!
  wait "$first" || exit 1
  wait "$second" || exit 1
  if ((n % 50 == 48)); then echo "$((n + 2)) killed, all replayed to the last whole frame"; fi
done
cat records.* | awk '{ s += $1; if ($1 > m) m = $1 } END { print "records replayed: " s ", at most " m " of one" }'
echo "$count recordings killed: $(cat result.* | grep -c between) end between frames, $(cat result.* | grep -c torn || true) in a torn" \
  "frame, $(cat result.* | grep -c early || true) before the machine was described; every one replayed to its last whole frame and said so (exit 7)"
