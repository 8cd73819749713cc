/* The UMT5 encoder against transformers' UMT5EncoderModel, tap by tap. Data:
 * tools/golden_text.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "io/memory.h"
#include "io/safetensors.h"
#include "text/umt5.h"

/* float32 on both sides with sums of up to 512 terms: the reference's own error against float64 is
 * a few 1e-7; a wrong formula shows as 1e-3 and more. */
static const double bound = 1e-5;

/* The first argument names another data folder (tools/deep_parity.py). */
static const char *data_folder = KN_TEST_DATA;

static kn_safetensors *open_file(const char *name, const char *file)
{
    kn_safetensors *st = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/%s%s", data_folder, name, file);
    if (kn_safetensors_open(path, NULL, &st) != KN_OK) fail_msg("%s", kn_error_text());
    return st;
}

static void *new_bytes(size_t bytes)
{
    void *p;
    assert_int_equal(kn_alloc_zero(bytes, &p), KN_OK);
    return p;
}

/* |got - want|_2 / |want|_2 */
static double relative_l2(const float *got, const void *want, int64_t count)
{
    double error = 0.0, norm = 0.0;
    for (int64_t i = 0; i < count; i++) {
        float w;
        memcpy(&w, (const char *)want + 4 * i, sizeof w);
        error += ((double)got[i] - w) * ((double)got[i] - w);
        norm += (double)w * w;
    }
    return sqrt(error / norm);
}

typedef struct watch {
    const char *name;
    kn_safetensors *taps;
    kn_dev *dev;
    int seen;
    double worst;
} watch;

/* Stops the encoder at the first tap over the bound. */
static kn_status compare_tap(void *user, const char *name, const kn_tensor *t)
{
    watch *w = user;
    const kn_st_tensor *want = kn_safetensors_find(w->taps, name, NULL);
    assert_non_null(want);
    assert_int_equal(t->dim[0], want->dim[0]);
    assert_int_equal(t->dim[1], want->dim[1]);
    float *got = new_bytes(want->bytes);
    kn_status st = kn_dev_download(w->dev, t, got);
    double error = relative_l2(got, want->data, kn_tensor_count(t));
    kn_free(got);
    if (st != KN_OK) return st;
    w->seen++;
    if (error > w->worst) w->worst = error;
    if (!(error <= bound))
        return kn_fail(KN_ERR_NUMERIC, "first wrong tap: %s/%s: relative L2 %.3g, bound %.3g",
                       w->name, name, error, bound);
    return KN_OK;
}

static void expect_encoder(const char *name, kn_dev_kind kind)
{
    kn_dev *dev = NULL;
    kn_umt5 *m = NULL;
    kn_arena *arena = NULL;
    void *data;
    size_t scratch, bytes;
    kn_safetensors *taps = open_file(name, "/taps.safetensors");
    const kn_st_tensor *ids = kn_safetensors_find(taps, "ids", NULL);
    const kn_st_tensor *padded = kn_safetensors_find(taps, "padded", NULL);
    assert_non_null(ids);
    assert_non_null(padded);
    char folder[512];
    snprintf(folder, sizeof folder, "%s/%s", data_folder, name);
    assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = kind, .threads = 2}, &dev), KN_OK);
    if (kn_umt5_open(dev, folder, &m) != KN_OK) fail_msg("%s", kn_error_text());
    if (kn_umt5_scratch_bytes(m, (int)ids->dim[0], &scratch) != KN_OK)
        fail_msg("%s", kn_error_text());
    assert_int_equal(kn_arena_open(dev, scratch, &arena), KN_OK);
    bytes = padded->bytes;
    assert_int_equal(kn_dev_alloc(dev, bytes, &data), KN_OK);
    int32_t *list = new_bytes(ids->bytes);
    memcpy(list, ids->data, ids->bytes);

    watch w = {.name = name, .taps = taps, .dev = dev};
    kn_umt5_args args = {.ids = list,
                         .count = (int)ids->dim[0],
                         .out = kn_tensor_of(data, KN_F32, padded->dim[0], padded->dim[1]),
                         .scratch = arena,
                         .tap = compare_tap,
                         .tap_user = &w};
    if (kn_umt5_encode(m, &args) != KN_OK)
        fail_msg("%s on %s: %s", name, kn_dev_describe(dev), kn_error_text());
    assert_int_equal(w.seen, 2 + 2 * kn_umt5_get_config(m)->num_layers);
    float *got = new_bytes(bytes);
    assert_int_equal(kn_dev_download(dev, &args.out, got), KN_OK);
    double error = relative_l2(got, padded->data, kn_tensor_count(&args.out));
    print_message("%s on %s: worst tap %.2e, padded %.2e, scratch %zu bytes\n", name,
                  kn_dev_kind_name(kind), w.worst, error, scratch);
    assert_true(error <= bound);
    int64_t d = padded->dim[1];
    for (int64_t i = args.count * d; i < padded->dim[0] * d; i++) assert_true(got[i] == 0.0f);

    kn_free(got);
    kn_free(list);
    kn_dev_free(dev, data, bytes);
    kn_arena_close(&arena);
    kn_umt5_close(&m);
    kn_dev_close(&dev);
    kn_safetensors_close(&taps);
}

static void ref_matches_transformers(void **state)
{
    (void)state;
    expect_encoder("umt5_plain", KN_DEV_REF);
    expect_encoder("umt5_bf16", KN_DEV_REF);
    expect_encoder("umt5_long", KN_DEV_REF);
}

static void cpu_matches_transformers(void **state)
{
    (void)state;
    expect_encoder("umt5_plain", KN_DEV_CPU);
    expect_encoder("umt5_bf16", KN_DEV_CPU);
    expect_encoder("umt5_long", KN_DEV_CPU);
}

static void buckets_are_torchs(void **state)
{
    (void)state;
    kn_safetensors *file = open_file("umt5_buckets.safetensors", "");
    assert_int_equal(kn_safetensors_count(file), 8);
    for (int i = 0; i < kn_safetensors_count(file); i++) {
        const kn_st_tensor *t = kn_safetensors_at(file, i);
        kn_umt5_config c = {0};
        assert_int_equal(sscanf(t->name, "%d_%d", &c.relative_attention_num_buckets,
                                &c.relative_attention_max_distance),
                         2);
        int64_t far = t->dim[0] / 2;
        for (int64_t d = -far; d <= far; d++) {
            int32_t want;
            memcpy(&want, (const char *)t->data + 4 * (d + far), sizeof want);
            int got = kn_umt5_bucket(&c, d);
            if (got != want)
                fail_msg("%s: distance %d: bucket %d, torch has %d", t->name, (int)d, got, want);
        }
    }
    kn_safetensors_close(&file);
}

int main(int argc, char **argv)
{
    if (argc > 1) data_folder = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_torchs),
        cmocka_unit_test(ref_matches_transformers),
        cmocka_unit_test(cpu_matches_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
