/* SPDX-License-Identifier: Apache-2.0
 * The process of a card: one thread polls the listening socket, the connections and a signal descriptor, and handles what they say; one
 * thread a unit runs programs. One lock guards registers, memory's blocks, connections and contexts; under it a packet is sent at most, which
 * does not block: a host that does not read what it is sent is cut off. */
#include "accel/vcard/card.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "accel/vcard/axlf.h"
#include "accel/vcard/unit.h"
#include "common/clock.h"

struct client {
    int socket;          /**< -1: free */
    uint64_t generation; /**< of the xclbin that it has loaded; 0: none */
};

struct card {
    struct xn_vcard_hardware hardware;
    const struct xn_vcard_options *options;
    struct xn_vcard_card_stats *stats;
    struct xn_vcard_unit *units; /**< [options->units] */
    uint32_t n_units;            /**< started */
    struct client clients[XN_VCARD_CLIENTS_MAX];
    struct client *owners[XN_VCARD_UNITS_MAX]; /**< of units; NULL: nobody */
    uint64_t generation;                       /**< of the xclbin that is loaded; 0: none */
    uint32_t loaded_units;
    uint8_t uuid[XN_AXLF_UUID_BYTES];
};

/** Answers to a packet, sent as one. */
struct answers {
    struct xn_vcard_message messages[XN_VCARD_PACKET_MESSAGES];
    size_t n;
};

/* ---- sending ------------------------------------------------------------------------------------------------------- */

static void send_to(const struct client *client, const struct xn_vcard_message *messages, size_t n)
{
    if (client->socket >= 0 && send(client->socket, messages, n * sizeof(*messages), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        shutdown(client->socket, SHUT_RDWR); /* poll finds it closed */
}

static void answer(struct answers *answers, const struct xn_vcard_message *to, int result, uint64_t value)
{
    answers->messages[answers->n++] =
        (struct xn_vcard_message){XN_VCARD_REPLY, to->tag, (uint64_t)(int64_t)result, value};
}

static void on_interrupt_locked(void *context, uint32_t unit)
{
    struct card *card = context;
    const struct xn_vcard_message message = {XN_VCARD_INTERRUPT, 0, unit, 0};

    if (card->owners[unit])
        send_to(card->owners[unit], &message, 1);
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

/** The unit that has this register, if `client` has it open. */
static struct xn_vcard_unit *unit_at(struct card *card, const struct client *client, uint64_t address)
{
    const uint64_t unit = (address - XN_VCARD_UNITS) / XN_VCARD_UNIT_BYTES;

    return address >= XN_VCARD_UNITS && unit < card->n_units && card->owners[unit] == client ? &card->units[unit]
                                                                                             : NULL;
}

static uint32_t offset_of(uint64_t address)
{
    return (uint32_t)((address - XN_VCARD_UNITS) % XN_VCARD_UNIT_BYTES);
}

static int open_unit_locked(struct card *card, struct client *client, uint64_t unit)
{
    if (unit >= card->loaded_units || client->generation != card->generation)
        return -EINVAL;
    if (card->owners[unit] && card->owners[unit] != client)
        return -EBUSY;
    card->owners[unit] = client;
    return 0;
}

static int close_unit_locked(struct card *card, const struct client *client, uint64_t unit)
{
    if (unit >= card->n_units || card->owners[unit] != client)
        return -EINVAL;
    xn_vcard_unit_reset_locked(&card->units[unit]);
    card->owners[unit] = NULL;
    return 0;
}

static void reset_locked(struct card *card)
{
    const struct xn_vcard_message stopped = {XN_VCARD_STOPPED, 0, 0, 0};

    for (uint32_t i = 0; i < card->n_units; i++)
        xn_vcard_unit_reset_locked(&card->units[i]);
    for (size_t i = 0; i < XN_VCARD_CLIENTS_MAX; i++)
        send_to(&card->clients[i], &stopped, 1);
    xn_vcard_count(&card->stats->resets, 1);
}

static bool is_in_use(const struct card *card)
{
    for (uint32_t i = 0; i < card->n_units; i++)
        if (card->owners[i])
            return true;
    return false;
}

static int load_locked(struct card *card, struct client *client, const void *bytes, size_t n)
{
    struct xn_error error;
    uint8_t uuid[XN_AXLF_UUID_BYTES];
    uint32_t units;
    int r = xn_axlf_check(card->options, bytes, n, &units, &error);

    if (r == 0 && xn_vcard_fault_due(&card->hardware.faults, card->options, XN_VCARD_REFUSE))
        r = -EIO;
    if (r == 0) {
        xn_axlf_uuid(bytes, uuid);
        const bool is_same = card->generation && memcmp(uuid, card->uuid, sizeof(uuid)) == 0;
        if (!is_same && is_in_use(card))
            r = -EBUSY;
        card->generation += r == 0 && !is_same;
    }
    xn_vcard_count(r == 0 ? &card->stats->loads : &card->stats->refused_loads, 1);
    if (r < 0)
        return r;
    memcpy(card->uuid, uuid, sizeof(uuid));
    card->loaded_units = units;
    client->generation = card->generation;
    return 0;
}

/** The xclbin is in `file`, which the host may change or cut meanwhile: it is copied. */
static int load(struct card *card, struct client *client, int file, uint64_t n)
{
    void *bytes = n > 0 && n <= XN_VCARD_XCLBIN_MAX ? malloc(n) : NULL;
    size_t done = 0;
    int r = -EINVAL;

    while (bytes && file >= 0 && done < n) {
        const ssize_t got = pread(file, (char *)bytes + done, n - done, (off_t)done);
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    if (bytes && done == n) {
        pthread_mutex_lock(&card->hardware.lock);
        r = load_locked(card, client, bytes, n);
        pthread_mutex_unlock(&card->hardware.lock);
    }
    free(bytes);
    return r;
}

static void handle_locked(struct card *card, struct client *client, const struct xn_vcard_message *m,
                          struct answers *answers)
{
    struct xn_vcard_unit *unit;
    uint64_t value = 0;

    switch (m->op) {
    case XN_VCARD_WRITE:
        unit = unit_at(card, client, m->a);
        if (unit)
            xn_vcard_unit_write_locked(unit, offset_of(m->a), (uint32_t)m->b);
        break;
    case XN_VCARD_READ:
        unit = unit_at(card, client, m->a);
        answer(answers, m, 0, unit ? xn_vcard_unit_read_locked(unit, offset_of(m->a)) : XN_VCARD_NOBODY);
        break;
    case XN_VCARD_ALLOCATE: {
        const uint32_t bank = m->b > UINT32_MAX ? UINT32_MAX : (uint32_t)m->b;
        const int r = xn_vcard_memory_allocate(&card->hardware.memory, bank, m->a, client, &value);
        answer(answers, m, r, value);
        break;
    }
    case XN_VCARD_FREE:
        xn_vcard_memory_free(&card->hardware.memory, m->a, client);
        break;
    case XN_VCARD_OPEN_UNIT:
        answer(answers, m, open_unit_locked(card, client, m->a), 0);
        break;
    case XN_VCARD_CLOSE_UNIT:
        answer(answers, m, close_unit_locked(card, client, m->a), 0);
        break;
    case XN_VCARD_RESET:
        reset_locked(card);
        answer(answers, m, 0, 0);
        break;
    default: /* a host of another version: hello has told it */
        break;
    }
}

/* ---- connections --------------------------------------------------------------------------------------------------- */

static void disconnect(struct card *card, struct client *client)
{
    pthread_mutex_lock(&card->hardware.lock);
    for (uint32_t i = 0; i < card->n_units; i++)
        if (card->owners[i] == client)
            (void)close_unit_locked(card, client, i);
    xn_vcard_memory_free_all(&card->hardware.memory, client);
    close(client->socket);
    client->socket = -1;
    client->generation = 0;
    pthread_mutex_unlock(&card->hardware.lock);
}

/** A packet: its size, 0 at the end of the connection; *ret_file: a file that came with it, or -1. */
static ssize_t receive(int socket, struct xn_vcard_message *messages, size_t n, int *ret_file)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec data = {messages, n * sizeof(*messages)};
    struct msghdr packet = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    const ssize_t got = recvmsg(socket, &packet, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    const struct cmsghdr *c = got > 0 ? CMSG_FIRSTHDR(&packet) : NULL;

    *ret_file = -1;
    if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(ret_file, CMSG_DATA(c), sizeof(*ret_file));
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? -1 : got < 0 ? 0 : got;
}

static void serve_client(struct card *card, struct client *client)
{
    struct xn_vcard_message messages[XN_VCARD_PACKET_MESSAGES];
    struct answers answers = {.n = 0};
    int file;
    const ssize_t got = receive(client->socket, messages, XN_VCARD_PACKET_MESSAGES, &file);

    if (got == 0) {
        disconnect(card, client);
        return;
    }
    if (got >= (ssize_t)sizeof(*messages) && messages[0].op == XN_VCARD_LOAD) {
        answer(&answers, &messages[0], load(card, client, file, messages[0].a), 0);
    } else if (got > 0) {
        pthread_mutex_lock(&card->hardware.lock);
        for (size_t i = 0; i < (size_t)got / sizeof(*messages); i++)
            handle_locked(card, client, &messages[i], &answers);
        pthread_mutex_unlock(&card->hardware.lock);
    }
    if (file >= 0)
        close(file);
    if (answers.n > 0)
        send_to(client, answers.messages, answers.n);
}

static int send_hello(const struct card *card, int socket)
{
    struct xn_vcard_hello hello = {.magic = XN_VCARD_MAGIC,
                                   .units = card->options->units,
                                   .clock_mhz = card->options->clock_mhz,
                                   .banks = card->options->banks,
                                   .memory_bytes = card->hardware.memory.size,
                                   .link_bytes_s = card->options->link_bytes_s};

    return xn_vcard_send_with_file(socket, &hello, sizeof(hello), card->hardware.memory.file);
}

static void accept_client(struct card *card, int listener)
{
    const int socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct client *client = card->clients;

    if (socket < 0)
        return;
    while (client < card->clients + XN_VCARD_CLIENTS_MAX && client->socket >= 0)
        client++;
    if (client == card->clients + XN_VCARD_CLIENTS_MAX || send_hello(card, socket) < 0) {
        close(socket);
        return;
    }
    pthread_mutex_lock(&card->hardware.lock);
    client->socket = socket;
    pthread_mutex_unlock(&card->hardware.lock);
    xn_vcard_count(&card->stats->opens, 1);
}

/* ---- the process --------------------------------------------------------------------------------------------------- */

static int listen_on(const char *path, struct xn_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);

    if (n < 0 || (size_t)n >= sizeof(address.sun_path))
        return xn_error_set(error, -ENAMETOOLONG, "socket %s: the name is too long", path);
    const int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(path);
    if (s >= 0 && bind(s, (struct sockaddr *)&address, sizeof(address)) == 0 && chmod(path, 0600) == 0 &&
        listen(s, XN_VCARD_CLIENTS_MAX) == 0)
        return s;
    const int r = -errno;
    if (s >= 0)
        close(s);
    return xn_error_set(error, r, "socket %s: %s", path, strerror(-r));
}

static void serve_until_signal(struct card *card, int listener, int signals)
{
    struct pollfd polled[2 + XN_VCARD_CLIENTS_MAX] = {{listener, POLLIN, 0}, {signals, POLLIN, 0}};

    while (!(polled[1].revents & POLLIN)) {
        for (size_t i = 0; i < XN_VCARD_CLIENTS_MAX; i++)
            polled[2 + i] = (struct pollfd){card->clients[i].socket, POLLIN, 0};
        if (poll(polled, XN_ARRAY_LEN(polled), -1) < 0)
            continue;
        for (size_t i = 0; i < XN_VCARD_CLIENTS_MAX; i++)
            if (polled[2 + i].revents)
                serve_client(card, &card->clients[i]);
        if (polled[0].revents & POLLIN)
            accept_client(card, listener);
    }
}

static void card_done(struct card *card)
{
    pthread_mutex_lock(&card->hardware.lock);
    card->hardware.quits = true;
    pthread_mutex_unlock(&card->hardware.lock);
    while (card->n_units > 0)
        xn_vcard_unit_done(&card->units[--card->n_units]);
    for (size_t i = 0; i < XN_VCARD_CLIENTS_MAX; i++)
        if (card->clients[i].socket >= 0)
            close(card->clients[i].socket);
    pthread_mutex_lock(&card->hardware.lock);
    if (card->hardware.orphans > 0) /* they still compute, over this process's memory */
        _exit(EXIT_SUCCESS);
    pthread_mutex_unlock(&card->hardware.lock);
    free(card->units);
    xn_vcard_memory_done(&card->hardware.memory);
    pthread_mutex_destroy(&card->hardware.lock);
}

/** Hardware does not wait for a processor of the host: where we may, the thread that is the bus goes first, and those of units that only keep
 *  time, which inherit it. Where we may not, runs last a little longer on a busy machine. */
static void take_precedence(void)
{
    const struct sched_param first = {.sched_priority = 1};

    (void)pthread_setschedparam(pthread_self(), SCHED_RR, &first);
}

/** card_done is for what was made, also on failure after memory. */
static int card_init(struct card *card, uint32_t index, uint64_t life, struct xn_error *error)
{
    const struct xn_vcard_options *o = card->options;
    int r = xn_vcard_memory_init(&card->hardware.memory, o->memory_bytes, o->banks);

    if (r < 0)
        return xn_error_set(error, r, "card %u: no memory for its memory", index);
    card->hardware.options = o;
    card->hardware.on_interrupt_locked = on_interrupt_locked;
    card->hardware.context = card;
    pthread_mutex_init(&card->hardware.lock, NULL);
    xn_vcard_faults_init(&card->hardware.faults, o, index + life * XN_VCARD_CARDS_MAX);
    for (size_t i = 0; i < XN_VCARD_CLIENTS_MAX; i++)
        card->clients[i].socket = -1;
    if (o->is_timed && o->skips_compute)
        take_precedence();
    card->units = calloc(o->units, sizeof(*card->units));
    if (!card->units)
        r = xn_error_set(error, -ENOMEM, "out of memory");
    for (uint32_t i = 0; r == 0 && i < o->units; i++) {
        r = xn_vcard_unit_init(&card->units[i], &card->hardware, i, &card->stats->units[i], error);
        card->n_units += r == 0;
    }
    take_precedence();
    if (r == 0 && index == 0 && life == 1 && strcmp(o->engine, "auto") == 0 &&
        !card->units[0].hand->worker.engine.library)
        fprintf(stderr, "xnor-vcard: no C simulation of this geometry beside the program: units compute by the scalar "
                        "definition, slowly\n");
    if (r < 0)
        card_done(card);
    return r;
}

int xn_vcard_card_serve(const struct xn_vcard_options *options, uint32_t index, uint64_t life, const char *path,
                        struct xn_vcard_card_stats *stats, int ready, struct xn_error *error)
{
    struct card *card = calloc(1, sizeof(*card));
    sigset_t ends;

    if (!card)
        return xn_error_set(error, -ENOMEM, "out of memory");
    card->options = options;
    card->stats = stats;
    signal(SIGINT, SIG_IGN); /* of a terminal: whoever started the card ends it */
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* before there are threads, which inherit it */
    const int signals = signalfd(-1, &ends, SFD_CLOEXEC);
    int r = card_init(card, index, life, error);
    if (r == 0) {
        const int listener = listen_on(path, error);
        r = listener < 0 ? listener : 0;
        if (r == 0) {
            xn_vcard_set(&stats->up_ns, xn_clock_now_ns());
            if (write(ready, "1", 1) == 1)
                serve_until_signal(card, listener, signals);
            close(listener);
            unlink(path);
        }
        card_done(card);
    }
    close(signals);
    free(card);
    return r;
}
