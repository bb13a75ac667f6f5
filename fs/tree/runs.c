/* The views by run, trace, id and snapshot: directories of links, and a run's picture, rendered from the index when it is asked for. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/timeline.h"
#include "tree/status.h"
#include "tree_i.h"
#include "util/cleanup.h"
#include "util/hash.h"
#include "util/text.h"

/* A picture of more is no picture: the first and the newest of a long run, and how many lie between them. */
#define SHOWN_FIRST 50
#define SHOWN_LAST 350

/* What a picture is made of; the texts are the index's. */
struct drawing {
    struct timeline t;
    struct timeline_checkpoint *checkpoints;
    struct timeline_mark *marks;
    char **statuses;
};

static void drawing_clear(struct drawing *d)
{
    for (size_t i = 0; d->statuses && i < d->t.n; i++)
        free(d->statuses[i]);
    free(d->statuses);
    free(d->checkpoints);
    free(d->marks);
}
#define cleanup_drawing __attribute__((cleanup(drawing_clear)))

static enum timeline_state state_of(const struct store_checkpoint *c)
{
    if (c->activity)
        return TIMELINE_RUNNING;
    if (c->outcome && strcmp(c->outcome, "finished") == 0)
        return TIMELINE_FINISHED;
    if (c->outcome && str_starts(c->outcome, "failed"))
        return TIMELINE_FAILED;
    if (c->outcome && str_starts(c->outcome, "unknown"))
        return TIMELINE_UNKNOWN;
    return !c->outcome && entry_awaits(c) ? TIMELINE_WAITING : TIMELINE_SAVED;
}

static char *status_of(const struct index_entry *e)
{
    struct buf b = {0};

    status_render(&e->c, e->draft_size > 0, 0, &b);
    if (b.len && b.data[b.len - 1] == '\n')
        buf_truncate(&b, b.len - 1);
    return buf_steal(&b);
}

static size_t add_marks(struct timeline_mark *to, const struct store_checkpoint *c)
{
    for (size_t i = 0; i < c->n_marks; i++) {
        const struct store_mark *m = &c->marks[i];

        to[i] = (struct timeline_mark){.kind = m->kind, .state = m->state, .decided = m->decided, .branch = m->branch, .began = m->began,
                                       .ended = m->ended, .restored = m->restored};
    }
    return c->n_marks;
}

/* The member in place `i` of those that are shown. */
static const struct index_entry *member(const struct index_group *g, const struct timeline *t, size_t i)
{
    return g->members[i < t->left_out_after ? i : i + t->left_out].e;
}

static int drawing_make(const struct index_group *g, struct drawing *ret)
{
    struct timeline *t = &ret->t;
    size_t n_marks = 0;

    t->run = g->id;
    t->n = g->n;
    if (g->n > SHOWN_FIRST + SHOWN_LAST) {
        t->n = SHOWN_FIRST + SHOWN_LAST;
        t->left_out = g->n - t->n;
        t->left_out_after = SHOWN_FIRST;
    } else {
        t->left_out_after = g->n;
    }
    for (size_t i = 0; i < t->n; i++)
        n_marks += member(g, t, i)->c.n_marks;
    ret->statuses = calloc(t->n + 1, sizeof(*ret->statuses));
    ret->checkpoints = calloc(t->n + 1, sizeof(*ret->checkpoints));
    ret->marks = calloc(n_marks + 1, sizeof(*ret->marks));
    if (!ret->statuses || !ret->checkpoints || !ret->marks)
        return -ENOMEM;
    n_marks = 0;
    for (size_t i = 0; i < t->n; i++) {
        const struct index_entry *e = member(g, t, i);
        const struct store_checkpoint *c = &e->c;

        ret->statuses[i] = status_of(e);
        if (!ret->statuses[i])
            return -ENOMEM;
        ret->checkpoints[i] = (struct timeline_checkpoint){
            .name = c->name, .uid = c->uid, .parent = c->parent, .step = c->step_id, .agent = c->agent, .status = ret->statuses[i],
            .branch = c->taken_on_name, .isolated = c->isolated != 0, .state = state_of(c), .offline = c->offline_by != 0,
            .created_at = c->created_at, .sealed_at = c->sealed_at,
            .marks = ret->marks + n_marks, .n_marks = c->n_marks,
        };
        n_marks += add_marks(ret->marks + n_marks, c);
    }
    t->checkpoints = ret->checkpoints;
    return 0;
}

int run_picture(const struct index_group *g, unsigned kind, struct buf *b)
{
    cleanup_drawing struct drawing d = {0};
    int r = drawing_make(g, &d);

    if (r < 0)
        return r;
    return kind == RUN_TIMELINE_SVG ? timeline_svg(&d.t, b) : timeline_txt(&d.t, b);
}

/* ---- attributes ---------------------------------------------------------------------------------------------------------- */

/* Changes with the bytes, also when a checkpoint was deleted and nothing that is left has a newer time: the second is that of the last
 * change, the rest comes of the bytes. */
static int64_t picture_time(const struct index_group *g, const struct buf *b)
{
    char hex[SHA256_HEX_SIZE];

    if (sha256_hex(b->data, b->len, hex) < 0)
        return g->changed;
    hex[12] = '\0';
    return g->changed / 1000000000 * 1000000000 + (int64_t)(strtoull(hex, NULL, 16) % 1000000000);
}

/* Computed when somebody asks first; readers who meet compute the same. */
static void picture_attr(struct index_group *g, unsigned kind, struct node_attr *a)
{
    struct group_picture *p = &g->pictures[kind == RUN_TIMELINE_TXT];
    cleanup_buf struct buf b = {0};

    if (atomic_load(&p->size) < 0 && run_picture(g, kind, &b) == 0) {
        atomic_store(&p->mtime, picture_time(g, &b));
        atomic_store(&p->size, (int64_t)b.len);
    }
    a->size = atomic_load(&p->size) < 0 ? 0 : atomic_load(&p->size);
    a->mtime = a->size ? atomic_load(&p->mtime) : g->changed;
}

void attr_group_dir(const struct index_group *g, enum node_class class, struct node_attr *a)
{
    *a = (struct node_attr){.id = node_make(class, g->row, RUN_DIR), .mode = S_IFDIR | 0777, .mtime = g->changed};
}

void attr_run_file(struct index_group *g, const struct file_row *row, struct node_attr *a)
{
    *a = (struct node_attr){.id = node_make(CLASS_RUN, g->row, row->kind), .mode = row->mode, .source = row->source};
    picture_attr(g, row->kind, a);
}

/* The links of the views: where each leads from, and whether its own name stays when the checkpoint's changes. */
static const struct view_link {
    unsigned kind;
    const char *prefix;
    bool own_name;
} view_links[] = {
    {CKPT_PENDING_LINK, "../", false}, {CKPT_RUN_LINK, "../../", false}, {CKPT_TRACE_LINK, "../../", false},
    {CKPT_ID_LINK, "../", true},       {CKPT_SNAPSHOT_LINK, "../", true},
};

static const struct view_link *view_link(unsigned kind)
{
    for (size_t i = 0; i < sizeof(view_links) / sizeof(*view_links); i++)
        if (view_links[i].kind == kind)
            return &view_links[i];
    return NULL;
}

const char *view_link_prefix(unsigned kind)
{
    const struct view_link *v = view_link(kind);

    return v ? v->prefix : NULL;
}

void attr_view_link(const struct index_entry *e, unsigned kind, struct node_attr *a)
{
    const struct view_link *v = view_link(kind);

    attr_link(a, node_make(CLASS_CHECKPOINT, e->c.id, kind), v->prefix, e->c.name, v->own_name ? e->c.changed_at : e->c.sealed_at);
}

/* ---- of a node known by its number --------------------------------------------------------------------------------------- */

struct index_group *group_of_node(const struct index *x, node_id node)
{
    return group_by_row(index_groups(x, node_class(node) == CLASS_RUN ? GROUP_RUN : GROUP_TRACE), node_row(node));
}

int attr_of_group(const struct index *x, node_id node, struct node_attr *ret)
{
    struct index_group *g = group_of_node(x, node);
    const struct file_row *row = row_by_kind(run_files, n_run_files, node_kind(node));

    if (!g || (node_kind(node) != RUN_DIR && (node_class(node) != CLASS_RUN || !row)))
        return -ESTALE;
    if (node_kind(node) == RUN_DIR)
        attr_group_dir(g, node_class(node), ret);
    else
        attr_run_file(g, row, ret);
    return 0;
}
