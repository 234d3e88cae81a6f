/* SPDX-License-Identifier: Apache-2.0
 * The CPU backend: runs any valid network on this machine's processor. */
#ifndef XN_ACCEL_CPU_CPU_H
#define XN_ACCEL_CPU_CPU_H

#include "accel/accel.h"

#define XN_CPU_THREADS_MAX   256u /**< of one instance */
#define XN_CPU_INSTANCES_MAX 64u

extern const struct xn_accel_backend xn_accel_cpu;

#endif
