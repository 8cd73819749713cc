/* The specification of attention with 8-bit products (attention/int8.h) and with skipping of blocks
 * (BLASST, arXiv 2512.12087), in double. Both depend on how a row's keys are cut into entries and, the
 * latter, on their order: those of the Hopper kernels, from attention/lists.h. The 64 queries of half a
 * block skip an entry together.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "attention/executors.h"
#include "attention/lists.h"
#include "io/memory.h"

enum { DIM = 128, KEYS = KN_ATTN_BLOCK, HALF = KN_ATTN_BLOCK / 2 };

typedef struct entries_job {
    const kn_attn_args *args;
    const kn_attn_plan *plan; /* NULL: dense */
    const kn_attn_host_lists *lists;
    int64_t q_blocks;
    double *channel; /* int8: [heads][4][DIM], mean and scale of k, of v */
    atomic_bool failed; /* out of memory */
} entries_job;

/* One query on its way through the entries. */
typedef struct query_state {
    int64_t token;
    double q[DIM], unit; /* int8: rounded; a score is unit times the product with a rounded k */
    double shift;        /* int8: what the mean of k adds to the scores */
    double top, sum, peak;
    double *acc; /* [Dv] */
    double s[KEYS], high;
} query_state;

/* ---- entries ----------------------------------------------------------------------------------*/

typedef struct half_block {
    int64_t head, begin, end; /* queries in the plan's order */
    int64_t first, total;     /* entries; dense: total only */
} half_block;

static half_block find_half(const entries_job *j, int64_t i)
{
    half_block b = {.head = i / 2 / j->q_blocks};
    int64_t block = i / 2 % j->q_blocks, begin = block * KEYS, end = begin + KEYS;
    if (j->plan) {
        const kn_attn_lists *l = &j->lists->view;
        const kn_attn_list_row *r = &j->lists->row[(l->heads > 1 ? b.head : 0) * j->q_blocks + block];
        begin = j->lists->q_start[block], end = j->lists->q_start[block + 1];
        b.first = r->first, b.total = r->total;
    } else {
        if (end > j->args->q.dim[0]) end = j->args->q.dim[0];
        b.total = (j->args->k.dim[0] + KEYS - 1) / KEYS;
    }
    b.begin = begin + i % 2 * HALF;
    b.end = b.begin + HALF < end ? b.begin + HALF : end;
    return b;
}

static kn_attn_entry entry_at(const entries_job *j, const half_block *b, int64_t i)
{
    if (j->plan) return j->lists->entry[b->first + i];
    /* The ragged one first. */
    int64_t keys = j->args->k.dim[0], last = b->total - 1;
    int64_t block = keys % KEYS ? (i == 0 ? last : i - 1) : i;
    int64_t count = keys - block * KEYS;
    return (kn_attn_entry){(int32_t)(block * KEYS), (uint32_t)(count < KEYS ? count : KEYS)};
}

static int64_t token_of(const entries_job *j, const int32_t *perm, int64_t head, int64_t i)
{
    return perm ? perm[(j->plan->perm_heads > 1 ? head * j->plan->tokens : 0) + i] : i;
}

/* ---- 8-bit values -----------------------------------------------------------------------------*/

static double rounded(double x, double scale)
{
    return scale > 0 ? rint(x / scale) : 0;
}

static void find_channels(void *user, int64_t begin, int64_t end)
{
    entries_job *j = user;
    for (int64_t i = begin; i < end; i++) {
        int64_t head = i / (2 * DIM), value = i / DIM % 2, c = i % DIM;
        const kn_tensor *t = value ? &j->args->v : &j->args->k;
        double sum = 0, most = 0;
        int64_t at = head * t->stride[1] + c;
        for (int64_t k = 0; k < t->dim[0]; k++) sum += kn_attn_load(t, at + k * t->stride[0]);
        double mean = sum / (double)t->dim[0];
        for (int64_t k = 0; k < t->dim[0]; k++)
            most = fmax(most, fabs(kn_attn_load(t, at + k * t->stride[0]) - mean));
        double *out = j->channel + (head * 4 + 2 * value) * DIM + c;
        out[0] = mean, out[DIM] = most / 127;
    }
}

static void start_query(const entries_job *j, int64_t head, query_state *x)
{
    const kn_attn_args *a = j->args;
    int64_t at = x->token * a->q.stride[0] + head * a->q.stride[1], dim = a->q.dim[2];
    x->top = x->peak = -INFINITY, x->sum = 0, x->shift = 0, x->unit = a->scale;
    for (int64_t c = 0; c < a->v.dim[2]; c++) x->acc[c] = 0;
    if (!a->int8) return;
    const double *mean = j->channel + head * 4 * DIM, *scale = mean + DIM;
    double most = 0;
    for (int64_t c = 0; c < dim; c++) {
        double q = kn_attn_load(&a->q, at + c);
        x->shift += q * mean[c] * a->scale;
        x->q[c] = q * scale[c];
        most = fmax(most, fabs(x->q[c]));
    }
    for (int64_t c = 0; c < dim; c++) x->q[c] = rounded(x->q[c], most / 127);
    x->unit = most / 127 * a->scale;
}

static double score(const entries_job *j, int64_t head, const query_state *x, int64_t key)
{
    const kn_attn_args *a = j->args;
    int64_t k = key * a->k.stride[0] + head * a->k.stride[1];
    if (!a->int8)
        return x->unit * kn_attn_dot(&a->q, x->token * a->q.stride[0] + head * a->q.stride[1], &a->k, k,
                                     a->q.dim[2]);
    const double *mean = j->channel + head * 4 * DIM, *scale = mean + DIM;
    double sum = 0;
    for (int c = 0; c < DIM; c++)
        sum += x->q[c] * rounded(kn_attn_load(&a->k, k + c) - mean[c], scale[c]);
    return x->unit * sum;
}

/* ---- one half block ---------------------------------------------------------------------------*/

static void score_entry(const entries_job *j, const half_block *b, kn_attn_entry e, query_state *x)
{
    const kn_attn_plan *p = j->plan;
    int count = (int)(e.info & 255), rule = (int)(e.info >> 8) - 1;
    x->high = -INFINITY;
    for (int i = 0; i < count; i++) {
        int64_t key = token_of(j, p ? p->perm_k : NULL, b->head, e.key + i);
        bool sees = rule < 0 || kn_attn_rule_sees(p, rule, p->pos + 3 * x->token, p->pos + 3 * key);
        x->s[i] = sees ? score(j, b->head, x, key) : -INFINITY;
        x->high = fmax(x->high, x->s[i]);
    }
}

/* Every weight below the threshold's share of the largest before? */
static bool little(const query_state *x, double threshold)
{
    return x->high == -INFINITY || x->high - x->peak < log(threshold);
}

static void add_entry(const entries_job *j, const half_block *b, kn_attn_entry e, query_state *x)
{
    const kn_attn_args *a = j->args;
    if (x->high == -INFINITY) return;
    int64_t dv = a->v.dim[2];
    if (x->high > x->top) {
        double keep = exp(x->top - x->high);
        x->sum *= keep, x->top = x->high;
        for (int64_t c = 0; c < dv; c++) x->acc[c] *= keep;
    }
    const double *mean = j->channel ? j->channel + (b->head * 4 + 2) * DIM : NULL;
    double unit = a->int8 ? exp(x->high - x->top) / 255 : 1;
    for (int i = 0; i < (int)(e.info & 255); i++) {
        double w = a->int8 ? rint(255 * exp(x->s[i] - x->high)) * unit : exp(x->s[i] - x->top);
        if (w == 0) continue;
        int64_t key = token_of(j, j->plan ? j->plan->perm_k : NULL, b->head, e.key + i);
        int64_t v = key * a->v.stride[0] + b->head * a->v.stride[1];
        x->sum += w;
        for (int64_t c = 0; c < dv; c++) {
            double y = kn_attn_load(&a->v, v + c);
            if (a->int8) y = rounded(y - mean[c], mean[DIM + c]) * mean[DIM + c];
            x->acc[c] += w * y;
        }
    }
}

static void save_query(const entries_job *j, int64_t head, const query_state *x)
{
    const kn_attn_args *a = j->args;
    int64_t o = x->token * a->out.stride[0] + head * a->out.stride[1];
    const double *mean = j->channel ? j->channel + (head * 4 + 2) * DIM : NULL;
    for (int64_t c = 0; c < a->v.dim[2]; c++)
        kn_attn_save(&a->out, o + c,
                     x->sum == 0 ? 0 : x->acc[c] / x->sum + (mean ? mean[c] : 0));
    if (a->lse.rank)
        kn_attn_save(&a->lse, head * a->lse.stride[0] + x->token * a->lse.stride[1],
                     x->sum == 0 ? -INFINITY : x->top + log(x->sum) + x->shift);
}

static void run_halves(void *user, int64_t begin, int64_t end)
{
    entries_job *j = user;
    int64_t dv = j->args->v.dim[2];
    query_state *x = calloc(HALF, sizeof *x);
    double *acc = calloc((size_t)(HALF * dv), sizeof *acc), skip = j->args->skip_below;
    if (!x || !acc) atomic_store(&j->failed, true);
    for (int64_t i = begin; x && acc && i < end; i++) {
        half_block b = find_half(j, i);
        int64_t n = b.end - b.begin;
        for (int64_t q = 0; q < n; q++) {
            x[q].token = token_of(j, j->plan ? j->plan->perm_q : NULL, b.head, b.begin + q);
            x[q].acc = acc + q * dv;
            start_query(j, b.head, &x[q]);
        }
        for (int64_t k = 0; n > 0 && k < b.total; k++) {
            kn_attn_entry e = entry_at(j, &b, k);
            bool leave = k > 0 && skip > 0;
            for (int64_t q = 0; q < n; q++) {
                score_entry(j, &b, e, &x[q]);
                leave = leave && little(&x[q], skip);
            }
            for (int64_t q = 0; q < n; q++) {
                x[q].peak = fmax(x[q].peak, x[q].high);
                if (!leave) add_entry(j, &b, e, &x[q]);
            }
        }
        for (int64_t q = 0; q < n; q++) save_query(j, b.head, &x[q]);
    }
    free(x);
    free(acc);
}

kn_status kn_attn_run_entries_ref(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                                  kn_arena *scratch)
{
    (void)scratch;
    kn_attn_host_lists lists = {0};
    int64_t heads = args->q.dim[1];
    entries_job job = {args, plan, &lists, (args->q.dim[0] + KEYS - 1) / KEYS, NULL, false};
    if (plan) {
        KN_TRY(kn_attn_host_lists_build(plan, (int)heads, args->int8 ? KN_ATTN_INT8_ALIGN : 1, &lists));
        job.q_blocks = lists.view.q_blocks;
    }
    kn_status st = KN_OK;
    if (args->int8) st = kn_alloc_array((size_t)(heads * 4 * DIM), sizeof(double), (void **)&job.channel);
    if (st == KN_OK && args->int8) kn_parallel_for(d, heads * 2 * DIM, 16, find_channels, &job);
    if (st == KN_OK) kn_parallel_for(d, heads * job.q_blocks * 2, 1, run_halves, &job);
    kn_free(job.channel);
    if (plan) kn_attn_host_lists_free(&lists);
    if (st == KN_OK && atomic_load(&job.failed)) return kn_fail(KN_ERR_NOMEM, "attention: out of memory for the queries of a block");
    return st;
}
