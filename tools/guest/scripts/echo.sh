#!/bin/busybox sh
# A TCP echo service on port 7 (or the one given), a process a connection.
exec nc -ll -p "${1:-7}" -e cat
