#!/usr/bin/env bash
# Static analysis of the C sources: cppcheck, clang-tidy and gcc -fanalyzer, each with its version.
#
#   tools/analyze.sh [cppcheck|clang-tidy|gcc]... [-- FILE...]
#
# All three over every .c file of the layers, of tests/, bench/ and examples/ when none is named. Exit code 1 when something is
# found. What is left out, and why, stands in .clang-tidy and in tools/analyze.supp; single places are excused where they are, by
# a comment with the reason (NOLINT, cppcheck-suppress). CUDA C++ (.cu) is left to nvcc's warnings and compute-sanitizer; generated
# tables (unicode_tables.c, html_entities.c) hold data only.
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
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(ls io/*.c compute/*.c attention/*.c text/*.c vae/*.c dit/*.c pipeline/*.c examples/*.c \
  tests/*/*.c bench/*.c | grep -vE 'unicode_tables|html_entities')
cuda=$(ls -d /usr/local/cuda/include /usr/lib/cuda/include 2>/dev/null | head -1)
export cuda
# KN_ANALYZE: see kn_fail in io/status.h.
flags_of() {
  local flags=(-std=c11 -I. -Ipipeline -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -DKN_ANALYZE '-DKN_VERSION="0"' '-DKN_TEST_DATA="data"'
    '-DKN_SOURCE_DIR="."')
  case $1 in
    *_avx2.c) flags+=(-mavx2 -mfma -mf16c) ;;
    *_avx512.c) flags+=(-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c) ;;
    compute/cuda_*.c | *_cuda.c | *_cudnn.c | bench/bench_attn.c) flags+=(-DKN_HAVE_CUDA -isystem "$cuda") ;;
    tests/fuzz/*) flags+=(-DKN_FUZZ_REPLAY) ;;
  esac
  printf '%s\n' "${flags[@]}"
}
one_tidy() {
  local flags
  mapfile -t flags < <(flags_of "$1")
  clang-tidy --quiet "$1" -- "${flags[@]}" 2>/dev/null | grep -E ': (warning|error):'
  return 0
}
one_gcc() {
  local flags kept
  mapfile -t flags < <(flags_of "$1")
  gcc -fanalyzer -O1 -c -o /dev/null "${flags[@]}" "$1" 2>&1 | grep -E ': (warning|error):' | while IFS= read -r line; do
    kept=1
    while read -r file warning _; do
      # shellcheck disable=SC2053
      [[ $1 == $file && $line == *"[-W$warning]"* ]] && kept=0
    done < <(sed -n 's/^gcc //p' tools/analyze.supp)
    [ $kept = 0 ] || echo "$line"
  done
  return 0
}
export -f flags_of one_tidy one_gcc
# Those that need CUDA's headers are counted as left out where there are none.
if [ -z "$cuda" ]; then
  kept=()
  for f in "${files[@]}"; do
    case $f in compute/cuda_*.c | *_cuda.c | *_cudnn.c | bench/bench_attn.c) echo "left out, no CUDA headers: $f" ;; *) kept+=("$f") ;; esac
  done
  files=("${kept[@]}")
fi
found=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
report() { # NAME
  local n
  n=$(grep -cE ': (warning|error|performance|portability|style)' "$log")
  cat "$log"
  echo "== $1: $n findings in ${#files[@]} files"
  [ "$n" -eq 0 ] || found=1
}
each() { printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -I{} bash -c "$1 {}"; }
for tool in "${tools[@]}"; do
  case $tool in
    cppcheck)
      mapfile -t suppress < <(sed -n 's/^cppcheck \([^ ]*\).*/--suppress=\1/p' tools/analyze.supp)
      cppcheck -q -j "$(nproc)" --enable=warning,performance,portability --std=c11 --inline-suppr --error-exitcode=0 -I. \
        -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D__x86_64__ -D__GNUC__ '-DKN_VERSION="0"' -UKN_HAVE_CUDA "${suppress[@]}" \
        --template='{file}:{line}: {severity}: {message} [{id}]' "${files[@]}" >"$log" 2>&1
      report "$(cppcheck --version)"
      ;;
    clang-tidy)
      each one_tidy | sort -u >"$log"
      report "clang-tidy$(clang-tidy --version | sed -n 's/.*LLVM version//p')"
      ;;
    gcc)
      each one_gcc | sort -u >"$log"
      report "$(gcc --version | head -1) -fanalyzer"
      ;;
    *) echo "unknown tool $tool" >&2; exit 2 ;;
  esac
done
exit $found
