/* What an inode number means.
 *
 * An inode number is class (4 bits) · row id (52) · kind (8) (design.md §10). The row id is the store's own (bigserial, never used
 * again), so every checkpoint, call, action and link keeps its number for ever, on every machine, and a backup tool that compares
 * inode numbers re-reads nothing (file-tools.md §4.2). Nothing is counted, so FORGET has nothing to do. Kinds and classes are
 * part of the format: add, never renumber. */
#ifndef TREE_NODE_H
#define TREE_NODE_H

#include <stdint.h>

typedef uint64_t node_id;

enum node_class {
    CLASS_MOUNT = 0,      /* the one of everything: root, .control/ …; row 0 */
    CLASS_CHECKPOINT = 1, /* row: the checkpoint */
    CLASS_CALL = 2,       /* row: the call; pending/CALL_ID.json */
    CLASS_ACTION = 3,     /* row: the action; .control/actions/ID.json */
    CLASS_TEMP = 4,       /* row: a number of this mount; a temporary beside state.json or meta.json */
};

enum mount_kind {
    MOUNT_ROOT = 1, /* FUSE_ROOT_ID */
    MOUNT_CONTROL = 2,
    MOUNT_PENDING = 3,
    MOUNT_LATEST = 4,
    MOUNT_ACTIONS = 5,
    MOUNT_ACTIVE_BRANCH = 6,
    MOUNT_CONNECTION_URI = 7,
    MOUNT_HEALTH = 8,
    MOUNT_VERSION = 9,
    MOUNT_CONFIG = 10,
    MOUNT_EVENTS = 11,
    MOUNT_RESULT = 12,
    MOUNT_PRUNE = 13,
};

enum checkpoint_kind {
    CKPT_DIR = 1,
    /* cp and tar go by inode number: what no agent writes comes before the state (see fs/tree/files.c) */
    CKPT_CHECKPOINT = 2,
    CKPT_SNAPSHOT = 3,
    CKPT_STATE = 4,
    CKPT_META = 5,
    CKPT_TRANSCRIPT = 6,
    CKPT_PENDING = 7,
    CKPT_RESTORE = 8,
    CKPT_RESUME = 9,
    CKPT_REPLAY = 10,
    CKPT_CANCEL = 11,
    CKPT_STATUS = 12,
    CKPT_RESULT = 13,
    CKPT_OUTPUT = 14,
    CKPT_HISTORY = 15,
    CKPT_WAIT = 16,
    CKPT_PENDING_LINK = 17, /* .pending/NAME */
};

#define ONLY_KIND 1 /* the kind of classes that have just one */

static inline node_id node_make(enum node_class class, int64_t row, unsigned kind)
{
    return (uint64_t)class << 60 | ((uint64_t)row & ((UINT64_C(1) << 52) - 1)) << 8 | kind;
}

static inline enum node_class node_class(node_id n) { return (enum node_class)(n >> 60); }
static inline int64_t node_row(node_id n) { return (int64_t)(n >> 8 & ((UINT64_C(1) << 52) - 1)); }
static inline unsigned node_kind(node_id n) { return (unsigned)(n & 0xff); }

#define NODE_ROOT node_make(CLASS_MOUNT, 0, MOUNT_ROOT)

#endif
