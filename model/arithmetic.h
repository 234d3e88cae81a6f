/* SPDX-License-Identifier: Apache-2.0
 * The few integer functions that the operations are made of. Exact for every operand that a valid network can
 * have. */
#ifndef XN_MODEL_ARITHMETIC_H
#define XN_MODEL_ARITHMETIC_H

#include "common/macros.h"

/** v limited to low..high. */
static inline int64_t xn_clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

static inline int16_t xn_sat16(int64_t v)
{
    return (int16_t)xn_clamp(v, INT16_MIN, INT16_MAX);
}

/** v / 2^n to the nearest integer, ties up. n 0..30; v + 2^29 must fit. The shift of a negative number is
 *  arithmetic in every compiler that this project supports. */
static inline int64_t xn_round_shift(int64_t v, uint32_t n)
{
    return n > 0 ? (v + (INT64_C(1) << (n - 1))) >> n : v;
}

/** The multiply-shift of SCALE, before what is added and the clamp. */
static inline int64_t xn_scale(int64_t x, int16_t m, int64_t b, uint32_t n)
{
    return xn_round_shift(m * x + b, n);
}

/** RPReLU with negative slope 2^-k. */
static inline int16_t xn_rprelu(int32_t x, int16_t a, uint8_t k, int16_t b)
{
    const int32_t t = x + a;
    return xn_sat16((t >= 0 ? t : t >> k) + b);
}

#endif
