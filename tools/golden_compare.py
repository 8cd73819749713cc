#!/usr/bin/env python3
"""Golden data for tests/golden/pipeline_compare.c: PSNR and SSIM as scikit-image computes them.

    golden_compare.py OUT_DIR

Writes OUT_DIR/pipeline_compare.safetensors: for each case NAME.a and NAME.b (u8 [H,W,3]) and NAME.want (f64: PSNR in
dB over all channels, mean SSIM of BT.709 luma with the Gaussian window of Wang et al. 2004, as in skimage's
documentation: gaussian_weights, sigma 1.5, use_sample_covariance False)."""
import os
import sys

import numpy as np
import skimage
from safetensors.numpy import save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def luma(rgb):
    return rgb @ np.array([0.2126, 0.7152, 0.0722])


def cases():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[0:40, 0:56]
    smooth = np.stack([127 + 100 * np.sin(x / 7), 127 + 90 * np.cos(y / 5), (x * 4 + y) % 256], -1).astype(np.uint8)
    noisy = np.clip(smooth.astype(int) + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    yield "noise_on_smooth", smooth, noisy
    yield "moved_by_one", smooth, np.roll(smooth, 1, axis=1)
    yield "darker", smooth, (smooth * 0.8).astype(np.uint8)
    one = smooth.copy()
    one[17, 23, 1] ^= 1
    yield "one_step_of_one_value", smooth, one
    yield "two_noises", rng.integers(0, 256, (33, 64, 3), dtype=np.uint8), rng.integers(0, 256, (33, 64, 3), dtype=np.uint8)
    yield "black_and_white", np.zeros((24, 24, 3), np.uint8), np.full((24, 24, 3), 255, np.uint8)
    small = rng.integers(0, 256, (11, 11, 3), dtype=np.uint8)  # one window
    yield "one_window", small, 255 - small


def main():
    tensors = {}
    for name, a, b in cases():
        fa, fb = a / 255.0, b / 255.0
        ssim = structural_similarity(luma(fa), luma(fb), data_range=1.0, gaussian_weights=True, sigma=1.5,
                                     use_sample_covariance=False)
        psnr = peak_signal_noise_ratio(fa, fb, data_range=1.0)
        tensors.update({f"{name}.a": a, f"{name}.b": np.ascontiguousarray(b), f"{name}.want": np.array([psnr, ssim])})
        print(f"{name}: {psnr:.6f} dB, {ssim:.9f}")
    os.makedirs(sys.argv[1], exist_ok=True)
    save_file(tensors, os.path.join(sys.argv[1], "pipeline_compare.safetensors"),
              metadata={"scikit-image": skimage.__version__, "numpy": np.__version__})


if __name__ == "__main__":
    main()
