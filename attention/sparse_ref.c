/* The specification of attention: plain loops in double. Each query row is independent. Two passes
 * over the keys, the second recomputes the scores, so that no row of scores is kept.
 */
#include <math.h>

#include "attention/executors.h"

enum { COLUMNS = 512 }; /* output columns accumulated at a time */

typedef struct ref_job {
    const kn_attn_args *args;
    const kn_attn_plan *plan; /* NULL: dense */
} ref_job;

/* The keys that one query row looks at. */
typedef struct ref_row {
    int64_t head, query; /* query: index in the tensors */
    const kn_attn_run *runs;
    int64_t run_count;
    const int32_t *perm_k;
} ref_row;

static double score(const kn_attn_args *a, const ref_row *row, int64_t key)
{
    int64_t q0 = row->query * a->q.stride[0] + row->head * a->q.stride[1];
    int64_t k0 = key * a->k.stride[0] + row->head * a->k.stride[1];
    double sum = 0;
    for (int64_t i = 0; i < a->q.dim[2]; i++)
        sum += kn_attn_load(&a->q, q0 + i) * kn_attn_load(&a->k, k0 + i);
    sum *= a->scale;
    if (a->bias.rank)
        sum += kn_attn_load(&a->bias, row->head * a->bias.stride[0] +
                                          row->query * a->bias.stride[1] + key * a->bias.stride[2]);
    return sum;
}

/* Next visible key at or after (*run, *i); -1 at the end. Key indices of the tensors. */
static int64_t next_key(const kn_attn_plan *p, const ref_row *row, int64_t *run, int64_t *i)
{
    for (; *run < row->run_count; ++*run, *i = 0) {
        const kn_attn_run *r = &row->runs[*run];
        while (*i < r->count) {
            int64_t key = r->key + (*i)++;
            if (row->perm_k) key = row->perm_k[key];
            if (r->rule < 0 ||
                kn_attn_rule_sees(p, r->rule, p->pos + 3 * row->query, p->pos + 3 * key))
                return key;
        }
    }
    return -1;
}

static void run_row(const ref_job *job, const ref_row *row)
{
    const kn_attn_args *a = job->args;
    double top = -INFINITY, sum = 0;
    int64_t run = 0, i = 0, key;
    while ((key = next_key(job->plan, row, &run, &i)) >= 0) {
        double s = score(a, row, key);
        if (isnan(s)) top = sum = s;
        if (s > top) {
            sum *= exp(top - s);
            top = s;
        }
        if (s > -INFINITY) sum += exp(s - top);
    }
    double acc[COLUMNS];
    for (int64_t first = 0, dv = a->v.dim[2]; first < dv; first += COLUMNS) {
        int64_t count = dv - first < COLUMNS ? dv - first : COLUMNS;
        for (int64_t c = 0; c < count; c++) acc[c] = 0;
        run = i = 0;
        while ((key = next_key(job->plan, row, &run, &i)) >= 0) {
            double s = score(a, row, key);
            if (s == -INFINITY) continue;
            double p = exp(s - top) / sum;
            int64_t v0 = key * a->v.stride[0] + row->head * a->v.stride[1] + first;
            for (int64_t c = 0; c < count; c++) acc[c] += p * kn_attn_load(&a->v, v0 + c);
        }
        int64_t o0 = row->query * a->out.stride[0] + row->head * a->out.stride[1] + first;
        for (int64_t c = 0; c < count; c++) kn_attn_save(&a->out, o0 + c, acc[c]);
    }
    if (a->lse.rank)
        kn_attn_save(&a->lse, row->head * a->lse.stride[0] + row->query * a->lse.stride[1],
             sum == 0 ? -INFINITY : top + log(sum));
}

static void run_dense_rows(void *user, int64_t begin, int64_t end)
{
    const ref_job *job = user;
    int64_t lq = job->args->q.dim[0];
    kn_attn_run all = {0, (int32_t)job->args->k.dim[0], -1};
    for (int64_t i = begin; i < end; i++) {
        ref_row row = {.head = i / lq, .query = i % lq, .runs = &all, .run_count = 1};
        run_row(job, &row);
    }
}

static void run_plan_blocks(void *user, int64_t begin, int64_t end)
{
    const ref_job *job = user;
    const kn_attn_plan *p = job->plan;
    for (int64_t i = begin; i < end; i++) {
        int64_t head = i / p->q_blocks, block = i % p->q_blocks;
        int64_t list = (p->heads > 1 ? head : 0) * p->q_blocks + block;
        int64_t perm = (p->perm_heads > 1 ? head : 0) * p->tokens;
        ref_row row = {.head = head,
                       .runs = p->runs + p->row_ptr[list],
                       .run_count = p->row_ptr[list + 1] - p->row_ptr[list],
                       .perm_k = p->perm_k ? p->perm_k + perm : NULL};
        for (int64_t q = p->q_start[block]; q < p->q_start[block + 1]; q++) {
            row.query = p->perm_q ? p->perm_q[perm + q] : q;
            run_row(job, &row);
        }
    }
}

kn_status kn_attn_run_ref(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                          kn_arena *scratch)
{
    if (args->int8 || args->skip_below > 0) return kn_attn_run_entries_ref(d, args, plan, scratch);
    ref_job job = {args, plan};
    int64_t heads = args->q.dim[1];
    if (plan)
        kn_parallel_for(d, heads * plan->q_blocks, 1, run_plan_blocks, &job);
    else
        kn_parallel_for(d, heads * args->q.dim[0], 8, run_dense_rows, &job);
    return KN_OK;
}
