/* SPDX-License-Identifier: Apache-2.0
 * The scalar reference interpreter: the arithmetic specification as C. Written to be read, not to be fast; every
 * accelerator gives exactly these integers. */
#ifndef XN_MODEL_REFERENCE_H
#define XN_MODEL_REFERENCE_H

#include "model/network.h"

struct xn_reference;

/** Memory for one run at a time of `network`, which must outlive it. Returns 0, -ENOMEM. Owner: caller. */
XN_MUST_CHECK int xn_reference_new(const struct xn_network *network, struct xn_reference **ret_reference);
void xn_reference_free(struct xn_reference *reference);

/** Run one image. `input`: network->input_bytes bytes [h][w][c] of the input's dtype; `ret_logits`: [n_classes].
 *  Threads: one at a time for each reference. Cannot fail. */
void xn_reference_run(struct xn_reference *reference, const void *input, int32_t *ret_logits);

/** Elements [h][w][c] of value `id` as the last run left them, widened to int32 (bits as +1 and -1). Valid until
 *  the next run. For tests that compare layer by layer. */
const int32_t *xn_reference_value(const struct xn_reference *reference, uint32_t id);

#endif
