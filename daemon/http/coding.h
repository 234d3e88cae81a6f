/* SPDX-License-Identifier: Apache-2.0
 * Content codings of bodies: gzip, and deflate, which is zlib's format (RFC 9110, 8.4.1). The state of zlib lives in a struct xn_codec from a pool; nothing
 * here calls malloc. No sockets, no MHD: fuzzed by tests/fuzz/fuzz_coding.c. */
#ifndef XN_DAEMON_HTTP_CODING_H
#define XN_DAEMON_HTTP_CODING_H

#include <sys/types.h>

#include "common/error.h"
#include "common/macros.h"

enum xn_coding { XN_CODING_IDENTITY, XN_CODING_GZIP, XN_CODING_DEFLATE };

#define XN_CODINGS "gzip, deflate" /**< what Accept-Encoding says of us */
/** Smaller answers are sent as they are: they fit one TCP segment either way. */
#define XN_CODING_BYTES_MIN 1400u

/** State of one stream, in or out; about 80 KiB, of which pages become resident as they are used. */
struct xn_codec;
size_t xn_codec_bytes(void);

/** The name that goes into Content-Encoding; NULL for identity. */
const char *xn_coding_name(enum xn_coding coding);
/** What a Content-Encoding says; NULL is identity. Errors: -EOPNOTSUPP (another coding, or several). */
XN_MUST_CHECK int xn_coding_parse(const char *content_encoding, enum xn_coding *ret_coding);
/** The coding to answer with, by the weights of an Accept-Encoding: the one that weighs most, gzip of equals, identity where neither weighs more than
 *  it. NULL or malformed: identity. */
enum xn_coding xn_coding_choose(const char *accept_encoding);

/** Begin to read a stream. Errors: -ENOMEM (the state does not fit: another zlib than expected). */
XN_MUST_CHECK int xn_inflate_begin(struct xn_codec *codec, enum xn_coding coding);
/** Inflate from *in, moved on by what was read, into `out`. Returns the bytes written. Where that is out_bytes there may be more to come. Errors: -EINVAL
 *  (corrupt, or bytes after the end). */
XN_MUST_CHECK ssize_t xn_inflate(struct xn_codec *codec, const uint8_t **in, size_t *in_bytes, uint8_t *out,
                                 size_t out_bytes);
/** Has the whole stream been read? */
bool xn_inflate_complete(const struct xn_codec *codec);

/** Compress `in` as a whole into `out`. Returns the bytes written, 0: they are more than out_bytes. */
size_t xn_deflate(struct xn_codec *codec, enum xn_coding coding, const void *in, size_t in_bytes, void *out,
                  size_t out_bytes);

#endif
