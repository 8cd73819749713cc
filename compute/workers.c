#include "compute/workers.h"

#include <pthread.h>
#include <stdatomic.h>

#include "io/memory.h"

/* Turns of the waiting loop before a thread goes to sleep: some 20 to 50 microseconds. */
enum { SPIN_TURNS = 2000 };

typedef struct worker {
    kn_workers *team;
    pthread_t thread;
    int index;
} worker;

/* One loop at a time. Its fields are written only while no worker is `inside`, and a worker reads
 * them only after it has gone inside and found the loop still open; both sides use sequentially
 * consistent atomics, so that at least one of them sees the other. */
struct kn_workers {
    worker *workers;
    int count; /* threads that could be started, without the caller */
    kn_range_fn *fn;
    void *user;
    int64_t total, grain, pieces;
    _Atomic int64_t next;  /* first piece that nobody has taken */
    _Atomic uint64_t open; /* number of the open loop; 0 = none */
    _Atomic int inside;    /* workers that may be reading the loop */
    _Atomic int asleep;    /* workers that wait for `wake` */
    _Atomic bool stop;
    uint64_t last; /* number of the last loop */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
};

static _Thread_local int thread_index;
static _Thread_local bool in_piece;

int kn_workers_index(void)
{
    return thread_index;
}

static inline void pause_turn(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void run_pieces(kn_workers *p)
{
    in_piece = true;
    for (int64_t i; (i = atomic_fetch_add(&p->next, 1)) < p->pieces;) {
        int64_t begin = i * p->grain, end = begin + p->grain;
        p->fn(p->user, begin, end < p->total ? end : p->total);
    }
    in_piece = false;
}

/* The number of a loop that this worker has not seen; 0 when the team ends. */
static uint64_t wait_for_loop(kn_workers *p, uint64_t seen)
{
    uint64_t open;
    for (int i = 0; i < SPIN_TURNS; i++) {
        if (atomic_load(&p->stop)) return 0;
        if ((open = atomic_load(&p->open)) && open != seen) return open;
        pause_turn();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->asleep, 1);
    while (((open = atomic_load(&p->open)) == 0 || open == seen) && !atomic_load(&p->stop))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->asleep, 1);
    pthread_mutex_unlock(&p->lock);
    return atomic_load(&p->stop) ? 0 : open;
}

static void *work(void *user)
{
    worker *w = user;
    kn_workers *p = w->team;
    thread_index = w->index;
    for (uint64_t seen = 0; (seen = wait_for_loop(p, seen)) != 0;) {
        atomic_fetch_add(&p->inside, 1);
        if (atomic_load(&p->open) == seen) run_pieces(p);
        if (atomic_fetch_sub(&p->inside, 1) == 1 && atomic_load(&p->open) == 0) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
    return NULL;
}

kn_status kn_workers_open(int threads, kn_workers **out)
{
    void *memory;
    *out = NULL;
    KN_TRY(kn_alloc_zero(sizeof(kn_workers), &memory));
    kn_workers *p = memory;
    kn_status st = kn_alloc_array((size_t)threads, sizeof(worker), &memory);
    if (st != KN_OK) {
        kn_free(p);
        return st;
    }
    p->workers = memory;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    for (int i = 1; i < threads; i++) {
        worker *w = &p->workers[p->count];
        *w = (worker){.team = p, .index = i};
        if (pthread_create(&w->thread, NULL, work, w) != 0) break;
        p->count++;
    }
    *out = p;
    return KN_OK;
}

void kn_workers_close(kn_workers **team)
{
    kn_workers *p = *team;
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->count; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    kn_free(p->workers);
    kn_free(p);
    *team = NULL;
}

/* Close the loop to newcomers and wait for the workers that are inside it. */
static void finish_loop(kn_workers *p)
{
    atomic_store(&p->open, 0);
    for (int i = 0; i < SPIN_TURNS && atomic_load(&p->inside); i++) pause_turn();
    if (!atomic_load(&p->inside)) return;
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->inside)) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

void kn_workers_run(kn_workers *p, int64_t count, int64_t grain, kn_range_fn *fn, void *user)
{
    int64_t pieces = (count + grain - 1) / grain;
    if (in_piece || p->count == 0 || pieces < 2) { /* a loop inside a piece runs in its thread */
        for (int64_t begin = 0; begin < count; begin += grain)
            fn(user, begin, begin + grain < count ? begin + grain : count);
        return;
    }
    p->fn = fn;
    p->user = user;
    p->total = count;
    p->grain = grain;
    p->pieces = pieces;
    atomic_store(&p->next, 0);
    atomic_store(&p->open, ++p->last);
    if (atomic_load(&p->asleep)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    run_pieces(p);
    finish_loop(p);
}
