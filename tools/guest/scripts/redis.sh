#!/bin/busybox sh
# A Redis server that keeps every write on the disk before it answers: an append-only file on ext4,
# synced each time. Until something asks it to shut down.
set -e
mkdir -p /mnt
mount -t ext4 /dev/vda /mnt
redis-server --bind 0.0.0.0 --protected-mode no --dir /mnt --save '' --appendonly yes \
  --appendfsync "${US_fsync:-always}" --loglevel warning
umount /mnt
echo "redis: ended, disk unmounted"
