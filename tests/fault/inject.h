/* tests/fault/inject.h - makes one chosen call of the process fail.
 *
 * Purpose   inject.c takes the place of the C library's allocation, file and thread functions (and, by
 *           the linker's --wrap, of kn_dev_open and the attention calls, whose operations are simulated
 *           device calls). Each call of a kind is numbered from 1 in the order of its making; the one
 *           with the chosen number fails, as the system would fail it.
 * Kinds     alloc    malloc, calloc, realloc, aligned_alloc, posix_memalign: ENOMEM
 *           read     open for reading, fopen, read, pread, fread, stat, fstat, lstat, access, lseek,
 *                    opendir, readdir, mmap of a file, realpath, flock: EIO
 *           write    open for writing, mkdir, write, pwrite, ftruncate, fsync, close, rename, unlink: EIO
 *           full     open for writing, mkdir, write, pwrite, ftruncate, fsync from that call on: ENOSPC, the
 *                    first write moves half of its bytes
 *           thread   pthread_create: EAGAIN
 *           device   operations, memory, transfers and weights of the device: KN_ERR_DEVICE
 *           dry      as alloc, but every allocation from that one on
 *           cuda     of builds with CUDA (inject_cuda.c): the functions of its runtime, kernel launches, those of
 *                    cuBLASLt and cuDNN: cudaErrorMemoryAllocation or cudaErrorUnknown, of the libraries likewise
 *           lost     the same calls, each from that one on: cudaErrorECCUncorrectable, which no call clears
 * Cards     With card_bytes a CUDA device has that much memory; with `card` there is none of use.
 * Owners    A call is Kinora's own when its return address lies in the program's text; what libav, its
 *           codecs, oneDNN or libc call among themselves is theirs. Calls are numbered per owner.
 * Leaks     Own blocks are counted: taken by an own call, given back by anyone.
 * Threads   Counters are atomic; with more than one thread the order of calls is that of the run.
 */
#ifndef KN_TESTS_FAULT_INJECT_H
#define KN_TESTS_FAULT_INJECT_H

#include <stddef.h>

enum inject_kind {
    INJECT_ALLOC,
    INJECT_READ,
    INJECT_WRITE,
    INJECT_FULL,
    INJECT_THREAD,
    INJECT_DEVICE,
    INJECT_DRY,
    INJECT_CUDA,
    INJECT_LOST,
    INJECT_KINDS
};

enum inject_card {
    INJECT_CARD_REAL, /* as it is */
    INJECT_CARD_NO_DRIVER,
    INJECT_CARD_OLD_DRIVER,
    INJECT_CARD_NONE,
    INJECT_CARD_TOO_OLD /* compute capability 7.0 */
};

enum { INJECT_NEAR = 3, INJECT_FRAMES = 24, INJECT_STACKS = 1 << 17 };

/* In memory that the runner shares with the process it starts. */
typedef struct inject_state {
    int active;                   /* 0: calls are neither counted nor failed */
    int kind, theirs;             /* whose calls of which kind fail */
    long at;                      /* number of the call that fails; 0: none */
    long seen[INJECT_KINDS][2];   /* calls made so far: own, theirs */
    long hits;                    /* calls failed */
    char what[40];                /* name of the function that failed first */
    void *frame[INJECT_FRAMES];   /* its callers */
    int frames;
    int ended;                    /* the program came back from its main function */
    int descriptors;              /* open at its end, less those open at its start */
    int note_stacks;              /* note the call stack of every call of `kind` by `theirs` */
    int card;                     /* enum inject_card */
    size_t card_bytes;            /* memory of the CUDA device; 0: what it has */
    long blocks;                  /* own blocks not given back */
    void *leaked[4];              /* return addresses of those who took some of them */
} inject_state;

extern inject_state *inject; /* NULL until the runner sets it */
/* Where a call came from. A kernel's launch is made by a function of the compiler's, so that the call before
 * counts with it. */
typedef struct inject_call {
    unsigned long stack, site; /* hashes of all its callers, and of its own place in the program */
    unsigned long near;        /* of its place and the INJECT_NEAR callers before */
    const void *caller;
    char what[40];
} inject_call;
extern inject_call *inject_calls; /* [INJECT_STACKS], shared too: call n at n - 1 */

const char *inject_kind_name(int kind);
/* Counts an own call of a kind; 1: it must fail. */
int inject_due(int kind, const char *what);
/* The same of a call that came from `caller`, a return address in the program. */
int inject_due_from(int kind, const char *what, const void *caller);
/* Fill in leaked[] of the blocks that are left. */
void inject_find_leaks(void);

#endif
