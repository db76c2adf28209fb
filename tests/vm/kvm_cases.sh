# shellcheck shell=bash disable=SC2154,SC2034
# The KVM backend. Cases on the modelled host (tests/modelled) run the product's own code down to the system
# calls; `model WORDS` says what the host is like from here on. run_case.sh has the other words.

model() {
  UNDERSTUDY=${US_MODELLED:?}
  export UNDERSTUDY_MODEL=$1
}

# Signals everywhere while it records; other signals, and late alarms, while it replays.
case_kvm_record_replay() {
  need_images
  need_program mke2fs e2fsprogs
  new_disk disk.img
  model seed=1,signals=20000,deliveries=20
  guest record 'modprobe ext4; mount /dev/vda /mnt; head -c 300000 /dev/urandom >/mnt/f; sync; sha256sum /mnt/f; umount /mnt' \
    --backend kvm --ipt-check -o recording --disk disk.img --stats record.json
  expect_status 0
  expect_json record.json ipt_unknown 0
  expect_json record.json instructions 0
  expect_line '[0-9a-f]{64}  /mnt/f'
  e2fsck -f -n disk.img >e2fsck.txt 2>&1 || { cat e2fsck.txt; fail "e2fsck finds errors"; }
  mv out recorded.txt
  rm disk.img
  for host in seed=2,signals=30000,deliveries=30,skid=uniform:0:60 seed=3,signals=5000,deliveries=7,skid=fixed:90; do
    model "$host"
    us replay recording --stats replay.json
    expect_status 0
    expect_talk 'replayed to its end'
    cmp out recorded.txt || fail "the replay's console differs on $host"
    expect_json replay.json final_digest "$(json record.json final_digest)"
    expect_json replay.json instructions 0
    expect_json replay.json landings '[1-9][0-9]*'
    expect_json replay.json ipt_epochs '[1-9][0-9]*'
    expect_json replay.json ipt_unknown 0
    expect_json replay.json ipt_counter_mismatches 0
  done
}

# A counter whose alarm comes later than any margin known without calibration: said, and mended by a profile.
case_kvm_late_counter() {
  need_images
  model seed=4
  guest record 'true' --backend kvm -o recording
  expect_status 0
  model seed=5,skid=fixed:3000
  us replay recording
  expect_error PMU-011 5
  cat >host.toml <<END
schema = "understudy.host-profile.v1"
event = "BR_INST_RETIRED:COND"
margin = 3100
minimum_period = 32
exact = true
END
  us replay recording --pmu-profile host.toml
  expect_status 0
  expect_talk 'replayed to its end'
}

case_kvm_primary_killed() {
  # Longer than elsewhere: two hosts are checked and a state is carried before there is protection.
  ticks=120
  make_pair "modprobe ext4; mount /dev/vda /mnt; i=0; while [ \$i -lt $ticks ]; do i=\$((i+1)); \
echo \$i >/mnt/n\$i; sync; echo tick \$i; sleep 0.1; done; ls /mnt | grep -c ^n; umount /mnt"
  sed -i '1i backend = "kvm"' vm.toml
  model seed=6,signals=30000,deliveries=30,skid=uniform:0:60
  standby --stats standby.json
  model seed=7,signals=20000,deliveries=20
  primary
  wait_until "protection" grep -q '^understudy: protected' primary.err
  seen=$(tr -d '\r' <primary.out | grep -c '^tick' || true)
  wait_until "ticks under protection" ticked $((seen + 5)) primary.out
  kill -9 "$primary"
  end_of "$standby"
  cat primary.err standby.err
  expect_status 0
  grep -q '^understudy: live: generation 2' standby.err || fail "the standby did not go live"
  all_ticks primary.out standby.out
  tr -d '\r' <standby.out | grep -qx "$ticks" || fail "the guest does not find its files"
  clean_disk
}

# A standby that could not run the guest says so before the first byte of its state.
case_kvm_standby_cannot() {
  make_pair
  sed -i '1i backend = "kvm"' vm.toml
  model stock
  standby
  model seed=8
  primary
  wait_until "the refusal" grep -q 'this host cannot do record_kvm_patched: time-exits' primary.err standby.err
  kill "$primary" "$standby"
}

case_kvm_refused() {
  need_program gcc gcc
  multiboot count
  for host in stock:time-exits no-kvm:kvm no-counter:branch-counter zen:processor; do
    model "${host%:*}"
    us record --backend kvm --kernel count.elf --memory 32M --debug-exit -o recording
    expect_error KVM-009 3
    expect_talk "seen: .*\<${host#*:} \("
    [[ ! -e recording ]] || fail "a recording was begun"
    # Where nobody insists, the software processor does it.
    us run --kernel count.elf --memory 32M --debug-exit --stats run.json
    expect_status 0
    expect_json run.json instructions '[1-9][0-9]*'
  done
  # The guest's word, that it reads no time, is enough on a stock kernel.
  model stock
  us record --backend kvm --cooperative --kernel count.elf --memory 32M --debug-exit -o recording
  expect_status 0
  us replay recording
  expect_status 0
  # And --cpu names a processor that is there.
  us record --backend kvm --cooperative --cpu 77 --kernel count.elf --memory 32M --debug-exit -o other
  expect_error KVM-011 3
}

# By steps: recorded without a counter, replayed with one, and the other way round.
kvm_steps() {
  need_program gcc gcc
  multiboot count
  us record --backend kvm --kvm-steps --kernel count.elf --memory 32M --debug-exit -o stepped --stats record.json
  expect_status 0
  expect_line 'sum 00[0-9A-F]{6}'
  mv out stepped.txt
  us replay stepped --kvm-steps --stats replay.json
  expect_status 0
  expect_json replay.json final_digest "$(json record.json final_digest)"
  cmp out stepped.txt || fail "the replay's console differs"
}
case_kvm_steps() {
  model stock,no-counter
  kvm_steps
  model seed=9,skid=uniform:0:60
  us replay stepped
  expect_status 0
  us record --backend kvm --kernel count.elf --memory 32M --debug-exit -o counted
  expect_status 0
  model stock,no-counter
  us replay counted --kvm-steps
  expect_status 0
}
case_kvm_here() {
  if ! "$UNDERSTUDY" hostcheck --need record_kvm_steps >hostcheck.txt 2>&1; then
    grep -E '^(fail|record_kvm_steps)' hostcheck.txt
    echo "SKIPPED: no /dev/kvm that runs a guest here"
    exit 77
  fi
  kvm_steps
  kvm_calibrate_steps
}

# The counter of a guest: measured, checked again, and used by a replay on a host of that skid.
case_kvm_calibrate() {
  need_program gcc gcc
  model seed=11,signals=30000,skid=uniform:0:60
  us calibrate --backend kvm --quick --json -o host.toml
  expect_status 0
  expect_json out backend kvm
  expect_json out exact true
  expect_json out event BR_INST_RETIRED:COND
  expect_json out margin '(6[1-9]|[78][0-9])'
  grep -q '"quirks": \[\]' out || fail "quirks of a clean model"
  grep -qx "margin = $(json out margin)" host.toml || fail "another margin in the profile"
  us calibrate check host.toml --backend kvm
  expect_status 0
  multiboot count
  model seed=12,signals=5000
  us record --backend kvm --kernel count.elf --memory 32M --debug-exit -o recording --stats record.json
  expect_status 0
  for seed in 13 14; do
    model "seed=$seed,skid=uniform:0:60"
    us replay recording --pmu-profile host.toml --stats replay.json
    expect_status 0
    expect_json replay.json final_digest "$(json record.json final_digest)"
    expect_json replay.json landings '[1-9][0-9]*'
    expect_json replay.json landing_overshoots 0
  done
}

# Where something is missing the verb names it, once.
case_kvm_calibrate_refused() {
  for host in no-kvm:KVM-001 no-counter:PMU-018 zen:PMU-017; do
    model "${host%:*}"
    us calibrate --backend kvm --quick -o host.toml
    expect_error "${host#*:}" 3
    [[ ! -e host.toml && ! -e host.toml.state ]] || fail "a profile of nothing"
  done
  us calibrate --backend kvm --quick --cpu 77
  expect_error PMU-017 3
  model seed=1
  us calibrate --backend kvm --quick --cpu 77
  expect_error KVM-011 3
}

# Without a counter what is measured is stepping: exact, and stopped at the very branch.
kvm_calibrate_steps() {
  us calibrate --backend kvm --kvm-steps --quick --json -o steps.toml
  expect_status 0
  expect_json out backend kvm
  expect_json out event steps
  expect_json out exact true
  expect_json out margin 1
  expect_json out step_ns '[0-9]+(\.[0-9]+)?'
  expect_json out read_ns null
}
case_kvm_calibrate_steps() {
  model stock,no-counter
  kvm_calibrate_steps
}

# A margin of steps, or of a model, is none of the counter's that counts here; and who is stepped needs none.
case_kvm_other_counter() {
  need_program gcc gcc
  multiboot count
  local guest=(--kernel count.elf --memory 32M --debug-exit) profile
  model seed=15,skid=uniform:0:60
  us calibrate --backend kvm --kvm-steps --quick -o steps.toml
  expect_status 0
  us calibrate --backend kvm --quick -o counter.toml
  expect_status 0
  us calibrate --backend soft --quick -o modelled.toml
  expect_status 0
  us record --backend kvm "${guest[@]}" -o counted
  expect_status 0
  for profile in steps modelled; do
    printf 'backend = "kvm"\n[pmu]\nprofile = "%s.toml"\n' "$profile" >vm.toml
    for verb in "record --backend kvm --pmu-profile $profile.toml -o other" "record vm.toml -o other" "run vm.toml"; do
      # shellcheck disable=SC2086
      us $verb "${guest[@]}"
      expect_error PMU-023 5
    done
    us vm check vm.toml --kernel count.elf
    expect_error PMU-023 5
    # Where nobody says which backend, it is known once this host was looked at.
    us record --pmu-profile "$profile.toml" "${guest[@]}" -o other
    expect_error PMU-023 5
    [[ ! -e other ]] || fail "a recording was begun"
    us replay counted --pmu-profile "$profile.toml"
    expect_error PMU-023 5
  done

  us record --backend kvm --kvm-steps --pmu-profile modelled.toml "${guest[@]}" -o other
  expect_error PMU-023 5
  us record --backend kvm --kvm-steps --pmu-profile steps.toml "${guest[@]}" -o stepped
  expect_status 0
  us replay stepped --kvm-steps --pmu-profile counter.toml
  expect_status 0
  # The recorded profile speaks of steps: a counter lands with its own margin.
  us replay stepped --stats replay.json
  expect_status 0
  expect_json replay.json landings '[1-9][0-9]*'
  expect_json replay.json landing_overshoots 0

  # The software processor models the one and is exact with the other.
  us record --backend soft --pmu-profile modelled.toml "${guest[@]}" -o soft
  expect_status 0
  us replay soft
  expect_status 0
  us replay soft --pmu-profile steps.toml
  expect_status 0
}

# Both sides of a pair refuse such a profile: at once where their own description says which backend, else a
# standby refuses the primary.
case_kvm_pair_other_counter() {
  make_pair
  profile_of skylake 101
  cp vm.toml auto.toml
  sed -i '1i backend = "kvm"' vm.toml
  model seed=16
  us protect vm.toml --pmu-profile profile.toml
  expect_error PMU-023 5
  us standby vm.toml --listen 127.0.0.1:0 --pmu-profile profile.toml
  expect_error PMU-023 5
  cp vm.toml kvm.toml
  mv auto.toml vm.toml
  standby --pmu-profile profile.toml
  mv kvm.toml vm.toml
  primary
  wait_until "the refusal" grep -q 'the host profile of the standby is of another counter \[PMU-023\]' primary.err
  kill "$primary" "$standby"
}

# What somebody with a Xeon runs once, on the model: every question answered; and what spoils an answer.
case_kvm_acceptance() {
  model seed=10,skid=fixed:9
  "$here/../../tools/hardware-acceptance" -b "$UNDERSTUDY" -n 2000 -o report.txt >out 2>err || fail "exit status $?"
  for answer in '1\. \[ok\] exact under [0-9]+ exits by signals' '1\. \[ok\] exact under [0-9]+ exits by steps' \
    '2\. \[ok\] an alarm of a guest was at most 9 branches late' '3\. \[ok\] .*stops, and goes on' \
    '4\. \[ok\] .*branches traced of' '5\. \[ok\] a cut of the trace costs' '6\. \[ok\] deferred TIPs: 0, long TNTs: 0'; do
    grep -qE "^$answer" report.txt || fail "no answer like: $answer"
  done
  grep -q '^0 surprises, 0 not answered' report.txt || fail "surprises on the model"
  grep -q '"uncalibrated_margin"' report.txt || fail "the report does not hold what hostcheck printed"

  model seed=10,overcount=7
  status=0
  "$here/../../tools/hardware-acceptance" -b "$UNDERSTUDY" -n 2000 -o report.txt >out 2>err || status=$?
  expect_status 1
  grep -q '^1\. \[surprise\] NOT exact under exits by alarms' report.txt || fail "an overcount is no surprise"
  model no-counter
  status=0
  "$here/../../tools/hardware-acceptance" -b "$UNDERSTUDY" -n 100 -o report.txt >out 2>err || status=$?
  expect_status 3
  grep -q '^0 surprises, [1-9]' report.txt || fail "a host without a counter surprises"
}
