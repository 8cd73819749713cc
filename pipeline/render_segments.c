/* pipeline/render_segments.c - a clip longer than a segment: one segment after the other to finished latents.
 *
 * Each segment runs through the same passes as a clip of that length. The checkpoint that its last pass
 * leaves is renamed to the segment's own file; when all are there, render_decode.c makes one video of
 * them. So a stopped run goes on inside the segment where it was, and only one is in memory at a time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <errno.h>

#include "io/memory.h"
#include "pipeline/render_job.h"

kn_status kn_job_segment_path(const kn_job *j, int64_t segment, char **path)
{
    return kn_asprintf(path, "%s.segment-%04" PRId64, j->checkpoint, segment);
}

void kn_job_segments_remove(const kn_job *j)
{
    for (int64_t k = 0; j->segments.count > 1 && k < j->segments.count; k++) {
        char *path;
        if (kn_job_segment_path(j, k, &path) != KN_OK) return;
        unlink(path);
        kn_free(path);
    }
}

kn_status kn_job_segments_find(kn_job *j)
{
    kn_checkpoint_place at = {.exists = true};
    while (j->segments.count > 1 && at.exists && j->segment < j->segments.count) {
        char *path;
        KN_TRY(kn_job_segment_path(j, j->segment, &path));
        kn_status st = kn_checkpoint_peek(path, &at);
        kn_free(path);
        KN_TRY(st);
        if (!at.exists) break;
        if (j->o->seed < 0) j->o->seed = at.seed;
        j->resumed = true;
        j->segment++;
    }
    return KN_OK;
}

/* Those that are there must be of this job; j->segment is restored. */
static kn_status check_found(kn_job *j)
{
    int64_t found = j->segment;
    kn_status st = KN_OK;
    for (j->segment = 0; st == KN_OK && j->segment < found; j->segment++) {
        char *path = NULL;
        st = kn_job_segment_path(j, j->segment, &path);
        if (st == KN_OK) st = kn_job_load(j, path, j->passes - 1);
        kn_free(path);
    }
    j->segment = found;
    kn_free(j->latents);
    j->latents = NULL;
    return st;
}

static kn_status run_segment(kn_job *j)
{
    char *path;
    int64_t first = kn_segment_first(&j->segments, j->segment);
    kn_job_note(j, "segment %" PRId64 " of %" PRId64 ": frames %" PRId64 " to %" PRId64, j->segment + 1, j->segments.count,
                first + 1, first + j->segments.length);
    KN_TRY(kn_job_denoise(j));
    kn_free(j->latents);
    j->latents = NULL;
    KN_TRY(kn_job_segment_path(j, j->segment, &path));
    kn_status st = rename(j->checkpoint, path) == 0
                       ? KN_OK
                       : kn_fail(KN_ERR_IO, "%s: keeping it as %s: %s", j->checkpoint, path, strerror(errno));
    kn_free(path);
    return st;
}

kn_status kn_job_segments(kn_job *j)
{
    char text[64];
    if (!j->resumed) kn_job_segments_remove(j); /* of another run */
    KN_TRY(check_found(j));
    double start = kn_now_sec();
    int64_t begun = j->segment, count = j->segments.count;
    for (; j->segment < count; j->segment++) {
        KN_TRY(run_segment(j));
        double each = (kn_now_sec() - start) / (double)(j->segment + 1 - begun);
        if (j->segment + 1 < count)
            kn_job_note(j, "about %s for the other segments",
                        kn_duration_text(each * (double)(count - 1 - j->segment), text, sizeof text));
        j->first = 1; /* only the first one can be midway */
        j->midway = false;
    }
    return KN_OK;
}
