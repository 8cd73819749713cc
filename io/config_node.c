/* Looking up values in the tree that config.c reads. */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "io/config.h"
#include "io/text.h"

const kn_node *kn_node_find(const kn_node *map, const char *key)
{
    if (map->kind != KN_NODE_MAP) return NULL;
    for (int i = 0; i < map->count; i++)
        if (strcmp(map->item[i].key, key) == 0) return &map->item[i];
    return NULL;
}

int kn_node_is_null(const kn_node *n)
{
    return n->kind == KN_NODE_SCALAR && n->scalar != KN_SCALAR_STRING &&
           (!*n->text || strcmp(n->text, "~") == 0 || strcmp(n->text, "null") == 0);
}

int kn_node_has(const kn_node *map, const char *key)
{
    const kn_node *n = kn_node_find(map, key);
    return n && !kn_node_is_null(n);
}

/* ---- messages -------------------------------------------------------------------------------- */

enum { PATH_CHARS = 512, PLACE_CHARS = 1024 };

static void append(char *text, size_t size, const char *fmt, ...) KN_PRINTF(3, 4);
static void append(char *text, size_t size, const char *fmt, ...)
{
    size_t used = strlen(text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + used, size - used, fmt, ap);
    va_end(ap);
}

/* "a.b[2].c"; the depth is bounded by KN_CONFIG_MAX_DEPTH. */
static void key_path(const kn_node *n, char *out, size_t size)
{
    if (!n->parent) return;
    key_path(n->parent, out, size);
    if (n->key)
        append(out, size, "%s%.100s", *out ? "." : "", n->key);
    else
        append(out, size, "[%d]", (int)(n - n->parent->item));
}

/* "file:line:column: key 'a.b': " of node n, or of its absent child `key` when key is not NULL. */
static void place_of(const kn_node *n, const char *key, char out[PLACE_CHARS])
{
    char path[PATH_CHARS] = "";
    key_path(n, path, sizeof path);
    if (key) append(path, sizeof path, "%s%.100s", *path ? "." : "", key);
    snprintf(out, PLACE_CHARS, "%.400s:", kn_config_path(n->config));
    if (n->line) append(out, PLACE_CHARS, "%d:%d:", n->line, n->column);
    if (*path) append(out, PLACE_CHARS, " key '%s':", path);
}

kn_status(kn_node_fail)(kn_status code, const kn_node *node, const char *fmt, ...)
{
    char place[PLACE_CHARS], text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    place_of(node, NULL, place);
    return kn_fail(code, "%s %s", place, text);
}

static kn_status fail_expected(const kn_node *n, const char *expected)
{
    if (n->kind != KN_NODE_SCALAR)
        return kn_node_fail(KN_ERR_FORMAT, n, "expected %s, found a %s of %d", expected,
                            n->kind == KN_NODE_LIST ? "list" : "map", n->count);
    const char *quote = n->scalar == KN_SCALAR_STRING ? "\"" : "";
    return kn_node_fail(KN_ERR_FORMAT, n, "expected %s, found %s%.80s%s", expected, quote,
                        *n->text || *quote ? n->text : "nothing", quote);
}

static kn_status fail_missing(const kn_node *map, const char *key, const char *expected)
{
    char place[PLACE_CHARS];
    place_of(map, key, place);
    return kn_fail(KN_ERR_FORMAT, "%s expected %s, found no such key", place, expected);
}

/* ---- one value ------------------------------------------------------------------------------- */

static int is_bare(const kn_node *n)
{
    return n->kind == KN_NODE_SCALAR && n->scalar != KN_SCALAR_STRING;
}

static void say_ints(char *out, size_t size, int low, int high)
{
    if (low == INT_MIN && high == INT_MAX)
        snprintf(out, size, "an integer");
    else if (high == INT_MAX)
        snprintf(out, size, "an integer of at least %d", low);
    else
        snprintf(out, size, "an integer from %d to %d", low, high);
}

static kn_status read_int(const kn_node *n, int low, int high, int *out)
{
    char expected[80];
    int64_t v;
    if (is_bare(n) && kn_text_to_int(n->text, &v) && v >= low && v <= high) {
        *out = (int)v;
        return KN_OK;
    }
    say_ints(expected, sizeof expected, low, high);
    return fail_expected(n, expected);
}

static void say_doubles(char *out, size_t size, double low, double high)
{
    char a[KN_DOUBLE_CHARS], b[KN_DOUBLE_CHARS];
    snprintf(out, size, "a number from %s to %s", kn_text_double(low, a), kn_text_double(high, b));
}

static kn_status read_double(const kn_node *n, double low, double high, double *out)
{
    char expected[120];
    double v;
    if (is_bare(n) && kn_text_to_double(n->text, &v) && v >= low && v <= high) {
        *out = v;
        return KN_OK;
    }
    say_doubles(expected, sizeof expected, low, high);
    return fail_expected(n, expected);
}

static kn_status read_bool(const kn_node *n, int *out)
{
    if (is_bare(n) && (strcmp(n->text, "true") == 0 || strcmp(n->text, "false") == 0)) {
        *out = n->text[0] == 't';
        return KN_OK;
    }
    return fail_expected(n, "true or false");
}

static kn_status read_string(const kn_node *n, const char **out)
{
    if (n->kind == KN_NODE_SCALAR && n->scalar != KN_SCALAR_LITERAL && !kn_node_is_null(n)) {
        *out = n->text;
        return KN_OK;
    }
    return fail_expected(n, "a string");
}

static void say_names(char *out, size_t size, const char *const *names, int count)
{
    snprintf(out, size, count > 1 ? "one of " : "");
    for (int i = 0; i < count; i++) append(out, size, "%s%s", i ? ", " : "", names[i]);
}

static kn_status read_choice(const kn_node *n, const char *const *names, int count, int *out)
{
    char expected[400];
    if (n->kind == KN_NODE_SCALAR && n->scalar != KN_SCALAR_LITERAL) {
        for (int i = 0; i < count; i++) {
            if (strcmp(n->text, names[i]) == 0) {
                *out = i;
                return KN_OK;
            }
        }
    }
    say_names(expected, sizeof expected, names, count);
    return fail_expected(n, expected);
}

/* ---- values of a map ------------------------------------------------------------------------- */

kn_status kn_node_int(const kn_node *map, const char *key, int low, int high, int *out)
{
    char expected[80];
    const kn_node *n = kn_node_find(map, key);
    if (n) return read_int(n, low, high, out);
    say_ints(expected, sizeof expected, low, high);
    return fail_missing(map, key, expected);
}

kn_status kn_node_int_or(const kn_node *map, const char *key, int low, int high, int fallback,
                         int *out)
{
    if (kn_node_has(map, key)) return kn_node_int(map, key, low, high, out);
    *out = fallback;
    return KN_OK;
}

kn_status kn_node_double(const kn_node *map, const char *key, double low, double high, double *out)
{
    char expected[120];
    const kn_node *n = kn_node_find(map, key);
    if (n) return read_double(n, low, high, out);
    say_doubles(expected, sizeof expected, low, high);
    return fail_missing(map, key, expected);
}

kn_status kn_node_double_or(const kn_node *map, const char *key, double low, double high,
                            double fallback, double *out)
{
    if (kn_node_has(map, key)) return kn_node_double(map, key, low, high, out);
    *out = fallback;
    return KN_OK;
}

kn_status kn_node_bool(const kn_node *map, const char *key, int *out)
{
    const kn_node *n = kn_node_find(map, key);
    return n ? read_bool(n, out) : fail_missing(map, key, "true or false");
}

kn_status kn_node_bool_or(const kn_node *map, const char *key, int fallback, int *out)
{
    if (kn_node_has(map, key)) return kn_node_bool(map, key, out);
    *out = fallback;
    return KN_OK;
}

kn_status kn_node_string(const kn_node *map, const char *key, const char **out)
{
    const kn_node *n = kn_node_find(map, key);
    return n ? read_string(n, out) : fail_missing(map, key, "a string");
}

kn_status kn_node_string_or(const kn_node *map, const char *key, const char *fallback,
                            const char **out)
{
    if (kn_node_has(map, key)) return kn_node_string(map, key, out);
    *out = fallback;
    return KN_OK;
}

kn_status kn_node_choice(const kn_node *map, const char *key, const char *const *names, int count,
                         int *out)
{
    char expected[400];
    const kn_node *n = kn_node_find(map, key);
    if (n) return read_choice(n, names, count, out);
    say_names(expected, sizeof expected, names, count);
    return fail_missing(map, key, expected);
}

kn_status kn_node_choice_or(const kn_node *map, const char *key, const char *const *names,
                            int count, int fallback, int *out)
{
    if (kn_node_has(map, key)) return kn_node_choice(map, key, names, count, out);
    *out = fallback;
    return KN_OK;
}

static kn_status find_list(const kn_node *map, const char *key, int min_count, int max_count,
                           const kn_node **out)
{
    char expected[80];
    const kn_node *n = kn_node_find(map, key);
    if (min_count == max_count)
        snprintf(expected, sizeof expected, "a list of %d values", min_count);
    else
        snprintf(expected, sizeof expected, "a list of %d to %d values", min_count, max_count);
    if (!n) return fail_missing(map, key, expected);
    if (n->kind != KN_NODE_LIST || n->count < min_count || n->count > max_count)
        return fail_expected(n, expected);
    *out = n;
    return KN_OK;
}

kn_status kn_node_ints(const kn_node *map, const char *key, int low, int high, int min_count,
                       int max_count, int *out, int *count)
{
    const kn_node *list;
    KN_TRY(find_list(map, key, min_count, max_count, &list));
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): find_list has set it */
    for (int i = 0; i < list->count; i++) KN_TRY(read_int(&list->item[i], low, high, &out[i]));
    if (count) *count = list->count;
    return KN_OK;
}

kn_status kn_node_doubles(const kn_node *map, const char *key, double low, double high,
                          int min_count, int max_count, double *out, int *count)
{
    const kn_node *list;
    KN_TRY(find_list(map, key, min_count, max_count, &list));
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): find_list has set it */
    for (int i = 0; i < list->count; i++) KN_TRY(read_double(&list->item[i], low, high, &out[i]));
    if (count) *count = list->count;
    return KN_OK;
}

kn_status kn_node_check_flat(const kn_node *map)
{
    for (int i = 0; i < map->count; i++) {
        const kn_node *n = &map->item[i];
        if (n->kind == KN_NODE_MAP) return fail_expected(n, "a value or a list of values");
        for (int k = 0; k < n->count; k++)
            if (n->item[k].kind != KN_NODE_SCALAR)
                return fail_expected(&n->item[k], "a single value");
    }
    return KN_OK;
}
