/* pipeline/noise.h - the initial noise of a video, as PyTorch would draw it.
 *
 * Purpose   A seeded stream of standard normal float32 values whose bytes equal those of
 *               g = torch.Generator("cpu").manual_seed(seed)
 *               torch.randn(shape, generator=g, dtype=torch.float32)
 *           so that a clip rendered here can be laid beside one of a PyTorch pipeline. Consecutive
 *           calls of kn_noise_normal() continue the stream as consecutive torch.randn calls do.
 * Shapes    count is the number of elements of the contiguous tensor; its shape does not matter.
 *           count decides the method: 16 and more use the vector form, fewer the scalar form, so
 *           two calls of 8 are not one call of 16 (in torch neither).
 * Units     mean 0, standard deviation 1.
 * Cost      One Mersenne Twister word per value; about 50 ns per value on one core
 *           (1920x1088, 81 frames: 11 M values, half a second).
 * Errors    None: the generator lives in the caller's storage.
 * Threads   A generator belongs to one thread at a time. Results depend on no CPU feature.
 * Source    ATen/core/MT19937RNGEngine.h, ATen/core/DistributionsHelper.h normal_distribution and
 *           ATen/native/cpu/DistributionTemplates.h normal_fill of torch 2.15.0, in the form that
 *           x86 CPUs with AVX2 or AVX-512 take (both give the same bytes there). The logarithm,
 *           sine and cosine are the Cephes polynomials of ATen/native/cpu/avx_mathfun.h (Moshier;
 *           Pommier; Garberoglio), with the fused multiply-adds that the compiler of the
 *           published wheels puts in. A torch that runs without AVX2 differs in the last bits.
 *           The scalar form calls the C library's double precision log1p, sin and cos as torch
 *           does.
 */
#ifndef KN_PIPELINE_NOISE_H
#define KN_PIPELINE_NOISE_H

#include <stdbool.h>
#include <stdint.h>

enum { KN_NOISE_STATE = 624 };

/* Plain data: copying it forks the stream. */
typedef struct kn_noise {
    uint32_t state[KN_NOISE_STATE];
    int next;        /* first word of state not handed out yet */
    bool have_spare; /* scalar form: the second value of a pair waits in spare */
    double spare;
} kn_noise;

/* Start the stream of a seed. As in torch only the low 32 bits count; a negative seed is its two's
 * complement. */
void kn_noise_init(kn_noise *gen, uint64_t seed);
/* Fill out[count] (count >= 0). */
void kn_noise_normal(kn_noise *gen, float *out, int64_t count);

#endif
