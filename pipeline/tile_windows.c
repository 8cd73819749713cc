#include "pipeline/tile_windows.h"

#include <string.h>

#include "attention/tile3d.h"
#include "io/config.h"
#include "io/json.h"
#include "io/memory.h"
#include "io/text.h"

static const char format_name[] = "kinora-tile-windows";
enum { VERSION = 1, WINDOW_MAX = 4096 };

/* ---- reading ----------------------------------------------------------------------------------*/

/* Only these keys. */
static kn_status check_keys(const kn_node *map, const char *const *known, int count)
{
    if (map->kind != KN_NODE_MAP) return kn_node_fail(KN_ERR_FORMAT, map, "expected an object");
    for (int i = 0; i < map->count; i++) {
        int k = 0;
        while (k < count && strcmp(map->item[i].key, known[k])) k++;
        if (k == count) return kn_node_fail(KN_ERR_FORMAT, &map->item[i], "unknown key");
    }
    return KN_OK;
}

/* The list of `key`, of low to high items. */
static kn_status find_list(const kn_node *map, const char *key, int low, int high, const kn_node **out)
{
    const kn_node *list = kn_node_find(map, key);
    if (!list) return kn_node_fail(KN_ERR_FORMAT, map, "expected a key '%s', found none", key);
    if (list->kind != KN_NODE_LIST || list->count < low || list->count > high)
        return kn_node_fail(KN_ERR_FORMAT, list, "expected a list of %d to %d items, found %s of %d", low, high,
                            list->kind == KN_NODE_LIST ? "one" : "something else", list->count);
    *out = list;
    return KN_OK;
}

/* A list of three whole numbers. */
static kn_status read_window(const kn_node *node, int out[3])
{
    bool good = node->kind == KN_NODE_LIST && node->count == 3;
    for (int a = 0; good && a < 3; a++) {
        const kn_node *n = &node->item[a];
        int64_t v = 0;
        good = n->kind == KN_NODE_SCALAR && n->scalar == KN_SCALAR_LITERAL && kn_text_to_int(n->text, &v) && v >= 1 &&
               v <= WINDOW_MAX;
        out[a] = (int)v;
    }
    return good ? KN_OK : kn_node_fail(KN_ERR_FORMAT, node, "expected a window of three whole numbers from 1 to %d", WINDOW_MAX);
}

static kn_status read_layers(const kn_node *range, int number, kn_tile_windows *w)
{
    const kn_node *layers = NULL;
    KN_TRY(find_list(range, "layers", w->layers, w->layers, &layers));
    for (int l = 0; l < w->layers; l++) {
        const kn_node *heads = &layers->item[l];
        if (heads->kind != KN_NODE_LIST || heads->count != w->heads)
            return kn_node_fail(KN_ERR_FORMAT, heads, "expected the windows of %d heads, found %d", w->heads,
                                heads->kind == KN_NODE_LIST ? heads->count : 0);
        for (int h = 0; h < w->heads; h++)
            KN_TRY(read_window(&heads->item[h], w->window[((int64_t)number * w->layers + l) * w->heads + h]));
    }
    return KN_OK;
}

static kn_status read_ranges(const kn_node *stage, kn_tile_windows *w)
{
    static const char *const keys[] = {"sigma_min", "layers"};
    const kn_node *ranges = NULL;
    KN_TRY(find_list(stage, "ranges", 1, KN_WINDOW_RANGES_MAX, &ranges));
    w->ranges = ranges->count;
    KN_TRY(kn_alloc_array((size_t)(w->ranges * w->layers) * (size_t)w->heads, sizeof *w->window, (void **)&w->window));
    for (int r = 0; r < w->ranges; r++) {
        const kn_node *range = &ranges->item[r];
        KN_TRY(check_keys(range, keys, 2));
        KN_TRY(kn_node_double(range, "sigma_min", 0, 1, &w->sigma_min[r]));
        if (r > 0 && w->sigma_min[r] >= w->sigma_min[r - 1])
            return kn_node_fail(KN_ERR_FORMAT, kn_node_find(range, "sigma_min"), "expected less than %g, of the range before",
                                w->sigma_min[r - 1]);
        KN_TRY(read_layers(range, r, w));
    }
    if (w->sigma_min[w->ranges - 1] != 0)
        return kn_node_fail(KN_ERR_FORMAT, kn_node_find(&ranges->item[w->ranges - 1], "sigma_min"),
                            "expected 0 for the last range");
    return KN_OK;
}

/* All stages are checked, whichever is wanted. */
static kn_status read_stage(const kn_node *stage, const int grid[3], kn_tile_windows *out)
{
    static const char *const keys[] = {"grid", "tile", "calibration", "ranges"};
    kn_tile_windows w = {.layers = out->layers, .heads = out->heads};
    kn_status st = KN_OK;
    KN_TRY_GOTO(check_keys(stage, keys, 4));
    KN_TRY_GOTO(kn_node_ints(stage, "grid", 1, 32767, 3, 3, w.layout.grid, NULL));
    KN_TRY_GOTO(kn_node_ints(stage, "tile", 1, WINDOW_MAX, 3, 3, w.layout.tile, NULL));
    if (kn_attn_layout_check(&w.layout) != KN_OK) {
        st = kn_node_fail(KN_ERR_FORMAT, kn_node_find(stage, "grid"), "expected at most 2^31 tokens, found %d x %d x %d",
                          w.layout.grid[0], w.layout.grid[1], w.layout.grid[2]);
        goto done;
    }
    KN_TRY_GOTO(read_ranges(stage, &w));
    if (!out->window && !memcmp(w.layout.grid, grid, sizeof w.layout.grid)) {
        *out = w;
        w.window = NULL;
    }
done:
    kn_tile_windows_free(&w);
    return st;
}

static kn_status read_file(const kn_node *root, const int grid[3], kn_tile_windows *out)
{
    static const char *const keys[] = {"format", "version", "layers", "heads", "stages"};
    static const char *const formats[] = {format_name};
    const kn_node *stages = NULL;
    int version, layers, heads, format;
    KN_TRY(kn_node_choice(root, "format", formats, 1, &format));
    KN_TRY(kn_node_int(root, "version", VERSION, VERSION, &version));
    KN_TRY(check_keys(root, keys, 5));
    KN_TRY(kn_node_int(root, "layers", 1, KN_WINDOW_LAYERS_MAX, &layers));
    KN_TRY(kn_node_int(root, "heads", 1, KN_WINDOW_HEADS_MAX, &heads));
    if (layers != out->layers || heads != out->heads)
        return kn_fail(KN_ERR_ARG, "%s: windows of %d layers of %d heads, the model has %d of %d; search for windows of this model",
                       kn_config_path(root->config), layers, heads, out->layers, out->heads);
    KN_TRY(find_list(root, "stages", 1, KN_WINDOW_STAGES_MAX, &stages));
    for (int i = 0; i < stages->count; i++) KN_TRY(read_stage(&stages->item[i], grid, out));
    if (out->window) return KN_OK;
    return kn_fail(KN_ERR_ARG, "%s: no windows for a token grid of %d x %d x %d (frames, rows, columns); search for windows at this size",
                   kn_config_path(root->config), grid[0], grid[1], grid[2]);
}

kn_status kn_tile_windows_read(const char *path, const int grid[3], int layers, int heads, kn_tile_windows *out)
{
    kn_config *file = NULL;
    *out = (kn_tile_windows){.layers = layers, .heads = heads};
    kn_status st = KN_OK;
    KN_TRY_GOTO(kn_config_open(path, &file));
    KN_TRY_GOTO(read_file(kn_config_root(file), grid, out));
done:
    kn_config_close(&file);
    if (st != KN_OK) kn_tile_windows_free(out);
    return st;
}

void kn_tile_windows_free(kn_tile_windows *w)
{
    kn_free(w->window);
    memset(w, 0, sizeof *w);
}

/* ---- looking up -------------------------------------------------------------------------------*/

int kn_tile_windows_range(const kn_tile_windows *w, double sigma)
{
    int r = 0;
    while (r < w->ranges - 1 && sigma < w->sigma_min[r]) r++;
    return r;
}

const int (*kn_tile_windows_of(const kn_tile_windows *w, int range, int layer))[3]
{
    return (const int (*)[3])(w->window + ((int64_t)range * w->layers + layer) * w->heads);
}

double kn_tile_windows_density(const kn_tile_windows *w, int range)
{
    double sum = 0;
    for (int l = 0; l < w->layers; l++)
        for (int h = 0; h < w->heads; h++) sum += kn_tile3d_density(&w->layout, kn_tile_windows_of(w, range, l)[h]);
    return sum / (w->layers * w->heads);
}

/* ---- writing ----------------------------------------------------------------------------------*/

static json_t *three(const int v[3])
{
    return json_pack("[i, i, i]", v[0], v[1], v[2]);
}

static json_t *range_json(const kn_tile_windows *w, int r)
{
    json_t *layers = json_array();
    for (int l = 0; layers && l < w->layers; l++) {
        json_t *heads = json_array();
        for (int h = 0; heads && h < w->heads; h++) json_array_append_new(heads, three(kn_tile_windows_of(w, r, l)[h]));
        if (json_array_size(heads) != (size_t)w->heads || json_array_append_new(layers, heads) != 0) {
            json_decref(layers);
            return NULL;
        }
    }
    return json_pack("{s:f, s:o}", "sigma_min", w->sigma_min[r], "layers", layers);
}

json_t *kn_tile_windows_json(const kn_tile_windows *w, json_t *calibration)
{
    json_t *ranges = json_array();
    for (int r = 0; ranges && r < w->ranges; r++)
        if (json_array_append_new(ranges, range_json(w, r)) != 0) {
            json_decref(ranges);
            ranges = NULL;
        }
    return json_pack("{s:o, s:o, s:o, s:o}", "grid", three(w->layout.grid), "tile", three(w->layout.tile), "calibration",
                     calibration, "ranges", ranges);
}

kn_status kn_tile_windows_write(const char *path, int layers, int heads, json_t *stages)
{
    json_t *root = json_pack("{s:s, s:i, s:i, s:i, s:o}", "format", format_name, "version", VERSION, "layers", layers, "heads",
                             heads, "stages", stages);
    kn_status st = root ? kn_json_write(path, root) : kn_fail(KN_ERR_NOMEM, "out of memory: windows as JSON");
    json_decref(root);
    return st;
}
