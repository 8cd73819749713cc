/* text/spm_model.h - reading a sentencepiece model file.
 *
 * Purpose   Gives the pieces, their scores and the character map of a spiece.model, without the
 *           sentencepiece library: its encoder adds scores in float32, skips byte pieces and
 *           trims blanks, and so differs from the tokenizer.json that models are published with and
 *           that transformers loads. text/tokenizer.h does what tokenizer.json does.
 * Format    Protocol buffer message ModelProto of sentencepiece_model.proto. Every length in the
 *           file is untrusted; unknown fields are skipped.
 * Cost      Umt5-xxl (4.5 MB, 256,000 pieces): the file is held in memory and pieces point into it.
 * Errors    KN_ERR_FORMAT (malformed); KN_ERR_UNSUPPORTED (not a unigram model);
 *           KN_ERR_NOMEM. Messages name the file.
 * Threads   An open model is read-only.
 */
#ifndef KN_TEXT_SPM_MODEL_H
#define KN_TEXT_SPM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "io/text.h"

typedef enum kn_spm_kind { /* ModelProto.SentencePiece.Type */
                           KN_SPM_NORMAL = 1,
                           KN_SPM_UNKNOWN = 2,
                           KN_SPM_CONTROL = 3,
                           KN_SPM_USER_DEFINED = 4,
                           KN_SPM_UNUSED = 5,
                           KN_SPM_BYTE = 6
} kn_spm_kind;

typedef struct kn_spm_piece {
    const char *text; /* UTF-8, not terminated */
    int size;         /* bytes, at least 1 */
    float score;      /* log probability; 0 for control and byte pieces */
    kn_spm_kind kind;
} kn_spm_piece;

typedef struct kn_spm_model {
    char *file; /* the whole file; what the pointers below point into */
    kn_spm_piece *piece;
    int count;
    bool byte_fallback;
    bool remove_extra_spaces; /* normaliser: trim, and collapse runs of blanks */
    const char *charsmap;     /* normaliser's precompiled character map; NULL = identity */
    size_t charsmap_size;
} kn_spm_model;

/* data: the content of a spiece.model (copied). name stands in messages. */
KN_CHECKED kn_status kn_spm_model_parse(const char *name, const void *data, size_t size,
                                        kn_spm_model *out);
/* NULL-safe on a zeroed model; zeroes it. */
void kn_spm_model_close(kn_spm_model *m);

/* Append `text` (valid UTF-8) to out with the longest matching sources of the character map
 * replaced. charsmap: u32 trie bytes, the trie (a double array of u32 units, darts-clone), then
 * NUL-terminated replacements. KN_ERR_FORMAT when the map leads outside itself. */
KN_CHECKED kn_status kn_spm_charsmap_apply(const char *charsmap, size_t size, const char *text,
                                           size_t text_size, kn_text *out);

#endif
