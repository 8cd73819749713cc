#include "dit/rope.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "io/memory.h"

/* Rows that are made on the host and sent at a time. */
enum { CHUNK_ROWS = 4096 };

static const double theta = 10000.0;

/* cos and sin of position * scale * frequency for one axis: [positions, pairs] each. */
typedef struct axis_table {
    int64_t positions;
    int pairs;
    float *cos, *sin;
} axis_table;

static kn_status axis_open(int64_t positions, int pairs, double scale, axis_table *t)
{
    void *p;
    t->positions = positions;
    t->pairs = pairs;
    size_t count = (size_t)positions * (size_t)pairs;
    KN_TRY(kn_alloc_array(count, 2 * sizeof(float), &p));
    t->cos = p;
    t->sin = t->cos + count;
    for (int i = 0; i < pairs; i++) {
        double frequency = 1.0 / pow(theta, (double)i / pairs);
        for (int64_t k = 0; k < positions; k++) {
            t->cos[k * pairs + i] = (float)cos(scale * (double)k * frequency);
            t->sin[k * pairs + i] = (float)sin(scale * (double)k * frequency);
        }
    }
    return KN_OK;
}

static kn_status check_order(const int32_t *order, int64_t tokens)
{
    void *p;
    KN_TRY(kn_alloc_zero((size_t)tokens, &p));
    unsigned char *seen = p;
    kn_status st = KN_OK;
    for (int64_t l = 0; l < tokens && st == KN_OK; l++) {
        if (order[l] < 0 || order[l] >= tokens || seen[order[l]])
            st = kn_fail(KN_ERR_ARG,
                         "token order: entry %" PRId64 " is %d, expected each of 0..%" PRId64
                         " once",
                         l, order[l], tokens - 1);
        else
            seen[order[l]] = 1;
    }
    kn_free(seen);
    return st;
}

static void fill_row(const axis_table axis[3], const int64_t grid[3], int64_t position,
                     float *cos_row, float *sin_row)
{
    int64_t at[3] = {position / (grid[1] * grid[2]), position / grid[2] % grid[1],
                     position % grid[2]};
    for (int a = 0, i = 0; a < 3; i += axis[a].pairs, a++) {
        size_t bytes = (size_t)axis[a].pairs * sizeof(float);
        memcpy(cos_row + i, axis[a].cos + at[a] * axis[a].pairs, bytes);
        memcpy(sin_row + i, axis[a].sin + at[a] * axis[a].pairs, bytes);
    }
}

static kn_status fill_tables(kn_dit_rope *r, const axis_table axis[3], int64_t pairs)
{
    void *p;
    KN_TRY(kn_alloc_array(CHUNK_ROWS * 2, (size_t)pairs * sizeof(float), &p));
    float *cos_rows = p, *sin_rows = cos_rows + CHUNK_ROWS * pairs;
    kn_status st = KN_OK;
    for (int64_t begin = 0; begin < r->tokens; begin += CHUNK_ROWS) {
        int64_t rows = r->tokens - begin < CHUNK_ROWS ? r->tokens - begin : CHUNK_ROWS;
        for (int64_t l = 0; l < rows; l++) {
            int64_t position = r->order ? r->order[begin + l] : begin + l;
            fill_row(axis, r->grid, position, cos_rows + l * pairs, sin_rows + l * pairs);
        }
        kn_tensor part = kn_tensor_slice(&r->cos, 0, begin, rows);
        KN_TRY_GOTO(kn_dev_upload(r->dev, cos_rows, &part));
        part = kn_tensor_slice(&r->sin, 0, begin, rows);
        KN_TRY_GOTO(kn_dev_upload(r->dev, sin_rows, &part));
    }
done:
    kn_free(p);
    return st;
}

kn_status kn_dit_rope_open_grid(kn_dev *d, int head_dim, int max_positions, const int64_t grid[3],
                                const double scale[3], const int32_t *order, kn_dit_rope *out)
{
    memset(out, 0, sizeof *out);
    for (int a = 0; a < 3; a++)
        if (grid[a] < 1 || grid[a] > max_positions)
            return kn_fail(KN_ERR_ARG,
                           "token grid %" PRId64 " x %" PRId64 " x %" PRId64
                           ": each side must be 1 to %d, the model's position table",
                           grid[0], grid[1], grid[2], max_positions);
    kn_status st = KN_OK;
    axis_table axis[3] = {{0}};
    kn_dit_rope r = {.dev = d, .tokens = grid[0] * grid[1] * grid[2]};
    memcpy(r.grid, grid, sizeof r.grid);
    if (order) {
        void *p;
        KN_TRY_GOTO(check_order(order, r.tokens));
        KN_TRY_GOTO(kn_alloc_array((size_t)r.tokens, sizeof(int32_t), &p));
        r.order = p;
        memcpy(r.order, order, (size_t)r.tokens * sizeof(int32_t));
    }
    int side = head_dim / 6, pairs = head_dim / 2;
    for (int a = 0; a < 3; a++)
        KN_TRY_GOTO(axis_open(grid[a], a ? side : pairs - 2 * side, scale ? scale[a] : 1, &axis[a]));
    r.cos = kn_tensor_of(NULL, KN_F32, r.tokens, pairs);
    r.sin = r.cos;
    KN_TRY_GOTO(kn_dev_alloc(d, kn_tensor_bytes(&r.cos), &r.cos.data));
    KN_TRY_GOTO(kn_dev_alloc(d, kn_tensor_bytes(&r.sin), &r.sin.data));
    KN_TRY_GOTO(fill_tables(&r, axis, pairs));
    *out = r;
    memset(&r, 0, sizeof r);
done:
    for (int a = 0; a < 3; a++) kn_free(axis[a].cos);
    kn_dit_rope_close(&r);
    return KN_CTX(st, "position tables");
}

void kn_dit_rope_close(kn_dit_rope *r)
{
    if (r->cos.data) kn_dev_free(r->dev, r->cos.data, kn_tensor_bytes(&r->cos));
    if (r->sin.data) kn_dev_free(r->dev, r->sin.data, kn_tensor_bytes(&r->sin));
    kn_free(r->order);
    memset(r, 0, sizeof *r);
}
