/* SPDX-License-Identifier: Apache-2.0
 * A pairing heap of nodes that lie in what they order: no memory of its own, and a node can leave from anywhere. Equal keys leave in the order in which they came.
 *
 * Threads: the caller serialises. */
#ifndef XN_COMMON_HEAP_H
#define XN_COMMON_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct xn_heap_node {
    uint64_t major, minor, sequence; /**< the key: compared in this order */
    struct xn_heap_node *child;      /**< first of its children */
    struct xn_heap_node *next;       /**< its next sibling */
    struct xn_heap_node *prev;       /**< its previous sibling, or its parent if it is the first; NULL: the root */
    bool queued;                     /**< it is in a heap */
};

/** Zeroed: empty. */
struct xn_heap {
    struct xn_heap_node *root; /**< the least; NULL: empty */
    uint64_t sequence;
};

/** Put `node`, which is in no heap, in. A node that was in a heap before may keep its place among equals (`again`). O(1). */
void xn_heap_insert(struct xn_heap *heap, struct xn_heap_node *node, uint64_t major, uint64_t minor, bool again);

/** Take `node` out; nothing happens if it is in no heap (`queued`). O(log n) amortised. */
void xn_heap_remove(struct xn_heap *heap, struct xn_heap_node *node);

#endif
