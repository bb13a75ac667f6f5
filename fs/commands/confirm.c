/* The line to write when a command has to be confirmed: the same one, with `confirm=` in its place. See include/commands/command.h. */
#include <stdlib.h>
#include <string.h>

#include "commands_i.h"
#include "formats/jdoc.h"
#include "util/buf.h"
#include "util/cleanup.h"
#include "util/text.h"

static char *confirmed_json(const char *text, const char *branch)
{
    static const char *const but[] = {"confirm", NULL};
    cleanup_jdoc struct jdoc doc = {0};
    cleanup_buf struct buf b = {0};

    if (jdoc_parse(text, strlen(text), &doc) < 0)
        return NULL;
    buf_addc(&b, '{');
    j_add_members(&b, j_root(&doc), but);
    buf_addf(&b, "%s\"confirm\":", b.len > 1 ? "," : "");
    json_add_quoted(&b, branch, strlen(branch));
    buf_addc(&b, '}');
    return buf_steal(&b);
}

static bool is_word(const char *s, size_t n, const char *word)
{
    return strlen(word) == n && strncmp(s, word, n) == 0;
}

/* Behind the verb, which is the first word that isn't nowait or again; a confirm that stands there already is left out. */
static char *confirmed_line(const char *line, const char *branch)
{
    static const char blank[] = " \t";
    const char *verb = line + strspn(line, blank);
    const char *rest;
    size_t n;

    for (n = strcspn(verb, blank); is_word(verb, n, "nowait") || is_word(verb, n, "again"); n = strcspn(verb, blank)) {
        verb += n;
        verb += strspn(verb, blank);
    }
    rest = verb + n;
    if (*rest && str_starts(rest + strspn(rest, blank), "confirm=")) {
        rest += strspn(rest, blank);
        rest += strcspn(rest, blank);
    }
    return str_format("%.*s confirm=%s%s", (int)(verb + n - line), line, branch, rest);
}

char *command_confirmed(enum control control, const char *text, const char *branch)
{
    cleanup_command struct command c = {0};
    cleanup_err struct err e = {0};
    char *line;

    if (command_parse(control, text, strlen(text), &c, &e) < 0)
        return NULL;
    line = looks_like_json(text, strlen(text)) ? confirmed_json(text, branch) : confirmed_line(text, branch);
    if (line) {
        cleanup_command struct command again = {0};

        if (command_parse(control, line, strlen(line), &again, &e) < 0 || !str_equal(again.confirm, branch)) {
            free(line);
            line = NULL;
        }
    }
    return line;
}
