#!/usr/bin/env bash
# Bounded fuzz campaigns over every target of tests/fuzz/, with libFuzzer or AFL++.
#
#   tools/fuzz.sh [--afl] [--seconds N | --runs N] [--work DIR] [--merge] [TARGET...]
#
#   --afl        with AFL++ (afl-clang-fast, afl-fuzz), without sanitizers; --merge is libFuzzer's
#   --seconds N  per target (default 60); --runs N: executions per target instead
#   --work DIR   grown corpora, logs and finds (default build-fuzz/campaign or build-afl/campaign); kept from run to run
#   --merge      afterwards: inputs of the grown corpora that reach code which tests/fuzz/corpus/ does not, and that are
#                at most 1 KiB, are added to it
#   TARGET       io_json, pipeline_batch_nomem, ...; all of them when none is named
#
# Prints a line per target and the sums over all campaigns in the work folder; exit code 1 when a target crashed,
# leaked, hung or took too much memory (libFuzzer: the input lies in DIR/finds, AFL++: in DIR/TARGET/default/crashes and
# hangs). Needs clang with libFuzzer, or AFL++.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
kind=fuzz
work=
seconds=60
runs=
merge=0
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --afl) kind=afl ;;
    --seconds) seconds=$2; shift ;;
    --runs) runs=$2; shift ;;
    --work) work=$2; shift ;;
    --merge) merge=1 ;;
    -*) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
limit=-max_total_time=$seconds
afl_limit=(-V "$seconds")
if [ -n "$runs" ]; then
  limit=-runs=$runs
  afl_limit=(-E "$runs")
fi
build=$root/build-$kind
work=${work:-$build/campaign}
if [ ${#targets[@]} -eq 0 ]; then
  for f in "$root"/tests/fuzz/fuzz_*.c; do
    n=$(basename "$f" .c)
    targets+=("${n#fuzz_}" "${n#fuzz_}_nomem")
  done
fi
(cd "$root" && { [ -f "$build/build.ninja" ] || cmake --preset $kind -DKN_BENCH=OFF >/dev/null; })
ninja -C "$build" "${targets[@]/#/fuzz_}" >/dev/null
mkdir -p "$work"
failed=0
line() { printf '%-30s %12s %8s %8s %s\n' "$@"; }

libfuzzer() { # TARGET
  local t=$1 what=${1%_nomem} corpus result=ok log
  corpus=$work/corpus/$what
  log=$work/logs/$t.$stamp.log
  mkdir -p "$corpus" "$work/finds" "$work/logs"
  # Decoders of libav take their time over large claims, hence the seconds per input.
  "$build/tests/fuzz_$t" "$limit" -max_len=4096 -rss_limit_mb=3000 -timeout=60 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="$work/finds/$t-" "$corpus" "$root/tests/fuzz/corpus/$what" >"$log" 2>&1 ||
    result="FAILED, see $log"
  [ "$result" = ok ] || failed=1
  stat() { sed -n "s/^stat::$1: *//p" "$log"; }
  line "$t" "$(stat number_of_executed_units)" "$(stat average_exec_per_sec)" "$(find "$corpus" -type f | wc -l)" "$result"
  if [ $merge -eq 1 ] && [ "$what" = "$t" ]; then
    local small=$work/small/$what
    rm -rf "$small" && mkdir -p "$small"
    find "$corpus" -type f -size -1025c -exec cp {} "$small" \;
    # use_counters: how often a branch is taken is no new code.
    "$build/tests/fuzz_$t" -merge=1 -use_counters=0 -max_len=1024 -verbosity=0 "$root/tests/fuzz/corpus/$what" "$small" >/dev/null 2>&1
  fi
}

aflfuzz() { # TARGET
  local t=$1 what=${1%_nomem} in result=ok
  in=$root/tests/fuzz/corpus/$what
  [ -d "$work/$t/default/queue" ] && in=- # goes on
  # A crash ends the process that AFL++ watches, whatever the kernel does with core files; other processes share the cores.
  AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 \
    afl-fuzz -i "$in" -o "$work/$t" -G 4096 -t 20000 "${afl_limit[@]}" -- "$build/tests/fuzz_$t" \
    >"$work/$t.log" 2>&1 || result="FAILED, see $work/$t.log"
  local stats=$work/$t/default/fuzzer_stats
  value() { sed -n "s/^$1 *: *//p" "$stats"; }
  if [ "$result" = ok ] && [ "$(value saved_crashes) $(value saved_hangs)" != "0 0" ]; then
    result="FAILED: $(value saved_crashes) crashes, $(value saved_hangs) hangs in $work/$t/default"
  fi
  [ "$result" = ok ] || failed=1
  line "$t" "$(value execs_done)" "$(value execs_per_sec)" "$(value corpus_count)" "$result"
}

stamp=$(date +%Y%m%d-%H%M%S)
line target executions per_sec inputs result
for t in "${targets[@]}"; do
  if [ $kind = afl ]; then aflfuzz "$t"; else libfuzzer "$t"; fi
done
if [ $kind = afl ]; then
  cat "$work"/*/default/fuzzer_stats | awk '/^execs_done/ { n += $3 } END { printf "all campaigns here: %d executions\n", n }'
else
  cat "$work"/logs/*.log | awk '/^stat::number_of_executed_units/ { n += $2 } END { printf "all campaigns here: %d executions\n", n }'
fi
exit $failed
