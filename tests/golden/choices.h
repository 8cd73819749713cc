/* tests/golden/choices.h - solvers and sigma grids by the names that the option table gives them. */
#ifndef KN_TESTS_GOLDEN_CHOICES_H
#define KN_TESTS_GOLDEN_CHOICES_H

#include "compare.h"

#include "pipeline/options.h"
#include "pipeline/solver.h"

static inline kn_options choices_set(const char *key, const char *name)
{
    kn_options o;
    must(kn_options_init(&o));
    must(kn_options_set(&o, key, name, KN_FROM_COMMAND_LINE, key));
    return o;
}

static inline kn_grid grid_named(const char *name)
{
    kn_options o = choices_set("grid", name);
    kn_grid grid = (kn_grid)(o.grid - 1);
    kn_options_free(&o);
    return grid;
}

static inline kn_solver_kind solver_named(const char *name)
{
    kn_options o = choices_set("solver", name);
    kn_solver_kind kind = (kn_solver_kind)o.solver;
    kn_options_free(&o);
    return kind;
}

#endif
