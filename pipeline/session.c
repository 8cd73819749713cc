#include "pipeline/session.h"

#include <string.h>

#include "io/memory.h"
#include "pipeline/progress.h"

/* ---- device -----------------------------------------------------------------------------------*/

static kn_status open_device(kn_session *s, const kn_options *o)
{
    kn_dev_params p = {.threads = (int)o->threads, .offload = o->offload};
    if (o->device == KN_DEVICE_AUTO || o->device == KN_DEVICE_CUDA) {
        p.kind = KN_DEV_CUDA;
        kn_status st = kn_dev_open(&p, &s->dev);
        if (st == KN_OK) return st;
        if (o->device == KN_DEVICE_CUDA && (!o->dry_run || st != KN_ERR_UNSUPPORTED)) return st;
        kn_error_copy(s->no_gpu, sizeof s->no_gpu);
        kn_error_clear();
        if (o->device == KN_DEVICE_CUDA) {
            s->no_gpu[0] = 0; /* plans for a GPU are made on any machine */
            p.kind = KN_DEV_MEASURE;
            p.measured = KN_DEV_CUDA;
            return kn_dev_open(&p, &s->dev);
        }
    }
    p.kind = o->device == KN_DEVICE_REF ? KN_DEV_REF : KN_DEV_CPU;
    if (p.kind == KN_DEV_CPU) p.offload = false; /* its memory is the host's */
    return kn_dev_open(&p, &s->dev);
}

kn_status kn_session_device(kn_session *s, const kn_options *o)
{
    bool same = s->device == o->device && s->threads == o->threads && s->offload == o->offload;
    if (s->dev && same) return KN_OK;
    kn_session_close(s);
    KN_TRY(open_device(s, o));
    s->device = o->device;
    s->threads = o->threads;
    s->offload = o->offload;
    return KN_OK;
}

/* ---- networks ---------------------------------------------------------------------------------*/

void kn_session_drop(kn_session *s, kn_network which)
{
    switch (which) {
    case KN_NETWORK_TEXT:
        kn_umt5_close(&s->umt5);
        kn_tokenizer_close(&s->tokenizer);
        break;
    case KN_NETWORK_DIT: kn_dit_close(&s->dit); break;
    case KN_NETWORK_VAE: kn_vae_close(&s->vae); break;
    case KN_NETWORKS: return;
    }
    kn_free(s->path[which]);
    s->path[which] = NULL;
    if (s->bytes[which]) kn_memory_trim(); /* its weights may lie between blocks that stay */
    s->bytes[which] = 0;
}

void kn_session_done(kn_session *s, kn_network which)
{
    if (!s->keep) kn_session_drop(s, which);
}

void kn_session_spare(kn_session *s, kn_network needed, size_t peak_bytes, size_t budget_bytes)
{
    if (!budget_bytes || !s->dev) return;
    size_t others = 0;
    for (int i = 0; i < KN_NETWORKS; i++)
        if (i != (int)needed) others += s->bytes[i];
    if (others + peak_bytes <= budget_bytes) return;
    for (int i = 0; i < KN_NETWORKS; i++)
        if (i != (int)needed) kn_session_drop(s, (kn_network)i);
}

/* True when the network of that folder is open; another folder's is closed. */
static bool is_open(kn_session *s, kn_network which, const char *path)
{
    if (s->path[which] && !strcmp(s->path[which], path)) return true;
    kn_session_drop(s, which);
    return false;
}

/* Clock and memory before a network is opened. */
typedef struct opening {
    double start_sec;
    size_t bytes;
} opening;

static opening begin(const kn_session *s)
{
    return (opening){.start_sec = kn_now_sec(), .bytes = kn_dev_bytes_now(s->dev)};
}

static kn_status opened(kn_session *s, kn_network which, const char *path, const opening *o, kn_status st)
{
    if (st == KN_OK) st = kn_strdup(path, &s->path[which]);
    if (st != KN_OK) {
        kn_session_drop(s, which);
        return st;
    }
    s->loads[which]++;
    s->load_sec += kn_now_sec() - o->start_sec;
    s->bytes[which] = kn_dev_bytes_now(s->dev) - o->bytes;
    return KN_OK;
}

kn_status kn_session_text(kn_session *s, const kn_model_folder *m, kn_tokenizer **tokenizer, kn_umt5 **umt5)
{
    if (!is_open(s, KN_NETWORK_TEXT, m->text_encoder)) {
        opening o = begin(s);
        kn_status st = kn_tokenizer_open(m->tokenizer, &s->tokenizer);
        if (st == KN_OK) st = kn_umt5_open(s->dev, m->text_encoder, &s->umt5);
        KN_TRY(opened(s, KN_NETWORK_TEXT, m->text_encoder, &o, st));
    }
    *tokenizer = s->tokenizer;
    *umt5 = s->umt5;
    return KN_OK;
}

kn_status kn_session_dit(kn_session *s, const kn_model_folder *m, kn_dit **dit)
{
    if (!is_open(s, KN_NETWORK_DIT, m->transformer)) {
        opening o = begin(s);
        KN_TRY(opened(s, KN_NETWORK_DIT, m->transformer, &o, kn_dit_open(s->dev, m->transformer, &s->dit)));
    }
    *dit = s->dit;
    return KN_OK;
}

kn_status kn_session_vae(kn_session *s, const kn_model_folder *m, bool encode, kn_vae **vae)
{
    if (s->path[KN_NETWORK_VAE] && encode && !s->vae_encodes) kn_session_drop(s, KN_NETWORK_VAE);
    if (!is_open(s, KN_NETWORK_VAE, m->vae)) {
        opening o = begin(s);
        KN_TRY(opened(s, KN_NETWORK_VAE, m->vae, &o, kn_vae_open(s->dev, m->vae, encode, true, &s->vae)));
        s->vae_encodes = encode;
    }
    *vae = s->vae;
    return KN_OK;
}

/* ---- prompts ----------------------------------------------------------------------------------*/

typedef struct kn_session_prompt {
    struct kn_session_prompt *next;
    char *text;
    int64_t length_tok, rows;
    float *embeds; /* [rows, width]: the rows behind are zero and not kept */
} kn_session_prompt;

static void forget_prompts(kn_session *s)
{
    for (kn_session_prompt *p = s->prompts, *next; p; p = next) {
        next = p->next;
        kn_free(p->text);
        kn_free(p->embeds);
        kn_free(p);
    }
    s->prompts = NULL;
    kn_free(s->prompts_path);
    s->prompts_path = NULL;
}

const float *kn_session_prompt_find(const kn_session *s, const kn_model_folder *m, const char *text,
                                    int64_t length_tok, int64_t *rows)
{
    if (!s->prompts_path || strcmp(s->prompts_path, m->text_encoder)) return NULL;
    for (const kn_session_prompt *p = s->prompts; p; p = p->next)
        if (p->length_tok == length_tok && !strcmp(p->text, text)) {
            *rows = p->rows;
            return p->embeds;
        }
    return NULL;
}

static int64_t rows_with_values(const float *embeds, int64_t rows, int64_t width)
{
    for (; rows > 0; rows--)
        for (int64_t i = 0; i < width; i++)
            if (embeds[(rows - 1) * width + i] != 0) return rows;
    return 0;
}

kn_status kn_session_prompt_add(kn_session *s, const kn_model_folder *m, const char *text, int64_t length_tok,
                                int64_t width, const float *embeds)
{
    if (!s->keep) return KN_OK;
    if (!s->prompts_path || strcmp(s->prompts_path, m->text_encoder)) {
        forget_prompts(s);
        KN_TRY(kn_strdup(m->text_encoder, &s->prompts_path));
    }
    kn_session_prompt *p;
    KN_TRY(kn_alloc_zero(sizeof *p, (void **)&p));
    p->length_tok = length_tok;
    p->rows = rows_with_values(embeds, length_tok, width);
    size_t bytes = (size_t)(p->rows * width) * sizeof *embeds;
    kn_status st = kn_strdup(text, &p->text);
    if (st == KN_OK) st = kn_alloc(bytes, (void **)&p->embeds);
    if (st != KN_OK) {
        kn_free(p->text);
        kn_free(p);
        return st;
    }
    memcpy(p->embeds, embeds, bytes);
    p->next = s->prompts;
    s->prompts = p;
    return KN_OK;
}

void kn_session_close(kn_session *s)
{
    for (int i = 0; i < KN_NETWORKS; i++) kn_session_drop(s, (kn_network)i);
    forget_prompts(s);
    kn_dev_close(&s->dev);
}
