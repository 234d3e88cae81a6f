/* SPDX-License-Identifier: Apache-2.0
 * See wire.h. libcurl, which every other request goes through, holds no thousands of connections from one thread without cost to the measurement. */
#include "clients/xnorctl/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gnutls/gnutls.h>

#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

struct xn_trust {
    bool tls;
    bool verify;
    bool named; /* host is a name, and no address: the server may be told which one is meant */
    const char *host;
    gnutls_certificate_credentials_t credentials;
    char why[256];
};

static int load_authorities(struct xn_trust *trust, const struct xn_target *target, struct xn_error *error)
{
    int n = target->cacert
                ? gnutls_certificate_set_x509_trust_file(trust->credentials, target->cacert, GNUTLS_X509_FMT_PEM)
                : gnutls_certificate_set_x509_system_trust(trust->credentials);

    if (n > 0 || !target->cacert) /* without authorities of the system no certificate will do, and that says why */
        return 0;
    return xn_error_set(error, n == GNUTLS_E_FILE_ERROR ? -ENOENT : -EINVAL, "--cacert %s: %s", target->cacert,
                        n < 0 ? gnutls_strerror(n) : "no certificate in it");
}

int xn_trust_new(const struct xn_target *target, struct xn_trust **ret_trust, struct xn_error *error)
{
    struct xn_trust *trust = xn_ctl_alloc(1, sizeof(*trust));
    uint8_t address[sizeof(struct in6_addr)];
    int r = 0;

    trust->tls = target->tls;
    trust->verify = !target->insecure;
    trust->host = target->host;
    if (trust->tls) {
        trust->named = inet_pton(AF_INET, trust->host, address) != 1 && inet_pton(AF_INET6, trust->host, address) != 1;
        if (gnutls_certificate_allocate_credentials(&trust->credentials) < 0)
            r = xn_error_set(error, -ENOMEM, "no memory for TLS");
        else if (trust->verify)
            r = load_authorities(trust, target, error);
    }
    if (r < 0) {
        xn_trust_free(trust);
        return r;
    }
    *ret_trust = trust;
    return 0;
}

void xn_trust_free(struct xn_trust *trust)
{
    if (trust && trust->credentials)
        gnutls_certificate_free_credentials(trust->credentials);
    free(trust);
}

const char *xn_trust_why(const struct xn_trust *trust)
{
    return trust->why;
}

int xn_wire_begin(struct xn_wire *wire, struct xn_trust *trust, int fd)
{
    gnutls_session_t session;

    *wire = (struct xn_wire){.fd = fd};
    if (!trust->tls)
        return 0;
    if (gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0)
        return -ENOMEM;
    wire->session = session;
    if (gnutls_priority_set_direct(session, PRIORITIES, NULL) < 0 ||
        gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, trust->credentials) < 0 ||
        (trust->named && gnutls_server_name_set(session, GNUTLS_NAME_DNS, trust->host, strlen(trust->host)) < 0))
        return -ENOMEM;
    if (trust->verify)
        gnutls_session_set_verify_cert(session, trust->host, 0);
    gnutls_transport_set_int(session, fd);
    return 0;
}

static void explain(struct xn_trust *trust, gnutls_session_t session, int code)
{
    gnutls_datum_t text = {NULL, 0};

    if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR)
        (void)gnutls_certificate_verification_status_print(gnutls_session_get_verify_cert_status(session),
                                                           GNUTLS_CRT_X509, &text, 0);
    snprintf(trust->why, sizeof(trust->why), "%s%s%s", gnutls_strerror(code), text.data ? " " : "",
             text.data ? (const char *)text.data : "");
    gnutls_free(text.data);
}

int xn_wire_shake(struct xn_wire *wire, struct xn_trust *trust)
{
    int code;

    if (!wire->session)
        return 0;
    do
        code = gnutls_handshake(wire->session);
    while (code < 0 && code != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(code));
    if (code == GNUTLS_E_SUCCESS)
        return 0;
    if (code == GNUTLS_E_AGAIN)
        return -EAGAIN;
    explain(trust, wire->session, code);
    return code == GNUTLS_E_PULL_ERROR || code == GNUTLS_E_PUSH_ERROR ? -ECONNRESET : -EPROTO;
}

/* As errno says it; an end without a farewell is an end. */
static ssize_t outcome(ssize_t n)
{
    if (n >= 0)
        return n;
    if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
        return n == GNUTLS_E_AGAIN ? -EAGAIN : -EINTR;
    if (n == GNUTLS_E_PREMATURE_TERMINATION)
        return 0;
    return n == GNUTLS_E_PULL_ERROR || n == GNUTLS_E_PUSH_ERROR ? -ECONNRESET
           : gnutls_error_is_fatal((int)n)                      ? -EPROTO
                                                                : -EINTR;
}

ssize_t xn_wire_send(struct xn_wire *wire, const void *data, size_t bytes)
{
    if (wire->session)
        return outcome(gnutls_record_send(wire->session, data, bytes));
    ssize_t n = send(wire->fd, data, bytes, MSG_NOSIGNAL);
    return n < 0 ? -errno : n;
}

ssize_t xn_wire_recv(struct xn_wire *wire, void *data, size_t bytes)
{
    if (wire->session)
        return outcome(gnutls_record_recv(wire->session, data, bytes));
    ssize_t n = recv(wire->fd, data, bytes, 0);
    return n < 0 ? -errno : n;
}

void xn_wire_close(struct xn_wire *wire)
{
    if (wire->session)
        gnutls_deinit(wire->session);
    if (wire->fd >= 0)
        close(wire->fd);
    *wire = (struct xn_wire){.fd = -1};
}
