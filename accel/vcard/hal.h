/* SPDX-License-Identifier: Apache-2.0
 * Inside of the HAL: an open card in the process that uses XRT, and what its files share. What they export is the xcl* interface of
 * XRT's <xrt.h>, no more. */
#ifndef XN_ACCEL_VCARD_HAL_H
#define XN_ACCEL_VCARD_HAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "accel/vcard/protocol.h"
#include "common/macros.h"

/** A buffer object. One with commands (EXECBUF) is host memory alone and may wait in the queue of a unit. */
struct xn_hal_buffer {
    uint32_t handle;
    uint32_t flags; /**< XRT's: the bank in the low bits */
    size_t bytes;
    uint64_t address; /**< in card memory; commands: UINT64_MAX */
    void *host;       /**< the host's copy; DEV_ONLY: NULL */
    bool owns_host;
    bool is_command;
    bool is_waiting; /**< in a unit's queue */
    struct xn_hal_buffer *next_command;
};

/** A compute unit as a kernel driver has it.
 *
 *     idle --start--> busy, current --interrupt, done--> idle, the command COMPLETED
 *                       |  abort: the command ABORT; busy without a command, which is over with its interrupt or a reset
 *                       `- reset, end of the card: idle, the command ABORT */
struct xn_hal_unit {
    bool is_open;
    bool is_busy;
    struct xn_hal_buffer *current;      /**< NULL: nobody waits for what it does */
    struct xn_hal_buffer *first, *last; /**< waiting commands */
    uint32_t control;                   /**< as last read after an interrupt */
};

/** A request whose answer somebody waits for; on that thread's stack. */
struct xn_hal_request {
    uint32_t tag;
    bool is_done;
    int result;
    uint64_t value;
    struct xn_hal_request *next;
};

/** Devices open at a time in a process: of each card one itself, one for each unit, and one more while it is opened anew. */
#define XN_HAL_DEVICES_MAX (XN_VCARD_CARDS_MAX * (XN_VCARD_UNITS_MAX + 2))

struct xn_hal_device {
    bool is_taken, was_used; /**< as a slot of hal.c */
    unsigned index;
    int socket;
    uint8_t *memory; /**< [hello.memory_bytes], shared with the card */
    struct xn_vcard_hello hello;
    void *core; /**< XRT's object for this device */
    pthread_t reader;

    pthread_mutex_t lock;    /**< guards what follows. Packets are sent under it, so that a unit's are in order */
    pthread_cond_t answered; /**< a request is done, or the card dead */
    pthread_cond_t completed;
    bool is_dead;
    uint32_t next_tag;
    struct xn_hal_request *requests;
    uint64_t completions; /**< commands completed that no xclExecWait has told of */
    struct xn_hal_unit units[XN_VCARD_UNITS_MAX];
    uint32_t n_units;               /**< of the xclbin; 0: none is loaded */
    struct xn_hal_buffer **buffers; /**< [buffers_room], by handle; NULL: free */
    uint32_t buffers_room;
};

/* hal_link.c: the connection and its reader thread */

/** Errors: -ENODEV (nobody there, or not a card of this protocol), -ENOMEM. */
XN_MUST_CHECK int xn_hal_link_open(struct xn_hal_device *device, const char *path);
/** Ends the connection and the reader; outstanding commands have completed as aborted. */
void xn_hal_link_close(struct xn_hal_device *device);
/** Send up to XN_VCARD_PACKET_MESSAGES. Errors: -EIO. The lock may be held. */
XN_MUST_CHECK int xn_hal_send(struct xn_hal_device *device, const struct xn_vcard_message *messages, size_t n);
/** Ask and wait for the answer. `file`: goes along, or -1. Returns the answer's `a`; -EIO: the card died. *ret_value may be NULL. */
XN_MUST_CHECK int xn_hal_ask(struct xn_hal_device *device, enum xn_vcard_op op, uint64_t a, uint64_t b, int file,
                             uint64_t *ret_value);

/* hal_exec.c: commands. The reader calls these with the lock held. */

/** Tags from here on are answers for hal_exec.c. */
#define XN_HAL_UNIT_TAGS 0x80000000u
/** Of requests for whose answer nobody waits. */
#define XN_HAL_NO_TAG 0u
void xn_hal_on_interrupt_locked(struct xn_hal_device *device, uint64_t unit);
void xn_hal_on_register_locked(struct xn_hal_device *device, uint32_t tag, uint32_t value);
/** Complete every command as aborted: the end of the card. */
void xn_hal_abort_all_locked(struct xn_hal_device *device);
/** Those of a unit: its context is closed. */
void xn_hal_abort_unit_locked(struct xn_hal_device *device, struct xn_hal_unit *unit);
/** The card was reset, by this process or another. */
void xn_hal_on_stopped_locked(struct xn_hal_device *device);
/** `buffer` is about to be freed: nobody waits for its command any more. */
void xn_hal_forget_command_locked(struct xn_hal_device *device, struct xn_hal_buffer *buffer);

/* hal_memory.c */
struct xn_hal_buffer *xn_hal_buffer_locked(struct xn_hal_device *device, uint32_t handle);
void xn_hal_free_buffers(struct xn_hal_device *device);

/* hal.c, called by glue.cpp */
int xn_hal_reset(void *handle);
unsigned xn_hal_index(const void *handle);
unsigned xn_hal_clock_mhz(const void *handle);

/* glue.cpp: XRT's own objects. NULL, -EINVAL: XRT threw. */
void *xn_hal_core_new(void *handle, unsigned index);
void xn_hal_core_free(void *core);
int xn_hal_core_register(void *core, const void *axlf);

#endif
