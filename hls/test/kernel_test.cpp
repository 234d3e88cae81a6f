/* SPDX-License-Identifier: Apache-2.0
 * The kernel as Vitis' own C simulation would call it: plain pointers, its static memories. A program that copies the input to the
 * output over INPUT, INT8 and LOGITS, on some images, and one that is wrong. */
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "hls/src/types.h"

extern "C" void xnor_engine(const xn::beat *program, const xn::beat *stream, const xn::beat *input, int32_t *output,
                            uint32_t images, uint32_t input_bytes, uint32_t output_words, int32_t *status);

constexpr uint32_t IMAGES = 9, CHANNELS = 7;

static void check(const char *what, long long got, long long want)
{
    if (got == want)
        return;
    std::fprintf(stderr, "kernel: %s is %lld, not %lld\n", what, got, want);
    std::exit(1);
}

/** One weight of 1 for each channel. */
static void fill_stream(xn_isa_lane lanes[xn::LANES], xn::weight_word &w)
{
    for (uint32_t l = 0; l < xn::LANES; l++) {
        lanes[l].t = -3; /* ML */
        lanes[l].b2 = l; /* BL */
        w.lane[l] = l < CHANNELS ? UINT64_C(1) << 8 * l : 0;
    }
}

static void fill_program(xn::descriptor program[3])
{
    xn::descriptor &in = program[0], &pass = program[1];
    in.op = XN_ISA_INPUT;
    in.height = in.out_w = in.dest_pitch = 1;
    in.channels = in.input_row_bytes = CHANNELS;
    in.dest_base = 5;
    pass.op = XN_ISA_INT8;
    pass.source = XN_ISA_U8;
    pass.flags = XN_ISA_LOGITS;
    pass.height = pass.width = pass.out_h = pass.out_w = pass.kernel_h = pass.kernel_w = 1;
    pass.stride_h = pass.stride_w = pass.pitch = pass.words = pass.chunk = 1;
    pass.base = 5;
    pass.channels = CHANNELS;
}

int main()
{
    alignas(64) static xn::descriptor program[3] = {};
    alignas(64) static struct {
        xn_isa_lane lanes[xn::LANES];
        xn::weight_word w;
    } stream = {};
    alignas(64) static uint8_t input[128];
    static int32_t output[IMAGES * CHANNELS], words[sizeof(xn_isa_status) / 4];
    const auto beats = [](const void *p) { return static_cast<const xn::beat *>(p); };
    xn_isa_status status;

    fill_stream(stream.lanes, stream.w);
    fill_program(program);
    for (uint32_t i = 0; i < sizeof(input); i++)
        input[i] = (uint8_t)(i * 37 + 11);
    xnor_engine(beats(program), beats(&stream), beats(input), output, IMAGES, CHANNELS, CHANNELS, words);
    std::memcpy(&status, words, sizeof(status));
    check("error", status.error, XN_ISA_OK);
    check("image", status.image, IMAGES);
    check("descriptor", status.descriptor, 2);
    check("version", status.version, XN_ISA_MAJOR << 16 | XN_ISA_MINOR);
    check("wb_words", status.wb_words, XN_WB_WORDS);
    for (uint32_t i = 0; i < IMAGES * CHANNELS; i++)
        check("output", output[i], -3 * input[i] + (int32_t)(i % CHANNELS));

    program[1].pitch = 0;
    xnor_engine(beats(program), beats(&stream), beats(input), output, IMAGES, CHANNELS, CHANNELS, words);
    std::memcpy(&status, words, sizeof(status));
    check("error", status.error, XN_ISA_ERROR_SHAPE);
    check("descriptor", status.descriptor, 1);
    check("image", status.image, 0);
    std::printf("kernel: ok\n");
    return 0;
}
