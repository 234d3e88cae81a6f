/* SPDX-License-Identifier: Apache-2.0
 * Depthwise convolutions of bits that are compared as they are counted (struct xn_cpu_slices): the chain is one threshold, and outputs lie
 * one after another as their taps do. x = bias - 2*count >= t is count <= (bias - t) >> 1.
 */
#include "accel/cpu/bits.h"
#include "accel/cpu/plan.h"

#include <errno.h>

/** Lane `lane` of pattern block `block` is word (8 * block + lane) % words of a pixel. */
static int slice_weights(struct xn_cpu_plan *plan, struct xn_cpu_conv *conv, uint32_t words)
{
    const uint32_t taps = conv->rows * conv->run;
    uint64_t *to = xn_cpu_plan_memory(plan, (size_t)words * taps * XN_CPU_SLICE_WORDS, sizeof(*to));
    if (!to)
        return -ENOMEM;
    conv->slice_weights = to;
    for (uint32_t block = 0; block < words; block++)
        for (uint32_t tap = 0; tap < taps; tap++)
            for (uint32_t lane = 0; lane < XN_CPU_SLICE_WORDS; lane++, to++) {
                const uint32_t word = (block * XN_CPU_SLICE_WORDS + lane) % words;
                *to = ((const uint64_t *)(const void *)(conv->weights + word * conv->chunk_weight_bytes))[tap];
            }
    return 0;
}

/** Planes of the limits of channels 64 * word on, and which of them can be set; `to` is the lane's first plane. */
static void slice_limits(const struct xn_cpu_chain *chain, const int32_t *bias, uint32_t taps, uint32_t word,
                         uint64_t *to)
{
    const uint32_t end = XN_MIN(chain->c - word * 64, 64);
    for (uint32_t i = 0; i < end; i++) {
        const int64_t limit = ((int64_t)bias[word * 64 + i] - chain->stages[0].m[word * 64 + i]) >> 1;
        const uint64_t most =
            (uint64_t)XN_MAX(XN_MIN(limit, taps), 0); /* kernels look at no more planes than a count has */
        for (uint32_t p = 0; p < XN_CPU_SLICE_PLANES; p++)
            to[p * XN_CPU_SLICE_WORDS] |= (most >> p & 1) << i;
        to[XN_CPU_SLICE_PLANES * XN_CPU_SLICE_WORDS] |= (uint64_t)(limit >= 0) << i;
    }
}

static int slice_all_limits(struct xn_cpu_plan *plan, const struct xn_cpu_chain *chain, struct xn_cpu_conv *conv,
                            uint32_t words)
{
    const size_t block_words = (XN_CPU_SLICE_PLANES + 1) * XN_CPU_SLICE_WORDS;
    uint64_t *to = xn_cpu_plan_memory(plan, conv->bias_rows * words * block_words, sizeof(*to));
    if (!to)
        return -ENOMEM;
    conv->slice_limits = to;
    for (uint32_t row = 0; row < conv->bias_rows; row++)
        for (uint32_t block = 0; block < words; block++, to += block_words)
            for (uint32_t lane = 0; lane < XN_CPU_SLICE_WORDS; lane++)
                slice_limits(chain, conv->bias + row * chain->row_pitch, conv->rows * conv->run,
                             (block * XN_CPU_SLICE_WORDS + lane) % words, to + lane);
    return 0;
}

int xn_cpu_slice(struct xn_cpu_plan *plan, const struct xn_cpu_chain *chain, uint32_t stride_h, uint32_t stride_w,
                 struct xn_cpu_conv *conv)
{
    const uint32_t words = (uint32_t)xn_div_up(chain->c, 64);

    if (conv->kind != XN_CPU_CONV_DW_BITS || stride_h != 1 || stride_w != 1 || chain->n_stages != 1 ||
        chain->stages[0].op != XN_CPU_STAGE_BITS)
        return 0;
    const int r = slice_weights(plan, conv, words);
    return r < 0 ? r : slice_all_limits(plan, chain, conv, words);
}
