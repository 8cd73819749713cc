/* pipeline/schedule.h - noise levels and timesteps of a denoising run.
 *
 * Purpose   The sigma grid (noise level per step, 1 = pure noise, 0 = clean), the timestep given to
 *           the network at each step, and where a run at part strength starts.
 * Shapes    n steps have n timesteps and n + 1 sigmas; sigma[n] = 0.
 * Units     sigma in [0, 1]; timestep = 1000 sigma. Both are float32 values (on the UniPC grids the
 *           timesteps are whole), as the reference schedulers hand them out; they are computed in
 *           the same float64 and float32 operations, so they are equal bit for bit.
 * Grids     wan         linspace(0.999, 0, n+1) without its end, then shift. Wan's own UniPC and
 *                       DPM-Solver++ grid and that of diffusers up to 0.36. Whole timesteps.
 *           diffusers   linspace(1, 0.001, n+1) without its end, then shift, first sigma below 1.
 *                       UniPCMultistepScheduler of diffusers 0.37 and later. Whole timesteps.
 *           flow-euler  FlowMatchEulerDiscreteScheduler: linspace between the shifted extremes,
 *                       then shifted again. Fractional timesteps.
 *           linear      linspace(1, 0, n+1) without its end, then shift: what that scheduler makes
 *                       of sigmas=linspace(1, 0, n+1)[:-1]. Fractional timesteps.
 * Shift     sigma <- shift sigma / (1 + (shift - 1) sigma).
 * Errors    KN_ERR_ARG names the value and its range.
 * Threads   Pure functions.
 * Source    Wan2.1 wan/utils/fm_solvers_unipc.py set_timesteps; diffusers
 *           schedulers/scheduling_{unipc_multistep,flow_match_euler_discrete}.py set_timesteps;
 *           strength: pipelines/wan/pipeline_wan_video2video.py get_timesteps.
 */
#ifndef KN_PIPELINE_SCHEDULE_H
#define KN_PIPELINE_SCHEDULE_H

#include "io/status.h"

enum { KN_SCHEDULE_MAX_STEPS = 1000 }; /* the number of training timesteps */

/* As the option --grid lists them after auto. */
typedef enum kn_grid { KN_GRID_WAN, KN_GRID_DIFFUSERS, KN_GRID_FLOW_EULER, KN_GRID_LINEAR } kn_grid;

typedef struct kn_schedule {
    int steps; /* n of the full grid */
    int begin; /* first step that is run; 0 at strength 1 */
    double sigma[KN_SCHEDULE_MAX_STEPS + 1];
    double timestep[KN_SCHEDULE_MAX_STEPS];
} kn_schedule;

/* steps in 1..1000, shift > 0, strength in (0, 1]: the share of the steps that is run. A strength
 * that leaves no step is an error. The noise to start from has level sigma[begin]. */
KN_CHECKED kn_status kn_schedule_build(kn_grid grid, int steps, double shift, double strength,
                                       kn_schedule *out);

#endif
