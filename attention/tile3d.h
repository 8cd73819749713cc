/* attention/tile3d.h - planner: whole tiles of keys per tile of queries, chosen by their place.
 *
 * Purpose   Two static patterns without element masks:
 *             box    STA's sliding tile window: per axis `window` tiles around the query's tile,
 *                    moved inward at the borders. An even window below the tile count is one wider,
 *                    as in the reference kernels. Windows may differ by head.
 *             cross  GRAT's criss-cross: tiles that share the t, the h or the w tile coordinate.
 *           Grids need not divide into tiles.
 * Cost      One step per (head, tile, tile) pair.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM.
 * Source    FastVideo fastvideo-kernel tests/support_flex_sta.py; GRAT cross_processor.py.
 */
#ifndef KN_ATTENTION_TILE3D_H
#define KN_ATTENTION_TILE3D_H

#include "attention/plan.h"

typedef struct kn_tile3d_params {
    kn_attn_layout layout;  /* layout.tile is the tile */
    int block;              /* most queries in a block */
    bool cross;             /* criss-cross instead of boxes */
    int heads;              /* windows given: 1 = shared by all heads */
    const int (*window)[3]; /* box: [heads] tiles on each axis, >= 1 */
    float scale;
} kn_tile3d_params;

KN_CHECKED kn_status kn_tile3d_plan(const kn_tile3d_params *params, kn_attn_plan **out);

/* Density of such a box plan among the video's tokens, without making it: a product over the axes. */
double kn_tile3d_density(const kn_attn_layout *layout, const int window[3]);

#endif
