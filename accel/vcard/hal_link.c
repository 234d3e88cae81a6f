/* SPDX-License-Identifier: Apache-2.0
 * The connection to a card. One reader thread an open device takes what the card sends and hands it to whoever waits: answers to
 * the thread that asked, interrupts and registers of units to hal_exec.c. When the connection ends, which is how a card dies, it
 * marks the device dead, lets every asker fail and completes every command as aborted; from then on calls fail with EIO or ENODEV. */
#include "accel/vcard/hal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HELLO_TIMEOUT_MS 5000

int xn_hal_send(struct xn_hal_device *device, const struct xn_vcard_message *messages, size_t n)
{
    ssize_t sent;

    do
        sent = send(device->socket, messages, n * sizeof(*messages), MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -EIO : 0;
}

int xn_hal_ask(struct xn_hal_device *device, enum xn_vcard_op op, uint64_t a, uint64_t b, int file, uint64_t *ret_value)
{
    struct xn_hal_request request = {.result = -EIO};

    pthread_mutex_lock(&device->lock);
    do
        request.tag = device->next_tag++ & ~XN_HAL_UNIT_TAGS;
    while (request.tag == XN_HAL_NO_TAG);
    struct xn_vcard_message message = {op, request.tag, a, b};
    int r = device->is_dead ? -EIO
            : file >= 0     ? xn_vcard_send_with_file(device->socket, &message, sizeof(message), file)
                            : xn_hal_send(device, &message, 1);
    if (r == 0) {
        request.next = device->requests;
        device->requests = &request;
        while (!request.is_done)
            pthread_cond_wait(&device->answered, &device->lock);
        r = request.result;
        if (ret_value)
            *ret_value = request.value;
    }
    pthread_mutex_unlock(&device->lock);
    return r;
}

/* ---- the reader ---------------------------------------------------------------------------------------------------- */

static void on_answer_locked(struct xn_hal_device *device, const struct xn_vcard_message *message)
{
    for (struct xn_hal_request **at = &device->requests; *at; at = &(*at)->next) {
        struct xn_hal_request *request = *at;
        if (request->tag == message->tag) {
            *at = request->next;
            request->result = (int)message->a;
            request->value = message->b;
            request->is_done = true;
            pthread_cond_broadcast(&device->answered);
            return;
        }
    }
}

static void on_message_locked(struct xn_hal_device *device, const struct xn_vcard_message *message)
{
    if (message->op == XN_VCARD_REPLY && message->tag >= XN_HAL_UNIT_TAGS)
        xn_hal_on_register_locked(device, message->tag, (uint32_t)message->b);
    else if (message->op == XN_VCARD_REPLY)
        on_answer_locked(device, message);
    else if (message->op == XN_VCARD_INTERRUPT)
        xn_hal_on_interrupt_locked(device, message->a);
    else if (message->op == XN_VCARD_STOPPED)
        xn_hal_on_stopped_locked(device);
}

static void die_locked(struct xn_hal_device *device)
{
    device->is_dead = true;
    xn_hal_abort_all_locked(device);
    for (struct xn_hal_request *request = device->requests; request; request = request->next) {
        request->result = -EIO;
        request->is_done = true;
    }
    device->requests = NULL;
    pthread_cond_broadcast(&device->answered);
    pthread_cond_broadcast(&device->completed);
}

static void *read_messages(void *argument)
{
    struct xn_hal_device *device = argument;
    struct xn_vcard_message packet[XN_VCARD_PACKET_MESSAGES];
    ssize_t got;

    while ((got = recv(device->socket, packet, sizeof(packet), 0)) > 0 || (got < 0 && errno == EINTR)) {
        pthread_mutex_lock(&device->lock);
        for (size_t i = 0; got > 0 && i < (size_t)got / sizeof(*packet); i++)
            on_message_locked(device, &packet[i]);
        pthread_mutex_unlock(&device->lock);
    }
    pthread_mutex_lock(&device->lock);
    die_locked(device);
    pthread_mutex_unlock(&device->lock);
    return NULL;
}

/* ---- opening ------------------------------------------------------------------------------------------------------- */

/** The card's first packet and the file that came with it, or -1. */
static int receive_hello(int socket, struct xn_vcard_hello *ret_hello)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec data = {ret_hello, sizeof(*ret_hello)};
    struct msghdr packet = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    struct pollfd ready = {socket, POLLIN, 0};
    int file = -1;

    if (poll(&ready, 1, HELLO_TIMEOUT_MS) <= 0)
        return -1;
    const ssize_t got = recvmsg(socket, &packet, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c = got < 0 ? NULL : CMSG_FIRSTHDR(&packet);
    if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&file, CMSG_DATA(c), sizeof(file));
    if (file >= 0 && (got != sizeof(*ret_hello) || ret_hello->magic != XN_VCARD_MAGIC)) {
        close(file);
        return -1;
    }
    return file;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    const int s =
        n < 0 || (size_t)n >= sizeof(address.sun_path) ? -1 : socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (s >= 0 && connect(s, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(s);
        return -1;
    }
    return s;
}

static int map_memory(struct xn_hal_device *device, int file)
{
    device->memory =
        mmap(NULL, device->hello.memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    close(file);
    if (device->memory != MAP_FAILED)
        return 0;
    device->memory = NULL;
    return -ENOMEM;
}

/** The reader is what a kernel's interrupt thread is, and those go before programs. Where we may not, it waits its turn. */
static void take_precedence(pthread_t reader)
{
    const struct sched_param first = {.sched_priority = 1};

    (void)pthread_setschedparam(reader, SCHED_RR, &first);
}

int xn_hal_link_open(struct xn_hal_device *device, const char *path)
{
    char name[16];
    int r = -ENODEV;

    device->socket = connect_to(path);
    if (device->socket < 0)
        return r;
    const int file = receive_hello(device->socket, &device->hello);
    if (file >= 0)
        r = map_memory(device, file);
    if (r == 0)
        r = -pthread_create(&device->reader, NULL, read_messages, device);
    if (r < 0) {
        if (device->memory)
            munmap(device->memory, device->hello.memory_bytes);
        close(device->socket);
        return r;
    }
    snprintf(name, sizeof(name), "xn-vcard-%u", device->index);
    pthread_setname_np(device->reader, name);
    take_precedence(device->reader);
    return 0;
}

void xn_hal_link_close(struct xn_hal_device *device)
{
    shutdown(device->socket, SHUT_RDWR);
    pthread_join(device->reader, NULL);
    close(device->socket);
    munmap(device->memory, device->hello.memory_bytes);
}
