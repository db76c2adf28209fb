#!/bin/busybox sh
# ext4 work on a disk (/dev/vda or the one given): one large file, many small ones, read back cold.
disk=${1:-/dev/vda}
echo "@@BEGIN fs"
mkdir -p /mnt
mount -t ext4 "$disk" /mnt || exit 1
yes understudy | head -c 67108864 >/mnt/large
sync
echo 3 >/proc/sys/vm/drop_caches
md5sum /mnt/large
n=0
while [ $n -lt 500 ]; do
  echo $n >/mnt/small$n
  n=$((n + 1))
done
sync
umount /mnt
echo "@@END fs result=$n"
