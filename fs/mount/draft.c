/* What an agent writes: state.json, meta.json, and the temporaries that become one of them (design.md §4). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/scan.h"
#include "mount_i.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define META_MAX (1 << 20)
#define TEMP_MAX (1LL << 31)

/* ---- names ---------------------------------------------------------------------------------------------------------- */

/* Whether `name` is a temporary of `file`: rsync's .FILE.XXXXXX, FILE~, .FILE.swp, FILE.tmp, FILE.123 … */
static bool temporary_of(const char *name, const char *file)
{
    const char *at = strstr(name, file);

    return at && strcmp(name, file) != 0;
}

/* The files that only the product makes: a temporary of one of them is a backup being copied in (traps.md 12). */
static bool names_own_file(const char *name)
{
    static const char *const own[] = {"snapshot.json", "checkpoint.json", "transcript.md", "history.jsonl", "pending", "result", "output",
                                      "status", "restore", "resume", "replay", "cancel"};

    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
        if (strstr(name, own[i]))
            return true;
    return false;
}

bool draft_temporary_name(const char *name)
{
    size_t n = strlen(name);

    if (temporary_of(name, "state.json") || temporary_of(name, "meta.json"))
        return true;
    if (names_own_file(name))
        return false;
    return name[0] == '.' || name[n - 1] == '~' || strspn(name, "0123456789") == n || str_starts(name, "tmp") || str_starts(name, "sed") ||
           (n > 4 && (strcmp(name + n - 4, ".tmp") == 0 || strcmp(name + n - 4, ".swp") == 0)) ||
           (n > 5 && strcmp(name + n - 5, ".part") == 0);
}

/* ---- refusing ------------------------------------------------------------------------------------------------------- */

static bool same_group(pid_t a, pid_t b)
{
    pid_t ga = a > 0 ? getpgid(a) : -1;

    return a > 0 && (a == b || (ga > 0 && b > 0 && ga == getpgid(b)));
}

/* Whether whoever asks is the one that takes, or took, this checkpoint: then it copies a backup. Anybody else is just refused, so that
 * no stranger's `rm -r` or `rsync` turns a checkpoint into a failed take. */
static bool gives_itself_away(struct call *c)
{
    struct index_entry *e;
    bool away = false;

    index_read_lock(c->m->c.index);
    e = index_by_id(c->m->c.index, node_row(c->node));
    if (e && (e->c.phase == PHASE_TAKING || e->c.phase == PHASE_SAVED))
        away = same_group(c->from.pid, e->taken_by);
    else if (e && e->c.phase == PHASE_SEALED)
        away = c->from.pid > 0 && c->from.pid == e->sealed_by;
    index_unlock(c->m->c.index);
    return away;
}

static void is_copy(struct call *c)
{
    if (engine_take_is_copy(c->m->engine, node_row(c->node), &c->e) < 0)
        log_warn("a copy in the making isn't recorded: %s", err_text(&c->e));
    call_reply_err(c, EPERM);
}

void draft_refuse(struct call *c)
{
    if (gives_itself_away(c))
        jobs_add(c->m->jobs, c, is_copy);
    else
        call_reply_err(c, EPERM);
}

/* ---- open and create ------------------------------------------------------------------------------------------------- */

static void reply_opened(struct call *c)
{
    struct node_attr a;

    c->fi.direct_io = 1;
    c->fi.fh = (uintptr_t)c->h;
    if (!c->name) {
        call_reply_open(c);
        return;
    }
    if (tree_attr(c->m->c.index, c->h->node, &a) == 0) {
        if (c->h->kind == HANDLE_META && a.size < 0)
            a.size = 0;
        call_reply_create(c, &a);
        return;
    }
    handle_free(c->m, c->h);
    call_reply_err(c, ESTALE);
}

static void open_failed(struct call *c, int code)
{
    handle_free(c->m, c->h);
    call_reply_err(c, code);
}

/* state.json: a failed take is tried again; O_TRUNC drops what was written before. */
static void open_state(struct call *c)
{
    struct who who;
    struct brief_phase { enum checkpoint_phase phase; int64_t size; bool closed; } now = {PHASE_FAILED, -1, false};
    struct index_entry *e;
    int r = 0;

    index_read_lock(c->m->c.index);
    e = index_by_id(c->m->c.index, c->h->checkpoint);
    if (e)
        now = (struct brief_phase){e->c.phase, e->draft_size, e->c.closed};
    index_unlock(c->m->c.index);
    if (!e || now.phase == PHASE_SEALED || now.closed) {
        open_failed(c, e ? EPERM : ESTALE);
        return;
    }
    if (now.phase == PHASE_FAILED) {
        who_read(c->from.pid, c->from.uid, &who);
        r = engine_take_again(c->m->engine, c->h->checkpoint, &who, &c->e);
        who_clear(&who);
    }
    if (r == 0 && ((c->fi.flags & O_TRUNC) || now.size < 0))
        r = engine_state_truncate(c->m->engine, c->h->checkpoint, 0, &c->e);
    if (r < 0)
        open_failed(c, -r);
    else
        reply_opened(c);
}

/* meta.json is replaced whole: without O_TRUNC the handle begins with what is there. */
static void open_meta(struct call *c)
{
    int r = 0;

    if (!(c->fi.flags & O_TRUNC)) {
        r = store_read_file(c->m->c.store, c->h->checkpoint, FILE_META, &c->h->text, &c->e);
        if (r == -ENOENT)
            r = 0;
    }
    if (r < 0)
        open_failed(c, -r);
    else
        reply_opened(c);
}

static struct call *opening(struct mount *m, fuse_req_t req, const struct node_attr *a, enum handle_kind kind, struct fuse_file_info *fi)
{
    struct call *c = call_new(req, fi);

    if (!c)
        return NULL;
    c->h = handle_new(m, kind, a, fuse_req_ctx(req));
    if (!c->h) {
        call_reply_err(c, ENOMEM);
        return NULL;
    }
    return c;
}

static void open_by_kind(struct mount *m, struct call *c)
{
    if (c->h->kind == HANDLE_TEMP)
        reply_opened(c);
    else
        jobs_add(m->jobs, c, c->h->kind == HANDLE_META ? open_meta : open_state);
}

static enum handle_kind kind_of(const struct node_attr *a)
{
    if (node_class(a->id) == CLASS_TEMP)
        return HANDLE_TEMP;
    return node_kind(a->id) == CKPT_META ? HANDLE_META : HANDLE_DRAFT;
}

void draft_open(struct mount *m, fuse_req_t req, const struct node_attr *a, struct fuse_file_info *fi)
{
    struct call *c;

    if (kind_of(a) == HANDLE_DRAFT && handle_busy(m, a->id, NULL)) {
        fuse_reply_err(req, EBUSY); /* two writers of one state: whose would it be? */
        return;
    }
    if (kind_of(a) == HANDLE_TEMP && (fi->flags & O_TRUNC)) {
        struct index_temp *t;

        index_write_lock(m->c.index);
        t = index_temp_by_id(m->c.index, node_row(a->id));
        if (t)
            buf_truncate(&t->data, 0);
        index_unlock(m->c.index);
    }
    c = opening(m, req, a, kind_of(a), fi);
    if (c)
        open_by_kind(m, c);
}

/* The attributes that a file which isn't listed yet will have. */
static int create_attr(struct mount *m, node_id dir, const char *name, struct node_attr *a)
{
    struct index_temp *t;

    *a = (struct node_attr){.mode = S_IFREG | 0600, .mtime = clock_now(), .source = SOURCE_TEMP};
    if (strcmp(name, "state.json") == 0) {
        a->id = node_make(CLASS_CHECKPOINT, node_row(dir), CKPT_STATE);
        a->source = SOURCE_DRAFT;
        return 0;
    }
    if (strcmp(name, "meta.json") == 0) {
        a->id = node_make(CLASS_CHECKPOINT, node_row(dir), CKPT_META);
        a->source = SOURCE_FILE;
        a->file = FILE_META;
        return 0;
    }
    index_write_lock(m->c.index);
    t = index_temp_add(m->c.index, node_row(dir), name);
    if (t)
        a->id = node_make(CLASS_TEMP, t->id, ONLY_KIND);
    index_unlock(m->c.index);
    return t ? 0 : -ENOMEM;
}

static bool may_create(struct mount *m, node_id dir, const char *name)
{
    struct index_entry *e;
    bool sealed;

    index_read_lock(m->c.index);
    e = index_by_id(m->c.index, node_row(dir));
    sealed = e && e->c.phase == PHASE_SEALED;
    index_unlock(m->c.index);
    if (!e)
        return false;
    if (strcmp(name, "state.json") == 0)
        return !sealed;
    return strcmp(name, "meta.json") == 0 || draft_temporary_name(name);
}

void draft_create(struct mount *m, fuse_req_t req, node_id dir, const char *name, struct fuse_file_info *fi)
{
    struct node_attr a;
    struct call *c;

    if (node_class(dir) != CLASS_CHECKPOINT || node_kind(dir) != CKPT_DIR || !may_create(m, dir, name)) {
        dirs_refuse(m, req, dir, name);
        return;
    }
    if (create_attr(m, dir, name, &a) < 0) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    if (kind_of(&a) == HANDLE_DRAFT && handle_busy(m, a.id, NULL)) {
        fuse_reply_err(req, EBUSY);
        return;
    }
    c = opening(m, req, &a, kind_of(&a), fi);
    if (!c)
        return;
    if (c->h->kind == HANDLE_TEMP) {
        c->h->checkpoint = node_row(dir);
        c->h->ready = temporary_of(name, "meta.json");
    }
    c->name = str_dup(name);
    open_by_kind(m, c);
}

/* ---- write ------------------------------------------------------------------------------------------------------------ */

static void write_failed(struct call *c, int code)
{
    c->h->failed = code; /* and so for every later write: Python sends a failed one again (traps.md 2) */
    call_reply_err(c, code);
}

static void write_state(struct call *c)
{
    int r = engine_state_write(c->m->engine, c->h->checkpoint, c->off, c->data, c->size, &c->e);

    if (r < 0) {
        write_failed(c, -r);
        return;
    }
    c->h->wrote = true;
    call_reply_write(c, c->size);
}

static void write_temp(struct call *c)
{
    struct index_temp *t;
    int r = -ESTALE;

    index_write_lock(c->m->c.index);
    t = index_temp_by_id(c->m->c.index, node_row(c->h->node));
    if (t && t->became) {
        r = -EPERM;
    } else if (t && c->off + (int64_t)c->size > TEMP_MAX) {
        r = -EFBIG;
    } else if (t) {
        size_t end = (size_t)c->off + c->size;

        if (end > t->data.len) {
            char *room = buf_room(&t->data, end - t->data.len);

            if (room) {
                memset(room, 0, end - t->data.len);
                buf_grown(&t->data, end - t->data.len);
            }
        }
        r = buf_error(&t->data);
        if (r == 0)
            memcpy(t->data.data + c->off, c->data, c->size);
        t->mtime = clock_now();
    }
    index_unlock(c->m->c.index);
    if (r < 0)
        write_failed(c, -r);
    else
        call_reply_write(c, c->size);
}

static void write_ready(struct call *c)
{
    int r = 0;

    if (!c->h->ready) {
        r = engine_take_ready(c->m->engine, c->h->checkpoint, &c->e);
        if (c->h->kind == HANDLE_TEMP && r == -EPERM)
            r = 0; /* beside a sealed state a temporary can only become meta.json */
    }
    if (r < 0) {
        write_failed(c, -r);
        return;
    }
    c->h->ready = true;
    if (c->h->kind == HANDLE_TEMP)
        write_temp(c);
    else
        write_state(c);
}

static void take_ended(struct call *c, int code)
{
    if (code)
        write_failed(c, code);
    else
        jobs_add(c->m->jobs, c, write_ready);
}

/* The first write waits until the snapshot has settled. */
static void write_waiting(struct call *c)
{
    struct run *r = c->h->ready ? NULL : engine_take_run(c->m->engine, c->h->checkpoint);

    if (c->h->failed)
        call_reply_err(c, c->h->failed);
    else if (r)
        waits_for(c, r, take_ended);
    else
        write_ready(c);
}

/* meta.json is checked in the write that completes it. */
static void write_meta(struct call *c)
{
    struct handle *h = c->h;
    size_t end = (size_t)c->off + c->size;
    struct who who;
    char *room;
    int r;

    if (c->fi.flags & O_APPEND)
        end = h->text.len + c->size;
    if (end > META_MAX) {
        call_reply_err(c, EFBIG);
        return;
    }
    if (end > h->text.len && (room = buf_room(&h->text, end - h->text.len))) {
        memset(room, 0, end - h->text.len);
        buf_grown(&h->text, end - h->text.len);
    }
    r = buf_error(&h->text);
    if (r == 0)
        memcpy(h->text.data + end - c->size, c->data, c->size);
    if (r == 0 && scan_text(h->text.data, h->text.len) != SCAN_OPEN) {
        who_read(c->from.pid, c->from.uid, &who);
        r = engine_meta(c->m->engine, h->checkpoint, h->text.data, h->text.len, &who, &c->e);
        who_clear(&who);
        h->wrote = r == 0;
    } else {
        h->wrote = false;
    }
    if (r < 0) {
        log_info("meta.json refused: %s", err_text(&c->e));
        buf_truncate(&h->text, end - c->size); /* a failed write has no effect */
        call_reply_err(c, -r);
    } else {
        call_reply_write(c, c->size);
    }
}

void draft_write(struct mount *m, fuse_req_t req, const char *bytes, size_t n, off_t off, struct fuse_file_info *fi)
{
    struct call *c = call_new(req, fi);

    if (!c)
        return;
    c->data = malloc(n + 1);
    if (!c->data) {
        call_reply_err(c, ENOMEM);
        return;
    }
    memcpy(c->data, bytes, n);
    c->size = n;
    c->off = off;
    waits_interruptible(c);
    jobs_add(m->jobs, c, c->h->kind == HANDLE_META ? write_meta : write_waiting);
}

/* ---- truncate ----------------------------------------------------------------------------------------------------------- */

static void resize_state(struct call *c)
{
    struct node_attr a;
    int r = engine_state_truncate(c->m->engine, node_row(c->node), c->set.size, &c->e);

    if (r == 0)
        r = tree_attr(c->m->c.index, c->node, &a);
    if (r < 0)
        call_reply_err(c, -r);
    else
        call_reply_attr(c, &a);
}

static void resize_temp(struct call *c)
{
    struct index_temp *t;
    struct node_attr a;

    index_write_lock(c->m->c.index);
    t = index_temp_by_id(c->m->c.index, node_row(c->node));
    if (t && c->set.size < (int64_t)t->data.len)
        buf_truncate(&t->data, (size_t)c->set.size);
    index_unlock(c->m->c.index);
    if (tree_attr(c->m->c.index, c->node, &a) < 0)
        call_reply_err(c, ESTALE);
    else
        call_reply_attr(c, &a);
}

void draft_resize(struct call *c, const struct node_attr *a)
{
    switch (kind_of(a)) {
    case HANDLE_DRAFT:
        if (a->source == SOURCE_DRAFT)
            jobs_add(c->m->jobs, c, resize_state);
        else
            call_reply_err(c, EPERM);
        return;
    case HANDLE_TEMP:
        resize_temp(c);
        return;
    case HANDLE_META:
        if (c->h && c->h->kind == HANDLE_META)
            buf_truncate(&c->h->text, (size_t)c->set.size);
        call_reply_attr(c, a);
        return;
    case HANDLE_READ:
    case HANDLE_CONTROL:
        break;
    }
    call_reply_attr(c, a);
}

/* ---- close ---------------------------------------------------------------------------------------------------------------- */

static void seal(struct call *c)
{
    struct who who;

    who_read(c->from.pid, c->from.uid, &who);
    who.w.pid = c->from.pid;
    who.w.uid = c->from.uid;
    if (engine_seal(c->m->engine, c->h->checkpoint, &who, &c->e) < 0)
        log_info("not sealed: %s", err_text(&c->e));
    engine_sealing(c->m->engine, c->h->checkpoint, false);
    who_clear(&who);
    handle_free(c->m, c->h);
    call_free(c);
}

void draft_release(struct mount *m, struct handle *h)
{
    struct call *c;

    if (h->kind == HANDLE_META && !h->wrote && h->text.len && scan_text(h->text.data, h->text.len) == SCAN_OPEN)
        log_warn("meta.json was closed before its JSON was complete; it is as it was before");
    if (h->kind != HANDLE_DRAFT || !h->wrote || h->failed || !(c = calloc(1, sizeof(*c)))) {
        handle_free(m, h);
        return;
    }
    engine_sealing(m->engine, h->checkpoint, true); /* before the kernel sends anything else */
    c->m = m;
    c->h = h;
    c->from.pid = h->pid;
    c->from.uid = h->uid;
    jobs_add(m->jobs, c, seal);
}

/* ---- rename and unlink -------------------------------------------------------------------------------------------------- */

/* A copy of a temporary's bytes. */
static int temp_bytes(struct call *c, struct buf *ret)
{
    return tree_text(c->m->c.index, c->node2, ret);
}

static void temp_became(struct call *c, unsigned kind)
{
    struct index_temp *t;

    index_write_lock(c->m->c.index);
    t = index_temp_by_id(c->m->c.index, node_row(c->node2));
    if (t) {
        t->became = kind;
        buf_free(&t->data);
    }
    index_unlock(c->m->c.index);
    notify_entry(c->m->notifier, c->node, c->name2); /* the kernel has moved the temporary's inode there: traps.md 14 */
}

static void rename_to_state(struct call *c)
{
    struct buf bytes = {0};
    struct who who;
    int r = temp_bytes(c, &bytes);

    who_read(c->from.pid, c->from.uid, &who);
    who.w.pid = c->from.pid;
    if (r == 0)
        r = engine_take_ready(c->m->engine, node_row(c->node), &c->e);
    if (r == 0 && scan_text(bytes.data, bytes.len) == SCAN_OPEN)
        r = err_set(&c->e, EINVAL, "the state is JSON cut short; nothing was sealed");
    if (r == 0)
        r = engine_seal_bytes(c->m->engine, node_row(c->node), bytes.data ? bytes.data : "", bytes.len, &who, &c->e);
    if (r == 0)
        temp_became(c, CKPT_STATE);
    who_clear(&who);
    buf_free(&bytes);
    call_reply_err(c, -r);
}

static void rename_to_meta(struct call *c)
{
    struct buf bytes = {0};
    struct who who;
    int r = temp_bytes(c, &bytes);

    who_read(c->from.pid, c->from.uid, &who);
    if (r == 0)
        r = engine_meta(c->m->engine, node_row(c->node), bytes.data ? bytes.data : "", bytes.len, &who, &c->e);
    if (r == 0)
        temp_became(c, CKPT_META);
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

/* c->node: the directory, c->node2: the temporary, c->name2: the new name. */
void draft_rename(struct call *c)
{
    if (strcmp(c->name2, "state.json") == 0)
        jobs_add(c->m->jobs, c, rename_to_state);
    else if (strcmp(c->name2, "meta.json") == 0)
        jobs_add(c->m->jobs, c, rename_to_meta);
    else if (draft_temporary_name(c->name2))
        rename_temp(c);
    else
        draft_refuse(c);
}

static void unlink_state(struct call *c)
{
    struct index_entry *e;
    int r = engine_state_truncate(c->m->engine, node_row(c->node), 0, &c->e);

    index_write_lock(c->m->c.index);
    e = index_by_id(c->m->c.index, node_row(c->node));
    if (e)
        e->draft_size = -1;
    index_unlock(c->m->c.index);
    call_reply_err(c, -r);
}

/* c->node: the directory, c->name: what is to go. */
void draft_unlink(struct call *c)
{
    struct node_attr a;
    struct index_temp *t;
    int r = tree_lookup(c->m->c.index, c->node, c->name, &a);

    if (r < 0) {
        call_reply_err(c, -r);
    } else if (node_class(a.id) == CLASS_TEMP) {
        index_write_lock(c->m->c.index);
        t = index_temp_by_id(c->m->c.index, node_row(a.id));
        if (t)
            index_temp_remove(c->m->c.index, t);
        index_unlock(c->m->c.index);
        call_reply_err(c, 0);
    } else if (a.source == SOURCE_DRAFT) {
        jobs_add(c->m->jobs, c, unlink_state);
    } else {
        call_reply_err(c, EPERM); /* no tool's way of removing a tree destroys a checkpoint */
    }
}
