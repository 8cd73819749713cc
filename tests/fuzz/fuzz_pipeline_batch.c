/* Any bytes as a batch: the first says which kind of file the rest is (YAML, JSON, CSV, or a list of
 * prompts). Read or refused; every good job has a name and writes below the output folder. */
#include "pipeline/batch_file.h"
#include "tests/fuzz/fuzz.h"

static const char *write_batch(int kind, const uint8_t *data, size_t size)
{
    static const char list[] = "jobs:\n- prompts: in.txt\n  matrix: {seed: 1..2}\n";
    static const char table[] = "defaults: {steps: 2}\njobs:\n- csv: in.csv\n  name: '{index}-{seed}'\n";
    switch (kind) {
    case 'j': return fuzz_file("in.json", data, size);
    case 'c': return fuzz_file("in.csv", data, size);
    case 'p': (void)fuzz_file("in.txt", data, size); return fuzz_file("in.yaml", list, sizeof list - 1);
    case 't': (void)fuzz_file("in.csv", data, size); return fuzz_file("in.yaml", table, sizeof table - 1);
    default: return fuzz_file("in.yaml", data, size);
    }
}

static void check_path(const char *path)
{
    if (!path) return;
    require(!strncmp(path, "out/", 4));
    for (const char *at = path; (at = strstr(at, "..")) != NULL; at += 2)
        require(at[-1] != '/' || (at[2] && at[2] != '/'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    kn_options base;
    kn_batch_file batch = {0};
    const char *path = write_batch(data[0], data + 1, size - 1);
    if (!went_well(kn_options_init(&base))) return 0;
    kn_status st = kn_options_set(&base, "output-dir", "out", KN_FROM_COMMAND_LINE, "--output-dir");
    if (went_well(st)) {
        st = kn_batch_file_read(path, &base, &batch);
        if (st == KN_OK) {
            require(batch.count >= 1 && batch.count <= KN_BATCH_MAX);
            for (int i = 0; i < batch.count; i++) {
                const kn_batch_entry *e = &batch.entry[i];
                require(e->index == i + 1 && e->name && !strchr(e->name, '/'));
                if (e->status != KN_OK) {
                    require(e->error && *e->error);
                    continue;
                }
                const char *const paths[] = {e->o.output, e->o.preview, e->o.frames_dir, e->o.contact_sheet,
                                             e->o.latents_out, e->o.embeds_out};
                require(kn_batch_path(&e->o) != NULL);
                for (size_t k = 0; k < sizeof paths / sizeof *paths; k++) check_path(paths[k]);
            }
        } else {
            require(batch.count == 0);
            require_blamed(st);
        }
        kn_batch_file_free(&batch);
    }
    kn_options_free(&base);
    return 0;
}
