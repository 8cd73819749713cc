/* Dense attention against torch's scaled_dot_product_attention (tools/golden_attention.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/attention.h"
#include "io/safetensors.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        kn_status ok_st_ = (call);                                                                 \
        if (ok_st_ != KN_OK) fail_msg("%s", kn_error_text());                                      \
    } while (0)

/* Copy of tensor "<case>.<name>"; rank 0 where the file has none. Free data with free(). */
static kn_tensor load(kn_safetensors *file, int number, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "%d.%s", number, name);
    const kn_st_tensor *t = kn_safetensors_find(file, full, NULL);
    if (!t) return (kn_tensor){0};
    assert_int_equal(t->dtype, KN_ST_F32);
    void *copy = malloc(t->bytes);
    memcpy(copy, t->data, t->bytes);
    return kn_tensor_make(copy, KN_F32, t->rank, t->dim);
}

static double worst(const float *got, const kn_tensor *want)
{
    double top = 0;
    for (int64_t i = 0; i < kn_tensor_count(want); i++) {
        double e = fabs((double)got[i] - ((float *)want->data)[i]);
        if (!(e <= top)) top = e;
    }
    return top;
}

static void run_case(kn_safetensors *file, int number, kn_dev *dev)
{
    kn_attn_args a = {.q = load(file, number, "q"),
                      .k = load(file, number, "k"),
                      .v = load(file, number, "v"),
                      .bias = load(file, number, "bias")};
    kn_tensor scale = load(file, number, "scale"), want = load(file, number, "out");
    kn_tensor want_lse = load(file, number, "lse");
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): load asserts that it is there */
    a.scale = *(float *)scale.data;
    a.out = kn_tensor_make(malloc(kn_tensor_bytes(&want)), KN_F32, want.rank, want.dim);
    a.lse = kn_tensor_make(malloc(kn_tensor_bytes(&want_lse)), KN_F32, want_lse.rank, want_lse.dim);
    memset(a.out.data, 0xff, kn_tensor_bytes(&want)); /* NaN */
    OK(kn_attn_dense(dev, &a, NULL));
    /* Case 2 has scale 1 and logits of 35, as UMT5 has: an ulp there is 4e-6, sums of 64 products
     * end some ulps off, and out moves by |v| < 4 times that. The other cases stay below 1e-6. */
    double out_error = worst(a.out.data, &want), lse_error = worst(a.lse.data, &want_lse);
    if (out_error > (number == 2 ? 2e-5 : 1e-6))
        fail_msg("case %d: out is off by %g", number, out_error);
    if (lse_error > 2e-5) fail_msg("case %d: lse is off by %g", number, lse_error);
    kn_tensor *all[] = {&a.q, &a.k, &a.v, &a.bias, &a.out, &a.lse, &scale, &want, &want_lse};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->data);
}

static void run_all(const kn_dev_params *params)
{
    kn_safetensors *file;
    kn_dev *dev;
    OK(kn_safetensors_open(KN_TEST_DATA "/attention_dense.safetensors", NULL, &file));
    OK(kn_dev_open(params, &dev));
    int n = 0;
    char name[16];
    for (;; n++) {
        snprintf(name, sizeof name, "%d.q", n);
        if (!kn_safetensors_find(file, name, NULL)) break;
        run_case(file, n, dev);
    }
    assert_int_equal(n, 6);
    kn_dev_close(&dev);
    kn_safetensors_close(&file);
}

static void test_ref(void **s)
{
    (void)s;
    run_all(&(kn_dev_params){.kind = KN_DEV_REF});
}
static void test_base(void **s)
{
    (void)s;
    run_all(&(kn_dev_params){.kind = KN_DEV_CPU, .isa_mask = 1});
}
static void test_avx2(void **s)
{
    (void)s;
    run_all(&(kn_dev_params){.kind = KN_DEV_CPU, .isa_mask = 2});
}
static void test_best(void **s)
{
    (void)s;
    run_all(&(kn_dev_params){.kind = KN_DEV_CPU});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ref), cmocka_unit_test(test_base),
                                       cmocka_unit_test(test_avx2), cmocka_unit_test(test_best)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
