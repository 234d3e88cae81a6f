/* SPDX-License-Identifier: Apache-2.0
 * What the files of image/ share. */
#ifndef XN_DAEMON_IMAGE_INTERNAL_H
#define XN_DAEMON_IMAGE_INTERNAL_H

#include "daemon/image/image.h"

/** Growing scratch memory. Zeroed: empty. */
struct xn_scratch {
    void *data;
    size_t bytes;
};

/** At least `bytes`, contents undefined. NULL: no memory. */
void *xn_scratch_take(struct xn_scratch *scratch, size_t bytes);
/** Free it if it has grown beyond what an ordinary picture needs; `all`: in any case. */
void xn_scratch_trim(struct xn_scratch *scratch, bool all);

/* ---- resize.c ----------------------------------------------------------------------------------------------------- */

/** One axis: `count` outputs, output i is the sum over k < taps[i] of in[first[i] + k] * weight[i * stride + k], 22-bit fixed point. */
struct xn_axis {
    uint32_t in, out, stride;
    uint32_t *first, *taps;
    int32_t *weight;
    struct xn_scratch memory;
};

/** A picture on its way to another size, row by row. Rows go in from the top; when the last has, the picture is complete. */
struct xn_resize {
    struct xn_axis x, y;
    uint32_t channels;
    struct xn_scratch memory; /* [y.in][x.out][channels] */
};

/** Errors: -ENOMEM. */
XN_MUST_CHECK int xn_resize_begin(struct xn_resize *resize, uint32_t in_w, uint32_t in_h, uint32_t out_w,
                                  uint32_t out_h, uint32_t channels);
/** Row `y` of the input, in_w * channels bytes. */
void xn_resize_row(struct xn_resize *resize, uint32_t y, const uint8_t *row);
/** Row `y` of the output, out_w * channels bytes; after all rows went in. */
void xn_resize_result(const struct xn_resize *resize, uint32_t y, uint8_t *ret_row);

/* ---- fit ---------------------------------------------------------------------------------------------------------- */

/** Where a picture goes: resized to w x h; then `x`, `y` is where the network's first pixel lies in it (crop), or, negative, how far the picture
 *  lies inside the network's input (pad). */
struct xn_placement {
    uint32_t w, h;
    int64_t x, y;
};
struct xn_placement xn_fit(const struct xn_input_spec *spec, uint32_t picture_w, uint32_t picture_h);

/* ---- formats ------------------------------------------------------------------------------------------------------ */

struct xn_image_decoder {
    uint64_t max_pixels;
    void *turbojpeg;          /* tjhandle */
    struct xn_scratch pixels; /* a whole decoded picture, where one is needed */
    struct xn_scratch turned; /* the same upright */
    struct xn_scratch row;
    struct xn_resize resize;
};

/** EXIF orientation 1..8 of a JPEG; 1 where there is none or it makes no sense. Reads `bytes` at `data`, never beyond. */
unsigned xn_exif_orientation(const uint8_t *data, size_t bytes);

/** Decode and resize: on success decoder->resize holds the picture as *ret_placement says, with spec's channels. */
XN_MUST_CHECK int xn_jpeg_decode(struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes,
                                 const struct xn_input_spec *spec, struct xn_placement *ret_placement,
                                 struct xn_error *error);
XN_MUST_CHECK int xn_png_decode(struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes,
                                const struct xn_input_spec *spec, struct xn_placement *ret_placement,
                                struct xn_error *error);

/** -EFBIG where w x h is over the limit, -EBADMSG where a side is 0. */
XN_MUST_CHECK int xn_check_size(const struct xn_image_decoder *decoder, const char *format, uint64_t w, uint64_t h,
                                struct xn_error *error);

#endif
