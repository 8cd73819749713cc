/* pipeline/preset.h - named settings, and option files in general.
 *
 * Purpose   Presets are YAML mappings whose keys are option names (presets/ in the source tree, built
 *           into the program), plus `about`, one sentence on what the preset trades.
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
/* Set the options of a preset; source KN_FROM_PRESET. */
KN_CHECKED kn_status kn_preset_apply(const char *name, kn_options *o);
/* The preset's `about`. Free with kn_free. */
KN_CHECKED kn_status kn_preset_about(const kn_preset *p, char **about);
/* Set the options of a YAML or JSON file; source KN_FROM_CONFIG. */
KN_CHECKED kn_status kn_config_apply(const char *path, kn_options *o);

/* Set every key of a flat map, whose values are scalars; `about` is skipped. */
KN_CHECKED kn_status kn_options_apply(const kn_node *map, kn_options *o, kn_option_source source);

#endif
