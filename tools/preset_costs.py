#!/usr/bin/env python3
"""What each preset of the shipped model costs: processor time, peak memory, and what the plan said.

    tools/preset_costs.py --kinora build/kinora --model demo/model [--jobs 4] [preset ...]

One prompt and seed, one thread, from the prompt to PNG frames. Processor time (user and system) instead of elapsed,
so that a busy machine changes it little; peak memory is the process's largest resident set. Prints a Markdown table.
"""
import argparse
import json
import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

PRESETS = ["base", "draft", "tiny-test", "fast", "2x", "cached", "quality", "4x", "tile-80", "draft-75", "permute-80"]


def cost(a, work, preset):
    flags = ["--model", a.model, "--preset", preset, "--prompt", "a big red striped ball bouncing over grass under a blue sky",
             "--seed", "7", "--threads", "1", "--device", "cpu", "--frames-dir", f"{work}/{preset}", "--progress", "lines"]
    plan = subprocess.run([a.kinora, "plan"] + flags, check=True, capture_output=True, text=True)
    planned = max(float(x) for x in re.findall(r"^(?:text|denoise|upscale \d|refine \d|decode) +([0-9.]+) GiB", plan.stdout + plan.stderr, re.M))
    with open(f"{work}/{preset}.log", "w") as log:
        child = subprocess.Popen([a.kinora, "render"] + flags, stdout=log, stderr=log)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        with open(f"{work}/{preset}.log") as log:
            raise SystemExit(f"{preset}: {log.read()}")
    return dict(preset=preset, seconds=used.ru_utime + used.ru_stime, peak_gib=used.ru_maxrss / 2**20, planned_gib=planned)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kinora", default="build/kinora")
    p.add_argument("--model", default="demo/model")
    p.add_argument("--jobs", type=int, default=1)
    p.add_argument("--json")
    p.add_argument("presets", nargs="*", default=PRESETS)
    a = p.parse_args()
    print("| preset | processor time | peak memory | largest phase planned |\n| --- | --- | --- | --- |")
    rows = []
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(a.jobs) as pool:
        for r in pool.map(lambda preset: cost(a, work, preset), a.presets):
            rows.append(r)
            print(f"| `{r['preset']}` | {r['seconds']:.1f} s | {r['peak_gib']:.2f} GiB | {r['planned_gib']:.2f} GiB |", flush=True)
            if a.json:
                with open(a.json, "w") as f:
                    json.dump(rows, f)


if __name__ == "__main__":
    main()
