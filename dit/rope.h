/* dit/rope.h - the token grid of one clip: its order and its rotary position tables.
 *
 * Purpose   Says where on the grid each token sits, and holds the cos and sin that rotate its
 *           queries and keys. One per grid; shared by all layers and steps.
 * Shapes    grid F x h x w tokens, L = F h w; cos, sin [L, D/2] f32, row l for token l.
 *           Of the D/2 pairs the first (D - 2 a)/2 turn with the frame, then a/2 with the row and
 *           a/2 with the column, a = 2 (D / 6).  D = 128: 22, 21, 21.
 * Positions 0, 1, 2, ... on each axis, times a scale. A scale below 1 lays a grid that is larger than
 *           those of training over the positions that the model knows (position interpolation).
 * Precision Angles in float64, rounded to f32 once; theta = 10000.
 * Cost      4 L D bytes of device memory: 350 MB for 3840x2176, 81 frames, D = 128.
 * Errors    KN_ERR_ARG (grid beyond the model's table, order no permutation), KN_ERR_NOMEM.
 * Source    Wan2.1 wan/modules/model.py rope_params, rope_apply; diffusers
 *           transformer_wan.py WanRotaryPosEmbed. Scale: arXiv 2306.15595.
 */
#ifndef KN_DIT_ROPE_H
#define KN_DIT_ROPE_H

#include "compute/device.h"

typedef struct kn_dit_rope {
    kn_dev *dev;
    int64_t grid[3]; /* F, h, w in tokens */
    int64_t tokens;  /* L */
    int32_t *order;  /* host: token l is raster grid position order[l]; NULL = raster order */
    kn_tensor cos, sin;
} kn_dit_rope;

/* Networks call kn_dit_rope_open (dit.h), which knows the model's head_dim and patch.
 * order: L raster positions (f h w + row w + column), each once, or NULL; copied.
 * scale: of the positions of each axis; NULL: 1.
 * max_positions: longest axis that the model's table has (rope_max_seq_len). */
KN_CHECKED kn_status kn_dit_rope_open_grid(kn_dev *d, int head_dim, int max_positions,
                                           const int64_t grid[3], const double scale[3],
                                           const int32_t *order, kn_dit_rope *out);
/* NULL-safe on a zeroed struct; zeroes it. */
void kn_dit_rope_close(kn_dit_rope *r);

#endif
