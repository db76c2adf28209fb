#!/usr/bin/env bash
# Makes OUT/redis.img: Debian's redis-server and the libraries it needs, as a further initramfs to
# put behind OUT/initrd.img (the kernel unpacks one after the other). Same packages in, same bytes out.
#   tools/guest/redis.sh [OUT]
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-$(cd "$here/../.." && pwd)/build/guest}
# shellcheck source=tools/guest/lib.sh
. "$here/lib.sh"

# redis-tools carries the program, the others its libraries and theirs.
packages=(redis-tools libatomic1 libc6 libcap2 libgcc-s1 libgcrypt20 libgpg-error0 libhiredis0.14
  libjemalloc2 liblua5.1-0 liblz4-1 liblzf1 liblzma5 libssl3 libstdc++6 libsystemd0 libzstd1
  lua-bitop lua-cjson)

# needed FILE: the libraries it asks for, and its loader.
needed() { objdump -p "$1" | awk '$1 == "NEEDED" { print $2 }'; }

# library NAME: where one of the unpacked packages has it.
library() {
  local folder found
  for folder in "${folders[@]}"; do
    found=$(find "$folder" -name "$1" | head -n 1)
    if [[ -n $found ]]; then
      echo "$found"
      return
    fi
  done
  die GUEST-005 "cannot put redis together" "no package has $1" "the packages ${packages[*]}" \
    "report this with Debian's version"
}

declare -A library_file
# add_libraries FILE: what it needs, and what that needs.
add_libraries() {
  local name
  for name in $(needed "$1"); do
    [[ -z ${library_file[$name]:-} ]] || continue
    library_file[$name]=$(readlink -f "$(library "$name")")
    add_libraries "${library_file[$name]}"
  done
}

manifest() {
  local name lib=lib/x86_64-linux-gnu
  printf 'dir\tbin\t755\ndir\tlib\t755\ndir\t%s\t755\ndir\tlib64\t755\n' "$lib"
  printf 'file\tlib64/ld-linux-x86-64.so.2\t755\t%s\n' "${library_file[ld-linux-x86-64.so.2]}"
  printf 'file\tbin/redis-server\t755\t%s\n' "$program"
  for name in "${!library_file[@]}"; do
    printf 'file\t%s/%s\t755\t%s\n' "$lib" "$name" "${library_file[$name]}"
  done
}

main() {
  need_tool objdump binutils
  need_tool dpkg-deb dpkg
  local cache deb package image key debs=()
  folders=()
  cache=$(cache_folder)
  read_apt "${packages[@]}"
  for package in "${packages[@]}"; do
    deb=$(fetch_deb "$cache" "$package" "$(apt_field "$package" Version)")
    debs+=("$deb")
    folders+=("$(unpack_deb "$cache" "$deb")")
  done
  key=$( (basename -a "${debs[@]}"; cat "$here/redis.sh" "$here/mkcpio.cc") | sha256sum | cut -c 1-16)
  image=$cache/redis-$key.img
  if [[ ! -f $image ]]; then
    rm -f "$cache"/redis-*.img
    program=$(find "${folders[0]}" -name redis-check-rdb -type f)
    library_file[ld-linux-x86-64.so.2]=$(readlink -f "$(library ld-linux-x86-64.so.2)")
    add_libraries "$program"
    work=$(mktemp -d)
    trap 'rm -rf "${work:-}"' EXIT
    "${CXX:-g++}" -O1 -std=c++20 -o "$work/mkcpio" "$here/mkcpio.cc"
    manifest | sort >"$work/manifest"
    "$work/mkcpio" <"$work/manifest" >"$work/redis.img"
    install -m 644 "$work/redis.img" "$image.new"
    mv "$image.new" "$image"
  fi
  mkdir -p "$out"
  install -m 644 "$image" "$out/redis.img.new"
  mv "$out/redis.img.new" "$out/redis.img"
  say "$out/redis.img: $(stat -c %s "$image") bytes"
}

main
