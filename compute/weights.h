/* compute/weights.h - binding of a checkpoint's tensors to a network's weight fields, by table.
 *
 * Purpose   A network states each tensor once: name, shape, kind and where it goes. Binding checks
 *           names, shapes and dtypes against the file, opens every weight on the device, and names
 *           the first that does not fit, with what was expected and what was found.
 * Errors    KN_ERR_MODEL: missing, unexpected, wrong shape, wrong dtype. KN_ERR_NOMEM.
 */
#ifndef KN_COMPUTE_WEIGHTS_H
#define KN_COMPUTE_WEIGHTS_H

#include "compute/ops.h"
#include "io/safetensors.h"

/* Binder over one open checkpoint. */
typedef struct kn_binder {
    kn_dev *dev;
    kn_safetensors *file;
    unsigned char *used; /* one flag per tensor of the file */
    size_t bytes;        /* device bytes opened so far */
} kn_binder;

KN_CHECKED kn_status kn_binder_open(kn_dev *d, kn_safetensors *file, kn_binder *out);
void kn_binder_close(kn_binder *b);

/* Open tensor `name` (printf form) of the given shape into *w. rank 0 in dims = any shape.
 * KN_ERR_MODEL when it is missing or differs. */
KN_CHECKED kn_status kn_bind(kn_binder *b, kn_weight *w, kn_weight_kind kind, int rank,
                             const int64_t *dims, const char *name, ...) KN_PRINTF(6, 7);
/* After all binds: KN_ERR_MODEL naming the first tensors that nothing asked for. */
KN_CHECKED kn_status kn_binder_finish(kn_binder *b);

#endif
