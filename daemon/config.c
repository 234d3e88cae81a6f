/* SPDX-License-Identifier: Apache-2.0
 * One table says everything about every key: where it stands in the file, type, range, default, place in struct
 * xn_config, one line of help. Reading, checking, freeing, the command line's overrides, --print-config-keys and
 * every message are loops over it; config/xnord.schema.json and xnord.json(5) are compared with it by tests.
 *
 * A file is a root object with sections, which are objects ("http") or arrays of objects ("models"). Sections are
 * read in the table's order, parents before children. A failure is described by its key alone; the line is looked up
 * in the text afterwards (config_locate.h).
 *
 * Strings: a slot holds NULL, a literal of the table (the default, or one of the choices), or memory of its own;
 * free_slot tells them apart. */
#include "daemon/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/fault.h"
#include "daemon/config_locate.h"

#define FILE_BYTES_MAX   (1u << 20)
#define DEPTH_MAX        8u
#define STRING_BYTES_MAX 4095u
#define NAME_BYTES_MAX   63u
#define KEY_BYTES        256u /* of a whole key: models[63].max_delay_us */
#define WATTS_MAX        100000u

enum key_type {
    KEY_U16,
    KEY_U32,
    KEY_U64,
    KEY_WATTS, /* a double, negative where not declared */
    KEY_STRING,
    KEY_NAME,    /* [A-Za-z0-9._-], as model files have it */
    KEY_ADDRESS, /* IPv4 or IPv6 literal */
    KEY_PATH,    /* made relative to the configuration's folder */
    KEY_CHOICE,  /* a string of `choices` */
    KEY_ENUM,    /* its index in `choices`, as an enum */
};

struct key {
    const char *name;
    enum key_type type;
    bool required;
    size_t offset;              /* in its section's struct */
    uint64_t min, max, initial; /* numbers; KEY_ENUM: initial */
    const char *initial_text;   /* strings; NULL: none */
    const char *const *choices; /* NULL-terminated */
    const char *help;
};

struct section {
    const char *name; /* "" the root; "power.sensors" inside "power" */
    const struct key *keys;
    size_t n_keys;
    size_t offset;     /* of the struct or array in xn_config */
    uint32_t min, max; /* elements of an array; max 0: an object */
    size_t element_bytes, n_offset;
    const char *help;
};

static const char *const log_levels[] = {"error", "warning", "info", "debug", NULL};
static const char *const socket_modes[] = {"0600", "0660", "0666", NULL};
static const char *const log_targets[] = {"auto", "stderr", "journal", NULL};
static const char *const accelerator_kinds[] = {"cpu", "xrt", NULL};
static const char *const controls[] = {"none", "explicit", NULL};
static const char *const queue_full_statuses[] = {"503", "429", NULL};
static const char *const sharings[] = {"off", "local", "on", NULL};
static const char *const missing_choices[] = {"refuse", "serve", NULL};
static const char *const sensor_kinds[] = {"rapl", "hwmon", "xocl", NULL};

_Static_assert(XN_MISSING_REFUSE == 0 && XN_MISSING_SERVE == 1, "missing_choices follows enum xn_config_missing");
_Static_assert(XN_QUEUE_FULL_503 == 0 && XN_QUEUE_FULL_429 == 1,
               "queue_full_statuses follows enum xn_config_queue_full");
_Static_assert(XN_SHARED_OFF == 0 && XN_SHARED_LOCAL == 1 && XN_SHARED_ON == 2,
               "sharings follows enum xn_config_shared");
_Static_assert(XN_LOG_ERROR == 0 && XN_LOG_DEBUG == 3, "log_levels follows enum xn_log_level");
_Static_assert(XN_LOG_AUTO == 0 && XN_LOG_JOURNAL == 2, "log_targets follows enum xn_log_target");
_Static_assert(XN_CONTROL_NONE == 0 && XN_CONTROL_EXPLICIT == 1, "controls follows enum xn_config_control");
_Static_assert(sizeof(enum xn_config_control) == sizeof(uint32_t) && sizeof(enum xn_log_level) == sizeof(uint32_t) &&
                   sizeof(enum xn_log_target) == sizeof(uint32_t),
               "KEY_ENUM");

#define NUMBER(kind_, owner, member, lo, hi, value, text)                                                              \
    {                                                                                                                  \
        .name = #member, .type = (kind_), .offset = offsetof(owner, member), .min = (lo), .max = (hi),                 \
        .initial = (value), .help = text                                                                               \
    }
#define TEXT(kind_, owner, member, value, text)                                                                        \
    {                                                                                                                  \
        .name = #member, .type = (kind_), .offset = offsetof(owner, member), .initial_text = (value), .help = text     \
    }
#define REQUIRED(kind_, owner, member, list, text)                                                                     \
    {                                                                                                                  \
        .name = #member, .type = (kind_), .required = true, .offset = offsetof(owner, member), .choices = (list),      \
        .help = text                                                                                                   \
    }
#define CHOICE(owner, member, list, value, text)                                                                       \
    {                                                                                                                  \
        .name = #member, .type = KEY_ENUM, .offset = offsetof(owner, member), .initial = (value), .choices = (list),   \
        .help = text                                                                                                   \
    }

static const struct key root_keys[] = {
    TEXT(KEY_NAME, struct xn_config, default_model, NULL,
         "model that POST /infer uses when the request names none; the first one where absent"),
    TEXT(KEY_PATH, struct xn_config, tokens, NULL, "file of bearer tokens; nobody is asked for one where absent"),
    CHOICE(
        struct xn_config, shared_memory, sharings, XN_SHARED_LOCAL,
        "who may register, use and unregister shared memory: nobody, clients on this machine, or whoever may use the "
        "port"),
    NUMBER(KEY_U32, struct xn_config, drain_timeout_s, 0, 3600, 30,
           "after SIGTERM, how long admitted requests may take to be answered, in seconds"),
};

#define LISTEN struct xn_config_listener
static const struct key listen_keys[] = {
    TEXT(KEY_ADDRESS, LISTEN, address, "127.0.0.1",
         "IPv4 or IPv6 address to listen on; 0.0.0.0 or :: for all interfaces"),
    NUMBER(KEY_U16, LISTEN, port, 0, 65535, 8000, "TCP port; 0 lets the kernel choose, see --port-file"),
    {.name = "unix",
     .type = KEY_PATH,
     .offset = offsetof(LISTEN, unix_path),
     .help = "path of a unix socket to listen on, in place of address and port"},
    CHOICE(LISTEN, mode, socket_modes, 1, "permissions of the unix socket: who may connect"),
    TEXT(KEY_NAME, LISTEN, name, NULL,
         "the socket of this name that the service manager hands over; the one with the same address where absent"),
    TEXT(KEY_PATH, LISTEN, certificate, NULL,
         "TLS: PEM file of the certificate and those that lead to its authority; needs key"),
    TEXT(KEY_PATH, LISTEN, key, NULL, "TLS: PEM file of the private key; needs certificate"),
};

#define MODEL struct xn_config_model
static const struct key model_keys[] = {
    TEXT(KEY_NAME, MODEL, name, NULL, "name it is served under; the name in the file's own metadata where absent"),
    REQUIRED(KEY_PATH, MODEL, path, NULL, "the .xnor file; a relative path starts at this configuration file's folder"),
    NUMBER(KEY_U32, MODEL, max_batch, 1, XN_CONFIG_BATCH_MAX, 32, "largest batch, in images"),
    NUMBER(KEY_U32, MODEL, max_delay_us, 0, 1000000, 1000,
           "how long the first image of a batch may wait for others, in microseconds"),
    NUMBER(KEY_U32, MODEL, preferred_batch, 0, 1024, 0,
           "a batch of a multiple of this many images waits for no more; 0: none"),
    NUMBER(KEY_U32, MODEL, queue_limit, 1, 65536, 1024,
           "images that may wait; more are refused, see http.queue_full_status"),
    NUMBER(KEY_U32, MODEL, timeout_ms, 1, 600000, 10000,
           "deadline of a request that brings none of its own, in milliseconds"),
};

#define ACCELERATOR struct xn_config_accelerator
static const struct key accelerator_keys[] = {
    REQUIRED(KEY_CHOICE, ACCELERATOR, kind, accelerator_kinds,
             "what computes: this machine's CPU, or a device behind XRT"),
    TEXT(KEY_STRING, ACCELERATOR, device, NULL, "which device: xrt: PCI address or index; any where absent"),
    TEXT(KEY_PATH, ACCELERATOR, image, NULL, "xrt: the .xclbin file to load"),
    TEXT(KEY_STRING, ACCELERATOR, cpu_mask, NULL,
         "cpu: highest instruction set level to use; the best there is where absent"),
    NUMBER(KEY_U32, ACCELERATOR, instances, 0, 64, 0,
           "instances, each running one batch at a time; 0: what the device has (cpu: 1)"),
    NUMBER(KEY_U32, ACCELERATOR, threads, 0, 1024, 0,
           "cpu: threads of each instance; 0: the CPUs of the process, shared out"),
    CHOICE(ACCELERATOR, when_missing, missing_choices, XN_MISSING_REFUSE,
           "it is not there at the start, or another process has it: refuse to start, or serve with the other "
           "accelerators"),
    NUMBER(KEY_WATTS, ACCELERATOR, idle_watts, 0, WATTS_MAX, 0,
           "declared power while idle, in watts: for an energy estimate where no sensor measures; needs busy_watts"),
    NUMBER(KEY_WATTS, ACCELERATOR, busy_watts, 0, WATTS_MAX, 0,
           "declared power while every instance is busy, in watts; needs idle_watts"),
};

#define HTTP __typeof__(((struct xn_config *)NULL)->http)
static const struct key http_keys[] = {
    NUMBER(KEY_U32, HTTP, threads, 0, 64, 0, "threads that serve connections; 0: one a CPU, at most 4"),
    NUMBER(KEY_U32, HTTP, connections, 1, 100000, 1024, "open connections"),
    NUMBER(KEY_U32, HTTP, connections_per_ip, 0, 100000, 0, "open connections from one address; 0: no limit"),
    NUMBER(KEY_U32, HTTP, idle_timeout_s, 1, 3600, 30, "a connection without a byte is closed after this many seconds"),
    NUMBER(KEY_U32, HTTP, body_timeout_s, 1, 3600, 30, "a body must have arrived whole after this many seconds"),
    CHOICE(HTTP, queue_full_status, queue_full_statuses, XN_QUEUE_FULL_503,
           "status of the answer where a model's queue has no room: Service Unavailable, or Too Many Requests"),
};

#define LIMITS __typeof__(((struct xn_config *)NULL)->limits)
static const struct key limit_keys[] = {
    NUMBER(KEY_U32, LIMITS, requests, 1, 65536, 1024, "requests admitted at once; more are refused with 503"),
    NUMBER(KEY_U32, LIMITS, images_per_request, 1, 1024, 64, "images or tensors in one request"),
    NUMBER(KEY_U32, LIMITS, client_requests, 0, 65536, 0,
           "requests of one client under way; more are refused with 429; 0: no limit"),
    NUMBER(KEY_U32, LIMITS, client_requests_per_s, 0, 1000000, 0,
           "requests of one client in a second; more are refused with 429; 0: no limit"),
    NUMBER(KEY_U64, LIMITS, body_bytes, 1024, UINT64_C(1) << 30, UINT64_C(16) << 20, "bytes of a request's body"),
    NUMBER(KEY_U64, LIMITS, json_bytes, 1024, UINT64_C(1) << 30, UINT64_C(4) << 20, "bytes of a JSON body"),
    NUMBER(KEY_U64, LIMITS, buffer_bytes, UINT64_C(1) << 20, UINT64_C(1) << 36, UINT64_C(256) << 20,
           "address space of all request buffers, in bytes; memory becomes resident as it is used"),
    NUMBER(KEY_U32, LIMITS, image_pixels, 1024, 1u << 30, 64u << 20, "pixels of a picture, as its file claims"),
    NUMBER(KEY_U32, LIMITS, shared_regions, 0, 1024, 64,
           "shared memory regions that clients may have registered at once; 0: none"),
    NUMBER(KEY_U64, LIMITS, shared_bytes, 4096, UINT64_C(1) << 40, UINT64_C(1) << 30,
           "bytes of all registered shared memory regions"),
};

#define IMAGE __typeof__(((struct xn_config *)NULL)->image)
static const struct key image_keys[] = {
    NUMBER(KEY_U32, IMAGE, threads, 0, 256, 0, "threads that decode pictures; 0: one a CPU"),
};

#define POWER __typeof__(((struct xn_config *)NULL)->power)
static const struct key power_keys[] = {
    NUMBER(KEY_U32, POWER, sample_ms, 10, 60000, 100, "time between samples of each sensor, in milliseconds"),
    TEXT(KEY_STRING, POWER, hwmon_root, "/sys/class/hwmon", "where hwmon devices are found"),
    TEXT(KEY_STRING, POWER, powercap_root, "/sys/class/powercap", "where RAPL domains are found"),
    TEXT(KEY_STRING, POWER, pci_root, "/sys/bus/pci/devices", "where PCI devices are found"),
};

#define SENSOR struct xn_config_sensor
static const struct key sensor_keys[] = {
    REQUIRED(KEY_CHOICE, SENSOR, kind, sensor_kinds, "where to look: RAPL counters, hwmon devices, Alveo cards"),
    TEXT(KEY_STRING, SENSOR, domain, NULL,
         "power domain it measures (\"cpu\", \"board\", a PCI address); the kind's own where absent"),
    TEXT(KEY_STRING, SENSOR, match, NULL, "prefix of the device's name; hwmon: the board tables where absent"),
};

#define ECO __typeof__(((struct xn_config *)NULL)->eco)
static const struct key eco_keys[] = {
    NUMBER(KEY_WATTS, ECO, watts_cap, 0, WATTS_MAX, 0,
           "no batch starts while those that run draw so much together, in watts"),
    NUMBER(KEY_WATTS, ECO, watts_budget, 0, WATTS_MAX, 0,
           "energy that inference may take on average, in joules a second"),
    NUMBER(KEY_U32, ECO, delay_us, 0, 1000000, 20000,
           "with a cap or a budget, how long a batch may wait for others to save energy, in microseconds"),
};

#define REPOSITORY __typeof__(((struct xn_config *)NULL)->repository)
static const struct key repository_keys[] = {
    TEXT(KEY_PATH, REPOSITORY, path, NULL,
         "folder of models that are loaded, replaced and unloaded as its files change; none where absent"),
    NUMBER(KEY_U32, REPOSITORY, poll_ms, 0, 3600000, 1000,
           "time between two looks at the folder, in milliseconds; 0: only at the start and at a reload"),
    NUMBER(KEY_U32, REPOSITORY, versions, 1, XN_CONFIG_VERSIONS_MAX, 1,
           "versions of a model that are served at a time, the highest numbers first"),
    CHOICE(REPOSITORY, control, controls, XN_CONTROL_NONE,
           "who may load and unload models and set the log level over HTTP: nobody, or whoever may use the port"),
};

#define LOG __typeof__(((struct xn_config *)NULL)->log)
static const struct key log_keys[] = {
    CHOICE(LOG, level, log_levels, XN_LOG_INFO, "what is logged: this level and those before it"),
    CHOICE(LOG, target, log_targets, XN_LOG_AUTO,
           "where to: auto is the journal when standard error is connected to it"),
    NUMBER(KEY_U32, LOG, slow_ms, 0, 600000, 0,
           "an inference request that takes this many milliseconds or more is logged, with where the time went; 0: "
           "none is"),
};

#define OBJECT(member, list, text)                                                                                     \
    {                                                                                                                  \
        .name = #member, .keys = list, .n_keys = XN_ARRAY_LEN(list), .offset = offsetof(struct xn_config, member),     \
        .help = text                                                                                                   \
    }
#define ARRAY(label, list, array, count, lo, hi, text)                                                                 \
    {                                                                                                                  \
        .name = label, .keys = list, .n_keys = XN_ARRAY_LEN(list), .offset = offsetof(struct xn_config, array),        \
        .min = (lo), .max = (hi), .element_bytes = sizeof(((struct xn_config *)NULL)->array[0]),                       \
        .n_offset = offsetof(struct xn_config, count), .help = text                                                    \
    }

/* Parents stand before their children. */
static const struct section sections[] = {
    {.name = "", .keys = root_keys, .n_keys = XN_ARRAY_LEN(root_keys), .help = "the configuration"},
    ARRAY("listen", listen_keys, listeners, n_listeners, 1, XN_CONFIG_LISTENERS_MAX,
          "addresses to listen on; 127.0.0.1:8000 where absent"),
    ARRAY("models", model_keys, models, n_models, 0, XN_CONFIG_MODELS_MAX, "networks to serve"),
    ARRAY("accelerators", accelerator_keys, accelerators, n_accelerators, 1, XN_CONFIG_ACCELERATORS_MAX,
          "what runs them; one CPU accelerator where absent"),
    OBJECT(http, http_keys, "the HTTP server"),
    OBJECT(limits, limit_keys, "what one request, and all together, may take"),
    OBJECT(image, image_keys, "picture decoding"),
    OBJECT(power, power_keys, "power sensors"),
    ARRAY("power.sensors", sensor_keys, power.sensors, power.n_sensors, 0, XN_CONFIG_SENSORS_MAX,
          "where to look for sensors, in this order; everywhere where absent or empty"),
    OBJECT(eco, eco_keys,
           "saving energy: instances and batches are chosen for the fewest joules that keep the deadlines"),
    OBJECT(repository, repository_keys, "the model repository"),
    OBJECT(log, log_keys, "the log"),
};

/* ---- slots: where a key's value lies ---- */

static void *slot_of(const struct key *key, void *base)
{
    return (char *)base + key->offset;
}

static bool is_text(enum key_type type)
{
    return type == KEY_STRING || type == KEY_NAME || type == KEY_ADDRESS || type == KEY_PATH || type == KEY_CHOICE;
}

static void free_slot(const struct key *key, void *base)
{
    char **slot = slot_of(key, base);

    if (is_text(key->type) && key->type != KEY_CHOICE && *slot != key->initial_text)
        free(*slot);
}

static void write_number(const struct key *key, void *base, double value)
{
    void *slot = slot_of(key, base);

    if (key->type == KEY_U16)
        *(uint16_t *)slot = (uint16_t)value;
    else if (key->type == KEY_U64)
        *(uint64_t *)slot = (uint64_t)value;
    else if (key->type == KEY_WATTS)
        *(double *)slot = value;
    else
        *(uint32_t *)slot = (uint32_t)value;
}

static void init_struct(const struct section *section, void *base)
{
    for (size_t i = 0; i < section->n_keys; i++) {
        const struct key *key = &section->keys[i];
        if (is_text(key->type))
            *(char **)slot_of(key, base) = (char *)key->initial_text;
        else
            write_number(key, base, key->type == KEY_WATTS ? -1 : (double)key->initial);
    }
}

static void done_struct(const struct section *section, void *base)
{
    for (size_t i = 0; i < section->n_keys; i++)
        free_slot(&section->keys[i], base);
}

static void *element(const struct section *section, struct xn_config *config, size_t i)
{
    return (char *)config + section->offset + i * section->element_bytes;
}

static uint32_t *element_count(const struct section *section, struct xn_config *config)
{
    return (uint32_t *)(void *)((char *)config + section->n_offset);
}

/* Forget an array's elements. */
static void clear_array(const struct section *section, struct xn_config *config)
{
    uint32_t *n = element_count(section, config);

    while (*n > 0)
        done_struct(section, element(section, config, --*n));
}

/* The caller has checked that there is room. */
static void *add_element(const struct section *section, struct xn_config *config)
{
    void *base = element(section, config, (*element_count(section, config))++);

    memset(base, 0, section->element_bytes);
    init_struct(section, base);
    return base;
}

static const struct section *find_section(const char *name)
{
    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++) {
        if (strcmp(sections[i].name, name) == 0)
            return &sections[i];
    }
    return NULL;
}

static const struct key *find_key(const struct section *section, const char *name)
{
    for (size_t i = 0; i < section->n_keys; i++) {
        if (strcmp(section->keys[i].name, name) == 0)
            return &section->keys[i];
    }
    return NULL;
}

void xn_config_model_init(struct xn_config_model *model)
{
    memset(model, 0, sizeof(*model));
    init_struct(find_section("models"), model);
}

void xn_config_init(struct xn_config *config)
{
    memset(config, 0, sizeof(*config));
    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++) {
        if (sections[i].max == 0)
            init_struct(&sections[i], element(&sections[i], config, 0));
    }
    (void)add_element(find_section("listen"), config);
    struct xn_config_accelerator *cpu = add_element(find_section("accelerators"), config);
    cpu->kind = (char *)accelerator_kinds[0];
}

void xn_config_done(struct xn_config *config)
{
    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++) {
        if (sections[i].max > 0)
            clear_array(&sections[i], config);
        else
            done_struct(&sections[i], element(&sections[i], config, 0));
    }
    free(config->path);
    xn_config_init(config);
}

/* ---- values: what a key may be ---- */

/* "is ..." for messages. */
static const char *describe(const json_t *value, char *ret, size_t capacity)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        snprintf(ret, capacity, "\"%.60s\"%s", json_string_value(value), json_string_length(value) > 60 ? "..." : "");
        break;
    case JSON_INTEGER:
        snprintf(ret, capacity, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(ret, capacity, "%.12g", json_real_value(value));
        break;
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_NULL:
        return "null";
    default:
        return json_is_true(value) ? "true" : "false";
    }
    return ret;
}

/* "error, warning, info or debug" */
static void list_choices(const char *const *choices, char *ret, size_t capacity)
{
    size_t length = 0;

    ret[0] = '\0';
    for (size_t i = 0; choices[i] && length < capacity; i++) {
        const char *joint = i == 0 ? "" : choices[i + 1] ? ", " : " or ";
        int n = snprintf(ret + length, capacity - length, "%s%s", joint, choices[i]);
        length += n < 0 ? 0 : (size_t)n;
    }
}

static int put_number(const struct key *key, void *base, const json_t *value, struct xn_error *why)
{
    char is[80];
    double number = json_is_number(value) ? json_number_value(value) : -1;
    bool whole = json_is_number(value) && number == floor(number);

    if (key->type == KEY_WATTS ? !json_is_number(value) : !whole)
        return xn_error_set(why, -EINVAL, "must be a %s %" PRIu64 "..%" PRIu64 ", is %s",
                            key->type == KEY_WATTS ? "number" : "whole number", key->min, key->max,
                            describe(value, is, sizeof(is)));
    if (number < (double)key->min || number > (double)key->max)
        return xn_error_set(why, -EINVAL, "must be %" PRIu64 "..%" PRIu64 ", is %s", key->min, key->max,
                            describe(value, is, sizeof(is)));
    write_number(key, base, number);
    return 0;
}

static int put_choice(const struct key *key, void *base, const json_t *value, struct xn_error *why)
{
    const char *text = json_string_value(value);
    char is[80], list[160];

    for (uint32_t i = 0; text && key->choices[i]; i++) {
        if (strcmp(text, key->choices[i]) != 0)
            continue;
        if (key->type == KEY_ENUM)
            *(uint32_t *)slot_of(key, base) = i;
        else
            *(char **)slot_of(key, base) = (char *)key->choices[i];
        return 0;
    }
    list_choices(key->choices, list, sizeof(list));
    return xn_error_set(why, -EINVAL, "must be %s, is %s", list, describe(value, is, sizeof(is)));
}

bool xn_config_is_name(const char *text)
{
    size_t length = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return length > 0 && length <= NAME_BYTES_MAX && text[length] == '\0' && text[0] != '.';
}

static bool is_address(const char *text)
{
    struct in6_addr address;

    return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

/* `text` itself, or under `folder` where it is relative and there is one. NULL: no memory. */
static char *resolve_path(const char *folder, const char *text)
{
    if (!folder || folder[0] == '\0' || text[0] == '/')
        return xn_strdup(text);
    size_t bytes = strlen(folder) + 1 + strlen(text) + 1;
    char *path = xn_calloc(1, bytes);
    if (path)
        snprintf(path, bytes, "%s/%s", folder, text);
    return path;
}

static int put_text(const struct key *key, void *base, const json_t *value, const char *folder, struct xn_error *why)
{
    const char *text = json_string_value(value);
    char is[80];
    const char *rule = NULL;

    if (!text)
        rule = "must be a string";
    else if (text[0] == '\0')
        rule = "must not be empty; leave the key out for its default";
    else if (strlen(text) > STRING_BYTES_MAX)
        rule = "must be at most 4095 bytes long";
    else if (key->type == KEY_NAME && !xn_config_is_name(text))
        rule = "must be 1..63 characters of A-Z a-z 0-9 . _ - and not begin with a dot";
    else if (key->type == KEY_ADDRESS && !is_address(text))
        rule = "must be an IPv4 or IPv6 address in figures";
    if (rule)
        return xn_error_set(why, -EINVAL, "%s, is %s", rule, describe(value, is, sizeof(is)));

    char *copy = resolve_path(key->type == KEY_PATH ? folder : NULL, text);
    if (!copy)
        return xn_error_set(why, -ENOMEM, "no memory");
    free_slot(key, base);
    *(char **)slot_of(key, base) = copy;
    return 0;
}

/* Check `value` and store it. On failure `why` holds the rule and what was found. */
static int put_value(const struct key *key, void *base, const json_t *value, const char *folder, struct xn_error *why)
{
    if (key->choices)
        return put_choice(key, base, value, why);
    if (is_text(key->type))
        return put_text(key, base, value, folder, why);
    return put_number(key, base, value, why);
}

/* ---- rules between keys ---- */

static int relate_models(const struct xn_config *config, char *ret_key, struct xn_error *why)
{
    bool all_named = true, default_found = false;

    for (uint32_t i = 0; i < config->n_models; i++) {
        const char *name = config->models[i].name;
        all_named = all_named && name;
        default_found = default_found || (name && config->default_model && strcmp(name, config->default_model) == 0);
        for (uint32_t k = 0; name && k < i; k++) {
            if (!config->models[k].name || strcmp(config->models[k].name, name) != 0)
                continue;
            snprintf(ret_key, KEY_BYTES, "models[%u].name", i);
            return xn_error_set(why, -EINVAL, "must differ from models[%u].name, both are \"%s\"", k, name);
        }
    }
    /* A model without a name here gets it from its file, and the repository has names of its own: then only loading can tell. */
    if (!config->default_model || default_found || !all_named || config->n_models == 0 || config->repository.path)
        return 0;
    snprintf(ret_key, KEY_BYTES, "default_model");
    return xn_error_set(why, -EINVAL, "must be the name of one of the models, is \"%s\"", config->default_model);
}

static bool is_same_place(const struct xn_config_listener *a, const struct xn_config_listener *b)
{
    if (a->unix_path || b->unix_path)
        return a->unix_path && b->unix_path && strcmp(a->unix_path, b->unix_path) == 0;
    return a->port != 0 && a->port == b->port && strcmp(a->address, b->address) == 0;
}

static int relate_listeners(const struct xn_config *config, char *ret_key, struct xn_error *why)
{
    for (uint32_t i = 0; i < config->n_listeners; i++) {
        const struct xn_config_listener *a = &config->listeners[i];
        if (!a->certificate != !a->key) {
            snprintf(ret_key, KEY_BYTES, "listen[%u].%s", i, a->key ? "key" : "certificate");
            return xn_error_set(why, -EINVAL, "needs %s beside it", a->key ? "certificate" : "key");
        }
        for (uint32_t k = 0; k < i; k++) {
            if (!is_same_place(a, &config->listeners[k]))
                continue;
            snprintf(ret_key, KEY_BYTES, "listen[%u]", i);
            if (a->unix_path)
                return xn_error_set(why, -EINVAL, "is the same as listen[%u], %s", k, a->unix_path);
            return xn_error_set(why, -EINVAL, "is the same as listen[%u], %s port %u", k, a->address, a->port);
        }
    }
    return 0;
}

static int relate_watts(const struct xn_config *config, char *ret_key, struct xn_error *why)
{
    for (uint32_t i = 0; i < config->n_accelerators; i++) {
        const struct xn_config_accelerator *a = &config->accelerators[i];
        bool idle = a->idle_watts >= 0, busy = a->busy_watts >= 0;
        if (idle == busy && !(a->busy_watts < a->idle_watts))
            continue;
        snprintf(ret_key, KEY_BYTES, "accelerators[%u].%s", i, busy ? "busy_watts" : "idle_watts");
        if (idle != busy)
            return xn_error_set(why, -EINVAL, "needs %s beside it", busy ? "idle_watts" : "busy_watts");
        return xn_error_set(why, -EINVAL, "must be at least idle_watts, is %g, and idle_watts is %g", a->busy_watts,
                            a->idle_watts);
    }
    return 0;
}

static int relate_limits(const struct xn_config *config, char *ret_key, struct xn_error *why)
{
    if (config->limits.buffer_bytes >= config->limits.body_bytes)
        return 0;
    snprintf(ret_key, KEY_BYTES, "limits.buffer_bytes");
    return xn_error_set(why, -EINVAL, "must be at least limits.body_bytes, is %" PRIu64 ", and body_bytes is %" PRIu64,
                        config->limits.buffer_bytes, config->limits.body_bytes);
}

/* On failure *ret_key (KEY_BYTES) is the key to blame. */
static int check_relations(const struct xn_config *config, char *ret_key, struct xn_error *why)
{
    int r = relate_models(config, ret_key, why);

    r = r < 0 ? r : relate_listeners(config, ret_key, why);
    r = r < 0 ? r : relate_watts(config, ret_key, why);
    return r < 0 ? r : relate_limits(config, ret_key, why);
}

/* ---- reading ---- */

struct reader {
    const char *name, *text; /* the file */
    size_t bytes;
    char *folder; /* that relative paths start at; NULL: the working folder */
    const json_t *root;
    struct xn_config *config;
    struct xn_error *error;
};

/* "FILE:LINE: key KEY: WHY". */
static int fail_at(const struct reader *r, const char *key, int code, const char *why)
{
    unsigned line = xn_json_line(r->text, r->bytes, key);

    if (key[0] == '\0')
        return xn_error_set(r->error, code, "%s:%u: %s", r->name, line, why);
    return xn_error_set(r->error, code, "%s:%u: key %s: %s", r->name, line, key, why);
}

/* Edit distance, for "did you mean". Both are short: `a` is one of our keys. */
static size_t distance(const char *a, const char *b)
{
    size_t row[64], n = XN_MIN(strlen(a), XN_ARRAY_LEN(row) - 1);

    for (size_t i = 0; i <= n; i++)
        row[i] = i;
    for (size_t j = 1; b[j - 1] && j < XN_ARRAY_LEN(row); j++) {
        size_t diagonal = row[0];
        row[0] = j;
        for (size_t i = 1; i <= n; i++) {
            size_t above = row[i], replaced = diagonal + (a[i - 1] != b[j - 1]);
            row[i] = XN_MIN(replaced, XN_MIN(above, row[i - 1]) + 1);
            diagonal = above;
        }
    }
    return row[n];
}

/* What `other` is called inside `section`, or NULL: it is not. "power.sensors" is "sensors" in "power". */
static const char *child_name(const struct section *section, const struct section *other)
{
    size_t length = strlen(section->name);

    if (other == section || strncmp(other->name, section->name, length) != 0)
        return NULL;
    if (length == 0)
        return strchr(other->name, '.') ? NULL : other->name;
    return other->name[length] == '.' ? other->name + length + 1 : NULL;
}

static bool has_member(const struct section *section, const char *name)
{
    if (find_key(section, name))
        return true;
    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++) {
        const char *child = child_name(section, &sections[i]);
        if (child && strcmp(child, name) == 0)
            return true;
    }
    return false;
}

static void consider(const char *candidate, const char *name, const char **best, size_t *best_distance)
{
    size_t d = candidate ? distance(candidate, name) : SIZE_MAX;

    if (d < *best_distance) {
        *best = candidate;
        *best_distance = d;
    }
}

static int unknown_key(const struct reader *r, const struct section *section, const char *key, const char *name)
{
    const char *best = NULL;
    size_t best_distance = 2 + strlen(name) / 3;
    struct xn_error why;

    for (size_t i = 0; i < section->n_keys; i++)
        consider(section->keys[i].name, name, &best, &best_distance);
    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++)
        consider(child_name(section, &sections[i]), name, &best, &best_distance);
    if (best)
        (void)xn_error_set(&why, 0, "there is no such key; did you mean \"%s\"?", best);
    else
        (void)xn_error_set(&why, 0, "there is no such key; see xnord.json(5)");
    return fail_at(r, key, -EINVAL, why.text);
}

static int read_object(const struct reader *r, const struct section *section, const json_t *node, void *base,
                       const char *prefix)
{
    char key_path[KEY_BYTES], is[80];
    struct xn_error why;
    const char *name;
    json_t *value;

    if (!json_is_object(node)) {
        (void)xn_error_set(&why, 0, "%smust be an object { ... }, is %s", prefix[0] == '\0' ? "the configuration " : "",
                           describe(node, is, sizeof(is)));
        return fail_at(r, prefix, -EINVAL, why.text);
    }
    json_object_foreach((json_t *)node, name, value)
    {
        const struct key *key = find_key(section, name);
        snprintf(key_path, sizeof(key_path), "%s%s%.64s", prefix, prefix[0] == '\0' ? "" : ".", name);
        if (!key && !has_member(section, name))
            return unknown_key(r, section, key_path, name);
        int code = key ? put_value(key, base, value, r->folder, &why) : 0;
        if (code < 0)
            return fail_at(r, key_path, code, why.text);
    }
    for (size_t i = 0; i < section->n_keys; i++) {
        const struct key *key = &section->keys[i];
        if (!key->required || json_object_get(node, key->name))
            continue;
        snprintf(key_path, sizeof(key_path), "%s.%s", prefix, key->name);
        return fail_at(r, key_path, -EINVAL, "is missing, and has no default");
    }
    return 0;
}

static int read_array(const struct reader *r, const struct section *section, const json_t *node)
{
    size_t n = json_array_size(node);
    char prefix[KEY_BYTES], is[80];
    struct xn_error why;

    if (!json_is_array(node)) {
        (void)xn_error_set(&why, 0, "must be an array [ ... ], is %s", describe(node, is, sizeof(is)));
        return fail_at(r, section->name, -EINVAL, why.text);
    }
    if (n < section->min || n > section->max) {
        (void)xn_error_set(&why, 0, "must have %u..%u entries, has %zu", section->min, section->max, n);
        return fail_at(r, section->name, -EINVAL, why.text);
    }
    clear_array(section, r->config);
    for (size_t i = 0; i < n; i++) {
        snprintf(prefix, sizeof(prefix), "%s[%zu]", section->name, i);
        int code = read_object(r, section, json_array_get(node, i), add_element(section, r->config), prefix);
        if (code < 0)
            return code;
    }
    return 0;
}

/* The section's node in the tree, or NULL: absent. */
static const json_t *find_node(const json_t *root, const char *name)
{
    const json_t *node = root;
    char step[KEY_BYTES];

    while (node && name[0] != '\0') {
        size_t length = strcspn(name, ".");
        snprintf(step, sizeof(step), "%.*s", (int)length, name);
        node = json_object_get(node, step);
        name += length + (name[length] == '.');
    }
    return node;
}

static int read_sections(const struct reader *r)
{
    char key[KEY_BYTES];
    struct xn_error why;

    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++) {
        const struct section *section = &sections[i];
        const json_t *node = find_node(r->root, section->name);
        if (!node)
            continue;
        int code = section->max > 0 ? read_array(r, section, node)
                                    : read_object(r, section, node, element(section, r->config, 0), section->name);
        if (code < 0)
            return code;
    }
    int code = check_relations(r->config, key, &why);
    return code < 0 ? fail_at(r, key, code, why.text) : 0;
}

static int read_text(struct reader *r)
{
    json_error_t json_error;
    unsigned line = xn_json_too_deep(r->text, r->bytes, DEPTH_MAX); /* jansson's parser recurses */

    if (line > 0)
        return xn_error_set(r->error, -EINVAL, "%s:%u: arrays and objects nest deeper than %u", r->name, line,
                            DEPTH_MAX);
    json_t *root = json_loadb(r->text, r->bytes, JSON_REJECT_DUPLICATES, &json_error);
    if (!root && json_error_code(&json_error) == json_error_out_of_memory)
        return xn_error_set(r->error, -ENOMEM, "%s: no memory to read it", r->name);
    if (!root)
        return xn_error_set(r->error, -EINVAL, "%s:%d: %s", r->name, json_error.line, json_error.text);
    r->root = root;
    int code = read_sections(r);
    json_decref(root);
    return code;
}

/* The folder of the file `name`, malloc'ed; "" for a bare name. NULL: no memory. */
static char *folder_of(const char *name)
{
    char *folder = xn_strdup(name);
    if (!folder)
        return NULL;
    char *slash = strrchr(folder, '/');
    if (slash == folder)
        slash[1] = '\0';
    else
        *(slash ? slash : folder) = '\0';
    return folder;
}

int xn_config_load_memory(struct xn_config *config, const char *name, const char *text, size_t bytes,
                          struct xn_error *error)
{
    struct reader r = {.name = name, .text = text, .bytes = bytes, .config = config, .error = error};

    xn_config_done(config);
    if (bytes > FILE_BYTES_MAX)
        return xn_error_set(error, -EFBIG, "%s: more than %u bytes: not a configuration", name, FILE_BYTES_MAX);
    r.folder = folder_of(name);
    config->path = xn_strdup(name);
    int code = r.folder && config->path ? read_text(&r) : xn_error_set(error, -ENOMEM, "%s: no memory", name);
    free(r.folder);
    if (code < 0)
        xn_config_done(config);
    return code;
}

int xn_config_load(struct xn_config *config, const char *path, struct xn_error *error)
{
    xn_config_done(config);
    FILE *file = fopen(path, "re");
    if (!file)
        return xn_error_set(error, -errno, "configuration %s: %s", path, strerror(errno));
    char *text = xn_calloc(1, FILE_BYTES_MAX + 1);
    size_t bytes = text ? fread(text, 1, FILE_BYTES_MAX + 1, file) : 0;
    int code;
    if (!text)
        code = xn_error_set(error, -ENOMEM, "configuration %s: no memory", path);
    else if (ferror(file))
        code = xn_error_set(error, -errno, "configuration %s: %s", path, strerror(errno));
    else
        code = xn_config_load_memory(config, path, text, bytes, error);
    free(text);
    fclose(file);
    return code;
}

/* ---- the command line's overrides ---- */

/* The listener at `index`, with nothing but defaults. */
static struct xn_config_listener *fresh_listener(struct xn_config *config, uint32_t index)
{
    const struct section *section = find_section("listen");

    if (index == 0)
        clear_array(section, config);
    return add_element(section, config);
}

static int set_listen_tcp(struct xn_config *config, uint32_t index, const char *text, struct xn_error *error)
{
    char address[64];
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    bool bracketed = length >= 2 && text[0] == '[' && text[length - 1] == ']';
    char *end = NULL;

    snprintf(address, sizeof(address), "%.*s", (int)(bracketed ? length - 2 : XN_MIN(length, sizeof(address))),
             bracketed ? text + 1 : text);
    unsigned long port = colon && colon[1] >= '0' && colon[1] <= '9' ? strtoul(colon + 1, &end, 10) : 65536;
    if (!is_address(address) || (strchr(address, ':') && !bracketed) || port > 65535 || !end || *end != '\0')
        return xn_error_set(
            error, -EINVAL,
            "--listen %s: must be ADDRESS:PORT or [IPv6]:PORT with port 0..65535, such as 127.0.0.1:8000, or unix:PATH",
            text);
    char *copy = xn_strdup(address);
    if (!copy)
        return xn_error_set(error, -ENOMEM, "--listen %s: no memory", text);
    struct xn_config_listener *listener = fresh_listener(config, index);
    listener->address = copy;
    listener->port = (uint16_t)port;
    return 0;
}

int xn_config_set_listen(struct xn_config *config, uint32_t index, const char *text, struct xn_error *error)
{
    if (index >= XN_CONFIG_LISTENERS_MAX)
        return xn_error_set(error, -EINVAL, "--listen %s: at most %u addresses", text, XN_CONFIG_LISTENERS_MAX);
    if (strncmp(text, "unix:", 5) != 0 || text[5] == '\0')
        return set_listen_tcp(config, index, text, error);
    char *copy = xn_strdup(text + 5);
    if (!copy)
        return xn_error_set(error, -ENOMEM, "--listen %s: no memory", text);
    fresh_listener(config, index)->unix_path = copy;
    return 0;
}

int xn_config_set_model(struct xn_config *config, uint32_t index, const char *text, struct xn_error *error)
{
    const struct section *section = find_section("models");
    const char *equals = strchr(text, '='), *slash = strchr(text, '/');
    bool named = equals && (!slash || equals < slash); /* a '=' after a '/' belongs to the path */
    const char *path = named ? equals + 1 : text;

    if (index >= XN_CONFIG_MODELS_MAX)
        return xn_error_set(error, -EINVAL, "--model %s: at most %u models", text, XN_CONFIG_MODELS_MAX);
    if (path[0] == '\0')
        return xn_error_set(error, -EINVAL, "--model %s: must be FILE or NAME=FILE", text);
    if (index == 0) {
        clear_array(section, config);
        free(config->default_model);
        config->default_model = NULL;
    }
    struct xn_config_model *model = add_element(section, config);
    model->path = xn_strdup(path);
    model->name = named ? strndup(text, (size_t)(equals - text)) : NULL;
    if (!model->path || (named && !model->name))
        return xn_error_set(error, -ENOMEM, "--model %s: no memory", text);
    if (named && !xn_config_is_name(model->name))
        return xn_error_set(error, -EINVAL,
                            "--model %s: a name is 1..63 characters of A-Z a-z 0-9 . _ - and does not begin with a dot",
                            text);
    char key[KEY_BYTES];
    struct xn_error why;
    int r = relate_models(config, key, &why);
    return r < 0 ? xn_error_set(error, r, "--model %s: %s: %s", text, key, why.text) : 0;
}

/* "accelerators[0].threads" into its section, struct and key. Returns false: there is no such key, or no such entry. */
static bool resolve_key(struct xn_config *config, const char *text, void **ret_base, const struct key **ret_key)
{
    const char *dot = strrchr(text, '.');
    char name[KEY_BYTES], *bracket, *end = NULL;
    unsigned long index = 0;

    snprintf(name, sizeof(name), "%.*s", dot ? (int)XN_MIN((size_t)(dot - text), sizeof(name) - 1) : 0, text);
    bracket = strchr(name, '[');
    if (bracket) {
        index = strtoul(bracket + 1, &end, 10);
        if (end == bracket + 1 || strcmp(end, "]") != 0)
            return false;
        *bracket = '\0';
    }
    const struct section *section = find_section(name);
    if (!section || (section->max > 0) != (bracket != NULL))
        return false;
    if (bracket && index >= *element_count(section, config))
        return false;
    *ret_base = element(section, config, index);
    *ret_key = find_key(section, dot ? dot + 1 : text);
    return *ret_key != NULL;
}

/* The text as the JSON value that a file would have: a number where the key wants one. NULL: not UTF-8, or no
 * memory. */
static json_t *value_of(const struct key *key, const char *text)
{
    char *end = NULL;

    if (!is_text(key->type) && key->type != KEY_ENUM && text[0] != '\0') {
        errno = 0;
        double number = strtod(text, &end);
        if (*end == '\0' && isfinite(number))
            return json_real(number);
    }
    return json_string(text);
}

int xn_config_set(struct xn_config *config, const char *key_text, const char *text, struct xn_error *error)
{
    const struct key *key;
    char related[KEY_BYTES];
    struct xn_error why;
    void *base;

    if (!resolve_key(config, key_text, &base, &key))
        return xn_error_set(error, -EINVAL, "key %s: there is no such key; see xnord.json(5)", key_text);
    json_t *value = value_of(key, text);
    if (!value)
        return xn_error_set(error, -EINVAL, "key %s: its value must be UTF-8", key_text);
    int r = put_value(key, base, value, NULL, &why);
    json_decref(value);
    if (r < 0)
        return xn_error_set(error, r, "key %s: %s", key_text, why.text);
    r = check_relations(config, related, &why);
    return r < 0 ? xn_error_set(error, r, "key %s: %s", related, why.text) : 0;
}

/* ---- what the keys are ---- */

static json_t *default_json(const struct key *key)
{
    if (key->type == KEY_WATTS)
        return json_null();
    if (key->type == KEY_ENUM)
        return json_string(key->choices[key->initial]);
    if (is_text(key->type))
        return key->initial_text ? json_string(key->initial_text) : json_null();
    return json_integer((json_int_t)key->initial);
}

static json_t *key_json(const struct section *section, const struct key *key)
{
    const char *type = is_text(key->type) || key->type == KEY_ENUM ? "string"
                       : key->type == KEY_WATTS                    ? "number"
                                                                   : "integer";
    char path[KEY_BYTES];

    snprintf(path, sizeof(path), "%s%s%s%s", section->name, section->max > 0 ? "[]" : "",
             section->name[0] == '\0' ? "" : ".", key->name);
    json_t *object = json_pack("{s:s, s:s, s:b, s:o, s:s}", "key", path, "type", type, "required", key->required,
                               "default", default_json(key), "help", key->help);
    if (strcmp(type, "string") != 0) {
        json_object_set_new(object, "minimum", json_integer((json_int_t)key->min));
        json_object_set_new(object, "maximum", json_integer((json_int_t)key->max));
    }
    if (key->choices) {
        json_t *choices = json_array();
        for (size_t i = 0; key->choices[i]; i++)
            json_array_append_new(choices, json_string(key->choices[i]));
        json_object_set_new(object, "choices", choices);
    }
    return object;
}

static json_t *section_json(const struct section *section)
{
    json_t *object = json_pack("{s:s, s:s, s:b, s:s}", "key", section->name, "type",
                               section->max > 0 ? "array" : "object", "required", 0, "help", section->help);

    if (section->max > 0) {
        json_object_set_new(object, "minimum", json_integer(section->min));
        json_object_set_new(object, "maximum", json_integer(section->max));
    }
    return object;
}

int xn_config_dump_keys(FILE *to)
{
    json_t *array = json_array();

    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++) {
        if (sections[i].name[0] != '\0')
            json_array_append_new(array, section_json(&sections[i]));
        for (size_t k = 0; k < sections[i].n_keys; k++)
            json_array_append_new(array, key_json(&sections[i], &sections[i].keys[k]));
    }
    int r = json_dumpf(array, to, JSON_INDENT(2));
    json_decref(array);
    return r < 0 || fputc('\n', to) == EOF || fflush(to) != 0 ? -EIO : 0;
}
