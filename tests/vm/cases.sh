# shellcheck shell=bash disable=SC2154,SC2034
# The cases; run_case.sh has the words they use.

# --- guests that run

case_power_off() {
  need_images
  guest run 'echo hello from the guest' --stats stats.json
  expect_status 0
  expect_line 'init: ready, Linux .*'
  expect_line 'hello from the guest'
  expect_line 'init: exit status 0'
  expect_talk '^understudy: guest powered off; at branch [0-9]+ \(instruction [0-9]+\)'
  expect_json stats.json exit 0
  expect_json stats.json instructions '[1-9][0-9]{7,}'
  expect_json stats.json branches '[1-9][0-9]{6,}'
  expect_json stats.json wall_seconds '[0-9.]+'
  expect_json stats.json guest_seconds '[0-9.]+'
}

case_disk() {
  need_images
  need_program mke2fs e2fsprogs
  new_disk disk.img
  guest run /us/demo.sh --disk disk.img
  expect_status 0
  expect_line 'disk: 8 MiB and 8 files written, .*: same'
  e2fsck -f -n disk.img >e2fsck.txt 2>&1 || { cat e2fsck.txt; fail "e2fsck finds errors"; }
}

# The guest's path, traced: recorded, counted, and verified where another processor packs it, or loses some.
case_traced() {
  local branches
  need_images
  guest record 'echo traced' -o rec --ipt-check --trace-out guest.pt --stats record.json
  expect_status 0
  expect_json record.json ipt_epochs '[1-9][0-9]*'
  expect_json record.json ipt_unknown 0
  expect_json record.json ipt_counter_mismatches 0
  branches=$(sed -n 's/^ *"branches": *\([0-9]*\).*/\1/p' record.json)
  us trace stat guest.pt --json
  expect_status 0
  cp out stat.json
  expect_json stat.json tnt_bits "$branches"
  expect_json stat.json errors 0
  us replay rec --ipt-model-seed 7 --stats replay.json
  expect_status 0
  expect_json replay.json ipt_unknown 0
  expect_json replay.json ipt_epochs "$(sed -n 's/^ *"ipt_epochs": *\([0-9]*\).*/\1/p' record.json)"
  us replay rec --ipt-model-buffer 64K --stats lossy.json
  expect_status 0
  expect_json lossy.json ipt_unknown '[1-9][0-9]*'
  expect_json lossy.json divergences 0
  us replay rec --no-ipt-check --trace-out missing/guest.pt
  expect_error TRACE-003 3
}

case_dhcp() {
  need_images
  guest run 'ip -4 -o address show dev eth0; ping -c 2 10.0.2.2' --net slirp
  expect_status 0
  expect_line '.*inet 10\.0\.2\.15/24.*'
  expect_line '2 packets transmitted, 2 packets received, 0% packet loss'
}

case_typed() {
  need_images
  # The shell's answer cannot be mistaken for the echo of what is typed.
  mkfifo keys
  (
    exec 9>keys
    for _ in $(seq 600); do
      if grep -q 'init: ready' out 2>/dev/null; then break; fi
      sleep 0.5
    done
    sleep 2
    # shellcheck disable=SC2016
    printf 'echo typed-$((6 * 7))\npoweroff -f\n' >&9
    exec sleep 300
  ) &
  input=keys us run --memory 256M --kernel "$US_IMAGES/vmlinuz" --initrd "$US_IMAGES/initrd.img" \
    --cmdline 'console=ttyS0 quiet'
  expect_status 0
  tr -d '\r' <out | grep -q '^typed-42$' || fail "the shell did not answer"
  expect_talk 'guest powered off'
}

case_reset() {
  need_images
  extra='us.end=reboot' guest run true
  expect_status 0
  expect_talk 'guest asked for a reset'
}

case_time_limit() {
  need_images
  guest run 'while :; do :; done' --time-limit 2
  expect_status 7
  expect_talk '^understudy: .*at branch [0-9]+'
}

case_triple_fault() {
  need_program gcc gcc
  multiboot triple_fault
  us run --kernel triple_fault.elf --memory 32M
  expect_status 10
  expect_talk '^understudy: guest failed: '
  grep -qi '1234abcd' err || fail "the dump does not show the registers"
}

# --- recordings

case_record_replay() {
  need_images
  need_program mke2fs e2fsprogs
  mkdir web
  head -c 1048576 /dev/urandom >web/file
  serve_web
  new_disk disk.img
  extra="us.url=http://10.0.2.2:$port/file us.sum=$(sha256sum <web/file | cut -c 1-64)" \
    guest record /us/demo.sh -o recording --disk disk.img --net slirp --stats record.json
  expect_status 0
  expect_line 'demo: done'
  expect_json record.json log_bytes '[1-9][0-9]*'
  expect_json record.json records '[1-9][0-9]*'
  expect_json record.json epochs '[1-9][0-9]*'
  mv out recorded.txt
  rm disk.img

  us log verify recording
  expect_status 0
  us log info --json recording
  expect_status 0
  mv out info.json
  expect_json info.json complete true
  local round
  for round in 1 2; do
    us replay recording --stats "replay$round.json"
    expect_status 0
    cmp out recorded.txt || fail "the console differs in replay $round"
    expect_json "replay$round.json" divergences 0
    expect_json "replay$round.json" landing_overshoots 0
    expect_json "replay$round.json" verified_epochs '[1-9][0-9]*'
    expect_json "replay$round.json" final_digest "$(json info.json final_digest)"
  done
}

case_either_executor() {
  need_images
  local by against
  for by in interpret translate; do
    guest record 'echo hello from the guest' -o "by-$by" --executor "$by" --stats record.json
    expect_status 0
    expect_json record.json executor "$by"
    mv out recorded.txt
    for against in interpret translate; do
      us replay "by-$by" --executor "$against" --stats "$by-$against.json"
      expect_status 0
      cmp out recorded.txt || fail "the console differs: recorded by $by, replayed by $against"
      expect_json "$by-$against.json" divergences 0
      expect_json "$by-$against.json" executor "$against"
      expect_json "$by-$against.json" final_digest "$(json "$by-interpret.json" final_digest)"
    done
  done
}

case_cut_recording() {
  need_images
  guest record 'echo hello from the guest' -o recording
  expect_status 0
  mv out recorded.txt
  local segment size
  segment=$(find recording -name '*.uslog' | sort | tail -n 1)
  size=$(stat -c %s "$segment")
  truncate -s $((size * 3 / 4)) "$segment"
  us log info --json recording
  expect_status 0
  grep -q '"complete": false' out || fail "a cut recording passes as complete"
  us replay recording --stats replay.json
  expect_status 7
  expect_json replay.json divergences 0
  expect_talk '^understudy: .*log'
  cmp -n "$(stat -c %s out)" out recorded.txt || fail "the console is not a beginning of the recorded one"
}

case_diverge() {
  need_images
  guest record 'echo hello from the guest' -o recording
  expect_status 0
  us diverge recording
  expect_status 0
  expect_line 'equal: no difference, [0-9]+ epochs compared'

  us diverge recording --json --plant late-interrupt@30000000 --bundle bundle --perfetto trace.json
  expect_status 6
  mv out report.json
  expect_json report.json schema understudy.diverge.v1
  expect_json report.json verdict control-flow-differs
  expect_json report.json confidence reproduced
  expect_json report.json kind event
  expect_json report.json taken_a true
  expect_json report.json taken_b false
  expect_json report.json decoded_agrees true
  # Debian's kernel says itself what its functions are called.
  grep -q '"symbol": "asm_sysvec_apic_timer_interrupt"' report.json || fail "no name for the handler"
  grep -q '"traceEvents"' trace.json || fail "no timeline"
  local file
  for file in report.txt report.json timeline.txt perfetto.json log-a.txt log-b.txt; do
    [[ -s bundle/$file ]] || fail "no $file in the bundle"
  done

  local segment
  segment=$(find recording -name '*.uslog' | sort | tail -n 1)
  printf 'damage' | dd of="$segment" bs=1 seek=$(($(stat -c %s "$segment") * 3 / 4)) conv=notrunc status=none
  us diverge recording
  expect_status 4
  expect_line 'log-damaged: .*'
}

# A secondary whose registers lose a bit keeps the log; executed again it agrees with the primary.
case_kept_log() {
  make_pair
  printf '[ipt]\ncheck = true\n' >>vm.toml
  standby --keep-log kept --plant-fault 400
  primary
  wait_until "the divergence" grep -q '^understudy: log-kept' standby.err
  end_of "$primary"
  expect_status 0
  end_of "$standby"
  expect_status 0
  [[ $(ls kept) == session-* && $(ls kept | wc -l) == 1 ]] || fail "not one kept log, but $(ls kept)"
  us diverge kept/session-* --json
  mv out report.json
  expect_status 0
  expect_json report.json verdict equal
  grep -qE '"(epoch [0-9]+ differs in |.*point)' report.json || fail "the note of why it was kept is not there"
  grep -q '"cause": "a fault that passed' report.json || fail "no cause named"
  # Another stack pointer: whatever the guest was at, it sees that.
  us diverge kept/session-* --json --plant register@0:rsp:6
  mv out report.json
  expect_status 6
  expect_json report.json confidence reproduced
}

case_other_machine() {
  need_images
  guest record 'echo unreached' -o one --time-limit 1
  expect_status 7
  extra=more guest record 'echo unreached' -o two --time-limit 1
  expect_status 7
  us diverge one two
  expect_error DIV-001 5
  us diverge one --plant melt@1
  expect_error DIV-003 2
}

case_changed_kernel() {
  need_images
  guest record 'echo unreached' -o recording --time-limit 1
  expect_status 7
  printf 'x' | dd of=recording/files/kernel bs=1 seek=1000000 conv=notrunc status=none
  us replay recording
  expect_error REC-002 5
}

case_interrupted() {
  need_images
  "$UNDERSTUDY" record -o recording --memory 256M --kernel "$US_IMAGES/vmlinuz" \
    --initrd "$US_IMAGES/initrd.img" --cmdline 'console=ttyS0 quiet' >out 2>err </dev/null &
  local pid=$! try
  for ((try = 0; try < 600; ++try)); do
    if grep -q 'init: ready' out; then break; fi
    sleep 0.5
  done
  kill -INT "$pid"
  status=0
  wait "$pid" || status=$?
  expect_status 0
  mv out recorded.txt
  us replay recording --stats replay.json
  expect_status 0
  expect_json replay.json divergences 0
  cmp out recorded.txt || fail "the console differs"
}

case_no_recording() {
  mkdir empty
  local verb
  for verb in replay 'log info' 'log verify' 'log dump'; do
    # shellcheck disable=SC2086
    us $verb empty
    expect_error LOG-001 4
  done
}

case_occupied_folder() {
  need_images
  mkdir recording
  echo old >recording/manifest
  guest record true -o recording
  expect_error LOG-014 2
  [[ $(cat recording/manifest) == old ]] || fail "the older recording was touched"
}

# --- bad input

case_missing_kernel() {
  us run --kernel nowhere/vmlinuz
  expect_error VM-005 2
  expect_talk 'nowhere/vmlinuz'
}

case_no_kernel() {
  us run
  expect_error VM-006 2
}

case_truncated_kernel() {
  need_images
  head -c 3000000 "$US_IMAGES/vmlinuz" >cut.img
  us run --kernel cut.img
  expect_error BOOT-004 2
}

case_foreign_kernel() {
  head -c 100000 /etc/services >text 2>/dev/null || seq 10000 >text
  us run --kernel text
  expect_error BOOT-003 2
}

case_little_memory() {
  need_images
  us run --kernel "$US_IMAGES/vmlinuz" --initrd "$US_IMAGES/initrd.img" --memory 24M
  expect_status 2
  expect_talk '^error\[BOOT-0(09|11|16)\]: '
  expect_talk '^  needed: '
}

case_tiny_memory() {
  need_images
  us run --kernel "$US_IMAGES/vmlinuz" --memory 1M
  expect_error VM-004 2
}

case_empty_disk() {
  need_images
  : >disk.img
  us run --kernel "$US_IMAGES/vmlinuz" --disk disk.img
  expect_error DISK-002 2
}

case_disk_in_use() {
  need_program gcc gcc
  multiboot endless
  truncate -s 1M disk.img
  "$UNDERSTUDY" run --kernel endless.elf --memory 32M --disk disk.img >first 2>&1 </dev/null &
  local try
  for ((try = 0; try < 600; ++try)); do
    if grep -q '^up' first; then break; fi
    sleep 0.1
  done
  us run --kernel endless.elf --memory 32M --disk disk.img
  expect_error DISK-003 3
}

case_unknown_net() {
  need_images
  us run --kernel "$US_IMAGES/vmlinuz" --net carrier-pigeon
  expect_error NET-001 2
}

case_missing_description() {
  us vm check nowhere.toml
  expect_error VM-001 2
}

case_broken_description() {
  printf 'name = "x"\nmemory = \n' >vm.toml
  us vm check vm.toml
  expect_error VM-002 2
  expect_talk 'line 2'
}

case_misspelt_key() {
  printf 'name = "x"\nmemry = "64M"\n' >vm.toml
  us vm check vm.toml
  expect_error VM-003 2
  expect_talk 'line 2'
  expect_talk 'memry'
}

case_wrong_value() {
  printf '[[disk]]\npath = "d"\nread_only = "perhaps"\n' >vm.toml
  us vm check vm.toml
  expect_error VM-004 2
  expect_talk 'line 3'
  expect_talk 'read_only'
}

case_good_description() {
  mkdir deep
  : >deep/kernel
  truncate -s 1M deep/disk.img
  cat >deep/vm.toml <<'END'
name = "web1"
memory = "64M"
[boot]
kernel = "kernel"
[[disk]]
path = "disk.img"
[[net]]
mac = "52:54:00:12:34:56"
backend = "slirp:hostfwd=tcp:127.0.0.1:8080-:80"
END
  us vm check deep/vm.toml
  expect_status 0
  grep -q '^web1: good' out || fail "it does not say so"
  us vm check deep/vm.toml --json
  expect_status 0
  grep -q '"good": true' out || fail "the JSON does not say so"
}

case_version() {
  us version --json
  expect_status 0
  grep -q '"schema": "understudy.version.v1"' out || fail "no schema"
  grep -q '"log": [0-9]' out || fail "no log format"
}

case_unknown_option() {
  us run --no-such-option
  expect_status 2
}

# --- recordings: disk data left in its image, host profiles, kills

# A recorded guest that reads a disk whose data stays in the image.
record_reads() {
  head -c 4194304 /dev/urandom >disk.img
  cp disk.img before.img
  guest record "sha256sum /dev/vda; echo changed >/dev/vda; sync; sha256sum /dev/vda" -o recording \
    --disk disk.img,reads=disk
  expect_status 0
  tr -d '\r' <out | grep -qx "$(sha256sum <before.img | cut -c 1-64)  /dev/vda" || fail "the guest read something else"
  mv out recorded.txt
}

case_reads_from_image() {
  need_images
  record_reads
  us log info --json recording
  mv out info.json
  [[ $(json info.json bytes) -lt 1000000 ]] || fail "the disk's data is in the log"
  # The guest wrote to the image since.
  us replay recording
  expect_error REC-004 5
  expect_talk 'put the image back as it was when the recording began'
  us replay recording --image before.img --stats replay.json
  expect_status 0
  cmp out recorded.txt || fail "the console differs"
  expect_json replay.json divergences 0
  us replay recording --image nowhere.img
  expect_error REC-003 5
}

profile_of() { # SKID MARGIN
  cat >profile.toml <<END
schema = "understudy.host-profile.v1"
event = "model"
margin = $2
[model]
skid = "$1"
END
}

case_profile() {
  need_images
  profile_of skylake 101
  guest record 'echo hello' -o recording --pmu-profile profile.toml
  expect_status 0
  us replay recording --stats replay.json
  expect_status 0
  expect_json replay.json landing_overshoots 0
  expect_json replay.json landing_skid_max '[1-9][0-9]*'
  expect_json replay.json landing_steps '[1-9][0-9]*'
  profile_of fixed:100 10
  us replay recording --stats replay.json --pmu-profile profile.toml
  expect_error PMU-011 5
  expect_talk 'the alarm was 100 branches late, the margin is 10'
  expect_talk 'understudy calibrate -o host.toml'
  expect_json replay.json landing_overshoots 1
}

case_unfit_host() {
  need_images
  profile_of none 0
  sed -i '/^margin/a quirks = ["smi-leak"]' profile.toml
  guest record true -o recording --pmu-profile profile.toml
  expect_error PMU-010 3
  expect_talk 'smi-leak'
  [[ ! -e recording ]] || fail "a recording was begun"
  us record --kernel "$US_IMAGES/vmlinuz" -o recording --pmu-profile nowhere.toml
  expect_error PMU-001 2
}

# The long form, with more guests and other moments, is tests/long/kill_many.sh.
case_killed() {
  need_program gcc gcc
  multiboot endless
  local round pid try
  for round in 1 2 3 4 5 6; do
    "$UNDERSTUDY" -q record -o "rec$round" --kernel endless.elf --memory 32M >up 2>err </dev/null &
    pid=$!
    for ((try = 0; try < 600; ++try)); do
      if [[ -e rec$round/manifest ]]; then break; fi
      sleep 0.1
    done
    sleep "0.$((RANDOM % 9))"
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null || true
    us log info --json "rec$round"
    expect_status 0
    grep -q '"complete": false' out || fail "a killed recording passes as complete"
    us replay "rec$round" --stats replay.json
    expect_status 7
    expect_talk '^understudy: the log ends (here|before its machine is described)'
    grep -q 'nothing to replay' err || expect_json replay.json divergences 0
  done
}

# --- saved replays

case_saved_replay() {
  need_images
  extra=loglevel=7 guest record 'echo hello from the guest' -o recording --stats record.json
  expect_status 0
  local branches middle by
  branches=$(json record.json branches)
  middle=$((branches / 2 + 1))
  us replay recording --stats whole.json
  expect_status 0
  mv out whole.txt
  us replay recording --goto "$middle" --save saved --stats first.json
  expect_status 0
  expect_talk '; saved to saved$'
  expect_json first.json branches "$middle"
  mv out first.txt
  grep -q 'Linux version' first.txt || fail "the kernel has not begun in the first half"
  for by in interpret translate; do
    us replay recording --from saved --executor "$by" --stats rest.json
    expect_status 0
    expect_line 'hello from the guest'
    ! grep -q 'Linux version' out || fail "the second half has the first one's console"
    cat first.txt out | cmp - whole.txt || fail "the halves of the console are not the whole ($by)"
    expect_json rest.json final_digest "$(json whole.json final_digest)"
    expect_json rest.json divergences 0
    expect_json rest.json verified_epochs $(($(json whole.json verified_epochs) - $(json first.json verified_epochs)))
  done
  # In three pieces, the last of them with a counter that is late.
  us replay recording --from saved --goto $((branches * 3 / 4)) --save later
  expect_status 0
  mv out second.txt
  profile_of skylake 101
  us replay recording --from later --pmu-profile profile.toml --stats rest.json
  expect_status 0
  cat first.txt second.txt out | cmp - whole.txt || fail "three pieces of the console are not the whole"
  expect_json rest.json final_digest "$(json whole.json final_digest)"
  expect_json rest.json landing_overshoots 0
  [[ $(stat -c %a saved) == 600 ]] || fail "others can read the guest's memory"
}

# A copy of the saved replay whose byte at OFFSET is another, or follows its end.
changed_copy() { # OFFSET
  cp saved changed
  printf '\x99' | dd of=changed bs=1 seek="$1" conv=notrunc status=none
}

case_saved_refused() {
  need_program gcc gcc
  multiboot endless
  local name size
  for name in one two; do
    us record -o "$name" --kernel endless.elf --memory 32M --time-limit 1 --stats "$name.json"
    expect_status 7
  done
  us replay one --goto 100000 --save saved
  expect_status 0
  size=$(stat -c %s saved)
  us replay two --from saved
  expect_error SNAP-005 5
  us replay one --from nowhere
  expect_error SNAP-004 3
  us replay one --from endless.elf
  expect_error SNAP-001 4
  changed_copy 8
  us replay one --from changed
  expect_error SNAP-002 4
  changed_copy 116
  us replay one --from changed
  expect_error SNAP-001 4
  for name in 20 100 200 $((size / 2)) "$size"; do
    changed_copy "$name"
    us replay one --from changed
    expect_error SNAP-003 4
  done
  for name in 60 500 $((size - 1)); do
    head -c "$name" saved >changed
    us replay one --from changed
    expect_error SNAP-003 4
  done
  us replay one --save later
  expect_error SNAP-007 2
  us replay one --from saved --goto 99999
  expect_error SNAP-007 2
  us replay one --goto 1000000000000 --save later
  expect_error SNAP-008 2
  [[ ! -e later ]] || fail "a place that was not reached was saved"
  us replay one --goto 100000 --save .
  expect_error SNAP-004 3
  us replay one --goto 100000 --save nowhere/later
  expect_error SNAP-004 3
  # No room (translated code is in a file too): the older file stays, and no other is left.
  cp saved later
  status=0
  (
    trap '' XFSZ
    ulimit -f 1
    exec "$UNDERSTUDY" replay one --goto 200000 --save later --executor interpret
  ) >out 2>err || status=$?
  expect_error SNAP-004 3
  cmp saved later || fail "the older file was touched"
  [[ $(find . -name 'later*' | wc -l) == 1 ]] || fail "a piece of a file is left"
  # The recording is no longer what it was.
  us replay one --goto "$(json one.json branches)" --save saved
  expect_status 0
  truncate -s "$(($(stat -c %s one/000000.uslog) * 3 / 4))" one/000000.uslog
  us replay one --from saved
  expect_error SNAP-006 5
}

case_progress() {
  need_images
  need_program script bsdutils
  guest record 'i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done' -o recording
  expect_status 0
  us replay recording
  ! grep -q $'\r.*replay: instruction' err || fail "progress where no terminal is"
  script -qec "'$UNDERSTUDY' replay recording >console.txt" /dev/null >typed.txt </dev/null
  tr '\r' '\n' <typed.txt | grep -qE 'replay: instruction [0-9.]+ [kMG], [0-9]+% of the log, [0-9.]+ [kM]/s, [0-9]+ s left' ||
    fail "no progress on the terminal: $(cat typed.txt)"
}
