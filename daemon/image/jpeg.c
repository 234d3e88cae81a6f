/* SPDX-License-Identifier: Apache-2.0
 * JPEG by libjpeg-turbo's TurboJPEG interface, which reports errors by return values. Warnings (truncated or corrupt data) count as errors, and the number of scans
 * is limited: a progressive file of a few kilobytes can otherwise ask for minutes of work. */
#include <errno.h>
#include <string.h>

#include <turbojpeg.h>

#include "daemon/image/internal.h"

#define DECODE_FLAGS (TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS)

/* Pixels of an upright picture from one that is stored turned; `orientation` as EXIF numbers them. */
static void turn(const uint8_t *from, uint32_t w, uint32_t h, uint32_t channels, unsigned orientation, uint8_t *to)
{
    bool swap = orientation >= 5;
    bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    uint32_t out_w = swap ? h : w, out_h = swap ? w : h;

    for (uint32_t y = 0; y < out_h; y++) {
        for (uint32_t x = 0; x < out_w; x++) {
            uint32_t sx = swap ? y : x, sy = swap ? x : y;
            sx = flip_x ? w - 1 - sx : sx;
            sy = flip_y ? h - 1 - sy : sy;
            memcpy(to, from + ((size_t)sy * w + sx) * channels, channels);
            to += channels;
        }
    }
}

/* The largest divisor with which both axes keep at least twice the wanted size. */
static uint32_t choose_divisor(uint32_t w, uint32_t h, uint32_t want_w, uint32_t want_h)
{
    for (uint32_t s = 8; s > 1; s /= 2) {
        if (w / (2 * want_w) >= s && h / (2 * want_h) >= s)
            return s;
    }
    return 1;
}

static int bad(const struct xn_image_decoder *decoder, struct xn_error *error)
{
    return xn_error_set(error, -EBADMSG, "JPEG: %s", tjGetErrorStr2(decoder->turbojpeg));
}

static int read_header(const struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes, uint32_t *ret_w,
                       uint32_t *ret_h, struct xn_error *error)
{
    int w, h, sampling, colour;

    if (tjDecompressHeader3(decoder->turbojpeg, data, (unsigned long)bytes, &w, &h, &sampling, &colour) < 0)
        return bad(decoder, error);
    if (colour == TJCS_CMYK || colour == TJCS_YCCK)
        return xn_error_set(error, -EMEDIUMTYPE, "JPEG: CMYK pictures are not supported; convert it to RGB");
    *ret_w = (uint32_t)w;
    *ret_h = (uint32_t)h;
    return xn_check_size(decoder, "JPEG", *ret_w, *ret_h, error);
}

int xn_jpeg_decode(struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes,
                   const struct xn_input_spec *spec, struct xn_placement *ret_placement, struct xn_error *error)
{
    uint32_t w = 0, h = 0, channels = spec->channels;
    unsigned orientation = xn_exif_orientation(data, bytes);
    bool swap = orientation >= 5;

    int r = read_header(decoder, data, bytes, &w, &h, error);
    if (r < 0)
        return r;
    struct xn_placement place = xn_fit(spec, swap ? h : w, swap ? w : h);
    uint32_t s = choose_divisor(w, h, swap ? place.h : place.w, swap ? place.w : place.h);
    w = (w + s - 1) / s;
    h = (h + s - 1) / s;
    size_t pixel_bytes = (size_t)w * h * channels;
    uint8_t *pixels = xn_scratch_take(&decoder->pixels, pixel_bytes);
    if (!pixels)
        return xn_error_set(error, -ENOMEM, "JPEG: no memory for %u x %u pixels", w, h);
    if (tjDecompress2(decoder->turbojpeg, data, (unsigned long)bytes, pixels, (int)w, (int)(w * channels), (int)h,
                      channels == 1 ? TJPF_GRAY : TJPF_RGB, DECODE_FLAGS) < 0)
        return bad(decoder, error);
    if (orientation > 1) {
        uint8_t *turned = xn_scratch_take(&decoder->turned, pixel_bytes);
        if (!turned)
            return xn_error_set(error, -ENOMEM, "JPEG: no memory for %u x %u pixels", w, h);
        turn(pixels, w, h, channels, orientation, turned);
        pixels = turned;
    }
    uint32_t upright_w = swap ? h : w, upright_h = swap ? w : h;
    if (xn_resize_begin(&decoder->resize, upright_w, upright_h, place.w, place.h, channels) < 0)
        return xn_error_set(error, -ENOMEM, "JPEG: no memory to resize it");
    for (uint32_t y = 0; y < upright_h; y++)
        xn_resize_row(&decoder->resize, y, pixels + (size_t)y * upright_w * channels);
    *ret_placement = place;
    return 0;
}
