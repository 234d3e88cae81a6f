/* SPDX-License-Identifier: Apache-2.0
 * Two networks made by hand: the smallest, which docs/model-format.md shows byte by byte, and one with every
 * operation. They are the seeds of the fuzzer too (tests/fuzz/corpus/xnor, compared by
 * tests/unit/test_model_document.c). */
#ifndef XN_TESTS_SUPPORT_SAMPLE_NETWORKS_H
#define XN_TESTS_SUPPORT_SAMPLE_NETWORKS_H

#include "tests/support/xnor_writer.h"

/** One grey pixel p in, two classes out: "dark" 128 - p, "light" p - 128. */
struct xn_writer *xn_sample_tiny(void);

/** The layers of xn_sample_every_op, by what they are. */
enum xn_sample_layer {
    STEM,
    BITS,
    CONV,
    SCALE,
    SCALE_ADD,
    ADD,
    RPRELU,
    MAXPOOL,
    AVGPOOL,
    CONCAT,
    RETHRESHOLD,
    GAP,
    DENSE,
    LOGITS,
    N_LAYERS
};

/** The metadata of xn_sample_every_op. */
#define XN_SAMPLE_META                                                                                                 \
    "{\"name\":\"every-op\",\"version\":\"7\",\"description\":\"all\",\"labels\":[\"a\",\"b\",\"c\",\"d\","            \
    "\"\xc3\xa4\"],"                                                                                                   \
    "\"input\":{\"name\":\"image\",\"shape\":[8,8,3],\"dtype\":\"uint8\",\"image\":{\"color\":\"rgb\",\"fit\":"        \
    "\"pad\","                                                                                                         \
    "\"multiplier\":[2,1,-1],\"offset\":[0,-128,255],\"shift\":1}},\"provenance\":{\"seed\":1},\"later\":[1,2]}"

/** 8x8x3 uint8 in, five classes out, every operation in between; a file of some 4 KB. */
struct xn_writer *xn_sample_every_op(void);

#endif
