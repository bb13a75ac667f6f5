/* One attempt of one request: a pool of libcurl handles, each with its own connections, driven so that a wait can be aborted. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "neon_i.h"
#include "util/clock.h"
#include "util/cleanup.h"
#include "util/hash.h"
#include "util/text.h"

#define MAX_IDLE_WORKERS 8
#define MAX_ANSWER (64u << 20)
#define POLL_MS 50         /* how soon a cancellation is seen */
#define GET_TIMEOUT_MS 30000 /* a GET may be repeated, so it needn't be waited for as long as a mutation */
#define REQUEST_ID_DIGITS 32

/* An easy handle and the multi handle that owns its connections. Used by one thread at a time. */
struct worker {
    struct worker *next;
    CURLM *multi;
    CURL *easy;
};

static void cleanup_slist(struct curl_slist **l) { curl_slist_free_all(*l); }

/* ---- the pool ---- */

static void worker_free(struct worker *w)
{
    if (!w)
        return;
    curl_easy_cleanup(w->easy);
    if (w->multi)
        curl_multi_cleanup(w->multi);
    free(w);
}

static struct worker *worker_new(void)
{
    struct worker *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->multi = curl_multi_init();
    w->easy = curl_easy_init();
    if (!w->multi || !w->easy) {
        worker_free(w);
        return NULL;
    }
    curl_multi_setopt(w->multi, CURLMOPT_MAXCONNECTS, 2L);
    return w;
}

static struct worker *worker_take(struct neon *neon)
{
    struct worker *w;

    pthread_mutex_lock(&neon->lock);
    w = neon->idle;
    if (w) {
        neon->idle = w->next;
        neon->n_idle--;
    }
    pthread_mutex_unlock(&neon->lock);
    return w ? w : worker_new();
}

static void worker_give(struct neon *neon, struct worker *w)
{
    curl_easy_reset(w->easy); /* forgets the headers, and so the key */
    pthread_mutex_lock(&neon->lock);
    if (neon->n_idle < MAX_IDLE_WORKERS) {
        w->next = neon->idle;
        neon->idle = w;
        neon->n_idle++;
        w = NULL;
    }
    pthread_mutex_unlock(&neon->lock);
    worker_free(w);
}

void neon_workers_free(struct neon *neon)
{
    struct worker *w;

    while ((w = neon->idle)) {
        neon->idle = w->next;
        worker_free(w);
    }
    neon->n_idle = 0;
}

/* ---- setting up a request ---- */

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct answer *a = arg;

    if (size * n > MAX_ANSWER - a->body.len) {
        a->too_large = true;
        return 0;
    }
    buf_add(&a->body, bytes, size * n);
    return buf_error(&a->body) < 0 ? 0 : size * n;
}

/* Agents are started from this process: none of them shall inherit a connection. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)arg;
    (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static int add_header(struct curl_slist **headers, const char *line)
{
    struct curl_slist *l = curl_slist_append(*headers, line);

    if (!l)
        return -ENOMEM;
    *headers = l;
    return 0;
}

static int add_headers(const struct neon *neon, const struct request *r, struct curl_slist **headers)
{
    char id[REQUEST_ID_DIGITS + 1];
    char *line cleanup_free = NULL;

    if (random_hex(id, REQUEST_ID_DIGITS) < 0 || !(line = str_format("X-Request-ID: %s", id)))
        return -ENOMEM;
    if (add_header(headers, neon->auth_header) < 0 || add_header(headers, "Accept: application/json") < 0
        || add_header(headers, line) < 0 || add_header(headers, "Expect:") < 0)
        return -ENOMEM;
    return add_header(headers, r->body ? "Content-Type: application/json" : "Content-Type:");
}

static bool is_get(const struct request *r)
{
    return strcmp(r->method, "GET") == 0;
}

static void set_method(CURL *easy, const struct request *r, const char *body)
{
    if (is_get(r)) {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
        return;
    }
    if (strcmp(r->method, "POST") == 0 || body) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body ? body : "");
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(body ? strlen(body) : 0));
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, r->method);
    /* libcurl silently sends a request again when a kept connection turns out dead; Neon may have carried it out. */
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
}

static void set_transport(const struct neon *neon, CURL *easy, int64_t timeout_ms)
{
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* an abort doesn't wait for a name to be resolved */
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, str_starts(neon->base, "https:") ? "https" : "http");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, neon->user_agent);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)neon->limits.connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    if (neon->loopback)
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
}

/* ---- running it ---- */

/* Drives the transfer to its end. 0 and *ret_code, -ECANCELED, or -ETIMEDOUT at the call's deadline. */
static int drive(struct worker *w, const struct neon_call *call, CURLcode *ret_code)
{
    int running;
    int left;

    for (;;) {
        const CURLMsg *msg;

        if (curl_multi_perform(w->multi, &running) != CURLM_OK) {
            *ret_code = CURLE_OUT_OF_MEMORY;
            return 0;
        }
        while ((msg = curl_multi_info_read(w->multi, &left)))
            if (msg->msg == CURLMSG_DONE) {
                *ret_code = msg->data.result;
                return 0;
            }
        if (call->cancelled && atomic_load(call->cancelled))
            return -ECANCELED;
        if (clock_mono_ms() >= call->deadline_mono_ms)
            return -ETIMEDOUT;
        curl_multi_poll(w->multi, NULL, 0, POLL_MS, NULL);
    }
}

static void note_outcome(CURL *easy, struct answer *a)
{
    struct curl_header *h = NULL;
    curl_off_t retry_after = 0;
    long os_error = 0;
    long sent = 0;

    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &a->status);
    curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_error);
    a->os_error = (int)os_error;
    curl_easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &sent);
    a->sent = sent > 0;
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
    a->retry_after_ms = retry_after > 0 && retry_after < INT32_MAX ? (int64_t)retry_after * 1000 : 0;
    if (curl_easy_header(easy, "X-Neon-Ret-Request-ID", 0, CURLH_HEADER, -1, &h) == CURLHE_OK
        || curl_easy_header(easy, "X-Request-ID", 0, CURLH_HEADER, -1, &h) == CURLHE_OK)
        a->request_id = str_dup(h->value);
}

static int64_t attempt_timeout(const struct neon *neon, const struct neon_call *call, const struct request *r)
{
    int64_t timeout = neon->limits.request_timeout_ms;
    int64_t left = call->deadline_mono_ms - clock_mono_ms();

    if (is_get(r) && timeout > GET_TIMEOUT_MS)
        timeout = GET_TIMEOUT_MS;
    /* Later than the deadline, so that it is drive() which ends the call there, and says so. */
    return timeout < left ? timeout : (left > 0 ? left : 0) + 2 * POLL_MS;
}

static int run(struct neon *neon, struct worker *w, const struct neon_call *call, const struct request *r, const char *url,
               const char *body, struct answer *a)
{
    struct curl_slist *headers __attribute__((cleanup(cleanup_slist))) = NULL;
    int rc;

    if (add_headers(neon, r, &headers) < 0)
        return -ENOMEM;
    set_transport(neon, w->easy, attempt_timeout(neon, call, r));
    set_method(w->easy, r, body);
    curl_easy_setopt(w->easy, CURLOPT_URL, url);
    curl_easy_setopt(w->easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(w->easy, CURLOPT_ERRORBUFFER, a->detail);
    curl_easy_setopt(w->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(w->easy, CURLOPT_WRITEDATA, a);
    if (curl_multi_add_handle(w->multi, w->easy) != CURLM_OK)
        return -ENOMEM;
    rc = drive(w, call, &a->code);
    note_outcome(w->easy, a);
    curl_multi_remove_handle(w->multi, w->easy);
    return rc;
}

int neon_transfer(struct neon *neon, const struct neon_call *call, const struct request *r, struct answer *a)
{
    char *url cleanup_free = str_format("%s%s", neon->base, r->path);
    char *body cleanup_free = r->body ? json_dumps(r->body, JSON_COMPACT) : NULL;
    struct worker *w;
    int rc;

    if (!url || (r->body && !body))
        return -ENOMEM;
    w = worker_take(neon);
    if (!w)
        return -ENOMEM;
    rc = run(neon, w, call, r, url, body, a);
    worker_give(neon, w);
    return rc;
}

void answer_free(struct answer *a)
{
    buf_free(&a->body);
    free(a->request_id);
    *a = (struct answer){0};
}
