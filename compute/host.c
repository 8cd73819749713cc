/* compute/host.c - device memory and plain weights in host memory: all of ref, part of cpu; joined
 * operations one after the other. */
#include "compute/backend.h"

#include <string.h>

#include "io/memory.h"

kn_status kn_host_alloc(kn_dev *d, size_t bytes, void **out)
{
    (void)d;
    return kn_alloc(bytes, out);
}

void kn_host_release(kn_dev *d, void *p)
{
    (void)d;
    kn_free(p);
}

void kn_host_poison(kn_dev *d, void *p, size_t bytes)
{
    (void)d;
    memset(p, 0xff, bytes);
}

kn_status kn_host_upload(kn_dev *d, const void *host, void *dst, size_t bytes)
{
    (void)d;
    if (bytes) memcpy(dst, host, bytes);
    return KN_OK;
}

kn_status kn_host_download(kn_dev *d, const void *src, void *host, size_t bytes)
{
    (void)d;
    if (bytes) memcpy(host, src, bytes);
    return KN_OK;
}

kn_status kn_host_sync(kn_dev *d)
{
    (void)d;
    return KN_OK;
}

/* Vectors in f32, everything else as stored. */
size_t kn_host_weight_bytes(const kn_weight *w)
{
    size_t size = w->kind == KN_WEIGHT_VECTOR ? sizeof(float) : kn_dtype_size(w->t.dtype);
    return (size_t)kn_tensor_count(&w->t) * size;
}

kn_status kn_host_weight_open(kn_dev *d, const kn_tensor *host, kn_weight *w)
{
    (void)d;
    size_t bytes = kn_host_weight_bytes(w);
    KN_TRY(kn_alloc(bytes, &w->t.data));
    w->bytes = bytes;
    if (w->kind != KN_WEIGHT_VECTOR || host->dtype == KN_F32) {
        memcpy(w->t.data, host->data, bytes);
        return KN_OK;
    }
    const uint16_t *src = host->data;
    float *dst = w->t.data;
    for (int64_t i = 0; i < kn_tensor_count(host); i++)
        dst[i] = host->dtype == KN_BF16 ? kn_bf16_to_f32(src[i]) : kn_f16_to_f32(src[i]);
    w->t.dtype = KN_F32;
    return KN_OK;
}

void kn_host_weight_close(kn_dev *d, kn_weight *w)
{
    (void)d;
    kn_free(w->t.data);
}

const kn_backend kn_host_backend = {
    .alloc = kn_host_alloc,
    .release = kn_host_release,
    .poison = kn_host_poison,
    .upload = kn_host_upload,
    .download = kn_host_download,
    .sync = kn_host_sync,
    .weight_open = kn_host_weight_open,
    .weight_close = kn_host_weight_close,
};

/* ---- joined operations ----------------------------------------------------------------------- */

kn_status kn_norm_then_rope(kn_dev *d, const kn_tensor *x, const kn_tensor *weight, float eps,
                            const kn_tensor *cos, const kn_tensor *sin, const kn_tensor *out)
{
    kn_rmsnorm_params p = {.eps = eps};
    kn_tensor from = *x, to = *out;
    kn_tensor *const both[2] = {&from, &to};
    for (int i = 0; i < 2; i++) { /* the heads of a token as one row */
        both[i]->rank = 2;
        both[i]->dim[1] *= both[i]->dim[2];
        both[i]->stride[1] = 1;
    }
    KN_TRY(d->ops.rmsnorm(d, &from, weight, &p, &to));
    return d->ops.rope(d, out, cos, sin, out);
}

kn_status kn_gate_then_norm(kn_dev *d, const kn_tensor *x, const kn_tensor *y,
                            const kn_tensor *gate, const kn_layernorm_params *p,
                            const kn_tensor *sum, const kn_tensor *out)
{
    const kn_tensor *v[4] = {&p->weight, &p->bias, &p->scale, &p->shift};
    for (int i = 0; i < 4; i++)
        if (v[i]->rank == 0) v[i] = NULL;
    KN_TRY(d->ops.gate_add(d, x, y, gate, sum));
    return d->ops.layernorm(d, sum, v[0], v[1], v[2], v[3], p->eps, out);
}
