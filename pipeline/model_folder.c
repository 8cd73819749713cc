#include "pipeline/model_folder.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/folder.h"
#include "io/memory.h"
#include "pipeline/preset.h"

static kn_status exists(const char *root, const char *name, bool *found)
{
    char *path;
    *found = false;
    KN_TRY(kn_asprintf(&path, "%s/%s", root, name));
    kn_status st = kn_path_exists(path, found);
    kn_free(path);
    return st;
}

/* ---- recognising ------------------------------------------------------------------------------*/

static kn_status not_diffusers(const char *root)
{
    struct stat s;
    if (stat(root, &s) != 0) return kn_fail(KN_ERR_MODEL, "%s: no such model folder", root);
    if (!S_ISDIR(s.st_mode))
        return kn_fail(KN_ERR_MODEL, "%s: expected a model folder (with model_index.json), found a file", root);
    bool original_vae, original_text;
    KN_TRY(exists(root, "Wan2.1_VAE.pth", &original_vae));
    KN_TRY(exists(root, "models_t5_umt5-xxl-enc-bf16.pth", &original_text));
    if (original_vae || original_text)
        return kn_fail(KN_ERR_UNSUPPORTED,
                       "%s: a folder in Wan's original layout, whose VAE and text encoder are Python pickles (.pth); "
                       "use the diffusers layout of the same model (the repository whose name ends in -Diffusers)", root);
    return kn_fail(KN_ERR_MODEL, "%s: not a model folder: expected model_index.json, transformer/, vae/, text_encoder/ and tokenizer/ in it", root);
}

static bool is_model_file(const char *name)
{
    static const char *const ends[] = {".safetensors", ".json", ".model"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t e = strlen(ends[i]);
        if (n > e && !strcmp(name + n - e, ends[i])) return true;
    }
    return false;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static kn_status add_files(kn_model_folder *m, const char *folder)
{
    DIR *d = opendir(folder);
    if (!d) return kn_fail(KN_ERR_MODEL, "%s: cannot be opened as a folder", folder);
    kn_status st = KN_OK;
    const char *name;
    while (st == KN_OK && (st = kn_folder_next(d, folder, &name)) == KN_OK && name) {
        if (!is_model_file(name)) continue;
        if (m->files_count == KN_MODEL_FILES_MAX)
            st = kn_fail(KN_ERR_MODEL, "%s: more than %d files", m->root, (int)KN_MODEL_FILES_MAX);
        else if ((st = kn_asprintf(&m->files[m->files_count], "%s/%s", folder, name)) == KN_OK)
            m->files_count++;
    }
    closedir(d);
    return st;
}

static kn_status open_part(kn_model_folder *m, const char *name, char **path)
{
    bool there;
    KN_TRY(exists(m->root, name, &there));
    if (!there)
        return kn_fail(KN_ERR_MODEL, "%s: not a whole model folder: %s/ is missing", m->root, name);
    KN_TRY(kn_asprintf(path, "%s/%s", m->root, name));
    return add_files(m, *path);
}

kn_status kn_model_folder_open(const char *root, kn_model_folder *out)
{
    memset(out, 0, sizeof *out);
    bool index, second;
    KN_TRY(exists(root, "model_index.json", &index));
    if (!index) return not_diffusers(root);
    kn_model_folder m = {0};
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_strdup(root, &m.root));
    KN_TRY_GOTO(exists(root, "transformer_2", &second));
    if (second)
        KN_TRY_GOTO(kn_fail(KN_ERR_UNSUPPORTED, "%s: a Wan 2.2 model with two transformers (transformer_2/); Kinora renders models with one", root));
    KN_TRY_GOTO(open_part(&m, "transformer", &m.transformer));
    KN_TRY_GOTO(open_part(&m, "vae", &m.vae));
    KN_TRY_GOTO(open_part(&m, "text_encoder", &m.text_encoder));
    KN_TRY_GOTO(open_part(&m, "tokenizer", &m.tokenizer));
    qsort(m.files, (size_t)m.files_count, sizeof *m.files, by_name);
    *out = m;
    memset(&m, 0, sizeof m);
done:
    kn_model_folder_close(&m);
    return st;
}

void kn_model_folder_close(kn_model_folder *m)
{
    char *parts[] = {m->root, m->transformer, m->vae, m->text_encoder, m->tokenizer};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) kn_free(parts[i]);
    for (int i = 0; i < m->files_count; i++) kn_free(m->files[i]);
    memset(m, 0, sizeof *m);
}

/* ---- defaults ---------------------------------------------------------------------------------*/

/* What is wrong in the folder's own files is the model's fault, not the user's. */
static kn_status as_model_error(kn_status st) { return st == KN_ERR_ARG ? KN_ERR_MODEL : st; }

static kn_status apply_kinora_json(const kn_model_folder *m, kn_options *o)
{
    char *path;
    kn_config *config = NULL;
    KN_TRY(kn_asprintf(&path, "%s/kinora.json", m->root));
    kn_status st = kn_config_open(path, &config);
    if (st == KN_OK) st = as_model_error(kn_options_apply(kn_config_root(config), o, KN_FROM_MODEL));
    kn_config_close(&config);
    kn_free(path);
    return st;
}

/* flow_shift of UniPC and others, `shift` of FlowMatchEulerDiscreteScheduler. */
static kn_status apply_scheduler(const kn_model_folder *m, kn_options *o)
{
    char *path;
    kn_config *config = NULL;
    KN_TRY(kn_asprintf(&path, "%s/scheduler/scheduler_config.json", m->root));
    kn_status st = kn_config_open(path, &config);
    if (st == KN_OK) {
        const kn_node *root = kn_config_root(config);
        const kn_node *shift = kn_node_find(root, kn_node_has(root, "flow_shift") ? "flow_shift" : "shift");
        if (shift && shift->text && !kn_node_is_null(shift))
            st = as_model_error(kn_options_set(o, "shift", shift->text, KN_FROM_MODEL, path));
    }
    kn_config_close(&config);
    kn_free(path);
    return st;
}

kn_status kn_model_folder_defaults(const kn_model_folder *m, kn_options *o)
{
    bool scheduler, own;
    KN_TRY(exists(m->root, "scheduler/scheduler_config.json", &scheduler));
    KN_TRY(exists(m->root, "kinora.json", &own));
    if (scheduler) KN_TRY(apply_scheduler(m, o));
    if (own) KN_TRY(apply_kinora_json(m, o));
    return KN_OK;
}
