/* SPDX-License-Identifier: Apache-2.0
 * When 16-bit lanes suffice: half the width of a sum is twice the channels a vector, and the stream and thresholds of real networks fit.
 * A chain is narrow where every stage can be proven to give the same integers:
 *
 *   - BITS of a count. x = bias - f*count >= t, f 4 for pairs and 2 else, is count <= (bias - t) / f, and a count is at most 48 a word of the
 *     window.
 *   - SCALE of a count, n >= log2 f. (m*x + b) >> n = (((m*bias + b) / f) - m*count) >> (n - log2 f), exactly, since m*count is whole. The
 *     products are 16 x 16 -> 32 bits. Where a residual is added to it, the result must fit 16 bits before; else saturation is the clamp.
 *   - SCALE of an int32 from memory, in 64 bits where 32 do not suffice, if the result fits 32 bits; with the same rule for the residual.
 *   - SCALE of an int16 where 32 bits suffice (XN_CPU_STAGE_SCALE), with the same rule.
 *   - ADD: saturating addition.
 *   - RPRELU. For t = x + m >= 0: sat16(x + (m + b)), if m + b fits. Below: t may not fit, but t >> 1 does, as the rounded-down average of x
 *     and m, and shifts by k - 1 more.
 *   - BITS of int16: x >= t is x > t - 1, but where that is out of range: never, and always.
 *   - STORE of what has 16 bits.
 *
 * Anything else: the chain runs in 32-bit lanes (kernels/epilogue.c), which can do all.
 */
#include "accel/cpu/plan.h"

#include <errno.h>

struct narrowing {
    struct xn_cpu_plan *plan;
    const struct xn_cpu_chain *chain;
    enum xn_cpu_rows_kind kind;
    int64_t min, max; /* of x, while it is a sum */
    const struct xn_cpu_conv *conv;
    int64_t count_max;
    bool is_sum;     /* x is still a sum, of 32 bits */
    bool impossible; /* to narrow */
};

static bool fits_16(int64_t x)
{
    return x >= INT16_MIN && x <= INT16_MAX;
}

/** A table of `bytes` elements: [rows][pitch]. */
static void *table(struct narrowing *n, size_t rows, size_t bytes)
{
    return xn_cpu_plan_memory(n->plan, rows * n->chain->row_pitch, bytes);
}

/** log2 of what a count is multiplied by. */
static uint32_t count_shift(const struct narrowing *n)
{
    return n->kind == XN_CPU_ROWS_PAIRS ? 2 : 1;
}

static int bits_of_counts(struct narrowing *n, struct xn_cpu_stage *stage)
{
    const size_t pitch = n->chain->row_pitch;
    int16_t *limit = table(n, n->conv->bias_rows, sizeof(*limit));
    if (!limit)
        return -ENOMEM;
    for (size_t row = 0; row < n->conv->bias_rows; row++)
        for (size_t c = 0; c < n->chain->c; c++) {
            const int64_t most = ((int64_t)n->conv->bias[row * pitch + c] - stage->m[c]) >> count_shift(n);
            limit[row * pitch + c] = (int16_t)XN_MAX(XN_MIN(most, INT16_MAX), -1);
        }
    stage->limit = limit;
    return 0;
}

static int bits_of_int16(struct narrowing *n, struct xn_cpu_stage *stage)
{
    int16_t *limit = table(n, 1, sizeof(*limit));
    uint64_t *always = xn_cpu_plan_memory(n->plan, n->chain->row_pitch / XN_CPU_CHUNK, sizeof(*always));
    if (!limit || !always)
        return -ENOMEM;
    for (size_t c = 0; c < n->chain->c; c++) {
        limit[c] = (int16_t)XN_MAX(XN_MIN((int64_t)stage->m[c] - 1, INT16_MAX), INT16_MIN);
        if (stage->m[c] <= INT16_MIN)
            always[c / XN_CPU_CHUNK] |= UINT64_C(1) << c % XN_CPU_CHUNK;
    }
    stage->limit = limit;
    stage->always = always;
    return 0;
}

/** Does (m*x + b) >> shift of every channel lie in min..max for all x there can be? It is monotonic in x. */
static bool scaled_lies(const struct narrowing *n, const struct xn_cpu_stage *stage, int64_t min, int64_t max)
{
    const int64_t x_min = n->is_sum ? n->min : INT16_MIN, x_max = n->is_sum ? n->max : INT16_MAX;
    for (size_t c = 0; c < n->chain->c; c++) {
        const int64_t a = (stage->m[c] * x_min + stage->b64[c]) >> stage->shift;
        const int64_t b = (stage->m[c] * x_max + stage->b64[c]) >> stage->shift;
        if (XN_MIN(a, b) < min || XN_MAX(a, b) > max)
            return false;
    }
    return true;
}

static int64_t origin_of(const struct narrowing *n, const struct xn_cpu_stage *stage, size_t row, size_t c)
{
    return ((int64_t)stage->m[c] * n->conv->bias[row * n->chain->row_pitch + c] + stage->b64[c]) >> count_shift(n);
}

static bool counts_fit(const struct narrowing *n, const struct xn_cpu_stage *stage)
{
    if (stage->shift < count_shift(n))
        return false;
    for (size_t row = 0; row < n->conv->bias_rows; row++)
        for (size_t c = 0; c < n->chain->c; c++) {
            const int64_t origin = origin_of(n, stage, row, c), m = stage->m[c];
            const int64_t most = (origin < 0 ? -origin : origin) + (m < 0 ? -m : m) * n->count_max;
            if (most > INT32_MAX || m == INT16_MIN)
                return false;
        }
    return true;
}

/** Where channel c stands in tables in the order of sums. */
static size_t place_of(const struct narrowing *n, size_t c)
{
    const uint8_t *order = n->plan->kernels->bits->order;
    const size_t lane = c % XN_CPU_CHUNK;
    return c - lane + (order ? order[lane] : lane);
}

/** Factors and origins, in the order of sums. */
static int scale_of_counts(struct narrowing *n, struct xn_cpu_stage *stage)
{
    const size_t pitch = n->chain->row_pitch;
    int32_t *factor = table(n, 1, sizeof(*factor)), *origin = table(n, n->conv->bias_rows, sizeof(*origin));
    if (!factor || !origin)
        return -ENOMEM;
    for (size_t c = 0; c < n->chain->c; c++) {
        const size_t place = place_of(n, c);
        factor[place] = (uint16_t)-stage->m[c];
        for (size_t row = 0; row < n->conv->bias_rows; row++)
            origin[row * pitch + place] = (int32_t)origin_of(n, stage, row, c);
    }
    stage->factor = factor;
    stage->origin = origin;
    return 0;
}

/** Multipliers of 16 bits; biases in the order in which vectors of 32 bits come from, and are packed to, one of 16. */
static int scale_of_int16(struct narrowing *n, struct xn_cpu_stage *stage)
{
    int16_t *m16 = table(n, 1, sizeof(*m16));
    int32_t *origin = table(n, 1, sizeof(*origin));
    if (!m16 || !origin)
        return -ENOMEM;
    for (size_t c = 0; c < n->chain->c; c++) {
        m16[c] = (int16_t)stage->m[c];
        origin[place_of(n, c)] = stage->b32[c];
    }
    stage->m16 = m16;
    stage->origin = origin;
    return 0;
}

static int narrow_scale(struct narrowing *n, struct xn_cpu_stage *stage)
{
    const bool was_sum = n->is_sum, is_count = n->kind != XN_CPU_ROWS_NUMBERS;

    if ((stage->residual && !scaled_lies(n, stage, INT16_MIN, INT16_MAX)) ||
        (was_sum && is_count && !counts_fit(n, stage)) ||
        (was_sum && !is_count && !scaled_lies(n, stage, INT32_MIN, INT32_MAX)) ||
        (!was_sum && stage->op != XN_CPU_STAGE_SCALE)) {
        n->impossible = true;
        return 0;
    }
    n->is_sum = false;
    if (was_sum)
        return is_count ? scale_of_counts(n, stage) : 0;
    return scale_of_int16(n, stage);
}

static int narrow_rprelu(struct narrowing *n, struct xn_cpu_stage *stage)
{
    int16_t *knee = table(n, 1, sizeof(*knee)), *half = table(n, 1, sizeof(*half)),
            *slope = table(n, 1, sizeof(*slope));
    int16_t *sum = table(n, 1, sizeof(*sum)), *b16 = table(n, 1, sizeof(*b16));
    uint64_t *bent = xn_cpu_plan_memory(n->plan, n->chain->row_pitch / XN_CPU_CHUNK, sizeof(*bent));
    if (!knee || !half || !slope || !sum || !b16 || !bent)
        return -ENOMEM;
    for (size_t c = 0; c < n->chain->c; c++) {
        const int32_t m = stage->m[c], b = stage->b32[c], k = stage->k[c];
        if (m == INT16_MIN || !fits_16(m + b))
            n->impossible = true;
        knee[c] = (int16_t)-m;
        half[c] = (int16_t)(uint16_t)(m - 1 + 32768);
        slope[c] = (int16_t)XN_MAX(k - 1, 0);
        sum[c] = (int16_t)(m + b);
        b16[c] = (int16_t)b;
        if (k > 0)
            bent[c / XN_CPU_CHUNK] |= UINT64_C(1) << c % XN_CPU_CHUNK;
    }
    stage->knee = knee;
    stage->half = half;
    stage->slope = slope;
    stage->sum = sum;
    stage->b16 = b16;
    stage->bent = bent;
    return 0;
}

static int narrow_stage(struct narrowing *n, struct xn_cpu_stage *stage)
{
    switch (stage->op) {
    case XN_CPU_STAGE_BITS:
        if (!n->is_sum)
            return bits_of_int16(n, stage);
        return n->kind == XN_CPU_ROWS_NUMBERS ? 0 : bits_of_counts(n, stage);
    case XN_CPU_STAGE_SCALE:
    case XN_CPU_STAGE_SCALE_64:
        return narrow_scale(n, stage);
    case XN_CPU_STAGE_RPRELU:
        n->impossible = n->impossible || n->is_sum;
        return narrow_rprelu(n, stage);
    case XN_CPU_STAGE_STORE:
        n->impossible = n->impossible || n->is_sum;
        return 0;
    case XN_CPU_STAGE_ADD:
        n->impossible = n->impossible || n->is_sum;
        return 0;
    }
    return 0;
}

/** Which of the chains that levels fuse a narrow chain is. */
static enum xn_cpu_fused_kind fused_kind(const struct xn_cpu_chain *chain)
{
    const struct xn_cpu_stage *stage = chain->stages;
    const uint32_t n = chain->n_stages;

    if (n == 1 && stage[0].op == XN_CPU_STAGE_BITS)
        return XN_CPU_FUSED_BITS;
    const bool bent = n == 4 && stage[1].op == XN_CPU_STAGE_RPRELU;
    const uint32_t first = bent ? 2 : 1; /* of BITS and STORE */
    if (n != first + 2 || stage[0].op != XN_CPU_STAGE_SCALE || !stage[0].residual)
        return XN_CPU_FUSED_NONE;
    if (stage[first].op + stage[first + 1].op != XN_CPU_STAGE_BITS + XN_CPU_STAGE_STORE ||
        stage[first].op == stage[first + 1].op)
        return XN_CPU_FUSED_NONE;
    return bent ? XN_CPU_FUSED_RPRELU : XN_CPU_FUSED_STREAM;
}

int xn_cpu_narrow(struct xn_cpu_plan *plan, struct xn_cpu_chain *chain, enum xn_cpu_rows_kind kind, enum xn_dtype dtype,
                  int64_t min, int64_t max, const struct xn_cpu_conv *conv)
{
    struct narrowing n = {.plan = plan,
                          .chain = chain,
                          .kind = kind,
                          .min = min,
                          .max = max,
                          .conv = conv,
                          .count_max = conv ? INT64_C(48) * conv->rows * conv->run : 0,
                          .is_sum = dtype != XN_DTYPE_I16};

    chain->narrow = false;
    chain->narrow_sum = n.is_sum;
    if (!plan->kernels->narrow || (kind != XN_CPU_ROWS_NUMBERS && n.count_max > INT16_MAX))
        return 0;
    for (uint32_t k = 0; k < chain->n_stages && !n.impossible; k++) {
        const int r = narrow_stage(&n, &chain->stages[k]);
        if (r < 0)
            return r;
    }
    chain->narrow = !n.impossible;
    if (chain->narrow && kind == XN_CPU_ROWS_PAIRS && plan->kernels->fuse)
        chain->fused = fused_kind(chain);
    return 0;
}
