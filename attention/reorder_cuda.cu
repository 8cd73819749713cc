/* Rows of keys and values in a plan's own order, for orders that differ from the stored one. */
#include "attention/sparse_kernels.h"

/* out [tokens][heads][dim] packed: out[t, n] = in[perm[t], n]; 16 bytes per thread. */
__global__ static void reorder(const uint4 *in, int64_t token, int64_t head, uint4 *out,
                               const int32_t *perm, int perm_heads, int64_t tokens, int heads,
                               int chunks)
{
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= tokens * heads * chunks) return;
    int chunk = (int)(i % chunks);
    int n = (int)(i / chunks % heads);
    int64_t t = i / chunks / heads;
    int64_t from = perm[(perm_heads > 1 ? n * tokens : 0) + t];
    out[i] = in[from * token + n * head + chunk];
}

cudaError_t kn_attn_reorder(const void *in, int64_t token, int64_t head, void *out,
                            const kn_attn_lists *l, int heads, int dim, cudaStream_t stream)
{
    int64_t n = l->tokens * heads * (dim / 8);
    reorder<<<(unsigned)((n + 255) / 256), 256, 0, stream>>>((const uint4 *)in, token / 8, head / 8,
                                                             (uint4 *)out, l->perm_k, l->perm_heads,
                                                             l->tokens, heads, dim / 8);
    return cudaGetLastError();
}
