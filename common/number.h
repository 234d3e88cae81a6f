/* SPDX-License-Identifier: Apache-2.0
 * Numbers that come as text from outside. */
#ifndef XN_COMMON_NUMBER_H
#define XN_COMMON_NUMBER_H

#include "common/macros.h"

/** *ret := `text`, a whole decimal number from `low` to `high`: digits alone, no sign, no blank, nothing after it. Returns false,
 *  leaving *ret untouched, where it is none. Threads: any. */
XN_MUST_CHECK bool xn_number_u64(const char *text, uint64_t low, uint64_t high, uint64_t *ret);

#endif
