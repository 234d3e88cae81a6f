/* SPDX-License-Identifier: Apache-2.0
 * Post lanes and writers: a tile of random sums through random flags, parameters at their extremes, against the text of xnor_isa.h in exact
 * integers of 128 bits. */
#include "hls/test/bench.h"

__extension__ typedef __int128 wide;

static am_memory am, am_want;
static rm_memory rm, rm_want;

static wide limit(wide v, int64_t least, int64_t most)
{
    return v < least ? least : v > most ? most : v;
}

/** floor((m * v + b) / 2^n + 1/2), by a division that rounds down. */
static wide rounded(wide m, wide v, wide b, uint32_t n)
{
    const wide one = (wide)1 << n, sum = m * v + b + (n > 0 ? one / 2 : 0);
    return sum >= 0 ? sum / one : -((-sum + one - 1) / one);
}

static xn_isa_lane random_lane(random_source &r)
{
    xn_isa_lane p = {};
    p.b1 = r.of_bits(r.below(2) ? 48 : 24);
    p.b2 = r.of_bits(r.below(2) ? 48 : 24);
    p.t = (int32_t)r.of_bits(r.below(2) ? 32 : 12);
    p.m1 = (int32_t)r.of_bits(18);
    p.m2 = (int16_t)r.of_bits(16);
    p.a = (int16_t)r.of_bits(16);
    p.d = (int16_t)r.of_bits(16);
    p.k = (uint8_t)r.below(16);
    return p;
}

static wide value_of(const xn::descriptor &d, const xn_isa_lane &p, int32_t sum, int16_t residual)
{
    wide v = sum;
    if (d.flags & XN_ISA_SCALE)
        v = rounded(p.m1, v, p.b1, d.shift & 0xff);
    if (d.flags & XN_ISA_RESIDUAL)
        v += residual;
    if (d.flags & XN_ISA_SATURATE)
        v = limit(v, INT16_MIN, INT16_MAX);
    if (d.flags & XN_ISA_RPRELU) {
        const wide t = v + p.a;
        v = limit((t >= 0 ? t : rounded(1, 2 * t - (1 << p.k), 0, p.k + 1u)) + p.d, INT16_MIN, INT16_MAX);
    }
    return v;
}

static xn::descriptor random_descriptor(random_source &r)
{
    const uint32_t outs[] = {0, XN_ISA_SIGN, XN_ISA_QUANTIZE, XN_ISA_QUANTIZE | XN_ISA_UNSIGNED, XN_ISA_LOGITS};
    xn::descriptor d = {};
    /* ranges as programs keep them: sums and what follows fit the lanes where SATURATE is set */
    d.flags = (r.below(2) ? XN_ISA_SCALE : 0) | XN_ISA_SATURATE | (r.below(2) ? XN_ISA_RESIDUAL : 0) |
              (r.below(2) ? XN_ISA_RPRELU : 0) | (r.below(2) ? XN_ISA_STORE : 0) | outs[r.below(5)];
    d.shift = r.below(31) | r.below(31) << 8;
    d.out_h = r.from_to(1, 4);
    d.out_w = r.from_to(1, 20);
    d.channels = r.from_to(1, 80);
    d.stream_pitch = d.residual_pitch = 5;
    d.stream_base = 40;
    d.residual_base = r.below(2) ? d.stream_base : 500; /* in place, or elsewhere */
    d.dest_group = r.below(6);
    d.dest_pitch = 24;
    d.dest_base = r.below(30);
    return d;
}

static int16_t *rm_at(rm_memory &m, uint32_t base, uint32_t width, uint32_t pitch, uint32_t y, uint32_t x,
                      uint32_t group)
{
    return m[x % XN_PR][base + (y * ((width + XN_PR - 1) / XN_PR) + x / XN_PR) * pitch + group].channel;
}

static void set_byte(const xn::descriptor &d, uint32_t y, uint32_t x, uint32_t byte, uint32_t v, uint32_t mask)
{
    const uint32_t banks = 2 * XN_P;
    const uint32_t row = d.dest_base + (y * ((d.out_w + banks - 1) / banks) + x / banks) * d.dest_pitch + byte / 8;
    uint16_t &quarter = am_want[x % banks][row][byte % 8 / 2];
    const uint32_t at = 8 * (byte & 1);
    quarter = (uint16_t)((quarter & ~(mask << at)) | v << at);
}

/** What a pixel's channel leaves behind. */
static void want_channel(const xn::descriptor &d, const xn_isa_lane &p, const xn::tile_at &at, uint32_t x, uint32_t l,
                         int32_t sum, std::vector<std::pair<uint32_t, int32_t>> &logits)
{
    const uint32_t c = at.group * 16 + l, to = (d.dest_group + at.group) * 16 + l;
    const bool there = c < d.channels;
    const wide v =
        there ? value_of(d, p, sum, rm_at(rm, d.residual_base, d.out_w, d.residual_pitch, at.y, x, at.group)[l]) : 0;
    if (d.flags & XN_ISA_STORE)
        rm_at(rm_want, d.stream_base, d.out_w, d.stream_pitch, at.y, x, at.group)[l] = (int16_t)v;
    if (d.flags & XN_ISA_SIGN)
        set_byte(d, at.y, x, to / 8, (there && v >= p.t ? 1u : 0) << to % 8, 1u << to % 8);
    if (d.flags & XN_ISA_SIGN && to % 64 == 15) /* the first group of a word clears the others */
        for (uint32_t byte = to / 64 * 8 + 2; byte < to / 64 * 8 + 8; byte++)
            set_byte(d, at.y, x, byte, 0, 0xff);
    if (d.flags & XN_ISA_QUANTIZE) {
        const wide q = rounded(p.m2, v, p.b2, d.shift >> 8);
        const wide limited = d.flags & XN_ISA_UNSIGNED ? limit(q, 0, 255) : limit(q, -128, 127);
        set_byte(d, at.y, x, to, there ? (uint8_t)limited : 0, 0xff);
    }
    if (d.flags & XN_ISA_LOGITS && there)
        logits.push_back({(at.y * d.out_w + x) * d.channels + c, (int32_t)(uint32_t)(p.t * v + p.b2)});
}

static void post(random_source &r)
{
    const xn::descriptor d = random_descriptor(r);
    const uint32_t tiles[] = {1, XN_PI, XN_P}, tile = tiles[r.below(3)];
    const xn::tile_at at = {r.below((d.channels + 15) / 16), r.below(d.out_h), r.below(d.out_w) / tile * tile};
    std::vector<std::pair<uint32_t, int32_t>> want;
    xn_isa_lane lanes[xn::LANES];
    xn::weight_word words[xn::POST_WORDS];
    xn::sums held[XN_P];
    hls::stream<xn::logit> logits;
    random_am(r, am);
    for (auto &bank : rm)
        for (auto &row : bank)
            for (auto &c : row.channel)
                c = (int16_t)r.of_bits(16);
    std::memcpy(am_want, am, sizeof(am));
    std::memcpy(rm_want, rm, sizeof(rm));
    for (auto &lane : lanes)
        lane = random_lane(r);
    std::memcpy(words, lanes, sizeof(words));
    for (auto &pixel : held)
        for (auto &sum : pixel.lane)
            sum = (int32_t)r.of_bits(d.flags & XN_ISA_SCALE ? 24 : 18);

    for (uint32_t i = 0; i < tile && at.x + i < d.out_w; i++)
        for (uint32_t l = 0; l < xn::LANES; l++)
            want_channel(d, lanes[l], at, at.x + i, l, held[i].lane[l], want);
    for (uint32_t part = 0; part < xn::post_parts<XN_PR>(d, tile); part++)
        top_post(d, words, at, tile, part, held, am, rm, logits);

    CHECK_EQUAL(std::memcmp(rm, rm_want, sizeof(rm)), 0);
    CHECK_EQUAL(std::memcmp(am, am_want, sizeof(am)), 0);
    for (const auto &z : want) {
        const xn::logit got = logits.read();
        CHECK_EQUAL(got.index, z.first);
        CHECK_EQUAL(got.value, z.second);
    }
    CHECK_EQUAL(logits.empty(), true);
}

int main(int argc, char **argv)
{
    return run_bench(argc, argv, "post", post);
}
