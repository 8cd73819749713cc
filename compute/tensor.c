/* compute/tensor.c - views and scalar conversions; see tensor.h. */
#include "compute/tensor.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[KN_DTYPE_COUNT] = {
    [KN_F32] = {"f32", 4}, [KN_BF16] = {"bf16", 2}, [KN_F16] = {"f16", 2}, [KN_F64] = {"f64", 8},
    [KN_I32] = {"i32", 4}, [KN_I64] = {"i64", 8},   [KN_U8] = {"u8", 1},
    [KN_I8] = {"i8", 1},   [KN_F8] = {"f8", 1},
};

size_t kn_dtype_size(kn_dtype t)
{
    return (unsigned)t < KN_DTYPE_COUNT ? dtypes[t].size : 0;
}

const char *kn_dtype_name(kn_dtype t)
{
    return (unsigned)t < KN_DTYPE_COUNT ? dtypes[t].name : "unknown";
}

kn_tensor kn_tensor_make(void *data, kn_dtype dtype, int rank, const int64_t *dims)
{
    assert(rank >= 0 && rank <= KN_MAX_RANK);
    kn_tensor t = {.data = data, .dtype = dtype, .rank = rank};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        t.dim[i] = dims[i];
        t.stride[i] = stride;
        stride *= dims[i] > 0 ? dims[i] : 1;
    }
    return t;
}

int64_t kn_tensor_count(const kn_tensor *t)
{
    int64_t n = t->rank > 0;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

size_t kn_tensor_bytes(const kn_tensor *t)
{
    return (size_t)kn_tensor_count(t) * kn_dtype_size(t->dtype);
}

bool kn_tensor_contiguous(const kn_tensor *t)
{
    int64_t stride = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->dim[i] != 1 && t->stride[i] != stride) return kn_tensor_count(t) == 0;
        stride *= t->dim[i];
    }
    return true;
}

bool kn_tensor_same_shape(const kn_tensor *a, const kn_tensor *b)
{
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

kn_tensor kn_tensor_slice(const kn_tensor *t, int axis, int64_t start, int64_t count)
{
    assert(axis >= 0 && axis < t->rank);
    assert(start >= 0 && count >= 0 && start + count <= t->dim[axis]);
    kn_tensor out = *t;
    if (out.data)
        out.data = (char *)out.data + start * t->stride[axis] * (int64_t)kn_dtype_size(t->dtype);
    out.dim[axis] = count;
    return out;
}

kn_tensor kn_tensor_permute(const kn_tensor *t, const int *order)
{
    kn_tensor out = *t;
    for (int i = 0; i < t->rank; i++) {
        assert(order[i] >= 0 && order[i] < t->rank);
        out.dim[i] = t->dim[order[i]];
        out.stride[i] = t->stride[order[i]];
    }
    return out;
}

kn_tensor kn_tensor_reshape(const kn_tensor *t, int rank, const int64_t *dims)
{
    kn_tensor out = kn_tensor_make(t->data, t->dtype, rank, dims);
    assert(kn_tensor_contiguous(t));
    assert(kn_tensor_count(&out) == kn_tensor_count(t));
    return out;
}

const char *kn_tensor_text(const kn_tensor *t, char buf[KN_SHAPE_TEXT])
{
    if (t == NULL || t->rank == 0) {
        snprintf(buf, KN_SHAPE_TEXT, "absent");
        return buf;
    }
    int n = snprintf(buf, KN_SHAPE_TEXT, "%s[", kn_dtype_name(t->dtype));
    /* 6 dims of at most 20 characters always fit into KN_SHAPE_TEXT with the separators cut. */
    for (int i = 0; i < t->rank && n < KN_SHAPE_TEXT; i++)
        n += snprintf(buf + n, (size_t)(KN_SHAPE_TEXT - n), "%s%" PRId64, i ? ", " : "", t->dim[i]);
    if (n < KN_SHAPE_TEXT - 1) memcpy(buf + n, "]", 2);
    return buf;
}

/* ---- scalar conversions ---------------------------------------------------------------------- */

static uint32_t bits_of(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

float kn_bf16_to_f32(uint16_t v)
{
    return float_of((uint32_t)v << 16);
}

uint16_t kn_f32_to_bf16(float v)
{
    uint32_t u = bits_of(v);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u); /* NaN stays NaN */
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
float kn_f16_to_f32(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000u) << 16, exponent = v >> 10 & 31u, fraction = v & 0x3ffu;
    if (exponent == 31)
        return float_of(sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0));
    if (exponent) return float_of(sign | (exponent + 112) << 23 | fraction << 13);
    float small = (float)fraction * 0x1p-24f; /* zero and subnormals: exact in binary32 */
    return sign ? -small : small;
}

uint16_t kn_f32_to_f16(float v)
{
    uint32_t u = bits_of(v), sign = u >> 16 & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x1ffu));
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to infinity */
    if (u < 0x38800000u) { /* below 2^-14: adding 0.5 leaves multiples of 2^-24, rounded to even */
        return (uint16_t)(sign | (bits_of(float_of(u) + 0.5f) - bits_of(0.5f)));
    }
    u += 0xfffu + (u >> 13 & 1u);
    return (uint16_t)(sign | (u - (112u << 23)) >> 13);
}

/* OCP FP8 e4m3: 1 sign, 4 exponent (bias 7), 3 fraction bits; all ones is NaN, there are no infinities. */
float kn_f8_to_f32(uint8_t v)
{
    uint32_t exponent = v >> 3 & 15u, fraction = v & 7u;
    float a = (v & 0x7fu) == 0x7fu ? float_of(0x7fc00000u)
              : exponent           ? float_of((exponent + 120) << 23 | fraction << 20)
                                   : (float)fraction * 0x1p-9f;
    return v & 0x80u ? -a : a;
}

uint8_t kn_f32_to_f8(float v)
{
    uint32_t u = bits_of(v), sign = u >> 24 & 0x80u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint8_t)(sign | 0x7fu);
    if (u >= bits_of(448)) return (uint8_t)(sign | 0x7eu);
    if (u < bits_of(0x1p-6f)) /* adding 2^14 leaves multiples of 2^-9, rounded to even */
        return (uint8_t)(sign | (bits_of(float_of(u) + 0x1p14f) - bits_of(0x1p14f)));
    u += 0x7ffffu + (u >> 20 & 1u);
    u = (u - (120u << 23)) >> 20;
    return (uint8_t)(sign | (u > 0x7eu ? 0x7eu : u));
}
