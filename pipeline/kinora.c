#include "pipeline/kinora.h"

#include <string.h>

#include "io/memory.h"
#include "pipeline/made_with.h"
#include "pipeline/preset.h"
#include "pipeline/render_job.h"

struct kinora_settings {
    kn_options o;
    char text[KN_OPTION_TEXT];
};

struct kinora_renderer {
    kn_session session;
};

static int code_of(kn_status st)
{
    switch (st) {
    case KN_OK: return KINORA_OK;
    case KN_ERR_ARG: return KINORA_USAGE;
    case KN_ERR_IO:
    case KN_ERR_FORMAT:
    case KN_ERR_MODEL: return KINORA_FILE;
    case KN_ERR_NOMEM:
    case KN_ERR_DEVICE: return KINORA_MEMORY;
    case KN_ERR_UNSUPPORTED: return KINORA_UNSUPPORTED;
    case KN_ERR_NUMERIC: return KINORA_NUMERIC;
    case KN_ERR_CANCELLED: return KINORA_CANCELLED;
    case KN_ERR_INTERNAL: break;
    }
    return KINORA_BUG;
}

const char *kinora_version(void) { return KN_VERSION; }
const char *kinora_error(void) { return kn_error_text(); }

/* ---- settings ---------------------------------------------------------------------------------*/

int kinora_settings_open(kinora_settings **out)
{
    kinora_settings *s;
    *out = NULL;
    kn_status st = kn_alloc_zero(sizeof *s, (void **)&s);
    if (st != KN_OK) return code_of(st);
    st = kn_options_init(&s->o);
    if (st == KN_OK)
        *out = s;
    else
        kn_free(s);
    return code_of(st);
}

int kinora_set(kinora_settings *s, const char *option, const char *value)
{
    kn_status st = kn_options_set(&s->o, option, value, KN_FROM_COMMAND_LINE, option);
    /* lower layers: they leave alone what is set already, and are overwritten by what is set later */
    if (st == KN_OK && !strcmp(option, "preset")) st = kn_preset_apply(value, &s->o, NULL);
    if (st == KN_OK && !strcmp(option, "config")) st = kn_config_apply(value, &s->o);
    if (st == KN_OK && !strcmp(option, "from")) st = kn_made_with_apply(value, &s->o);
    return code_of(st);
}

const char *kinora_get(kinora_settings *s, const char *option)
{
    const kn_option *opt = kn_option_find(option);
    if (!opt || !*kn_options_text(&s->o, opt, s->text)) return NULL;
    return s->text;
}

void kinora_settings_close(kinora_settings **s)
{
    if (!s || !*s) return;
    kn_options_free(&(*s)->o);
    kn_free(*s);
    *s = NULL;
}

/* ---- rendering --------------------------------------------------------------------------------*/

int kinora_renderer_open(kinora_renderer **out)
{
    kn_status st = kn_alloc_zero(sizeof **out, (void **)out);
    if (st == KN_OK) (*out)->session.keep = true;
    return code_of(st);
}

void kinora_renderer_close(kinora_renderer **r)
{
    if (!r || !*r) return;
    kn_session_close(&(*r)->session);
    kn_free(*r);
    *r = NULL;
}

static int on_event(void *user, const kn_event *e)
{
    const kinora_callbacks *c = user;
    if (e->kind == KN_EVENT_NOTE) {
        if (c->message) c->message(c->user, e->text);
    } else if (e->kind == KN_EVENT_STEP && c->progress) {
        return c->progress(c->user, e->stage, e->done, e->total, e->eta_sec);
    }
    return 0;
}

static kn_status on_frame(void *user, const float *rgb, int width_px, int height_px, int64_t index)
{
    const kinora_callbacks *c = user;
    if (c->frame(c->user, rgb, width_px, height_px, index) == 0) return KN_OK;
    return kn_fail(KN_ERR_CANCELLED, "stopped at frame %lld by the host program", (long long)index);
}

int kinora_render(kinora_renderer *r, kinora_settings *s, const kinora_callbacks *callbacks)
{
    kinora_callbacks c = callbacks ? *callbacks : (kinora_callbacks){0};
    kn_job j = {.o = &s->o, .session = &r->session, .fn = on_event, .user = &c};
    if (c.frame) {
        j.frame = on_frame;
        j.frame_user = &c;
    }
    kn_status st = kn_job_prepare(&j);
    if (st == KN_OK) st = kn_job_begin(&j);
    if (st == KN_OK && !s->o.dry_run) st = kn_job_run(&j);
    kn_job_close(&j);
    return code_of(st);
}
