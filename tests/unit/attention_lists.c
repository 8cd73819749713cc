/* Key lists for the CUDA kernels, against the plans they were cut from: what a kernel would see by
 * the lists is what the plan shows, key by key and once each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "attention/lists.h"
#include "attention/window.h"
#include "io/memory.h"

/* As the kernels test a key of an entry. */
static bool sees(const kn_attn_lists *l, int set, int rule, int64_t query, int64_t key)
{
    uint32_t k = l->k_pos[set * l->k_pitch + key];
    int64_t slot = ((int64_t)set * l->rules + rule) * l->tokens;
    const uint32_t *box = l->q_box + 2 * (slot + query);
    if ((~(k - box[0]) | (k - box[1])) & l->guard) return false;
    return !l->k_class || l->k_class[slot + key] == l->q_class[slot + query];
}

static void check_row(const kn_attn_plan *p, const kn_attn_lists *l, int head, int64_t block,
                      uint8_t *seen, uint8_t *visible)
{
    const kn_attn_list_row *row = &l->row[(l->heads > 1 ? head : 0) * l->q_blocks + block];
    int set = l->perm_heads > 1 ? head : 0;
    const int32_t *perm_q = p->perm_q ? p->perm_q + set * p->tokens : NULL;
    const int32_t *perm_k = p->perm_k ? p->perm_k + set * p->tokens : NULL;
    assert_true(l->q_start[block + 1] - l->q_start[block] <= KN_ATTN_BLOCK);
    assert_true(row->total >= 1 && row->partial <= row->total);
    for (int64_t q = l->q_start[block]; q < l->q_start[block + 1]; q++) {
        memset(seen, 0, (size_t)p->tokens);
        for (int i = 0; i < row->total; i++) {
            kn_attn_entry e = l->entry[row->first + i];
            int count = (int)(e.info & 255), rule = (int)(e.info >> 8) - 1;
            assert_true(count >= 1 && count <= KN_ATTN_BLOCK && e.key >= 0);
            assert_true(e.key + count <= p->tokens);
            assert_true(e.key % l->align + count <= KN_ATTN_BLOCK);
            assert_int_equal(i < row->partial, e.info != KN_ATTN_BLOCK);
            for (int64_t k = e.key; k < e.key + count; k++)
                if (rule < 0 || sees(l, set, rule, q, k)) seen[perm_k ? perm_k[k] : k]++;
        }
        assert_int_equal(kn_attn_plan_row(p, head, perm_q ? perm_q[q] : q, visible), KN_OK);
        assert_memory_equal(seen, visible, (size_t)p->tokens);
    }
}

/* Every row; the order begins each once. */
static void check_aligned_lists(kn_attn_plan *p, int heads, int align)
{
    kn_attn_host_lists h;
    void *seen, *visible, *begun;
    assert_int_equal(kn_attn_plan_check(p), KN_OK);
    assert_int_equal(kn_attn_host_lists_build(p, heads, align, &h), KN_OK);
    assert_int_equal(kn_alloc((size_t)p->tokens, &seen), KN_OK);
    assert_int_equal(kn_alloc((size_t)p->tokens, &visible), KN_OK);
    assert_int_equal(kn_alloc_zero((size_t)h.order_count, &begun), KN_OK);
    for (int n = 0; n < heads; n++)
        for (int64_t b = 0; b < h.view.q_blocks; b++)
            check_row(p, &h.view, n, b, seen, visible);
    assert_int_equal(h.order_count, heads * h.view.q_blocks);
    for (int64_t i = 0; i < h.order_count; i++) {
        assert_true(h.order[i] >= 0 && h.order[i] < h.order_count);
        ((uint8_t *)begun)[h.order[i]]++;
    }
    for (int64_t i = 0; i < h.order_count; i++) assert_int_equal(((uint8_t *)begun)[i], 1);
    kn_free(seen);
    kn_free(visible);
    kn_free(begun);
    kn_attn_host_lists_free(&h);
}

/* Every bit of every mask against the plan; entries keep their counts, and equal masks are one. */
static void check_masks(kn_attn_plan *p, int heads, int align)
{
    kn_attn_host_lists rules, h;
    void *seen;
    assert_int_equal(kn_attn_host_lists_build(p, heads, align, &rules), KN_OK);
    assert_int_equal(kn_attn_host_lists_build(p, heads, align, &h), KN_OK);
    assert_int_equal(kn_attn_host_lists_mask(p, &h), KN_OK);
    assert_int_equal(kn_alloc((size_t)p->tokens, &seen), KN_OK);
    for (int64_t i = 0; i < h.rows; i++) {
        int64_t block = i % h.view.q_blocks, begin = h.q_start[block], end = h.q_start[block + 1];
        int head = (int)(i / h.view.q_blocks);
        int64_t perm = p->perm_heads > 1 ? head * p->tokens : 0;
        for (int e = 0; e < h.row[i].total; e++) {
            kn_attn_entry masked = h.entry[h.row[i].first + e], plain = rules.entry[rules.row[i].first + e];
            assert_int_equal(masked.key, plain.key);
            assert_int_equal(masked.info & 255, plain.info & 255);
            assert_int_equal(masked.info >= 256, e < h.row[i].partial);
        }
        for (int64_t q = begin; q < end; q++) {
            assert_int_equal(kn_attn_plan_row(p, head, p->perm_q ? p->perm_q[perm + q] : q, seen), KN_OK);
            for (int e = 0; e < h.row[i].partial; e++) {
                kn_attn_entry x = h.entry[h.row[i].first + e];
                const uint32_t *mask = h.mask + ((int64_t)(x.info >> 8) - 1) * KN_ATTN_MASK_WORDS;
                int before = x.key % align, count = (int)(x.info & 255), row = (int)(q - begin);
                for (int lane = 0; lane < 4; lane++) {
                    int thread = row / 16 * 32 + row % 8 * 4 + lane;
                    for (int j = 0; j < 64; j++) {
                        if ((j & 2) != (row % 16 / 8) * 2) continue;
                        int c = kn_attn_mask_key(align, j, thread) - before;
                        int64_t key = x.key + c;
                        bool want = c >= 0 && c < count &&
                                    ((uint8_t *)seen)[p->perm_k ? p->perm_k[perm + key] : key];
                        assert_int_equal(mask[2 * thread + j / 32] >> j % 32 & 1, want);
                    }
                }
            }
        }
    }
    for (int64_t i = 0; i < h.masks; i++)
        for (int64_t j = 0; j < i; j++)
            assert_memory_not_equal(h.mask + i * KN_ATTN_MASK_WORDS, h.mask + j * KN_ATTN_MASK_WORDS,
                                    KN_ATTN_MASK_WORDS * 4);
    kn_free(seen);
    kn_attn_host_lists_free(&h);
    kn_attn_host_lists_free(&rules);
}

static void check_lists(kn_attn_plan *p, int heads)
{
    check_aligned_lists(p, heads, 1);
    check_aligned_lists(p, heads, KN_ATTN_INT8_ALIGN);
    if (kn_attn_host_lists_maskable(p)) {
        check_masks(p, heads, 1);
        check_masks(p, heads, KN_ATTN_INT8_ALIGN);
    }
    kn_attn_plan_free(&p);
}

static kn_attn_plan *window(const int tile[3], const int query_tile[3], int size, int dilation,
                            int64_t text, int block)
{
    kn_window_params w = {.layout = {.grid = {5, 11, 14}, .text = text}, .block = block};
    memcpy(w.layout.tile, tile, sizeof w.layout.tile);
    if (query_tile) memcpy(w.query_tile, query_tile, sizeof w.query_tile);
    w.window[1] = (kn_grid_window){.size = size, .dilation = dilation};
    w.window[2] = (kn_grid_window){.size = size + 2, .dilation = dilation};
    kn_attn_plan *p;
    assert_int_equal(kn_window_plan(&w, &p), KN_OK);
    return p;
}

static void windows(void **state)
{
    (void)state;
    const int column[3] = {5, 3, 2}, run[3] = {5, 1, 1}, odd[3] = {2, 4, 5}, large[3] = {5, 6, 7};
    check_lists(window(column, NULL, 5, 1, 0, 128), 2);
    check_lists(window(run, column, 5, 1, 0, 128), 2);
    check_lists(window(run, column, 5, 1, 40, 128), 1);
    check_lists(window(odd, NULL, 3, 1, 0, 19), 1);
    check_lists(window(large, NULL, 5, 1, 150, 300), 1);
    check_lists(window(column, NULL, 3, 2, 0, 128), 1);
    check_lists(window(column, NULL, 99, 1, 3, 128), 1);
}

/* Entries that hide nothing carry no rule: those of a window as large as the grid. */
static void full_entries(void **state)
{
    (void)state;
    kn_attn_host_lists h;
    kn_attn_plan *p = window((int[3]){5, 3, 2}, NULL, 99, 1, 0, 128);
    assert_int_equal(kn_attn_host_lists_build(p, 1, 1, &h), KN_OK);
    for (int64_t i = 0; i < h.entries; i++) assert_true(h.entry[i].info <= KN_ATTN_BLOCK);
    assert_int_equal(h.row[0].total, (5 * 11 * 14 + 127) / 128);
    kn_attn_host_lists_free(&h);
    kn_attn_plan_free(&p);
}

/* Orders that differ by head, lists for each head, ragged blocks. */
static void orders(void **state)
{
    (void)state;
    kn_attn_plan_params params = {.layout = {.grid = {3, 7, 11}, .tile = {3, 7, 11}, .text = 9},
                                  .block = 100,
                                  .heads = 2,
                                  .perm_heads = 2};
    kn_attn_plan *p;
    assert_int_equal(kn_attn_plan_open(&params, &p), KN_OK);
    int64_t n = p->tokens;
    for (int64_t i = 0; i < n; i++) {
        p->perm_q[i] = (int32_t)(n - 1 - i);
        p->perm_k[n + i] = (int32_t)((i * 7) % n); /* 240 tokens: 7 is prime to them */
    }
    for (int64_t r = 0; r < p->heads * p->q_blocks; r++) {
        assert_int_equal(kn_attn_plan_add(p, 3 * r, 31 + r, -1), KN_OK);
        assert_int_equal(kn_attn_plan_add(p, 100 + r, 1 + r % 3, -1), KN_OK);
        assert_int_equal(kn_attn_plan_end_row(p), KN_OK);
    }
    p->density = kn_attn_plan_listed(p);
    check_lists(p, 2);
}

/* Each allocation fails once: an error, nothing held. */
static void no_memory(void **state)
{
    (void)state;
    kn_attn_plan *p = window((int[3]){5, 3, 2}, NULL, 5, 2, 0, 128);
    kn_attn_host_lists h;
    kn_status st = KN_ERR_NOMEM;
    for (long k = 1; st != KN_OK; k++) {
        kn_memory_fail_at(k);
        st = kn_attn_host_lists_build(p, 2, 1, &h);
        kn_memory_fail_at(0);
        assert_true(st == KN_OK || st == KN_ERR_NOMEM);
        assert_true(k < 10000);
    }
    kn_attn_host_lists_free(&h);
    kn_attn_plan_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(windows), cmocka_unit_test(full_entries),
                                       cmocka_unit_test(orders), cmocka_unit_test(no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
