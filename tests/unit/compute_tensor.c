/* tests/unit/compute_tensor.c - views, their texts, and the scalar conversions over all 65536
 * values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "compute/tensor.h"

static void make_and_count(void **state)
{
    (void)state;
    float data[24];
    kn_tensor t = kn_tensor_of(data, KN_F32, 2, 3, 4);
    assert_int_equal(t.rank, 3);
    assert_int_equal(t.stride[0], 12);
    assert_int_equal(t.stride[1], 4);
    assert_int_equal(t.stride[2], 1);
    assert_int_equal(kn_tensor_count(&t), 24);
    assert_int_equal(kn_tensor_bytes(&t), 96);
    assert_true(kn_tensor_contiguous(&t));
    kn_tensor absent = {0};
    assert_int_equal(kn_tensor_count(&absent), 0);
    kn_tensor empty = kn_tensor_of(data, KN_BF16, 0, 4);
    assert_int_equal(kn_tensor_count(&empty), 0);
    assert_true(kn_tensor_contiguous(&empty));
}

static void slices_and_permutations(void **state)
{
    (void)state;
    float data[24];
    for (int i = 0; i < 24; i++) data[i] = (float)i;
    kn_tensor t = kn_tensor_of(data, KN_F32, 2, 3, 4);
    kn_tensor s = kn_tensor_slice(&t, 1, 1, 2);
    assert_ptr_equal(s.data, data + 4);
    assert_int_equal(s.dim[1], 2);
    assert_false(kn_tensor_contiguous(&s));
    kn_tensor first = kn_tensor_slice(&t, 0, 1, 1); /* an axis of 1 may have any stride */
    assert_true(kn_tensor_contiguous(&first));
    assert_true(((float *)first.data)[0] == 12.0f);
    kn_tensor p = kn_tensor_permute(&t, (int[]){2, 0, 1});
    assert_int_equal(p.dim[0], 4);
    assert_int_equal(p.dim[1], 2);
    assert_int_equal(p.dim[2], 3);
    /* p[3][1][2] is t[1][2][3] */
    assert_true(((float *)p.data)[3 * p.stride[0] + 1 * p.stride[1] + 2 * p.stride[2]] == 23.0f);
    kn_tensor r = kn_tensor_view(&t, 6, 4);
    assert_int_equal(r.rank, 2);
    assert_int_equal(r.stride[0], 4);
    assert_true(kn_tensor_same_shape(&t, &t));
    assert_false(kn_tensor_same_shape(&t, &p));
    kn_tensor none = kn_tensor_of(NULL, KN_F32, 8, 2);
    assert_null(kn_tensor_slice(&none, 0, 3, 2).data); /* no address is made up */
}

static void texts(void **state)
{
    (void)state;
    char text[KN_SHAPE_TEXT];
    kn_tensor t = kn_tensor_of(NULL, KN_BF16, 3, 4);
    assert_string_equal(kn_tensor_text(&t, text), "bf16[3, 4]");
    assert_string_equal(kn_tensor_text(NULL, text), "absent");
    const int64_t huge = INT64_MAX;
    kn_tensor wide = {.dtype = KN_F64, .rank = 6, .dim = {huge, huge, huge, huge, huge, huge}};
    assert_true(strlen(kn_tensor_text(&wide, text)) < KN_SHAPE_TEXT);
    for (int i = 0; i < KN_DTYPE_COUNT; i++) assert_true(kn_dtype_size((kn_dtype)i) > 0);
    assert_int_equal(kn_dtype_size(KN_DTYPE_COUNT), 0);
}

static uint32_t bits(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

/* The value of a small float format, from its fields. */
static double decode(uint32_t v, int exponent_bits, int fraction_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = (int)(v >> fraction_bits) & ((1 << exponent_bits) - 1);
    double fraction = v & ((1u << fraction_bits) - 1);
    double scale = ldexp(1, -fraction_bits);
    double m =
        exponent ? ldexp(1 + fraction * scale, exponent - bias) : ldexp(fraction * scale, 1 - bias);
    return v >> (exponent_bits + fraction_bits) ? -m : m;
}

static void every_bf16(void **state)
{
    (void)state;
    for (uint32_t v = 0; v < 65536; v++) {
        float f = kn_bf16_to_f32((uint16_t)v);
        assert_int_equal(bits(f), v << 16);
        if (isnan(f))
            assert_true(isnan(kn_bf16_to_f32(kn_f32_to_bf16(f))));
        else
            assert_int_equal(kn_f32_to_bf16(f), v);
        if (isnan(f) || (v & 0x7fff) >= 0x7f7f) continue;
        /* between v and the next: nearest, and even in the middle */
        double a = decode(v, 8, 7), b = decode(v + 1, 8, 7);
        assert_int_equal(kn_f32_to_bf16((float)(a + 0.25 * (b - a))), v);
        assert_int_equal(kn_f32_to_bf16((float)(a + 0.75 * (b - a))), v + 1);
        assert_int_equal(kn_f32_to_bf16((float)(a + 0.5 * (b - a))), v % 2 ? v + 1 : v);
    }
}

static void every_f16(void **state)
{
    (void)state;
    for (uint32_t v = 0; v < 65536; v++) {
        float f = kn_f16_to_f32((uint16_t)v);
        bool special = (v >> 10 & 31) == 31;
        if (special) {
            assert_true((v & 0x3ff) ? isnan(f) : isinf(f) && (signbit(f) != 0) == (v >> 15));
        } else {
            assert_true((double)f == decode(v, 5, 10));
            assert_int_equal(signbit(f) != 0, v >> 15);
        }
        if (isnan(f))
            assert_true(isnan(kn_f16_to_f32(kn_f32_to_f16(f))));
        else
            assert_int_equal(kn_f32_to_f16(f), v);
        if (special || (v & 0x7fff) == 0x7bff) continue;
        double a = decode(v, 5, 10), b = decode(v + 1, 5, 10);
        assert_int_equal(kn_f32_to_f16((float)(a + 0.25 * (b - a))), v);
        assert_int_equal(kn_f32_to_f16((float)(a + 0.75 * (b - a))), v + 1);
        assert_int_equal(kn_f32_to_f16((float)(a + 0.5 * (b - a))), v % 2 ? v + 1 : v);
    }
    assert_int_equal(kn_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(kn_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(kn_f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(kn_f32_to_f16(1e-30f), 0);
    assert_int_equal(kn_f32_to_f16(-1e-30f), 0x8000);
}

static void every_f8(void **state)
{
    (void)state;
    for (uint32_t v = 0; v < 256; v++) {
        float f = kn_f8_to_f32((uint8_t)v);
        if ((v & 0x7f) == 0x7f) {
            assert_true(isnan(f) && isnan(kn_f8_to_f32(kn_f32_to_f8(f))));
            continue;
        }
        assert_true((double)f == decode(v, 4, 3));
        assert_int_equal(signbit(f) != 0, v >> 7);
        assert_int_equal(kn_f32_to_f8(f), v);
        if ((v & 0x7f) == 0x7e) continue;
        double a = decode(v, 4, 3), b = decode(v + 1, 4, 3);
        assert_int_equal(kn_f32_to_f8((float)(a + 0.25 * (b - a))), v);
        assert_int_equal(kn_f32_to_f8((float)(a + 0.75 * (b - a))), v + 1);
        assert_int_equal(kn_f32_to_f8((float)(a + 0.5 * (b - a))), v % 2 ? v + 1 : v);
    }
    assert_true(kn_f8_to_f32(0x7e) == 448);
    assert_int_equal(kn_f32_to_f8(449), 0x7e);
    assert_int_equal(kn_f32_to_f8(-INFINITY), 0xfe);
    assert_int_equal(kn_f32_to_f8(1e-30f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(make_and_count), cmocka_unit_test(slices_and_permutations),
        cmocka_unit_test(texts),          cmocka_unit_test(every_bf16),
        cmocka_unit_test(every_f16),      cmocka_unit_test(every_f8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
