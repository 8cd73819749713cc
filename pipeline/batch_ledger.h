/* pipeline/batch_ledger.h - what has been done in a batch folder, and who does what now.
 *
 * Purpose   results.jsonl has one line per finished or failed job, appended whole, by any number of
 *           processes. A job counts as finished when a line says so that was asked for with the same
 *           settings and model, and the output still has the content that the newest such line recorded. Locks keep two
 *           processes from the same job; the kernel drops them when a process dies.
 * Format    {"name","index","status":"done"|"failed","request","job","output","sha256","bytes","seed",
 *           "seconds":{"text","denoise","decode","total"},"tokens","work_tflop","device","error",
 *           "exit_code","finished","kinora"}; absent when not known. request: fingerprint of the settings
 *           as asked for (a random seed as -1); job: with the seed that was drawn.
 * Locks     flock(2) on OUTPUT.lock; over NFS since Linux 2.6.12. The file is removed by its holder.
 * Errors    KN_ERR_IO names the path. A line that is not whole (a killed process, a full disk) is skipped.
 */
#ifndef KN_PIPELINE_BATCH_LEDGER_H
#define KN_PIPELINE_BATCH_LEDGER_H

#include <jansson.h>
#include <stdbool.h>

#include "io/status.h"

typedef struct kn_ledger {
    char *path;
    json_t *lines; /* array of objects, in file order */
} kn_ledger;

/* The folder and those above it, where missing. */
KN_CHECKED kn_status kn_make_folders(const char *path);

/* folder: made when missing. */
KN_CHECKED kn_status kn_ledger_open(const char *folder, kn_ledger *out);
/* Read what others have appended. */
KN_CHECKED kn_status kn_ledger_reload(kn_ledger *l);
/* Append one object; takes a reference. */
KN_CHECKED kn_status kn_ledger_append(kn_ledger *l, json_t *line);
void kn_ledger_close(kn_ledger *l);

/* The newest line of that output at or behind `from`, or NULL. Borrowed. */
const json_t *kn_ledger_find(const kn_ledger *l, const char *output, size_t from);
/* True when it is there and complete: see Purpose. */
bool kn_ledger_finished(const kn_ledger *l, const char *output, const char *request);

/* *fd < 0: somebody else holds it, and *holder says who ("host, process 123"). */
KN_CHECKED kn_status kn_lock_take(const char *output, int *fd, char holder[128]);
/* Also removes the file. fd < 0 is fine. */
void kn_lock_release(const char *output, int fd);

/* Remove what a killed process left: temporary files of output and of the files beside it. For the
 * holder of its lock. */
void kn_remove_leftovers(const char *output);

#endif
