/* SPDX-License-Identifier: Apache-2.0
 * From the bytes of a JPEG or PNG file to a network's input tensor, as docs/model-format.md, "Images", states it, bit for bit: train/xnortrain/images.py is
 * the same method in Python, and tests compare the two. */
#ifndef XN_DAEMON_IMAGE_IMAGE_H
#define XN_DAEMON_IMAGE_IMAGE_H

#include "common/error.h"
#include "common/macros.h"
#include "model/network.h"

enum xn_image_type { XN_IMAGE_UNKNOWN, XN_IMAGE_JPEG, XN_IMAGE_PNG };

/** By magic bytes, never by what the client claims. */
enum xn_image_type xn_image_sniff(const void *data, size_t bytes);

/** Reusable decoder with its scratch memory, which is given back after a large picture. One thread at a time. */
struct xn_image_decoder;

/** `max_pixels`: of a picture as its header claims, checked before any allocation. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_image_decoder_new(uint64_t max_pixels, struct xn_image_decoder **ret_decoder);
void xn_image_decoder_free(struct xn_image_decoder *decoder);

/** A side of a picture is at most this, whatever max_pixels allows: a JPEG cannot claim more. */
#define XN_IMAGE_SIDE_MAX 65535u

/** Decode `data` into `ret_tensor` [h][w][channels] of spec's dtype (spec->is_image), whose contents are undefined after an error. Errors: -EMEDIUMTYPE (neither
 *  JPEG nor PNG, or a kind not supported, such as CMYK), -EBADMSG (truncated or corrupt), -EFBIG (more than max_pixels, a side over XN_IMAGE_SIDE_MAX, or work out of
 *  proportion to the file), -ENOMEM. Truncated data is an error, not a grey remainder. */
XN_MUST_CHECK int xn_image_decode(struct xn_image_decoder *decoder, const void *data, size_t bytes,
                                  const struct xn_input_spec *spec, void *ret_tensor, struct xn_error *error);

#endif
