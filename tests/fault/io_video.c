/* Allocations that fail while a video is written and read: an error, nothing leaked, no file. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/frame_writer.h"
#include "io/frames.h"
#include "io/log.h"
#include "io/memory.h"
#include "io/video.h"

enum { W = 32, H = 16, FRAMES = 2, GIVE_UP = 500 };

static const char *const file_names[] = {"fault_video.mkv", "fault_video.gif", "fault_video.webp"};
enum { FILES = sizeof file_names / sizeof file_names[0] };

static float frame[3 * W * H];
static int expected_frames = FRAMES;

static kn_status write_video(const char *path)
{
    static const char *const metadata[] = {"title", "t", NULL};
    kn_video_writer *w = NULL;
    kn_video_writer_params p = kn_video_writer_defaults();
    p.path = path;
    p.codec = strstr(path, ".mkv") ? "ffv1" : NULL;
    p.width_px = W;
    p.height_px = H;
    p.fps_num = 16;
    p.fps_den = 1;
    p.threads = 1;
    p.metadata = metadata;
    kn_status st = kn_video_writer_open(&p, &w);
    for (int t = 0; t < FRAMES && st == KN_OK; t++) {
        frame[0] = (float)t; /* libwebp makes one of two equal frames */
        st = kn_video_writer_put(w, frame);
    }
    if (st == KN_OK) st = kn_video_writer_finish(w);
    kn_video_writer_close(&w);
    return st;
}

static kn_status read_video(const char *path)
{
    kn_video_reader *r = NULL;
    uint16_t rgb[3 * W * H];
    bool end = false;
    int n = 0;
    kn_status st = kn_video_reader_open(path, 1, &r);
    for (; st == KN_OK && !end; n++) st = kn_video_reader_next_u16(r, rgb, &end);
    kn_video_reader_close(&r);
    if (st == KN_OK) assert_int_equal(n, expected_frames + 1);
    return st;
}

static kn_status sheet(const char *path)
{
    kn_contact_sheet *s = NULL;
    kn_status st = kn_contact_sheet_build(FRAMES, 2, W, H, 64, &s);
    for (int t = 0; t < FRAMES && st == KN_OK; t++) st = kn_contact_sheet_add(s, frame);
    if (st == KN_OK) st = kn_contact_sheet_write(s, path, NULL);
    kn_contact_sheet_free(&s);
    return st;
}

/* Whole files or none: of a writer with threads frames beside the failed one may be there. */
static kn_status frame_files(const char *path)
{
    kn_frame_writer *w;
    char name[64];
    KN_TRY(kn_frame_writer_open(&(kn_frame_writer_params){path, W, H, 8, NULL, 2}, &w));
    kn_status st = KN_OK;
    for (int t = 0; t < FRAMES && st == KN_OK; t++) st = kn_frame_writer_put(w, frame);
    if (st == KN_OK) st = kn_frame_writer_finish(w);
    kn_frame_writer_close(&w);
    for (int t = 0; t < FRAMES; t++) {
        snprintf(name, sizeof name, "%s/frame_%05d.png", path, t);
        if (unlink(name) != 0) assert_int_not_equal(st, KN_OK);
    }
    if (rmdir(path) != 0) assert_int_equal(errno, ENOENT); /* empty, or never made */
    return st;
}

/* Fail allocation 1, 2, 3, ... until the call gets through. */
static void every_failure(kn_status (*call)(const char *), const char *path, bool writes)
{
    struct stat s;
    int k = 1;
    for (; k < GIVE_UP; k++) {
        kn_memory_fail_at(k);
        kn_status st = call(path);
        kn_memory_fail_at(0);
        if (st == KN_OK) break;
        if (st != KN_ERR_NOMEM) fail_msg("%s, allocation %d: %s", path, k, kn_error_text());
        if (writes) assert_int_not_equal(stat(path, &s), 0);
    }
    assert_in_range(k, 2, GIVE_UP - 1);
    print_message("  %s: %d allocations failed in turn\n", path, k - 1);
}

static void writing_and_reading(void **state)
{
    (void)state;
    kn_log_set_level(KN_LOG_ERR);
    for (int i = 0; i < 3 * W * H; i++) frame[i] = (float)(i % 97) / 97.0f;
    for (int i = 0; i < FILES; i++) {
        kn_video_writer_params p = kn_video_writer_defaults();
        p.path = file_names[i];
        p.width_px = W;
        p.height_px = H;
        p.fps_num = p.fps_den = 1;
        p.codec = strstr(p.path, ".mkv") ? "ffv1" : NULL;
        if (kn_video_writer_check(&p) == KN_ERR_UNSUPPORTED) {
            print_message("  %s\n", kn_error_text());
            continue;
        }
        unlink(file_names[i]);
        every_failure(write_video, file_names[i], true);
        every_failure(read_video, file_names[i], false);
        assert_int_equal(unlink(file_names[i]), 0);
    }
    unlink("fault_sheet.png");
    every_failure(frame_files, "fault_frames", true);
    every_failure(sheet, "fault_sheet.png", true);
    assert_int_equal(unlink("fault_sheet.png"), 0);
}

static kn_status list(const char *path)
{
    kn_frame_list l;
    kn_status st = kn_frames_list(path, &l);
    if (st == KN_OK) assert_int_equal(l.count, 1);
    kn_frames_list_free(&l);
    return st;
}

static kn_status metadata(const char *path)
{
    char *value = NULL;
    kn_status st = kn_video_metadata_read(path, "title", &value);
    if (st == KN_OK) assert_string_equal(value, "t");
    kn_free(value);
    return st;
}

static void lists_and_tags(void **state)
{
    (void)state;
    assert_int_equal(kn_frames_write("fault_frames", 0, frame, W, H, 8, NULL), KN_OK);
    every_failure(list, "fault_frames", false);
    every_failure(list, "fault_frames/frame_%05d.png", false);
    expected_frames = 1;
    every_failure(read_video, "fault_frames", false);
    expected_frames = FRAMES;
    assert_int_equal(unlink("fault_frames/frame_00000.png"), 0);
    assert_int_equal(rmdir("fault_frames"), 0);
    assert_int_equal(write_video(file_names[0]), KN_OK);
    every_failure(metadata, file_names[0], false);
    assert_int_equal(unlink(file_names[0]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writing_and_reading),
        cmocka_unit_test(lists_and_tags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
