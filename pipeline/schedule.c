#include "pipeline/schedule.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define TRAIN_STEPS 1000.0

static double shifted(double shift, double sigma)
{
    return shift * sigma / (1 + (shift - 1) * sigma);
}

/* numpy.linspace(start, stop, count)[i]: index times step plus start, the end exact. */
static double linspace(double start, double stop, int count, int i)
{
    if (i == count - 1 && count > 1) return stop;
    double step = count > 1 ? (stop - start) / (count - 1) : 0;
    return i * step + start;
}

/* alphas rise from 0.001 to 1 in the reference and the grid is their complement, flipped. */
static void build_wan(int n, double shift, double *sigma)
{
    for (int i = 0; i < n; i++) {
        double alpha = linspace(1.0, 1.0 / TRAIN_STEPS, n + 1, n - i);
        sigma[i] = shifted(shift, 1.0 - alpha);
    }
}

static void build_diffusers(int n, double shift, double *sigma)
{
    const double eps = 1e-6; /* keeps log(1 - sigma) finite at the first step */
    for (int i = 0; i < n; i++)
        sigma[i] = shifted(shift, linspace(1.0, 1.0 / TRAIN_STEPS, n + 1, i));
    if (fabs(sigma[0] - 1) < eps) sigma[0] -= eps;
}

/* The training grid 1/1000 .. 1 is shifted once, in float32, and its ends span the new grid, which
 * is shifted again. */
static void build_flow_euler(int n, double shift, double *sigma)
{
    float s = (float)shift, s1 = (float)(shift - 1);
    float top = 1.0f, bottom = 1.0f / (float)TRAIN_STEPS;
    top = s * top / (1.0f + s1 * top);
    bottom = s * bottom / (1.0f + s1 * bottom);
    for (int i = 0; i < n; i++) {
        double t = linspace(top * TRAIN_STEPS, bottom * TRAIN_STEPS, n, i);
        sigma[i] = shifted(shift, t / TRAIN_STEPS);
    }
}

/* Given sigmas are float32 in the reference before they are shifted. */
static void build_linear(int n, double shift, double *sigma)
{
    float s = (float)shift, s1 = (float)(shift - 1);
    for (int i = 0; i < n; i++) {
        float u = (float)linspace(1.0, 0.0, n + 1, i);
        sigma[i] = s * u / (1.0f + s1 * u);
    }
}

kn_status kn_schedule_build(kn_grid grid, int steps, double shift, double strength,
                            kn_schedule *out)
{
    memset(out, 0, sizeof *out);
    if (steps < 1 || steps > KN_SCHEDULE_MAX_STEPS)
        return kn_fail(KN_ERR_ARG, "steps is %d: expected 1 to %d", steps, KN_SCHEDULE_MAX_STEPS);
    if (!(shift > 0) || !isfinite(shift))
        return kn_fail(KN_ERR_ARG, "shift is %g: expected a number above 0", shift);
    if (!(strength > 0 && strength <= 1))
        return kn_fail(KN_ERR_ARG, "strength is %g: expected a number above 0, at most 1",
                       strength);
    int run = (int)(steps * strength); /* truncated, in double, as Python's int() does */
    if (run < 1)
        return kn_fail(KN_ERR_ARG,
                       "strength %g of %d steps leaves no step to run: raise one of them", strength,
                       steps);

    switch (grid) {
    case KN_GRID_WAN: build_wan(steps, shift, out->sigma); break;
    case KN_GRID_DIFFUSERS: build_diffusers(steps, shift, out->sigma); break;
    case KN_GRID_FLOW_EULER: build_flow_euler(steps, shift, out->sigma); break;
    case KN_GRID_LINEAR: build_linear(steps, shift, out->sigma); break;
    }
    bool whole = grid == KN_GRID_WAN || grid == KN_GRID_DIFFUSERS;
    for (int i = 0; i < steps; i++) {
        float rounded = (float)out->sigma[i];
        float product = rounded * (float)TRAIN_STEPS;
        /* Whole timesteps are cut from the float64 sigma; the others are float32 products. */
        out->timestep[i] = whole ? trunc(out->sigma[i] * TRAIN_STEPS) : product;
        out->sigma[i] = rounded;
    }
    out->steps = steps;
    out->begin = steps - run;
    return KN_OK;
}
