/* SPDX-License-Identifier: Apache-2.0
 * What a command says when it fails, and its memory. */
#include "clients/xnorctl/ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int xn_ctl_fail(const struct xn_ctl *ctl, const struct xn_error *error)
{
    fprintf(stderr, "xnorctl %s: %s\n", ctl->command, error->text);
    return XN_CTL_FAILED;
}

int xn_ctl_failf(const struct xn_ctl *ctl, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "xnorctl %s: ", ctl->command);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return XN_CTL_FAILED;
}

static void *checked(void *memory, size_t count, size_t bytes)
{
    if (memory)
        return memory;
    fprintf(stderr, "xnorctl: no memory for %zu x %zu bytes\n", count, bytes);
    exit(XN_CTL_FAILED);
}

void *xn_ctl_alloc(size_t count, size_t bytes)
{
    return checked(calloc(count ? count : 1, bytes), count, bytes);
}

void *xn_ctl_grow(void *old, size_t count, size_t bytes)
{
    return checked(reallocarray(old, count ? count : 1, bytes), count, bytes);
}
