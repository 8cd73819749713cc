#!/usr/bin/env python3
"""FlexAttention as the peer of bench/bench_attn: answers requests on stdin, one time per line.

    bench_attn --peer "tools/bench_torch_flex.py"

Request: KIND HEADS DIM T H W WINDOW_H WINDOW_W DENSITY; answer: milliseconds of one call (CUDA
events), or "failed". Kinds:
    window  FreeSwim's inward window, all frames, tokens in raster order, as the published code has
            it: flex_attention(block_mask) compiled, blocks of 128, bf16, batch 1
    lists   random lists of 128-token blocks per head, as full blocks (no element mask)
Inputs are normal random numbers. What a request needs is made once and kept until another kind or
grid is asked for.
"""
import sys

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

torch._dynamo.config.recompile_limit = 64
flex = torch.compile(flex_attention, dynamic=False)


def window_mask(t, h, w, wh, ww):
    dh, dw = wh // 2, ww // 2

    def mask(b, head, q, k):
        qh, qw = (q // w) % h, q % w
        kh, kw = (k // w) % h, k % w
        lo_h = torch.clamp(qh - dh, 0, h - wh)
        lo_w = torch.clamp(qw - dw, 0, w - ww)
        return (kh >= lo_h) & (kh < lo_h + wh) & (kw >= lo_w) & (kw < lo_w + ww)

    n = t * h * w
    # Compiled: the mask of all pairs would not fit in memory.
    return create_block_mask(mask, 1, 1, n, n, device="cuda", _compile=True)


def list_mask(heads, n, density):
    blocks = (n + 127) // 128
    keep = int(density * blocks + 0.5)
    order = torch.rand(1, heads, blocks, blocks, device="cuda")
    order.diagonal(dim1=2, dim2=3).fill_(2)
    kept = order.topk(keep, dim=-1).indices.sort(-1).values.int()
    index = torch.zeros(1, heads, blocks, blocks, dtype=torch.int32, device="cuda")
    index[..., :keep] = kept
    count = torch.full((1, heads, blocks), keep, dtype=torch.int32, device="cuda")
    none = torch.zeros_like(count)
    return BlockMask.from_kv_blocks(none, torch.zeros_like(index), count, index, BLOCK_SIZE=128,
                                    seq_lengths=(n, n))


def main():
    print("ready", flush=True)
    made, state = None, None
    for line in sys.stdin:
        kind, *numbers = line.split()
        heads, dim, t, h, w, wh, ww = map(int, numbers[:7])
        density = float(numbers[7])
        try:
            if made != line:
                state = None
                torch.cuda.empty_cache()
                n = t * h * w
                mask = window_mask(t, h, w, wh, ww) if kind == "window" else list_mask(heads, n, density)
                state = torch.randn(3, 1, heads, n, dim, device="cuda", dtype=torch.bfloat16), mask
                made = line
                print(f"flex {kind} {n} tokens: {100 - mask.sparsity():.2f}% of blocks",
                      file=sys.stderr, flush=True)
            (q, k, v), mask = state[0].unbind(0), state[1]
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            flex(q, k, v, block_mask=mask)
            end.record()
            end.synchronize()
            print(begin.elapsed_time(end), flush=True)
        except Exception as e:  # the bench reports the case as failed
            print("failed", flush=True)
            print(f"{type(e).__name__}: {e}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
