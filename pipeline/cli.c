#include "pipeline/cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/json.h"
#include "io/log.h"
#include "io/memory.h"
#include "pipeline/cli_common.h"
#include "pipeline/columns.h"
#include "pipeline/compare.h"
#include "pipeline/info.h"
#include "pipeline/made_with.h"
#include "pipeline/model_folder.h"
#include "pipeline/preset.h"
#include "pipeline/render.h"
#include "pipeline/window_search.h"

int kn_cli_exit_code(kn_status st)
{
    switch (st) {
    case KN_OK: return 0;
    case KN_ERR_ARG: return 2;
    case KN_ERR_IO:
    case KN_ERR_FORMAT:
    case KN_ERR_MODEL: return 3;
    case KN_ERR_NOMEM:
    case KN_ERR_DEVICE: return 4;
    case KN_ERR_UNSUPPORTED: return 5;
    case KN_ERR_NUMERIC: return 6;
    case KN_ERR_CANCELLED: return 130;
    case KN_ERR_INTERNAL: break;
    }
    return 70;
}

int kn_cli_report(kn_status st)
{
    if (st == KN_OK) return 0;
    fprintf(stderr, "kinora: %s\n", kn_error_text());
    if (st == KN_ERR_INTERNAL)
        fprintf(stderr, "kinora: this is a bug (%s, version " KN_VERSION "); please report it\n", kn_error_place());
    return kn_cli_exit_code(st);
}

/* ---- signals ----------------------------------------------------------------------------------*/

static volatile sig_atomic_t stop_asked;

static void on_stop(int sig)
{
    if (stop_asked) { /* the second one does not wait for the step to end */
        kn_atomic_unlink_all();
        signal(sig, SIG_DFL);
        raise(sig);
    }
    stop_asked = 1;
}

void kn_cli_catch_signals(void)
{
    struct sigaction a = {.sa_handler = on_stop};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that went away and a file-size limit are errors of a write */
    signal(SIGXFSZ, SIG_IGN);
}

void kn_cli_progress(kn_cli_listener *l, kn_options *o)
{
    kn_progress *p = &l->progress;
    kn_progress_open(p, (kn_progress_choice)o->progress, o->quiet, stderr, stdout);
    p->images = kn_progress_find_images(p, (kn_preview_terminal)o->preview_terminal);
    if (p->images != KN_TERMINAL_NONE || o->preview_terminal == KN_PREVIEW_OFF) return;
    if (p->style == KN_PROGRESS_BAR)
        fprintf(stderr, "kinora: --preview-terminal auto: this terminal shows no pictures, as far as can be told\n");
    o->preview_terminal = KN_PREVIEW_OFF; /* none need be made */
}

int kn_cli_on_event(void *user, const kn_event *event)
{
    kn_cli_listener *l = user;
    kn_progress_event(&l->progress, event);
    if (stop_asked && !l->told) {
        l->told = 1;
        kn_progress_break(&l->progress);
        fprintf(stderr, "kinora: stopping (a second signal stops at once)\n");
    }
    return stop_asked;
}

/* ---- options of the command line --------------------------------------------------------------*/

/* One flag at argv[*i]; *i moves past its value. */
static kn_status parse_flag(kn_options *o, int argc, char **argv, int *i)
{
    const char *arg = argv[(*i)++];
    char key[64], where[80];
    const char *value = NULL;
    const kn_option *opt;
    if (arg[1] != '-') {
        opt = kn_option_find_letter(arg[1]);
        if (!opt) return kn_fail(KN_ERR_ARG, "unknown flag '-%c'; `kinora help` lists them", arg[1]);
        snprintf(key, sizeof key, "%s", opt->key);
        if (arg[2]) value = arg + 2 + (arg[2] == '=');
    } else {
        size_t n = strcspn(arg + 2, "=");
        if (n >= sizeof key) return kn_fail(KN_ERR_ARG, "unknown flag '%s'; `kinora help` lists them", arg);
        memcpy(key, arg + 2, n);
        key[n] = '\0';
        if (arg[2 + n]) value = arg + 3 + n;
        opt = kn_option_find(key);
        if (!opt && !strncmp(key, "no-", 3) && !value) {
            opt = kn_option_find(key + 3);
            if (opt && opt->type == KN_OPTION_BOOL) {
                snprintf(where, sizeof where, "--%s", key);
                return kn_options_set(o, opt->key, "false", KN_FROM_COMMAND_LINE, where);
            }
            opt = NULL;
        }
        if (!opt) {
            const char *near = kn_option_nearest(key);
            return kn_fail(KN_ERR_ARG, "unknown flag '--%s'%s%s%s", key, near ? "; did you mean '--" : "; `kinora help` lists them",
                           near ? near : "", near ? "'?" : "");
        }
    }
    snprintf(where, sizeof where, "--%s", opt->key);
    if (!strcmp(opt->key, "preset") && o->preset)
        return kn_fail(KN_ERR_ARG, "--preset is given twice: a preset of your own can build on another, see `extends:` in docs/presets.md");
    if (!value && opt->type != KN_OPTION_BOOL) {
        if (*i >= argc) return kn_fail(KN_ERR_ARG, "%s: expected a value after it", where);
        value = argv[(*i)++];
    }
    return kn_options_set(o, opt->key, value, KN_FROM_COMMAND_LINE, where);
}

kn_status kn_cli_options(kn_options *o, int argc, char **argv)
{
    KN_TRY(kn_options_init(o));
    for (int i = 0; i < argc;) {
        if (argv[i][0] != '-' || !argv[i][1])
            return kn_fail(KN_ERR_ARG, "unexpected argument '%s': every setting is a flag; the prompt goes after --prompt", argv[i]);
        KN_TRY(parse_flag(o, argc, argv, &i));
    }
    if (o->from) KN_TRY(kn_made_with_apply(o->from, o));
    if (o->config) KN_TRY(kn_config_apply(o->config, o));
    if (o->preset) KN_TRY(kn_preset_apply(o->preset, o, NULL));
    return KN_OK;
}

/* ---- commands ---------------------------------------------------------------------------------*/

static kn_status save_preset(const kn_options *o)
{
    char *path;
    KN_TRY(kn_preset_save(o->save_preset, o, &path));
    if (!o->quiet) fprintf(stderr, "wrote %s\n", path);
    kn_free(path);
    return KN_OK;
}

typedef kn_status job_fn(kn_options *o, kn_event_fn *fn, void *user);

/* video: of `kinora refine VIDEO`; NULL: of another command. */
static int run_job(int argc, char **argv, const char *video, int plan_only, job_fn *job)
{
    kn_options o = {0};
    kn_status st = kn_cli_options(&o, argc, argv);
    if (st == KN_OK && video && o.input) st = kn_fail(KN_ERR_ARG, "VIDEO and --input are both given: give one");
    if (st == KN_OK && video) st = kn_options_set(&o, "input", video, KN_FROM_COMMAND_LINE, "VIDEO");
    kn_cli_listener l = {0};
    if (st == KN_OK) {
        kn_log_set_level(o.quiet ? KN_LOG_ERR : o.verbose ? KN_LOG_DEBUG : KN_LOG_INFO);
        kn_cli_progress(&l, &o);
        kn_cli_catch_signals();
        if (plan_only) o.dry_run = true;
        if (o.save_preset) st = save_preset(&o);
    }
    if (st == KN_OK && !(o.save_preset && !o.output)) {
        st = job(&o, kn_cli_on_event, &l);
        kn_progress_break(&l.progress);
    }
    int code = kn_cli_report(st);
    if (st != KN_OK && o.progress == KN_PROGRESS_JSON) {
        json_t *e = json_pack("{s:s, s:s, s:i, s:o}", "event", "error", "kind", kn_status_name(st), "exit_code", code,
                              "text", kn_json_text(kn_error_text()));
        if (e) json_dumpf(e, stdout, JSON_COMPACT), fputc('\n', stdout);
        json_decref(e);
    }
    kn_options_free(&o);
    return code;
}

static int run_render(int argc, char **argv, const char *video, int plan_only)
{
    return run_job(argc, argv, video, plan_only, kn_render);
}

static int run_refine(int argc, char **argv)
{
    bool named = argc > 0 && argv[0][0] != '-';
    bool other = false;
    for (int i = 0; i < argc; i++) other |= !strncmp(argv[i], "--input", 7);
    if (!named && !other)
        return kn_cli_report(kn_fail(KN_ERR_ARG, "expected the video first: kinora refine VIDEO -m MODEL -o out.mp4"));
    return run_render(argc - named, argv + named, named ? argv[0] : NULL, 0);
}

static void print_preset(void *user, const char *name, const char *about, bool own)
{
    enum { INDENT = 22 };
    char text[1024];
    snprintf(text, sizeof text, "%s%s", own ? "(yours) " : "", about);
    if (*(const int *)user)
        puts(name);
    else
        kn_print_wrapped(stdout, text, printf("%-*s ", INDENT - 1, name), kn_columns_of(stdout) < 60 ? 4 : INDENT,
                         kn_columns_of(stdout));
}

/* Everything that shapes the result, as it would be without further flags, and who says so. */
static kn_status show_preset(const char *name)
{
    static kn_preset_origins origins;
    kn_options o;
    int n;
    char text[KN_OPTION_TEXT];
    const kn_option *t = kn_option_table(&n);
    kn_status st = kn_options_init(&o);
    if (st == KN_OK) st = kn_preset_apply(name, &o, &origins);
    for (int i = 0; st == KN_OK && i < n; i++) {
        bool set = origins.name[i][0];
        if (t[i].type == KN_OPTION_SIZE || !(set || (t[i].flags & KN_OPTION_SHAPES_RESULT))) continue;
        if (!*kn_options_text(&o, &t[i], text)) continue;
        printf("%s: %-*s # %s\n", t[i].key, 30 - (int)strlen(t[i].key), text,
               set ? origins.name[i] : t[i].flags & KN_OPTION_MODEL ? "default, or the model's own" : "default");
    }
    kn_options_free(&o);
    return st;
}

static int run_presets(int argc, char **argv)
{
    int names = argc == 1 && !strcmp(argv[0], "--names");
    if (argc == 0 || names) return kn_cli_report(kn_preset_list(print_preset, &names));
    if (argc != 2 || strcmp(argv[0], "show"))
        return kn_cli_report(kn_fail(KN_ERR_ARG, "expected `kinora presets` or `kinora presets show NAME`, found 'presets %s'", argv[0]));
    return kn_cli_report(show_preset(argv[1]));
}

/* "kinora rendr": the nearest command, by common prefix. */
static const char *nearest_command(const char *name)
{
    for (size_t n = strlen(name); n >= 2; n--)
        for (int i = 0; kn_commands[i].name; i++)
            if (!strncmp(kn_commands[i].name, name, n)) return kn_commands[i].name;
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *near = nearest_command(name);
    return kn_cli_report(kn_fail(KN_ERR_ARG, "unknown command '%s'%s%s%s", name, near ? "; did you mean '" : "; `kinora help` lists them",
                          near ? near : "", near ? "'?" : ""));
}

/* kinora help [COMMAND | OPTION], and the forms for other programs. */
static int run_help(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[0], "--completion"))
        return kn_cli_report(kn_options_print_completion(stdout, argv[1]));
    if (argc > 1) return kn_cli_report(kn_fail(KN_ERR_ARG, "expected `kinora help`, or one COMMAND or OPTION after it, found '%s' after it", argv[1]));
    if (argc == 0 || !strcmp(argv[0], "--help") || !strcmp(argv[0], "-h")) {
        kn_cli_help(stdout);
    } else if (!strcmp(argv[0], "--man")) {
        kn_cli_man();
    } else if (!strcmp(argv[0], "--markdown")) {
        kn_options_print_markdown(stdout);
    } else if (!kn_cli_help_command(stdout, argv[0]) && !kn_cli_help_option(stdout, argv[0])) {
        return unknown_command(argv[0]);
    }
    return 0;
}

static int asks_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return 1;
    return 0;
}

int kn_cli_main(int argc, char **argv)
{
    if (argc < 2) {
        kn_cli_help(stderr);
        return 2;
    }
    const char *command = argv[1];
    argc -= 2, argv += 2;
    if (!strcmp(command, "--version") || !strcmp(command, "-V") || !strcmp(command, "version")) {
        puts("kinora " KN_VERSION);
        return 0;
    }
    if (!strcmp(command, "help")) return run_help(argc, argv);
    if (!strcmp(command, "--help") || !strcmp(command, "-h")) return run_help(0, NULL);
    if (asks_help(argc, argv) && kn_cli_help_command(stdout, command)) return 0;
    if (!strcmp(command, "render")) return run_render(argc, argv, NULL, 0);
    if (!strcmp(command, "refine")) return run_refine(argc, argv);
    if (!strcmp(command, "batch")) return kn_cli_batch(argc, argv);
    if (!strcmp(command, "bench")) return kn_cli_bench(argc, argv);
    if (!strcmp(command, "plan")) return run_render(argc, argv, NULL, 1);
    if (!strcmp(command, "compare")) return kn_cli_compare(argc, argv);
    if (!strcmp(command, "search-windows")) return run_job(argc, argv, NULL, 0, kn_window_search);
    if (!strcmp(command, "presets")) return run_presets(argc, argv);
    if (!strcmp(command, "info")) return kn_cli_report(kn_info_print(argc, argv, stdout));
    return unknown_command(command);
}
