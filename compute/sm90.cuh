/* compute/sm90.cuh - for the kernels of compute/ and attention/: the instructions of Hopper that they use.
 *
 * Source    PTX ISA 9.0: mbarrier, cp.async.bulk.tensor, wgmma, setmaxnreg.
 */
#ifndef KN_COMPUTE_SM90_CUH
#define KN_COMPUTE_SM90_CUH

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdint.h>

/* cuTensorMapEncodeTiled, from the driver, so that nothing links to libcuda. */
typedef CUresult(CUDAAPI *tensor_map_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                         const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                         const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                         CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
static inline cudaError_t tensor_map_find(tensor_map_fn *out)
{
    void *fn = nullptr;
    cudaDriverEntryPointQueryResult found;
    cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000,
                                                     cudaEnableDefault, &found);
    if (e == cudaSuccess && (!fn || found != cudaDriverEntryPointSuccess))
        e = cudaErrorNotSupported;
    *out = (tensor_map_fn)fn;
    return e;
}

__device__ __forceinline__ uint32_t smem_of(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- mbarriers --------------------------------------------------------------------------------*/
__device__ __forceinline__ void bar_init(uint32_t bar, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals));
}
__device__ __forceinline__ void bar_expect(uint32_t bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void bar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* ---- clusters of blocks of threads: shared memory of one another ----------------------------- */
__device__ __forceinline__ uint32_t cluster_rank()
{
    uint32_t r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
/* What lies at `addr` of this block's shared memory, in the block of that rank. */
__device__ __forceinline__ uint32_t cluster_address(uint32_t addr, uint32_t rank)
{
    uint32_t r;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(addr), "r"(rank));
    return r;
}
__device__ __forceinline__ void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
/* As bar_arrive_if, of a barrier by its cluster_address. */
__device__ __forceinline__ void cluster_arrive_if(int p, uint32_t bar)
{
    asm volatile("{.reg .pred p; setp.ne.b32 p, %1, 0;\n"
                 "@p mbarrier.arrive.shared::cluster.b64 _, [%0];}" ::"r"(bar),
                 "r"(p)
                 : "memory");
}
/* Predicated inside the instruction: a branch around it would serialise wgmma in flight. */
__device__ __forceinline__ void bar_arrive_if(int p, uint32_t bar)
{
    asm volatile("{.reg .pred p; setp.ne.b32 p, %1, 0;\n"
                 "@p mbarrier.arrive.shared::cta.b64 _, [%0];}" ::"r"(bar),
                 "r"(p)
                 : "memory");
}
/* Once for a warp, by some lane. */
__device__ __forceinline__ void bar_arrive_by_one(uint32_t bar)
{
    asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff;\n"
                 "@p mbarrier.arrive.shared::cta.b64 _, [%0];}" ::"r"(bar)
                 : "memory");
}
__device__ __forceinline__ void bar_wait(uint32_t bar, uint32_t parity)
{
    asm volatile("{.reg .pred p;\n"
                 "W%=: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra D%=;\n"
                 "bra W%=;\n"
                 "D%=:}" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}
/* Both, asked at once. */
__device__ __forceinline__ void bar_wait_both(uint32_t a, uint32_t a_parity, uint32_t b,
                                              uint32_t b_parity)
{
    asm volatile("{.reg .pred p, q;\n"
                 "W%=: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 q, [%2], %3;\n"
                 "and.pred p, p, q;\n"
                 "@p bra D%=;\n"
                 "bra W%=;\n"
                 "D%=:}" ::"r"(a),
                 "r"(a_parity), "r"(b), "r"(b_parity)
                 : "memory");
}
/* Named barriers; the id must be a constant, or all 16 are reserved. */
template <int ID, int THREADS> __device__ __forceinline__ void named_sync()
{
    asm volatile("bar.sync %0, %1;" ::"n"(ID), "n"(THREADS) : "memory");
}
template <int ID, int THREADS> __device__ __forceinline__ void named_arrive()
{
    asm volatile("bar.arrive %0, %1;" ::"n"(ID), "n"(THREADS) : "memory");
}

/* ---- tensor copies ----------------------------------------------------------------------------*/
__device__ __forceinline__ void tma_load_4d(uint32_t dst, const CUtensorMap *map, uint32_t bar,
                                            int x, int y, int z, int w, uint64_t hint)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3,%4,%5,%6}], [%2], %7;" ::"r"(dst),
                 "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z), "r"(w), "l"(hint)
                 : "memory");
}
/* Into the same place of all blocks of the cluster in `ranks`, and their barriers likewise. */
__device__ __forceinline__ void tma_load_4d_to(uint16_t ranks, uint32_t dst, const CUtensorMap *map,
                                               uint32_t bar, int x, int y, int z, int w,
                                               uint64_t hint)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes."
                 "multicast::cluster"
                 ".L2::cache_hint [%0], [%1, {%3,%4,%5,%6}], [%2], %7, %8;" ::"r"(dst),
                 "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z), "r"(w), "h"(ranks), "l"(hint)
                 : "memory");
}
__device__ __forceinline__ void tma_load_2d(uint32_t dst, const CUtensorMap *map, uint32_t bar,
                                            int x, int y, uint64_t hint)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3,%4}], [%2], %5;" ::"r"(dst),
                 "l"(map), "r"(bar), "r"(x), "r"(y), "l"(hint)
                 : "memory");
}
/* Address and bytes multiples of 16. */
__device__ __forceinline__ void bulk_load(uint32_t dst, const void *src, uint32_t bytes,
                                          uint32_t bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1], %2, [%3];" ::"r"(dst),
                 "l"(src), "r"(bytes), "r"(bar)
                 : "memory");
}
__device__ __forceinline__ void fence_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
template <int R> __device__ __forceinline__ void regs_grow()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(R));
}
template <int R> __device__ __forceinline__ void regs_shrink()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(R));
}

/* ---- wgmma ------------------------------------------------------------------------------------
 * Operands in shared memory: panels of 64 columns, rows of 128 bytes, 128-byte swizzle, 1024-byte
 * aligned. D[m,n] of a thread: row 16 warp + lane/4 (+8 for elements 2, 3 of each group of four),
 * column 8 (i/4) + 2 (lane%4) + i%2.
 */
__device__ __forceinline__ uint64_t wg_operand(uint32_t addr, uint32_t leading, uint32_t stride)
{
    return (uint64_t)((addr & 0x3FFFF) >> 4) | ((uint64_t)(leading >> 4) << 16) |
           ((uint64_t)(stride >> 4) << 32) | (1ull << 62);
}
/* Without panels: 8 rows of 16 bytes lie together; leading: from 16 bytes of a row to the next 16,
 * stride: from 8 rows to the next 8. */
__device__ __forceinline__ uint64_t wg_operand_plain(uint32_t addr, uint32_t leading, uint32_t stride)
{
    return (uint64_t)((addr & 0x3FFFF) >> 4) | ((uint64_t)(leading >> 4) << 16) |
           ((uint64_t)(stride >> 4) << 32);
}
/* An operand that begins some bytes further on, a multiple of 16. */
__device__ __forceinline__ uint64_t wg_further(uint64_t operand, uint32_t bytes)
{
    return operand + (bytes >> 4);
}
__device__ __forceinline__ void wg_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wg_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* The same with panels of 32 columns, rows of 64 bytes, 64-byte swizzle; the swizzle goes by the bits of an
 * address, so that a tile may begin at any row. stride: bytes from eight rows to the next eight. */
__device__ __forceinline__ uint64_t wg_operand_64(uint32_t addr, uint32_t stride)
{
    return (uint64_t)((addr & 0x3FFFF) >> 4) | (1ull << 16) | ((uint64_t)(stride >> 4) << 32) | (2ull << 62);
}
template <int N> __device__ __forceinline__ void wg_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* Nothing moves across: ends a basic block by a branch that is never taken. Left to itself ptxas
 * moves a wait for the tensor cores, which names no registers, as far up as it can, and then
 * nothing runs beside them. n: some number of a loop, the same for the warp, never below 0; at:
 * any, another one for each call. */
__device__ __forceinline__ void wg_hold(int n, int at)
{
    asm volatile("" : "+r"(n));
    if (n == -1 - at) __trap();
}

#define R4(d, i) "+f"((d)[i]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3])
#define R16(d, i) R4(d, i), R4(d, (i) + 4), R4(d, (i) + 8), R4(d, (i) + 12)
#define R32(d) R16(d, 0), R16(d, 16)
#define R64(d) R32(d), R16(d, 32), R16(d, 48)
#define N32                                                                                        \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"       \
    "%24,%25,%26,%27,%28,%29,%30,%31"
#define N64                                                                                        \
    N32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,"    \
        "%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

#define R48(d) R32(d), R16(d, 32)
#define N48                                                                                        \
    N32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"

/* d += A B, both K-major in shared memory; 96 columns. */
__device__ __forceinline__ void wg_ss_96(float (&d)[48], uint64_t a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" N48
                 "}, %48, %49, 1, 1, 1, 0, 0;\n"
                 : R48(d)
                 : "l"(a), "l"(b));
}
/* d (+)= A B, both K-major in shared memory; 128 columns. */
__device__ __forceinline__ void wg_ss_128(float (&d)[64], uint64_t a, uint64_t b, int add)
{
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" N64
                 "}, %64, %65, p, 1, 1, 0, 0;}\n"
                 : R64(d)
                 : "l"(a), "l"(b), "r"(add));
}
/* d += A B, A in registers, B with its columns together in memory. */
__device__ __forceinline__ void wg_rs(float (&d)[64], const uint32_t *a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" N64
                 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;\n"
                 : R64(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void wg_rs(float (&d)[32], const uint32_t *a, uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" N32
                 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;\n"
                 : R32(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#define I4(d, i) "+r"((d)[i]), "+r"((d)[(i) + 1]), "+r"((d)[(i) + 2]), "+r"((d)[(i) + 3])
#define I16(d, i) I4(d, i), I4(d, (i) + 4), I4(d, (i) + 8), I4(d, (i) + 12)
#define I64(d) I16(d, 0), I16(d, 16), I16(d, 32), I16(d, 48)

/* The same in bytes, sums in 32-bit integers; both operands K-major, 32 bytes of k at a time.
 * add 0: d is overwritten. A in registers: row lane/4 (+8 for a[1], a[3]), bytes
 * 4 (lane%4) .. + 3 (+16 for a[2], a[3]). */
__device__ __forceinline__ void wg_ss_s8(int (&d)[64], uint64_t a, uint64_t b, int add)
{
    asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {" N64 "}, %64, %65, p;}\n"
                 : I64(d)
                 : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void wg_rs_u8s8(int (&d)[64], const uint32_t *a, uint64_t b, int add)
{
    asm volatile("{.reg .pred p; setp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.s32.u8.s8 {" N64
                 "}, {%64,%65,%66,%67}, %68, p;}\n"
                 : I64(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

/* ---- arithmetic -------------------------------------------------------------------------------*/
__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ uint32_t bf16_pair(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

#endif
