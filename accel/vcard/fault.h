/* SPDX-License-Identifier: Apache-2.0
 * When faults are due. */
#ifndef XN_ACCEL_VCARD_FAULT_H
#define XN_ACCEL_VCARD_FAULT_H

#include "accel/vcard/options.h"

struct xn_vcard_fault_state {
    uint64_t random;
    uint64_t left[XN_VCARD_FAULTS]; /**< runs (or loads) until the next one; 0: never */
};

/** `salt`: so that cards, and a card's lives, differ. */
void xn_vcard_faults_init(struct xn_vcard_fault_state *state, const struct xn_vcard_options *options, uint64_t salt);

/** Count a run, or load. True: it is to fail in this way. Threads: under the card's lock. */
bool xn_vcard_fault_due(struct xn_vcard_fault_state *state, const struct xn_vcard_options *options,
                        enum xn_vcard_fault kind);

#endif
