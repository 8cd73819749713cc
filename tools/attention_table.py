#!/usr/bin/env python3
"""Sparse attention beside dense on one refine stage: recall, error of latents and frames, time.

    tools/attention_table.py --kinora build/kinora --model demo/model --out table.md \
        --prompt "a red ball bouncing over grass" --factor 4x --density 0.25 0.10

The base clip is made once; every method refines the same latents with the same noise and settings. Density,
recall (16 queries of every layer, step and prompt against all keys) and seconds come from --debug-dir; relative L2
from the final latents; PSNR and SSIM (7 x 7 windows, each colour) from the decoded frames, dense as reference.
Needs numpy and Pillow.
"""
import argparse
import glob
import json
import math
import os
import struct
import subprocess
import tempfile

import numpy as np
from PIL import Image


def latents(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8:8 + n])["latents"]
    begin, end = entry["data_offsets"]
    return np.frombuffer(data[8 + n + begin:8 + n + end], "<f4").reshape(entry["shape"])


def frames(folder):
    return np.stack([np.asarray(Image.open(p).convert("RGB"), np.float64) for p in sorted(glob.glob(folder + "/*.png"))])


def box(x, n=7):
    """Mean over n x n windows of the two axes before the last."""
    c = np.cumsum(np.cumsum(np.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))), axis=1), axis=2)
    return (c[:, n:, n:] - c[:, :-n, n:] - c[:, n:, :-n] + c[:, :-n, :-n]) / n**2


def ssim(a, b):
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ma, mb = box(a), box(b)
    va, vb, cov = box(a * a) - ma * ma, box(b * b) - mb * mb, box(a * b) - ma * mb
    return float(np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))


def psnr(a, b):
    mse = float(np.mean((a - b) ** 2))
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


def odd_window(density, grid):
    """Odd sides whose share of the grid is nearest to density; of equals, the most square."""
    pairs = [(h, w) for h in range(1, grid[0] + 1, 2) for w in range(1, grid[1] + 1, 2)]
    return min(pairs, key=lambda p: (round(abs(p[0] * p[1] / (grid[0] * grid[1]) - density), 2),
                                     abs(math.log(p[0] / grid[0] * grid[1] / p[1]))))


def methods(density, grid):
    h, w = odd_window(density, grid)
    tiles = [-(-n // 8) for n in grid]
    th, tw = odd_window(density, tiles)
    yield "window", ["--attention", "window", "--window", f"{w}x{h}"]
    yield "tile3d", ["--attention", "tile3d", "--tile-window", f"99x{th}x{tw}"]
    yield "draft", ["--attention", "draft", "--density", str(density), "--within-density"]
    yield "permute", ["--attention", "permute", "--density", str(density)]
    yield "paro", ["--attention", "paro", "--density", str(density)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinora", default="build/kinora")
    parser.add_argument("--model", default="demo/model")
    parser.add_argument("--prompt", default="a red ball bouncing over grass")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--factor", default="4x")
    parser.add_argument("--density", type=float, nargs="+", default=[0.25, 0.10])
    parser.add_argument("--out", help="Markdown file; standard output if not given")
    parser.add_argument("more", nargs="*", help="more flags for every render, after --")
    a = parser.parse_args()
    work = tempfile.mkdtemp(prefix="attention_table_")
    common = [a.kinora, "render", "--model", a.model, "--prompt", a.prompt, "--seed", str(a.seed), "--progress", "none"]
    common += ["--overwrite"] + a.more
    base = f"{work}/base.safetensors"
    subprocess.run(common + ["--latents-out", base], check=True)
    shape = latents(base).shape
    factor = float(a.factor.rstrip("x"))
    grid = [round(n / 2 * factor) for n in shape[2:]]

    def run(name, flags):
        d = f"{work}/{name}"
        subprocess.run(common + ["--latents-in", base, "--refine-size", a.factor, "--dense-steps", "0", "--dense-layers", "0",
                                 "--latents-out", d + ".safetensors", "--frames-dir", d + ".frames", "--debug-dir", d + ".debug"]
                       + flags, check=True)
        steps = json.load(open(d + ".debug/run.json"))["passes"][-1]["step"]
        mean = lambda key: sum(s[key] for s in steps) / len(steps)
        return (latents(d + ".safetensors").astype(np.float64), frames(d + ".frames"), mean("density"), mean("recall"),
                sum(s["seconds"] for s in steps))

    z0, f0, _, _, t0 = run("dense", ["--attention", "dense"])
    lines = ["| method | asked for | density | recall | latents rel. L2 | PSNR | SSIM | seconds | of dense |",
             "|---|---|---|---|---|---|---|---|---|",
             f"| dense | | 100 % | 100 % | 0 | | | {t0:.2f} | 1.00 |"]
    todo = [(m, d, f) for d in a.density for m, f in methods(d, grid)] + [("cross", None, ["--attention", "cross"])]
    for name, density, flags in todo:
        z, f, got, recall, seconds = run(f"{name}_{density}", flags)
        error = np.linalg.norm(z - z0) / np.linalg.norm(z0)
        asked = f"{100 * density:.0f} %" if density else "its own"
        lines.append(f"| {name} | {asked} | {100 * got:.1f} % | {100 * recall:.1f} % | {error:.3f} | {psnr(f, f0):.2f} dB |"
                     f" {ssim(f, f0):.3f} | {seconds:.2f} | {seconds / t0:.2f} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if a.out:
        with open(a.out, "w") as f:
            f.write(text)
    else:
        print(text)
    print("files:", work, os.linesep, end="")


if __name__ == "__main__":
    main()
