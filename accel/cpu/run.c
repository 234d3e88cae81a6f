/* SPDX-License-Identifier: Apache-2.0
 * One image through a plan. The steps here branch on shapes, once a step or a tile; kernels do the arithmetic.
 *
 * A convolution that pads, widens or has groups first copies its map, with a border, into scratch: a few kilobytes against
 * thousands of operations a byte, and in return tiles of pixels run across row ends and map edges alike. Then, tile by tile, all
 * output channels are summed into a buffer in L1 and go through the chain of stages that follows.
 */
#include "accel/cpu/bits.h"
#include "accel/cpu/plan.h"

#include <string.h>

struct run {
    const struct xn_cpu_kernels *kernels;
    uint8_t *arena;
    const void *input;
};

static const void *source(const struct run *run, const struct xn_cpu_source *s)
{
    return s->value ? run->arena + s->offset : run->input;
}

/* ---- the border ------------------------------------------------------------------------------------------------------- */

/** One row of bits of the map. Groups of channels that are no whole words are shifted to begin a word each. */
static void border_row_bits(const struct xn_cpu_conv *conv, const uint64_t *in, uint8_t *to)
{
    const size_t in_words = xn_div_up(conv->in_c, 64);
    if (conv->groups == 1) {
        memcpy(to, in, conv->in_w * in_words * 8);
        return;
    }
    const uint32_t group_c = conv->in_c / conv->groups;
    const size_t words = xn_div_up(group_c, 64);
    for (uint32_t x = 0; x < conv->in_w; x++)
        for (uint32_t g = 0; g < conv->groups; g++) {
            uint64_t *w = (uint64_t *)(void *)(to + g * conv->group_bytes) + x * words;
            for (uint32_t c = 0; c < group_c; c += 64)
                w[c / 64] = xn_bits_get(in + x * in_words, (size_t)g * group_c + c, XN_MIN(group_c - c, 64));
        }
}

/** One row of bytes or bits of the map, as int16. */
static void border_row_i16(const struct run *run, const struct xn_cpu_conv *conv, const uint8_t *in, uint8_t *to)
{
    const uint32_t c = conv->in_c, group_c = c / conv->groups;
    if (conv->groups == 1 && conv->dtype != XN_DTYPE_BITS) {
        run->kernels->widen((int16_t *)(void *)to, in, conv->dtype, (size_t)conv->in_w * c);
        return;
    }
    for (size_t x = 0; x < conv->in_w; x++)
        for (size_t g = 0; g < conv->groups; g++) {
            int16_t *w = (int16_t *)(void *)(to + g * conv->group_bytes) + x * group_c;
            if (conv->dtype == XN_DTYPE_BITS)
                run->kernels->widen_bits(w, (const uint64_t *)(const void *)in + x * xn_div_up(c, 64), g * group_c,
                                         group_c);
            else
                run->kernels->widen(w, in + x * c + g * group_c, conv->dtype, group_c);
        }
}

/** Bytes from..to-1 of every group's map. */
static void fill_border(const struct xn_cpu_conv *conv, uint8_t *map, size_t from, size_t to)
{
    for (uint32_t g = 0; g < conv->groups; g++)
        memset(map + g * conv->group_bytes + from, conv->fill, to - from);
}

/** Copy the map into scratch, with its border. What lies right of a row and left of the next is one stretch. */
static void make_border(const struct run *run, const struct xn_cpu_conv *conv)
{
    const bool bits = conv->kind == XN_CPU_CONV_BITS || conv->kind == XN_CPU_CONV_DW_BITS;
    const size_t in_row =
        conv->dtype == XN_DTYPE_BITS ? conv->in_w * xn_div_up(conv->in_c, 64) * 8 : (size_t)conv->in_w * conv->in_c;
    const size_t pixel_bytes = conv->row_bytes / conv->border_w;
    const uint8_t *in = source(run, &conv->in);
    uint8_t *map = run->arena + conv->border_offset;
    size_t filled = 0;

    for (uint32_t y = 0; y < conv->in_h; y++) {
        size_t at = (conv->pad_top + y) * conv->row_bytes + conv->pad_left * pixel_bytes;
        fill_border(conv, map, filled, at);
        if (bits)
            border_row_bits(conv, (const uint64_t *)(const void *)(in + y * in_row), map + at);
        else
            border_row_i16(run, conv, in + y * in_row, map + at);
        filled = at + conv->in_w * pixel_bytes;
    }
    fill_border(conv, map, filled, conv->group_bytes);
}

/* ---- convolution ------------------------------------------------------------------------------------------------------ */

/** Point `tile` and `rows` at output pixels first..first+n-1; a tile that is not full repeats the last pixel. */
static void aim(const struct xn_cpu_conv *conv, const uint8_t *map, uint32_t first, uint32_t n,
                struct xn_cpu_tile *tile, struct xn_cpu_rows *rows)
{
    uint32_t y = first / conv->out_w, x = first % conv->out_w;

    for (uint32_t p = 0; p < n; p++) {
        tile->pixels[p] = map + y * conv->step_y_bytes + x * conv->step_x_bytes;
        if (conv->bias)
            rows->bias[p] = conv->bias + ((size_t)conv->row_class[y] * conv->column_classes + conv->column_class[x]) *
                                             conv->acc_pitch;
        if (++x == conv->out_w) {
            x = 0;
            y++;
        }
    }
    for (uint32_t p = n; p < tile->n; p++)
        tile->pixels[p] = tile->pixels[n - 1];
    rows->first = first;
    rows->n = n;
}

static void sum_groups(const struct xn_cpu_conv *conv, xn_cpu_tile_fn *kernel, struct xn_cpu_tile *tile, int32_t *acc)
{
    tile->weights = conv->weights;
    tile->acc = acc;
    kernel(tile);
    /* Upwards: a group's idle lanes are overwritten by the next one's channels. */
    for (uint32_t g = 1; g < conv->groups; g++) {
        for (uint32_t p = 0; p < tile->n; p++)
            tile->pixels[p] = (const uint8_t *)tile->pixels[p] + conv->group_bytes;
        tile->weights = (const uint8_t *)tile->weights + conv->group_weight_bytes;
        tile->acc += conv->out_group_c;
        kernel(tile);
    }
}

static void run_conv(const struct run *run, const struct xn_cpu_step *step)
{
    const struct xn_cpu_conv *conv = &step->conv;
    const struct xn_cpu_conv_kernels *kernels = &run->kernels->conv[conv->kind];
    int32_t *acc = (int32_t *)(void *)(run->arena + conv->acc_offset);
    const uint8_t *map = source(run, &conv->in);
    struct xn_cpu_tile tile = {
        .row_bytes = conv->row_bytes,
        .rows = conv->rows,
        .run = conv->run,
        .blocks = conv->blocks,
        .acc_pitch = conv->acc_pitch,
    };
    struct xn_cpu_rows rows = {
        .popcounts = conv->bias != NULL,
        .dtype = XN_DTYPE_I32,
        .data = acc,
        .pitch_bytes = conv->acc_pitch * sizeof(*acc),
    };

    if (conv->bordered) {
        make_border(run, conv);
        map = run->arena + conv->border_offset;
    }
    for (uint32_t first = 0; first < conv->pixels; first += rows.n) {
        uint32_t n = XN_MIN(conv->pixels - first, kernels->tile);
        tile.n = n == 1 ? 1 : kernels->tile;
        aim(conv, map, first, n, &tile, &rows);
        sum_groups(conv, n == 1 ? kernels->one : kernels->many, &tile, acc);
        run->kernels->epilogue(&step->chain, &rows, run->arena);
    }
}

/* ---- all other steps -------------------------------------------------------------------------------------------------- */

static void run_chain(const struct run *run, const struct xn_cpu_step *step)
{
    const size_t element = step->rows.dtype == XN_DTYPE_I32 ? 4 : step->rows.dtype == XN_DTYPE_I16 ? 2 : 1;
    struct xn_cpu_rows rows = {
        .dtype = step->rows.dtype,
        .data = source(run, &step->rows.in),
        .pitch_bytes = step->chain.c * element,
        .n = step->rows.pixels,
    };
    run->kernels->epilogue(&step->chain, &rows, run->arena);
}

static void run_pool(const struct run *run, const struct xn_cpu_step *step)
{
    struct xn_cpu_pool pool = step->map_pool.pool;
    pool.in = source(run, &step->map_pool.in);
    pool.out = run->arena + step->map_pool.out_offset;
    pool.sums = (int32_t *)(void *)(run->arena + step->map_pool.sums_offset);
    if (step->kind == XN_CPU_STEP_MAX_POOL)
        run->kernels->max_pool(&pool);
    else
        run->kernels->average_pool(&pool);
}

static void concat_bits(const struct run *run, const struct xn_cpu_concat *concat)
{
    const size_t out_words = xn_div_up(concat->out_c, 64);
    uint64_t *out = (uint64_t *)(void *)(run->arena + concat->out_offset);
    size_t at = 0;

    memset(out, 0, concat->pixels * out_words * 8);
    for (uint32_t k = 0; k < concat->n; at += concat->c[k], k++) {
        const uint64_t *in = source(run, &concat->in[k]);
        const size_t words = xn_div_up(concat->c[k], 64);
        for (size_t p = 0; p < concat->pixels; p++)
            for (size_t w = 0; w < words; w++)
                xn_bits_or(out + p * out_words, at + 64 * w, in[p * words + w],
                           (uint32_t)XN_MIN(concat->c[k] - 64 * w, 64));
    }
}

static void run_concat(const struct run *run, const struct xn_cpu_concat *concat)
{
    const size_t element = concat->dtype == XN_DTYPE_I16 ? 2 : 1;
    const size_t out_bytes = concat->out_c * element;
    uint8_t *out = run->arena + concat->out_offset;

    if (concat->dtype == XN_DTYPE_BITS) {
        concat_bits(run, concat);
        return;
    }
    for (uint32_t k = 0; k < concat->n; k++) {
        const uint8_t *in = source(run, &concat->in[k]);
        const size_t bytes = concat->c[k] * element;
        for (size_t p = 0; p < concat->pixels; p++)
            memcpy(out + p * out_bytes, in + p * bytes, bytes);
        out += bytes;
    }
}

static void run_logits(const struct run *run, const struct xn_cpu_logits *step, int32_t *logits)
{
    const void *x = source(run, &step->in);
    for (uint32_t i = 0; i < step->n; i++) {
        int64_t v = step->dtype == XN_DTYPE_I32 ? ((const int32_t *)x)[i] : ((const int16_t *)x)[i];
        logits[i] = (int32_t)(step->m[i] * v + step->b[i]);
    }
}

void xn_cpu_plan_run(const struct xn_cpu_plan *plan, const struct xn_cpu_kernels *kernels, uint8_t *arena,
                     const void *input, int32_t *logits)
{
    const struct run run = {kernels, arena, input};

    for (uint32_t i = 0; i < plan->n_steps; i++) {
        const struct xn_cpu_step *step = &plan->steps[i];
        switch (step->kind) {
        case XN_CPU_STEP_CONV:
            run_conv(&run, step);
            break;
        case XN_CPU_STEP_CHAIN:
            run_chain(&run, step);
            break;
        case XN_CPU_STEP_MAX_POOL:
        case XN_CPU_STEP_AVERAGE_POOL:
            run_pool(&run, step);
            break;
        case XN_CPU_STEP_CONCAT:
            run_concat(&run, &step->concat);
            break;
        case XN_CPU_STEP_LOGITS:
            run_logits(&run, &step->logits, logits);
            break;
        }
    }
}
