/* Any bytes as a tokenizer: spiece.model, tokenizer.json and a prompt, behind their sizes.
 *
 *   u32 little-endian bytes of spiece.model, u32 bytes of tokenizer.json (0: none), then the three.
 *
 * Opened or refused; ids of an opened one are in range, end with </s>, and are the same again.
 */
#include "text/tokenizer.h"
#include "tests/fuzz/fuzz.h"

static size_t size_at(const uint8_t *p)
{
    return (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { MAX_LEN = 32 };
    if (size < 8) return 0;
    size_t spm = size_at(data), json = size_at(data + 4);
    data += 8;
    size -= 8;
    if (spm > size || json > size - spm) return 0;
    kn_tokenizer *t;
    kn_status st =
        kn_tokenizer_parse("fuzz", data, spm, json ? (const char *)data + spm : NULL, json, &t);
    require((st == KN_OK) == (t != NULL));
    if (!t) return 0;
    size_t text_size = size - spm - json;
    char *text = malloc(text_size + 1);
    require(text != NULL);
    memcpy(text, data + spm + json, text_size);
    text[text_size] = 0;
    int32_t ids[MAX_LEN], again[MAX_LEN];
    int count, count_again;
    if (kn_tokenizer_encode(t, text, MAX_LEN, ids, &count) == KN_OK) {
        require(count >= 1 && count <= MAX_LEN);
        for (int i = 0; i < MAX_LEN; i++) require(ids[i] >= 0 && ids[i] < kn_tokenizer_id_limit(t));
        if (went_well(kn_tokenizer_encode(t, text, MAX_LEN, again, &count_again)))
            require(count == count_again && memcmp(ids, again, sizeof ids) == 0);
    }
    free(text);
    kn_tokenizer_close(&t);
    return 0;
}
