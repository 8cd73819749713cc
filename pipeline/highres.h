/* pipeline/highres.h - the passes of a render: one at the model's own size, then any number above it.
 *
 * Purpose   A model repeats objects and loses the composition when it is asked for more than it was
 *           trained on. So a first pass makes the clip at --size; each refine stage enlarges the result,
 *           adds noise again up to a part of the schedule, and denoises with self-attention that sees no
 *           more tokens than the base pass has ("inward sliding window"), at a matching softmax
 *           temperature; a second branch with dense self-attention can supply the cross-attention
 *           (pipeline/sampler.h). No weights change. This file turns the options into a list of passes;
 *           every pass runs through the same code.
 * Formulas  window     2 floor(n / 2) + 1 tokens on an axis where the base pass has n
 *           scale      sqrt(log(2 n) / log(n)) / sqrt(D), n tokens in a frame of the base pass
 *           positions  fitted: times n / N on an axis where the base pass has n tokens and the stage N > n
 *           noise      x = (1 - s) z + s noise, s = sigma of the first step that is run; the noise goes
 *                      on in the stream of the seed where the pass before ended, as one
 *                      torch.Generator handed from pipeline to pipeline does
 * Errors    KN_ERR_ARG names the option.
 * Source    FreeSwim (github.com/WillWu111/FreeSwim) inference.py, nocache/attention_processor_.py: all of
 *           the above with 832x480 written into the code; diffusers pipeline_wan_video2video.py.
 */
#ifndef KN_PIPELINE_HIGHRES_H
#define KN_PIPELINE_HIGHRES_H

#include "attention/plan.h"
#include "dit/dit.h"
#include "pipeline/geometry.h"
#include "pipeline/options.h"
#include "pipeline/schedule.h"

enum { KN_PASSES_MAX = 5, KN_PASS_HEADS = 256 };

typedef struct kn_pass {
    char name[24];    /* in events and messages: "denoise", "refine 1", ... */
    char upscale[24]; /* what comes before it: "", "upscale 1", ... */
    kn_geometry geo;
    int64_t steps;    /* of the whole schedule */
    double strength, shift, guidance;
    kn_attention_choice attention;
    int window[2];      /* h, w in tokens: what the base pass sees, or --window */
    int tile[3], tile_window[3]; /* t, h, w; 0: chosen by the method */
    const char *tile_windows;    /* file, of the options; NULL: one window for all heads */
    double density, mass; /* mass 0: permute and paro go by density too */
    bool within_density;
    int paro_orders;    /* given: 0 = chosen from queries and keys, 1 = of all heads, else one per head */
    uint8_t paro_order[KN_PASS_HEADS]; /* indices into kn_axis_orders (attention/permute.h) */
    double paro_alpha, paro_epsilon, paro_share; /* as in kn_axes_params */
    int64_t paro_rows;  /* of blocks that are judged; 0 = all */
    int64_t dense_steps, dense_layers; /* first ones that stay dense */
    int reuse_lists;
    kn_attention_choice full_attention; /* of the second branch */
    bool fitted;        /* full self-attention has positions scaled to span what the base pass's do */
    double position_scale[3]; /* t, h, w: what fitted positions are scaled by */
    bool int8;          /* self-attention with 8-bit products */
    bool f8;            /* linear layers likewise, in e4m3 */
    double skip_below;  /* softmax-threshold skipping in it; 0: none */
    double temperature; /* factor on 1/sqrt(D) */
    bool dual;          /* the second branch supplies the cross-attention */
    bool dual_negative; /* of the negative prompt's evaluation too */
    int refresh;
    int dual_steps;     /* first ones that take the second branch's cross-attention; 0: all */
    int dual_layers[2]; /* first, and one past the last, that take it */
    kn_dit_place context_cache; /* of the second branch; --context-cache, or chosen by the memory plan */
    bool ffn_in_place; /* chosen by the memory plan: the feed-forward takes no memory of its own */
} kn_pass;

/* o: resolved. passes[0] is the base pass; with clip_px (width, height of a video that is refined) it
 * stands for the clip and is not run: windows and temperature go by --size, factors in --refine-size by
 * the clip. */
KN_CHECKED kn_status kn_passes_build(const kn_options *o, const kn_dit_config *dit, const int64_t clip_px[2],
                                     kn_pass passes[KN_PASSES_MAX], int *count);
KN_CHECKED kn_status kn_pass_schedule(const kn_options *o, const kn_pass *pass, kn_schedule *out);

#endif
