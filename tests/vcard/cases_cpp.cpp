/* SPDX-License-Identifier: Apache-2.0
 * What only XRT's C++ API has: aborting, raw addresses as arguments; and reset, which is looked up in the driver. */
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <dlfcn.h>
#include <string>
#include <thread>
#include <vector>

#include <experimental/xrt_system.h>
#include <experimental/xrt_xclbin.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include "accel/vcard/protocol.h"
#include "tests/vcard/bed.h"

namespace
{
constexpr unsigned SHORT_MS = 300;
constexpr unsigned LONG_MS = 60000;
constexpr std::size_t PAGE = 4096; /* see bed.c */

/* A unit with an END program. */
struct unit {
    xrt::kernel kernel;
    xrt::bo program, other, status;
    xrt::run run;

    unit(const xrt::device &device, const xrt::uuid &uuid, int index)
        : kernel(device, uuid, "xnor_engine:{xnor_engine_" + std::to_string(index + 1) + "}"),
          program(device, PAGE, xrt::bo::flags::normal, static_cast<unsigned>(kernel.group_id(ARG_PROGRAM))),
          other(device, PAGE, xrt::bo::flags::normal, static_cast<unsigned>(kernel.group_id(ARG_INPUT))),
          status(device, PAGE, xrt::bo::flags::normal, static_cast<unsigned>(kernel.group_id(ARG_STATUS))), run(kernel)
    {
        std::memset(program.map(), 0, PAGE);
        program.sync(XCL_BO_SYNC_BO_TO_DEVICE);
        run.set_arg(ARG_PROGRAM, program);
        run.set_arg(ARG_STREAM, other);
        run.set_arg(ARG_INPUT, other);
        run.set_arg(ARG_OUTPUT, other);
        run.set_arg(ARG_IMAGES, 0u);
        run.set_arg(ARG_INPUT_BYTES, 0u);
        run.set_arg(ARG_OUTPUT_WORDS, 0u);
        run.set_arg(ARG_STATUS, status);
    }
};

void reset(const xrt::device &device)
{
    void *driver = dlopen("libxrt_core.so.2", RTLD_NOW | RTLD_NOLOAD);
    CHECK(driver, "%s", dlerror());
    const auto function = reinterpret_cast<int (*)(xclDeviceHandle, xclResetKind)>(
        dlsym(driver, "_Z22xclInternalResetDevicePv12xclResetKind"));
    CHECK(function, "%s", dlerror());
    const int r = function(device, XCL_USER_RESET);
    CHECK(r == 0, "error %d", r);
    dlclose(driver);
}
} // namespace

/* reset, --fault hang@3, two units: the hung run aborts, and both units run again. */
extern "C" int case_reset(int, char **)
{
    xrt::device device(0u);
    const xrt::uuid uuid = device.load_xclbin(std::string(std::getenv(XN_VCARD_ENV_XCLBIN)));
    unit first(device, uuid, 0), second(device, uuid, 1);

    CHECK(device.get_info<xrt::info::device::name>() == XN_VCARD_PLATFORM, "name");
    for (unit *u : {&first, &second}) {
        u->run.start();
        CHECK(u->run.wait(LONG_MS) == ERT_CMD_STATE_COMPLETED, "state %d", u->run.state());
    }
    first.run.start();
    CHECK(first.run.wait(SHORT_MS) == ERT_CMD_STATE_TIMEOUT, "state %d", first.run.state());
    reset(device);
    CHECK(first.run.wait(LONG_MS) == ERT_CMD_STATE_ABORT, "state %d", first.run.state());
    for (unit *u : {&first, &second}) {
        u->run.start();
        CHECK(u->run.wait(LONG_MS) == ERT_CMD_STATE_COMPLETED, "state %d", u->run.state());
    }
    return 0;
}

/* devices: as many as there are cards; registers of a unit that is one's own. */
extern "C" int case_devices(int, char **)
{
    const unsigned cards = static_cast<unsigned>(std::stoul(std::getenv(XN_VCARD_ENV_CARDS)));
    CHECK(xrt::system::enumerate_devices() == cards, "%u devices", xrt::system::enumerate_devices());
    for (unsigned i = 0; i < cards; i++) {
        xrt::device device(i);
        const xrt::xclbin xclbin(std::string(std::getenv(XN_VCARD_ENV_XCLBIN)));
        CHECK(xclbin.get_xsa_name() == XN_VCARD_PLATFORM, "platform");
        const xrt::uuid uuid = device.load_xclbin(xclbin);
        CHECK(uuid == xclbin.get_uuid() && uuid == device.get_xclbin_uuid(), "uuid");
        xrt::kernel kernel(device, uuid, "xnor_engine:{xnor_engine_1}", xrt::kernel::cu_access_mode::exclusive);
        CHECK(kernel.offset(ARG_STATUS) == XN_ISA_REG_STATUS, "offset %x", kernel.offset(ARG_STATUS));
        kernel.write_register(XN_ISA_REG_IMAGES, 7);
        CHECK(kernel.read_register(XN_ISA_REG_IMAGES) == 7, "register");
        CHECK(kernel.read_register(XN_ISA_REG_CONTROL) == XN_VCARD_CTRL_IDLE, "control");
    }
    return 0;
}

namespace
{
/* Run after run until `ends`; what does not end in time is aborted. Counts those that completed. */
void run_until(const std::atomic<bool> &ends, unit &u, std::atomic<unsigned> &completed)
{
    while (!ends) {
        u.run.start();
        auto state = u.run.wait(50);
        if (state == ERT_CMD_STATE_TIMEOUT) {
            u.run.abort();
            state = u.run.wait(LONG_MS); /* XRT itself takes the run for running until then, and start() would throw */
        }
        CHECK(state == ERT_CMD_STATE_COMPLETED || state == ERT_CMD_STATE_ABORT, "state %d", state);
        completed += state == ERT_CMD_STATE_COMPLETED;
    }
}
} // namespace

/* storm, four units, --fault hang@20,lost@30,slow@15: runs, aborts and resets at once; at the end every unit still runs. */
extern "C" int case_storm(int, char **)
{
    xrt::device device(0u);
    const xrt::uuid uuid = device.load_xclbin(std::string(std::getenv(XN_VCARD_ENV_XCLBIN)));
    std::array<unit, 4> units = {unit(device, uuid, 0), unit(device, uuid, 1), unit(device, uuid, 2),
                                 unit(device, uuid, 3)};
    std::array<std::atomic<unsigned>, 4> completed = {};
    std::atomic<bool> ends = false;
    std::vector<std::thread> threads;

    for (std::size_t i = 0; i < units.size(); i++)
        threads.emplace_back([&, i] { run_until(ends, units[i], completed[i]); });
    for (int i = 0; i < 60; i++) {
        std::this_thread::sleep_for(std::chrono::milliseconds(40));
        reset(device);
    }
    ends = true;
    for (auto &thread : threads)
        thread.join();
    for (std::size_t i = 0; i < units.size(); i++) {
        CHECK(completed[i] > 0, "unit %zu", i);
        auto state = ERT_CMD_STATE_ABORT;
        for (int attempt = 0; attempt < 10 && state != ERT_CMD_STATE_COMPLETED; attempt++) {
            reset(device);
            if (attempt > 0)
                units[i].run.wait(LONG_MS); /* the one before, aborted by the reset */
            units[i].run.start();
            state = units[i].run.wait(SHORT_MS);
        }
        CHECK(state == ERT_CMD_STATE_COMPLETED, "unit %zu: state %d", i, state);
    }
    std::printf("# %u, %u, %u, %u runs completed\n", completed[0].load(), completed[1].load(), completed[2].load(),
                completed[3].load());
    return 0;
}

namespace
{
/* A host that goes on whatever its card does. */
struct soaker {
    unsigned card, completed = 0, timeouts = 0, aborts = 0, reopened = 0;

    explicit soaker(unsigned index) : card(index)
    {
    }

    /* Until `runs` have completed, or the card dies. */
    void use(unsigned runs)
    {
        xrt::device device(card);
        const xrt::uuid uuid = device.load_xclbin(std::string(std::getenv(XN_VCARD_ENV_XCLBIN)));
        unit units[] = {unit(device, uuid, 0), unit(device, uuid, 1)};

        while (completed < runs) {
            bool late = false;
            for (unit &u : units)
                u.run.start();
            for (unit &u : units) {
                auto state = u.run.wait(100);
                if (state == ERT_CMD_STATE_TIMEOUT) {
                    late = true;
                    timeouts++;
                    reset(device);
                    state = u.run.wait(LONG_MS);
                }
                completed += state == ERT_CMD_STATE_COMPLETED;
                aborts += state == ERT_CMD_STATE_ABORT;
            }
            for (unit &u : units)
                u.status.sync(XCL_BO_SYNC_BO_FROM_DEVICE); /* throws where the card is dead */
            if (!late)
                CHECK(units[0].status.map<xn_isa_status *>()->error == XN_ISA_OK, "error");
        }
    }

    void soak(unsigned runs)
    {
        while (completed < runs) {
            try {
                use(runs);
            } catch (const std::exception &) { /* dead, or not back yet */
                reopened++;
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
            }
        }
    }
};
} // namespace

/* soak, two cards of two units, --fault hang@50,crash@200,lost@70,slow@40: each card completes its runs. */
extern "C" int case_soak(int, char **)
{
    std::array<soaker, 2> soakers = {soaker(0), soaker(1)};
    std::vector<std::thread> threads;

    for (soaker &s : soakers)
        threads.emplace_back([&s] { s.soak(1500); });
    for (std::thread &thread : threads)
        thread.join();
    for (const soaker &s : soakers) {
        std::printf("# card %u: %u completed, %u timed out, %u aborted, %u attempts to open again\n", s.card,
                    s.completed, s.timeouts, s.aborts, s.reopened);
        CHECK(s.timeouts > 10 && s.aborts > 10 && s.reopened > 2, "too few faults");
    }
    return 0;
}

/* abort, --fault hang@2: the hung run aborts; the unit takes no more before a reset. */
extern "C" int case_abort(int, char **)
{
    xrt::device device(0u);
    const xrt::uuid uuid = device.load_xclbin(std::string(std::getenv(XN_VCARD_ENV_XCLBIN)));
    unit u(device, uuid, 0);

    u.run.start();
    CHECK(u.run.wait(LONG_MS) == ERT_CMD_STATE_COMPLETED, "state %d", u.run.state());
    u.run.start();
    CHECK(u.run.wait(SHORT_MS) == ERT_CMD_STATE_TIMEOUT, "state %d", u.run.state());
    const auto state = u.run.abort();
    CHECK(state == ERT_CMD_STATE_ABORT, "state %d", state);
    u.run.start();
    CHECK(u.run.wait(SHORT_MS) == ERT_CMD_STATE_TIMEOUT, "state %d", u.run.state());
    CHECK(u.run.abort() == ERT_CMD_STATE_ABORT, "one that waits for the unit");
    reset(device);
    u.run.start();
    CHECK(u.run.wait(LONG_MS) == ERT_CMD_STATE_COMPLETED, "state %d", u.run.state());
    return 0;
}

/* lost-abort, --fault lost@2: the unit of a run whose interrupt was lost is free after an abort. */
extern "C" int case_lost_abort(int, char **)
{
    xrt::device device(0u);
    const xrt::uuid uuid = device.load_xclbin(std::string(std::getenv(XN_VCARD_ENV_XCLBIN)));
    unit u(device, uuid, 0);

    for (int i = 0; i < 3; i++) {
        u.run.start();
        CHECK(u.run.wait(LONG_MS) == ERT_CMD_STATE_COMPLETED, "state %d", u.run.state());
        u.run.start();
        CHECK(u.run.wait(SHORT_MS) == ERT_CMD_STATE_TIMEOUT, "state %d", u.run.state());
        CHECK(u.run.abort() == ERT_CMD_STATE_ABORT, "state %d", u.run.state());
        u.run.wait(LONG_MS);
    }
    return 0;
}

namespace
{
using addresses = std::array<std::uint64_t, 5>; /* of program, stream, input, output, status */

struct sizes {
    std::uint32_t images, input_bytes, output_words;
};

/* Addresses straight into the registers. */
void run_raw(unit &u, const addresses &a, const sizes &s)
{
    const int arguments[] = {ARG_PROGRAM, ARG_STREAM, ARG_INPUT, ARG_OUTPUT, ARG_STATUS};

    for (std::size_t i = 0; i < a.size(); i++)
        u.run.set_arg(arguments[i], a[i]);
    u.run.set_arg(ARG_IMAGES, s.images);
    u.run.set_arg(ARG_INPUT_BYTES, s.input_bytes);
    u.run.set_arg(ARG_OUTPUT_WORDS, s.output_words);
    u.run.start();
    CHECK(u.run.wait(LONG_MS) == ERT_CMD_STATE_COMPLETED, "state %d", u.run.state());
}

void expect_bus_error(unit &u, addresses a, std::size_t wrong, std::uint64_t address, const sizes &s,
                      std::uint32_t offset)
{
    auto *const status = u.status.map<xn_isa_status *>();

    a[wrong] = address;
    std::memset(status, 0xee, sizeof(*status));
    u.status.sync(XCL_BO_SYNC_BO_TO_DEVICE);
    run_raw(u, a, s);
    u.status.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
    CHECK(status->error == XN_VCARD_ERROR_BUS && status->descriptor == offset,
          "address %llx as argument %zu: error %x, register %x", static_cast<unsigned long long>(address), wrong,
          status->error, status->descriptor);
}

/* A pass that reads stream. */
xn_isa_descriptor reading_pass()
{
    xn_isa_descriptor d = {};

    d.op = XN_ISA_BINARY;
    d.flags = XN_ISA_SIGN;
    d.height = d.width = d.pitch = d.words = d.kernel_h = d.kernel_w = d.stride_h = d.stride_w = d.out_h = d.out_w = 1;
    d.channels_in = 64;
    d.channels = 16;
    d.chunk = d.dest_pitch = 1;
    return d;
}
} // namespace

/* addresses, 64 MiB: each outside of memory, at its end, misaligned; sizes beyond it. The card goes on. */
extern "C" int case_addresses(int, char **)
{
    xrt::device device(0u);
    const xrt::uuid uuid = device.load_xclbin(std::string(std::getenv(XN_VCARD_ENV_XCLBIN)));
    unit u(device, uuid, 0);
    const addresses good = {u.program.address(), u.other.address(), u.other.address(), u.other.address(),
                            u.status.address()};
    const std::uint64_t end = XN_VCARD_MEMORY_BASE + (std::uint64_t(64) << 20);
    const std::uint32_t most = UINT32_MAX;

    expect_bus_error(u, good, 0, 0, {0, 0, 0}, XN_ISA_REG_PROGRAM);
    expect_bus_error(u, good, 0, UINT64_MAX - 63, {0, 0, 0}, XN_ISA_REG_PROGRAM);
    expect_bus_error(u, good, 0, end - 64, {0, 0, 0}, XN_ISA_REG_PROGRAM);
    expect_bus_error(u, good, 0, good[0] + 4, {0, 0, 0}, XN_ISA_REG_PROGRAM);
    expect_bus_error(u, good, 1, 32, {0, 0, 0}, XN_ISA_REG_STREAM);
    expect_bus_error(u, good, 2, end - 10, {1, 11, 0}, XN_ISA_REG_INPUT);
    expect_bus_error(u, good, 2, good[2], {most, most, 0}, XN_ISA_REG_INPUT);
    expect_bus_error(u, good, 3, 4, {1, 0, 1}, XN_ISA_REG_OUTPUT);
    expect_bus_error(u, good, 3, good[3], {most, 0, most}, XN_ISA_REG_OUTPUT);
    expect_bus_error(u, good, 3, good[3], {0x80000000u, 0, 0x80000000u}, XN_ISA_REG_OUTPUT);
    expect_bus_error(u, good, 3, good[3] + 2, {1, 0, 1}, XN_ISA_REG_OUTPUT);
    run_raw(u, {good[0], good[1], good[2], good[3], 0}, {0, 0, 0}); /* no status to write */
    const xn_isa_descriptor pass = reading_pass();
    xrt::bo longer(device, PAGE, xrt::bo::flags::normal, static_cast<unsigned>(u.kernel.group_id(ARG_PROGRAM)));
    std::memset(longer.map(), 0, PAGE);
    std::memcpy(longer.map(), &pass, sizeof(pass));
    longer.sync(XCL_BO_SYNC_BO_TO_DEVICE);
    addresses reading = good;
    reading[0] = longer.address();
    expect_bus_error(u, reading, 1, end - 512, {1, 0, 0}, XN_ISA_REG_STREAM);
    expect_bus_error(u, reading, 1, 0, {1, 0, 0}, XN_ISA_REG_STREAM);
    run_raw(u, good, {0, 0, 0});
    u.status.sync(XCL_BO_SYNC_BO_FROM_DEVICE);
    CHECK(u.status.map<xn_isa_status *>()->error == XN_ISA_OK, "afterwards");
    return 0;
}
