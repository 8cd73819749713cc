#!/usr/bin/env python3
"""Golden data for dit/: tiny WanTransformer3DModel networks with their intermediate tensors.

Each case is a folder OUT/dit_NAME with the checkpoint (config.json and weights under diffusers'
names, or one Comfy-style file under Wan's own names) and golden.safetensors: inputs, and as "tap/..."
every intermediate that dit/dit.h names. The network runs in float32 with the weights as stored.

usage: golden_dit.py OUT [--seed N] [--deep N] [--dtype f32|bf16|f16]
  --deep N  N random cases instead of the committed ones
"""
import argparse
import dataclasses
import json
import math
import pathlib
import random

import diffusers
import torch
import transformers
from diffusers import WanTransformer3DModel
from diffusers.models.transformers import transformer_wan
from safetensors.torch import save_file

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
# Comfy-Org repacks keep Wan's own names behind this prefix
PREFIX = "model.diffusion_model."
ORIGINAL = (("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
            ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
            ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
            ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
            ("condition_embedder.time_proj", "time_projection.1"),
            ("attn1.to_out.0", "self_attn.o"), ("attn2.to_out.0", "cross_attn.o"),
            ("attn1.to_", "self_attn."), ("attn2.to_", "cross_attn."),
            ("attn1.norm_", "self_attn.norm_"), ("attn2.norm_", "cross_attn.norm_"),
            (".norm2.", ".norm3."), ("ffn.net.0.proj", "ffn.0"), ("ffn.net.2", "ffn.2"),
            ("proj_out", "head.head"))


@dataclasses.dataclass
class Case:
    name: str
    heads: int
    head_dim: int
    layers: int
    ffn: int
    channels: tuple  # in, out
    latents: tuple  # F, H, W
    text: tuple  # tokens, width
    freq: int = 64
    cross_norm: bool = True
    dtype: str = "f32"
    original: bool = False
    permuted: bool = False
    scaled: bool = False  # softmax scale of FreeSwim instead of 1/sqrt(D)
    timestep: float = 875.0
    patch: tuple = (1, 2, 2)


COMMITTED = [
    Case("image64", 1, 64, 2, 101, (4, 4), (1, 6, 10), (7, 24), dtype="bf16", timestep=999),
    Case("clip128", 1, 128, 1, 70, (3, 3), (3, 4, 6), (32, 20), dtype="bf16", original=True,
         timestep=421),
    Case("two32", 2, 32, 1, 96, (5, 3), (5, 4, 4), (7, 16), cross_norm=False, permuted=True,
         scaled=True, timestep=13.625),
]


def deep_cases(count, seed, dtype):
    rng = random.Random(seed)
    for i in range(count):
        patch = rng.choice([(1, 2, 2), (1, 2, 2), (2, 2, 4), (1, 1, 1)])
        original = patch == (1, 2, 2) and rng.random() < 0.3
        yield Case(f"deep{i}", rng.randint(1, 4), 128 if original else rng.choice([16, 48, 64, 96, 128]),
                   rng.randint(1, 3), rng.randint(1, 300), (rng.randint(1, 36), rng.randint(1, 20)),
                   tuple(p * rng.randint(1, m) for p, m in zip(patch, (5, 7, 9))),
                   (rng.randint(1, 77), rng.randint(1, 100)), 2 * rng.randint(1, 150),
                   original or rng.random() < 0.7, dtype, original, rng.random() < 0.5,
                   rng.random() < 0.3, rng.choice([0.0, rng.uniform(0, 1000), rng.randint(0, 999)]),
                   patch)


def build(case):
    model = WanTransformer3DModel(
        patch_size=case.patch, num_attention_heads=case.heads, attention_head_dim=case.head_dim,
        in_channels=case.channels[0], out_channels=case.channels[1], text_dim=case.text[1],
        freq_dim=case.freq, ffn_dim=case.ffn, num_layers=case.layers,
        cross_attn_norm=case.cross_norm, qk_norm="rms_norm_across_heads").eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif name.endswith("bias") or "scale_shift_table" in name:
                p.copy_(0.3 * torch.randn_like(p))
            p.copy_(p.to(DTYPES[case.dtype]).float())  # what the file will hold
    return model


def record(model, case, embeds, latents, timestep):
    """Forward with every intermediate kept under the names of dit/dit.h."""
    taps = {}
    block = [0]

    def keep(name, value):
        taps["tap/" + name] = value.detach().squeeze(0).contiguous().clone()

    def hook(module, name, pick=lambda out: out):
        return module.register_forward_hook(lambda m, i, out: keep(name, pick(out)))

    hook(model.patch_embedding, "patch_embed", lambda o: o.flatten(2).transpose(1, 2))
    model.condition_embedder.register_forward_hook(
        lambda m, i, out: (keep("temb", out[0].unsqueeze(0)),
                           keep("timestep_proj", out[1].unflatten(1, (6, -1))), keep("text", out[2]))
        and None)
    for n, b in enumerate(model.blocks):
        b.register_forward_pre_hook(lambda m, i, n=n: block.__setitem__(0, n))
        hook(b.attn1, f"blocks.{n}.attn1")
        hook(b.attn2, f"blocks.{n}.attn2")
        hook(b.ffn, f"blocks.{n}.ffn")
        hook(b, f"blocks.{n}.out")
    model.proj_out.register_forward_pre_hook(lambda m, i: keep("norm_out", i[0]))
    model.register_forward_hook(lambda m, i, out: keep("output", out[0]))

    plain = transformer_wan.dispatch_attention_fn

    def attention(query, key, value, **kw):
        name = f"blocks.{block[0]}.attn1"
        if f"tap/{name}.q" not in taps:
            keep(name + ".q", query.flatten(2))
            keep(name + ".k", key.flatten(2))
            if case.scaled:
                query = query * (softmax_scale(case) * math.sqrt(case.head_dim))
        return plain(query, key, value, **kw)

    transformer_wan.dispatch_attention_fn = attention
    with torch.no_grad():
        model(hidden_states=latents[None], timestep=timestep, encoder_hidden_states=embeds[None],
              return_dict=False)
    transformer_wan.dispatch_attention_fn = plain
    return taps


def softmax_scale(case):
    # FreeSwim nocache/attention_processor_.py
    return math.sqrt(math.log(3120, 1560) / case.head_dim) if case.scaled else 0.0


def original_name(name):
    if name == "scale_shift_table":
        return "head.modulation"
    for a, b in ORIGINAL:
        name = name.replace(a, b)
    return name.replace("scale_shift_table", "modulation")


def write(case, out, meta):
    folder = out / f"dit_{case.name}"
    folder.mkdir(parents=True, exist_ok=True)
    model = build(case)
    state = {k: v.detach().to(DTYPES[case.dtype]).contiguous() for k, v in model.state_dict().items()}
    if case.original:
        state = {PREFIX + original_name(k): v for k, v in state.items()}
    else:
        config = dict(model.config)
        config["_class_name"] = "WanTransformer3DModel"
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata=meta)

    embeds = torch.randn(case.text)
    embeds[max(1, case.text[0] * 2 // 3):] = 0  # the pad rows of a prompt
    latents = torch.randn(case.channels[0], *case.latents)
    timestep = torch.tensor([float(case.timestep)])
    data = {"embeds": embeds, "latents": latents, "timestep": timestep,
            "softmax_scale": torch.tensor([softmax_scale(case)])}
    if case.permuted:
        tokens = math.prod(n // p for n, p in zip(case.latents, case.patch))
        data["order"] = torch.randperm(tokens).to(torch.int32)
    data.update(record(model, case, embeds, latents, timestep))
    save_file(data, folder / "golden.safetensors", metadata=meta)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--deep", type=int, default=0, help="number of random cases")
    p.add_argument("--dtype", choices=DTYPES, default="f32", help="stored weights of random cases")
    args = p.parse_args()
    torch.manual_seed(args.seed)
    meta = {"torch": torch.__version__, "diffusers": diffusers.__version__,
            "transformers": transformers.__version__, "source": "tools/golden_dit.py"}
    for case in deep_cases(args.deep, args.seed, args.dtype) if args.deep else COMMITTED:
        write(case, args.out, meta)


if __name__ == "__main__":
    main()
