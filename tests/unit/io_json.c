#include "tests/expect.h"

#include <math.h>

#include "io/atomic_file.h"
#include "io/json.h"
#include "io/memory.h"

static kn_status parse(const char *text)
{
    json_t *value;
    kn_status st = kn_json_parse("f.json", text, strlen(text), 100, &value);
    assert_int_equal(st == KN_OK, value != NULL);
    json_decref(value);
    return st;
}

static void strict_json_only(void **state)
{
    (void)state;
    expect_ok(parse(" {\"a\": [1, 2.5, \"\\u00e9\", null, true]} \n"));
    expect_fail(parse("{\"a\": 1,\n \"a\": 2}"), KN_ERR_FORMAT, "f.json: line 2", "duplicate",
                "\"a\"");
    expect_fail(parse("{\"a\": 1} x"), KN_ERR_FORMAT, "f.json: line 1", "end of file expected");
    expect_fail(parse("{\"a\": 01}"), KN_ERR_FORMAT, "f.json: line 1");
    expect_fail(parse("{\"a\": NaN}"), KN_ERR_FORMAT, "f.json: line 1");
    expect_fail(parse("{\"a\": \"\\u0000\"}"), KN_ERR_FORMAT, "f.json", "u0000");
    expect_fail(parse("{\"a\": \"\xff\"}"), KN_ERR_FORMAT, "f.json");
    expect_fail(parse("{\"a\": 9223372036854775808}"), KN_ERR_FORMAT, "too big integer");
    expect_fail(parse("{\"a\": 1e400}"), KN_ERR_FORMAT, "real number overflow");
    expect_fail(parse(""), KN_ERR_FORMAT, "f.json");
    expect_fail(parse("\"cut"), KN_ERR_FORMAT, "f.json");
}

static void size_is_bounded_before_building(void **state)
{
    (void)state;
    kn_text t = {0};
    for (int i = 0; i < KN_JSON_MAX_DEPTH; i++) expect_ok(kn_text_add(&t, "["));
    for (int i = 0; i < KN_JSON_MAX_DEPTH; i++) expect_ok(kn_text_add(&t, "]"));
    expect_ok(parse(t.data));
    t.size = 0;
    for (int i = 0; i < 100000; i++) expect_ok(kn_text_add(&t, "["));
    expect_fail(parse(t.data), KN_ERR_FORMAT, "f.json", "deeper than 64");
    t.size = 0;
    expect_ok(kn_text_add(&t, "[0"));
    for (int i = 0; i < 100; i++) expect_ok(kn_text_add(&t, ",0"));
    expect_ok(kn_text_add(&t, "]"));
    expect_fail(parse(t.data), KN_ERR_FORMAT, "f.json", "more than 100 values");
    /* Brackets and quotes inside strings do not count. */
    t.size = 0;
    expect_ok(kn_text_add(&t, "[\"\\\"[[[[,,,,"));
    for (int i = 0; i < 200; i++) expect_ok(kn_text_add(&t, "[,"));
    expect_ok(kn_text_add(&t, "\\\\\", 1]"));
    expect_ok(parse(t.data));
    kn_free(t.data);
}

static void output_is_deterministic(void **state)
{
    (void)state;
    char *data;
    size_t size;
    json_t *v = json_pack("{s:s, s:f, s:i, s:b, s:n, s:[i,i], s:[{s:f}], s:{}, s:[]}", "prompt",
                          "a \"b\"\\\n\t\001\xc3\xa9", "guidance", 0.1, "steps", 50, "tiled", 1,
                          "seed", "size", 832, 480, "stages", "sigma", 1.0 / 3, "none", "empty");
    assert_non_null(v);
    expect_ok(kn_json_write(temp_path("out.json"), v));
    expect_ok(kn_file_read(temp_path("out.json"), 10000, &data, &size));
    assert_string_equal(data, "{\n"
                              "  \"prompt\": \"a \\\"b\\\"\\\\\\n\\t\\u0001\xc3\xa9\",\n"
                              "  \"guidance\": 0.1,\n"
                              "  \"steps\": 50,\n"
                              "  \"tiled\": true,\n"
                              "  \"seed\": null,\n"
                              "  \"size\": [832, 480],\n"
                              "  \"stages\": [\n"
                              "    {\n"
                              "      \"sigma\": 0.3333333333333333\n"
                              "    }\n"
                              "  ],\n"
                              "  \"none\": {},\n"
                              "  \"empty\": []\n"
                              "}\n");
    json_t *back;
    expect_ok(kn_json_parse("out.json", data, size, 1000, &back));
    assert_true(json_equal(v, back));
    json_decref(back);
    json_decref(v);
    kn_free(data);
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    kn_text t = {0};
    expect_fail(kn_json_add_value(&t, NULL), KN_ERR_ARG, "missing value");
    json_t *deep = json_array();
    for (int i = 0; i < KN_JSON_MAX_DEPTH + 1; i++) deep = json_pack("[o]", deep);
    expect_fail(kn_json_add_value(&t, deep), KN_ERR_ARG, "deeper");
    expect_fail(kn_json_write(temp_path("deep.json"), deep), KN_ERR_ARG, "deeper");
    assert_int_equal(access(temp_path("deep.json"), F_OK), -1);
    json_decref(deep);
    kn_free(t.data);
}

static void any_bytes_become_text(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"caf\xc3\xa9.mp4", "caf\xc3\xa9.mp4"}, {"caf\xe9.mp4", "caf?.mp4"}, {"\xc3\xa9\xff", "???"}, {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *v = kn_json_text(cases[i][0]);
        assert_string_equal(json_string_value(v), cases[i][1]);
        json_decref(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strict_json_only),
        cmocka_unit_test(size_is_bounded_before_building),
        cmocka_unit_test(output_is_deterministic),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(any_bytes_become_text),
    };
    return cmocka_run_group_tests(tests, temp_folder_setup, temp_folder_teardown);
}
