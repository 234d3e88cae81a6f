/* SPDX-License-Identifier: Apache-2.0
 * JPEG by libjpeg-turbo's TurboJPEG interface, which reports errors by return values. Warnings (truncated or corrupt data) count as errors, and the number of scans
 * is limited: each passes over the whole picture, and can be a few bytes that change nothing, so that a small file could ask for much work. */
#include <errno.h>
#include <string.h>

#include <turbojpeg.h>

#include "daemon/image/internal.h"

#define DECODE_FLAGS    (TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS | TJFLAG_ACCURATEDCT)
#define SCALED_SIDE_MIN 8u   /* smaller results are not unique to a DCT scale: TurboJPEG finds the scale by them */
#define SCANS_MAX       100u /* encoders make 1 to about 20 */

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
    uint32_t min_w = XN_MAX(2 * want_w, SCALED_SIDE_MIN), min_h = XN_MAX(2 * want_h, SCALED_SIDE_MIN);

    for (uint32_t s = 8; s > 1; s /= 2) {
        if ((w + s - 1) / s >= min_w && (h + s - 1) / s >= min_h)
            return s;
    }
    return 1;
}

/* TurboJPEG tells kinds of errors apart only by libjpeg's messages. A handle whose header failed is in the middle of it, and reads the next file as if
 * it went on there; so no handle is used again after an error. */
static int bad(struct xn_image_decoder *decoder, struct xn_error *error)
{
    const char *text = tjGetErrorStr2(decoder->turbojpeg);
    int r = -EBADMSG;

    if (strstr(text, "Unsupported") || strstr(text, "Could not determine"))
        r = -EMEDIUMTYPE;
    else if (strstr(text, "Insufficient memory"))
        r = -ENOMEM;
    xn_error_set(error, r, "JPEG: %s", text);
    tjDestroy(decoder->turbojpeg);
    decoder->turbojpeg = NULL;
    return r;
}

/* Scans of a file, up to SCANS_MAX + 1. */
static uint32_t count_scans(const uint8_t *data, size_t bytes)
{
    size_t at = 2; /* behind SOI */
    uint32_t scans = 0;

    while (scans <= SCANS_MAX && at + 4 <= bytes) {
        const uint8_t *next = memchr(data + at, 0xff, bytes - at - 3);
        if (!next)
            break;
        at = (size_t)(next - data);
        uint8_t marker = next[1];
        if (marker == 0xff) { /* fill */
            at++;
        } else if (marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8)) { /* no marker, or one alone */
            at += 2;
        } else if (marker == 0xd9) { /* the end */
            break;
        } else {
            at += 2 + ((size_t)next[2] << 8 | next[3]);
            scans += marker == 0xda;
        }
    }
    return scans;
}

static int read_header(struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes, uint32_t *ret_w,
                       uint32_t *ret_h, struct xn_error *error)
{
    int w = 0, h = 0, sampling = 0, colour = TJCS_GRAY; /* left alone where the file ends before its picture begins */

    if (!decoder->turbojpeg)
        decoder->turbojpeg = tjInitDecompress();
    if (!decoder->turbojpeg)
        return xn_error_set(error, -ENOMEM, "JPEG: no memory for a decoder");
    if (tjDecompressHeader3(decoder->turbojpeg, data, (unsigned long)bytes, &w, &h, &sampling, &colour) < 0)
        return bad(decoder, error);
    if (w == 0 || h == 0)
        return xn_error_set(error, -EBADMSG, "JPEG: there is no picture in it");
    if (colour == TJCS_CMYK || colour == TJCS_YCCK)
        return xn_error_set(error, -EMEDIUMTYPE, "JPEG: CMYK pictures are not supported; convert it to RGB");
    *ret_w = (uint32_t)w;
    *ret_h = (uint32_t)h;
    if (count_scans(data, bytes) > SCANS_MAX)
        return xn_error_set(error, -EFBIG, "JPEG: more than %u scans", SCANS_MAX);
    return xn_check_size(decoder, "JPEG", *ret_w, *ret_h, error);
}

/* The whole picture of w x h pixels, as stored, in decoder->pixels. */
static int decode_pixels(struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes, uint32_t w, uint32_t h,
                         uint32_t channels, struct xn_error *error)
{
    uint8_t *pixels = xn_scratch_take(&decoder->pixels, (size_t)w * h * channels);

    if (!pixels)
        return xn_error_set(error, -ENOMEM, "JPEG: no memory for %u x %u pixels", w, h);
    if (tjDecompress2(decoder->turbojpeg, data, (unsigned long)bytes, pixels, (int)w, (int)(w * channels), (int)h,
                      channels == 1 ? TJPF_GRAY : TJPF_RGB, DECODE_FLAGS) < 0)
        return bad(decoder, error);
    return 0;
}

int xn_jpeg_decode(struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes,
                   const struct xn_input_spec *spec, uint8_t *tensor, struct xn_error *error)
{
    uint32_t w = 0, h = 0, channels = spec->channels;
    unsigned orientation = xn_exif_orientation(data, bytes);
    bool swap = orientation >= 5;

    int r = read_header(decoder, data, bytes, &w, &h, error);
    if (r < 0)
        return r;
    uint32_t s = choose_divisor(w, h, swap ? spec->h : spec->w, swap ? spec->w : spec->h);
    w = (w + s - 1) / s;
    h = (h + s - 1) / s;
    r = decode_pixels(decoder, data, bytes, w, h, channels, error);
    if (r < 0)
        return r;
    const uint8_t *upright = decoder->pixels.data;
    if (orientation > 1) {
        uint8_t *turned = xn_scratch_take(&decoder->turned, (size_t)w * h * channels);
        if (!turned)
            return xn_error_set(error, -ENOMEM, "JPEG: no memory for %u x %u pixels", w, h);
        turn(upright, w, h, channels, orientation, turned);
        upright = turned;
    }
    uint32_t upright_w = swap ? h : w, upright_h = swap ? w : h;
    r = xn_picture_begin(decoder, "JPEG", spec, upright_w, upright_h, tensor, error);
    for (uint32_t y = 0; r >= 0 && y < upright_h; y++)
        xn_picture_row(decoder, y, upright + (size_t)y * upright_w * channels);
    return r;
}
