/* SPDX-License-Identifier: Apache-2.0
 * Requests to the server, one at a time over a connection that is kept: libcurl. Load comes from load.h instead. */
#ifndef XN_CLIENTS_XNORCTL_HTTP_H
#define XN_CLIENTS_XNORCTL_HTTP_H

#include <jansson.h>

#include "clients/xnorctl/ctl.h"
#include "common/error.h"
#include "common/macros.h"

#define XN_REPLY_BYTES_MAX (64u << 20) /**< a longer answer is an error */

struct xn_client;

struct xn_reply {
    long status;
    char *body; /**< NUL-terminated. Owner: caller, xn_reply_done */
    size_t bytes;
};

/** A client of the server that `ctl` names (http, https, or a unix socket; an optional path before the routes), which has to outlive it, with its token
 *  and trust. `timeout_ms` is of a whole request. Errors: -EINVAL (not a URL, not a token), -ENOMEM, those of reading the token's file. */
XN_MUST_CHECK int xn_client_new(const struct xn_ctl *ctl, uint64_t timeout_ms, struct xn_client **ret_client,
                                struct xn_error *error);
void xn_client_free(struct xn_client *client);

/** GET `path` ("/metrics"). Any status is a success. Errors: -ECONNREFUSED, -EHOSTUNREACH, -ETIMEDOUT, -EFBIG, -EIO; the text names the
 *  URL, the reason and what to try. */
XN_MUST_CHECK int xn_client_get(struct xn_client *client, const char *path, struct xn_reply *ret_reply,
                                struct xn_error *error);
/** POST `bytes` at `body`. */
XN_MUST_CHECK int xn_client_post(struct xn_client *client, const char *path, const char *content_type, const void *body,
                                 size_t bytes, struct xn_reply *ret_reply, struct xn_error *error);
void xn_reply_done(struct xn_reply *reply);

/** GET that must answer 200 with JSON, or with text. Owner: caller (json_decref, free). Errors: as xn_client_get, -EBADMSG (not
 *  JSON), -EPROTO (another status). */
XN_MUST_CHECK int xn_client_get_json(struct xn_client *client, const char *path, json_t **ret_value,
                                     struct xn_error *error);
XN_MUST_CHECK int xn_client_get_text(struct xn_client *client, const char *path, char **ret_text,
                                     struct xn_error *error);

/** What an error answer says: its "error", else the start of its text, else the status alone. `ret` of XN_ERROR_TEXT_BYTES. */
void xn_reply_reason(long status, const char *body, size_t bytes, char ret[static XN_ERROR_TEXT_BYTES]);

/** "/infer?model=M&top_k=K&timeout_ms=T" with what is given: `model` may be NULL, numbers 0. Owner: caller. */
char *xn_infer_path(const char *model, uint64_t top_k, uint64_t timeout_ms);

/** The entry of /v1/status' "models" that is called `name`, or the default one where `name` is NULL. Borrowed from `status`. Errors:
 *  -ENOENT (the text lists those there are), -EBADMSG. */
XN_MUST_CHECK int xn_status_model(json_t *status, const char *name, json_t **ret_model, struct xn_error *error);

/** Host, port and path prefix of an http or https URL, or the path of a unix socket, for sockets of our own (wire.h), with what xn_client_new takes from
 *  `ctl`, which has to outlive it. Errors: -EINVAL (not a URL, not a token), those of reading the token's file. */
struct xn_target {
    char *host, *port, *prefix;
    char *unix_path; /**< NULL: host and port count */
    char *authority; /**< for the Host header */
    char *token;     /**< NULL: none */
    bool tls, insecure;
    const char *cacert; /**< NULL: the system's; `ctl`'s */
};
XN_MUST_CHECK int xn_target_parse(const struct xn_ctl *ctl, struct xn_target *ret_target, struct xn_error *error);
void xn_target_done(struct xn_target *target);

/** All of a file, "-" being standard input, or of at most `max` bytes. Owner: caller. Errors: negative errno, -EFBIG. */
XN_MUST_CHECK int xn_file_read(const char *path, size_t max, uint8_t **ret_data, size_t *ret_bytes,
                               struct xn_error *error);

/** True for what the server takes as a picture: the first bytes of a JPEG or a PNG. */
bool xn_is_picture(const uint8_t *data, size_t bytes);

/** Pieces that are sent as one multipart/form-data body. */
struct xn_piece {
    const uint8_t *data;
    size_t bytes;
};
#define XN_MULTIPART_BOUNDARY     "xnorctl-6f8d2c41b7e94a53"
#define XN_MULTIPART_CONTENT_TYPE "multipart/form-data; boundary=" XN_MULTIPART_BOUNDARY
/** The body of `n` pieces. Owner: caller. */
uint8_t *xn_multipart_body(const struct xn_piece *pieces, size_t n, size_t *ret_bytes);

#endif
