/* SPDX-License-Identifier: Apache-2.0
 * Lingering close. Closing a socket while bytes of the client are unread, or still coming, sends a reset, and a reset may overtake the answer:
 * the client that was refused before its body was read would see "connection reset" and never the reason. So where the server ends a
 * connection first, its descriptor is duplicated before libmicrohttpd closes its own; the sweeper's thread reads and drops what comes until the
 * client has closed, or for LINGER_NS at most. A fixed ring holds them, oldest first; when it is full the oldest has had its time. */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "daemon/http/internal.h"

#define LINGER_NS   (2 * XN_NS_PER_S)
#define READS_MAX   64 /* chunks of one client's bytes dropped in one go; its next edge goes on */
#define CHUNK_BYTES 16384u

void xn_linger_init(struct xn_linger *linger, int epoll_fd)
{
    linger->epoll_fd = epoll_fd;
    linger->first = linger->n = 0;
}

static void end_locked(struct xn_linger_entry *entry)
{
    if (entry->fd >= 0)
        close(entry->fd); /* leaves the epoll set by itself: it was the last descriptor */
    entry->fd = -1;
}

static void drop_first_locked(struct xn_linger *linger)
{
    end_locked(&linger->entries[linger->first]);
    linger->first = (linger->first + 1) % XN_LINGER_MAX;
    linger->n--;
}

void xn_linger_add_locked(struct xn_linger *linger, int fd, bool whole_time)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (own < 0)
        return; /* no descriptor to spare: the plain close it is */
    if (linger->n == XN_LINGER_MAX)
        drop_first_locked(linger);
    uint32_t i = (linger->first + linger->n) % XN_LINGER_MAX;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.u64 = i};
    if (epoll_ctl(linger->epoll_fd, EPOLL_CTL_ADD, own, &event) < 0) {
        close(own);
        return;
    }
    linger->entries[i] =
        (struct xn_linger_entry){.fd = own, .until_ns = xn_clock_now_ns() + LINGER_NS, .whole_time = whole_time};
    linger->n++;
}

void xn_linger_event_locked(struct xn_linger *linger, uint32_t i)
{
    struct xn_linger_entry *entry = &linger->entries[i];
    uint8_t chunk[CHUNK_BYTES];
    ssize_t bytes = 1;

    if (entry->fd < 0)
        return;
    for (int k = 0; bytes > 0 && k < READS_MAX; k++)
        bytes = recv(entry->fd, chunk, sizeof(chunk), MSG_DONTWAIT);
    bool over = bytes == 0 || (bytes < 0 && errno != EAGAIN && errno != EINTR);
    if (over && !entry->whole_time)
        end_locked(entry);
}

void xn_linger_expire_locked(struct xn_linger *linger, uint64_t now_ns)
{
    while (linger->n > 0 &&
           (linger->entries[linger->first].fd < 0 || linger->entries[linger->first].until_ns <= now_ns))
        drop_first_locked(linger);
}
