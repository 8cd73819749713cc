/* compute/cpu_vector.h - row operations, compiled once per instruction set.
 *
 * Purpose   Norms, activations, gates and conversions over rows of floats.
 * Use       The including file defines, for vectors VEC of LANES floats:
 *             vec_load vec_store vec_set1 vec_zero vec_add vec_sub vec_mul vec_div
 *             vec_fma(a,b,c)    a*b + c
 *             vec_max vec_min   of (a, b): b where either is NaN
 *             vec_round         to the nearest whole number
 *             vec_pow2(n)       2^n for whole n in -126..127
 *             vec_if_neg(x,a,b) a where the sign bit of x is set, else b
 *             vec_abs, vec_sum (all lanes, in a fixed order), vec_rotate(x, cos, sin) see rope
 *             vec_load_part vec_store_part  the first n < LANES lanes; the others read as zero
 *             f16_load f16_store  LANES values
 * Accuracy  exp: 1 ulp of the polynomial and about 1 of the reduction. erfc: 1.7e-7 relative.
 */

static inline VEC load_n(const float *p, int n)
{
    return n == LANES ? vec_load(p) : vec_load_part(p, n);
}

static inline void store_n(float *p, VEC v, int n)
{
    if (n == LANES)
        vec_store(p, v);
    else
        vec_store_part(p, v, n);
}

#define FOR_VECTORS(i, part, n)                                                                    \
    for (int64_t i = 0; i < (n); i += LANES)                                                       \
        for (int part = (n)-i < LANES ? (int)((n)-i) : LANES, once_ = 1; once_; once_ = 0)

/* ---- elementary functions -------------------------------------------------------------------- */

/* e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2)/2; Taylor series of e^r to r^7, whose rest
 * is below 5.3e-9. ln 2 in two parts as in Cephes expf, so that n * 0.693359375 is exact. x is
 * limited to [-87.3, 88]. */
static inline VEC vec_exp(VEC x)
{
    x = vec_min(vec_set1(88.0f), vec_max(vec_set1(-87.3f), x));
    VEC n = vec_round(vec_mul(x, vec_set1(1.44269504f)));
    VEC r = vec_fma(n, vec_set1(-0.693359375f), x);
    r = vec_fma(n, vec_set1(2.12194440e-4f), r);
    VEC y = vec_set1(1.0f / 5040);
    y = vec_fma(y, r, vec_set1(1.0f / 720));
    y = vec_fma(y, r, vec_set1(1.0f / 120));
    y = vec_fma(y, r, vec_set1(1.0f / 24));
    y = vec_fma(y, r, vec_set1(1.0f / 6));
    y = vec_fma(y, r, vec_set1(0.5f));
    y = vec_fma(y, r, vec_set1(1.0f));
    y = vec_fma(y, r, vec_set1(1.0f));
    return vec_mul(y, vec_pow2(n));
}

/* x / (1 + e^-x) */
static inline VEC vec_silu(VEC x)
{
    VEC one = vec_set1(1.0f);
    return vec_div(x, vec_add(one, vec_exp(vec_sub(vec_zero(), x))));
}

/* 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3): relative accuracy is
 * kept where tanh u is near -1. */
static inline VEC vec_gelu_tanh(VEC x)
{
    VEC cube = vec_mul(vec_mul(x, x), x);
    VEC u =
        vec_mul(vec_set1(-1.59576912f), vec_fma(vec_set1(0.044715f), cube, x)); /* -2 sqrt(2/pi) */
    return vec_div(x, vec_add(vec_set1(1.0f), vec_exp(u)));
}

/* 0.5 x erfc(-x / sqrt 2). For z >= 0, erfc(z) = e^(-z^2) t R(t), t = 1 / (1 + z/2); R is a minimax
 * fit of degree 8 over z in [0, 7] (iteratively reweighted least squares on 400 Chebyshev points,
 * largest relative error 3.4e-8 before rounding); for z < 0, erfc(z) = 2 - erfc(-z). */
static inline VEC vec_gelu_erf(VEC x)
{
    static const float R[9] = {0.282110214f,  0.28198275f,     0.245816439f,
                               0.192403972f,  -0.00317783817f, 0.24503991f,
                               -0.459058285f, 0.271276683f,    -0.0563938841f};
    VEC z = vec_mul(vec_abs(x), vec_set1(0.707106781f));
    VEC t = vec_div(vec_set1(1.0f), vec_fma(z, vec_set1(0.5f), vec_set1(1.0f)));
    VEC y = vec_set1(R[8]);
    for (int i = 7; i >= 0; i--) y = vec_fma(y, t, vec_set1(R[i]));
    VEC square = vec_mul(vec_abs(x), vec_mul(x, vec_if_neg(x, vec_set1(0.5f), vec_set1(-0.5f))));
    y = vec_mul(vec_mul(y, t), vec_exp(square)); /* erfc(|x| / sqrt 2) */
    y = vec_if_neg(x, y, vec_sub(vec_set1(2.0f), y));
    return vec_mul(vec_mul(vec_set1(0.5f), x), y);
}

static inline VEC vec_act(kn_activation act, VEC x)
{
    switch (act) {
    case KN_ACT_SILU: return vec_silu(x);
    case KN_ACT_GELU_TANH: return vec_gelu_tanh(x);
    case KN_ACT_GELU_ERF: return vec_gelu_erf(x);
    case KN_ACT_NONE: break;
    }
    return x;
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* Sums run over four vectors in turn, then across lanes. */
static inline float sum_of_squares(const float *x, int64_t n, float mean)
{
    VEC sum[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()}, m = vec_set1(mean);
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int v = 0; v < 4; v++) {
            VEC y = vec_sub(vec_load(x + i + v * LANES), m);
            sum[v] = vec_fma(y, y, sum[v]);
        }
    for (int v = 0; i + LANES <= n; i += LANES, v++) {
        VEC y = vec_sub(vec_load(x + i), m);
        sum[v] = vec_fma(y, y, sum[v]);
    }
    float rest = 0;
    for (; i < n; i++) rest += (x[i] - mean) * (x[i] - mean);
    return vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3]))) + rest;
}

static inline float sum_of(const float *x, int64_t n)
{
    VEC sum[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int v = 0; v < 4; v++) sum[v] = vec_add(sum[v], vec_load(x + i + v * LANES));
    for (int v = 0; i + LANES <= n; i += LANES, v++) sum[v] = vec_add(sum[v], vec_load(x + i));
    float rest = 0;
    for (; i < n; i++) rest += x[i];
    return vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3]))) + rest;
}

static inline __attribute__((always_inline)) void rmsnorm_act(const kn_row_run *r,
                                                              const float *weight,
                                                              const kn_rmsnorm_params *p,
                                                              const kn_activation act)
{
    for (int64_t i = 0; i < r->rows; i++) {
        const float *x = r->x + i * r->x_pitch;
        float *out = r->out + i * r->out_pitch;
        double squares = sum_of_squares(x, r->n, 0), n = (double)r->n;
        double norm = sqrt(squares);
        float factor = (float)(p->l2_clamp ? sqrt(n) / (norm > p->eps ? norm : p->eps)
                                           : 1 / sqrt(squares / n + p->eps));
        VEC f = vec_set1(factor);
        FOR_VECTORS(c, part, r->n)
        {
            VEC y = vec_mul(load_n(x + c, part), f);
            if (weight) y = vec_mul(y, load_n(weight + c, part));
            store_n(out + c, vec_act(act, y), part);
        }
    }
}

static void rmsnorm(const kn_row_run *r, const float *weight, const kn_rmsnorm_params *p)
{
    switch (p->act) {
    case KN_ACT_NONE: rmsnorm_act(r, weight, p, KN_ACT_NONE); break;
    case KN_ACT_SILU: rmsnorm_act(r, weight, p, KN_ACT_SILU); break;
    case KN_ACT_GELU_TANH: rmsnorm_act(r, weight, p, KN_ACT_GELU_TANH); break;
    case KN_ACT_GELU_ERF: rmsnorm_act(r, weight, p, KN_ACT_GELU_ERF); break;
    }
}

static void layernorm(const kn_row_run *r, const float *factor, float plus_one, const float *add,
                      float eps)
{
    for (int64_t i = 0; i < r->rows; i++) {
        const float *x = r->x + i * r->x_pitch;
        float *out = r->out + i * r->out_pitch;
        float mean = sum_of(x, r->n) / (float)r->n;
        double variance = (double)sum_of_squares(x, r->n, mean) / (double)r->n;
        VEC m = vec_set1(mean), f = vec_set1((float)(1 / sqrt(variance + eps)));
        VEC one = vec_set1(plus_one);
        FOR_VECTORS(c, part, r->n)
        {
            VEC y = vec_mul(vec_sub(load_n(x + c, part), m), f);
            if (factor) y = vec_mul(y, vec_add(load_n(factor + c, part), one));
            if (add) y = vec_add(y, load_n(add + c, part));
            store_n(out + c, y, part);
        }
    }
}

/* ---- per element ----------------------------------------------------------------------------- */

static void gate_add(const kn_row_run *r, const float *gate)
{
    for (int64_t i = 0; i < r->rows; i++) {
        const float *x = r->x + i * r->x_pitch, *y = r->y + i * r->y_pitch;
        float *out = r->out + i * r->out_pitch;
        FOR_VECTORS(c, part, r->n)
        {
            VEC g = gate ? load_n(gate + c, part) : vec_set1(1.0f);
            store_n(out + c, vec_fma(load_n(y + c, part), g, load_n(x + c, part)), part);
        }
    }
}

static inline __attribute__((always_inline)) void act_rows(const kn_row_run *r,
                                                           const kn_activation a)
{
    for (int64_t i = 0; i < r->rows; i++) {
        const float *x = r->x + i * r->x_pitch, *y = r->y ? r->y + i * r->y_pitch : NULL;
        float *out = r->out + i * r->out_pitch;
        FOR_VECTORS(c, part, r->n)
        {
            VEC v = vec_act(a, load_n(x + c, part));
            store_n(out + c, y ? vec_mul(v, load_n(y + c, part)) : v, part);
        }
    }
}

static void act(const kn_row_run *r, kn_activation a)
{
    switch (a) {
    case KN_ACT_NONE: act_rows(r, KN_ACT_NONE); break;
    case KN_ACT_SILU: act_rows(r, KN_ACT_SILU); break;
    case KN_ACT_GELU_TANH: act_rows(r, KN_ACT_GELU_TANH); break;
    case KN_ACT_GELU_ERF: act_rows(r, KN_ACT_GELU_ERF); break;
    }
}

static void axpby(const kn_row_run *r, float a, float b)
{
    VEC va = vec_set1(a), vb = vec_set1(b);
    for (int64_t i = 0; i < r->rows; i++) {
        const float *x = r->x + i * r->x_pitch, *y = r->y + i * r->y_pitch;
        float *out = r->out + i * r->out_pitch;
        FOR_VECTORS(c, part, r->n)
        {
            VEC by = vec_mul(vb, load_n(y + c, part));
            store_n(out + c, vec_fma(va, load_n(x + c, part), by), part);
        }
    }
}

static void rope(const kn_row_run *r, const float *cos, const float *sin)
{
    for (int64_t i = 0; i < r->rows; i++) {
        const float *x = r->x + i * r->x_pitch;
        float *out = r->out + i * r->out_pitch;
        int64_t c = 0;
        for (; c + LANES <= r->n; c += LANES)
            vec_store(out + c, vec_rotate(vec_load(x + c), cos + c / 2, sin + c / 2));
        for (; c < r->n; c += 2) {
            float a = x[c], b = x[c + 1], co = cos[c / 2], si = sin[c / 2];
            out[c] = a * co - b * si;
            out[c + 1] = a * si + b * co;
        }
    }
}

/* ---- conversions ----------------------------------------------------------------------------- */

static void load_bf16(const uint16_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)src[i] << 16;
        memcpy(dst + i, &u, sizeof u);
    }
}

static void store_bf16(const float *src, uint16_t *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, src + i, sizeof u);
        uint32_t nan = (u & 0x7fffffffu) > 0x7f800000u;
        uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
        dst[i] = (uint16_t)(nan ? u >> 16 | 0x40u : rounded);
    }
}

static void load_f16(const uint16_t *src, float *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) vec_store(dst + i, f16_load(src + i));
    for (; i < n; i++) dst[i] = kn_f16_to_f32(src[i]);
}

static void store_f16(const float *src, uint16_t *dst, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) f16_store(dst + i, vec_load(src + i));
    for (; i < n; i++) dst[i] = kn_f32_to_f16(src[i]);
}

#define CPU_KERNELS                                                                                \
    {                                                                                              \
        .lanes = LANES, .strip_rows = STRIP_ROWS, .strip = strip, .rmsnorm = rmsnorm,              \
        .layernorm = layernorm, .gate_add = gate_add, .act = act, .axpby = axpby, .rope = rope,    \
        .load_bf16 = load_bf16, .load_f16 = load_f16, .store_bf16 = store_bf16,                    \
        .store_f16 = store_f16,                                                                    \
    }
