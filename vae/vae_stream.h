/* vae/vae_stream.h - decoding and encoding of clips of any length and size, a few frames at a time.
 *
 * Purpose   Latents go in, one frame after the other, and finished pixel frames come out in time
 *           order (encoding: the other way round). The clip never stands in memory as a whole.
 * Tiles     When a frame does not fit into the memory that the caller allows, the levels at the
 *           pixel end, which hold nearly all of it, run tile by tile. Around each tile lies as much
 *           of the frame as its convolutions can see (one latent for the last level, seven for all
 *           but the first of Wan's decoder), so that the result is that of the whole frame: no
 *           seams, no blending. The middle block, whose attention sees whole frames, always runs on
 *           whole frames. Each tile keeps its own past frames. On cuda they wait in host memory
 *           while other tiles run; on ref and cpu there is one memory, and tiles save working space
 *           only.
 * Chunks    Cut frames cost a transfer of their past per push and tile; more latent frames per push
 *           make that rare, and a clip of one push has no past at all.
 * Units     Latents are normalised, (mu - mean) / std, as the transformer has them. Pixels: RGB in
 *           -1 .. 1, f32, [T,H,W,3]. Sizes in latents; one is kn_vae_spatial_factor() pixels.
 * Errors    KN_ERR_ARG; KN_ERR_NOMEM: names the least memory that would do; KN_ERR_NUMERIC: a frame
 *           with NaN or infinity; KN_ERR_DEVICE; what a callback returns.
 * Threads   The device's thread. Results do not depend on the device's thread count.
 */
#ifndef KN_VAE_VAE_STREAM_H
#define KN_VAE_VAE_STREAM_H

#include "vae/wan_vae.h"

/* How frames are cut. rows = cols = 1: not at all. */
typedef struct kn_vae_tiling {
    int rows, cols;
    int split; /* decode: first level in tiles; encode: number of levels in tiles. 0: only the one at
                  the pixel end, whose tiles overlap least */
} kn_vae_tiling;

typedef struct kn_vae_stream_params {
    int64_t height_lat, width_lat;
    int64_t chunk_lat;    /* most latent frames in one push; 0 = 1. Memory grows with it */
    int64_t total_lat;    /* of the clip; 0 = not known. With it the last push keeps no past frames */
    bool late;            /* decode: a push hands out the frames of the push before it, so that the
                             caller works on them while a GPU computes; kn_vae_decode_flush the last */
    size_t memory_bytes;  /* device memory that may be used, without weights; 0 = no limit */
    kn_vae_tiling tiling; /* rows 0: chosen by memory_bytes */
    bool past_on_host;    /* past frames of tiles wait in host memory; always so on cuda */
    kn_vae_tap tap;       /* tiles call it once each */
} kn_vae_stream_params;

typedef struct kn_vae_stream_plan {
    kn_vae_tiling tiling;
    int64_t overlap_lat; /* latents around each tile that are computed for their neighbours' sake */
    size_t device_bytes; /* past frames, scratch, frames going in and out */
    size_t host_bytes;   /* the same in host memory, where that is not the device's */
} kn_vae_stream_plan;

typedef struct kn_vae_stream kn_vae_stream;

/* What opening a stream with these params would take; runs it on the measure device. m may itself
 * be on one. */
KN_CHECKED kn_status kn_vae_stream_plan_build(const kn_vae *m, kn_vae_side side,
                                              const kn_vae_stream_params *params,
                                              kn_vae_stream_plan *out);

/* m must outlive the stream. */
KN_CHECKED kn_status kn_vae_stream_open(const kn_vae *m, kn_vae_side side,
                                        const kn_vae_stream_params *params, kn_vae_stream **out);
void kn_vae_stream_close(kn_vae_stream **s);
const kn_vae_stream_plan *kn_vae_stream_get_plan(const kn_vae_stream *s);

/* Frames that the next push of `latents` latent frames gives (decode) or takes (encode): one for
 * the clip's first latent frame, kn_vae_temporal_factor() for each other. */
int64_t kn_vae_stream_frames(const kn_vae_stream *s, int64_t latents);

/* frames: [count,H,W,3], clamped to -1 .. 1; valid during the call. Not KN_OK: the push ends with
 * it. */
typedef kn_status kn_vae_frames_fn(void *user, const float *frames, int64_t count);

/* latents: f32 [z,n,H,W] in host memory, any strides, 1 <= n <= chunk_lat: the next n latent
 * frames. */
KN_CHECKED kn_status kn_vae_decode_push(kn_vae_stream *s, const kn_tensor *latents,
                                        kn_vae_frames_fn *fn, void *user);

/* The frames that a late stream still holds; nothing on others. */
KN_CHECKED kn_status kn_vae_decode_flush(kn_vae_stream *s, kn_vae_frames_fn *fn, void *user);

/* frames: [kn_vae_stream_frames(s, n),H,W,3]. latents: as above; gets the posterior's mean. */
KN_CHECKED kn_status kn_vae_encode_push(kn_vae_stream *s, const float *frames,
                                        const kn_tensor *latents);

#endif
