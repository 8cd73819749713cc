#!/usr/bin/env python3
"""Golden data for vae/: tiny AutoencoderKLWan networks with their intermediate tensors.

Each case is a folder OUT/vae_NAME with the checkpoint as diffusers writes it and
golden.safetensors:
  latents  [z,F,H,W]     normalised, what is decoded
  video    [P,H,W,3]     what is encoded
  decode/ENTRY, encode/ENTRY   per module in order of the walk (and "frames" or "latents" for the
           result) a sample of its output [T,H,W,C] over the whole clip: element
           (k * 1000003) mod n for k < 256, then the L2 norm of all
The network runs in float32 with the weights as stored.

usage: golden_vae.py OUT [--seed N] [--deep N] [--dtype f32|bf16|f16]
  --deep N  N random cases instead of the committed ones
"""
import argparse
import dataclasses
import json
import pathlib
import random

import diffusers
import torch
import transformers
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders import autoencoder_kl_wan as reference
from safetensors.torch import save_file

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
SAMPLES, STEP = 256, 1000003


@dataclasses.dataclass
class Case:
    name: str
    base: int
    mult: tuple
    resnets: int
    temporal: tuple
    z: int
    latents: tuple  # F, H, W
    decoder_base: int = None
    dtype: str = "bf16"


COMMITTED = [
    Case("wan", 8, (1, 2, 4, 4), 1, (False, True, True), 16, (3, 4, 6)),
    Case("two", 8, (1, 2, 2), 2, (True, False), 4, (5, 6, 3)),
    Case("image", 16, (1, 1, 2), 1, (False, True), 5, (1, 3, 5), dtype="f16"),
    Case("wide", 16, (2, 1, 1), 1, (True, True), 3, (2, 5, 4), decoder_base=8, dtype="f32"),
]


def deep_cases(count, seed, dtype):
    rng = random.Random(seed)
    for i in range(count):
        levels = rng.choice([2, 3, 4, 4])
        temporal = tuple(rng.random() < 0.6 for _ in range(levels - 1))
        while sum(temporal) > 2:  # diffusers encodes four frames at a time
            temporal = tuple(rng.random() < 0.6 for _ in range(levels - 1))
        frames = 1 + rng.randint(0, 2) * 4 // 2 ** sum(temporal)
        yield Case(f"deep{i}", 2 * rng.randint(2, 12),
                   tuple(rng.randint(1, 4) for _ in range(levels)), rng.randint(1, 3), temporal,
                   rng.randint(1, 20), (frames, rng.randint(1, 7), rng.randint(1, 7)),
                   2 * rng.randint(2, 12), dtype)


def build(case):
    """Weights at a scale that keeps activations near 1; attention far from uniform; pixels that
    need the clamp."""
    vae = AutoencoderKLWan(base_dim=case.base, decoder_base_dim=case.decoder_base, z_dim=case.z,
                           dim_mult=list(case.mult), num_res_blocks=case.resnets,
                           temperal_downsample=list(case.temporal),
                           latents_mean=[round(x, 4) for x in torch.randn(case.z).tolist()],
                           latents_std=[round(x, 4) for x in (1 + torch.rand(case.z)).tolist()])
    with torch.no_grad():
        for name, p in vae.named_parameters():
            if name.endswith("gamma"):
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.2 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * (1.2 / p[0].numel() ** 0.5))
        for side in (vae.encoder, vae.decoder):
            side.mid_block.attentions[0].to_qkv.weight.mul_(2)
    return vae.to(DTYPES[case.dtype]).to(torch.float32).eval()


def channels_last(x):
    return x[0].permute(1, 2, 3, 0).contiguous()


def watch(vae, side):
    """Hooks on what vae/wan_vae.c taps, in the order of first use; chunks are joined in time."""
    seen = {}
    kinds = (reference.WanResidualBlock, reference.WanAttentionBlock, reference.WanResample)

    def hook(name):
        def add(module, args, out):
            seen.setdefault(name, []).append(channels_last(out))
        return add

    handles = []
    for name, module in vae.named_modules():
        ends = (f"{side}.conv_in", f"{side}.conv_out",
                "quant_conv" if side == "encoder" else "post_quant_conv")
        if name in ends or (name.startswith(side + ".") and isinstance(module, kinds)):
            handles.append(module.register_forward_hook(hook(name)))
    return seen, handles


def sample(x):
    flat = x.flatten().to(torch.float32)
    index = (torch.arange(SAMPLES) * STEP) % flat.numel()
    norm = flat.double().norm().float().reshape(1)
    return torch.cat([flat[index], norm])


@torch.no_grad()
def run(vae, case):
    statistics = [torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean,
                                                                 vae.config.latents_std)]
    mean, std = statistics
    out = {}
    latents = torch.randn(1, case.z, *case.latents)
    seen, handles = watch(vae, "decoder")
    frames = vae.decode(latents * std + mean).sample
    for h in handles:
        h.remove()
    for name, parts in seen.items():
        out["decode/" + name] = sample(torch.cat(parts))
    out["decode/frames"] = sample(channels_last(frames))
    # smooth and noisy parts; any size that the decoder gives is one that the encoder takes
    small = torch.randn(1, 3, *(max(1, n // 4) for n in frames.shape[2:]))
    video = torch.nn.functional.interpolate(small, frames.shape[2:], mode="trilinear")
    video = (0.6 * video + 0.1 * torch.randn_like(video)).clamp(-1, 1)
    seen, handles = watch(vae, "encoder")
    moments = vae.encode(video).latent_dist
    for h in handles:
        h.remove()
    for name, parts in seen.items():
        out["encode/" + name] = sample(torch.cat(parts))
    out["encode/latents"] = sample(channels_last((moments.mode() - mean) / std))
    out["latents"] = latents[0].contiguous()
    out["video"] = channels_last(video)
    return out


def write(case, out, seed):
    torch.manual_seed(seed)
    vae = build(case)
    tensors = run(vae, case)
    folder = out / f"vae_{case.name}"
    folder.mkdir(parents=True, exist_ok=True)
    vae.to(DTYPES[case.dtype]).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__,
                "transformers": transformers.__version__, "case": repr(case), "seed": str(seed)}
    save_file(tensors, folder / "golden.safetensors", metadata=versions)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{folder.name}: {len(tensors)} tensors, {size / 1e6:.2f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--deep", type=int, default=0)
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = deep_cases(args.deep, args.seed, args.dtype) if args.deep else COMMITTED
    for i, case in enumerate(cases):
        write(case, args.out, args.seed + i)


if __name__ == "__main__":
    main()
