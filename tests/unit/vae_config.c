/* Reading config.json of a VAE and binding its tensors: what is accepted, what is refused and how.
 * */
#include "tests/expect.h"

#include "io/memory.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "vae/vae_stream.h"

static const char wan21[] = "{\"_class_name\": \"AutoencoderKLWan\", \"attn_scales\": [], "
                            "\"base_dim\": 96, \"dim_mult\": [1, 2, 4, 4],"
                            " \"dropout\": 0.0, \"num_res_blocks\": 2, \"temperal_downsample\": "
                            "[false, true, true], \"z_dim\": 16,"
                            " \"latents_mean\": [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, "
                            "0.9653, -0.1517, 1.5508, 0.4134, -0.0715,"
                            " 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921],"
                            " \"latents_std\": [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, "
                            "2.6052, 2.0743, 3.2687, 2.1526, 2.8652,"
                            " 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]}";

/* ---- config ---------------------------------------------------------------------------------- */

/* The Wan 2.1 config with `key` replaced (or added) by the JSON text `value`; NULL: without it. */
static kn_status read_changed(const char *key, const char *value, kn_vae_config *c)
{
    char text[4096], quoted[64];
    snprintf(text, sizeof text, "%s", wan21);
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    char *at = strstr(text, quoted);
    if (at) { /* a key under another name is a key that is not there */
        at[1] = '_';
        at[2] = '_';
    }
    if (value) {
        size_t n = strlen(text) - 1;
        snprintf(text + n, sizeof text - n, ", %s %s}", quoted, value);
    }
    put_file(temp_path("config.json"), text, strlen(text));
    return kn_vae_config_read(temp_path("config.json"), c);
}

static void wan21_is_read(void **state)
{
    (void)state;
    kn_vae_config c;
    expect_ok(read_changed("dropout", "0.0", &c));
    assert_int_equal(c.encoder_base, 96);
    assert_int_equal(c.decoder_base, 96);
    assert_int_equal(c.z, 16);
    assert_int_equal(c.levels, 4);
    assert_int_equal(c.mult[2], 4);
    assert_int_equal(c.resnets, 2);
    assert_false(c.temporal[0]);
    assert_true(c.temporal[1] && c.temporal[2]);
    assert_true(c.mean[7] == 1.5508 && c.std[15] == 1.9160);
    assert_int_equal(kn_vae_spatial_factor(&c), 8);
    assert_int_equal(kn_vae_temporal_factor(&c), 4);
    expect_ok(read_changed("decoder_base_dim", "24", &c));
    assert_int_equal(c.decoder_base, 24);
}

static void wan22_and_odd_networks_are_refused_by_name(void **state)
{
    (void)state;
    kn_vae_config c;
    expect_fail(read_changed("is_residual", "true", &c), KN_ERR_UNSUPPORTED, "is_residual",
                "Wan 2.2 VAE", "Kinora runs the Wan 2.1 VAE");
    expect_fail(read_changed("patch_size", "2", &c), KN_ERR_UNSUPPORTED, "patch_size",
                "Wan 2.2 VAE");
    expect_fail(read_changed("in_channels", "12", &c), KN_ERR_UNSUPPORTED, "in_channels",
                "expected 3", "12");
    expect_fail(read_changed("out_channels", "12", &c), KN_ERR_UNSUPPORTED, "out_channels");
    expect_fail(read_changed("attn_scales", "[0.5]", &c), KN_ERR_UNSUPPORTED, "attn_scales",
                "middle block");
    expect_ok(read_changed("patch_size", "null", &c));
    expect_ok(read_changed("is_residual", "false", &c));
}

static void wrong_values_are_named(void **state)
{
    (void)state;
    kn_vae_config c;
    expect_fail(read_changed("latents_mean", NULL, &c), KN_ERR_FORMAT, "latents_mean");
    expect_fail(read_changed("latents_std", "[1, 2]", &c), KN_ERR_FORMAT, "latents_std");
    expect_fail(read_changed("temperal_downsample", "[true]", &c), KN_ERR_MODEL,
                "temperal_downsample", "3");
    expect_fail(read_changed("temperal_downsample", "[1, 0, 1]", &c), KN_ERR_FORMAT,
                "temperal_downsample[0]");
    expect_fail(read_changed("dim_mult", "[1]", &c), KN_ERR_FORMAT, "dim_mult");
    expect_fail(read_changed("num_res_blocks", "0", &c), KN_ERR_FORMAT, "num_res_blocks");
    expect_fail(read_changed("dim_mult", "[1, 3, 1, 1], \"decoder_base_dim\": 7", &c), KN_ERR_MODEL,
                "dim_mult", "even");
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* Writes a checkpoint of Wan 2.1's size, all zero and sparse on disk, into the test's folder. In
 * line `skip` of the list of tensors the name is changed; in line `bend` the first dim. */
static void write_wan21(int skip, int bend)
{
    char line[256];
    kn_text header = {0};
    uint64_t end = 0;
    FILE *list = fopen(KN_TEST_DATA "/vae_wan21_tensors.tsv", "r");
    assert_non_null(list);
    for (int n = 0; fgets(line, sizeof line, list); n++) {
        char *rest = NULL, *name = strtok_r(line, "\t\n", &rest), *dim;
        uint64_t count = 1;
        expect_ok(kn_text_addf(&header, "%s\"%s%s\":{\"dtype\":\"BF16\",\"shape\":[", n ? "," : "{",
                               n == skip ? "x." : "", name));
        for (int axis = 0; (dim = strtok_r(NULL, "\t\n", &rest)); axis++) {
            uint64_t size = strtoull(dim, NULL, 10) + (n == bend && axis == 0);
            count *= size;
            expect_ok(kn_text_addf(&header, "%s%llu", axis ? "," : "", (unsigned long long)size));
        }
        expect_ok(kn_text_addf(&header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)end,
                               (unsigned long long)(end + 2 * count)));
        end += 2 * count;
    }
    fclose(list);
    expect_ok(kn_text_add(&header, "}"));
    FILE *f = fopen(temp_path("diffusion_pytorch_model.safetensors"), "wb");
    assert_non_null(f);
    uint64_t size = header.size;
    assert_int_equal(fwrite(&size, 8, 1, f), 1);
    assert_int_equal(fwrite(header.data, 1, header.size, f), header.size);
    fflush(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)(8 + header.size + end)), 0);
    fclose(f);
    kn_free(header.data);
    put_file(temp_path("config.json"), wan21, strlen(wan21));
}

static kn_dev *measure_device(kn_dev_kind of)
{
    kn_dev *d;
    expect_ok(kn_dev_open(&(kn_dev_params){.kind = KN_DEV_MEASURE, .measured = of}, &d));
    return d;
}

static void all_194_tensors_of_wan21_are_bound(void **state)
{
    (void)state;
    kn_dev *d = measure_device(KN_DEV_REF);
    kn_vae *m;
    write_wan21(-1, -1);
    expect_ok(kn_vae_open(d, temp_folder, true, true, &m));
    /* 126,892,531 parameters, of which the vectors are held as f32 */
    size_t both = kn_dev_bytes_now(d);
    assert_true(both >= 2 * 126892531u && both < 2 * 126892531u + 200000);
    kn_vae_close(&m);
    assert_int_equal(kn_dev_bytes_now(d), 0);
    expect_ok(kn_vae_open(d, temp_folder, false, true, &m));
    assert_in_range(kn_dev_bytes_now(d), both / 2, both * 3 / 4);
    kn_vae_close(&m);
    expect_ok(kn_vae_open(d, temp_folder, true, false, &m));
    assert_in_range(kn_dev_bytes_now(d), both / 4, both / 2);
    kn_vae_close(&m);
    kn_dev_close(&d);
}

static void tensors_that_do_not_fit_are_named(void **state)
{
    (void)state;
    kn_dev *d = measure_device(KN_DEV_CPU);
    kn_vae *m;
    write_wan21(1, -1);
    expect_fail(kn_vae_open(d, temp_folder, true, true, &m), KN_ERR_MODEL, "decoder.conv_in.weight",
                "missing");
    assert_null(m);
    write_wan21(-1, 1);
    expect_fail(kn_vae_open(d, temp_folder, true, true, &m), KN_ERR_MODEL, "decoder.conv_in.weight",
                "[384, 16, 3, 3, 3]", "[385, 16, 3, 3, 3]");
    assert_int_equal(kn_dev_bytes_now(d), 0);
    /* a side that is not opened is not looked at */
    expect_ok(kn_vae_open(d, temp_folder, true, false, &m));
    kn_vae_close(&m);
    kn_dev_close(&d);
}

/* ---- memory of real sizes -------------------------------------------------------------------- */

static kn_vae_stream_plan plan_for(kn_vae *m, kn_vae_side side, int64_t H, int64_t W, size_t limit)
{
    kn_vae_stream_plan plan;
    kn_vae_stream_params p = {.height_lat = H, .width_lat = W, .memory_bytes = limit};
    expect_ok(kn_vae_stream_plan_build(m, side, &p, &plan));
    return plan;
}

static void memory_of_1080p_and_4k_is_planned(void **state)
{
    (void)state;
    kn_dev *d = measure_device(KN_DEV_CUDA);
    kn_vae *m;
    const size_t GB = 1000000000;
    write_wan21(-1, -1);
    expect_ok(kn_vae_open(d, temp_folder, true, true, &m));
    for (int side = 0; side < KN_VAE_SIDES; side++) {
        kn_vae_stream_plan free_plan = plan_for(m, side, 136, 240, 0);
        assert_int_equal(free_plan.tiling.rows * free_plan.tiling.cols, 1);
        kn_vae_stream_plan tight = plan_for(m, side, 136, 240, 6 * GB);
        print_message(
            "1080p: %.1f GB; with 6 GB %d x %d tiles over %d levels: %.1f GB, host %.1f GB\n",
            (double)free_plan.device_bytes * 1e-9, tight.tiling.rows, tight.tiling.cols,
            tight.tiling.split, (double)tight.device_bytes * 1e-9, (double)tight.host_bytes * 1e-9);
        assert_true(tight.tiling.rows * tight.tiling.cols > 1);
        assert_true(tight.device_bytes <= 6 * GB && tight.host_bytes > free_plan.host_bytes);
        /* at 4K a tensor would pass 2^31 elements: cut even without a limit */
        kn_vae_stream_plan large = plan_for(m, side, 270, 480, 0);
        print_message("4K: %d x %d tiles over %d levels: %.1f GB, host %.1f GB\n",
                      large.tiling.rows, large.tiling.cols, large.tiling.split,
                      (double)large.device_bytes * 1e-9, (double)large.host_bytes * 1e-9);
        assert_true(large.tiling.rows * large.tiling.cols > 1);
    }
    kn_vae_close(&m);
    kn_dev_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wan21_is_read),
        cmocka_unit_test(wan22_and_odd_networks_are_refused_by_name),
        cmocka_unit_test(wrong_values_are_named),
        cmocka_unit_test(all_194_tensors_of_wan21_are_bound),
        cmocka_unit_test(tensors_that_do_not_fit_are_named),
        cmocka_unit_test(memory_of_1080p_and_4k_is_planned),
    };
    return cmocka_run_group_tests(tests, temp_folder_setup, temp_folder_teardown);
}
