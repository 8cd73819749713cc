#!/usr/bin/env python3
"""Times PyTorch's CPU operations at the shapes of bench/compute_ops.c, one line per case.

    tools/bench_torch_ops.py [threads]

Prints the same case names, so that the two outputs can be joined on the first column. Best of several
runs, in milliseconds (with one thread: of processor time), as in the C program. Channels-last tensors are given to the convolutions when
that is faster for PyTorch: the best of both layouts is printed.
"""
import sys
import time

import torch
import torch.nn.functional as F

LINEAR = [  # M, K, N
    (300, 256, 256), (300, 256, 768), (300, 256, 960), (300, 960, 256), (300, 256, 1536), (32, 256, 512),
    (1, 256, 1536), (512, 4096, 4096), (4096, 1536, 1536), (4096, 1536, 8960), (4096, 8960, 1536),
]
CONV = [  # T, H, W, Ci, Co, kernel, stride, pad_lo, pad_hi
    (3, 12, 20, 16, 64, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (3, 12, 20, 64, 64, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (4, 24, 40, 64, 64, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (6, 48, 80, 32, 32, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (6, 96, 160, 32, 16, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (6, 96, 160, 16, 16, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (6, 96, 160, 16, 3, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (6, 96, 160, 3, 16, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (4, 96, 160, 32, 16, (1, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (4, 96, 160, 16, 16, (1, 3, 3), (1, 2, 2), (0, 0, 0), (0, 1, 1)),
    (5, 48, 80, 32, 32, (3, 1, 1), (2, 1, 1), (0, 0, 0), (0, 0, 0)),
    (6, 96, 160, 32, 16, (1, 1, 1), (1, 1, 1), (0, 0, 0), (0, 0, 0)),
    (3, 60, 104, 384, 384, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (4, 240, 416, 192, 192, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
    (6, 480, 832, 96, 96, (3, 3, 3), (1, 1, 1), (0, 1, 1), (0, 1, 1)),
]
ROWS = [(300, 256), (4096, 1536), (61440, 16), (15360, 64)]


def best_ms(fn, budget_s=1.0, least=3):
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    fn()
    best, start, n = 1e9, clock(), 0
    while n < least or (clock() - start < budget_s and n < 2000):
        t = clock()
        fn()
        best = min(best, clock() - t)
        n += 1
    return best * 1e3


def conv_call(x, w, b, k, s, lo, hi):
    pad = [lo[2], hi[2], lo[1], hi[1], lo[0], hi[0]]
    if k[0] == 1 and s[0] == 1:
        same = pad[0] == pad[1] and pad[2] == pad[3]
        x2, w2 = x[0].transpose(0, 1), w[:, :, 0]
        if same:
            return lambda: F.conv2d(x2, w2, b, s[1:], (lo[1], lo[2]))
        return lambda: F.conv2d(F.pad(x2, pad[:4]), w2, b, s[1:])
    return lambda: F.conv3d(x, w, b, s, lo)


@torch.no_grad()
def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    for m, k, n in LINEAR:
        x, w, b = torch.randn(m, k), torch.randn(n, k), torch.randn(n)
        print(f"linear_{m}x{k}x{n} {best_ms(lambda: F.linear(x, w, b)):.4f}", flush=True)
    for t, h, w_, ci, co, k, s, lo, hi in CONV:
        x, w, b = torch.randn(1, ci, t, h, w_), torch.randn(co, ci, *k), torch.randn(co)
        plain = best_ms(conv_call(x, w, b, k, s, lo, hi))
        x = x.contiguous(memory_format=torch.channels_last_3d)
        w = w.contiguous(memory_format=torch.channels_last_3d)
        last = best_ms(conv_call(x, w, b, k, s, lo, hi))
        name = f"conv_{t}x{h}x{w_}x{ci}_to{co}_k{k[0]}{k[1]}{k[2]}_s{s[0]}{s[1]}{s[2]}"
        print(f"{name} {min(plain, last):.4f}", flush=True)
    for r, c in ROWS:
        x, y, g = torch.randn(r, c), torch.randn(r, c), torch.randn(c)
        print(f"layernorm_{r}x{c} {best_ms(lambda: F.layer_norm(x, (c,)) * (1 + g) + g):.4f}")
        print(f"rmsnorm_{r}x{c} {best_ms(lambda: F.rms_norm(x, (c,), g, 1e-6)):.4f}")
        print(f"l2norm_silu_{r}x{c} {best_ms(lambda: F.silu(F.normalize(x, dim=1) * c**.5 * g)):.4f}")
        print(f"gate_add_{r}x{c} {best_ms(lambda: x + y * g):.4f}")
        print(f"gelu_tanh_{r}x{c} {best_ms(lambda: F.gelu(x, approximate='tanh')):.4f}", flush=True)


if __name__ == "__main__":
    main()
