/* SPDX-License-Identifier: Apache-2.0
 * The accelerator backends built in, in the order in which they are listed to people. */
#include "accel/accel.h"
#include "accel/cpu/cpu.h"
#include "accel/xrt/xrt.h"

#include <string.h>

static const struct xn_accel_backend *const backends[] = {
    &xn_accel_cpu,
    &xn_accel_xrt,
};

const struct xn_accel_backend *xn_accel_at(size_t i)
{
    return i < XN_ARRAY_LEN(backends) ? backends[i] : NULL;
}

const struct xn_accel_backend *xn_accel_find(const char *kind)
{
    for (size_t i = 0; i < XN_ARRAY_LEN(backends); i++)
        if (strcmp(backends[i]->kind, kind) == 0)
            return backends[i];
    return NULL;
}
