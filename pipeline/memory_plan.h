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

typedef struct kn_memory_plan {
    struct {
        const char *name, *advice;
        kn_network network; /* whose weights it holds */
        size_t peak_bytes; /* device memory, without base_bytes */
        size_t host_bytes; /* beside it, on a GPU: weights with --offload, contexts with --context-cache host, frames */
        const char *contexts; /* where those of the second branch are; NULL: there are none */
        size_t outside_bytes; /* where the device is the host: what others allocate, encoder and lists */
    } phase[KN_PHASES_MAX];
    int phases;
    size_t base_bytes; /* where the device is the host: the process before any phase */
    size_t budget_bytes;
} kn_memory_plan;

/* What phase i takes of the memory that the budget is of. */
static inline size_t kn_memory_phase_bytes(const kn_memory_plan *p, int i)
{
    if (!p->base_bytes) return p->phase[i].peak_bytes; /* a GPU's */
    return p->base_bytes + p->phase[i].peak_bytes + p->phase[i].host_bytes + p->phase[i].outside_bytes;
}

KN_CHECKED kn_status kn_memory_plan_build(kn_job *j, kn_memory_plan *out);
/* What each phase will take, to j: for the session to make room by, and to be compared with what it takes. */
void kn_memory_plan_keep(kn_job *j, const kn_memory_plan *p);
/* The plan as notes to the listener. */
void kn_memory_plan_tell(kn_job *j, const kn_memory_plan *p);
/* Of a run: contexts that are not on the device. */
void kn_memory_plan_tell_contexts(kn_job *j, const kn_memory_plan *p);
/* KN_ERR_NOMEM when a phase's peak is over the budget. */
KN_CHECKED kn_status kn_memory_plan_check(kn_job *j, const kn_memory_plan *p);

/* Host memory that this process may still take: what the kernel calls available, what its control
 * group leaves, or what a limit of address space (`ulimit -v`) leaves beside libraries and threads, whichever
 * is least. 0 when unknown. */
size_t kn_host_memory_available(void);

#endif
