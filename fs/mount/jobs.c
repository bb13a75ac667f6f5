/* A pool of threads for what may block on the store. */
#include <stdlib.h>

#include "mount_i.h"
#include "util/thread.h"

struct jobs {
    pthread_mutex_t lock;
    pthread_cond_t some;
    struct call *first, **last;
    bool ending;
    size_t working; /* threads that are at a call */
    size_t n;
    pthread_t threads[];
};

static void *work(void *arg)
{
    struct jobs *j = arg;
    struct call *c;

    for (;;) {
        pthread_mutex_lock(&j->lock);
        while (!j->first && !j->ending)
            pthread_cond_wait(&j->some, &j->lock);
        c = j->first;
        if (c) {
            j->first = c->job_next;
            if (!j->first)
                j->last = &j->first;
            j->working++;
        }
        pthread_mutex_unlock(&j->lock);
        if (!c)
            return NULL;
        c->job(c);
        pthread_mutex_lock(&j->lock);
        j->working--;
        pthread_mutex_unlock(&j->lock);
    }
}

struct jobs *jobs_new(size_t threads)
{
    struct jobs *j = calloc(1, sizeof(*j) + threads * sizeof(pthread_t));

    if (!j)
        return NULL;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->some, NULL);
    j->last = &j->first;
    while (j->n < threads && thread_start(&j->threads[j->n], NULL, work, j) == 0)
        j->n++;
    if (j->n == 0) {
        free(j);
        return NULL;
    }
    return j;
}

void jobs_free(struct jobs *j)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->ending = true;
    pthread_cond_broadcast(&j->some);
    pthread_mutex_unlock(&j->lock);
    for (size_t i = 0; i < j->n; i++)
        pthread_join(j->threads[i], NULL);
    pthread_cond_destroy(&j->some);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

void jobs_add(struct jobs *j, struct call *c, void (*run)(struct call *c))
{
    c->job = run;
    c->job_next = NULL;
    pthread_mutex_lock(&j->lock);
    *j->last = c;
    j->last = &c->job_next;
    pthread_cond_signal(&j->some);
    pthread_mutex_unlock(&j->lock);
}

bool jobs_busy(struct jobs *j)
{
    bool busy;

    pthread_mutex_lock(&j->lock);
    busy = j->first || j->working > 0;
    pthread_mutex_unlock(&j->lock);
    return busy;
}
