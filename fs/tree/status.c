/* The one line of a checkpoint's `status`: what is under way, else how it ended, else what it waits for. */
#include "tree/status.h"

#include "util/clock.h"

static void base(const struct store_checkpoint *c, bool writing, struct buf *b)
{
    size_t waiting = c->n_calls ? c->n_calls : c->waits_input ? 1 : 0;

    switch (c->phase) {
    case PHASE_TAKING:
        buf_adds(b, "writing");
        return;
    case PHASE_SAVED:
        buf_adds(b, writing ? "writing" : "saved (database only)");
        if (c->note)
            buf_addf(b, ", %s", c->note);
        return;
    case PHASE_FAILED:
        buf_addf(b, "failed take: %s", c->note ? c->note : "unknown reason");
        return;
    case PHASE_SEALED:
        break;
    }
    if (c->attempt_open && waiting)
        buf_addf(b, "waiting (%zu call%s)", waiting, waiting == 1 ? "" : "s");
    else
        buf_adds(b, "saved");
}

static void branch_base(const struct store_checkpoint *c, const struct store_branch *i, struct buf *b)
{
    size_t waiting = c->n_calls ? c->n_calls : c->waits_input ? 1 : 0;

    switch (i->state) {
    case ISOLATED_MAKING:
        buf_adds(b, "restoring");
        return;
    case ISOLATED_GONE:
        buf_adds(b, "gone");
        return;
    case ISOLATED_PROMOTED:
        buf_adds(b, "promoted");
        return;
    case ISOLATED_FAILED:
        buf_adds(b, i->outcome ? i->outcome : "failed restore: unknown reason");
        return;
    case ISOLATED_READY:
        break;
    }
    if (i->outcome)
        buf_adds(b, i->outcome);
    else if (i->attempt_open && waiting)
        buf_addf(b, "waiting (%zu call%s)", waiting, waiting == 1 ? "" : "s");
    else
        buf_adds(b, "ready");
}

static void add_lost(int64_t lost, struct buf *b)
{
    char when[CLOCK_TEXT_MAX];

    if (lost)
        buf_addf(b, ", store lost since %s", clock_format_seconds(lost, when));
    buf_addc(b, '\n');
}

void status_render_branch(const struct store_checkpoint *c, const struct store_branch *i, int64_t lost, struct buf *b)
{
    char when[CLOCK_TEXT_MAX];

    if (i->activity)
        buf_adds(b, i->activity);
    else
        branch_base(c, i, b);
    if (i->expires_at && i->state == ISOLATED_READY)
        buf_addf(b, ", branch expires %.10s", clock_format_seconds(i->expires_at, when));
    add_lost(lost, b);
}

void status_render(const struct store_checkpoint *c, bool writing, int64_t lost, struct buf *b)
{
    char when[CLOCK_TEXT_MAX];

    if (c->activity)
        buf_adds(b, c->activity);
    else if (c->offline_by && c->phase != PHASE_FAILED)
        buf_adds(b, "off-line");
    else if (c->outcome)
        buf_adds(b, c->outcome);
    else
        base(c, writing, b);
    if (c->snapshot.missing)
        buf_adds(b, ", snapshot missing");
    else if (c->snapshot.expires_at)
        buf_addf(b, ", snapshot expires %.10s", clock_format_seconds(c->snapshot.expires_at, when));
    add_lost(lost, b);
}
