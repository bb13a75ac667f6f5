/* Where PostgreSQL is installed, and which user may run it. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgserver_i.h"
#include "util/cleanup.h"
#include "util/text.h"

struct search {
    int wanted;
    int seen[PGSERVER_NEWEST + 1]; /* majors met, for the message */
    struct pgserver *pg;
};

static bool has_programs(const char *dir)
{
    static const char *const programs[] = {"postgres", "initdb"};
    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
        cleanup_free char *path = str_format("%s/%s", dir, programs[i]);
        if (!path || access(path, X_OK) < 0)
            return false;
    }
    return true;
}

/* `postgres -V` prints "postgres (PostgreSQL) 15.20 (Debian …)". */
static int major_of(const struct pgserver *pg, const char *dir)
{
    cleanup_free char *program = str_format("%s/postgres", dir);
    const char *argv[] = {program, "-V", NULL};
    cleanup_buf struct buf out = {0};
    if (!program || pgserver_run(pg, argv, &out, NULL) < 0 || !out.data)
        return 0;
    const char *p = strchr(out.data, ')');
    if (!p)
        return 0;
    do
        p++;
    while (isspace((unsigned char)*p));
    return atoi(p);
}

/* Where `postgres` really is: a directory of PATH may hold links to two programs only. New string, NULL = nowhere. */
static char *home_of(const char *path_dir)
{
    cleanup_free char *program = str_format("%s/postgres", path_dir);
    char *real = program ? realpath(program, NULL) : NULL;
    char *slash = real ? strrchr(real, '/') : NULL;
    if (slash)
        *slash = '\0';
    return real;
}

static int consider(struct search *s, const char *path_dir)
{
    if (s->pg->bindir && s->wanted)
        return 0;
    cleanup_free char *dir = home_of(path_dir);
    if (!dir || !has_programs(dir))
        return 0;
    int major = major_of(s->pg, dir);
    if (major < PGSERVER_OLDEST || major > PGSERVER_NEWEST)
        return 0;
    s->seen[major] = 1;
    if (s->wanted ? major != s->wanted : major <= s->pg->major)
        return 0;
    free(s->pg->bindir);
    s->pg->bindir = steal_ptr(&dir);
    s->pg->major = major;
    return 0;
}

static int search_path(struct search *s)
{
    cleanup_free char *path = str_dup(getenv("PATH"));
    char *save = NULL;
    int r = 0;
    for (char *dir = path ? strtok_r(path, ":", &save) : NULL; dir && r == 0; dir = strtok_r(NULL, ":", &save))
        if (dir[0] == '/')
            r = consider(s, dir);
    return r;
}

static int search_packages(struct search *s)
{
    static const char *const forms[] = {"/usr/lib/postgresql/%d/bin", "/usr/pgsql-%d/bin"};
    int r = 0;
    for (int major = PGSERVER_NEWEST; major >= PGSERVER_OLDEST && r == 0; major--)
        for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]) && r == 0; i++) {
            char dir[64];
            snprintf(dir, sizeof(dir), i == 0 ? "/usr/lib/postgresql/%d/bin" : "/usr/pgsql-%d/bin", major);
            r = consider(s, dir);
        }
    return r;
}

static int search_pg_config(struct search *s)
{
    const char *argv[] = {"/usr/bin/env", "pg_config", "--bindir", NULL};
    cleanup_buf struct buf out = {0};
    if (pgserver_run(s->pg, argv, &out, NULL) < 0 || !out.data)
        return 0;
    cleanup_free char *dir = pgserver_last_line(out.data);
    return dir && dir[0] == '/' ? consider(s, dir) : 0;
}

static int find_user(struct pgserver *pg, struct err *err)
{
    static const char *const names[] = {"postgres", "nobody"};
    pg->uid = geteuid();
    pg->gid = getegid();
    pg->drop = pg->uid == 0;
    char room[4096];
    struct passwd entry, *found = NULL;
    if (!pg->drop)
        getpwuid_r(pg->uid, &entry, room, sizeof(room), &found);
    for (size_t i = 0; pg->drop && !found && i < sizeof(names) / sizeof(names[0]); i++)
        getpwnam_r(names[i], &entry, room, sizeof(room), &found);
    if (pg->drop && (!found || entry.pw_uid == 0))
        return err_set(err, EPERM,
                       "PostgreSQL refuses to run as root and there is no user postgres or nobody to run it: "
                       "create one, or run this as an ordinary user");
    if (pg->drop) {
        pg->uid = entry.pw_uid;
        pg->gid = entry.pw_gid;
    }
    pg->user = found ? strdup(entry.pw_name) : str_format("%u", (unsigned)pg->uid);
    return pg->user ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int not_found(const struct search *s, struct err *err)
{
    cleanup_buf struct buf seen = {0};
    for (int major = PGSERVER_OLDEST; major <= PGSERVER_NEWEST; major++)
        if (s->seen[major])
            buf_addf(&seen, "%s%d", seen.len ? ", " : "", major);
    if (s->wanted)
        return err_set(err, ENOENT, "PostgreSQL %d isn't installed here%s%s: install the package postgresql-%d", s->wanted,
                       seen.len ? "; found only " : "", seen.len ? seen.data : "", s->wanted);
    return err_set(err, ENOENT, "PostgreSQL (%d to %d) isn't installed here: install the package postgresql", PGSERVER_OLDEST,
                   PGSERVER_NEWEST);
}

int pgserver_find(int major, struct pgserver *ret_pg, struct err *err)
{
    struct pgserver pg = {0};
    struct search s = {.wanted = major, .pg = &pg};
    int r = find_user(&pg, err);
    if (r == 0 && (r = search_path(&s)) == 0 && (r = search_packages(&s)) == 0)
        r = search_pg_config(&s);
    if (r == 0 && !pg.bindir)
        r = not_found(&s, err);
    else if (r == -ENOMEM)
        r = err_set(err, ENOMEM, "out of memory");
    if (r < 0) {
        pgserver_clear(&pg);
        return r;
    }
    *ret_pg = pg;
    return 0;
}

void pgserver_clear(struct pgserver *pg)
{
    free(pg->bindir);
    free(pg->user);
    *pg = (struct pgserver){0};
}
