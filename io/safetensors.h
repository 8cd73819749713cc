/* io/safetensors.h - reading and writing safetensors files.
 *
 * Purpose   Memory-maps one file, or every shard that a *.index.json names, and gives
 *           bounds-checked views of its tensors. Every number in the header is untrusted.
 * Format    8-byte little-endian header length, JSON header {name: {dtype, shape, data_offsets}},
 *           data. https://github.com/huggingface/safetensors (format section of its README).
 * Limits    header <= 100 MiB and <= 2^20 values, rank <= KN_ST_MAX_RANK, dims >= 0, the ranges of
 *           the tensors cover the data without overlap, gap or rest, byte length = product of dims
 *           * dtype size, no name twice (within a file or across shards), shards only in the
 *           index's folder.
 * Cost      Opening reads the header only; a tensor's pages are read from disk when first touched.
 *           The files must not be truncated by another program while open (reading would raise
 *           SIGBUS).
 * Errors    KN_ERR_IO, KN_ERR_FORMAT (names file, tensor, expected, found), KN_ERR_NOMEM.
 * Threads   After opening, everything is read-only: any number of threads may read.
 */
#ifndef KN_IO_SAFETENSORS_H
#define KN_IO_SAFETENSORS_H

#include <stdint.h>

#include "io/status.h"

enum { KN_ST_MAX_RANK = 6 };

typedef enum kn_st_dtype {
    KN_ST_F32,
    KN_ST_F16,
    KN_ST_BF16,
    KN_ST_F64,
    KN_ST_I32,
    KN_ST_I64,
    KN_ST_U8,
    KN_ST_OTHER /* a valid safetensors dtype that Kinora does not compute with (name kept) */
} kn_st_dtype;

typedef struct kn_st_tensor {
    const char *name;
    kn_st_dtype dtype;
    const char *dtype_name; /* as written in the file: "BF16", "F8_E4M3", ... */
    int rank;
    int64_t dim[KN_ST_MAX_RANK];
    const void *data; /* mapped; may be unaligned: then copy before reading wider types */
    size_t bytes;
} kn_st_tensor;

typedef struct kn_safetensors kn_safetensors;

/* path: a .safetensors file, a .safetensors.index.json, or a folder that holds
 * <stem>.safetensors or <stem>.safetensors.index.json (stem NULL: the only one there; shards named
 * like "-00001-of-00002" do not count). Of <stem>.safetensors and its index the single file wins.
 * Each name of an index must stand in the shard that the index names. */
KN_CHECKED kn_status kn_safetensors_open(const char *path, const char *stem, kn_safetensors **out);
/* The bytes of one .safetensors file, which the caller keeps until close; name: for messages. */
KN_CHECKED kn_status kn_safetensors_parse(const char *name, const void *data, size_t size,
                                          kn_safetensors **out);
void kn_safetensors_close(kn_safetensors **st);
/* Path of the (first) file, for messages. */
const char *kn_safetensors_path(const kn_safetensors *st);
int kn_safetensors_count(const kn_safetensors *st);
/* i-th tensor in name order. */
const kn_st_tensor *kn_safetensors_at(const kn_safetensors *st, int i);
/* Tensor by name, or NULL. *index (may be NULL) gets its place for kn_safetensors_at. */
const kn_st_tensor *kn_safetensors_find(const kn_safetensors *st, const char *name, int *index);
/* A string of the file's __metadata__, or NULL; of shards the first that has the key. */
const char *kn_safetensors_metadata(const kn_safetensors *st, const char *key);

/* ---- writing -----------------------------------------------------------------------------------
 * Writes to a temporary name beside path and renames when whole. tensors[i].data is host memory;
 * bytes must fit dtype and dim. KN_ST_OTHER: dtype_name says which (else dtype_name may be NULL).
 * metadata: key, value, key, value, ..., NULL; or NULL.
 * The same arguments give the same bytes: data is ordered by element size, largest first, then by
 * name, so that every tensor is aligned to its element size; metadata is ordered by key.
 * KN_ERR_ARG: no name, a name twice, "__metadata__", text that is not UTF-8, wrong bytes. */
KN_CHECKED kn_status kn_safetensors_write(const char *path, const kn_st_tensor *tensors, int count,
                                          const char *const *metadata);

const char *kn_st_dtype_name(kn_st_dtype t);
size_t kn_st_dtype_size(kn_st_dtype t); /* 0 for KN_ST_OTHER */

/* ---- the format's own rules, shared by reader and writer ------------------------------------- */

typedef struct kn_st_format {
    const char *name;  /* as in the file */
    kn_st_dtype dtype; /* KN_ST_OTHER for most */
    int bits;          /* per element; 4 and 6 exist */
} kn_st_format;
/* The entry for a dtype name, or NULL when safetensors has no such dtype. */
const kn_st_format *kn_st_format_find(const char *name);
/* Bytes of a tensor of that shape; 0 when the number of elements (each dim counted as at least 1)
 * passes 2^63 - 1 or the last element ends within a byte. */
int kn_st_format_bytes(const kn_st_format *f, int rank, const int64_t *dim, size_t *bytes);

#endif
