/* SPDX-License-Identifier: Apache-2.0
 * Error texts end up in logs, terminals and JSON answers, and may quote bytes from outside. So every text is made
 * safe once, here: one line, no control characters, valid UTF-8, cut on a character's boundary. */
#include "common/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Length of the valid, printable UTF-8 sequence at `s`, or 0. The NUL that ends the text is never part of one. */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80)
        return s[0] >= 0x20 && s[0] != 0x7f;
    const size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    const bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    const bool surrogate = s[0] == 0xed && s[1] >= 0xa0;
    const bool beyond = s[0] == 0xf4 && s[1] >= 0x90;
    const bool c1_control = s[0] == 0xc2 && s[1] < 0xa0;
    return overlong || surrogate || beyond || c1_control ? 0 : n;
}

bool xn_text_is_safe(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s) {
        const size_t n = utf8_length(s);
        if (n == 0)
            return false;
        s += n;
    }
    return true;
}

static void make_safe(char *text)
{
    unsigned char *s = (unsigned char *)text;
    while (*s) {
        const size_t n = utf8_length(s);
        if (n == 0)
            *s = '?';
        s += n == 0 ? 1 : n;
    }
}

/* A text that filled its buffer may end inside a character: drop what is left of it. */
static void drop_cut_character(char *text, size_t length)
{
    size_t back = 0;
    while (back < 3 && back < length && ((unsigned char)text[length - 1 - back] & 0xc0) == 0x80)
        back++;
    if (back >= length)
        return;
    unsigned char *lead = (unsigned char *)&text[length - 1 - back];
    if (*lead >= 0xc0 && utf8_length(lead) == 0)
        *lead = '\0';
}

static void finish(char *text, size_t capacity, int wanted)
{
    if (wanted >= 0 && (size_t)wanted >= capacity)
        drop_cut_character(text, capacity - 1);
    make_safe(text);
}

int xn_error_set(struct xn_error *e, int code, const char *format, ...)
{
    if (!e)
        return code;
    va_list args;
    va_start(args, format);
    const int wanted = vsnprintf(e->text, sizeof(e->text), format, args);
    va_end(args);
    finish(e->text, sizeof(e->text), wanted);
    return code;
}

int xn_error_prefix(struct xn_error *e, int code, const char *format, ...)
{
    if (!e)
        return code;
    struct xn_error old = *e;
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(e->text, sizeof(e->text), format, args);
    va_end(args);
    const size_t used = strnlen(e->text, sizeof(e->text));
    if (wanted >= 0)
        wanted += snprintf(e->text + used, sizeof(e->text) - used, ": %s", old.text);
    finish(e->text, sizeof(e->text), wanted);
    return code;
}
