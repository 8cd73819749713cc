#!/usr/bin/env bash
# Where contexts and weights are: what a plan says, that places change no frames, what eight bits change, and that a phase
# takes what was planned.
source "$(dirname "$0")/lib.sh" "$@"

# A job that comes to the CPU because no GPU can be used says so, and why, before it starts.
auto=(plan --model "$model" --prompt x --seed 1 --output x.mp4 --device auto)
"$kinora" "${auto[@]}" >told.txt 2>&1
grep -qE '; cuda [0-9]|^rendering on the CPU: device cuda: ' told.txt || fail "--device auto: $(cat told.txt)"
[ "$(grep -c 'rendering on the CPU' told.txt)" -le 1 ] || fail "told twice: $(cat told.txt)"
! has 'rendering on the CPU' "$kinora" "${auto[@]}" --device cpu || fail "--device cpu: $(cat has.txt)"

small=("${quick[@]}" --frames 5 --steps 2 --strength 0.8 --refine-size 2x --override --refresh 2 --device cpu --progress lines)
"$kinora" render "${small[@]}" --frames-dir device --output device.mp4 >told.txt 2>&1
! grep -q 'contexts of the full branch' told.txt || fail "contexts on the device are no news: $(cat told.txt)"
"$kinora" render "${small[@]}" --frames-dir host --context-cache host --offload >told.txt 2>&1
grep -q -- '--offload: changes nothing on the CPU' told.txt || fail "--offload on a CPU: $(cat told.txt)"
grep -q -- '--context-cache host: the same as device on the CPU' told.txt || fail "host on a CPU: $(cat told.txt)"
has 'all frames are equal' "$kinora" compare device host || fail "host or --offload changed frames: $(cat has.txt)"
"$kinora" render "${small[@]}" --frames-dir int8 --context-cache int8 >told.txt 2>&1
grep -q 'contexts of the full branch in eight bits' told.txt || fail "int8: $(cat told.txt)"
"$kinora" compare device int8 >psnr.txt
psnr=$(sed -n 's/.*lowest \([0-9.]*\) dB.*/\1/p' psnr.txt)
[ "${psnr%.*}" -ge 50 ] || fail "eight bits: $(cat psnr.txt)" # some 66 dB; what 8 bits of video show is 59
python3 - <<'P' || fail "memory in the sidecar"
import json
memory = json.load(open("device.mp4.json"))["memory"]
assert [m["phase"] for m in memory] == ["text", "denoise", "upscale 1", "refine 1", "decode"], memory
for m in memory:
    assert 0.9 * m["planned_bytes"] <= m["peak_bytes"] <= m["planned_bytes"], m
P

# Plans for a GPU, on any machine. GiB of the refine stage; $1: which number of its line.
large=(plan --model "$model" --prompt x --seed 1 --frames 81 --refine-size 8x --override --refresh 2 --device cuda --output x.mp4)
stage() { "$kinora" "${large[@]}" "$@" 2>&1 | sed -n 's/^refine 1 .* GiB.*/&/p'; }
number() { stage "${@:2}" | grep -oE '[0-9]+\.[0-9]+ GiB' | sed -n "$1s/ GiB//p"; }
above() { awk "BEGIN { exit !($1 > $2) }" || fail "$3: $1 is not above $2"; }
if ! has 'no GPU is open here' "$kinora" "${large[@]}"; then exit 0; fi # a GPU's free memory decides
device=$(number 1 --context-cache device) int8=$(number 1 --context-cache int8) host=$(number 1 --context-cache host)
above "$device" "$int8" "device, int8"
above "$int8" "$host" "int8, host"
above "$host" "$(number 1 --context-cache host --offload)" "host, and with --offload"
above "$(number 2 --context-cache host)" 0.25 "host memory of the contexts"
[ "$(number 1)" = "$device" ] || fail "auto with room: $(stage)"
[ "$(number 1 --memory 0.7)" = "$host" ] || fail "auto without room: $(stage --memory 0.7)"
[ "$(number 1 --offload)" = "$(number 1 --offload --context-cache host)" ] || fail "auto with --offload: $(stage --offload)"
expect_error 4 'try --context-cache int8, --offload' "$kinora" "${large[@]}" --memory 0.7 --context-cache device
expect_error 2 'context-cache' "$kinora" "${large[@]}" --context-cache disk
