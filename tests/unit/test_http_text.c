/* SPDX-License-Identifier: Apache-2.0
 * JSON text into a fixed buffer, and the table of statuses. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "daemon/http/status.h"
#include "daemon/http/text.h"
#include "tests/support/random_network.h"

static char buffer[512];
static struct xn_text text;

static const char *made(void)
{
    assert_false(text.overflow);
    buffer[text.bytes] = '\0';
    return buffer;
}

static void start(void)
{
    xn_text_init(&text, buffer, sizeof(buffer) - 1);
}

static const char *string(const char *s)
{
    start();
    xn_text_string(&text, s);
    return made();
}

static void test_strings(void **state)
{
    (void)state;
    assert_string_equal(string(""), "\"\"");
    assert_string_equal(string("plain \xc3\xa4 \xf0\x9f\x98\x80"), "\"plain \xc3\xa4 \xf0\x9f\x98\x80\"");
    assert_string_equal(string("\"\\/\n\r\t\x01\x1f\x7f"), "\"\\\"\\\\/\\n\\u000d\\u0009\\u0001\\u001f\\u007f\"");
    assert_string_equal(string("\"a\"\"b"), "\"\\\"a\\\"\\\"b\"");
}

/* Whatever valid UTF-8 goes in comes out of a JSON parser again. */
static void test_strings_come_back(void **state)
{
    struct xn_random random = {xn_random_seed(1)};
    (void)state;
    for (int round = 0; round < 2000; round++) {
        char s[40] = "";
        size_t n = xn_random_below(&random, 30);
        for (size_t i = 0; i < n; i++)
            s[i] = (char)xn_random_between(&random, 1, 127);
        const char *written = string(s);
        json_t *back = json_loads(written, JSON_DECODE_ANY, NULL);
        assert_non_null(back);
        assert_string_equal(json_string_value(back), s);
        json_decref(back);
    }
}

static const char *integer(bool is_signed, uint64_t value)
{
    start();
    if (is_signed)
        xn_text_i64(&text, (int64_t)value);
    else
        xn_text_u64(&text, value);
    return made();
}

static void test_integers(void **state)
{
    (void)state;
    assert_string_equal(integer(false, 0), "0");
    assert_string_equal(integer(false, 10), "10");
    assert_string_equal(integer(false, UINT64_MAX), "18446744073709551615");
    assert_string_equal(integer(true, 0), "0");
    assert_string_equal(integer(true, (uint64_t)-1), "-1");
    assert_string_equal(integer(true, (uint64_t)INT64_MIN), "-9223372036854775808");
    assert_string_equal(integer(true, INT64_MAX), "9223372036854775807");
}

static const char *real(double value, int digits)
{
    start();
    xn_text_double(&text, value, digits);
    return made();
}

static void test_doubles(void **state)
{
    (void)state;
    assert_string_equal(real(0.5, 4), "0.5");
    assert_string_equal(real(-1.0, 4), "-1");
    assert_string_equal(real(1.0 / 3, 4), "0.3333");
    assert_string_equal(real(NAN, 4), "null");
    assert_string_equal(real(-INFINITY, 4), "null");
    assert_true(strtod(real(-DBL_MAX, 17), NULL) == -DBL_MAX);
    assert_true(strtod(real(DBL_TRUE_MIN, 17), NULL) == DBL_TRUE_MIN);
}

/* Nine digits carry any float over. */
static void test_floats_come_back(void **state)
{
    struct xn_random random = {xn_random_seed(2)};
    (void)state;
    for (int round = 0; round < 20000; round++) {
        uint32_t bits = (uint32_t)xn_random_next(&random);
        float value;
        memcpy(&value, &bits, sizeof(value));
        if (!isfinite(value))
            continue;
        float back = strtof(real((double)value, 9), NULL);
        assert_memory_equal(&back, &value, sizeof(value));
        assert_in_range(text.bytes, 1, 16);
    }
}

/* Nothing is written behind the end, and once something did not fit nothing more is. */
static void test_overflow(void **state)
{
    (void)state;
    for (size_t capacity = 0; capacity < 12; capacity++) {
        char *small = malloc(capacity ? capacity : 1);
        assert_non_null(small);
        xn_text_init(&text, small, capacity);
        xn_text_put(&text, "{\"a\":");
        xn_text_string(&text, "b\n");
        xn_text_put(&text, "}");
        assert_int_equal(text.overflow, capacity < 11);
        assert_true(text.bytes <= capacity);
        xn_text_put(&text, "");
        assert_int_equal(text.overflow, capacity < 11);
        free(small);
    }
}

static void test_statuses(void **state)
{
    static const struct {
        int error;
        unsigned code;
        bool again;
    } expected[] = {{-EINVAL, 400, false},     {-EBADMSG, 400, false},   {-ENOENT, 404, false},
                    {-ENXIO, 404, false},      {-ENOTTY, 405, false},    {-ETIME, 408, false},
                    {-EFBIG, 413, false},      {-E2BIG, 413, false},     {-EMEDIUMTYPE, 415, false},
                    {-EOPNOTSUPP, 501, false}, {-ENOBUFS, 503, true},    {-EAGAIN, 503, true},
                    {-ETIMEDOUT, 503, false},  {-ESHUTDOWN, 503, false}, {-ECANCELED, 503, false},
                    {-EIO, 503, true},         {-EXDEV, 500, false},     {0, 500, false}};
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(expected); i++) {
        struct xn_status status = xn_status_of(expected[i].error);
        assert_int_equal(status.code, expected[i].code);
        assert_int_equal(status.retry_after_s > 0, expected[i].again);
        assert_true(status.reject < XN_REJECT_COUNT && (status.code != 500 || status.reject == XN_REJECT_INTERNAL));
    }
}

/* A full queue alone is answered as the configuration says; how it is counted, and when to come again, stay. */
static void test_configured_statuses(void **state)
{
    struct xn_config config;

    (void)state;
    xn_config_init(&config);
    assert_int_equal(xn_status_configured(&config, -ENOBUFS).code, 503);
    config.http.queue_full_status = XN_QUEUE_FULL_429;
    struct xn_status full = xn_status_configured(&config, -ENOBUFS);
    assert_int_equal(full.code, 429);
    assert_int_equal(full.reject, XN_REJECT_QUEUE_FULL);
    assert_int_equal(full.retry_after_s, xn_status_of(-ENOBUFS).retry_after_s);
    assert_int_equal(xn_status_configured(&config, -EBUSY).code, 503);
    assert_int_equal(xn_status_configured(&config, -EAGAIN).code, 503);
    xn_config_done(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),  cmocka_unit_test(test_strings_come_back),   cmocka_unit_test(test_integers),
        cmocka_unit_test(test_doubles),  cmocka_unit_test(test_floats_come_back),    cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_statuses), cmocka_unit_test(test_configured_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
