/* SPDX-License-Identifier: Apache-2.0
 * The decoding stage: a bounded queue and a few threads named xn-image-N, each with its own decoder. */
#ifndef XN_DAEMON_IMAGE_STAGE_H
#define XN_DAEMON_IMAGE_STAGE_H

#include "daemon/request.h"

struct xn_image_stage;

/** What happens to an item that the stage is done with; called on a decoder thread with the item's request reference passed on. `status` 0: decoded, `input` is
 *  filled. Negative: the item has been settled with it (undecodable, expired, cancelled) and will not come; the callee drops the reference. */
typedef void (*xn_image_next)(void *user, struct xn_item *item, int status);

XN_MUST_CHECK int xn_image_stage_new(uint32_t threads, uint64_t max_pixels, size_t queue_limit, xn_image_next next,
                                     void *user, struct xn_image_stage **ret_stage, struct xn_error *error);
/** Hand over `item` with a reference on its request. Errors: -ENOBUFS (queue full), -ECANCELED (stopped); the reference then stays with the caller. Items that fail to decode
 *  or whose deadline has passed are settled here and handed to `next` with their status. Threads: any. */
XN_MUST_CHECK int xn_image_stage_push(struct xn_image_stage *stage, struct xn_item *item);
/** Items waiting for a decoder. */
size_t xn_image_stage_depth(struct xn_image_stage *stage);
/** Stop its threads; items still queued are settled with -ECANCELED and handed to `next`, and a push from now on is refused with it. All other calls stay
 *  legal until xn_image_stage_free. Once; NULL is legal. */
void xn_image_stage_stop(struct xn_image_stage *stage);
/** Stop if that was not done, and free. NULL is legal. */
void xn_image_stage_free(struct xn_image_stage *stage);

#endif
