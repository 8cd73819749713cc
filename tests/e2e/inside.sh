#!/usr/bin/env bash
# Looking inside: the folder of --debug-dir, that it changes nothing, attention maps, and that every
# method becomes dense attention when nothing is dropped.
source "$(dirname "$0")/lib.sh" "$@"

run=("${quick[@]}" --frames 5 --threads 1 --refine-size 200x112 --strength 0.5 --dense-steps 0 --dense-layers 0)

# --debug-dir: what it promises, and the same video as without it.
"$kinora" render "${run[@]}" --attention draft --density 0.5 -o plain.mp4
"$kinora" render "${run[@]}" --attention draft --density 0.5 -o looked.mp4 --debug-dir inside
cmp plain.mp4 looked.mp4 || fail "--debug-dir changed the video"
for file in run.json trace.json contact_sheet.png denoise/step_001.png denoise/step_004.safetensors \
  refine_1/step_003.png refine_1/step_004.safetensors refine_1/attention_step_003_layer_04.png; do
  [ -s "inside/$file" ] || fail "no $file in $(ls -R inside)"
done
python3 - <<'PY' || fail "run.json or trace.json"
import json
run = json.load(open("inside/run.json"))
base, refine = run["passes"]
assert [s["step"] for s in base["step"]] == [1, 2, 3, 4]
assert [s["step"] for s in refine["step"]] == [3, 4]
for s in base["step"]:
    assert s["density"] == 1 and s["recall"] == 1 and s["seconds"] > 0, s
for s in refine["step"]:
    assert len(s["layers"]) == 16, len(s["layers"])  # 8 layers, two prompts
    assert 0.3 < s["density"] < 1 and s["density"] <= s["recall"] < 1, s
assert refine["step"][0]["sigma"] > refine["step"][1]["sigma"]
events = json.load(open("inside/trace.json"))["traceEvents"]
names = {e["name"] for e in events}
assert {"text", "denoise", "refine 1", "decode", "step 3", "block 7", "self-attention", "choose blocks"} <= names, names
assert all(e["ts"] >= 0 and (e["dur"] >= 0 if e["ph"] == "X" else e["args"]["peak_bytes"] > 0) for e in events)
assert [e["name"] for e in events if e["ph"] == "C"] == list(run["memory"])
for phase, m in run["memory"].items():  # planned before it, held in it: the plan may be a little more
    assert 0.9 * m["planned_bytes"] <= m["peak_bytes"] <= m["planned_bytes"], (phase, m)
PY
"$kinora" render "${run[@]}" -o again.mp4 --debug-dir inside # an earlier run's folder is taken again
mkdir other && touch other/thesis.txt
expect_error 2 'holds other files' "$kinora" render "${run[@]}" -o other.mp4 --debug-dir other
expect_error 2 'is a file' "$kinora" render "${run[@]}" -o other.mp4 --debug-dir plain.mp4

# Attention maps.
for method in window tile3d cross; do
  "$kinora" plan "${run[@]}" --attention $method -o x.mp4 --attention-map $method.png --attention-query 1,2,3
  [ "$(head -c 4 $method.png | tail -c 3)" = PNG ] || fail "map of $method"
done
expect_error 2 '--attention-map cross.png: exists' "$kinora" plan "${run[@]}" --attention cross -o x.mp4 --attention-map cross.png
expect_error 5 'chosen from queries and keys' "$kinora" plan "${run[@]}" --attention permute -o x.mp4 --attention-map p.png
expect_error 2 '--attention-query' "$kinora" plan "${run[@]}" -o x.mp4 --attention-map p.png --attention-query 1,2
expect_error 2 'found 9,2,3' "$kinora" plan "${run[@]}" -o x.mp4 --attention-map p.png --attention-query 9,2,3
[ ! -e p.png ] || fail "a map was left behind"

# Nothing dropped: dense attention, to rounding.
"$kinora" render "${run[@]}" --attention dense --full-positions own --latents-out dense.st
for method in 'window --window 99x99' 'tile3d --tile-window 99x99x99' 'draft --density 1' 'permute --mass 1 --density 1' \
  'paro --mass 1 --density 1'; do
  # shellcheck disable=SC2086
  "$kinora" render "${run[@]}" --attention $method --full-positions own --latents-out sparse.st -y
  python3 - "$method" <<'PY' || fail "$method is not dense attention"
import array, json, struct, sys
def read(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    begin, end = json.loads(data[8:8 + n])["latents"]["data_offsets"]
    return array.array("f", data[8 + n + begin:8 + n + end])
a, b = read("dense.st"), read("sparse.st")
error = (sum((x - y) ** 2 for x, y in zip(a, b)) / sum(x * x for x in a)) ** 0.5
print(sys.argv[1], error)
assert error < 1e-4, error
PY
done

# paro's orders and what it judges them by.
paro=("${run[@]}" --attention paro --density 0.3)
"$kinora" render "${paro[@]}" --latents-out auto.st
for order in thw wht 'thw,twh,hwt,wth'; do
  "$kinora" render "${paro[@]}" --paro-axes "$order" --latents-out "$order.st"
done
cmp -s thw.st wht.st && fail "--paro-axes changes nothing"
"$kinora" render "${paro[@]}" --paro-alpha 0 --paro-epsilon 0.01 --paro-share 0.5 --paro-rows 0 --latents-out judged.st
cmp -s auto.st judged.st && fail "paro's thresholds change nothing"
expect_error 2 "each of the model's 4 heads, found 2" "$kinora" plan "${paro[@]}" --paro-axes thw,wht -o x.mp4
expect_error 2 "found 'tww'" "$kinora" plan "${paro[@]}" --paro-axes tww -o x.mp4

# Every preset is a valid job for the shipped model, but for sizes that need the memory of a large machine.
names=$("$kinora" presets --names)
[ "$(echo "$names" | wc -l)" -ge "$(ls "$tree"/presets | wc -l)" ] || fail "presets: $names"
for preset in $names; do
  "$kinora" plan --model "$model" --prompt x --seed 1 --preset "$preset" --memory 65536 -o p.mkv >plan.txt 2>&1 ||
    fail "preset $preset: $(cat plan.txt)"
done
has 'permute, 20.0% of the blocks' "$kinora" plan "${quick[@]}" --progress lines --preset permute-80 -o x.mp4 || fail "permute-80: $(cat has.txt)"
