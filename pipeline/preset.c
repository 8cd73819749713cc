#include "pipeline/preset.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/folder.h"
#include "io/json.h"
#include "io/memory.h"
#include "io/path.h"
#include "pipeline/batch_ledger.h"

kn_status kn_options_apply(const kn_node *map, kn_options *o, kn_option_source source)
{
    KN_TRY(kn_node_check_flat(map));
    for (int i = 0; i < map->count; i++) {
        const kn_node *n = &map->item[i];
        if (!strcmp(n->key, "about") || !strcmp(n->key, "extends")) continue;
        if (n->kind != KN_NODE_SCALAR) return kn_node_fail(KN_ERR_ARG, n, "expected one value, found a list");
        char where[256];
        if (n->line)
            snprintf(where, sizeof where, "%s line %d: %s", kn_config_path(n->config), n->line, n->key);
        else
            snprintf(where, sizeof where, "%s: %s", kn_config_path(n->config), n->key);
        KN_TRY(kn_options_set(o, n->key, n->text, source, where));
        const kn_option *opt = kn_option_find(n->key);
        if ((opt->flags & KN_OPTION_WRITES) && !kn_path_is_below(n->text))
            return kn_fail(KN_ERR_ARG, "%s: expected a path below the current folder, found '%.200s'; others can be given on the command line",
                           where, n->text);
    }
    return KN_OK;
}

kn_status kn_config_apply(const char *path, kn_options *o)
{
    kn_config *config;
    KN_TRY(kn_config_open(path, &config));
    kn_status st = kn_options_apply(kn_config_root(config), o, KN_FROM_CONFIG);
    kn_config_close(&config);
    return st;
}

/* ---- finding ----------------------------------------------------------------------------------*/

static const kn_preset *find_shipped(const char *name)
{
    int count;
    const kn_preset *all = kn_presets(&count);
    for (int i = 0; i < count; i++)
        if (!strcmp(all[i].name, name)) return &all[i];
    return NULL;
}

/* XDG Base Directory Specification: relative paths in the variable are to be ignored. */
static kn_status user_folder(char **out)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    *out = NULL;
    if (config && *config == '/') return kn_asprintf(out, "%s/kinora/presets", config);
    return home && *home ? kn_asprintf(out, "%s/.config/kinora/presets", home) : KN_OK;
}

/* *out stays NULL when the user has no such preset. */
static kn_status user_file(const char *name, char **out)
{
    char *folder;
    *out = NULL;
    if (strchr(name, '/')) return KN_OK;
    KN_TRY(user_folder(&folder));
    kn_status st = folder ? kn_asprintf(out, "%s/%s.yaml", folder, name) : KN_OK;
    kn_free(folder);
    bool there = false;
    if (st == KN_OK && *out) st = kn_path_exists(*out, &there);
    if (!there) {
        kn_free(*out);
        *out = NULL;
    }
    return st;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void free_names(char **names, int count)
{
    for (int i = 0; i < count; i++) kn_free(names[i]);
    kn_free(names);
}

/* Names of the shipped presets and of the user's, sorted, each once; free with free_names. */
static kn_status collect_names(char ***names, int *count)
{
    enum { NAMES_MAX = 512 };
    char *folder = NULL, **name = NULL;
    int n = 0, shipped;
    const kn_preset *all = kn_presets(&shipped);
    DIR *d = NULL;
    kn_status st = KN_OK;
    *names = NULL;
    *count = 0;
    KN_TRY_GOTO(kn_alloc_array(NAMES_MAX, sizeof *name, (void **)&name));
    KN_TRY_GOTO(user_folder(&folder));
    for (int i = 0; i < shipped && n < NAMES_MAX; i++) {
        KN_TRY_GOTO(kn_strdup(all[i].name, &name[n]));
        n++;
    }
    d = folder ? opendir(folder) : NULL;
    while (d && n < NAMES_MAX) {
        const char *file;
        KN_TRY_GOTO(kn_folder_next(d, folder, &file));
        if (!file) break;
        size_t size = strlen(file);
        if (size <= 5 || strcmp(file + size - 5, ".yaml")) continue;
        KN_TRY_GOTO(kn_asprintf(&name[n], "%.*s", (int)(size - 5), file));
        if (find_shipped(name[n]))
            kn_free(name[n]);
        else
            n++;
    }
    qsort(name, (size_t)n, sizeof *name, by_name);
done:
    if (d) closedir(d);
    kn_free(folder);
    if (st != KN_OK) {
        free_names(name, n);
        return st;
    }
    *names = name;
    *count = n;
    return KN_OK;
}

static kn_status unknown(const char *name)
{
    char text[1024] = "", **names;
    int count;
    KN_TRY(collect_names(&names, &count));
    for (int i = 0; i < count; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, "%s%s", n ? ", " : "", names[i]);
    }
    free_names(names, count);
    return kn_fail(KN_ERR_ARG, "unknown preset '%s'; there are: %s", name, text);
}

static kn_status open_preset(const char *name, bool shipped_only, kn_config **out, bool *own)
{
    char *path = NULL, title[80];
    *own = false;
    if (!shipped_only) KN_TRY(user_file(name, &path));
    if (path) {
        kn_status st = kn_config_open(path, out);
        kn_free(path);
        *own = true;
        return st;
    }
    const kn_preset *p = find_shipped(name);
    if (!p) return unknown(name);
    snprintf(title, sizeof title, "preset %s", p->name);
    return kn_config_parse(title, KN_CONFIG_YAML, (const char *)p->yaml, p->size, out);
}

/* ---- applying ---------------------------------------------------------------------------------*/

enum { CHAIN_MAX = 8 };

static kn_status apply(const char *name, bool shipped_only, int depth, kn_options *o, kn_preset_origins *origins)
{
    kn_config *config = NULL;
    const char *base = NULL;
    bool own;
    if (depth > CHAIN_MAX) return kn_fail(KN_ERR_ARG, "preset '%s': `extends` goes on for more than %d presets; is it a circle?", name, (int)CHAIN_MAX);
    KN_TRY(open_preset(name, shipped_only, &config, &own));
    kn_status st = KN_OK;
    const kn_node *root = kn_config_root(config);
    KN_TRY_GOTO(kn_node_string_or(root, "extends", NULL, &base));
    if (base) {
        bool same = !strcmp(base, name);
        if (same && !own) KN_TRY_GOTO(kn_node_fail(KN_ERR_ARG, root, "a preset cannot extend itself"));
        st = apply(base, same, depth + 1, o, origins);
        if (st != KN_OK) KN_TRY_GOTO(KN_CTX(st, "preset %s extends %s", name, base));
    }
    KN_TRY_GOTO(kn_options_apply(root, o, KN_FROM_PRESET));
    for (int i = 0; origins && i < root->count; i++) {
        int count;
        const kn_option *opt = kn_option_find(root->item[i].key);
        if (!opt) continue;
        char text[80];
        snprintf(text, sizeof text, "%spreset %.48s", own ? "your " : "", name);
        snprintf(origins->name[opt - kn_option_table(&count)], 80, "%s", text);
        if (opt->type == KN_OPTION_SIZE) {
            snprintf(origins->name[kn_option_find("width") - kn_option_table(&count)], 80, "%s", text);
            snprintf(origins->name[kn_option_find("height") - kn_option_table(&count)], 80, "%s", text);
        }
    }
done:
    kn_config_close(&config);
    return st;
}

kn_status kn_preset_apply(const char *name, kn_options *o, kn_preset_origins *origins)
{
    return apply(name, false, 1, o, origins);
}

/* ---- listing ----------------------------------------------------------------------------------*/

static kn_status list_one(const char *name, kn_preset_list_fn *fn, void *user)
{
    kn_config *config = NULL;
    const char *about = "";
    bool own;
    kn_status st = open_preset(name, false, &config, &own);
    if (st == KN_OK) st = kn_node_string_or(kn_config_root(config), "about", "", &about);
    if (st == KN_OK) fn(user, name, about, own);
    kn_config_close(&config);
    return st;
}

kn_status kn_preset_list(kn_preset_list_fn *fn, void *user)
{
    char **names;
    int count;
    KN_TRY(collect_names(&names, &count));
    kn_status st = KN_OK;
    for (int i = 0; i < count && st == KN_OK; i++) st = list_one(names[i], fn, user);
    free_names(names, count);
    return st;
}

/* ---- saving -----------------------------------------------------------------------------------*/

static bool belongs(const kn_options *o, const kn_option *opt)
{
    static const char *const personal[] = {"prompt", "seed", "output-dir"};
    for (size_t i = 0; i < sizeof personal / sizeof *personal; i++)
        if (!strcmp(opt->key, personal[i])) return false;
    return opt->type != KN_OPTION_PATH && opt->type != KN_OPTION_SIZE && !(opt->flags & KN_OPTION_COMMAND_LINE) &&
           kn_options_source(o, opt) >= KN_FROM_CONFIG;
}

static kn_status preset_text(const kn_options *o, kn_text *t)
{
    int count, kept = 0;
    char buf[KN_OPTION_TEXT];
    const kn_option *table = kn_option_table(&count);
    if (o->preset) KN_TRY(kn_text_addf(t, "extends: %s\n", o->preset));
    for (int i = 0; i < count; i++) {
        if (!belongs(o, &table[i])) continue;
        kept++;
        KN_TRY(kn_text_addf(t, "%s: ", table[i].key));
        const char *text = kn_options_text(o, &table[i], buf);
        bool quoted = table[i].type == KN_OPTION_STRING || table[i].type == KN_OPTION_LIST;
        KN_TRY(quoted ? kn_json_add_string(t, text) : kn_text_add(t, text)); /* YAML reads JSON strings */
        KN_TRY(kn_text_add(t, "\n"));
    }
    if (kept) return KN_OK;
    return kn_fail(KN_ERR_ARG, "--save-preset: nothing to save: no setting was given (prompt, seed and paths are not part of a preset)");
}

kn_status kn_preset_save(const char *name, const kn_options *o, char **path)
{
    char *folder = NULL;
    kn_text text = {0};
    kn_status st = KN_OK;
    *path = NULL;
    if (!*name || name[0] == '.' || strlen(name) > 48 || strchr(name, '/'))
        return kn_fail(KN_ERR_ARG, "--save-preset: expected a name of 1 to 48 signs without '/', found '%s'", name);
    KN_TRY_GOTO(user_folder(&folder));
    if (!folder) KN_TRY_GOTO(kn_fail(KN_ERR_IO, "--save-preset: neither XDG_CONFIG_HOME nor HOME is set"));
    KN_TRY_GOTO(preset_text(o, &text));
    KN_TRY_GOTO(kn_make_folders(folder));
    KN_TRY_GOTO(kn_asprintf(path, "%s/%s.yaml", folder, name));
    bool there;
    KN_TRY_GOTO(kn_path_exists(*path, &there));
    if (there && !o->overwrite)
        KN_TRY_GOTO(kn_fail(KN_ERR_ARG, "--save-preset %s: %s exists; give --overwrite (-y) to replace it", name, *path));
    KN_TRY_GOTO(kn_file_write(*path, text.data, text.size));
done:
    if (st != KN_OK) kn_free(*path), *path = NULL;
    kn_free(folder);
    kn_free(text.data);
    return st;
}
