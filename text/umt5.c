/* text/umt5.c - see umt5.h. */
#include "text/umt5.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attention/attention.h"
#include "compute/offload.h"
#include "compute/weights.h"
#include "io/config.h"
#include "io/memory.h"

typedef struct block {
    kn_weight norm_attn, norm_ff; /* [d] */
    kn_weight q, k, v;            /* [N D, d] */
    kn_weight o;                  /* [d, N D] */
    kn_weight bias;               /* [buckets, N] */
    kn_weight wi_0, wi_1;         /* [d_ff, d] */
    kn_weight wo;                 /* [d, d_ff] */
} block;

struct kn_umt5 {
    kn_dev *dev;
    kn_umt5_config config;
    kn_weight table; /* [vocab, d] */
    block *blocks;
    kn_offload *offload; /* of the blocks; NULL: all on the device */
    kn_weight norm_final; /* [d] */
};

/* ---- config -----------------------------------------------------------------------------------*/

enum { MAX_WIDTH = 1 << 17, MAX_LAYERS = 1024, MAX_VOCAB = 1 << 24 };

/* A key that, where present, must say that the network is the one computed here. */
static kn_status require(const kn_node *root, const char *key, const char *only, bool needed)
{
    const kn_node *node = kn_node_find(root, key);
    if (!node && !needed) return KN_OK;
    if (!node)
        return kn_node_fail(KN_ERR_MODEL, root, "key '%s' is missing; \"%s\" is expected", key,
                            only);
    if (node->text && strcmp(node->text, only) == 0) return KN_OK;
    return kn_node_fail(KN_ERR_UNSUPPORTED, node, "Kinora encodes with \"%s\", found \"%s\"", only,
                        node->text ? node->text : "a list or map");
}

kn_status kn_umt5_config_read(const char *path, kn_umt5_config *out)
{
    kn_status st = KN_OK;
    kn_config *file = NULL;
    kn_umt5_config c = {0};
    KN_TRY_GOTO(kn_config_open(path, &file));
    const kn_node *root = kn_config_root(file);
    KN_TRY_GOTO(require(root, "model_type", "umt5", true));
    KN_TRY_GOTO(require(root, "feed_forward_proj", "gated-gelu", true));
    KN_TRY_GOTO(require(root, "dense_act_fn", "gelu_new", false));
    KN_TRY_GOTO(require(root, "is_gated_act", "true", false));
    struct {
        const char *key;
        int low, high, *to;
    } keys[] = {
        {"d_model", 1, MAX_WIDTH, &c.d_model},
        {"d_kv", 1, MAX_WIDTH, &c.d_kv},
        {"d_ff", 1, MAX_WIDTH, &c.d_ff},
        {"num_heads", 1, 4096, &c.num_heads},
        {"num_layers", 1, MAX_LAYERS, &c.num_layers},
        {"vocab_size", 1, MAX_VOCAB, &c.vocab_size},
        {"relative_attention_num_buckets", 4, 1 << 16, &c.relative_attention_num_buckets},
        {"relative_attention_max_distance", 2, 1 << 20, &c.relative_attention_max_distance},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        KN_TRY_GOTO(kn_node_int(root, keys[i].key, keys[i].low, keys[i].high, keys[i].to));
    KN_TRY_GOTO(kn_node_double(root, "layer_norm_epsilon", 0.0, 1.0, &c.layer_norm_epsilon));
    /* half of the buckets are for one direction, and half of those for one distance each */
    if (c.relative_attention_num_buckets % 4 != 0 ||
        c.relative_attention_max_distance <= c.relative_attention_num_buckets / 4) {
        st = kn_node_fail(
            KN_ERR_MODEL, kn_node_find(root, "relative_attention_num_buckets"),
            "%d buckets for distances up to %d: a multiple of 4, and less than 4 times "
            "the distance, is expected",
            c.relative_attention_num_buckets, c.relative_attention_max_distance);
        goto done;
    }
    *out = c;
done:
    kn_config_close(&file);
    return st;
}

int kn_umt5_bucket(const kn_umt5_config *c, int64_t distance)
{
    int side = c->relative_attention_num_buckets / 2; /* buckets of one direction */
    int exact = side / 2;                             /* of those, one distance each */
    int base = distance > 0 ? side : 0;
    int64_t far = distance < 0 ? -distance : distance;
    if (far < exact) return base + (int)far;
    /* log(far / exact) / log(max / exact) in [0, 1) over the other half; modeling_umt5.py
     * _relative_position_bucket, every step in float32 */
    float range = (float)log((double)c->relative_attention_max_distance / exact);
    float place = logf((float)far / (float)exact) / range * (float)(side - exact);
    int64_t bucket = exact + (int64_t)place;
    return base + (int)(bucket < side ? bucket : side - 1);
}

/* ---- weights ----------------------------------------------------------------------------------*/

static kn_status bind_linear(kn_binder *b, kn_weight *w, int64_t rows, int64_t columns, int layer,
                             const char *name)
{
    return kn_bind(b, w, KN_WEIGHT_LINEAR, 2, (int64_t[]){rows, columns},
                   "encoder.block.%d.layer.%s.weight", layer, name);
}

static kn_status bind_block(kn_binder *b, const kn_umt5_config *c, int i, block *w)
{
    int64_t d = c->d_model, inner = (int64_t)c->num_heads * c->d_kv, ff = c->d_ff;
    int64_t table[2] = {c->relative_attention_num_buckets, c->num_heads};
    KN_TRY(kn_bind(b, &w->norm_attn, KN_WEIGHT_VECTOR, 1, &d,
                   "encoder.block.%d.layer.0.layer_norm.weight", i));
    KN_TRY(bind_linear(b, &w->q, inner, d, i, "0.SelfAttention.q"));
    KN_TRY(bind_linear(b, &w->k, inner, d, i, "0.SelfAttention.k"));
    KN_TRY(bind_linear(b, &w->v, inner, d, i, "0.SelfAttention.v"));
    KN_TRY(bind_linear(b, &w->o, d, inner, i, "0.SelfAttention.o"));
    KN_TRY(kn_bind(b, &w->bias, KN_WEIGHT_VECTOR, 2, table,
                   "encoder.block.%d.layer.0.SelfAttention.relative_attention_bias.weight", i));
    KN_TRY(kn_bind(b, &w->norm_ff, KN_WEIGHT_VECTOR, 1, &d,
                   "encoder.block.%d.layer.1.layer_norm.weight", i));
    KN_TRY(bind_linear(b, &w->wi_0, ff, d, i, "1.DenseReluDense.wi_0"));
    KN_TRY(bind_linear(b, &w->wi_1, ff, d, i, "1.DenseReluDense.wi_1"));
    return bind_linear(b, &w->wo, d, ff, i, "1.DenseReluDense.wo");
}

enum { BLOCK_WEIGHTS = 10 };

static void list_block(block *w, kn_weight *list[BLOCK_WEIGHTS])
{
    kn_weight *all[BLOCK_WEIGHTS] = {&w->norm_attn, &w->norm_ff, &w->q,    &w->k,    &w->v,
                                     &w->o,         &w->bias,    &w->wi_0, &w->wi_1, &w->wo};
    memcpy(list, all, sizeof all);
}

static kn_status send_block_away(kn_umt5 *m, int i)
{
    kn_weight *list[BLOCK_WEIGHTS];
    if (!m->offload) return KN_OK;
    list_block(&m->blocks[i], list);
    return kn_offload_add(m->offload, list, BLOCK_WEIGHTS);
}

/* The embedding goes by two names, of which files hold one or, untied, both (with equal
 * content). */
static kn_status bind_table(kn_binder *b, const kn_umt5_config *c, kn_weight *table)
{
    static const char shared[] = "shared.weight", tied[] = "encoder.embed_tokens.weight";
    int unused;
    bool have_shared = kn_safetensors_find(b->file, shared, NULL) != NULL;
    if (kn_safetensors_find(b->file, tied, &unused) && have_shared) b->used[unused] = 1;
    return kn_bind(b, table, KN_WEIGHT_TABLE, 2, (int64_t[]){c->vocab_size, c->d_model}, "%s",
                   have_shared || !kn_safetensors_find(b->file, tied, NULL) ? shared : tied);
}

static kn_status bind_all(kn_safetensors *file, kn_umt5 *m)
{
    const kn_umt5_config *c = &m->config;
    int64_t d = c->d_model;
    kn_status st = KN_OK;
    kn_binder b = {0};
    KN_TRY_GOTO(kn_binder_open(m->dev, file, &b));
    KN_TRY_GOTO(bind_table(&b, c, &m->table));
    if (kn_dev_offloads(m->dev)) KN_TRY_GOTO(kn_offload_open(m->dev, c->num_layers, &m->offload));
    for (int i = 0; i < c->num_layers; i++) {
        KN_TRY_GOTO(bind_block(&b, c, i, &m->blocks[i]));
        KN_TRY_GOTO(send_block_away(m, i));
    }
    if (m->offload) KN_TRY_GOTO(kn_offload_seal(m->offload));
    KN_TRY_GOTO(
        kn_bind(&b, &m->norm_final, KN_WEIGHT_VECTOR, 1, &d, "encoder.final_layer_norm.weight"));
    KN_TRY_GOTO(kn_binder_finish(&b));
done:
    kn_binder_close(&b);
    return st;
}

kn_status kn_umt5_open(kn_dev *d, const char *folder, kn_umt5 **out)
{
    *out = NULL;
    kn_status st = KN_OK;
    kn_umt5 *m = NULL;
    char *config = NULL;
    kn_safetensors *file = NULL;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *m, (void **)&m));
    m->dev = d;
    KN_TRY_GOTO(kn_asprintf(&config, "%s/config.json", folder));
    KN_TRY_GOTO(kn_umt5_config_read(config, &m->config));
    KN_TRY_GOTO(
        kn_alloc_array((size_t)m->config.num_layers, sizeof *m->blocks, (void **)&m->blocks));
    KN_TRY_GOTO(kn_safetensors_open(folder, "model", &file));
    KN_TRY_GOTO(bind_all(file, m));
    *out = m;
    m = NULL;
done:
    kn_safetensors_close(&file);
    kn_free(config);
    kn_umt5_close(&m);
    return st != KN_OK ? KN_CTX(st, "opening the text encoder") : KN_OK;
}

void kn_umt5_close(kn_umt5 **mp)
{
    kn_umt5 *m = mp ? *mp : NULL;
    if (!m) return;
    for (int i = 0; m->blocks && i < m->config.num_layers; i++) {
        kn_weight *all[BLOCK_WEIGHTS];
        list_block(&m->blocks[i], all);
        for (int k = 0; k < BLOCK_WEIGHTS; k++) kn_weight_close(m->dev, all[k]);
    }
    kn_offload_close(&m->offload);
    kn_weight_close(m->dev, &m->table);
    kn_weight_close(m->dev, &m->norm_final);
    kn_free(m->blocks);
    kn_free(m);
    *mp = NULL;
}

const kn_umt5_config *kn_umt5_get_config(const kn_umt5 *m)
{
    return &m->config;
}

/* ---- forward ----------------------------------------------------------------------------------*/

typedef struct forward {
    kn_dev *dev;
    const kn_umt5_config *config;
    const kn_umt5_args *args;
    int64_t T;
    kn_dtype dtype;
    const int32_t *bucket; /* [2T-1]: bucket of distance i - (T-1) */
    kn_tensor x;           /* [T, d] residual stream */
    kn_tensor h;           /* [T, d] */
} forward;

static kn_status tap(const forward *f, const char *name, const kn_tensor *t)
{
    return f->args->tap ? f->args->tap(f->args->tap_user, name, t) : KN_OK;
}

static kn_status tap_block(const forward *f, int i, const char *part)
{
    char name[48];
    snprintf(name, sizeof name, "block.%d.%s", i, part);
    return tap(f, name, &f->x);
}

/* x * rsqrt(mean(x^2) + eps) * weight, into h. transformers UMT5LayerNorm */
static kn_status norm(const forward *f, const kn_weight *weight)
{
    kn_rmsnorm_params p = {.eps = (float)f->config->layer_norm_epsilon};
    return kn_rmsnorm(f->dev, &f->x, &weight->t, &p, &f->h);
}

/* bias[n, i, j] = table[bucket(j - i), n], as a view: row i is the piece that begins at T - 1 - i
 * of one row per head over all distances. */
static kn_status make_bias(const forward *f, const kn_weight *table, kn_tensor *bias)
{
    kn_arena *a = f->args->scratch;
    int64_t T = f->T, N = f->config->num_heads;
    kn_tensor by_distance, by_head;
    KN_TRY(kn_arena_take(a, &by_head, KN_F32, N, 2 * T - 1));
    kn_arena_mark mark = kn_arena_get_mark(a);
    KN_TRY(kn_arena_take(a, &by_distance, KN_F32, 2 * T - 1, N));
    KN_TRY(kn_gather(f->dev, &table->t, f->bucket, &by_distance));
    kn_tensor turned = kn_tensor_permute(&by_distance, (int[]){1, 0});
    KN_TRY(kn_copy(f->dev, &turned, &by_head));
    *bias = kn_tensor_of((float *)by_head.data + (T - 1), KN_F32, N, T, T);
    bias->stride[0] = 2 * T - 1;
    bias->stride[1] = -1;
    kn_arena_reset(a, mark);
    return KN_OK;
}

static kn_status attention(const forward *f, const block *w)
{
    kn_arena *a = f->args->scratch;
    int64_t T = f->T, N = f->config->num_heads, D = f->config->d_kv;
    kn_arena_mark mark = kn_arena_get_mark(a);
    kn_tensor q, k, v, out;
    kn_attn_args attn = {.scale = 1.0f};
    KN_TRY(norm(f, &w->norm_attn));
    KN_TRY(make_bias(f, &w->bias, &attn.bias));
    KN_TRY(kn_arena_take(a, &q, f->dtype, T, N * D));
    KN_TRY(kn_arena_take(a, &k, f->dtype, T, N * D));
    KN_TRY(kn_arena_take(a, &v, f->dtype, T, N * D));
    KN_TRY(kn_arena_take(a, &out, f->dtype, T, N * D));
    KN_TRY(kn_linear(f->dev, &f->h, &w->q, KN_ABSENT, KN_ACT_NONE, &q));
    KN_TRY(kn_linear(f->dev, &f->h, &w->k, KN_ABSENT, KN_ACT_NONE, &k));
    KN_TRY(kn_linear(f->dev, &f->h, &w->v, KN_ABSENT, KN_ACT_NONE, &v));
    attn.q = kn_tensor_view(&q, T, N, D);
    attn.k = kn_tensor_view(&k, T, N, D);
    attn.v = kn_tensor_view(&v, T, N, D);
    attn.out = kn_tensor_view(&out, T, N, D);
    KN_TRY(kn_attn_dense(f->dev, &attn, a));
    KN_TRY(kn_linear(f->dev, &out, &w->o, KN_ABSENT, KN_ACT_NONE, &f->h));
    KN_TRY(kn_gate_add(f->dev, &f->x, &f->h, KN_ABSENT, &f->x));
    kn_arena_reset(a, mark);
    return KN_OK;
}

/* wo(gelu_tanh(wi_0 h) * wi_1 h). transformers UMT5DenseGatedActDense */
static kn_status feed_forward(const forward *f, const block *w)
{
    kn_arena *a = f->args->scratch;
    kn_arena_mark mark = kn_arena_get_mark(a);
    kn_tensor gate, up; /* [T, d_ff] */
    KN_TRY(kn_arena_take(a, &gate, f->dtype, f->T, f->config->d_ff));
    KN_TRY(kn_arena_take(a, &up, f->dtype, f->T, f->config->d_ff));
    KN_TRY(norm(f, &w->norm_ff));
    KN_TRY(kn_linear(f->dev, &f->h, &w->wi_0, KN_ABSENT, KN_ACT_NONE, &gate));
    KN_TRY(kn_linear(f->dev, &f->h, &w->wi_1, KN_ABSENT, KN_ACT_NONE, &up));
    KN_TRY(kn_mul(f->dev, &gate, KN_ACT_GELU_TANH, &up, &gate));
    KN_TRY(kn_linear(f->dev, &gate, &w->wo, KN_ABSENT, KN_ACT_NONE, &f->h));
    KN_TRY(kn_gate_add(f->dev, &f->x, &f->h, KN_ABSENT, &f->x));
    kn_arena_reset(a, mark);
    return KN_OK;
}

static kn_status run_blocks(const kn_umt5 *m, forward *f)
{
    kn_arena *a = f->args->scratch;
    int64_t d = m->config.d_model;
    KN_TRY(kn_arena_take(a, &f->x, f->dtype, f->T, d));
    KN_TRY(kn_arena_take(a, &f->h, f->dtype, f->T, d));
    KN_TRY(kn_embed(f->dev, &m->table, f->args->ids, f->T, &f->x));
    KN_TRY(tap(f, "embedding", &f->x));
    for (int i = 0; i < m->config.num_layers; i++) {
        if (m->offload && kn_dev_get_kind(f->dev) != KN_DEV_MEASURE)
            KN_TRY(kn_offload_use(m->offload, i));
        KN_TRY(attention(f, &m->blocks[i]));
        KN_TRY(tap_block(f, i, "attn"));
        KN_TRY(feed_forward(f, &m->blocks[i]));
        KN_TRY(tap_block(f, i, "out"));
    }
    KN_TRY(norm(f, &m->norm_final));
    KN_TRY(tap(f, "final", &f->h));
    kn_tensor rows = kn_tensor_slice(&f->args->out, 0, 0, f->T);
    return kn_copy(f->dev, &f->h, &rows);
}

static kn_status zero_rows(kn_dev *dev, const kn_tensor *out, int64_t from)
{
    kn_tensor rest = kn_tensor_slice(out, 0, from, out->dim[0] - from);
    size_t bytes = kn_tensor_bytes(&rest);
    if (bytes == 0 || kn_dev_get_kind(dev) == KN_DEV_MEASURE) return KN_OK;
    void *zeros;
    KN_TRY(kn_alloc_zero(bytes, &zeros));
    kn_status st = kn_dev_upload(dev, zeros, &rest);
    kn_free(zeros);
    return st;
}

kn_status kn_umt5_encode(const kn_umt5 *m, const kn_umt5_args *args)
{
    const kn_tensor *out = &args->out;
    char text[KN_SHAPE_TEXT];
    if (args->count < 0 || out->rank != 2 || out->dtype != KN_F32 || !kn_tensor_contiguous(out) ||
        out->dim[0] < args->count || out->dim[1] != m->config.d_model)
        return kn_fail(KN_ERR_ARG,
                       "text encoder: out is %s; contiguous f32 with at least %d rows of %d "
                       "is expected",
                       kn_tensor_text(out, text), args->count, m->config.d_model);
    KN_TRY(zero_rows(m->dev, out, args->count));
    if (args->count == 0) return KN_OK;

    kn_status st = KN_OK;
    int64_t T = args->count;
    int32_t *bucket = NULL;
    kn_arena_mark mark = kn_arena_get_mark(args->scratch);
    KN_TRY_GOTO(kn_alloc_array((size_t)(2 * T - 1), sizeof *bucket, (void **)&bucket));
    for (int64_t i = 0; i < 2 * T - 1; i++) bucket[i] = kn_umt5_bucket(&m->config, i - (T - 1));
    forward f = {.dev = m->dev,
                 .config = &m->config,
                 .args = args,
                 .T = T,
                 .dtype = kn_dev_activation_dtype(m->dev),
                 .bucket = bucket};
    KN_TRY_GOTO(run_blocks(m, &f));
done:
    kn_arena_reset(args->scratch, mark);
    kn_free(bucket);
    return st != KN_OK ? KN_CTX(st, "text encoder") : KN_OK;
}

kn_status kn_umt5_scratch_bytes(const kn_umt5 *m, int count, size_t *bytes)
{
    kn_status st = KN_OK;
    kn_dev *measure = NULL;
    kn_arena *arena = NULL;
    kn_umt5 model = *m;
    *bytes = 0;
    KN_TRY_GOTO(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_MEASURE,
                                             .measured = kn_dev_measured(m->dev),
                                             .threads = kn_dev_threads(m->dev)},
                            &measure));
    KN_TRY_GOTO(kn_arena_open(measure, 0, &arena));
    model.dev = measure;
    kn_umt5_args args = {.count = count,
                         .out = kn_tensor_of(NULL, KN_F32, count, m->config.d_model),
                         .scratch = arena};
    KN_TRY_GOTO(kn_umt5_encode(&model, &args));
    *bytes = kn_arena_peak(arena);
done:
    kn_arena_close(&arena);
    kn_dev_close(&measure);
    return st;
}
