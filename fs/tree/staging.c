/* The model of .import/: names, attributes and the rules of rename and unlink, as POSIX has them. */
#include "staging_i.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/clock.h"
#include "util/text.h"

#define KEY_ID sizeof(int64_t)

const char *staged_name(const struct staged *n) { return n->key + KEY_ID; }

static char *key_new(int64_t dir, const char *name)
{
    size_t n = strlen(name) + 1;
    char *key = malloc(KEY_ID + n);

    if (key) {
        memcpy(key, &dir, KEY_ID);
        memcpy(key + KEY_ID, name, n);
    }
    return key;
}

static size_t key_size(const char *key) { return KEY_ID + strlen(key + KEY_ID); }

struct staging *staging_new(size_t max_nodes, int64_t max_bytes, int64_t max_file, uid_t uid, gid_t gid, mode_t mode)
{
    struct staging *s = calloc(1, sizeof(*s));
    struct staged *root;

    if (!s)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->next_id = STAGING_ROOT + 1;
    s->max_nodes = max_nodes;
    s->max_bytes = max_bytes;
    s->max_file = max_file;
    root = &s->root;
    root->a = (struct staged_attr){.id = STAGING_ROOT, .mode = S_IFDIR | mode, .uid = uid, .gid = gid, .nlink = 2};
    HASH_ADD(by_id, s->by_id, a.id, sizeof(root->a.id), root);
    return s;
}

static void node_free(struct staged *n)
{
    free(n->key);
    free(n->target);
    free(n->children);
    free(n);
}

void staging_free(struct staging *s)
{
    struct staged *n, *next;

    if (!s)
        return;
    HASH_CLEAR(by_name, s->by_name);
    HASH_ITER(by_id, s->by_id, n, next) {
        HASH_DELETE(by_id, s->by_id, n);
        if (n != &s->root)
            node_free(n);
    }
    for (size_t i = 0; i < KEPT; i++)
        free(s->kept[i].ids);
    free(s->root.children);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- finding -------------------------------------------------------------------------------------------------------- */

struct staged *staged_find(struct staging *s, int64_t id)
{
    struct staged *n;

    HASH_FIND(by_id, s->by_id, &id, sizeof(id), n);
    return n;
}

/* NULL when there is none, or no memory to look for it. */
static struct staged *find_name(struct staging *s, const struct staged *dir, const char *name)
{
    char *key = key_new(dir->a.id, name);
    struct staged *n = NULL;

    if (key)
        HASH_FIND(by_name, s->by_name, key, key_size(key), n);
    free(key);
    return n;
}

static bool is_dir(const struct staged *n) { return S_ISDIR(n->a.mode); }
/* Whether `n` is `dir` or above it. */
static bool above(const struct staged *n, const struct staged *dir)
{
    while (dir && dir != n)
        dir = dir->parent;
    return dir != NULL;
}

bool staged_frozen(const struct staged *n)
{
    while (n && !n->frozen)
        n = n->parent;
    return n != NULL;
}

bool staged_removed(const struct staging *s, const struct staged *n) { return n != &s->root && !n->parent; }

/* A directory whose entries may be looked at or changed. */
static int find_dir(struct staging *s, int64_t id, struct staged **ret)
{
    struct staged *n = staged_find(s, id);

    if (!n)
        return -ESTALE;
    if (!is_dir(n))
        return -ENOTDIR;
    if (staged_removed(s, n))
        return -ENOENT;
    *ret = n;
    return 0;
}

int staging_lookup(struct staging *s, int64_t dir, const char *name, struct staged_attr *ret)
{
    struct staged *d = NULL, *n;
    int r;

    pthread_mutex_lock(&s->lock);
    r = find_dir(s, dir, &d);
    if (r == 0) {
        n = find_name(s, d, name);
        if (n)
            *ret = n->a;
        else
            r = -ENOENT;
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

int staging_attr(struct staging *s, int64_t id, struct staged_attr *ret)
{
    struct staged *n;

    pthread_mutex_lock(&s->lock);
    n = staged_find(s, id);
    if (n)
        *ret = n->a;
    pthread_mutex_unlock(&s->lock);
    return n ? 0 : -ESTALE;
}

int64_t staging_parent(struct staging *s, int64_t id)
{
    struct staged *n;
    int64_t parent;

    pthread_mutex_lock(&s->lock);
    n = staged_find(s, id);
    parent = n && n->parent ? n->parent->a.id : STAGING_ROOT;
    pthread_mutex_unlock(&s->lock);
    return parent;
}

int staging_readlink(struct staging *s, int64_t id, struct buf *ret)
{
    struct staged *n;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    n = staged_find(s, id);
    if (!n || !n->target)
        r = n ? -EINVAL : -ESTALE;
    else
        buf_adds(ret, n->target);
    pthread_mutex_unlock(&s->lock);
    return r < 0 ? r : buf_error(ret);
}

/* Where a child of that id is, or would go. */
size_t staged_position(const struct staged *dir, int64_t id)
{
    size_t lo = 0;
    size_t hi = dir->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (dir->children[mid]->a.id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int staging_list(struct staging *s, int64_t dir, int64_t cookie,
                 bool (*each)(void *arg, const char *name, const struct staged_attr *a, int64_t cookie), void *arg)
{
    struct staged *d = NULL;
    int r;

    pthread_mutex_lock(&s->lock);
    r = find_dir(s, dir, &d);
    if (r == 0) {
        for (size_t i = staged_position(d, cookie + 1); i < d->n; i++)
            if (!each(arg, staged_name(d->children[i]), &d->children[i]->a, d->children[i]->a.id))
                break;
    } else if (r == -ENOENT) {
        r = 0; /* removed under somebody's feet: empty */
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* ---- changing ------------------------------------------------------------------------------------------------------- */

static void changed(struct staged *dir) { dir->a.mtime = dir->a.ctime = clock_now(); }

static int adopt(struct staged *dir, struct staged *n)
{
    size_t at;

    if (dir->n == dir->cap) {
        size_t cap = dir->cap ? 2 * dir->cap : 16;
        struct staged **grown = realloc(dir->children, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        dir->children = grown;
        dir->cap = cap;
    }
    at = staged_position(dir, n->a.id);
    memmove(dir->children + at + 1, dir->children + at, (dir->n - at) * sizeof(*dir->children));
    dir->children[at] = n;
    dir->n++;
    n->parent = dir;
    changed(dir);
    return 0;
}

void staged_leave(struct staged *n)
{
    struct staged *dir = n->parent;
    size_t at = staged_position(dir, n->a.id);

    memmove(dir->children + at, dir->children + at + 1, (dir->n - at - 1) * sizeof(*dir->children));
    dir->n--;
    n->parent = NULL;
    changed(dir);
}

static int room(const struct staging *s, const struct staged *n, int64_t size)
{
    if (size > s->max_file)
        return -EFBIG;
    return size > n->a.size && s->bytes - n->a.size > s->max_bytes - size ? -ENOSPC : 0;
}

static int make(struct staging *s, struct staged *dir, const char *name, struct staged *n)
{
    int r;

    if (find_name(s, dir, name))
        return -EEXIST;
    if (s->nodes >= s->max_nodes)
        return -ENOSPC;
    n->key = key_new(dir->a.id, name);
    if (!n->key)
        return -ENOMEM;
    n->a.id = s->next_id;
    r = adopt(dir, n);
    if (r < 0)
        return r;
    s->next_id++;
    s->nodes++;
    HASH_ADD(by_id, s->by_id, a.id, sizeof(n->a.id), n);
    HASH_ADD_KEYPTR(by_name, s->by_name, n->key, key_size(n->key), n);
    return 0;
}

int staging_make(struct staging *s, int64_t dir, const char *name, mode_t mode, uid_t uid, gid_t gid, const char *target,
                 struct staged_attr *ret)
{
    struct staged *d = NULL;
    struct staged *n = strlen(name) > NAME_MAX ? NULL : calloc(1, sizeof(*n));
    int64_t now = clock_now();
    int r;

    if (!n)
        return strlen(name) > NAME_MAX ? -ENAMETOOLONG : -ENOMEM;
    n->a = (struct staged_attr){
        .mode = mode, .uid = uid, .gid = gid, .nlink = S_ISDIR(mode) ? 2 : 1, .atime = now, .mtime = now, .ctime = now,
    };
    n->target = str_dup(target);
    if (target)
        n->a.size = (int64_t)strlen(target);
    pthread_mutex_lock(&s->lock);
    r = target && !n->target ? -ENOMEM : find_dir(s, dir, &d);
    if (r == 0 && staged_frozen(d))
        r = -EBUSY;
    if (r == 0)
        r = make(s, d, name, n);
    if (r == 0)
        *ret = n->a;
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        node_free(n);
    return r;
}

void staged_forget(struct staging *s, struct staged *n)
{
    if (S_ISREG(n->a.mode))
        s->bytes -= n->a.size;
    HASH_DELETE(by_id, s->by_id, n);
    s->nodes--;
    node_free(n);
}

/* Takes it out of its directory; it stays as long as it is open. Returns the file whose bytes can go. */
static int64_t unlink_node(struct staging *s, struct staged *n)
{
    int64_t gone = S_ISREG(n->a.mode) ? n->a.id : 0;

    HASH_DELETE(by_name, s->by_name, n);
    staged_leave(n);
    n->a.nlink = 0;
    n->a.ctime = clock_now();
    if (n->open == 0)
        staged_forget(s, n);
    return gone;
}

static int removable(const struct staged *n, bool directory)
{
    if (is_dir(n) != directory)
        return directory ? -ENOTDIR : -EISDIR;
    return n->n ? -ENOTEMPTY : 0;
}

int staging_remove(struct staging *s, int64_t dir, const char *name, bool directory, int64_t *ret_gone)
{
    struct staged *d = NULL, *n;
    int r;

    pthread_mutex_lock(&s->lock);
    r = find_dir(s, dir, &d);
    if (r == 0) {
        n = find_name(s, d, name);
        r = !n ? -ENOENT : staged_frozen(n) ? -EBUSY : removable(n, directory);
        if (r == 0)
            *ret_gone = unlink_node(s, n);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

static int move(struct staging *s, struct staged *n, struct staged *dir, const char *name, struct staged *over, int64_t *ret_gone)
{
    char *key = key_new(dir->a.id, name);
    struct staged *from = n->parent;
    int r;

    if (!key)
        return -ENOMEM;
    staged_leave(n);
    r = adopt(dir, n);
    if (r < 0) { /* it had room where it was */
        adopt(from, n);
        free(key);
        return r;
    }
    if (over)
        *ret_gone = unlink_node(s, over);
    HASH_DELETE(by_name, s->by_name, n);
    free(n->key);
    n->key = key;
    n->a.ctime = clock_now();
    HASH_ADD_KEYPTR(by_name, s->by_name, n->key, key_size(n->key), n);
    return 0;
}

static int rename_locked(struct staging *s, struct staged *d, const char *name, struct staged *to, const char *new_name,
                         bool noreplace, int64_t *ret_gone)
{
    struct staged *n = find_name(s, d, name);
    struct staged *over = find_name(s, to, new_name);
    int r = 0;

    if (!n)
        return -ENOENT;
    if (over && noreplace)
        return -EEXIST;
    if (over == n)
        return 0;
    if (staged_frozen(n) || staged_frozen(to) || (over && over->frozen))
        return -EBUSY;
    if (is_dir(n) && above(n, to))
        return -EINVAL;
    if (over)
        r = removable(over, is_dir(n));
    return r < 0 ? r : move(s, n, to, new_name, over, ret_gone);
}

int staging_rename(struct staging *s, int64_t dir, const char *name, int64_t new_dir, const char *new_name, bool noreplace,
                   int64_t *ret_gone)
{
    struct staged *d = NULL, *to = NULL;
    int r = strlen(new_name) > NAME_MAX ? -ENAMETOOLONG : 0;

    *ret_gone = 0;
    pthread_mutex_lock(&s->lock);
    if (r == 0)
        r = find_dir(s, dir, &d);
    if (r == 0)
        r = find_dir(s, new_dir, &to);
    if (r == 0)
        r = rename_locked(s, d, name, to, new_name, noreplace, ret_gone);
    pthread_mutex_unlock(&s->lock);
    return r;
}

int staging_set(struct staging *s, int64_t id, const struct staged_set *set, struct staged_attr *ret)
{
    struct staged *n;

    pthread_mutex_lock(&s->lock);
    n = staged_find(s, id);
    if (n) {
        if (set->has_mode)
            n->a.mode = (n->a.mode & S_IFMT) | (set->mode & 07777);
        if (set->has_uid)
            n->a.uid = set->uid;
        if (set->has_gid)
            n->a.gid = set->gid;
        if (set->has_atime)
            n->a.atime = set->atime;
        if (set->has_mtime)
            n->a.mtime = set->mtime;
        n->a.ctime = clock_now();
        *ret = n->a;
    }
    pthread_mutex_unlock(&s->lock);
    return n ? 0 : -ESTALE;
}

int staging_resize(struct staging *s, int64_t id, int64_t size, bool at_least, int64_t *ret_old)
{
    struct staged *n;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    n = staged_find(s, id);
    if (!n || n->became)
        r = n ? -EPERM : -ESTALE;
    else if (staged_frozen(n))
        r = -EBUSY;
    else if (!S_ISREG(n->a.mode))
        r = is_dir(n) ? -EISDIR : -EINVAL;
    else if (!at_least || size > n->a.size)
        r = room(s, n, size);
    if (r == 0) {
        if (ret_old)
            *ret_old = n->a.size;
        if (at_least && size < n->a.size)
            size = n->a.size;
        s->bytes += size - n->a.size;
        n->a.size = size;
        n->a.mtime = n->a.ctime = clock_now();
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}
