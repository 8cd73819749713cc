#!/usr/bin/env bash
# Methods that choose their lists anew and keep them for some steps: kill -9 within a refine stage, then
# --resume, gives the bytes of a run that was never stopped, wherever the kill falls.
source "$(dirname "$0")/lib.sh" "$@"

run=("${quick[@]}" --frames 5 --steps 8 --threads 1 --checkpoint-every 1 --refine-size 200x112 --strength 1 --dense-layers 1)

# resumed NAME OPTIONS...: killed after steps 2 to 5 of the stage.
resumed() {
  local name=$1 step
  shift
  "$kinora" render "${run[@]}" "$@" -o whole.mp4 -y
  for step in 2 3 4 5; do
    rm -f cut.mp4*
    killed_at 'refine 1' $step 1 "$kinora" render "${run[@]}" "$@" -o cut.mp4
    if [ ! -e cut.mp4 ]; then
      "$kinora" render "${run[@]}" "$@" -o cut.mp4 --resume
    fi
    cmp whole.mp4 cut.mp4 || fail "$name, killed at step $step: other bytes after --resume"
  done
}

resumed draft --attention draft --density 0.3 --dense-steps 1 --reuse-lists 3 --checkpoint-every 2
resumed permute --attention permute --density 0.3 --dense-steps 0 --reuse-lists 2
resumed paro --attention paro --density 0.3 --dense-steps 1 --reuse-lists 2
# A second branch that chooses lists too, and runs at other steps than those at which they are chosen.
resumed 'permute in both branches' --attention permute --full-attention permute --density 0.3 --dense-steps 1 \
  --override --refresh 2 --reuse-lists 3
resumed 'window, draft in the full branch' --full-attention draft --density 0.3 --window 5x5 \
  --override --refresh 3 --override-for both --reuse-lists 2
at_least_killed 10
