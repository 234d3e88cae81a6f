/* SPDX-License-Identifier: Apache-2.0
 * Bearer tokens: who may do what. The file (docs/http-api.md) holds a line for each token, with the SHA-256 of it and not the token:
 *
 *     NAME ROLE[,ROLE...] HEX      # a comment
 *
 * A token has 256 bits of chance in it (`xnorctl token` makes them), so that a plain hash is as good as a slow one. */
#ifndef XN_DAEMON_HTTP_TOKENS_H
#define XN_DAEMON_HTTP_TOKENS_H

#include <stdatomic.h>

#include "common/error.h"
#include "daemon/observe/metrics.h"

#define XN_TOKENS_MAX       64u
#define XN_TOKEN_NAME_BYTES 64u  /**< with NUL */
#define XN_TOKEN_BYTES_MAX  512u /**< of a token as it is sent */
#define XN_TOKEN_HASH_BYTES 32u

/** What a token allows, as bits; a route names those of which one is enough. XN_ROLE_ADMIN is enough for everything. */
enum xn_role {
    XN_ROLE_ANYONE = 0, /**< of a route: no token is asked for */
    XN_ROLE_INFER = 1,
    XN_ROLE_READ = 2,  /**< metrics, status */
    XN_ROLE_ADMIN = 4, /**< models come and go, settings change */
    XN_ROLE_ANY = XN_ROLE_INFER | XN_ROLE_READ | XN_ROLE_ADMIN,
};

struct xn_token {
    char name[XN_TOKEN_NAME_BYTES];
    uint8_t hash[XN_TOKEN_HASH_BYTES];
    unsigned roles;
};

/** A file's tokens. */
struct xn_token_list {
    bool required; /**< false: there is no file, and nobody is asked for a token */
    uint32_t n;
    struct xn_token tokens[XN_TOKENS_MAX];
};

/** Read `bytes` at `text` (need not end in NUL); `name` stands for the file in messages, which name the line and never what stands on it. On
 *  failure *ret_list is undefined. Errors: -EINVAL (a line, a name or a hash that comes twice), -E2BIG (too many). */
XN_MUST_CHECK int xn_tokens_parse(const char *name, const char *text, size_t bytes, struct xn_token_list *ret_list,
                                  struct xn_error *error);
/** The same from a file that others may not read and the group may not write; `path` NULL: *ret_list asks for none. Errors: also of
 *  xn_secret_read. */
XN_MUST_CHECK int xn_tokens_read(const char *path, struct xn_token_list *ret_list, struct xn_error *error);

/** The index of the entry that `bytes` at `token` hash to, or -1. How long it takes tells nothing of the hashes. */
int xn_tokens_find(const struct xn_token_list *list, const char *token, size_t bytes);

/** The token in an Authorization header ("Bearer TOKEN", RFC 6750), *ret_bytes long. NULL: there is none in it. */
const char *xn_tokens_bearer(const char *header, size_t *ret_bytes);

/** A file that holds a secret, malloc'ed, with a NUL behind it. `what` begins every message. Errors: -EPERM (others may read it, or the group may
 *  write it), -EFBIG, -ENOMEM, negative errno. */
XN_MUST_CHECK int xn_secret_read(const char *what, const char *path, size_t max_bytes, char **ret_text,
                                 size_t *ret_bytes, struct xn_error *error);

/* ---- the list that is in force ---- */

struct xn_tokens; /**< readers never wait for the one who puts a new list in force, and take no lock */

XN_MUST_CHECK int xn_tokens_new(struct xn_tokens **ret_tokens);
void xn_tokens_free(struct xn_tokens *tokens);
/** Put a copy of *list in force. Counts of tokens whose name stays go on. Threads: main. */
void xn_tokens_apply(struct xn_tokens *tokens, const struct xn_token_list *list);
/** May who sends `header` (an Authorization header; NULL: none) use what `roles` allow? Returns 0, and the token's name in ret_name ("": none was
 *  asked for). Errors: -EACCES (no token, or an unknown one), -EPERM (another role). Threads: any; lock-free. */
XN_MUST_CHECK int xn_tokens_check(struct xn_tokens *tokens, const char *header, unsigned roles,
                                  char ret_name[static XN_TOKEN_NAME_BYTES], struct xn_error *error);
/** xnord_token_requests_total; a metrics source. */
void xn_tokens_render(void *tokens, struct xn_metrics_text *text);

#endif
