#include "pipeline/work.h"

#include "attention/attention.h"
#include "compute/ops.h"
#include "io/memory.h"
#include "pipeline/pass_attention.h"
#include "vae/config.h"

/* ---- counting ---------------------------------------------------------------------------------*/

static double forward_operations(const kn_job *j, const kn_pass *p, double density)
{
    const kn_dit_config *c = &j->dit;
    double L = (double)p->geo.tokens, d = (double)kn_dit_width(c), T = (double)j->o->text_length_tok;
    return c->layers * (12 * L * d * d + 4 * L * L * d * density + 4 * L * T * d + 4 * L * d * (double)c->ffn_dim);
}

static kn_status pass_operations(const kn_job *j, const kn_pass *p, double *operations)
{
    kn_schedule schedule;
    kn_pass_attention attention;
    KN_TRY(kn_pass_schedule(j->o, p, &schedule));
    KN_TRY(kn_pass_attention_build(p, &j->dit, j->session->dev, &attention));
    double density = kn_pass_attention_expected(&attention);
    kn_pass_attention_free(&attention);
    int steps = schedule.steps - schedule.begin, evaluations = p->guidance != 1 ? 2 : 1;
    *operations = steps * evaluations * forward_operations(j, p, density);
    if (p->dual) {
        int dual_steps = p->dual_steps && p->dual_steps < steps ? p->dual_steps : steps;
        int refreshes = (dual_steps + p->refresh - 1) / p->refresh;
        double share = (double)p->dual_layers[1] / j->dit.layers; /* it stops at the last context */
        *operations += refreshes * (p->dual_negative ? evaluations : 1) * share * forward_operations(j, p, 1);
    }
    return KN_OK;
}

static double pixels(const kn_geometry *g) { return (double)(g->width_px * g->height_px * g->frames); }

kn_status kn_work_of(const kn_job *j, double *operations)
{
    char *path;
    kn_vae_config vae;
    KN_TRY(kn_asprintf(&path, "%s/config.json", j->folder.vae));
    kn_status st = kn_vae_config_read(path, &vae);
    kn_free(path);
    KN_TRY(st);
    double per_pixel = 8.5e6 * (double)(vae.decoder_base * vae.decoder_base) / (96.0 * 96.0), sum = 0;
    for (int i = j->o->input ? 1 : 0; i < j->passes; i++) {
        double one;
        KN_TRY(pass_operations(j, &j->pass[i], &one));
        sum += one + per_pixel * pixels(&j->pass[i].geo); /* each result is decoded: for the next pass or the file */
        if (i > 0) sum += 0.5 * per_pixel * pixels(&j->pass[i].geo);
    }
    *operations = sum * (double)j->segments.count;
    return KN_OK;
}

/* ---- timing -----------------------------------------------------------------------------------*/

enum { ROWS = 2048, TIMED = 3, SLOW_SEC = 1 };

typedef struct trial {
    kn_dev *dev;
    kn_arena *arena;
    kn_weight weight;
    kn_tensor x, out;
    kn_attn_args attention;
} trial;

static kn_status open_trial(trial *t, const kn_dit_config *c)
{
    int64_t d = kn_dit_width(c), L = ROWS;
    kn_dtype type = kn_dev_activation_dtype(t->dev);
    float *zeros;
    size_t bytes = (size_t)(L * (5 * d + c->ffn_dim)) * sizeof *zeros + 4096;
    KN_TRY(kn_arena_open(t->dev, bytes, &t->arena));
    KN_TRY(kn_arena_take(t->arena, &t->x, type, L, d));
    KN_TRY(kn_arena_take(t->arena, &t->out, type, L, c->ffn_dim));
    kn_tensor *qkvo[] = {&t->attention.q, &t->attention.k, &t->attention.v, &t->attention.out};
    KN_TRY(kn_alloc_array((size_t)(d * (c->ffn_dim > L ? c->ffn_dim : L)), sizeof *zeros, (void **)&zeros));
    kn_tensor host = kn_tensor_of(zeros, KN_F32, c->ffn_dim, d);
    kn_status st = kn_weight_open(t->dev, KN_WEIGHT_LINEAR, &host, &t->weight);
    if (st == KN_OK) st = kn_dev_upload(t->dev, zeros, &t->x); /* zeros: the same bytes in any dtype */
    for (int i = 0; st == KN_OK && i < 4; i++) {
        st = kn_arena_take(t->arena, qkvo[i], type, L, c->heads, c->head_dim);
        if (st == KN_OK) st = kn_dev_upload(t->dev, zeros, qkvo[i]);
    }
    t->attention.scale = 1;
    kn_free(zeros);
    return st;
}

/* Best of a few: the first one warms up, unless it takes so long that a warm-up is nothing beside it. Where one is slow there are
 * no more, so that `kinora plan` of a wide model does not take a slow machine minutes. */
static kn_status time_trial(trial *t, double *linear_sec, double *attention_sec)
{
    double begin = kn_now_sec();
    *linear_sec = *attention_sec = 1e30;
    for (int i = 0; i <= TIMED; i++) {
        double start = kn_now_sec();
        KN_TRY(kn_linear(t->dev, &t->x, &t->weight, KN_ABSENT, KN_ACT_NONE, &t->out));
        KN_TRY(kn_dev_sync(t->dev));
        double middle = kn_now_sec();
        KN_TRY(kn_attn_dense(t->dev, &t->attention, NULL));
        KN_TRY(kn_dev_sync(t->dev));
        double end = kn_now_sec();
        bool slow = end - begin > SLOW_SEC, counts = i > 0 || slow;
        if (counts && middle - start < *linear_sec) *linear_sec = middle - start;
        if (counts && end - middle < *attention_sec) *attention_sec = end - middle;
        if (slow) break;
    }
    return KN_OK;
}

kn_status kn_work_rate(const kn_job *j, double *operations_per_sec)
{
    trial t = {.dev = j->session->dev};
    double linear, attention, d = (double)kn_dit_width(&j->dit), L = ROWS;
    kn_status st = open_trial(&t, &j->dit);
    if (st == KN_OK) st = time_trial(&t, &linear, &attention);
    /* A block of the base pass has both, in this proportion. */
    double own = (double)j->pass[0].geo.tokens, products = 12 * d * d + 4 * d * (double)j->dit.ffn_dim, scores = 4 * own * d;
    if (st == KN_OK) {
        double sec = products * linear / (2 * L * d * (double)j->dit.ffn_dim) + scores * attention / (4 * L * L * d);
        *operations_per_sec = (products + scores) / sec;
    }
    kn_weight_close(t.dev, &t.weight);
    kn_arena_close(&t.arena);
    return st;
}
