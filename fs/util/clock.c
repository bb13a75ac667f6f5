/* Times: RFC 3339 in and out, monotonic milliseconds. */
#include "util/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define NS_PER_S 1000000000LL

int64_t clock_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static int64_t ms_of(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_mono_ms(void) { return ms_of(CLOCK_MONOTONIC); }

int64_t clock_boot_ms(void) { return ms_of(CLOCK_BOOTTIME); }

static void split(int64_t ns, struct tm *tm, int *ms)
{
    int64_t rest = ns % NS_PER_S;
    time_t s;

    if (rest < 0)
        rest += NS_PER_S;
    s = (time_t)((ns - rest) / NS_PER_S);
    gmtime_r(&s, tm);
    *ms = (int)(rest / 1000000);
}

char *clock_format(int64_t ns, char out[CLOCK_TEXT_MAX])
{
    struct tm tm;
    size_t n;
    int ms;

    split(ns, &tm, &ms);
    n = strftime(out, CLOCK_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, CLOCK_TEXT_MAX - n, ".%03dZ", ms);
    return out;
}

char *clock_format_seconds(int64_t ns, char out[CLOCK_TEXT_MAX])
{
    struct tm tm;
    int ms;

    split(ns, &tm, &ms);
    strftime(out, CLOCK_TEXT_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return out;
}

/* Reads `.123456789…` at *p into nanoseconds; digits past the ninth are dropped. */
static bool parse_fraction(const char **p, int64_t *ns)
{
    int64_t unit = NS_PER_S / 10;

    if (**p != '.')
        return true;
    ++*p;
    if (**p < '0' || **p > '9')
        return false;
    for (; **p >= '0' && **p <= '9'; ++*p, unit /= 10)
        *ns += (**p - '0') * unit;
    return true;
}

static bool parse_offset(const char *p, int64_t *seconds)
{
    int h;
    int m;
    int used = 0;

    if ((*p == 'Z' || *p == 'z') && !p[1])
        return true;
    if ((*p != '+' && *p != '-') || sscanf(p + 1, "%2d:%2d%n", &h, &m, &used) != 2 || p[1 + used])
        return false;
    if (h > 23 || m > 59)
        return false;
    *seconds = (*p == '+' ? 1 : -1) * (int64_t)(h * 3600 + m * 60);
    return true;
}

int clock_parse(const char *text, int64_t *ret_ns)
{
    struct tm tm = {0};
    const char *p = text;
    int64_t offset = 0;
    int64_t ns = 0;
    int used = 0;

    if (sscanf(p, "%4d-%2d-%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &used) != 3 || used != 10)
        return -EINVAL;
    p += used;
    if (*p) {
        if (*p != 'T' && *p != 't' && *p != ' ')
            return -EINVAL;
        used = 0;
        if (sscanf(p + 1, "%2d:%2d:%2d%n", &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) != 3 || used != 8)
            return -EINVAL;
        p += 1 + used;
        if (!parse_fraction(&p, &ns) || !parse_offset(p, &offset))
            return -EINVAL;
    }
    if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
        return -EINVAL;
    if (tm.tm_year < 1678 || tm.tm_year > 2261) /* what nanoseconds in 64 bits reach */
        return -EINVAL;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    *ret_ns = ((int64_t)timegm(&tm) - offset) * NS_PER_S + ns;
    return 0;
}

void clock_sleep_ms(int64_t ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};

    nanosleep(&ts, NULL);
}
