/* compute/cpu.c - the cpu device. */
#include "compute/backend.h"

#include <stdio.h>

size_t kn_cpu_weight_bytes(const kn_weight *w) { return kn_ref_weight_bytes(w); }

kn_status kn_cpu_open(kn_dev *d, const kn_dev_params *params)
{
    (void)params;
    kn_ref_fill(&d->ops);
    d->backend = &kn_host_backend;
    snprintf(d->describe, sizeof d->describe, "cpu, %d threads", d->threads);
    return KN_OK;
}
