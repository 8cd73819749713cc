/* compute/cpu_linear.c - linear on the cpu: pieces of rows x columns, each a product by oneDNN or
 * by own kernels, then the activation while the piece is in the cache. */
#include "compute/cpu_piece.h"

#include <pthread.h>
#include <string.h>

/* Rows by columns of one piece. Many rows: each block of weights that is read serves many of them.
 * Few: enough pieces for all threads. */
enum { MANY_ROWS = 448, ROWS_OF_MANY = 224, ROWS_OF_FEW = 56, COLUMNS_OF_FEW = 128 };

typedef struct linear_job {
    kn_dev *dev;
    kn_rows x, out;
    const kn_cpu_weight *w;
    const float *bias;
    kn_activation act;
    int64_t rows_per_piece, columns_per_piece, column_pieces;
    /* oneDNN's product for each kind of piece, [full or last rows][full or last columns] */
    kn_dnnl_product *product[2][2];
    pthread_mutex_t lock;
    kn_status st; /* of the first piece that failed, and its message */
    char error[256];
} linear_job;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void keep_error(linear_job *j, kn_status st)
{
    if (st == KN_OK) return;
    pthread_mutex_lock(&j->lock);
    if (j->st == KN_OK) {
        j->st = st;
        kn_error_copy(j->error, sizeof j->error); /* the record belongs to this thread */
    }
    pthread_mutex_unlock(&j->lock);
}

static bool dense(const kn_rows *r)
{
    return r->pitch[0] == r->width * (int64_t)sizeof(float) || r->count == 1;
}

/* oneDNN reads and writes dense blocks: rows of x that lie apart are brought together first, and
 * columns of a wider out are made in scratch. */
static void run_dnnl(linear_job *j, int64_t begin, int64_t end, int64_t first, int64_t last)
{
    kn_dnnl_product *p =
        j->product[end - begin < j->rows_per_piece][last - first < j->columns_per_piece];
    const char *w = (const char *)j->w->data + (size_t)(first / KN_CPU_COLUMNS) * j->w->block_bytes;
    int64_t rows = end - begin, n = last - first, K = j->x.width;
    float *scratch = kn_cpu_scratch(j->dev), *out = (float *)kn_row(&j->out, begin) + first;
    const float *x = kn_row(&j->x, begin);
    kn_row_run run = {.x = out,
                      .out = out,
                      .x_pitch = n,
                      .rows = rows,
                      .n = n,
                      .out_pitch = j->out.pitch[j->out.axes - 1] / (int64_t)sizeof(float)};
    if (!dense(&j->x) && rows > 1) {
        for (int64_t r = 0; r < rows; r++)
            memcpy(scratch + r * K, kn_row(&j->x, begin + r), (size_t)K * sizeof(float));
        x = scratch;
        scratch += rows * K;
    }
    bool apart = (n < j->out.width || !dense(&j->out)) && rows > 1;
    if (apart) {
        run.x = scratch;
        scratch += rows * n;
    }
    scratch = (float *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    keep_error(j, kn_dnnl_run(p, kn_workers_index(), x, w, j->bias ? j->bias + first : NULL,
                              (float *)(uintptr_t)run.x, scratch));
    if (apart || j->act != KN_ACT_NONE) kn_cpu_of(j->dev)->act(&run, j->act);
}

static void run_own(const linear_job *j, int64_t begin, int64_t end, int64_t first, int64_t last)
{
    int64_t size = sizeof(float);
    kn_cpu_piece p = {
        .kernels = kn_cpu_of(j->dev),
        .lines = 1,
        .rows = end - begin,
        .segments = 1,
        .length = j->x.width,
        .x = kn_row(&j->x, begin),
        .x_pitch = j->x.pitch[j->x.axes - 1] / size,
        .w = j->w->data,
        .depth = j->x.width,
        .columns = j->out.width,
        .first_column = first,
        .last_column = last,
        .bias = j->bias,
        .out = kn_row(&j->out, begin),
        .out_pitch = j->out.pitch[j->out.axes - 1] / size,
        .scratch = kn_cpu_scratch(j->dev),
    };
    kn_cpu_piece_run(&p);
    if (j->act == KN_ACT_NONE) return;
    kn_row_run run = {.x = p.out + first,
                      .out = p.out + first,
                      .x_pitch = p.out_pitch,
                      .out_pitch = p.out_pitch,
                      .rows = p.rows,
                      .n = last - first};
    p.kernels->act(&run, j->act);
}

static void linear_pieces(void *user, int64_t begin, int64_t end)
{
    linear_job *j = user;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i / j->column_pieces * j->rows_per_piece;
        int64_t first = i % j->column_pieces * j->columns_per_piece;
        int64_t last_row = least(row + j->rows_per_piece, j->out.count);
        int64_t last = least(first + j->columns_per_piece, j->out.width);
        if (j->w->block_bytes)
            run_dnnl(j, row, last_row, first, last);
        else
            run_own(j, row, last_row, first, last);
    }
}

/* The up to four shapes of pieces. */
static kn_status get_products(linear_job *j, kn_dnnl *dnnl)
{
    kn_dnnl_shape s;
    memset(&s, 0, sizeof s); /* compared as bytes */
    s.K = j->x.width;
    s.bias = j->bias != NULL;
    int64_t rows[2] = {least(j->rows_per_piece, j->out.count), j->out.count % j->rows_per_piece};
    int64_t columns[2] = {least(j->columns_per_piece, j->out.width),
                          j->out.width % j->columns_per_piece};
    for (int r = 0; r < 2; r++)
        for (int c = 0; c < 2; c++) {
            s.rows = rows[r];
            s.N = columns[c];
            if (s.rows == 0 || s.N == 0) continue;
            KN_TRY(kn_dnnl_get(dnnl, &s, &j->product[r][c]));
        }
    /* fewer rows or columns than a full piece: they are the "last" kind */
    if (j->product[1][0] == NULL) j->product[1][0] = j->product[0][0];
    if (j->product[0][1] == NULL) j->product[0][1] = j->product[0][0];
    if (j->product[1][1] == NULL)
        j->product[1][1] = columns[1] ? j->product[0][1] : j->product[1][0];
    return KN_OK;
}

kn_status kn_cpu_linear(kn_dev *d, const kn_tensor *x, const kn_weight *w, const kn_tensor *bias,
                        kn_activation act, const kn_tensor *out)
{
    linear_job j = {.dev = d,
                    .lock = PTHREAD_MUTEX_INITIALIZER,
                    .x = kn_rows_of(x),
                    .out = kn_rows_of(out),
                    .w = w->impl,
                    .bias = bias ? bias->data : NULL,
                    .act = act};
    bool many = j.out.count > MANY_ROWS, dnnl = j.w->block_bytes > 0;
    j.rows_per_piece = many ? ROWS_OF_MANY : ROWS_OF_FEW;
    j.columns_per_piece = dnnl || many ? KN_CPU_COLUMNS : COLUMNS_OF_FEW;
    if (j.x.axes > 1 || j.out.axes > 1) /* unevenly spaced rows go one by one */
        j.rows_per_piece = 1;
    else if (dnnl && !dense(&j.x)) /* they and their results go through scratch: half of it */
        j.rows_per_piece = most(
            1, least(j.rows_per_piece, KN_CPU_SCRATCH_FLOATS / 2 / (j.x.width + KN_CPU_COLUMNS)));
    j.column_pieces = (j.out.width + j.columns_per_piece - 1) / j.columns_per_piece;
    int64_t row_pieces = (j.out.count + j.rows_per_piece - 1) / j.rows_per_piece;
    if (dnnl) KN_TRY(get_products(&j, ((kn_cpu *)d->impl)->dnnl));
    kn_parallel_for(d, row_pieces * j.column_pieces, 1, linear_pieces, &j);
    return j.st == KN_OK ? KN_OK : kn_fail(j.st, "linear: %s", j.error);
}
