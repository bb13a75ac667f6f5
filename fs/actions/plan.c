/* The planner of prune: see include/actions/plan.h. */
#include "actions/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

/* Where an item is, by the uid of its checkpoint. */
struct place {
    const char *uid;
    struct plan_item *item;
    UT_hash_handle hh;
};

/* How many came before, the item itself counted. */
struct counts {
    int64_t checkpoints, snapshots;
};

static int newest_first(const void *a, const void *b)
{
    int64_t x = ((const struct plan_item *)a)->fact->seq;
    int64_t y = ((const struct plan_item *)b)->fact->seq;

    return (x < y) - (x > y);
}

/* Why it is kept with all that it has; NULL = it needn't be. */
static const char *kept(const struct plan_fact *f, const struct rules *r, int64_t age, const struct counts *nth)
{
    if (f->busy)
        return "something is under way on it";
    if (f->pinned)
        return "pinned";
    if (f->branched)
        return "isolated branches were made of it";
    if (r->keep_pending && f->pending)
        return "awaits a decision";
    if (r->keep_last >= 0 && nth->checkpoints <= r->keep_last)
        return "among the last";
    if (r->older_than_ns >= 0 && age <= r->older_than_ns)
        return "not old enough";
    return NULL;
}

static bool beyond(const struct reach *r, int64_t nth, int64_t age)
{
    return r->given && (r->count >= 0 ? nth > r->count : age > r->age_ns);
}

static void keep(struct plan_item *i, const char *why)
{
    i->what = i->snapshot_may_go ? PLAN_SNAPSHOT : PLAN_KEEP;
    i->why = i->snapshot_may_go ? "its snapshot is beyond snapshots=" : why;
}

static void decide(struct plan_item *i, const struct rules *r, int64_t now, bool incoming, const struct counts *nth)
{
    const struct plan_fact *f = i->fact;
    int64_t age = now - f->created_at;

    i->why = kept(f, r, age, nth);
    if (i->why)
        return;
    i->snapshot_may_go = f->has_snapshot && beyond(&r->snapshots, nth->snapshots + incoming, age) &&
                         (!f->latest || (incoming && r->snapshots.count >= 0));
    if (f->latest) {
        keep(i, "the latest");
    } else if (!r->snapshots.given && !r->states.given) {
        i->what = PLAN_WHOLE;
        i->why = "no rule keeps it";
    } else if (beyond(&r->states, nth->checkpoints, age)) {
        i->what = PLAN_WHOLE;
        i->why = "beyond states=";
    } else if (i->snapshot_may_go && !f->state_bytes) {
        i->what = PLAN_WHOLE;
        i->why = "its snapshot is beyond snapshots=, and it has no state";
    } else {
        keep(i, "within the rules");
    }
}

/* What is kept keeps its parent, and so on up: each step makes one more kept, so the way up ends. */
static void keep_parents(struct place *places, const struct plan_item *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct plan_item *child = &items[i];

        while (child->what != PLAN_WHOLE && child->fact->parent) {
            struct place *p;

            HASH_FIND_STR(places, child->fact->parent, p);
            if (!p || p->item->what != PLAN_WHOLE)
                break;
            keep(p->item, "the parent of one that is kept");
            p->item->parent_of = child->fact->name;
            child = p->item;
        }
    }
}

int plan_make(const struct plan_fact *facts, size_t n, const struct rules *rules, int64_t now, bool incoming, struct plan_item **ret)
{
    struct plan_item *items = calloc(n + 1, sizeof(*items));
    struct place *places = calloc(n + 1, sizeof(*places));
    struct place *by_uid = NULL;
    struct counts nth = {0};

    if (!items || !places) {
        free(items);
        free(places);
        return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++)
        items[i].fact = &facts[i];
    qsort(items, n, sizeof(*items), newest_first);
    for (size_t i = 0; i < n; i++) {
        const struct plan_fact *f = items[i].fact;

        nth.checkpoints++;
        nth.snapshots += f->has_snapshot;
        decide(&items[i], rules, now, incoming, &nth);
        places[i] = (struct place){.uid = f->uid, .item = &items[i]};
        HASH_ADD_KEYPTR(hh, by_uid, places[i].uid, strlen(places[i].uid), &places[i]);
    }
    keep_parents(by_uid, items, n);
    HASH_CLEAR(hh, by_uid);
    free(places);
    *ret = items;
    return 0;
}
