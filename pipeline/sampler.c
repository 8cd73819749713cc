#include "pipeline/sampler.h"

static kn_status network(const kn_sampler *s, const kn_dit_context *context, double timestep, kn_tensor velocity)
{
    kn_dit_args args = {.context = context,
                        .rope = s->rope,
                        .latents = s->latents,
                        .timestep = timestep,
                        .velocity = velocity,
                        .scratch = s->scratch};
    return kn_dit_forward(s->dit, &args);
}

static kn_status check_finite(const kn_sampler *s, int done)
{
    kn_tensor_stats stats;
    kn_dev *d = kn_arena_dev(s->scratch);
    KN_TRY(kn_stats(d, &s->latents, &stats));
    if (stats.nonfinite == 0) return KN_OK;
    return kn_fail(KN_ERR_NUMERIC, "denoise step %d of %d: %lld of %lld latent values are NaN or infinite", done,
                   s->schedule->steps, (long long)stats.nonfinite, (long long)kn_tensor_count(&s->latents));
}

kn_status kn_sampler_run(const kn_sampler *s, kn_event_fn *fn, void *user)
{
    kn_dev *d = kn_arena_dev(s->scratch);
    int steps = s->schedule->steps, begin = s->schedule->begin;
    float g = (float)s->guidance;
    kn_stage stage;
    kn_stage_begin(&stage, fn, user, "denoise", "steps", kn_solver_index(s->solver) - begin, steps - begin);
    for (int i = kn_solver_index(s->solver); i < steps; i = kn_solver_index(s->solver)) {
        double t = s->schedule->timestep[i];
        KN_TRY(network(s, s->prompt, t, s->velocity));
        if (s->negative) {
            KN_TRY(network(s, s->negative, t, s->velocity_negative));
            KN_TRY(kn_axpby(d, g, &s->velocity, 1 - g, &s->velocity_negative, &s->velocity));
        }
        KN_TRY(kn_solver_step(s->solver, &s->velocity, &s->latents));
        KN_TRY(check_finite(s, i + 1));
        if (s->hook) KN_TRY(s->hook(s->hook_user, i + 1, steps));
        KN_TRY(kn_stage_step(&stage, i + 1 - begin));
    }
    kn_stage_end(&stage);
    return KN_OK;
}
