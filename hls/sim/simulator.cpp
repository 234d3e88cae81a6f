/* SPDX-License-Identifier: Apache-2.0
 * The C simulation as a shared library (xnor_sim.h): the engine of one geometry with memories of its own. What the kernel does
 * (xnor_engine.cpp), with ports that know their bounds. */
#include <cstring>
#include <new>

#include "hls/include/xnor_sim.h"
#include "hls/src/engine.h"

struct xn_sim {
    xn::am_word am[2 * XN_P][XN_AM_ROWS];
    xn::rm_word rm[XN_PR][XN_RM_ROWS];
    xn::weight_word wb[XN_WB_WORDS];
};

static const xn::geometry BUILT = {XN_P, XN_PI, XN_PR, XN_AM_ROWS, XN_RM_ROWS, XN_WB_WORDS};

extern "C" struct xn_sim *xn_sim_open(const struct xn_isa_geometry *geometry, const char **ret_why)
{
    if (std::memcmp(geometry, &BUILT, sizeof(BUILT)) != 0) {
        *ret_why = "this library simulates another geometry";
        return nullptr;
    }
    struct xn_sim *sim = new (std::nothrow) xn_sim();
    if (!sim)
        *ret_why = "out of memory";
    return sim;
}

extern "C" void xn_sim_close(struct xn_sim *sim)
{
    delete sim;
}

extern "C" int xn_sim_run(struct xn_sim *sim, const struct xn_sim_job *job, struct xn_isa_status *ret_status)
{
    const xn::in_port<xn::beat> program(job->program, job->program_count * sizeof(*job->program));
    const xn::in_port<xn::beat> stream(job->stream, job->stream_bytes);
    const xn::in_port<xn::beat> input(job->input, (size_t)job->images * job->input_bytes);
    const xn::out_port<int32_t> output(job->output, (size_t)job->images * job->output_words);
    const xn::registers registers = {job->images, job->input_bytes, job->output_words};
    struct xn_isa_status status;
    int32_t words[sizeof(status) / sizeof(int32_t)];
    try {
        xn::run_images<XN_P, XN_PI, XN_PR, XN_AM_ROWS, XN_RM_ROWS, XN_WB_WORDS>(
            program, stream, input, output, registers, xn::out_port<int32_t>(words, sizeof(words) / sizeof(words[0])),
            sim->am, sim->rm, sim->wb);
    } catch (const xn::port_fault &) {
        return -1;
    } catch (const std::bad_alloc &) {
        return -1;
    }
    std::memcpy(&status, words, sizeof(status));
    *ret_status = status;
    return 0;
}

extern "C" uint64_t xn_sim_am(const struct xn_sim *sim, uint32_t row, uint32_t bank)
{
    return xn::am_load(sim->am[bank][row]);
}

extern "C" void xn_sim_rm(const struct xn_sim *sim, uint32_t row, uint32_t bank, int16_t ret_channels[XN_ISA_LANES])
{
    std::memcpy(ret_channels, sim->rm[bank][row].channel, sizeof(sim->rm[bank][row].channel));
}
