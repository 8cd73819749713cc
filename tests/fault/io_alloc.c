/* Fails the k-th allocation, for k = 1, 2, ..., of every path that opens, reads or writes, until
 * the path gets through without a failure. Each failure must be reported as KN_ERR_NOMEM, leave
 * nothing behind on disk, and (under AddressSanitizer) leak nothing.
 *
 * The libraries below Kinora allocate through the same counter here: jansson by its hook, libpng by
 * Kinora's own (io/png.c), libyaml by functions that take the place of its own (tests/counted_alloc.h).
 */
#include "tests/expect.h"

#include "io/atomic_file.h"
#include "io/config.h"
#include "io/json.h"
#include "io/memory.h"
#include "io/png.h"
#include "io/terminal_image.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "tests/counted_alloc.h"

/* ---- the paths ------------------------------------------------------------------------------- */

static const float values[6] = {1, 2, 3, 4, 5, 6};
static const kn_st_tensor tensors[3] = {
    {"b", KN_ST_F32, NULL, 2, {2, 3}, values, 24},
    {"a", KN_ST_BF16, NULL, 1, {2}, values, 4},
    {"c", KN_ST_U8, NULL, 0, {0}, values, 1},
};
static const uint8_t pixels[4 * 4 * 3] = {1, 2, 3};

static kn_status write_safetensors(void)
{
    static const char *const metadata[] = {"k", "v", "a", "b", NULL};
    return kn_safetensors_write(temp_path("new.out"), tensors, 3, metadata);
}

static kn_status open_safetensors(const char *path, const char *stem, int count)
{
    kn_safetensors *s;
    KN_TRY(kn_safetensors_open(path, stem, &s));
    assert_int_equal(kn_safetensors_count(s), count);
    kn_safetensors_close(&s);
    return KN_OK;
}

static kn_status open_file(void)
{
    return open_safetensors(temp_path("in/m-1-of-2.safetensors"), NULL, 1);
}
static kn_status open_shards(void)
{
    return open_safetensors(temp_path("in"), "m", 3);
}
static kn_status open_only(void)
{
    return open_safetensors(temp_path("in"), NULL, 3);
}

static kn_status write_file(void)
{
    return kn_file_write(temp_path("new.out"), "text", 4);
}

static kn_status read_file(void)
{
    char *data;
    size_t size;
    KN_TRY(kn_file_read(temp_path("in/c.yaml"), 1000, &data, &size));
    kn_free(data);
    return KN_OK;
}

static kn_status read_config(const char *path)
{
    kn_config *c;
    int steps = 0;
    KN_TRY(kn_config_open(path, &c));
    expect_ok(kn_node_int(kn_config_root(c), "steps", 30, 30, &steps));
    assert_int_equal(kn_node_find(kn_config_root(c), "jobs")->count, 5);
    kn_config_close(&c);
    return KN_OK;
}

static kn_status read_yaml(void)
{
    return read_config(temp_path("in/c.yaml"));
}
static kn_status read_json(void)
{
    return read_config(temp_path("in/c.json"));
}

static json_t *to_write; /* built once: that is the caller's business */

static kn_status write_json(void)
{
    return kn_json_write(temp_path("new.out"), to_write);
}

static kn_status write_png(void)
{
    static const char *const text[] = {"k", "v", "p", "caf\xc3\xa9", NULL};
    const kn_picture p = {4, 4, 3, 8, (void *)pixels};
    return kn_png_write(temp_path("new.out"), &p, text);
}

static kn_status draw(kn_terminal_images kind)
{
    const kn_picture p = {4, 4, 3, 8, (void *)pixels};
    const kn_terminal_cells at = {4, 2, 4, 6}, small = {1, 1, 2, 2};
    kn_text text = {0};
    kn_status st = kn_terminal_image_text(kind, &p, kind == KN_TERMINAL_ITERM ? &small : &at, 1, &text);
    kn_free(text.data);
    return st;
}
static kn_status draw_kitty(void)
{
    return draw(KN_TERMINAL_KITTY);
}
static kn_status draw_iterm(void)
{
    return draw(KN_TERMINAL_ITERM);
}
static kn_status draw_sixel(void)
{
    return draw(KN_TERMINAL_SIXEL);
}

static kn_status read_png(const char *path, int bits)
{
    kn_picture p;
    kn_status st = kn_png_read(path, bits, NULL, &p);
    if (st == KN_OK)
        assert_int_equal(((uint8_t *)p.data)[0], 1);
    else
        assert_null(p.data);
    kn_picture_free(&p);
    return st;
}

static kn_status read_png8(void)
{
    return read_png(temp_path("in/p.png"), 8);
}
static kn_status read_png16(void)
{
    return read_png(temp_path("in/p.png"), 16);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void fail_each(const char *what, kn_status (*path)(void), long at_least)
{
    int names = count_names(temp_folder);
    for (long k = 1;; k++) {
        assert_true(k < 10000);
        long before = kn_memory_count();
        kn_memory_fail_at(k);
        kn_status st = path();
        long made = kn_memory_count() - before;
        kn_memory_fail_at(0);
        if (made < k) { /* nothing was left to fail */
            expect_ok(st);
            if (k <= at_least) fail_msg("%s: only %ld allocations were seen", what, k - 1);
            (void)unlink(temp_path("new.out"));
            return;
        }
        if (st != KN_ERR_NOMEM) {
            print_error("%s: allocation %ld of %ld failed: expected 'memory', found '%s': %s\n",
                        what, k, made, kn_status_name(st), kn_error_text());
            fail();
        }
        assert_non_null(strstr(kn_error_text(), "memory"));
        assert_int_equal(count_names(temp_folder), names);
    }
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    fail_each("write a file", write_file, 3);
    fail_each("read a file", read_file, 1);
    fail_each("write safetensors", write_safetensors, 6);
    fail_each("open safetensors", open_file, 10);
    fail_each("open shards", open_shards, 30);
    fail_each("open the only file of a folder", open_only, 30);
    fail_each("read JSON", read_json, 20);
    fail_each("read YAML", read_yaml, 20);
    assert_true(kn_yaml_allocations() > 100); /* libyaml does allocate through the counter */
    fail_each("write JSON", write_json, 3);
    fail_each("write PNG", write_png, 10);
    fail_each("draw as kitty", draw_kitty, 10);
    fail_each("draw as iTerm2", draw_iterm, 10);
    fail_each("draw as sixel", draw_sixel, 4);
    fail_each("read PNG, 8 bits", read_png8, 5);
    fail_each("read PNG, 16 bits", read_png16, 5);
}

static void put_text(const char *path, const char *text)
{
    put_file(path, text, strlen(text));
}

static int setup(void **state)
{
    if (temp_folder_setup(state) != 0) return -1;
    kn_count_library_allocations();
    const kn_picture p = {4, 4, 3, 8, (void *)pixels};
    if (mkdir(temp_path("in"), 0700) != 0) return -1;
    expect_ok(kn_safetensors_write(temp_path("in/m-2-of-2.safetensors"), tensors + 1, 2, NULL));
    expect_ok(kn_safetensors_write(temp_path("in/m-1-of-2.safetensors"), tensors, 1, NULL));
    put_text(
        temp_path("in/m.safetensors.index.json"),
        "{\"weight_map\": {\"a\": \"m-2-of-2.safetensors\", \"b\": \"m-1-of-2.safetensors\"}}");
    put_text(temp_path("in/c.json"),
             "{\"steps\": 30, \"jobs\": [1, 2.5, \"x\", null, {\"a\": true}]}");
    put_text(temp_path("in/c.yaml"), "steps: 30\njobs: [1, 2.5, 'x', ~, {a: true}]\n");
    expect_ok(kn_png_write(temp_path("in/p.png"), &p, NULL));
    to_write = json_pack("{s:s, s:[{s:f}], s:{}}", "name", "x", "list", "real", 0.1, "empty");
    return to_write ? 0 : -1;
}

static int teardown(void **state)
{
    json_decref(to_write);
    return temp_folder_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
