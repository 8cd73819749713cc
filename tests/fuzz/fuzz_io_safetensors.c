/* Any bytes as a safetensors file: opened or refused; what is opened is inside the file. */
#define _GNU_SOURCE /* memfd_create */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reading ends up here, so that no compiler leaves it out. */
static volatile unsigned sink;

static void require(int holds)
{
    if (!holds) abort();
}

static void check(const kn_safetensors *s, size_t size)
{
    size_t total = 0;
    for (int i = 0; i < kn_safetensors_count(s); i++) {
        const kn_st_tensor *t = kn_safetensors_at(s, i);
        int index = -1;
        require(kn_safetensors_find(s, t->name, &index) == t && index == i);
        require(t->rank >= 0 && t->rank <= KN_ST_MAX_RANK);
        if (kn_st_dtype_size(t->dtype)) {
            size_t bytes = kn_st_dtype_size(t->dtype);
            for (int d = 0; d < t->rank; d++) bytes *= (size_t)t->dim[d];
            require(bytes == t->bytes);
        }
        unsigned char sum = 0;
        for (size_t k = 0; k < t->bytes; k++) sum ^= ((const unsigned char *)t->data)[k];
        sink = sum;
        total += t->bytes;
    }
    require(total < size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    kn_safetensors *s;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    require(fd >= 0);
    require(write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    kn_status st = kn_safetensors_open(path, NULL, &s);
    if (st == KN_OK)
        check(s, size);
    else
        require(st == KN_ERR_FORMAT && s == NULL && strstr(kn_error_text(), path));
    kn_safetensors_close(&s);
    close(fd);
    return 0;
}
