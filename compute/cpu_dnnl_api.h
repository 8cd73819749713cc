/* compute/cpu_dnnl_api.h - the few calls in which the C interfaces of oneDNN 2 and oneDNN 3 differ.
 *
 * Purpose   A memory descriptor is a struct in version 2 and a pointer to be freed in version 3;
 *           version 2 makes a primitive descriptor from an operation descriptor, version 3 at once.
 * Source    oneDNN 2.6 and 3.x, oneapi/dnnl/dnnl.h; the "Transition from v2.x to v3.x" page.
 */
#ifndef KN_COMPUTE_CPU_DNNL_API_H
#define KN_COMPUTE_CPU_DNNL_API_H

#include <oneapi/dnnl/dnnl.h>

#if DNNL_VERSION_MAJOR >= 3

typedef dnnl_memory_desc_t kn_md; /* zero until made; free with kn_md_free */
typedef const_dnnl_memory_desc_t kn_md_ref;

static inline kn_md_ref kn_md_of(const kn_md *m)
{
    return *m;
}
static inline void kn_md_free(kn_md *m)
{
    if (*m) dnnl_memory_desc_destroy(*m);
    *m = NULL;
}

static inline dnnl_status_t kn_md_strided(kn_md *m, int rank, const dnnl_dims_t dims,
                                          const dnnl_dims_t strides)
{
    return dnnl_memory_desc_create_with_strides(m, rank, dims, dnnl_f32, strides);
}

/* The layout that a primitive likes best. */
static inline dnnl_status_t kn_md_any(kn_md *m, int rank, const dnnl_dims_t dims)
{
    return dnnl_memory_desc_create_with_tag(m, rank, dims, dnnl_f32, dnnl_format_tag_any);
}

static inline dnnl_status_t kn_md_copy(kn_md *m, kn_md_ref from)
{
    return dnnl_memory_desc_clone(m, from);
}

static inline dnnl_status_t kn_matmul_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                                           kn_md_ref x, kn_md_ref w, kn_md_ref bias, kn_md_ref out,
                                           const_dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(pd, engine, x, w, bias, out, attr);
}

#else

typedef dnnl_memory_desc_t kn_md;
typedef const dnnl_memory_desc_t *kn_md_ref;

static inline kn_md_ref kn_md_of(const kn_md *m)
{
    return m;
}
static inline void kn_md_free(kn_md *m)
{
    (void)m;
}

static inline dnnl_status_t kn_md_strided(kn_md *m, int rank, const dnnl_dims_t dims,
                                          const dnnl_dims_t strides)
{
    return dnnl_memory_desc_init_by_strides(m, rank, dims, dnnl_f32, strides);
}

static inline dnnl_status_t kn_md_any(kn_md *m, int rank, const dnnl_dims_t dims)
{
    return dnnl_memory_desc_init_by_tag(m, rank, dims, dnnl_f32, dnnl_format_tag_any);
}

static inline dnnl_status_t kn_md_copy(kn_md *m, kn_md_ref from)
{
    *m = *from;
    return dnnl_success;
}

static inline dnnl_status_t kn_matmul_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
                                           kn_md_ref x, kn_md_ref w, kn_md_ref bias, kn_md_ref out,
                                           const_dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t d;
    dnnl_status_t st = dnnl_matmul_desc_init(&d, x, w, bias, out);
    return st == dnnl_success ? dnnl_primitive_desc_create(pd, &d, attr, engine, NULL) : st;
}

#endif
#endif
