#!/usr/bin/env bash
# Ctrl-C once: the step ends, the latents are saved, a word on how to go on. Twice: at once, in the middle of a step or of
# a file, with nothing half-written. Both: exit code 130, and --resume gives the bytes of an undisturbed run.
source "$(dirname "$0")/lib.sh" "$@"

# The event's line is there, or the program has ended. A step takes half a minute under a sanitizer; what is bounded is the
# time after a signal.
wait_for() {
  for _ in $(seq 1 6000); do
    if grep -q "$1" events.txt 2>/dev/null; then return; fi
    kill -0 "$pid" 2>/dev/null || fail "it ended before '$1': $(cat stderr.txt)"
    sleep 0.05
  done
  fail "no '$1' within 300 s: $(cat events.txt stderr.txt)"
}

now_ms() { date +%s%3N; }

# started: the program runs as $pid, its events in events.txt. Twice: stopped at once, with 130.
twice() {
  kill -INT "$pid"
  sleep 0.1
  local start code=0
  start=$(now_ms)
  kill -INT "$pid" 2>/dev/null || true
  wait "$pid" || code=$?
  took=$(($(now_ms) - start))
  [ "$code" = 130 ] || fail "exit code $code: $(cat stderr.txt)"
}

no_leftovers() { # FOLDER: no temporary file, no output under its final name
  [ -z "$(find "$1" -name '.*.tmp-*')" ] || fail "left behind: $(find "$1")"
  [ -z "$(find "$1" -name '*.mp4')" ] || fail "an output is there: $(find "$1")"
}

start() { # arguments of kinora
  rm -f events.txt
  "$kinora" "$@" --progress json >events.txt 2>stderr.txt &
  pid=$!
}

# Steps of about a second or more, so that the second signal falls inside one.
slow=(render --model "$model" --prompt "a red ball bouncing over grass" --seed 3 --size 480x288 --frames 5 --steps 4 --threads 1)

# Once.
mkdir one
start "${slow[@]}" -o one/a.mp4
wait_for '"event":"step","stage":"denoise","unit":"steps","done":1'
kill -INT "$pid"
code=0
wait "$pid" || code=$?
[ "$code" = 130 ] || fail "exit code $code after one signal: $(cat stderr.txt)"
no_leftovers one
[ -e one/a.mp4.checkpoint.safetensors ] || fail "no checkpoint: $(ls one)"
grep -q -- '--resume' stderr.txt || fail "no word on how to go on: $(cat stderr.txt)"

# Twice, inside a step. The checkpoint of the step before is whole.
mkdir two
start "${slow[@]}" -o two/a.mp4
wait_for '"event":"step","stage":"denoise","unit":"steps","done":1'
twice
[ "$took" -lt 2000 ] || fail "the second signal took $took ms"
echo "stopped $took ms after the second signal"
no_leftovers two
"$kinora" info two/a.mp4.checkpoint.safetensors >/dev/null || fail "a broken checkpoint"

# Both go on to the same bytes; one of them by way of two signals while frames are written.
start "${slow[@]}" -o one/a.mp4 --resume --frames-dir one/frames
wait_for '"event":"step","stage":"decode","unit":"frames","done":[1-9]'
twice
no_leftovers one
for f in one/frames/*.png; do
  [ ! -e "$f" ] || python3 - "$f" <<'PY' || fail "half a frame: $f"
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
at, kinds = 8, []
while at < len(data):
    n, kind = struct.unpack(">I4s", data[at:at + 8])
    assert zlib.crc32(data[at + 4:at + 8 + n]) == struct.unpack(">I", data[at + 8 + n:at + 12 + n])[0]
    kinds.append(kind)
    at += 12 + n
assert kinds[-1] == b"IEND" and at == len(data), kinds
PY
done
"$kinora" "${slow[@]}" -o one/a.mp4 --resume --frames-dir one/frames --overwrite --progress none
"$kinora" "${slow[@]}" -o two/a.mp4 --resume --progress none
cmp one/a.mp4 two/a.mp4 || fail "two ways of stopping, two results"

# A batch: the same twice.
cat >jobs.yaml <<YAML
defaults: {model: $model, size: 480x288, frames: 5, steps: 3, threads: 1}
jobs:
  - {prompt: a red ball bouncing over grass, seed: 3, name: a}
  - {prompt: a yellow star over water, seed: 4, name: b}
YAML
start batch jobs.yaml --output-dir batch
wait_for '"event":"step","stage":"denoise","unit":"steps","done":1'
twice
no_leftovers batch
[ ! -s batch/results.jsonl ] || python3 -c 'import json; [json.loads(line) for line in open("batch/results.jsonl")]' || fail "results.jsonl"
"$kinora" batch jobs.yaml --output-dir batch --resume --progress none >out.txt 2>&1 || fail "--resume: $(cat out.txt)"
"$kinora" batch jobs.yaml --output-dir whole --progress none >out.txt 2>&1 || fail "undisturbed: $(cat out.txt)"
cmp batch/a.mp4 whole/a.mp4 && cmp batch/b.mp4 whole/b.mp4 || fail "a batch stopped twice gives other bytes"
[ -z "$(ls -A batch | grep -E '\.mp4\.lock|tmp-|checkpoint')" ] || fail "left behind: $(ls -A batch)"
