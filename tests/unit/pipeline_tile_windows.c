/* The file of search-windows: what is written reads back; what is wrong with a file is named, with its place. */
#include "tests/expect.h"

#include "io/memory.h"
#include "pipeline/tile_windows.h"

static const int grid[3] = {5, 12, 20};

static void what_is_written_reads_back(void **state)
{
    (void)state;
    enum { RANGES = 3, LAYERS = 2, HEADS = 4 };
    static int window[RANGES * LAYERS * HEADS][3];
    for (int i = 0; i < RANGES * LAYERS * HEADS; i++)
        for (int a = 0; a < 3; a++) window[i][a] = 1 + 2 * ((i + a) % 5);
    kn_tile_windows w = {.layout = {{5, 12, 20}, {5, 2, 4}, 0}, .ranges = RANGES, .layers = LAYERS, .heads = HEADS,
                         .sigma_min = {0.7311, 1.0 / 3, 0}, .window = window}, back;
    json_t *stages = json_array();
    json_array_append_new(stages, kn_tile_windows_json(&w, json_pack("{s:s}", "prompt", "a ball")));
    w.layout.grid[1] = 24;
    json_array_append_new(stages, kn_tile_windows_json(&w, json_object()));
    const char *path = temp_path("w.json");
    expect_ok(kn_tile_windows_write(path, LAYERS, HEADS, stages));
    expect_ok(kn_tile_windows_read(path, grid, LAYERS, HEADS, &back));
    assert_int_equal(back.layout.grid[1], 12);
    assert_int_equal(back.layout.tile[2], 4);
    assert_memory_equal(back.sigma_min, w.sigma_min, RANGES * sizeof(double));
    assert_memory_equal(back.window, window, sizeof window);
    assert_memory_equal(kn_tile_windows_of(&back, 1, 1), window[12], sizeof window[0]);
    assert_int_equal(kn_tile_windows_range(&back, 1), 0);
    assert_int_equal(kn_tile_windows_range(&back, 0.7311), 0);
    assert_int_equal(kn_tile_windows_range(&back, 0.7310), 1);
    assert_int_equal(kn_tile_windows_range(&back, 0.1), 2);
    kn_tile_windows_free(&back);
    const int other[3] = {5, 12, 21};
    expect_fail(kn_tile_windows_read(path, other, LAYERS, HEADS, &back), KN_ERR_ARG, "w.json", "5 x 12 x 21");
    expect_fail(kn_tile_windows_read(path, grid, 30, 12, &back), KN_ERR_ARG, "2 layers of 4 heads", "30 of 12");
}

/* A good file of one layer and two heads, with one part replaced. */
static void put(const char *path, const char *part, const char *by)
{
    static const char good[] = "{\"format\": \"kinora-tile-windows\", \"version\": 1, \"layers\": 1, \"heads\": 2, \"stages\": [{"
                               "\"grid\": [5, 12, 20], \"tile\": [5, 2, 4], \"calibration\": {}, \"ranges\": ["
                               "{\"sigma_min\": 0.5, \"layers\": [[[1, 3, 5], [1, 1, 1]]]}, "
                               "{\"sigma_min\": 0, \"layers\": [[[1, 3, 3], [3, 1, 1]]]}]}]}";
    const char *at = strstr(good, part);
    char text[1024];
    assert_non_null(at);
    int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, by, at + strlen(part));
    put_file(path, text, (size_t)n);
}

static void faults_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *part, *by, *says;
    } faults[] = {
        {"kinora-tile-windows", "other", "format"},
        {"\"version\": 1", "\"version\": 2", "version"},
        {"\"heads\": 2", "\"heads\": 0", "heads"},
        {"\"heads\": 2,", "", "heads"},
        {"\"calibration\"", "\"calibrated\"", "calibrated"},
        {"\"version\"", "\"extra\": 1, \"version\"", "extra"},
        {"[5, 12, 20]", "[5, 12]", "grid"},
        {"[5, 12, 20]", "[5, 0, 20]", "grid"},
        {"[5, 12, 20]", "[30000, 30000, 30000]", "30000"},
        {"[5, 2, 4]", "\"5x2x4\"", "tile"},
        {"0.5", "1.5", "sigma_min"},
        {"\"sigma_min\": 0,", "\"sigma_min\": 0.25,", "expected 0 for the last range"},
        {"0.5", "0", "expected less than"},
        {"[1, 3, 5]", "[1, 3]", "ranges[0].layers[0][0]"},
        {"[1, 3, 5]", "[1, 3, 0]", "ranges[0].layers[0][0]"},
        {"[1, 3, 5]", "[1, 3, 2.5]", "ranges[0].layers[0][0]"},
        {"[1, 3, 5]", "[1, 3, \"5\"]", "ranges[0].layers[0][0]"},
        {"[1, 3, 5]", "[1, 3, 99999]", "from 1 to 4096"},
        {"[1, 3, 5], [1, 1, 1]", "[1, 3, 5]", "2 heads, found 1"},
        {"[[[1, 3, 5], [1, 1, 1]]]", "[]", "layers"},
        {"[[[1, 3, 5], [1, 1, 1]]]", "7", "layers"},
        {"{\"sigma_min\": 0.5, \"layers\": [[[1, 3, 5], [1, 1, 1]]]}, ", "7, ", "ranges[0]"},
    };
    kn_tile_windows w;
    const char *path = temp_path("bad.json");
    put(path, "0.5", "0.5");
    expect_ok(kn_tile_windows_read(path, grid, 1, 2, &w));
    kn_tile_windows_free(&w);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        put(path, faults[i].part, faults[i].by);
        expect_fail(kn_tile_windows_read(path, grid, 1, 2, &w), KN_ERR_FORMAT, "bad.json", faults[i].says);
        assert_null(w.window);
    }
    put_file(path, "[]", 2);
    expect_fail(kn_tile_windows_read(path, grid, 1, 2, &w), KN_ERR_FORMAT, "bad.json");
    expect_fail(kn_tile_windows_read(temp_path("none.json"), grid, 1, 2, &w), KN_ERR_IO, "none.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(faults_are_named),
    };
    return cmocka_run_group_tests(tests, temp_folder_setup, temp_folder_teardown);
}
