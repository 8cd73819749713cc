#!/usr/bin/env bash
# Numbers that a render must not take as they come: NaN at a later step, and attention by approximate products, on the CPU and
# the ref device. e2e_gpu_numerics is the same on a GPU.
source "$(dirname "$0")/lib.sh" "$@"
command -v python3 >/dev/null || { echo "python3 is missing"; exit 77; }

# NaN from the third step on: the run ends there, nothing has a final name, --resume meets it again.
overflowing over
nan=("$kinora" render "${quick[@]}" --model over -o x.mp4 --frames-dir frames --latents-out x.safetensors --contact-sheet x.png)
expect_error 6 "denoise step 3 of 4: 11520 of 11520 latent values are NaN or infinite" "${nan[@]}"
expect_error 6 "denoise step 3 of 4" "${nan[@]}" --resume
[ "$(ls -A | tr '\n' ' ')" = "over stderr.txt stdout.txt x.mp4.checkpoint.safetensors " ] || fail "left behind: $(ls -A)"

# In a batch the other jobs are made.
printf 'name,steps\nfirst,1\nnan,4\nlast,1\n' >jobs.csv
got=0
"$kinora" batch jobs.csv --model over --prompt x --seed 3 --frames 5 --progress none --output-dir out >stdout.txt || got=$?
[ "$got" = 1 ] || fail "batch: exit code $got: $(cat stdout.txt)"
grep -q 'nan  *failed  *denoise step 3 of 4' stdout.txt || fail "the table: $(cat stdout.txt)"
[ "$(ls out | tr '\n' ' ')" = "first.mp4 first.mp4.json last.mp4 last.mp4.json nan.mp4.checkpoint.safetensors results.jsonl " ] ||
  fail "files of the batch: $(ls out)"

# Approximate products: refused before anything is computed where they do not exist.
two=(--prompt x --seed 3 --progress none --steps 4 --frames 9 --size 96x96 --refine-size 2x --upscale latent --strength 0.5 --no-override)
expect_error 5 "--attention-precision int8: expected a model with heads of 128, found heads of 64" \
  "$kinora" render --model "$model" "${two[@]}" --attention-precision int8 --latents-out no.safetensors
heads_of_128 m
expect_error 5 "--attention-precision: expected a Hopper GPU (or --device ref), found cpu" \
  "$kinora" render --model m "${two[@]}" --attention-precision int8 --latents-out no.safetensors
expect_error 5 "--attention-skip: expected a Hopper GPU (or --device ref), found cpu" \
  "$kinora" render --model m "${two[@]}" --attention-skip 0.01 --latents-out no.safetensors
expect_error 2 "--attention-skip: expected 0 with --attention-precision int8" \
  "$kinora" render --model m "${two[@]}" --attention-precision int8 --attention-skip 0.01 --latents-out no.safetensors
expect_error 2 "--attention-precision: expected full with draft" \
  "$kinora" render --model m "${two[@]}" --attention-precision int8 --attention draft --latents-out no.safetensors
expect_error 5 "--base-attention-precision int8: expected a model with heads of 128, found heads of 64" \
  "$kinora" render --model "$model" "${two[@]}" --base-attention-precision int8 --latents-out no.safetensors
expect_error 5 "--base-attention-precision: expected a Hopper GPU (or --device ref), found cpu" \
  "$kinora" render --model m "${two[@]}" --base-attention-precision int8 --latents-out no.safetensors
expect_error 5 "--linear-precision: expected a Hopper GPU (or --device ref), found cpu" \
  "$kinora" render --model m "${two[@]}" --linear-precision fp8 --latents-out no.safetensors
[ ! -e no.safetensors ] || fail "a refused job wrote latents"

# On ref they change the latents, and not much (docs/attention.md).
"$kinora" render --model m --prompt x --seed 3 --progress none --steps 4 --frames 9 --size 96x96 --latents-out base.safetensors
refined() { "$kinora" render --model m "${two[@]}" --latents-in base.safetensors --latents-out "$@"; }
refined full.safetensors
refined int8.safetensors --device ref --attention-precision int8
refined skip.safetensors --device ref --attention-skip 0.05
refined fp8.safetensors --device ref --linear-precision fp8
for i in int8 skip; do
  error=$(l2 full.safetensors $i.safetensors)
  within "$error" 1e-3 6e-2 || fail "$i beside full products: relative L2 $error"
  echo "$i: relative L2 $error"
done
# e4m3 is 4 % off in every linear layer, and guidance multiplies the difference of two evaluations.
error=$(l2 full.safetensors fp8.safetensors)
within "$error" 1e-2 3e-1 || fail "fp8 beside full products: relative L2 $error"
echo "fp8: relative L2 $error"
