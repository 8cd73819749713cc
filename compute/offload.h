/* compute/offload.h - tensors and weights that live in host memory and visit the device by turns.
 *
 * Purpose   A ferry has two places on the device. While work uses one, the other is filled from host
 *           memory, or emptied to it, beside that work: a network walks its blocks with two blocks'
 *           memory. kn_offload does so with groups of weights.
 * Memory    Device: two places of slot_bytes. Host: page-locked on cuda; kn_dev_host_bytes_now.
 * Order     Turn t uses place t mod 2. A fetch or a send starts after the work queued before it; what
 *           is queued after the next arrive of that turn comes after it.
 * Errors    KN_ERR_NOMEM, KN_ERR_DEVICE; KN_ERR_UNSUPPORTED for weights that a backend has packed
 *           (cpu), which are in host memory as they are.
 * Threads   The device's thread.
 */
#ifndef KN_COMPUTE_OFFLOAD_H
#define KN_COMPUTE_OFFLOAD_H

#include "compute/ops.h"

typedef struct kn_ferry kn_ferry;

KN_CHECKED kn_status kn_ferry_open(kn_dev *d, size_t slot_bytes, kn_ferry **out);
/* Waits for its copies. NULL-safe; sets *f to NULL. */
void kn_ferry_close(kn_ferry **f);
/* Host memory for it; NULL on the measure device, which only counts it. */
KN_CHECKED kn_status kn_ferry_host_open(kn_dev *d, size_t bytes, void **out);
void kn_ferry_host_close(kn_dev *d, void *p, size_t bytes);

KN_CHECKED kn_status kn_ferry_fetch(kn_ferry *f, int turn, const void *host, size_t bytes);
KN_CHECKED kn_status kn_ferry_send(kn_ferry *f, int turn, void *host, size_t bytes);
/* The turn's place: filled, and free to be written. */
KN_CHECKED kn_status kn_ferry_arrive(kn_ferry *f, int turn, void **place);

/* ---- weights ----------------------------------------------------------------------------------*/
typedef struct kn_offload kn_offload;

KN_CHECKED kn_status kn_offload_open(kn_dev *d, int groups, kn_offload **out);
/* NULL-safe. After it the weights hold nothing; close them in any order with it. */
void kn_offload_close(kn_offload **o);
/* The next group, group 0 first: open weights, which leave the device. They must not move, and are
 * closed as others are. */
KN_CHECKED kn_status kn_offload_add(kn_offload *o, kn_weight *const *weights, int count);
/* After the last group. From here on weights have their addresses in the two places. */
KN_CHECKED kn_status kn_offload_seal(kn_offload *o);
/* Work queued from now on may use group g; the one after it sets off. In order, from 0 again at any
 * time. */
KN_CHECKED kn_status kn_offload_use(kn_offload *o, int g);

#endif
