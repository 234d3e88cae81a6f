/* SPDX-License-Identifier: Apache-2.0
 * Which instruction set level this machine runs. Levels are ordered: each needs all that the one before it needs. */
#include "accel/cpu/kernels.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

struct level {
    const struct xn_cpu_kernels *kernels;
    bool (*runs)(void);
};

static bool always(void)
{
    return true;
}

extern const struct xn_cpu_kernels xn_cpu_kernels_portable;

#if defined(__x86_64__)

extern const struct xn_cpu_kernels xn_cpu_kernels_popcnt, xn_cpu_kernels_avx2, xn_cpu_kernels_avx512bw,
    xn_cpu_kernels_avx512;

/* The compiler's own CPUID test: it asks the operating system too whether vector registers are saved. The flags are those that
 * accel/cpu/cpu.mk gives the compiler. */
static bool runs_popcnt(void)
{
    return __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("sse4.2");
}
static bool runs_avx2(void)
{
    return runs_popcnt() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}
static bool runs_avx512bw(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
static bool runs_avx512(void)
{
    return runs_avx512bw() && __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni");
}

static const struct level levels[] = {
    {&xn_cpu_kernels_portable, always},        {&xn_cpu_kernels_popcnt, runs_popcnt}, {&xn_cpu_kernels_avx2, runs_avx2},
    {&xn_cpu_kernels_avx512bw, runs_avx512bw}, {&xn_cpu_kernels_avx512, runs_avx512},
};

#elif defined(__aarch64__)

extern const struct xn_cpu_kernels xn_cpu_kernels_neon;

/* Every AArch64 processor that Linux runs on has the vector unit; the kernel says so. */
static bool runs_neon(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0;
}

static const struct level levels[] = {{&xn_cpu_kernels_portable, always}, {&xn_cpu_kernels_neon, runs_neon}};

#else

static const struct level levels[] = {{&xn_cpu_kernels_portable, always}};

#endif

size_t xn_cpu_levels(void)
{
    return XN_ARRAY_LEN(levels);
}

const struct xn_cpu_kernels *xn_cpu_level_at(size_t i)
{
    return levels[i].kernels;
}

bool xn_cpu_level_runs(size_t i)
{
    return levels[i].runs();
}

static int unknown_level(const char *mask, struct xn_error *error)
{
    char names[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < XN_ARRAY_LEN(levels); i++) {
        int n = snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "", levels[i].kernels->level);
        used = XN_MIN(used + (size_t)XN_MAX(n, 0), sizeof(names) - 1);
    }
    return xn_error_set(error, -EINVAL, "cpu: no instruction set level is called \"%s\"; this build has %s", mask,
                        names);
}

int xn_cpu_level_best(const char *mask, const struct xn_cpu_kernels **ret_kernels, struct xn_error *error)
{
    const struct xn_cpu_kernels *best = NULL;

    for (size_t i = 0; i < XN_ARRAY_LEN(levels); i++) {
        if (levels[i].runs())
            best = levels[i].kernels;
        if (mask && strcmp(mask, levels[i].kernels->level) == 0)
            break;
        if (mask && *mask && i + 1 == XN_ARRAY_LEN(levels))
            return unknown_level(mask, error);
    }
    *ret_kernels = best;
    return 0;
}
