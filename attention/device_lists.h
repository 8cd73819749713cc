/* attention/device_lists.h - inside attention/: key lists in device memory, as the CUDA kernels
 * walk them.
 *
 * Purpose   A plan (attention/plan.h) is compiled into these once per device and cached
 *           (attention/sparse_cuda.cu); a planner that works on the device writes them itself and
 *           leaves them in the plan. One entry is at most KN_ATTN_BLOCK keys that lie together, from
 *           any first key; one row is the entries of one (list set, query block).
 * Order     Tokens count in the plan's order. Within a row the entries that need a mask come first:
 *           those with fewer than KN_ATTN_BLOCK keys, and those with a rule. No key twice in a row, and no row
 *           without an entry.
 * Units     tokens.
 * Memory    8 bytes per entry, 16 per row.
 */
#ifndef KN_ATTENTION_DEVICE_LISTS_H
#define KN_ATTENTION_DEVICE_LISTS_H

#include "attention/executors.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    KN_ATTN_BLOCK = 128,   /* most keys of an entry, most queries of a block */
    KN_ATTN_INT8_ALIGN = 16, /* see kn_attn_lists.align */
    KN_ATTN_MASK_WORDS = 512, /* of a mask, see there */
    KN_ATTN_POS_SPAN = 132 /* packed positions that a kernel copies at once */
};

/* info = count + 256 (rule + 1); a full entry of 128 keys has info 128. */
typedef struct kn_attn_entry {
    int32_t key;
    uint32_t info;
} kn_attn_entry;

/* Thread t of 256 has 64 scores, of the queries t / 32 * 16 + t % 32 / 4 of a block (j & 2: and 8 more) and,
 * of an entry's 128 keys from a multiple of `align` on, of this one: as the columns of a wgmma result lie,
 * or in the 8-bit kernel's order of keys. */
static inline int kn_attn_mask_key(int align, int j, int thread)
{
    if (align == 1) return 8 * (j >> 2) + (j & 1) + 2 * (thread & 3);
    return 16 * (j >> 3) + 2 * (j >> 2 & 1) + (j & 1) + 4 * (thread & 3);
}

/* Entries first .. first + total - 1, of which the first `partial` need a mask. */
typedef struct kn_attn_list_row {
    int32_t first, partial, total, unused;
} kn_attn_list_row;

/* All pointers are device memory of the device that runs them. */
typedef struct kn_attn_lists {
    int64_t tokens;              /* queries and keys */
    int heads;                   /* list sets: 1 = shared by all heads, or one per head */
    int64_t q_blocks;            /* of at most KN_ATTN_BLOCK queries */
    const int32_t *q_start;      /* [q_blocks + 1] */
    const kn_attn_list_row *row; /* [heads][q_blocks] */
    const kn_attn_entry *entry;
    const int32_t *order; /* [args' heads * q_blocks] head * q_blocks + block, the order in which
                             rows are begun, longest last is slowest; NULL = ascending */
    int perm_heads;       /* as in kn_attn_plan */
    const int32_t *perm_q, *perm_k; /* [perm_heads][tokens], gather indices; NULL = as stored */
    /* Rules; NULL / 0 when no entry has one. Positions are packed, one field per axis with a guard
     * bit above it, so that three intervals are tested by two subtractions. */
    int rules;
    uint32_t guard;        /* the guard bits */
    const uint32_t *k_pos; /* [perm_heads or 1][k_pitch]: fields of each key, guard bits set;
                              KN_ATTN_POS_SPAN more words may be read. 16-byte aligned */
    int64_t k_pitch;       /* tokens rounded up to 4 */
    const uint32_t *q_box; /* [perm_heads or 1][rules][tokens][2]: fields of the first visible
                              coordinates, and of the first beyond them */
    /* Coordinates modulo the rule's dilation; NULL when no rule has one. A key is visible only to
     * queries with the same residues. */
    const uint32_t *k_class; /* [perm_heads or 1][rules][tokens] */
    const uint32_t *q_class;
    int field[3];           /* first bit of t, h, w */
    int align;               /* an entry's keys lie in one stretch of KN_ATTN_BLOCK that begins at a
                                multiple of this. int8 wants KN_ATTN_INT8_ALIGN: the copy engine takes
                                16 bytes of turned V at a time; else 1 or unset */
    const uint32_t *mask;    /* Hopper. NULL, or masks of KN_ATTN_MASK_WORDS: two words for each of 256
                                threads, whose bit j of 64 says that its score j counts
                                (kn_attn_mask_key). info is then count + 256 (mask + 1), no rule */
    double executed;         /* pairs in executed 128 x 128 blocks / all pairs, for reports */
} kn_attn_lists;

#ifdef __cplusplus
}
#endif

#endif
