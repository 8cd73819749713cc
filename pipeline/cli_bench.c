/* kinora bench: one render, timed in its parts. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/log.h"
#include "io/memory.h"
#include "pipeline/cli_common.h"
#include "pipeline/render.h"

static const double GIB = 1024.0 * 1024.0 * 1024.0;

/* A folder for the clip that nobody asked to keep. */
static kn_status make_folder(char *folder, size_t size)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, size, "%s/kinora-bench-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (mkdtemp(folder)) return KN_OK;
    int e = errno;
    kn_status st = kn_fail(KN_ERR_IO, "%s: making a folder for the clip: %s", folder, strerror(e));
    *folder = 0;
    return st;
}

static void remove_folder(const char *folder)
{
    static const char *const names[] = {"clip.mp4", "clip.mp4.json", "clip.mp4.checkpoint.safetensors"};
    char path[4200];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void print_table(const kn_render_cost *cost, double total)
{
    const double *sec = cost->part_sec;
    double rest = total;
    printf("%-10s %10s %7s\n", "part", "seconds", "share");
    for (int i = 0; i < KN_PARTS; i++) {
        printf("%-10s %10.3f %6.1f%%\n", kn_part_name((kn_part)i), sec[i], 100 * sec[i] / total);
        rest -= sec[i];
    }
    printf("%-10s %10.3f %6.1f%%\n%-10s %10.3f\n", "other", rest, 100 * rest / total, "total", total);
    printf("%-10s %10s %10s   %s\n", "phase", "planned", "taken", "GiB of device memory (and of host memory beside it)");
    for (int i = 0; i < cost->phases; i++) {
        const kn_phase_memory *m = &cost->phase[i];
        printf("%-10s %10.3f %10.3f", m->name, (double)m->planned_bytes / GIB, (double)m->peak_bytes / GIB);
        if (m->peak_host_bytes) printf("   (%.3f)", (double)m->peak_host_bytes / GIB);
        putchar('\n');
    }
}

static void print_json(const kn_options *o, const kn_render_cost *cost, double total)
{
    json_t *parts = json_object();
    for (int i = 0; i < KN_PARTS; i++) json_object_set_new(parts, kn_part_name((kn_part)i), json_real(cost->part_sec[i]));
    json_t *phases = json_array();
    for (int i = 0; i < cost->phases; i++) {
        const kn_phase_memory *m = &cost->phase[i];
        json_array_append_new(phases, json_pack("{s:s, s:I, s:I, s:I}", "phase", m->name, "planned_bytes",
                                                (json_int_t)m->planned_bytes, "peak_bytes", (json_int_t)m->peak_bytes,
                                                "peak_host_bytes", (json_int_t)m->peak_host_bytes));
    }
    json_t *all = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:o}", "event", "bench", "version", KN_VERSION, "width_px",
                            (json_int_t)o->width_px, "height_px", (json_int_t)o->height_px, "frames", (json_int_t)o->frames,
                            "planned_bytes", (json_int_t)cost->planned_bytes, "peak_bytes", (json_int_t)cost->peak_bytes,
                            "total_sec", total, "seconds", parts, "memory", phases);
    if (all) json_dumpf(all, stdout, JSON_COMPACT), fputc('\n', stdout);
    json_decref(all);
}

/* That a clip was written is no news when it goes away at once. */
static int on_event_unkept(void *user, const kn_event *event)
{
    return event->kind == KN_EVENT_DONE ? 0 : kn_cli_on_event(user, event);
}

int kn_cli_bench(int argc, char **argv)
{
    kn_options o = {0};
    kn_cli_listener l = {0};
    char folder[4100] = "", path[4200];
    kn_render_cost cost = {0};
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_cli_options(&o, argc, argv));
    kn_log_set_level(o.quiet ? KN_LOG_ERR : o.verbose ? KN_LOG_DEBUG : KN_LOG_INFO);
    kn_cli_progress(&l, &o);
    kn_cli_catch_signals();
    if (!o.output && !o.frames_dir && !o.latents_out) {
        KN_TRY_GOTO(make_folder(folder, sizeof folder));
        snprintf(path, sizeof path, "%s/clip.mp4", folder);
        KN_TRY_GOTO(kn_options_set(&o, "output", path, KN_FROM_COMMAND_LINE, "bench"));
    }
    double start = kn_now_sec();
    st = kn_render_timed(&o, *folder ? on_event_unkept : kn_cli_on_event, &l, &cost);
    kn_progress_break(&l.progress);
    if (st != KN_OK || o.dry_run) goto done; /* a plan has no seconds to show */
    if (o.progress == KN_PROGRESS_JSON)
        print_json(&o, &cost, kn_now_sec() - start);
    else
        print_table(&cost, kn_now_sec() - start);
done:
    if (*folder) remove_folder(folder);
    int code = kn_cli_report(st);
    kn_options_free(&o);
    return code;
}
