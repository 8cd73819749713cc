/* compute/cpu.c - the cpu device: choice of instruction set, memory, packed weights. */
#include "compute/cpu.h"

#include <stdio.h>

#include "io/memory.h"

/* ---- instruction set ------------------------------------------------------------------------- */

/* 1 base, 2 AVX2, 3 AVX-512: the best that this machine has, at most `mask` when that is not 0. */
static int choose_isa(int mask)
{
    int best = 1;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = 2;
    if (best == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        best = 3;
#endif
    return mask && mask < best ? mask : best;
}

static const kn_cpu_kernels *kernels_of(int isa)
{
#if defined(__x86_64__)
    if (isa == 3) return &kn_cpu_avx512;
    if (isa == 2) return &kn_cpu_avx2;
#endif
    (void)isa;
    return &kn_cpu_base;
}

/* ---- memory and weights ---------------------------------------------------------------------- */

float *kn_cpu_scratch(const kn_dev *d)
{
    const kn_cpu *cpu = d->impl;
    return cpu->scratch + (size_t)kn_workers_index() * KN_CPU_SCRATCH_FLOATS;
}

kn_status kn_cpu_weight_bytes(const kn_dev *d, const kn_weight *w, size_t *bytes)
{
    const kn_cpu *cpu = d->impl;
    if (w->kind == KN_WEIGHT_LINEAR || w->kind == KN_WEIGHT_CONV)
        return kn_cpu_packed_bytes(cpu->kernels, cpu->dnnl, w, bytes);
    *bytes = kn_host_weight_bytes(w);
    return KN_OK;
}

static void free_packed(kn_cpu_weight *packed)
{
    if (packed) kn_free(packed->data);
    kn_free(packed);
}

static kn_status weight_open(kn_dev *d, const kn_tensor *host, kn_weight *w)
{
    if (w->kind == KN_WEIGHT_VECTOR || w->kind == KN_WEIGHT_TABLE)
        return kn_host_weight_open(d, host, w);
    const kn_cpu *cpu = d->impl;
    kn_status st = KN_OK;
    void *memory;
    kn_cpu_weight *packed = NULL;
    KN_TRY_GOTO(kn_cpu_weight_bytes(d, w, &w->bytes));
    KN_TRY_GOTO(kn_alloc_zero(sizeof *packed, &memory));
    packed = memory;
    KN_TRY_GOTO(kn_alloc(w->bytes, &memory));
    packed->data = memory;
    KN_TRY_GOTO(kn_cpu_pack(cpu->kernels, cpu->dnnl, w, host, packed));
    w->impl = packed;
    packed = NULL;
done:
    free_packed(packed);
    return st;
}

static void weight_close(kn_dev *d, kn_weight *w)
{
    if (w->impl)
        free_packed(w->impl);
    else
        kn_host_weight_close(d, w);
}

void kn_cpu_close(kn_dev *d)
{
    kn_cpu *cpu = d->impl;
    if (cpu == NULL) return;
    kn_dnnl_close(&cpu->dnnl);
    kn_free(cpu->scratch);
    kn_free(cpu);
    d->impl = NULL;
}

static const kn_backend backend = {
    .alloc = kn_host_alloc,
    .release = kn_host_release,
    .poison = kn_host_poison,
    .upload = kn_host_upload,
    .download = kn_host_download,
    .sync = kn_host_sync,
    .weight_open = weight_open,
    .weight_close = weight_close,
    .close = kn_cpu_close,
};

/* Kernels and oneDNN as a cpu device has them; enough to know sizes. d->impl is set even when this
 * fails: kn_cpu_close frees what is there. */
kn_status kn_cpu_open_sizes(kn_dev *d, const kn_dev_params *params)
{
    void *memory;
    KN_TRY(kn_alloc_zero(sizeof(kn_cpu), &memory));
    kn_cpu *cpu = d->impl = memory;
    d->isa = choose_isa(params->isa_mask);
    cpu->kernels = kernels_of(d->isa);
    /* A device that is held to an instruction set runs own kernels only: oneDNN would use the
     * best. */
    if (params->isa_mask == 0 || d->isa == 3)
        KN_TRY(
            kn_dnnl_open(d->threads, KN_CPU_SCRATCH_FLOATS / 2 * sizeof(float) - 64, &cpu->dnnl));
    return KN_OK;
}

kn_status kn_cpu_open(kn_dev *d, const kn_dev_params *params)
{
    static const char *const names[] = {"", "base", "AVX2", "AVX-512"};
    void *memory;
    d->backend = &backend; /* from here on kn_dev_close frees what is there */
    KN_TRY(kn_cpu_open_sizes(d, params));
    kn_cpu *cpu = d->impl;
    KN_TRY(kn_alloc((size_t)d->threads * KN_CPU_SCRATCH_FLOATS * sizeof(float), &memory));
    cpu->scratch = memory;
    kn_ref_fill(&d->ops);
    d->ops.linear = kn_cpu_linear;
    d->ops.conv = kn_cpu_conv;
    kn_cpu_rows_fill(&d->ops);
    kn_cpu_layout_fill(&d->ops);
    snprintf(d->describe, sizeof d->describe, "cpu, %d thread%s, %s%s%s", d->threads,
             d->threads == 1 ? "" : "s", names[d->isa], cpu->dnnl ? ", " : "",
             cpu->dnnl ? kn_dnnl_version(cpu->dnnl) : "");
    return KN_OK;
}
