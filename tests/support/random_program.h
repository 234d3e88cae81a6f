/* SPDX-License-Identifier: Apache-2.0
 * Random programs of the engine (hls/include/xnor_isa.h), valid for a geometry or damaged, that no network needs: every
 * operation, source and combination of flags, odd shapes, extreme parameters. The same seed and geometry give the same
 * program everywhere. */
#ifndef XN_TESTS_SUPPORT_RANDOM_PROGRAM_H
#define XN_TESTS_SUPPORT_RANDOM_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common/macros.h"
#include "hls/include/xnor_isa.h"

struct xn_random;

#define XN_RANDOM_PROGRAM_MAX 10u /**< descriptors, END included */

struct xn_random_program {
    struct xn_isa_geometry geometry;
    struct xn_isa_descriptor descriptors[XN_RANDOM_PROGRAM_MAX];
    uint32_t n; /**< END included */
    uint8_t *stream;
    size_t stream_bytes;
    uint8_t *input; /**< [images][input_bytes] */
    uint32_t images, input_bytes, output_words;
};

/** A small geometry of any P, PI and PR. */
struct xn_isa_geometry xn_random_geometry(uint64_t seed);

/** A program that xn_isa_check accepts, whose passes read only maps made before, residuals apart, and keep the ranges that the
 *  instruction set asks for. Owner: caller. Ends the process where there is no memory. */
struct xn_random_program *xn_random_program_new(uint64_t seed, const struct xn_isa_geometry *geometry);
void xn_random_program_free(struct xn_random_program *program);

/** Flip some bits of the descriptors. What is left of it may be refused, or run with values that are not defined; its work stays
 *  bounded, its stream long enough, its END in place. */
void xn_random_program_damage(struct xn_random_program *program, uint64_t seed);

/** A line: the operation and all fields that are not 0. */
void xn_random_descriptor_print(const struct xn_isa_descriptor *descriptor, FILE *out);

#endif
