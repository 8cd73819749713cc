/* Any bytes as a safetensors file: opened or refused; what is opened is inside the file. */
#include "io/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void check(const kn_safetensors *s, size_t size)
{
    size_t total = 0;
    for (int i = 0; i < kn_safetensors_count(s); i++) {
        const kn_st_tensor *t = kn_safetensors_at(s, i);
        int index = -1;
        require(kn_safetensors_find(s, t->name, &index) == t && index == i);
        require(t->rank >= 0 && t->rank <= KN_ST_MAX_RANK);
        if (kn_st_dtype_size(t->dtype)) {
            size_t bytes = kn_st_dtype_size(t->dtype);
            for (int d = 0; d < t->rank; d++) bytes *= (size_t)t->dim[d];
            require(bytes == t->bytes);
        }
        unsigned char sum = 0;
        for (size_t k = 0; k < t->bytes; k++) sum ^= ((const unsigned char *)t->data)[k];
        fuzz_sink = sum;
        total += t->bytes;
    }
    require(total < size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kn_safetensors *s;
    kn_status st = kn_safetensors_parse("fuzz.safetensors", data, size, &s);
    if (st == KN_OK) {
        check(s, size);
        fuzz_sink = kn_safetensors_metadata(s, "format") != NULL;
    } else {
        require(s == NULL);
        require_refused(st, KN_ERR_FORMAT, "fuzz.safetensors: ");
    }
    kn_safetensors_close(&s);
    return 0;
}
