#!/usr/bin/env python3
"""A whole high-resolution render on a GPU, timed in its parts: random weights at the dimensions of Wan 2.1 1.3B.

usage: bench_render_gpu.py KINORA TOKENIZER_FOLDER OUT.json TIME_OUT.json [--commit ID] [--keep FOLDER] [-- OPTION...]
  KINORA     the program, built with CUDA; its `bench` command runs the render
  TOKENIZER  a tokenizer/ folder whose vocabulary is at most UMT5's, such as demo/model/tokenizer
  OPTIONs    of kinora, after the preset 480p-to-1080p with the second branch every 5th step
Text encoder UMT5-XXL, 832x480 base pass of 50 guided steps, 1920x1080 refine stage of 35, 81 frames, PNG frames out.
Adds the record memory-1080p-pipeline (GB, beside the 22 that are asked for, with what the planner said) to OUT.json and
render-1080p (seconds, with those of each part) to TIME_OUT.json (tools/bench_records.py). Nobody publishes such a render.
"""
import argparse
import gc
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from diffusers import AutoencoderKLWan

import bench_torch_dit_gpu
import bench_torch_text_gpu
from bench_records import Records

OPTIONS = ["--preset", "480p-to-1080p", "--refresh", "5", "--prompt", "a red ball bouncing over grass", "--seed", "1",
           "--device", "cuda", "--progress", "json", "--checkpoint-every", "0"]
INDEX = {"_class_name": "WanPipeline", "_diffusers_version": "0.33.0",
         "scheduler": ["diffusers", "UniPCMultistepScheduler"], "text_encoder": ["transformers", "UMT5EncoderModel"],
         "tokenizer": ["transformers", "T5TokenizerFast"], "transformer": ["diffusers", "WanTransformer3DModel"],
         "vae": ["diffusers", "AutoencoderKLWan"]}
ASKED_GB = 22


def make_model(folder, tokenizer):
    for part in ("text_encoder", "transformer", "vae", "scheduler"):
        (folder / part).mkdir(parents=True)
    text = bench_torch_text_gpu.random_model()
    bench_torch_text_gpu.save_model(text, folder / "text_encoder")
    del text
    gc.collect()
    torch.cuda.empty_cache()
    bench_torch_dit_gpu.save_model("1.3B", folder / "transformer")
    torch.manual_seed(0)
    AutoencoderKLWan().to(torch.bfloat16).save_pretrained(folder / "vae")
    shutil.copytree(tokenizer, folder / "tokenizer")
    shutil.copy(pathlib.Path(tokenizer).parent / "scheduler/scheduler_config.json", folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(INDEX))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("kinora")
    p.add_argument("tokenizer")
    p.add_argument("out")
    p.add_argument("time_out")
    p.add_argument("--commit", default="")
    p.add_argument("--keep", help="the model goes here and stays; one that is there is used")
    mine, more = (sys.argv[1:] + ["--"])[:(sys.argv[1:] + ["--"]).index("--")], []
    if "--" in sys.argv:
        more = sys.argv[sys.argv.index("--") + 1:]
    args = p.parse_args(mine)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        model = pathlib.Path(args.keep or f"{tmp}/model")
        if not (model / "model_index.json").exists():
            make_model(model, args.tokenizer)
        torch.cuda.empty_cache()
        done = subprocess.run([args.kinora, "bench", "--model", model, *OPTIONS, "--frames-dir", f"{tmp}/frames", *more],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"kinora bench: exit code {done.returncode}")
        result = [r for r in map(json.loads, done.stdout.splitlines()) if r["event"] == "bench"][0]
        frames = len(list(pathlib.Path(f"{tmp}/frames").iterdir()))
    parts = {k: round(v, 3) for k, v in result["seconds"].items()}
    planned, peak = result["planned_bytes"] / 1e9, result["peak_bytes"] / 1e9
    name = "none: nobody publishes one"
    print(json.dumps(dict(result, frames=frames)))
    Records(args.time_out, args.commit).add("render-1080p", result["total_sec"], None, name, "s", seconds=parts)
    Records(args.out, args.commit).add("memory-1080p-pipeline", peak, ASKED_GB, "asked for", "GB",
                                       planned_gb=round(planned, 4))


if __name__ == "__main__":
    main()
