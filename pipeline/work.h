/* pipeline/work.h - how much a job computes, and how long that will take.
 *
 * Purpose   Counts the operations of all passes and of the VAE. Divided by a rate they give a time: the
 *           rate that earlier jobs on the same device had, or one measured in a moment.
 * Formulas  per block and evaluation 8 L d^2 + 4 L^2 d density + 4 L d^2 + 4 L T d + 4 L d ffn
 *           (dit/dit.h); VAE decoding 8.5e6 (base / 96)^2 per pixel and frame (vae/wan_vae.h), encoding
 *           half of it. The text encoder is left out: seconds, once.
 */
#ifndef KN_PIPELINE_WORK_H
#define KN_PIPELINE_WORK_H

#include "pipeline/render_job.h"

/* Operations of a prepared job, as if started from the beginning. */
KN_CHECKED kn_status kn_work_of(const kn_job *j, double *operations);
/* Operations per second of the job's device: products and attention of the model's shapes, timed for about
 * half a second. An upper bound of what a render reaches. */
KN_CHECKED kn_status kn_work_rate(const kn_job *j, double *operations_per_sec);

#endif
