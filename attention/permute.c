/* Per-head token orders and cumulative selection of blocks. */
#include "attention/permute.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/block_map.h"
#include "attention/executors.h"
#include "attention/held.h"
#include "attention/select_cuda.h"
#include "io/memory.h"

const int kn_axis_orders[KN_AXIS_ORDERS][3] = {{0, 1, 2}, {0, 2, 1}, {1, 2, 0},
                                               {1, 0, 2}, {2, 1, 0}, {2, 0, 1}};

/* Something to sort in descending order of weight, ties in ascending order of index. */
typedef struct ranked {
    double weight;
    int32_t index;
} ranked;

struct kn_permute {
    kn_permute_params params;
    kn_attn_plan *plan;
    int64_t video;  /* tokens on the grid */
    int64_t blocks; /* of the video */
    int32_t *stored;   /* [video] slot in the tensors by raster index */
    uint8_t *axes;     /* [heads] */
    /* Taken at the first plan on the host. */
    kn_block_map means;
    double *weights;   /* [samples][video], then summed into its first row */
    ranked *rank;      /* [video] */
    uint8_t *keep;     /* [blocks] */
    int32_t *block_of; /* [video] block of each stored key in this head's order */
    kn_select *select; /* taken at the first plan on a CUDA device */
};

static int by_weight(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

void kn_permute_close(kn_permute **permute)
{
    kn_permute *x = *permute;
    *permute = NULL;
    if (!x) return;
    kn_attn_plan_free(&x->plan);
    kn_block_map_close(&x->means);
    kn_free(x->stored);
    kn_free(x->axes);
    kn_free(x->weights);
    kn_free(x->rank);
    kn_free(x->keep);
    kn_free(x->block_of);
    kn_select_close(&x->select);
    kn_free(x);
}

static kn_status check_params(const kn_permute_params *p, int64_t video)
{
    if (p->heads < 1 || p->dim < 1 || p->block < 1 || p->segment < 0 ||
        !(p->threshold >= 0 && p->threshold <= 1) || !(p->density >= 0 && p->density <= 1))
        return kn_fail(KN_ERR_ARG,
                       "permute: %d heads of dim %d, blocks of %d, segments of %d, threshold %g, "
                       "density %g",
                       p->heads, p->dim, p->block, p->segment, p->threshold, p->density);
    if (p->kind == KN_PERMUTE_IMPORTANCE && (p->samples < 1 || p->samples > video))
        return kn_fail(KN_ERR_ARG, "permute: %d sampled queries of %lld", p->samples,
                       (long long)video);
    for (int h = 0; p->kind == KN_PERMUTE_AXES && h < p->heads; h++)
        if (!p->axes || p->axes[h] >= KN_AXIS_ORDERS)
            return kn_fail(KN_ERR_ARG, "permute: head %d has no valid axis order", h);
    return KN_OK;
}

/* slot[r] = where raster token r is stored. */
static kn_status find_slots(const kn_attn_layout *layout, int32_t **slot)
{
    int64_t n = kn_grid_tokens(layout->grid);
    void *order = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_alloc_array((size_t)n, sizeof(int32_t), &order));
    KN_TRY_GOTO(kn_alloc_array((size_t)n, sizeof(int32_t), (void **)slot));
    kn_grid_tile_order(layout->grid, layout->tile, order);
    kn_grid_invert(order, n, *slot);
done:
    kn_free(order);
    return st;
}

/* The stored tokens in one of the six orders. */
static void order_of_axes(const kn_attn_layout *layout, const int32_t *slot, int order,
                          int32_t *perm)
{
    int64_t n = kn_grid_tokens(layout->grid);
    kn_grid_axis_order(layout->grid, kn_axis_orders[order], perm);
    for (int64_t i = 0; i < n; i++) perm[i] = slot[perm[i]];
}

/* Both orders of all heads; they never change. */
static void order_by_axes(kn_permute *x)
{
    for (int h = 0; h < x->params.heads; h++) {
        int64_t order = h * x->plan->tokens;
        order_of_axes(&x->params.layout, x->stored, x->axes[h], x->plan->perm_q + order);
        memcpy(x->plan->perm_k + order, x->plan->perm_q + order,
               (size_t)x->video * sizeof(int32_t));
    }
}

kn_status kn_permute_open(const kn_permute_params *params, kn_permute **out)
{
    *out = NULL;
    kn_attn_layout layout = params->layout;
    KN_TRY(kn_attn_layout_check(&layout));
    int64_t video = kn_grid_tokens(layout.grid);
    KN_TRY(check_params(params, video));
    bool axes = params->kind == KN_PERMUTE_AXES;
    /* In an order of axes a block is any `block` tokens in a row; else it lies within a tile. */
    kn_attn_plan_params open = {.layout = layout,
                                .query_tile = axes ? layout.grid : NULL,
                                .block = params->block,
                                .heads = params->heads,
                                .perm_heads = params->heads,
                                .scale = params->scale};
    kn_permute *x = NULL;
    kn_status st;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *x, (void **)&x));
    x->params = *params;
    x->params.layout = layout;
    x->params.axes = NULL;
    x->video = video;
    KN_TRY_GOTO(kn_attn_plan_open(&open, &x->plan));
    x->blocks = kn_attn_plan_text_block(x->plan);
    if (axes) {
        KN_TRY_GOTO(find_slots(&layout, &x->stored));
        KN_TRY_GOTO(kn_alloc((size_t)params->heads, (void **)&x->axes));
        memcpy(x->axes, params->axes, (size_t)params->heads);
        order_by_axes(x);
    }
    *out = x;
    x = NULL;
done:
    kn_permute_close(&x);
    return st;
}

/* ---- orders -----------------------------------------------------------------------------------*/

/* Softmax over n keys of one query, in double; key j is row j of k (or perm[j]). */
static void softmax_row(const kn_tensor *q, const kn_tensor *k, int head, int64_t query,
                        const int32_t *perm, int64_t n, double scale, double *out)
{
    int64_t dim = q->dim[2], q0 = query * q->stride[0] + head * q->stride[1];
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < n; j++) {
        int64_t k0 = (perm ? perm[j] : j) * k->stride[0] + head * k->stride[1];
        out[j] = kn_attn_dot(q, q0, k, k0, dim) * scale;
        if (out[j] > top) top = out[j];
    }
    for (int64_t j = 0; j < n; j++) sum += out[j] = exp(out[j] - top);
    for (int64_t j = 0; j < n; j++) out[j] /= sum;
}

typedef struct sample_job {
    kn_permute *x;
    int head;
    const kn_tensor *q, *k;
} sample_job;

static void sample_rows(void *user, int64_t begin, int64_t end)
{
    const sample_job *job = user;
    kn_permute *x = job->x;
    for (int64_t i = begin; i < end; i++) {
        /* The middle of each of `samples` equal parts of the stored order, which is spread over the
         * grid as tiles are. */
        int64_t query = (2 * i + 1) * x->video / (2 * x->params.samples);
        softmax_row(job->q, job->k, job->head, query, NULL, x->video, x->params.scale,
                    x->weights + i * x->video);
    }
}

/* perm_k of one head: each segment's keys by falling weight. */
static void order_by_importance(kn_dev *d, kn_permute *x, int head, const kn_tensor *q,
                                const kn_tensor *k)
{
    sample_job job = {x, head, q, k};
    kn_parallel_for(d, x->params.samples, 1, sample_rows, &job);
    for (int64_t i = 1; i < x->params.samples; i++)
        for (int64_t j = 0; j < x->video; j++) x->weights[j] += x->weights[i * x->video + j];
    int32_t *perm = x->plan->perm_k + head * x->plan->tokens;
    int64_t blocks = x->blocks, step = x->params.segment ? x->params.segment : blocks;
    for (int64_t b = 0; b < blocks; b += step) {
        int64_t first = x->plan->q_start[b],
                last = x->plan->q_start[b + step < blocks ? b + step : blocks];
        for (int64_t j = first; j < last; j++) x->rank[j] = (ranked){x->weights[j], (int32_t)j};
        qsort(x->rank + first, (size_t)(last - first), sizeof *x->rank, by_weight);
        for (int64_t j = first; j < last; j++) perm[j] = x->rank[j].index;
    }
}

/* ---- selection --------------------------------------------------------------------------------*/

static int64_t budget_of(const kn_permute *x)
{
    int64_t n = (int64_t)(x->params.density * (double)x->blocks + 0.5);
    return x->params.density == 0 ? 0 : n < 1 ? 1 : n;
}

/* Largest blocks of row b until their weights reach the threshold, and those of its own tokens; or
 * as many as the budget, its own tokens' first. */
static void select_blocks(kn_permute *x, int head, int64_t b)
{
    int64_t n = x->blocks, order = head * x->plan->tokens, budget = budget_of(x);
    double sum = 0;
    memset(x->keep, 0, (size_t)n);
    for (int64_t i = x->plan->q_start[b]; i < x->plan->q_start[b + 1]; i++)
        x->keep[x->block_of[x->plan->perm_q[order + i]]] = 1;
    for (int64_t j = 0; j < n; j++) {
        double weight = budget && x->keep[j] ? 2.0 : x->means.map[b * n + j];
        x->rank[j] = (ranked){weight, (int32_t)j};
    }
    qsort(x->rank, (size_t)n, sizeof *x->rank, by_weight);
    if (budget) memset(x->keep, 0, (size_t)n);
    for (int64_t j = 0; j < n; j++) {
        x->keep[x->rank[j].index] = 1;
        sum += budget ? 1.0 : x->rank[j].weight;
        if (sum >= (budget ? (double)budget : x->params.threshold)) break;
    }
}

static kn_status fill_row(kn_permute *x)
{
    kn_attn_plan *p = x->plan;
    const int32_t *start = p->q_start;
    for (int64_t j = 0; j < x->blocks; j++)
        if (x->keep[j]) KN_TRY(kn_attn_plan_add(p, start[j], start[j + 1] - start[j], -1));
    return kn_attn_plan_end_video_row(p);
}

static kn_status fill_head(kn_permute *x, int head)
{
    kn_attn_plan *p = x->plan;
    const int32_t *start = p->q_start, *perm_k = p->perm_k + head * p->tokens;
    for (int64_t b = 0; b < x->blocks; b++)
        for (int64_t i = start[b]; i < start[b + 1]; i++) x->block_of[perm_k[i]] = (int32_t)b;
    for (int64_t b = 0; b < x->blocks; b++) {
        select_blocks(x, head, b);
        KN_TRY(fill_row(x));
    }
    return kn_attn_plan_add_text_rows(p);
}

static kn_status open_host(kn_permute *x)
{
    size_t video = (size_t)x->video;
    if (x->keep) return KN_OK;
    if (!x->means.map) KN_TRY(kn_block_map_open(x->blocks, x->params.dim, &x->means));
    if (!x->rank) KN_TRY(kn_alloc_array(video, sizeof *x->rank, (void **)&x->rank));
    if (!x->block_of) KN_TRY(kn_alloc_array(video, sizeof *x->block_of, (void **)&x->block_of));
    if (!x->axes && !x->weights)
        KN_TRY(kn_alloc_array((size_t)x->params.samples * video, sizeof *x->weights,
                              (void **)&x->weights));
    return kn_alloc((size_t)x->blocks, (void **)&x->keep);
}

static kn_status plan_on_host(kn_dev *d, kn_permute *x, const kn_tensor *q, const kn_tensor *k)
{
    KN_TRY(open_host(x));
    kn_attn_plan_restart(x->plan);
    for (int h = 0; h < x->params.heads; h++) {
        if (!x->axes) order_by_importance(d, x, h, q, k);
        kn_block_map_fill(d, &x->means, x->plan, h, q, k, x->params.scale);
        KN_TRY(fill_head(x, h));
    }
    x->plan->lists = NULL;
    x->plan->density = kn_attn_plan_listed(x->plan);
    return KN_OK;
}

static kn_status fill_fetched(kn_permute *x, const uint32_t *keep, int64_t words)
{
    KN_TRY(open_host(x));
    for (int h = 0; h < x->params.heads; h++) {
        for (int64_t b = 0; b < x->blocks; b++, keep += words) {
            for (int64_t j = 0; j < x->blocks; j++) x->keep[j] = keep[j / 32] >> (j % 32) & 1;
            KN_TRY(fill_row(x));
        }
        KN_TRY(kn_attn_plan_add_text_rows(x->plan));
    }
    return KN_OK;
}

/* Rows and orders of a plan that was made on the device. */
static kn_status fetch_rows(void *planner)
{
    kn_permute *x = planner;
    void *keep = NULL;
    int64_t words = (x->blocks + 31) / 32;
    kn_status st;
    KN_TRY_GOTO(kn_alloc_array((size_t)(x->params.heads * x->blocks * words), sizeof(uint32_t),
                               &keep));
    KN_TRY_GOTO(kn_select_fetch(x->select, keep, x->plan->perm_k));
    KN_TRY_GOTO(fill_fetched(x, keep, words));
done:
    kn_free(keep);
    return st;
}

static kn_select_params select_params(const kn_permute *x)
{
    return (kn_select_params){.blocks = x->blocks,
                              .start = x->plan->q_start,
                              .tokens = x->plan->tokens,
                              .q_blocks = x->plan->q_blocks,
                              .q_start = x->plan->q_start,
                              .heads = x->params.heads,
                              .dim = x->params.dim,
                              .scale = x->params.scale,
                              .perm = x->axes ? x->plan->perm_q : NULL,
                              .samples = x->axes ? 0 : x->params.samples,
                              .segment = x->params.segment};
}

size_t kn_permute_held_bytes(const kn_permute *permute)
{
    kn_select_params p = select_params(permute);
    return kn_select_held_bytes(&p, permute->video);
}

size_t kn_permute_ordered_bytes(const kn_permute *permute)
{
    const kn_permute_params *p = &permute->params;
    return (size_t)permute->plan->tokens * (size_t)p->heads * (size_t)p->dim * 4;
}

static kn_status plan_on_cuda(kn_dev *d, kn_permute *x, const kn_tensor *q, const kn_tensor *k)
{
    if (!x->select) {
        kn_select_params open = select_params(x);
        KN_TRY(kn_select_open(d, &open, &x->select));
    }
    kn_attn_plan_restart(x->plan);
    KN_TRY(kn_select_run_rows(x->select, x->params.threshold, budget_of(x), q, k));
    x->plan->lists = kn_select_lists(x->select);
    x->plan->fetch = fetch_rows;
    x->plan->planner = x;
    x->plan->density = kn_select_density(x->select);
    return KN_OK;
}

kn_status kn_permute_plan(kn_dev *d, kn_permute *permute, const kn_tensor *q, const kn_tensor *k,
                          const kn_attn_plan **plan)
{
    kn_permute *x = permute;
    *plan = NULL;
    KN_TRY(kn_block_map_check(d, x->plan, x->params.heads, x->params.dim, q, k));
    if (kn_dev_get_kind(d) == KN_DEV_CUDA)
        KN_TRY(plan_on_cuda(d, x, q, k));
    else
        KN_TRY(plan_on_host(d, x, q, k));
    *plan = x->plan;
    return KN_OK;
}

/* ---- choice of axes ---------------------------------------------------------------------------*/

/* What is known of one square block while its rows pass. */
typedef struct square {
    int64_t small;
    double sum, top;
} square;

typedef struct axes_job {
    const kn_axes_params *params;
    const kn_tensor *q, *k;
    int head;
    int64_t video, columns;  /* columns: square blocks in a row of them */
    const int32_t *perm;     /* the order being judged */
    double *weights;         /* [judged rows][video] */
    square *squares;         /* [judged rows][columns] */
    double *sparse, *uneven; /* [judged rows]: sums over the row's squares */
} axes_job;

static void add_weights(const axes_job *job, const double *weights, square *squares)
{
    for (int64_t j = 0; j < job->video; j++) {
        square *s = &squares[j / job->params->block];
        s->small += weights[j] < job->params->epsilon;
        s->sum += weights[j];
        if (weights[j] > s->top) s->top = weights[j];
    }
}

/* Judge rows of square blocks: how many are sparse, and their max / mean summed. */
static void judge_rows(void *user, int64_t begin, int64_t end)
{
    const axes_job *job = user;
    const kn_axes_params *p = job->params;
    int64_t n = job->video;
    for (int64_t i = begin; i < end; i++) {
        int64_t first = i * p->stride * p->block,
                count = n - first < p->block ? n - first : p->block;
        double *weights = job->weights + i * n;
        square *squares = job->squares + i * job->columns;
        memset(squares, 0, (size_t)job->columns * sizeof *squares);
        for (int64_t r = first; r < first + count; r++) {
            softmax_row(job->q, job->k, job->head, job->perm[r], job->perm, n, p->scale, weights);
            add_weights(job, weights, squares);
        }
        job->sparse[i] = job->uneven[i] = 0;
        for (int64_t c = 0; c < job->columns; c++) {
            int64_t width = n - c * p->block < p->block ? n - c * p->block : p->block;
            double cells = (double)(count * width);
            job->sparse[i] += (double)squares[c].small >= p->share * cells;
            job->uneven[i] += squares[c].sum > 0 ? squares[c].top * cells / squares[c].sum : 1.0;
        }
    }
}

static uint8_t best_order(const double sparse[KN_AXIS_ORDERS], const double uneven[KN_AXIS_ORDERS],
                          double squares, double alpha)
{
    double sum_s = 0, sum_u = 0, least = INFINITY;
    uint8_t best = 0;
    for (int o = 0; o < KN_AXIS_ORDERS; o++) {
        sum_s += 1.0 - sparse[o] / squares;
        sum_u += uneven[o] / squares;
    }
    for (int o = 0; o < KN_AXIS_ORDERS; o++) {
        /* Where every order is sparse everywhere, sparsity does not tell them apart. */
        double score = (sum_s > 0 ? alpha * (1.0 - sparse[o] / squares) / sum_s : 0.0) +
                       (1.0 - alpha) * (uneven[o] / squares) / sum_u;
        if (score < least) {
            least = score;
            best = (uint8_t)o;
        }
    }
    return best;
}

static kn_status check_axes(kn_dev *d, const kn_axes_params *p, int64_t video, const kn_tensor *q,
                            const kn_tensor *k)
{
    char a[KN_SHAPE_TEXT], b[KN_SHAPE_TEXT];
    if (kn_dev_get_kind(d) == KN_DEV_MEASURE)
        return kn_fail(KN_ERR_UNSUPPORTED, "axis choice: wants data, not a %s device",
                       kn_dev_kind_name(kn_dev_get_kind(d)));
    if (q->rank != 3 || !kn_tensor_same_shape(q, k) || q->dim[0] != video + p->layout.text ||
        q->stride[2] != 1 || k->stride[2] != 1)
        return kn_fail(
            KN_ERR_ARG, "axis choice: q is %s, k is %s, the grid and text have %lld tokens",
            kn_tensor_text(q, a), kn_tensor_text(k, b), (long long)(video + p->layout.text));
    if (p->block < 1 || p->stride < 1)
        return kn_fail(KN_ERR_ARG, "axis choice: blocks of %d, every %d-th", p->block, p->stride);
    return KN_OK;
}

/* The tensor itself, or, on a CUDA device, a copy in host memory that the caller frees. */
static kn_status to_host(kn_dev *d, const kn_tensor *t, kn_tensor *host, void **copy)
{
    *host = *t;
    if (kn_dev_get_kind(d) != KN_DEV_CUDA) return KN_OK;
    KN_TRY(kn_alloc(kn_tensor_bytes(t), copy));
    *host = kn_tensor_make(*copy, t->dtype, t->rank, t->dim);
    return kn_dev_download(d, t, *copy);
}

kn_status kn_permute_choose_axes(kn_dev *d, const kn_axes_params *params, const kn_tensor *q,
                                 const kn_tensor *k, uint8_t *axes)
{
    kn_axes_params p = *params;
    KN_TRY(kn_attn_layout_check(&p.layout));
    kn_tensor host_q, host_k;
    void *copy_q = NULL, *copy_k = NULL;
    axes_job job = {
        .params = &p, .q = &host_q, .k = &host_k, .video = kn_grid_tokens(p.layout.grid)};
    KN_TRY(check_axes(d, &p, job.video, q, k));
    job.columns = (job.video + p.block - 1) / p.block;
    int64_t judged = (job.columns + p.stride - 1) / p.stride;
    int32_t *slot = NULL;
    void *perm = NULL;
    kn_status st;
    KN_TRY_GOTO(to_host(d, q, &host_q, &copy_q));
    KN_TRY_GOTO(to_host(d, k, &host_k, &copy_k));
    KN_TRY_GOTO(find_slots(&p.layout, &slot));
    KN_TRY_GOTO(kn_alloc_array((size_t)job.video, sizeof(int32_t), &perm));
    KN_TRY_GOTO(
        kn_alloc_array((size_t)judged * (size_t)job.video, sizeof(double), (void **)&job.weights));
    KN_TRY_GOTO(
        kn_alloc_array((size_t)(judged * job.columns), sizeof(square), (void **)&job.squares));
    KN_TRY_GOTO(kn_alloc_array((size_t)judged, sizeof(double), (void **)&job.sparse));
    KN_TRY_GOTO(kn_alloc_array((size_t)judged, sizeof(double), (void **)&job.uneven));
    job.perm = perm;
    for (job.head = 0; job.head < q->dim[1]; job.head++) {
        double sparse[KN_AXIS_ORDERS] = {0}, uneven[KN_AXIS_ORDERS] = {0};
        for (int o = 0; o < KN_AXIS_ORDERS; o++) {
            order_of_axes(&p.layout, slot, o, perm);
            kn_parallel_for(d, judged, 1, judge_rows, &job);
            for (int64_t i = 0; i < judged; i++) {
                sparse[o] += job.sparse[i];
                uneven[o] += job.uneven[i];
            }
        }
        axes[job.head] = best_order(sparse, uneven, (double)(judged * job.columns), p.alpha);
    }
done:
    kn_free(copy_q);
    kn_free(copy_k);
    kn_free(slot);
    kn_free(perm);
    kn_free(job.weights);
    kn_free(job.squares);
    kn_free(job.sparse);
    kn_free(job.uneven);
    return st;
}
