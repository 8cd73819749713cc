/* kn_noise_normal() gives the bytes of torch.randn. Data: tools/golden_noise.py. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "io/memory.h"
#include "io/safetensors.h"
#include "pipeline/noise.h"

static kn_safetensors *data;

static int setup(void **state)
{
    (void)state;
    return kn_safetensors_open(KN_TEST_DATA "/pipeline_noise.safetensors", NULL, &data) != KN_OK;
}

static int teardown(void **state)
{
    (void)state;
    kn_safetensors_close(&data);
    return 0;
}

static float *new_floats(int64_t count)
{
    void *p;
    assert_int_equal(kn_alloc_array((size_t)count, sizeof(float), &p), KN_OK);
    return p;
}

/* Draws of 1 to 40 values: the scalar form, the vector form and its redrawn tail. */
static void one_draw_is_torch(void **state)
{
    (void)state;
    int seen = 0;
    for (int i = 0; i < kn_safetensors_count(data); i++) {
        const kn_st_tensor *t = kn_safetensors_at(data, i);
        uint64_t seed;
        int64_t count;
        if (sscanf(t->name, "one/%" SCNu64 "/%" SCNd64, &seed, &count) != 2) continue;
        float *got = new_floats(count);
        kn_noise gen;
        kn_noise_init(&gen, seed);
        kn_noise_normal(&gen, got, count);
        if (memcmp(got, t->data, t->bytes) != 0) fail_msg("%s differs", t->name);
        kn_free(got);
        seen++;
    }
    assert_int_equal(seen, 7 * 40);
}

/* A spare value of the scalar form outlives vector draws, as in torch. */
static void consecutive_draws_continue_the_stream(void **state)
{
    (void)state;
    int seen = 0;
    for (int i = 0; i < kn_safetensors_count(data); i++) {
        const kn_st_tensor *want = kn_safetensors_at(data, i);
        uint64_t seed;
        char name[64];
        if (sscanf(want->name, "stream/%" SCNu64, &seed) != 1) continue;
        snprintf(name, sizeof name, "counts/%" PRIu64, seed);
        const kn_st_tensor *counts = kn_safetensors_find(data, name, NULL);
        assert_non_null(counts);
        kn_noise gen;
        kn_noise_init(&gen, seed);
        size_t at = 0;
        for (int64_t c = 0; c < counts->dim[0]; c++) {
            int64_t count;
            memcpy(&count, (const char *)counts->data + 8 * c, sizeof count);
            float *got = new_floats(count);
            kn_noise_normal(&gen, got, count);
            assert_true(at + (size_t)count * 4 <= want->bytes);
            if (memcmp(got, (const char *)want->data + at, (size_t)count * 4) != 0)
                fail_msg("%s differs in draw %d of %d values", want->name, (int)c, (int)count);
            kn_free(got);
            at += (size_t)count * 4;
        }
        assert_int_equal(at, want->bytes);
        seen++;
    }
    assert_int_equal(seen, 7);
}

static uint64_t fnv1a64(const void *bytes, size_t count)
{
    const unsigned char *p = bytes;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < count; i++) h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

static void large_draws_hash_like_torch(void **state)
{
    (void)state;
    const kn_st_tensor *t = kn_safetensors_find(data, "hash", NULL);
    assert_non_null(t);
    for (int64_t i = 0; i < t->dim[0]; i++) {
        uint64_t row[3]; /* seed, count, hash */
        memcpy(row, (const char *)t->data + i * (int64_t)sizeof row, sizeof row);
        float *got = new_floats((int64_t)row[1]);
        kn_noise gen;
        kn_noise_init(&gen, row[0]);
        kn_noise_normal(&gen, got, (int64_t)row[1]);
        uint64_t hash = fnv1a64(got, row[1] * 4);
        kn_free(got);
        if (hash != row[2])
            fail_msg("seed %" PRIu64 ", %" PRIu64 " values: hash %" PRIx64 ", torch has %" PRIx64,
                     row[0], row[1], hash, row[2]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_draw_is_torch),
        cmocka_unit_test(consecutive_draws_continue_the_stream),
        cmocka_unit_test(large_draws_hash_like_torch),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
