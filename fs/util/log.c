/* The program's log. The one piece of process-wide state beside main's: where lines go, set once at start. */
#include "util/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>

#include "util/clock.h"

static const char *log_ident = "checkpointfs";
static atomic_bool log_syslog;

void log_init(const char *ident)
{
    log_ident = ident;
}

void log_to_syslog(void)
{
    openlog(log_ident, LOG_PID, LOG_DAEMON);
    atomic_store(&log_syslog, true);
}

__attribute__((format(printf, 3, 0))) static void log_line(int priority, const char *word, const char *fmt, va_list ap)
{
    char when[CLOCK_TEXT_MAX];
    char *text = NULL;

    if (atomic_load(&log_syslog)) {
        vsyslog(priority, fmt, ap);
        return;
    }
    if (vasprintf(&text, fmt, ap) < 0)
        return;
    fprintf(stderr, "%s %s: %s%s\n", clock_format(clock_now(), when), log_ident, word, text);
    free(text);
}

void log_info(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_line(LOG_INFO, "", fmt, ap);
    va_end(ap);
}

void log_warn(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_line(LOG_WARNING, "warning: ", fmt, ap);
    va_end(ap);
}

void log_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_line(LOG_ERR, "error: ", fmt, ap);
    va_end(ap);
}
