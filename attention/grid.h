/* attention/grid.h - the latent token grid in 3D tiles: token orders and the search for a tile.
 *
 * Purpose   Attention kernels work on blocks of consecutive tokens. Cutting the grid into small
 *           boxes ("tiles") and storing each tile's tokens together decides how much of a block is
 *           used. A model reorders its tokens once, at patchify, and back at unpatchify.
 * Order     Tiles in raster order (t, then h, then w); inside a tile raster order too; tiles at the
 *           far borders are short, nothing is padded. Special cases: tile (T,1,1) is (h,w,t) order,
 *           tile (T,H,W) is plain raster.
 *           Text and other tokens off the grid follow the video.
 * Units     grid tokens on the axes 0 t, 1 h, 2 w.
 * Cost      Orders: linear in the tokens. Search: some 0.1 s at 4K.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM.
 * Source    Ragged tiles: FastVideo vsa_utils.py. Windows: NATTEN (below).
 */
#ifndef KN_ATTENTION_GRID_H
#define KN_ATTENTION_GRID_H

#include <stdbool.h>
#include <stdint.h>

#include "io/status.h"

/* How a model stores its tokens. */
typedef struct kn_attn_layout {
    int grid[3];  /* T, H, W */
    int tile[3];  /* edges of a full tile; cut to the grid where larger */
    int64_t text; /* tokens after the video */
} kn_attn_layout;

/* A tile: the box [lo, lo + len) and its tokens [start, start + count) in the tile order. */
typedef struct kn_grid_box {
    int lo[3], len[3];
    int64_t start, count;
} kn_grid_box;

/* Edges must be 1 or more, axes at most 32767, tokens below 2^31. Cuts tile edges to the grid. */
KN_CHECKED kn_status kn_attn_layout_check(kn_attn_layout *layout);
int64_t kn_grid_tokens(const int grid[3]);
/* Tiles on each axis, and together. */
int kn_grid_tiles_on(const int grid[3], const int tile[3], int axis);
int64_t kn_grid_tiles(const int grid[3], const int tile[3]);
/* Tile number i of the raster order of tiles. */
kn_grid_box kn_grid_tile(const int grid[3], const int tile[3], int64_t i);

/* order[p] = raster index (t H + h) W + w of the p-th token. [tokens] */
void kn_grid_tile_order(const int grid[3], const int tile[3], int32_t *order);
/* The same for an order of whole axes, slowest first: {0,1,2} is raster, {1,2,0} is (h,w,t). */
void kn_grid_axis_order(const int grid[3], const int axes[3], int32_t *order);
/* inverse[order[p]] = p. */
void kn_grid_invert(const int32_t *order, int64_t count, int32_t *inverse);

/* ---- windows on one axis -----------------------------------------------------------------------
 * Generalized neighborhood attention (NATTEN csrc .../reference/mask.hpp): within a residue class
 * modulo the dilation, queries in groups of `stride` share the window of their leader, the middle
 * of the group; the window is moved inward at the borders and keeps its size. stride 1, dilation 1
 * and an odd window give FreeSwim's inward window; stride = window = k tiles (k odd) gives STA.
 */
typedef struct kn_grid_window {
    int size;     /* keys per query on this axis; 0 or more than fit = the whole axis (class) */
    int stride;   /* 0 means 1; at most size */
    int dilation; /* 0 means 1; at most the axis */
    bool causal;  /* never a key after the query; the window then ends at the leader */
} kn_grid_window;

/* lo[c], len[c] for every query coordinate c < length: keys lo <= k < lo + len with
 * k = c modulo the dilation are visible. [length] each */
KN_CHECKED kn_status kn_grid_window_bounds(const kn_grid_window *w, int length, int32_t *lo,
                                           int32_t *len);

/* ---- tile search ------------------------------------------------------------------------------*/
typedef struct kn_grid_search {
    int grid[3];
    kn_grid_window window[3];
    int block_q, block_k; /* tokens that the executor pays for at once, 128 on GPUs */
    bool runs;            /* keys in (h,w,t) order as unaligned runs, instead of key tiles; wants an
                             unlimited window in t */
} kn_grid_search;

typedef struct kn_grid_choice {
    int tile[3];
    double ideal;    /* visible pairs / all pairs */
    double executed; /* pairs in executed blocks, padding included / all pairs */
    double partial;  /* share of executed blocks that need an element mask */
} kn_grid_choice;

/* Counted work of one tile shape. */
KN_CHECKED kn_status kn_grid_count(const kn_grid_search *s, const int tile[3], kn_grid_choice *out);
/* The shape with the least executed work; ties go to fewer partial blocks, then to longer t. */
KN_CHECKED kn_status kn_grid_best_tile(const kn_grid_search *s, kn_grid_choice *out);

#endif
