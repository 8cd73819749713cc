/* The CPU executor for plans whose queries see whole intervals of keys; see intervals_cpu.h.
 *
 * Keys and values are packed once for a group of heads: keys scaled and transposed in chunks,
 * values in tiles of channels. One piece of work is (head, up to 128 queries of a block). The
 * queries of each time column have one window; up to KN_ATTN_BAND of them make a band. The block's
 * list is walked in steps of up to WIDTH keys of a query. In a step one column after another
 * multiplies the keys that it sees, the bands of a column in turn a few at a time, so that all but
 * the first find them in the L1 cache; neighbours see almost the same ones, which stay in the L2
 * cache. Pieces are independent and walk their keys in list order, so results do not depend on
 * threads.
 */
#include "attention/intervals_cpu.h"

#include <math.h>
#include <string.h>

#define LOG2_E 1.44269504088896340736
#define LN_2   0.69314718055994530942

enum {
    QUERIES = 128,
    MAX_DIM = 256,
    CHUNK = 320,    /* keys of a chunk, about: whole rows of the image where they are shorter */
    TILE_KEYS = 64, /* of an interval, at most */
    KEY_BYTES = 32 << 10, /* of keys that a column's bands take in turn, a part of the L1 cache */
    CHANNELS = 64,    /* of a tile of values: as many as the registers of the widest table hold */
    PACK_TOKENS = 64, /* that a thread packs together; a multiple of LINE */
    LINE = 16,        /* floats of a cache line */
    WIDTH = 512,      /* keys that a query takes in a softmax step... */
    STRIDE = WIDTH + LINE, /* ...and floats between two queries' scores, which so lie in other sets
                              of the cache */
    BLOCKS_WANTED = 512, /* heads are grouped until a group has this many blocks... */
    BLOCKS_AT_ONCE = 4,  /* that a thread takes, at most... */
    SHARES = 8           /* ...so that there are this many shares for each */
};
static const int64_t GROUP_BYTES_MAX = 256LL << 20; /* ...or what is packed would pass this size */

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t padded(int64_t floats)
{
    return (floats + LINE - 1) / LINE * LINE;
}

/* Sizes; depend on shapes and the plan only, so that kn_attn_intervals_floats always gives the same
 * answer. */
typedef struct sizes {
    int64_t frames; /* T */
    int64_t row;    /* tokens of a row of the image: W T */
    int64_t video;  /* tokens on the grid */
    int64_t chunk;  /* keys of a chunk */
    int64_t chunks; /* of a head */
    int64_t ldk;    /* floats between two channels of a chunk: an odd number of cache lines, so that
                       a key's channels spread over all sets of the L1 cache */
    int64_t dv;  /* channels of values, padded */
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

/* Keys key .. key + count - 1 of one chunk, at kt of the transposed ones; their scores are columns
 * at .. of the queries' rows. */
typedef struct interval {
    int64_t kt;
    int32_t key, count, at;
} interval;

/* The queries of a piece that are of one time column, and the window they have in common: rows
 * h0 .. h1 - 1 of the image, and from each row the keys w0 .. w1 - 1, counted in tokens. Nothing
 * for queries that are not on the grid: rules show them nothing. */
typedef struct column {
    int64_t h0, h1, w0, w1;
    int first, queries; /* of the piece's, sorted */
    int first_band, bands;
    /* what it collects for its next softmax step */
    int count;
    int64_t width;
    interval interval[WIDTH / LINE];
} column;

/* Up to KN_ATTN_BAND consecutive tokens, queries of a column. */
typedef struct band {
    int first, rows;
    int64_t token;
} band;

/* Working memory of one piece, on the stack of the thread that runs it. */
typedef struct piece {
    const intervals_job *job;
    int64_t head, query0;
    int queries, columns, bands;
    const int32_t *perm_q; /* of this head, or NULL */
    const float *kt, *v;
    bool fetched;           /* rows of all columns have been asked for */
    int32_t query[QUERIES]; /* tokens, sorted by column */
    column column[QUERIES];
    band band[QUERIES];
    float m[QUERIES], l[QUERIES], alpha[QUERIES];
    _Alignas(64) float o[QUERIES * MAX_DIM]; /* [queries][dv] */
    float s[QUERIES * STRIDE];               /* of a column's queries */
} piece;

/* ---- queries ----------------------------------------------------------------------------------*/

static void set_window(const intervals_job *j, int64_t query, column *c)
{
    const kn_attn_plan *p = j->plan;
    c->h0 = c->h1 = c->w0 = c->w1 = 0;
    if (query >= j->z.video) return;
    int64_t h = query / j->z.row, w = query % j->z.row / j->z.frames;
    c->h0 = kn_attn_rule_lo(p, 0, 1)[h];
    c->h1 = c->h0 + kn_attn_rule_len(p, 0, 1)[h];
    c->w0 = kn_attn_rule_lo(p, 0, 2)[w] * j->z.frames;
    c->w1 = c->w0 + kn_attn_rule_len(p, 0, 2)[w] * j->z.frames;
}

static int64_t query_at(const piece *w, int i)
{
    return w->perm_q ? w->perm_q[w->query0 + i] : w->query0 + i;
}

/* Sort the queries by their time columns. */
static void make_columns(piece *w)
{
    int64_t frames = w->job->z.frames, of_column[QUERIES];
    uint8_t of[QUERIES];
    int found = 0, sorted = 0;
    w->columns = 0;
    for (int i = 0; i < w->queries; i++) {
        int64_t query = query_at(w, i), at = query / frames;
        /* In the order of a box the next column is most often the next query's. */
        for (int tries = 0; tries < w->columns;
             tries++, found = found + 1 < w->columns ? found + 1 : 0)
            if (of_column[found] == at) break;
        if (w->columns == 0 || of_column[found] != at) {
            found = w->columns++;
            column *c = &w->column[found];
            of_column[found] = at;
            set_window(w->job, query, c);
            c->queries = c->count = 0;
            c->width = 0;
        }
        of[i] = (uint8_t)found;
        w->column[found].queries++;
        if (++found == w->columns) found = 0;
    }
    int end[QUERIES];
    for (int c = 0; c < w->columns; c++) {
        w->column[c].first = end[c] = sorted;
        sorted += w->column[c].queries;
    }
    for (int i = 0; i < w->queries; i++) {
        int32_t query = (int32_t)query_at(w, i);
        /* cppcheck-suppress uninitvar ; the loop above sets it for the same queries */
        int at = end[of[i]]++, first = w->column[of[i]].first;
        for (; at > first && w->query[at - 1] > query; at--) w->query[at] = w->query[at - 1];
        w->query[at] = query;
    }
}

/* Cut the columns where tokens do not follow each other, and into bands of about equal size. */
static void make_bands(piece *w)
{
    w->bands = 0;
    for (int c = 0; c < w->columns; c++) {
        column *x = &w->column[c];
        x->first_band = w->bands;
        for (int at = x->first, end = x->first + x->queries, next; at < end; at = next) {
            for (next = at + 1; next < end && w->query[next] == w->query[next - 1] + 1;) next++;
            for (int cuts = (next - at + KN_ATTN_BAND - 1) / KN_ATTN_BAND; cuts > 0; cuts--) {
                int rows = (next - at + cuts - 1) / cuts;
                w->band[w->bands++] = (band){.first = at, .rows = rows, .token = w->query[at]};
                at += rows;
            }
        }
        x->bands = w->bands - x->first_band;
    }
}

/* Where the rows of this head's queries are; NULL: in their order. */
static const int32_t *perm_of(const kn_attn_plan *p, int64_t head)
{
    return p->perm_q ? p->perm_q + (p->perm_heads > 1 ? head * p->tokens : 0) : NULL;
}

static const float *row_of(const kn_tensor *t, int64_t token, int64_t head)
{
    return (const float *)t->data + token * t->stride[0] + head * t->stride[1];
}

static float *out_row(const intervals_job *j, int64_t head, int64_t query)
{
    const kn_tensor *o = &j->args->out;
    return (float *)o->data + query * o->stride[0] + head * o->stride[1];
}

/* Ask for a row of a token axis: they lie too far apart for the hardware to foresee. */
static void fetch(const kn_tensor *t, int64_t token, int64_t head)
{
#if defined(__GNUC__)
    const float *row = row_of(t, token, head);
    for (int64_t d = 0; d < t->dim[2]; d += LINE) __builtin_prefetch(row + d, 0, 2);
#else
    (void)t, (void)token, (void)head;
#endif
}

/* A column's queries and the place of its output. */
static void fetch_column(const piece *w, const column *c)
{
    for (int i = c->first; i < c->first + c->queries; i++) {
        fetch(&w->job->args->q, w->query[i], w->head);
        fetch(&w->job->args->out, w->query[i], w->head);
    }
}

static void store_column(const piece *w, const column *c)
{
    const kn_tensor *o = &w->job->args->out, *lse = &w->job->args->lse;
    for (int i = c->first; i < c->first + c->queries; i++) {
        const float *from = w->o + i * w->job->z.dv;
        float *row = out_row(w->job, w->head, w->query[i]);
        float inverse = w->l[i] == 0.0f ? 0.0f : 1.0f / w->l[i];
        for (int64_t d = 0; d < o->dim[2]; d++) row[d] = from[d] * inverse;
        if (lse->rank)
            ((float *)lse->data)[w->head * lse->stride[0] + w->query[i] * lse->stride[1]] =
                w->l[i] == 0.0f ? -INFINITY : (float)(LN_2 * (w->m[i] + log2((double)w->l[i])));
    }
}

/* ---- products ---------------------------------------------------------------------------------*/

static void multiply_keys(piece *w, const column *c)
{
    const intervals_job *job = w->job;
    const kn_tensor *q = &job->args->q;
    int64_t dim = q->dim[2], fit = KEY_BYTES / (int64_t)sizeof(float) / dim / LINE * LINE;
    int64_t span = max_i64(min_i64(fit, TILE_KEYS), LINE);
    for (int i = 0; i < c->count; i++) {
        const interval *x = &c->interval[i];
        for (int64_t from = 0; from < x->count; from += span)
            for (int n = c->first_band; n < c->first_band + c->bands; n++) {
                const band *b = &w->band[n];
                job->kern->qk(row_of(q, b->token, w->head), q->stride[0], b->rows,
                              w->kt + x->kt + from, job->z.ldk, min_i64(span, x->count - from), dim,
                              w->s + (b->first - c->first) * STRIDE + x->at + from, STRIDE);
            }
    }
}

static void multiply_values(piece *w, const column *c)
{
    const sizes *z = &w->job->z;
    for (int64_t d = 0; d < z->dv; d += CHANNELS) {
        int64_t width = min_i64(CHANNELS, z->dv - d);
        for (int i = 0; i < c->count; i++) {
            const interval *x = &c->interval[i];
            const float *v = w->v + d * w->job->plan->tokens + x->key * width;
            for (int n = c->first_band; n < c->first_band + c->bands; n++) {
                const band *b = &w->band[n];
                w->job->kern->pv(w->s + (b->first - c->first) * STRIDE + x->at, b->rows, STRIDE, v,
                                 x->count, i == 0 ? w->alpha + b->first : NULL, width,
                                 w->o + b->first * z->dv + d, z->dv);
            }
        }
    }
}

/* The softmax step of what the columns have collected. last: the output is complete after it. */
static void run_step(piece *w, bool last)
{
    for (column *c = w->column; c < w->column + w->columns; c++) {
        if (!w->fetched && c + 1 < w->column + w->columns) fetch_column(w, c + 1);
        if (c->count) {
            multiply_keys(w, c);
            for (int i = 0; i < c->queries; i++)
                w->alpha[c->first + i] = w->job->kern->softmax(
                    w->s + i * STRIDE, c->width, &w->m[c->first + i], &w->l[c->first + i]);
            multiply_values(w, c);
        }
        c->count = 0;
        c->width = 0;
        if (last) store_column(w, c);
    }
    w->fetched = true;
}

/* ---- keys -------------------------------------------------------------------------------------*/

/* Add keys to what a column has collected, cut at chunks and tiles; those that continue the last
 * interval, such as the full part of a run its partial one, are joined to it. Runs a step where
 * there is no room. */
static void gather(piece *w, column *c, int64_t key, int64_t end)
{
    int64_t chunk = w->job->z.chunk;
    while (key < end) {
        int64_t n = key / chunk, count = min_i64(end, (n + 1) * chunk) - key;
        interval *last = c->count ? &c->interval[c->count - 1] : NULL;
        if (last && last->key + last->count == key && key != n * chunk && last->count < TILE_KEYS) {
            count = min_i64(count, TILE_KEYS - last->count);
            int64_t width = last->at + padded(last->count + count);
            if (width <= WIDTH) {
                last->count += (int32_t)count;
                c->width = width;
                key += count;
                continue;
            }
        }
        count = min_i64(count, TILE_KEYS);
        if (c->width + padded(count) > WIDTH) run_step(w, false);
        c->interval[c->count++] =
            (interval){.kt = n * w->job->args->k.dim[2] * w->job->z.ldk + key - n * chunk,
                       .key = (int32_t)key,
                       .count = (int32_t)count,
                       .at = (int32_t)c->width};
        c->width += padded(count);
        key += count;
    }
}

/* What a column sees of a listed run. */
static void gather_run(piece *w, column *c, const kn_attn_run *run)
{
    int64_t row = w->job->z.row, key = run->key, end = key + run->count;
    if (run->rule < 0) {
        gather(w, c, key, end);
    } else if (c->w1 - c->w0 == row) { /* rows of the image follow each other */
        gather(w, c, max_i64(key, c->h0 * row), min_i64(end, c->h1 * row));
    } else {
        int64_t h1 = min_i64((end - 1) / row + 1, c->h1);
        for (int64_t h = max_i64(key / row, c->h0); h < h1; h++)
            gather(w, c, max_i64(key, h * row + c->w0), min_i64(end, h * row + c->w1));
    }
}

static void run_piece(const intervals_job *job, int64_t head, int64_t query0, int64_t queries,
                      const kn_attn_run *runs, int64_t run_count, piece *w)
{
    const sizes *z = &job->z;
    w->job = job;
    w->head = head;
    w->query0 = query0;
    w->queries = (int)queries;
    w->perm_q = perm_of(job->plan, head);
    w->kt = job->kt + (head - job->head0) * z->k_floats;
    w->v = job->v + (head - job->head0) * z->v_floats;
    make_columns(w);
    make_bands(w);
    w->fetched = false;
    for (int i = 0; i < w->queries; i++) {
        w->m[i] = -INFINITY;
        w->l[i] = 0.0f;
    }
    memset(w->o, 0, sizeof(float) * (size_t)(queries * z->dv));
    for (int64_t r = 0; r < run_count; r++)
        for (int64_t done = 0, take; done < runs[r].count; done += take) {
            /* Whole rows of the image in turn, so that columns stay together. */
            kn_attn_run part = runs[r];
            part.key += (int32_t)done;
            take = min_i64(part.count - done, z->row - part.key % z->row);
            part.count = (int32_t)take;
            for (int c = 0; c < w->columns; c++) gather_run(w, &w->column[c], &part);
        }
    run_step(w, true);
}

static void run_blocks(void *user, int64_t begin, int64_t end)
{
    const intervals_job *job = user;
    const kn_attn_plan *p = job->plan;
    piece w; /* its bytes are touched once for several pieces */
    for (int64_t i = begin; i < end; i++) {
        int64_t head = job->head0 + i / p->q_blocks, block = i % p->q_blocks;
        int64_t list = (p->heads > 1 ? head : 0) * p->q_blocks + block,
                last = p->q_start[block + 1];
        for (int64_t q0 = p->q_start[block]; q0 < last; q0 += QUERIES) {
            run_piece(job, head, q0, min_i64(QUERIES, last - q0), p->runs + p->row_ptr[list],
                      p->row_ptr[list + 1] - p->row_ptr[list], &w);
        }
    }
}

/* ---- packing ----------------------------------------------------------------------------------*/

/* Up to LINE keys into the columns at `out`; missing ones repeat the last. */
static void pack_keys(const intervals_job *job, int64_t head, int64_t token, int64_t count,
                      float *out)
{
    const float *row[LINE];
    for (int r = 0; r < LINE; r++)
        row[r] = row_of(&job->args->k, token + min_i64(r, count - 1), head);
    float scale = (float)(job->args->scale * LOG2_E); /* here, as it is once per key */
    job->kern->turn(row, scale, job->args->k.dim[2], out, job->z.ldk);
}

static void pack_values(const intervals_job *job, int64_t head, int64_t token, int64_t count)
{
    int64_t dim = job->args->v.dim[2], dv = job->z.dv, tokens = job->plan->tokens;
    float *tiles = job->v + (head - job->head0) * job->z.v_floats;
    for (int64_t i = token; i < token + count; i++) {
        const float *row = row_of(&job->args->v, i, head);
        for (int64_t d = 0; d < dv; d += CHANNELS) {
            int64_t width = min_i64(CHANNELS, dv - d), there = min_i64(width, dim - d);
            float *out = tiles + d * tokens + i * width;
            memcpy(out, row + d, (size_t)there * sizeof(float));
            if (width > there) memset(out + there, 0, (size_t)(width - there) * sizeof(float));
        }
    }
}

/* Tokens from .. to - 1 of a chunk, LINE after another, each with all heads: a token's heads lie
 * together. */
static void pack_part(const intervals_job *job, int64_t chunk, int64_t from, int64_t to)
{
    const sizes *z = &job->z;
    int64_t dim = job->args->k.dim[2], first = chunk * z->chunk;
    int64_t count = min_i64(z->chunk, job->plan->tokens - first);
    for (int64_t j = from; j < min_i64(to, count); j += LINE)
        for (int64_t h = 0; h < job->heads; h++) {
            int64_t head = job->head0 + h, some = min_i64(LINE, min_i64(to, count) - j);
            for (int64_t i = first + j + LINE; i < min_i64(first + j + 2 * LINE, job->plan->tokens);
                 i++) {
                fetch(&job->args->k, i, head);
                fetch(&job->args->v, i, head);
            }
            pack_keys(job, head, first + j, some,
                      job->kt + h * z->k_floats + chunk * dim * z->ldk + j);
            pack_values(job, head, first + j, some);
        }
    if (from >= count || to < count) return;
    /* What vectors read past the last key and past the last channel. */
    for (int64_t h = 0; h < job->heads; h++) {
        float *kt = job->kt + h * z->k_floats + chunk * dim * z->ldk;
        int64_t packed = padded(count);
        for (int64_t d = 0; d < dim && packed < z->ldk; d++)
            memset(kt + d * z->ldk + packed, 0, (size_t)(z->ldk - packed) * sizeof(float));
        if (chunk == z->chunks - 1) memset(kt + dim * z->ldk, 0, KN_ATTN_LANES * sizeof(float));
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
    enum { MIN_FRAMES = 3 }; /* fewer give bands of so few queries that products wait for loads */
    if (p->rules != 1 || !p->pos || p->perm_k || p->grid[0] < MIN_FRAMES) return false;
    if (dim > MAX_DIM || dv > MAX_DIM) return false;
    for (int a = 0; a < 3; a++)
        if (p->dilation[0][a] != 1) return false;
    const int32_t *lo = kn_attn_rule_lo(p, 0, 0), *len = kn_attn_rule_len(p, 0, 0);
    for (int t = 0; t < p->grid[0]; t++)
        if (lo[t] != 0 || len[t] != p->grid[0]) return false;
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

int64_t kn_attn_intervals_floats(const kn_attn_args *args, const kn_attn_plan *plan)
{
    sizes z = sizes_of(args, plan);
    return z.heads * (z.k_floats + z.v_floats);
}

void kn_attn_run_intervals(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                           float *memory)
{
    intervals_job job = {
        .args = args, .plan = plan, .kern = kernels_of(d), .z = sizes_of(args, plan)};
    int64_t heads = args->q.dim[1];
    job.kt = memory;
    job.v = job.kt + job.z.heads * job.z.k_floats;
    for (; job.head0 < heads; job.head0 += job.z.heads) {
        job.heads = min_i64(job.z.heads, heads - job.head0);
        kn_parallel_for(d, job.z.chunks * pack_parts(&job.z), 1, pack_chunks, &job);
        int64_t blocks = job.heads * plan->q_blocks, share = blocks / (SHARES * kn_dev_threads(d));
        kn_parallel_for(d, blocks, min_i64(share, BLOCKS_AT_ONCE), run_blocks, &job);
    }
}
