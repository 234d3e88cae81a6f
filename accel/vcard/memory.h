/* SPDX-License-Identifier: Apache-2.0
 * Card memory: a memory file that host processes map, one address range of several banks, and who has allocated what of it.
 * Threads: looking, any; allocating, under the card's lock. */
#ifndef XN_ACCEL_VCARD_MEMORY_H
#define XN_ACCEL_VCARD_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "accel/vcard/protocol.h"
#include "common/macros.h"

struct xn_vcard_block;

struct xn_vcard_memory {
    int file;
    uint8_t *bytes;
    uint64_t size; /**< all banks */
    uint64_t bank_bytes;
    uint32_t banks;
    struct xn_vcard_block *blocks; /**< allocated, by address */
};

/** Errors: -ENOMEM. */
XN_MUST_CHECK int xn_vcard_memory_init(struct xn_vcard_memory *memory, uint64_t bytes, uint32_t banks);
void xn_vcard_memory_done(struct xn_vcard_memory *memory);

/** Bytes from `address` to the end of memory; 0 outside of it. */
uint64_t xn_vcard_memory_left(const struct xn_vcard_memory *memory, uint64_t address);
/** `bytes` at `address`, or NULL where they do not lie in memory. */
void *xn_vcard_memory_at(const struct xn_vcard_memory *memory, uint64_t address, uint64_t bytes);

/** First fit. Errors: -EINVAL (bank, 0 bytes), -ENOMEM. */
XN_MUST_CHECK int xn_vcard_memory_allocate(struct xn_vcard_memory *memory, uint32_t bank, uint64_t bytes,
                                           const void *owner, uint64_t *ret_address);
/** Free what `owner` has at `address`; nothing where it has none. The pages go back to the machine. */
void xn_vcard_memory_free(struct xn_vcard_memory *memory, uint64_t address, const void *owner);
void xn_vcard_memory_free_all(struct xn_vcard_memory *memory, const void *owner);

#endif
