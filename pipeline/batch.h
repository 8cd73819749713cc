/* pipeline/batch.h - many jobs in one run.
 *
 * Purpose   Drives the parts of a render over the jobs of a batch file: all are checked first; then, per
 *           model folder, all prompts are encoded, the text encoder is closed, and the jobs are rendered one
 *           after the other with transformer and VAE kept open where memory allows. A job that fails is
 *           recorded and the next one starts. Any number of processes may work on one folder.
 * Order     As in the file, but jobs of one model folder come together.
 * Resume    With `resume`, finished jobs (pipeline/batch_ledger.h) are skipped, checkpoints are gone on from;
 *           without it an output that exists is an error of its job, or replaced with `overwrite`. A process
 *           that joins another one on the same folder behaves as if resumed.
 * Errors    Of the batch as a whole only; those of jobs are in their results. KN_ERR_CANCELLED: stopped at a
 *           step's end, with everything saved.
 */
#ifndef KN_PIPELINE_BATCH_H
#define KN_PIPELINE_BATCH_H

#include "pipeline/batch_file.h"
#include "pipeline/batch_ledger.h"
#include "pipeline/render_job.h"

typedef enum kn_batch_state {
    KN_BATCH_WAITING,   /* not started */
    KN_BATCH_DONE,
    KN_BATCH_SKIPPED,   /* was finished before */
    KN_BATCH_ELSEWHERE, /* another process finished it meanwhile */
    KN_BATCH_FAILED,
    KN_BATCH_STOPPED,   /* in the middle; its checkpoint stands */
    KN_BATCH_OTHERS     /* of another shard */
} kn_batch_state;

typedef struct kn_batch_result {
    kn_batch_state state;
    double seconds;
    kn_status status; /* of FAILED */
    char *error; /* NULL when there was no memory for it: see kn_batch_error */
    /* dry run */
    int64_t width_px, height_px, frames, tokens; /* as written */
    size_t peak_bytes;
    double operations, estimate_sec; /* estimate < 0: the device is not here to be timed */
} kn_batch_result;

typedef struct kn_batch {
    kn_batch_file file;
    kn_batch_result *result; /* one per entry */
    const char *folder;
    int shard, shards; /* this process does entries with (index - 1) % shards == shard */
    bool resume, overwrite;
    kn_event_fn *fn;
    void *user;
    kn_ledger ledger;
    kn_session session;
    double total_sec;
} kn_batch;

/* b: file, folder, shard, shards, resume, overwrite, fn, user are set; the rest is zero. */
KN_CHECKED kn_status kn_batch_run(kn_batch *b);
/* Fill results without rendering; nothing is written. */
KN_CHECKED kn_status kn_batch_estimate(kn_batch *b);
void kn_batch_close(kn_batch *b);

const char *kn_batch_state_name(kn_batch_state s);
/* Why a FAILED job failed. */
const char *kn_batch_error(const kn_batch_result *r);

#endif
