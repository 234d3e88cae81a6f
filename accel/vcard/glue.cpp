/* SPDX-License-Identifier: Apache-2.0
 * The C++ part of the HAL: XRT's objects for a device.
 *
 * libxrt_coreutil wants a driver library to make `system` and `device` objects, whose headers Debian does not package. Its static
 * libxrt_hwemu.a has both as members of their own that call nothing but xcl* functions; as this library defines all of these, the
 * linker takes those two members and nothing of the emulation. So what is declared here is what these members and
 * libxrt_coreutil.so.2 export, and no more than is called. Tied to XRT 2.13. */
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <tuple>
#include <typeinfo>
#include <utility>
#include <vector>

#include "accel/vcard/protocol.h"

struct axlf;
enum xclResetKind : unsigned;

namespace xrt_core
{
class device
{
  public:
    void register_axlf(const axlf *top);
    void *get_user_handle() const;
};
std::shared_ptr<device> get_userpf_device(void *handle, unsigned int id);
namespace query
{
enum class key_type;
}
} // namespace xrt_core

extern "C" int xn_hal_reset(void *handle);
extern "C" unsigned xn_hal_index(const void *handle);
extern "C" unsigned xn_hal_clock_mhz(const void *handle);

/* The device member asks its shim for two properties; without a shim it takes "no". */
namespace xclhwemhal2
{
class HwEmShim
{
  public:
    static HwEmShim *handleCheck(void *handle);
    int deviceQuery(xrt_core::query::key_type key);
};
HwEmShim *HwEmShim::handleCheck(void *)
{
    return nullptr;
}
int HwEmShim::deviceQuery(xrt_core::query::key_type)
{
    return 0;
}
} // namespace xclhwemhal2

/* The queries that the device member has answers to. Its own gives no card an address that a machine has, and remembers what a device answered for
 * the next one that lies where it lay. An answer is a boost::any, whose header does not come with libxrt-dev: a pointer to an object with
 * these virtual functions. */
namespace xclemulation
{
namespace query
{
struct value {
    virtual ~value() = default;
    virtual const std::type_info &type() const noexcept = 0;
    virtual value *clone() const = 0;
};
template <typename T> struct holder final : value {
    T held;
    explicit holder(T held_) : held(std::move(held_))
    {
    }
    const std::type_info &type() const noexcept override
    {
        return typeid(T);
    }
    value *clone() const override
    {
        return new holder(held);
    }
};
struct any {
    std::unique_ptr<value> content;
};
template <typename T> any answer(T held)
{
    return {std::make_unique<holder<T>>(std::move(held))};
}
class device_info
{
  public:
    static any get(const xrt_core::device *device, xrt_core::query::key_type key);
};
any device_info::get(const xrt_core::device *device, xrt_core::query::key_type key)
{
    constexpr int PCIE_BDF = 8, ROM_VBNV = 12, CLOCK_FREQS_MHZ = 64; /* of XRT 2.13; the fourth is a count of DMA engines */
    const void *handle = device->get_user_handle();

    switch (static_cast<int>(key)) {
    case PCIE_BDF:
        return answer(std::tuple<uint16_t, uint16_t, uint16_t, uint16_t>(
            XN_VCARD_PCI_DOMAIN, static_cast<uint16_t>(XN_VCARD_PCI_BUS(xn_hal_index(handle))), 0, XN_VCARD_PCI_FUNCTION));
    case ROM_VBNV:
        return answer(std::string(XN_VCARD_PLATFORM));
    case CLOCK_FREQS_MHZ:
        return answer(std::vector<std::string>{std::to_string(xn_hal_clock_mhz(handle))});
    default:
        return answer(uint32_t{0});
    }
}
} // namespace query
} // namespace xclemulation

/* Debian's says that there are none; xrt::system::enumerate_devices() asks it. The linker takes the first definition, this (vcard.mk). */
extern "C" unsigned xclProbe(void);
namespace xrt_core
{
/* The base class's takes an index alone; a driver's takes a PCI address, too. */
class system
{
  public:
    __attribute__((visibility("hidden"))) unsigned get_device_id(const std::string &name) const;
};
unsigned system::get_device_id(const std::string &name) const
{
    if (!name.empty() && name.find_first_not_of("0123456789") == std::string::npos)
        return static_cast<unsigned>(std::stoul(name));
    for (unsigned i = 0; i < xclProbe(); i++)
        if (name == xn_vcard_address_of(i).text)
            return i;
    throw std::system_error(ENODEV, std::generic_category(), "no such device: " + name);
}
namespace hwemu
{
class system
{
  public:
    std::pair<unsigned, unsigned> get_total_devices(bool is_user) const;
};
std::pair<unsigned, unsigned> system::get_total_devices(bool) const
{
    return {xclProbe(), xclProbe()};
}
} // namespace hwemu
} // namespace xrt_core

using core_device = std::shared_ptr<xrt_core::device>;

extern "C" void *xn_hal_core_new(void *handle, unsigned index);
extern "C" void xn_hal_core_free(void *core);
extern "C" int xn_hal_core_register(void *core, const void *top);

extern "C" void *xn_hal_core_new(void *handle, unsigned index)
{
    try {
        return new core_device(xrt_core::get_userpf_device(handle, index));
    } catch (...) {
        return nullptr;
    }
}

extern "C" void xn_hal_core_free(void *core)
{
    delete static_cast<core_device *>(core);
}

extern "C" int xn_hal_core_register(void *core, const void *top)
{
    try {
        (*static_cast<core_device *>(core))->register_axlf(static_cast<const axlf *>(top));
        return 0;
    } catch (...) {
        return -EINVAL;
    }
}

/* Of XRT's driver interface, those with C++ names. */
/* This is how a program resets a card: XRT 2.13 exports nothing for it (xrt::device::reset() gives up a handle), so it is looked up in the driver. */
__attribute__((visibility("default"))) int xclInternalResetDevice(void *handle, xclResetKind kind);
int xclUpdateSchedulerStat(void *handle);
int xclCmaEnable(void *handle, bool enable, unsigned long bytes);
int xclCloseExportHandle(int handle);

int xclInternalResetDevice(void *handle, xclResetKind)
{
    return xn_hal_reset(handle);
}
int xclUpdateSchedulerStat(void *)
{
    return -ENOSYS;
}
int xclCmaEnable(void *, bool, unsigned long)
{
    return -ENOSYS;
}
int xclCloseExportHandle(int)
{
    return 0;
}
