/* SPDX-License-Identifier: Apache-2.0
 * Times that a benchmark has taken, for medians. */
#ifndef XN_TESTS_SUPPORT_SAMPLES_H
#define XN_TESTS_SUPPORT_SAMPLES_H

#include <stddef.h>

#define SAMPLES_MAX 4096u
#define SAMPLES_MIN 11u

struct samples {
    double ns[SAMPLES_MAX];
    size_t n;
};

/** Beyond SAMPLES_MAX nothing is kept. */
void samples_add(struct samples *s, double ns);

/** The value below which `part` (0..1) of the samples lie; there is one at least. Sorts them. */
double samples_percentile(struct samples *s, double part);

#endif
