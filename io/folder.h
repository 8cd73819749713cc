/* io/folder.h - looking into folders without taking a failing disk for an empty one.
 *
 * Purpose   readdir and stat tell "there is nothing" and "it could not be read" by errno alone; these
 *           keep the two apart, so that an unreadable file is never treated as absent.
 * Errors    KN_ERR_IO, with the path and the system's reason.
 * Threads   As readdir: one thread per open folder.
 */
#ifndef KN_IO_FOLDER_H
#define KN_IO_FOLDER_H

#include <dirent.h>
#include <stdbool.h>

#include "io/status.h"

/* *name: the next name that does not start with a dot, NULL at the end; valid until the next call.
 * path: the folder's, for the message. */
KN_CHECKED kn_status kn_folder_next(DIR *dir, const char *path, const char **name);
/* Whether something has that name. Any reason but "no such file" is an error. */
KN_CHECKED kn_status kn_path_exists(const char *path, bool *found);

#endif
