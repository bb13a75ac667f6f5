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
    CLASS_BRANCH = 5,     /* row: the isolated branch; NAME/branches/X */
    CLASS_RUN = 6,        /* row: first 52 bits of the SHA-256 of the run's id */
    CLASS_TRACE = 7,      /* row: the same of the trace's id; .by-trace/TRACE_ID */
    CLASS_STAGED = 8,     /* row: a number of this mount; what lies in .import/ */
    CLASS_REPLACED = 9,   /* row: the replaced branch; .control/replaced/BRANCH_ID.json */
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
    MOUNT_RUNS = 14,
    MOUNT_BY_ID = 15,
    MOUNT_BY_SNAPSHOT = 16,
    MOUNT_BY_TRACE = 17,
    MOUNT_REPLACED = 19,
    MOUNT_METRICS = 20,
    MOUNT_UNDO = 21,
    MOUNT_ADOPT = 22,
    MOUNT_IMPORT = 18,
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
    CKPT_RUN_LINK = 18,     /* .runs/RUN_ID/NAME */
    CKPT_ID_LINK = 19,      /* .by-id/ID */
    CKPT_SNAPSHOT_LINK = 20, /* .by-snapshot/SNAPSHOT_ID */
    CKPT_TRACE_LINK = 21,   /* .by-trace/TRACE_ID/NAME */
    CKPT_BRANCH_LINK = 22,  /* branches/X/checkpoints/NAME */
    CKPT_BRANCHES = 23,
};

enum run_kind {
    RUN_DIR = 1, /* .runs/RUN_ID */
    RUN_TIMELINE_SVG = 2,
    RUN_TIMELINE_TXT = 3,
};

enum branch_kind {
    BRANCH_DIR = 1,
    BRANCH_JSON = 2,
    BRANCH_STATUS = 3,
    BRANCH_RESULT = 4,
    BRANCH_OUTPUT = 5,
    BRANCH_RESUME = 6,
    BRANCH_CANCEL = 7,
    BRANCH_PROMOTE = 8,
    BRANCH_CHECKPOINTS = 9,
    BRANCH_URI = 10,
    BRANCH_WAIT = 11,
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
