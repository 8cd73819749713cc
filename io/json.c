#include "io/json.h"

#include <math.h>
#include <pthread.h>
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

/* Where an allocation of its own fails, jansson 2.14 may report a syntax error, nothing, or success
 * with a character missing from a string. So its allocation function (the host program's, where it
 * has set one) is called through one that remembers a failure. */
static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static json_malloc_t watched_malloc;
static _Thread_local int alloc_failed;

static void *watching_malloc(size_t bytes)
{
    void *p = watched_malloc(bytes);
    if (!p) alloc_failed = 1;
    return p;
}

static void watch_allocations(void)
{
    json_free_t release;
    json_get_alloc_funcs(&watched_malloc, &release);
    json_set_alloc_funcs(watching_malloc, release);
}

kn_status kn_json_parse(const char *name, const char *data, size_t size, size_t max_values,
                        json_t **out)
{
    *out = NULL;
    KN_TRY(check_size(name, data, size, max_values));
    json_error_t error;
    pthread_once(&watch_once, watch_allocations);
    alloc_failed = 0;
    *out = json_loadb(data, size, JSON_REJECT_DUPLICATES, &error);
    if (alloc_failed) {
        json_decref(*out);
        *out = NULL;
        return kn_fail(KN_ERR_NOMEM, "%s: out of memory while reading %zu bytes of JSON", name,
                       size);
    }
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
