/* SPDX-License-Identifier: Apache-2.0
 * What the kernel would show of the cards: PCI devices with a power sensor, as the driver xocl has them.
 *
 *     SYS/bus/pci/devices/ffff:01:00.1/vendor                        0x10ee
 *                                     /hwmon/hwmon0/name             xnor_vcard: no card's, so that its figures are not taken for measured ones
 *                                     /hwmon/hwmon0/power1_input     uW
 */
#ifndef XN_ACCEL_VCARD_SYSFS_H
#define XN_ACCEL_VCARD_SYSFS_H

#include "accel/vcard/stats.h"

/** A card's power model at the last account. */
struct xn_vcard_power {
    uint64_t read_ns, busy_ns; /**< read_ns: 0 while the card is dead */
    double watts;              /**< mean since the account before */
};

/** Bring the energy of card `index`, card->energy_uj, up to now: its idle power, and the rest by the share of its units' time that was busy since
 *  the last account. Nothing is drawn while it is dead. */
void xn_vcard_power_account(const struct xn_vcard_options *options, uint32_t index, struct xn_vcard_card_stats *card,
                            struct xn_vcard_power *power);

/** Make card `index` appear in `sys`. Errors: -errno. */
XN_MUST_CHECK int xn_vcard_sysfs_add(const char *sys, uint32_t index);
/** Show what the last account came to. A dead card has no power1_input. Errors: -errno. */
XN_MUST_CHECK int xn_vcard_sysfs_write(const char *sys, uint32_t index, const struct xn_vcard_power *power);
/** Take the cards away, and `sys` with the last one where nothing else is in it. */
void xn_vcard_sysfs_remove(const char *sys, uint32_t cards);

#endif
