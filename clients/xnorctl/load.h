/* SPDX-License-Identifier: Apache-2.0
 * Many requests over many kept connections from one thread: epoll, sockets of our own, the parser of http_parse.h. What is sent and when is
 * decided by hooks; after xn_load_new nothing is allocated but by TLS. Used by `bench`, which measures, and by `eval`, which reads the answers.
 *
 * A connection:
 *
 *     DOWN --connect--> CONNECTING --> SHAKING (TLS) --> IDLE --send--> BUSY --answer--> IDLE
 *       ^                   |             |               |               |
 *       +-------------------+-------------+---------------+---------------+   closed, failed, timed out, or "Connection: close"
 *
 * A request that was on a connection when it failed is over: `done` is told the reason. A connection that the server closes while it is idle
 * is opened again without a word. */
#ifndef XN_CLIENTS_XNORCTL_LOAD_H
#define XN_CLIENTS_XNORCTL_LOAD_H

#include "clients/xnorctl/http.h"

#define XN_LOAD_CONNECTIONS_MAX 16384u

struct xn_load;

/** One request. `bytes` are the whole of it, head and body; they stay as they are until done. */
struct xn_shot {
    const uint8_t *bytes;
    size_t length;
    uint64_t intended_ns; /**< when it was meant to be sent, CLOCK_MONOTONIC; latency counts from here */
    uint64_t tag;         /**< the hooks' own */
};

enum xn_load_next {
    XN_LOAD_SEND,  /**< *ret_shot is to be sent now */
    XN_LOAD_LATER, /**< not before ret_shot->intended_ns (XN_NEVER_NS: ask after the next answer) */
    XN_LOAD_END,   /**< no more; the run ends when all answers are there */
};

struct xn_load_result {
    const struct xn_shot *shot;
    uint64_t sent_ns, done_ns;
    int status;       /**< HTTP status, or a negative errno: -ETIMEDOUT, -ECONNRESET, -EBADMSG (no HTTP), ... */
    bool retry_after; /**< the answer says when to try again */
    const char *body;
    size_t body_bytes; /**< kept, at most xn_load_config.body_bytes */
    bool body_cut;
};

struct xn_load_hooks {
    void *user;
    /** A connection is free at `now_ns`: what shall it send? */
    enum xn_load_next (*next)(void *user, uint64_t now_ns, struct xn_shot *ret_shot);
    /** A request is over. `result` and what it points to are valid during the call. */
    void (*done)(void *user, const struct xn_load_result *result);
};

struct xn_load_config {
    uint32_t connections; /**< 1..XN_LOAD_CONNECTIONS_MAX */
    uint64_t timeout_ns;  /**< from send to the end of the answer */
    size_t body_bytes;    /**< of an answer that are kept for `done`; 0: none */
    const char *source;   /**< numeric address that connections come from; NULL: the system's choice */
};

/** Connect to `target`, which has to outlive it. Errors: -EADDRNOTAVAIL (no such source), -EHOSTUNREACH (no such host), -ECONNREFUSED, -ETIMEDOUT, -EPROTO (no TLS, or not with a certificate that is trusted), -EMFILE (file descriptors: the text says how many are
 *  allowed), -ENOMEM. */
XN_MUST_CHECK int xn_load_new(const struct xn_target *target, const struct xn_load_config *config,
                              struct xn_load **ret_load, struct xn_error *error);
void xn_load_free(struct xn_load *load);

/** Run until `next` says END and all is answered. May be called again; connections are kept. Errors: -ECONNREFUSED (the server is gone: no
 *  connection for some time), -EIO (epoll). */
XN_MUST_CHECK int xn_load_run(struct xn_load *load, const struct xn_load_hooks *hooks, struct xn_error *error);

/** Connections opened since xn_load_new beyond the first of each. */
uint64_t xn_load_reconnects(const struct xn_load *load);

/** A whole POST: head and `bytes` at `body`. Owner: caller. */
uint8_t *xn_load_post(const struct xn_target *target, const char *path, const char *content_type, const void *body,
                      size_t bytes, size_t *ret_length);

#endif
