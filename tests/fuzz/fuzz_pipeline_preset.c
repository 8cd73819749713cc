/* Any bytes as a preset of the user's own and as a --config file: every option set, or refused with the
 * file and what is wrong. */
#include "pipeline/preset.h"
#include "tests/fuzz/fuzz.h"

static void add(void *user, const char *name, const char *about, bool own)
{
    (void)own;
    *(int *)user += *name != '\0' && about != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    static kn_preset_origins origins;
    if (!ready) {
        require(mkdir(fuzz_path("kinora"), 0700) == 0 && mkdir(fuzz_path("kinora/presets"), 0700) == 0);
        require(setenv("XDG_CONFIG_HOME", fuzz_dir, 1) == 0);
        ready = true;
    }
    kn_options o = {0};
    int names = 0;
    const char *path = fuzz_file("kinora/presets/in.yaml", data, size);
    if (went_well(kn_options_init(&o))) {
        kn_status st = kn_config_apply(path, &o);
        if (st != KN_OK) require_blamed(st);
        st = kn_preset_apply("in", &o, &origins);
        if (st != KN_OK) require_blamed(st);
    }
    kn_options_free(&o);
    if (size % 16) return 0; /* the list reads every shipped preset too, which takes its time */
    kn_status st = kn_preset_list(add, &names);
    if (st == KN_OK)
        require(names > 1);
    else
        require_blamed(st);
    return 0;
}
