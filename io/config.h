/* io/config.h - reading JSON and YAML: model configs, presets, option and batch files.
 *
 * Purpose   Both formats become one small tree of maps, lists and scalars that keeps the text of
 *           each scalar and the place it came from. Model configs read it through typed getters;
 *           option files walk it and hand the text to the option table (pipeline/options).
 * YAML      One document; maps with scalar keys, lists, scalars. Anchors, aliases, tags and merge
 *           keys are refused: a file of a few bytes must not stand for gigabytes, and a value must
 *           mean the same to every reader. Plain scalars are not interpreted until asked for.
 * JSON      As io/json.h: strict, no duplicate keys. Its nodes know no line (line == 0).
 * Limits    KN_CONFIG_MAX_BYTES of text, KN_CONFIG_MAX_DEPTH levels, KN_CONFIG_MAX_NODES nodes.
 * Errors    KN_ERR_IO; KN_ERR_FORMAT "file:line:column: key 'a.b[2]': expected ..., found ..."
 *           (YAML) or "file: key 'a.b[2]': expected ..., found ..." (JSON); KN_ERR_NOMEM.
 * Threads   After opening, everything is read-only: any number of threads may read.
 */
#ifndef KN_IO_CONFIG_H
#define KN_IO_CONFIG_H

#include "io/status.h"

enum { KN_CONFIG_MAX_BYTES = 16 << 20, KN_CONFIG_MAX_DEPTH = 32, KN_CONFIG_MAX_NODES = 1 << 18 };

typedef enum kn_node_kind { KN_NODE_SCALAR, KN_NODE_LIST, KN_NODE_MAP } kn_node_kind;

typedef enum kn_scalar_kind {
    KN_SCALAR_PLAIN,  /* YAML without quotes: a string, number, bool or null, as the reader needs */
    KN_SCALAR_STRING, /* in quotes, or a YAML block scalar */
    KN_SCALAR_LITERAL /* a JSON number, true, false or null */
} kn_scalar_kind;

typedef struct kn_config kn_config;
typedef struct kn_node kn_node;

struct kn_node {
    kn_node_kind kind;
    kn_scalar_kind scalar; /* of a scalar */
    const char *key;       /* in a map; NULL in a list and for the root */
    const char *text;      /* of a scalar; NULL otherwise. JSON reals: shortest exact form */
    const kn_node *item;   /* of a list or map: its count children, in file order */
    int count;
    int line, column; /* of the value (of the key, where it stands in a map); 1-based; 0: JSON */
    const kn_node *parent; /* NULL for the root */
    const kn_config *config;
};

typedef enum kn_config_format { KN_CONFIG_JSON, KN_CONFIG_YAML } kn_config_format;

/* Read a file; its name must end in .json, .yaml or .yml. The root is a map; an empty YAML file is
 * an empty map. */
KN_CHECKED kn_status kn_config_open(const char *path, kn_config **out);
/* The same from memory. name stands in messages. */
KN_CHECKED kn_status kn_config_parse(const char *name, kn_config_format format, const char *data,
                                     size_t size, kn_config **out);
void kn_config_close(kn_config **config);
const kn_node *kn_config_root(const kn_config *config);
const char *kn_config_path(const kn_config *config);

/* ---- nodes ----------------------------------------------------------------------------------- */

/* The value of key, or NULL. map may be any node; only a map has keys. */
const kn_node *kn_node_find(const kn_node *map, const char *key);
/* null, ~ or nothing, without quotes. */
int kn_node_is_null(const kn_node *node);
/* True when key is there and is not null. */
int kn_node_has(const kn_node *map, const char *key);
/* Record a failure at a node: the place and key path, then the text. Returns code. */
kn_status kn_node_fail(kn_status code, const kn_node *node, const char *fmt, ...) KN_PRINTF(3, 4);
/* For option files: every value of the map is a scalar or a list of scalars. */
KN_CHECKED kn_status kn_node_check_flat(const kn_node *map);

/* ---- typed values of a map ---------------------------------------------------------------------
 * The plain form needs the key; the _or form gives `fallback` when the key is absent or null.
 * Ranges are inclusive. On failure *out is unchanged (of a list, undefined). */

KN_CHECKED kn_status kn_node_int(const kn_node *map, const char *key, int low, int high, int *out);
KN_CHECKED kn_status kn_node_int_or(const kn_node *map, const char *key, int low, int high,
                                    int fallback, int *out);
/* Finite; an integer will do. */
KN_CHECKED kn_status kn_node_double(const kn_node *map, const char *key, double low, double high,
                                    double *out);
KN_CHECKED kn_status kn_node_double_or(const kn_node *map, const char *key, double low, double high,
                                       double fallback, double *out);
/* true or false. */
KN_CHECKED kn_status kn_node_bool(const kn_node *map, const char *key, int *out);
KN_CHECKED kn_status kn_node_bool_or(const kn_node *map, const char *key, int fallback, int *out);
/* *out lives as long as the config. */
KN_CHECKED kn_status kn_node_string(const kn_node *map, const char *key, const char **out);
KN_CHECKED kn_status kn_node_string_or(const kn_node *map, const char *key, const char *fallback,
                                       const char **out);
/* A string that is one of names[0..count-1]; *out is its place. */
KN_CHECKED kn_status kn_node_choice(const kn_node *map, const char *key, const char *const *names,
                                    int count, int *out);
KN_CHECKED kn_status kn_node_choice_or(const kn_node *map, const char *key,
                                       const char *const *names, int count, int fallback, int *out);
/* Lists of min_count to max_count values; out has room for max_count. *count may be NULL. */
KN_CHECKED kn_status kn_node_ints(const kn_node *map, const char *key, int low, int high,
                                  int min_count, int max_count, int *out, int *count);
KN_CHECKED kn_status kn_node_doubles(const kn_node *map, const char *key, double low, double high,
                                     int min_count, int max_count, double *out, int *count);

#ifdef KN_ANALYZE /* as kn_fail in io/status.h */
#define kn_node_fail(code, ...) (kn_node_fail((code), __VA_ARGS__), KN_FAILURE(code))
#endif

#endif
