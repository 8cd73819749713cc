#!/usr/bin/env bash
# kinora bench: its parts and phases as table and as JSON, what it keeps and what not, what it refuses.
source "$(dirname "$0")/lib.sh" "$@"

mkdir tmp
export TMPDIR=$work/tmp
nothing_left() { [ -z "$(ls tmp)" ] || fail "$1 left in TMPDIR: $(ls -R tmp)"; }
bench=("$kinora" bench "${quick[@]}" --device cpu --size 64x48)

# JSON, on standard output alone: the render's events, and as the last line what it cost.
"${bench[@]}" --frames 5 --refine-size 2x --strength 0.5 --progress json >events.txt 2>stderr.txt || fail "json: $(cat stderr.txt)"
nothing_left "a run"
[ ! -s stderr.txt ] || fail "with --progress json standard error says: $(cat stderr.txt)"
python3 - <<'PY' || fail "$(tail -1 events.txt)"
import json
events = [json.loads(line) for line in open("events.txt")]
names = [e["event"] for e in events]
assert names.count("bench") == 1 and names[-1] == "bench", names
assert "done" not in names  # it would name a clip that is gone
b = events[-1]
assert (b["width_px"], b["height_px"], b["frames"]) == (64, 48, 5), b
sec = b["seconds"]
assert list(sec) == ["load", "text", "base", "upsample", "encode", "refine", "decode", "mux"], list(sec)
for part, s in sec.items():
    assert s > 0, f"{part}: {s}"
# Parts are parts: each counted once, and the render is most of the run.
assert sum(sec.values()) <= b["total_sec"], (sum(sec.values()), b["total_sec"])
# The denoise stages' own clocks tell the same seconds as the parts, opening the transformer apart.
ends = [e["elapsed_sec"] for e in events if e["event"] == "end" and e["unit"] == "steps"]
assert len(ends) == 2, ends
for part, s in zip(("base", "refine"), ends):
    assert abs(sec[part] - s) <= 0.1 * s + 0.2, (part, sec[part], s)
phases = b["memory"]
assert [p["phase"] for p in phases] == ["text", "denoise", "upscale 1", "refine 1", "decode"], phases
for p in phases:
    assert 0 < p["peak_bytes"] <= p["planned_bytes"], p
    assert p["peak_host_bytes"] == 0, p
assert b["planned_bytes"] == max(p["planned_bytes"] for p in phases)
assert b["peak_bytes"] == max(p["peak_bytes"] for p in phases)
PY

# The table: the same parts, then what is left, which together are the total; shares of it; the phases.
"${bench[@]}" >table.txt 2>stderr.txt || fail "table: $(cat stderr.txt)"
nothing_left "a run"
python3 - <<'PY' || fail "$(cat table.txt)"
lines = [line.split() for line in open("table.txt")]
assert lines[0] == ["part", "seconds", "share"], lines[0]
parts = lines[1:10]
assert [p[0] for p in parts] == ["load", "text", "base", "upsample", "encode", "refine", "decode", "mux", "other"], parts
assert lines[10][0] == "total"
total = float(lines[10][1])
assert total > 0 and abs(sum(float(p[1]) for p in parts) - total) <= 0.0005 * 10, total
for p in parts:
    assert float(p[1]) >= 0 and abs(float(p[2].rstrip("%")) - 100 * float(p[1]) / total) <= 0.06 + 0.06 / total, p
assert all(float(p[1]) == 0 for p in parts if p[0] in ("upsample", "encode", "refine")), parts
assert lines[11][:3] == ["phase", "planned", "taken"], lines[11]
assert [line[0] for line in lines[12:]] == ["text", "denoise", "decode"], lines[12:]
PY

# An output that was asked for is kept, and is that of render.
"${bench[@]}" -q -o kept.mp4 >table.txt
"$kinora" render "${quick[@]}" --device cpu --size 64x48 -o rendered.mp4
cmp kept.mp4 rendered.mp4 || fail "bench -o wrote another clip than render"
nothing_left "a run with an output"
"${bench[@]}" --frames-dir frames >table.txt
[ "$(ls frames | grep -c '\.png$')" = 9 ] || fail "frames: $(ls frames)"

# A plan has no seconds.
"${bench[@]}" --dry-run --progress lines >plan.txt 2>stderr.txt || fail "--dry-run: $(cat stderr.txt)"
grep -q '^denoise ' stderr.txt || fail "--dry-run prints no plan: $(cat stderr.txt)"
[ ! -s plan.txt ] || fail "--dry-run shows seconds: $(cat plan.txt)"
nothing_left "--dry-run"

# What it refuses, and a stop, leave nothing.
expect_error 2 "did you mean '--size'" "${bench[@]}" --sizes 3
expect_error 2 "expected a whole number from 1 to 1000 steps" "${bench[@]}" --steps 0
expect_error 2 "unexpected argument 'extra'" "${bench[@]}" extra
expect_error 2 "no model" "$kinora" bench --prompt x
expect_error 3 "missing: no such model folder" "$kinora" bench --model missing --prompt x
expect_error 4 "the budget is" "${bench[@]}" --memory 0.001
expect_error 2 "kept.mp4: exists" "${bench[@]}" -o kept.mp4
expect_error 3 "making a folder for the clip" env TMPDIR="$work/nowhere" "${bench[@]}"
[ ! -e nowhere ] || fail "it made TMPDIR"
[ ! -s stdout.txt ] || fail "a table without a run: $(cat stdout.txt)"
nothing_left "a refusal"
rm events.txt # the shell empties it only when it begins the program: until then an earlier run's step would be found in it
"${bench[@]}" --steps 400 --progress json >events.txt 2>stderr.txt &
pid=$!
for _ in $(seq 6000); do
  ! grep -qs '"event":"step","stage":"denoise"' events.txt || break
  kill -0 $pid 2>/dev/null || break
  sleep 0.005
done
kill -TERM $pid
code=0
wait $pid || code=$?
[ $code = 130 ] || fail "stopped: exit code $code, $(cat stderr.txt)"
grep -q '"event":"bench"' events.txt && fail "a stopped run has figures"
nothing_left "a stopped run"
