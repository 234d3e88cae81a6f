/* SPDX-License-Identifier: Apache-2.0
 * From the bytes of a JPEG or PNG file to a network's input tensor, giving exactly the bytes that training saw: train/xnortrain/images.py does the
 * same through Pillow, and tests compare the two. docs/model-format.md, "Images", states the method:
 *
 *   1. JPEG: decoded at 1/s, the largest s of 8, 4, 2, 1 with which both axes keep at least twice the size that step 4 asks for (accurate integer DCT,
 *      fancy up-sampling); to grey by taking Y. PNG: 8 bits (the high byte of 16), palettes expanded, alpha dropped.
 *   2. EXIF orientation (JPEG).
 *   3. Colour: grey from RGB (19595 R + 38470 G + 7471 B + 32768) >> 16; RGB from grey by repetition.
 *   4. Size r for a picture of W x H and a network of w x h:
 *        stretch  r = w x h.
 *        crop     covers: r_w = w, r_h = round(H*w/W) where w*H >= h*W, else r_h = h, r_w = round(W*h/H); then the middle w x h (offsets rounded down).
 *        pad      fits inside: r_w = w, r_h = max(1, round(H*w/W)) where w*H <= h*W, else r_h = h, r_w = max(1, round(W*h/H)); in the middle of black.
 *      round(a/b) = (2a + b) / 2b, rounded down.
 *   5. Resize: a triangle filter as wide as the scale (antialiased), coefficients in 22-bit fixed point, horizontal then vertical, each rounded to 8 bits:
 *      Pillow's BILINEAR.
 *   6. Normalisation: clamp((multiplier[c]*pixel + offset[c] + half) >> shift). */
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

/** Decode `data` into `ret_tensor` [h][w][channels] of spec's dtype (spec->is_image). Errors: -EMEDIUMTYPE (neither JPEG nor PNG, or a kind not supported,
 *  such as CMYK), -EBADMSG (truncated or corrupt), -EFBIG (more than max_pixels), -ENOMEM. Truncated data is an error, not a grey remainder. */
XN_MUST_CHECK int xn_image_decode(struct xn_image_decoder *decoder, const void *data, size_t bytes,
                                  const struct xn_input_spec *spec, void *ret_tensor, struct xn_error *error);

#endif
