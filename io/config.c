#include "io/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "io/atomic_file.h"
#include "io/json.h"
#include "io/memory.h"

struct kn_config {
    char *path;
    kn_node root;
    int nodes; /* made so far, for the limit */
};

/* ---- building the tree ----------------------------------------------------------------------- */

/* Children are grown by doubling; a list or map of n children has room for the next power of two.
 * The tree owns its strings and children: the const of kn_node is for its readers. */
static kn_status add_child(kn_config *c, kn_node *parent, kn_node **out)
{
    if (++c->nodes > KN_CONFIG_MAX_NODES)
        return kn_fail(KN_ERR_FORMAT, "%s: more than %d values", c->path, KN_CONFIG_MAX_NODES);
    int n = parent->count;
    kn_node *items = (kn_node *)parent->item;
    if ((n & (n - 1)) == 0) { /* 0, 1, 2, 4, 8, ...: full */
        void *grown;
        KN_TRY(kn_alloc_array(n ? 2 * (size_t)n : 1, sizeof(kn_node), &grown));
        if (n) memcpy(grown, items, (size_t)n * sizeof(kn_node));
        kn_free(items);
        parent->item = items = grown;
    }
    parent->count = n + 1;
    *out = &items[n];
    return KN_OK;
}

static kn_status set_string(const char *from, const char **to)
{
    char *copy;
    KN_TRY(kn_strdup(from, &copy));
    *to = copy;
    return KN_OK;
}

static void free_node(kn_node *n)
{
    kn_node *items = (kn_node *)n->item;
    for (int i = 0; i < n->count; i++) free_node(&items[i]);
    kn_free(items);
    kn_free((void *)n->key);
    kn_free((void *)n->text);
}

/* Parents are set when the tree is done, since children move while their list grows. */
static void link_node(const kn_config *c, kn_node *n, const kn_node *parent)
{
    kn_node *items = (kn_node *)n->item;
    n->config = c;
    n->parent = parent;
    for (int i = 0; i < n->count; i++) link_node(c, &items[i], n);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static kn_status fail_depth(const kn_config *c)
{
    return kn_fail(KN_ERR_FORMAT, "%s: nested deeper than %d levels", c->path, KN_CONFIG_MAX_DEPTH);
}

static kn_status json_scalar(const json_t *value, kn_node *n)
{
    char number[KN_DOUBLE_CHARS];
    n->kind = KN_NODE_SCALAR;
    n->scalar = KN_SCALAR_LITERAL;
    switch (json_typeof(value)) {
    case JSON_STRING:
        n->scalar = KN_SCALAR_STRING;
        return set_string(json_string_value(value), &n->text);
    case JSON_INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        return set_string(number, &n->text);
    case JSON_REAL: return set_string(kn_text_double(json_real_value(value), number), &n->text);
    case JSON_TRUE: return set_string("true", &n->text);
    case JSON_FALSE: return set_string("false", &n->text);
    default: return set_string("null", &n->text);
    }
}

static kn_status json_node(kn_config *c, json_t *value, kn_node *n, int depth)
{
    kn_node *child;
    if (depth > KN_CONFIG_MAX_DEPTH) return fail_depth(c);
    if (json_is_array(value)) {
        n->kind = KN_NODE_LIST;
        for (size_t i = 0; i < json_array_size(value); i++) {
            KN_TRY(add_child(c, n, &child));
            KN_TRY(json_node(c, json_array_get(value, i), child, depth + 1));
        }
        return KN_OK;
    }
    if (json_is_object(value)) {
        n->kind = KN_NODE_MAP;
        for (void *it = json_object_iter(value); it; it = json_object_iter_next(value, it)) {
            KN_TRY(add_child(c, n, &child));
            KN_TRY(set_string(json_object_iter_key(it), &child->key));
            KN_TRY(json_node(c, json_object_iter_value(it), child, depth + 1));
        }
        return KN_OK;
    }
    return json_scalar(value, n);
}

static kn_status read_json(kn_config *c, const char *data, size_t size)
{
    json_t *value;
    KN_TRY(kn_json_parse(c->path, data, size, KN_CONFIG_MAX_NODES, &value));
    kn_status st = json_node(c, value, &c->root, 0);
    json_decref(value);
    return st;
}

/* ---- YAML ------------------------------------------------------------------------------------ */

typedef struct yaml_source {
    kn_config *config;
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; owned, deleted by the next advance */
    int have_event;
} yaml_source;

static kn_status fail_yaml(const yaml_source *y, const yaml_mark_t *at, const char *what)
{
    return kn_fail(KN_ERR_FORMAT, "%s:%zu:%zu: %s", y->config->path, at->line + 1, at->column + 1,
                   what);
}

static void drop_event(yaml_source *y)
{
    if (y->have_event) yaml_event_delete(&y->event);
    y->have_event = 0;
}

/* Next event of the parser, minus what Kinora refuses. */
static kn_status advance(yaml_source *y)
{
    drop_event(y);
    if (!yaml_parser_parse(&y->parser, &y->event)) {
        const yaml_parser_t *p = &y->parser;
        if (p->error == YAML_MEMORY_ERROR)
            return kn_fail(KN_ERR_NOMEM, "%s: out of memory while reading YAML", y->config->path);
        if (p->error == YAML_READER_ERROR)
            return kn_fail(KN_ERR_FORMAT, "%s: byte %zu: %s", y->config->path, p->problem_offset,
                           p->problem);
        return kn_fail(KN_ERR_FORMAT, "%s:%zu:%zu: %s%s%s", y->config->path,
                       p->problem_mark.line + 1, p->problem_mark.column + 1,
                       p->context ? p->context : "", p->context ? ": " : "",
                       p->problem ? p->problem : "not YAML");
    }
    y->have_event = 1;
    const yaml_event_t *e = &y->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (e->type == YAML_ALIAS_EVENT)
        return fail_yaml(y, &e->start_mark, "expected a value, found an alias (*name)");
    if (e->type == YAML_SCALAR_EVENT) {
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
    } else if (e->type == YAML_MAPPING_START_EVENT) {
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
    }
    if (anchor) return fail_yaml(y, &e->start_mark, "expected a value, found an anchor (&name)");
    if (tag) return fail_yaml(y, &e->start_mark, "expected a value, found a tag (!name)");
    return KN_OK;
}

static kn_status check_scalar(const yaml_source *y)
{
    const yaml_event_t *e = &y->event;
    if (strlen((const char *)e->data.scalar.value) != e->data.scalar.length)
        return fail_yaml(y, &e->start_mark, "expected text, found a NUL character in it");
    return KN_OK;
}

static void set_place(const yaml_source *y, kn_node *n)
{
    n->line = (int)y->event.start_mark.line + 1;
    n->column = (int)y->event.start_mark.column + 1;
}

static int by_key(const void *a, const void *b)
{
    const kn_node *x = *(const kn_node *const *)a, *y = *(const kn_node *const *)b;
    int order = strcmp(x->key, y->key);
    return order ? order : x->line < y->line ? -1 : x->line > y->line;
}

static kn_status check_unique(const kn_config *c, const kn_node *map)
{
    kn_status st = KN_OK;
    void *p;
    KN_TRY(kn_alloc_array((size_t)map->count, sizeof(kn_node *), &p));
    const kn_node **sorted = p;
    for (int i = 0; i < map->count; i++) sorted[i] = &map->item[i];
    if (map->count) qsort(sorted, (size_t)map->count, sizeof *sorted, by_key);
    for (int i = 1; i < map->count && st == KN_OK; i++) {
        const kn_node *first = sorted[i - 1], *again = sorted[i];
        if (strcmp(first->key, again->key) == 0)
            st = kn_fail(KN_ERR_FORMAT,
                         "%s:%d:%d: key '%.200s': expected once, found also in line %d", c->path,
                         again->line, again->column, again->key, first->line);
    }
    kn_free(p);
    return st;
}

static kn_status yaml_node(yaml_source *y, kn_node *n, int depth);

static kn_status yaml_list(yaml_source *y, kn_node *n, int depth)
{
    kn_node *child;
    n->kind = KN_NODE_LIST;
    for (;;) {
        KN_TRY(advance(y));
        if (y->event.type == YAML_SEQUENCE_END_EVENT) return KN_OK;
        KN_TRY(add_child(y->config, n, &child));
        set_place(y, child);
        KN_TRY(yaml_node(y, child, depth + 1));
    }
}

static kn_status yaml_map(yaml_source *y, kn_node *n, int depth)
{
    kn_node *child;
    n->kind = KN_NODE_MAP;
    for (;;) {
        KN_TRY(advance(y));
        if (y->event.type == YAML_MAPPING_END_EVENT) return check_unique(y->config, n);
        if (y->event.type != YAML_SCALAR_EVENT)
            return fail_yaml(y, &y->event.start_mark, "expected a key, found a list or map");
        KN_TRY(check_scalar(y));
        KN_TRY(add_child(y->config, n, &child));
        KN_TRY(set_string((const char *)y->event.data.scalar.value, &child->key));
        set_place(y, child);
        KN_TRY(advance(y));
        KN_TRY(yaml_node(y, child, depth + 1));
    }
}

/* The value that the current event begins; ends at its last event. */
static kn_status yaml_node(yaml_source *y, kn_node *n, int depth)
{
    const yaml_event_t *e = &y->event;
    if (depth > KN_CONFIG_MAX_DEPTH) return fail_depth(y->config);
    if (e->type == YAML_SEQUENCE_START_EVENT) return yaml_list(y, n, depth);
    if (e->type == YAML_MAPPING_START_EVENT) return yaml_map(y, n, depth);
    KN_TRY(check_scalar(y));
    n->kind = KN_NODE_SCALAR;
    n->scalar =
        e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? KN_SCALAR_PLAIN : KN_SCALAR_STRING;
    return set_string((const char *)e->data.scalar.value, &n->text);
}

static kn_status yaml_document(yaml_source *y)
{
    kn_node *root = &y->config->root;
    KN_TRY(advance(y)); /* stream start */
    KN_TRY(advance(y));
    if (y->event.type == YAML_STREAM_END_EVENT) {
        root->kind = KN_NODE_MAP;
        return KN_OK;
    }
    KN_TRY(advance(y)); /* past the document start */
    set_place(y, root);
    KN_TRY(yaml_node(y, root, 0));
    KN_TRY(advance(y)); /* document end */
    KN_TRY(advance(y));
    if (y->event.type != YAML_STREAM_END_EVENT)
        return fail_yaml(y, &y->event.start_mark, "expected one document, found another");
    return KN_OK;
}

static kn_status read_yaml(kn_config *c, const char *data, size_t size)
{
    yaml_source y = {.config = c};
    if (!yaml_parser_initialize(&y.parser))
        return kn_fail(KN_ERR_NOMEM, "%s: out of memory while reading YAML", c->path);
    yaml_parser_set_input_string(&y.parser, (const unsigned char *)data, size);
    kn_status st = yaml_document(&y);
    drop_event(&y);
    yaml_parser_delete(&y.parser);
    return st;
}

/* ---- opening --------------------------------------------------------------------------------- */

kn_status kn_config_parse(const char *name, kn_config_format format, const char *data, size_t size,
                          kn_config **out)
{
    kn_status st;
    void *p;
    *out = NULL;
    KN_TRY(kn_alloc_zero(sizeof(kn_config), &p));
    kn_config *c = p;
    KN_TRY_GOTO(kn_strdup(name, &c->path));
    if (size > KN_CONFIG_MAX_BYTES) {
        st = kn_fail(KN_ERR_FORMAT, "%s: expected at most %d bytes, found %zu", name,
                     KN_CONFIG_MAX_BYTES, size);
        goto done;
    }
    KN_TRY_GOTO(format == KN_CONFIG_JSON ? read_json(c, data, size) : read_yaml(c, data, size));
    link_node(c, &c->root, NULL);
    if (c->root.kind != KN_NODE_MAP) {
        st =
            kn_node_fail(KN_ERR_FORMAT, &c->root, "expected keys and values at the top, found a %s",
                         c->root.kind == KN_NODE_LIST ? "list" : "single value");
        goto done;
    }
    *out = c;
    c = NULL;
done:
    kn_config_close(&c);
    return st;
}

kn_status kn_config_open(const char *path, kn_config **out)
{
    char *data;
    size_t size;
    const char *dot = strrchr(path, '.');
    int json = dot && strcmp(dot, ".json") == 0;
    *out = NULL;
    if (!json && !(dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0)))
        return kn_fail(KN_ERR_ARG, "%s: expected a name that ends in .json, .yaml or .yml", path);
    KN_TRY(kn_file_read(path, KN_CONFIG_MAX_BYTES, &data, &size));
    kn_status st = kn_config_parse(path, json ? KN_CONFIG_JSON : KN_CONFIG_YAML, data, size, out);
    kn_free(data);
    return st;
}

void kn_config_close(kn_config **handle)
{
    if (!handle || !*handle) return;
    kn_config *c = *handle;
    *handle = NULL;
    free_node(&c->root);
    kn_free(c->path);
    kn_free(c);
}

const kn_node *kn_config_root(const kn_config *c)
{
    return &c->root;
}

const char *kn_config_path(const kn_config *c)
{
    return c->path;
}
