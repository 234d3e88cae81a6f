/* SPDX-License-Identifier: Apache-2.0
 * Fetch: commands come as they lie in memory, weights as many as they need, nothing behind a section's end or what is wrong. */
#include "hls/test/bench.h"

/** A pass that every geometry accepts, or a TURN; some are wrong, some have no stream. */
static xn::descriptor random_pass(random_source &r)
{
    xn::descriptor d = {};
    const uint32_t ops[] = {XN_ISA_INPUT, XN_ISA_INT8, XN_ISA_LARGEST, XN_ISA_INT8, XN_ISA_BINARY, XN_ISA_TURN};
    d.op = ops[r.below(r.below(2) ? 6 : 5)];
    d.height = d.width = d.out_h = d.out_w = d.stride_h = d.stride_w = d.kernel_h = 1;
    d.kernel_w = r.from_to(1, 3);
    d.words = d.pitch = r.from_to(1, 4);
    d.channels = d.op == XN_ISA_INPUT ? 8 : r.from_to(1, 40);
    d.chunk = r.from_to(1, XN_WB_WORDS);
    d.dest_pitch = 8;
    d.input_row_bytes = 8;
    if (d.op == XN_ISA_LARGEST && r.below(2)) { /* room for two or three images */
        d.flags = XN_ISA_BATCH;
        d.dest_step = 2;
        d.dest_width = r.from_to(3, 5);
    }
    if (d.op == XN_ISA_TURN)
        d.out_w = r.from_to(1, XN_ISA_SIDE_MAX);
    if (r.below(20) == 0)
        d.pitch = d.out_w = 0;
    return d;
}

/** What a section needs, as long as it is: the index of its last descriptor, and of the stream from `at` on. */
static uint32_t check_section(const std::vector<xn::descriptor> &program, uint32_t first, uint32_t turn_image,
                              hls::stream<xn::command> &commands, hls::stream<xn::weight_word> &words, const char *&at)
{
    const xn::geometry g = {XN_P, XN_PI, XN_PR, XN_AM_ROWS, XN_RM_ROWS, XN_WB_WORDS};
    uint32_t i = first;
    for (;; i++) {
        const xn::descriptor &d = program[i];
        const xn::command c = commands.read();
        CHECK_EQUAL(c.index, i);
        CHECK_EQUAL(c.error, xn_isa_check(&d, &g, 64, 0, turn_image));
        CHECK_EQUAL(std::memcmp(&c.d, &d, sizeof(d)), 0);
        if (c.error || d.op == XN_ISA_END || d.op == XN_ISA_TURN)
            break;
        if (d.op != XN_ISA_INT8 && d.op != XN_ISA_BINARY)
            continue;
        for (uint32_t n = (d.channels + 15) / 16 * (4 + d.kernel_w * d.words); n > 0;
             n--, at += sizeof(xn::weight_word)) {
            const xn::weight_word w = words.read();
            CHECK_EQUAL(std::memcmp(&w, at, sizeof(w)), 0);
        }
    }
    CHECK_EQUAL(commands.empty(), true);
    CHECK_EQUAL(words.empty(), true);
    return i;
}

/** Section after section, each from where the one before has stopped. */
static void fetch(random_source &r)
{
    std::vector<xn::descriptor> program(r.from_to(1, 12));
    std::vector<xn::beat> stream(20000);
    for (auto &d : program)
        d = random_pass(r);
    program.back() = xn::descriptor();
    for (auto &b : stream)
        for (auto &w : b.word)
            w = r.bits();

    const char *at = reinterpret_cast<const char *>(stream.data());
    const uint32_t turn_image = r.below(4);
    uint64_t beat = 0;
    for (uint32_t first = 0; first < program.size();) {
        hls::stream<xn::command> commands;
        hls::stream<xn::weight_word> words;
        const uint64_t first_beat = beat;
        top_fetch(xn::in_port<xn::beat>(program.data(), program.size() * sizeof(program[0])),
                  xn::in_port<xn::beat>(stream.data(), stream.size() * sizeof(stream[0])), 64, 0, first, first_beat,
                  turn_image, commands, words, beat);
        first = check_section(program, first, turn_image, commands, words, at) + 1;
        CHECK_EQUAL(beat * sizeof(xn::beat), at - reinterpret_cast<const char *>(stream.data()));
    }
}

/** No END within as many descriptors as there may be; in a tail, from its first. */
static void endless(random_source &r)
{
    xn::descriptor d;
    do
        d = random_pass(r);
    while (d.op != XN_ISA_LARGEST || d.flags || d.pitch == 0);
    const std::vector<xn::descriptor> program(XN_ISA_DESCRIPTORS_MAX, d);
    const uint32_t last_one = XN_ISA_DESCRIPTORS_MAX - 1, firsts[] = {0, r.below(last_one), last_one, last_one + 1};
    for (const uint32_t first : firsts) {
        hls::stream<xn::command> commands;
        hls::stream<xn::weight_word> words;
        uint64_t beat;
        top_fetch(xn::in_port<xn::beat>(program.data(), program.size() * sizeof(d)), xn::in_port<xn::beat>(nullptr, 0),
                  64, 0, first, 7, 0, commands, words, beat);
        for (uint32_t i = first; i < XN_ISA_DESCRIPTORS_MAX; i++)
            CHECK_EQUAL(commands.read().error, XN_ISA_OK);
        const xn::command last = commands.read();
        CHECK_EQUAL(last.error, XN_ISA_ERROR_LENGTH);
        CHECK_EQUAL(last.index, XN_ISA_DESCRIPTORS_MAX);
        CHECK_EQUAL(commands.empty(), true);
        CHECK_EQUAL(beat, 7);
    }
}

int main(int argc, char **argv)
{
    char name[] = "endless", one[] = "1";
    char *once[] = {name, one, nullptr};
    return run_bench(argc, argv, "fetch", fetch) || run_bench(2, once, "endless", endless);
}
