/* io/video_none.c - stands for io/video*.c in builds with KN_VIDEO=OFF, for machines without FFmpeg's
 * libraries (a GPU server that only makes PNG frames or latents): every use says so. */
#include "io/video.h"

static kn_status none(const char *path)
{
    return kn_fail(KN_ERR_UNSUPPORTED,
                   "%s: this build has no video files (KN_VIDEO=OFF); write PNG frames or latents",
                   path ? path : "video");
}

int kn_video_codecs_count(void)
{
    return 0;
}

kn_video_codec_info kn_video_codecs_at(int i)
{
    (void)i;
    return (kn_video_codec_info){0};
}

kn_video_writer_params kn_video_writer_defaults(void)
{
    return (kn_video_writer_params){.quality = KN_VIDEO_QUALITY_DEFAULT};
}

kn_status kn_video_writer_check(const kn_video_writer_params *params)
{
    return none(params->path);
}

kn_status kn_video_writer_check_audio(const kn_video_writer_params *params)
{
    return none(params->path);
}

kn_status kn_video_writer_open(const kn_video_writer_params *params, kn_video_writer **out)
{
    *out = NULL;
    return none(params->path);
}

kn_status kn_video_writer_put(kn_video_writer *w, const float *rgb)
{
    (void)w, (void)rgb;
    return none(NULL);
}

kn_status kn_video_writer_put_u16(kn_video_writer *w, const uint16_t *rgb)
{
    (void)w, (void)rgb;
    return none(NULL);
}

kn_status kn_video_writer_finish(kn_video_writer *w)
{
    (void)w;
    return none(NULL);
}

void kn_video_writer_close(kn_video_writer **w)
{
    *w = NULL;
}

const char *kn_video_writer_text(const kn_video_writer *w)
{
    (void)w;
    return "none";
}

kn_status kn_video_reader_open(const char *path, int threads, kn_video_reader **out)
{
    (void)threads;
    *out = NULL;
    return none(path);
}

const kn_video_info *kn_video_reader_info(const kn_video_reader *r)
{
    (void)r;
    return NULL;
}

kn_status kn_video_reader_next(kn_video_reader *r, float *rgb, bool *end)
{
    (void)r, (void)rgb;
    *end = true;
    return none(NULL);
}

kn_status kn_video_reader_next_u16(kn_video_reader *r, uint16_t *rgb, bool *end)
{
    (void)r, (void)rgb;
    *end = true;
    return none(NULL);
}

kn_status kn_video_reader_skip(kn_video_reader *r, bool *end)
{
    (void)r;
    *end = true;
    return none(NULL);
}

size_t kn_video_writer_memory(const kn_video_writer_params *params, int64_t frames)
{
    (void)params, (void)frames;
    return 0;
}

double kn_video_reader_time_s(const kn_video_reader *r)
{
    (void)r;
    return 0;
}

bool kn_video_reader_metadata(const kn_video_reader *r, int i, const char **key, const char **value)
{
    (void)r, (void)i, (void)key, (void)value;
    return false;
}

void kn_video_reader_close(kn_video_reader **r)
{
    *r = NULL;
}

kn_status kn_video_metadata_read(const char *path, const char *key, char **value)
{
    (void)key;
    *value = NULL;
    return none(path);
}
