#!/usr/bin/env python3
"""Golden data for a refine stage: the steps of FreeSwim's dual path on a tiny network, float32.

Writes OUT/refine_dual: a WanTransformer3DModel, the latents to start from, embeddings of two prompts, and the
final latents with the second branch at every step for both prompts ("refresh.1") and every second one for the
prompt only ("refresh.2"), as published; with its positions fitted to the base grid ("fitted"); and without it, the
first two steps dense with fitted positions ("dense steps"). Reference: DualPath of refine_parity.py; UniPC of diffusers.

usage: golden_refine.py OUT [--seed N]
"""
import argparse
import json
import math
import pathlib

import diffusers
import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from safetensors.torch import save_file

from refine_parity import DualPath, window_mask

# tests/golden/pipeline_refine.c says the same in options: 64x48 to 112x96, 9 frames
BASE, GRID, FRAMES = (3, 4), (6, 7), 3
STEPS, STRENGTH, SHIFT, GUIDANCE = 6, 0.7, 3.0, 2.0


def build():
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=32, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=64, ffn_dim=96, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads").eval()
    for name, p in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            p.copy_(1 + 0.3 * torch.randn_like(p))
        elif name.endswith("bias") or "scale_shift_table" in name:
            p.copy_(0.3 * torch.randn_like(p))
        elif "attn" in name:
            p.copy_(2 * p)  # scores of some size: the mask and the temperature must matter
        p.copy_(p.bfloat16().float())
    return model


def run(dual, latents, prompt, negative, refresh, first=None):
    """first: stands for dual, without a second branch, in the first two steps; nor has dual one then."""
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT)
    scheduler.set_timesteps(STEPS)
    begin = STEPS - int(STEPS * STRENGTH)
    scheduler.set_begin_index(begin)
    x, kept = latents[None], None
    for i, t in enumerate(scheduler.timesteps[begin:]):
        if first:
            v, u = ((first if i < 2 else dual)(x, t.expand(1), text[None], None)[0] for text in (prompt, negative))
            x = scheduler.step(u + GUIDANCE * (v - u), t, x, return_dict=False)[0]
            continue
        v, made = dual(x, t.expand(1), prompt[None], "full" if i % refresh == 0 else kept)
        kept = made if i % refresh == 0 else kept
        u, _ = dual(x, t.expand(1), negative[None], "full" if refresh == 1 else None)
        x = scheduler.step(u + GUIDANCE * (v - u), t, x, return_dict=False)[0]
    return x[0], scheduler.sigmas[begin:]


@torch.no_grad()
def main():
    p = argparse.ArgumentParser()
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    model = build()
    folder = a.out / "refine_dual"
    folder.mkdir(parents=True, exist_ok=True)
    meta = {"torch": torch.__version__, "diffusers": diffusers.__version__, "source": "tools/golden_refine.py"}
    config = dict(model.config)
    config["_class_name"] = "WanTransformer3DModel"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({k: v.bfloat16().contiguous() for k, v in model.state_dict().items()},
              folder / "diffusion_pytorch_model.safetensors", metadata=meta)

    n = BASE[0] * BASE[1]
    dual = DualPath(model, window_mask(FRAMES, GRID, BASE), math.sqrt(math.log(2 * n, n) / 32))
    data = {"latents": torch.randn(4, FRAMES, 2 * GRID[0], 2 * GRID[1]), "prompt": torch.randn(7, 16),
            "negative": torch.randn(7, 16)}
    data["negative"][4:] = 0
    for refresh in 1, 2:
        data[f"refresh.{refresh}"], data["sigmas"] = run(dual, data["latents"], data["prompt"], data["negative"], refresh)
    fitted = (1, BASE[0] / GRID[0], BASE[1] / GRID[1])
    other = DualPath(model, dual.mask, dual.scale, fitted), DualPath(model, None, dual.scale, fitted)
    data["fitted"], _ = run(other[0], data["latents"], data["prompt"], data["negative"], 1)
    data["dense steps"], _ = run(dual, data["latents"], data["prompt"], data["negative"], 1, other[1])
    # what each part of the method changes: a test that missed one would be off by this much
    norm = torch.linalg.vector_norm(data["refresh.1"])
    for name, other in (("no mask", DualPath(model, None, dual.scale)), ("no temperature", DualPath(model, dual.mask, 32**-0.5))):
        x, _ = run(other, data["latents"], data["prompt"], data["negative"], 1)
        print(f"{name}: {(torch.linalg.vector_norm(x - data['refresh.1']) / norm).item():.2e}")
    own, _ = run(dual, data["latents"], data["prompt"], data["negative"], 1, DualPath(model, None, dual.scale))
    print(f"fitted: {(torch.linalg.vector_norm(data['fitted'] - data['refresh.1']) / norm).item():.2e}, in dense steps "
          f"{(torch.linalg.vector_norm(data['dense steps'] - own) / norm).item():.2e}")
    print(f"refresh 2: {(torch.linalg.vector_norm(data['refresh.2'] - data['refresh.1']) / norm).item():.2e}")
    save_file({k: v.contiguous() for k, v in data.items()}, folder / "golden.safetensors", metadata=meta)


if __name__ == "__main__":
    main()
