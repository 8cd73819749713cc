#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: every check and every benchmark beside its peer, in one go.
#
# usage: tools/gpu_all.sh BUILD RESULTS.json [COMMIT]
#   BUILD    a build folder with CUDA, or a folder of tools/gpu_bundle.sh with its env.sh sourced
#   RESULTS  bench/results/h200.json: records of the same id are replaced, others stay
# Wanted beside them: python3 with torch, transformers and diffusers; compute-sanitizer, else its steps are named as
# left out. Logs go to RESULTS.logs/. Ends with a table; exit code 1 when a step failed.
set -u
[ $# -ge 2 ] || { sed -n '4,8s/^# \{0,1\}//p' "$0"; exit 2; }
build=$1 results=$2 commit=${3:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
tools=$(cd "$(dirname "$0")" && pwd)
logs=$results.logs
mkdir -p "$logs"
failed=0
table=""

# In a build folder tests lie in tests/, in a bundle beside the rest.
program() { if [ -x "$build/tests/$1" ]; then echo "$build/tests/$1"; else echo "$build/$1"; fi; }

note() { table+=$(printf '%-22s %s' "$1" "$2")$'\n'; }

# step NAME SECONDS COMMAND...
step() {
  local name=$1 limit=$2 start=$SECONDS got=0
  shift 2
  if [ ! -x "$1" ] && ! command -v "$1" >/dev/null; then note "$name" "left out: $1 is not here"; failed=1; return; fi
  timeout "$limit" "$@" >"$logs/$name.log" 2>&1 || got=$?
  if [ $got = 0 ]; then note "$name" "passed, $((SECONDS - start)) s"
  else note "$name" "FAILED with exit code $got, see $logs/$name.log"; failed=1; fi
}

step card 20 nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.draw --format=csv
step check 240 "$(program kn_check)" --device cuda
for tool in memcheck racecheck; do
  if command -v compute-sanitizer >/dev/null; then
    step "$tool" 240 compute-sanitizer --tool $tool --error-exitcode 9 "$(program kn_check)" --device cuda \
      --op 'attention|norm|rope|softmax|copy|gather|patch|embed|upsample|stats'
  else
    note $tool "left out: no compute-sanitizer"
  fi
done
step dit 300 python3 "$tools/bench_torch_dit_gpu.py" "$(program bench_dit_forward)" "$results" --what error,480p,1080p,compile --commit "$commit"
step vae 200 python3 "$tools/bench_torch_vae_gpu.py" "$(program bench_vae_decode)" "$results" --commit "$commit"
step text 200 python3 "$tools/bench_torch_text_gpu.py" "$(program bench_text_encode)" "$results" --commit "$commit"
printf '%s' "$table"
exit $failed
