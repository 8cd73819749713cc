/* Any bytes as a command line (arguments end with a zero byte): taken or refused. What is taken reads
 * back as text that sets the same values, and its sizes, windows and lists become passes or a refusal. */
#include "pipeline/attention_map.h"
#include "pipeline/cli_common.h"
#include "pipeline/highres.h"
#include "tests/fuzz/fuzz.h"

enum { ARGS_MAX = 64 };

/* No option that reads a file: files are other targets' business. */
static bool reads_files(const char *arg)
{
    return strstr(arg, "conf") || strstr(arg, "from");
}

static void check_round_trip(const kn_options *o)
{
    kn_options again;
    char text[KN_OPTION_TEXT], back[KN_OPTION_TEXT];
    int count;
    const kn_option *table = kn_option_table(&count);
    if (!went_well(kn_options_init(&again))) return;
    for (int i = 0; i < count; i++) {
        if (table[i].type == KN_OPTION_SIZE || !*kn_options_text(o, &table[i], text)) continue;
        if (strlen(text) >= KN_OPTION_TEXT - 1) continue; /* cut: shown, never read back */
        if (!went_well(kn_options_set(&again, table[i].key, text, KN_FROM_COMMAND_LINE, "again"))) break;
        require(!strcmp(kn_options_text(&again, &table[i], back), text));
    }
    kn_options_free(&again);
}

static void build_passes(const kn_options *o)
{
    static const kn_dit_config dit = {.layers = 2, .heads = 2, .head_dim = 12, .in_channels = 16, .out_channels = 16,
                                      .text_dim = 8, .freq_dim = 8, .ffn_dim = 16, .patch = {1, 2, 2},
                                      .rope_max_positions = 1024, .eps = 1e-6};
    static const int64_t clip[2] = {640, 360};
    kn_pass pass[KN_PASSES_MAX];
    int count = 0, query[3];
    kn_status st = kn_passes_build(o, &dit, o->input ? clip : NULL, pass, &count);
    if (st != KN_OK) {
        require_blamed(st);
    } else {
        require(count >= 1 && count <= KN_PASSES_MAX);
        for (int i = 0; i < count; i++) require(pass[i].geo.tokens > 0 && pass[i].steps > 0);
    }
    if (o->attention_query && kn_attention_query_parse(o->attention_query, query) != KN_OK)
        require_refused(KN_ERR_ARG, KN_ERR_ARG, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size + 1), *argv[ARGS_MAX];
    int argc = 0;
    require(copy != NULL);
    if (size) memcpy(copy, data, size);
    copy[size] = '\0';
    bool files = false;
    for (size_t at = 0; at < size && argc < ARGS_MAX; at += strlen(copy + at) + 1) {
        argv[argc++] = copy + at;
        files |= reads_files(copy + at);
    }
    kn_options o = {0};
    kn_status st = files ? KN_OK : kn_cli_options(&o, argc, argv);
    if (!files && st == KN_OK) {
        json_t *all = kn_options_json(&o, 0);
        require(all || FUZZ_NOMEM);
        json_decref(all);
        check_round_trip(&o);
        st = kn_options_resolve(&o);
        if (st == KN_OK) build_passes(&o);
    }
    if (st != KN_OK) require_blamed(st);
    kn_options_free(&o);
    free(copy);
    return 0;
}
