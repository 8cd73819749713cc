/* io/path.h - paths as text, and: does a path that a file names stay where it may?
 *
 * Purpose   Presets, config files and batch files come from others. What they name to be written must lie
 *           below one folder: by its text, and by the symbolic links that stand there.
 * Errors    KN_ERR_ARG names path and folder; KN_ERR_IO.
 */
#ifndef KN_IO_PATH_H
#define KN_IO_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "io/status.h"

/* Bytes of path without the slashes at its end, of which "/" keeps one. */
size_t kn_path_bare_bytes(const char *path);
/* How many parts of it are "..". */
int kn_path_steps_up(const char *path);
/* A relative path without ".." that is not empty: wherever it starts, it stays below. */
bool kn_path_is_below(const char *path);
/* `path` begins with `folder` and is below it from there. */
bool kn_path_is_in(const char *folder, const char *path);
/* The same after symbolic links: of path, the part that exists is resolved. folder must exist. */
KN_CHECKED kn_status kn_path_check_links(const char *folder, const char *path);

#endif
