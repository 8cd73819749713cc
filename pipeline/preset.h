/* pipeline/preset.h - named settings, and option files in general.
 *
 * Purpose   Presets are YAML mappings whose keys are option names, plus `about`, one sentence on what the
 *           preset trades, and `extends`, the name of a preset that is applied before. Shipped ones (presets/
 *           in the source tree) are built into the program; a user's own are the files NAME.yaml in
 *           kinora/presets of the XDG configuration folder ($XDG_CONFIG_HOME, else ~/.config) and take the
 *           place of a shipped one of that name. A user's preset that extends its own name means the
 *           shipped one.
 * Errors    KN_ERR_ARG for unknown names and keys (names the nearest), KN_ERR_FORMAT for bad YAML with
 *           the line.
 */
#ifndef KN_PIPELINE_PRESET_H
#define KN_PIPELINE_PRESET_H

#include "io/config.h"
#include "pipeline/options.h"

typedef struct kn_preset {
    const char *name;
    const unsigned char *yaml;
    size_t size;
} kn_preset;

/* Built-in presets, by name; *count gets their number. */
const kn_preset *kn_presets(int *count);

/* Which presets set the options of the table; "" = none. */
typedef struct kn_preset_origins {
    char name[KN_OPTION_MAX][80];
} kn_preset_origins;

/* Set the options of a preset; source KN_FROM_PRESET. origins: NULL = not wanted. */
KN_CHECKED kn_status kn_preset_apply(const char *name, kn_options *o, kn_preset_origins *origins);

/* One line per preset: name, about, and whether it is the user's. */
typedef void kn_preset_list_fn(void *user, const char *name, const char *about, bool own);
KN_CHECKED kn_status kn_preset_list(kn_preset_list_fn *fn, void *user);

/* Write the settings of o that came from the command line or a config file as the user's preset `name`, on
 * top of o's own preset. Left out: prompts, the seed, paths, and what only the command line may set. *path:
 * where; free with kn_free. */
KN_CHECKED kn_status kn_preset_save(const char *name, const kn_options *o, char **path);

/* Set the options of a YAML or JSON file; source KN_FROM_CONFIG. */
KN_CHECKED kn_status kn_config_apply(const char *path, kn_options *o);

/* Set every key of a flat map, whose values are scalars; `about` and `extends` are skipped. */
KN_CHECKED kn_status kn_options_apply(const kn_node *map, kn_options *o, kn_option_source source);

#endif
