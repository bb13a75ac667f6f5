/* neon-emulator: a local Neon. Opens DIR, makes the first project, serves, and stops every server it has started. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "emulator/compute.h"
#include "emulator/emulator.h"
#include "emulator/http.h"
#include "emulator/janitor.h"
#include "emulator/js.h"
#include "emulator/model.h"
#include "emulator/ops.h"
#include "emulator/options.h"
#include "emulator/projects.h"
#include "util/cleanup.h"
#include "util/log.h"

#define FINISH_MS 5000

static void signals_of_interest(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

/* Waits for the first project; a signal ends the wait. */
static int make_first_project(struct emulator *e, const sigset_t *signals, struct err *err)
{
    json_t *project, *job;
    struct project_wish wish = {.name = "local", .store_passwords = true};
    if (json_object_size(emulator_table(e, "projects")) == 0) {
        int r = project_add(e, NULL, &wish, &project, &job, err);
        if (r < 0)
            return r;
        json_decref(job_submit(e, job));
    }
    while (e->jobs_running > 0 && json_array_size(emulator_table(e, "jobs")) > 0) {
        struct timespec no_time = {0, 0};
        if (sigtimedwait(signals, NULL, &no_time) > 0)
            return -EINTR;
        emulator_wait(e, 50);
    }
    if (json_object_size(emulator_table(e, "projects")) == 0)
        return err_set(err, EIO, "the first project couldn't be made; the reason is above");
    return 0;
}

/* KEY='value' lines, for `. FILE` or eval. Nothing in them can end the quotes: ids, addresses, percent-encoded names. */
static void print_environment(struct emulator *e)
{
    const char *id = json_object_iter_key(json_object_iter(emulator_table(e, "projects")));
    json_t *branch = model_default_branch(e, id);
    json_t *endpoint = branch ? model_endpoint_of(e, js_str(branch, "id")) : NULL;
    const json_t *role = branch ? json_array_get(json_object_get(branch, "_roles"), 0) : NULL;
    const char *database = branch ? js_str(json_array_get(json_object_get(branch, "_databases"), 0), "name") : NULL;
    printf("NEON_API_HOST='http://%s:%d/api/v2'\n", e->opt.listen_host, e->http_port);
    if (!strchr(e->api_key, '\''))
        printf("NEON_API_KEY='%s'\n", e->api_key);
    printf("NEON_PROJECT_ID='%s'\n", id);
    if (branch)
        printf("NEON_BRANCH_ID='%s'\n", js_str(branch, "id"));
    if (endpoint && role && database) {
        cleanup_free char *uri = model_uri(endpoint, role, database);
        if (!strchr(uri, '\''))
            printf("DATABASE_URL='%s'\n", uri);
    }
    fflush(stdout);
}

static int write_port_file(const struct emulator *e, struct err *err)
{
    const char *path = e->opt.port_file;
    if (!path)
        return 0;
    cleanup_free char *temporary = js_format("%s.%d", path, getpid());
    FILE *f = fopen(temporary, "we");
    if (!f)
        return err_set(err, errno, "%s: %s", path, strerror(errno));
    fprintf(f, "%d\n", e->http_port);
    if (fclose(f) != 0 || rename(temporary, path) < 0) {
        int saved = errno;
        unlink(temporary);
        return err_set(err, saved, "%s: %s", path, strerror(saved));
    }
    return 0;
}

static void stop_computes(struct emulator *e)
{
    const char *id;
    json_t *branch;
    json_object_foreach(emulator_table(e, "branches"), id, branch)
        if (compute_stop(e, id) < 0)
            log_warn("branch %s: its server can't be ended", id);
}

static int serve(struct emulator *e, const sigset_t *signals, struct err *err)
{
    struct http_server *server = NULL;
    pthread_t janitor;
    int r = http_start(e, &server, err);
    if (r < 0)
        return r;
    r = janitor_start(e, &janitor, err);
    bool has_janitor = r == 0;
    if (r == 0)
        r = write_port_file(e, err);
    if (r == 0) {
        pthread_mutex_lock(&e->lock);
        print_environment(e);
        pthread_mutex_unlock(&e->lock);
        int sig;
        while (sigwait(signals, &sig) != 0 || sig == SIGHUP)
            ;
    }
    pthread_mutex_lock(&e->lock);
    jobs_finish(e, FINISH_MS);
    pthread_mutex_unlock(&e->lock);
    http_stop(server);
    if (has_janitor)
        pthread_join(janitor, NULL);
    return r;
}

static int run(struct emulator *e, const sigset_t *signals, struct err *err)
{
    pthread_mutex_lock(&e->lock);
    jobs_resume(e);
    int r = make_first_project(e, signals, err);
    pthread_mutex_unlock(&e->lock);
    if (r == 0)
        r = serve(e, signals, err);
    pthread_mutex_lock(&e->lock);
    jobs_finish(e, FINISH_MS);
    stop_computes(e);
    pthread_mutex_unlock(&e->lock);
    if (e->opt.port_file)
        unlink(e->opt.port_file);
    return r;
}

int main(int argc, char **argv)
{
    js_init();
    log_init("neon-emulator");
    struct options opt;
    enum options_outcome outcome = options_parse(argc, argv, &opt);
    if (outcome != OPTIONS_RUN)
        return outcome == OPTIONS_DONE ? 0 : 2;
    signal(SIGPIPE, SIG_IGN);
    sigset_t signals;
    signals_of_interest(&signals);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    struct emulator e = {.dir_lock = -1};
    cleanup_err struct err err = {0};
    int r = emulator_open(&e, &opt, &err);
    if (r == 0)
        r = run(&e, &signals, &err);
    if (r < 0 && r != -EINTR)
        fprintf(stderr, "neon-emulator: %s\n", err_text(&err));
    emulator_close(&e);
    options_clear(&opt);
    return r < 0 && r != -EINTR ? 1 : 0;
}
