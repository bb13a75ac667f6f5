/* The tree: which nodes exist, what each is called, how large it is, and where its bytes come from.
 *
 * The files are rows of the tables in fs/tree/files.c: a file is added there, with one row. Nothing here knows FUSE, and nothing
 * blocks: all answers are from the index. Each function takes the index's read lock for itself. Thread-safe. */
#ifndef TREE_TREE_H
#define TREE_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "commands/role.h"
#include "tree/index.h"
#include "tree/node.h"
#include "util/buf.h"

/* Where the bytes of a file come from when it is read. */
enum node_source {
    SOURCE_NONE,    /* a directory or a link */
    SOURCE_EMPTY,   /* a control file: always empty when read */
    SOURCE_TEXT,    /* in memory: tree_text */
    SOURCE_FILE,    /* a small file of the store: store_read_file */
    SOURCE_STATE,   /* store_read_state */
    SOURCE_DRAFT,   /* a state under way: store_state_assemble */
    SOURCE_OUTPUT,
    SOURCE_HISTORY,
    SOURCE_EVENTS,
    SOURCE_METRICS, /* engine_metrics */
    SOURCE_CALL,
    SOURCE_ACTION,
    SOURCE_TEMP,    /* in the index */
    SOURCE_WAIT,    /* returns when nothing is under way, then the status */
};

struct node_attr {
    node_id id;
    mode_t mode;        /* type and permissions, before the mount's umask */
    enum role who;      /* who may write it, where it can be written at all */
    int64_t size;
    int64_t mtime;      /* ns; ctime is the same */
    bool immutable;     /* bytes and attributes stay for ever: cache them */
    bool fixed_name;    /* the name leads to this node as long as it exists: cache the entry */
    enum node_source source;
    enum store_file file; /* of SOURCE_FILE */
};

/* 0, -ENOENT, -ENOTDIR. */
int tree_lookup(struct index *x, node_id dir, const char *name, struct node_attr *ret);

/* 0, or -ESTALE when what the node stood for is gone. */
int tree_attr(struct index *x, node_id node, struct node_attr *ret);

/* Hands out the entries of `dir` after `cookie` (0 = from the start, `.` and `..` not among them) until `each` returns false: the
 * buffer is full, and that entry comes again. Cookies stay valid over changes. 0, -ENOTDIR, -ESTALE. */
int tree_list(struct index *x, node_id dir, int64_t cookie,
              bool (*each)(void *arg, const char *name, const struct node_attr *attr, int64_t cookie), void *arg);

/* Hands out the names that checkpoints have but this one hasn't now: `output` before there is any, `transcript.md` before the seal. */
void tree_absent(struct index *x, int64_t checkpoint, void (*each)(void *arg, const char *name), void *arg);

/* The directory that `dir` is in: for `..`. */
node_id tree_parent(struct index *x, node_id dir);

/* Appends a link's target, relative to where the link is. 0, -EINVAL when it is no link, -ENOENT. */
int tree_readlink(struct index *x, node_id node, struct buf *ret);

/* Appends the bytes of a SOURCE_TEXT (or SOURCE_TEMP, SOURCE_WAIT: the status) node as they are now. 0, -ESTALE, -ENOMEM. */
int tree_text(struct index *x, node_id node, struct buf *ret);

/* Whether `name` holds the name of a file in a checkpoint's directory that only the product makes, as rsync's `.snapshot.json.XXXXXX`. */
bool tree_names_own_file(const char *name);

/* The name of a checkpoint's own file, as the table has it; NULL: none of that kind. */
const char *tree_file_name(node_id file);

/* The file of a checkpoint that `name` is, or is a tool's temporary of, if only a tool that copies a backup makes it: checkpoint.json,
 * snapshot.json, transcript.md, history.jsonl, pending; unless `surely`, also status, result and output, which somebody may think could be
 * written. Else NULL. The result stays for ever. Any thread. */
const char *tree_backup_file(const char *name, bool surely);

#endif
