#include "io/path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/memory.h"

size_t kn_path_bare_bytes(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    return n;
}

int kn_path_steps_up(const char *path)
{
    int count = 0;
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        count += n == 2 && p[0] == '.' && p[1] == '.';
        p += n + (p[n] == '/');
    }
    return count;
}

bool kn_path_is_below(const char *path)
{
    return *path && *path != '/' && !kn_path_steps_up(path);
}

bool kn_path_is_in(const char *folder, const char *path)
{
    size_t n = strlen(folder);
    if (strncmp(path, folder, n)) return false;
    if (!n || folder[n - 1] != '/') {
        if (path[n] != '/') return false;
        n++;
    }
    return kn_path_is_below(path + n);
}

/* The longest part of path that exists, without links. path is cut as it goes. */
static char *resolve_existing(char *path)
{
    for (;;) {
        char *real = realpath(path, NULL);
        if (real || (errno != ENOENT && errno != ENOTDIR)) return real;
        /* A link to nothing would be followed as soon as there is something. */
        struct stat info;
        if (lstat(path, &info) == 0) return NULL;
        char *slash = strrchr(path, '/');
        if (!slash) return realpath(".", NULL);
        while (slash > path && slash[-1] == '/') slash--;
        slash[slash == path] = '\0';
    }
}

kn_status kn_path_check_links(const char *folder, const char *path)
{
    char *copy;
    KN_TRY(kn_strdup(path, &copy));
    char *top = realpath(folder, NULL), *real = resolve_existing(copy);
    kn_status st = KN_OK;
    size_t n = top ? strlen(top) : 0;
    if (!top)
        st = kn_fail(KN_ERR_IO, "%s: %s", folder, strerror(errno));
    else if (!real)
        st = kn_fail(KN_ERR_ARG, "%s: a symbolic link on the way cannot be followed", path);
    else if (strcmp(top, "/") && (strncmp(real, top, n) || (real[n] && real[n] != '/')))
        st = kn_fail(KN_ERR_ARG, "%s: expected a place in the folder %s, found a link to %s", path, folder, real);
    free(top); /* realpath's own memory, hence not kn_free */
    free(real);
    kn_free(copy);
    return st;
}
