#include "io/frames.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "io/folder.h"
#include "io/memory.h"
#include "io/png.h"

/* ---- floats to a PNG ------------------------------------------------------------------------- */

/* name: of the file, for messages. */
static kn_status to_pixels(const char *name, const float *rgb, int width_px, int height_px, int bits, void *out)
{
    if (bits != 8 && bits != 16)
        return kn_fail(KN_ERR_ARG, "%s: expected 8 or 16 bits, found %d", name, bits);
    size_t n = 3 * (size_t)width_px * (size_t)height_px;
    float top = bits == 8 ? 255.0f : 65535.0f;
    for (size_t i = 0; i < n; i++) {
        float v = rgb[i];
        if (v != v)
            return kn_fail(KN_ERR_NUMERIC, "%s: NaN in row %zu, expected finite colours", name,
                           i / 3 / (size_t)width_px);
        v = v > 0.0f ? v : 0.0f;
        v = v < 1.0f ? v : 1.0f;
        if (bits == 8)
            ((uint8_t *)out)[i] = (uint8_t)(v * top + 0.5f);
        else
            ((uint16_t *)out)[i] = (uint16_t)(v * top + 0.5f);
    }
    return KN_OK;
}

static kn_status write_png(const char *path, const float *rgb, int width_px, int height_px,
                           int bits, const char *const *text)
{
    kn_status st;
    void *data = NULL;
    KN_TRY_GOTO(kn_alloc(3 * (size_t)width_px * (size_t)height_px * (size_t)(bits == 16 ? 2 : 1), &data));
    KN_TRY_GOTO(to_pixels(path, rgb, width_px, height_px, bits, data));
    kn_picture picture = {width_px, height_px, 3, bits, data};
    KN_TRY_GOTO(kn_png_write(path, &picture, text));
done:
    kn_free(data);
    return st;
}

kn_status kn_frames_folder(const char *folder)
{
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return kn_fail(KN_ERR_IO, "cannot make folder %s: %s", folder, strerror(errno));
    return KN_OK;
}

kn_status kn_frames_path(const char *folder, int64_t index, char **path)
{
    return kn_asprintf(path, "%s/frame_%05lld.png", folder, (long long)index);
}

kn_status kn_frames_pixels(const char *folder, int64_t index, const float *rgb, int width_px, int height_px,
                           int bits, void *out)
{
    char *path;
    KN_TRY(kn_frames_path(folder, index, &path));
    kn_status st = to_pixels(path, rgb, width_px, height_px, bits, out);
    kn_free(path);
    return st;
}

kn_status kn_frames_write(const char *folder, int64_t index, const float *rgb, int width_px,
                          int height_px, int bits, const char *const *text)
{
    char *path = NULL;
    KN_TRY(kn_frames_folder(folder));
    KN_TRY(kn_frames_path(folder, index, &path));
    kn_status st = write_png(path, rgb, width_px, height_px, bits, text);
    kn_free(path);
    return st;
}

/* ---- finding PNG files ----------------------------------------------------------------------- */

/* "%d" or "%0Nd" in a path: what stands before, the least number of digits, what stands after. */
typedef struct pattern {
    int prefix_bytes, digits;
    const char *suffix;
} pattern;

static bool find_pattern(const char *path, pattern *p)
{
    const char *percent = strchr(path, '%'), *at = percent;
    if (!at || strchr(at + 1, '%')) return false;
    int digits = 0;
    at++;
    if (*at == '0' && at[1] >= '1' && at[1] <= '9') {
        digits = at[1] - '0';
        at += 2;
    }
    if (*at != 'd') return false;
    *p = (pattern){(int)(percent - path), digits, at + 1};
    return true;
}

static bool has_png_suffix(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && !strcasecmp(name + n - 4, ".png");
}

static bool is_folder(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

/* Asked before a name is taken for a pattern: a real file may well have a per cent sign. */
static bool exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0;
}

bool kn_frames_is_list(const char *path)
{
    pattern p;
    return is_folder(path) || has_png_suffix(path) || (!exists(path) && find_pattern(path, &p));
}

void kn_frames_list_free(kn_frame_list *list)
{
    for (int i = 0; i < list->count; i++) kn_free(list->paths[i]);
    kn_free(list->paths);
    *list = (kn_frame_list){0};
}

/* Takes path over, also on failure. */
static kn_status append(kn_frame_list *list, int *capacity, char *path)
{
    kn_status st = KN_OK;
    if (list->count == KN_FRAMES_MAX) {
        st = kn_fail(KN_ERR_ARG, "%s: expected at most %d PNG files", path, KN_FRAMES_MAX);
        goto done;
    }
    if (list->count == *capacity) {
        void *more;
        int next = *capacity ? 2 * *capacity : 64;
        KN_TRY_GOTO(kn_alloc_array((size_t)next, sizeof(char *), &more));
        if (list->count) memcpy(more, list->paths, (size_t)list->count * sizeof(char *));
        kn_free(list->paths);
        list->paths = more;
        *capacity = next;
    }
    list->paths[list->count++] = path;
    path = NULL;
done:
    kn_free(path);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static kn_status list_folder(const char *folder, kn_frame_list *list)
{
    kn_status st = KN_OK;
    int capacity = 0;
    DIR *dir = opendir(folder);
    if (!dir) return kn_fail(KN_ERR_IO, "cannot open folder %s: %s", folder, strerror(errno));
    for (;;) {
        const char *name;
        char *path;
        KN_TRY_GOTO(kn_folder_next(dir, folder, &name));
        if (!name) break;
        if (!has_png_suffix(name)) continue;
        KN_TRY_GOTO(kn_asprintf(&path, "%s/%s", folder, name));
        KN_TRY_GOTO(append(list, &capacity, path));
    }
    if (!list->count)
        st = kn_fail(KN_ERR_IO, "folder %s: expected *.png files, found none", folder);
    else
        qsort(list->paths, (size_t)list->count, sizeof list->paths[0], by_name);
done:
    closedir(dir);
    return st;
}

static kn_status list_pattern(const char *path, const pattern *p, kn_frame_list *list)
{
    int capacity = 0;
    for (int number = 0;; number++) {
        char *name;
        KN_TRY(
            kn_asprintf(&name, "%.*s%0*d%s", p->prefix_bytes, path, p->digits, number, p->suffix));
        if (!exists(name)) {
            kn_free(name);
            if (number == 0) continue; /* many programs count from 1 */
            break;
        }
        KN_TRY(append(list, &capacity, name));
    }
    if (!list->count)
        return kn_fail(KN_ERR_IO, "%s: expected files numbered from 0 or 1, found none", path);
    return KN_OK;
}

kn_status kn_frames_list(const char *path, kn_frame_list *list)
{
    kn_status st;
    pattern p;
    int capacity = 0;
    char *copy;
    *list = (kn_frame_list){0};
    if (is_folder(path)) {
        st = list_folder(path, list);
    } else if (!exists(path) && find_pattern(path, &p)) {
        st = list_pattern(path, &p, list);
    } else {
        st = kn_strdup(path, &copy);
        if (st == KN_OK) st = append(list, &capacity, copy);
    }
    if (st != KN_OK) kn_frames_list_free(list);
    return st;
}

/* ---- contact sheet --------------------------------------------------------------------------- */

enum { GUTTER_PX = 4 };

struct kn_contact_sheet {
    int64_t total, next;
    int tiles, columns, rows;
    int width_px, height_px; /* of a frame */
    int tile_width_px, tile_height_px;
    int sheet_width_px, sheet_height_px;
    float *pixels; /* [sheet_height_px, sheet_width_px, 3] */
    float *line;   /* [tile_width_px, 3]: a row of the frame, made narrower */
};

/* Frame of tile i: 0 for the first, total - 1 for the last. */
static int64_t frame_of(const kn_contact_sheet *s, int i)
{
    if (s->tiles == 1) return 0;
    return (2 * i * (s->total - 1) + (s->tiles - 1)) / (2 * (int64_t)(s->tiles - 1));
}

static int tile_of(const kn_contact_sheet *s, int64_t frame)
{
    for (int i = 0; i < s->tiles; i++)
        if (frame_of(s, i) == frame) return i;
    return -1;
}

kn_status kn_contact_sheet_build(int64_t total_frames, int tiles, int width_px, int height_px,
                                 int max_width_px, kn_contact_sheet **out)
{
    kn_status st;
    void *memory = NULL, *pixels = NULL, *line = NULL;
    *out = NULL;
    if (total_frames < 1 || tiles < 1 || tiles > 1024 || width_px < 1 || height_px < 1 ||
        max_width_px > KN_PNG_MAX_PX)
        return kn_fail(
            KN_ERR_ARG,
            "contact sheet: expected frames >= 1, tiles 1..1024, a frame size, and a width "
            "of at most %d pixels; found %lld, %d, %dx%d, %d",
            KN_PNG_MAX_PX, (long long)total_frames, tiles, width_px, height_px, max_width_px);
    kn_contact_sheet s = {.total = total_frames, .width_px = width_px, .height_px = height_px};
    s.tiles = tiles < total_frames ? tiles : (int)total_frames;
    while (s.columns * s.columns < s.tiles) s.columns++;
    s.rows = (s.tiles + s.columns - 1) / s.columns;
    int room = (max_width_px - GUTTER_PX * (s.columns - 1)) / s.columns;
    s.tile_width_px = room < width_px ? room : width_px;
    if (s.tile_width_px < 1)
        return kn_fail(KN_ERR_ARG, "contact sheet: %d pixels are too narrow for %d columns",
                       max_width_px, s.columns);
    s.tile_height_px = (int)(((int64_t)height_px * s.tile_width_px + width_px / 2) / width_px);
    if (s.tile_height_px < 1) s.tile_height_px = 1;
    s.sheet_width_px = s.columns * (s.tile_width_px + GUTTER_PX) - GUTTER_PX;
    int64_t sheet_height = (int64_t)s.rows * (s.tile_height_px + GUTTER_PX) - GUTTER_PX;
    if (sheet_height > KN_PNG_MAX_PX)
        return kn_fail(KN_ERR_ARG, "contact sheet: %lld rows of pixels, expected at most %d",
                       (long long)sheet_height, KN_PNG_MAX_PX);
    s.sheet_height_px = (int)sheet_height;
    KN_TRY_GOTO(kn_alloc_array((size_t)s.sheet_width_px * (size_t)s.sheet_height_px,
                               3 * sizeof(float), &pixels));
    KN_TRY_GOTO(kn_alloc_array((size_t)s.tile_width_px, 3 * sizeof(float), &line));
    KN_TRY_GOTO(kn_alloc_zero(sizeof s, &memory));
    s.pixels = pixels;
    s.line = line;
    *out = memory;
    **out = s;
    pixels = line = NULL;
done:
    kn_free(pixels);
    kn_free(line);
    return st;
}

void kn_contact_sheet_free(kn_contact_sheet **handle)
{
    if (!handle || !*handle) return;
    kn_free((*handle)->pixels);
    kn_free((*handle)->line);
    kn_free(*handle);
    *handle = NULL;
}

/* line = from [from_width,3] made narrower: new pixel i is the mean over [i, i+1) * from_width /
 * width, with the parts of pixels at both ends counted by their share. */
static void narrow(const float *from, int from_width, float *line, int width)
{
    double scale = (double)from_width / width;
    for (int i = 0; i < width; i++) {
        double begin = i * scale, end = (i + 1) * scale, sum[3] = {0};
        for (int x = (int)begin; x < from_width && x < end; x++) {
            double share = fmin(x + 1, end) - fmax(x, begin);
            for (int c = 0; c < 3; c++) sum[c] += share * (double)from[3 * x + c];
        }
        for (int c = 0; c < 3; c++) line[3 * i + c] = (float)(sum[c] / scale);
    }
}

kn_status kn_contact_sheet_add(kn_contact_sheet *s, const float *rgb)
{
    if (s->next >= s->total)
        return kn_fail(KN_ERR_ARG, "contact sheet: frame %lld given, expected %lld frames",
                       (long long)s->next, (long long)s->total);
    int tile = tile_of(s, s->next++);
    if (tile < 0) return KN_OK;
    size_t stride = 3 * (size_t)s->sheet_width_px;
    float *corner = s->pixels +
                    (size_t)(tile / s->columns) * (size_t)(s->tile_height_px + GUTTER_PX) * stride +
                    (size_t)(tile % s->columns) * (size_t)(s->tile_width_px + GUTTER_PX) * 3;
    /* Each frame row adds its share to the one or two tile rows that it overlaps. */
    double scale = (double)s->height_px / s->tile_height_px;
    for (int i = 0; i < s->tile_height_px; i++) {
        double begin = i * scale, end = (i + 1) * scale;
        float *to = corner + (size_t)i * stride;
        for (int y = (int)begin; y < s->height_px && y < end; y++) {
            float share = (float)((fmin(y + 1, end) - fmax(y, begin)) / scale);
            narrow(rgb + 3 * (size_t)y * (size_t)s->width_px, s->width_px, s->line,
                   s->tile_width_px);
            for (int x = 0; x < 3 * s->tile_width_px; x++) to[x] += share * s->line[x];
        }
    }
    return KN_OK;
}

kn_status kn_contact_sheet_write(const kn_contact_sheet *s, const char *path,
                                 const char *const *text)
{
    return write_png(path, s->pixels, s->sheet_width_px, s->sheet_height_px, 8, text);
}
