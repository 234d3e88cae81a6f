/* SPDX-License-Identifier: Apache-2.0
 * Answers: what they say, and that the promised capacity holds the longest of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/support/http_bed.h"
#include "tests/support/random_network.h"

static struct http_bed bed;
static char *written;
static size_t json_bytes;

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
    free(written);
    return 0;
}

/* A request of n items that have run. */
static void request(uint32_t n, enum xn_route route)
{
    http_bed_request(&bed, "", 0);
    bed.call.route = route;
    assert_int_equal(xn_request_items_init(bed.call.request, n), 0);
    for (uint32_t i = 0; i < n; i++) {
        struct xn_item *item = &bed.call.request->items[i];
        item->batch_size = n;
        item->queued_ns = 1000000;
        item->execute_start_ns = 3000000;
        item->execute_end_ns = 7000999;
        for (uint32_t k = 0; k < bed.network.n_classes; k++)
            item->logits[k] = (int32_t)k;
    }
}

/* Write into memory of exactly the promised capacity; the JSON part, parsed. */
static json_t *answer(void)
{
    size_t capacity = xn_results_capacity(&bed.call);
    struct xn_text text;

    free(written);
    written = malloc(capacity);
    assert_non_null(written);
    xn_text_init(&text, written, capacity);
    json_bytes = 0;
    if (bed.call.route == XN_ROUTE_V2_INFER)
        json_bytes = xn_results_write_v2(&bed.call, &text);
    else
        xn_results_write_infer(&bed.call, &text);
    assert_false(text.overflow);
    json_t *root = json_loadb(written, json_bytes ? json_bytes : text.bytes, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    return root;
}

static json_t *at(json_t *root, const char *array, size_t i)
{
    json_t *element = json_array_get(json_object_get(root, array), i);

    assert_non_null(element);
    return element;
}

static json_int_t integer(json_t *object, const char *key)
{
    assert_true(json_is_integer(json_object_get(object, key)));
    return json_integer_value(json_object_get(object, key));
}

static void test_infer(void **state)
{
    (void)state;
    request(2, XN_ROUTE_INFER);
    bed.call.request->items[1].logits[0] = 4;        /* as large as that of class 4: the lower index wins */
    bed.call.request->items[0].energy.joules = 0.25; /* what is over idle is not known */
    bed.call.request->items[1].energy = (struct xn_energy){.joules = 0.25, .active_j = 0.125};
    bed.call.request->items[1].decode_start_ns = 500000;
    bed.call.request->start_ns = 100000;
    bed.call.request->received_ns = 142000;
    json_t *root = answer(), *first = at(root, "results", 0), *second = at(root, "results", 1);
    assert_string_equal(json_string_value(json_object_get(root, "model")), "bed");
    assert_string_equal(json_string_value(json_object_get(root, "version")), "7");
    assert_int_equal(integer(first, "class"), 4);
    assert_int_equal(integer(second, "class"), 0);
    assert_int_equal(json_number_value(json_object_get(first, "logit")), 0); /* 4 * 0.25 - 1 */
    double sum = 0;
    for (int k = 0; k < 5; k++)
        sum += exp(0.25 * (k - 4));
    assert_true(fabs(json_number_value(json_object_get(first, "score")) - 1 / sum) < 1e-4);
    assert_null(json_object_get(first, "label"));
    assert_null(json_object_get(first, "top"));
    assert_true(json_number_value(json_object_get(first, "energy_j")) == 0.25);
    assert_null(json_object_get(first, "active_energy_j"));
    assert_true(json_number_value(json_object_get(second, "energy_j")) == 0.25);
    assert_true(json_number_value(json_object_get(second, "active_energy_j")) == 0.125);
    assert_string_equal(json_string_value(json_object_get(second, "energy_source")), "sensor");
    assert_string_equal(json_string_value(json_object_get(first, "instance")), "fake0");
    json_t *times = json_object_get(second, "timings_us");
    assert_int_equal(integer(times, "decode"), 500);
    assert_int_equal(integer(times, "queue"), 2000);
    assert_int_equal(integer(times, "execute"), 4000);
    assert_null(json_object_get(json_object_get(first, "timings_us"), "decode"));
    assert_int_equal(integer(json_object_get(root, "timings_us"), "receive"), 42);
    json_decref(root);
}

static int32_t sorted_z[BED_CLASSES_MAX];

static int by_logit(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    if (sorted_z[x] != sorted_z[y])
        return sorted_z[x] > sorted_z[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

/* The best k of random logits with many ties, against a sort of all. */
static void test_top(void **state)
{
    struct xn_random random = {xn_random_seed(3)};
    (void)state;
    for (int round = 0; round < 200; round++) {
        uint32_t n = 1 + xn_random_below(&random, round % 10 ? 40 : BED_CLASSES_MAX), order[BED_CLASSES_MAX];
        uint32_t spread = 1 + xn_random_below(&random, 50);
        bed.network.n_classes = n;
        request(1, XN_ROUTE_INFER);
        bed.call.ask.top_k = 2 + xn_random_below(&random, XN_TOP_K_MAX - 1);
        for (uint32_t k = 0; k < n; k++) {
            order[k] = k;
            sorted_z[k] = (int32_t)xn_random_below(&random, spread) - 25;
            bed.call.request->items[0].logits[k] = sorted_z[k];
        }
        qsort(order, n, sizeof(order[0]), by_logit);
        json_t *root = answer(), *top = json_object_get(at(root, "results", 0), "top");
        assert_int_equal(json_array_size(top), XN_MIN(n, bed.call.ask.top_k));
        for (size_t i = 0; i < json_array_size(top); i++)
            assert_int_equal(integer(json_array_get(top, i), "class"), order[i]);
        json_decref(root);
    }
    bed.network.n_classes = 5;
}

/* The longest labels, of characters that all have to be escaped, the longest numbers, all members. */
static void test_longest_answer_fits(void **state)
{
    static char label[XN_LABEL_BYTES_MAX];
    static const char *labels[XN_TOP_K_MAX];
    (void)state;
    memset(label, 1, sizeof(label) - 1);
    for (uint32_t k = 0; k < XN_TOP_K_MAX; k++)
        labels[k] = label;
    bed.network.labels = labels;
    bed.network.n_classes = XN_TOP_K_MAX;
    bed.logits.scale = -1.17549435e-38f;
    bed.logits.offset = 1.17549435e-38f;
    request(BED_IMAGES_MAX, XN_ROUTE_INFER);
    bed.call.ask.top_k = XN_TOP_K_MAX;
    for (uint32_t i = 0; i < BED_IMAGES_MAX; i++) {
        struct xn_item *item = &bed.call.request->items[i];
        item->batch_size = UINT32_MAX;
        item->decode_start_ns = 1;
        item->queued_ns = item->execute_end_ns = XN_NEVER_NS - 1;
        item->execute_start_ns = 1;
        item->energy = (struct xn_energy){.joules = 1.2345e-300, .active_j = 1.2345e-300, .source = XN_ENERGY_ESTIMATE};
        for (uint32_t k = 0; k < XN_TOP_K_MAX; k++)
            item->logits[k] = INT32_MIN + (int32_t)k;
    }
    json_decref(answer());
    bed.network.labels = NULL;
    bed.network.n_classes = 5;
    bed.logits.scale = 0.25f;
    bed.logits.offset = -1.0f;
}

/* Value `index` of an output, wherever it is; *binary goes on behind a binary output. */
static void check_output(json_t *output, const struct xn_ask_output *ask, const char **binary)
{
    json_t *data = json_object_get(output, "data");

    assert_string_equal(json_string_value(json_object_get(output, "datatype")), ask->accumulators ? "INT32" : "FP32");
    assert_int_equal(json_is_array(data), !ask->binary);
    for (size_t i = 0; i < 15; i++) {
        int32_t z = (int32_t)(i % 5), got_z;
        float got;
        if (ask->binary) {
            memcpy(&got_z, *binary + 4 * i, 4);
            memcpy(&got, *binary + 4 * i, 4);
        } else {
            got = (float)json_number_value(json_array_get(data, i));
            got_z = (int32_t)got;
        }
        if (ask->accumulators)
            assert_int_equal(got_z, z);
        else
            assert_true(got == 0.25f * (float)z - 1.0f);
    }
    if (ask->binary) {
        assert_int_equal(integer(json_object_get(output, "parameters"), "binary_data_size"), 60);
        *binary += 60;
    }
}

static void test_v2(void **state)
{
    (void)state;
    for (int choice = 0; choice < 8; choice++) {
        request(3, XN_ROUTE_V2_INFER);
        strcpy(bed.call.ask.id, "\x01\x02\"");
        bed.call.ask.has_id = true;
        bed.call.ask.n_outputs = 2;
        bed.call.ask.outputs[0] = (struct xn_ask_output){.accumulators = choice & 4, .binary = choice & 1};
        bed.call.ask.outputs[1] = (struct xn_ask_output){.accumulators = !(choice & 4), .binary = choice & 2};
        json_t *root = answer();
        const char *binary = written + json_bytes;
        assert_string_equal(json_string_value(json_object_get(root, "id")), "\x01\x02\"");
        assert_int_equal(json_bytes > 0, (choice & 3) != 0);
        for (size_t o = 0; o < 2; o++)
            check_output(at(root, "outputs", o), &bed.call.ask.outputs[o], &binary);
        json_decref(root);
    }
}

/* The longest label and number, as text and as bytes: what was promised is enough. Bytes say how many they are. */
static void test_longest_classification_fits(void **state)
{
    static char label[XN_LABEL_BYTES_MAX];
    const char *labels[] = {label, label, label, label, label};
    (void)state;
    memset(label, 1, sizeof(label) - 1);
    bed.network.labels = labels;
    bed.logits.scale = 1.5e29f; /* times 2^31: a float of 39 digits */
    for (int binary = 0; binary < 2; binary++) {
        request(BED_IMAGES_MAX, XN_ROUTE_V2_INFER);
        bed.call.ask.n_outputs = 2;
        bed.call.ask.outputs[0] = (struct xn_ask_output){.binary = binary, .classification = 3};
        bed.call.ask.outputs[1] =
            (struct xn_ask_output){.binary = binary, .classification = 1000, .accumulators = true};
        for (uint32_t i = 0; i < BED_IMAGES_MAX; i++)
            for (uint32_t k = 0; k < 5; k++)
                bed.call.request->items[i].logits[k] = INT32_MIN + (int32_t)k;
        json_t *root = answer();
        for (size_t o = 0, want = 3; binary && o < 2; o++, want = 5) {
            json_t *output = at(root, "outputs", o);
            assert_int_equal(json_integer_value(json_array_get(json_object_get(output, "shape"), 1)), want);
            assert_true(integer(json_object_get(output, "parameters"), "binary_data_size") > 0);
        }
        json_decref(root);
    }
    bed.network.labels = NULL;
    bed.logits.scale = 0.25f;
}

/* Numbers that go to shared memory are there, and nothing of them is in the answer. */
static void test_shared(void **state)
{
    uint8_t *at_region = bed.region->data + 3;
    int32_t seen[15];
    (void)state;
    request(3, XN_ROUTE_V2_INFER);
    bed.call.ask.n_outputs = 1;
    bed.call.ask.outputs[0] = (struct xn_ask_output){.accumulators = true, .shared = at_region, .shared_bytes = 60};
    at_region[60] = 0xa5;
    json_t *root = answer(), *output = at(root, "outputs", 0);
    assert_int_equal(json_bytes, 0);
    assert_null(json_object_get(output, "data"));
    assert_null(json_object_get(output, "parameters"));
    memcpy(seen, at_region, sizeof(seen));
    for (int i = 0; i < 15; i++)
        assert_int_equal(seen[i], i % 5);
    assert_int_equal(at_region[60], 0xa5);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_infer),
        cmocka_unit_test(test_top),
        cmocka_unit_test(test_longest_answer_fits),
        cmocka_unit_test(test_v2),
        cmocka_unit_test(test_longest_classification_fits),
        cmocka_unit_test(test_shared),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
