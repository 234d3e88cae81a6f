/* SPDX-License-Identifier: Apache-2.0 */
/* The elementwise work of training, fused: what PyTorch does in some forty passes over memory for each layer is
 * done here in six.
 *
 * Built on first use by train/xnortrain/fused.py, which is the only caller; the modules of
 * train/xnortrain/layers.py stay the definition, and train/tests/test_fused.py holds this file to them: equal bits
 * forward, equal gradients to float tolerance.
 *
 * Maps are [rows][c], rows = n*h*w; vectors are [c]. The stream is in real units, integer * UNIT. Built without
 * contraction of a*b+c, because forward results must be those of separate operations. Sums over rows are made for
 * blocks of ROWS_BLOCK rows in float32, and of the blocks in double in their order, so that they do not depend on
 * the number of threads. */

#include "fused.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_BLOCK = 128, SUMS_MAX = 5 };

#define STREAM_LOW  (-32768 * UNIT)
#define STREAM_HIGH (32767 * UNIT)

static long block_count(long rows)
{
    return (rows + ROWS_BLOCK - 1) / ROWS_BLOCK;
}

static long block_end(long block, long rows)
{
    long end = (block + 1) * ROWS_BLOCK;
    return end < rows ? end : rows;
}

/* sums [count] of partial [blocks][count]. */
static void merge(const float *partial, long blocks, long count, double *sums)
{
    for (long j = 0; j < count; j++)
        sums[j] = 0;
    for (long k = 0; k < blocks; k++)
        for (long j = 0; j < count; j++)
            sums[j] += (double)partial[k * count + j];
}

INLINE float clamp_stream(float x)
{
    x = x < STREAM_LOW ? STREAM_LOW : x;
    return x > STREAM_HIGH ? STREAM_HIGH : x;
}

INLINE float inside_stream(float x)
{
    return x >= STREAM_LOW && x <= STREAM_HIGH ? 1.0f : 0.0f;
}

/* ---- RSign ---------------------------------------------------------------------------------------------------- */

void xn_fused_sign(const float *restrict h, const float *restrict t, float *restrict x, long rows, long c)
{
#pragma omp parallel for schedule(static)
    for (long r = 0; r < rows; r++)
        for (long j = 0; j < c; j++)
            x[r * c + j] = h[r * c + j] - t[j] >= 0 ? 1.0f : -1.0f;
}

INLINE void sign_grad_rows(const float *restrict h, const float *restrict t, const float *restrict gx,
                           const float *restrict gh, float *restrict dh, float *restrict sums, long begin, long end,
                           long c, enum estimator estimator)
{
    memset(sums, 0, (size_t)c * sizeof(float));
    for (long r = begin; r < end; r++) {
        VECTOR_LOOP
        for (long j = 0; j < c; j++) {
            long i = r * c + j;
            float g = gx[i] * derivative(h[i] - t[j], estimator);
            sums[j] += g;
            dh[i] = gh ? gh[i] + g : g;
        }
    }
}

int xn_fused_sign_grad(const float *h, const float *t, const float *gx, const float *gh, float *dh, double *dt,
                       long rows, long c, int estimator)
{
    long blocks = block_count(rows);
    float *partial = malloc((size_t)(blocks * c) * sizeof(float));

    if (!partial)
        return -1;
#pragma omp parallel for schedule(static)
    for (long k = 0; k < blocks; k++) {
        long begin = k * ROWS_BLOCK, end = block_end(k, rows);
        float *sums = partial + k * c;
        if (gh && estimator == ESTIMATOR_H)
            sign_grad_rows(h, t, gx, gh, dh, sums, begin, end, c, ESTIMATOR_H);
        else if (estimator == ESTIMATOR_H)
            sign_grad_rows(h, t, gx, NULL, dh, sums, begin, end, c, ESTIMATOR_H);
        else if (estimator == ESTIMATOR_CLIP)
            sign_grad_rows(h, t, gx, gh, dh, sums, begin, end, c, ESTIMATOR_CLIP);
        else
            sign_grad_rows(h, t, gx, gh, dh, sums, begin, end, c, ESTIMATOR_APPROXSIGN);
    }
    merge(partial, blocks, c, dt);
    for (long j = 0; j < c; j++)
        dt[j] = -dt[j];
    free(partial);
    return 0;
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

void xn_fused_weight_sign(const float *restrict w, float *restrict x, long n)
{
    for (long i = 0; i < n; i++)
        x[i] = w[i] >= 0 ? 1.0f : -1.0f;
}

INLINE void weight_sign_grad(const float *restrict w, const float *restrict g, float *restrict dw, long n,
                             enum estimator estimator)
{
    for (long i = 0; i < n; i++)
        dw[i] = g[i] * derivative(w[i], estimator);
}

void xn_fused_weight_sign_grad(const float *w, const float *g, float *dw, long n, int estimator)
{
    if (estimator == ESTIMATOR_H)
        weight_sign_grad(w, g, dw, n, ESTIMATOR_H);
    else if (estimator == ESTIMATOR_CLIP)
        weight_sign_grad(w, g, dw, n, ESTIMATOR_CLIP);
    else
        weight_sign_grad(w, g, dw, n, ESTIMATOR_APPROXSIGN);
}

void xn_fused_adam(const struct adam *a, float *restrict w, const float *restrict g, float *restrict mean,
                   float *restrict square, long n)
{
    struct adam k = *a;

    for (long i = 0; i < n; i++) {
        float d = g[i] + k.decay * w[i];
        mean[i] += (d - mean[i]) * (1 - k.beta1);
        square[i] = square[i] * k.beta2 + d * d * (1 - k.beta2);
        w[i] -= k.rate * mean[i] / (sqrtf(square[i]) / k.root + k.eps);
    }
}

/* ---- int8 activations ------------------------------------------------------------------------------------------ */

void xn_fused_quantize(const float *restrict h, float *restrict q, double m, double half, double scale, long n)
{
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) {
        double v = count_of(h[i], m, half, scale);
        v = v < -128 ? -128 : v;
        q[i] = (float)(v > 127 ? 127 : v);
    }
}

int xn_fused_quantize_grad(const float *h, const float *gq, const float *gh, float *dh, double m, double half,
                           double scale, double to_h, double *ret_sum, long n)
{
    long span = 8192, blocks = (n + span - 1) / span;
    double *partial = malloc((size_t)blocks * sizeof(double));
    float factor = (float)to_h;

    if (!partial)
        return -1;
#pragma omp parallel for schedule(static)
    for (long k = 0; k < blocks; k++) {
        double sum = 0;
        for (long i = k * span; i < (k + 1) * span && i < n; i++) {
            double v = count_of(h[i], m, half, scale);
            float g = v >= -128 && v <= 127 ? gq[i] : 0.0f;
            sum += (double)(g * h[i]);
            dh[i] = (gh ? gh[i] : 0.0f) + g * factor;
        }
        partial[k] = sum;
    }
    *ret_sum = 0;
    for (long k = 0; k < blocks; k++)
        *ret_sum += partial[k];
    free(partial);
    return 0;
}

/* ---- statistics ----------------------------------------------------------------------------------------------- */

int xn_fused_moments(const float *restrict s, double *restrict sums, long rows, long c)
{
    long blocks = block_count(rows);
    double *partial = calloc((size_t)(blocks * 2 * c), sizeof(double));

    if (!partial)
        return -1;
#pragma omp parallel for schedule(static)
    for (long k = 0; k < blocks; k++) {
        double *sum = partial + k * 2 * c, *square = sum + c;
        for (long r = k * ROWS_BLOCK; r < block_end(k, rows); r++) {
            for (long j = 0; j < c; j++) {
                double v = (double)s[r * c + j];
                sum[j] += v;
                square[j] += v * v;
            }
        }
    }
    memset(sums, 0, (size_t)(2 * c) * sizeof(double));
    for (long k = 0; k < blocks; k++)
        for (long j = 0; j < 2 * c; j++)
            sums[j] += partial[k * 2 * c + j];
    free(partial);
    return 0;
}

/* ---- epilogue: scale, rounding, residual, saturation, RPReLU ------------------------------------------------------ */

/* A loop for each form of an epilogue, so that none decides within: CALL(h or NULL, exact, act). */
#define EACH_FORM(CALL, e, h)                                                                                          \
    switch (((e)->im ? 4 : 0) | ((e)->a ? 2 : 0) | ((h) ? 1 : 0)) {                                                    \
    case 0:                                                                                                            \
        CALL(NULL, 0, 0);                                                                                              \
        break;                                                                                                         \
    case 1:                                                                                                            \
        CALL(h, 0, 0);                                                                                                 \
        break;                                                                                                         \
    case 2:                                                                                                            \
        CALL(NULL, 0, 1);                                                                                              \
        break;                                                                                                         \
    case 3:                                                                                                            \
        CALL(h, 0, 1);                                                                                                 \
        break;                                                                                                         \
    case 4:                                                                                                            \
        CALL(NULL, 1, 0);                                                                                              \
        break;                                                                                                         \
    case 5:                                                                                                            \
        CALL(h, 1, 0);                                                                                                 \
        break;                                                                                                         \
    case 6:                                                                                                            \
        CALL(NULL, 1, 1);                                                                                              \
        break;                                                                                                         \
    default:                                                                                                           \
        CALL(h, 1, 1);                                                                                                 \
        break;                                                                                                         \
    }

struct element {
    float before, t, after; /* p before saturation; t = sat(p) + a; the output before saturation */
};

INLINE struct element forward(const struct epilogue *e, float s, float h, long j, int exact, int act)
{
    struct element v;
    float y;

    if (exact)
        y = (float)floor(((double)s * e->im[j] + e->ib[j]) * e->scale);
    else
        y = floorf(s * e->m[j] + e->b[j] + 0.5f);
    v.before = h + y * UNIT;
    v.after = clamp_stream(v.before);
    v.t = 0;
    if (act) {
        v.t = v.after + e->a[j];
        float negative = floorf(v.t * e->slope[j] / UNIT) * UNIT;
        v.after = (v.t >= 0 ? v.t : negative) + e->d[j];
    }
    return v;
}

INLINE void apply_rows(const struct epilogue *e, const float *restrict s, const float *restrict h, float *restrict out,
                       long begin, long end, long c, int exact, int act)
{
    for (long r = begin; r < end; r++) {
        VECTOR_LOOP
        for (long j = 0; j < c; j++)
            out[r * c + j] = clamp_stream(forward(e, s[r * c + j], h ? h[r * c + j] : 0.0f, j, exact, act).after);
    }
}

void xn_fused_apply(const struct epilogue *e, const float *s, const float *h, float *out, long rows, long c)
{
    long blocks = block_count(rows);

#pragma omp parallel for schedule(static)
    for (long k = 0; k < blocks; k++) {
        long begin = k * ROWS_BLOCK, end = block_end(k, rows);
        struct epilogue copy = *e;
#define CALL(h, exact, act) apply_rows(&copy, s, h, out, begin, end, c, exact, act)
        EACH_FORM(CALL, e, h)
#undef CALL
    }
}

/* The gradient at p; the output's masked gradient in *ret_u, the gradient at t in *ret_t. Selects between values, not
 * between computations, so that loops are vectorised. */
INLINE float backward(const struct epilogue *e, const struct element *v, float g, long j, int act, float *ret_u,
                      float *ret_t)
{
    float u = g * (act ? inside_stream(v->after) : 1.0f), slope = act ? e->slope[j] : 1.0f;

    *ret_u = u;
    *ret_t = u * (v->t < 0 ? slope : 1.0f);
    return *ret_t * inside_stream(v->before);
}

INLINE void reduce_rows(const struct epilogue *e, const float *restrict s, const float *restrict h,
                        const float *restrict g, float *restrict sums, long begin, long end, long c, int exact, int act)
{
    float *restrict dm = sums, *restrict db = sums + c, *restrict da = sums + 2 * c, *restrict dslope = sums + 3 * c,
                    *restrict dd = sums + 4 * c;

    memset(sums, 0, (size_t)(SUMS_MAX * c) * sizeof(float));
    for (long r = begin; r < end; r++) {
        VECTOR_LOOP
        for (long j = 0; j < c; j++) {
            long i = r * c + j;
            struct element v = forward(e, s[i], h ? h[i] : 0.0f, j, exact, act);
            float u, gt, gp = backward(e, &v, g[i], j, act, &u, &gt);
            dm[j] += gp * s[i];
            db[j] += gp;
            if (act) {
                da[j] += gt;
                dslope[j] += u * (v.t < 0 ? v.t : 0.0f);
                dd[j] += u;
            }
        }
    }
}

int xn_fused_reduce(const struct epilogue *e, const float *s, const float *h, const float *g, double *sums, long rows,
                    long c)
{
    long blocks = block_count(rows);
    float *partial = malloc((size_t)(blocks * SUMS_MAX * c) * sizeof(float));

    if (!partial)
        return -1;
#pragma omp parallel for schedule(static)
    for (long k = 0; k < blocks; k++) {
        long begin = k * ROWS_BLOCK, end = block_end(k, rows);
        float *mine = partial + k * SUMS_MAX * c;
        struct epilogue copy = *e;
#define CALL(h, exact, act) reduce_rows(&copy, s, h, g, mine, begin, end, c, exact, act)
        EACH_FORM(CALL, e, h)
#undef CALL
    }
    merge(partial, blocks, SUMS_MAX * c, sums);
    free(partial);
    return 0;
}

INLINE void spread_rows(const struct epilogue *e, const struct spread *w, const float *restrict s,
                        const float *restrict h, const float *restrict g, float *restrict ds, float *restrict dh,
                        long begin, long end, long c, int exact, int act)
{
    for (long r = begin; r < end; r++) {
        VECTOR_LOOP
        for (long j = 0; j < c; j++) {
            long i = r * c + j;
            struct element v = forward(e, s[i], h ? h[i] : 0.0f, j, exact, act);
            float u, gt, gp = backward(e, &v, g[i], j, act, &u, &gt);
            ds[i] = gp * w->to_s[j] + w->c0[j] + w->c1[j] * s[i];
            if (h)
                dh[i] = gp;
        }
    }
}

void xn_fused_spread(const struct epilogue *e, const struct spread *w, const float *s, const float *h, const float *g,
                     float *ds, float *dh, long rows, long c)
{
    long blocks = block_count(rows);

#pragma omp parallel for schedule(static)
    for (long k = 0; k < blocks; k++) {
        long begin = k * ROWS_BLOCK, end = block_end(k, rows);
        struct epilogue copy = *e;
        struct spread ws = *w;
#define CALL(h, exact, act) spread_rows(&copy, &ws, s, h, g, ds, dh, begin, end, c, exact, act)
        EACH_FORM(CALL, e, h)
#undef CALL
    }
}

/* ---- down-sampling shortcut ------------------------------------------------------------------------------------ */

void xn_fused_down(const float *restrict x, float *restrict out, long n, long h, long w, long c, long copies)
{
    long oh = h / 2, ow = w / 2;

#pragma omp parallel for schedule(static)
    for (long r = 0; r < n * oh; r++) {
        const float *top = x + (r / oh * h + r % oh * 2) * w * c;
        for (long q = 0; q < ow; q++) {
            const float *p = top + q * 2 * c;
            float *o = out + (r * ow + q) * c * copies;
            for (long j = 0; j < c; j++)
                o[j] = floorf((p[j] + p[j + c] + p[j + w * c] + p[j + w * c + c]) * (0.25f / UNIT) + 0.5f) * UNIT;
            for (long k = 1; k < copies; k++)
                memcpy(o + k * c, o, (size_t)c * sizeof(float));
        }
    }
}

void xn_fused_down_grad(const float *restrict g, float *restrict dx, long n, long h, long w, long c, long copies)
{
    long oh = h / 2, ow = w / 2;

#pragma omp parallel for schedule(static)
    for (long r = 0; r < n * h; r++) {
        long image = r / h, y = r % h / 2;
        float *row = dx + r * w * c;
        memset(row, 0, (size_t)(w * c) * sizeof(float));
        for (long q = 0; q < (y < oh ? 2 * ow : 0); q++) {
            const float *p = g + ((image * oh + y) * ow + q / 2) * c * copies;
            for (long k = 0; k < copies; k++)
                for (long j = 0; j < c; j++)
                    row[q * c + j] += 0.25f * p[k * c + j];
        }
    }
}
