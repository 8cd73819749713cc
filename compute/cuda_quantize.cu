/* compute/cuda_quantize.cu - rows in eight bits: a warp per row, one pass to find the largest value
 * and one, from cache, to round. Bound by memory: 3 bytes per bf16 element either way. */
#include "compute/cuda_kernels.cuh"

enum { WARPS = 8 };

__global__ static void quantize_kernel(const char *x, int dtype, int8_t *codes, float *scale,
                                       int64_t rows, int width)
{
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= rows) return;
    int64_t at = row * width;
    float most = 0;
    for (int i = lane; i < width; i += 32) most = fmaxf(most, fabsf(kn_load1(x, dtype, at + i)));
    for (int step = 16; step; step /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    float inverse = most > 0 ? 127 / most : 0;
    if (lane == 0) scale[row] = most / 127;
    for (int i = lane; i < width; i += 32)
        codes[at + i] = (int8_t)__float2int_rn(kn_load1(x, dtype, at + i) * inverse);
}

__global__ static void dequantize_kernel(const int8_t *codes, const float *scale, char *out,
                                         int dtype, int64_t rows, int width)
{
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= rows) return;
    int64_t at = row * width;
    for (int i = threadIdx.x % 32; i < width; i += 32)
        kn_store1(out, dtype, at + i, (float)codes[at + i] * scale[row]);
}

static unsigned blocks_of(const kn_tensor *rows)
{
    return (unsigned)((rows->dim[0] + WARPS - 1) / WARPS);
}

extern "C" kn_status kn_cuda_quantize(kn_dev *d, const kn_tensor *x, const kn_tensor *codes,
                                      const kn_tensor *scale)
{
    quantize_kernel<<<blocks_of(x), WARPS * 32, 0, kn_cuda_of(d)->stream>>>(
        (const char *)x->data, x->dtype, (int8_t *)codes->data, (float *)scale->data, x->dim[0],
        (int)x->dim[1]);
    KN_CUDA_LAUNCHED("quantize");
    return KN_OK;
}

extern "C" kn_status kn_cuda_dequantize(kn_dev *d, const kn_tensor *codes, const kn_tensor *scale,
                                        const kn_tensor *out)
{
    dequantize_kernel<<<blocks_of(out), WARPS * 32, 0, kn_cuda_of(d)->stream>>>(
        (const int8_t *)codes->data, (const float *)scale->data, (char *)out->data, out->dtype,
        out->dim[0], (int)out->dim[1]);
    KN_CUDA_LAUNCHED("dequantize");
    return KN_OK;
}
