/* SPDX-License-Identifier: Apache-2.0
 * Geometries by name and as text.
 *
 * Memories of the named ones follow from the parts. A BRAM36 holds 512 words of 64 bits, a URAM 4096. AM takes, each 512 (BRAM) or
 * 4096 (URAM) rows, 2P of them; RM 4 PR; the two weight buffers 32 for each 512 words. A fifth or more of the blocks stays for FIFOs and
 * the memory ports.
 *
 *     1T  Ultra96   206 BRAM36            AM 8192: 64    RM 8192: 64   WB 512: 32         160 BRAM36
 *     2T  Ultra96   206 BRAM36            AM 4608: 72    RM 4096: 64   WB 512: 32         168 BRAM36
 *     4T  KV260     144 BRAM36, 64 URAM   AM 12288: 48   RM 4096: 16   WB 1024: 64         64 BRAM36, 64 URAM
 *
 * 4T holds ResNet-18 on ImageNet: its input packed and the output of its stem in AM, its 56x56x64 stream in RM. */
#include "accel/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX (1u << 22)

static const struct {
    const char *name;
    struct xn_isa_geometry geometry;
} named[] = {
    {"1T", {.p = 2, .pi = 1, .pr = 1, .am_rows = 8192, .rm_rows = 8192, .wb_words = 512}},
    {"2T", {.p = 4, .pi = 4, .pr = 2, .am_rows = 4608, .rm_rows = 4096, .wb_words = 512}},
    {"4T", {.p = 8, .pi = 8, .pr = 4, .am_rows = 12288, .rm_rows = 4096, .wb_words = 1024}},
};

static bool is_power_of_two(uint32_t v)
{
    return v && !(v & (v - 1));
}

int xn_engine_geometry_check(const struct xn_isa_geometry *g, struct xn_error *error)
{
    if (!is_power_of_two(g->p) || g->p > 16)
        return xn_error_set(error, -EINVAL, "geometry: P is %u, must be 1, 2, 4, 8 or 16", g->p);
    if (!is_power_of_two(g->pi) || g->pi > g->p)
        return xn_error_set(error, -EINVAL, "geometry: PI is %u, must be a power of two up to P", g->pi);
    if (!is_power_of_two(g->pr) || g->pr > g->p)
        return xn_error_set(error, -EINVAL, "geometry: PR is %u, must be a power of two up to P", g->pr);
    if (g->am_rows < 1 || g->am_rows > ROWS_MAX || g->rm_rows < 1 || g->rm_rows > ROWS_MAX)
        return xn_error_set(error, -EINVAL, "geometry: AM and RM must have 1..%u rows", ROWS_MAX);
    if (g->wb_words < 1 || g->wb_words > XN_ISA_STEPS_MAX)
        return xn_error_set(error, -EINVAL, "geometry: WB is %u words, must be 1..%u", g->wb_words, XN_ISA_STEPS_MAX);
    return 0;
}

/** "NAMEvalue" and `behind` at *text. */
static bool take_field(const char **text, const char *name, uint32_t *ret_value, char behind)
{
    const size_t n = strlen(name);
    char *end;

    if (strncmp(*text, name, n) != 0 || (*text)[n] < '0' || (*text)[n] > '9')
        return false;
    const unsigned long long value = strtoull(*text + n, &end, 10);
    if (value > UINT32_MAX || *end != behind)
        return false;
    *ret_value = (uint32_t)value;
    *text = end + 1;
    return true;
}

int xn_engine_geometry_parse(const char *text, struct xn_isa_geometry *ret_geometry, struct xn_error *error)
{
    struct xn_isa_geometry g = {0};
    const char *at = text;

    for (size_t i = 0; i < XN_ARRAY_LEN(named); i++) {
        if (strcmp(text, named[i].name) == 0) {
            *ret_geometry = named[i].geometry;
            return 0;
        }
    }
    if (!take_field(&at, "P", &g.p, ',') || !take_field(&at, "PI", &g.pi, ',') || !take_field(&at, "PR", &g.pr, ',') ||
        !take_field(&at, "AM", &g.am_rows, ',') || !take_field(&at, "RM", &g.rm_rows, ',') ||
        !take_field(&at, "WB", &g.wb_words, '\0'))
        return xn_error_set(error, -EINVAL,
                            "geometry \"%s\": must be 1T, 2T, 4T or like P8,PI8,PR4,AM12288,RM4096,WB1024", text);
    const int r = xn_engine_geometry_check(&g, error);
    if (r == 0)
        *ret_geometry = g;
    return r;
}

void xn_engine_geometry_print(const struct xn_isa_geometry *g, char *ret_text, size_t bytes)
{
    const uint64_t am = (uint64_t)g->am_rows * 2 * g->p * XN_ISA_WORD_BYTES;
    const uint64_t rm = (uint64_t)g->rm_rows * g->pr * XN_ISA_LANES * 2;
    const uint64_t wb = (uint64_t)g->wb_words * XN_ISA_WEIGHT_BYTES;

    snprintf(ret_text, bytes,
             "P%u PE%u S%u PI%u PR%u, AM %u rows (%llu KiB), RM %u rows (%llu KiB), WB 2 x %u words (%llu KiB)", g->p,
             XN_ISA_LANES, XN_ISA_WORD_BITS, g->pi, g->pr, g->am_rows, (unsigned long long)am / 1024, g->rm_rows,
             (unsigned long long)rm / 1024, g->wb_words, (unsigned long long)(2 * wb) / 1024);
}
