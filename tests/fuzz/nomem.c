/* tests/fuzz/nomem.c - runs a fuzz target with one failing allocation.
 *
 * Built as a fuzzer, a hash of the input says which allocation fails, so that a stored input fails the
 * same one again. Replayed by ctest, every allocation of every stored input fails in turn, up to
 * REPLAY_MAX. Allocations of jansson and libyaml count with Kinora's own (libpng's always do).
 */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/memory.h"

int kn_fuzz_one_input(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HASH_MAX = 160, REPLAY_MAX = 60 };

static void *counted_malloc(size_t bytes)
{
    void *p;
    return kn_alloc(bytes, &p) == KN_OK ? p : NULL;
}

/* libyaml's own allocation functions (src/api.c), which its calls find here first. */
void *yaml_malloc(size_t bytes);
void *yaml_realloc(void *p, size_t bytes);
void yaml_free(void *p);
unsigned char *yaml_strdup(const unsigned char *text);

void *yaml_malloc(size_t bytes)
{
    return counted_malloc(bytes ? bytes : 1);
}

void *yaml_realloc(void *p, size_t bytes)
{
    /* The block must be known to be kept on failure: ask the counter first, then really resize. */
    void *probe = yaml_malloc(1);
    if (!probe) return NULL;
    kn_free(probe);
    return realloc(p, bytes ? bytes : 1);
}

void yaml_free(void *p)
{
    kn_free(p);
}

unsigned char *yaml_strdup(const unsigned char *text)
{
    if (!text) return NULL;
    size_t bytes = strlen((const char *)text) + 1;
    unsigned char *copy = yaml_malloc(bytes);
    if (copy) memcpy(copy, text, bytes);
    return copy;
}

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
    if (!ready) json_set_alloc_funcs(counted_malloc, kn_free);
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
