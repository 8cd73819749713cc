/* Any bytes as the checkpoint that --resume reads: taken or refused, and the solver it was put into
 * either runs its next step or says that there is none. */
#include "pipeline/checkpoint.h"
#include "tests/fuzz/fuzz.h"

static void go_on(kn_solver *solver, kn_tensor *latents)
{
    float v[8] = {0};
    kn_tensor velocity = kn_tensor_make(v, KN_F32, 4, latents->dim);
    require(kn_solver_index(solver) >= 0);
    kn_status st = kn_solver_step(solver, &velocity, latents);
    require(st == KN_OK || st == KN_ERR_ARG || st == KN_ERR_NUMERIC || (FUZZ_NOMEM && st == KN_ERR_NOMEM));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t dims[4] = {2, 1, 2, 2};
    float values[8] = {0}, refresh[8] = {0};
    char options[] = "{\"seed\": 1, \"steps\": 4}";
    const kn_job_identity id = {.fingerprint = "0123456789abcdef", .options = options};
    const char *path = fuzz_file("in.safetensors", data, size);
    kn_dev *d = NULL;
    kn_solver *solver = NULL;
    kn_schedule schedule;
    kn_checkpoint_place place;
    kn_status st = kn_checkpoint_peek(path, &place);
    if (st == KN_OK)
        require(place.exists && strlen(place.job) < sizeof place.job);
    else
        require_refused(st, KN_ERR_FORMAT, NULL);
    require(kn_schedule_build(KN_GRID_WAN, 4, 3, 1, &schedule) == KN_OK);
    if (!went_well(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF, .threads = 1}, &d))) return 0;
    kn_solver_kind kind = size % 3 == 0 ? KN_SOLVER_DPMPP : size % 3 == 1 ? KN_SOLVER_EULER : KN_SOLVER_UNIPC;
    if (went_well(kn_solver_open(d, kind, &schedule, 4, dims, &solver))) {
        kn_checkpoint c = {.latents = kn_tensor_make(values, KN_F32, 4, dims), .solver = solver};
        if (size & 1) c.refresh = kn_tensor_make(refresh, KN_F32, 4, dims);
        st = kn_checkpoint_load(path, d, &id, &c);
        if (st == KN_OK)
            go_on(solver, &c.latents);
        else
            require_blamed(st);
    }
    kn_solver_close(&solver);
    kn_dev_close(&d);
    return 0;
}
