/* pipeline/render_text.c - the text phase: prompts to embeddings. */
#include <inttypes.h>
#include <string.h>

#include "io/memory.h"
#include "io/safetensors.h"
#include "pipeline/render_job.h"
#include "text/prompt_clean.h"

static const char *const tensor_names[KN_PROMPTS] = {"prompt", "negative"};

static kn_status find_tensor(const kn_safetensors *file, const char *path, const char *name, int rank, const int64_t *dims,
                             const kn_st_tensor **out)
{
    char want[KN_SHAPE_TEXT], found[KN_SHAPE_TEXT];
    kn_tensor shape = kn_tensor_make(NULL, KN_F32, rank, dims);
    const kn_st_tensor *t = *out = kn_safetensors_find(file, name, NULL);
    if (!t) return kn_fail(KN_ERR_FORMAT, "%s: tensor %s is missing", path, name);
    bool fits = t->rank == rank && t->dtype == KN_ST_F32;
    for (int i = 0; fits && i < rank; i++) fits = t->dim[i] == dims[i];
    if (fits) return KN_OK;
    kn_tensor has = kn_tensor_make(NULL, KN_F32, t->rank, t->dim);
    return kn_fail(KN_ERR_FORMAT, "%s: tensor %s: expected %s, found %s of dtype %s", path, name, kn_tensor_text(&shape, want),
                   kn_tensor_text(&has, found), t->dtype_name);
}

kn_status kn_job_check_tensor(const char *path, const char *name, int rank, const int64_t *dims)
{
    kn_safetensors *file;
    const kn_st_tensor *t;
    KN_TRY(kn_safetensors_open(path, NULL, &file));
    kn_status st = find_tensor(file, path, name, rank, dims, &t);
    kn_safetensors_close(&file);
    return st;
}

kn_status kn_job_read_tensor(const char *path, const char *name, int rank, const int64_t *dims, float **out)
{
    kn_safetensors *file;
    const kn_st_tensor *t;
    kn_status st = KN_OK;
    *out = NULL;
    KN_TRY(kn_safetensors_open(path, NULL, &file));
    KN_TRY_GOTO(find_tensor(file, path, name, rank, dims, &t));
    KN_TRY_GOTO(kn_alloc(t->bytes, (void **)out));
    memcpy(*out, t->data, t->bytes);
done:
    kn_safetensors_close(&file);
    return st;
}

typedef struct encoder {
    kn_job *job;
    kn_session *session; /* the job's, or one on the measure device */
    kn_tokenizer *tokenizer;
    kn_umt5 *umt5;
    kn_arena *arena;
    int32_t *ids;
} encoder;

/* Run the encoder over e->ids; the embeddings stay in e->arena. */
static kn_status encode_ids(encoder *e, int count, kn_tensor *embeds)
{
    const kn_job *j = e->job;
    size_t scratch;
    int64_t dims[2] = {j->o->text_length_tok, j->dit.text_dim};
    kn_tensor shape = kn_tensor_make(NULL, KN_F32, 2, dims);
    KN_TRY(kn_umt5_scratch_bytes(e->umt5, count, &scratch));
    KN_TRY(kn_arena_open(e->session->dev, scratch + kn_tensor_bytes(&shape) + 256, &e->arena));
    KN_TRY(kn_arena_tensor(e->arena, KN_F32, 2, dims, embeds));
    kn_umt5_args args = {.ids = e->ids, .count = count, .out = *embeds, .scratch = e->arena};
    return kn_umt5_encode(e->umt5, &args);
}

static kn_status encode(encoder *e, const char *text, float **out)
{
    kn_job *j = e->job;
    int length = (int)j->o->text_length_tok, count;
    char *clean = NULL;
    kn_tensor embeds;
    kn_status st = kn_prompt_clean(text, &clean);
    KN_TRY_GOTO(st);
    KN_TRY_GOTO(kn_tokenizer_encode(e->tokenizer, clean, length, e->ids, &count));
    if (count == length) kn_job_note(j, "the prompt fills or exceeds the model's %d text tokens; the rest is cut", length);
    KN_TRY_GOTO(encode_ids(e, count, &embeds));
    KN_TRY_GOTO(kn_alloc(kn_tensor_bytes(&embeds), (void **)out));
    KN_TRY_GOTO(kn_dev_download(e->session->dev, &embeds, *out));
    KN_TRY_GOTO(kn_session_prompt_add(e->session, &j->folder, text, length, j->dit.text_dim, *out));
done:
    kn_arena_close(&e->arena);
    kn_free(clean);
    return st;
}

static kn_status open_encoder(encoder *e)
{
    kn_job *j = e->job;
    kn_session_spare(e->session, KN_NETWORK_TEXT, j->peak_bytes[KN_NETWORK_TEXT], j->budget_bytes);
    KN_TRY(kn_session_text(e->session, &j->folder, &e->tokenizer, &e->umt5));
    const kn_umt5_config *c = kn_umt5_get_config(e->umt5);
    if (c->d_model != j->dit.text_dim)
        return kn_fail(KN_ERR_MODEL, "%s: text encoder and transformer do not fit: d_model is %d, text_dim %" PRId64, j->o->model,
                       c->d_model, j->dit.text_dim);
    if (kn_tokenizer_id_limit(e->tokenizer) > c->vocab_size)
        return kn_fail(KN_ERR_MODEL, "%s: tokenizer and text encoder do not fit: ids up to %d, vocab_size %d", j->o->model,
                       kn_tokenizer_id_limit(e->tokenizer) - 1, c->vocab_size);
    return kn_alloc_array((size_t)j->o->text_length_tok, sizeof *e->ids, (void **)&e->ids);
}

static void close_encoder(encoder *e)
{
    kn_arena_close(&e->arena);
    kn_free(e->ids);
    kn_session_done(e->session, KN_NETWORK_TEXT);
}

/* A copy of what the session kept; *out stays NULL when it has nothing. */
static kn_status recall(const kn_job *j, const char *text, float **out)
{
    int64_t rows, length = j->o->text_length_tok, width = j->dit.text_dim;
    const float *kept = kn_session_prompt_find(j->session, &j->folder, text, length, &rows);
    if (!kept) return KN_OK;
    KN_TRY(kn_alloc_array((size_t)(length * width), sizeof **out, (void **)out));
    memcpy(*out, kept, (size_t)(rows * width) * sizeof **out);
    return KN_OK;
}

static kn_status encode_prompts(kn_job *j)
{
    encoder e = {.job = j, .session = j->session};
    const char *text[KN_PROMPTS] = {j->o->prompt, j->o->negative_prompt ? j->o->negative_prompt : ""};
    int count = j->guided ? KN_PROMPTS : 1;
    kn_stage stage;
    kn_status st = KN_OK;
    int recalled = 0;
    for (int i = 0; i < count; i++) {
        KN_TRY_GOTO(recall(j, text[i], &j->embeds[i]));
        recalled += j->embeds[i] != NULL;
    }
    if (recalled == count) return KN_OK;
    kn_stage_begin(&stage, j->fn, j->user, "text", "prompts", 0, count);
    for (int i = 0; i < count; i++) {
        if (!j->embeds[i] && !e.ids) KN_TRY_GOTO(open_encoder(&e));
        if (!j->embeds[i]) KN_TRY_GOTO(encode(&e, text[i], &j->embeds[i]));
        KN_TRY_GOTO(kn_stage_step(&stage, i + 1));
    }
    kn_stage_end(&stage);
done:
    close_encoder(&e);
    return st;
}

/* The longest prompt is the largest. */
kn_status kn_job_text_measure(kn_job *j, int pass, kn_session *measure)
{
    (void)pass;
    encoder e = {.job = j, .session = measure};
    kn_tensor embeds;
    kn_status st = open_encoder(&e);
    if (st == KN_OK) st = encode_ids(&e, (int)j->o->text_length_tok, &embeds);
    close_encoder(&e);
    return st;
}

static kn_status write_embeds(const kn_job *j)
{
    kn_st_tensor tensors[KN_PROMPTS];
    int count = 0;
    for (int i = 0; i < KN_PROMPTS; i++) {
        if (!j->embeds[i]) continue;
        kn_st_tensor *t = &tensors[count++];
        *t = (kn_st_tensor){.name = tensor_names[i], .dtype = KN_ST_F32, .rank = 2, .data = j->embeds[i],
                            .dim = {j->o->text_length_tok, j->dit.text_dim}};
        t->bytes = (size_t)(t->dim[0] * t->dim[1]) * sizeof(float);
    }
    return kn_safetensors_write(j->o->embeds_out, tensors, count, NULL);
}

kn_status kn_job_text(kn_job *j)
{
    double start = kn_now_sec();
    if (j->o->embeds_in) {
        int64_t dims[2] = {j->o->text_length_tok, j->dit.text_dim};
        for (int i = 0; i < (j->guided ? KN_PROMPTS : 1); i++)
            KN_TRY(kn_job_read_tensor(j->o->embeds_in, tensor_names[i], 2, dims, &j->embeds[i]));
    } else {
        KN_TRY(encode_prompts(j));
    }
    if (j->o->embeds_out) KN_TRY(write_embeds(j));
    j->sec[0] = kn_now_sec() - start;
    return KN_OK;
}
