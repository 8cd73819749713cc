/* What opening a GPU says on machines that have none to use, or a full one: the CUDA runtime's answers are
 * given here, by the linker's --wrap, so that it is seen on any machine. */
#include "tests/expect.h"

#include <stdio.h>
#include <string.h>

#include "compute/device.h"

#ifdef KN_HAVE_CUDA
#include <cuda_runtime_api.h>

static struct machine {
    int driver, runtime; /* versions as CUDA writes them: 13.0 is 13000 */
    cudaError_t counting, asking; /* for GPUs, for the driver's version */
    int count, major, minor;
    cudaError_t allocating;
} machine;

/* Nothing but --wrap declares these. */
cudaError_t __wrap_cudaGetDeviceCount(int *count);
cudaError_t __wrap_cudaDriverGetVersion(int *version);
cudaError_t __wrap_cudaRuntimeGetVersion(int *version);
cudaError_t __wrap_cudaGetDeviceProperties(struct cudaDeviceProp *prop, int ordinal);
cudaError_t __wrap_cudaSetDevice(int ordinal);
cudaError_t __wrap_cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t __wrap_cudaStreamDestroy(cudaStream_t stream);
cudaError_t __wrap_cudaMalloc(void **p, size_t bytes);

cudaError_t __wrap_cudaGetDeviceCount(int *count)
{
    *count = machine.count;
    return machine.counting;
}

cudaError_t __wrap_cudaDriverGetVersion(int *version)
{
    *version = machine.driver;
    return machine.asking;
}

cudaError_t __wrap_cudaRuntimeGetVersion(int *version)
{
    *version = machine.runtime;
    return cudaSuccess;
}

cudaError_t __wrap_cudaGetDeviceProperties(struct cudaDeviceProp *prop, int ordinal)
{
    assert_in_range(ordinal, 0, machine.count - 1);
    snprintf(prop->name, sizeof prop->name, "Some Card");
    prop->major = machine.major;
    prop->minor = machine.minor;
    return cudaSuccess;
}

cudaError_t __wrap_cudaSetDevice(int ordinal)
{
    (void)ordinal;
    return cudaSuccess;
}

cudaError_t __wrap_cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    *stream = NULL;
    return cudaSuccess;
}

cudaError_t __wrap_cudaStreamDestroy(cudaStream_t stream)
{
    (void)stream;
    return cudaSuccess;
}

cudaError_t __wrap_cudaMalloc(void **p, size_t bytes)
{
    (void)bytes;
    *p = NULL;
    return machine.allocating;
}

static void expect_refused(int ordinal, kn_status code, const char *says)
{
    kn_dev *d;
    expect_fail(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CUDA, .ordinal = ordinal}, &d), code, says);
    assert_null(d);
}

static const struct machine good = {.driver = 13000, .runtime = 13000, .count = 2, .major = 9};

static void no_gpu_to_use(void **state)
{
    (void)state;
    machine = (struct machine){.runtime = 13000, .counting = cudaErrorInsufficientDriver};
    expect_refused(0, KN_ERR_UNSUPPORTED, "device cuda: no NVIDIA driver on this machine (libcuda.so.1 not found)");
    machine.driver = 12040;
    expect_refused(0, KN_ERR_UNSUPPORTED, "device cuda: the driver is for CUDA 12.4; this build needs one for 13.0 or newer");
    machine.driver = 13000;
    machine.counting = cudaErrorNoDevice;
    expect_refused(0, KN_ERR_UNSUPPORTED, "device cuda: the driver shows no GPU");
    machine.counting = cudaSuccess;
    expect_refused(0, KN_ERR_UNSUPPORTED, "device cuda: the driver shows no GPU");
    machine.counting = cudaErrorSystemNotReady;
    expect_refused(0, KN_ERR_DEVICE, "cudaGetDeviceCount: cudaErrorSystemNotReady");
    /* A driver that answers no more is not one that is missing. */
    machine.driver = 0;
    machine.asking = cudaErrorECCUncorrectable;
    machine.counting = cudaErrorECCUncorrectable;
    expect_refused(0, KN_ERR_DEVICE, "cudaGetDeviceCount: cudaErrorECCUncorrectable");
    machine.counting = cudaSuccess;
    machine.count = 1;
    expect_refused(0, KN_ERR_DEVICE, "cudaDriverGetVersion: cudaErrorECCUncorrectable");
}

static void another_gpu(void **state)
{
    (void)state;
    machine = good;
    expect_refused(2, KN_ERR_ARG, "device cuda: expected a number from 0 to 1, found 2");
    expect_refused(-1, KN_ERR_ARG, "device cuda: expected a number from 0 to 1, found -1");
    machine.major = 7;
    machine.minor = 5;
    expect_refused(1, KN_ERR_UNSUPPORTED, "device cuda: Some Card has compute capability 7.5; 8.0 or newer is needed");
}

static void a_full_gpu(void **state)
{
    (void)state;
    machine = good;
    machine.allocating = cudaErrorMemoryAllocation;
    expect_refused(0, KN_ERR_NOMEM, "device cuda: Some Card has no room for the ");
    machine.allocating = cudaErrorECCUncorrectable;
    expect_refused(0, KN_ERR_DEVICE, "cudaErrorECCUncorrectable");
}
#else
static void no_backend(void **state)
{
    (void)state;
    kn_dev *d;
    expect_fail(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CUDA}, &d), KN_ERR_UNSUPPORTED,
                "device cuda: this build has no CUDA backend");
    assert_null(d);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef KN_HAVE_CUDA
        cmocka_unit_test(no_gpu_to_use), cmocka_unit_test(another_gpu), cmocka_unit_test(a_full_gpu),
#else
        cmocka_unit_test(no_backend),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
