/* pipeline/checkpoint.h - the state of a denoising run on disk, so that a killed run can go on.
 *
 * Purpose   After a step (and always after the last one, before anything is decoded) the latents and the
 *           solver's history are written atomically beside the output. --resume reads them back; the
 *           run then gives the same bytes as one that was never stopped.
 * Format    safetensors: `latents` [C,F,H,W] f32, `history.0` ...; metadata job (fingerprint of
 *           everything that shapes the result), step, known, order, seed, kinora (version), options.
 * Errors    KN_ERR_IO, KN_ERR_FORMAT; KN_ERR_ARG when the checkpoint is of another job: names the
 *           options that differ.
 */
#ifndef KN_PIPELINE_CHECKPOINT_H
#define KN_PIPELINE_CHECKPOINT_H

#include <stdbool.h>

#include "pipeline/options.h"
#include "pipeline/solver.h"

/* What makes two runs the same job: options that shape the result, and the model's files. */
typedef struct kn_job_identity {
    char fingerprint[17]; /* 64-bit FNV-1a, hexadecimal */
    char *options;        /* JSON of the options behind it; free with kn_free */
} kn_job_identity;

/* files: paths of the model's weight and config files; their sizes and first 64 KiB count. */
KN_CHECKED kn_status kn_job_identity_build(const kn_options *o, const char *const *files, int count,
                                           kn_job_identity *out);
void kn_job_identity_free(kn_job_identity *id);

/* Path of the checkpoint of an output. Free with kn_free. */
KN_CHECKED kn_status kn_checkpoint_path(const char *output, char **path);

/* Write latents and the solver's state. */
KN_CHECKED kn_status kn_checkpoint_save(const char *path, kn_dev *d, const kn_job_identity *id, int64_t seed,
                                        const kn_tensor *latents, const kn_solver *solver);

/* Read only the seed (a job with --seed -1 goes on with the one it drew) and the step of a checkpoint.
 * *exists is false, and KN_OK returned, when there is no file. */
KN_CHECKED kn_status kn_checkpoint_peek(const char *path, bool *exists, int64_t *seed, int64_t *step);
/* Restore latents, and the solver unless it is NULL (denoising is done), from a checkpoint of the same job. */
KN_CHECKED kn_status kn_checkpoint_load(const char *path, kn_dev *d, const kn_job_identity *id,
                                        const kn_tensor *latents, kn_solver *solver);

#endif
