#include "dit/dit.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "dit/weights.h"
#include "io/memory.h"

struct kn_dit {
    kn_dev *dev;
    kn_dit_config config;
    kn_dit_weights weights;
    kn_dtype activation;
};

struct kn_dit_context {
    kn_dev *dev;
    int64_t tokens; /* T */
    kn_tensor kv;   /* [layers, 2, T, d] */
};

/* ---- opening ----------------------------------------------------------------------------------*/
static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* A folder states its dimensions; a single file shows them. */
static kn_status read_config(const char *path, const kn_safetensors *file, kn_dit_config *config)
{
    if (!is_folder(path)) {
        kn_dit_naming naming;
        const char *prefix;
        KN_TRY(kn_dit_naming_detect(file, &naming, &prefix));
        if (naming == KN_DIT_DIFFUSERS)
            return kn_fail(KN_ERR_MODEL,
                           "%s: a single file with diffusers' names; give the folder that "
                           "also holds its config.json",
                           path);
        return kn_dit_config_infer(file, prefix, config);
    }
    char *name = NULL;
    KN_TRY(kn_asprintf(&name, "%s/config.json", path));
    kn_status st = kn_dit_config_read(name, config);
    kn_free(name);
    return st;
}

kn_status kn_dit_open(kn_dev *d, const char *path, kn_dit **out)
{
    *out = NULL;
    kn_status st = KN_OK;
    kn_dit *m = NULL;
    kn_safetensors *file = NULL;
    void *p;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *m, &p));
    m = p;
    m->dev = d;
    m->activation = kn_dev_activation_dtype(d);
    KN_TRY_GOTO(
        kn_safetensors_open(path, is_folder(path) ? "diffusion_pytorch_model" : NULL, &file));
    KN_TRY_GOTO(read_config(path, file, &m->config));
    KN_TRY_GOTO(kn_dit_weights_open(d, file, &m->config, &m->weights));
    *out = m;
    m = NULL;
done:
    kn_dit_close(&m);
    kn_safetensors_close(&file);
    return KN_CTX(st, "loading the transformer from %s", path);
}

void kn_dit_close(kn_dit **m)
{
    if (!*m) return;
    kn_dit_weights_close((*m)->dev, &(*m)->weights);
    kn_free(*m);
    *m = NULL;
}

const kn_dit_config *kn_dit_get_config(const kn_dit *m)
{
    return &m->config;
}

kn_status kn_dit_rope_open(const kn_dit *m, int64_t frames_lat, int64_t height_lat,
                           int64_t width_lat, const int32_t *order, kn_dit_rope *out)
{
    const int64_t latents[3] = {frames_lat, height_lat, width_lat};
    return kn_dit_rope_open_scaled(m, latents, NULL, order, out);
}

kn_status kn_dit_rope_open_scaled(const kn_dit *m, const int64_t latents[3], const double scale[3],
                                  const int32_t *order, kn_dit_rope *out)
{
    const kn_dit_config *c = &m->config;
    int64_t grid[3] = {latents[0], latents[1], latents[2]};
    memset(out, 0, sizeof *out);
    for (int a = 0; a < 3; a++) {
        if (grid[a] % c->patch[a])
            return kn_fail(KN_ERR_ARG,
                           "latents of %" PRId64 " x %" PRId64 " x %" PRId64
                           ": expected multiples of the patch, %d x %d x %d",
                           latents[0], latents[1], latents[2], c->patch[0], c->patch[1],
                           c->patch[2]);
        grid[a] /= c->patch[a];
    }
    return kn_dit_rope_open_grid(m->dev, c->head_dim, c->rope_max_positions, grid, scale, order, out);
}

/* Work from now on may use the block's weights. A forward that is only measured uses none. */
static kn_status use_block(const kn_dit *m, const kn_dev *d, int block)
{
    if (!m->weights.offload || kn_dev_get_kind(d) == KN_DEV_MEASURE) return KN_OK;
    return kn_offload_use(m->weights.offload, block);
}

/* ---- pieces that prompt and forward share -----------------------------------------------------*/
static kn_status linear(kn_dev *d, const kn_dit_linear *l, const kn_tensor *x, kn_activation act,
                        const kn_tensor *out)
{
    return kn_linear(d, x, &l->weight, &l->bias.t, act, out);
}

static kn_status rms(const kn_dit *m, const kn_tensor *x, const kn_weight *weight)
{
    kn_rmsnorm_params p = {.eps = (float)m->config.eps};
    return kn_rmsnorm(m->dev, x, &weight->t, &p, x);
}

static kn_status tapped(const kn_dit_tap *tap, const char *name, const kn_tensor *t)
{
    return tap && tap->fn ? tap->fn(tap->user, name, t) : KN_OK;
}

/* Axis 0 of t at i, without that axis. */
static kn_tensor entry(const kn_tensor *t, int64_t i)
{
    kn_tensor part = kn_tensor_slice(t, 0, i, 1);
    part.rank--;
    for (int a = 0; a < part.rank; a++) {
        part.dim[a] = part.dim[a + 1];
        part.stride[a] = part.stride[a + 1];
    }
    return part;
}

/* ---- prompt -----------------------------------------------------------------------------------*/
static kn_status project_text(const kn_dit *m, const kn_tensor *embeds, kn_arena *mem,
                              kn_tensor *text)
{
    int64_t T = embeds->dim[0];
    kn_tensor in, hidden;
    KN_TRY(kn_arena_take(mem, &in, m->activation, T, m->config.text_dim));
    KN_TRY(kn_arena_take(mem, &hidden, m->activation, T, kn_dit_width(&m->config)));
    KN_TRY(kn_arena_take(mem, text, m->activation, T, kn_dit_width(&m->config)));
    KN_TRY(kn_copy(m->dev, embeds, &in));
    KN_TRY(linear(m->dev, &m->weights.text_1, &in, KN_ACT_GELU_TANH, &hidden));
    return linear(m->dev, &m->weights.text_2, &hidden, KN_ACT_NONE, text);
}

static kn_status fill_context(const kn_dit *m, const kn_tensor *text, kn_dit_context *c)
{
    for (int i = 0; i < m->config.layers; i++) {
        KN_TRY(use_block(m, m->dev, i));
        const kn_dit_attention *cross = &m->weights.blocks[i].cross;
        kn_tensor kv = entry(&c->kv, i), k = entry(&kv, 0), v = entry(&kv, 1);
        KN_TRY(linear(m->dev, &cross->k, text, KN_ACT_NONE, &k));
        KN_TRY(rms(m, &k, &cross->norm_k));
        KN_TRY(linear(m->dev, &cross->v, text, KN_ACT_NONE, &v));
    }
    return KN_OK;
}

kn_status kn_dit_context_open(const kn_dit *m, const kn_tensor *embeds, const kn_dit_tap *tap,
                              kn_dit_context **out)
{
    *out = NULL;
    if (embeds->rank != 2 || embeds->dim[0] < 1 || embeds->dim[1] != m->config.text_dim) {
        char text[KN_SHAPE_TEXT];
        return kn_fail(KN_ERR_ARG, "text embeddings are %s: expected [tokens, %" PRId64 "]",
                       kn_tensor_text(embeds, text), m->config.text_dim);
    }
    kn_status st = KN_OK;
    kn_dit_context *c = NULL;
    kn_arena *mem = NULL;
    kn_tensor text;
    void *p;
    int64_t T = embeds->dim[0], d = kn_dit_width(&m->config);
    KN_TRY_GOTO(kn_alloc_zero(sizeof *c, &p));
    c = p;
    c->dev = m->dev;
    c->tokens = T;
    c->kv = kn_tensor_of(NULL, m->activation, m->config.layers, 2, T, d);
    KN_TRY_GOTO(kn_dev_alloc(m->dev, kn_tensor_bytes(&c->kv), &c->kv.data));
    /* The three tensors of project_text, each rounded up as arenas do. */
    size_t bytes = (size_t)(T * (m->config.text_dim + 2 * d)) * kn_dtype_size(m->activation);
    KN_TRY_GOTO(kn_arena_open(m->dev, bytes + 3 * 256, &mem));
    KN_TRY_GOTO(project_text(m, embeds, mem, &text));
    KN_TRY_GOTO(tapped(tap, "text", &text));
    KN_TRY_GOTO(fill_context(m, &text, c));
    *out = c;
    c = NULL;
done:
    kn_arena_close(&mem);
    kn_dit_context_close(&c);
    return KN_CTX(st, "preparing a prompt of %" PRId64 " tokens", T);
}

void kn_dit_context_close(kn_dit_context **c)
{
    if (!*c) return;
    if ((*c)->kv.data) kn_dev_free((*c)->dev, (*c)->kv.data, kn_tensor_bytes(&(*c)->kv));
    kn_free(*c);
    *c = NULL;
}

/* ---- forward ----------------------------------------------------------------------------------*/
/* One evaluation. x is the residual stream; h, q, k, v are the buffers that all blocks share; the last
 * three in a row. */
typedef struct pass {
    const kn_dit *m;
    const kn_dit_args *args;
    kn_dev *dev;
    kn_arena *mem;
    int64_t L, d;
    kn_tensor x, h, q, k, v; /* [L, d] */
    kn_tensor room_h;        /* h and what lies behind it */
    kn_tensor wave;          /* [1, freq_dim] f32: of the timestep */
    kn_tensor temb;          /* [1, d] f32 */
    kn_tensor timestep_proj; /* [6, d] f32 */
    kn_tensor modulation;    /* [layers, 6, d] f32 */
    kn_tensor head;          /* [2, d] f32: shift, scale of the last norm */
    kn_eight_bits rounded;   /* args->f8: of [L, d], what the next linear layers read */
    kn_eight_bits room;      /* likewise: of the largest weight, which kn_linear_f8 rounds */
    int block;
} pass;

/* Rows of a block's pass.modulation and of its table. */
enum { SHIFT_ATTENTION, SCALE_ATTENTION, GATE_ATTENTION, SHIFT_FFN, SCALE_FFN, GATE_FFN };

static kn_status tap_block(const pass *p, const char *what, const kn_tensor *t)
{
    if (!p->args->tap.fn) return KN_OK;
    char name[64];
    snprintf(name, sizeof name, "blocks.%d.%s", p->block, what);
    return tapped(&p->args->tap, name, t);
}

static kn_tensor heads_of(const pass *p, const kn_tensor *x)
{
    return kn_tensor_view(x, x->dim[0], p->m->config.heads, p->m->config.head_dim);
}

/* cos(t w_i), then sin(t w_i), w_i = 10000^(-i / half), with the float32 roundings of diffusers'
 * get_timestep_embedding(flip_sin_to_cos=True, downscale_freq_shift=0): at t near 1000 the rounding
 * of w_i shows. */
static kn_status sinusoid(pass *p)
{
    int64_t half = p->m->config.freq_dim / 2;
    void *memory;
    KN_TRY(kn_arena_take(p->mem, &p->wave, KN_F32, 1, 2 * half));
    KN_TRY(kn_alloc_array((size_t)half, 2 * sizeof(float), &memory));
    float *row = memory;
    for (int64_t i = 0; i < half; i++) {
        float exponent = (float)-log(10000.0) * (float)i / (float)half;
        float angle = (float)p->args->timestep * (float)exp(exponent);
        row[i] = (float)cos(angle);
        row[half + i] = (float)sin(angle);
    }
    kn_status st = kn_dev_upload(p->dev, row, &p->wave);
    kn_free(memory);
    return st;
}

/* temb = linear(silu(linear(sinusoid))); timestep_proj = linear(silu(temb)), all f32. */
static kn_status embed_time(pass *p)
{
    const kn_dit_weights *w = &p->m->weights;
    kn_tensor hidden, flat;
    KN_TRY(kn_arena_take(p->mem, &p->temb, KN_F32, 1, p->d));
    KN_TRY(kn_arena_take(p->mem, &p->timestep_proj, KN_F32, 6, p->d));
    kn_arena_mark mark = kn_arena_get_mark(p->mem);
    KN_TRY(kn_arena_take(p->mem, &hidden, KN_F32, 1, p->d));
    KN_TRY(linear(p->dev, &w->time_1, &p->wave, KN_ACT_SILU, &hidden));
    KN_TRY(linear(p->dev, &w->time_2, &hidden, KN_ACT_NONE, &p->temb));
    KN_TRY(kn_act(p->dev, &p->temb, KN_ACT_SILU, &hidden));
    flat = kn_tensor_view(&p->timestep_proj, 1, 6 * p->d);
    KN_TRY(linear(p->dev, &w->time_proj, &hidden, KN_ACT_NONE, &flat));
    kn_arena_reset(p->mem, mark);
    KN_TRY(tapped(&p->args->tap, "temb", &p->temb));
    return tapped(&p->args->tap, "timestep_proj", &p->timestep_proj);
}

/* Bytes from q's first to v's last, which the feed-forward may use. */
static size_t spare_bytes(const pass *p)
{
    return (size_t)((char *)p->v.data - (char *)p->q.data) + kn_tensor_bytes(&p->v);
}

/* What is needed between attentions lies in q, k and v, which the next block writes anew, if it fits. */
static kn_status take_spare(const pass *p, int64_t rows, int64_t width, kn_tensor *out)
{
    *out = kn_tensor_of(p->q.data, p->m->activation, rows, width);
    if (kn_tensor_bytes(out) <= spare_bytes(p)) return KN_OK;
    return kn_arena_take(p->mem, out, p->m->activation, rows, width);
}

static kn_status embed_patches(pass *p)
{
    const kn_dit_config *c = &p->m->config;
    kn_tensor patches;
    kn_arena_mark mark = kn_arena_get_mark(p->mem);
    KN_TRY(take_spare(p, p->L, kn_dit_patch_elements(c, c->in_channels), &patches));
    KN_TRY(kn_patchify(p->dev, &p->args->latents, c->patch, p->args->rope->order, &patches));
    KN_TRY(linear(p->dev, &p->m->weights.patch, &patches, KN_ACT_NONE, &p->x));
    kn_arena_reset(p->mem, mark);
    return tapped(&p->args->tap, "patch_embed", &p->x);
}

/* The block's shift, scale or gate. */
static kn_tensor modulation_of(const pass *p, int block, int row)
{
    kn_tensor of_block = entry(&p->modulation, block);
    return entry(&of_block, row);
}

/* Of all blocks and of the head, from temb and their tables. */
static kn_status modulate(pass *p)
{
    const kn_dit_weights *w = &p->m->weights;
    kn_tensor table = kn_tensor_view(&w->head_modulation.t, 2, p->d);
    for (int i = 0; i < p->m->config.layers; i++) {
        kn_tensor own = kn_tensor_view(&w->blocks[i].modulation.t, 6, p->d);
        kn_tensor to = entry(&p->modulation, i);
        KN_TRY(kn_axpby(p->dev, 1, &own, 1, &p->timestep_proj, &to));
    }
    for (int i = 0; i < 2; i++) {
        kn_tensor from = kn_tensor_slice(&table, 0, i, 1), to = kn_tensor_slice(&p->head, 0, i, 1);
        KN_TRY(kn_axpby(p->dev, 1, &from, 1, &p->temb, &to));
    }
    return KN_OK;
}

/* The norms between the parts of the network: modulated before self-attention and feed-forward,
 * affine or none before cross-attention. A part leaves x with its result added and h normalised
 * for the next part, in one pass over memory. */
static kn_layernorm_params norm_before_attention(const pass *p, int block)
{
    if (block == p->m->config.layers) /* the head comes next */
        return (kn_layernorm_params){.shift = entry(&p->head, 0),
                                     .scale = entry(&p->head, 1),
                                     .eps = (float)p->m->config.eps};
    return (kn_layernorm_params){.shift = modulation_of(p, block, SHIFT_ATTENTION),
                                 .scale = modulation_of(p, block, SCALE_ATTENTION),
                                 .eps = (float)p->m->config.eps};
}

static kn_layernorm_params norm_before_ffn(const pass *p)
{
    return (kn_layernorm_params){.shift = modulation_of(p, p->block, SHIFT_FFN),
                                 .scale = modulation_of(p, p->block, SCALE_FFN),
                                 .eps = (float)p->m->config.eps};
}

/* x += gate * part, h = norm(x) */
static kn_status add_and_norm(const pass *p, const kn_tensor *part, const kn_tensor *gate,
                              const kn_layernorm_params *norm)
{
    return kn_gate_norm(p->dev, &p->x, part, gate, norm, &p->x, &p->h);
}

/* The first rows of e, or its first elements as rows of another width. */
static kn_eight_bits eight_bits_of(const kn_eight_bits *e, int64_t rows, int64_t width)
{
    return (kn_eight_bits){kn_tensor_of(e->codes.data, KN_F8, rows, width), kn_tensor_of(e->scale.data, KN_F32, rows)};
}

static kn_status take_eight_bits(const pass *p, int64_t rows, int64_t width, kn_eight_bits *e)
{
    KN_TRY(kn_arena_take(p->mem, &e->codes, KN_F8, rows, width));
    return kn_arena_take(p->mem, &e->scale, KN_F32, rows);
}

/* A linear layer of a block whose x p->rounded holds (round_rows), where the layers are in e4m3. */
static kn_status block_linear(const pass *p, const kn_dit_linear *l, const kn_tensor *x, kn_activation act,
                              const kn_tensor *out)
{
    if (!p->args->f8) return linear(p->dev, l, x, act, out);
    kn_eight_bits rows = eight_bits_of(&p->rounded, x->dim[0], x->dim[1]);
    kn_eight_bits room = eight_bits_of(&p->room, l->weight.t.dim[0], l->weight.t.dim[1]);
    return kn_linear_f8(p->dev, &rows, &l->weight, &room, &l->bias.t, act, out);
}

static kn_status round_rows(const pass *p, const kn_tensor *x)
{
    if (!p->args->f8) return KN_OK;
    kn_eight_bits rows = eight_bits_of(&p->rounded, x->dim[0], x->dim[1]);
    return kn_quantize(p->dev, x, &rows.codes, &rows.scale);
}

static int cross_end(const pass *p)
{
    return p->args->cross_blocks[1] ? p->args->cross_blocks[1] : p->m->config.layers;
}

static kn_dit_cross cross_of(const pass *p)
{
    bool inside = p->block >= p->args->cross_blocks[0] && p->block < cross_end(p);
    return inside ? p->args->cross : KN_DIT_CROSS_OWN;
}

/* Whether this block's queries of cross-attention are of normalised tokens that it has to make. */
static bool norm_before_cross(const pass *p)
{
    return p->m->config.cross_attn_norm && cross_of(p) != KN_DIT_CROSS_USE;
}

/* q, k and v of h, the modulated x; with their norm and rotation, or, where attention in 8 bits packs q and k as it
 * does those, without (*norm, and attn->norm). Then h is room for the bytes and q for what comes out: with
 * kept, which looks at q, k and v afterwards, neither. */
static kn_status attention_inputs(pass *p, const kn_dit_attention *a, kn_attn_norm *norm, kn_attn_args *attn)
{
    const kn_dit_args *args = p->args;
    const kn_dit_rope *rope = args->rope;
    bool kept = args->attn_fn != NULL, packs = args->int8 && !kept && !args->tap.fn;
    float eps = (float)p->m->config.eps;
    KN_TRY(round_rows(p, &p->h));
    KN_TRY(block_linear(p, &a->q, &p->h, KN_ACT_NONE, &p->q));
    KN_TRY(block_linear(p, &a->k, &p->h, KN_ACT_NONE, &p->k));
    KN_TRY(block_linear(p, &a->v, &p->h, KN_ACT_NONE, &p->v));
    *attn = (kn_attn_args){.q = heads_of(p, &p->q),
                           .k = heads_of(p, &p->k),
                           .v = heads_of(p, &p->v),
                           .int8 = args->int8,
                           .skip_below = (float)args->skip_below};
    attn->out = args->int8 && !kept ? attn->q : heads_of(p, &p->h);
    if (args->int8 && !kept) attn->room = p->room_h;
    *norm = (kn_attn_norm){a->norm_q.t, a->norm_k.t, rope->cos, rope->sin, eps};
    if (packs) {
        attn->norm = norm;
        return KN_OK;
    }
    KN_TRY(kn_norm_rope(p->dev, &attn->q, &norm->weight_q, eps, &norm->cos, &norm->sin, &attn->q));
    KN_TRY(kn_norm_rope(p->dev, &attn->k, &norm->weight_k, eps, &norm->cos, &norm->sin, &attn->k));
    KN_TRY(tap_block(p, "attn1.q", &p->q));
    return tap_block(p, "attn1.k", &p->k);
}

/* x += gate * out(attention(rope(norm(q)), rope(norm(k)), v)) of h, the modulated x; then h for
 * cross-attention */
static kn_status self_attention(pass *p, const kn_dit_block *b)
{
    const kn_dit_args *args = p->args;
    kn_tensor gate = modulation_of(p, p->block, GATE_ATTENTION);
    kn_attn_args attn;
    kn_attn_norm norm;
    KN_TRY(attention_inputs(p, &b->self, &norm, &attn));
    attn.scale =
        (float)(args->softmax_scale > 0 ? args->softmax_scale : 1 / sqrt(p->m->config.head_dim));
    const kn_attn_plan *plan = args->plan;
    const kn_tensor *seen[2] = {attn.norm ? NULL : &attn.q, attn.norm ? NULL : &attn.k};
    if (args->plan_fn && kn_dev_get_kind(p->dev) != KN_DEV_MEASURE)
        KN_TRY(args->plan_fn(args->plan_user, p->block, seen[0], seen[1], &plan));
    else if (args->plan_fn && plan) /* who is asked may say dense too: the larger scratch of the two */
        KN_TRY(kn_attn_dense(p->dev, &attn, p->mem));
    if (plan)
        KN_TRY(kn_attn_sparse(p->dev, &attn, plan, p->mem));
    else
        KN_TRY(kn_attn_dense(p->dev, &attn, p->mem));
    if (args->attn_fn && kn_dev_get_kind(p->dev) != KN_DEV_MEASURE)
        KN_TRY(args->attn_fn(args->attn_user, p->block, &attn));
    bool swapped = attn.out.data == p->q.data;
    const kn_tensor *out = swapped ? &p->q : &p->h, *part = swapped ? &p->h : &p->q;
    KN_TRY(round_rows(p, out));
    KN_TRY(block_linear(p, &b->self.out, out, KN_ACT_NONE, part));
    KN_TRY(tap_block(p, "attn1", part));
    if (!norm_before_cross(p)) return kn_gate_add(p->dev, &p->x, part, &gate, &p->x);
    kn_layernorm_params before = {.weight = b->norm.weight.t, .bias = b->norm.bias.t, .eps = (float)p->m->config.eps};
    return add_and_norm(p, part, &gate, &before);
}

/* out = attention(norm(q), K, V), the block's cross-attention context; K and V come from the prompt */
static kn_status cross_context(pass *p, const kn_dit_block *b, const kn_tensor *out)
{
    const kn_dit_attention *a = &b->cross;
    const kn_tensor *in = norm_before_cross(p) ? &p->h : &p->x;
    kn_tensor kv = entry(&p->args->context->kv, p->block), k = entry(&kv, 0), v = entry(&kv, 1);
    KN_TRY(round_rows(p, in));
    KN_TRY(block_linear(p, &a->q, in, KN_ACT_NONE, &p->q));
    KN_TRY(rms(p->m, &p->q, &a->norm_q));
    kn_attn_args attn = {.q = heads_of(p, &p->q),
                         .k = heads_of(p, &k),
                         .v = heads_of(p, &v),
                         .out = heads_of(p, out),
                         .scale = (float)(1 / sqrt(p->m->config.head_dim))};
    return kn_attn_dense(p->dev, &attn, p->mem);
}

/* Nothing after this block's context is wanted. */
static bool ends_here(const pass *p)
{
    return p->args->contexts_only && p->block == cross_end(p) - 1;
}

/* Stored contexts are not touched when measuring. */
static bool reaches_contexts(const pass *p, kn_dit_cross cross)
{
    return cross_of(p) == cross && kn_dev_get_kind(p->dev) != KN_DEV_MEASURE;
}

static kn_status store_context(pass *p, const kn_dit_block *b, kn_tensor *context)
{
    kn_dit_contexts *c = p->args->contexts;
    KN_TRY(kn_dit_contexts_target(c, p->args->context_set, p->block, &p->h, context));
    KN_TRY(cross_context(p, b, context));
    return kn_dit_contexts_stored(c, p->args->context_set, p->block, context);
}

/* x += out(context), the block's own or a stored one; then h for the feed-forward */
static kn_status cross_attention(pass *p, const kn_dit_block *b)
{
    kn_tensor context = p->h;
    if (reaches_contexts(p, KN_DIT_CROSS_USE))
        KN_TRY(kn_dit_contexts_read(p->args->contexts, p->args->context_set, p->block, &p->h,
                                    &context));
    else if (reaches_contexts(p, KN_DIT_CROSS_STORE))
        KN_TRY(store_context(p, b, &context));
    else if (cross_of(p) != KN_DIT_CROSS_USE)
        KN_TRY(cross_context(p, b, &context));
    if (ends_here(p)) return KN_OK;
    KN_TRY(round_rows(p, &context));
    KN_TRY(block_linear(p, &b->cross.out, &context, KN_ACT_NONE, &p->q));
    KN_TRY(tap_block(p, "attn2", &p->q));
    kn_layernorm_params norm = norm_before_ffn(p);
    return add_and_norm(p, &p->q, KN_ABSENT, &norm);
}

/* Even pieces of at most `most` rows, so that no product is left with a few. */
static int64_t even_rows(int64_t total, int64_t most)
{
    enum { UNIT = 128 };
    int64_t pieces = (total + most - 1) / most;
    int64_t rows = ((total + pieces - 1) / pieces + UNIT - 1) / UNIT * UNIT;
    if (rows > most) rows = most;
    return rows < total ? rows : total;
}

static int64_t ffn_rows(const pass *p)
{
    enum { MOST = 32768 };
    if (p->args->ffn_rows > 0) return p->args->ffn_rows < p->L ? p->args->ffn_rows : p->L;
    size_t row_bytes = (size_t)p->m->config.ffn_dim * kn_dtype_size(p->m->activation);
    int64_t fit = (int64_t)(spare_bytes(p) / row_bytes);
    if (p->args->ffn_rows == KN_DIT_FFN_IN_PLACE && fit >= 1 && fit < MOST)
        return even_rows(p->L, fit);
    return even_rows(p->L, MOST);
}

/* down(gelu(up(h))) in place of h */
static kn_status wide_layers(const pass *p, const kn_dit_block *b, const kn_tensor *h, const kn_tensor *up)
{
    KN_TRY(round_rows(p, h));
    KN_TRY(block_linear(p, &b->up, h, KN_ACT_GELU_TANH, up));
    KN_TRY(round_rows(p, up));
    return block_linear(p, &b->down, up, KN_ACT_NONE, h);
}

/* x += gate * down(gelu(up(h))), for `rows` tokens at a time; then h for the next block or the head */
static kn_status feed_forward(pass *p, const kn_dit_block *b)
{
    kn_tensor gate = modulation_of(p, p->block, GATE_FFN);
    kn_layernorm_params norm = norm_before_attention(p, p->block + 1);
    int64_t rows = ffn_rows(p);
    kn_tensor wide;
    kn_arena_mark mark = kn_arena_get_mark(p->mem);
    KN_TRY(take_spare(p, rows, p->m->config.ffn_dim, &wide));
    for (int64_t begin = 0; begin < p->L; begin += rows) {
        int64_t count = p->L - begin < rows ? p->L - begin : rows;
        kn_tensor x = kn_tensor_slice(&p->x, 0, begin, count);
        kn_tensor h = kn_tensor_slice(&p->h, 0, begin, count);
        kn_tensor up = kn_tensor_slice(&wide, 0, 0, count);
        KN_TRY(wide_layers(p, b, &h, &up));
        if (rows == p->L) KN_TRY(tap_block(p, "ffn", &h));
        KN_TRY(kn_gate_norm(p->dev, &x, &h, &gate, &norm, &x, &h));
    }
    kn_arena_reset(p->mem, mark);
    return KN_OK;
}

/* velocity = unpatchify(linear(h)), h = layernorm(x) * (1 + scale) + shift by the last block */
static kn_status head(pass *p)
{
    const kn_dit_config *c = &p->m->config;
    const kn_dit_weights *w = &p->m->weights;
    kn_tensor patches;
    kn_arena_mark mark = kn_arena_get_mark(p->mem);
    KN_TRY(tapped(&p->args->tap, "norm_out", &p->h));
    KN_TRY(take_spare(p, p->L, kn_dit_patch_elements(c, c->out_channels), &patches));
    KN_TRY(linear(p->dev, &w->head, &p->h, KN_ACT_NONE, &patches));
    KN_TRY(kn_unpatchify(p->dev, &patches, c->patch, p->args->rope->order, &p->args->velocity));
    kn_arena_reset(p->mem, mark);
    return tapped(&p->args->tap, "output", &p->args->velocity);
}

/* Rows of h: a few more than L where it is also room for q and k in 8 bits, which are padded. */
static int64_t rows_of_h(const pass *p)
{
    int64_t row = p->d * (int64_t)kn_dtype_size(p->m->activation);
    int64_t room = p->args->int8 ? (int64_t)kn_attn_int8_room_bytes(p->L, p->m->config.heads) : 0;
    return room > p->L * row ? (room + row - 1) / row : p->L;
}

static kn_status take_buffers(pass *p)
{
    kn_tensor *const buffers[] = {&p->q, &p->k, &p->v};
    int64_t ffn = p->m->config.ffn_dim;
    KN_TRY(kn_arena_take(p->mem, &p->x, p->m->activation, p->L, p->d));
    KN_TRY(kn_arena_take(p->mem, &p->room_h, p->m->activation, rows_of_h(p), p->d));
    for (int i = 0; i < 3; i++) KN_TRY(kn_arena_take(p->mem, buffers[i], p->m->activation, p->L, p->d));
    p->h = kn_tensor_slice(&p->room_h, 0, 0, p->L);
    if (!p->args->f8) return KN_OK;
    /* rows of width d, or as many of width ffn as the feed-forward takes */
    int64_t rows = (ffn_rows(p) * ffn + p->d - 1) / p->d;
    KN_TRY(take_eight_bits(p, rows > p->L ? rows : p->L, p->d, &p->rounded));
    return take_eight_bits(p, ffn, p->d, &p->room);
}

/* Everything behind the timestep's wave. */
static kn_status layers(pass *p)
{
    KN_TRY(take_buffers(p));
    KN_TRY(kn_arena_take(p->mem, &p->modulation, KN_F32, p->m->config.layers, 6, p->d));
    KN_TRY(kn_arena_take(p->mem, &p->head, KN_F32, 2, p->d));
    KN_TRY(embed_time(p));
    KN_TRY(modulate(p));
    KN_TRY(embed_patches(p));
    kn_layernorm_params norm = norm_before_attention(p, 0);
    KN_TRY(kn_layernorm(p->dev, &p->x, KN_ABSENT, KN_ABSENT, &norm.scale, &norm.shift, norm.eps,
                        &p->h));
    for (p->block = 0; p->block < p->m->config.layers; p->block++) {
        const kn_dit_block *b = &p->m->weights.blocks[p->block];
        KN_TRY(use_block(p->m, p->dev, p->block));
        if (reaches_contexts(p, KN_DIT_CROSS_USE))
            KN_TRY(kn_dit_contexts_ahead(p->args->contexts, p->args->context_set, p->block,
                                         p->args->cross_blocks[0], cross_end(p)));
        KN_TRY(self_attention(p, b));
        KN_TRY(cross_attention(p, b));
        if (ends_here(p)) return KN_OK;
        KN_TRY(feed_forward(p, b));
        KN_TRY(tap_block(p, "out", &p->x));
    }
    return head(p);
}

/* For kn_records_run, which may call it once to record it and again. */
static kn_status network(void *user)
{
    pass *p = user;
    kn_arena_mark mark = kn_arena_get_mark(p->mem);
    kn_status st = layers(p);
    kn_arena_reset(p->mem, mark);
    return st;
}

/* Does the same work follow from equal arguments, whatever the tensors hold, and is it small enough for its
 * launches to show? A kernel that reads and writes as many elements as MOST takes a GPU some 6 us, about
 * what a launch takes the host; then all of a forward's launches are hidden behind its kernels. */
static bool comes_again(const pass *p)
{
    enum { MOST = 4 << 20 };
    const kn_dit_args *a = p->args;
    bool looked_at = a->tap.fn || a->attn_fn || (a->plan_fn && !a->plans);
    bool ferried = p->m->weights.offload || (a->contexts && kn_dit_contexts_get_place(a->contexts) == KN_DIT_ON_HOST);
    return a->records && !looked_at && !ferried && p->L * p->d <= MOST;
}

/* All that tells one forward's work from another's. Tensors' shapes follow from model and rope. */
typedef struct forward_key {
    const void *model, *context, *rope, *latents, *velocity, *scratch, *plan, *plan_user, *contexts;
    kn_arena_mark mark;
    double softmax_scale, skip_below;
    int64_t ffn_rows;
    int plans, f8, int8, cross, context_set, cross_blocks[2], contexts_only;
} forward_key;
_Static_assert(sizeof(forward_key) <= KN_RECORD_KEY, "KN_RECORD_KEY is too short");

static kn_status run_again(pass *p)
{
    const kn_dit_args *a = p->args;
    forward_key k;
    memset(&k, 0, sizeof k); /* padding too: keys are compared as bytes */
    k.model = p->m, k.context = a->context, k.rope = a->rope;
    k.latents = a->latents.data, k.velocity = a->velocity.data;
    k.scratch = a->scratch, k.mark = kn_arena_get_mark(a->scratch);
    k.plan = a->plan, k.plan_user = a->plan_user, k.plans = a->plan_fn ? a->plans : 0;
    k.softmax_scale = a->softmax_scale, k.skip_below = a->skip_below;
    k.f8 = a->f8, k.int8 = a->int8, k.ffn_rows = a->ffn_rows;
    k.cross = (int)a->cross, k.contexts = a->contexts, k.context_set = a->context_set;
    k.cross_blocks[0] = a->cross_blocks[0], k.cross_blocks[1] = a->cross_blocks[1];
    k.contexts_only = a->contexts_only;
    return kn_records_run(a->records, &k, sizeof k, network, p);
}

static kn_status run(pass *p)
{
    KN_TRY(sinusoid(p));
    return comes_again(p) ? run_again(p) : network(p);
}

static kn_status check_shape(const kn_dit *m, const kn_dit_rope *rope, const char *what,
                             int64_t channels, const kn_tensor *t)
{
    int64_t want[4] = {channels};
    for (int a = 0; a < 3; a++) want[a + 1] = rope->grid[a] * m->config.patch[a];
    if (t->rank == 4 && t->dtype == KN_F32 && memcmp(t->dim, want, sizeof want) == 0) return KN_OK;
    char text[KN_SHAPE_TEXT];
    return kn_fail(KN_ERR_ARG,
                   "transformer: %s are %s: expected f32[%" PRId64 ", %" PRId64 ", %" PRId64
                   ", %" PRId64 "], from the model and the token grid",
                   what, kn_tensor_text(t, text), want[0], want[1], want[2], want[3]);
}

/* Both 0: all. */
static kn_status check_blocks(const kn_dit *m, const int blocks[2])
{
    bool all = blocks[0] == 0 && blocks[1] == 0;
    if (all || (blocks[0] >= 0 && blocks[0] < blocks[1] && blocks[1] <= m->config.layers)) return KN_OK;
    return kn_fail(KN_ERR_ARG, "transformer: cross-attention override of blocks %d to %d: expected some of 0 to %d",
                   blocks[0], blocks[1] - 1, m->config.layers - 1);
}

static kn_dit_contexts_shape contexts_shape(const kn_dit *m, const kn_dit_rope *rope,
                                            const int blocks[2], int sets)
{
    int end = blocks[1] ? blocks[1] : m->config.layers;
    return (kn_dit_contexts_shape){.first = blocks[0],
                                   .layers = end - blocks[0],
                                   .sets = sets,
                                   .tokens = rope->tokens,
                                   .heads = m->config.heads,
                                   .head_dim = m->config.head_dim,
                                   .activation = m->activation};
}

kn_status kn_dit_contexts_open(const kn_dit *m, const kn_dit_rope *rope, kn_dit_place place,
                               const int blocks[2], int sets, kn_dit_contexts **out)
{
    *out = NULL;
    KN_TRY(check_blocks(m, blocks));
    kn_dit_contexts_shape shape = contexts_shape(m, rope, blocks, sets);
    return kn_dit_contexts_make(m->dev, &shape, place, out);
}

static kn_status check_contexts(const kn_dit *m, const kn_dit_args *args)
{
    if (args->contexts_only && args->cross != KN_DIT_CROSS_STORE)
        return kn_fail(KN_ERR_ARG, "transformer: contexts alone are wanted, but not stored");
    if (args->cross == KN_DIT_CROSS_OWN) return KN_OK;
    KN_TRY(check_blocks(m, args->cross_blocks));
    if (!args->contexts && kn_dev_get_kind(m->dev) == KN_DEV_MEASURE) return KN_OK;
    if (!args->contexts)
        return kn_fail(KN_ERR_ARG, "transformer: cross-attention contexts are missing");
    const kn_dit_contexts_shape *found = kn_dit_contexts_get_shape(args->contexts);
    kn_dit_contexts_shape want = contexts_shape(m, args->rope, args->cross_blocks, found->sets);
    bool holds = found->first <= want.first && found->first + found->layers >= want.first + want.layers;
    if (holds && found->tokens == want.tokens && found->heads == want.heads &&
        found->head_dim == want.head_dim && found->activation == want.activation &&
        args->context_set >= 0 && args->context_set < found->sets)
        return KN_OK;
    return kn_fail(KN_ERR_ARG,
                   "transformer: cross-attention contexts are set %d of %d, blocks %d to %d of %" PRId64
                   " tokens: expected blocks %d to %d of %" PRId64,
                   args->context_set, found->sets, found->first, found->first + found->layers - 1,
                   found->tokens, want.first, want.first + want.layers - 1, want.tokens);
}

kn_status kn_dit_forward(const kn_dit *m, const kn_dit_args *args)
{
    KN_TRY(check_shape(m, args->rope, "latents", m->config.in_channels, &args->latents));
    KN_TRY(check_contexts(m, args));
    if (!args->contexts_only)
        KN_TRY(check_shape(m, args->rope, "velocities", m->config.out_channels, &args->velocity));
    if (!(args->timestep >= 0 && args->timestep <= 1000))
        return kn_fail(KN_ERR_ARG, "transformer: timestep is %g: expected 0 to 1000",
                       args->timestep);
    pass p = {.m = m,
              .args = args,
              .dev = m->dev,
              .mem = args->scratch,
              .L = args->rope->tokens,
              .d = kn_dit_width(&m->config)};
    kn_arena_mark mark = kn_arena_get_mark(args->scratch);
    kn_status st = run(&p);
    kn_arena_reset(args->scratch, mark);
    if (st == KN_ERR_CANCELLED) return st;
    return KN_CTX(
        st, p.block < m->config.layers ? "transformer, block %d" : "transformer, head after %d",
        p.block);
}

kn_status kn_dit_scratch_bytes(const kn_dit *m, const kn_dit_args *args, size_t *bytes)
{
    *bytes = 0;
    kn_status st = KN_OK;
    kn_dev *measure = NULL;
    kn_arena *arena = NULL;
    kn_dit model = *m;
    kn_dit_args call = *args;
    if (kn_dev_get_kind(m->dev) != KN_DEV_MEASURE) {
        KN_TRY_GOTO(kn_dev_open(
            &(kn_dev_params){.kind = KN_DEV_MEASURE, .measured = kn_dev_measured(m->dev)},
            &measure));
        model.dev = measure;
    } /* else: a second measure device would hand out the addresses of the first one's weights */
    KN_TRY_GOTO(kn_arena_open(model.dev, 0, &arena));
    call.scratch = arena;
    call.tap.fn = NULL;
    call.records = NULL;
    KN_TRY_GOTO(kn_dit_forward(&model, &call));
    *bytes = kn_arena_peak(arena);
done:
    kn_arena_close(&arena);
    kn_dev_close(&measure);
    return KN_CTX(st, "measuring the transformer");
}
