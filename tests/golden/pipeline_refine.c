/* A refine stage's steps, from options to final latents, against PyTorch: window attention, temperature and the
 * second branch's cross-attention at every step and every second one; fitted positions in it, and in first steps
 * that are dense without it (tools/golden_refine.py).
 */
#include "compare.h"

#include "pipeline/options.h"
#include "pipeline/pass_attention.h"
#include "pipeline/sampler.h"

/* Relative L2 of float32 sums in another order through four guided steps of two evaluations; about 1e-6
 * is seen. The smallest part of the method, the refresh interval, changes 6e-3 (the tool prints it). */
static const double bound = 1e-5;

typedef struct stage {
    kn_dev *dev;
    kn_options o;
    kn_pass pass[KN_PASSES_MAX];
    kn_schedule schedule;
    kn_dit *dit;
    kn_pass_attention attention;
    kn_dit_rope rope, full_rope;
    kn_dit_context *context[2];
    kn_arena *arena;
    kn_dual_path dual;
    kn_sampler sampler;
    kn_solver *solver;
} stage;

static void set(stage *s, const char *key, const char *value)
{
    must(kn_options_set(&s->o, key, value, KN_FROM_COMMAND_LINE, key));
}

static void set_options(stage *s, const char *const more[][2])
{
    static const char *const values[][2] = {{"size", "64x48"},      {"frames", "9"},      {"refine-size", "112x96"},
                                            {"steps", "6"},         {"strength", "0.7"},  {"refine-shift", "3"},
                                            {"refine-guidance", "2"}, {"override", "true"}, {"grid", "diffusers"}};
    must(kn_options_init(&s->o));
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) set(s, values[i][0], values[i][1]);
    for (; (*more)[0]; more++) set(s, (*more)[0], (*more)[1]);
    must(kn_options_resolve(&s->o));
}

static void read_values(stage *s, const kn_safetensors *golden, const char *name, const kn_tensor *to)
{
    int64_t n;
    float *values = golden_floats(golden, &n, "%s", name);
    assert_int_equal(n, kn_tensor_count(to));
    must(kn_dev_upload(s->dev, values, to));
    kn_free(values);
}

static void open_context(stage *s, const kn_safetensors *golden, const char *name, kn_dit_context **out)
{
    kn_arena *arena;
    kn_tensor embeds;
    must(kn_arena_open(s->dev, 4096, &arena));
    must(kn_arena_take(arena, &embeds, KN_F32, 7, 16));
    read_values(s, golden, name, &embeds);
    must(kn_dit_context_open(s->dit, &embeds, NULL, out));
    kn_arena_close(&arena);
}

static void open_tensors(stage *s)
{
    kn_sampler *a = &s->sampler;
    const kn_geometry *g = &s->pass[1].geo;
    kn_tensor latent = kn_tensor_of(NULL, KN_F32, g->channels_lat, g->frames_lat, g->height_lat, g->width_lat);
    a->latents = a->velocity = a->velocity_negative = s->dual.latents = latent;
    s->dual.two = true;
    kn_tensor *tensors[] = {&a->latents, &a->velocity, &a->velocity_negative, &s->dual.latents};
    kn_dit_args args = kn_sampler_args(a);
    size_t bytes, other = 0;
    must(kn_dit_scratch_bytes(s->dit, &args, &bytes));
    if (a->dual) {
        kn_dit_args full = kn_sampler_full_args(a);
        must(kn_dit_scratch_bytes(s->dit, &full, &other));
    }
    bytes = bytes > other ? bytes : other;
    for (int i = 0; i < 4; i++) bytes += kn_tensor_bytes(tensors[i]) + 256;
    must(kn_arena_open(s->dev, bytes, &s->arena));
    must(kn_dit_contexts_open(s->dit, &s->rope, KN_DIT_ON_DEVICE, s->dual.blocks, 2, &s->dual.contexts));
    for (int i = 0; i < 4; i++) {
        kn_tensor shape = *tensors[i];
        must(kn_arena_tensor(s->arena, shape.dtype, shape.rank, shape.dim, tensors[i]));
    }
    a->scratch = s->arena;
}

static void open_stage(stage *s, const kn_safetensors *golden, const char *folder)
{
    int passes;
    must(kn_dit_open(s->dev, folder, &s->dit));
    const kn_dit_config *c = kn_dit_get_config(s->dit);
    must(kn_passes_build(&s->o, c, NULL, s->pass, &passes));
    assert_int_equal(passes, 2);
    const kn_pass *p = &s->pass[1];
    assert_true(p->attention == KN_ATTENTION_WINDOW);
    must(kn_pass_schedule(&s->o, p, &s->schedule));
    must(kn_pass_attention_build(p, c, s->dev, &s->attention));
    must(kn_dit_rope_open(s->dit, p->geo.frames_lat, p->geo.height_lat, p->geo.width_lat, s->attention.order, &s->rope));
    const int64_t latents[3] = {p->geo.frames_lat, p->geo.height_lat, p->geo.width_lat};
    if (p->fitted) must(kn_dit_rope_open_scaled(s->dit, latents, p->position_scale, s->attention.order, &s->full_rope));
    open_context(s, golden, "prompt", &s->context[0]);
    open_context(s, golden, "negative", &s->context[1]);
    s->dual = (kn_dual_path){.refresh = p->refresh, .negative_too = p->dual_negative};
    s->sampler = (kn_sampler){.name = p->name,
                              .dit = s->dit,
                              .rope = &s->rope,
                              .full_rope = p->fitted ? &s->full_rope : NULL,
                              .prompt = s->context[0],
                              .negative = s->context[1],
                              .guidance = p->guidance,
                              .attention = &s->attention,
                              .softmax_scale = p->temperature / sqrt(c->head_dim),
                              .dual = p->dual ? &s->dual : NULL,
                              .schedule = &s->schedule};
    open_tensors(s);
    must(kn_solver_open(s->dev, (kn_solver_kind)s->o.solver, &s->schedule, 4, s->sampler.latents.dim, &s->solver));
    s->sampler.solver = s->solver;
}

static void close_stage(stage *s)
{
    kn_solver_close(&s->solver);
    kn_dit_contexts_close(&s->dual.contexts);
    kn_arena_close(&s->arena);
    for (int i = 0; i < 2; i++) kn_dit_context_close(&s->context[i]);
    kn_dit_rope_close(&s->rope);
    kn_dit_rope_close(&s->full_rope);
    kn_pass_attention_free(&s->attention);
    kn_dit_close(&s->dit);
    kn_options_free(&s->o);
    kn_dev_close(&s->dev);
}

static void check(kn_dev_kind kind, const char *name, const char *const more[][2])
{
    char folder[1100];
    stage s = {0};
    int64_t n;
    snprintf(folder, sizeof folder, "%s/refine_dual", golden_dir);
    kn_safetensors *golden = golden_open("refine_dual/golden.safetensors");
    must(kn_dev_open(&(kn_dev_params){.kind = kind, .threads = 2}, &s.dev));
    set_options(&s, more);
    open_stage(&s, golden, folder);

    float *sigmas = golden_floats(golden, &n, "sigmas");
    assert_int_equal(n, s.schedule.steps - s.schedule.begin + 1);
    for (int64_t i = 0; i < n; i++) assert_true(fabs(s.schedule.sigma[s.schedule.begin + i] - sigmas[i]) < 1e-6);
    kn_free(sigmas);

    read_values(&s, golden, "latents", &s.sampler.latents);
    must(kn_sampler_run(&s.sampler, NULL, NULL));
    float *want = golden_floats(golden, &n, "%s", name), *got;
    must(kn_alloc_array((size_t)n, sizeof *got, (void **)&got));
    must(kn_dev_download(s.dev, &s.sampler.latents, got));
    double gap = relative_l2(got, want, n);
    print_message("%s on %s: relative L2 %.2g\n", name, kn_dev_kind_name(kind), gap);
    assert_true(gap <= bound);
    kn_free(got);
    kn_free(want);
    close_stage(&s);
    kn_safetensors_close(&golden);
}

static void check_both(const char *name, const char *const more[][2])
{
    check(KN_DEV_REF, name, more);
    check(KN_DEV_CPU, name, more);
}

static void both_prompts_at_every_step(void **state)
{
    (void)state;
    check_both("refresh.1", (const char *const[][2]){{"refresh", "1"}, {NULL, NULL}});
}

static void prompt_at_every_second_step(void **state)
{
    (void)state;
    check_both("refresh.2", (const char *const[][2]){{"refresh", "2"}, {NULL, NULL}});
}

static void fitted_positions(void **state)
{
    (void)state;
    check_both("fitted", (const char *const[][2]){{"refresh", "1"}, {"full-positions", "fitted"}, {NULL, NULL}});
}

static void fitted_first_steps(void **state)
{
    (void)state;
    check_both("dense steps", (const char *const[][2]){
                                  {"override", "false"}, {"dense-steps", "2"}, {"full-positions", "fitted"}, {NULL, NULL}});
}

int main(int argc, char **argv)
{
    golden_main_args(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(both_prompts_at_every_step), cmocka_unit_test(prompt_at_every_second_step),
                                       cmocka_unit_test(fitted_positions), cmocka_unit_test(fitted_first_steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
