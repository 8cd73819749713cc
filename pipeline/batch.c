#include "pipeline/batch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/folder.h"
#include "io/json.h"
#include "io/memory.h"
#include "io/path.h"
#include "io/safetensors.h"
#include "io/sha256.h"
#include "io/video.h"
#include "pipeline/memory_plan.h"
#include "pipeline/work.h"

const char *kn_batch_state_name(kn_batch_state s)
{
    static const char *const names[] = {"waiting", "done", "skipped", "done elsewhere", "failed", "stopped", "other shard"};
    return names[s];
}

const char *kn_batch_error(const kn_batch_result *r)
{
    return r->error ? r->error : "out of memory";
}

/* One entry while it is worked on. */
typedef struct task {
    kn_batch *b;
    kn_batch_entry *e;
    kn_batch_result *r;
    kn_options o; /* of this attempt: rendering resolves options in place */
    kn_job job;
    char request[17];
    int64_t asked_seed;
} task;

static void note(const kn_batch *b, const char *text)
{
    kn_event e = {.kind = KN_EVENT_NOTE, .text = text};
    if (b->fn) b->fn(b->user, &e);
}

/* ---- one job: checks --------------------------------------------------------------------------*/

static void close_task(task *t)
{
    kn_job_close(&t->job);
    kn_options_free(&t->o);
}

static kn_status fingerprint(task *t, int64_t seed, char out[17])
{
    kn_job_identity id;
    int64_t kept = t->o.seed;
    t->o.seed = seed;
    kn_status st = kn_job_identity_build(&t->o, (const char *const *)t->job.folder.files, t->job.folder.files_count,
                                         t->job.clip.sha256, &id);
    t->o.seed = kept;
    if (st == KN_OK) memcpy(out, id.fingerprint, sizeof id.fingerprint);
    if (st == KN_OK) kn_job_identity_free(&id);
    return st;
}

/* Closed with close_task, also after a failure. */
static kn_status open_task(kn_batch *b, int index, task *t)
{
    *t = (task){.b = b, .e = &b->file.entry[index], .r = &b->result[index]};
    if (t->e->status != KN_OK) return kn_fail(t->e->status, "%s", t->e->error);
    KN_TRY(kn_options_copy(&t->e->o, &t->o));
    t->job = (kn_job){.o = &t->o, .session = &b->session, .fn = b->fn, .user = b->user, .makes_folders = true};
    t->o.overwrite = true; /* what stands there is judged here */
    t->o.resume = t->o.dry_run = false;
    t->asked_seed = t->o.seed;
    KN_TRY(kn_job_prepare(&t->job));
    return fingerprint(t, t->asked_seed, t->request);
}

/* The fingerprint and seed that a video says it was made with; *found false: none of ours. */
static kn_status video_made_by(const char *path, char job[17], int64_t *seed, bool *found)
{
    enum { VALUES_MAX = 4096 };
    char *text = NULL;
    json_t *o = NULL;
    *found = false;
    kn_status st = kn_video_metadata_read(path, "comment", &text);
    if (st == KN_OK && text) st = kn_json_parse(path, text, strlen(text), VALUES_MAX, &o);
    if (o) {
        const char *name = json_string_value(json_object_get(o, "job"));
        const json_t *drawn = json_object_get(json_object_get(o, "options"), "seed");
        *found = name && json_is_integer(drawn);
        if (*found) snprintf(job, 17, "%s", name), *seed = json_integer_value(drawn);
        json_decref(o);
    }
    kn_free(text);
    if (st == KN_ERR_NOMEM) return st;
    kn_error_clear(); /* not a video, or somebody else's */
    return KN_OK;
}

/* The same of latents. */
static kn_status latents_made_by(const char *path, char job[17], int64_t *seed, bool *found)
{
    kn_safetensors *file = NULL;
    kn_status st = kn_safetensors_open(path, NULL, &file);
    *found = false;
    if (st == KN_OK) {
        const char *name = kn_safetensors_metadata(file, "job"), *drawn = kn_safetensors_metadata(file, "seed");
        *found = name && drawn;
        if (*found) snprintf(job, 17, "%s", name), *seed = strtoll(drawn, NULL, 10);
    }
    kn_safetensors_close(&file);
    if (st == KN_ERR_NOMEM) return st;
    kn_error_clear();
    return KN_OK;
}

/* A whole output of this job that is not in results.jsonl: its process was killed just before. */
static kn_status is_own_output(task *t, bool *own)
{
    char theirs[17], ours[17];
    int64_t seed = 0;
    const char *path = kn_batch_path(&t->o);
    KN_TRY((t->o.output ? video_made_by : latents_made_by)(path, theirs, &seed, own));
    if (!*own) return KN_OK;
    KN_TRY(fingerprint(t, t->asked_seed < 0 ? seed : t->asked_seed, ours));
    *own = !strcmp(ours, theirs);
    return KN_OK;
}

/* Decides whether there is anything to do. *finished: no. */
static kn_status judge_output(task *t, bool *finished)
{
    const kn_batch *b = t->b;
    bool own, there;
    *finished = false;
    KN_TRY(kn_path_exists(kn_batch_path(&t->o), &there));
    if (!there || b->overwrite) return KN_OK;
    if (!b->resume)
        return kn_fail(KN_ERR_ARG, "%s: exists; --resume skips finished work, --overwrite (-y) makes it again", kn_batch_path(&t->o));
    *finished = kn_ledger_finished(&b->ledger, kn_batch_path(&t->o), t->request);
    if (*finished) return KN_OK;
    KN_TRY(is_own_output(t, &own));
    if (own) return KN_OK; /* made again: frames, sheet or sidecar may be missing */
    return kn_fail(KN_ERR_ARG, "%s: exists, but is not the result of this job's settings; --overwrite (-y) replaces it", kn_batch_path(&t->o));
}

/* A file that the job reads is not there yet: an earlier job makes it, and only then can the output be judged. */
static bool wants_more(const kn_options *o)
{
    const char *const given[] = {o->noise_in, o->latents_in, o->embeds_in};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (given[i] && access(given[i], F_OK) != 0) return true;
    return false;
}

/* A checkpoint of the same job is gone on from; one of another job is no use any more. */
static kn_status use_checkpoint(task *t)
{
    char *path, ours[17];
    kn_checkpoint_place at;
    KN_TRY(kn_checkpoint_path(kn_batch_path(&t->o), &path));
    kn_status st = kn_checkpoint_peek(path, &at);
    if (st == KN_ERR_FORMAT) {
        kn_error_clear();
        at.exists = true, at.job[0] = '\0';
        st = KN_OK;
    }
    if (st == KN_OK && at.exists) {
        st = fingerprint(t, t->asked_seed < 0 ? at.seed : t->asked_seed, ours);
        t->o.resume = st == KN_OK && t->b->resume && !strcmp(ours, at.job);
        if (st == KN_OK && !t->o.resume) unlink(path);
    }
    kn_free(path);
    return st;
}

/* ---- one job: results -------------------------------------------------------------------------*/

static kn_status record(task *t, kn_status result)
{
    char when[32], hash[KN_SHA256_TEXT];
    time_t now = time(NULL);
    struct tm utc;
    struct stat s;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    json_t *o = json_pack("{s:s, s:i, s:s, s:s}", "name", t->e->name, "index", t->e->index, "status",
                          result == KN_OK ? "done" : "failed", "kinora", KN_VERSION);
    int lost = !o; /* values that found no memory */
    if (kn_batch_path(&t->e->o)) lost |= json_object_set_new(o, "output", json_string(kn_batch_path(&t->e->o)));
    if (*t->request) lost |= json_object_set_new(o, "request", json_string(t->request));
    lost |= json_object_set_new(o, "finished", json_string(when));
    kn_status st = KN_OK;
    if (result != KN_OK) {
        lost |= json_object_set_new(o, "error", kn_json_text(kn_batch_error(t->r)));
        lost |= json_object_set_new(o, "kind", json_string(kn_status_name(result)));
    } else {
        const kn_job *j = &t->job;
        double work = 0;
        st = kn_sha256_file(kn_batch_path(&t->o), hash);
        if (st == KN_OK && stat(kn_batch_path(&t->o), &s) != 0) st = kn_fail(KN_ERR_IO, "%s: %s", kn_batch_path(&t->o), strerror(errno));
        if (st == KN_OK) st = kn_work_of(j, &work);
        if (st == KN_OK) {
            json_t *more = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:s, s:{s:f, s:f, s:f, s:f}}", "job", j->id.fingerprint,
                                     "sha256", hash, "bytes", (json_int_t)s.st_size, "seed", (json_int_t)t->o.seed, "tokens",
                                     (json_int_t)j->geo.tokens, "work_tflop", work * 1e-12, "device",
                                     kn_dev_describe(j->session->dev), "seconds", "text", j->sec[0], "denoise", j->sec[1],
                                     "decode", j->sec[2], "total", t->r->seconds);
            lost |= json_object_set_new(more, "resumed", json_boolean(j->resumed));
            lost |= json_object_update(o, more);
            json_decref(more);
        }
    }
    if (st == KN_OK && lost) st = kn_fail(KN_ERR_NOMEM, "out of memory: a line of results");
    if (st == KN_OK) st = kn_ledger_append(&t->b->ledger, o);
    json_decref(o);
    return st;
}

static kn_status fail_task(task *t, kn_status why)
{
    char text[1024];
    t->r->state = KN_BATCH_FAILED;
    t->r->status = why;
    kn_free(t->r->error);
    t->r->error = NULL;
    KN_TRY(kn_strdup(kn_error_text(), &t->r->error));
    kn_error_clear();
    snprintf(text, sizeof text, "%s: %s", t->e->name, t->r->error);
    note(t->b, text);
    return record(t, why);
}

/* Another process has worked on it since this run began. */
static bool settled_elsewhere(task *t, size_t since)
{
    const json_t *line = kn_ledger_find(&t->b->ledger, kn_batch_path(&t->o), since);
    const char *status = json_string_value(json_object_get(line, "status")), *text;
    const char *request = json_string_value(json_object_get(line, "request"));
    if (!status || !request || strcmp(request, t->request)) return false;
    if (!strcmp(status, "done")) {
        if (!kn_ledger_finished(&t->b->ledger, kn_batch_path(&t->o), t->request)) return false;
        t->r->state = KN_BATCH_ELSEWHERE;
        return true;
    }
    text = json_string_value(json_object_get(line, "error"));
    t->r->state = KN_BATCH_FAILED;
    t->r->status = KN_ERR_IO;
    return kn_strdup(text ? text : "failed in another process", &t->r->error) == KN_OK;
}

/* ---- phases -----------------------------------------------------------------------------------*/

static bool is_mine(const kn_batch *b, int i) { return i % b->shards == b->shard; }

/* Every job is opened once before the first is rendered: mistakes show at once, finished work is left out. */
static kn_status check_all(kn_batch *b)
{
    for (int i = 0; i < b->file.count; i++) {
        task t;
        bool finished = false;
        if (!is_mine(b, i)) {
            b->result[i].state = KN_BATCH_OTHERS;
            continue;
        }
        kn_status st = open_task(b, i, &t);
        if (st == KN_OK && !wants_more(&t.o)) st = judge_output(&t, &finished);
        if (finished) b->result[i].state = KN_BATCH_SKIPPED;
        if (st != KN_OK) st = st == KN_ERR_NOMEM ? st : fail_task(&t, st);
        close_task(&t);
        KN_TRY(st);
    }
    return KN_OK;
}

static bool same_model(const kn_batch *b, int i, int k)
{
    const char *a = b->file.entry[i].o.model, *c = b->file.entry[k].o.model;
    return a && c && !strcmp(a, c);
}

/* Listener of the text phase: prompts are counted over all jobs. */
typedef struct prompts {
    kn_batch *b;
    kn_stage stage;
} prompts;

static int only_stop(void *user, const kn_event *event)
{
    const prompts *p = user;
    if (event->kind == KN_EVENT_NOTE) return p->b->fn ? p->b->fn(p->b->user, event) : 0;
    return 0;
}

static kn_status encode_one(kn_batch *b, int i, prompts *p)
{
    task t;
    kn_status st = open_task(b, i, &t);
    if (st == KN_OK && !t.o.embeds_in) {
        t.job.fn = only_stop;
        t.job.user = p;
        st = kn_session_device(&b->session, &t.o);
        if (st == KN_OK) st = kn_job_text(&t.job);
    }
    if (st != KN_OK && st != KN_ERR_NOMEM && st != KN_ERR_CANCELLED) st = fail_task(&t, st);
    close_task(&t);
    return st;
}

/* All prompts of the jobs that are to be done with the model of job `first`; the embeddings stay in the
 * session, the text encoder does not. */
static kn_status encode_all(kn_batch *b, int first)
{
    prompts p = {.b = b};
    int count = 0, done = 0;
    for (int i = first; i < b->file.count; i++) count += b->result[i].state == KN_BATCH_WAITING && same_model(b, i, first);
    kn_stage_begin(&p.stage, b->fn, b->user, "text", "jobs", 0, count);
    for (int i = first; i < b->file.count; i++) {
        if (b->result[i].state != KN_BATCH_WAITING || !same_model(b, i, first)) continue;
        KN_TRY(encode_one(b, i, &p));
        KN_TRY(kn_stage_step(&p.stage, ++done));
    }
    kn_stage_end(&p.stage);
    kn_session_drop(&b->session, KN_NETWORK_TEXT);
    return KN_OK;
}

static kn_status make_parents(const kn_batch *b, const kn_options *o)
{
    const char *const paths[] = {o->output, o->contact_sheet, o->preview, o->latents_out, o->embeds_out, o->frames_dir, o->debug_dir};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char folder[4096];
        const char *slash = paths[i] ? strrchr(paths[i], '/') : NULL;
        /* what lies elsewhere was given on the command line */
        if (paths[i] && kn_path_is_in(b->folder, paths[i])) KN_TRY(kn_path_check_links(b->folder, paths[i]));
        if (!slash || slash == paths[i]) continue;
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - paths[i]), paths[i]);
        KN_TRY(kn_make_folders(folder));
    }
    return KN_OK;
}

static kn_status render_locked(task *t, int number, int of, size_t since)
{
    kn_batch *b = t->b;
    bool finished;
    char text[1024];
    KN_TRY(kn_ledger_reload(&b->ledger));
    if (settled_elsewhere(t, since)) return KN_OK;
    KN_TRY(judge_output(t, &finished));
    if (finished) {
        t->r->state = KN_BATCH_SKIPPED;
        return KN_OK;
    }
    kn_remove_leftovers(kn_batch_path(&t->o));
    KN_TRY(use_checkpoint(t));
    snprintf(text, sizeof text, "[%d/%d] %s", number, of, t->e->name);
    note(b, text);
    double start = kn_now_sec();
    KN_TRY(kn_session_device(&b->session, &t->o));
    KN_TRY(kn_job_begin(&t->job));
    KN_TRY(kn_job_run(&t->job));
    t->r->seconds = kn_now_sec() - start;
    t->r->state = KN_BATCH_DONE;
    return record(t, KN_OK);
}

/* *held: another process has the job now; nothing was done. */
static kn_status render_one(kn_batch *b, int i, int number, int of, size_t since, bool *held)
{
    task t;
    int fd = -1;
    char holder[128];
    *held = false;
    kn_status st = open_task(b, i, &t);
    if (st == KN_OK) st = make_parents(b, &t.o);
    if (st == KN_OK) st = kn_lock_take(kn_batch_path(&t.o), &fd, holder);
    if (st == KN_OK) {
        *held = fd < 0;
        if (!*held) st = render_locked(&t, number, of, since);
        kn_lock_release(kn_batch_path(&t.o), fd);
    }
    if (st == KN_ERR_CANCELLED) {
        t.r->state = KN_BATCH_STOPPED;
    } else if (st != KN_OK) {
        /* A device or memory failure may have its cause in what stands open. */
        if (st == KN_ERR_DEVICE || st == KN_ERR_NOMEM) kn_session_close(&b->session);
        st = fail_task(&t, st);
    }
    close_task(&t);
    return st;
}

static bool stop_asked(const kn_batch *b)
{
    kn_event e = {.kind = KN_EVENT_STEP, .stage = "waiting for other processes", .unit = "jobs", .done = 0, .total = 1};
    return b->fn && b->fn(b->user, &e);
}

/* Jobs of one model. Those that another process holds are come back to, until it is done or gone. */
static kn_status render_all(kn_batch *b, int first, int *number, int of, size_t since)
{
    for (bool waiting = true; waiting;) {
        waiting = false;
        bool worked = false;
        for (int i = first; i < b->file.count; i++) {
            bool held;
            if (b->result[i].state != KN_BATCH_WAITING || !same_model(b, i, first)) continue;
            KN_TRY(render_one(b, i, *number + 1, of, since, &held));
            if (held) {
                waiting = true;
                continue;
            }
            worked = true;
            ++*number;
        }
        if (waiting && !worked) {
            struct timespec pause = {.tv_nsec = 300 * 1000 * 1000};
            if (stop_asked(b)) return kn_fail(KN_ERR_CANCELLED, "stopped while other processes finish their jobs");
            nanosleep(&pause, NULL);
        }
    }
    return KN_OK;
}

/* ---- the whole --------------------------------------------------------------------------------*/

/* A shared lock says that a process is at work here; whoever finds one joins it. */
static kn_status enter_folder(kn_batch *b, int *fd)
{
    char *path;
    KN_TRY(kn_asprintf(&path, "%s/.batch.lock", b->folder));
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    kn_status st = *fd < 0 ? kn_fail(KN_ERR_IO, "%s: %s", path, strerror(errno)) : KN_OK;
    if (st == KN_OK && flock(*fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        note(b, "another process works on this folder: sharing its jobs");
        b->resume = true;
    }
    if (st == KN_OK && flock(*fd, LOCK_SH) != 0) st = kn_fail(KN_ERR_IO, "%s: locking: %s", path, strerror(errno));
    kn_free(path);
    return st;
}

static kn_status open_results(kn_batch *b)
{
    return kn_alloc_array((size_t)b->file.count, sizeof *b->result, (void **)&b->result);
}

kn_status kn_batch_run(kn_batch *b)
{
    int fd = -1, number = 0, of = 0;
    double start = kn_now_sec();
    kn_status st = KN_OK;
    b->session.keep = true;
    KN_TRY_GOTO(open_results(b));
    KN_TRY_GOTO(kn_ledger_open(b->folder, &b->ledger));
    KN_TRY_GOTO(enter_folder(b, &fd));
    size_t since = json_array_size(b->ledger.lines);
    KN_TRY_GOTO(check_all(b));
    for (int i = 0; i < b->file.count; i++) of += b->result[i].state == KN_BATCH_WAITING;
    for (int i = 0; i < b->file.count; i++) {
        if (b->result[i].state != KN_BATCH_WAITING) continue;
        KN_TRY_GOTO(encode_all(b, i));
        KN_TRY_GOTO(render_all(b, i, &number, of, since));
    }
done:
    if (fd >= 0) close(fd);
    b->total_sec = kn_now_sec() - start;
    return st;
}

/* Mean rate of the jobs that were rendered from beginning to end on this device; 0: none. */
static double past_rate(const kn_batch *b, const char *device)
{
    double work = 0, sec = 0;
    for (size_t i = 0; i < json_array_size(b->ledger.lines); i++) {
        const json_t *o = json_array_get(b->ledger.lines, i), *s = json_object_get(o, "seconds");
        const char *on = json_string_value(json_object_get(o, "device"));
        if (!on || strcmp(on, device) || json_is_true(json_object_get(o, "resumed"))) continue;
        work += json_real_value(json_object_get(o, "work_tflop")) * 1e12;
        sec += json_real_value(json_object_get(s, "denoise")) + json_real_value(json_object_get(s, "decode"));
    }
    return sec > 0 ? work / sec : 0;
}

static kn_status estimate_one(kn_batch *b, int i, double *rate)
{
    task t;
    kn_memory_plan plan;
    bool finished = false;
    kn_status st = KN_OK;
    KN_TRY_GOTO(open_task(b, i, &t));
    t.o.dry_run = true; /* a GPU that is not here is planned for all the same */
    if (!wants_more(&t.o)) KN_TRY_GOTO(judge_output(&t, &finished));
    t.r->width_px = t.job.geo.out_width_px;
    t.r->height_px = t.job.geo.out_height_px;
    t.r->frames = t.job.geo.frames;
    t.r->tokens = t.job.geo.tokens;
    if (finished) t.r->state = KN_BATCH_SKIPPED;
    KN_TRY_GOTO(kn_session_device(&b->session, &t.o));
    KN_TRY_GOTO(kn_memory_plan_build(&t.job, &plan));
    for (int p = 0; p < plan.phases; p++)
        if (kn_memory_phase_bytes(&plan, p) > t.r->peak_bytes) t.r->peak_bytes = kn_memory_phase_bytes(&plan, p);
    KN_TRY_GOTO(kn_memory_plan_check(&t.job, &plan));
    KN_TRY_GOTO(kn_work_of(&t.job, &t.r->operations));
    if (*rate == 0) *rate = past_rate(b, kn_dev_describe(b->session.dev));
    bool here = kn_dev_get_kind(b->session.dev) != KN_DEV_MEASURE;
    if (*rate == 0 && here) KN_TRY_GOTO(kn_work_rate(&t.job, rate));
    t.r->estimate_sec = *rate > 0 ? t.r->operations / *rate : -1;
done:
    if (st != KN_OK && st != KN_ERR_CANCELLED) {
        t.r->state = KN_BATCH_FAILED;
        t.r->status = st;
        st = kn_strdup(kn_error_text(), &t.r->error);
        kn_error_clear();
    }
    close_task(&t);
    return st;
}

kn_status kn_batch_estimate(kn_batch *b)
{
    double rate = 0;
    KN_TRY(open_results(b));
    KN_TRY(kn_asprintf(&b->ledger.path, "%s/results.jsonl", b->folder));
    KN_TRY(kn_ledger_reload(&b->ledger));
    for (int i = 0; i < b->file.count; i++) {
        if (!is_mine(b, i))
            b->result[i].state = KN_BATCH_OTHERS;
        else
            KN_TRY(estimate_one(b, i, &rate));
    }
    return KN_OK;
}

void kn_batch_close(kn_batch *b)
{
    for (int i = 0; b->result && i < b->file.count; i++) kn_free(b->result[i].error);
    kn_free(b->result);
    b->result = NULL;
    kn_batch_file_free(&b->file);
    kn_ledger_close(&b->ledger);
    kn_session_close(&b->session);
}
