/* tests/fuzz/fuzz.h - what the fuzz targets share.
 *
 * Purpose   A target is one file fuzz_<layer>_<what>.c with LLVMFuzzerTestOneInput. It is built twice: as
 *           it is, and as <name>_nomem, where one allocation of the run fails (nomem.c chooses which).
 *           A refusal is then also KN_ERR_NOMEM; nothing may crash, leak or come out half.
 * Files     Readers that take a path get one in memory: a folder of this process under /dev/shm, removed
 *           when it ends.
 */
#ifndef KN_TESTS_FUZZ_H
#define KN_TESTS_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/status.h"

#ifdef KN_FUZZ_NOMEM
enum { FUZZ_NOMEM = 1 };
#define LLVMFuzzerTestOneInput kn_fuzz_one_input
#else
enum { FUZZ_NOMEM = 0 };
#endif
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Results end up here, so that no compiler leaves the reading out. */
static volatile unsigned fuzz_sink __attribute__((unused));

static inline void require(int holds)
{
    if (!holds) abort();
}

/* True after success, false when the allocation that was made to fail was the reason; else a bug. */
static inline bool went_well(kn_status st)
{
    if (st == KN_OK) return true;
    require(FUZZ_NOMEM && st == KN_ERR_NOMEM);
    return false;
}

/* A refusal of the input: `code`, with a message that begins with `prefix` (NULL: any text). */
static inline void require_refused(kn_status st, kn_status code, const char *prefix)
{
    require(*kn_error_text() != '\0');
    if (FUZZ_NOMEM && st == KN_ERR_NOMEM) return;
    require(st == code && (!prefix || !strncmp(kn_error_text(), prefix, strlen(prefix))));
}

/* Any code that blames the input. */
static inline void require_blamed(kn_status st)
{
    require(*kn_error_text() != '\0' && *kn_error_place() != '\0');
    require(st == KN_ERR_ARG || st == KN_ERR_FORMAT || st == KN_ERR_MODEL || st == KN_ERR_UNSUPPORTED ||
            st == KN_ERR_IO || (FUZZ_NOMEM && st == KN_ERR_NOMEM));
}

/* ---- files ---------------------------------------------------------------------------------------*/

static char fuzz_dir[64];

static inline void fuzz_remove(void)
{
    char command[4096];
    static const char *const names[] = {"in.yaml", "in.json", "in.csv", "in.txt", "in.png", "in.safetensors",
                                        "in.safetensors.index.json", "in.mp4", "a.safetensors", "b.safetensors",
                                        "results.jsonl", "kinora/presets/in.yaml", "kinora/presets", "kinora"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(command, sizeof command, "%s/%s", fuzz_dir, names[i]);
        (void)remove(command);
    }
    (void)rmdir(fuzz_dir);
}

/* Path of `name` in this process's folder; one of a few buffers, used in turn. */
static inline const char *fuzz_path(const char *name)
{
    static char path[4][256];
    static int turn;
    if (!*fuzz_dir) {
        snprintf(fuzz_dir, sizeof fuzz_dir, "%s/kinora-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        require(mkdtemp(fuzz_dir) != NULL);
        (void)atexit(fuzz_remove);
    }
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", fuzz_dir, name);
    return path[turn];
}

/* A file with that content. */
static inline const char *fuzz_file(const char *name, const void *data, size_t size)
{
    const char *path = fuzz_path(name);
    FILE *f = fopen(path, "wb");
    require(f != NULL && fwrite(data, 1, size, f) == size && fclose(f) == 0);
    // cppcheck-suppress resourceLeak ; require ends the process
    return path;
}

#endif
