/* SPDX-License-Identifier: Apache-2.0
 * The answers that xnorctl's load generator reads: whole, in every two pieces, byte by byte, and those that are none. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clients/xnorctl/http_parse.h"
#include "clients/xnorctl/metrics.h"

struct answer {
    const char *text; /* "#" stands for 300 bytes of a header's value */
    int status;
    const char *body;
    bool close;
};

static const struct answer good[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", false},
    {"HTTP/1.1 200 OK\r\ncontent-length:5\r\nConnection: Close\r\n\r\nhello", 200, "hello", true},
    {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, "", false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x", true},
    {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx", 200, "x", false},
    {"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2 \r\n\r\n{}", 503, "{}", false},
    {"HTTP/1.1 204 No Content\r\n\r\n", 204, "", false},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false},
    {"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, "ok", false},
    {"HTTP/1.1 200 OK\r\nX-Long: #\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n, in parts\r\n0\r\n\r\n", 200,
     "hello, in parts", false},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1 \r\n!\r\n0\r\nTrailer: yes\r\n\r\n", 200, "!", false},
};

static const char *const bad[] = {
    "SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/2 200 OK\r\n",
    "HTTP/1.1 2x0 OK\r\n",
    "HTTP/1.1 020 OK\r\n",
    "HTTP/1.1 2000 OK\r\n",
    "\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "HTTP/1.1 200 OK\r\nno colon\r\n",
    "HTTP/1.1 200 OK\r\n: no name\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n",
};

static char *expand(const char *text)
{
    char *all = calloc(1, strlen(text) + 512), *at = all;

    assert_non_null(all);
    for (; *text; text++) {
        size_t n = *text == '#' ? 300 : 1;
        memset(at, *text == '#' ? 'v' : *text, n);
        at += n;
    }
    return all;
}

/* Feed `bytes` in pieces of at most `piece`. Returns what the last feed returned, and how many bytes were taken. */
static int feed(struct xn_http_parser *p, const char *text, size_t bytes, size_t piece, size_t *ret_used)
{
    size_t at = 0;
    int r = 0;

    while (r == 0 && at < bytes) {
        size_t n = XN_MIN(piece, bytes - at), used = 0;
        char *copy = malloc(n); /* of its exact size, so that a sanitizer sees what is read beyond */
        assert_non_null(copy);
        memcpy(copy, text + at, n);
        r = xn_http_parser_feed(p, copy, n, &used);
        free(copy);
        assert_true(used <= n);
        at += used;
        if (r == 0)
            assert_int_equal(used, n);
    }
    *ret_used = at;
    return r;
}

static void expect(const struct answer *a, const struct xn_http_parser *p)
{
    assert_int_equal(p->status, a->status);
    assert_int_equal(p->close, a->close);
    assert_int_equal(p->body_bytes, strlen(a->body));
    assert_memory_equal(p->body, a->body, strlen(a->body));
    assert_false(p->body_cut);
}

static void test_answers_in_all_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(good); i++) {
        char *text = expand(good[i].text), body[64];
        size_t length = strlen(text), used;
        struct xn_http_parser p;
        for (size_t piece = 1; piece <= length; piece++) {
            xn_http_parser_init(&p, body, sizeof(body));
            assert_false(xn_http_parser_begun(&p));
            assert_int_equal(feed(&p, text, length, piece, &used), 1);
            assert_int_equal(used, length);
            expect(&good[i], &p);
        }
        free(text);
    }
}

static void test_what_follows_is_left(void **state)
{
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(good); i++) {
        char *text = expand(good[i].text), *twice = calloc(2, strlen(text) + 1), body[64];
        struct xn_http_parser p;
        size_t used;
        assert_non_null(twice);
        strcat(strcat(twice, text), text);
        xn_http_parser_init(&p, body, sizeof(body));
        assert_int_equal(xn_http_parser_feed(&p, twice, strlen(twice), &used), 1);
        assert_int_equal(used, strlen(text));
        expect(&good[i], &p);
        assert_int_equal(p.retry_after, strstr(text, "Retry-After") != NULL);
        free(twice);
        free(text);
    }
}

static void test_a_cut_answer_is_not_complete(void **state)
{
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(good); i++) {
        char *text = expand(good[i].text), body[64];
        struct xn_http_parser p;
        size_t used;
        for (size_t n = 0; n < strlen(text); n++) {
            xn_http_parser_init(&p, body, sizeof(body));
            assert_int_equal(feed(&p, text, n, n ? n : 1, &used), 0);
            assert_int_equal(xn_http_parser_begun(&p), n > 0 && p.state != XN_HTTP_STATUS ? 1 : p.line_bytes > 0);
            assert_int_equal(xn_http_parser_end(&p), -ECONNRESET);
        }
        free(text);
    }
}

static void test_what_is_no_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(bad); i++) {
        for (size_t piece = 1; piece <= strlen(bad[i]); piece++) {
            struct xn_http_parser p;
            size_t used;
            xn_http_parser_init(&p, NULL, 0);
            int r = feed(&p, bad[i], strlen(bad[i]), piece, &used);
            if (r != -EBADMSG)
                fail_msg("%s in pieces of %zu gives %d", bad[i], piece, r);
        }
    }
}

static void test_body_until_the_end(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\n\r\nall of it";
    struct xn_http_parser p;
    char body[64];
    size_t used;

    (void)state;
    xn_http_parser_init(&p, body, sizeof(body));
    assert_int_equal(feed(&p, text, strlen(text), 3, &used), 0);
    assert_int_equal(xn_http_parser_end(&p), 1);
    assert_true(p.close);
    assert_int_equal(p.body_bytes, 9);
    assert_memory_equal(body, "all of it", 9);
}

static void test_a_long_body_is_cut(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
    struct xn_http_parser p;
    char body[4];
    size_t used;

    (void)state;
    xn_http_parser_init(&p, body, sizeof(body));
    assert_int_equal(feed(&p, text, strlen(text), 100, &used), 1);
    assert_true(p.body_cut);
    assert_int_equal(p.body_bytes, 4);
    assert_memory_equal(body, "0123", 4);
}

static void test_endless_headers_are_refused(void **state)
{
    struct xn_http_parser p;
    size_t used, total = 0;
    int r;

    (void)state;
    xn_http_parser_init(&p, NULL, 0);
    r = xn_http_parser_feed(&p, "HTTP/1.1 200 OK\r\n", 17, &used);
    while (r == 0 && total < 10 * (size_t)XN_HTTP_HEADER_BYTES) {
        r = xn_http_parser_feed(&p, "X-A: b\r\n", 8, &used);
        total += used;
    }
    assert_int_equal(r, -EMSGSIZE);
    assert_true(total <= XN_HTTP_HEADER_BYTES + 64);

    xn_http_parser_init(&p, NULL, 0); /* and one line without an end */
    for (total = 0, r = 0; r == 0 && total < 10 * (size_t)XN_HTTP_HEADER_BYTES; total += used)
        r = xn_http_parser_feed(&p, "xxxxxxxxxxxxxxxx", 16, &used);
    assert_int_equal(r, -EMSGSIZE);
}

static const char metrics[] = "# HELP a_total Some.\n"
                              "# TYPE a_total counter\n"
                              "a_total{model=\"m\",source=\"sensor\"} 1.5\n"
                              "a_total{model=\"n\",source=\"sensor\"} 2\n"
                              "a_total_more 100\n"
                              "broken{x=\"y} 1\n"
                              "broken{x} 1\n"
                              "broken nothing\n"
                              "h_bucket{le=\"+Inf\",label=\"with, comma } and \\\" quote\"} 7\n"
                              "last 3e-2";

static void test_metrics(void **state)
{
    const char *at = metrics;
    struct xn_metric m;
    size_t n = 0, found;
    char text[64];

    (void)state;
    while (xn_metric_next(&at, &m))
        n++;
    assert_int_equal(n, 5);
    assert_true(xn_metrics_sum(metrics, "a_total", NULL, NULL, &found) == 3.5);
    assert_int_equal(found, 2);
    assert_true(xn_metrics_sum(metrics, "a_total", "model", "n", &found) == 2);
    assert_int_equal(found, 1);
    assert_true(xn_metrics_sum(metrics, "a", NULL, NULL, &found) == 0);
    assert_int_equal(found, 0);
    assert_true(xn_metrics_sum(metrics, "last", NULL, NULL, &found) == 3e-2);
    for (at = metrics; xn_metric_next(&at, &m) && !xn_metric_is(&m, "h_bucket");)
        ;
    assert_string_equal(xn_metric_label(&m, "le", text, sizeof(text)), "+Inf");
    assert_string_equal(xn_metric_label(&m, "label", text, sizeof(text)), "with, comma } and \\\" quote");
    assert_string_equal(xn_metric_label(&m, "label", text, 5), "with");
    assert_string_equal(xn_metric_label(&m, "none", text, sizeof(text)), "");
    assert_true(m.value == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_in_all_pieces),        cmocka_unit_test(test_what_follows_is_left),
        cmocka_unit_test(test_a_cut_answer_is_not_complete), cmocka_unit_test(test_what_is_no_answer),
        cmocka_unit_test(test_body_until_the_end),           cmocka_unit_test(test_a_long_body_is_cut),
        cmocka_unit_test(test_endless_headers_are_refused),  cmocka_unit_test(test_metrics),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
