/* SPDX-License-Identifier: Apache-2.0
 * From the bytes of a JPEG or PNG file to a network's input tensor, giving exactly the bytes that training saw (train/xnortrain's image loading does
 * the same through Pillow; tests compare them byte by byte). docs/model-format.md, "Images", states the method:
 * decode (JPEG at the smallest DCT scale 1, 1/2, 1/4, 1/8 that still gives at least twice the target on both axes), EXIF orientation, colour conversion, separable
 * antialiased triangle filter in 22-bit fixed point (Pillow's BILINEAR, bit for bit), normalisation. */
#ifndef XN_DAEMON_IMAGE_IMAGE_H
#define XN_DAEMON_IMAGE_IMAGE_H

#include "common/error.h"
#include "common/macros.h"
#include "model/network.h"

enum xn_image_type { XN_IMAGE_UNKNOWN, XN_IMAGE_JPEG, XN_IMAGE_PNG };

/** By magic bytes, never by what the client claims. */
enum xn_image_type xn_image_sniff(const void *data, size_t bytes);

/** Reusable decoder: its scratch memory grows to the limit it was made with and no further. One thread at a time. */
struct xn_image_decoder;

/** `max_pixels`: of a picture as its header claims, checked before any allocation. */
XN_MUST_CHECK int xn_image_decoder_new(uint64_t max_pixels, struct xn_image_decoder **ret_decoder);
void xn_image_decoder_free(struct xn_image_decoder *decoder);

/** Decode `data` into `ret_tensor` [h][w][channels] of spec's dtype. Errors: -EMEDIUMTYPE (neither JPEG nor PNG, or a kind not supported such as CMYK:
 *  HTTP 415), -EBADMSG (truncated or corrupt: 400), -EFBIG (more than max_pixels: 413), -ENOMEM. Truncated JPEG data is an error, not a grey
 *  remainder. */
XN_MUST_CHECK int xn_image_decode(struct xn_image_decoder *decoder, const void *data, size_t bytes,
                                  const struct xn_input_spec *spec, void *ret_tensor, struct xn_error *error);

#endif
