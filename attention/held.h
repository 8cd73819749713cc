/* attention/held.h - device memory that attention on cuda holds beside its tensors, for plans of memory.
 *
 * Purpose   Lists of plans and planners are taken when they are first used; a memory plan has to know
 *           them before. In every build: a plan for a GPU can be made on any machine.
 * Units     bytes.
 */
#ifndef KN_ATTENTION_HELD_H
#define KN_ATTENTION_HELD_H

#include "attention/draft.h"
#include "attention/permute.h"

/* The lists of a plan for tensors of that many heads, with masks as on Hopper (elsewhere less), and k and v in its order
 * when it has one. int8: for 8-bit products. Builds the lists: half a second for a 1080p window. */
KN_CHECKED kn_status kn_attn_plan_held_bytes(const kn_attn_plan *plan, int heads, int head_dim, bool int8,
                                             size_t *bytes);
/* A planner's, within one percent: what sorting takes is estimated. More when lists outgrow a quarter of all pairs. */
size_t kn_draft_held_bytes(const kn_draft *draft);
/* With k and v in the chosen order, which planners share. */
size_t kn_permute_held_bytes(const kn_permute *permute);
size_t kn_permute_ordered_bytes(const kn_permute *permute);

#endif
