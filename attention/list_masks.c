/* Masks of the entries of key lists, bit for bit as the threads of the Hopper kernels hold scores. */
#include <string.h>

#include "attention/lists.h"
#include "io/memory.h"

enum { BLOCK = KN_ATTN_BLOCK, WORDS = KN_ATTN_MASK_WORDS };

/* What one row of queries sees of an entry, as each of four lanes holds it: 32 scores, in pairs with two
 * bits between them for the row's neighbour. */
typedef struct lane_bits {
    uint32_t word[4][2];
} lane_bits;

typedef struct masker {
    const kn_attn_plan *plan;
    kn_attn_host_lists *out;
    int64_t capacity;              /* of out->mask, in masks */
    uint32_t *table;               /* hash -> mask + 1 */
    int64_t slots;                 /* a power of two */
    int64_t leader[BLOCK];         /* queries that see alike: slot of the first of each kind */
    uint8_t kind[BLOCK];
    int kinds, rule;               /* of the row at hand; rule -2: not yet */
} masker;

/* Score j of lane l is of key kn_attn_mask_key(align, j, l) of the entry's 128, for the first row or, when
 * j & 2, the second. */
static lane_bits spread(const uint8_t seen[BLOCK], int align)
{
    lane_bits b;
    for (int l = 0; l < 4; l++)
        for (int w = 0; w < 2; w++) {
            uint32_t x = 0;
            for (int j = 0; j < 32; j++)
                if (!(j & 2)) x |= (uint32_t)seen[kn_attn_mask_key(align, 32 * w + j, l)] << j;
            b.word[l][w] = x;
        }
    return b;
}

static bool sees(const kn_attn_host_lists *o, int64_t slot, uint32_t key_pos, uint32_t key_class)
{
    uint32_t lo = o->q_box[2 * slot], end = o->q_box[2 * slot + 1];
    if ((~(key_pos - lo) | (key_pos - end)) & o->view.guard) return false;
    return !o->q_class || o->q_class[slot] == key_class;
}

/* Groups the block's queries by what they see under a rule. */
static void sort_queries(masker *m, int set, int rule, int64_t begin, int64_t end)
{
    const kn_attn_host_lists *o = m->out;
    int64_t first = ((int64_t)set * o->view.rules + rule) * o->view.tokens;
    m->rule = rule, m->kinds = 0;
    for (int i = 0; i < BLOCK; i++) {
        int64_t slot = first + (begin + i < end ? begin + i : end - 1); /* past the end: not stored */
        int k = 0;
        for (; k < m->kinds; k++)
            if (o->q_box[2 * slot] == o->q_box[2 * m->leader[k]] &&
                o->q_box[2 * slot + 1] == o->q_box[2 * m->leader[k] + 1] &&
                (!o->q_class || o->q_class[slot] == o->q_class[m->leader[k]]))
                break;
        if (k == m->kinds) m->leader[m->kinds++] = slot;
        m->kind[i] = (uint8_t)k;
    }
}

static void draw(masker *m, int set, const kn_attn_entry *e, int64_t begin, int64_t end, uint32_t mask[WORDS])
{
    const kn_attn_host_lists *o = m->out;
    int count = (int)(e->info & 255), rule = (int)(e->info >> 8) - 1, before = e->key % o->view.align;
    int64_t base = e->key - before;
    lane_bits bits[BLOCK];
    if (rule < 0) {
        memset(m->kind, 0, sizeof m->kind);
        m->kinds = 1, m->rule = -2;
    } else if (rule != m->rule) {
        sort_queries(m, set, rule, begin, end);
    }
    for (int k = 0; k < m->kinds; k++) {
        uint8_t seen[BLOCK] = {0};
        for (int c = before; c < before + count; c++) {
            int64_t key = base + c;
            seen[c] = rule < 0 ||
                      sees(o, m->leader[k], o->k_pos[set * o->view.k_pitch + key],
                           o->k_class ? o->k_class[((int64_t)set * o->view.rules + rule) * o->view.tokens + key] : 0);
        }
        bits[k] = spread(seen, o->view.align);
    }
    for (int t = 0; t < WORDS / 2; t++) {
        int row = t / 32 * 16 + t % 32 / 4, lane = t % 4;
        const lane_bits *x = &bits[m->kind[row]], *y = &bits[m->kind[row + 8]];
        for (int w = 0; w < 2; w++) mask[2 * t + w] = x->word[lane][w] | y->word[lane][w] << 2;
    }
}

static uint64_t hash_of(const uint32_t mask[WORDS])
{
    uint64_t h = 0xcbf29ce484222325u, x;
    for (int i = 0; i < WORDS; i += 2) {
        memcpy(&x, mask + i, sizeof x);
        h = (h ^ x) * 0x9E3779B97F4A7C15u;
        h ^= h >> 32;
    }
    return h;
}

static kn_status widen(masker *m)
{
    kn_attn_host_lists *o = m->out;
    void *mask, *table;
    int64_t capacity = m->capacity ? 2 * m->capacity : 256, slots = 4 * capacity;
    KN_TRY(kn_alloc_array((size_t)capacity * WORDS, sizeof(uint32_t), &mask));
    if (o->masks) memcpy(mask, o->mask, (size_t)o->masks * WORDS * sizeof(uint32_t));
    kn_free(o->mask);
    o->mask = mask, m->capacity = capacity;
    KN_TRY(kn_alloc_zero((size_t)slots * sizeof(uint32_t), &table));
    kn_free(m->table);
    m->table = table, m->slots = slots;
    for (int64_t i = 0; i < o->masks; i++) {
        uint64_t at = hash_of(o->mask + i * WORDS) & (uint64_t)(slots - 1);
        while (m->table[at]) at = (at + 1) & (uint64_t)(slots - 1);
        m->table[at] = (uint32_t)i + 1;
    }
    return KN_OK;
}

/* Number of the mask, which is kept when it is new. */
static kn_status find_mask(masker *m, const uint32_t mask[WORDS], uint32_t *number)
{
    kn_attn_host_lists *o = m->out;
    if (o->masks == m->capacity) KN_TRY(widen(m));
    uint64_t at = hash_of(mask) & (uint64_t)(m->slots - 1);
    for (; m->table[at]; at = (at + 1) & (uint64_t)(m->slots - 1)) {
        *number = m->table[at] - 1;
        if (!memcmp(o->mask + (int64_t)*number * WORDS, mask, WORDS * sizeof *mask)) return KN_OK;
    }
    if (o->masks >= 1 << 23)
        return kn_fail(KN_ERR_UNSUPPORTED, "attention lists: more than %d different masks", 1 << 23);
    *number = (uint32_t)o->masks++;
    m->table[at] = *number + 1;
    memcpy(o->mask + (int64_t)*number * WORDS, mask, WORDS * sizeof *mask);
    return KN_OK;
}

bool kn_attn_host_lists_maskable(const kn_attn_plan *plan)
{
    return !plan->rules || plan->heads > 1 || plan->perm_heads <= 1;
}

kn_status kn_attn_host_lists_mask(const kn_attn_plan *plan, kn_attn_host_lists *lists)
{
    masker m = {.plan = plan, .out = lists};
    uint32_t mask[WORDS], number = 0;
    kn_status st = KN_OK;
    if (!kn_attn_host_lists_maskable(plan))
        return kn_fail(KN_ERR_UNSUPPORTED, "attention lists: heads that share lists but not orders have no common masks");
    for (int64_t i = 0; i < lists->rows; i++) {
        int64_t blocks = lists->view.q_blocks, block = i % blocks;
        int set = lists->sets > 1 ? (int)(i / blocks) : 0;
        m.rule = -2;
        for (int64_t j = 0; j < lists->row[i].partial; j++) {
            kn_attn_entry *e = &lists->entry[lists->row[i].first + j];
            /* Blocks without rules share entries, which then have their masks already. */
            if (!plan->rules && e->info >= 256) continue;
            draw(&m, set, e, lists->q_start[block], lists->q_start[block + 1], mask);
            KN_TRY_GOTO(find_mask(&m, mask, &number));
            e->info = (e->info & 255) + 256 * (number + 1);
        }
    }
done:
    kn_free(m.table);
    lists->view.mask = lists->mask;
    return st;
}
