/* attention/lists.h - inside attention/: a plan as the key lists of the CUDA kernels, in host
 * memory.
 *
 * Purpose   Cuts the runs of a plan into entries of at most KN_ATTN_BLOCK keys. Runs that touch are
 *           cut together; which keys of an entry every query of the block sees is counted key by
 *           key, so an entry has a mask only where one hides something, and cuts are placed so that
 *           most entries have none. attention/sparse_cuda.cu copies the result to a device.
 * Cost      One look at each key of each row that has a rule: 0.2 s for a 1080p window.
 * Errors    KN_ERR_NOMEM; KN_ERR_UNSUPPORTED for a grid whose positions do not pack into 29 bits.
 */
#ifndef KN_ATTENTION_LISTS_H
#define KN_ATTENTION_LISTS_H

#include "attention/device_lists.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As kn_attn_lists, which see; owned. */
typedef struct kn_attn_host_lists {
    kn_attn_lists view; /* its pointers are the arrays below and the plan's perm_q, perm_k */
    int64_t rows, entries, entry_capacity;
    int32_t *q_start;
    kn_attn_list_row *row;
    kn_attn_entry *entry;
    int32_t *order;
    int64_t order_count;
    int sets; /* position sets: perm_heads or 1 */
    uint32_t *k_pos, *q_box, *k_class, *q_class;
    uint32_t *mask; /* kn_attn_host_lists_mask */
    int64_t masks;
} kn_attn_host_lists;

/* heads: of the tensors; align: 1 or KN_ATTN_INT8_ALIGN. The plan must outlive the lists when it has orders. */
KN_CHECKED kn_status kn_attn_host_lists_build(const kn_attn_plan *plan, int heads, int align,
                                              kn_attn_host_lists *out);
/* Gives each entry that needs a mask the number of one, in place of its rule (kn_attn_lists.mask). Masks
 * that are equal are kept once: an inner block of a window has those of its neighbour. */
KN_CHECKED kn_status kn_attn_host_lists_mask(const kn_attn_plan *plan, kn_attn_host_lists *lists);
/* Not where heads share lists but not orders: what an entry shows then differs by head. */
bool kn_attn_host_lists_maskable(const kn_attn_plan *plan);
void kn_attn_host_lists_free(kn_attn_host_lists *lists);

/* Its arrays, and where each goes in one piece of device memory; host NULL: absent. */
typedef struct kn_attn_list_part {
    const void *host;
    size_t bytes, offset;
    size_t pointer; /* offset of the pointer to it in kn_attn_lists */
} kn_attn_list_part;
enum { KN_ATTN_LIST_PARTS = 11 };
/* Returns the bytes of the whole. */
size_t kn_attn_host_lists_lay_out(const kn_attn_host_lists *lists,
                                  kn_attn_list_part parts[KN_ATTN_LIST_PARTS]);

#ifdef __cplusplus
}
#endif

#endif
