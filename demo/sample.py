"""Sampling and training-free refinement with the torch modules (CPU or GPU).

    python sample.py MODEL_FOLDER OUT.png "a red ball" ["another prompt" ...]
    python sample.py MODEL_FOLDER OUT.png --refine "a red ball"

Native clips are made as Wan makes them: Euler steps on the shifted schedule with
classifier-free guidance.  --refine then doubles the size twice: enlarge, encode,
add noise up to a middle sigma, and denoise with every token attending only to a
window as large as the native picture.
"""
import os
import sys

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import data                                                           # noqa: E402
import wan_torch                                                      # noqa: E402
from tokenizer import Tokenizer                                       # noqa: E402

LATENT = (16, 5, 12, 20)


def sigma_schedule(steps, shift=3.0):
    u = torch.linspace(1, 0, steps + 1)
    return (shift * u / (1 + (shift - 1) * u)).tolist()


def window_mask(time, rows, cols, half_rows=3, half_cols=5):
    """Additive [n,n] mask: each token sees a window clamped into the grid, in all frames."""
    def axis(count, half):
        index = torch.arange(count)
        low = (index - half).clamp(0, max(count - (2 * half + 1), 0))[:, None]
        return (index[None] >= low) & (index[None] <= low + 2 * half)
    seen = axis(rows, half_rows)[:, None, :, None] & axis(cols, half_cols)[None, :, None, :]
    seen = seen.reshape(rows * cols, rows * cols).repeat(time, time)
    return torch.zeros(seen.shape).masked_fill(~seen, -1e9)


class Demo:
    """The three networks, the tokenizer and the latent statistics."""

    def __init__(self, vae, dit, text_encoder, tokenizer, mean, std, dtype=torch.float32):
        self.vae, self.dit, self.text_encoder = vae, dit, text_encoder
        self.tokenizer, self.dtype = tokenizer, dtype
        self.device = next(dit.parameters()).device
        self.mean = mean.to(self.device).view(1, -1, 1, 1, 1)
        self.std = std.to(self.device).view(1, -1, 1, 1, 1)

    @classmethod
    def load(cls, folder):
        import json
        from safetensors.torch import load_file

        def weights(part, name):
            table = load_file(os.path.join(folder, part, name))
            return {k: v.float() for k, v in table.items()}

        with open(os.path.join(folder, "vae", "config.json")) as text:
            config = json.load(text)
        vae = wan_torch.VAE(**wan_torch.VAE_CONFIG)
        vae.load_state_dict(weights("vae", "diffusion_pytorch_model.safetensors"))
        dit = wan_torch.DiT(**wan_torch.DIT_CONFIG)
        dit.load_state_dict(weights("transformer", "diffusion_pytorch_model.safetensors"))
        text_encoder = wan_torch.UMT5(**wan_torch.TEXT_CONFIG)
        text_encoder.load_state_dict(weights("text_encoder", "model.safetensors"))
        return cls(vae, dit, text_encoder,
                   Tokenizer(os.path.join(folder, "tokenizer", "spiece.model")),
                   torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"]))

    @torch.no_grad()
    def denoise(self, prompts, x, sigmas, guidance, mask=None):
        ids = torch.from_numpy(self.tokenizer(list(prompts) + [""])).to(self.device)
        text = self.text_encoder(ids)
        prompt_text, empty_text = text[:-1], text[-1:].expand(len(prompts), -1, -1)
        for sigma, following in zip(sigmas[:-1], sigmas[1:]):
            time = torch.full((len(prompts),), sigma * 1000, device=self.device)
            asked = self.dit(x, time, prompt_text, mask, dtype=self.dtype).float()
            free = self.dit(x, time, empty_text, mask, dtype=self.dtype).float()
            x = x + (following - sigma) * (free + guidance * (asked - free))
        return x

    def native(self, prompts, seed=0, steps=20, guidance=3.0, shift=3.0):
        """-> normalised latents"""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.stack([torch.randn(LATENT, generator=generator) for _ in prompts])
        return self.denoise(prompts, noise.to(self.device), sigma_schedule(steps, shift), guidance)

    @torch.no_grad()
    def decode(self, latents):
        """-> video [B,3,T,H,W] in [0,1]"""
        clips = self.vae.decode((latents * self.std + self.mean).to(self.dtype)).float()
        return (clips.clamp(-1, 1) + 1) / 2

    @torch.no_grad()
    def encode(self, videos):
        mean, _ = self.vae.encode((videos * 2 - 1).to(self.dtype))
        return (mean.float() - self.mean) / self.std

    def refine(self, prompts, videos, strength, seed=1, steps=20, guidance=2.0, shift=3.0,
               window=True):
        """Twice the size: videos [B,3,T,H,W] -> [B,3,T,2H,2W]"""
        frames = wan_torch.frames_from_clips(videos)
        frames = F.interpolate(frames, scale_factor=2, mode="bilinear", align_corners=False)
        latents = self.encode(wan_torch.clips_from_frames(frames, videos.shape[2]))
        sigmas = sigma_schedule(steps, shift)[steps - int(steps * strength):]
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        mask = None
        if window:
            time, height, width = latents.shape[2:]
            mask = window_mask(time, height // 2, width // 2).to(self.device, self.dtype)
        x = (1 - sigmas[0]) * latents + sigmas[0] * noise
        return self.decode(self.denoise(prompts, x, sigmas, guidance, mask))


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--refine"]
    demo, prompts = Demo.load(arguments[0]), arguments[2:]
    videos = demo.decode(demo.native(prompts))
    if "--refine" in sys.argv:
        double = demo.refine(prompts, videos, strength=.5)
        quad = demo.refine(prompts, double, strength=.4)
        rows = [F.interpolate(wan_torch.frames_from_clips(v), size=quad.shape[3:],
                              mode="bilinear") for v in (videos, double, quad)]
        videos = [clip for row in rows for clip in wan_torch.clips_from_frames(row, 17)]
    data.save_sheet(list(videos), arguments[1])
