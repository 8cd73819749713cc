/* compute/offload.c - ferries between host and device memory; see offload.h. */
#include "compute/offload.h"

#include <string.h>

#include "compute/backend.h"
#include "io/memory.h"

/* ---- ferry ------------------------------------------------------------------------------------*/
struct kn_ferry {
    kn_dev *dev;
    size_t slot_bytes;
    void *slot[2];
    int ticket; /* of slot 0; slot 1 has the next */
    bool has_tickets;
};

static kn_status take_tickets(kn_ferry *f)
{
    for (int i = 0; i < KN_TICKETS; i += 2) {
        if (f->dev->tickets & 1u << i) continue;
        f->dev->tickets |= 1u << i;
        f->ticket = i;
        f->has_tickets = true;
        return KN_OK;
    }
    return kn_fail(KN_ERR_INTERNAL, "more than %d ferries on one device", KN_TICKETS / 2);
}

kn_status kn_ferry_open(kn_dev *d, size_t slot_bytes, kn_ferry **out)
{
    *out = NULL;
    void *p;
    KN_TRY(kn_alloc_zero(sizeof(kn_ferry), &p));
    kn_ferry *f = p;
    *f = (kn_ferry){.dev = d, .slot_bytes = slot_bytes};
    kn_status st = take_tickets(f);
    for (int i = 0; st == KN_OK && i < 2; i++) st = kn_dev_alloc(d, slot_bytes, &f->slot[i]);
    if (st != KN_OK) kn_ferry_close(&f);
    *out = f;
    return st;
}

void kn_ferry_close(kn_ferry **f)
{
    kn_ferry *x = *f;
    if (!x) return;
    void *place;
    for (int i = 0; x->slot[1] && i < 2; i++) /* releasing device memory waits for its stream */
        if (kn_ferry_arrive(x, i, &place) != KN_OK) kn_error_clear();
    for (int i = 0; i < 2; i++) kn_dev_free(x->dev, x->slot[i], x->slot_bytes);
    if (x->has_tickets) x->dev->tickets &= ~(1u << x->ticket);
    kn_free(x);
    *f = NULL;
}

kn_status kn_ferry_host_open(kn_dev *d, size_t bytes, void **out)
{
    *out = NULL;
    if (d->kind != KN_DEV_MEASURE) KN_TRY(kn_dev_host_alloc(d, bytes, out));
    kn_dev_count_host(d, bytes);
    return KN_OK;
}

void kn_ferry_host_close(kn_dev *d, void *p, size_t bytes)
{
    kn_dev_host_free(d, p);
    kn_dev_uncount_host(d, bytes);
}

static kn_status copy(kn_ferry *f, int turn, void *dst, const void *src, size_t bytes, bool to_host)
{
    if (bytes > f->slot_bytes)
        return kn_fail(KN_ERR_INTERNAL, "a ferry of %zu bytes was given %zu", f->slot_bytes, bytes);
    if (f->dev->kind == KN_DEV_MEASURE) return KN_OK;
    if (f->dev->backend->copy_begin)
        return f->dev->backend->copy_begin(f->dev, dst, src, bytes, to_host, f->ticket + turn % 2);
    memcpy(dst, src, bytes);
    return KN_OK;
}

kn_status kn_ferry_fetch(kn_ferry *f, int turn, const void *host, size_t bytes)
{
    return copy(f, turn, f->slot[turn % 2], host, bytes, false);
}

kn_status kn_ferry_send(kn_ferry *f, int turn, void *host, size_t bytes)
{
    return copy(f, turn, host, f->slot[turn % 2], bytes, true);
}

kn_status kn_ferry_arrive(kn_ferry *f, int turn, void **place)
{
    *place = f->slot[turn % 2];
    const kn_backend *b = f->dev->backend;
    return b->copy_wait ? b->copy_wait(f->dev, f->ticket + turn % 2) : KN_OK;
}

/* ---- weights ----------------------------------------------------------------------------------*/
enum { ALIGN = 256 };

typedef struct group {
    kn_weight **weights;
    int count;
    void *host;
    size_t bytes;
} group;

struct kn_offload {
    kn_dev *dev;
    kn_ferry *ferry;
    int groups, added, under_way; /* under_way: the group fetched last, -1 for none */
    group group[];
};

kn_status kn_offload_open(kn_dev *d, int groups, kn_offload **out)
{
    *out = NULL;
    void *p;
    KN_TRY(kn_alloc_zero(sizeof(kn_offload) + (size_t)groups * sizeof(group), &p));
    *out = p;
    (*out)->dev = d;
    (*out)->groups = groups;
    (*out)->under_way = -1;
    return KN_OK;
}

void kn_offload_close(kn_offload **o)
{
    kn_offload *x = *o;
    if (!x) return;
    kn_ferry_close(&x->ferry);
    for (int g = 0; g < x->added; g++) {
        kn_ferry_host_close(x->dev, x->group[g].host, x->group[g].bytes);
        kn_free(x->group[g].weights);
    }
    kn_free(x);
    *o = NULL;
}

static size_t place_of(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* Device memory of a weight to host memory. Its address becomes its distance from the group's. */
static kn_status send_away(kn_offload *o, group *g, size_t at, kn_weight *w)
{
    kn_tensor bytes = kn_tensor_of(w->t.data, KN_U8, (int64_t)w->bytes);
    if (o->dev->kind != KN_DEV_MEASURE)
        KN_TRY(kn_dev_download(o->dev, &bytes, (char *)g->host + at));
    o->dev->backend->weight_close(o->dev, w);
    kn_dev_uncount(o->dev, w->bytes);
    w->t.data = (void *)(uintptr_t)at;
    w->away = true;
    return KN_OK;
}

kn_status kn_offload_add(kn_offload *o, kn_weight *const *weights, int count)
{
    void *p;
    group *g = &o->group[o->added];
    *g = (group){.count = count};
    for (int i = 0; i < count; i++) {
        if (weights[i]->impl)
            return kn_fail(KN_ERR_UNSUPPORTED, "%s keeps weights in host memory in a form of its own:"
                           " they cannot be offloaded", kn_dev_kind_name(o->dev->kind));
        g->bytes += place_of(weights[i]->bytes);
    }
    KN_TRY(kn_alloc_array((size_t)count, sizeof *g->weights, &p));
    g->weights = p;
    memcpy(g->weights, weights, (size_t)count * sizeof *g->weights);
    kn_status st = kn_ferry_host_open(o->dev, g->bytes, &g->host);
    if (st != KN_OK) {
        kn_free(g->weights);
        return st;
    }
    o->added++;
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        KN_TRY(send_away(o, g, at, weights[i]));
        at += place_of(weights[i]->bytes);
    }
    return KN_OK;
}

kn_status kn_offload_seal(kn_offload *o)
{
    size_t most = 0;
    for (int g = 0; g < o->added; g++)
        if (o->group[g].bytes > most) most = o->group[g].bytes;
    KN_TRY(kn_ferry_open(o->dev, most, &o->ferry));
    for (int g = 0; g < o->added; g++) {
        void *place;
        KN_TRY(kn_ferry_arrive(o->ferry, g, &place));
        for (int i = 0; i < o->group[g].count; i++) {
            kn_tensor *t = &o->group[g].weights[i]->t;
            t->data = (char *)place + (uintptr_t)t->data;
        }
    }
    return KN_OK;
}

static kn_status set_off(kn_offload *o, int g)
{
    KN_TRY(kn_ferry_fetch(o->ferry, g, o->group[g].host, o->group[g].bytes));
    o->under_way = g;
    return KN_OK;
}

kn_status kn_offload_use(kn_offload *o, int g)
{
    void *place;
    if (o->under_way != g) KN_TRY(set_off(o, g));
    /* After the last one the first, for the next forward, if that has the other place. */
    int next = g + 1 < o->groups ? g + 1 : o->groups % 2 == 0 ? 0 : g;
    if (next != g) KN_TRY(set_off(o, next));
    return kn_ferry_arrive(o->ferry, g, &place);
}
