/* SPDX-License-Identifier: Apache-2.0
 * The summing units against products of single elements. */
#include "hls/test/bench.h"

static int bit(uint64_t v, uint32_t i)
{
    return v >> i & 1 ? 1 : -1;
}

static int byte(uint64_t v, uint32_t i, bool is_signed)
{
    const int b = (int)(v >> 8 * i & 0xff);
    return is_signed && b > 127 ? b - 256 : b;
}

/** Whether a pixel is used (mostly), and its sums so far. */
static void random_pixel(random_source &r, bool &used, xn::sums &s)
{
    used = r.below(4) > 0;
    for (auto &sum : s.lane)
        sum = (int32_t)r.of_bits(24);
}

static void binary(random_source &r)
{
    const uint32_t channels = r.from_to(1, 64);
    const uint64_t mask = ~UINT64_C(0) >> (64 - channels);
    uint64_t x[XN_P];
    bool used[XN_P];
    xn::sums s[XN_P], before[XN_P];
    xn::weight_word w = random_weights(r);
    for (auto &lane : w.lane)
        lane &= mask; /* channels that are not there are 0 in both */
    for (uint32_t i = 0; i < XN_P; i++) {
        x[i] = r.word() & mask;
        random_pixel(r, used[i], s[i]);
    }
    std::memcpy(before, s, sizeof(s));
    top_binary(x, used, channels, w, s);
    for (uint32_t i = 0; i < XN_P; i++) {
        for (uint32_t l = 0; l < xn::LANES; l++) {
            int32_t want = before[i].lane[l];
            for (uint32_t c = 0; used[i] && c < channels; c++)
                want += bit(x[i], c) * bit(w.lane[l], c);
            CHECK_EQUAL(s[i].lane[l], want);
        }
    }
}

static void int8(random_source &r)
{
    const uint32_t source = r.below(3);
    const xn::weight_word w = random_weights(r);
    uint64_t x[XN_PI];
    bool used[XN_PI];
    xn::sums s[XN_PI], before[XN_PI];
    for (uint32_t i = 0; i < XN_PI; i++) {
        x[i] = r.word();
        random_pixel(r, used[i], s[i]);
    }
    std::memcpy(before, s, sizeof(s));
    top_int8(x, used, source, w, s);
    for (uint32_t i = 0; i < XN_PI; i++) {
        for (uint32_t l = 0; l < xn::LANES; l++) {
            int32_t want = before[i].lane[l];
            for (uint32_t c = 0; used[i] && c < 8; c++)
                want += (source == XN_ISA_BITS ? bit(x[i], c) : byte(x[i], c, source == XN_ISA_I8)) *
                        byte(w.lane[l], c, true);
            CHECK_EQUAL(s[i].lane[l], want);
        }
    }
}

static int vector_element(uint64_t x, const xn::rm_word &rm, uint32_t source, uint32_t part, uint32_t lane)
{
    if (source == XN_ISA_I16)
        return rm.channel[lane];
    if (source == XN_ISA_BITS)
        return bit(x, 16 * part + lane);
    return byte(x, lane % 8, source == XN_ISA_I8);
}

static void vector(random_source &r)
{
    const uint32_t source = r.below(4);
    const bool bytes = source == XN_ISA_U8 || source == XN_ISA_I8, largest = r.below(2);
    const uint32_t part = source == XN_ISA_BITS ? r.below(4) : bytes ? r.below(2) : 0;
    const xn::weight_word w = random_weights(r);
    const uint64_t x = r.word();
    xn::rm_word rm;
    xn::sums s, before;
    for (uint32_t l = 0; l < xn::LANES; l++) {
        rm.channel[l] = (int16_t)r.of_bits(16);
        s.lane[l] = (int32_t)r.of_bits(16);
    }
    before = s;
    top_vector(x, rm, source, part, largest, w, s);
    for (uint32_t l = 0; l < xn::LANES; l++) {
        const int e = vector_element(x, rm, source, part, l), sum = before.lane[l];
        const bool here = !bytes || l / 8 == part;
        CHECK_EQUAL(s.lane[l], !here ? sum : largest ? (e > sum ? e : sum) : sum + e * byte(w.lane[l], 0, true));
    }
}

int main(int argc, char **argv)
{
    return run_bench(argc, argv, "binary", binary) || run_bench(argc, argv, "int8", int8) ||
           run_bench(argc, argv, "vector", vector);
}
