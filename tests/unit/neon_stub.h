/* A server for the tests of the Neon client: answers from a script, one step per request, and keeps what it was sent. */
#ifndef TESTS_UNIT_NEON_STUB_H
#define TESTS_UNIT_NEON_STUB_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "neon/neon.h"
#include "util/buf.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/text.h"

enum stub_how {
    ANSWER,      /* and close */
    KEEP,        /* and serve the next request on the same connection */
    KEEP_DEAD,   /* and close although it said keep-alive */
    TRUNCATED,   /* announces 100 bytes more than it sends */
    DROP_UNREAD, /* closes without reading the request */
    DROP_READ,   /* reads the request, as a server that did the work, and closes */
    STALL        /* reads the request and never answers */
};

struct stub_step {
    int status;
    const char *body;
    const char *headers; /* each with its CRLF, or NULL */
    enum stub_how how;
};

struct stub {
    int listener;
    int stop; /* eventfd */
    int port;
    pthread_t thread;
    const struct stub_step *steps;
    size_t n_steps;
    pthread_mutex_t lock; /* guards what follows */
    struct stub_connection {
        struct stub *stub;
        int fd;
        pthread_t thread;
    } connections[64];
    size_t n_connections;
    size_t n_requests;
    int64_t times[64]; /* monotonic ms of each request */
    char *requests[64]; /* head and body as they came */
};

/* Keeps a request and tells its number. */
static inline size_t stub_record(struct stub *s, char *request)
{
    size_t i;

    pthread_mutex_lock(&s->lock);
    i = s->n_requests++;
    if (i < 64) {
        s->times[i] = clock_mono_ms();
        s->requests[i] = request;
    } else {
        free(request);
    }
    pthread_mutex_unlock(&s->lock);
    return i;
}

static inline size_t stub_count(struct stub *s)
{
    size_t n;

    pthread_mutex_lock(&s->lock);
    n = s->n_requests;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* The whole request, NULL when the peer closed or the stub is to stop. */
static inline char *stub_read(struct stub *s, int fd)
{
    struct buf b = {0};

    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = s->stop, .events = POLLIN}};
        char bytes[4096];
        const char *end;
        const char *length;
        ssize_t n;

        if (poll(p, 2, -1) < 0 || p[1].revents)
            break;
        n = read(fd, bytes, sizeof(bytes));
        if (n <= 0)
            break;
        buf_add(&b, bytes, (size_t)n);
        end = strstr(b.data, "\r\n\r\n");
        if (!end)
            continue;
        length = strstr(b.data, "Content-Length:");
        if ((size_t)(b.data + b.len - (end + 4)) >= (length && length < end ? strtoul(length + 15, NULL, 10) : 0))
            return buf_steal(&b);
    }
    buf_free(&b);
    return NULL;
}

static inline void stub_write(int fd, const struct stub_step *step)
{
    struct buf b = {0};
    const char *body = step->body ? step->body : "";
    bool keep = step->how == KEEP || step->how == KEEP_DEAD;

    buf_addf(&b, "HTTP/1.1 %d Scripted\r\n%s%s", step->status, step->headers ? step->headers : "",
             keep ? "" : "Connection: close\r\n");
    if (step->status != 204)
        buf_addf(&b, "Content-Length: %zu\r\n", strlen(body) + (step->how == TRUNCATED ? 100 : 0));
    buf_addf(&b, "\r\n%s", body);
    if (send(fd, b.data, b.len, MSG_NOSIGNAL) < 0)
        perror("stub");
    buf_free(&b);
}

static inline const struct stub_step *stub_step(struct stub *s, size_t i)
{
    static const struct stub_step over = {.status = 410, .body = "{\"code\":\"\",\"message\":\"the script is over\"}"};

    return i < s->n_steps ? &s->steps[i] : &over;
}

static inline void stub_wait_for_stop(struct stub *s, int fd)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLRDHUP}, {.fd = s->stop, .events = POLLIN}};

    poll(p, 2, -1);
}

/* One connection: one request, or several after KEEP. */
static inline void *stub_serve(void *arg)
{
    struct stub_connection *c = arg;
    struct stub *s = c->stub;
    const struct stub_step *step;
    char *request;

    do {
        if (stub_step(s, stub_count(s))->how == DROP_UNREAD) {
            struct linger reset = {.l_onoff = 1};

            setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
            stub_record(s, strdup("unread"));
            break;
        }
        request = stub_read(s, c->fd);
        if (!request)
            break;
        step = stub_step(s, stub_record(s, request));
        if (step->how == STALL)
            stub_wait_for_stop(s, c->fd);
        else if (step->how != DROP_READ)
            stub_write(c->fd, step);
    } while (step->how == KEEP);
    close(c->fd);
    return NULL;
}

static inline void *stub_main(void *arg)
{
    struct stub *s = arg;

    for (;;) {
        struct pollfd p[2] = {{.fd = s->listener, .events = POLLIN}, {.fd = s->stop, .events = POLLIN}};
        struct stub_connection *c;
        int fd;

        if (poll(p, 2, -1) < 0 || p[1].revents)
            break;
        fd = accept(s->listener, NULL, NULL);
        if (fd < 0)
            continue;
        if (s->n_connections == 64) {
            close(fd);
            continue;
        }
        c = &s->connections[s->n_connections];
        *c = (struct stub_connection){.stub = s, .fd = fd};
        if (pthread_create(&c->thread, NULL, stub_serve, c) == 0)
            s->n_connections++;
    }
    for (size_t i = 0; i < s->n_connections; i++)
        pthread_join(s->connections[i].thread, NULL);
    return NULL;
}

static inline void stub_start(struct stub *s, const struct stub_step *steps, size_t n_steps)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(a);

    *s = (struct stub){.steps = steps, .n_steps = n_steps, .lock = PTHREAD_MUTEX_INITIALIZER};
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    s->stop = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(s->listener, 16), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, stub_main, s), 0);
}

static inline void stub_stop(struct stub *s)
{
    uint64_t one = 1;

    assert_int_equal(write(s->stop, &one, sizeof(one)), sizeof(one));
    pthread_join(s->thread, NULL);
    close(s->listener);
    close(s->stop);
    for (size_t i = 0; i < s->n_requests && i < 64; i++)
        free(s->requests[i]);
}

/* ---- the client under test ---- */

#define KEY "napi_the_secret_key"
#define LOCKED \
    "{\"code\":\"\",\"message\":\"project already has running conflicting operations, scheduling of new ones is prohibited\"}"
#define NO_SNAPSHOTS "{\"snapshots\":[]}"
#define SNAPSHOT \
    "{\"snapshot\":{\"id\":\"snap-a-b-1\",\"name\":\"n\",\"created_at\":\"2026-11-24T10:00:00Z\",\"manual\":true}," \
    "\"operations\":[{\"id\":\"op-1\",\"action\":\"create_branch\",\"status\":\"running\"}]}"
#define OP(id, status, more) "{\"operation\":{\"id\":\"" id "\",\"action\":\"create_branch\",\"status\":\"" status "\"" more "}}"

/* A client, a stub with its script, and the outcome of the call under test. */
struct fixture {
    struct stub stub;
    struct neon *neon;
    struct err err;
    bool unknown;
};

static inline void open_with(struct fixture *f, struct neon_config c)
{
    char *host cleanup_free = str_format("127.0.0.1:%d/api/v2/", f->stub.port);

    c.api_host = host;
    c.api_key = KEY;
    c.project_id = "p-1";
    c.backoff_ms = c.backoff_ms ? c.backoff_ms : 1;
    assert_int_equal(neon_open(&c, &f->neon, &f->err), 0);
}

#define CALL_MS 120000 /* more than any machine takes */

static inline void start(struct fixture *f, const struct stub_step *steps, size_t n)
{
    *f = (struct fixture){0};
    stub_start(&f->stub, steps, n);
    open_with(f, (struct neon_config){.max_attempts = 4, .call_timeout_ms = CALL_MS});
}
#define START(f, ...) \
    const struct stub_step script[] = {__VA_ARGS__}; \
    start(f, script, sizeof(script) / sizeof(script[0]))

/* Every test ends here: whatever happened, no text held the key. */
static inline void finish(struct fixture *f, size_t requests)
{
    for (int64_t end = clock_mono_ms() + CALL_MS; stub_count(&f->stub) < requests && clock_mono_ms() < end;)
        clock_sleep_ms(5); /* one that was sent, and given up since, may not be read yet */
    assert_int_equal(stub_count(&f->stub), requests);
    if (f->err.text)
        assert_null(strstr(f->err.text, KEY));
    neon_close(f->neon);
    stub_stop(&f->stub);
    err_clear(&f->err);
}

static inline int list(struct fixture *f, const struct neon_call *call)
{
    struct neon_snapshots l = {0};
    int r = neon_snapshots_list(f->neon, call, &l, &f->err);

    neon_snapshots_free(&l);
    return r;
}

static inline int take(struct fixture *f, const struct neon_call *call)
{
    struct neon_snapshot s = {0};
    struct neon_operations ops = {0};
    int r = neon_snapshot_create(f->neon, call, "br-a-b-1", "pre drop+1", 0, &s, &ops, &f->unknown, &f->err);

    neon_snapshot_free(&s);
    neon_operations_free(&ops);
    return r;
}

static inline void assert_says(const struct fixture *f, const char *text)
{
    if (!f->err.text || !strstr(f->err.text, text))
        fail_msg("\"%s\" doesn't say \"%s\"", err_text(&f->err), text);
}

#endif
