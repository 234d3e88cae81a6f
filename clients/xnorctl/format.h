/* SPDX-License-Identifier: Apache-2.0
 * Numbers and tables for people. */
#ifndef XN_CLIENTS_XNORCTL_FORMAT_H
#define XN_CLIENTS_XNORCTL_FORMAT_H

#include <stdio.h>

#include "common/macros.h"

/** A short text, returned by value so that several fit in one call. */
struct xn_words {
    char text[32];
};

struct xn_words xn_words_ns(double ns);          /**< "812 ns", "9.53 us", "1.20 ms", "3.00 s" */
struct xn_words xn_words_bytes(uint64_t bytes);  /**< "784 B", "97.3 KiB" */
struct xn_words xn_words_count(double count);    /**< "613 M", "12.3 k" */
struct xn_words xn_words_joules(double joules);  /**< "42.0 uJ", "1.30 mJ" */
struct xn_words xn_words_span(uint64_t seconds); /**< "0:07", "1:02:03", "3 d 04:05" */

/** A table whose columns are as wide as they need to be. The first row is its heading. */
struct xn_table;

/** `alignment` has one letter a column: 'l' or 'r'. */
struct xn_table *xn_table_new(const char *alignment);
/** The next cell, left to right, top to bottom. Control characters become '?'. */
void xn_table_cell(struct xn_table *table, const char *format, ...) XN_PRINTF(2, 3);
/** Print and free. Every row starts with `indent` blanks. */
void xn_table_end(struct xn_table *table, FILE *to, int indent);

/** Columns that UTF-8 `text` takes: one a code point. */
size_t xn_text_columns(const char *text);
/** Write `text` with control characters as '?', for what comes from a server or a file. */
void xn_put_safe(FILE *to, const char *text);

#endif
