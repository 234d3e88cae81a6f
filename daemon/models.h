/* SPDX-License-Identifier: Apache-2.0
 * Served models: a network, loaded on every instance that can run it, under a name and a version. A model is immutable once published; a
 * reload publishes another in its place, and the old one lives until its last request has gone (reference count). */
#ifndef XN_DAEMON_MODELS_H
#define XN_DAEMON_MODELS_H

#include <stdatomic.h>

#include "accel/accel.h"
#include "daemon/model_stats.h"

/** Where a figure of energy comes from. Figures of different sources are never added up. */
enum xn_energy_source {
    XN_ENERGY_SENSOR,    /**< measured */
    XN_ENERGY_ESTIMATE,  /**< declared watts and utilisation */
    XN_ENERGY_SIMULATED, /**< the sensor of a virtual card */
    XN_ENERGY_SOURCES,
};
extern const char *const xn_energy_source_names[XN_ENERGY_SOURCES]; /**< as labels and answers have them */

/** What some inferences took. */
struct xn_energy {
    double joules;   /**< while they ran: active_j and their share of idle power in that time; < 0: not measured */
    double active_j; /**< over idle; < 0: not known, as idle power is not known yet */
    bool is_typical; /**< what such work takes, by samples; false: only what the sensor shows at the moment */
    enum xn_energy_source source;
};

#define XN_INSTANCES_MAX       1024u
#define XN_MODEL_VERSION_BYTES 16u /**< with NUL; a decimal number */

/** All open instances, in configuration order; fixed from start to stop. */
struct xn_instances {
    uint32_t n;
    struct xn_accel *accel[XN_INSTANCES_MAX];
    const struct xn_config_accelerator *config[XN_INSTANCES_MAX]; /**< where it came from */
};

struct xn_model {
    atomic_uint refs;
    const char *name; /**< name it is served under */
    char version[XN_MODEL_VERSION_BYTES];
    struct xn_network *network;
    uint32_t max_batch, max_delay_us, queue_limit, timeout_ms;
    uint32_t preferred_batch;        /**< multiples of it close at once; 0: none */
    struct xn_version_policy policy; /**< that chose it */
    uint32_t waiting; /**< items of this object in its queue; private to sched/, guarded as struct xn_sched is */
    uint32_t
        slot; /**< 0..XN_CONFIG_MODELS_MAX-1: index for metrics and queues; kept over reloads of the same name and version */
    uint64_t generation; /**< grows with every model made: tells a model from its successor in the same slot */
    struct xn_instances *instances;
    struct xn_accel_model *loaded[XN_INSTANCES_MAX]; /**< NULL: that instance cannot run it */
    struct xn_model_stats *stats;                    /**< kept as the slot; NULL until it is published */
};

struct xn_models; /**< the table, by name and version */

/** Called for each model that is about to be published and was not yet, on the thread that does it: its slot is known, nobody has it yet. */
typedef void (*xn_models_hook)(void *user, const struct xn_model *model);

/** `hook` may be NULL. Errors: -ENOMEM. */
XN_MUST_CHECK int xn_models_new(struct xn_instances *instances, xn_models_hook hook, void *user,
                                struct xn_models **ret_models);
/** Every model must have been released by all others. Models are unloaded but from instances that are closed (NULL in the table of instances): closing
 *  has done that. */
void xn_models_free(struct xn_models *models);

/* ---- changes: one thread at a time (the repository's; the main one before that starts) ---- */

/** What a model is made from. */
struct xn_model_source {
    const struct xn_config_model *config; /**< name NULL: the one in the file */
    const char *version;                  /**< NULL: the one in the file */
    bool configured; /**< listed in the configuration: xn_models_apply drops it where it no longer is */
};

/** Load a model and warm it up; it is not published. Where the one that is published under its name and version has the same path, SHA-256 and settings, that
 *  one is the result. Owner: the caller has a reference. Errors: those of xn_network_load and of accel load; -ENODEV: no instance can run it. */
XN_MUST_CHECK int xn_models_build(struct xn_models *models, const struct xn_model_source *source,
                                  struct xn_model **ret_model, struct xn_error *error);

/** Publish the `n` models of `next`, all called `name` and of different versions, in place of those published under it: in one step. n = 0: the name is no longer
 *  served. The references are taken over, also on failure. Errors: -E2BIG (more than XN_CONFIG_MODELS_MAX in all; nothing is changed). */
XN_MUST_CHECK int xn_models_replace(struct xn_models *models, const char *name, struct xn_model **next, uint32_t n,
                                    struct xn_error *error);

/** Load what `config` lists, publish all, and retire what was configured and is no longer listed; models of the repository stay, but where a configured one takes
 *  their name. On success every entry of config->models has a name. On failure nothing is changed and the text says which model and why. Errors: those of
 *  xn_models_build; -EEXIST: two have one name; -ENOENT: there is no default_model (only where the configuration has no repository); -E2BIG. */
XN_MUST_CHECK int xn_models_apply(struct xn_models *models, struct xn_config *config, struct xn_error *error);

/** Unload and free retired models whose last reference has gone. Also done by the calls above. */
void xn_models_reap(struct xn_models *models);

/* ---- use: any thread ---- */

/** A reference to the model called `name` (NULL: the default) of `version` (NULL: the latest), or NULL: there is none. Release with xn_model_unref. No
 *  allocation. */
struct xn_model *xn_models_get(struct xn_models *models, const char *name, const char *version);
/** References to up to `max` models: the default first, versions of a name together, the latest first. Returns how many. */
uint32_t xn_models_list(struct xn_models *models, struct xn_model **ret_models, uint32_t max);

/** What a version of a name is doing. */
enum xn_model_state { XN_MODEL_READY, XN_MODEL_LOADING, XN_MODEL_UNLOADING, XN_MODEL_UNAVAILABLE };

struct xn_model_row {
    char name[XN_MODEL_NAME_BYTES], version[XN_MODEL_VERSION_BYTES];
    enum xn_model_state state; /**< READY, or UNLOADING: no longer published, and requests still use it */
};

#define XN_MODEL_ROWS_MAX (2 * XN_CONFIG_MODELS_MAX)
/** Everything published, then what unloads. Returns how many rows. */
uint32_t xn_models_index(struct xn_models *models, struct xn_model_row ret_rows[XN_MODEL_ROWS_MAX]);

struct xn_model *xn_model_ref(struct xn_model *model);
/** Any thread; never blocks: the last release puts the model on a retire list, which xn_models_reap empties. NULL is legal. */
void xn_model_unref(struct xn_model *model);

#endif
