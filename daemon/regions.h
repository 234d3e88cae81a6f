/* SPDX-License-Identifier: Apache-2.0
 * Shared memory that clients have registered by name (the system shared memory extension of the Open Inference Protocol): inputs are read and
 * outputs written where the client has them, without a copy.
 *
 *     FREE -register-> NAMED -unregister-> UNNAMED (requests still use it) -last reference-> unmapped, FREE
 *
 * The memory stays its client's, which may write, truncate or remove it at any time. What is read there may change under the reader: only tensors
 * are used in place, all of whose values are valid. A page that is gone (the object was cut short, or /dev/shm is full) reads as zeros instead of ending the
 * process: a SIGBUS inside a region puts fresh pages in the region's place and marks it lost. */
#ifndef XN_DAEMON_REGIONS_H
#define XN_DAEMON_REGIONS_H

#include <stdatomic.h>

#include "common/error.h"
#include "common/macros.h"

#define XN_REGIONS_MAX       1024u
#define XN_REGION_NAME_BYTES 128u /**< with NUL */
#define XN_REGION_KEY_BYTES  256u /**< with NUL */

struct xn_regions;

/** One region. All members but the private ones stay as they are while a reference is held. */
struct xn_region {
    char name[XN_REGION_NAME_BYTES];
    char key[XN_REGION_KEY_BYTES]; /**< of shm_open */
    uint64_t offset;               /**< in the object, bytes */
    size_t bytes;
    uint8_t *data; /**< its first byte, any alignment */
    bool writable; /**< false: the daemon may only read the object */
    struct {
        struct xn_regions *all;
        atomic_uint refs; /**< 0: free; the name holds one */
        bool named;       /**< guarded by regions_lock */
        uint8_t *map;
        size_t map_bytes;
        struct guard *guard;
    } own; /**< private to regions.c */
};

/** A table of up to `count` regions (0: none may be registered), `bytes` in all. Also installs the process's SIGBUS handler. Threads: main. Errors:
 *  -ENOMEM. */
XN_MUST_CHECK int xn_regions_new(uint32_t count, uint64_t bytes, struct xn_regions **ret_regions);
/** Every reference must have been given back. NULL is legal. */
void xn_regions_free(struct xn_regions *regions);

/** Map `bytes` from `offset` of the POSIX shared memory object `key` under `name`. Threads: any; opens and maps, no lock is held meanwhile. Errors, all
 *  with a text: -EINVAL (name, key, size, already registered, cannot be opened, too short), -EFBIG (bytes of all), -EAGAIN (number of regions). */
XN_MUST_CHECK int xn_regions_register(struct xn_regions *regions, const char *name, const char *key, uint64_t offset,
                                      uint64_t bytes, struct xn_error *error);
/** Forget `name` (NULL: all); the mapping goes with the last request that uses it. Returns how many there were. Threads: any. */
uint32_t xn_regions_unregister(struct xn_regions *regions, const char *name);

/** The region called `name`, with a reference, or NULL. `regions` may be NULL. Threads: any. */
struct xn_region *xn_regions_get(struct xn_regions *regions, const char *name);
/** References to all named regions, at most `max`. Returns how many. Threads: any. */
uint32_t xn_regions_list(struct xn_regions *regions, struct xn_region **ret_regions, uint32_t max);
/** The last one unmaps. NULL is legal. Threads: any. */
void xn_region_unref(struct xn_region *region);

/** Was a part of it gone when it was last touched? Then what was read is zeros and what was written is lost, now and later. Threads: any. */
bool xn_region_lost(const struct xn_region *region);

#endif
