/* SPDX-License-Identifier: Apache-2.0
 * Calls a function with known values in all registers that a callee must preserve, and looks at them afterwards. */
#ifndef XN_TESTS_SUPPORT_CHECKED_CALL_H
#define XN_TESTS_SUPPORT_CHECKED_CALL_H

#include "common/macros.h"

#define XN_CHECKED_ARGUMENTS 6u

/** function(arguments[0], ..., arguments[5]). Returns 0, or the number (1..) of the first register of the ABI's callee-saved ones that came
 *  back changed; -1 where this machine has no such check (the function was called all the same). */
int xn_checked_call(void (*function)(void), const uint64_t arguments[XN_CHECKED_ARGUMENTS]);

#endif
