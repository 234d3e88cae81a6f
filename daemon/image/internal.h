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

/** One axis: `out` outputs, output i is the sum over k < taps[i] of in[first[i] + k] * weight[i * stride + k], 22-bit fixed point. */
struct xn_axis {
    uint32_t in, out, stride;
    uint32_t *first, *taps;
    int32_t *weight;
    struct xn_scratch memory;
};

/** A picture on its way to another size, row by row: output rows are written as soon as the inputs that they need have come. Holds the rows that
 *  one output needs, never the picture. */
struct xn_resize {
    struct xn_axis x, y;
    uint32_t channels, window; /* rows held */
    uint32_t next_in, next_out;
    uint8_t *out;
    size_t out_stride;
    struct xn_scratch memory; /* sums of one output row, then [window][x.out][channels], row r at r % window */
};

/** The result goes to `out`, `out_stride` bytes from row to row. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_resize_begin(struct xn_resize *resize, uint32_t in_w, uint32_t in_h, uint32_t out_w,
                                  uint32_t out_h, uint32_t channels, uint8_t *out, size_t out_stride);
/** The next row of the input, in_w * channels bytes. After the last the result is complete. */
void xn_resize_row(struct xn_resize *resize, const uint8_t *row);

/* ---- decode.c ----------------------------------------------------------------------------------------------------- */

/** How a picture is fitted: its box at (box_x, box_y) is resized to w x h, which goes to (x, y) of the input. */
struct xn_placement {
    uint32_t box_x, box_y, box_w, box_h;
    uint32_t w, h;
    uint32_t x, y;
};
struct xn_placement xn_fit(const struct xn_input_spec *spec, uint32_t picture_w, uint32_t picture_h);

/* ---- formats ------------------------------------------------------------------------------------------------------ */

struct xn_image_decoder {
    uint64_t max_pixels;
    void *turbojpeg;          /* tjhandle; NULL after an error */
    struct xn_scratch pixels; /* a whole decoded picture, where one is needed */
    struct xn_scratch turned; /* the same upright */
    struct xn_scratch row;
    struct xn_placement place;
    struct xn_resize resize;
};

/** -EFBIG where w x h or a side is over its limit, -EBADMSG where a side is 0. */
XN_MUST_CHECK int xn_check_size(const struct xn_image_decoder *decoder, const char *format, uint64_t w, uint64_t h,
                                struct xn_error *error);

/** A picture of w x h, decoded and upright, is about to come. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_picture_begin(struct xn_image_decoder *decoder, const char *format,
                                   const struct xn_input_spec *spec, uint32_t w, uint32_t h, uint8_t *tensor,
                                   struct xn_error *error);
/** Its row `y`, from 0 up, w * spec->channels bytes. */
void xn_picture_row(struct xn_image_decoder *decoder, uint32_t y, const uint8_t *row);

/** EXIF orientation 1..8 of a JPEG; 1 where there is none or it makes no sense. Reads `bytes` at `data`, never beyond. */
unsigned xn_exif_orientation(const uint8_t *data, size_t bytes);

/** Decode, and give the picture to xn_picture_begin and _row. */
XN_MUST_CHECK int xn_jpeg_decode(struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes,
                                 const struct xn_input_spec *spec, uint8_t *tensor, struct xn_error *error);
XN_MUST_CHECK int xn_png_decode(struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes,
                                const struct xn_input_spec *spec, uint8_t *tensor, struct xn_error *error);

#endif
