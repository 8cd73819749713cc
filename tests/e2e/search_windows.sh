#!/usr/bin/env bash
# kinora search-windows: a file of windows by layer and head, which loses less than one window for all at the
# same density, and what is refused.
source "$(dirname "$0")/lib.sh" "$@"

# The positions of tile3d for the dense attention that it is compared with too.
run=("${quick[@]}" --threads 1 --refine-size 2x --strength 0.5 --dense-steps 0 --full-positions own)
"$kinora" render "${quick[@]}" --latents-out base.st
search=("$kinora" search-windows "${run[@]}" --latents-in base.st --attention-tile 3x4x4)
"${search[@]}" --candidates 1x1x1,1x1x3,1x3x1,1x3x3,1x1x5 --budget 0.2 -o w.json
python3 - <<'PY' || fail "w.json: $(cat w.json)"
import json
f = json.load(open("w.json"))
assert (f["format"], f["version"], f["layers"], f["heads"]) == ("kinora-tile-windows", 1, 8, 4), f
stage, = f["stages"]
assert stage["grid"] == [3, 12, 20] and stage["tile"] == [3, 4, 4], stage
assert 0.1 < stage["calibration"]["density"] <= 0.2 and 0 < stage["calibration"]["error"] < 1, stage["calibration"]
(one,) = stage["ranges"]
assert one["sigma_min"] == 0 and len(one["layers"]) == 8 and all(len(heads) == 4 for heads in one["layers"])
windows = {tuple(w) for heads in one["layers"] for w in heads}
assert len(windows) > 2 and windows <= {(1, 1, 1), (1, 1, 3), (1, 3, 1), (1, 3, 3), (1, 1, 5)}, windows
PY
has 'windows by layer and head' "$kinora" plan "${run[@]}" --progress lines --attention tile3d --tile-windows w.json -o x.mp4 ||
  fail "plan: $(cat has.txt)"
"$kinora" plan "${run[@]}" --attention tile3d --tile-windows w.json -o x.mp4 --attention-map map.png
[ -s map.png ] || fail "no map of the middle layer"

# The same density spent alike on all heads loses more.
refine=("$kinora" render "${run[@]}" --latents-in base.st --attention)
"${refine[@]}" dense --latents-out dense.st
"${refine[@]}" tile3d --tile-windows w.json --latents-out searched.st
"${refine[@]}" tile3d --attention-tile 3x4x4 --tile-window 1x1x3 --latents-out uniform.st
python3 - <<'PY' || fail "the search gains nothing"
import array, json, struct
def read(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    begin, end = json.loads(data[8:8 + n])["latents"]["data_offsets"]
    return array.array("f", data[8 + n + begin:8 + n + end])
dense, searched, uniform = (read(f"{name}.st") for name in ("dense", "searched", "uniform"))
def error(x):
    return (sum((a - b) ** 2 for a, b in zip(x, dense)) / sum(b * b for b in dense)) ** 0.5
print("relative L2: searched", error(searched), "uniform", error(uniform))
assert 0 < error(searched) < error(uniform)
PY

# Ranges of steps, a bound on the error, and a run that was killed: the file is part of the job.
"${search[@]}" --max-error 0.02 --ranges 2 -o two.json
python3 - <<'PY' || fail "two.json"
import json
stage, = json.load(open("two.json"))["stages"]
first, last = stage["ranges"]
assert first["sigma_min"] > 0 == last["sigma_min"] and stage["calibration"]["error"] <= 0.02, stage["calibration"]
PY
"${refine[@]}" tile3d --tile-windows two.json -o clip.mp4 --keep-checkpoint
rm clip.mp4
cp w.json two.json
expect_error 2 'another job' "${refine[@]}" tile3d --tile-windows two.json -o clip.mp4 --resume

expect_error 2 '*.json' "${search[@]}" -o w.mp4
expect_error 2 'exists' "${search[@]}" -o w.json
expect_error 2 'refine stage' "$kinora" search-windows "${quick[@]}" -o x.json
expect_error 2 "found '1x2'" "${search[@]}" -o x.json --candidates 1x2
expect_error 2 '1 x 2 x 1' "${search[@]}" -o x.json --candidates 1x2x1
expect_error 2 'smallest candidates' "${search[@]}" -o x.json --candidates 1x3x3 --budget 0.01
expect_error 2 'stay dense' "${search[@]}" -o x.json --dense-steps 9
[ ! -e x.json ] || fail "a file was left behind"
expect_error 2 'no windows for a token grid of 3 x 18 x 30' "$kinora" plan "${run[@]}" --refine-size 3x --attention tile3d --tile-windows w.json -o x.mp4
expect_error 2 '--attention tile3d' "$kinora" plan "${run[@]}" --tile-windows w.json -o x.mp4
expect_error 2 'give one' "$kinora" plan "${run[@]}" --attention tile3d --tile-windows w.json --tile-window 1x1x3 -o x.mp4
expect_error 2 'for tiles of 3x4x4' "$kinora" plan "${run[@]}" --attention tile3d --tile-windows w.json --attention-tile 1x4x4 -o x.mp4
echo '{"format": "other"}' >bad.json
expect_error 3 'bad.json' "$kinora" plan "${run[@]}" --attention tile3d --tile-windows bad.json -o x.mp4
