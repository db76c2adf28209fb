#!/bin/busybox sh
# Shell work: arithmetic, strings and patterns in the shell itself, then programs one after another.
rounds=${ROUNDS:-100}
i=0 sum=0
while [ $i -lt $((rounds * 1500)) ]; do
  case $((i % 7)) in
    0) sum=$((sum + i)) ;;
    3) text="item-$i" sum=$((sum + ${#text})) ;;
    *) sum=$((sum ^ i)) ;;
  esac
  i=$((i + 1))
done
i=0
while [ $i -lt $((rounds * 6)) ]; do
  /bin/busybox true || exit 1
  i=$((i + 1))
done
[ -n "$sum" ]
