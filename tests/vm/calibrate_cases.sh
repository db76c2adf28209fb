# Cases of `understudy calibrate`; run_case.sh reads this. None needs a guest image, but the one that records.

case_calibrate_soft() {
  us calibrate --backend soft --skid fixed:100 --quick --json -o host.toml --plot host.svg
  expect_status 0
  expect_json out margin 101
  expect_json out exact true
  expect_json out p50 100
  expect_json out event model
  grep -q '"quirks": \[\]' out || fail "quirks of a clean model"
  grep -qx 'margin = 101' host.toml || fail "no margin of 101 in the profile"
  grep -q '<svg ' host.svg || fail "no chart"
  [[ ! -e host.toml.state ]] || fail "a state file is left over"
  us calibrate check host.toml
  expect_status 0
  us calibrate --backend soft --skid fixed:130 --quick -o other.toml
  expect_status 0
  us calibrate compare host.toml other.toml
  expect_status 5
  grep -q '^CHANGED *skid p50' out || fail "compare does not name the skid"
  sed -i 's/^skid = "fixed:100"/skid = "fixed:140"/; s/fixed:100/fixed:140/' host.toml
  us calibrate check host.toml
  expect_error CAL-004 5
}

case_calibrate_records() {
  need_images
  us calibrate --backend soft --quick -o host.toml
  expect_status 0
  guest record 'echo hello' -o recording --pmu-profile host.toml
  expect_status 0
  us replay recording --stats replay.json
  expect_status 0
  expect_json replay.json landing_overshoots 0
  sed -i '/^\[model\]/,$d; s/^confidence = .*/confidence = "measured"/' host.toml
  sed -i "s/^vendor = .*/vendor = 'GenuineNobody'/; s/^vendor = \"\"/vendor = 'GenuineNobody'/" host.toml
  guest record true -o again --pmu-profile host.toml
  expect_error PMU-021 5
  us replay recording --pmu-profile host.toml
  expect_error PMU-021 5
}

case_calibrate_stopped() {
  "$UNDERSTUDY" calibrate --backend soft --skid heavy-tail:30:20000 --thorough -o host.toml >out 2>err &
  local pid=$! try
  for ((try = 0; try < 600; ++try)); do
    if [[ -e host.toml.state ]]; then break; fi
    sleep 0.05
  done
  kill -INT "$pid"
  status=0
  wait "$pid" || status=$?
  expect_status 7
  [[ -e host.toml.state && ! -e host.toml ]] || fail "no state file, or a profile of a part"
  # Another campaign is not mixed with it.
  us calibrate --backend soft --quick --seed 2 -o host.toml
  expect_status 0
  expect_talk 'is of another campaign: measuring begins anew'
}

case_calibrate_resumed() {
  # What is measured must not depend on having been stopped; times vary.
  local args=(calibrate --backend soft --skid skylake --thorough --seed 3)
  us "${args[@]}" -o whole.toml
  expect_status 0
  "$UNDERSTUDY" "${args[@]}" -o host.toml >out 2>err &
  local pid=$! try
  for ((try = 0; try < 6000; ++try)); do
    if [[ -e host.toml.state ]]; then break; fi
    sleep 0.01
  done
  kill -INT "$pid"
  status=0
  wait "$pid" || status=$?
  expect_status 7
  # With skid enough for a table, or on a busy host before that.
  expect_talk 'the same command goes on (from there|where this one was stopped)'
  us "${args[@]}" -o host.toml
  expect_status 0
  expect_talk '^understudy: goes on after step [1-9][0-9]* of [0-9]+, from host.toml.state'
  [[ ! -e host.toml.state ]] || fail "a state file is left over"
  diff <(grep -v _ns whole.toml) <(grep -v _ns host.toml) || fail "the figures are others than those of one go"
}

case_calibrate_progress() {
  need_program script bsdutils
  us calibrate --backend soft --thorough --seed 2
  expect_status 0
  ! grep -q 'calibrate: .*step' err || fail "progress where no terminal is"
  # Stopped for a while, so that on any machine it takes longer than the line's first wait.
  cat >stopped.sh <<'END'
"$UNDERSTUDY" calibrate --backend soft --thorough --seed 2 >table.txt &
sleep 0.1
kill -STOP $!
sleep 0.5
kill -CONT $!
wait $!
END
  UNDERSTUDY="$UNDERSTUDY" script -qec 'bash stopped.sh' /dev/null >typed.txt </dev/null
  tr '\r' '\n' <typed.txt |
    grep -qE 'calibrate: [a-z ]+, step [0-9]+ of [0-9]+ \([0-9]+%\), [0-9.]+ steps/s, [0-9]+ s left' ||
    fail "no progress on the terminal: $(cat typed.txt)"
  grep -q '^margin ' table.txt || fail "no table"
}

case_calibrate_no_counter() {
  us calibrate --backend soft --cpu 0
  expect_error CAL-001 2
  us calibrate --skid fixed:1
  expect_error CAL-002 2
  us calibrate --backend soft --skid fast
  expect_error PMU-008 2
  us calibrate --quick --json
  if [[ $status == 0 ]]; then
    expect_json out backend perf
    return
  fi
  expect_error 'PMU-01[78]' 3
  expect_json out complete false
  expect_json out id 'PMU-01[78]'
}
