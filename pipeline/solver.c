#include "pipeline/solver.h"

#include <math.h>
#include <string.h>

#include "io/memory.h"

/* model[] holds x0 predictions, newest first; model[2] and last are unipc's. */
struct kn_solver {
    kn_dev *dev;
    kn_solver_kind kind;
    kn_schedule schedule;
    int index, known, order;
    kn_tensor model[3];
    kn_tensor last; /* sample before the last predictor, after its corrector */
    kn_tensor owned[KN_SOLVER_MAX_TENSORS];
    int owned_count;
};

static const char *const solver_names[] = {
    [KN_SOLVER_UNIPC] = "unipc",
    [KN_SOLVER_EULER] = "euler",
    [KN_SOLVER_DPMPP] = "dpm++",
};

kn_grid kn_solver_grid(kn_solver_kind kind)
{
    return kind == KN_SOLVER_EULER ? KN_GRID_LINEAR : KN_GRID_WAN;
}

static int history_tensors(kn_solver_kind kind)
{
    return kind == KN_SOLVER_UNIPC ? 4 : kind == KN_SOLVER_DPMPP ? 2 : 0;
}

kn_status kn_solver_open(kn_dev *d, kn_solver_kind kind, const kn_schedule *schedule, int rank,
                         const int64_t *dims, kn_solver **out)
{
    *out = NULL;
    void *p;
    KN_TRY(kn_alloc_zero(sizeof(kn_solver), &p));
    kn_solver *s = p;
    kn_status st = KN_OK;
    s->dev = d;
    s->kind = kind;
    s->schedule = *schedule;
    s->index = schedule->begin;
    for (int i = 0; i < history_tensors(kind); i++) {
        s->owned[i] = kn_tensor_make(NULL, KN_F32, rank, dims);
        KN_TRY_GOTO(kn_dev_alloc(d, kn_tensor_bytes(&s->owned[i]), &s->owned[i].data));
        s->owned_count++;
    }
    for (int i = 0; i < 3; i++) s->model[i] = s->owned[i];
    s->last = s->owned[3];
    *out = s;
    s = NULL;
done:
    kn_solver_close(&s);
    return KN_CTX(st, "opening the %s solver", solver_names[kind]);
}

void kn_solver_close(kn_solver **s)
{
    if (!*s) return;
    for (int i = 0; i < (*s)->owned_count; i++)
        kn_dev_free((*s)->dev, (*s)->owned[i].data, kn_tensor_bytes(&(*s)->owned[i]));
    kn_free(*s);
    *s = NULL;
}

int kn_solver_index(const kn_solver *s)
{
    return s->index;
}

/* ---- one step ---------------------------------------------------------------------------------*/
/* Log signal-to-noise ratio of the flow path, alpha = 1 - sigma. Infinite at sigma 0 and 1; the
 * formulas below have finite limits there, which IEEE arithmetic reaches by itself. */
static double lambda_of(const kn_solver *s, int i)
{
    double sigma = s->schedule.sigma[i];
    return log(1 - sigma) - log(sigma);
}

static kn_status axpby(kn_solver *s, double a, const kn_tensor *x, double b, const kn_tensor *y,
                       const kn_tensor *out)
{
    return kn_axpby(s->dev, (float)a, x, (float)b, y, out);
}

/* x0 = x - sigma v, into the oldest model slot, which becomes the newest. */
static kn_status push_model(kn_solver *s, int slots, const kn_tensor *velocity, const kn_tensor *x)
{
    kn_tensor newest = s->model[slots - 1];
    KN_TRY(axpby(s, 1, x, -s->schedule.sigma[s->index], velocity, &newest));
    for (int i = slots - 1; i > 0; i--) s->model[i] = s->model[i - 1];
    s->model[0] = newest;
    return KN_OK;
}

/* One B2(h) update from `from` (at sigma index i0) to sigma index i1, from the x0 prediction at i0,
 * the one before it (at i0 - 1, if order is 2) and, as corrector, the new one at i1. */
typedef struct bh2_update {
    int i0, i1;
    const kn_tensor *from, *m0, *before, *at_target; /* before, at_target: NULL = not used */
    const kn_tensor *out;                            /* may be from */
} bh2_update;

static kn_status run_bh2(kn_solver *s, const bh2_update *u)
{
    const double *sigma = s->schedule.sigma;
    double lambda0 = lambda_of(s, u->i0);
    double h = lambda_of(s, u->i1) - lambda0;
    double expm1_h = expm1(-h); /* both h phi_1(h) and B(h), with the sign of the data prediction */
    double scale = (1 - sigma[u->i1]) * expm1_h;
    double rk = u->before ? (lambda_of(s, u->i0 - 1) - lambda0) / h : 0;

    /* Weights of (before - m0) / rk and of (at_target - m0). */
    double rho_before = 0.5, rho_target = 0.5;
    if (u->before && u->at_target) {
        /* The 2x2 system rho_b + rho_t = b1, rk rho_b + rho_t = b2 of the corrector. */
        double phi2 = expm1_h / -h - 1, phi3 = phi2 / -h - 0.5;
        double b1 = phi2 / expm1_h, b2 = 2 * phi3 / expm1_h;
        rho_before = (b1 - b2) / (1 - rk);
        rho_target = b1 - rho_before;
    }
    double before = u->before ? rho_before / rk : 0;
    double target = u->at_target ? rho_target : 0;
    KN_TRY(axpby(s, sigma[u->i1] / sigma[u->i0], u->from, -scale * (1 - before - target), u->m0,
                 u->out));
    if (u->before) KN_TRY(axpby(s, 1, u->out, -scale * before, u->before, u->out));
    if (u->at_target) KN_TRY(axpby(s, 1, u->out, -scale * target, u->at_target, u->out));
    return KN_OK;
}

static kn_status step_unipc(kn_solver *s, const kn_tensor *velocity, const kn_tensor *sample)
{
    int i = s->index;
    KN_TRY(push_model(s, 3, velocity, sample));
    if (s->known > 0) {
        KN_TRY(run_bh2(s, &(bh2_update){.i0 = i - 1,
                                        .i1 = i,
                                        .from = &s->last,
                                        .m0 = &s->model[1],
                                        .before = s->order == 2 ? &s->model[2] : NULL,
                                        .at_target = &s->model[0],
                                        .out = &s->last}));
    } else {
        KN_TRY(kn_copy(s->dev, sample, &s->last));
    }
    /* Order 2 once there is a step to look back on, and 1 for the last step. */
    s->order = s->known > 0 && s->schedule.steps - i >= 2 ? 2 : 1;
    return run_bh2(s, &(bh2_update){.i0 = i,
                                    .i1 = i + 1,
                                    .from = &s->last,
                                    .m0 = &s->model[0],
                                    .before = s->order == 2 ? &s->model[1] : NULL,
                                    .out = sample});
}

static kn_status step_dpmpp(kn_solver *s, const kn_tensor *velocity, const kn_tensor *sample)
{
    int i = s->index;
    const double *sigma = s->schedule.sigma;
    KN_TRY(push_model(s, 2, velocity, sample));
    double h = lambda_of(s, i + 1) - lambda_of(s, i);
    double scale = (1 - sigma[i + 1]) * expm1(-h);
    double ratio = sigma[i + 1] / sigma[i];
    if (s->known < 1 || i == s->schedule.steps - 1)
        return axpby(s, ratio, sample, -scale, &s->model[0], sample);
    /* D = m0 + (m0 - m1) / (2 r0), r0 = h_before / h */
    double half_inverse_r = 0.5 * h / (lambda_of(s, i) - lambda_of(s, i - 1));
    KN_TRY(axpby(s, ratio, sample, -scale * (1 + half_inverse_r), &s->model[0], sample));
    return axpby(s, 1, sample, scale * half_inverse_r, &s->model[1], sample);
}

static kn_status step_euler(kn_solver *s, const kn_tensor *velocity, const kn_tensor *sample)
{
    const double *sigma = s->schedule.sigma + s->index;
    return axpby(s, 1, sample, sigma[1] - sigma[0], velocity, sample);
}

kn_status kn_solver_step(kn_solver *s, const kn_tensor *velocity, const kn_tensor *sample)
{
    if (s->index >= s->schedule.steps)
        return kn_fail(KN_ERR_ARG, "the %s solver has done all of its %d steps",
                       solver_names[s->kind], s->schedule.steps);
    switch (s->kind) {
    case KN_SOLVER_UNIPC: KN_TRY(step_unipc(s, velocity, sample)); break;
    case KN_SOLVER_EULER: KN_TRY(step_euler(s, velocity, sample)); break;
    case KN_SOLVER_DPMPP: KN_TRY(step_dpmpp(s, velocity, sample)); break;
    }
    s->index++;
    if (s->known < 2) s->known++;
    return KN_OK;
}

/* ---- state ------------------------------------------------------------------------------------*/
/* Views of what the next step reads: the newest two predictions, and unipc's last sample. */
static void list_history(const kn_solver *s, kn_solver_state *state)
{
    state->tensors = 0;
    if (s->kind == KN_SOLVER_EULER) return;
    int models = s->kind == KN_SOLVER_UNIPC ? s->known : s->known > 0;
    for (int i = 0; i < models; i++) state->tensor[state->tensors++] = s->model[i];
    if (s->kind == KN_SOLVER_UNIPC && s->known > 0) state->tensor[state->tensors++] = s->last;
}

kn_solver_state kn_solver_get_state(const kn_solver *s)
{
    kn_solver_state state = {.index = s->index, .known = s->known, .order = s->order};
    list_history(s, &state);
    return state;
}

kn_status kn_solver_restore(kn_solver *s, kn_solver_state *state)
{
    int done = state->index - s->schedule.begin;
    int known = done < 2 ? done : 2;
    /* The order of the last predictor follows from its place in the run (step_unipc). */
    int order = s->kind != KN_SOLVER_UNIPC || done < 1                     ? 0
                : done >= 2 && s->schedule.steps - (state->index - 1) >= 2 ? 2
                                                                           : 1;
    if (done < 0 || state->index > s->schedule.steps || state->known != known ||
        state->order != order)
        return kn_fail(KN_ERR_ARG,
                       "solver state (step %d, %d known, order %d) is none of a %s run of"
                       " steps %d to %d",
                       state->index, state->known, state->order, solver_names[s->kind],
                       s->schedule.begin, s->schedule.steps);
    s->index = state->index;
    s->known = known;
    s->order = order;
    list_history(s, state);
    return KN_OK;
}
