#!/usr/bin/env python3
"""Draw the log of tools/soak.sh: plot_soak.py LONG.tsv OUT.png [LONG.tsv ...]"""
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

logs, out = [sys.argv[1]] + sys.argv[3:], sys.argv[2]
fig, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
for number, path in enumerate(logs, 1):
    rows = [list(map(float, line.split()[:7])) for line in open(path) if not line.startswith("#")]
    hours = [r[0] / 3600 for r in rows]
    name = f"process {number}: " if len(logs) > 1 else ""
    top.plot(hours, [r[3] / 1024 for r in rows], label=f"{name}peak (VmHWM)")
    top.plot(hours, [r[2] / 1024 for r in rows], label=f"{name}resident (VmRSS)", linewidth=0.8)
    bottom.plot(hours, [r[5] for r in rows], label=f"{name}open descriptors", linewidth=0.8)
top.set_ylabel("MiB")
top.set_ylim(bottom=0)
bottom.set_ylabel("descriptors")
bottom.set_ylim(bottom=0)
bottom.set_xlabel("hours in one `kinora batch`")
top.legend()
bottom.legend()
fig.tight_layout()
fig.savefig(out, dpi=90)
