/* attention/executors.h - inside attention/: what a backend provides. attention.c has checked all
 * arguments before it calls one of these. plan NULL means dense.
 */
#ifndef KN_ATTENTION_EXECUTORS_H
#define KN_ATTENTION_EXECUTORS_H

#include "attention/plan.h"

/* args->norm is for kn_attn_run_cuda with int8 alone; others find it done. */
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

static inline void kn_attn_save(const kn_tensor *t, int64_t offset, double x)
{
    switch (t->dtype) {
    case KN_F64: ((double *)t->data)[offset] = x; break;
    case KN_BF16: ((uint16_t *)t->data)[offset] = kn_f32_to_bf16((float)x); break;
    case KN_F16: ((uint16_t *)t->data)[offset] = kn_f32_to_f16((float)x); break;
    default: ((float *)t->data)[offset] = (float)x; break;
    }
}

/* Dot product of two rows, in double: eight sums side by side, so that the additions need not wait
 * for each other. */
static inline double kn_attn_dot(const kn_tensor *a, int64_t a0, const kn_tensor *b, int64_t b0,
                                 int64_t dim)
{
    double sum[8] = {0};
    int64_t i = 0;
    if (a->dtype == KN_F32 && b->dtype == KN_F32) {
        const float *x = (const float *)a->data + a0, *y = (const float *)b->data + b0;
        for (; i + 8 <= dim; i += 8)
            for (int j = 0; j < 8; j++) sum[j] += (double)x[i + j] * y[i + j];
    }
    for (; i < dim; i++) sum[0] += kn_attn_load(a, a0 + i) * kn_attn_load(b, b0 + i);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* Plain loops, double accumulation, any float dtype: the specification. */
kn_attn_executor_fn kn_attn_run_ref;
/* The specification of args->int8 and args->skip_below. */
kn_attn_executor_fn kn_attn_run_entries_ref;
/* Own SIMD, fp32. Also sizes its scratch on the measure device. */
kn_attn_executor_fn kn_attn_run_cpu;
kn_attn_executor_fn kn_attn_measure_cpu;
/* bf16 on a GPU: run_cuda.c chooses the kernel. */
kn_attn_executor_fn kn_attn_run_cuda;
/* args->norm, if there is one, in place of q and k. */
kn_status kn_attn_apply_norm(kn_dev *d, const kn_attn_args *args);
bool kn_attn_cuda_is_hopper(const kn_dev *d);
void kn_attn_forget_cuda(kn_dev *d);

#endif
