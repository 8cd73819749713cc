#!/usr/bin/env python3
"""Compare Kinora's CPU attention with torch's scaled_dot_product_attention (fp32), in one run.

    tools/bench_torch_attention.py BUILD/bench_attention_cpu [--threads 2] [--rounds 5]
                                   [--tokens 4096 16384] [--dims 64 128] [--heads 2] [--cpu-time]

Each round times the bench program, then torch, so that both see the same machine. Prints the
median and the smallest milliseconds of each, and their ratios (ours / torch's; smaller is better).
--cpu-time compares processor time instead of the clock's: with one thread, that is fair on a machine
that others use too.
"""
import argparse
import json
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F


def time_torch(tokens, heads, dim, repeats, clock):
    q, k, v = torch.randn(3, 1, heads, tokens, dim).unbind(0)
    F.scaled_dot_product_attention(q, k, v)
    times = []
    for _ in range(repeats):
        start = clock()
        F.scaled_dot_product_attention(q, k, v)
        times.append(1e3 * (clock() - start))
    return times


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("bench")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--repeats", type=int, default=2, help="timed calls of each in a round")
    p.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384])
    p.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    p.add_argument("--heads", type=int, default=2)
    p.add_argument("--cpu-time", action="store_true")
    a = p.parse_args()
    if a.cpu_time and a.threads != 1:
        p.error("--cpu-time needs --threads 1")
    clock = time.process_time if a.cpu_time else time.perf_counter
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {a.threads} threads, {a.heads} heads, {a.rounds} rounds")
    print("tokens  dim  ours median/min ms   torch median/min ms  ratio of medians  of minima")
    for tokens in a.tokens:
        for dim in a.dims:
            ours, theirs = [], []
            for _ in range(a.rounds):
                line = subprocess.run(
                    [a.bench, "--tokens", str(tokens), "--heads", str(a.heads), "--dim", str(dim),
                     "--threads", str(a.threads), "--rounds", str(a.repeats),
                     "--cpu-time", str(int(a.cpu_time))],
                    check=True, capture_output=True, text=True).stdout
                ours += json.loads(line)["ms"]
                theirs += time_torch(tokens, a.heads, dim, a.repeats, clock)
            om, tm = statistics.median(ours), statistics.median(theirs)
            print(f"{tokens:6d} {dim:4d}  {om:9.1f} {min(ours):9.1f}  {tm:9.1f} {min(theirs):9.1f}"
                  f"  {om / tm:16.3f}  {min(ours) / min(theirs):9.3f}", flush=True)


if __name__ == "__main__":
    main()
