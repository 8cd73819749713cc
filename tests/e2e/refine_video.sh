#!/usr/bin/env bash
# kinora refine VIDEO: sizes, rates, audio, turned and odd frames, segments and their seams, kill -9 and
# --resume, what is recorded, and inputs that cannot be refined.
source "$(dirname "$0")/lib.sh" "$@"
for tool in ffmpeg ffprobe; do
  command -v $tool >/dev/null || { echo "$tool is missing"; exit 77; }
done

make() { ffmpeg -v error -y "$@"; }
stream() { ffprobe -v error -count_frames -select_streams v -show_entries stream="$2" -of csv=p=0 "$1"; }
audio() { ffprobe -v error -select_streams a -show_packets -show_data_hash md5 -show_entries packet=data_hash -of csv=p=0 "$1" | grep -o "MD5:[0-9a-f]*" || true; }
refine=("$kinora" refine)
fast=(--model "$model" --seed 5 --steps 3 --strength 0.4 --progress lines)

# 23.976 frames per second, an odd size, audio; more frames than a segment has.
make -f lavfi -i "gradients=size=96x64:rate=24000/1001:duration=1.1:speed=0.02:nb_colors=2:c0=red:c1=blue:x0=0:y0=0:x1=95:y1=63" -f lavfi -i sine=frequency=440:duration=1.1 \
  -vf crop=65:47 -pix_fmt yuv444p -c:v libx264 -crf 10 -c:a aac long.mp4
frames=$(stream long.mp4 nb_read_frames)
[ "$frames" = 27 ] || fail "made $frames frames"
cut=("${fast[@]}" --frames 13 --codec ffv1)

"${refine[@]}" long.mp4 "${cut[@]}" -o x.mkv --dry-run 2>plan.txt
grep -q '65x47, 27 frames at 24000/1001 per second, audio is copied' plan.txt || fail "clip: $(cat plan.txt)"
grep -q '3 segments of 13 frames, 5 of which blend' plan.txt || fail "segments: $(cat plan.txt)"
grep -q 'refine 1: 130x94' plan.txt || fail "2x is the default: $(cat plan.txt)"
[ -z "$(ls x.mkv* 2>/dev/null)" ] || fail "a dry run wrote files"

"${refine[@]}" long.mp4 "${cut[@]}" --threads 1 -o whole.mkv 2>log.txt
[ "$(stream whole.mkv width,height,r_frame_rate,nb_read_frames)" = "130,94,24000/1001,27" ] || fail "long: $(stream whole.mkv width,height,r_frame_rate,nb_read_frames)"
[ -z "$(ls whole.mkv.* | grep -v json)" ] || fail "left behind: $(ls whole.mkv.*)"
[ -n "$(audio long.mp4)" ] && [ "$(audio whole.mkv)" = "$(audio long.mp4)" ] || fail "audio is not the same packets"
sha=$(sha256sum long.mp4 | cut -d' ' -f1)
grep -q "\"sha256\": \"$sha\"" whole.mkv.json || fail "source in the sidecar"
grep -q '"name": "long.mp4"' whole.mkv.json || fail "source's name in the sidecar"
has "$sha" ffprobe -v error -show_entries format_tags whole.mkv || fail "source in the container's metadata"

"${refine[@]}" long.mp4 "${cut[@]}" --threads 2 -o threads.mkv 2>log.txt
cmp whole.mkv threads.mkv || fail "another thread count gave other bytes"
"${refine[@]}" long.mp4 "${cut[@]}" --threads 1 --no-audio -o silent.mkv 2>log.txt
[ -z "$(audio silent.mkv)" ] || fail "--no-audio has audio"

# No seam: where segments meet (frames 9 to 13 and 15 to 21), one frame differs from the next no more than elsewhere
# by half, though each segment is made by itself.
ffmpeg -v error -i whole.mkv -vf "format=gray,tblend=all_mode=difference,signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=steps.txt" -f null -
awk -F= '/YAVG/ { n++; v[n] = $2 }
  END { for (i = 2; i <= n; i++) { f = i; seam = (f >= 8 && f <= 14) || (f >= 16 && f <= 22);
          if (seam && v[i] > s) s = v[i]; if (!seam && v[i] > m) m = v[i] }
        printf "largest step at seams %.3f, elsewhere %.3f\n", s, m; exit !(n >= 25 && m > 0 && s <= 1.5 * m) }' steps.txt ||
  fail "a seam shows"

# Killed in each segment, between them, and while the video is written; then resumed.
resumed() { # STAGE DONE TIMES
  rm -f cut.mkv*
  killed_at "$@" "${refine[@]}" long.mp4 "${cut[@]}" --threads 1 -o cut.mkv
  if [ ! -e cut.mkv ]; then
    "${refine[@]}" long.mp4 "${cut[@]}" --threads 1 -o cut.mkv --resume 2>log.txt
    grep -q "going on from" log.txt || fail "killed at $*: started anew"
  fi
  cmp whole.mkv cut.mkv || fail "killed at $*: other bytes after --resume"
  [ -z "$(ls cut.mkv.* | grep -v json)" ] || fail "left behind: $(ls cut.mkv.*)"
}
resumed 'refine 1' 1 1
resumed 'upscale 1' 1 2
resumed 'refine 1' 1 3
resumed decode 8 1
at_least_killed 2

# A short clip: trimmed to 4n+1, or kept whole. Two stages, another prompt, other shapes.
make -f lavfi -i testsrc2=size=48x32:rate=12:duration=0.6 -pix_fmt yuv420p -c:v libx264 short.mp4
[ "$(stream short.mp4 nb_read_frames)" = 8 ] || fail "made $(stream short.mp4 nb_read_frames) frames"
"${refine[@]}" short.mp4 "${fast[@]}" -o trim.mp4 2>log.txt
[ "$(stream trim.mp4 nb_read_frames)" = 5 ] || fail "trim: $(stream trim.mp4 nb_read_frames)"
grep -q 'the last 3 of 8 frames are left out' log.txt || fail "trim is not told: $(cat log.txt)"
"${refine[@]}" short.mp4 "${fast[@]}" --tail keep --prompt "a red ball" --refine-size 64x48,2x --fit pad --frames-dir png -o keep.mp4 2>log.txt
[ "$(stream keep.mp4 width,height,nb_read_frames)" = 96,64,8 ] || fail "keep: $(stream keep.mp4 width,height,nb_read_frames)"
"${refine[@]}" short.mp4 "${fast[@]}" --refine-size 32x32 --fit stretch -o small.mp4 2>log.txt
[ "$(stream small.mp4 width,height)" = 32,32 ] || fail "smaller: $(stream small.mp4 width,height)"

# A name in another encoding than UTF-8, in and out: JSON has a question mark for what it cannot say.
cp short.mp4 $'caf\xe9.mp4'
"${refine[@]}" $'caf\xe9.mp4' "${fast[@]}" --progress json -o $'out\xe9.mp4' >events.txt
grep -q '"name": "caf?.mp4"' out*.mp4.json || fail "a name that is not UTF-8: $(cat out*.mp4.json)"
grep -q '"event":"done","output":"out?.mp4"' events.txt || fail "the event of such a name: $(tail -1 events.txt)"
"${refine[@]}" $'none\xe9.mp4' "${fast[@]}" --progress json -o x.mp4 >events.txt 2>log.txt || true
grep -q '"event":"error".*none?.mp4' events.txt || fail "the error of such a name: $(tail -1 events.txt)"

# PNG files in, at --fps; a turned video; a variable rate.
"${refine[@]}" png "${fast[@]}" --fps 12 --refine-size 96x64 -o png.mp4 2>log.txt
[ "$(stream png.mp4 r_frame_rate,nb_read_frames)" = 12/1,5 ] || fail "PNG: $(stream png.mp4 r_frame_rate,nb_read_frames)"
make -display_rotation 90 -i short.mp4 -c copy turned.mp4 2>/dev/null || make -i short.mp4 -c copy -metadata:s:v rotate=90 turned.mp4
"${refine[@]}" turned.mp4 "${fast[@]}" -o turned-out.mp4 2>log.txt
[ "$(stream turned-out.mp4 width,height)" = 64,96 ] || fail "turned: $(stream turned-out.mp4 width,height)"
make -i short.mp4 -vf "setpts='if(gt(N,2),PTS+0.3/TB,PTS)'" -vsync vfr -c:v ffv1 uneven.mkv
"${refine[@]}" uneven.mkv "${fast[@]}" -o even.mp4 --dry-run 2>log.txt
grep -q 'variable frame rate' log.txt || fail "variable rate is not told: $(cat log.txt)"

expect_error 3 "none.mp4" "${refine[@]}" none.mp4 "${fast[@]}" -o x.mp4
: >empty.mp4
expect_error 3 "empty.mp4" "${refine[@]}" empty.mp4 "${fast[@]}" -o x.mp4
echo "no video" >text.mp4
expect_error 3 "text.mp4" "${refine[@]}" text.mp4 "${fast[@]}" -o x.mp4
head -c 3000 long.mp4 >torn.mp4
expect_error 3 "torn.mp4" "${refine[@]}" torn.mp4 "${fast[@]}" -o x.mp4
make -f lavfi -i sine=duration=0.2 -c:a aac sound.mp4
expect_error 3 "expected a video stream" "${refine[@]}" sound.mp4 "${fast[@]}" -o x.mp4
expect_error 2 "cannot hold the aac audio" "${refine[@]}" long.mp4 "${cut[@]}" --codec vp9 -o x.webm
expect_error 2 "keeps its own rate" "${refine[@]}" short.mp4 "${fast[@]}" --fps 30 -o x.mp4
expect_error 2 "--overlap" "${refine[@]}" long.mp4 "${cut[@]}" --overlap 6 -o x.mkv
expect_error 2 "--overlap" "${refine[@]}" long.mp4 "${cut[@]}" --overlap 9 -o x.mkv
expect_error 2 "one segment" "${refine[@]}" long.mp4 "${cut[@]}" --latents-out x.safetensors
expect_error 2 "expected the video first" "${refine[@]}" "${fast[@]}" -o x.mp4
[ -z "$(ls x.* 2>/dev/null)" ] || fail "an error left files: $(ls x.*)"
