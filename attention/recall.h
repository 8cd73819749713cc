/* attention/recall.h - how much of dense attention's weight a plan keeps.
 *
 * Purpose   For sampled queries: the softmax weights, over all keys, of the keys that the plan shows.
 *           1 = nothing that mattered was hidden.
 * Shapes    q, k [L,N,D] in host memory, any float dtype, as executors take them.
 * Cost      samples x L x D per head, in double.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM.
 */
#ifndef KN_ATTENTION_RECALL_H
#define KN_ATTENTION_RECALL_H

#include "attention/plan.h"

/* Mean over `samples` queries (at most L), spread evenly over the stored order, of the weight kept;
 * per head into recall [N]. d: for its threads. scale: of the softmax, where the plan has none. */
KN_CHECKED kn_status kn_attn_plan_recall(kn_dev *d, const kn_attn_plan *plan, const kn_tensor *q,
                                         const kn_tensor *k, double scale, int samples,
                                         double *recall);

#endif
