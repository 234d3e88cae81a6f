/* SPDX-License-Identifier: Apache-2.0
 * See coding.h. zlib allocates at the beginning of a stream, and a window with the first bytes; its hooks cut all that from the codec's arena, which
 * begins anew with each stream. */
#include "daemon/http/coding.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

#include <zlib.h>

/* zlib 1.2.13 needs 39 KiB to inflate and 71 KiB to deflate with these. */
#define ARENA_BYTES   (88u * 1024)
#define GZIP_FRAMING  16 /* added to the window bits: zlib's way to say gzip */
#define DEFLATE_BITS  13 /* 8 KiB of window: answers repeat themselves at short distance */
#define DEFLATE_LEVEL 1
#define DEFLATE_MEM   6

struct xn_codec {
    z_stream stream;
    bool complete;
    size_t used;
    _Alignas(16) uint8_t arena[ARENA_BYTES];
};

size_t xn_codec_bytes(void)
{
    return sizeof(struct xn_codec);
}

static voidpf take(voidpf user, uInt items, uInt size)
{
    struct xn_codec *codec = user;
    size_t bytes;

    if (!xn_mul_size(items, size, &bytes) || bytes > ARENA_BYTES - codec->used)
        return Z_NULL;
    voidpf at = codec->arena + codec->used;
    codec->used += XN_MIN(xn_align_up(bytes, 16), ARENA_BYTES - codec->used);
    return at;
}

static void give(voidpf user, voidpf address)
{
    (void)user;
    (void)address; /* the arena goes as a whole */
}

static void begin(struct xn_codec *codec)
{
    codec->stream = (z_stream){.zalloc = take, .zfree = give, .opaque = codec};
    codec->complete = false;
    codec->used = 0;
}

static int window_bits(enum xn_coding coding, int bits)
{
    return coding == XN_CODING_GZIP ? bits + GZIP_FRAMING : bits;
}

/* ---- streams ------------------------------------------------------------------------------------------------------ */

int xn_inflate_begin(struct xn_codec *codec, enum xn_coding coding)
{
    begin(codec);
    return inflateInit2(&codec->stream, window_bits(coding, MAX_WBITS)) == Z_OK ? 0 : -ENOMEM;
}

ssize_t xn_inflate(struct xn_codec *codec, const uint8_t **in, size_t *in_bytes, uint8_t *out, size_t out_bytes)
{
    z_stream *z = &codec->stream;
    uInt given = (uInt)XN_MIN(*in_bytes, UINT32_MAX), room = (uInt)XN_MIN(out_bytes, UINT32_MAX);

    if (codec->complete)
        return *in_bytes > 0 ? -EINVAL : 0;
    z->next_in = (Bytef *)(uintptr_t)*in; /* zlib only reads it */
    z->avail_in = given;
    z->next_out = out;
    z->avail_out = room;
    int r = inflate(z, Z_NO_FLUSH);
    *in += given - z->avail_in;
    *in_bytes -= given - z->avail_in;
    codec->complete = r == Z_STREAM_END;
    if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR) /* the last: nothing to do with what it was given */
        return -EINVAL;
    return (ssize_t)(room - z->avail_out);
}

bool xn_inflate_complete(const struct xn_codec *codec)
{
    return codec->complete;
}

size_t xn_deflate(struct xn_codec *codec, enum xn_coding coding, const void *in, size_t in_bytes, void *out,
                  size_t out_bytes)
{
    z_stream *z = &codec->stream;

    begin(codec);
    if (in_bytes > UINT32_MAX || deflateInit2(z, DEFLATE_LEVEL, Z_DEFLATED, window_bits(coding, DEFLATE_BITS),
                                              DEFLATE_MEM, Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    z->next_in = (Bytef *)(uintptr_t)in;
    z->avail_in = (uInt)in_bytes;
    z->next_out = out;
    z->avail_out = (uInt)XN_MIN(out_bytes, UINT32_MAX);
    return deflate(z, Z_FINISH) == Z_STREAM_END ? z->total_out : 0;
}

/* ---- headers ------------------------------------------------------------------------------------------------------ */

const char *xn_coding_name(enum xn_coding coding)
{
    static const char *const names[] = {[XN_CODING_GZIP] = "gzip", [XN_CODING_DEFLATE] = "deflate"};

    return names[coding];
}

/* Is the token of `n` bytes at `text` this one? */
static bool is_token(const char *text, size_t n, const char *token)
{
    return strlen(token) == n && strncasecmp(text, token, n) == 0;
}

/* A coding by its name; -1: none of ours. */
static int find_coding(const char *text, size_t n)
{
    if (is_token(text, n, "gzip") || is_token(text, n, "x-gzip"))
        return XN_CODING_GZIP;
    if (is_token(text, n, "deflate"))
        return XN_CODING_DEFLATE;
    return is_token(text, n, "identity") ? XN_CODING_IDENTITY : -1;
}

int xn_coding_parse(const char *content_encoding, enum xn_coding *ret_coding)
{
    int coding = content_encoding ? find_coding(content_encoding, strlen(content_encoding)) : XN_CODING_IDENTITY;

    if (coding < 0)
        return -EOPNOTSUPP;
    *ret_coding = (enum xn_coding)coding;
    return 0;
}

/* The weight of "q=0.5" at `text`, in thousandths; 1000 where it is none, 0 where it is malformed. */
static int read_weight(const char *text)
{
    int weight = 0, scale = 1000;

    text += strspn(text, " \t");
    if (*text != ';')
        return 1000;
    text += 1 + strspn(text + 1, " \t");
    if ((*text != 'q' && *text != 'Q') || text[1] != '=' || (text[2] != '0' && text[2] != '1'))
        return 0;
    weight = (text[2] - '0') * 1000;
    for (text += text[3] == '.' ? 4 : 3; *text >= '0' && *text <= '9' && scale > 1; text++) {
        scale /= 10;
        weight += (*text - '0') * scale;
    }
    return XN_MIN(weight, 1000);
}

enum xn_coding xn_coding_choose(const char *accept_encoding)
{
    int weights[] = {-1, -1, -1}, others = -1; /* of each coding, and of "*"; -1: not named */

    for (const char *at = accept_encoding; at && *at; at = strchr(at, ',')) {
        at += strspn(at, ", \t");
        size_t n = strcspn(at, "; \t,");
        int coding = find_coding(at, n);
        if (coding >= 0)
            weights[coding] = read_weight(at + n);
        else if (is_token(at, n, "*"))
            others = read_weight(at + n);
    }
    for (size_t i = 0; i < XN_ARRAY_LEN(weights); i++)
        weights[i] = weights[i] < 0 ? others : weights[i];
    int best = weights[XN_CODING_GZIP] >= weights[XN_CODING_DEFLATE] ? XN_CODING_GZIP : XN_CODING_DEFLATE;
    /* identity that is not named is acceptable, and wanted less than what is */
    return weights[best] > 0 && weights[best] >= weights[XN_CODING_IDENTITY] ? (enum xn_coding)best
                                                                             : XN_CODING_IDENTITY;
}
