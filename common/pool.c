/* SPDX-License-Identifier: Apache-2.0
 * Pools of fixed objects over one mapping each. Which objects are free is a stack of indices, kept apart from the
 * objects so that an object's pages stay untouched until it is used.
 *
 * The stack is lock-free: `head` packs the top index with a tag that changes at each operation, so that a
 * compare-exchange by a thread that slept through a take and a give of the same object fails (the ABA problem). An
 * object that is out has next == OUT, which catches a second give. */
#include "common/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fault.h"

#define NIL UINT32_MAX
#define OUT (UINT32_MAX - 1)

/* Buffers from this size on give their pages back when released. */
#define RETURN_PAGES_BYTES (256u << 10)

struct free_list {
    _Alignas(XN_CACHE_LINE) atomic_uint_fast64_t head; /* tag << 32 | index of the top, NIL: empty */
    atomic_size_t used;
    uint32_t count;
    _Atomic uint32_t *next; /* [count]: index below, NIL, or OUT */
};

static int free_list_init(struct free_list *list, size_t count)
{
    if (count == 0 || count >= OUT)
        return -EINVAL;
    list->next = xn_calloc(count, sizeof(*list->next));
    if (!list->next)
        return -ENOMEM;
    list->count = (uint32_t)count;
    for (uint32_t i = 0; i < list->count; i++)
        atomic_init(&list->next[i], i + 1 < list->count ? i + 1 : NIL);
    atomic_init(&list->head, 0);
    atomic_init(&list->used, 0);
    return 0;
}

/* The next head after `head`, with `index` on top. */
static uint64_t with_top(uint64_t head, uint32_t index)
{
    return ((head >> 32) + 1) << 32 | index;
}

/* Index of an object that is now out, or NIL. */
static uint32_t free_list_pop(struct free_list *list)
{
    /* Acquire: pairs with the release in push, so that the last user's writes are seen. */
    uint64_t head = atomic_load_explicit(&list->head, memory_order_acquire);
    for (;;) {
        const uint32_t top = (uint32_t)head;
        if (top == NIL)
            return NIL;
        const uint32_t below = atomic_load_explicit(&list->next[top], memory_order_relaxed);
        if (atomic_compare_exchange_weak_explicit(&list->head, &head, with_top(head, below), memory_order_acquire,
                                                  memory_order_acquire)) {
            atomic_store_explicit(&list->next[top], OUT, memory_order_relaxed);
            atomic_fetch_add_explicit(&list->used, 1, memory_order_relaxed);
            return top;
        }
    }
}

static void free_list_push(struct free_list *list, uint32_t index)
{
    assert(index < list->count);
    assert(atomic_load_explicit(&list->next[index], memory_order_relaxed) == OUT); /* given back twice? */
    atomic_fetch_sub_explicit(&list->used, 1, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&list->head, memory_order_relaxed);
    do {
        atomic_store_explicit(&list->next[index], (uint32_t)head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&list->head, &head, with_top(head, index), memory_order_release,
                                                    memory_order_relaxed));
}

static size_t free_list_used(const struct free_list *list)
{
    return atomic_load_explicit(&list->used, memory_order_relaxed);
}

/* Zeroed address space that becomes resident when touched. NULL: none left. */
static uint8_t *map(size_t bytes)
{
    if (XN_FAULT("alloc"))
        return NULL;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

struct xn_pool {
    struct free_list list;
    uint8_t *objects;
    size_t stride_bytes, map_bytes;
};

int xn_pool_new(size_t object_bytes, size_t count, struct xn_pool **ret_pool)
{
    size_t map_bytes;
    if (object_bytes == 0 || object_bytes > SIZE_MAX / 2)
        return -EINVAL;
    const size_t stride_bytes = xn_align_up(object_bytes, XN_CACHE_LINE);
    if (!xn_mul_size(stride_bytes, count, &map_bytes))
        return -EINVAL;
    struct xn_pool *pool = xn_calloc_aligned(1, sizeof(*pool));
    if (!pool)
        return -ENOMEM;
    int r = free_list_init(&pool->list, count);
    if (r == 0) {
        pool->stride_bytes = stride_bytes;
        pool->map_bytes = map_bytes;
        pool->objects = map(map_bytes);
        r = pool->objects ? 0 : -ENOMEM;
    }
    if (r < 0) {
        xn_pool_free(pool);
        return r;
    }
    *ret_pool = pool;
    return 0;
}

void xn_pool_free(struct xn_pool *pool)
{
    if (!pool)
        return;
    assert(free_list_used(&pool->list) == 0);
    if (pool->objects)
        munmap(pool->objects, pool->map_bytes);
    free(pool->list.next);
    free(pool);
}

void *xn_pool_take(struct xn_pool *pool)
{
    const uint32_t index = free_list_pop(&pool->list);
    return index == NIL ? NULL : pool->objects + index * pool->stride_bytes;
}

void xn_pool_give(struct xn_pool *pool, void *object)
{
    if (!object)
        return;
    const size_t offset = (size_t)((uint8_t *)object - pool->objects);
    assert(offset % pool->stride_bytes == 0);
    free_list_push(&pool->list, (uint32_t)(offset / pool->stride_bytes));
}

size_t xn_pool_used(const struct xn_pool *pool)
{
    return free_list_used(&pool->list);
}

struct buf_class {
    struct free_list list;
    uint8_t *data; /* within the pool's mapping */
    size_t bytes, stride_bytes;
};

struct xn_buf_pool {
    struct buf_class classes[XN_BUF_CLASSES_MAX];
    size_t n_classes;
    uint8_t *memory;
    size_t map_bytes;
};

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Size and place of every class in one mapping. Large buffers own whole pages, so that giving them back hurts no
 * neighbour. */
static int lay_out(struct xn_buf_pool *pool, const struct xn_buf_class *classes)
{
    size_t end = 0, bytes;
    for (size_t i = 0; i < pool->n_classes; i++) {
        struct buf_class *c = &pool->classes[i];
        if (classes[i].bytes == 0 || classes[i].bytes > SIZE_MAX / 2 ||
            (i > 0 && classes[i].bytes <= classes[i - 1].bytes))
            return -EINVAL;
        c->bytes = classes[i].bytes;
        c->stride_bytes = xn_align_up(c->bytes, c->bytes >= RETURN_PAGES_BYTES ? page_bytes() : XN_CACHE_LINE);
        if (!xn_mul_size(c->stride_bytes, classes[i].count, &bytes) || !xn_add_size(end, bytes, &end) ||
            end > SIZE_MAX / 2)
            return -EINVAL;
        end = xn_align_up(end, page_bytes());
        const int r = free_list_init(&c->list, classes[i].count);
        if (r < 0)
            return r;
    }
    pool->map_bytes = end;
    return 0;
}

int xn_buf_pool_new(const struct xn_buf_class *classes, size_t n_classes, struct xn_buf_pool **ret_pool)
{
    if (n_classes == 0 || n_classes > XN_BUF_CLASSES_MAX)
        return -EINVAL;
    struct xn_buf_pool *pool = xn_calloc_aligned(1, sizeof(*pool));
    if (!pool)
        return -ENOMEM;
    pool->n_classes = n_classes;
    int r = lay_out(pool, classes);
    if (r == 0) {
        pool->memory = map(pool->map_bytes);
        r = pool->memory ? 0 : -ENOMEM;
    }
    if (r < 0) {
        xn_buf_pool_free(pool);
        return r;
    }
    uint8_t *data = pool->memory;
    for (size_t i = 0; i < n_classes; i++) {
        struct buf_class *c = &pool->classes[i];
        c->data = data;
        data += xn_align_up(c->stride_bytes * c->list.count, page_bytes());
    }
    *ret_pool = pool;
    return 0;
}

void xn_buf_pool_free(struct xn_buf_pool *pool)
{
    if (!pool)
        return;
    assert(xn_buf_pool_used_bytes(pool) == 0);
    if (pool->memory)
        munmap(pool->memory, pool->map_bytes);
    for (size_t i = 0; i < pool->n_classes; i++)
        free(pool->classes[i].list.next);
    free(pool);
}

int xn_buf_take(struct xn_buf_pool *pool, size_t bytes, struct xn_buf *ret_buf)
{
    if (bytes > pool->classes[pool->n_classes - 1].bytes)
        return -EMSGSIZE;
    for (size_t i = 0; i < pool->n_classes; i++) {
        struct buf_class *c = &pool->classes[i];
        const uint32_t index = bytes > c->bytes ? NIL : free_list_pop(&c->list);
        if (index == NIL)
            continue;
        *ret_buf = (struct xn_buf){
            .data = c->data + index * c->stride_bytes, .capacity_bytes = c->bytes, .class_index = (uint32_t)i};
        return 0;
    }
    return -ENOBUFS;
}

void xn_buf_give(struct xn_buf_pool *pool, struct xn_buf *buf)
{
    if (!buf->data)
        return;
    assert(buf->class_index < pool->n_classes);
    struct buf_class *c = &pool->classes[buf->class_index];
    const size_t offset = (size_t)(buf->data - c->data);
    assert(offset % c->stride_bytes == 0);
    if (c->bytes >= RETURN_PAGES_BYTES)
        madvise(buf->data, c->stride_bytes, MADV_DONTNEED); /* while it is still ours */
    free_list_push(&c->list, (uint32_t)(offset / c->stride_bytes));
    *buf = (struct xn_buf){0};
}

size_t xn_buf_pool_used_bytes(const struct xn_buf_pool *pool)
{
    size_t total = 0;
    for (size_t i = 0; i < pool->n_classes; i++)
        total += free_list_used(&pool->classes[i].list) * pool->classes[i].bytes;
    return total;
}
