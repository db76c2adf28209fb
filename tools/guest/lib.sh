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

# read_apt PACKAGE...: what apt knows of their current versions, into apt_facts. Asked once, as each
# question costs apt seconds on a machine that keeps no parsed lists. Root gets package lists first
# when there are none.
read_apt() {
  apt_facts=$(apt-cache show --no-all-versions "$@" 2>/dev/null || true)
  if [[ -z $apt_facts && $(id -u) == 0 ]]; then
    say "apt has no package lists; updating them"
    apt-get -qq update || true
    apt_facts=$(apt-cache show --no-all-versions "$@" 2>/dev/null || true)
  fi
}

# apt_field PACKAGE FIELD: one line of apt_facts, or nothing.
apt_field() {
  awk -v package="$1" -v field="$2:" '
    $1 == "Package:" { here = $2 == package }
    here && $1 == field { sub(/^[^ ]+ /, ""); print; exit }' <<<"$apt_facts"
}

# fetch_deb CACHE PACKAGE VERSION: prints the path of the package's .deb, downloaded when the cache
# lacks it. Without a version (package lists) or network the newest one in the cache is used.
fetch_deb() {
  local cache=$1 package=$2 version=$3 file
  file=$cache/debs/${package}_${version//:/%3a}_amd64.deb
  if [[ -n $version && -f $file ]]; then
    echo "$file"
    return
  fi
  if [[ -n $version ]] && download_deb "$cache/debs" "$package"; then
    file=$(newest_deb "$cache" "$package")
  else
    file=$(newest_deb "$cache" "$package")
    [[ -n $file ]] || die GUEST-002 "cannot download Debian's $package" \
      "$([[ -n $version ]] && echo 'apt-get download failed' || echo 'apt knows no such package')" \
      "apt with package lists and a Debian mirror" "apt-get update, then try again"
    say "using the cached $(basename "$file")"
  fi
  echo "$file"
}

newest_deb() { find "$1/debs" -name "$2_*.deb" | sort -V | tail -n 1; }

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
