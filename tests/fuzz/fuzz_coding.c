/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a compressed body, as that of a request (struct xn_intake), as an Accept-Encoding and as a traceparent. Byte 0 chooses:
 *
 *     bit 0   gzip instead of deflate       bits 1..7   the first piece has so many bytes, the second twice as many, and so on; 0: all at once
 *
 * Whatever comes: no more than there is room for is written, in pieces as at once, and what was deflated here inflates to itself. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROOM   65536u
#define INTAKE 4096u /* of a body that is received */

static uint8_t at_once[ROOM], in_pieces[ROOM], packed[ROOM + 1024];

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Inflate one piece into out[*got..), as much as there is room for. Errors: those of xn_inflate. */
static int inflate_piece(struct xn_codec *codec, const uint8_t *in, size_t bytes, size_t step, uint8_t *out,
                         size_t *got)
{
    size_t room, before;
    ssize_t n;

    do {
        room = XN_MIN(step, ROOM - *got);
        before = bytes;
        n = room ? xn_inflate(codec, &in, &bytes, out + *got, room) : 0;
        if (n < 0)
            return (int)n;
        require((size_t)n <= room && (room == 0 || n > 0 || before == 0 || bytes < before));
        *got += (size_t)n;
    } while (room > 0 && (bytes > 0 || (size_t)n == room));
    return 0;
}

/* Inflate into `out` until it is full, the input is at its end, or something is wrong. Returns the bytes, or a negative errno. */
static ssize_t inflate_all(struct xn_codec *codec, enum xn_coding coding, const uint8_t *in, size_t bytes, size_t piece,
                           uint8_t *out)
{
    size_t got = 0, step = piece ? piece : ROOM;

    require(xn_inflate_begin(codec, coding) == 0);
    while (bytes > 0 && got < ROOM) {
        size_t given = piece ? XN_MIN(step, bytes) : bytes;
        int r = inflate_piece(codec, in, given, step, out, &got);
        if (r < 0)
            return r;
        in += given;
        bytes -= given;
        step = XN_MIN(2 * step, ROOM);
    }
    return (ssize_t)got;
}

/* A body that may become no more than `limit` bytes, in pieces. What is taken is what it inflates to, `whole`; negative: it does not inflate. */
static void check_intake(struct xn_pool *codecs, enum xn_coding coding, const uint8_t *in, size_t bytes, size_t piece,
                         ssize_t whole)
{
    static char room[INTAKE];
    struct xn_buf into = {.data = (uint8_t *)room, .capacity_bytes = sizeof(room)};
    struct xn_error error = {""};
    size_t got = 0, step = piece ? piece : bytes;
    struct xn_intake intake = {
        .coding = coding, .limit_bytes = INTAKE, .codecs = codecs, .into = &into, .bytes = &got, .error = &error};

    int r = xn_intake_begin(&intake);
    require(r == 0);
    for (size_t n; r == 0 && bytes > 0; in += n, bytes -= n) {
        n = XN_MIN(step, bytes);
        r = xn_intake_receive(&intake, in, n);
    }
    if (r == 0)
        r = xn_intake_end(&intake);
    xn_intake_done(&intake);
    require(got <= INTAKE && xn_pool_used(codecs) == 0);
    require(r == 0 || ((r == -EINVAL || r == -EFBIG) && error.text[0]));
    require(r != 0 || (whole == (ssize_t)got && memcmp(room, at_once, got) == 0));
    require(r != -EFBIG || whole < 0 || whole > (ssize_t)INTAKE);
}

static void check_headers(const uint8_t *data, size_t size)
{
    char text[256], parent[XN_TRACEPARENT_BYTES];
    size_t n = XN_MIN(size, sizeof(text) - 1);

    memcpy(text, data, n);
    text[n] = '\0';
    require(xn_coding_choose(text) <= XN_CODING_DEFLATE);
    bool valid = xn_trace_continue(text, xn_trace_span(size, 1), parent);
    require(strlen(parent) == (valid ? XN_TRACEPARENT_BYTES - 1 : 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct xn_pool *codecs;
    static struct xn_codec *codec;

    if (!codec) {
        codec = malloc(xn_codec_bytes());
        require(codec && xn_pool_new(xn_codec_bytes(), 1, &codecs) == 0);
    }
    if (size == 0)
        return 0;
    enum xn_coding coding = data[0] & 1 ? XN_CODING_GZIP : XN_CODING_DEFLATE;
    ssize_t n = inflate_all(codec, coding, data + 1, size - 1, 0, at_once);
    bool complete = xn_inflate_complete(codec);
    ssize_t m = inflate_all(codec, coding, data + 1, size - 1, data[0] >> 1, in_pieces);
    require((n < 0) == (m < 0) || n == ROOM || m == ROOM);
    if (n >= 0 && m == n) {
        require(memcmp(at_once, in_pieces, (size_t)n) == 0);
        require(n == ROOM || complete == xn_inflate_complete(codec));
    }
    check_intake(codecs, coding, data + 1, size - 1, data[0] >> 1, n);
    size_t bytes = xn_deflate(codec, coding, data, size, packed, sizeof(packed));
    if (bytes > 0 && size < ROOM)
        require(inflate_all(codec, coding, packed, bytes, 0, at_once) == (ssize_t)size && xn_inflate_complete(codec) &&
                memcmp(at_once, data, size) == 0);
    check_headers(data, size);
    return 0;
}
