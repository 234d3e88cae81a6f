/* SPDX-License-Identifier: Apache-2.0
 * xnor-xrt.so: XRT's C++ interface behind the C table of api.h. Nothing here decides anything: each function is one or two calls, and
 * their exceptions become an errno and a text. The C interface of XRT would do for less than half of it (it has no abort, no reset,
 * no properties of a device, and two of its functions are mangled in Debian's build), so it is not used at all. */
#include "accel/xrt/api.h"

#include <cerrno>
#include <dlfcn.h>
#include <fstream>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <unistd.h>

#include <experimental/xrt_system.h>
#include <experimental/xrt_xclbin.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xclbin.h>
#include <xrt.h>
#include <xrt/xrt_kernel.h>

struct xn_xrt_device {
    xrt::device device;
    std::string name;
    xrt::xclbin image; /* what is loaded */
};
struct xn_xrt_unit {
    xrt::device device;
    xrt::kernel kernel;
};
struct xn_xrt_buffer {
    xrt::bo bo;
};
struct xn_xrt_run {
    xrt::run run;
};

namespace
{
constexpr uint32_t DEVICES_MAX = 16;
constexpr uint32_t SECTIONS_MAX = 256;
constexpr uint64_t PAGE_BYTES = 4096;

template <size_t N> void copy(char (&to)[N], const std::string &text)
{
    std::snprintf(to, N, "%s", text.c_str());
}

/** What an exception says, and its errno where it is one of ours. XRT throws system_error with a positive errno, and others without. */
int fail(xn_xrt_why *why, const char *text, int code, int other)
{
    std::snprintf(why->text, sizeof(why->text), "%s", text);
    for (char *c = why->text; *c; c++) /* lists and paths come with line ends */
        if (*c == '\n')
            *c = ' ';
    code = code < 0 ? -code : code;
    return code == ENODEV || code == EBUSY || code == ENOMEM || code == ENOENT || code == EINVAL ? -code : -other;
}

/** `body`, with `other` where an exception does not say which error it is. */
template <typename F> int guarded(xn_xrt_why *why, int other, F body)
{
    try {
        body();
        return 0;
    } catch (const std::system_error &e) {
        return fail(why, e.what(), e.code().value(), other);
    } catch (const std::bad_alloc &) {
        return fail(why, "no memory", ENOMEM, ENOMEM);
    } catch (const std::exception &e) {
        return fail(why, e.what(), 0, other);
    } catch (...) {
        return fail(why, "unknown exception", 0, other);
    }
}

/** What comes of destroying an object is nobody's any more. */
template <typename T> void destroy(T *object)
{
    try {
        delete object;
    } catch (...) {
    }
}

/** XRT follows the offsets in a file before it looks how long it is. */
bool is_whole(const char *path)
{
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto bytes = static_cast<uint64_t>(file.tellg());
    axlf head;

    file.seekg(0);
    if (!file || bytes < sizeof(head) || !file.read(reinterpret_cast<char *>(&head), sizeof(head)) ||
        std::memcmp(head.m_magic, "xclbin2", sizeof("xclbin2")) != 0 || head.m_header.m_length != bytes ||
        head.m_header.m_numSections > SECTIONS_MAX)
        return false;
    file.seekg(offsetof(axlf, m_sections));
    for (uint32_t i = 0; i < head.m_header.m_numSections; i++) {
        axlf_section_header section;
        if (!file.read(reinterpret_cast<char *>(&section), sizeof(section)) || section.m_sectionOffset > bytes ||
            section.m_sectionSize > bytes - section.m_sectionOffset)
            return false;
    }
    return true;
}

int image(const char *path, const char *kernel, xn_xrt_image *ret_image, xn_xrt_why *why)
{
    if (access(path, R_OK) < 0)
        return fail(why, std::strerror(errno), ENOENT, ENOENT);
    if (!is_whole(path))
        return fail(why, "it is not an xclbin, or not a whole one; build or copy it anew", EINVAL, EINVAL);
    const int r = guarded(why, EINVAL, [&] {
        const xrt::xclbin file{std::string(path)};
        std::memset(ret_image, 0, sizeof(*ret_image));
        copy(ret_image->platform, file.get_xsa_name());
        copy(ret_image->uuid, file.get_uuid().to_string());
        const std::string prefix = std::string(kernel) + ":";
        for (const auto &ip : file.get_ips()) {
            const std::string name = ip.get_name();
            if (name.compare(0, prefix.size(), prefix) == 0 && ret_image->n_units < XN_XRT_UNITS_MAX)
                copy(ret_image->units[ret_image->n_units++], name.substr(prefix.size()));
        }
    });
    if (r == 0 && ret_image->n_units == 0)
        return fail(why, (std::string("it has no kernel ") + kernel + "; is it of another design?").c_str(), EINVAL, EINVAL);
    return r;
}

int count(uint32_t *ret_n, xn_xrt_why *why)
{
    const int r = guarded(why, ENODEV, [&] { *ret_n = xrt::system::enumerate_devices(); });

    if (r < 0 && !std::getenv("XILINX_XRT"))
        return fail(why, "XILINX_XRT is not set; it names the folder whose lib/ has the driver, libxrt_core.so.2 (for example /opt/xilinx/xrt)", ENODEV, ENODEV);
    /* It counts those that its own driver for hardware knows, and so none of any other driver: these are found by opening them. */
    while (r == 0 && *ret_n < DEVICES_MAX && guarded(why, ENODEV, [&] { xrt::device device{*ret_n}; }) == 0)
        ++*ret_n;
    return r;
}

int open(const char *device, xn_xrt_device **ret_device, xn_xrt_why *why)
{
    return guarded(why, ENODEV, [&] { *ret_device = new xn_xrt_device{xrt::device{std::string(device)}, device, {}}; });
}

void close(xn_xrt_device *device)
{
    destroy(device);
}

void info(xn_xrt_device *device, xn_xrt_device_info *ret_info)
{
    xn_xrt_why why;

    std::memset(ret_info, 0, sizeof(*ret_info));
    /* Each by itself: drivers have not all of them. */
    (void)guarded(&why, EIO, [&] { copy(ret_info->name, device->device.get_info<xrt::info::device::name>()); });
    (void)guarded(&why, EIO, [&] {
        const std::string address = device->device.get_info<xrt::info::device::bdf>();
        if (address != "0000:00:00.0") /* what it calls the fabric of a Zynq */
            copy(ret_info->address, address);
    });
    (void)guarded(&why, EIO, [&] {
        ret_info->clock_hz = device->device.get_info<xrt::info::device::max_clock_frequency_mhz>() * UINT64_C(1000000);
    });
}

int load(xn_xrt_device *device, const char *path, xn_xrt_why *why)
{
    return guarded(why, EIO, [&] {
        xrt::xclbin file{std::string(path)};
        device->device.load_xclbin(file);
        device->image = std::move(file);
    });
}

int loaded(xn_xrt_device *device, char ret_uuid[XN_XRT_UUID_BYTES], xn_xrt_why *why)
{
    return guarded(why, EIO, [&] {
        std::snprintf(ret_uuid, XN_XRT_UUID_BYTES, "%s", device->device.get_xclbin_uuid().to_string().c_str());
    });
}

/** xrt::device::reset() gives up its handle and no more. What resets a card is a function of the driver, exported under its C++ name. */
int reset(xn_xrt_device *device, xn_xrt_why *why)
{
    using function = int(xclDeviceHandle, xclResetKind);
    void *driver = dlopen("libxrt_core.so.2", RTLD_NOW | RTLD_NOLOAD);
    const auto call = driver ? reinterpret_cast<function *>(dlsym(driver, "_Z22xclInternalResetDevicePv12xclResetKind")) : nullptr;
    int r = -ENOTSUP;

    if (call)
        r = guarded(why, EIO, [&] {
            const int code = call(device->device, XCL_USER_RESET);
            if (code != 0)
                throw std::system_error(code < 0 ? -code : EIO, std::generic_category(), "reset");
        });
    else
        std::snprintf(why->text, sizeof(why->text), "the driver has no reset");
    if (driver)
        dlclose(driver);
    return r;
}

/** Over a connection of its own. Threads that wait for runs of one xrt::device take turns in XRT 2.13: one of them waits for anything to
 *  complete, with a mutex that it mostly gets again before those whose runs have completed, which so learn of it a run later. */
int unit_open(xn_xrt_device *device, const char *kernel, const char *unit, xn_xrt_unit **ret_unit, xn_xrt_why *why)
{
    return guarded(why, EIO, [&] {
        const std::string name = std::string(kernel) + ":{" + unit + "}";
        xrt::device own{device->name};
        const xrt::uuid uuid = own.load_xclbin(device->image);
        *ret_unit = new xn_xrt_unit{own, xrt::kernel{own, uuid, name, xrt::kernel::cu_access_mode::exclusive}};
    });
}

void unit_close(xn_xrt_unit *unit)
{
    destroy(unit);
}

int unit_bank(xn_xrt_unit *unit, uint32_t argument, uint32_t *ret_bank, xn_xrt_why *why)
{
    return guarded(why, EIO,
                   [&] { *ret_bank = static_cast<uint32_t>(unit->kernel.group_id(static_cast<int>(argument))); });
}

int buffer_new(xn_xrt_unit *unit, uint32_t argument, uint64_t bytes, int cached, xn_xrt_buffer **ret_buffer,
               void **ret_host, xn_xrt_why *why)
{
    /* Whole pages, as XRT hands the size to aligned_alloc. It does not tell exhausted card memory from other failures, so
     * that is what they are called. */
    bytes = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    return guarded(why, ENOMEM, [&] {
        std::unique_ptr<xn_xrt_buffer> buffer{new xn_xrt_buffer{
            xrt::bo{unit->device, static_cast<size_t>(bytes),
                    cached ? xrt::bo::flags::cacheable : xrt::bo::flags::normal,
                    static_cast<xrt::memory_group>(unit->kernel.group_id(static_cast<int>(argument)))}}};
        *ret_host = buffer->bo.map<void *>();
        *ret_buffer = buffer.release();
    });
}

void buffer_free(xn_xrt_buffer *buffer)
{
    destroy(buffer);
}

int buffer_sync(xn_xrt_buffer *buffer, int to_device, uint64_t bytes, xn_xrt_why *why)
{
    return guarded(why, EIO, [&] {
        buffer->bo.sync(to_device ? XCL_BO_SYNC_BO_TO_DEVICE : XCL_BO_SYNC_BO_FROM_DEVICE, static_cast<size_t>(bytes), 0);
    });
}

int run_new(xn_xrt_unit *unit, xn_xrt_run **ret_run, xn_xrt_why *why)
{
    return guarded(why, EIO, [&] { *ret_run = new xn_xrt_run{xrt::run{unit->kernel}}; });
}

void run_free(xn_xrt_run *run)
{
    destroy(run);
}

int run_buffer(xn_xrt_run *run, uint32_t argument, xn_xrt_buffer *buffer, xn_xrt_why *why)
{
    return guarded(why, EIO, [&] { run->run.set_arg(static_cast<int>(argument), buffer->bo); });
}

int run_scalar(xn_xrt_run *run, uint32_t argument, uint32_t value, xn_xrt_why *why)
{
    return guarded(why, EIO, [&] { run->run.set_arg(static_cast<int>(argument), value); });
}

int run_start(xn_xrt_run *run, xn_xrt_why *why)
{
    return guarded(why, EIO, [&] { run->run.start(); });
}

int run_wait(xn_xrt_run *run, uint32_t ms, xn_xrt_state *ret_state, xn_xrt_why *why)
{
    return guarded(why, EIO, [&] {
        const ert_cmd_state state = run->run.wait(std::chrono::milliseconds{ms});
        *ret_state = state == ERT_CMD_STATE_COMPLETED ? XN_XRT_DONE
                     : state >= ERT_CMD_STATE_ERROR && state != ERT_CMD_STATE_SUBMITTED &&
                             state != ERT_CMD_STATE_TIMEOUT && state != ERT_CMD_STATE_NORESPONSE
                         ? XN_XRT_FAILED
                         : XN_XRT_RUNNING;
    });
}

const xn_xrt_api table = {
    XN_XRT_API_VERSION, image,    count,     open,       close,      info,      load,     loaded, reset,    unit_open, unit_close, unit_bank,
    buffer_new,         buffer_free, buffer_sync, run_new, run_free, run_buffer, run_scalar, run_start, run_wait,
};
} // namespace

extern "C" __attribute__((visibility("default"))) const xn_xrt_api *xn_xrt_api_table(void)
{
    return &table;
}
