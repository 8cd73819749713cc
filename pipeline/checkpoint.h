/* pipeline/checkpoint.h - the state of a denoising run on disk, so that a killed run can go on.
 *
 * Purpose   After a step (and always after the last one, before anything is decoded) the latents and the
 *           solver's history are written atomically beside the output. --resume reads them back; the
 *           run then gives the same bytes as one that was never stopped.
 * Format    safetensors: `latents` [C,F,H,W] f32, `history.0` ..., and `refresh` (latents of the dual
 *           path's last refresh) where one is kept; metadata job (fingerprint of everything that shapes
 *           the result), segment, pass, step, known, order, seed, kinora (version), options, and content: a
 *           64-bit hash of the tensors and of those numbers, checked before anything is taken from it.
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

/* files: paths of the model's weight and config files; their sizes and first 64 KiB count, and the whole of the files
 * that --tile-windows, --noise-in, --latents-in and --embeds-in name. content: name of what is read beside them
 * (SHA-256 of a clip), or "". */
KN_CHECKED kn_status kn_job_identity_build(const kn_options *o, const char *const *files, int count,
                                           const char *content, kn_job_identity *out);
void kn_job_identity_free(kn_job_identity *id);

/* Path of the checkpoint of an output: beside it, also where that is a folder. Free with kn_free. */
KN_CHECKED kn_status kn_checkpoint_path(const char *output, char **path);

typedef struct kn_checkpoint {
    int64_t segment; /* of a clip that is refined in segments; else 0 */
    int pass; /* 0 = base pass */
    kn_tensor latents;
    kn_tensor refresh;  /* rank 0: none */
    kn_solver *solver;  /* loading: NULL when the pass is done and only its latents are wanted */
} kn_checkpoint;

KN_CHECKED kn_status kn_checkpoint_save(const char *path, kn_dev *d, const kn_job_identity *id, int64_t seed,
                                        const kn_checkpoint *c);

/* Read only what says where a checkpoint stands: the seed (a job with --seed -1 goes on with the one it
 * drew), the pass, and its steps done. exists is false, and KN_OK returned, when there is no file. */
typedef struct kn_checkpoint_place {
    bool exists;
    int64_t seed, segment, pass, step;
    char job[17]; /* fingerprint */
} kn_checkpoint_place;
KN_CHECKED kn_status kn_checkpoint_peek(const char *path, kn_checkpoint_place *out);
/* Fill c's tensors and solver from a checkpoint of the same job and pass. */
KN_CHECKED kn_status kn_checkpoint_load(const char *path, kn_dev *d, const kn_job_identity *id,
                                        const kn_checkpoint *c);

#endif
