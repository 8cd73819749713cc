#define _GNU_SOURCE /* execinfo.h, mremap's friends */
#include "tests/fault/inject.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attention/attention.h"
#include "compute/backend.h"
#include "io/status.h"

inject_state *inject;
inject_call *inject_calls;

const char *inject_kind_name(int kind)
{
    static const char *const names[] = {"alloc", "read", "write", "full", "thread", "device", "dry", "cuda", "lost"};
    return names[kind];
}

/* ---- which call fails ------------------------------------------------------------------------ */

extern char __executable_start, etext; /* ends of the program's text (ld) */

static int is_own(const void *caller)
{
    return (const char *)caller >= &__executable_start && (const char *)caller < &etext;
}

static _Thread_local int inside; /* backtrace() may allocate */

static void note_hit(const char *what)
{
    if (__atomic_fetch_add(&inject->hits, 1, __ATOMIC_SEQ_CST)) return;
    snprintf(inject->what, sizeof inject->what, "%s", what);
    inside++;
    inject->frames = backtrace(inject->frame, INJECT_FRAMES);
    inside--;
}

static unsigned long hash(void *const *p, int count)
{
    unsigned long h = 0xcbf29ce484222325;
    for (int i = 0; i < count; i++) h = (h ^ (unsigned long)p[i]) * 0x100000001b3;
    return h;
}

static void note_call(long n, const char *what, const void *caller)
{
    void *frame[INJECT_FRAMES];
    if (n > INJECT_STACKS) return;
    inside++;
    int count = backtrace(frame, INJECT_FRAMES), at = 0;
    inside--;
    inject_call *c = &inject_calls[n - 1];
    while (at < count && frame[at] != caller) at++;
    int own = strstr(what, "Launch") ? 2 : 1, near = own + INJECT_NEAR;
    c->stack = hash(frame, count);
    c->site = at + own <= count ? hash(frame + at, own) : c->stack;
    c->near = at + near <= count ? hash(frame + at, near) : c->stack;
    c->caller = at < count ? frame[at + own <= count ? at + own - 1 : at] : NULL;
    snprintf(c->what, sizeof c->what, "%s", what);
}

static int due(int kind, const char *what, const void *caller, int persists)
{
    if (!inject || !inject->active || inside) return 0;
    int theirs = !is_own(caller);
    long n = __atomic_add_fetch(&inject->seen[kind][theirs], 1, __ATOMIC_SEQ_CST);
    if (inject->note_stacks && inject->kind == kind && inject->theirs == theirs) note_call(n, what, caller);
    if (!inject->at || inject->kind != kind || inject->theirs != theirs) return 0;
    if (persists ? n < inject->at : n != inject->at) return 0;
    note_hit(what);
    return 1;
}

int inject_due_from(int kind, const char *what, const void *caller)
{
    return due(kind, what, caller, kind == INJECT_LOST);
}

int inject_due(int kind, const char *what)
{
    return inject_due_from(kind, what, &__executable_start);
}

/* A call of two kinds: once alone and once with all that follow. */
static int alloc_due(const char *what, const void *caller)
{
    return due(INJECT_ALLOC, what, caller, 0) | due(INJECT_DRY, what, caller, 1);
}

static int write_due(const char *what, const void *caller)
{
    if (due(INJECT_WRITE, what, caller, 0)) {
        errno = EIO;
        return 1;
    }
    if (due(INJECT_FULL, what, caller, 1)) {
        errno = ENOSPC;
        return 1;
    }
    return 0;
}

static int read_due(const char *what, const void *caller)
{
    if (!due(INJECT_READ, what, caller, 0)) return 0;
    errno = EIO;
    return 1;
}

#define CALLER __builtin_return_address(0)
#define NEXT(name)                                                                                 \
    static __typeof__(&name) next_##name;                                                                     \
    if (!next_##name) *(void **)&next_##name = dlsym(RTLD_NEXT, #name)

/* ---- own blocks ------------------------------------------------------------------------------ */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);
#define real_malloc __libc_malloc
#define real_calloc __libc_calloc
#define real_realloc __libc_realloc
#define real_aligned_alloc __libc_memalign

/* Open addressing with linear probing; a slot whose block was given back keeps a mark. */
enum { TABLE = 1 << 18 };
static struct {
    void *block;
    const void *caller;
} table[TABLE];
static atomic_flag busy = ATOMIC_FLAG_INIT;

static size_t slot_of(const void *p)
{
    return (size_t)(((uintptr_t)p >> 4) * 0x9E3779B97F4A7C15u >> 46);
}

static void took(void *p, const void *caller)
{
    if (!p || !inject || !inject->active || inside || !is_own(caller)) return;
    while (atomic_flag_test_and_set(&busy)) continue;
    size_t i = slot_of(p);
    while (table[i].block && table[i].block != (void *)1) i = (i + 1) % TABLE;
    table[i].block = p;
    table[i].caller = caller;
    inject->blocks++;
    atomic_flag_clear(&busy);
}

static void gave(void *p)
{
    if (!p || !inject || !inject->active) return;
    while (atomic_flag_test_and_set(&busy)) continue;
    for (size_t i = slot_of(p); table[i].block; i = (i + 1) % TABLE) {
        if (table[i].block != p) continue;
        table[i].block = (void *)1;
        inject->blocks--;
        break;
    }
    atomic_flag_clear(&busy);
}

void inject_find_leaks(void)
{
    int n = 0;
    for (size_t i = 0; i < TABLE && n < 4; i++)
        if (table[i].block && table[i].block != (void *)1) inject->leaked[n++] = (void *)table[i].caller;
}

void free(void *p)
{
    gave(p);
    __libc_free(p);
}

/* ---- allocation ------------------------------------------------------------------------------ */

void *malloc(size_t bytes)
{
    if (alloc_due("malloc", CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    void *p = real_malloc(bytes);
    took(p, CALLER);
    return p;
}

void *calloc(size_t count, size_t bytes)
{
    if (alloc_due("calloc", CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    void *p = real_calloc(count, bytes);
    took(p, CALLER);
    return p;
}

void *realloc(void *old, size_t bytes)
{
    if (alloc_due("realloc", CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    gave(old);
    void *p = real_realloc(old, bytes);
    took(p ? p : old, CALLER);
    return p;
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    if (alloc_due("aligned_alloc", CALLER)) {
        errno = ENOMEM;
        return NULL;
    }
    void *p = real_aligned_alloc(alignment, bytes);
    took(p, CALLER);
    return p;
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (alloc_due("posix_memalign", CALLER)) return ENOMEM;
    void *p = real_aligned_alloc(alignment, bytes);
    if (!p) return ENOMEM;
    *out = p;
    took(p, CALLER);
    return 0;
}

/* ---- files ----------------------------------------------------------------------------------- */

int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    NEXT(open);
    if (flags & O_CREAT ? write_due("open", CALLER) : read_due("open", CALLER)) return -1;
    return next_open(path, flags, mode);
}

FILE *fopen(const char *path, const char *mode)
{
    NEXT(fopen);
    if (*mode == 'r' ? read_due("fopen", CALLER) : write_due("fopen", CALLER)) return NULL;
    return next_fopen(path, mode);
}

ssize_t read(int fd, void *to, size_t bytes)
{
    NEXT(read);
    if (read_due("read", CALLER)) return -1;
    return next_read(fd, to, bytes);
}

ssize_t pread(int fd, void *to, size_t bytes, off_t offset)
{
    NEXT(pread);
    if (read_due("pread", CALLER)) return -1;
    return next_pread(fd, to, bytes, offset);
}

static FILE *broken; /* of the fread that failed: its error indicator cannot be set from outside */

size_t fread(void *to, size_t size, size_t count, FILE *f)
{
    NEXT(fread);
    if (read_due("fread", CALLER)) {
        broken = f;
        return 0;
    }
    return next_fread(to, size, count, f);
}

int(ferror)(FILE *f)
{
    NEXT(ferror);
    return f == broken ? 1 : next_ferror(f);
}

int stat(const char *restrict path, struct stat *restrict s)
{
    NEXT(stat);
    return read_due("stat", CALLER) ? -1 : next_stat(path, s);
}

int lstat(const char *restrict path, struct stat *restrict s)
{
    NEXT(lstat);
    return read_due("lstat", CALLER) ? -1 : next_lstat(path, s);
}

int fstat(int fd, struct stat *s)
{
    NEXT(fstat);
    return read_due("fstat", CALLER) ? -1 : next_fstat(fd, s);
}

int access(const char *path, int mode)
{
    NEXT(access);
    return read_due("access", CALLER) ? -1 : next_access(path, mode);
}

off_t lseek(int fd, off_t offset, int whence)
{
    NEXT(lseek);
    return read_due("lseek", CALLER) ? -1 : next_lseek(fd, offset, whence);
}

char *realpath(const char *restrict path, char *restrict resolved)
{
    NEXT(realpath);
    return read_due("realpath", CALLER) ? NULL : next_realpath(path, resolved);
}

DIR *opendir(const char *path)
{
    NEXT(opendir);
    return read_due("opendir", CALLER) ? NULL : next_opendir(path);
}

struct dirent *readdir(DIR *d)
{
    NEXT(readdir);
    return read_due("readdir", CALLER) ? NULL : next_readdir(d);
}

int flock(int fd, int what)
{
    NEXT(flock);
    return read_due("flock", CALLER) ? -1 : next_flock(fd, what);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    NEXT(mmap);
    if (fd >= 0 && read_due("mmap", CALLER)) return MAP_FAILED;
    if (fd < 0 && alloc_due("mmap", CALLER)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return next_mmap(at, bytes, protection, flags, fd, offset);
}

ssize_t write(int fd, const void *from, size_t bytes)
{
    NEXT(write);
    long before = inject ? inject->hits : 0;
    if (fd > 2 && write_due("write", CALLER)) {
        if (inject->kind == INJECT_FULL && before == 0 && bytes > 1) return next_write(fd, from, bytes / 2);
        return -1;
    }
    return next_write(fd, from, bytes);
}

ssize_t pwrite(int fd, const void *from, size_t bytes, off_t offset)
{
    NEXT(pwrite);
    return write_due("pwrite", CALLER) ? -1 : next_pwrite(fd, from, bytes, offset);
}

int ftruncate(int fd, off_t bytes)
{
    NEXT(ftruncate);
    return write_due("ftruncate", CALLER) ? -1 : next_ftruncate(fd, bytes);
}

/* Nothing here ends by losing power: no need to wait for the disk. */
int fsync(int fd)
{
    NEXT(fsync);
    if (inject) return write_due("fsync", CALLER) ? -1 : 0;
    return next_fsync(fd);
}

int mkdir(const char *path, mode_t mode)
{
    NEXT(mkdir);
    return write_due("mkdir", CALLER) ? -1 : next_mkdir(path, mode);
}

/* A full disk can still rename, remove and close. */
int rename(const char *from, const char *to)
{
    NEXT(rename);
    if (due(INJECT_WRITE, "rename", CALLER, 0)) {
        errno = EIO;
        return -1;
    }
    return next_rename(from, to);
}

int unlink(const char *path)
{
    NEXT(unlink);
    if (due(INJECT_WRITE, "unlink", CALLER, 0)) {
        errno = EIO;
        return -1;
    }
    return next_unlink(path);
}

int close(int fd)
{
    NEXT(close);
    int failed = due(INJECT_WRITE, "close", CALLER, 0);
    int got = next_close(fd); /* Linux gives the descriptor back even when close reports EIO */
    if (!failed) return got;
    errno = EIO;
    return -1;
}

/* ---- threads --------------------------------------------------------------------------------- */

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *user)
{
    NEXT(pthread_create);
    if (due(INJECT_THREAD, "pthread_create", CALLER, 0)) return EAGAIN;
    return next_pthread_create(thread, attributes, run, user);
}

/* ---- device ----------------------------------------------------------------------------------
 * Every operation, transfer, allocation and weight of the device passes through here.
 */
static kn_status device_due(const char *what)
{
    if (!due(INJECT_DEVICE, what, &__executable_start, 0)) return KN_OK;
    return kn_fail(KN_ERR_DEVICE, "%s: injected failure of the device", what);
}

static kn_ops real_ops;
static const kn_backend *real_backend;

#define OP(op, parameters, arguments)                                                              \
    static kn_status try_##op parameters                                                           \
    {                                                                                              \
        KN_TRY(device_due(#op));                                                                   \
        return real_ops.op arguments;                                                              \
    }
#define T const kn_tensor *
OP(linear, (kn_dev * d, T x, const kn_weight *w, T bias, kn_activation act, T out), (d, x, w, bias, act, out))
OP(conv, (kn_dev * d, T x, const kn_weight *w, T bias, T residual, const kn_conv_params *p, T out),
   (d, x, w, bias, residual, p, out))
OP(embed, (kn_dev * d, const kn_weight *table_, const int32_t *ids, int64_t count, T out),
   (d, table_, ids, count, out))
OP(rmsnorm, (kn_dev * d, T x, T weight, const kn_rmsnorm_params *p, T out), (d, x, weight, p, out))
OP(layernorm, (kn_dev * d, T x, T weight, T bias, T scale, T shift, float eps, T out),
   (d, x, weight, bias, scale, shift, eps, out))
OP(gate_add, (kn_dev * d, T x, T y, T gate, T out), (d, x, y, gate, out))
OP(rope, (kn_dev * d, T x, T cos, T sin, T out), (d, x, cos, sin, out))
OP(norm_rope, (kn_dev * d, T x, T weight, float eps, T cos, T sin, T out), (d, x, weight, eps, cos, sin, out))
OP(gate_norm, (kn_dev * d, T x, T y, T gate, const kn_layernorm_params *p, T sum, T out),
   (d, x, y, gate, p, sum, out))
OP(act, (kn_dev * d, T x, kn_activation act, T out), (d, x, act, out))
OP(mul, (kn_dev * d, T x, kn_activation act, T y, T out), (d, x, act, y, out))
OP(axpby, (kn_dev * d, float a, T x, float b, T y, T out), (d, a, x, b, y, out))
OP(copy, (kn_dev * d, T x, T out), (d, x, out))
OP(upsample2, (kn_dev * d, T x, T out), (d, x, out))
OP(patchify, (kn_dev * d, T x, const int patch[3], const int32_t *order, T out), (d, x, patch, order, out))
OP(unpatchify, (kn_dev * d, T x, const int patch[3], const int32_t *order, T out), (d, x, patch, order, out))
OP(gather, (kn_dev * d, T x, const int32_t *index, T out), (d, x, index, out))
OP(quantize, (kn_dev * d, T x, T codes, T scale), (d, x, codes, scale))
OP(dequantize, (kn_dev * d, T codes, T scale, T out), (d, codes, scale, out))
OP(linear_f8,
   (kn_dev * d, const kn_eight_bits *x, const kn_weight *w, const kn_eight_bits *room, T bias, kn_activation act, T out),
   (d, x, w, room, bias, act, out))
OP(stats, (kn_dev * d, T x, kn_tensor_stats *out), (d, x, out))

static kn_status try_alloc(kn_dev *d, size_t bytes, void **out)
{
    *out = NULL;
    KN_TRY(device_due("device memory"));
    return real_backend->alloc(d, bytes, out);
}
static kn_status try_upload(kn_dev *d, const void *host, void *dst, size_t bytes)
{
    KN_TRY(device_due("upload"));
    return real_backend->upload(d, host, dst, bytes);
}
static kn_status try_download(kn_dev *d, const void *src, void *host, size_t bytes)
{
    KN_TRY(device_due("download"));
    return real_backend->download(d, src, host, bytes);
}
static kn_status try_sync(kn_dev *d)
{
    KN_TRY(device_due("sync"));
    return real_backend->sync(d);
}
static kn_status try_weight(kn_dev *d, const kn_tensor *host, kn_weight *w)
{
    KN_TRY(device_due("weight"));
    return real_backend->weight_open(d, host, w);
}

kn_status __real_kn_dev_open(const kn_dev_params *params, kn_dev **out);
kn_status __wrap_kn_dev_open(const kn_dev_params *params, kn_dev **out);
kn_status __wrap_kn_dev_open(const kn_dev_params *params, kn_dev **out)
{
    bool computes = params->kind != KN_DEV_MEASURE;
    *out = NULL;
    if (computes) KN_TRY(device_due("opening the device"));
    KN_TRY(__real_kn_dev_open(params, out));
    if (!computes) return KN_OK;
    static kn_backend wrapped;
    real_ops = (*out)->ops;
    real_backend = (*out)->backend;
    wrapped = *real_backend;
    wrapped.alloc = try_alloc;
    wrapped.upload = try_upload;
    wrapped.download = try_download;
    wrapped.sync = try_sync;
    wrapped.weight_open = try_weight;
    (*out)->backend = &wrapped;
#define X(op) (*out)->ops.op = real_ops.op ? try_##op : NULL; /* absent ones stay so */
    KN_OPS(X)
#undef X
    return KN_OK;
}

kn_status __real_kn_attn_dense(kn_dev *d, const kn_attn_args *args, kn_arena *scratch);
kn_status __wrap_kn_attn_dense(kn_dev *d, const kn_attn_args *args, kn_arena *scratch);
kn_status __wrap_kn_attn_dense(kn_dev *d, const kn_attn_args *args, kn_arena *scratch)
{
    if (kn_dev_get_kind(d) != KN_DEV_MEASURE) KN_TRY(device_due("dense attention"));
    return __real_kn_attn_dense(d, args, scratch);
}

kn_status __real_kn_attn_sparse(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan, kn_arena *scratch);
kn_status __wrap_kn_attn_sparse(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan, kn_arena *scratch);
kn_status __wrap_kn_attn_sparse(kn_dev *d, const kn_attn_args *args, const kn_attn_plan *plan, kn_arena *scratch)
{
    if (kn_dev_get_kind(d) != KN_DEV_MEASURE) KN_TRY(device_due("sparse attention"));
    return __real_kn_attn_sparse(d, args, plan, scratch);
}
