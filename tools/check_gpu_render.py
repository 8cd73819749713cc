#!/usr/bin/env python3
"""The shipped model on a GPU: the same bytes twice, and the CPU's picture.

usage: check_gpu_render.py KINORA MODEL_FOLDER OUT.json [--prompts FILE] [--commit ID]
Renders every twentieth held-out prompt, the first one with a refine stage too; adds the record render-gpu-vs-cpu to OUT.json
(tools/bench_records.py): the lowest PSNR of a frame in dB beside the 35 dB that are asked for. Exit code 1 below that,
or when a second run gives another file. As tests/e2e/gpu.sh, over more frames.
"""
import argparse
import concurrent.futures
import filecmp
import math
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

from bench_records import Records

LEAST_DB, PROMPT_STEP, JOBS = 35, 20, 4


def render(args, folder, prompt, device, *options):
    command = [args.kinora, "render", "--model", args.model, "--prompt", prompt, "--seed", "3", "--progress", "none",
               "--device", device, "--frames-dir", folder, "--latents-out", f"{folder}.safetensors", *options]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: exit code {done.returncode}: {done.stderr}")


def psnr(a, b):
    a, b = (np.asarray(Image.open(p)).astype(np.float64) / 255 for p in (a, b))
    error = float(((a - b) ** 2).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def same_bytes(a, b):
    names = sorted(p.name for p in a.iterdir())
    _, other, missing = filecmp.cmpfiles(a, b, names, shallow=False)
    return not other and not missing and filecmp.cmp(f"{a}.safetensors", f"{b}.safetensors", shallow=False)


def look(args, folder, i, prompt, options):
    gpu, again, cpu = (folder / f"{i}-{what}" for what in ("gpu", "again", "cpu"))
    render(args, gpu, prompt, "cuda", *options)
    render(args, again, prompt, "cuda", *options)
    render(args, cpu, prompt, "cpu", *options)
    same = same_bytes(gpu, again)
    db = [psnr(f, cpu / f.name) for f in sorted(gpu.iterdir())]
    line = (f"{prompt} {' '.join(options)}: {len(db)} frames, PSNR {min(db):.1f} to {max(db):.1f} dB, "
            f"again: {'the same bytes' if same else 'OTHER BYTES'}")
    return line, min(db), same


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("kinora")
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("--prompts", help="one a line; by default MODEL_FOLDER/../prompts_heldout.txt")
    p.add_argument("--commit", default="")
    args = p.parse_args()
    lowest, good = math.inf, True
    prompts = pathlib.Path(args.prompts or pathlib.Path(args.model).parent / "prompts_heldout.txt").read_text().splitlines()
    prompts = [line for line in prompts if line.strip()][::PROMPT_STEP]
    jobs = [(prompts[0], ("--refine-size", "2x"))] + [(prompt, ()) for prompt in prompts]
    with tempfile.TemporaryDirectory() as tmp, concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for line, db, same in pool.map(lambda i: look(args, pathlib.Path(tmp), i, *jobs[i]), range(len(jobs))):
            print(line, flush=True)
            lowest, good = min(lowest, db), good and same
    Records(args.out, args.commit).add("render-gpu-vs-cpu", lowest, LEAST_DB, "asked for", "dB, lowest frame")
    sys.exit(0 if good and lowest >= LEAST_DB else 1)


if __name__ == "__main__":
    main()
