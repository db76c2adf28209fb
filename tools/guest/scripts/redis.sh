#!/bin/busybox sh
# A Redis server that keeps every write on the disk before it answers: an append-only file on ext4,
# synced each time. Until something asks it to shut down. With us.fsload=1 a writer works on the same file
# system beside it: a line at a time appended to /mnt/fs.log and synced, then said on the console
# ("@@FS n"), and files made, renamed and removed around that.
set -e
mkdir -p /mnt
mount -t ext4 /dev/vda /mnt
write_files() {
  n=0
  while [ ! -e /tmp/enough ]; do
    n=$((n + 1))
    echo $n >>/mnt/fs.log
    sync /mnt/fs.log
    echo "@@FS $n"
    echo "file $n" >/mnt/new$((n % 50))
    mv /mnt/new$((n % 50)) /mnt/old$((n % 7))
    [ $((n % 5)) != 0 ] || rm -f /mnt/old$((n % 7))
  done
}
if [ "${US_fsload:-0}" = 1 ]; then
  write_files &
  writer=$!
fi
redis-server --bind 0.0.0.0 --protected-mode no --dir /mnt --save '' --appendonly yes \
  --appendfsync "${US_fsync:-always}" --loglevel warning
if [ -n "$writer" ]; then
  touch /tmp/enough
  wait $writer
fi
umount /mnt
echo "redis: ended, disk unmounted"
