/* Any bytes as the results.jsonl of a batch folder: read, with what is not a line of it passed over; a
 * line appended to it is found again. */
#include "pipeline/batch_ledger.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kn_ledger l;
    (void)fuzz_file("results.jsonl", data, size);
    kn_status st = kn_ledger_open(fuzz_dir, &l);
    if (!went_well(st)) return 0;
    size_t lines = json_array_size(l.lines);
    for (size_t i = 0; i < lines; i++) require(json_is_object(json_array_get(l.lines, i)));
    (void)kn_ledger_find(&l, "out/a.mp4", lines / 2);
    (void)kn_ledger_finished(&l, "out/a.mp4", "0123456789abcdef");
    if (!FUZZ_NOMEM) {
        json_t *line = json_pack("{s:s, s:s}", "output", "out/b.mp4", "status", "failed");
        require(kn_ledger_append(&l, line) == KN_OK && kn_ledger_reload(&l) == KN_OK);
        require(json_array_size(l.lines) == lines + 1);
        require(json_equal(kn_ledger_find(&l, "out/b.mp4", lines), line));
        json_decref(line);
    }
    kn_ledger_close(&l);
    return 0;
}
