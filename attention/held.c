#include "attention/held.h"

#include "attention/lists.h"
#include "attention/select_cuda.h"

kn_status kn_attn_plan_held_bytes(const kn_attn_plan *plan, int heads, int head_dim, bool int8,
                                  size_t *bytes)
{
    kn_attn_host_lists lists;
    kn_attn_list_part parts[KN_ATTN_LIST_PARTS];
    *bytes = 0;
    KN_TRY(kn_attn_host_lists_build(plan, heads, int8 ? KN_ATTN_INT8_ALIGN : 1, &lists));
    kn_status st = kn_attn_host_lists_maskable(plan) ? kn_attn_host_lists_mask(plan, &lists) : KN_OK;
    if (st == KN_OK) *bytes = kn_attn_host_lists_lay_out(&lists, parts);
    if (lists.view.perm_k && !int8) *bytes += (size_t)plan->tokens * (size_t)heads * (size_t)head_dim * 4;
    kn_attn_host_lists_free(&lists);
    return st;
}

/* What put_tables and take_room of select_cuda.cu take, in their order. */
size_t kn_select_held_bytes(const kn_select_params *p, int64_t video)
{
    enum { CHUNK = 1024 };
    int64_t n = p->blocks, words = (n + 31) / 32, rows = p->heads * p->q_blocks, keys = rows;
    size_t map = (size_t)n * (size_t)n * sizeof(float), group = KN_SELECT_MAP_BYTES / map;
    int64_t at_once = group < 1 ? 1 : group < (size_t)p->heads ? (int64_t)group : p->heads;
    int64_t bytes = 4 * (n + 2 + video + p->q_blocks + 1 + p->q_blocks);
    if (p->perm || p->samples) bytes += 4 * p->heads * (p->tokens + video);
    if (p->samples) {
        int64_t chunks = (video + CHUNK - 1) / CHUNK;
        keys = p->heads * video > rows ? p->heads * video : rows;
        bytes += p->heads * (8 * chunks * p->samples + 4 * p->samples + 4 * video);
    }
    bytes += 2 * 4 * p->heads * n * p->dim + at_once * (int64_t)map + 4 * p->heads * n * words;
    bytes += keys * (2 * 8 + 2 * 4) + rows * (int64_t)(sizeof(kn_attn_list_row) + 3 * 4);
    bytes += keys * (8 + 4); /* sorting's own copies */
    return (size_t)(bytes + rows * ((n + 3) / 4 + 2) * (int64_t)sizeof(kn_attn_entry));
}
