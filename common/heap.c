/* SPDX-License-Identifier: Apache-2.0
 * A pairing heap (Fredman, Sedgewick, Sleator, Tarjan: The pairing heap, Algorithmica 1, 1986), children as a doubly linked list, merged in two passes. */
#include "common/heap.h"

#include <assert.h>
#include <stddef.h>

static bool comes_first(const struct xn_heap_node *a, const struct xn_heap_node *b)
{
    if (a->major != b->major)
        return a->major < b->major;
    if (a->minor != b->minor)
        return a->minor < b->minor;
    return a->sequence < b->sequence;
}

/* One tree of two, neither of which has siblings; either may be NULL. */
static struct xn_heap_node *merge(struct xn_heap_node *a, struct xn_heap_node *b)
{
    if (!a || !b)
        return a ? a : b;
    if (comes_first(b, a)) {
        struct xn_heap_node *swap = a;
        a = b;
        b = swap;
    }
    b->prev = a;
    b->next = a->child;
    if (a->child)
        a->child->prev = b;
    a->child = b;
    return a;
}

static struct xn_heap_node *detach(struct xn_heap_node *node)
{
    if (node)
        node->next = node->prev = NULL;
    return node;
}

/* One tree of a list of siblings: pairs from the left, then all from the right. */
static struct xn_heap_node *merge_siblings(struct xn_heap_node *first)
{
    struct xn_heap_node *pairs = NULL, *tree = NULL;

    while (first) {
        struct xn_heap_node *second = first->next, *rest = second ? second->next : NULL;
        struct xn_heap_node *pair = merge(detach(first), detach(second));
        pair->next = pairs;
        pairs = pair;
        first = rest;
    }
    while (pairs) {
        struct xn_heap_node *next = pairs->next;
        tree = merge(tree, detach(pairs));
        pairs = next;
    }
    return tree;
}

void xn_heap_insert(struct xn_heap *heap, struct xn_heap_node *node, uint64_t major, uint64_t minor, bool again)
{
    assert(!node->queued);
    if (!again)
        node->sequence = heap->sequence++;
    node->major = major;
    node->minor = minor;
    node->child = node->next = node->prev = NULL;
    node->queued = true;
    heap->root = merge(heap->root, node);
}

void xn_heap_remove(struct xn_heap *heap, struct xn_heap_node *node)
{
    if (!node->queued)
        return;
    struct xn_heap_node *children = merge_siblings(node->child);
    if (node == heap->root) {
        heap->root = children;
    } else {
        *(node->prev->child == node ? &node->prev->child : &node->prev->next) = node->next;
        if (node->next)
            node->next->prev = node->prev;
        heap->root = merge(heap->root, children);
    }
    node->child = node->next = node->prev = NULL;
    node->queued = false;
}
