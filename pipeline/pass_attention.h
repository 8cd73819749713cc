/* pipeline/pass_attention.h - the self-attention of one pass: which plan each layer gets at each step.
 *
 * Purpose   window, tile3d and cross have one plan for all layers and steps; draft, permute and paro choose
 *           blocks from each layer's queries and keys, and can keep a layer's lists for some steps. First
 *           steps and layers may stay dense. Tokens are kept in one order for the whole pass.
 * Memory    Lists and the planners' work space are host memory (a few bytes per block pair and head); on a
 *           GPU they are device memory, counted by kn_pass_attention_measure.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM; of a planner: KN_ERR_UNSUPPORTED.
 * Threads   One forward at a time.
 */
#ifndef KN_PIPELINE_PASS_ATTENTION_H
#define KN_PIPELINE_PASS_ATTENTION_H

#include "attention/draft.h"
#include "attention/permute.h"
#include "pipeline/highres.h"
#include "pipeline/tile_windows.h"

/* "window", "dense", ...: as --attention has it. */
const char *kn_attention_name(kn_attention_choice m);

enum { KN_BRANCH_PROMPT, KN_BRANCH_NEGATIVE, KN_BRANCH_FULL, KN_BRANCH_FULL_NEGATIVE, KN_BRANCHES };

/* A planner of one branch and layer (or of all of them, one after the other, when nothing is kept). */
typedef struct kn_layer_planner {
    kn_draft *draft;
    kn_permute *permute;
    uint8_t *axes;            /* paro: [heads] */
    const kn_attn_plan *kept; /* of the last step that planned */
    int period;               /* of that step, in --reuse-lists steps after the dense ones */
} kn_layer_planner;

typedef struct kn_pass_attention {
    const kn_pass *pass;
    const kn_dit_config *dit;
    kn_dev *dev;           /* of the tensors that planners look at */
    kn_attn_layout layout; /* of the pass's tokens */
    kn_attn_plan *plan;    /* of the methods that need no look at the tensors */
    kn_tile_windows windows;    /* --tile-windows; its ranges 0: none */
    kn_attn_plan **layer_plan;  /* [layers] of its current range, made when they are first asked for */
    int range;
    int32_t *order;        /* token order, for kn_dit_rope_open; NULL: raster */
    bool runs;             /* window: keys in unaligned runs */
    kn_layer_planner *planner; /* [KN_BRANCHES][layers] */
    double scale;          /* softmax scale of the pass */
    int step, branch;      /* of the forward at hand; step counts from the pass's first */
    double sigma;          /* its noise level */
    double density_sum;    /* of plans that were used; dense ones count 1 */
    int64_t density_count;
} kn_pass_attention;

/* dev: where the pass will run; its kind decides which form of a window is faster. */
KN_CHECKED kn_status kn_pass_attention_build(const kn_pass *pass, const kn_dit_config *dit, kn_dev *dev,
                                             kn_pass_attention *out);
/* On a measure device of a GPU: counts what plans and planners will take there (attention/held.h). */
KN_CHECKED kn_status kn_pass_attention_measure(kn_pass_attention *a);
/* Also gives back what the device keeps of its plans. */
void kn_pass_attention_free(kn_pass_attention *a);
/* Does a branch need plan_fn at all? No: args.plan = NULL is the whole truth. */
bool kn_pass_attention_dense(const kn_pass_attention *a, int branch);
/* Before each forward. */
void kn_pass_attention_at(kn_pass_attention *a, int step, double sigma, int branch);
/* What the first sparse step will read, where it is known: of all layers, or with --tile-windows of the middle
 * one. *plan NULL: chosen from the tensors, or dense. */
KN_CHECKED kn_status kn_pass_attention_known(kn_pass_attention *a, const kn_attn_plan **plan);
/* kn_dit_args.plans of the forward at hand: 0 where plans are chosen from tensors or change with the noise level. */
int kn_pass_attention_number(const kn_pass_attention *a);
/* kn_dit_plan_fn; user: the kn_pass_attention. */
kn_status kn_pass_attention_plan(void *user, int layer, const kn_tensor *q, const kn_tensor *k,
                                 const kn_attn_plan **plan);
/* May a run that is stopped after `done` steps of the pass go on with the same lists? Not between two
 * choices of lists that are kept, nor where the contexts of the second branch would have to be made anew
 * (pipeline/sampler.h) with lists that were chosen before its last refresh. */
bool kn_pass_attention_restartable(const kn_pass_attention *a, int done);
/* Share of dense work that the sparse steps will do, for estimates: known where lists are, else --density or
 * --mass, which is more than permute and paro will need. */
double kn_pass_attention_expected(const kn_pass_attention *a);
/* Host memory of its lists, and of the planners that will make lists, as far as their sizes follow from the
 * options. */
size_t kn_pass_attention_bytes(const kn_pass_attention *a);
/* "window 53x31 tokens (20.1% of dense), tiles 21x3x2": for people. */
enum { KN_ATTENTION_TEXT = 200 };
const char *kn_pass_attention_text(const kn_pass_attention *a, char buf[KN_ATTENTION_TEXT]);

#endif
