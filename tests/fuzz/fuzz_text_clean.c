/* Any bytes as a prompt: cleaned or refused; what is cleaned is UTF-8 without a blank at the ends
 * or two in a row. */
#include "io/memory.h"
#include "text/prompt_clean.h"
#include "text/utf8.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *out;
    require(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    size_t length = strlen(text);
    bool valid = kn_utf8_check(text, length) == length;
    kn_status st = kn_prompt_clean(text, &out);
    require((st == KN_OK) == (out != NULL));
    if (!valid) require_refused(st, KN_ERR_ARG, NULL);
    if (out) {
        size_t n = strlen(out);
        require(kn_utf8_check(out, n) == n && strstr(out, "  ") == NULL);
        require(n == 0 || (out[0] != ' ' && out[n - 1] != ' '));
    }
    kn_free(out);
    free(text);
    return 0;
}
