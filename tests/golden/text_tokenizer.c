/* kn_tokenizer_encode() gives the ids of transformers. Data: tools/golden_text_tokenizer.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "io/memory.h"
#include "io/safetensors.h"
#include "text/tokenizer.h"

enum { MAX_LEN = 512 };

static kn_safetensors *data;

static int setup(void **state)
{
    (void)state;
    return kn_safetensors_open(KN_TEST_DATA "/text_tokenizer.safetensors", NULL, &data) != KN_OK;
}

static int teardown(void **state)
{
    (void)state;
    kn_safetensors_close(&data);
    return 0;
}

/* Terminated copy of a prompt. */
static char *prompt_text(const char *model, int n)
{
    char name[64];
    snprintf(name, sizeof name, "%s/prompt/%03d", model, n);
    const kn_st_tensor *p = kn_safetensors_find(data, name, NULL);
    assert_non_null(p);
    char *text;
    assert_int_equal(kn_alloc_zero(p->bytes + 1, (void **)&text), KN_OK);
    memcpy(text, p->data, p->bytes);
    return text;
}

static void expect_ids(const kn_tokenizer *t, const kn_st_tensor *want, const char *model, int n,
                       int max_len)
{
    int32_t ids[MAX_LEN], id;
    int count;
    char *text = prompt_text(model, n);
    kn_status st = kn_tokenizer_encode(t, text, max_len, ids, &count);
    if (st != KN_OK) fail_msg("%s: %s", want->name, kn_error_text());
    if (count != want->dim[0])
        fail_msg("%s: %d ids, transformers has %d: \"%s\"", want->name, count, (int)want->dim[0],
                 text);
    for (int i = 0; i < count; i++) {
        memcpy(&id, (const char *)want->data + 4 * i, sizeof id);
        if (ids[i] != id)
            fail_msg("%s: ids[%d] is %d, transformers has %d: \"%s\"", want->name, i, ids[i], id,
                     text);
    }
    for (int i = count; i < max_len; i++) assert_int_equal(ids[i], 0);
    kn_free(text);
}

static void expect_model(const char *model, const char *folder)
{
    kn_tokenizer *t = NULL;
    if (kn_tokenizer_open(folder, &t) != KN_OK) fail_msg("%s", kn_error_text());
    int whole = 0, cut = 0;
    for (int i = 0; i < kn_safetensors_count(data); i++) {
        const kn_st_tensor *want = kn_safetensors_at(data, i);
        size_t prefix = strlen(model);
        int n, k;
        if (strncmp(want->name, model, prefix) != 0) continue;
        if (sscanf(want->name + prefix, "/ids/%d", &n) == 1) {
            expect_ids(t, want, model, n, MAX_LEN);
            whole++;
        } else if (sscanf(want->name + prefix, "/cut/%d/%d", &n, &k) == 2) {
            expect_ids(t, want, model, n, k);
            cut++;
        }
    }
    kn_tokenizer_close(&t);
    assert_true(whole >= 200);
    assert_true(cut >= 100);
}

static void umt5_layout_gives_transformers_ids(void **state)
{
    (void)state;
    expect_model("umt5", KN_TEST_DATA "/tokenizer_umt5");
}

static void character_map_and_byte_fallback_give_transformers_ids(void **state)
{
    (void)state;
    expect_model("map", KN_TEST_DATA "/tokenizer_map");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(umt5_layout_gives_transformers_ids),
        cmocka_unit_test(character_map_and_byte_fallback_give_transformers_ids),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
