/* HTTP: the connection to libmicrohttpd, the key, the rate limit, the failures on request. */
#include "emulator/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#include "emulator/ids.h"
#include "emulator/js.h"
#include "emulator/router.h"
#include "emulator/url.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/hash.h"
#include "util/log.h"
#include "util/text.h"

#define PREFIX "/api/v2"
#define BODY_MAX ((size_t)1 << 20)
#define URI_MAX 8192
#define CONNECTIONS_MAX 1000
#define IDLE_SECONDS 60

struct http_server {
    struct emulator *e;
    struct MHD_Daemon *daemon;
};

/* One request while it arrives. */
struct incoming {
    char *uri;
    struct buf body;
    bool begun;
    bool too_large;
};

/* One answer on its way out. */
struct outgoing {
    int status;
    char *text; /* NULL = no body */
    const char *type;
    const char *location;
    bool truncate;
};

int answer(struct request *rq, int status, json_t *body)
{
    json_decref(rq->answer);
    rq->answer = body;
    return status;
}

int answer_error(struct request *rq, int status, const char *code, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    cleanup_free char *clean = utf8_clean(text, strlen(text));
    free(text);
    return answer(rq, status,
                  json_pack("{s:s, s:s, s:s}", "request_id", rq->request_id, "code", code, "message", clean ? clean : ""));
}

static const char *header(struct MHD_Connection *conn, const char *name)
{
    return MHD_lookup_connection_value(conn, MHD_HEADER_KIND, name);
}

/* The client's own request id where it is harmless, else a new one. */
static char *request_id(struct MHD_Connection *conn)
{
    const char *given = header(conn, "X-Request-ID");
    size_t n = given ? strlen(given) : 0;
    if (n == 0 || n > 128 || strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") != n)
        return ids_uuid();
    return js_strdup(given);
}

static bool authorized(struct emulator *e, struct MHD_Connection *conn)
{
    const char *value = header(conn, "Authorization");
    if (!value || strncasecmp(value, "Bearer ", 7) != 0)
        return false;
    value += 7;
    value += strspn(value, " ");
    return equal_constant_time(value, e->api_key);
}

/* A bucket of one second's requests. */
static bool within_rate(struct emulator *e)
{
    if (e->opt.rate_limit <= 0)
        return true;
    pthread_mutex_lock(&e->lock);
    int64_t now = clock_mono_ms();
    double rate = e->opt.rate_limit;
    e->rate_tokens += e->rate_at ? (double)(now - e->rate_at) * rate / 1000.0 : rate;
    if (e->rate_tokens > rate)
        e->rate_tokens = rate;
    e->rate_at = now;
    bool ok = e->rate_tokens >= 1.0;
    if (ok)
        e->rate_tokens -= 1.0;
    pthread_mutex_unlock(&e->lock);
    return ok;
}

struct part {
    const char *text;
    size_t len;
};

/* Sends the first half and then an error, so that the connection ends before Content-Length is reached. */
static ssize_t send_half(void *cls, uint64_t pos, char *to, size_t max)
{
    const struct part *part = cls;
    if (pos >= part->len)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = part->len - (size_t)pos < max ? part->len - (size_t)pos : max;
    memcpy(to, part->text + pos, n);
    return (ssize_t)n;
}

static void free_half(void *cls)
{
    struct part *part = cls;
    free((char *)(uintptr_t)part->text);
    free(part);
}

static struct MHD_Response *make_response(const struct outgoing *out)
{
    size_t n = out->text ? strlen(out->text) : 0;
    if (!out->truncate || n < 2)
        return MHD_create_response_from_buffer(n, out->text ? out->text : (void *)(uintptr_t)"", MHD_RESPMEM_MUST_COPY);
    struct part *part = calloc(1, sizeof(*part));
    if (!part)
        return NULL;
    part->text = js_strdup(out->text);
    part->len = n / 2;
    return MHD_create_response_from_callback(n, 4096, send_half, part, free_half);
}

static enum MHD_Result send_response(struct MHD_Connection *conn, const struct outgoing *out, const char *id)
{
    struct MHD_Response *response = make_response(out);
    if (!response)
        return MHD_NO;
    if (out->text)
        MHD_add_response_header(response, "Content-Type", out->type ? out->type : "application/json");
    if (out->location)
        MHD_add_response_header(response, "Location", out->location);
    MHD_add_response_header(response, "X-Neon-Ret-Request-ID", id);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    enum MHD_Result r = MHD_queue_response(conn, (unsigned)out->status, response);
    MHD_destroy_response(response);
    return r;
}

static const char *status_words(int status)
{
    switch (status) {
    case 423: return "project already has running conflicting operations, scheduling of new ones is prohibited";
    case 429: return "too many requests";
    case 500: return "internal server error";
    case 503: return "service unavailable";
    default: return "fault injected on request";
    }
}

/* Waits, but not beyond the end of the emulator. */
static void delay(struct emulator *e, int ms)
{
    pthread_mutex_lock(&e->lock);
    int64_t end = clock_mono_ms() + ms, left;
    while (!e->stopping && (left = end - clock_mono_ms()) > 0)
        emulator_wait(e, left);
    pthread_mutex_unlock(&e->lock);
}

/* What the request comes to; the answer is in rq->answer. */
static int decide(struct request *rq, struct MHD_Connection *conn, struct incoming *in, const char *path)
{
    struct emulator *e = rq->e;
    if (!authorized(e, conn))
        return answer_error(rq, 401, "", "supplied credentials do not pass authentication");
    if (!within_rate(e))
        return answer_error(rq, 429, "", "too many requests");
    if (in->too_large)
        return answer_error(rq, 413, "", "the request body is larger than %zu bytes", BODY_MAX);
    if (strlen(in->uri) > URI_MAX)
        return answer_error(rq, 414, "", "the request URI is longer than %d bytes", URI_MAX);
    rq->path = path;
    if (str_starts(path, PREFIX "/"))
        rq->fault = faults_take(e->faults, rq->method, path + sizeof(PREFIX) - 1);
    if (rq->fault.delay_ms)
        delay(e, rq->fault.delay_ms);
    if (rq->fault.drop_before)
        return 0;
    if (rq->fault.status)
        return answer_error(rq, rq->fault.status, "", "%s", status_words(rq->fault.status));
    return router_dispatch(rq, in->body.data ? in->body.data : "", in->body.len);
}

static enum MHD_Result respond(struct request *rq, struct MHD_Connection *conn, int status)
{
    struct outgoing out = {.status = status, .truncate = rq->fault.truncate};
    cleanup_free char *text = rq->answer && status != 204 ? json_dumps(rq->answer, JSON_COMPACT) : NULL;
    cleanup_free char *location = NULL;
    if (status == 301) {
        location = url_without_empty_segments(rq->path);
        out.location = location;
    } else if (status == 524) {
        free(text);
        text = js_strdup("<html><head><title>524: A timeout occurred</title></head><body>A timeout occurred</body></html>\n");
        out.type = "text/html; charset=UTF-8";
    } else if (rq->fault.malformed && text) {
        text[strlen(text) * 2 / 3] = '\0';
    }
    out.text = text;
    return send_response(conn, &out, rq->request_id);
}

static enum MHD_Result process(struct emulator *e, struct MHD_Connection *conn, const char *method, struct incoming *in)
{
    cleanup_free char *id = request_id(conn);
    cleanup_free char *path = js_strdup(in->uri);
    path[strcspn(path, "?")] = '\0';
    const char *question = strchr(in->uri, '?');
    struct request rq = {.e = e, .method = method, .request_id = id, .query = url_query(question ? question + 1 : "")};
    int status = decide(&rq, conn, in, path);
    enum MHD_Result r = MHD_NO;
    if (status != 0 && !(rq.fault.drop_after && status < 400))
        r = respond(&rq, conn, status);
    json_decref(rq.query);
    json_decref(rq.body);
    json_decref(rq.answer);
    for (size_t i = 0; i < REQUEST_PARAMS; i++)
        free((char *)(uintptr_t)rq.params[i]);
    fault_plan_clear(&rq.fault);
    return r;
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *conn)
{
    (void)cls;
    (void)conn;
    struct incoming *in = calloc(1, sizeof(*in));
    if (in)
        in->uri = js_strdup(uri);
    return in;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **con_cls)
{
    (void)url;
    (void)version;
    struct incoming *in = *con_cls;
    if (!in)
        return MHD_NO;
    if (!in->begun) {
        in->begun = true;
        return MHD_YES;
    }
    if (*upload_size) {
        in->too_large = in->too_large || in->body.len + *upload_size > BODY_MAX;
        if (!in->too_large)
            buf_add(&in->body, upload, *upload_size);
        *upload_size = 0;
        return MHD_YES;
    }
    return process(cls, conn, method, in);
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **con_cls, enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)conn;
    (void)code;
    struct incoming *in = *con_cls;
    if (!in)
        return;
    buf_free(&in->body);
    free(in->uri);
    free(in);
    *con_cls = NULL;
}

int http_start(struct emulator *e, struct http_server **ret_server, struct err *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)e->http_port)};
    inet_pton(AF_INET, e->opt.listen_host, &address.sin_addr);
    struct http_server *server = calloc(1, sizeof(*server));
    if (!server)
        return err_set(err, ENOMEM, "out of memory");
    server->e = e;
    errno = 0;
    server->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL, on_request,
        e, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        NULL, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
        MHD_OPTION_LISTENING_ADDRESS_REUSE, (unsigned)1, MHD_OPTION_THREAD_STACK_SIZE, (size_t)512 * 1024, MHD_OPTION_END);
    if (!server->daemon) {
        int saved = errno ? errno : EIO;
        free(server);
        return err_set(err, saved, "can't serve on %s:%d: %s", e->opt.listen_host, e->http_port, strerror(saved));
    }
    *ret_server = server;
    return 0;
}

void http_stop(struct http_server *server)
{
    MHD_stop_daemon(server->daemon);
    free(server);
}
