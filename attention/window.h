/* attention/window.h - planner: every query sees a box of keys around it.
 *
 * Purpose   FreeSwim's inward sliding window (training-free high resolution: each query keeps the
 *           receptive field of the resolution that the model was trained at) and, with strides and
 *           dilations, any generalized neighborhood. Element-exact: runs at the window's rim carry
 *           a rule.
 * Shapes    Lists are shared by all heads and depend on the geometry only: build once per stage.
 * Cost      A few operations per (query tile, key tile) pair in reach.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM.
 * Source    FreeSwim nocache/attention_processor_.py; NATTEN
 *           csrc/include/natten/cuda/reference/mask.hpp.
 */
#ifndef KN_ATTENTION_WINDOW_H
#define KN_ATTENTION_WINDOW_H

#include "attention/plan.h"

typedef struct kn_window_params {
    kn_attn_layout layout;
    int query_tile[3];        /* 0,0,0: layout.tile. Layout tile (T,1,1) with a query tile such as
                                 (T,3,2) gives unaligned runs: one per image row of the window */
    int block;                /* most queries in a block */
    kn_grid_window window[3]; /* t, h, w; size 0 = the whole axis */
    float scale;
} kn_window_params;

KN_CHECKED kn_status kn_window_plan(const kn_window_params *params, kn_attn_plan **out);

#endif
