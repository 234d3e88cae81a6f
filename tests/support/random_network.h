/* SPDX-License-Identifier: Apache-2.0
 * Random valid networks that reach every operation, pair of types, padding, stride and group, odd channel counts and saturating
 * parameters, and two well-known shapes with random weights. The same seed gives the same network everywhere. */
#ifndef XN_TESTS_SUPPORT_RANDOM_NETWORK_H
#define XN_TESTS_SUPPORT_RANDOM_NETWORK_H

#include "model/network.h"

/** A stream of random numbers (splitmix64). */
struct xn_random {
    uint64_t state;
};

uint64_t xn_random_next(struct xn_random *random);
/** 0..n-1, n >= 1. */
uint32_t xn_random_below(struct xn_random *random, uint32_t n);
/** low..high. */
int64_t xn_random_between(struct xn_random *random, int64_t low, int64_t high);
void xn_random_bytes(struct xn_random *random, void *to, size_t bytes);

/** The seed of a test: $XN_SEED, else `otherwise`. Prints it, so that a failure can be repeated. */
uint64_t xn_random_seed(uint64_t otherwise);

/** Each ends the process with the reason where the loader refuses what was made: that is a failure in itself. Owner: caller,
 *  xn_network_free. */
struct xn_network *xn_random_network(uint64_t seed);
/** 32x32x3, 8 weighted layers: 6 convolutions of 128 to 512 channels, 3 fully connected; 613 M binary multiply-accumulates. */
struct xn_network *xn_random_vgg_small(uint64_t seed);
/** 32x32x3, a stem, 16 residual convolutions of 64 to 512 channels with an int16 stream, RPReLU, down-sampling shortcuts. */
struct xn_network *xn_random_resnet18(uint64_t seed);
/** 224x224x3, the topology of ResNet-18 with binary 3x3 convolutions: a 7x7 stem of int8 and a pool, 16 residual convolutions of 64 to 512
 *  channels round an int16 stream, int8 1x1 convolutions where it is down-sampled, 1000 classes. */
struct xn_network *xn_random_resnet18_imagenet(uint64_t seed);
/** The files of these three: index 0, 1, 2; NULL beyond. malloc'ed; the name is static. */
uint8_t *xn_random_known_file(uint32_t index, uint64_t seed, const char **ret_name, size_t *ret_bytes);

/** Maps of one pixel by convolutions and fully connected layers, many of them alive at once, that no convolution reads. */
struct xn_network *xn_random_one_pixel(uint64_t seed);

/** Residual convolutions whose shortcuts are convolutions too, and stand behind them in the file. */
struct xn_network *xn_random_shortcuts(uint64_t seed);

/** What follows the convolution of xn_random_layer. */
enum xn_random_finish {
    XN_RANDOM_BITS,     /**< threshold */
    XN_RANDOM_RESIDUAL, /**< scale, add to an int16 stream, threshold */
    XN_RANDOM_RPRELU,   /**< the same with RPReLU before the threshold */
};

/** One convolution. */
struct xn_random_layer {
    uint32_t side, c, oc, kernel, stride;
    bool depthwise, bytes; /**< bytes: uint8 x int8 */
    enum xn_pad pad;       /**< padded by kernel / 2; NONE: not */
    enum xn_random_finish finish;
};

/** A network round one such convolution, for kernels to be measured on. */
struct xn_network *xn_random_layer(uint64_t seed, const struct xn_random_layer *layer);

/** A network whose image takes a good part of a millisecond at least: for deadlines. */
struct xn_network *xn_random_slow(uint64_t seed);

/** The file of xn_random_network(seed), for those who want bytes. malloc'ed. */
uint8_t *xn_random_network_file(uint64_t seed, size_t *ret_bytes);

#endif
