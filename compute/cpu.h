/* compute/cpu.h - inside the cpu backend: what each instruction set provides, and packed weights.
 *
 * Purpose   kn_cpu_kernels is filled by cpu_base.c, cpu_avx2.c and cpu_avx512.c from the same two
 *           templates (cpu_strip.h, cpu_vector.h); cpu.c picks one when the device is opened. The
 *           drivers that split work into pieces are cpu_matrix.c, cpu_rows.c and cpu_layout.c.
 * Order     Every sum has a fixed order that depends on shapes and instruction set only.
 */
#ifndef KN_COMPUTE_CPU_H
#define KN_COMPUTE_CPU_H

#include "compute/backend.h"
#include "compute/cpu_dnnl.h"

/* ---- matrix products ------------------------------------------------------------------------- */

/* One call of the inner product kernel; see cpu_strip.h for the formula. */
typedef struct kn_strip {
    const float *x;         /* row 0 */
    int64_t x_pitch;        /* floats from row to row */
    const int64_t *segment; /* offsets from x, in floats */
    int segments;
    int64_t length; /* values of one segment */
    const float *w; /* [segments][length][lanes or 2 * lanes] */
    float *out;
    int64_t out_pitch;
    const float *sum;      /* so far, or NULL; may be out */
    const float *residual; /* or NULL */
    int64_t sum_pitch, residual_pitch;
    const float *bias; /* or NULL */
    int rows, cols;
} kn_strip;

/* ---- rows ------------------------------------------------------------------------------------ */

/* `rows` rows of n values, evenly spaced; y where an operation has a second input. Pitches in
 * floats. */
typedef struct kn_row_run {
    const float *x, *y;
    float *out;
    int64_t x_pitch, y_pitch, out_pitch, rows, n;
} kn_row_run;

typedef struct kn_cpu_kernels {
    int lanes;      /* floats in a vector; a weight panel is up to two vectors wide */
    int strip_rows; /* most rows in one call of strip */
    void (*strip)(const kn_strip *s);
    void (*rmsnorm)(const kn_row_run *r, const float *weight, const kn_rmsnorm_params *p);
    /* out = n * (plus_one + factor) + add; factor and add may be NULL */
    void (*layernorm)(const kn_row_run *r, const float *factor, float plus_one, const float *add,
                      float eps);
    void (*gate_add)(const kn_row_run *r, const float *gate);
    /* out = act(x) * y; y == NULL: 1 */
    void (*act)(const kn_row_run *r, kn_activation act);
    void (*axpby)(const kn_row_run *r, float a, float b);
    /* r->rows heads of n = D values turned by the same D/2 angles */
    void (*rope)(const kn_row_run *r, const float *cos, const float *sin);
    void (*load_bf16)(const uint16_t *src, float *dst, int64_t n);
    void (*load_f16)(const uint16_t *src, float *dst, int64_t n);
    void (*store_bf16)(const float *src, uint16_t *dst, int64_t n);
    void (*store_f16)(const float *src, uint16_t *dst, int64_t n);
} kn_cpu_kernels;

extern const kn_cpu_kernels kn_cpu_base;
#if defined(__x86_64__)
extern const kn_cpu_kernels kn_cpu_avx2;
extern const kn_cpu_kernels kn_cpu_avx512;
#endif

/* ---- device ---------------------------------------------------------------------------------- */

enum { KN_CPU_SCRATCH_FLOATS = 256 * 1024 }; /* per thread: half of a common L2 cache */

typedef struct kn_cpu {
    const kn_cpu_kernels *kernels;
    kn_dnnl *dnnl;  /* runs linear; NULL: own kernels do */
    float *scratch; /* [threads][KN_CPU_SCRATCH_FLOATS] */
} kn_cpu;

/* What kn_weight.impl points to, for linear and conv. */
typedef struct kn_cpu_weight {
    float *data;        /* own panels, or for linear by oneDNN blocks of KN_CPU_COLUMNS columns */
    size_t block_bytes; /* oneDNN: from block to block; 0: own panels */
} kn_cpu_weight;

enum { KN_CPU_COLUMNS = 512 };

static inline const kn_cpu_kernels *kn_cpu_of(const kn_dev *d)
{
    return ((const kn_cpu *)d->impl)->kernels;
}

/* Scratch of the calling thread, for the length of one piece of a kn_parallel_for. */
float *kn_cpu_scratch(const kn_dev *d);

/* Packed weights of linear and conv: bytes of kn_cpu_weight.data on a device with these kernels and
 * this oneDNN (or NULL), and the packing itself. */
KN_CHECKED kn_status kn_cpu_packed_bytes(const kn_cpu_kernels *k, kn_dnnl *dnnl, const kn_weight *w,
                                         size_t *bytes);
KN_CHECKED kn_status kn_cpu_pack(const kn_cpu_kernels *k, kn_dnnl *dnnl, const kn_weight *w,
                                 const kn_tensor *host, kn_cpu_weight *packed);

/* Operations, by file. */
kn_linear_fn kn_cpu_linear;
kn_conv_fn kn_cpu_conv;
void kn_cpu_rows_fill(kn_ops *ops);
void kn_cpu_layout_fill(kn_ops *ops);

#endif
