/* compute/cpu_dnnl.c - matrix products by oneDNN; see cpu_dnnl.h. */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include "compute/cpu_dnnl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "compute/cpu_dnnl_api.h"
#include "io/memory.h"

#define KN_DNNL(call, what) KN_TRY_GOTO(check_dnnl((call), (what)))

static kn_status check_dnnl(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success) return KN_OK;
    if (status == dnnl_out_of_memory)
        return kn_fail(KN_ERR_NOMEM, "oneDNN: %s: out of memory", what);
    return kn_fail(KN_ERR_DEVICE, "oneDNN: %s failed with status %d", what, (int)status);
}

enum { X, W, BIAS, OUT, SCRATCH, ARGS };

struct kn_dnnl_product {
    kn_dnnl *owner;
    kn_dnnl_shape shape;
    dnnl_primitive_t primitive;
    kn_md md[ARGS];
    dnnl_memory_t *memory; /* [threads][ARGS] */
};

struct kn_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t *stream; /* [threads] */
    int threads;
    size_t scratch_bytes;
    int (*get_threads)(void); /* of the OpenMP runtime that oneDNN uses; NULL: it uses none */
    void (*set_threads)(int);
    int products, oldest; /* slots in use; the next one to give up when all are */
    kn_dnnl_product product[KN_DNNL_PRODUCTS];
    char version[32];
};

/* ---- one thread ------------------------------------------------------------------------------ */

/* oneDNN decides when a primitive is made how many threads it will run in. With one in view it
 * divides no sum among threads and starts none. Its runtime is asked by name: this program does not
 * link it. */
static void find_runtime(kn_dnnl *d)
{
    void *get = dlsym(RTLD_DEFAULT, "omp_get_max_threads"),
         *set = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (get == NULL || set == NULL) return;
    memcpy(&d->get_threads, &get, sizeof get); /* C has no conversion from void * to a function */
    memcpy(&d->set_threads, &set, sizeof set);
}

static int enter_one_thread(const kn_dnnl *d)
{
    if (d->set_threads == NULL) return 1;
    int before = d->get_threads();
    d->set_threads(1);
    return before;
}

static void leave_one_thread(const kn_dnnl *d, int before)
{
    if (d->set_threads) d->set_threads(before);
}

/* ---- primitives ------------------------------------------------------------------------------ */

/* Descriptors of a product; `packed` is the weight's layout, or NULL to ask for the best. */
static kn_status describe(kn_dnnl *d, const kn_dnnl_shape *s, kn_md_ref packed, kn_md md[ARGS],
                          dnnl_primitive_desc_t *pd)
{
    kn_status st = KN_OK;
    dnnl_primitive_attr_t attr = NULL;
    *pd = NULL;
    memset(md, 0, ARGS * sizeof *md);
    KN_DNNL(dnnl_primitive_attr_create(&attr), "attributes");
    /* The library's own scratch memory belongs to the thread that made the primitive. */
    KN_DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user),
            "scratchpad mode");
    KN_DNNL(kn_md_strided(&md[X], 2, (dnnl_dims_t){s->rows, s->K}, (dnnl_dims_t){s->K, 1}), "x");
    KN_DNNL(kn_md_strided(&md[OUT], 2, (dnnl_dims_t){s->rows, s->N}, (dnnl_dims_t){s->N, 1}),
            "out");
    if (packed)
        KN_DNNL(kn_md_copy(&md[W], packed), "weight");
    else
        KN_DNNL(kn_md_any(&md[W], 2, (dnnl_dims_t){s->K, s->N}), "weight");
    if (s->bias)
        KN_DNNL(kn_md_strided(&md[BIAS], 2, (dnnl_dims_t){1, s->N}, (dnnl_dims_t){s->N, 1}),
                "bias");
    KN_DNNL(kn_matmul_desc(pd, d->engine, kn_md_of(&md[X]), kn_md_of(&md[W]),
                           s->bias ? kn_md_of(&md[BIAS]) : NULL, kn_md_of(&md[OUT]), attr),
            "matmul");
done:
    if (attr) dnnl_primitive_attr_destroy(attr);
    return st;
}

static void free_descs(kn_md md[ARGS], dnnl_primitive_desc_t pd)
{
    for (int i = 0; i < ARGS; i++) kn_md_free(&md[i]);
    if (pd) dnnl_primitive_desc_destroy(pd);
}

static bool block_product(dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name) != dnnl_success)
        return false;
    return strncmp(name, "brg", 3) == 0;
}

/* Layout of a packed weight: what a block of common size likes. (In 2.6.3 it depends on N only.) */
static kn_status packed_layout(kn_dnnl *d, int64_t K, int64_t N, kn_md *out, bool *usable)
{
    *usable = false;
    kn_md md[ARGS];
    dnnl_primitive_desc_t pd = NULL;
    kn_dnnl_shape s = {.rows = 64, .K = K, .N = N};
    kn_status st = describe(d, &s, NULL, md, &pd);
    if (st == KN_OK)
        st = check_dnnl(kn_md_copy(out, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0)),
                        "weight layout");
    if (st == KN_OK) *usable = block_product(pd);
    free_descs(md, pd);
    return st;
}

/* ---- opening --------------------------------------------------------------------------------- */

static kn_status open_streams(kn_dnnl *d)
{
    kn_status st = KN_OK;
    void *memory;
    KN_DNNL(dnnl_engine_create(&d->engine, dnnl_cpu, 0), "engine");
    KN_TRY_GOTO(kn_alloc_array((size_t)d->threads, sizeof *d->stream, &memory));
    d->stream = memory;
    for (int i = 0; i < d->threads; i++)
        KN_DNNL(dnnl_stream_create(&d->stream[i], d->engine, dnnl_stream_default_flags), "stream");
done:
    return st;
}

kn_status kn_dnnl_open(int threads, size_t scratch_bytes, kn_dnnl **out)
{
    *out = NULL;
    void *memory;
    kn_md md[ARGS];
    dnnl_primitive_desc_t pd = NULL;
    bool usable = false;
    KN_TRY(kn_alloc_zero(sizeof(kn_dnnl), &memory));
    kn_dnnl *d = memory;
    d->threads = threads;
    d->scratch_bytes = scratch_bytes;
    const dnnl_version_t *v = dnnl_version();
    snprintf(d->version, sizeof d->version, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    kn_status st = open_streams(d);
    if (st == KN_OK) {
        find_runtime(d);
        int before = enter_one_thread(d);
        kn_dnnl_shape s = {.rows = 64, .K = 256, .N = 256};
        st = describe(d, &s, NULL, md, &pd);
        usable = st == KN_OK && block_product(pd);
        free_descs(md, pd);
        leave_one_thread(d, before);
    }
    if (!usable) kn_dnnl_close(&d);
    *out = d;
    return st;
}

static void drop_product(kn_dnnl_product *p)
{
    int memories = p->memory ? p->owner->threads * ARGS : 0;
    for (int i = 0; i < memories; i++)
        if (p->memory[i]) dnnl_memory_destroy(p->memory[i]);
    kn_free(p->memory);
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    for (int i = 0; i < ARGS; i++) kn_md_free(&p->md[i]);
    memset(p, 0, sizeof *p);
}

void kn_dnnl_close(kn_dnnl **out)
{
    kn_dnnl *d = *out;
    if (d == NULL) return;
    for (int i = 0; i < d->products; i++) drop_product(&d->product[i]);
    for (int i = 0; d->stream && i < d->threads; i++)
        if (d->stream[i]) dnnl_stream_destroy(d->stream[i]);
    kn_free(d->stream);
    if (d->engine) dnnl_engine_destroy(d->engine);
    kn_free(d);
    *out = NULL;
}

const char *kn_dnnl_version(const kn_dnnl *d)
{
    return d->version;
}

/* ---- weights --------------------------------------------------------------------------------- */

kn_status kn_dnnl_weight_bytes(kn_dnnl *d, int64_t K, int64_t N, size_t *bytes)
{
    kn_md layout;
    memset(&layout, 0, sizeof layout);
    int before = enter_one_thread(d);
    bool usable;
    kn_status st = packed_layout(d, K, N, &layout, &usable);
    leave_one_thread(d, before);
    *bytes = usable ? dnnl_memory_desc_get_size(kn_md_of(&layout)) : 0;
    kn_md_free(&layout);
    return st;
}

kn_status kn_dnnl_pack(kn_dnnl *d, int64_t K, int64_t N, const float *w, void *packed)
{
    kn_status st = KN_OK;
    kn_md layout, plain;
    memset(&layout, 0, sizeof layout);
    memset(&plain, 0, sizeof plain);
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL, to = NULL;
    int before = enter_one_thread(d);
    bool usable;
    KN_TRY_GOTO(packed_layout(d, K, N, &layout, &usable));
    KN_DNNL(kn_md_strided(&plain, 2, (dnnl_dims_t){K, N}, (dnnl_dims_t){1, K}), "plain weight");
    KN_DNNL(dnnl_reorder_primitive_desc_create(&pd, kn_md_of(&plain), d->engine, kn_md_of(&layout),
                                               d->engine, NULL),
            "reorder");
    KN_DNNL(dnnl_primitive_create(&reorder, pd), "reorder");
    KN_DNNL(dnnl_memory_create(&from, kn_md_of(&plain), d->engine, (void *)(uintptr_t)w), "weight");
    KN_DNNL(dnnl_memory_create(&to, kn_md_of(&layout), d->engine, packed), "packed weight");
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    KN_DNNL(dnnl_primitive_execute(reorder, d->stream[0], 2, args), "reorder");
    KN_DNNL(dnnl_stream_wait(d->stream[0]), "reorder");
done:
    leave_one_thread(d, before);
    if (from) dnnl_memory_destroy(from);
    if (to) dnnl_memory_destroy(to);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (pd) dnnl_primitive_desc_destroy(pd);
    kn_md_free(&layout);
    kn_md_free(&plain);
    return st;
}

/* ---- products -------------------------------------------------------------------------------- */

static kn_status make_product(kn_dnnl *d, const kn_dnnl_shape *shape, kn_dnnl_product *p)
{
    kn_status st = KN_OK;
    kn_md layout;
    memset(&layout, 0, sizeof layout);
    dnnl_primitive_desc_t pd = NULL;
    void *memory;
    int before = enter_one_thread(d);
    bool usable;
    p->owner = d;
    p->shape = *shape;
    KN_TRY_GOTO(packed_layout(d, shape->K, shape->N, &layout, &usable));
    KN_TRY_GOTO(describe(d, shape, kn_md_of(&layout), p->md, &pd));
    KN_DNNL(
        kn_md_copy(&p->md[SCRATCH], dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0)),
        "scratchpad");
    size_t scratch = dnnl_memory_desc_get_size(kn_md_of(&p->md[SCRATCH]));
    if (scratch > d->scratch_bytes) {
        st = kn_fail(KN_ERR_UNSUPPORTED,
                     "oneDNN: a product of %lldx%lldx%lld needs %zu bytes of scratch",
                     (long long)shape->rows, (long long)shape->K, (long long)shape->N, scratch);
        goto done;
    }
    KN_DNNL(dnnl_primitive_create(&p->primitive, pd), "matmul");
    KN_TRY_GOTO(kn_alloc_array((size_t)d->threads * ARGS, sizeof *p->memory, &memory));
    p->memory = memory;
    for (int i = 0; i < d->threads * ARGS; i++)
        if (i % ARGS != BIAS || shape->bias)
            KN_DNNL(dnnl_memory_create(&p->memory[i], kn_md_of(&p->md[i % ARGS]), d->engine,
                                       DNNL_MEMORY_NONE),
                    "memory");
done:
    leave_one_thread(d, before);
    kn_md_free(&layout);
    if (pd) dnnl_primitive_desc_destroy(pd);
    return st;
}

kn_status kn_dnnl_get(kn_dnnl *d, const kn_dnnl_shape *shape, kn_dnnl_product **out)
{
    *out = NULL;
    for (int i = 0; i < d->products; i++)
        if (memcmp(&d->product[i].shape, shape, sizeof *shape) == 0) {
            *out = &d->product[i];
            return KN_OK;
        }
    kn_dnnl_product *p = &d->product[d->products];
    if (d->products == KN_DNNL_PRODUCTS) {
        p = &d->product[d->oldest];
        d->oldest = (d->oldest + 1) % KN_DNNL_PRODUCTS;
        drop_product(p);
    } else {
        d->products++;
    }
    kn_status st = make_product(d, shape, p);
    if (st != KN_OK) { /* an empty slot matches no shape */
        p->owner = d;
        drop_product(p);
        return st;
    }
    *out = p;
    return KN_OK;
}

kn_status kn_dnnl_run(kn_dnnl_product *p, int thread, const float *x, const void *w,
                      const float *bias, float *out, void *scratch)
{
    static const int ids[ARGS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST,
                                  DNNL_ARG_SCRATCHPAD};
    kn_status st = KN_OK;
    const void *data[ARGS] = {x, w, bias, out, scratch};
    dnnl_memory_t *memory = p->memory + (size_t)thread * ARGS;
    dnnl_exec_arg_t args[ARGS];
    int n = 0;
    for (int i = 0; i < ARGS; i++) {
        if (memory[i] == NULL) continue;
        KN_DNNL(dnnl_memory_set_data_handle(memory[i], (void *)(uintptr_t)data[i]), "memory");
        args[n++] = (dnnl_exec_arg_t){ids[i], memory[i]};
    }
    KN_DNNL(dnnl_primitive_execute(p->primitive, p->owner->stream[thread], n, args), "matmul");
done:
    return st;
}
