/* The bar fits its terminal at every width; durations read well; JSON events parse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/progress.h"

static void test_bar_fits_the_terminal(void **state)
{
    (void)state;
    kn_event e = {.stage = "denoise", .unit = "steps", .done = 12, .total = 50, .step_sec = 17.8, .eta_sec = 676};
    char text[256];
    for (int columns = 10; columns <= 200; columns++) {
        kn_progress_bar_text(&e, columns, text, sizeof text);
        assert_in_range(strlen(text), 1, columns - 1);
    }
    kn_progress_bar_text(&e, 100, text, sizeof text);
    assert_non_null(strstr(text, "12/50 steps"));
    assert_non_null(strstr(text, "11 min 16 s left"));
    assert_non_null(strchr(text, '#'));
}

static void test_durations(void **state)
{
    (void)state;
    static const struct {
        double sec;
        const char *text;
    } cases[] = {{0.04, "0.0 s"}, {9.94, "9.9 s"}, {9.96, "10 s"}, {59.4, "59 s"}, {60, "1 min 00 s"},
                 {200, "3 min 20 s"}, {3600, "1 h 00 min"}, {7500, "2 h 05 min"}};
    char buf[32];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(kn_duration_text(cases[i].sec, buf, sizeof buf), cases[i].text);
}

static int stop_at_two(void *user, const kn_event *e)
{
    (void)user;
    return e->kind == KN_EVENT_STEP && e->done >= 2;
}

static void test_listener_can_stop(void **state)
{
    (void)state;
    kn_stage s;
    kn_stage_begin(&s, stop_at_two, NULL, "denoise", "steps", 0, 5);
    assert_int_equal(kn_stage_step(&s, 1), KN_OK);
    assert_int_equal(kn_stage_step(&s, 2), KN_ERR_CANCELLED);
    assert_non_null(strstr(kn_error_text(), "denoise 2 of 5"));
}

static void test_json_events(void **state)
{
    (void)state;
    char *data = NULL;
    size_t size;
    FILE *f = open_memstream(&data, &size);
    kn_progress p;
    kn_progress_open(&p, KN_PROGRESS_JSON, true, stderr, f);
    kn_stage s;
    kn_stage_begin(&s, kn_progress_event, &p, "decode", "frames", 3, 9);
    assert_int_equal(kn_stage_step(&s, 5), KN_OK);
    kn_stage_end(&s);
    fclose(f);
    int lines = 0;
    for (char *line = strtok(data, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        json_t *o = json_loads(line, 0, NULL);
        assert_non_null(o);
        assert_string_equal(json_string_value(json_object_get(o, "stage")), "decode");
        assert_int_equal(json_integer_value(json_object_get(o, "total")), 9);
        if (lines == 1) assert_true(json_real_value(json_object_get(o, "eta_sec")) >= 0);
        json_decref(o);
    }
    assert_int_equal(lines, 3);
    free(data);
}

static void test_terminals_with_pictures(void **state)
{
    (void)state;
    static const struct {
        const char *term, *program, *kitty;
        bool inside;
        kn_terminal_images want;
    } cases[] = {
        {"xterm-kitty", NULL, NULL, false, KN_TERMINAL_KITTY},      {"xterm-256color", NULL, "3", false, KN_TERMINAL_KITTY},
        {"xterm-256color", "ghostty", NULL, false, KN_TERMINAL_KITTY}, {"xterm-256color", "iTerm.app", "", false, KN_TERMINAL_ITERM},
        {"xterm-256color", "WezTerm", NULL, false, KN_TERMINAL_ITERM}, {"xterm-256color", NULL, NULL, false, KN_TERMINAL_NONE},
        {"screen-256color", "iTerm.app", "3", false, KN_TERMINAL_NONE}, {"xterm-kitty", NULL, "3", true, KN_TERMINAL_NONE},
        {NULL, NULL, NULL, false, KN_TERMINAL_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(kn_terminal_images_by_name(cases[i].term, cases[i].program, cases[i].kitty, cases[i].inside), cases[i].want);
    assert_true(kn_terminal_answer_has_sixel("\033[?62;4;22c"));
    assert_true(kn_terminal_answer_has_sixel("\033[?4c"));
    assert_true(kn_terminal_answer_has_sixel("x\033[?63;1;2;4c"));
    assert_false(kn_terminal_answer_has_sixel("\033[?1;2c"));
    assert_false(kn_terminal_answer_has_sixel("\033[?64;14;40c"));
    assert_false(kn_terminal_answer_has_sixel("\033[?62;4"));
    assert_false(kn_terminal_answer_has_sixel("\033[?;c"));
    assert_false(kn_terminal_answer_has_sixel("4;4;4c"));
    assert_false(kn_terminal_answer_has_sixel(""));
}

static void test_pictures_keep_their_shape_and_place(void **state)
{
    (void)state;
    static const kn_terminal_cells room = {79, 15, 8, 16};
    static const struct {
        int width, height, columns, rows;
    } cases[] = {{160, 96, 50, 15}, {832, 480, 52, 15}, {96, 160, 18, 15}, {32, 16, 16, 4}, {3840, 80, 79, 1}, {1, 4000, 1, 15}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kn_picture p = {.width_px = cases[i].width, .height_px = cases[i].height};
        kn_terminal_cells c = kn_terminal_image_fit(&p, &room);
        assert_int_equal(c.columns, cases[i].columns);
        assert_int_equal(c.rows, cases[i].rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bar_fits_the_terminal),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_listener_can_stop),
        cmocka_unit_test(test_json_events),
        cmocka_unit_test(test_terminals_with_pictures),
        cmocka_unit_test(test_pictures_keep_their_shape_and_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
