# Shared by the guest builders: messages, the cache, fetching and unpacking Debian packages.
# Nothing here installs anything on the host.

say() { echo "guest: $*" >&2; }

# die ID WHAT SEEN NEEDED MEND
die() {
  printf 'error[%s]: %s\n  seen:   %s\n  needed: %s\n  mend:   %s\n' "$@" >&2
  exit 3
}

# need_tool COMMAND PACKAGE
need_tool() {
  command -v "$1" >/dev/null ||
    die GUEST-001 "the guest images cannot be built" "no $1" "the program $1" "apt-get install $2"
}

cache_folder() {
  local base=${UNDERSTUDY_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/understudy}
  mkdir -p "$base/debs" "$base/unpacked"
  (cd "$base" && pwd)
}

# fetch_deb CACHE PACKAGE: prints the path of the package's current .deb, downloaded when the cache
# lacks it. Without package lists or network the newest one in the cache is used.
fetch_deb() {
  local cache=$1 package=$2 version file
  version=$(apt-cache show --no-all-versions "$package" 2>/dev/null |
    sed -n 's/^Version: //p' | head -n 1)
  file=$cache/debs/${package}_${version//:/%3a}_amd64.deb
  if [[ -z $version || ! -f $file ]]; then
    if [[ -z $version ]] || ! download_deb "$cache/debs" "$package"; then
      file=$(find "$cache/debs" -name "${package}_*.deb" | sort -V | tail -n 1)
      [[ -n $file ]] || die GUEST-002 "cannot download Debian's $package" \
        "$(apt_reason "$version")" "apt with package lists and a Debian mirror" \
        "apt-get update, then try again"
      say "using the cached $(basename "$file")"
    fi
  fi
  [[ -f $file ]] || file=$(find "$cache/debs" -name "${package}_*.deb" | sort -V | tail -n 1)
  echo "$file"
}

apt_reason() { if [[ -z $1 ]]; then echo "apt knows no such package"; else echo "apt-get download failed"; fi; }

# download_deb FOLDER PACKAGE: by way of a new folder, so that no half file is ever in the cache.
download_deb() {
  local folder=$1 package=$2 part
  part=$(mktemp -d "$folder/part.XXXXXX")
  say "downloading $package"
  # As root apt drops to the user _apt for downloads, who cannot write here; it then says so on
  # stderr and downloads as root.
  if (cd "$part" && apt-get -qq download "$package" 2>"$part/log"); then
    mv "$part"/*.deb "$folder/"
    rm -rf "$part"
    return 0
  fi
  sed 's/^/guest: apt: /' "$part/log" >&2
  rm -rf "$part"
  return 1
}

# unpack_deb CACHE DEB: prints the folder that the package is unpacked in.
unpack_deb() {
  local cache=$1 deb=$2 target part
  target=$cache/unpacked/$(basename "$deb" .deb)
  if [[ ! -d $target ]]; then
    part=$(mktemp -d "$cache/unpacked/part.XXXXXX")
    dpkg-deb -x "$deb" "$part"
    chmod 755 "$part"
    mv -T "$part" "$target" 2>/dev/null || rm -rf "$part"
  fi
  echo "$target"
}

# refresh_apt PACKAGE: root gets package lists when apt knows nothing yet.
refresh_apt() {
  if ! apt-cache show "$1" >/dev/null 2>&1 && [[ $(id -u) == 0 ]]; then
    say "apt has no package lists; updating them"
    apt-get -qq update || true
  fi
}
