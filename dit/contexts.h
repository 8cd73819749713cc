/* dit/contexts.h - stored cross-attention contexts of one network and token grid.
 *
 * Purpose   The full branch of the dual path writes each block's context; the other branch reads them,
 *           for as many steps as the cache is kept. They are the largest thing of a high-resolution
 *           render: layers L d activations, 15.8 GB at 1080p x 81 frames in Wan 2.1 1.3B and 62.7 GB at
 *           4K. So they can stay on the device, wait in host memory, two blocks on the device at a time
 *           and copied beside the work, or be kept on the device in eight bits.
 * Precision device, host: as computed. eight bits: codes of each token and head with a scale of
 *           their own, max / 127: relative L2 about 6e-3.
 * Memory    layers: those that have contexts. device: layers L d of activations. host: 2 L d of them, and
 *           layers L d in host memory.
 *           eight bits: layers L (d + 4 heads) bytes.
 * Errors    KN_ERR_NOMEM, KN_ERR_DEVICE, KN_ERR_ARG.
 */
#ifndef KN_DIT_CONTEXTS_H
#define KN_DIT_CONTEXTS_H

#include "compute/offload.h"

typedef enum kn_dit_place {
    KN_DIT_ON_DEVICE,
    KN_DIT_ON_HOST,
    KN_DIT_EIGHT_BITS
} kn_dit_place;

typedef struct kn_dit_contexts_shape {
    int first, layers; /* the blocks that have contexts: first .. first + layers - 1 */
    int sets;          /* prompts that have contexts of their own */
    int64_t tokens, heads, head_dim;
    kn_dtype activation;
} kn_dit_contexts_shape;

typedef struct kn_dit_contexts kn_dit_contexts;

KN_CHECKED kn_status kn_dit_contexts_make(kn_dev *d, const kn_dit_contexts_shape *shape,
                                          kn_dit_place place, kn_dit_contexts **out);
/* NULL-safe; sets *c to NULL. */
void kn_dit_contexts_close(kn_dit_contexts **c);
const kn_dit_contexts_shape *kn_dit_contexts_get_shape(const kn_dit_contexts *c);
kn_dit_place kn_dit_contexts_get_place(const kn_dit_contexts *c);

/* For a forward, at each block in turn. `spare` [L, d] is free while the block's context is in use.
 * target: where the context is to be computed; stored: it is there. */
KN_CHECKED kn_status kn_dit_contexts_target(kn_dit_contexts *c, int set, int layer,
                                            const kn_tensor *spare, kn_tensor *to);
KN_CHECKED kn_status kn_dit_contexts_stored(kn_dit_contexts *c, int set, int layer,
                                            const kn_tensor *context);
/* ahead: at the start of each block from first to end - 1, so that copies run beside its work; read: the context. */
KN_CHECKED kn_status kn_dit_contexts_ahead(kn_dit_contexts *c, int set, int layer, int first, int end);
KN_CHECKED kn_status kn_dit_contexts_read(kn_dit_contexts *c, int set, int layer,
                                          const kn_tensor *spare, kn_tensor *context);

#endif
