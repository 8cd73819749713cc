/* tests/unit/attention_case.h - what the tests of attention's executors share: numbers to run on,
 * devices, and how far results are apart.
 */
#ifndef KN_TESTS_UNIT_ATTENTION_CASE_H
#define KN_TESTS_UNIT_ATTENTION_CASE_H

#include <math.h>

#include "compute/device.h"
#include "tests/expect.h"

/* Uniform between -amplitude and amplitude, the same for the same seed; NAN fills with NaN. For
 * free(). */
static inline float *filled(int64_t count, uint64_t seed, float amplitude)
{
    float *x = malloc((size_t)count * sizeof *x);
    uint64_t s = seed * 0x9E3779B97F4A7C15u + 1;
    assert_non_null(x);
    for (int64_t i = 0; i < count; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        x[i] = amplitude * ((float)(s >> 40) * 0x1p-23f - 1.0f);
    }
    return x;
}

/* isa and threads 0: all that the machine has. */
static inline kn_dev *open_device(kn_dev_kind kind, int isa, int threads)
{
    kn_dev *d;
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = kind, .isa_mask = isa, .threads = threads}, &d));
    return d;
}

/* Largest difference; NaN where one of them is. */
static inline double difference(const float *a, const float *b, int64_t count)
{
    double top = 0;
    for (int64_t i = 0; i < count; i++) {
        double e = fabs((double)a[i] - b[i]);
        if (!(e <= top)) top = e;
    }
    return top;
}

#endif
