#!/bin/busybox sh
# What a protected VM is measured with: a loop on the processor, one that syncs, and a Redis server for
# a client outside. us.scale=PERCENT of the first.
us-bench int sha256 -s "${US_scale:-100}"
mkdir -p /mnt
mount -t ext4 /dev/vda /mnt
start=$(cut -d ' ' -f 1 /proc/uptime)
i=0
while [ $i -lt 300 ]; do
  i=$((i + 1))
  echo $i >/mnt/synced
  sync /mnt/synced
done
end=$(cut -d ' ' -f 1 /proc/uptime)
echo "@@SYNC $start $end"
umount /mnt
exec /us/redis.sh
