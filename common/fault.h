/* SPDX-License-Identifier: Apache-2.0
 * Fault injection for tests: named points in the code that fail on demand. Compiled to constants unless XN_FAULTS
 * is defined (test and sanitizer builds).
 *
 *   if (XN_FAULT("model.map")) return xn_error_set(e, -EIO, ...);
 *
 * Tests arm them with xn_fault_arm, or from outside with $XN_FAULT="model.map:3,accel.cpu.submit:1" (fail from the
 * third pass on, once; append '+' to fail at every pass from then on). All heap memory of model/, accel/ and the
 * daemon's start-up comes from xn_calloc, so that a torture test can fail each allocation in turn through the
 * point "alloc". */
#ifndef XN_COMMON_FAULT_H
#define XN_COMMON_FAULT_H

#include "common/macros.h"

/** Zeroed memory for `count` x `bytes`, or NULL (also on overflow, or where the fault point "alloc" fires). Free with
 *  free(). */
void *xn_calloc(size_t count, size_t bytes) __attribute__((malloc));
/** As xn_calloc, aligned to 64 bytes, size rounded up to 64. Free with free(). */
void *xn_calloc_aligned(size_t count, size_t bytes) __attribute__((malloc));
/** A copy of `text` from xn_calloc, or NULL. */
char *xn_strdup(const char *text) __attribute__((malloc));

#ifdef XN_FAULTS
/** True when the armed point `name` is to fail at this pass. Threads: any. */
bool xn_fault_hit(const char *name);
/** Arm `name`: passes 1..nth-1 succeed, pass nth fails; `forever`: all after it too. nth 0 disarms. */
void xn_fault_arm(const char *name, uint64_t nth, bool forever);
/** How often `name` was passed since it was armed. */
uint64_t xn_fault_passes(const char *name);
#define XN_FAULT(name) xn_fault_hit(name)
#else
#define XN_FAULT(name) false
#endif

#endif
