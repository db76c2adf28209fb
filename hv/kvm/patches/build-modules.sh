#!/usr/bin/env bash
# Builds Debian's kvm modules with our patches: kvm.ko, kvm-intel.ko and kvm-amd.ko for the kernel
# whose headers Debian ships, nothing else of the kernel and nothing of it inside this source tree.
#   hv/kvm/patches/build-modules.sh [--series 6.1|6.12] [--each] FOLDER
# Sources, objects and logs go to FOLDER, stripped modules to FOLDER/modules. --each builds after
# every patch, to show that none needs a later one. JOBS (default 1) compilers run at a time.
# Any warning fails. Packages that the host lacks are downloaded to FOLDER; nothing is installed.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What the patches touch outside the two folders that are taken whole.
patched_headers=(arch/x86/include/asm/kvm_host.h arch/x86/include/uapi/asm/kvm.h
  include/uapi/linux/kvm.h)
documents=(Documentation/virt/kvm/api.rst)

say() { echo "kvm modules: $*" >&2; }

# die ID WHAT SEEN NEEDED MEND
die() {
  printf 'error[%s]: %s\n  seen:   %s\n  needed: %s\n  mend:   %s\n' "$@" >&2
  exit 3
}

usage() {
  sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

need_tool() {
  command -v "$1" >/dev/null ||
    die KMOD-001 "the kvm modules cannot be built" "no $1" "the program $1" "apt-get install $2"
}

# package_version PACKAGE: of the installed package, or nothing.
package_version() {
  dpkg-query -W -f '${Status} ${Version}\n' "$1" 2>/dev/null | sed -n 's/^install ok installed //p'
}

# Packages that the host does not have are downloaded and unpacked in FOLDER, not installed: the
# headers of some series want a whole kernel beside them.
# provide VERSION PACKAGE...: prints the root they are all under, / or FOLDER/root.
provide() {
  local version=$1 package missing=0
  shift
  for package; do
    [[ $(package_version "$package") == "$version" ]] || missing=1
  done
  if [[ $missing == 0 ]]; then
    echo /
    return
  fi
  for package; do
    unpack_package "$package" "$version"
  done
  echo "$folder/root"
}

# unpack_package PACKAGE VERSION
unpack_package() {
  local part done_mark=$folder/root/$1_$2
  [[ ! -e $done_mark ]] || return 0
  say "downloading $1 $2"
  part=$(mktemp -d "$folder/part.XXXXXX")
  # As root apt drops to a user who cannot write here, says so and downloads as root.
  (cd "$part" && apt-get -qq download "$1=$2" 2>"$part/log") ||
    die KMOD-002 "a Debian package cannot be downloaded" "$1 $2: $(tail -n 1 "$part/log")" \
      "apt with package lists and a Debian mirror" "apt-get update, then try again"
  mkdir -p "$folder/root"
  dpkg-deb -x "$part"/*.deb "$folder/root"
  rm -rf "$part"
  touch "$done_mark"
}

# Newest version of the source that is installed or that apt knows.
source_version() {
  local installed
  installed=$(package_version "$1")
  if [[ -n $installed ]]; then echo "$installed"; else
    apt-cache madison "$1" | awk -F ' *[|] *' '{ print $2 }' | sort -V | tail -n 1
  fi
}

# The headers package of exactly the source's version.
headers_package() {
  local name
  for name in $(apt-cache search --names-only "^linux-headers-${series//./\\.}\\..*-amd64\$" |
    cut -d ' ' -f 1 | grep -vE -- '-(cloud|rt)-amd64$' | sort -uV); do
    # Read to the end: apt-cache killed by a closed pipe would fail the whole.
    if apt-cache madison "$name" | grep -F " $1 " >/dev/null; then
      echo "$name"
      return
    fi
  done
}

# Sets headers (the package), release, headers_root and source_root.
find_packages() {
  local source=linux-source-$series version kbuild
  version=$(source_version "$source")
  [[ -n $version ]] || die KMOD-002 "a Debian package cannot be downloaded" "apt knows no $source" \
    "apt with package lists and a Debian mirror" "apt-get update, then try again"
  headers=$(headers_package "$version")
  [[ -n $headers ]] || die KMOD-003 "the kernel's headers are not those of its source" \
    "$source $version, and no linux-headers package of that version" \
    "both of one version" "apt-get update, and let apt upgrade $source"
  release=${headers#linux-headers-}
  say "Debian's $release, $version"
  kbuild=$(apt-cache show "$headers=$version" | sed -n '/^Depends:/s/.*\(linux-kbuild-[^ ,]*\).*/\1/p' | sort -u)
  source_root=$(provide "$version" "$source")
  headers_root=$(provide "$version" "$headers" "linux-headers-${release%-amd64}-common" "$kbuild")
}

# copy_headers FROM TO: links that lead out of the package keep leading where they do.
copy_headers() {
  local link
  cp -a "$1" "$2"
  for link in scripts tools; do
    if [[ -L $1/$link ]]; then ln -sfn "$(readlink -f "$1/$link")" "$2/$link"; fi
  done
}

# A kernel tree as far as modules need one: copies of Debian's headers, whose build products
# (.config, Module.symvers, the release's name) make modules that the kernel loads, plus kvm's
# sources. In copies, because the patches change headers.
unpack() {
  local file name=linux-source-$series
  rm -rf "${folder:?}/tree" "$folder/headers" "$folder/source"
  mkdir -p "$folder/source"
  copy_headers "$headers_root/usr/src/linux-headers-${release%-amd64}-common" "$folder/tree"
  copy_headers "$headers_root/usr/src/$headers" "$folder/headers"
  echo "include $folder/tree/Makefile" >"$folder/headers/Makefile"
  tar -C "$folder/source" -xf "$source_root/usr/src/$name.tar.xz" "$name/arch/x86/kvm" "$name/virt/kvm" \
    "${patched_headers[@]/#/$name/}" "${documents[@]/#/$name/}"
  for file in "${patched_headers[@]}"; do
    cmp -s "$folder/source/$name/$file" "$folder/tree/$file" ||
      die KMOD-003 "the kernel's headers are not those of its source" "$file differs" \
        "linux-source and linux-headers of one version" "install both again"
  done
  cp -a "$folder/source/$name/." "$folder/tree/"
}

apply() {
  say "applying $(basename "$1")"
  patch -p1 --fuzz=0 --no-backup-if-mismatch -s -d "$folder/tree" <"$1" >"$folder/patch.log" 2>&1 ||
    die KMOD-004 "a patch does not apply" "$(basename "$1"): $(tail -n 1 "$folder/patch.log")" \
      "the kernel the series is for ($(cat "$here/$series/VERSION"))" \
      "install that version, or carry the patch over to this one"
}

# build LABEL: everything that the last patch may have changed. The compiler's warnings are errors
# already (CONFIG_KVM_WERROR); those of modpost and objtool are not. No debug information: it would
# be stripped, and costs half the time; so no BTF either, which is made from it.
build() {
  local log=$folder/build-$1.log
  say "building $1 with $jobs job(s), log in $log"
  make -C "$folder/headers" M="$folder/tree/arch/x86/kvm" -j "$jobs" KCFLAGS=-g0 \
    CONFIG_DEBUG_INFO_BTF_MODULES= modules >"$log" 2>&1 ||
    die KMOD-005 "the kvm modules do not build" "$(grep -m 1 -E 'error|Error' "$log" || tail -n 1 "$log")" \
      "a build without errors" "see $log"
  if grep -iE 'warning' "$log" >"$folder/warnings"; then
    die KMOD-006 "the kvm modules build with warnings" \
      "$(wc -l <"$folder/warnings"), the first: $(head -n 1 "$folder/warnings")" "none" "see $log"
  fi
}

# module_field FILE KEY
module_field() {
  objcopy -O binary -j .modinfo "$1" /dev/stdout | tr '\0' '\n' | sed -n "s/^$2=//p" | sed -n 1p
}

finish() {
  local name magic
  mkdir -p "$folder/modules"
  for name in kvm kvm-intel kvm-amd; do
    strip --strip-debug -o "$folder/modules/$name.ko" "$folder/tree/arch/x86/kvm/$name.ko"
    magic=$(module_field "$folder/modules/$name.ko" vermagic)
    [[ ${magic%% *} == "$release" ]] || die KMOD-007 "a module is for another kernel" \
      "$name.ko: $magic" "vermagic of $release" "remove $folder and try again"
    echo "$folder/modules/$name.ko: $magic"
  done
}

main() {
  local each=0 patches patch
  series=6.1 folder='' jobs=${JOBS:-1}
  while [[ $# -gt 0 ]]; do
    case $1 in
      --series) series=${2:?--series needs a kernel series}; shift ;;
      --each) each=1 ;;
      -*) usage ;;
      *) [[ -z $folder ]] || usage; folder=$1 ;;
    esac
    shift
  done
  [[ -n $folder && -f $here/$series/VERSION ]] || usage
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  need_tool make make
  need_tool gcc gcc
  need_tool patch patch
  need_tool objcopy binutils
  need_tool xz xz-utils
  need_tool dpkg-deb dpkg
  need_tool apt-get apt
  find_packages
  unpack
  patches=("$here/$series"/*.patch)
  for patch in "${patches[@]}"; do
    apply "$patch"
    if [[ $each == 1 ]]; then build "$(basename "$patch" .patch)"; fi
  done
  if [[ $each == 0 ]]; then build all; fi
  finish
}

main "$@"
