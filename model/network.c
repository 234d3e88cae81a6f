/* SPDX-License-Identifier: Apache-2.0
 * Names, sizes and small helpers of networks; the end of a network's life. */
#include "model/network.h"

#include <stdlib.h>

#include "model/internal.h"

const char *xn_op_name(enum xn_op op)
{
    static const char *const names[] = {
        [XN_OP_CONV] = "conv",       [XN_OP_DENSE] = "dense",     [XN_OP_THRESHOLD] = "threshold",
        [XN_OP_SCALE] = "scale",     [XN_OP_ADD] = "add",         [XN_OP_RPRELU] = "rprelu",
        [XN_OP_MAXPOOL] = "maxpool", [XN_OP_AVGPOOL] = "avgpool", [XN_OP_GLOBAL_AVGPOOL] = "global_avgpool",
        [XN_OP_CONCAT] = "concat",   [XN_OP_LOGITS] = "logits",
    };
    return (size_t)op < XN_ARRAY_LEN(names) && names[op] ? names[op] : "unknown";
}

/* What there is to know of a type, by its code. */
static const struct {
    const char *name;
    size_t bytes;
    int64_t min, max;
} dtypes[] = {
    [0] = {"unknown", 0, 0, 0},
    [XN_DTYPE_BITS] = {"bits", 0, -1, 1},
    [XN_DTYPE_U8] = {"uint8", 1, 0, UINT8_MAX},
    [XN_DTYPE_I8] = {"int8", 1, INT8_MIN, INT8_MAX},
    [XN_DTYPE_I16] = {"int16", 2, INT16_MIN, INT16_MAX},
    [XN_DTYPE_I32] = {"int32", 4, INT32_MIN, INT32_MAX},
    [XN_DTYPE_I64] = {"int64", 8, INT64_MIN, INT64_MAX},
};

static size_t dtype_index(enum xn_dtype dtype)
{
    return (size_t)dtype < XN_ARRAY_LEN(dtypes) ? (size_t)dtype : 0;
}

const char *xn_dtype_name(enum xn_dtype dtype)
{
    return dtypes[dtype_index(dtype)].name;
}

size_t xn_dtype_bytes(enum xn_dtype dtype)
{
    return dtypes[dtype_index(dtype)].bytes;
}

int64_t xn_dtype_min(enum xn_dtype dtype)
{
    return dtypes[dtype_index(dtype)].min;
}

int64_t xn_dtype_max(enum xn_dtype dtype)
{
    return dtypes[dtype_index(dtype)].max;
}

const char *xn_pad_name(enum xn_pad pad)
{
    switch (pad) {
    case XN_PAD_NONE:
        return "none";
    case XN_PAD_MINUS_ONE:
        return "minus_one";
    case XN_PAD_ZERO:
        return "zero";
    }
    return "unknown";
}

size_t xn_value_bytes(const struct xn_value *value)
{
    const size_t pixels = (size_t)value->h * value->w; /* bounded by XN_VALUE_ELEMENTS_MAX */
    if (value->dtype == XN_DTYPE_BITS)
        return pixels * xn_div_up(value->c, 64) * sizeof(uint64_t);
    return pixels * value->c * xn_dtype_bytes(value->dtype);
}

uint32_t xn_argmax(const int32_t *z, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (z[i] > z[best])
            best = i;
    return best;
}

void xn_network_free(struct xn_network *network)
{
    if (!network)
        return;
    struct xn_network_storage *storage = XN_CONTAINER_OF(network, struct xn_network_storage, network);
    free(storage->file);
    free(storage->records);
    free(storage->layers);
    free(storage->tensors);
    free(storage->values);
    free(storage->meta_json);
    free(storage->labels);
    json_decref(storage->meta);
    free(storage);
}
