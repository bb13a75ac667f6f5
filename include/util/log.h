/* The program's log: stderr while in the foreground, syslog once daemonized, or both to a file.
 *
 * Log once, at the place that handles an error. Never log a secret: no key, cookie, password, connection string.
 * Thread-safe after log_init. */
#ifndef UTIL_LOG_H
#define UTIL_LOG_H

/* `ident` names the program and must outlive the log. Lines go to stderr until log_to_syslog. */
void log_init(const char *ident);

/* From now on lines go to syslog, for a daemon whose stderr is gone. */
void log_to_syslog(void);

void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
