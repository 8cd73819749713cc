/* pipeline/model_folder.h - where the parts of a model lie, and the defaults that come with it.
 *
 * Purpose   Recognises a model folder and gives the path of each part. Reads what the folder says of
 *           itself: scheduler/scheduler_config.json (flow_shift), and kinora.json, a flat JSON object
 *           of option names, which wins over it.
 * Layout    diffusers: model_index.json, transformer/, vae/, text_encoder/, tokenizer/, scheduler/.
 *           See docs/models.md. Wan's original folders (.pth files) are recognised and refused with
 *           the way to convert them.
 * Errors    KN_ERR_MODEL: not a model folder, or a part is missing: names what was looked for.
 */
#ifndef KN_PIPELINE_MODEL_FOLDER_H
#define KN_PIPELINE_MODEL_FOLDER_H

#include "pipeline/options.h"

enum { KN_MODEL_FILES_MAX = 64 };

typedef struct kn_model_folder {
    char *root, *transformer, *vae, *text_encoder, *tokenizer;
    /* every config and weight file, for the identity of a job; in name order */
    char *files[KN_MODEL_FILES_MAX];
    int files_count;
} kn_model_folder;

KN_CHECKED kn_status kn_model_folder_open(const char *root, kn_model_folder *out);
void kn_model_folder_close(kn_model_folder *m);
/* Set the model's own defaults; source KN_FROM_MODEL. */
KN_CHECKED kn_status kn_model_folder_defaults(const kn_model_folder *m, kn_options *o);

#endif
