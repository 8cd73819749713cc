#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: every check and every benchmark beside its peer, in one go.
#
# usage: tools/gpu_all.sh BUILD RESULTS.json [COMMIT [STEP...]]
#   BUILD    a build folder with CUDA, made and built when it is not there; or a folder of tools/gpu_bundle.sh with its env.sh sourced
#   RESULTS  bench/results/h200.json, and h200-attention.json beside it: records of the same id are replaced, others stay
#   STEPs    models errors warm checks memory races dit dit14 vae text refine attention render (all of them when none is named),
#            and render-full: all 50 + 35 steps of the 1080p render, some five minutes
# Wanted beside them: ../tests/e2e, python3 with torch, transformers, diffusers and Pillow; compute-sanitizer; for `races` the target
# attention_hopper_every_lane; 80 GB of the card's memory, and 60 GB for models in KN_GPU_MODELS (/dev/shm/kinora-models).
# What is missing is named as left out and counts as a failure. models, errors, warm and races run side by side, then checks
# and memory, for they time nothing; the others have the card to themselves, one after the other, each of which loads its Python
# modules while the one before measures: eleven and a quarter minutes on an H100. Logs go to RESULTS.logs/. Ends with a table; exit code
# 1 when a step failed.
set -u
[ $# -ge 2 ] || { sed -n '4,16s/^# \{0,1\}//p' "$0"; exit 2; }
tools=$(cd "$(dirname "$0")" && pwd)
if [ ! -e "$1" ]; then
  cmake -S "$(dirname "$tools")" -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DKN_CUDA=ON &&
    cmake --build "$1" --target all attention_hopper_every_lane || exit 1
fi
build=$(cd "$1" && pwd) results=$(realpath -m "$2") commit=${3:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
[ $# -gt 3 ] && shift 3 || set -- models errors warm checks memory races dit dit14 vae text refine attention render
model=${KN_DEMO_MODEL:-$(dirname "$tools")/demo/model}
logs=$results.logs times=${results%.json}-attention.json
models=${KN_GPU_MODELS:-/dev/shm/kinora-models}
mkdir -p "$logs"
: >"$logs/table"
rm -f "$logs/made"
echo 0 >"$logs/ended"
export KN_GPU_TURN=$logs/turn # of tools/bench_records.py

# In a build folder tests lie in tests/, in a bundle beside the rest.
program() { if [ -x "$build/tests/$1" ]; then echo "$build/tests/$1"; else echo "$build/$1"; fi; }

note() { printf '%-16s %s\n' "$1" "$2" >>"$logs/table"; }

# step NAME SECONDS COMMAND...
step() {
  local name=$1 limit=$2 start=$SECONDS got=0
  shift 2
  if [ ! -x "$1" ] && ! command -v "$1" >/dev/null; then note "$name" "FAILED: left out, $1 is not here"; return; fi
  timeout "$limit" "$@" >"$logs/$name.log" 2>&1 || got=$?
  [ "$start" -ge "$(cat "$logs/ended")" ] || start=$(cat "$logs/ended") # it waited for its turn until then
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

# Its evaluations are recorded: a kernel that reads memory given back since would show.
recorded=(render --model "$model" --prompt 'a red ball bouncing over grass' --seed 3 --steps 3 --frames 5 --device cuda
  --progress none --refine-size 2x --override --refresh 2)

run_models() {
  { step models 200 python3 "$tools/bench_render_gpu.py" "$build/kinora" "$model/tokenizer" - - --keep "$models/wan" --make; : >"$logs/made"; } &
  step model-14b 200 python3 "$tools/bench_torch_dit_gpu.py" - - --size 14B --model "$models/14b" --what nothing &
  wait
}

# Distances from float32, on the models that are made beside it.
run_errors() {
  for _ in $(seq 200); do
    [ -e "$logs/made" ] || [ -e "$models/wan/model_index.json" ] || sleep 1
  done
  step dit-error 200 python3 "$tools/bench_torch_dit_gpu.py" "$build/bench_dit_forward" "$results" --what error --commit "$commit" \
    --model "$models/wan/transformer" &
  step vae-error 200 python3 "$tools/bench_torch_vae_gpu.py" "$build/bench_vae_decode" "$results" --what error --commit "$commit" \
    --model "$models/wan/vae" &
  wait
}

# What PyTorch compiles, it keeps for other processes.
run_warm() {
  step warm-dit 200 python3 "$tools/bench_torch_dit_gpu.py" - - --what warm &
  step warm-refine 200 python3 "$tools/bench_torch_refine.py" --layers 1 --rounds 0 &
  step warm-flex 200 python3 "$tools/bench_torch_flex.py" <<END &
window 12 128 21 68 120 31 53 0
lists 12 128 21 45 80 0 0 0.25
END
  wait
}

run_checks() {
  step check 400 "$(program kn_check)" --device cuda &
  for kernel in sm80 sm90 int8; do step attention-$kernel 200 "$build/attention_hopper" check $kernel & done
  step picture 300 python3 "$tools/check_gpu_render.py" "$build/kinora" "$model" "$results" --commit "$commit" &
  for test in gpu gpu_numerics; do
    step e2e_$test 300 bash "$tools/../tests/e2e/$test.sh" "$build/kinora" "$(dirname "$tools")" &
  done
  wait
}

# Ops whose kernels are all this project's own, and small.
own='^(act|axpby|copy|embed|gate|gather|layernorm|mul|norm|patchify|rmsnorm_[0-9]{1,3}x|rope|unpatchify|upsample2|attention_(33x97|31x200|20x33))'

# sanitizer TOOL NAME COMMAND...
sanitizer() {
  local tool=$1 name=$2
  shift 2
  step $tool-$name 400 compute-sanitizer --tool $tool --error-exitcode 9 "$@"
}

# initcheck does not follow what the copy engine writes, and so reports the softmax of attention scores that cuBLASLt made.
run_memory() {
  export KN_CHECK_QUICK=1
  sanitizer memcheck ops "$(program kn_check)" --device cuda &
  sanitizer initcheck ops "$(program kn_check)" --device cuda --op "${own%|attention*})" &
  sanitizer synccheck ops --num-cuda-barriers 65536 "$(program kn_check)" --device cuda --op "$own" &
  sanitizer synccheck products --num-cuda-barriers 65536 "$(program kn_check)" --device cuda --op "^(conv|linear)_[1-9]x" &
  for kernel in sm80 sm90 int8; do
    for tool in memcheck synccheck; do sanitizer $tool $kernel "$build/attention_hopper" check $kernel & done
  done
  sanitizer memcheck recorded "$build/kinora" "${recorded[@]}" --latents-out "$logs/recorded.safetensors" --overwrite &
  for tool in memcheck synccheck; do
    sanitizer $tool render "$build/kinora" "${small[@]}" --frames-dir "$logs/frames-$tool" --overwrite &
  done
  wait
}

run_races() {
  export KN_CHECK_QUICK=1
  race race-ops 500 "$(program kn_check)" --device cuda --op "$own" &
  race race-conv 500 "$(program kn_check)" --device cuda --op 'conv_(3x4x15x96|4x5x7x96)_' &
  for share in 0 1 2 3; do race race-sm80-$share 500 "$build/attention_hopper" check sm80 $share 4 & done
  race race-sm90 500 "$build/attention_hopper_every_lane" check sm90 &
  race race-int8 500 "$build/attention_hopper_every_lane" check int8 &
  wait
}

run_dit() {
  step dit 800 python3 "$tools/bench_torch_dit_gpu.py" "$build/bench_dit_forward" "$results" --model "$models/wan/transformer" \
    --what 480p,1080p,compile --commit "$commit"
}
run_dit14() {
  step dit14 800 python3 "$tools/bench_torch_dit_gpu.py" "$build/bench_dit_forward" "$results" --size 14B --model "$models/14b" \
    --what 480p --commit "$commit"
}
run_vae() {
  step vae 800 python3 "$tools/bench_torch_vae_gpu.py" "$build/bench_vae_decode" "$results" --runs 3 --what decode,encode --commit "$commit" \
    --model "$models/wan/vae"
}
run_text() {
  step text 800 python3 "$tools/bench_torch_text_gpu.py" "$build/bench_text_encode" "$results" --model "$models/wan/text_encoder" \
    --commit "$commit"
}
run_refine() {
  step refine 800 python3 "$tools/bench_torch_refine.py" --program "$build/bench_dit_refine" --out "$times" --rounds 1 --runs 2 \
    --commit "$commit" --model "$models/wan/transformer"
}
run_attention() {
  step attention 800 flock "$KN_GPU_TURN" "$build/bench_attn" --peer "python3 $tools/bench_torch_flex.py" --rounds 3 --commit "$commit" --out "$logs/attention.json" --only \
    dense-480p,dense-1080p,window-1080p,fp8-window,fp8-window-layer,window-4k,tiles-1080p,lists-50,lists-25,lists-10,draft-25-1080p,permute-25-1080p
  step attention-records 60 python3 "$tools/bench_records.py" "$times" "$logs/attention.json"
}
render() {
  local name=$1
  shift
  step "$name" 900 python3 "$tools/bench_render_gpu.py" "$build/kinora" "$model/tokenizer" "$results" "$times" --keep "$models/wan" \
    --commit "$commit" "$@"
}
run_render() { render render --short; }
run_render_full() { render render-full; }

step card 20 nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.draw --format=csv
timed() {
  case $1 in
    dit | dit14 | vae | text | refine | attention | render) run_$1 ;;
    render-full) run_render_full ;;
    *) note "$1" "FAILED: no such step" ;;
  esac
  echo "$SECONDS" >"$logs/ended"
}
# In two parts: all at once fill 80 GB, and the sanitizer and renders run out of memory.
for part in 'models errors warm races' 'checks memory'; do
  for wanted in "$@"; do
    case " $part " in *" $wanted "*) run_$wanted & ;; esac
  done
  wait
done
echo "$SECONDS" >"$logs/ended"
before=
for wanted in "$@"; do
  case $wanted in models | errors | warm | checks | memory | races) continue ;; esac
  timed "$wanted" &
  now=$!
  [ -z "$before" ] || wait "$before" # one measures, one loads
  until ! flock -n "$KN_GPU_TURN" true || ! kill -0 "$now" 2>/dev/null; do sleep 0.2; done
  before=$now
done
wait
cat "$logs/table"
! grep -q FAILED "$logs/table"
