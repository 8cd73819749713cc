#!/usr/bin/env bash
# On a GPU: the same scene as on the CPU, frame by frame; the same bytes twice. Counted as skipped without one.
source "$(dirname "$0")/lib.sh" "$@"
command -v python3 >/dev/null || { echo "python3 is missing"; exit 77; }

render() { "$kinora" render "${quick[@]}" --frames-dir "$1" --latents-out "$1.safetensors" --device "$2"; }

got=0
render gpu cuda 2>stderr.txt || got=$?
[ "$got" != 5 ] || { cat stderr.txt; exit 77; } # no driver, no GPU, too old, or a build without CUDA
[ "$got" = 0 ] || fail "exit code $got: $(cat stderr.txt)"
render again cuda
cmp gpu.safetensors again.safetensors || fail "another run gave other latents"
for f in gpu/*; do cmp "$f" "again/$(basename "$f")" || fail "another run gave another $f"; done

# Kernel by kernel instead of recorded: the same bytes, of forwards that are dense, sparse, store contexts and use them.
launched() { "$kinora" render "${quick[@]}" --refine-size 2x --override --refresh 2 --device cuda "${@:2}" --latents-out "$1.safetensors"; }
launched recorded --verbose 2>log.txt
grep -q 'work is recorded' log.txt && ! grep -q 'launched, not recorded' log.txt || fail "$(cat log.txt)"
launched launched --no-cuda-graphs
cmp recorded.safetensors launched.safetensors || fail "recorded work gave other latents"

# Jobs of one process, decoders already warm: a frame handed out before it is there would differ.
echo name,latents-in,latents-out,frames-dir >many.csv
for i in 1 2 3 4; do echo "$i,$PWD/gpu.safetensors,{name}.safetensors,{name}" >>many.csv; done
"$kinora" batch many.csv "${quick[@]}" --device cuda --output-dir many >many.txt || fail "batch: $(cat many.txt)"
for i in 1 2 3 4; do [ "$(frames_psnr gpu "many/$i")" = equal ] || fail "job $i of a batch gave other frames"; done

# Weights and contexts in host memory: the same bytes, and less of the device's. In eight bits: nearly the same picture.
refined() { "$kinora" bench "${quick[@]}" --steps 2 --refine-size 2x --override --refresh 2 --device cuda "${@:2}" --frames-dir "$1" --progress json >"$1.json"; }
refined contexts --context-cache device
refined host --context-cache host
refined offload --offload
refined int8 --context-cache int8
for i in host offload; do [ "$(frames_psnr contexts $i)" = equal ] || fail "$i changed frames"; done
# Contexts that are more than what opening the transformer takes for a moment.
large() { "$kinora" bench "${quick[@]}" --steps 2 --frames 33 --refine-size 4x --override --refresh 2 --device cuda --context-cache "$1" --latents-out "large-$1.safetensors" --progress json >"large-$1.json"; }
large device
large host
[ "$(l2 large-device.safetensors large-host.safetensors)" = 0 ] || fail "contexts in host memory changed large latents"
eight=$(frames_psnr contexts int8)
within "$eight" 45 90 || fail "eight bits: PSNR $eight dB" # "equal" would be no eight bits
python3 - <<'P' || fail "planned memory and held memory"
import json
def memory(name):
    (bench,) = [e for e in map(json.loads, open(name + ".json")) if e["event"] == "bench"]
    return {m["phase"]: m for m in bench["memory"]}
phases = {n: memory(n) for n in ("contexts", "host", "offload", "int8", "large-device", "large-host")}
wrong = [(n, m) for n, held in phases.items() for m in held.values() if not 0.95 * m["planned_bytes"] <= m["peak_bytes"] <= m["planned_bytes"]]
assert not wrong, wrong
on = {n: held["refine 1"] for n, held in phases.items()}
assert on["offload"]["peak_bytes"] < on["contexts"]["peak_bytes"], on
assert on["large-host"]["peak_bytes"] < on["large-device"]["peak_bytes"], on
for size in ("contexts", "host"), ("large-device", "large-host"):
    assert on[size[1]]["peak_host_bytes"] > on[size[0]]["peak_host_bytes"], on
P

# bf16 beside float32: the picture is the same to the eye.
render cpu cpu
psnr=$(frames_psnr gpu cpu)
within "$psnr" 35 90 || fail "PSNR of GPU and CPU frames: $psnr dB" # "equal" would be no GPU
echo "PSNR of eight bits $eight dB, of GPU and CPU frames $psnr dB"
