/* Times: wall clock in nanoseconds since the epoch, durations in milliseconds of the monotonic clock. All thread-safe. */
#ifndef UTIL_CLOCK_H
#define UTIL_CLOCK_H

#include <stdint.h>

/* Room for any text that clock_format makes, NUL included. */
#define CLOCK_TEXT_MAX 40

/* Now, in nanoseconds since 1970-01-01T00:00:00Z. */
int64_t clock_now(void);

/* Milliseconds of a clock that only goes forward, CLOCK_MONOTONIC: for waits, as pthread_cond_timedwait takes it. */
int64_t clock_mono_ms(void);

/* The same with the time that the machine was suspended, CLOCK_BOOTTIME: for the age of what others count too, a lease or a beat. The other
 * one stands still then: a laptop that wakes would take the lease that it had an hour ago for a fresh one, and another mount has long taken
 * over (clock_getres(2)). Only differences of it mean anything, and none with clock_mono_ms. */
int64_t clock_boot_ms(void);

/* Writes `ns` as RFC 3339 in UTC with milliseconds, `2026-11-24T15:04:05.123Z`, and returns `out`. */
char *clock_format(int64_t ns, char out[CLOCK_TEXT_MAX]);

/* The same in whole seconds, as Neon writes times: `2026-11-24T15:04:05Z`. */
char *clock_format_seconds(int64_t ns, char out[CLOCK_TEXT_MAX]);

/* Reads an RFC 3339 time (any offset, optional fraction; a bare date means midnight UTC) of the years 1678 to 2261. 0, or
 * -EINVAL. */
int clock_parse(const char *text, int64_t *ret_ns);

/* Sleeps; returns early only when a signal came. */
void clock_sleep_ms(int64_t ms);

#endif
