/* attention/tile_search.h - which tile windows lose least: measuring windows of tile3d, and choosing
 * one per head.
 *
 * Purpose   STA's offline search: the output of every candidate window (attention/tile3d.h) is
 *           compared with dense attention's, head by head, on queries, keys and values of a real
 *           run. Then each unit (a head of a layer, in a range of steps) gets a window, either the
 *           set with the least error under a mean density, or the cheapest under an error bound.
 * Formulas  error    sum over queries and channels of (window - dense)^2 / sum over all heads of
 *                    dense^2: what the head adds to its layer's squared relative error
 *           density  as kn_tile3d_density
 *           budget   units start at their cheapest window and move along the lower convex hull of
 *                    (density, error), the step that saves most error per density first: the least
 *                    error under the budget, but for the last step that does not fit
 * Cost      A sparse attention per window and look.
 * Memory    One plan per window; the caller gives room for one output.
 * Errors    KN_ERR_ARG, KN_ERR_NOMEM, those of attention.
 * Source    FastVideo STA_configuration.py (argmin of the mean squared error over candidates of
 *           equal density); the trade between heads under a budget is ours.
 */
#ifndef KN_ATTENTION_TILE_SEARCH_H
#define KN_ATTENTION_TILE_SEARCH_H

#include "attention/plan.h"

enum { KN_TILE_WINDOWS_MAX = 64 }; /* candidates */

typedef struct kn_tile_search {
    int windows;
    int window[KN_TILE_WINDOWS_MAX][3]; /* tiles on each axis, as measured: no wider than the grid */
    double density[KN_TILE_WINDOWS_MAX];
    kn_attn_plan *plan[KN_TILE_WINDOWS_MAX]; /* of one head, for all */
    int full;                                /* the window that holds every tile */
} kn_tile_search;

/* Candidates of a grid of tiles when nobody names any: 1, 3, about half and all tiles of each axis,
 * in all combinations. Returns their number, at most KN_TILE_WINDOWS_MAX. */
int kn_tile_search_candidates(const kn_attn_layout *layout, int window[KN_TILE_WINDOWS_MAX][3]);
/* window: [windows]. Each odd, or as many tiles as the axis has; wider ones are cut, equal ones
 * dropped, the full window is added. */
KN_CHECKED kn_status kn_tile_search_open(const kn_attn_layout *layout, int block,
                                         const int (*window)[3], int windows, kn_tile_search *out);
void kn_tile_search_close(kn_tile_search *s);

/* dense: arguments of an attention call that has run. out: room for another output like dense->out,
 * in d's memory. Adds to error[window * heads + head], and to own[...] the same with the head's own
 * dense^2 below. */
KN_CHECKED kn_status kn_tile_search_look(kn_dev *d, const kn_tile_search *s,
                                         const kn_attn_args *dense, const kn_tensor *out,
                                         double *error, double *own);

/* error: [units][windows]; weight: [units] share of the work that a unit stands for. choice: [units]
 * window of each. KN_ERR_ARG when the cheapest windows need more than the budget. */
KN_CHECKED kn_status kn_tile_choose_budget(const kn_tile_search *s, int units, const double *error,
                                           const double *weight, double budget, int *choice);
/* Per unit the window of least density whose error is at most `bound`; the full one if none. */
void kn_tile_choose_bound(const kn_tile_search *s, int units, const double *error, double bound,
                          int *choice);

#endif
