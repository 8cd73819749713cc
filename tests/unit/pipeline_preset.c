/* Presets of the user's own: where they are looked for, what they may say, how they are listed and saved. Those that
 * ship are tried by tests/unit/pipeline_single_source.c and the end-to-end tests. */
#include "tests/expect.h"

#include "io/memory.h"
#include "pipeline/preset.h"

static char home[256];
static kn_options o;

static int setup(void **state)
{
    char cwd[160];
    if (temp_folder_setup(state) || !getcwd(cwd, sizeof cwd)) return -1;
    snprintf(home, sizeof home, "%s/%s", cwd, temp_folder);
    return setenv("XDG_CONFIG_HOME", home, 1);
}

static int fresh_options(void **state)
{
    (void)state;
    return kn_options_init(&o) != KN_OK;
}

static int free_options(void **state)
{
    (void)state;
    kn_options_free(&o);
    return 0;
}

/* The preset `name` of this user. */
static void put_preset(const char *name, const char *text)
{
    char path[512];
    mkdir(temp_path("kinora"), 0700);
    mkdir(temp_path("kinora/presets"), 0700);
    snprintf(path, sizeof path, "%s/kinora/presets/%s.yaml", temp_folder, name);
    put_file(path, text, strlen(text));
}

static void drop_preset(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/kinora/presets/%s.yaml", temp_folder, name);
    assert_int_equal(unlink(path), 0);
}

typedef struct listing {
    int count, own;
    char names[4096], about[256]; /* about: of the user's last one */
} listing;

static void add_to_listing(void *user, const char *name, const char *about, bool own)
{
    listing *l = user;
    size_t n = strlen(l->names);
    l->count++;
    l->own += own;
    snprintf(l->names + n, sizeof l->names - n, " %s ", name);
    if (own) snprintf(l->about, sizeof l->about, "%s", about);
}

static const char *text_of(const char *key)
{
    static char text[KN_OPTION_TEXT];
    return kn_options_text(&o, kn_option_find(key), text);
}

static void the_users_own_come_first(void **state)
{
    (void)state;
    static kn_preset_origins origins;
    int count;
    const kn_option *table = kn_option_table(&count);
    put_preset("tiny", "about: small and quick\nsteps: 7\nsize: 320x176\nrefine-shift: '5,7'\n");
    expect_ok(kn_preset_apply("tiny", &o, &origins));
    assert_int_equal(o.steps, 7);
    assert_int_equal(o.width_px, 320);
    assert_int_equal(o.height_px, 176);
    assert_string_equal(o.refine_shift, "5,7");
    static const char *const set[] = {"steps", "size", "width", "height", "refine-shift"};
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        assert_string_equal(origins.name[kn_option_find(set[i]) - table], "your preset tiny");
    assert_string_equal(origins.name[kn_option_find("guidance") - table], "");
    listing l = {0};
    expect_ok(kn_preset_list(add_to_listing, &l));
    assert_int_equal(l.own, 1);
    assert_string_equal(l.about, "small and quick");
    assert_non_null(strstr(l.names, " tiny "));
    assert_non_null(strstr(l.names, " 2x "));
    /* One that has a shipped one's name takes its place, and stands in the list once. */
    int before = l.count;
    put_preset("2x", "about: mine\nextends: 2x\nguidance: 2.5\n");
    expect_ok(kn_preset_apply("2x", &o, NULL));
    assert_string_equal(o.refine_size, "2x"); /* of the shipped one, which it extends */
    assert_true(o.guidance == 2.5);
    l = (listing){0};
    expect_ok(kn_preset_list(add_to_listing, &l));
    assert_int_equal(l.own, 2);
    assert_int_equal(l.count, before);
    drop_preset("2x");
    drop_preset("tiny");
}

static void folders_follow_the_xdg_specification(void **state)
{
    (void)state;
    char *path = NULL;
    expect_ok(kn_options_set(&o, "steps", "9", KN_FROM_COMMAND_LINE, "--steps"));
    setenv("XDG_CONFIG_HOME", "relative/is/ignored", 1);
    setenv("HOME", home, 1);
    expect_ok(kn_preset_save("there", &o, &path));
    assert_int_equal(access(temp_path(".config/kinora/presets/there.yaml"), R_OK), 0);
    kn_free(path);
    unsetenv("XDG_CONFIG_HOME");
    unsetenv("HOME");
    expect_fail(kn_preset_save("there", &o, &path), KN_ERR_IO, "XDG_CONFIG_HOME", "HOME");
    assert_null(path);
    listing l = {0};
    expect_ok(kn_preset_list(add_to_listing, &l));
    assert_int_equal(l.own, 0);
    assert_true(l.count > 10);
    expect_fail(kn_preset_apply("there", &o, NULL), KN_ERR_ARG, "unknown preset 'there'");
    setenv("XDG_CONFIG_HOME", home, 1);
}

static void faults_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        kn_status code;
        const char *says;
    } faults[] = {
        {"steps: [1, 2]\n", KN_ERR_ARG, "bad.yaml:1:1"},
        {"about: x\nsteps: many\n", KN_ERR_ARG, "bad.yaml line 2: steps"},
        {"stepz: 3\n", KN_ERR_ARG, "did you mean 'steps'"},
        {"output: ../out.mp4\n", KN_ERR_ARG, "below the current folder"},
        {"frames-dir: /tmp\n", KN_ERR_ARG, "below the current folder"},
        {"overwrite: true\n", KN_ERR_ARG, "only be given on the command line"},
        {"steps: {a: 1}\n", KN_ERR_FORMAT, "a value or a list"},
        {"extends: no-such\n", KN_ERR_ARG, "unknown preset 'no-such'; there are: "},
        {"extends: ../../etc/passwd\n", KN_ERR_ARG, "unknown preset"},
        {"extends: [2x]\n", KN_ERR_FORMAT, "extends"},
        {"- 1\n", KN_ERR_FORMAT, "bad.yaml"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        put_preset("bad", faults[i].text);
        kn_options_free(&o);
        expect_ok(kn_options_init(&o));
        expect_fail(kn_preset_apply("bad", &o, NULL), faults[i].code, faults[i].says);
    }
    /* What is wrong with one of the user's files does not stand in the way of naming the presets there are. */
    expect_fail(kn_preset_apply("nothing", &o, NULL), KN_ERR_ARG, "unknown preset 'nothing'", "2x", "bad");
    put_preset("bad", "about: [1]\n");
    expect_fail(kn_preset_list(add_to_listing, &(listing){0}), KN_ERR_FORMAT, "bad.yaml", "about");
    put_preset("one", "extends: two\n");
    put_preset("two", "extends: one\n");
    expect_fail(kn_preset_apply("one", &o, NULL), KN_ERR_ARG, "circle", "preset one extends two");
    drop_preset("one");
    drop_preset("two");
    drop_preset("bad");
    /* In JSON there are no lines to name. */
    put_file(temp_path("c.json"), "{\"steps\": \"x\"}", 14);
    expect_fail(kn_config_apply(temp_path("c.json"), &o), KN_ERR_ARG, "c.json: steps");
    put_file(temp_path("c.yaml"), "steps: 3\n", 9);
    expect_ok(kn_config_apply(temp_path("c.yaml"), &o));
    assert_int_equal(o.steps, 3);
    expect_fail(kn_config_apply(temp_path("c.txt"), &o), KN_ERR_ARG, "c.txt", ".yaml");
}

static void a_saved_preset_reads_back(void **state)
{
    (void)state;
    static const char *const given[][2] = {
        {"preset", "2x"}, {"steps", "12"}, {"negative-prompt", "a \"quoted\"\n: text"}, {"refine-shift", "5,7"},
        {"seed", "4"}, {"prompt", "not kept"}, {"output", "not-kept.mp4"}, {"size", "640x352"}, {"offload", "true"}};
    char *path = NULL, *again = NULL;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        expect_ok(kn_options_set(&o, given[i][0], given[i][1], KN_FROM_COMMAND_LINE, given[i][0]));
    expect_ok(kn_preset_save("mine", &o, &path));
    assert_non_null(strstr(path, "/kinora/presets/mine.yaml"));
    expect_fail(kn_preset_save("mine", &o, &again), KN_ERR_ARG, "mine.yaml exists", "--overwrite");
    assert_null(again);
    kn_options_free(&o);
    expect_ok(kn_options_init(&o));
    expect_ok(kn_preset_apply("mine", &o, NULL));
    assert_string_equal(o.refine_size, "2x");
    assert_int_equal(o.steps, 12);
    assert_string_equal(o.negative_prompt, "a \"quoted\"\n: text");
    assert_string_equal(o.refine_shift, "5,7");
    assert_int_equal(o.width_px, 640);
    assert_int_equal(o.height_px, 352);
    assert_true(o.offload);
    assert_string_equal(text_of("seed"), "-1");
    assert_null(o.prompt);
    assert_null(o.output);
    expect_ok(kn_options_set(&o, "overwrite", "true", KN_FROM_COMMAND_LINE, "-y"));
    expect_ok(kn_options_set(&o, "steps", "13", KN_FROM_COMMAND_LINE, "--steps"));
    expect_ok(kn_preset_save("mine", &o, &again));
    kn_free(path);
    kn_free(again);
    drop_preset("mine");
}

static void what_cannot_be_saved_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"", ".hidden", "a/b", "..", "a-name-of-forty-nine-signs-is-one-more-than-goes-"};
    char *path = NULL;
    expect_ok(kn_options_set(&o, "seed", "3", KN_FROM_COMMAND_LINE, "--seed"));
    expect_fail(kn_preset_save("empty", &o, &path), KN_ERR_ARG, "nothing to save");
    expect_ok(kn_options_set(&o, "steps", "3", KN_FROM_COMMAND_LINE, "--steps"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        expect_fail(kn_preset_save(names[i], &o, &path), KN_ERR_ARG, "1 to 48 signs");
    put_file(temp_path("file"), "", 0);
    char blocked[320];
    snprintf(blocked, sizeof blocked, "%s/file", home);
    setenv("XDG_CONFIG_HOME", blocked, 1);
    expect_fail(kn_preset_save("x", &o, &path), KN_ERR_IO, "making the folder");
    assert_null(path);
    setenv("XDG_CONFIG_HOME", home, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_users_own_come_first, fresh_options, free_options),
        cmocka_unit_test_setup_teardown(folders_follow_the_xdg_specification, fresh_options, free_options),
        cmocka_unit_test_setup_teardown(faults_are_named, fresh_options, free_options),
        cmocka_unit_test_setup_teardown(a_saved_preset_reads_back, fresh_options, free_options),
        cmocka_unit_test_setup_teardown(what_cannot_be_saved_is_refused, fresh_options, free_options),
    };
    return cmocka_run_group_tests(tests, setup, temp_folder_teardown);
}
