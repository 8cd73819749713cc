/* pipeline/memory_plan.h - how much memory a render will take, before it takes it.
 *
 * Purpose   Runs each phase's own code on the measure device, which allocates nothing and counts. A job
 *           that cannot fit is refused with the numbers before a weight is read.
 * Units     bytes of device memory. On the CPU that is the whole process: what it holds before the run
 *           (program, libraries), each phase's tensors, lists of attention, and the video encoder
 *           (kn_video_writer_memory).
 * Errors    KN_ERR_NOMEM from kn_memory_plan_check; the phases' own errors (a tensor that is missing or
 *           of another shape is found here, before any work).
 */
#ifndef KN_PIPELINE_MEMORY_PLAN_H
#define KN_PIPELINE_MEMORY_PLAN_H

#include "pipeline/render_job.h"

enum { KN_PHASES_MAX = 2 + 2 * KN_PASSES_MAX };

typedef struct kn_memory_plan {
    struct {
        const char *name, *advice;
        kn_network network; /* whose weights it holds */
        size_t peak_bytes; /* device memory, without base_bytes */
        size_t host_bytes; /* beside it, where the device is the host: encoder, lists */
    } phase[KN_PHASES_MAX];
    int phases;
    size_t base_bytes; /* where the device is the host: the process before any phase */
    size_t budget_bytes;
} kn_memory_plan;

/* Everything that phase i takes. */
static inline size_t kn_memory_phase_bytes(const kn_memory_plan *p, int i)
{
    return p->base_bytes + p->phase[i].peak_bytes + p->phase[i].host_bytes;
}

KN_CHECKED kn_status kn_memory_plan_build(kn_job *j, kn_memory_plan *out);
/* The plan as notes to the listener. */
void kn_memory_plan_tell(kn_job *j, const kn_memory_plan *p);
/* KN_ERR_NOMEM when a phase's peak is over the budget. */
KN_CHECKED kn_status kn_memory_plan_check(kn_job *j, const kn_memory_plan *p);

/* Host memory that this process may still take: what the kernel calls available, or what its control
 * group leaves, whichever is less. 0 when unknown. */
size_t kn_host_memory_available(void);

#endif
