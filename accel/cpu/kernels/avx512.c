/* SPDX-License-Identifier: Apache-2.0
 * Level avx512's way into its generated assembly (kernels/gen/avx512.py): one function for each number of pixels. */
#include "accel/cpu/kernels/level.h"
#include "accel/cpu/kernels/pairs512.h"

#if defined(__AVX512VPOPCNTDQ__)

/* What the generator writes down as numbers. */
_Static_assert(offsetof(struct xn_cpu_tile, pixels) == 0, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, init) == 64, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, weights) == 72, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, acc) == 80, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, acc_bytes) == 88, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, row_bytes) == 96, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, rows) == 104, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, run) == 108, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, blocks) == 112, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, start) == 128, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, fused) == 136, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, class_row) == 144, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, stream_offset) == 152, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, table) == 0, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, factor) == 16, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, stream_pitch) == 40, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, limit) == 48, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, b16) == 88, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, bent) == 96, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_tile, spots) == 160, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, words) == 104, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, counts) == 120, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, always) == 128, "kernels/gen/avx512.py");
_Static_assert(offsetof(struct xn_cpu_fused, shift) == 136, "kernels/gen/avx512.py");
_Static_assert(XN_CPU_TILE_MAX == 8, "kernels/gen/avx512.py");

#define PAIRS(suffix)                                                                                                  \
    xn_cpu_tile_fn xn_cpu_pair##suffix##_avx512_1, xn_cpu_pair##suffix##_avx512_2, xn_cpu_pair##suffix##_avx512_3,     \
        xn_cpu_pair##suffix##_avx512_4, xn_cpu_pair##suffix##_avx512_5, xn_cpu_pair##suffix##_avx512_6,                \
        xn_cpu_pair##suffix##_avx512_7, xn_cpu_pair##suffix##_avx512_8;                                                \
    static xn_cpu_tile_fn *const pair##suffix[XN_CPU_TILE_MAX] = {                                                     \
        xn_cpu_pair##suffix##_avx512_1, xn_cpu_pair##suffix##_avx512_2, xn_cpu_pair##suffix##_avx512_3,                \
        xn_cpu_pair##suffix##_avx512_4, xn_cpu_pair##suffix##_avx512_5, xn_cpu_pair##suffix##_avx512_6,                \
        xn_cpu_pair##suffix##_avx512_7, xn_cpu_pair##suffix##_avx512_8};
PAIRS()
PAIRS(_bits)
PAIRS(_stream)
PAIRS(_rprelu)
xn_cpu_tile_fn xn_cpu_bytes_avx512_1, xn_cpu_bytes_avx512_2, xn_cpu_bytes_avx512_3, xn_cpu_bytes_avx512_4,
    xn_cpu_bytes_avx512_5, xn_cpu_bytes_avx512_6;
void xn_cpu_peak_avx512(uint64_t rounds);

/* ---- bits ------------------------------------------------------------------------------------------------------------- */

static void pair_run(const struct xn_cpu_tile *tile)
{
    pair[tile->n - 1](tile);
}

const struct xn_cpu_bits_kernel xn_cpu_bits_avx512 = {
    .conv = {.run = pair_run, .tile = XN_CPU_TILE_MAX, .block = PAIR_BLOCK, .unit_bytes = PAIR_UNIT, .pack = pair_pack},
    .pairs = true,
    .encoded = true,
    .order = pair_order,
};

/* ---- bits and what follows ---------------------------------------------------------------------------------------------- */

static void fuse_bits(struct xn_cpu_fused *fused, const struct xn_cpu_stage *bits, uint32_t c0, uint8_t *arena)
{
    const struct xn_cpu_bits_map *map = &bits->bits;
    fused->words = arena + map->offset + c0 / 8;
    fused->words_pitch = map->words * sizeof(uint64_t);
    fused->counts = (int32_t *)(void *)(arena + map->counts_offset);
}

void XN_LEVEL(fuse)(struct xn_cpu_fused *fused, const struct xn_cpu_chain *chain, uint32_t c0, uint8_t *arena)
{
    if (chain->fused == XN_CPU_FUSED_BITS) {
        const struct xn_cpu_stage *bits = &chain->stages[0];
        fused->run = pair_bits;
        fused->table = bits->limit + c0;
        fused->table_pitch = chain->row_pitch * sizeof(int16_t);
        fuse_bits(fused, bits, c0, arena);
        return;
    }
    const struct xn_cpu_stage *scale = &chain->stages[0], *rprelu = &chain->stages[1];
    const struct xn_cpu_stage *bits = &chain->stages[chain->n_stages - 2], *store = bits + 1;
    if (bits->op != XN_CPU_STAGE_BITS) {
        store = bits;
        bits++;
    }
    fused->run = chain->fused == XN_CPU_FUSED_RPRELU ? pair_rprelu : pair_stream;
    fused->table = scale->origin + c0;
    fused->table_pitch = chain->row_pitch * sizeof(int32_t);
    fused->factor = scale->factor + c0;
    fused->shift = scale->shift - 2;
    fused->residual = arena + scale->residual_offset + c0 * sizeof(int16_t);
    fused->stream = arena + store->out_offset + c0 * sizeof(int16_t);
    fused->stream_pitch = chain->c * sizeof(int16_t);
    fuse_bits(fused, bits, c0, arena);
    fused->limit = bits->limit + c0;
    fused->always = bits->always[c0 / XN_CPU_CHUNK];
    if (chain->fused == XN_CPU_FUSED_RPRELU) {
        fused->knee = rprelu->knee + c0;
        fused->half = rprelu->half + c0;
        fused->slope = rprelu->slope + c0;
        fused->sum = rprelu->sum + c0;
        fused->b16 = rprelu->b16 + c0;
        fused->bent = rprelu->bent + c0 / XN_CPU_CHUNK;
    }
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

static void bytes_run(const struct xn_cpu_tile *tile)
{
    static xn_cpu_tile_fn *const by_n[] = {xn_cpu_bytes_avx512_1, xn_cpu_bytes_avx512_2, xn_cpu_bytes_avx512_3,
                                           xn_cpu_bytes_avx512_4, xn_cpu_bytes_avx512_5, xn_cpu_bytes_avx512_6};
    by_n[tile->n - 1](tile);
}

static void bytes_pack(void *unit, uint32_t lane, uint64_t raw)
{
    ((uint32_t *)unit)[lane] = (uint32_t)raw;
}

const struct xn_cpu_conv_kernel xn_cpu_bytes_avx512 = {
    .run = bytes_run, .tile = 6, .block = PAIR_BLOCK, .unit_bytes = 4 * PAIR_BLOCK, .pack = bytes_pack};

/* ---- the yardstick ---------------------------------------------------------------------------------------------------- */

double XN_LEVEL(ceiling)(uint64_t rounds)
{
    xn_cpu_peak_avx512(rounds);
    return 16 * 512.0 * (double)rounds;
}

#endif
