/* compute/cuda_conv_sm90.cu - the VAE's largest convolutions on Hopper: 3x3x3, 96 channels to 96.
 *
 * Half of a decode's and of an encode's work is here, at full resolution. cuDNN 9.19 proposes an Ampere kernel
 * of 32 columns first and runs at 250 TFLOP/s on an H100. This one is an implicit product: a block of threads
 * takes 16 x 32 pixels of a frame; each of its two computing warpgroups has eight rows of them, four products
 * of 64 pixels by 96 channels side by side. 32 channels of the frame's piece, with the pixels around it, are
 * copied to shared memory once and read by all nine taps: a tap is another address of the same tile. Weights
 * come tap by tap, three at a time. The copy engine fills in zeros outside of the frames.
 *
 * Source    PTX ISA 9.0, wgmma and tensor copies; the sums are f32 and rounded once, with bias and residual.
 */
#include <cuda_bf16.h>

#include "compute/cuda.h"
#include "compute/cuda_conv_sm90.h"
#include "compute/sm90.cuh"

namespace {

enum { CHANNELS = 96, PART = 32, PARTS = CHANNELS / PART, TAPS = 27 };
enum { TILE_H = 16, TILE_W = 32, ROWS = TILE_H + 2, COLS = TILE_W + 2 };
enum { PIXEL = PART * 2, FRAME_BYTES = ROWS * COLS * PIXEL, TAP_BYTES = CHANNELS * PIXEL };
enum { FRAME_ROOM = (FRAME_BYTES + 511) / 512 * 512, STAGE_BYTES = 3 * TAP_BYTES };
enum { FRAMES = 3, STAGES = 4, THREADS = 384, FEED_REGS = 24, MATH_REGS = 240 };
enum { STAGE = FRAMES * FRAME_ROOM, BARS = STAGE + STAGES * STAGE_BYTES };
enum { FRAME_FULL = BARS, FRAME_EMPTY = FRAME_FULL + 8 * FRAMES, FULL = FRAME_EMPTY + 8 * FRAMES };
enum { EMPTY = FULL + 8 * STAGES, BYTES = EMPTY + 8 * STAGES };
/* As in attention/sparse_sm90.cu: for racecheck, every lane arrives for itself. */
#ifdef KN_SM90_EVERY_LANE
enum { GROUP_VOTES = 128 };
#else
enum { GROUP_VOTES = 1 };
#endif

struct launch {
    const float *bias;
    const __nv_bfloat16 *residual;
    __nv_bfloat16 *out;
    int64_t os[3], rs[3];
    int frames, height, width, past; /* past: zeros before the first frame */
    int across, down, work;
};

template <int N> struct ring {
    int slot = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void next()
    {
        if (++slot == N) slot = 0, parity ^= 1;
    }
};

struct place {
    int t, h, w;
};

__device__ __forceinline__ place place_of(const launch &a, int work)
{
    place p;
    p.w = work % a.across * TILE_W;
    work /= a.across;
    p.h = work % a.down * TILE_H;
    p.t = work / a.down;
    return p;
}

/* One thread. */
__device__ void run_copies(const launch &a, uint32_t base, const CUtensorMap *xm, const CUtensorMap *wm)
{
    uint64_t keep, stream;
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(keep));
    asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(stream));
    ring<FRAMES> f;
    ring<STAGES> c;
    for (int work = blockIdx.x; work < a.work; work += gridDim.x) {
        place p = place_of(a, work);
        for (int dt = 0; dt < 3; dt++)
            for (int part = 0; part < PARTS; part++) {
                uint32_t bar = base + FRAME_FULL + 8 * f.slot;
                bar_wait(base + FRAME_EMPTY + 8 * f.slot, f.parity ^ 1);
                bar_expect(bar, FRAME_BYTES);
                tma_load_4d(base + f.slot * FRAME_ROOM, xm, bar, part * PART, p.w - 1, p.h - 1,
                            p.t + dt - a.past, stream);
                f.next();
                for (int dh = 0; dh < 3; dh++) {
                    bar = base + FULL + 8 * c.slot;
                    bar_wait(base + EMPTY + 8 * c.slot, c.parity ^ 1);
                    bar_expect(bar, STAGE_BYTES);
                    for (int dw = 0; dw < 3; dw++)
                        tma_load_4d(base + STAGE + c.slot * STAGE_BYTES + dw * TAP_BYTES, wm, bar, part * PART,
                                    dt * 9 + dh * 3 + dw, 0, 0, keep);
                    c.next();
                }
            }
    }
}

/* Two columns of a pixel each before; four of one after: of the first eight columns where the thread's number is
 * even, of the second where it is odd. */
__device__ __forceinline__ uint2 join_columns(uint32_t first, uint32_t second, bool odd)
{
    uint32_t other = __shfl_xor_sync(~0u, odd ? first : second, 1);
    return odd ? make_uint2(other, second) : make_uint2(first, other);
}
/* The other way round. */
__device__ __forceinline__ uint2 part_columns(uint2 four, bool odd)
{
    uint32_t other = __shfl_xor_sync(~0u, odd ? four.x : four.y, 1);
    return odd ? make_uint2(other, four.y) : make_uint2(four.x, other);
}

__device__ __forceinline__ float2 pair_of(uint32_t bits)
{
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}

__device__ __forceinline__ void store(const launch &a, const place &p, int group, float (&acc)[4][48])
{
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5 & 3, quad = lane & 3;
    bool odd = quad & 1;
    /* columns of the joined four, from the pair of eights on */
    int column = odd ? 8 + 2 * (quad - 1) : 2 * quad;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int h = p.h + 8 * group + 2 * warp + half;
#pragma unroll
        for (int b = 0; b < 4; b++) {
            int w = p.w + 8 * b + (lane >> 2);
            bool live = h < a.height && w < a.width;
            __nv_bfloat16 *out = a.out + p.t * a.os[0] + h * a.os[1] + w * a.os[2] + column;
            const __nv_bfloat16 *res =
                a.residual ? a.residual + p.t * a.rs[0] + h * a.rs[1] + w * a.rs[2] + column : nullptr;
#pragma unroll
            for (int j = 0; j < 12; j += 2) {
                float *v = &acc[b][4 * j + 2 * half], *u = v + 4;
                float2 x = make_float2(v[0], v[1]), y = make_float2(u[0], u[1]);
                if (a.bias) {
                    float2 c = __ldg((const float2 *)(a.bias + 8 * j + 2 * quad));
                    float2 d = __ldg((const float2 *)(a.bias + 8 * j + 8 + 2 * quad));
                    x.x += c.x, x.y += c.y, y.x += d.x, y.y += d.y;
                }
                if (res) {
                    uint2 r = live ? *(const uint2 *)(res + 8 * j) : make_uint2(0, 0);
                    r = part_columns(r, odd);
                    float2 c = pair_of(r.x), d = pair_of(r.y);
                    x.x += c.x, x.y += c.y, y.x += d.x, y.y += d.y;
                }
                uint2 both = join_columns(bf16_pair(x.x, x.y), bf16_pair(y.x, y.y), odd);
                if (live) *(uint2 *)(out + 8 * j) = both;
            }
        }
    }
}

__device__ void run_math(const launch &a, uint32_t base, int group)
{
    int lead = (threadIdx.x & 127) < GROUP_VOTES;
    ring<FRAMES> f;
    ring<STAGES> c;
    for (int work = blockIdx.x; work < a.work; work += gridDim.x) {
        float acc[4][48];
#pragma unroll
        for (int b = 0; b < 4; b++)
#pragma unroll
            for (int j = 0; j < 48; j++) acc[b][j] = 0;
        int before = -1, frame_before = -1; /* still read by products under way */
#pragma unroll 1
        for (int piece = 0; piece < 3 * PARTS; piece++) {
            bar_wait(base + FRAME_FULL + 8 * f.slot, f.parity);
            uint32_t frame = base + f.slot * FRAME_ROOM + group * 8 * COLS * PIXEL;
#pragma unroll 1
            for (int dh = 0; dh < 3; dh++) {
                uint32_t taps = base + STAGE + c.slot * STAGE_BYTES;
                bar_wait(base + FULL + 8 * c.slot, c.parity);
                wg_fence();
#pragma unroll
                for (int dw = 0; dw < 3; dw++)
#pragma unroll
                    for (int k = 0; k < PART / 16; k++)
#pragma unroll
                        for (int b = 0; b < 4; b++)
                            wg_ss_96(acc[b],
                                     wg_operand_64(frame + (dh * COLS + 8 * b + dw) * PIXEL + k * 32,
                                                   COLS * PIXEL),
                                     wg_operand_64(taps + dw * TAP_BYTES + k * 32, 8 * PIXEL));
                wg_commit();
                wg_wait<1>();
                bar_arrive_if(lead && before >= 0, base + EMPTY + 8 * before);
                bar_arrive_if(lead && dh == 0 && frame_before >= 0, base + FRAME_EMPTY + 8 * frame_before);
                before = c.slot;
                c.next();
            }
            frame_before = f.slot;
            f.next();
        }
        wg_wait<0>();
        bar_arrive_if(lead, base + EMPTY + 8 * before);
        bar_arrive_if(lead, base + FRAME_EMPTY + 8 * frame_before);
        store(a, place_of(a, work), group, acc);
    }
}

__global__ void __launch_bounds__(THREADS, 1)
    conv_96_kernel(const __grid_constant__ CUtensorMap xm, const __grid_constant__ CUtensorMap wm,
                   const __grid_constant__ launch a)
{
    extern __shared__ __align__(1024) uint8_t memory[];
    uint32_t base = smem_of(memory);
    if (threadIdx.x == 0) {
        for (int i = 0; i < FRAMES; i++)
            bar_init(base + FRAME_FULL + 8 * i, 1), bar_init(base + FRAME_EMPTY + 8 * i, 2 * GROUP_VOTES);
        for (int i = 0; i < STAGES; i++)
            bar_init(base + FULL + 8 * i, 1), bar_init(base + EMPTY + 8 * i, 2 * GROUP_VOTES);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        regs_shrink<FEED_REGS>();
        if (threadIdx.x == 0) run_copies(a, base, &xm, &wm);
    } else {
        regs_grow<MATH_REGS>();
        run_math(a, base, (threadIdx.x >> 7) - 1);
    }
}

cudaError_t make_map(tensor_map_fn encode, CUtensorMap *map, const void *data, const cuuint64_t dims[4],
                     const cuuint64_t strides[3], const cuuint32_t box[4])
{
    cuuint32_t step[4] = {1, 1, 1, 1};
    CUresult r = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, (void *)data, dims, strides, box, step,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/* Pixels a multiple of 16 bytes apart, at an address that is one too. */
bool fits_copies(const kn_tensor *t)
{
    bool fits = t->dtype == KN_BF16 && (uintptr_t)t->data % 16 == 0 && t->stride[3] == 1;
    for (int i = 0; i < 3; i++) fits = fits && t->stride[i] % 8 == 0;
    return fits;
}

} // namespace

extern "C" bool kn_cuda_conv_sm90_fits(const kn_tensor *x, const kn_weight *w, const kn_tensor *residual,
                                       const kn_conv_params *p, const kn_tensor *out)
{
    int k[3];
    kn_conv_kernel(w, k);
    bool fits = fits_copies(x) && fits_copies(out) && (!residual || fits_copies(residual)) &&
                x->dim[3] == CHANNELS && out->dim[3] == CHANNELS && p->pad_lo[0] >= 0 && p->pad_hi[0] == 0 &&
                out->dim[0] > 0;
    for (int i = 0; i < 3; i++) fits = fits && k[i] == 3 && p->stride[i] == 1 && x->dim[i] < 1 << 24;
    for (int i = 1; i < 3; i++) fits = fits && p->pad_lo[i] == 1 && p->pad_hi[i] == 1;
    return fits;
}

extern "C" kn_status kn_cuda_conv_sm90(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                                       const kn_tensor *residual, const kn_conv_params *p, const kn_tensor *out)
{
    tensor_map_fn encode;
    CUtensorMap xm, wm;
    const cuuint64_t xd[4] = {CHANNELS, (cuuint64_t)x->dim[2], (cuuint64_t)x->dim[1], (cuuint64_t)x->dim[0]};
    const cuuint64_t xs[3] = {(cuuint64_t)x->stride[2] * 2, (cuuint64_t)x->stride[1] * 2,
                              (cuuint64_t)x->stride[0] * 2};
    const cuuint64_t wd[4] = {CHANNELS, TAPS, CHANNELS, 1};
    const cuuint64_t ws[3] = {CHANNELS * 2, TAPS * CHANNELS * 2, TAPS * CHANNELS * CHANNELS * 2};
    const cuuint32_t xb[4] = {PART, COLS, ROWS, 1}, wb[4] = {PART, 1, CHANNELS, 1};
    launch a = {};
    KN_CUDA_TRY(tensor_map_find(&encode));
    KN_CUDA_TRY(make_map(encode, &xm, x->data, xd, xs, xb));
    KN_CUDA_TRY(make_map(encode, &wm, w->t.data, wd, ws, wb));
    a.bias = bias ? (const float *)bias->data : nullptr;
    a.residual = residual ? (const __nv_bfloat16 *)residual->data : nullptr;
    a.out = (__nv_bfloat16 *)out->data;
    for (int i = 0; i < 3; i++) a.os[i] = out->stride[i], a.rs[i] = residual ? residual->stride[i] : 0;
    a.frames = (int)out->dim[0], a.height = (int)out->dim[1], a.width = (int)out->dim[2];
    a.past = p->pad_lo[0];
    a.across = (a.width + TILE_W - 1) / TILE_W, a.down = (a.height + TILE_H - 1) / TILE_H;
    a.work = a.across * a.down * a.frames;
    int grid = a.work < kn_cuda_of(d)->sm_count ? a.work : kn_cuda_of(d)->sm_count;
    KN_CUDA_TRY(cudaFuncSetAttribute(conv_96_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES));
    conv_96_kernel<<<grid, THREADS, BYTES, kn_cuda_of(d)->stream>>>(xm, wm, a);
    KN_CUDA_LAUNCHED("convolution");
    return KN_OK;
}
