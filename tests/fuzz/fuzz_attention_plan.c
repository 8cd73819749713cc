/* Any bytes as a plan: kn_attn_plan_check refuses it, or every executor runs it within its arrays
 * and looks at it agree. Arrays are as long as the counts say, as the check assumes.
 */
#include "attention/plan.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_TOKENS = 40, MAX_HEADS = 3, MAX_RUNS = 64, DIM = 3 };

/* The input, byte after byte; zeros at its end. */
typedef struct input {
    const uint8_t *data;
    size_t size;
} input;

static int next(input *in)
{
    if (!in->size) return 0;
    in->size--;
    return *in->data++;
}

/* Mostly small numbers, some far out of any range. */
static int32_t number(input *in)
{
    int b = next(in);
    return b < 200   ? b
           : b < 228 ? -b + 199
                     : (int32_t)((uint32_t)b * 0x01010101u ^ (uint32_t)next(in));
}

static void *array(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    require(p != NULL);
    return p;
}

static int32_t *permutations(input *in, const kn_attn_plan *p)
{
    int64_t n = p->perm_heads * p->tokens;
    int32_t *perm = array((size_t)n, sizeof *perm);
    int faults = next(in) % 4 == 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i % p->tokens;
        perm[i] = (int32_t)k; /* shuffle as we go */
        int64_t other = i - k + next(in) % (k + 1);
        perm[i] = perm[other];
        perm[other] = (int32_t)k;
    }
    if (faults) perm[next(in) % n] = number(in);
    return perm;
}

static void fill_geometry(input *in, kn_attn_plan *p)
{
    for (int a = 0; a < 3; a++) p->grid[a] = 1 + next(in) % 4;
    p->pos = array((size_t)p->tokens * 3, sizeof *p->pos);
    int faults = next(in) % 4 == 0;
    for (int64_t i = 0; i < p->tokens; i++) {
        int off = next(in) % 8 == 0;
        for (int a = 0; a < 3; a++) p->pos[3 * i + a] = (int16_t)(off ? -1 : next(in) % p->grid[a]);
    }
    if (faults) p->pos[next(in) % (3 * p->tokens)] = (int16_t)number(in);
    int sides = 2 * (p->grid[0] + p->grid[1] + p->grid[2]);
    p->dilation = array((size_t)p->rules, sizeof *p->dilation);
    p->bounds = array((size_t)p->rules * (size_t)sides, sizeof *p->bounds);
    for (int r = 0; r < p->rules; r++)
        for (int a = 0; a < 3; a++) {
            int32_t *lo = (int32_t *)kn_attn_rule_lo(p, r, a),
                    *len = (int32_t *)kn_attn_rule_len(p, r, a);
            p->dilation[r][a] = 1 + next(in) % 3;
            for (int c = 0; c < p->grid[a]; c++) {
                lo[c] = next(in) % p->grid[a];
                len[c] = next(in) % (p->grid[a] - lo[c] + 1);
            }
        }
    if (p->rules && next(in) % 4 == 0) p->bounds[next(in) % (p->rules * sides)] = number(in);
    if (p->rules && next(in) % 8 == 0) p->dilation[0][next(in) % 3] = number(in);
}

static void fill_rows(input *in, kn_attn_plan *p)
{
    p->rows = p->heads * p->q_blocks;
    p->run_capacity = MAX_RUNS;
    p->q_start = array((size_t)p->q_blocks + 1, sizeof *p->q_start);
    p->row_ptr = array((size_t)p->rows + 1, sizeof *p->row_ptr);
    p->runs = array(MAX_RUNS, sizeof *p->runs);
    for (int64_t b = 0; b <= p->q_blocks; b++)
        p->q_start[b] = (int32_t)(p->tokens * b / p->q_blocks);
    int64_t used = 0;
    for (int64_t row = 0; row < p->rows; row++) {
        int64_t key = next(in) % p->tokens;
        do {
            if (used == MAX_RUNS) break;
            int64_t count = 1 + next(in) % (p->tokens - key);
            p->runs[used++] =
                (kn_attn_run){(int32_t)key, (int32_t)count, next(in) % (p->rules + 1) - 1};
            key += count + next(in) % 4;
        } while (key < p->tokens && next(in) % 2);
        p->row_ptr[row + 1] = used;
    }
    switch (next(in) % 16) {
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): there are query blocks */
    case 0: p->q_start[next(in) % (p->q_blocks + 1)] = number(in); break;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): there are rows */
    case 1: p->row_ptr[next(in) % (p->rows + 1)] = number(in); break;
    case 2: p->runs[next(in) % MAX_RUNS].key = number(in); break;
    case 3: p->runs[next(in) % MAX_RUNS].count = number(in); break;
    case 4: p->runs[next(in) % MAX_RUNS].rule = number(in); break;
    case 5: p->rows += next(in) % 3 - 1; break;
    default: break;
    }
}

static void run(const kn_attn_plan *p, int heads)
{
    size_t n = (size_t)(p->tokens * heads * DIM);
    float *x = array(n, sizeof *x), *out = array(n, sizeof *out);
    uint8_t *row = array((size_t)p->tokens, 1);
    for (size_t i = 0; i < n; i++) x[i] = (float)(i % 7) - 3.0f;
    kn_attn_args a = {.q = kn_tensor_of(x, KN_F32, p->tokens, heads, DIM),
                      .out = kn_tensor_of(out, KN_F32, p->tokens, heads, DIM),
                      .scale = 0.5f};
    a.k = a.v = a.q;
    for (int kind = KN_DEV_REF; kind <= KN_DEV_CPU; kind++) {
        kn_dev *d;
        if (!went_well(kn_dev_open(&(kn_dev_params){.kind = (kn_dev_kind)kind, .threads = 1}, &d)))
            continue;
        (void)went_well(kn_attn_sparse(d, &a, p, NULL));
        kn_dev_close(&d);
    }
    kn_attn_plan_stats s;
    kn_attn_plan_count(p, 4, 4, &s);
    require(s.listed > 0 && s.listed <= 1.0000001 && s.executed >= s.listed * 0.9999999);
    for (int h = 0; h < heads; h++)
        for (int64_t q = 0; q < p->tokens; q++) (void)went_well(kn_attn_plan_row(p, h, q, row));
    free(row);
    free(x);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    kn_attn_plan p = {.density = 0.5};
    int heads = 1 + next(&in) % MAX_HEADS;
    p.tokens = 1 + next(&in) % MAX_TOKENS;
    p.heads = next(&in) % 2 ? heads : 1;
    p.q_blocks = 1 + next(&in) % (p.tokens < 6 ? p.tokens : 6);
    p.perm_heads = next(&in) % 3 == 0 ? 0 : next(&in) % 2 ? heads : 1;
    p.rules = next(&in) % 3;
    if (p.perm_heads && next(&in) % 3) p.perm_q = permutations(&in, &p);
    if (p.perm_heads && (!p.perm_q || next(&in) % 2)) p.perm_k = permutations(&in, &p);
    fill_geometry(&in, &p);
    fill_rows(&in, &p);
    if (kn_attn_plan_check(&p) == KN_OK) run(&p, heads);
    free(p.q_start);
    free(p.row_ptr);
    free(p.runs);
    free(p.perm_q);
    free(p.perm_k);
    free(p.pos);
    free(p.dilation);
    free(p.bounds);
    return 0;
}
