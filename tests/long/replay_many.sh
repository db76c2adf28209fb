#!/usr/bin/env bash
# replay_many.sh [N]: a recording of Debian booting, running the workloads, using disk, vde network (a download,
# and a TCP server in the guest that answers 1,000 requests from this host) and console, replayed N (100) times:
# from its own folder and from a copy elsewhere, by this build and by US_OTHER's where named (say, one made with
# Clang), two at a time, so that each runs under the other's load. Every replay must end with the recorded
# final digest and the recorded console.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
replays=${1:-100}
other=${US_OTHER:-$UNDERSTUDY}
requests=1000
cd "$work"

start_network() {
  mkdir web
  # Half of it compressible.
  { head -c 1048576 /dev/urandom; head -c 1048576 < <(yes "to be or not to be"); } >web/file
  sum=$(sha256sum <web/file | cut -c 1-64)
  serve_web web
  vde_switch -d -s "$work/switch" -p "$work/switch.pid"
  wait_for 10 test -s switch.pid || fail "no vde switch"
  started+=("$(cat switch.pid)")
  echo_port=$((20000 + RANDOM % 20000))
  slirpvde -s "$work/switch" -L "$echo_port:10.0.2.15:7" </dev/null >slirp.log 2>&1 &
  started+=($!)
}

# A server in the guest is there when it answers.
ask() { # TEXT
  local answer=
  { exec 3<>"/dev/tcp/127.0.0.1/$echo_port"; } 2>/dev/null || return 1
  printf '%s\n' "$1" >&3
  read -r -t 60 answer <&3 || true
  exec 3<&- 3>&-
  [[ $answer == "$1" ]]
}

# 20 requests over each connection.
ask_all() {
  local i j answer
  for ((i = 0; i < requests; i += 20)); do
    exec 3<>"/dev/tcp/127.0.0.1/$echo_port"
    for ((j = i; j < i + 20; ++j)); do
      printf 'request %d\n' "$j" >&3
      read -r -t 60 answer <&3 || fail "request $j was not answered"
      [[ $answer == "request $j" ]] || fail "request $j was answered: $answer"
    done
    exec 3<&- 3>&-
  done
}

# Plays the outside world to the recorded guest: asks its server, then types.
outside() {
  wait_for 300 grep -q '^serving' console.txt || fail "the guest does not serve"
  wait_for 60 ask hello || fail "the guest does not answer"
  ask_all
  echo "answered $requests requests" >answered
  printf 'enough\n'
  sleep 600
}

record() {
  truncate -s 48M disk.img
  mke2fs -q -F -t ext4 disk.img
  guest_of "us.ip=10.0.2.15/24,10.0.2.2 us.url=http://10.0.2.2:$web_port/file us.sum=$sum \"us.run=/us/demo.sh && us-bench -s 1 cpu && us-bench -s 4 diskread; /us/echo.sh & echo serving; read line; echo told: \$line\""
  mkfifo keys
  outside >keys &
  started+=($!)
  "$UNDERSTUDY" record -o recording --stats record.json --disk disk.img --net "vde:$work/switch" \
    "${guest[@]}" <keys >console.txt || fail "recording ended with $?"
  [[ -s answered ]] || fail "the requests were not answered"
  grep -q '^demo: done' console.txt || fail "disk or download failed"
  grep -q '^told: enough' console.txt || fail "the guest did not hear the console"
  echo "recorded: $(json record.json instructions) instructions in $(json record.json wall_seconds) s, $(cat answered)"
  "$UNDERSTUDY" log info recording
  digest=$(json record.json final_digest)
}

# replay NUMBER BINARY FOLDER
replay() {
  "$2" -q replay "$3" --stats "replay$1.json" >"replay$1.txt" 2>"replay$1.err" </dev/null || {
    cat "replay$1.err"
    fail "replay $1 ended with $?"
  }
  [[ $(json "replay$1.json" final_digest) == "$digest" ]] || fail "replay $1 has another digest"
  cmp "replay$1.txt" console.txt || fail "replay $1 has another console"
  rm "replay$1.txt"
}

start_network
record
mkdir -p elsewhere/deep
cp -a recording elsewhere/deep/copy
mv disk.img moved.img
echo "address space layout randomized: $(cat /proc/sys/kernel/randomize_va_space)"
for ((i = 0; i < replays; i += 2)); do
  replay "$i" "$UNDERSTUDY" recording &
  first=$!
  replay $((i + 1)) "$other" elsewhere/deep/copy &
  second=$!
  wait "$first" || exit 1
  wait "$second" || exit 1
  if ((i % 10 == 8)); then echo "$((i + 2)) replays equal, host load $(cut -d ' ' -f 1 /proc/loadavg)"; fi
done
echo "$replays replays with final digest $digest and the recorded console; verified epochs $(json replay0.json verified_epochs)," \
  "landings $(json replay0.json landings); builds: $("$UNDERSTUDY" version | head -n 1); $("$other" version | head -n 1)"
