/* kinora compare A.safetensors B.safetensors: latents, embeddings and debug dumps, tensor by tensor. */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "compute/tensor.h"
#include "io/safetensors.h"
#include "pipeline/columns.h"
#include "pipeline/compare.h"

bool kn_compare_is_tensors(const char *path)
{
    static const char end[] = ".safetensors";
    size_t n = strlen(path), e = sizeof end - 1;
    return n > e && !strcasecmp(path + n - e, end);
}

static bool same_shape(const kn_st_tensor *a, const kn_st_tensor *b)
{
    return a->rank == b->rank && !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

static float value_at(const kn_st_tensor *t, size_t i)
{
    float v;
    memcpy(&v, (const char *)t->data + 4 * i, sizeof v); /* a mapped file may be unaligned */
    return v;
}

/* relative L2 = |a - b| / |a|; both sums in double. A NaN shows as one. */
static void print_difference(const char *shape, const kn_st_tensor *a, const kn_st_tensor *b)
{
    double error = 0, norm = 0, most = 0;
    int64_t most_at = 0;
    for (size_t i = 0; i < a->bytes / 4; i++) {
        double u = (double)value_at(a, i), d = u - (double)value_at(b, i);
        error += d * d;
        norm += u * u;
        if (fabs(d) > most) most = fabs(d), most_at = (int64_t)i;
    }
    printf(" %s: ", shape);
    if (error == 0) {
        printf("equal\n");
        return;
    }
    printf("relative L2 %.3e, largest difference %.3e at [", sqrt(error / norm), most);
    int64_t step = 1;
    for (int k = 0; k < a->rank; k++) step *= a->dim[k];
    for (int k = 0; k < a->rank; k++) {
        step /= a->dim[k];
        printf("%s%" PRId64, k ? ", " : "", most_at / step % a->dim[k]);
    }
    printf("]\n");
}

static void print_pair(const kn_st_tensor *a, const kn_st_tensor *b)
{
    char text[2][KN_SHAPE_TEXT];
    const char *shape[2]; /* without the dtype */
    const kn_st_tensor *both[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        kn_tensor t = kn_tensor_make(NULL, KN_F32, both[i]->rank, both[i]->dim);
        shape[i] = strchr(kn_tensor_text(&t, text[i]), '[');
        if (!shape[i]) shape[i] = "[]"; /* a single number */
    }
    kn_print_plain(stdout, a->name); /* from a file: no control characters */
    if (!same_shape(a, b))
        printf(": %s and %s\n", shape[0], shape[1]);
    else if (a->dtype != KN_ST_F32 || b->dtype != KN_ST_F32)
        printf(": %s and %s: only F32 is compared\n", a->dtype_name, b->dtype_name);
    else
        print_difference(shape[0], a, b);
}

static void print_only(const char *name, const char *path)
{
    kn_print_plain(stdout, name);
    printf(": only in %s\n", path);
}

kn_status kn_compare_tensors(const char *a_path, const char *b_path)
{
    kn_safetensors *a = NULL, *b = NULL;
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_safetensors_open(a_path, NULL, &a));
    KN_TRY_GOTO(kn_safetensors_open(b_path, NULL, &b));
    for (int i = 0; i < kn_safetensors_count(a); i++) {
        const kn_st_tensor *t = kn_safetensors_at(a, i), *u = kn_safetensors_find(b, t->name, NULL);
        if (u)
            print_pair(t, u);
        else
            print_only(t->name, a_path);
    }
    for (int i = 0; i < kn_safetensors_count(b); i++) {
        const char *name = kn_safetensors_at(b, i)->name;
        if (!kn_safetensors_find(a, name, NULL)) print_only(name, b_path);
    }
done:
    kn_safetensors_close(&a);
    kn_safetensors_close(&b);
    return st;
}
