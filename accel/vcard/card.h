/* SPDX-License-Identifier: Apache-2.0
 * One card, as a process of its own: it serves the protocol on a socket until SIGTERM. */
#ifndef XN_ACCEL_VCARD_CARD_H
#define XN_ACCEL_VCARD_CARD_H

#include "accel/vcard/options.h"
#include "accel/vcard/stats.h"

/** Serve on the socket `path`, which is made anew. `life`: counts the card's processes. One byte goes to `ready` when it can be opened, and
 *  `ready` is closed. Returns on SIGTERM, which it blocks; ignores SIGINT and SIGHUP. Errors: -errno, *error says what. */
XN_MUST_CHECK int xn_vcard_card_serve(const struct xn_vcard_options *options, uint32_t index, uint64_t life,
                                      const char *path, struct xn_vcard_card_stats *stats, int ready,
                                      struct xn_error *error);

#endif
