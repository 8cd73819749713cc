#include "io/json.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
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
 * with a character missing from a string, or abort in an assertion (lex_unget after a token that did
 * not fit). So while it parses, its allocation functions (the host program's, where it has set some)
 * are called through these, which leave the parser at the first failure. What it held by then is found
 * in a log of its allocations. */
typedef struct event {
    void *block;
    size_t order;
    bool freed;
} event;

static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static json_malloc_t host_malloc;
static json_free_t host_free;

static _Thread_local struct {
    bool on;
    jmp_buf out;
    event *log;
    size_t count, room, held; /* held: blocks not freed; the log has room for each to be */
} parse;

static bool make_room(void)
{
    void *more;
    size_t room = parse.room ? 2 * parse.room : 1024;
    if (parse.count + parse.held + 2 <= parse.room) return true;
    if (kn_alloc_array(room, sizeof(event), &more) != KN_OK) return false;
    if (parse.count) memcpy(more, parse.log, parse.count * sizeof(event));
    kn_free(parse.log);
    parse.log = more;
    parse.room = room;
    return true;
}

static void *watching_malloc(size_t bytes)
{
    if (!parse.on) return host_malloc(bytes);
    void *p = make_room() ? host_malloc(bytes) : NULL;
    if (!p) longjmp(parse.out, 1);
    parse.log[parse.count] = (event){.block = p, .order = parse.count};
    parse.count++;
    parse.held++;
    return p;
}

static void watching_free(void *block)
{
    if (parse.on && block) {
        parse.log[parse.count] = (event){.block = block, .order = parse.count, .freed = true};
        parse.count++;
        parse.held--;
    }
    host_free(block);
}

static void watch_allocations(void)
{
    json_get_alloc_funcs(&host_malloc, &host_free);
    json_set_alloc_funcs(watching_malloc, watching_free);
}

static int by_block(const void *a, const void *b)
{
    const event *x = a, *y = b;
    if (x->block != y->block) return (uintptr_t)x->block < (uintptr_t)y->block ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static void free_held(void)
{
    if (parse.count) qsort(parse.log, parse.count, sizeof(event), by_block);
    for (size_t i = 0; i < parse.count; i++)
        if ((i + 1 == parse.count || parse.log[i + 1].block != parse.log[i].block) && !parse.log[i].freed)
            host_free(parse.log[i].block);
}

kn_status kn_json_parse(const char *name, const char *data, size_t size, size_t max_values,
                        json_t **out)
{
    *out = NULL;
    KN_TRY(check_size(name, data, size, max_values));
    json_error_t error;
    kn_status st = KN_OK;
    pthread_once(&watch_once, watch_allocations);
    if (setjmp(parse.out) == 0) {
        parse.on = true;
        *out = json_loadb(data, size, JSON_REJECT_DUPLICATES, &error);
        parse.on = false;
        if (!*out)
            st = kn_fail(KN_ERR_FORMAT, "%s: line %d, column %d: %s", name, error.line,
                         error.column, error.text);
    } else {
        parse.on = false;
        free_held();
        st = kn_fail(KN_ERR_NOMEM, "%s: out of memory while reading %zu bytes of JSON", name, size);
    }
    kn_free(parse.log);
    parse.log = NULL;
    parse.count = parse.room = parse.held = 0;
    return st;
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

json_t *kn_json_text(const char *text)
{
    char *copy;
    if (kn_text_is_utf8(text)) return json_string(text);
    if (kn_strdup(text, &copy) != KN_OK) return NULL;
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    json_t *value = json_string(copy);
    kn_free(copy);
    return value;
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
