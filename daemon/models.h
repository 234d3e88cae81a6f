/* SPDX-License-Identifier: Apache-2.0
 * Served models: a network, loaded on every instance that can run it, under a name. A model is immutable once published; a
 * reload publishes another under the same name, and the old one lives until its last request has gone (reference count). */
#ifndef XN_DAEMON_MODELS_H
#define XN_DAEMON_MODELS_H

#include <stdatomic.h>

#include "accel/accel.h"
#include "daemon/config.h"

/** Where a figure of energy comes from. Figures of different sources are never added up. */
enum xn_energy_source {
    XN_ENERGY_SENSOR,    /**< measured */
    XN_ENERGY_ESTIMATE,  /**< declared watts and utilisation */
    XN_ENERGY_SIMULATED, /**< the sensor of a virtual card */
    XN_ENERGY_SOURCES,
};
extern const char *const xn_energy_source_names[XN_ENERGY_SOURCES]; /**< as labels and answers have them */

#define XN_INSTANCES_MAX 1024u

/** All open instances, in configuration order; fixed from start to stop. */
struct xn_instances {
    uint32_t n;
    struct xn_accel *accel[XN_INSTANCES_MAX];
    const struct xn_config_accelerator *config[XN_INSTANCES_MAX]; /**< where it came from */
};

struct xn_model_stats { /**< updated with relaxed atomics, read by /v2 statistics and metrics */
    atomic_uint_fast64_t inference_count, execution_count, success_count, fail_count, last_inference_ms;
};

struct xn_model {
    atomic_uint refs;
    const char *name; /**< name it is served under */
    struct xn_network *network;
    uint32_t max_batch, max_delay_us, queue_limit, timeout_ms;
    uint32_t preferred_batch; /**< multiples of it close at once; 0: none */
    uint32_t waiting; /**< items of this object in its queue; private to sched/, guarded as struct xn_sched is */
    uint32_t slot; /**< 0..XN_CONFIG_MODELS_MAX-1: index for metrics and queues; kept over reloads of the same name */
    uint64_t generation; /**< grows with every model made: tells a model from its successor in the same slot */
    struct xn_instances *instances;
    struct xn_accel_model *loaded[XN_INSTANCES_MAX]; /**< NULL: that instance cannot run it */
    struct xn_model_stats *stats;                    /**< kept over reloads */
};

struct xn_models; /**< the table, by name */

/** Called by xn_models_apply for each model that is about to be published, on its thread: its slot is known, nobody has it yet. */
typedef void (*xn_models_hook)(void *user, const struct xn_model *model);

/** `hook` may be NULL. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_models_new(struct xn_instances *instances, xn_models_hook hook, void *user,
                                struct xn_models **ret_models);
/** Every model must have been released by all others. Models are unloaded but from instances that are closed (NULL in the table of instances): closing
 *  has done that. */
void xn_models_free(struct xn_models *models);

/** Load what `config` lists, publish all, and retire those no longer listed. On failure nothing is changed and the text says which
 *  model and why; files whose path, SHA-256 and settings are unchanged are kept as they are. Threads: one at a time (main). Errors: those
 *  of xn_network_load and of accel load; -ENODEV: no instance can run it; -EEXIST: two have one name. */
XN_MUST_CHECK int xn_models_apply(struct xn_models *models, const struct xn_config *config, struct xn_error *error);

/** A reference to the model called `name` (NULL: the default), or NULL: unknown. Release with xn_model_unref. Threads: any; no
 *  allocation. */
struct xn_model *xn_models_get(struct xn_models *models, const char *name);
/** References to up to `max` models, in configuration order, default first. Returns how many. */
uint32_t xn_models_list(struct xn_models *models, struct xn_model **ret_models, uint32_t max);

struct xn_model *xn_model_ref(struct xn_model *model);
/** Any thread; never blocks: the last release puts the model on a retire list, which xn_models_reap empties. */
void xn_model_unref(struct xn_model *model);

/** Unload and free retired models whose last reference has gone. Called by main about once a second, and by xn_models_apply. */
void xn_models_reap(struct xn_models *models);

#endif
