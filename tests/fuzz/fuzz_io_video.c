/* Any bytes as a video file: opened or refused; every frame that comes out is finite and in [0,1]. The
 * decoders are libavcodec's; what is ours is the way from their claims (sizes, formats, rotation,
 * colour) to a buffer of the caller, and the WebP parser. */
#include <math.h>

#include "io/log.h"
#include "io/memory.h"
#include "io/video.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_PIXELS = 1 << 14, MAX_FRAMES = 4 }; /* more only cost time here */

static void read_frames(kn_video_reader *r)
{
    const kn_video_info *info = kn_video_reader_info(r);
    require(info->width_px > 0 && info->height_px > 0 && info->fps_den > 0 && info->frames >= 0);
    size_t n = 3 * (size_t)info->width_px * (size_t)info->height_px;
    if (n > 3 * MAX_PIXELS) return;
    /* malloc: exactly n values, so that AddressSanitizer sees the first one past them. */
    float *rgb = malloc(n * sizeof *rgb);
    require(rgb != NULL);
    bool end = false;
    for (int i = 0; i < MAX_FRAMES && !end; i++) {
        for (size_t k = 0; k < n; k++) rgb[k] = NAN;
        kn_status st = kn_video_reader_next(r, rgb, &end);
        if (st != KN_OK) {
            require(*kn_error_text() != '\0');
            break;
        }
        for (size_t k = 0; k < n && !end; k++) require(rgb[k] >= 0.0f && rgb[k] <= 1.0f);
    }
    free(rgb);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file("in.mp4", data, size);
    char *value = NULL;
    const char *key, *text;
    kn_video_reader *r = NULL;
    kn_log_set_level(KN_LOG_ERR);
    if (kn_video_reader_open(path, 1, &r) == KN_OK) {
        for (int i = 0; i < 100 && kn_video_reader_metadata(r, i, &key, &text); i++)
            require(key && text);
        read_frames(r);
        if (kn_video_metadata_read(path, "title", &value) != KN_OK) require(!value);
        kn_free(value);
    } else {
        require(!r && *kn_error_text() != '\0');
    }
    kn_video_reader_close(&r);
    return 0;
}
