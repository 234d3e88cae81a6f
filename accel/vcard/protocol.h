/* SPDX-License-Identifier: Apache-2.0
 * What the HAL (libxrt_core.so.2 of the virtual card, in the process that uses XRT) and the process of a card say to each other.
 *
 * A card listens on a unix socket of type SOCK_SEQPACKET. A connection is an open device; ends of connections are closed devices, or,
 * seen from the host, a card that died.
 *
 *     host                                       card
 *       ---- connect ------------------------------>
 *       <--- struct xn_vcard_hello, memfd ----------    the card's memory, by SCM_RIGHTS; mapped by both
 *       ---- packets of struct xn_vcard_message ---->
 *       <--- packets of struct xn_vcard_message -----
 *
 * A packet is 1..XN_VCARD_PACKET_MESSAGES messages, handled in order. LOAD has a memfd with the xclbin by SCM_RIGHTS, and is a packet of its own.
 * Requests that have an answer (REPLY with their tag) are those of enum xn_vcard_op that say so; the others are posted. Bytes are the machine's
 * own: both ends run on it.
 *
 * What a kernel driver shares out among processes, the card does: memory (ALLOCATE), compute units (OPEN_UNIT). A unit belongs to one
 * connection at a time. With the end of a connection its memory and its units are free; a unit that still runs is stopped.
 *
 * Registers of unit u begin at XN_VCARD_UNITS + u * XN_VCARD_UNIT_BYTES, as hls/include/xnor_isa.h has them (ap_ctrl_hs), with the
 * interrupt registers of a HLS kernel. Only the connection that has the unit open reads and writes them; others read XN_VCARD_NOBODY. */
#ifndef XN_ACCEL_VCARD_PROTOCOL_H
#define XN_ACCEL_VCARD_PROTOCOL_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define XN_VCARD_MAGIC           0x564e5831u /**< of this version of the protocol */
#define XN_VCARD_PACKET_MESSAGES 64u
#define XN_VCARD_UNITS_MAX       32u /**< of a card: bits of ERT's first mask */
#define XN_VCARD_BANKS_MAX       32u
#define XN_VCARD_CARDS_MAX       16u
#define XN_VCARD_CLIENTS_MAX     64u         /**< connections of a card at a time: one a unit, and others */
#define XN_VCARD_XCLBIN_MAX      (16u << 20) /**< bytes */
#define XN_VCARD_PAGE            4096u       /**< what memory is allocated in */

#define XN_VCARD_UNITS      0x800000u
#define XN_VCARD_UNIT_BYTES 0x10000u
#define XN_VCARD_NOBODY     0xdeadbeefu /**< what a register reads that is not there */

/** Where card memory begins in the address space of the units. What lies below is nobody's, so that address 0 is an error. */
#define XN_VCARD_MEMORY_BASE UINT64_C(0x4000000000)

/** Of a HLS kernel, besides those of xnor_isa.h. */
#define XN_VCARD_REG_GIE 0x04u /**< bit 0: interrupts on */
#define XN_VCARD_REG_IER 0x08u /**< bit 0: done interrupts */
#define XN_VCARD_REG_ISR 0x0cu /**< bit 0: done; writing a 1 toggles */

#define XN_VCARD_CTRL_START 1u
#define XN_VCARD_CTRL_DONE  2u /**< cleared by reading */
#define XN_VCARD_CTRL_IDLE  4u
#define XN_VCARD_CTRL_READY 8u /**< cleared by reading */

/** Platform that the card calls itself, and for which its xclbin is made. */
#define XN_VCARD_PLATFORM "xnor_vcard_1"

/** PCI address of card N: in the last domain there is, which no machine has, so that a virtual card is never taken for one that is there.
 *  Function 1, as the one of an Alveo that users open. */
#define XN_VCARD_PCI_DOMAIN   0xffffu
#define XN_VCARD_PCI_BUS(n)   ((n) + 1u)
#define XN_VCARD_PCI_FUNCTION 1u

struct xn_vcard_address {
    char text[16];
};

/** "ffff:01:00.1" of card 0. */
static inline struct xn_vcard_address xn_vcard_address_of(uint32_t card)
{
    struct xn_vcard_address address;

    (void)snprintf(address.text, sizeof(address.text), "%04x:%02x:00.%x", XN_VCARD_PCI_DOMAIN,
                   XN_VCARD_PCI_BUS(card & 0x7f), XN_VCARD_PCI_FUNCTION);
    return address;
}

/** What struct xn_isa_status has in `error` where the card, not the program, went wrong; above enum xn_isa_error. */
enum xn_vcard_error {
    XN_VCARD_ERROR_BUS =
        0x100, /**< an address outside of card memory; `descriptor` is the offset of the register that had it */
    XN_VCARD_ERROR_PARITY = 0x101, /**< an injected fault: the output is wrong */
};

/** Variables that the HAL reads, set by `xnor-vcard run`. Without the first two there is no device. */
#define XN_VCARD_ENV_FOLDER "XNOR_VCARD_DIR"    /**< sockets are FOLDER/card-N */
#define XN_VCARD_ENV_CARDS  "XNOR_VCARD_CARDS"  /**< 1..XN_VCARD_CARDS_MAX */
#define XN_VCARD_ENV_XCLBIN "XNOR_VCARD_XCLBIN" /**< for programs: the xclbin of these cards */
#define XN_VCARD_ENV_SYSFS  "XNOR_VCARD_SYSFS"  /**< for programs: what /sys would have of these cards (sysfs.h) */

struct xn_vcard_hello {
    uint32_t magic;
    uint32_t units;
    uint32_t clock_mhz;
    uint32_t banks;
    uint64_t memory_bytes; /**< of the memfd, all banks */
    uint64_t link_bytes_s; /**< PCIe: bytes a second that a transfer takes at least; 0: as fast as it goes */
};

enum xn_vcard_op {
    /* host to card */
    XN_VCARD_WRITE = 1,    /**< a: address, b: 32 bits. Posted */
    XN_VCARD_READ = 2,     /**< a: address. REPLY b: 32 bits */
    XN_VCARD_ALLOCATE = 3, /**< a: bytes, b: bank. REPLY a: 0, -ENOMEM, -EINVAL (bank, bytes); b: address */
    XN_VCARD_FREE = 4,     /**< a: address that ALLOCATE gave. Posted */
    XN_VCARD_LOAD =
        5, /**< a: bytes of the xclbin in the memfd. REPLY a: 0; -EINVAL: not one, damaged, or of another platform or
                                  engine; -EBUSY: another one is loaded and in use; -EIO: injected fault */
    XN_VCARD_OPEN_UNIT =
        6, /**< a: unit. REPLY a: 0; -EINVAL: no such unit, or LOAD is missing or outdated; -EBUSY: another connection's */
    XN_VCARD_CLOSE_UNIT = 7, /**< a: unit. A run of it is stopped. REPLY */
    XN_VCARD_RESET =
        8, /**< stops all units and clears their registers; memory stays. REPLY, after STOPPED to all connections */
    /* card to host */
    XN_VCARD_REPLY = 32,     /**< tag: of the request; a: 0 or negative errno; b: as the request says */
    XN_VCARD_INTERRUPT = 33, /**< a: unit whose interrupt line rose */
    XN_VCARD_STOPPED = 34,   /**< a reset: nothing that was started will finish */
};

struct xn_vcard_message {
    uint32_t op; /**< enum xn_vcard_op */
    uint32_t tag;
    uint64_t a, b;
};

/** One packet of `n` bytes that carries the open file `file` along; it stays the caller's. Errors: -EIO (the peer is gone). */
static inline int xn_vcard_send_with_file(int socket, void *packet, size_t n, int file)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec data = {packet, n};
    struct msghdr message;
    struct cmsghdr *c;

    /* Assigned, as C++ programs read this header too, whose compilers warn of C's initializers. */
    memset(&control, 0, sizeof(control));
    memset(&message, 0, sizeof(message));
    memset(&control, 0, sizeof(control));
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof(control.bytes);
    c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &file, sizeof(file));
    return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -EIO : 0;
}

#endif
