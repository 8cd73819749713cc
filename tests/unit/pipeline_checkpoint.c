/* Checkpoints: a run that goes on from one gives the undisturbed run's bytes; what is damaged, of another job or of
 * another pass is refused before anything is taken from it. */
#include "tests/expect.h"

#include "io/memory.h"
#include "io/safetensors.h"
#include "pipeline/checkpoint.h"

enum { STEPS = 6, N = 24 };
static const int64_t dims[4] = {2, 3, 2, 2};
static kn_dev *dev;
static kn_schedule schedule;
static kn_options o;
static kn_job_identity id;
static float x[N], refresh[N];

static int setup(void **state)
{
    if (temp_folder_setup(state) || kn_dev_open(&(kn_dev_params){.kind = KN_DEV_REF, .threads = 1}, &dev) != KN_OK) return -1;
    if (kn_options_init(&o) != KN_OK || kn_schedule_build(KN_GRID_WAN, STEPS, 3, 1, &schedule) != KN_OK) return -1;
    return kn_job_identity_build(&o, NULL, 0, "", &id) != KN_OK;
}

static int teardown(void **state)
{
    assert_int_equal(kn_dev_bytes_now(dev), 0);
    kn_job_identity_free(&id);
    kn_options_free(&o);
    kn_dev_close(&dev);
    return temp_folder_teardown(state);
}

static kn_tensor latents(void) { return kn_tensor_make(x, KN_F32, 4, dims); }

static kn_solver *open_solver(kn_solver_kind kind)
{
    kn_solver *s = NULL;
    expect_ok(kn_solver_open(dev, kind, &schedule, 4, dims, &s));
    return s;
}

static void start(void)
{
    for (int i = 0; i < N; i++) x[i] = (float)(i % 7) - 2.5f;
}

/* A velocity that depends on the sample, so that every error goes on. */
static void step_to(kn_solver *s, int index)
{
    float v[N];
    kn_tensor vt = kn_tensor_make(v, KN_F32, 4, dims), xt = latents();
    while (kn_solver_index(s) < index) {
        for (int i = 0; i < N; i++) v[i] = 0.3f * x[i] - 0.1f * x[(i + 5) % N] + 0.2f;
        expect_ok(kn_solver_step(s, &vt, &xt));
    }
}

/* The checkpoint after `index` steps, of segment 2 and pass 1. */
static void save_at(const char *path, kn_solver_kind kind, int index, bool with_refresh)
{
    kn_solver *s = open_solver(kind);
    start();
    step_to(s, index);
    kn_checkpoint c = {.segment = 2, .pass = 1, .latents = latents(), .solver = s};
    for (int i = 0; i < N; i++) refresh[i] = (float)i;
    if (with_refresh) c.refresh = kn_tensor_make(refresh, KN_F32, 4, dims);
    expect_ok(kn_checkpoint_save(path, dev, &id, 77, &c));
    kn_solver_close(&s);
}

static kn_status load(const char *path, const kn_job_identity *of, kn_solver *s, bool with_refresh)
{
    kn_checkpoint c = {.segment = 2, .pass = 1, .latents = latents(), .solver = s};
    if (with_refresh) c.refresh = kn_tensor_make(refresh, KN_F32, 4, dims);
    return kn_checkpoint_load(path, dev, of, &c);
}

static void a_run_goes_on_bit_for_bit(void **state)
{
    (void)state;
    static const kn_solver_kind kinds[] = {KN_SOLVER_UNIPC, KN_SOLVER_EULER, KN_SOLVER_DPMPP};
    float whole[N];
    for (int k = 0; k < 3; k++) {
        kn_solver *s = open_solver(kinds[k]);
        start();
        step_to(s, STEPS);
        memcpy(whole, x, sizeof x);
        kn_solver_close(&s);
        for (int index = 0; index <= STEPS; index++) {
            kn_checkpoint_place place;
            char *path;
            expect_ok(kn_checkpoint_path(temp_path("v.mp4"), &path));
            save_at(path, kinds[k], index, index & 1);
            expect_ok(kn_checkpoint_peek(path, &place));
            assert_true(place.exists);
            assert_int_equal(place.seed, 77);
            assert_int_equal(place.segment, 2);
            assert_int_equal(place.pass, 1);
            assert_int_equal(place.step, index);
            assert_string_equal(place.job, id.fingerprint);
            memset(x, 0, sizeof x);
            memset(refresh, 0, sizeof refresh);
            s = open_solver(kinds[k]);
            expect_ok(load(path, &id, s, index & 1));
            assert_int_equal(kn_solver_index(s), index);
            if (index & 1) assert_true(refresh[5] == 5);
            step_to(s, STEPS);
            assert_memory_equal(x, whole, sizeof x);
            kn_solver_close(&s);
            kn_free(path);
        }
    }
}

static void a_finished_pass_needs_no_solver(void **state)
{
    (void)state;
    const char *path = temp_path("done.safetensors");
    float kept[N];
    save_at(path, KN_SOLVER_UNIPC, STEPS, false);
    memcpy(kept, x, sizeof x);
    memset(x, 0, sizeof x);
    expect_ok(load(path, &id, NULL, false));
    assert_memory_equal(x, kept, sizeof x);
}

static void other_jobs_are_named_by_their_options(void **state)
{
    (void)state;
    const char *path = temp_path("job.safetensors");
    kn_options other;
    kn_job_identity theirs;
    kn_solver *s = open_solver(KN_SOLVER_UNIPC);
    save_at(path, KN_SOLVER_UNIPC, 2, false);
    expect_ok(kn_options_init(&other));
    expect_ok(kn_options_set(&other, "steps", "9", KN_FROM_COMMAND_LINE, "--steps"));
    expect_ok(kn_options_set(&other, "prompt", "a dog", KN_FROM_COMMAND_LINE, "--prompt"));
    expect_ok(kn_job_identity_build(&other, NULL, 0, "", &theirs));
    expect_fail(load(path, &theirs, s, false), KN_ERR_ARG, "job.safetensors", "another job", "steps", "prompt");
    assert_null(strstr(kn_error_text(), "guidance"));
    kn_job_identity_free(&theirs);
    expect_ok(kn_job_identity_build(&o, NULL, 0, "another clip", &theirs));
    expect_fail(load(path, &theirs, s, false), KN_ERR_ARG, "the model, a file that was given, or the version of Kinora differs");
    kn_job_identity_free(&theirs);
    kn_options_free(&other);
    kn_checkpoint c = {.segment = 3, .pass = 1, .latents = latents(), .solver = s};
    expect_fail(kn_checkpoint_load(path, dev, &id, &c), KN_ERR_FORMAT, "expected segment 3, pass 1, found segment 2, pass 1");
    c = (kn_checkpoint){.segment = 2, .pass = 0, .latents = latents(), .solver = s};
    expect_fail(kn_checkpoint_load(path, dev, &id, &c), KN_ERR_FORMAT, "pass 0");
    kn_solver_close(&s);
}

static bool same_job(const kn_options *a, const char *const *files, int count, const char *content)
{
    kn_job_identity other;
    expect_ok(kn_job_identity_build(a, files, count, content, &other));
    bool same = !strcmp(other.fingerprint, id.fingerprint);
    kn_job_identity_free(&other);
    return same;
}

static void what_shapes_the_result_is_the_job(void **state)
{
    (void)state;
    const char *file = temp_path("weights"), *files[] = {file};
    kn_options other;
    kn_job_identity before, after;
    expect_ok(kn_options_init(&other));
    expect_ok(kn_options_set(&other, "threads", "3", KN_FROM_COMMAND_LINE, "-t"));
    assert_true(same_job(&other, NULL, 0, ""));
    expect_ok(kn_options_set(&other, "guidance", "4", KN_FROM_COMMAND_LINE, "--guidance"));
    assert_false(same_job(&other, NULL, 0, ""));
    assert_false(same_job(&o, NULL, 0, "clip"));
    put_file(file, "abc", 3);
    assert_false(same_job(&o, files, 1, ""));
    expect_ok(kn_job_identity_build(&o, files, 1, "", &before));
    put_file(file, "abd", 3);
    expect_ok(kn_job_identity_build(&o, files, 1, "", &after));
    assert_string_not_equal(before.fingerprint, after.fingerprint);
    kn_job_identity_free(&before);
    kn_job_identity_free(&after);
    files[0] = temp_path("missing");
    expect_fail(kn_job_identity_build(&o, files, 1, "", &after), KN_ERR_IO, "missing");
    files[0] = temp_path(".");
    expect_fail(kn_job_identity_build(&o, files, 1, "", &after), KN_ERR_IO, "reading");
    assert_null(after.options);
    expect_ok(kn_options_set(&other, "tile-windows", file, KN_FROM_COMMAND_LINE, "--tile-windows"));
    expect_ok(kn_job_identity_build(&other, NULL, 0, "", &before));
    put_file(file, "abe", 3);
    expect_ok(kn_job_identity_build(&other, NULL, 0, "", &after));
    assert_string_not_equal(before.fingerprint, after.fingerprint);
    kn_job_identity_free(&before);
    kn_job_identity_free(&after);
    assert_int_equal(unlink(file), 0);
    expect_fail(kn_job_identity_build(&other, NULL, 0, "", &after), KN_ERR_IO, "weights");
    kn_options_free(&other);
}

/* Every byte of the tensors and every place, changed, is noticed. */
static void damage_is_noticed(void **state)
{
    (void)state;
    const char *path = temp_path("damaged.safetensors");
    save_at(path, KN_SOLVER_UNIPC, 3, true);
    char good[65536];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t size = fread(good, 1, sizeof good, f);
    fclose(f);
    assert_true(size > 1000 && size < sizeof good);
    size_t header = 8 + (size_t)(unsigned char)good[0] + ((size_t)(unsigned char)good[1] << 8) + ((size_t)(unsigned char)good[2] << 16);
    for (size_t at = header; at < size; at += 1 + (size - header) / 40) {
        good[at] ^= 4;
        put_file(path, good, size);
        good[at] ^= 4;
        kn_solver *s = open_solver(KN_SOLVER_UNIPC);
        expect_fail(load(path, &id, s, true), KN_ERR_FORMAT, "damaged.safetensors", "is damaged");
        assert_int_equal(kn_solver_index(s), 0);
        kn_solver_close(&s);
    }
    static const char *const places[] = {"\"step\":\"3\"", "\"pass\":\"1\"", "\"segment\":\"2\"", "\"seed\":\"77\""};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char *found = good + 8; /* in the header */
        while (memcmp(found, places[i], strlen(places[i])) != 0) assert_true(++found < good + header);
        char *digit = found + strlen(places[i]) - 2;
        (*digit)++;
        put_file(path, good, size);
        (*digit)--;
        expect_fail(load(path, &id, NULL, false), KN_ERR_FORMAT, "is damaged");
    }
    put_file(path, good, size - 1);
    expect_fail(load(path, &id, NULL, false), KN_ERR_FORMAT, "truncated");
    kn_checkpoint_place place;
    expect_fail(kn_checkpoint_peek(path, &place), KN_ERR_FORMAT, "truncated");
    put_file(path, good, size);
    expect_ok(load(path, &id, NULL, false));
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    const char *path = temp_path("fit.safetensors");
    save_at(path, KN_SOLVER_UNIPC, 3, false);
    kn_solver *s = open_solver(KN_SOLVER_UNIPC);
    expect_fail(load(path, &id, s, true), KN_ERR_FORMAT, "tensor refresh", "found 0 bytes of nothing");
    static float larger[2 * N];
    kn_checkpoint c = {.segment = 2, .pass = 1, .latents = kn_tensor_make(larger, KN_F32, 4, (int64_t[]){4, 3, 2, 2}), .solver = s};
    expect_fail(kn_checkpoint_load(path, dev, &id, &c), KN_ERR_FORMAT, "tensor latents", "expected 192 bytes", "96 bytes of F32");
    kn_solver_close(&s);
    s = open_solver(KN_SOLVER_EULER); /* keeps no history */
    kn_status st = load(path, &id, s, false);
    assert_int_equal(st, KN_ERR_ARG);
    kn_solver_close(&s);
    kn_checkpoint_place place;
    expect_ok(kn_checkpoint_peek(temp_path("none.safetensors"), &place));
    assert_false(place.exists);
    expect_fail(load(temp_path("none.safetensors"), &id, NULL, false), KN_ERR_IO, "none.safetensors");
    static const float one = 1;
    const kn_st_tensor tensor = {.name = "latents", .dtype = KN_ST_F32, .rank = 1, .dim = {1}, .data = &one, .bytes = 4};
    static const char *const unlike[][12] = {
        {"seed", "1", "segment", "0", "pass", "0", NULL},
        {"seed", "1", "segment", "0", "step", "0", NULL},
        {"seed", "1", "step", "0", "pass", "0", NULL},
        {"segment", "0", "step", "0", "pass", "0", NULL},
        {"seed", "1.5", "segment", "0", "pass", "0", "step", "0", NULL},
        {NULL}};
    for (size_t i = 0; i < sizeof unlike / sizeof *unlike; i++) {
        expect_ok(kn_safetensors_write(path, &tensor, 1, unlike[i]));
        expect_fail(kn_checkpoint_peek(path, &place), KN_ERR_FORMAT, "expected a whole number", "not a checkpoint of Kinora");
    }
    const char *mine[] = {"job", id.fingerprint, NULL};
    expect_ok(kn_safetensors_write(path, &tensor, 1, mine));
    expect_fail(load(path, &id, NULL, false), KN_ERR_FORMAT, "no hash in it");
    expect_ok(kn_safetensors_write(path, &tensor, 1, unlike[0]));
    expect_fail(load(path, &id, NULL, false), KN_ERR_ARG, "another job");
    c = (kn_checkpoint){.latents = latents()};
    c.solver = s = open_solver(KN_SOLVER_EULER);
    expect_fail(kn_checkpoint_save(temp_path("no/folder/x"), dev, &id, 1, &c), KN_ERR_IO, "saving the checkpoint", "no/folder/x");
    kn_solver_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_goes_on_bit_for_bit),
        cmocka_unit_test(a_finished_pass_needs_no_solver),
        cmocka_unit_test(other_jobs_are_named_by_their_options),
        cmocka_unit_test(what_shapes_the_result_is_the_job),
        cmocka_unit_test(damage_is_noticed),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
