/* Snapshots: list, find, take, change, delete, and restore as a new branch. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "neon_i.h"
#include "util/clock.h"
#include "util/cleanup.h"
#include "util/text.h"

#define MAX_NAMED 5 /* how many things that could be deleted an error names */

/* ---- reading ---- */

/* Newest first. Neon sends them so but doesn't promise it; equal times, which have whole seconds, keep Neon's order. */
static void sort_newest_first(struct neon_snapshots *l)
{
    for (size_t i = 1; i < l->n; i++) {
        struct neon_snapshot s = l->items[i];
        size_t at = i;

        for (; at > 0 && l->items[at - 1].created_at_ns < s.created_at_ns; at--)
            l->items[at] = l->items[at - 1];
        l->items[at] = s;
    }
}

int neon_snapshots_list(struct neon *neon, const struct neon_call *call, struct neon_snapshots *ret_snapshots, struct err *err)
{
    struct ask a = {.method = "GET",
                    .path = str_dup("/snapshots"),
                    .what = str_format("list the snapshots of project %s", neon->project_id)};
    json_t *root cleanup_json = NULL;
    int r;

    r = neon_ask(neon, call, &a, &root, NULL, err);
    if (r == 0)
        r = neon_parse_snapshots(root, ret_snapshots, err);
    if (r == 0)
        sort_newest_first(ret_snapshots);
    return r;
}

int neon_snapshot_find(struct neon *neon, const struct neon_call *call, const char *name, struct neon_snapshot *ret_snapshot,
                       struct err *err)
{
    struct neon_snapshots all __attribute__((cleanup(neon_snapshots_free))) = {0};
    int r;

    r = neon_snapshots_list(neon, call, &all, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < all.n; i++)
        if (str_equal(all.items[i].name, name)) {
            *ret_snapshot = all.items[i];
            all.items[i] = (struct neon_snapshot){0};
            return 0;
        }
    return err_set(err, ENOENT, "project %s has no snapshot called \"%s\"", neon->project_id, name);
}

/* ---- what to delete when a limit is reached ---- */

/* Adds to an error about a limit which objects count towards it. Looks once, and lets the error be if that fails. */
static void name_in_error(struct err *err, const char *what, struct buf *names)
{
    if (names->len > 0 && buf_error(names) == 0)
        err_set(err, err->code, "%s; %s: %s", err_text(err), what, names->data);
}

static void add_name(struct buf *names, size_t count, const char *name, const char *id)
{
    if (count < MAX_NAMED)
        buf_addf(names, "%s%s (%s)", count ? ", " : "", name ? name : "unnamed", id);
    else if (count == MAX_NAMED)
        buf_adds(names, ", …");
}

static struct neon_call one_look(const struct neon *neon, const struct neon_call *call)
{
    struct neon_call look = neon_bound(neon, call);

    look.flags |= NEON_CALL_ONCE;
    return look;
}

static void name_snapshots(struct neon *neon, const struct neon_call *call, struct err *err)
{
    struct neon_snapshots all __attribute__((cleanup(neon_snapshots_free))) = {0};
    struct neon_call look = one_look(neon, call);
    struct buf names cleanup_buf = {0};
    size_t count = 0;

    if (neon_snapshots_list(neon, &look, &all, NULL) < 0)
        return;
    for (size_t i = all.n; i-- > 0;) /* the oldest first; scheduled ones don't count */
        if (all.items[i].manual)
            add_name(&names, count++, all.items[i].name, all.items[i].id);
    name_in_error(err, "the project's manual snapshots, oldest first", &names);
}

static void name_root_branches(struct neon *neon, const struct neon_call *call, struct err *err)
{
    struct neon_branches all __attribute__((cleanup(neon_branches_free))) = {0};
    struct neon_call look = one_look(neon, call);
    struct buf names cleanup_buf = {0};
    size_t count = 0;

    if (neon_branches_list(neon, &look, &all, NULL) < 0)
        return;
    for (size_t i = 0; i < all.n; i++)
        if (!all.items[i].parent_id && !all.items[i].is_default)
            add_name(&names, count++, all.items[i].name, all.items[i].id);
    name_in_error(err, "the root branches beside the default one", &names);
}

/* ---- changing ---- */

static char *create_path(const char *branch_id, const char *name, int64_t expires_at_ns)
{
    struct buf path cleanup_buf = {0};
    char when[CLOCK_TEXT_MAX];

    /* Query parameters only: a body is ignored without an error (NA §2.3). */
    buf_addf(&path, "/branches/%s/snapshot", branch_id);
    neon_add_query(&path, "name", name);
    if (expires_at_ns > 0)
        neon_add_query(&path, "expires_at", clock_format_seconds(expires_at_ns, when));
    return buf_steal(&path);
}

int neon_snapshot_create(struct neon *neon, const struct neon_call *call, const char *branch_id, const char *name,
                         int64_t expires_at_ns, struct neon_snapshot *ret_snapshot, struct neon_operations *ret_operations,
                         bool *ret_unknown, struct err *err)
{
    struct neon_snapshot snapshot = {0};
    json_t *root cleanup_json = NULL;
    struct ask a;
    int r;

    neon_set_unknown(ret_unknown, false);
    r = neon_check_id(branch_id, "branch", err);
    if (r == 0)
        r = neon_check_name(name, "snapshot", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "POST",
                     .path = create_path(branch_id, name, expires_at_ns),
                     .what = str_format("take snapshot \"%s\" of branch %s", name, branch_id)};
    r = neon_ask(neon, call, &a, &root, ret_unknown, err);
    if (r == -EDQUOT && err)
        name_snapshots(neon, call, err);
    if (r < 0)
        return r;
    r = neon_parse_snapshot(root, "snapshot", &snapshot, err);
    if (r == 0)
        r = neon_parse_operations(root, ret_operations, err);
    if (r < 0) {
        neon_snapshot_free(&snapshot);
        return neon_done_unread(r, ret_unknown, err);
    }
    *ret_snapshot = snapshot;
    return 0;
}

/* {"snapshot": {…}} of what is to change; NULL when out of memory. */
static json_t *patch_body(const char *name, int64_t expires_at_ns)
{
    json_t *fields cleanup_json = json_object();
    char when[CLOCK_TEXT_MAX];
    int r = fields ? 0 : -1;

    if (r == 0 && name)
        r = json_object_set_new(fields, "name", json_string(name));
    if (r == 0 && expires_at_ns == NEON_EXPIRES_NEVER)
        r = json_object_set_new(fields, "expires_at", json_null());
    else if (r == 0 && expires_at_ns > 0)
        r = json_object_set_new(fields, "expires_at", json_string(clock_format_seconds(expires_at_ns, when)));
    return r == 0 ? json_pack("{s:O}", "snapshot", fields) : NULL;
}

int neon_snapshot_patch(struct neon *neon, const struct neon_call *call, const char *snapshot_id, const char *name,
                        int64_t expires_at_ns, struct neon_snapshot *ret_snapshot, bool *ret_unknown, struct err *err)
{
    json_t *root cleanup_json = NULL;
    struct ask a;
    int r;

    neon_set_unknown(ret_unknown, false);
    r = neon_check_id(snapshot_id, "snapshot", err);
    if (r == 0 && name)
        r = neon_check_name(name, "snapshot", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "PATCH",
                     .path = str_format("/snapshots/%s", snapshot_id),
                     .what = str_format("change snapshot %s", snapshot_id),
                     .has_body = true,
                     .body = patch_body(name, expires_at_ns)};
    r = neon_ask(neon, call, &a, &root, ret_unknown, err);
    if (r < 0)
        return r;
    r = neon_parse_snapshot(root, "snapshot", ret_snapshot, err);
    return r < 0 ? neon_done_unread(r, ret_unknown, err) : 0;
}

int neon_snapshot_delete(struct neon *neon, const struct neon_call *call, const char *snapshot_id,
                         struct neon_operations *ret_operations, bool *ret_unknown, struct err *err)
{
    struct ask a;
    int r;

    neon_set_unknown(ret_unknown, false);
    r = neon_check_id(snapshot_id, "snapshot", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "DELETE",
                     .path = str_format("/snapshots/%s", snapshot_id),
                     .what = str_format("delete snapshot %s", snapshot_id)};
    return neon_ask_operations(neon, call, &a, ret_operations, ret_unknown, err);
}

int neon_restore(struct neon *neon, const struct neon_call *call, const char *snapshot_id, const char *name,
                 const char *target_branch_id, struct neon_restored *ret_restored, bool *ret_unknown, struct err *err)
{
    json_t *root cleanup_json = NULL;
    struct ask a;
    int r;

    neon_set_unknown(ret_unknown, false);
    r = neon_check_id(snapshot_id, "snapshot", err);
    if (r == 0)
        r = neon_check_name(name, "branch", err);
    if (r == 0 && target_branch_id)
        r = neon_check_id(target_branch_id, "branch", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "POST",
                     .path = str_format("/snapshots/%s/restore", snapshot_id),
                     .what = str_format("restore snapshot %s as branch \"%s\"", snapshot_id, name),
                     .has_body = true,
                     .body = json_pack("{s:s, s:s*, s:b}", "name", name, "target_branch_id", target_branch_id,
                                       "finalize_restore", 0)};
    r = neon_ask(neon, call, &a, &root, ret_unknown, err);
    if (r == -EDQUOT && err)
        name_root_branches(neon, call, err);
    if (r < 0)
        return r;
    r = neon_parse_restored(root, ret_restored, err);
    return r < 0 ? neon_done_unread(r, ret_unknown, err) : 0;
}
