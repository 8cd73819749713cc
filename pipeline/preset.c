#include "pipeline/preset.h"

#include <string.h>

#include "io/memory.h"

kn_status kn_options_apply(const kn_node *map, kn_options *o, kn_option_source source)
{
    KN_TRY(kn_node_check_flat(map));
    for (int i = 0; i < map->count; i++) {
        const kn_node *n = &map->item[i];
        if (!strcmp(n->key, "about")) continue;
        if (n->kind != KN_NODE_SCALAR) return kn_node_fail(KN_ERR_ARG, n, "expected one value, found a list");
        char where[256];
        if (n->line)
            snprintf(where, sizeof where, "%s line %d: %s", kn_config_path(n->config), n->line, n->key);
        else
            snprintf(where, sizeof where, "%s: %s", kn_config_path(n->config), n->key);
        KN_TRY(kn_options_set(o, n->key, n->text, source, where));
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

static kn_status parse(const kn_preset *p, kn_config **out)
{
    char name[64];
    snprintf(name, sizeof name, "preset %s", p->name);
    return kn_config_parse(name, KN_CONFIG_YAML, (const char *)p->yaml, p->size, out);
}

static const kn_preset *find(const char *name)
{
    int count;
    const kn_preset *all = kn_presets(&count);
    for (int i = 0; i < count; i++)
        if (!strcmp(all[i].name, name)) return &all[i];
    return NULL;
}

kn_status kn_preset_apply(const char *name, kn_options *o)
{
    const kn_preset *p = find(name);
    if (!p) {
        char names[512] = "";
        int count;
        const kn_preset *all = kn_presets(&count);
        for (int i = 0; i < count; i++) {
            size_t n = strlen(names);
            snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", all[i].name);
        }
        return kn_fail(KN_ERR_ARG, "unknown preset '%s'; there are: %s", name, names);
    }
    kn_config *config;
    KN_TRY(parse(p, &config));
    kn_status st = kn_options_apply(kn_config_root(config), o, KN_FROM_PRESET);
    kn_config_close(&config);
    return st;
}

kn_status kn_preset_about(const kn_preset *p, char **about)
{
    kn_config *config;
    const char *text;
    *about = NULL;
    KN_TRY(parse(p, &config));
    kn_status st = kn_node_string(kn_config_root(config), "about", &text);
    if (st == KN_OK) st = kn_strdup(text, about);
    kn_config_close(&config);
    return st;
}
