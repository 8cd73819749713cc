/* Choice of key blocks on a CUDA device: memory and order of the kernels in select_kernels.cuh. */
#include <cub/cub.cuh>

#include <math.h>
#include <string.h>

#include "compute/cuda.h"

extern "C" {
#include "attention/select_cuda.h"
#include "io/memory.h"
}

#include "attention/select_kernels.cuh"

using namespace kn_select_kernels;

struct buffer {
    void *data;
    size_t bytes;
};

/* What lives on the device; one list, so that open and close are loops. */
enum {
    BUF_START, BUF_BLOCK_AT, BUF_Q_START, BUF_ROW_BLOCK, BUF_PERM, BUF_BLOCK_OF, BUF_MEAN_Q,
    BUF_MEAN_K, BUF_MAP, BUF_BINS, BUF_STATE, BUF_KEEP, BUF_PART, BUF_LSE, BUF_WEIGHTS, BUF_KEYS,
    BUF_KEYS2, BUF_VALUES, BUF_VALUES2, BUF_CUB, BUF_ROWS, BUF_LENGTH, BUF_OFFSET, BUF_PAIRS,
    BUF_ORDER, BUF_ENTRIES, BUFFERS
};

struct kn_select {
    kn_dev *dev;
    kn_select_params p; /* host arrays NULLed but perm, which then only says that there is one */
    int64_t video, words;
    int group;        /* heads per map */
    int64_t segment;  /* blocks per segment, not 0 */
    int64_t segments;
    buffer b[BUFFERS];
    int64_t entries;  /* room */
    unsigned long long *counts; /* pinned: entries, pairs */
    double density;
    kn_attn_lists lists;
};

template <class T> static T *at(const kn_select *s, int buffer)
{
    return (T *)s->b[buffer].data;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
static unsigned blocks_of(int64_t n, int block)
{
    return (unsigned)ceil_div(n, block);
}
static int bits_for(int64_t n)
{
    int bits = 0;
    while (((int64_t)1 << bits) < n) bits++;
    return bits;
}

/* ---- open and close ----------------------------------------------------------------------------*/

extern "C" void kn_select_close(kn_select **select)
{
    kn_select *s = *select;
    *select = NULL;
    if (!s) return;
    for (int i = 0; i < BUFFERS; i++)
        if (s->b[i].data) kn_dev_free(s->dev, s->b[i].data, s->b[i].bytes);
    if (s->counts) cudaFreeHost(s->counts);
    kn_free(s);
}

static kn_status take(kn_select *s, int buffer, int64_t count, size_t size)
{
    s->b[buffer].bytes = (size_t)count * size;
    if (!s->b[buffer].bytes) return KN_OK;
    return kn_dev_alloc(s->dev, s->b[buffer].bytes, &s->b[buffer].data);
}

static kn_status put(kn_select *s, int buffer, const int32_t *host, int64_t count)
{
    KN_TRY(take(s, buffer, count, sizeof *host));
    kn_tensor t = {};
    t.data = s->b[buffer].data;
    t.dtype = KN_I32;
    t.rank = 1;
    t.dim[0] = count;
    t.stride[0] = 1;
    return kn_dev_upload(s->dev, host, &t);
}

/* Tables of the blocks: start with the end of all tokens behind; block of each token; map row of
 * each query block. With a fixed order also the block that holds each stored token. */
static kn_status put_tables(kn_select *s, const kn_select_params *p)
{
    int32_t *start = NULL, *block_at = NULL, *row_block = NULL, *block_of = NULL;
    int64_t row = 0;
    kn_status st;
    KN_TRY_GOTO(kn_alloc_array((size_t)p->blocks + 2, sizeof *start, (void **)&start));
    KN_TRY_GOTO(kn_alloc_array((size_t)s->video, sizeof *block_at, (void **)&block_at));
    KN_TRY_GOTO(kn_alloc_array((size_t)p->q_blocks, sizeof *row_block, (void **)&row_block));
    memcpy(start, p->start, ((size_t)p->blocks + 1) * sizeof *start);
    start[p->blocks + 1] = (int32_t)p->tokens;
    for (int64_t b = 0; b < p->blocks; b++)
        for (int64_t i = start[b]; i < start[b + 1]; i++) block_at[i] = (int32_t)b;
    for (int64_t b = 0; b < p->q_blocks; b++) {
        while (row < p->blocks && p->start[row + 1] <= p->q_start[b]) row++;
        row_block[b] = row < p->blocks ? (int32_t)row : -1;
    }
    KN_TRY_GOTO(put(s, BUF_START, start, p->blocks + 2));
    KN_TRY_GOTO(put(s, BUF_BLOCK_AT, block_at, s->video));
    KN_TRY_GOTO(put(s, BUF_Q_START, p->q_start, p->q_blocks + 1));
    KN_TRY_GOTO(put(s, BUF_ROW_BLOCK, row_block, p->q_blocks));
    if (p->perm) {
        KN_TRY_GOTO(put(s, BUF_PERM, p->perm, p->heads * p->tokens));
        KN_TRY_GOTO(kn_alloc_array((size_t)(p->heads * s->video), sizeof *block_of,
                                   (void **)&block_of));
        for (int64_t h = 0; h < p->heads; h++)
            for (int64_t i = 0; i < s->video; i++)
                block_of[h * s->video + p->perm[h * p->tokens + i]] = block_at[i];
        KN_TRY_GOTO(put(s, BUF_BLOCK_OF, block_of, p->heads * s->video));
    }
done:
    kn_free(start);
    kn_free(block_at);
    kn_free(row_block);
    kn_free(block_of);
    return st;
}

static kn_status take_room(kn_select *s)
{
    const kn_select_params *p = &s->p;
    int64_t n = p->blocks, rows = p->heads * p->q_blocks, keys = rows;
    size_t scan = 0, sort = 0;
    if (p->samples) {
        int64_t chunks = ceil_div(s->video, CHUNK);
        keys = p->heads * s->video > rows ? p->heads * s->video : rows;
        KN_TRY(take(s, BUF_PERM, p->heads * p->tokens, sizeof(int32_t)));
        KN_TRY(take(s, BUF_BLOCK_OF, p->heads * s->video, sizeof(int32_t)));
        KN_TRY(take(s, BUF_PART, p->heads * chunks * p->samples, sizeof(float2)));
        KN_TRY(take(s, BUF_LSE, p->heads * p->samples, sizeof(float)));
        KN_TRY(take(s, BUF_WEIGHTS, p->heads * s->video, sizeof(float)));
    }
    KN_TRY(take(s, BUF_MEAN_Q, p->heads * n * p->dim, sizeof(float)));
    KN_TRY(take(s, BUF_MEAN_K, p->heads * n * p->dim, sizeof(float)));
    KN_TRY(take(s, BUF_MAP, s->group * n * n, sizeof(float)));
    KN_TRY(take(s, BUF_BINS, s->group * BINS, sizeof(unsigned long long)));
    KN_TRY(take(s, BUF_STATE, s->group, sizeof(rank_state)));
    KN_TRY(take(s, BUF_KEEP, p->heads * n * s->words, sizeof(uint32_t)));
    KN_TRY(take(s, BUF_KEYS, keys, sizeof(uint64_t)));
    KN_TRY(take(s, BUF_KEYS2, keys, sizeof(uint64_t)));
    KN_TRY(take(s, BUF_VALUES, keys, sizeof(int32_t)));
    KN_TRY(take(s, BUF_VALUES2, keys, sizeof(int32_t)));
    KN_TRY(take(s, BUF_ROWS, rows, sizeof(kn_attn_list_row)));
    KN_TRY(take(s, BUF_LENGTH, rows + 1, sizeof(uint32_t)));
    KN_TRY(take(s, BUF_OFFSET, rows + 1, sizeof(uint32_t)));
    KN_TRY(take(s, BUF_PAIRS, 1, sizeof(unsigned long long)));
    KN_TRY(take(s, BUF_ORDER, rows, sizeof(int32_t)));
    KN_CUDA_TRY(cub::DeviceScan::ExclusiveSum(NULL, scan, (uint32_t *)NULL, (uint32_t *)NULL,
                                              (int)rows + 1));
    KN_CUDA_TRY(cub::DeviceRadixSort::SortPairs(NULL, sort, (uint64_t *)NULL, (uint64_t *)NULL,
                                                (int32_t *)NULL, (int32_t *)NULL, (int)keys));
    KN_TRY(take(s, BUF_CUB, (int64_t)(scan > sort ? scan : sort), 1));
    KN_CUDA_TRY(cudaMallocHost((void **)&s->counts, 2 * sizeof *s->counts));
    /* A quarter of all pairs to begin with; more when a call needs it. */
    s->entries = rows * (ceil_div(n, 4) + 2);
    return take(s, BUF_ENTRIES, s->entries, sizeof(kn_attn_entry));
}

static void set_lists(kn_select *s)
{
    const kn_select_params *p = &s->p;
    kn_attn_lists *l = &s->lists;
    l->tokens = p->tokens;
    l->heads = p->heads;
    l->q_blocks = p->q_blocks;
    l->q_start = at<int32_t>(s, BUF_Q_START);
    l->row = at<kn_attn_list_row>(s, BUF_ROWS);
    l->entry = at<kn_attn_entry>(s, BUF_ENTRIES);
    l->order = at<int32_t>(s, BUF_ORDER);
    l->perm_heads = p->perm || p->samples ? p->heads : 0;
    l->perm_q = p->perm ? at<int32_t>(s, BUF_PERM) : NULL;
    l->perm_k = p->perm || p->samples ? at<int32_t>(s, BUF_PERM) : NULL;
}

extern "C" kn_status kn_select_open(kn_dev *d, const kn_select_params *p, kn_select **out)
{
    *out = NULL;
    kn_select *s = NULL;
    kn_status st;
    if (p->dim % 8 || p->dim < 8 || p->dim > 256)
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "attention planner: heads of %d on a CUDA device, must be a multiple of 8 "
                       "of at most 256",
                       p->dim);
    for (int64_t b = 0; b < p->q_blocks; b++)
        if (p->q_start[b + 1] - p->q_start[b] > KN_ATTN_BLOCK)
            return kn_fail(KN_ERR_UNSUPPORTED,
                           "attention planner: query blocks of %d on a CUDA device, at most %d",
                           p->q_start[b + 1] - p->q_start[b], (int)KN_ATTN_BLOCK);
    KN_TRY(kn_alloc_zero(sizeof *s, (void **)&s));
    size_t map = (size_t)p->blocks * (size_t)p->blocks * sizeof(float);
    size_t group = KN_SELECT_MAP_BYTES / map;
    s->dev = d;
    s->p = *p;
    s->video = p->start[p->blocks];
    s->words = ceil_div(p->blocks, 32);
    s->group = group < 1 ? 1 : group < (size_t)p->heads ? (int)group : p->heads;
    s->segment = p->segment ? p->segment : p->blocks;
    s->segments = ceil_div(p->blocks, s->segment);
    KN_TRY_GOTO(put_tables(s, p));
    KN_TRY_GOTO(take_room(s));
    s->p.start = s->p.q_start = NULL;
    set_lists(s);
    *out = s;
    s = NULL;
done:
    kn_select_close(&s);
    return st;
}

/* ---- steps -------------------------------------------------------------------------------------*/

static kn_status check_layout(const kn_tensor *t, const char *name)
{
    if (t->dtype != KN_BF16 || t->stride[0] % 8 || t->stride[1] % 8 || (uintptr_t)t->data % 16)
        return kn_fail(KN_ERR_ARG,
                       "attention planner: %s must be bf16 with strides of whole 16 bytes, is %s "
                       "with strides %lld and %lld",
                       name, kn_dtype_name(t->dtype), (long long)t->stride[0],
                       (long long)t->stride[1]);
    return KN_OK;
}

static view view_of(const kn_tensor *t)
{
    return view{(const __nv_bfloat16 *)t->data, t->stride[0], t->stride[1]};
}

template <int DP>
static kn_status weigh(kn_select *s, view q, view k, cudaStream_t stream)
{
    const kn_select_params *p = &s->p;
    float factor = p->scale * 1.44269504f;
    int chunks = (int)ceil_div(s->video, CHUNK);
    KN_CUDA_TRY(cudaFuncSetAttribute(sample_sums<DP>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     lse_shared_bytes<DP>()));
    KN_CUDA_TRY(cudaFuncSetAttribute(key_weights<DP>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     weight_shared_bytes<DP>()));
    dim3 sums(chunks, p->heads, blocks_of(p->samples, SAMPLES));
    sample_sums<DP><<<sums, 256, lse_shared_bytes<DP>(), stream>>>(
        q, k, p->samples, s->video, p->dim, factor, at<float2>(s, BUF_PART));
    sample_lse<<<dim3(blocks_of(p->samples, 8), p->heads), 256, 0, stream>>>(
        at<float2>(s, BUF_PART), chunks, p->samples, at<float>(s, BUF_LSE));
    key_weights<DP>
        <<<dim3(blocks_of(s->video, KEYS), p->heads), 256, weight_shared_bytes<DP>(), stream>>>(
            q, k, p->samples, s->video, p->dim, factor, at<float>(s, BUF_LSE),
            at<float>(s, BUF_WEIGHTS));
    KN_CUDA_LAUNCHED("importance of keys");
    return KN_OK;
}

static kn_status order_keys(kn_select *s, view q, view k, cudaStream_t stream)
{
    const kn_select_params *p = &s->p;
    size_t bytes = s->b[BUF_CUB].bytes;
    KN_TRY(p->dim <= 64    ? weigh<64>(s, q, k, stream)
           : p->dim <= 128 ? weigh<128>(s, q, k, stream)
                           : weigh<256>(s, q, k, stream));
    sort_keys<<<dim3(blocks_of(s->video, 256), p->heads), 256, 0, stream>>>(
        at<float>(s, BUF_WEIGHTS), at<int32_t>(s, BUF_BLOCK_AT), s->video, (int)s->segment,
        (int)s->segments, at<uint64_t>(s, BUF_KEYS), at<int32_t>(s, BUF_VALUES));
    KN_CUDA_TRY(cub::DeviceRadixSort::SortPairs(
        s->b[BUF_CUB].data, bytes, at<uint64_t>(s, BUF_KEYS), at<uint64_t>(s, BUF_KEYS2),
        at<int32_t>(s, BUF_VALUES), at<int32_t>(s, BUF_VALUES2), (int)(p->heads * s->video), 0,
        32 + bits_for(p->heads * s->segments), stream));
    spread_order<<<dim3(blocks_of(p->tokens, 256), p->heads), 256, 0, stream>>>(
        at<int32_t>(s, BUF_VALUES2), at<int32_t>(s, BUF_BLOCK_AT), s->video, p->tokens,
        at<int32_t>(s, BUF_PERM), at<int32_t>(s, BUF_BLOCK_OF));
    KN_CUDA_LAUNCHED("order of keys");
    return KN_OK;
}

static kn_status find_means(kn_select *s, view q, view k, cudaStream_t stream)
{
    const kn_select_params *p = &s->p;
    int lanes = p->heads * p->dim / 8, block = lanes < 256 ? (lanes + 31) / 32 * 32 : 192;
    pool<<<dim3((unsigned)p->blocks, 2, blocks_of(lanes, block)), block, 0, stream>>>(
        q, k, at<int32_t>(s, BUF_START), p->perm ? at<int32_t>(s, BUF_PERM) : NULL,
        p->perm || p->samples ? at<int32_t>(s, BUF_PERM) : NULL, p->tokens, p->heads, p->dim,
        at<float>(s, BUF_MEAN_Q), at<float>(s, BUF_MEAN_K));
    KN_CUDA_LAUNCHED("block means");
    return KN_OK;
}

static kn_status fill_map(kn_select *s, int head, int heads, bool raise, forced_rule forced,
                          cudaStream_t stream)
{
    const kn_select_params *p = &s->p;
    int n = (int)p->blocks;
    int64_t from = (int64_t)head * n * p->dim;
    unsigned tiles = blocks_of(n, TILE);
    score<<<dim3(tiles, tiles, heads), 256, 0, stream>>>(
        at<float>(s, BUF_MEAN_Q) + from, at<float>(s, BUF_MEAN_K) + from, n, p->dim, p->scale,
        at<float>(s, BUF_MAP));
    softmax<<<dim3(n, heads), 256, 0, stream>>>(at<float>(s, BUF_MAP), n, raise, forced);
    KN_CUDA_LAUNCHED("block map");
    return KN_OK;
}

static kn_status write_lists(kn_select *s, cudaStream_t stream)
{
    const kn_select_params *p = &s->p;
    int rows = (int)(p->heads * p->q_blocks);
    size_t bytes = s->b[BUF_CUB].bytes;
    dim3 grid(blocks_of(p->q_blocks, 4), p->heads);
    lists_args a = {at<uint32_t>(s, BUF_KEEP),
                    (int)p->blocks,
                    (int)s->words,
                    at<int32_t>(s, BUF_START),
                    at<int32_t>(s, BUF_ROW_BLOCK),
                    at<int32_t>(s, BUF_Q_START),
                    (int)p->q_blocks,
                    p->tokens > s->video,
                    at<kn_attn_list_row>(s, BUF_ROWS),
                    at<kn_attn_entry>(s, BUF_ENTRIES),
                    at<uint32_t>(s, BUF_LENGTH),
                    at<uint32_t>(s, BUF_OFFSET),
                    at<unsigned long long>(s, BUF_PAIRS)};
    KN_CUDA_TRY(cudaMemsetAsync(s->b[BUF_PAIRS].data, 0, s->b[BUF_PAIRS].bytes, stream));
    KN_CUDA_TRY(cudaMemsetAsync(a.length + rows, 0, sizeof *a.length, stream));
    make_lists<false><<<grid, 128, 0, stream>>>(a);
    KN_CUDA_TRY(cub::DeviceScan::ExclusiveSum(s->b[BUF_CUB].data, bytes, a.length,
                                              at<uint32_t>(s, BUF_OFFSET), rows + 1, stream));
    place_rows<<<blocks_of(rows, 256), 256, 0, stream>>>(
        a.offset, rows, (int)p->q_blocks, a.row, at<uint64_t>(s, BUF_KEYS),
        at<int32_t>(s, BUF_VALUES));
    KN_CUDA_TRY(cub::DeviceRadixSort::SortPairs(
        s->b[BUF_CUB].data, bytes, at<uint64_t>(s, BUF_KEYS), at<uint64_t>(s, BUF_KEYS2),
        at<int32_t>(s, BUF_VALUES), at<int32_t>(s, BUF_ORDER), rows, 0, 32 + bits_for(p->heads),
        stream));
    s->counts[0] = 0;
    KN_CUDA_TRY(cudaMemcpyAsync(s->counts, a.offset + rows, sizeof(uint32_t),
                                cudaMemcpyDeviceToHost, stream));
    KN_CUDA_TRY(cudaMemcpyAsync(s->counts + 1, a.pairs, sizeof *a.pairs, cudaMemcpyDeviceToHost,
                                stream));
    KN_CUDA_TRY(cudaStreamSynchronize(stream));
    int64_t entries = (int64_t)s->counts[0];
    if (entries > s->entries) {
        kn_dev_free(s->dev, s->b[BUF_ENTRIES].data, s->b[BUF_ENTRIES].bytes);
        s->b[BUF_ENTRIES].data = NULL;
        s->entries = 0;
        KN_TRY(take(s, BUF_ENTRIES, entries + entries / 8, sizeof(kn_attn_entry)));
        s->entries = entries + entries / 8;
        a.entry = at<kn_attn_entry>(s, BUF_ENTRIES);
        s->lists.entry = a.entry;
    }
    make_lists<true><<<grid, 128, 0, stream>>>(a);
    double tokens = (double)p->tokens;
    s->density = (double)s->counts[1] / (p->heads * tokens * tokens);
    s->lists.executed = (double)entries * KN_ATTN_BLOCK * KN_ATTN_BLOCK /
                        (p->heads * tokens * tokens);
    KN_CUDA_LAUNCHED("attention lists");
    return KN_OK;
}

/* ---- runs --------------------------------------------------------------------------------------*/

extern "C" kn_status kn_select_run_draft(kn_select *s, const kn_select_draft *rule,
                                         const kn_tensor *q, const kn_tensor *k)
{
    cudaStream_t stream = kn_cuda_of(s->dev)->stream;
    int n = (int)s->p.blocks;
    int64_t pairs = (int64_t)n * n;
    forced_rule forced = {(int)rule->per_frame, rule->first_frame, rule->own_frame};
    float fixed = rule->drop <= 0 ? -1.0f : rule->drop >= pairs ? INFINITY : NAN;
    KN_TRY(check_layout(q, "q"));
    KN_TRY(check_layout(k, "k"));
    KN_TRY(find_means(s, view_of(q), view_of(k), stream));
    for (int h = 0; h < s->p.heads; h += s->group) {
        int heads = s->p.heads - h < s->group ? s->p.heads - h : s->group;
        float *map = at<float>(s, BUF_MAP);
        rank_state *state = at<rank_state>(s, BUF_STATE);
        unsigned long long *bins = at<unsigned long long>(s, BUF_BINS);
        KN_TRY(fill_map(s, h, heads, rule->within_budget, forced, stream));
        if (isnan(fixed)) {
            set_rank<<<1, heads, 0, stream>>>(state, (unsigned long long)rule->drop);
            KN_CUDA_TRY(cudaMemsetAsync(bins, 0, s->b[BUF_BINS].bytes, stream));
            for (int pass = 0; pass < 3; pass++) {
                unsigned grid = blocks_of(pairs, 8192);
                count_digits<<<dim3(grid, heads), 256, 0, stream>>>(map, pairs, pass, state, bins);
                find_digit<<<heads, 1024, 0, stream>>>(pass, state, bins);
            }
        }
        keep_draft<<<dim3(blocks_of(n, 8), heads), 256, 0, stream>>>(
            map, n, (int)s->words, state, fixed, forced,
            at<uint32_t>(s, BUF_KEEP) + h * (int64_t)n * s->words);
        KN_CUDA_LAUNCHED("draft");
    }
    return write_lists(s, stream);
}

extern "C" kn_status kn_select_run_rows(kn_select *s, double threshold, int64_t budget,
                                        const kn_tensor *q, const kn_tensor *k)
{
    cudaStream_t stream = kn_cuda_of(s->dev)->stream;
    const kn_select_params *p = &s->p;
    bool ordered = p->perm || p->samples;
    int n = (int)p->blocks;
    size_t shared = (size_t)s->words * sizeof(uint32_t);
    KN_TRY(check_layout(q, "q"));
    KN_TRY(check_layout(k, "k"));
    if (p->samples) KN_TRY(order_keys(s, view_of(q), view_of(k), stream));
    KN_TRY(find_means(s, view_of(q), view_of(k), stream));
    for (int h = 0; h < p->heads; h += s->group) {
        int heads = p->heads - h < s->group ? p->heads - h : s->group;
        KN_TRY(fill_map(s, h, heads, false, forced_rule{}, stream));
        rows_args a = {at<float>(s, BUF_MAP),
                       n,
                       (int)s->words,
                       h,
                       budget > 0 ? (uint32_t)budget
                                  : (uint32_t)ceil(fmax(threshold, 1e-9) * MASS_UNIT),
                       at<int32_t>(s, BUF_START),
                       p->perm ? at<int32_t>(s, BUF_PERM) : NULL,
                       ordered ? at<int32_t>(s, BUF_BLOCK_OF) : NULL,
                       p->tokens,
                       s->video,
                       at<uint32_t>(s, BUF_KEEP)};
        if (budget > 0)
            keep_rows<false><<<dim3(n, heads), 256, shared, stream>>>(a);
        else
            keep_rows<true><<<dim3(n, heads), 256, shared, stream>>>(a);
        KN_CUDA_LAUNCHED("choice of blocks");
    }
    return write_lists(s, stream);
}

extern "C" const kn_attn_lists *kn_select_lists(const kn_select *s)
{
    return &s->lists;
}

extern "C" double kn_select_density(const kn_select *s)
{
    return s->density;
}

extern "C" kn_status kn_select_fetch(kn_select *s, uint32_t *keep, int32_t *perm_k)
{
    cudaStream_t stream = kn_cuda_of(s->dev)->stream;
    KN_CUDA_TRY(cudaMemcpyAsync(keep, s->b[BUF_KEEP].data, s->b[BUF_KEEP].bytes,
                                cudaMemcpyDeviceToHost, stream));
    if (s->p.samples && perm_k)
        KN_CUDA_TRY(cudaMemcpyAsync(perm_k, s->b[BUF_PERM].data, s->b[BUF_PERM].bytes,
                                    cudaMemcpyDeviceToHost, stream));
    KN_CUDA_TRY(cudaStreamSynchronize(stream));
    return KN_OK;
}
