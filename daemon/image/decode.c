/* SPDX-License-Identifier: Apache-2.0
 * The whole way from file to tensor: which format, decode and resize (jpeg.c, png.c, resize.c), then placement and normalisation into the tensor. */
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
    tjDestroy(decoder->turbojpeg);
    free(decoder);
}

int xn_check_size(const struct xn_image_decoder *decoder, const char *format, uint64_t w, uint64_t h,
                  struct xn_error *error)
{
    if (w == 0 || h == 0)
        return xn_error_set(error, -EBADMSG, "%s: a picture of %" PRIu64 " x %" PRIu64 " pixels", format, w, h);
    if (w > decoder->max_pixels / h)
        return xn_error_set(error, -EFBIG,
                            "%s: %" PRIu64 " x %" PRIu64 " pixels are more than the limit of %" PRIu64
                            " (limits.image_pixels)",
                            format, w, h, decoder->max_pixels);
    return 0;
}

/* ---- fit ---------------------------------------------------------------------------------------------------------- */

/* round(a * b / c), for values below 2^31. */
static uint32_t scaled(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t v = (2 * a * b + c) / (2 * c);

    return (uint32_t)(v > 0 ? v : 1);
}

struct xn_placement xn_fit(const struct xn_input_spec *spec, uint32_t picture_w, uint32_t picture_h)
{
    uint64_t w = spec->w, h = spec->h;
    struct xn_placement p = {.w = spec->w, .h = spec->h};

    if (spec->fit == XN_FIT_STRETCH)
        return p;
    /* Which axis decides: for crop the one that needs the larger scale, for pad the smaller. */
    bool wider = w * picture_h >= h * picture_w;
    bool tie = w * picture_h == h * picture_w;
    if (spec->fit == XN_FIT_CROP ? wider : !wider || tie)
        p.h = scaled(picture_h, w, picture_w);
    else
        p.w = scaled(picture_w, h, picture_h);
    if (spec->fit == XN_FIT_CROP) {
        p.w = XN_MAX(p.w, spec->w);
        p.h = XN_MAX(p.h, spec->h);
        p.x = (p.w - spec->w) / 2;
        p.y = (p.h - spec->h) / 2;
    } else {
        p.w = XN_MIN(p.w, spec->w);
        p.h = XN_MIN(p.h, spec->h);
        p.x = -(int64_t)((spec->w - p.w) / 2);
        p.y = -(int64_t)((spec->h - p.h) / 2);
    }
    return p;
}

/* ---- into the tensor ---------------------------------------------------------------------------------------------- */

static uint8_t normalise(const struct xn_input_spec *spec, uint32_t c, uint8_t pixel)
{
    int64_t half = spec->shift ? INT64_C(1) << (spec->shift - 1) : 0;
    int64_t v = ((int64_t)spec->multiplier[c] * pixel + spec->offset[c] + half) >> spec->shift;
    int64_t low = spec->dtype == XN_DTYPE_U8 ? 0 : -128, high = spec->dtype == XN_DTYPE_U8 ? 255 : 127;

    return (uint8_t)XN_MAX(low, XN_MIN(v, high));
}

static void normalise_row(const struct xn_input_spec *spec, uint8_t *row)
{
    for (uint32_t x = 0; x < spec->w; x++) {
        for (uint32_t c = 0; c < spec->channels; c++, row++)
            *row = normalise(spec, c, *row);
    }
}

/* The resized picture, cut or framed as `place` says, row by row. */
static void write_tensor(const struct xn_image_decoder *decoder, const struct xn_input_spec *spec,
                         const struct xn_placement *place, uint8_t *line, uint8_t *tensor)
{
    size_t channels = spec->channels, row_bytes = spec->w * channels;

    for (uint32_t y = 0; y < spec->h; y++, tensor += row_bytes) {
        int64_t from = (int64_t)y + place->y;
        if (from < 0 || from >= place->h) {
            memset(tensor, 0, row_bytes);
        } else {
            xn_resize_result(&decoder->resize, (uint32_t)from, line);
            if (place->w >= spec->w) {
                memcpy(tensor, line + (size_t)place->x * channels, row_bytes);
            } else {
                memset(tensor, 0, row_bytes);
                memcpy(tensor + (size_t)-place->x * channels, line, place->w * channels);
            }
        }
        if (!spec->identity)
            normalise_row(spec, tensor);
    }
}

int xn_image_decode(struct xn_image_decoder *decoder, const void *data, size_t bytes, const struct xn_input_spec *spec,
                    void *ret_tensor, struct xn_error *error)
{
    enum xn_image_type type = xn_image_sniff(data, bytes);
    struct xn_placement place;
    int r = -EMEDIUMTYPE;

    if (type == XN_IMAGE_JPEG)
        r = xn_jpeg_decode(decoder, data, bytes, spec, &place, error);
    else if (type == XN_IMAGE_PNG)
        r = xn_png_decode(decoder, data, bytes, spec, &place, error);
    else
        xn_error_set(error, r, "neither a JPEG nor a PNG");
    if (r >= 0) {
        uint8_t *line = xn_scratch_take(&decoder->row, (size_t)place.w * spec->channels);
        r = line ? 0 : xn_error_set(error, -ENOMEM, "no memory for a row");
        if (line)
            write_tensor(decoder, spec, &place, line, ret_tensor);
    }
    trim(decoder, false);
    return r;
}
