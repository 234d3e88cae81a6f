/* SPDX-License-Identifier: Apache-2.0
 * A fixed table of clients, SETS of WAYS slots. A slot is two words:
 *
 *     holder  the client's key and how many of its requests are under way; all changes are compare-and-swap of the whole
 *     due_ns  when its next request would be due if they came evenly (the generic cell rate algorithm); in the past: it has nothing on account
 *
 * A slot whose client has nothing under way and nothing on account says nothing, and is anybody's: nothing needs to be swept, and nothing grows. A client that
 * finds its set full of others who have something on account is let in uncounted: such a crowd is not one client's doing, and the limits of all together
 * (limits.requests, queues, fair shares) hold for it. */
#include "daemon/http/clients.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"

#define SETS       512u
#define WAYS       8u
#define COUNT_BITS 20u /* of holder; above any limits.requests */
#define COUNT_MASK ((UINT64_C(1) << COUNT_BITS) - 1)

struct xn_client_slot {
    _Atomic uint64_t holder, due_ns; /* relaxed: nothing else is handed over with them */
};

struct xn_clients {
    uint32_t requests;    /* 0: no limit */
    uint64_t interval_ns; /* between two requests; 0: no limit */
    struct xn_client_slot slots[SETS][WAYS];
};

int xn_clients_new(uint32_t requests, uint32_t per_second, struct xn_clients **ret_clients)
{
    struct xn_clients *clients = xn_calloc(1, sizeof(*clients));

    if (!clients)
        return -ENOMEM;
    clients->requests = requests;
    clients->interval_ns = per_second ? XN_NS_PER_S / per_second : 0;
    *ret_clients = clients;
    return 0;
}

void xn_clients_free(struct xn_clients *clients)
{
    free(clients);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t xn_client_key(uint64_t seed, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    uint64_t hash = mix(seed ^ bytes);

    for (; bytes > 0;) {
        uint64_t word = 0;
        size_t n = XN_MIN(bytes, sizeof(word));
        memcpy(&word, at, n);
        hash = mix(hash ^ word) + seed;
        at += n;
        bytes -= n;
    }
    return mix(hash);
}

/* Count one more of `client` (a holder word without a count) in `slot`, if it is its own, or may become so. Returns what is counted with it, or 0. */
static uint64_t count_in(struct xn_client_slot *slot, uint64_t client, bool take_over, uint64_t now_ns)
{
    uint64_t old = atomic_load_explicit(&slot->holder, memory_order_relaxed), fresh;

    do {
        bool own = (old & ~COUNT_MASK) == client;
        if (!own && (!take_over || (old & COUNT_MASK) != 0 ||
                     atomic_load_explicit(&slot->due_ns, memory_order_relaxed) > now_ns))
            return 0;
        if (own && (old & COUNT_MASK) == COUNT_MASK)
            return 0;
        fresh = own ? old + 1 : client + 1;
    } while (
        !atomic_compare_exchange_weak_explicit(&slot->holder, &old, fresh, memory_order_relaxed, memory_order_relaxed));
    return fresh & COUNT_MASK;
}

/* The client's slot with one more counted in it, or NULL: its set is full. */
static struct xn_client_slot *find(struct xn_clients *clients, uint64_t key, uint64_t now_ns, uint64_t *ret_count)
{
    struct xn_client_slot *set = clients->slots[key % SETS];
    uint64_t client = key & ~COUNT_MASK; /* the set is told by the bits that are cut off, too */

    for (int take_over = 0; take_over < 2; take_over++) {
        for (uint32_t i = 0; i < WAYS; i++) {
            *ret_count = count_in(&set[i], client, take_over, now_ns);
            if (*ret_count)
                return &set[i];
        }
    }
    return NULL;
}

/* One more request on account. Returns 0, or how long until one would be let in. */
static uint64_t charge(const struct xn_clients *clients, struct xn_client_slot *slot, uint64_t now_ns)
{
    uint64_t old = atomic_load_explicit(&slot->due_ns, memory_order_relaxed), due_ns;

    do {
        due_ns = XN_MAX(old, now_ns) + clients->interval_ns;
        if (due_ns > now_ns + XN_NS_PER_S)
            return due_ns - now_ns - XN_NS_PER_S;
    } while (!atomic_compare_exchange_weak_explicit(&slot->due_ns, &old, due_ns, memory_order_relaxed,
                                                    memory_order_relaxed));
    return 0;
}

int xn_clients_enter(struct xn_clients *clients, uint64_t key, uint64_t now_ns, struct xn_client_slot **ret_slot,
                     uint64_t *ret_retry_ns, struct xn_error *error)
{
    uint64_t count, wait_ns = 0;

    *ret_slot = NULL;
    *ret_retry_ns = 0;
    if (clients->requests == 0 && clients->interval_ns == 0)
        return 0;
    struct xn_client_slot *slot = find(clients, key, now_ns, &count);
    if (!slot)
        return 0;
    bool many = clients->requests && count > clients->requests;
    if (!many && clients->interval_ns)
        wait_ns = charge(clients, slot, now_ns);
    if (!many && wait_ns == 0) {
        *ret_slot = slot;
        return 0;
    }
    xn_clients_leave(slot);
    *ret_retry_ns = wait_ns;
    if (many)
        return xn_error_set(error, -EUSERS,
                            "this client has %u requests under way, as many as it may (limits.client_requests)",
                            clients->requests);
    return xn_error_set(
        error, -EUSERS,
        "this client makes more requests a second than it may (limits.client_requests_per_s); try again "
        "in %" PRIu64 " ms",
        wait_ns / XN_NS_PER_MS + 1);
}

void xn_clients_leave(struct xn_client_slot *slot)
{
    if (slot)
        atomic_fetch_sub_explicit(&slot->holder, 1, memory_order_relaxed);
}
