/* The files of a local DIR: locks, documents that are there whole or not at all, and what env.json says. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "local_i.h"
#include "util/cleanup.h"
#include "util/text.h"

char *local_path(const char *dir, const char *name)
{
    return str_format("%s/%s", dir, name);
}

static int make_one(const char *path)
{
    if (mkdir(path, 0755) < 0)
        return errno == EEXIST ? 0 : -errno;
    if (geteuid() == 0 && chmod(path, 0755) < 0) /* whatever the umask: PostgreSQL's account has to get through */
        return -errno;
    return 0;
}

int local_make_dir(const char *dir, char **ret, struct err *e)
{
    cleanup_free char *path = strdup(dir);
    char *real;
    int r = 0;

    if (!path)
        return err_set(e, ENOMEM, "out of memory");
    for (char *p = path + 1; *path && *p && r == 0; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        r = make_one(path);
        *p = '/';
    }
    if (r == 0)
        r = make_one(path);
    real = r == 0 ? realpath(path, NULL) : NULL;
    if (r == 0 && !real)
        r = -errno;
    if (r)
        return err_set(e, -r, "can't make %s for the local servers: %s", dir, strerror(-r));
    *ret = real;
    return 0;
}

int local_open_lock(const char *dir, const char *name, int *ret_fd, struct err *e)
{
    cleanup_free char *path = local_path(dir, name);
    cleanup_fd int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    struct stat st;

    if (!path)
        return err_set(e, ENOMEM, "out of memory");
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(e, errno, "can't open %s: %s; is it another user's directory?", path, strerror(errno));
    if (st.st_uid != geteuid())
        return err_set(e, EACCES, "the local servers of %s belong to uid %u: mount as that user, or choose another directory",
                       dir, (unsigned)st.st_uid);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int write_all(int fd, const char *text, size_t n)
{
    ssize_t w;

    for (size_t done = 0; done < n; done += (size_t)w) {
        w = write(fd, text + done, n - done);
        if (w < 0 && errno == EINTR)
            w = 0;
        else if (w < 0)
            return -errno;
    }
    return 0;
}

int local_write_json(const char *dir, const char *name, const json_t *doc, struct err *e)
{
    cleanup_free char *path = local_path(dir, name);
    cleanup_free char *temporary = str_format("%s/%s.new", dir, name);
    cleanup_free char *text = json_dumps(doc, JSON_INDENT(2));
    cleanup_fd int fd = -1;
    cleanup_fd int parent = -1;
    int r;

    if (!path || !temporary || !text)
        return err_set(e, ENOMEM, "out of memory");
    unlink(temporary); /* so that the mode is ours */
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    r = fd < 0 ? -errno : write_all(fd, text, strlen(text));
    if (r == 0)
        r = write_all(fd, "\n", 1);
    if (r == 0 && (fsync(fd) < 0 || rename(temporary, path) < 0))
        r = -errno;
    if (r == 0) {
        parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (parent < 0 || fsync(parent) < 0)
            r = -errno;
    }
    return r ? err_set(e, -r, "can't write %s: %s", path, strerror(-r)) : 0;
}

int local_read_json(const char *dir, const char *name, json_t **ret, struct err *e)
{
    cleanup_free char *path = local_path(dir, name);
    json_error_t error;
    json_t *doc;

    if (!path)
        return err_set(e, ENOMEM, "out of memory");
    if (access(path, R_OK) < 0)
        return errno == ENOENT ? -ENOENT : err_set(e, errno, "can't read %s: %s", path, strerror(errno));
    doc = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!doc) /* jansson's text would quote the document, which holds passwords */
        return access(path, F_OK) < 0 ? -ENOENT : err_set(e, EINVAL, "%s is damaged (line %d)", path, error.line);
    *ret = doc;
    return 0;
}

/* The members of env.json that are strings, and where each belongs. */
struct member {
    const char *name;
    char **value;
};

#define MEMBERS 8

static void members_of(struct local_state *s, struct member m[MEMBERS])
{
    m[0] = (struct member){"store", &s->env.store};
    m[1] = (struct member){"store_owner", &s->env.store_owner};
    m[2] = (struct member){"NEON_API_HOST", &s->env.neon_api_host};
    m[3] = (struct member){"NEON_API_KEY", &s->env.neon_api_key};
    m[4] = (struct member){"NEON_PROJECT_ID", &s->env.neon_project_id};
    m[5] = (struct member){"NEON_BRANCH_ID", &s->env.neon_branch_id};
    m[6] = (struct member){"DATABASE_URL", &s->env.database_url};
    m[7] = (struct member){"plan", &s->plan};
}

int local_state_write(const char *dir, const struct local_state *s, struct err *e)
{
    cleanup_json json_t *doc = json_object();
    struct local_state copy = *s;
    struct member m[MEMBERS];
    int bad = 0;

    members_of(&copy, m);
    for (size_t i = 0; i < MEMBERS; i++)
        if (*m[i].value)
            bad |= json_object_set_new(doc, m[i].name, json_string(*m[i].value));
    bad |= json_object_set_new(doc, "keeper_pid", json_integer(s->keeper));
    bad |= json_object_set_new(doc, "keeper_start", json_integer(s->keeper_start));
    if (bad)
        return err_set(e, ENOMEM, "out of memory");
    return local_write_json(dir, "env.json", doc, e);
}

int local_state_read(const char *dir, struct local_state *ret, struct err *e)
{
    cleanup_json json_t *doc = NULL;
    struct local_state s = {0};
    struct member m[MEMBERS];
    json_t *value;
    int r = local_read_json(dir, "env.json", &doc, e);

    if (r)
        return r;
    members_of(&s, m);
    for (size_t i = 0; i < MEMBERS && r == 0; i++) {
        value = json_object_get(doc, m[i].name);
        if (!json_is_string(value))
            continue;
        *m[i].value = strdup(json_string_value(value));
        if (!*m[i].value)
            r = err_set(e, ENOMEM, "out of memory");
    }
    if (r) {
        local_state_clear(&s);
        return r;
    }
    s.keeper = (pid_t)json_integer_value(json_object_get(doc, "keeper_pid"));
    s.keeper_start = json_integer_value(json_object_get(doc, "keeper_start"));
    *ret = s;
    return 0;
}

void local_env_clear(struct local_env *env)
{
    struct local_state s = {.env = *env};

    local_state_clear(&s);
    *env = (struct local_env){0};
}

void local_state_clear(struct local_state *s)
{
    struct member m[MEMBERS];

    members_of(s, m);
    for (size_t i = 0; i < MEMBERS; i++)
        free(*m[i].value);
    *s = (struct local_state){0};
}

int64_t local_process_start(pid_t pid)
{
    char path[32];
    char text[1024];
    char state;
    const char *p;
    int64_t start;
    ssize_t n;
    cleanup_fd int fd = -1;

    if (pid <= 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    p = strrchr(text, ')'); /* the name may hold anything */
    if (!p || sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNd64, &state,
                     &start) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : start;
}

/* ---- the mountpoint --------------------------------------------------------------------------------------------------- */

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* The deepest directory of `path` that is there; -1 = none. Cuts `path`. */
static int open_deepest(char *path)
{
    char *slash;
    int fd;

    while ((fd = open(path, O_PATH | O_CLOEXEC)) < 0 && (slash = strrchr(path, '/')) && slash != path)
        *slash = '\0';
    return fd;
}

/* From the file `fd`, which is closed, upwards. By inode: links and dots in names don't matter then. */
static bool is_below(int fd, const struct stat *top)
{
    struct stat st;
    struct stat last = {0};
    bool found = false;
    int up;

    while (fd >= 0 && !found && fstat(fd, &st) == 0 && !same_file(&st, &last)) { /* the root is above itself */
        found = same_file(&st, top);
        last = st;
        up = openat(fd, "..", O_PATH | O_CLOEXEC);
        close(fd);
        fd = up;
    }
    if (fd >= 0)
        close(fd);
    return found;
}

int local_apart(const char *dir, const char *mountpoint, struct err *e)
{
    cleanup_free char *path = str_dup(dir);
    struct stat top;

    if (!path)
        return err_set(e, ENOMEM, "out of memory");
    if (stat(mountpoint, &top) < 0)
        return err_set(e, errno, "the mountpoint %s can't be used: %s", mountpoint, strerror(errno));
    if (is_below(open_deepest(path), &top))
        return err_set(e, EINVAL, "%s would be below the mountpoint %s, which hides it: mount on another directory", dir, mountpoint);
    return 0;
}
