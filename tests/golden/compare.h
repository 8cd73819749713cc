/* tests/golden/compare.h - what the golden programs share: where the data is, reading a tensor as
 * float, and the distances that bounds are stated in.
 *
 * A golden program takes its data folder as its first argument; without one it uses the data that
 * is committed (KN_TEST_DATA). tools/deep_parity.py runs the same programs over freshly made data.
 */
#ifndef KN_TESTS_GOLDEN_COMPARE_H
#define KN_TESTS_GOLDEN_COMPARE_H

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compute/tensor.h"
#include "io/memory.h"
#include "io/safetensors.h"

static const char *golden_dir = KN_TEST_DATA;

#define golden_main_args(argc, argv) ((argc) > 1 ? (void)(golden_dir = (argv)[1]) : (void)0)

/* Fail the running test with the record's text if st is an error. */
#define must(expr)                                                                                 \
    do {                                                                                           \
        if ((expr) != KN_OK) fail_msg("%s: %s (%s)", #expr, kn_error_text(), kn_error_place());    \
    } while (0)

static inline kn_safetensors *golden_open(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", golden_dir, name);
    kn_safetensors *st = NULL;
    must(kn_safetensors_open(path, NULL, &st));
    return st;
}

/* Tensor `fmt` as a new float array (kn_free); *count (may be NULL) gets its elements. */
static inline float *golden_floats(const kn_safetensors *st, int64_t *count, const char *fmt, ...)
    KN_PRINTF(3, 4);
static inline float *golden_floats(const kn_safetensors *st, int64_t *count, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const kn_st_tensor *t = kn_safetensors_find(st, name, NULL);
    if (!t) fail_msg("%s: no tensor %s", kn_safetensors_path(st), name);
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    void *p;
    must(kn_alloc_array((size_t)n, sizeof(float), &p));
    float *out = p;
    for (int64_t i = 0; i < n; i++) {
        const char *at = (const char *)t->data + (size_t)i * kn_st_dtype_size(t->dtype);
        uint16_t half;
        switch (t->dtype) {
        case KN_ST_F32: memcpy(&out[i], at, sizeof(float)); break;
        case KN_ST_BF16: memcpy(&half, at, 2), out[i] = kn_bf16_to_f32(half); break;
        case KN_ST_F16: memcpy(&half, at, 2), out[i] = kn_f16_to_f32(half); break;
        default: fail_msg("%s is %s, not a float type", name, t->dtype_name);
        }
    }
    if (count) *count = n;
    return out;
}

/* |got - want|_2 / |want|_2; infinite if anything is not finite. */
static inline double relative_l2(const float *got, const float *want, int64_t n)
{
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)got[i] - want[i];
        diff += d * d;
        norm += (double)want[i] * want[i];
    }
    return isfinite(diff) ? sqrt(diff / (norm > 0 ? norm : 1)) : INFINITY;
}

/* max |got - want| / max |want|; infinite if anything is not finite. */
static inline double relative_max(const float *got, const float *want, int64_t n)
{
    double diff = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        if (!(d <= diff)) diff = isfinite(d) ? d : INFINITY;
        if (fabs(want[i]) > scale) scale = fabs(want[i]);
    }
    return diff / (scale > 0 ? scale : 1);
}

#endif
