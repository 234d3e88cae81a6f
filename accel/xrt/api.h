/* SPDX-License-Identifier: Apache-2.0
 * What the backend needs of the Xilinx Runtime, in C: a table of functions that xnor-xrt.so (shim.cpp, the only C++ here and the only part that
 * is linked with XRT) hands out. xnord loads that module when an accelerator of kind "xrt" is configured (module.c), so that it runs
 * where XRT is not installed; tests put a table of their own in its place.
 *
 * All functions return 0 or a negative errno, and then say why in `why`. Threads: any, an object by one thread at a time unless it
 * says otherwise. Objects keep what they were made from alive: a device may be closed before its units and buffers are. */
#ifndef XN_ACCEL_XRT_API_H
#define XN_ACCEL_XRT_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define XN_XRT_API_VERSION 2u
#define XN_XRT_WHY_BYTES   256u
#define XN_XRT_NAME_BYTES  64u
#define XN_XRT_UUID_BYTES  40u
#define XN_XRT_UNITS_MAX   32u
#define XN_XRT_ENTRY       "xn_xrt_api_table" /**< of the module: `const struct xn_xrt_api *(void)` */

struct xn_xrt_device;
struct xn_xrt_unit;   /**< a compute unit, opened */
struct xn_xrt_buffer; /**< card memory with host memory behind it, which travels by sync */
struct xn_xrt_run;    /**< a start of a unit, again and again */

/** NUL-terminated. */
struct xn_xrt_why {
    char text[XN_XRT_WHY_BYTES];
};

/** What a file holds. */
struct xn_xrt_image {
    char platform[XN_XRT_NAME_BYTES];
    char uuid[XN_XRT_UUID_BYTES];
    uint32_t n_units;
    char units[XN_XRT_UNITS_MAX][XN_XRT_NAME_BYTES]; /**< of the kernel asked for: "xnor_engine_1" */
};

struct xn_xrt_device_info {
    char name[96];
    char address[32];  /**< "0000:3b:00.1"; "" where it is not behind PCI: its memory then is this processor's */
    uint64_t clock_hz; /**< 0 unknown */
};

enum xn_xrt_state { XN_XRT_RUNNING, XN_XRT_DONE, XN_XRT_FAILED };

struct xn_xrt_api {
    uint32_t version;

    /** Units of kernel `kernel` in file `path`, without a device. Errors: -ENOENT, -EINVAL (not an xclbin, or without such a kernel). */
    int (*image)(const char *path, const char *kernel, struct xn_xrt_image *ret_image, struct xn_xrt_why *why);
    /** Devices of this machine. Errors: -ENODEV (XRT finds no driver). */
    int (*count)(uint32_t *ret_n, struct xn_xrt_why *why);

    /** Open device `device`: an index or a PCI address. Errors: -ENODEV, -EBUSY. */
    int (*open)(const char *device, struct xn_xrt_device **ret_device, struct xn_xrt_why *why);
    void (*close)(struct xn_xrt_device *device);
    void (*info)(struct xn_xrt_device *device, struct xn_xrt_device_info *ret_info);
    /** Load the file; one that is loaded already costs little. Errors: -EBUSY (another process uses another one), -EINVAL, -EIO. */
    int (*load)(struct xn_xrt_device *device, const char *path, struct xn_xrt_why *why);
    /** The UUID of what the device has loaded, whoever did it. Errors: -EIO. */
    int (*loaded)(struct xn_xrt_device *device, char ret_uuid[XN_XRT_UUID_BYTES], struct xn_xrt_why *why);
    /** Reset the device: everything that runs on it ends. Errors: -EIO, -ENODEV, -ENOTSUP. */
    int (*reset)(struct xn_xrt_device *device, struct xn_xrt_why *why);

    /** Open a unit of the file that is loaded, for this process alone. Its runs are waited for without regard to those of others. Errors: -EBUSY, -EINVAL,
     *  -EIO. */
    int (*unit_open)(struct xn_xrt_device *device, const char *kernel, const char *unit, struct xn_xrt_unit **ret_unit,
                     struct xn_xrt_why *why);
    void (*unit_close)(struct xn_xrt_unit *unit);

    /** Where buffers for `argument` of `unit` lie: units of a device whose arguments have the same number can share one. */
    int (*unit_bank)(struct xn_xrt_unit *unit, uint32_t argument, uint32_t *ret_bank, struct xn_xrt_why *why);

    /** Memory that argument `argument` of `unit` can reach; `ret_host` is page-aligned. `cached`: only for a device whose memory is this processor's,
     *  whose host side else is mapped without a cache. Errors: -ENOMEM (the card's, or the host's). */
    int (*buffer_new)(struct xn_xrt_unit *unit, uint32_t argument, uint64_t bytes, int cached,
                      struct xn_xrt_buffer **ret_buffer, void **ret_host, struct xn_xrt_why *why);
    void (*buffer_free)(struct xn_xrt_buffer *buffer);
    /** Bytes 0..bytes-1 from host memory to the card, or back. Errors: -EIO. */
    int (*buffer_sync)(struct xn_xrt_buffer *buffer, int to_device, uint64_t bytes, struct xn_xrt_why *why);

    int (*run_new)(struct xn_xrt_unit *unit, struct xn_xrt_run **ret_run, struct xn_xrt_why *why);
    void (*run_free)(struct xn_xrt_run *run);
    int (*run_buffer)(struct xn_xrt_run *run, uint32_t argument, struct xn_xrt_buffer *buffer, struct xn_xrt_why *why);
    int (*run_scalar)(struct xn_xrt_run *run, uint32_t argument, uint32_t value, struct xn_xrt_why *why);
    int (*run_start)(struct xn_xrt_run *run, struct xn_xrt_why *why);
    /** Wait for at most `ms` (1..) and tell the state. Errors: -EIO. */
    int (*run_wait)(struct xn_xrt_run *run, uint32_t ms, enum xn_xrt_state *ret_state, struct xn_xrt_why *why);
};

#ifdef __cplusplus
}
#endif

#endif
