/* Published digests of FIPS 180-4 examples and of sizes around a block's end; any split of the input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/sha256.h"

static void of(const void *data, size_t n, size_t piece, char out[KN_SHA256_TEXT])
{
    kn_sha256 s;
    kn_sha256_init(&s);
    for (size_t i = 0; i < n; i += piece) kn_sha256_add(&s, (const char *)data + i, n - i < piece ? n - i : piece);
    kn_sha256_text(&s, out);
}

static void published(void **state)
{
    (void)state;
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    char out[KN_SHA256_TEXT];
    of("", 0, 1, out);
    assert_string_equal(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    of("abc", 3, 1, out);
    assert_string_equal(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    of(two, sizeof two - 1, 7, out);
    assert_string_equal(out, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void million(void **state)
{
    (void)state;
    static char a[1000000];
    char out[KN_SHA256_TEXT];
    memset(a, 'a', sizeof a);
    of(a, sizeof a, 4093, out);
    assert_string_equal(out, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void pieces(void **state)
{
    (void)state;
    char a[200], whole[KN_SHA256_TEXT], parts[KN_SHA256_TEXT];
    for (size_t i = 0; i < sizeof a; i++) a[i] = (char)(i * 37 + 11);
    for (size_t n = 0; n <= sizeof a; n++)
        for (size_t piece = 1; piece < 130; piece += 9) {
            of(a, n, sizeof a, whole);
            of(a, n, piece, parts);
            assert_string_equal(whole, parts);
        }
}

static void file(void **state)
{
    (void)state;
    char out[KN_SHA256_TEXT];
    FILE *f = fopen("sha256_test.txt", "wb");
    assert_non_null(f);
    fputs("abc", f);
    fclose(f);
    assert_int_equal(kn_sha256_file("sha256_test.txt", out), KN_OK);
    assert_string_equal(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    unlink("sha256_test.txt");
    assert_int_equal(kn_sha256_file("sha256_test.txt", out), KN_ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published), cmocka_unit_test(million),
                                       cmocka_unit_test(pieces), cmocka_unit_test(file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
