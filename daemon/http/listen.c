/* SPDX-License-Identifier: Apache-2.0
 * Listening sockets: our own, or those that the service manager hands over (sd_listen_fds(3)), which outlive us: connections that come between the end of one
 * server and the start of the next wait in their queue, and none is refused.
 *
 * A listener takes the socket that has its name, or where it has none the one that is bound to its address. A socket that is handed over and that no
 * listener takes is an error: whoever connects to it would wait for ever. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "daemon/http/internal.h"

#define BACKLOG 4096 /* the kernel's own limit is net.core.somaxconn */

/* ---- addresses ---------------------------------------------------------------------------------------------------- */

static int parse_unix(const struct xn_config_listener *listener, struct sockaddr_storage *ret, socklen_t *ret_bytes,
                      struct xn_error *error)
{
    struct sockaddr_un *address = (struct sockaddr_un *)(void *)ret;
    size_t bytes = strlen(listener->unix_path);

    if (bytes >= sizeof(address->sun_path))
        return xn_error_set(error, -ENAMETOOLONG, "listen: unix socket %s: a path may have %zu bytes",
                            listener->unix_path, sizeof(address->sun_path) - 1);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, listener->unix_path, bytes + 1);
    *ret_bytes = (socklen_t)sizeof(*address);
    return 0;
}

static int parse_address(const struct xn_config_listener *listener, struct sockaddr_storage *ret, socklen_t *ret_bytes,
                         struct xn_error *error)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)ret;

    memset(ret, 0, sizeof(*ret));
    if (listener->unix_path)
        return parse_unix(listener, ret, ret_bytes, error);
    if (inet_pton(AF_INET, listener->address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(listener->port);
        *ret_bytes = sizeof(*v4);
    } else if (inet_pton(AF_INET6, listener->address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(listener->port);
        *ret_bytes = sizeof(*v6);
    } else {
        return xn_error_set(error, -EINVAL, "listen: \"%s\" is not an IPv4 or IPv6 address", listener->address);
    }
    return 0;
}

const char *xn_listen_describe(const struct xn_config_listener *listener, char *ret, size_t capacity)
{
    if (listener->unix_path)
        snprintf(ret, capacity, "unix socket %s", listener->unix_path);
    else
        snprintf(ret, capacity, "%s port %u", listener->address, listener->port);
    return ret;
}

/* ---- our own ------------------------------------------------------------------------------------------------------ */

/* A socket that nobody listens on any more is in the way: away with it. Anything else there stays, and bind fails. */
static void remove_stale(const struct sockaddr *address, socklen_t bytes, const char *path)
{
    struct stat status;

    if (lstat(path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (connect(fd, address, bytes) < 0 && errno == ECONNREFUSED)
        (void)unlink(path);
    close(fd);
}

/* The file has its permissions before anybody can connect: the kernel makes it with those of the socket, less the umask. */
static int bind_unix(int fd, const struct xn_config_listener *listener, const struct sockaddr *address, socklen_t bytes)
{
    static const mode_t modes[] = {0600, 0660, 0666};
    mode_t mode = modes[listener->mode];

    remove_stale(address, bytes, listener->unix_path);
    if (fchmod(fd, mode) < 0 || bind(fd, address, bytes) < 0)
        return -errno;
    return chmod(listener->unix_path, mode) < 0 ? -errno : 0;
}

static int bind_tcp(int fd, const struct sockaddr *address, socklen_t bytes)
{
    int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (address->sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
        bind(fd, address, bytes) < 0)
        return -errno;
    return 0;
}

/* Our own socket, so that an address in use is told by name and errno. */
static int open_own(const struct xn_config_listener *listener, struct xn_error *error)
{
    struct sockaddr_storage address;
    const struct sockaddr *plain = (const struct sockaddr *)&address;
    socklen_t bytes = 0;
    char where[160];

    int r = parse_address(listener, &address, &bytes, error);
    if (r < 0)
        return r;
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return xn_error_set(error, -errno, "socket: %s", strerror(errno));
    r = listener->unix_path ? bind_unix(fd, listener, plain, bytes) : bind_tcp(fd, plain, bytes);
    if (r >= 0 && listen(fd, BACKLOG) < 0)
        r = -errno;
    if (r >= 0)
        return fd;
    close(fd);
    return xn_error_set(error, r, "cannot listen on %s: %s", xn_listen_describe(listener, where, sizeof(where)),
                        strerror(-r));
}

/* ---- handed over -------------------------------------------------------------------------------------------------- */

static bool is_bound_to(int fd, const struct xn_config_listener *listener)
{
    struct sockaddr_storage address;
    socklen_t bytes = 0;

    if (listener->unix_path)
        return sd_is_socket_unix(fd, SOCK_STREAM, 1, listener->unix_path, 0) > 0;
    return parse_address(listener, &address, &bytes, NULL) >= 0 &&
           sd_is_socket_sockaddr(fd, SOCK_STREAM, (const struct sockaddr *)&address, (unsigned)bytes, 1) > 0;
}

static bool is_for(int fd, const char *name, const struct xn_config_listener *listener)
{
    if (listener->name)
        return strcmp(name, listener->name) == 0;
    return is_bound_to(fd, listener);
}

/* Give the socket to the listener that it is for. */
static int give(struct xn_listening *all, const struct xn_config *config, int fd, const char *name,
                struct xn_error *error)
{
    if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0)
        return xn_error_set(error, -EINVAL, "the socket \"%s\" that was handed over is not a listening stream socket",
                            name);
    for (uint32_t i = 0; i < config->n_listeners; i++) {
        struct xn_listening *one = &all[i];
        if (one->fd >= 0 || !is_for(fd, name, &config->listeners[i]))
            continue;
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
            return xn_error_set(error, -errno, "the socket \"%s\" that was handed over: %s", name, strerror(errno));
        *one = (struct xn_listening){.fd = fd, .inherited = true};
        return 0;
    }
    return xn_error_set(error, -EINVAL,
                        "the socket \"%s\" was handed over, but no listener has its name or address (listen[].name)",
                        name);
}

static int take_inherited(struct xn_listening *all, const struct xn_config *config, struct xn_error *error)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(0, &names), r = 0;

    if (n < 0)
        return xn_error_set(error, n, "LISTEN_FDS: %s", strerror(-n));
    for (int i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + i;
        int given = r < 0 ? r : give(all, config, fd, names[i], error);
        if (given < 0)
            close(fd);
        r = given;
    }
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return r;
}

/* ---- all ---------------------------------------------------------------------------------------------------------- */

int xn_listen_open(const struct xn_config *config, struct xn_listening *ret, struct xn_error *error)
{
    for (uint32_t i = 0; i < config->n_listeners; i++)
        ret[i] = (struct xn_listening){.fd = -1};
    int r = take_inherited(ret, config, error);
    for (uint32_t i = 0; r >= 0 && i < config->n_listeners; i++) {
        if (ret[i].fd < 0)
            r = ret[i].fd = open_own(&config->listeners[i], error);
    }
    return r < 0 ? r : 0;
}

/* Our own stop listening at once; then the path is another server's, if there is one. One that was handed over goes on, for whoever comes next. */
void xn_listen_end(struct xn_listening *one, const struct xn_config_listener *listener)
{
    if (one->fd < 0 || one->inherited || one->ended)
        return;
    one->ended = true;
    if (listener->unix_path)
        (void)unlink(listener->unix_path);
    (void)shutdown(one->fd, SHUT_RDWR);
}

void xn_listen_close(struct xn_listening *one, const struct xn_config_listener *listener)
{
    xn_listen_end(one, listener);
    if (one->fd >= 0)
        close(one->fd);
    one->fd = -1;
}
