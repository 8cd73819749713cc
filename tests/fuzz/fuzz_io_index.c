/* Any bytes as the index of a sharded checkpoint, beside two small shards: opened or refused; every
 * tensor of what is opened lies in a shard of the index's own folder. */
#include "io/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void write_shards(void)
{
    static const float values[4] = {1, 2, 3, 4};
    static const kn_st_tensor t[3] = {{"x", KN_ST_F32, NULL, 1, {4}, values, 16},
                                      {"y", KN_ST_F32, NULL, 2, {1, 2}, values, 8},
                                      {"z", KN_ST_F32, NULL, 1, {1}, values, 4}};
    static bool done;
    if (done) return;
    const char *b = fuzz_path("b.safetensors"), *a = fuzz_path("a.safetensors");
    kn_status st = kn_safetensors_write(a, t, 2, NULL);
    if (st == KN_OK) st = kn_safetensors_write(b, t + 2, 1, NULL);
    done = went_well(st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kn_safetensors *s;
    write_shards();
    const char *path = fuzz_file("in.safetensors.index.json", data, size);
    kn_status st = kn_safetensors_open(path, NULL, &s);
    if (st == KN_OK) {
        unsigned char sum = 0;
        require(kn_safetensors_count(s) == 1 || kn_safetensors_count(s) == 2 || kn_safetensors_count(s) == 3);
        for (int i = 0; i < kn_safetensors_count(s); i++) {
            const kn_st_tensor *t = kn_safetensors_at(s, i);
            for (size_t k = 0; k < t->bytes; k++) sum ^= ((const unsigned char *)t->data)[k];
        }
        fuzz_sink = sum;
        require(!strncmp(kn_safetensors_path(s), fuzz_dir, strlen(fuzz_dir)));
        require(!strchr(kn_safetensors_path(s) + strlen(fuzz_dir) + 1, '/'));
    } else {
        require(s == NULL);
        require_blamed(st);
    }
    kn_safetensors_close(&s);
    return 0;
}
