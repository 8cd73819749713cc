#!/usr/bin/env python3
"""A refine stage with FreeSwim's dual path, Kinora against PyTorch, float32 on the CPU.

The reference is written for this test on the modules of diffusers' WanTransformer3DModel: two copies of the
stream, one whose self-attention sees a brute-force window mask, one that sees everything; both take the second
one's cross-attention; both use the temperature of the base grid. Base latents come from Kinora; decoding,
enlarging, encoding, noise, schedule, solver and guidance are done on both sides. Compares the final latents
(relative L2). Exits 1 when the bound is missed.

    tools/refine_parity.py --kinora build/kinora [--refresh 1|2|5] [--no-override] [--full-positions fitted] [--scale 2]
"""
import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from safetensors.torch import load_file

BOUND = 1e-3  # relative L2 after all guided steps: float32 rounding, amplified by the ODE


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kinora", required=True)
    p.add_argument("--model", default="demo/model")
    p.add_argument("--prompt", default="a big red striped ball bouncing over grass under a blue sky")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--scale", type=int, default=2)
    p.add_argument("--strength", type=float, default=0.5)
    p.add_argument("--shift", type=float, default=3.0)
    p.add_argument("--guidance", type=float, default=2.0)
    p.add_argument("--refresh", type=int, default=1)
    p.add_argument("--override", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--temperature", default="auto", choices=["auto", "off"])
    p.add_argument("--full-positions", default="own", choices=["own", "fitted"])
    p.add_argument("--device", default="cpu")
    return p.parse_args()


def kinora(a, *more):
    # diffusers changed UniPC's sigmas in 0.37; Kinora's own choice is Wan's, which is the older one
    grid = "diffusers" if tuple(map(int, diffusers.__version__.split(".")[:2])) >= (0, 37) else "wan"
    subprocess.run([a.kinora, "render", "--grid", grid, "--model", a.model, "--prompt", a.prompt, "--seed", str(a.seed), "--steps",
                    str(a.steps), "--device", a.device, "--progress", "none", *map(str, more)], check=True)


def axis_mask(n, base):
    """[n, n]: key k seen by query q. Windows of 2 floor(base / 2) + 1, moved inward at the borders."""
    d = base // 2
    seen = torch.zeros(n, n, dtype=torch.bool)
    for q in range(n):
        inward_low, inward_high = max(0, d - q), max(0, d + q - n + 1)
        for k in range(n):
            seen[q, k] = q - d - inward_high <= k <= q + d + inward_low
    return seen


def window_mask(frames, grid, base):
    h, w = axis_mask(grid[0], base[0]), axis_mask(grid[1], base[1])
    return (h[:, None, :, None] & w[None, :, None, :]).reshape(grid[0] * grid[1], -1).repeat(frames, frames)


def rotate(x, rotary):
    cos, sin = rotary[0][..., 0::2], rotary[1][..., 1::2]
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def attend(attn, x, source, rotary, mask, scale):
    """The attention of a diffusers module up to, and without, its output projection."""
    q = attn.norm_q(attn.to_q(x)).unflatten(2, (attn.heads, -1))
    k = attn.norm_k(attn.to_k(source)).unflatten(2, (attn.heads, -1))
    v = attn.to_v(source).unflatten(2, (attn.heads, -1))
    if rotary is not None:
        q, k = rotate(q, rotary), rotate(k, rotary)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2).flatten(2)


def positions(grid, head_dim, scale, theta=10000.0):
    """Rotary tables as WanRotaryPosEmbed makes them, with each axis's positions times a scale."""
    side = head_dim // 6 * 2
    angles = []
    for axis, (n, dim) in enumerate(zip(grid, (head_dim - 2 * side, side, side))):
        frequency = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        at = torch.arange(n, dtype=torch.float64) * scale[axis]
        shape = [1] * 3 + [dim // 2]
        shape[axis] = n
        angles.append((at[:, None] * frequency).reshape(shape).expand(*grid, -1))
    angles = torch.cat(angles, -1).reshape(1, -1, 1, head_dim // 2).repeat_interleave(2, -1)
    return angles.cos().float(), angles.sin().float()


class DualPath:
    """fitted: scale of the positions (t, h, w) in the full branch, and everywhere if there is no mask; None: 1."""

    def __init__(self, model, mask, scale, fitted=None):
        self.model, self.mask, self.scale, self.fitted = model, mask, scale, fitted

    def __call__(self, latents, timestep, text, contexts):
        """contexts: None = own; "full" = of the full branch, returned too; a list = use these."""
        m, full = self.model, contexts == "full"
        rotary = [m.rope(latents)] * 2
        if self.fitted:
            grid = latents.shape[2], latents.shape[3] // 2, latents.shape[4] // 2
            rotary[1] = positions(grid, m.config.attention_head_dim, self.fitted)
            if self.mask is None:
                rotary[0] = rotary[1]
        x = m.patch_embedding(latents).flatten(2).transpose(1, 2)
        temb, proj, text, _ = m.condition_embedder(timestep, text, None)
        proj = proj.unflatten(1, (6, -1))
        streams, masks, made = [x] + ([x] if full else []), [self.mask, None], []
        for i, b in enumerate(m.blocks):
            s1, c1, g1, s2, c2, g2 = (b.scale_shift_table + proj).chunk(6, dim=1)
            for n, x in enumerate(streams):
                h = b.norm1(x) * (1 + c1) + s1
                streams[n] = x + b.attn1.to_out[0](attend(b.attn1, h, h, rotary[n], masks[n], self.scale)) * g1
            if contexts is None or full:
                context = attend(b.attn2, b.norm2(streams[-1]), text, None, None, None)
            else:
                context = contexts[i]
            made.append(context)
            for n, x in enumerate(streams):
                x = x + b.attn2.to_out[0](context)
                streams[n] = x + b.ffn(b.norm3(x) * (1 + c2) + s2) * g2
        shift, scale = (m.scale_shift_table + temb.unsqueeze(1)).chunk(2, dim=1)
        out = m.proj_out(m.norm_out(streams[0]) * (1 + scale) + shift)
        _, _, t, h, w = latents.shape
        out = out.reshape(1, t, h // 2, w // 2, 1, 2, 2, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return out.flatten(6, 7).flatten(4, 5).flatten(2, 3), made


def enlarge(a, latents):
    vae = AutoencoderKLWan.from_pretrained(a.model, subfolder="vae", torch_dtype=torch.float32)
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    video = vae.decode(latents * std + mean).sample.clamp(-1, 1)[0].transpose(0, 1)
    video = F.interpolate(video, scale_factor=a.scale, mode="bilinear", align_corners=False)
    return (vae.encode(video.transpose(0, 1)[None]).latent_dist.mode() - mean) / std


def reference(a, base, embeds):
    model = WanTransformer3DModel.from_pretrained(a.model, subfolder="transformer", torch_dtype=torch.float32)
    z = enlarge(a, base)
    _, _, frames, rows, columns = z.shape
    grid, small = (rows // 2, columns // 2), (base.shape[3] // 2, base.shape[4] // 2)
    n, head_dim = small[0] * small[1], model.config.attention_head_dim
    scale = math.sqrt(math.log(2 * n, n) / head_dim) if a.temperature == "auto" else 1 / math.sqrt(head_dim)
    fitted = (1, small[0] / grid[0], small[1] / grid[1]) if a.full_positions == "fitted" else None
    dual = DualPath(model, window_mask(frames, grid, small), scale, fitted)

    scheduler = UniPCMultistepScheduler.from_config(
        UniPCMultistepScheduler.load_config(a.model, subfolder="scheduler"), flow_shift=a.shift)
    scheduler.set_timesteps(a.steps)
    begin = a.steps - min(int(a.steps * a.strength), a.steps)
    scheduler.set_begin_index(begin)
    generator = torch.Generator("cpu").manual_seed(a.seed)
    torch.randn(base.shape, generator=generator)  # what the base pass took
    noise = torch.randn(z.shape, generator=generator)
    sigma = scheduler.sigmas[begin].item()
    x = (1 - sigma) * z + sigma * noise
    prompt, negative = embeds["prompt"][None], embeds["negative"][None]
    kept = None
    for i, t in enumerate(scheduler.timesteps[begin:]):
        due, timestep = i % a.refresh == 0, t.expand(1)
        if a.override and due:
            v, kept = dual(x, timestep, prompt, "full")
        else:
            v, _ = dual(x, timestep, prompt, kept)
        u, _ = dual(x, timestep, negative, "full" if a.override and a.refresh == 1 else None)
        x = scheduler.step(u + a.guidance * (v - u), t, x, return_dict=False)[0]
    return x[0], sigma


def main():
    a = arguments()
    with tempfile.TemporaryDirectory() as t, torch.no_grad():
        folder = Path(t)
        kinora(a, "--latents-out", folder / "base.safetensors", "--embeds-out", folder / "embeds.safetensors")
        base = load_file(folder / "base.safetensors")["latents"][None]
        width, height = base.shape[4] * 8 * a.scale, base.shape[3] * 8 * a.scale
        kinora(a, "--latents-in", folder / "base.safetensors", "--embeds-in", folder / "embeds.safetensors",
               "--refine-size", f"{width}x{height}", "--strength", a.strength, "--refine-shift", a.shift,
               "--refine-guidance", a.guidance, "--refresh", a.refresh, "--temperature", a.temperature,
               "--full-positions", a.full_positions,
               "--override" if a.override else "--no-override", "--latents-out", folder / "ours.safetensors")
        got = load_file(folder / "ours.safetensors")["latents"]
        want, sigma = reference(a, base, load_file(folder / "embeds.safetensors"))
    error = (torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want)).item()
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, device {a.device}, {a.scale}x, "
          f"override {a.override}, refresh {a.refresh}, positions {a.full_positions}, from sigma {sigma:.4f}, seed {a.seed}")
    print(f"final latents: relative L2 {error:.3e} (bound {BOUND:g})")
    return 0 if error <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
