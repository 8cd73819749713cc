/* pipeline/window_search.h - kinora search-windows: tile windows by layer and head from a calibration run.
 *
 * Purpose   The job is run with dense attention in its refine stages. After each of their steps that would be
 *           sparse, every layer's attention is repeated with each candidate window on the same queries, keys
 *           and values, of both prompts (attention/tile_search.h). The choice goes to a file for --tile-windows
 *           (pipeline/tile_windows.h).
 * Options   --candidates, --budget or --max-error, --ranges; --attention-tile, --dense-steps and everything else
 *           as for the render that will use the file. --output is the file.
 * Memory    One more attention output on the device; errors on the host.
 * Errors    KN_ERR_ARG; those of a render.
 */
#ifndef KN_PIPELINE_WINDOW_SEARCH_H
#define KN_PIPELINE_WINDOW_SEARCH_H

#include "attention/tile_search.h"
#include "pipeline/highres.h"
#include "pipeline/pass_attention.h"
#include "pipeline/progress.h"

/* The search in one refine stage. */
typedef struct kn_stage_search {
    const kn_pass *pass;
    int layers, heads, ranges;
    int dense_steps; /* first steps, not looked at */
    int steps;       /* of the stage, all */
    double sigma_min[16];
    int64_t looks[16]; /* forwards looked at, by range */
    kn_attn_layout layout;
    kn_tile_search candidates;
    double *error, *own; /* [ranges][layers][windows][heads]: sums over looks */
    kn_dev *dev;
    kn_tensor out;                      /* room for an attention output */
    const kn_pass_attention *attention; /* says at which step the forward is */
} kn_stage_search;

/* Called by pipeline/render_denoise.c in each refine stage: memory for `tokens` on dev, which lives until
 * `kn_stage_search_end`; a measure device only counts. */
KN_CHECKED kn_status kn_stage_search_begin(kn_stage_search *s, kn_dev *dev, kn_dtype activation, const kn_dit_config *dit,
                                           const kn_pass_attention *attention, kn_arena **memory);
/* kn_dit_attn_fn; user: the kn_stage_search. */
kn_status kn_stage_search_look(void *user, int layer, const kn_attn_args *attn);

/* o: as for kn_render. */
KN_CHECKED kn_status kn_window_search(kn_options *o, kn_event_fn *fn, void *user);

#endif
