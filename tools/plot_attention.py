#!/usr/bin/env python3
"""Pictures of bench/results/h200-attention.json: time and efficiency against density.

    tools/plot_attention.py [--results bench/results/h200-attention.json] [--folder docs]

Writes attention-time.png (milliseconds of one 1080p layer, and the line that the dense time promises)
and attention-efficiency.png (speed-up over cuDNN's dense attention, or our own for random lists at
720p, times density: 1 = all that the density promises).
"""
import argparse
import json
import pathlib
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SERIES = {"draft": "draft, choice included", "permute": "permute, choice included",
          "lists": "random lists, 75,600 tokens"}


def points(records):
    """name -> [(density, ms, dense ms)]"""
    out = {}
    for r in records:
        m = re.fullmatch(r"(draft|permute)-(\d+)-1080p|(lists)-(\d+)", r["id"])
        if not m:
            continue
        name, density = m[1] or m[3], int(m[2] or m[4]) / 100
        dense = r["peer"] if name != "lists" else r["peer"] / density
        out.setdefault(name, []).append((density, r["ours"], dense))
    return {k: sorted(v) for k, v in out.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--results", default="bench/results/h200-attention.json")
    p.add_argument("--folder", default="docs")
    a = p.parse_args()
    records = json.loads(pathlib.Path(a.results).read_text())
    series, window = points(records), {r["id"]: r for r in records}.get("window-1080p-vs-dense")
    folder = pathlib.Path(a.folder)

    fig, ax = plt.subplots(figsize=(7, 4.2))
    for name, v in series.items():
        if name != "lists":
            ax.plot([100 * d for d, _, _ in v], [ms for _, ms, _ in v], "o-", label=SERIES[name])
    dense = [d for v in series.values() for _, _, d in v if v is not series.get("lists")]
    if dense:
        level = sorted(dense)[len(dense) // 2]
        ax.plot([0, 100], [0, level], "k--", lw=1, label="density x cuDNN dense")
    if window:
        ax.plot([20.13], [window["ours"]], "s", label="window 31 x 53, element-exact")
    ax.set(xlabel="visible pairs, %", ylabel="ms per layer, 171,360 tokens, 12 heads", xlim=(0, 60))
    ax.set_ylim(0, 0.65 * level if dense else None)
    ax.legend()
    ax.grid(alpha=0.3)
    fig.tight_layout()
    fig.savefig(folder / "attention-time.png", dpi=110)

    fig, ax = plt.subplots(figsize=(7, 4.2))
    for name, v in series.items():
        ax.plot([100 * d for d, _, _ in v], [dense / ms * d for d, ms, dense in v], "o-",
                label=SERIES[name])
    if window:
        ax.plot([20.13], [window["peer"] / window["ours"] * 0.2013], "s",
                label="window 31 x 53, element-exact")
    ax.axhline(1, color="k", ls="--", lw=1)
    ax.set(xlabel="visible pairs, %", ylabel="speed-up over dense x density", xlim=(0, 60), ylim=(0, 1.25))
    ax.legend(loc="lower right")
    ax.grid(alpha=0.3)
    fig.tight_layout()
    fig.savefig(folder / "attention-efficiency.png", dpi=110)


if __name__ == "__main__":
    main()
