/* compute/tensor.h - tensors as views, and the dimension glossary of the project.
 *
 * A kn_tensor never owns memory: whoever opened the buffer closes it. Passing a view transfers
 * nothing. Strides are in elements, so slices and transposes are views too; each operation says
 * which layouts it takes (most want the plain row-major one, kn_tensor_contiguous()).
 *
 * Dimension letters, used by every shape comment:
 *   P   pixel frames, P = 4(F-1)+1            F   latent frames
 *   H W latent height and width (px / 8)      h w token grid, H/2 and W/2
 *   L   tokens, F*h*w                         C   channels
 *   N   attention heads                       D   head dimension
 *   T   text tokens (512 for Wan)             d   model width, N*D
 * Example: 1920x1088, 81 frames: F = 21, H x W = 136 x 240, h x w = 68 x 120, L = 171,360.
 * Suffixes carry units: _px _lat _tok _blk _bytes _ms.
 */
#ifndef KN_COMPUTE_TENSOR_H
#define KN_COMPUTE_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "io/status.h"

enum { KN_MAX_RANK = 6 };

typedef enum kn_dtype {
    KN_F32,
    KN_BF16,
    KN_F16,
    KN_F64, /* reference runs of the checks only */
    KN_I32,
    KN_I64,
    KN_U8,
    KN_I8,
    KN_F8, /* e4m3: sign, 4 exponent bits (bias 7), 3 fraction bits; no infinities, at most 448 */
    KN_DTYPE_COUNT
} kn_dtype;

typedef struct kn_tensor {
    void *data; /* of the device that the tensor is used on; NULL only when measuring or absent */
    kn_dtype dtype;
    int rank;                    /* 0 means "absent" where an operation takes an optional tensor */
    int64_t dim[KN_MAX_RANK];    /* outermost first; dims are >= 0 */
    int64_t stride[KN_MAX_RANK]; /* in elements */
} kn_tensor;

/* Bytes of one element; and "f32", "bf16", ... */
size_t kn_dtype_size(kn_dtype t);
const char *kn_dtype_name(kn_dtype t);

/* Row-major view of data. dims: rank values. */
kn_tensor kn_tensor_make(void *data, kn_dtype dtype, int rank, const int64_t *dims);
#define kn_tensor_of(data, dtype, ...)                                                             \
    kn_tensor_make((data), (dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),     \
                   (int64_t[]){__VA_ARGS__})

/* Number of elements, and bytes when packed. */
int64_t kn_tensor_count(const kn_tensor *t);
size_t kn_tensor_bytes(const kn_tensor *t);
bool kn_tensor_contiguous(const kn_tensor *t);
bool kn_tensor_same_shape(const kn_tensor *a, const kn_tensor *b);
/* View of entries [start, start+count) of one axis. */
kn_tensor kn_tensor_slice(const kn_tensor *t, int axis, int64_t start, int64_t count);
/* View with axes in another order: out.dim[i] = t.dim[order[i]]. */
kn_tensor kn_tensor_permute(const kn_tensor *t, const int *order);
/* Another shape over the same elements; t must be contiguous and counts must match (asserted). */
kn_tensor kn_tensor_reshape(const kn_tensor *t, int rank, const int64_t *dims);
#define kn_tensor_view(t, ...)                                                                     \
    kn_tensor_reshape((t), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),              \
                      (int64_t[]){__VA_ARGS__})

/* Writes "f32[3, 4]" into buf; returns buf. For messages. */
enum { KN_SHAPE_TEXT = 128 };
const char *kn_tensor_text(const kn_tensor *t, char buf[KN_SHAPE_TEXT]);

/* Scalar conversions between the stored forms (round to nearest even). */
float kn_bf16_to_f32(uint16_t v);
uint16_t kn_f32_to_bf16(float v);
float kn_f16_to_f32(uint16_t v);
uint16_t kn_f32_to_f16(float v);
float kn_f8_to_f32(uint8_t v);
/* What is beyond 448 becomes 448. */
uint8_t kn_f32_to_f8(float v);

#endif
