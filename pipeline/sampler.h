/* pipeline/sampler.h - the one denoise loop.
 *
 * Purpose   Runs a schedule's steps: network for the prompt, network for the negative prompt, guidance,
 *           solver; checks the latents for NaN; calls a hook after each step (checkpoints, previews).
 *           Every stage of every method goes through this loop.
 * Shapes    latents [C,F,H,W] f32, device memory: noise in, clean latents out.
 * Errors    KN_ERR_NUMERIC names the step at which NaN or infinity appeared; KN_ERR_CANCELLED; what the
 *           hook returns.
 * Source    Guidance: v = v_uncond + g (v_cond - v_uncond), arXiv 2207.12598; order of calls as
 *           diffusers WanPipeline.
 */
#ifndef KN_PIPELINE_SAMPLER_H
#define KN_PIPELINE_SAMPLER_H

#include "dit/dit.h"
#include "pipeline/progress.h"
#include "pipeline/solver.h"

/* After step `done` of `total` (latents hold its result). Not KN_OK: the loop ends with it. */
typedef kn_status kn_step_fn(void *user, int done, int total);

typedef struct kn_sampler {
    const kn_dit *dit;
    const kn_dit_rope *rope;
    const kn_dit_context *prompt;
    const kn_dit_context *negative; /* NULL: no guidance */
    double guidance;
    const kn_schedule *schedule;
    kn_solver *solver; /* at the step to start with */
    kn_arena *scratch;
    kn_tensor latents;
    kn_tensor velocity, velocity_negative; /* f32, like latents; the second only with guidance */
    kn_step_fn *hook;
    void *hook_user;
} kn_sampler;

KN_CHECKED kn_status kn_sampler_run(const kn_sampler *s, kn_event_fn *fn, void *user);

#endif
