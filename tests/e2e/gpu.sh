#!/usr/bin/env bash
# On a GPU: the same scene as on the CPU, frame by frame; the same bytes twice. Counted as skipped without one.
source "$(dirname "$0")/lib.sh" "$@"
command -v ffmpeg >/dev/null || { echo "ffmpeg is missing"; exit 77; }

render() { "$kinora" render "${quick[@]}" --frames-dir "$1" --latents-out "$1.safetensors" --device "$2"; }

got=0
render gpu cuda 2>stderr.txt || got=$?
[ "$got" != 5 ] || { cat stderr.txt; exit 77; } # no driver, no GPU, too old, or a build without CUDA
[ "$got" = 0 ] || fail "exit code $got: $(cat stderr.txt)"
render again cuda
cmp gpu.safetensors again.safetensors || fail "another run gave other latents"
for f in gpu/*; do cmp "$f" "again/$(basename "$f")" || fail "another run gave another $f"; done

# Jobs of one process, decoders already warm: a frame handed out before it is there would differ.
echo name,latents-in,latents-out,frames-dir >many.csv
for i in 1 2 3 4; do echo "$i,$PWD/gpu.safetensors,{name}.safetensors,{name}" >>many.csv; done
"$kinora" batch many.csv "${quick[@]}" --device cuda --output-dir many >many.txt || fail "batch: $(cat many.txt)"
pixels() { ffmpeg -v error -i "$1/frame_%05d.png" -f framemd5 -; }
pixels gpu >whole.txt
for i in 1 2 3 4; do pixels "many/$i" | cmp - whole.txt || fail "job $i of a batch gave other frames"; done

# bf16 beside float32: the picture is the same to the eye.
render cpu cpu
ffmpeg -v info -i gpu/frame_%05d.png -i cpu/frame_%05d.png -lavfi psnr -f null - 2>psnr.txt
psnr=$(grep -o 'average:[0-9a-z.]*' psnr.txt | cut -d: -f2)
[ "$psnr" = inf ] || [ "${psnr%.*}" -ge 35 ] || fail "PSNR of GPU and CPU frames: $psnr dB"
echo "PSNR $psnr dB"
