/* io/atomic_file.h - files that appear whole or not at all, and reading a small file whole.
 *
 * Purpose   Output is written to a private name beside the target (".NAME.tmp-PID-N") and takes the
 *           target's name by rename(2) only when it is complete and on disk. A run that fails, is
 *           cancelled or loses power leaves the old file, never half of a new one.
 * Use       kn_atomic_open -> kn_atomic_write ... -> kn_atomic_commit; at `done:`
 *           kn_atomic_discard, which does nothing after a commit. A library that opens its output
 *           by name (libav) writes to kn_atomic_temp_path() and must have closed it before the
 *           commit.
 * Target    An existing regular file is replaced. A symbolic link is followed: the file it points
 *           to is replaced. Anything else (a folder, /dev/null, a pipe) is refused, because a
 *           rename would destroy it. Mode of the new file: 0666 less the umask; until it is whole
 *           it is its owner's alone (0600).
 * Errors    KN_ERR_IO names the path and errno; a failed write names how many bytes were written.
 * Threads   One kn_atomic_file belongs to one thread at a time; different ones are independent.
 */
#ifndef KN_IO_ATOMIC_FILE_H
#define KN_IO_ATOMIC_FILE_H

#include "io/status.h"

typedef struct kn_atomic_file kn_atomic_file;

/* Create the temporary file for the target `path`. *out is NULL on failure. */
KN_CHECKED kn_status kn_atomic_open(const char *path, kn_atomic_file **out);
/* Append `bytes` of data. */
KN_CHECKED kn_status kn_atomic_write(kn_atomic_file *f, const void *data, size_t bytes);
/* Its descriptor, open for reading and writing; owned by f. */
int kn_atomic_fd(const kn_atomic_file *f);
/* The name to hand to a library that opens its output itself; valid until commit or discard. */
const char *kn_atomic_temp_path(const kn_atomic_file *f);
/* Flush to disk, rename to the target, close. On failure the temporary file is removed. Either
 * way *f becomes NULL. */
KN_CHECKED kn_status kn_atomic_commit(kn_atomic_file **f);
/* Close and remove the temporary file; *f becomes NULL. NULL and *f == NULL are fine. */
void kn_atomic_discard(kn_atomic_file **f);
/* Remove the temporary files of every open kn_atomic_file of this process, and nothing else. Safe
 * in a signal handler that then ends the process (a second Ctrl-C); the ordinary way out of a
 * cancelled job is kn_atomic_discard. Covers the first 32 files that are open at once. */
void kn_atomic_unlink_all(void);

/* Write `bytes` of data as the whole content of `path`. */
KN_CHECKED kn_status kn_file_write(const char *path, const void *data, size_t bytes);
/* Read a regular file of at most limit_bytes. *data gets size + 1 bytes, the last one 0, so that
 * text can be used as a string; free it with kn_free. */
KN_CHECKED kn_status kn_file_read(const char *path, size_t limit_bytes, char **data, size_t *size);

#endif
