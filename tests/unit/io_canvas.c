/* Drawing: what lands where, clipping, letters that can be told apart, pictures made smaller. */
#include "tests/expect.h"

#include <string.h>
#include <unistd.h>

#include "io/canvas.h"
#include "io/png.h"

static kn_rgb at(const kn_canvas *c, int x, int y)
{
    const uint8_t *p = c->rgb + (y * c->width_px + x) * 3;
    return (kn_rgb)p[0] << 16 | (kn_rgb)p[1] << 8 | p[2];
}

static int count(const kn_canvas *c, kn_rgb colour)
{
    int n = 0;
    for (int i = 0; i < c->width_px * c->height_px; i++) n += at(c, i % c->width_px, i / c->width_px) == colour;
    return n;
}

static void rectangles_are_clipped(void **state)
{
    (void)state;
    kn_canvas c;
    expect_ok(kn_canvas_build(20, 10, 0x102030, &c));
    kn_canvas_fill(&c, -5, 8, 10, 10, 0xFF0000);
    assert_int_equal(count(&c, 0xFF0000), 5 * 2);
    assert_int_equal(at(&c, 4, 9), 0xFF0000);
    assert_int_equal(at(&c, 5, 9), 0x102030);
    kn_canvas_fill(&c, 30, 30, 5, 5, 0x00FF00);
    kn_canvas_fill(&c, 3, 3, -2, 4, 0x00FF00);
    assert_int_equal(count(&c, 0x00FF00), 0);
    kn_canvas_frame(&c, 10, 2, 6, 4, 0x0000FF);
    assert_int_equal(count(&c, 0x0000FF), 2 * 6 + 2 * 2);
    kn_canvas_free(&c);
    assert_int_equal(kn_canvas_build(0, 5, 0, &c), KN_ERR_ARG);
    assert_int_equal(kn_canvas_build(5, KN_PNG_MAX_PX + 1, 0, &c), KN_ERR_ARG);
}

static void letters_differ(void **state)
{
    (void)state;
    uint8_t shape[96][6 * 8 * 3];
    for (int i = 0; i < 96; i++) {
        kn_canvas c;
        char text[2] = {(char)(32 + i), 0};
        expect_ok(kn_canvas_build(6, 8, 0, &c));
        assert_int_equal(kn_canvas_text(&c, 0, 0, 1, 0xFFFFFF, text), 6);
        memcpy(shape[i], c.rgb, sizeof shape[i]);
        kn_canvas_free(&c);
    }
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < i; j++)
            if (!memcmp(shape[i], shape[j], sizeof shape[i])) fail_msg("'%c' looks like '%c'", 32 + i, 32 + j);
    assert_memory_equal(shape['a' - 32], shape['A' - 32], sizeof shape[0]);
}

/* Upwards is the level text turned a quarter to the left. */
static void upward_text_is_turned(void **state)
{
    (void)state;
    kn_canvas level, up;
    expect_ok(kn_canvas_build(24, 14, 0, &level));
    expect_ok(kn_canvas_build(14, 24, 0, &up));
    kn_canvas_text(&level, 0, 0, 2, 0xFFFFFF, "R7");
    kn_canvas_text_up(&up, 0, 24, 2, 0xFFFFFF, "R7");
    for (int y = 0; y < 14; y++)
        for (int x = 0; x < 24; x++) assert_int_equal(at(&level, x, y), at(&up, y, 23 - x));
    kn_canvas_free(&level);
    kn_canvas_free(&up);
}

static void pictures_shrink_by_means(void **state)
{
    (void)state;
    float rgb[4 * 4 * 3] = {0};
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) rgb[(i * 4 + j) * 3 + 1] = i == 0 ? 1.0f : 0.2f;
    rgb[(3 * 4 + 3) * 3] = 40.0f; /* clipped after the mean */
    kn_canvas c, back;
    expect_ok(kn_canvas_build(4, 3, 0x0000FF, &c));
    kn_canvas_picture(&c, 1, 1, rgb, 4, 4, 2);
    assert_int_equal(at(&c, 1, 1), 153 << 8); /* 0.6 */
    assert_int_equal(at(&c, 2, 2), 0xFF0000);
    assert_int_equal(at(&c, 3, 1), 0x0000FF);
    char path[] = "io_canvas_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    expect_ok(kn_canvas_write(&c, path));
    kn_picture p;
    expect_ok(kn_png_read(path, 8, NULL, &p));
    back = (kn_canvas){p.width_px, p.height_px, p.data};
    assert_int_equal(p.width_px, 4);
    assert_memory_equal(back.rgb, c.rgb, 4 * 3 * 3);
    kn_picture_free(&p);
    kn_canvas_free(&c);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rectangles_are_clipped),
        cmocka_unit_test(letters_differ),
        cmocka_unit_test(upward_text_is_turned),
        cmocka_unit_test(pictures_shrink_by_means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
