#include "vae/wan_vae.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/memory.h"

/* Frames that a causal kernel of three taps looks back. */
enum { PAST = 2 };

struct kn_vae {
    kn_dev *dev;
    kn_vae_config config;
    kn_vae_side_weights side[KN_VAE_SIDES];
    bool open[KN_VAE_SIDES];
};

/* The last `valid` of `frames` are the end of what a convolution has been fed. */
typedef struct past_frames {
    kn_tensor frames;
    int valid;
} past_frames;

struct kn_vae_part {
    kn_dev *dev;
    const kn_vae_config *config;
    const kn_vae_side_weights *w;
    kn_vae_side side;
    int first, end;
    kn_arena *state, *scratch;
    kn_vae_tap tap;
    kn_dtype dtype; /* of activations */
    bool started, last;
    past_frames *past;
    int past_count, past_next; /* convolutions take theirs in the order of the walk */
    int64_t largest;
    char at[64]; /* module at work, for messages */
};

/* ---- model ------------------------------------------------------------------------------------*/

kn_status kn_vae_open(kn_dev *d, const char *folder, bool encode, bool decode, kn_vae **out)
{
    *out = NULL;
    kn_status st = KN_OK;
    kn_vae *m = NULL;
    kn_safetensors *file = NULL;
    char *path = NULL;
    void *p;
    KN_TRY_GOTO(kn_alloc_zero(sizeof *m, &p));
    m = p;
    m->dev = d;
    m->open[KN_VAE_ENCODE] = encode;
    m->open[KN_VAE_DECODE] = decode;
    KN_TRY_GOTO(kn_asprintf(&path, "%s/config.json", folder));
    KN_TRY_GOTO(kn_vae_config_read(path, &m->config));
    KN_TRY_GOTO(kn_safetensors_open(folder, "diffusion_pytorch_model", &file));
    KN_TRY_GOTO(kn_vae_weights_open(d, file, &m->config, m->open, m->side));
    *out = m;
    m = NULL;
done:
    kn_vae_close(&m);
    kn_safetensors_close(&file);
    kn_free(path);
    return KN_CTX(st, "loading the VAE from %s", folder);
}

void kn_vae_close(kn_vae **m)
{
    if (!*m) return;
    kn_vae_weights_close((*m)->dev, (*m)->side);
    kn_free(*m);
    *m = NULL;
}

const kn_vae_config *kn_vae_get_config(const kn_vae *m)
{
    return &m->config;
}
kn_dev *kn_vae_dev(const kn_vae *m)
{
    return m->dev;
}

/* ---- parts: opening ---------------------------------------------------------------------------*/

kn_status kn_vae_part_open(const kn_vae *m, kn_dev *d, kn_vae_side side, int first, int end,
                           kn_arena *state, const kn_vae_tap *tap, kn_vae_part **out)
{
    static const char *const names[] = {"encoder", "decoder"};
    *out = NULL;
    const kn_vae_config *c = &m->config;
    if (!m->open[side])
        return kn_fail(KN_ERR_ARG, "VAE: the %s was not opened with the model", names[side]);
    if (first < 0 || end <= first || end > c->levels)
        return kn_fail(KN_ERR_ARG, "VAE: levels %d to %d asked for, the model has %d", first, end,
                       c->levels);
    void *memory;
    KN_TRY(kn_alloc_zero(sizeof(kn_vae_part), &memory));
    kn_vae_part *p = memory;
    *p = (kn_vae_part){.dev = d,
                       .config = c,
                       .w = &m->side[side],
                       .side = side,
                       .first = first,
                       .end = end,
                       .state = state,
                       .dtype = kn_dev_activation_dtype(d)};
    if (tap) p->tap = *tap;
    /* Two per resnet, one per resample, conv_in and conv_out. */
    p->past_count = c->levels * (2 * (c->resnets + 1) + 1) + 4 + 2;
    kn_status st = kn_alloc_array((size_t)p->past_count, sizeof *p->past, &memory);
    if (st != KN_OK) {
        kn_free(p);
        return st;
    }
    p->past = memory;
    *out = p;
    return KN_OK;
}

void kn_vae_part_close(kn_vae_part **p)
{
    if (!*p) return;
    kn_free((*p)->past);
    kn_free(*p);
    *p = NULL;
}

void kn_vae_part_last(kn_vae_part *p)
{
    p->last = true;
}

int64_t kn_vae_part_largest(const kn_vae_part *p)
{
    return p->largest;
}

/* Does the frame rate change after this level? */
static bool temporal_after(const kn_vae_part *p, int level)
{
    return level < p->config->levels - 1 && p->w->level[level].resample.temporal;
}

int kn_vae_part_room(const kn_vae_part *p)
{
    return p->side == KN_VAE_ENCODE && p->first > 0 && temporal_after(p, p->first - 1);
}

int kn_vae_part_reach(const kn_vae_config *c, kn_vae_side side, int first, int end)
{
    int reach = 0;
    if (side == KN_VAE_DECODE) {
        /* Backwards from the output; a region's edges are even at every level but the first. */
        if (end == c->levels) reach++; /* conv_out */
        for (int i = end - 1; i >= first; i--) {
            reach += 2 * (c->resnets + 1);
            if (i > 0) reach = (reach + 1 + 1) / 2; /* convolution, then upsampling */
        }
        return reach;
    }
    for (int i = end - 1; i >= first; i--) {
        if (i < c->levels - 1) reach = 2 * reach + 1; /* taps 2x, 2x+1, 2x+2 */
        reach += 2 * c->resnets;
    }
    return first == 0 ? reach + 1 : reach; /* conv_in */
}

/* ---- memory and taps --------------------------------------------------------------------------*/

/* [T,H,W,C] in scratch, with `room` free frames before it. */
static kn_status take(kn_vae_part *p, int room, int64_t T, const kn_tensor *like, int64_t C,
                      kn_tensor *out)
{
    kn_tensor all;
    KN_TRY(kn_arena_take(p->scratch, &all, p->dtype, room + T, like->dim[1], like->dim[2], C));
    if (kn_tensor_count(&all) > p->largest) p->largest = kn_tensor_count(&all);
    *out = kn_tensor_slice(&all, 0, room, T);
    return KN_OK;
}

static kn_status tapped(kn_vae_part *p, const kn_tensor *t)
{
    return p->tap.fn ? p->tap.fn(p->tap.user, p->at, t) : KN_OK;
}

#define SET_AT(p, ...) snprintf((p)->at, sizeof(p)->at, __VA_ARGS__)

/* View of the `count` frames before x (which has room for them). */
static kn_tensor frames_before(const kn_tensor *x, int count)
{
    kn_tensor t = *x;
    t.data = (char *)x->data - (size_t)(count * x->stride[0]) * kn_dtype_size(x->dtype);
    t.dim[0] = count;
    return t;
}

static kn_tensor frame(const kn_tensor *x, int64_t t)
{
    return kn_tensor_slice(x, 0, t, 1);
}

/* ---- causal convolution -----------------------------------------------------------------------*/

/* Put the past of a convolution right before x, and remember the end of x for its next call.
 * depth: frames to keep. *have: frames now before x. */
static kn_status join_past(kn_vae_part *p, const kn_tensor *x, int depth, int *have)
{
    if (p->past_next == p->past_count)
        return kn_fail(KN_ERR_INTERNAL, "VAE: more than %d convolutions", p->past_count);
    past_frames *past = &p->past[p->past_next++];
    if (past->frames.rank == 0 && !p->last)
        KN_TRY(kn_arena_take(p->state, &past->frames, x->dtype, depth, x->dim[1], x->dim[2],
                             x->dim[3]));
    *have = past->valid;
    if (past->valid) {
        kn_tensor from = kn_tensor_slice(&past->frames, 0, depth - past->valid, past->valid);
        kn_tensor to = frames_before(x, past->valid);
        KN_TRY(kn_copy(p->dev, &from, &to));
    }
    if (p->last) return KN_OK;
    int64_t total = past->valid + x->dim[0], keep = total < depth ? total : depth;
    kn_tensor all = frames_before(x, past->valid);
    all.dim[0] = total;
    kn_tensor from = kn_tensor_slice(&all, 0, total - keep, keep);
    kn_tensor to = kn_tensor_slice(&past->frames, 0, depth - keep, keep);
    KN_TRY(kn_copy(p->dev, &from, &to));
    past->valid = (int)keep;
    return KN_OK;
}

/* out = conv(past frames, x) + residual; zeros stand for frames before the first. space: padding of
 * height and width. x has room for PAST frames before it. */
static kn_status causal_conv(kn_vae_part *p, const kn_vae_conv *c, const kn_tensor *x, int space,
                             const kn_tensor *residual, const kn_tensor *out)
{
    int have = 0;
    KN_TRY(join_past(p, x, PAST, &have));
    kn_tensor in = frames_before(x, have);
    in.dim[0] = have + x->dim[0];
    kn_conv_params params = {
        .stride = {1, 1, 1}, .pad_lo = {PAST - have, space, space}, .pad_hi = {0, space, space}};
    return kn_conv(p->dev, &in, &c->weight, &c->bias.t, residual, &params, out);
}

/* out = conv(silu(norm(x))) + residual */
static kn_status norm_conv(kn_vae_part *p, const kn_tensor *x, const kn_weight *gamma,
                           const kn_vae_conv *c, const kn_tensor *residual, const kn_tensor *out)
{
    /* F.normalize: x / max(|x|, 1e-12) */
    kn_rmsnorm_params params = {.eps = 1e-12f, .l2_clamp = true, .act = KN_ACT_SILU};
    kn_tensor work;
    kn_arena_mark mark = kn_arena_get_mark(p->scratch);
    KN_TRY(take(p, PAST, x->dim[0], x, x->dim[3], &work));
    KN_TRY(kn_rmsnorm(p->dev, x, &gamma->t, &params, &work));
    KN_TRY(causal_conv(p, c, &work, 1, residual, out));
    kn_arena_reset(p->scratch, mark);
    return KN_OK;
}

/* ---- blocks -----------------------------------------------------------------------------------*/

/* x becomes resnet(x): in place, or in new memory with `room` frames before it. */
static kn_status resnet(kn_vae_part *p, const kn_vae_resnet *r, int room, kn_tensor *x)
{
    kn_tensor out = *x, h;
    if (r->in != r->out) {
        KN_TRY(take(p, room, x->dim[0], x, r->out, &out));
        KN_TRY(kn_linear(p->dev, x, &r->shortcut.weight, &r->shortcut.bias.t, KN_ACT_NONE, &out));
    }
    kn_arena_mark mark = kn_arena_get_mark(p->scratch);
    KN_TRY(take(p, 0, x->dim[0], x, r->out, &h));
    KN_TRY(norm_conv(p, x, &r->norm1, &r->conv1, KN_ABSENT, &h));
    KN_TRY(norm_conv(p, &h, &r->norm2, &r->conv2, &out, &out));
    kn_arena_reset(p->scratch, mark);
    *x = out;
    return tapped(p, x);
}

/* x += proj(attention(qkv(norm(x)))), one head, each frame by itself */
static kn_status attention(kn_vae_part *p, const kn_tensor *x)
{
    kn_dev *d = p->dev;
    kn_rmsnorm_params params = {.eps = 1e-12f, .l2_clamp = true};
    int64_t T = x->dim[0], L = x->dim[1] * x->dim[2], C = x->dim[3];
    kn_tensor h, qkv;
    kn_arena_mark mark = kn_arena_get_mark(p->scratch);
    KN_TRY(take(p, 0, T, x, C, &h));
    KN_TRY(take(p, 0, T, x, 3 * C, &qkv));
    KN_TRY(kn_rmsnorm(d, x, &p->w->mid_norm.t, &params, &h));
    KN_TRY(kn_linear(d, &h, &p->w->mid_qkv.weight, &p->w->mid_qkv.bias.t, KN_ACT_NONE, &qkv));
    for (int64_t t = 0; t < T; t++) {
        kn_tensor one = frame(&qkv, t), rows = kn_tensor_view(&one, L, 3, C);
        kn_tensor q = kn_tensor_slice(&rows, 1, 0, 1), k = kn_tensor_slice(&rows, 1, 1, 1);
        kn_tensor v = kn_tensor_slice(&rows, 1, 2, 1), hidden = frame(&h, t);
        kn_attn_args args = {.q = q,
                             .k = k,
                             .v = v,
                             .scale = (float)(1 / sqrt((double)C)),
                             .out = kn_tensor_view(&hidden, L, 1, C)};
        KN_TRY(kn_attn_dense(d, &args, p->scratch));
    }
    kn_tensor out = kn_tensor_make(qkv.data, p->dtype, 4, x->dim);
    KN_TRY(kn_linear(d, &h, &p->w->mid_proj.weight, &p->w->mid_proj.bias.t, KN_ACT_NONE, &out));
    KN_TRY(kn_gate_add(d, x, &out, KN_ABSENT, x));
    kn_arena_reset(p->scratch, mark);
    return tapped(p, x);
}

static const char *side_name(const kn_vae_part *p)
{
    return p->side == KN_VAE_ENCODE ? "encoder" : "decoder";
}

static kn_status middle(kn_vae_part *p, kn_tensor *x)
{
    SET_AT(p, "%s.mid_block.resnets.0", side_name(p));
    KN_TRY(resnet(p, &p->w->mid[0], 0, x));
    SET_AT(p, "%s.mid_block.attentions.0", side_name(p));
    KN_TRY(attention(p, x));
    SET_AT(p, "%s.mid_block.resnets.1", side_name(p));
    return resnet(p, &p->w->mid[1], 0, x);
}

/* x: input of conv_in with room before it; out gets `room` too. */
static kn_status conv_in(kn_vae_part *p, const kn_tensor *x, int room, kn_tensor *out)
{
    SET_AT(p, "%s.conv_in", side_name(p));
    KN_TRY(take(p, room, x->dim[0], x, p->w->conv_in.weight.t.dim[0], out));
    KN_TRY(causal_conv(p, &p->w->conv_in, x, 1, KN_ABSENT, out));
    return tapped(p, out);
}

/* conv_out(silu(norm_out(x))) */
static kn_status tail(kn_vae_part *p, const kn_tensor *x, kn_tensor *out)
{
    SET_AT(p, "%s.conv_out", side_name(p));
    KN_TRY(take(p, 0, x->dim[0], x, p->w->conv_out.weight.t.dim[0], out));
    KN_TRY(norm_conv(p, x, &p->w->norm_out, &p->w->conv_out, KN_ABSENT, out));
    return tapped(p, out);
}

/* ---- decoder ----------------------------------------------------------------------------------*/

/* Room that the x of a level needs before it, for its time convolution. */
static int decode_room(const kn_vae_part *p, int level)
{
    return temporal_after(p, level) ? PAST : 0;
}

static kn_status decode_head(kn_vae_part *p, const kn_tensor *latents, kn_tensor *x)
{
    kn_tensor z, work;
    KN_TRY(take(p, PAST, latents->dim[0], latents, p->config->z, &work));
    KN_TRY(take(p, 0, latents->dim[0], latents, p->config->z, &z));
    KN_TRY(kn_copy(p->dev, latents, &z));
    SET_AT(p, "post_quant_conv");
    KN_TRY(kn_linear(p->dev, &z, &p->w->point.weight, &p->w->point.bias.t, KN_ACT_NONE, &work));
    KN_TRY(tapped(p, &work));
    KN_TRY(conv_in(p, &work, decode_room(p, 0), x));
    return middle(p, x);
}

/* x [T,H,W,C] to frames: the very first one as it is, two from each other one. The first frame is
 * no past to the others (diffusers: feat_cache "Rep"). x has room before it. */
static kn_status time_up(kn_vae_part *p, const kn_vae_resample *r, const kn_tensor *x,
                         kn_vae_frames *out)
{
    int64_t lead = p->started ? 0 : 1, rest = x->dim[0] - lead;
    *out = (kn_vae_frames){.plain = kn_tensor_slice(x, 0, 0, r->temporal ? lead : x->dim[0])};
    if (!r->temporal) return KN_OK;
    kn_tensor later = kn_tensor_slice(x, 0, lead, rest);
    if (rest == 0) {
        p->past_next++; /* its turn passes */
        return KN_OK;
    }
    KN_TRY(take(p, 0, rest, x, 2 * r->in, &out->pairs));
    return causal_conv(p, &r->time, &later, 0, KN_ABSENT, &out->pairs);
}

/* Frame t of a list as a view [1,H,W,C], rows strided in a pair. */
static kn_tensor frame_of(const kn_vae_frames *x, int64_t t)
{
    int64_t lead = x->plain.dim[0];
    if (t < lead) return frame(&x->plain, t);
    kn_tensor pair = frame(&x->pairs, (t - lead) / 2);
    int64_t C = pair.dim[3] / 2;
    return kn_tensor_slice(&pair, 3, (t - lead) % 2 * C, C);
}

static int64_t count_of(const kn_vae_frames *x)
{
    return x->plain.dim[0] + (x->pairs.rank ? 2 * x->pairs.dim[0] : 0);
}

/* Nearest-neighbour doubling and a 3x3 convolution, frame by frame: the doubled frame is the
 * largest tensor of all. */
static kn_status space_up(kn_vae_part *p, const kn_vae_resample *r, int room,
                          const kn_vae_frames *in, kn_tensor *out)
{
    kn_conv_params params = {.stride = {1, 1, 1}, .pad_lo = {0, 1, 1}, .pad_hi = {0, 1, 1}};
    int64_t T = count_of(in);
    kn_tensor wide = in->plain, doubled;
    wide.dim[1] *= 2;
    wide.dim[2] *= 2;
    KN_TRY(take(p, room, T, &wide, r->out, out));
    kn_arena_mark mark = kn_arena_get_mark(p->scratch);
    KN_TRY(take(p, 0, 1, &wide, r->in, &doubled));
    for (int64_t t = 0; t < T; t++) {
        kn_tensor from = frame_of(in, t), to = frame(out, t);
        KN_TRY(kn_upsample2(p->dev, &from, &doubled));
        KN_TRY(
            kn_conv(p->dev, &doubled, &r->space.weight, &r->space.bias.t, KN_ABSENT, &params, &to));
    }
    kn_arena_reset(p->scratch, mark);
    return tapped(p, out);
}

static kn_status decode(kn_vae_part *p, const kn_vae_frames *in, kn_vae_frames *out)
{
    kn_vae_frames frames = *in;
    kn_tensor x = {0};
    if (p->first == 0) KN_TRY(decode_head(p, &in->plain, &x));
    for (int i = p->first; i < p->end; i++) {
        const kn_vae_level *l = &p->w->level[i];
        if (i > 0) {
            SET_AT(p, "decoder.up_blocks.%d.upsamplers.0", i - 1);
            KN_TRY(space_up(p, &p->w->level[i - 1].resample, decode_room(p, i), &frames, &x));
        }
        for (int k = 0; k < l->count; k++) {
            SET_AT(p, "decoder.up_blocks.%d.resnets.%d", i, k);
            KN_TRY(resnet(p, &l->resnet[k], decode_room(p, i), &x));
        }
        SET_AT(p, "decoder.up_blocks.%d.upsamplers.0.time_conv", i);
        if (i < p->config->levels - 1) KN_TRY(time_up(p, &l->resample, &x, &frames));
    }
    if (p->end == p->config->levels) {
        frames = (kn_vae_frames){0};
        KN_TRY(tail(p, &x, &frames.plain));
    }
    *out = frames;
    return KN_OK;
}

/* ---- encoder ----------------------------------------------------------------------------------*/

static kn_status encode_head(kn_vae_part *p, const kn_tensor *pixels, kn_tensor *x)
{
    kn_tensor work;
    KN_TRY(take(p, PAST, pixels->dim[0], pixels, 3, &work));
    KN_TRY(kn_copy(p->dev, pixels, &work));
    return conv_in(p, &work, 0, x);
}

/* A 3x3 convolution of stride 2, zeros at the right and bottom only. */
static kn_status space_down(kn_vae_part *p, const kn_vae_resample *r, const kn_tensor *x,
                            kn_tensor *out)
{
    kn_conv_params params = {.stride = {1, 2, 2}, .pad_hi = {0, 1, 1}};
    kn_tensor half = *x;
    half.dim[1] /= 2;
    half.dim[2] /= 2;
    KN_TRY(take(p, r->temporal, x->dim[0], &half, r->out, out));
    return kn_conv(p->dev, x, &r->space.weight, &r->space.bias.t, KN_ABSENT, &params, out);
}

/* The very first frame as it is; then one frame from each two, which looks at them and the one
 * before. x has room for one frame. */
static kn_status time_down(kn_vae_part *p, const kn_vae_resample *r, kn_tensor *x)
{
    if (!r->temporal) return KN_OK;
    int64_t T = x->dim[0], lead = p->started ? 0 : 1, pairs = (T - lead) / 2;
    int have = 0;
    if (T < 1 || (T - lead) % 2)
        return kn_fail(KN_ERR_ARG, "VAE: %" PRId64 " frames cannot be halved", T);
    KN_TRY(join_past(p, x, 1, &have));
    if (pairs == 0) return KN_OK;
    kn_tensor out;
    KN_TRY(take(p, 0, lead + pairs, x, r->out, &out));
    if (lead) {
        kn_tensor from = frame(x, 0), to = frame(&out, 0);
        KN_TRY(kn_copy(p->dev, &from, &to));
    }
    kn_tensor in = frames_before(x, have), later = kn_tensor_slice(&out, 0, lead, pairs);
    in.dim[0] = have + T;
    kn_conv_params params = {.stride = {2, 1, 1}};
    KN_TRY(kn_conv(p->dev, &in, &r->time.weight, &r->time.bias.t, KN_ABSENT, &params, &later));
    *x = out;
    return KN_OK;
}

static kn_status encode_tail(kn_vae_part *p, kn_tensor *x, kn_tensor *out)
{
    kn_tensor moments;
    KN_TRY(middle(p, x));
    KN_TRY(tail(p, x, &moments));
    SET_AT(p, "quant_conv");
    KN_TRY(take(p, 0, x->dim[0], x, 2 * p->config->z, out));
    KN_TRY(kn_linear(p->dev, &moments, &p->w->point.weight, &p->w->point.bias.t, KN_ACT_NONE, out));
    return tapped(p, out);
}

static kn_status encode(kn_vae_part *p, const kn_vae_frames *in, kn_vae_frames *out)
{
    kn_tensor x = in->plain;
    int resnets = p->config->resnets;
    if (p->first == 0) KN_TRY(encode_head(p, &in->plain, &x));
    for (int i = p->first; i < p->end; i++) {
        const kn_vae_level *l = &p->w->level[i];
        if (i > 0) {
            SET_AT(p, "encoder.down_blocks.%d", i * (resnets + 1) - 1);
            KN_TRY(time_down(p, &p->w->level[i - 1].resample, &x));
            KN_TRY(tapped(p, &x));
        }
        for (int k = 0; k < l->count; k++) {
            SET_AT(p, "encoder.down_blocks.%d", i * (resnets + 1) + k);
            KN_TRY(resnet(p, &l->resnet[k], 0, &x));
        }
        SET_AT(p, "encoder.down_blocks.%d.resample", i * (resnets + 1) + resnets);
        if (i < p->config->levels - 1) {
            kn_tensor half;
            KN_TRY(space_down(p, &l->resample, &x, &half));
            x = half;
        }
    }
    *out = (kn_vae_frames){.plain = x};
    return p->end == p->config->levels ? encode_tail(p, &x, &out->plain) : KN_OK;
}

/* ---- running ----------------------------------------------------------------------------------*/

kn_status kn_vae_part_run(kn_vae_part *p, const kn_vae_frames *in, kn_arena *scratch,
                          kn_vae_frames *out)
{
    p->scratch = scratch;
    p->past_next = 0;
    kn_status st = p->side == KN_VAE_DECODE ? decode(p, in, out) : encode(p, in, out);
    if (st == KN_OK) p->started = true;
    return st == KN_ERR_CANCELLED ? st : KN_CTX(st, "VAE, %s", p->at);
}
