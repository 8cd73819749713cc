/* Properties of the forward that need no reference: token order, chunks, plans, threads, memory. */
#include "dit_model.h"

#include "attention/plan.h"
#include "compute/backend.h"
#include "dit/dit.h"

enum { F = 3, H = 8, W = 6, T = 5, TOKENS = 3 * 4 * 3, VALUES = 4 * F * H * W };

/* An open model with one prompt and its latents. */
typedef struct scene {
    kn_dev *dev;
    kn_dit *model;
    kn_dit_context *context;
    kn_dit_rope rope;
    kn_tensor latents, velocity;
} scene;

static char folder[64], wide_folder[64], head_folder[64];

static int setup(void **state)
{
    (void)state;
    make_folder(folder);
    write_config(folder, &small_config);
    write_weights(folder, &small_config, KN_DIT_DIFFUSERS, "", -1, -1, NULL);
    kn_dit_config wide = small_config;
    wide.ffn_dim = 144; /* a multiple of 16 */
    make_folder(wide_folder);
    write_config(wide_folder, &wide);
    write_weights(wide_folder, &wide, KN_DIT_DIFFUSERS, "", -1, -1, NULL);
    wide.head_dim = KN_ATTN_INT8_HEAD_DIM;
    make_folder(head_folder);
    write_config(head_folder, &wide);
    write_weights(head_folder, &wide, KN_DIT_DIFFUSERS, "", -1, -1, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_folder(folder);
    remove_folder(wide_folder);
    remove_folder(head_folder);
    return 0;
}

static kn_tensor new_tensor(kn_dev *d, int rank, const int64_t *dims, uint32_t seed)
{
    static float values[VALUES];
    kn_tensor t = kn_tensor_make(NULL, KN_F32, rank, dims);
    must(kn_dev_alloc(d, kn_tensor_bytes(&t), &t.data));
    fill_values(values, kn_tensor_count(&t), seed);
    must(kn_dev_upload(d, values, &t));
    return t;
}

static void scene_open_model(scene *s, const char *model, const kn_dev_params *params, const int32_t *order)
{
    must(kn_dev_open(params, &s->dev));
    must(kn_dit_open(s->dev, model, &s->model));
    s->latents = new_tensor(s->dev, 4, (int64_t[]){4, F, H, W}, 7);
    s->velocity = new_tensor(s->dev, 4, (int64_t[]){4, F, H, W}, 8);
    kn_tensor embeds = new_tensor(s->dev, 2, (int64_t[]){T, small_config.text_dim}, 9);
    must(kn_dit_context_open(s->model, &embeds, NULL, &s->context));
    kn_dev_free(s->dev, embeds.data, kn_tensor_bytes(&embeds));
    must(kn_dit_rope_open(s->model, F, H, W, order, &s->rope));
}

static void scene_open_on(scene *s, const kn_dev_params *params, const int32_t *order)
{
    scene_open_model(s, folder, params, order);
}

static void scene_open(scene *s, kn_dev_kind kind, int threads, const int32_t *order)
{
    scene_open_on(s, &(kn_dev_params){.kind = kind, .threads = threads}, order);
}

static void scene_close(scene *s)
{
    kn_dev_free(s->dev, s->latents.data, kn_tensor_bytes(&s->latents));
    kn_dev_free(s->dev, s->velocity.data, kn_tensor_bytes(&s->velocity));
    kn_dit_rope_close(&s->rope);
    kn_dit_context_close(&s->context);
    kn_dit_close(&s->model);
    assert_int_equal(kn_dev_bytes_now(s->dev), 0);
    kn_dev_close(&s->dev);
}

static kn_dit_args scene_args(const scene *s)
{
    return (kn_dit_args){.context = s->context,
                         .rope = &s->rope,
                         .latents = s->latents,
                         .timestep = 500,
                         .velocity = s->velocity};
}

/* Runs with scratch of exactly the measured size, into out. */
static void run(const scene *s, kn_dit_args args, float out[VALUES])
{
    size_t bytes;
    must(kn_dit_scratch_bytes(s->model, &args, &bytes));
    must(kn_arena_open(s->dev, bytes, &args.scratch));
    must(kn_dit_forward(s->model, &args));
    must(kn_dev_download(s->dev, &args.velocity, out));
    /* The measure device sizes attention as cpu does, which ref needs less than. */
    if (kn_dev_get_kind(s->dev) == KN_DEV_CPU)
        assert_int_equal(kn_arena_peak(args.scratch), bytes);
    else
        assert_true(kn_arena_peak(args.scratch) <= bytes);
    kn_arena_close(&args.scratch);
}

static void run_once(kn_dev_kind kind, int threads, const int32_t *order, float out[VALUES])
{
    scene s;
    scene_open(&s, kind, threads, order);
    run(&s, scene_args(&s), out);
    scene_close(&s);
}

static float plain[VALUES], other[VALUES];

static void order_of_tokens_is_free(void **state)
{
    (void)state;
    int32_t order[TOKENS];
    for (int l = 0; l < TOKENS; l++) order[l] = l * 5 % TOKENS;
    run_once(KN_DEV_REF, 1, NULL, plain);
    run_once(KN_DEV_REF, 1, order, other);
    /* Only sums over keys change their order. */
    assert_true(relative_max(other, plain, VALUES) < 1e-6);
}

static void threads_give_the_same_bytes(void **state)
{
    (void)state;
    static const kn_dev_kind kinds[] = {KN_DEV_REF, KN_DEV_CPU};
    for (int k = 0; k < 2; k++) {
        run_once(kinds[k], 1, NULL, plain);
        run_once(kinds[k], 2, NULL, other);
        assert_memory_equal(plain, other, sizeof plain);
        run_once(kinds[k], 2, NULL, plain);
        assert_memory_equal(plain, other, sizeof plain);
    }
}

static void chunks_change_memory_not_results(void **state)
{
    (void)state;
    static const kn_dev_kind kinds[] = {KN_DEV_REF, KN_DEV_CPU};
    for (int k = 0; k < 2; k++) {
        scene s;
        scene_open(&s, kinds[k], 1, NULL);
        kn_dit_args args = scene_args(&s);
        size_t whole, parts;
        must(kn_dit_scratch_bytes(s.model, &args, &whole));
        run(&s, args, plain);
        args.ffn_rows = 7;
        must(kn_dit_scratch_bytes(s.model, &args, &parts));
        assert_true(parts < whole);
        run(&s, args, other);
        /* On cpu a product of fewer rows may take another kernel with another order of sums. */
        if (kinds[k] == KN_DEV_REF)
            assert_memory_equal(plain, other, sizeof plain);
        else
            assert_true(relative_max(other, plain, VALUES) < 1e-6);
        args.ffn_rows = TOKENS + 1;
        run(&s, args, other);
        assert_memory_equal(plain, other, sizeof plain);
        size_t in_place; /* hidden rows in the place of q, k and v: no more than with few of them */
        args.ffn_rows = KN_DIT_FFN_IN_PLACE;
        must(kn_dit_scratch_bytes(s.model, &args, &in_place));
        assert_int_equal(in_place, parts);
        run(&s, args, other);
        assert_true(relative_max(other, plain, VALUES) < (kinds[k] == KN_DEV_REF ? 1e-30 : 1e-6));
        scene_close(&s);
    }
}

/* A plan in which one block of queries sees all keys is dense attention; one that hides keys is
 * not. */
static void plans_drive_self_attention(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, KN_DEV_REF, 1, NULL);
    run(&s, scene_args(&s), plain);
    int32_t q_start[2] = {0, TOKENS};
    int64_t row_ptr[2] = {0, 1};
    kn_attn_run all = {.key = 0, .count = TOKENS, .rule = -1};
    kn_attn_plan plan = {.tokens = TOKENS,
                         .heads = 1,
                         .q_blocks = 1,
                         .q_start = q_start,
                         .row_ptr = row_ptr,
                         .runs = &all,
                         .run_capacity = 1,
                         .density = 1};
    kn_dit_args args = scene_args(&s);
    args.plan = &plan;
    run(&s, args, other);
    assert_true(relative_max(other, plain, VALUES) < 1e-6);
    all.count = TOKENS / 2;
    run(&s, args, other);
    assert_true(relative_max(other, plain, VALUES) > 1e-3);
    all.count = TOKENS;
    args.softmax_scale = 1.0;
    run(&s, args, other);
    assert_true(relative_max(other, plain, VALUES) > 1e-3);
    args.softmax_scale = 0.25; /* 1/sqrt(16) */
    run(&s, args, other);
    assert_true(relative_max(other, plain, VALUES) < 1e-6);
    scene_close(&s);
}

static void velocity_may_replace_latents(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, KN_DEV_CPU, 1, NULL);
    run(&s, scene_args(&s), plain);
    kn_dit_args args = scene_args(&s);
    args.velocity = args.latents;
    run(&s, args, other);
    assert_memory_equal(plain, other, sizeof plain);
    scene_close(&s);
}

static kn_status stop_at(void *user, const char *name, const kn_tensor *t)
{
    (void)t;
    return strcmp(name, user) == 0 ? KN_ERR_CANCELLED : KN_OK;
}

static void wrong_arguments_are_named(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, KN_DEV_REF, 1, NULL);
    kn_dit_args args = scene_args(&s);
    must(kn_arena_open(s.dev, 1 << 20, &args.scratch));
    kn_dit_args bad = args;
    bad.latents.dim[1] = F - 1;
    assert_int_equal(kn_dit_forward(s.model, &bad), KN_ERR_ARG);
    assert_non_null(strstr(kn_error_text(), "latents"));
    bad = args;
    bad.velocity.dtype = KN_BF16;
    assert_int_equal(kn_dit_forward(s.model, &bad), KN_ERR_ARG);
    assert_non_null(strstr(kn_error_text(), "velocities"));
    bad = args;
    bad.timestep = 1000.5;
    assert_int_equal(kn_dit_forward(s.model, &bad), KN_ERR_ARG);
    bad.timestep = NAN;
    assert_int_equal(kn_dit_forward(s.model, &bad), KN_ERR_ARG);

    bad = args;
    bad.tap = (kn_dit_tap){stop_at, "blocks.1.attn2"};
    assert_int_equal(kn_dit_forward(s.model, &bad), KN_ERR_CANCELLED);
    assert_int_equal(kn_arena_get_mark(args.scratch), 0);
    kn_arena_close(&args.scratch);

    must(kn_arena_open(s.dev, 1000, &args.scratch));
    assert_int_equal(kn_dit_forward(s.model, &args), KN_ERR_NOMEM);
    assert_int_equal(kn_arena_get_mark(args.scratch), 0);
    kn_arena_close(&args.scratch);

    kn_dit_rope rope;
    assert_int_equal(kn_dit_rope_open(s.model, F, H + 1, W, NULL, &rope), KN_ERR_ARG);
    assert_non_null(strstr(kn_error_text(), "1 x 2 x 2"));
    kn_dit_context *context;
    kn_tensor embeds = kn_tensor_of(NULL, KN_F32, T, small_config.text_dim + 1);
    assert_int_equal(kn_dit_context_open(s.model, &embeds, NULL, &context), KN_ERR_ARG);
    scene_close(&s);
}

/* Override of one block of two: the other keeps its own contexts, wherever the first one's are. */
static void contexts_of_some_blocks(void **state)
{
    (void)state;
    static const kn_dev_kind kinds[] = {KN_DEV_REF, KN_DEV_CPU};
    static const kn_dit_place places[] = {KN_DIT_ON_DEVICE, KN_DIT_ON_HOST};
    for (int k = 0; k < 8; k++) {
        int block = k % 2;
        scene s;
        scene_open(&s, kinds[k / 2 % 2], 1, NULL);
        kn_dit_args args = scene_args(&s);
        run(&s, args, plain);
        must(kn_dit_contexts_open(s.model, &s.rope, places[k / 4], (int[2]){block, block + 1}, 1, &args.contexts));
        args.cross_blocks[0] = block, args.cross_blocks[1] = block + 1;
        args.cross = KN_DIT_CROSS_STORE;
        run(&s, args, other);
        assert_memory_equal(plain, other, sizeof plain);
        args.cross = KN_DIT_CROSS_USE;
        run(&s, args, other); /* the other block's were never stored */
        assert_memory_equal(plain, other, sizeof plain);
        static float far[VALUES];
        kn_dit_args early = args;
        early.cross = KN_DIT_CROSS_STORE;
        early.timestep = 10;
        run(&s, early, far);
        run(&s, args, other);
        assert_true(relative_max(other, plain, VALUES) > 1e-4);
        static const int wrong[][2] = {{1, 1}, {0, 3}, {-1, 1}, {1, 0}};
        for (int i = 0; i < 4; i++) {
            memcpy(args.cross_blocks, wrong[i], sizeof wrong[i]);
            assert_int_equal(kn_dit_forward(s.model, &args), KN_ERR_ARG);
            assert_non_null(strstr(kn_error_text(), "expected some of 0 to 1"));
        }
        memset(args.cross_blocks, 0, sizeof args.cross_blocks); /* all: only one is there */
        assert_int_equal(kn_dit_forward(s.model, &args), KN_ERR_ARG);
        assert_non_null(strstr(kn_error_text(), "expected blocks 0 to 1"));
        kn_dit_contexts_close(&args.contexts);
        scene_close(&s);
    }
}

/* Override: the contexts of a forward, used by the same forward, change nothing; those of another
 * change everything; a forward that stops at the last context stores the same ones. In host memory
 * they are the same, in eight bits nearly. */
static void check_contexts(scene *s, kn_dit_place place, double close)
{
    kn_dit_args args = scene_args(s);
    must(kn_dit_contexts_open(s->model, &s->rope, place, (int[2]){0, 0}, 2, &args.contexts));
    for (args.context_set = 0; args.context_set < 2; args.context_set++) {
        args.cross = KN_DIT_CROSS_STORE;
        run(s, args, other);
        assert_memory_equal(plain, other, sizeof plain);
        args.cross = KN_DIT_CROSS_USE;
        run(s, args, other);
        assert_true(relative_max(other, plain, VALUES) <= close);
    }

    /* set 0 from another timestep, by a forward that ends with the last context */
    static float far[VALUES];
    kn_dit_args early = args;
    size_t bytes;
    early.cross = KN_DIT_CROSS_STORE;
    early.context_set = 0;
    early.timestep = 10;
    early.contexts_only = true;
    early.velocity = (kn_tensor){0};
    must(kn_dit_scratch_bytes(s->model, &early, &bytes));
    must(kn_arena_open(s->dev, bytes, &early.scratch));
    must(kn_dit_forward(s->model, &early));
    kn_arena_close(&early.scratch);
    args.cross = KN_DIT_CROSS_USE;
    args.context_set = 0;
    run(s, args, far);
    assert_true(relative_max(far, plain, VALUES) > 1e-4);
    args.context_set = 1;
    run(s, args, other);
    assert_true(relative_max(other, plain, VALUES) <= close);
    kn_dit_contexts_close(&args.contexts);
}

static void stored_contexts_take_the_place_of_own(void **state)
{
    (void)state;
    static const kn_dev_kind kinds[] = {KN_DEV_REF, KN_DEV_CPU};
    for (int k = 0; k < 2; k++) {
        scene s;
        scene_open(&s, kinds[k], 2, NULL);
        kn_dit_args args = scene_args(&s);
        run(&s, args, plain);
        check_contexts(&s, KN_DIT_ON_DEVICE, 0);
        check_contexts(&s, KN_DIT_ON_HOST, 0);
        check_contexts(&s, KN_DIT_EIGHT_BITS, 2e-2);
        assert_int_equal(kn_dev_host_bytes_now(s.dev), 0);

        must(kn_dit_contexts_open(s.model, &s.rope, KN_DIT_ON_DEVICE, (int[2]){0, 0}, 1, &args.contexts));
        args.contexts_only = true;
        assert_int_equal(kn_dit_forward(s.model, &args), KN_ERR_ARG);
        args.cross = KN_DIT_CROSS_STORE;
        args.context_set = 1;
        assert_int_equal(kn_dit_forward(s.model, &args), KN_ERR_ARG);
        assert_non_null(strstr(kn_error_text(), "contexts"));
        kn_dit_contexts_close(&args.contexts);
        scene_close(&s);
    }
}

/* Weights in host memory, two blocks at a time on the device: less of it, and the same bytes. */
static void offloaded_weights_give_the_same_bytes(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, KN_DEV_REF, 1, NULL);
    run(&s, scene_args(&s), plain);
    scene_close(&s);
    scene_open_on(&s, &(kn_dev_params){.kind = KN_DEV_REF, .threads = 1, .offload = true}, NULL);
    assert_true(kn_dev_host_bytes_now(s.dev) > 0);
    for (int i = 0; i < 2; i++) {
        run(&s, scene_args(&s), other);
        assert_memory_equal(plain, other, sizeof plain);
    }
    scene_close(&s);

    kn_dev *d;
    kn_dit *m;
    must(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_CPU, .threads = 1, .offload = true}, &d));
    assert_int_equal(kn_dit_open(d, folder, &m), KN_ERR_UNSUPPORTED);
    assert_non_null(strstr(kn_error_text(), "offload"));
    assert_int_equal(kn_dev_bytes_now(d), 0);
    kn_dev_close(&d);
}

/* The whole model on the measure device reports what the real device then holds. */
/* e4m3 keeps three bits behind the first: some per cent in every linear layer. Pieces and threads change nothing. */
static void layers_in_e4m3(void **state)
{
    (void)state;
    scene s;
    scene_open_model(&s, wide_folder, &(kn_dev_params){.kind = KN_DEV_REF, .threads = 1}, NULL);
    kn_dit_args args = scene_args(&s);
    run(&s, args, plain);
    args.f8 = true;
    run(&s, args, other);
    double difference = 0, size = 0;
    for (int i = 0; i < VALUES; i++) {
        difference += pow((double)other[i] - (double)plain[i], 2);
        size += pow((double)plain[i], 2);
    }
    assert_true(difference > 1e-6 * size && difference < 1e-2 * size);
    static float third[VALUES];
    args.ffn_rows = 7;
    run(&s, args, third);
    assert_memory_equal(other, third, sizeof other);
    scene_close(&s);
    scene_open_model(&s, wide_folder, &(kn_dev_params){.kind = KN_DEV_REF, .threads = 2}, NULL);
    args = scene_args(&s);
    args.f8 = true;
    run(&s, args, third);
    assert_memory_equal(other, third, sizeof other);
    scene_close(&s);
    size_t bytes; /* a width that the tensor cores do not take is found before the run */
    scene_open(&s, KN_DEV_REF, 1, NULL);
    args = scene_args(&s);
    args.f8 = true;
    assert_int_equal(kn_dit_scratch_bytes(s.model, &args, &bytes), KN_ERR_ARG);
    assert_non_null(strstr(kn_error_text(), "multiples of 16"));
    scene_close(&s);
}

static int begun, replayed;

static kn_status record_begin(kn_dev *d)
{
    (void)d;
    begun++;
    return KN_OK;
}

static kn_status record_end(kn_dev *d, void **work)
{
    (void)d;
    *work = &begun;
    return KN_OK;
}

static kn_status replay(kn_dev *d, void *work)
{
    (void)d, (void)work;
    replayed++;
    return KN_OK;
}

static void record_close(kn_dev *d, void *work)
{
    (void)d, (void)work;
}

static kn_status ask_plan(void *user, int block, const kn_tensor *q, const kn_tensor *k, const kn_attn_plan **plan)
{
    (void)user, (void)block, (void)q, (void)k;
    *plan = NULL;
    return KN_OK;
}

/* How often the recording of a forward with these args is queued. */
static int queued(const scene *s, const kn_dit_args *args)
{
    replayed = 0;
    must(kn_dit_forward(s->model, args));
    return replayed;
}

/* A forward that differs by its timestep alone is recorded and queued again; any other argument makes it
 * another one. The backend does recorded work at once, so that nothing is left for a queued recording. */
static void forwards_that_come_again_are_recorded(void **state)
{
    (void)state;
    scene s;
    size_t bytes;
    scene_open(&s, KN_DEV_REF, 1, NULL);
    kn_backend records = *s.dev->backend;
    records.record_begin = record_begin, records.record_end = record_end;
    records.replay = replay, records.record_close = record_close;
    s.dev->backend = &records;
    kn_dit_args args = scene_args(&s);
    must(kn_dit_scratch_bytes(s.model, &args, &bytes));
    must(kn_arena_open(s.dev, 2 * bytes, &args.scratch));
    must(kn_records_open(s.dev, &args.records));
    begun = 0;
    assert_int_equal(queued(&s, &args), 0);
    must(kn_dev_download(s.dev, &args.velocity, plain));
    assert_int_equal(queued(&s, &args), 1);
    must(kn_dev_download(s.dev, &args.velocity, other));
    assert_memory_equal(plain, other, sizeof plain);
    args.timestep = 250;
    assert_int_equal(queued(&s, &args), 1);
    assert_int_equal(begun, 1);

    kn_dit_args changed = args;
    changed.softmax_scale = 0.25;
    assert_int_equal(queued(&s, &changed), 0);
    changed = args;
    changed.ffn_rows = 7;
    assert_int_equal(queued(&s, &changed), 0);
    changed = args;
    changed.velocity = changed.latents;
    assert_int_equal(queued(&s, &changed), 0);
    changed = args;
    changed.plan_fn = ask_plan;
    for (changed.plans = 1; changed.plans <= 2; changed.plans++) {
        assert_int_equal(queued(&s, &changed), 0);
        assert_int_equal(queued(&s, &changed), 1);
    }
    changed.plans = 0; /* chosen by looking: at each time */
    for (int i = 0; i < 3; i++) assert_int_equal(queued(&s, &changed), 0);
    changed = args;
    must(kn_dit_contexts_open(s.model, &s.rope, KN_DIT_ON_DEVICE, (int[2]){0, 0}, 2, &changed.contexts));
    changed.cross = KN_DIT_CROSS_STORE;
    for (changed.context_set = 0; changed.context_set < 2; changed.context_set++) {
        assert_int_equal(queued(&s, &changed), 0);
        assert_int_equal(queued(&s, &changed), 1);
    }
    changed.context_set = 0;
    changed.cross = KN_DIT_CROSS_USE;
    assert_int_equal(queued(&s, &changed), 0);
    kn_dit_contexts_close(&changed.contexts);
    assert_int_equal(queued(&s, &args), 1); /* the first is still known */
    kn_records_close(&args.records);
    kn_arena_close(&args.scratch);
    scene_close(&s);
}

typedef struct looked {
    int plans, seen, attentions, taps; /* seen: plans asked for with q and k */
} looked;

static kn_status count_plan(void *user, int block, const kn_tensor *q, const kn_tensor *k, const kn_attn_plan **plan)
{
    looked *l = user;
    (void)block;
    l->plans++;
    l->seen += q && k && q->data != k->data;
    *plan = NULL;
    return KN_OK;
}

/* Afterwards q, k and v are as they came in, beside what came out. */
static kn_status count_attention(void *user, int block, const kn_attn_args *attn)
{
    (void)block;
    bool apart = attn->q.data != attn->out.data && attn->k.data != attn->out.data && attn->v.data != attn->out.data;
    ((looked *)user)->attentions += apart && attn->int8 && !attn->norm && !attn->room.rank;
    return KN_OK;
}

static kn_status count_tap(void *user, const char *name, const kn_tensor *t)
{
    (void)t;
    ((looked *)user)->taps += strstr(name, "attn1.q") != NULL;
    return KN_OK;
}

/* In 8 bits q and k are packed by what norms them, unless someone looks at them: the same numbers either way. */
static void attention_in_8_bits(void **state)
{
    (void)state;
    scene s;
    looked l = {0};
    scene_open_model(&s, head_folder, &(kn_dev_params){.kind = KN_DEV_REF, .threads = 1}, NULL);
    kn_dit_args args = scene_args(&s);
    run(&s, args, plain);
    args.int8 = true;
    args.plan_fn = count_plan, args.plan_user = &l;
    run(&s, args, other);
    assert_true(l.plans == small_config.layers && l.seen == 0);
    double difference = 0, size = 0;
    for (int i = 0; i < VALUES; i++) {
        difference += pow((double)other[i] - (double)plain[i], 2);
        size += pow((double)plain[i], 2);
    }
    assert_true(difference > 0 && difference < 1e-3 * size);
    static float third[VALUES];
    args.tap = (kn_dit_tap){count_tap, &l};
    run(&s, args, third);
    assert_memory_equal(other, third, sizeof other);
    assert_true(l.plans == 2 * small_config.layers && l.seen == small_config.layers && l.taps == small_config.layers);
    args.tap = (kn_dit_tap){0};
    args.attn_fn = count_attention, args.attn_user = &l;
    run(&s, args, third);
    assert_memory_equal(other, third, sizeof other);
    assert_int_equal(l.attentions, small_config.layers);
    scene_close(&s);
}

/* On a GPU the bytes of q, k and v lie in buffers that are there anyway; beside them where someone looks at q, k
 * and v. */
static void bytes_lie_in_the_buffers(void **state)
{
    (void)state;
    enum { FRAMES = 1000, LENGTH = FRAMES * 4 * 3, WIDTH = 2 * KN_ATTN_INT8_HEAD_DIM };
    scene s = {0};
    size_t bytes[3];
    must(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_MEASURE, .measured = KN_DEV_CUDA}, &s.dev));
    must(kn_dit_open(s.dev, head_folder, &s.model));
    must(kn_dit_rope_open(s.model, FRAMES, 8, 6, NULL, &s.rope));
    kn_tensor embeds = kn_tensor_of(NULL, KN_F32, T, small_config.text_dim);
    must(kn_dev_alloc(s.dev, kn_tensor_bytes(&embeds), &embeds.data));
    must(kn_dit_context_open(s.model, &embeds, NULL, &s.context));
    kn_dev_free(s.dev, embeds.data, kn_tensor_bytes(&embeds));
    s.latents = s.velocity = kn_tensor_of(NULL, KN_F32, 4, FRAMES, 8, 6);
    kn_dit_args args = scene_args(&s);
    for (int i = 0; i < 3; i++) {
        args.int8 = i > 0, args.attn_fn = i > 1 ? count_attention : NULL;
        must(kn_dit_scratch_bytes(s.model, &args, &bytes[i]));
    }
    size_t one = (size_t)LENGTH * WIDTH; /* a tensor of bytes */
    if (!(bytes[1] > bytes[0] && bytes[1] - bytes[0] < one / 2)) fail_msg("%zu more than %zu", bytes[1] - bytes[0], bytes[0]);
    if (!(bytes[2] - bytes[0] >= 3 * one)) fail_msg("beside them: %zu more than %zu", bytes[2] - bytes[0], bytes[0]);
    kn_dit_context_close(&s.context);
    kn_dit_rope_close(&s.rope);
    kn_dit_close(&s.model);
    kn_dev_close(&s.dev);
}

static void measured_sizes_hold(void **state)
{
    (void)state;
    size_t peak[2];
    static const kn_dev_params params[2] = {{.kind = KN_DEV_CPU, .threads = 1},
                                            {.kind = KN_DEV_MEASURE, .measured = KN_DEV_CPU}};
    for (int i = 0; i < 2; i++) {
        scene s = {0};
        must(kn_dev_open(&params[i], &s.dev));
        must(kn_dit_open(s.dev, folder, &s.model));
        must(kn_dit_rope_open(s.model, F, H, W, NULL, &s.rope));
        kn_tensor embeds = kn_tensor_of(NULL, KN_F32, T, small_config.text_dim);
        must(kn_dev_alloc(s.dev, kn_tensor_bytes(&embeds), &embeds.data));
        static const float zeros[T * 12];
        must(kn_dev_upload(s.dev, zeros, &embeds));
        must(kn_dit_context_open(s.model, &embeds, NULL, &s.context));
        kn_dev_free(s.dev, embeds.data, kn_tensor_bytes(&embeds));
        peak[i] = kn_dev_bytes_now(s.dev);
        kn_dit_context_close(&s.context);
        kn_dit_rope_close(&s.rope);
        kn_dit_close(&s.model);
        kn_dev_close(&s.dev);
    }
    assert_int_equal(peak[0], peak[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(order_of_tokens_is_free),
                                       cmocka_unit_test(threads_give_the_same_bytes),
                                       cmocka_unit_test(chunks_change_memory_not_results),
                                       cmocka_unit_test(plans_drive_self_attention),
                                       cmocka_unit_test(velocity_may_replace_latents),
                                       cmocka_unit_test(wrong_arguments_are_named),
                                       cmocka_unit_test(stored_contexts_take_the_place_of_own),
                                       cmocka_unit_test(offloaded_weights_give_the_same_bytes),
                                       cmocka_unit_test(contexts_of_some_blocks),
                                       cmocka_unit_test(layers_in_e4m3),
                                       cmocka_unit_test(forwards_that_come_again_are_recorded),
                                       cmocka_unit_test(attention_in_8_bits),
                                       cmocka_unit_test(bytes_lie_in_the_buffers),
                                       cmocka_unit_test(measured_sizes_hold)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
