/* text/tokenizer.h - prompt to token ids, as the UMT5 tokenizer of transformers does it.
 *
 * Purpose   ids = unigram pieces of the text, then </s>, cut to max_len with </s> kept as the last
 *           id, then padded. The ids equal those of the folder's tokenizer.json under transformers,
 *           which is what Wan's AutoTokenizer loads. That is not what the sentencepiece library
 *           gives for the same spiece.model: umt5's tokenizer.json keeps blanks at the ends, starts
 *           every piece of text between special tokens anew, turns a run of unknown characters into
 *           one <unk> (byte_fallback is false), and adds scores in double. Nor is it what
 *           T5TokenizerFast of transformers 5 gives, which takes only the pieces from the file and
 *           splits at white space as T5 does.
 * Files     spiece.model (needed): pieces, scores, character map (text/spm_model.h).
 *           tokenizer.json (used when there): special tokens and their ids, normaliser steps, and
 *           whether bytes stand in for unknown characters. A step that Kinora does not have is
 *           refused, since ignoring it would change ids. Without the file: the special tokens are
 *           the model's control and unknown pieces, and its own normaliser settings and
 *           byte_fallback hold.
 * Method    Text is split at special tokens (leftmost, then longest). Each part is normalised,
 *           blanks become U+2581, one is put in front, and it is cut before each U+2581. Each word
 *           is then the path of highest score over the pieces (Kudo 2018, arXiv 1804.10959); a
 *           character that is no piece costs the lowest score of the model less 10.
 *           huggingface/tokenizers models/unigram/model.rs encode_optimized,
 *           pre_tokenizers/metaspace.rs.
 * Units     ids are rows of the embedding table: Wan 0 <pad>, 1 </s>, 2 <s>, 3 <unk>.
 * Cost      Opening umt5-xxl parses 17 MB of JSON and sorts 256,300 pieces: 0.6 s, once.
 * Errors    KN_ERR_IO, KN_ERR_FORMAT, KN_ERR_UNSUPPORTED, KN_ERR_NOMEM; KN_ERR_ARG for a text that
 *           is not UTF-8 (the message names the byte). Combining sequences under a character map
 *           are matched as sentencepiece does, longest first; tokenizers looks at whole graphemes.
 *           Models with an identity normaliser, as umt5, have no map.
 * Threads   An open tokenizer is read-only: any number of threads may encode.
 */
#ifndef KN_TEXT_TOKENIZER_H
#define KN_TEXT_TOKENIZER_H

#include <stdint.h>

#include "io/status.h"

typedef struct kn_tokenizer kn_tokenizer;

/* folder: the model's tokenizer/ folder. *out is NULL on failure. */
KN_CHECKED kn_status kn_tokenizer_open(const char *folder, kn_tokenizer **out);
/* The same from memory: the content of spiece.model, and of tokenizer.json or NULL. name: a folder,
 * for messages. */
KN_CHECKED kn_status kn_tokenizer_parse(const char *name, const void *spm, size_t spm_size,
                                        const char *json, size_t json_size, kn_tokenizer **out);
/* NULL-safe; sets *t to NULL. */
void kn_tokenizer_close(kn_tokenizer **t);

/* Fill ids[max_len]; *count (1 to max_len) is the length with </s>, before padding. */
KN_CHECKED kn_status kn_tokenizer_encode(const kn_tokenizer *t, const char *text, int max_len,
                                         int32_t *ids, int *count);
/* One more than the highest id. An embedding table must have at least as many rows. */
int kn_tokenizer_id_limit(const kn_tokenizer *t);

#endif
