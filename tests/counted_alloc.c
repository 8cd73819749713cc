#include "tests/counted_alloc.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "io/memory.h"

/* As libyaml's src/api.c declares them. */
void *yaml_malloc(size_t bytes);
void *yaml_realloc(void *p, size_t bytes);
void yaml_free(void *p);
unsigned char *yaml_strdup(const unsigned char *text);

static long yaml_calls;

static void *counted_malloc(size_t bytes)
{
    void *p;
    return kn_alloc(bytes, &p) == KN_OK ? p : NULL;
}

void *yaml_malloc(size_t bytes)
{
    yaml_calls++;
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

void kn_count_library_allocations(void)
{
    json_set_alloc_funcs(counted_malloc, kn_free);
}

long kn_yaml_allocations(void)
{
    return yaml_calls;
}
