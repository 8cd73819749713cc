/* tests/unit/compute_weights.c - binding: values of every dtype, unaligned data, and each
 * refusal. */
#include "compute/weights.h"
#include "tests/expect.h"

static kn_dev *dev;

static int open_all(void **state)
{
    kn_dev_params p = {.kind = KN_DEV_CPU, .threads = 1};
    return temp_folder_setup(state) != 0 || kn_dev_open(&p, &dev) != KN_OK ? -1 : 0;
}

static int close_all(void **state)
{
    kn_dev_close(&dev);
    return temp_folder_teardown(state);
}

/* A checkpoint with one tensor of each kind of trouble. */
static kn_safetensors *open_file(void)
{
    static const float f32[6] = {1, 2, 3, 4, 5, 6};
    static const uint16_t bf16[2] = {0x3f80, 0xc000}, f16[2] = {0x3c00, 0xc000};
    static const int64_t i64[2] = {1, 2};
    static const unsigned char f8[2] = {1, 2};
    static const kn_st_tensor tensors[] = {
        {"blocks.0.q.weight", KN_ST_F32, NULL, 2, {2, 3}, f32, sizeof f32},
        {"blocks.0.q.bias", KN_ST_BF16, NULL, 1, {2}, bf16, sizeof bf16},
        {"blocks.0.norm", KN_ST_F16, NULL, 1, {2}, f16, sizeof f16},
        {"counts", KN_ST_I64, NULL, 1, {2}, i64, sizeof i64},
        {"tiny", KN_ST_OTHER, "F8_E4M3", 1, {2}, f8, sizeof f8},
    };
    const char *path = temp_path("weights.safetensors");
    kn_safetensors *file;
    expect_ok(kn_safetensors_write(path, tensors, 5, NULL));
    expect_ok(kn_safetensors_open(path, NULL, &file));
    return file;
}

static void binds_every_dtype(void **state)
{
    (void)state;
    kn_safetensors *file = open_file();
    kn_binder b;
    kn_weight w, bias, norm;
    size_t before = kn_dev_bytes_now(dev);
    expect_ok(kn_binder_open(dev, file, &b));
    expect_ok(kn_bind(&b, &w, KN_WEIGHT_LINEAR, 2, (int64_t[]){2, 3}, "blocks.%d.q.weight", 0));
    expect_ok(kn_bind(&b, &bias, KN_WEIGHT_VECTOR, 1, (int64_t[]){2}, "blocks.%d.q.bias", 0));
    expect_ok(kn_bind(&b, &norm, KN_WEIGHT_VECTOR, 0, NULL, "blocks.0.norm"));
    assert_int_equal(b.bytes, w.bytes + bias.bytes + norm.bytes);
    assert_int_equal(kn_dev_bytes_now(dev) - before, b.bytes);
    const float *v = bias.t.data, *n = norm.t.data;
    assert_int_equal(bias.t.dtype, KN_F32);
    assert_true(v[0] == 1 && v[1] == -2 && n[0] == 1 && n[1] == -2);
    expect_fail(kn_binder_finish(&b), KN_ERR_MODEL, "weights.safetensors", "2 tensors", "counts",
                "tiny");
    kn_binder_close(&b);
    kn_safetensors_close(&file); /* weights do not need the file any more */
    float x[3] = {1, 1, 1}, out[2];
    kn_tensor tx = kn_tensor_of(x, KN_F32, 1, 3), to = kn_tensor_of(out, KN_F32, 1, 2);
    expect_ok(kn_linear(dev, &tx, &w, &bias.t, KN_ACT_NONE, &to));
    assert_true(out[0] == 7 && out[1] == 13);
    kn_weight_close(dev, &w);
    kn_weight_close(dev, &bias);
    kn_weight_close(dev, &norm);
    assert_int_equal(kn_dev_bytes_now(dev), before);
}

static void names_what_does_not_fit(void **state)
{
    (void)state;
    kn_safetensors *file = open_file();
    kn_binder b;
    kn_weight w;
    expect_ok(kn_binder_open(dev, file, &b));
    expect_fail(
        kn_bind(&b, &w, KN_WEIGHT_LINEAR, 2, (int64_t[]){2, 4}, "blocks.0.q.weight"), KN_ERR_MODEL,
        "weights.safetensors: tensor blocks.0.q.weight: expected shape [2, 4], found [2, 3]");
    assert_int_equal(w.t.rank, 0);
    expect_fail(kn_bind(&b, &w, KN_WEIGHT_VECTOR, 1, (int64_t[]){6}, "blocks.0.q.weight"),
                KN_ERR_MODEL, "expected shape [6], found [2, 3]");
    expect_fail(kn_bind(&b, &w, KN_WEIGHT_LINEAR, 2, (int64_t[]){2, 3}, "block.%d.q.weight", 0),
                KN_ERR_MODEL, "tensor block.0.q.weight is missing", "nearest", "blocks.0.q.weight");
    expect_fail(kn_bind(&b, &w, KN_WEIGHT_VECTOR, 1, (int64_t[]){2}, "tiny"), KN_ERR_MODEL,
                "tensor tiny", "F32, BF16 or F16 expected", "F8_E4M3");
    expect_fail(kn_bind(&b, &w, KN_WEIGHT_VECTOR, 1, (int64_t[]){2}, "counts"), KN_ERR_MODEL,
                "I64");
    char longest[400];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    expect_fail(kn_bind(&b, &w, KN_WEIGHT_VECTOR, 0, NULL, "%s", longest), KN_ERR_INTERNAL,
                "too long");
    kn_binder_close(&b);
    kn_safetensors_close(&file);
}

/* A header of an odd number of bytes puts f32 data at an odd place of the file. */
static void unaligned_data(void **state)
{
    (void)state;
    static const float values[2] = {1.5f, -8.25f};
    const char *header = "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    for (int pad = 0; pad < 4; pad++) {
        const char *path = temp_path("odd.safetensors");
        uint64_t size = strlen(header) + (uint64_t)pad;
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        fwrite(&size, sizeof size, 1, f); /* little-endian, as every machine this runs on */
        fprintf(f, "%s%*s", header, pad, "");
        fwrite(values, sizeof values, 1, f);
        assert_int_equal(fclose(f), 0);
        kn_safetensors *file;
        kn_binder b;
        kn_weight w;
        expect_ok(kn_safetensors_open(path, NULL, &file));
        expect_ok(kn_binder_open(dev, file, &b));
        expect_ok(kn_bind(&b, &w, KN_WEIGHT_VECTOR, 1, (int64_t[]){2}, "w"));
        expect_ok(kn_binder_finish(&b));
        assert_memory_equal(w.t.data, values, sizeof values);
        kn_weight_close(dev, &w);
        kn_binder_close(&b);
        kn_safetensors_close(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(binds_every_dtype),
        cmocka_unit_test(names_what_does_not_fit),
        cmocka_unit_test(unaligned_data),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
