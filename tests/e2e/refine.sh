#!/usr/bin/env bash
# Refine stages: sizes, what is printed and recorded, the same bytes with other thread counts, from
# stored base latents, and after kill -9 at every step of every stage.
source "$(dirname "$0")/lib.sh" "$@"
command -v ffprobe >/dev/null || { echo "ffprobe is missing"; exit 77; }

dual=("${quick[@]}" --frames 5 --threads 1 --strength 0.5,0.5 --override --refresh 3 --override-for both)
two=("${dual[@]}" --steps 6 --refine-size 200x112,2x)

"$kinora" plan "${two[@]}" --progress lines -o x.mp4 2>plan.txt
grep -q 'refine 1: 200x112, .* 3 of 6 steps from sigma 0\.' plan.txt || fail "stage 1: $(cat plan.txt)"
grep -q 'refine 2: 320x192, .* window 11x7 tokens .* temperature 1.0813' plan.txt || fail "stage 2: $(cat plan.txt)"
grep -q 'full branch every 3 steps, for both prompts' plan.txt || fail "override: $(cat plan.txt)"
! grep -q 'starts from noise' plan.txt || fail "half of the steps: $(cat plan.txt)"
has 'refine 2: starts from noise .strength 1.: of the clip before it 0\.[0-9]{2}% is left' "$kinora" plan "${two[@]}" --strength 0.5,1 --progress lines -o x.mp4 ||
  fail "strength 1: $(cat has.txt)"
[ "$(grep -c 'starts from noise' has.txt)" = 1 ] || fail "one stage of two: $(cat has.txt)"
for phase in denoise 'upscale 1' 'refine 1' 'upscale 2' 'refine 2' decode; do
  grep -qE "^$phase +[0-9.]+ GiB" plan.txt || fail "memory of $phase: $(cat plan.txt)"
done

"$kinora" render "${two[@]}" -o whole.mp4 --frames-dir frames
[ "$(ffprobe -v error -count_frames -show_entries stream=width,height,nb_read_frames -of csv=p=0 whole.mp4)" = 320,192,5 ] ||
  fail "size or frames"
[ "$(ls frames | wc -l)" = 5 ] || fail "PNG frames"
grep -q '"name": "refine 2"' whole.mp4.json || fail "passes are not in the sidecar: $(cat whole.mp4.json)"

"$kinora" render "${two[@]}" --threads 2 -o threads.mp4
cmp whole.mp4 threads.mp4 || fail "another thread count gave other bytes"

# The encoder too: fresh memory of any content (glibc fills it by this variable) gives the same bytes.
for fill in 37 74 111 148; do
  MALLOC_PERTURB_=$fill "$kinora" render "${two[@]}" -o filled.mp4 -y
  cmp whole.mp4 filled.mp4 || fail "other bytes with memory filled by $fill"
done

# Killed as soon as a step of a stage is reported, then resumed.
resumed() { # STAGE STEP
  rm -f cut.mp4*
  killed_at "$1" "$2" 1 "$kinora" render "${two[@]}" -o cut.mp4
  if [ ! -e cut.mp4 ]; then
    [ -e cut.mp4.checkpoint.safetensors ] || fail "no checkpoint after $1, $2"
    "$kinora" render "${two[@]}" -o cut.mp4 --resume
  fi
  cmp whole.mp4 cut.mp4 || fail "killed at $1, $2: other bytes after --resume"
  [ ! -e cut.mp4.checkpoint.safetensors ] || fail "checkpoint left behind"
}
resumed denoise 5
resumed denoise 6
resumed 'upscale 1' 1
for stage in 1 2; do
  for step in 1 2 3; do resumed "refine $stage" $step; done
done
two+=(--override-steps 2 --override-layers 2-7 --full-positions fitted)
rm whole.mp4*
"$kinora" plan "${two[@]}" --progress lines -o whole.mp4 2>part.txt
"$kinora" render "${two[@]}" -o whole.mp4
grep -q 'full branch every 3 steps of the first 2, for both prompts, layers 2 to 7' part.txt || fail "override: $(cat part.txt)"
grep -q 'refine 2: full self-attention at positions times ' part.txt || fail "positions: $(cat part.txt)"
for step in 1 2; do resumed "refine 2" $step; done
at_least_killed 7

# From stored base latents: the same as in one run.
base=("${quick[@]}" --frames 5 --threads 1)
"$kinora" render "${base[@]}" --latents-out base.safetensors
"$kinora" render "${base[@]}" --latents-in base.safetensors --refine-size 2x --latents-out apart.safetensors
"$kinora" render "${base[@]}" --refine-size 2x --latents-out whole.safetensors
payload() { tail -c $((4 * 16 * 2 * 24 * 40)) "$1" | cksum; }
[ "$(payload apart.safetensors)" = "$(payload whole.safetensors)" ] || fail "refining stored latents gave other latents"

# Every way to enlarge and to attend runs.
for more in "--upscale lanczos" "--upscale latent" "--attention dense" "--attention tile3d --tile-window 1x1x1 --attention-tile 2x4x4 --dense-steps 0" \
    "--attention cross --attention-tile 1x4x4" "--attention draft --density 0.2 --dense-steps 0" "--attention permute --mass 0.5" \
    "--attention paro --mass 0.5 --reuse-lists 9" "--override --refresh 1 --full-attention draft --dense-steps 0" "--override --refresh 1" "--override --override-steps 1" "--override --override-layers 1-2" \
    "--attention dense --full-positions own" "--dense-steps 1 --full-positions own" "--temperature off --window 5x3"; do
  "$kinora" render "${base[@]}" --latents-in base.safetensors --refine-size 2x $more --latents-out more.safetensors -y
  [ "$(payload more.safetensors)" != "$(payload whole.safetensors)" ] || fail "$more changed nothing"
done

expect_error 2 "--refine-size" "$kinora" render "${base[@]}" -o x.mp4 --refine-size 2
expect_error 2 "at least as large" "$kinora" render "${base[@]}" -o x.mp4 --refine-size 2x,1x
expect_error 2 "TxHxW" "$kinora" render "${base[@]}" -o x.mkv --refine-size 2x --attention tile3d --attention-tile 8x8
expect_error 2 "both odd" "$kinora" render "${base[@]}" -o x.mp4 --refine-size 2x --window 10x6
expect_error 2 "auto, off or a factor" "$kinora" render "${base[@]}" -o x.mp4 --refine-size 2x --temperature warm
for layers in 0-2 3-2 1-9 1- 1-2x some 4294967297-4294967298 1-99999999999999999999; do
  expect_error 2 "FIRST-LAST within 1-8" "$kinora" render "${base[@]}" -o x.mp4 --refine-size 2x --override --override-layers "$layers"
done
expect_error 2 "commas between" "$kinora" render "${base[@]}" -o x.mp4 --refine-size 2x --strength 0.5,2
expect_error 2 "no step" "$kinora" render "${base[@]}" -o x.mp4 --refine-size 2x --strength 0.01
