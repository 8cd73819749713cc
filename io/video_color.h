/* io/video_color.h - between [H,W,3] R'G'B' and the planes that codecs work on.
 *
 * Purpose   Every conversion in one place and in float, so that it is exact to half a code value,
 *           has the right matrix and chroma siting, and is the same for every FFmpeg version.
 * Formulas  Y' = Kr R' + (1 - Kr - Kb) G' + Kb B', Cb = (B' - Y') / (2 - 2 Kb),
 *           Cr = (R' - Y') / (2 - 2 Kr); limited range, n bits: 2^(n-8) * (16 + 219 Y'),
 *           2^(n-8) * (128 + 224 C); full range: (2^n - 1) Y', 2^(n-1) + (2^n - 1) C
 *           (ITU-T H.273 clause 8.3). Kr, Kb: its table 4.
 * Chroma    Written: sited left, low-pass 1-2-1 along rows, mean of two rows. Read: linear, at the
 *           place that the file states (left when it does not).
 */
#ifndef KN_IO_VIDEO_COLOR_H
#define KN_IO_VIDEO_COLOR_H

#include <stdbool.h>

#include <libavutil/frame.h>

#include "io/status.h"

/* Fill dst (format, width, height set, buffers writable) from one of f, u (the other NULL).
 * dst->format: planar YCbCr 4:2:0, 4:2:2, 4:4:4 of 8 or 10 bits, BGR0, BGRA, RGB24, or planar GBR
 * of 10 to 16 bits. `frame` names the frame in messages. */
KN_CHECKED kn_status kn_color_pack(const float *f, const uint16_t *u, AVFrame *dst, int64_t frame);

/* How to read a frame's samples. */
typedef struct kn_color_source {
    enum AVColorSpace matrix; /* as the file states, or the guess */
    bool matrix_guessed;
    bool full_range;
} kn_color_source;

/* What to use for a frame of this format and tags; KN_ERR_UNSUPPORTED names a pixel format or
 * matrix that kn_color_unpack cannot read. */
KN_CHECKED kn_status kn_color_source_of(enum AVPixelFormat format, enum AVColorSpace matrix,
                                        enum AVColorRange range, int height_px,
                                        kn_color_source *out);
/* src to rgb, [H,W,3] float in [0,1], turned clockwise by rotation_deg (0, 90, 180, 270; H and W
 * are those after the turn). Values outside [0,1] (foot- and headroom) are clipped. Alpha is
 * ignored. */
KN_CHECKED kn_status kn_color_unpack(const AVFrame *src, const kn_color_source *how,
                                     int rotation_deg, float *rgb);

#endif
