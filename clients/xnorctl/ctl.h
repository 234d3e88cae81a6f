/* SPDX-License-Identifier: Apache-2.0
 * xnorctl: what its commands share. Each command is one file with one function of the table in main.c; it parses its own options,
 * prints its result to stdout and what went wrong to stderr. */
#ifndef XN_CLIENTS_XNORCTL_CTL_H
#define XN_CLIENTS_XNORCTL_CTL_H

#include "common/error.h"
#include "common/macros.h"

/** Exit statuses, the same for all commands. */
enum {
    XN_CTL_OK = 0,
    XN_CTL_FAILED = 1, /**< what was asked for did not succeed; stderr says what and why */
    XN_CTL_USAGE = 2,  /**< unknown command or option, or a value out of its range */
};

#define XN_CTL_URL "http://127.0.0.1:8000"

/** --geometry of the engine where none is given, and its help. */
#define XN_CTL_GEOMETRY "4T"
#define XN_CTL_GEOMETRY_HELP                                                                                           \
    "of the engine: 1T, 2T, " XN_CTL_GEOMETRY " (default), or as text, like\nP8,PI8,PR4,AM12288,RM4096,WB1024"
#define XN_CTL_TURN_HELP "images that share the weights of the last layers, at most (64)"

/** What is said before or after the command's name. */
struct xn_ctl {
    const char *command;    /**< its name, for messages */
    const char *url;        /**< of the server: --url, else $XNORD_URL, else XN_CTL_URL; or "unix:PATH" */
    const char *cacert;     /**< --cacert: PEM file of the authorities to trust; NULL: the system's */
    const char *token_file; /**< --token-file; NULL: $XNORD_TOKEN, else no token is sent */
    bool insecure;          /**< --insecure: any certificate will do */
    bool json;              /**< --json: one JSON value on stdout instead of text */
};

/** Commands: argv[0] is the command's name. Return an exit status. */
int xn_ctl_infer(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_models(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_load(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_unload(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_stats(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_log(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_status(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_inspect(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_estimate(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_run(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_eval(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_bench(struct xn_ctl *ctl, int argc, char **argv);
int xn_ctl_token(struct xn_ctl *ctl, int argc, char **argv);

/** Print "xnorctl COMMAND: TEXT" to stderr. Returns XN_CTL_FAILED. */
int xn_ctl_fail(const struct xn_ctl *ctl, const struct xn_error *error);
/** As xn_ctl_fail with a text of its own. Returns XN_CTL_FAILED. */
int xn_ctl_failf(const struct xn_ctl *ctl, const char *format, ...) XN_PRINTF(2, 3);

/** Zeroed memory. A client that gets none ends here, with XN_CTL_FAILED and a message. Free with free(). */
void *xn_ctl_alloc(size_t count, size_t bytes) __attribute__((malloc, returns_nonnull));
/** `old` (from xn_ctl_alloc, or NULL) with room for `count` x `bytes`; the new part is not zeroed. Ends the program as xn_ctl_alloc. */
void *xn_ctl_grow(void *old, size_t count, size_t bytes) __attribute__((returns_nonnull));

#endif
