/* SPDX-License-Identifier: Apache-2.0
 * THE accelerator contract. A backend (accel/cpu, accel/xrt) offers instances; an instance runs batches of one loaded network at
 * a time. The daemon sees accelerators through this header alone; tests/conformance runs one suite over every backend.
 *
 * States of an instance:
 *
 *     open -> READY --submit--> RUNNING --wait: 0 or a run's own error--> READY
 *                                  |
 *                                  +------wait: -ETIMEDOUT or -EIO------> QUARANTINED --reset: 0--> READY
 *                                                                             |  ^
 *                                                                             +--+ reset failed: try again later, or close
 *
 * Who owns what: a job and all its buffers belong to the backend from a successful submit until wait returned 0 or a negative
 * other than -ETIMEDOUT. After -ETIMEDOUT the device may still write: they stay the backend's until reset returned 0 or close returned.
 *
 * Threads: probe, open, close: one thread at a time. load and unload may run beside submit and wait of the same
 * instance (hot reload); they never disturb other models. submit, wait and reset of one instance: one thread at a time.
 * Different instances are independent.
 */
#ifndef XN_ACCEL_ACCEL_H
#define XN_ACCEL_ACCEL_H

#include "common/error.h"
#include "common/macros.h"
#include "model/network.h"

#define XN_ACCEL_NAME_BYTES   64u
#define XN_ACCEL_BATCH_MAX    1024u
#define XN_ACCEL_INFLIGHT_MAX 8u /**< jobs submitted and not yet waited for, an instance */

struct xn_accel;       /**< an open instance; a backend's private struct begins with struct xn_accel_base */
struct xn_accel_model; /**< a network loaded on an instance; private to the backend */

/** What an instance is, for logs, metrics and `xnorctl status`. Strings are NUL-terminated. */
struct xn_accel_info {
    char name[XN_ACCEL_NAME_BYTES];         /**< unique in the process: "cpu0", "xrt0.1" */
    char kind[16];                          /**< "cpu", "xrt" */
    char device[96];                        /**< "AMD EPYC 7J13", "xilinx_u50_gen3x16_xdma_base_5" */
    char geometry[96];                      /**< how it computes: "2 threads, portable", "P4 PE16 S64" */
    char power_domain[XN_ACCEL_NAME_BYTES]; /**< whose sensors measure it: "cpu", a PCI address, "" unknown */
    uint64_t clock_hz;                      /**< 0 unknown */
    uint64_t memory_bytes;                  /**< device memory; 0: the host's */
    uint32_t inflight_max;                  /**< jobs it takes before wait, 1..XN_ACCEL_INFLIGHT_MAX */
};

/** How to open. Strings belong to the caller and are copied where kept. */
struct xn_accel_options {
    const char *device; /**< which device: NULL or "" any; xrt: PCI address or index */
    const char *image;  /**< xrt: path of the xclbin; cpu: unused */
    uint32_t
        threads; /**< cpu: threads of each instance; 0: as many as CPUs allowed to the process, shared out evenly over `instances` */
    uint32_t instances;   /**< how many instances the configuration asks for in all; 0: what the device has (cpu: 1) */
    const char *cpu_mask; /**< cpu: highest ISA level to use ("portable", "avx2", ...); NULL or "": best */
};

/** One batch. Filled by the caller before submit; `private_data` is the backend's. */
struct xn_accel_job {
    struct xn_accel_model *model;
    uint32_t batch; /**< images, 1..max_batch of the load */
    const void *const
        *inputs;             /**< [batch] pointers to input tensors of network->input_bytes bytes each, any alignment */
    int32_t *const *outputs; /**< [batch] pointers to [n_classes] logits, 4-byte aligned */
    uint64_t exec_ns;        /**< out, after wait returned 0: time on the accelerator */
    void *private_data;
};

/** A backend. Slots marked optional may be NULL. `error` may be NULL everywhere. Functions return 0 or a negative errno. */
struct xn_accel_backend {
    const char *kind;

    /** How many instances these options would give. Errors: -ENODEV (no device or runtime; the text says what is missing),
     *  -EINVAL (options). */
    int (*probe)(const struct xn_accel_options *options, uint32_t *ret_n, struct xn_error *error);

    /** Open instance `index` (0..n-1 of probe). Errors: -ENODEV, -EBUSY (held by another process), -ENOMEM, -EINVAL. */
    int (*open)(const struct xn_accel_options *options, uint32_t index, struct xn_accel **ret_accel,
                struct xn_error *error);

    /** Pack and make resident `network` for batches up to `max_batch` (1..XN_ACCEL_BATCH_MAX); all memory that its jobs need is taken
     *  here. `network` must outlive the model. The model is warm on return. Errors: -ENOTSUP (a layer this backend cannot run; names
     *  it), -ENOSPC (device memory), -ENOMEM, -EIO. */
    int (*load)(struct xn_accel *accel, const struct xn_network *network, uint32_t max_batch,
                struct xn_accel_model **ret_model, struct xn_error *error);

    /** Forget `model`, none of whose jobs is in flight. */
    void (*unload)(struct xn_accel *accel, struct xn_accel_model *model);

    /** Start `job`. Never blocks for longer than a queue hand-over. No allocation. Errors: -EBUSY (inflight_max jobs are in flight),
     *  -EINVAL (batch out of range), -EIO (device gone: quarantined), -ESTALE (quarantined, needs reset). */
    int (*submit)(struct xn_accel *accel, struct xn_accel_job *job, struct xn_error *error);

    /** Wait until `job` (the oldest in flight) is done or `deadline_ns` (CLOCK_MONOTONIC; XN_NEVER_NS) has passed. Errors: -ETIMEDOUT (instance
     *  quarantined, buffers remain the backend's), -EIO (device failed: quarantined, buffers returned), -EINVAL (not in flight). */
    int (*wait)(struct xn_accel *accel, struct xn_accel_job *job, uint64_t deadline_ns, struct xn_error *error);

    /** Optional. Wait until `job` (the oldest in flight) has ended, well or not, or about `until_ns` has passed; it stays in flight: wait tells how it ended. So the thread that waits can
     *  submit another job meanwhile. Returns 0: it has ended; -EAGAIN: not yet, and up to a millisecond of the time may be left. NULL: only wait can tell. */
    int (*poll)(struct xn_accel *accel, struct xn_accel_job *job, uint64_t until_ns);

    /** Bring a quarantined instance back with its models still loaded; all buffers are the caller's again when it returns 0. On a
     *  READY instance: does nothing, 0. Errors: -EIO, -ETIMEDOUT (still hung). */
    int (*reset)(struct xn_accel *accel, struct xn_error *error);

    /** Close; models still loaded are unloaded. NULL is legal. */
    void (*close)(struct xn_accel *accel);

    /** Optional. Instantaneous power of the device in watts. Errors: -ENODATA (no sensor, or not readable now). */
    int (*power)(struct xn_accel *accel, double *ret_watts);

    /** Optional. Predicted time of a batch of `model`, ns. Errors: -ENODATA. */
    int (*cost)(struct xn_accel *accel, const struct xn_accel_model *model, uint32_t batch, uint64_t *ret_ns);
};

/** Every open instance begins with this. */
struct xn_accel_base {
    const struct xn_accel_backend *backend;
    struct xn_accel_info info;
};

static inline const struct xn_accel_info *xn_accel_info(const struct xn_accel *accel)
{
    return &((const struct xn_accel_base *)(const void *)accel)->info;
}
static inline const struct xn_accel_backend *xn_accel_backend(const struct xn_accel *accel)
{
    return ((const struct xn_accel_base *)(const void *)accel)->backend;
}

/** The backend called `kind`, or NULL. The table of those built in is accel/backends.c. */
const struct xn_accel_backend *xn_accel_find(const char *kind);
/** Backend `i` of those built in, NULL past the last. */
const struct xn_accel_backend *xn_accel_at(size_t i);

#endif
