/* SPDX-License-Identifier: Apache-2.0
 * Power sensors of the cards, as the kernel would show them. */
#ifndef XN_ACCEL_VCARD_HWMON_H
#define XN_ACCEL_VCARD_HWMON_H

#include "accel/vcard/stats.h"

/** Busy time at the last reading. */
struct xn_vcard_power {
    uint64_t read_ns, busy_ns;
};

/** Write options->hwmon/hwmonN/name and power1_input (uW) of card `index`: its idle power, and the rest by the share of its units' time that was busy
 *  since the last call. A dead card has no power1_input. Errors: -errno. */
XN_MUST_CHECK int xn_vcard_hwmon_write(const struct xn_vcard_options *options, uint32_t index,
                                       const struct xn_vcard_card_stats *card, struct xn_vcard_power *power);

#endif
