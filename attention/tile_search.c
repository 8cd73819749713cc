/* Measuring and choosing tile windows. */
#include "attention/tile_search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/executors.h"
#include "attention/tile3d.h"
#include "io/memory.h"

/* ---- candidates -------------------------------------------------------------------------------*/

int kn_tile_search_candidates(const kn_attn_layout *layout, int window[KN_TILE_WINDOWS_MAX][3])
{
    int size[3][4], sizes[3], count = 0;
    for (int a = 0; a < 3; a++) {
        int n = kn_grid_tiles_on(layout->grid, layout->tile, a), half = n / 2 | 1;
        const int wanted[4] = {1, 3, half, n};
        sizes[a] = 0;
        for (int i = 0; i < 4; i++)
            if (wanted[i] <= n && (sizes[a] == 0 || wanted[i] > size[a][sizes[a] - 1]))
                size[a][sizes[a]++] = wanted[i];
    }
    for (int t = 0; t < sizes[0]; t++)
        for (int h = 0; h < sizes[1]; h++)
            for (int w = 0; w < sizes[2]; w++) {
                window[count][0] = size[0][t];
                window[count][1] = size[1][h];
                window[count++][2] = size[2][w];
            }
    return count;
}

static kn_status add_candidate(kn_tile_search *s, const kn_attn_layout *layout, int block,
                               const int asked[3])
{
    int cut[1][3];
    for (int a = 0; a < 3; a++) {
        int n = kn_grid_tiles_on(layout->grid, layout->tile, a);
        cut[0][a] = asked[a] > n ? n : asked[a];
        if (asked[a] < 1 || (asked[a] < n && asked[a] % 2 == 0))
            return kn_fail(KN_ERR_ARG,
                           "tile window %d x %d x %d: expected odd numbers of tiles, or all %d of "
                           "an axis",
                           asked[0], asked[1], asked[2], n);
    }
    for (int i = 0; i < s->windows; i++)
        if (memcmp(s->window[i], cut[0], sizeof cut[0]) == 0) return KN_OK;
    if (s->windows == KN_TILE_WINDOWS_MAX)
        return kn_fail(KN_ERR_ARG, "tile windows: expected at most %d candidates, the full one "
                       "included", KN_TILE_WINDOWS_MAX);
    kn_tile3d_params p = {
        .layout = *layout, .block = block, .heads = 1, .window = (const int (*)[3])cut};
    KN_TRY(kn_tile3d_plan(&p, &s->plan[s->windows]));
    memcpy(s->window[s->windows], cut[0], sizeof cut[0]);
    s->density[s->windows] = kn_tile3d_density(layout, cut[0]);
    s->windows++;
    return KN_OK;
}

kn_status kn_tile_search_open(const kn_attn_layout *layout, int block, const int (*window)[3],
                              int windows, kn_tile_search *out)
{
    kn_status st = KN_OK;
    int all[3];
    memset(out, 0, sizeof *out);
    for (int i = 0; i < windows; i++) KN_TRY_GOTO(add_candidate(out, layout, block, window[i]));
    for (int a = 0; a < 3; a++) all[a] = kn_grid_tiles_on(layout->grid, layout->tile, a);
    KN_TRY_GOTO(add_candidate(out, layout, block, all));
    for (int i = 0; i < out->windows; i++)
        if (memcmp(out->window[i], all, sizeof all) == 0) out->full = i;
done:
    if (st != KN_OK) kn_tile_search_close(out);
    return st;
}

void kn_tile_search_close(kn_tile_search *s)
{
    for (int i = 0; i < s->windows; i++) kn_attn_plan_free(&s->plan[i]);
    s->windows = 0;
}

/* ---- measuring --------------------------------------------------------------------------------*/

typedef struct compare_job {
    const kn_tensor *dense, *other; /* host, [L,N,D] */
    double *part;                   /* [pieces][heads][2]: squared difference, dense squared */
} compare_job;

enum { ROWS = 64 /* tokens of a piece */ };

static void compare_rows(void *user, int64_t begin, int64_t end)
{
    const compare_job *job = user;
    const kn_tensor *a = job->dense, *b = job->other;
    for (int64_t piece = begin; piece < end; piece++)
        for (int64_t h = 0; h < a->dim[1]; h++) {
            double off = 0, all = 0;
            int64_t last = (piece + 1) * ROWS < a->dim[0] ? (piece + 1) * ROWS : a->dim[0];
            for (int64_t i = piece * ROWS; i < last; i++)
                for (int64_t d = 0; d < a->dim[2]; d++) {
                    double x = kn_attn_load(a, i * a->stride[0] + h * a->stride[1] + d);
                    double y = kn_attn_load(b, i * b->stride[0] + h * b->stride[1] + d) - x;
                    off += y * y;
                    all += x * x;
                }
            job->part[2 * (piece * a->dim[1] + h)] = off;
            job->part[2 * (piece * a->dim[1] + h) + 1] = all;
        }
}

/* off[h], all[h]: sums over the head, whatever the number of threads. */
static void compare(kn_dev *d, const compare_job *job, double *off, double *all)
{
    int64_t heads = job->dense->dim[1], pieces = (job->dense->dim[0] + ROWS - 1) / ROWS;
    kn_parallel_for(d, pieces, 1, compare_rows, (void *)job);
    for (int64_t h = 0; h < heads; h++) {
        off[h] = all[h] = 0;
        for (int64_t i = 0; i < pieces; i++) {
            off[h] += job->part[2 * (i * heads + h)];
            all[h] += job->part[2 * (i * heads + h) + 1];
        }
    }
}

/* The tensor itself where the host can read it, else a copy in `copy`. */
static kn_status host_view(kn_dev *d, const kn_tensor *t, void *copy, kn_tensor *view)
{
    *view = *t;
    if (!copy) return KN_OK;
    *view = kn_tensor_make(copy, t->dtype, t->rank, t->dim);
    return kn_dev_download(d, t, copy);
}

kn_status kn_tile_search_look(kn_dev *d, const kn_tile_search *s, const kn_attn_args *dense,
                              const kn_tensor *out, double *error, double *own)
{
    int64_t heads = dense->out.dim[1], pieces = (dense->out.dim[0] + ROWS - 1) / ROWS;
    bool far = kn_dev_get_kind(d) == KN_DEV_CUDA;
    kn_tensor host[2];
    void *copy[2] = {NULL, NULL};
    double *part = NULL, *off = NULL;
    compare_job job = {.dense = &host[0], .other = &host[1]};
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_alloc_array((size_t)(pieces * heads), 2 * sizeof *part, (void **)&part));
    KN_TRY_GOTO(kn_alloc_array((size_t)heads, 2 * sizeof *off, (void **)&off));
    for (int i = 0; far && i < 2; i++)
        KN_TRY_GOTO(kn_alloc(kn_tensor_bytes(&dense->out), &copy[i]));
    job.part = part;
    KN_TRY_GOTO(host_view(d, &dense->out, copy[0], &host[0]));
    for (int w = 0; w < s->windows; w++) {
        if (w == s->full) continue; /* nothing is lost */
        kn_attn_args args = *dense;
        args.out = *out;
        args.lse.rank = 0;
        KN_TRY_GOTO(kn_attn_sparse(d, &args, s->plan[w], NULL));
        KN_TRY_GOTO(host_view(d, out, copy[1], &host[1]));
        double *all = off + heads, layer = 0;
        compare(d, &job, off, all);
        for (int64_t h = 0; h < heads; h++) layer += all[h];
        for (int64_t h = 0; h < heads; h++) {
            error[w * heads + h] += layer > 0 ? off[h] / layer : 0;
            own[w * heads + h] += all[h] > 0 ? off[h] / all[h] : 0;
        }
    }
done:
    kn_free(part);
    kn_free(off);
    for (int i = 0; i < 2; i++) kn_free(copy[i]);
    return st;
}

/* ---- choosing ---------------------------------------------------------------------------------*/

/* From one window of a unit to the next on its hull. */
typedef struct move {
    double rate; /* error saved per density */
    double cost; /* weight * density */
    int unit, to, order;
} move;

static int by_rate(const void *a, const void *b)
{
    const move *x = a, *y = b;
    if (x->rate != y->rate) return x->rate < y->rate ? 1 : -1;
    return x->order - y->order; /* moves of one unit stay in order */
}

/* The cheapest window, and among equals the one that loses least. */
static int cheapest(const kn_tile_search *s, const double *error)
{
    int best = 0;
    for (int w = 1; w < s->windows; w++)
        if (s->density[w] < s->density[best] ||
            (s->density[w] == s->density[best] && error[w] < error[best]))
            best = w;
    return best;
}

/* The hull's next corner after `from`: the steepest fall of error; of equal ones the farthest. -1 at
 * its end. */
static int next_corner(const kn_tile_search *s, const double *error, int from, double *rate)
{
    int best = -1;
    *rate = 0;
    for (int w = 0; w < s->windows; w++) {
        if (s->density[w] <= s->density[from] || error[w] >= error[from]) continue;
        double r = (error[from] - error[w]) / (s->density[w] - s->density[from]);
        if (r > *rate || (r == *rate && best >= 0 && s->density[w] > s->density[best])) {
            *rate = r;
            best = w;
        }
    }
    return best;
}

kn_status kn_tile_choose_budget(const kn_tile_search *s, int units, const double *error,
                                const double *weight, double budget, int *choice)
{
    double spent = 0, all = 0;
    int moves = 0;
    move *list;
    KN_TRY(kn_alloc_array((size_t)units * (size_t)s->windows, sizeof *list, (void **)&list));
    for (int u = 0; u < units; u++) {
        const double *e = error + (int64_t)u * s->windows;
        double rate;
        choice[u] = cheapest(s, e);
        spent += weight[u] * s->density[choice[u]];
        all += weight[u];
        for (int at = choice[u], to; (to = next_corner(s, e, at, &rate)) >= 0; at = to, moves++)
            list[moves] = (move){.rate = rate,
                                 .cost = weight[u] * (s->density[to] - s->density[at]),
                                 .unit = u,
                                 .to = to,
                                 .order = moves};
    }
    kn_status st = KN_OK;
    if (spent > budget * all * (1 + 1e-12))
        st = kn_fail(KN_ERR_ARG,
                     "tile windows: a mean density of %g is wanted, the smallest candidates "
                     "have %.4f",
                     budget, spent / all);
    /* errors are sums over steps already, so rates compare across units of different weight by
     * error / (weight density) */
    for (int i = 0; i < moves; i++) list[i].rate /= weight[list[i].unit];
    qsort(list, (size_t)moves, sizeof *list, by_rate);
    for (int i = 0; st == KN_OK && i < moves; i++) {
        int u = list[i].unit;
        if (spent + list[i].cost > budget * all * (1 + 1e-12)) {
            for (int k = i + 1; k < moves; k++) /* what follows it in the unit cannot be had either */
                if (list[k].unit == u) list[k].cost = INFINITY;
            continue;
        }
        spent += list[i].cost;
        choice[u] = list[i].to;
    }
    kn_free(list);
    return st;
}

void kn_tile_choose_bound(const kn_tile_search *s, int units, const double *error, double bound,
                          int *choice)
{
    for (int u = 0; u < units; u++) {
        const double *e = error + (int64_t)u * s->windows;
        int best = s->full;
        for (int w = 0; w < s->windows; w++)
            if (e[w] <= bound && (s->density[w] < s->density[best] ||
                                  (s->density[w] == s->density[best] && e[w] < e[best])))
                best = w;
        choice[u] = best;
    }
}
