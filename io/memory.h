/* io/memory.h - host memory.
 *
 * Purpose   The one door to malloc, so that sizes are overflow-checked, alignment suits AVX-512,
 *           and a test can make the k-th allocation fail.
 * Units     bytes. Alignment 64.
 * Errors    KN_ERR_NOMEM names the bytes asked for; *out is NULL.
 * Threads   All functions may be called from any thread.
 */
#ifndef KN_IO_MEMORY_H
#define KN_IO_MEMORY_H

#include <stdint.h>

#include "io/status.h"

/* bytes of uninitialised memory (0 gives a valid pointer). Free with kn_free. */
KN_CHECKED kn_status kn_alloc(size_t bytes, void **out);
/* The same, zeroed. */
KN_CHECKED kn_status kn_alloc_zero(size_t bytes, void **out);
/* count * size bytes, checked for overflow, zeroed. */
KN_CHECKED kn_status kn_alloc_array(size_t count, size_t size, void **out);
/* Copy of a string. */
KN_CHECKED kn_status kn_strdup(const char *text, char **out);
/* printf into a new string. */
KN_CHECKED kn_status kn_asprintf(char **out, const char *fmt, ...) KN_PRINTF(2, 3);
/* Free; NULL is fine. */
void kn_free(void *p);

/* *product = a * b; false on overflow of size_t. */
int kn_mul_size(size_t a, size_t b, size_t *product);

/* Give pages of freed memory back to the system, where the C library can (glibc keeps them in between
 * blocks that are still in use). */
void kn_memory_trim(void);
/* Bytes of memory that the process has in use now: code, libraries and data. 0 when unknown. */
size_t kn_memory_resident(void);

/* Bytes of address space that the process may still take (RLIMIT_AS, `ulimit -v`); SIZE_MAX: no limit. */
size_t kn_memory_address_left(void);

/* Tests only: the k-th allocation from now on (1 = next) fails once; 0 turns this off. */
void kn_memory_fail_at(long k);
/* Allocations made since the program started. */
long kn_memory_count(void);

#endif
