/* attention/int8_sizes.c - where the bytes of 8-bit attention lie, in every build: a plan for a GPU can be
 * made on any machine. */
#include "attention/int8.h"

#include "attention/attention.h"

_Static_assert((int)KN_INT8_DIM == (int)KN_ATTN_INT8_HEAD_DIM, "what callers are told is what the kernels have");

size_t kn_attn_int8_place(void *memory, int64_t queries, int64_t keys, int heads, kn_attn_int8 *x)
{
    size_t n = (size_t)heads, at = 0;
    x->q_pitch = (queries + 127) / 128 * 128 + 128; /* a block of queries may begin at the last one */
    x->k_pitch = (keys + 127) / 128 * 128 + 128; /* so may an entry */
    const struct {
        void **to;
        size_t bytes;
    } part[] = {
        {(void **)&x->q, n * (size_t)x->q_pitch * KN_INT8_DIM},
        {(void **)&x->k, n * (size_t)x->k_pitch * KN_INT8_DIM},
        {(void **)&x->v, n * (size_t)x->k_pitch * KN_INT8_DIM},
        {(void **)&x->q_scale, n * (size_t)x->q_pitch * sizeof(float)},
        {(void **)&x->q_shift, n * (size_t)x->q_pitch * sizeof(float)},
        {(void **)&x->channel, n * 4 * KN_INT8_DIM * sizeof(float)},
        {(void **)&x->part, KN_INT8_PARTS * n * 2 * 3 * KN_INT8_DIM * sizeof(float)},
    };
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].to = memory ? (char *)memory + at : NULL;
        at += (part[i].bytes + 255) / 256 * 256;
    }
    return at;
}
