#include "pipeline/info.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "compute/device.h"
#include "io/memory.h"
#include "io/png.h"
#include "io/safetensors.h"
#include "io/video.h"
#include "pipeline/columns.h"
#include "pipeline/made_with.h"
#include "pipeline/model_folder.h"

static void print_codecs(FILE *f)
{
    enum { NARROW = 84, NAME = 9 };
    int columns = kn_columns_of(f);
    bool narrow = columns < NARROW;
    if (!narrow) fprintf(f, "%-8s %-19s %-18s %-9s %s\n", "codec", "encoder", "containers", "bits", "quality (--crf)");
    for (int i = 0; i < kn_video_codecs_count(); i++) {
        kn_video_codec_info c = kn_video_codecs_at(i);
        const char *encoder = c.available ? c.encoder : "(not in this build)";
        char text[512];
        int at = fprintf(f, "%-8s ", c.name);
        if (!narrow) at += fprintf(f, "%-19s %-18s %-9s ", encoder, c.containers, c.bit_depths);
        if (narrow) snprintf(text, sizeof text, "%s; %s; %s bits; %s", encoder, c.containers, c.bit_depths, c.quality);
        kn_print_wrapped(f, narrow ? text : c.quality, at, narrow ? NAME : at, columns);
    }
}

static void print_build(FILE *f)
{
    fprintf(f, "kinora " KN_VERSION "\n\ndevices:\n");
    static const kn_dev_kind kinds[] = {KN_DEV_CUDA, KN_DEV_CPU, KN_DEV_REF};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        kn_dev *d;
        kn_dev_params p = {.kind = kinds[i]};
        if (kn_dev_open(&p, &d) == KN_OK)
            fprintf(f, "  %s\n", kn_dev_describe(d));
        else
            fprintf(f, "  %s: not available: %s\n", kn_dev_kind_name(kinds[i]), kn_error_text());
        kn_dev_close(&d);
    }
    fputc('\n', f);
    print_codecs(f);
}

static void print_pair(FILE *f, const char *key, const char *value)
{
    kn_print_plain(f, key);
    fputs(": ", f);
    kn_print_plain(f, value);
    fputc('\n', f);
}

static void print_tensors(FILE *f, const kn_safetensors *st, bool each)
{
    int64_t values = 0;
    size_t bytes = 0;
    for (int i = 0; i < kn_safetensors_count(st); i++) {
        const kn_st_tensor *t = kn_safetensors_at(st, i);
        int64_t count = 1;
        if (each) {
            kn_print_plain(f, t->name);
            fprintf(f, " %s[", t->dtype_name);
        }
        for (int k = 0; k < t->rank; k++) {
            count *= t->dim[k];
            if (each) fprintf(f, "%s%" PRId64, k ? ", " : "", t->dim[k]);
        }
        if (each) fprintf(f, "]\n");
        values += count;
        bytes += t->bytes;
    }
    fprintf(f, "%d tensors, %.3f million values, %.1f MiB\n", kn_safetensors_count(st), (double)values / 1e6,
            (double)bytes / (1 << 20));
}

static kn_status print_part(FILE *f, const char *name, const char *folder)
{
    kn_safetensors *st;
    KN_TRY(kn_safetensors_open(folder, NULL, &st));
    fprintf(f, "%-14s ", name);
    print_tensors(f, st, false);
    kn_safetensors_close(&st);
    return KN_OK;
}

static kn_status print_model(FILE *f, const char *path)
{
    kn_model_folder m;
    kn_options o = {0};
    KN_TRY(kn_model_folder_open(path, &m));
    kn_status st = KN_OK;
    fprintf(f, "%s: model folder in diffusers layout\n", path);
    KN_TRY_GOTO(print_part(f, "transformer", m.transformer));
    KN_TRY_GOTO(print_part(f, "vae", m.vae));
    KN_TRY_GOTO(print_part(f, "text_encoder", m.text_encoder));
    KN_TRY_GOTO(kn_options_init(&o));
    KN_TRY_GOTO(kn_model_folder_defaults(&m, &o));
    fprintf(f, "defaults of this model:\n");
    int count;
    const kn_option *t = kn_option_table(&count);
    char text[KN_OPTION_TEXT];
    for (int i = 0; i < count; i++)
        if (kn_options_source(&o, &t[i]) == KN_FROM_MODEL) {
            fprintf(f, "  --%s ", t[i].key);
            kn_print_word(f, kn_options_text(&o, &t[i], text));
            fputc('\n', f);
        }
done:
    kn_options_free(&o);
    kn_model_folder_close(&m);
    return st;
}

static kn_status print_safetensors(FILE *f, const char *path)
{
    static const char *const keys[] = {"job", "step", "seed", "kinora", "options"};
    kn_safetensors *st;
    KN_TRY(kn_safetensors_open(path, NULL, &st));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = kn_safetensors_metadata(st, keys[i]);
        if (value) print_pair(f, keys[i], value);
    }
    print_tensors(f, st, true);
    kn_safetensors_close(&st);
    return KN_OK;
}

/* Files that others made are described too, only without this. */
static kn_status print_made_with(FILE *f, const char *path)
{
    kn_status st = kn_made_with_print(path, f);
    if (st != KN_ERR_FORMAT) return st;
    kn_error_clear();
    return KN_OK;
}

static kn_status print_video(FILE *f, const char *path)
{
    kn_video_reader *r;
    KN_TRY(kn_video_reader_open(path, 1, &r));
    const kn_video_info *v = kn_video_reader_info(r);
    fprintf(f, "%s: %s in %s, %dx%d, %s, %.6g fps, %s%" PRId64 " frames, %s%s\n", path, v->codec, v->container, v->width_px,
            v->height_px, v->pixel_format, v->fps_den ? (double)v->fps_num / v->fps_den : 0.0, v->frames_exact ? "" : "about ",
            v->frames, v->matrix, v->matrix_guessed ? " (assumed)" : "");
    const char *key, *value;
    for (int i = 0; kn_video_reader_metadata(r, i, &key, &value); i++)
        if (strcasecmp(key, "comment")) print_pair(f, key, value);
    kn_video_reader_close(&r);
    return print_made_with(f, path);
}

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), e = strlen(end);
    return n >= e && !strcasecmp(path + n - e, end);
}

kn_status kn_info_print(int argc, char **argv, FILE *f)
{
    if (argc == 0) {
        print_build(f);
        return KN_OK;
    }
    if (!strcmp(argv[0], "--codecs") && argc == 1) {
        print_codecs(f);
        return KN_OK;
    }
    if (argc != 1 || argv[0][0] == '-')
        return kn_fail(KN_ERR_ARG, "expected `kinora info`, `kinora info --codecs` or `kinora info PATH`, found '%s'", argv[0]);
    struct stat s;
    if (stat(argv[0], &s) != 0) return kn_fail(KN_ERR_IO, "%s: %s", argv[0], strerror(errno));
    if (S_ISDIR(s.st_mode)) return print_model(f, argv[0]);
    if (ends_with(argv[0], ".safetensors")) return print_safetensors(f, argv[0]);
    if (ends_with(argv[0], ".json")) return kn_made_with_print(argv[0], f);
    return print_video(f, argv[0]);
}
