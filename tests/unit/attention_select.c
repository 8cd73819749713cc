/* Planners on a CUDA device against the same planners on ref, on random grids with short tiles and
 * text: the same blocks but where weights agree to rounding, the same orders likewise, lists that
 * hold exactly the chosen keys, and the same bytes twice. Skipped, and said so, where no CUDA
 * device opens.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/device_lists.h"
#include "attention/draft.h"
#include "attention/permute.h"
#include "io/memory.h"

static kn_dev *ref, *cuda;
static bool skipped;
static int rounds = 40;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != KN_OK) fail_msg("%s", kn_error_text());                                      \
    } while (0)

static uint64_t seed = 1;
static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % below);
}
static double normal(void)
{
    double s = -6;
    for (int i = 0; i < 12; i++) s += draw(1u << 24) / 16777216.0;
    return s;
}

typedef struct pair {
    kn_tensor host, device;
    void *host_data;
    size_t bytes;
} pair;

/* Slices of one projection [L][3][N][D], as a network has them: token stride 3 N D. */
static pair make(int64_t tokens, int heads, int dim, double size)
{
    pair p;
    int64_t n = tokens * 3 * heads * dim;
    p.bytes = (size_t)n * 2;
    OK(kn_alloc(p.bytes, &p.host_data));
    for (int64_t i = 0; i < n; i++)
        ((uint16_t *)p.host_data)[i] = kn_f32_to_bf16((float)(size * normal()));
    void *mem;
    OK(kn_dev_alloc(cuda, p.bytes, &mem));
    kn_tensor whole = kn_tensor_of(mem, KN_BF16, n);
    OK(kn_dev_upload(cuda, p.host_data, &whole));
    p.device = kn_tensor_of(mem, KN_BF16, tokens, heads, dim);
    p.device.stride[0] = 3 * heads * dim;
    p.host = p.device;
    p.host.data = p.host_data;
    return p;
}

static kn_tensor part(const kn_tensor *t, int i)
{
    kn_tensor x = *t;
    x.data = (uint16_t *)t->data + i * t->dim[1] * t->dim[2];
    return x;
}

static void drop(pair *p)
{
    kn_dev_free(cuda, p->device.data, p->bytes);
    kn_free(p->host_data);
}

/* Listed (query, key) pairs of one head that differ / all that are listed. */
static double difference(const kn_attn_plan *a, const kn_attn_plan *b, int head, uint8_t *x,
                         uint8_t *y)
{
    int64_t other = 0, listed = 0;
    for (int64_t i = 0; i < a->q_blocks; i++) {
        int64_t query = a->q_start[i];
        int64_t stored = a->perm_q ? a->perm_q[(a->perm_heads > 1 ? head : 0) * a->tokens + query]
                                   : query;
        OK(kn_attn_plan_row(a, head, stored, x));
        OK(kn_attn_plan_row(b, head, stored, y));
        for (int64_t j = 0; j < a->tokens; j++) {
            other += x[j] != y[j];
            listed += x[j];
        }
    }
    return (double)other / (double)listed;
}

static void download(const void *from, void *to, int64_t bytes)
{
    kn_tensor t = kn_tensor_of((void *)(uintptr_t)from, KN_U8, bytes);
    OK(kn_dev_download(cuda, &t, to));
}

/* The device's lists say what the fetched rows say; masked entries first; every row once in the
 * order, a head's longest first. */
static void check_lists(const kn_attn_plan *p)
{
    const kn_attn_lists *l = p->lists;
    int64_t rows = p->heads * p->q_blocks, entries = 0;
    kn_attn_list_row *row = malloc((size_t)rows * sizeof *row);
    int32_t *order = malloc((size_t)rows * sizeof *order);
    uint8_t *seen = calloc((size_t)(p->tokens > rows ? p->tokens : rows), 1);
    download(l->row, row, rows * (int64_t)sizeof *row);
    download(l->order, order, rows * (int64_t)sizeof *order);
    for (int64_t r = 0; r < rows; r++) {
        assert_int_equal(row[r].first, entries);
        entries += row[r].total;
    }
    kn_attn_entry *entry = malloc((size_t)(entries + 1) * sizeof *entry);
    download(l->entry, entry, entries * (int64_t)sizeof *entry);
    for (int64_t r = 0; r < rows; r++) {
        memset(seen, 0, (size_t)p->tokens);
        for (int32_t e = 0; e < row[r].total; e++) {
            kn_attn_entry x = entry[row[r].first + e];
            assert_true(x.info >= 1 && x.info <= KN_ATTN_BLOCK);
            assert_true((x.info < KN_ATTN_BLOCK) == (e < row[r].partial));
            for (uint32_t j = 0; j < x.info; j++) {
                assert_true(x.key >= 0 && x.key + j < p->tokens);
                seen[x.key + j]++;
            }
        }
        for (int64_t i = p->row_ptr[r]; i < p->row_ptr[r + 1]; i++)
            for (int32_t j = 0; j < p->runs[i].count; j++) seen[p->runs[i].key + j] += 2;
        for (int64_t j = 0; j < p->tokens; j++) assert_true(seen[j] == 0 || seen[j] == 3);
    }
    memset(seen, 0, (size_t)rows);
    for (int64_t i = 0; i < rows; i++) {
        assert_true(order[i] >= 0 && order[i] < rows && !seen[order[i]]);
        seen[order[i]] = 1;
        assert_int_equal(order[i] / p->q_blocks, i / p->q_blocks);
        if (i % p->q_blocks) assert_true(row[order[i - 1]].total >= row[order[i]].total);
    }
    free(row);
    free(order);
    free(seen);
    free(entry);
}

static uint64_t hash_rows(const kn_attn_plan *p)
{
    uint64_t h = 14695981039346656037u;
    int64_t rows = p->heads * p->q_blocks;
    for (int64_t i = 0; i <= rows; i++) h = (h ^ (uint64_t)p->row_ptr[i]) * 1099511628211u;
    for (int64_t i = 0; i < p->row_ptr[rows]; i++)
        h = (h ^ (uint64_t)(p->runs[i].key * 65536LL + p->runs[i].count)) * 1099511628211u;
    for (int64_t i = 0; p->perm_k && i < p->perm_heads * p->tokens; i++)
        h = (h ^ (uint64_t)p->perm_k[i]) * 1099511628211u;
    return h;
}

static kn_attn_layout random_layout(void)
{
    kn_attn_layout l = {{2 + (int)draw(6), 5 + (int)draw(14), 5 + (int)draw(14)},
                        {1 + (int)draw(3), 2 + (int)draw(5), 2 + (int)draw(7)},
                        draw(3) ? 0 : 1 + draw(200)};
    return l;
}

/* Rounding may turn a choice between weights that agree to 1e-5: few among random ones. */
static const double TURNED = 0.02;

static void check_draft(int round)
{
    kn_draft_params params = {.layout = random_layout(),
                              .block = 16 + (int)draw(113),
                              .heads = 1 + (int)draw(4),
                              .dim = 8 * (1 + (int)draw(16)),
                              .sparsity = round % 7 == 0 ? 0 : round % 7 == 1 ? 1 : draw(1000) / 1e3,
                              .drop_first_frame = draw(2),
                              .drop_own_frame = draw(2),
                              .within_budget = draw(2)};
    params.scale = (float)(1 / sqrt(params.dim));
    int64_t tokens = kn_grid_tokens(params.layout.grid) + params.layout.text;
    pair x = make(tokens, params.heads, params.dim, 2.0);
    kn_tensor hq = part(&x.host, 0), hk = part(&x.host, 1);
    kn_tensor dq = part(&x.device, 0), dk = part(&x.device, 1);
    kn_draft *a, *b;
    const kn_attn_plan *host, *made;
    uint8_t *row[2] = {malloc((size_t)tokens), malloc((size_t)tokens)};
    OK(kn_draft_open(&params, &a));
    OK(kn_draft_open(&params, &b));
    OK(kn_draft_plan(ref, a, &hq, &hk, &host));
    OK(kn_draft_plan(cuda, b, &dk, &dq, &made)); /* the second call must forget this one */
    OK(kn_draft_plan(cuda, b, &dq, &dk, &made));
    double density = made->density;
    OK(kn_attn_plan_fetch(made));
    OK(kn_attn_plan_check(made));
    assert_true(fabs(kn_attn_plan_listed(made) - density) < 1e-9);
    for (int h = 0; h < params.heads; h++) {
        double d = difference(host, made, h, row[0], row[1]);
        if (!(d <= TURNED)) fail_msg("draft %d, head %d: %g of the pairs differ", round, h, d);
    }
    check_lists(made);
    uint64_t first = hash_rows(made);
    OK(kn_draft_plan(cuda, b, &dq, &dk, &made));
    OK(kn_attn_plan_fetch(made));
    assert_true(hash_rows(made) == first);
    kn_draft_close(&a);
    kn_draft_close(&b);
    free(row[0]);
    free(row[1]);
    drop(&x);
}

static void test_draft(void **state)
{
    (void)state;
    if (!cuda) skip();
    for (int i = 0; i < rounds; i++) check_draft(i);
}

/* Of each segment's keys, neighbours in the device's order must not be in the wrong order by more
 * than rounding: by the places they have on the host. */
static void check_order(const kn_attn_plan *host, const kn_attn_plan *made, int64_t video)
{
    int64_t moved = 0, n = host->perm_heads * host->tokens;
    int32_t *place = malloc((size_t)host->tokens * sizeof *place);
    for (int h = 0; h < host->perm_heads; h++) {
        const int32_t *a = host->perm_k + h * host->tokens, *b = made->perm_k + h * host->tokens;
        for (int64_t i = 0; i < host->tokens; i++) place[a[i]] = (int32_t)i;
        for (int64_t i = 0; i < host->tokens; i++) {
            int64_t away = llabs(place[b[i]] - i);
            moved += away > 0;
            assert_true(away <= 3);
            if (i >= video) assert_int_equal(b[i], i);
        }
    }
    assert_true((double)moved <= 0.02 * (double)n + 4);
    free(place);
}

static void check_permute(int round)
{
    kn_permute_params params = {.layout = random_layout(),
                                .kind = round % 3 ? KN_PERMUTE_IMPORTANCE : KN_PERMUTE_AXES,
                                .block = 8 + (int)draw(121),
                                .segment = (int)draw(3) * (1 + (int)draw(5)),
                                .heads = 1 + (int)draw(4),
                                .dim = 8 * (1 + (int)draw(round % 5 ? 16 : 32)),
                                .threshold = draw(1000) / 1e3,
                                .density = draw(2) ? draw(1000) / 1e3 : 0};
    uint8_t axes[4] = {(uint8_t)draw(6), (uint8_t)draw(6), (uint8_t)draw(6), (uint8_t)draw(6)};
    int64_t video = kn_grid_tokens(params.layout.grid), tokens = video + params.layout.text;
    params.axes = axes;
    params.scale = (float)(1 / sqrt(params.dim));
    params.samples = 1 + (int)draw((uint32_t)(video < 300 ? video : 300));
    pair x = make(tokens, params.heads, params.dim, 2.0);
    kn_tensor hq = part(&x.host, 0), hk = part(&x.host, 1);
    kn_tensor dq = part(&x.device, 0), dk = part(&x.device, 1);
    kn_permute *a, *b;
    const kn_attn_plan *host, *made;
    uint8_t *row[2] = {malloc((size_t)tokens), malloc((size_t)tokens)};
    OK(kn_permute_open(&params, &a));
    OK(kn_permute_open(&params, &b));
    OK(kn_permute_plan(ref, a, &hq, &hk, &host));
    OK(kn_permute_plan(cuda, b, &dk, &dq, &made));
    OK(kn_permute_plan(cuda, b, &dq, &dk, &made));
    double density = made->density;
    OK(kn_attn_plan_fetch(made));
    OK(kn_attn_plan_check(made));
    assert_true(fabs(kn_attn_plan_listed(made) - density) < 1e-9);
    check_order(host, made, video);
    check_lists(made);
    for (int h = 0; h < params.heads; h++) {
        /* Swapped neighbours at a block's edge change single keys of every row. */
        double d = difference(host, made, h, row[0], row[1]);
        if (!(d <= 2 * TURNED)) fail_msg("permute %d, head %d: %g of the pairs differ", round, h, d);
    }
    uint64_t first = hash_rows(made);
    OK(kn_permute_plan(cuda, b, &dq, &dk, &made));
    OK(kn_attn_plan_fetch(made));
    assert_true(hash_rows(made) == first);
    kn_permute_close(&a);
    kn_permute_close(&b);
    free(row[0]);
    free(row[1]);
    drop(&x);
}

static void test_permute(void **state)
{
    (void)state;
    if (!cuda) skip();
    for (int i = 0; i < rounds; i++) check_permute(i);
}

/* All weights equal: ties at the threshold are all kept, rows take the first blocks, and lists
 * outgrow their first room. */
static void test_ties(void **state)
{
    (void)state;
    if (!cuda) skip();
    kn_draft_params params = {.layout = {{4, 16, 16}, {1, 4, 4}, 0},
                              .block = 128,
                              .heads = 2,
                              .dim = 64,
                              .sparsity = 0.9,
                              .scale = 0.125f};
    pair x = make(4 * 16 * 16, 2, 64, 0.0);
    kn_tensor q = part(&x.device, 0), k = part(&x.device, 1);
    kn_draft *draft;
    const kn_attn_plan *made;
    OK(kn_draft_open(&params, &draft));
    OK(kn_draft_plan(cuda, draft, &q, &k, &made));
    assert_true(made->density == 1.0);
    kn_permute *permute;
    OK(kn_permute_open(&(kn_permute_params){.layout = params.layout,
                                            .kind = KN_PERMUTE_IMPORTANCE,
                                            .block = 16,
                                            .segment = 1,
                                            .samples = 16,
                                            .heads = 2,
                                            .dim = 64,
                                            .density = 0.25,
                                            .scale = 0.125f},
                       &permute));
    OK(kn_permute_plan(cuda, permute, &q, &k, &made));
    assert_true(made->density == 0.25);
    OK(kn_attn_plan_fetch(made));
    for (int64_t r = 0; r < made->rows; r++) { /* 16 of 64 blocks: its own and the first others */
        int64_t own = r % made->q_blocks;
        assert_int_equal(made->runs[made->row_ptr[r]].key, 0);
        assert_int_equal(made->runs[made->row_ptr[r]].count, own < 16 ? 256 : 240);
        assert_int_equal(made->row_ptr[r + 1] - made->row_ptr[r], own < 16 ? 1 : 2);
    }
    kn_permute_close(&permute);
    kn_draft_close(&draft);
    drop(&x);
}

static void test_refusals(void **state)
{
    (void)state;
    if (!cuda) skip();
    kn_draft_params params = {
        .layout = {{1, 8, 8}, {1, 4, 4}, 0}, .block = 128, .heads = 2, .dim = 20, .scale = 1};
    pair x = make(64, 2, 20, 1.0);
    kn_tensor q = part(&x.device, 0);
    kn_draft *draft;
    const kn_attn_plan *made;
    OK(kn_draft_open(&params, &draft));
    assert_int_equal(kn_draft_plan(cuda, draft, &q, &q, &made), KN_ERR_UNSUPPORTED);
    assert_non_null(strstr(kn_error_text(), "heads of 20"));
    assert_null(made);
    kn_draft_close(&draft);
    drop(&x);
}

static int open_devices(void **state)
{
    (void)state;
    OK(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF}, &ref));
    if (kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CUDA}, &cuda) != KN_OK) {
        fprintf(stderr, "skipped: %s\n", kn_error_text());
        cuda = NULL;
        skipped = true;
    }
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    kn_dev_close(&ref);
    kn_dev_close(&cuda);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) rounds = atoi(argv[1]); /* fewer under tools that slow kernels down */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draft),
        cmocka_unit_test(test_permute),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_refusals),
    };
    int failed = cmocka_run_group_tests(tests, open_devices, close_devices);
    return failed ? failed : skipped ? 77 : 0;
}
