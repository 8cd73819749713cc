/* Plans as key lists for the CUDA kernels. */
#include "attention/lists.h"

#include <stdlib.h>
#include <string.h>

#include "io/memory.h"

enum { BLOCK = KN_ATTN_BLOCK };

/* A row while it is being built: which coordinates every query of the block sees, by rule. */
typedef struct builder {
    const kn_attn_plan *plan;
    kn_attn_host_lists *out;
    int32_t *block_of; /* plan block of each query block */
    int rule;          /* whose tables are filled in; -1: none */
    int align;         /* entries begin at multiples of it, or at the begin of a stretch */
    bool judge;        /* keys may be judged: the row has one order */
    const int32_t *perm_q, *perm_k;
    int64_t q_begin, q_end;
    uint8_t *any[3], *all[3], *met[3];
    int32_t *hidden; /* keys before this one in the stretch that not every query sees */
    kn_attn_entry *full;
    int64_t full_count, full_capacity;
} builder;

static kn_status grow(void **array, int64_t *capacity, int64_t count, size_t size)
{
    if (count <= *capacity) return KN_OK;
    int64_t more = *capacity * 2 > count ? *capacity * 2 : count + 1024;
    void *p;
    KN_TRY(kn_alloc_array((size_t)more, size, &p));
    if (*capacity) memcpy(p, *array, (size_t)*capacity * size);
    kn_free(*array);
    *array = p;
    *capacity = more;
    return KN_OK;
}

/* Per axis and key coordinate: seen by some, by all of the block's queries. */
static void look(builder *b, int rule)
{
    const kn_attn_plan *p = b->plan;
    if (rule == b->rule) return;
    b->rule = rule;
    for (int a = 0; a < 3; a++) {
        int n = p->grid[a], dilation = p->dilation[rule][a];
        const int32_t *lo = kn_attn_rule_lo(p, rule, a), *len = kn_attn_rule_len(p, rule, a);
        memset(b->any[a], 0, (size_t)n);
        memset(b->all[a], 1, (size_t)n);
        memset(b->met[a], 0, (size_t)n);
        for (int64_t i = b->q_begin; i < b->q_end; i++) {
            int q = p->pos[3 * (int64_t)(b->perm_q ? b->perm_q[i] : i) + a];
            if (b->met[a][q]) continue;
            b->met[a][q] = 1;
            for (int k = 0; k < n; k++) {
                bool sees = k >= lo[q] && k < lo[q] + len[q] && (k - q) % dilation == 0;
                b->any[a][k] |= sees;
                b->all[a][k] &= sees;
            }
        }
    }
}

static const int16_t *key_pos(const builder *b, int64_t key)
{
    return b->plan->pos + 3 * (int64_t)(b->perm_k ? b->perm_k[key] : key);
}

static bool seen_by_all(const builder *b, int64_t key)
{
    const int16_t *k = key_pos(b, key);
    return k[0] >= 0 && b->all[0][k[0]] && b->all[1][k[1]] && b->all[2][k[2]];
}

/* False only when no query sees the key. */
static bool seen_by_some(const builder *b, int64_t key)
{
    const int16_t *k = key_pos(b, key);
    return b->any[0][k[0]] && b->any[1][k[1]] && b->any[2][k[2]];
}

static kn_status add_entry(builder *b, int64_t key, int64_t count, int rule)
{
    kn_attn_entry e = {(int32_t)key, (uint32_t)count + 256u * (uint32_t)(rule + 1)};
    if (count == BLOCK && rule < 0) {
        KN_TRY(grow((void **)&b->full, &b->full_capacity, b->full_count + 1, sizeof e));
        b->full[b->full_count++] = e;
        return KN_OK;
    }
    kn_attn_host_lists *o = b->out;
    KN_TRY(grow((void **)&o->entry, &o->entry_capacity, o->entries + 1, sizeof e));
    o->entry[o->entries++] = e;
    return KN_OK;
}

/* Entries of [begin, end) when the first has `lead` keys, that every query sees wholly. */
static int64_t count_full(const builder *b, int64_t length, int64_t lead)
{
    int64_t full = lead == BLOCK && b->hidden[lead] == 0;
    for (int64_t at = lead; at + BLOCK <= length; at += BLOCK)
        full += b->hidden[at + BLOCK] == b->hidden[at];
    return full;
}

/* Most keys of an entry that begins at `begin`. */
static int64_t room(const builder *b, int64_t begin)
{
    return BLOCK - begin % b->align;
}

static kn_status cut_ruled(builder *b, int64_t begin, int64_t end, int rule)
{
    if (b->judge) {
        look(b, rule);
        while (begin < end && !seen_by_some(b, begin)) begin++;
        while (begin < end && !seen_by_some(b, end - 1)) end--;
        if (begin == end) return KN_OK;
    }
    int64_t length = end - begin, cuts = (length + begin % b->align + BLOCK - 1) / BLOCK;
    b->hidden[0] = 0;
    for (int64_t i = 0; i < length; i++)
        b->hidden[i + 1] = b->hidden[i] + !(b->judge && seen_by_all(b, begin + i));
    int64_t lead = length < room(b, begin) ? length : room(b, begin), best = -1, chosen = lead;
    for (; lead >= 1 && lead + (cuts - 1) * BLOCK >= length; lead--) {
        if (lead < length && (begin + lead) % b->align) continue;
        int64_t full = count_full(b, length, lead);
        if (full > best) best = full, chosen = lead;
    }
    for (int64_t at = 0, n = chosen; at < length; at += n, n = BLOCK) {
        if (n > length - at) n = length - at;
        KN_TRY(add_entry(b, begin + at, n, b->hidden[at + n] == b->hidden[at] ? -1 : rule));
    }
    return KN_OK;
}

static kn_status cut(builder *b, int64_t begin, int64_t end, int rule)
{
    if (rule >= 0) return cut_ruled(b, begin, end, rule);
    for (int64_t at = begin, n; at < end; at += n) {
        n = end - at < room(b, at) ? end - at : room(b, at);
        KN_TRY(add_entry(b, at, n, -1));
    }
    return KN_OK;
}

/* May a run without a rule share entries with rule's runs: does the rule hide none of it? */
static bool joins(builder *b, const kn_attn_run *full, int rule)
{
    if (!b->judge) return false;
    look(b, rule);
    for (int64_t k = full->key; k < (int64_t)full->key + full->count; k++)
        if (!seen_by_all(b, k)) return false;
    return true;
}

static kn_status build_row(builder *b, int64_t plan_row, kn_attn_list_row *row)
{
    const kn_attn_plan *p = b->plan;
    int64_t first = b->out->entries, begin = 0, end = 0;
    const kn_attn_run *stretch = NULL; /* first run of the stretch */
    int rule = -1;
    b->full_count = 0;
    b->rule = -1;
    for (int64_t i = p->row_ptr[plan_row]; i < p->row_ptr[plan_row + 1]; i++) {
        const kn_attn_run *r = &p->runs[i];
        bool touches = stretch && r->key == end;
        if (touches && rule < 0 && r->rule >= 0) {
            kn_attn_run before = {(int32_t)begin, (int32_t)(end - begin), -1};
            touches = joins(b, &before, r->rule);
        } else if (touches && r->rule != rule) {
            touches = r->rule < 0 && joins(b, r, rule);
        }
        if (touches) {
            if (r->rule >= 0) rule = r->rule;
            end += r->count;
            continue;
        }
        if (stretch) KN_TRY(cut(b, begin, end, rule));
        stretch = r;
        begin = r->key, end = (int64_t)r->key + r->count, rule = r->rule;
    }
    if (stretch) KN_TRY(cut(b, begin, end, rule));
    kn_attn_host_lists *o = b->out;
    /* Nobody sees anything: one hidden key, so that every row has an entry. */
    if (o->entries == first && !b->full_count) KN_TRY(add_entry(b, begin, 1, rule));
    int64_t partial = o->entries - first, total = partial + b->full_count;
    if (first + total > INT32_MAX)
        return kn_fail(KN_ERR_UNSUPPORTED, "attention lists: more than %d entries", INT32_MAX);
    KN_TRY(grow((void **)&o->entry, &o->entry_capacity, first + total, sizeof *o->entry));
    if (b->full_count)
        memcpy(o->entry + o->entries, b->full, (size_t)b->full_count * sizeof *b->full);
    o->entries = first + total;
    *row = (kn_attn_list_row){(int32_t)first, (int32_t)partial, (int32_t)total, 0};
    return KN_OK;
}

/* Plan blocks cut into at most BLOCK queries each. */
static kn_status cut_queries(builder *b)
{
    const kn_attn_plan *p = b->plan;
    kn_attn_host_lists *o = b->out;
    int64_t blocks = 0;
    for (int64_t i = 0; i < p->q_blocks; i++)
        blocks += (p->q_start[i + 1] - p->q_start[i] + BLOCK - 1) / BLOCK;
    o->view.q_blocks = blocks;
    KN_TRY(kn_alloc_array((size_t)blocks + 1, sizeof *o->q_start, (void **)&o->q_start));
    KN_TRY(kn_alloc_array((size_t)blocks, sizeof *b->block_of, (void **)&b->block_of));
    int64_t at = 0;
    for (int64_t i = 0; i < p->q_blocks; i++) {
        int64_t n = p->q_start[i + 1] - p->q_start[i], parts = (n + BLOCK - 1) / BLOCK;
        for (int64_t j = 0; j < parts; j++) {
            b->block_of[at] = (int32_t)i;
            o->q_start[at++] = (int32_t)(p->q_start[i] + n * j / parts);
        }
    }
    o->q_start[at] = (int32_t)p->tokens;
    return KN_OK;
}

static kn_status build_rows(builder *b)
{
    const kn_attn_plan *p = b->plan;
    kn_attn_host_lists *o = b->out;
    double pairs = 0;
    o->rows = p->heads * o->view.q_blocks;
    KN_TRY(kn_alloc_array((size_t)o->rows, sizeof *o->row, (void **)&o->row));
    /* Shared lists over orders that differ by head: what a key shows differs too. */
    b->judge = !(p->heads == 1 && p->perm_heads > 1);
    for (int64_t i = 0; i < o->rows; i++) {
        int64_t head = i / o->view.q_blocks, block = i % o->view.q_blocks;
        int64_t perm = (p->perm_heads > 1 ? head : 0) * p->tokens;
        if (block && b->block_of[block] == b->block_of[block - 1] && !p->rules) {
            o->row[i] = o->row[i - 1];
        } else {
            b->perm_q = p->perm_q ? p->perm_q + perm : NULL;
            b->perm_k = p->perm_k ? p->perm_k + perm : NULL;
            b->q_begin = o->q_start[block], b->q_end = o->q_start[block + 1];
            KN_TRY(build_row(b, head * p->q_blocks + b->block_of[block], &o->row[i]));
        }
        pairs += (double)o->row[i].total * BLOCK * BLOCK;
    }
    o->view.executed = pairs / p->heads / ((double)p->tokens * (double)p->tokens);
    return KN_OK;
}

/* ---- order ------------------------------------------------------------------------------------*/

typedef struct ranked {
    int64_t length;
    int32_t index;
} ranked;

static int longer_first(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Head by head, so that a head's keys stay in the cache: the heaviest head first, and the rows of
 * the last from long to short, so that no SM begins a long row when the others are done. */
static kn_status order_rows(kn_attn_host_lists *o, int heads)
{
    int64_t blocks = o->view.q_blocks;
    ranked *head = NULL, *last = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_alloc_array((size_t)heads, sizeof *head, (void **)&head));
    KN_TRY_GOTO(kn_alloc_array((size_t)blocks, sizeof *last, (void **)&last));
    o->order_count = heads * blocks;
    KN_TRY_GOTO(
        kn_alloc_array((size_t)o->order_count, sizeof *o->order, (void **)&o->order));
    for (int h = 0; h < heads; h++) {
        head[h] = (ranked){0, h};
        for (int64_t i = 0; o->view.heads > 1 && i < blocks; i++)
            head[h].length += o->row[h * blocks + i].total;
    }
    qsort(head, (size_t)heads, sizeof *head, longer_first);
    for (int h = 0; h < heads; h++)
        for (int64_t i = 0; i < blocks; i++)
            o->order[h * blocks + i] = (int32_t)(head[h].index * blocks + i);
    int64_t from = o->view.heads > 1 ? head[heads - 1].index * blocks : 0;
    for (int64_t i = 0; i < blocks; i++) last[i] = (ranked){o->row[from + i].total, (int32_t)i};
    qsort(last, (size_t)blocks, sizeof *last, longer_first);
    for (int64_t i = 0; i < blocks; i++)
        o->order[(heads - 1) * blocks + i] =
            (int32_t)(head[heads - 1].index * blocks + last[i].index);
done:
    kn_free(head);
    kn_free(last);
    return st;
}

/* ---- positions --------------------------------------------------------------------------------*/

static uint32_t pack(const kn_attn_lists *v, const int at[3])
{
    return (uint32_t)at[0] << v->field[0] | (uint32_t)at[1] << v->field[1] |
           (uint32_t)at[2] << v->field[2];
}

static kn_status choose_fields(const kn_attn_plan *p, kn_attn_lists *v)
{
    int at = 0;
    for (int a = 0; a < 3; a++) {
        int bits = 0;
        while ((1 << bits) < p->grid[a]) bits++;
        v->field[a] = at;
        if (at + bits > 31)
            return kn_fail(KN_ERR_UNSUPPORTED,
                           "attention lists: positions on a grid of %d x %d x %d need more than "
                           "29 bits",
                           p->grid[0], p->grid[1], p->grid[2]);
        v->guard |= 1u << (at + bits);
        at += bits + 1;
    }
    return KN_OK;
}

/* Boxes and residues of one query under one rule. */
static void fill_query(const kn_attn_plan *p, kn_attn_host_lists *o, int64_t slot, int rule,
                       const int16_t *pos)
{
    int lo[3], end[3], residue[3];
    for (int a = 0; a < 3; a++) {
        lo[a] = kn_attn_rule_lo(p, rule, a)[pos[a]];
        end[a] = lo[a] + kn_attn_rule_len(p, rule, a)[pos[a]];
        residue[a] = pos[a] % p->dilation[rule][a];
    }
    o->q_box[2 * slot] = pack(&o->view, lo);
    o->q_box[2 * slot + 1] = pack(&o->view, end);
    if (o->q_class) o->q_class[slot] = pack(&o->view, residue);
}

static kn_status build_positions(const kn_attn_plan *p, kn_attn_host_lists *o)
{
    kn_attn_lists *v = &o->view;
    bool dilated = false;
    for (int r = 0; r < p->rules; r++)
        for (int a = 0; a < 3; a++) dilated |= p->dilation[r][a] > 1;
    o->sets = p->perm_heads > 1 ? p->perm_heads : 1;
    v->rules = p->rules;
    v->k_pitch = (p->tokens + 3) / 4 * 4;
    KN_TRY(choose_fields(p, v));
    size_t sets = (size_t)o->sets, slots = sets * (size_t)p->rules * (size_t)p->tokens;
    KN_TRY(kn_alloc_array(sets * (size_t)v->k_pitch + KN_ATTN_POS_SPAN, 4,
                          (void **)&o->k_pos));
    KN_TRY(kn_alloc_array(slots, 8, (void **)&o->q_box));
    if (dilated) KN_TRY(kn_alloc_array(slots, 4, (void **)&o->k_class));
    if (dilated) KN_TRY(kn_alloc_array(slots, 4, (void **)&o->q_class));
    for (int64_t i = 0; i < o->sets * p->tokens; i++) {
        int64_t set = i / p->tokens, token = i % p->tokens;
        const int16_t *k = p->pos + 3 * (int64_t)(p->perm_k ? p->perm_k[i] : token);
        const int16_t *q = p->pos + 3 * (int64_t)(p->perm_q ? p->perm_q[i] : token);
        if (k[0] >= 0)
            o->k_pos[set * v->k_pitch + token] = pack(v, (int[3]){k[0], k[1], k[2]}) | v->guard;
        for (int r = 0; r < p->rules; r++) {
            int64_t slot = (set * p->rules + r) * p->tokens + token;
            const int32_t *d = p->dilation[r];
            if (q[0] >= 0) fill_query(p, o, slot, r, q);
            if (dilated)
                o->k_class[slot] =
                    k[0] < 0 ? 0 : pack(v, (int[3]){k[0] % d[0], k[1] % d[1], k[2] % d[2]});
        }
    }
    return KN_OK;
}

/* ---- all of it --------------------------------------------------------------------------------*/

static kn_status build(builder *b, int heads)
{
    const kn_attn_plan *p = b->plan;
    kn_attn_host_lists *o = b->out;
    for (int a = 0; a < 3; a++) {
        size_t n = p->grid[a] > 0 ? (size_t)p->grid[a] : 1;
        KN_TRY(kn_alloc(n, (void **)&b->any[a]));
        KN_TRY(kn_alloc(n, (void **)&b->all[a]));
        KN_TRY(kn_alloc(n, (void **)&b->met[a]));
    }
    KN_TRY(kn_alloc_array((size_t)p->tokens + 1, sizeof *b->hidden, (void **)&b->hidden));
    KN_TRY(cut_queries(b));
    KN_TRY(build_rows(b));
    KN_TRY(order_rows(o, heads));
    if (p->rules) KN_TRY(build_positions(p, o));
    kn_attn_lists *v = &o->view;
    v->q_start = o->q_start, v->row = o->row, v->entry = o->entry, v->order = o->order;
    v->k_pos = o->k_pos, v->q_box = o->q_box, v->k_class = o->k_class, v->q_class = o->q_class;
    v->perm_heads = p->perm_heads, v->perm_q = p->perm_q, v->perm_k = p->perm_k;
    return KN_OK;
}

kn_status kn_attn_host_lists_build(const kn_attn_plan *plan, int heads, int align,
                                   kn_attn_host_lists *out)
{
    memset(out, 0, sizeof *out);
    out->view.tokens = plan->tokens;
    out->view.heads = plan->heads;
    out->view.align = align;
    builder b = {.plan = plan, .out = out, .rule = -1, .align = align};
    kn_status st = build(&b, heads);
    for (int a = 0; a < 3; a++) {
        kn_free(b.any[a]);
        kn_free(b.all[a]);
        kn_free(b.met[a]);
    }
    kn_free(b.hidden);
    kn_free(b.block_of);
    kn_free(b.full);
    if (st != KN_OK) kn_attn_host_lists_free(out);
    return st;
}

void kn_attn_host_lists_free(kn_attn_host_lists *o)
{
    kn_free(o->q_start);
    kn_free(o->row);
    kn_free(o->mask);
    kn_free(o->entry);
    kn_free(o->order);
    kn_free(o->k_pos);
    kn_free(o->q_box);
    kn_free(o->k_class);
    kn_free(o->q_class);
    memset(o, 0, sizeof *o);
}

size_t kn_attn_host_lists_lay_out(const kn_attn_host_lists *h,
                                  kn_attn_list_part parts[KN_ATTN_LIST_PARTS])
{
    enum { ALIGN = 256 };
    const kn_attn_lists *v = &h->view;
    size_t slots = (size_t)h->sets * (size_t)v->rules * (size_t)v->tokens, at = 0;
    size_t perm = (size_t)v->perm_heads * (size_t)v->tokens * 4;
    size_t positions = ((size_t)h->sets * (size_t)v->k_pitch + KN_ATTN_POS_SPAN) * 4;
#define AT(field) offsetof(kn_attn_lists, field)
    const kn_attn_list_part all[KN_ATTN_LIST_PARTS] = {
        {h->q_start, ((size_t)v->q_blocks + 1) * 4, 0, AT(q_start)},
        {h->row, (size_t)h->rows * sizeof *h->row, 0, AT(row)},
        {h->entry, (size_t)h->entries * sizeof *h->entry, 0, AT(entry)},
        {h->order, (size_t)h->order_count * 4, 0, AT(order)},
        {v->perm_q, perm, 0, AT(perm_q)},
        {v->perm_k, perm, 0, AT(perm_k)},
        {h->k_pos, positions, 0, AT(k_pos)},
        {h->q_box, slots * 8, 0, AT(q_box)},
        {h->k_class, slots * 4, 0, AT(k_class)},
        {h->q_class, slots * 4, 0, AT(q_class)},
        {h->mask, (size_t)h->masks * KN_ATTN_MASK_WORDS * 4, 0, AT(mask)},
    };
#undef AT
    for (int i = 0; i < KN_ATTN_LIST_PARTS; i++) {
        parts[i] = all[i];
        parts[i].offset = at;
        if (all[i].host) at += (all[i].bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    return at;
}
