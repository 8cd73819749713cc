#!/usr/bin/env python3
"""Picture of a timeline that `--debug-dir` wrote: the whole run above, one step of a pass below.

    tools/plot_trace.py inside/trace.json timeline.png [--phase "refine 1"] [--step 6]

What chrome://tracing and ui.perfetto.dev show, for documents."""
import argparse
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOUR = {"run": "#999999", "phase": "#3b6ea5", "step": "#7aa6d1", "forward": "#5aa469", "block": "#b9d7bf", "plan": "#d98f3e",
          "attention": "#c2504d", "debug": "#dddddd"}


def inside(e, outer):
    return outer["ts"] - 0.5 <= e["ts"] and e["ts"] + e["dur"] <= outer["ts"] + outer["dur"] + 0.5


def draw(axis, events, rows, begin, end, title):
    axis.set_title(title, fontsize=9, loc="left")
    for e in events:
        if e["cat"] not in rows or e["ts"] + e["dur"] < begin or e["ts"] > end:
            continue
        y = len(rows) - 1 - rows.index(e["cat"])
        x, width = (e["ts"] - begin) / 1e3, e["dur"] / 1e3
        axis.barh(y, width, left=x, height=0.8, color=COLOUR[e["cat"]], edgecolor="white", linewidth=0.3)
        if width > 0.011 * len(e["name"]) * (end - begin) / 1e3:
            axis.text(x + width / 2, y, e["name"], ha="center", va="center", fontsize=7)
    axis.set_yticks(range(len(rows)), [{"plan": "choose blocks", "attention": "self-attention"}.get(r, r) for r in reversed(rows)], fontsize=8)
    axis.set_xlim(0, (end - begin) / 1e3)
    axis.set_xlabel("ms", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("trace")
    ap.add_argument("picture")
    ap.add_argument("--phase", default="refine 1")
    ap.add_argument("--step", type=int)
    a = ap.parse_args()
    events = json.load(open(a.trace))["traceEvents"]
    run = next(e for e in events if e["cat"] == "run")
    phase = next(e for e in events if e["cat"] == "phase" and e["name"] == a.phase)
    steps = [e for e in events if e["cat"] == "step" and inside(e, phase) and e["name"].startswith("step") and a.step in (None, int(e["name"].split()[-1]))]
    figure, (above, below) = plt.subplots(2, 1, figsize=(11, 5), layout="constrained")
    draw(above, events, ["phase", "step", "forward", "debug"], run["ts"], run["ts"] + run["dur"], "the run")
    s = steps[0]
    draw(below, events, ["forward", "block", "plan", "attention", "debug"], s["ts"], s["ts"] + s["dur"], f"{a.phase}, {s['name']}")
    figure.savefig(a.picture, dpi=110)


if __name__ == "__main__":
    main()
