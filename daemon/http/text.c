/* SPDX-License-Identifier: Apache-2.0
 * See text.h. Numbers of the hot path are written by hand: snprintf would cost more than the rest of an answer. */
#include "daemon/http/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void xn_text_init(struct xn_text *text, void *data, size_t capacity)
{
    *text = (struct xn_text){.data = data, .capacity = capacity};
}

void xn_text_raw(struct xn_text *text, const char *bytes, size_t n)
{
    if (text->overflow || n > text->capacity - text->bytes) {
        text->overflow = true;
        return;
    }
    memcpy(text->data + text->bytes, bytes, n);
    text->bytes += n;
}

void xn_text_put(struct xn_text *text, const char *s)
{
    xn_text_raw(text, s, strlen(s));
}

static void put_escaped(struct xn_text *text, unsigned char c)
{
    char hex[8];

    switch (c) {
    case '"':
        xn_text_raw(text, "\\\"", 2);
        break;
    case '\\':
        xn_text_raw(text, "\\\\", 2);
        break;
    case '\n':
        xn_text_raw(text, "\\n", 2);
        break;
    default:
        xn_text_raw(text, hex, (size_t)snprintf(hex, sizeof(hex), "\\u%04x", (unsigned)c));
    }
}

void xn_text_escaped(struct xn_text *text, const char *s)
{
    const char *plain = s;

    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        xn_text_raw(text, plain, (size_t)(s - plain));
        put_escaped(text, c);
        plain = s + 1;
    }
    xn_text_raw(text, plain, (size_t)(s - plain));
}

void xn_text_string(struct xn_text *text, const char *s)
{
    xn_text_raw(text, "\"", 1);
    xn_text_escaped(text, s);
    xn_text_raw(text, "\"", 1);
}

void xn_text_u64(struct xn_text *text, uint64_t value)
{
    char digits[20];
    size_t n = sizeof(digits);

    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    xn_text_raw(text, digits + n, sizeof(digits) - n);
}

void xn_text_i64(struct xn_text *text, int64_t value)
{
    if (value < 0)
        xn_text_raw(text, "-", 1);
    xn_text_u64(text, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void xn_text_double(struct xn_text *text, double value, int digits)
{
    char number[32];

    if (!isfinite(value)) {
        xn_text_raw(text, "null", 4);
        return;
    }
    xn_text_raw(text, number, (size_t)snprintf(number, sizeof(number), "%.*g", digits, value));
}
