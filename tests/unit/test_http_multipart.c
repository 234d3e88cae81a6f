/* SPDX-License-Identifier: Apache-2.0
 * multipart/form-data: parts are found where they lie; every prefix of a body, and every damaged byte, ends in parts within it or in an error. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/http/multipart.h"

#define TYPE "multipart/form-data; boundary=b"

static struct xn_multipart m;
static struct xn_error error;

/* What the parts are, separated by '|'; an error as its text. */
static const char *parts(const char *content_type, const char *body)
{
    static char text[600];
    struct xn_part part;
    size_t used = 0;

    error.text[0] = text[0] = '\0';
    int r = xn_multipart_init(&m, content_type, body, strlen(body), &error);
    if (r < 0)
        return error.text;
    while ((r = xn_multipart_next(&m, &part, &error)) > 0)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%.*s|", (int)part.bytes, (const char *)part.data);
    return r < 0 ? error.text : text;
}

static void test_parts(void **state)
{
    (void)state;
    assert_string_equal(parts(TYPE, "--b\r\nA: c\r\nD: e\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n"), "one|two|");
    assert_string_equal(parts(TYPE, "--b\r\n\r\n\r\n--b\r\nA: c\r\n\r\n\r\n--b--"), "||");
    assert_string_equal(parts(TYPE, "preamble\r\n--b\r\n\r\none\r\n--b--epilogue\r\n--b\r\n\r\nno\r\n--b--"), "one|");
    assert_string_equal(parts(TYPE, "--b  \t\r\n\r\none\r\n--b \r\n\r\ntwo\r\n--b--"), "one|two|");
    assert_string_equal(parts(TYPE, "--b\r\n\r\none\n--b\r--b\r\n-b\r\n--b--"), "one\n--b\r--b\r\n-b|");
    assert_string_equal(parts(TYPE, "--b--"), "");
}

static void test_boundaries(void **state)
{
    char type[200] = "multipart/form-data; boundary=", body[300] = "";
    (void)state;
    assert_string_equal(
        parts("multipart/form-data; charset=x;  Boundary=\"a b'()?\"; z=1", "--a b'()?\r\n\r\none\r\n--a b'()?--"),
        "one|");
    assert_string_equal(parts("multipart/form-data;boundary=b;x=y", "--b\r\n\r\none\r\n--b--"), "one|");
    memset(type + strlen(type), 'q', XN_MULTIPART_BOUNDARY_MAX);
    snprintf(body, sizeof(body), "--%s\r\n\r\none\r\n--%s--", strchr(type, '=') + 1, strchr(type, '=') + 1);
    assert_string_equal(parts(type, body), "one|");
    strcat(type, "q");
    static const char *const without[] = {"",
                                          "multipart/form-data",
                                          "multipart/form-data; boundary=",
                                          "multipart/form-data; boundary=\"\"",
                                          "multipart/form-data; xboundary=b",
                                          "multipart/form-data;;;"};
    for (size_t i = 0; i < XN_ARRAY_LEN(without); i++)
        assert_non_null(strstr(parts(without[i], "--b\r\n\r\none\r\n--b--"), "needs a boundary"));
    assert_non_null(strstr(parts(type, body), "needs a boundary"));
}

static void test_errors(void **state)
{
    (void)state;
    assert_non_null(strstr(parts(TYPE, ""), "does not occur"));
    assert_non_null(strstr(parts(TYPE, "-b\r\n"), "does not occur"));
    assert_non_null(strstr(parts(TYPE, "--b"), "cut short after a boundary"));
    assert_non_null(strstr(parts(TYPE, "--b\r\nA: c"), "empty line"));
    assert_non_null(strstr(parts(TYPE, "--b\r\n\r\none"), "closing boundary is missing"));
    assert_non_null(strstr(parts(TYPE, "--b\r\n\r\none\r\n--b"), "cut short after a boundary"));
}

/* A body of exactly `bytes`: a sanitizer sees a read behind it. Every part must lie inside. */
static bool takes(const char *body, size_t bytes)
{
    char *exact = malloc(bytes ? bytes : 1);
    struct xn_part part;
    int r;

    assert_non_null(exact);
    memcpy(exact, body, bytes);
    error.text[0] = '\0';
    r = xn_multipart_init(&m, TYPE, exact, bytes, &error);
    while (r >= 0 && (r = xn_multipart_next(&m, &part, &error)) > 0)
        assert_true((const char *)part.data >= exact && part.bytes <= bytes &&
                    (const char *)part.data <= exact + (bytes - part.bytes));
    free(exact);
    assert_true(r == 0 || (r == -EINVAL && error.text[0]));
    return r == 0;
}

static void test_every_prefix_and_every_damage(void **state)
{
    static const char body[] = "--b\r\nA: c\r\n\r\none\r\n--b\r\n\r\n\r\n--b\r\n\r\ntwo\r\n--b--";
    size_t bytes = sizeof(body) - 1;
    char damaged[sizeof(body)];
    (void)state;
    assert_true(takes(body, bytes));
    for (size_t n = 0; n < bytes; n++)
        assert_false(takes(body, n));
    for (size_t at = 0; at < bytes; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(damaged, body, sizeof(body));
            damaged[at] = (char)(damaged[at] ^ 1 << bit);
            (void)takes(damaged, bytes);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_boundaries),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_every_prefix_and_every_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
