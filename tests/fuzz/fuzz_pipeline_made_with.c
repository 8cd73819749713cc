/* Any bytes as a file that `info` and --from read settings from; the first says which kind (sidecar or
 * PNG frame). Settings come out, or a refusal. */
#include "pipeline/made_with.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *null;
    json_t *record;
    kn_options o = {0};
    if (!null) null = fopen("/dev/null", "w");
    if (size < 1 || !null) return 0;
    const char *path = fuzz_file(data[0] & 1 ? "in.json" : "in.png", data + 1, size - 1);
    kn_status st = kn_made_with_read(path, &record);
    require((st == KN_OK) == (record != NULL));
    if (st != KN_OK) require_blamed(st);
    json_decref(record);
    st = kn_made_with_print(path, null);
    if (st != KN_OK) require_blamed(st);
    if (went_well(kn_options_init(&o))) {
        st = kn_made_with_apply(path, &o);
        if (st != KN_OK) require_blamed(st);
    }
    kn_options_free(&o);
    return 0;
}
