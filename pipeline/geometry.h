/* pipeline/geometry.h - sizes of one render, from the frame the user asked for to the token grid.
 *
 * Purpose   The VAE works in steps of 8 px and 4 frames, the transformer in patches of 2x2 latents, so the
 *           rendered frame is the asked one rounded up to 16 px; the surplus is cut off on output, at
 *           the right and bottom.
 * Units     px, lat (latents), tok (tokens).
 */
#ifndef KN_PIPELINE_GEOMETRY_H
#define KN_PIPELINE_GEOMETRY_H

#include <stdint.h>

typedef struct kn_geometry {
    int64_t out_width_px, out_height_px;       /* frame that is written */
    int64_t width_px, height_px;               /* frame that is rendered */
    int64_t frames;                            /* P = 4(F-1)+1 */
    int64_t frames_lat, height_lat, width_lat; /* F, H, W */
    int64_t channels_lat;                      /* C of the latent, 16 for Wan 2.1 */
    int64_t tokens;                            /* L */
} kn_geometry;

/* Frame and count as written; frames = 4n + 1. patch: of the transformer. */
kn_geometry kn_geometry_of(int64_t width_px, int64_t height_px, int64_t frames, int64_t channels_lat,
                           const int patch[3]);

#endif
