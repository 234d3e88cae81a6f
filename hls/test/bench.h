/* SPDX-License-Identifier: Apache-2.0
 * What the units' test benches share: seeded random numbers that like extremes, and the loop over seeds. A bench is a function
 * of a seed that compares a top with loops over the definition; the first difference ends it with the seed to repeat it. */
#ifndef XN_HLS_TEST_BENCH_H
#define XN_HLS_TEST_BENCH_H

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "hls/test/tops.h"

#define CHECK_EQUAL(got, want)                                                                                         \
    do {                                                                                                               \
        const long long got_ = (long long)(got), want_ = (long long)(want);                                            \
        if (got_ != want_) {                                                                                           \
            std::fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #got, got_, want_);              \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

class random_source
{
    uint64_t state;

  public:
    explicit random_source(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15u + 1)
    {
    }
    uint64_t bits() /* splitmix64 */
    {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    uint32_t below(uint32_t n)
    {
        return (uint32_t)(bits() % n);
    }
    uint32_t from_to(uint32_t least, uint32_t most)
    {
        return least + below(most - least + 1);
    }
    /** A signed value of `n` bits: often the least, the most, 0 or -1. */
    int64_t of_bits(uint32_t n)
    {
        const int64_t most = (int64_t)((UINT64_C(1) << (n - 1)) - 1);
        const int64_t extremes[] = {most, -most - 1, 0, -1};
        return below(4) ? (int64_t)bits() >> (64 - n) : extremes[below(4)];
    }
    /** Words of random bits, sometimes all 0 or all 1. */
    uint64_t word()
    {
        const uint32_t kind = below(8);
        return kind == 0 ? 0 : kind == 1 ? ~UINT64_C(0) : bits();
    }
};

inline xn::weight_word random_weights(random_source &r)
{
    xn::weight_word w;
    for (uint32_t l = 0; l < xn::LANES; l++)
        w.lane[l] = r.word();
    return w;
}

inline void random_am(random_source &r, am_memory &am)
{
    for (auto &bank : am)
        for (auto &row : bank)
            for (auto &quarter : row)
                quarter = (uint16_t)r.bits();
}

/** Word `word` of pixel (y, x), as xnor_isa.h says where it lies. */
inline uint64_t am_at(const am_memory &am, uint32_t base, uint32_t width, uint32_t pitch, uint32_t y, uint32_t x,
                      uint32_t word)
{
    const uint32_t banks = 2 * XN_P, row = base + (y * ((width + banks - 1) / banks) + x / banks) * pitch + word;
    uint64_t v;
    std::memcpy(&v, am[x % banks][row], sizeof(v));
    return v;
}

/** usage: bench [SEEDS [FIRST]] */
inline int run_bench(int argc, char **argv, const char *name, void (*bench)(random_source &))
{
    const unsigned long n = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 100;
    const unsigned long first = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1;
    static unsigned long seed;
    std::atexit([] {
        if (seed)
            std::fprintf(stderr, "seed %lu failed\n", seed);
    });
    for (seed = first; seed < first + n; seed++) {
        random_source r(seed);
        bench(r);
    }
    seed = 0;
    std::printf("%s: seeds %lu..%lu ok\n", name, first, first + n - 1);
    return 0;
}

#endif
