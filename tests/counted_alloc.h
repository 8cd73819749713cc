/* tests/counted_alloc.h - lets the allocations of jansson and libyaml fail with Kinora's own
 * (kn_memory_fail_at), which count them: for programs that fail the k-th. libpng's always count (io/png.c).
 *
 * libyaml has no hook: linking counted_alloc.c puts its allocation functions in the place of the library's.
 */
#ifndef KN_TESTS_COUNTED_ALLOC_H
#define KN_TESTS_COUNTED_ALLOC_H

/* jansson from now on. Once, before its first use. */
void kn_count_library_allocations(void);

/* Blocks that libyaml has asked for: 0 where its calls do not find the functions here. */
long kn_yaml_allocations(void);

#endif
