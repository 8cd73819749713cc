#include "io/sha256.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2). */
static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void take_block(kn_sha256 *s, const unsigned char *p)
{
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(v, s->h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t a = v[0], e = v[4];
        uint32_t t1 = v[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + k[i] + w[i];
        uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) s->h[i] += v[i];
}

void kn_sha256_init(kn_sha256 *s)
{
    *s = (kn_sha256){.h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void kn_sha256_add(kn_sha256 *s, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    size_t used = (size_t)(s->bytes % 64);
    s->bytes += bytes;
    while (bytes > 0) {
        size_t n = 64 - used < bytes ? 64 - used : bytes;
        if (n == 64) {
            take_block(s, p);
        } else {
            memcpy(s->block + used, p, n);
            if (used + n == 64) take_block(s, s->block);
        }
        used = (used + n) % 64;
        p += n;
        bytes -= n;
    }
}

void kn_sha256_text(kn_sha256 *s, char out[KN_SHA256_TEXT])
{
    unsigned char end[72] = {0x80};
    uint64_t bits = s->bytes * 8;
    size_t pad = 1 + (size_t)((119 - s->bytes % 64) % 64);
    for (int i = 0; i < 8; i++) end[pad + (size_t)i] = (unsigned char)(bits >> (56 - 8 * i));
    kn_sha256_add(s, end, pad + 8);
    for (int i = 0; i < 8; i++) snprintf(out + 8 * i, 9, "%08x", (unsigned)s->h[i]);
}

kn_status kn_sha256_file(const char *path, char out[KN_SHA256_TEXT])
{
    unsigned char buf[65536];
    kn_sha256 s;
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f) return kn_fail(KN_ERR_IO, "%s: %s", path, strerror(errno));
    kn_sha256_init(&s);
    while ((n = fread(buf, 1, sizeof buf, f)) > 0) kn_sha256_add(&s, buf, n);
    kn_status st = ferror(f) ? kn_fail(KN_ERR_IO, "%s: reading: %s", path, strerror(errno)) : KN_OK;
    fclose(f);
    if (st == KN_OK) kn_sha256_text(&s, out);
    return st;
}
