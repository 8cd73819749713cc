#!/usr/bin/env bash
# kill -9 at every step, then --resume: the bytes of a run that was never stopped.
source "$(dirname "$0")/lib.sh" "$@"

for solver in unipc euler dpm++; do
  "$kinora" render "${quick[@]}" --solver $solver --steps 6 -o whole.mp4 -y
  for step in 1 2 3 5 6; do
    rm -f cut.mp4*
    killed_at denoise $step 1 "$kinora" render "${quick[@]}" --solver $solver --steps 6 --checkpoint-every 1 -o cut.mp4
    if [ ! -e cut.mp4 ]; then
      [ -e cut.mp4.checkpoint.safetensors ] || fail "$solver: no checkpoint after step $step"
      "$kinora" render "${quick[@]}" --solver $solver --steps 6 -o cut.mp4 --resume
    fi
    cmp whole.mp4 cut.mp4 || fail "$solver, killed at step $step: other bytes after --resume"
    [ ! -e cut.mp4.checkpoint.safetensors ] || fail "checkpoint left behind"
  done
done
at_least_killed 8

# A checkpoint of another job is refused, and the message says what differs.
"$kinora" render "${quick[@]}" -o other.mp4 --keep-checkpoint
rm other.mp4
expect_error 2 "guidance" "$kinora" render "${quick[@]}" -o other.mp4 --guidance 2 --resume

# So is one that began with other latents under the same name.
given=("$kinora" render "${quick[@]}" --latents-in base.safetensors --refine-size 2x --strength 0.5)
"$kinora" render "${quick[@]}" --latents-out base.safetensors
"${given[@]}" -o given.mp4 --keep-checkpoint
rm given.mp4
"$kinora" render "${quick[@]}" --seed 4 --latents-out base.safetensors -y
expect_error 2 "a file that was given" "${given[@]}" -o given.mp4 --resume
