/* pipeline/tile_windows.h - the file of `kinora search-windows`: windows of tile3d by layer and head.
 *
 * Purpose   Written by pipeline/window_search.h, read with --tile-windows. Format: docs/formats.md.
 * Layout    A stage per token grid; in it ranges of noise levels, from high sigma to low; in each a window
 *           (tiles on t, h, w) for every layer and head.
 * Limits    MAX of stages, ranges, layers and heads below; the file as io/config.h.
 * Errors    KN_ERR_IO; KN_ERR_FORMAT with the place in the file; KN_ERR_ARG when a file is of another model
 *           or has no stage of the grid; KN_ERR_NOMEM.
 */
#ifndef KN_PIPELINE_TILE_WINDOWS_H
#define KN_PIPELINE_TILE_WINDOWS_H

#include <jansson.h>

#include "attention/grid.h"

enum { KN_WINDOW_STAGES_MAX = 8, KN_WINDOW_RANGES_MAX = 16, KN_WINDOW_LAYERS_MAX = 256, KN_WINDOW_HEADS_MAX = 256 };

/* One stage. */
typedef struct kn_tile_windows {
    kn_attn_layout layout; /* grid and tile of the stage */
    int ranges, layers, heads;
    double sigma_min[KN_WINDOW_RANGES_MAX]; /* falling; the last is 0 */
    int (*window)[3];                       /* [ranges][layers][heads] */
} kn_tile_windows;

/* The stage with that grid. Free with kn_tile_windows_free. */
KN_CHECKED kn_status kn_tile_windows_read(const char *path, const int grid[3], int layers, int heads,
                                          kn_tile_windows *out);
void kn_tile_windows_free(kn_tile_windows *w);

/* Range of a step at sigma. */
int kn_tile_windows_range(const kn_tile_windows *w, double sigma);
/* Windows of a layer: [heads][3]. */
const int (*kn_tile_windows_of(const kn_tile_windows *w, int range, int layer))[3];
/* Mean density over layers and heads of a range. */
double kn_tile_windows_density(const kn_tile_windows *w, int range);

/* A stage as it stands in the file; calibration: reference is taken, stands in it for people. NULL: out of memory. */
json_t *kn_tile_windows_json(const kn_tile_windows *w, json_t *calibration);
/* stages: an array of the above; reference is taken. */
KN_CHECKED kn_status kn_tile_windows_write(const char *path, int layers, int heads, json_t *stages);

#endif
