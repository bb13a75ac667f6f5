/* Temporaries: there only to be renamed onto state.json or meta.json, as rsync, sed -i and editors do (design.md §4, traps.md 12, 13, 14).
 *
 * They are in memory; nothing of them is accepted before that rename. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mount_i.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define TEMP_MAX (1LL << 30)

int64_t temps_of(struct mount *m, node_id node, bool *ret_of_meta)
{
    struct index_temp *t;
    int64_t checkpoint = 0;

    index_read_lock(m->c.index);
    t = index_temp_by_id(m->c.index, node_row(node));
    if (t) {
        checkpoint = t->checkpoint;
        *ret_of_meta = copies_temporary_of(t->name, "meta.json");
    }
    index_unlock(m->c.index);
    return checkpoint;
}

int temps_read(struct mount *m, node_id node, struct buf *ret, struct err *e)
{
    struct index_temp *t;
    int64_t checkpoint = 0;
    unsigned became = 0;

    index_read_lock(m->c.index);
    t = index_temp_by_id(m->c.index, node_row(node));
    if (t) {
        checkpoint = t->checkpoint;
        became = t->became;
    }
    index_unlock(m->c.index);
    if (became == CKPT_STATE)
        return store_read_state(m->c.store, checkpoint, 0, TEMP_MAX, ret, e);
    if (became == CKPT_META)
        return store_read_file(m->c.store, checkpoint, FILE_META, ret, e);
    return tree_text(m->c.index, node, ret);
}

/* ---- bytes ---------------------------------------------------------------------------------------------------------- */

int temps_resize(struct mount *m, node_id node, int64_t size)
{
    struct index_temp *t;
    int r = -ESTALE;

    if (size > TEMP_MAX)
        return -EFBIG;
    index_write_lock(m->c.index);
    t = index_temp_by_id(m->c.index, node_row(node));
    if (t && t->became) {
        r = -EPERM;
    } else if (t) {
        r = index_temp_resize(m->c.index, t, (size_t)size);
        t->mtime = clock_now();
    }
    index_unlock(m->c.index);
    return r;
}

int temps_write(struct mount *m, node_id node, int64_t off, const char *bytes, size_t n)
{
    struct index_temp *t;
    int r = -ESTALE;

    if (off + (int64_t)n > TEMP_MAX)
        return -EFBIG;
    index_write_lock(m->c.index);
    t = index_temp_by_id(m->c.index, node_row(node));
    if (t && t->became) {
        r = -EPERM;
    } else if (t) {
        r = (size_t)off + n > t->data.len ? index_temp_resize(m->c.index, t, (size_t)off + n) : 0;
        if (r == 0 && n)
            memcpy(t->data.data + off, bytes, n);
        t->mtime = clock_now();
    }
    index_unlock(m->c.index);
    return r;
}

/* ---- rename --------------------------------------------------------------------------------------------------------- */

/* The kernel has moved the temporary's inode to the new name: from now on it stands for the file, and is asked for anew. */
static void became(struct call *c, unsigned kind)
{
    struct index_temp *t;

    index_write_lock(c->m->c.index);
    t = index_temp_by_id(c->m->c.index, node_row(c->node2));
    if (t) {
        t->became = kind;
        buf_free(&t->data);
    }
    index_unlock(c->m->c.index);
    notify_entry(c->m->notifier, c->node, c->name2);
}

/* As a close after which nothing was written: whatever was to make the state has failed, and nothing would be sealed for ever. */
static int refuse_empty(struct call *c, const struct who *who)
{
    engine_take_refused(c->m->engine, node_row(c->node), "state.json", who, EINVAL,
                        "what was to become state.json is empty: nothing is sealed; write it and rename it again");
    return -EINVAL;
}

/* Whether a state may come here, now or once the snapshot has settled. Where none may, engine_take_ready says why: that is what's wrong
 * with an empty one too. */
static bool takes_state(struct mount *m, int64_t checkpoint)
{
    const struct index_entry *e;
    bool takes;

    index_read_lock(m->c.index);
    e = index_by_id(m->c.index, checkpoint);
    takes = e && entry_takes_state(&e->c);
    index_unlock(m->c.index);
    return takes;
}

static void rename_to_state(struct call *c)
{
    int64_t checkpoint = node_row(c->node);
    struct buf bytes = {0};
    struct who who;
    int r = copies_may_write(c->m, checkpoint, c->from.pid);

    who_read(c->m->engine, &c->from, &who);
    if (r == 0 && handle_busy(c->m, node_make(CLASS_CHECKPOINT, checkpoint, CKPT_STATE)))
        r = -EBUSY;
    if (r == 0)
        r = tree_text(c->m->c.index, c->node2, &bytes);
    if (r == 0 && (bytes.len || !takes_state(c->m, checkpoint)))
        r = engine_take_ready(c->m->engine, checkpoint, &c->e);
    if (r == 0 && bytes.len == 0)
        r = refuse_empty(c, &who);
    if (r == 0)
        r = engine_seal_bytes(c->m->engine, checkpoint, bytes.data ? bytes.data : "", bytes.len, &who, &c->e);
    if (r == 0)
        became(c, CKPT_STATE);
    who_clear(&who);
    buf_free(&bytes);
    call_reply_err(c, -r);
}

static void rename_to_meta(struct call *c)
{
    struct buf bytes = {0};
    struct who who;
    int r = tree_text(c->m->c.index, c->node2, &bytes);

    who_read(c->m->engine, &c->from, &who);
    if (r == 0)
        r = engine_meta(c->m->engine, node_row(c->node), bytes.data ? bytes.data : "", bytes.len, &who, c->why,
                        &c->e);
    if (r == 0)
        became(c, CKPT_META);
    else if (c->e.code)
        engine_take_refused(c->m->engine, node_row(c->node), NULL, &who, -r, err_text(&c->e));
    who_clear(&who);
    buf_free(&bytes);
    call_reply_err(c, -r);
}

static void rename_temp(struct call *c)
{
    struct index_temp *t, *over;
    char *name = str_dup(c->name2);

    index_write_lock(c->m->c.index);
    over = index_temp_by_name(c->m->c.index, node_row(c->node), c->name2);
    t = index_temp_by_id(c->m->c.index, node_row(c->node2));
    if (over && over != t)
        index_temp_remove(c->m->c.index, over);
    if (t && name) {
        free(t->name);
        t->name = name;
        name = NULL;
    }
    index_unlock(c->m->c.index);
    free(name);
    call_reply_err(c, t ? 0 : ENOENT);
}

void temps_rename(struct call *c)
{
    access_check(c->m, c->req, ROLE_OPERATOR, &c->why);
    if (strcmp(c->name2, "state.json") == 0)
        jobs_add(c->m->jobs, c, rename_to_state); /* a seal takes its time, and holds only its own directory's lock */
    else if (strcmp(c->name2, "meta.json") == 0)
        jobs_add(c->m->dirs, c, rename_to_meta);
    else if (copies_temporary_name(c->name2))
        rename_temp(c);
    else
        copies_refuse(c, c->name2);
}

/* An editor keeps the old meta.json under another name while it writes the new one: it gets a copy, and meta.json stays. */
static void keep_meta(struct call *c)
{
    int64_t checkpoint = node_row(c->node);
    struct buf bytes = {0};
    struct index_temp *t;
    int r = store_read_file(c->m->c.store, checkpoint, FILE_META, &bytes, &c->e);

    if (r == 0) {
        index_write_lock(c->m->c.index);
        t = index_temp_by_name(c->m->c.index, checkpoint, c->name2);
        if (!t)
            t = index_temp_add(c->m->c.index, checkpoint, c->name2);
        if (t) {
            buf_truncate(&t->data, 0);
            buf_add(&t->data, bytes.data ? bytes.data : "", bytes.len);
        }
        r = t ? buf_error(&t->data) : -ENOMEM;
        index_unlock(c->m->c.index);
    }
    buf_free(&bytes);
    if (r == 0) { /* the kernel believes that meta.json is now called so */
        notify_entry(c->m->notifier, c->node, c->name2);
        notify_entry(c->m->notifier, c->node, "meta.json");
    }
    call_reply_err(c, -r);
}

void temps_keep_meta(struct call *c)
{
    jobs_add(c->m->dirs, c, keep_meta);
}

/* ---- unlink --------------------------------------------------------------------------------------------------------- */

void temps_unlink(struct call *c, node_id node)
{
    struct index_temp *t;

    index_write_lock(c->m->c.index);
    t = index_temp_by_id(c->m->c.index, node_row(node));
    if (t)
        index_temp_remove(c->m->c.index, t);
    index_unlock(c->m->c.index);
    call_reply_err(c, t ? 0 : ENOENT);
}
