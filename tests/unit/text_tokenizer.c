/* What a tokenizer refuses, and what spiece.model alone gives. Ids against transformers:
 * tests/golden/text_tokenizer.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/atomic_file.h"
#include "io/memory.h"
#include "text/tokenizer.h"

#define MODELS KN_SOURCE_DIR "/tests/golden/data"

typedef struct files {
    char *spm, *json;
    size_t spm_size, json_size;
} files;

static files read_files(const char *folder)
{
    files f;
    char path[512];
    snprintf(path, sizeof path, "%s/spiece.model", folder);
    assert_int_equal(kn_file_read(path, 1 << 20, &f.spm, &f.spm_size), KN_OK);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    assert_int_equal(kn_file_read(path, 1 << 20, &f.json, &f.json_size), KN_OK);
    return f;
}

static void free_files(files *f)
{
    kn_free(f->spm);
    kn_free(f->json);
}

static void expect_failure(kn_status got, kn_status want, const char *words)
{
    if (got != want || !strstr(kn_error_text(), words))
        fail_msg("status %s: \"%s\"; expected %s with \"%s\"", kn_status_name(got), kn_error_text(),
                 kn_status_name(want), words);
}

static void folders_without_a_model_are_refused(void **state)
{
    (void)state;
    kn_tokenizer *t = NULL;
    char folder[] = "/tmp/kn_tokenizer_XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    expect_failure(kn_tokenizer_open(folder, &t), KN_ERR_IO, "no spiece.model");
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    expect_failure(kn_tokenizer_open(folder, &t), KN_ERR_IO, "tokenizer.json alone is not enough");
    assert_null(t);
    unlink(path);
    rmdir(folder);
}

/* tokenizer.json with one text replaced by another of any length. */
static kn_status open_edited(const files *f, const char *from, const char *to, kn_tokenizer **t)
{
    char *at = strstr(f->json, from);
    assert_non_null(at);
    size_t before = (size_t)(at - f->json), size = f->json_size - strlen(from) + strlen(to);
    char *json = malloc(size + 1);
    assert_non_null(json);
    snprintf(json, size + 1, "%.*s%s%s", (int)before, f->json, to, at + strlen(from));
    kn_status st = kn_tokenizer_parse("edited", f->spm, f->spm_size, json, size, t);
    free(json);
    return st;
}

static void unknown_pipelines_are_refused(void **state)
{
    (void)state;
    kn_tokenizer *t = NULL;
    files f = read_files(MODELS "/tokenizer_umt5");
    static const struct {
        const char *from, *to, *words;
        kn_status status;
    } edits[] = {
        {"\"type\":\"Unigram\"", "\"type\":\"BPE\"", "\"Unigram\" is expected", KN_ERR_UNSUPPORTED},
        {"\"unk_id\":3", "\"unk_id\":999999", "unk_id 999999", KN_ERR_FORMAT},
        {"\"Regex\":\" {2,}\"", "\"Regex\":\"a+\"", "normalizer", KN_ERR_UNSUPPORTED},
        {"\"prepend_scheme\":\"always\"", "\"prepend_scheme\":\"first\"", "pre_tokenizer",
         KN_ERR_UNSUPPORTED},
        {"{\"SpecialToken\":{\"id\":\"</s>\"", "{\"SpecialToken\":{\"id\":\"<s>\"",
         "post_processor", KN_ERR_UNSUPPORTED},
        {"\"lstrip\":false", "\"lstrip\":true", "added_tokens", KN_ERR_UNSUPPORTED},
        {"\"id\":2,\"content\":\"<s>\"", "\"id\":7,\"content\":\"<s>\"", "the id 7", KN_ERR_FORMAT},
        {"{\"version\"", "{\"version", "edited/tokenizer.json", KN_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        expect_failure(open_edited(&f, edits[i].from, edits[i].to, &t), edits[i].status,
                       edits[i].words);
        assert_null(t);
    }
    assert_int_equal(
        open_edited(&f, "\"prepend_scheme\":\"always\"", "\"add_prefix_space\":true", &t),
        KN_OK); /* as files of 2023 have it */
    kn_tokenizer_close(&t);
    free_files(&f);
}

static void cut_models_are_refused(void **state)
{
    (void)state;
    files f = read_files(MODELS "/tokenizer_map");
    for (size_t size = 0; size < f.spm_size; size += size < 600 ? 1 : 211) {
        kn_tokenizer *t = NULL;
        kn_status st = kn_tokenizer_parse("cut", f.spm, size, f.json, f.json_size, &t);
        assert_true(st == KN_ERR_FORMAT || st == KN_ERR_UNSUPPORTED);
        assert_null(t);
    }
    free_files(&f);
}

static void encode_checks_its_arguments(void **state)
{
    (void)state;
    kn_tokenizer *t = NULL;
    int32_t ids[8];
    int count;
    assert_int_equal(kn_tokenizer_open(MODELS "/tokenizer_umt5", &t), KN_OK);
    expect_failure(kn_tokenizer_encode(t, "a", 0, ids, &count), KN_ERR_ARG, "at least 1");
    expect_failure(kn_tokenizer_encode(t, "fox \xff", 8, ids, &count), KN_ERR_ARG,
                   "byte 0xff at offset 4");
    expect_failure(kn_tokenizer_encode(t, "\xed\xa0\x80", 8, ids, &count), KN_ERR_ARG, "offset 0");
    assert_int_equal(kn_tokenizer_encode(t, "", 8, ids, &count), KN_OK);
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], 1);
    for (int i = 1; i < 8; i++) assert_int_equal(ids[i], 0);
    kn_tokenizer_close(&t);
    kn_tokenizer_close(&t);
}

static void id_limit_counts_special_tokens(void **state)
{
    (void)state;
    kn_tokenizer *t = NULL;
    int32_t ids[4];
    int count;
    assert_int_equal(kn_tokenizer_open(MODELS "/tokenizer_umt5", &t), KN_OK);
    int limit = kn_tokenizer_id_limit(t);
    assert_int_equal(kn_tokenizer_encode(t, "<extra_id_0><extra_id_299>", 4, ids, &count), KN_OK);
    assert_int_equal(ids[0], limit - 1);
    assert_int_equal(ids[1], limit - 300);
    assert_int_equal(count, 3);
    kn_tokenizer_close(&t);
}

/* Without tokenizer.json the model's own settings hold: for tokenizer_map they say the same. */
static void model_alone_gives_the_same_ids(void **state)
{
    (void)state;
    enum { MAX_LEN = 64 };
    files f = read_files(MODELS "/tokenizer_map");
    kn_tokenizer *both = NULL, *alone = NULL;
    assert_int_equal(kn_tokenizer_parse("both", f.spm, f.spm_size, f.json, f.json_size, &both),
                     KN_OK);
    assert_int_equal(kn_tokenizer_parse("alone", f.spm, f.spm_size, NULL, 0, &alone), KN_OK);
    static const char *const prompts[] = {"",
                                          "  A Red  FOX ",
                                          "a</s>b <pad>",
                                          "fox \xf0\x9f\xa6\x8a",
                                          "\xef\xbc\xa1\xe3\x80\x80x",
                                          "\xe4\xb8\xad\xe6\x96\x87"};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        int32_t a[MAX_LEN], b[MAX_LEN];
        int na, nb;
        assert_int_equal(kn_tokenizer_encode(both, prompts[i], MAX_LEN, a, &na), KN_OK);
        assert_int_equal(kn_tokenizer_encode(alone, prompts[i], MAX_LEN, b, &nb), KN_OK);
        assert_int_equal(na, nb);
        assert_memory_equal(a, b, sizeof a);
    }
    kn_tokenizer_close(&both);
    kn_tokenizer_close(&alone);
    free_files(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_without_a_model_are_refused),
        cmocka_unit_test(unknown_pipelines_are_refused),
        cmocka_unit_test(cut_models_are_refused),
        cmocka_unit_test(encode_checks_its_arguments),
        cmocka_unit_test(id_limit_counts_special_tokens),
        cmocka_unit_test(model_alone_gives_the_same_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
