#!/usr/bin/env python3
"""Golden data for tests/golden/text_umt5.c: transformers' UMT5EncoderModel at small dimensions.

    golden_text.py OUT_DIR                      the committed configurations
    golden_text.py OUT_DIR --name N --dims d_model,d_kv,heads,d_ff,layers,vocab
                   [--buckets 32,128] [--tokens 13] [--max-len 16] [--seed 0] [--dtype f32|bf16]

Each configuration N gives
    OUT_DIR/umt5_N/config.json, model.safetensors     as save_pretrained writes them
    OUT_DIR/umt5_N/taps.safetensors
        ids int32 [count]; embedding, block.<i>.attn, block.<i>.out, final f32 [count, d];
        padded f32 [max_len, d]: the encoder run on padded ids with its mask, rows past count
        set to zero, as diffusers' WanPipeline hands them on
and the committed set also OUT_DIR/umt5_buckets.safetensors: for several bucket counts B and maximal
distances M, B_M int32 [2 * 1100 + 1], the bucket of each distance from -1100 to 1100.
The network computes in float32; --dtype is what its weights are rounded to and stored as.
"""
import argparse
import os

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import UMT5Config, UMT5EncoderModel
from transformers.models.umt5.modeling_umt5 import UMT5Attention

COMMITTED = [
    dict(name="plain", dims=[32, 8, 4, 48, 2, 100], buckets=[32, 128], tokens=13, max_len=16, seed=0, dtype="f32"),
    dict(name="bf16", dims=[24, 16, 3, 40, 3, 90], buckets=[8, 20], tokens=37, max_len=40, seed=1, dtype="bf16"),
    dict(name="long", dims=[16, 4, 2, 24, 1, 64], buckets=[32, 128], tokens=512, max_len=512, seed=2, dtype="f32"),
]
BUCKETS = [(32, 128), (8, 20), (16, 64), (64, 256), (32, 100), (4, 16), (64, 4096), (32, 1000)]


def config(dims, buckets):
    d_model, d_kv, heads, d_ff, layers, vocab = dims
    return UMT5Config(vocab_size=vocab, d_model=d_model, d_kv=d_kv, d_ff=d_ff, num_layers=layers,
                      num_heads=heads, relative_attention_num_buckets=buckets[0],
                      relative_attention_max_distance=buckets[1], feed_forward_proj="gated-gelu")


def make(out_dir, name, dims, buckets, tokens, max_len, seed, dtype):
    torch.manual_seed(seed)
    model = UMT5EncoderModel(config(dims, buckets)).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "layer_norm" in key:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            if "relative_attention_bias" in key:
                p.copy_(torch.randn_like(p))
    stored = torch.bfloat16 if dtype == "bf16" else torch.float32
    folder = os.path.join(out_dir, "umt5_" + name)
    model.to(stored).save_pretrained(folder)
    model = model.float()

    ids = torch.randint(2, dims[5], (1, max_len))
    ids[0, tokens - 1] = 1
    ids[0, tokens:] = 0
    mask = (torch.arange(max_len)[None] < tokens).long()
    taps = {"ids": ids[0, :tokens].int()}

    def keep(tap):
        def hook(module, args, output):
            taps[tap] = (output[0] if isinstance(output, tuple) else output)[0, :tokens].clone()
        return hook

    encoder = model.encoder
    encoder.embed_tokens.register_forward_hook(keep("embedding"))
    encoder.final_layer_norm.register_forward_hook(keep("final"))
    for i, block in enumerate(encoder.block):
        block.layer[0].register_forward_hook(keep(f"block.{i}.attn"))
        block.layer[1].register_forward_hook(keep(f"block.{i}.out"))
    with torch.no_grad():
        padded = model(input_ids=ids, attention_mask=mask).last_hidden_state[0]
    padded = padded * mask[0][:, None]
    taps["padded"] = padded
    meta = dict(torch=torch.__version__, transformers=transformers.__version__, seed=str(seed),
                dtype=dtype)
    save_file({k: v.contiguous() for k, v in taps.items()}, os.path.join(folder, "taps.safetensors"),
              metadata=meta)
    for f in os.listdir(folder):
        os.chmod(os.path.join(folder, f), 0o644)
    weights = load_file(os.path.join(folder, "model.safetensors"))
    assert "shared.weight" in weights and all(v.dtype == stored for v in weights.values())


def make_buckets(out_dir):
    distance = torch.arange(-1100, 1101)
    tables = {}
    for count, far in BUCKETS:
        attention = UMT5Attention(config([8, 4, 2, 8, 1, 8], [count, far]))
        tables[f"{count}_{far}"] = attention._relative_position_bucket(distance).int()
    path = os.path.join(out_dir, "umt5_buckets.safetensors")
    save_file(tables, path, metadata=dict(torch=torch.__version__, transformers=transformers.__version__))
    os.chmod(path, 0o644)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("out_dir")
    ap.add_argument("--name")
    ap.add_argument("--dims")
    ap.add_argument("--buckets", default="32,128")
    ap.add_argument("--tokens", type=int, default=13)
    ap.add_argument("--max-len", type=int, default=16)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    args = ap.parse_args()
    os.makedirs(args.out_dir, exist_ok=True)
    if args.name:
        make(args.out_dir, args.name, [int(v) for v in args.dims.split(",")],
             [int(v) for v in args.buckets.split(",")], args.tokens, args.max_len, args.seed, args.dtype)
        return
    for one in COMMITTED:
        make(args.out_dir, **one)
    make_buckets(args.out_dir)


if __name__ == "__main__":
    main()
