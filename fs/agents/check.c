/* Whether a shell command can be found, as far as that can be told without being the shell. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agents/runner.h"
#include "util/cleanup.h"
#include "util/text.h"

/* Builtins and reserved words of POSIX sh and dash that no file in PATH need stand for. */
static const char *const shell_words[] = {
    ".",     ":",     "[",     "alias",  "bg",     "break",  "case",     "cd",     "command", "continue", "do",   "done",
    "echo",  "elif",  "else",  "esac",   "eval",   "exec",   "exit",     "export", "false",   "fg",       "fi",   "for",
    "getopts", "hash", "if",   "jobs",   "kill",   "local",  "printf",   "pwd",    "read",    "readonly", "return", "set",
    "shift", "test",  "then",  "times",  "trap",   "true",   "type",     "ulimit", "umask",   "unalias",  "unset", "until",
    "wait",  "while", NULL,
};

static bool is_shell_word(const char *word)
{
    for (size_t i = 0; shell_words[i]; i++)
        if (strcmp(word, shell_words[i]) == 0)
            return true;
    return false;
}

/* Characters that make a word something only the shell can evaluate. */
static bool needs_shell(const char *word, size_t n)
{
    static const char special[] = "'\"\\$`(){}<>*?[]~#!^";

    for (size_t i = 0; i < n; i++)
        if (strchr(special, word[i]) || !word[i])
            return true;
    return false;
}

static bool is_assignment(const char *word, size_t n)
{
    const char *eq = memchr(word, '=', n);

    if (!eq || eq == word || isdigit((unsigned char)*word))
        return false;
    for (const char *p = word; p < eq; p++)
        if (!isalnum((unsigned char)*p) && *p != '_')
            return false;
    return true;
}

/* 0 when `path` is an executable file, else the errno that an exec would give. */
static int executable(int dir, const char *path)
{
    struct stat st;

    if (fstatat(dir, path, &st, 0) < 0)
        return errno;
    if (!S_ISREG(st.st_mode))
        return EACCES;
    return faccessat(dir, path, X_OK, AT_EACCESS) < 0 ? errno : 0;
}

static int check_path(const char *word, const char *cwd, struct err *e)
{
    cleanup_fd int dir = open(cwd, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int code;

    if (dir < 0)
        return err_set(e, errno, "the resume command's directory %s: %s", cwd, strerror(errno));
    code = executable(dir, word);
    if (code == ENOENT || code == ENOTDIR)
        return err_set(e, ENOENT, "the resume command's program %s does not exist (from %s); mount with another", word, cwd);
    if (code)
        return err_set(e, EACCES, "the resume command's program %s is not an executable file (chmod +x?)", word);
    return 0;
}

static int check_in_path(const char *word, struct err *e)
{
    const char *path = getenv("PATH");
    bool found_other = false;

    for (const char *p = path ? path : "/usr/local/bin:/usr/bin:/bin"; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL) {
        cleanup_free char *file = str_format("%.*s/%s", (int)strcspn(p, ":"), *p && *p != ':' ? p : ".", word);
        int code = file ? executable(AT_FDCWD, file) : ENOMEM;

        if (code == 0)
            return 0;
        if (code == ENOMEM)
            return err_set(e, ENOMEM, "out of memory");
        found_other = found_other || code == EACCES;
    }
    if (found_other)
        return err_set(e, EACCES, "the resume command's program %s is in PATH, but is no executable file", word);
    return err_set(e, ENOENT, "the resume command's program %s is not in PATH; install it or mount with another --resume", word);
}

int agent_check(const char *command, const char *cwd, struct err *e)
{
    cleanup_free char *word = NULL;
    const char *p = command;
    size_t n;

    for (;;) {
        p += strspn(p, " \t\n");
        if (!*p)
            return err_set(e, EINVAL, "the resume command is empty; mount with --resume=COMMAND");
        n = strcspn(p, " \t\n;&|");
        if (n == 0 || needs_shell(p, n))
            return 0;
        if (!is_assignment(p, n))
            break;
        if (str_starts(p, "PATH="))
            return 0; /* where the command is looked for changes with it */
        p += n;
        if (*p && strchr(";&|", *p))
            return 0;
    }
    word = strndup(p, n);
    if (!word)
        return err_set(e, ENOMEM, "out of memory");
    if (is_shell_word(word))
        return 0;
    return strchr(word, '/') ? check_path(word, cwd, e) : check_in_path(word, e);
}
