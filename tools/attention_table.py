#!/usr/bin/env python3
"""Sparse attention beside dense on one refine stage: recall, error of latents and frames, time.

    tools/attention_table.py --kinora build/kinora --model demo/model --out table.md --factor 4x --density 0.25 0.10 --jobs 4
    tools/attention_table.py --merge a.json b.json --out table.md

For each prompt (of --prompts, lines --lines, seed = line number) the base clip is made once; every method refines the
same latents with the same noise and settings. Density, recall (16 queries of every layer, step and prompt of guidance
against all keys) and seconds of self-attention's steps come from --debug-dir; relative L2 from the final latents; PSNR
and SSIM (7 x 7 windows, each color) from the decoded frames, dense as reference. Mean over prompts, standard deviation
behind ±. One thread a render, --jobs renders at a time: seconds compare within a table only. --merge makes one table of
what --json left of several runs. Needs numpy and Pillow.
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
import numpy as np  # noqa: E402

import clip_metrics as m  # noqa: E402


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
    yield "draft", ["--attention", "draft", "--density", str(density)]
    yield "draft, within", ["--attention", "draft", "--density", str(density), "--within-density"]
    yield "permute", ["--attention", "permute", "--density", str(density)]
    yield "paro", ["--attention", "paro", "--density", str(density)]


def common(a, line):
    with open(a.prompts) as f:
        prompt = f.read().splitlines()[line - 1]
    return [a.kinora, "render", "--model", a.model, "--prompt", prompt, "--seed", str(line), "--progress", "none",
            "--threads", "1", "--overwrite"] + a.more


def base(a, work, line):
    subprocess.run(common(a, line) + ["--latents-out", f"{work}/{line}.safetensors"], check=True)


def refine(a, work, line, name, flags):
    """-> density, recall, seconds of the stage's steps"""
    d = f"{work}/{name}_{line}"
    subprocess.run(common(a, line) + ["--latents-in", f"{work}/{line}.safetensors", "--refine-size", a.factor,
                                      "--dense-steps", "0", "--dense-layers", "0", "--full-positions", "own",
                                      "--latents-out", d + ".safetensors",
                                      "--frames-dir", d + ".frames", "--debug-dir", d + ".debug"] + flags, check=True)
    with open(d + ".debug/run.json") as f:
        steps = json.load(f)["passes"][-1]["step"]
    shutil.rmtree(d + ".debug")
    return [sum(s[key] for s in steps) / len(steps) for key in ("density", "recall")] + [sum(s["seconds"] for s in steps)]


def compare(work, line, name):
    """-> relative L2, PSNR, SSIM against dense"""
    z0, z = (m.latents(f"{work}/{n}_{line}.safetensors") for n in ("dense", name))
    f0, f = (m.frames(f"{work}/{n}_{line}.frames") for n in ("dense", name))
    return [float(np.linalg.norm(z - z0) / np.linalg.norm(z0)), m.psnr(f, f0), m.ssim(f, f0)]


def forget(work, line, names):
    """The files of a prompt that is measured."""
    for name in names:
        os.remove(f"{work}/{name}_{line}.safetensors")
        shutil.rmtree(f"{work}/{name}_{line}.frames")


def measure(a):
    """Prompt by prompt; --json holds those that are whole, so that a run that is cut off leaves them."""
    with tempfile.TemporaryDirectory(prefix="attention_table_") as work, ProcessPoolExecutor(a.jobs) as pool, \
            ProcessPoolExecutor(max(1, a.jobs // 4)) as comparers:
        list(pool.map(base, *zip(*[(a, work, line) for line in a.lines])))
        shape = m.latents(f"{work}/{a.lines[0]}.safetensors").shape
        grid = [round(n / 2 * float(a.factor.rstrip("x"))) for n in shape[2:]]
        todo = [("dense", "", ["--attention", "dense"])]
        for d in a.density:
            todo += [(name, f"{100 * d:.0f} %", flags) for name, flags in methods(d, grid) if name not in a.without]
        todo += [("cross", "its own", ["--attention", "cross"])]
        rows = [dict(name=name, asked=asked, flags=flags, values=[]) for name, asked, flags in todo]
        names = [f"{name}{asked}".translate({ord(c): None for c in ", %"}) for name, asked, _ in todo]
        ran = [[pool.submit(refine, a, work, line, n, r["flags"]) for n, r in zip(names, rows)] for line in a.lines]
        for i, line in enumerate(a.lines):
            taken = [job.result() for job in ran[i]]
            compared = list(comparers.map(compare, *zip(*[(work, line, n) for n in names])))
            compared[0][1] = math.nan  # dense beside itself
            for r, t, c in zip(rows, taken, compared):
                r["values"].append(t + c)
            forget(work, line, names)
            if a.json:
                with open(a.json + ".tmp", "w") as f:
                    json.dump(dict(lines=a.lines[:i + 1], grid=grid, columns=["density", "recall", "seconds", "latents", "psnr", "ssim"],
                                   rows=rows), f)
                os.replace(a.json + ".tmp", a.json)
    return rows


def merged(paths):
    """The rows of several files, prompts of the same row behind one another."""
    rows = {}
    for path in paths:
        with open(path) as f:
            for r in json.load(f)["rows"]:
                rows.setdefault((r["name"], r["asked"]), dict(r, values=[]))["values"].extend(r["values"])
    return list(rows.values())


def table(rows):
    lines = ["| method | asked for | prompts | density | recall | latents rel. L2 | PSNR, dB | SSIM | seconds | of dense |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    dense = np.array(rows[0]["values"], float)
    for r in rows:
        x = np.array(r["values"], float)
        mean, sd = x.mean(0), x.std(0, ddof=1) if len(x) > 1 else np.zeros(6)
        apart = (f"{mean[3]:.3f} ± {sd[3]:.3f} | {mean[4]:.2f} ± {sd[4]:.2f} | {mean[5]:.3f} ± {sd[5]:.3f}"
                 if r["name"] != "dense" else "0 | | 1")
        of_dense = f"{np.mean(x[:, 2] / dense[:, 2]):.2f}" if len(x) == len(dense) else ""
        lines.append(f"| {r['name']} | {r['asked']} | {len(x)} | {100 * mean[0]:.1f} % | {100 * mean[1]:.1f} ± {100 * sd[1]:.1f} % | {apart} |"
                     f" {mean[2]:.1f} | {of_dense} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinora", default="build/kinora")
    parser.add_argument("--model", default="demo/model")
    parser.add_argument("--prompts", default="demo/prompts_heldout.txt")
    parser.add_argument("--lines", type=int, nargs="+", default=[1, 41, 81])
    parser.add_argument("--factor", default="4x")
    parser.add_argument("--density", type=float, nargs="+", default=[0.25, 0.10])
    parser.add_argument("--without", nargs="+", default=[], help="methods to leave out; paro takes six times dense's time on a CPU")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--merge", nargs="+", help="files of --json; nothing is rendered")
    parser.add_argument("--out", help="Markdown file; standard output if not given")
    parser.add_argument("--json", help="also every figure of every prompt")
    parser.add_argument("more", nargs="*", help="more flags for every render, after --")
    a = parser.parse_args()
    text = table(merged(a.merge) if a.merge else measure(a))
    print(text)
    if a.out:
        with open(a.out, "w") as f:
            f.write(text)


if __name__ == "__main__":
    main()
