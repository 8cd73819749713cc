/* What `kinora compare A.safetensors B.safetensors` prints: every tensor once, with names as they may be shown. */
#include "tests/expect.h"

#include "io/safetensors.h"
#include "pipeline/compare.h"

static void put(const char *path, const char *name, const float *values, int rank, const int64_t *dim, size_t count)
{
    kn_st_tensor t = {.name = name, .dtype = KN_ST_F32, .rank = rank, .data = values, .bytes = count * sizeof *values};
    for (int i = 0; i < rank; i++) t.dim[i] = dim[i];
    expect_ok(kn_safetensors_write(path, &t, 1, NULL));
}

/* What the comparison of a and b prints. */
static const char *compared(const char *a, const char *b)
{
    static char text[1024];
    const char *path = temp_path("printed");
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    FILE *f = fopen(path, "w+");
    assert_non_null(f);
    assert_true(dup2(fileno(f), STDOUT_FILENO) >= 0);
    kn_status st = kn_compare_tensors(a, b);
    fflush(stdout);
    assert_true(dup2(kept, STDOUT_FILENO) >= 0);
    close(kept);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    expect_ok(st);
    return text;
}

static void every_tensor_has_its_line(void **state)
{
    (void)state;
    static const float x[] = {3, 4, 0, 0}, y[] = {3, 4, 0, 5};
    static const int64_t two_by_two[] = {2, 2}, four[] = {4};
    const char *a = temp_path("a.safetensors"), *b = temp_path("b.safetensors");
    put(a, "t", x, 2, two_by_two, 4);
    put(b, "t", y, 2, two_by_two, 4);
    assert_string_equal(compared(a, a), "t [2, 2]: equal\n");
    assert_string_equal(compared(a, b), "t [2, 2]: relative L2 1.000e+00, largest difference 5.000e+00 at [1, 1]\n");
    put(b, "t", x, 1, four, 4);
    assert_string_equal(compared(a, b), "t: [2, 2] and [4]\n");
    put(a, "number", x, 0, NULL, 1);
    put(b, "number", y + 3, 0, NULL, 1);
    assert_string_equal(compared(a, a), "number []: equal\n");
    assert_string_equal(compared(a, b), "number []: relative L2 6.667e-01, largest difference 2.000e+00 at []\n");
}

static void names_from_files_are_made_plain(void **state)
{
    (void)state;
    static const float x[] = {1};
    static const int64_t one[] = {1};
    const char *a = temp_path("a.safetensors"), *b = temp_path("b.safetensors");
    char expected[256];
    put(a, "a\033[31m", x, 1, one, 1);
    put(b, "b\xc2\x9b" "31m", x, 1, one, 1);
    assert_string_equal(compared(a, a), "a?[31m [1]: equal\n");
    snprintf(expected, sizeof expected, "a?[31m: only in %s\nb??31m: only in %s\n", a, b);
    assert_string_equal(compared(a, b), expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_has_its_line),
        cmocka_unit_test(names_from_files_are_made_plain),
    };
    return cmocka_run_group_tests(tests, temp_folder_setup, temp_folder_teardown);
}
