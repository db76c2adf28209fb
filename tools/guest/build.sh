#!/usr/bin/env bash
# Builds the guest images: OUT/vmlinuz, Debian's stock kernel unchanged, and OUT/initrd.img,
# busybox, the kernel's own virtio and ext4 modules, our /init, the workloads (us-bench) and the
# scripts of scripts/ (in /us). Same packages and compiler in, same bytes out.
#   tools/guest/build.sh [OUT]        OUT defaults to build/guest
# Packages and finished images are kept in $UNDERSTUDY_CACHE (default ~/.cache/understudy).
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:-$root/build/guest}
# shellcheck source=tools/guest/lib.sh
. "$here/lib.sh"

# Modules and, by their own `depends`, what they need.
wanted_modules=(virtio_pci virtio_blk virtio_net virtio_console virtio_rng ext4 crc32c_generic
  crc32c_intel overlay)

# linux-image-amd64 is the current kernel's package by its dependency: "NAME (= VERSION)". Sets
# kernel_package and kernel_version.
find_kernel() {
  local depends
  depends=$(apt_field linux-image-amd64 Depends)
  read -r kernel_package kernel_version < <(sed -E 's/^([^ ,]+) *\(= *([^)]+)\).*/\1 \2/' <<<"$depends") || true
  if [[ -z $kernel_package ]]; then
    kernel_package=$(find "$cache/debs" -name 'linux-image-*.deb' -printf '%f\n' | sort -V | tail -n 1)
    kernel_package=${kernel_package%%_*}
  fi
  [[ -n $kernel_package ]] || die GUEST-002 "cannot find Debian's current kernel" \
    "apt does not know linux-image-amd64" "package lists of Debian" "apt-get update, then try again"
}

# module_info FILE KEY: the values of one key in the module's .modinfo section, a line each.
module_info() {
  objcopy -O binary -j .modinfo "$1" /dev/stdout | tr '\0' '\n' | sed -n "s/^$2=//p"
}

declare -A module_file module_line done_module
index_modules() {
  local path name
  while read -r path; do
    name=$(basename "$path")
    name=${name%%.ko*}
    module_file[${name//-/_}]=$path
  done < <(find "$modules" -name '*.ko' -o -name '*.ko.xz' -o -name '*.ko.zst' | sort)
}

# Debian before trixie ships plain .ko files; later ones are packed, which busybox does not undo.
plain_module() {
  local name=$1 path=${module_file[$1]:-}
  [[ -n $path ]] || die GUEST-003 "the kernel package lacks a module" "no $name" \
    "a Debian kernel with virtio and ext4 as modules" "report this with the kernel's version"
  case $path in
    *.xz) xz -dc "$path" >"$work/modules/$name.ko" ;;
    *.zst) zstd -qdc "$path" >"$work/modules/$name.ko" ;;
    *) cp "$path" "$work/modules/$name.ko" ;;
  esac
}

# add_module NAME: it and, before it, what it depends on. Leaves its line of modules.dep: nearest
# dependency first, as modprobe wants it.
add_module() {
  local name=$1 dep needs=()
  [[ -z ${done_module[$name]:-} ]] || return 0
  plain_module "$name"
  for dep in $(module_info "$work/modules/$name.ko" depends | tr ',-' ' _'); do
    add_module "$dep"
    needs=("$dep" ${module_line[$dep]} ${needs[@]+"${needs[@]}"})
  done
  module_line[$name]=$(printf '%s\n' ${needs[@]+"${needs[@]}"} | awk 'NF && !seen[$0]++' | xargs)
  done_module[$name]=1
}

write_module_tables() {
  local name dep alias line
  for name in $(printf '%s\n' "${!done_module[@]}" | sort); do
    line="kernel/$name.ko:"
    for dep in ${module_line[$name]}; do line+=" kernel/$dep.ko"; done
    echo "$line" >>"$work/modules.dep"
    for alias in $(module_info "$work/modules/$name.ko" alias); do
      echo "alias $alias $name" >>"$work/modules.alias"
    done
  done
}

compile() {
  say "compiling the workloads"
  # No build id and no paths: the binary depends on sources, compiler and libc only.
  "${CC:-gcc}" -O2 -std=gnu11 -Wall -Wextra -static -fno-pie -no-pie -ffile-prefix-map="$root"=. \
    -Wl,--build-id=none -s -o "$work/us-bench" "$root"/bench/guest/*.c
  "${CXX:-g++}" -O1 -std=c++20 -o "$work/mkcpio" "$here/mkcpio.cc"
}

manifest() {
  local name lib=lib/modules/$version
  local folder
  for folder in bin sbin dev etc lib lib/modules "$lib" "$lib/kernel" mnt proc root sys us usr \
    usr/bin usr/sbin var var/run; do
    printf 'dir\t%s\t755\n' "$folder"
  done
  printf 'dir\ttmp\t1777\n'
  printf 'char\tdev/console\t600\t5\t1\nchar\tdev/null\t666\t1\t3\n'
  printf 'file\tinit\t755\t%s\n' "$here/init.sh"
  printf 'file\tetc/udhcpc.script\t755\t%s\n' "$here/udhcpc.sh"
  printf 'file\tetc/passwd\t644\t%s\nfile\tetc/group\t644\t%s\n' "$work/passwd" "$work/group"
  printf 'file\tbin/us-bench\t755\t%s\n' "$work/us-bench"
  for name in "$here"/scripts/*.sh; do
    printf 'file\tus/%s\t755\t%s\n' "$(basename "$name")" "$name"
  done
  printf 'file\tbin/busybox\t755\t%s\n' "$busybox"
  # Applets that are links to it; where Debian's own list has them.
  "$busybox" --list-full | grep -vx 'bin/busybox' | grep -E '^(s?bin|usr/s?bin)/' |
    sed -E 's|.*|link\t&\t/bin/busybox|'
  for name in "${!done_module[@]}"; do
    printf 'file\t%s/kernel/%s.ko\t644\t%s\n' "$lib" "$name" "$work/modules/$name.ko"
  done
  for name in modules.dep modules.alias; do
    printf 'file\t%s/%s\t644\t%s\n' "$lib" "$name" "$work/$name"
  done
}

# What the images follow from: packages, sources and compiler.
inputs_key() {
  {
    basename -a "$@"
    "${CC:-gcc}" --version | head -n 1
    cat "$here"/*.sh "$here"/*.cc "$here"/scripts/*.sh "$root"/bench/guest/*.[ch]
  } | sha256sum | cut -c 1-16
}

# build_initrd KERNEL_FOLDER TARGET
build_initrd() {
  local name
  modules=$(find "$1" -type d -path "*lib/modules/$version" | head -n 1)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/modules"
  index_modules
  for name in "${wanted_modules[@]}"; do add_module "$name"; done
  write_module_tables
  echo 'root::0:0:root:/root:/bin/sh' >"$work/passwd"
  printf 'root:x:0:\ntty:x:5:\n' >"$work/group"
  compile
  manifest >"$work/manifest"
  "$work/mkcpio" <"$work/manifest" >"$work/initrd.img"
  place "$work/initrd.img" "$2"
}

# place FILE TARGET: never a half file under the final name.
place() {
  install -m 644 "$1" "$2.new"
  mv "$2.new" "$2"
}

main() {
  need_tool apt-get apt
  need_tool dpkg-deb dpkg
  need_tool objcopy binutils
  need_tool "${CC:-gcc}" gcc
  need_tool "${CXX:-g++}" g++
  cache=$(cache_folder)
  local kernel_package='' kernel_version='' kernel_deb busybox_deb kernel image
  read_apt linux-image-amd64 busybox-static
  find_kernel
  version=${kernel_package#linux-image-}
  kernel_deb=$(fetch_deb "$cache" "$kernel_package" "$kernel_version")
  busybox_deb=$(fetch_deb "$cache" busybox-static "$(apt_field busybox-static Version)")
  kernel=$(unpack_deb "$cache" "$kernel_deb")
  busybox=$(find "$(unpack_deb "$cache" "$busybox_deb")" -path '*bin/busybox' -type f)
  image=$cache/initrd-$(inputs_key "$kernel_deb" "$busybox_deb").img
  if [[ ! -f $image ]]; then
    rm -f "$cache"/initrd-*.img
    build_initrd "$kernel" "$image"
  fi
  mkdir -p "$out"
  place "$image" "$out/initrd.img"
  place "$kernel/boot/vmlinuz-$version" "$out/vmlinuz"
  say "$out/vmlinuz: Debian's $version"
  say "$out/initrd.img: $(stat -c %s "$image") bytes, sha256 $(sha256sum <"$image" | cut -c 1-16)"
}

main
