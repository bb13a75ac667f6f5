/* From the tree's attributes to the kernel's. */
#include <string.h>
#include <sys/stat.h>

#include "mount_i.h"

/* For ever: what changes it is told to the kernel by notify.c. */
#define LONG 1e9

double attr_timeout(const struct node_attr *a)
{
    bool directory = S_ISDIR(a->mode);

    return a->immutable || (directory && a->fixed_name && node_class(a->id) == CLASS_CHECKPOINT) ? LONG : 0;
}

void fill_stat(const struct mount *m, const struct node_attr *a, struct stat *st)
{
    memset(st, 0, sizeof(*st));
    st->st_ino = a->id;
    st->st_mode = S_ISLNK(a->mode) ? a->mode : a->mode & ~m->c.umask;
    st->st_nlink = S_ISDIR(a->mode) ? 2 : 1;
    st->st_uid = m->c.uid;
    st->st_gid = m->c.gid;
    st->st_size = a->size;
    st->st_blksize = 4096; /* bash cuts long commands at it: traps.md 3 */
    st->st_blocks = (a->size + 511) / 512;
    st->st_mtim.tv_sec = a->mtime / 1000000000;
    st->st_mtim.tv_nsec = a->mtime % 1000000000;
    st->st_ctim = st->st_atim = st->st_mtim;
}

void fill_entry(const struct mount *m, const struct node_attr *a, struct fuse_entry_param *e)
{
    memset(e, 0, sizeof(*e));
    e->ino = a->id;
    fill_stat(m, a, &e->attr);
    e->attr_timeout = attr_timeout(a);
    e->entry_timeout = a->fixed_name ? LONG : 0;
}
