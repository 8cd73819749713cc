/* compute/workers.h - the worker threads of a host device.
 *
 * Purpose   Runs the pieces of a parallel loop. Written for loops of tens of microseconds on
 *           machines that also do other work: a worker that is not scheduled in time is not waited
 *           for - its pieces are taken by the threads that run - and nobody spins for long.
 *           (Barriers of OpenMP's runtime spin or sleep at every loop; on a busy machine a forward
 *           took 30 times as long with them.)
 * Cost      About a microsecond per loop while workers are awake; one wake-up after a pause.
 * Errors    KN_ERR_NOMEM. A thread that cannot be started is done without: results do not depend on
 *           it.
 * Threads   One thread at a time calls kn_workers_run; it works too, as index 0.
 */
#ifndef KN_COMPUTE_WORKERS_H
#define KN_COMPUTE_WORKERS_H

#include "compute/ops.h"

typedef struct kn_workers kn_workers;

/* threads: including the caller; at least 1. */
KN_CHECKED kn_status kn_workers_open(int threads, kn_workers **out);
void kn_workers_close(kn_workers **p);
/* fn(user, begin, end) over [0, count) in pieces of `grain`. Returns when all are done. */
void kn_workers_run(kn_workers *p, int64_t count, int64_t grain, kn_range_fn *fn, void *user);
/* Index of the calling thread inside a piece, 0 to threads-1; 0 elsewhere. */
int kn_workers_index(void);

#endif
