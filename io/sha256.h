/* io/sha256.h - SHA-256 of a file or of bytes (FIPS 180-4).
 *
 * Purpose   Names the content of an output, and checks downloaded weights against published hashes.
 * Cost      About 250 MB/s: one pass over the file, 64 KiB at a time.
 * Errors    KN_ERR_IO names the path.
 */
#ifndef KN_IO_SHA256_H
#define KN_IO_SHA256_H

#include <stdint.h>

#include "io/status.h"

enum { KN_SHA256_TEXT = 65 };

typedef struct kn_sha256 {
    uint32_t h[8];
    uint64_t bytes;
    unsigned char block[64];
} kn_sha256;

void kn_sha256_init(kn_sha256 *s);
void kn_sha256_add(kn_sha256 *s, const void *data, size_t bytes);
/* Lower-case hexadecimal. s must be initialised again before further use. */
void kn_sha256_text(kn_sha256 *s, char out[KN_SHA256_TEXT]);
KN_CHECKED kn_status kn_sha256_file(const char *path, char out[KN_SHA256_TEXT]);

#endif
