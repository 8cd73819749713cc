#include "compute/record.h"

#include <string.h>

#include "compute/backend.h"
#include "io/log.h"
#include "io/memory.h"

/* ATTEMPTS: memory that was freed in between may have been a kernel's argument, so that the work is
 * recorded again; where that happens at every turn, launching is cheaper. */
enum { RECORDS = 16, ATTEMPTS = 4 };

typedef struct record {
    unsigned char key[KN_RECORD_KEY];
    size_t size;
    void *work;     /* the backend's; NULL: none yet */
    uint64_t moves; /* kn_dev.moves when it was made */
    int attempts;
} record;

struct kn_records {
    kn_dev *dev;
    record record[RECORDS];
    int count;
};

kn_status kn_records_open(kn_dev *d, kn_records **out)
{
    *out = NULL;
    if (!d->backend->record_begin) return KN_OK;
    void *p;
    KN_TRY(kn_alloc_zero(sizeof(kn_records), &p));
    *out = p;
    (*out)->dev = d;
    return KN_OK;
}

static void drop(kn_records *r, record *e)
{
    if (e->work) r->dev->backend->record_close(r->dev, e->work);
    e->work = NULL;
}

void kn_records_close(kn_records **r)
{
    if (!*r) return;
    for (int i = 0; i < (*r)->count; i++) drop(*r, &(*r)->record[i]);
    kn_free(*r);
    *r = NULL;
}

/* Nothing runs yet. A failure is not reported: the call is made without recording then, and reports it
 * if there is more to it than that it cannot be recorded. */
static void make(kn_records *r, record *e, kn_record_fn *fn, void *user)
{
    const kn_backend *b = r->dev->backend;
    e->attempts++;
    kn_status st = b->record_begin(r->dev);
    if (st == KN_OK) {
        st = fn(user);
        kn_status ended = b->record_end(r->dev, &e->work);
        if (st == KN_OK) st = ended;
    }
    e->moves = r->dev->moves;
    if (st == KN_OK) {
        kn_log(KN_LOG_DEBUG, "device", "work is recorded, %d kinds of it seen", r->count);
        return;
    }
    char why[200];
    kn_error_copy(why, sizeof why);
    kn_error_clear();
    kn_log(KN_LOG_DEBUG, "device", "work is launched, not recorded: %s", why);
    drop(r, e);
    e->attempts = ATTEMPTS;
}

static record *find(kn_records *r, const void *key, size_t size)
{
    for (int i = 0; i < r->count; i++)
        if (r->record[i].size == size && memcmp(r->record[i].key, key, size) == 0)
            return &r->record[i];
    return NULL;
}

kn_status kn_records_run(kn_records *r, const void *key, size_t size, kn_record_fn *fn, void *user)
{
    if (!r || size > KN_RECORD_KEY) return fn(user);
    record *e = find(r, key, size);
    if (!e) { /* the first time: kernels are chosen, lists sent */
        if (r->count < RECORDS) {
            e = &r->record[r->count++];
            memcpy(e->key, key, size);
            e->size = size;
        }
        return fn(user);
    }
    if (e->work && e->moves != r->dev->moves) drop(r, e);
    if (!e->work && e->attempts < ATTEMPTS) make(r, e, fn, user);
    return e->work ? r->dev->backend->replay(r->dev, e->work) : fn(user);
}
