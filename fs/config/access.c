/* The mount options about who owns the files and who may write them: uid, gid, umask, role, operators. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config_i.h"
#include "util/text.h"

/* A number that takes the whole text. */
static bool number(const char *text, int base, unsigned long max, unsigned long *ret)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *ret = strtoul(text, &end, base);
    return !errno && !*end && *ret <= max;
}

/* The largest is what chown takes for "leave it". */
#define ID_MAX 4294967294ul

static int take_uid(struct config *c, const char *value, struct err *e)
{
    const struct passwd *p;
    unsigned long n;

    if (number(value, 10, ID_MAX, &n)) {
        c->uid = (uid_t)n;
        return 0;
    }
    p = getpwnam(value);
    if (!p)
        return err_set(e, EINVAL, "-o uid=%s: there is no such user; give a name or a number", value);
    c->uid = p->pw_uid;
    return 0;
}

static int group_of(const char *option, const char *value, gid_t *ret, struct err *e)
{
    const struct group *g;
    unsigned long n;

    if (number(value, 10, ID_MAX, &n)) {
        *ret = (gid_t)n;
        return 0;
    }
    g = getgrnam(value);
    if (!g)
        return err_set(e, EINVAL, "-o %s=%s: there is no such group; give a name or a number", option, value);
    *ret = g->gr_gid;
    return 0;
}

static int take_gid(struct config *c, const char *value, struct err *e) { return group_of("gid", value, &c->gid, e); }

static int take_umask(struct config *c, const char *value, struct err *e)
{
    unsigned long n;

    if (!number(value, 8, 0777, &n))
        return err_set(e, EINVAL, "-o umask=%s: it is an octal number of up to 777, as 077 or 027", value);
    c->umask = (mode_t)n;
    return 0;
}

static int take_role(struct config *c, const char *value, struct err *e)
{
    if (role_of_name(value, &c->may) < 0)
        return err_set(e, EINVAL, "-o role=%s: the roles are operator, agent and viewer", value);
    return 0;
}

static int take_operators(struct config *c, const char *value, struct err *e)
{
    int r = group_of("operators", value, &c->operators_gid, e);

    if (r < 0)
        return r;
    free(c->operators);
    c->operators = str_dup(value);
    return c->operators ? 0 : err_set(e, ENOMEM, "out of memory");
}

bool config_take_access(struct config *c, const char *option, struct err *e, int *ret)
{
    static const struct {
        const char *prefix;
        int (*take)(struct config *c, const char *value, struct err *e);
    } rows[] = {
        {"uid=", take_uid}, {"gid=", take_gid}, {"umask=", take_umask}, {"role=", take_role}, {"operators=", take_operators},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (str_starts(option, rows[i].prefix)) {
            *ret = rows[i].take(c, option + strlen(rows[i].prefix), e);
            return true;
        }
    }
    return false;
}
