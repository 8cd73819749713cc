#!/usr/bin/env bash
# When checkpoints are written: by themselves as often as costs little, at the asked steps, and whenever a run is stopped.
source "$(dirname "$0")/lib.sh" "$@"

# saved OPTIONS...: the steps at which a render of 20 wrote a checkpoint.
saved() {
  "$kinora" render "${quick[@]}" --steps 20 -v --progress none -o x.mp4 -y "$@" 2>log.txt || fail "$(cat log.txt)"
  sed -n 's/.*\[checkpoint\] denoise step \([0-9]*\) of 20.*/\1/p' log.txt | tr '\n' ' '
}

[ "$(saved --checkpoint-every 0)" = "20 " ] || fail "every 0: $(saved --checkpoint-every 0)"
[ "$(saved --checkpoint-every 7)" = "7 14 20 " ] || fail "every 7: $(saved --checkpoint-every 7)"
[ "$(saved --checkpoint-every 1 | wc -w)" = 20 ] || fail "every 1: $(saved --checkpoint-every 1)"

# On a disk that takes 0.4 s a file there is time for the first and the last.
disk=$(dirname "$kinora")/tests/libfault_disk.so
if [ -e "$disk" ]; then
  start=$SECONDS
  steps=$(LD_PRELOAD=$disk saved)
  [[ "$steps" = "1 "*"20 " ]] && [ "$(wc -w <<<"$steps")" -le $((2 + (SECONDS - start) / 8)) ] || fail "on a slow disk: $steps"
  [ "$(LD_PRELOAD=$disk saved --checkpoint-every 1 | wc -w)" = 20 ] || fail "every 1 on a slow disk: $(cat log.txt)"
fi

# Who stops a run keeps its steps, whatever the distance of checkpoints; with 0 there is none to go on from.
stopped() { # DISTANCE
  rm -rf cut*
  "$kinora" render "${quick[@]}" --steps 400 --checkpoint-every "$1" --progress json -o cut.mp4 >events.txt 2>stderr.txt &
  local pid=$! code=0
  for _ in $(seq 3000); do
    ! grep -q '"event":"step","stage":"denoise","unit":"steps","done":3,' events.txt || break
    sleep 0.02
  done
  kill -INT $pid
  wait $pid || code=$?
  [ $code = 130 ] || fail "exit code $code after a signal: $(cat stderr.txt)"
}
stopped 300
grep -q 'stopped at denoise' stderr.txt && grep -q -- --resume stderr.txt || fail "the word of the one who stopped: $(cat stderr.txt)"
done=$(sed -n 's/.*"event":"step","stage":"denoise","unit":"steps","done":\([0-9]*\).*/\1/p' events.txt | tail -n 1)
has "^step: $done$" "$kinora" info cut.mp4.checkpoint.safetensors || fail "stopped at $done: $(cat has.txt)"
stopped 0
[ ! -e cut.mp4.checkpoint.safetensors ] || fail "a checkpoint that nobody asked for"
