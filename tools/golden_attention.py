#!/usr/bin/env python3
"""Golden data of attention/: dense attention from torch, and element masks of every planner.

    tools/golden_attention.py OUT_DIR [--seed 1] [--cases 60]

Writes OUT_DIR/attention_dense.safetensors and OUT_DIR/attention_masks.safetensors. The masks are
brute force from the published formulas, pair by pair over grid coordinates, sharing nothing with
the C planners. Inputs of the data-dependent planners are not stored: both sides draw them from the
same integer hash (`draw`).

attention_masks: for case i of a planner, "<planner>.<i>.config" (i32, see each function) and
"<planner>.<i>.mask": bits [heads][L][L], query-major, little bit order, tokens in raster order with
text last.
"""
import argparse
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

SCALE = 0.5  # of the data-dependent planners' cases


def draw(seed, shape):
    """Uniform in [-1, 1) by splitmix64 of (seed << 32) + index; exact in float32."""
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        x = (np.uint64(seed) << np.uint64(32)) + np.arange(n, dtype=np.uint64)
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(40)).astype(np.float64) / 2**23 - 1).astype(np.float32).reshape(shape)


# ---- geometry -----------------------------------------------------------------------------------
def coords(grid):
    T, H, W = grid
    return [(t, h, w) for t in range(T) for h in range(H) for w in range(W)]


def boxes(grid, tile):
    """Tiles in raster order, each the list of its raster token indices in raster order."""
    T, H, W = grid
    out = []
    for t0 in range(0, T, tile[0]):
        for h0 in range(0, H, tile[1]):
            for w0 in range(0, W, tile[2]):
                out.append([(t * H + h) * W + w
                            for t in range(t0, min(T, t0 + tile[0]))
                            for h in range(h0, min(H, h0 + tile[1]))
                            for w in range(w0, min(W, w0 + tile[2]))])
    return out


def cut(tokens, block):
    """Even cuts of a list into ceil(n / block) parts."""
    n, parts = len(tokens), -(-len(tokens) // block)
    return [tokens[n * i // parts:n * (i + 1) // parts] for i in range(parts)]


def with_text(video_mask, text):
    """Text sees everything, everything sees text."""
    L = video_mask.shape[-1]
    m = np.ones(video_mask.shape[:-2] + (L + text, L + text), bool)
    m[..., :L, :L] = video_mask
    return m


# ---- planners -----------------------------------------------------------------------------------
def gna_axis(L, w, s, d, causal):
    """NATTEN's generalized neighborhood on one axis: visible[q, k]."""
    vis = np.zeros((L, L), bool)
    for i in range(L):
        g, j = i % d, i // d
        Lg = L // d + (1 if g < L % d else 0)
        ww = Lg if w == 0 or w > Lg else w
        left = ww // 2
        right = ww // 2 + (ww % 2) - 1
        if causal:
            lead = min((j // s) * s + s - 1, Lg - 1)
            start, end = max(lead - left - right, 0), min(j + 1, Lg)
        else:
            lead = min((j // s) * s + s // 2, Lg - 1)
            start = max(lead - left, 0) + ((Lg - right - lead - 1) if lead + right >= Lg else 0)
            end = start + ww
        for k in range(L):
            vis[i, k] = k % d == g and start <= k // d < end
    return vis


def freeswim_axis(L, half):
    """FreeSwim's inward window of half width `half`."""
    vis = np.zeros((L, L), bool)
    for h in range(L):
        b, u = max(0, half - h), max(0, half + h - L + 1)
        for k in range(L):
            vis[h, k] = h - half - u <= k <= h + half + b
    return vis


def combine(grid, axes):
    c = np.array(coords(grid))
    m = np.ones((len(c), len(c)), bool)
    for a in range(3):
        m &= axes[a][c[:, a][:, None], c[:, a][None, :]]
    return m


def window_case(rng):
    """config: grid 3, tile 3, query tile 3, text, block, then per axis size, stride, dilation,
    causal."""
    grid = [int(rng.integers(1, 5)), int(rng.integers(1, 8)), int(rng.integers(1, 8))]
    tile = [int(rng.integers(1, g + 1)) for g in grid]
    query = [int(rng.integers(1, g + 1)) for g in grid] if rng.random() < 0.4 else [0, 0, 0]
    text, block = int(rng.choice([0, 0, 3, 9])), int(rng.integers(2, 17))
    config, axes = [], []
    if rng.random() < 0.3:  # FreeSwim: all frames, odd inward windows
        tile = [grid[0], 1, 1] if rng.random() < 0.5 else tile
        axes.append(np.ones((grid[0], grid[0]), bool))
        config += [0, 1, 1, 0]
        for g in grid[1:]:
            half = int(rng.integers(0, g + 2))
            axes.append(freeswim_axis(g, half))
            config += [2 * half + 1, 1, 1, 0]
    else:
        for g in grid:
            size = int(rng.integers(0, g + 3))
            stride = int(rng.integers(1, size + 1)) if size else 1
            dilation = int(rng.integers(1, min(g, 3) + 1)) if rng.random() < 0.4 else 1
            causal = int(rng.random() < 0.15)
            axes.append(gna_axis(g, size, stride, dilation, causal))
            config += [size, stride, dilation, causal]
    mask = with_text(combine(grid, axes), text)[None]
    return grid + tile + query + [text, block] + config, mask


def box_case(rng):
    """config: grid 3, tile 3, text, block, heads, then window 3 per head."""
    grid = [int(rng.integers(1, 6)), int(rng.integers(1, 8)), int(rng.integers(1, 8))]
    tile = [int(rng.integers(1, 4)) for _ in grid]
    text, block, heads = int(rng.choice([0, 4])), int(rng.integers(2, 17)), int(rng.integers(1, 3))
    c = np.array(coords(grid)) // np.array(tile)
    n = [-(-g // t) for g, t in zip(grid, tile)]
    masks, windows = [], []
    for _ in range(heads):
        win = [int(rng.integers(1, k + 2)) for k in n]
        m = np.ones((len(c), len(c)), bool)
        for a in range(3):
            R = win[a] // 2
            q = c[:, a].copy()
            for i, x in enumerate(q):
                q[i] = R if x < R else (n[a] - 1 - R if x > n[a] - 1 - R else x)
            lo, hi = np.maximum(0, q - R), np.minimum(n[a] - 1, q + R)
            m &= (lo[:, None] <= c[:, a][None, :]) & (c[:, a][None, :] <= hi[:, None])
        masks.append(with_text(m, text))
        windows += win
    return grid + tile + [text, block, heads] + windows, np.stack(masks)


def cross_case(rng):
    """config: grid 3, tile 3, text, block."""
    grid = [int(rng.integers(1, 6)), int(rng.integers(1, 8)), int(rng.integers(1, 8))]
    tile = [int(rng.integers(1, 4)) for _ in grid]
    text, block = int(rng.choice([0, 4])), int(rng.integers(2, 17))
    c = np.array(coords(grid)) // np.array(tile)
    m = (c[:, None, :] == c[None, :, :]).any(-1)
    return grid + tile + [text, block], with_text(m, text)[None]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def qk(seed, tokens, heads, dim):
    """q, k [L, N, D] in double, tokens as stored; amplitudes that make peaked maps."""
    q, k = draw(2 * seed, (tokens, heads, dim)), draw(2 * seed + 1, (tokens, heads, dim))
    return 3.0 * q.astype(np.float64), 3.0 * k.astype(np.float64)


def draft_case(rng, seed):
    """config: grid 3, tile 3, text, block, heads, dim, seed, drop first, drop own, sparsity in
    thousandths."""
    grid = [int(rng.integers(1, 5)), int(rng.integers(1, 7)), int(rng.integers(1, 7))]
    tile = [1 if rng.random() < 0.7 else int(rng.integers(1, 3))] + [int(rng.integers(1, 4)) for _ in "hw"]
    text, block, heads, dim = int(rng.choice([0, 3])), int(rng.integers(2, 9)), 2, 6
    first, own = int(rng.random() < 0.5), int(rng.random() < 0.5)
    sparsity = int(rng.choice([0, 300, 500, 750, 900, 1000]))
    L = int(np.prod(grid))
    q, k = qk(seed, L + text, heads, dim)
    tiles = boxes(grid, tile)
    starts = np.cumsum([0] + [len(b) for b in tiles])  # as stored: tile after tile
    S, per_frame = len(tiles), len(tiles) // -(-grid[0] // tile[0])
    masks = []
    for h in range(heads):
        mq = np.stack([q[a:b, h].mean(0) for a, b in zip(starts, starts[1:])])
        mk = np.stack([k[a:b, h].mean(0) for a, b in zip(starts, starts[1:])])
        A = softmax(mq @ mk.T * SCALE).astype(np.float32)
        n, m = S * S, math.floor(sparsity / 1000 * S * S)
        if m == 0:
            M = np.ones((S, S), bool)
        elif m >= n:
            M = np.zeros((S, S), bool)
        else:
            M = A >= np.sort(A.ravel())[m - 1]
        M |= np.eye(S, dtype=bool)
        frame = np.arange(S) // per_frame
        if not first:
            M[:, frame == 0] = True
        if not own:
            M |= frame[:, None] == frame[None, :]
        mask = np.zeros((L, L), bool)
        for i in range(S):
            for j in range(S):
                if M[i, j]:
                    mask[np.ix_(tiles[i], tiles[j])] = True
        masks.append(with_text(mask, text))
    return grid + tile + [text, block, heads, dim, seed, first, own, sparsity], np.stack(masks)


AXES = ["thw", "twh", "hwt", "htw", "wht", "wth"]


def permute_case(rng, seed):
    """config: grid 3, tile 3, text, block, heads, dim, seed, kind (0 importance, 1 axes), segment,
    samples, threshold in thousandths, then an axis order per head."""
    grid = [int(rng.integers(1, 5)), int(rng.integers(1, 7)), int(rng.integers(1, 7))]
    tile = [int(rng.integers(1, 4)) for _ in grid]
    text, block, heads, dim = int(rng.choice([0, 3])), int(rng.integers(2, 9)), 2, 6
    kind, segment = int(rng.random() < 0.4), int(rng.integers(0, 4))
    L = int(np.prod(grid))
    samples = int(rng.integers(1, L + 1))
    threshold = int(rng.choice([0, 300, 600, 900, 1000]))
    orders = [int(rng.integers(0, 6)) for _ in range(heads)]
    q, k = qk(seed, L + text, heads, dim)
    tiles = boxes(grid, tile)
    stored = [r for b in tiles for r in b]  # raster index of each stored token
    slot = {r: p for p, r in enumerate(stored)}
    masks = []
    for h in range(heads):
        if kind == 1:
            T, H, W = grid
            size = dict(t=T, h=H, w=W)
            order = []
            a, b, c = AXES[orders[h]]
            for x in range(size[a]):
                for y in range(size[b]):
                    for z in range(size[c]):
                        at = {a: x, b: y, c: z}
                        order.append(slot[(at["t"] * H + at["h"]) * W + at["w"]])
            q_blocks = k_blocks = cut(order, block)
        else:
            q_blocks, p = [], 0
            for b in tiles:
                q_blocks += cut(list(range(p, p + len(b))), block)
                p += len(b)
            rows = [((2 * i + 1) * L) // (2 * samples) for i in range(samples)]
            imp = np.zeros(L)
            for r in rows:
                imp = imp + softmax(k[:L, h] @ q[r, h] * SCALE)
            seg = segment or len(q_blocks)
            k_blocks = []
            for s in range(0, len(q_blocks), seg):
                members = [i for b in q_blocks[s:s + seg] for i in b]
                members.sort(key=lambda i: (-imp[i], i))
                for b in q_blocks[s:s + seg]:
                    k_blocks.append(members[:len(b)])
                    members = members[len(b):]
        mq = np.stack([q[b, h].mean(0) for b in q_blocks])
        mk = np.stack([k[b, h].mean(0) for b in k_blocks])
        A = softmax(mq @ mk.T * SCALE).astype(np.float32)
        mask = np.zeros((L, L), bool)
        for i, qb in enumerate(q_blocks):
            rank = sorted(range(len(k_blocks)), key=lambda j: (-A[i, j], j))
            keep, total = set(), 0.0
            for j in rank:
                keep.add(j)
                total += float(A[i, j])
                if total >= threshold / 1000:
                    break
            keep |= {j for j, kb in enumerate(k_blocks) if set(kb) & set(qb)}
            for j in keep:
                mask[np.ix_([stored[x] for x in qb], [stored[x] for x in k_blocks[j]])] = True
        masks.append(with_text(mask, text))
    return (grid + tile + [text, block, heads, dim, seed, kind, segment, samples, threshold] + orders,
            np.stack(masks))


def make_masks(seed, cases):
    rng = np.random.default_rng(seed)
    out = {}
    makers = dict(window=window_case, box=box_case, cross=cross_case, draft=draft_case,
                  permute=permute_case)
    for name, make in makers.items():
        for i in range(cases):
            config, mask = make(rng, 1000 + i) if name in ("draft", "permute") else make(rng)
            out[f"{name}.{i}.config"] = np.array(config, np.int32)
            out[f"{name}.{i}.mask"] = np.packbits(mask.ravel(), bitorder="little")
    return out


# ---- dense --------------------------------------------------------------------------------------
DENSE = [  # Lq, Lk, N, D, Dv, bias, scale
    (1, 1, 1, 1, 1, False, 1.0), (7, 13, 3, 16, 16, False, 0.25), (33, 40, 2, 64, 64, True, 1.0),
    (65, 31, 2, 24, 40, False, 0.2), (48, 48, 1, 128, 128, False, 0.0883883), (20, 50, 1, 384, 384, False, 0.05)]


def make_dense(seed):
    torch.manual_seed(seed)
    out = {}
    for i, (Lq, Lk, N, D, Dv, with_bias, scale) in enumerate(DENSE):
        q, k, v = torch.randn(Lq, N, D), torch.randn(Lk, N, D), torch.randn(Lk, N, Dv)
        bias = torch.randn(N, Lq, Lk) if with_bias else None
        o = F.scaled_dot_product_attention(
            q.double().transpose(0, 1), k.double().transpose(0, 1), v.double().transpose(0, 1),
            attn_mask=None if bias is None else bias.double(), scale=float(np.float32(scale)))
        s = torch.einsum("qnd,knd->nqk", q.double(), k.double()) * float(np.float32(scale))
        if bias is not None:
            s = s + bias.double()
        named = dict(q=q, k=k, v=v, out=o.transpose(0, 1).float(), lse=torch.logsumexp(s, -1).float(),
                     scale=torch.tensor([scale]))
        if bias is not None:
            named["bias"] = bias
        out.update({f"{i}.{n}": t.contiguous().numpy() for n, t in named.items()})
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("out_dir")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--cases", type=int, default=60, help="per planner")
    a = p.parse_args()
    os.makedirs(a.out_dir, exist_ok=True)
    meta = {"torch": torch.__version__, "numpy": np.__version__, "seed": str(a.seed)}
    save_file(make_dense(a.seed), os.path.join(a.out_dir, "attention_dense.safetensors"), meta)
    save_file(make_masks(a.seed, a.cases), os.path.join(a.out_dir, "attention_masks.safetensors"), meta)


if __name__ == "__main__":
    main()
