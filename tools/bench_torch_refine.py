#!/usr/bin/env python3
"""One guided refine step at 1080p as the published code does it, as the peer of bench_dit_refine.

    tools/bench_torch_refine.py --make FOLDER     write a 1.3B transformer with random weights there
    tools/bench_torch_refine.py [--layers 3]      time the peer; prints one JSON object. --rounds 0: only
                                                  compiles it, of which PyTorch keeps the kernels
    tools/bench_torch_refine.py --program BENCH_DIT_REFINE --out RECORDS.json [--runs 5] [--commit ID]
                                [--model FOLDER]  time both and add the records refine-step-1080p and
                                                  refine-step-1080p-int8 (8-bit attention); a 1.3B
                                                  transformer is made unless there is one in FOLDER

The peer is Wan 2.1's transformer block (1.3B: width 1536, 12 heads, feed-forward 8960) in PyTorch,
eager, bf16 with norms in float32, tokens in raster order, with FreeSwim's dual path: window branch by
compiled FlexAttention, full branch by scaled_dot_product_attention. Blocks are all alike, so `layers`
of the 30 are run and the times multiplied by 30 / layers; embeddings and the head, below 1%, are left
out in the peer's favour. Evaluations:
    reuse    prompt, window, cross-attention taken from the stored full branch
    refresh  prompt, window and full branch together
    negative window, own cross-attention
A step with a refresh at every 5th: (4 reuse + refresh) / 5 + negative.
The records also hold what the step takes as published: FreeSwim's program, timed once on an H200.
"""
import argparse
import json
import pathlib
import statistics
import struct
import subprocess
import tempfile

import torch
import torch.nn.functional as F

PUBLISHED_S = {"reuse": 17.8, "refresh": 27.0, "negative": 17.9}  # evaluations of FreeSwim's program, H200
WIDTH, HEADS, FFN, LAYERS, TEXT_DIM, TEXT = 1536, 12, 8960, 30, 4096, 512


def tensors():
    """Names and shapes of diffusers' WanTransformer3DModel, 1.3B."""
    d = WIDTH

    def linear(name, n, k):
        yield name + ".weight", (n, k)
        yield name + ".bias", (n,)

    yield "patch_embedding.weight", (d, 16, 1, 2, 2)
    yield "patch_embedding.bias", (d,)
    for name, n, k in (("text_embedder.linear_1", d, TEXT_DIM), ("text_embedder.linear_2", d, d),
                       ("time_embedder.linear_1", d, 256), ("time_embedder.linear_2", d, d),
                       ("time_proj", 6 * d, d)):
        yield from linear("condition_embedder." + name, n, k)
    yield from linear("proj_out", 64, d)
    yield "scale_shift_table", (1, 2, d)
    for i in range(LAYERS):
        b = f"blocks.{i}."
        yield b + "scale_shift_table", (1, 6, d)
        for a in ("attn1", "attn2"):
            for x in ("to_q", "to_k", "to_v", "to_out.0"):
                yield from linear(f"{b}{a}.{x}", d, d)
            yield f"{b}{a}.norm_q.weight", (d,)
            yield f"{b}{a}.norm_k.weight", (d,)
        yield from linear(b + "ffn.net.0.proj", FFN, d)
        yield from linear(b + "ffn.net.2", d, FFN)
        yield b + "norm2.weight", (d,)
        yield b + "norm2.bias", (d,)


def make(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": "WanTransformer3DModel", "attention_head_dim": WIDTH // HEADS,
              "cross_attn_norm": True, "eps": 1e-6, "ffn_dim": FFN, "freq_dim": 256,
              "in_channels": 16, "num_attention_heads": HEADS, "num_layers": LAYERS,
              "out_channels": 16, "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads",
              "rope_max_seq_len": 1024, "text_dim": TEXT_DIM, "added_kv_proj_dim": None}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    header, at = {}, 0
    for name, shape in tensors():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with open(folder / "diffusion_pytorch_model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors():
            if "norm" in name and name.endswith("weight"):
                x = torch.ones(shape)
            else:
                fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 and "table" not in name else 2500
                x = torch.randn(shape, device=device) * fan_in ** -0.5
            f.write(x.to(torch.bfloat16).cpu().view(torch.int16).numpy().tobytes())


class Block:
    def __init__(self):
        def w(n, k):
            return (torch.randn(n, k, device="cuda") * k ** -0.5).bfloat16(), torch.zeros(
                n, device="cuda", dtype=torch.bfloat16)

        self.q, self.k, self.v, self.o = (w(WIDTH, WIDTH) for _ in range(4))
        self.cq, self.ck, self.cv, self.co = (w(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = w(FFN, WIDTH), w(WIDTH, FFN)
        self.one = torch.ones(WIDTH, device="cuda", dtype=torch.bfloat16)
        self.e = torch.randn(6, WIDTH, device="cuda") * 0.02

    def heads(self, x):
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def norm(self, x, shift, scale):
        return (F.layer_norm(x.float(), (WIDTH,), eps=1e-6) * (1 + scale) + shift).bfloat16()

    def run(self, x, text, rope, attend, stored=None):
        e, rms = self.e, lambda t: F.rms_norm(t, (WIDTH,), self.one, 1e-6)
        n = self.norm(x, e[0], e[1])
        q, k, v = (self.heads(t) for t in (rms(F.linear(n, *self.q)), rms(F.linear(n, *self.k)),
                                           F.linear(n, *self.v)))
        a = attend(turn(q, rope), turn(k, rope), v).transpose(1, 2).flatten(2)
        x = (x.float() + F.linear(a, *self.o) * e[2]).bfloat16()
        if stored is None:
            n = F.layer_norm(x.float(), (WIDTH,), eps=1e-6).bfloat16()
            q, k, v = (self.heads(t) for t in (rms(F.linear(n, *self.cq)),
                                               rms(F.linear(text, *self.ck)),
                                               F.linear(text, *self.cv)))
            stored = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + F.linear(stored, *self.co)
        n = self.norm(x, e[3], e[4])
        y = F.linear(F.gelu(F.linear(n, *self.up), approximate="tanh"), *self.down)
        return (x.float() + y.float() * e[5]).bfloat16(), stored


def turn(x, rope):
    cos, sin = rope
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    out = torch.empty_like(x)
    out[..., 0::2] = (a * cos - b * sin).to(x.dtype)
    out[..., 1::2] = (a * sin + b * cos).to(x.dtype)
    return out


@torch.inference_mode()
def time_peer(layers, rounds):
    from bench_torch_flex import flex, window_mask
    grid, window = (21, 68, 120), (31, 53)
    n = grid[0] * grid[1] * grid[2]
    mask = window_mask(*grid, *window)
    angle = torch.rand(n, WIDTH // HEADS // 2, device="cuda") * 6.28
    rope = angle.cos(), angle.sin()
    blocks = [Block() for _ in range(layers)]
    text = torch.randn(1, TEXT, WIDTH, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(1, n, WIDTH, device="cuda", dtype=torch.bfloat16)

    def windowed(q, k, v):
        return flex(q, k, v, block_mask=mask)

    def dense(q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    def forward(kind):
        a, b = x, x
        for block in blocks:
            if kind == "refresh":
                b, stored = block.run(b, text, rope, dense)
                a, _ = block.run(a, text, rope, windowed, stored)
            elif kind == "reuse":
                a, _ = block.run(a, text, rope, windowed, a)
            else:
                a, _ = block.run(a, text, rope, windowed)
        return a

    kinds = ("reuse", "refresh", "negative")
    times = {k: [] for k in kinds}
    for r in range(-1, rounds):
        for kind in kinds:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            forward(kind)
            end.record()
            end.synchronize()
            if r >= 0:
                times[kind].append(begin.elapsed_time(end) * LAYERS / layers)
    if not rounds:
        return None
    median = {k: statistics.median(v) for k, v in times.items()}
    step = step_of(median)
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                      "layers_run": layers, **{k + "_ms": round(v, 1) for k, v in median.items()},
                      "step_ms": round(step, 1)}), flush=True)
    return step


def step_of(evaluations):
    return (4 * evaluations["reuse"] + evaluations["refresh"]) / 5 + evaluations["negative"]


def time_ours(a, folder, how, id, theirs, records):
    done = subprocess.run([a.program, folder, "21", "136", "240", "31", "53", str(a.runs), how],
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    print(done.stdout, end="", flush=True)
    ours = json.loads(done.stdout)
    evaluations = {k: ours[k] for k in ("prompt_ms", "negative_ms", "full_ms")}  # least, middle, most
    spread = max((v[2] - v[0]) / v[1] for v in evaluations.values())
    name = f"FreeSwim's dual path in PyTorch {torch.__version__}, FlexAttention; {a.layers} of {LAYERS} blocks, times {LAYERS / a.layers:g}"
    records.add(id, ours["step_ms"] / 1e3, theirs / 1e3, name, "s", spread,
                peak_gb=round(ours["peak_gib"] * 1.073741824, 2), published=round(step_of(PUBLISHED_S), 1),
                published_name="FreeSwim's program on an H200, another day", **evaluations)


def time_both(a):
    from bench_records import Records, take_turn
    take_turn()
    records = Records(a.out, a.commit)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        if not a.model:
            make(tmp)
        theirs = time_peer(a.layers, a.rounds)
        torch.cuda.empty_cache()
        time_ours(a, a.model or tmp, "device", "refine-step-1080p", theirs, records)
        time_ours(a, a.model or tmp, "attn8+device", "refine-step-1080p-int8", theirs, records)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--make")
    p.add_argument("--layers", type=int, default=3)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--runs", type=int, default=5, help="of our program; --rounds are the peer's")
    p.add_argument("--program")
    p.add_argument("--model")
    p.add_argument("--out")
    p.add_argument("--commit", default="")
    a = p.parse_args()
    if a.make:
        make(a.make)
    elif a.program:
        time_both(a)
    else:
        time_peer(a.layers, a.rounds)


if __name__ == "__main__":
    main()
