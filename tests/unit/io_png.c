#include "tests/expect.h"

#include <png.h>

#include "io/atomic_file.h"
#include "io/memory.h"
#include "io/png.h"

/* ---- pictures made by libpng directly, so that reader and writer are not tested by each other  */

typedef struct made {
    int width, height, depth, color, interlace;
    const png_color *palette;
    int palette_count;
    const png_byte *palette_alpha; /* palette_count of them, or NULL */
    const png_color_16 *transparent;
    const unsigned char *rows; /* packed, big-endian, without padding between rows */
    size_t row_bytes;
} made;

static const char *make_png(const char *name, const made *m)
{
    const char *path = temp_path(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, f);
    png_set_IHDR(png, info, (png_uint_32)m->width, (png_uint_32)m->height, m->depth, m->color,
                 m->interlace, 0, 0);
    if (m->palette) png_set_PLTE(png, info, m->palette, m->palette_count);
    if (m->palette_alpha) png_set_tRNS(png, info, m->palette_alpha, m->palette_count, NULL);
    if (m->transparent) png_set_tRNS(png, info, NULL, 0, m->transparent);
    png_write_info(png, info);
    int passes = png_set_interlace_handling(png);
    for (int p = 0; p < passes; p++)
        for (int y = 0; y < m->height; y++) png_write_row(png, m->rows + (size_t)y * m->row_bytes);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void assert_rgb8(const char *path, const uint8_t *background, int width, int height,
                        const uint8_t *expected)
{
    kn_picture p;
    expect_ok(kn_png_read(path, 8, background, &p));
    assert_int_equal(p.width_px, width);
    assert_int_equal(p.height_px, height);
    assert_int_equal(p.channels, 3);
    assert_int_equal(p.bits, 8);
    assert_memory_equal(p.data, expected, (size_t)width * (size_t)height * 3);
    kn_picture_free(&p);
    assert_null(p.data);
    /* The same picture in 16 bits: each value within half a step of 8 bits of 257 times it. */
    expect_ok(kn_png_read(path, 16, background, &p));
    assert_int_equal(p.bits, 16);
    for (int i = 0; i < width * height * 3; i++) {
        int wide = ((const uint16_t *)p.data)[i];
        assert_in_range(wide + 257, expected[i] * 257 + 257 - 128, expected[i] * 257 + 257 + 128);
    }
    kn_picture_free(&p);
}

static void every_kind_becomes_rgb(void **state)
{
    (void)state;
    static const unsigned char grey1[] = {0x40}; /* 0 1 */
    static const unsigned char grey4[] = {0x5f}; /* 5 15 */
    static const unsigned char grey8[] = {10, 200};
    static const unsigned char grey16[] = {0x80, 0x7f, 0xff, 0x81};
    static const unsigned char grey_alpha[] = {200, 255, 200, 0};
    static const unsigned char rgb16[] = {0,    0x7f, 0,    0x81, 0x12, 0x34,
                                          0xff, 0xff, 0xff, 0x7e, 1,    0};
    static const unsigned char rgba[] = {255, 0, 100, 128, 9, 9, 9, 0};
    static const unsigned char index2[] = {0x60}; /* 1 2 */
    static const png_color palette[] = {{1, 2, 3}, {4, 5, 6}, {200, 100, 50}};
    static const png_byte palette_alpha[] = {255, 255, 0};
    static const png_color_16 key = {.gray = 200};
    static const png_color_16 key_rgb = {.red = 9, .green = 8, .blue = 7};
    static const unsigned char rgb[] = {9, 8, 7, 9, 8, 6};
    static const struct {
        made m;
        uint8_t expected[6];
    } kinds[] = {
        {{2, 1, 1, PNG_COLOR_TYPE_GRAY, .rows = grey1, .row_bytes = 1}, {0, 0, 0, 255, 255, 255}},
        {{2, 1, 4, PNG_COLOR_TYPE_GRAY, .rows = grey4, .row_bytes = 1},
         {85, 85, 85, 255, 255, 255}},
        {{2, 1, 8, PNG_COLOR_TYPE_GRAY, .rows = grey8, .row_bytes = 2},
         {10, 10, 10, 200, 200, 200}},
        /* 0x807f / 257 = 127.998, 0xff81 / 257 = 254.51: rounded, not cut */
        {{2, 1, 16, PNG_COLOR_TYPE_GRAY, .rows = grey16, .row_bytes = 4},
         {128, 128, 128, 255, 255, 255}},
        {{2, 1, 8, PNG_COLOR_TYPE_GRAY_ALPHA, .rows = grey_alpha, .row_bytes = 4},
         {200, 200, 200, 10, 20, 30}},
        {{2, 1, 16, PNG_COLOR_TYPE_RGB, .rows = rgb16, .row_bytes = 12}, {0, 1, 18, 255, 254, 1}},
        /* 255*128/255 + 10*127/255 = 132.98; 20*127/255 = 9.96; (100*128 + 30*127)/255 = 65.14 */
        {{2, 1, 8, PNG_COLOR_TYPE_RGB_ALPHA, .rows = rgba, .row_bytes = 8},
         {133, 10, 65, 10, 20, 30}},
        {{2, 1, 2, PNG_COLOR_TYPE_PALETTE, .palette = palette, .palette_count = 3, .rows = index2,
          .row_bytes = 1},
         {4, 5, 6, 200, 100, 50}},
        {{2, 1, 2, PNG_COLOR_TYPE_PALETTE, .palette = palette, .palette_count = 3,
          .palette_alpha = palette_alpha, .rows = index2, .row_bytes = 1},
         {4, 5, 6, 10, 20, 30}},
        {{2, 1, 8, PNG_COLOR_TYPE_GRAY, .transparent = &key, .rows = grey8, .row_bytes = 2},
         {10, 10, 10, 10, 20, 30}},
        {{2, 1, 8, PNG_COLOR_TYPE_RGB, .transparent = &key_rgb, .rows = rgb, .row_bytes = 6},
         {10, 20, 30, 9, 8, 6}},
    };
    static const uint8_t background[3] = {10, 20, 30};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        assert_rgb8(make_png("kind.png", &kinds[i].m), background, 2, 1, kinds[i].expected);
    /* No background given: black. */
    static const uint8_t over_black[6] = {128, 0, 50, 0, 0, 0};
    assert_rgb8(make_png("kind.png", &kinds[6].m), NULL, 2, 1, over_black);
}

static void interlaced_pictures_are_whole(void **state)
{
    (void)state;
    enum { W = 13, H = 11 };
    static unsigned char rgba[H * W * 4], rgb[H * W * 3];
    for (int i = 0; i < W * H; i++) {
        for (int k = 0; k < 3; k++)
            rgba[4 * i + k] = rgb[3 * i + k] = (unsigned char)(7 * i + 60 * k);
        rgba[4 * i + 3] = 255;
    }
    made m = {W, H, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_ADAM7, .rows = rgb, .row_bytes = W * 3};
    assert_rgb8(make_png("adam7.png", &m), NULL, W, H, rgb);
    made a = {W, H, 8, PNG_COLOR_TYPE_RGBA, PNG_INTERLACE_ADAM7, .rows = rgba, .row_bytes = W * 4};
    assert_rgb8(make_png("adam7a.png", &a), NULL, W, H, rgb);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void pictures_round_trip(void **state)
{
    (void)state;
    enum { W = 33, H = 17 };
    static uint16_t wide[W * H * 3];
    static uint8_t narrow[W * H * 3];
    for (int i = 0; i < W * H * 3; i++) {
        wide[i] = (uint16_t)(i * 2654435761u >> 16);
        narrow[i] = (uint8_t)wide[i];
    }
    kn_picture in8 = {W, H, 3, 8, narrow}, in16 = {W, H, 3, 16, wide}, p;
    expect_ok(kn_png_write(temp_path("8.png"), &in8, NULL));
    expect_ok(kn_png_read(temp_path("8.png"), 8, NULL, &p));
    assert_memory_equal(p.data, narrow, sizeof narrow);
    kn_picture_free(&p);
    expect_ok(kn_png_write(temp_path("16.png"), &in16, NULL));
    expect_ok(kn_png_read(temp_path("16.png"), 16, NULL, &p));
    assert_memory_equal(p.data, wide, sizeof wide);
    kn_picture_free(&p);
    /* Grey is written as grey and read as RGB. */
    kn_picture grey8 = {W, H, 1, 8, narrow}, grey16 = {W, H, 1, 16, wide};
    expect_ok(kn_png_write(temp_path("g.png"), &grey8, NULL));
    expect_ok(kn_png_read(temp_path("g.png"), 8, NULL, &p));
    for (int i = 0; i < W * H * 3; i++) assert_int_equal(((uint8_t *)p.data)[i], narrow[i / 3]);
    kn_picture_free(&p);
    expect_ok(kn_png_write(temp_path("g.png"), &grey16, NULL));
    expect_ok(kn_png_read(temp_path("g.png"), 16, NULL, &p));
    for (int i = 0; i < W * H * 3; i++) assert_int_equal(((uint16_t *)p.data)[i], wide[i / 3]);
    kn_picture_free(&p);
    kn_picture_free(NULL);
}

static void texts_are_written(void **state)
{
    (void)state;
    static const char *const text[] = {"Software", "Kinora", "prompt", "caf\xc3\xa9\nby night",
                                       "empty",    "",       NULL};
    const uint8_t pixel[3] = {1, 2, 3};
    kn_picture in = {1, 1, 3, 8, (void *)pixel}, p;
    char *one, *two;
    size_t n1, n2;
    expect_ok(kn_png_write(temp_path("text.png"), &in, text));
    expect_ok(kn_file_read(temp_path("text.png"), 10000, &one, &n1));
    expect_ok(kn_png_write(temp_path("text.png"), &in, text));
    expect_ok(kn_file_read(temp_path("text.png"), 10000, &two, &n2));
    assert_int_equal(n1, n2);
    assert_memory_equal(one, two, n1);
    kn_free(two);

    /* Read back with libpng. */
    png_image probe = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_memory(&probe, one, n1));
    png_image_free(&probe);
    FILE *f = fopen(temp_path("text.png"), "rb");
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_textp found;
    png_init_io(png, f);
    png_read_info(png, info);
    assert_int_equal(png_get_text(png, info, &found, NULL), 3);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(found[i].key, text[2 * i]);
        assert_string_equal(found[i].text, text[2 * i + 1]);
        assert_int_equal(found[i].compression,
                         i == 1 ? PNG_ITXT_COMPRESSION_NONE : PNG_TEXT_COMPRESSION_NONE);
    }
    png_destroy_read_struct(&png, &info, NULL);
    fclose(f);
    expect_ok(kn_png_parse("memory", one, n1, 8, NULL, &p));
    assert_memory_equal(p.data, pixel, 3);
    kn_picture_free(&p);
    kn_free(one);
}

static void bad_arguments_write_nothing(void **state)
{
    (void)state;
    const uint8_t pixel[6] = {0};
    const kn_picture good = {1, 1, 3, 8, (void *)pixel};
    kn_picture p = good;
    int names = count_names(temp_folder);
    const char *path = temp_path("bad.png");
    p.width_px = 0;
    expect_fail(kn_png_write(path, &p, NULL), KN_ERR_ARG, "bad.png", "found 0 x 1");
    p.width_px = KN_PNG_MAX_PX + 1;
    expect_fail(kn_png_write(path, &p, NULL), KN_ERR_ARG, "16385 x 1");
    p = good;
    p.channels = 4;
    expect_fail(kn_png_write(path, &p, NULL), KN_ERR_ARG, "4 channels");
    p = good;
    p.bits = 10;
    expect_fail(kn_png_write(path, &p, NULL), KN_ERR_ARG, "10 bits");
    p = good;
    p.data = NULL;
    expect_fail(kn_png_write(path, &p, NULL), KN_ERR_ARG, "bad.png");
    static const char *const keys[] = {
        "",
        " a",
        "a ",
        "a  b",
        "caf\xc3\xa9",
        "a\nb",
        "12345678901234567890123456789012345678901234567890123456789012345"
        "678901234567890"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *const text[] = {keys[i], "x", NULL};
        expect_fail(kn_png_write(path, &good, text), KN_ERR_ARG, "bad.png", "text key");
    }
    static const char *const bad_value[] = {"k", "\xff", NULL}, *const no_value[] = {"k", NULL,
                                                                                     NULL};
    expect_fail(kn_png_write(path, &good, bad_value), KN_ERR_ARG, "'k'", "UTF-8");
    expect_fail(kn_png_write(path, &good, no_value), KN_ERR_ARG, "'k'", "UTF-8");
    expect_fail(kn_png_write(temp_path("no/x.png"), &good, NULL), KN_ERR_IO, "no/x.png", "folder");
    assert_int_equal(count_names(temp_folder), names);
}

/* ---- damaged files --------------------------------------------------------------------------- */

static kn_status parse(const void *data, size_t size)
{
    kn_picture p;
    kn_status st = kn_png_parse("x.png", data, size, 8, NULL, &p);
    assert_int_equal(st == KN_OK, p.data != NULL);
    kn_picture_free(&p);
    return st;
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    uint8_t pixels[5 * 4 * 3] = {1, 2, 3};
    kn_picture in = {5, 4, 3, 8, pixels}, p;
    char *data;
    size_t size;
    expect_ok(kn_png_write(temp_path("ok.png"), &in, NULL));
    expect_ok(kn_file_read(temp_path("ok.png"), 10000, &data, &size));
    expect_ok(parse(data, size));
    for (size_t cut = 0; cut < size; cut++) {
        char *exact = malloc(cut ? cut : 1);
        memcpy(exact, data, cut);
        expect_fail(parse(exact, cut), KN_ERR_FORMAT, "x.png");
        free(exact);
    }
    expect_fail(parse(data, size - 1), KN_ERR_FORMAT, "truncated", "found");
    expect_fail(parse("GIF89a..............................", 36), KN_ERR_FORMAT, "expected a PNG");
    /* A flipped bit in the pixels' chunk breaks its checksum. */
    data[size - 12 - 4 - 3] ^= 1;
    expect_fail(parse(data, size), KN_ERR_FORMAT, "x.png: libpng:");
    data[size - 12 - 4 - 3] ^= 1;
    /* Sizes beyond the limit, and sizes that the file cannot hold. */
    data[18] = 0x40, data[19] = 1;
    expect_fail(parse(data, size), KN_ERR_FORMAT, "at most 16384 x 16384", "found 16385 x 4");
    data[18] = 0x40, data[19] = 0, data[22] = 0x20, data[23] = 1;
    expect_fail(parse(data, size), KN_ERR_FORMAT, "at most 134217728 pixels", "found 16384 x 8193 px");
    data[23] = 0;
    expect_fail(parse(data, size), KN_ERR_FORMAT, "16384 x 8192 px", "truncated");
    kn_free(data);
    expect_fail(kn_png_read(temp_path("ok.png"), 10, NULL, &p), KN_ERR_ARG, "8 or 16 bits",
                "found 10");
    expect_fail(kn_png_read(temp_path("absent.png"), 8, NULL, &p), KN_ERR_IO, "absent.png");
    assert_null(p.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_becomes_rgb),
        cmocka_unit_test(interlaced_pictures_are_whole),
        cmocka_unit_test(pictures_round_trip),
        cmocka_unit_test(texts_are_written),
        cmocka_unit_test(bad_arguments_write_nothing),
        cmocka_unit_test(damaged_files_are_refused),
    };
    return cmocka_run_group_tests(tests, temp_folder_setup, temp_folder_teardown);
}
