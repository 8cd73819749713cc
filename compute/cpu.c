/* compute/cpu.c - the cpu device: choice of instruction set, memory, packed weights. */
#include "compute/cpu.h"

#include <stdio.h>

#include "io/memory.h"

/* ---- instruction set --------------------------------------------------------------------------- */

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

/* ---- memory and weights ------------------------------------------------------------------------ */

float *kn_cpu_scratch(const kn_dev *d)
{
    const kn_cpu *cpu = d->impl;
    return cpu->scratch + (size_t)kn_workers_index() * KN_CPU_SCRATCH_FLOATS;
}

size_t kn_cpu_weight_bytes(const kn_weight *w)
{
    if (w->kind == KN_WEIGHT_LINEAR || w->kind == KN_WEIGHT_CONV)
        return kn_cpu_packed_bytes(w, kernels_of(choose_isa(0))->lanes);
    return kn_host_weight_bytes(w);
}

static kn_status weight_open(kn_dev *d, const kn_tensor *host, kn_weight *w)
{
    if (w->kind == KN_WEIGHT_VECTOR || w->kind == KN_WEIGHT_TABLE)
        return kn_host_weight_open(d, host, w);
    const kn_cpu_kernels *kernels = kn_cpu_of(d);
    size_t bytes = kn_cpu_packed_bytes(w, kernels->lanes);
    KN_TRY(kn_alloc(bytes, &w->impl));
    kn_cpu_pack(kernels, w, host, w->impl);
    w->bytes = bytes;
    return KN_OK;
}

static void weight_close(kn_dev *d, kn_weight *w)
{
    if (w->impl) kn_free(w->impl);
    else kn_host_weight_close(d, w);
}

static void close_cpu(kn_dev *d)
{
    kn_cpu *cpu = d->impl;
    if (cpu == NULL) return;
    kn_free(cpu->scratch);
    kn_free(cpu);
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
    .close = close_cpu,
};

kn_status kn_cpu_open(kn_dev *d, const kn_dev_params *params)
{
    static const char *const names[] = {"", "base", "AVX2", "AVX-512"};
    void *memory;
    KN_TRY(kn_alloc_zero(sizeof(kn_cpu), &memory));
    kn_cpu *cpu = d->impl = memory;
    d->backend = &backend; /* from here on kn_dev_close frees what is there */
    d->isa = choose_isa(params->isa_mask);
    cpu->kernels = kernels_of(d->isa);
    KN_TRY(kn_alloc((size_t)d->threads * KN_CPU_SCRATCH_FLOATS * sizeof(float), &memory));
    cpu->scratch = memory;
    kn_ref_fill(&d->ops);
    d->ops.linear = kn_cpu_linear;
    d->ops.conv = kn_cpu_conv;
    kn_cpu_rows_fill(&d->ops);
    kn_cpu_layout_fill(&d->ops);
    snprintf(d->describe, sizeof d->describe, "cpu, %d thread%s, %s", d->threads,
             d->threads == 1 ? "" : "s", names[d->isa]);
    return KN_OK;
}
