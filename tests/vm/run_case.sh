#!/usr/bin/env bash
# run_case.sh CASE: one case of *cases.sh in a folder of its own, with what all cases share.
#   UNDERSTUDY  the binary          US_IMAGES  the folder of vmlinuz and initrd.img
#   US_MODELLED the binary on a modelled host (tests/modelled)
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/sbin:/usr/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${UNDERSTUDY:?}" "${US_IMAGES:?}"
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*"
  for f in out err; do
    if [[ -f $f ]]; then
      echo "--- $f"
      tail -n 40 "$f"
    fi
  done
  exit 1
}

need_images() {
  [[ -r $US_IMAGES/vmlinuz && -r $US_IMAGES/initrd.img ]] && return
  echo "SKIPPED: no guest images in $US_IMAGES; run ./dev guest"
  exit 77
}

need_program() {
  command -v "$1" >/dev/null && return
  echo "SKIPPED: no $1; apt-get install $2"
  exit 77
}

# us ARG...: runs the binary; its status in $status, its talk in out and err.
us() {
  status=0
  "$UNDERSTUDY" "$@" >out 2>err <"${input:-/dev/null}" || status=$?
}

# guest VERB COMMAND ARG...: runs the verb with the guest images, and COMMAND in the guest.
guest() {
  local verb=$1 command=$2
  shift 2
  us "$verb" --memory 256M --kernel "$US_IMAGES/vmlinuz" --initrd "$US_IMAGES/initrd.img" \
    --cmdline "console=ttyS0 quiet ${extra:-} \"us.run=$command\"" "$@"
}

expect_status() { [[ $status == "$1" ]] || fail "exit status $status instead of $1"; }
# A line of the console; the guest's lines end with CR LF.
expect_line() { tr -d '\r' <out | grep -qxE -- "$1" || fail "no line on the console like: $1"; }
expect_talk() { grep -qE -- "$1" err || fail "nothing on stderr like: $1"; }
# The documented shape of a user's error.
expect_error() {
  expect_status "$2"
  expect_talk "^error\[$1\]: "
  expect_talk '^  seen: '
  [[ $(grep -c '^error' err) == 1 ]] || fail "more than one error"
}
# A value from a JSON document that has one key a line.
json() { sed -n "s/^ *\"$2\": *\"\\{0,1\\}\\([^\",]*\\).*/\\1/p" "$1" | head -n 1; }
expect_json() {
  local value
  value=$(json "$1" "$2")
  [[ $value =~ ^$3$ ]] || fail "$1: $2 is '$value', not like $3"
}

new_disk() {
  truncate -s 48M "$1"
  mke2fs -q -F -t ext4 "$1"
}

# multiboot NAME: NAME.elf from NAME.S.
multiboot() {
  gcc -m32 -nostdlib -static -no-pie -Wl,-Ttext=0x200000,--build-id=none,-z,noexecstack \
    -o "$1.elf" "$here/$1.S"
}

# A web server on loopback that gives out ./web; leaves its port in $port.
serve_web() {
  local busybox server
  busybox=$(find "${UNDERSTUDY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/understudy}/unpacked" \
    -path '*busybox-static*/bin/busybox' -type f 2>/dev/null | sort -V | tail -n 1)
  [[ -n $busybox ]] || { echo "SKIPPED: no busybox in the cache; run ./dev guest"; exit 77; }
  for _ in 1 2 3 4 5 6 7 8; do
    port=$((20000 + RANDOM % 20000))
    "$busybox" httpd -f -p "127.0.0.1:$port" -h web &
    server=$!
    sleep 0.5
    if kill -0 "$server" 2>/dev/null; then return; fi
  done
  fail "no free port for a web server"
}

# shellcheck source=tests/vm/cases.sh
. "$here/cases.sh"
# shellcheck source=tests/vm/pair_cases.sh
. "$here/pair_cases.sh"
# shellcheck source=tests/vm/calibrate_cases.sh
. "$here/calibrate_cases.sh"
# shellcheck source=tests/vm/kvm_cases.sh
. "$here/kvm_cases.sh"
"case_${1:?which case}"
echo "passed"
