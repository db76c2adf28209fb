#!/usr/bin/env bash
# Runs every benchmark: bench/*/run.sh where a part has one, else its *_bench programs. Where a rival
# is installed the scripts measure it in the same run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
for folder in bench/*/; do
  name=$(basename "$folder")
  if [[ -x $folder/run.sh ]]; then
    echo "== $name"
    "$folder/run.sh"
    continue
  fi
  for program in build/release/bench/"$name"/*_bench; do
    [[ -x $program ]] || continue
    echo "== $(basename "$program")"
    "$program"
  done
done
