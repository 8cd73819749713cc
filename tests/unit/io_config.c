#include "tests/expect.h"

#include "io/config.h"
#include "io/memory.h"
#include "io/text.h"

static kn_config *parsed(kn_config_format format, const char *text)
{
    kn_config *c;
    expect_ok(kn_config_parse(format == KN_CONFIG_JSON ? "c.json" : "c.yaml", format, text,
                              strlen(text), &c));
    return c;
}

static kn_status parse(kn_config_format format, const char *text, size_t size)
{
    kn_config *c;
    kn_status st =
        kn_config_parse(format == KN_CONFIG_JSON ? "c.json" : "c.yaml", format, text, size, &c);
    assert_int_equal(st == KN_OK, c != NULL);
    kn_config_close(&c);
    return st;
}

static kn_status yaml(const char *text)
{
    return parse(KN_CONFIG_YAML, text, strlen(text));
}
static kn_status json(const char *text)
{
    return parse(KN_CONFIG_JSON, text, strlen(text));
}

/* ---- the tree -------------------------------------------------------------------------------- */

static void yaml_becomes_a_tree_with_places(void **state)
{
    (void)state;
    kn_config *c = parsed(KN_CONFIG_YAML, "# a batch\n"
                                          "defaults:\n"
                                          "  steps: 30\n"
                                          "  size: [832, 480]\n"
                                          "jobs:\n"
                                          "  - prompt: \"a: b\"\n"
                                          "    note: |\n"
                                          "      two\n"
                                          "      lines\n"
                                          "  - prompt: plain text\n"
                                          "    seed:\n");
    const kn_node *root = kn_config_root(c);
    assert_string_equal(kn_config_path(c), "c.yaml");
    assert_null(root->parent);
    assert_int_equal(root->count, 2);
    const kn_node *defaults = kn_node_find(root, "defaults"), *jobs = kn_node_find(root, "jobs");
    assert_ptr_equal(defaults->parent, root);
    assert_int_equal(defaults->line, 2);
    assert_int_equal(defaults->column, 1);
    const kn_node *size = kn_node_find(defaults, "size");
    assert_int_equal(size->kind, KN_NODE_LIST);
    assert_int_equal(size->count, 2);
    assert_string_equal(size->item[1].text, "480");
    assert_int_equal(size->item[1].line, 4);
    assert_int_equal(size->item[1].column, 15);
    assert_int_equal(jobs->count, 2);
    const kn_node *prompt = kn_node_find(&jobs->item[0], "prompt");
    assert_int_equal(prompt->scalar, KN_SCALAR_STRING);
    assert_string_equal(prompt->text, "a: b");
    assert_string_equal(kn_node_find(&jobs->item[0], "note")->text, "two\nlines\n");
    prompt = kn_node_find(&jobs->item[1], "prompt");
    assert_int_equal(prompt->scalar, KN_SCALAR_PLAIN);
    assert_string_equal(prompt->text, "plain text");
    assert_int_equal(prompt->line, 10);
    assert_true(kn_node_is_null(kn_node_find(&jobs->item[1], "seed")));
    assert_false(kn_node_has(&jobs->item[1], "seed"));
    assert_null(kn_node_find(prompt, "prompt"));
    assert_null(kn_node_find(jobs, "prompt"));
    assert_int_equal(kn_node_fail(KN_ERR_ARG, prompt, "no %s", "way"), KN_ERR_ARG);
    assert_string_equal(kn_error_text(), "c.yaml:10:5: key 'jobs[1].prompt': no way");
    kn_config_close(&c);
    assert_null(c);
}

static void json_becomes_the_same_tree(void **state)
{
    (void)state;
    kn_config *c =
        parsed(KN_CONFIG_JSON, "{\"b\": {\"c\": [1, -2.50, \"3\", true, null]}, \"a\": {}}");
    const kn_node *root = kn_config_root(c);
    assert_string_equal(root->item[0].key, "b"); /* the file's order */
    const kn_node *list = kn_node_find(kn_node_find(root, "b"), "c");
    static const char *const text[] = {"1", "-2.5", "3", "true", "null"};
    for (int i = 0; i < 5; i++) {
        assert_string_equal(list->item[i].text, text[i]);
        assert_int_equal(list->item[i].scalar, i == 2 ? KN_SCALAR_STRING : KN_SCALAR_LITERAL);
    }
    (void)kn_node_fail(KN_ERR_ARG, &list->item[2], "bad");
    assert_string_equal(kn_error_text(), "c.json: key 'b.c[2]': bad");
    (void)kn_node_fail(KN_ERR_ARG, root, "bad");
    assert_string_equal(kn_error_text(), "c.json: bad");
    kn_config_close(&c);
    kn_config_close(&c);
    kn_config_close(NULL);
}

static void an_empty_yaml_file_is_an_empty_map(void **state)
{
    (void)state;
    static const char *const empty[] = {"", "\n\n", "# only a comment\n"};
    for (int i = 0; i < 3; i++) {
        kn_config *c = parsed(KN_CONFIG_YAML, empty[i]);
        assert_int_equal(kn_config_root(c)->kind, KN_NODE_MAP);
        assert_int_equal(kn_config_root(c)->count, 0);
        kn_config_close(&c);
    }
}

static void bad_yaml_is_named_with_its_place(void **state)
{
    (void)state;
    expect_fail(yaml("a: 1\nb: [1, 2\nc: 3\n"), KN_ERR_FORMAT, "c.yaml:3:");
    expect_fail(yaml("a: 1\n\tb: 2\n"), KN_ERR_FORMAT, "c.yaml:2:1:");
    expect_fail(yaml("a: 'open\n"), KN_ERR_FORMAT, "c.yaml:2:1:", "scalar");
    expect_fail(yaml("a: 1\nb: 2\na: 3\n"), KN_ERR_FORMAT, "c.yaml:3:1:", "'a'", "line 1");
    expect_fail(yaml("a: &x 1\n"), KN_ERR_FORMAT, "c.yaml:1:4:", "anchor");
    expect_fail(yaml("a: *x\n"), KN_ERR_FORMAT, "c.yaml:1:4:", "alias");
    expect_fail(yaml("a: !!python/object x\n"), KN_ERR_FORMAT, "c.yaml:1:4:", "tag");
    expect_fail(yaml("a: &x [1]\n"), KN_ERR_FORMAT, "c.yaml:1:4:", "anchor");
    expect_fail(yaml("a: !t {}\n"), KN_ERR_FORMAT, "c.yaml:1:4:", "tag");
    expect_fail(yaml("[1, 2]: 3\n"), KN_ERR_FORMAT, "c.yaml:1:1:", "expected a key");
    expect_fail(yaml("a: \"x\\0y\"\n"), KN_ERR_FORMAT, "c.yaml:1:4:", "NUL");
    expect_fail(yaml("\"x\\0y\": 1\n"), KN_ERR_FORMAT, "c.yaml:1:1:", "NUL");
    expect_fail(yaml("a: 1\n---\nb: 2\n"), KN_ERR_FORMAT, "c.yaml:2:1:", "one document");
    expect_fail(yaml("- a\n- b\n"), KN_ERR_FORMAT, "c.yaml:1:1:", "found a list");
    expect_fail(yaml("text\n"), KN_ERR_FORMAT, "c.yaml:1:1:", "single value");
    expect_fail(yaml("a: \xff\n"), KN_ERR_FORMAT, "c.yaml: byte 3", "UTF-8");
    expect_fail(json("[1]"), KN_ERR_FORMAT, "c.json:", "found a list");
    expect_fail(json("{\"a\": }"), KN_ERR_FORMAT, "c.json: line 1");
}

static void size_is_bounded(void **state)
{
    (void)state;
    kn_text t = {0};
    expect_ok(kn_text_add(&t, "a: "));
    for (int i = 0; i < 5000; i++) expect_ok(kn_text_add(&t, "["));
    expect_fail(yaml(t.data), KN_ERR_FORMAT, "c.yaml", "deeper than 32");
    t.size = 0;
    expect_ok(kn_text_add(&t, "{\"a\": "));
    for (int i = 0; i < 40; i++) expect_ok(kn_text_add(&t, "["));
    for (int i = 0; i < 40; i++) expect_ok(kn_text_add(&t, "]"));
    expect_ok(kn_text_add(&t, "}"));
    expect_fail(json(t.data), KN_ERR_FORMAT, "c.json", "deeper than 32");
    t.size = 0;
    expect_ok(kn_text_add(&t, "a: [0"));
    for (int i = 0; i < KN_CONFIG_MAX_NODES; i++) expect_ok(kn_text_add(&t, ",0"));
    expect_ok(kn_text_add(&t, "]"));
    expect_fail(yaml(t.data), KN_ERR_FORMAT, "c.yaml", "more than 262144 values");
    kn_free(t.data);
    expect_fail(parse(KN_CONFIG_YAML, "", (size_t)KN_CONFIG_MAX_BYTES + 1), KN_ERR_FORMAT,
                "at most");
}

static void the_name_tells_the_format(void **state)
{
    (void)state;
    kn_config *c;
    put_file(temp_path("a.json"), "{\"a\": 1}", 8);
    put_file(temp_path("a.yaml"), "a: 1", 4);
    put_file(temp_path("a.yml"), "a: 1", 4);
    put_file(temp_path("a.txt"), "a: 1", 4);
    static const char *const names[] = {"a.json", "a.yaml", "a.yml"};
    for (int i = 0; i < 3; i++) {
        int a = 0;
        expect_ok(kn_config_open(temp_path(names[i]), &c));
        expect_ok(kn_node_int(kn_config_root(c), "a", 0, 9, &a));
        assert_int_equal(a, 1);
        assert_string_equal(kn_config_path(c), temp_path(names[i]));
        kn_config_close(&c);
    }
    expect_fail(kn_config_open(temp_path("a.txt"), &c), KN_ERR_ARG, "a.txt",
                ".json, .yaml or .yml");
    assert_null(c);
    expect_fail(kn_config_open(temp_path("b.yaml"), &c), KN_ERR_IO, "b.yaml", "No such file");
}

/* ---- typed values ---------------------------------------------------------------------------- */

static void values_are_read_by_type(void **state)
{
    (void)state;
    static const char *const modes[] = {"first", "last"};
    static const char *const text[] = {"{\"i\": 12, \"d\": -0.5, \"e\": 3, \"t\": true, \"f\": "
                                       "false, \"s\": \"x y\", \"m\": \"last\","
                                       " \"l\": [1, 2, 3], \"r\": [0.5, 1], \"n\": null}",
                                       "i: 12\nd: -0.5\ne: 3\nt: true\nf: false\ns: x y\nm: "
                                       "last\nl: [1, 2, 3]\nr: [0.5, 1]\nn: ~\n"};
    for (int k = 0; k < 2; k++) {
        kn_config *c = parsed(k ? KN_CONFIG_YAML : KN_CONFIG_JSON, text[k]);
        const kn_node *m = kn_config_root(c);
        int i = 0, list[3] = {0}, count = 0;
        double d = 0, reals[2] = {0};
        const char *s = NULL;
        expect_ok(kn_node_int(m, "i", 12, 12, &i));
        assert_int_equal(i, 12);
        expect_ok(kn_node_double(m, "d", -1, 1, &d));
        assert_true(d == -0.5);
        expect_ok(kn_node_double(m, "e", 3, 3, &d));
        assert_true(d == 3);
        expect_ok(kn_node_bool(m, "t", &i));
        assert_int_equal(i, 1);
        expect_ok(kn_node_bool(m, "f", &i));
        assert_int_equal(i, 0);
        expect_ok(kn_node_string(m, "s", &s));
        assert_string_equal(s, "x y");
        expect_ok(kn_node_choice(m, "m", modes, 2, &i));
        assert_int_equal(i, 1);
        expect_ok(kn_node_ints(m, "l", 1, 3, 0, 3, list, &count));
        assert_int_equal(count, 3);
        assert_int_equal(list[2], 3);
        expect_ok(kn_node_doubles(m, "r", 0, 1, 2, 2, reals, NULL));
        assert_true(reals[0] == 0.5 && reals[1] == 1);
        /* Absent or null: the fallback. Present: the value. */
        static const char *const absent[] = {"n", "absent"};
        for (int a = 0; a < 2; a++) {
            expect_ok(kn_node_int_or(m, absent[a], 0, 1, 77, &i));
            assert_int_equal(i, 77);
            expect_ok(kn_node_double_or(m, absent[a], 0, 1, 7.5, &d));
            assert_true(d == 7.5);
            expect_ok(kn_node_bool_or(m, absent[a], 1, &i));
            assert_int_equal(i, 1);
            expect_ok(kn_node_string_or(m, absent[a], NULL, &s));
            assert_null(s);
            expect_ok(kn_node_choice_or(m, absent[a], modes, 2, -1, &i));
            assert_int_equal(i, -1);
        }
        expect_ok(kn_node_int_or(m, "i", 0, 99, 77, &i));
        assert_int_equal(i, 12);
        expect_ok(kn_node_double_or(m, "d", -1, 1, 7, &d));
        assert_true(d == -0.5);
        expect_ok(kn_node_bool_or(m, "f", 1, &i));
        assert_int_equal(i, 0);
        expect_ok(kn_node_string_or(m, "s", NULL, &s));
        assert_string_equal(s, "x y");
        expect_ok(kn_node_choice_or(m, "m", modes, 2, 0, &i));
        assert_int_equal(i, 1);
        kn_config_close(&c);
    }
}

static void wrong_values_are_named(void **state)
{
    (void)state;
    static const char *const modes[] = {"first", "last"};
    kn_config *c =
        parsed(KN_CONFIG_JSON, "{\"sub\": {\"i\": 12, \"s\": \"12\", \"l\": [1, \"x\"], \"o\": {},"
                               " \"n\": null, \"b\": \"true\", \"h\": 5000000000, \"r\": 1.5}}");
    const kn_node *m = kn_node_find(kn_config_root(c), "sub");
    int i = -7, list[4];
    double d = -7;
    const char *s = "untouched";
    expect_fail(kn_node_int(m, "i", 0, 11, &i), KN_ERR_FORMAT, "c.json: key 'sub.i'",
                "expected an integer from 0 to 11, found 12");
    expect_fail(kn_node_int(m, "s", 0, 99, &i), KN_ERR_FORMAT, "'sub.s'", "found \"12\"");
    expect_fail(kn_node_int(m, "r", 0, 99, &i), KN_ERR_FORMAT, "'sub.r'", "found 1.5");
    expect_fail(kn_node_int(m, "h", 1, INT32_MAX, &i), KN_ERR_FORMAT, "'sub.h'", "at least 1",
                "5000000000");
    expect_fail(kn_node_int(m, "n", 0, 99, &i), KN_ERR_FORMAT, "'sub.n'", "found null");
    expect_fail(kn_node_int(m, "o", INT32_MIN, INT32_MAX, &i), KN_ERR_FORMAT, "'sub.o'",
                "expected an integer, found a map of 0");
    expect_fail(kn_node_int(m, "absent", 0, 99, &i), KN_ERR_FORMAT, "c.json: key 'sub.absent'",
                "expected an integer from 0 to 99, found no such key");
    expect_fail(kn_node_int_or(m, "i", 0, 11, 5, &i), KN_ERR_FORMAT, "'sub.i'");
    expect_fail(kn_node_double(m, "i", 0, 0.5, &d), KN_ERR_FORMAT, "'sub.i'", "from 0.0 to 0.5",
                "12");
    expect_fail(kn_node_double(m, "absent", 0, 1, &d), KN_ERR_FORMAT, "'sub.absent'", "a number");
    expect_fail(kn_node_bool(m, "b", &i), KN_ERR_FORMAT, "'sub.b'", "true or false", "\"true\"");
    expect_fail(kn_node_bool(m, "absent", &i), KN_ERR_FORMAT, "'sub.absent'", "true or false");
    expect_fail(kn_node_string(m, "i", &s), KN_ERR_FORMAT, "'sub.i'", "a string", "12");
    expect_fail(kn_node_string(m, "n", &s), KN_ERR_FORMAT, "'sub.n'", "a string", "null");
    expect_fail(kn_node_string(m, "absent", &s), KN_ERR_FORMAT, "'sub.absent'", "a string");
    expect_fail(kn_node_choice(m, "s", modes, 2, &i), KN_ERR_FORMAT, "'sub.s'",
                "one of first, last", "\"12\"");
    expect_fail(kn_node_choice(m, "absent", modes, 1, &i), KN_ERR_FORMAT,
                "expected first, found no");
    expect_fail(kn_node_ints(m, "l", 0, 9, 0, 4, list, NULL), KN_ERR_FORMAT, "'sub.l[1]'", "\"x\"");
    expect_fail(kn_node_ints(m, "l", 0, 9, 3, 3, list, NULL), KN_ERR_FORMAT, "'sub.l'",
                "a list of 3 values, found a list of 2");
    expect_fail(kn_node_ints(m, "i", 0, 9, 1, 3, list, NULL), KN_ERR_FORMAT, "'sub.i'",
                "a list of 1 to 3 values, found 12");
    expect_fail(kn_node_doubles(m, "l", 2, 9, 1, 3, &d, NULL), KN_ERR_FORMAT, "'sub.l[0]'");
    expect_fail(kn_node_doubles(m, "absent", 2, 9, 1, 3, &d, NULL), KN_ERR_FORMAT, "'sub.absent'");
    assert_int_equal(i, -7);
    assert_true(d == -7);
    assert_string_equal(s, "untouched");
    kn_config_close(&c);
}

static void yaml_quotes_make_strings(void **state)
{
    (void)state;
    kn_config *c = parsed(KN_CONFIG_YAML, "a: 12\nb: \"12\"\nc:\nd: 'null'\ne: yes\n");
    const kn_node *m = kn_config_root(c);
    const char *s = NULL;
    int i = 0;
    expect_ok(kn_node_string(m, "a", &s)); /* plain: a string when a string is asked for */
    assert_string_equal(s, "12");
    expect_fail(kn_node_int(m, "b", 0, 99, &i), KN_ERR_FORMAT, "c.yaml:2:1: key 'b':", "\"12\"");
    expect_fail(kn_node_string(m, "c", &s), KN_ERR_FORMAT, "c.yaml:3:1: key 'c':", "found nothing");
    expect_ok(kn_node_string(m, "d", &s));
    assert_string_equal(s, "null");
    expect_fail(kn_node_bool(m, "e", &i), KN_ERR_FORMAT, "true or false", "yes");
    kn_config_close(&c);
}

static void option_files_are_flat(void **state)
{
    (void)state;
    kn_config *c = parsed(KN_CONFIG_YAML, "a: 1\nb: [1, x]\nc:\n");
    expect_ok(kn_node_check_flat(kn_config_root(c)));
    kn_config_close(&c);
    c = parsed(KN_CONFIG_YAML, "a: 1\nb: {c: 1}\n");
    expect_fail(kn_node_check_flat(kn_config_root(c)), KN_ERR_FORMAT, "c.yaml:2:1: key 'b'",
                "a map");
    kn_config_close(&c);
    c = parsed(KN_CONFIG_YAML, "a: 1\nb: [1, [2]]\n");
    expect_fail(kn_node_check_flat(kn_config_root(c)), KN_ERR_FORMAT, "c.yaml:2:8: key 'b[1]'",
                "a list");
    kn_config_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yaml_becomes_a_tree_with_places),
        cmocka_unit_test(json_becomes_the_same_tree),
        cmocka_unit_test(an_empty_yaml_file_is_an_empty_map),
        cmocka_unit_test(bad_yaml_is_named_with_its_place),
        cmocka_unit_test(size_is_bounded),
        cmocka_unit_test(the_name_tells_the_format),
        cmocka_unit_test(values_are_read_by_type),
        cmocka_unit_test(wrong_values_are_named),
        cmocka_unit_test(yaml_quotes_make_strings),
        cmocka_unit_test(option_files_are_flat),
    };
    return cmocka_run_group_tests(tests, temp_folder_setup, temp_folder_teardown);
}
