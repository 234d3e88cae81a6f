/* SPDX-License-Identifier: Apache-2.0
 * Options of a command as a table, from which parsing, range checks and the text of --help come. */
#ifndef XN_CLIENTS_XNORCTL_OPTIONS_H
#define XN_CLIENTS_XNORCTL_OPTIONS_H

#include "clients/xnorctl/ctl.h"

enum xn_opt_kind {
    XN_OPT_FLAG,   /**< bool *to := true */
    XN_OPT_TEXT,   /**< const char **to */
    XN_OPT_U64,    /**< uint64_t *to, a whole number from low to high */
    XN_OPT_DOUBLE, /**< double *to, a finite number from low to high */
};

#define XN_OPTIONS_MAX 24u

struct xn_opt {
    const char *name; /**< without its dashes */
    char letter;      /**< 0: none */
    enum xn_opt_kind kind;
    void *to;
    double low, high;    /**< numbers only; whole numbers up to 2^53 */
    const char *metavar; /**< NULL for a flag */
    const char *help;    /**< may have lines; they are indented */
};

/** What --help says round the table. */
struct xn_opt_about {
    const char *usage;   /**< operands, after "xnorctl COMMAND [OPTION]..."; "" for none */
    const char *summary; /**< a line or a paragraph */
    const char *after;   /**< examples, exit status; may be NULL */
    bool offline;        /**< no --url */
};

/** Parse argv over `opts` and what every command takes (--url, --json, --help). Returns the number of operands and their first
 *  in *ret_operands. Does not return on --help (exit 0) nor where an option is wrong (message, exit XN_CTL_USAGE). */
int xn_opt_parse(struct xn_ctl *ctl, const struct xn_opt_about *about, const struct xn_opt *opts, size_t n, int argc,
                 char **argv, char ***ret_operands);

/** Print "xnorctl COMMAND: TEXT; see xnorctl COMMAND --help" and exit with XN_CTL_USAGE. */
XN_NORETURN void xn_opt_usage(const struct xn_ctl *ctl, const char *format, ...) XN_PRINTF(2, 3);

/** *ret := `text`, a finite decimal number from `low` to `high`, no sign, nothing after it. Returns false, leaving *ret untouched, where it is none. */
XN_MUST_CHECK bool xn_opt_double(const char *text, double low, double high, double *ret);

#endif
