/* Any bytes as JSON: read or refused; what is read is written and reads back equal; as a config,
 * its tree is sound. */
#include "io/config.h"
#include "io/json.h"
#include "io/memory.h"
#include "tests/fuzz/fuzz.h"

static void check_tree(const kn_node *n, const kn_node *parent, int depth)
{
    int number;
    double real;
    const char *text;
    require(n->parent == parent && depth <= KN_CONFIG_MAX_DEPTH);
    require((n->kind == KN_NODE_SCALAR) == (n->text != NULL));
    for (int i = 0; i < n->count; i++) {
        const kn_node *child = &n->item[i];
        require((child->key != NULL) == (n->kind == KN_NODE_MAP));
        if (child->key && i < 100) {
            require(kn_node_find(n, child->key) == child);
            if (kn_node_int(n, child->key, 0, 9, &number) == KN_OK) require(number <= 9);
            if (kn_node_double(n, child->key, 0, 9, &real) == KN_OK)
                require(real >= 0 && real <= 9);
            if (kn_node_string(n, child->key, &text) == KN_OK) require(text == child->text);
        }
        check_tree(child, n, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *value, *again;
    kn_config *config;
    kn_text t = {0};
    kn_status st = kn_json_parse("fuzz.json", (const char *)data, size, 100000, &value);
    if (st == KN_OK) {
        if (went_well(kn_json_add_value(&t, value)) &&
            went_well(kn_json_parse("again.json", t.data, t.size, 100000, &again))) {
            require(json_equal(value, again));
            json_decref(again);
        }
        json_decref(value);
        kn_free(t.data);
    } else {
        require_refused(st, KN_ERR_FORMAT, "fuzz.json: ");
    }
    st = kn_config_parse("c.json", KN_CONFIG_JSON, (const char *)data, size, &config);
    if (st == KN_OK)
        check_tree(kn_config_root(config), NULL, 0);
    else
        require_refused(st, KN_ERR_FORMAT, "c.json:");
    kn_config_close(&config);
    return 0;
}
