/* SPDX-License-Identifier: Apache-2.0
 * One image through a plan. The steps here branch on shapes, once a step or a tile; kernels do the arithmetic.
 *
 * A convolution reads its taps straight from the value, whose halo pads it, or from a copy that the step before has made. Pixels of the
 * output are one long row, cut into tiles of nearly equal size: tiles run across row ends, and none is wasted on an edge. A tile's sums of
 * one chunk of channels stay on the stack and go through the chain of stages that follows, while they are in L1. Tiles are taken a strip
 * at a time, so that a chunk's weights serve all tiles of the strip from L1.
 *
 * A part of a step is a range of its output's pixels (pools, copies: rows). Parts write different bytes: the halo that follows a row belongs
 * to the row's last pixel.
 */
#include "accel/cpu/bits.h"
#include "accel/cpu/plan.h"

#include <string.h>

#define STRIP 8u /* tiles */

struct run {
    const struct xn_cpu_kernels *kernels;
    uint8_t *arena;
    const void *input;
    uint32_t part, parts;
};

struct span {
    uint32_t from, to;
};

/** This part's share of 0..n-1. */
static struct span share(const struct run *run, uint32_t n)
{
    return (struct span){(uint32_t)((uint64_t)n * run->part / run->parts),
                         (uint32_t)((uint64_t)n * (run->part + 1) / run->parts)};
}

static const uint8_t *source(const struct run *run, const struct xn_cpu_source *s)
{
    return s->value ? run->arena + s->offset : run->input;
}

/* ---- halos ------------------------------------------------------------------------------------------------------------ */

/** Zero what lies round a plane of h x w elements at `plane` and belongs to `pixels`: before the first pixel, and what is right of a row and
 *  left of the next. */
static void clear_round(uint8_t *plane, size_t element_bytes, const struct xn_cpu_bits_map *map, uint32_t h, uint32_t w,
                        struct span pixels)
{
    const size_t row_bytes = map->pitch * element_bytes, beside_bytes = (map->left + map->right) * element_bytes;
    const size_t top_bytes = map->top * row_bytes + map->left * element_bytes;
    const size_t end_bytes = map->right * element_bytes + map->bottom * row_bytes;

    if (pixels.from == 0)
        memset(plane - top_bytes, 0, top_bytes);
    for (uint32_t y = pixels.from / w; y < pixels.to / w; y++)
        memset(plane + y * row_bytes + w * element_bytes, 0, y + 1 < h ? beside_bytes : end_bytes);
}

/** Counts are added up word by word: those of `pixels` are 0 first. */
static void clear_counts(int32_t *counts, const struct xn_cpu_bits_map *map, uint32_t w, struct span pixels)
{
    for (uint32_t at = pixels.from; at < pixels.to;) {
        const uint32_t y = at / w, x = at % w, n = XN_MIN(w - x, pixels.to - at);
        memset(counts + (size_t)y * map->pitch + x, 0, n * sizeof(*counts));
        at += n;
    }
}

/** Before `pixels` of a map of bits are written. */
static void open_map(const struct run *run, const struct xn_cpu_bits_map *map, uint32_t h, uint32_t w,
                     struct span pixels)
{
    const bool halo = map->top + map->left + map->bottom + map->right > 0;
    int32_t *counts = (int32_t *)(void *)(run->arena + map->counts_offset);

    if (pixels.from == pixels.to)
        return; /* a part without pixels owns no halo either */
    if (halo)
        clear_round(run->arena + map->offset, map->words * sizeof(uint64_t), map, h, w, pixels);
    if (map->counts && halo)
        clear_round((uint8_t *)counts, sizeof(*counts), map, h, w, pixels);
    if (map->counts)
        clear_counts(counts, map, w, pixels);
}

static void open_maps(const struct run *run, const struct xn_cpu_chain *chain, uint32_t h, uint32_t w,
                      struct span pixels)
{
    for (uint32_t k = 0; k < chain->n_stages; k++)
        if (chain->stages[k].op == XN_CPU_STAGE_BITS)
            open_map(run, &chain->stages[k].bits, h, w, pixels);
}

/* ---- copies ----------------------------------------------------------------------------------------------------------- */

/** Bits first..first+n-1 of a pixel, n 1..64, not encoded. */
static uint64_t plain_bits(const struct run *run, const uint64_t *pixel, size_t first, uint32_t n)
{
    if (!run->kernels->bits->encoded)
        return xn_bits_get(pixel, first, n);
    const uint64_t words[2] = {xn_bits_encode(pixel[first / 64]),
                               first % 64 + n > 64 ? xn_bits_encode(pixel[first / 64 + 1]) : 0};
    return xn_bits_get(words, first % 64, n);
}

/** One row of bits of the map, each group's channels beginning a word. */
static void copy_row_bits(const struct run *run, const struct xn_cpu_copy *copy, const uint64_t *in, uint8_t *to,
                          uint8_t *counts)
{
    const size_t in_words = copy->in.bits.words, words = copy->pixel_bytes / 8;
    const uint32_t group_c = copy->in_c / copy->groups;

    for (uint32_t g = 0; g < copy->groups; g++) {
        uint64_t *w = (uint64_t *)(void *)(to + g * copy->group_bytes);
        int32_t *count = (int32_t *)(void *)(counts + (size_t)g * copy->h * copy->w * sizeof(int32_t));
        for (uint32_t x = 0; x < copy->in_w; x++, w += words) {
            for (uint32_t c = 0; c < group_c; c += 64) {
                const uint64_t plain =
                    plain_bits(run, in + x * in_words, (size_t)g * group_c + c, XN_MIN(group_c - c, 64));
                w[c / 64] = run->kernels->bits->encoded ? xn_bits_encode(plain) : plain;
            }
            if (run->kernels->bits->pairs)
                count[x] = (int32_t)run->kernels->count_pairs(w, words);
        }
    }
}

/** n channels of one pixel from channel `first`, in the kernels' type. */
static void copy_numbers(const struct run *run, const struct xn_cpu_copy *copy, const uint8_t *pixel, size_t first,
                         size_t n, uint8_t *to)
{
    const bool bytes = copy->kind == XN_CPU_CONV_BYTES;
    if (copy->dtype != XN_DTYPE_BITS) {
        if (bytes)
            run->kernels->offset(to, pixel + first, copy->dtype, n);
        else
            run->kernels->widen((int16_t *)(void *)to, pixel + first, copy->dtype, n);
        return;
    }
    for (size_t done = 0; done < n; done += 64) {
        const uint32_t some = (uint32_t)XN_MIN(n - done, 64);
        const uint64_t word = plain_bits(run, (const uint64_t *)(const void *)pixel, first + done, some);
        if (bytes)
            for (uint32_t i = 0; i < some; i++)
                to[done + i] = (word >> i & 1) ? 129 : 127;
        else
            run->kernels->widen_bits((int16_t *)(void *)to + done, &word, 0, some);
    }
}

/** One row of numbers of the map. */
static void copy_row_numbers(const struct run *run, const struct xn_cpu_copy *copy, const uint8_t *in, uint8_t *to)
{
    const bool bits = copy->dtype == XN_DTYPE_BITS;
    const size_t in_pixel = bits ? copy->in.bits.words * sizeof(uint64_t) : copy->in_c;
    const uint32_t group_c = copy->in_c / copy->groups;

    if (copy->groups == 1 && !bits) {
        copy_numbers(run, copy, in, 0, (size_t)copy->in_w * copy->in_c, to);
        return;
    }
    for (uint32_t g = 0; g < copy->groups; g++)
        for (uint32_t x = 0; x < copy->in_w; x++)
            copy_numbers(run, copy, in + x * in_pixel, (size_t)g * group_c, group_c,
                         to + g * copy->group_bytes + x * copy->pixel_bytes);
}

static void fill_copy(const struct xn_cpu_copy *copy, uint8_t *row, uint32_t from, uint32_t to)
{
    for (uint32_t g = 0; g < copy->groups; g++)
        memset(row + g * copy->group_bytes + from * copy->pixel_bytes, copy->fill, (to - from) * copy->pixel_bytes);
}

/** Row `y` of all groups. */
static void copy_row(const struct run *run, const struct xn_cpu_copy *copy, uint32_t y)
{
    const bool bits = copy->dtype == XN_DTYPE_BITS;
    const size_t in_row =
        bits ? copy->in.bits.pitch * copy->in.bits.words * sizeof(uint64_t) : (size_t)copy->in_w * copy->in_c;
    uint8_t *row = run->arena + copy->offset + y * copy->row_bytes;
    uint8_t *counts = run->arena + copy->counts_offset + (size_t)y * copy->w * sizeof(int32_t);

    if (copy->kind == XN_CPU_CONV_BITS && run->kernels->bits->pairs)
        for (uint32_t g = 0; g < copy->groups; g++)
            memset(counts + (size_t)g * copy->h * copy->w * sizeof(int32_t), 0, copy->w * sizeof(int32_t));
    if (y < copy->top || y >= copy->top + copy->in_h) {
        fill_copy(copy, row, 0, copy->w);
        return;
    }
    const uint8_t *in = source(run, &copy->in) + (y - copy->top) * in_row;
    fill_copy(copy, row, 0, copy->left);
    if (copy->kind == XN_CPU_CONV_BITS)
        copy_row_bits(run, copy, (const uint64_t *)(const void *)in, row + copy->left * copy->pixel_bytes,
                      counts + copy->left * sizeof(int32_t));
    else
        copy_row_numbers(run, copy, in, row + copy->left * copy->pixel_bytes);
    fill_copy(copy, row, copy->left + copy->in_w, copy->w);
}

static void run_copy(const struct run *run, const struct xn_cpu_copy *copy)
{
    const struct span rows = share(run, copy->h);
    for (uint32_t y = rows.from; y < rows.to; y++)
        copy_row(run, copy, y);
}

/* ---- convolution ------------------------------------------------------------------------------------------------------ */

/** Arrays of the step's pixels, group by group. */
static int32_t *init_of(const struct run *run, const struct xn_cpu_conv *conv, uint32_t g, size_t pixel)
{
    return (int32_t *)(void *)(run->arena + conv->init_offset) + (size_t)g * conv->out_h * conv->out_w + pixel;
}
static uint32_t *class_of(const struct run *run, const struct xn_cpu_conv *conv, uint32_t g, size_t pixel)
{
    return (uint32_t *)(void *)(run->arena + conv->class_offset) + (size_t)g * conv->out_h * conv->out_w + pixel;
}

/** Bias rows, and for pairs what sums start from, of n output pixels of one row. */
static void start_row(const struct run *run, const struct xn_cpu_conv *conv, uint32_t g, uint32_t y, uint32_t x,
                      uint32_t n)
{
    const uint32_t class = (uint32_t)conv->row_class[y] * conv->column_classes;
    const size_t pixel = (size_t)y * conv->out_w + x;
    uint32_t *class_row = class_of(run, conv, g, pixel);

    if (!conv->pairs) {
        for (uint32_t i = 0; i < n; i++)
            class_row[i] = class + conv->column_class[x + i];
        return;
    }
    const struct xn_cpu_pairs row = {
        .counts = (const int32_t *)(const void *)(run->arena + conv->counts_origin + g * conv->counts_group) +
                  (size_t)y * conv->stride_h * conv->counts_pitch + (size_t)x * conv->stride_w,
        .pitch = conv->counts_pitch,
        .rows = conv->rows,
        .columns = conv->counts_w,
        .stride = conv->stride_w,
        .n = n,
        .class = class,
        .column_class = conv->column_class + x,
        .init = init_of(run, conv, g, pixel),
        .class_row = class_row,
    };
    run->kernels->start_pairs(&row);
}

static void start_pixels(const struct run *run, const struct xn_cpu_conv *conv, struct span pixels)
{
    for (uint32_t g = 0; g < conv->groups; g++)
        for (uint32_t at = pixels.from; at < pixels.to;) {
            const uint32_t x = at % conv->out_w, n = XN_MIN(conv->out_w - x, pixels.to - at);
            start_row(run, conv, g, at / conv->out_w, x, n);
            at += n;
        }
}

/** U of the one window that is the whole map, from the words themselves. */
static uint32_t count_words(const struct run *run, const struct xn_cpu_conv *conv, const uint8_t *map)
{
    uint32_t count = 0;
    for (uint32_t row = 0; row < conv->rows; row++)
        count += run->kernels->count_pairs((const uint64_t *)(const void *)(map + row * conv->row_bytes), conv->run);
    return count;
}

/** A tile and what becomes of it. */
struct target {
    struct xn_cpu_tile tile;
    struct xn_cpu_rows rows;
};

/** The next output pixel. */
struct cursor {
    uint32_t pixel, y, x;
};

/** What all tiles of a step have in common. */
static void prepare(const struct xn_cpu_conv *conv, struct target *target)
{
    *target = (struct target){
        .tile = {.row_bytes = conv->row_bytes,
                 .rows = conv->rows,
                 .run = conv->run,
                 .tap_bytes = conv->tap_bytes,
                 .acc_bytes = XN_CPU_CHUNK * sizeof(int32_t)},
        .rows = {.kind = !conv->bias   ? XN_CPU_ROWS_NUMBERS
                         : conv->pairs ? XN_CPU_ROWS_PAIRS
                                       : XN_CPU_ROWS_COUNTS,
                 .dtype = XN_DTYPE_I32,
                 .pitch_bytes = XN_CPU_CHUNK * sizeof(int32_t),
                 .bias = conv->bias,
                 .w = conv->out_w},
    };
}

/** Point pixels first.. of `target` at the row of output pixels from `at` on. */
static void aim_row(const struct xn_cpu_conv *conv, uint32_t pitch, const uint8_t *map, const struct cursor *at,
                    uint32_t first, struct target *target)
{
    const uint8_t *pixel = map + at->y * conv->step_y_bytes + at->x * conv->step_x_bytes;
    const uint32_t spot = at->y * pitch + at->x;

    for (uint32_t p = first; p < XN_CPU_TILE_MAX; p++) {
        target->tile.pixels[p] = pixel + (p - first) * conv->step_x_bytes;
        target->tile.spots[p] = spot + p - first;
    }
}

/** Point `target` at the next n output pixels of group 0. */
static void aim(const struct run *run, const struct xn_cpu_step *step, const uint8_t *map, uint32_t pitch,
                struct cursor *at, uint32_t n, struct target *target)
{
    const struct xn_cpu_conv *conv = &step->conv;

    target->tile.n = target->rows.n = n;
    target->tile.init = init_of(run, conv, 0, at->pixel);
    target->tile.class_row = target->rows.class_row = class_of(run, conv, 0, at->pixel);
    target->tile.stream_offset = (size_t)at->pixel * step->chain.c * sizeof(int16_t);
    target->rows.first = at->pixel;
    target->rows.y = at->y;
    target->rows.x = at->x;
    at->pixel += n;
    for (uint32_t done = 0; done < n;) {
        const uint32_t some = XN_MIN(n - done, conv->out_w - at->x);
        aim_row(conv, pitch, map, at, done, target);
        done += some;
        at->x += some;
        if (at->x == conv->out_w) {
            at->x = 0;
            at->y++;
        }
    }
}

static void finish(const struct run *run, const struct xn_cpu_chain *chain, const struct xn_cpu_rows *rows)
{
    (chain->narrow ? run->kernels->narrow : run->kernels->epilogue)(chain, rows, run->arena);
}

static const struct xn_cpu_conv_kernel *kernel_of(const struct run *run, const struct xn_cpu_conv *conv)
{
    return run->kernels->conv[conv->kind];
}

/** One chunk of channels of a convolution. */
struct chunk {
    uint32_t c0, c, blocks;
    const uint8_t *weights;
    const int32_t *start;
    bool is_fused;
    struct xn_cpu_fused fused;
};

static void prepare_chunk(const struct run *run, const struct xn_cpu_step *step, uint32_t index, struct chunk *chunk)
{
    const struct xn_cpu_conv *conv = &step->conv;
    const struct xn_cpu_conv_kernel *kernel = kernel_of(run, conv);

    chunk->c0 = index * XN_CPU_CHUNK;
    chunk->c = XN_MIN(conv->out_c - chunk->c0, XN_CPU_CHUNK);
    chunk->blocks = kernel->block ? (chunk->c + kernel->block - 1) / kernel->block : 1;
    chunk->weights = conv->weights + index * conv->chunk_weight_bytes;
    chunk->start = conv->start ? conv->start + chunk->c0 : NULL;
    chunk->is_fused = step->chain.fused != XN_CPU_FUSED_NONE && chunk->c == XN_CPU_CHUNK;
    if (chunk->is_fused)
        run->kernels->fuse(&chunk->fused, &step->chain, chunk->c0, run->arena);
}

/** Channels `chunk` of `target`: sums, then the chain. */
static void run_chunk(const struct run *run, const struct xn_cpu_step *step, const struct chunk *chunk,
                      struct target *target)
{
    XN_ALIGNED(64) int32_t acc[XN_CPU_TILE_MAX * XN_CPU_CHUNK];
    struct xn_cpu_tile *tile = &target->tile;

    if (chunk->is_fused) {
        tile->weights = chunk->weights;
        tile->fused = &chunk->fused;
        chunk->fused.run[tile->n - 1](tile);
        return;
    }
    target->rows.c0 = chunk->c0;
    target->rows.c = chunk->c;
    tile->weights = chunk->weights;
    tile->blocks = chunk->blocks;
    tile->acc = acc;
    target->rows.data = acc;
    tile->start = chunk->start;
    kernel_of(run, &step->conv)->run(tile);
    finish(run, &step->chain, &target->rows);
}

/** Move `target` by one chunk of channels: a depthwise chunk reads its own channels. */
static void next_channels(const struct xn_cpu_conv *conv, struct target *target)
{
    const size_t bytes = conv->kind == XN_CPU_CONV_DW_BITS  ? sizeof(uint64_t)
                         : conv->kind == XN_CPU_CONV_DW_I16 ? XN_CPU_CHUNK * sizeof(int16_t)
                                                            : 0;
    for (uint32_t p = 0; bytes && p < target->tile.n; p++)
        target->tile.pixels[p] = (const uint8_t *)target->tile.pixels[p] + bytes;
}

/** Turn `target` from group g - 1 to group g. */
static void next_group(const struct run *run, const struct xn_cpu_conv *conv, struct target *target, uint32_t g)
{
    for (uint32_t p = 0; p < target->tile.n; p++)
        target->tile.pixels[p] = (const uint8_t *)target->tile.pixels[p] + conv->group_bytes;
    target->tile.init = init_of(run, conv, g, target->rows.first);
    target->rows.class_row = class_of(run, conv, g, target->rows.first);
}

/** Channels c0 on of group g, a chunk at most, as numbers in x [n][pitch]. */
static void sum_group(const struct run *run, const struct xn_cpu_conv *conv, struct target *target, uint32_t g,
                      uint32_t c0, size_t pitch, int32_t *x)
{
    const struct xn_cpu_conv_kernel *kernel = kernel_of(run, conv);
    const uint8_t *order = conv->kind == XN_CPU_CONV_BITS ? run->kernels->bits->order : NULL;
    const uint32_t c = XN_MIN(conv->out_c - c0, XN_CPU_CHUNK), factor = conv->pairs ? 4 : 2;
    const size_t first = (size_t)g * conv->out_c + c0;
    XN_ALIGNED(64) int32_t acc[XN_CPU_TILE_MAX * XN_CPU_CHUNK];
    struct xn_cpu_tile *tile = &target->tile;

    tile->weights = conv->weights + g * conv->group_weight_bytes + c0 / XN_CPU_CHUNK * conv->chunk_weight_bytes;
    tile->blocks = (uint32_t)xn_div_up(c, kernel->block);
    tile->start = conv->start ? conv->start + first : NULL;
    tile->acc = acc;
    tile->acc_bytes = XN_CPU_CHUNK * sizeof(*acc);
    kernel->run(tile);
    for (uint32_t p = 0; p < tile->n; p++) {
        const int32_t *bias = conv->bias ? conv->bias + target->rows.class_row[p] * pitch + first : NULL;
        for (uint32_t i = 0; i < c; i++) {
            const int32_t sum = acc[p * XN_CPU_CHUNK + (order ? order[i] : i)];
            x[p * pitch + first + i] = bias ? bias[i] - (int32_t)factor * sum : sum;
        }
    }
}

/** All groups of one tile. A chunk of the output may hold channels of several groups, whose counts mean different numbers: the numbers
 *  themselves are put one after another into scratch, and the chain starts from those. */
static void run_groups(const struct run *run, const struct xn_cpu_step *step, struct target *target)
{
    const struct xn_cpu_conv *conv = &step->conv;
    const size_t pitch = step->chain.row_pitch;
    int32_t *x = (int32_t *)(void *)(run->arena + conv->acc_offset);
    struct xn_cpu_rows *rows = &target->rows;

    for (uint32_t g = 0; g < conv->groups; g++) {
        if (g > 0)
            next_group(run, conv, target, g);
        for (uint32_t c0 = 0; c0 < conv->out_c; c0 += XN_CPU_CHUNK)
            sum_group(run, conv, target, g, c0, pitch, x);
    }
    rows->kind = XN_CPU_ROWS_NUMBERS;
    rows->pitch_bytes = pitch * sizeof(*x);
    for (rows->c0 = 0; rows->c0 < step->chain.c; rows->c0 += XN_CPU_CHUNK) {
        rows->c = XN_MIN(step->chain.c - rows->c0, XN_CPU_CHUNK);
        rows->data = x + rows->c0;
        finish(run, &step->chain, rows);
    }
}

/** Pixels from one row to the next of the map of bits that a fused chain makes. */
static uint32_t fused_pitch(const struct xn_cpu_chain *chain)
{
    for (uint32_t k = 0; chain->fused != XN_CPU_FUSED_NONE && k < chain->n_stages; k++)
        if (chain->stages[k].op == XN_CPU_STAGE_BITS)
            return chain->stages[k].bits.pitch;
    return 0;
}

/** As many tiles as `pixels` need, of sizes that differ by one at most. */
static void run_tiles(const struct run *run, const struct xn_cpu_step *step, struct span pixels, struct span chunks)
{
    const struct xn_cpu_conv *conv = &step->conv;
    const uint8_t *map = source(run, &conv->in);
    const uint32_t n = pixels.to - pixels.from, tiles = (uint32_t)xn_div_up(n, kernel_of(run, conv)->tile);
    const uint32_t size = n / tiles, larger = n % tiles; /* so many tiles have one pixel more */
    const uint32_t pitch = fused_pitch(&step->chain);
    struct cursor at = {pixels.from, pixels.from / conv->out_w, pixels.from % conv->out_w};
    struct target targets[STRIP];
    struct chunk chunk;

    for (uint32_t t = 0; t < STRIP; t++)
        prepare(conv, &targets[t]);
    for (uint32_t done = 0; done < tiles; done += STRIP) {
        const uint32_t strip = XN_MIN(tiles - done, STRIP);
        for (uint32_t t = 0; t < strip; t++)
            aim(run, step, map, pitch, &at, size + (done + t < larger), &targets[t]);
        for (uint32_t t = 0; t < strip && conv->groups > 1; t++)
            run_groups(run, step, &targets[t]);
        for (uint32_t i = chunks.from; i < chunks.to && conv->groups == 1; i++) {
            prepare_chunk(run, step, i, &chunk);
            for (uint32_t t = 0; t < strip; t++) {
                run_chunk(run, step, &chunk, &targets[t]);
                next_channels(conv, &targets[t]);
            }
        }
    }
}

/** One output pixel, whose sums start from what its window's words count. Parts share its chunks, so that what is theirs in common is on
 *  the stack. */
static void run_whole(const struct run *run, const struct xn_cpu_step *step, struct span chunks)
{
    const struct xn_cpu_conv *conv = &step->conv;
    const uint8_t *map = source(run, &conv->in);
    const uint32_t count = conv->pairs ? count_words(run, conv, map) : 0;
    const int32_t init = (int32_t)(count / 2);
    const uint32_t class_row = count % 2;
    struct target target;
    struct chunk chunk;

    prepare(conv, &target);
    target.tile.n = target.rows.n = 1;
    target.tile.pixels[0] = map;
    target.tile.init = &init;
    target.tile.class_row = target.rows.class_row = &class_row;
    for (uint32_t i = chunks.from; i < chunks.to; i++) {
        prepare_chunk(run, step, i, &chunk);
        run_chunk(run, step, &chunk, &target);
    }
}

/** Output pixels x..x+n-1 of row y, which all have the border class `class`, sliced. */
static void run_slices(const struct run *run, const struct xn_cpu_step *step, uint32_t y, uint32_t x, uint32_t n,
                       uint32_t class)
{
    const struct xn_cpu_conv *conv = &step->conv;
    const struct xn_cpu_bits_map *map = &step->chain.stages[0].bits;
    const uint8_t *in = source(run, &conv->in) + y * conv->step_y_bytes + x * conv->step_x_bytes;
    const size_t spot = (size_t)y * map->pitch + x;
    const struct xn_cpu_slices slices = {
        .in = (const uint64_t *)(const void *)in,
        .out = (uint64_t *)(void *)(run->arena + map->offset) + spot * map->words,
        .counts = map->counts ? (int32_t *)(void *)(run->arena + map->counts_offset) + spot : NULL,
        .row_words = conv->row_bytes / sizeof(uint64_t),
        .rows = conv->rows,
        .run = conv->run,
        .words = map->words,
        .n = n * map->words,
        .weights = conv->slice_weights,
        .limits = conv->slice_limits + (size_t) class * map->words * (XN_CPU_SLICE_PLANES + 1) * XN_CPU_SLICE_WORDS,
    };
    run->kernels->depthwise_sliced(&slices);
}

/** Each row of `pixels` falls into stretches of one border class. */
static void run_sliced(const struct run *run, const struct xn_cpu_step *step, struct span pixels)
{
    const struct xn_cpu_conv *conv = &step->conv;

    for (uint32_t at = pixels.from; at < pixels.to;) {
        const uint32_t y = at / conv->out_w, x = at % conv->out_w, column = conv->column_class[x];
        const uint32_t most = XN_MIN(conv->out_w - x, pixels.to - at);
        uint32_t n = 1;
        while (n < most && conv->column_class[x + n] == column)
            n++;
        run_slices(run, step, y, x, n, conv->row_class[y] * conv->column_classes + column);
        at += n;
    }
}

static uint32_t conv_parts(const struct xn_cpu_step *step)
{
    const struct xn_cpu_conv *conv = &step->conv;
    if (step->by_chunk)
        return (uint32_t)xn_div_up(conv->out_c, XN_CPU_CHUNK);
    return conv->groups == 1 && !conv->whole ? conv->out_h * conv->out_w : 1;
}

static void run_conv(const struct run *run, const struct xn_cpu_step *step)
{
    const struct xn_cpu_conv *conv = &step->conv;
    const uint32_t n_chunks = (uint32_t)xn_div_up(conv->out_c, XN_CPU_CHUNK);
    struct span pixels = {0, conv->out_h * conv->out_w}, chunks = {0, n_chunks};

    if (step->by_chunk)
        chunks = share(run, n_chunks);
    else if (conv->groups == 1 && !conv->whole)
        pixels = share(run, pixels.to);
    else if (run->part > 0)
        return; /* with groups, scratch is one tile's */
    if (pixels.from == pixels.to)
        return;
    if (!step->by_chunk || run->part == 0)
        open_maps(run, &step->chain, conv->out_h, conv->out_w, pixels);
    if (conv->whole) {
        run_whole(run, step, chunks);
        return;
    }
    if (conv->slice_weights) {
        run_sliced(run, step, pixels);
        return;
    }
    if (conv->bias)
        start_pixels(run, conv, pixels);
    run_tiles(run, step, pixels, chunks);
}

/* ---- all other steps -------------------------------------------------------------------------------------------------- */

/** Element-wise layers alone: tiles of pixels, chunk by chunk. */
static void run_chain(const struct run *run, const struct xn_cpu_step *step)
{
    const size_t element = step->rows.dtype == XN_DTYPE_I32 ? 4 : step->rows.dtype == XN_DTYPE_I16 ? 2 : 1;
    const uint32_t w = step->rows.w, c = step->chain.c;
    const struct span pixels = share(run, step->h * w);
    const uint8_t *in = source(run, &step->rows.in);
    struct xn_cpu_rows rows = {
        .kind = XN_CPU_ROWS_NUMBERS, .dtype = step->rows.dtype, .pitch_bytes = c * element, .w = w};

    open_maps(run, &step->chain, step->h, w, pixels);
    for (uint32_t first = pixels.from; first < pixels.to; first += rows.n) {
        rows.n = XN_MIN(pixels.to - first, XN_CPU_TILE_MAX);
        rows.first = first;
        rows.y = first / w;
        rows.x = first % w;
        for (rows.c0 = 0; rows.c0 < c; rows.c0 += XN_CPU_CHUNK) {
            rows.c = XN_MIN(c - rows.c0, XN_CPU_CHUNK);
            rows.data = in + first * rows.pitch_bytes + rows.c0 * element;
            finish(run, &step->chain, &rows);
        }
    }
}

static void run_pool(const struct run *run, const struct xn_cpu_step *step)
{
    const struct xn_cpu_map_pool *map_pool = &step->map_pool;
    const struct span rows = share(run, step->h);
    struct xn_cpu_pool pool = map_pool->pool;

    pool.in = source(run, &map_pool->in);
    pool.out = run->arena + map_pool->out_offset;
    pool.y0 = rows.from;
    pool.y1 = rows.to;
    if (pool.dtype == XN_DTYPE_BITS)
        pool.in_pitch = map_pool->in.bits.pitch;
    if (pool.out_dtype == XN_DTYPE_BITS) {
        const struct xn_cpu_bits_map *out = &map_pool->out_bits;
        open_map(run, out, pool.out_h, pool.out_w, (struct span){rows.from * pool.out_w, rows.to * pool.out_w});
        pool.out = run->arena + out->offset;
        pool.out_pitch = out->pitch;
        pool.counts = out->counts ? (int32_t *)(void *)(run->arena + out->counts_offset) : NULL;
    }
    if (step->kind == XN_CPU_STEP_MAX_POOL)
        run->kernels->max_pool(&pool);
    else
        run->kernels->average_pool(&pool);
}

/** One pixel: the inputs' bits one after another. */
static void concat_pixel(const struct run *run, const struct xn_cpu_concat *concat, uint32_t y, uint32_t x)
{
    const struct xn_cpu_bits_map *map = &concat->out_bits;
    const size_t pixel = (size_t)y * map->pitch + x;
    uint64_t *out = (uint64_t *)(void *)(run->arena + map->offset) + pixel * map->words;
    size_t at = 0;

    memset(out, 0, map->words * sizeof(*out));
    for (uint32_t k = 0; k < concat->n; at += concat->c[k], k++) {
        const struct xn_cpu_bits_map *from = &concat->in[k].bits;
        const uint64_t *in =
            (const uint64_t *)(const void *)source(run, &concat->in[k]) + ((size_t)y * from->pitch + x) * from->words;
        for (uint32_t c = 0; c < concat->c[k]; c += 64) {
            const uint32_t some = XN_MIN(concat->c[k] - c, 64);
            xn_bits_or(out, at + c, plain_bits(run, in, c, some), some);
        }
    }
    for (uint32_t w = 0; run->kernels->bits->encoded && w < map->words; w++)
        out[w] = xn_bits_encode(out[w]);
    if (map->counts)
        ((int32_t *)(void *)(run->arena + map->counts_offset))[pixel] =
            (int32_t)run->kernels->count_pairs(out, map->words);
}

static void concat_bits(const struct run *run, const struct xn_cpu_concat *concat, struct span rows)
{
    open_map(run, &concat->out_bits, concat->h, concat->w, (struct span){rows.from * concat->w, rows.to * concat->w});
    for (uint32_t y = rows.from; y < rows.to; y++)
        for (uint32_t x = 0; x < concat->w; x++)
            concat_pixel(run, concat, y, x);
}

static void run_concat(const struct run *run, const struct xn_cpu_concat *concat)
{
    const struct span rows = share(run, concat->h);
    const size_t element = concat->dtype == XN_DTYPE_I16 ? 2 : 1;
    const size_t out_bytes = concat->out_c * element;
    uint8_t *out = run->arena + concat->out_offset;

    if (concat->dtype == XN_DTYPE_BITS) {
        concat_bits(run, concat, rows);
        return;
    }
    for (uint32_t k = 0; k < concat->n; k++) {
        const uint8_t *in = source(run, &concat->in[k]);
        const size_t bytes = concat->c[k] * element;
        for (size_t p = (size_t)rows.from * concat->w; p < (size_t)rows.to * concat->w; p++)
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

void xn_cpu_plan_step(const struct xn_cpu_plan *plan, uint32_t i, const struct xn_cpu_image *image, uint32_t part,
                      uint32_t parts)
{
    const struct run run = {plan->kernels, image->arena, image->input, part, parts};
    const struct xn_cpu_step *step = &plan->steps[i];

    switch (step->kind) {
    case XN_CPU_STEP_COPY:
        run_copy(&run, &step->copy);
        break;
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
        if (part == 0)
            run_logits(&run, &step->logits, image->logits);
        break;
    }
}

uint32_t xn_cpu_plan_parts(const struct xn_cpu_plan *plan, uint32_t i)
{
    const struct xn_cpu_step *step = &plan->steps[i];

    switch (step->kind) {
    case XN_CPU_STEP_CONV:
        return conv_parts(step);
    case XN_CPU_STEP_COPY:
        return step->copy.h;
    case XN_CPU_STEP_CHAIN:
        return step->h * step->rows.w;
    case XN_CPU_STEP_LOGITS:
        return 1;
    default:
        return step->h;
    }
}

void xn_cpu_plan_run(const struct xn_cpu_plan *plan, const struct xn_cpu_image *image)
{
    for (uint32_t i = 0; i < plan->n_steps; i++)
        xn_cpu_plan_step(plan, i, image, 0, 1);
}
