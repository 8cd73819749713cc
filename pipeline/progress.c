#include "pipeline/progress.h"

#include "pipeline/columns.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "io/json.h"
#include "io/text.h"

double kn_now_sec(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double kn_due_again_sec(double start_sec)
{
    return start_sec + KN_BESIDE_SHARE * (kn_now_sec() - start_sec);
}

/* ---- emitting ---------------------------------------------------------------------------------*/

static int emit(kn_stage *s, kn_event_kind kind)
{
    s->event.kind = kind;
    s->event.elapsed_sec = kn_now_sec() - s->start_sec;
    int64_t made = s->event.done - s->first;
    s->event.step_sec = made > 0 ? s->event.elapsed_sec / (double)made : 0;
    s->event.eta_sec = made > 0 ? s->event.step_sec * (double)(s->event.total - s->event.done) : -1;
    return s->fn ? s->fn(s->user, &s->event) : 0;
}

void kn_stage_begin(kn_stage *s, kn_event_fn *fn, void *user, const char *name, const char *unit, int64_t done,
                    int64_t total)
{
    *s = (kn_stage){.fn = fn, .user = user, .start_sec = kn_now_sec(), .first = done};
    s->event = (kn_event){.stage = name, .unit = unit, .done = done, .total = total};
    emit(s, KN_EVENT_BEGIN);
}

kn_status kn_stage_step(kn_stage *s, int64_t done)
{
    s->event.done = done;
    if (emit(s, KN_EVENT_STEP))
        return kn_fail(KN_ERR_CANCELLED, "stopped at %s %lld of %lld", s->event.stage, (long long)done,
                       (long long)s->event.total);
    return KN_OK;
}

void kn_stage_end(kn_stage *s) { emit(s, KN_EVENT_END); }

/* ---- printing ---------------------------------------------------------------------------------*/

const char *kn_duration_text(double seconds, char *buf, size_t size)
{
    long long s = seconds < 0 ? 0 : (long long)(seconds + 0.5);
    if (seconds < 9.95)
        snprintf(buf, size, "%.1f s", seconds < 0 ? 0 : seconds);
    else if (s < 60)
        snprintf(buf, size, "%lld s", s);
    else if (s < 3600)
        snprintf(buf, size, "%lld min %02lld s", s / 60, s % 60);
    else
        snprintf(buf, size, "%lld h %02lld min", s / 3600, s % 3600 / 60);
    return buf;
}

void kn_progress_open(kn_progress *p, kn_progress_choice style, bool quiet, FILE *people, FILE *programs)
{
    if (style == KN_PROGRESS_AUTO) style = isatty(fileno(people)) ? KN_PROGRESS_BAR : KN_PROGRESS_LINES;
    if (quiet && style != KN_PROGRESS_JSON) style = KN_PROGRESS_NONE;
    *p = (kn_progress){.style = style, .file = style == KN_PROGRESS_JSON ? programs : people};
}

/* What stands behind the bar, the longest wording first. */
static const char *tail_text(const kn_event *e, int wording, char *buf, size_t size)
{
    char eta[32], each[32];
    long long done = e->done, total = e->total;
    kn_duration_text(e->eta_sec, eta, sizeof eta);
    if (e->step_sec < 1)
        snprintf(each, sizeof each, "%.0f ms", e->step_sec * 1e3);
    else
        kn_duration_text(e->step_sec, each, sizeof each);
    if (e->step_sec <= 0 && wording < 3) wording = 4; /* no times yet */
    switch (wording) {
    case 0: snprintf(buf, size, " %lld/%lld %s  %s each  %s left", done, total, e->unit, each, eta); break;
    case 1: snprintf(buf, size, " %lld/%lld  %s each  %s left", done, total, each, eta); break;
    case 2: snprintf(buf, size, " %lld/%lld  %s left", done, total, eta); break;
    case 4: snprintf(buf, size, " %lld/%lld %s", done, total, e->unit); break;
    default: snprintf(buf, size, " %lld/%lld", done, total); break;
    }
    return buf;
}

void kn_progress_bar_text(const kn_event *e, int columns, char *buf, size_t size)
{
    enum { BAR_MAX = 40, BAR_MIN = 8, WORDINGS = 4 };
    char tail[96], head[24];
    snprintf(head, sizeof head, strlen(e->stage) < 9 && columns >= 60 ? "%-9s" : "%s ", e->stage);
    for (int i = 0; i < WORDINGS; i++) {
        tail_text(e, i, tail, sizeof tail);
        int room = columns - 1 - (int)strlen(head) - (int)strlen(tail) - 2;
        if (room < BAR_MIN) continue;
        if (room > BAR_MAX) room = BAR_MAX;
        int full = e->total > 0 ? (int)((double)room * (double)e->done / (double)e->total) : 0;
        char bar[BAR_MAX + 1];
        for (int k = 0; k < room; k++) bar[k] = k < full ? '#' : '.';
        bar[room] = '\0';
        snprintf(buf, size, "%s[%s]%s", head, bar, tail);
        return;
    }
    /* too narrow for a bar: words only, cut to the line */
    snprintf(buf, size, "%.*s%s", (int)strlen(head) - 1, head, tail_text(e, 3, tail, sizeof tail));
    if (columns > 1 && (size_t)columns - 1 < size) buf[columns - 1] = '\0';
}

static void print_bar(kn_progress *p, const kn_event *e)
{
    double now = kn_now_sec();
    /* Twenty times a second is plenty; ends are always drawn. */
    if (e->kind == KN_EVENT_STEP && e->done < e->total && now - p->last_sec < 0.05) return;
    p->last_sec = now;
    char text[256];
    kn_progress_bar_text(e, kn_columns_of(p->file), text, sizeof text);
    fprintf(p->file, "\r\033[K%s", text);
    p->line_open = true;
    if (e->kind == KN_EVENT_END) kn_progress_break(p);
    fflush(p->file);
}

static void print_line(kn_progress *p, const kn_event *e)
{
    char a[32], b[32];
    double now = kn_now_sec();
    if (e->kind == KN_EVENT_BEGIN) p->last_sec = now;
    if (e->kind == KN_EVENT_END)
        fprintf(p->file, "%s: %lld %.*s in %s\n", e->stage, (long long)e->total,
                (int)strlen(e->unit) - (e->total == 1), e->unit, /* 1 step */
                kn_duration_text(e->elapsed_sec, a, sizeof a));
    /* A log file wants a sign of life, not one line per step. */
    if (e->kind == KN_EVENT_STEP && e->done < e->total && now - p->last_sec >= 10) {
        p->last_sec = now;
        fprintf(p->file, "%s: %lld/%lld %s, %s each, %s left\n", e->stage, (long long)e->done, (long long)e->total,
                e->unit, kn_duration_text(e->step_sec, a, sizeof a), kn_duration_text(e->eta_sec, b, sizeof b));
    }
    fflush(p->file);
}

static void print_json(kn_progress *p, const kn_event *e)
{
    static const char *const kinds[] = {"begin", "step", "end", "note", "done"};
    json_t *o = json_object();
    json_object_set_new(o, "event", json_string(kinds[e->kind]));
    if (e->stage) {
        json_object_set_new(o, "stage", json_string(e->stage));
        json_object_set_new(o, "unit", json_string(e->unit));
        json_object_set_new(o, "done", json_integer(e->done));
        json_object_set_new(o, "total", json_integer(e->total));
        json_object_set_new(o, "elapsed_sec", json_real(e->elapsed_sec));
        if (e->step_sec > 0) json_object_set_new(o, "step_sec", json_real(e->step_sec));
        if (e->eta_sec >= 0) json_object_set_new(o, "eta_sec", json_real(e->eta_sec));
    }
    if (e->text) json_object_set_new(o, e->kind == KN_EVENT_DONE ? "output" : "text", kn_json_text(e->text));
    char *line = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6));
    if (line) fprintf(p->file, "%s\n", line);
    fflush(p->file);
    free(line);
    json_decref(o);
}

int kn_progress_event(void *user, const kn_event *e)
{
    kn_progress *p = user;
    if (p->style == KN_PROGRESS_NONE) return 0;
    if (e->kind == KN_EVENT_PREVIEW) {
        kn_progress_picture(p, e->picture);
        return 0;
    }
    if (p->style == KN_PROGRESS_JSON) {
        print_json(p, e);
    } else if (e->kind == KN_EVENT_NOTE || e->kind == KN_EVENT_DONE) {
        kn_progress_break(p);
        int at = e->kind == KN_EVENT_DONE ? fprintf(p->file, "wrote ") : 0;
        char text[4608]; /* a path and some words */
        snprintf(text, sizeof text, "%s", e->text);
        kn_text_make_plain(text); /* names come from files too */
        if (p->style == KN_PROGRESS_BAR)
            kn_print_wrapped(p->file, text, at, 2, kn_columns_of(p->file));
        else
            fprintf(p->file, "%s\n", text);
        fflush(p->file);
    } else if (p->style == KN_PROGRESS_BAR) {
        print_bar(p, e);
    } else {
        print_line(p, e);
    }
    return 0;
}

void kn_progress_break(kn_progress *p)
{
    if (p->line_open) fputc('\n', p->file);
    p->line_open = false;
    p->image_rows = 0; /* what follows pushes it up */
}
