/* SPDX-License-Identifier: Apache-2.0
 * Writes the Prometheus text format. Values are printed with as few digits as read back to the same double, so that
 * a counter of 3 is "3" and not "3.0000000000000000". */
#include "daemon/observe/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY ((size_t)16 << 10)
#define NUMBER_BYTES   40u

static bool reserve(struct xn_metrics_text *text, size_t bytes)
{
    size_t wanted = text->length + bytes, capacity = XN_MAX(text->capacity, FIRST_CAPACITY);

    if (text->failed || wanted <= text->capacity)
        return !text->failed;
    while (capacity < wanted)
        capacity *= 2;
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

static void append(struct xn_metrics_text *text, const char *format, ...) XN_PRINTF(2, 3);

static void append(struct xn_metrics_text *text, const char *format, ...)
{
    for (size_t room = 512;; room *= 2) {
        if (!reserve(text, room))
            return;
        va_list arguments;
        va_start(arguments, format);
        int n = vsnprintf(text->data + text->length, room, format, arguments);
        va_end(arguments);
        if (n < 0)
            return;
        if ((size_t)n < room) {
            text->length += (size_t)n;
            return;
        }
    }
}

static const char *format_number(double value, char ret[NUMBER_BYTES])
{
    if (isnan(value))
        return "NaN";
    if (isinf(value))
        return value > 0 ? "+Inf" : "-Inf";
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(ret, NUMBER_BYTES, "%.*g", digits, value);
        if (strtod(ret, NULL) == value)
            break;
    }
    return ret;
}

void xn_metrics_family(struct xn_metrics_text *text, const char *name, const char *type, const char *help)
{
    append(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void xn_metrics_sample(struct xn_metrics_text *text, const char *name, const char *labels, double value)
{
    char number[NUMBER_BYTES];

    if (labels[0] == '\0')
        append(text, "%s %s\n", name, format_number(value, number));
    else
        append(text, "%s{%s} %s\n", name, labels, format_number(value, number));
}

char *xn_metrics_escape(const char *value, char *ret, size_t capacity)
{
    size_t length = 0;

    for (; *value; value++) {
        bool escaped = *value == '\\' || *value == '"' || *value == '\n';
        if (length + 1 + escaped >= capacity)
            break;
        if (escaped)
            ret[length++] = '\\';
        ret[length++] = *value == '\n' ? 'n' : *value;
    }
    if (capacity > 0)
        ret[length] = '\0';
    return ret;
}

void xn_metrics_text_histogram(struct xn_metrics_text *text, const char *name, const char *labels,
                               const uint64_t *bounds, const uint64_t *counts, size_t n, uint64_t sum, double unit)
{
    const char *comma = labels[0] == '\0' ? "" : ",", *open = labels[0] == '\0' ? "" : "{";
    const char *close = labels[0] == '\0' ? "" : "}";
    char number[NUMBER_BYTES];
    uint64_t count = 0;

    for (size_t i = 0; i < n; i++) {
        count += counts[i];
        append(text, "%s_bucket{%s%sle=\"%s\"} %llu\n", name, labels, comma,
               format_number((double)bounds[i] * unit, number), (unsigned long long)count);
    }
    count += counts[n];
    append(text, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, comma, (unsigned long long)count);
    append(text, "%s_sum%s%s%s %s\n", name, open, labels, close, format_number((double)sum * unit, number));
    append(text, "%s_count%s%s%s %llu\n", name, open, labels, close, (unsigned long long)count);
}
