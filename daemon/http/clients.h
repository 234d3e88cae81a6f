/* SPDX-License-Identifier: Apache-2.0
 * What one client may have under way, and how many requests a second it may make. */
#ifndef XN_DAEMON_HTTP_CLIENTS_H
#define XN_DAEMON_HTTP_CLIENTS_H

#include "common/error.h"

struct xn_clients;
struct xn_client_slot; /**< where a client is counted, while one of its requests is */

/** At most `requests` of a client under way and `per_second` begun in a second, a second's worth at once; 0: no limit. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_clients_new(uint32_t requests, uint32_t per_second, struct xn_clients **ret_clients);
void xn_clients_free(struct xn_clients *clients);

/** A request of the client `key` begins at `now_ns` (CLOCK_MONOTONIC). On success *ret_slot is for xn_clients_leave. Errors: -EUSERS (a limit;
 *  *ret_retry_ns is when a request might be let in again, 0 where that depends on those under way). Threads: any; lock-free. */
XN_MUST_CHECK int xn_clients_enter(struct xn_clients *clients, uint64_t key, uint64_t now_ns,
                                   struct xn_client_slot **ret_slot, uint64_t *ret_retry_ns, struct xn_error *error);
/** It is over. NULL is legal. Threads: any. */
void xn_clients_leave(struct xn_client_slot *slot);

/** A number for `bytes` at `data` that cannot be aimed at without knowing `seed`. */
uint64_t xn_client_key(uint64_t seed, const void *data, size_t bytes);

#endif
