/* SPDX-License-Identifier: Apache-2.0
 * Memory taken at start-up. Two kinds: xn_pool hands out objects of one size; xn_buf_pool hands out byte buffers
 * of a few size classes. Neither ever waits or grows: an empty pool is a refusal, which the caller turns into an
 * answer. */
#ifndef XN_COMMON_POOL_H
#define XN_COMMON_POOL_H

#include "common/macros.h"

struct xn_pool;

/** `count` objects of `object_bytes` each, 64-byte aligned and zeroed once. Owner: caller frees with xn_pool_free,
 *  after every object came back. Returns 0, -EINVAL (zero or overflowing sizes), -ENOMEM. */
XN_MUST_CHECK int xn_pool_new(size_t object_bytes, size_t count, struct xn_pool **ret_pool);
void xn_pool_free(struct xn_pool *pool);

/** An object, or NULL when all are out. Contents are what the last user left. Threads: any. */
void *xn_pool_take(struct xn_pool *pool);
/** Give an object back. `object` may be NULL. Threads: any. */
void xn_pool_give(struct xn_pool *pool, void *object);
/** Objects now out. Threads: any; a snapshot. */
size_t xn_pool_used(const struct xn_pool *pool);

/** A byte buffer from an xn_buf_pool. Embedded by its user. data == NULL: none. 64-byte aligned. */
struct xn_buf {
    uint8_t *data;
    size_t capacity_bytes;
    uint32_t class_index; /* private to the pool */
};

struct xn_buf_class {
    size_t bytes; /**< capacity of each buffer; ascending over the classes */
    size_t count; /**< how many */
};

struct xn_buf_pool;

#define XN_BUF_CLASSES_MAX 8u

/** Reserve address space for all classes (pages become resident when first touched; buffers of 256 KiB and more
 *  give their pages back on release). Returns 0, -EINVAL (no class, not ascending), -ENOMEM. */
XN_MUST_CHECK int xn_buf_pool_new(const struct xn_buf_class *classes, size_t n_classes, struct xn_buf_pool **ret_pool);
void xn_buf_pool_free(struct xn_buf_pool *pool);

/** The smallest free buffer of at least `bytes`. Returns 0, -EMSGSIZE (larger than the largest class), -ENOBUFS
 *  (all such buffers are out). *ret_buf is untouched on failure. Threads: any. */
XN_MUST_CHECK int xn_buf_take(struct xn_buf_pool *pool, size_t bytes, struct xn_buf *ret_buf);
/** Give `buf` back and clear it. A cleared buf is legal. Threads: any. */
void xn_buf_give(struct xn_buf_pool *pool, struct xn_buf *buf);
/** Bytes of capacity now out. Threads: any; a snapshot. */
size_t xn_buf_pool_used_bytes(const struct xn_buf_pool *pool);

#endif
