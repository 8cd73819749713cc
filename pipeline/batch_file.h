/* pipeline/batch_file.h - a batch file: what stands in it, as a list of jobs with their options.
 *
 * Format    YAML or JSON: `defaults:` (options for all jobs) and `jobs:`, a list of maps. Keys of a job are
 *           option names, and
 *             name     of the outputs; made from the prompt and the matrix when absent
 *             matrix   a map of options to lists: one job per combination, the last key fastest. A list of
 *                      whole numbers may be written 1..8
 *             prompts  a text file: one job per line; blank lines and lines that start with # are skipped
 *             csv      a table whose first line names options (and name): one job per row
 *           A file whose name ends in .csv stands for a single job with that table.
 *           Later ones win: defaults, job, row or line, matrix; the command line wins over all, a preset
 *           stays below all. Paths of prompts and csv files start at the batch file's folder and stay in it.
 * Limits    KN_BATCH_MAX jobs, 16 MiB per file, KN_CONFIG_MAX_NODES values.
 * Names     `name`, `output` and the other paths that are written may hold {name}, {index} and {KEY} for
 *           any option. Without an output, a job writes {name}.mp4, or its latents alone if latents-out is set;
 *           relative paths start at --output-dir, which none may leave.
 * Errors    KN_ERR_ARG, KN_ERR_FORMAT with file and line for what concerns the file or all its jobs. What is
 *           wrong with the values of one job is that job's error: the others stay good.
 */
#ifndef KN_PIPELINE_BATCH_FILE_H
#define KN_PIPELINE_BATCH_FILE_H

#include "pipeline/options.h"

/* Fuzzers reach the small one with inputs of a few bytes, and spend no time on long lists. */
#ifdef KN_FUZZ_LIMITS
enum { KN_BATCH_MAX = 1 << 6 };
#else
enum { KN_BATCH_MAX = 1 << 14 };
#endif

typedef struct kn_batch_entry {
    int index;        /* place in the batch, from 1 */
    char *name;
    kn_options o;
    kn_status status; /* not KN_OK: its values are wrong */
    char *error;
} kn_batch_entry;

typedef struct kn_batch_file {
    kn_batch_entry *entry;
    int count;
} kn_batch_file;

/* base: options of the command line (their own layer kept), among them output_dir (not NULL). */
KN_CHECKED kn_status kn_batch_file_read(const char *path, const kn_options *base, kn_batch_file *out);
void kn_batch_file_free(kn_batch_file *b);

/* The file that stands for a job: its video, else its latents. */
const char *kn_batch_path(const kn_options *o);

/* File-name form of a text: lower case, other signs than letters, digits and bytes of UTF-8 letters as
 * single dashes, at most `limit` bytes, cut at a word. For tests too. */
void kn_batch_slug(const char *text, size_t limit, char *out);

#endif
