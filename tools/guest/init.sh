#!/bin/busybox sh
# First program of the guest. What the kernel command line may say to it:
#   us.run="COMMAND"  run this (a path or a shell command, with single quotes only inside); without
#                     it, an interactive shell
#   us.end=poweroff|reboot|shell   what follows (poweroff)
#   us.ip=dhcp|none|ADDRESS/BITS[,GATEWAY[,DNS]]   for eth0 (dhcp)
#   us.mods=a,b       further modules to load at once
#   us.root=DEVICE    an ext4 root file system: us.run runs inside it; without, its own init takes over
# Every us.NAME=VALUE is also in the environment, as US_NAME.
export PATH=/bin:/sbin HOME=/root TERM="${TERM:-linux}"
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs tmpfs /tmp
echo /sbin/modprobe >/proc/sys/kernel/modprobe 2>/dev/null

us_run='' us_end=poweroff us_ip=dhcp us_mods='' us_root=''
# xargs undoes the kernel's quoting: both us.run="a b" and "us.run=a b" come out as one line.
while IFS= read -r word; do
  case $word in
    us.run=*) us_run=${word#us.run=} ;;
    us.end=*) us_end=${word#us.end=} ;;
    us.ip=*) us_ip=${word#us.ip=} ;;
    us.mods=*) us_mods=${word#us.mods=} ;;
    us.root=*) us_root=${word#us.root=} ;;
  esac
  case $word in
    us.*=*)
      name=${word%%=*}
      case ${name#us.} in *[!a-zA-Z0-9_]* | '') ;; *) export "US_${name#us.}=${word#*=}" ;; esac
      ;;
  esac
done <<END
$(xargs printf '%s\n' </proc/cmdline)
END

# Drivers: the PCI transport, then whatever its devices need; file systems come on demand.
modprobe virtio_pci
for device in /sys/bus/virtio/devices/*; do
  [ -e "$device/device" ] || continue
  case $(cat "$device/device") in  # virtio 1.2, section 5
    0x0001) modprobe virtio_net ;;
    0x0002) modprobe virtio_blk ;;
    0x0003) modprobe virtio_console ;;
    0x0004) modprobe virtio_rng ;;
  esac
done
IFS=,
for module in $us_mods; do modprobe "$module"; done
unset IFS

hostname guest
ip link set lo up
if [ -e /sys/class/net/eth0 ] && [ "$us_ip" != none ]; then
  ip link set eth0 up
  if [ "$us_ip" = dhcp ]; then
    udhcpc -i eth0 -n -q -f -t 4 -T 1 -s /etc/udhcpc.script >/dev/null 2>&1 ||
      echo "init: no lease for eth0"
  else
    IFS=, read -r address gateway dns <<END
$us_ip
END
    ip address add "$address" dev eth0
    [ -z "$gateway" ] || ip route add default via "$gateway"
    [ -z "$dns" ] || echo "nameserver $dns" >/etc/resolv.conf
  fi
fi

finish() {
  sync
  if [ -n "$us_root" ]; then
    for folder in run tmp dev/pts dev proc sys; do umount -l /mnt/$folder 2>/dev/null; done
    umount /mnt 2>/dev/null || mount -o remount,ro /mnt
  fi
  case $1 in
    reboot) reboot -f ;;
    *) poweroff -f ;;
  esac
}

# A root file system of its own: its init takes over, or one command runs inside it.
if [ -n "$us_root" ]; then
  modprobe ext4
  mount -t ext4 "$us_root" /mnt || finish poweroff
  if [ -z "$us_run" ]; then
    for folder in dev proc sys; do mount --move /$folder /mnt/$folder; done
    exec switch_root /mnt "${US_init:-/sbin/init}"
  fi
  for folder in dev dev/pts proc sys; do mount --bind /$folder /mnt/$folder; done
  for folder in run tmp; do mount -t tmpfs tmpfs /mnt/$folder; done
  inside="chroot /mnt"
fi

echo "init: ready, $(uname -sr)"
if [ -n "$us_run" ]; then
  ${inside:-} sh -c "$us_run"
  echo "init: exit status $?"
  [ "$us_end" = shell ] || finish "$us_end"
fi
cd /root
setsid cttyhack sh -l
finish "$us_end"
# Without a working power switch the shell must not end: the kernel would panic.
while :; do sleep 3600; done
