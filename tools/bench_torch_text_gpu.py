#!/usr/bin/env python3
"""Kinora's text encoder beside transformers' on one GPU, in one run: random weights at the dimensions of UMT5-XXL.

usage: bench_torch_text_gpu.py BENCH_PROGRAM OUT.json [--tokens N] [--runs N] [--model FOLDER] [--commit ID]
  BENCH_PROGRAM  the build folder's bench_text_encode, built with CUDA
Adds the record umt5-N to OUT.json (tools/bench_records.py). Both in bf16. --model: a folder with this encoder, written
if it is not there, and kept.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import torch
import transformers
from safetensors.torch import save_file
from transformers import UMT5Config, UMT5EncoderModel

from bench_records import Records, cuda_times, spread, take_turn

XXL = dict(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
           relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6,
           feed_forward_proj="gated-gelu", is_gated_act=True, dense_act_fn="gelu_new")


def random_model():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**XXL))
    torch.set_default_dtype(torch.float32)
    model.to_empty(device="cuda").eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.02) if p.dim() > 1 else p.fill_(1)
    return model


def save_model(model, folder):
    weights = {k: v.cpu() for k, v in model.state_dict().items() if k != "encoder.embed_tokens.weight"}
    save_file(weights, folder / "model.safetensors")
    config = dict(model.config.to_dict(), architectures=["UMT5EncoderModel"])
    (folder / "config.json").write_text(json.dumps(config, default=str))


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("out")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--model")
    parser.add_argument("--commit", default="")
    args = parser.parse_args()
    take_turn()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        folder = pathlib.Path(args.model or tmp)
        model = random_model()
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            save_model(model, folder)
        ids = torch.tensor([[(i * 7919 + 13) % model.config.vocab_size for i in range(args.tokens)]], device="cuda")
        theirs = cuda_times(lambda: model(ids), args.runs)
        bytes = torch.cuda.max_memory_allocated()
        del model
        torch.cuda.empty_cache()
        done = subprocess.run([args.program, folder, str(args.tokens), str(args.runs), "cuda"], capture_output=True,
                              text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        ours = json.loads(done.stdout)
        Records(args.out, args.commit).add(
            f"umt5-{args.tokens}", ours["median_ms"], statistics.median(theirs),
            f"transformers {transformers.__version__}, torch {torch.__version__}, bf16", "ms", spread(ours["ms"]),
            ours_gb=ours["peak_bytes"] / 1e9, peer_gb=bytes / 1e9, load_ms=ours["load_ms"])


if __name__ == "__main__":
    main()
