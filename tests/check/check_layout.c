/* tests/check/check_layout.c - copy, gather, upsample2, patchify, unpatchify: values move, so they
 * must be equal; a change of dtype costs one rounding. */
#include <stdio.h>

#include "check.h"

static kn_status run_copy(kn_dev *d, const check_args *a)
{
    const int *order = a->params;
    kn_tensor x = kn_tensor_permute(&a->t[0], order), out = a->t[1];
    if (!kn_tensor_same_shape(&x, &out)) out = kn_tensor_permute(&a->t[1], order);
    return kn_copy(d, &x, &out);
}

static void copy_case(check *c, kn_dtype from, kn_dtype to, const int *order, const int64_t *dims,
                      bool into_order, int extra)
{
    if (!check_begin(c, "copy_%lldx%lldx%lldx%lld_%s_to_%s_order%d%d%d%d%s%s", (long long)dims[0],
                     (long long)dims[1], (long long)dims[2], (long long)dims[3],
                     kn_dtype_name(from), kn_dtype_name(to), order[0], order[1], order[2], order[3],
                     into_order ? "" : "_same", extra ? "_strided" : ""))
        return;
    int64_t out[4];
    for (int i = 0; i < 4; i++) out[i] = into_order ? dims[order[i]] : dims[i];
    check_in_strided(c, CHECK_NORMAL, from, 4, dims, extra);
    check_out_strided(c, to, 4, out, extra);
    double eps =
        from == to || to == KN_F64 || to == KN_F32 ? 0 : 2 * check_eps(to); /* one rounding */
    if (from == KN_F64 && to == KN_F32) eps = 2 * check_eps(to);
    /* f16 has steps of 2^-24 near zero */
    check_run(c, run_copy, order, NULL,
              &(check_bound){.tol = eps, .nmse = eps * eps, .tiny = to == KN_F16 ? 0x1p-14 : 0});
}

static kn_status run_gather(kn_dev *d, const check_args *a)
{
    return kn_gather(d, &a->t[0], a->index, &a->t[1]);
}
static kn_status run_upsample(kn_dev *d, const check_args *a)
{
    return kn_upsample2(d, &a->t[0], &a->t[1]);
}

static kn_status run_patchify(kn_dev *d, const check_args *a)
{
    return kn_patchify(d, &a->t[0], a->params, a->index, &a->t[1]);
}

static kn_status run_unpatchify(kn_dev *d, const check_args *a)
{
    return kn_unpatchify(d, &a->t[0], a->params, a->index, &a->t[1]);
}

static void patch_cases(check *c, const int64_t volume[4], const int patch[3], kn_dtype t,
                        double eps)
{
    enum { MAX_TOKENS = 512 };
    int32_t order[MAX_TOKENS];
    int64_t tokens[2] = {1, volume[0]};
    for (int i = 0; i < 3; i++) {
        tokens[0] *= volume[i + 1] / patch[i];
        tokens[1] *= patch[i];
    }
    for (int32_t i = 0; i < tokens[0]; i++) /* a bijection: reversed, then pairs swapped */
        order[i] = (int32_t)tokens[0] - 1 - ((i ^ 1) < tokens[0] ? i ^ 1 : i);
    for (int with_order = 0; with_order < 2; with_order++) {
        char shape[96];
        snprintf(shape, sizeof shape, "%lldx%lldx%lldx%lld_p%d%d%d_%s%s", (long long)volume[0],
                 (long long)volume[1], (long long)volume[2], (long long)volume[3], patch[0],
                 patch[1], patch[2], kn_dtype_name(t), with_order ? "_order" : "");
        check_bound b = {.tol = eps, .nmse = eps * eps};
        if (check_begin(c, "patchify_%s", shape)) {
            check_in(c, CHECK_NORMAL, KN_F32, 4, volume);
            check_out_strided(c, t, 2, tokens, 4);
            check_run(c, run_patchify, patch, with_order ? order : NULL, &b);
        }
        if (check_begin(c, "unpatchify_%s", shape)) {
            check_in_strided(c, CHECK_NORMAL, t, 2, tokens, 4);
            check_out(c, KN_F32, 4, volume);
            check_bound exact = {0};
            check_run(c, run_unpatchify, patch, with_order ? order : NULL, &exact);
        }
    }
}

void check_layout(check *c)
{
    static const int same[4] = {0, 1, 2, 3}, channels_first[4] = {3, 0, 1, 2},
                     mixed[4] = {2, 0, 3, 1};
    static const int64_t dims[][4] = {{3, 10, 20, 16}, {1, 7, 9, 3}, {2, 33, 40, 64}, {1, 1, 1, 1}};
    static const kn_dtype floats[] = {KN_F32, KN_BF16, KN_F16, KN_F64};
    for (int i = 0; i < 4; i++) {
        copy_case(c, KN_F32, KN_F32, same, dims[i], true, 0);
        copy_case(c, KN_F32, KN_F32, channels_first, dims[i], true, 0);
        copy_case(c, KN_F32, KN_F32, channels_first, dims[i], false, 0);
        copy_case(c, KN_F32, KN_F32, mixed, dims[i], true, 3);
    }
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 4; to++) {
            bool f64 = floats[from] == KN_F64 || floats[to] == KN_F64;
            if (f64 && check_kind(c) == KN_DEV_CUDA) continue;
            copy_case(c, floats[from], floats[to], same, dims[0], true, 0);
            copy_case(c, floats[from], floats[to], mixed, dims[1], true, 2);
        }
    for (int i = 0; i < 3; i++) {
        static const kn_dtype integers[] = {KN_I32, KN_I64, KN_U8};
        copy_case(c, integers[i], integers[i], same, dims[0], true, 0);
        copy_case(c, integers[i], integers[i], mixed, dims[1], true, 2);
    }
    kn_dtype t;
    for (int i = 0; check_activation(c, i, &t); i++) {
        static const int32_t index[] = {3, 0, 0, 10, 7};
        for (int width = 1; width < 300; width += 97)
            if (check_begin(c, "gather_11x2x%d_%s", width, kn_dtype_name(t))) {
                check_in_strided(c, CHECK_NORMAL, t, 3, (int64_t[]){11, 2, width}, 6);
                check_out_strided(c, t, 3, (int64_t[]){5, 2, width}, 2);
                check_run(c, run_gather, NULL, index, &(check_bound){0});
            }
        for (int k = 0; k < 4; k++)
            if (check_begin(c, "upsample2_%lldx%lldx%lldx%lld_%s", (long long)dims[k][0],
                            (long long)dims[k][1], (long long)dims[k][2], (long long)dims[k][3],
                            kn_dtype_name(t))) {
                check_in_strided(c, CHECK_NORMAL, t, 4, dims[k], k);
                check_out_strided(
                    c, t, 4, (int64_t[]){dims[k][0], 2 * dims[k][1], 2 * dims[k][2], dims[k][3]},
                    k);
                check_run(c, run_upsample, NULL, NULL, &(check_bound){0});
            }
        double eps = t == KN_F32 ? 0 : 2 * check_eps(t);
        patch_cases(c, (int64_t[]){16, 5, 12, 20}, (int[]){1, 2, 2}, t, eps);
        patch_cases(c, (int64_t[]){3, 4, 6, 6}, (int[]){2, 3, 1}, t, eps);
        patch_cases(c, (int64_t[]){1, 1, 1, 1}, (int[]){1, 1, 1}, t, eps);
    }
}
