/* SPDX-License-Identifier: Apache-2.0
 * Who asks, and whether that is enough: the token, then the client's own limits. Who is asked for no token is told by where it connects from; so is who may
 * share memory, which only means something to programs on this machine. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "daemon/http/internal.h"

uint64_t xn_http_peer(const struct xn_http *http, int fd, const struct sockaddr *address)
{
    struct ucred user = {.uid = (uid_t)-1};
    socklen_t bytes = sizeof(user);

    if (address && address->sa_family == AF_INET)
        return xn_client_key(http->seed, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    if (address && address->sa_family == AF_INET6)
        return xn_client_key(http->seed, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 8);
    (void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &bytes);
    return xn_client_key(http->seed ^ AF_UNIX, &user.uid, sizeof(user.uid));
}

bool xn_http_is_local(const struct sockaddr *peer, const struct sockaddr *own)
{
    if (peer && peer->sa_family == AF_INET) {
        const struct in_addr *a = &((const struct sockaddr_in *)(const void *)peer)->sin_addr;
        const struct in_addr *b = &((const struct sockaddr_in *)(const void *)own)->sin_addr;
        return ntohl(a->s_addr) >> 24 == IN_LOOPBACKNET || (own->sa_family == AF_INET && a->s_addr == b->s_addr);
    }
    if (peer && peer->sa_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr;
        const struct in6_addr *b = &((const struct sockaddr_in6 *)(const void *)own)->sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == IN_LOOPBACKNET) ||
               (own->sa_family == AF_INET6 && IN6_ARE_ADDR_EQUAL(a, b));
    }
    return true;
}

int xn_http_may_share(const struct xn_config *config, const struct xn_link *link, struct xn_error *error)
{
    if (config->shared_memory != XN_SHARED_LOCAL || (link && link->local))
        return 0;
    return xn_error_set(
        error, -EPERM,
        "shared memory is for clients on this machine, which connect by loopback or a unix socket; send "
        "the tensors in the request, or set shared_memory to \"on\"");
}

int xn_http_allowed(struct xn_http *http, struct MHD_Connection *connection, const struct xn_link *link, unsigned roles,
                    struct xn_who *ret_who, unsigned *ret_retry_after_s, struct xn_error *error)
{
    uint64_t retry_ns = 0;

    ret_who->slot = NULL;
    *ret_retry_after_s = 0;
    int r = xn_tokens_check(http->tokens,
                            MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION),
                            roles, ret_who->token, error);
    if (r < 0)
        return r;
    ret_who->key = ret_who->token[0] ? xn_client_key(http->seed ^ 1, ret_who->token, strlen(ret_who->token))
                   : link            ? link->peer
                                     : 0;
    if (roles == XN_ROLE_ANYONE)
        return 0;
    r = xn_clients_enter(http->clients, ret_who->key, xn_clock_now_ns(), &ret_who->slot, &retry_ns, error);
    *ret_retry_after_s = (unsigned)((retry_ns + XN_NS_PER_S - 1) / XN_NS_PER_S);
    return r;
}

void xn_http_left(struct xn_who *who)
{
    xn_clients_leave(who->slot);
    who->slot = NULL;
}
