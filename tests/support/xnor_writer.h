/* SPDX-License-Identifier: Apache-2.0
 * A builder of .xnor files in memory, for tests. It follows docs/model-format.md and shares model/format.h with
 * the loader, but checks nothing: wrong networks are half of what it is for. Running out of memory ends the test.
 *
 *     struct xn_writer *w = xn_writer_new(28, 28, 1, XN_DTYPE_U8);
 *     uint32_t weights = xn_writer_bits(w, 10, 784, signs);
 *     uint32_t sums = xn_writer_dense(w, 0, weights);
 *     xn_writer_logits(w, sums, multipliers, biases, 1.0f, 0.0f);
 *     size_t bytes;
 *     uint8_t *file = xn_writer_finish(w, &bytes);
 *     xn_writer_free(w);
 *     ... xn_network_load_memory(file, bytes, &network, &error) ...
 *     free(file);
 *
 * Values and tensors go by the ids that the file uses: value 0 is the input, each layer call returns the value it
 * makes. */
#ifndef XN_TESTS_SUPPORT_XNOR_WRITER_H
#define XN_TESTS_SUPPORT_XNOR_WRITER_H

#include "model/format.h"
#include "model/network.h"

struct xn_writer;

/** A file with an input of this shape and no layers. Its metadata is {"name":"test"} until xn_writer_meta. */
struct xn_writer *xn_writer_new(uint32_t h, uint32_t w, uint32_t c, enum xn_dtype dtype);
void xn_writer_free(struct xn_writer *writer);

/** Replace the metadata; `json` is copied as it is. */
void xn_writer_meta(struct xn_writer *writer, const char *json);

/** Add a tensor with `data` as the file holds it (BITS: packed rows). Returns its id. */
uint32_t xn_writer_tensor(struct xn_writer *writer, enum xn_dtype dtype, uint32_t rank, const uint32_t *dims,
                          const void *data);
/** The same with one dimension: a per-channel vector. */
uint32_t xn_writer_vector(struct xn_writer *writer, enum xn_dtype dtype, uint32_t n, const void *data);
/** A BITS tensor [rows][columns] from `signs` [rows][columns]: >= 0 makes a 1 (+1), < 0 a 0 (-1). */
uint32_t xn_writer_bits(struct xn_writer *writer, uint32_t rows, uint32_t columns, const int8_t *signs);

/** Add a layer record as it stands. Returns the value it makes. */
uint32_t xn_writer_layer(struct xn_writer *writer, const struct xn_format_layer *record);
/** A record with everything unused: zeros, and XN_FORMAT_NONE where an id would stand. */
struct xn_format_layer xn_writer_blank(enum xn_op op);

/** Name the layer added last; at most 31 bytes. */
void xn_writer_name(struct xn_writer *writer, const char *name);
/** Write as a later minor version would: `extra` bytes of 0xaa (a multiple of 8) behind the header and behind
 *  each record. */
void xn_writer_grow(struct xn_writer *writer, uint32_t extra);

/** Kernel, stride and padding of a window operation. */
struct xn_writer_window {
    uint8_t kernel_h, kernel_w, stride_h, stride_w;
    uint8_t pad_top, pad_left, pad_bottom, pad_right;
    enum xn_pad pad; /**< NONE with all paddings 0 */
};

/* One call for each operation; shapes follow from the inputs. Each returns the value it makes. */
uint32_t xn_writer_conv(struct xn_writer *writer, uint32_t x, uint32_t weights, const struct xn_writer_window *window,
                        uint32_t groups);
uint32_t xn_writer_dense(struct xn_writer *writer, uint32_t x, uint32_t weights);
uint32_t xn_writer_threshold(struct xn_writer *writer, uint32_t x, const int32_t *t);
/** `r`: a value, or XN_FORMAT_NONE. */
uint32_t xn_writer_scale(struct xn_writer *writer, uint32_t x, uint32_t r, const int16_t *m, const int64_t *b,
                         uint8_t shift, enum xn_dtype out);
uint32_t xn_writer_add(struct xn_writer *writer, uint32_t x, uint32_t r);
uint32_t xn_writer_rprelu(struct xn_writer *writer, uint32_t x, const int16_t *a, const uint8_t *k, const int16_t *b);
uint32_t xn_writer_maxpool(struct xn_writer *writer, uint32_t x, const struct xn_writer_window *window);
uint32_t xn_writer_avgpool(struct xn_writer *writer, uint32_t x, const struct xn_writer_window *window,
                           int32_t multiplier, uint8_t shift);
uint32_t xn_writer_global_avgpool(struct xn_writer *writer, uint32_t x, int32_t multiplier, uint8_t shift,
                                  enum xn_dtype out);
uint32_t xn_writer_concat(struct xn_writer *writer, const uint32_t *inputs, uint8_t n);
uint32_t xn_writer_logits(struct xn_writer *writer, uint32_t x, const int32_t *m, const int32_t *b, float scale,
                          float offset);

/** Shape and type of a value made so far (min and max are not filled). */
struct xn_value xn_writer_value(const struct xn_writer *writer, uint32_t id);

/** The file, sealed. malloc'ed; the writer stays usable. */
uint8_t *xn_writer_finish(const struct xn_writer *writer, size_t *ret_bytes);

/** Put the right SHA-256 into a file that was changed, so that validation and not the hash has to refuse it. Files
 *  too short for a header are left as they are. */
void xn_writer_seal(uint8_t *file, size_t bytes);

#endif
