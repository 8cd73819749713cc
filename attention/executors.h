/* attention/executors.h - inside attention/: what a backend provides. attention.c has checked all
 * arguments before it calls one of these. plan NULL means dense.
 */
#ifndef KN_ATTENTION_EXECUTORS_H
#define KN_ATTENTION_EXECUTORS_H

#include "attention/plan.h"

typedef kn_status kn_attn_executor_fn(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan,
                                      kn_arena *scratch);

/* Element of a float tensor in host memory. */
static inline double kn_attn_load(const kn_tensor *t, int64_t offset)
{
    switch (t->dtype) {
    case KN_F64: return ((const double *)t->data)[offset];
    case KN_BF16: return kn_bf16_to_f32(((const uint16_t *)t->data)[offset]);
    case KN_F16: return kn_f16_to_f32(((const uint16_t *)t->data)[offset]);
    default: return ((const float *)t->data)[offset];
    }
}

/* Plain loops, double accumulation, any float dtype: the specification. */
kn_attn_executor_fn kn_attn_run_ref;
/* Own SIMD, fp32. Also sizes its scratch on the measure device. */
kn_attn_executor_fn kn_attn_run_cpu;
kn_attn_executor_fn kn_attn_measure_cpu;

#endif
