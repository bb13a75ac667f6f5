/* Branches: list, find, make, rename, delete. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "neon_i.h"
#include "util/cleanup.h"
#include "util/text.h"

#define PAGE "400"
#define MAX_PAGES 1000

/* ---- reading ---- */

/* One page. `*ret_next` is the cursor of the next one, NULL on the last; free(). */
static int list_page(struct neon *neon, const struct neon_call *call, const char *cursor, struct neon_branches *ret_page,
                     char **ret_next, struct err *err)
{
    struct buf path cleanup_buf = {0};
    json_t *root cleanup_json = NULL;
    char *next cleanup_free = NULL;
    const char *text;
    struct ask a;
    int r;

    buf_adds(&path, "/branches");
    neon_add_query(&path, "limit", PAGE);
    /* Neon's default order, by last change, would let a branch slip from one page to another between two requests. */
    neon_add_query(&path, "sort_by", "created_at");
    neon_add_query(&path, "sort_order", "asc");
    if (cursor)
        neon_add_query(&path, "cursor", cursor);
    a = (struct ask){.method = "GET",
                     .path = buf_steal(&path),
                     .what = str_format("list the branches of project %s", neon->project_id)};
    r = neon_ask(neon, call, &a, &root, NULL, err);
    if (r < 0)
        return r;
    text = neon_json_text(json_object_get(root, "pagination"), "next");
    if (text && *text && !(next = str_dup(text)))
        return err_set(err, ENOMEM, "out of memory");
    r = neon_parse_branches(root, ret_page, err);
    if (r == 0)
        *ret_next = steal_ptr(&next);
    return r;
}

int neon_branches_list(struct neon *neon, const struct neon_call *call, struct neon_branches *ret_branches, struct err *err)
{
    struct neon_call bounded = neon_bound(neon, call); /* one deadline for all pages */
    struct neon_branches all __attribute__((cleanup(neon_branches_free))) = {0};
    char *cursor cleanup_free = NULL;

    for (int page = 0; page < MAX_PAGES; page++) {
        struct neon_branches some __attribute__((cleanup(neon_branches_free))) = {0};
        char *next = NULL;
        size_t n;
        int r;

        r = list_page(neon, &bounded, cursor, &some, &next, err);
        if (r < 0)
            return r;
        free(cursor);
        cursor = next;
        n = some.n;
        if (neon_branches_append(&all, &some) < 0)
            return err_set(err, ENOMEM, "out of memory");
        if (!cursor || n == 0) {
            *ret_branches = all;
            all = (struct neon_branches){0};
            return 0;
        }
    }
    return err_set(err, EPROTO, "Neon's list of branches doesn't end after %d pages", MAX_PAGES);
}

int neon_branch_get(struct neon *neon, const struct neon_call *call, const char *branch_id, struct neon_branch *ret_branch,
                    struct err *err)
{
    json_t *root cleanup_json = NULL;
    struct ask a;
    int r;

    r = neon_check_id(branch_id, "branch", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "GET",
                     .path = str_format("/branches/%s", branch_id),
                     .what = str_format("read branch %s", branch_id)};
    r = neon_ask(neon, call, &a, &root, NULL, err);
    return r < 0 ? r : neon_parse_branch(root, "branch", ret_branch, err);
}

int neon_branch_find(struct neon *neon, const struct neon_call *call, const char *name, struct neon_branch *ret_branch,
                     struct err *err)
{
    struct neon_branches all __attribute__((cleanup(neon_branches_free))) = {0};
    int r;

    r = neon_branches_list(neon, call, &all, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < all.n; i++)
        if (str_equal(all.items[i].name, name)) {
            *ret_branch = all.items[i];
            all.items[i] = (struct neon_branch){0};
            return 0;
        }
    return err_set(err, ENOENT, "project %s has no branch called \"%s\"", neon->project_id, name);
}

const struct neon_branch *neon_branches_default(const struct neon_branches *l)
{
    const struct neon_branch *found = NULL;

    for (size_t i = 0; i < l->n; i++) {
        if (!l->items[i].is_default)
            continue;
        if (found)
            return NULL;
        found = &l->items[i];
    }
    return found;
}

const struct neon_branch *neon_branches_by_id(const struct neon_branches *l, const char *branch_id)
{
    for (size_t i = 0; i < l->n; i++)
        if (str_equal(l->items[i].id, branch_id))
            return &l->items[i];
    return NULL;
}

/* ---- changing ---- */

int neon_branch_create(struct neon *neon, const struct neon_call *call, const char *name, const char *parent_id,
                       struct neon_restored *ret_created, bool *ret_unknown, struct err *err)
{
    json_t *root cleanup_json = NULL;
    struct ask a;
    int r;

    neon_set_unknown(ret_unknown, false);
    r = neon_check_name(name, "branch", err);
    if (r == 0 && parent_id)
        r = neon_check_id(parent_id, "branch", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "POST",
                     .path = str_dup("/branches"),
                     .what = str_format("make branch \"%s\"", name),
                     .has_body = true,
                     .body = json_pack("{s:{s:s, s:s*}, s:[{s:s}]}", "branch", "name", name, "parent_id", parent_id, "endpoints",
                                       "type", "read_write")};
    r = neon_ask(neon, call, &a, &root, ret_unknown, err);
    if (r < 0)
        return r;
    r = neon_parse_restored(root, ret_created, err);
    return r < 0 ? neon_done_unread(r, ret_unknown, err) : 0;
}

int neon_branch_rename(struct neon *neon, const struct neon_call *call, const char *branch_id, const char *name,
                       struct neon_operations *ret_operations, bool *ret_unknown, struct err *err)
{
    struct ask a;
    int r;

    neon_set_unknown(ret_unknown, false);
    r = neon_check_id(branch_id, "branch", err);
    if (r == 0)
        r = neon_check_name(name, "branch", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "PATCH",
                     .path = str_format("/branches/%s", branch_id),
                     .what = str_format("rename branch %s to \"%s\"", branch_id, name),
                     .has_body = true,
                     .body = json_pack("{s:{s:s}}", "branch", "name", name)};
    return neon_ask_operations(neon, call, &a, ret_operations, ret_unknown, err);
}

int neon_branch_delete(struct neon *neon, const struct neon_call *call, const char *branch_id,
                       struct neon_operations *ret_operations, bool *ret_unknown, struct err *err)
{
    struct ask a;
    int r;

    neon_set_unknown(ret_unknown, false);
    r = neon_check_id(branch_id, "branch", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "DELETE",
                     .path = str_format("/branches/%s", branch_id),
                     .what = str_format("delete branch %s", branch_id)};
    return neon_ask_operations(neon, call, &a, ret_operations, ret_unknown, err);
}

int neon_finalize(struct neon *neon, const struct neon_call *call, const char *branch_id, const char *replaced_name,
                  struct neon_operations *ret_operations, bool *ret_unknown, struct err *err)
{
    struct ask a;
    int r;

    neon_set_unknown(ret_unknown, false);
    r = neon_check_id(branch_id, "branch", err);
    if (r == 0 && replaced_name)
        r = neon_check_name(replaced_name, "branch", err);
    if (r < 0)
        return r;
    a = (struct ask){.method = "POST",
                     .path = str_format("/branches/%s/finalize_restore", branch_id),
                     .what = str_format("finalize the restore into branch %s", branch_id),
                     .has_body = replaced_name != NULL,
                     .body = replaced_name ? json_pack("{s:s}", "name", replaced_name) : NULL};
    return neon_ask_operations(neon, call, &a, ret_operations, ret_unknown, err);
}
