#!/usr/bin/env python3
"""A whole high-resolution render on a GPU, timed in its parts: random weights at the dimensions of Wan 2.1 1.3B.

usage: bench_render_gpu.py KINORA TOKENIZER_FOLDER OUT.json TIME_OUT.json [--commit ID] [--keep FOLDER] [--make]
                           [--short] [--suffix NAME] [-- OPTION...]
  KINORA     the program, built with CUDA; its `bench` command runs the render
  TOKENIZER  a tokenizer/ folder whose vocabulary is at most UMT5's, such as demo/model/tokenizer
  OPTIONs    of kinora, after the preset 480p-to-1080p with the second branch every 5th step
Text encoder UMT5-XXL, 832x480 base pass of 50 guided steps, 1920x1080 refine stage of 35, 81 frames, PNG frames out.
Adds the record memory-1080p-pipeline (GB, beside the 22 that are asked for, with what the planner said) to OUT.json and
render-1080p (seconds, with those of each part) to TIME_OUT.json (tools/bench_records.py). Nobody publishes such a render.
--keep: the model goes there, or is there; --make: no more than that. --short: 5 steps and 5 of 7 of the refine stage, which
take the same memory; the time's record is render-1080p-short. --suffix: NAME at the end of both records' names, for OPTIONs.
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
from bench_records import Records, take_turn

OPTIONS = ["--preset", "480p-to-1080p", "--refresh", "5", "--prompt", "a red ball bouncing over grass", "--seed", "1",
           "--device", "cuda", "--progress", "json"]
INDEX = {"_class_name": "WanPipeline", "_diffusers_version": "0.33.0",
         "scheduler": ["diffusers", "UniPCMultistepScheduler"], "text_encoder": ["transformers", "UMT5EncoderModel"],
         "tokenizer": ["transformers", "T5TokenizerFast"], "transformer": ["diffusers", "WanTransformer3DModel"],
         "vae": ["diffusers", "AutoencoderKLWan"]}
ASKED_GB = 22


def make_model(folder, tokenizer):
    for part in ("text_encoder", "transformer", "vae", "scheduler"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    text = bench_torch_text_gpu.random_model()
    bench_torch_text_gpu.save_model(text, folder / "text_encoder")
    del text
    gc.collect()
    torch.cuda.empty_cache()
    bench_torch_dit_gpu.save_model("1.3B", folder / "transformer")
    torch.manual_seed(0)
    AutoencoderKLWan().to(torch.bfloat16).save_pretrained(folder / "vae")
    shutil.copytree(tokenizer, folder / "tokenizer", dirs_exist_ok=True)
    shutil.copy(pathlib.Path(tokenizer).parent / "scheduler/scheduler_config.json", folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(INDEX))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("kinora")
    p.add_argument("tokenizer")
    p.add_argument("out")
    p.add_argument("time_out")
    p.add_argument("--commit", default="")
    p.add_argument("--keep")
    p.add_argument("--make", action="store_true")
    p.add_argument("--short", action="store_true")
    p.add_argument("--suffix", default="")
    mine, more = (sys.argv[1:] + ["--"])[:(sys.argv[1:] + ["--"]).index("--")], []
    if "--" in sys.argv:
        more = sys.argv[sys.argv.index("--") + 1:]
    args = p.parse_args(mine)
    if not args.make:
        take_turn()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        model = pathlib.Path(args.keep or f"{tmp}/model")
        if not (model / "model_index.json").exists():
            make_model(model, args.tokenizer)
        if args.make:
            return
        torch.cuda.empty_cache()
        steps = ["--steps", "5", "--refine-steps", "7"] if args.short else []
        done = subprocess.run([args.kinora, "bench", "--model", model, *OPTIONS, *steps, "--frames-dir", f"{tmp}/frames",
                               *more],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"kinora bench: exit code {done.returncode}")
        result = [r for r in map(json.loads, done.stdout.splitlines()) if r["event"] == "bench"][0]
        frames = len(list(pathlib.Path(f"{tmp}/frames").iterdir()))
    parts = {k: round(v, 3) for k, v in result["seconds"].items()}
    planned, peak = result["planned_bytes"] / 1e9, result["peak_bytes"] / 1e9
    name = "none: nobody publishes one"
    print(json.dumps(dict(result, frames=frames)))
    names = "render-1080p" + ("-short" if args.short else ""), "memory-1080p-pipeline"
    time_id, memory_id = (n + (f"-{args.suffix}" if args.suffix else "") for n in names)
    phases = {m["phase"]: [round(m[k] / 1e9, 3) for k in ("planned_bytes", "peak_bytes")] for m in result["memory"]}
    Records(args.time_out, args.commit).add(time_id, result["total_sec"], None, name, "s", seconds=parts)
    Records(args.out, args.commit).add(memory_id, peak, ASKED_GB, "asked for", "GB", planned_gb=round(planned, 4),
                                       planned_and_taken_gb=phases)


if __name__ == "__main__":
    main()
