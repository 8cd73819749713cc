#!/usr/bin/env bash
# Prompt to mp4: container, tags, frame count, sidecar, frames, contact sheet; same bytes again and with
# another thread count.
source "$(dirname "$0")/lib.sh" "$@"
command -v ffprobe >/dev/null || { echo "ffprobe is missing"; exit 77; }

"$kinora" render "${quick[@]}" -o a.mp4 --frames-dir frames --contact-sheet sheet.png --threads 2

probe() { ffprobe -v error -select_streams v:0 -count_frames -show_entries "$1" -of default=nw=1:nk=1 a.mp4; }
[ "$(probe stream=nb_read_frames)" = 9 ] || fail "frames: $(probe stream=nb_read_frames)"
[ "$(probe stream=codec_name)" = h264 ] || fail "codec"
[ "$(probe stream=width)x$(probe stream=height)" = 160x96 ] || fail "size"
[ "$(probe stream=pix_fmt)" = yuv420p ] || fail "pixel format"
for tag in color_space color_primaries color_transfer; do
  [ "$(probe stream=$tag)" = bt709 ] || fail "$tag is $(probe stream=$tag)"
done
[ "$(probe stream=color_range)" = tv ] || fail "range"

[ "$(ls frames | wc -l)" = 9 ] || fail "PNG frames: $(ls frames)"
[ -s sheet.png ] || fail "no contact sheet"
grep -q '"seed": 3,' a.mp4.json || fail "sidecar: $(cat a.mp4.json)"
has 'a red ball bouncing' ffprobe -v error -show_entries format_tags -of json a.mp4 || fail "settings are not in the container"
[ ! -e a.mp4.checkpoint.safetensors ] || fail "checkpoint left behind"
[ -z "$(ls -A | grep tmp || true)" ] || fail "temporary files left: $(ls -A)"

# Frames are pictures, not flat colour.
ffmpeg -v error -i a.mp4 -vf signalstats,metadata=print:file=stats.txt -f null -
spread=$(grep -m1 YHIGH stats.txt | cut -d= -f2)
[ "${spread%.*}" -gt 80 ] || fail "picture is flat: YHIGH $spread"

# A folder may be named with a slash behind it, as shells complete it.
"$kinora" render "${quick[@]}" --frames-dir slash/ --keep-checkpoint
[ "$(ls -A slash | wc -l)" = 9 ] && [ -e slash.checkpoint.safetensors ] || fail "--frames-dir slash/: $(ls -A . slash)"

"$kinora" render "${quick[@]}" -o b.mp4 --threads 1
cmp a.mp4 b.mp4 || fail "another thread count gave other bytes"

# 1080-like odd size: padded on the latent grid, cropped on output.
"$kinora" render "${quick[@]}" --frames 5 --size 170x90 -o odd.mp4
[ "$(ffprobe -v error -show_entries stream=width,height -of csv=p=0 odd.mp4)" = 170,90 ] || fail "cropped size"
