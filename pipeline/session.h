/* pipeline/session.h - a device and the networks that are open on it, which renders share.
 *
 * Purpose   A phase takes the network it needs from the session and says when it is done with it. One
 *           render closes each network before the next is opened, so that its peak is that of its largest
 *           phase. With `keep` they stay open until memory is asked for or another model takes their
 *           place: many renders pay each load once. Embeddings of prompts are kept with them.
 * Memory    kn_session_spare closes what the next phase does not need, when it would not fit beside it.
 * Errors    Those of the networks; a network whose opening failed is not kept.
 * Threads   One thread at a time. Sessions share nothing.
 */
#ifndef KN_PIPELINE_SESSION_H
#define KN_PIPELINE_SESSION_H

#include "dit/dit.h"
#include "pipeline/model_folder.h"
#include "text/tokenizer.h"
#include "text/umt5.h"
#include "vae/wan_vae.h"

typedef enum kn_network { KN_NETWORK_TEXT, KN_NETWORK_DIT, KN_NETWORK_VAE, KN_NETWORKS } kn_network;

typedef struct kn_session {
    kn_dev *dev;
    int64_t device, threads; /* as asked for when dev was opened */
    bool offload;
    char no_gpu[256]; /* why --device auto came to the CPU; "" otherwise, and once it was told */
    bool keep;

    kn_tokenizer *tokenizer;
    kn_umt5 *umt5;
    kn_dit *dit;
    kn_vae *vae;
    bool vae_encodes;
    char *path[KN_NETWORKS];   /* folder of each open network */
    size_t bytes[KN_NETWORKS]; /* device memory of its weights */

    struct kn_session_prompt *prompts; /* list; of the text encoder at prompts_path */
    char *prompts_path;

    int loads[KN_NETWORKS]; /* times that weights were read */
    double load_sec;
    size_t outside_bytes; /* of a measuring session on the host: memory that others allocate */
} kn_session;

/* Open o's device. One that stands open for the same options stays; another one is closed with all
 * networks. */
KN_CHECKED kn_status kn_session_device(kn_session *s, const kn_options *o);
/* NULL-safe on members; *s is zero but for `keep` and the counts. */
void kn_session_close(kn_session *s);

/* The networks of a model folder; owned by the session. */
KN_CHECKED kn_status kn_session_text(kn_session *s, const kn_model_folder *m, kn_tokenizer **tokenizer,
                                     kn_umt5 **umt5);
KN_CHECKED kn_status kn_session_dit(kn_session *s, const kn_model_folder *m, kn_dit **dit);
KN_CHECKED kn_status kn_session_vae(kn_session *s, const kn_model_folder *m, bool encode, kn_vae **vae);
/* A phase is done with its network: it is closed unless the session keeps networks. */
void kn_session_done(kn_session *s, kn_network which);
/* Close it in any case. */
void kn_session_drop(kn_session *s, kn_network which);
/* Before a phase that takes peak_bytes, weights included: closes the other networks if it would not fit
 * in budget_bytes beside them. budget 0: not known, all stay. */
void kn_session_spare(kn_session *s, kn_network needed, size_t peak_bytes, size_t budget_bytes);

/* Embeddings [rows, width] of a prompt that was encoded before with m's text encoder and this length, or
 * NULL. Rows past `rows` are zero. Owned by the session. */
const float *kn_session_prompt_find(const kn_session *s, const kn_model_folder *m, const char *text,
                                    int64_t length_tok, int64_t *rows);
/* Keep embeds [length_tok, width]; does nothing unless s->keep. */
KN_CHECKED kn_status kn_session_prompt_add(kn_session *s, const kn_model_folder *m, const char *text,
                                           int64_t length_tok, int64_t width, const float *embeds);

#endif
