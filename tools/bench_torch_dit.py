#!/usr/bin/env python3
"""The transformer's forward, ours beside diffusers': same weights, same shapes, same threads, in turns.

usage: bench_torch_dit.py BENCH_PROGRAM [--threads N] [--runs N] [--rounds N] [--shape demo|demo2x|wide]
  BENCH_PROGRAM  build folder's bench_dit_forward
Prints medians in milliseconds and ours/theirs, first with the prompt prepared once (as a render
does), then with it prepared at every evaluation (what diffusers does).
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
from diffusers import WanTransformer3DModel, __version__ as diffusers_version

# heads, head_dim, layers, ffn, text_dim; F, H, W; T
SHAPES = {
    "demo": ((4, 64, 8, 1024, 128), (5, 12, 20), 32),  # the model that ships with Kinora
    "demo2x": ((4, 64, 8, 1024, 128), (5, 24, 40), 32),
    "wide": ((12, 128, 2, 8960, 4096), (3, 20, 32), 512),  # two layers of Wan 2.1 1.3B
}


def save_model(shape, folder):
    heads, head_dim, layers, ffn, text_dim = shape
    torch.manual_seed(0)
    model = WanTransformer3DModel(num_attention_heads=heads, attention_head_dim=head_dim,
                                  num_layers=layers, ffn_dim=ffn, text_dim=text_dim, in_channels=16,
                                  out_channels=16).eval()
    model.save_pretrained(folder)
    return model


def time_torch(model, latents, text, runs):
    x = torch.rand(1, 16, *latents) * 2 - 1
    e = torch.rand(1, text, model.config.text_dim) * 2 - 1
    t = torch.tensor([750])
    times = []
    with torch.inference_mode():
        model(x, t, e, return_dict=False)
        for _ in range(runs):
            start = time.perf_counter()
            model(x, t, e, return_dict=False)
            times.append((time.perf_counter() - start) * 1e3)
    return times


def main():
    p = argparse.ArgumentParser()
    p.add_argument("program")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--runs", type=int, default=15)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--shape", choices=SHAPES, default="demo")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    shape, latents, text = SHAPES[args.shape]
    ours, both, theirs = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(shape, pathlib.Path(folder))
        for _ in range(args.rounds):
            command = [args.program, folder, *map(str, latents), str(text), str(args.threads),
                       str(args.runs)]
            result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            ours.append(result["forward_ms"])
            both.append(result["with_prompt_ms"])
            theirs.append(statistics.median(time_torch(model, latents, text, args.runs)))
    a, b, t = (statistics.median(x) for x in (ours, both, theirs))
    print(f"{args.shape}: {result['tokens']} tokens, {args.threads} threads, {result['device']}; "
          f"torch {torch.__version__}, diffusers {diffusers_version}")
    print(f"  prompt prepared once:       ours {a:.2f} ms, diffusers {t:.2f} ms, ratio {a / t:.3f}")
    print(f"  prompt at every evaluation: ours {b:.2f} ms, diffusers {t:.2f} ms, ratio {b / t:.3f}")


if __name__ == "__main__":
    main()
