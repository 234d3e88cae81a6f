/* SPDX-License-Identifier: Apache-2.0
 * Placement by lifetime: the largest slots first, each at the lowest offset where it meets no slot that lives at the same time.
 * For a chain of layers that gives the two alternating maps one would write by hand, and it handles any other shape of network. */
#include "accel/cpu/plan.h"
#include "common/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int by_bytes(const void *a, const void *b)
{
    const struct xn_cpu_slot *x = *(struct xn_cpu_slot *const *)a, *y = *(struct xn_cpu_slot *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x < y ? -1 : 1; /* the same plan on every machine */
}

static bool overlap_in_time(const struct xn_cpu_slot *a, const struct xn_cpu_slot *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/** Place `slot` among placed[0..n-1], which are sorted by offset, and insert it. */
static bool place(struct xn_cpu_slot *slot, struct xn_cpu_slot **placed, uint32_t n)
{
    size_t offset = 0, end;
    uint32_t at = 0;

    for (uint32_t i = 0; i < n; i++) {
        const struct xn_cpu_slot *other = placed[i];
        if (!overlap_in_time(slot, other))
            continue;
        if (other->offset >= offset && other->offset - offset >= slot->bytes)
            break;
        offset = XN_MAX(offset, xn_align_up(other->offset + other->bytes, XN_CACHE_LINE));
    }
    if (!xn_add_size(offset, slot->bytes, &end) || end > SIZE_MAX / 2)
        return false;
    slot->offset = offset;
    while (at < n && placed[at]->offset <= offset)
        at++;
    memmove(placed + at + 1, placed + at, (n - at) * sizeof(struct xn_cpu_slot *));
    placed[at] = slot;
    return true;
}

int xn_cpu_arena_place(struct xn_cpu_slot *slots, uint32_t n, size_t *ret_bytes)
{
    struct xn_cpu_slot **order = xn_calloc(n, sizeof(struct xn_cpu_slot *));
    struct xn_cpu_slot **placed = xn_calloc(n, sizeof(struct xn_cpu_slot *));
    size_t bytes = 0;
    int r = order && placed ? 0 : -ENOMEM;

    if (r == 0) {
        for (uint32_t i = 0; i < n; i++)
            order[i] = &slots[i];
        qsort(order, n, sizeof(struct xn_cpu_slot *), by_bytes);
    }
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        if (!place(order[i], placed, i))
            r = -ENOMEM;
        else
            bytes = XN_MAX(bytes, order[i]->offset + order[i]->bytes);
    }
    free(order);
    free(placed);
    if (r == 0)
        *ret_bytes = xn_align_up(bytes, XN_CACHE_LINE);
    return r;
}
