// SPDX-License-Identifier: Apache-2.0
// hls/include/xnor_sim.h over the Verilated engine: a host that writes registers and waits, and a memory behind the AXI ports.
//
// The memory answers a burst READ_LATENCY cycles after it took its address, a beat a cycle, bursts in order; writes one cycle later. With a
// stall seed every channel's valid and ready come at random, and now and then nothing is read for a while. Each cycle the ports are held to AXI: what is valid stays, unchanged,
// until it is taken; bursts do not cross 4 KB; WLAST stands where it belongs; nothing is under way when the engine says done. The job's
// parts lie far from each other, the input at an odd address if the memory stalls: an access outside of them, or against the
// protocol, ends the run with -1 and a line on stderr. The engine is reset when it is opened and after such a run only: one
// program follows another by registers alone, also after an error.
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <string>

#include "Vxnor_engine.h"
#include "Vxnor_engine__Dpi.h"
#include "svdpi.h"
#include "hls/include/xnor_sim.h"
#include "verilated.h"

namespace {

constexpr uint64_t PROGRAM = 0x100000000, STREAM = 0x200000fc0, INPUT = 0x300000000, OUTPUT = 0x400000014, STATUS = 0x500000fc0;
constexpr unsigned READ_LATENCY = 32, AWAY = 40, AWAY_ONE_IN = 128;
constexpr unsigned BEAT = XN_ISA_BEAT_BYTES;

/** A part of card memory. */
struct region {
    uint64_t at;
    const uint8_t *read;
    uint8_t *write;
    uint64_t bytes;
};

/** valid/payload of a channel that the engine drives: may not change before it is taken. */
struct held {
    bool waits = false;
    std::string payload;
    bool check(bool valid, bool ready, const void *data, size_t bytes)
    {
        bool good = !waits || (valid && payload.compare(0, std::string::npos, static_cast<const char *>(data), bytes) == 0);
        waits = valid && !ready;
        if (waits)
            payload.assign(static_cast<const char *>(data), bytes);
        return good;
    }
};

struct burst {
    uint64_t at, due;
    unsigned beats;
};

} // namespace

struct xn_sim {
    VerilatedContext context;
    std::unique_ptr<Vxnor_engine> top;
    std::deque<burst> reads;
    std::deque<uint64_t> write_addresses, answers;
    std::deque<std::pair<std::string, uint32_t>> write_data;
    region regions[5];
    held ar, aw, w;
    uint64_t cycle = 0, seed = 0;
    unsigned away = 0; /* cycles for which the memory does not read: refresh */
    bool stalls = false, bad = false, hung = true; /* until its first reset */
    unsigned status_beats = 0;
    xn_isa_status status;
};

namespace {

/** A ready or valid of this cycle: always, or at random. */
bool willing(xn_sim *s)
{
    if (!s->stalls)
        return true;
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    s->seed ^= s->seed << 17;
    return s->seed >> 20 & 1;
}

void complain(xn_sim *s, const char *what, uint64_t at)
{
    if (!s->bad)
        fprintf(stderr, "rtl: cycle %llu: %s (%llx)\n", (unsigned long long)s->cycle, what, (unsigned long long)at);
    s->bad = true;
}

void read_beat(xn_sim *s, uint64_t at, uint8_t beat[BEAT])
{
    bool touched = false;

    memset(beat, 0, BEAT);
    for (const region &r : s->regions)
        for (unsigned i = 0; r.read && i < BEAT; i++)
            if (at + i >= r.at && at + i < r.at + r.bytes) {
                beat[i] = r.read[at + i - r.at];
                touched = true;
            }
    if (!touched)
        complain(s, "read outside of the job's memory", at);
}

void write_beat(xn_sim *s, uint64_t at, const std::string &data, uint32_t strobe)
{
    for (unsigned i = 0; i < BEAT; i++) {
        if (!(strobe >> i & 1))
            continue;
        bool touched = false;
        for (const region &r : s->regions)
            if (r.write && at + i >= r.at && at + i < r.at + r.bytes) {
                r.write[at + i - r.at] = static_cast<uint8_t>(data[i]);
                touched = true;
            }
        if (!touched)
            complain(s, "write outside of the job's memory", at + i);
    }
    s->status_beats += at >= STATUS;
}

/** What the memory drives in this cycle. What was valid and not taken stays. */
void drive(xn_sim *s)
{
    Vxnor_engine *t = s->top.get();
    bool r_waits = t->m_axi_rvalid && !t->m_axi_rready, b_waits = t->m_axi_bvalid && !t->m_axi_bready;

    t->m_axi_arready = willing(s);
    t->m_axi_awready = willing(s);
    t->m_axi_wready = willing(s);
    if (s->away)
        s->away--;
    else if (s->stalls && (s->seed >> 32) % AWAY_ONE_IN == 0)
        s->away = AWAY;
    if (!r_waits) {
        t->m_axi_rvalid = !s->away && !s->reads.empty() && s->reads.front().due <= s->cycle && willing(s);
        if (t->m_axi_rvalid) {
            read_beat(s, s->reads.front().at, reinterpret_cast<uint8_t *>(t->m_axi_rdata.data()));
            t->m_axi_rlast = s->reads.front().beats == 1;
        }
    }
    if (!b_waits)
        t->m_axi_bvalid = !s->answers.empty() && s->answers.front() <= s->cycle && willing(s);
}

/** What is taken in this cycle; the engine's outputs have settled. */
void take(xn_sim *s)
{
    Vxnor_engine *t = s->top.get();
    struct {
        uint64_t at;
        uint64_t length;
    } read = {t->m_axi_araddr, t->m_axi_arlen}, write = {t->m_axi_awaddr, t->m_axi_awlen};
    std::string data(reinterpret_cast<const char *>(t->m_axi_wdata.data()), BEAT);

    data.append(reinterpret_cast<const char *>(&t->m_axi_wstrb), sizeof(uint32_t));
    if (!s->ar.check(t->m_axi_arvalid, t->m_axi_arready, &read, sizeof(read)) ||
        !s->aw.check(t->m_axi_awvalid, t->m_axi_awready, &write, sizeof(write)) ||
        !s->w.check(t->m_axi_wvalid, t->m_axi_wready, data.data(), data.size()))
        complain(s, "AXI: valid or its payload changed before ready", 0);
    if (t->m_axi_arvalid && t->m_axi_arready) {
        if (read.at % BEAT || read.at / 4096 != (read.at + (read.length + 1) * BEAT - 1) / 4096)
            complain(s, "AXI: read burst not aligned or across 4 KB", read.at);
        s->reads.push_back({read.at, s->cycle + READ_LATENCY, static_cast<unsigned>(read.length) + 1});
    }
    if (t->m_axi_rvalid && t->m_axi_rready) {
        s->reads.front().at += BEAT;
        if (--s->reads.front().beats == 0)
            s->reads.pop_front();
    }
    if (t->m_axi_awvalid && t->m_axi_awready) {
        if (write.at % BEAT || write.length)
            complain(s, "AXI: write not a single aligned beat", write.at);
        s->write_addresses.push_back(write.at);
    }
    if (t->m_axi_wvalid && t->m_axi_wready) {
        if (!t->m_axi_wlast)
            complain(s, "AXI: WLAST missing", 0);
        s->write_data.push_back({data.substr(0, BEAT), t->m_axi_wstrb});
    }
    if (t->m_axi_bvalid && t->m_axi_bready)
        s->answers.pop_front();
    while (!s->write_addresses.empty() && !s->write_data.empty()) {
        write_beat(s, s->write_addresses.front(), s->write_data.front().first, s->write_data.front().second);
        s->write_addresses.pop_front();
        s->write_data.pop_front();
        s->answers.push_back(s->cycle + 1);
    }
}

void tick(xn_sim *s)
{
    drive(s);
    s->top->clk = 0;
    s->top->eval();
    take(s);
    s->top->clk = 1;
    s->top->eval();
    s->cycle++;
}

void reset(xn_sim *s)
{
    s->reads.clear();
    s->write_addresses.clear();
    s->write_data.clear();
    s->answers.clear();
    s->ar = s->aw = s->w = held();
    s->bad = s->hung = false;
    s->top->m_axi_rvalid = s->top->m_axi_bvalid = 0;
    s->top->rst = 1;
    tick(s);
    tick(s);
    s->top->rst = 0;
}

void write_register(xn_sim *s, unsigned at, uint32_t value)
{
    Vxnor_engine *t = s->top.get();
    bool taken = false;

    t->s_axi_control_awaddr = at & 0x7f;
    t->s_axi_control_wdata = value;
    t->s_axi_control_wstrb = 15;
    t->s_axi_control_awvalid = t->s_axi_control_wvalid = t->s_axi_control_bready = 1;
    while (!taken) {
        t->eval();
        taken = t->s_axi_control_awready && t->s_axi_control_wready;
        tick(s);
    }
    t->s_axi_control_awvalid = t->s_axi_control_wvalid = 0;
}

void write_address(xn_sim *s, unsigned at, uint64_t value)
{
    write_register(s, at, static_cast<uint32_t>(value));
    write_register(s, at + 4, static_cast<uint32_t>(value >> 32));
}

uint32_t read_register(xn_sim *s, unsigned at)
{
    Vxnor_engine *t = s->top.get();

    t->s_axi_control_araddr = at & 0x7f;
    t->s_axi_control_arvalid = 1;
    t->s_axi_control_rready = 0;
    while (!t->s_axi_control_rvalid) {
        tick(s);
        t->s_axi_control_arvalid = 0;
    }
    uint32_t value = t->s_axi_control_rdata;
    t->s_axi_control_rready = 1;
    tick(s);
    t->s_axi_control_rready = 0;
    return value;
}

uint64_t peek(const xn_sim *s, const std::string &memory, uint32_t row, uint32_t part)
{
    Verilated::threadContextp(const_cast<VerilatedContext *>(&s->context));
    svSetScope(svGetScopeFromName(("TOP.xnor_engine." + memory).c_str()));
    return static_cast<uint64_t>(xn_ram_peek(static_cast<int>(row), static_cast<int>(part)));
}

} // namespace

xn_sim *xn_sim_open(const xn_isa_geometry *g, const char **ret_why)
{
    if (g->p != XN_P || g->pi != XN_PI || g->pr != XN_PR || g->am_rows != XN_AM_ROWS || g->rm_rows != XN_RM_ROWS ||
        g->wb_words != XN_WB_WORDS) {
        *ret_why = "Verilated for another geometry";
        return nullptr;
    }
    auto *s = new xn_sim;
    s->top = std::make_unique<Vxnor_engine>(&s->context);
    return s;
}

void xn_sim_close(xn_sim *s)
{
    delete s;
}

int xn_sim_run(xn_sim *s, const xn_sim_job *job, xn_isa_status *ret_status)
{
    auto bytes = [](const void *p) { return static_cast<const uint8_t *>(p); };

    const uint64_t odd = job->stall_seed ? 13 : 0;

    s->regions[0] = {PROGRAM, bytes(job->program), nullptr, job->program_count * XN_ISA_DESCRIPTOR_BYTES};
    s->regions[1] = {STREAM, bytes(job->stream), nullptr, job->stream_bytes};
    s->regions[2] = {INPUT + odd, bytes(job->input), nullptr, static_cast<uint64_t>(job->input_bytes) * job->images};
    s->regions[3] = {OUTPUT, nullptr, reinterpret_cast<uint8_t *>(job->output), 4ull * job->output_words * job->images};
    s->regions[4] = {STATUS, nullptr, reinterpret_cast<uint8_t *>(&s->status), sizeof(s->status)};
    s->stalls = job->stall_seed != 0;
    s->seed = job->stall_seed * 0x9e3779b97f4a7c15ull | 1;
    if (s->bad || s->hung)
        reset(s);
    s->status_beats = 0;
    write_address(s, XN_ISA_REG_PROGRAM, PROGRAM);
    write_address(s, XN_ISA_REG_STREAM, STREAM);
    write_address(s, XN_ISA_REG_INPUT, INPUT + odd);
    write_address(s, XN_ISA_REG_OUTPUT, OUTPUT);
    write_register(s, XN_ISA_REG_IMAGES, job->images);
    write_register(s, XN_ISA_REG_INPUT_BYTES, job->input_bytes);
    write_register(s, XN_ISA_REG_OUTPUT_WORDS, job->output_words);
    write_address(s, XN_ISA_REG_STATUS, STATUS);
    write_register(s, XN_ISA_REG_CONTROL, 1);
    if (s->stalls) /* a start in the very next cycle, when the engine still says idle, starts nothing */
        write_register(s, XN_ISA_REG_CONTROL, 1);
    uint64_t limit = s->cycle + (job->cycles_max ? job->cycles_max : ~0ull >> 1);
    while (s->status_beats < 2 && !s->bad && s->cycle < limit)
        tick(s);
    while (!s->bad && s->cycle < limit && !(read_register(s, XN_ISA_REG_CONTROL) & 2))
        ;
    s->hung = s->cycle >= limit;
    if (!s->reads.empty() || !s->write_addresses.empty() || !s->write_data.empty())
        complain(s, "done with a read or a write under way", s->cycle);
    if (s->bad || s->hung)
        return -1;
    *ret_status = s->status;
    return 0;
}

uint64_t xn_sim_am(const xn_sim *s, uint32_t row, uint32_t bank)
{
    return peek(s, "am[" + std::to_string(bank) + "].bank", row, 0);
}

void xn_sim_rm(const xn_sim *s, uint32_t row, uint32_t bank, int16_t ret_channels[XN_ISA_LANES])
{
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t part = peek(s, "rm", row, 4 * bank + i);
        memcpy(ret_channels + 4 * i, &part, 8);
    }
}
