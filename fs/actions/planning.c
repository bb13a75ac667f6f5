/* A plan in the making: see planning.h. */
#include "planning.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/hash.h"
#include "util/text.h"

#define PLAN_DIGITS 12

void planning_clear(struct planning *p)
{
    store_plan_items_free(p->goes, p->n_goes);
    free(p->decided);
    free(p->given);
    free(p->rules);
    store_facts_free(p->facts, p->n);
    *p = (struct planning){0};
}

static char *why_of(const struct plan_item *i)
{
    return i->parent_of ? str_format("the parent of %s, which is kept", i->parent_of) : str_dup(i->why);
}

static int add_goes(struct planning *p, const struct plan_item *i)
{
    const struct plan_fact *f = i->fact;
    bool whole = i->what == PLAN_WHOLE;
    struct store_plan_item *x = &p->goes[p->n_goes++];

    *x = (struct store_plan_item){
        .checkpoint = f->id, .uid = str_dup(f->uid), .name = str_dup(f->name), .why = str_dup(i->why), .whole = whole,
        .pending = f->pending, .latest = f->latest, .has_snapshot = f->has_snapshot, .state_bytes = whole ? f->state_bytes : 0,
    };
    p->snapshots += x->has_snapshot;
    p->state_bytes += x->state_bytes;
    return x->uid && x->name && x->why ? 0 : -ENOMEM;
}

/* Who has a parent came into the store after it, also where it is an import, whose place in the line is before everything: a parent is
 * deleted after its children, else it would be kept for their sake. */
static int children_first(const void *a, const void *b)
{
    int64_t x = ((const struct store_plan_item *)a)->checkpoint;
    int64_t y = ((const struct store_plan_item *)b)->checkpoint;

    return (x < y) - (x > y);
}

static int select_items(struct planning *p, const struct rules *rules, bool incoming)
{
    int r;

    p->given = calloc(p->n + 1, sizeof(*p->given));
    p->goes = calloc(p->n + 1, sizeof(*p->goes));
    if (!p->given || !p->goes)
        return -ENOMEM;
    for (size_t i = 0; i < p->n; i++) {
        const struct store_fact *f = &p->facts[i];

        p->given[i] = (struct plan_fact){
            .id = f->id, .uid = f->uid, .name = f->name, .parent = f->parent, .seq = f->seq, .created_at = f->created_at,
            .state_bytes = f->state_bytes, .has_snapshot = f->has_snapshot, .pinned = f->pinned, .pending = f->pending, .busy = f->busy,
            .branched = f->branched, .latest = f->latest,
        };
    }
    r = plan_make(p->given, p->n, rules, clock_now(), incoming, &p->decided);
    for (size_t i = 0; r == 0 && i < p->n; i++)
        if (p->decided[i].what != PLAN_KEEP)
            r = add_goes(p, &p->decided[i]);
    if (p->n_goes)
        qsort(p->goes, p->n_goes, sizeof(*p->goes), children_first);
    return r;
}

int planning_make(struct engine *g, const char *text, bool incoming, struct planning *ret, struct err *e)
{
    struct planning p = {.uid = "plan-"};
    struct buf in_order = {0};
    struct rules rules;
    int r = rules_parse(text, &rules, e);

    if (r == 0 && random_hex(p.uid + strlen(p.uid), PLAN_DIGITS) < 0)
        r = err_set(e, EIO, "no random numbers");
    if (r == 0)
        r = store_facts(g->c.store, g->line_id, &p.facts, &p.n, e);
    if (r == 0) {
        rules_text(&rules, &in_order);
        p.rules = buf_steal(&in_order);
        r = p.rules && select_items(&p, &rules, incoming) == 0 ? 0 : err_set(e, ENOMEM, "out of memory");
    }
    if (r < 0)
        planning_clear(&p);
    else
        *ret = p;
    return r;
}

/* ---- in words -------------------------------------------------------------------------------------------------------------- */

static json_t *freed(int64_t snapshots, int64_t state_bytes)
{
    return json_pack("{s:I, s:I}", "snapshots", (json_int_t)snapshots, "state_bytes", (json_int_t)state_bytes);
}

void planning_describe(const struct planning *p, json_t *into)
{
    json_t *goes = json_array();
    json_t *kept = json_array();
    cleanup_free char *apply = str_format("apply %s", p->uid);

    for (size_t i = 0; i < p->n_goes; i++) {
        const struct store_plan_item *x = &p->goes[i];

        json_array_append_new(goes, json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", x->name, "id", x->uid, "what",
                                              x->whole ? "checkpoint" : "snapshot", "why", x->why, "frees",
                                              freed(x->has_snapshot, x->state_bytes)));
    }
    for (size_t i = 0; i < p->n; i++) {
        const struct plan_item *x = &p->decided[i];
        cleanup_free char *why = why_of(x);

        if (x->what == PLAN_KEEP && why)
            json_array_append_new(kept, json_pack("{s:s, s:s, s:s}", "name", x->fact->name, "id", x->fact->uid, "why", why));
    }
    json_object_set_new(into, "plan", json_string(p->uid));
    json_object_set_new(into, "rules", json_string(p->rules));
    json_object_set_new(into, "delete", goes);
    json_object_set_new(into, "kept", kept);
    json_object_set_new(into, "frees", freed(p->snapshots, p->state_bytes));
    if (apply)
        json_object_set_new(into, "apply", json_string(apply));
}

char *planning_message(const struct planning *p)
{
    size_t whole = 0;

    for (size_t i = 0; i < p->n_goes; i++)
        whole += p->goes[i].whole;
    if (!p->n_goes)
        return str_dup("these rules let nothing go: everything is kept");
    return str_format("nothing is deleted yet: %zu checkpoint%s would go whole and %zu would lose the snapshot only, which frees %" PRId64
                      " snapshot%s and %" PRId64 " bytes of states. To do it: echo 'apply %s' > .control/prune", whole,
                      whole == 1 ? "" : "s", p->n_goes - whole, p->snapshots, p->snapshots == 1 ? "" : "s", p->state_bytes, p->uid);
}
