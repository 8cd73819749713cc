#!/usr/bin/env python3
"""A whole guided render of the shipped model, Kinora against diffusers' WanPipeline, float32 on the CPU.

Same prompt, seed, steps and scheduler on both sides; compares the final latents (relative L2) and the
decoded frames (PSNR over all frames, 8-bit peak). Exits 1 when a bound is missed.

    tools/render_parity.py --kinora build/kinora [--model demo/model] [--device cpu|ref]
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline
from PIL import Image
from safetensors.torch import load_file

LATENT_BOUND = 1e-3  # relative L2 after all guided steps: float32 rounding, amplified by the ODE
FRAME_BOUND_DB = 50.0
# Up to 0.36 diffusers' UniPC has Wan's own sigma grid.
GRID = "diffusers" if tuple(int(x) for x in diffusers.__version__.split(".")[:2]) >= (0, 37) else "wan"


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kinora", required=True)
    p.add_argument("--model", default="demo/model")
    p.add_argument("--prompt", default="a big red striped ball bouncing over grass under a blue sky")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--device", default="cpu")
    return p.parse_args()


def reference(a, defaults):
    # UMT5 and all else in float32.
    pipe = WanPipeline.from_pretrained(a.model, torch_dtype=torch.float32)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config, flow_shift=defaults["shift"])
    pipe.set_progress_bar_config(disable=True)
    common = dict(
        prompt=a.prompt,
        negative_prompt=defaults["negative_prompt"],
        width=defaults["width"],
        height=defaults["height"],
        num_frames=defaults["frames"],
        num_inference_steps=a.steps,
        guidance_scale=defaults["guidance"],
        max_sequence_length=defaults["text_length"],
    )
    with torch.no_grad():
        latents = pipe(generator=torch.Generator("cpu").manual_seed(a.seed), output_type="latent", **common).frames
        frames = pipe(generator=torch.Generator("cpu").manual_seed(a.seed), output_type="np", **common).frames
    return latents[0], frames[0]  # [C,F,H,W] (normalised), [P,H,W,3] in [0,1]


def ours(a, folder):
    latents = folder / "latents.safetensors"
    subprocess.run(
        [a.kinora, "render", "--model", a.model, "--prompt", a.prompt, "--seed", str(a.seed), "--steps", str(a.steps),
         "--device", a.device, "--grid", GRID, "--latents-out", str(latents), "--frames-dir", str(folder / "frames"),
         "--frames-depth", "16", "--output", str(folder / "out.mp4"), "--progress", "none"],
        check=True,
    )
    files = sorted((folder / "frames").glob("*.png"))
    return load_file(latents)["latents"], files


def read_png16(path):
    # Pillow reduces 16-bit RGB to 8: decode through libav's own tool instead.
    width, height = Image.open(path).size
    raw = subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb48le", "-"],
                         check=True, capture_output=True).stdout
    return np.frombuffer(raw, "<u2").reshape(height, width, 3) / 65535.0


def main():
    a = arguments()
    defaults = json.loads((Path(a.model) / "kinora.json").read_text())
    want_latents, want_frames = reference(a, defaults)
    with tempfile.TemporaryDirectory() as t:
        got_latents, files = ours(a, Path(t))
        got_frames = np.stack([read_png16(f) for f in files])
    error = (torch.linalg.vector_norm(got_latents - want_latents) / torch.linalg.vector_norm(want_latents)).item()
    mse = float(np.mean((got_frames - want_frames.clip(0, 1)) ** 2))
    psnr = 10 * np.log10(1 / mse) if mse else float("inf")
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, device {a.device}, grid {GRID}, {a.steps} steps, seed {a.seed}")
    print(f"final latents: relative L2 {error:.3e} (bound {LATENT_BOUND:g})")
    print(f"frames: PSNR {psnr:.1f} dB (bound {FRAME_BOUND_DB:g})")
    return 0 if error <= LATENT_BOUND and psnr >= FRAME_BOUND_DB else 1


if __name__ == "__main__":
    sys.exit(main())
