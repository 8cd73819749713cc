/* io/video_webp.h - reading animated WebP: libavformat (FFmpeg 4.4 to 7.1) reads stills only.
 *
 * Purpose   Splits the file into its frames, has libavcodec decode each as a still picture, and
 *           composes them on the canvas.
 * Format    RIFF "WEBP": VP8X, ANIM, ANMF chunks, each ANMF with ALPH, "VP8 " or VP8L inside
 *           (https://developers.google.com/speed/webp/docs/riff_container). Every number is
 *           untrusted. Transparent places of the canvas are black. A still WebP is one frame.
 * Limits    1 GiB a file, KN_VIDEO_MAX_SIDE_PX and KN_VIDEO_MAX_PIXELS.
 */
#ifndef KN_IO_VIDEO_WEBP_H
#define KN_IO_VIDEO_WEBP_H

#include <stdbool.h>
#include <stdint.h>

#include "io/status.h"

typedef struct kn_webp kn_webp;

typedef struct kn_webp_info {
    int width_px, height_px;
    int64_t frames;
    int64_t duration_ms;
} kn_webp_info;

/* Does the file begin like a WebP? False also when it cannot be read. */
bool kn_webp_is(const char *path);
KN_CHECKED kn_status kn_webp_open(const char *path, kn_webp **out);
kn_webp_info kn_webp_get_info(const kn_webp *w);
/* rgb: [height_px,width_px,3] in [0,1]; *start_ms: when the frame is shown. */
KN_CHECKED kn_status kn_webp_next(kn_webp *w, float *rgb, int64_t *start_ms, bool *end);
void kn_webp_close(kn_webp **w);

#endif
