/* Waking an agent: the resume command with its decisions, its output, and what its end means (design.md §6). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define GO_ON "to go on: restore the checkpoint, or write `again …` to resume"

#define EXIT_STOPPED_AGAIN 10
#define EXIT_NOTHING_DONE 75 /* EX_TEMPFAIL of sysexits.h */

#define PUMP_MS 100
#define FLUSH_BYTES 65536
#define KEEP_BYTES (64 * FLUSH_BYTES) /* in memory while the store is away */
#define STORE_WAIT_MS 200
#define TAIL_BYTES 400
/* The supervisor ends the agent when it heard nothing for so long; it hears something only while the mount's own lease holds.
 * Together less than STORE_LEASE_MS, after which another mount may take over. */
#define LEASE_SECONDS 9
#define LEASE_FRESH_MS 5000
/* An agent's last close may be sealed after its end has been told: so long for the close to arrive, and for the seal to end. */
#define CLOSE_MS 300
#define SEAL_MS 10000
#define LOOK_MS 20

struct waking {
    struct run *r;
    struct brief b;
    char *branch, *uri, *decisions_path, *next_dir;
    char *env[10];
    struct buf out;         /* not yet in the store */
    struct buf tail;        /* the end of the output, for the message */
    bool tail_cut;          /* there was more before it */
    struct agent_exit exit;
};

static void waking_clear(struct waking *w)
{
    if (w->decisions_path)
        unlink(w->decisions_path);
    for (size_t i = 0; i < sizeof(w->env) / sizeof(*w->env); i++)
        free(w->env[i]);
    free(w->branch);
    free(w->uri);
    free(w->decisions_path);
    free(w->next_dir);
    buf_free(&w->out);
    buf_free(&w->tail);
    brief_clear(&w->b);
}

/* CHECKPOINT_DECISIONS: a file of ours alone, since a rejection's text may be anything. */
static int write_decisions(struct waking *w, struct err *e)
{
    const char *dir = getenv("TMPDIR");
    cleanup_fd int fd = -1;
    size_t n = strlen(w->r->decisions);

    w->decisions_path = str_format("%s/checkpointfs-%s-XXXXXX", dir && *dir == '/' ? dir : "/tmp", w->r->uid);
    if (!w->decisions_path)
        return err_set(e, ENOMEM, "out of memory");
    fd = mkostemp(w->decisions_path, O_CLOEXEC);
    if (fd < 0) {
        int code = errno;

        free(w->decisions_path);
        w->decisions_path = NULL;
        return err_set(e, code, "the file of decisions can't be made in %s: %s", dir ? dir : "/tmp", strerror(code));
    }
    if (write(fd, w->r->decisions, n) != (ssize_t)n)
        return err_set(e, EIO, "the file of decisions %s can't be written", w->decisions_path);
    return 0;
}

/* To the line's branch, as the store and Neon say now: another mount may have made another one active a moment ago, and a restore brings
 * old passwords back. What is known here serves while Neon can't be asked. */
static int line_connection(struct waking *w, const struct neon_call *call, struct err *e)
{
    struct engine *g = w->r->g;
    struct neon_call once = *call;
    struct store_line line = {0};
    int r = store_line_get(g->c.store, g->line_id, &line, e);

    if (r < 0)
        return r;
    w->branch = steal_ptr(&line.active_branch);
    store_line_free(&line);
    once.flags |= NEON_CALL_ONCE;
    if (active_uri(g, &once, w->branch, &w->uri, NULL) == 0)
        return 0;
    pthread_mutex_lock(&g->lock);
    if (str_equal(g->active_branch, w->branch))
        w->uri = str_dup(g->connection_uri);
    pthread_mutex_unlock(&g->lock);
    return w->uri ? 0 : active_uri(g, call, w->branch, &w->uri, e);
}

static int connection(struct waking *w, struct err *e)
{
    struct engine *g = w->r->g;
    struct neon_call call = run_call(w->r);
    struct branch_brief b = {0};
    int r;

    if (w->r->isolated) {
        r = branch_connection(g, &call, w->r->isolated, &w->branch, &w->uri, e);
        if (r == 0 && engine_branch_brief(g, w->r->isolated, &b) == 0)
            w->next_dir = str_format("%s/%s/branches/%s/checkpoints", g->c.mountpoint, b.checkpoint_name, b.name);
        branch_brief_clear(&b);
        return r == 0 && !w->next_dir ? err_set(e, ENOMEM, "out of memory") : r;
    }
    return line_connection(w, &call, e);
}

static int environment(struct waking *w)
{
    const char *mount = w->r->g->c.mountpoint;
    char **env = w->env;

    *env++ = str_format("CHECKPOINT_ID=%s", w->b.uid);
    *env++ = str_format("CHECKPOINT_NAME=%s", w->b.name);
    *env++ = str_format("CHECKPOINT_MOUNT=%s", mount);
    *env++ = str_format("CHECKPOINT_DIR=%s/%s", mount, w->b.name);
    *env++ = str_format("CHECKPOINT_STATE=%s/%s/state.json", mount, w->b.name);
    *env++ = str_format("CHECKPOINT_DECISIONS=%s", w->decisions_path);
    *env++ = str_format("CHECKPOINT_NEXT_DIR=%s", w->next_dir ? w->next_dir : mount);
    *env++ = str_format("CHECKPOINT_BRANCH=%s", w->branch);
    *env++ = str_format("DATABASE_URL=%s", w->uri);
    for (size_t i = 0; i + 1 < sizeof(w->env) / sizeof(*w->env); i++)
        if (!w->env[i])
            return -ENOMEM;
    return 0;
}

static int announce(struct waking *w, struct err *e)
{
    char when[CLOCK_TEXT_MAX];
    cleanup_free char *activity = str_format("agent running on %s since %s", w->r->g->host, clock_format_seconds(clock_now(), when));

    if (!activity)
        return err_set(e, ENOMEM, "out of memory");
    if (w->r->kind == ACTION_RESUME) { /* of a replay, its restore has said which */
        data_set(w->r, "branch_before", w->branch);
        data_set(w->r, "branch_after", w->branch);
    }
    data_set(w->r, "decisions_file", w->decisions_path);
    data_set(w->r, "agent_id", w->r->uid); /* so that whoever takes over can see when it has ended */
    data_set(w->r, "host", w->r->g->host);
    data_set(w->r, "boot_id", w->r->g->boot_id);
    data_set_int(w->r, "grace_ms", w->r->g->c.grace_ms);
    return journal_step(w->r, "agent", activity, e);
}

/* Once the step is `agent`. A cancel marks the action and then looks at its step, which are one row: who found another step has said that
 * no agent will be started, and its mark is seen here; who finds this one says that the agent is told to end. */
static int may_start(struct run *r, struct err *e)
{
    if (!run_holds_for_sure(r))
        return atomic_load(&r->g->stopping) ? err_set(e, EINTR, "the mount was unmounted before")
                                            : err_set(e, ESTALE, "another mount has the action now");
    return atomic_load(&r->cancelled) ? err_set(e, ECANCELED, "it was cancelled before") : 0;
}

static int start(struct waking *w, struct agent **ret, struct err *e)
{
    static const char *const unset[] = {"NEON_API_KEY", "CHECKPOINTFS_STORE", "PG*", NULL};
    struct engine *g = w->r->g;
    struct agent_spec spec = {
        .command = g->c.resume_command,
        .cwd = g->c.cwd,
        .set_env = (const char *const *)w->env,
        .unset_env = unset,
        .id = w->r->uid,
        .lease_seconds = LEASE_SECONDS,
        .grace_ms = (unsigned)g->c.grace_ms,
    };
    int r;

    if (!spec.command) /* of a replay that a mount with one began */
        return err_set(e, EOPNOTSUPP, "no resume command is configured: start the mount with --resume=COMMAND, then write to resume");
    if (engine_brief(g, w->r->checkpoint, &w->b) < 0)
        return err_set(e, ENOENT, "the checkpoint is gone");
    if ((r = connection(w, e)) < 0 || (r = write_decisions(w, e)) < 0)
        return r;
    if (environment(w) < 0)
        return err_set(e, ENOMEM, "out of memory");
    if ((r = store_output_reset(g->c.store, w->r->checkpoint, w->r->of_branch ? w->r->isolated : 0, e)) < 0 || (r = announce(w, e)) < 0)
        return r;
    engine_point(g, "before the agent starts");
    if ((r = may_start(w->r, e)) < 0)
        return r;
    r = agent_start(&spec, ret, e);
    engine_point(g, "after the agent was started");
    return r;
}

/* To the store. While that is away the output is kept; what can't be kept waits, and so does the agent that prints it. */
static void flush(struct waking *w, size_t keep)
{
    cleanup_err struct err e = {0};
    int64_t of = w->r->of_branch ? w->r->isolated : 0;
    int rc = 0;

    while (w->out.len && (rc = store_output_append(w->r->g->c.store, w->r->checkpoint, of, w->out.data, w->out.len, &e)) < 0) {
        if (!store_away(-rc) || run_leaves(w->r))
            break;
        if (w->out.len <= keep)
            return;
        clock_sleep_ms(STORE_WAIT_MS);
    }
    if (rc < 0)
        log_warn("output of %s is lost: %s", w->r->uid, err_text(&e));
    if (w->out.len)
        engine_refresh(w->r->g, w->r->checkpoint, 0);
    buf_truncate(&w->out, 0);
}

static void on_output(void *ctx, const char *bytes, size_t n)
{
    struct waking *w = ctx;

    buf_add(&w->out, bytes, n);
    if (n > TAIL_BYTES) {
        buf_truncate(&w->tail, 0);
        w->tail_cut = true;
    }
    buf_add(&w->tail, bytes + (n > TAIL_BYTES ? n - TAIL_BYTES : 0), n > TAIL_BYTES ? TAIL_BYTES : n);
    if (w->tail.len > 4 * TAIL_BYTES) {
        w->tail_cut = true;
        memmove(w->tail.data, w->tail.data + w->tail.len - TAIL_BYTES, TAIL_BYTES);
        buf_truncate(&w->tail, TAIL_BYTES);
    }
    if (w->out.len >= FLUSH_BYTES)
        flush(w, KEEP_BYTES);
}

static void set_agent(struct run *r, struct agent *a)
{
    pthread_mutex_lock(&r->lock);
    r->agent = a;
    pthread_mutex_unlock(&r->lock);
}

static void pump(struct waking *w, struct agent *a)
{
    struct engine *g = w->r->g;

    if (atomic_load(&w->r->cancelled) || run_leaves(w->r))
        agent_cancel(a); /* asked for while it was being started */
    while (agent_wait(a, PUMP_MS, on_output, w, &w->exit) == -ETIMEDOUT) {
        if (clock_boot_ms() - atomic_load(&g->last_beat) < LEASE_FRESH_MS)
            agent_lease(a);
        flush(w, KEEP_BYTES);
    }
    flush(w, 0);
}

/* ": " and the line, with a space for what can't be seen or steers a terminal. */
static char *quoted(const char *line)
{
    cleanup_buf struct buf b = {0};
    size_t n = strlen(line);

    buf_adds(&b, ": ");
    for (size_t i = 0, len; i < n; i += len) {
        const unsigned char *s = (const unsigned char *)line + i;

        len = utf8_length(s, n - i);
        len = len ? len : 1;
        if (text_invisible(utf8_point(s, len)))
            buf_addc(&b, ' ');
        else
            buf_add(&b, s, len);
    }
    return buf_steal(&b);
}

/* ": " and the last line of the output that isn't empty, or "" when there is none. Never NULL but out of memory. */
static char *last_words(struct waking *w)
{
    cleanup_buf struct buf masked = {0};
    cleanup_free char *text = NULL;
    char *end;
    char *line;

    if (w->tail.len)
        mask_text(w->r->g, w->tail.data, w->tail.len, w->tail_cut, &masked);
    text = masked.len && !buf_error(&masked) ? utf8_clean(masked.data, masked.len) : NULL;
    if (!text)
        return strdup("");
    end = text + strlen(text);
    while (end > text && (unsigned char)end[-1] <= ' ')
        *--end = '\0';
    line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    return *line ? quoted(line) : strdup("");
}

static void finish_failed(struct run *r, int code, const char *why, bool release)
{
    cleanup_free char *outcome = str_format("failed resume: %s", why);
    cleanup_free char *message = str_format("%s (%s)", why, release ? NOT_USED : GO_ON);

    journal_settle(r, ACTION_FAILED, code, message, release ? "" : outcome, release);
}

static bool anything_sealing(struct engine *g)
{
    bool is = false;

    index_read_lock(g->c.index);
    for (struct index_entry *e = index_from(g->c.index, 0); e && !is; e = index_from(g->c.index, e->c.id + 1))
        is = e->sealing;
    index_unlock(g->c.index);
    return is;
}

/* The checkpoint that the agent took; its name is owned by the caller. -ENOENT when it surely took none. */
static int find_child(struct waking *w, char **ret, struct err *e)
{
    struct engine *g = w->r->g;
    int64_t began = clock_mono_ms();
    int rc;

    for (;;) {
        int64_t ms = clock_mono_ms() - began;

        rc = store_child(g->c.store, g->line_id, w->r->isolated, w->b.uid, w->r->action, ret, e);
        if (rc == -ENOENT ? ms > CLOSE_MS && (ms > SEAL_MS || !anything_sealing(g)) : !store_away(-rc) || run_leaves(w->r))
            return rc;
        clock_sleep_ms(LOOK_MS);
    }
}

static void stopped_again(struct waking *w)
{
    struct run *r = w->r;
    cleanup_err struct err e = {0};
    cleanup_free char *child = NULL;
    cleanup_free char *outcome = NULL;
    cleanup_free char *message = NULL;
    int rc = find_child(w, &child, &e);

    if (rc == -ENOENT) {
        finish_failed(r, ECHILD,
                      "the agent says it stopped for approval again (exit 10), but took no checkpoint whose meta.json names this one as "
                      "parent",
                      false);
        return;
    }
    if (rc < 0) { /* only a mount that is leaving gives up looking */
        finish_failed(r, e.code, err_text(&e), false);
        return;
    }
    data_set(r, "child", child);
    outcome = str_format("stopped again -> %s", child);
    message = str_format("the agent stopped for approval again; decide %s", child);
    journal_settle(r, ACTION_DONE, 0, message, outcome, false);
}

static void exited(struct waking *w)
{
    cleanup_free char *said = last_words(w);
    cleanup_free char *why = NULL;

    switch (w->exit.code) {
    case 0:
        journal_settle(w->r, ACTION_DONE, 0, "the agent finished", "finished", false);
        return;
    case EXIT_STOPPED_AGAIN:
        stopped_again(w);
        return;
    case EXIT_NOTHING_DONE:
        why = str_format("the resume command says that nothing was done (exit 75)%s", said);
        finish_failed(w->r, EAGAIN, why, true);
        return;
    default:
        why = str_format("the resume command ended with exit %d%s", w->exit.code, said);
        finish_failed(w->r, EIO, why, false);
    }
}

static void ended(struct waking *w)
{
    cleanup_free char *why = NULL;
    cleanup_free char *said = NULL;

    data_set_int(w->r, "exit", w->exit.kind == AGENT_EXITED ? w->exit.code : -w->exit.code);
    if (w->exit.kind == AGENT_LOST) {
        journal_settle(w->r, ACTION_UNKNOWN, EIO, "the agent's supervisor vanished: nobody knows how the agent ended (" GO_ON ")",
               "unknown", false);
    } else if (w->exit.cancelled && atomic_load(&w->r->g->stopping)) {
        finish_failed(w->r, EINTR, "the agent was ended because the mount was unmounted", false);
    } else if (w->exit.cancelled) {
        finish_failed(w->r, ECANCELED,
                      w->exit.lease_lost ? "the agent was ended: the mount lost its lease in the store" : "cancelled", false);
    } else if (w->exit.kind == AGENT_SIGNALED) {
        said = last_words(w);
        why = str_format("the resume command was ended by signal %d (%s)%s", w->exit.code, strsignal(w->exit.code), said);
        finish_failed(w->r, EIO, why, false);
    } else {
        exited(w);
    }
}

void resume_body(struct run *r)
{
    struct waking w = {.r = r};
    struct agent *a = NULL;
    cleanup_err struct err e = {0};
    int rc = 0;

    if (atomic_load(&r->cancelled))
        rc = err_set(&e, ECANCELED, "it was cancelled before");
    if (rc == 0)
        rc = start(&w, &a, &e);
    if (rc < 0) { /* nothing ran */
        cleanup_free char *why = str_format("%sthe agent was not started: %s",
                                            r->kind == ACTION_REPLAY ? "the database was restored, but " : "",
                                            err_text(&e));

        /* Handed over, unless it was announced: the next mount couldn't know that nothing ran. */
        if (!run_leaves(r) || (run_at(r, "agent") && !atomic_load(&r->lost)))
            finish_failed(r, e.code, why, true);
    } else {
        set_agent(r, a);
        pump(&w, a);
        set_agent(r, NULL);
        ended(&w);
    }
    agent_free(a);
    waking_clear(&w);
}

void replay_body(struct run *r)
{
    cleanup_err struct err e = {0};
    cleanup_free char *outcome = NULL;
    int rc = run_at(r, "agent") ? 0 : r->of_branch ? isolate_steps(r, &e) : restore_steps(r, &e);

    if (rc == 0) {
        resume_body(r); /* the agent half settles the action */
        return;
    }
    if (run_leaves(r))
        return;
    if (e.code != ECANCELED || r->of_branch) /* else nothing was done, and the status is as it was */
        outcome = str_format("failed restore: %s", err_text(&e));
    journal_settle(r, ACTION_FAILED, e.code, err_text(&e), outcome, false);
}
