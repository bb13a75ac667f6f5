/* The session: checks before, mounting, serving, and leaving in order. */
#include "mount/mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "import.h"
#include "spool.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/text.h"

#define JOB_THREADS 16
#define DIR_THREADS 4
#define WAKE_MS 10
/* What .import/ holds at most; one file as much as a state. */
#define STAGED_NODES 500000
#define STAGED_BYTES (64LL << 30)
#define LAST_WRITES_MS 50 /* programs that write again after EINTR get their last answer */
#define LAST_CALLS_MS 10000 /* so long the mount serves on while a call, such as a seal, comes to its end */

/* ---- libfuse's session ---------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 0))) static void say(enum fuse_log_level level, const char *fmt, va_list ap)
{
    cleanup_free char *text = NULL;

    if (vasprintf(&text, fmt, ap) < 0)
        return;
    text[strcspn(text, "\n")] = '\0';
    if (level <= FUSE_LOG_ERR)
        log_error("%s", text);
    else
        log_info("%s", text);
}

static void say_nothing(enum fuse_log_level level, const char *fmt, va_list ap)
{
    (void)level;
    (void)fmt;
    (void)ap;
}

static struct fuse_session *session_new(const char *options, bool read_only, bool debug, struct mount *m)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    struct fuse_lowlevel_ops ops = front_ops();
    struct fuse_session *se = NULL;
    cleanup_free char *all = str_format("fsname=checkpointfs,subtype=checkpointfs,default_permissions%s%s%s", read_only ? ",ro" : "",
                                        options ? "," : "", options ? options : "");

    if (all && fuse_opt_add_arg(&args, "checkpointfs") == 0 && fuse_opt_add_arg(&args, "-o") == 0 && fuse_opt_add_arg(&args, all) == 0 &&
        (!debug || fuse_opt_add_arg(&args, "-d") == 0))
        se = fuse_session_new(&args, &ops, sizeof(ops), m);
    fuse_opt_free_args(&args);
    return se;
}

/* ---- checks ------------------------------------------------------------------------------------------------------------ */

static int check_empty(const char *path, struct err *e)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    bool empty = true;

    if (!d)
        return err_set(e, errno, "the mountpoint %s can't be read: %s", path, strerror(errno));
    while ((entry = readdir(d)))
        empty &= strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(d);
    return empty ? 0 : err_set(e, ENOTEMPTY, "the mountpoint %s is not empty; mount on an empty directory", path);
}

static bool is_mountpoint(const char *path, const struct stat *st)
{
    cleanup_free char *up = str_format("%s/..", path);
    struct stat parent;

    return up && stat(up, &parent) == 0 && (parent.st_dev != st->st_dev || parent.st_ino == st->st_ino);
}

/* fusermount3 may detach what its user has mounted. */
static bool fusermount_detach(const char *path)
{
    char *argv[] = {"fusermount3", "-u", "-z", "-q", "--", (char *)(uintptr_t)path, NULL};
    pid_t pid;
    int status;

    if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ))
        return false;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* A mount that was killed leaves a mountpoint that only answers ENOTCONN (fuse.md §1.9), at first also ECONNABORTED. */
static int detach_dead(const char *path, struct err *e)
{
    struct stat st;

    if (stat(path, &st) == 0 || (errno != ENOTCONN && errno != ECONNABORTED))
        return 0;
    if (umount2(path, MNT_DETACH) < 0 && !fusermount_detach(path))
        return err_set(e, ENOTCONN, "a dead mount is on %s; detach it with `fusermount3 -uz %s`", path, path);
    log_info("a dead mount on %s was detached", path);
    return 0;
}

static int check_device(struct err *e)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fd >= 0) {
        close(fd);
        return 0;
    }
    if (errno == ENOENT)
        return err_set(e, ENODEV, "/dev/fuse is missing: load the fuse module, or make the node with `mknod -m 666 /dev/fuse c 10 229`");
    return err_set(e, ENODEV, "/dev/fuse can't be opened: %s; it needs the fuse module, mode 0666, and in a container the device itself",
                   strerror(errno));
}

static int check_options(const char *options, struct err *e)
{
    struct fuse_session *se;

    fuse_set_log_func(say_nothing); /* our line says it */
    se = session_new(options, false, false, NULL);
    fuse_set_log_func(say);
    if (!se)
        return err_set(e, EINVAL, "libfuse refuses the mount options `%s`; see `man 8 mount.fuse3` for what it knows", options);
    fuse_session_destroy(se);
    return 0;
}

/* Whoever else starts a mount there at this moment would mount over ours, or we over theirs. */
static int lock_mountpoint(const char *path, int *ret, struct err *e)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_set(e, errno, "the mountpoint %s can't be read: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, EBUSY, "another mount is being started on %s", path);
    *ret = steal_fd(&fd);
    return 0;
}

int mount_check(const char *path, const char *options, int *ret_lock, struct err *e)
{
    cleanup_fd int lock = -1;
    struct stat st;
    int r = check_device(e);

    if (r == 0 && options)
        r = check_options(options, e);
    if (r == 0)
        r = detach_dead(path, e);
    if (r < 0)
        return r;
    if (stat(path, &st) < 0)
        return err_set(e, errno, "the mountpoint %s can't be used: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ENOTDIR, "the mountpoint %s is not a directory", path);
    r = lock_mountpoint(path, &lock, e); /* before the next look: what is mounted from then on is ours */
    if (r < 0)
        return r;
    if (stat(path, &st) < 0 || is_mountpoint(path, &st))
        return err_set(e, EBUSY, "something is mounted on %s already; unmount it with `fusermount3 -u %s`, or take another directory",
                       path, path);
    r = check_empty(path, e);
    if (r == 0)
        *ret_lock = steal_fd(&lock);
    return r;
}

/* ---- mounting ---------------------------------------------------------------------------------------------------------- */

int mount_open(const struct mount_config *config, struct mount **ret, struct err *e)
{
    struct mount *m = calloc(1, sizeof(*m));

    if (!m)
        return err_set(e, ENOMEM, "out of memory");
    m->c = *config;
    pthread_mutex_init(&m->handles_lock, NULL);
    m->se = session_new(m->c.options, m->c.read_only, m->c.debug, m);
    if (!m->se) {
        mount_close(m);
        return err_set(e, EINVAL, "libfuse refuses the mount options `%s`", config->options ? config->options : "");
    }
    m->jobs = jobs_new(JOB_THREADS);
    m->dirs = jobs_new(DIR_THREADS);
    m->notifier = notifier_new(m->se);
    m->staging = staging_new(STAGED_NODES, STAGED_BYTES, STORE_STATE_MAX, m->c.uid, m->c.gid, 0777 & ~m->c.umask);
    m->spool = spool_new();
    m->importer = importer_new();
    if (!m->jobs || !m->dirs || !m->notifier || !m->staging || !m->spool || !m->importer || waits_start(m) < 0) {
        mount_close(m);
        return err_set(e, EAGAIN, "the mount's threads can't be started");
    }
    *ret = m;
    return 0;
}

void mount_close(struct mount *m)
{
    if (!m)
        return;
    /* The engine has stopped, so no run takes a waiter any more. Those that runs still hold come first: when they are answered, no run's
     * thread can come to the jobs. Then what is queued runs, and all of it before the session that the replies go to. */
    waits_stop(m);
    jobs_free(m->dirs);
    importer_free(m->importer);
    jobs_free(m->jobs);
    waits_free(m);
    notifier_free(m->notifier);
    if (m->mounted)
        fuse_session_unmount(m->se);
    if (m->se)
        fuse_session_destroy(m->se);
    while (m->handles)
        handle_free(m, m->handles);
    while (m->readers)
        handle_free(m, m->readers);
    spool_free(m->spool);
    staging_free(m->staging);
    pthread_mutex_destroy(&m->handles_lock);
    free(m);
}

void mount_leave(struct mount *m)
{
    waits_stop(m);
    if (m->mounted)
        fuse_session_unmount(m->se);
}

/* ---- serving ----------------------------------------------------------------------------------------------------------- */

struct stopper {
    struct mount *m;
    struct engine *engine;
    pthread_t main;
    bool stopped;      /* the engine */
    atomic_bool ended; /* libfuse's loop */
};

static void wake(int sig)
{
    (void)sig; /* only to end sem_wait in libfuse's loop: fuse_session_exit wakes nobody before 3.18 (fuse.md §1.1) */
}

/* Whoever reads or writes again once nobody serves would hang until the last call has ended, and the session is closed. */
static void last_calls(struct mount *m)
{
    int64_t until = clock_mono_ms() + LAST_CALLS_MS;

    do
        clock_sleep_ms(LAST_WRITES_MS);
    while ((jobs_busy(m->jobs) || jobs_busy(m->dirs)) && clock_mono_ms() < until);
}

/* SIGTERM is answered while the mount still serves: waiting writers get EINTR, agents write their last files. */
static void *stop_on_signal(void *arg)
{
    struct stopper *s = arg;
    sigset_t set;
    int sig = 0;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR2); /* from mount_run, when the loop has ended by itself */
    sigwait(&set, &sig);
    if (sig != SIGUSR2) {
        log_info("leaving on %s", strsignal(sig));
        engine_stop(s->engine);
        s->stopped = true;
        last_calls(s->m);
        fuse_session_exit(s->m->se);
        while (!atomic_load(&s->ended)) { /* again: the first may come just before it sleeps */
            pthread_kill(s->main, SIGUSR1);
            clock_sleep_ms(WAKE_MS);
        }
    }
    return NULL;
}

static int serve(struct mount *m)
{
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    int r;

    fuse_loop_cfg_set_clone_fd(loop, 0);
    r = fuse_session_loop_mt(m->se, loop);
    fuse_loop_cfg_destroy(loop);
    return r < 0 ? r : 0;
}

int mount_run(struct mount *m, struct engine *g, void (*ready)(void *arg), void *arg, struct err *e)
{
    struct stopper s = {.m = m, .engine = g, .main = pthread_self()};
    struct sigaction act = {.sa_handler = wake};
    sigset_t usr1;
    pthread_t thread;
    int r;

    m->engine = g;
    m->ready = ready;
    m->ready_arg = arg;
    sigaction(SIGUSR1, &act, NULL);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    if (fuse_session_mount(m->se, m->c.mountpoint) < 0) {
        engine_stop(g);
        return err_set(e, EIO, "libfuse can't mount on %s; see its message above", m->c.mountpoint);
    }
    m->mounted = true;
    r = pthread_create(&thread, NULL, stop_on_signal, &s);
    if (r == 0) {
        pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
        r = -serve(m);
        atomic_store(&s.ended, true);
        pthread_kill(thread, SIGUSR2);
        pthread_join(thread, NULL);
    }
    if (!s.stopped)
        engine_stop(g);
    return r ? err_set(e, r, "the mount ended: %s", strerror(r)) : 0;
}
