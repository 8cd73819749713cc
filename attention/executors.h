/* attention/executors.h - inside attention/: what a backend provides. attention.c has checked all
 * arguments before it calls one of these. plan NULL means dense.
 */
#ifndef KN_ATTENTION_EXECUTORS_H
#define KN_ATTENTION_EXECUTORS_H

#include "attention/plan.h"

typedef kn_status kn_attn_executor_fn(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                                      kn_arena *scratch);

/* Plain loops, double accumulation, any float dtype: the specification. */
kn_attn_executor_fn kn_attn_run_ref;
/* Own SIMD, fp32. Also sizes its scratch on the measure device. */
kn_attn_executor_fn kn_attn_run_cpu;
kn_attn_executor_fn kn_attn_measure_cpu;

#endif
