/* The transformer against diffusers' WanTransformer3DModel, operation by operation, on every case
 * folder dit_* of the data (tools/golden_dit.py). The first line printed as wrong names the first
 * wrong operation.
 */
#include "compare.h"

#include <dirent.h>

#include "dit/dit.h"

/* Relative L2. Both sides compute in float32 with sums in different orders: about 1e-7 sqrt(K) per
 * product, K <= 300 here, through up to three blocks. 1e-5 leaves no room for a wrong formula. */
static const double bound = 1e-5;

typedef struct tap_check {
    kn_dev *dev;
    const kn_safetensors *golden;
    const char *label;
    int64_t tokens;
    const kn_dit_rope *rope; /* NULL: rows are not tokens */
    int seen, wrong;
    double worst;
} tap_check;

/* Rows of reference tokens, raster, into the order that ours has. */
static void to_token_order(const tap_check *c, float *want, int64_t count)
{
    int64_t width = count / c->tokens;
    void *p;
    must(kn_alloc_array((size_t)count, sizeof(float), &p));
    float *copy = p;
    memcpy(copy, want, (size_t)count * sizeof(float));
    for (int64_t l = 0; l < c->tokens; l++)
        memcpy(want + l * width, copy + c->rope->order[l] * width, (size_t)width * sizeof(float));
    kn_free(copy);
}

static kn_status compare_tap(void *user, const char *name, const kn_tensor *t)
{
    tap_check *c = user;
    int64_t n;
    float *want = golden_floats(c->golden, &n, "tap/%s", name);
    void *p;
    must(kn_alloc_array((size_t)n, sizeof(float), &p));
    float *got = p;
    assert_int_equal(kn_tensor_count(t), n);
    must(kn_dev_download(c->dev, t, got));
    bool per_token =
        t->rank == 2 && t->dim[0] == c->tokens && c->rope && strcmp(name, "timestep_proj");
    if (per_token && c->rope->order) to_token_order(c, want, n);
    double gap = relative_l2(got, want, n);
    if (!(gap <= bound)) {
        print_message("%s: %s is wrong: relative L2 %.3g, bound %.3g\n", c->label, name, gap,
                      bound);
        c->wrong++;
    }
    c->worst = fmax(c->worst, gap);
    c->seen++;
    kn_free(want);
    kn_free(got);
    return KN_OK;
}

static kn_tensor upload(kn_dev *d, const kn_safetensors *golden, const char *name)
{
    const kn_st_tensor *st = kn_safetensors_find(golden, name, NULL);
    assert_non_null(st);
    kn_tensor t = kn_tensor_make(NULL, KN_F32, st->rank, st->dim);
    float *values = golden_floats(golden, NULL, "%s", name);
    must(kn_dev_alloc(d, kn_tensor_bytes(&t), &t.data));
    must(kn_dev_upload(d, values, &t));
    kn_free(values);
    return t;
}

static float scalar(const kn_safetensors *golden, const char *name)
{
    float *p = golden_floats(golden, NULL, "%s", name), value = p[0];
    kn_free(p);
    return value;
}

/* A folder with a config.json is a model folder; without one, its single file is. */
static void open_model(kn_dev *d, const char *folder, kn_dit **m)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "r");
    if (f) fclose(f);
    snprintf(path, sizeof path, "%s%s", folder, f ? "" : "/diffusion_pytorch_model.safetensors");
    must(kn_dit_open(d, path, m));
}

static int taps_in(const kn_safetensors *golden)
{
    int n = 0;
    for (int i = 0; i < kn_safetensors_count(golden); i++)
        n += strncmp(kn_safetensors_at(golden, i)->name, "tap/", 4) == 0;
    return n;
}

static void check_case(kn_dev *d, const char *name)
{
    char folder[1100], label[300];
    snprintf(folder, sizeof folder, "%s/%s", golden_dir, name);
    snprintf(label, sizeof label, "%s on %s", name, kn_dev_kind_name(kn_dev_get_kind(d)));
    size_t before = kn_dev_bytes_now(d);
    kn_safetensors *golden = NULL;
    kn_dit *m = NULL;
    kn_dit_context *context = NULL;
    kn_arena *arena = NULL;
    kn_dit_rope rope;
    char path[1200];
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    must(kn_safetensors_open(path, NULL, &golden));
    open_model(d, folder, &m);

    kn_tensor embeds = upload(d, golden, "embeds"), latents = upload(d, golden, "latents");
    kn_tensor velocity = latents;
    velocity = kn_tensor_of(NULL, KN_F32, kn_dit_get_config(m)->out_channels, latents.dim[1],
                            latents.dim[2], latents.dim[3]);
    must(kn_dev_alloc(d, kn_tensor_bytes(&velocity), &velocity.data));
    const kn_st_tensor *order = kn_safetensors_find(golden, "order", NULL);
    must(kn_dit_rope_open(m, latents.dim[1], latents.dim[2], latents.dim[3],
                          order ? order->data : NULL, &rope));
    tap_check check = {.dev = d, .golden = golden, .label = label, .tokens = rope.tokens};
    kn_dit_tap tap = {compare_tap, &check};
    must(kn_dit_context_open(m, &embeds, &tap, &context));
    check.rope = &rope;
    kn_dit_args args = {.context = context,
                        .rope = &rope,
                        .latents = latents,
                        .timestep = scalar(golden, "timestep"),
                        .velocity = velocity,
                        .tap = tap,
                        .softmax_scale = scalar(golden, "softmax_scale")};
    size_t bytes;
    must(kn_dit_scratch_bytes(m, &args, &bytes));
    must(kn_arena_open(d, bytes, &arena)); /* exactly what was measured */
    args.scratch = arena;
    must(kn_dit_forward(m, &args));
    /* The measure device sizes attention as cpu does, which ref needs less than. */
    if (kn_dev_get_kind(d) == KN_DEV_CPU)
        assert_int_equal(kn_arena_peak(arena), bytes);
    else
        assert_true(kn_arena_peak(arena) <= bytes);
    assert_int_equal(kn_arena_get_mark(arena), 0);
    assert_int_equal(check.seen, taps_in(golden));
    print_message("%s: %d tensors, worst relative L2 %.2g\n", label, check.seen, check.worst);

    kn_arena_close(&arena);
    kn_dit_context_close(&context);
    kn_dit_rope_close(&rope);
    kn_dit_close(&m);
    kn_dev_free(d, embeds.data, kn_tensor_bytes(&embeds));
    kn_dev_free(d, latents.data, kn_tensor_bytes(&latents));
    kn_dev_free(d, velocity.data, kn_tensor_bytes(&velocity));
    kn_safetensors_close(&golden);
    assert_int_equal(kn_dev_bytes_now(d), before);
    assert_int_equal(check.wrong, 0);
}

static void check_all(kn_dev_kind kind)
{
    kn_dev *d = NULL;
    must(kn_dev_open(&(kn_dev_params){.kind = kind, .threads = 2}, &d));
    DIR *dir = opendir(golden_dir);
    assert_non_null(dir);
    int cases = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strncmp(e->d_name, "dit_", 4) != 0) continue;
        check_case(d, e->d_name);
        cases++;
    }
    closedir(dir);
    kn_dev_close(&d);
    assert_true(cases > 0);
}

static void ref_equals_diffusers(void **state)
{
    (void)state;
    check_all(KN_DEV_REF);
}

static void cpu_equals_diffusers(void **state)
{
    (void)state;
    check_all(KN_DEV_CPU);
}

int main(int argc, char **argv)
{
    golden_main_args(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(ref_equals_diffusers),
                                       cmocka_unit_test(cpu_equals_diffusers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
