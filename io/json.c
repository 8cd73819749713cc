#include "io/json.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <string.h>

#include "io/atomic_file.h"
#include "io/memory.h"

/* Depth and number of values, counted before anything is built. It only has to be right for texts
 * that jansson accepts afterwards: outside strings, each value but the first is preceded by one of
 * , : [ or {. */
static kn_status check_size(const char *name, const char *data, size_t size, size_t max_values)
{
    size_t values = 1;
    int depth = 0, in_string = 0;
    for (size_t i = 0; i < size; i++) {
        char c = data[i];
        if (in_string) {
            if (c == '\\') i++;
            if (c == '"') in_string = 0;
            continue;
        }
        if (c == '"') in_string = 1;
        if (c == '[' || c == '{') {
            if (++depth > KN_JSON_MAX_DEPTH)
                return kn_fail(KN_ERR_FORMAT, "%s: byte %zu: nested deeper than %d levels", name, i,
                               KN_JSON_MAX_DEPTH);
        }
        if (c == ']' || c == '}') depth--;
        if ((c == ',' || c == ':' || c == '[' || c == '{') && ++values > max_values)
            return kn_fail(KN_ERR_FORMAT, "%s: more than %zu values", name, max_values);
    }
    return KN_OK;
}

/* Where an allocation of its own fails, jansson 2.14 goes on: it loses a character of a string, reads in
 * front of its buffer, or ends the process in an assertion. So its allocation functions (the host
 * program's, where it has set some) are called through ones that know every block of a parse; the first
 * failure jumps out of the parser, and the blocks are freed here. Nothing of jansson's outlives a parse
 * but what it allocated, so that leaving it in the midst is safe. */
typedef struct parse {
    jmp_buf out;
    void **block; /* those that are in use; NULL: freed again */
    size_t count, capacity;
} parse;

static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static json_malloc_t watched_malloc;
static json_free_t watched_free;
static _Thread_local parse *current; /* NULL outside kn_json_parse */

static int remember(parse *p, void *block)
{
    if (p->count == p->capacity) {
        void *grown;
        size_t capacity = p->capacity ? 2 * p->capacity : 64;
        if (kn_alloc_array(capacity, sizeof(void *), &grown) != KN_OK) return 0;
        if (p->count) memcpy(grown, p->block, p->count * sizeof(void *));
        kn_free(p->block);
        p->block = grown;
        p->capacity = capacity;
    }
    p->block[p->count++] = block;
    return 1;
}

static void *watching_malloc(size_t bytes)
{
    void *block = watched_malloc(bytes);
    if (!current) return block;
    if (block && remember(current, block)) return block;
    watched_free(block);
    longjmp(current->out, 1);
}

static void watching_free(void *block)
{
    parse *p = current;
    if (p && block) {
        size_t i = p->count;
        while (i && p->block[i - 1] != block) i--; /* nearly always among the newest */
        if (i) p->block[i - 1] = NULL;
        while (p->count && !p->block[p->count - 1]) p->count--;
    }
    watched_free(block);
}

static void watch_allocations(void)
{
    json_get_alloc_funcs(&watched_malloc, &watched_free);
    json_set_alloc_funcs(watching_malloc, watching_free);
}

/* False when memory ran out. p stands in the caller, so that nothing of this function changes after
 * setjmp. */
static int load(parse *p, const char *data, size_t size, json_t **out, json_error_t *error)
{
    if (setjmp(p->out)) return 0;
    current = p;
    *out = json_loadb(data, size, JSON_REJECT_DUPLICATES, error);
    return 1;
}

kn_status kn_json_parse(const char *name, const char *data, size_t size, size_t max_values,
                        json_t **out)
{
    *out = NULL;
    KN_TRY(check_size(name, data, size, max_values));
    json_error_t error;
    pthread_once(&watch_once, watch_allocations);
    parse p = {.block = NULL};
    int whole = load(&p, data, size, out, &error);
    current = NULL;
    for (size_t i = 0; !whole && i < p.count; i++) watched_free(p.block[i]);
    kn_free(p.block);
    if (!whole)
        return kn_fail(KN_ERR_NOMEM, "%s: out of memory while reading %zu bytes of JSON", name,
                       size);
    if (*out) return KN_OK;
    return kn_fail(KN_ERR_FORMAT, "%s: line %d, column %d: %s", name, error.line, error.column,
                   error.text);
}

const char *kn_json_kind(const json_t *value)
{
    if (!value) return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a real number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "an unknown value";
}

kn_status kn_json_add_string(kn_text *t, const char *text)
{
    KN_TRY(kn_text_add(t, "\""));
    for (const char *run = text;; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        KN_TRY(kn_text_add_bytes(t, run, (size_t)(text - run)));
        run = text + 1;
        if (!c) break;
        if (c == '\n')
            KN_TRY(kn_text_add(t, "\\n"));
        else if (c == '\t')
            KN_TRY(kn_text_add(t, "\\t"));
        else if (c >= 0x20)
            KN_TRY(kn_text_addf(t, "\\%c", c));
        else
            KN_TRY(kn_text_addf(t, "\\u%04x", c));
    }
    return kn_text_add(t, "\"");
}

static kn_status add_value(kn_text *t, const json_t *value, int depth);

static kn_status add_array(kn_text *t, const json_t *array, int depth)
{
    size_t n = json_array_size(array);
    int flat = 1; /* a list of scalars stays on one line */
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(array, i);
        if (json_is_array(item) || json_is_object(item)) flat = 0;
    }
    KN_TRY(kn_text_add(t, "["));
    for (size_t i = 0; i < n; i++) {
        if (i) KN_TRY(kn_text_add(t, flat ? ", " : ","));
        if (!flat) KN_TRY(kn_text_addf(t, "\n%*s", 2 * (depth + 1), ""));
        KN_TRY(add_value(t, json_array_get(array, i), depth + 1));
    }
    if (n && !flat) KN_TRY(kn_text_addf(t, "\n%*s", 2 * depth, ""));
    return kn_text_add(t, "]");
}

static kn_status add_object(kn_text *t, const json_t *object, int depth)
{
    const char *comma = "";
    KN_TRY(kn_text_add(t, "{"));
    /* jansson's iterators take a non-const object but do not change it. */
    json_t *o = (json_t *)object;
    for (void *it = json_object_iter(o); it; it = json_object_iter_next(o, it)) {
        KN_TRY(kn_text_addf(t, "%s\n%*s", comma, 2 * (depth + 1), ""));
        KN_TRY(kn_json_add_string(t, json_object_iter_key(it)));
        KN_TRY(kn_text_add(t, ": "));
        KN_TRY(add_value(t, json_object_iter_value(it), depth + 1));
        comma = ",";
    }
    if (*comma) KN_TRY(kn_text_addf(t, "\n%*s", 2 * depth, ""));
    return kn_text_add(t, "}");
}

static kn_status add_value(kn_text *t, const json_t *value, int depth)
{
    char number[KN_DOUBLE_CHARS];
    if (!value) return kn_fail(KN_ERR_ARG, "JSON to write holds a missing value (out of memory?)");
    if (depth > KN_JSON_MAX_DEPTH)
        return kn_fail(KN_ERR_ARG, "JSON to write is nested deeper than %d levels",
                       KN_JSON_MAX_DEPTH);
    switch (json_typeof(value)) {
    case JSON_OBJECT: return add_object(t, value, depth);
    case JSON_ARRAY: return add_array(t, value, depth);
    case JSON_STRING: return kn_json_add_string(t, json_string_value(value));
    case JSON_INTEGER: return kn_text_addf(t, "%lld", (long long)json_integer_value(value));
    case JSON_REAL:
        if (!isfinite(json_real_value(value))) return kn_text_add(t, "null");
        return kn_text_add(t, kn_text_double(json_real_value(value), number));
    case JSON_TRUE: return kn_text_add(t, "true");
    case JSON_FALSE: return kn_text_add(t, "false");
    case JSON_NULL: return kn_text_add(t, "null");
    }
    return kn_fail(KN_ERR_INTERNAL, "unknown kind of JSON value");
}

kn_status kn_json_add_value(kn_text *t, const json_t *value)
{
    return add_value(t, value, 0);
}

kn_status kn_json_write(const char *path, const json_t *value)
{
    kn_status st;
    kn_text t = {0};
    KN_TRY_GOTO(kn_json_add_value(&t, value));
    KN_TRY_GOTO(kn_text_add(&t, "\n"));
    KN_TRY_GOTO(kn_file_write(path, t.data, t.size));
done:
    kn_free(t.data);
    return st;
}
