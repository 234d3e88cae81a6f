/* SPDX-License-Identifier: Apache-2.0
 * A binary neural network in memory: what a .xnor file says, validated, immutable. Accelerators read it through
 * this header and pack it their own way; model/reference.h runs it as the specification of the arithmetic.
 *
 * A network is a list of layers in execution order. Each layer makes one value from earlier ones: value 0 is the
 * network's input, value i+1 is what layer i makes. The last layer is LOGITS, and only the last. Layers are single
 * operations; fusing a convolution with the scale, add, RPReLU and threshold that follow it is a backend's
 * business and changes no integer.
 *
 * Values are [h][w][c], channel innermost. Bits are ±1: 1 = +1, 0 = -1. Channel c of a pixel of bits is bit c%64
 * of little-endian 64-bit word c/64, unused bits 0. */
#ifndef XN_MODEL_NETWORK_H
#define XN_MODEL_NETWORK_H

#include "common/error.h"
#include "common/macros.h"

enum xn_dtype {
    XN_DTYPE_BITS = 1, /**< ±1 */
    XN_DTYPE_U8 = 2,
    XN_DTYPE_I8 = 3,
    XN_DTYPE_I16 = 4, /**< the residual stream */
    XN_DTYPE_I32 = 5, /**< accumulators and logits */
    XN_DTYPE_I64 = 6, /**< tensors only: biases of SCALE */
};

/** What a window (CONV, MAXPOOL, AVGPOOL) sees outside the map. */
enum xn_pad {
    XN_PAD_NONE = 0,      /**< nothing is outside: all four paddings are 0 */
    XN_PAD_MINUS_ONE = 1, /**< taps outside the map read -1; CONV with a BITS input only */
    XN_PAD_ZERO = 2,      /**< taps outside the map contribute nothing: 0 to a sum, no candidate to a maximum */
};

/** The operations. x, s: elements of the first input; r: of the second. `T[]` etc.: tensors, in the order of
 *  tensors[], one element for each channel. clamp(v): to the range of the output's type; sat16(v): to
 *  -32768..32767. `>>` is arithmetic (rounds down); half = n > 0 ? 2^(n-1) : 0, so that (v + half) >> n rounds to
 *  nearest, ties up. Intermediates are exact: 64 bits suffice for all of them, and 32 bits for the sums of CONV
 *  and DENSE (see XN_ACCUMULATOR_MAX).
 *
 *  Windows: kernel k, stride t, paddings a before and b after, each less than k. An axis of n elements (with
 *  n + a + b >= k) gives (n + a + b - k) / t + 1 outputs, rounded down; output o sees the k elements from o*t - a
 *  on. So every window sees at least one element of the map. Where an operation does not mention a shape, it keeps
 *  that of its input. */
enum xn_op {
    /** Convolution. x: BITS, U8 or I8 [h][w][c]; tensors[0] weights BITS [oc][kh*kw*c/groups], in a row the
     *  order of [kh][kw][c/groups], or I8 [oc][kh][kw][c/groups]; any of the six pairs. out I32 [oh][ow][oc]: s = sum
     *  of x*w over the taps of the window, not flipped; with both BITS that is K - 2*popcount(x ^ w) over the
     *  K = taps x channels that count. kernel 1..7, stride 1..2. groups divides c and oc; group g reads the g-th
     *  c/groups input channels and makes the g-th oc/groups output channels. Depthwise: groups = c. */
    XN_OP_CONV = 1,
    /** Fully connected. x: BITS, U8 or I8 [h][w][c], flattened in that order; tensors[0] weights BITS or I8
     *  [oc][h*w*c]; out I32 [1][1][oc]. */
    XN_OP_DENSE = 2,
    /** x: U8, I8, I16 or I32; tensors[0] T I32 [c]; out BITS: x >= T[c] ? +1 : -1. */
    XN_OP_THRESHOLD = 3,
    /** Multiply-shift. x: I32, I16, I8 or U8; optional second input r: I16 of the same shape, only with out I16;
     *  tensors[0] M I16 [c], tensors[1] B I64 [c] (|B| <= 2^46); shift n 0..30;
     *  out I16, I8 or U8: clamp(r + ((M[c]*x + B[c] + half) >> n)), r = 0 where there is no second input. */
    XN_OP_SCALE = 4,
    /** x, r: I16, same shape; out I16: sat16(x + r). */
    XN_OP_ADD = 5,
    /** x: I16; tensors[0] A I16 [c], tensors[1] K U8 [c] (0..15), tensors[2] B I16 [c]; out I16:
     *  t = x + A[c]; sat16((t >= 0 ? t : t >> K[c]) + B[c]). RPReLU with slopes 2^-K. */
    XN_OP_RPRELU = 6,
    /** Any of BITS (an OR), U8, I8, I16; out the same type: the largest element of the window. kernel 1..7, stride
     *  1..7, padding NONE or ZERO. kernel 1 with stride 2 is plain sub-sampling. */
    XN_OP_MAXPOOL = 7,
    /** x: BITS (+1 and -1), U8, I8 or I16; out I16: sat16((sum * multiplier + half) >> n), sum over the window;
     *  multiplier 1..65536, shift n 0..30. kernel and stride 1..7, padding NONE or ZERO. A 2x2 mean: multiplier 1,
     *  shift 2. */
    XN_OP_AVGPOOL = 8,
    /** As AVGPOOL over the whole map; out I16, or I32 without saturation (the loader proves |out| <=
     *  XN_ACCUMULATOR_MAX), [1][1][c]. */
    XN_OP_GLOBAL_AVGPOOL = 9,
    /** 2..8 inputs of one type and one h, w; BITS, U8, I8 or I16; out: channels one after another. A value may
     *  appear more than once: concat(x, x) doubles the channels of a shortcut. */
    XN_OP_CONCAT = 10,
    /** Last layer. x: I32 or I16 [1][1][classes]; tensors[0] M I32, tensors[1] B I32 [classes]; out I32: M[c]*x +
     *  B[c] (the loader proves that it fits). The class is the argmax (lowest index on ties); score = scale * z +
     *  offset, scale > 0. */
    XN_OP_LOGITS = 11,
};

/* Limits that every valid network keeps. */
#define XN_LAYERS_MAX         4096u
#define XN_TENSORS_MAX        16384u
#define XN_LAYER_INPUTS_MAX   8u
#define XN_LAYER_TENSORS_MAX  4u
#define XN_SIDE_MAX           4096u /**< h and w of a value */
#define XN_CHANNELS_MAX       65536u
#define XN_VALUE_ELEMENTS_MAX (1u << 26) /**< h*w*c of a value */
/** Bound of sum(|x|*|w|) over the taps of every CONV and DENSE and of sum(|x|) of every pool, proven by the loader
 *  from the weights and the bounds of x. So every partial sum, in any order, fits int32. Every I32 value but the
 *  logits keeps it too. */
#define XN_ACCUMULATOR_MAX      (1 << 30)
#define XN_MODEL_FILE_BYTES_MAX (1ull << 30)
#define XN_META_BYTES_MAX       (1u << 20)
#define XN_MODEL_NAME_BYTES     64u                /**< with NUL; [A-Za-z0-9._-], not starting with '.' */
#define XN_MACS_MAX             (1ull << 40)       /**< multiply-accumulates an image */
#define XN_SCALE_BIAS_MAX       (INT64_C(1) << 46) /**< of SCALE's B */
#define XN_LABEL_BYTES_MAX      256u               /**< of a class label, with NUL */

/** Shape and type of a value. */
struct xn_value {
    enum xn_dtype dtype;
    uint32_t h, w, c;
    int64_t min, max;  /**< proven bounds of its elements (over all channels; not always reached) */
    uint32_t last_use; /**< index of the last layer that reads it; its own maker's where none does */
};

struct xn_tensor {
    enum xn_dtype dtype;
    uint32_t rank;
    uint32_t dims[4];
    size_t bytes;
    /** In the file's memory, 64-byte aligned, row-major. BITS: dims[0] rows, each of dims[1] elements in
     *  ceil(dims[1]/64) little-endian words, element e in bit e%64 of word e/64, unused bits 0. */
    const void *data;
};

struct xn_layer {
    enum xn_op op;
    enum xn_pad pad;
    char name[32];
    uint32_t kernel_h, kernel_w, stride_h, stride_w;
    uint32_t pad_top, pad_left, pad_bottom, pad_right;
    uint32_t groups;
    uint32_t shift;
    int32_t multiplier;
    float scale, offset; /**< LOGITS */
    uint32_t n_inputs;
    uint32_t inputs[XN_LAYER_INPUTS_MAX];                  /**< value ids */
    const struct xn_tensor *tensors[XN_LAYER_TENSORS_MAX]; /**< by role; NULL where the operation has none */
    uint64_t macs; /**< multiply-accumulates an image; 0 but for CONV and DENSE */
    bool binary;   /**< CONV, DENSE: both operands are bits */
};

enum xn_resize_fit {
    XN_FIT_STRETCH, /**< each axis scaled by itself */
    XN_FIT_CROP,    /**< aspect kept, scaled to cover, centre cropped */
    XN_FIT_PAD,     /**< aspect kept, scaled to fit, centred on black */
};

/** How an image becomes the input tensor: decoded, turned upright, converted to `channels`, resized (the one
 *  method: docs/model-format.md "Images"), then per channel clamp((multiplier[c]*pixel + offset[c] + half) >>
 *  shift) to the input's dtype. */
struct xn_input_spec {
    uint32_t h, w, channels; /**< channels 1 (grey) or 3 (RGB) where is_image; else the tensor's c */
    enum xn_dtype dtype;     /**< U8 or I8 */
    bool is_image;           /**< metadata describes an image; false: raw tensors only */
    enum xn_resize_fit fit;
    int32_t multiplier[4], offset[4]; /**< |.| <= 2^24 */
    uint32_t shift;                   /**< 0..24 */
    bool identity;                    /**< multiplier 1, offset 0, shift 0: tensor = pixels */
};

struct xn_network {
    char name[XN_MODEL_NAME_BYTES];
    char version[16];        /**< decimal number, "1" where the metadata has none */
    const char *description; /**< may be "" */
    struct xn_input_spec input;
    char input_name[XN_MODEL_NAME_BYTES]; /**< as name; "input" where the metadata has none */
    size_t input_bytes;                   /**< h*w*c of the input tensor: one byte an element */
    uint32_t n_classes;
    const char *const *labels; /**< [n_classes], UTF-8; NULL where the metadata has none */
    const char *meta_json;     /**< the metadata as in the file, NUL-terminated */
    size_t meta_bytes;
    uint32_t n_values, n_layers, n_tensors;
    const struct xn_value *values;   /**< [n_values], n_values = n_layers + 1 */
    const struct xn_layer *layers;   /**< [n_layers] */
    const struct xn_tensor *tensors; /**< [n_tensors] */
    uint64_t binary_macs, int8_macs; /**< an image: both operands bits; all others */
    size_t file_bytes;
    uint8_t sha256[32];
    char sha256_hex[65];
    uint32_t format_major, format_minor;
};

/** Read, check and validate the file at `path`. The file is read once and not mapped: what was verified is what
 *  runs, whatever is done to the file later. On success *ret_network is immutable and shared by any threads until
 *  xn_network_free. Errors: -ENOENT, -EACCES, -EIO (system), -EFBIG (over XN_MODEL_FILE_BYTES_MAX), -EBADMSG (not
 *  an .xnor file, truncated, or its SHA-256 does not match), -EPROTONOSUPPORT (newer major version, unknown
 *  operation, type or padding, a reserved field in use), -EINVAL (a field breaks a rule; the text names the layer,
 *  the field and the rule), -ENOMEM. */
XN_MUST_CHECK int xn_network_load(const char *path, struct xn_network **ret_network, struct xn_error *error);

/** As xn_network_load from `bytes` at `data`, which are copied. For tests, fuzzing and uploads. */
XN_MUST_CHECK int xn_network_load_memory(const void *data, size_t bytes, struct xn_network **ret_network,
                                         struct xn_error *error);

void xn_network_free(struct xn_network *network);

/** Value that layer `i` makes. */
static inline const struct xn_value *xn_layer_output(const struct xn_network *n, uint32_t i)
{
    return &n->values[i + 1];
}
/** Value that layer `i` reads as its `k`-th input. */
static inline const struct xn_value *xn_layer_input(const struct xn_network *n, uint32_t i, uint32_t k)
{
    return &n->values[n->layers[i].inputs[k]];
}

const char *xn_op_name(enum xn_op op);          /**< "conv", "dense", ... or "unknown" */
const char *xn_dtype_name(enum xn_dtype dtype); /**< "bits", "uint8", "int8", "int16", "int32", "int64" */
const char *xn_pad_name(enum xn_pad pad);       /**< "none", "minus_one", "zero" */

/** Bytes of one [h][w][c] value in memory: BITS as h*w*ceil(c/64) words of 8 bytes, others packed. */
size_t xn_value_bytes(const struct xn_value *value);

/** Index of the largest of z[0..n-1], the lowest on ties. n >= 1. */
uint32_t xn_argmax(const int32_t *z, uint32_t n);

#endif
