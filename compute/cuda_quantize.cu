/* compute/cuda_quantize.cu - rows in eight bits: a warp per row, one pass to find the largest value
 * and one, from cache, to round. Bound by memory: 3 bytes per bf16 element either way. */
#include "compute/cuda_kernels.cuh"

#include <cuda_fp8.h>

enum { WARPS = 8 };

/* The smallest row maximum that is told from 0, as in host_quantize.c. */
#define LEAST 0x1p-100f

__device__ static inline int8_t code_of(float v, int8_t)
{
    return (int8_t)__float2int_rn(v);
}
__device__ static inline __nv_fp8_storage_t code_of(float v, __nv_fp8_storage_t)
{
    return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
}
__device__ static inline float value_of(int8_t code)
{
    return (float)code;
}
__device__ static inline float value_of(__nv_fp8_storage_t code)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

template <typename T>
__global__ static void quantize_kernel(const char *x, int dtype, T *codes, float *scale,
                                       int64_t rows, int width, float top)
{
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= rows) return;
    int64_t at = row * width;
    float most = 0;
    for (int i = lane; i < width; i += 32) most = fmaxf(most, fabsf(kn_load1(x, dtype, at + i)));
    for (int step = 16; step; step /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    float inverse = most > LEAST ? top / most : 0;
    if (lane == 0) scale[row] = most > LEAST ? most / top : 0;
    for (int i = lane; i < width; i += 32)
        codes[at + i] = code_of(kn_load1(x, dtype, at + i) * inverse, T());
}

/* The same to e4m3 for bf16 rows of a multiple of 16: G threads a row, R sixteens in each thread's registers. */
template <int G, int R>
__global__ static void __launch_bounds__(256) quantize_f8_kernel(const uint4 *x, uint4 *codes, float *scale,
                                                                 int64_t rows, int sixteens)
{
    __shared__ float partial[8];
    int lane = threadIdx.x % G;
    int64_t row = (int64_t)blockIdx.x * (256 / G) + threadIdx.x / G;
    if (row >= rows) return; /* whole warps, or whole blocks, leave */
    const uint4 *from = x + row * 2 * sixteens, none = make_uint4(0, 0, 0, 0);
    uint4 in[R][2];
    float most = 0;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            in[r][h] = lane + r * G < sixteens ? from[2 * (lane + r * G) + h] : none;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[8];
            kn_load<8>((const char *)&in[r][h], KN_BF16, 0, v);
#pragma unroll
            for (int j = 0; j < 8; j++) most = fmaxf(most, fabsf(v[j]));
        }
#pragma unroll
    for (int step = 16; step; step /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    if (G > 32) {
        if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = most;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 8; i++) most = fmaxf(most, partial[i]);
    }
    float inverse = most > LEAST ? 448 / most : 0;
    if (lane == 0) scale[row] = most > LEAST ? most / 448 : 0;
#pragma unroll
    for (int r = 0; r < R; r++) {
        if (lane + r * G >= sixteens) break;
        uint32_t word[4];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[8];
            kn_load<8>((const char *)&in[r][h], KN_BF16, 0, v);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float *p = v + 4 * j;
                uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(p[0] * inverse, p[1] * inverse),
                                                        __NV_SATFINITE, __NV_E4M3);
                uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(p[2] * inverse, p[3] * inverse),
                                                         __NV_SATFINITE, __NV_E4M3);
                word[2 * h + j] = low | high << 16;
            }
        }
        codes[row * sixteens + lane + r * G] = make_uint4(word[0], word[1], word[2], word[3]);
    }
}

template <typename T>
__global__ static void dequantize_kernel(const T *codes, const float *scale, char *out,
                                         int dtype, int64_t rows, int width)
{
    int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= rows) return;
    int64_t at = row * width;
    for (int i = threadIdx.x % 32; i < width; i += 32)
        kn_store1(out, dtype, at + i, value_of(codes[at + i]) * scale[row]);
}

static unsigned blocks_of(const kn_tensor *rows)
{
    return (unsigned)((rows->dim[0] + WARPS - 1) / WARPS);
}

extern "C" kn_status kn_cuda_quantize(kn_dev *d, const kn_tensor *x, const kn_tensor *codes,
                                      const kn_tensor *scale)
{
    cudaStream_t s = kn_cuda_of(d)->stream;
    const char *from = (const char *)x->data;
    float *scales = (float *)scale->data;
    int64_t rows = x->dim[0];
    int width = (int)x->dim[1];
    bool wide = codes->dtype == KN_F8 && x->dtype == KN_BF16 && width % 16 == 0 && width <= 16384 &&
                (uintptr_t)from % 16 == 0 && (uintptr_t)codes->data % 16 == 0;
    if (wide && width <= 1536)
        quantize_f8_kernel<32, 3><<<blocks_of(x), 256, 0, s>>>((const uint4 *)from, (uint4 *)codes->data, scales,
                                                               rows, width / 16);
    else if (wide)
        quantize_f8_kernel<256, 4><<<(unsigned)rows, 256, 0, s>>>((const uint4 *)from, (uint4 *)codes->data, scales,
                                                                  rows, width / 16);
    else if (codes->dtype == KN_F8)
        quantize_kernel<<<blocks_of(x), WARPS * 32, 0, s>>>(from, x->dtype, (__nv_fp8_storage_t *)codes->data, scales,
                                                            rows, width, 448.0f);
    else
        quantize_kernel<<<blocks_of(x), WARPS * 32, 0, s>>>(from, x->dtype, (int8_t *)codes->data, scales, rows,
                                                            width, 127.0f);
    KN_CUDA_LAUNCHED("quantize");
    return KN_OK;
}

extern "C" kn_status kn_cuda_dequantize(kn_dev *d, const kn_tensor *codes, const kn_tensor *scale,
                                        const kn_tensor *out)
{
    cudaStream_t s = kn_cuda_of(d)->stream;
    const float *scales = (const float *)scale->data;
    int64_t rows = out->dim[0];
    int width = (int)out->dim[1];
    if (codes->dtype == KN_F8)
        dequantize_kernel<<<blocks_of(out), WARPS * 32, 0, s>>>((const __nv_fp8_storage_t *)codes->data, scales,
                                                                (char *)out->data, out->dtype, rows, width);
    else
        dequantize_kernel<<<blocks_of(out), WARPS * 32, 0, s>>>((const int8_t *)codes->data, scales,
                                                                (char *)out->data, out->dtype, rows, width);
    KN_CUDA_LAUNCHED("dequantize");
    return KN_OK;
}
