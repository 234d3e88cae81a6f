/* SPDX-License-Identifier: Apache-2.0
 * The HTTP server: libmicrohttpd, driven by epoll threads of its own (loop.c); connections are suspended while their request is elsewhere. Routes are a table in routes.c; errors become statuses in status.c alone.
 * docs/http-api.md is the contract. */
#ifndef XN_DAEMON_HTTP_HTTP_H
#define XN_DAEMON_HTTP_HTTP_H

#include "daemon/config.h"
#include "daemon/models.h"
#include "daemon/observe/metrics.h"
#include "daemon/repository.h"
#include "daemon/request.h"

struct xn_http;

/** What the server needs of the rest, wired by app.c. All functions: any thread, must not block. */
struct xn_http_next {
    void *user;
    struct xn_models *models;
    struct xn_repository *repository;
    struct xn_requests *requests;
    struct xn_regions *regions;
    struct xn_metrics *metrics;
    const struct xn_instances *instances;
    /** May `n` items for request->model be admitted now, with the request's deadline, client and priority? Also counts them as announced where it answers 0. Errors: -ESHUTDOWN (draining); those of
     *  xn_sched_admit, with *ret_retry_ns. Called at the first header, before the body. */
    int (*admit)(void *user, const struct xn_request *request, uint32_t n, uint64_t *ret_retry_ns);
    /** Take back n announced items that will not come (bad body, client gone). */
    void (*retract)(void *user, const struct xn_model *model, uint32_t n);
    /** Start all items of requests[n]; each is settled later, even on failure. The connections are already suspended. */
    void (*submit)(void *user, struct xn_request *const *requests, uint32_t n);
    bool (*ready)(void *user);
    /** JSON object with the state of instances and queues for GET /v1/status (used by xnorctl status); malloc'ed. */
    char *(*status_json)(void *user);
};

XN_MUST_CHECK int xn_http_new(const struct xn_config *config, const struct xn_http_next *next,
                              struct xn_http **ret_http, struct xn_error *error);

/** What is read from files beside the configuration, and may change while the server runs: tokens, certificates and keys. */
struct xn_http_secrets;
/** Read the certificates and keys of the listeners of `config`, which is the server's, and the file `tokens` (NULL: none). Errors: of the file that is at fault, which the text names; -ENOMEM. Threads: main. */
XN_MUST_CHECK int xn_http_secrets_read(const struct xn_config *config, const char *tokens,
                                       struct xn_http_secrets **ret_secrets, struct xn_error *error);
/** Put *secrets in force for every request from now on, and free them. Threads: main. */
void xn_http_secrets_take(struct xn_http *http, struct xn_http_secrets *secrets);
void xn_http_secrets_free(struct xn_http_secrets *secrets);

/** Port of listener `i` as bound (for port 0). */
uint16_t xn_http_port(const struct xn_http *http, uint32_t i);
/** Stop accepting connections. Those that are open go on: the next answer on each carries Connection: close, and those that stay idle are closed
 *  after a moment. Sockets that were handed over go on listening for the next server. */
void xn_http_quiesce(struct xn_http *http);
/** Connections that are open. Threads: any; a snapshot. */
size_t xn_http_open(const struct xn_http *http);
/** Requests with a body begun and not yet over: their answer has not been sent. Threads: any; a snapshot. */
size_t xn_http_active(const struct xn_http *http);
/** Stop; every request must have been answered (app drains first). */
void xn_http_free(struct xn_http *http);

#endif
