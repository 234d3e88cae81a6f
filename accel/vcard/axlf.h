/* SPDX-License-Identifier: Apache-2.0
 * The xclbin of a virtual card: the container (axlf) that XRT loads, written and checked.
 *
 * It has what XRT reads of a real one: IP_LAYOUT (units and their addresses), MEM_TOPOLOGY and CONNECTIVITY (banks, and which argument is
 * connected to which), the same as groups, and EMBEDDED_METADATA (the kernel's arguments at the offsets of xnor_isa.h). In the place of a
 * bitstream it says which engine it is. The UUID is a hash of all other bytes, so the same options give the same file, and
 * damage shows. */
#ifndef XN_ACCEL_VCARD_AXLF_H
#define XN_ACCEL_VCARD_AXLF_H

#include "accel/vcard/options.h"

/** Make one for a card of these options. Errors: -ENOMEM. Owner: caller, free(). */
XN_MUST_CHECK int xn_axlf_make(const struct xn_vcard_options *options, void **ret_bytes, size_t *ret_n);

/** Whether a card of these options may load it: its engine and banks, no more units than it has. Nothing of it is trusted.
 *  Errors: -EINVAL, *error says why. *ret_units: compute units in it. */
XN_MUST_CHECK int xn_axlf_check(const struct xn_vcard_options *options, const void *bytes, size_t n,
                                uint32_t *ret_units, struct xn_error *error);

#define XN_AXLF_UUID_BYTES 16u
/** Of one that was checked. */
void xn_axlf_uuid(const void *bytes, uint8_t ret_uuid[XN_AXLF_UUID_BYTES]);

#endif
