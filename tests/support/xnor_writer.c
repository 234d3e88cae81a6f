/* SPDX-License-Identifier: Apache-2.0
 * Layout of a written file: header, metadata, layer table, tensor table, tensors, each where the one before ends,
 * rounded up to its alignment. */
#include "tests/support/xnor_writer.h"

#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

struct tensor {
    struct xn_format_tensor record; /* offset is set by finish */
    uint8_t *data;
};

struct xn_writer {
    char *meta;
    uint32_t n_layers, n_tensors, extra; /* extra: bytes behind header and records */
    struct xn_format_layer *layers;
    struct tensor *tensors;
    struct xn_value *values; /* [n_layers + 1] */
};

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

struct xn_writer *xn_writer_new(uint32_t h, uint32_t w, uint32_t c, enum xn_dtype dtype)
{
    struct xn_writer *writer = must(calloc(1, sizeof(*writer)));
    writer->values = must(calloc(1, sizeof(*writer->values)));
    writer->values[0] = (struct xn_value){.dtype = dtype, .h = h, .w = w, .c = c};
    xn_writer_meta(writer, "{\"name\":\"test\"}");
    return writer;
}

void xn_writer_free(struct xn_writer *writer)
{
    if (!writer)
        return;
    for (uint32_t i = 0; i < writer->n_tensors; i++)
        free(writer->tensors[i].data);
    free(writer->tensors);
    free(writer->layers);
    free(writer->values);
    free(writer->meta);
    free(writer);
}

void xn_writer_meta(struct xn_writer *writer, const char *json)
{
    free(writer->meta);
    writer->meta = must(strdup(json));
}

static size_t element_bytes(enum xn_dtype dtype)
{
    switch (dtype) {
    case XN_DTYPE_I16:
        return 2;
    case XN_DTYPE_I32:
        return 4;
    case XN_DTYPE_I64:
        return 8;
    default:
        return 1;
    }
}

static size_t tensor_bytes(enum xn_dtype dtype, const uint32_t *dims)
{
    if (dtype == XN_DTYPE_BITS)
        return (size_t)dims[0] * ((dims[1] + (size_t)63) / 64) * 8;
    return element_bytes(dtype) * dims[0] * dims[1] * dims[2] * dims[3];
}

uint32_t xn_writer_tensor(struct xn_writer *writer, enum xn_dtype dtype, uint32_t rank, const uint32_t *dims,
                          const void *data)
{
    struct tensor t = {.record = {.dtype = (uint8_t)dtype, .rank = (uint8_t)rank, .dims = {1, 1, 1, 1}}};
    memcpy(t.record.dims, dims, rank * sizeof(*dims));
    t.record.bytes = tensor_bytes(dtype, t.record.dims);
    t.data = must(malloc(t.record.bytes + 1));
    memcpy(t.data, data, t.record.bytes);
    writer->tensors = must(realloc(writer->tensors, (writer->n_tensors + 1) * sizeof(*writer->tensors)));
    writer->tensors[writer->n_tensors] = t;
    return writer->n_tensors++;
}

uint32_t xn_writer_vector(struct xn_writer *writer, enum xn_dtype dtype, uint32_t n, const void *data)
{
    return xn_writer_tensor(writer, dtype, 1, &n, data);
}

uint32_t xn_writer_bits(struct xn_writer *writer, uint32_t rows, uint32_t columns, const int8_t *signs)
{
    const size_t row_bytes = ((columns + (size_t)63) / 64) * 8;
    uint8_t *packed = must(calloc(rows, row_bytes));
    for (size_t r = 0; r < rows; r++)
        for (size_t e = 0; e < columns; e++)
            if (signs[r * columns + e] >= 0)
                packed[r * row_bytes + e / 8] |= (uint8_t)(1u << (e % 8)); /* little-endian: bit e%64 of word e/64 */
    const uint32_t id = xn_writer_tensor(writer, XN_DTYPE_BITS, 2, (const uint32_t[]){rows, columns}, packed);
    free(packed);
    return id;
}

struct xn_format_layer xn_writer_blank(enum xn_op op)
{
    struct xn_format_layer record = {.op = (uint16_t)op};
    memset(record.inputs, 0xff, sizeof(record.inputs));
    memset(record.tensors, 0xff, sizeof(record.tensors));
    return record;
}

uint32_t xn_writer_layer(struct xn_writer *writer, const struct xn_format_layer *record)
{
    const uint32_t n = writer->n_layers + 1;
    writer->layers = must(realloc(writer->layers, n * sizeof(*writer->layers)));
    writer->values = must(realloc(writer->values, (n + 1) * sizeof(*writer->values)));
    writer->layers[writer->n_layers] = *record;
    writer->values[n] = (struct xn_value){
        .dtype = (enum xn_dtype)record->out_dtype, .h = record->out_h, .w = record->out_w, .c = record->out_c};
    return writer->n_layers = n;
}

void xn_writer_name(struct xn_writer *writer, const char *name)
{
    strncpy(writer->layers[writer->n_layers - 1].name, name, sizeof(writer->layers->name) - 1);
}

void xn_writer_grow(struct xn_writer *writer, uint32_t extra)
{
    writer->extra = extra;
}

struct xn_value xn_writer_value(const struct xn_writer *writer, uint32_t id)
{
    return writer->values[id];
}

/* A record of `op` that reads `x` and makes a value of x's height and width. */
static struct xn_format_layer unary(const struct xn_writer *writer, enum xn_op op, uint32_t x, enum xn_dtype out)
{
    struct xn_format_layer record = xn_writer_blank(op);
    record.out_dtype = (uint8_t)out;
    record.input_count = 1;
    record.inputs[0] = x;
    record.out_h = writer->values[x].h;
    record.out_w = writer->values[x].w;
    record.out_c = writer->values[x].c;
    return record;
}

static void set_window(struct xn_format_layer *record, const struct xn_writer_window *window)
{
    record->kernel_h = window->kernel_h;
    record->kernel_w = window->kernel_w;
    record->stride_h = window->stride_h;
    record->stride_w = window->stride_w;
    record->pad_top = window->pad_top;
    record->pad_left = window->pad_left;
    record->pad_bottom = window->pad_bottom;
    record->pad_right = window->pad_right;
    record->pad_mode = (uint8_t)window->pad;
    record->out_h = (record->out_h + window->pad_top + window->pad_bottom - window->kernel_h) / window->stride_h + 1;
    record->out_w = (record->out_w + window->pad_left + window->pad_right - window->kernel_w) / window->stride_w + 1;
}

uint32_t xn_writer_conv(struct xn_writer *writer, uint32_t x, uint32_t weights, const struct xn_writer_window *window,
                        uint32_t groups)
{
    struct xn_format_layer record = unary(writer, XN_OP_CONV, x, XN_DTYPE_I32);
    set_window(&record, window);
    record.groups = groups;
    record.tensors[0] = weights;
    record.out_c = writer->tensors[weights].record.dims[0];
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_dense(struct xn_writer *writer, uint32_t x, uint32_t weights)
{
    struct xn_format_layer record = unary(writer, XN_OP_DENSE, x, XN_DTYPE_I32);
    record.tensors[0] = weights;
    record.out_h = record.out_w = 1;
    record.out_c = writer->tensors[weights].record.dims[0];
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_threshold(struct xn_writer *writer, uint32_t x, const int32_t *t)
{
    struct xn_format_layer record = unary(writer, XN_OP_THRESHOLD, x, XN_DTYPE_BITS);
    record.tensors[0] = xn_writer_vector(writer, XN_DTYPE_I32, record.out_c, t);
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_scale(struct xn_writer *writer, uint32_t x, uint32_t r, const int16_t *m, const int64_t *b,
                         uint8_t shift, enum xn_dtype out)
{
    struct xn_format_layer record = unary(writer, XN_OP_SCALE, x, out);
    record.inputs[1] = r;
    record.input_count = r == XN_FORMAT_NONE ? 1 : 2;
    record.shift = shift;
    record.tensors[0] = xn_writer_vector(writer, XN_DTYPE_I16, record.out_c, m);
    record.tensors[1] = xn_writer_vector(writer, XN_DTYPE_I64, record.out_c, b);
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_add(struct xn_writer *writer, uint32_t x, uint32_t r)
{
    struct xn_format_layer record = unary(writer, XN_OP_ADD, x, XN_DTYPE_I16);
    record.inputs[1] = r;
    record.input_count = 2;
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_rprelu(struct xn_writer *writer, uint32_t x, const int16_t *a, const uint8_t *k, const int16_t *b)
{
    struct xn_format_layer record = unary(writer, XN_OP_RPRELU, x, XN_DTYPE_I16);
    record.tensors[0] = xn_writer_vector(writer, XN_DTYPE_I16, record.out_c, a);
    record.tensors[1] = xn_writer_vector(writer, XN_DTYPE_U8, record.out_c, k);
    record.tensors[2] = xn_writer_vector(writer, XN_DTYPE_I16, record.out_c, b);
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_maxpool(struct xn_writer *writer, uint32_t x, const struct xn_writer_window *window)
{
    struct xn_format_layer record = unary(writer, XN_OP_MAXPOOL, x, writer->values[x].dtype);
    set_window(&record, window);
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_avgpool(struct xn_writer *writer, uint32_t x, const struct xn_writer_window *window,
                           int32_t multiplier, uint8_t shift)
{
    struct xn_format_layer record = unary(writer, XN_OP_AVGPOOL, x, XN_DTYPE_I16);
    set_window(&record, window);
    record.multiplier = multiplier;
    record.shift = shift;
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_global_avgpool(struct xn_writer *writer, uint32_t x, int32_t multiplier, uint8_t shift,
                                  enum xn_dtype out)
{
    struct xn_format_layer record = unary(writer, XN_OP_GLOBAL_AVGPOOL, x, out);
    record.out_h = record.out_w = 1;
    record.multiplier = multiplier;
    record.shift = shift;
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_concat(struct xn_writer *writer, const uint32_t *inputs, uint8_t n)
{
    struct xn_format_layer record = unary(writer, XN_OP_CONCAT, inputs[0], writer->values[inputs[0]].dtype);
    record.input_count = n;
    record.out_c = 0;
    for (uint32_t i = 0; i < n; i++) {
        record.inputs[i] = inputs[i];
        record.out_c += writer->values[inputs[i]].c;
    }
    return xn_writer_layer(writer, &record);
}

uint32_t xn_writer_logits(struct xn_writer *writer, uint32_t x, const int32_t *m, const int32_t *b, float scale,
                          float offset)
{
    struct xn_format_layer record = unary(writer, XN_OP_LOGITS, x, XN_DTYPE_I32);
    record.tensors[0] = xn_writer_vector(writer, XN_DTYPE_I32, record.out_c, m);
    record.tensors[1] = xn_writer_vector(writer, XN_DTYPE_I32, record.out_c, b);
    record.scale = scale;
    record.offset = offset;
    return xn_writer_layer(writer, &record);
}

static struct xn_format_header make_header(const struct xn_writer *writer)
{
    const struct xn_value *input = &writer->values[0];
    struct xn_format_header header = {.major = XN_FORMAT_MAJOR,
                                      .minor = XN_FORMAT_MINOR + (writer->extra > 0),
                                      .header_bytes = (uint32_t)sizeof(header) + writer->extra,
                                      .meta_bytes = strlen(writer->meta),
                                      .layer_count = writer->n_layers,
                                      .layer_record_bytes = (uint32_t)sizeof(struct xn_format_layer) + writer->extra,
                                      .tensor_count = writer->n_tensors,
                                      .tensor_record_bytes = (uint32_t)sizeof(struct xn_format_tensor) + writer->extra,
                                      .input_h = input->h,
                                      .input_w = input->w,
                                      .input_c = input->c,
                                      .input_dtype = (uint8_t)input->dtype};
    memcpy(header.magic, XN_FORMAT_MAGIC, XN_FORMAT_MAGIC_BYTES);
    header.meta_offset = header.header_bytes;
    header.layer_offset = xn_align_up(header.meta_offset + header.meta_bytes, 8);
    header.tensor_offset = header.layer_offset + (uint64_t)header.layer_count * header.layer_record_bytes;
    header.data_offset =
        xn_align_up(header.tensor_offset + (uint64_t)header.tensor_count * header.tensor_record_bytes, XN_FORMAT_ALIGN);
    for (uint32_t i = 0; i < writer->n_tensors; i++) {
        const size_t bytes = writer->tensors[i].record.bytes;
        header.data_bytes = xn_align_up(header.data_bytes, XN_FORMAT_ALIGN) + bytes;
    }
    header.file_bytes = header.data_offset + header.data_bytes;
    return header;
}

/* A record of `bytes` at `at`, and what a later version has behind it. */
static void put_record(const struct xn_writer *writer, uint8_t *at, const void *record, size_t bytes)
{
    memcpy(at, record, bytes);
    memset(at + bytes, 0xaa, writer->extra);
}

uint8_t *xn_writer_finish(const struct xn_writer *writer, size_t *ret_bytes)
{
    const struct xn_format_header header = make_header(writer);
    uint8_t *file = must(calloc(header.file_bytes, 1));
    put_record(writer, file, &header, sizeof(header));
    memcpy(file + header.meta_offset, writer->meta, header.meta_bytes);
    for (uint32_t i = 0; i < writer->n_layers; i++)
        put_record(writer, file + header.layer_offset + (size_t)i * header.layer_record_bytes, &writer->layers[i],
                   sizeof(*writer->layers));
    size_t offset = header.data_offset;
    for (uint32_t i = 0; i < writer->n_tensors; i++) {
        struct xn_format_tensor record = writer->tensors[i].record;
        record.offset = offset;
        put_record(writer, file + header.tensor_offset + (size_t)i * header.tensor_record_bytes, &record,
                   sizeof(record));
        memcpy(file + offset, writer->tensors[i].data, record.bytes);
        offset = xn_align_up(offset + record.bytes, XN_FORMAT_ALIGN);
    }
    xn_writer_seal(file, header.file_bytes);
    *ret_bytes = header.file_bytes;
    return file;
}

void xn_writer_seal(uint8_t *file, size_t bytes)
{
    struct sha256_ctx context;
    if (bytes < sizeof(struct xn_format_header))
        return;
    uint8_t *field = file + offsetof(struct xn_format_header, sha256);
    memset(field, 0, SHA256_DIGEST_SIZE);
    sha256_init(&context);
    sha256_update(&context, bytes, file);
    sha256_digest(&context, SHA256_DIGEST_SIZE, field);
}
