#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: every check and every benchmark beside its peer, in one go.
#
# usage: tools/gpu_all.sh BUILD RESULTS.json [COMMIT [STEP...]]
#   BUILD    a build folder with CUDA, or a folder of tools/gpu_bundle.sh with its env.sh sourced
#   RESULTS  bench/results/h200.json, and h200-attention.json beside it: records of the same id are replaced, others stay
#   STEPs    checks memory races dit dit14 vae text refine render (all of them when none is named)
# Wanted beside them: ../tests/e2e, python3 with torch, transformers, diffusers and Pillow; compute-sanitizer; for `races` the target
# attention_hopper_every_lane; 60 GB of /dev/shm and 80 GB of the card's memory for dit14. What is
# missing is named as left out and counts as a failure. Logs go to RESULTS.logs/. Ends with a table; exit code 1 when a
# step failed. All steps take some 20 minutes on an H100.
set -u
[ $# -ge 2 ] || { sed -n '4,12s/^# \{0,1\}//p' "$0"; exit 2; }
build=$(cd "$1" && pwd) results=$(realpath -m "$2") commit=${3:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
[ $# -gt 3 ] && shift 3 || set -- checks memory races dit dit14 vae text refine render
tools=$(cd "$(dirname "$0")" && pwd)
model=${KN_DEMO_MODEL:-$(dirname "$tools")/demo/model}
logs=$results.logs
mkdir -p "$logs"
: >"$logs/table"

# In a build folder tests lie in tests/, in a bundle beside the rest.
program() { if [ -x "$build/tests/$1" ]; then echo "$build/tests/$1"; else echo "$build/$1"; fi; }

note() { printf '%-16s %s\n' "$1" "$2" >>"$logs/table"; }

# step NAME SECONDS COMMAND...
step() {
  local name=$1 limit=$2 start=$SECONDS got=0
  shift 2
  if [ ! -x "$1" ] && ! command -v "$1" >/dev/null; then note "$name" "FAILED: left out, $1 is not here"; return; fi
  timeout "$limit" "$@" >"$logs/$name.log" 2>&1 || got=$?
  if [ $got = 0 ]; then note "$name" "passed, $((SECONDS - start)) s"
  else note "$name" "FAILED with exit code $got after $((SECONDS - start)) s, see $logs/$name.log"; fi
}

# race NAME SECONDS COMMAND...: racecheck, which also looks into NVIDIA's libraries and reports some of their kernels
# (nvjet, cuDNN's attention: ordered by what it does not follow; left out by name, the program crashed). Only others count.
race() {
  local name=$1 limit=$2 got=0 own start=$SECONDS
  shift 2
  timeout "$limit" compute-sanitizer --tool racecheck --racecheck-report analysis --print-limit 1000000 "$@" \
    >"$logs/$name.log" 2>&1 || got=$?
  own=$(grep -E '(Race reported between|and (Read|Write)) ' "$logs/$name.log" | grep -cvE 'nvjet|xmma|cutlass|cudnn|cublas')
  if [ "$got" = 0 ] && grep -q 'RACECHECK SUMMARY' "$logs/$name.log" && [ "$own" = 0 ]; then
    note "$name" "passed, $((SECONDS - start)) s"
  else
    note "$name" "FAILED with exit code $got after $((SECONDS - start)) s, $own lines of own kernels, see $logs/$name.log"
  fi
}

small=(render --model "$model" --prompt 'a red ball bouncing over grass' --seed 3 --steps 3 --frames 5 --device cuda
  --progress none --refine-size 2x --attention permute --base-attention draft)

run_checks() { # side by side: nothing is timed
  step check 400 "$(program kn_check)" --device cuda &
  step attention-sm80 200 "$build/attention_hopper" check sm80 &
  step attention-sm90 200 "$build/attention_hopper" check sm90 &
  step picture 300 python3 "$tools/check_gpu_render.py" "$build/kinora" "$model" "$results" --commit "$commit" &
  step numerics 200 bash "$tools/../tests/e2e/gpu_numerics.sh" "$build/kinora" "$(dirname "$tools")" &
  wait
}

run_memory() {
  export KN_CHECK_QUICK=1
  step memcheck 400 compute-sanitizer --tool memcheck --error-exitcode 9 "$(program kn_check)" --device cuda &
  for kernel in sm80 sm90; do
    for tool in memcheck synccheck; do
      step $tool-$kernel 400 compute-sanitizer --tool $tool --error-exitcode 9 "$build/attention_hopper" check $kernel &
    done
  done
  step memcheck-render 400 compute-sanitizer --tool memcheck --error-exitcode 9 "$build/kinora" "${small[@]}" \
    --frames-dir "$logs/frames-memory" &
  wait
}

run_races() {
  export KN_CHECK_QUICK=1
  race race-ops 500 "$(program kn_check)" --device cuda --op \
    '^(act|axpby|copy|embed|gate|gather|layernorm|mul|norm|patchify|rmsnorm_[0-9]{1,3}x|rope|unpatchify|upsample2|attention_(33x97|31x200|20x33))' &
  race race-sm80 1200 "$build/attention_hopper" check sm80 &
  race race-sm90 500 "$build/attention_hopper_every_lane" check sm90 &
  wait
}

run_dit() {
  step dit 400 python3 "$tools/bench_torch_dit_gpu.py" "$build/bench_dit_forward" "$results" --what error,480p,1080p,compile --commit "$commit"
}
run_dit14() {
  TMPDIR=/dev/shm step dit14 300 python3 "$tools/bench_torch_dit_gpu.py" "$build/bench_dit_forward" "$results" --size 14B --what 480p --commit "$commit"
}
run_vae() { step vae 200 python3 "$tools/bench_torch_vae_gpu.py" "$build/bench_vae_decode" "$results" --commit "$commit"; }
run_text() { step text 200 python3 "$tools/bench_torch_text_gpu.py" "$build/bench_text_encode" "$results" --commit "$commit"; }
run_refine() {
  step refine 300 python3 "$tools/bench_torch_refine.py" --program "$build/bench_dit_refine" --out "${results%.json}-attention.json" --commit "$commit"
}
run_render() {
  step render 900 python3 "$tools/bench_render_gpu.py" "$build/kinora" "$model/tokenizer" "$results" "${results%.json}-attention.json" --commit "$commit"
}

step card 20 nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.draw --format=csv
for wanted in "$@"; do
  case $wanted in
    checks | memory | races | dit | dit14 | vae | text | refine | render) run_$wanted ;;
    *) note "$wanted" "FAILED: no such step" ;;
  esac
done
cat "$logs/table"
! grep -q FAILED "$logs/table"
