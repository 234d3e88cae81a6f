/* SPDX-License-Identifier: Apache-2.0
 * The kernel as Vitis' own C simulation would call it: plain pointers, its static memories. Programs that copy the input to the
 * output over INPUT, INT8 and LOGITS, on some images: an image at a time, in turns, and one that is wrong. */
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "hls/src/types.h"

extern "C" void xnor_engine(const xn::beat *program, const xn::beat *stream, const xn::beat *input, int32_t *output,
                            uint32_t images, uint32_t input_bytes, uint32_t output_words, int32_t *status);

constexpr uint32_t IMAGES = 9, CHANNELS = 7, TURN = 4;

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

static xn::descriptor input_pass()
{
    xn::descriptor d = {};
    d.op = XN_ISA_INPUT;
    d.height = d.out_w = d.dest_pitch = 1;
    d.channels = d.input_row_bytes = CHANNELS;
    d.dest_base = 5;
    return d;
}

/** A window of one pixel over a map of one row. */
static xn::descriptor pixel_pass(uint32_t op, uint32_t base, uint32_t width)
{
    xn::descriptor d = {};
    d.op = op;
    d.source = XN_ISA_U8;
    d.height = d.out_h = d.kernel_h = d.kernel_w = d.stride_h = d.stride_w = d.pitch = d.words = 1;
    d.width = d.out_w = width;
    d.base = base;
    d.channels = CHANNELS;
    return d;
}

static xn::descriptor logits_pass(uint32_t base, uint32_t width)
{
    xn::descriptor d = pixel_pass(XN_ISA_INT8, base, width);
    d.flags = XN_ISA_LOGITS;
    d.chunk = 1;
    return d;
}

static void fill_program(xn::descriptor program[3])
{
    program[0] = input_pass();
    program[1] = logits_pass(5, 1);
}

/** Each image's pixel goes to a map of TURN pixels; then all their logits at once. */
static void fill_turns(xn::descriptor program[5])
{
    program[0] = input_pass();
    program[1] = pixel_pass(XN_ISA_LARGEST, 5, 1);
    program[1].flags = XN_ISA_BATCH;
    program[1].dest_base = 9;
    program[1].dest_pitch = program[1].dest_step = 1;
    program[1].dest_width = TURN;
    program[2].op = XN_ISA_TURN;
    program[2].out_w = TURN;
    program[3] = logits_pass(9, TURN);
    program[3].flags |= XN_ISA_BATCH;
}

alignas(64) static struct {
    xn_isa_lane lanes[xn::LANES];
    xn::weight_word w;
} stream;
alignas(64) static uint8_t input[128];
static int32_t output[IMAGES * CHANNELS];

static xn_isa_status run(const xn::descriptor *program)
{
    const auto beats = [](const void *p) { return static_cast<const xn::beat *>(p); };
    int32_t words[sizeof(xn_isa_status) / 4];
    xn_isa_status status;
    xnor_engine(beats(program), beats(&stream), beats(input), output, IMAGES, CHANNELS, CHANNELS, words);
    std::memcpy(&status, words, sizeof(status));
    return status;
}

/** The whole program, whose END is descriptor `end`, and the output of all images. */
static void run_whole(const xn::descriptor *program, uint32_t end)
{
    std::memset(output, 0x5a, sizeof(output));
    const xn_isa_status status = run(program);
    check("error", status.error, XN_ISA_OK);
    check("image", status.image, IMAGES);
    check("descriptor", status.descriptor, end);
    check("version", status.version, XN_ISA_MAJOR << 16 | XN_ISA_MINOR);
    check("wb_words", status.wb_words, XN_WB_WORDS);
    for (uint32_t i = 0; i < IMAGES * CHANNELS; i++)
        check("output", output[i], -3 * input[i] + (int32_t)(i % CHANNELS));
}

static void run_wrong(const xn::descriptor *program, uint32_t error, uint32_t descriptor, uint32_t image)
{
    const xn_isa_status status = run(program);
    check("error", status.error, error);
    check("descriptor", status.descriptor, descriptor);
    check("image", status.image, image);
}

int main()
{
    alignas(64) static xn::descriptor program[3] = {}, turns[5] = {};

    fill_stream(stream.lanes, stream.w);
    for (uint32_t i = 0; i < sizeof(input); i++)
        input[i] = (uint8_t)(i * 37 + 11);
    fill_program(program);
    run_whole(program, 2);
    program[1].pitch = 0;
    run_wrong(program, XN_ISA_ERROR_SHAPE, 1, 0);

    fill_turns(turns);
    run_whole(turns, 4); /* turns of 4, 4 and 1 */
    turns[4] = turns[2];
    run_whole(turns, 4); /* a TURN in the tail is an END */
    turns[1].dest_width = TURN - 1;
    run_wrong(turns, XN_ISA_ERROR_DEST, 1, TURN - 1);
    fill_turns(turns);
    turns[3].pitch = 0;
    run_wrong(turns, XN_ISA_ERROR_SHAPE, 3, TURN - 1);
    turns[3].pitch = 1;
    turns[2].out_w = 0;
    run_wrong(turns, XN_ISA_ERROR_SHAPE, 2, 0);
    std::printf("kernel: ok\n");
    return 0;
}
