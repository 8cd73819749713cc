/* kn_prompt_clean() gives what diffusers' prompt_clean gives. Data: tools/golden_text_clean.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "io/memory.h"
#include "io/safetensors.h"
#include "text/nfc.h"
#include "text/prompt_clean.h"

static kn_safetensors *data;

static int setup(void **state)
{
    (void)state;
    return kn_safetensors_open(KN_TEST_DATA "/text_clean.safetensors", NULL, &data) != KN_OK;
}

static int teardown(void **state)
{
    (void)state;
    kn_safetensors_close(&data);
    return 0;
}

static char *text_of(const kn_st_tensor *t)
{
    char *text;
    assert_int_equal(kn_alloc_zero(t->bytes + 1, (void **)&text), KN_OK);
    memcpy(text, t->data, t->bytes);
    return text;
}

/* Cleans every "<from>/<n>" and compares with "<to>/<n>"; reports all differences, then fails. */
static int compare_all(const char *from, const char *to)
{
    int seen = 0, wrong = 0;
    for (int i = 0; i < kn_safetensors_count(data); i++) {
        const kn_st_tensor *in = kn_safetensors_at(data, i);
        size_t prefix = strlen(from);
        if (strncmp(in->name, from, prefix) != 0 || in->name[prefix] != '/') continue;
        char name[64];
        snprintf(name, sizeof name, "%s%s", to, in->name + prefix);
        const kn_st_tensor *out = kn_safetensors_find(data, name, NULL);
        assert_non_null(out);
        char *text = text_of(in), *want = text_of(out), *got = NULL;
        if (kn_prompt_clean(text, &got) != KN_OK) fail_msg("%s: %s", in->name, kn_error_text());
        if (strcmp(got, want) != 0) {
            print_error("%s: [%s] became [%s], expected [%s]\n", in->name, text, got, want);
            wrong++;
        }
        seen++;
        kn_free(got);
        kn_free(want);
        kn_free(text);
    }
    assert_int_equal(wrong, 0);
    return seen;
}

static void prompts_are_cleaned_as_diffusers_does(void **state)
{
    (void)state;
    assert_true(compare_all("in", "out") >= 300);
}

/* text/mojibake.h says what is left; this is what "left" means. */
static void other_damage_is_left(void **state)
{
    (void)state;
    assert_true(compare_all("left", "kept") >= 6);
}

static void nfc_is_unicodedatas(void **state)
{
    (void)state;
    const kn_st_tensor *in = kn_safetensors_find(data, "nfc_in", NULL);
    const kn_st_tensor *want = kn_safetensors_find(data, "nfc_out", NULL);
    assert_non_null(in);
    assert_non_null(want);
    kn_codepoints from = {0}, to = {0};
    kn_text got = {0};
    assert_int_equal(kn_codepoints_add_utf8(&from, in->data, in->bytes), KN_OK);
    assert_int_equal(kn_nfc(from, &to), KN_OK);
    assert_int_equal(kn_codepoints_to_utf8(to, &got), KN_OK);
    assert_int_equal(got.size, want->bytes);
    assert_memory_equal(got.data, want->data, got.size);
    kn_free(got.data);
    kn_codepoints_free(&from);
    kn_codepoints_free(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nfc_is_unicodedatas),
        cmocka_unit_test(prompts_are_cleaned_as_diffusers_does),
        cmocka_unit_test(other_damage_is_left),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
