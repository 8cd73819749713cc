/* Any bytes as YAML: read or refused with a place; what is read is a sound tree. */
#include "io/config.h"
#include "tests/fuzz/fuzz.h"

static int check_tree(const kn_node *n, const kn_node *parent, int depth)
{
    int nodes = 1, flag;
    const char *text;
    require(n->parent == parent && depth <= KN_CONFIG_MAX_DEPTH);
    require((n->kind == KN_NODE_SCALAR) == (n->text != NULL));
    require(!parent || (n->line >= parent->line && n->column >= 1));
    for (int i = 0; i < n->count; i++) {
        const kn_node *child = &n->item[i];
        require((child->key != NULL) == (n->kind == KN_NODE_MAP));
        require(child->scalar != KN_SCALAR_LITERAL);
        if (child->key && i < 100) {
            require(kn_node_find(n, child->key) == child);
            if (kn_node_bool(n, child->key, &flag) == KN_OK) require(flag == 0 || flag == 1);
            if (kn_node_string_or(n, child->key, "", &text) == KN_OK)
                require(text == child->text || !*text);
        }
        nodes += check_tree(child, n, depth + 1);
    }
    return nodes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kn_config *config;
    kn_status st = kn_config_parse("c.yaml", KN_CONFIG_YAML, (const char *)data, size, &config);
    if (st == KN_OK) {
        const kn_node *root = kn_config_root(config);
        require(check_tree(root, NULL, 0) <= KN_CONFIG_MAX_NODES + 1);
        if (kn_node_check_flat(root) != KN_OK) require(strncmp(kn_error_text(), "c.yaml:", 7) == 0);
    } else {
        require_refused(st, KN_ERR_FORMAT, "c.yaml:");
    }
    kn_config_close(&config);
    return 0;
}
