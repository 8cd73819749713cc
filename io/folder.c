#include "io/folder.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

kn_status kn_folder_next(DIR *dir, const char *path, const char **name)
{
    struct dirent *e;
    *name = NULL;
    do {
        errno = 0;
        e = readdir(dir);
    } while (e && e->d_name[0] == '.');
    if (!e && errno) return kn_fail(KN_ERR_IO, "cannot read the folder %s: %s", path, strerror(errno));
    if (e) *name = e->d_name;
    return KN_OK;
}

kn_status kn_path_exists(const char *path, bool *found)
{
    struct stat s;
    *found = stat(path, &s) == 0;
    if (*found || errno == ENOENT || errno == ENOTDIR) return KN_OK;
    return kn_fail(KN_ERR_IO, "cannot look for %s: %s", path, strerror(errno));
}
