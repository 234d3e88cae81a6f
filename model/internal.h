/* SPDX-License-Identifier: Apache-2.0
 * What the loader's files share: the network while it is being made. Private to model/. */
#ifndef XN_MODEL_INTERNAL_H
#define XN_MODEL_INTERNAL_H

#include <jansson.h>

#include "model/format.h"
#include "model/network.h"

/** A network and all that it points to. The public struct comes first, so that a pointer to it is a pointer to this. */
struct xn_network_storage {
    struct xn_network network;
    uint8_t *file; /**< the whole file, 64-byte aligned */
    size_t file_bytes;
    struct xn_format_header header;  /**< checked by load.c */
    struct xn_format_layer *records; /**< [n_layers], as in the file; freed when loaded */
    struct xn_layer *layers;         /**< [n_layers] */
    struct xn_tensor *tensors;       /**< [n_tensors] */
    struct xn_value *values;         /**< [n_layers + 1] */
    char *meta_json;
    json_t *meta; /**< owns description and labels */
    const char **labels;
};

/** Layer `index` while it is checked: its record, its layer in the making, and where the complaint goes. */
struct xn_layer_check {
    struct xn_network_storage *storage;
    uint32_t index;
    const struct xn_format_layer *record;
    struct xn_layer *layer;
    struct xn_value *out;
    struct xn_error *error;
};

/** Value that the layer reads as its `k`-th input. */
static inline const struct xn_value *xn_check_input(const struct xn_layer_check *check, uint32_t k)
{
    return &check->storage->values[check->layer->inputs[k]];
}

/** Write `layer 3 "conv2" (conv): ` and the formatted rest to the error and return `code`. */
int xn_layer_error(const struct xn_layer_check *check, int code, const char *format, ...) XN_PRINTF(3, 4);

/** Fill storage->layers and storage->values from the records, checking every rule (validate.c). */
XN_MUST_CHECK int xn_validate_layers(struct xn_network_storage *storage, struct xn_error *error);

/** Set out->min and out->max from the bounds of the inputs and the tensors' contents, checking the rules on
 *  magnitudes (bounds.c). */
XN_MUST_CHECK int xn_bound_layer(const struct xn_layer_check *check);

/** Parse the metadata and fill what comes from it; after xn_validate_layers, whose shapes it must agree with
 *  (meta.c). */
XN_MUST_CHECK int xn_meta_read(struct xn_network_storage *storage, struct xn_error *error);

/** Bytes of one element; 0 for BITS and unknown types. */
size_t xn_dtype_bytes(enum xn_dtype dtype);
/** Range of a value's type. */
int64_t xn_dtype_min(enum xn_dtype dtype);
int64_t xn_dtype_max(enum xn_dtype dtype);

#endif
