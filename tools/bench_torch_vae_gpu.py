#!/usr/bin/env python3
"""Kinora's VAE beside diffusers' on one GPU, in one run: random weights at the dimensions of Wan 2.1.

usage: bench_torch_vae_gpu.py BENCH_PROGRAM OUT.json [--frames F] [--size 136x240] [--runs N] [--memory BYTES]
                              [--commit ID] [--what decode,encode,error] [--model FOLDER]
  BENCH_PROGRAM  the build folder's bench_vae_decode, built with CUDA; frames and size in latents
  --model        a vae/ folder of Wan 2.1's dimensions; one is made without it
Adds records to OUT.json (tools/bench_records.py): milliseconds, peak device memory, and the distance of both from
diffusers in fp32 on the same latents. diffusers: bf16, data on the device before and after; ours takes latents from
and hands frames to host memory.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import numpy as np
import torch
import diffusers
from diffusers import AutoencoderKLWan

from bench_records import Records, cuda_times, spread, take_turn

SMALL = (3, 30, 52)  # latents of the comparison with fp32


def ours(program, folder, grid, runs, *options):
    f, h, w = grid
    command = [program, folder, "--cuda", "1", "--frames", f, "--height", h, "--width", w, "--rounds", runs, *options]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    return json.loads(done.stdout)


@torch.inference_mode()
def error(args, folder, tmp, records, peer):
    z = torch.randn(16, *SMALL, generator=torch.Generator().manual_seed(1))
    z.numpy().tofile(tmp / "in.raw")
    ours(args.program, folder, SMALL, 1, "--in", tmp / "in.raw", "--out", tmp / "out.raw")
    got = torch.from_numpy(np.fromfile(tmp / "out.raw", np.float32))

    def theirs(dtype):
        vae = AutoencoderKLWan.from_pretrained(folder, torch_dtype=dtype).eval().cuda()
        mean, std = (torch.tensor(v).view(-1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
        video = vae.decode((z * std + mean)[None].cuda().to(dtype), return_dict=False)[0][0]
        return video.float().clamp(-1, 1).permute(1, 2, 3, 0).cpu().flatten()

    reference, bf16 = theirs(torch.float32), theirs(torch.bfloat16)
    relative = [float((x - reference).norm() / reference.norm()) for x in (got, bf16)]
    records.add("vae-decode-error", *relative, f"{peer}, bf16", "of the fp32 decode's norm")


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("out")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--size", default="136x240")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", type=int, default=7_400_000_000, help="bytes that ours may take besides weights")
    parser.add_argument("--commit", default="")
    parser.add_argument("--what", default="error,decode,encode")
    parser.add_argument("--model")
    args = parser.parse_args()
    if args.what != "error":
        take_turn()
    records = Records(args.out, args.commit)
    peer = f"diffusers {diffusers.__version__}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    grid = (args.frames, *(int(n) for n in args.size.split("x")))
    name = f"{8 * grid[1]}p"
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        folder = pathlib.Path(args.model or tmp + "/vae")
        if not args.model:
            torch.manual_seed(0)
            AutoencoderKLWan().to(torch.bfloat16).save_pretrained(folder)
        if "error" in args.what:
            error(args, folder, pathlib.Path(tmp), records, peer)
        for side in ("decode", "encode"):
            if side not in args.what:
                continue
            vae = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.bfloat16).eval().cuda()
            video = torch.rand(1, 3, 4 * grid[0] - 3, 8 * grid[1], 8 * grid[2], device="cuda").bfloat16() * 2 - 1
            z = torch.randn(1, 16, *grid, device="cuda").bfloat16()
            torch.cuda.reset_peak_memory_stats()
            fn = (lambda: vae.decode(z, return_dict=False)) if side == "decode" else (lambda: vae.encode(video))
            theirs = cuda_times(fn, args.runs)
            theirs_bytes = torch.cuda.max_memory_allocated()
            del vae, video, z, fn
            torch.cuda.empty_cache()
            common = ["--encode", int(side == "encode"), "--late", 1]
            small = ours(args.program, folder, grid, args.runs, *common, "--chunk", grid[0], "--memory", args.memory)
            large = ours(args.program, folder, grid, args.runs, *common)
            id = f"vae-{side}-1080p" if grid[1:] == (136, 240) else f"vae-{side}-{name}"
            # decoding is asked for within a budget, encoding is not
            first, other, word = (small, large, "uncut") if side == "decode" else (large, small, "within_memory")
            records.add(id, first["median_ms"], statistics.median(theirs), peer, "ms", spread(first["ms"]),
                        tiles=first["tiles"], **{f"ours_{word}": other["median_ms"]})
            records.add(f"{id}-memory", first["peak_bytes"] / 1e9, theirs_bytes / 1e9, peer, "GB",
                        **{f"ours_{word}": other["peak_bytes"] / 1e9})


if __name__ == "__main__":
    main()
