/* PSNR and SSIM of `kinora compare` are scikit-image's. Data: tools/golden_compare.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "io/memory.h"
#include "io/safetensors.h"
#include "pipeline/compare.h"

static kn_safetensors *data;

static int setup(void **state)
{
    (void)state;
    return kn_safetensors_open(KN_TEST_DATA "/pipeline_compare.safetensors", NULL, &data) != KN_OK;
}

static int teardown(void **state)
{
    (void)state;
    kn_safetensors_close(&data);
    return 0;
}

/* Tensor NAME.part as floats in [0,1]; free with kn_free. */
static float *frame(const char *name, const char *part, int *width, int *height)
{
    char full[80];
    void *p;
    snprintf(full, sizeof full, "%s.%s", name, part);
    const kn_st_tensor *t = kn_safetensors_find(data, full, NULL);
    assert_non_null(t);
    assert_int_equal(t->dim[2], 3);
    assert_int_equal(kn_alloc_array(t->bytes, sizeof(float), &p), KN_OK);
    for (size_t i = 0; i < t->bytes; i++) ((float *)p)[i] = (float)((const uint8_t *)t->data)[i] / 255.0F;
    *height = (int)t->dim[0];
    *width = (int)t->dim[1];
    return p;
}

static void both_numbers_are_scikit_images(void **state)
{
    (void)state;
    int seen = 0;
    for (int i = 0; i < kn_safetensors_count(data); i++) {
        const kn_st_tensor *t = kn_safetensors_at(data, i);
        char name[64];
        double want[2], ssim;
        int width, height;
        size_t n = strlen(t->name);
        if (n < 5 || strcmp(t->name + n - 5, ".want")) continue;
        snprintf(name, sizeof name, "%.*s", (int)(n - 5), t->name);
        assert_int_equal(t->bytes, sizeof want);
        memcpy(want, t->data, sizeof want);
        float *a = frame(name, "a", &width, &height), *b = frame(name, "b", &width, &height);
        double psnr = kn_compare_psnr(a, b, width, height);
        assert_int_equal(kn_compare_ssim(a, b, width, height, &ssim), KN_OK);
        print_message("  %-22s %.6f dB (%+.1e), SSIM %.7f (%+.1e)\n", name, psnr, psnr - want[0], ssim, ssim - want[1]);
        /* Samples and the moments of rows are floats here, doubles there: 6e-8 of each. A PSNR of 86 dB moves by 5e-7 dB,
         * SSIM, whose variances are differences of such moments over no less than C2 = 9e-4, by 2e-7; ten times that. */
        assert_true(fabs(psnr - want[0]) < 5e-6);
        assert_true(fabs(ssim - want[1]) < 2e-6);
        kn_free(a);
        kn_free(b);
        seen++;
    }
    assert_int_equal(seen, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(both_numbers_are_scikit_images)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
