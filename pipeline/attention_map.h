/* pipeline/attention_map.h - picture of an attention plan: which blocks of keys each block of queries
 * reads, and what one query sees on the latent frames.
 *
 * Purpose   `kinora plan --attention-map FILE` and --debug-dir. One square per list set (at most four
 *           heads), rows are query blocks from the top, columns are blocks of 128 keys in the plan's
 *           order; below, the latent frames with the receptive field of a chosen query.
 * Errors    KN_ERR_ARG (query off the grid), KN_ERR_NOMEM, those of kn_png_write.
 */
#ifndef KN_PIPELINE_ATTENTION_MAP_H
#define KN_PIPELINE_ATTENTION_MAP_H

#include "attention/plan.h"

typedef struct kn_attention_map {
    const kn_attn_plan *plan; /* with a grid */
    const char *title;        /* "refine 1: window 53x31 tokens ..." */
    int64_t host_dim;         /* of heads, where a CPU runs it: what it costs there is told; 0: a GPU */
    int head;                 /* first head drawn where heads differ */
    bool has_query;
    int query[3]; /* t, h, w in tokens; without has_query the middle of the grid is taken */
} kn_attention_map;

KN_CHECKED kn_status kn_attention_map_write(const kn_attention_map *map, const char *path);

/* "t,h,w" of --attention-query; KN_ERR_ARG names the option. */
KN_CHECKED kn_status kn_attention_query_parse(const char *text, int query[3]);

#endif
