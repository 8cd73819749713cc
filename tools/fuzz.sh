#!/usr/bin/env bash
# Bounded fuzz campaigns over every target of tests/fuzz/, with libFuzzer.
#
#   tools/fuzz.sh [--seconds N | --runs N] [--work DIR] [--merge] [TARGET...]
#
#   --seconds N  per target (default 60); --runs N: executions per target instead
#   --work DIR   grown corpora, logs and finds (default build-fuzz/campaign); kept from run to run
#   --merge      afterwards: inputs of the grown corpora that reach code which tests/fuzz/corpus/ does not, and that are
#                at most 1 KiB, are added to it
#   TARGET       io_json, pipeline_batch_nomem, ...; all of them when none is named
#
# Prints a line per target and the sums over all campaigns in the work folder; exit code 1 when a target crashed,
# leaked, hung or took too much memory (the input lies in DIR/finds). Needs clang with libFuzzer.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build-fuzz
work=$build/campaign
limit=-max_total_time=60
merge=0
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) limit=-max_total_time=$2; shift ;;
    --runs) limit=-runs=$2; shift ;;
    --work) work=$2; shift ;;
    --merge) merge=1 ;;
    -*) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
if [ ${#targets[@]} -eq 0 ]; then
  for f in "$root"/tests/fuzz/fuzz_*.c; do
    n=$(basename "$f" .c)
    targets+=("${n#fuzz_}" "${n#fuzz_}_nomem")
  done
fi
[ -f "$build/build.ninja" ] || cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_C_COMPILER=clang -DKN_FUZZ=ON -DKN_CUDA=OFF -DKN_BENCH=OFF -DKN_SANITIZE=address,undefined >/dev/null
ninja -C "$build" "${targets[@]/#/fuzz_}" >/dev/null
mkdir -p "$work/finds" "$work/logs"
stamp=$(date +%Y%m%d-%H%M%S)
failed=0
printf '%-30s %12s %8s %8s %s\n' target executions per_sec inputs result
for t in "${targets[@]}"; do
  what=${t%_nomem}
  corpus=$work/corpus/$what
  log=$work/logs/$t.$stamp.log
  mkdir -p "$corpus"
  result=ok
  # Decoders of libav take their time over large claims, hence the seconds per input.
  "$build/tests/fuzz_$t" $limit -max_len=4096 -rss_limit_mb=3000 -timeout=60 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="$work/finds/$t-" "$corpus" "$root/tests/fuzz/corpus/$what" >"$log" 2>&1 || result="FAILED, see $log"
  [ "$result" = ok ] || failed=1
  stat() { sed -n "s/^stat::$1: *//p" "$log"; }
  printf '%-30s %12s %8s %8s %s\n' "$t" "$(stat number_of_executed_units)" "$(stat average_exec_per_sec)" \
    "$(find "$corpus" -type f | wc -l)" "$result"
  if [ $merge -eq 1 ] && [ "$what" = "$t" ]; then
    small=$work/small/$what
    rm -rf "$small" && mkdir -p "$small"
    find "$corpus" -type f -size -1025c -exec cp {} "$small" \;
    "$build/tests/fuzz_$t" -merge=1 -max_len=1024 -verbosity=0 "$root/tests/fuzz/corpus/$what" "$small" >/dev/null 2>&1
  fi
done
cat "$work"/logs/*.log | awk '/^stat::number_of_executed_units/ { n += $2 } END { printf "all campaigns here: %d executions\n", n }'
exit $failed
