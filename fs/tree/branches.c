/* What is in NAME/branches/X: attributes and the texts that are rendered from the index. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <jansson.h>

#include "tree/status.h"
#include "tree_i.h"
#include "util/cleanup.h"
#include "util/clock.h"

bool branch_has(struct index *x, const struct store_branch *i, const struct file_row *row)
{
    switch ((enum branch_kind)row->kind) {
    case BRANCH_RESULT:
        return i->result_size >= 0;
    case BRANCH_OUTPUT:
        return i->output_size >= 0;
    case BRANCH_URI:
        return i->state == ISOLATED_READY && index_branch_uri(x, i->id);
    case BRANCH_DIR:
    case BRANCH_JSON:
    case BRANCH_STATUS:
    case BRANCH_RESUME:
    case BRANCH_CANCEL:
    case BRANCH_PROMOTE:
    case BRANCH_CHECKPOINTS:
    case BRANCH_WAIT:
        break;
    }
    return true;
}

static void put(json_t *o, const char *key, const char *value)
{
    json_object_set_new(o, key, value ? json_string(value) : json_null());
}

static void put_time(json_t *o, const char *key, int64_t at)
{
    char when[CLOCK_TEXT_MAX];

    put(o, key, at ? clock_format(at, when) : NULL);
}

/* Nothing in it changes by itself but when it expires. */
static int render_json(const struct store_checkpoint *c, const struct store_branch *i, struct buf *b)
{
    cleanup_json json_t *o = json_object();
    cleanup_free char *text = NULL;

    put(o, "name", i->name);
    put(o, "checkpoint", c->uid);
    put(o, "snapshot_id", c->snapshot.id);
    put(o, "project_id", c->snapshot.project_id);
    put(o, "branch_id", i->branch_id);
    put(o, "branch_name", i->branch_name);
    put(o, "endpoint_id", i->endpoint_id);
    put(o, "restored_for", i->restored_for);
    put_time(o, "created_at", i->created_at);
    put_time(o, "ready_at", i->ready_at);
    put_time(o, "expires_at", i->expires_at);
    text = json_dumps(o, JSON_INDENT(2));
    if (!text)
        return -ENOMEM;
    buf_addf(b, "%s\n", text);
    return 0;
}

int branch_text(struct index *x, const struct index_entry *e, const struct store_branch *i, unsigned kind, struct buf *b)
{
    const char *uri;

    switch (kind) {
    case BRANCH_JSON:
        return render_json(&e->c, i, b);
    case BRANCH_STATUS:
    case BRANCH_WAIT:
        status_render_branch(&e->c, i, index_lost(x), b);
        return 0;
    case BRANCH_URI:
        uri = i->state == ISOLATED_READY ? index_branch_uri(x, i->id) : NULL;
        if (!uri)
            return -ESTALE;
        buf_adds(b, uri);
        return 0;
    default:
        return -EINVAL;
    }
}

static int64_t text_size(struct index *x, const struct index_entry *e, const struct store_branch *i, unsigned kind)
{
    struct buf b = {0};
    int64_t n = branch_text(x, e, i, kind, &b) < 0 ? 0 : (int64_t)b.len;

    buf_free(&b);
    return n;
}

void attr_branch_dir(const struct store_branch *i, struct node_attr *a)
{
    *a = (struct node_attr){.id = node_make(CLASS_BRANCH, i->id, BRANCH_DIR), .mode = S_IFDIR | 0777, .mtime = i->changed_at};
}

void attr_branch_file(struct index *x, const struct index_entry *e, const struct store_branch *i, const struct file_row *row,
                      struct node_attr *a)
{
    *a = (struct node_attr){
        .id = node_make(CLASS_BRANCH, i->id, row->kind),
        .mode = row->mode,
        .mtime = i->created_at,
        .source = row->source,
        .file = row->file,
    };
    switch ((enum branch_kind)row->kind) {
    case BRANCH_JSON: /* another date of expiry is another time, or a backup would miss it */
        a->size = text_size(x, e, i, row->kind);
        a->mtime = (i->ready_at ? i->ready_at : i->created_at) + i->expires_at % 1000;
        return;
    case BRANCH_STATUS:
        a->size = text_size(x, e, i, row->kind);
        a->mtime = i->changed_at;
        return;
    case BRANCH_URI:
        a->size = text_size(x, e, i, row->kind);
        a->mtime = i->ready_at;
        return;
    case BRANCH_RESULT:
        a->size = i->result_size < 0 ? 0 : i->result_size;
        a->mtime = i->result_at;
        return;
    case BRANCH_OUTPUT:
        a->size = i->output_size < 0 ? 0 : i->output_size;
        a->mtime = i->output_at;
        return;
    case BRANCH_CHECKPOINTS:
        a->mtime = i->changed_at;
        return;
    case BRANCH_DIR:
    case BRANCH_RESUME:
    case BRANCH_CANCEL:
    case BRANCH_PROMOTE:
    case BRANCH_WAIT:
        return;
    }
}

void attr_branch_link(const struct index_entry *e, struct node_attr *a)
{
    attr_link(a, node_make(CLASS_CHECKPOINT, e->c.id, CKPT_BRANCH_LINK), BRANCH_LINK_PREFIX, e->c.name, e->c.created_at);
}
