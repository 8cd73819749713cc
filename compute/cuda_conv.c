/* compute/cuda_conv.c - convolutions by cuDNN: bf16, channels last, bias and residual fused.
 *
 * cuDNN's tuned engines take a bias only in the type of the output (with an f32 bias three small
 * run-time engines are left, seen with 9.19), so that it is rounded to bf16. f32 tensors, and
 * shapes that no engine takes, are computed by a plain kernel (cuda_conv_plain.cu).
 */
#include <string.h>

#include "compute/cuda_conv_sm90.h"
#include "compute/cuda_cudnn.h"

enum { X_ID = 1, W_ID, Y_ID, BIAS_ID, RESIDUAL_ID, SUM_ID = 10, SUM_2_ID };
enum { MAX_CHANNELS = KN_CUDA_BIAS_BYTES / 2 };

kn_conv_fn kn_cuda_conv_plain; /* cuda_conv_plain.cu */

typedef struct conv_key {
    int64_t x[4], y[4], xs[4], ys[4], rs[4];
    int k[3], stride[3], pad_lo[3], pad_hi[3];
    bool bias, residual;
} conv_key;
_Static_assert(sizeof(conv_key) <= KN_CUDNN_KEY, "kn_cudnn_plan.key is too short");

static conv_key key_of(const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                       const kn_tensor *residual, const kn_conv_params *p, const kn_tensor *out)
{
    conv_key k;
    memset(&k, 0, sizeof k); /* compared as bytes */
    for (int i = 0; i < 4; i++) {
        k.x[i] = x->dim[i], k.xs[i] = x->stride[i];
        k.y[i] = out->dim[i], k.ys[i] = out->stride[i];
        if (residual) k.rs[i] = residual->stride[i];
    }
    kn_conv_kernel(w, k.k);
    memcpy(k.stride, p->stride, sizeof k.stride);
    memcpy(k.pad_lo, p->pad_lo, sizeof k.pad_lo);
    memcpy(k.pad_hi, p->pad_hi, sizeof k.pad_hi);
    k.bias = bias != NULL, k.residual = residual != NULL;
    return k;
}

/* [T,H,W,C] as cuDNN's N, C, D, H, W. */
static cudnnBackendDescriptor_t video(kn_cudnn_graph *g, int64_t uid, const int64_t dim[4],
                                      const int64_t stride[4], cudnnDataType_t type, bool virtual)
{
    int64_t d[5] = {1, dim[3], dim[0], dim[1], dim[2]};
    int64_t s[5] = {dim[0] * stride[0], 1, stride[0], stride[1], stride[2]};
    kn_cudnn_tensor t = {
        .uid = uid, .rank = 5, .dims = d, .strides = s, .type = type, .is_virtual = virtual};
    return kn_cudnn_tensor_of(g, &t);
}

static cudnnBackendDescriptor_t weights(kn_cudnn_graph *g, const conv_key *k)
{
    int64_t ci = k->x[3], co = k->y[3], kt = k->k[0], kh = k->k[1], kw = k->k[2];
    int64_t d[5] = {co, ci, kt, kh, kw}, s[5] = {kt * kh * kw * ci, 1, kh * kw * ci, kw * ci, ci};
    kn_cudnn_tensor t = {
        .uid = W_ID, .rank = 5, .dims = d, .strides = s, .type = CUDNN_DATA_BFLOAT16};
    return kn_cudnn_tensor_of(g, &t);
}

static cudnnBackendDescriptor_t channel_bias(kn_cudnn_graph *g, int64_t co)
{
    int64_t d[5] = {1, co, 1, 1, 1}, s[5] = {co, 1, co, co, co};
    kn_cudnn_tensor t = {
        .uid = BIAS_ID, .rank = 5, .dims = d, .strides = s, .type = CUDNN_DATA_BFLOAT16};
    return kn_cudnn_tensor_of(g, &t);
}

static cudnnBackendDescriptor_t convolution(kn_cudnn_graph *g, const conv_key *k,
                                            cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w,
                                            cudnnBackendDescriptor_t y)
{
    int64_t axes = 3, stride[3], lo[3], hi[3], dilation[3] = {1, 1, 1};
    cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    float one = 1, zero = 0;
    const cudnnBackendAttributeType_t i64 = CUDNN_TYPE_INT64, desc = CUDNN_TYPE_BACKEND_DESCRIPTOR;
    for (int i = 0; i < 3; i++)
        stride[i] = k->stride[i], lo[i] = k->pad_lo[i], hi[i] = k->pad_hi[i];
    cudnnBackendDescriptor_t c = kn_cudnn_make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    kn_cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, i64, 1, &axes);
    kn_cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    kn_cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    kn_cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i64, 3, lo);
    kn_cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, i64, 3, hi);
    kn_cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_DILATIONS, i64, 3, dilation);
    kn_cudnn_set(g, c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, i64, 3, stride);
    kn_cudnn_finalize(g, c, "convolution");
    cudnnBackendDescriptor_t op =
        kn_cudnn_make(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, desc, 1, &c);
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, desc, 1, &x);
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, desc, 1, &w);
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, desc, 1, &y);
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    kn_cudnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    kn_cudnn_finalize(g, op, "convolution");
    return op;
}

/* y = conv(x, w) + residual + bias; sums in between are f32 and never in memory. */
static kn_status build(kn_dev *d, const conv_key *k, kn_cudnn_plan **plan)
{
    kn_cudnn_graph g;
    cudnnBackendDescriptor_t ops[3];
    int n = 0;
    int64_t packed[4] = {k->y[1] * k->y[2] * k->y[3], k->y[2] * k->y[3], k->y[3], 1};
    KN_TRY(kn_cudnn_begin(d, &g));
    cudnnBackendDescriptor_t x = video(&g, X_ID, k->x, k->xs, CUDNN_DATA_BFLOAT16, false);
    cudnnBackendDescriptor_t w = weights(&g, k);
    cudnnBackendDescriptor_t y = video(&g, Y_ID, k->y, k->ys, CUDNN_DATA_BFLOAT16, false), sum = y;
    if (k->bias || k->residual) sum = video(&g, SUM_ID, k->y, packed, CUDNN_DATA_FLOAT, true);
    ops[n++] = convolution(&g, k, x, w, sum);
    if (k->residual) {
        cudnnBackendDescriptor_t r =
            video(&g, RESIDUAL_ID, k->y, k->rs, CUDNN_DATA_BFLOAT16, false);
        cudnnBackendDescriptor_t to =
            k->bias ? video(&g, SUM_2_ID, k->y, packed, CUDNN_DATA_FLOAT, true) : y;
        ops[n++] = kn_cudnn_add(&g, sum, r, to);
        sum = to;
    }
    if (k->bias) ops[n++] = kn_cudnn_add(&g, sum, channel_bias(&g, k->y[3]), y);
    kn_status st = g.st;
    /* mode B proposes the Hopper engines first where A starts with those of Ampere */
    if (st == KN_OK)
        st = kn_cudnn_build(&g, ops, n, CUDNN_HEUR_MODE_B, k, sizeof *k, plan);
    kn_cudnn_end(&g);
    return st;
}

static bool fits_cudnn(const kn_tensor *t)
{
    return t->dtype == KN_BF16 && (uintptr_t)t->data % 16 == 0;
}

kn_status kn_cuda_conv(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                       const kn_tensor *residual, const kn_conv_params *p, const kn_tensor *out)
{
    kn_cuda *c = kn_cuda_of(d);
    if (c->sm == 90 && kn_cuda_conv_sm90_fits(x, w, residual, p, out))
        return kn_cuda_conv_sm90(d, x, w, bias, residual, p, out);
    if (!fits_cudnn(x) || !fits_cudnn(out) || (residual && !fits_cudnn(residual)) ||
        w->t.dim[0] > MAX_CHANNELS)
        return kn_cuda_conv_plain(d, x, w, bias, residual, p, out);
    conv_key k = key_of(x, w, bias, residual, p, out);
    int64_t uids[5] = {X_ID, W_ID, Y_ID};
    void *pointers[5] = {x->data, w->t.data, out->data};
    int count = 3;
    if (bias) {
        /* the end of the workspace, which plans are told nothing of */
        void *half = (char *)c->workspace + c->workspace_bytes;
        KN_TRY(kn_cuda_convert(d, bias->data, KN_F32, half, KN_BF16, w->t.dim[0]));
        uids[count] = BIAS_ID, pointers[count++] = half;
    }
    if (residual) uids[count] = RESIDUAL_ID, pointers[count++] = residual->data;
    kn_cudnn_plan *plan = kn_cudnn_find(d, &k, sizeof k);
    if (!plan) {
        kn_status st = build(d, &k, &plan);
        if (st == KN_ERR_UNSUPPORTED && c->cudnn) {
            kn_error_clear(); /* the library is there, but has no engine for this shape */
            return kn_cuda_conv_plain(d, x, w, bias, residual, p, out);
        }
        KN_TRY(st);
    }
    return kn_cudnn_run(d, plan, uids, pointers, count);
}
