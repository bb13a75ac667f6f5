/* Lines offered for copying, which mean the same pasted from JSON and decoded. See include/util/offer.h. */
#include "util/offer.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/text.h"

#define PLAIN "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@/%+,=-"

/* A quote in a shell's word takes a backslash, and JSON doubles that: '\'' reads '\\'' there, which ends the word. */
static bool same_in_json(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < ' ' || strchr("'\"\\", *s))
            return false;
    return true;
}

/* One word of a shell of what is the same in JSON. */
static char *word(const char *text)
{
    const char *quote = text[strspn(text, PLAIN)] ? "'" : "";

    return str_format("%s%s%s", quote, text, quote);
}

/* A first - would be an option's. */
static char *path_word(const char *path)
{
    cleanup_free char *here = *path == '-' ? str_format("./%s", path) : str_dup(path);

    return here ? word(here) : NULL;
}

char *offer_path(const char *name, const char *uid)
{
    if (!name || !uid)
        return NULL;
    return same_in_json(name) ? str_dup(name) : str_format(".by-id/%s", uid);
}

char *offer_branch_path(const char *name, const char *uid, const char *branch)
{
    cleanup_free char *path = offer_path(name, uid);

    return path && branch ? str_format("%s/branches/%s", path, branch) : NULL;
}

char *offer_run(const char *program, const char *path, const char *file)
{
    cleanup_free char *whole = path ? str_format("%s%s%s", path, file ? "/" : "", file ? file : "") : NULL;
    cleanup_free char *file_word = whole ? path_word(whole) : NULL;

    if (!file_word)
        return NULL;
    return same_in_json(whole) ? str_format("%s %s", program, file_word) : str_format("%s of the path <%s>", program, whole);
}

char *offer_write(const char *file, const char *text)
{
    cleanup_free char *file_word = file ? path_word(file) : NULL;
    cleanup_free char *text_word = text ? word(text) : NULL;

    if (!file_word || !text_word)
        return NULL;
    return same_in_json(file) && same_in_json(text) ? str_format("echo %s > %s", text_word, file_word)
                                                    : str_format("write <%s> to the file <%s>", text, file);
}

char *offer_delete(const char *path)
{
    cleanup_free char *text = path ? str_format("delete %s", path) : NULL;

    return offer_write(".control/prune", text);
}
