#!/usr/bin/env bash
# lint.sh CHECK: one check over the sources; exit 0 clean, 1 findings (printed), 77 not possible here.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

# Files of the project by shell patterns: what git tracks or would; without git, all but build/.
files() {
  if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -co --exclude-standard -- "$@" | while IFS= read -r f; do
      if [[ -f $f ]]; then echo "$f"; fi
    done
  else
    local pattern
    for pattern in "$@"; do
      find . -path ./build -prune -o -type f -name "${pattern##*/}" -print | sed 's|^\./||'
    done
  fi | sort -u
}

cxx_files() { files '*.cc' '*.h' '*.c'; }

# Reads "FILE INCLUDED" lines, prints those against the rules. A folder's level must be above that of
# what it includes; folders on one level know only themselves.
upward_includes() {
  awk '
    function folder(path,   parts, n) {
      n = split(path, parts, "/")
      if (parts[1] == "hv") return n > 2 ? "hv/" parts[2] : "hv"
      return parts[1]
    }
    BEGIN {
      level["base"] = 0; level["pmu"] = 1; level["ipt"] = 1; level["logchannel"] = 2
      level["hv/core"] = 2.1
      level["hv/cpu"] = 2.2; level["hv/devices"] = 2.2; level["hv/boot"] = 2.2; level["hv/world"] = 2.2
      level["hv/kvm"] = 2.25
      level["hv"] = 2.3; level["replay-engine"] = 3; level["calib"] = 4; level["tools"] = 5
    }
    {
      from = folder($1); to = folder($2)
      if (!(from in level) || from == to) next
      if (!(to in level)) { print $1 ": includes " $2 ", of no part of the product"; next }
      bad = level[to] >= level[from]
      if (from ~ /^hv/ && to == "logchannel") bad = 1
      if (bad) print $1 ": includes " $2 ", which is above or beside it"
    }'
}

includes_of() {
  grep -HoE '^ *# *include +"[^"]+"' "$@" | sed -E 's|^([^:]+):.*"([^"]+)"|\1 \2|'
}

check_includes() {
  local found count
  mapfile -t sources < <(cxx_files)
  found=$(includes_of "${sources[@]}" | upward_includes)
  count=$(includes_of "${sources[@]}" | wc -l)
  [[ $count -gt 100 ]] || { echo "only $count includes seen: the check is broken"; return 1; }
  [[ -z $found ]] || { echo "$found"; return 1; }
  echo "$count includes of ${#sources[@]} files go downwards"
}

check_includes_selftest() {
  local line
  for line in 'hv/cpu/cpu.cc logchannel/record.h' 'hv/core/bus.h hv/cpu/cpu.h' 'base/bytes.h hv/machine.h' \
    'ipt/scanner.h pmu/model.h' 'hv/devices/pic.h hv/world/net.h' 'replay-engine/source.h tools/talk.h' \
    'logchannel/frame.h hv/core/clock.h' 'hv/machine.cc replay-engine/source.h' \
    'tools/run.cc tests/support/x.h'; do
    [[ -n $(upward_includes <<<"$line") ]] || { echo "not found: $line"; return 1; }
  done
  for line in 'tools/run.cc hv/machine.h' 'hv/cpu/cpu.h hv/core/bus.h' 'hv/machine.h hv/cpu/cpu.h' \
    'tests/unit/x/y.cc tools/talk.h' 'replay-engine/recorder.h logchannel/record.h'; do
    [[ -z $(upward_includes <<<"$line") ]] || { echo "wrongly found: $line"; return 1; }
  done
}

# Functions over LINES lines: a definition opens at column 0 or 2 with a line that ends in "{" after a
# parenthesis, and closes with "}" at the same column.
long_functions() {
  awk -v limit="$1" '
    FNR == 1 { open = 0; head = "" }
    !open && /^ ? ?[A-Za-z_~].*[^;]$/ && /\(/ { head = $0; head_line = FNR }
    !open && /(\)|\}|const|override|final|noexcept) \{$/ {
      if (head == "" || FNR - head_line > 6) next
      if (head ~ /^ *(namespace|struct|class|enum|union|if|for|while|switch|else|do|return|case|constexpr [A-Za-z_:<>]+ [A-Za-z_]+\[)/) { head = ""; next }
      indent = match(head, /[^ ]/) - 1
      open = 1; start = head_line; name = head
      next
    }
    !open && /;$/ { head = "" }
    open && /^ *\}/ && match($0, /[^ ]/) - 1 == indent {
      if (FNR - start + 1 > limit) printf "%s:%d: %d lines: %s\n", FILENAME, start, FNR - start + 1, name
      open = 0; head = ""
    }' "${@:2}"
}

check_sizes() {
  local file lines long=() status=0
  mapfile -t sources < <(cxx_files)
  while read -r lines file; do
    [[ $file != total ]] || continue
    if [[ $lines -gt 800 ]]; then
      echo "$file: $lines lines, more than 800"
      status=1
    elif [[ $lines -gt 400 ]]; then
      echo "note: $file: $lines lines"
    fi
  done < <(wc -l "${sources[@]}")
  mapfile -t long < <(long_functions 70 "${sources[@]}" | grep -vE '^(tests|bench)/' || true)
  if [[ ${#long[@]} -gt 0 ]]; then
    printf '%s\n' "${long[@]}"
    status=1
  fi
  long_functions 50 "${sources[@]}" | sed 's/^/note: /'
  return "$status"
}

check_format() {
  local status=0 file
  command -v clang-format >/dev/null || { echo "SKIPPED: no clang-format (apt-get install clang-format)"; return 77; }
  # Other versions break lines elsewhere.
  clang-format --version | grep -q 'version 14\.' ||
    { echo "SKIPPED: the sources are formatted by clang-format 14, here is $(clang-format --version)"; return 77; }
  mapfile -t sources < <(cxx_files)
  clang-format --style=file --dry-run "${sources[@]}" 2>&1 | grep -oE '^[^:]+:[0-9]+' |
    awk -F: '!seen[$1]++ { print $1 ":" $2 ": not as clang-format leaves it" }' >"${TMPDIR:-/tmp}/us-format.$$" || true
  if [[ -s ${TMPDIR:-/tmp}/us-format.$$ ]]; then
    cat "${TMPDIR:-/tmp}/us-format.$$"
    status=1
  fi
  rm -f "${TMPDIR:-/tmp}/us-format.$$"
  return "$status"
}

# Not a check: formats all sources in place.
check_reformat() { cxx_files | tr '\n' '\0' | xargs -0 clang-format --style=file -i; }

check_links() {
  local page name status=0 target from
  while IFS= read -r page; do
    name=${page#docs/}
    [[ $name != ARCHITECTURE.md ]] || { grep -q 'docs/ARCHITECTURE.md' README.md || status=1; continue; }
    grep -qF "docs/$name" README.md || grep -qF "($name)" docs/ARCHITECTURE.md ||
      { echo "$page: linked from neither README.md nor docs/ARCHITECTURE.md"; status=1; }
  done < <(files 'docs/*.md')
  # And the other way round: what is linked is there.
  for from in README.md $(files 'docs/*.md'); do
    while IFS= read -r target; do
      [[ $target != http* && $target != \#* ]] || continue
      [[ -e $(dirname "$from")/${target%%#*} ]] || { echo "$from: links to $target, which is not there"; status=1; }
    done < <(grep -oE '\]\([^)]+\)' "$from" | sed -E 's/^\]\(|\)$//g')
  done
  return "$status"
}

# Ids in the product's sources and scripts: as string literals in C++, as arguments or text in shell.
source_errors() {
  mapfile -t sources < <(files '*.cc' '*.h' | grep -vE '^(tests|bench)/')
  mapfile -t scripts < <(files dev '*.sh' | grep -vE '^(tests|bench)/')
  {
    grep -hoE '"[A-Z]+-[0-9]{3}"' "${sources[@]}" | tr -d '"'
    grep -hoE 'die [A-Z]+-[0-9]{3}|error\[[A-Z]+-[0-9]{3}\]' "${scripts[@]}" | grep -oE '[A-Z]+-[0-9]{3}'
  } | sort -u
}

check_errors() {
  local documented found
  found=$(source_errors)
  documented=$(grep -oE '^\| [A-Z]+-[0-9]{3} ' docs/errors.md | tr -d '| ' | sort)
  if [[ $(sort -u <<<"$documented") != "$documented" ]]; then
    echo "docs/errors.md has an id twice: $(uniq -d <<<"$documented" | xargs)"
    return 1
  fi
  if [[ $found != "$documented" ]]; then
    comm -23 <(echo "$found") <(echo "$documented") | sed 's/$/: in the source, not in docs\/errors.md/'
    comm -13 <(echo "$found") <(echo "$documented") | sed 's/$/: in docs\/errors.md, not in the source/'
    return 1
  fi
  echo "$(wc -l <<<"$found") error ids"
}

check_paths() {
  # Spelt so that this file does not find itself.
  local found
  found=$(files '*' | grep -vE '^tests/fuzz/corpus/|\.(bin|img|zst)$' | tr '\n' '\0' |
    xargs -0 grep -InE '/(work|home/[a-z]+)/|/tmp/b[-]|/root/[a-zA-Z]' || true)
  [[ -z $found ]] || { echo "$found"; return 1; }
}

check_man() {
  local page status=0 said
  command -v man >/dev/null || { echo "SKIPPED: no man (apt-get install man-db)"; return 77; }
  for page in $(files 'docs/man/*'); do
    said=$(MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null || true)
    [[ -z $said ]] || { echo "$page: $said"; status=1; }
    grep -q '^\.SH NAME' "$page" || { echo "$page: no NAME section"; status=1; }
  done
  return "$status"
}

"check_${1:?which check}" "${@:2}"
