/* SPDX-License-Identifier: Apache-2.0
 * Tensors as JSON numbers, read where they lie in a body: a tree of jansson's takes an allocation and some 200 ns for each number. What is plainly right is taken out of the
 * document and read here; whatever is not (damaged, unusual, or wrong for the network) stays in it for jansson, whose answers and errors so hold for all. */
#ifndef XN_DAEMON_HTTP_NUMBERS_H
#define XN_DAEMON_HTTP_NUMBERS_H

#include "daemon/request.h"

#define XN_NESTING_MAX 8u /**< [n][h][w][c], with room for some dimensions of 1 */

/** The sizes that a nested array has at each level. */
struct xn_shape {
    size_t rank, size[XN_NESTING_MAX];
};

/** An array of whole numbers of up to three digits, flat or nested and rectangular: a span of a document. */
struct xn_numbers {
    const char *text; /**< its '[' */
    size_t bytes;     /**< up to and with its ']' */
    struct xn_shape shape;
    size_t count;
    int low, high; /**< of the numbers */
    bool is_list;  /**< the value of "tensors": an array of tensors */
};

/** Where such arrays are looked for: inputs[].data of /v2; tensor, or tensors, of /infer. */
enum xn_numbers_place { XN_NUMBERS_V2, XN_NUMBERS_INFER };

/** Find the first array at `place` in `bytes` of `json`, which need not be JSON. True: it was found, and if the document with "[]" in its stead is JSON, then it was that
 *  document's value at `place`. Pure. Threads: any. */
bool xn_numbers_find(const void *json, size_t bytes, enum xn_numbers_place place, struct xn_numbers *ret);

/** Is `shape` that of `n` tensors of this input: flat, or nested as [n][h][w][c] but for dimensions of 1? `count`: how many numbers these are. */
bool xn_shape_fits(const struct xn_shape *shape, const struct xn_input_spec *spec, size_t n, size_t count);

/** Are these the numbers of `n` tensors of the network? */
bool xn_numbers_fit(const struct xn_numbers *numbers, const struct xn_network *network, size_t n);

/** Write numbers that fit into the inputs of all items of the request. */
void xn_numbers_put(const struct xn_numbers *numbers, struct xn_request *request);

#endif
