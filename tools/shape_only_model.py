#!/usr/bin/env python3
"""A Wan 2.1 model folder with every tensor's name, type and shape, and zeros for weights (sparse files: no disk).

For `kinora plan` on machines without the weights: planning reads headers only.

    python tools/shape_only_model.py FOLDER 1.3b|14b      (needs torch, diffusers, transformers)
    kinora plan --model FOLDER --device cuda --memory 24 --prompt x --output x.mp4 --preset wan-480p

Widths: Wan2.1 wan/configs/wan_t2v_1_3B.py, wan_t2v_14B.py; the tokenizer is that of the shipped model, whose
pieces are fewer than the encoder's vocabulary."""

import json
import os
import shutil
import struct
import sys

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

SIZES = {
    "1.3b": dict(num_attention_heads=12, num_layers=30, ffn_dim=8960),
    "14b": dict(num_attention_heads=40, num_layers=40, ffn_dim=13824),
}


def write(folder, file, module, config):
    os.makedirs(folder, exist_ok=True)
    header, at = {}, 0
    for name, tensor in module.state_dict().items():
        if name == "encoder.embed_tokens.weight":  # tied to shared.weight, which alone is stored
            continue
        size = 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, file), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
    print(f"{folder}: {len(header)} tensors, {at / 1e9:.1f} GB")


def main():
    folder, size = sys.argv[1], sys.argv[2].lower()
    shipped = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "demo", "model")
    with torch.device("meta"):
        dit, vae = WanTransformer3DModel(**SIZES[size]), AutoencoderKLWan()
        text_config = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=24)
        text = UMT5EncoderModel(text_config)
    write(f"{folder}/transformer", "diffusion_pytorch_model.safetensors", dit, dict(dit.config))
    write(f"{folder}/vae", "diffusion_pytorch_model.safetensors", vae, dict(vae.config))
    write(f"{folder}/text_encoder", "model.safetensors", text, text_config.to_dict())
    shutil.copytree(f"{shipped}/tokenizer", f"{folder}/tokenizer", dirs_exist_ok=True)
    shutil.copytree(f"{shipped}/scheduler", f"{folder}/scheduler", dirs_exist_ok=True)
    shutil.copy(f"{shipped}/model_index.json", folder)


if __name__ == "__main__":
    main()
