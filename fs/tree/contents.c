/* What is in memory of a node's bytes, and where links lead. */
#include <errno.h>

#include "tree/status.h"
#include "tree_i.h"

int tree_readlink(struct index *x, node_id node, struct buf *ret)
{
    const char *prefix = node_class(node) == CLASS_CHECKPOINT ? view_link_prefix(node_kind(node)) : NULL;
    struct index_entry *e = NULL;
    int r = -EINVAL;

    if (node_class(node) == CLASS_CHECKPOINT && node_kind(node) == CKPT_BRANCH_LINK)
        prefix = BRANCH_LINK_PREFIX;
    index_read_lock(x);
    if (node_class(node) == CLASS_MOUNT && node_kind(node) == MOUNT_LATEST) {
        e = index_latest(x);
        r = e ? 0 : -ENOENT;
    } else if (prefix) {
        e = index_by_id(x, node_row(node));
        r = e ? 0 : -ENOENT;
        buf_adds(ret, prefix);
    }
    if (e)
        buf_adds(ret, e->c.name);
    index_unlock(x);
    return r < 0 ? r : buf_error(ret);
}

static int text_locked(struct index *x, node_id node, struct buf *ret)
{
    const struct index_replaced *b;
    const struct index_text *text;
    struct index_entry *e;
    struct index_group *g;
    const struct store_branch *i = NULL;
    struct index_temp *t;

    switch (node_class(node)) {
    case CLASS_MOUNT:
        text = index_text(x, (enum mount_kind)node_kind(node));
        buf_add(ret, text->bytes ? text->bytes : "", text->n);
        return 0;
    case CLASS_CHECKPOINT:
        e = index_by_id(x, node_row(node));
        if (!e)
            return -ESTALE;
        status_render(&e->c, e->draft_size > 0, index_lost(x), ret);
        return 0;
    case CLASS_TEMP:
        t = index_temp_by_id(x, node_row(node));
        if (!t)
            return -ESTALE;
        buf_add(ret, t->data.data ? t->data.data : "", t->data.len);
        return 0;
    case CLASS_BRANCH:
        e = index_by_branch(x, node_row(node), &i);
        return e ? branch_text(x, e, i, node_kind(node), ret) : -ESTALE;
    case CLASS_REPLACED:
        b = index_replaced_from(x, node_row(node));
        if (!b || b->id != node_row(node))
            return -ESTALE;
        buf_add(ret, b->text, b->n);
        return 0;
    case CLASS_RUN:
        g = group_of_node(x, node);
        return g ? run_picture(g, node_kind(node), ret) : -ESTALE;
    case CLASS_TRACE:
    case CLASS_CALL:
    case CLASS_ACTION:
    case CLASS_STAGED:
        break;
    }
    return -EINVAL;
}

int tree_text(struct index *x, node_id node, struct buf *ret)
{
    int r;

    index_read_lock(x);
    r = text_locked(x, node, ret);
    index_unlock(x);
    return r < 0 ? r : buf_error(ret);
}
