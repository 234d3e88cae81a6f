/* SPDX-License-Identifier: Apache-2.0
 * Numbers and tables for people. */
#include "clients/xnorctl/format.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "clients/xnorctl/ctl.h"

/* Three significant digits of value / unit. */
static struct xn_words three_digits(double value, const char *unit)
{
    struct xn_words w;
    int decimals = fabs(value) >= 99.95 ? 0 : fabs(value) >= 9.995 ? 1 : 2;

    snprintf(w.text, sizeof(w.text), "%.*f%s%s", decimals, value, *unit ? " " : "", unit);
    return w;
}

struct scale {
    double from, by;
    const char *unit;
};

/* The last scale whose `from` is not above the value. */
static struct xn_words scaled(double value, const struct scale *scales, size_t n)
{
    size_t i = n - 1;

    while (i > 0 && fabs(value) < scales[i].from)
        i--;
    return three_digits(value / scales[i].by, scales[i].unit);
}

struct xn_words xn_words_ns(double ns)
{
    static const struct scale scales[] = {{0, 1, "ns"}, {999.5, 1e3, "us"}, {999.5e3, 1e6, "ms"}, {999.5e6, 1e9, "s"}};

    return scaled(ns, scales, XN_ARRAY_LEN(scales));
}

struct xn_words xn_words_bytes(uint64_t bytes)
{
    static const struct scale scales[] = {
        {1000, 0x1p10, "KiB"}, {1000 * 0x1p10, 0x1p20, "MiB"}, {1000 * 0x1p20, 0x1p30, "GiB"}};
    struct xn_words w;

    if (bytes >= 1000)
        return scaled((double)bytes, scales, XN_ARRAY_LEN(scales));
    snprintf(w.text, sizeof(w.text), "%" PRIu64 " B", bytes);
    return w;
}

struct xn_words xn_words_count(double count)
{
    static const struct scale scales[] = {{9999.5, 1e3, "k"}, {999.5e3, 1e6, "M"}, {999.5e6, 1e9, "G"}};
    struct xn_words w;

    if (fabs(count) >= scales[0].from)
        return scaled(count, scales, XN_ARRAY_LEN(scales));
    snprintf(w.text, sizeof(w.text), "%.0f", count);
    return w;
}

struct xn_words xn_words_joules(double joules)
{
    static const struct scale scales[] = {
        {0, 1e-9, "nJ"}, {999.5e-9, 1e-6, "uJ"}, {999.5e-6, 1e-3, "mJ"}, {999.5e-3, 1, "J"}, {999.5, 1e3, "kJ"}};

    return scaled(joules, scales, XN_ARRAY_LEN(scales));
}

struct xn_words xn_words_span(uint64_t seconds)
{
    uint64_t days = seconds / 86400, hours = seconds / 3600 % 24, minutes = seconds / 60 % 60, rest = seconds % 60;
    struct xn_words w;

    if (days)
        snprintf(w.text, sizeof(w.text), "%" PRIu64 " d %02" PRIu64 ":%02" PRIu64, days, hours, minutes);
    else if (hours)
        snprintf(w.text, sizeof(w.text), "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, hours, minutes, rest);
    else
        snprintf(w.text, sizeof(w.text), "%" PRIu64 ":%02" PRIu64, minutes, rest);
    return w;
}

size_t xn_text_columns(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static char safe(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f ? '?' : c;
}

void xn_put_safe(FILE *to, const char *text)
{
    for (; *text; text++)
        fputc(safe(*text), to);
}

/* ---- tables ------------------------------------------------------------------------------------------------------- */

#define COLUMNS_MAX 64u

struct xn_table {
    char alignment[COLUMNS_MAX];
    size_t columns, cells, capacity;
    char **text; /* [cells] row by row */
    size_t width[COLUMNS_MAX];
};

struct xn_table *xn_table_new(const char *alignment)
{
    struct xn_table *table = xn_ctl_alloc(1, sizeof(*table));

    table->columns = XN_MIN(strlen(alignment), COLUMNS_MAX);
    memcpy(table->alignment, alignment, table->columns);
    return table;
}

void xn_table_cell(struct xn_table *table, const char *format, ...)
{
    va_list arguments;
    char text[512];

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    size_t length = strlen(text), column = table->cells % table->columns;
    if (table->cells == table->capacity) {
        table->capacity = table->capacity ? 2 * table->capacity : 64;
        table->text = xn_ctl_grow(table->text, table->capacity, sizeof(*table->text));
    }
    char *copy = xn_ctl_alloc(length + 1, 1);
    for (size_t i = 0; i < length; i++)
        copy[i] = safe(text[i]);
    table->text[table->cells++] = copy;
    table->width[column] = XN_MAX(table->width[column], xn_text_columns(copy));
}

static void print_cell(const struct xn_table *table, size_t cell, bool last, FILE *to)
{
    const char *text = table->text[cell];
    size_t column = cell % table->columns, blanks = table->width[column] - xn_text_columns(text);
    bool right = table->alignment[column] == 'r';

    fprintf(to, "%*s%s", right ? (int)blanks : 0, "", text);
    if (!last)
        fprintf(to, "%*s", (int)(right ? 0 : blanks) + 2, "");
}

/* Cells of the row that begins at `first`, but for empty ones at its end. */
static size_t row_cells(const struct xn_table *table, size_t first)
{
    size_t n = XN_MIN(table->columns, table->cells - first);

    while (n > 0 && table->text[first + n - 1][0] == '\0')
        n--;
    return n;
}

void xn_table_end(struct xn_table *table, FILE *to, int indent)
{
    for (size_t first = 0; first < table->cells; first += table->columns) {
        size_t n = row_cells(table, first);
        fprintf(to, "%*s", indent, "");
        for (size_t i = 0; i < n; i++)
            print_cell(table, first + i, i + 1 == n, to);
        fputc('\n', to);
    }
    for (size_t i = 0; i < table->cells; i++)
        free(table->text[i]);
    free(table->text);
    free(table);
}
