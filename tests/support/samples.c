/* SPDX-License-Identifier: Apache-2.0
 * See samples.h. */
#include "tests/support/samples.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double samples_percentile(struct samples *s, double part)
{
    qsort(s->ns, s->n, sizeof(double), ascending);
    return s->ns[(size_t)(part * (double)(s->n - 1) + 0.5)];
}

void samples_add(struct samples *s, double ns)
{
    if (s->n < SAMPLES_MAX)
        s->ns[s->n++] = ns;
}
