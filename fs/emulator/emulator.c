/* DIR and the state in it: opened once, locked against a second emulator, saved so that a kill at any moment loses nothing. */
#include "emulator/emulator.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "emulator/ids.h"
#include "emulator/js.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define STATE_VERSION 1

json_t *emulator_table(struct emulator *e, const char *name)
{
    return json_object_get(e->root, name);
}

char *emulator_now(void)
{
    char room[CLOCK_TEXT_MAX];
    return js_strdup(clock_format_seconds(clock_now(), room));
}

int64_t emulator_next(struct emulator *e)
{
    int64_t n = js_int(e->root, "_seq") + 1;
    js_set_int(e->root, "_seq", n);
    return n;
}

void emulator_wait(struct emulator *e, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    if (!e->stopping)
        pthread_cond_timedwait(&e->changed, &e->lock, &until);
}

static int open_dir(struct emulator *e, struct err *err)
{
    if (mkdir(e->opt.data, 0755) < 0 && errno != EEXIST)
        return err_set(err, errno, "can't make %s: %s", e->opt.data, strerror(errno));
    e->dir = realpath(e->opt.data, NULL);
    if (!e->dir)
        return err_set(err, errno, "%s: %s", e->opt.data, strerror(errno));
    cleanup_free char *path = js_format("%s/lock", e->dir);
    e->dir_lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (e->dir_lock < 0)
        return err_set(err, errno, "%s: %s", path, strerror(errno));
    if (flock(e->dir_lock, LOCK_EX | LOCK_NB) < 0)
        return err_set(err, EBUSY, "%s: another neon-emulator is using it; stop that one, or choose another --data", e->dir);
    return 0;
}

static int read_first_line(const char *path, char **ret_line, struct err *err)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(err, errno, "%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t cap = 0;
    ssize_t n = getline(&line, &cap, f);
    fclose(f);
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r' || line[n - 1] == ' '))
        line[--n] = '\0';
    if (n <= 0) {
        free(line);
        return err_set(err, EINVAL, "%s: holds no API key", path);
    }
    *ret_line = line;
    return 0;
}

/* Writes a small file so that it is there whole or not at all. */
static int write_file(const char *dir, const char *name, const char *text, size_t n)
{
    cleanup_free char *path = js_format("%s/%s", dir, name);
    cleanup_free char *temporary = js_format("%s/%s.new", dir, name);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int r = 0;
    for (size_t done = 0; done < n && r == 0;) {
        ssize_t w = write(fd, text + done, n - done);
        if (w < 0)
            r = -errno;
        else
            done += (size_t)w;
    }
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (close(fd) < 0 && r == 0)
        r = -errno;
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    cleanup_fd int parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r == 0 && (parent < 0 || fsync(parent) < 0))
        r = -errno;
    return r;
}

static int load_key(struct emulator *e, struct err *err)
{
    if (e->opt.api_key_file)
        return read_first_line(e->opt.api_key_file, &e->api_key, err);
    if (e->opt.api_key) {
        e->api_key = js_strdup(e->opt.api_key);
        return 0;
    }
    cleanup_free char *path = js_format("%s/api_key", e->dir);
    if (access(path, F_OK) == 0)
        return read_first_line(path, &e->api_key, err);
    e->api_key = ids_secret("napi_", 48);
    cleanup_free char *line = js_format("%s\n", e->api_key);
    int r = write_file(e->dir, "api_key", line, strlen(line));
    return r < 0 ? err_set(err, -r, "%s: %s", path, strerror(-r)) : 0;
}

static json_t *new_state(void)
{
    cleanup_free char *password = ids_secret("", 32);
    cleanup_free char *org = ids_new("org");
    cleanup_free char *user = ids_uuid();
    cleanup_free char *now = emulator_now();
    return json_pack("{s:i, s:i, s:s, s:i, s:i, s:s, s:s, s:s, s:{}, s:{}, s:{}, s:{}, s:[], s:[]}", "_version", STATE_VERSION,
                     "_seq", 0, "_password", password, "_pg_major", 0, "_http_port", 0, "_org", org, "_user", user, "_created_at",
                     now, "projects", "branches", "endpoints", "snapshots", "operations", "jobs");
}

static int load_state(struct emulator *e, struct err *err)
{
    cleanup_free char *path = js_format("%s/state.json", e->dir);
    if (access(path, F_OK) < 0) {
        e->root = new_state();
    } else {
        json_error_t error;
        e->root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
        if (!e->root)
            return err_set(err, EINVAL, "%s: can't be read: %s", path, error.text);
        if (js_int(e->root, "_version") != STATE_VERSION)
            return err_set(err, EINVAL, "%s: made by another version of neon-emulator", path);
    }
    e->password = js_strdup(js_str(e->root, "_password"));
    return 0;
}

static int choose_port(struct emulator *e, struct err *err)
{
    int port = e->opt.listen_port >= 0 ? e->opt.listen_port : (int)js_int(e->root, "_http_port");
    if (port == 0) {
        int r = pgserver_free_port(e->opt.listen_host, NULL, 0, &port, err);
        if (r < 0)
            return r;
    }
    e->http_port = port;
    js_set_int(e->root, "_http_port", port);
    return 0;
}

static int find_postgres(struct emulator *e, struct err *err)
{
    int r = pgserver_find((int)js_int(e->root, "_pg_major"), &e->pg, err);
    if (r < 0)
        return js_int(e->root, "_pg_major") ? err_prefix(err, "the data in %s was made by another PostgreSQL", e->dir) : r;
    js_set_int(e->root, "_pg_major", e->pg.major);
    static const char *const parts[] = {"branches", "snapshots", "log"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]) && r == 0; i++) {
        cleanup_free char *path = js_format("%s/%s", e->dir, parts[i]);
        r = pgserver_mkdir(&e->pg, path, err);
    }
    return r;
}

int emulator_open(struct emulator *e, const struct options *opt, struct err *err)
{
    e->opt = *opt;
    e->dir_lock = -1;
    e->faults = faults_new();
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&e->lock, NULL);
    int r = opt->fault ? faults_add(e->faults, opt->fault, err) : 0;
    if (r == 0 && (r = open_dir(e, err)) == 0 && (r = load_key(e, err)) == 0 && (r = load_state(e, err)) == 0 &&
        (r = find_postgres(e, err)) == 0)
        r = choose_port(e, err);
    if (r == 0)
        emulator_save(e);
    return r;
}

void emulator_close(struct emulator *e)
{
    if (e->root)
        json_decref(e->root);
    if (e->dir_lock >= 0)
        close(e->dir_lock);
    faults_free(e->faults);
    pgserver_clear(&e->pg);
    free(e->dir);
    free(e->api_key);
    free(e->password);
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
}

void emulator_save(struct emulator *e)
{
    cleanup_free char *text = json_dumps(e->root, JSON_COMPACT);
    int r = text ? write_file(e->dir, "state.json", text, strlen(text)) : -ENOMEM;
    if (r < 0) {
        log_error("%s/state.json can't be written: %s; ending", e->dir, strerror(-r));
        abort();
    }
}
