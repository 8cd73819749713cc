#include "pipeline/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "io/folder.h"
#include "io/memory.h"
#include "io/json.h"
#include "io/path.h"
#include "io/safetensors.h"
#include "io/sha256.h"
#include "io/text.h"

/* ---- identity ---------------------------------------------------------------------------------*/

/* FNV-1a, 64 bit (draft-eastlake-fnv): names a job, guards against mistakes, not against attackers. */
static uint64_t hash_bytes(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* The same step on eight bytes at a time, for tensors: multiplication by an odd number loses nothing, so no
 * change of a single word goes unseen. */
static uint64_t hash_words(uint64_t h, const void *data, size_t n)
{
    const char *p = data;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = (h ^ word) * UINT64_C(0x100000001b3);
        h ^= h >> 29; /* FNV alone moves nothing downward: high bits of words would hardly mix */
    }
    return hash_bytes(h, p, n);
}

static kn_status hash_file(const char *path, uint64_t *h)
{
    char head[65536];
    struct stat s;
    FILE *f = fopen(path, "rb");
    if (!f || fstat(fileno(f), &s) != 0) {
        kn_status st = kn_fail(KN_ERR_IO, "%s: %s", path, strerror(errno));
        if (f) fclose(f);
        return st;
    }
    size_t n = fread(head, 1, sizeof head, f);
    int failed = ferror(f), error = errno;
    fclose(f);
    if (failed) return kn_fail(KN_ERR_IO, "%s: reading: %s", path, strerror(error));
    int64_t size = s.st_size;
    *h = hash_bytes(*h, &size, sizeof size);
    *h = hash_bytes(*h, head, n);
    return KN_OK;
}

/* The whole of a file that was given. One that is not there yet, in a batch another job's result, adds nothing. */
static kn_status hash_given(const char *path, uint64_t *h)
{
    uint64_t words[8192];
    bool there;
    KN_TRY(kn_path_exists(path, &there));
    if (!there) return KN_OK;
    FILE *f = fopen(path, "rb");
    if (!f) return kn_fail(KN_ERR_IO, "%s: %s", path, strerror(errno));
    for (size_t n; (n = fread(words, 1, sizeof words, f)) > 0;) *h = hash_words(*h, words, n);
    int failed = ferror(f), error = errno;
    fclose(f);
    return failed ? kn_fail(KN_ERR_IO, "%s: reading: %s", path, strerror(error)) : KN_OK;
}

kn_status kn_job_identity_build(const kn_options *o, const char *const *files, int count, const char *content,
                                kn_job_identity *out)
{
    memset(out, 0, sizeof *out);
    kn_text text = {0};
    json_t *options = kn_options_json(o, KN_OPTION_SHAPES_RESULT);
    kn_status st = options ? kn_json_add_value(&text, options) : kn_fail(KN_ERR_NOMEM, "out of memory: options as JSON");
    json_decref(options);
    KN_TRY_GOTO(st);
    uint64_t h = hash_bytes(UINT64_C(0xcbf29ce484222325), KN_VERSION, sizeof KN_VERSION);
    h = hash_bytes(h, text.data, text.size);
    h = hash_bytes(h, content, strlen(content));
    for (int i = 0; i < count; i++) KN_TRY_GOTO(hash_file(files[i], &h));
    if (o->tile_windows) {
        char windows[KN_SHA256_TEXT];
        KN_TRY_GOTO(kn_sha256_file(o->tile_windows, windows));
        h = hash_bytes(h, windows, strlen(windows));
    }
    const char *const given[] = {o->noise_in, o->latents_in, o->embeds_in};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (given[i]) KN_TRY_GOTO(hash_given(given[i], &h));
    snprintf(out->fingerprint, sizeof out->fingerprint, "%016" PRIx64, h);
    out->options = text.data;
    text.data = NULL;
done:
    kn_free(text.data);
    return st;
}

void kn_job_identity_free(kn_job_identity *id)
{
    kn_free(id->options);
    memset(id, 0, sizeof *id);
}

kn_status kn_checkpoint_path(const char *output, char **path)
{
    return kn_asprintf(path, "%.*s.checkpoint.safetensors", (int)kn_path_bare_bytes(output), output);
}

/* ---- content ----------------------------------------------------------------------------------
 * What a checkpoint says is worth nothing when a bit of it has flipped: a sum over its tensors, in any order,
 * and over the numbers that place them.
 */
static const char *const placed_by[] = {"segment", "pass", "step", "known", "order", "seed"};
enum { PLACES = sizeof placed_by / sizeof *placed_by, CONTENT_TEXT = 17 };

static uint64_t hash_tensor(const kn_st_tensor *t)
{
    uint64_t h = hash_bytes(UINT64_C(0xcbf29ce484222325), t->name, strlen(t->name) + 1);
    h = hash_bytes(h, t->dim, (size_t)t->rank * sizeof *t->dim);
    return hash_words(h, t->data, t->bytes);
}

static uint64_t hash_place(const char *key, const char *value)
{
    uint64_t h = hash_bytes(UINT64_C(0xcbf29ce484222325), key, strlen(key) + 1);
    return hash_bytes(h, value, strlen(value) + 1);
}

static kn_status check_content(const kn_safetensors *file)
{
    uint64_t sum = 0;
    char found[CONTENT_TEXT];
    const char *said = kn_safetensors_metadata(file, "content");
    for (int i = 0; i < kn_safetensors_count(file); i++) sum += hash_tensor(kn_safetensors_at(file, i));
    for (int i = 0; i < PLACES; i++) {
        const char *value = kn_safetensors_metadata(file, placed_by[i]);
        sum += hash_place(placed_by[i], value ? value : "");
    }
    snprintf(found, sizeof found, "%016" PRIx64, sum);
    if (said && !strcmp(said, found)) return KN_OK;
    return kn_fail(KN_ERR_FORMAT, "%s: the checkpoint is damaged: its content hashes to %s, expected %s; delete it, or render "
                   "without --resume, to start anew", kn_safetensors_path(file), found, said ? said : "(no hash in it)");
}

/* ---- saving -----------------------------------------------------------------------------------*/

static const char *const history_names[KN_SOLVER_MAX_TENSORS] = {"history.0", "history.1", "history.2", "history.3"};

static kn_status download(kn_dev *d, const kn_tensor *t, const char *name, kn_st_tensor *out)
{
    void *host;
    KN_TRY(kn_alloc(kn_tensor_bytes(t), &host));
    *out = (kn_st_tensor){.name = name, .dtype = KN_ST_F32, .rank = t->rank, .data = host, .bytes = kn_tensor_bytes(t)};
    for (int i = 0; i < t->rank; i++) out->dim[i] = t->dim[i];
    return kn_dev_download(d, t, host);
}

kn_status kn_checkpoint_save(const char *path, kn_dev *d, const kn_job_identity *id, int64_t seed,
                             const kn_checkpoint *c)
{
    kn_st_tensor tensors[2 + KN_SOLVER_MAX_TENSORS] = {0};
    kn_solver_state state = kn_solver_get_state(c->solver);
    int count = 0;
    kn_status st = KN_OK;
    KN_TRY_GOTO(download(d, &c->latents, "latents", &tensors[count++]));
    for (int i = 0; i < state.tensors; i++)
        KN_TRY_GOTO(download(d, &state.tensor[i], history_names[i], &tensors[count++]));
    if (c->refresh.rank) KN_TRY_GOTO(download(d, &c->refresh, "refresh", &tensors[count++]));
    char segment[24], pass[16], step[16], known[16], order[16], seed_text[32], content[CONTENT_TEXT];
    snprintf(segment, sizeof segment, "%" PRId64, c->segment);
    snprintf(pass, sizeof pass, "%d", c->pass);
    snprintf(step, sizeof step, "%d", state.index);
    snprintf(known, sizeof known, "%d", state.known);
    snprintf(order, sizeof order, "%d", state.order);
    snprintf(seed_text, sizeof seed_text, "%" PRId64, seed);
    const char *place[PLACES] = {segment, pass, step, known, order, seed_text};
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) sum += hash_tensor(&tensors[i]);
    for (int i = 0; i < PLACES; i++) sum += hash_place(placed_by[i], place[i]);
    snprintf(content, sizeof content, "%016" PRIx64, sum);
    const char *metadata[] = {"job", id->fingerprint, "content", content, "segment", segment, "pass", pass, "step", step, "known", known, "order", order,
                              "seed", seed_text, "kinora", KN_VERSION, "options", id->options, NULL};
    KN_TRY_GOTO(kn_safetensors_write(path, tensors, count, metadata));
done:
    for (int i = 0; i < 2 + KN_SOLVER_MAX_TENSORS; i++) kn_free((void *)tensors[i].data);
    return KN_CTX(st, "saving the checkpoint");
}

/* ---- restoring --------------------------------------------------------------------------------*/

static kn_status metadata_int(const kn_safetensors *file, const char *key, int64_t *out)
{
    const char *text = kn_safetensors_metadata(file, key);
    if (!text || !kn_text_to_int(text, out))
        return kn_fail(KN_ERR_FORMAT, "%s: expected a whole number in metadata `%s`, found '%s': not a checkpoint of Kinora",
                       kn_safetensors_path(file), key, text ? text : "nothing");
    return KN_OK;
}

kn_status kn_checkpoint_peek(const char *path, kn_checkpoint_place *out)
{
    *out = (kn_checkpoint_place){0};
    KN_TRY(kn_path_exists(path, &out->exists));
    if (!out->exists) return KN_OK;
    kn_safetensors *file;
    KN_TRY(kn_safetensors_open(path, NULL, &file));
    const char *job = kn_safetensors_metadata(file, "job");
    snprintf(out->job, sizeof out->job, "%s", job ? job : "");
    kn_status st = metadata_int(file, "seed", &out->seed);
    if (st == KN_OK) st = metadata_int(file, "segment", &out->segment);
    if (st == KN_OK) st = metadata_int(file, "pass", &out->pass);
    if (st == KN_OK) st = metadata_int(file, "step", &out->step);
    kn_safetensors_close(&file);
    return st;
}

/* Names the options in which the checkpoint's job differs from this one. */
static kn_status other_job(const kn_safetensors *file, const kn_job_identity *id)
{
    const char *theirs_text = kn_safetensors_metadata(file, "options");
    enum { VALUES_MAX = 4096 };
    json_t *theirs = NULL, *ours = NULL;
    if (theirs_text && kn_json_parse("options", theirs_text, strlen(theirs_text), VALUES_MAX, &theirs) != KN_OK) theirs = NULL;
    if (kn_json_parse("options", id->options, strlen(id->options), VALUES_MAX, &ours) != KN_OK) ours = NULL;
    char names[256] = "";
    const char *key;
    json_t *value;
    if (theirs && ours) {
        json_t *all = json_copy(ours);
        json_object_update_missing(all, theirs);
        json_object_foreach(all, key, value) {
            size_t n = strlen(names);
            json_t *a = json_object_get(ours, key), *b = json_object_get(theirs, key);
            if (!(a && b && json_equal(a, b)) && n + strlen(key) + 3 < sizeof names)
                snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", key);
        }
        json_decref(all);
    }
    json_decref(theirs);
    json_decref(ours);
    return kn_fail(KN_ERR_ARG, "%s: checkpoint of another job (%s); give the same settings, or render without --resume to start anew",
                   kn_safetensors_path(file), *names ? names : "the model, a file that was given, or the version of Kinora differs");
}

static kn_status upload(kn_dev *d, const kn_safetensors *file, const char *name, const kn_tensor *dst)
{
    const kn_st_tensor *t = kn_safetensors_find(file, name, NULL);
    if (!t || t->dtype != KN_ST_F32 || t->bytes != kn_tensor_bytes(dst))
        return kn_fail(KN_ERR_FORMAT, "%s: tensor %s: expected %zu bytes of F32, found %zu bytes of %s",
                       kn_safetensors_path(file), name, kn_tensor_bytes(dst), t ? t->bytes : (size_t)0,
                       t ? t->dtype_name : "nothing");
    return kn_dev_upload(d, t->data, dst);
}

/* -1, which no solver has, for what an int cannot hold. */
static int as_int(int64_t v) { return v < 0 || v > INT_MAX ? -1 : (int)v; }

kn_status kn_checkpoint_load(const char *path, kn_dev *d, const kn_job_identity *id, const kn_checkpoint *c)
{
    kn_safetensors *file;
    KN_TRY(kn_safetensors_open(path, NULL, &file));
    kn_status st = KN_OK;
    int64_t segment, pass, step, known, order;
    const char *job = kn_safetensors_metadata(file, "job");
    if (!job || strcmp(job, id->fingerprint)) KN_TRY_GOTO(other_job(file, id));
    KN_TRY_GOTO(check_content(file));
    KN_TRY_GOTO(metadata_int(file, "segment", &segment));
    KN_TRY_GOTO(metadata_int(file, "pass", &pass));
    if (segment != c->segment || pass != c->pass)
        KN_TRY_GOTO(kn_fail(KN_ERR_FORMAT, "%s: expected segment %" PRId64 ", pass %d, found segment %" PRId64 ", pass %" PRId64,
                            path, c->segment, c->pass, segment, pass));
    KN_TRY_GOTO(upload(d, file, "latents", &c->latents));
    if (!c->solver) goto done;
    if (c->refresh.rank) KN_TRY_GOTO(upload(d, file, "refresh", &c->refresh));
    KN_TRY_GOTO(metadata_int(file, "step", &step));
    KN_TRY_GOTO(metadata_int(file, "known", &known));
    KN_TRY_GOTO(metadata_int(file, "order", &order));
    kn_solver_state state = {.index = as_int(step), .known = as_int(known), .order = as_int(order),
                             .tensors = kn_safetensors_count(file) - 1 - (c->refresh.rank > 0)};
    KN_TRY_GOTO(kn_solver_restore(c->solver, &state));
    for (int i = 0; i < state.tensors; i++) KN_TRY_GOTO(upload(d, file, history_names[i], &state.tensor[i]));
done:
    kn_safetensors_close(&file);
    return st;
}
