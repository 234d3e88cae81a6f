/* SPDX-License-Identifier: Apache-2.0
 * The .xnor file as bytes: header, layer record, tensor record. docs/model-format.md is the specification; this
 * header is its C form, used by model/'s loader and by tests that build files. Everything is little-endian.
 *
 * Two ways to grow without breaking readers. What a reader may ignore goes behind the known end of a record
 * (readers take record sizes from the header) or into the metadata. What it must understand goes into a reserved
 * field, an unused field or a new code: reserved fields, and fields that a layer's operation does not use, are 0
 * (ids: XN_FORMAT_NONE), and a reader refuses a file where they are not. */
#ifndef XN_MODEL_FORMAT_H
#define XN_MODEL_FORMAT_H

#include <stdint.h>

/** 0x89 and CR LF SUB catch transfers as text, as in PNG. */
#define XN_FORMAT_MAGIC            "\x89XNOR\r\n\x1a"
#define XN_FORMAT_MAGIC_BYTES      8u
#define XN_FORMAT_MAJOR            1u
#define XN_FORMAT_MINOR            0u
#define XN_FORMAT_ALIGN            64u        /**< every tensor starts at a multiple of this */
#define XN_FORMAT_NONE             UINT32_MAX /**< "no tensor", "no value" */
#define XN_FORMAT_HEADER_BYTES_MAX 4096u
#define XN_FORMAT_RECORD_BYTES_MAX 1024u

struct xn_format_header { /* 160 bytes at offset 0 */
    uint8_t magic[8];
    uint16_t major, minor;
    uint32_t header_bytes;                    /**< 160 in 1.0 */
    uint64_t file_bytes;                      /**< of the whole file */
    uint64_t meta_offset, meta_bytes;         /**< UTF-8 JSON object, not NUL-terminated */
    uint64_t layer_offset;                    /**< a multiple of 8, as are tensor_offset and the record sizes */
    uint32_t layer_count, layer_record_bytes; /**< 128 in 1.0 */
    uint64_t tensor_offset;
    uint32_t tensor_count, tensor_record_bytes; /**< 48 in 1.0 */
    uint64_t data_offset, data_bytes; /**< the region that all tensors lie in, in ascending order, none overlapping */
    uint32_t input_h, input_w, input_c;
    uint8_t input_dtype;  /**< XN_DTYPE_U8 or XN_DTYPE_I8 */
    uint8_t reserved[27]; /**< 0 */
    uint8_t sha256[32];   /**< of the whole file with this field as zeros */
};

struct xn_format_layer {                            /* 128 bytes */
    uint16_t op;                                    /**< enum xn_op */
    uint8_t out_dtype;                              /**< enum xn_dtype */
    uint8_t pad_mode;                               /**< enum xn_pad */
    uint8_t kernel_h, kernel_w, stride_h, stride_w; /**< CONV, MAXPOOL, AVGPOOL; as pad_* */
    uint8_t pad_top, pad_left, pad_bottom, pad_right;
    uint8_t input_count;
    uint8_t shift;      /**< SCALE, AVGPOOL, GLOBAL_AVGPOOL */
    uint16_t reserved0; /**< 0 */
    uint32_t groups;    /**< CONV */
    uint32_t out_h, out_w, out_c;
    uint32_t inputs[8];  /**< value ids; unused: XN_FORMAT_NONE */
    uint32_t tensors[4]; /**< tensor ids by role (see enum xn_op); unused: XN_FORMAT_NONE */
    int32_t multiplier;  /**< AVGPOOL, GLOBAL_AVGPOOL */
    float scale, offset; /**< LOGITS */
    uint32_t reserved1;  /**< 0 */
    char name[32];       /**< UTF-8, NUL-padded, at most 31 bytes */
};

struct xn_format_tensor { /* 48 bytes */
    uint8_t dtype;        /**< enum xn_dtype */
    uint8_t rank;         /**< 1..4 */
    uint16_t reserved0;
    uint32_t reserved1;
    uint32_t dims[4]; /**< unused: 1 */
    uint64_t offset;  /**< from the start of the file, a multiple of 64 */
    uint64_t bytes;   /**< exactly what dtype and dims need */
    uint64_t reserved2;
};

_Static_assert(sizeof(struct xn_format_header) == 160, "header");
_Static_assert(sizeof(struct xn_format_layer) == 128, "layer record");
_Static_assert(sizeof(struct xn_format_tensor) == 48, "tensor record");

#endif
