/* pipeline/compare.h - two renders side by side: numbers, pictures, a video.
 *
 * Purpose   Tells whether a setting changed the result, where and how much.
 * Formulas  PSNR = -10 log10(mean over pixels and channels of (a - b)^2), samples in [0,1]; equal frames
 *           have no PSNR (infinite) and are left out of its mean.
 *           SSIM of Wang, Bovik, Sheikh, Simoncelli (IEEE TIP 13-4, 2004): on BT.709 luma, 11x11 Gaussian
 *           window of sigma 1.5, K1 = 0.01, K2 = 0.03, mean over the windows that lie inside.
 * Inputs    What io/video.h reads: videos, folders or patterns of PNG. Sizes must be the same; the longer
 *           clip is compared up to the end of the shorter one, which is said.
 * Errors    Of the readers and writers; KN_ERR_ARG for different sizes.
 */
#ifndef KN_PIPELINE_COMPARE_H
#define KN_PIPELINE_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "io/status.h"

/* rgb: [height, width, 3] in [0,1]. */
double kn_compare_psnr(const float *a, const float *b, int width_px, int height_px);
/* KN_ERR_ARG for frames of less than 11 pixels on a side. */
KN_CHECKED kn_status kn_compare_ssim(const float *a, const float *b, int width_px, int height_px, double *ssim);

/* Prints, for each tensor of two safetensors files, relative L2 (of the first one's norm) and the largest difference. */
bool kn_compare_is_tensors(const char *path);
KN_CHECKED kn_status kn_compare_tensors(const char *a_path, const char *b_path);

/* kinora compare A B [--output FILE] [--csv FILE] [-y]; prints to standard output, returns the exit code. */
int kn_cli_compare(int argc, char **argv);

#endif
