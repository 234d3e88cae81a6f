/* SPDX-License-Identifier: Apache-2.0
 * From bodies to items, for both doors. The messages of most errors are checked over the wire by tests/integration/test_http_errors.py; here are the
 * bytes that arrive at the accelerator, the limits, and what depends on the type of the input. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/support/http_bed.h"

#define ONE "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24"
#define PNG "\x89PNG\r\n\x1a\n...."

static struct http_bed bed;
static struct xn_error error;
static const uint8_t one_to_24[24] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                                      13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};

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

static int plain(const void *body, size_t bytes, const char *content_type)
{
    http_bed_request(&bed, body, bytes);
    return xn_body_parse_plain(bed.call.request, content_type, &error);
}

static int json(const char *body)
{
    http_bed_request(&bed, body, strlen(body));
    return xn_body_parse_json(bed.call.request, &bed.call.ask, &error);
}

static int v2(const char *head, const void *tail, size_t tail_bytes)
{
    char body[4096];
    size_t n = strlen(head);

    memcpy(body, head, n);
    memcpy(body + n, tail, tail_bytes);
    http_bed_request(&bed, body, n + tail_bytes);
    return xn_body_parse_v2(bed.call.request, tail_bytes ? (int64_t)n : -1, bed.regions, &bed.call.ask, &error);
}

static const struct xn_item *item(uint32_t i)
{
    assert_true(http_bed_items_are_sound(&bed));
    assert_true(i < bed.call.request->n_items);
    return &bed.call.request->items[i];
}

static void assert_tensor(uint32_t i, const void *want)
{
    assert_null(item(i)->encoded);
    assert_memory_equal(item(i)->input, want, bed.network.input_bytes);
}

static void assert_fails(int r, int want, const char *words)
{
    assert_int_equal(r, want);
    if (!strstr(error.text, words))
        fail_msg("\"%s\" does not say \"%s\"", error.text, words);
}

/* ---- POST /infer -------------------------------------------------------------------------------------------------- */

static void test_plain(void **state)
{
    uint8_t body[9 * 24];
    (void)state;
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (uint8_t)(i * 7);
    for (uint32_t n = 1; n <= BED_IMAGES_MAX; n++) {
        assert_int_equal(plain(body, n * sizeof(one_to_24), NULL), 0);
        assert_int_equal(bed.call.request->n_items, n);
        for (uint32_t i = 0; i < n; i++)
            assert_tensor(i, body + i * 24);
    }
    assert_fails(plain(body, sizeof(body), NULL), -E2BIG, "9 images");
    assert_fails(plain(body, 23, "text/plain"), -EINVAL, "23 bytes are neither");
    assert_fails(plain(body, 25, "image/png"), -EMEDIUMTYPE, "[4][3][2] uint8, 24 bytes");
    assert_fails(plain(body, 0, "image/png"), -EINVAL, "the body is empty");
}

static void test_pictures(void **state)
{
    uint8_t two[48] = {0};
    (void)state;
    assert_int_equal(plain(PNG, sizeof(PNG) - 1, NULL), 0);
    assert_int_equal(item(0)->encoded_bytes, sizeof(PNG) - 1);
    assert_memory_equal(item(0)->encoded, PNG, sizeof(PNG) - 1);
    /* The second of two tensors may begin like a picture; the first is one then. */
    memcpy(two + 24, PNG, sizeof(PNG) - 1);
    assert_int_equal(plain(two, sizeof(two), NULL), 0);
    assert_tensor(1, two + 24);
    bed.network.input.is_image = false;
    assert_fails(plain(PNG, sizeof(PNG) - 1, NULL), -EMEDIUMTYPE, "takes tensors");
    bed.network.input.is_image = true;
    static const char *const others[] = {"GIF89a..",     "RIFF....WEBPVP8 ", "II*\0....", "MM\0*....",
                                         "....ftypavif", "....jP  \r\n",     "BM......"};
    static const size_t bytes[] = {8, 16, 8, 8, 12, 10, 8};
    for (size_t i = 0; i < XN_ARRAY_LEN(others); i++)
        assert_fails(plain(others[i], bytes[i], NULL), -EMEDIUMTYPE, "pictures are not supported");
}

static void test_json_tensors(void **state)
{
    (void)state;
    assert_int_equal(json("{\"tensor\":[" ONE "]}"), 0);
    assert_tensor(0, one_to_24);
    assert_int_equal(
        json("{\"tensors\":[[" ONE
             "],[[[[1,2],[3,4],[5,6]],[[7,8],[9,10],[11,12]],[[13,14],[15,16],[17,18]],[[19,20],[21,22],[23,"
             "2.4e1]]]]],\"top_k\":7,\"timeout_ms\":3}"),
        0);
    assert_tensor(0, one_to_24);
    assert_tensor(1, one_to_24);
    assert_int_equal(bed.call.ask.top_k, 7);
    assert_int_equal(bed.call.ask.timeout_ns, 3 * XN_NS_PER_MS);
    /* The right number of elements in another shape is another tensor. */
    assert_fails(json("{\"tensor\":[[1,2,3,4,5,6,7,8,9,10,11,12],[1,2,3,4,5,6,7,8,9,10,11,12]]}"), -EINVAL,
                 "has shape [2][12]");
    assert_fails(json("{\"tensor\":[[[1,2,3,4],[5,6,7,8],[9,10,11,12]],[[1,2,3,4],[5,6,7,8],[9,10,11,12]]]}"), -EINVAL,
                 "has shape [2][3][4]");
}

static void test_json_ranges(void **state)
{
    static const struct {
        const char *number;
        bool in_u8, in_i8;
    } cases[] = {{"0", true, true},
                 {"-0.0", true, true},
                 {"127", true, true},
                 {"128", true, false},
                 {"255", true, false},
                 {"256", false, false},
                 {"-1", false, true},
                 {"-128", false, true},
                 {"-129", false, false},
                 {"1.5", false, false},
                 {"1e308", false, false},
                 {"-1e308", false, false},
                 {"9223372036854775807", false, false},
                 {"null", false, false},
                 {"\"1\"", false, false},
                 {"true", false, false},
                 {"[1]", false, false},
                 {"{}", false, false}};
    char body[256];
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++) {
        snprintf(body, sizeof(body), "{\"tensor\":[0,%s,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24]}",
                 cases[i].number);
        bed.network.input.dtype = XN_DTYPE_U8;
        assert_int_equal(json(body), cases[i].in_u8 ? 0 : -EINVAL);
        bed.network.input.dtype = XN_DTYPE_I8;
        assert_int_equal(json(body), cases[i].in_i8 ? 0 : -EINVAL);
        if (cases[i].in_i8)
            assert_int_equal(((const int8_t *)item(0)->input)[1], (int8_t)atof(cases[i].number));
        else
            assert_non_null(strstr(error.text, "element 1 is not a whole number from -128 to 127"));
    }
    bed.network.input.dtype = XN_DTYPE_U8;
}

static void test_json_base64(void **state)
{
    (void)state;
    /* 24 bytes 1..24, and the PNG above */
    assert_int_equal(json("{\"images\":[\"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcY\",\"iVBORw0KGgouLi4u\","
                          "\"AQIDBAUGBwgJCgsM\\nDQ4PEBESExQVFhcY\"]}"),
                     0);
    assert_tensor(0, one_to_24);
    assert_int_equal(item(1)->encoded_bytes, sizeof(PNG) - 1);
    assert_memory_equal(item(1)->encoded, PNG, sizeof(PNG) - 1);
    assert_tensor(2, one_to_24);
    assert_fails(json("{\"image\":\"AQID BAUG*\"}"), -EINVAL, "image 0: not valid base64");
    assert_fails(json("{\"image\":\"AQ\"}"), -EINVAL, "image 0: not valid base64");
}

/* A tree that would take too much memory is refused. */
static void test_json_memory(void **state)
{
    size_t n = (BED_BODY_BYTES - 32) / 3;
    char *body = malloc(n * 3 + 32), *at = body;
    (void)state;
    assert_non_null(body);
    at = stpcpy(at, "{\"tensor\":[{}");
    for (size_t i = 1; i < n; i++)
        at = stpcpy(at, ",{}");
    strcpy(at, "]}");
    assert_fails(json(body), -E2BIG, "64 MiB");
    assert_int_equal(json("{\"tensor\":[" ONE "]}"), 0);
    free(body);
}

static char large[BED_BODY_BYTES]; /* what it could become, by its length, is as much as one tree may */
static pthread_barrier_t barrier;

static void *hold_tree(void *argument)
{
    struct xn_error reason;
    json_t *root = NULL;
    int *ret = argument;

    *ret = xn_body_load_json(large, sizeof(large), NULL, &root, &reason);
    pthread_barrier_wait(&barrier); /* loaded */
    pthread_barrier_wait(&barrier); /* to be given back */
    if (*ret == 0)
        xn_body_free_json(root);
    return NULL;
}

/* So is one for which the others leave nothing, until they are gone. */
static void test_json_memory_of_all(void **state)
{
    enum { N = XN_JSON_TREES_BYTES_MAX / XN_JSON_TREE_BYTES_MAX };
    pthread_t threads[N];
    int results[N];
    json_t *root;
    (void)state;
    memset(large, ' ', sizeof(large));
    large[0] = '{';
    large[sizeof(large) - 1] = '}';
    pthread_barrier_init(&barrier, NULL, N + 1);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hold_tree, &results[i]), 0);
    pthread_barrier_wait(&barrier);
    int r = xn_body_load_json(large, sizeof(large), NULL, &root, &error);
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(results[i], 0);
    }
    assert_fails(r, -EAGAIN, "try again later");
    assert_int_equal(xn_body_load_json(large, sizeof(large), NULL, &root, &error), 0);
    xn_body_free_json(root);
    pthread_barrier_destroy(&barrier);
}

/* ---- Open Inference Protocol -------------------------------------------------------------------------------------- */

static void test_v2_json(void **state)
{
    (void)state;
    bed.call.ask.timeout_ns = 5;
    assert_int_equal(
        v2("{\"id\":\"x\",\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[2,4,3,2],\"data\":[" ONE
           "," ONE "]}]}",
           "", 0),
        0);
    assert_int_equal(bed.call.request->n_items, 2);
    assert_tensor(0, one_to_24);
    assert_tensor(1, one_to_24);
    assert_true(bed.call.ask.has_id && strcmp(bed.call.ask.id, "x") == 0);
    assert_int_equal(bed.call.ask.n_outputs, 2);
    assert_true(!bed.call.ask.outputs[0].binary && !bed.call.ask.outputs[0].accumulators &&
                bed.call.ask.outputs[1].accumulators);
}

/* parameters.timeout overrides ?timeout_ms=, which stays where there is none. */
static void test_v2_timeout(void **state)
{
    static const char head[] =
        "{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[4,3,2],\"data\":[" ONE "]}]%s}";
    static const struct {
        const char *more;
        uint64_t want_ns;
    } cases[] = {{"", 9},
                 {",\"parameters\":{}", 9},
                 {",\"parameters\":{\"timeout\":0}", 9},
                 {",\"parameters\":{\"timeout\":7}", 7000}};
    char body[512];
    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++) {
        snprintf(body, sizeof(body), head, cases[i].more);
        http_bed_request(&bed, body, strlen(body));
        bed.call.ask.timeout_ns = 9;
        assert_int_equal(xn_body_parse_v2(bed.call.request, -1, NULL, &bed.call.ask, &error), 0);
        assert_int_equal(bed.call.ask.timeout_ns, cases[i].want_ns);
    }
}

static void test_v2_binary(void **state)
{
    uint8_t two[48];
    (void)state;
    memcpy(two, one_to_24, 24);
    memcpy(two + 24, PNG "............", 24);
    assert_int_equal(v2("{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[2,4,3,2],\"parameters\":{"
                        "\"binary_data_size\":48}}],"
                        "\"parameters\":{\"binary_data_output\":true},\"outputs\":[{\"name\":\"accumulators\"}]}",
                        two, sizeof(two)),
                     0);
    assert_tensor(0, two);
    assert_tensor(1, two + 24); /* never sniffed: a tensor it was called */
    assert_true(bed.call.ask.n_outputs == 1 && bed.call.ask.outputs[0].accumulators && bed.call.ask.outputs[0].binary);
}

static void test_v2_bytes(void **state)
{
    uint8_t tail[4 + 12 + 4 + 24] = {12, 0, 0, 0};
    (void)state;
    memcpy(tail + 4, PNG, 12);
    tail[16] = 24;
    memcpy(tail + 20, one_to_24, 24);
    assert_int_equal(v2("{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"BYTES\",\"shape\":[2],\"parameters\":{"
                        "\"binary_data_size\":44}}]}",
                        tail, sizeof(tail)),
                     0);
    assert_int_equal(item(0)->encoded_bytes, 12);
    assert_tensor(1, one_to_24);
}

static void test_v2_raw(void **state)
{
    (void)state;
    http_bed_request(&bed, one_to_24, 24);
    assert_int_equal(xn_body_parse_v2(bed.call.request, 0, NULL, &bed.call.ask, &error), 0);
    assert_tensor(0, one_to_24);
    assert_true(bed.call.ask.n_outputs == 2 && bed.call.ask.outputs[0].binary && bed.call.ask.outputs[1].binary);
    http_bed_request(&bed, one_to_24, 23);
    assert_fails(xn_body_parse_v2(bed.call.request, 0, NULL, &bed.call.ask, &error), -EINVAL, "23 bytes");
    http_bed_request(&bed, "{}", 2);
    assert_fails(xn_body_parse_v2(bed.call.request, 3, NULL, &bed.call.ask, &error), -EINVAL, "says 3, the body has 2");
}

#define SHARED(offset, bytes)                                                                                          \
    "\"parameters\":{\"shared_memory_region\":\"r\",\"shared_memory_offset\":" offset                                  \
    ",\"shared_memory_byte_size\":" bytes "}"

/* Tensors in place, at any offset; the region is held as often as it is used. */
static void test_v2_shared(void **state)
{
    (void)state;
    memcpy(bed.region->data + 7, one_to_24, 24);
    memcpy(bed.region->data + 31, one_to_24, 24);
    assert_int_equal(v2("{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[2,4,3,2]," SHARED(
                            "7", "48") "}],"
                                       "\"outputs\":[{\"name\":\"logits\"," SHARED(
                                           "100", "40") "},{\"name\":\"accumulators\"," SHARED("950", "50") "}]}",
                        "", 0),
                     0);
    assert_ptr_equal(item(0)->input, bed.region->data + 7);
    assert_ptr_equal(item(1)->input, bed.region->data + 31);
    assert_int_equal(bed.call.request->n_regions, 3);
    assert_ptr_equal(bed.call.ask.outputs[1].shared, bed.region->data + 950);
    assert_false(bed.call.ask.outputs[0].binary);
    assert_true(http_bed_items_are_sound(&bed));
    static const struct {
        const char *parameters, *text;
    } wrong[] = {
        {SHARED("0", "47"), "2 tensors of 24 bytes expected, 47"},
        {SHARED("953", "48"), "leave shared memory region"},
        {SHARED("1001", "0"), "leave shared memory region"},
        {SHARED("-1", "48"), "shared_memory_offset: must"},
        {SHARED("0", "4.5"), "shared_memory_byte_size: must"},
        {"\"parameters\":{\"shared_memory_region\":\"r\"}", "byte_size: must"},
        {"\"parameters\":{\"shared_memory_region\":\"q\",\"shared_memory_byte_size\":48}", "registered as \"q\""},
        {"\"data\":[]," SHARED("0", "48"), "exactly one of"}};
    char body[512];
    for (size_t i = 0; i < XN_ARRAY_LEN(wrong); i++) {
        snprintf(body, sizeof(body),
                 "{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[2,4,3,2],%s}]}",
                 wrong[i].parameters);
        assert_fails(v2(body, "", 0), -EINVAL, wrong[i].text);
    }
}

/* The same JSON again is not read again, and does the same with other tensors; of another network it is read anew. */
static void test_v2_again(void **state)
{
    static const char json[] =
        "{\"id\":\"again\",\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[1,4,3,2],"
        "\"parameters\":{\"binary_data_size\":24}}],\"parameters\":{\"priority\":1,\"timeout\":7}}";
    uint8_t tensor[24];
    (void)state;
    for (int round = 0; round < 40; round++) { /* others in between, more than are remembered */
        char other[256];
        memset(tensor, round, sizeof(tensor));
        assert_int_equal(v2(json, tensor, 24), 0);
        assert_tensor(0, tensor);
        assert_true(strcmp(bed.call.ask.id, "again") == 0 && bed.call.ask.priority == XN_PRIORITY_HIGH &&
                    bed.call.ask.timeout_ns == 7000 && bed.call.ask.n_outputs == 2 && bed.call.ask.top_k == 1);
        assert_fails(v2(json, tensor, 23), -EINVAL, "23 bytes follow the JSON, it says 24");
        snprintf(other, sizeof(other),
                 "{\"id\":\"%d\",\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[1,4,3,2],"
                 "\"parameters\":{\"binary_data_size\":24}}]}",
                 round);
        assert_int_equal(v2(other, tensor, 24), 0);
        assert_int_equal(atoi(bed.call.ask.id), round);
        assert_true(bed.call.ask.priority == XN_PRIORITY_NORMAL && bed.call.ask.timeout_ns == 0);
    }
    bed.network.input.dtype = XN_DTYPE_I8;
    bed.network.sha256[0]++;
    assert_fails(v2(json, tensor, 24), -EINVAL, "must be INT8");
    bed.network.input.dtype = XN_DTYPE_U8;
    assert_int_equal(v2(json, tensor, 24), 0);
}

/* Pictures are copied: the client could change them between two looks at them. */
static void test_v2_shared_pictures(void **state)
{
    uint8_t *at = bed.region->data;
    (void)state;
    memcpy(at, "\x0c\0\0\0" PNG "\x18\0\0\0", 20);
    memcpy(at + 20, one_to_24, 24);
    assert_int_equal(
        v2("{\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"BYTES\",\"shape\":[2]," SHARED("0", "44") "}]}", "", 0),
        0);
    memset(at, 0, 44);
    assert_memory_equal(item(0)->encoded, PNG, 12);
    assert_tensor(1, one_to_24);
}

/* Every prefix of a good request is an error with a text. */
static void test_v2_prefixes(void **state)
{
    static const char good[] =
        "{\"id\":\"x\",\"inputs\":[{\"name\":\"pixels\",\"datatype\":\"UINT8\",\"shape\":[1,4,3,2],\"data\":[" ONE
        "]}],\"outputs\":[{\"name\":\"logits\"}]}";
    (void)state;
    for (size_t n = 0; n < sizeof(good) - 1; n++) {
        error.text[0] = '\0';
        http_bed_request(&bed, good, n);
        assert_int_equal(xn_body_parse_v2(bed.call.request, -1, NULL, &bed.call.ask, &error), -EINVAL);
        assert_true(error.text[0]);
    }
    assert_int_equal(v2(good, "", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_json_tensors),
        cmocka_unit_test(test_json_ranges),
        cmocka_unit_test(test_json_base64),
        cmocka_unit_test(test_json_memory),
        cmocka_unit_test(test_json_memory_of_all),
        cmocka_unit_test(test_v2_json),
        cmocka_unit_test(test_v2_timeout),
        cmocka_unit_test(test_v2_binary),
        cmocka_unit_test(test_v2_bytes),
        cmocka_unit_test(test_v2_raw),
        cmocka_unit_test(test_v2_again),
        cmocka_unit_test(test_v2_shared),
        cmocka_unit_test(test_v2_shared_pictures),
        cmocka_unit_test(test_v2_prefixes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
