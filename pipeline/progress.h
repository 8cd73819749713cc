/* pipeline/progress.h - what a running job tells its caller, and printing it for people and programs.
 *
 * Purpose   The renderer emits kn_event records through one callback. kn_progress is a receiver that
 *           prints them: a bar on a terminal, plain lines elsewhere, or one JSON object per line.
 * Units     seconds.
 * Threads   Events of one job come from one thread, in order.
 */
#ifndef KN_PIPELINE_PROGRESS_H
#define KN_PIPELINE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "io/terminal_image.h"
#include "pipeline/options.h"

typedef enum kn_event_kind {
    KN_EVENT_BEGIN,
    KN_EVENT_STEP,
    KN_EVENT_END,
    KN_EVENT_NOTE,
    KN_EVENT_DONE,
    KN_EVENT_PREVIEW /* only with --preview-terminal */
} kn_event_kind;

typedef struct kn_event {
    kn_event_kind kind;
    const char *stage;  /* "text", "denoise", "decode", ... */
    const char *unit;   /* what is counted: "steps", "frames" */
    int64_t done, total; /* BEGIN: done = where a resumed stage starts */
    double elapsed_sec; /* in this stage */
    double step_sec;    /* mean time per unit so far; 0 = not known yet */
    double eta_sec;     /* of this stage; < 0 = not known yet */
    const char *text;   /* NOTE: a finished sentence; DONE: path of the result */
    const kn_picture *picture; /* PREVIEW; the listener's until it returns */
} kn_event;

/* Non-zero return: stop at the next step boundary (KN_ERR_CANCELLED). */
typedef int kn_event_fn(void *user, const kn_event *event);

/* ---- emitting: keeps the clock of one stage --------------------------------------------------- */
typedef struct kn_stage {
    kn_event_fn *fn; /* may be NULL: nobody listens */
    void *user;
    kn_event event;
    double start_sec;
    int64_t first; /* `done` at the beginning */
} kn_stage;

void kn_stage_begin(kn_stage *s, kn_event_fn *fn, void *user, const char *name, const char *unit, int64_t done,
                    int64_t total);
/* done: units finished in all. KN_ERR_CANCELLED when the listener asks to stop. */
KN_CHECKED kn_status kn_stage_step(kn_stage *s, int64_t done);
void kn_stage_end(kn_stage *s);

/* Seconds of a clock that never goes back. */
double kn_now_sec(void);
/* When work beside the steps (previews, checkpoints) that began at start_sec and ends now is due again, so that it takes one
 * part in KN_BESIDE_SHARE of the time. */
enum { KN_BESIDE_SHARE = 20 };
double kn_due_again_sec(double start_sec);

/* ---- printing ---------------------------------------------------------------------------------*/
typedef struct kn_progress {
    kn_progress_choice style; /* never KN_PROGRESS_AUTO once opened */
    FILE *file;
    bool line_open; /* a bar stands on the current line */
    double last_sec;
    kn_terminal_images images; /* how previews are drawn; opened as NONE: they are not */
    int image_rows;            /* of the one that stands above the bar; 0: none */
    unsigned image_number;
} kn_progress;

/* style AUTO: a bar if `people` is a terminal, lines otherwise. JSON goes to `programs`. */
void kn_progress_open(kn_progress *p, kn_progress_choice style, bool quiet, FILE *people, FILE *programs);
/* A kn_event_fn; user: the kn_progress. Always returns 0. */
int kn_progress_event(void *user, const kn_event *event);
/* What `wanted` comes to on this terminal: NONE where progress is no bar on one. AUTO looks at TERM, TERM_PROGRAM
 * and KITTY_WINDOW_ID, then asks the terminal, waiting at most 0.3 s. */
kn_terminal_images kn_progress_find_images(const kn_progress *p, kn_preview_terminal wanted);
/* Draw or redraw a preview above the bar, by p->images. */
void kn_progress_picture(kn_progress *p, const kn_picture *picture);
/* The parts of the search that need no terminal. inside: of tmux or screen. */
kn_terminal_images kn_terminal_images_by_name(const char *term, const char *program, const char *kitty_window, bool inside);
bool kn_terminal_answer_has_sixel(const char *answer);
/* Finish an open bar so that other text can be printed. */
void kn_progress_break(kn_progress *p);

/* The bar as it would stand on a terminal of that many columns; for tests. */
void kn_progress_bar_text(const kn_event *e, int columns, char *buf, size_t size);
/* "7 s", "3 min 20 s", "2 h 05 min". */
const char *kn_duration_text(double seconds, char *buf, size_t size);

#endif
