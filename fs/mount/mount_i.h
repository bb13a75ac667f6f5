/* What the files of fs/mount share.
 *
 * Locks, all leaves to each other but one: waits.lock → a run's own lock. None is held while a reply is sent, while the kernel is
 * notified, or while the store is asked. */
#ifndef MOUNT_I_H
#define MOUNT_I_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "commands/feed.h"
#include "mount/mount.h"
#include "tree/tree.h"
#include "util/buf.h"

struct call;

/* ---- jobs.c: what may block on the store ---- */
struct jobs;
struct jobs *jobs_new(size_t threads);
/* Runs what is queued, then ends the threads. */
void jobs_free(struct jobs *j);
/* Queues; never blocks. */
void jobs_add(struct jobs *j, struct call *c, void (*run)(struct call *c));

/* ---- notify.c: the kernel's caches, invalidated by one thread of its own (fuse.md §1.4) ---- */
struct notifier;
struct notifier *notifier_new(struct fuse_session *se);
void notifier_free(struct notifier *n);
void notify_inode(struct notifier *n, node_id node);
void notify_entry(struct notifier *n, node_id parent, const char *name);

struct mount {
    struct mount_config c;
    struct engine *engine;
    struct fuse_session *se;
    struct jobs *jobs;
    struct jobs *dirs; /* what the kernel holds a directory's lock for: never behind the others */
    struct notifier *notifier;
    uid_t uid;
    gid_t gid;
    bool mounted;
    void (*ready)(void *arg);
    void *ready_arg;

    struct {
        pthread_mutex_t lock; /* protects the list */
        struct call *first;
        sem_t wake;
        pthread_t thread;
        atomic_bool stop;
        bool runs;
    } waits;

    pthread_mutex_t handles_lock; /* protects the lists and what is marked below */
    struct handle *handles;       /* open for writing */
    struct handle *readers;
};

enum handle_kind { HANDLE_READ, HANDLE_CONTROL, HANDLE_DRAFT, HANDLE_META, HANDLE_TEMP };

/* An open file. Requests of one handle come one at a time for writes (the kernel holds the inode), reads may overlap. */
struct handle {
    enum handle_kind kind;
    node_id node;
    int64_t checkpoint;
    enum node_source source;
    enum store_file file;
    pid_t pid;
    uid_t uid;

    pthread_mutex_t lock; /* protects text and loaded: reads may overlap */
    struct buf text;      /* what was loaded for reading; or the meta.json under way */
    bool loaded;

    /* control */
    enum control control;
    struct feed *feed;
    struct run *run;      /* the command's action while it may still be waited for */
    int answer;           /* positive errno the command was answered with: under handles_lock */
    bool answered;        /* under handles_lock */
    bool refused;         /* something that was no command is in the journal already: under handles_lock */
    bool overdue;         /* the deadline of a wait for it came: under handles_lock */
    bool writing;         /* a write waits for its reply: under handles_lock */
    int64_t touched_ms;   /* opened, written or replied to: under handles_lock */

    /* draft, temp */
    struct who who;       /* draft: whoever opened it */
    bool ready;           /* the snapshot settled and is of the active branch */
    bool wrote;
    int failed;           /* positive errno that every later write gets */

    struct handle *next, *prev; /* handles */
};

/* One request that is answered later. */
struct call {
    struct mount *m;
    fuse_req_t req;
    struct handle *h;
    node_id node, node2;   /* the file or directory; the second of a rename */
    char *name, *name2;
    int64_t off;
    size_t size;
    char *data;
    int flags;
    mode_t mode;
    struct fuse_file_info fi;
    struct engine_who {
        pid_t pid;
        uid_t uid;
    } from;
    struct err e;
    struct stat_request { int to_set; int64_t size; } set;

    struct call *job_next;
    void (*job)(struct call *c);

    /* waiting for a run: waits.c */
    struct run_waiter waiter;
    struct run *run;
    void (*then)(struct call *c, int code); /* goes on when the run ended; code: positive errno */
    int code;               /* the errno to answer with: waits.c */
    atomic_bool interrupted;
    int64_t deadline_ms;
    struct call *wait_next, *wait_prev;
    bool waiting;
};

/* ---- call.c ---- */
/* A request to be answered later; replies ENOMEM and returns NULL when there is no memory. */
struct call *call_new(fuse_req_t req, const struct fuse_file_info *fi);
void call_free(struct call *c);
/* A write, with a copy of its bytes and a NUL after them, that can be interrupted. */
struct call *call_write(fuse_req_t req, const struct fuse_file_info *fi, const char *bytes, size_t n, off_t off);
/* What is to be done after the last close: nobody waits for it, and the job frees handle and call. Without memory the handle is freed
 * and nothing done. */
void call_after_close(struct mount *m, struct handle *h, void (*job)(struct call *c));
/* Each replies and frees. `code` is a positive errno, 0 = success. */
void call_reply_err(struct call *c, int code);
void call_reply_write(struct call *c, size_t n);
void call_reply_bytes(struct call *c, const struct buf *b, int64_t off, size_t size);
void call_reply_entry(struct call *c, const struct node_attr *a);
void call_reply_attr(struct call *c, const struct node_attr *a);
void call_reply_open(struct call *c);
void call_reply_create(struct call *c, const struct node_attr *a);

/* ---- waits.c: requests that wait for a run ---- */
int waits_start(struct mount *m);
void waits_stop(struct mount *m);
/* Lets the request be interrupted; call it in the handler, before the job. */
void waits_interruptible(struct call *c);
/* Waits for the run (taking over its reference), then goes on with `then` in a thread that may not block. Interrupted: replies EINTR.
 * After the deadline: ETIMEDOUT. */
void waits_for(struct call *c, struct run *r, void (*then)(struct call *c, int code));

/* ---- handles.c ---- */
struct handle *handle_new(struct mount *m, enum handle_kind kind, const struct node_attr *a, const struct fuse_ctx *ctx);
/* The same, unless another one would make it hang: -EBUSY, -ENOMEM. */
int handle_new_alone(struct mount *m, enum handle_kind kind, const struct node_attr *a, const struct fuse_ctx *ctx, struct handle **ret);
void handle_free(struct mount *m, struct handle *h);
/* A write on it begins to wait for its reply, or is about to get it. */
void handle_writes(struct mount *m, struct handle *h, bool writing);
/* A wait for its command took too long: the same bytes again don't wait that long once more. */
void handle_overdue(struct mount *m, struct handle *h);
static inline struct handle *handle_of(const struct fuse_file_info *fi) { return (struct handle *)(uintptr_t)fi->fh; }
/* Whether a handle has that node open for writing, so that a second writer would hang (fuse.md §0.7). */
bool handle_busy(struct mount *m, node_id node);

/* ---- attr.c ---- */
void fill_stat(const struct mount *m, const struct node_attr *a, struct stat *st);
void fill_entry(const struct mount *m, const struct node_attr *a, struct fuse_entry_param *e);
double attr_timeout(const struct node_attr *a);

/* ---- the handlers, by what they are about ---- */
/* read.c */
void read_open(struct mount *m, fuse_req_t req, const struct node_attr *a, struct fuse_file_info *fi);
void read_read(struct mount *m, fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi);
/* control.c */
void control_open(struct mount *m, fuse_req_t req, const struct node_attr *a, struct fuse_file_info *fi);
void control_write(struct mount *m, fuse_req_t req, const char *bytes, size_t n, struct fuse_file_info *fi);
void control_release(struct mount *m, struct handle *h);
bool control_of(node_id node, enum control *ret);
/* draft.c: state.json and meta.json */
void draft_open(struct mount *m, fuse_req_t req, const struct node_attr *a, struct fuse_file_info *fi);
void draft_create(struct mount *m, fuse_req_t req, node_id dir, const char *name, struct fuse_file_info *fi);
void draft_write(struct mount *m, fuse_req_t req, const char *bytes, size_t n, off_t off, struct fuse_file_info *fi);
void draft_resize(struct call *c, const struct node_attr *a);
void draft_flush(struct mount *m, struct handle *h);
void draft_release(struct mount *m, struct handle *h);
/* c->node: the directory, c->name: what is to go. */
void draft_unlink(struct call *c);
/* temps.c: the temporaries of both */
/* The checkpoint it is in, 0 = it is gone; whether it can only become meta.json. */
int64_t temps_of(struct mount *m, node_id node, bool *ret_of_meta);
/* -ESTALE, -EPERM (it has been renamed onto its file), -EFBIG, -ENOMEM. */
int temps_resize(struct mount *m, node_id node, int64_t size);
int temps_write(struct mount *m, node_id node, int64_t off, const char *bytes, size_t n);
/* c->node: the directory, c->node2: the temporary, c->name2: the new name. */
void temps_rename(struct call *c);
/* The same with meta.json itself as c->node2, and a temporary's name. */
void temps_keep_meta(struct call *c);
void temps_unlink(struct call *c, node_id node);
/* copies.c: a copy is no take */
/* Whether `name` is a temporary of `file`: rsync's .FILE.XXXXXX, FILE~, .FILE.swp, FILE.tmp, FILE.123 … */
bool copies_temporary_of(const char *name, const char *file);
/* Whether the name is one that a take accepts beside state.json and meta.json (design.md §4). */
bool copies_temporary_name(const char *name);
/* EPERM for another name in the directory c->node, and the take has failed if it is a copy in the making. Replies. */
void copies_refuse(struct call *c);
void copies_refuse_unlink(struct call *c);
/* Somebody reads the directory. */
void copies_listed(struct mount *m, node_id dir, pid_t pid);
/* -EPERM for a process that copies a backup into this checkpoint, and for everybody once it is known as a copy. */
int copies_may_write(struct mount *m, int64_t checkpoint, pid_t pid);
/* dirs.c */
void dirs_mkdir(struct mount *m, fuse_req_t req, node_id parent, const char *name);
void dirs_rmdir(struct mount *m, fuse_req_t req, node_id parent, const char *name);
void dirs_rename(struct mount *m, fuse_req_t req, node_id parent, const char *name, node_id new_parent, const char *new_name,
                 unsigned flags);
void dirs_unlink(struct mount *m, fuse_req_t req, node_id parent, const char *name);
void dirs_refuse(struct mount *m, fuse_req_t req, node_id parent, const char *name);
/* ops.c */
extern const struct fuse_lowlevel_ops mount_ops;

#endif
