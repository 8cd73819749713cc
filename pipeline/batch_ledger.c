#include "pipeline/batch_ledger.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/atomic_file.h"
#include "io/json.h"
#include "io/memory.h"
#include "io/sha256.h"

/* ---- results.jsonl ----------------------------------------------------------------------------*/

kn_status kn_make_folders(const char *path)
{
    char part[4096];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return kn_fail(KN_ERR_ARG, "%.100s...: expected the name of a folder of at most %zu bytes, found %zu", path, sizeof part - 1,
                       strlen(path));
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p) continue;
        char kept = *p;
        *p = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return kn_fail(KN_ERR_IO, "%s: making the folder: %s", part, strerror(errno));
        if (!(*p = kept)) return KN_OK;
    }
}

kn_status kn_ledger_open(const char *folder, kn_ledger *out)
{
    *out = (kn_ledger){0};
    KN_TRY(kn_make_folders(folder));
    KN_TRY(kn_asprintf(&out->path, "%s/results.jsonl", folder));
    kn_status st = kn_ledger_reload(out);
    if (st != KN_OK) kn_ledger_close(out);
    return st;
}

kn_status kn_ledger_reload(kn_ledger *l)
{
    enum { LIMIT_BYTES = 64 << 20, VALUES_MAX = 4096 };
    char *text = NULL;
    size_t size = 0;
    struct stat s;
    json_t *lines = json_array();
    kn_status st = lines ? KN_OK : kn_fail(KN_ERR_NOMEM, "out of memory: results");
    if (st == KN_OK && stat(l->path, &s) == 0) st = kn_file_read(l->path, LIMIT_BYTES, &text, &size);
    /* By length: a crash of the machine may leave zero bytes in the file, and lines behind them count. */
    for (const char *p = text, *end = p ? p + size : p; st == KN_OK && p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((newline ? newline : end) - p);
        json_t *line = NULL;
        if (n > 0) st = kn_json_parse(l->path, p, n, VALUES_MAX, &line);
        if (st == KN_ERR_FORMAT) st = KN_OK, kn_error_clear();
        if (json_is_object(line) && json_array_append(lines, line) != 0)
            st = kn_fail(KN_ERR_NOMEM, "out of memory: results of %s", l->path);
        json_decref(line);
        p += n + (newline != NULL);
    }
    kn_free(text);
    if (st == KN_OK) {
        json_decref(l->lines);
        l->lines = lines;
    } else {
        json_decref(lines);
    }
    return st;
}

/* One write of one whole line, under a lock. A half line of a killed process is ended first. */
static kn_status append_text(const char *path, const char *text)
{
    char last = '\n';
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) return kn_fail(KN_ERR_IO, "%s: %s", path, strerror(errno));
    kn_status st = KN_OK;
    size_t n = strlen(text);
    if (flock(fd, LOCK_EX) != 0) KN_TRY_GOTO(kn_fail(KN_ERR_IO, "%s: locking: %s", path, strerror(errno)));
    off_t end = lseek(fd, 0, SEEK_END);
    if (end > 0 && pread(fd, &last, 1, end - 1) == 1 && last != '\n' && write(fd, "\n", 1) != 1)
        KN_TRY_GOTO(kn_fail(KN_ERR_IO, "%s: writing: %s", path, strerror(errno)));
    if (write(fd, text, n) != (ssize_t)n || fsync(fd) != 0)
        KN_TRY_GOTO(kn_fail(KN_ERR_IO, "%s: writing: %s", path, strerror(errno)));
done:
    close(fd);
    return st;
}

kn_status kn_ledger_append(kn_ledger *l, json_t *line)
{
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL, *whole = NULL;
    if (!text) return kn_fail(KN_ERR_NOMEM, "out of memory: a line of results");
    kn_status st = kn_asprintf(&whole, "%s\n", text);
    if (st == KN_OK) st = append_text(l->path, whole);
    if (st == KN_OK && json_array_append(l->lines, line) != 0)
        st = kn_fail(KN_ERR_NOMEM, "out of memory: a line of results");
    kn_free(whole);
    free(text);
    return st;
}

void kn_ledger_close(kn_ledger *l)
{
    kn_free(l->path);
    json_decref(l->lines);
    *l = (kn_ledger){0};
}

static const char *text_of(const json_t *line, const char *key)
{
    const char *text = json_string_value(json_object_get(line, key));
    return text ? text : "";
}

const json_t *kn_ledger_find(const kn_ledger *l, const char *output, size_t from)
{
    for (size_t i = json_array_size(l->lines); i-- > from;) {
        const json_t *line = json_array_get(l->lines, i);
        if (!strcmp(text_of(line, "output"), output)) return line;
    }
    return NULL;
}

/* The output is what that line recorded. */
static bool holds(const json_t *line, const char *output)
{
    char hash[KN_SHA256_TEXT];
    struct stat s;
    if (stat(output, &s) != 0 || (json_int_t)s.st_size != json_integer_value(json_object_get(line, "bytes"))) return false;
    if (kn_sha256_file(output, hash) != KN_OK) {
        kn_error_clear();
        return false;
    }
    return !strcmp(hash, text_of(line, "sha256"));
}

bool kn_ledger_finished(const kn_ledger *l, const char *output, const char *request)
{
    for (size_t i = json_array_size(l->lines); i-- > 0;) {
        const json_t *line = json_array_get(l->lines, i);
        if (!strcmp(text_of(line, "output"), output) && !strcmp(text_of(line, "status"), "done") &&
            !strcmp(text_of(line, "request"), request))
            return holds(line, output);
    }
    return false;
}

/* ---- locks ------------------------------------------------------------------------------------*/

static void read_holder(int fd, char holder[128])
{
    ssize_t n = pread(fd, holder, 127, 0);
    holder[n > 0 ? n : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
}

static void write_holder(int fd)
{
    char host[64] = "", text[128];
    gethostname(host, sizeof host - 1);
    int n = snprintf(text, sizeof text, "%s, process %ld\n", host, (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) return; /* only for people to read */
}

kn_status kn_lock_take(const char *output, int *fd, char holder[128])
{
    char *path;
    KN_TRY(kn_asprintf(&path, "%s.lock", output));
    kn_status st = KN_OK;
    holder[0] = '\0';
    for (*fd = -1;;) {
        struct stat mine, named;
        int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666); /* its content is replaced */
        if (f < 0) {
            st = kn_fail(KN_ERR_IO, "%s: %s", path, strerror(errno));
            break;
        }
        if (flock(f, LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK)
                read_holder(f, holder);
            else
                st = kn_fail(KN_ERR_IO, "%s: locking: %s", path, strerror(errno));
            close(f);
            break;
        }
        /* A holder that has just released it has removed the file: a lock on that one is worth nothing. */
        if (fstat(f, &mine) == 0 && stat(path, &named) == 0 && mine.st_ino == named.st_ino && mine.st_dev == named.st_dev) {
            write_holder(f);
            *fd = f;
            break;
        }
        close(f);
    }
    kn_free(path);
    return st;
}

void kn_lock_release(const char *output, int fd)
{
    char path[4096];
    if (fd < 0) return;
    snprintf(path, sizeof path, "%s.lock", output);
    unlink(path);
    close(fd);
}

void kn_remove_leftovers(const char *output)
{
    const char *slash = strrchr(output, '/'), *base = slash ? slash + 1 : output;
    char folder[4096], path[8192];
    size_t n = strlen(base);
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - output + 1) : 2, slash ? output : "./");
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        /* ".NAME.mp4.tmp-1-2", ".NAME.mp4.json.tmp-1-3"; names of other outputs go on otherwise */
        if (e->d_name[0] != '.' || strncmp(e->d_name + 1, base, n) || e->d_name[1 + n] != '.' ||
            !strstr(e->d_name + 1 + n, ".tmp-"))
            continue;
        snprintf(path, sizeof path, "%s%s", folder, e->d_name);
        unlink(path);
    }
    if (d) closedir(d);
}
