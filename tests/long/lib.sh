# shellcheck shell=bash
# What the long forms share.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/sbin:/usr/sbin
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
UNDERSTUDY=${UNDERSTUDY:-$root/build/release/understudy}
US_IMAGES=${US_IMAGES:-$root/build/guest}
[[ -x $UNDERSTUDY && -r $US_IMAGES/vmlinuz ]] || {
  echo "build first: ./dev build && ./dev guest" >&2
  exit 3
}
work=$(mktemp -d)
# What a script starts in the background, it puts here.
started=()
clean_up() {
  local pid
  for pid in ${started[@]+"${started[@]}"}; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean_up EXIT

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# A value from a JSON document that has one key a line.
json() { sed -n "s/^ *\"$2\": *\"\\{0,1\\}\\([^\",]*\\).*/\\1/p" "$1" | head -n 1; }

# The arguments of a guest whose kernel command line says $1.
guest_of() {
  guest=(--memory 256M --kernel "$US_IMAGES/vmlinuz" --initrd "$US_IMAGES/initrd.img"
    --cmdline "console=ttyS0 quiet panic=-1 $1")
}

# A web server on loopback that gives out the folder $1; leaves its port in $web_port.
serve_web() {
  local busybox server
  busybox=$(find "${UNDERSTUDY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/understudy}/unpacked" \
    -path '*busybox-static*/bin/busybox' -type f 2>/dev/null | sort -V | tail -n 1)
  [[ -n $busybox ]] || fail "no busybox in the cache; run ./dev guest"
  for _ in 1 2 3 4 5 6 7 8; do
    web_port=$((20000 + RANDOM % 20000))
    "$busybox" httpd -f -p "127.0.0.1:$web_port" -h "$1" &
    server=$!
    sleep 0.5
    if kill -0 "$server" 2>/dev/null; then
      started+=("$server")
      return
    fi
  done
  fail "no free port for a web server"
}

# wait_for SECONDS COMMAND...
wait_for() {
  local left=$(($1 * 5))
  shift
  until "$@"; do
    ((left-- > 0)) || return 1
    sleep 0.2
  done
}
