#!/usr/bin/env python3
"""The transformer's forward on a GPU, ours beside diffusers': same weights, inputs and card, in one run.

usage: bench_torch_dit_gpu.py BENCH_PROGRAM OUT.json [--size 1.3B|14B] [--what error,480p,1080p,compile|nothing|warm]
                              [--runs N] [--model FOLDER] [--commit ID]
  BENCH_PROGRAM  build folder's bench_dit_forward, built with CUDA
Weights are random, at the true dimensions of Wan 2.1, stored in bf16; diffusers loads them as it does the
public checkpoint (bf16, the norms and the time embedding in fp32). --model: a transformer's folder, made if it
is not there, and kept; --what nothing then only makes it. --what warm: only compiles diffusers' block, of which
PyTorch keeps the kernels. Adds records {id, ours, peer, peer_name, unit, spread, commit, date, card} to OUT.json and
prints them.
"""
import argparse
import gc
import json
import pathlib
import statistics
import subprocess
import tempfile

import torch
import diffusers
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from bench_records import Records, spread, take_turn

SIZES = {"1.3B": dict(num_attention_heads=12, attention_head_dim=128, num_layers=30, ffn_dim=8960),
         "14B": dict(num_attention_heads=40, attention_head_dim=128, num_layers=40, ffn_dim=13824)}
GRIDS = {"error": (5, 60, 104), "480p": (21, 60, 104), "1080p": (21, 136, 240)}  # latent frames, height, width
TEXT, TIMESTEP = 512, 750


def save_model(size, folder, **other):
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = WanTransformer3DModel(in_channels=16, out_channels=16, text_dim=4096, **{**SIZES[size], **other})
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder, max_shard_size="100GB")
    del model
    gc.collect()
    torch.cuda.empty_cache()


def load_model(folder, dtype):
    return WanTransformer3DModel.from_pretrained(folder, torch_dtype=dtype).eval().to("cuda")


def inputs(grid):
    g = torch.Generator().manual_seed(1)
    return {"latents": torch.randn(16, *grid, generator=g), "embeds": torch.randn(TEXT, 4096, generator=g)}


def forward(model, data, dtype):
    x, e = data["latents"][None].cuda().to(dtype), data["embeds"][None].cuda().to(dtype)
    with torch.inference_mode():
        return model(x, torch.tensor([TIMESTEP], device="cuda"), e, return_dict=False)[0][0].float()


def time_torch(model, data, runs):
    x, e = data["latents"][None].cuda().bfloat16(), data["embeds"][None].cuda().bfloat16()
    t, times = torch.tensor([TIMESTEP], device="cuda"), []
    with torch.inference_mode():
        model(x, t, e, return_dict=False)
        for _ in range(runs):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            model(x, t, e, return_dict=False)
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
    return times


def run_ours(program, folder, grid, runs, data=None):
    with tempfile.TemporaryDirectory() as tmp:
        command = [program, folder, *map(str, grid), str(TEXT), "1", str(runs), "cuda"]
        if data is not None:
            save_file(data, f"{tmp}/in.safetensors")
            command += [f"{tmp}/in.safetensors", f"{tmp}/out.safetensors"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
        velocity = load_file(f"{tmp}/out.safetensors")["velocity"] if data is not None else None
        return json.loads(done.stdout), velocity


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def measure_error(args, folder, peer, records):
    """Distance of both from the fp32 forward of the same weights."""
    data = inputs(GRIDS["error"])
    model = load_model(folder, torch.float32)
    reference = forward(model, data, torch.float32).cpu()
    del model
    gc.collect()
    torch.cuda.empty_cache()
    theirs = relative(forward(load_model(folder, torch.bfloat16), data, torch.bfloat16).cpu(), reference)
    _, velocity = run_ours(args.program, folder, GRIDS["error"], 1, data)
    records.add("dit-error-ratio", relative(velocity, reference), theirs, f"{peer}, bf16", "of the fp32 forward's norm", 0)


def measure_time(args, folder, what, peer, records):
    prefix = "dit" if args.size == "1.3B" else "dit-14b"
    name = f"{prefix}-480p" if what == "480p" else f"{prefix}-1080p-dense"
    runs = args.runs if what == "480p" and args.size == "1.3B" else max(2, args.runs // 5)
    data, model = inputs(GRIDS[what]), load_model(folder, torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    times = time_torch(model, data, runs)
    peak = torch.cuda.max_memory_allocated()
    theirs, peer_name = statistics.median(times), f"{peer}, eager"
    eager = None
    print(f"{name}: {peer_name}: {theirs:.1f} ms", flush=True)
    if "compile" in args.what and what == "480p":
        model.compile_repeated_blocks()
        compiled = time_torch(model, data, runs)
        eager = (theirs, peer_name, spread(times))
        theirs, peer_name, times = statistics.median(compiled), f"{peer}, torch.compile", compiled
    del model
    gc.collect()
    torch.cuda.empty_cache()
    ours, _ = run_ours(args.program, folder, GRIDS[what], runs)
    print(json.dumps(ours), flush=True)
    records.add(name, ours["forward_ms"], theirs, peer_name, "ms", spread(times))
    if eager:
        records.add(f"{name}-eager", ours["forward_ms"], eager[0], eager[1], "ms", eager[2])
    records.add(f"{name}-memory", ours["device_bytes"] / 1e9, peak / 1e9, f"{peer}, allocated", "GB", 0)


def warm():
    with tempfile.TemporaryDirectory() as tmp:
        save_model("1.3B", tmp, num_layers=1)
        model = load_model(tmp, torch.bfloat16)
    model.compile_repeated_blocks()
    time_torch(model, inputs(GRIDS["480p"]), 1)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("program")
    p.add_argument("out")
    p.add_argument("--size", choices=SIZES, default="1.3B")
    p.add_argument("--what", default="error,480p,1080p,compile", type=lambda s: s.split(","))
    p.add_argument("--runs", type=int, default=11)
    p.add_argument("--model")
    p.add_argument("--commit", default="")
    args = p.parse_args()
    if "warm" in args.what:
        return warm()
    if args.what != ["error"] and args.what != ["nothing"]:
        take_turn()
    peer = f"diffusers {diffusers.__version__}, torch {torch.__version__}"
    records = Records(args.out, args.commit)
    print(f"{records.card}; {peer}; cuDNN {torch.backends.cudnn.version()}", flush=True)
    with tempfile.TemporaryDirectory() as tmp:
        folder = args.model or tmp
        if not (pathlib.Path(folder) / "config.json").exists():
            save_model(args.size, folder)
        if "error" in args.what:
            measure_error(args, folder, peer, records)
        for what in ("480p", "1080p"):
            if what in args.what:
                measure_time(args, folder, what, peer, records)


if __name__ == "__main__":
    main()
