#include "tests/expect.h"

#include "io/atomic_file.h"
#include "io/memory.h"
#include "io/safetensors.h"
#include "io/text.h"

/* A file with the given header text and data_bytes zeros; header_bytes other than -1 lies about its
 * length. */
static const char *make_file(const char *name, const char *header, long long header_bytes,
                             size_t data_bytes)
{
    const char *path = temp_path(name);
    size_t n = strlen(header);
    uint64_t length = header_bytes == -1 ? n : (uint64_t)header_bytes;
    unsigned char *all = calloc(1, 8 + n + data_bytes);
    assert_non_null(all);
    for (int i = 0; i < 8; i++) all[i] = (unsigned char)(length >> (8 * i));
    memcpy(all + 8, header, n);
    put_file(path, all, 8 + n + data_bytes);
    free(all);
    return path;
}

static kn_status open_close(const char *path, const char *stem)
{
    kn_safetensors *s;
    kn_status st = kn_safetensors_open(path, stem, &s);
    assert_int_equal(st == KN_OK, s != NULL);
    kn_safetensors_close(&s);
    assert_null(s);
    return st;
}

/* ---- what must be refused, and how it is named ----------------------------------------------- */

#define T(dtype, shape, offsets)                                                                   \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

typedef struct hostile {
    const char *what;
    const char *header;
    long long header_bytes; /* -1: the true length */
    size_t data_bytes;
    const char *words[4]; /* must stand in the message, besides the file's name */
} hostile;

static const hostile cases[] = {
    {"length 0", "", 0, 8, {"length of 0", "2 to"}},
    {"length 1", "{", 1, 8, {"length of 1"}},
    {"length just past the file", "{}", 3, 0, {"at least 11 bytes", "found 10"}},
    {"length of 2^63", "{}", INT64_MIN, 0, {"length of 9223372036854775808"}},
    {"length of 2^63-1", "{}", INT64_MAX, 0, {"length of 9223372036854775807"}},
    {"length over the limit", "{}", (100 << 20) + 1, 0, {"length of 104857601"}},
    {"blank first", " {}", -1, 0, {"begin with '{'", "0x20"}},
    {"an array", "[]", -1, 0, {"begin with '{'", "0x5b"}},
    {"not JSON", "{hello}", -1, 0, {"line 1", "column"}},
    {"cut JSON", "{\"a\":{\"dtype\":\"F32\"", -1, 0, {"line 1"}},
    {"rest after JSON", "{}{}", -1, 0, {"line 1", "end of file"}},
    {"bad UTF-8", "{\"\xff\":1}", -1, 0, {"line 1", "0xff"}},
    {"NUL in a name", "{\"a\\u0000b\":1}", -1, 0, {"line 1", "\\u0000"}},
    {"name twice",
     "{\"a\":" T("U8", "[1]", "[0,1]") ",\"a\":" T("U8", "[1]", "[0,1]") "}",
     -1,
     1,
     {"duplicate", "\"a\""}},
    {"key twice",
     "{\"w\":{\"dtype\":\"U8\",\"dtype\":\"F32\"}}",
     -1,
     1,
     {"duplicate", "\"dtype\""}},
    {"tensor not an object", "{\"a.w\":[1]}", -1, 0, {"'a.w'", "an object", "an array"}},
    {"no dtype",
     "{\"a.w\":{\"shape\":[],\"data_offsets\":[0,4]}}",
     -1,
     4,
     {"'a.w'", "dtype", "nothing"}},
    {"dtype a number",
     "{\"a.w\":{\"dtype\":7,\"shape\":[],\"data_offsets\":[0,4]}}",
     -1,
     4,
     {"'a.w'", "dtype", "an integer"}},
    {"unknown dtype", "{\"a.w\":" T("F31", "[1]", "[0,4]") "}", -1, 4, {"'a.w'", "dtype", "'F31'"}},
    {"no shape",
     "{\"a.w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}",
     -1,
     4,
     {"'a.w'", "shape", "nothing"}},
    {"shape a number",
     "{\"a.w\":" T("F32", "4", "[0,4]") "}",
     -1,
     4,
     {"'a.w'", "shape", "an integer"}},
    {"rank 9",
     "{\"a.w\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}",
     -1,
     4,
     {"'a.w'", "at most 6", "found 9"}},
    {"negative dim",
     "{\"a.w\":" T("F32", "[2,-1]", "[0,4]") "}",
     -1,
     4,
     {"'a.w'", "shape[1]", "-1"}},
    {"fractional dim",
     "{\"a.w\":" T("F32", "[1.0]", "[0,4]") "}",
     -1,
     4,
     {"'a.w'", "shape[0]", "a real number"}},
    {"dim past int64",
     "{\"a.w\":" T("F32", "[9223372036854775808]", "[0,4]") "}",
     -1,
     4,
     {"too big integer"}},
    {"product overflows",
     "{\"a.w\":" T("F32", "[4294967296,4294967296]", "[0,4]") "}",
     -1,
     4,
     {"'a.w'", "shape"}},
    {"product overflows to 1",
     "{\"a.w\":" T("F32", "[4294967297,4294967297,4294967295]", "[0,4]") "}",
     -1,
     4,
     {"'a.w'", "shape"}},
    {"bytes overflow",
     "{\"a.w\":" T("F64", "[4611686018427387904]", "[0,0]") "}",
     -1,
     0,
     {"'a.w'", "shape"}},
    {"empty with overflow",
     "{\"a.w\":" T("F32", "[0,4294967296,4294967296]", "[0,0]") "}",
     -1,
     0,
     {"'a.w'", "shape"}},
    {"half a byte",
     "{\"a.w\":" T("F4", "[3]", "[0,1]") "}",
     -1,
     1,
     {"'a.w'", "whole number of bytes"}},
    {"no offsets", "{\"a.w\":{\"dtype\":\"F32\",\"shape\":[1]}}", -1, 4, {"'a.w'", "data_offsets"}},
    {"one offset",
     "{\"a.w\":" T("F32", "[1]", "[4]") "}",
     -1,
     4,
     {"'a.w'", "data_offsets", "of 1"}},
    {"three offsets",
     "{\"a.w\":" T("F32", "[1]", "[0,4,8]") "}",
     -1,
     8,
     {"'a.w'", "data_offsets", "of 3"}},
    {"offsets as text",
     "{\"a.w\":" T("F32", "[1]", "[\"0\",\"4\"]") "}",
     -1,
     4,
     {"'a.w'", "data_offsets"}},
    {"offsets reversed", "{\"a.w\":" T("F32", "[1]", "[4,0]") "}", -1, 4, {"'a.w'", "[4, 0]"}},
    {"offset negative", "{\"a.w\":" T("F32", "[1]", "[-4,0]") "}", -1, 4, {"'a.w'", "[-4, 0]"}},
    {"truncated data",
     "{\"a.w\":" T("F32", "[4]", "[0,16]") "}",
     -1,
     15,
     {"'a.w'", "truncated", "found"}},
    {"offset huge",
     "{\"a.w\":" T("F32", "[1]", "[9223372036854775803,9223372036854775807]") "}",
     -1,
     4,
     {"'a.w'", "outside the file"}},
    {"too few bytes",
     "{\"a.w\":" T("F32", "[2]", "[0,4]") "}",
     -1,
     4,
     {"'a.w'", "expected 8", "found 4"}},
    {"too many bytes",
     "{\"a.w\":" T("BF16", "[2]", "[0,8]") "}",
     -1,
     8,
     {"'a.w'", "expected 4", "found 8"}},
    {"empty shape, no bytes",
     "{\"a.w\":" T("F32", "[]", "[0,0]") "}",
     -1,
     0,
     {"'a.w'", "expected 4"}},
    {"overlap",
     "{\"a\":" T("U8", "[4]", "[0,4]") ",\"b\":" T("U8", "[4]", "[2,6]") "}",
     -1,
     6,
     {"'b' overlaps tensor 'a'", "byte 4", "found 2"}},
    {"same range",
     "{\"a\":" T("U8", "[4]", "[0,4]") ",\"b\":" T("U8", "[4]", "[0,4]") "}",
     -1,
     4,
     {"overlaps"}},
    {"gap in front",
     "{\"a\":" T("U8", "[4]", "[1,5]") "}",
     -1,
     5,
     {"'a'", "gap", "byte 0", "found 1"}},
    {"gap between",
     "{\"a\":" T("U8", "[1]", "[0,1]") ",\"b\":" T("U8", "[1]", "[3,4]") "}",
     -1,
     4,
     {"'b'", "gap", "byte 1", "found 3"}},
    {"rest after data", "{\"a\":" T("U8", "[1]", "[0,1]") "}", -1, 9, {"after the last tensor"}},
    {"rest without tensors", "{}", -1, 1, {"after the last tensor", "expected 10", "found 11"}},
    {"metadata a list", "{\"__metadata__\":[]}", -1, 0, {"__metadata__", "an array"}},
    {"metadata not text",
     "{\"__metadata__\":{\"step\":5}}",
     -1,
     0,
     {"__metadata__", "'step'", "an integer"}},
};

static void hostile_files_are_refused_and_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const hostile *h = &cases[i];
        const char *path =
            make_file("hostile.safetensors", h->header, h->header_bytes, h->data_bytes);
        if (open_close(path, NULL) != KN_ERR_FORMAT) {
            print_error("case '%s': %s\n", h->what, kn_error_text());
            fail();
        }
        assert_non_null(strstr(kn_error_text(), "hostile.safetensors"));
        for (int w = 0; w < 4 && h->words[w]; w++) {
            if (strstr(kn_error_text(), h->words[w])) continue;
            print_error("case '%s': expected '%s' in: %s\n", h->what, h->words[w], kn_error_text());
            fail();
        }
    }
}

static void every_cut_of_a_file_is_refused(void **state)
{
    (void)state;
    const char *header = "{\"b\":" T("U8", "[2]", "[4,6]") ",\"a\":" T("F32", "[1]", "[0,4]") "}";
    const char *path = make_file("cut.safetensors", header, -1, 6);
    expect_ok(open_close(path, NULL));
    for (off_t size = (off_t)strlen(header) + 8 + 5; size >= 0; size--) {
        assert_int_equal(truncate(path, size), 0);
        expect_fail(open_close(path, NULL), KN_ERR_FORMAT, "cut.safetensors", "bytes");
    }
}

static void deep_and_wide_headers_are_bounded(void **state)
{
    (void)state;
    kn_text t = {0};
    expect_ok(kn_text_add(&t, "{\"a\":"));
    for (int i = 0; i < 50000; i++) expect_ok(kn_text_add(&t, "["));
    expect_fail(open_close(make_file("deep.safetensors", t.data, -1, 0), NULL), KN_ERR_FORMAT,
                "deep.safetensors", "deeper than 64");
    t.size = 0;
    expect_ok(kn_text_add(&t, "{\"a\":[0"));
    for (int i = 0; i < (1 << 20); i++) expect_ok(kn_text_add(&t, ",0"));
    expect_ok(kn_text_add(&t, "]}"));
    expect_fail(open_close(make_file("wide.safetensors", t.data, -1, 0), NULL), KN_ERR_FORMAT,
                "wide.safetensors", "more than 1048576 values");
    kn_free(t.data);
}

static void other_files_are_named(void **state)
{
    (void)state;
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
    put_file(temp_path("lfs.safetensors"), lfs, sizeof lfs - 1);
    expect_fail(open_close(temp_path("lfs.safetensors"), NULL), KN_ERR_FORMAT, "lfs.safetensors",
                "Git LFS pointer");
    put_file(temp_path("empty.safetensors"), "", 0);
    expect_fail(open_close(temp_path("empty.safetensors"), NULL), KN_ERR_FORMAT, "at least 8 bytes",
                "found 0");
    expect_fail(open_close(temp_path("absent.safetensors"), NULL), KN_ERR_IO, "absent",
                "No such file");
    assert_int_equal(mkfifo(temp_path("fifo.safetensors"), 0600), 0);
    expect_fail(open_close(temp_path("fifo.safetensors"), NULL), KN_ERR_IO, "fifo", "regular file");
}

/* ---- writing and reading back ---------------------------------------------------------------- */

static const float f32[6] = {1, 2, 3, 4, 5, 6};
static const uint16_t bf16[3] = {0x3f80, 0x4000, 0x4040};
static const int64_t i64[2] = {5, -6};
static const uint8_t u8[1] = {7};

static const kn_st_tensor samples[] = {
    {"u8", KN_ST_U8, NULL, 0, {0}, u8, 1},
    {"z.bf16", KN_ST_BF16, NULL, 1, {3}, bf16, 6},
    {"a \"quoted\" \xc3\xa9", KN_ST_F32, NULL, 2, {2, 3}, f32, 24},
    {"f8", KN_ST_OTHER, "F8_E4M3", 1, {1}, u8, 1},
    {"i64", KN_ST_I64, NULL, 1, {2}, i64, 16},
    {"none", KN_ST_F32, NULL, 2, {0, 4}, NULL, 0},
};
enum { SAMPLES = sizeof samples / sizeof samples[0] };

static void written_files_read_back(void **state)
{
    (void)state;
    static const char *const metadata[] = {"torch", "2.9", "format", "pt\n\"x\"", NULL};
    kn_safetensors *s;
    const char *path = temp_path("samples.safetensors");
    expect_ok(kn_safetensors_write(path, samples, SAMPLES, metadata));
    expect_ok(kn_safetensors_open(path, NULL, &s));
    assert_string_equal(kn_safetensors_path(s), path);
    assert_int_equal(kn_safetensors_count(s), SAMPLES);
    for (int i = 0; i < SAMPLES; i++) {
        int index = -1;
        const kn_st_tensor *t = kn_safetensors_find(s, samples[i].name, &index), *w = &samples[i];
        assert_non_null(t);
        assert_ptr_equal(t, kn_safetensors_at(s, index));
        assert_string_equal(t->name, w->name);
        assert_int_equal(t->dtype, w->dtype);
        assert_string_equal(t->dtype_name,
                            w->dtype_name ? w->dtype_name : kn_st_dtype_name(w->dtype));
        assert_int_equal(t->rank, w->rank);
        assert_memory_equal(t->dim, w->dim, sizeof t->dim);
        assert_int_equal(t->bytes, w->bytes);
        if (w->bytes) assert_memory_equal(t->data, w->data, w->bytes);
        if (kn_st_dtype_size(
                t->dtype)) /* mapped files begin at a page, so the file's alignment counts */
            assert_int_equal((uintptr_t)t->data % kn_st_dtype_size(t->dtype), 0);
        if (i)
            assert_true(strcmp(kn_safetensors_at(s, i - 1)->name, kn_safetensors_at(s, i)->name) <
                        0);
    }
    assert_null(kn_safetensors_find(s, "absent", NULL));
    assert_null(kn_safetensors_find(s, "", NULL));
    assert_null(kn_safetensors_at(s, -1));
    assert_null(kn_safetensors_at(s, SAMPLES));
    assert_string_equal(kn_safetensors_metadata(s, "format"), "pt\n\"x\"");
    assert_string_equal(kn_safetensors_metadata(s, "torch"), "2.9");
    assert_null(kn_safetensors_metadata(s, "absent"));
    kn_safetensors_close(&s);
}

static void the_bytes_do_not_depend_on_the_order_given(void **state)
{
    (void)state;
    static const char *const m1[] = {"a", "1", "b", "2", NULL}, *const m2[] = {"b", "2", "a", "1",
                                                                               NULL};
    kn_st_tensor reversed[SAMPLES];
    char *one, *two;
    size_t n1, n2;
    for (int i = 0; i < SAMPLES; i++) reversed[i] = samples[SAMPLES - 1 - i];
    expect_ok(kn_safetensors_write(temp_path("1.safetensors"), samples, SAMPLES, m1));
    expect_ok(kn_safetensors_write(temp_path("2.safetensors"), reversed, SAMPLES, m2));
    expect_ok(kn_file_read(temp_path("1.safetensors"), 10000, &one, &n1));
    expect_ok(kn_file_read(temp_path("2.safetensors"), 10000, &two, &n2));
    assert_int_equal(n1, n2);
    assert_memory_equal(one, two, n1);
    assert_int_equal(one[0] % 8, 0); /* header length: low byte */
    kn_free(one);
    kn_free(two);
    /* No tensors and no metadata is a file too. */
    expect_ok(kn_safetensors_write(temp_path("0.safetensors"), NULL, 0, NULL));
    expect_ok(open_close(temp_path("0.safetensors"), NULL));
}

static kn_status write_one(kn_st_tensor t)
{
    return kn_safetensors_write(temp_path("w"), &t, 1, NULL);
}

static void bad_arguments_write_nothing(void **state)
{
    (void)state;
    static const char *const twice[] = {"k", "1", "k", "2", NULL};
    static const char *const half[] = {"k", NULL, NULL};
    kn_st_tensor t = samples[2];
    kn_st_tensor two[2] = {samples[0], samples[0]};
    int names = count_names(temp_folder);
    t.name = NULL;
    expect_fail(write_one(t), KN_ERR_ARG, "name");
    t.name = "__metadata__";
    expect_fail(write_one(t), KN_ERR_ARG, "__metadata__");
    t.name = "\xff";
    expect_fail(write_one(t), KN_ERR_ARG, "UTF-8");
    t = samples[2];
    t.bytes = 23;
    expect_fail(write_one(t), KN_ERR_ARG, "expected 24 bytes", "found 23");
    t = samples[2];
    t.data = NULL;
    expect_fail(write_one(t), KN_ERR_ARG, "data");
    t = samples[2];
    t.rank = 7;
    expect_fail(write_one(t), KN_ERR_ARG, "found 7");
    t = samples[2];
    t.dim[1] = -3;
    expect_fail(write_one(t), KN_ERR_ARG, "dim 1", "-3");
    t = samples[3];
    t.dtype_name = "F7";
    expect_fail(write_one(t), KN_ERR_ARG, "'f8'", "'F7'");
    expect_fail(kn_safetensors_write(temp_path("w"), two, 2, NULL), KN_ERR_ARG, "'u8'", "twice");
    expect_fail(kn_safetensors_write(temp_path("w"), samples, SAMPLES, twice), KN_ERR_ARG, "'k'",
                "twice");
    expect_fail(kn_safetensors_write(temp_path("w"), samples, SAMPLES, half), KN_ERR_ARG, "'k'",
                "value");
    expect_fail(kn_safetensors_write(temp_path("w"), samples, -1, NULL), KN_ERR_ARG, "-1");
    expect_fail(kn_safetensors_write(temp_path("no/w"), samples, SAMPLES, NULL), KN_ERR_IO, "no/w",
                "folder");
    assert_int_equal(count_names(temp_folder), names);
}

/* ---- folders and shards ---------------------------------------------------------------------- */

static void put_text(const char *path, const char *text)
{
    put_file(path, text, strlen(text));
}

static void shards_are_joined(void **state)
{
    (void)state;
    static const char *const metadata[] = {"who", "second", NULL};
    kn_safetensors *s;
    assert_int_equal(mkdir(temp_path("sharded"), 0700), 0);
    const char *index = temp_path("sharded/m.safetensors.index.json");
    expect_ok(
        kn_safetensors_write(temp_path("sharded/m-00001-of-00002.safetensors"), samples, 2, NULL));
    expect_ok(kn_safetensors_write(temp_path("sharded/m-00002-of-00002.safetensors"), samples + 2,
                                   2, metadata));
    put_text(index, "{\"metadata\": {\"total_size\": 32}, \"weight_map\": {"
                    "\"u8\": \"m-00001-of-00002.safetensors\","
                    "\"z.bf16\": \"m-00001-of-00002.safetensors\","
                    "\"f8\": \"m-00002-of-00002.safetensors\"}}");
    expect_ok(kn_safetensors_open(index, NULL, &s));
    assert_int_equal(kn_safetensors_count(s), 4);
    assert_memory_equal(kn_safetensors_find(s, "z.bf16", NULL)->data, bf16, 6);
    assert_memory_equal(kn_safetensors_find(s, "f8", NULL)->data, u8, 1);
    assert_string_equal(kn_safetensors_metadata(s, "who"), "second");
    assert_non_null(strstr(kn_safetensors_path(s), "m-00001-of-00002"));
    kn_safetensors_close(&s);
    expect_ok(open_close(temp_path("sharded"), "m"));
    expect_ok(open_close(temp_path("sharded"), NULL)); /* shards do not count */
    assert_int_equal(unlink(index), 0);
    expect_fail(open_close(temp_path("sharded"), NULL), KN_ERR_IO, "expected an index", "2 shards");
}

static kn_status open_map(const char *map)
{
    char text[2000];
    snprintf(text, sizeof text, "{\"weight_map\": %s}", map);
    put_text(temp_path("x/m.safetensors.index.json"), text);
    return open_close(temp_path("x"), "m");
}

static void hostile_indexes_are_refused(void **state)
{
    (void)state;
    assert_int_equal(mkdir(temp_path("x"), 0700), 0);
    expect_ok(kn_safetensors_write(temp_path("x/1.safetensors"), samples, 2, NULL));
    expect_ok(kn_safetensors_write(temp_path("x/2.safetensors"), samples + 1, 2, NULL));
    expect_ok(open_map("{\"u8\": \"1.safetensors\"}"));
    expect_fail(open_map("[]"), KN_ERR_FORMAT, "m.safetensors.index.json", "weight_map",
                "an array");
    expect_fail(open_map("{}"), KN_ERR_FORMAT, "weight_map", "none");
    expect_fail(open_map("{\"u8\": 1}"), KN_ERR_FORMAT, "'u8'", "an integer");
    static const char *const outside[] = {
        "../1.safetensors", "/etc/1.safetensors", "x/1.safetensors", "..safetensors", "1.bin", "",
        ".safetensors",     "a\\\\1.safetensors"};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        char map[200];
        snprintf(map, sizeof map, "{\"u8\": \"%s\"}", outside[i]);
        expect_fail(open_map(map), KN_ERR_FORMAT, "index.json", "'u8'", "in the same folder");
    }
    expect_fail(open_map("{\"u8\": \"3.safetensors\"}"), KN_ERR_IO, "index.json names a shard",
                "3.safetensors", "No such file");
    expect_fail(open_map("{\"nope\": \"1.safetensors\"}"), KN_ERR_FORMAT, "'nope'", "1.safetensors",
                "no shard");
    expect_fail(open_map("{\"u8\": \"1.safetensors\", \"z.bf16\": \"2.safetensors\"}"),
                KN_ERR_FORMAT, "'z.bf16'", "1.safetensors", "2.safetensors", "once");
    expect_ok(kn_safetensors_write(temp_path("x/2.safetensors"), samples + 2, 2, NULL));
    expect_fail(open_map("{\"u8\": \"2.safetensors\", \"z.bf16\": \"1.safetensors\"}"),
                KN_ERR_FORMAT, "'u8'", "expected in 2.safetensors", "found in 1.safetensors");
    expect_fail(open_map("{\"u8\": \"1.safetensors\", \"u8\": \"1.safetensors\"}"), KN_ERR_FORMAT,
                "duplicate", "u8");
    put_text(temp_path("x/m.safetensors.index.json"), "{}");
    expect_fail(open_close(temp_path("x"), "m"), KN_ERR_FORMAT, "weight_map", "nothing");
    put_text(temp_path("x/m.safetensors.index.json"), "[1]");
    expect_fail(open_close(temp_path("x"), "m"), KN_ERR_FORMAT, "weight_map", "nothing");
}

static void a_folder_names_its_file(void **state)
{
    (void)state;
    kn_safetensors *s;
    assert_int_equal(mkdir(temp_path("d"), 0700), 0);
    expect_fail(open_close(temp_path("d"), NULL), KN_ERR_IO, "/d:", "found none");
    expect_fail(open_close(temp_path("d"), "model"), KN_ERR_IO, "model.safetensors",
                "model.safetensors.index.json", "neither");
    expect_ok(kn_safetensors_write(temp_path("d/model.safetensors"), samples, 1, NULL));
    put_text(temp_path("d/config.json"), "{}");
    expect_ok(open_close(temp_path("d"), NULL));
    expect_ok(open_close(temp_path("d"), "model"));
    expect_ok(kn_safetensors_write(temp_path("d/model.fp16.safetensors"), samples, 2, NULL));
    expect_fail(open_close(temp_path("d"), NULL), KN_ERR_IO, "found 2", "model.safetensors",
                "model.fp16.safetensors");
    expect_ok(kn_safetensors_open(temp_path("d"), "model.fp16", &s));
    assert_int_equal(kn_safetensors_count(s), 2);
    kn_safetensors_close(&s);
    kn_safetensors_close(&s);
    kn_safetensors_close(NULL);
}

static void dtypes_have_names_and_sizes(void **state)
{
    (void)state;
    static const size_t size[] = {4, 2, 2, 8, 4, 8, 1, 0};
    static const char *const name[] = {"F32", "F16", "BF16", "F64", "I32", "I64", "U8", "other"};
    for (int t = KN_ST_F32; t <= KN_ST_OTHER; t++) {
        assert_int_equal(kn_st_dtype_size((kn_st_dtype)t), size[t]);
        assert_string_equal(kn_st_dtype_name((kn_st_dtype)t), name[t]);
    }
    assert_int_equal(kn_st_format_find("BOOL")->dtype, KN_ST_OTHER);
    assert_null(kn_st_format_find("bf16"));
    const int64_t dim[] = {4, 3};
    size_t bytes = 0;
    assert_true(kn_st_format_bytes(kn_st_format_find("F6_E2M3"), 2, dim, &bytes));
    assert_int_equal(bytes, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_files_are_refused_and_named),
        cmocka_unit_test(every_cut_of_a_file_is_refused),
        cmocka_unit_test(deep_and_wide_headers_are_bounded),
        cmocka_unit_test(other_files_are_named),
        cmocka_unit_test(written_files_read_back),
        cmocka_unit_test(the_bytes_do_not_depend_on_the_order_given),
        cmocka_unit_test(bad_arguments_write_nothing),
        cmocka_unit_test(shards_are_joined),
        cmocka_unit_test(hostile_indexes_are_refused),
        cmocka_unit_test(a_folder_names_its_file),
        cmocka_unit_test(dtypes_have_names_and_sizes),
    };
    return cmocka_run_group_tests(tests, temp_folder_setup, temp_folder_teardown);
}
