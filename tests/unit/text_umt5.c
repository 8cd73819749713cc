/* What the text encoder refuses, and what it measures. Values against transformers:
 * tests/golden/text_umt5.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/atomic_file.h"
#include "io/memory.h"
#include "io/safetensors.h"
#include "text/umt5.h"

#define MODEL KN_SOURCE_DIR "/tests/golden/data/umt5_plain"

enum { TENSORS = 64 };

static char folder[64];

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/kn_umt5_XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json", "model.safetensors"};
    for (int i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

/* config.json of the model with one text replaced, written to the folder. */
static void write_config(const char *from, const char *to)
{
    char *text, path[128];
    size_t size;
    assert_int_equal(kn_file_read(MODEL "/config.json", 1 << 16, &text, &size), KN_OK);
    char *at = from ? strstr(text, from) : text + size;
    assert_non_null(at);
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    size_t before = (size_t)(at - text), skip = from ? strlen(from) : 0;
    fwrite(text, 1, before, f);
    fputs(from ? to : "", f);
    fwrite(at + skip, 1, size - before - skip, f);
    assert_int_equal(fclose(f), 0);
    kn_free(text);
}

/* The model's tensors, with the one called `name` renamed to `other` (NULL: left out). */
static void write_weights(const char *name, const char *other)
{
    kn_safetensors *in = NULL;
    kn_st_tensor t[TENSORS];
    char path[128];
    int count = 0;
    assert_int_equal(kn_safetensors_open(MODEL, "model", &in), KN_OK);
    assert_true(kn_safetensors_count(in) <= TENSORS);
    for (int i = 0; i < kn_safetensors_count(in); i++) {
        t[count] = *kn_safetensors_at(in, i);
        if (name && strcmp(t[count].name, name) == 0) {
            if (!other) continue;
            t[count].name = other;
        }
        count++;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(kn_safetensors_write(path, t, count, NULL), KN_OK);
    kn_safetensors_close(&in);
}

static void expect_failure(kn_status got, kn_status want, const char *words)
{
    if (got != want || !strstr(kn_error_text(), words))
        fail_msg("status %s: \"%s\"; expected %s with \"%s\"", kn_status_name(got), kn_error_text(),
                 kn_status_name(want), words);
}

static void other_networks_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *words;
        kn_status status;
    } edits[] = {
        {"\"model_type\": \"umt5\"", "\"model_type\": \"t5\"", "model_type", KN_ERR_UNSUPPORTED},
        {"\"gated-gelu\"", "\"relu\"", "feed_forward_proj", KN_ERR_UNSUPPORTED},
        {"\"gelu_new\"", "\"silu\"", "dense_act_fn", KN_ERR_UNSUPPORTED},
        {"\"is_gated_act\": true", "\"is_gated_act\": false", "is_gated_act", KN_ERR_UNSUPPORTED},
        {"\"model_type\"", "\"model_kind\"", "model_type", KN_ERR_MODEL},
        {"\"d_kv\"", "\"d_vk\"", "d_kv", KN_ERR_FORMAT},
        {"\"num_heads\": 4", "\"num_heads\": 0", "num_heads", KN_ERR_FORMAT},
        {"\"relative_attention_num_buckets\": 32", "\"relative_attention_num_buckets\": 30",
         "relative_attention_num_buckets", KN_ERR_MODEL},
        {"\"relative_attention_max_distance\": 128", "\"relative_attention_max_distance\": 8",
         "relative_attention_num_buckets", KN_ERR_MODEL},
    };
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", folder);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        kn_umt5_config c;
        write_config(edits[i].from, edits[i].to);
        expect_failure(kn_umt5_config_read(path, &c), edits[i].status, edits[i].words);
    }
}

static void every_dimension_is_read(void **state)
{
    (void)state;
    kn_umt5_config c;
    assert_int_equal(
        kn_umt5_config_read(KN_SOURCE_DIR "/tests/golden/data/umt5_bf16/config.json", &c), KN_OK);
    assert_int_equal(c.d_model, 24);
    assert_int_equal(c.d_kv, 16);
    assert_int_equal(c.num_heads, 3);
    assert_int_equal(c.d_ff, 40);
    assert_int_equal(c.num_layers, 3);
    assert_int_equal(c.vocab_size, 90);
    assert_int_equal(c.relative_attention_num_buckets, 8);
    assert_int_equal(c.relative_attention_max_distance, 20);
    assert_true(c.layer_norm_epsilon == 1e-6);
}

static kn_status open_on(kn_dev_kind kind)
{
    kn_dev *d = NULL;
    kn_umt5 *m = NULL;
    assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = kind, .threads = 1}, &d), KN_OK);
    kn_status st = kn_umt5_open(d, folder, &m);
    assert_int_equal(st == KN_OK, m != NULL);
    kn_umt5_close(&m);
    assert_int_equal(kn_dev_bytes_now(d), 0);
    kn_dev_close(&d);
    return st;
}

static void weights_must_fit(void **state)
{
    (void)state;
    static const char norm[] = "encoder.final_layer_norm.weight";
    write_config(NULL, NULL);
    write_weights(NULL, NULL);
    assert_int_equal(open_on(KN_DEV_REF), KN_OK);
    write_weights("shared.weight", "encoder.embed_tokens.weight");
    assert_int_equal(open_on(KN_DEV_REF), KN_OK);
    write_weights(norm, NULL);
    expect_failure(open_on(KN_DEV_REF), KN_ERR_MODEL, norm);
    write_weights(norm, "encoder.final_layer_norm.bias");
    expect_failure(open_on(KN_DEV_REF), KN_ERR_MODEL, norm);
    write_weights("shared.weight", NULL);
    expect_failure(open_on(KN_DEV_REF), KN_ERR_MODEL, "shared.weight");
    write_weights(NULL, NULL);
    write_config("\"d_ff\": 48", "\"d_ff\": 40");
    expect_failure(open_on(KN_DEV_REF), KN_ERR_MODEL, "wi_0");
    write_config("\"num_layers\": 2", "\"num_layers\": 1");
    expect_failure(open_on(KN_DEV_REF), KN_ERR_MODEL, "encoder.block.1");
}

typedef struct rig {
    kn_dev *d;
    kn_umt5 *m;
    kn_arena *arena;
    float out[8 * 32];
} rig;

static void open_rig(rig *r, kn_dev_kind kind, int count)
{
    size_t bytes;
    *r = (rig){0};
    assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = kind, .threads = 1}, &r->d), KN_OK);
    assert_int_equal(kn_umt5_open(r->d, MODEL, &r->m), KN_OK);
    assert_int_equal(kn_umt5_scratch_bytes(r->m, count, &bytes), KN_OK);
    assert_int_equal(kn_arena_open(r->d, bytes, &r->arena), KN_OK);
}

static void close_rig(rig *r)
{
    kn_arena_close(&r->arena);
    kn_umt5_close(&r->m);
    kn_dev_close(&r->d);
}

static void arguments_are_checked(void **state)
{
    (void)state;
    rig r;
    open_rig(&r, KN_DEV_REF, 3);
    int32_t ids[3] = {5, 6, 1};
    kn_umt5_args args = {
        .ids = ids, .count = 3, .scratch = r.arena, .out = kn_tensor_of(r.out, KN_F32, 2, 32)};
    expect_failure(kn_umt5_encode(r.m, &args), KN_ERR_ARG, "at least 3 rows");
    args.out = kn_tensor_of(r.out, KN_F32, 8, 16);
    expect_failure(kn_umt5_encode(r.m, &args), KN_ERR_ARG, "rows of 32");
    args.out = kn_tensor_of(r.out, KN_F32, 8, 32);
    ids[1] = 100; /* the vocabulary has 100 rows */
    expect_failure(kn_umt5_encode(r.m, &args), KN_ERR_ARG, "100");
    ids[1] = -1;
    expect_failure(kn_umt5_encode(r.m, &args), KN_ERR_ARG, "-1");
    args.count = 0;
    for (int i = 0; i < 8 * 32; i++) r.out[i] = 7.0f;
    assert_int_equal(kn_umt5_encode(r.m, &args), KN_OK);
    for (int i = 0; i < 8 * 32; i++) assert_true(r.out[i] == 0.0f);
    close_rig(&r);
}

/* The measured scratch is exactly what a run takes: a byte less does not do. */
static void scratch_is_exact(void **state)
{
    (void)state;
    static const kn_dev_kind kinds[] = {KN_DEV_REF, KN_DEV_CPU};
    for (int i = 0; i < 2; i++) {
        rig r;
        open_rig(&r, kinds[i], 5);
        int32_t ids[5] = {9, 8, 7, 6, 1};
        kn_umt5_args args = {
            .ids = ids, .count = 5, .scratch = r.arena, .out = kn_tensor_of(r.out, KN_F32, 8, 32)};
        assert_int_equal(kn_umt5_encode(r.m, &args), KN_OK);
        size_t bytes = kn_arena_peak(r.arena), want;
        assert_int_equal(kn_umt5_scratch_bytes(r.m, 5, &want), KN_OK);
        assert_int_equal(bytes, want);
        kn_arena_close(&r.arena);
        assert_int_equal(kn_arena_open(r.d, bytes - 1, &r.arena), KN_OK);
        args.scratch = r.arena;
        assert_int_equal(kn_umt5_encode(r.m, &args), KN_ERR_NOMEM);
        close_rig(&r);
    }
}

/* Weights counted on the measure device are those that the device then holds. */
static void measured_weights_are_the_opened_ones(void **state)
{
    (void)state;
    kn_dev *cpu = NULL, *measure = NULL;
    kn_umt5 *a = NULL, *b = NULL;
    assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1}, &cpu), KN_OK);
    assert_int_equal(
        kn_dev_open(&(kn_dev_params){.kind = KN_DEV_MEASURE, .measured = KN_DEV_CPU}, &measure),
        KN_OK);
    assert_int_equal(kn_umt5_open(cpu, MODEL, &a), KN_OK);
    assert_int_equal(kn_umt5_open(measure, MODEL, &b), KN_OK);
    assert_int_equal(kn_dev_bytes_now(cpu), kn_dev_bytes_now(measure));
    assert_true(kn_dev_bytes_now(cpu) > 0);
    kn_umt5_close(&a);
    kn_umt5_close(&b);
    kn_dev_close(&cpu);
    kn_dev_close(&measure);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_networks_are_refused),
        cmocka_unit_test(every_dimension_is_read),
        cmocka_unit_test(weights_must_fit),
        cmocka_unit_test(arguments_are_checked),
        cmocka_unit_test(scratch_is_exact),
        cmocka_unit_test(measured_weights_are_the_opened_ones),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
