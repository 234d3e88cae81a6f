/* SPDX-License-Identifier: Apache-2.0
 * The C++ part of the HAL: XRT's objects for a device.
 *
 * libxrt_coreutil wants a driver library to make `system` and `device` objects, whose headers Debian does not package. Its static
 * libxrt_hwemu.a has both as members of their own that call nothing but xcl* functions; as this library defines all of these, the
 * linker takes those two members and nothing of the emulation. So what is declared here is what these members and
 * libxrt_coreutil.so.2 export, and no more than is called. Tied to XRT 2.13. */
#include <cerrno>
#include <memory>
#include <utility>

struct axlf;
enum xclResetKind : unsigned;

namespace xrt_core
{
class device
{
  public:
    void register_axlf(const axlf *top);
};
std::shared_ptr<device> get_userpf_device(void *handle, unsigned int id);
namespace query
{
enum class key_type;
}
} // namespace xrt_core

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

/* Debian's says that there are none; xrt::system::enumerate_devices() asks it. The linker takes the first definition, this (vcard.mk). */
extern "C" unsigned xclProbe(void);
namespace xrt_core
{
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

extern "C" int xn_hal_reset(void *handle);
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
