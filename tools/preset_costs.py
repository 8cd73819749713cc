#!/usr/bin/env python3
"""What each preset of the shipped model costs: time, peak memory, and what the plan said.

    tools/preset_costs.py --kinora build/kinora --model demo/model [--jobs 4] [preset ...]
    tools/preset_costs.py --kinora build/kinora --model demo/model --device cuda

One prompt and seed, one thread, from the prompt to PNG frames. On a CPU: processor time (user and system) instead of
elapsed, so that a busy machine changes it little; peak memory is the process's largest resident set. On a GPU: elapsed
time of a render by itself (median of three) and of a further job of a batch (median of the last four of five), and
peak device memory; nothing else should run there. Prints a Markdown table.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

PRESETS = ["base", "draft", "tiny-test", "fast", "2x", "cached", "quality", "4x", "tile-80", "draft-75", "permute-80"]
PROMPT = "a big red striped ball bouncing over grass under a blue sky"


def cost_on_cpu(a, work, preset):
    flags = ["--model", a.model, "--preset", preset, "--prompt", PROMPT, "--seed", "7", "--threads", "1",
             "--device", "cpu", "--frames-dir", f"{work}/{preset}", "--progress", "lines"]
    plan = subprocess.run([a.kinora, "plan"] + flags, check=True, capture_output=True, text=True)
    planned = max(float(x) for x in re.findall(r"^(?:text|denoise|upscale \d|refine \d|decode) +([0-9.]+) GiB", plan.stdout + plan.stderr, re.M))
    with open(f"{work}/{preset}.log", "w") as log:
        child = subprocess.Popen([a.kinora, "render"] + flags, stdout=log, stderr=log)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        with open(f"{work}/{preset}.log") as log:
            raise SystemExit(f"{preset}: {log.read()}")
    return dict(preset=preset, seconds=used.ru_utime + used.ru_stime, peak_gib=used.ru_maxrss / 2**20, planned_gib=planned)


def cost_on_gpu(a, work, preset):
    common = ["--model", a.model, "--preset", preset, "--threads", "1", "--device", "cuda"]
    flags = common + ["--prompt", PROMPT, "--seed", "7", "--frames-dir", f"{work}/{preset}", "--overwrite", "--progress", "json"]
    runs = []
    for _ in range(3):
        text = subprocess.run([a.kinora, "bench"] + flags, check=True, capture_output=True, text=True).stdout
        runs.append(json.loads(text.splitlines()[-1]))
    with open(f"{work}/{preset}.csv", "w") as f:
        f.write("name,seed,prompt,latents-out,frames-dir\n")
        f.writelines(f"{seed},{seed},{PROMPT},{{name}}.safetensors,{{name}}\n" for seed in range(1, 6))
    subprocess.run([a.kinora, "batch", f"{work}/{preset}.csv", "--output-dir", f"{work}/{preset}.batch", "--progress", "none"] + common,
                   check=True, capture_output=True)
    with open(f"{work}/{preset}.batch/results.jsonl") as f:
        batch = [json.loads(line)["seconds"]["total"] for line in f]
    return dict(preset=preset, seconds=statistics.median(r["total_sec"] for r in runs), batch_seconds=statistics.median(batch[1:]),
                peak_gib=max(r["peak_bytes"] for r in runs) / 2**30, planned_gib=max(r["planned_bytes"] for r in runs) / 2**30)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kinora", default="build/kinora")
    p.add_argument("--model", default="demo/model")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--json")
    p.add_argument("presets", nargs="*", default=PRESETS)
    a = p.parse_args()
    gpu = a.device == "cuda"
    cost = cost_on_gpu if gpu else cost_on_cpu
    print("| preset | by itself | in a batch | peak device memory | largest phase planned |\n| --- | --- | --- | --- | --- |" if gpu else
          "| preset | processor time | peak memory | largest phase planned |\n| --- | --- | --- | --- |")
    rows = []
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(a.jobs) as pool:
        for r in pool.map(lambda preset: cost(a, work, preset), a.presets):
            rows.append(r)
            times = f"{r['seconds']:.2f} s | {r['batch_seconds']:.2f} s" if gpu else f"{r['seconds']:.1f} s"
            print(f"| `{r['preset']}` | {times} | {r['peak_gib']:.2f} GiB | {r['planned_gib']:.2f} GiB |", flush=True)
            if a.json:
                with open(a.json, "w") as f:
                    json.dump(rows, f)


if __name__ == "__main__":
    main()
