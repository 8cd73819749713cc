/* text/umt5.h - the UMT5 text encoder.
 *
 * Purpose   Token ids to the embeddings that a Wan transformer is conditioned on.
 * Shapes    count ids -> embeddings [max_len, d] f32, rows from count on zero, as Wan and diffusers
 *           hand them to the transformer. Only the count true tokens are computed: padding is
 *           masked in the reference's attention, so that its rows reach no other row.
 * Letters   d = d_model, N = heads, D = d_kv (N D need not be d), T = count here.
 * Method    Per block: RMS norm, attention with scores q.k + bias (no 1/sqrt(D)), RMS norm, gated
 *           feed-forward wo(gelu_tanh(wi_0 x) * wi_1 x). The bias is a learned value per head and
 *           bucket of the distance key - query, and, unlike T5's, learned in every block.
 * Precision Activations f32 on ref and cpu, bf16 on cuda; norms and softmax in f32 or wider.
 * Cost      Umt5-xxl, 512 tokens: 5.7 T multiply-adds; weights 5.68 G values (22.7 GB as f32).
 * Memory    weights, opened one tensor at a time; scratch of kn_umt5_scratch_bytes.
 * Errors    KN_ERR_IO, KN_ERR_FORMAT, KN_ERR_MODEL (config or tensors that do not fit),
 *           KN_ERR_UNSUPPORTED (another network, with the key that tells), KN_ERR_ARG,
 *           KN_ERR_NOMEM.
 * Threads   The device's thread.
 * Source    UniMax, arXiv 2304.09151; T5, arXiv 1910.10683; transformers modeling_umt5.py
 *           UMT5Stack; Wan2.1 wan/modules/t5.py T5Encoder.
 */
#ifndef KN_TEXT_UMT5_H
#define KN_TEXT_UMT5_H

#include "compute/device.h"

typedef struct kn_umt5 kn_umt5;

/* Every value is of config.json, under its key there. */
typedef struct kn_umt5_config {
    int d_model, d_kv, d_ff;
    int num_heads, num_layers;
    int vocab_size;
    int relative_attention_num_buckets, relative_attention_max_distance;
    double layer_norm_epsilon;
} kn_umt5_config;

/* path: config.json. */
KN_CHECKED kn_status kn_umt5_config_read(const char *path, kn_umt5_config *out);

/* folder: text_encoder/ with config.json and model.safetensors or its shards. On the measure device
 * only names, shapes and sizes are read. */
KN_CHECKED kn_status kn_umt5_open(kn_dev *d, const char *folder, kn_umt5 **out);
/* NULL-safe; sets *m to NULL. */
void kn_umt5_close(kn_umt5 **m);
const kn_umt5_config *kn_umt5_get_config(const kn_umt5 *m);

/* Bucket of a distance key - query, 0 to num_buckets - 1. The logarithm is taken in float32, as in
 * the reference: in double some distances fall into the next bucket. */
int kn_umt5_bucket(const kn_umt5_config *c, int64_t distance);

/* Called with intermediate tensors [T, d] as they are made, for tests. Names: embedding, per block
 * block.<i>.attn and block.<i>.out (residual included), final. t is valid during the call only. */
typedef kn_status kn_umt5_tap_fn(void *user, const char *name, const kn_tensor *t);

typedef struct kn_umt5_args {
    const int32_t *ids;  /* count ids, host memory */
    int count;           /* with </s>, without padding; 0 gives zeros */
    kn_tensor out;       /* [max_len, d] f32, contiguous, device memory; max_len >= count */
    kn_arena *scratch;   /* kn_umt5_scratch_bytes; left as found */
    kn_umt5_tap_fn *tap; /* NULL = off */
    void *tap_user;
} kn_umt5_args;

KN_CHECKED kn_status kn_umt5_encode(const kn_umt5 *m, const kn_umt5_args *args);

/* Bytes of scratch for count tokens: runs kn_umt5_encode on the measure device. */
KN_CHECKED kn_status kn_umt5_scratch_bytes(const kn_umt5 *m, int count, size_t *bytes);

#endif
