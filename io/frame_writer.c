#include "io/frame_writer.h"

#include <pthread.h>
#include <stdbool.h>

#include "io/frames.h"
#include "io/memory.h"
#include "io/png.h"

typedef enum slot_state { SLOT_FREE, SLOT_FULL, SLOT_WRITING } slot_state;

typedef struct slot {
    slot_state state;
    int64_t index; /* of the frame */
    void *pixels;  /* [H,W,3] of `bits` */
} slot;

struct kn_frame_writer {
    kn_frame_writer_params p;
    int64_t next; /* frame of the next put */
    slot slots[KN_FRAME_WRITER_THREADS];
    pthread_t threads[KN_FRAME_WRITER_THREADS];
    int count; /* threads that could be started, each with a slot */
    pthread_mutex_t lock;
    pthread_cond_t full, free; /* a slot became so, or the end came */
    bool stop;
    /* Of the earliest frame that failed. */
    int64_t failed;
    kn_status st;
    char message[1024];
};

/* The slot in this state with the earliest frame; NULL: none. */
static slot *find(kn_frame_writer *w, slot_state state)
{
    slot *best = NULL;
    for (int i = 0; i < w->count; i++)
        if (w->slots[i].state == state && (!best || w->slots[i].index < best->index)) best = &w->slots[i];
    return best;
}

static kn_status write_slot(const kn_frame_writer *w, const slot *s)
{
    char *path;
    KN_TRY(kn_frames_path(w->p.folder, s->index, &path));
    kn_picture picture = {w->p.width_px, w->p.height_px, 3, w->p.bits, s->pixels};
    kn_status st = kn_png_write(path, &picture, w->p.text);
    kn_free(path);
    return st;
}

static void *work(void *user)
{
    kn_frame_writer *w = user;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        slot *s = find(w, SLOT_FULL);
        if (!s && w->stop) break;
        if (!s) {
            pthread_cond_wait(&w->full, &w->lock);
            continue;
        }
        s->state = SLOT_WRITING;
        bool wanted = w->st == KN_OK || s->index < w->failed;
        pthread_mutex_unlock(&w->lock);
        kn_status st = wanted ? write_slot(w, s) : KN_OK;
        pthread_mutex_lock(&w->lock);
        if (st != KN_OK && (w->st == KN_OK || s->index < w->failed)) {
            w->st = st;
            w->failed = s->index;
            kn_error_copy(w->message, sizeof w->message);
        }
        s->state = SLOT_FREE;
        pthread_cond_signal(&w->free);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

kn_status kn_frame_writer_open(const kn_frame_writer_params *p, kn_frame_writer **out)
{
    *out = NULL;
    if (p->threads < 0 || p->threads > KN_FRAME_WRITER_THREADS)
        return kn_fail(KN_ERR_ARG, "%s: expected 0 to %d threads, found %d", p->folder, KN_FRAME_WRITER_THREADS,
                       p->threads);
    if (p->bits != 8 && p->bits != 16)
        return kn_fail(KN_ERR_ARG, "%s: expected 8 or 16 bits, found %d", p->folder, p->bits);
    void *memory;
    KN_TRY(kn_alloc_zero(sizeof(kn_frame_writer), &memory));
    kn_frame_writer *w = memory;
    kn_status st = KN_OK;
    w->p = *p;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->full, NULL);
    pthread_cond_init(&w->free, NULL);
    size_t bytes = 3 * (size_t)p->width_px * (size_t)p->height_px * (size_t)(p->bits / 8);
    for (int i = 0; i < p->threads; i++) {
        KN_TRY_GOTO(kn_alloc(bytes, &w->slots[i].pixels));
        /* under the lock: the new thread looks at `count` slots */
        pthread_mutex_lock(&w->lock);
        bool started = pthread_create(&w->threads[i], NULL, work, w) == 0;
        w->count += started;
        pthread_mutex_unlock(&w->lock);
        if (!started) break;
    }
    *out = w;
    w = NULL;
done:
    kn_frame_writer_close(&w);
    return st;
}

static kn_status failure(const kn_frame_writer *w)
{
    return w->st == KN_OK ? KN_OK : kn_fail(w->st, "%s", w->message);
}

kn_status kn_frame_writer_put(kn_frame_writer *w, const float *rgb)
{
    const kn_frame_writer_params *p = &w->p;
    if (w->count == 0)
        return kn_frames_write(p->folder, w->next++, rgb, p->width_px, p->height_px, p->bits, p->text);
    if (w->next == 0) KN_TRY(kn_frames_folder(p->folder));
    slot *s;
    pthread_mutex_lock(&w->lock);
    while (!(s = find(w, SLOT_FREE))) pthread_cond_wait(&w->free, &w->lock);
    kn_status st = failure(w);
    pthread_mutex_unlock(&w->lock);
    KN_TRY(st);
    /* nobody else takes a free slot */
    KN_TRY(kn_frames_pixels(p->folder, w->next, rgb, p->width_px, p->height_px, p->bits, s->pixels));
    pthread_mutex_lock(&w->lock);
    s->index = w->next++;
    s->state = SLOT_FULL;
    pthread_cond_signal(&w->full);
    pthread_mutex_unlock(&w->lock);
    return KN_OK;
}

kn_status kn_frame_writer_finish(kn_frame_writer *w)
{
    pthread_mutex_lock(&w->lock);
    while (find(w, SLOT_FULL) || find(w, SLOT_WRITING)) pthread_cond_wait(&w->free, &w->lock);
    kn_status st = failure(w);
    pthread_mutex_unlock(&w->lock);
    return st;
}

void kn_frame_writer_close(kn_frame_writer **writer)
{
    kn_frame_writer *w = *writer;
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->count; i++) /* what nobody has begun is not wanted any more */
        if (w->slots[i].state == SLOT_FULL) w->slots[i].state = SLOT_FREE;
    w->stop = true;
    pthread_cond_broadcast(&w->full);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->count; i++) pthread_join(w->threads[i], NULL);
    for (int i = 0; i < KN_FRAME_WRITER_THREADS; i++) kn_free(w->slots[i].pixels);
    pthread_cond_destroy(&w->free);
    pthread_cond_destroy(&w->full);
    pthread_mutex_destroy(&w->lock);
    kn_free(w);
    *writer = NULL;
}
