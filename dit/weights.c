#include "dit/weights.h"

#include <stdio.h>
#include <string.h>

#include "io/memory.h"

/* ---- the table --------------------------------------------------------------------------------*/
/* Symbols of the shapes below; dim_value gives their numbers. */
typedef enum dim {
    END,
    ONE,
    TWO,
    SIX,
    D_, /* d */
    D6, /* 6 d */
    C_IN,
    TEXT,
    FREQ,
    FFN,
    PT,
    PH,
    PW,
    HEAD /* pt ph pw C_out */
} dim;

typedef struct entry {
    const char *diffusers, *original;
    size_t offset;
    kn_weight_kind kind;
    unsigned char shape[5]; /* of dim; ends at END */
} entry;

/* clang-format off */
#define TOP(field) offsetof(kn_dit_weights, field)
#define BLK(field) offsetof(kn_dit_block, field)
#define VECTOR(at, field, diffusers, original, ...)                                                \
    {diffusers, original, at(field), KN_WEIGHT_VECTOR, {__VA_ARGS__}}
#define LINEAR(at, field, diffusers, original, n, ...)                                             \
    {diffusers ".weight", original ".weight", at(field.weight), KN_WEIGHT_LINEAR,                  \
     {n, __VA_ARGS__}},                                                                            \
    VECTOR(at, field.bias, diffusers ".bias", original ".bias", n)
#define ATTENTION(field, diffusers, original)                                                      \
    LINEAR(BLK, field.q, diffusers ".to_q", original ".q", D_, D_),                                \
    LINEAR(BLK, field.k, diffusers ".to_k", original ".k", D_, D_),                                \
    LINEAR(BLK, field.v, diffusers ".to_v", original ".v", D_, D_),                                \
    LINEAR(BLK, field.out, diffusers ".to_out.0", original ".o", D_, D_),                          \
    VECTOR(BLK, field.norm_q, diffusers ".norm_q.weight", original ".norm_q.weight", D_),          \
    VECTOR(BLK, field.norm_k, diffusers ".norm_k.weight", original ".norm_k.weight", D_)

static const entry top_table[] = {
    LINEAR(TOP, patch, "patch_embedding", "patch_embedding", D_, C_IN, PT, PH, PW),
    LINEAR(TOP, text_1, "condition_embedder.text_embedder.linear_1", "text_embedding.0", D_, TEXT),
    LINEAR(TOP, text_2, "condition_embedder.text_embedder.linear_2", "text_embedding.2", D_, D_),
    LINEAR(TOP, time_1, "condition_embedder.time_embedder.linear_1", "time_embedding.0", D_, FREQ),
    LINEAR(TOP, time_2, "condition_embedder.time_embedder.linear_2", "time_embedding.2", D_, D_),
    LINEAR(TOP, time_proj, "condition_embedder.time_proj", "time_projection.1", D6, D_),
    LINEAR(TOP, head, "proj_out", "head.head", HEAD, D_),
    VECTOR(TOP, head_modulation, "scale_shift_table", "head.modulation", ONE, TWO, D_),
};

static const entry block_table[] = {
    VECTOR(BLK, modulation, "scale_shift_table", "modulation", ONE, SIX, D_),
    ATTENTION(self, "attn1", "self_attn"),
    ATTENTION(cross, "attn2", "cross_attn"),
    LINEAR(BLK, up, "ffn.net.0.proj", "ffn.0", FFN, D_),
    LINEAR(BLK, down, "ffn.net.2", "ffn.2", D_, FFN),
    /* Last two: absent when cross_attn_norm is false. */
    VECTOR(BLK, norm.weight, "norm2.weight", "norm3.weight", D_),
    VECTOR(BLK, norm.bias, "norm2.bias", "norm3.bias", D_),
};
/* clang-format on */

enum {
    TOP_COUNT = sizeof top_table / sizeof top_table[0],
    BLOCK_COUNT = sizeof block_table / sizeof block_table[0]
};

static int64_t dim_value(const kn_dit_config *c, dim which)
{
    switch (which) {
    case END: return 0;
    case ONE: return 1;
    case TWO: return 2;
    case SIX: return 6;
    case D_: return kn_dit_width(c);
    case D6: return 6 * kn_dit_width(c);
    case C_IN: return c->in_channels;
    case TEXT: return c->text_dim;
    case FREQ: return c->freq_dim;
    case FFN: return c->ffn_dim;
    case PT: return c->patch[0];
    case PH: return c->patch[1];
    case PW: return c->patch[2];
    case HEAD: return kn_dit_patch_elements(c, c->out_channels);
    }
    return 0;
}

static int block_count(const kn_dit_config *c)
{
    return c->cross_attn_norm ? BLOCK_COUNT : BLOCK_COUNT - 2;
}

int kn_dit_slot_count(const kn_dit_config *c)
{
    return TOP_COUNT + c->layers * block_count(c);
}

kn_dit_slot kn_dit_slot_at(const kn_dit_config *c, kn_dit_naming naming, int i)
{
    kn_dit_slot slot = {.block = -1};
    const entry *e;
    char place[24] = "";
    if (i < TOP_COUNT) {
        e = &top_table[i];
    } else {
        slot.block = (i - TOP_COUNT) / block_count(c);
        e = &block_table[(i - TOP_COUNT) % block_count(c)];
        snprintf(place, sizeof place, "blocks.%d.", slot.block);
    }
    snprintf(slot.name, sizeof slot.name, "%s%s", place,
             naming == KN_DIT_DIFFUSERS ? e->diffusers : e->original);
    slot.kind = e->kind;
    slot.offset = e->offset;
    for (int k = 0; k < 5 && e->shape[k] != END; k++)
        slot.dims[slot.rank++] = dim_value(c, (dim)e->shape[k]);
    return slot;
}

/* ---- binding ----------------------------------------------------------------------------------*/
static bool has(const kn_safetensors *file, const char *prefix, const char *name)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return kn_safetensors_find(file, full, NULL) != NULL;
}

kn_status kn_dit_naming_detect(const kn_safetensors *file, kn_dit_naming *naming,
                               const char **prefix)
{
    static const char *const prefixes[] = {"", "model.diffusion_model."};
    *naming = KN_DIT_DIFFUSERS;
    *prefix = "";
    if (has(file, "", "condition_embedder.image_embedder.norm1.weight"))
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "%s: an image-conditioned transformer (condition_embedder."
                       "image_embedder is present); Kinora runs text-to-video ones",
                       kn_safetensors_path(file));
    if (has(file, "", "condition_embedder.time_proj.weight")) return KN_OK;
    for (int i = 0; i < 2; i++) {
        if (!has(file, prefixes[i], "time_projection.1.weight")) continue;
        if (has(file, prefixes[i], "img_emb.proj.0.weight"))
            return kn_fail(KN_ERR_UNSUPPORTED,
                           "%s: an image-conditioned transformer (img_emb is present);"
                           " Kinora runs text-to-video ones",
                           kn_safetensors_path(file));
        *naming = KN_DIT_ORIGINAL;
        *prefix = prefixes[i];
        return KN_OK;
    }
    return kn_fail(KN_ERR_MODEL,
                   "%s: not a Wan transformer: it has neither condition_embedder.time_proj."
                   "weight (diffusers' names) nor time_projection.1.weight (Wan's own names)",
                   kn_safetensors_path(file));
}

static kn_weight *slot_weight(kn_dit_weights *w, const kn_dit_slot *slot)
{
    char *base = slot->block < 0 ? (char *)w : (char *)&w->blocks[slot->block];
    return (kn_weight *)(void *)(base + slot->offset);
}

/* Of a block, what leaves the device; its modulation is read at the start of every forward. */
static kn_status send_block_away(kn_dit_weights *w, const kn_dit_config *c, int block)
{
    kn_weight *list[BLOCK_COUNT];
    int count = 0;
    for (int i = 0; i < block_count(c); i++)
        if (block_table[i].offset != BLK(modulation))
            list[count++] =
                (kn_weight *)(void *)((char *)&w->blocks[block] + block_table[i].offset);
    return kn_offload_add(w->offload, list, count);
}

kn_status kn_dit_weights_open(kn_dev *d, kn_safetensors *file, const kn_dit_config *c,
                              kn_dit_weights *out)
{
    memset(out, 0, sizeof *out);
    kn_status st = KN_OK;
    kn_binder binder = {0};
    kn_dit_naming naming;
    const char *prefix;
    void *p;
    KN_TRY_GOTO(kn_dit_naming_detect(file, &naming, &prefix));
    KN_TRY_GOTO(kn_alloc_array((size_t)c->layers, sizeof(kn_dit_block), &p));
    out->blocks = p;
    out->layers = c->layers;
    if (kn_dev_offloads(d)) KN_TRY_GOTO(kn_offload_open(d, c->layers, &out->offload));
    KN_TRY_GOTO(kn_binder_open(d, file, &binder));
    for (int i = 0; i < kn_dit_slot_count(c); i++) {
        kn_dit_slot slot = kn_dit_slot_at(c, naming, i);
        KN_TRY_GOTO(kn_bind(&binder, slot_weight(out, &slot), slot.kind, slot.rank, slot.dims,
                            "%s%s", prefix, slot.name));
        bool ends = i + 1 == kn_dit_slot_count(c) ||
                    (i >= TOP_COUNT && (i + 1 - TOP_COUNT) % block_count(c) == 0);
        if (out->offload && slot.block >= 0 && ends)
            KN_TRY_GOTO(send_block_away(out, c, slot.block));
    }
    KN_TRY_GOTO(kn_binder_finish(&binder));
    if (out->offload) KN_TRY_GOTO(kn_offload_seal(out->offload));
done:
    kn_binder_close(&binder);
    if (st != KN_OK) kn_dit_weights_close(d, out);
    return st;
}

static void close_table(kn_dev *d, const entry *table, int count, void *base)
{
    for (int i = 0; i < count; i++)
        kn_weight_close(d, (kn_weight *)(void *)((char *)base + table[i].offset));
}

void kn_dit_weights_close(kn_dev *d, kn_dit_weights *w)
{
    close_table(d, top_table, TOP_COUNT, w);
    for (int i = 0; i < w->layers; i++) close_table(d, block_table, BLOCK_COUNT, &w->blocks[i]);
    kn_offload_close(&w->offload);
    kn_free(w->blocks);
    memset(w, 0, sizeof *w);
}
