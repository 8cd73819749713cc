/* attention/select_stub.c - stands for select_cuda.cu in builds without CUDA, where no CUDA device
 * can be opened either. */
#include "attention/select_cuda.h"

static kn_status absent(void)
{
    return kn_fail(KN_ERR_UNSUPPORTED, "attention planner: this build has no CUDA backend");
}

kn_status kn_select_open(kn_dev *d, const kn_select_params *params, kn_select **out)
{
    (void)d, (void)params;
    *out = NULL;
    return absent();
}
void kn_select_close(kn_select **s)
{
    *s = NULL;
}
kn_status kn_select_run_draft(kn_select *s, const kn_select_draft *rule, const kn_tensor *q,
                              const kn_tensor *k)
{
    (void)s, (void)rule, (void)q, (void)k;
    return absent();
}
kn_status kn_select_run_rows(kn_select *s, double threshold, int64_t budget, const kn_tensor *q,
                             const kn_tensor *k)
{
    (void)s, (void)threshold, (void)budget, (void)q, (void)k;
    return absent();
}
const kn_attn_lists *kn_select_lists(const kn_select *s)
{
    (void)s;
    return NULL;
}
double kn_select_density(const kn_select *s)
{
    (void)s;
    return 0;
}
kn_status kn_select_fetch(kn_select *s, uint32_t *keep, int32_t *perm_k)
{
    (void)s, (void)keep, (void)perm_k;
    return absent();
}
