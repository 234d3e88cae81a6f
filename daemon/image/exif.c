/* SPDX-License-Identifier: Apache-2.0
 * EXIF orientation: the APP1 segment of a JPEG holds a TIFF structure whose first directory may have tag 0x0112. Every offset is checked against the segment;
 * whatever makes no sense means "upright". (CIPA DC-008, section 4.5.2 and 4.6.4.) */
#include <string.h>

#include "daemon/image/internal.h"

#define TAG_ORIENTATION 0x0112u
#define TYPE_SHORT      3u

struct tiff {
    const uint8_t *data;
    size_t bytes;
    bool big_endian;
};

static uint32_t read16(const struct tiff *t, size_t at)
{
    const uint8_t *p = t->data + at;

    return t->big_endian ? (uint32_t)(p[0] << 8 | p[1]) : (uint32_t)(p[1] << 8 | p[0]);
}

static uint32_t read32(const struct tiff *t, size_t at)
{
    return t->big_endian ? read16(t, at) << 16 | read16(t, at + 2) : read16(t, at + 2) << 16 | read16(t, at);
}

static unsigned tiff_orientation(const uint8_t *data, size_t bytes)
{
    struct tiff t = {.data = data, .bytes = bytes};

    if (bytes < 8 || (memcmp(data, "II*\0", 4) != 0 && memcmp(data, "MM\0*", 4) != 0))
        return 1;
    t.big_endian = data[0] == 'M';
    size_t directory = read32(&t, 4);
    if (directory > bytes - 2)
        return 1;
    size_t entries = read16(&t, directory);
    for (size_t i = 0; i < entries; i++) {
        size_t at = directory + 2 + 12 * i;
        if (at + 12 > bytes)
            break;
        if (read16(&t, at) != TAG_ORIENTATION)
            continue;
        unsigned value = read16(&t, at + 8);
        return read16(&t, at + 2) == TYPE_SHORT && value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
}

unsigned xn_exif_orientation(const uint8_t *data, size_t bytes)
{
    static const char head[6] = "Exif\0";
    size_t at = 2; /* behind SOI */

    while (at + 4 <= bytes && data[at] == 0xff) {
        uint8_t marker = data[at + 1];
        if (marker == 0xff) { /* fill */
            at++;
            continue;
        }
        if (marker == 0xda || marker == 0xd9) /* the scan begins: no more metadata */
            break;
        size_t length = (size_t)data[at + 2] << 8 | data[at + 3];
        if (length < 2 || length > bytes - at - 2)
            break;
        const uint8_t *body = data + at + 4;
        if (marker == 0xe1 && length >= 2 + sizeof(head) && memcmp(body, head, sizeof(head)) == 0)
            return tiff_orientation(body + sizeof(head), length - 2 - sizeof(head));
        at += 2 + length;
    }
    return 1;
}
