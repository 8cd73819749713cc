/* compute/record.h - work that comes again with the same arguments, queued as one piece.
 *
 * Purpose   A GPU does a small network's kernels in less time than the host takes to launch them. What a
 *           call queues is recorded when it comes for the second time (cuda: a graph of the stream's
 *           work), and from then on queued whole.
 * Limits    Only what a call queues comes again, not what it does on the host: it neither waits for the
 *           device nor moves data between it and the host, and its kernels' arguments are all in the
 *           key. What changes from call to call lies in device memory, written before. Results are the
 *           same bytes. A call that cannot be recorded is made as it is, each time.
 * Memory    Device memory of the driver for each recording, some kilobytes a kernel: part of no plan.
 * Errors    Those of the call; KN_ERR_NOMEM; KN_ERR_DEVICE of queueing a recording.
 * Threads   The device's thread.
 * Source    CUDA 13 programming guide, "CUDA Graphs", stream capture.
 */
#ifndef KN_COMPUTE_RECORD_H
#define KN_COMPUTE_RECORD_H

#include "compute/device.h"

typedef struct kn_records kn_records;
typedef kn_status kn_record_fn(void *user);

enum { KN_RECORD_KEY = 256 }; /* bytes of the longest key */

/* *out NULL, which the others take: the device does not queue its work. */
KN_CHECKED kn_status kn_records_open(kn_dev *d, kn_records **out);
/* When the work has been done: before the memory is freed that it uses. */
void kn_records_close(kn_records **r);

/* Has fn(user)'s work done. Two calls with the same key, compared as bytes, queue the same work. */
KN_CHECKED kn_status kn_records_run(kn_records *r, const void *key, size_t size, kn_record_fn *fn,
                                    void *user);

#endif
