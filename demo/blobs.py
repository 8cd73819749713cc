"""Groups of mask pixels, shared by check_prompts.py and count_objects.py."""
import math

import numpy as np


def dilate(mask, radius=3):
    """mask grown by a disc: a run of each row's width for every row of the disc"""
    height, width = mask.shape
    sums = np.zeros((height, width + 2 * radius + 2), np.int32)
    sums[:, radius + 1:radius + 1 + width] = np.cumsum(mask, 1)
    sums[:, radius + 1 + width:] = sums[:, radius + width:radius + 1 + width]
    out = np.zeros_like(mask)
    at = radius + 1 + np.arange(width)
    for dy in range(-radius, radius + 1):
        half = math.isqrt(radius * radius - dy * dy)
        grown = sums[:, at + half] > sums[:, at - half - 1]
        low, high = max(0, -dy), min(height, height - dy)
        out[low + dy:high + dy] |= grown[low:high]
    return out


def components(mask):
    """Parts of mask that touch by their sides: a list of (rows, columns), in the order of their
    first pixels.  Runs of each row are joined with those above that they touch (union-find)."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, begins = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    parent = list(range(len(rows)))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first = np.searchsorted(rows, np.arange(mask.shape[0] + 1))
    for y in range(1, mask.shape[0]):
        above, here = first[y - 1], first[y]
        while above < first[y] and here < first[y + 1]:
            if begins[above] < ends[here] and begins[here] < ends[above]:
                a, b = root(above), root(here)
                parent[max(a, b)] = min(a, b)
            if ends[above] < ends[here]:
                above += 1
            else:
                here += 1
    parts = {}
    for i in range(len(rows)):
        parts.setdefault(root(i), []).append(i)
    out = []
    for members in parts.values():
        out.append((np.concatenate([np.full(ends[i] - begins[i], rows[i]) for i in members]),
                    np.concatenate([np.arange(begins[i], ends[i]) for i in members])))
    return out
