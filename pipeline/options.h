/* pipeline/options.h - every setting of a job, and the one table that describes them.
 *
 * Purpose   The table (kn_option_table) gives each option its key, type, place in kn_options, range,
 *           default, unit and help. The command line, YAML presets and config files, --help, the man
 *           page, docs/options.md and the JSON written beside each output are all made from it.
 * Layers    Later ones win: built-in defaults < the model folder's own < preset < config file < command line.
 *           Each option remembers which layer set it.
 * Errors    KN_ERR_ARG: names the option, what was expected and what was found; for an unknown key,
 *           the nearest known one.
 * Threads   A kn_options is used by one thread at a time.
 */
#ifndef KN_PIPELINE_OPTIONS_H
#define KN_PIPELINE_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "io/status.h"

/* Order as in the `choices` of the table. */
typedef enum kn_device_choice { KN_DEVICE_AUTO, KN_DEVICE_CPU, KN_DEVICE_REF, KN_DEVICE_CUDA } kn_device_choice;
typedef enum kn_progress_choice {
    KN_PROGRESS_AUTO,
    KN_PROGRESS_BAR,
    KN_PROGRESS_LINES,
    KN_PROGRESS_JSON,
    KN_PROGRESS_NONE
} kn_progress_choice;

/* Where --preview-terminal shows previews. */
typedef enum kn_preview_terminal {
    KN_PREVIEW_OFF,
    KN_PREVIEW_AUTO,
    KN_PREVIEW_KITTY,
    KN_PREVIEW_ITERM,
    KN_PREVIEW_SIXEL
} kn_preview_terminal;

typedef enum kn_upscale_choice { KN_UPSCALE_BILINEAR, KN_UPSCALE_LANCZOS, KN_UPSCALE_LATENT } kn_upscale_choice;
typedef enum kn_attention_choice {
    KN_ATTENTION_WINDOW,
    KN_ATTENTION_DENSE,
    KN_ATTENTION_TILE3D,
    KN_ATTENTION_CROSS,
    KN_ATTENTION_DRAFT,
    KN_ATTENTION_PERMUTE,
    KN_ATTENTION_PARO
} kn_attention_choice;

typedef enum kn_attention_precision { KN_ATTENTION_FULL, KN_ATTENTION_INT8 } kn_attention_precision;
typedef enum kn_linear_precision { KN_LINEAR_FULL, KN_LINEAR_FP8 } kn_linear_precision;
typedef enum kn_fit_choice { KN_FIT_CROP, KN_FIT_PAD, KN_FIT_STRETCH } kn_fit_choice;
typedef enum kn_tail_choice { KN_TAIL_TRIM, KN_TAIL_KEEP } kn_tail_choice;
typedef enum kn_context_cache_choice {
    KN_CACHE_AUTO,
    KN_CACHE_DEVICE,
    KN_CACHE_HOST,
    KN_CACHE_INT8
} kn_context_cache_choice;
typedef enum kn_positions_choice { KN_POSITIONS_OWN, KN_POSITIONS_FITTED } kn_positions_choice;
typedef enum kn_override_choice { KN_OVERRIDE_AUTO, KN_OVERRIDE_PROMPT, KN_OVERRIDE_BOTH } kn_override_choice;

enum { KN_OPTION_MAX = 128 };
enum { KN_CHECKPOINTS_AUTO = -1 };

typedef struct kn_options {
    /* model and prompt */
    char *model;
    char *prompt;
    char *prompt_file;
    char *negative_prompt;
    int64_t text_length_tok;
    /* picture */
    int64_t width_px, height_px;
    int64_t frames;
    double seconds;
    double fps;
    /* sampling */
    int64_t steps;
    int64_t seed;
    double guidance;
    double shift;
    int64_t solver; /* kn_solver_kind */
    int64_t grid;   /* 0 = of the solver, else kn_grid + 1 */
    /* high resolution */
    char *input;       /* video to refine in place of a base pass; NULL: none */
    int64_t fit;       /* kn_fit_choice */
    int64_t overlap;   /* frames that two segments share */
    int64_t tail;      /* kn_tail_choice */
    bool audio;
    char *refine_size; /* NULL: the base pass is all */
    char *strength, *refine_steps, *refine_shift, *refine_guidance; /* lists */
    int64_t upscale;   /* kn_upscale_choice */
    int64_t attention; /* kn_attention_choice */
    int64_t attention_precision, base_attention_precision; /* kn_attention_precision */
    int64_t linear_precision;    /* kn_linear_precision */
    double attention_skip;       /* share of the largest weight below which blocks are left out; 0: none */
    int64_t base_attention, full_attention; /* 0 dense, 1 draft, 2 permute */
    int64_t full_positions; /* KN_POSITIONS_ */
    double density, mass;
    char *paro_axes; /* "auto", an order, or one per head */
    int64_t paro_rows;
    double paro_alpha, paro_epsilon, paro_share;
    char *attention_tile, *tile_window; /* "auto" or TxHxW */
    char *tile_windows; /* file of search-windows; NULL: none */
    int64_t dense_steps, dense_layers;  /* -1: the method's own */
    int64_t reuse_lists;
    char *window;      /* "auto" or WIDTHxHEIGHT in tokens */
    char *temperature; /* "auto", "off" or a factor */
    bool cross_override;
    int64_t override_for; /* kn_override_choice */
    int64_t refresh;
    int64_t context_cache; /* kn_context_cache_choice */
    int64_t override_steps; /* 0: all */
    char *override_layers;
    /* output */
    char *output;
    char *codec;
    double crf;
    char *encoder_preset;
    int64_t bit_depth;
    char *frames_dir;
    int64_t frames_depth; /* bits per channel of PNG frames, 8 or 16 */
    char *contact_sheet;
    char *preview;
    int64_t preview_terminal; /* kn_preview_terminal */
    bool overwrite;
    bool sidecar;
    /* research and parity */
    bool within_density;
    char *debug_dir;
    char *attention_map, *attention_query; /* of kinora plan */
    char *noise_in, *latents_in, *latents_out, *embeds_in, *embeds_out;
    /* run */
    int64_t device; /* kn_device_choice */
    int64_t threads;
    double memory_gib;
    bool offload;
    bool cuda_graphs;
    int64_t vae_tile_px;
    bool resume;
    bool keep_checkpoint;
    int64_t checkpoint_every; /* steps, or KN_CHECKPOINTS_AUTO */
    bool dry_run;
    char *preset;
    char *config;
    char *from;
    char *save_preset;
    int64_t progress; /* kn_progress_choice */
    bool verbose, quiet;
    /* window search */
    char *candidates; /* "auto" or a list of TxHxW */
    double budget, max_error;
    int64_t ranges;
    /* batch */
    char *output_dir;
    char *shard; /* "I/N" */

    /* which layer set option i of the table (a kn_option_source) */
    unsigned char source[KN_OPTION_MAX];
} kn_options;

typedef enum kn_option_type {
    KN_OPTION_STRING,
    KN_OPTION_PATH,
    KN_OPTION_INT,
    KN_OPTION_DOUBLE,
    KN_OPTION_BOOL,
    KN_OPTION_CHOICE,
    KN_OPTION_LIST, /* numbers with commas between, one per refine stage; the last holds for the rest */
    KN_OPTION_SIZE /* WIDTHxHEIGHT: writes width and height, has no field of its own */
} kn_option_type;

typedef enum kn_option_source {
    KN_FROM_DEFAULT,
    KN_FROM_MODEL,
    KN_FROM_PRESET,
    KN_FROM_CONFIG,
    KN_FROM_COMMAND_LINE
} kn_option_source;

enum {
    KN_OPTION_SHAPES_RESULT = 1, /* part of the job's identity: a checkpoint of another value is refused */
    KN_OPTION_COMMAND_LINE = 2,  /* not allowed in presets and config files */
    KN_OPTION_MODEL = 4,         /* a model folder's kinora.json may set it */
    KN_OPTION_WRITES = 8         /* names what is written: a preset or config file cannot name a place elsewhere */
};

typedef struct kn_option {
    const char *key;   /* "width"; the flag is --width */
    char letter;       /* 'W' for -W, or 0 */
    kn_option_type type;
    size_t offset;     /* of the field in kn_options */
    double min, max;   /* inclusive; INT, DOUBLE and items of LIST */
    const char *initial; /* default as text; NULL = unset */
    const char *choices; /* "a|b|c" for CHOICE */
    const char *unit;    /* "px", "frames", "GiB", ... or NULL */
    const char *group;   /* heading in --help */
    int flags;
    const char *help;
} kn_option;

/* The table; *count gets its length. */
const kn_option *kn_option_table(int *count);
/* Entry by key ("frames-dir"; '_' is taken for '-'), or by letter; NULL if there is none. */
const kn_option *kn_option_find(const char *key);
const kn_option *kn_option_find_letter(char letter);
/* The key that was meant: by the name that other programs have for it, as the only one that begins so, or by edit
 * distance; NULL if none is near. */
const char *kn_option_nearest(const char *key);

/* Fill with the built-in defaults. Free with kn_options_free (NULL-safe on members). */
KN_CHECKED kn_status kn_options_init(kn_options *o);
void kn_options_free(kn_options *o);
KN_CHECKED kn_status kn_options_copy(const kn_options *from, kn_options *to);

/* Set one option from text. where: for messages ("--width", "fast.yaml line 3: width"). An option
 * already set by a later layer keeps its value. value NULL means the flag stood alone (BOOL only). */
KN_CHECKED kn_status kn_options_set(kn_options *o, const char *key, const char *value, kn_option_source source,
                                    const char *where);
/* Value as text in buf ("" if unset). */
enum { KN_OPTION_TEXT = 4096 };
const char *kn_options_text(const kn_options *o, const kn_option *opt, char buf[KN_OPTION_TEXT]);
/* Item of a LIST option's value for stage i = 0, 1, ... */
double kn_option_list_at(const char *list, int i);
kn_option_source kn_options_source(const kn_options *o, const kn_option *opt);

/* JSON object of all set options that have any of `flags` (0 = all). New reference; NULL = no memory. */
json_t *kn_options_json(const kn_options *o, int flags);

/* Checks that need more than one option: frames 4n+1 (names the two nearest), seconds against frames, ...
 * Fills in what follows from others (frames from seconds). Does not look at files. */
KN_CHECKED kn_status kn_options_resolve(kn_options *o);

/* Documentation from the table. only: of groups that belong to one command, the one to print; KN_EVERY_COMMAND:
 * none of them; NULL: all. */
#define KN_EVERY_COMMAND ""
void kn_options_print_help(FILE *f, const char *only, int columns);
/* The same of one option, "--strength", "strength", "-o" or "o"; false when there is none of that name. */
bool kn_options_print_one(FILE *f, const char *name, int columns);
void kn_options_print_man(FILE *f);
void kn_options_print_markdown(FILE *f);
/* shell: bash, zsh or fish; KN_ERR_ARG for others. */
KN_CHECKED kn_status kn_options_print_completion(FILE *f, const char *shell);

#endif
