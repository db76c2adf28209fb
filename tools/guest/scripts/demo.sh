#!/bin/busybox sh
# The demo's work inside the guest: an ext4 file system on the disk, and the network.
# us.url=URL (fetched and checked against us.sum=SHA256 when given).
set -e
echo "guest: $(uname -r), $(grep -c ^processor /proc/cpuinfo) processor, $(free -m | awk '/Mem/{print $2}') MiB"
if [ -e /dev/vda ]; then
  mkdir -p /mnt
  mount -t ext4 /dev/vda /mnt
  head -c 8388608 /dev/urandom >/mnt/data
  sum=$(sha256sum </mnt/data)
  for i in 1 2 3 4 5 6 7 8; do echo "file $i" >"/mnt/note$i"; done
  sync
  umount /mnt
  mount -t ext4 /dev/vda /mnt
  [ "$sum" = "$(sha256sum </mnt/data)" ]
  [ "$(cat /mnt/note1 /mnt/note8 | tr '\n' ' ')" = "file 1 file 8 " ]
  umount /mnt
  echo "disk: 8 MiB and 8 files written, unmounted, mounted, read back: same"
fi
if [ -e /sys/class/net/eth0 ]; then
  echo "net: $(ip -4 -o address show dev eth0 | awk '{print $4}')"
  if [ -n "$US_url" ]; then
    got=$(wget -q -O - "$US_url" | sha256sum)
    echo "net: $US_url has sha256 ${got%% *}"
    [ -z "$US_sum" ] || [ "${got%% *}" = "$US_sum" ]
  fi
fi
echo "demo: done"
