#include "pipeline/sampler.h"

enum { PROMPT = KN_BRANCH_PROMPT, NEGATIVE = KN_BRANCH_NEGATIVE };

static bool overridden(const kn_sampler *s, int which)
{
    return s->dual && (which == PROMPT || s->dual->negative_too);
}

static bool overridden_at(const kn_sampler *s, int which, int i)
{
    return overridden(s, which) && (!s->dual->steps || i - s->schedule->begin < s->dual->steps);
}

static kn_dit_args args_of(const kn_sampler *s, int which)
{
    kn_dit_args args = {.context = which == PROMPT ? s->prompt : s->negative,
                        .rope = s->rope,
                        .latents = s->latents,
                        .velocity = which == PROMPT ? s->velocity : s->velocity_negative,
                        .scratch = s->scratch,
                        .records = s->records,
                        .plan_user = s->attention,
                        .attn_fn = s->attn_fn,
                        .attn_user = s->attn_user,
                        .softmax_scale = s->softmax_scale,
                        .f8 = s->f8,
                        .int8 = s->int8,
                        .skip_below = s->skip_below,
                        .ffn_rows = s->ffn_in_place ? KN_DIT_FFN_IN_PLACE : 0};
    if (!kn_pass_attention_dense(s->attention, which)) {
        args.plan_fn = kn_pass_attention_plan;
        args.plan = s->attention->plan; /* for measuring */
    }
    if (overridden(s, which)) {
        args.cross = KN_DIT_CROSS_USE;
        args.contexts = s->dual->contexts;
        args.context_set = s->dual->two ? which : 0;
        for (int e = 0; e < 2; e++) args.cross_blocks[e] = s->dual->blocks[e];
    }
    return args;
}

static kn_dit_args full_args_of(const kn_sampler *s, int which)
{
    kn_dit_args args = args_of(s, which);
    bool dense = kn_pass_attention_dense(s->attention, KN_BRANCH_FULL + which);
    args.plan_fn = dense ? NULL : kn_pass_attention_plan;
    args.plan = NULL;
    args.cross = KN_DIT_CROSS_STORE;
    if (s->full_rope) args.rope = s->full_rope;
    args.contexts_only = true;
    return args;
}

kn_dit_args kn_sampler_args(const kn_sampler *s)
{
    /* a pass that also computes contexts of its own needs the larger scratch of the two */
    kn_dit_args args = args_of(s, PROMPT);
    if (s->dual && (!s->dual->negative_too || s->dual->steps)) args.cross = KN_DIT_CROSS_OWN;
    return args;
}

kn_dit_args kn_sampler_full_args(const kn_sampler *s)
{
    return full_args_of(s, PROMPT);
}

/* ---- one step ---------------------------------------------------------------------------------*/

/* Steps since the full branch last ran. */
static int age(const kn_sampler *s, int i)
{
    return (i - s->schedule->begin) % s->dual->refresh;
}

static kn_status forward(const kn_sampler *s, int branch, int i, kn_dit_args *args)
{
    static const char *const names[KN_BRANCHES] = {"prompt", "negative", "full", "full, negative"};
    args->timestep = s->schedule->timestep[i];
    kn_pass_attention_at(s->attention, i - s->schedule->begin, s->schedule->sigma[i], branch);
    args->plans = kn_pass_attention_number(s->attention);
    if (s->full_rope && i - s->schedule->begin < s->attention->pass->dense_steps) args->rope = s->full_rope;
    if (!s->debug) return kn_dit_forward(s->dit, args);
    KN_TRY(kn_debug_forward(s->debug, kn_arena_dev(s->scratch), names[branch], i + 1, args));
    kn_status st = kn_dit_forward(s->dit, args);
    kn_debug_forward_end(s->debug);
    return st;
}

static kn_status refresh_contexts(const kn_sampler *s, int which, const kn_tensor *latents, int i)
{
    kn_dit_args args = full_args_of(s, which);
    args.latents = *latents;
    return forward(s, KN_BRANCH_FULL + which, i, &args);
}

/* The contexts of a run that goes on between two refreshes. */
static kn_status restore_contexts(const kn_sampler *s, int i)
{
    int refreshed = i - age(s, i);
    KN_TRY(refresh_contexts(s, PROMPT, &s->dual->latents, refreshed));
    return s->negative && s->dual->negative_too ? refresh_contexts(s, NEGATIVE, &s->dual->latents, refreshed) : KN_OK;
}

static kn_status network(const kn_sampler *s, int which, int i)
{
    bool own = !overridden_at(s, which, i);
    if (!own && age(s, i) == 0) KN_TRY(refresh_contexts(s, which, &s->latents, i));
    kn_dit_args args = args_of(s, which);
    if (own) args.cross = KN_DIT_CROSS_OWN;
    return forward(s, which, i, &args);
}

static kn_status check_finite(const kn_sampler *s, int done)
{
    kn_tensor_stats stats;
    kn_dev *d = kn_arena_dev(s->scratch);
    KN_TRY(kn_stats(d, &s->latents, &stats));
    if (stats.nonfinite == 0) return KN_OK;
    return kn_fail(KN_ERR_NUMERIC, "%s step %d of %d: %lld of %lld latent values are NaN or infinite", s->name, done,
                   s->schedule->steps, (long long)stats.nonfinite, (long long)kn_tensor_count(&s->latents));
}

kn_status kn_sampler_run(const kn_sampler *s, kn_event_fn *fn, void *user)
{
    kn_dev *d = kn_arena_dev(s->scratch);
    int steps = s->schedule->steps, begin = s->schedule->begin, first = kn_solver_index(s->solver);
    float g = (float)s->guidance;
    kn_stage stage;
    kn_stage_begin(&stage, fn, user, s->name, "steps", first - begin, steps - begin);
    if (overridden_at(s, PROMPT, first) && first < steps && age(s, first) > 0) KN_TRY(restore_contexts(s, first));
    for (int i = first; i < steps; i = kn_solver_index(s->solver)) {
        if (overridden_at(s, PROMPT, i) && s->dual->refresh > 1 && age(s, i) == 0) KN_TRY(kn_copy(d, &s->latents, &s->dual->latents));
        KN_TRY(network(s, PROMPT, i));
        if (s->negative) {
            KN_TRY(network(s, NEGATIVE, i));
            KN_TRY(kn_axpby(d, g, &s->velocity, 1 - g, &s->velocity_negative, &s->velocity));
        }
        if (s->debug) KN_TRY(kn_debug_step(s->debug, d, s->schedule->sigma[i], &s->latents, &s->velocity));
        KN_TRY(kn_solver_step(s->solver, &s->velocity, &s->latents));
        if (s->debug) kn_debug_step_end(s->debug);
        KN_TRY(check_finite(s, i + 1));
        if (s->hook) KN_TRY(s->hook(s->hook_user, i + 1, steps));
        KN_TRY(kn_stage_step(&stage, i + 1 - begin));
    }
    kn_stage_end(&stage);
    return KN_OK;
}
