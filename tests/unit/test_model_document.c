/* SPDX-License-Identifier: Apache-2.0
 * The worked example of docs/model-format.md is what the writer makes and what the loader and the reference say of
 * it; the fuzzer's seeds are the sample networks. Run in the repository's root, as tests/run does. With
 * XN_UPDATE=1 both are rewritten instead of compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/reference.h"
#include "tests/support/sample_networks.h"

#define DOCUMENT "docs/model-format.md"
#define OPENING  "<!-- tiny.xnor: made by tests/unit/test_model_document.c -->\n```\n"
#define CLOSING  "```\n"

static char *read_all(const char *path, size_t *ret_bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s cannot be read: run in the repository's root", path);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    *ret_bytes = fread(text, 1, (1 << 20) - 1, file);
    fclose(file);
    return text;
}

static void write_all(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* As `hexdump -C`: sixteen bytes a line, lines equal to the one before as one "*". */
static char *dump(const uint8_t *bytes, size_t n)
{
    char *text = calloc(1, n * 8 + 256), *at = text;
    bool starred = false;
    assert_non_null(text);
    for (size_t i = 0; i < n; i += 16) {
        const size_t row = XN_MIN((size_t)16, n - i);
        const bool same = i >= 16 && row == 16 && memcmp(bytes + i, bytes + i - 16, 16) == 0;
        if (same) {
            at += sprintf(at, "%s", starred ? "" : "*\n");
            starred = true;
            continue;
        }
        starred = false;
        at += sprintf(at, "%08zx ", i);
        for (size_t k = 0; k < 16; k++)
            at += k < row ? sprintf(at, "%s%02x", k == 8 ? "  " : " ", bytes[i + k]) : sprintf(at, "   ");
        at += sprintf(at, "  |");
        for (size_t k = 0; k < row; k++)
            *at++ = bytes[i + k] >= 0x20 && bytes[i + k] < 0x7f ? (char)bytes[i + k] : '.';
        at += sprintf(at, "|\n");
    }
    sprintf(at, "%08zx\n", n);
    return text;
}

static void replace_example(const char *text, const char *begin, const char *close, const char *want)
{
    char *all = calloc(1, strlen(text) + strlen(want) + 1);
    assert_non_null(all);
    sprintf(all, "%.*s%s%s", (int)(begin - text), text, want, close);
    write_all(DOCUMENT, all, strlen(all));
    free(all);
}

static void test_the_example_is_what_the_writer_makes(void **state)
{
    (void)state;
    size_t bytes, text_bytes;
    struct xn_writer *w = xn_sample_tiny();
    uint8_t *file = xn_writer_finish(w, &bytes);
    char *want = dump(file, bytes), *text = read_all(DOCUMENT, &text_bytes);
    char *begin = strstr(text, OPENING);
    assert_non_null(begin);
    begin += strlen(OPENING);
    char *close = strstr(begin, CLOSING);
    assert_non_null(close);
    if (getenv("XN_UPDATE"))
        replace_example(text, begin, close, want);
    else if ((size_t)(close - begin) != strlen(want) || memcmp(begin, want, strlen(want)) != 0)
        fail_msg("the example in " DOCUMENT " is not this file:\n%s", want);
    free(want);
    free(text);
    free(file);
    xn_writer_free(w);
}

static void test_the_example_computes_what_the_document_says(void **state)
{
    (void)state;
    size_t bytes;
    struct xn_writer *w = xn_sample_tiny();
    uint8_t *file = xn_writer_finish(w, &bytes);
    struct xn_network *network = NULL;
    struct xn_reference *reference = NULL;
    const uint8_t pixel = 200;
    int32_t logits[2];
    assert_int_equal(xn_network_load_memory(file, bytes, &network, NULL), 0);
    assert_int_equal(xn_reference_new(network, &reference), 0);
    xn_reference_run(reference, &pixel, logits);
    assert_int_equal(logits[0], -72);
    assert_int_equal(logits[1], 72);
    assert_string_equal(network->labels[xn_argmax(logits, 2)], "light");
    assert_true(network->layers[1].scale * (float)logits[1] + network->layers[1].offset == 0.5625f);
    xn_reference_free(reference);
    xn_network_free(network);
    free(file);
    xn_writer_free(w);
}

static void check_seed(const char *path, struct xn_writer *w)
{
    size_t bytes, got_bytes;
    uint8_t *file = xn_writer_finish(w, &bytes);
    if (getenv("XN_UPDATE"))
        write_all(path, file, bytes);
    char *got = read_all(path, &got_bytes);
    assert_int_equal(got_bytes, bytes);
    assert_memory_equal(got, file, bytes);
    free(got);
    free(file);
    xn_writer_free(w);
}

static void test_seeds_of_the_fuzzer_are_the_samples(void **state)
{
    (void)state;
    check_seed("tests/fuzz/corpus/xnor/tiny.xnor", xn_sample_tiny());
    check_seed("tests/fuzz/corpus/xnor/every-op.xnor", xn_sample_every_op());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_example_is_what_the_writer_makes),
        cmocka_unit_test(test_the_example_computes_what_the_document_says),
        cmocka_unit_test(test_seeds_of_the_fuzzer_are_the_samples),
    };
    return cmocka_run_group_tests_name("model document", tests, NULL, NULL);
}
