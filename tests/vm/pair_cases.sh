# shellcheck shell=bash disable=SC2154,SC2034
# Cases with two sides, both on this host; run_case.sh has the words they use.

ticks=40
# Writes, syncs and says a number, again and again; the file system at the end must hold the last.
pair_work="modprobe ext4; mount /dev/vda /mnt; i=0; while [ \$i -lt $ticks ]; do i=\$((i+1)); \
echo \$i >/mnt/n\$i; sync; echo tick \$i; sleep 0.05; done; ls /mnt | grep -c ^n; umount /mnt"

# make_pair [COMMAND]: key, disk, description; `primary` and `standby` start the sides.
make_pair() {
  need_images
  need_program mke2fs e2fsprogs
  new_disk disk.img
  (umask 077 && head -c 32 /dev/urandom >key)
  export UNDERSTUDY_RUNTIME_DIR=$work/run
  cat >vm.toml <<END
name = "pair"
memory = "128M"
[boot]
kernel = "$US_IMAGES/vmlinuz"
initrd = "$US_IMAGES/initrd.img"
cmdline = "console=ttyS0 quiet us.ip=none us.run=\"${1:-$pair_work}\""
[[disk]]
path = "disk.img"
[ft]
credentials = "psk:key"
END
}

# standby ARG...: in the background, at a port of its own.
standby() {
  rm -f standby.err
  "$UNDERSTUDY" standby vm.toml --listen 127.0.0.1:0 "$@" >standby.out 2>standby.err </dev/null &
  standby=$!
  wait_until "the standby" grep -q '^understudy: listening' standby.err
  port=$(sed -n 's/^understudy: listening: .*:\([0-9]*\)$/\1/p' standby.err)
}
primary() {
  "$UNDERSTUDY" protect vm.toml --secondary "127.0.0.1:$port" "$@" >primary.out 2>primary.err </dev/null &
  primary=$!
}

wait_until() { # WHAT COMMAND...
  local what=$1 n
  shift
  for ((n = 0; n < 2400; n++)); do
    if "$@" 2>/dev/null; then return; fi
    sleep 0.1
  done
  tail -n 20 ./*.err ./*.out
  fail "waited 240 s for $what"
}
ticked() { grep -q "tick $1" "$2"; }
end_of() { # PROCESS: its exit status in $status
  status=0
  wait "$1" || status=$?
}

# Every tick once, in order; where sides changed, one may be there twice.
all_ticks() {
  cat "$@" | tr -d '\r' | sed -n 's/.*tick \([0-9]*\)$/\1/p' | uniq >seen
  seq "$ticks" | cmp - seen || fail "ticks are missing, out of order or undone: $(tr '\n' ' ' <seen)"
}
clean_disk() { e2fsck -f -n disk.img >e2fsck.txt 2>&1 || { cat e2fsck.txt; fail "e2fsck finds errors"; }; }

case_pair_primary_killed() {
  make_pair
  standby --stats standby.json
  primary
  wait_until "tick 10" ticked 10 primary.out
  grep -q '^understudy: protected' primary.err || fail "not protected by tick 10"
  kill -9 "$primary"
  end_of "$standby"
  expect_status 0
  grep -q '^understudy: live: generation 2' standby.err || fail "the standby did not go live"
  all_ticks primary.out standby.out
  tr -d '\r' <standby.out | grep -qx "$ticks" || fail "the guest does not find its files"
  clean_disk
  # Its generation given back, the VM may start anywhere; the old side's name means nothing special.
  cat standby.err
}

case_pair_secondary_killed() {
  make_pair
  standby
  primary
  wait_until "tick 5" ticked 5 primary.out
  kill -9 "$standby"
  wait_until "the primary to be alone" grep -q '^understudy: alone' primary.err
  standby
  "$UNDERSTUDY" enable pair --secondary "127.0.0.1:$port" >enable.txt
  end_of "$primary"
  expect_status 0
  [[ $(grep -c '^understudy: protected' primary.err) == 2 ]] || fail "not protected a second time"
  all_ticks primary.out
  end_of "$standby"
  expect_status 0
  grep -q "final digest .* on both sides" standby.err || fail "the second standby did not see the same end"
  clean_disk
}

# A bit of the secondary's memory flips while it follows: seen at the next epoch that compares memory, and mended.
case_pair_diverged() {
  make_pair
  printf '[ipt]\ncheck = true\n' >>vm.toml
  standby --plant-fault 400
  primary
  wait_until "the divergence" grep -q '^understudy: alone: .*diverged' primary.err
  "$UNDERSTUDY" status pair --json >status.json
  expect_json status.json divergences 1
  # An epoch's digests, or an input's point that the path no longer comes by.
  grep -qE '"last_divergence": "(epoch [0-9]+ differs in |.*point)' status.json || {
    cat status.json
    fail "status does not say what differed"
  }
  end_of "$primary"
  expect_status 0
  [[ $(grep -c '^understudy: protected' primary.err) == 2 ]] || fail "not protected a second time"
  all_ticks primary.out
  end_of "$standby"
  expect_status 0
  grep -q "final digest .* on both sides" standby.err || fail "the mended side did not see the same end"
  clean_disk
}

case_pair_failover() {
  make_pair
  standby
  primary
  wait_until "tick 5" ticked 5 primary.out
  wait_until "protection" grep -q '^understudy: protected' primary.err
  "$UNDERSTUDY" failover pair >failover.txt
  end_of "$primary"
  expect_status 0
  grep -q 'handed over' primary.err || fail "the primary does not say that it handed over"
  end_of "$standby"
  expect_status 0
  all_ticks primary.out standby.out
  clean_disk
}

case_pair_stop() {
  make_pair 'while :; do sleep 1; echo on; done'
  standby
  primary
  wait_until "protection" grep -q '^understudy: protected' primary.err
  "$UNDERSTUDY" status pair --json >status.json
  expect_json status.json state protected
  expect_json status.json generation 1
  "$UNDERSTUDY" status pair --role secondary --json >standby.json
  expect_json standby.json role secondary
  "$UNDERSTUDY" stop pair >stop.txt
  end_of "$primary"
  expect_status 0
  end_of "$standby"
  expect_status 0
  ! grep -q '^understudy: live' standby.err || fail "the standby went live after a stop"
}

# The secondary lands with its host's margin, late as that host's counter is; a margin too small is seen.
case_pair_profile() {
  make_pair
  printf '[pmu]\nprofile = "profile.toml"\n' >>vm.toml
  profile_of skylake 101
  standby --stats standby.json
  primary
  end_of "$primary"
  expect_status 0
  end_of "$standby"
  expect_status 0
  expect_json standby.json landing_overshoots 0
  expect_json standby.json landing_skid_max '[1-9][0-9]*'
  grep -q 'final digest [0-9a-f]* on both sides' standby.err || fail "the sides did not end alike"

  profile_of fixed:100 10
  standby --once
  profile_of skylake 101
  primary
  end_of "$standby"
  expect_status 8
  grep -qE '^understudy: diverged: landing ran past its target with a margin of 10 branches \[PMU-011\]' standby.err ||
    { cat standby.err; fail "the overshoot is not named"; }
  "$UNDERSTUDY" stop pair >stop.txt
  end_of "$primary"
  expect_status 0

  profile_of none 0
  sed -i '/^margin/a quirks = ["smi-leak"]' profile.toml
  us protect vm.toml
  expect_error PMU-010 3
  us standby vm.toml --listen 127.0.0.1:0
  expect_error PMU-010 3
  profile_of none 0
  sed -i '/^\[model\]/,$d' profile.toml
  printf 'confidence = "measured"\nexact = true\n[host]\nvendor = "GenuineNobody"\n' >>profile.toml
  mv profile.toml other.toml
  sed -i '/^\[pmu\]/,$d' vm.toml
  us protect vm.toml --pmu-profile other.toml
  expect_error PMU-021 5
  us standby vm.toml --listen 127.0.0.1:0 --pmu-profile other.toml
  expect_error PMU-021 5
}

case_pair_wrong_key() {
  make_pair 'sleep 2; echo done'
  standby
  (umask 077 && head -c 32 /dev/urandom >other)
  primary --credentials psk:other
  end_of "$primary"
  expect_status 0
  ! grep -q '^understudy: protected' primary.err || fail "protected with another key"
  grep -q 'CHAN-008' standby.err || fail "the standby does not name the wrong key"
  kill "$standby"
  end_of "$standby"
  expect_status 0
}

case_pair_not_free() {
  make_pair
  standby
  primary
  wait_until "tick 5" ticked 5 primary.out
  kill -9 "$primary"
  # Started again at once, as a service manager would: it waits for the take-over and finds it done.
  us protect vm.toml --secondary 127.0.0.1:1
  expect_error FT-004 9
  grep -q 'did not end in order' err || fail "it does not say what it waits for"
  wait_until "the standby to be live" grep -q '^understudy: live' standby.err
  us protect vm.toml --secondary 127.0.0.1:1
  expect_error FT-004 9
  end_of "$standby"
  expect_status 0
  clean_disk
}

case_pair_no_credentials() {
  make_pair
  sed -i '/credentials/d' vm.toml
  us protect vm.toml --secondary 127.0.0.1:1
  expect_error FT-002 2
}

case_pair_disable() {
  make_pair 'while :; do sleep 1; echo on; done'
  standby
  primary
  wait_until "protection" grep -q '^understudy: protected' primary.err
  "$UNDERSTUDY" disable pair >disable.txt
  wait_until "the standby to wait" grep -q '^understudy: waiting: turned off' standby.err
  ! grep -q '^understudy: live' standby.err || fail "the standby went live when it was let go"
  "$UNDERSTUDY" status pair --json >status.json
  expect_json status.json state alone
  "$UNDERSTUDY" enable pair --secondary "127.0.0.1:$port" >enable.txt
  protected_twice() { [[ $(grep -c '^understudy: protected' primary.err) == 2 ]]; }
  wait_until "protection once more" protected_twice
  "$UNDERSTUDY" stop pair >stop.txt
  end_of "$primary"
  expect_status 0
  end_of "$standby"
  expect_status 0
}
