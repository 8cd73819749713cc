/* kinora batch: arguments, tables, exit code. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/log.h"
#include "io/memory.h"
#include "io/text.h"
#include "pipeline/batch.h"
#include "pipeline/cli_common.h"
#include "pipeline/columns.h"

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

/* A name in so many columns, filled up with blanks where more follows on its line; what is too long keeps its
 * end, which tells jobs of one prompt apart. */
static void print_name(FILE *f, const char *name, int width, bool fill)
{
    int n = (int)strlen(name);
    if (n > width)
        fprintf(f, "..%s", name + n - width + 2);
    else
        fprintf(f, "%-*s", fill ? width : 0, name);
}

enum { INDEX_COLUMNS = 6, NARROW = 60 }; /* below NARROW each job has a line of its own, its numbers another */

/* Behind the first `at` columns if there is room, else below them. */
static void print_error(FILE *f, const char *text, int at, int columns)
{
    if (at + (int)strlen(text) > columns) fprintf(f, "\n%*s", at = INDEX_COLUMNS, "");
    kn_print_wrapped(f, text, at, INDEX_COLUMNS, columns);
}

static void print_plan_row(const kn_batch *b, int i, FILE *f, int width, int columns)
{
    const kn_batch_result *r = &b->result[i];
    char size[24], estimate[48], text[160];
    int index = b->file.entry[i].index;
    fprintf(f, "%4d  ", index);
    print_name(f, b->file.entry[i].name, width, columns >= NARROW);
    if (r->state == KN_BATCH_FAILED) {
        if (columns >= NARROW) fputs("  ", f);
        print_error(f, kn_batch_error(r), INDEX_COLUMNS + width + 2, columns);
        return;
    }
    if (r->state == KN_BATCH_SKIPPED)
        snprintf(estimate, sizeof estimate, "finished");
    else if (r->estimate_sec < 0) /* the device is not here to be timed */
        snprintf(estimate, sizeof estimate, "%.3g PFLOP", r->operations / 1e15);
    else
        kn_duration_text(r->estimate_sec, estimate, sizeof estimate);
    snprintf(size, sizeof size, "%lldx%lld", (long long)r->width_px, (long long)r->height_px);
    if (columns >= NARROW) {
        fprintf(f, "  %-11s %6lld %9lld %9.3f  %s\n", size, (long long)r->frames, (long long)r->tokens, (double)r->peak_bytes / GIB,
                estimate);
        return;
    }
    snprintf(text, sizeof text, "%s, %lld frames, %lld tokens, %.3f GiB, %s", size, (long long)r->frames, (long long)r->tokens,
             (double)r->peak_bytes / GIB, estimate);
    fprintf(f, "\n%*s", INDEX_COLUMNS, "");
    kn_print_wrapped(f, text, INDEX_COLUMNS, INDEX_COLUMNS, columns);
}

static void print_plan(const kn_batch *b, FILE *f, int columns)
{
    bool narrow = columns < NARROW;
    int width = name_columns(b, narrow ? columns - INDEX_COLUMNS : columns - 58), jobs = 0;
    double total = 0, operations = 0;
    char took[48], text[512];
    if (!narrow) fprintf(f, "%4s  %-*s  %-11s %6s %9s %9s  %s\n", "#", width, "name", "size", "frames", "tokens", "GiB", "estimate");
    for (int i = 0; i < b->file.count; i++) {
        const kn_batch_result *r = &b->result[i];
        if (r->state == KN_BATCH_OTHERS) continue;
        print_plan_row(b, i, f, width, columns);
        if (r->state == KN_BATCH_WAITING) total += r->estimate_sec, operations += r->operations, jobs++;
    }
    int n = snprintf(text, sizeof text, "%d jobs to do", jobs);
    if (jobs && total < 0)
        snprintf(text + n, sizeof text - (size_t)n, ", %.3g PFLOP; no GPU is open here to be timed", operations / 1e15);
    else if (jobs && b->session.dev)
        snprintf(text + n, sizeof text - (size_t)n, ", about %s on %s", kn_duration_text(total, took, sizeof took),
                 kn_dev_describe(b->session.dev));
    kn_print_wrapped(f, text, 0, 0, columns);
}

static void print_summary(const kn_batch *b, FILE *f, int columns)
{
    bool narrow = columns < NARROW;
    int width = name_columns(b, narrow ? columns - INDEX_COLUMNS : columns - 30), count[KN_BATCH_OTHERS + 1] = {0};
    char took[32], text[512];
    fputc('\n', f);
    for (int i = 0; i < b->file.count; i++) {
        const kn_batch_result *r = &b->result[i];
        const char *state = kn_batch_state_name(r->state);
        count[r->state]++;
        if (r->state == KN_BATCH_OTHERS) continue;
        fprintf(f, "%4d  ", b->file.entry[i].index);
        print_name(f, b->file.entry[i].name, width, !narrow);
        int at = INDEX_COLUMNS + width;
        if (narrow)
            at = fprintf(f, "\n%*s%s  ", INDEX_COLUMNS, "", state) - 1;
        else
            at += fprintf(f, "  %-14s", state);
        if (r->state == KN_BATCH_FAILED)
            print_error(f, kn_batch_error(r), at, columns);
        else
            fprintf(f, "%s\n", r->state == KN_BATCH_DONE ? kn_duration_text(r->seconds, took, sizeof took) : "");
    }
    const int *loads = b->session.loads;
    int n = snprintf(text, sizeof text, "%d done, %d finished before, %d failed, %d left; %s in all",
                     count[KN_BATCH_DONE] + count[KN_BATCH_ELSEWHERE], count[KN_BATCH_SKIPPED], count[KN_BATCH_FAILED],
                     count[KN_BATCH_WAITING] + count[KN_BATCH_STOPPED], kn_duration_text(b->total_sec, took, sizeof took));
    snprintf(text + n, sizeof text - (size_t)n, "; weights read: text encoder %dx, transformer %dx, VAE %dx (%s)", loads[KN_NETWORK_TEXT],
             loads[KN_NETWORK_DIT], loads[KN_NETWORK_VAE], kn_duration_text(b->session.load_sec, took, sizeof took));
    kn_print_wrapped(f, text, 0, 0, columns);
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
    kn_cli_progress(&l, o);
    kn_status st = run(&b, o, path);
    kn_progress_break(&l.progress);
    int code = b.result ? exit_code(&b, st) : report_early(st);
    int columns = kn_columns_of(stdout);
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
