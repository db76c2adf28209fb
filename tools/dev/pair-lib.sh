# A protected pair on one machine, for the demo and the long tests: networks, descriptions, processes.
# The caller sets: way (vde or tap), out (a folder), run (a short-named folder for sockets), understudy,
# images, client (build/release/bench/ft/redis_client, its neighbours beside it), guest_run (what the guest runs) and memory.
guest_address=10.0.2.15
started=()

step() { printf '\n== %s\n' "$*"; }
fail() {
  echo "FAILED: $*" >&2
  tail -n 5 -- "$out"/*.log >&2 || true
  exit 1
}

# In the background, ended when the demo ends.
start() {
  local log=$1
  shift
  "$@" >"$log.out" 2>"$log.log" </dev/null &
  started+=($!)
  last=$!
}

clean_up() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
  [[ $way != tap ]] || remove_bridge
  rm -rf "$run"
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "waited $limit s for $what"
    sleep 0.1
  done
}

# --- Networks: a switch that both sides plug into, and a way for the client to reach the guest.

free_port() {
  local port
  for _ in 1 2 3 4 5 6 7 8 9; do
    port=$((20000 + RANDOM % 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

make_switch() {
  # It ends when its standard input does, unless it is a daemon.
  vde_switch -sock "$run/switch" -daemon -pidfile "$run/switch.pid"
  wait_for 5 "the switch" test -s "$run/switch.pid"
  started+=("$(<"$run/switch.pid")")
  client_port=$(free_port)
  # A user-mode router on the switch: it, not either side, holds the client's connection.
  start "$out/router" "$(dirname "$client")/router" "$run/switch" "$client_port" "$guest_address" 6379
  wait_for 5 "the router" grep -q "^router:" "$out/router.out"
  client_host=127.0.0.1 guest_ip=dhcp
  net_primary=vde:$run/switch net_standby=vde:$run/switch
  inside=()
}

# A bridge and one tap device a side in a namespace of their own; the client sits on the bridge, so
# its connection ends in the kernel.
space=understudy-demo-$$
make_bridge() {
  local side
  ip netns add "$space"
  inside=(ip netns exec "$space")
  "${inside[@]}" ip link set lo up
  "${inside[@]}" ip link add br0 type bridge
  "${inside[@]}" ip address add 10.0.2.2/24 dev br0
  for side in primary standby; do
    "${inside[@]}" ip tuntap add "$side" mode tap
    "${inside[@]}" ip link set "$side" master br0 up
  done
  "${inside[@]}" ip link set br0 up
  client_host=$guest_address client_port=6379 guest_ip=$guest_address/24,10.0.2.2
  net_primary=tap:primary net_standby=tap:standby
}
make_network() {
  case $way in
    vde) make_switch ;;
    tap) make_bridge ;;
    *) fail "no such network: $way" ;;
  esac
}
remove_bridge() { ip netns delete "$space" 2>/dev/null || true; }

# --- The pair

describe() { # FILE NET
  cat >"$1" <<END
name = "demo"
memory = "${memory:-128M}"
[boot]
kernel = "$images/vmlinuz"
initrd = "$out/initrd.img"
cmdline = "console=ttyS0 quiet us.ip=$guest_ip us.run=$guest_run ${guest_options:-}"
[[disk]]
path = "disk.img"
[[net]]
backend = "$2"
[ft]
secondary = "$log_host:$log_port"
arbiter = "file:$out/arbiter"
credentials = "psk:$out/key"
END
}

# The pair's key, disk, guest image and descriptions.
make_pair() {
  log_host=${log_host:-127.0.0.1}
  log_port=$(free_port)
  cat "$images/initrd.img" "$images/redis.img" >"$out/initrd.img"
  truncate -s 256M "$out/disk.img"
  PATH=$PATH:/sbin:/usr/sbin mke2fs -q -F -t ext4 "$out/disk.img"
  (umask 077 && head -c 32 /dev/urandom >"$out/key")
  describe "$out/primary.toml" "$net_primary"
  describe "$out/standby.toml" "$net_standby"
}

check_disk() {
  PATH=$PATH:/sbin:/usr/sbin e2fsck -f -n "$out/disk.img" >"$out/e2fsck.log" 2>&1 ||
    fail "e2fsck -f finds errors on the disk; see $out/e2fsck.log"
}

# kill -9, without bash's word on it.
murder() {
  kill -9 "$1"
  wait "$1" 2>/dev/null || true
}

panel() { "${inside[@]}" "$understudy" status demo || true; }
state_is() { "${inside[@]}" "$understudy" status demo --json | grep -q "\"state\": *\"$1\""; }
written() { [[ -s $out/progress && $(<"$out/progress") -ge $1 ]]; }
field() { sed -n "s/.*\"$2\": *\"\\{0,1\\}\\([^\",}]*\\).*/\\1/p" "$1" | head -n 1; }

# --- For a VM that goes from side to side

# The network of the side that died is free for the next standby.
swap_networks() {
  local swap=$net_primary
  net_primary=$net_standby
  net_standby=$swap
  describe "$out/standby.toml" "$net_standby"
}

protected() { "${inside[@]}" "$understudy" status demo --role primary --json | grep -q '"state": *"protected"'; }

# The standby that start_standby began becomes the live VM's secondary.
enable_standby() { # WHEN
  "${inside[@]}" "$understudy" enable demo --secondary "127.0.0.1:$log_port" >"$out/enable.out" 2>&1 ||
    fail "enable: $(cat "$out/enable.out")"
  wait_for 60 "protection $1" protected
}

# A protected VM with Redis and a client that writes: live, other, client_pid. Needs start_standby N.
start_vm_and_client() {
  rm -rf "$out"
  mkdir -p "$out"
  out=$(realpath "$out")
  run=$(mktemp -d "${TMPDIR:-/tmp}/understudy-long.XXXXXX")
  trap clean_up EXIT
  export UNDERSTUDY_RUNTIME_DIR=$run/control
  make_network
  make_pair
  start_standby 0
  start "$out/primary" "${inside[@]}" "$understudy" protect "$out/primary.toml" --node test/primary \
    --secondary "127.0.0.1:$log_port"
  live=$last
  wait_for 120 "Redis" grep -q "Server initialized" "$out/primary.out"
  wait_for 60 "protection" protected
  start "$out/client" "${inside[@]}" "$client" "$client_host" "$client_port" 86400 --progress "$out/progress"
  client_pid=$last
  wait_for 60 "the first writes" written 10
}

# Ends the writing and judges it.
end_client() {
  kill -USR1 "$client_pid"
  wait "$client_pid" || fail "the client lost writes or its connection: $(cat "$out/client.out" "$out/client.log")"
  wait "$live" || fail "the live side ended with status $?"
  ! grep -l diverged "$out"/*.log || fail "a side diverged"
  check_disk
}
