/* Page-locked memory and its filling, where the driver locks, refuses to lock user pages, or has no memory: the CUDA
 * runtime's answers are given here, by the linker's --wrap, so that it is seen on any machine. */
#include "tests/expect.h"

#ifdef KN_HAVE_CUDA
#include "compute/cuda.h"

#include <stdint.h>
#include <sys/mman.h>

static struct driver {
    bool locks, allocates;
    int locked, allocated; /* at this moment */
    size_t bytes;          /* locked or allocated last */
} driver;

/* Nothing but --wrap declares these. */
cudaError_t __wrap_cudaHostRegister(void *p, size_t bytes, unsigned flags);
cudaError_t __wrap_cudaHostUnregister(void *p);
cudaError_t __wrap_cudaMallocHost(void **p, size_t bytes);
cudaError_t __wrap_cudaFreeHost(void *p);

cudaError_t __wrap_cudaHostRegister(void *p, size_t bytes, unsigned flags)
{
    assert_int_equal(flags, cudaHostRegisterDefault);
    assert_int_equal((uintptr_t)p % 4096, 0);
    if (!driver.locks) return cudaErrorHostMemoryAlreadyRegistered;
    driver.locked++;
    driver.bytes = bytes;
    return cudaSuccess;
}

cudaError_t __wrap_cudaHostUnregister(void *p)
{
    unsigned char there;
    assert_int_equal(mincore(p, 1, &there), 0); /* still mapped */
    driver.locked--;
    return cudaSuccess;
}

cudaError_t __wrap_cudaMallocHost(void **p, size_t bytes)
{
    *p = driver.allocates ? malloc(bytes) : NULL;
    if (!*p) return cudaErrorMemoryAllocation;
    driver.allocated++;
    driver.bytes = bytes;
    return cudaSuccess;
}

cudaError_t __wrap_cudaFreeHost(void *p)
{
    free(p);
    driver.allocated--;
    return cudaSuccess;
}

enum { SMALL = 1 << 20, LARGE = 5 << 20, COUNT = 5 };

static kn_cuda cuda;
static kn_dev dev = {.threads = 3, .impl = &cuda};

static int close_all(void **state)
{
    (void)state;
    kn_cuda_helpers_close(&dev);
    return 0;
}

static void *open_one(size_t bytes)
{
    void *p = NULL;
    expect_ok(kn_cuda_locked_open(&dev, bytes, &p));
    assert_non_null(p);
    memset(p, 7, bytes ? bytes : 1);
    return p;
}

static void large_memory_is_mapped_and_locked(void **state)
{
    (void)state;
    driver = (struct driver){.locks = true, .allocates = true};
    void *small = open_one(SMALL), *none = open_one(0);
    assert_int_equal(driver.allocated, 2);
    assert_int_equal(driver.locked, 0);
    void *p[COUNT];
    for (int i = 0; i < COUNT; i++) {
        p[i] = open_one(LARGE + (size_t)i);
        assert_int_equal(driver.bytes, LARGE + i);
        assert_int_equal(driver.locked, i + 1);
    }
    static const int order[COUNT] = {2, 4, 0, 1, 3}; /* from the midst, the end and the beginning of what is held */
    for (int i = 0; i < COUNT; i++) {
        unsigned char there;
        kn_cuda_locked_close(&dev, p[order[i]]);
        assert_int_equal(driver.locked, COUNT - 1 - i);
        assert_int_equal(mincore(p[order[i]], 1, &there), -1);
    }
    kn_cuda_locked_close(&dev, none);
    kn_cuda_locked_close(&dev, small);
    assert_int_equal(driver.allocated, 0);
    assert_null(cuda.mappings);
}

static void the_driver_allocates_where_it_does_not_lock(void **state)
{
    (void)state;
    driver = (struct driver){.allocates = true};
    void *p = open_one(LARGE);
    assert_int_equal(driver.locked, 0);
    assert_int_equal(driver.allocated, 1);
    assert_int_equal(driver.bytes, LARGE);
    kn_cuda_locked_close(&dev, p);
    assert_int_equal(driver.allocated, 0);
}

static void no_memory(void **state)
{
    (void)state;
    driver = (struct driver){0};
    void *p = &driver;
    expect_fail(kn_cuda_locked_open(&dev, LARGE, &p), KN_ERR_NOMEM, "cuda: 5242880 bytes of page-locked host memory: ");
    assert_null(p);
    /* More than there are addresses: the mapping fails, then the driver. */
    expect_fail(kn_cuda_locked_open(&dev, (size_t)1 << 62, &p), KN_ERR_NOMEM, "cuda: 4611686018427387904 bytes");
    assert_null(cuda.mappings);
}

static void filling_copies_every_byte(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 4095, 1 << 20, (1 << 20) + 1, (7 << 20) + 13};
    enum { MOST = (7 << 20) + 13 };
    unsigned char *from = malloc(MOST), *to = malloc(MOST + 1);
    assert_true(from && to);
    for (size_t i = 0; i < MOST; i++) from[i] = (unsigned char)(i * 2654435761u >> 13);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        memset(to, 0x5a, MOST + 1);
        expect_ok(kn_cuda_fill(&dev, to, from, sizes[s]));
        assert_memory_equal(to, from, sizes[s]);
        assert_int_equal(to[sizes[s]], 0x5a);
    }
    free(from);
    free(to);
}
#endif

int main(void)
{
#ifdef KN_HAVE_CUDA
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_memory_is_mapped_and_locked),
        cmocka_unit_test(the_driver_allocates_where_it_does_not_lock),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(filling_copies_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, close_all);
#else
    return 77; /* a build without CUDA has none of it */
#endif
}
