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
/** A network whose image takes a good part of a millisecond at least: for deadlines. */
struct xn_network *xn_random_slow(uint64_t seed);

/** The file of xn_random_network(seed), for those who want bytes. malloc'ed. */
uint8_t *xn_random_network_file(uint64_t seed, size_t *ret_bytes);

#endif
