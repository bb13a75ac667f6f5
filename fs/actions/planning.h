/* A plan in the making: what the store knows, decided on by the rules, described for people. */
#ifndef PLANNING_H
#define PLANNING_H

#include "actions/plan.h"
#include "actions_i.h"

struct planning {
    char uid[32];                 /* plan-… */
    char *rules;                  /* in their own order */
    struct store_fact *facts;
    struct plan_fact *given;      /* the same, for the planner */
    size_t n;
    struct plan_item *decided;    /* n, the newest first */
    struct store_plan_item *goes;
    size_t n_goes;
    int64_t snapshots, state_bytes; /* that it frees */
};

/* -EINVAL for rules that are none; what the store returns; -ENOMEM. */
int planning_make(struct engine *g, const char *rules, bool incoming, struct planning *ret, struct err *e);
void planning_clear(struct planning *p);
#define cleanup_planning __attribute__((cleanup(planning_clear)))

/* Its members for `result`: plan, rules, what goes, what is kept and why, what is freed, the line to type. */
void planning_describe(const struct planning *p, json_t *into);
/* One line that says it. Owned by the caller; NULL when out of memory. */
char *planning_message(const struct planning *p);

#endif
