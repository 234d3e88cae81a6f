/* SPDX-License-Identifier: Apache-2.0
 * PNG by libspng. Rows are resized as they are decoded; only an interlaced picture has to be held whole. Every kind is decoded to RGB of 8 bits (the
 * high byte of 16), and grey is made from it by a formula that leaves grey pixels as they are. */
#include <errno.h>

#include <spng.h>

#include "daemon/image/internal.h"

#define CHUNK_BYTES_MAX (UINT32_C(1) << 20) /* of one ancillary chunk, and of all that are kept */

static int bad(int code, struct xn_error *error)
{
    if (code == SPNG_ECHUNK_LIMITS)
        return xn_error_set(error, -EFBIG, "PNG: its text, profile or other extra data takes more than %u bytes",
                            CHUNK_BYTES_MAX);
    if (code == SPNG_EOVERFLOW)
        return xn_error_set(error, -EFBIG, "PNG: a side is more than %u pixels", XN_IMAGE_SIDE_MAX);
    return xn_error_set(error, code == SPNG_EMEM ? -ENOMEM : -EBADMSG, "PNG: %s", spng_strerror(code));
}

static void to_grey(const uint8_t *rgb, uint32_t n, uint8_t *ret_grey)
{
    for (uint32_t i = 0; i < n; i++, rgb += 3)
        ret_grey[i] = (uint8_t)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 32768u) >> 16);
}

/* One decoded row on to the resizer; may overwrite `rgb`. */
static void put_row(struct xn_image_decoder *decoder, uint32_t w, uint32_t y, uint8_t *rgb)
{
    if (decoder->resize.channels == 1)
        to_grey(rgb, w, rgb);
    xn_picture_row(decoder, y, rgb);
}

static int decode_interlaced(struct xn_image_decoder *decoder, spng_ctx *png, const struct spng_ihdr *header,
                             struct xn_error *error)
{
    size_t bytes = (size_t)header->width * header->height * 3;
    uint8_t *pixels = xn_scratch_take(&decoder->pixels, bytes);

    if (!pixels)
        return xn_error_set(error, -ENOMEM, "PNG: no memory for %u x %u pixels", header->width, header->height);
    int r = spng_decode_image(png, pixels, bytes, SPNG_FMT_RGB8, 0);
    if (r != 0)
        return bad(r, error);
    for (uint32_t y = 0; y < header->height; y++)
        put_row(decoder, header->width, y, pixels + (size_t)y * header->width * 3);
    return 0;
}

static int decode_rows(struct xn_image_decoder *decoder, spng_ctx *png, const struct spng_ihdr *header,
                       struct xn_error *error)
{
    size_t bytes = (size_t)header->width * 3;
    uint8_t *row = xn_scratch_take(&decoder->row, bytes);

    if (!row)
        return xn_error_set(error, -ENOMEM, "PNG: no memory for a row of %u pixels", header->width);
    int r = spng_decode_image(png, NULL, 0, SPNG_FMT_RGB8, SPNG_DECODE_PROGRESSIVE);
    for (uint32_t y = 0; r == 0 && y < header->height; y++) {
        r = spng_decode_row(png, row, bytes);
        if (r == 0 || r == SPNG_EOI)
            put_row(decoder, header->width, y, row);
        if (r == SPNG_EOI && y + 1 == header->height)
            r = 0;
    }
    return r == 0 ? 0 : bad(r, error);
}

static int decode(struct xn_image_decoder *decoder, spng_ctx *png, const struct xn_input_spec *spec, uint8_t *tensor,
                  struct xn_error *error)
{
    struct spng_ihdr header;
    int r = spng_get_ihdr(png, &header);

    if (r != 0)
        return bad(r, error);
    r = xn_check_size(decoder, "PNG", header.width, header.height, error);
    if (r >= 0)
        r = xn_picture_begin(decoder, "PNG", spec, header.width, header.height, tensor, error);
    if (r >= 0)
        r = header.interlace_method != SPNG_INTERLACE_NONE ? decode_interlaced(decoder, png, &header, error)
                                                           : decode_rows(decoder, png, &header, error);
    if (r < 0)
        return r;
    r = spng_decode_chunks(png); /* up to the end: a file that stops before it is truncated */
    return r == 0 ? 0 : bad(r, error);
}

int xn_png_decode(struct xn_image_decoder *decoder, const uint8_t *data, size_t bytes, const struct xn_input_spec *spec,
                  uint8_t *tensor, struct xn_error *error)
{
    spng_ctx *png = spng_ctx_new(0);

    if (!png)
        return xn_error_set(error, -ENOMEM, "PNG: no memory");
    spng_set_crc_action(png, SPNG_CRC_ERROR, SPNG_CRC_DISCARD);
    spng_set_chunk_limits(png, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX);
    int r = spng_set_png_buffer(png, data, bytes);
    r = r != 0 ? bad(r, error) : decode(decoder, png, spec, tensor, error);
    spng_ctx_free(png);
    return r;
}
