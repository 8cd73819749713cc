/* compute/ops.h - the operations, once.
 *
 * Purpose   KN_OPS lists every operation; a backend fills one function pointer each. The front end
 *           (ops.c) checks all arguments once - dtype, rank, dims, layout - and then calls the
 *           backend, which may assume them valid. compute/ref.c is the specification: loops with
 *           double accumulation.
 * Shapes    In brackets, outermost first, row-major. "rows" means: every axis but the last is a
 *           row axis, rows may be strided, the last axis is dense. Dimension letters: tensor.h.
 * dtypes    Activations: f32 on ref and cpu (f64 too on ref, for the checks), bf16 or f32 on cuda.
 *           Weights: as opened by kn_weight_open. Vectors (bias, norm weights): f32, device memory.
 * Aliasing  Output may be the same view as the first input where said; partial overlap is an error.
 * Errors    KN_ERR_ARG from the front end (a bug of the caller: the message names the operation
 *           and the shapes), KN_ERR_DEVICE from a backend.
 */
#ifndef KN_COMPUTE_OPS_H
#define KN_COMPUTE_OPS_H

#include "compute/device.h"

typedef enum kn_activation {
    KN_ACT_NONE,
    KN_ACT_SILU,
    KN_ACT_GELU_TANH,
    KN_ACT_GELU_ERF
} kn_activation;

/* ---- weights ----------------------------------------------------------------------------------
 * A weight is opened once from its stored form (f32, bf16 or f16, host memory) and belongs to the
 * backend afterwards, converted and packed as that backend likes.
 */
typedef enum kn_weight_kind {
    KN_WEIGHT_VECTOR, /* any rank; kept as plain f32 in device memory: use w.t as a tensor       */
    KN_WEIGHT_LINEAR, /* [N, K]: out = x w^T                                                     */
    KN_WEIGHT_CONV,   /* [Co, Ci, kt, kh, kw] or [Co, Ci, kh, kw] (kt = 1)                       */
    KN_WEIGHT_TABLE   /* [V, d], rows are looked up by embed; kept as stored                     */
} kn_weight_kind;

typedef struct kn_weight {
    kn_tensor t; /* logical shape; data is plain only for VECTOR and TABLE */
    kn_weight_kind kind;
    void *impl;   /* backend's packed form */
    size_t bytes; /* device bytes held */
    bool away;    /* lives in host memory, offload.h; data is where it will be when it is used */
} kn_weight;

/* host: contiguous view of f32, bf16 or f16 in host memory (may be a memory-mapped file); not kept.
 * LINEAR takes any rank >= 2 as [dim 0, product of the others], so that a 1x1 convolution or a
 * patch embedding can be run by linear. On the measure device data may be NULL. Close with
 * kn_weight_close. */
KN_CHECKED kn_status kn_weight_open(kn_dev *d, kn_weight_kind kind, const kn_tensor *host,
                                    kn_weight *out);
/* NULL-safe on a zeroed weight; zeroes it. */
void kn_weight_close(kn_dev *d, kn_weight *w);

/* ---- parameters -------------------------------------------------------------------------------*/
/* Row normalisations; absent tensors (rank 0) are left out of the formula. */
typedef struct kn_rmsnorm_params {
    float eps;
    bool l2_clamp;     /* false: x * rsqrt(mean(x^2) + eps)        (T5, Wan q/k norms)
                      true:  x / max(|x|_2, eps) * sqrt(C)     (Wan VAE; torch F.normalize) */
    kn_activation act; /* applied after the weight */
} kn_rmsnorm_params;

/* Of gate_norm; weight and bias exclude scale and shift. */
typedef struct kn_layernorm_params {
    kn_tensor weight, bias, scale, shift; /* [C] f32; rank 0 = absent */
    float eps;
} kn_layernorm_params;

typedef struct kn_conv_params {
    int stride[3]; /* t, h, w */
    int pad_lo[3]; /* zeros before, on each axis */
    int pad_hi[3]; /* zeros after */
} kn_conv_params;

typedef struct kn_tensor_stats {
    int64_t nonfinite; /* NaN and infinities; the others are not counted below */
    double min, max, mean, rms;
} kn_tensor_stats;

/* ---- operations -------------------------------------------------------------------------------
 * linear     out[M,N] = act(x[M,K] w[N,K]^T + bias[N]) ; bias may be absent. x, out: rows.
 * conv       out[To,Ho,Wo,Co] = conv(x[T,H,W,Ci], w) + bias[Co] (+ residual[To,Ho,Wo,Co]); channels
 *            last; cross-correlation as in torch. bias, residual may be absent; out may be
 *            residual.
 * embed      out[T,d] = table[ids[T]]; ids i32 in host memory, checked against V by the front end.
 * rmsnorm    out = act(normalise(x[..,C]) * weight[C]); out may be x. Rows.
 * layernorm  n = (x - mean) * rsqrt(var + eps) over the last axis, then
 *            out = n * weight + bias, or n * (1 + scale[C]) + shift[C]; any of the four may be
 *            absent; out may be x. Rows.
 * gate_add   out = x + y * gate[C] (gate absent: 1). [..,C]; out may be x. Rows.
 * rope       rotate pairs: x[L,N,D], cos[L,D/2], sin[L,D/2] (f32 tables);
 *            out[2i] = x[2i] cos - x[2i+1] sin, out[2i+1] = x[2i] sin + x[2i+1] cos. out may be x.
 * norm_rope  out = rope(rmsnorm(x) * weight): x[L,N,D], heads dense; the mean square is over all
 *            N D values of a token. The two operations in one pass. out may be x.
 * gate_norm  sum = x + y * gate (gate absent: 1), out = layernorm(sum): gate_add and layernorm in
 *            one pass. Rows. sum may be x or y, out may be y, sum and out are different.
 * act        out = act(x); out may be x.
 * mul        out = act(x) * y  (gated activation); out may be x or y.
 * axpby      out = a x + b y; out may be x or y. (Guidance, solver updates, re-noising.)
 * copy       out = x with conversion of dtype; any strides on both sides, same shape.
 * upsample2  out[T,2H,2W,C] nearest of x[T,H,W,C].
 * patchify   out[L, C*pt*ph*pw] from x[C,F,H,W] f32; token l is grid position order[l] (i32, host
 *            pointer, NULL = raster f,h,w); inner order c, pt, ph, pw as in the checkpoint's conv.
 * unpatchify out[C,F,H,W] f32 from x[L, pt*ph*pw*C] (channel fastest, as the head writes it).
 * linear_f8  out[M,N] = act(x[M,K] w[N,K]^T + bias[N]) with both factors in e4m3, a scale for each row: x comes
 *            as quantize makes it, codes f8 [M,K] and scale f32 [M]; of w the operation makes codes f8 [N,K]
 *            and scale f32 [N] in `room`, which hold nothing of use before or after. K, N: multiples of 16;
 *            all contiguous. Where kn_dev_multiplies_f8; the products are summed in fp32 of the device's kind.
 * quantize   codes i8 or f8 [n,D] and scale f32 [n] of rows x [n,D]: scale = max|x| / most, code = x / scale
 *            rounded to nearest even, most = 127 or 448; a row below 2^-100 has scale 0. All contiguous.
 * dequantize out[n,D] = codes[n,D] * scale[n].
 * gather     out[i,:] = x[index[i],:] rows; index i32 host pointer.
 * stats      finite check and moments of x.
 */
typedef kn_status kn_linear_fn(kn_dev *, const kn_tensor *x, const kn_weight *w,
                               const kn_tensor *bias, kn_activation act, const kn_tensor *out);
typedef kn_status kn_conv_fn(kn_dev *, const kn_tensor *x, const kn_weight *w,
                             const kn_tensor *bias, const kn_tensor *residual,
                             const kn_conv_params *p, const kn_tensor *out);
typedef kn_status kn_embed_fn(kn_dev *, const kn_weight *table, const int32_t *ids, int64_t count,
                              const kn_tensor *out);
typedef kn_status kn_rmsnorm_fn(kn_dev *, const kn_tensor *x, const kn_tensor *weight,
                                const kn_rmsnorm_params *p, const kn_tensor *out);
typedef kn_status kn_layernorm_fn(kn_dev *, const kn_tensor *x, const kn_tensor *weight,
                                  const kn_tensor *bias, const kn_tensor *scale,
                                  const kn_tensor *shift, float eps, const kn_tensor *out);
typedef kn_status kn_gate_add_fn(kn_dev *, const kn_tensor *x, const kn_tensor *y,
                                 const kn_tensor *gate, const kn_tensor *out);
typedef kn_status kn_rope_fn(kn_dev *, const kn_tensor *x, const kn_tensor *cos,
                             const kn_tensor *sin, const kn_tensor *out);
typedef kn_status kn_norm_rope_fn(kn_dev *, const kn_tensor *x, const kn_tensor *weight, float eps,
                                  const kn_tensor *cos, const kn_tensor *sin,
                                  const kn_tensor *out);
typedef kn_status kn_gate_norm_fn(kn_dev *, const kn_tensor *x, const kn_tensor *y,
                                  const kn_tensor *gate, const kn_layernorm_params *p,
                                  const kn_tensor *sum, const kn_tensor *out);
typedef kn_status kn_act_fn(kn_dev *, const kn_tensor *x, kn_activation act, const kn_tensor *out);
typedef kn_status kn_mul_fn(kn_dev *, const kn_tensor *x, kn_activation act, const kn_tensor *y,
                            const kn_tensor *out);
typedef kn_status kn_axpby_fn(kn_dev *, float a, const kn_tensor *x, float b, const kn_tensor *y,
                              const kn_tensor *out);
typedef kn_status kn_copy_fn(kn_dev *, const kn_tensor *x, const kn_tensor *out);
typedef kn_status kn_upsample2_fn(kn_dev *, const kn_tensor *x, const kn_tensor *out);
typedef kn_status kn_patchify_fn(kn_dev *, const kn_tensor *x, const int patch[3],
                                 const int32_t *order, const kn_tensor *out);
typedef kn_status kn_unpatchify_fn(kn_dev *, const kn_tensor *x, const int patch[3],
                                   const int32_t *order, const kn_tensor *out);
/* Rows in eight bits: codes [n,D] and scale f32 [n]. */
typedef struct kn_eight_bits {
    kn_tensor codes, scale;
} kn_eight_bits;
typedef kn_status kn_linear_f8_fn(kn_dev *, const kn_eight_bits *x, const kn_weight *w, const kn_eight_bits *room,
                                  const kn_tensor *bias, kn_activation act, const kn_tensor *out);
typedef kn_status kn_quantize_fn(kn_dev *, const kn_tensor *x, const kn_tensor *codes,
                                 const kn_tensor *scale);
typedef kn_status kn_dequantize_fn(kn_dev *, const kn_tensor *codes, const kn_tensor *scale,
                                   const kn_tensor *out);
typedef kn_status kn_gather_fn(kn_dev *, const kn_tensor *x, const int32_t *index,
                               const kn_tensor *out);
typedef kn_status kn_stats_fn(kn_dev *, const kn_tensor *x, kn_tensor_stats *out);

#define KN_OPS(X)                                                                                  \
    X(linear)                                                                                      \
    X(conv) X(embed) X(rmsnorm) X(layernorm) X(gate_add) X(rope) X(norm_rope) X(gate_norm) X(act)  \
        X(mul) X(axpby) X(copy) X(upsample2) X(patchify) X(unpatchify) X(gather) X(stats) \
        X(quantize) X(dequantize) X(linear_f8)

typedef struct kn_ops {
#define X(op) kn_##op##_fn *op;
    KN_OPS(X)
#undef X
} kn_ops;

/* Front ends: kn_linear(d, ...), kn_conv(d, ...), ... */
#define X(op) kn_##op##_fn kn_##op;
KN_OPS(X)
#undef X

/* Has the device linear_f8? ref and, from Hopper on, cuda; a measure device that stands for one of them. */
bool kn_dev_multiplies_f8(const kn_dev *d);

/* The absent tensor, for optional arguments (NULL is accepted too). */
#define KN_ABSENT ((const kn_tensor *)0)

/* ---- parallel loop on the host (ref and cpu devices) ------------------------------------------
 * Calls fn(user, begin, end) over pieces of [0, count); pieces do not depend on the thread count
 * (each is `grain` long, the last may be shorter), so that results don't either.
 */
typedef void kn_range_fn(void *user, int64_t begin, int64_t end);
void kn_parallel_for(kn_dev *d, int64_t count, int64_t grain, kn_range_fn *fn, void *user);

#endif
