/* SPDX-License-Identifier: Apache-2.0
 * The loader: a network with every operation is read as it was written; the same file with any byte flipped, cut
 * anywhere, or with any field out of range (and sealed again, so that the rule and not the hash has to refuse it)
 * is refused with a text that names what is wrong; and every allocation may fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fault.h"
#include "model/reference.h"
#include "tests/support/sample_networks.h"

static uint8_t *every_op_file(size_t *ret_bytes)
{
    struct xn_writer *w = xn_sample_every_op();
    uint8_t *file = xn_writer_finish(w, ret_bytes);
    xn_writer_free(w);
    return file;
}

/* The network must load; the error's text where it does not. */
static struct xn_network *must_load(const uint8_t *file, size_t bytes)
{
    struct xn_network *network = NULL;
    struct xn_error error;
    if (xn_network_load_memory(file, bytes, &network, &error) < 0)
        fail_msg("%s", error.text);
    return network;
}

static struct xn_network *load_writer(struct xn_writer *w)
{
    size_t bytes;
    uint8_t *file = xn_writer_finish(w, &bytes);
    struct xn_network *network = must_load(file, bytes);
    free(file);
    xn_writer_free(w);
    return network;
}

/* Whether loading fails with `code` and a text that contains `text`; says so where not. */
static bool is_refused(const uint8_t *file, size_t bytes, int code, const char *text)
{
    struct xn_network *network = NULL;
    struct xn_error error = {"(no text)"};
    const int r = xn_network_load_memory(file, bytes, &network, &error);
    const bool refused = r == code && strstr(error.text, text) && !network;
    if (!refused)
        print_error("got %d \"%s\", want %d \"...%s...\"\n", r, r < 0 ? error.text : "loaded", code, text);
    xn_network_free(network);
    return refused;
}

static void expect_refusal(const uint8_t *file, size_t bytes, int code, const char *text)
{
    assert_true(is_refused(file, bytes, code, text));
}

static void expect_writer_refused(struct xn_writer *w, int code, const char *text)
{
    size_t bytes;
    uint8_t *file = xn_writer_finish(w, &bytes);
    expect_refusal(file, bytes, code, text);
    free(file);
    xn_writer_free(w);
}

/* ---- what a good file says ------------------------------------------------------------------------------------- */

static void test_every_operation_is_read_as_written(void **state)
{
    (void)state;
    struct xn_network *n = load_writer(xn_sample_every_op());
    assert_string_equal(n->name, "every-op");
    assert_string_equal(n->version, "7");
    assert_string_equal(n->description, "all");
    assert_string_equal(n->labels[4], "\xc3\xa4");
    assert_int_equal(n->meta_bytes, strlen(XN_SAMPLE_META));
    assert_string_equal(n->meta_json, XN_SAMPLE_META);
    assert_int_equal(n->n_layers, N_LAYERS);
    assert_int_equal(n->n_values, N_LAYERS + 1);
    assert_int_equal(n->n_classes, 5);
    assert_int_equal(n->input_bytes, 192);
    for (uint32_t i = 0; i < n->n_layers; i++)
        assert_string_not_equal(xn_op_name(n->layers[i].op), "unknown");
    const struct xn_layer *conv = &n->layers[CONV];
    assert_string_equal(conv->name, "grouped");
    assert_int_equal(conv->groups, 2);
    assert_int_equal(conv->pad, XN_PAD_MINUS_ONE);
    assert_int_equal(conv->macs, 64 * 8 * 36);
    assert_true(conv->binary);
    assert_false(n->layers[STEM].binary);
    assert_int_equal(n->binary_macs, 64 * 8 * 36 + 256 * 5);
    assert_int_equal(n->int8_macs, 64 * 8 * 27);
    assert_int_equal(n->layers[AVGPOOL].shift, 2);
    assert_int_equal(n->layers[GAP].multiplier, 3);
    assert_true(n->layers[LOGITS].scale == 0.25f && n->layers[LOGITS].offset == 1.0f);
    assert_int_equal(xn_layer_output(n, CONCAT)->c, 16);
    assert_int_equal(xn_layer_input(n, SCALE_ADD, 1)->dtype, XN_DTYPE_I16);
    assert_int_equal(xn_layer_output(n, CONV)->last_use, SCALE_ADD);
    assert_int_equal(xn_layer_output(n, GAP)->last_use, GAP); /* nobody reads it */
    assert_int_equal(xn_value_bytes(xn_layer_output(n, BITS)), 64 * 8);
    assert_int_equal(xn_value_bytes(xn_layer_output(n, CONV)), 64 * 8 * 4);
    for (uint32_t i = 0; i < n->n_tensors; i++)
        assert_int_equal((uintptr_t)n->tensors[i].data % 64, 0);
    xn_network_free(n);
    xn_network_free(NULL);
}

static void test_input_spec(void **state)
{
    (void)state;
    struct xn_network *n = load_writer(xn_sample_every_op());
    const struct xn_input_spec *s = &n->input;
    assert_string_equal(n->input_name, "image");
    assert_true(s->is_image && s->fit == XN_FIT_PAD && s->dtype == XN_DTYPE_U8 && !s->identity);
    assert_int_equal(s->multiplier[2], -1);
    assert_int_equal(s->offset[1], -128);
    assert_int_equal(s->shift, 1);
    xn_network_free(n);
}

static void test_bounds_follow_weights_and_inputs(void **state)
{
    (void)state;
    struct xn_network *n = load_writer(xn_sample_every_op());
    const struct xn_value *v = xn_layer_output(n, CONV);
    assert_int_equal(v->min, -36);
    assert_int_equal(v->max, 36);
    assert_int_equal(n->values[0].max, 255);
    v = xn_layer_output(n, MAXPOOL);
    assert_true(v->min == xn_layer_output(n, RPRELU)->min && v->max == xn_layer_output(n, RPRELU)->max);
    v = xn_layer_output(n, BITS);
    assert_true(v->min == -1 && v->max == 1);
    xn_network_free(n);
}

/* With zero padding a tap may be 0 even where no element is. */
static void test_bounds_count_zero_padding(void **state)
{
    (void)state;
    const struct xn_writer_window valid = {3, 3, 1, 1, 0, 0, 0, 0, XN_PAD_NONE};
    const int16_t m = 1;
    const int64_t b = 5;
    const int8_t signs[9] = {0};
    struct xn_writer *w = xn_writer_new(3, 3, 1, XN_DTYPE_U8);
    const uint32_t x = xn_writer_scale(w, 0, XN_FORMAT_NONE, &m, &b, 0, XN_DTYPE_U8),
                   t = xn_writer_bits(w, 1, 9, signs);
    const struct xn_writer_window same = {3, 3, 1, 1, 1, 1, 1, 1, XN_PAD_ZERO};
    xn_writer_conv(w, x, t, &same, 1);
    const uint32_t s = xn_writer_conv(w, x, t, &valid, 1);
    xn_writer_logits(w, s, (const int32_t[]){1}, (const int32_t[]){0}, 1.0f, 0.0f);
    struct xn_network *n = load_writer(w);
    assert_int_equal(n->values[1].min, 5);
    assert_true(n->values[2].min == 0 && n->values[2].max == 9 * 255);
    assert_true(n->values[3].min == 9 * 5 && n->values[3].max == 9 * 255);
    xn_network_free(n);
}

static void test_later_minor_versions_are_read(void **state)
{
    (void)state;
    struct xn_writer *w = xn_sample_every_op();
    xn_writer_grow(w, 24);
    struct xn_network *n = load_writer(w);
    assert_int_equal(n->format_minor, 1);
    assert_int_equal(n->layers[GAP].multiplier, 3);
    assert_string_equal(n->layers[LOGITS].name, "answer");
    xn_network_free(n);
}

static void test_copies_do_not_need_the_callers_bytes(void **state)
{
    (void)state;
    size_t bytes;
    uint8_t *file = every_op_file(&bytes);
    uint8_t *unaligned = malloc(bytes + 1);
    memcpy(unaligned + 1, file, bytes);
    struct xn_network *n = must_load(unaligned + 1, bytes);
    memset(unaligned, 0, bytes + 1);
    assert_memory_equal(n->sha256, file + offsetof(struct xn_format_header, sha256), 32);
    assert_int_equal(strlen(n->sha256_hex), 64);
    xn_network_free(n);
    free(unaligned);
    free(file);
}

/* ---- damage ---------------------------------------------------------------------------------------------------- */

static void test_every_prefix_is_refused(void **state)
{
    (void)state;
    size_t bytes;
    uint8_t *file = every_op_file(&bytes);
    for (size_t n = 0; n < bytes; n++) {
        uint8_t *prefix = malloc(n + 1); /* exact, so that a read behind its end is seen */
        memcpy(prefix, file, n);
        expect_refusal(prefix, n, -EBADMSG, n < XN_FORMAT_MAGIC_BYTES ? "not an .xnor file" : "truncated");
        xn_writer_seal(prefix, n);
        expect_refusal(prefix, n, -EBADMSG, n < XN_FORMAT_MAGIC_BYTES ? "not an .xnor file" : "truncated");
        free(prefix);
    }
    free(file);
}

static void test_every_flipped_byte_is_refused(void **state)
{
    (void)state;
    size_t bytes;
    uint8_t *file = every_op_file(&bytes);
    for (size_t i = 0; i < bytes; i++) {
        struct xn_network *network = NULL;
        struct xn_error error = {""};
        const uint8_t mask = i % 2 ? 0xff : (uint8_t)(1u << (i / 2 % 8));
        file[i] ^= mask;
        assert_true(xn_network_load_memory(file, bytes, &network, &error) < 0);
        assert_true(strlen(error.text) > 10);
        file[i] ^= mask;
    }
    free(file);
}

/* Sealed again, a flip in a weight or a label makes another network, which must be as sound as the first. */
static void test_every_flipped_and_sealed_byte_is_refused_or_runs(void **state)
{
    (void)state;
    size_t bytes;
    uint8_t *file = every_op_file(&bytes), input[192];
    int32_t logits[16];
    memset(input, 200, sizeof(input));
    for (size_t i = 0; i < bytes; i++) {
        struct xn_network *network = NULL;
        struct xn_reference *reference = NULL;
        const uint8_t mask = i % 2 ? 0x80 : (uint8_t)(1u << (i / 2 % 8));
        file[i] ^= mask;
        xn_writer_seal(file, bytes);
        if (xn_network_load_memory(file, bytes, &network, NULL) == 0) {
            assert_true(network->n_classes <= 16 && network->input_bytes <= sizeof(input));
            assert_int_equal(xn_reference_new(network, &reference), 0);
            xn_reference_run(reference, input, logits);
            for (uint32_t c = 0; c < network->n_classes; c++)
                assert_true(logits[c] >= network->values[network->n_layers].min &&
                            logits[c] <= network->values[network->n_layers].max);
        }
        xn_reference_free(reference);
        xn_network_free(network);
        file[i] ^= mask;
    }
    free(file);
}

/* ---- every rule ------------------------------------------------------------------------------------------------ */

enum place { HEADER_FIELD, LAYER_FIELD, TENSOR_FIELD };

/* A field of the file of xn_sample_every_op(), the value that breaks a rule, and what must be said. */
struct breach {
    enum place place;
    uint32_t index;
    size_t offset, bytes;
    uint64_t value;
    int code;
    const char *text;
};

#define FIELD(type, field) offsetof(type, field), sizeof(((type *)0)->field)
#define HEADER(field, ...)                                                                                             \
    {                                                                                                                  \
        HEADER_FIELD, 0, FIELD(struct xn_format_header, field), __VA_ARGS__                                            \
    }
#define LAYER(index, field, ...)                                                                                       \
    {                                                                                                                  \
        LAYER_FIELD, index, FIELD(struct xn_format_layer, field), __VA_ARGS__                                          \
    }
#define TENSOR(index, field, ...)                                                                                      \
    {                                                                                                                  \
        TENSOR_FIELD, index, FIELD(struct xn_format_tensor, field), __VA_ARGS__                                        \
    }

static const struct breach breaches[] = {
    HEADER(magic[0], 0, -EBADMSG, "not an .xnor file"),
    HEADER(major, 2, -EPROTONOSUPPORT, "format version 2.0, this reader knows 1.x"),
    HEADER(major, 0, -EPROTONOSUPPORT, "version"),
    HEADER(header_bytes, 152, -EINVAL, "header_bytes is 152, must be 160..4096"),
    HEADER(header_bytes, 164, -EINVAL, "header_bytes is 164, must be a multiple of 8"),
    HEADER(header_bytes, 4104, -EINVAL, "header_bytes"),
    HEADER(header_bytes, 168, -EINVAL, "metadata at 160 overlaps the header"),
    HEADER(file_bytes, 100, -EBADMSG, "file_bytes is 100"),
    HEADER(file_bytes, UINT64_MAX, -EBADMSG, "truncated"),
    HEADER(meta_offset, 8, -EINVAL, "metadata at 8 overlaps the header"),
    HEADER(meta_offset, UINT64_MAX - 3, -EINVAL, "outside the file"),
    HEADER(meta_bytes, 1, -EINVAL, "meta_bytes is 1"),
    HEADER(meta_bytes, XN_META_BYTES_MAX + 1, -EINVAL, "meta_bytes"),
    HEADER(meta_bytes, UINT64_MAX, -EINVAL, "meta_bytes"),
    HEADER(meta_bytes, 20000, -EINVAL, "outside the file"),
    HEADER(layer_offset, 4, -EINVAL, "layer_offset is 4, must be a multiple of 8"),
    HEADER(layer_offset, 0, -EINVAL, "layer table at 0 overlaps the header"),
    HEADER(layer_offset, UINT64_MAX - 7, -EINVAL, "outside the file"),
    HEADER(layer_count, 0, -EINVAL, "layer_count is 0"),
    HEADER(layer_count, XN_LAYERS_MAX + 1, -EINVAL, "layer_count is 4097, must be 1..4096"),
    HEADER(layer_count, UINT32_MAX, -EINVAL, "layer_count"),
    HEADER(layer_count, N_LAYERS - 1, -EINVAL, "is the last layer, which must be logits"),
    HEADER(layer_record_bytes, 120, -EINVAL, "layer_record_bytes"),
    HEADER(layer_record_bytes, 130, -EINVAL, "layer_record_bytes is 130, must be a multiple of 8"),
    HEADER(layer_record_bytes, 1032, -EINVAL, "layer_record_bytes"),
    HEADER(tensor_offset, 12, -EINVAL, "tensor_offset is 12, must be a multiple of 8"),
    HEADER(tensor_offset, 160, -EINVAL, "tensor table at 160 overlaps the metadata"),
    HEADER(tensor_count, XN_TENSORS_MAX + 1, -EINVAL, "tensor_count"),
    HEADER(tensor_count, 3, -EINVAL, "must be a tensor: the file has 3"),
    HEADER(tensor_record_bytes, 40, -EINVAL, "tensor_record_bytes"),
    HEADER(tensor_record_bytes, 52, -EINVAL, "tensor_record_bytes is 52, must be a multiple of 8"),
    HEADER(data_offset, 8, -EINVAL, "data_offset is 8, must be a multiple of 64"),
    HEADER(data_offset, 0, -EINVAL, "data at 0 overlaps the header"),
    HEADER(data_bytes, UINT64_MAX, -EINVAL, "outside the file"),
    HEADER(data_bytes, 64, -EINVAL, "pass the end of the data"),
    HEADER(input_h, 0, -EINVAL, "header: input is 0x8x3"),
    HEADER(input_h, XN_SIDE_MAX + 1, -EINVAL, "header: input"),
    HEADER(input_w, UINT32_MAX, -EINVAL, "header: input"),
    HEADER(input_c, 0, -EINVAL, "header: input"),
    HEADER(input_c, XN_CHANNELS_MAX + 1, -EINVAL, "header: input"),
    HEADER(input_dtype, 0, -EINVAL, "input_dtype is 0, must be 2 (uint8) or 3 (int8)"),
    HEADER(input_dtype, XN_DTYPE_BITS, -EINVAL, "input_dtype"),
    HEADER(input_dtype, XN_DTYPE_I16, -EINVAL, "input_dtype"),
    HEADER(input_dtype, XN_DTYPE_I8, -EINVAL, "metadata: input.dtype is \"uint8\", the header says \"int8\""),
    HEADER(reserved[26], 1, -EPROTONOSUPPORT, "reserved bytes are in use"),

    LAYER(STEM, op, 0, -EPROTONOSUPPORT, "layer 0 \"\" (unknown): op is 0, this reader knows 1..11"),
    LAYER(STEM, op, XN_OP_LOGITS + 1, -EPROTONOSUPPORT, "op is 12"),
    LAYER(STEM, op, XN_OP_LOGITS, -EINVAL, "only that may be logits"),
    LAYER(LOGITS, op, XN_OP_THRESHOLD, -EINVAL, "which must be logits"),
    LAYER(CONV, out_dtype, 0, -EPROTONOSUPPORT, "layer 2 \"grouped\" (conv): out_dtype is 0, this reader knows 1..6"),
    LAYER(CONV, out_dtype, 7, -EPROTONOSUPPORT, "out_dtype is 7"),
    LAYER(CONV, out_dtype, XN_DTYPE_I16, -EINVAL, "out_dtype is int16, which conv does not make"),
    LAYER(SCALE_ADD, out_dtype, XN_DTYPE_U8, -EINVAL, "must be int16 with a second input"),
    LAYER(SCALE, out_dtype, XN_DTYPE_I32, -EINVAL, "which scale does not make"),
    LAYER(MAXPOOL, out_dtype, XN_DTYPE_U8, -EINVAL, "does not make from its input"),
    LAYER(GAP, out_dtype, XN_DTYPE_BITS, -EINVAL, "does not make"),
    LAYER(CONV, pad_mode, 3, -EPROTONOSUPPORT, "pad_mode is 3, this reader knows 0..2"),
    LAYER(CONV, pad_mode, XN_PAD_NONE, -EINVAL, "pad_mode is none, all paddings must be 0"),
    LAYER(STEM, pad_mode, XN_PAD_MINUS_ONE, -EINVAL, "none or zero but for a conv of bits"),
    LAYER(MAXPOOL, pad_mode, XN_PAD_MINUS_ONE, -EINVAL, "none or zero but for a conv of bits"),
    LAYER(ADD, pad_mode, XN_PAD_ZERO, -EPROTONOSUPPORT, "kernel, stride or pad is in use"),
    LAYER(CONV, kernel_h, 0, -EINVAL, "kernel_h is 0, must be 1..7"),
    LAYER(CONV, kernel_w, 8, -EINVAL, "kernel_w is 8, must be 1..7"),
    LAYER(AVGPOOL, stride_w, 1, -EINVAL, "out is 4x4x8, must be 4x7x8"),
    LAYER(DENSE, kernel_h, 1, -EPROTONOSUPPORT, "in use"),
    LAYER(CONV, stride_h, 0, -EINVAL, "stride_h is 0, must be 1..2"),
    LAYER(CONV, stride_w, 3, -EINVAL, "stride_w is 3, must be 1..2"),
    LAYER(MAXPOOL, stride_w, 8, -EINVAL, "stride_w is 8, must be 1..7"),
    LAYER(CONV, pad_top, 3, -EINVAL, "paddings 3 and 1 of axis h, must be less than kernel_h, which is 3"),
    LAYER(CONV, pad_right, 255, -EINVAL, "of axis w"),
    LAYER(MAXPOOL, pad_left, 1, -EINVAL, "pad_mode is none, all paddings must be 0"),
    LAYER(BITS, pad_left, 1, -EPROTONOSUPPORT, "in use"),
    LAYER(CONV, input_count, 0, -EINVAL, "input_count is 0, must be 1..1"),
    LAYER(CONV, input_count, 2, -EINVAL, "input_count is 2"),
    LAYER(ADD, input_count, 1, -EINVAL, "input_count is 1, must be 2..2"),
    LAYER(CONCAT, input_count, 9, -EINVAL, "input_count is 9, must be 2..8"),
    LAYER(SCALE_ADD, input_count, 1, -EINVAL, "must be unused: input_count is 1"),
    LAYER(SCALE, shift, 31, -EINVAL, "shift is 31, must be 0..30"),
    LAYER(AVGPOOL, shift, 255, -EINVAL, "shift is 255"),
    LAYER(CONV, shift, 1, -EPROTONOSUPPORT, "shift is in use, must be 0 for this operation"),
    LAYER(CONV, reserved0, 1, -EPROTONOSUPPORT, "reserved0 is in use"),
    LAYER(CONV, reserved1, 1, -EPROTONOSUPPORT, "reserved1 is in use"),
    LAYER(CONV, groups, 0, -EINVAL, "groups is 0, must be 1..8"),
    LAYER(CONV, groups, 3, -EINVAL, "groups is 3, must divide the 8 channels in and the 8 out"),
    LAYER(CONV, groups, UINT32_MAX, -EINVAL, "groups"),
    LAYER(CONV, groups, 4, -EINVAL, "tensors[0] has dims[1] 36, must be 18"),
    LAYER(DENSE, groups, 1, -EPROTONOSUPPORT, "groups is in use"),
    LAYER(CONV, out_h, 9, -EINVAL, "out is 9x8x8, must be 8x8x8"),
    LAYER(CONV, out_w, 0, -EINVAL, "out is 8x0x8, must be 8x8x8"),
    LAYER(CONV, out_c, 0, -EINVAL, "out_c is 0, must be 1..65536"),
    LAYER(CONV, out_c, XN_CHANNELS_MAX + 1, -EINVAL, "out_c"),
    LAYER(CONV, out_c, 16, -EINVAL, "tensors[0] has dims[0] 8, must be 16"),
    LAYER(DENSE, out_c, 6, -EINVAL, "tensors[0] has dims[0] 5, must be 6"),
    LAYER(BITS, out_c, 9, -EINVAL, "out is 8x8x9, must be 8x8x8"),
    LAYER(LOGITS, out_c, 4, -EINVAL, "out is 1x1x4, must be 1x1x5"),
    LAYER(CONV, inputs[0], CONV + 1, -EINVAL, "inputs[0] is 3, must be a value made before: 0..2"),
    LAYER(CONV, inputs[0], XN_FORMAT_NONE, -EINVAL, "must be a value made before"),
    LAYER(CONV, inputs[0], STEM + 1, -EINVAL, "inputs[0] is value 1 of type int32, which conv does not take"),
    LAYER(CONV, inputs[1], 0, -EINVAL, "inputs[1] is 0, must be unused: input_count is 1"),
    LAYER(ADD, inputs[1], 0, -EINVAL, "value 0 of type uint8, which add does not take"),
    LAYER(SCALE_ADD, inputs[1], CONV + 1, -EINVAL, "of type int32, which scale does not take"),
    LAYER(CONCAT, inputs[1], 0, -EINVAL, "inputs[1] is uint8, must be int16 as inputs[0]"),
    LAYER(CONCAT, inputs[1], ADD + 1, -EINVAL, "inputs[1] is 8x8x8, does not go with 4x4x8 of inputs[0]"),
    LAYER(LOGITS, inputs[0], CONV + 1, -EINVAL, "inputs[0] is 8x8x8, must be 1x1"),
    LAYER(LOGITS, inputs[0], CONCAT + 1, -EINVAL, "must be 1x1"),
    LAYER(CONV, tensors[0], XN_FORMAT_NONE, -EINVAL, "tensors[0] is 4294967295, must be a tensor"),
    LAYER(CONV, tensors[0], 0, -EINVAL, "tensors[0] has dims[3] 3, must be 4"),
    LAYER(CONV, tensors[0], 2, -EINVAL, "tensors[0] is int32, weights must be bits or int8"),
    LAYER(CONV, tensors[1], 0, -EINVAL, "tensors[1] is 0, must be unused for this operation"),
    LAYER(SCALE, tensors[1], 0, -EINVAL, "tensors[1] is int8 of rank 4, must be int64 of rank 1"),
    LAYER(BITS, tensors[0], 1, -EINVAL, "tensors[0] is bits of rank 2, must be int32 of rank 1"),
    LAYER(CONV, multiplier, 1, -EPROTONOSUPPORT, "multiplier is in use"),
    LAYER(AVGPOOL, multiplier, 0, -EINVAL, "multiplier is 0, must be 1..65536"),
    LAYER(AVGPOOL, multiplier, 65537, -EINVAL, "multiplier is 65537"),
    LAYER(GAP, multiplier, UINT32_MAX, -EINVAL, "multiplier is -1"),
    LAYER(LOGITS, scale, 0x7f800000, -EINVAL, "scale is inf"),
    LAYER(LOGITS, scale, 0x7fc00000, -EINVAL, "scale is nan"),
    LAYER(LOGITS, scale, 0, -EINVAL, "scale is 0"),
    LAYER(LOGITS, scale, 0xbf800000, -EINVAL, "scale is -1"),
    LAYER(LOGITS, offset, 0xff800000, -EINVAL, "offset -inf"),
    LAYER(CONV, scale, 0x3f800000, -EPROTONOSUPPORT, "scale or offset is in use"),
    LAYER(CONV, offset, 0x80000000, -EPROTONOSUPPORT, "scale or offset is in use"),
    LAYER(CONV, name[31], 'x', -EINVAL, "name has bytes behind its end"),
    LAYER(CONV, name[0], 0x80, -EINVAL, "name must be UTF-8"),
    LAYER(CONV, name[0], '\n', -EINVAL, "(conv): name must be UTF-8 without control characters"),

    TENSOR(0, dtype, 0, -EPROTONOSUPPORT, "tensor 0: dtype is 0, this reader knows 1..6"),
    TENSOR(0, dtype, 7, -EPROTONOSUPPORT, "dtype is 7"),
    TENSOR(0, dtype, XN_DTYPE_U8, -EINVAL, "tensors[0] is uint8, weights must be bits or int8"),
    TENSOR(0, rank, 0, -EINVAL, "rank is 0, must be 1..4"),
    TENSOR(0, rank, 5, -EINVAL, "rank is 5"),
    TENSOR(1, rank, 1, -EINVAL, "rank is 1, must be 2 for bits"),
    TENSOR(0, rank, 3, -EINVAL, "dims[3] is 3, must be 1 behind the rank"),
    TENSOR(0, reserved0, 1, -EPROTONOSUPPORT, "reserved"),
    TENSOR(0, reserved1, 1, -EPROTONOSUPPORT, "reserved"),
    TENSOR(0, reserved2, 1, -EPROTONOSUPPORT, "reserved"),
    TENSOR(0, dims[0], 0, -EINVAL, "tensor 0: dims[0] is 0, must be 1 or more"),
    TENSOR(0, dims[0], 9, -EINVAL, "tensor 0: bytes is 216, int8 of its dims need 243"),
    TENSOR(0, dims[0], UINT32_MAX, -EINVAL, "bytes"),
    TENSOR(1, dims[1], 65, -EINVAL, "bits of its dims need 128"),
    TENSOR(1, dims[1], 35, -EINVAL, "has bits set behind its 35 elements"),
    TENSOR(0, bytes, 215, -EINVAL, "bytes is 215"),
    TENSOR(0, bytes, UINT64_MAX, -EINVAL, "bytes"),
    TENSOR(0, offset, 1, -EINVAL, "offset is 1, must be a multiple of 64"),
    TENSOR(0, offset, 64, -EINVAL, "where the data begin"),
    TENSOR(1, offset, 0, -EINVAL, "where the tensor before it ends"),
    TENSOR(0, offset, UINT64_MAX - 63, -EINVAL, "pass the end of the data"),
};

static bool break_and_load(const uint8_t *good, size_t bytes, const struct breach *b)
{
    struct xn_format_header header;
    memcpy(&header, good, sizeof(header));
    const uint64_t base[] = {0, header.layer_offset, header.tensor_offset};
    const uint32_t stride[] = {0, header.layer_record_bytes, header.tensor_record_bytes};
    uint8_t *file = malloc(bytes);
    memcpy(file, good, bytes);
    memcpy(file + base[b->place] + b->index * stride[b->place] + b->offset, &b->value,
           b->bytes); /* little-endian host */
    xn_writer_seal(file, bytes);
    const bool refused = is_refused(file, bytes, b->code, b->text);
    free(file);
    return refused;
}

static void test_every_field_out_of_range_is_refused(void **state)
{
    (void)state;
    size_t bytes;
    uint8_t *file = every_op_file(&bytes);
    size_t missed = 0;
    for (size_t i = 0; i < XN_ARRAY_LEN(breaches); i++)
        missed += !break_and_load(file, bytes, &breaches[i]);
    free(file);
    assert_int_equal(missed, 0);
}

static void test_values_in_tensors_are_checked(void **state)
{
    (void)state;
    const int16_t m = 1;
    int64_t b = XN_SCALE_BIAS_MAX + 1;
    struct xn_writer *w = xn_writer_new(1, 1, 1, XN_DTYPE_I8);
    xn_writer_logits(w, xn_writer_scale(w, 0, XN_FORMAT_NONE, &m, &b, 0, XN_DTYPE_I16), (const int32_t[]){1},
                     (const int32_t[]){0}, 1.0f, 0.0f);
    expect_writer_refused(w, -EINVAL, "layer 0 \"\" (scale): tensors[1] has 70368744177665 for channel 0");
    b = -XN_SCALE_BIAS_MAX - 1;
    w = xn_writer_new(1, 1, 1, XN_DTYPE_I8);
    xn_writer_logits(w, xn_writer_scale(w, 0, XN_FORMAT_NONE, &m, &b, 0, XN_DTYPE_I16), (const int32_t[]){1},
                     (const int32_t[]){0}, 1.0f, 0.0f);
    expect_writer_refused(w, -EINVAL, "tensors[1] has -70368744177665 for channel 0");
    b = 0;
    w = xn_writer_new(1, 1, 1, XN_DTYPE_I8);
    const uint32_t x = xn_writer_scale(w, 0, XN_FORMAT_NONE, &m, &b, 0, XN_DTYPE_I16);
    const uint32_t y = xn_writer_rprelu(w, x, &m, (const uint8_t[]){16}, &m);
    xn_writer_logits(w, y, (const int32_t[]){1}, (const int32_t[]){0}, 1.0f, 0.0f);
    expect_writer_refused(w, -EINVAL, "(rprelu): tensors[1] has 16 for channel 0, must be 0..15");
}

static void test_shapes_must_go_together(void **state)
{
    (void)state;
    const struct xn_writer_window three = {3, 3, 1, 1, 0, 0, 0, 0, XN_PAD_NONE};
    const int16_t m[2] = {1, 1};
    const int64_t b[2] = {0, 0};
    const int8_t signs[9] = {0};
    struct xn_writer *w = xn_writer_new(1, 1, 2, XN_DTYPE_I8);
    const uint32_t x = xn_writer_scale(w, 0, XN_FORMAT_NONE, m, b, 0, XN_DTYPE_I16);
    xn_writer_add(w, x, xn_writer_concat(w, (const uint32_t[]){x, x}, 2));
    xn_writer_logits(w, x, (const int32_t[]){1, 1}, (const int32_t[]){0, 0}, 1.0f, 0.0f);
    expect_writer_refused(w, -EINVAL, "inputs[1] is 1x1x4, does not go with 1x1x2 of inputs[0]");
    w = xn_writer_new(2, 3, 1, XN_DTYPE_I8);
    xn_writer_conv(w, 0, xn_writer_bits(w, 1, 9, signs), &three, 1);
    xn_writer_logits(w, 0, (const int32_t[]){1}, (const int32_t[]){0}, 1.0f, 0.0f);
    expect_writer_refused(w, -EINVAL, "kernel_h is 3, must fit the map of 2 with its padding");
}

static void test_values_are_limited(void **state)
{
    (void)state;
    struct xn_writer *w = xn_writer_new(4096, 4096, 1, XN_DTYPE_I8);
    xn_writer_concat(w, (const uint32_t[]){0, 0, 0, 0, 0}, 5);
    xn_writer_logits(w, 0, (const int32_t[]){1}, (const int32_t[]){0}, 1.0f, 0.0f);
    expect_writer_refused(w, -EINVAL, "out is 4096x4096x5, must have 67108864 elements at most");
    w = xn_writer_new(1, 1, 65536, XN_DTYPE_I8);
    xn_writer_concat(w, (const uint32_t[]){0, 0}, 2);
    int32_t *zeros = calloc(65536, sizeof(*zeros));
    xn_writer_logits(w, 0, zeros, zeros, 1.0f, 0.0f);
    free(zeros);
    expect_writer_refused(w, -EINVAL, "out_c is 131072, must be 1..65536");
}

static void test_tensors_end_within_the_data(void **state)
{
    (void)state;
    size_t bytes;
    struct xn_writer *w = xn_sample_tiny();
    uint8_t *file = xn_writer_finish(w, &bytes);
    const uint64_t short_by_one = 0x87; /* the last tensor needs 0x88 */
    memcpy(file + offsetof(struct xn_format_header, data_bytes), &short_by_one, sizeof(short_by_one));
    xn_writer_seal(file, bytes);
    expect_refusal(file, bytes, -EINVAL, "tensor 2: offset 768 and bytes 8 pass the end of the data at 775");
    free(file);
    xn_writer_free(w);
}

/* ---- magnitudes ------------------------------------------------------------------------------------------------ */

/* A dense layer over `side` x 1024 pixels of 255 with weights of 127: magnitude side * 1024 * 255 * 127. */
static struct xn_writer *wide_dense(uint32_t side)
{
    const uint32_t n = side * 1024;
    int8_t *weights = malloc(n);
    memset(weights, 127, n);
    struct xn_writer *w = xn_writer_new(side, 1024, 1, XN_DTYPE_U8);
    const uint32_t t = xn_writer_tensor(w, XN_DTYPE_I8, 2, (const uint32_t[]){1, n}, weights);
    xn_writer_logits(w, xn_writer_dense(w, 0, t), (const int32_t[]){1}, (const int32_t[]){0}, 1.0f, 0.0f);
    free(weights);
    return w;
}

static void test_accumulators_are_proven(void **state)
{
    (void)state;
    struct xn_network *n = load_writer(wide_dense(32));
    assert_int_equal(n->values[1].max, 1061191680);
    assert_int_equal(n->values[1].min, 0);
    xn_network_free(n);
    expect_writer_refused(
        wide_dense(33), -EINVAL,
        "layer 0 \"\" (dense): filter 0: its sum may reach a magnitude of 1094353920, must be 1073741824");
}

static struct xn_writer *logits_of(int32_t m, int32_t b)
{
    struct xn_writer *w = xn_writer_new(1, 1, 1, XN_DTYPE_U8);
    const uint32_t t = xn_writer_tensor(w, XN_DTYPE_I8, 2, (const uint32_t[]){1, 1}, (const int8_t[]){1});
    xn_writer_logits(w, xn_writer_dense(w, 0, t), &m, &b, 1.0f, 0.0f); /* of 0..255 */
    return w;
}

static void test_logits_are_proven(void **state)
{
    (void)state;
    struct xn_network *n = load_writer(logits_of(1 << 23, 8388607));
    assert_int_equal(n->values[2].max, INT32_MAX);
    xn_network_free(n);
    expect_writer_refused(logits_of(1 << 23, 8388608), -EINVAL, "the logit of class 0 may be 8388608..2147483648");
    expect_writer_refused(logits_of(-1, INT32_MIN), -EINVAL, "must fit 32 bits");
}

static struct xn_writer *sum_of(uint32_t h, uint32_t width, int32_t multiplier, uint8_t shift, enum xn_dtype out)
{
    struct xn_writer *w = xn_writer_new(h, width, 1, XN_DTYPE_I8);
    const uint32_t x =
        xn_writer_scale(w, 0, XN_FORMAT_NONE, (const int16_t[]){256}, (const int64_t[]){0}, 0, XN_DTYPE_I16);
    const uint32_t y = xn_writer_global_avgpool(w, x, multiplier, shift, out);
    xn_writer_logits(w, y, (const int32_t[]){1}, (const int32_t[]){0}, 1.0f, 0.0f);
    return w;
}

static void test_pool_sums_are_proven(void **state)
{
    (void)state;
    struct xn_network *n = load_writer(sum_of(181, 181, 1, 0, XN_DTYPE_I32)); /* 181^2 * 32768 < 2^30 */
    assert_int_equal(n->values[2].min, -181 * 181 * 32768);
    xn_network_free(n);
    xn_network_free(load_writer(sum_of(181, 181, 65536, 16, XN_DTYPE_I32)));
    xn_network_free(load_writer(sum_of(181, 181, 65536, 0, XN_DTYPE_I16)));
    expect_writer_refused(sum_of(182, 182, 1, 0, XN_DTYPE_I32), -EINVAL,
                          "(global_avgpool): channel 0: its sum may reach");
    expect_writer_refused(sum_of(182, 182, 1, 0, XN_DTYPE_I16), -EINVAL, "its sum may reach");
    /* 33000 elements of -32768 are too much; of the largest, 32512, they would not be */
    expect_writer_refused(sum_of(132, 250, 1, 0, XN_DTYPE_I16), -EINVAL, "a magnitude of 1081344000");
    expect_writer_refused(sum_of(181, 181, 2, 0, XN_DTYPE_I32), -EINVAL, "a smaller multiplier or a larger shift");
}

/* `n` convolutions of 1024 * 1024 * 64 * 49 multiply-accumulates each. */
static struct xn_writer *many_convs(uint32_t n)
{
    const struct xn_writer_window window = {7, 7, 1, 1, 3, 3, 3, 3, XN_PAD_ZERO};
    struct xn_writer *w = xn_writer_new(1024, 1024, 1, XN_DTYPE_U8);
    int8_t *signs = calloc(1024 * 1024, 1);
    const uint32_t filters = xn_writer_bits(w, 64, 49, signs), row = xn_writer_bits(w, 1, 1024 * 1024, signs);
    for (uint32_t i = 0; i < n; i++)
        xn_writer_conv(w, 0, filters, &window, 1);
    xn_writer_logits(w, xn_writer_dense(w, 0, row), (const int32_t[]){1}, (const int32_t[]){0}, 1.0f, 0.0f);
    free(signs);
    return w;
}

static void test_multiply_accumulates_are_limited(void **state)
{
    (void)state;
    const uint64_t each = UINT64_C(1024) * 1024 * 64 * 49;
    struct xn_network *n = load_writer(many_convs(334));
    assert_int_equal(n->int8_macs, 334 * each + 1024 * 1024);
    xn_network_free(n);
    expect_writer_refused(many_convs(335), -EINVAL, "layer 334 \"\" (conv): has 3288334336 multiply-accumulates");
}

/* ---- metadata -------------------------------------------------------------------------------------------------- */

static struct xn_writer *tiny(const char *meta)
{
    struct xn_writer *w = xn_writer_new(1, 2, 3, XN_DTYPE_U8);
    const int8_t signs[12] = {0};
    xn_writer_meta(w, meta);
    xn_writer_logits(w, xn_writer_dense(w, 0, xn_writer_bits(w, 2, 6, signs)), (const int32_t[]){1, 1},
                     (const int32_t[]){0, 0}, 1.0f, 0.0f);
    return w;
}

static void test_metadata_have_defaults(void **state)
{
    (void)state;
    struct xn_network *n = load_writer(tiny("{\"name\":\"a.B_c-9\"}"));
    assert_string_equal(n->name, "a.B_c-9");
    assert_string_equal(n->version, "1");
    assert_string_equal(n->description, "");
    assert_string_equal(n->input_name, "input");
    assert_null(n->labels);
    assert_false(n->input.is_image);
    assert_int_equal(n->input.channels, 3);
    xn_network_free(n);
    n = load_writer(tiny("{\"name\":\"a\",\"input\":{\"image\":{\"color\":\"rgb\"}}}"));
    assert_true(n->input.is_image && n->input.identity && n->input.fit == XN_FIT_STRETCH);
    assert_int_equal(n->input.multiplier[2], 1);
    xn_network_free(n);
    n = load_writer(tiny("{\"name\":\"a\",\"input\":{\"image\":{\"color\":\"rgb\",\"shift\":1}}}"));
    assert_false(n->input.identity);
    xn_network_free(n);
}

#define IMAGE(members) "{\"name\":\"a\",\"input\":{\"image\":{" members "}}}"
static const struct {
    const char *meta, *text;
} bad_meta[] = {
    {"[]", "metadata: is an array, must be an object"},
    {"{\"name\"", "metadata: line 1, column 7"},
    {"{\"name\":\"a\",\"name\":\"b\"}", "duplicate object key"},
    {"{\"name\":\"\xff\"}", "metadata: line 1"},
    {"{\"name\":\"a\\u0000b\"}", "metadata: line 1"},
    {"{}", "metadata: name is missing"},
    {"{\"name\":5}", "name is an integer, must be a string"},
    {"{\"name\":\"\"}", "name is \"\", must be letters, digits"},
    {"{\"name\":\".a\"}", "not begin with '.'"},
    {"{\"name\":\"a/b\"}", "name is \"a/b\""},
    {"{\"name\":\"1234567890123456789012345678901234567890123456789012345678901234\"}",
     "name has 64 bytes, must have 63"},
    {"{\"name\":\"a\",\"version\":1}", "version is an integer, must be a string"},
    {"{\"name\":\"a\",\"version\":\"v1\"}", "version is \"v1\", must be a decimal number"},
    {"{\"name\":\"a\",\"version\":\"1234567890123456\"}", "version has 16 bytes"},
    {"{\"name\":\"a\",\"description\":[]}", "description is an array, must be a string"},
    {"{\"name\":\"a\",\"description\":\"a\\nb\"}", "description has a control character"},
    {"{\"name\":\"a\",\"license\":5}", "license is an integer, must be a string"},
    {"{\"name\":\"a\",\"provenance\":[]}", "provenance is an array, must be an object"},
    {"{\"name\":\"a\",\"labels\":{}}", "labels is an object, must be an array"},
    {"{\"name\":\"a\",\"labels\":[\"x\"]}", "labels has 1 entries, must have 2: one for each class"},
    {"{\"name\":\"a\",\"labels\":[\"x\",\"y\",\"z\"]}", "labels has 3 entries"},
    {"{\"name\":\"a\",\"labels\":[\"x\",null]}", "labels[1] is null, must be a string"},
    {"{\"name\":\"a\",\"input\":3}", "input is an integer, must be an object"},
    {"{\"name\":\"a\",\"input\":{\"name\":\"\"}}", "input.name is \"\""},
    {"{\"name\":\"a\",\"input\":{\"shape\":[1,2]}}", "input.shape must be an array of 3 integers"},
    {"{\"name\":\"a\",\"input\":{\"shape\":[1,2,1.0]}}", "input.shape is a real number"},
    {"{\"name\":\"a\",\"input\":{\"shape\":[1,3,3]}}", "input.shape has 3 at 1, the header says 1x2x3"},
    {"{\"name\":\"a\",\"input\":{\"dtype\":\"int8\"}}", "input.dtype is \"int8\", the header says \"uint8\""},
    {"{\"name\":\"a\",\"input\":{\"image\":true}}", "input.image is a boolean, must be an object"},
    {IMAGE(""), "input.image.color is missing"},
    {IMAGE("\"color\":\"gray\""), "input.image.color is \"gray\", which has 1 channels: the input has 3"},
    {IMAGE("\"color\":\"bgr\""), "is \"bgr\", must be \"gray\", \"rgb\""},
    {IMAGE("\"color\":\"rgb\",\"fit\":\"zoom\""),
     "input.image.fit is \"zoom\", must be \"stretch\", \"crop\" or \"pad\""},
    {IMAGE("\"color\":\"rgb\",\"multiplier\":[1]"), "input.image.multiplier must be an array of 3 integers"},
    {IMAGE("\"color\":\"rgb\",\"multiplier\":[1,2,16777217]"),
     "input.image.multiplier is 16777217, must be -16777216.."},
    {IMAGE("\"color\":\"rgb\",\"offset\":[1,2,0.5]"), "input.image.offset is a real number, must be an integer"},
    {IMAGE("\"color\":\"rgb\",\"offset\":[1,2,-9223372036854775808]"), "input.image.offset is -9223372036854775808"},
    {IMAGE("\"color\":\"rgb\",\"shift\":25"), "input.image.shift is 25, must be 0..24"},
    {IMAGE("\"color\":\"rgb\",\"shift\":-1"), "input.image.shift is -1"},
};

static void test_metadata_complaints_name_the_key(void **state)
{
    (void)state;
    size_t missed = 0;
    for (size_t i = 0; i < XN_ARRAY_LEN(bad_meta); i++) {
        size_t bytes;
        struct xn_writer *w = tiny(bad_meta[i].meta);
        uint8_t *file = xn_writer_finish(w, &bytes);
        missed += !is_refused(file, bytes, -EINVAL, bad_meta[i].text);
        free(file);
        xn_writer_free(w);
    }
    assert_int_equal(missed, 0);
}

static void test_deep_metadata_are_refused(void **state)
{
    (void)state;
    char *deep = malloc(XN_META_BYTES_MAX);
    memset(deep, '[', XN_META_BYTES_MAX);
    memcpy(deep, "{\"a\":", 5);
    deep[XN_META_BYTES_MAX - 1] = '\0';
    expect_writer_refused(tiny(deep), -EINVAL, "metadata: line 1");
    free(deep);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/xn-test-model-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void path_of(const char *name, char ret_path[static 128])
{
    snprintf(ret_path, 128, "%s/%s", folder, name);
}

static void expect_path_refused(const char *path, int code, const char *text)
{
    struct xn_network *network = NULL;
    struct xn_error error = {""};
    assert_int_equal(xn_network_load(path, &network, &error), code);
    if (strncmp(error.text, path, strlen(path)) != 0 || !strstr(error.text, text))
        fail_msg("got \"%s\", want \"%s: ...%s\"", error.text, path, text);
}

static void test_load_from_a_path(void **state)
{
    (void)state;
    char path[128];
    size_t bytes;
    uint8_t *file = every_op_file(&bytes);
    struct xn_network *network = NULL;
    struct xn_error error = {""};
    path_of("good.xnor", path);
    const int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file, bytes), bytes);
    assert_int_equal(xn_network_load(path, &network, &error), 0);
    assert_int_equal(network->file_bytes, bytes);
    assert_int_equal(ftruncate(fd, 100), 0); /* overwritten while in use: of no concern */
    assert_int_equal(network->layers[LOGITS].tensors[0]->dims[0], 5);
    assert_int_equal(((const int32_t *)network->layers[LOGITS].tensors[0]->data)[4], 5);
    xn_network_free(network);
    expect_path_refused(path, -EBADMSG, "truncated");
    assert_int_equal(ftruncate(fd, (off_t)XN_MODEL_FILE_BYTES_MAX + 1), 0); /* sparse */
    expect_path_refused(path, -EFBIG, "must be 1073741824 at most");
#ifdef XN_FAULTS
    assert_int_equal(ftruncate(fd, 100), 0);
    xn_fault_arm("model.read", 1, false);
    expect_path_refused(path, -EIO, "reading failed at byte 0");
    xn_fault_arm("model.read", 0, false);
#endif
    close(fd);
    unlink(path);
    free(file);
}

static void test_paths_that_are_no_files(void **state)
{
    (void)state;
    char path[128];
    path_of("missing.xnor", path);
    expect_path_refused(path, -ENOENT, "No such file");
    expect_path_refused(folder, -EBADMSG, "not a regular file");
    path_of("fifo", path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_path_refused(path, -EBADMSG, "not a regular file"); /* and it does not hang */
    unlink(path);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

#ifdef XN_FAULTS
static void *failing_malloc(size_t bytes)
{
    return XN_FAULT("alloc") ? NULL : malloc(bytes);
}
#endif

static void test_every_failed_allocation_is_survived(void **state)
{
    (void)state;
#ifdef XN_FAULTS
    size_t bytes;
    uint8_t *file = every_op_file(&bytes);
    int r = -ENOMEM;
    json_set_alloc_funcs(failing_malloc, free); /* the JSON library's allocations fail too */
    uint64_t n = 0;
    while (r < 0) {
        struct xn_network *network = NULL;
        struct xn_reference *reference = NULL;
        struct xn_error error = {""};
        xn_fault_arm("alloc", ++n, false);
        r = xn_network_load_memory(file, bytes, &network, &error);
        if (r == 0) {
            r = xn_reference_new(network, &reference);
            snprintf(error.text, sizeof(error.text), "no memory for the reference");
        }
        /* the JSON library takes some of its own failed allocations for errors of syntax */
        const bool named = strstr(error.text, r == -ENOMEM ? "no memory" : "metadata: line 1, column") != NULL;
        if (r < 0 && !named)
            fail_msg("allocation %llu: got %d \"%s\"", (unsigned long long)n, r, error.text);
        xn_reference_free(reference);
        xn_network_free(network);
        assert_true(n < 10000);
    }
    assert_true(n > 30);
    xn_fault_arm("alloc", 0, false);
    json_set_alloc_funcs(malloc, free);
    free(file);
#else
    print_message("fault points are compiled in only with XN_FAULTS (debug, asan, tsan)\n");
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation_is_read_as_written),
        cmocka_unit_test(test_input_spec),
        cmocka_unit_test(test_bounds_follow_weights_and_inputs),
        cmocka_unit_test(test_bounds_count_zero_padding),
        cmocka_unit_test(test_later_minor_versions_are_read),
        cmocka_unit_test(test_copies_do_not_need_the_callers_bytes),
        cmocka_unit_test(test_every_prefix_is_refused),
        cmocka_unit_test(test_every_flipped_byte_is_refused),
        cmocka_unit_test(test_every_flipped_and_sealed_byte_is_refused_or_runs),
        cmocka_unit_test(test_every_field_out_of_range_is_refused),
        cmocka_unit_test(test_values_in_tensors_are_checked),
        cmocka_unit_test(test_shapes_must_go_together),
        cmocka_unit_test(test_values_are_limited),
        cmocka_unit_test(test_tensors_end_within_the_data),
        cmocka_unit_test(test_accumulators_are_proven),
        cmocka_unit_test(test_logits_are_proven),
        cmocka_unit_test(test_pool_sums_are_proven),
        cmocka_unit_test(test_multiply_accumulates_are_limited),
        cmocka_unit_test(test_metadata_have_defaults),
        cmocka_unit_test(test_metadata_complaints_name_the_key),
        cmocka_unit_test(test_deep_metadata_are_refused),
        cmocka_unit_test(test_load_from_a_path),
        cmocka_unit_test(test_paths_that_are_no_files),
        cmocka_unit_test(test_every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests_name("model", tests, make_folder, remove_folder);
}
