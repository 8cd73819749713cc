/* pipeline/render.h - one render, from options to a finished file.
 *
 * Purpose   Checks everything that can be checked before weights are read, then runs the phases: text,
 *           denoise, decode. Each phase loads its network, and closes it before the next.
 * Errors    As the parts say; nothing is left under a final name unless it is whole. After the first step a
 *           checkpoint stands beside the output until the output is complete.
 * Threads   One render per thread; renders share nothing.
 */
#ifndef KN_PIPELINE_RENDER_H
#define KN_PIPELINE_RENDER_H

#include "pipeline/highres.h"
#include "pipeline/progress.h"
#include "pipeline/session.h"

/* Where the seconds of a render go. Opening networks is counted apart from what they compute. */
typedef enum kn_part {
    KN_PART_LOAD,
    KN_PART_TEXT,
    KN_PART_BASE,
    KN_PART_UPSAMPLE, /* between passes: decoding and resizing */
    KN_PART_ENCODE,
    KN_PART_REFINE,
    KN_PART_DECODE, /* the waiting for frames; a GPU decodes during MUX too */
    KN_PART_MUX,    /* colors, video encoder, files */
    KN_PARTS
} kn_part;
const char *kn_part_name(kn_part part);

/* Memory of one phase: as planned before it, and the most that was held while it ran. */
typedef struct kn_phase_memory {
    char name[24];
    size_t planned_bytes, peak_bytes;           /* of the device */
    size_t planned_host_bytes, peak_host_bytes; /* that stands in for the device's: weights, contexts */
} kn_phase_memory;

enum { KN_PHASES_MAX = 2 + 2 * KN_PASSES_MAX };

typedef struct kn_render_cost {
    double part_sec[KN_PARTS];
    size_t planned_bytes, peak_bytes; /* device memory of the largest phase: as planned, as taken */
    kn_phase_memory phase[KN_PHASES_MAX];
    int phases;
} kn_render_cost;

/* o: the user's options (command line, preset and config applied). The model folder's defaults are added
 * and what follows from others is filled in; on return o holds what was used, the seed included.
 * o->dry_run: stops after the plan. fn may be NULL. */
KN_CHECKED kn_status kn_render(kn_options *o, kn_event_fn *fn, void *user);
/* The same, and what it cost. */
KN_CHECKED kn_status kn_render_timed(kn_options *o, kn_event_fn *fn, void *user, kn_render_cost *cost);
/* The same on a session's device, with what stands open there. */
KN_CHECKED kn_status kn_render_in(kn_session *session, kn_options *o, kn_event_fn *fn, void *user);

#endif
