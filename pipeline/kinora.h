/* kinora.h - Kinora in other programs: libkinora.
 *
 * Purpose   Renders video from text inside a host program. Settings are the options of the command line, by
 *           the same names and with the same values as text (docs/options.md). A renderer keeps the networks
 *           that it has loaded: the next render of the same model starts at once.
 * Use       kinora_settings *s; kinora_renderer *r;
 *           kinora_settings_open(&s); kinora_set(s, "model", "demo/model"); kinora_set(s, "prompt", "...");
 *           kinora_renderer_open(&r); kinora_render(r, s, &callbacks);
 *           kinora_renderer_close(&r); kinora_settings_close(&s);
 * Errors    Functions return 0 or one of KINORA_*, and kinora_error() says what went wrong: the object, what
 *           was expected, what was found. Nothing is left under a final name unless it is whole. The library
 *           never ends the process, prints nothing, and installs no signal handlers.
 * Threads   Renderers and settings belong to one thread at a time. Different ones share nothing: any number
 *           may run at once in one process. kinora_error() is of the calling thread.
 * Stability Semantic versioning; before 1.0 a minor version may change this header.
 */
#ifndef KINORA_H
#define KINORA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif


/* The same numbers as the program's exit codes. */
enum {
    KINORA_OK = 0,
    KINORA_USAGE = 2,       /* an option that does not exist, or a value out of range */
    KINORA_FILE = 3,        /* a file, folder or model that does not fit */
    KINORA_MEMORY = 4,      /* memory or device */
    KINORA_UNSUPPORTED = 5, /* not by this build or device */
    KINORA_NUMERIC = 6,     /* NaN in the computation */
    KINORA_BUG = 70,
    KINORA_CANCELLED = 130  /* a callback asked to stop */
};

typedef struct kinora_settings kinora_settings;
typedef struct kinora_renderer kinora_renderer;

/* "0.1.0" */
const char *kinora_version(void);
/* Message of the last failure in this thread; valid until the next call. */
const char *kinora_error(void);

/* All defaults. *out is NULL on failure. */
int kinora_settings_open(kinora_settings **out);
/* One option, as on the command line without the dashes: kinora_set(s, "size", "832x480"). "preset" and
 * "config" apply theirs below what is set here, in any order of calls. value: UTF-8; copied. */
int kinora_set(kinora_settings *s, const char *option, const char *value);
/* The value now, in the form that kinora_set takes; after a render: what was used, the seed included. NULL:
 * unknown option or not set. Valid until the next call for the same settings. */
const char *kinora_get(kinora_settings *s, const char *option);
/* NULL-safe; sets *s to NULL. */
void kinora_settings_close(kinora_settings **s);

/* Any may be NULL. They are called in the thread that renders. */
typedef struct kinora_callbacks {
    /* A finished frame, in time order: [height][width][3], R G B in [0,1], non-linear. Valid during the call.
     * Not 0: stop. */
    int (*frame)(void *user, const float *rgb, int width_px, int height_px, int64_t index);
    /* After each step. eta_sec of this stage, < 0 when not known. Not 0: stop at the next step; what was
     * done is in a checkpoint if the settings name an output. */
    int (*progress)(void *user, const char *stage, int64_t done, int64_t total, double eta_sec);
    void (*message)(void *user, const char *text);
    void *user;
} kinora_callbacks;

/* Opens nothing yet: the device and networks are opened by the first render that needs them. */
int kinora_renderer_open(kinora_renderer **out);
/* Render. Outputs as the settings say; with a frame callback none is needed. */
int kinora_render(kinora_renderer *r, kinora_settings *s, const kinora_callbacks *callbacks);
/* NULL-safe; sets *r to NULL. */
void kinora_renderer_close(kinora_renderer **r);

#ifdef __cplusplus
}
#endif

#endif
