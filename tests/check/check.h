/* tests/check/check.h - the harness of kn_check: an operation on a device against the ref device in
 * double precision.
 *
 * A case   begin, declare inputs, weights and outputs, run. The function under test gets the same
 * list
 *          of arguments twice: as f64 tensors on ref (the specification), and on the device in the
 *          dtypes asked for. Inputs hold values that their dtype represents, so both see the same
 *          ones.
 *
 *              if (!check_begin(c, "rmsnorm_%dx%d_%s", rows, width, check_fill_name(fill)))
 *              continue; check_in(c, fill, KN_F32, 2, (int64_t[]){rows, width});     t[0]
 *              check_in(c, CHECK_NORMAL, KN_F32, 1, (int64_t[]){width});   t[1]
 *              check_out(c, KN_F32, 2, (int64_t[]){rows, width});          t[2]
 *              check_run(c, run_rmsnorm, &params, &bound);
 *
 * Checked  Every output element is written (outputs start as NaN) and near ref; bytes around each
 *          buffer and between strided rows stay as they were; inputs stay as they were; a second
 *          run, and a run with 1 instead of 2 threads, give the same bytes.
 * Bounds   Two, both needed, with err = got - ref and m = magnitude of each element:
 *            |err| <= tol * m            and       sum(err^2) <= nmse * sum(m^2).
 *          m is |ref| + tiny unless the case gives a function for it. The reason for the numbers
 *          stands beside them.
 */
#ifndef KN_TESTS_CHECK_H
#define KN_TESTS_CHECK_H

#include "compute/ops.h"
#include "suites.h"

enum { CHECK_MAX_TENSORS = 12, CHECK_MAX_WEIGHTS = 4 };

typedef struct check check;

/* Fills. NORMAL: gaussian. HUGE: 1e4 times, TINY: 1e-20 times. CONSTANT: one value per row.
 * SPIKE: one value in each row is 1000 times the others. ZERO: all zero. */
typedef enum check_fill {
    CHECK_NORMAL,
    CHECK_HUGE,
    CHECK_TINY,
    CHECK_CONSTANT,
    CHECK_SPIKE,
    CHECK_ZERO,
    CHECK_FILLS
} check_fill;
const char *check_fill_name(check_fill f);

typedef struct check_args {
    kn_tensor t[CHECK_MAX_TENSORS]; /* in the order declared */
    kn_weight w[CHECK_MAX_WEIGHTS]; /* opened on the device */
    const int32_t *index;           /* host list given by the case, or NULL */
    const void *params;
    bool magnitude; /* leave activations out: see check_abs_magnitude */
} check_args;

typedef kn_status check_fn(kn_dev *d, const check_args *a);
/* Writes m for each element of the first output, row-major. `ref`: tensors in f64, outputs done. */
typedef void check_magnitude_fn(const check_args *ref, double *m);

typedef struct check_bound {
    double tol, nmse;
    check_magnitude_fn *magnitude; /* NULL: |ref| + tiny */
    bool abs_magnitude; /* m = the function on absolute inputs and weights (sums of products) */
    double tiny;        /* smallest magnitude where |ref| is it; 0: 1e-30 */
    double flops;       /* of one run, for --bench; 0: bytes are printed */
} check_bound;

/* Whether to run this case; with --list prints its name and returns false. */
bool check_begin(check *c, const char *format, ...) KN_PRINTF(2, 3);
/* The next tensor. */
void check_in(check *c, check_fill fill, kn_dtype dtype, int rank, const int64_t *dims);
void check_out(check *c, kn_dtype dtype, int rank, const int64_t *dims);
/* As check_in and check_out, but rows of the last axis are `extra` elements further apart. */
void check_in_strided(check *c, check_fill fill, kn_dtype dtype, int rank, const int64_t *dims,
                      int64_t extra);
void check_out_strided(check *c, kn_dtype dtype, int rank, const int64_t *dims, int64_t extra);
/* The output is tensor i itself: an operation in place. */
void check_out_in_place(check *c, int i);
/* The next weight, stored as dtype (KN_F32, KN_BF16, KN_F16). */
void check_weight(check *c, kn_weight_kind kind, check_fill fill, kn_dtype dtype, int rank,
                  const int64_t *dims);
void check_run(check *c, check_fn *fn, const void *params, const int32_t *index,
               const check_bound *b);

/* 2^-25 for f32, 2^-9 for bf16: a rounding to nearest is off by at most twice this, relative to the
 * value, and by about this in the mean. */
double check_eps(kn_dtype t);
/* dtype of activations on the device under test: f32, and on cuda also bf16 (i = 0, 1, ...); false
 * when there is no i-th. */
bool check_activation(const check *c, int i, kn_dtype *out);
kn_dev_kind check_kind(const check *c);
kn_dev *check_dev(const check *c);

#define X(suite) void check_##suite(check *c);
CHECK_SUITES(X)
#undef X

#endif
