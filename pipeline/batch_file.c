#include "pipeline/batch_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "io/atomic_file.h"
#include "io/config.h"
#include "io/memory.h"
#include "io/path.h"
#include "io/text.h"
#include "pipeline/batch_table.h"
#include "pipeline/preset.h"

enum { LIMIT_BYTES = 16 << 20, SLUG_BYTES = 48, NAME_BYTES = 160, WHERE_CHARS = 400 };

/* One setting of the job that is being built; borrowed texts. */
typedef struct setting {
    const char *key, *value;
    const char *where;   /* "table.csv line 3", or NULL: of node */
    const kn_node *node; /* or NULL: of the matrix */
} setting;

enum { SETTINGS_MAX = 4 * KN_OPTION_MAX };

typedef struct reader {
    const char *path;
    const kn_options *base;
    kn_batch_file *out;
    const kn_node *defaults;
    const kn_node *job; /* NULL: a bare table */
    setting list[SETTINGS_MAX];
    int count;
    char suffix[NAME_BYTES]; /* matrix values, for the name */
    /* Names that are taken: a hash table of entries + 1, and how often each was asked for again. */
    int *slot, *again;
} reader;

/* ---- names ------------------------------------------------------------------------------------*/

/* A control character of one byte, or of two: U+0080 to U+009F. */
static bool is_control(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    return *p < 0x20 || *p == 0x7f || (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0);
}

void kn_batch_slug(const char *text, size_t limit, char *out)
{
    size_t n = 0, word = 0;
    for (; *text && n < limit; text++) {
        unsigned char c = (unsigned char)*text;
        if (is_control(text)) {
            text += c == 0xc2;
            c = ' ';
        }
        bool upper = c >= 'A' && c <= 'Z', plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80;
        if (upper || plain) {
            out[n++] = (char)(upper ? c - 'A' + 'a' : c);
        } else if (n > 0 && out[n - 1] != '-') {
            word = n;
            out[n++] = '-';
        }
    }
    if (*text && word > limit / 2) n = word;              /* no half words */
    while (*text && n > 0 && ((unsigned char)*text & 0xc0) == 0x80) { /* no half letters */
        text--;
        n--;
    }
    while (n > 0 && out[n - 1] == '-') n--;
    out[n] = '\0';
}

/* template with {name}, {index}, {KEY} filled in. */
static kn_status fill(const char *template, const kn_batch_entry *e, char **out)
{
    kn_text t = {0};
    kn_status st = kn_text_add(&t, "");
    for (const char *p = template; st == KN_OK && *p;) {
        size_t n = strcspn(p, "{");
        st = kn_text_add_bytes(&t, p, n);
        p += n;
        if (!*p || st != KN_OK) break;
        size_t len = strcspn(++p, "}");
        char key[64], text[KN_OPTION_TEXT];
        const kn_option *opt;
        snprintf(key, sizeof key, "%.*s", (int)(len < 63 ? len : 63), p);
        if (!p[len])
            st = kn_fail(KN_ERR_ARG, "'%s': expected a } after {%s", template, key);
        else if (!strcmp(key, "name"))
            st = kn_text_add(&t, e->name ? e->name : "");
        else if (!strcmp(key, "index"))
            st = kn_text_addf(&t, "%04d", e->index);
        else if ((opt = kn_option_find(key)) != NULL) {
            char slug[SLUG_BYTES + 1];
            kn_batch_slug(kn_options_text(&e->o, opt, text), SLUG_BYTES, slug);
            st = kn_text_add(&t, slug);
        } else
            st = kn_fail(KN_ERR_ARG, "'%s': {%s} is neither name, index nor an option", template, key);
        p += len + 1;
    }
    if (st != KN_OK) kn_free(t.data), t.data = NULL;
    *out = t.data;
    return st;
}

static kn_status default_name(const reader *r, const kn_batch_entry *e, char **out)
{
    char slug[SLUG_BYTES + 1] = "";
    if (e->o.prompt)
        kn_batch_slug(e->o.prompt, SLUG_BYTES, slug);
    else if (e->o.prompt_file) {
        const char *base = strrchr(e->o.prompt_file, '/');
        kn_batch_slug(base ? base + 1 : e->o.prompt_file, SLUG_BYTES, slug);
    }
    return kn_asprintf(out, "%s%s", *slug ? slug : "job", r->suffix);
}

enum { SLOTS = 4 * KN_BATCH_MAX }; /* a power of two, so that most slots stay empty */

/* Place of the name in r->slot, or of the empty slot where it belongs. */
static size_t name_slot(const reader *r, const char *name)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (const char *p = name; *p; p++) h = (h ^ (unsigned char)*p) * 16777619u;
    size_t i = h % SLOTS;
    while (r->slot[i] && strcmp(r->out->entry[r->slot[i] - 1].name, name)) i = (i + 1) % SLOTS;
    return i;
}

static kn_status make_name(reader *r, kn_batch_entry *e, const char *template)
{
    char *name;
    KN_TRY(template ? fill(template, e, &name) : default_name(r, e, &name));
    for (char *p = name; *p; p++) {
        bool two = is_control(p) && (unsigned char)*p == 0xc2;
        if (*p == '/' || is_control(p)) *p = '-'; /* a name is no path, and stands in tables */
        if (two) *++p = '-';
    }
    char *tried = name;
    int first = r->slot[name_slot(r, name)]; /* the job that has the name, + 1 */
    kn_status st = KN_OK;
    while (st == KN_OK && r->slot[name_slot(r, tried)]) {
        if (tried != name) kn_free(tried);
        st = kn_asprintf(&tried, "%s-%d", name, ++r->again[first - 1] + 1);
    }
    if (tried != name) kn_free(name);
    if (st != KN_OK) return st;
    e->name = tried;
    r->slot[name_slot(r, tried)] = e->index;
    return KN_OK;
}

/* ---- one job ----------------------------------------------------------------------------------*/

/* A batch file comes from anyone: what it names to be written stays in the output folder, and its names do not lead
 * up from the folder that the command line names with them. */
static kn_status check_place(const reader *r, const kn_batch_entry *e, const kn_option *opt, const char *template, const char *filled)
{
    if (kn_options_source(&e->o, opt) == KN_FROM_COMMAND_LINE) {
        if (kn_path_steps_up(filled) <= kn_path_steps_up(template)) return KN_OK;
        return kn_fail(KN_ERR_ARG, "%s %s: expected a name for {name} that is no place, found '%s'", opt->key, template, e->name);
    }
    if (kn_path_is_below(filled) || (*filled == '/' && kn_path_is_in(r->base->output_dir, filled))) return KN_OK;
    return kn_fail(KN_ERR_ARG, "%s: expected a place in the output folder %s, found '%s'; another folder can be given on the command line",
                   opt->key, r->base->output_dir, filled);
}

/* A written path with its placeholders filled in, in the output folder unless it is absolute. */
static kn_status place_path(const reader *r, kn_batch_entry *e, const char *key, const char *fallback)
{
    const kn_option *opt = kn_option_find(key);
    char text[KN_OPTION_TEXT], where[80];
    const char *template = kn_options_text(&e->o, opt, text);
    if (!*template) template = fallback;
    if (!template) return KN_OK;
    char *filled, *path;
    KN_TRY(fill(template, e, &filled));
    kn_status st = check_place(r, e, opt, template, filled);
    if (st != KN_OK) {
        kn_free(filled);
        return st;
    }
    st = *filled == '/' ? kn_strdup(filled, &path) : kn_asprintf(&path, "%s/%s", r->base->output_dir, filled);
    kn_free(filled);
    KN_TRY(st);
    snprintf(where, sizeof where, "job %d: %s", e->index, key);
    st = kn_options_set(&e->o, key, path, KN_FROM_COMMAND_LINE, where);
    kn_free(path);
    return st;
}

/* A folder for each job, or the next would write over what one shows. */
static kn_status place_debug(const reader *r, kn_batch_entry *e)
{
    if (!e->o.debug_dir) return KN_OK;
    char *each;
    KN_TRY(kn_asprintf(&each, "%s%s", e->o.debug_dir, strchr(e->o.debug_dir, '{') ? "" : "/{name}"));
    kn_status st = kn_options_set(&e->o, "debug-dir", each, KN_FROM_COMMAND_LINE, "debug-dir");
    kn_free(each);
    return st == KN_OK ? place_path(r, e, "debug-dir", NULL) : st;
}

/* Where a setting stands, for messages. */
static const char *place_of(const reader *r, const setting *s, char where[WHERE_CHARS])
{
    if (s->where || !s->node->line)
        snprintf(where, WHERE_CHARS, "%s: %s", s->where ? s->where : r->path, s->key);
    else
        snprintf(where, WHERE_CHARS, "%s line %d: %s", r->path, s->node->line, s->key);
    return where;
}

static kn_status apply_settings(reader *r, kn_batch_entry *e)
{
    const char *preset = r->base->preset, *name = NULL;
    char where[WHERE_CHARS];
    for (int i = 0; i < r->count; i++) {
        const setting *s = &r->list[i];
        if (!strcmp(s->key, "name"))
            name = s->value;
        else if (!strcmp(s->key, "preset"))
            preset = r->base->preset ? r->base->preset : s->value;
        else
            KN_TRY(kn_options_set(&e->o, s->key, s->value, KN_FROM_CONFIG, place_of(r, s, where)));
    }
    if (preset) KN_TRY(kn_preset_apply(preset, &e->o, NULL));
    if (preset) KN_TRY(kn_options_set(&e->o, "preset", preset, KN_FROM_COMMAND_LINE, "preset"));
    KN_TRY(make_name(r, e, name));
    static const char *const paths[] = {"preview", "frames-dir", "contact-sheet", "latents-out", "embeds-out"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) KN_TRY(place_path(r, e, paths[i], NULL));
    KN_TRY(place_debug(r, e));
    return place_path(r, e, "output", e->o.latents_out ? NULL : "{name}.mp4");
}

static kn_status add_entry(reader *r)
{
    kn_batch_file *b = r->out;
    if (b->count == KN_BATCH_MAX)
        return kn_fail(KN_ERR_ARG, "%s: more than %d jobs", r->path, (int)KN_BATCH_MAX);
    if ((b->count & (b->count - 1)) == 0) { /* grow at powers of two */
        kn_batch_entry *grown;
        KN_TRY(kn_alloc_array((size_t)(b->count ? 2 * b->count : 1), sizeof *grown, (void **)&grown));
        if (b->count) memcpy(grown, b->entry, (size_t)b->count * sizeof *grown);
        kn_free(b->entry);
        b->entry = grown;
    }
    kn_batch_entry *e = &b->entry[b->count];
    *e = (kn_batch_entry){.index = b->count + 1};
    KN_TRY(kn_options_copy(r->base, &e->o));
    e->status = apply_settings(r, e);
    b->count++;
    if (e->status == KN_OK) return KN_OK;
    if (e->status == KN_ERR_NOMEM) return e->status;
    KN_TRY(kn_strdup(kn_error_text(), &e->error));
    kn_error_clear();
    const char *name = NULL;
    for (int i = 0; i < r->count; i++)
        if (!strcmp(r->list[i].key, "name")) name = r->list[i].value;
    if (!e->name && make_name(r, e, name) == KN_OK) return KN_OK;
    kn_error_clear();
    if (e->name) return KN_OK;
    return kn_asprintf(&e->name, "job-%d", e->index);
}

/* ---- matrices, rows and lines -----------------------------------------------------------------*/

static kn_status push(reader *r, setting s)
{
    if (r->count == SETTINGS_MAX) return kn_fail(KN_ERR_ARG, "%s: more than %d settings in one job", r->path, (int)SETTINGS_MAX);
    r->list[r->count++] = s;
    return KN_OK;
}

static bool known_key(const char *key) { return kn_option_find(key) || !strcmp(key, "name"); }

static kn_status unknown_key(const kn_node *n)
{
    const char *near = kn_option_nearest(n->key);
    return kn_node_fail(KN_ERR_ARG, n, "expected the name of an option, found '%s'%s%s%s", n->key, near ? "; did you mean '" : "",
                        near ? near : "", near ? "'?" : "");
}

/* "3..7"; a single number is no range. */
static bool range_of(const char *text, int64_t *from, int64_t *to)
{
    char low[32];
    const char *dots = strstr(text, "..");
    if (!dots || dots - text >= (long)sizeof low) return false;
    snprintf(low, sizeof low, "%.*s", (int)(dots - text), text);
    return kn_text_to_int(low, from) && kn_text_to_int(dots + 2, to) && *from <= *to;
}

static kn_status each_combination(reader *r, const kn_node *matrix, int at);

static kn_status one_value(reader *r, const kn_node *matrix, int at, const char *value)
{
    const char *key = matrix->item[at].key;
    size_t had = strlen(r->suffix);
    char slug[SLUG_BYTES + 1];
    kn_batch_slug(value, 24, slug);
    if (strcmp(key, "prompt") && strcmp(key, "name"))
        snprintf(r->suffix + had, sizeof r->suffix - had, "-%s%s", strcmp(key, "preset") ? key : "", slug);
    KN_TRY(push(r, (setting){.key = key, .value = value, .node = &matrix->item[at]}));
    KN_TRY(each_combination(r, matrix, at + 1));
    r->count--;
    r->suffix[had] = '\0';
    return KN_OK;
}

static kn_status each_combination(reader *r, const kn_node *matrix, int at)
{
    if (!matrix || at == matrix->count) return add_entry(r);
    const kn_node *n = &matrix->item[at];
    if (!known_key(n->key)) return unknown_key(n);
    int64_t from, to;
    int items = n->kind == KN_NODE_LIST ? n->count : 1;
    if (n->kind == KN_NODE_MAP || items == 0) return kn_node_fail(KN_ERR_ARG, n, "expected a list of values");
    for (int i = 0; i < items; i++) {
        const kn_node *v = n->kind == KN_NODE_LIST ? &n->item[i] : n;
        if (v->kind != KN_NODE_SCALAR) return kn_node_fail(KN_ERR_ARG, v, "expected one value");
        if (v->scalar != KN_SCALAR_STRING && range_of(v->text, &from, &to)) {
            for (int64_t k = from;; k++) {
                char number[24];
                snprintf(number, sizeof number, "%" PRId64, k);
                KN_TRY(one_value(r, matrix, at, number));
                if (k == to) break; /* not k <= to: the last one may be INT64_MAX */
            }
        } else {
            KN_TRY(one_value(r, matrix, at, v->text));
        }
    }
    return KN_OK;
}

/* The prompts and tables of a batch are parts of it: they stand beside it or below. */
static kn_status beside(const char *file, const char *name, char **out)
{
    const char *slash = strrchr(file, '/');
    if (!kn_path_is_below(name))
        return kn_fail(KN_ERR_ARG, "%s: expected a file in the batch file's folder, found '%s'", file, name);
    if (!slash) return kn_strdup(name, out);
    return kn_asprintf(out, "%.*s/%s", (int)(slash - file), file, name);
}

static kn_status each_line(reader *r, const kn_node *matrix, const char *path)
{
    char *text;
    size_t size;
    KN_TRY(kn_file_read(path, LIMIT_BYTES, &text, &size));
    kn_status st = strlen(text) == size && kn_text_is_utf8(text) ? KN_OK : kn_fail(KN_ERR_FORMAT, "%s: expected UTF-8 text", path);
    int number = 0, found = 0;
    for (char *line = text; st == KN_OK && line;) {
        char where[300], *end = strchr(line, '\n');
        if (end) *end = '\0';
        number++;
        line[strcspn(line, "\r")] = '\0';
        line += strspn(line, " \t");
        if (*line && *line != '#') {
            int had = r->count;
            snprintf(where, sizeof where, "%s line %d", path, number);
            st = push(r, (setting){.key = "prompt", .value = line, .where = where});
            if (st == KN_OK) st = each_combination(r, matrix, 0);
            r->count = had;
            found++;
        }
        line = end ? end + 1 : NULL;
    }
    if (st == KN_OK && !found) st = kn_fail(KN_ERR_ARG, "%s: expected a prompt per line, found none", path);
    kn_free(text);
    return st;
}

static kn_status each_row(reader *r, const kn_node *matrix, const char *path)
{
    kn_batch_table table;
    KN_TRY(kn_batch_table_read(path, &table));
    kn_status st = KN_OK;
    for (int c = 0; st == KN_OK && c < table.cols; c++)
        if (!known_key(table.cell[c])) {
            const char *near = kn_option_nearest(table.cell[c]);
            st = kn_fail(KN_ERR_ARG, "%s line 1: expected the name of an option, found '%s'%s%s%s", path, table.cell[c],
                         near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        }
    for (int i = 1; st == KN_OK && i < table.rows; i++) {
        int had = r->count;
        char where[300];
        snprintf(where, sizeof where, "%s line %d", path, table.line[i]);
        for (int c = 0; st == KN_OK && c < table.cols; c++) {
            const char *value = table.cell[i * table.cols + c];
            if (*value) st = push(r, (setting){.key = table.cell[c], .value = value, .where = where}); /* an empty cell sets nothing */
        }
        if (st == KN_OK) st = each_combination(r, matrix, 0);
        r->count = had;
    }
    kn_batch_table_free(&table);
    return st;
}

/* ---- the file ---------------------------------------------------------------------------------*/

static kn_status push_map(reader *r, const kn_node *map)
{
    for (int i = 0; i < map->count; i++) {
        const kn_node *n = &map->item[i];
        if (map == r->job && (!strcmp(n->key, "matrix") || !strcmp(n->key, "prompts") || !strcmp(n->key, "csv"))) continue;
        if (!known_key(n->key)) return unknown_key(n);
        if (n->kind != KN_NODE_SCALAR)
            return kn_node_fail(KN_ERR_ARG, n, "expected one value; lists stand under `matrix:`");
        KN_TRY(push(r, (setting){.key = n->key, .value = n->text, .node = n}));
    }
    return KN_OK;
}

static kn_status read_job(reader *r)
{
    const char *prompts = NULL, *csv = NULL;
    const kn_node *matrix = kn_node_find(r->job, "matrix");
    char *path = NULL;
    r->count = 0;
    r->suffix[0] = '\0';
    if (r->job->kind != KN_NODE_MAP) return kn_node_fail(KN_ERR_ARG, r->job, "expected a job: a map of options");
    if (matrix && matrix->kind != KN_NODE_MAP) return kn_node_fail(KN_ERR_ARG, matrix, "expected a map of options to lists");
    if (r->defaults) KN_TRY(push_map(r, r->defaults));
    KN_TRY(push_map(r, r->job));
    KN_TRY(kn_node_string_or(r->job, "prompts", NULL, &prompts));
    KN_TRY(kn_node_string_or(r->job, "csv", NULL, &csv));
    if (prompts && csv) return kn_node_fail(KN_ERR_ARG, r->job, "expected prompts or csv, found both");
    if (!prompts && !csv) return each_combination(r, matrix, 0);
    KN_TRY(beside(r->path, prompts ? prompts : csv, &path));
    kn_status st = prompts ? each_line(r, matrix, path) : each_row(r, matrix, path);
    kn_free(path);
    return st;
}

static kn_status read_config(reader *r, const kn_node *root)
{
    for (int i = 0; i < root->count; i++)
        if (strcmp(root->item[i].key, "defaults") && strcmp(root->item[i].key, "jobs") && strcmp(root->item[i].key, "about"))
            return kn_node_fail(KN_ERR_ARG, &root->item[i], "expected defaults or jobs, found '%s'", root->item[i].key);
    r->defaults = kn_node_find(root, "defaults");
    if (r->defaults && kn_node_is_null(r->defaults)) r->defaults = NULL;
    if (r->defaults && r->defaults->kind != KN_NODE_MAP) return kn_node_fail(KN_ERR_ARG, r->defaults, "expected a map of options");
    const kn_node *jobs = kn_node_find(root, "jobs");
    if (!jobs || jobs->kind != KN_NODE_LIST || jobs->count == 0)
        return kn_node_fail(KN_ERR_ARG, jobs ? jobs : root, "expected `jobs:`, a list of jobs");
    for (int i = 0; i < jobs->count; i++) {
        r->job = &jobs->item[i];
        KN_TRY(read_job(r));
    }
    return KN_OK;
}

const char *kn_batch_path(const kn_options *o)
{
    return o->output ? o->output : o->latents_out;
}

typedef struct written {
    const char *path;
    const kn_batch_entry *entry;
} written;

enum { WRITTEN_MAX = 5 };

/* What the job leaves behind; not its preview, which is made to be replaced. */
static int written_by(const kn_batch_entry *e, written out[WRITTEN_MAX])
{
    const kn_options *o = &e->o;
    const char *const paths[WRITTEN_MAX] = {o->output, o->latents_out, o->embeds_out, o->contact_sheet, o->frames_dir};
    int n = 0;
    for (int i = 0; i < WRITTEN_MAX; i++)
        if (paths[i]) out[n++] = (written){paths[i], e};
    return n;
}

static int by_path(const void *a, const void *b)
{
    const written *x = a, *y = b;
    int order = strcmp(x->path, y->path);
    return order ? order : x->entry->index - y->entry->index;
}

static kn_status check_distinct(const reader *r)
{
    const kn_batch_file *b = r->out;
    written *all;
    kn_status st = KN_OK;
    size_t n = 0;
    KN_TRY(kn_alloc_array((size_t)b->count, WRITTEN_MAX * sizeof *all, (void **)&all));
    for (int i = 0; i < b->count; i++)
        if (b->entry[i].status == KN_OK) n += (size_t)written_by(&b->entry[i], all + n);
    if (n) qsort(all, n, sizeof *all, by_path);
    for (size_t i = 1; i < n && st == KN_OK; i++) {
        const kn_batch_entry *x = all[i - 1].entry, *y = all[i].entry;
        if (x != y && !strcmp(all[i - 1].path, all[i].path))
            st = kn_fail(KN_ERR_ARG, "%s: jobs %d (%s) and %d (%s) both write %s; put {name} or {seed} into its name", r->path,
                         x->index, x->name, y->index, y->name, all[i].path);
    }
    kn_free(all);
    return st;
}

kn_status kn_batch_file_read(const char *path, const kn_options *base, kn_batch_file *out)
{
    reader r = {.path = path, .base = base, .out = out};
    size_t n = strlen(path);
    kn_config *config = NULL;
    kn_status st = KN_OK;
    *out = (kn_batch_file){0};
    if (!kn_text_is_utf8(base->output_dir)) /* results.jsonl could not name what lies in it */
        return kn_fail(KN_ERR_ARG, "--output-dir: expected UTF-8 text, found '%s'", base->output_dir);
    KN_TRY_GOTO(kn_alloc_array(SLOTS, sizeof *r.slot, (void **)&r.slot));
    KN_TRY_GOTO(kn_alloc_array(KN_BATCH_MAX, sizeof *r.again, (void **)&r.again));
    if (n > 4 && !strcasecmp(path + n - 4, ".csv")) {
        KN_TRY_GOTO(each_row(&r, NULL, path));
    } else if (n > 4 && !strcasecmp(path + n - 4, ".txt")) {
        KN_TRY_GOTO(each_line(&r, NULL, path));
    } else {
        KN_TRY_GOTO(kn_config_open(path, &config));
        KN_TRY_GOTO(read_config(&r, kn_config_root(config)));
    }
    KN_TRY_GOTO(check_distinct(&r));
done:
    kn_config_close(&config);
    kn_free(r.slot);
    kn_free(r.again);
    if (st != KN_OK) kn_batch_file_free(out);
    return st;
}

void kn_batch_file_free(kn_batch_file *b)
{
    for (int i = 0; i < b->count; i++) {
        kn_options_free(&b->entry[i].o);
        kn_free(b->entry[i].name);
        kn_free(b->entry[i].error);
    }
    kn_free(b->entry);
    *b = (kn_batch_file){0};
}
