/* compute/cpu_pack.c - weights of linear and conv in the layouts that the kernels read.
 *
 * Own kernels: panels of two vectors of columns (the last may be one vector), [panels][K][width], K
 * = taps (t, h, w) then input channels, zeros after the last column. oneDNN: blocks of
 * KN_CPU_COLUMNS columns, each in the library's own layout.
 */
#include "compute/cpu_piece.h"

#include "io/memory.h"

/* Columns with the last panel filled up: columns * K floats are held. */
static int64_t padded_columns(int64_t columns, int lanes)
{
    int64_t n = columns / (2 * lanes) * (2 * lanes);
    return n < columns ? n + kn_cpu_panel_width(columns, n, lanes) : n;
}

/* Bytes of a full block of columns (of the only block, when there is no full one) and of all. 0
 * when own kernels are to run this weight. */
static kn_status block_bytes(kn_dnnl *dnnl, const kn_weight *w, size_t *block, size_t *all)
{
    *block = *all = 0;
    if (dnnl == NULL || w->kind != KN_WEIGHT_LINEAR) return KN_OK;
    int64_t columns = w->t.dim[0], rest = columns % KN_CPU_COLUMNS;
    size_t full = 0, last = 0;
    if (columns >= KN_CPU_COLUMNS)
        KN_TRY(kn_dnnl_weight_bytes(dnnl, w->t.dim[1], KN_CPU_COLUMNS, &full));
    if (rest) KN_TRY(kn_dnnl_weight_bytes(dnnl, w->t.dim[1], rest, &last));
    if ((columns >= KN_CPU_COLUMNS && full == 0) || (rest && last == 0)) return KN_OK;
    *block = full ? full : last;
    *all = (size_t)(columns / KN_CPU_COLUMNS) * full + last;
    return KN_OK;
}

kn_status kn_cpu_packed_bytes(const kn_cpu_kernels *k, kn_dnnl *dnnl, const kn_weight *w,
                              size_t *bytes)
{
    size_t block;
    KN_TRY(block_bytes(dnnl, w, &block, bytes));
    if (block) return KN_OK;
    int64_t columns = w->t.dim[0], depth = kn_tensor_count(&w->t) / columns;
    *bytes = (size_t)(padded_columns(columns, k->lanes) * depth) * sizeof(float);
    return KN_OK;
}

static float stored_value(const kn_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case KN_BF16: return kn_bf16_to_f32(((const uint16_t *)t->data)[i]);
    case KN_F16: return kn_f16_to_f32(((const uint16_t *)t->data)[i]);
    default: return ((const float *)t->data)[i];
    }
}

/* host [columns][channels][taps]; linear has one tap. */
static void pack_panels(const kn_cpu_kernels *k, const kn_weight *w, const kn_tensor *host,
                        float *dst)
{
    int64_t columns = w->t.dim[0], channels = w->t.dim[1];
    int64_t taps = kn_tensor_count(&w->t) / (columns * channels);
    for (int64_t n = 0; n < columns; n += 2 * k->lanes) {
        int width = kn_cpu_panel_width(columns, n, k->lanes);
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t c = 0; c < channels; c++)
                for (int j = 0; j < width; j++)
                    *dst++ = n + j < columns
                                 ? stored_value(host, ((n + j) * channels + c) * taps + tap)
                                 : 0.0f;
    }
}

/* A block of columns at a time: their rows of w in f32, then into the library's layout. */
static kn_status pack_blocks(const kn_cpu_kernels *k, kn_dnnl *dnnl, const kn_weight *w,
                             const kn_tensor *host, kn_cpu_weight *packed)
{
    int64_t columns = w->t.dim[0], K = w->t.dim[1];
    void *memory = NULL;
    if (host->dtype != KN_F32) {
        int64_t rows = columns < KN_CPU_COLUMNS ? columns : KN_CPU_COLUMNS;
        KN_TRY(kn_alloc((size_t)(rows * K) * sizeof(float), &memory));
    }
    kn_status st = KN_OK;
    char *dst = (char *)packed->data;
    for (int64_t n = 0; n < columns && st == KN_OK;
         n += KN_CPU_COLUMNS, dst += packed->block_bytes) {
        int64_t rows = columns - n < KN_CPU_COLUMNS ? columns - n : KN_CPU_COLUMNS;
        const float *src = memory;
        if (host->dtype == KN_F32)
            src = (const float *)host->data + n * K;
        else if (host->dtype == KN_BF16)
            k->load_bf16((const uint16_t *)host->data + n * K, memory, rows * K);
        else
            k->load_f16((const uint16_t *)host->data + n * K, memory, rows * K);
        st = kn_dnnl_pack(dnnl, K, rows, src, dst);
    }
    kn_free(memory);
    return st;
}

kn_status kn_cpu_pack(const kn_cpu_kernels *k, kn_dnnl *dnnl, const kn_weight *w,
                      const kn_tensor *host, kn_cpu_weight *packed)
{
    size_t all;
    KN_TRY(block_bytes(dnnl, w, &packed->block_bytes, &all));
    if (packed->block_bytes) return pack_blocks(k, dnnl, w, host, packed);
    pack_panels(k, w, host, packed->data);
    return KN_OK;
}
