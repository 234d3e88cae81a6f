/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions of whole numbers, forward and backward, from the stream to sums and back, for processors with
 * AVX-512 VNNI or AVX2.
 *
 * Forward, activations (bits, int8 counts or pixels) are bytes and weights int8: VPDPBUSD makes four products a
 * lane, four times a float's rate, and the sums are exact. With AVX2 both are int16, two products a lane by VPMADDWD:
 * its product of bytes saturates. Backward, gradients become int16 with a scale of their
 * own for each group of images (their largest is 32767, or less where sums could pass 2^31), activations and
 * weights int16: VPDPWSSD, or VPMADDWD, makes two products a lane. 15 bits are more than enough for gradients that
 * come through an estimator of sign's derivative.
 *
 * Work goes by groups of images small enough for the first caches. For each, the activations are made from the
 * stream h: forward with the border that padding asks for ("padded"), backward in pairs of pixels ("paired").
 * Gradients are laid out padded for the way to h and in pairs of pixels for the way to the weights. Nothing but h
 * is kept between forward and backward.
 *
 * oc is a multiple of 16, and ic where h wants a gradient. Gradients of weights are summed by thread, so that they
 * depend on the number of threads in the last bits. */

#include "fused.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if (defined(__AVX512VNNI__) && defined(__AVX512BW__)) || (defined(__AVX2__) && defined(__FMA__))

#include <immintrin.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum { OUTPUTS_MAX = 6, TAPS_MAX = 49, GROUP_PIXELS = 256, SLACK_BYTES = 64, CHANNELS_MAX = 4 };

/* ---- what the two instruction sets differ in --------------------------------------------------------------------
 *
 * LANES sums of 32 bits to a vector, up to VECTORS_MAX vectors to a tile; forward, DEPTH products to a lane, of an
 * activation `input` and a `weight`. The sums of products are asm, because gcc copies and stores the sums at every
 * step otherwise, at half of the speed. */

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

enum { LANES = 16, VECTORS_MAX = 4, DEPTH = 4, UNSIGNED = 1 };
#define EACH_SIZE(M, kind, n) M(kind, n, 1) M(kind, n, 2) M(kind, n, 3) M(kind, n, 4)
#define SIZES(kind, n)                                                                                                 \
    {                                                                                                                  \
        kind##_##n##_1, kind##_##n##_2, kind##_##n##_3, kind##_##n##_4                                                 \
    }
typedef __m512i vector;
typedef uint8_t input;
typedef int8_t weight;

INLINE void add_words(vector *sum, vector a, vector b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
}

INLINE void add_forward(vector *sum, vector a, vector b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
}

INLINE vector load(const void *at)
{
    return _mm512_loadu_si512(at);
}

INLINE vector lanes_of(int32_t v)
{
    return _mm512_set1_epi32(v);
}

/* to [LANES] = sums * factor, and to [LANES] += sums * factor. */
INLINE void store_times(float *to, vector sums, float factor)
{
    _mm512_storeu_ps(to, _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(factor)));
}

INLINE void add_times(float *to, vector sums, float factor)
{
    _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(factor), _mm512_loadu_ps(to)));
}

#else

enum { LANES = 8, VECTORS_MAX = 2, DEPTH = 2, UNSIGNED = 0 };
#define EACH_SIZE(M, kind, n) M(kind, n, 1) M(kind, n, 2)
#define SIZES(kind, n)                                                                                                 \
    {                                                                                                                  \
        kind##_##n##_1, kind##_##n##_2                                                                                 \
    }
typedef __m256i vector;
typedef int16_t input;
typedef int16_t weight;

INLINE void add_words(vector *sum, vector a, vector b)
{
    vector products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(*sum), "=&x"(products) : "x"(a), "x"(b));
}

INLINE void add_forward(vector *sum, vector a, vector b)
{
    add_words(sum, a, b);
}

INLINE vector load(const void *at)
{
    return _mm256_loadu_si256((const __m256i_u *)at);
}

INLINE vector lanes_of(int32_t v)
{
    return _mm256_set1_epi32(v);
}

INLINE void store_times(float *to, vector sums, float factor)
{
    _mm256_storeu_ps(to, _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(factor)));
}

INLINE void add_times(float *to, vector sums, float factor)
{
    _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(factor), _mm256_loadu_ps(to)));
}

#endif

enum { BLOCK = LANES * VECTORS_MAX }; /* channels of a tile */

INLINE vector broadcast(const void *at)
{
    int32_t v;
    memcpy(&v, at, sizeof(v));
    return lanes_of(v);
}

int xn_convolve_available(void)
{
    return 1;
}

static long out_size(long size, const struct shape *s)
{
    return (size - 1) / s->stride + 1;
}

static long min_long(long a, long b)
{
    return a < b ? a : b;
}

/* Images of a group, so that it has about GROUP_PIXELS outputs. */
static long group_images(const struct shape *s)
{
    long pixels = out_size(s->h, s) * out_size(s->w, s);
    return pixels >= GROUP_PIXELS ? 1 : GROUP_PIXELS / pixels;
}

/* ---- activations ------------------------------------------------------------------------------------------------
 * */

/* What is added to activations so that they are unsigned. */
static int source_zero(const struct source *x)
{
    return !UNSIGNED ? 0 : x->mode == SOURCE_SIGN ? 1 : x->mode == SOURCE_INT8 ? 128 : 0;
}

INLINE int activation(const struct source *x, float h, long c)
{
    if (x->mode == SOURCE_SIGN)
        return h - x->t[c] >= 0 ? 1 : -1;
    if (x->mode == SOURCE_PIXELS)
        return (int)h;
    double v = count_of(h, x->m, x->half, x->scale);
    return (int)(v < -128 ? -128 : v > 127 ? 127 : v);
}

INLINE void inputs_of(const struct source *x, const float *restrict h, input *restrict out, long pixels, long c,
                      int zero)
{
    for (long p = 0; p < pixels; p++)
        for (long j = 0; j < c; j++)
            out[p * c + j] = (input)(activation(x, h[p * c + j], j) + zero);
}

/* padded [h+2p][w+2p][ic] of image `h`, activations plus `zero`, which the border holds already. */
static void fill_padded(const struct source *x, const struct shape *s, const float *h, input *padded)
{
    long pad = s->kernel / 2, pitch = (s->w + 2 * pad) * s->ic;
    int zero = source_zero(x);
    struct source local = *x;

    for (long y = 0; y < s->h; y++) {
        const float *from = h + y * s->w * s->ic;
        input *to = padded + (y + pad) * pitch + pad * s->ic;
        if (x->mode == SOURCE_SIGN) {
            local.mode = SOURCE_SIGN;
            inputs_of(&local, from, to, s->w, s->ic, zero);
        } else if (x->mode == SOURCE_INT8) {
            local.mode = SOURCE_INT8;
            inputs_of(&local, from, to, s->w, s->ic, zero);
        } else {
            local.mode = SOURCE_PIXELS;
            inputs_of(&local, from, to, s->w, s->ic, zero);
        }
    }
}

/* ---- tiles: P outputs of NV vectors -----------------------------------------------------------------------------
 * */

/* A run of k elements that lie together, `in` elements behind the tile's first input, with the weights `w` elements
 * into the block's. */
struct tap {
    long in, w, k;
};

struct tile {
    const void *in;      /* input of output 0 */
    long in_step;        /* elements between the inputs of neighbouring outputs */
    const void *weights; /* of the block of channels */
    const struct tap *taps;
    long taps_count;
    const int32_t *start; /* [NV*LANES], forward only: what sums begin with */
    float *out;
    long out_step;
    float factor;
};

/* Sums are variables of their own, aPV for output P and vector V: gcc keeps arrays of them in memory. EACH(M) is
 * M(p, v) for all of a tile; the conditions are constant where a tile function is inlined with its size. */
#define EACH_VECTOR(M, p) M(p, 0) M(p, 1) M(p, 2) M(p, 3)
#define EACH(M)                                                                                                        \
    EACH_VECTOR(M, 0) EACH_VECTOR(M, 1) EACH_VECTOR(M, 2) EACH_VECTOR(M, 3) EACH_VECTOR(M, 4) EACH_VECTOR(M, 5)
#define EACH_OUTPUT(M) M(0) M(1) M(2) M(3) M(4) M(5)
#define DECLARE(p, v)  vector a##p##v = lanes_of(0);

#define STORE(p, v)                                                                                                    \
    if (p < P && v < NV)                                                                                               \
        store_times(t->out + p * t->out_step + v * LANES, a##p##v, t->factor);

INLINE void tile_forward(const struct tile *t, const int P, const int NV)
{
#define START(p, v)                                                                                                    \
    if (p < P && v < NV)                                                                                               \
        a##p##v = load(t->start + v * LANES);
#define PRODUCT(p, v)                                                                                                  \
    if (v < NV)                                                                                                        \
        add_forward(&a##p##v, b, w##v);
#define PRODUCTS(p)                                                                                                    \
    if (p < P) {                                                                                                       \
        vector b = broadcast(x + p * step + k);                                                                        \
        EACH_VECTOR(PRODUCT, p)                                                                                        \
    }
    const long step = t->in_step, size = LANES * DEPTH;
    EACH(DECLARE)
    EACH(START)
    for (long i = 0; i < t->taps_count; i++) {
        const input *x = (const input *)t->in + t->taps[i].in;
        const weight *w = (const weight *)t->weights + t->taps[i].w;
        for (long k = 0; k < t->taps[i].k; k += DEPTH, w += NV * size) {
            vector w0 = load(w), w1 = NV > 1 ? load(w + size) : w0;
            vector w2 = NV > 2 ? load(w + 2 * size) : w0, w3 = NV > 3 ? load(w + 3 * size) : w0;
            EACH_OUTPUT(PRODUCTS)
        }
    }
    EACH(STORE)
#undef PRODUCT
}

INLINE void tile_words(const struct tile *t, const int P, const int NV)
{
#define PRODUCT(p, v)                                                                                                  \
    if (v < NV)                                                                                                        \
        add_words(&a##p##v, b, w##v);
    const long step = t->in_step, size = LANES * 2;
    EACH(DECLARE)
    for (long i = 0; i < t->taps_count; i++) {
        const int16_t *x = (const int16_t *)t->in + t->taps[i].in;
        const int16_t *w = (const int16_t *)t->weights + t->taps[i].w;
        for (long k = 0; k < t->taps[i].k; k += 2, w += NV * size) {
            vector w0 = load(w), w1 = NV > 1 ? load(w + size) : w0;
            vector w2 = NV > 2 ? load(w + 2 * size) : w0, w3 = NV > 3 ? load(w + 3 * size) : w0;
            EACH_OUTPUT(PRODUCTS)
        }
    }
    EACH(STORE)
#undef PRODUCT
#undef STORE
}

typedef void (*tile_function)(const struct tile *t);

#define TILE(kind, p, v)                                                                                               \
    static void kind##_##p##_##v(const struct tile *t)                                                                 \
    {                                                                                                                  \
        tile_##kind(t, p, v);                                                                                          \
    }
/* clang-format off */
#define TABLE(kind)                                                                                                    \
    EACH_SIZE(TILE, kind, 1) EACH_SIZE(TILE, kind, 2) EACH_SIZE(TILE, kind, 3)                                         \
    EACH_SIZE(TILE, kind, 4) EACH_SIZE(TILE, kind, 5) EACH_SIZE(TILE, kind, 6)                                         \
    static const tile_function kind##_tiles[OUTPUTS_MAX][VECTORS_MAX] = {                                              \
        SIZES(kind, 1), SIZES(kind, 2), SIZES(kind, 3), SIZES(kind, 4), SIZES(kind, 5), SIZES(kind, 6)};
TABLE(forward)
TABLE(words)
/* clang-format on */

/* `count` outputs in a row, in tiles. forward: of inputs and weights, with `start`; else of words. */
static void run_row(struct tile t, long count, int vectors, int forward)
{
    const tile_function(*table)[VECTORS_MAX] = forward ? forward_tiles : words_tiles;

    for (long tiles = (count + OUTPUTS_MAX - 1) / OUTPUTS_MAX; count > 0 && tiles > 0; tiles--) {
        long p = (count + tiles - 1) / tiles;
        table[p - 1][vectors - 1](&t);
        t.in = (const char *)t.in + p * t.in_step * (forward ? (long)sizeof(input) : 2);
        t.out += p * t.out_step;
        count -= p;
    }
}

/* ---- forward ----------------------------------------------------------------------------------------------------
 * */

/* A row of taps: the k*ic inputs of one kernel row lie together. Rounded up to DEPTH, the rest with weights of 0. */
static long row_elements(const struct shape *s)
{
    return (s->kernel * s->ic + DEPTH - 1) / DEPTH * DEPTH;
}

/* Weights [block][ky][row/DEPTH][vectors][LANES][DEPTH] from [oc][k][k][ic], and start [oc] = -zero * sum of the
 * filter. */
static void pack_forward(const struct shape *s, const float *w, int zero, weight *packed, int32_t *start)
{
    long row = row_elements(s), used = s->kernel * s->ic;

    memset(packed, 0, (size_t)(s->oc * s->kernel * row) * sizeof(*packed));
    for (long o = 0; o < s->oc; o++) {
        long block = o / BLOCK, first = block * BLOCK;
        long vectors = min_long(s->oc - first, BLOCK) / LANES;
        weight *to = packed + first * s->kernel * row + (o - first) * DEPTH;
        int32_t sum = 0;
        for (long ky = 0; ky < s->kernel; ky++) {
            for (long i = 0; i < used; i++) {
                weight v = (weight)w[(o * s->kernel + ky) * used + i];
                sum += v;
                to[(ky * row + i / DEPTH * DEPTH) * vectors * LANES + i % DEPTH] = v;
            }
        }
        start[o] = -zero * sum;
    }
}

static void forward_image(const struct shape *s, const input *padded, const weight *packed, const int32_t *start,
                          float *out)
{
    long row = row_elements(s), pitch = (s->w + s->kernel / 2 * 2) * s->ic, oh = out_size(s->h, s),
         ow = out_size(s->w, s);
    struct tap taps[7];

    for (long first = 0; first < s->oc; first += BLOCK) {
        int vectors = (int)(min_long(s->oc - first, BLOCK) / LANES);
        for (long ky = 0; ky < s->kernel; ky++)
            taps[ky] = (struct tap){ky * pitch, ky * row * vectors * LANES, row};
        for (long y = 0; y < oh; y++) {
            struct tile t = {.in = padded + y * s->stride * pitch,
                             .in_step = s->stride * s->ic,
                             .weights = packed + first * s->kernel * row,
                             .taps = taps,
                             .taps_count = s->kernel,
                             .start = start + first,
                             .out = out + y * ow * s->oc + first,
                             .out_step = s->oc,
                             .factor = 1};
            run_row(t, ow, vectors, 1);
        }
    }
}

int xn_convolve(const struct shape *s, const struct source *x, const float *w, float *out)
{
    long pad = s->kernel / 2, padded_count = (s->h + 2 * pad) * (s->w + 2 * pad) * s->ic + SLACK_BYTES,
         image = out_size(s->h, s) * out_size(s->w, s) * s->oc;
    weight *packed = malloc((size_t)(s->oc * s->kernel * row_elements(s)) * sizeof(*packed));
    int32_t *start = malloc((size_t)s->oc * sizeof(*start));
    int failed = !packed || !start;

    if (!failed) {
        pack_forward(s, w, source_zero(x), packed, start);
#pragma omp parallel reduction(| : failed)
        {
            input *padded = malloc((size_t)padded_count * sizeof(*padded));
            failed |= !padded;
            for (long i = 0; padded && i < padded_count; i++)
                padded[i] = (input)source_zero(x);
#pragma omp for schedule(static)
            for (long i = 0; i < s->n; i++) {
                if (!padded)
                    continue;
                fill_padded(x, s, x->h + i * s->h * s->w * s->ic, padded);
                forward_image(s, padded, packed, start, out + i * image);
            }
            free(padded);
        }
    }
    free(packed);
    free(start);
    return failed ? -1 : 0;
}

/* ---- backward: layouts ------------------------------------------------------------------------------------------
 * */

/* What a thread works in. */
struct scratch {
    int16_t *padded; /* gradients [images][oh+2p][ow+2p][oc], border 0 */
    int16_t *pairs;  /* gradients [block of oc][images][oh][ceil(ow/2)][oc of the block][2], 0 beyond the row */
    int32_t *paired; /* activations [block of ic][images][h+2p][w+2p][ic of the block] of the pixel and, in the upper
                        half, of the one `stride` to its right; border 0 */
    int16_t *row;    /* activations [w+2p+stride][ic] of one row, border 0 */
    float *gx;       /* [images][h][w][ic] */
    float *dw;       /* [k][k][ic][oc] */
};

static void scratch_done(struct scratch *k)
{
    free(k->padded);
    free(k->pairs);
    free(k->paired);
    free(k->row);
    free(k->gx);
    free(k->dw);
}

static int scratch_init(struct scratch *k, const struct shape *s, long images)
{
    long pad = s->kernel / 2, oh = out_size(s->h, s), ow = out_size(s->w, s);

    k->padded = calloc((size_t)(images * (oh + 2 * pad) * (ow + 2 * pad) * s->oc + SLACK_BYTES), sizeof(int16_t));
    k->pairs = calloc((size_t)(images * oh * ((ow + 1) / 2) * s->oc * 2), sizeof(int16_t));
    k->paired = calloc((size_t)(images * (s->h + 2 * pad) * (s->w + 2 * pad) * s->ic), sizeof(int32_t));
    k->row = calloc((size_t)((s->w + 2 * pad + s->stride) * s->ic), sizeof(int16_t));
    k->gx = malloc((size_t)(images * s->h * s->w * s->ic) * sizeof(float));
    k->dw = calloc((size_t)(s->kernel * s->kernel * s->ic * s->oc), sizeof(float));
    return k->padded && k->pairs && k->paired && k->row && k->gx && k->dw ? 0 : -1;
}

/* By the bits, which compare as magnitudes do: loops over float maxima are not vectorised. */
static float largest_magnitude(const float *restrict g, long count)
{
    uint32_t largest = 0;
    float v;

    for (long i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &g[i], sizeof(bits));
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    memcpy(&v, &largest, sizeof(v));
    return v;
}

/* Words of a pixel and, `step` further, of its partner (0: there is none). */
INLINE void pair_pixels(int32_t *restrict to, const int16_t *restrict a, long step, long count)
{
    if (step)
        for (long j = 0; j < count; j++)
            to[j] = (int32_t)((uint16_t)a[j] | (uint32_t)(uint16_t)a[j + step] << 16);
    else
        for (long j = 0; j < count; j++)
            to[j] = (uint16_t)a[j];
}

/* Gradients g of `images` images as int16 times the returned factor. `limit`: the largest magnitude that no sum
 * overflows with. */
static float quantize_gradients(const struct shape *s, const float *restrict g, long images, float limit,
                                struct scratch *k)
{
    long pad = s->kernel / 2, oh = out_size(s->h, s), ow = out_size(s->w, s), half = (ow + 1) / 2, oc = s->oc;
    float largest = largest_magnitude(g, images * oh * ow * oc);
    float scale = largest > 0 ? limit / largest : 0;
    for (long r = 0; r < images * oh; r++) {
        int16_t *restrict row = k->padded + ((r / oh * (oh + 2 * pad) + r % oh + pad) * (ow + 2 * pad) + pad) * oc;
        const float *restrict from = g + r * ow * oc;
        for (long i = 0; i < ow * oc; i++)
            row[i] = (int16_t)rintf(from[i] * scale);
        for (long first = 0; first < oc; first += BLOCK) {
            long size = min_long(oc - first, BLOCK);
            int32_t *pair = (int32_t *)(void *)k->pairs + first * images * oh * half + r * half * size;
            for (long q = 0; q < half; q++)
                pair_pixels(pair + q * size, row + 2 * q * oc + first, 2 * q + 1 < ow ? oc : 0, size);
        }
    }
    return largest > 0 ? largest / limit : 0;
}

INLINE void words_of(const struct source *x, const float *restrict h, int16_t *restrict out, long pixels, long c)
{
    for (long p = 0; p < pixels; p++)
        for (long j = 0; j < c; j++)
            out[p * c + j] = (int16_t)activation(x, h[p * c + j], j);
}

static void fill_row(const struct source *x, const float *h, int16_t *row, long pixels, long c)
{
    struct source local = *x;

    if (x->mode == SOURCE_SIGN) {
        local.mode = SOURCE_SIGN;
        words_of(&local, h, row, pixels, c);
    } else if (x->mode == SOURCE_INT8) {
        local.mode = SOURCE_INT8;
        words_of(&local, h, row, pixels, c);
    } else {
        local.mode = SOURCE_PIXELS;
        words_of(&local, h, row, pixels, c);
    }
}

static void fill_paired(const struct source *x, const struct shape *s, const float *h, long images, struct scratch *k)
{
    long pad = s->kernel / 2, width = s->w + 2 * pad, pixels = images * (s->h + 2 * pad) * width,
         step = s->stride * s->ic;

    for (long r = 0; r < images * s->h; r++) {
        long at = (r / s->h * (s->h + 2 * pad) + r % s->h + pad) * width;
        fill_row(x, h + r * s->w * s->ic, k->row + pad * s->ic, s->w, s->ic);
        for (long i = 0; i < s->ic; i += CHANNELS_MAX) {
            long size = min_long(s->ic - i, CHANNELS_MAX);
            int32_t *to = k->paired + i * pixels + at * size;
            if (size == CHANNELS_MAX)
                for (long q = 0; q < width; q++)
                    pair_pixels(to + q * CHANNELS_MAX, k->row + q * s->ic + i, step, CHANNELS_MAX);
            else
                for (long q = 0; q < width; q++)
                    pair_pixels(to + q * size, k->row + q * s->ic + i, step, size);
        }
    }
}

/* ---- backward: weights ------------------------------------------------------------------------------------------
 * */

/* dw [I][oc] += factor * sum over the group's pixels of pairs (vectors of oc) times paired (I channels of ic), for
 * one tap. */
INLINE void weight_tile(const struct shape *s, const int16_t *pairs, const int32_t *paired, long images, float factor,
                        float *dw, const int I, const int NV)
{
    long oh = out_size(s->h, s), half = (out_size(s->w, s) + 1) / 2, height = s->h + s->kernel / 2 * 2,
         pitch = (s->w + s->kernel / 2 * 2) * I, size = NV * LANES * 2, step = 2 * s->stride * I;

#define PRODUCT(p, v)                                                                                                  \
    if (v < NV)                                                                                                        \
        add_words(&a##p##v, b, g##v);
#undef PRODUCTS
#define PRODUCTS(p)                                                                                                    \
    if (p < I) {                                                                                                       \
        vector b = broadcast(x + q * step + p);                                                                        \
        EACH_VECTOR(PRODUCT, p)                                                                                        \
    }
#define ADD(p, v)                                                                                                      \
    if (p < I && v < NV) {                                                                                             \
        add_times(dw + p * s->oc + v * LANES, a##p##v, factor);                                                        \
    }
#define UNROLLED _Pragma("GCC unroll 8")
#define FOUR(M)  EACH_VECTOR(M, 0) EACH_VECTOR(M, 1) EACH_VECTOR(M, 2) EACH_VECTOR(M, 3)
    FOUR(DECLARE)
#define ROWS(count)                                                                                                    \
    for (long image = 0; image < images; image++, paired += height * pitch) {                                          \
        const int32_t *x = paired;                                                                                     \
        for (long y = 0; y < oh; y++, x += s->stride * pitch) {                                                        \
            UNROLLED                                                                                                   \
            for (long q = 0; q < (count); q++, pairs += size) {                                                        \
                vector g0 = load(pairs), g1 = NV > 1 ? load(pairs + 2 * LANES) : g0;                                   \
                vector g2 = NV > 2 ? load(pairs + 4 * LANES) : g0, g3 = NV > 3 ? load(pairs + 6 * LANES) : g0;         \
                PRODUCTS(0) PRODUCTS(1) PRODUCTS(2) PRODUCTS(3)                                                        \
            }                                                                                                          \
        }                                                                                                              \
    }
    if (half == 2 && s->stride == 1)
        ROWS(2)
    else if (half == 4 && s->stride == 1)
        ROWS(4)
    else
        ROWS(half)
    FOUR(ADD)
#undef PRODUCT
}

typedef void (*weight_function)(const struct shape *s, const int16_t *pairs, const int32_t *paired, long images,
                                float factor, float *dw);

#define WEIGHT(kind, i, v)                                                                                             \
    static void weight_##i##_##v(const struct shape *s, const int16_t *pairs, const int32_t *paired, long images,      \
                                 float factor, float *dw)                                                              \
    {                                                                                                                  \
        weight_tile(s, pairs, paired, images, factor, dw, i, v);                                                       \
    }
EACH_SIZE(WEIGHT, weight, 1)
EACH_SIZE(WEIGHT, weight, 2)
EACH_SIZE(WEIGHT, weight, 3)
EACH_SIZE(WEIGHT, weight, 4)
static const weight_function weight_tiles[CHANNELS_MAX][VECTORS_MAX] = {SIZES(weight, 1), SIZES(weight, 2),
                                                                        SIZES(weight, 3), SIZES(weight, 4)};

static void weights_of_group(const struct shape *s, const struct scratch *k, long images, float factor)
{
    long pad = s->kernel / 2, width = s->w + 2 * pad, pixels = images * (s->h + 2 * pad) * width,
         pairs = images * out_size(s->h, s) * ((out_size(s->w, s) + 1) / 2);

    for (long first = 0; first < s->oc; first += BLOCK) {
        int vectors = (int)(min_long(s->oc - first, BLOCK) / LANES);
        for (long i = 0; i < s->ic; i += CHANNELS_MAX) {
            long count = min_long(s->ic - i, CHANNELS_MAX);
            for (long tap = 0; tap < s->kernel * s->kernel; tap++)
                weight_tiles[count - 1][vectors - 1](s, k->pairs + first * pairs * 2,
                                                     k->paired + i * pixels +
                                                         (tap / s->kernel * width + tap % s->kernel) * count,
                                                     images, factor, k->dw + (tap * s->ic + i) * s->oc + first);
        }
    }
}

/* ---- backward: activations --------------------------------------------------------------------------------------
 * */

/* Weights int16 [block of ic][ky][kx][oc/2][vectors][LANES][2] from [oc][k][k][ic]. */
static void pack_words(const struct shape *s, const float *w, int16_t *packed)
{
    long taps = s->kernel * s->kernel;

    for (long first = 0; first < s->ic; first += BLOCK) {
        long lanes = min_long(s->ic - first, BLOCK);
        int16_t *block = packed + first * taps * s->oc;
        for (long tap = 0; tap < taps; tap++)
            for (long o = 0; o < s->oc; o++)
                for (long j = 0; j < lanes; j++)
                    block[(tap * s->oc + o / 2 * 2) * lanes + j * 2 + o % 2] =
                        (int16_t)w[(o * taps + tap) * s->ic + first + j];
    }
}

/* The taps that reach inputs whose row and column leave the remainders py and px by the stride; offsets from the
 * gradient at (y div stride, x div stride). */
static long taps_of(const struct shape *s, long py, long px, long lanes, struct tap *taps)
{
    long pad = s->kernel / 2, pitch = (out_size(s->w, s) + 2 * pad) * s->oc, count = 0;

    for (long ky = 0; ky < s->kernel; ky++) {
        for (long kx = 0; kx < s->kernel; kx++) {
            long dy = py + pad - ky, dx = px + pad - kx;
            if (dy % s->stride || dx % s->stride)
                continue;
            taps[count++] = (struct tap){(dy / s->stride + pad) * pitch + (dx / s->stride + pad) * s->oc,
                                         (ky * s->kernel + kx) * s->oc * lanes, s->oc};
        }
    }
    return count;
}

static void activations_of_group(const struct shape *s, const struct scratch *k, const int16_t *packed, long images,
                                 float factor)
{
    long pad = s->kernel / 2, pitch = (out_size(s->w, s) + 2 * pad) * s->oc, height = out_size(s->h, s) + 2 * pad;
    struct tap taps[TAPS_MAX];

    for (long first = 0; first < s->ic; first += BLOCK) {
        long lanes = min_long(s->ic - first, BLOCK);
        for (long py = 0; py < s->stride; py++) {
            for (long px = 0; px < s->stride; px++) {
                long count = taps_of(s, py, px, lanes, taps);
                for (long r = 0; r < images * s->h; r++) {
                    long image = r / s->h, y = r % s->h;
                    if (y % s->stride != py)
                        continue;
                    struct tile t = {.in = k->padded + (image * height + y / s->stride) * pitch,
                                     .in_step = s->oc,
                                     .weights = packed + first * s->kernel * s->kernel * s->oc,
                                     .taps = taps,
                                     .taps_count = count,
                                     .out = k->gx + (r * s->w + px) * s->ic + first,
                                     .out_step = s->stride * s->ic,
                                     .factor = factor};
                    run_row(t, (s->w - px + s->stride - 1) / s->stride, (int)(lanes / LANES), 0);
                }
            }
        }
    }
}

/* dh = gh + gx through the way from the stream to activations; sums [ic] for the thresholds, or [1] for the step (Σ
 * gx*h where inside). */
INLINE void through_sign(const struct source *x, const float *restrict h, const float *restrict gx,
                         const float *restrict gh, float *restrict dh, float *restrict sums, long pixels, long c,
                         enum estimator estimator)
{
    memset(sums, 0, (size_t)c * sizeof(float));
    for (long p = 0; p < pixels; p++) {
        VECTOR_LOOP
        for (long j = 0; j < c; j++) {
            long i = p * c + j;
            float g = gx[i] * derivative(h[i] - x->t[j], estimator);
            sums[j] += g;
            dh[i] = gh ? gh[i] + g : g;
        }
    }
}

static void through_int8(const struct source *x, const float *restrict h, const float *restrict gx,
                         const float *restrict gh, float *restrict dh, float *restrict sums, long count, float to_h)
{
    double sum = 0;

    for (long i = 0; i < count; i++) {
        double v = count_of(h[i], x->m, x->half, x->scale);
        float g = v >= -128 && v <= 127 ? gx[i] : 0.0f;
        sum += (double)(g * h[i]);
        dh[i] = (gh ? gh[i] : 0.0f) + g * to_h;
    }
    sums[0] = (float)sum;
}

static void through_source(const struct source *x, const struct shape *s, const float *h, const float *gx,
                           const float *gh, float *dh, float *sums, long images, float to_h)
{
    long pixels = images * s->h * s->w;

    if (x->mode == SOURCE_INT8)
        through_int8(x, h, gx, gh, dh, sums, pixels * s->ic, to_h);
    else if (x->estimator == ESTIMATOR_H && gh)
        through_sign(x, h, gx, gh, dh, sums, pixels, s->ic, ESTIMATOR_H);
    else if (x->estimator == ESTIMATOR_H)
        through_sign(x, h, gx, NULL, dh, sums, pixels, s->ic, ESTIMATOR_H);
    else if (x->estimator == ESTIMATOR_CLIP)
        through_sign(x, h, gx, gh, dh, sums, pixels, s->ic, ESTIMATOR_CLIP);
    else
        through_sign(x, h, gx, gh, dh, sums, pixels, s->ic, ESTIMATOR_APPROXSIGN);
}

/* ---- backward ---------------------------------------------------------------------------------------------------
 * */

/* The largest magnitude of int16 gradients with which no sum of 32 bits overflows, over the weights and over the
 * group's pixels. */
static float gradient_limit(const struct shape *s, const struct source *x, const float *w, long images)
{
    double largest = x->mode == SOURCE_SIGN ? 1 : x->mode == SOURCE_INT8 ? 128 : 255, heaviest = 1, limit;

    for (long i = 0; i < s->oc * s->kernel * s->kernel * s->ic; i++)
        heaviest = fabs((double)w[i]) > heaviest ? fabs((double)w[i]) : heaviest;
    limit = 2147000000.0 / fmax(largest * (double)(images * out_size(s->h, s) * out_size(s->w, s)),
                                heaviest * (double)(s->oc * s->kernel * s->kernel));
    return (float)fmin(limit, 32767);
}

struct backward {
    const struct shape *s;
    const struct source *x;
    const float *w, *g, *gh;
    float *dh;
    const int16_t *packed;
    float *partial; /* [groups][ic] */
    float limit, to_h;
    long images;
};

static void backward_group(const struct backward *b, struct scratch *k, long group)
{
    const struct shape *s = b->s;
    long first = group * b->images, images = min_long(b->images, s->n - first), at = first * s->h * s->w * s->ic;
    float factor =
        quantize_gradients(s, b->g + first * out_size(s->h, s) * out_size(s->w, s) * s->oc, images, b->limit, k);

    fill_paired(b->x, s, b->x->h + at, images, k);
    weights_of_group(s, k, images, factor);
    if (b->dh) {
        activations_of_group(s, k, b->packed, images, factor);
        through_source(b->x, s, b->x->h + at, k->gx, b->gh ? b->gh + at : NULL, b->dh + at, b->partial + group * s->ic,
                       images, b->to_h);
    }
}

/* dw [oc][k][k][ic] += sum of the threads' [k][k][ic][oc]. */
static void add_weights(const struct shape *s, const float *from, float *dw)
{
    long taps = s->kernel * s->kernel;

    for (long tap = 0; tap < taps; tap++)
        for (long i = 0; i < s->ic; i++)
            for (long o = 0; o < s->oc; o++)
                dw[(o * taps + tap) * s->ic + i] += from[(tap * s->ic + i) * s->oc + o];
}

int xn_convolve_grad(const struct shape *s, const struct source *x, const float *w, const float *g, const float *gh,
                     float *dh, double *sums, float *dw, float to_h)
{
    struct backward b = {
        .s = s, .x = x, .w = w, .g = g, .gh = gh, .dh = dh, .images = min_long(group_images(s), s->n), .to_h = to_h};
    long groups = (s->n + b.images - 1) / b.images, count = s->oc * s->kernel * s->kernel * s->ic;
    int16_t *packed = malloc((size_t)count * sizeof(*packed));
    int failed = 0;

    b.partial = calloc((size_t)(groups * s->ic), sizeof(float));
    b.packed = packed;
    b.limit = gradient_limit(s, x, w, b.images);
    memset(dw, 0, (size_t)count * sizeof(float));
    memset(sums, 0, (size_t)s->ic * sizeof(double));
    failed = !packed || !b.partial;
    if (!failed) {
        if (dh)
            pack_words(s, w, packed);
#pragma omp parallel reduction(| : failed)
        {
            struct scratch k = {0};
            int ready = scratch_init(&k, s, b.images) == 0;
            failed |= !ready;
#pragma omp for schedule(static)
            for (long group = 0; group < groups; group++)
                if (ready)
                    backward_group(&b, &k, group);
#pragma omp for ordered schedule(static, 1)
#ifdef _OPENMP
            for (int thread = 0; thread < omp_get_num_threads(); thread++)
#else
            for (int thread = 0; thread < 1; thread++)
#endif
            {
#pragma omp ordered
                if (ready)
                    add_weights(s, k.dw, dw);
            }
            scratch_done(&k);
        }
        for (long group = 0; group < groups; group++)
            for (long j = 0; j < s->ic; j++)
                sums[j] += (double)b.partial[group * s->ic + j];
    }
    free(packed);
    free(b.partial);
    return failed ? -1 : 0;
}

#else

int xn_convolve_available(void)
{
    return 0;
}

int xn_convolve(const struct shape *s, const struct source *x, const float *w, float *out)
{
    (void)s, (void)x, (void)w, (void)out;
    return -1;
}

int xn_convolve_grad(const struct shape *s, const struct source *x, const float *w, const float *g, const float *gh,
                     float *dh, double *sums, float *dw, float to_h)
{
    (void)s, (void)x, (void)w, (void)g, (void)gh, (void)dh, (void)sums, (void)dw, (void)to_h;
    return -1;
}

#endif
