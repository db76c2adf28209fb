#!/usr/bin/env bash
# Makes OUT/root.img: a Debian root file system on a raw ext4 disk, for tests and demos that want a
# whole distribution. Boots with OUT/vmlinuz and OUT/initrd.img (build.sh), the disk as /dev/vda and
#   us.root=/dev/vda              to systemd and a login prompt on the serial console (root, no password)
#   us.root=/dev/vda us.run="..."  to one command inside it, then power-off
#   tools/guest/rootfs.sh [OUT]
# Kept in the cache and copied from there; made anew when this script changes, or with --force.
# UNDERSTUDY_MIRROR names another Debian mirror. Not the same to the byte each time, unlike the
# initramfs.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
force=
if [[ ${1:-} == --force ]]; then
  force=1
  shift
fi
out=${1:-$(cd "$here/../.." && pwd)/build/guest}
# shellcheck source=tools/guest/lib.sh
. "$here/lib.sh"

suite=bookworm
size=1536M
mirror=${UNDERSTUDY_MIRROR:-http://deb.debian.org/debian}
packages=systemd-sysv,udev,dbus,e2fsprogs,iproute2,python3,libpython3.11-testsuite,sqlite3,openssl
packages+=,stress-ng,redis-server,redis-tools,wget,ca-certificates

# What is written into the new tree ($1 in mmdebstrap's hooks), as shell for `sh -c`.
configure_tree=$(
  cat <<'HOOK'
set -e
echo guest >"$1/etc/hostname"
echo '/dev/vda / ext4 defaults 0 1' >"$1/etc/fstab"
echo "nameserver 10.0.2.3" >"$1/etc/resolv.conf"
sed -i 's/^root:[^:]*:/root::/' "$1/etc/shadow"
mkdir -p "$1/etc/systemd/network" "$1/us"
# The host may be slow or busy: no unit fails for having waited.
mkdir -p "$1/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultTimeoutStartSec=15min\nDefaultDeviceTimeoutSec=15min\n' \
  >"$1/etc/systemd/system.conf.d/patient.conf"
printf '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n' >"$1/etc/systemd/network/eth0.network"
chroot "$1" systemctl -q enable systemd-networkd serial-getty@ttyS0.service
chroot "$1" systemctl -q disable redis-server e2scrub_reap.service apt-daily.timer \
  apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
HOOK
)

# A plain bind mount of the tree has none of the mounts (proc, sys) that lie in it meanwhile.
# IMAGE comes from the environment.
fill_image=$(
  cat <<'HOOK'
set -e
plain=$(mktemp -d)
mount --bind "$1" "$plain"
mke2fs -q -F -t ext4 -L root -d "$plain" "$IMAGE"
umount "$plain"
rmdir "$plain"
HOOK
)

make_image() {
  local target=$1 work status=0
  work=$(mktemp -d)
  # In mmdebstrap's user namespace "root" is another user of the host's: it must reach the file.
  chmod 755 "$work"
  truncate -s "$size" "$work/root.img"
  chmod 666 "$work/root.img"
  say "making a Debian $suite root file system (some minutes)"
  IMAGE=$work/root.img mmdebstrap --quiet --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="$configure_tree" \
    --customize-hook="$fill_image" \
    "$suite" /dev/null "$mirror" >"$work/log" 2>&1 || status=$?
  if [[ $status != 0 ]]; then
    tail -n 20 "$work/log" | sed 's/^/guest: mmdebstrap: /' >&2
    rm -rf "$work"
    die GUEST-004 "cannot make the Debian root file system" "mmdebstrap ended with status $status" \
      "a Debian mirror, and root or user namespaces" "see the lines above; UNDERSTUDY_MIRROR names another mirror"
  fi
  cp --sparse=always "$work/root.img" "$target.new"
  chmod 644 "$target.new"
  mv "$target.new" "$target"
  rm -rf "$work"
}

main() {
  need_tool mmdebstrap mmdebstrap
  need_tool mke2fs e2fsprogs
  local cache image key
  cache=$(cache_folder)
  key=$(sha256sum <"${BASH_SOURCE[0]}" | cut -c 1-16)
  image=$cache/root-$suite-$key.img
  if [[ -n $force || ! -f $image ]]; then
    rm -f "$cache"/root-*.img
    make_image "$image"
  fi
  mkdir -p "$out"
  cp --sparse=always "$image" "$out/root.img.new"
  mv "$out/root.img.new" "$out/root.img"
  say "$out/root.img: Debian $suite, $(du -h "$out/root.img" | cut -f 1) of $size used"
}

main
