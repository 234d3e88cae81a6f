/* SPDX-License-Identifier: Apache-2.0
 * Content codings in pieces of every size, what Accept-Encoding chooses, and trace context. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "daemon/http/coding.h"
#include "daemon/http/trace.h"
#include "tests/support/random_network.h"

#define BYTES 100000u

static struct xn_codec *codec;
static uint8_t plain[BYTES], packed[BYTES + 1000], back[BYTES + 1000];

static int set_up(void **state)
{
    (void)state;
    codec = malloc(xn_codec_bytes());
    return codec ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(codec);
    return 0;
}

/* Text-like: it compresses, and not too well. */
static void fill(struct xn_random *random, size_t n)
{
    for (size_t i = 0; i < n; i++)
        plain[i] = (uint8_t)('0' + xn_random_below(random, 10));
}

/* Inflate packed[0..n) in random pieces of input and output. Returns the bytes, or a negative errno. */
static ssize_t inflate_in_pieces(struct xn_random *random, enum xn_coding coding, size_t n, size_t room)
{
    const uint8_t *in = packed;
    size_t got = 0;

    assert_int_equal(xn_inflate_begin(codec, coding), 0);
    while (n > 0 && got < room) {
        size_t piece = XN_MIN(n, 1 + xn_random_below(random, 700)), given = piece;
        size_t out = XN_MIN(room - got, 1 + xn_random_below(random, 900));
        ssize_t r = xn_inflate(codec, &in, &piece, back + got, out);
        if (r < 0)
            return r;
        assert_true((size_t)r <= out);
        got += (size_t)r;
        n -= given - piece;
    }
    return (ssize_t)got;
}

static void test_there_and_back(void **state)
{
    struct xn_random random = {xn_random_seed(11)};
    (void)state;
    for (int round = 0; round < 60; round++) {
        size_t n = round < 5 ? (size_t)round : 1 + xn_random_below(&random, BYTES);
        enum xn_coding coding = round % 2 ? XN_CODING_GZIP : XN_CODING_DEFLATE;
        fill(&random, n);
        size_t bytes = xn_deflate(codec, coding, plain, n, packed, sizeof(packed));
        assert_true(bytes > 0 && (n < 100 || bytes < n));
        assert_int_equal(inflate_in_pieces(&random, coding, bytes, sizeof(back)), n);
        assert_true(xn_inflate_complete(codec));
        assert_memory_equal(back, plain, n);
        if (bytes > 1)
            assert_int_equal(xn_deflate(codec, coding, plain, n, packed, bytes - 1), 0); /* does not fit */
    }
}

/* What zlib itself writes, at every level and with the largest window, fits the arena. */
static void test_what_zlib_writes(void **state)
{
    struct xn_random random = {xn_random_seed(12)};
    (void)state;
    fill(&random, BYTES);
    for (int level = 0; level <= 9; level++) {
        uLongf bytes = sizeof(packed);
        assert_int_equal(compress2(packed, &bytes, plain, BYTES, level), Z_OK);
        assert_int_equal(inflate_in_pieces(&random, XN_CODING_DEFLATE, bytes, sizeof(back)), BYTES);
        assert_true(xn_inflate_complete(codec));
        assert_memory_equal(back, plain, BYTES);
    }
}

static void test_damage(void **state)
{
    struct xn_random random = {xn_random_seed(13)};
    uLongf bytes = sizeof(packed);
    (void)state;
    fill(&random, 2000);
    assert_int_equal(compress2(packed, &bytes, plain, 2000, 6), Z_OK);
    assert_int_equal(inflate_in_pieces(&random, XN_CODING_DEFLATE, bytes - 1, sizeof(back)), 2000);
    assert_false(xn_inflate_complete(codec)); /* without its last byte */
    packed[bytes] = 0;
    assert_int_equal(inflate_in_pieces(&random, XN_CODING_DEFLATE, bytes + 1, sizeof(back)),
                     -EINVAL); /* and one more */
    assert_int_equal(inflate_in_pieces(&random, XN_CODING_GZIP, bytes, sizeof(back)), -EINVAL);
    packed[bytes - 1] ^= 1; /* the checksum */
    assert_int_equal(inflate_in_pieces(&random, XN_CODING_DEFLATE, bytes, sizeof(back)), -EINVAL);
}

static void test_parse(void **state)
{
    static const struct {
        const char *text;
        int coding;
    } cases[] = {{NULL, XN_CODING_IDENTITY}, {"identity", XN_CODING_IDENTITY}, {"gzip", XN_CODING_GZIP},
                 {"X-GZip", XN_CODING_GZIP}, {"deflate", XN_CODING_DEFLATE},   {"", -EOPNOTSUPP},
                 {"br", -EOPNOTSUPP},        {"gzip, deflate", -EOPNOTSUPP},   {"gzipx", -EOPNOTSUPP}};
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++) {
        enum xn_coding coding = (enum xn_coding)7;
        int r = xn_coding_parse(cases[i].text, &coding);
        assert_int_equal(r < 0 ? r : (int)coding, cases[i].coding);
        assert_true(r >= 0 || coding == (enum xn_coding)7);
    }
}

static void test_choose(void **state)
{
    static const struct {
        const char *text;
        enum xn_coding coding;
    } cases[] = {{NULL, XN_CODING_IDENTITY},
                 {"", XN_CODING_IDENTITY},
                 {",,,", XN_CODING_IDENTITY},
                 {"gzip", XN_CODING_GZIP},
                 {"deflate , gzip", XN_CODING_GZIP},
                 {"deflate;q=0.501,gzip;q=0.5", XN_CODING_DEFLATE},
                 {"gzip;q=0.0001", XN_CODING_IDENTITY}, /* three digits count */
                 {"gzip;q=0.001", XN_CODING_GZIP},
                 {"identity;q=0.5, *;q=0.4", XN_CODING_IDENTITY},
                 {"identity;q=0.5, *;q=0.6", XN_CODING_GZIP},
                 {"identity;q=0, gzip;q=0", XN_CODING_IDENTITY}, /* nothing is left: plain */
                 {"gzip;q=1.9", XN_CODING_GZIP},
                 {"gzip;q=2", XN_CODING_IDENTITY},
                 {"gzip;level=1", XN_CODING_IDENTITY},
                 {"gzip;q", XN_CODING_IDENTITY},
                 {"gzip;", XN_CODING_IDENTITY},
                 {"zip,gzi,gzipp,*x", XN_CODING_IDENTITY}};
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++)
        assert_int_equal(xn_coding_choose(cases[i].text), cases[i].coding);
    assert_null(xn_coding_name(XN_CODING_IDENTITY));
    assert_string_equal(xn_coding_name(XN_CODING_GZIP), "gzip");
}

static void test_trace(void **state)
{
    static const char good[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    char ret[XN_TRACEPARENT_BYTES], text[80];
    (void)state;
    assert_true(xn_trace_continue(good, 0x1234, ret));
    assert_string_equal(ret, "00-0af7651916cd43dd8448eb211c80319c-0000000000001234-01");
    assert_false(xn_trace_continue(NULL, 1, ret));
    assert_string_equal(ret, "");
    for (size_t n = 0; n < sizeof(good) - 1; n++) { /* every prefix, and every digit replaced by what is none */
        memcpy(text, good, n);
        text[n] = '\0';
        assert_false(xn_trace_continue(text, 1, ret));
        memcpy(text, good, sizeof(good));
        text[n] = 'G';
        assert_false(xn_trace_continue(text, 1, ret));
    }
    snprintf(text, sizeof(text), "%s-more", good);
    assert_false(xn_trace_continue(text, 1, ret)); /* not in version 00 */
    text[1] = '1';
    assert_true(xn_trace_continue(text, 1, ret));
    assert_int_equal(strlen(ret), XN_TRACEPARENT_BYTES - 1);
    assert_int_not_equal(xn_trace_span(1, 0), xn_trace_span(1, 1));
    assert_int_not_equal(xn_trace_span(1, 0), xn_trace_span(2, 0));
    assert_int_not_equal(xn_trace_span(0, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_what_zlib_writes), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_parse),          cmocka_unit_test(test_choose),           cmocka_unit_test(test_trace),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
