#include "io/png.h"

#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "io/atomic_file.h"
#include "io/log.h"
#include "io/memory.h"
#include "io/text.h"

enum {
    MAX_CHUNK_BYTES = 8 << 20,
    MAX_CHUNKS = 1000,
    /* Deflate packs at most 1032 bytes into one (zlib technical details), here rounded up. */
    MAX_RATIO = 1100,
    MAX_TEXT_KEY = 79
};

/* libpng reports errors by longjmp. Everything that must survive the jump stands in this struct,
 * which the function that calls setjmp knows by address only: no local variable changes after
 * setjmp. */
typedef struct coder {
    const char *name;
    png_structp png;
    png_infop info;
    kn_status st;
    int no_memory; /* an allocation of libpng failed: its error is then about that */
    /* reading */
    const unsigned char *data;
    size_t size, at;
    int bits;
    unsigned background[3]; /* in units of `bits` */
    unsigned char *stage;   /* RGBA rows before blending: all rows when interlaced, else one */
    kn_picture out;
    /* writing */
    kn_atomic_file *file; /* one of the two */
    kn_text *memory;
    const kn_picture *in;
    png_text *texts;
    int text_count;
} coder;

static void on_error(png_structp png, png_const_charp message)
{
    coder *c = png_get_error_ptr(png);
    if (c->no_memory)
        c->st = kn_fail(KN_ERR_NOMEM, "%s: out of memory in libpng: %s", c->name, message);
    else if (c->st == KN_OK) /* else a callback has failed and said why */
        c->st = kn_fail(KN_ERR_FORMAT, "%s: libpng: %s", c->name, message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    const coder *c = png_get_error_ptr(png);
    kn_log(KN_LOG_DEBUG, "png", "%s: %s", c->name, message);
}

static png_voidp on_malloc(png_structp png, png_alloc_size_t bytes)
{
    void *p;
    coder *c = png_get_mem_ptr(png);
    if (kn_alloc(bytes, &p) != KN_OK) c->no_memory = 1;
    return p;
}

static void on_free(png_structp png, png_voidp p)
{
    (void)png;
    kn_free(p);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void on_read(png_structp png, png_bytep to, size_t bytes)
{
    coder *c = png_get_io_ptr(png);
    if (bytes > c->size - c->at) {
        c->st = kn_fail(KN_ERR_FORMAT,
                        "%s: PNG ends early (truncated?): expected at least %zu bytes, "
                        "found %zu",
                        c->name, c->at + bytes, c->size);
        png_error(png, "truncated");
    }
    memcpy(to, c->data + c->at, bytes);
    c->at += bytes;
}

static unsigned be32(const unsigned char *p)
{
    return (unsigned)p[0] << 24 | (unsigned)p[1] << 16 | (unsigned)p[2] << 8 | p[3];
}

/* What can be said before libpng is asked: signature and size. IHDR is always first: 8 bytes
 * signature, 4 length, 4 "IHDR", 4 width, 4 height, 1 bit depth, 1 colour type. */
static kn_status check_start(const coder *c)
{
    static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    if (c->size < 33 || memcmp(c->data, signature, 8) != 0)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: expected a PNG picture, found another kind of file (%zu bytes)",
                       c->name, c->size);
    unsigned width = be32(c->data + 16), height = be32(c->data + 20);
    if (width > KN_PNG_MAX_PX || height > KN_PNG_MAX_PX)
        return kn_fail(KN_ERR_FORMAT, "%s: expected a picture of at most %d x %d px, found %u x %u",
                       c->name, KN_PNG_MAX_PX, KN_PNG_MAX_PX, width, height);
    if ((unsigned long long)width * height > KN_PNG_MAX_PIXELS)
        return kn_fail(KN_ERR_FORMAT, "%s: expected a picture of at most %d pixels, found %u x %u px", c->name,
                       KN_PNG_MAX_PIXELS, width, height);
    /* Memory is asked for by these numbers: they must be possible for a file of this size. */
    static const unsigned char per_pixel[8] = {1, 0, 3, 1,
                                               2, 0, 4, 0}; /* samples, by colour type */
    unsigned long long bits =
        (unsigned long long)width * height * c->data[24] * per_pixel[c->data[25] & 7];
    if (bits / 8 / MAX_RATIO > c->size)
        return kn_fail(KN_ERR_FORMAT,
                       "%s: expected at least %llu bytes for %u x %u px, found %zu (truncated?)",
                       c->name, bits / 8 / MAX_RATIO, width, height, c->size);
    return KN_OK;
}

/* Transformations so that rows come as RGB or RGBA of c->bits in the host's byte order. */
static void set_transforms(const coder *c)
{
    png_structp png = c->png;
    int depth = png_get_bit_depth(png, c->info), type = png_get_color_type(png, c->info);
    png_set_expand(png); /* palette to RGB, grey below 8 bits to 8, tRNS to alpha */
    if (c->bits == 16 && depth < 16) png_set_expand_16(png);
    if (c->bits == 8 && depth == 16) png_set_scale_16(png);
    if (!(type & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
    const uint16_t one = 1;
    if (c->bits == 16 && *(const uint8_t *)&one) png_set_swap(png);
}

static unsigned blend(unsigned value, unsigned alpha, unsigned under, unsigned max)
{
    uint64_t sum = (uint64_t)value * alpha + (uint64_t)under * (max - alpha);
    return (unsigned)((sum + max / 2) / max);
}

/* RGBA row `from` over the background into RGB row `to`. */
static void blend_row(const coder *c, const unsigned char *from, unsigned char *to)
{
    for (int x = 0; x < c->out.width_px; x++) {
        for (int k = 0; k < 3; k++) {
            if (c->bits == 8) {
                to[3 * x + k] =
                    (unsigned char)blend(from[4 * x + k], from[4 * x + 3], c->background[k], 255);
            } else {
                const uint16_t *f = (const uint16_t *)from + 4 * x;
                ((uint16_t *)to)[3 * x + k] = (uint16_t)blend(f[k], f[3], c->background[k], 65535);
            }
        }
    }
}

/* An allocation inside the setjmp region; jumps out on failure. */
static void *alloc_or_jump(coder *c, size_t bytes)
{
    void *p;
    c->st = kn_alloc(bytes, &p);
    if (c->st != KN_OK) png_error(c->png, "no memory");
    return p;
}

static void decode(coder *c)
{
    /* Text and colour profiles are of no use here: do not spend memory or trust on them. */
    static const png_byte skip[] = "tEXt\0zTXt\0iTXt\0iCCP\0eXIf\0sPLT\0hIST";
    png_structp png = c->png;
    png_set_read_fn(png, c, on_read);
    png_set_user_limits(png, KN_PNG_MAX_PX, KN_PNG_MAX_PX);
    png_set_chunk_malloc_max(png, MAX_CHUNK_BYTES);
    png_set_chunk_cache_max(png, MAX_CHUNKS);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, skip, (int)(sizeof skip / 5));
    png_read_info(png, c->info);
    set_transforms(c);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, c->info);
    int width = (int)png_get_image_width(png, c->info),
        height = (int)png_get_image_height(png, c->info);
    int channels = png_get_channels(png, c->info);
    size_t row_bytes = png_get_rowbytes(png, c->info), out_bytes = (size_t)width * 3 * c->bits / 8;
    if (row_bytes != out_bytes / 3 * (size_t)channels || (channels != 3 && channels != 4))
        png_error(png, "unexpected row layout");
    /* Not zeroed: a file that ends before all is written is an error. */
    c->out = (kn_picture){width, height, 3, c->bits, NULL};
    c->out.data = alloc_or_jump(c, out_bytes * (size_t)height);
    if (channels == 4) {
        size_t rows = passes > 1 ? (size_t)height : 1;
        c->stage = alloc_or_jump(c, row_bytes * rows);
    }
    for (int pass = 0; pass < passes; pass++) {
        for (int y = 0; y < height; y++) {
            unsigned char *to = (unsigned char *)c->out.data + (size_t)y * out_bytes;
            if (!c->stage) {
                png_read_row(png, to, NULL);
                continue;
            }
            unsigned char *from = c->stage + (passes > 1 ? (size_t)y * row_bytes : 0);
            png_read_row(png, from, NULL);
            if (pass == passes - 1) blend_row(c, from, to);
        }
    }
    png_read_end(png, NULL);
}

static kn_status decode_or_fail(coder *c)
{
    if (setjmp(png_jmpbuf(c->png))) return c->st;
    decode(c);
    return KN_OK;
}

kn_status kn_png_parse(const char *name, const void *data, size_t size, int bits,
                       const uint8_t background[3], kn_picture *out)
{
    kn_status st = KN_OK;
    coder c = {.name = name, .data = data, .size = size, .bits = bits};
    memset(out, 0, sizeof *out);
    if (bits != 8 && bits != 16)
        return kn_fail(KN_ERR_ARG, "%s: expected 8 or 16 bits per channel, found %d", name, bits);
    for (int k = 0; background && k < 3; k++)
        c.background[k] = bits == 8 ? background[k] : background[k] * 257u;
    KN_TRY(check_start(&c));
    c.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &c, on_error, on_warning, &c, on_malloc,
                                     on_free);
    if (c.png) c.info = png_create_info_struct(c.png);
    if (!c.info) {
        st = kn_fail(KN_ERR_NOMEM, "%s: out of memory: libpng could not start", name);
        goto done;
    }
    KN_TRY_GOTO(decode_or_fail(&c));
    *out = c.out;
    c.out.data = NULL;
done:
    png_destroy_read_struct(&c.png, &c.info, NULL);
    kn_free(c.stage);
    kn_free(c.out.data);
    return st;
}

kn_status kn_png_read(const char *path, int bits, const uint8_t background[3], kn_picture *out)
{
    char *data;
    size_t size;
    memset(out, 0, sizeof *out);
    /* 2^27 pixels RGBA of 16 bits, stored without compression, are 1 GiB and some headers. */
    KN_TRY(kn_file_read(path, (size_t)1100 << 20, &data, &size));
    kn_status st = kn_png_parse(path, data, size, bits, background, out);
    kn_free(data);
    return st;
}

void kn_picture_free(kn_picture *p)
{
    if (!p) return;
    kn_free(p->data);
    memset(p, 0, sizeof *p);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void on_write(png_structp png, png_bytep from, size_t bytes)
{
    coder *c = png_get_io_ptr(png);
    c->st = c->memory ? kn_text_add_bytes(c->memory, from, bytes) : kn_atomic_write(c->file, from, bytes);
    if (c->st != KN_OK) png_error(png, "write failed");
}

static void on_flush(png_structp png)
{
    (void)png; /* kn_atomic_commit flushes */
}

static int is_key(const char *key)
{
    size_t n = strlen(key);
    if (n < 1 || n > MAX_TEXT_KEY || key[0] == ' ' || key[n - 1] == ' ' || strstr(key, "  "))
        return 0;
    for (size_t i = 0; i < n; i++)
        if (key[i] < 0x20 || key[i] > 0x7e) return 0;
    return 1;
}

/* Printable ASCII and line ends: what a tEXt chunk (Latin-1) and UTF-8 have in common. */
static int is_plain(const char *value)
{
    for (; *value; value++)
        if ((*value < 0x20 || *value > 0x7e) && *value != '\n') return 0;
    return 1;
}

static kn_status collect_texts(coder *c, const char *const *text)
{
    void *p;
    size_t count = 0;
    while (text && text[2 * count]) count++;
    if (count > 1000)
        return kn_fail(KN_ERR_ARG, "%s: expected at most 1000 texts, found %zu", c->name, count);
    KN_TRY(kn_alloc_array(count, sizeof(png_text), &p));
    c->texts = p;
    c->text_count = (int)count;
    for (size_t i = 0; i < count; i++) {
        const char *key = text[2 * i], *value = text[2 * i + 1];
        if (!is_key(key))
            return kn_fail(
                KN_ERR_ARG,
                "%s: text key: expected 1 to %d printable ASCII characters without extra "
                "blanks, found '%.100s'",
                c->name, MAX_TEXT_KEY, key);
        if (!value || !kn_text_is_utf8(value))
            return kn_fail(KN_ERR_ARG, "%s: text '%s': expected a value in UTF-8", c->name, key);
        /* libpng copies both and does not change them. */
        c->texts[i].key = (char *)key;
        c->texts[i].text = (char *)value;
        c->texts[i].compression =
            is_plain(value) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    }
    return KN_OK;
}

static void encode(coder *c)
{
    const kn_picture *in = c->in;
    png_structp png = c->png;
    size_t row_bytes = (size_t)in->width_px * (size_t)in->channels * (size_t)in->bits / 8;
    png_set_write_fn(png, c, on_write, on_flush);
    png_set_user_limits(png, KN_PNG_MAX_PX, KN_PNG_MAX_PX);
    png_set_IHDR(png, c->info, (png_uint_32)in->width_px, (png_uint_32)in->height_px, in->bits,
                 in->channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (c->text_count) png_set_text(png, c->info, c->texts, c->text_count);
    png_write_info(png, c->info);
    const uint16_t one = 1;
    if (in->bits == 16 && *(const uint8_t *)&one) png_set_swap(png);
    for (int y = 0; y < in->height_px; y++)
        png_write_row(png, (const unsigned char *)in->data + (size_t)y * row_bytes);
    png_write_end(png, NULL);
}

static kn_status encode_or_fail(coder *c)
{
    if (setjmp(png_jmpbuf(c->png))) return c->st;
    encode(c);
    return KN_OK;
}

/* To c.file or c.memory. */
static kn_status write_all(coder *c, const char *const *text)
{
    const kn_picture *in = c->in;
    kn_status st;
    if (in->width_px < 1 || in->width_px > KN_PNG_MAX_PX || in->height_px < 1 ||
        in->height_px > KN_PNG_MAX_PX || (in->channels != 1 && in->channels != 3) ||
        (in->bits != 8 && in->bits != 16) || !in->data)
        return kn_fail(
            KN_ERR_ARG,
            "%s: expected a picture of 1 to %d px each way, 1 or 3 channels, 8 or 16 bits, "
            "found %d x %d px, %d channels, %d bits",
            c->name, KN_PNG_MAX_PX, in->width_px, in->height_px, in->channels, in->bits);
    KN_TRY_GOTO(collect_texts(c, text));
    if (!c->memory) KN_TRY_GOTO(kn_atomic_open(c->name, &c->file));
    c->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, c, on_error, on_warning, c,
                                       on_malloc, on_free);
    if (c->png) c->info = png_create_info_struct(c->png);
    if (!c->info) {
        st = kn_fail(KN_ERR_NOMEM, "%s: out of memory: libpng could not start", c->name);
        goto done;
    }
    KN_TRY_GOTO(encode_or_fail(c));
    if (!c->memory) KN_TRY_GOTO(kn_atomic_commit(&c->file));
done:
    png_destroy_write_struct(&c->png, &c->info);
    kn_atomic_discard(&c->file);
    kn_free(c->texts);
    return st;
}

kn_status kn_png_write(const char *path, const kn_picture *in, const char *const *text)
{
    coder c = {.name = path, .in = in};
    return write_all(&c, text);
}

kn_status kn_png_encode(const char *name, const kn_picture *in, kn_text *out)
{
    coder c = {.name = name, .in = in, .memory = out};
    return write_all(&c, NULL);
}
