/* The CPU executor: flash-style attention over lists of key runs; dense is one run of all keys.
 *
 * One piece of work is (head, up to 128 queries). Its queries are packed once, in panels, and its
 * output stays in panels; keys and values stream past in steps of KN_ATTN_KEYS, each step used by
 * all panels while it is in the L2 cache. Short runs share a step. Pieces are independent and walk
 * their keys in list order, so results do not depend on threads.
 *
 * Keys and values of a head lie far apart in a fused projection (row stride N*D), where equal cache
 * sets would collide; they are copied together first, a group of heads at a time, in the plan's
 * key order.
 */
#include <math.h>
#include <string.h>

#include "attention/executors.h"
#include "attention/intervals_cpu.h"
#include "attention/sparse_cpu.h"

#include "io/memory.h"

#define LOG2_E 1.44269504088896340736
#define LN_2   0.69314718055994530942

enum {
    QUERIES = 128,            /* per piece, for dims up to 256 */
    PANEL_FLOATS = 128 * 256, /* room for a piece's queries; wider heads take fewer at once */
    MAX_DIM = 512,            /* wider heads run on the reference executor */
    PIECES_WANTED = 256,      /* heads are grouped until a group has this many pieces... */
    PACK_TOKENS = 256,        /* tokens per piece of the packing loop */
    PACK_MIN_QUERIES = 64,    /* fewer queries do not repay a copy of the keys */
    PACK_LINE = 16,           /* floats of a cache line */
    PACK_AHEAD = 8            /* tokens that packing asks for in advance */
};
static const int64_t GROUP_BYTES_MAX = 256LL << 20; /* ...or its copies would pass this size */

/* One head's keys or values as the kernels read them. */
typedef struct rows {
    const float *data;
    int64_t stride;
} rows;

typedef struct cpu_job {
    const kn_attn_args *args;
    const kn_attn_plan *plan; /* NULL: dense */
    const kn_attn_cpu_kernels *kern, *small; /* small: of pieces that fill no panel of the other */
    int64_t head0, heads;       /* the group being run */
    int64_t chunk;              /* queries per piece */
    int64_t chunks;             /* pieces per head; with a plan, its query blocks */
    float *packed_k, *packed_v; /* [heads][Lk][D], [heads][Lk][Dv]; NULL: used in place */
} cpu_job;

/* What a rule shows to the queries of one panel. Most plans have one rule, so it is kept per
 * panel. */
typedef struct sight {
    int rule; /* -1: none yet */
    kn_attn_lanes lanes;
    int32_t lo[3], hi[3]; /* keys outside these bounds are seen by no lane */
} sight;

enum { MIN_PANEL = 16 /* all panels are multiples of it */, MAX_PANELS = QUERIES / MIN_PANEL };

/* Working memory of one piece, on the stack of the thread that runs it. */
typedef struct piece {
    const cpu_job *job;
    const kn_attn_cpu_kernels *kern;
    int64_t head;
    int64_t query0, queries; /* in the plan's order */
    int panels;
    rows k, v;
    const int32_t *perm_q, *perm_k; /* of this head, or NULL */
    float *q, *o;                   /* panels: [panels][D][W], [panels][Dv][W] */
    float *s;                       /* [KN_ATTN_KEYS][W] */
    float m[QUERIES], l[QUERIES];
    sight sight[MAX_PANELS];
} piece;

/* Keys of one softmax step: parts of runs, together at most KN_ATTN_KEYS. */
typedef struct step {
    kn_attn_run part[KN_ATTN_KEYS];
    int parts;
    int64_t keys;
    int64_t next; /* first key of the next step; -1: none */
} step;

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Row of the tensors that query i of the piece is. */
static int64_t query_row(const piece *w, int64_t i)
{
    return w->perm_q ? w->perm_q[w->query0 + i] : w->query0 + i;
}

static void pack_queries(piece *w)
{
    const kn_tensor *q = &w->job->args->q;
    int64_t dim = q->dim[2], W = w->kern->panel;
    float scale = (float)(w->job->args->scale * LOG2_E);
    for (int64_t i = 0; i < w->panels * W; i += MIN_PANEL) {
        float *lanes = w->q + (i / W) * dim * W + i % W;
        const float *row[MIN_PANEL];
        for (int r = 0; r < MIN_PANEL; r++) /* idle lanes repeat the last query: finite */
            row[r] = (const float *)q->data +
                     query_row(w, min_i64(i + r, w->queries - 1)) * q->stride[0] +
                     w->head * q->stride[1];
        for (int64_t d0 = 0; d0 < dim; d0 += PACK_LINE) {
            float square[PACK_LINE][MIN_PANEL];
            int64_t count = min_i64(PACK_LINE, dim - d0);
            for (int r = 0; r < MIN_PANEL; r++)
                for (int64_t d = 0; d < count; d++) square[d][r] = row[r][d0 + d] * scale;
            for (int64_t d = 0; d < count; d++)
                memcpy(lanes + (d0 + d) * W, square[d], sizeof square[d]);
        }
    }
    for (int64_t i = 0; i < w->panels * W; i++) {
        w->m[i] = -INFINITY;
        w->l[i] = 0.0f;
    }
    memset(w->o, 0, sizeof(float) * (size_t)(w->panels * W * w->job->args->v.dim[2]));
}

static void store_output(const piece *w)
{
    const kn_tensor *o = &w->job->args->out, *lse = &w->job->args->lse;
    int64_t dim = o->dim[2], W = w->kern->panel;
    for (int64_t i = 0; i < w->queries; i++) {
        const float *lane = w->o + (i / W) * dim * W + i % W;
        int64_t query = query_row(w, i);
        float *row = (float *)o->data + query * o->stride[0] + w->head * o->stride[1];
        float inverse = w->l[i] == 0.0f ? 0.0f : 1.0f / w->l[i];
        for (int64_t d = 0; d < dim; d++) row[d] = lane[d * W] * inverse;
        if (lse->rank)
            ((float *)lse->data)[w->head * lse->stride[0] + query * lse->stride[1]] =
                w->l[i] == 0.0f ? -INFINITY : (float)(LN_2 * (w->m[i] + log2((double)w->l[i])));
    }
}

static void add_bias(const piece *w, int panel, int64_t key0, int64_t keys)
{
    const kn_tensor *b = &w->job->args->bias;
    int64_t W = w->kern->panel, lanes = min_i64(W, w->queries - panel * W);
    for (int64_t i = 0; i < lanes; i++) {
        const float *row = (const float *)b->data + w->head * b->stride[0] +
                           (w->query0 + panel * W + i) * b->stride[1] + key0 * b->stride[2];
        for (int64_t j = 0; j < keys; j++) w->s[j * W + i] += row[j * b->stride[2]] * (float)LOG2_E;
    }
}

/* The rule's bounds for each query lane of a panel. */
static const sight *look(piece *w, int panel, int rule)
{
    const kn_attn_plan *p = w->job->plan;
    sight *x = &w->sight[panel];
    if (x->rule == rule) return x;
    x->rule = rule;
    for (int axis = 0; axis < 3; axis++) {
        const int32_t *lo = kn_attn_rule_lo(p, rule, axis), *len = kn_attn_rule_len(p, rule, axis);
        kn_attn_lanes *lanes = &x->lanes;
        lanes->dilation[axis] = p->dilation[rule][axis];
        x->lo[axis] = INT32_MAX;
        x->hi[axis] = 0;
        for (int i = 0; i < w->kern->panel; i++) {
            /* Idle lanes repeat the last query. */
            int64_t query = min_i64((int64_t)panel * w->kern->panel + i, w->queries - 1);
            int c = p->pos[3 * query_row(w, query) + axis];
            lanes->lo[axis][i] = lo[c];
            lanes->len[axis][i] = len[c];
            lanes->residue[axis][i] = lanes->dilation[axis] > 1 ? c % lanes->dilation[axis] : 0;
            if (lo[c] < x->lo[axis]) x->lo[axis] = lo[c];
            if (lo[c] + len[c] > x->hi[axis]) x->hi[axis] = lo[c] + len[c];
        }
    }
    return x;
}

static const int16_t *key_position(const piece *w, int64_t key)
{
    return w->job->plan->pos + 3 * (w->perm_k ? (int64_t)w->perm_k[key] : key);
}

static bool in_reach(const piece *w, int64_t key, const sight *x)
{
    const int16_t *at = key_position(w, key);
    return at[0] >= x->lo[0] && at[0] < x->hi[0] && at[1] >= x->lo[1] && at[1] < x->hi[1] &&
           at[2] >= x->lo[2] && at[2] < x->hi[2];
}

/* Cut the keys off both ends of a part that no lane of the panel sees: lists are made for whole
 * query blocks, of which a panel is a corner. */
static void trim(const piece *w, kn_attn_run *part, const sight *x)
{
    while (part->count && !in_reach(w, part->key, x)) part->key++, part->count--;
    while (part->count && !in_reach(w, part->key + part->count - 1, x)) part->count--;
}

static void hide_keys(const piece *w, const kn_attn_run *part, const kn_attn_lanes *lanes, float *s)
{
    if (!w->perm_k) {
        w->kern->mask(s, part->count, key_position(w, part->key), lanes);
        return;
    }
    int16_t gathered[3 * KN_ATTN_KEYS];
    for (int j = 0; j < part->count; j++)
        memcpy(gathered + 3 * j, key_position(w, part->key + j), 3 * sizeof *gathered);
    w->kern->mask(s, part->count, gathered, lanes);
}

/* Keys or values of the next step, for the first panel to fetch while it computes. */
static const float *rows_ahead(const piece *w, const rows *r, int panel, const step *st)
{
    bool within = st->next >= 0 && st->next + KN_ATTN_KEYS <= w->job->args->k.dim[0];
    return panel == 0 && within ? r->data + st->next * r->stride : NULL;
}

/* The step's parts as far as the panel sees them; returns their number. */
static int trim_step(piece *w, const step *st, int panel, kn_attn_run *part)
{
    int parts = 0;
    for (int i = 0; i < st->parts; i++) {
        kn_attn_run *p = &part[parts];
        *p = st->part[i];
        if (p->rule >= 0) trim(w, p, look(w, panel, p->rule));
        parts += p->count > 0;
    }
    return parts;
}

/* Keys of the parts from `first` on that follow each other in memory; *next is the part after
 * them. */
static kn_attn_run span_from(const kn_attn_run *part, int parts, int first, int *next)
{
    kn_attn_run span = part[first];
    for (*next = first + 1; *next < parts && part[*next].key == span.key + span.count; ++*next)
        span.count += part[*next].count;
    return span;
}

static void run_panel(piece *w, const step *st, int panel)
{
    const cpu_job *job = w->job;
    const kn_attn_cpu_kernels *kern = w->kern;
    int64_t W = kern->panel, dim = job->args->q.dim[2], dv = job->args->v.dim[2], keys = 0;
    const float *q = w->q + panel * dim * W;
    float *o = w->o + panel * dv * W, alpha[KN_ATTN_MAX_PANEL];
    kn_attn_run part[KN_ATTN_KEYS];
    int parts = trim_step(w, st, panel, part);
    if (parts == 0) return;
    for (int i = 0, next; i < parts; i = next) {
        kn_attn_run span = span_from(part, parts, i, &next);
        kern->qk(w->k.data + span.key * w->k.stride, w->k.stride, span.count, q, dim,
                 w->s + keys * W, i == 0 ? rows_ahead(w, &w->k, panel, st) : NULL);
        for (; i < next; keys += part[i++].count)
            if (part[i].rule >= 0)
                hide_keys(w, &part[i], &look(w, panel, part[i].rule)->lanes, w->s + keys * W);
    }
    if (job->args->bias.rank) add_bias(w, panel, part[0].key, keys);
    kern->softmax(w->s, keys, w->m + panel * W, w->l + panel * W, alpha);
    const float *s = w->s;
    for (int i = 0, next; i < parts; i = next) {
        kn_attn_run span = span_from(part, parts, i, &next);
        kern->pv(w->v.data + span.key * w->v.stride, w->v.stride, span.count, s, i ? NULL : alpha,
                 dv, o, i == 0 ? rows_ahead(w, &w->v, panel, st) : NULL);
        s += span.count * W;
    }
}

static void run_step(piece *w, const step *st)
{
    for (int panel = 0; panel < w->panels; panel++) run_panel(w, st, panel);
}

/* Walk the runs in steps of KN_ATTN_KEYS keys. */
static void run_list(piece *w, const kn_attn_run *runs, int64_t run_count)
{
    step st = {.parts = 0, .keys = 0, .next = -1};
    for (int64_t r = 0; r < run_count; r++)
        for (int32_t done = 0; done < runs[r].count;) {
            int32_t take = (int32_t)min_i64(runs[r].count - done, KN_ATTN_KEYS - st.keys);
            st.part[st.parts++] = (kn_attn_run){runs[r].key + done, take, runs[r].rule};
            st.keys += take;
            done += take;
            if (st.keys < KN_ATTN_KEYS) continue;
            st.next = done < runs[r].count ? runs[r].key + done : r + 1 < run_count ? runs[r + 1].key : -1;
            run_step(w, &st);
            st.parts = 0;
            st.keys = 0;
        }
    st.next = -1;
    if (st.keys) run_step(w, &st);
}

/* Row stride of packed keys or values, in floats: an odd number of cache lines, so that one column
 * of many rows spreads over all sets of the L1 cache. */
static int64_t packed_stride(const kn_tensor *t)
{
    return ((t->dim[2] + PACK_LINE - 1) / PACK_LINE | 1) * PACK_LINE;
}

static rows head_rows(const kn_tensor *t, const float *packed, int64_t head, int64_t head0)
{
    if (packed)
        return (rows){packed + (head - head0) * t->dim[0] * packed_stride(t), packed_stride(t)};
    return (rows){(const float *)t->data + head * t->stride[1], t->stride[0]};
}

static void run_piece(const cpu_job *job, int64_t head, int64_t query0, int64_t queries,
                      const kn_attn_run *runs, int64_t run_count)
{
    _Alignas(64) float q[PANEL_FLOATS], o[PANEL_FLOATS];
    _Alignas(64) float s[KN_ATTN_KEYS * KN_ATTN_MAX_PANEL];
    const kn_attn_plan *p = job->plan;
    int64_t perm = p && p->perm_heads > 1 ? head * p->tokens : 0;
    const kn_attn_cpu_kernels *kern = queries <= job->small->panel ? job->small : job->kern;
    piece w = {.job = job,
               .kern = kern,
               .head = head,
               .query0 = query0,
               .queries = queries,
               .panels = (int)((queries + kern->panel - 1) / kern->panel),
               .k = head_rows(&job->args->k, job->packed_k, head, job->head0),
               .v = head_rows(&job->args->v, job->packed_v, head, job->head0),
               .perm_q = p && p->perm_q ? p->perm_q + perm : NULL,
               .perm_k = p && p->perm_k ? p->perm_k + perm : NULL,
               .q = q,
               .o = o,
               .s = s};
    for (int i = 0; i < w.panels; i++) w.sight[i].rule = -1;
    pack_queries(&w);
    run_list(&w, runs, run_count);
    store_output(&w);
}

static void run_dense_pieces(void *user, int64_t begin, int64_t end)
{
    const cpu_job *job = user;
    int64_t lq = job->args->q.dim[0];
    kn_attn_run all = {0, (int32_t)job->args->k.dim[0], -1};
    for (int64_t i = begin; i < end; i++) {
        int64_t q0 = i % job->chunks * job->chunk;
        run_piece(job, job->head0 + i / job->chunks, q0, min_i64(job->chunk, lq - q0), &all, 1);
    }
}

/* Rows of a token axis lie too far apart for the hardware to foresee: ask for a block's queries, and
 * for the place of its output, while the block before it is computed. */
static void fetch_block(const cpu_job *job, int64_t head, int64_t block)
{
#if defined(__GNUC__)
    const kn_attn_plan *p = job->plan;
    const kn_tensor *q = &job->args->q, *o = &job->args->out;
    const int32_t *perm =
        p->perm_q ? p->perm_q + (p->perm_heads > 1 ? head * p->tokens : 0) : NULL;
    for (int64_t i = p->q_start[block]; i < p->q_start[block + 1]; i++) {
        int64_t token = perm ? perm[i] : i;
        const float *from = (const float *)q->data + token * q->stride[0] + head * q->stride[1];
        const float *to = (const float *)o->data + token * o->stride[0] + head * o->stride[1];
        for (int64_t d = 0; d < q->dim[2]; d += PACK_LINE) __builtin_prefetch(from + d, 0, 2);
        for (int64_t d = 0; d < o->dim[2]; d += PACK_LINE) __builtin_prefetch(to + d, 1, 2);
    }
#else
    (void)job, (void)head, (void)block;
#endif
}

/* Blocks that a thread takes together, about a full piece's queries. */
static int64_t blocks_at_once(const kn_attn_plan *plan)
{
    int64_t mean = plan->tokens / plan->q_blocks;
    return mean >= QUERIES ? 1 : QUERIES / (mean + 1);
}

static void run_plan_pieces(void *user, int64_t begin, int64_t end)
{
    const cpu_job *job = user;
    const kn_attn_plan *p = job->plan;
    for (int64_t i = begin; i < end; i++) {
        int64_t head = job->head0 + i / job->chunks, block = i % job->chunks;
        int64_t row = (p->heads > 1 ? head : 0) * p->q_blocks + block;
        if (i + 1 < end) fetch_block(job, job->head0 + (i + 1) / job->chunks, (i + 1) % job->chunks);
        const kn_attn_run *runs = p->runs + p->row_ptr[row];
        for (int64_t q0 = p->q_start[block]; q0 < p->q_start[block + 1]; q0 += job->chunk)
            run_piece(job, head, q0, min_i64(job->chunk, p->q_start[block + 1] - q0), runs,
                      p->row_ptr[row + 1] - p->row_ptr[row]);
    }
}

/* Copy one head's token range of k or v into packed rows, in the plan's key order. */
static void pack_rows(const cpu_job *job, const kn_tensor *t, float *packed, int64_t head,
                      int64_t begin, int64_t end)
{
    const kn_attn_plan *p = job->plan;
    const int32_t *perm =
        p && p->perm_k ? p->perm_k + (p->perm_heads > 1 ? head * p->tokens : 0) : NULL;
    int64_t dim = t->dim[2], stride = packed_stride(t);
    float *out = packed + ((head - job->head0) * t->dim[0] + begin) * stride;
    const float *from = (const float *)t->data + head * t->stride[1];
    for (int64_t i = begin; i < end; i++, out += stride) {
#if defined(__GNUC__)
        int64_t next = min_i64(i + PACK_AHEAD, end - 1);
        const float *ahead = from + (perm ? perm[next] : next) * t->stride[0];
        for (int64_t d = 0; d < dim; d += PACK_LINE) __builtin_prefetch(ahead + d);
#endif
        memcpy(out, from + (perm ? perm[i] : i) * t->stride[0], (size_t)dim * sizeof(float));
    }
}

static void pack_pieces(void *user, int64_t begin, int64_t end)
{
    const cpu_job *job = user;
    int64_t tokens = job->args->k.dim[0], per_head = (tokens + PACK_TOKENS - 1) / PACK_TOKENS;
    for (int64_t i = begin; i < end; i++) {
        int64_t head = job->head0 + i / per_head, first = i % per_head * PACK_TOKENS;
        int64_t last = min_i64(first + PACK_TOKENS, tokens);
        if (job->packed_k) pack_rows(job, &job->args->k, job->packed_k, head, first, last);
        if (job->packed_v) pack_rows(job, &job->args->v, job->packed_v, head, first, last);
    }
}

/* How the heads are grouped, and the floats of packed keys and values that a group needs; of intervals,
 * which group them themselves, all floats. Depends on shapes, strides and the plan only, so that measuring
 * gives the same answer. */
typedef struct grouping {
    int64_t heads;
    int64_t k_floats, v_floats;
} grouping;

static bool wants_packing(const kn_attn_args *a, const kn_attn_plan *plan, const kn_tensor *t)
{
    if (plan && plan->perm_k) return true;
    return t->stride[0] != t->dim[2] && a->q.dim[0] > PACK_MIN_QUERIES;
}

static int64_t chunk_of(const kn_attn_args *a)
{
    int64_t dim = a->q.dim[2] > a->v.dim[2] ? a->q.dim[2] : a->v.dim[2], chunk = QUERIES;
    while (chunk * dim > PANEL_FLOATS) chunk /= 2;
    return chunk;
}

static grouping group_heads(const kn_attn_args *a, const kn_attn_plan *plan, bool intervals)
{
    if (intervals) return (grouping){.k_floats = kn_attn_intervals_floats(a, plan)};
    grouping g = {.heads = a->q.dim[1]};
    int64_t k_head = wants_packing(a, plan, &a->k) ? a->k.dim[0] * packed_stride(&a->k) : 0;
    int64_t v_head = wants_packing(a, plan, &a->v) ? a->v.dim[0] * packed_stride(&a->v) : 0;
    if (k_head + v_head) {
        int64_t pieces = plan ? plan->q_blocks : (a->q.dim[0] + chunk_of(a) - 1) / chunk_of(a);
        int64_t wanted = (PIECES_WANTED + pieces - 1) / pieces;
        int64_t fit = GROUP_BYTES_MAX / (int64_t)sizeof(float) / (k_head + v_head);
        g.heads = min_i64(g.heads, min_i64(wanted, fit > 1 ? fit : 1));
    }
    g.k_floats = g.heads * k_head;
    g.v_floats = g.heads * v_head;
    return g;
}

static void pick_kernels(kn_dev *d, cpu_job *job)
{
    job->kern = job->small = &kn_attn_cpu_base;
#if defined(__x86_64__)
    if (kn_dev_isa(d) == 2) job->kern = job->small = &kn_attn_cpu_avx2;
    if (kn_dev_isa(d) >= 3) {
        job->kern = &kn_attn_cpu_avx512;
        job->small = &kn_attn_cpu_avx512_16;
    }
#endif
    (void)d;
}

/* dst: floats from scratch, or from the host heap (then *owned is set too); NULL for none. */
static kn_status take_floats(kn_arena *scratch, int64_t floats, float **dst, void **owned)
{
    if (floats == 0) return KN_OK;
    if (scratch) {
        kn_tensor t;
        KN_TRY(kn_arena_take(scratch, &t, KN_F32, floats));
        *dst = t.data;
        return KN_OK;
    }
    KN_TRY(kn_alloc((size_t)floats * sizeof(float), owned));
    *dst = *owned;
    return KN_OK;
}

static bool too_wide(const kn_attn_args *a)
{
    return a->q.dim[2] > MAX_DIM || a->v.dim[2] > MAX_DIM;
}

static void run_panels(kn_dev *d, cpu_job *job, int64_t group)
{
    const kn_attn_args *args = job->args;
    const kn_attn_plan *plan = job->plan;
    int64_t heads = args->q.dim[1], packs = (args->k.dim[0] + PACK_TOKENS - 1) / PACK_TOKENS;
    job->chunk = chunk_of(args);
    job->chunks = plan ? plan->q_blocks : (args->q.dim[0] + job->chunk - 1) / job->chunk;
    pick_kernels(d, job);
    for (; job->head0 < heads; job->head0 += group) {
        job->heads = min_i64(group, heads - job->head0);
        if (job->packed_k || job->packed_v) kn_parallel_for(d, job->heads * packs, 1, pack_pieces, job);
        kn_parallel_for(d, job->heads * job->chunks, plan ? blocks_at_once(plan) : 1,
                        plan ? run_plan_pieces : run_dense_pieces, job);
    }
}

static bool wants_intervals(const kn_attn_args *args, const kn_attn_plan *plan)
{
    return plan && kn_attn_intervals_fit(plan, args->q.dim[2], args->v.dim[2]);
}

kn_status kn_attn_run_cpu(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                          kn_arena *scratch)
{
    if (too_wide(args)) return kn_attn_run_ref(d, args, plan, scratch);
    kn_status st = KN_OK;
    kn_arena_mark mark = scratch ? kn_arena_get_mark(scratch) : 0;
    void *owned_k = NULL, *owned_v = NULL;
    bool intervals = wants_intervals(args, plan);
    grouping g = group_heads(args, plan, intervals);
    cpu_job job = {.args = args, .plan = plan};
    KN_TRY_GOTO(take_floats(scratch, g.k_floats, &job.packed_k, &owned_k));
    KN_TRY_GOTO(take_floats(scratch, g.v_floats, &job.packed_v, &owned_v));
    if (intervals)
        kn_attn_run_intervals(d, args, plan, job.packed_k);
    else
        run_panels(d, &job, g.heads);
done:
    kn_free(owned_k);
    kn_free(owned_v);
    if (scratch) kn_arena_reset(scratch, mark);
    return st;
}

kn_status kn_attn_measure_cpu(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                              kn_arena *scratch)
{
    (void)d;
    if (!scratch || too_wide(args)) return KN_OK;
    grouping g = group_heads(args, plan, wants_intervals(args, plan));
    kn_arena_mark mark = kn_arena_get_mark(scratch);
    kn_status st = KN_OK;
    float *unused;
    KN_TRY_GOTO(take_floats(scratch, g.k_floats, &unused, NULL));
    KN_TRY_GOTO(take_floats(scratch, g.v_floats, &unused, NULL));
done:
    kn_arena_reset(scratch, mark);
    return st;
}

double kn_attn_plan_host_cost(const kn_attn_plan *plan, int64_t dim)
{
    enum { PANEL = 32 /* of the widest kernels */ };
    if (kn_attn_intervals_fit(plan, dim, dim)) return kn_attn_intervals_cost(plan);
    kn_attn_plan_stats stats;
    int64_t lanes = 0;
    kn_attn_plan_count(plan, QUERIES, QUERIES, &stats);
    for (int64_t b = 0; b < plan->q_blocks; b++)
        lanes += (plan->q_start[b + 1] - plan->q_start[b] + PANEL - 1) / PANEL * PANEL;
    return stats.listed * (double)lanes / (double)plan->tokens;
}
