/* tests/unit/compute_device.c - opening, device memory, arena, and the measure device against
 * cpu. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "compute/ops.h"
#include "io/memory.h"

static kn_dev *open_kind(kn_dev_kind kind)
{
    kn_dev *d;
    kn_dev_params p = {.kind = kind, .threads = 2, .measured = KN_DEV_CPU};
    assert_int_equal(kn_dev_open(&p, &d), KN_OK);
    return d;
}

/* With a GPU it opens; without one, the first thing that is missing is named. */
static void opening_cuda(void **state)
{
    (void)state;
    kn_dev *d;
    kn_status st = kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CUDA}, &d);
    if (st == KN_OK) {
        assert_int_equal(kn_dev_activation_dtype(d), KN_BF16);
        kn_dev_close(&d);
        assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CUDA, .ordinal = 99}, &d),
                         KN_ERR_ARG);
    } else {
        assert_int_equal(st, KN_ERR_UNSUPPORTED);
        assert_non_null(strstr(kn_error_text(), "device cuda: "));
    }
    assert_null(d);
}

static void opening(void **state)
{
    (void)state;
    kn_dev *d = open_kind(KN_DEV_REF);
    assert_int_equal(kn_dev_get_kind(d), KN_DEV_REF);
    assert_string_equal(kn_dev_describe(d), "ref, 2 threads");
    assert_int_equal(kn_dev_threads(d), 2);
    kn_dev_close(&d);
    assert_null(d);
    kn_dev_close(&d);
    assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = -1}, &d),
                     KN_ERR_ARG);
    assert_null(d);
    assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .isa_mask = 4}, &d),
                     KN_ERR_ARG);
    assert_int_equal(
        kn_dev_open(&(kn_dev_params){.kind = KN_DEV_MEASURE, .measured = KN_DEV_MEASURE}, &d),
        KN_ERR_ARG);
    assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = (kn_dev_kind)99}, &d), KN_ERR_ARG);
    assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .isa_mask = 1}, &d), KN_OK);
    assert_int_equal(kn_dev_isa(d), 1);
    kn_dev_close(&d);
    assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU}, &d), KN_OK);
    assert_true(kn_dev_threads(d) >= 1);
    kn_dev_close(&d);
}

/* Opening fails cleanly whichever allocation fails; leaks are found by the sanitizer build. */
static void opening_without_memory(void **state)
{
    (void)state;
    kn_dev *d = NULL;
    kn_status st = KN_ERR_NOMEM;
    for (long k = 1; st != KN_OK; k++) {
        assert_true(k < 100);
        kn_memory_fail_at(k);
        st = kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 2}, &d);
        kn_memory_fail_at(0);
        if (st != KN_OK) {
            assert_int_equal(st, KN_ERR_NOMEM);
            assert_null(d);
        }
    }
    kn_dev_close(&d);
}

static void bytes_are_counted(void **state)
{
    (void)state;
    kn_dev *d = open_kind(KN_DEV_CPU);
    void *a, *b;
    assert_int_equal(kn_dev_alloc(d, 1000, &a), KN_OK);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_int_equal(kn_dev_alloc(d, 0, &b), KN_OK);
    assert_int_equal(kn_dev_bytes_now(d), 1000);
    kn_dev_free(d, a, 1000);
    kn_dev_free(d, b, 0);
    kn_dev_free(d, NULL, 77);
    assert_int_equal(kn_dev_bytes_now(d), 0);
    assert_int_equal(kn_dev_bytes_peak(d), 1000);
    kn_dev_reset_peak(d);
    assert_int_equal(kn_dev_bytes_peak(d), 0);
    kn_memory_fail_at(1);
    assert_int_equal(kn_dev_alloc(d, 64, &a), KN_ERR_NOMEM);
    assert_int_equal(kn_dev_bytes_now(d), 0);
    kn_dev_close(&d);
}

#ifndef NDEBUG
static void fresh_memory_is_nan(void **state)
{
    (void)state;
    kn_dev *d = open_kind(KN_DEV_CPU);
    void *p;
    assert_int_equal(kn_dev_alloc(d, 64, &p), KN_OK);
    assert_true(isnan(((float *)p)[15]));
    kn_dev_free(d, p, 64);
    kn_arena *a;
    kn_tensor t;
    assert_int_equal(kn_arena_open(d, 1024, &a), KN_OK);
    assert_int_equal(kn_arena_take(a, &t, KN_F32, 8), KN_OK);
    memset(t.data, 0, 32);
    kn_arena_reset(a, 0);
    assert_int_equal(kn_arena_take(a, &t, KN_F32, 8), KN_OK);
    assert_true(isnan(((float *)t.data)[0])); /* also when it is handed out again */
    kn_arena_close(&a);
    kn_dev_close(&d);
}
#endif

static void transfers(void **state)
{
    (void)state;
    kn_dev *d = open_kind(KN_DEV_CPU);
    float host[6] = {1, 2, 3, 4, 5, 6}, back[6] = {0};
    kn_tensor t = kn_tensor_of(NULL, KN_F32, 2, 3);
    assert_int_equal(kn_dev_alloc(d, kn_tensor_bytes(&t), &t.data), KN_OK);
    assert_int_equal(kn_dev_upload(d, host, &t), KN_OK);
    assert_int_equal(kn_dev_download(d, &t, back), KN_OK);
    assert_memory_equal(host, back, sizeof host);
    assert_int_equal(kn_dev_sync(d), KN_OK);
    kn_tensor columns = kn_tensor_slice(&t, 1, 0, 2);
    assert_int_equal(kn_dev_upload(d, host, &columns), KN_ERR_ARG);
    assert_non_null(strstr(kn_error_text(), "not contiguous"));
    kn_dev_free(d, t.data, kn_tensor_bytes(&t));
    kn_dev_close(&d);
}

static void arena_hands_out(void **state)
{
    (void)state;
    kn_dev *d = open_kind(KN_DEV_CPU);
    kn_arena *a;
    kn_tensor t, u;
    assert_int_equal(kn_arena_open(d, 1024, &a), KN_OK);
    assert_ptr_equal(kn_arena_dev(a), d);
    assert_int_equal(kn_arena_take(a, &t, KN_F32, 3, 5), KN_OK);
    assert_int_equal(t.rank, 2);
    kn_arena_mark mark = kn_arena_get_mark(a);
    assert_int_equal(kn_arena_take(a, &u, KN_BF16, 7), KN_OK);
    assert_ptr_not_equal(t.data, u.data);
    void *place = u.data;
    kn_arena_reset(a, mark);
    assert_int_equal(kn_arena_take(a, &u, KN_BF16, 9), KN_OK);
    assert_ptr_equal(u.data, place);
    assert_int_equal(kn_arena_peak(a), 512);
    assert_int_equal(kn_arena_take(a, &u, KN_F32, 1000), KN_ERR_NOMEM);
    assert_non_null(strstr(kn_error_text(), "f32[1000]"));
    assert_non_null(strstr(kn_error_text(), "512 of 1024"));
    assert_int_equal(kn_arena_take(a, &u, KN_F32, -1), KN_ERR_ARG);
    assert_int_equal(kn_arena_take(a, &u, KN_F32, INT64_MAX, INT64_MAX), KN_ERR_ARG);
    assert_int_equal(kn_arena_take(a, &u, KN_F32, 0), KN_OK);
    kn_arena_close(&a);
    kn_arena_close(&a);
    assert_int_equal(kn_dev_bytes_now(d), 0);
    kn_dev_close(&d);
}

/* A small network: what it takes is the same on cpu and measured. */
static void run_network(kn_dev *d, size_t arena_bytes, size_t *peak, size_t *weights)
{
    static uint16_t matrix[70 * 40];
    static float vector[70], kernel[20 * 3 * 27];
    kn_tensor hm = kn_tensor_of(matrix, KN_BF16, 70, 40), hv = kn_tensor_of(vector, KN_F32, 70);
    kn_tensor hk = kn_tensor_of(kernel, KN_F32, 20, 3, 3, 3, 3);
    kn_weight w, b, k;
    size_t before = kn_dev_bytes_now(d);
    assert_int_equal(kn_weight_open(d, KN_WEIGHT_LINEAR, &hm, &w), KN_OK);
    assert_int_equal(kn_weight_open(d, KN_WEIGHT_VECTOR, &hv, &b), KN_OK);
    assert_int_equal(kn_weight_open(d, KN_WEIGHT_CONV, &hk, &k), KN_OK);
    *weights = kn_dev_bytes_now(d) - before;
    assert_int_equal(*weights, w.bytes + b.bytes + k.bytes);
    kn_arena *a;
    kn_tensor x, y, v, o;
    assert_int_equal(kn_arena_open(d, arena_bytes, &a), KN_OK);
    assert_int_equal(kn_arena_take(a, &x, KN_F32, 9, 40), KN_OK);
    assert_int_equal(kn_arena_take(a, &y, KN_F32, 9, 70), KN_OK);
    kn_arena_mark mark = kn_arena_get_mark(a);
    assert_int_equal(kn_arena_take(a, &v, KN_F32, 3, 6, 7, 3), KN_OK);
    assert_int_equal(kn_arena_take(a, &o, KN_F32, 1, 4, 5, 20), KN_OK);
    if (kn_dev_get_kind(d) != KN_DEV_MEASURE) {
        memset(x.data, 0, kn_tensor_bytes(&x));
        memset(v.data, 0, kn_tensor_bytes(&v));
    }
    kn_conv_params p = {.stride = {1, 1, 1}};
    assert_int_equal(kn_linear(d, &x, &w, &b.t, KN_ACT_SILU, &y), KN_OK);
    assert_int_equal(kn_conv(d, &v, &k, KN_ABSENT, KN_ABSENT, &p, &o), KN_OK);
    kn_arena_reset(a, mark);
    *peak = kn_arena_peak(a);
    kn_arena_close(&a);
    kn_weight_close(d, &w);
    kn_weight_close(d, &b);
    kn_weight_close(d, &k);
    kn_weight_close(d, &k);
    assert_int_equal(kn_dev_bytes_now(d), before);
}

static void measure_equals_cpu(void **state)
{
    (void)state;
    size_t measured, measured_weights, peak, weights;
    kn_dev *m = open_kind(KN_DEV_MEASURE), *d = open_kind(KN_DEV_CPU);
    run_network(m, 0, &measured, &measured_weights);
    run_network(d, measured, &peak, &weights); /* exactly what was measured is enough */
    assert_int_equal(peak, measured);
    assert_int_equal(weights, measured_weights);
    assert_int_equal(kn_dev_bytes_peak(m), kn_dev_bytes_peak(d));
    kn_dev_close(&m);
    kn_dev_close(&d);
}

static void measure_computes_nothing(void **state)
{
    (void)state;
    kn_dev *m = open_kind(KN_DEV_MEASURE);
    void *a, *b;
    assert_int_equal(kn_dev_alloc(m, (size_t)1 << 50, &a), KN_OK); /* more than there is */
    assert_int_equal(kn_dev_alloc(m, 16, &b), KN_OK);
    assert_true((uintptr_t)b >= (uintptr_t)a + ((uintptr_t)1 << 50));
    assert_int_equal(kn_dev_bytes_now(m), ((size_t)1 << 50) + 16);
    kn_tensor x = kn_tensor_of(b, KN_F32, 4);
    float host[4] = {1, 1, 1, 1};
    assert_int_equal(kn_dev_upload(m, NULL, &x), KN_OK);
    assert_int_equal(kn_dev_download(m, &x, host), KN_OK);
    assert_true(host[3] == 0);
    kn_tensor_stats s = {.nonfinite = 5};
    assert_int_equal(kn_stats(m, &x, &s), KN_OK);
    assert_int_equal(s.nonfinite, 0);
    kn_tensor y = kn_tensor_of(b, KN_F32, 5); /* checks are made all the same */
    assert_int_equal(kn_act(m, &x, KN_ACT_SILU, &y), KN_ERR_ARG);
    kn_dev_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening),
        cmocka_unit_test(opening_cuda),
        cmocka_unit_test(opening_without_memory),
        cmocka_unit_test(bytes_are_counted),
#ifndef NDEBUG
        cmocka_unit_test(fresh_memory_is_nan),
#endif
        cmocka_unit_test(transfers),
        cmocka_unit_test(arena_hands_out),
        cmocka_unit_test(measure_equals_cpu),
        cmocka_unit_test(measure_computes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
