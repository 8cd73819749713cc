/* The CPU executor for plans whose queries see whole intervals of keys; see intervals_cpu.h.
 *
 * Keys and values are packed once for a group of heads: keys transposed in chunks, values as they are.
 * One piece of work is (head, up to 128 queries of a block). Its queries are sorted by their windows;
 * up to KN_ATTN_BAND with the same window make a band. The block's list is walked in steps that stay in
 * the L2 cache for all bands; of each step a band takes the intervals it sees. Pieces are independent and walk
 * their keys in list order, so results do not depend on threads.
 */
#include "attention/intervals_cpu.h"

#include <math.h>
#include <string.h>

#include "io/memory.h"

#define LOG2_E 1.44269504088896340736
#define LN_2   0.69314718055994530942

enum {
    QUERIES = 128,
    MAX_DIM = 256,
    CHUNK = 256,        /* keys of a chunk, about: whole rows of the image where they are shorter */
    STEP_BYTES = 512 << 10, /* listed keys and values of a step, a part of the L2 cache */
    STEP_PARTS = 64,
    PACK_TOKENS = 64, /* that a thread packs together; a multiple of LINE */
    INTERVALS = 32, /* of a band's softmax step... */
    WIDTH = 1024,   /* ...and its scores in a row */
    LINE = 16,      /* floats of a cache line */
    BLOCKS_WANTED = 512, /* heads are grouped until a group has this many blocks... */
    BLOCKS_AT_ONCE = 4, /* that a thread takes, at most... */
    SHARES = 8          /* ...so that there are this many shares for each */
};
static const int64_t GROUP_BYTES_MAX = 256LL << 20; /* ...or its keys and values would pass this size */

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Rows of a token axis lie too far apart for the hardware to foresee. */
static void fetch(const float *row, int64_t floats)
{
#if defined(__GNUC__)
    for (int64_t d = 0; d < floats; d += LINE) __builtin_prefetch(row + d, 0, 2);
#else
    (void)row, (void)floats;
#endif
}

static int64_t padded(int64_t floats)
{
    return (floats + LINE - 1) / LINE * LINE;
}

/* Sizes; depend on shapes and the plan only, so that measuring gives the same answer. */
typedef struct sizes {
    int64_t frames;   /* T */
    int64_t row;      /* tokens of a row of the image: W T */
    int64_t video;    /* tokens on the grid */
    int64_t chunk;    /* keys of a chunk */
    int64_t chunks;   /* of a head */
    int64_t ldk;      /* floats between two channels of a chunk: an odd number of cache lines, so that a
                         key's channels spread over all sets of the L1 cache */
    int64_t dv;       /* floats of a packed value row */
    int64_t k_floats; /* of a head */
    int64_t v_floats;
    int64_t heads; /* run at once */
} sizes;

static sizes sizes_of(const kn_attn_args *a, const kn_attn_plan *p)
{
    sizes z = {.frames = p->grid[0], .row = (int64_t)p->grid[0] * p->grid[2]};
    int64_t tokens = p->tokens;
    z.video = z.row * p->grid[1];
    z.chunk = z.row < CHUNK ? CHUNK / z.row * z.row : CHUNK;
    z.chunks = (tokens + z.chunk - 1) / z.chunk;
    z.ldk = ((z.chunk + LINE - 1) / LINE | 1) * LINE;
    z.dv = padded(a->v.dim[2]);
    /* The last vector of a chunk reads past the last channel. */
    z.k_floats = z.chunks * a->k.dim[2] * z.ldk + KN_ATTN_LANES;
    z.v_floats = tokens * z.dv;
    int64_t fit = GROUP_BYTES_MAX / (int64_t)sizeof(float) / (z.k_floats + z.v_floats);
    int64_t wanted = (BLOCKS_WANTED + p->q_blocks - 1) / p->q_blocks;
    z.heads = min_i64(a->q.dim[1], min_i64(wanted, max_i64(fit, 1)));
    return z;
}

typedef struct intervals_job {
    const kn_attn_args *args;
    const kn_attn_plan *plan;
    const kn_attn_interval_kernels *kern;
    sizes z;
    int64_t head0, heads; /* the group being run */
    float *kt, *v;        /* [heads][k_floats], [heads][v_floats] */
} intervals_job;

/* Up to KN_ATTN_BAND queries of a piece, sorted, and the window they have in common: rows h0 .. h1 - 1
 * of the image, and from each row the keys w0 .. w1 - 1, counted in tokens. Nothing for queries that are
 * not on the grid: rules show them nothing. */
typedef struct band {
    int first, rows;
    int64_t h0, h1, w0, w1;
} band;

/* A part of a listed run, and the rows of the image that it touches. */
typedef struct part {
    int64_t key, end;
    int64_t h0, h1;
    bool full;
} part;

/* Working memory of one piece, on the stack of the thread that runs it. */
typedef struct piece {
    const intervals_job *job;
    int64_t head, query0;
    int queries, bands;
    const int32_t *perm_q; /* of this head, or NULL */
    const float *kt, *v;
    int32_t query[QUERIES]; /* rows of the tensors, sorted */
    band band[QUERIES];
    float m[QUERIES], l[QUERIES];
    float *q, *o, *s; /* [queries][D], [queries][dv], [KN_ATTN_BAND][WIDTH] */
} piece;

/* Intervals that a band collects for its next softmax step. */
typedef struct gathering {
    kn_attn_interval interval[INTERVALS];
    int count;
    int64_t width;
} gathering;

/* ---- queries ----------------------------------------------------------------------------------*/

static band window_of(const intervals_job *j, int64_t query)
{
    const kn_attn_plan *p = j->plan;
    const int16_t *at = p->pos + 3 * query;
    if (at[0] < 0) return (band){.rows = 0};
    const int32_t *h = kn_attn_rule_lo(p, 0, 1), *w = kn_attn_rule_lo(p, 0, 2);
    int64_t h0 = h[at[1]], w0 = w[at[2]];
    return (band){.h0 = h0,
                  .h1 = h0 + kn_attn_rule_len(p, 0, 1)[at[1]],
                  .w0 = w0 * j->z.frames,
                  .w1 = (w0 + kn_attn_rule_len(p, 0, 2)[at[2]]) * j->z.frames};
}

static bool same_window(const band *a, const band *b)
{
    return a->h0 == b->h0 && a->h1 == b->h1 && a->w0 == b->w0 && a->w1 == b->w1;
}

/* Sort the queries by their windows and cut each group into bands of about equal size. */
static void make_bands(piece *w)
{
    band group[QUERIES];
    uint8_t of[QUERIES];
    int groups = 0, found = 0, sorted = 0;
    for (int i = 0; i < w->queries; i++) {
        int64_t query = w->perm_q ? w->perm_q[w->query0 + i] : w->query0 + i;
        band x = window_of(w->job, query);
        /* In the order of a box the next group is most often the next query's. */
        for (int tries = 0; tries < groups; tries++, found = found + 1 < groups ? found + 1 : 0)
            if (same_window(&x, &group[found])) break;
        if (groups == 0 || !same_window(&x, &group[found])) {
            found = groups++;
            group[found] = x;
            group[found].rows = 0;
        }
        of[i] = (uint8_t)found;
        group[found].rows++;
        if (++found == groups) found = 0;
    }
    w->bands = 0;
    for (int g = 0; g < groups; g++) {
        int left = group[g].rows;
        for (int cuts = (left + KN_ATTN_BAND - 1) / KN_ATTN_BAND; cuts > 0; cuts--) {
            band *b = &w->band[w->bands++];
            *b = group[g];
            b->first = sorted + group[g].rows - left;
            b->rows = (left + cuts - 1) / cuts;
            left -= b->rows;
        }
        for (int i = 0, at = sorted; i < w->queries; i++)
            if (of[i] == g)
                w->query[at++] = (int32_t)(w->perm_q ? w->perm_q[w->query0 + i] : w->query0 + i);
        sorted += group[g].rows;
    }
}

/* Where the rows of this head's queries are; NULL: in their order. */
static const int32_t *perm_of(const kn_attn_plan *p, int64_t head)
{
    return p->perm_q ? p->perm_q + (p->perm_heads > 1 ? head * p->tokens : 0) : NULL;
}

static const float *query_row(const intervals_job *j, int64_t head, int64_t query)
{
    const kn_tensor *q = &j->args->q;
    return (const float *)q->data + query * q->stride[0] + head * q->stride[1];
}

static float *out_row(const intervals_job *j, int64_t head, int64_t query)
{
    const kn_tensor *o = &j->args->out;
    return (float *)o->data + query * o->stride[0] + head * o->stride[1];
}

static void load_band(piece *w, const band *b)
{
    int64_t dim = w->job->args->q.dim[2];
    float scale = (float)(w->job->args->scale * LOG2_E);
    for (int i = b->first; i < b->first + b->rows; i++) {
        const float *row = query_row(w->job, w->head, w->query[i]);
        for (int64_t d = 0; d < dim; d++) w->q[i * dim + d] = row[d] * scale;
        w->m[i] = -INFINITY;
        w->l[i] = 0.0f;
    }
    memset(w->o + b->first * w->job->z.dv, 0, sizeof(float) * (size_t)(b->rows * w->job->z.dv));
}

static void store_output(const piece *w)
{
    const kn_tensor *o = &w->job->args->out, *lse = &w->job->args->lse;
    for (int i = 0; i < w->queries; i++) {
        const float *from = w->o + i * w->job->z.dv;
        float *row = out_row(w->job, w->head, w->query[i]);
        float inverse = w->l[i] == 0.0f ? 0.0f : 1.0f / w->l[i];
        for (int64_t d = 0; d < o->dim[2]; d++) row[d] = from[d] * inverse;
        if (lse->rank)
            ((float *)lse->data)[w->head * lse->stride[0] + w->query[i] * lse->stride[1]] =
                w->l[i] == 0.0f ? -INFINITY : (float)(LN_2 * (w->m[i] + log2((double)w->l[i])));
    }
}

/* ---- keys -------------------------------------------------------------------------------------*/

static void run_gathered(piece *w, const band *b, gathering *g)
{
    const intervals_job *job = w->job;
    int64_t dim = job->args->q.dim[2];
    float alpha[KN_ATTN_BAND];
    if (g->count == 0) return;
    for (int i = 0; i < g->count; i++) {
        const kn_attn_interval *x = &g->interval[i];
        int64_t chunk = x->key / job->z.chunk;
        const float *kt = w->kt + chunk * dim * job->z.ldk + (x->key - chunk * job->z.chunk);
        job->kern->qk(w->q + b->first * dim, b->rows, kt, job->z.ldk, x->count, dim, w->s + x->at, WIDTH);
    }
    for (int r = 0; r < b->rows; r++)
        alpha[r] = job->kern->softmax(w->s + r * WIDTH, g->width, &w->m[b->first + r], &w->l[b->first + r]);
    job->kern->pv(w->s, b->rows, WIDTH, g->interval, g->count, w->v, alpha, job->z.dv,
                  w->o + b->first * job->z.dv);
    g->count = 0;
    g->width = 0;
}

/* Keys that continue the last interval, such as the full part of a run its partial one, are joined to it. */
static bool join(gathering *g, int64_t chunk, int64_t key, int64_t count)
{
    if (g->count == 0) return false;
    kn_attn_interval *last = &g->interval[g->count - 1];
    if (last->key + last->count != key || key % chunk == 0) return false;
    int64_t width = last->at + padded(last->count + count);
    if (width > WIDTH) return false;
    last->count += (int32_t)count;
    g->width = width;
    return true;
}

/* Add keys to what the band has collected, cut at chunks; run it when it is full. */
static void gather(piece *w, const band *b, gathering *g, int64_t key, int64_t end)
{
    int64_t chunk = w->job->z.chunk;
    while (key < end) {
        int64_t count = min_i64(end, (key / chunk + 1) * chunk) - key;
        if (join(g, chunk, key, count)) {
            key += count;
            continue;
        }
        if (g->count == INTERVALS || g->width + padded(count) > WIDTH) run_gathered(w, b, g);
        g->interval[g->count++] = (kn_attn_interval){(int32_t)key, (int32_t)count, (int32_t)g->width};
        g->width += padded(count);
        key += count;
    }
}

static void run_band(piece *w, const band *b, const part *parts, int count)
{
    int64_t row = w->job->z.row;
    gathering g = {.count = 0, .width = 0};
    for (int i = 0; i < count; i++) {
        const part *x = &parts[i];
        if (x->full) {
            gather(w, b, &g, x->key, x->end);
        } else if (b->w1 - b->w0 == row) { /* rows of the image follow each other */
            gather(w, b, &g, max_i64(x->key, b->h0 * row), min_i64(x->end, b->h1 * row));
        } else {
            for (int64_t h = max_i64(x->h0, b->h0); h < min_i64(x->h1, b->h1); h++)
                gather(w, b, &g, max_i64(x->key, h * row + b->w0), min_i64(x->end, h * row + b->w1));
        }
    }
    run_gathered(w, b, &g);
}

/* Walk the runs in steps of about STEP_BYTES. */
static void run_list(piece *w, const kn_attn_run *runs, int64_t run_count)
{
    const sizes *z = &w->job->z;
    int64_t room = STEP_BYTES / (int64_t)sizeof(float) / (w->job->args->k.dim[2] + z->dv), keys = 0;
    part parts[STEP_PARTS];
    int count = 0;
    for (int64_t r = 0; r < run_count; r++)
        for (int64_t done = 0; done < runs[r].count;) {
            int64_t take = min_i64(runs[r].count - done, room);
            if (count == STEP_PARTS || (count && keys + take > room)) {
                for (int b = 0; b < w->bands; b++) run_band(w, &w->band[b], parts, count);
                count = 0, keys = 0;
            }
            int64_t key = runs[r].key + done;
            parts[count++] = (part){.key = key,
                                    .end = key + take,
                                    .h0 = key / z->row,
                                    .h1 = (key + take - 1) / z->row + 1,
                                    .full = runs[r].rule < 0};
            done += take;
            keys += take;
        }
    if (count)
        for (int b = 0; b < w->bands; b++) run_band(w, &w->band[b], parts, count);
}

/* Memory of a piece; its bytes are touched once for several pieces. */
typedef struct panels {
    _Alignas(64) float q[QUERIES * MAX_DIM], o[QUERIES * MAX_DIM], s[KN_ATTN_BAND * WIDTH];
} panels;

static void run_piece(const intervals_job *job, int64_t head, int64_t query0, int64_t queries,
                      const kn_attn_run *runs, int64_t run_count, panels *memory)
{
    piece w = {.job = job,
               .head = head,
               .query0 = query0,
               .queries = (int)queries,
               .perm_q = perm_of(job->plan, head),
               .kt = job->kt + (head - job->head0) * job->z.k_floats,
               .v = job->v + (head - job->head0) * job->z.v_floats,
               .q = memory->q,
               .o = memory->o,
               .s = memory->s};
    make_bands(&w);
    for (int b = 0; b < w.bands; b++) load_band(&w, &w.band[b]);
    run_list(&w, runs, run_count);
    store_output(&w);
}

/* Ask for a block's queries, and for the place of its output, while the block before it is computed. */
static void fetch_block(const intervals_job *job, int64_t head, int64_t block)
{
    const kn_attn_plan *p = job->plan;
    const int32_t *perm = perm_of(p, head);
    for (int64_t i = p->q_start[block]; i < p->q_start[block + 1]; i++) {
        int64_t query = perm ? perm[i] : i;
        fetch(query_row(job, head, query), job->args->q.dim[2]);
        fetch(out_row(job, head, query), job->args->out.dim[2]);
    }
}

static void run_blocks(void *user, int64_t begin, int64_t end)
{
    const intervals_job *job = user;
    const kn_attn_plan *p = job->plan;
    panels memory;
    for (int64_t i = begin; i < end; i++) {
        int64_t head = job->head0 + i / p->q_blocks, block = i % p->q_blocks;
        int64_t list = (p->heads > 1 ? head : 0) * p->q_blocks + block, last = p->q_start[block + 1];
        if (i + 1 < end) fetch_block(job, job->head0 + (i + 1) / p->q_blocks, (i + 1) % p->q_blocks);
        for (int64_t q0 = p->q_start[block]; q0 < last; q0 += QUERIES)
            run_piece(job, head, q0, min_i64(QUERIES, last - q0), p->runs + p->row_ptr[list],
                      p->row_ptr[list + 1] - p->row_ptr[list], &memory);
    }
}

/* ---- packing ----------------------------------------------------------------------------------*/

/* Up to LINE keys of one head, transposed, into the columns at `out`; missing ones repeat the last. */
static void pack_keys(const intervals_job *job, const float *from, int64_t count, float *out)
{
    const kn_tensor *k = &job->args->k;
    int64_t dim = k->dim[2], ldk = job->z.ldk;
    const float *row[LINE];
    for (int r = 0; r < LINE; r++) row[r] = from + min_i64(r, count - 1) * k->stride[0];
    for (int64_t d0 = 0; d0 < dim; d0 += LINE) {
        float square[LINE][LINE];
        int64_t channels = min_i64(LINE, dim - d0);
        for (int r = 0; r < LINE; r++)
            for (int64_t d = 0; d < channels; d++) square[d][r] = row[r][d0 + d];
        for (int64_t d = 0; d < channels; d++)
            memcpy(out + (d0 + d) * ldk, square[d], sizeof square[d]);
    }
}

static void pack_values(const intervals_job *job, const float *from, int64_t count, float *out)
{
    const kn_tensor *v = &job->args->v;
    int64_t dim = v->dim[2], dv = job->z.dv;
    for (int64_t i = 0; i < count; i++, out += dv) {
        memcpy(out, from + i * v->stride[0], (size_t)dim * sizeof(float));
        if (dv > dim) memset(out + dim, 0, (size_t)(dv - dim) * sizeof(float));
    }
}

/* Keys from .. to - 1 of a chunk, LINE tokens after another, each with all heads: a token's heads lie
 * together. */
static void pack_part(const intervals_job *job, int64_t chunk, int64_t from, int64_t to)
{
    const kn_tensor *k = &job->args->k, *v = &job->args->v;
    const sizes *z = &job->z;
    int64_t first = chunk * z->chunk, count = min_i64(z->chunk, k->dim[0] - first);
    for (int64_t j = from; j < min_i64(to, count); j += LINE)
        for (int64_t h = 0; h < job->heads; h++) {
            const float *keys = (const float *)k->data + (first + j) * k->stride[0] +
                                (job->head0 + h) * k->stride[1];
            const float *values = (const float *)v->data + (first + j) * v->stride[0] +
                                  (job->head0 + h) * v->stride[1];
            float *kt = job->kt + h * z->k_floats + chunk * k->dim[2] * z->ldk;
            pack_keys(job, keys, min_i64(LINE, count - j), kt + j);
            pack_values(job, values, min_i64(LINE, count - j),
                        job->v + h * z->v_floats + (first + j) * z->dv);
        }
    if (from >= count || to < count) return;
    /* What vectors read past the last key and past the last channel. */
    for (int64_t h = 0; h < job->heads; h++) {
        float *kt = job->kt + h * z->k_floats + chunk * k->dim[2] * z->ldk;
        int64_t packed = padded(count);
        for (int64_t d = 0; d < k->dim[2] && packed < z->ldk; d++)
            memset(kt + d * z->ldk + packed, 0, (size_t)(z->ldk - packed) * sizeof(float));
        if (chunk == z->chunks - 1) memset(kt + k->dim[2] * z->ldk, 0, KN_ATTN_LANES * sizeof(float));
    }
}

static int64_t pack_parts(const sizes *z)
{
    return (z->chunk + PACK_TOKENS - 1) / PACK_TOKENS;
}

static void pack_chunks(void *user, int64_t begin, int64_t end)
{
    const intervals_job *job = user;
    int64_t parts = pack_parts(&job->z);
    for (int64_t i = begin; i < end; i++) {
        int64_t from = i % parts * PACK_TOKENS;
        pack_part(job, i / parts, from, from + PACK_TOKENS);
    }
}

/* ---- entry ------------------------------------------------------------------------------------*/

static bool in_row_order(const kn_attn_plan *p)
{
    const int16_t *at = p->pos;
    for (int h = 0; h < p->grid[1]; h++)
        for (int w = 0; w < p->grid[2]; w++)
            for (int t = 0; t < p->grid[0]; t++, at += 3)
                if (at[0] != t || at[1] != h || at[2] != w) return false;
    return true;
}

bool kn_attn_intervals_fit(const kn_attn_plan *p, int64_t dim, int64_t dv)
{
    /* Fewer frames give bands of so few queries that products wait for loads. */
    enum { MIN_FRAMES = 3 };
    /* A band reads its keys anew, where a panel's are read by five times as many queries. Set between the
     * two lengths that were measured: 34 KB gained over panels, 69 KB did not (docs/performance.md). */
    enum { INTERVAL_BYTES = 40 << 10 };
    if (p->rules != 1 || !p->pos || p->perm_k || p->grid[0] < MIN_FRAMES) return false;
    if (dim > MAX_DIM || dv > MAX_DIM) return false;
    for (int a = 0; a < 3; a++)
        if (p->dilation[0][a] != 1) return false;
    const int32_t *lo = kn_attn_rule_lo(p, 0, 0), *len = kn_attn_rule_len(p, 0, 0);
    for (int t = 0; t < p->grid[0]; t++)
        if (lo[t] != 0 || len[t] != p->grid[0]) return false;
    const int32_t *wide = kn_attn_rule_len(p, 0, 2);
    for (int w = 0; w < p->grid[2]; w++)
        if ((int64_t)wide[w] * p->grid[0] * dim * (int64_t)sizeof(float) > INTERVAL_BYTES) return false;
    return in_row_order(p);
}

double kn_attn_intervals_cost(const kn_attn_plan *p)
{
    const int32_t *len = kn_attn_rule_len(p, 0, 2);
    double keys = 0, lanes = 0;
    for (int w = 0; w < p->grid[2]; w++) {
        keys += (double)len[w] * p->grid[0];
        lanes += (double)padded((int64_t)len[w] * p->grid[0]);
    }
    return p->density * (1 + lanes / keys) / 2;
}

static const kn_attn_interval_kernels *kernels_of(kn_dev *d)
{
#if defined(__x86_64__)
    if (kn_dev_isa(d) == 2) return &kn_attn_intervals_avx2;
    if (kn_dev_isa(d) >= 3) return &kn_attn_intervals_avx512;
#endif
    (void)d;
    return &kn_attn_intervals_base;
}

kn_status kn_attn_run_intervals(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                                kn_arena *scratch)
{
    intervals_job job = {.args = args, .plan = plan, .kern = kernels_of(d), .z = sizes_of(args, plan)};
    int64_t heads = args->q.dim[1], floats = job.z.heads * (job.z.k_floats + job.z.v_floats);
    kn_arena_mark mark = scratch ? kn_arena_get_mark(scratch) : 0;
    void *owned = NULL;
    if (scratch) {
        kn_tensor t;
        KN_TRY(kn_arena_take(scratch, &t, KN_F32, floats));
        job.kt = t.data;
    } else {
        KN_TRY(kn_alloc((size_t)floats * sizeof(float), &owned));
        job.kt = owned;
    }
    job.v = job.kt + job.z.heads * job.z.k_floats;
    for (; job.head0 < heads; job.head0 += job.z.heads) {
        job.heads = min_i64(job.z.heads, heads - job.head0);
        kn_parallel_for(d, job.z.chunks * pack_parts(&job.z), 1, pack_chunks, &job);
        int64_t blocks = job.heads * plan->q_blocks, share = blocks / (SHARES * kn_dev_threads(d));
        kn_parallel_for(d, blocks, min_i64(share, BLOCKS_AT_ONCE), run_blocks, &job);
    }
    kn_free(owned);
    if (scratch) kn_arena_reset(scratch, mark);
    return KN_OK;
}

kn_status kn_attn_measure_intervals(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                                    kn_arena *scratch)
{
    (void)d;
    if (!scratch) return KN_OK;
    sizes z = sizes_of(args, plan);
    kn_arena_mark mark = kn_arena_get_mark(scratch);
    kn_tensor t;
    kn_status st = kn_arena_take(scratch, &t, KN_F32, z.heads * (z.k_floats + z.v_floats));
    kn_arena_reset(scratch, mark);
    return st;
}
