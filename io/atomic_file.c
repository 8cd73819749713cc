#include "io/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/memory.h"

struct kn_atomic_file {
    char *target;   /* where the rename goes: symbolic links resolved */
    char *temp;     /* the private name beside it */
    size_t written; /* bytes accepted by write(2) so far, for messages */
    int fd;
    int slot; /* place in open_temp, or -1 */
};

/* Names that kn_atomic_unlink_all removes. Whoever takes a name out of its slot (by exchange) owns
 * the string: an owner that finds its slot empty leaves the string to the signal handler. */
enum { SLOTS = 32, TRIES = 1000 };
static _Atomic(char *) open_temp[SLOTS];
static _Atomic unsigned temp_number;

static int slot_take(char *temp)
{
    for (int i = 0; i < SLOTS; i++) {
        char *empty = NULL;
        if (atomic_compare_exchange_strong(&open_temp[i], &empty, temp)) return i;
    }
    return -1;
}

/* True when the string is the caller's to free. */
static int slot_release(int slot)
{
    return slot < 0 || atomic_exchange(&open_temp[slot], NULL) != NULL;
}

void kn_atomic_unlink_all(void)
{
    for (int i = 0; i < SLOTS; i++) {
        char *temp = atomic_exchange(&open_temp[i], NULL);
        if (temp) (void)unlink(temp);
    }
}

/* The file that the rename replaces: `path`, or what the symbolic link `path` points to. */
static kn_status resolve_target(const char *path, char **target)
{
    *target = NULL;
    if (!*path) return kn_fail(KN_ERR_ARG, "the name of the file to write is empty");
    struct stat info;
    if (stat(path, &info) == 0) {
        if (S_ISDIR(info.st_mode))
            return kn_fail(KN_ERR_IO, "cannot write %s: it is a folder, expected a file name",
                           path);
        if (!S_ISREG(info.st_mode))
            return kn_fail(KN_ERR_IO, "cannot write %s: it exists and is not a regular file", path);
        char *real = realpath(path, NULL);
        if (!real) return kn_fail(KN_ERR_IO, "cannot write %s: %s", path, strerror(errno));
        kn_status st = kn_strdup(real, target);
        free(real); /* realpath's own memory, hence not kn_free */
        return st;
    }
    if (errno == ENOENT && lstat(path, &info) == 0)
        return kn_fail(KN_ERR_IO, "cannot write %s: it is a symbolic link to nothing", path);
    return kn_strdup(path, target);
}

static kn_status fail_create(const char *path, const char *target, int folder_bytes, int error)
{
    if (!folder_bytes) {
        target = ".";
        folder_bytes = 1;
    }
    if (error == ENOENT)
        return kn_fail(KN_ERR_IO, "cannot write %s: the folder %.*s does not exist", path,
                       folder_bytes, target);
    if (error == EACCES || error == EPERM || error == EROFS)
        return kn_fail(KN_ERR_IO, "cannot write %s: the folder %.*s is not writable: %s", path,
                       folder_bytes, target, strerror(error));
    return kn_fail(KN_ERR_IO, "cannot write %s: creating a file in %.*s failed: %s", path,
                   folder_bytes, target, strerror(error));
}

static kn_status create_temp(const char *path, kn_atomic_file *f)
{
    const char *slash = strrchr(f->target, '/');
    const char *name = slash ? slash + 1 : f->target;
    int folder_bytes = (int)(name - f->target);
    if (!*name) return kn_fail(KN_ERR_IO, "cannot write %s: expected a file name at its end", path);
    /* NAME is cut so that the longest name a file system allows (255 bytes) still has room. */
    for (int i = 0; i < TRIES; i++) {
        KN_TRY(kn_asprintf(&f->temp, "%.*s.%.200s.tmp-%ld-%u", folder_bytes, f->target, name,
                           (long)getpid(), atomic_fetch_add(&temp_number, 1)));
        /* Nobody else's until it is whole; O_EXCL follows no link that was laid in the way. */
        f->fd = open(f->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (f->fd >= 0) {
            f->slot = slot_take(f->temp);
            return KN_OK;
        }
        int error = errno;
        kn_free(f->temp);
        f->temp = NULL;
        /* EEXIST: a file left by a killed process that had the same number. */
        if (error != EEXIST && error != EINTR)
            return fail_create(path, f->target, folder_bytes, error);
    }
    return kn_fail(KN_ERR_IO, "cannot write %s: %d temporary names beside it are all taken", path,
                   TRIES);
}

/* What open(2) would have given a new file. umask(2) can only be read by setting it, which other threads
 * would see; Linux (4.7) tells it in proc(5). Where it does not, the file stays the owner's. */
static mode_t usual_mode(void)
{
    char text[1024];
    unsigned mask = 077;
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *line = strstr(text, "\nUmask:");
    if (line) mask = (unsigned)strtoul(line + 7, NULL, 8);
    return 0666 & ~(mode_t)mask;
}

kn_status kn_atomic_open(const char *path, kn_atomic_file **out)
{
    kn_status st;
    void *p = NULL;
    *out = NULL;
    KN_TRY(kn_alloc_zero(sizeof(kn_atomic_file), &p));
    kn_atomic_file *f = p;
    f->fd = f->slot = -1;
    KN_TRY_GOTO(resolve_target(path, &f->target));
    KN_TRY_GOTO(create_temp(path, f));
    *out = f;
    f = NULL;
done:
    kn_atomic_discard(&f);
    return st;
}

kn_status kn_atomic_write(kn_atomic_file *f, const void *data, size_t bytes)
{
    const char *at = data;
    size_t left = bytes;
    while (left) {
        /* One call moves at most 2^31 - 4096 bytes on Linux (write(2)); ask for less. */
        ssize_t n = write(f->fd, at, left < (1u << 30) ? left : (1u << 30));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return kn_fail(KN_ERR_IO,
                           "cannot write %s: stopped after %zu bytes, %zu more to write: %s",
                           f->target, f->written, left, strerror(errno));
        at += n;
        left -= (size_t)n;
        f->written += (size_t)n;
    }
    return KN_OK;
}

int kn_atomic_fd(const kn_atomic_file *f)
{
    return f->fd;
}

const char *kn_atomic_temp_path(const kn_atomic_file *f)
{
    return f->temp;
}

/* After a rename the folder itself must reach the disk. Some file systems cannot do this; the file
 * is whole in any case, so a failure here is not an error. */
static void sync_folder(const char *target)
{
    const char *slash = strrchr(target, '/');
    char folder[4096] = ".";
    size_t bytes = slash ? (size_t)(slash - target) + 1 : 0;
    if (bytes >= sizeof folder) return;
    if (bytes) {
        memcpy(folder, target, bytes);
        folder[bytes] = '\0';
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)fsync(fd);
    close(fd);
}

kn_status kn_atomic_commit(kn_atomic_file **handle)
{
    kn_atomic_file *f = *handle;
    kn_status st = KN_OK;
    (void)fchmod(f->fd, usual_mode()); /* a file system without modes has none to set */
    /* EINVAL, ENOTSUP: the file system has no fsync. */
    if (fsync(f->fd) != 0 && errno != EINVAL && errno != ENOTSUP) {
        st = kn_fail(KN_ERR_IO, "cannot write %s: flushing it to disk failed: %s", f->target,
                     strerror(errno));
    } else {
        int closed = close(f->fd);
        f->fd = -1;
        if (closed != 0 && errno != EINTR)
            st = kn_fail(KN_ERR_IO, "cannot write %s: closing it failed: %s", f->target,
                         strerror(errno));
        else if (rename(f->temp, f->target) != 0)
            st = kn_fail(KN_ERR_IO, "cannot write %s: renaming %s to it failed: %s", f->target,
                         f->temp, strerror(errno));
    }
    if (st == KN_OK) {
        sync_folder(f->target);
        if (slot_release(f->slot)) kn_free(f->temp);
        f->slot = -1;
        f->temp = NULL;
    }
    kn_atomic_discard(handle);
    return st;
}

void kn_atomic_discard(kn_atomic_file **handle)
{
    if (!handle || !*handle) return;
    kn_atomic_file *f = *handle;
    *handle = NULL;
    if (f->fd >= 0) close(f->fd);
    if (f->temp) {
        (void)unlink(f->temp);
        if (slot_release(f->slot)) kn_free(f->temp);
    }
    kn_free(f->target);
    kn_free(f);
}

kn_status kn_file_write(const char *path, const void *data, size_t bytes)
{
    kn_status st;
    kn_atomic_file *f = NULL;
    KN_TRY_GOTO(kn_atomic_open(path, &f));
    KN_TRY_GOTO(kn_atomic_write(f, data, bytes));
    KN_TRY_GOTO(kn_atomic_commit(&f));
done:
    kn_atomic_discard(&f);
    return st;
}

kn_status kn_file_read(const char *path, size_t limit_bytes, char **data, size_t *size)
{
    kn_status st = KN_OK;
    void *buffer = NULL;
    *data = NULL;
    *size = 0;
    /* O_NONBLOCK: opening a pipe must not wait for a writer before it can be refused. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return kn_fail(KN_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0) {
        st = kn_fail(KN_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        st = kn_fail(KN_ERR_IO, "cannot read %s: expected a regular file, found %s", path,
                     S_ISDIR(info.st_mode) ? "a folder" : "something else");
        goto done;
    }
    if ((unsigned long long)info.st_size > limit_bytes) {
        st = kn_fail(KN_ERR_FORMAT, "%s: expected at most %zu bytes, found %lld", path, limit_bytes,
                     (long long)info.st_size);
        goto done;
    }
    size_t bytes = (size_t)info.st_size, have = 0;
    KN_TRY_GOTO(kn_alloc(bytes + 1, &buffer));
    while (have < bytes) {
        ssize_t n = read(fd, (char *)buffer + have, bytes - have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            st = kn_fail(KN_ERR_IO, "cannot read %s: %s at byte %zu of %zu", path, strerror(errno),
                         have, bytes);
            goto done;
        }
        if (n == 0) {
            st = kn_fail(KN_ERR_IO, "cannot read %s: it shrank from %zu to %zu bytes meanwhile",
                         path, bytes, have);
            goto done;
        }
        have += (size_t)n;
    }
    ((char *)buffer)[bytes] = '\0';
    *data = buffer;
    *size = bytes;
    buffer = NULL;
done:
    kn_free(buffer);
    close(fd);
    return st;
}
