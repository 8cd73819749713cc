#include "vae/weights.h"

#include <stdio.h>
#include <string.h>

enum { PREFIX_CHARS = 96 };

/* ---- single layers ----------------------------------------------------------------------------*/

static kn_status bind_conv(kn_binder *b, kn_vae_conv *c, kn_weight_kind kind, int rank,
                           const int64_t *dims, const char *prefix, const char *name)
{
    KN_TRY(kn_bind(b, &c->weight, kind, rank, dims, "%s.%s.weight", prefix, name));
    return kn_bind(b, &c->bias, KN_WEIGHT_VECTOR, 1, dims, "%s.%s.bias", prefix, name);
}

/* A convolution over time, height and width with k taps each. */
static kn_status bind_cube(kn_binder *b, kn_vae_conv *c, int64_t out, int64_t in, int64_t k,
                           const char *prefix, const char *name)
{
    return bind_conv(b, c, k == 1 ? KN_WEIGHT_LINEAR : KN_WEIGHT_CONV, 5,
                     (int64_t[]){out, in, k, k, k}, prefix, name);
}

/* rank: 4 for norms of videos, 3 for those of images. */
static kn_status bind_gamma(kn_binder *b, kn_weight *w, int64_t channels, int rank,
                            const char *prefix, const char *name)
{
    return kn_bind(b, w, KN_WEIGHT_VECTOR, rank, (int64_t[]){channels, 1, 1, 1}, "%s.%s.gamma",
                   prefix, name);
}

static kn_status bind_resnet(kn_binder *b, kn_vae_resnet *r, int64_t in, int64_t out,
                             const char *prefix)
{
    r->in = in;
    r->out = out;
    KN_TRY(bind_gamma(b, &r->norm1, in, 4, prefix, "norm1"));
    KN_TRY(bind_cube(b, &r->conv1, out, in, 3, prefix, "conv1"));
    KN_TRY(bind_gamma(b, &r->norm2, out, 4, prefix, "norm2"));
    KN_TRY(bind_cube(b, &r->conv2, out, out, 3, prefix, "conv2"));
    if (in == out) return KN_OK;
    return bind_cube(b, &r->shortcut, out, in, 1, prefix, "conv_shortcut");
}

/* time_out: output channels of the convolution over time. */
static kn_status bind_resample(kn_binder *b, kn_vae_resample *r, int64_t in, int64_t out,
                               bool temporal, int64_t time_out, const char *prefix)
{
    r->in = in;
    r->out = out;
    r->temporal = temporal;
    KN_TRY(bind_conv(b, &r->space, KN_WEIGHT_CONV, 4, (int64_t[]){out, in, 3, 3}, prefix,
                     "resample.1"));
    if (!temporal) return KN_OK;
    return bind_conv(b, &r->time, KN_WEIGHT_CONV, 5, (int64_t[]){time_out, in, 3, 1, 1}, prefix,
                     "time_conv");
}

/* ---- the two sides ----------------------------------------------------------------------------*/

static kn_status bind_middle(kn_binder *b, kn_vae_side_weights *w, int64_t channels,
                             const char *side)
{
    char prefix[PREFIX_CHARS];
    for (int i = 0; i < 2; i++) {
        snprintf(prefix, sizeof prefix, "%s.mid_block.resnets.%d", side, i);
        KN_TRY(bind_resnet(b, &w->mid[i], channels, channels, prefix));
    }
    snprintf(prefix, sizeof prefix, "%s.mid_block.attentions.0", side);
    KN_TRY(bind_gamma(b, &w->mid_norm, channels, 3, prefix, "norm"));
    KN_TRY(bind_conv(b, &w->mid_qkv, KN_WEIGHT_LINEAR, 4, (int64_t[]){3 * channels, channels, 1, 1},
                     prefix, "to_qkv"));
    return bind_conv(b, &w->mid_proj, KN_WEIGHT_LINEAR, 4, (int64_t[]){channels, channels, 1, 1},
                     prefix, "proj");
}

static kn_status bind_ends(kn_binder *b, kn_vae_side_weights *w, int64_t in, int64_t first,
                           int64_t last, int64_t out, const char *side)
{
    KN_TRY(bind_cube(b, &w->conv_in, first, in, 3, side, "conv_in"));
    KN_TRY(bind_gamma(b, &w->norm_out, last, 4, side, "norm_out"));
    return bind_cube(b, &w->conv_out, out, last, 3, side, "conv_out");
}

static kn_status bind_encoder(kn_binder *b, const kn_vae_config *c, kn_vae_side_weights *w)
{
    char prefix[PREFIX_CHARS];
    int64_t width = c->encoder_base;
    int place = 0; /* down_blocks counts resnets and resamples alike */
    for (int i = 0; i < c->levels; i++) {
        kn_vae_level *l = &w->level[i];
        int64_t out = c->encoder_base * c->mult[i];
        for (l->count = 0; l->count < c->resnets; l->count++) {
            snprintf(prefix, sizeof prefix, "encoder.down_blocks.%d", place++);
            KN_TRY(bind_resnet(b, &l->resnet[l->count], width, out, prefix));
            width = out;
        }
        if (i == c->levels - 1) break;
        snprintf(prefix, sizeof prefix, "encoder.down_blocks.%d", place++);
        KN_TRY(bind_resample(b, &l->resample, out, out, c->temporal[i], out, prefix));
    }
    KN_TRY(bind_middle(b, w, width, "encoder"));
    KN_TRY(bind_ends(b, w, 3, c->encoder_base, width, 2 * c->z, "encoder"));
    KN_TRY(kn_bind(b, &w->point.weight, KN_WEIGHT_LINEAR, 5,
                   (int64_t[]){2 * c->z, 2 * c->z, 1, 1, 1}, "quant_conv.weight"));
    return kn_bind(b, &w->point.bias, KN_WEIGHT_VECTOR, 1, (int64_t[]){2 * c->z},
                   "quant_conv.bias");
}

static kn_status bind_decoder(kn_binder *b, const kn_vae_config *c, kn_vae_side_weights *w)
{
    char prefix[PREFIX_CHARS];
    int64_t deepest = c->decoder_base * c->mult[c->levels - 1], width = deepest;
    for (int i = 0; i < c->levels; i++) {
        kn_vae_level *l = &w->level[i];
        int64_t out = c->decoder_base * c->mult[c->levels - 1 - i];
        for (l->count = 0; l->count < c->resnets + 1; l->count++) {
            snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.resnets.%d", i, l->count);
            KN_TRY(bind_resnet(b, &l->resnet[l->count], width, out, prefix));
            width = out;
        }
        if (i == c->levels - 1) break;
        snprintf(prefix, sizeof prefix, "decoder.up_blocks.%d.upsamplers.0", i);
        width = out / 2;
        KN_TRY(bind_resample(b, &l->resample, out, width, c->temporal[c->levels - 2 - i], 2 * out,
                             prefix));
    }
    KN_TRY(bind_middle(b, w, deepest, "decoder"));
    KN_TRY(bind_ends(b, w, c->z, deepest, width, 3, "decoder"));
    KN_TRY(kn_bind(b, &w->point.weight, KN_WEIGHT_LINEAR, 5, (int64_t[]){c->z, c->z, 1, 1, 1},
                   "post_quant_conv.weight"));
    return kn_bind(b, &w->point.bias, KN_WEIGHT_VECTOR, 1, (int64_t[]){c->z},
                   "post_quant_conv.bias");
}

/* ---- all --------------------------------------------------------------------------------------*/

/* The tensors of a side that is not opened are no surplus. */
static void excuse(kn_binder *b, kn_vae_side side)
{
    static const char *const prefixes[KN_VAE_SIDES][2] = {{"encoder.", "quant_conv."},
                                                          {"decoder.", "post_quant_conv."}};
    for (int i = 0; i < kn_safetensors_count(b->file); i++)
        for (int k = 0; k < 2; k++) {
            const char *p = prefixes[side][k];
            if (strncmp(kn_safetensors_at(b->file, i)->name, p, strlen(p)) == 0) b->used[i] = 1;
        }
}

kn_status kn_vae_weights_open(kn_dev *d, kn_safetensors *file, const kn_vae_config *c,
                              const bool wanted[KN_VAE_SIDES],
                              kn_vae_side_weights out[KN_VAE_SIDES])
{
    memset(out, 0, KN_VAE_SIDES * sizeof *out);
    kn_status st = KN_OK;
    kn_binder b;
    KN_TRY(kn_binder_open(d, file, &b));
    if (wanted[KN_VAE_ENCODE])
        KN_TRY_GOTO(bind_encoder(&b, c, &out[KN_VAE_ENCODE]));
    else
        excuse(&b, KN_VAE_ENCODE);
    if (wanted[KN_VAE_DECODE])
        KN_TRY_GOTO(bind_decoder(&b, c, &out[KN_VAE_DECODE]));
    else
        excuse(&b, KN_VAE_DECODE);
    KN_TRY_GOTO(kn_binder_finish(&b));
done:
    kn_binder_close(&b);
    if (st != KN_OK) kn_vae_weights_close(d, out);
    return st;
}

static void close_conv(kn_dev *d, kn_vae_conv *c)
{
    kn_weight_close(d, &c->weight);
    kn_weight_close(d, &c->bias);
}

static void close_resnet(kn_dev *d, kn_vae_resnet *r)
{
    kn_weight_close(d, &r->norm1);
    kn_weight_close(d, &r->norm2);
    close_conv(d, &r->conv1);
    close_conv(d, &r->conv2);
    close_conv(d, &r->shortcut);
}

void kn_vae_weights_close(kn_dev *d, kn_vae_side_weights w[KN_VAE_SIDES])
{
    for (int s = 0; s < KN_VAE_SIDES; s++) {
        kn_vae_side_weights *side = &w[s];
        for (int i = 0; i < KN_VAE_MAX_LEVELS; i++) {
            for (int k = 0; k < KN_VAE_MAX_RESNETS; k++) close_resnet(d, &side->level[i].resnet[k]);
            close_conv(d, &side->level[i].resample.space);
            close_conv(d, &side->level[i].resample.time);
        }
        for (int i = 0; i < 2; i++) close_resnet(d, &side->mid[i]);
        kn_weight_close(d, &side->mid_norm);
        kn_weight_close(d, &side->norm_out);
        kn_vae_conv *const ends[] = {&side->point, &side->conv_in, &side->mid_qkv, &side->mid_proj,
                                     &side->conv_out};
        for (int i = 0; i < 5; i++) close_conv(d, ends[i]);
    }
}
