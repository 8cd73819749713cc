#!/usr/bin/env bash
# Static analysis of the C sources: cppcheck, clang-tidy and gcc -fanalyzer, each with its version.
#
#   tools/analyze.sh [cppcheck|clang-tidy|gcc]... [-- FILE...]      (all three over every .c file when none is named)
#
# Exit code 1 when something is found. What is not looked at, and why, stands beside each tool below; single places are
# excused where they are, by a comment with the reason.
set -uo pipefail
cd "$(dirname "$0")/.."
tools=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  tools+=("$1")
  shift
done
[ $# -gt 0 ] && shift
files=("$@")
[ ${#tools[@]} -gt 0 ] || tools=(cppcheck clang-tidy gcc)
# CUDA host files need CUDA's headers; generated tables hold data only.
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(ls io/*.c compute/*.c attention/*.c text/*.c vae/*.c dit/*.c pipeline/*.c |
  grep -vE 'cuda|cudnn|unicode_tables|html_entities|video_none')
flags=(-std=c11 -I. -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE '-DKN_VERSION="0"')
isa() {
  case $1 in
    *_avx2.c) echo -mavx2 -mfma -mf16c ;;
    *_avx512.c) echo -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c ;;
  esac
}
found=0
report() { # NAME FILE
  local n
  n=$(grep -cE ': (warning|error|performance|portability|style)' "$2")
  cat "$2"
  echo "== $1: $n findings in ${#files[@]} files"
  [ "$n" -eq 0 ] || found=1
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for tool in "${tools[@]}"; do
  : >"$log"
  case $tool in
    cppcheck)
      # autoVariables: a piece of work that lies on the caller's stack is handed to workers that end before the caller.
      # invalidPointerCast: reading the bytes of a row as the type they have is what a strip is for.
      # ctunullpointer, ctuuninitvar: takes the value of a pointer that is handed over by address for that address.
      # funcArgOrderDifferent: pipeline/debug.c calls `d` what its header calls `debug`, and `dev` the device.
      # internalAstError, syntaxError: cppcheck 2.10 does not read _Atomic(char *).
      cppcheck -q --enable=warning,performance,portability --std=c11 --inline-suppr --error-exitcode=0 -I. -D_POSIX_C_SOURCE=200809L \
        -D_DEFAULT_SOURCE -D__x86_64__ -D__GNUC__ '-DKN_VERSION="0"' -UKN_HAVE_CUDA --suppress=missingIncludeSystem \
        --suppress=autoVariables --suppress=invalidPointerCast --suppress=ctunullpointer \
        --suppress=ctuuninitvar --suppress=funcArgOrderDifferent --suppress=internalAstError --suppress=syntaxError \
        --template='{file}:{line}: {severity}: {message} [{id}]' "${files[@]}" >"$log" 2>&1
      report "$(cppcheck --version)" "$log"
      ;;
    clang-tidy)
      # Not: DeprecatedOrUnsafeBufferHandling (asks for the _s functions of C11 Annex K, which glibc lacks);
      # easily-swappable-parameters and similar matters of taste; the readability group.
      for f in "${files[@]}"; do
        # shellcheck disable=SC2046
        clang-tidy --quiet --checks='-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-narrowing-conversions,-bugprone-implicit-widening-of-multiplication-result,-bugprone-assignment-in-if-condition,-bugprone-macro-parentheses,-bugprone-reserved-identifier,-bugprone-branch-clone,cert-err33-c,-cert-err33-c,cert-env33-c,cert-msc50-cpp' \
          "$f" -- "${flags[@]}" $(isa "$f") 2>/dev/null
      done | grep -E ': (warning|error):' | sort -u >"$log"
      report "$(clang-tidy --version | sed -n 's/.*LLVM version/LLVM/p')" "$log"
      ;;
    gcc)
      # -fanalyzer of gcc 12 does not know that a KN_TRY that passed has set its out parameter, nor who owns what a
      # struct holds; its warnings of leaks, unset values and null pointers are all of that kind there (21 in 82 files, of
      # which some were followed in the source): clang's analyzer and the sanitizer builds look at the same.
      for f in "${files[@]}"; do
        # shellcheck disable=SC2046
        gcc -fanalyzer -O1 -c -o /dev/null "${flags[@]}" $(isa "$f") -Wno-analyzer-malloc-leak -Wno-analyzer-use-of-uninitialized-value \
          -Wno-analyzer-possible-null-dereference -Wno-analyzer-possible-null-argument -Wno-analyzer-null-dereference \
          -Wno-analyzer-null-argument "$f" 2>&1
      done | grep -E ': (warning|error):' | sort -u >"$log"
      report "$(gcc --version | head -1)" "$log"
      ;;
    *) echo "unknown tool $tool" >&2; exit 2 ;;
  esac
done
exit $found
