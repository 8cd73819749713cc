/* Tokenizer, cleaning and text encoder when memory runs out at every point. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "io/memory.h"
#include "text/prompt_clean.h"
#include "text/tokenizer.h"
#include "text/umt5.h"

#define MODELS KN_SOURCE_DIR "/tests/golden/data"

typedef kn_status use_fn(void *user);

/* Runs fn with the k-th allocation failing, for k = 1, 2, ... until it succeeds. */
static void fail_each_allocation(use_fn *fn, void *user, long at_least)
{
    long k = 1;
    kn_status st;
    do {
        kn_memory_fail_at(k++);
        st = fn(user);
        if (st != KN_OK && st != KN_ERR_NOMEM)
            fail_msg("allocation %ld: %s: %s", k - 1, kn_status_name(st), kn_error_text());
    } while (st != KN_OK);
    kn_memory_fail_at(0);
    assert_true(k > at_least);
    assert_int_equal(fn(user), KN_OK);
}

static kn_status use_tokenizer(void *user)
{
    kn_tokenizer *t = NULL;
    int32_t ids[16];
    int count;
    KN_TRY(kn_tokenizer_open(user, &t));
    kn_status st = kn_tokenizer_encode(t, "A  red fox</s> \xef\xbc\xa1 snow", 16, ids, &count);
    kn_tokenizer_close(&t);
    return st;
}

static kn_status use_clean(void *user)
{
    char *out = NULL;
    kn_status st =
        kn_prompt_clean("caf\xc3\x83\xc2\xa9 &amp; e\xcc\x81\xcc\xa3\n<b> \xef\xac\x81", &out);
    assert_int_equal(st == KN_OK, out != NULL);
    kn_free(out);
    (void)user;
    return st;
}

static kn_status use_encoder(void *user)
{
    kn_dev *d = user;
    kn_status st = KN_OK;
    kn_umt5 *m = NULL;
    kn_arena *arena = NULL;
    static float out[8 * 32];
    static const int32_t ids[4] = {7, 8, 9, 1};
    size_t bytes;
    KN_TRY_GOTO(kn_umt5_open(d, MODELS "/umt5_plain", &m));
    KN_TRY_GOTO(kn_umt5_scratch_bytes(m, 4, &bytes));
    KN_TRY_GOTO(kn_arena_open(d, bytes, &arena));
    kn_umt5_args args = {
        .ids = ids, .count = 4, .scratch = arena, .out = kn_tensor_of(out, KN_F32, 8, 32)};
    KN_TRY_GOTO(kn_umt5_encode(m, &args));
done:
    kn_arena_close(&arena);
    kn_umt5_close(&m);
    assert_int_equal(kn_dev_bytes_now(d), 0);
    return st;
}

static void tokenizer(void **state)
{
    (void)state;
    fail_each_allocation(use_tokenizer, (void *)(uintptr_t)(MODELS "/tokenizer_map"), 10);
}

static void cleaning(void **state)
{
    (void)state;
    fail_each_allocation(use_clean, NULL, 20);
}

static void encoder(void **state)
{
    (void)state;
    static const kn_dev_kind kinds[] = {KN_DEV_REF, KN_DEV_CPU};
    for (int i = 0; i < 2; i++) {
        kn_dev *d = NULL;
        assert_int_equal(kn_dev_open(&(kn_dev_params){.kind = kinds[i], .threads = 1}, &d), KN_OK);
        fail_each_allocation(use_encoder, d, 20);
        kn_dev_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer),
        cmocka_unit_test(cleaning),
        cmocka_unit_test(encoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
