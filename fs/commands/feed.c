/* Puts the writes on one handle together into one command. See include/commands/feed.h. */
#include "commands/feed.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "commands_i.h"
#include "util/cleanup.h"

enum phase {
    FEED_NOTHING, /* no significant byte yet */
    FEED_JSON,    /* JSON under way */
    FEED_DONE,    /* the command is complete */
    FEED_SPOILT,  /* refused: nothing will come of this handle */
};

struct feed {
    enum phase phase;
    bool json;
    bool line_ended;      /* a one-line command came with its newline, or got it later */
    struct buf bytes;     /* all significant writes */
    size_t last_at;       /* where the last of them begins */
    struct jcheck_state check;
    struct err error;     /* why it is spoilt */
};

struct feed *feed_new(void)
{
    return calloc(1, sizeof(struct feed));
}

void feed_free(struct feed *f)
{
    if (!f)
        return;
    buf_free(&f->bytes);
    jcheck_free(&f->check);
    err_clear(&f->error);
    free(f);
}

/* A program that got an error, or EINTR, writes the last bytes again; one that begins anew writes them all. */
static bool is_repetition(const struct feed *f, const char *bytes, size_t n)
{
    size_t last = f->bytes.len - f->last_at;

    return (n == last && memcmp(bytes, f->bytes.data + f->last_at, n) == 0) ||
           (n == f->bytes.len && memcmp(bytes, f->bytes.data, n) == 0);
}

static enum feed_result refuse(struct feed *f, struct err *e)
{
    f->phase = FEED_SPOILT;
    err_set(e, f->error.code, "%s", err_text(&f->error));
    return FEED_BAD;
}

static enum feed_result extra_bytes(const struct feed *f, struct err *e)
{
    if (f->json)
        err_set(e, EINVAL, "one open, one command: the JSON was complete, and more came after it");
    else
        err_set(e, EINVAL, "one open, one command: the text was cut at its first line; send JSON for several lines or for more "
                "than %d bytes", COMMAND_LINE_MAX);
    return FEED_BAD;
}

/* What comes after the command. */
static enum feed_result after_command(struct feed *f, const char *bytes, size_t n, struct err *e)
{
    if (is_repetition(f, bytes, n))
        return FEED_SAME;
    if (f->json && bytes_blank(bytes, n))
        return FEED_IGNORE;
    if (!f->json && !f->line_ended && n == 1 && bytes[0] == '\n') { /* { printf approve; echo; } > resume */
        f->line_ended = true;
        return FEED_IGNORE;
    }
    return extra_bytes(f, e);
}

static enum feed_result take_json(struct feed *f, const char *bytes, size_t n, struct err *e)
{
    size_t used = 0;
    enum jcheck r = jcheck_feed(&f->check, bytes, n, &used);

    if (f->check.oom) {
        err_set(&f->error, ENOMEM, "out of memory while taking a command");
    } else if (r == JCHECK_BAD) {
        err_set(&f->error, EINVAL, "the JSON is wrong at byte %zu: %s", f->check.bytes, f->check.why);
    } else if (r == JCHECK_DONE && !bytes_blank(bytes + used, n - used)) {
        err_set(&f->error, EINVAL, "one open, one command: the JSON is complete at byte %zu, and more comes after it",
                f->check.bytes);
    } else {
        f->phase = r == JCHECK_DONE ? FEED_DONE : FEED_JSON;
        return r == JCHECK_DONE ? FEED_COMMAND : FEED_MORE;
    }
    return refuse(f, e);
}

enum feed_result feed_write(struct feed *f, const char *bytes, size_t n, struct err *e)
{
    if (n == 0)
        return FEED_IGNORE;
    if (f->phase == FEED_DONE)
        return after_command(f, bytes, n, e);
    if (f->phase == FEED_SPOILT)
        return refuse(f, e);
    if (f->phase == FEED_NOTHING && bytes_blank(bytes, n))
        return FEED_IGNORE;
    if (n > COMMAND_JSON_MAX - f->bytes.len) {
        err_set(&f->error, E2BIG, "a command may have at most %u bytes", COMMAND_JSON_MAX);
        return refuse(f, e);
    }
    f->last_at = f->bytes.len;
    buf_add(&f->bytes, bytes, n);
    if (buf_error(&f->bytes)) {
        err_set(&f->error, ENOMEM, "out of memory while taking a command");
        return refuse(f, e);
    }
    if (f->phase == FEED_JSON)
        return take_json(f, bytes, n, e);
    f->json = looks_like_json(bytes, n);
    if (f->json)
        return take_json(f, bytes, n, e);
    f->phase = FEED_DONE;
    f->line_ended = bytes[n - 1] == '\n';
    return FEED_COMMAND;
}

const char *feed_command(const struct feed *f, size_t *ret_n)
{
    *ret_n = f->bytes.len;
    return f->bytes.data;
}

const char *feed_close(const struct feed *f)
{
    return f->phase == FEED_JSON ? "incomplete command" : NULL;
}
