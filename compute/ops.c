/* compute/ops.c - front ends: every argument check of every operation, once for all backends.
 *
 * On the measure device an operation ends after its checks. Data is never read here; only the index
 * lists in host memory are.
 */
#include "compute/backend.h"

#include <stdio.h>
#include <string.h>

/* ---- shared checks --------------------------------------------------------------------------- */

bool kn_dtype_is_float(kn_dtype t)
{
    return t == KN_F32 || t == KN_BF16 || t == KN_F16 || t == KN_F64;
}

static bool present(const kn_tensor *t)
{
    return t != NULL && t->rank > 0;
}

/* Backends get NULL for an absent tensor. */
static const kn_tensor *optional(const kn_tensor *t)
{
    return present(t) ? t : NULL;
}

static bool activation_dtype(const kn_dev *d, kn_dtype t)
{
    switch (d->measured) {
    case KN_DEV_CPU: return t == KN_F32;
    case KN_DEV_CUDA: return t == KN_F32 || t == KN_BF16;
    default: return kn_dtype_is_float(t);
    }
}

static kn_status bad(const char *op, const char *name, const kn_tensor *t, const char *why)
{
    char text[KN_SHAPE_TEXT];
    return kn_fail(KN_ERR_ARG, "%s: %s %s: %s", op, name, kn_tensor_text(t, text), why);
}

/* Data, rank and non-negative dims; strides are free. */
static kn_status check_any(const kn_dev *d, const char *op, const char *name, const kn_tensor *t)
{
    if (!present(t)) return kn_fail(KN_ERR_ARG, "%s: %s is missing", op, name);
    if (t->rank > KN_MAX_RANK) return kn_fail(KN_ERR_ARG, "%s: %s has rank %d", op, name, t->rank);
    for (int i = 0; i < t->rank; i++)
        if (t->dim[i] < 0 || t->stride[i] < 0) return bad(op, name, t, "negative dim or stride");
    if (t->data == NULL && d->kind != KN_DEV_MEASURE && kn_tensor_count(t) > 0)
        return bad(op, name, t, "has no data");
    return KN_OK;
}

/* Rows of an activation: last axis dense, dtype one of the device's. */
static kn_status check_rows(const kn_dev *d, const char *op, const char *name, const kn_tensor *t)
{
    KN_TRY(check_any(d, op, name, t));
    if (!activation_dtype(d, t->dtype))
        return bad(op, name, t, "this dtype is not computed with on the device");
    if (t->dim[t->rank - 1] > 1 && t->stride[t->rank - 1] != 1)
        return bad(op, name, t, "last axis is not dense");
    return KN_OK;
}

static kn_status check_same(const char *op, const char *an, const kn_tensor *a, const char *bn,
                            const kn_tensor *b)
{
    char at[KN_SHAPE_TEXT], bt[KN_SHAPE_TEXT];
    if (kn_tensor_same_shape(a, b)) return KN_OK;
    return kn_fail(KN_ERR_ARG, "%s: %s %s and %s %s differ in shape", op, an, kn_tensor_text(a, at),
                   bn, kn_tensor_text(b, bt));
}

/* A vector of `count` values, f32 (the reference device takes any float dtype). Absent is fine. */
static kn_status check_vector(const kn_dev *d, const char *op, const char *name, const kn_tensor *t,
                              int64_t count)
{
    if (!present(t)) return KN_OK;
    KN_TRY(check_any(d, op, name, t));
    bool ref = d->measured == KN_DEV_REF && kn_dtype_is_float(t->dtype);
    if (t->dtype != KN_F32 && !ref) return bad(op, name, t, "must be f32");
    char why[64];
    snprintf(why, sizeof why, "%lld values expected, contiguous", (long long)count);
    if (kn_tensor_count(t) != count || !kn_tensor_contiguous(t)) return bad(op, name, t, why);
    return KN_OK;
}

static kn_status check_dims(const char *op, const char *name, const kn_tensor *t, int rank,
                            const int64_t *dims)
{
    kn_tensor want = kn_tensor_make(NULL, t->dtype, rank, dims);
    if (kn_tensor_same_shape(t, &want)) return KN_OK;
    char wt[KN_SHAPE_TEXT], tt[KN_SHAPE_TEXT];
    return kn_fail(KN_ERR_ARG, "%s: %s %s: expected %s", op, name, kn_tensor_text(t, tt),
                   kn_tensor_text(&want, wt));
}

static kn_status check_weight(const char *op, const kn_weight *w, kn_weight_kind kind)
{
    static const char *const names[] = {"vector", "linear", "conv", "table"};
    if (w == NULL || w->t.rank == 0) return kn_fail(KN_ERR_ARG, "%s: weight is not open", op);
    if (w->kind != kind)
        return kn_fail(KN_ERR_ARG, "%s: weight was opened as %s, %s needed", op, names[w->kind],
                       names[kind]);
    return KN_OK;
}

/* ---- overlap --------------------------------------------------------------------------------- */

static bool same_view(const kn_tensor *a, const kn_tensor *b)
{
    if (a->data != b->data || a->dtype != b->dtype || !kn_tensor_same_shape(a, b)) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] > 1 && a->stride[i] != b->stride[i]) return false;
    return true;
}

/* Bytes from the first element to the end of the last. */
static size_t extent(const kn_tensor *t)
{
    int64_t last = 0;
    for (int i = 0; i < t->rank; i++) last += (t->dim[i] - 1) * t->stride[i];
    return (size_t)(last + 1) * kn_dtype_size(t->dtype);
}

/* Columns of one buffer, as the q, k, v parts of a fused projection: all pitches are multiples of
 * the smallest one, and the rows' byte ranges modulo it are disjoint. */
static bool disjoint_columns(const kn_tensor *a, const kn_tensor *b)
{
    const kn_tensor *both[2] = {a, b};
    size_t pitch = 0, width[2];
    for (int k = 0; k < 2; k++) {
        kn_rows r = kn_rows_of(both[k]);
        width[k] = (size_t)r.width * kn_dtype_size(both[k]->dtype);
        for (int i = 0; i < r.axes; i++)
            if (r.dim[i] > 1 && (pitch == 0 || (size_t)r.pitch[i] < pitch))
                pitch = (size_t)r.pitch[i];
    }
    if (pitch == 0) return false;
    for (int k = 0; k < 2; k++) {
        kn_rows r = kn_rows_of(both[k]);
        for (int i = 0; i < r.axes; i++)
            if (r.dim[i] > 1 && (size_t)r.pitch[i] % pitch) return false;
    }
    uintptr_t pa = (uintptr_t)a->data, pb = (uintptr_t)b->data;
    size_t ahead = pb >= pa ? (pb - pa) % pitch : (pitch - (pa - pb) % pitch) % pitch;
    return ahead >= width[0] && pitch - ahead >= width[1];
}

static bool overlap(const kn_tensor *a, const kn_tensor *b)
{
    if (!present(a) || !present(b) || kn_tensor_count(a) == 0 || kn_tensor_count(b) == 0)
        return false;
    uintptr_t pa = (uintptr_t)a->data, pb = (uintptr_t)b->data;
    if (pa >= pb + extent(b) || pb >= pa + extent(a)) return false;
    bool dense = (a->stride[a->rank - 1] == 1 || a->dim[a->rank - 1] == 1) &&
                 (b->stride[b->rank - 1] == 1 || b->dim[b->rank - 1] == 1);
    return !dense || !disjoint_columns(a, b);
}

/* out may be the same view as `in` when in_place; any other overlap is an error. */
static kn_status check_overlap(const char *op, const char *name, const kn_tensor *in,
                               const kn_tensor *out, bool in_place)
{
    if (!overlap(in, out) || (in_place && same_view(in, out))) return KN_OK;
    return bad(op, "out", out, in_place ? "overlaps an input partly" : name);
}

#define NO_OVERLAP(op, in, out) check_overlap(op, "overlaps an input", in, out, false)
#define MAY_BE(op, in, out)     check_overlap(op, "", in, out, true)

/* Index list in host memory; absent lists pass where `needed` is false, and when measuring. */
static kn_status check_index(const kn_dev *d, const char *op, const int32_t *index, int64_t count,
                             int64_t limit, bool needed)
{
    if (index == NULL) {
        if (!needed || d->kind == KN_DEV_MEASURE || count == 0) return KN_OK;
        return kn_fail(KN_ERR_ARG, "%s: no index list", op);
    }
    for (int64_t i = 0; i < count; i++)
        if (index[i] < 0 || index[i] >= limit)
            return kn_fail(KN_ERR_ARG, "%s: index %d at place %lld is not in 0..%lld", op, index[i],
                           (long long)i, (long long)limit - 1);
    return KN_OK;
}

/* Nothing to compute: when measuring, or for an empty output. */
static bool nothing(const kn_dev *d, const kn_tensor *out)
{
    return d->kind == KN_DEV_MEASURE || kn_tensor_count(out) == 0;
}

static kn_status check_act(const char *op, kn_activation act)
{
    if ((unsigned)act <= KN_ACT_GELU_ERF) return KN_OK;
    return kn_fail(KN_ERR_ARG, "%s: unknown activation %d", op, (int)act);
}

static int64_t width_of(const kn_tensor *t)
{
    return t->dim[t->rank - 1];
}

/* ---- rows ------------------------------------------------------------------------------------ */

kn_rows kn_rows_of(const kn_tensor *t)
{
    kn_rows r = {.data = t->data, .count = 1, .width = width_of(t), .axes = 0};
    int64_t size = (int64_t)kn_dtype_size(t->dtype);
    for (int i = 0; i < t->rank - 1; i++) {
        r.count *= t->dim[i];
        if (t->dim[i] == 1) continue;
        int64_t pitch = t->stride[i] * size;
        if (r.axes && r.pitch[r.axes - 1] == pitch * t->dim[i]) {
            r.dim[r.axes - 1] *= t->dim[i];
            r.pitch[r.axes - 1] = pitch;
        } else {
            r.dim[r.axes] = t->dim[i];
            r.pitch[r.axes++] = pitch;
        }
    }
    if (r.axes == 0) {
        r.axes = 1;
        r.dim[0] = 1;
        r.pitch[0] = 0;
    }
    return r;
}

/* ---- weights --------------------------------------------------------------------------------- */

void kn_conv_kernel(const kn_weight *w, int k[3])
{
    const int64_t *dim = w->t.dim;
    k[0] = w->t.rank == 5 ? (int)dim[2] : 1;
    k[1] = (int)dim[w->t.rank - 2];
    k[2] = (int)dim[w->t.rank - 1];
}

kn_status kn_weight_open(kn_dev *d, kn_weight_kind kind, const kn_tensor *host, kn_weight *out)
{
    *out = (kn_weight){0};
    KN_TRY(check_any(d, "weight", "host tensor", host));
    if (host->dtype != KN_F32 && host->dtype != KN_BF16 && host->dtype != KN_F16)
        return bad("weight", "host tensor", host, "dtype must be f32, bf16 or f16");
    if (!kn_tensor_contiguous(host)) return bad("weight", "host tensor", host, "is not contiguous");
    if (kn_tensor_count(host) == 0) return bad("weight", "host tensor", host, "is empty");
    bool fits = kind == KN_WEIGHT_VECTOR || (kind == KN_WEIGHT_LINEAR && host->rank >= 2) ||
                (kind == KN_WEIGHT_TABLE && host->rank == 2) ||
                (kind == KN_WEIGHT_CONV && (host->rank == 4 || host->rank == 5));
    if (!fits) return bad("weight", "host tensor", host, "this rank does not fit its kind");
    kn_weight w = {.kind = kind, .t = *host};
    w.t.data = NULL;
    if (kind == KN_WEIGHT_LINEAR && host->rank > 2)
        w.t = kn_tensor_of(NULL, host->dtype, host->dim[0], kn_tensor_count(host) / host->dim[0]);
    kn_tensor flat = w.t;
    flat.data = host->data;
    KN_TRY(d->backend->weight_open(d, &flat, &w));
    kn_dev_count(d, w.bytes);
    *out = w;
    return KN_OK;
}

void kn_weight_close(kn_dev *d, kn_weight *w)
{
    if (w->t.rank == 0) return;
    if (!w->away) {
        d->backend->weight_close(d, w);
        kn_dev_uncount(d, w->bytes);
    }
    *w = (kn_weight){0};
}

/* ---- matrix products and convolutions -------------------------------------------------------- */

kn_status kn_linear(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                    kn_activation act, const kn_tensor *out)
{
    KN_TRY(check_rows(d, "linear", "x", x));
    KN_TRY(check_rows(d, "linear", "out", out));
    KN_TRY(check_weight("linear", w, KN_WEIGHT_LINEAR));
    KN_TRY(check_act("linear", act));
    if (width_of(x) != w->t.dim[1] || width_of(out) != w->t.dim[0] ||
        kn_rows_of(x).count != kn_rows_of(out).count) {
        char xt[KN_SHAPE_TEXT], wt[KN_SHAPE_TEXT], ot[KN_SHAPE_TEXT];
        return kn_fail(KN_ERR_ARG, "linear: x %s, weight %s and out %s do not fit",
                       kn_tensor_text(x, xt), kn_tensor_text(&w->t, wt), kn_tensor_text(out, ot));
    }
    KN_TRY(check_vector(d, "linear", "bias", bias, w->t.dim[0]));
    KN_TRY(NO_OVERLAP("linear", x, out));
    return nothing(d, out) ? KN_OK : d->ops.linear(d, x, w, optional(bias), act, out);
}

static kn_status conv_out_dims(const kn_tensor *x, const kn_weight *w, const kn_conv_params *p,
                               int64_t dims[4])
{
    int k[3];
    kn_conv_kernel(w, k);
    for (int i = 0; i < 3; i++) {
        if (p->stride[i] < 1 || p->pad_lo[i] < 0 || p->pad_hi[i] < 0)
            return kn_fail(KN_ERR_ARG, "conv: axis %d: stride %d, padding %d and %d", i,
                           p->stride[i], p->pad_lo[i], p->pad_hi[i]);
        int64_t room = x->dim[i] + p->pad_lo[i] + p->pad_hi[i] - k[i];
        if (room < 0)
            return kn_fail(KN_ERR_ARG,
                           "conv: axis %d: %lld entries and padding %d + %d are less than "
                           "the kernel's %d",
                           i, (long long)x->dim[i], p->pad_lo[i], p->pad_hi[i], k[i]);
        dims[i] = room / p->stride[i] + 1;
    }
    dims[3] = w->t.dim[0];
    return KN_OK;
}

kn_status kn_conv(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                  const kn_tensor *residual, const kn_conv_params *p, const kn_tensor *out)
{
    KN_TRY(check_rows(d, "conv", "x", x));
    KN_TRY(check_rows(d, "conv", "out", out));
    KN_TRY(check_weight("conv", w, KN_WEIGHT_CONV));
    if (x->rank != 4) return bad("conv", "x", x, "rank 4 expected: T, H, W, C");
    if (x->dim[3] != w->t.dim[1]) {
        char xt[KN_SHAPE_TEXT], wt[KN_SHAPE_TEXT];
        return kn_fail(KN_ERR_ARG, "conv: x %s and weight %s differ in input channels",
                       kn_tensor_text(x, xt), kn_tensor_text(&w->t, wt));
    }
    int64_t dims[4];
    KN_TRY(conv_out_dims(x, w, p, dims));
    KN_TRY(check_dims("conv", "out", out, 4, dims));
    KN_TRY(check_vector(d, "conv", "bias", bias, w->t.dim[0]));
    KN_TRY(NO_OVERLAP("conv", x, out));
    if (present(residual)) {
        KN_TRY(check_rows(d, "conv", "residual", residual));
        KN_TRY(check_same("conv", "residual", residual, "out", out));
        KN_TRY(MAY_BE("conv", residual, out));
    }
    return nothing(d, out) ? KN_OK
                           : d->ops.conv(d, x, w, optional(bias), optional(residual), p, out);
}

kn_status kn_embed(kn_dev *d, const kn_weight *table, const int32_t *ids, int64_t count,
                   const kn_tensor *out)
{
    KN_TRY(check_rows(d, "embed", "out", out));
    KN_TRY(check_weight("embed", table, KN_WEIGHT_TABLE));
    KN_TRY(check_dims("embed", "out", out, 2, (int64_t[]){count, table->t.dim[1]}));
    KN_TRY(check_index(d, "embed", ids, count, table->t.dim[0], true));
    return nothing(d, out) ? KN_OK : d->ops.embed(d, table, ids, count, out);
}

/* ---- norms and per-element work -------------------------------------------------------------- */

/* x and out: rows of one shape; out may be x. */
static kn_status check_map(const kn_dev *d, const char *op, const kn_tensor *x,
                           const kn_tensor *out)
{
    KN_TRY(check_rows(d, op, "x", x));
    KN_TRY(check_rows(d, op, "out", out));
    KN_TRY(check_same(op, "x", x, "out", out));
    return MAY_BE(op, x, out);
}

kn_status kn_rmsnorm(kn_dev *d, const kn_tensor *x, const kn_tensor *weight,
                     const kn_rmsnorm_params *p, const kn_tensor *out)
{
    KN_TRY(check_map(d, "rmsnorm", x, out));
    KN_TRY(check_vector(d, "rmsnorm", "weight", weight, width_of(x)));
    KN_TRY(check_act("rmsnorm", p->act));
    return nothing(d, out) ? KN_OK : d->ops.rmsnorm(d, x, optional(weight), p, out);
}

/* Absent ones pass; all of them have the width of out. */
static kn_status check_layernorm_vectors(const kn_dev *d, const char *op,
                                         const kn_tensor *const v[4], const kn_tensor *out)
{
    static const char *const names[4] = {"weight", "bias", "scale", "shift"};
    for (int i = 0; i < 4; i++) {
        KN_TRY(check_vector(d, op, names[i], v[i], width_of(out)));
        KN_TRY(NO_OVERLAP(op, v[i], out));
    }
    if ((present(v[0]) || present(v[1])) && (present(v[2]) || present(v[3])))
        return kn_fail(KN_ERR_ARG, "%s: weight and bias exclude scale and shift", op);
    return KN_OK;
}

kn_status kn_layernorm(kn_dev *d, const kn_tensor *x, const kn_tensor *weight,
                       const kn_tensor *bias, const kn_tensor *scale, const kn_tensor *shift,
                       float eps, const kn_tensor *out)
{
    KN_TRY(check_map(d, "layernorm", x, out));
    KN_TRY(check_layernorm_vectors(d, "layernorm",
                                   (const kn_tensor *const[]){weight, bias, scale, shift}, out));
    return nothing(d, out) ? KN_OK
                           : d->ops.layernorm(d, x, optional(weight), optional(bias),
                                              optional(scale), optional(shift), eps, out);
}

kn_status kn_gate_add(kn_dev *d, const kn_tensor *x, const kn_tensor *y, const kn_tensor *gate,
                      const kn_tensor *out)
{
    KN_TRY(check_map(d, "gate_add", x, out));
    KN_TRY(check_rows(d, "gate_add", "y", y));
    KN_TRY(check_same("gate_add", "y", y, "out", out));
    KN_TRY(MAY_BE("gate_add", y, out));
    KN_TRY(check_vector(d, "gate_add", "gate", gate, width_of(x)));
    return nothing(d, out) ? KN_OK : d->ops.gate_add(d, x, y, optional(gate), out);
}

/* x, out [L,N,D] and tables [L,D/2]. */
static kn_status check_rope(const kn_dev *d, const char *op, const kn_tensor *x,
                            const kn_tensor *cos, const kn_tensor *sin, const kn_tensor *out)
{
    KN_TRY(check_map(d, op, x, out));
    if (x->rank != 3 || x->dim[2] % 2) return bad(op, "x", x, "[L, N, even D] expected");
    const kn_tensor *tables[2] = {cos, sin};
    static const char *const names[2] = {"cos", "sin"};
    for (int i = 0; i < 2; i++) {
        if (!present(tables[i])) return kn_fail(KN_ERR_ARG, "%s: %s is missing", op, names[i]);
        KN_TRY(check_dims(op, names[i], tables[i], 2, (int64_t[]){x->dim[0], x->dim[2] / 2}));
        KN_TRY(check_vector(d, op, names[i], tables[i], x->dim[0] * (x->dim[2] / 2)));
        KN_TRY(NO_OVERLAP(op, tables[i], out));
    }
    return KN_OK;
}

kn_status kn_rope(kn_dev *d, const kn_tensor *x, const kn_tensor *cos, const kn_tensor *sin,
                  const kn_tensor *out)
{
    KN_TRY(check_rope(d, "rope", x, cos, sin, out));
    return nothing(d, out) ? KN_OK : d->ops.rope(d, x, cos, sin, out);
}

kn_status kn_norm_rope(kn_dev *d, const kn_tensor *x, const kn_tensor *weight, float eps,
                       const kn_tensor *cos, const kn_tensor *sin, const kn_tensor *out)
{
    KN_TRY(check_rope(d, "norm_rope", x, cos, sin, out));
    KN_TRY(check_vector(d, "norm_rope", "weight", weight, x->dim[1] * x->dim[2]));
    KN_TRY(NO_OVERLAP("norm_rope", weight, out));
    const kn_tensor *both[2] = {x, out};
    for (int i = 0; i < 2; i++)
        if (x->dim[1] > 1 && both[i]->stride[1] != x->dim[2])
            return bad("norm_rope", i ? "out" : "x", both[i], "heads are not dense");
    return nothing(d, out) ? KN_OK : d->ops.norm_rope(d, x, optional(weight), eps, cos, sin, out);
}

kn_status kn_gate_norm(kn_dev *d, const kn_tensor *x, const kn_tensor *y, const kn_tensor *gate,
                       const kn_layernorm_params *p, const kn_tensor *sum, const kn_tensor *out)
{
    KN_TRY(check_map(d, "gate_norm", x, sum));
    KN_TRY(check_map(d, "gate_norm", y, out));
    KN_TRY(check_same("gate_norm", "x", x, "y", y));
    KN_TRY(MAY_BE("gate_norm", y, sum));
    KN_TRY(NO_OVERLAP("gate_norm", x, out));
    KN_TRY(NO_OVERLAP("gate_norm", sum, out));
    KN_TRY(check_vector(d, "gate_norm", "gate", gate, width_of(x)));
    const kn_tensor *vectors[4] = {&p->weight, &p->bias, &p->scale, &p->shift};
    KN_TRY(check_layernorm_vectors(d, "gate_norm", vectors, out));
    return nothing(d, out) ? KN_OK : d->ops.gate_norm(d, x, y, optional(gate), p, sum, out);
}

kn_status kn_act(kn_dev *d, const kn_tensor *x, kn_activation act, const kn_tensor *out)
{
    KN_TRY(check_map(d, "act", x, out));
    KN_TRY(check_act("act", act));
    return nothing(d, out) ? KN_OK : d->ops.act(d, x, act, out);
}

/* x, y and out of one shape; out may be either. */
static kn_status check_pair(const kn_dev *d, const char *op, const kn_tensor *x, const kn_tensor *y,
                            const kn_tensor *out)
{
    KN_TRY(check_map(d, op, x, out));
    KN_TRY(check_rows(d, op, "y", y));
    KN_TRY(check_same(op, "y", y, "out", out));
    return MAY_BE(op, y, out);
}

kn_status kn_mul(kn_dev *d, const kn_tensor *x, kn_activation act, const kn_tensor *y,
                 const kn_tensor *out)
{
    KN_TRY(check_pair(d, "mul", x, y, out));
    KN_TRY(check_act("mul", act));
    return nothing(d, out) ? KN_OK : d->ops.mul(d, x, act, y, out);
}

kn_status kn_axpby(kn_dev *d, float a, const kn_tensor *x, float b, const kn_tensor *y,
                   const kn_tensor *out)
{
    KN_TRY(check_pair(d, "axpby", x, y, out));
    return nothing(d, out) ? KN_OK : d->ops.axpby(d, a, x, b, y, out);
}

kn_status kn_copy(kn_dev *d, const kn_tensor *x, const kn_tensor *out)
{
    KN_TRY(check_any(d, "copy", "x", x));
    KN_TRY(check_any(d, "copy", "out", out));
    KN_TRY(check_same("copy", "x", x, "out", out));
    if (x->dtype != out->dtype && !(kn_dtype_is_float(x->dtype) && kn_dtype_is_float(out->dtype))) {
        char xt[KN_SHAPE_TEXT];
        return kn_fail(KN_ERR_ARG, "copy: no conversion from %s to %s", kn_tensor_text(x, xt),
                       kn_dtype_name(out->dtype));
    }
    KN_TRY(NO_OVERLAP("copy", x, out));
    return nothing(d, out) ? KN_OK : d->ops.copy(d, x, out);
}

/* ---- layout changes -------------------------------------------------------------------------- */

kn_status kn_upsample2(kn_dev *d, const kn_tensor *x, const kn_tensor *out)
{
    KN_TRY(check_rows(d, "upsample2", "x", x));
    KN_TRY(check_rows(d, "upsample2", "out", out));
    if (x->rank != 4) return bad("upsample2", "x", x, "rank 4 expected: T, H, W, C");
    KN_TRY(check_dims("upsample2", "out", out, 4,
                      (int64_t[]){x->dim[0], 2 * x->dim[1], 2 * x->dim[2], x->dim[3]}));
    KN_TRY(NO_OVERLAP("upsample2", x, out));
    return nothing(d, out) ? KN_OK : d->ops.upsample2(d, x, out);
}

/* volume [C,F,H,W] and tokens [L, C*pt*ph*pw]; sets nothing. */
static kn_status check_patches(const kn_dev *d, const char *op, const kn_tensor *volume,
                               const int patch[3], const int32_t *order, const kn_tensor *tokens)
{
    KN_TRY(check_rows(d, op, "volume", volume));
    KN_TRY(check_rows(d, op, "tokens", tokens));
    if (volume->rank != 4) return bad(op, "volume", volume, "rank 4 expected: C, F, H, W");
    int64_t count = 1, width = volume->dim[0];
    for (int i = 0; i < 3; i++) {
        if (patch[i] < 1 || volume->dim[i + 1] % patch[i])
            return bad(op, "volume", volume, "is not a whole number of patches");
        count *= volume->dim[i + 1] / patch[i];
        width *= patch[i];
    }
    bool f64 = d->measured == KN_DEV_REF && volume->dtype == KN_F64;
    if (volume->dtype != KN_F32 && !f64) return bad(op, "volume", volume, "must be f32");
    KN_TRY(check_dims(op, "tokens", tokens, 2, (int64_t[]){count, width}));
    return check_index(d, op, order, count, count, false);
}

kn_status kn_patchify(kn_dev *d, const kn_tensor *x, const int patch[3], const int32_t *order,
                      const kn_tensor *out)
{
    KN_TRY(check_patches(d, "patchify", x, patch, order, out));
    KN_TRY(NO_OVERLAP("patchify", x, out));
    return nothing(d, out) ? KN_OK : d->ops.patchify(d, x, patch, order, out);
}

kn_status kn_unpatchify(kn_dev *d, const kn_tensor *x, const int patch[3], const int32_t *order,
                        const kn_tensor *out)
{
    KN_TRY(check_patches(d, "unpatchify", out, patch, order, x));
    KN_TRY(NO_OVERLAP("unpatchify", x, out));
    return nothing(d, out) ? KN_OK : d->ops.unpatchify(d, x, patch, order, out);
}

kn_status kn_gather(kn_dev *d, const kn_tensor *x, const int32_t *index, const kn_tensor *out)
{
    KN_TRY(check_rows(d, "gather", "x", x));
    KN_TRY(check_rows(d, "gather", "out", out));
    if (x->rank < 2 || out->rank != x->rank)
        return bad("gather", "x", x, "rank 2 or more expected");
    kn_tensor want = *x;
    want.dim[0] = out->dim[0];
    KN_TRY(check_same("gather", "rows of x", &want, "out", out));
    KN_TRY(check_index(d, "gather", index, out->dim[0], x->dim[0], true));
    KN_TRY(NO_OVERLAP("gather", x, out));
    return nothing(d, out) ? KN_OK : d->ops.gather(d, x, index, out);
}

kn_status kn_stats(kn_dev *d, const kn_tensor *x, kn_tensor_stats *out)
{
    *out = (kn_tensor_stats){0};
    KN_TRY(check_rows(d, "stats", "x", x));
    return nothing(d, x) ? KN_OK : d->ops.stats(d, x, out);
}

/* ---- eight bits ------------------------------------------------------------------------------ */

static kn_status check_codes(const kn_dev *d, const char *op, const kn_tensor *x,
                             const kn_tensor *codes, const kn_tensor *scale)
{
    KN_TRY(check_rows(d, op, "rows", x));
    KN_TRY(check_any(d, op, "codes", codes));
    if (x->rank != 2 || !kn_tensor_contiguous(x))
        return bad(op, "rows", x, "a contiguous matrix expected");
    if ((codes->dtype != KN_I8 && codes->dtype != KN_F8) || !kn_tensor_contiguous(codes))
        return bad(op, "codes", codes, "contiguous i8 or f8 expected");
    KN_TRY(check_same(op, "codes", codes, "rows", x));
    if (!present(scale)) return kn_fail(KN_ERR_ARG, "%s: scale is missing", op);
    if (scale->dtype != KN_F32) return bad(op, "scale", scale, "must be f32");
    return check_vector(d, op, "scale", scale, x->dim[0]);
}

kn_status kn_quantize(kn_dev *d, const kn_tensor *x, const kn_tensor *codes, const kn_tensor *scale)
{
    KN_TRY(check_codes(d, "quantize", x, codes, scale));
    return nothing(d, x) ? KN_OK : d->ops.quantize(d, x, codes, scale);
}

kn_status kn_dequantize(kn_dev *d, const kn_tensor *codes, const kn_tensor *scale,
                        const kn_tensor *out)
{
    KN_TRY(check_codes(d, "dequantize", out, codes, scale));
    return nothing(d, out) ? KN_OK : d->ops.dequantize(d, codes, scale, out);
}

bool kn_dev_multiplies_f8(const kn_dev *d)
{
    return d->kind == KN_DEV_MEASURE ? d->measured != KN_DEV_CPU : d->ops.linear_f8 != NULL;
}

static kn_status check_f8(const kn_dev *d, const char *name, const kn_eight_bits *e)
{
    KN_TRY(check_any(d, "linear_f8", name, &e->codes));
    if (e->codes.dtype != KN_F8 || e->codes.rank != 2 || !kn_tensor_contiguous(&e->codes))
        return bad("linear_f8", name, &e->codes, "a contiguous matrix of f8 expected");
    if (!present(&e->scale) || e->scale.dtype != KN_F32)
        return bad("linear_f8", name, &e->scale, "scales must be f32");
    return check_vector(d, "linear_f8", name, &e->scale, e->codes.dim[0]);
}

kn_status kn_linear_f8(kn_dev *d, const kn_eight_bits *x, const kn_weight *w, const kn_eight_bits *room,
                       const kn_tensor *bias, kn_activation act, const kn_tensor *out)
{
    KN_TRY(check_f8(d, "x", x));
    KN_TRY(check_f8(d, "room", room));
    KN_TRY(check_rows(d, "linear_f8", "out", out));
    KN_TRY(check_weight("linear_f8", w, KN_WEIGHT_LINEAR));
    KN_TRY(check_act("linear_f8", act));
    int64_t n = w->t.dim[0], k = w->t.dim[1];
    if (x->codes.dim[1] != k || out->rank != 2 || out->dim[1] != n || out->dim[0] != x->codes.dim[0] ||
        !kn_tensor_contiguous(out) || room->codes.dim[0] != n || room->codes.dim[1] != k) {
        char xt[KN_SHAPE_TEXT], wt[KN_SHAPE_TEXT], ot[KN_SHAPE_TEXT];
        return kn_fail(KN_ERR_ARG, "linear_f8: x %s, weight %s and out %s do not fit",
                       kn_tensor_text(&x->codes, xt), kn_tensor_text(&w->t, wt), kn_tensor_text(out, ot));
    }
    if (!kn_dev_multiplies_f8(d))
        return kn_fail(KN_ERR_UNSUPPORTED, "linear_f8: expected a Hopper GPU or ref, found %s", d->describe);
    if (n % 16 || k % 16) return bad("linear_f8", "weight", &w->t, "multiples of 16 expected");
    KN_TRY(check_vector(d, "linear_f8", "bias", bias, n));
    KN_TRY(NO_OVERLAP("linear_f8", &x->codes, out));
    KN_TRY(NO_OVERLAP("linear_f8", &room->codes, out));
    return nothing(d, out) ? KN_OK : d->ops.linear_f8(d, x, w, room, optional(bias), act, out);
}
