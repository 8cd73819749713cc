/* compute/cuda_conv_plain.cu - convolution of any shape and dtype, a thread per output element: for
 * the checks in f32 and for shapes that cuDNN has no engine for. Slow: nothing is reused but what
 * the caches keep. */
#include "compute/cuda_kernels.cuh"

struct conv_args {
    const char *x;
    const __nv_bfloat16 *w; /* [Co][taps][Ci] */
    const float *bias;
    const char *residual;
    char *out;
    int64_t xs[4], os[4], rs[4];
    int64_t xd[4], od[4];
    int k[3], stride[3], pad[3];
    int x_type, out_type, residual_type;
    int64_t items;
};

__global__ void __launch_bounds__(256) conv_plain_kernel(conv_args a)
{
    int64_t item = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (item >= a.items) return;
    int64_t at[4], rest = item;
    for (int i = 3; i >= 0; i--) at[i] = rest % a.od[i], rest /= a.od[i];
    int64_t ci = a.xd[3];
    const __nv_bfloat16 *w = a.w + at[3] * a.k[0] * a.k[1] * a.k[2] * ci;
    float sum = 0;
    for (int t = 0; t < a.k[0]; t++)
        for (int h = 0; h < a.k[1]; h++)
            for (int v = 0; v < a.k[2]; v++, w += ci) {
                int64_t pt = at[0] * a.stride[0] + t - a.pad[0];
                int64_t ph = at[1] * a.stride[1] + h - a.pad[1];
                int64_t pw = at[2] * a.stride[2] + v - a.pad[2];
                if (pt < 0 || ph < 0 || pw < 0 || pt >= a.xd[0] || ph >= a.xd[1] || pw >= a.xd[2])
                    continue;
                int64_t base = pt * a.xs[0] + ph * a.xs[1] + pw * a.xs[2];
                for (int64_t c = 0; c < ci; c++)
                    sum = fmaf(kn_load1(a.x, a.x_type, base + c), __bfloat162float(w[c]), sum);
            }
    if (a.bias) sum += a.bias[at[3]];
    int64_t o = 0, r = 0;
    for (int i = 0; i < 4; i++) o += at[i] * a.os[i], r += at[i] * a.rs[i];
    if (a.residual) sum += kn_load1(a.residual, a.residual_type, r);
    kn_store1(a.out, a.out_type, o, sum);
}

extern "C" kn_status kn_cuda_conv_plain(kn_dev *d, const kn_tensor *x, const kn_weight *w,
                                        const kn_tensor *bias, const kn_tensor *residual,
                                        const kn_conv_params *p, const kn_tensor *out)
{
    conv_args a = {};
    a.x = (const char *)x->data, a.w = (const __nv_bfloat16 *)w->t.data;
    a.bias = bias ? (const float *)bias->data : NULL;
    a.residual = residual ? (const char *)residual->data : NULL;
    a.out = (char *)out->data;
    for (int i = 0; i < 4; i++) {
        a.xs[i] = x->stride[i], a.os[i] = out->stride[i];
        a.xd[i] = x->dim[i], a.od[i] = out->dim[i];
        a.rs[i] = residual ? residual->stride[i] : 0;
    }
    kn_conv_kernel(w, a.k);
    for (int i = 0; i < 3; i++) a.stride[i] = p->stride[i], a.pad[i] = p->pad_lo[i];
    a.x_type = x->dtype, a.out_type = out->dtype;
    a.residual_type = residual ? residual->dtype : 0;
    a.items = kn_tensor_count(out);
    conv_plain_kernel<<<kn_blocks(a.items, 256), 256, 0, kn_cuda_of(d)->stream>>>(a);
    KN_CUDA_LAUNCHED("conv");
    return KN_OK;
}
