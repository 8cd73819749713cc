/* pipeline/solver.h - the ODE solvers of the denoise loop.
 *
 * Purpose   Turns the network's velocity at one noise level into the sample at the next one.
 *             euler   x += (sigma_next - sigma) v
 *             unipc   UniPC of order 2, B2(h), predictor and corrector on every step but the first
 *             dpm++   DPM-Solver++ 2M, midpoint; the last step (to sigma 0) is of order 1
 *           All are for flow models: x = (1 - sigma) x0 + sigma noise, v = noise - x0.
 * Shapes    sample, velocity: f32, one shape for the whole run, contiguous, on the solver's device.
 * Precision Coefficients in double; sample and history f32, whatever the network computes in.
 * Memory    unipc 4 tensors of the sample's size, dpm++ 2, euler 0.
 * Resume    The state is the step index, the count of usable history and the history tensors; saved
 *           and restored, the run goes on bit for bit.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM, KN_ERR_DEVICE.
 * Threads   One thread.
 * Source    UniPC: arXiv 2302.04867; diffusers scheduling_unipc_multistep.py (= Wan2.1
 *           wan/utils/fm_solvers_unipc.py). DPM-Solver++: arXiv 2211.01095; diffusers
 *           scheduling_dpmsolver_multistep.py. Euler: diffusers
 *           scheduling_flow_match_euler_discrete.py.
 */
#ifndef KN_PIPELINE_SOLVER_H
#define KN_PIPELINE_SOLVER_H

#include "compute/ops.h"
#include "pipeline/schedule.h"

/* As the option --solver lists them. */
typedef enum kn_solver_kind { KN_SOLVER_UNIPC, KN_SOLVER_EULER, KN_SOLVER_DPMPP } kn_solver_kind;

typedef struct kn_solver kn_solver;

/* The grid that the reference uses with this solver: wan, or linear for euler. */
kn_grid kn_solver_grid(kn_solver_kind kind);

/* A solver at the schedule's first step. The schedule is copied. */
KN_CHECKED kn_status kn_solver_open(kn_dev *d, kn_solver_kind kind, const kn_schedule *schedule,
                                    int rank, const int64_t *dims, kn_solver **out);
void kn_solver_close(kn_solver **s);

/* Step to run next, begin .. steps; equal to schedule.steps when the run is done. */
int kn_solver_index(const kn_solver *s);
/* sample: x at sigma[index], replaced by x at sigma[index + 1]. KN_ERR_ARG after the last step. */
KN_CHECKED kn_status kn_solver_step(kn_solver *s, const kn_tensor *velocity,
                                    const kn_tensor *sample);

/* ---- saving and restoring ---------------------------------------------------------------------*/
enum { KN_SOLVER_MAX_TENSORS = 4 };
typedef struct kn_solver_state {
    int index;   /* next step */
    int known;   /* model outputs that the next step may look back on: 0, 1 or 2 */
    int order;   /* unipc: order of the last predictor, which its corrector repeats */
    int tensors; /* history in use: views of the solver's memory, valid until the next step */
    kn_tensor tensor[KN_SOLVER_MAX_TENSORS];
} kn_solver_state;
/* The state to save: download state.tensor[0 .. tensors-1]. */
kn_solver_state kn_solver_get_state(const kn_solver *s);
/* Continue a solver of the same kind, schedule and shape from numbers of a saved state: sets them
 * (KN_ERR_ARG if they fit no such run) and gives, in state->tensor, the views to upload the saved
 * history into. */
KN_CHECKED kn_status kn_solver_restore(kn_solver *s, kn_solver_state *state);

#endif
