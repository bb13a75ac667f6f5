/* The secrets that this mount knows: what is quoted of others' words leaves them out. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "actions_i.h"
#include "database/connect.h"
#include "util/cleanup.h"
#include "util/text.h"

int mask_uri(struct engine *g, const char *uri)
{
    cleanup_free char *password = database_password(uri);
    int r;

    pthread_mutex_lock(&g->knowing);
    r = secrets_add(&g->known, password);
    r = r < 0 ? r : secrets_add_uri(&g->known, uri);
    pthread_mutex_unlock(&g->knowing);
    return r;
}

int mask_start(struct engine *g)
{
    cleanup_free char *password = store_password(g->c.store);
    int r = mask_uri(g, g->c.conninfo);

    r = r < 0 ? r : secrets_add(&g->known, password);
    r = r < 0 ? r : secrets_add(&g->known, g->c.pgpassword);
    return r < 0 ? r : secrets_add(&g->known, g->c.api_key);
}

void mask_text(struct engine *g, const char *text, size_t n, bool cut, struct buf *b)
{
    pthread_mutex_lock(&g->knowing);
    secrets_mask(&g->known, text, n, cut, b);
    pthread_mutex_unlock(&g->knowing);
}

char *mask_words(struct engine *g, const char *text, bool named, size_t most)
{
    cleanup_buf struct buf known = {0};
    cleanup_buf struct buf guessed = {0};
    const struct buf *b = named ? &guessed : &known;
    size_t n;

    mask_text(g, text, strlen(text), false, &known);
    if (named && known.data)
        secrets_mask_named(known.data, &guessed);
    if (buf_error(&known) || buf_error(&guessed))
        return NULL;
    n = b->len < most ? b->len : most;
    while (n < b->len && n > 0 && ((unsigned char)b->data[n] & 0xc0) == 0x80)
        n--; /* not in the middle of a character */
    return utf8_clean(n ? b->data : "", n);
}

char *mask_told(void *engine, const char *text) { return mask_words(engine, text, false, SIZE_MAX); }
