/* pipeline/sampler.h - the one denoise loop.
 *
 * Purpose   Runs a schedule's steps: network for the prompt, network for the negative prompt, guidance,
 *           solver; checks the latents for NaN; calls a hook after each step (checkpoints, previews).
 *           Every pass of every method goes through this loop.
 * Shapes    latents [C,F,H,W] f32, device memory: noise in, clean latents out.
 * Errors    KN_ERR_NUMERIC names the step at which NaN or infinity appeared; KN_ERR_CANCELLED; what the
 *           hook returns.
 * Source    Guidance: v = v_uncond + g (v_cond - v_uncond), arXiv 2207.12598; order of calls as
 *           diffusers WanPipeline. Dual path: FreeSwim {nocache,cache}/attention_processor_.py.
 */
#ifndef KN_PIPELINE_SAMPLER_H
#define KN_PIPELINE_SAMPLER_H

#include "dit/dit.h"
#include "pipeline/debug.h"
#include "pipeline/pass_attention.h"
#include "pipeline/progress.h"
#include "pipeline/solver.h"

/* After step `done` of `total` (latents hold its result). Not KN_OK: the loop ends with it. */
typedef kn_status kn_step_fn(void *user, int done, int total);

/* A second branch whose self-attention sees everything and whose cross-attention contexts take the place
 * of those of the branch with the plan. It runs at the first step and every `refresh` steps from there. */
typedef struct kn_dual_path {
    int refresh;
    int steps;               /* the first ones only; 0: all */
    int blocks[2];           /* first, and one past the last, whose contexts are replaced */
    bool negative_too;       /* also for the negative prompt; else that one keeps its own contexts */
    kn_dit_contexts *contexts; /* one set, or with `two` one for each prompt */
    bool two;
    kn_tensor latents;       /* what the branch last ran on, from which a resumed run makes the contexts
                                anew; absent when refresh is 1 */
} kn_dual_path;

typedef struct kn_sampler {
    const char *name;        /* of the stage in events and messages */
    const kn_dit *dit;
    const kn_dit_rope *rope;
    const kn_dit_rope *full_rope; /* of the second branch and of the first steps that are dense; NULL: rope */
    const kn_dit_context *prompt;
    const kn_dit_context *negative; /* NULL: no guidance */
    double guidance;
    kn_pass_attention *attention; /* of self-attention */
    double softmax_scale;     /* of self-attention, in both branches; 0: 1/sqrt(D) */
    bool f8;                  /* linear layers in e4m3, in both branches */
    bool int8;                /* self-attention with 8-bit products, in both branches */
    double skip_below;        /* of self-attention, in both branches (attention/attention.h) */
    const kn_dual_path *dual; /* NULL: one branch */
    bool ffn_in_place;        /* KN_DIT_FFN_IN_PLACE */
    const kn_schedule *schedule;
    kn_solver *solver; /* at the step to start with */
    kn_arena *scratch;
    kn_records *records; /* of forwards, kn_dit_args; NULL: launched each time */
    kn_tensor latents;
    kn_tensor velocity, velocity_negative; /* f32, like latents; the second only with guidance */
    kn_step_fn *hook;
    void *hook_user;
    kn_dit_attn_fn *attn_fn; /* looks at every self-attention; NULL: off */
    void *attn_user;
    kn_debug *debug; /* looks at every forward and step; NULL: off */
} kn_sampler;

KN_CHECKED kn_status kn_sampler_run(const kn_sampler *s, kn_event_fn *fn, void *user);

/* Arguments of the network as the loop calls it, for measuring: the branch that gives the velocity, and
 * the full one. Data pointers may be NULL. */
kn_dit_args kn_sampler_args(const kn_sampler *s);
kn_dit_args kn_sampler_full_args(const kn_sampler *s);

#endif
