/* .control/metrics: what a monitoring system asks, in Prometheus's text format 0.0.4, and the heads of the audit log's chains. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "actions_i.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "version.h"

/* A value of a label, with its quotes. */
static void quoted(struct buf *b, const char *s)
{
    buf_addc(b, '"');
    for (; *s; s++) {
        if (*s == '\\' || *s == '"')
            buf_addc(b, '\\');
        buf_addc(b, *s == '\n' ? 'n' : *s);
    }
    buf_addc(b, '"');
}

static void family(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_addf(b, "# HELP checkpointfs_%s %s\n# TYPE checkpointfs_%s %s\n", name, help, name, type);
}

/* A family of one value without labels. */
static void single(struct buf *b, const char *name, const char *help, int64_t value)
{
    family(b, name, "gauge", help);
    buf_addf(b, "checkpointfs_%s %" PRId64 "\n", name, value);
}

static void of_actions(struct buf *b, const char *name, const struct store_action_count *a)
{
    buf_addf(b, "checkpointfs_%s{kind=\"%s\",state=\"%s\"} ", name, a->kind, a->state);
}

static void seconds(struct buf *b, int64_t ns)
{
    buf_addf(b, "%" PRId64 ".%03" PRId64 "\n", ns / 1000000000, ns / 1000000 % 1000);
}

/* ---- what memory knows --------------------------------------------------------------------------------------------------- */

static void checkpoints(struct engine *g, struct buf *b)
{
    static const char *const names[] = {[PHASE_TAKING] = "taking", [PHASE_SAVED] = "saved", [PHASE_SEALED] = "sealed",
                                        [PHASE_FAILED] = "failed"};
    int64_t phases[sizeof(names) / sizeof(*names)] = {0};
    int64_t waiting = 0, offline = 0;

    index_read_lock(g->c.index);
    for (const struct index_entry *e = index_from(g->c.index, 0); e; e = index_from(g->c.index, e->c.id + 1)) {
        phases[e->c.phase]++;
        waiting += entry_awaits(&e->c);
        offline += e->c.offline_by != 0;
    }
    index_unlock(g->c.index);
    family(b, "checkpoints", "gauge", "Checkpoints of the line, by phase.");
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        buf_addf(b, "checkpointfs_checkpoints{phase=\"%s\"} %" PRId64 "\n", names[i], phases[i]);
    single(b, "checkpoints_waiting", "Checkpoints that await a decision: what .pending/ lists.", waiting);
    single(b, "checkpoints_off_line", "Checkpoints of a database that a restore replaced.", offline);
}

static void this_mount(struct engine *g, struct buf *b)
{
    int64_t agents = 0, runs;
    bool neon;

    pthread_mutex_lock(&g->lock);
    runs = HASH_COUNT(g->runs);
    neon = !g->neon_trouble;
    for (struct run *r = g->runs; r; r = r->hh.next) {
        pthread_mutex_lock(&r->lock);
        agents += r->agent != NULL;
        pthread_mutex_unlock(&r->lock);
    }
    pthread_mutex_unlock(&g->lock);
    family(b, "info", "gauge", "The program's version and the project that is mounted.");
    buf_adds(b, "checkpointfs_info{version=\"" CHECKPOINTFS_VERSION "\",project=");
    quoted(b, g->c.project_id);
    buf_adds(b, "} 1\n");
    family(b, "uptime_seconds", "gauge", "How long this mount has been up.");
    buf_adds(b, "checkpointfs_uptime_seconds ");
    seconds(b, (clock_mono_ms() - g->started_ms) * 1000000);
    single(b, "neon_up", "Whether Neon answered when it was last asked.", neon);
    single(b, "changes_read", "Number of the last change of the line that this mount has read.", atomic_load(&g->changes_read));
    single(b, "mount_actions", "Actions that this mount carries out now.", runs);
    single(b, "agents_running", "Agents that run on this mount now.", agents);
}

/* ---- what the store knows ------------------------------------------------------------------------------------------------ */

static bool settled(const struct store_action_count *a)
{
    return strcmp(a->state, "queued") != 0 && strcmp(a->state, "running") != 0;
}

static void actions(const struct store_metrics *m, struct buf *b)
{
    family(b, "actions_total", "counter", "Actions of the line that are over, by kind and by how they ended.");
    for (size_t i = 0; i < m->n_actions; i++) {
        if (settled(&m->actions[i])) {
            of_actions(b, "actions_total", &m->actions[i]);
            buf_addf(b, "%" PRId64 "\n", m->actions[i].n);
        }
    }
    family(b, "actions_under_way", "gauge", "Actions of the line that are queued or running, on any mount.");
    for (size_t i = 0; i < m->n_actions; i++) {
        if (!settled(&m->actions[i])) {
            of_actions(b, "actions_under_way", &m->actions[i]);
            buf_addf(b, "%" PRId64 "\n", m->actions[i].n);
        }
    }
    family(b, "action_duration_seconds", "summary", "From the request of an action to its end.");
    for (size_t i = 0; i < m->n_actions; i++) {
        if (settled(&m->actions[i])) {
            of_actions(b, "action_duration_seconds_sum", &m->actions[i]);
            seconds(b, m->actions[i].ns);
            of_actions(b, "action_duration_seconds_count", &m->actions[i]);
            buf_addf(b, "%" PRId64 "\n", m->actions[i].n);
        }
    }
}

/* The last line of each log: kept elsewhere, it proves that a copy's end is there (scripts/verify-audit --metrics). */
static void heads(const struct store_metrics *m, struct buf *b)
{
    family(b, "audit_head_info", "gauge", "The last line of the audit log, and of each checkpoint's history: its number and its hash.");
    for (size_t i = 0; i < m->n_heads; i++) {
        const struct store_head *h = &m->heads[i];

        buf_adds(b, "checkpointfs_audit_head_info{log=");
        if (h->name) {
            cleanup_buf struct buf log = {0};

            buf_addf(&log, "%s/history.jsonl", h->name);
            quoted(b, log.data ? log.data : "");
            b->failed |= log.failed;
            buf_adds(b, ",checkpoint=");
            quoted(b, h->uid);
        } else {
            quoted(b, "events.jsonl");
        }
        buf_addf(b, ",seq=\"%" PRId64 "\",hash=\"%s\"} 1\n", h->lines, h->hash);
    }
}

int engine_metrics(struct engine *g, struct buf *ret)
{
    struct store_metrics m = {0};
    cleanup_err struct err e = {0};
    bool up = store_metrics(g->c.store, g->line_id, &m, &e) == 0;

    if (!up)
        log_warn("metrics without the store: %s", err_text(&e));
    this_mount(g, ret);
    single(ret, "store_up", "Whether the store answered; without it, what it counts isn't told.", up);
    checkpoints(g, ret);
    if (up) {
        actions(&m, ret);
        heads(&m, ret);
    }
    store_metrics_free(&m);
    return buf_error(ret);
}
