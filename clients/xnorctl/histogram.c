/* SPDX-License-Identifier: Apache-2.0
 * Buckets: values below 2^7 have one each; above, each power of two is cut in 2^7 equal parts. */
#include "clients/xnorctl/histogram.h"

#include <math.h>

#define SUB (1u << XN_HISTOGRAM_SUB_BITS)

static size_t bucket_of(uint64_t value)
{
    if (value < SUB)
        return (size_t)value;
    unsigned top = 63u - (unsigned)__builtin_clzll(value);
    if (top >= XN_HISTOGRAM_TOP_BITS)
        return XN_HISTOGRAM_BUCKETS - 1;
    unsigned shift = top - XN_HISTOGRAM_SUB_BITS;
    return ((size_t)(shift + 1) << XN_HISTOGRAM_SUB_BITS) + (size_t)(value >> shift) - SUB;
}

/* The largest value of a bucket. */
static uint64_t bucket_end(size_t bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned shift = (unsigned)(bucket >> XN_HISTOGRAM_SUB_BITS) - 1;
    uint64_t within = (bucket & (SUB - 1)) + SUB;
    return ((within + 1) << shift) - 1;
}

void xn_histogram_add(struct xn_histogram *h, uint64_t value)
{
    h->min = h->count == 0 || value < h->min ? value : h->min;
    h->max = XN_MAX(h->max, value);
    h->sum += (double)value;
    h->count++;
    h->buckets[bucket_of(value)]++;
}

uint64_t xn_histogram_quantile(const struct xn_histogram *h, double part)
{
    uint64_t need = (uint64_t)ceil(part * (double)h->count), seen = 0;

    if (h->count == 0)
        return 0;
    need = XN_MAX(need, 1);
    for (size_t i = 0; i < XN_HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= need && i == XN_HISTOGRAM_BUCKETS - 1)
            return h->max;
        if (seen >= need)
            return XN_MAX(h->min, XN_MIN(h->max, bucket_end(i)));
    }
    return h->max;
}

double xn_histogram_mean(const struct xn_histogram *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}
