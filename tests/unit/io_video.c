/* Video files: every codec there and back, colours, tags, metadata, sameness of bytes, and what is
 * left behind when something fails. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

#include "io/atomic_file.h"
#include "io/log.h"
#include "io/memory.h"
#include "io/video.h"

/* libx265 3.5 does not free its copies of a few option strings (x265_param_parse,
 * x265_copy_params). The name is the leak sanitizer's own. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libx265";
}

/* ---- folder and clip ------------------------------------------------------------------------- */

static char folder[] = "io_video_XXXXXX";
static char path_buffer[4][512];

/* folder/name; the last four results stay valid. */
static const char *in_folder(const char *name)
{
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path_buffer[turn], sizeof path_buffer[turn], "%s/%s", folder, name);
    return path_buffer[turn];
}

/* Remove what is in the folder; returns how many names there were. */
static int empty_folder(void)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        n++;
        assert_int_equal(unlink(in_folder(e->d_name)), 0);
    }
    closedir(d);
    return n;
}

static int make_folder(void **state)
{
    (void)state;
    kn_log_set_level(KN_LOG_ERR);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    empty_folder();
    return rmdir(folder);
}

static int clean(void **state)
{
    (void)state;
    empty_folder();
    return 0;
}

static void must(kn_status st)
{
    if (st != KN_OK) fail_msg("%s: %s", kn_status_name(st), kn_error_text());
}

enum { W = 96, H = 64, FRAMES = 9, BARS = 8 };

/* 75 % bars of ITU-R BT.471: white yellow cyan green magenta red blue black. */
static float bar_level(int bar, int channel)
{
    static const int bits[BARS] = {7, 6, 3, 2, 5, 4, 1, 0};
    return bits[bar] >> (2 - channel) & 1 ? 191.0f / 255.0f : 0.0f;
}

/* Upper half: bars; lower half: a gradient that moves 2 pixels a frame. Values are multiples of
 * 1/255. */
static void draw(float *rgb, int width, int height, int t)
{
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            float *p = rgb + 3 * ((size_t)y * (size_t)width + (size_t)x);
            for (int c = 0; c < 3; c++) {
                double wave = 0.5 + 0.5 * sin(6.283185307 * (x + 2 * t + 11 * c) / 64.0);
                double shade = wave * (0.3 + 0.7 * y / height);
                p[c] = y < height / 2 ? bar_level(x * BARS / width, c)
                                      : (float)floor(shade * 255 + 0.5) / 255.0f;
            }
        }
}

static kn_video_writer_params params_of(const char *path, const char *codec, int width, int height)
{
    kn_video_writer_params p = kn_video_writer_defaults();
    p.path = path;
    p.codec = codec;
    p.width_px = width;
    p.height_px = height;
    p.fps_num = 16;
    p.fps_den = 1;
    p.threads = 2;
    return p;
}

static kn_status write_clip(const kn_video_writer_params *p, int frames)
{
    kn_video_writer *w = NULL;
    float *rgb = test_malloc(3 * sizeof(float) * (size_t)p->width_px * (size_t)p->height_px);
    kn_status st = kn_video_writer_open(p, &w);
    for (int t = 0; t < frames && st == KN_OK; t++) {
        draw(rgb, p->width_px, p->height_px, t);
        st = kn_video_writer_put(w, rgb);
    }
    if (st == KN_OK) st = kn_video_writer_finish(w);
    kn_video_writer_close(&w);
    assert_null(w);
    test_free(rgb);
    return st;
}

/* Frame size is a multiple of 16 pixels a bar, so that edges of bars are edges of chroma
 * samples. */
static void check_bars(const float *rgb, int width, int height, double bound, const char *what)
{
    for (int bar = 0; bar < BARS; bar++)
        for (int c = 0; c < 3; c++) {
            double sum = 0;
            int n = 0, first = bar * width / BARS, last = (bar + 1) * width / BARS;
            for (int y = 2; y < height / 2 - 2; y++)
                for (int x = first + 3; x < last - 3; x++, n++)
                    sum += (double)rgb[3 * (y * width + x) + c];
            double off = 255 * (sum / n - (double)bar_level(bar, c));
            if (fabs(off) > bound)
                fail_msg("%s: bar %d channel %d is off by %.2f of 255", what, bar, c, off);
        }
}

/* ---- every codec there and back -------------------------------------------------------------- */

/* Lowest PSNR in dB of the gradient of any frame (the edges of the bars measure chroma subsampling,
 * not the codec). Measured on FFmpeg 5.1 and rounded down by 3 dB, as encoders of other versions
 * differ a little. ffv1: only the float rounding of k/255; one wrong code in one sample would give
 * 91 dB. */
static const struct expected {
    const char *codec;
    double psnr_db;
} expected[] = {
    {"h264", 40.5},   {"h265", 41},  {"av1", 42}, {"vp9", 40},
    {"prores", 45.5}, {"ffv1", 140}, {"gif", 31}, {"webp", 33.5},
};

static double psnr_floor(const char *codec)
{
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        if (!strcmp(expected[i].codec, codec)) return expected[i].psnr_db;
    fail_msg("no bound for %s", codec);
    return 0;
}

static void read_back(const char *path, const char *codec, bool exact_count)
{
    kn_video_reader *r = NULL;
    must(kn_video_reader_open(path, 1, &r));
    const kn_video_info *info = kn_video_reader_info(r);
    assert_int_equal(info->width_px, W);
    assert_int_equal(info->height_px, H);
    assert_int_equal(info->rotation_deg, 0);
    assert_false(info->has_audio);
    assert_false(info->variable_rate);
    /* gif counts hundredths of a second: 16 frames a second last 6, 6, 7, 6 of them. */
    assert_float_equal((float)info->fps_num / (float)info->fps_den, 16.0f,
                       strcmp(codec, "gif") ? 0.1f : 0.4f);
    assert_int_equal(info->frames, FRAMES);
    if (exact_count) assert_true(info->frames_exact);
    size_t n = 3 * (size_t)W * H;
    float *got = test_malloc(n * sizeof *got), *want = test_malloc(n * sizeof *want);
    bool end = false;
    int count = 0;
    double worst = 1000;
    for (;; count++) {
        must(kn_video_reader_next(r, got, &end));
        if (end) break;
        assert_true(fabs(kn_video_reader_time_s(r) - count / 16.0) < 0.006);
        draw(want, W, H, count);
        double error = 0;
        size_t first = 3 * (size_t)W * (H / 2 + 2);
        for (size_t i = first; i < n; i++) error += pow((double)got[i] - (double)want[i], 2);
        double psnr = error > 0 ? -10 * log10(error / (double)(n - first)) : 999;
        if (psnr < worst) worst = psnr;
        if (psnr < psnr_floor(codec))
            fail_msg("%s frame %d: PSNR %.1f dB, expected %.1f", path, count, psnr,
                     psnr_floor(codec));
        check_bars(got, W, H, 2.0, path);
    }
    print_message("  %-28s %-12s PSNR >= %.1f dB\n", path, info->pixel_format, worst);
    assert_int_equal(count, FRAMES);
    test_free(got);
    test_free(want);
    kn_video_reader_close(&r);
}

/* What the container and, through the decoder, the bitstream say about colour. */
static void check_tags(const char *path, const char *codec)
{
    if (!strcmp(codec, "gif") || !strcmp(codec, "webp")) return; /* have no such tags */
    AVFormatContext *in = NULL;
    assert_true(avformat_open_input(&in, path, NULL, NULL) >= 0);
    assert_true(avformat_find_stream_info(in, NULL) >= 0);
    const AVCodecParameters *par = in->streams[0]->codecpar;
    bool rgb = !strcmp(codec, "ffv1");
    assert_int_equal(par->color_space, rgb ? AVCOL_SPC_RGB : AVCOL_SPC_BT709);
    assert_int_equal(par->color_range, rgb ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG);
    assert_int_equal(par->color_primaries, AVCOL_PRI_BT709);
    assert_int_equal(par->color_trc, AVCOL_TRC_BT709);
    if (!strcmp(codec, "h265") && strstr(path, ".m"))
        if (!strstr(path, ".mkv")) assert_int_equal(par->codec_tag, MKTAG('h', 'v', 'c', '1'));
    avformat_close_input(&in);
}

/* The elementary stream alone, decoded without a container's help. */
static void check_bitstream_tags(const char *path, const char *codec)
{
    if (strcmp(codec, "h264") && strcmp(codec, "h265") && strcmp(codec, "av1")) return;
    AVFormatContext *in = NULL;
    assert_true(avformat_open_input(&in, path, NULL, NULL) >= 0);
    assert_true(avformat_find_stream_info(in, NULL) >= 0);
    const AVCodecParameters *par = in->streams[0]->codecpar;
    AVCodecContext *ctx = avcodec_alloc_context3(avcodec_find_decoder(par->codec_id));
    assert_true(avcodec_parameters_to_context(ctx, par) >= 0);
    ctx->colorspace = AVCOL_SPC_UNSPECIFIED;
    ctx->color_primaries = AVCOL_PRI_UNSPECIFIED;
    ctx->color_trc = AVCOL_TRC_UNSPECIFIED;
    ctx->color_range = AVCOL_RANGE_UNSPECIFIED;
    ctx->thread_count = 1;
    assert_true(avcodec_open2(ctx, avcodec_find_decoder(par->codec_id), NULL) >= 0);
    AVPacket *packet = av_packet_alloc();
    AVFrame *frame = av_frame_alloc();
    int code;
    while ((code = avcodec_receive_frame(ctx, frame)) == AVERROR(EAGAIN)) {
        bool more = av_read_frame(in, packet) >= 0;
        assert_true(avcodec_send_packet(ctx, more ? packet : NULL) >= 0);
        av_packet_unref(packet);
    }
    assert_true(code >= 0);
    assert_int_equal(frame->colorspace, AVCOL_SPC_BT709);
    assert_int_equal(frame->color_primaries, AVCOL_PRI_BT709);
    assert_int_equal(frame->color_trc, AVCOL_TRC_BT709);
    assert_int_equal(frame->color_range, AVCOL_RANGE_MPEG);
    av_frame_free(&frame);
    av_packet_free(&packet);
    avcodec_free_context(&ctx);
    avformat_close_input(&in);
}

static void every_codec_and_container_comes_back(void **state)
{
    (void)state;
    int tried = 0;
    for (int i = 0; i < kn_video_codecs_count(); i++) {
        kn_video_codec_info c = kn_video_codecs_at(i);
        if (!c.available) {
            print_message("  %s: no encoder in this build, not tried\n", c.name);
            continue;
        }
        char list[64], *save = NULL;
        snprintf(list, sizeof list, "%s", c.containers);
        for (char *ext = strtok_r(list, " ", &save); ext; ext = strtok_r(NULL, " ", &save)) {
            char name[64];
            snprintf(name, sizeof name, "%s.%s", c.name, ext);
            const char *path = in_folder(name);
            kn_video_writer_params p = params_of(path, c.name, W, H);
            must(write_clip(&p, FRAMES));
            read_back(path, c.name, !strcmp(ext, "mp4") || !strcmp(ext, "mov"));
            check_tags(path, c.name);
            check_bitstream_tags(path, c.name);
            tried++;
        }
    }
    assert_true(tried > 0);
}

static void every_depth_and_preset_comes_back(void **state)
{
    (void)state;
    static const struct variant {
        const char *codec, *file, *preset;
        int bits;
    } variants[] = {
        {"h264", "v.mp4", "veryfast", 10}, {"h265", "v.mp4", "ultrafast", 8},
        {"av1", "v.mp4", "8", 8},          {"vp9", "v.webm", "5", 10},
        {"prores", "v.mov", "4444", 10},   {"prores", "v.mov", "proxy", 10},
        {"ffv1", "v.mkv", NULL, 10},       {"ffv1", "v.mkv", NULL, 12},
        {"ffv1", "v.mkv", NULL, 16},       {"webp", "v.webp", "lossless", 8},
    };
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        kn_video_writer_params p = params_of(in_folder(variants[i].file), variants[i].codec, W, H);
        p.bit_depth = variants[i].bits;
        p.preset = variants[i].preset;
        if (!strncmp(variants[i].codec, "h26", 3)) p.quality = 8; /* fast presets waver at 16 */
        if (kn_video_writer_check(&p) == KN_ERR_UNSUPPORTED) {
            print_message("  %s: %s\n", variants[i].codec, kn_error_text());
            continue;
        }
        must(write_clip(&p, 3));
        kn_video_reader *r;
        float *rgb = test_malloc(3 * sizeof(float) * W * H);
        bool end;
        must(kn_video_reader_open(p.path, 1, &r));
        /* libavcodec decodes 4444 profiles to 12 bits, whatever was put in (proresdec2.c). */
        bool is_4444 = variants[i].preset && !strcmp(variants[i].preset, "4444");
        assert_int_equal(kn_video_reader_info(r)->bit_depth, is_4444 ? 12 : variants[i].bits);
        must(kn_video_reader_next(r, rgb, &end));
        assert_false(end);
        check_bars(rgb, W, H, 2.0, variants[i].codec);
        kn_video_reader_close(&r);
        test_free(rgb);
    }
}

static void lossless_is_lossless(void **state)
{
    (void)state;
    /* 16-bit noise through ffv1 16; every 8-bit value through ffv1 8 is in the test above (PSNR
     * 999). */
    enum { SIDE = 64 };
    const char *path = in_folder("l.mkv");
    kn_video_writer_params p = params_of(path, "ffv1", SIDE, SIDE);
    p.bit_depth = 16;
    kn_video_writer *w;
    kn_video_reader *r;
    uint16_t in[2][3 * SIDE * SIDE], out[3 * SIDE * SIDE];
    uint32_t x = 1;
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 3 * SIDE * SIDE; i++)
            in[t][i] = (uint16_t)((x = x * 1664525 + 1013904223) >> 16);
    in[0][0] = 0;
    in[0][1] = 65535;
    must(kn_video_writer_open(&p, &w));
    must(kn_video_writer_put_u16(w, in[0]));
    must(kn_video_writer_put_u16(w, in[1]));
    must(kn_video_writer_finish(w));
    kn_video_writer_close(&w);
    must(kn_video_reader_open(path, 1, &r));
    assert_int_equal(kn_video_reader_info(r)->bit_depth, 16);
    bool end;
    for (int t = 0; t < 2; t++) {
        must(kn_video_reader_next_u16(r, out, &end));
        assert_false(end);
        assert_memory_equal(out, in[t], sizeof out);
    }
    must(kn_video_reader_next_u16(r, out, &end));
    assert_true(end);
    kn_video_reader_close(&r);
}

static void ten_bits_are_ten_bits(void **state)
{
    (void)state;
    enum { WIDE = 1024, TALL = 64 };
    kn_video_writer_params p = params_of(in_folder("t.mp4"), "h265", WIDE, TALL);
    p.quality = 4;
    if (kn_video_writer_check(&p) == KN_ERR_UNSUPPORTED) {
        print_message("  %s\n", kn_error_text());
        return;
    }
    static uint16_t rgb[3 * WIDE * TALL];
    for (int i = 0; i < WIDE * TALL; i++)
        rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = (uint16_t)(i % WIDE * 64);
    kn_video_writer *w;
    must(kn_video_writer_open(&p, &w));
    must(kn_video_writer_put_u16(w, rgb));
    must(kn_video_writer_finish(w));
    kn_video_writer_close(&w);
    kn_video_reader *r;
    bool end, seen[1024] = {false};
    must(kn_video_reader_open(p.path, 1, &r));
    assert_int_equal(kn_video_reader_info(r)->bit_depth, 10);
    must(kn_video_reader_next_u16(r, rgb, &end));
    int levels = 0;
    for (int i = 0; i < WIDE * TALL; i++) {
        int level = rgb[3 * i + 1] >> 6;
        levels += !seen[level];
        seen[level] = true;
    }
    kn_video_reader_close(&r);
    print_message("  %d distinct levels\n", levels);
    /* Limited range has 877 codes in 10 bits and 220 in 8. */
    assert_true(levels > 256);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static void assert_same_file(const char *a, const char *b, const char *what)
{
    char *da, *db;
    size_t na, nb;
    must(kn_file_read(a, 1 << 28, &da, &na));
    must(kn_file_read(b, 1 << 28, &db, &nb));
    if (na != nb || memcmp(da, db, na)) fail_msg("%s: %s and %s differ", what, a, b);
    kn_free(da);
    kn_free(db);
}

static void same_frames_give_same_bytes(void **state)
{
    (void)state;
    static const char *const metadata[] = {"title", "t", "comment", "{}", "kinora_seed", "7", NULL};
    for (int i = 0; i < kn_video_codecs_count(); i++) {
        kn_video_codec_info c = kn_video_codecs_at(i);
        if (!c.available) continue;
        char ext[8] = "", names[3][24];
        sscanf(c.containers, "%7s", ext);
        for (int k = 0; k < 3; k++) {
            snprintf(names[k], sizeof names[k], "s%d.%s", k, ext);
            /* Large enough for encoders to make use of a second thread. */
            kn_video_writer_params p = params_of(in_folder(names[k]), c.name, 208, 144);
            p.threads = k == 2 ? 1 : 2;
            p.metadata = metadata;
            must(write_clip(&p, 12));
        }
        assert_same_file(in_folder(names[0]), in_folder(names[1]), c.name);
        assert_same_file(in_folder(names[0]), in_folder(names[2]), c.name);
    }
}

static void metadata_comes_back(void **state)
{
    (void)state;
    static const char *const files[] = {"m.mp4", "m.mov", "m.mkv", "m.webm", NULL};
    /* More than the 65535 bytes that fit an old QuickTime text, and not ASCII. */
    size_t n = 70000;
    char *comment = test_malloc(n + 1), *value;
    memset(comment, 'x', n);
    static const char start[] = "{\"prompt\": \"\xE5\xB1\xB1, \xC3\xA9t\xC3\xA9\"} ";
    memcpy(comment, start, sizeof start - 1);
    comment[n] = '\0';
    for (int extra = 0; extra < 2; extra++)
        for (int i = 0; files[i]; i++) {
            const char *const metadata[] = {
                "title", "A = B; 100 %", "comment", comment, extra ? "kinora" : NULL, "0.1", NULL};
            kn_video_writer_params p = params_of(in_folder(files[i]), NULL, W, H);
            p.metadata = metadata;
            must(write_clip(&p, 2));
            must(kn_video_metadata_read(p.path, "title", &value));
            assert_string_equal(value, "A = B; 100 %");
            kn_free(value);
            must(kn_video_metadata_read(p.path, "comment", &value));
            assert_non_null(value);
            assert_string_equal(value, comment);
            kn_free(value);
            must(kn_video_metadata_read(p.path, "kinora", &value));
            if (extra)
                assert_string_equal(value, "0.1");
            else
                assert_null(value);
            kn_free(value);
        }
    test_free(comment);
    kn_video_reader *r;
    const char *k, *v;
    bool found = false;
    must(kn_video_reader_open(in_folder("m.mp4"), 1, &r));
    for (int i = 0; kn_video_reader_metadata(r, i, &k, &v); i++)
        found |= !strcmp(k, "title") && !strcmp(v, "A = B; 100 %");
    assert_true(found);
    kn_video_reader_close(&r);
}

/* ---- failures -------------------------------------------------------------------------------- */

static void closing_without_finish_leaves_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < kn_video_codecs_count(); i++) {
        kn_video_codec_info c = kn_video_codecs_at(i);
        if (!c.available) continue;
        char ext[8] = "", name[16];
        sscanf(c.containers, "%7s", ext);
        snprintf(name, sizeof name, "d.%s", ext);
        kn_video_writer_params p = params_of(in_folder(name), c.name, W, H);
        float *rgb = test_malloc(3 * sizeof(float) * W * H);
        draw(rgb, W, H, 0);
        for (int frames = 0; frames < 3; frames++) {
            kn_video_writer *w;
            must(kn_video_writer_open(&p, &w));
            for (int t = 0; t < frames; t++) must(kn_video_writer_put(w, rgb));
            kn_video_writer_close(&w);
            assert_int_equal(empty_folder(), 0);
        }
        test_free(rgb);
    }
}

static void full_disk_is_an_io_error(void **state)
{
    (void)state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN); /* as in any program that wants EFBIG */
    static const long limits[] = {0, 300, 2000};
    for (int i = 0; i < kn_video_codecs_count(); i++) {
        kn_video_codec_info c = kn_video_codecs_at(i);
        if (!c.available) continue;
        char ext[8] = "", name[16];
        sscanf(c.containers, "%7s", ext);
        snprintf(name, sizeof name, "full.%s", ext);
        for (size_t k = 0; k < sizeof limits / sizeof limits[0]; k++) {
            small = before;
            small.rlim_cur = (rlim_t)limits[k];
            kn_video_writer_params p = params_of(in_folder(name), c.name, 208, 144);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
            kn_status st = write_clip(&p, 12);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
            if (st == KN_OK) fail_msg("%s wrote past %ld bytes", c.name, limits[k]);
            if (st != KN_ERR_IO) fail_msg("%s: %s", kn_status_name(st), kn_error_text());
            assert_non_null(strstr(kn_error_text(), name));
            assert_non_null(strstr(kn_error_text(), "File too large"));
            assert_int_equal(empty_folder(), 0);
        }
    }
    signal(SIGXFSZ, handler);
}

static void expect(kn_status want, const kn_video_writer_params *p, const char *phrase)
{
    kn_status st = kn_video_writer_check(p);
    if (st != want || !strstr(kn_error_text(), phrase))
        fail_msg("expected %s with '%s', found %s: %s", kn_status_name(want), phrase,
                 kn_status_name(st), st == KN_OK ? "" : kn_error_text());
    kn_video_writer *w = NULL;
    assert_int_equal(kn_video_writer_open(p, &w), want);
    assert_null(w);
    assert_int_equal(empty_folder(), 0);
}

static void wrong_settings_are_refused(void **state)
{
    (void)state;
    kn_video_writer_params p, good = params_of(in_folder("x.mp4"), NULL, W, H);
    char first[16];
    for (int i = 0; i < kn_video_codecs_count(); i++)
        if (kn_video_codecs_at(i).available) {
            p = good, p.codec = "divx";
            snprintf(first, sizeof first, "%s", kn_video_codecs_at(i).name);
            expect(KN_ERR_ARG, &p, first); /* the message lists what there is */
        }
    expect(KN_ERR_ARG, &p, "divx");
    p = good, p.path = in_folder("x.webm"), p.codec = "prores";
    if (kn_video_codecs_at(4).available) expect(KN_ERR_ARG, &p, "prores fits in mov mkv");
    p = good, p.path = in_folder("x.wmv");
    expect(KN_ERR_ARG, &p, ".mp4 .mov .mkv .webm .gif or .webp");
    p = good, p.path = in_folder("mp4");
    expect(KN_ERR_ARG, &p, "no extension");
    p = good, p.path = "";
    expect(KN_ERR_ARG, &p, "file name");
    p = good, p.width_px = 1;
    expect(KN_ERR_ARG, &p, "1x64");
    p = good, p.width_px = p.height_px = KN_VIDEO_MAX_SIDE_PX;
    expect(KN_ERR_ARG, &p, "16384x16384");
    p = good, p.fps_den = 0;
    expect(KN_ERR_ARG, &p, "16/0");
    p = good, p.path = "x.gif", p.fps_num = 60;
    expect(KN_ERR_ARG, &p, "at most 50 frames per second in a GIF");
    p.fps_num = 50;
    if (kn_video_writer_check(&p) != KN_OK) assert_null(strstr(kn_error_text(), "frames per second"));
    p.fps_num = 50001, p.fps_den = 1000;
    expect(KN_ERR_ARG, &p, "50001/1000");
    p = good, p.quality = 52;
    expect(KN_ERR_ARG, &p, "crf 0..51");
    p = good, p.quality = NAN;
    expect(KN_ERR_ARG, &p, "crf 0..51");
    p = good, p.preset = "quick";
    expect(KN_ERR_ARG, &p, "'quick'");
    p = good, p.bit_depth = 9;
    expect(KN_ERR_ARG, &p, "found 9");
    p = good, p.threads = -1;
    expect(KN_ERR_ARG, &p, "threads");
    p = good, p.path = in_folder("x.mkv"), p.codec = "ffv1", p.quality = 3;
    expect(KN_ERR_ARG, &p, "lossless");
    p = good, p.path = in_folder("none/x.mp4");
    assert_int_equal(write_clip(&p, 1), KN_ERR_IO);
    p = good;
    assert_int_equal(write_clip(&p, 0), KN_ERR_ARG); /* no frames, no video */
    assert_int_equal(empty_folder(), 0);
}

static void nan_is_an_error(void **state)
{
    (void)state;
    kn_video_writer *w;
    kn_video_writer_params p = params_of(in_folder("n.mkv"), "ffv1", W, H);
    float *rgb = test_malloc(3 * sizeof(float) * W * H);
    draw(rgb, W, H, 0);
    must(kn_video_writer_open(&p, &w));
    must(kn_video_writer_put(w, rgb));
    rgb[3 * W * 5 + 7] = NAN;
    assert_int_equal(kn_video_writer_put(w, rgb), KN_ERR_NUMERIC);
    assert_non_null(strstr(kn_error_text(), "frame 1: NaN in row 5"));
    assert_int_equal(kn_video_writer_finish(w), KN_ERR_ARG);
    kn_video_writer_close(&w);
    assert_int_equal(empty_folder(), 0);
    test_free(rgb);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static void odd_and_small_sizes(void **state)
{
    (void)state;
    static const int sizes[][2] = {{97, 65}, {96, 65}, {97, 64}, {16, 16},
                                   {33, 17}, {3, 3},   {2, 2}};
    for (int i = 0; i < kn_video_codecs_count(); i++) {
        kn_video_codec_info c = kn_video_codecs_at(i);
        if (!c.available) continue;
        char ext[8] = "", name[16];
        sscanf(c.containers, "%7s", ext);
        snprintf(name, sizeof name, "o.%s", ext);
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            kn_video_writer_params p = params_of(in_folder(name), c.name, sizes[k][0], sizes[k][1]);
            empty_folder();
            kn_status st = write_clip(&p, 3);
            if (st == KN_ERR_UNSUPPORTED) { /* an encoder's own lower limit: said, nothing left */
                print_message("  %s\n", kn_error_text());
                assert_int_equal(empty_folder(), 0);
                assert_true(sizes[k][0] < 64);
                continue;
            }
            must(st);
            kn_video_reader *r;
            bool end = false;
            must(kn_video_reader_open(p.path, 1, &r));
            assert_int_equal(kn_video_reader_info(r)->width_px, sizes[k][0]);
            assert_int_equal(kn_video_reader_info(r)->height_px, sizes[k][1]);
            float *rgb = test_malloc(3 * sizeof(float) * (size_t)(sizes[k][0] * sizes[k][1]));
            int n = 0;
            for (; !end; n++) must(kn_video_reader_next(r, rgb, &end));
            assert_int_equal(n, 4);
            if (sizes[k][0] > 90) assert_true(rgb[0] > 0.7f); /* the white bar */
            test_free(rgb);
            kn_video_reader_close(&r);
        }
    }
}

/* ---- audio ----------------------------------------------------------------------------------- */

/* A PCM file of `seconds`, 8000 samples of 16 bits a second. */
static void write_wav(const char *path, int seconds)
{
    enum { RATE = 8000 };
    uint32_t bytes = 2 * RATE * (uint32_t)seconds;
    uint8_t head[44] = "RIFF....WAVEfmt \x10\0\0\0\x01\0\x01\0";
    uint32_t fields[][2] = {{4, 36 + bytes}, {24, RATE}, {28, 2 * RATE}, {40, bytes}};
    for (int f = 0; f < 4; f++)
        for (int i = 0; i < 4; i++) head[fields[f][0] + i] = (uint8_t)(fields[f][1] >> 8 * i);
    head[32] = 2;
    head[34] = 16;
    memcpy(head + 36, "data", 4);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(head, 1, sizeof head, f);
    for (uint32_t i = 0; i < bytes; i++) fputc((int)(i * 37 % 251), f);
    fclose(f);
}

static void audio_is_copied_and_cut(void **state)
{
    (void)state;
    char wav[64];
    snprintf(wav, sizeof wav, "%s", in_folder("a.wav"));
    write_wav(wav, 3);
    kn_video_writer_params p = params_of(in_folder("a.mkv"), "ffv1", W, H);
    p.audio_from = wav;
    must(write_clip(&p, 16)); /* one second */
    AVFormatContext *in = NULL;
    assert_true(avformat_open_input(&in, p.path, NULL, NULL) >= 0);
    assert_true(avformat_find_stream_info(in, NULL) >= 0);
    assert_int_equal(in->nb_streams, 2);
    assert_int_equal(in->streams[1]->codecpar->codec_id, AV_CODEC_ID_PCM_S16LE);
    int64_t bytes = 0;
    AVPacket *packet = av_packet_alloc();
    for (; av_read_frame(in, packet) >= 0; av_packet_unref(packet))
        if (packet->stream_index == 1) bytes += packet->size;
    av_packet_free(&packet);
    avformat_close_input(&in);
    /* One second is 16000 bytes; whole packets are copied (wav: 4096 bytes). */
    assert_true(bytes >= 16000 && bytes < 16000 + 4096);
    kn_video_reader *r;
    must(kn_video_reader_open(p.path, 1, &r));
    assert_true(kn_video_reader_info(r)->has_audio);
    kn_video_reader_close(&r);

    /* A container that cannot hold it is named; a source without audio is fine. */
    kn_video_writer_params q = params_of(in_folder("a.webm"), "vp9", W, H);
    q.audio_from = wav;
    if (kn_video_writer_check(&q) == KN_OK) {
        assert_int_equal(write_clip(&q, 2), KN_ERR_ARG);
        assert_non_null(strstr(kn_error_text(), "pcm_s16le"));
    }
    p.audio_from = NULL;
    p.path = in_folder("silent.mkv");
    must(write_clip(&p, 2));
    q = params_of(in_folder("b.mkv"), "ffv1", W, H);
    q.audio_from = in_folder("silent.mkv");
    must(write_clip(&q, 2));
    q.audio_from = in_folder("missing.mkv");
    assert_int_equal(write_clip(&q, 2), KN_ERR_IO);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void turned_video_is_turned_back(void **state)
{
    (void)state;
    const char *path = in_folder("r.mp4");
    kn_video_writer_params p = params_of(path, NULL, W, H);
    if (kn_video_writer_check(&p) == KN_ERR_UNSUPPORTED) {
        print_message("  %s\n", kn_error_text());
        return;
    }
    must(write_clip(&p, 1));
    char *data;
    size_t size, at = 0;
    must(kn_file_read(path, 1 << 24, &data, &size));
    while (at + 4 < size && memcmp(data + at, "tkhd", 4)) at++;
    assert_true(at + 80 < size);
    /* Version 0: the matrix {a b u c d v x y w} stands 44 bytes after the name (ISO/IEC 14496-12
     * 8.3.2). a=0 b=1 c=-1 d=0 is a quarter turn clockwise. */
    static const int32_t quarter[9] = {0, 1 << 16, 0, -(1 << 16), 0, 0, H << 16, 0, 1 << 30};
    for (int i = 0; i < 9; i++)
        for (int b = 0; b < 4; b++)
            data[at + 44 + 4 * (size_t)i + (size_t)b] =
                (char)((uint32_t)quarter[i] >> (24 - 8 * b));
    must(kn_file_write(path, data, size));
    kn_free(data);
    kn_video_reader *r;
    bool end;
    must(kn_video_reader_open(path, 1, &r));
    assert_int_equal(kn_video_reader_info(r)->rotation_deg, 90);
    assert_int_equal(kn_video_reader_info(r)->width_px, H);
    assert_int_equal(kn_video_reader_info(r)->height_px, W);
    float *rgb = test_malloc(3 * sizeof(float) * W * H);
    must(kn_video_reader_next(r, rgb, &end));
    /* The bars, left to right in the upper half, now run from top to bottom in the right half. */
    for (int bar = 0; bar < BARS; bar++)
        for (int c = 0; c < 3; c++) {
            int y = bar * W / BARS + W / BARS / 2, x = H - 8;
            assert_float_equal(rgb[3 * (y * H + x) + c], bar_level(bar, c), 0.03f);
        }
    test_free(rgb);
    kn_video_reader_close(&r);
}

/* Read everything there is; errors are fine, crashes are not. */
static int read_all(const char *path, kn_status *st)
{
    kn_video_reader *r = NULL;
    int n = 0;
    *st = kn_video_reader_open(path, 1, &r);
    if (*st != KN_OK) {
        assert_null(r);
        return 0;
    }
    const kn_video_info *info = kn_video_reader_info(r);
    float *rgb = malloc(3 * sizeof(float) * (size_t)info->width_px * (size_t)info->height_px);
    for (bool end = false; *st == KN_OK && n < 1000; n += !end) {
        *st = kn_video_reader_next(r, rgb, &end);
        if (end) break;
    }
    free(rgb);
    kn_video_reader_close(&r);
    return n;
}

static void damaged_files_are_errors_or_frames(void **state)
{
    (void)state;
    for (int i = 0; i < kn_video_codecs_count(); i++) {
        kn_video_codec_info c = kn_video_codecs_at(i);
        if (!c.available) continue;
        char ext[8] = "", whole[16], part[16];
        sscanf(c.containers, "%7s", ext);
        snprintf(whole, sizeof whole, "w.%s", ext);
        snprintf(part, sizeof part, "p.%s", ext);
        kn_video_writer_params p = params_of(in_folder(whole), c.name, W, H);
        must(write_clip(&p, 4));
        char *data;
        size_t size;
        kn_status st;
        must(kn_file_read(p.path, 1 << 24, &data, &size));
        int silent = 0;
        for (int k = 0; k < 16; k++) { /* cut short */
            must(kn_file_write(in_folder(part), data, size * (size_t)k / 16));
            int n = read_all(in_folder(part), &st);
            silent += st == KN_OK && n == 4;
        }
        /* The end of mkv, webm and gif holds no picture. */
        assert_true(silent <= 1);
        uint32_t x = 7;
        for (int k = 0; k < 60; k++) { /* wrong bytes */
            char *bad = test_malloc(size);
            memcpy(bad, data, size);
            for (int b = 0; b < 4; b++) {
                x = x * 1664525 + 1013904223;
                char *at = &bad[(x >> 8) % size];
                *at = (char)(*at ^ 1 << (x >> 29));
            }
            must(kn_file_write(in_folder(part), bad, size));
            (void)read_all(in_folder(part), &st);
            test_free(bad);
        }
        kn_free(data);
    }
    kn_status st;
    must(kn_file_write(in_folder("e.mp4"), "", 0));
    read_all(in_folder("e.mp4"), &st);
    assert_int_equal(st, KN_ERR_FORMAT);
    read_all(in_folder("missing.mp4"), &st);
    assert_int_equal(st, KN_ERR_IO);
    /* A playlist must not make us open what it names. */
    static const char playlist[] = "#EXTM3U\n#EXTINF:1,\nw.mkv\n#EXT-X-ENDLIST\n";
    must(kn_file_write(in_folder("l.m3u8"), playlist, sizeof playlist - 1));
    read_all(in_folder("l.m3u8"), &st);
    assert_int_equal(st, KN_ERR_FORMAT);
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, clean)
    const struct CMUnitTest tests[] = {
        T(every_codec_and_container_comes_back),
        T(every_depth_and_preset_comes_back),
        T(lossless_is_lossless),
        T(ten_bits_are_ten_bits),
        T(same_frames_give_same_bytes),
        T(metadata_comes_back),
        T(closing_without_finish_leaves_nothing),
        T(full_disk_is_an_io_error),
        T(wrong_settings_are_refused),
        T(nan_is_an_error),
        T(odd_and_small_sizes),
        T(audio_is_copied_and_cut),
        T(turned_video_is_turned_back),
        T(damaged_files_are_errors_or_frames),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
