"""Reading Kinora's latents and PNG frames, and how two clips differ; for the tables that tools/ makes."""
import glob
import json
import math
import struct

import numpy as np
from PIL import Image


def latents(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8:8 + n])["latents"]
    begin, end = entry["data_offsets"]
    return np.frombuffer(data[8 + n + begin:8 + n + end], "<f4").reshape(entry["shape"]).astype(np.float64)


def frames(folder):
    """[T,H,W,3], 0 to 255"""
    paths = sorted(glob.glob(folder + "/*.png"))
    return np.stack([np.asarray(Image.open(p).convert("RGB"), np.float32) for p in paths])


def psnr(a, b):
    mse = float(np.mean((a - b) ** 2, dtype=np.float64))
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


def box(x, n=7):
    """Mean over n x n windows of the two axes before the last."""
    c = np.cumsum(np.cumsum(np.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))), axis=1, dtype=np.float64), axis=2)
    return (c[:, n:, n:] - c[:, :-n, n:] - c[:, n:, :-n] + c[:, :-n, :-n]) / n**2


def ssim(a, b):
    """Mean over 7 x 7 windows of all frames and colors."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ma, mb = box(a), box(b)
    va, vb, cov = box(a * a) - ma * ma, box(b * b) - mb * mb, box(a * b) - ma * mb
    return float(np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))


def reduced(x, factor):
    """Means of factor x factor pixels."""
    t, h, w, c = x.shape
    return x.reshape(t, h // factor, factor, w // factor, factor, c).mean((2, 4))


def enlarged(x, size):
    """Bilinear, to (height, width)."""
    return np.stack([np.asarray(Image.fromarray(f.astype(np.uint8)).resize(size[::-1], Image.BILINEAR), np.float32) for f in x])


def sharpness(x):
    """Mean absolute difference of neighbors, both ways, in luma (BT.709), 0 to 255."""
    y = x @ np.array([.2126, .7152, .0722], np.float32)
    return float(np.abs(np.diff(y, axis=1)).mean() + np.abs(np.diff(y, axis=2)).mean())


def mean_sd(values):
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
