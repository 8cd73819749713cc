/* R'G'B' to code values and back, against the numbers of the recommendations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "io/video_color.h"

static void must(kn_status st)
{
    if (st != KN_OK) fail_msg("%s: %s", kn_status_name(st), kn_error_text());
}

static void known_code_values(void **state)
{
    (void)state;
    /* ITU-R BT.709, 8 bits: white 235 128 128, red 63 102 240, green 173 42 26, blue 32 240 118. */
    static const float rgb[4][3] = {{1, 1, 1}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    static const int codes[4][3] = {{235, 128, 128}, {63, 102, 240}, {173, 42, 26}, {32, 240, 118}};
    for (int bits = 8; bits <= 10; bits += 2)
        for (int i = 0; i < 4; i++) {
            AVFrame *f = av_frame_alloc();
            f->format = bits == 8 ? AV_PIX_FMT_YUV420P : AV_PIX_FMT_YUV420P10LE;
            f->width = 5; /* odd, for the edges */
            f->height = 3;
            assert_true(av_frame_get_buffer(f, 0) >= 0);
            float in[45], out[45];
            for (int k = 0; k < 45; k++) in[k] = rgb[i][k % 3];
            must(kn_color_pack(in, NULL, f, 0));
            for (int plane = 0; plane < 3; plane++)
                for (int y = 0; y < (plane ? 2 : 3); y++)
                    for (int x = 0; x < (plane ? 3 : 5); x++) {
                        const uint8_t *row = f->data[plane] + y * f->linesize[plane];
                        int v = bits == 8 ? row[x] : row[2 * x] | row[2 * x + 1] << 8;
                        assert_true(abs(v - (codes[i][plane] << (bits - 8))) <=
                                    (bits == 8 ? 0 : 2));
                    }
            kn_color_source how;
            must(kn_color_source_of(f->format, AVCOL_SPC_BT709, AVCOL_RANGE_MPEG, 3, &how));
            assert_false(how.matrix_guessed);
            must(kn_color_unpack(f, &how, 0, out));
            /* Half a code of luma and half a code of chroma: 0.5/219 + 1.8556 * 0.5/224. */
            for (int k = 0; k < 45; k++) assert_float_equal(out[k], in[k], 0.0065f);
            av_frame_free(&f);
        }
    kn_color_source how;
    must(kn_color_source_of(AV_PIX_FMT_YUV420P, AVCOL_SPC_UNSPECIFIED, AVCOL_RANGE_UNSPECIFIED, 720,
                            &how));
    assert_true(how.matrix_guessed && how.matrix == AVCOL_SPC_BT709 && !how.full_range);
    must(kn_color_source_of(AV_PIX_FMT_YUVJ420P, AVCOL_SPC_UNSPECIFIED, AVCOL_RANGE_UNSPECIFIED,
                            480, &how));
    assert_true(how.matrix_guessed && how.matrix == AVCOL_SPC_SMPTE170M && how.full_range);
    assert_int_equal(
        kn_color_source_of(AV_PIX_FMT_VAAPI, AVCOL_SPC_BT709, AVCOL_RANGE_MPEG, 9, &how),
        KN_ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_code_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
