/* attention/int8.h - inside attention/: attention whose products are of 8-bit integers.
 *
 * Method    S = Q K^T and P V in int8 with exact 32-bit sums (SageAttention, arXiv 2410.02367, for
 *           S; here P V too):
 *             k'  = round((k - mean) / k_scale)         per head and channel, over all keys
 *             q'  = round(q k_scale / q_scale)          q_scale per query
 *             P'  = round(255 exp(S - m))               m: largest S of the query's row in an entry,
 *                                                       or at most 64 q_scale more
 *             v'  = round((v - mean) / v_scale)         per head and channel
 *           The mean of k moves every score of a query alike, which softmax does not see; the mean
 *           of v is added to the output. Each entry's P' V' is added in fp32 with weight exp(m).
 * Error     docs/performance-attention.md; 2e-2 on normal random q, k, v.
 */
#ifndef KN_ATTENTION_INT8_H
#define KN_ATTENTION_INT8_H

#include "attention/attention.h"

#ifdef __CUDACC__
#define KN_ATTN_ANYWHERE __host__ __device__
#else
#define KN_ATTN_ANYWHERE
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { KN_INT8_DIM = 128, KN_INT8_PARTS = 132, KN_INT8_NORM_HEADS = 40 };

/* What q and k, as their projections left them, still lack (kn_attn_norm_rope) when kn_attn_int8_pack is to do it:
 * up to KN_INT8_NORM_HEADS heads, in the stored order. Device memory, addresses of 16 bytes. */
typedef struct kn_attn_int8_norm {
    const float *weight_q, *weight_k; /* [heads][128]; NULL: 1 */
    const float *cos, *sin;           /* [tokens][64] */
    float eps;
} kn_attn_int8_norm;

/* q, k, v of a problem in bytes, and what brings them back. All in one piece of device memory. */
typedef struct kn_attn_int8 {
    int8_t *q;        /* [heads][q_pitch][128], in the plan's order */
    int8_t *k;        /* [heads][k_pitch][128], in the order of kn_attn_int8_place_of */
    int8_t *v;        /* [heads][k_pitch / 16][128][16]: 16 keys of a channel together */
    float *q_scale;   /* [heads][q_pitch], with the softmax scale and log2 e */
    float *q_shift;   /* [heads][q_pitch]: scale q . mean of k, to be added to the log-sum-exp where it is wanted */
    float *channel;   /* [heads][4][128]: mean and scale of k, of v */
    float *part;      /* [KN_INT8_PARTS][heads][2][3][128]: least, greatest, sum of k, of v */
    int64_t q_pitch, k_pitch;
} kn_attn_int8;

/* Where the k of a key lies. A wgmma result has columns 2 l and 2 l + 1 of every 8 in lane l of four, its
 * byte operand 4 l to 4 l + 3 of every 16: so of 16 keys the bits of the key, l l b e, are those of the
 * place as b l l e, and a lane's scores of 16 columns are those of four keys in a row. */
KN_ATTN_ANYWHERE static inline int64_t kn_attn_int8_place_of(int64_t key)
{
    return (key & ~(int64_t)15) | (key & 2) << 2 | (key & 12) >> 1 | (key & 1);
}

/* Bytes of memory for so many tokens and heads; the pointers and pitches of *out from `memory` on, of
 * which multiples of 256 bytes are aligned. memory NULL: for the count alone. */
size_t kn_attn_int8_place(void *memory, int64_t queries, int64_t keys, int heads, kn_attn_int8 *out);
/* The same for a call: q and k in args->room and v in the place of args->k, which kn_attn_int8_pack has read by
 * then, where there is room and they fit; the rest from `memory` on. */
size_t kn_attn_int8_place_call(void *memory, const kn_attn_args *args, kn_attn_int8 *out);

#ifdef __cplusplus
}
#endif

#endif
