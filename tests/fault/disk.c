/* A slow disk, for LD_PRELOAD: fsync takes a fifth of a second more. Built as the module fault_disk. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>

int fsync(int fd)
{
    static __typeof__(&fsync) next;
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "fsync");
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    return next(fd);
}
