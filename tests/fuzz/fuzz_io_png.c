/* Any bytes as a PNG: read or refused; every pixel of what is read was written. */
#include "io/png.h"
#include "tests/fuzz/fuzz.h"

enum { MAX_PIXELS = 1 << 18 }; /* larger pictures only cost time here */

static uint64_t be32(const uint8_t *p)
{
    return (uint64_t)p[0] << 24 | (uint64_t)p[1] << 16 | (uint64_t)p[2] << 8 | p[3];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t background[3] = {10, 20, 30};
    if (size >= 24 && be32(data + 16) <= KN_PNG_MAX_PX && be32(data + 20) <= KN_PNG_MAX_PX &&
        be32(data + 16) * be32(data + 20) > MAX_PIXELS)
        return 0;
    for (int bits = 8; bits <= 16; bits += 8) {
        kn_picture p;
        kn_status st = kn_png_parse("fuzz.png", data, size, bits, background, &p);
        if (st == KN_OK) {
            size_t bytes = (size_t)p.width_px * (size_t)p.height_px * 3 * (size_t)bits / 8;
            unsigned sum = 0;
            require(p.width_px > 0 && p.height_px > 0 && p.channels == 3 && p.bits == bits);
            for (size_t i = 0; i < bytes; i++) sum += ((const uint8_t *)p.data)[i];
            fuzz_sink = sum;
        } else {
            require(!p.data);
            require_refused(st, KN_ERR_FORMAT, FUZZ_NOMEM ? NULL : "fuzz.png: ");
        }
        kn_picture_free(&p);
    }
    return 0;
}
