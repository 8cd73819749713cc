/* tests/fuzz/nomem.c - runs a fuzz target with one failing allocation.
 *
 * Built as a fuzzer, a hash of the input says which allocation fails, so that a stored input fails the
 * same one again. Replayed by ctest, every allocation of every stored input fails in turn, up to
 * REPLAY_MAX. Allocations of jansson and libyaml count with Kinora's own (libpng's always do).
 */
#include <stdint.h>

#include "io/memory.h"
#include "tests/counted_alloc.h"

int kn_fuzz_one_input(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HASH_MAX = 160, REPLAY_MAX = 60 };

/* One run with the k-th allocation failing; false when there were fewer. */
static int run(const uint8_t *data, size_t size, long k)
{
    long before = kn_memory_count();
    kn_memory_fail_at(k);
    kn_fuzz_one_input(data, size);
    kn_memory_fail_at(0);
    return kn_memory_count() - before >= k;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int ready;
    if (!ready) kn_count_library_allocations();
    ready = 1;
#ifdef KN_FUZZ_REPLAY
    for (long k = 1; k <= REPLAY_MAX && run(data, size, k); k++) {}
#else
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < size; i++) h = (h ^ data[i]) * 16777619u;
    run(data, size, 1 + (long)(h % HASH_MAX));
#endif
    return 0;
}
