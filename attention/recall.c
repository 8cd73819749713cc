#include "attention/recall.h"

#include <math.h>
#include <string.h>

#include "attention/executors.h"
#include "io/memory.h"

typedef struct recall_job {
    const kn_tensor *q, *k;
    const uint8_t *visible; /* [samples][N][L], NULL: everything */
    double *kept;           /* [samples][N] */
    double scale;
    int samples;
} recall_job;

static int64_t sample_at(int64_t i, int samples, int64_t tokens)
{
    return (2 * i + 1) * tokens / (2 * samples);
}

/* Two running sums under one running maximum: all keys, and the visible ones. */
static double kept_weight(const recall_job *job, int64_t query, int64_t head, const uint8_t *visible)
{
    const kn_tensor *q = job->q, *k = job->k;
    int64_t q0 = query * q->stride[0] + head * q->stride[1];
    double top = -INFINITY, all = 0, seen = 0;
    for (int64_t j = 0; j < k->dim[0]; j++) {
        double s = job->scale *
                   kn_attn_dot(q, q0, k, j * k->stride[0] + head * k->stride[1], k->dim[2]);
        if (s > top) {
            all *= exp(top - s);
            seen *= exp(top - s);
            top = s;
        }
        double w = exp(s - top);
        all += w;
        if (visible[j]) seen += w;
    }
    return seen / all;
}

static void run_rows(void *user, int64_t begin, int64_t end)
{
    const recall_job *job = user;
    int64_t heads = job->q->dim[1], tokens = job->q->dim[0];
    for (int64_t i = begin; i < end; i++)
        job->kept[i] = kept_weight(job, sample_at(i / heads, job->samples, tokens), i % heads,
                                   job->visible + i * tokens);
}

static kn_status check(const kn_attn_plan *plan, const kn_tensor *q, const kn_tensor *k,
                       int samples)
{
    char a[KN_SHAPE_TEXT], b[KN_SHAPE_TEXT];
    if (q->rank != 3 || !kn_tensor_same_shape(q, k) || q->dim[0] != plan->tokens ||
        (plan->heads > 1 && plan->heads != q->dim[1]) || q->stride[2] != 1 || k->stride[2] != 1)
        return kn_fail(KN_ERR_ARG, "recall: q is %s and k is %s, the plan is for %lld tokens",
                       kn_tensor_text(q, a), kn_tensor_text(k, b), (long long)plan->tokens);
    if (samples < 1) return kn_fail(KN_ERR_ARG, "recall: %d sampled queries", samples);
    return KN_OK;
}

kn_status kn_attn_plan_recall(kn_dev *d, const kn_attn_plan *plan, const kn_tensor *q,
                              const kn_tensor *k, double scale, int samples, double *recall)
{
    KN_TRY(check(plan, q, k, samples));
    int64_t tokens = plan->tokens, heads = q->dim[1];
    if (samples > tokens) samples = (int)tokens;
    uint8_t *visible = NULL;
    double *kept = NULL;
    int64_t rows = samples * heads;
    kn_status st;
    KN_TRY_GOTO(kn_alloc_array((size_t)rows, (size_t)tokens, (void **)&visible));
    KN_TRY_GOTO(kn_alloc_array((size_t)rows, sizeof *kept, (void **)&kept));
    bool same = plan->heads == 1 && plan->perm_heads <= 1;
    for (int64_t i = 0; i < rows; i++) {
        if (same && i % heads > 0)
            memcpy(visible + i * tokens, visible + (i - 1) * tokens, (size_t)tokens);
        else
            KN_TRY_GOTO(kn_attn_plan_row(plan, (int)(i % heads),
                                         sample_at(i / heads, samples, tokens),
                                         visible + i * tokens));
    }
    recall_job job = {q, k, visible, kept, plan->scale != 0 ? plan->scale : scale, samples};
    kn_parallel_for(d, rows, 1, run_rows, &job);
    memset(recall, 0, (size_t)heads * sizeof *recall);
    for (int64_t i = 0; i < rows; i++) recall[i % heads] += kept[i] / samples;
done:
    kn_free(visible);
    kn_free(kept);
    return st;
}
