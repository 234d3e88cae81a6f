/* SPDX-License-Identifier: Apache-2.0
 * A connection of our own that never blocks: its socket plain, or under TLS by GnuTLS, with the trust that --cacert and --insecure give to every other command. */
#ifndef XN_CLIENTS_XNORCTL_WIRE_H
#define XN_CLIENTS_XNORCTL_WIRE_H

#include <sys/types.h>

#include "clients/xnorctl/http.h"

/** What all connections to a server share. */
struct xn_trust;

/** Errors: -ENOENT, -EINVAL (no certificate in the file that --cacert names). */
XN_MUST_CHECK int xn_trust_new(const struct xn_target *target, struct xn_trust **ret_trust, struct xn_error *error);
void xn_trust_free(struct xn_trust *trust);
/** Why the last handshake failed; "": none did. */
const char *xn_trust_why(const struct xn_trust *trust);

/** One connection; of one thread. */
struct xn_wire {
    int fd;        /**< -1: none */
    void *session; /**< GnuTLS's; NULL: plain */
};

/** `fd`, which is the wire's from now on, has connected. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_wire_begin(struct xn_wire *wire, struct xn_trust *trust, int fd);
/** Go on with the handshake; 0: done, and of a plain one at once. Errors: -EAGAIN (wait for the socket), -ECONNRESET, -EPROTO (see xn_trust_why). */
XN_MUST_CHECK int xn_wire_shake(struct xn_wire *wire, struct xn_trust *trust);
/** As send(2) and recv(2), with a negative errno. After -EAGAIN the same bytes have to be sent. Of TLS less than there is room for may come, and more be there. */
ssize_t xn_wire_send(struct xn_wire *wire, const void *data, size_t bytes);
ssize_t xn_wire_recv(struct xn_wire *wire, void *data, size_t bytes);
void xn_wire_close(struct xn_wire *wire);

#endif
