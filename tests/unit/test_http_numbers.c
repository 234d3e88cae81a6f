/* SPDX-License-Identifier: Apache-2.0
 * Tensors as JSON numbers: what is read without jansson, the grammar of numbers at its edges, and that both ways agree on random documents, whole and damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/numbers_twin.h"

#define NESTED     "[[[[1,2],[3,4],[5,6]],[[7,8],[9,10],[11,12]],[[13,14],[15,16],[17,18]],[[19,20],[21,22],[23,24]]]]"
#define FLAT       "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24]"
#define V2(data)   "{\"inputs\":[{\"name\":\"pixels\",\"shape\":[1,4,3,2],\"datatype\":\"UINT8\",\"data\":" data "}]}"
#define BESIDE     "{\"id\":\"a \\\" b\",\"outputs\":[{}],\"inputs\":[{\"parameters\":{\"data\":[7]},\"data\":[1]}]}"
#define ROUNDS     4000
#define BODY_BYTES 4096

static struct http_bed bed;
static struct xn_error error;

static int set_up(void **state)
{
    (void)state;
    http_bed_init(&bed);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    http_bed_done(&bed);
    return 0;
}

static bool found(const char *json, enum xn_numbers_place place, struct xn_numbers *ret)
{
    char *exact = malloc(strlen(json)); /* a sanitizer sees reads behind it */

    assert_non_null(exact);
    memcpy(exact, json, strlen(json));
    bool is_found = xn_numbers_find(exact, strlen(json), place, ret);
    free(exact);
    return is_found;
}

/* What clients send is read without jansson. */
static void test_usual(void **state)
{
    static const char *const usual[] = {V2(FLAT), V2(NESTED), V2(" [ 1.0 ,\n\t2.00,-0 ] "), BESIDE};
    struct xn_numbers numbers;
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(usual); i++)
        assert_true(found(usual[i], XN_NUMBERS_V2, &numbers) && !numbers.is_list);
    assert_true(found(V2(NESTED), XN_NUMBERS_V2, &numbers));
    assert_int_equal(numbers.shape.rank, 4);
    assert_int_equal(numbers.shape.size[1], 4);
    assert_int_equal(numbers.count, 24);
    assert_int_equal(numbers.low, 1);
    assert_int_equal(numbers.high, 24);
    assert_int_equal(numbers.bytes, strlen(NESTED));
    assert_true(found("{\"tensor\":" FLAT "}", XN_NUMBERS_INFER, &numbers) && !numbers.is_list);
    assert_true(found("{\"top_k\":2,\"tensors\":[" FLAT "," FLAT "]}", XN_NUMBERS_INFER, &numbers) && numbers.is_list);
}

/* What may be something else is not. */
static void test_left_to_jansson(void **state)
{
    static const char *const others[] = {V2("[01]"),
                                         V2("[1.]"),
                                         V2("[.5]"),
                                         V2("[-]"),
                                         V2("[+1]"),
                                         V2("[1,]"),
                                         V2("[,1]"),
                                         V2("[1 2]"),
                                         V2("[]"),
                                         V2("[[]]"),
                                         V2("[1000]"),
                                         V2("[1e2]"),
                                         V2("[1.5]"),
                                         V2("[NaN]"),
                                         V2("[Infinity]"),
                                         V2("[1e400]"),
                                         V2("[99999999999999999999]"),
                                         V2("[0x1]"),
                                         V2("[- 1]"),
                                         V2("[1,[2]]"),
                                         V2("[[1],2]"),
                                         V2("[[1,2],[3]]"),
                                         V2("[[[[[[[[[1]]]]]]]]]"),
                                         V2("[1"),
                                         V2("\"[1]\""),
                                         V2("[\"1\"]"),
                                         V2("[true]"),
                                         V2("1"),
                                         "{\"inputs\":[{\"d\\u0061ta\":[1]}]}",
                                         "{\"outputs\":[{\"data\":[1]}]}",
                                         "{\"inputs\":{\"data\":[1]}}",
                                         "[{\"inputs\":[{\"data\":[1]}]}]",
                                         "{\"inputs\":[[{\"data\":[1]}]]}",
                                         "{\"inputs\":[{\"data",
                                         "{\"inputs\":[{\"data\"",
                                         "{\"inputs\":[{\"data\":",
                                         ""};
    struct xn_numbers numbers;
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(others); i++) {
        if (found(others[i], XN_NUMBERS_V2, &numbers))
            fail_msg("%s", others[i]);
    }
}

/* ---- both ways agree ---------------------------------------------------------------------------------------------- */

static void assert_agrees(const char *text, size_t bytes)
{
    bool is_v2 = memmem(text, bytes, "inputs", 6) != NULL;

    for (int dtype = 0; dtype < 2; dtype++) {
        bed.network.input.dtype = dtype ? XN_DTYPE_I8 : XN_DTYPE_U8;
        if (!numbers_twin_agrees(&bed, is_v2, text, bytes, NULL, 0, &error))
            fail_msg("%s\n%.*s", error.text, (int)bytes, text);
    }
    bed.network.input.dtype = XN_DTYPE_U8;
}

/* One number of 24 is each of these. */
static void test_grammar(void **state)
{
    static const char *const numbers[] = {"0",
                                          "-0",
                                          "00",
                                          "-00",
                                          "01",
                                          "-01",
                                          "1.",
                                          ".1",
                                          "1.0",
                                          "-0.0",
                                          "1.00000000000000000000000000000",
                                          "1.00000000000000000000000000001",
                                          "0.1",
                                          "2.5",
                                          "255",
                                          "255.0",
                                          "256",
                                          "-1",
                                          "-128",
                                          "-129",
                                          "127.0",
                                          "128",
                                          "999",
                                          "1000",
                                          "1e0",
                                          "1e1",
                                          "1E2",
                                          "1e-1",
                                          "10e-1",
                                          "1e+0",
                                          "1e",
                                          "1e+",
                                          "1e400",
                                          "-1e400",
                                          "1e-400",
                                          "18446744073709551616",
                                          "9223372036854775807",
                                          "-9223372036854775808",
                                          "NaN",
                                          "Infinity",
                                          "-Infinity",
                                          "nan",
                                          "null",
                                          "true",
                                          "\"1\"",
                                          "{}",
                                          "[1]",
                                          "[]",
                                          "+1",
                                          "- 1",
                                          "--1",
                                          "0x10",
                                          "1 ",
                                          " 1",
                                          "1\t",
                                          "1\n",
                                          "1\r",
                                          "1\f",
                                          "1\v",
                                          "1_0",
                                          "1,",
                                          "",
                                          ",1",
                                          "1 2",
                                          "1/**/",
                                          "\xc2\xa0\x31",
                                          "\xef\xbc\x91",
                                          "1\\u0020",
                                          "1;"};
    char body[BODY_BYTES];
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(numbers); i++) {
        int n = snprintf(body, sizeof(body), V2("[0,%s,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24]"),
                         numbers[i]);
        assert_agrees(body, (size_t)n);
        n = snprintf(body, sizeof(body),
                     "{\"tensor\":[0,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,%s]}", numbers[i]);
        assert_agrees(body, (size_t)n);
    }
    assert_agrees("{\"tensor\":[1,\0"
                  "2]}",
                  16);
}

/* Names twice, written otherwise, in other places; nesting; texts that are no JSON behind an array that is. */
static void test_documents(void **state)
{
    static const char *const documents[] = {
        V2(FLAT ",\"data\":" FLAT),
        V2(FLAT ",\"d\\u0061ta\":" FLAT),
        V2(FLAT "}],\"inputs\":[{\"data\":[1]"),
        V2(FLAT "}],\"inp\\u0075ts\":[{\"data\":[1]"),
        V2(FLAT "},{\"data\":[1]"),
        V2(FLAT ",\"x\":01"),
        V2(FLAT "]"),
        V2(FLAT ",\"parameters\":{\"binary_data_size\":24}"),
        V2(FLAT ",\"datatype\":\"INT8\""),
        V2("[" FLAT "]"),
        V2("[[" FLAT "]]"),
        V2("[[[[[[[[[[" NESTED "]]]]]]]]]]"),
        V2(FLAT ",\"\xff\":1"),
        V2(FLAT ",\"a\":\"\\ud800\""),
        "{\"inputs\":[{\"name\":\"pixels\",\"shape\":[2,4,3,2],\"datatype\":\"UINT8\",\"data\":[" NESTED "," NESTED
        "]}]}",
        "{\"inputs\":[{\"name\":\"pixels\",\"shape\":[9,4,3,2],\"datatype\":\"UINT8\",\"data\":" FLAT "}]}",
        "{\"inputs\":[{\"name\":\"pixels\",\"shape\":[1],\"datatype\":\"BYTES\",\"data\":[1]}]}",
        "{\"inputs\":[{\"data\":" FLAT "}],\"outputs\":[{\"name\":\"logits\",\"data\":" FLAT "}]}",
        "{\"inputs\":[{\"name\":\"pixels\",\"shape\":[1,4,3,2],\"datatype\":\"UINT8\",\"data\":[]}],\"outputs\":[{"
        "\"name\":\"logits\",\"data\":" FLAT "}]}",
        "{\"tensors\":[" FLAT "," NESTED "]}",
        "{\"tensors\":[" FLAT "," FLAT "]}",
        "{\"tensors\":" FLAT "}",
        "{\"tensor\":[" FLAT "]}",
        "{\"tensors\":[]}",
        "{\"tensor\":" FLAT ",\"tensors\":[" FLAT "]}",
        "{\"tensor\":" FLAT ",\"top_k\":0}",
        "{\"tensor\":" FLAT ",\"timeout_ms\":5,\"priority\":3}",
        "{\"tensor\":" FLAT "} x",
        "{\"tensor\":" FLAT,
        "\xef\xbb\xbf{\"tensor\":" FLAT "}",
        "[{\"tensor\":" FLAT "}]",
        "{\"a\":{\"tensor\":" FLAT "}}",
        "{\"image\":\"AQ==\",\"tensor\":" FLAT "}",
        "{\"tensors\":[" FLAT "," FLAT "," FLAT "," FLAT "," FLAT "," FLAT "," FLAT "," FLAT "," FLAT "]}"};
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(documents); i++)
        assert_agrees(documents[i], strlen(documents[i]));
}

static unsigned seed;

static unsigned below(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

static char *put_blanks(char *at)
{
    for (unsigned n = below(8) == 0 ? below(4) : 0; n > 0; n--)
        *at++ = " \n\t\r"[below(4)];
    return at;
}

/* `n` numbers, in brackets along `dims` from the first on. */
static char *put_array(char *at, const unsigned *dims, unsigned rank)
{
    unsigned total = 1, inner[4];

    for (unsigned k = 0; k < rank; k++)
        total *= dims[k];
    for (unsigned k = rank, size = 1; k-- > 0;)
        inner[k] = size *= dims[k];
    for (unsigned i = 0; i < total; i++) {
        for (unsigned k = 0; k < rank; k++) {
            if (i % inner[k] == 0) {
                *at++ = '[';
                at = put_blanks(at);
            }
        }
        at += sprintf(at, "%s%u", below(60) == 0 ? "-" : "", below(60) == 0 ? below(400) : below(128));
        at = stpcpy(at, below(30) == 0 ? ".0" : below(200) == 0 ? "e0" : "");
        at = put_blanks(at);
        for (unsigned k = rank; k-- > 0;) {
            if ((i + 1) % inner[k] == 0) {
                *at++ = ']';
                at = put_blanks(at);
            }
        }
        if (i + 1 < total)
            *at++ = ',';
    }
    return at;
}

static size_t make_document(char *text)
{
    static const unsigned flat[] = {24}, nested[] = {1, 4, 3, 2}, image[] = {4, 3, 2}, two[] = {2, 24}, odd[] = {4, 6};
    static const struct {
        const unsigned *dims;
        unsigned rank;
    } shapes[] = {{flat, 1}, {nested, 4}, {image, 3}, {two, 2}, {odd, 2}};
    unsigned k = below(8) < 6 ? below(3) : below(XN_ARRAY_LEN(shapes));
    bool is_v2 = below(2);
    char *at = text;

    if (is_v2)
        at = stpcpy(at, "{\"inputs\":[{\"name\":\"pixels\",\"shape\":[1,4,3,2],\"datatype\":\"UINT8\",\"data\":");
    else
        at = stpcpy(at, k == 3 ? "{\"tensors\":" : "{\"top_k\":3,\"tensor\":");
    at = put_array(at, shapes[k].dims, shapes[k].rank);
    at = stpcpy(at, is_v2 ? "}],\"id\":\"x\"}" : "}");
    return (size_t)(at - text);
}

static size_t damage(char *text, size_t bytes)
{
    static const char likely[] = "[]{},:\"0123456789.eE+- \n\\tau";
    size_t at = below((unsigned)bytes);

    switch (below(3)) {
    case 0:
        text[at] = likely[below(sizeof(likely) - 1)];
        return bytes;
    case 1:
        memmove(text + at, text + at + 1, bytes - at - 1);
        return bytes - 1;
    default:
        memmove(text + at + 1, text + at, bytes - at);
        text[at] = likely[below(sizeof(likely) - 1)];
        return bytes + 1;
    }
}

static void test_random(void **state)
{
    const char *given = getenv("XN_SEED");
    char text[BODY_BYTES + 8];
    struct xn_numbers numbers;
    uint32_t n_found = 0;
    (void)state;
    seed = given ? (unsigned)strtoul(given, NULL, 10) : 784;
    printf("# seed %u (XN_SEED=)\n", seed);
    for (int i = 0; i < ROUNDS; i++) {
        size_t bytes = make_document(text);
        assert_true(bytes < BODY_BYTES);
        for (unsigned n = below(3); n > 0; n--)
            bytes = damage(text, bytes);
        n_found +=
            xn_numbers_find(text, bytes, memmem(text, bytes, "inputs", 6) ? XN_NUMBERS_V2 : XN_NUMBERS_INFER, &numbers);
        assert_agrees(text, bytes);
    }
    printf("# %u of %d were read without jansson\n", n_found, ROUNDS);
    assert_true(n_found > ROUNDS / 4 && n_found < ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual),     cmocka_unit_test(test_left_to_jansson), cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_documents), cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests_name("http_numbers", tests, set_up, tear_down);
}
