/* SPDX-License-Identifier: Apache-2.0
 * Units that move words between pixels and AM: INPUT, the window's reads, LARGEST. */
#include "hls/test/bench.h"

static am_memory am, before;

static void remember(random_source &r)
{
    random_am(r, am);
    std::memcpy(before, am, sizeof(am));
}

/** Every word of AM but those of the map that `want` gives is as before. */
template <typename WANT>
static void check_am(uint32_t base, uint32_t height, uint32_t width, uint32_t pitch, uint32_t first, uint32_t words,
                     WANT want)
{
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            for (uint32_t w = first; w < first + words; w++) {
                CHECK_EQUAL(am_at(am, base, width, pitch, y, x, w), want(y, x, w - first));
                const uint32_t banks = 2 * XN_P,
                               row = base + (y * ((width + banks - 1) / banks) + x / banks) * pitch + w;
                std::memcpy(am[x % banks][row], before[x % banks][row], sizeof(xn::am_word));
            }
        }
    }
    CHECK_EQUAL(std::memcmp(am, before, sizeof(am)), 0);
}

static void input(random_source &r)
{
    xn::descriptor d = {};
    d.op = XN_ISA_INPUT;
    d.height = r.from_to(1, 5);
    d.out_w = r.from_to(1, 20);
    d.dest_base = r.below(10);
    d.dest_pitch = r.from_to(1, 4);
    d.channels = r.from_to(1, 8 * d.dest_pitch);
    d.stride_w = r.below(30);
    d.pad_left = r.below(3) ? r.below(20) : 0;
    d.input_row_bytes = r.from_to(1, r.below(8) ? 200 : XN_ISA_LINE_BYTES);
    const uint64_t first = r.below(100);
    std::vector<uint8_t> image(first + d.height * d.input_row_bytes);
    for (auto &b : image)
        b = (uint8_t)r.bits();
    remember(r);
    top_input(d, xn::in_port<xn::beat>(image.data(), image.size()), first, am);
    check_am(d.dest_base, d.height, d.out_w, d.dest_pitch, 0, d.dest_pitch, [&](uint32_t y, uint32_t x, uint32_t w) {
        uint64_t v = 0;
        for (uint32_t c = 8 * w; c < 8 * w + 8 && c < d.channels; c++) {
            const int64_t at = (int64_t)x * d.stride_w + c - d.pad_left;
            if (at >= 0 && at < d.input_row_bytes)
                v |= (uint64_t)image[first + y * d.input_row_bytes + (uint64_t)at] << c % 8 * 8;
        }
        return v;
    });
}

static xn::descriptor random_window(random_source &r)
{
    xn::descriptor d = {};
    d.op = XN_ISA_BINARY;
    d.height = r.from_to(1, 6);
    d.width = r.from_to(1, 20);
    d.words = r.from_to(1, 3);
    d.pitch = d.words + r.below(2);
    d.base = r.below(20);
    d.kernel_h = r.from_to(1, 4);
    d.kernel_w = r.from_to(1, 4);
    d.pad_top = r.below(d.kernel_h);
    d.pad_left = r.below(d.kernel_w);
    d.stride_h = r.from_to(1, 3);
    d.stride_w = r.below(3) ? r.from_to(1, 2) : r.below(2) ? 4 * r.from_to(1, 2) : r.from_to(1, 17);
    d.out_h = r.from_to(1, 6);
    d.out_w = r.from_to(1, 12);
    return d;
}

static uint64_t read_pixel(const xn::descriptor &d, int64_t y, int64_t x, uint32_t word, bool *ret_inside)
{
    *ret_inside = y >= 0 && x >= 0 && y < d.height && x < d.width;
    return *ret_inside ? am_at(before, d.base, d.width, d.pitch, (uint32_t)y, (uint32_t)x, word) : 0;
}

/** Every pixel of a tile is served in exactly one round, and gets its word. */
static void window(random_source &r)
{
    const xn::descriptor d = random_window(r);
    const uint32_t tile = r.below(2) ? XN_P : XN_PI, word = r.below(d.words);
    const uint32_t rounds = tile >> xn::log_pixels_of<XN_P>(tile, d.stride_w);
    const uint32_t y = r.below(d.out_h), x = r.below(d.out_w);
    bool served[XN_P], inside[XN_P], want_inside, seen[XN_P] = {};
    uint64_t got[XN_P];
    if (d.stride_w < 4)
        CHECK_EQUAL(rounds, 1);
    remember(r);
    xn::window at = {r.below(d.kernel_h), r.below(d.kernel_w), word, 0};
    for (; at.round < rounds; at.round++) {
        top_window(d, at, y, x, tile, word, am, served, inside, got);
        for (uint32_t i = 0; i < XN_P; i++) {
            if (!served[i])
                continue;
            CHECK_EQUAL(seen[i], false);
            seen[i] = true;
            const uint64_t want = read_pixel(d, (int64_t)y * d.stride_h + at.ky - d.pad_top,
                                             (int64_t)(x + i) * d.stride_w + at.kx - d.pad_left, word, &want_inside);
            CHECK_EQUAL(inside[i], want_inside);
            CHECK_EQUAL(got[i], want);
        }
    }
    for (uint32_t i = 0; i < XN_P; i++)
        CHECK_EQUAL(seen[i], i < tile);
}

static int64_t element_of(uint64_t word, uint32_t i, uint32_t source)
{
    if (source == XN_ISA_BITS)
        return word >> i & 1 ? 1 : 0;
    const uint8_t byte = (uint8_t)(word >> 8 * i);
    return source == XN_ISA_I8 ? (int8_t)byte : byte;
}

/** Element by element, over the taps inside of the map; the least one where there are none. */
static uint64_t largest_word(const xn::descriptor &d, uint32_t y, uint32_t x, uint32_t w)
{
    const bool bits = d.source == XN_ISA_BITS;
    const uint32_t n = bits ? 64 : 8;
    uint64_t word = 0;
    for (uint32_t i = 0; i < n; i++) {
        int64_t most = d.source == XN_ISA_I8 ? INT8_MIN : 0;
        for (uint32_t ky = 0; ky < d.kernel_h; ky++) {
            for (uint32_t kx = 0; kx < d.kernel_w; kx++) {
                bool inside;
                const uint64_t v = read_pixel(d, (int64_t)y * d.stride_h + ky - d.pad_top,
                                              (int64_t)x * d.stride_w + kx - d.pad_left, w, &inside);
                if (inside && element_of(v, i, d.source) > most)
                    most = element_of(v, i, d.source);
            }
        }
        word |= bits ? (uint64_t)most << i : (uint64_t)(uint8_t)most << 8 * i;
    }
    return word;
}

static xn::descriptor random_largest(random_source &r)
{
    xn::descriptor d = random_window(r);
    const uint32_t sources[] = {XN_ISA_BITS, XN_ISA_U8, XN_ISA_I8};
    d.op = XN_ISA_LARGEST;
    d.source = sources[r.below(3)];
    d.dest_group = 4 * r.below(3);
    d.dest_pitch = d.dest_group / 4 + d.words + r.below(2);
    d.dest_base = 500; /* behind the source */
    return d;
}

/** A map of its own: P pixels at a time. */
static void largest(random_source &r)
{
    const xn::descriptor d = random_largest(r);
    remember(r);
    top_largest(d, r.below(5), am);
    check_am(d.dest_base, d.out_h, d.out_w, d.dest_pitch, d.dest_group / 4, d.words,
             [&](uint32_t y, uint32_t x, uint32_t w) { return largest_word(d, y, x, w); });
}

/** Columns of a map that the turn's images share; the others' stay. */
static void largest_batch(random_source &r)
{
    xn::descriptor d = random_largest(r);
    const uint32_t turn_image = r.below(5);
    d.flags = XN_ISA_BATCH;
    d.dest_step = r.from_to(1, d.out_w + 3);
    d.dest_width = turn_image * d.dest_step + d.out_w + r.below(20);
    const uint32_t column = turn_image * d.dest_step;
    remember(r);
    top_largest(d, turn_image, am);
    check_am(d.dest_base, d.out_h, d.dest_width, d.dest_pitch, d.dest_group / 4, d.words,
             [&](uint32_t y, uint32_t x, uint32_t w) {
                 return x >= column && x < column + d.out_w
                            ? largest_word(d, y, x - column, w)
                            : am_at(before, d.dest_base, d.dest_width, d.dest_pitch, y, x, d.dest_group / 4 + w);
             });
}

int main(int argc, char **argv)
{
    return run_bench(argc, argv, "input", input) || run_bench(argc, argv, "window", window) ||
           run_bench(argc, argv, "largest", largest) || run_bench(argc, argv, "largest batch", largest_batch);
}
