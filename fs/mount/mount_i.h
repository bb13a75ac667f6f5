/* What the files of fs/mount share.
 *
 * Locks, all leaves to each other but these: waits.lock → a run's own lock or the index's, handles_lock → the notifier's. None is held
 * while a reply is sent, while the kernel is notified, or while the store is asked. */
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
/* Whether a call is queued or being worked on. */
bool jobs_busy(struct jobs *j);

/* ---- notify.c: the kernel's caches, invalidated by one thread of its own (fuse.md §1.4) ---- */
struct notifier;
struct notifier *notifier_new(struct fuse_session *se);
void notifier_free(struct notifier *n);
void notify_inode(struct notifier *n, node_id node);
void notify_entry(struct notifier *n, node_id parent, const char *name);
/* From here on until notify_release no entry of `dir` is invalidated that wasn't kept waiting before: the kernel holds its lock until a
 * call is answered. */
void notify_hold(struct notifier *n, node_id dir);
void notify_release(struct notifier *n, node_id dir);
/* Takes over `ph`. */
void notify_poll(struct notifier *n, struct fuse_pollhandle *ph);

struct mount {
    struct mount_config c;
    struct engine *engine;
    struct fuse_session *se;
    struct jobs *jobs;
    struct jobs *dirs; /* what the kernel holds a directory's lock for: never behind the others */
    struct notifier *notifier;
    struct staging *staging; /* .import/ */
    struct spool *spool;     /* and its bytes */
    struct importer *importer;
    bool mounted;
    void (*ready)(void *arg);
    void *ready_arg;

    struct {
        pthread_mutex_t lock; /* protects the list and `going` */
        struct call *first;
        size_t going; /* calls out of the list that a run's thread still works on */
        sem_t wake;
        pthread_t thread;
        atomic_bool stop;
        bool runs;
    } waits;

    pthread_mutex_t handles_lock; /* protects the lists and what is marked below */
    struct handle *handles;       /* open for writing */
    struct handle *readers;
    size_t polled;                /* of them, with somebody who waits in poll(2) */
};

enum handle_kind { HANDLE_READ, HANDLE_CONTROL, HANDLE_DRAFT, HANDLE_META, HANDLE_TEMP, HANDLE_STAGED };

/* An open file. Requests of one handle come one at a time for writes (the kernel holds the inode), reads may overlap. */
struct handle {
    enum handle_kind kind;
    node_id node;
    int64_t checkpoint;
    int64_t branch;       /* an isolated branch of it; 0 = none */
    enum node_source source;
    enum store_file file;
    struct engine_who from; /* whoever opened it */
    int fd; /* staged; -1 = none */

    pthread_mutex_t lock; /* protects text, loaded and seen: reads may overlap */
    struct buf text;      /* what was loaded for reading; or the meta.json under way */
    bool loaded;
    int64_t seen;         /* files that grow: up to where it was read; under lock */
    struct fuse_pollhandle *poll; /* whoever waits in poll(2): under handles_lock */

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
    bool wrote;           /* control: anything, and under handles_lock */
    int failed;           /* positive errno that every later write gets, or read of `wait`: then under lock */

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
    node_id held[2];       /* directories whose locks the kernel holds until the reply: call_holds */
    size_t n_held;
    struct engine_who from;
    struct err e;
    struct stat_request { int to_set; int64_t size; } set;

    struct call *job_next;
    void (*job)(struct call *c);

    /* waiting for a run: waits.c */
    struct run_waiter waiter;
    struct run *run;        /* NULL: for a seal */
    void (*then)(struct call *c, int code); /* goes on when that is over; code: positive errno */
    int code;               /* the errno to answer with: waits.c, access_check */
    const char *why;        /* of access_check */
    atomic_bool interrupted;
    int64_t deadline_ms;
    struct call *wait_next, *wait_prev;
    bool waiting;
};

/* ---- call.c ---- */
/* A request to be answered later; replies ENOMEM and returns NULL when there is no memory. */
struct call *call_new(fuse_req_t req, const struct fuse_file_info *fi);
void call_free(struct call *c);
/* The kernel holds the lock of `dir` until it is answered: two at most. */
void call_holds(struct call *c, node_id dir);
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
/* When the engine has stopped: replies EINTR to all who still wait, until no run's thread works on a call any more. */
void waits_stop(struct mount *m);
/* After the last job, which may still ask to wait (and is refused). */
void waits_free(struct mount *m);
/* Lets the request be interrupted; call it in the handler, before the job. */
void waits_interruptible(struct call *c);
/* Waits for the run (taking over its reference), then goes on with `then` in a thread that may not block. Interrupted: replies EINTR.
 * After the deadline: ETIMEDOUT. */
void waits_for(struct call *c, struct run *r, void (*then)(struct call *c, int code));
/* The same until c->h->checkpoint isn't being sealed. c->deadline_ms must be set. */
void waits_for_seal(struct call *c, void (*then)(struct call *c, int code));

/* ---- handles.c ---- */
struct handle *handle_new(struct mount *m, enum handle_kind kind, const struct node_attr *a, const struct fuse_ctx *ctx);
/* The same, unless another one would make it hang: -EBUSY, -ENOMEM. */
int handle_new_alone(struct mount *m, enum handle_kind kind, const struct node_attr *a, const struct fuse_ctx *ctx, struct handle **ret);
void handle_free(struct mount *m, struct handle *h);
/* The checkpoint that a node belongs to, itself or by its isolated branch; 0 = none. */
int64_t checkpoint_of(struct mount *m, node_id node);
/* A write on it begins to wait for its reply, or is about to get it. */
void handle_writes(struct mount *m, struct handle *h, bool writing);
/* Whether anything was written to a control file's handle. */
bool handle_written(struct mount *m, node_id node);
/* A wait for its command took too long: the same bytes again don't wait that long once more. */
void handle_overdue(struct mount *m, struct handle *h);
static inline struct handle *handle_of(const struct fuse_file_info *fi) { return (struct handle *)(uintptr_t)fi->fh; }
/* Whether a handle has that node open for writing, so that a second writer would hang (fuse.md §0.7). */
bool handle_busy(struct mount *m, node_id node);

/* ---- access.c ---- */
/* Whether the process that asks may do what `needed` may: 0, or EPERM, EACCES and why (static; may be NULL). Looks into /proc, waits for
 * nothing. */
int access_check(struct mount *m, fuse_req_t req, enum role needed, const char **ret_why);
/* Whether the mount's role is less than `needed`; then it has replied EPERM. */
bool access_refused(fuse_req_t req, enum role needed);

/* ---- poll.c ---- */
/* Takes over `ph`, which may be NULL. */
void poll_poll(struct mount *m, fuse_req_t req, struct fuse_file_info *fi, struct fuse_pollhandle *ph);
/* `n` bytes were read at `off` of a file that grows. */
void poll_seen(struct mount *m, struct handle *h, int64_t off, size_t n);
/* Something of the checkpoint has changed, and with it the mount's own files; 0: only these. */
void poll_changed(struct mount *m, int64_t checkpoint);
/* What every checkpoint says may be another. */
void poll_all_changed(struct mount *m);
/* The file is being closed. */
void poll_forget(struct mount *m, struct handle *h);

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
/* meta.c: meta.json. The handle of one that is opened without O_TRUNC begins with what is there, which is read through it, too: 0 or
 * -errno. */
int meta_load(struct call *c);
/* A job: a write that completes the JSON has its effect, or fails and has none. */
void meta_write(struct call *c);
void meta_resize(struct handle *h, off_t size);
/* What was written ends before its JSON does; the job meta_incomplete then tells that in `result`, and frees handle and call. */
bool meta_cut_short(const struct handle *h);
void meta_incomplete(struct call *c);

/* draft.c: state.json, its temporaries, and meta.json */
void draft_open(struct mount *m, fuse_req_t req, const struct node_attr *a, struct fuse_file_info *fi);
void draft_create(struct mount *m, fuse_req_t req, node_id dir, const char *name, struct fuse_file_info *fi);
void draft_write(struct mount *m, fuse_req_t req, const char *bytes, size_t n, off_t off, struct fuse_file_info *fi);
void draft_resize(struct call *c, const struct node_attr *a);
/* 0, or -ENOENT: what was written is gone, with its checkpoint. draft_flush also lets verbs wait for the seal from here on. */
int draft_sync(struct mount *m, const struct handle *h);
int draft_flush(struct mount *m, struct handle *h);
void draft_release(struct mount *m, struct handle *h);
/* c->node: the directory, c->name: what is to go. */
void draft_unlink(struct call *c);
/* temps.c: the temporaries of both */
/* The checkpoint it is in, 0 = it is gone; whether it can only become meta.json. */
int64_t temps_of(struct mount *m, node_id node, bool *ret_of_meta);
/* Appends its bytes, after its rename those of the file that it has become. 0, -ESTALE, -ENOMEM, and what the store says. */
int temps_read(struct mount *m, node_id node, struct buf *ret, struct err *e);
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
/* EPERM for `name` in the directory c->node. If that is a copy in the making the take has failed; if it is a slip while a take is open,
 * `result` says what can be written there. Replies. `name` may be c's own; NULL = no file that anybody could mean. */
void copies_refuse(struct call *c, const char *name);
void copies_refuse_unlink(struct call *c, const char *name);
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
extern const struct fuse_lowlevel_ops mount_ops; /* of the tree */
/* front.c: of the whole mount */
struct fuse_lowlevel_ops front_ops(void);

#endif
