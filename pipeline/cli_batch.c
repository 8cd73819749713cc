/* kinora batch: arguments, tables, exit code. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/log.h"
#include "io/memory.h"
#include "io/text.h"
#include "pipeline/batch.h"
#include "pipeline/cli_common.h"

static const double GIB = 1024.0 * 1024.0 * 1024.0;

/* ---- which jobs -------------------------------------------------------------------------------*/

static kn_status shard_of(const kn_options *o, kn_batch *b)
{
    const char *id = getenv("SLURM_ARRAY_TASK_ID"), *count = getenv("SLURM_ARRAY_TASK_COUNT");
    const char *min = getenv("SLURM_ARRAY_TASK_MIN"), *step = getenv("SLURM_ARRAY_TASK_STEP");
    int64_t i = 1, n = 1, first = 0, by = 1;
    b->shard = 0;
    b->shards = 1;
    if (o->shard) {
        char number[24];
        size_t len = strcspn(o->shard, "/");
        snprintf(number, sizeof number, "%.*s", (int)(len < 23 ? len : 23), o->shard);
        if (!o->shard[len] || !kn_text_to_int(number, &i) || !kn_text_to_int(o->shard + len + 1, &n) || n < 1 || i < 1 || i > n ||
            n > KN_BATCH_MAX)
            return kn_fail(KN_ERR_ARG, "--shard: expected I/N with 1 <= I <= N, found '%s'", o->shard);
    } else if (id && count) {
        if ((min && !kn_text_to_int(min, &first)) || (step && !kn_text_to_int(step, &by)) || by < 1 || !kn_text_to_int(id, &i) ||
            !kn_text_to_int(count, &n) || n < 1 || n > KN_BATCH_MAX || i < first || (i = (i - first) / by + 1) > n)
            return kn_fail(KN_ERR_ARG, "SLURM_ARRAY_TASK_ID %s of SLURM_ARRAY_TASK_COUNT %s: not a place in a job array", id, count);
    }
    b->shard = (int)i - 1;
    b->shards = (int)n;
    return KN_OK;
}

/* "jobs/night.yaml" -> "jobs/night" */
static kn_status default_folder(const char *file, char **out)
{
    const char *slash = strrchr(file, '/'), *dot = strrchr(file, '.');
    size_t n = dot && dot > (slash ? slash + 1 : file) ? (size_t)(dot - file) : strlen(file);
    return kn_asprintf(out, "%.*s%s", (int)n, file, n == strlen(file) ? ".out" : "");
}

/* ---- tables -----------------------------------------------------------------------------------*/

static int name_columns(const kn_batch *b, int room)
{
    int width = 4;
    for (int i = 0; i < b->file.count; i++)
        if (b->result[i].state != KN_BATCH_OTHERS && (int)strlen(b->file.entry[i].name) > width)
            width = (int)strlen(b->file.entry[i].name);
    if (room < 16) room = 16;
    return width > room ? room : width;
}

/* A name in so many columns; what is too long keeps its end, which tells jobs of one prompt apart. */
static void print_name(FILE *f, const char *name, int width)
{
    int n = (int)strlen(name);
    if (n > width)
        fprintf(f, "..%s", name + n - width + 2);
    else
        fprintf(f, "%-*s", width, name);
}

/* Behind what stands on the line if there is room, else below it. */
static void print_error(FILE *f, const char *text, int room)
{
    fprintf(f, (int)strlen(text) <= room ? "%s\n" : "\n      %s\n", text);
}

static void print_plan(const kn_batch *b, FILE *f, int columns)
{
    int width = name_columns(b, columns - 58), jobs = 0;
    double total = 0;
    char took[32];
    fprintf(f, "%4s  %-*s  %-11s %6s %9s %9s  %s\n", "#", width, "name", "size", "frames", "tokens", "GiB", "estimate");
    for (int i = 0; i < b->file.count; i++) {
        const kn_batch_entry *e = &b->file.entry[i];
        const kn_batch_result *r = &b->result[i];
        char size[24];
        if (r->state == KN_BATCH_OTHERS) continue;
        fprintf(f, "%4d  ", e->index);
        print_name(f, e->name, width);
        if (r->state == KN_BATCH_FAILED) {
            fputs("  ", f);
            print_error(f, kn_batch_error(r), columns - width - 8);
            continue;
        }
        snprintf(size, sizeof size, "%lldx%lld", (long long)r->width_px, (long long)r->height_px);
        fprintf(f, "  %-11s %6lld %9lld %9.3f  %s\n", size, (long long)r->frames,
                (long long)r->tokens, (double)r->peak_bytes / GIB,
                r->state == KN_BATCH_SKIPPED ? "finished" : kn_duration_text(r->estimate_sec, took, sizeof took));
        if (r->state == KN_BATCH_WAITING) total += r->estimate_sec, jobs++;
    }
    fprintf(f, "%d jobs to do, about %s on %s\n", jobs, kn_duration_text(total, took, sizeof took),
            b->session.dev ? kn_dev_describe(b->session.dev) : "no device");
}

static void print_summary(const kn_batch *b, FILE *f, int columns)
{
    int width = name_columns(b, columns - 30), count[KN_BATCH_OTHERS + 1] = {0};
    char took[32];
    fputc('\n', f);
    for (int i = 0; i < b->file.count; i++) {
        const kn_batch_result *r = &b->result[i];
        count[r->state]++;
        if (r->state == KN_BATCH_OTHERS) continue;
        fprintf(f, "%4d  ", b->file.entry[i].index);
        print_name(f, b->file.entry[i].name, width);
        fprintf(f, "  %-14s", kn_batch_state_name(r->state));
        if (r->state == KN_BATCH_FAILED)
            print_error(f, kn_batch_error(r), columns - width - 23);
        else
            fprintf(f, "%s\n", r->state == KN_BATCH_DONE ? kn_duration_text(r->seconds, took, sizeof took) : "");
    }
    fprintf(f, "%d done, %d finished before, %d failed, %d left; %s in all", count[KN_BATCH_DONE] + count[KN_BATCH_ELSEWHERE],
            count[KN_BATCH_SKIPPED], count[KN_BATCH_FAILED], count[KN_BATCH_WAITING] + count[KN_BATCH_STOPPED],
            kn_duration_text(b->total_sec, took, sizeof took));
    const int *loads = b->session.loads;
    fprintf(f, "; weights read: text encoder %dx, transformer %dx, VAE %dx (%s)\n", loads[KN_NETWORK_TEXT],
            loads[KN_NETWORK_DIT], loads[KN_NETWORK_VAE], kn_duration_text(b->session.load_sec, took, sizeof took));
}

/* ---- the command ------------------------------------------------------------------------------*/

static int exit_code(const kn_batch *b, kn_status st)
{
    if (st == KN_ERR_CANCELLED) return 130;
    if (st != KN_OK) return kn_cli_report(st);
    for (int i = 0; i < b->file.count; i++)
        if (b->result[i].state == KN_BATCH_FAILED) return 1;
    return 0;
}

static kn_status run(kn_batch *b, const kn_options *o, const char *path)
{
    KN_TRY(shard_of(o, b));
    KN_TRY(kn_batch_file_read(path, o, &b->file));
    if (o->dry_run) return kn_batch_estimate(b);
    kn_cli_catch_signals();
    return kn_batch_run(b);
}

/* What is wrong with the file or the flags before a job is looked at is a usage error; what is wrong with the
 * machine is not. */
static int report_early(kn_status st)
{
    int code = kn_cli_report(st);
    return st == KN_ERR_IO || st == KN_ERR_FORMAT || st == KN_ERR_MODEL ? 2 : code;
}

static int batch(kn_options *o, const char *path)
{
    kn_cli_listener l = {0};
    kn_batch b = {.folder = o->output_dir, .resume = o->resume, .overwrite = o->overwrite, .fn = kn_cli_on_event, .user = &l};
    kn_log_set_level(o->quiet ? KN_LOG_ERR : o->verbose ? KN_LOG_DEBUG : KN_LOG_INFO);
    kn_progress_open(&l.progress, (kn_progress_choice)o->progress, o->quiet, stderr, stdout);
    kn_status st = run(&b, o, path);
    kn_progress_break(&l.progress);
    int code = b.result ? exit_code(&b, st) : report_early(st);
    enum { UNCUT = 1 << 14 }; /* a file has no width */
    int columns = isatty(STDOUT_FILENO) ? kn_cli_columns() : UNCUT;
    FILE *f = o->progress == KN_PROGRESS_JSON ? stderr : stdout;
    if (b.result && o->dry_run && st == KN_OK) print_plan(&b, stdout, columns);
    if (b.result && !o->dry_run && !o->quiet) print_summary(&b, f, columns);
    if (code == 130) fprintf(stderr, "kinora: stopped; the same command with --resume goes on from here\n");
    kn_batch_close(&b);
    return code;
}

int kn_cli_batch(int argc, char **argv)
{
    kn_options o = {0};
    char *folder = NULL;
    if (argc < 1 || argv[0][0] == '-')
        return kn_cli_report(kn_fail(KN_ERR_ARG, "expected `kinora batch FILE.yaml [options]`"));
    kn_status st = kn_cli_options(&o, argc - 1, argv + 1);
    if (st == KN_OK && !o.output_dir) {
        st = default_folder(argv[0], &folder);
        if (st == KN_OK) st = kn_options_set(&o, "output-dir", folder, KN_FROM_COMMAND_LINE, "--output-dir");
    }
    int code = st == KN_OK ? batch(&o, argv[0]) : report_early(st);
    kn_free(folder);
    kn_options_free(&o);
    return code;
}
