/* Any bytes as a file for --latents-in, --noise-in and --embeds-in: its tensor comes out as a block of
 * exactly the size asked for, or it is refused. */
#include "io/memory.h"
#include "pipeline/render_job.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        const char *name;
        int rank;
        int64_t dims[4], values;
    } asked[] = {{"latents", 4, {2, 1, 2, 2}, 8}, {"prompt", 2, {3, 2}, 6}};
    const char *path = fuzz_file("in.safetensors", data, size);
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        float *values, sum = 0;
        kn_status st = kn_job_read_tensor(path, asked[i].name, asked[i].rank, asked[i].dims, &values);
        if (st == KN_OK) {
            for (int64_t k = 0; k < asked[i].values; k++) sum += values[k];
            fuzz_sink = sum > 0;
        } else {
            require(!values);
            require_refused(st, KN_ERR_FORMAT, FUZZ_NOMEM ? NULL : path);
        }
        kn_free(values);
    }
    return 0;
}
