# Shared by the end-to-end tests: sourced, not run. Each test gets the program and the source tree as
# arguments, works in a fresh folder, and fails on the first broken expectation.
set -euo pipefail
kinora=$1
tree=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
model=$tree/demo/model

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# expect_error EXIT_CODE 'text the message must hold' command...
expect_error() {
  local code=$1 text=$2 got=0
  shift 2
  "$@" >stdout.txt 2>stderr.txt || got=$?
  [ "$got" = "$code" ] || fail "exit code $got, expected $code: $* -- $(cat stderr.txt)"
  grep -qF -- "$text" stderr.txt || fail "message without '$text': $* -- $(cat stderr.txt)"
}

# has 'text' command...: the command's output holds the text. (Not `command | grep -q`: grep would leave
# early and pipefail report the broken pipe.)
has() {
  local text=$1
  shift
  "$@" >has.txt 2>&1 || return 1
  grep -qE -- "$text" has.txt
}

# l2 A B: relative L2 of two latents files. within X LEAST MOST: is it?
l2() {
  "$kinora" compare "$1" "$2" >compare.txt || fail "compare: $(cat compare.txt)"
  sed -n 's/.*: equal$/0/p; s/.*relative L2 \([0-9.e+-]*\).*/\1/p' compare.txt
}
within() { awk -v x="$1" -v a="$2" -v b="$3" 'BEGIN { exit !(x != "" && x >= a && x <= b) }'; }

# frames_psnr A B: the lowest PSNR in dB over the 8-bit PNG frames of two folders, or "equal". For builds without video, whose
# `kinora compare` reads no pictures.
frames_psnr() {
  python3 - "$1" "$2" <<'P'
import glob, math, struct, sys, zlib
def pixels(path):
    data, at, packed = open(path, "rb").read(), 8, b""
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert (depth, colour) == (8, 2), path
    while at < len(data):
        n = struct.unpack(">I", data[at:at + 4])[0]
        if data[at + 4:at + 8] == b"IDAT":
            packed += data[at + 8:at + 8 + n]
        at += 12 + n
    raw, row, out, before = zlib.decompress(packed), 3 * width, [], bytearray(3 * width)
    for y in range(height):
        kind, line = raw[y * (row + 1)], bytearray(raw[y * (row + 1) + 1:(y + 1) * (row + 1)])
        for x in range(row):
            a, b, c = (line[x - 3] if x >= 3 else 0), before[x], (before[x - 3] if x >= 3 else 0)
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line[x] = line[x] + (0, a, b, (a + b) // 2, paeth)[kind] & 255
        out += line
        before = line
    return out
a, b = (sorted(glob.glob(folder + "/frame_*.png")) for folder in sys.argv[1:3])
assert a and len(a) == len(b), (a, b)
worst = 0
for x, y in zip(map(pixels, a), map(pixels, b)):
    assert len(x) == len(y)
    worst = max(worst, sum((u - v) ** 2 for u, v in zip(x, y)) / len(x))
print(f"{10 * math.log10(255**2 / worst):.2f}" if worst else "equal")
P
}

# killed_at STAGE DONE TIMES command...: kill -9 as soon as the command has reported TIMES times that DONE of the stage is
# done. When it is quicker than us, it is simply complete; a test of kills asks at its end, by at_least_killed, that enough
# of them fell in time.
killed=0 meant=0
killed_at() {
  local event="\"stage\":\"$1\",\"unit\":\"[a-z]*\",\"done\":$2," times=$3 pid
  shift 3
  : >events.txt
  "$@" --progress json >events.txt 2>killed.txt &
  pid=$!
  for _ in $(seq 6000); do
    [ "$(grep -c "$event" events.txt)" -lt "$times" ] || break
    kill -0 $pid 2>/dev/null || break
    sleep 0.005
  done
  kill -9 $pid 2>/dev/null || true
  local code=0
  wait $pid 2>/dev/null || code=$?
  meant=$((meant + 1))
  case $code in
    0) ;;
    137) killed=$((killed + 1)) ;;
    *) fail "exit code $code before $event: $(cat killed.txt)" ;;
  esac
}
at_least_killed() {
  [ "$killed" -ge "$1" ] || fail "only $killed of $meant runs were killed in time"
  echo "$killed of $meant runs killed before they were done"
}

# own_model FOLDER: a copy of the shipped model to be altered; through links, or the change would go to what they point at.
own_model() { cp -rL "$model/." "$1" && chmod -R u+w "$1"; }

# overflowing FOLDER: the shipped model with a time embedding beyond float32 for timesteps below 820: NaN from the third of
# four steps on. One hidden unit is 2^100 (cos(t / 1000) - 0.68), which silu cuts off below 0, times 2^60.
overflowing() {
  own_model "$1"
  python3 - "$1/transformer/diffusion_pytorch_model.safetensors" <<'P'
import json, struct, sys
with open(sys.argv[1], "r+b") as f:
    size = struct.unpack("<Q", f.read(8))[0]
    header = json.loads(f.read(size))
    def put(name, column, value):
        t = header["condition_embedder.time_embedder." + name]
        width = t["shape"][-1] if len(t["shape"]) == 2 else 1
        rows = t["shape"][0] if name == "linear_2.weight" else 1
        for row in range(rows):
            f.seek(8 + size + t["data_offsets"][0] + 2 * (row * width + column))
            f.write(struct.pack("<f", value)[2:])  # bfloat16: the upper half
    for column in range(256):
        put("linear_1.weight", column, 0.0)
    put("linear_1.weight", 96, 2.0**100)  # cosines first; 10000^(-96 / 128) = 1 / 1000
    put("linear_1.bias", 0, -0.68 * 2.0**100)
    put("linear_2.weight", 0, 2.0**60)
P
}

# heads_of_128 FOLDER: the shipped model read as one of two heads of 128 instead of four of 64. The weights have the same
# shapes; the picture means nothing.
heads_of_128() {
  own_model "$1"
  sed -i 's/"num_attention_heads": 4/"num_attention_heads": 2/; s/"attention_head_dim": 64/"attention_head_dim": 128/' "$1/transformer/config.json"
}

# A small, quick render: 9 frames, 4 steps.
quick=(--model "$model" --prompt "a red ball bouncing over grass" --seed 3 --steps 4 --frames 9 --progress none)
