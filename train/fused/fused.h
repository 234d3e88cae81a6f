/* SPDX-License-Identifier: Apache-2.0 */
/* The fused training library: what train/xnortrain/fused.py calls, and the arithmetic of a single element, which
 * its files share.
 *
 * Tensors are float32, channels innermost; the caller owns everything and calls from one thread (the library's own
 * threads are OpenMP's). Functions that return int give 0, or -1 where there is no memory; then their outputs hold
 * nothing of use. */
#ifndef XN_TRAIN_FUSED_H
#define XN_TRAIN_FUSED_H

#include <math.h>

#define UNIT (1.0f / 256)
/* Before a loop over channels: no store of it is read by a later turn. Said, because what `restrict` says is lost where
 * functions are inlined, and loops fall back to one element at a time. */
#if defined(__clang__)
#define VECTOR_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define VECTOR_LOOP _Pragma("GCC ivdep")
#endif
#define INLINE static inline __attribute__((always_inline))

enum estimator { ESTIMATOR_H = 0, ESTIMATOR_CLIP = 1, ESTIMATOR_APPROXSIGN = 2 };

/* What a layer does between a convolution's sums and the stream. */
struct epilogue {
    const float *m, *b;         /* training form: y = floor((s*m + b) + 1/2), in counts of the stream */
    const double *im, *ib;      /* exact form, or NULL: y = floor((s*im + ib) * scale), the rounding half being in ib */
    double scale;               /* 2^-shift */
    const float *a, *slope, *d; /* RPReLU: t = p + a; (t >= 0 ? t : floor(t*slope)) + d; NULL: none */
};

/* How the gradient reaches s: ds = gp*to_s + c0 + c1*s (the last two carry the batch statistics' part). */
struct spread {
    const float *to_s, *c0, *c1;
};

enum source_mode { SOURCE_SIGN = 0, SOURCE_INT8 = 1, SOURCE_PIXELS = 2 };

/* h [n][h][w][ic] to sums [n][oh][ow][oc] with weights [oc][kernel][kernel][ic], padding kernel/2. */
struct shape {
    long n, h, w, ic, oc, kernel, stride;
};

/* How activations come from the stream: bits h >= t[ic]; or clamp(floor((h*m + half) * scale), -128, 127); or h
 * itself, 0..255. */
struct source {
    const float *h, *t;
    double m, half, scale;
    int mode, estimator;
};

/* RSign: x = h >= t ? 1 : -1. */
void xn_fused_sign(const float *h, const float *t, float *x, long rows, long c);
/* dh = gh + gx * estimator'(h - t); dt [c] = -sum gx * estimator'. gh may be NULL. */
int xn_fused_sign_grad(const float *h, const float *t, const float *gx, const float *gh, float *dh, double *dt,
                       long rows, long c, int estimator);
/* The same of weights, whose threshold is 0: x = w >= 0 ? 1 : -1; dw = g * estimator'(w). n elements. */
void xn_fused_weight_sign(const float *w, float *x, long n);
void xn_fused_weight_sign_grad(const float *w, const float *g, float *dw, long n, int estimator);
/* A step of Adam, n elements: g += decay*w; mean += (g - mean)*(1 - beta1); square = square*beta2 + g*g*(1 - beta2);
 * w -= rate * mean / (sqrt(square)/root + eps). */
struct adam {
    float beta1, beta2, decay, rate, root, eps;
};
void xn_fused_adam(const struct adam *a, float *w, const float *g, float *mean, float *square, long n);
/* q = clamp(floor((h*m + half) * scale), -128, 127). n elements. */
void xn_fused_quantize(const float *h, float *q, double m, double half, double scale, long n);
/* dh = gh + gq*to_h where the count is inside the range; *ret_sum = sum gq*h there. gh may be NULL. */
int xn_fused_quantize_grad(const float *h, const float *gq, const float *gh, float *dh, double m, double half,
                           double scale, double to_h, double *ret_sum, long n);
/* sums [2][c]: of s and of s*s, in double: exact where s are integers. */
int xn_fused_moments(const float *s, double *sums, long rows, long c);
/* out = the stream after the layer; h may be NULL (no residual). */
void xn_fused_apply(const struct epilogue *e, const float *s, const float *h, float *out, long rows, long c);
/* sums [5][c] of the gradients of m, b (without the factor UNIT), a, slope, d. */
int xn_fused_reduce(const struct epilogue *e, const float *s, const float *h, const float *g, double *sums, long rows,
                    long c);
/* The gradients of s and, where h is not NULL, of h. */
void xn_fused_spread(const struct epilogue *e, const struct spread *w, const float *s, const float *h, const float *g,
                     float *ds, float *dh, long rows, long c);
/* out [n][h/2][w/2][c*copies] = mean of 2x2, (sum + 2) >> 2 in counts, the channels `copies` times over. */
void xn_fused_down(const float *x, float *out, long n, long h, long w, long c, long copies);
/* dx [n][h][w][c], wholly written (rows and columns beyond an even size get 0). */
void xn_fused_down_grad(const float *g, float *dx, long n, long h, long w, long c, long copies);

/* Whether the two below do anything: 1 where the library was built for a processor with AVX-512 VNNI or AVX2. */
int xn_convolve_available(void);
/* out [n][oh][ow][oc] = conv(activations of x, w), w whole numbers within int8. */
int xn_convolve(const struct shape *s, const struct source *x, const float *w, float *out);
/* Gradients of the weights, dw [oc][k][k][ic]; and, where dh is not NULL, of the stream (dh = gh + ..., gh may be
 * NULL) and of the thresholds (sums [ic]: what goes to -t) or of the step (sums over [ic]: gradient*h inside the
 * range, whose gradient of h is `to_h`). g is the gradient of s. */
int xn_convolve_grad(const struct shape *s, const struct source *x, const float *w, const float *g, const float *gh,
                     float *dh, double *sums, float *dw, float to_h);

/* The estimator's derivative of sign(x). */
INLINE float derivative(float x, enum estimator estimator)
{
    float a = fabsf(x);

    if (estimator == ESTIMATOR_H)
        return a <= 0.4f ? 2 - 4 * a : a <= 1 ? 0.4f : 0.0f;
    if (estimator == ESTIMATOR_CLIP)
        return a <= 1 ? 1.0f : 0.0f;
    a = 2 - 2 * a;
    return a > 0 ? a : 0.0f;
}

/* The count of an int8 activation before saturation: floor((h*m + half) * scale). */
INLINE double count_of(float h, double m, double half, double scale)
{
    return floor(((double)h * m + half) * scale);
}

#endif
