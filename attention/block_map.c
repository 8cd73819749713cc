#include "attention/block_map.h"

#include <math.h>
#include <string.h>

#include "attention/executors.h"
#include "io/memory.h"

typedef struct map_job {
    kn_block_map *means;
    const kn_attn_plan *plan;
    int head;
    const kn_tensor *q, *k;
    double scale;
} map_job;

kn_status kn_block_map_open(int64_t blocks, int64_t dim, kn_block_map *out)
{
    kn_status st;
    size_t b = (size_t)blocks;
    *out = (kn_block_map){.blocks = blocks, .dim = dim};
    KN_TRY_GOTO(kn_alloc_array(b * (size_t)dim, sizeof(double), (void **)&out->mean_q));
    KN_TRY_GOTO(kn_alloc_array(b * (size_t)dim, sizeof(double), (void **)&out->mean_k));
    KN_TRY_GOTO(kn_alloc_array(b * b, sizeof(float), (void **)&out->map));
done:
    if (st != KN_OK) kn_block_map_close(out);
    return st;
}

void kn_block_map_close(kn_block_map *means)
{
    kn_free(means->mean_q);
    kn_free(means->mean_k);
    kn_free(means->map);
    *means = (kn_block_map){0};
}

kn_status kn_block_map_check(kn_dev *d, const kn_attn_plan *plan, int heads, int dim,
                             const kn_tensor *q, const kn_tensor *k)
{
    char a[KN_SHAPE_TEXT], b[KN_SHAPE_TEXT];
    if (kn_dev_get_kind(d) == KN_DEV_MEASURE)
        return kn_fail(KN_ERR_UNSUPPORTED, "attention planner: wants data, not a %s device",
                       kn_dev_kind_name(kn_dev_get_kind(d)));
    if (q->rank != 3 || !kn_tensor_same_shape(q, k) || q->dim[0] != plan->tokens ||
        q->dim[1] != heads || q->dim[2] != dim || q->stride[2] != 1 || k->stride[2] != 1)
        return kn_fail(KN_ERR_ARG, "attention planner: q is %s and k is %s, want [%lld, %d, %d]",
                       kn_tensor_text(q, a), kn_tensor_text(k, b), (long long)plan->tokens, heads,
                       dim);
    return KN_OK;
}

static void mean_rows(const map_job *job, const kn_tensor *t, const int32_t *perm, int64_t block,
                      double *mean)
{
    const int32_t *start = job->plan->q_start;
    int64_t dim = job->means->dim, count = start[block + 1] - start[block];
    memset(mean, 0, (size_t)dim * sizeof *mean);
    for (int64_t i = start[block]; i < start[block + 1]; i++) {
        int64_t at = (perm ? perm[i] : i) * t->stride[0] + job->head * t->stride[1];
        for (int64_t c = 0; c < dim; c++) mean[c] += kn_attn_load(t, at + c);
    }
    for (int64_t c = 0; c < dim; c++) mean[c] /= (double)count;
}

static void fill_means(void *user, int64_t begin, int64_t end)
{
    const map_job *job = user;
    const kn_attn_plan *p = job->plan;
    int64_t order = p->perm_heads > 1 ? job->head * p->tokens : 0, dim = job->means->dim;
    for (int64_t b = begin; b < end; b++) {
        mean_rows(job, job->q, p->perm_q ? p->perm_q + order : NULL, b,
                  job->means->mean_q + b * dim);
        mean_rows(job, job->k, p->perm_k ? p->perm_k + order : NULL, b,
                  job->means->mean_k + b * dim);
    }
}

/* The logits are recomputed instead of kept in double; a row of the map is rounded once. */
static double logit(const map_job *job, int64_t i, int64_t j)
{
    const double *q = job->means->mean_q + i * job->means->dim,
                 *k = job->means->mean_k + j * job->means->dim;
    double sum = 0;
    for (int64_t c = 0; c < job->means->dim; c++) sum += q[c] * k[c];
    return sum * job->scale;
}

static void fill_map(void *user, int64_t begin, int64_t end)
{
    const map_job *job = user;
    int64_t n = job->means->blocks;
    for (int64_t i = begin; i < end; i++) {
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < n; j++) {
            double s = logit(job, i, j);
            if (s > top) {
                sum *= exp(top - s);
                top = s;
            }
            sum += exp(s - top);
        }
        for (int64_t j = 0; j < n; j++)
            job->means->map[i * n + j] = (float)(exp(logit(job, i, j) - top) / sum);
    }
}

void kn_block_map_fill(kn_dev *d, kn_block_map *means, const kn_attn_plan *plan, int head,
                       const kn_tensor *q, const kn_tensor *k, double scale)
{
    map_job job = {means, plan, head, q, k, scale};
    kn_parallel_for(d, means->blocks, 4, fill_means, &job);
    kn_parallel_for(d, means->blocks, 4, fill_map, &job);
}
