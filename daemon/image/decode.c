/* SPDX-License-Identifier: Apache-2.0
 * The whole way from file to tensor: which format, decode (jpeg.c, png.c), fit and resize (resize.c) into the tensor, normalise there. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <turbojpeg.h>

#include "common/fault.h"
#include "daemon/image/internal.h"

enum xn_image_type xn_image_sniff(const void *data, size_t bytes)
{
    static const uint8_t jpeg[3] = {0xff, 0xd8, 0xff};
    static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

    if (bytes >= sizeof(jpeg) && memcmp(data, jpeg, sizeof(jpeg)) == 0)
        return XN_IMAGE_JPEG;
    if (bytes >= sizeof(png) && memcmp(data, png, sizeof(png)) == 0)
        return XN_IMAGE_PNG;
    return XN_IMAGE_UNKNOWN;
}

int xn_image_decoder_new(uint64_t max_pixels, struct xn_image_decoder **ret_decoder)
{
    struct xn_image_decoder *decoder = xn_calloc(1, sizeof(*decoder));

    if (!decoder)
        return -ENOMEM;
    decoder->max_pixels = max_pixels;
    decoder->turbojpeg = tjInitDecompress();
    if (!decoder->turbojpeg) {
        free(decoder);
        return -ENOMEM;
    }
    *ret_decoder = decoder;
    return 0;
}

static void trim(struct xn_image_decoder *decoder, bool all)
{
    struct xn_scratch *scratches[] = {&decoder->pixels,          &decoder->turned,          &decoder->row,
                                      &decoder->resize.x.memory, &decoder->resize.y.memory, &decoder->resize.memory};

    for (size_t i = 0; i < XN_ARRAY_LEN(scratches); i++)
        xn_scratch_trim(scratches[i], all);
}

void xn_image_decoder_free(struct xn_image_decoder *decoder)
{
    if (!decoder)
        return;
    trim(decoder, true);
    if (decoder->turbojpeg)
        tjDestroy(decoder->turbojpeg);
    free(decoder);
}

int xn_check_size(const struct xn_image_decoder *decoder, const char *format, uint64_t w, uint64_t h,
                  struct xn_error *error)
{
    if (w == 0 || h == 0)
        return xn_error_set(error, -EBADMSG, "%s: a picture of %" PRIu64 " x %" PRIu64 " pixels", format, w, h);
    if (w > XN_IMAGE_SIDE_MAX || h > XN_IMAGE_SIDE_MAX)
        return xn_error_set(error, -EFBIG, "%s: a side of %" PRIu64 " x %" PRIu64 " pixels is more than %u", format, w,
                            h, XN_IMAGE_SIDE_MAX);
    if (w > decoder->max_pixels / h)
        return xn_error_set(error, -EFBIG,
                            "%s: %" PRIu64 " x %" PRIu64 " pixels are more than the limit of %" PRIu64
                            " (limits.image_pixels)",
                            format, w, h, decoder->max_pixels);
    return 0;
}

/* ---- fit ---------------------------------------------------------------------------------------------------------- */

/* round(a * b / c), halves up, at least 1, at most `max`. Sides are below 2^16, so nothing overflows. */
static uint32_t ratio(uint64_t a, uint64_t b, uint64_t c, uint32_t max)
{
    uint64_t v = (2 * a * b + c) / (2 * c);

    return (uint32_t)XN_MAX(1, XN_MIN(v, max));
}

struct xn_placement xn_fit(const struct xn_input_spec *spec, uint32_t picture_w, uint32_t picture_h)
{
    struct xn_placement p = {.box_w = picture_w, .box_h = picture_h, .w = spec->w, .h = spec->h};
    bool wide = (uint64_t)picture_w * spec->h > (uint64_t)picture_h * spec->w;

    if (spec->fit == XN_FIT_CROP) {
        if (wide)
            p.box_w = ratio(picture_h, spec->w, spec->h, picture_w);
        else
            p.box_h = ratio(picture_w, spec->h, spec->w, picture_h);
        p.box_x = (picture_w - p.box_w) / 2;
        p.box_y = (picture_h - p.box_h) / 2;
    } else if (spec->fit == XN_FIT_PAD) {
        if (wide)
            p.h = ratio(picture_h, spec->w, picture_w, spec->h);
        else
            p.w = ratio(picture_w, spec->h, picture_h, spec->w);
        p.x = (spec->w - p.w) / 2;
        p.y = (spec->h - p.h) / 2;
    }
    return p;
}

int xn_picture_begin(struct xn_image_decoder *decoder, const char *format, const struct xn_input_spec *spec, uint32_t w,
                     uint32_t h, uint8_t *tensor, struct xn_error *error)
{
    struct xn_placement *p = &decoder->place;
    size_t row_bytes = (size_t)spec->w * spec->channels;

    *p = xn_fit(spec, w, h);
    if (p->w < spec->w || p->h < spec->h)
        memset(tensor, 0, row_bytes * spec->h);
    if (xn_resize_begin(&decoder->resize, p->box_w, p->box_h, p->w, p->h, spec->channels,
                        tensor + p->y * row_bytes + (size_t)p->x * spec->channels, row_bytes) < 0)
        return xn_error_set(error, -ENOMEM, "%s: no memory to resize %u x %u pixels", format, w, h);
    return 0;
}

void xn_picture_row(struct xn_image_decoder *decoder, uint32_t y, const uint8_t *row)
{
    const struct xn_placement *p = &decoder->place;

    if (y >= p->box_y && y - p->box_y < p->box_h)
        xn_resize_row(&decoder->resize, row + (size_t)p->box_x * decoder->resize.channels);
}

/* ---- into the tensor ---------------------------------------------------------------------------------------------- */

static uint8_t normalise(const struct xn_input_spec *spec, uint32_t c, uint8_t pixel)
{
    int64_t half = spec->shift ? INT64_C(1) << (spec->shift - 1) : 0;
    int64_t v = ((int64_t)spec->multiplier[c] * pixel + spec->offset[c] + half) >> spec->shift;
    int64_t low = spec->dtype == XN_DTYPE_U8 ? 0 : -128, high = spec->dtype == XN_DTYPE_U8 ? 255 : 127;

    return (uint8_t)XN_MAX(low, XN_MIN(v, high));
}

static void normalise_tensor(const struct xn_input_spec *spec, uint8_t *tensor)
{
    uint8_t table[3][256];
    size_t pixels = (size_t)spec->w * spec->h;

    for (uint32_t c = 0; c < spec->channels; c++) {
        for (uint32_t v = 0; v < 256; v++)
            table[c][v] = normalise(spec, c, (uint8_t)v);
    }
    for (size_t i = 0; i < pixels; i++) {
        for (uint32_t c = 0; c < spec->channels; c++, tensor++)
            *tensor = table[c][*tensor];
    }
}

int xn_image_decode(struct xn_image_decoder *decoder, const void *data, size_t bytes, const struct xn_input_spec *spec,
                    void *ret_tensor, struct xn_error *error)
{
    enum xn_image_type type = xn_image_sniff(data, bytes);
    int r;

    if (type == XN_IMAGE_JPEG)
        r = xn_jpeg_decode(decoder, data, bytes, spec, ret_tensor, error);
    else if (type == XN_IMAGE_PNG)
        r = xn_png_decode(decoder, data, bytes, spec, ret_tensor, error);
    else
        r = xn_error_set(error, -EMEDIUMTYPE, "neither a JPEG nor a PNG");
    if (r >= 0 && !spec->identity)
        normalise_tensor(spec, ret_tensor);
    trim(decoder, false);
    return r;
}
