/* io/frame_writer.h - numbered PNG files, compressed by several threads.
 *
 * Purpose   Compression is what PNG files cost: a third of a second for 1920x1080, where a GPU decodes a
 *           frame in a fifth of that. A writer takes frames in time order and returns at once; its threads
 *           write the files, each as kn_frames_write would, byte for byte.
 * Shapes    A frame is [H,W,3] float R'G'B' in [0,1], as in io/frames.h.
 * Memory    A frame of 8 or 16 bits per channel for each thread, and a compressor's tables.
 * Errors    As kn_frames_write. That of a file comes back from a later put or from finish, the earliest
 *           frame's first; frames after it may or may not be there.
 * Threads   One thread at a time uses a writer.
 */
#ifndef KN_IO_FRAME_WRITER_H
#define KN_IO_FRAME_WRITER_H

#include <stdint.h>

#include "io/status.h"

enum { KN_FRAME_WRITER_THREADS = 16 };

typedef struct kn_frame_writer kn_frame_writer;

/* Strings are borrowed until the writer is closed. */
typedef struct kn_frame_writer_params {
    const char *folder;
    int width_px, height_px, bits; /* bits: 8 or 16 */
    const char *const *text;       /* as for kn_png_write */
    int threads;                   /* 0: the caller writes, nothing is kept; most KN_FRAME_WRITER_THREADS */
} kn_frame_writer_params;

/* A thread that cannot be started is done without; with none the caller writes. */
KN_CHECKED kn_status kn_frame_writer_open(const kn_frame_writer_params *p, kn_frame_writer **out);
/* The next frame, from 0; waits while every thread has one. rgb may change after the call. */
KN_CHECKED kn_status kn_frame_writer_put(kn_frame_writer *w, const float *rgb);
/* Waits until all files are there. */
KN_CHECKED kn_status kn_frame_writer_finish(kn_frame_writer *w);
/* Waits for files that are being written; NULL is fine. */
void kn_frame_writer_close(kn_frame_writer **w);

#endif
