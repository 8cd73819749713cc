#include "dit/contexts.h"

#include "io/memory.h"

struct kn_dit_contexts {
    kn_dev *dev;
    kn_dit_contexts_shape shape;
    kn_dit_place place;
    void *all, *scales; /* on the device; the second of eight bits */
    void *host;
    kn_ferry *ferry;
};

static int64_t rows(const kn_dit_contexts *c)
{
    return c->shape.tokens * c->shape.heads;
}

/* Of one layer's context as it is computed. */
static size_t plain_bytes(const kn_dit_contexts *c)
{
    return (size_t)(rows(c) * c->shape.head_dim) * kn_dtype_size(c->shape.activation);
}

static size_t entries(const kn_dit_contexts *c)
{
    return (size_t)c->shape.layers * (size_t)c->shape.sets;
}

static size_t all_bytes(const kn_dit_contexts *c)
{
    if (c->place == KN_DIT_EIGHT_BITS) return entries(c) * (size_t)(rows(c) * c->shape.head_dim);
    return entries(c) * plain_bytes(c);
}

static size_t scale_bytes(const kn_dit_contexts *c)
{
    return entries(c) * (size_t)rows(c) * sizeof(float);
}

static kn_status open_memory(kn_dit_contexts *c)
{
    switch (c->place) {
    case KN_DIT_ON_DEVICE: return kn_dev_alloc(c->dev, all_bytes(c), &c->all);
    case KN_DIT_EIGHT_BITS:
        KN_TRY(kn_dev_alloc(c->dev, all_bytes(c), &c->all));
        return kn_dev_alloc(c->dev, scale_bytes(c), &c->scales);
    case KN_DIT_ON_HOST:
        KN_TRY(kn_ferry_open(c->dev, plain_bytes(c), &c->ferry));
        kn_status st = kn_ferry_host_open(c->dev, all_bytes(c), &c->host);
        if (st != KN_OK) kn_ferry_close(&c->ferry); /* close takes both or none */
        return st;
    }
    return kn_fail(KN_ERR_ARG, "contexts: unknown place %d", (int)c->place);
}

kn_status kn_dit_contexts_make(kn_dev *d, const kn_dit_contexts_shape *shape, kn_dit_place place,
                               kn_dit_contexts **out)
{
    *out = NULL;
    void *p;
    KN_TRY(kn_alloc_zero(sizeof(kn_dit_contexts), &p));
    kn_dit_contexts *c = p;
    *c = (kn_dit_contexts){.dev = d, .shape = *shape, .place = place};
    kn_status st = open_memory(c);
    if (st != KN_OK) kn_dit_contexts_close(&c);
    *out = c;
    return KN_CTX(st, "contexts of %d layers, %lld tokens", shape->layers,
                  (long long)shape->tokens);
}

void kn_dit_contexts_close(kn_dit_contexts **c)
{
    kn_dit_contexts *x = *c;
    if (!x) return;
    kn_dev_free(x->dev, x->scales, scale_bytes(x));
    kn_dev_free(x->dev, x->all, all_bytes(x));
    if (x->ferry) kn_ferry_host_close(x->dev, x->host, all_bytes(x));
    kn_ferry_close(&x->ferry);
    kn_free(x);
    *c = NULL;
}

const kn_dit_contexts_shape *kn_dit_contexts_get_shape(const kn_dit_contexts *c)
{
    return &c->shape;
}

kn_dit_place kn_dit_contexts_get_place(const kn_dit_contexts *c)
{
    return c->place;
}

/* ---- one block's ------------------------------------------------------------------------------*/
static size_t entry_of(const kn_dit_contexts *c, int set, int layer)
{
    return (size_t)set * (size_t)c->shape.layers + (size_t)(layer - c->shape.first);
}

static kn_tensor plain(const kn_dit_contexts *c, void *data)
{
    return kn_tensor_of(data, c->shape.activation, c->shape.tokens,
                        c->shape.heads * c->shape.head_dim);
}

static kn_tensor codes_of(const kn_dit_contexts *c, size_t entry)
{
    char *at = (char *)c->all + entry * (size_t)(rows(c) * c->shape.head_dim);
    return kn_tensor_of(at, KN_I8, rows(c), c->shape.head_dim);
}

static kn_tensor scales_of(const kn_dit_contexts *c, size_t entry)
{
    return kn_tensor_of((float *)c->scales + entry * (size_t)rows(c), KN_F32, rows(c));
}

static void *host_of(const kn_dit_contexts *c, int set, int layer)
{
    return c->host ? (char *)c->host + entry_of(c, set, layer) * plain_bytes(c) : NULL;
}

kn_status kn_dit_contexts_target(kn_dit_contexts *c, int set, int layer, const kn_tensor *spare,
                                 kn_tensor *to)
{
    size_t entry = entry_of(c, set, layer);
    *to = *spare;
    if (c->place == KN_DIT_ON_DEVICE) *to = plain(c, (char *)c->all + entry * plain_bytes(c));
    if (c->place != KN_DIT_ON_HOST) return KN_OK;
    void *slot;
    KN_TRY(kn_ferry_arrive(c->ferry, layer, &slot));
    *to = plain(c, slot);
    return KN_OK;
}

kn_status kn_dit_contexts_stored(kn_dit_contexts *c, int set, int layer, const kn_tensor *context)
{
    if (c->place == KN_DIT_ON_HOST)
        return kn_ferry_send(c->ferry, layer, host_of(c, set, layer), plain_bytes(c));
    if (c->place == KN_DIT_ON_DEVICE) return KN_OK;
    size_t entry = entry_of(c, set, layer);
    kn_tensor codes = codes_of(c, entry), scales = scales_of(c, entry);
    kn_tensor by_head = kn_tensor_view(context, rows(c), c->shape.head_dim);
    return kn_quantize(c->dev, &by_head, &codes, &scales);
}

kn_status kn_dit_contexts_ahead(kn_dit_contexts *c, int set, int layer, int first, int end)
{
    if (c->place != KN_DIT_ON_HOST) return KN_OK;
    if (layer == first)
        KN_TRY(kn_ferry_fetch(c->ferry, layer, host_of(c, set, layer), plain_bytes(c)));
    if (layer + 1 >= end) return KN_OK;
    return kn_ferry_fetch(c->ferry, layer + 1, host_of(c, set, layer + 1), plain_bytes(c));
}

kn_status kn_dit_contexts_read(kn_dit_contexts *c, int set, int layer, const kn_tensor *spare,
                               kn_tensor *context)
{
    size_t entry = entry_of(c, set, layer);
    if (c->place != KN_DIT_EIGHT_BITS) return kn_dit_contexts_target(c, set, layer, spare, context);
    kn_tensor codes = codes_of(c, entry), scales = scales_of(c, entry);
    kn_tensor by_head = kn_tensor_view(spare, rows(c), c->shape.head_dim);
    *context = *spare;
    return kn_dequantize(c->dev, &codes, &scales, &by_head);
}
