/* The rules of prune and retention, each a row of a table. See include/commands/rules.h. */
#include "commands/rules.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/text.h"

#define SECOND 1000000000LL
#define COUNT_MAX 1000000000LL
#define AGE_MAX (100LL * 365 * 86400)

static const char blanks[] = " \t";

static const struct { char unit; int64_t seconds; } units[] = {{'w', 604800}, {'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};

static bool take_number(const char *text, int64_t *ret, const char **ret_end)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *ret = strtoll(text, &end, 10);
    *ret_end = end;
    return !errno && *ret <= COUNT_MAX;
}

static bool take_count(const char *text, int64_t *ret)
{
    const char *end;
    int64_t n;

    if (!take_number(text, &n, &end) || *end)
        return false;
    *ret = n;
    return true;
}

static bool take_age(const char *text, int64_t *ret_ns)
{
    const char *end;
    int64_t n;

    if (!take_number(text, &n, &end) || !*end || end[1])
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        if (units[i].unit == *end && n <= AGE_MAX / units[i].seconds) {
            *ret_ns = n * units[i].seconds * SECOND;
            return true;
        }
    }
    return false;
}

/* Each takes the value (NULL: there is none) into its rule. False: it is none. */
typedef bool rule_fn(struct rules *r, const char *value);

static bool keep_last(struct rules *r, const char *value) { return value && take_count(value, &r->keep_last); }
static bool older_than(struct rules *r, const char *value) { return value && take_age(value, &r->older_than_ns); }

static bool keep_pending(struct rules *r, const char *value)
{
    r->keep_pending = true;
    return !value;
}

static bool keep_pinned(struct rules *r, const char *value)
{
    r->keep_pinned = true;
    return !value;
}

static bool take_reach(struct reach *r, const char *value)
{
    r->given = true;
    return value && (take_count(value, &r->count) || take_age(value, &r->age_ns));
}

static bool snapshots(struct rules *r, const char *value) { return take_reach(&r->snapshots, value); }
static bool states(struct rules *r, const char *value) { return take_reach(&r->states, value); }

static const struct row {
    const char *name, *form;
    rule_fn *take;
} rows[] = {
    {"keep-last", "keep-last=N", keep_last},
    {"keep-pending", "keep-pending", keep_pending},
    {"keep-pinned", "keep-pinned", keep_pinned},
    {"older-than", "older-than=TIME", older_than},
    {"snapshots", "snapshots=N or snapshots=TIME", snapshots},
    {"states", "states=N or states=TIME", states},
};

#define ROW_COUNT (sizeof(rows) / sizeof(*rows))
#define GRAMMAR RULES_USAGE "; TIME is like 90s, 10m, 12h, 30d or 2w"

static const struct row *row_of(const char *word, size_t n)
{
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (strlen(rows[i].name) == n && strncmp(rows[i].name, word, n) == 0)
            return &rows[i];
    return NULL;
}

bool rules_begin(const char *text)
{
    text += strspn(text, blanks);
    return row_of(text, strcspn(text, "= \t")) != NULL;
}

static int take_word(struct rules *r, const char *word, unsigned *seen, struct err *e)
{
    size_t n = strcspn(word, "=");
    const struct row *row = row_of(word, n);

    if (!row)
        return err_set(e, EINVAL, "there is no rule \"%.60s\"; the rules are: " GRAMMAR, word);
    if (*seen & 1u << (row - rows))
        return err_set(e, EINVAL, "the rule %s is given twice", row->name);
    *seen |= 1u << (row - rows);
    if (!row->take(r, word[n] ? word + n + 1 : NULL))
        return err_set(e, EINVAL, "\"%.60s\" is no rule: write %s; TIME is like 90s, 10m, 12h, 30d or 2w", word, row->form);
    return 0;
}

int rules_parse(const char *text, struct rules *ret, struct err *e)
{
    static const struct reach everything = {false, -1, -1};
    struct rules r = {.keep_last = -1, .older_than_ns = -1, .snapshots = everything, .states = everything};
    unsigned seen = 0;
    int rc = 0;

    for (text += strspn(text, blanks); rc == 0 && *text; text += strspn(text, blanks)) {
        cleanup_free char *word = strndup(text, strcspn(text, blanks));

        if (!word)
            return err_set(e, ENOMEM, "out of memory");
        rc = take_word(&r, word, &seen, e);
        text += strlen(word);
    }
    if (rc == 0 && r.keep_last < 0 && r.older_than_ns < 0 && !r.snapshots.given && !r.states.given)
        rc = err_set(e, EINVAL, "these rules let nothing go: say which may, with keep-last=N, older-than=TIME, snapshots=… or states=…; "
                     "the rules are: " GRAMMAR);
    if (rc == 0)
        *ret = r;
    return rc;
}

static void add_age(struct buf *b, int64_t ns)
{
    int64_t seconds = ns / SECOND;

    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        if (seconds % units[i].seconds == 0 && (seconds || units[i].unit == 's')) {
            buf_addf(b, "%" PRId64 "%c", seconds / units[i].seconds, units[i].unit);
            return;
        }
    }
}

static void add_word(struct buf *b, const char *word)
{
    buf_addf(b, "%s%s", b->len ? " " : "", word);
}

static void add_reach(struct buf *b, const char *word, const struct reach *r)
{
    if (!r->given)
        return;
    add_word(b, word);
    if (r->count >= 0)
        buf_addf(b, "%" PRId64, r->count);
    else
        add_age(b, r->age_ns);
}

void rules_text(const struct rules *r, struct buf *b)
{
    if (r->keep_last >= 0)
        buf_addf(b, "keep-last=%" PRId64, r->keep_last);
    if (r->keep_pending)
        add_word(b, "keep-pending");
    if (r->keep_pinned)
        add_word(b, "keep-pinned");
    if (r->older_than_ns >= 0) {
        add_word(b, "older-than=");
        add_age(b, r->older_than_ns);
    }
    add_reach(b, "snapshots=", &r->snapshots);
    add_reach(b, "states=", &r->states);
}
