/* A strict JSON checker for text that arrives in pieces: complete, not yet, or never. See commands_i.h.
 *
 * No parser's error code tells "not yet" from "never" (reference/traps.md 9), and a command must be refused at once when it
 * can't become one, and must not wait for more when it is one. */
#include <stdlib.h>
#include <string.h>

#include "commands_i.h"

/* Parsers of agents take about twice as much (Python 3.11: less than 1000), and the decisions are read by them once the database is
 * restored already. */
#define DEPTH_MAX 512

enum {
    VALUE,         /* a value must come */
    VALUE_OR_END,  /* after [ */
    NAME_OR_END,   /* after { */
    NAME,          /* after a comma in an object */
    COLON,
    COMMA_OR_END,
    STRING,
    ESCAPE,
    LITERAL,
    MINUS,         /* numbers, by RFC 8259's grammar */
    ZERO,
    DIGITS,
    POINT,
    FRACTION,
    EXPONENT,
    EXPONENT_SIGN,
    EXPONENT_DIGITS,
};

static enum jcheck bad(struct jcheck_state *s, const char *why)
{
    s->why = why;
    return JCHECK_BAD;
}

/* After a value. */
static enum jcheck value_done(struct jcheck_state *s)
{
    s->expect = COMMA_OR_END;
    return s->depth == 0 ? JCHECK_DONE : JCHECK_MORE;
}

static enum jcheck open_bracket(struct jcheck_state *s, char c)
{
    if (s->depth == DEPTH_MAX)
        return bad(s, "nested too deep");
    if (s->depth == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        char *grown = realloc(s->stack, cap);
        if (!grown) {
            s->oom = true;
            return bad(s, "out of memory");
        }
        s->stack = grown;
        s->cap = cap;
    }
    s->stack[s->depth++] = c;
    s->expect = c == '{' ? NAME_OR_END : VALUE_OR_END;
    return JCHECK_MORE;
}

static enum jcheck close_bracket(struct jcheck_state *s, char c)
{
    if (s->depth == 0 || s->stack[s->depth - 1] != (c == '}' ? '{' : '['))
        return bad(s, "a bracket closes that isn't open");
    s->depth--;
    return value_done(s);
}

static enum jcheck start_string(struct jcheck_state *s, bool key)
{
    s->key = key;
    s->expect = STRING;
    return JCHECK_MORE;
}

static enum jcheck start_value(struct jcheck_state *s, char c)
{
    if (c == '{' || c == '[')
        return open_bracket(s, c);
    if (c == '"')
        return start_string(s, false);
    if (c == 't' || c == 'f' || c == 'n') {
        s->word = c == 't' ? "rue" : c == 'f' ? "alse" : "ull";
        s->expect = LITERAL;
        return JCHECK_MORE;
    }
    if (c != '-' && (c < '0' || c > '9'))
        return bad(s, "a value was expected");
    s->expect = c == '-' ? MINUS : c == '0' ? ZERO : DIGITS;
    return JCHECK_MORE;
}

/* The first byte of a UTF-8 sequence, by table 3-7 of the Unicode standard. */
static enum jcheck start_sequence(struct jcheck_state *s, unsigned char c)
{
    if (c < 0xc2 || c > 0xf4)
        return bad(s, "the text isn't valid UTF-8");
    s->tail = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    s->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    s->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return JCHECK_MORE;
}

static enum jcheck in_string(struct jcheck_state *s, unsigned char c)
{
    if (s->tail > 0) {
        if (c < s->low || c > s->high)
            return bad(s, "the text isn't valid UTF-8");
        s->tail--;
        s->low = 0x80;
        s->high = 0xbf;
    } else if (s->hex > 0) {
        if (!strchr("0123456789abcdefABCDEF", c) || c == 0)
            return bad(s, "\\u must be followed by four hexadecimal digits");
        s->hex--;
    } else if (c == '"') {
        if (!s->key)
            return value_done(s);
        s->expect = COLON;
    } else if (c == '\\') {
        s->expect = ESCAPE;
    } else if (c < 0x20) {
        return bad(s, "control characters in a string must be escaped, a line end as \\n");
    } else if (c >= 0x80) {
        return start_sequence(s, c);
    }
    return JCHECK_MORE;
}

static enum jcheck in_escape(struct jcheck_state *s, unsigned char c)
{
    if (c == 0 || !strchr("\"\\/bfnrtu", c))
        return bad(s, "an unknown escape in a string");
    s->hex = c == 'u' ? 4 : 0;
    s->expect = STRING;
    return JCHECK_MORE;
}

static enum jcheck between(struct jcheck_state *s, char c);

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Numbers end at the first byte that isn't theirs, which is then looked at again. */
static enum jcheck in_number(struct jcheck_state *s, char c)
{
    bool digit = is_digit(c), whole = s->expect == ZERO || s->expect == DIGITS;

    if (s->expect == MINUS && digit)
        s->expect = c == '0' ? ZERO : DIGITS;
    else if ((s->expect == POINT || s->expect == FRACTION) && digit)
        s->expect = FRACTION;
    else if (s->expect == EXPONENT && (c == '+' || c == '-'))
        s->expect = EXPONENT_SIGN;
    else if (s->expect >= EXPONENT && digit)
        s->expect = EXPONENT_DIGITS;
    else if (whole && c == '.')
        s->expect = POINT;
    else if ((whole || s->expect == FRACTION) && (c == 'e' || c == 'E'))
        s->expect = EXPONENT;
    else if (s->expect == DIGITS && digit)
        return JCHECK_MORE;
    else if (s->depth == 0 || !(whole || s->expect == FRACTION || s->expect == EXPONENT_DIGITS))
        return bad(s, "a number that isn't one");
    else
        return value_done(s) == JCHECK_MORE ? between(s, c) : JCHECK_DONE;
    return JCHECK_MORE;
}

static enum jcheck in_literal(struct jcheck_state *s, char c)
{
    if (*s->word != c)
        return bad(s, "a value was expected");
    s->word++;
    return *s->word ? JCHECK_MORE : value_done(s);
}

/* Outside strings, numbers and literals. */
static enum jcheck between(struct jcheck_state *s, char c)
{
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
        return JCHECK_MORE;
    if (s->expect == NAME || s->expect == NAME_OR_END) {
        if (c == '}' && s->expect == NAME_OR_END)
            return close_bracket(s, c);
        return c == '"' ? start_string(s, true) : bad(s, "a name in double quotes was expected");
    }
    if (s->expect == COLON) {
        s->expect = VALUE;
        return c == ':' ? JCHECK_MORE : bad(s, "a colon was expected");
    }
    if (s->expect == COMMA_OR_END) {
        if (c == '}' || c == ']')
            return close_bracket(s, c);
        s->expect = s->stack[s->depth - 1] == '{' ? NAME : VALUE;
        return c == ',' ? JCHECK_MORE : bad(s, "a comma or a closing bracket was expected");
    }
    if (c == ']' && s->expect == VALUE_OR_END)
        return close_bracket(s, c);
    return start_value(s, c);
}

static enum jcheck take(struct jcheck_state *s, char c)
{
    if (s->expect == STRING)
        return in_string(s, (unsigned char)c);
    if (s->expect == ESCAPE)
        return in_escape(s, (unsigned char)c);
    if (s->expect == LITERAL)
        return in_literal(s, c);
    return s->expect >= MINUS ? in_number(s, c) : between(s, c);
}

enum jcheck jcheck_feed(struct jcheck_state *s, const char *bytes, size_t n, size_t *ret_used)
{
    for (size_t i = 0; i < n; i++) {
        enum jcheck r = take(s, bytes[i]);
        s->bytes++;
        if (r != JCHECK_MORE) {
            *ret_used = i + 1;
            return r;
        }
    }
    *ret_used = n;
    return JCHECK_MORE;
}

void jcheck_free(struct jcheck_state *s)
{
    free(s->stack);
    *s = (struct jcheck_state){0};
}
