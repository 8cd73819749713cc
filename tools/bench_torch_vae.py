#!/usr/bin/env python3
"""Kinora's VAE beside diffusers' on the CPU: the same weights, clip and number of threads.

Rounds alternate between the two, so that a busy machine slows both. The peer runs in its two
memory layouts, contiguous and channels_last_3d, in inference mode; each is warmed up, and the
faster one counts. Prints one line of JSON per size.

usage: bench_torch_vae.py BENCH VAE_FOLDER [--frames F] [--sizes 12x20,24x40] [--threads T]
                          [--rounds R]
  BENCH  the program bench_vae_decode; sizes in latents
"""
import argparse
import copy
import json
import statistics
import subprocess
import time

import torch
from diffusers import AutoencoderKLWan


def theirs(vae, x, encode):
    start = time.perf_counter()
    if encode:
        vae.encode(x).latent_dist.mode()
    else:
        vae.decode(x)
    return (time.perf_counter() - start) * 1e3


def channels_last(module):
    for p in module.parameters():
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(p.dim())
        if layout:
            p.data = p.data.to(memory_format=layout)
    return module


def ours(args, size, encode):
    options = {"frames": args.frames, "height": size[0], "width": size[1],
               "threads": args.threads, "rounds": 1, "encode": int(encode)}
    command = [args.bench, args.folder]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["median_ms"]


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bench")
    parser.add_argument("folder")
    parser.add_argument("--frames", type=int, default=5, help="latent frames")
    parser.add_argument("--sizes", default="12x20,24x40", help="latents, height x width")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vae = AutoencoderKLWan.from_pretrained(args.folder, torch_dtype=torch.float32).eval()
    for text in args.sizes.split(","):
        size = [int(n) for n in text.split("x")]
        latents = torch.randn(1, vae.config.z_dim, args.frames, *size)
        video = torch.rand(1, 3, 4 * args.frames - 3, *(8 * n for n in size)) * 2 - 1
        for encode in (False, True):
            x = video if encode else latents
            peers = {"contiguous": (vae, x), "channels_last_3d":
                     (channels_last(copy.deepcopy(vae)), x.to(memory_format=torch.channels_last_3d))}
            for peer in peers.values():
                theirs(*peer, encode)
            ms = {"ours": [], **{name: [] for name in peers}}
            for _ in range(args.rounds):
                ms["ours"].append(ours(args, size, encode))
                for name, peer in peers.items():
                    ms[name].append(theirs(*peer, encode))
            medians = {k: statistics.median(v) for k, v in ms.items()}
            medians["theirs"], layout = min((medians[name], name) for name in peers)
            print(json.dumps({"what": "encode" if encode else "decode",
                              "latents": [args.frames, *size], "threads": args.threads,
                              "torch": torch.__version__, "layout": layout,
                              **{f"{name}_ms": round(medians[name], 1) for name in peers},
                              "ours_ms": round(medians["ours"], 1),
                              "theirs_ms": round(medians["theirs"], 1),
                              "ratio": round(medians["ours"] / medians["theirs"], 3)}), flush=True)


if __name__ == "__main__":
    main()
