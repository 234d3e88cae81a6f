/* SPDX-License-Identifier: Apache-2.0
 * The daemon's configuration: a JSON file (config/xnord.json is the shipped default, config/xnord.schema.json its
 * schema) plus command-line overrides. Every key has a default, a range and one line in the table of config.c, from
 * which parsing, checking and the messages come. */
#ifndef XN_DAEMON_CONFIG_H
#define XN_DAEMON_CONFIG_H

#include <stdio.h>

#include "common/error.h"
#include "common/log.h"
#include "common/macros.h"

#define XN_CONFIG_LISTENERS_MAX    8u
#define XN_CONFIG_MODELS_MAX       64u /**< served at a time, each version for itself */
#define XN_CONFIG_BATCH_MAX        1024u
#define XN_CONFIG_VERSIONS_MAX     16u /**< of a name that a policy can list */
#define XN_CONFIG_ACCELERATORS_MAX 16u
#define XN_CONFIG_SENSORS_MAX      8u

struct xn_config_listener {
    char *address;           /**< IPv4 or IPv6 literal; default "127.0.0.1" */
    uint16_t port;           /**< 0: the kernel chooses; default 8000 */
    char *unix_path;         /**< of a unix socket, in place of address and port; NULL: TCP */
    uint32_t mode;           /**< of a unix socket, an index in 0600, 0660, 0666; default 0660 */
    char *name;              /**< of a socket that the service manager hands over; NULL: told by its address */
    char *certificate, *key; /**< PEM files: TLS; NULL: none. Both or neither */
};

/** Which versions of a name are served. Zero: the latest alone. */
struct xn_version_policy {
    uint32_t latest;   /**< so many, highest numbers first; UINT32_MAX: all */
    uint32_t n_listed; /**< not 0: these instead */
    uint64_t listed[XN_CONFIG_VERSIONS_MAX];
};

struct xn_config_model {
    char *name;               /**< NULL: the name in the file's metadata */
    char *path;               /**< .xnor file; relative paths are relative to the configuration file */
    uint32_t max_batch;       /**< 1..1024, default 32 */
    uint32_t max_delay_us;    /**< 0..1e6: how long the first image of a batch may wait for others, default 1000 */
    uint32_t preferred_batch; /**< a batch of a multiple of it waits for no more; 0, the default: none */
    uint32_t queue_limit;     /**< images waiting, 1..65536, default 1024 */
    uint32_t timeout_ms;      /**< default deadline of a request, 1..600000, default 10000 */
    struct xn_version_policy policy; /**< of a model of the repository; not a key */
};

enum xn_config_missing { XN_MISSING_REFUSE, XN_MISSING_SERVE };

struct xn_config_accelerator {
    char *kind;                          /**< "cpu", "xrt" */
    char *device, *image, *cpu_mask;     /**< as struct xn_accel_options; NULL: default */
    uint32_t instances, threads;         /**< 0: automatic */
    enum xn_config_missing when_missing; /**< it cannot be opened: do not start, or serve with the others */
    double idle_watts, busy_watts;       /**< declared, for an estimate where no sensor measures; < 0: not declared */
};

struct xn_config_sensor { /**< power sensors, tried in order for each domain; see daemon/observe/power.h */
    char *kind;           /**< "rapl", "hwmon", "xocl" */
    char *domain;         /**< power domain it measures: "cpu", PCI address ... ; NULL: the kind's own */
    char *match;          /**< hwmon: prefix of the device's name; NULL: ina2xx by the board tables */
};

/** How a request is refused whose model's queue has no room. */
enum xn_config_queue_full { XN_QUEUE_FULL_503, XN_QUEUE_FULL_429 };

/** May requests change what the server does? */
enum xn_config_control {
    XN_CONTROL_NONE,     /**< no */
    XN_CONTROL_EXPLICIT, /**< whoever may use the port may load, unload, and set the log level */
};

/** Who may register, use and unregister shared memory? Roles of tokens apply besides. */
enum xn_config_shared {
    XN_SHARED_OFF,
    XN_SHARED_LOCAL, /**< who comes by a unix socket, by loopback, or from the address that is connected to */
    XN_SHARED_ON,    /**< whoever may use the port */
};

struct xn_config {
    char *path; /**< of the file read; NULL: built-in defaults */
    struct xn_config_listener listeners[XN_CONFIG_LISTENERS_MAX];
    uint32_t n_listeners;
    struct xn_config_model models[XN_CONFIG_MODELS_MAX];
    uint32_t n_models;
    char *default_model;                 /**< served by POST /infer without ?model=; NULL: the first */
    char *tokens;                        /**< file of bearer tokens; NULL: nobody is asked for one */
    enum xn_config_shared shared_memory; /**< default local */
    struct xn_config_accelerator accelerators[XN_CONFIG_ACCELERATORS_MAX];
    uint32_t n_accelerators;
    struct {
        uint32_t threads;                            /**< epoll threads, 1..64; 0: min(CPUs, 4) */
        uint32_t connections;                        /**< 1..100000, default 1024 */
        uint32_t connections_per_ip;                 /**< 0: no limit, default 0 */
        uint32_t idle_timeout_s;                     /**< connection without a byte, 1..3600, default 30 */
        uint32_t body_timeout_s;                     /**< whole body must have arrived, 1..3600, default 30 */
        enum xn_config_queue_full queue_full_status; /**< default 503 */
    } http;
    struct {
        uint32_t requests;              /**< admitted at once, 1..65536, default 1024 */
        uint32_t images_per_request;    /**< 1..1024, default 64 */
        uint32_t client_requests;       /**< of one client under way, 0..65536; 0, the default: no limit of its own */
        uint32_t client_requests_per_s; /**< 0..1000000; 0, the default: no limit */
        uint64_t body_bytes;            /**< 1 KiB..1 GiB, default 16 MiB */
        uint64_t json_bytes;            /**< of a JSON body, default 4 MiB */
        uint64_t buffer_bytes;          /**< address space of all request buffers, default 256 MiB (resident as used) */
        uint32_t image_pixels;          /**< of a picture as its file claims, default 64 Mpixel */
        uint32_t shared_regions;        /**< of shared memory registered at once, 0..1024, default 64; 0: none */
        uint64_t shared_bytes;          /**< of all of them, default 1 GiB */
    } limits;
    struct {
        uint32_t threads; /**< decoder threads, 0: CPUs */
    } image;
    struct {
        uint32_t sample_ms; /**< 10..60000, default 100 */
        char *hwmon_root, *powercap_root,
            *pci_root; /**< for tests; defaults /sys/class/hwmon, /sys/class/powercap, /sys/bus/pci/devices */
        struct xn_config_sensor sensors[XN_CONFIG_SENSORS_MAX];
        uint32_t n_sensors; /**< 0: all kinds are tried */
    } power;
    struct {
        double watts_cap;    /**< of all running instances; < 0: none */
        double watts_budget; /**< joules a second on average; < 0: none */
        uint32_t delay_us;   /**< how long a batch may wait for others to save joules, 0..1e6, default 20000 */
    } eco;
    struct {
        enum xn_log_level level;
        enum xn_log_target target;
        uint32_t slow_ms; /**< a request that takes as long is logged, 0..600000; 0, the default: none is */
    } log;
    struct {
        char *path;        /**< folder of models that come and go; NULL: none */
        uint32_t poll_ms;  /**< time between looks at it, 0..3600000, default 1000; 0: only at start and reload */
        uint32_t versions; /**< of a model served at a time, 1..16, default 1: the latest */
        enum xn_config_control control;
    } repository;
    uint32_t drain_timeout_s; /**< SIGTERM: longest wait for admitted requests, default 30 */
};

/** Fill with defaults (one CPU accelerator, one listener, no model). */
void xn_config_init(struct xn_config *config);

/** Read `path` over the defaults and check it whole. On failure the text is "FILE:LINE: key models[0].max_batch:
 *  must be 1..1024, is 0" and *config is as after xn_config_init. Errors: -ENOENT, -EACCES, -EINVAL, -EFBIG (over 1
 *  MiB), -ENOMEM. */
XN_MUST_CHECK int xn_config_load(struct xn_config *config, const char *path, struct xn_error *error);

/** The same from memory, `name` standing for the file in messages. For tests and fuzzing. */
XN_MUST_CHECK int xn_config_load_memory(struct xn_config *config, const char *name, const char *text, size_t bytes,
                                        struct xn_error *error);

/* Command-line overrides, applied after load (main.c). Errors: -EINVAL (the text names the option's value and the
 * rule), -ENOMEM. */

/** Listener `index` (0 first: the configured ones are forgotten) := "ADDRESS:PORT", "[IPv6]:PORT" or "unix:PATH". */
XN_MUST_CHECK int xn_config_set_listen(struct xn_config *config, uint32_t index, const char *text,
                                       struct xn_error *error);
/** Model `index` (0 first: the configured ones and the default model are forgotten) := "[NAME=]FILE", relative to
 *  the working folder. */
XN_MUST_CHECK int xn_config_set_model(struct xn_config *config, uint32_t index, const char *text,
                                      struct xn_error *error);
/** One key, checked as in a file: ("accelerators[0].threads", "2"), ("log.level", "debug"). */
XN_MUST_CHECK int xn_config_set(struct xn_config *config, const char *key, const char *value, struct xn_error *error);

/** Every key with its type, range, default and line of help, as a JSON array to `to` (a FILE *). Returns 0 or -EIO. */
int xn_config_dump_keys(FILE *to);

/** A model with every key at its default. */
void xn_config_model_init(struct xn_config_model *model);

/** May `text` be the name of a model: 1..63 of [A-Za-z0-9._-], not beginning with a dot? Then it is no path either. */
bool xn_config_is_name(const char *text);

/** Free what it points to and leave it as after xn_config_init. */
void xn_config_done(struct xn_config *config);

#endif
