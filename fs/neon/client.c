/* Opening and closing the client: what the configuration must be like, and which base URL it means. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "neon_i.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

#define DEFAULT_CONNECT_MS 10000
#define DEFAULT_REQUEST_MS 90000
#define DEFAULT_CALL_MS 600000
#define DEFAULT_FAILED_GRACE_MS 5000
#define DEFAULT_BACKOFF_MS 250
#define DEFAULT_ATTEMPTS 6

static void cleanup_curlu(CURLU **u) { curl_url_cleanup(*u); }
static void cleanup_curl_free(char **s) { curl_free(*s); }
static void cleanup_neon(struct neon **neon) { neon_close(*neon); }

/* localhost, 127.x.y.z or [::1]; `host` may go on with a port or a path. */
static bool is_loopback(const char *host)
{
    if (str_starts(host, "127."))
        return strchr(":/", host[strspn(host, "0123456789.")]); /* finds the NUL too */
    if (str_starts(host, "[::1]"))
        return true;
    return str_starts(host, "localhost") && strchr(":/", host[strlen("localhost")]);
}

/* One part of a URL, NULL when absent; to be freed with curl_free. */
static char *url_part(CURLU *u, CURLUPart part)
{
    char *text = NULL;

    return curl_url_get(u, part, &text, 0) == CURLUE_OK ? text : NULL;
}

/* http or https, a host, no password, query or fragment. */
static int check_url(const char *url, bool *ret_loopback, struct err *err)
{
    CURLU *u __attribute__((cleanup(cleanup_curlu))) = curl_url();
    char *scheme __attribute__((cleanup(cleanup_curl_free))) = NULL;
    char *host __attribute__((cleanup(cleanup_curl_free))) = NULL;
    char *user __attribute__((cleanup(cleanup_curl_free))) = NULL;
    char *query __attribute__((cleanup(cleanup_curl_free))) = NULL;
    char *fragment __attribute__((cleanup(cleanup_curl_free))) = NULL;

    if (!u)
        return err_set(err, ENOMEM, "out of memory");
    if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
        return err_set(err, EINVAL, "NEON_API_HOST is not a URL; it is to look like %s", NEON_DEFAULT_API_HOST);
    scheme = url_part(u, CURLUPART_SCHEME);
    host = url_part(u, CURLUPART_HOST);
    user = url_part(u, CURLUPART_USER);
    query = url_part(u, CURLUPART_QUERY);
    fragment = url_part(u, CURLUPART_FRAGMENT);
    if (!scheme || !host || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
        return err_set(err, EINVAL, "NEON_API_HOST must be an http or https URL, such as %s", NEON_DEFAULT_API_HOST);
    if (user || query || fragment)
        return err_set(err, EINVAL, "NEON_API_HOST must hold no user, query or fragment; it is to look like %s",
                       NEON_DEFAULT_API_HOST);
    *ret_loopback = is_loopback(host);
    if (!*ret_loopback && strcmp(scheme, "http") == 0)
        log_warn("NEON_API_HOST is plain http to %s: the API key travels unencrypted", host);
    return 0;
}

/* The base URL without a slash at its end; a scheme is added where there is none. NULL when out of memory. */
static char *base_url(const char *api_host)
{
    char *url;
    size_t n;

    if (strstr(api_host, "://"))
        url = str_dup(api_host);
    else
        url = str_format("%s://%s", is_loopback(api_host) ? "http" : "https", api_host);
    for (n = url ? strlen(url) : 0; n > 0 && url[n - 1] == '/'; n--)
        url[n - 1] = '\0';
    return url;
}

/* Visible ASCII only: anything else could end the header. */
static bool is_header_text(const char *s)
{
    for (; *s; s++)
        if (!isgraph((unsigned char)*s))
            return false;
    return true;
}

static int check_config(const struct neon_config *c, struct err *err)
{
    if (!c->api_key || !*c->api_key)
        return err_set(err, EINVAL, "no API key for Neon; set NEON_API_KEY");
    if (!is_header_text(c->api_key))
        return err_set(err, EINVAL, "NEON_API_KEY holds white space or characters that no key has; copy it again");
    if (!c->project_id || !*c->project_id)
        return err_set(err, EINVAL, "no Neon project; set NEON_PROJECT_ID");
    if (!neon_id_ok(c->project_id))
        return err_set(err, EINVAL, "NEON_PROJECT_ID is no project id: lower-case letters, digits and dashes, at most 60");
    return 0;
}

static int64_t or_default(int64_t value, int64_t dflt)
{
    return value > 0 ? value : dflt;
}

static void set_limits(struct neon_config *l, const struct neon_config *c)
{
    l->connect_timeout_ms = or_default(c->connect_timeout_ms, DEFAULT_CONNECT_MS);
    l->request_timeout_ms = or_default(c->request_timeout_ms, DEFAULT_REQUEST_MS);
    l->call_timeout_ms = or_default(c->call_timeout_ms, DEFAULT_CALL_MS);
    l->failed_grace_ms = or_default(c->failed_grace_ms, DEFAULT_FAILED_GRACE_MS);
    l->backoff_ms = or_default(c->backoff_ms, DEFAULT_BACKOFF_MS);
    l->max_attempts = c->max_attempts > 0 ? c->max_attempts : DEFAULT_ATTEMPTS;
}

int neon_open(const struct neon_config *config, struct neon **ret_neon, struct err *err)
{
    struct neon *neon __attribute__((cleanup(cleanup_neon))) = NULL;
    int r;

    r = check_config(config, err);
    if (r < 0)
        return r;
    neon = calloc(1, sizeof(*neon));
    if (!neon)
        return err_set(err, ENOMEM, "out of memory");
    pthread_mutex_init(&neon->lock, NULL);
    /* Counted by libcurl, and thread-safe since 7.84. */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(err, ENOMEM, "libcurl can't be initialised");
    set_limits(&neon->limits, config);
    neon->base = base_url(config->api_host && *config->api_host ? config->api_host : NEON_DEFAULT_API_HOST);
    neon->auth_header = str_format("Authorization: Bearer %s", config->api_key);
    neon->project_id = str_dup(config->project_id);
    neon->user_agent = str_dup(config->user_agent ? config->user_agent : "checkpointfs");
    if (!neon->base || !neon->auth_header || !neon->project_id || !neon->user_agent)
        return err_set(err, ENOMEM, "out of memory");
    r = check_url(neon->base, &neon->loopback, err);
    if (r < 0)
        return r;
    *ret_neon = steal_ptr(&neon);
    return 0;
}

void neon_close(struct neon *neon)
{
    if (!neon)
        return;
    neon_workers_free(neon);
    free(neon->base);
    if (neon->auth_header)
        explicit_bzero(neon->auth_header, strlen(neon->auth_header));
    free(neon->auth_header);
    free(neon->project_id);
    free(neon->user_agent);
    pthread_mutex_destroy(&neon->lock);
    free(neon);
    curl_global_cleanup();
}

const char *neon_project_id(const struct neon *neon)
{
    return neon->project_id;
}

const char *neon_api_host(const struct neon *neon)
{
    return neon->base;
}
