#!/usr/bin/env python3
"""Golden data for tests/golden/pipeline_noise.c: what torch.randn draws on the CPU.

    golden_noise.py OUT_DIR [--seeds 0,1,...] [--large COUNT]

Writes OUT_DIR/pipeline_noise.safetensors:
    one/<seed>/<count>   one torch.randn(count) from a fresh generator
    counts/<seed>        int64: sizes of consecutive draws from one generator
    stream/<seed>        the draws, concatenated
    hash                 int64 [n, 3]: seed, count, FNV-1a 64 of the bytes of torch.randn(count)
Seeds are written as the unsigned 64-bit number that torch makes of them.
Needs a CPU with AVX2: torch takes another code path without it (see pipeline/noise.h).
"""
import argparse
import os

import numpy as np
import torch
from safetensors.torch import save_file

SEEDS = [0, 1, 42, 2**32 - 1, 2**40 + 5, -1, 2**63 - 1]
STREAM = [7, 15, 16, 17, 3, 31, 33, 1, 1, 1, 20, 2, 48, 5, 16]


def draw(seed, counts):
    gen = torch.Generator("cpu").manual_seed(seed)
    return [torch.randn(c, generator=gen, dtype=torch.float32) for c in counts]


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("out_dir")
    ap.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    ap.add_argument("--large", type=int, default=10**6 + 7)
    args = ap.parse_args()
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in ("AVX2", "AVX512"):
        raise SystemExit(f"torch runs as {capability} here; its noise has other bits than with AVX2")

    tensors, hashes = {}, []
    for seed in map(int, args.seeds.split(",")):
        u64 = seed % 2**64
        for count in range(1, 41):
            tensors[f"one/{u64}/{count}"] = draw(seed, [count])[0]
        tensors[f"counts/{u64}"] = torch.tensor(STREAM, dtype=torch.int64)
        tensors[f"stream/{u64}"] = torch.cat(draw(seed, STREAM))
    # 2 x 3 x 5 x 7 elements checks that a shape of any rank is its element count
    shaped = torch.randn(2, 3, 5, 7, generator=torch.Generator("cpu").manual_seed(9))
    assert torch.equal(shaped.flatten(), draw(9, [210])[0])
    for seed, count in ((42, 1000), (42, 100007), (7, args.large), (2**31, 65536)):
        data = draw(seed, [count])[0].numpy().tobytes()
        hashes.append([seed, count, fnv1a64(data)])
    tensors["hash"] = torch.from_numpy(np.array(hashes, dtype=np.uint64).view(np.int64))

    os.makedirs(args.out_dir, exist_ok=True)
    save_file(tensors, os.path.join(args.out_dir, "pipeline_noise.safetensors"),
              metadata={"torch": torch.__version__, "cpu_capability": capability})


if __name__ == "__main__":
    main()
