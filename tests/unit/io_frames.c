/* Frames as PNG files, those files as a video, and the contact sheet. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/atomic_file.h"
#include "io/frame_writer.h"
#include "io/frames.h"
#include "io/memory.h"
#include "io/png.h"
#include "io/video.h"

enum { W = 96, H = 64 };

static void must(kn_status st)
{
    if (st != KN_OK) fail_msg("%s: %s", kn_status_name(st), kn_error_text());
}

/* Multiples of 1/255, so that 8 and 16 bits hold them. */
static void draw(float *rgb, int t)
{
    for (int i = 0; i < 3 * W * H; i++) rgb[i] = (float)((i * 7 + t * 31) % 256) / 255.0f;
}

static void pictures_are_a_video(void **state)
{
    (void)state;
    char dir[] = "io_frames_XXXXXX", name[96];
    static float rgb[3 * W * H], got[3 * W * H];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(rmdir(dir), 0); /* kn_frames_write makes it again */
    for (int bits = 8; bits <= 16; bits += 8) {
        for (int t = 0; t < 3; t++) {
            draw(rgb, t);
            must(kn_frames_write(dir, t, rgb, W, H, bits, NULL));
        }
        for (int form = 0; form < 3; form++) {
            snprintf(name, sizeof name, "%s%s", dir,
                     form == 0   ? ""
                     : form == 1 ? "/frame_%05d.png"
                                 : "/frame_00001.png");
            kn_video_reader *r;
            bool end;
            must(kn_video_reader_open(name, 0, &r));
            assert_int_equal(kn_video_reader_info(r)->frames, form == 2 ? 1 : 3);
            assert_int_equal(kn_video_reader_info(r)->fps_num, 0);
            for (int t = form == 2 ? 1 : 0; t < (form == 2 ? 2 : 3); t++) {
                must(kn_video_reader_next(r, got, &end));
                assert_false(end);
                draw(rgb, t);
                for (int i = 0; i < 3 * W * H; i++) assert_float_equal(got[i], rgb[i], 1e-5f);
            }
            must(kn_video_reader_next(r, got, &end));
            assert_true(end);
            kn_video_reader_close(&r);
        }
    }
    /* A picture of another size among them is named. */
    kn_video_reader *r;
    bool end;
    must(kn_frames_write(dir, 1, rgb, W / 2, H, 8, NULL));
    must(kn_video_reader_open(dir, 0, &r));
    must(kn_video_reader_next(r, got, &end));
    assert_int_equal(kn_video_reader_next(r, got, &end), KN_ERR_FORMAT);
    assert_non_null(strstr(kn_error_text(), "frame_00001.png is 48x64"));
    kn_video_reader_close(&r);
    for (int t = 0; t < 3; t++) {
        snprintf(name, sizeof name, "%s/frame_%05d.png", dir, t);
        unlink(name);
    }
    assert_int_equal(kn_video_reader_open(dir, 0, &r), KN_ERR_IO); /* an empty folder */
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(kn_video_reader_open(dir, 0, &r), KN_ERR_IO);
    assert_int_equal(kn_video_reader_open("no_such_%03d.png", 0, &r), KN_ERR_IO);
}

static void contact_sheet_means_areas(void **state)
{
    (void)state;
    /* 10 frames of 8x6 in which all pixels have the frame's number / 10; 4 tiles: 0, 3, 6, 9. */
    kn_contact_sheet *s;
    kn_picture p;
    float rgb[3 * 8 * 6];
    must(kn_contact_sheet_build(10, 4, 8, 6, 4 + 4 + 4, &s));
    for (int t = 0; t < 10; t++) {
        for (int i = 0; i < 3 * 8 * 6; i++)
            rgb[i] = (float)t / 10.0f + (i / 3 % 2 ? 0.02f : -0.02f);
        rgb[0] += t == 0 ? 0.02f : 0;
        must(kn_contact_sheet_add(s, rgb));
    }
    assert_int_equal(kn_contact_sheet_add(s, rgb), KN_ERR_ARG);
    must(kn_contact_sheet_write(s, "io_frames_sheet.png", NULL));
    kn_contact_sheet_free(&s);
    assert_null(s);
    must(kn_png_read("io_frames_sheet.png", 8, NULL, &p));
    assert_int_equal(p.width_px, 12);
    assert_int_equal(p.height_px, 10); /* 3 + 4 + 3 */
    const uint8_t *q = p.data;
    static const int at[4][2] = {{1, 1}, {9, 1}, {1, 8}, {9, 8}};
    for (int i = 0; i < 4; i++)
        assert_in_range(q[3 * (at[i][1] * 12 + at[i][0])], 255 * 3 * i / 10, 255 * 3 * i / 10 + 1);
    assert_int_equal(q[3 * (5 * 12 + 5)], 0); /* gutter */
    kn_picture_free(&p);
    assert_int_equal(unlink("io_frames_sheet.png"), 0);
    assert_int_equal(kn_contact_sheet_build(10, 100, 8, 6, 12, &s), KN_ERR_ARG);
}

static void wrong_arguments_are_refused(void **state)
{
    (void)state;
    static float rgb[3 * W * H];
    kn_frame_list list;
    draw(rgb, 0);
    assert_int_equal(kn_frames_write("no_such/folder", 0, rgb, W, H, 8, NULL), KN_ERR_IO);
    assert_non_null(strstr(kn_error_text(), "no_such/folder"));
    char dir[] = "io_frames_XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_int_equal(kn_frames_write(dir, 0, rgb, W, H, 10, NULL), KN_ERR_ARG);
    rgb[3 * W * 4 + 1] = NAN;
    assert_int_equal(kn_frames_write(dir, 0, rgb, W, H, 8, NULL), KN_ERR_NUMERIC);
    assert_non_null(strstr(kn_error_text(), "NaN in row 4"));
    assert_int_equal(kn_frames_list(dir, &list), KN_ERR_IO); /* nothing was left there */
    assert_int_equal(rmdir(dir), 0);
    /* A pattern has one %d; anything else is a plain name. */
    assert_true(kn_frames_is_list("a_%d.tif") && kn_frames_is_list("a_%04d.png"));
    assert_false(kn_frames_is_list("a_%s") || kn_frames_is_list("%d_%d") ||
                 kn_frames_is_list("a.mp4"));
}

static void same_file(const char *a, const char *b)
{
    char *x, *y;
    size_t nx, ny;
    must(kn_file_read(a, 1 << 20, &x, &nx));
    must(kn_file_read(b, 1 << 20, &y, &ny));
    assert_int_equal(nx, ny);
    assert_memory_equal(x, y, nx);
    kn_free(x);
    kn_free(y);
}

/* Any number of threads gives the files that kn_frames_write gives. */
static void threads_write_the_same_files(void **state)
{
    (void)state;
    enum { FRAMES = 21 };
    static float rgb[3 * W * H];
    const char *const text[] = {"key", "value", NULL};
    char one[] = "io_frames_XXXXXX", many[] = "io_frames_XXXXXX", a[96], b[96];
    assert_non_null(mkdtemp(one));
    assert_non_null(mkdtemp(many));
    for (int bits = 8; bits <= 16; bits += 8) {
        for (int t = 0; t < FRAMES; t++) {
            draw(rgb, t);
            must(kn_frames_write(one, t, rgb, W, H, bits, text));
        }
        static const int threads[] = {0, 1, 3, KN_FRAME_WRITER_THREADS};
        for (int i = 0; i < 4; i++) {
            kn_frame_writer *w;
            must(kn_frame_writer_open(&(kn_frame_writer_params){many, W, H, bits, text, threads[i]}, &w));
            for (int t = 0; t < FRAMES; t++) {
                draw(rgb, t);
                must(kn_frame_writer_put(w, rgb));
            }
            must(kn_frame_writer_finish(w));
            kn_frame_writer_close(&w);
            assert_null(w);
            for (int t = 0; t < FRAMES; t++) {
                snprintf(a, sizeof a, "%s/frame_%05d.png", one, t);
                snprintf(b, sizeof b, "%s/frame_%05d.png", many, t);
                same_file(a, b);
                assert_int_equal(unlink(b), 0);
            }
        }
    }
    for (int t = 0; t < FRAMES; t++) {
        snprintf(a, sizeof a, "%s/frame_%05d.png", one, t);
        assert_int_equal(unlink(a), 0);
    }
    assert_int_equal(rmdir(one), 0);
    assert_int_equal(rmdir(many), 0); /* no temporary file is left */
}

/* The error of a file that a thread wrote reaches the caller, with the file's name. */
static void errors_of_threads_are_reported(void **state)
{
    (void)state;
    static float rgb[3 * W * H];
    kn_frame_writer *w;
    char dir[] = "io_frames_XXXXXX", name[96];
    assert_non_null(mkdtemp(dir));
    draw(rgb, 0);
    kn_frame_writer_params p = {dir, W, H, 8, NULL, 3};
    snprintf(name, sizeof name, "%s/frame_00002.png", dir);
    assert_int_equal(mkdir(name, 0777), 0); /* a folder is not replaced */
    must(kn_frame_writer_open(&p, &w));
    kn_status st = KN_OK;
    for (int t = 0; t < 12 && st == KN_OK; t++) st = kn_frame_writer_put(w, rgb);
    if (st == KN_OK) st = kn_frame_writer_finish(w);
    assert_int_equal(st, KN_ERR_IO);
    assert_non_null(strstr(kn_error_text(), "frame_00002.png"));
    assert_int_equal(kn_frame_writer_finish(w), KN_ERR_IO); /* and stays */
    kn_frame_writer_close(&w);
    assert_int_equal(rmdir(name), 0);
    for (int t = 0; t < 12; t++) {
        snprintf(name, sizeof name, "%s/frame_%05d.png", dir, t);
        unlink(name);
    }
    assert_int_equal(rmdir(dir), 0);
    /* a writer that is given up leaves whole files or none */
    must(kn_frame_writer_open(&p, &w));
    assert_int_equal(kn_frame_writer_put(w, rgb), KN_OK);
    rgb[0] = NAN;
    assert_int_equal(kn_frame_writer_put(w, rgb), KN_ERR_NUMERIC);
    assert_non_null(strstr(kn_error_text(), "frame_00001.png"));
    kn_frame_writer_close(&w);
    snprintf(name, sizeof name, "%s/frame_00000.png", dir);
    unlink(name);
    assert_int_equal(rmdir(dir), 0);
    p.folder = "no_such/folder";
    draw(rgb, 0);
    must(kn_frame_writer_open(&p, &w));
    assert_int_equal(kn_frame_writer_put(w, rgb), KN_ERR_IO);
    kn_frame_writer_close(&w);
    p.threads = KN_FRAME_WRITER_THREADS + 1;
    assert_int_equal(kn_frame_writer_open(&p, &w), KN_ERR_ARG);
    assert_null(w);
    p.threads = 1;
    p.bits = 10;
    assert_int_equal(kn_frame_writer_open(&p, &w), KN_ERR_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_a_video),
        cmocka_unit_test(contact_sheet_means_areas),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(threads_write_the_same_files),
        cmocka_unit_test(errors_of_threads_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
