#!/usr/bin/env bash
# kvm_patches.sh CHECK: hv/kvm/patches as far as it can be judged without a kernel's source; exit 0
# clean, 1 findings (printed), 77 not asked for.
#   form      every series: numbered from 1, signed off, whole hunks, only files the build takes along
#   numbers   hv/kvm/patch_abi.h has the numbers and the structure that every series adds, and no others
#   layout    patch_abi.h is C and C++, and its structure lies where <linux/kvm.h> has the union
#   selftest  the checks find what they are for
#   build     the modules build from Debian's packages; only with US_KVM_MODULES=SERIES, e.g. 6.1
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
patches=$root/hv/kvm/patches
abi=$root/hv/kvm/patch_abi.h

# Hunks of FILE... whose lines are not as many as the header says, files that a patch must not touch,
# and lines that belong to nothing.
malformed_hunks() {
  awk '
    function end_hunk() {
      if (old != 0 || new != 0) print FILENAME ":" start ": the hunk is cut short or too long"
      old = new = 0
    }
    FNR == 1 { in_diff = 0 }
    !in_diff && !/^diff --git / { next }
    /^diff --git / && old <= 0 && new <= 0 {
      end_hunk(); in_diff = 1; files++
      if ($3 != "a/" substr($4, 3)) print FILENAME ":" FNR ": renames a file"
      if ($4 !~ /^b\/(arch\/x86\/kvm\/|virt\/kvm\/|arch\/x86\/include\/asm\/kvm_host\.h$|arch\/x86\/include\/uapi\/asm\/kvm\.h$|include\/uapi\/linux\/kvm\.h$|Documentation\/virt\/kvm\/)/)
        print FILENAME ":" FNR ": " $4 " is not among what build-modules.sh takes along"
      next
    }
    /^@@ / && old <= 0 && new <= 0 {
      end_hunk(); start = FNR; hunks++
      if (!match($0, /^@@ -[0-9]+(,[0-9]+)? \+[0-9]+(,[0-9]+)? @@/)) {
        print FILENAME ":" FNR ": not a hunk header"; next
      }
      old = $2 ~ /,/ ? substr($2, index($2, ",") + 1) : 1
      new = $3 ~ /,/ ? substr($3, index($3, ",") + 1) : 1
      next
    }
    old > 0 || new > 0 {
      if (/^ /) { old--; new-- } else if (/^-/) old--; else if (/^\+/) new--
      else if (!/^\\/) { print FILENAME ":" FNR ": neither context nor change"; old = new = 0 }
      if (old < 0 || new < 0) end_hunk()
      next
    }
    !/^(index |--- |\+\+\+ |$)/ { print FILENAME ":" FNR ": belongs to no hunk" }
    END { end_hunk(); if (!hunks || !files) print FILENAME ": no hunks" }' "$@"
}

# The mail around FILE's diff.
malformed_mail() {
  local want
  for want in '^From 0{40} ' '^From: Understudy developers <understudy@localhost>$' \
    '^Subject: \[PATCH\] KVM: ' '^Signed-off-by: Understudy developers <understudy@localhost>$' \
    '^---$'; do
    grep -qE "$want" "$1" || echo "$1: no line $want"
  done
  # Text between headers and sign-off: why, not only what.
  [[ $(sed -n '/^$/,/^Signed-off-by/p' "$1" | wc -l) -ge 8 ]] || echo "$1: hardly a commit text"
}

check_form() {
  local series patch number found=''
  for series in "$patches"/*/; do
    [[ -s $series/VERSION ]] || found+="$series: no VERSION"$'\n'
    number=0
    for patch in "$series"*.patch; do
      number=$((number + 1))
      [[ $(basename "$patch") == "$(printf %04d $number)"-* ]] || found+="$patch: not number $number"$'\n'
      found+=$(malformed_mail "$patch")
      found+=$(malformed_hunks "$patch")
      grep -qF "$(sed -n 's/^Subject: \[PATCH\] //p' "$patch")" "$patches/README.md" ||
        found+="$patch: its subject is not in README.md"$'\n'
    done
    echo "$series: $number patches"
  done
  [[ -z ${found//[$'\n ']/} ]] || { echo "$found"; return 1; }
}

# "NAME VALUE" of each macro KVM_* that the series in folder $1 adds to headers of userspace.
added_numbers() {
  cat "$1"/*.patch | awk '
    /^\+\+\+ / { header = $2 ~ /\/uapi\// }
    header && /^\+[ \t]*#define[ \t]+KVM_/ {
      sub(/^\+[ \t]*#define[ \t]+/, ""); sub(/\/\*.*/, ""); name = $1; $1 = ""; print name, $0
    }' | evaluate
}

# The same of patch_abi.h, without US_ in front.
abi_numbers() {
  sed -nE 's/^#define US_(KVM_[A-Z0-9_]+) +([^/]+).*/\1 \2/p' "$1" |
    grep -v '^KVM_RUN_UNION_OFFSET ' | evaluate
}

evaluate() {
  local name value
  while read -r name value; do
    value=$(sed -E 's/([0-9a-fA-F])(U|L|UL|ULL)\b/\1/g' <<<"$value")
    printf '%s %d\n' "$name" "$((value))"
  done | sort
}

# Types of the fields of a structure: of kvm_run.tsc in the series, of us_kvm_run_tsc in the header.
added_fields() {
  cat "$1"/*.patch | awk '
    /^\+\+\+ / { header = $2 ~ /\/uapi\/linux\/kvm.h/ }
    header && /^\+.*struct \{/ { fields = "" }
    header && /^\+.*__u[0-9]+ / { match($0, /__u[0-9]+/); fields = fields " " substr($0, RSTART + 3, RLENGTH - 3) }
    header && /^\+.*\} tsc;/ { print fields }'
}
abi_fields() {
  awk '/^struct us_kvm_run_tsc/ { in_it = 1 } /^\};/ { in_it = 0 }
    in_it && match($0, /uint[0-9]+_t/) { fields = fields " " substr($0, RSTART + 4, RLENGTH - 6) }
    END { print fields }' "$1"
}

# compare SERIES_FOLDER ABI_HEADER
compare() {
  local numbers
  numbers=$(diff <(added_numbers "$1") <(abi_numbers "$2") | grep '^[<>]' |
    sed "s|^<|$1 adds:|; s|^>|$2 has:|" || true)
  [[ -z $numbers ]] || { echo "$numbers"; return 1; }
  [[ $(added_fields "$1") == "$(abi_fields "$2")" ]] ||
    { echo "kvm_run.tsc:$(added_fields "$1") in $1,$(abi_fields "$2") in $2"; return 1; }
}

check_numbers() {
  local series count
  for series in "$patches"/*/; do
    count=$(added_numbers "$series" | wc -l)
    [[ $count -ge 8 ]] || { echo "$series: only $count numbers seen: the check is broken"; return 1; }
    compare "$series" "$abi"
    echo "$series: $count numbers and one structure as in the header"
  done
}

# compiles LANGUAGE COMPILER HEADER
compiles() {
  "$2" -x "$1" -Wall -Wextra -Werror -fsyntax-only - <<EOF
#include <stddef.h>
#include <linux/kvm.h>
#include "$3"
#ifdef __cplusplus
#define ASSERT static_assert
#else
#define ASSERT _Static_assert
#endif
ASSERT(offsetof(struct kvm_run, hw) == US_KVM_RUN_UNION_OFFSET, "union of kvm_run");
ASSERT(sizeof(struct us_kvm_run_tsc) == 16, "us_kvm_run_tsc");
EOF
}

check_layout() {
  compiles c "${CC:-cc}" "$abi"
  compiles c++ "${CXX:-c++}" "$abi"
  echo "$abi compiles as C and C++"
}

# finds COMMAND...: it must print something.
finds() { [[ -n $("$@" 2>&1 || true) ]] || { echo "found nothing: $what"; return 1; }; }
quiet() { [[ -z $("$@" 2>&1) ]] || { echo "found something: $what"; return 1; }; }

check_selftest() {
  local work first what
  work=$(mktemp -d)
  trap 'rm -rf "$work"' RETURN
  first=$(find "$patches" -name '0001-*.patch' | sort | head -n 1)
  mkdir "$work/s"
  what='the patch as it is'
  cp "$(dirname "$first")"/*.patch "$work/s/"
  quiet malformed_hunks "$first"
  quiet malformed_mail "$first"
  quiet compare "$work/s" "$abi"
  what='a hunk without its last line'
  sed '$d' "$first" | sed '$d' >"$work/p" && finds malformed_hunks "$work/p"
  what='a hunk with a line too many'
  awk '{ print } /^@@ / && !n++ { print "+extra" }' "$first" >"$work/p" && finds malformed_hunks "$work/p"
  what='a file of the kernel proper'
  sed 's|arch/x86/kvm/x86.c|arch/x86/events/intel/pt.c|' "$first" >"$work/p" && finds malformed_hunks "$work/p"
  what='a text without sign-off'
  sed '/^Signed-off-by/d' "$first" >"$work/p" && finds malformed_mail "$work/p"
  what='another number in the header'
  sed 's/0x75730002/0x75730012/' "$abi" >"$work/a.h" && finds compare "$work/s" "$work/a.h"
  what='a number less in the header'
  sed '/define US_KVM_TSC_INSN_RDTSCP/d' "$abi" >"$work/a.h" && finds compare "$work/s" "$work/a.h"
  what='the structure elsewhere'
  sed 's/UNION_OFFSET 32/UNION_OFFSET 40/' "$abi" >"$work/a.h" && finds compiles c "${CC:-cc}" "$work/a.h"
  what='another field in the header'
  sed 's/uint32_t instruction/uint64_t instruction/' "$abi" >"$work/a.h" && finds compare "$work/s" "$work/a.h"
}

check_build() {
  local work
  if [[ -z ${US_KVM_MODULES:-} ]]; then
    echo "SKIPPED: builds a kernel's kvm modules for minutes; US_KVM_MODULES=6.1 asks for it"
    return 77
  fi
  work=${US_KVM_MODULES_FOLDER:-${TMPDIR:-/tmp}/us-kvm-modules}
  "$patches/build-modules.sh" --series "$US_KVM_MODULES" "$work"
}

"check_${1:?which check}"
