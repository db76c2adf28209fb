#!/usr/bin/env bash
# The demo, told in plain sentences: a protected VM survives its primary's death (demo-pair.sh, over a
# VDE switch and, where root can, over tap devices); then a run of Debian's kernel with disk and
# network is recorded and replayed. Leaves nothing behind but build/demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
understudy=${UNDERSTUDY:-build/release/understudy}
images=build/guest
out=build/demo
cache=${UNDERSTUDY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/understudy}
download_mib=4

step() { printf '\n== %s\n' "$*"; }
fail() {
  echo "demo: FAILED: $*" >&2
  exit 1
}

# A number from a statistics file: stat FILE KEY.
stat_of() { sed -n "s/^ *\"$2\": *\"\\{0,1\\}\\([^\",]*\\).*/\\1/p" "$1" | head -n 1; }

new_disk() {
  rm -f "$1"
  truncate -s 64M "$1"
  PATH=$PATH:/sbin:/usr/sbin mke2fs -q -F -t ext4 "$1"
}

check_disk() {
  PATH=$PATH:/sbin:/usr/sbin e2fsck -f -n "$1" >"$out/e2fsck.txt" 2>&1 ||
    fail "e2fsck -f finds errors on the disk; see $out/e2fsck.txt"
}

# A web server on the host's loopback, on a port that was free a moment ago; the guest reaches it at
# 10.0.2.2. The program is the busybox that the guest images were made with.
serve() {
  local busybox try
  busybox=$(find "$cache/unpacked" -path '*busybox-static*/bin/busybox' -type f 2>/dev/null | sort -V | tail -n 1)
  [[ -n $busybox ]] || fail "no busybox in $cache; ./dev guest puts it there"
  mkdir -p "$out/web"
  head -c $((download_mib << 20)) /dev/urandom >"$out/web/file"
  sum=$(sha256sum <"$out/web/file" | cut -d ' ' -f 1)
  for try in 1 2 3 4 5; do
    port=$((20000 + (RANDOM % 20000)))
    "$busybox" httpd -f -p "127.0.0.1:$port" -h "$out/web" 2>/dev/null &
    server=$!
    sleep 0.3
    if kill -0 "$server" 2>/dev/null; then return; fi
    echo "demo: port $port is taken (attempt $try)" >&2
  done
  fail "no free port for the web server"
}

# options DISK: what says the VM, in the array vm.
options() {
  vm=(--name demo --memory 256M --kernel "$images/vmlinuz" --initrd "$images/initrd.img"
    --cmdline "console=ttyS0 quiet us.url=http://10.0.2.2:$port/file us.sum=$sum us.run=/us/demo.sh"
    --disk "$1" --net slirp)
}

# Tap devices need root, the tun device and the right to make a network namespace.
can_tap() {
  [[ $(id -u) == 0 && -c /dev/net/tun ]] || return 1
  ip netns add "understudy-probe-$$" 2>/dev/null || return 1
  ip netns delete "understudy-probe-$$"
}

main() {
  mkdir -p "$out"
  echo "### A protected VM over a VDE switch (no root needed)"
  tools/dev/demo-pair.sh vde
  if can_tap; then
    printf '\n### The same over tap devices and a bridge\n'
    tools/dev/demo-pair.sh tap
  else
    printf '\nNot root, or no tap devices here: the same over a bridge is left out.\n'
  fi
  printf '\n### A recording and its replay\n'
  serve
  trap 'kill "$server" 2>/dev/null || true' EXIT

  step "Debian's stock kernel boots, uses disk and network, and powers off; all of it is recorded"
  rm -rf "$out/recording"
  new_disk "$out/recorded.img"
  options "$out/recorded.img"
  "$understudy" record -o "$out/recording" "${vm[@]}" --stats "$out/record.json" </dev/null |
    tee "$out/record.txt"
  grep -q '^demo: done' "$out/record.txt" || fail "the guest did not finish its work"
  check_disk "$out/recorded.img"
  echo "Recorded: $(stat_of "$out/record.json" records) records in $(stat_of "$out/record.json" log_bytes)" \
    "bytes, most of them what it read from disk and network."

  step "The recording, replayed: no disk, no network, no clock"
  "$understudy" replay "$out/recording" --stats "$out/replay.json" </dev/null |
    tee "$out/replay.txt"
  cmp "$out/record.txt" "$out/replay.txt" || fail "the replayed console differs from the recorded one"
  local recorded replayed divergences
  recorded=$("$understudy" log info --json "$out/recording" | tr ',' '\n' |
    sed -n 's/.*"final_digest": *"\([^"]*\)".*/\1/p')
  replayed=$(stat_of "$out/replay.json" final_digest)
  divergences=$(stat_of "$out/replay.json" divergences)
  echo "digest of the machine at the end, recorded: $recorded"
  echo "digest of the machine at the end, replayed: $replayed"
  [[ -n $recorded && $recorded == "$replayed" ]] || fail "the digests differ"
  [[ $divergences == 0 ]] || fail "$divergences divergences"
  echo "Equal, as is every byte of the console; $(stat_of "$out/replay.json" verified_epochs) epochs" \
    "were compared on the way, $(stat_of "$out/replay.json" landings) inputs landed on their exact instruction."
}

main
