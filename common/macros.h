/* SPDX-License-Identifier: Apache-2.0
 * Compiler attributes and small arithmetic helpers that every module may use. */
#ifndef XN_COMMON_MACROS_H
#define XN_COMMON_MACROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XN_MUST_CHECK   __attribute__((warn_unused_result))
#define XN_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define XN_UNUSED       __attribute__((unused))
#define XN_NORETURN     __attribute__((noreturn))
#define XN_CLEANUP(fn)  __attribute__((cleanup(fn)))
#define XN_ALIGNED(n)   __attribute__((aligned(n)))
#define XN_LIKELY(x)    __builtin_expect(!!(x), 1)
#define XN_UNLIKELY(x)  __builtin_expect(!!(x), 0)

#define XN_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define XN_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define XN_MAX(a, b)    ((a) > (b) ? (a) : (b))

/** The struct of type `type` whose member `member` is at `ptr`. */
#define XN_CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/** Cache-line size that shared counters and arenas are aligned to, in bytes. */
#define XN_CACHE_LINE 64u

/** Round x up to a multiple of `to` (a power of two). */
static inline size_t xn_align_up(size_t x, size_t to)
{
    return (x + to - 1) & ~(to - 1);
}

/** ceil(a / b) for b > 0. */
static inline size_t xn_div_up(size_t a, size_t b)
{
    return a / b + (a % b != 0);
}

/** *ret = a * b. Returns false, leaving *ret untouched, when the product does not fit. */
XN_MUST_CHECK static inline bool xn_mul_size(size_t a, size_t b, size_t *ret)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *ret = product;
    return true;
}

/** *ret = a + b. Returns false, leaving *ret untouched, when the sum does not fit. */
XN_MUST_CHECK static inline bool xn_add_size(size_t a, size_t b, size_t *ret)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *ret = sum;
    return true;
}

#endif
