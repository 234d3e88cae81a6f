/* SPDX-License-Identifier: Apache-2.0
 * The table of served models. `models_lock` guards the published array; under it only pointers are copied and references counted, so
 * xn_models_get costs a request two uncontended atomic operations and never waits for a load.
 *
 *     build (unpublished) -> published (the table's reference) -> replaced or removed (the reference is dropped)
 *                         -> last reference gone: on the retire list -> reaped by main: unloaded, freed
 *
 * A model is unloaded by main alone (xn_models_reap), because unloading may block and the last reference usually goes on an HTTP thread. Slots
 * belong to names: a model reloaded under its name keeps its slot, its statistics and its queue. */
#include "daemon/models.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"

/* A model with what only this file needs. */
struct entry {
    struct xn_model model; /* first: an xn_model is its entry */
    struct xn_models *table;
    struct entry *next_retired;
    char *name, *path;
};

struct table_state {
    struct xn_model *models[XN_CONFIG_MODELS_MAX]; /* in configuration order, the default first */
    uint32_t n;
};

struct xn_models {
    struct xn_instances *instances;
    pthread_mutex_t models_lock;
    struct table_state published; /* guarded by models_lock */
    _Atomic(struct entry *) retired;
    struct xn_model_stats stats[XN_CONFIG_MODELS_MAX];
    char *slot_names[XN_CONFIG_MODELS_MAX]; /* main only; NULL: free */
};

static struct entry *entry_of(struct xn_model *model)
{
    return XN_CONTAINER_OF(model, struct entry, model);
}

int xn_models_new(struct xn_instances *instances, struct xn_models **ret_models)
{
    struct xn_models *models = xn_calloc(1, sizeof(*models));

    if (!models)
        return -ENOMEM;
    models->instances = instances;
    pthread_mutex_init(&models->models_lock, NULL);
    *ret_models = models;
    return 0;
}

/* ---- one model ---------------------------------------------------------------------------------------------------- */

static void entry_free(struct entry *entry)
{
    struct xn_model *model = &entry->model;

    for (uint32_t i = 0; model->instances && i < model->instances->n; i++) {
        struct xn_accel *accel = model->instances->accel[i];
        if (model->loaded[i])
            xn_accel_backend(accel)->unload(accel, model->loaded[i]);
    }
    xn_network_free(model->network);
    free(entry->name);
    free(entry->path);
    free(entry);
}

/* Load on every instance that can run it. An instance that cannot is left out; none at all is an error, with the last one's reason. */
static int load_on_instances(struct xn_model *model, struct xn_error *error)
{
    struct xn_error why = {{0}};
    uint32_t loaded = 0;
    int r = -ENODEV;

    for (uint32_t i = 0; i < model->instances->n; i++) {
        struct xn_accel *accel = model->instances->accel[i];
        r = xn_accel_backend(accel)->load(accel, model->network, model->max_batch, &model->loaded[i], &why);
        if (r == -ENOMEM)
            return xn_error_set(error, r, "instance %s: %s", xn_accel_info(accel)->name, why.text);
        loaded += r >= 0;
    }
    if (loaded == 0)
        return xn_error_set(error, -ENODEV, "no accelerator instance can run it: %s", why.text);
    return 0;
}

static int entry_new(struct xn_models *table, const struct xn_config_model *config, struct xn_network *network,
                     struct entry **ret_entry, struct xn_error *error)
{
    struct entry *entry = xn_calloc(1, sizeof(*entry));

    if (!entry) {
        xn_network_free(network);
        return xn_error_set(error, -ENOMEM, "no memory");
    }
    entry->table = table;
    entry->name = xn_strdup(config->name ? config->name : network->name);
    entry->path = xn_strdup(config->path);
    entry->model = (struct xn_model){.name = entry->name,
                                     .network = network,
                                     .max_batch = config->max_batch,
                                     .max_delay_us = config->max_delay_us,
                                     .queue_limit = config->queue_limit,
                                     .timeout_ms = config->timeout_ms,
                                     .instances = table->instances};
    atomic_init(&entry->model.refs, 1);
    int r = entry->name && entry->path ? load_on_instances(&entry->model, error)
                                       : xn_error_set(error, -ENOMEM, "no memory");
    if (r < 0) {
        entry_free(entry);
        return r;
    }
    *ret_entry = entry;
    return 0;
}

struct xn_model *xn_model_ref(struct xn_model *model)
{
    atomic_fetch_add_explicit(&model->refs, 1, memory_order_relaxed);
    return model;
}

void xn_model_unref(struct xn_model *model)
{
    if (!model)
        return;
    unsigned before = atomic_fetch_sub_explicit(&model->refs, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before > 1)
        return;
    struct entry *entry = entry_of(model);
    struct xn_models *table = entry->table;
    entry->next_retired = atomic_load_explicit(&table->retired, memory_order_relaxed);
    /* Release: xn_models_reap acquires what all holders wrote. */
    while (!atomic_compare_exchange_weak_explicit(&table->retired, &entry->next_retired, entry, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

void xn_models_reap(struct xn_models *models)
{
    struct entry *entry = atomic_exchange_explicit(&models->retired, NULL, memory_order_acquire);

    while (entry) {
        struct entry *next = entry->next_retired;
        entry_free(entry);
        entry = next;
    }
}

/* ---- the table ---------------------------------------------------------------------------------------------------- */

static struct xn_model *find(const struct table_state *state, const char *name)
{
    for (uint32_t i = 0; i < state->n; i++) {
        if (strcmp(state->models[i]->name, name) == 0)
            return state->models[i];
    }
    return NULL;
}

static void release(struct table_state *state)
{
    for (uint32_t i = 0; i < state->n; i++)
        xn_model_unref(state->models[i]);
    state->n = 0;
}

/* The published model that is what `config` asks for, byte for byte and setting for setting; NULL: it must be loaded. */
static struct xn_model *unchanged(const struct xn_models *models, const struct xn_config_model *config,
                                  const struct xn_network *network)
{
    struct xn_model *m = find(&models->published, config->name ? config->name : network->name);

    if (m && strcmp(entry_of(m)->path, config->path) == 0 &&
        memcmp(m->network->sha256, network->sha256, sizeof(network->sha256)) == 0 &&
        m->max_batch == config->max_batch && m->max_delay_us == config->max_delay_us &&
        m->queue_limit == config->queue_limit && m->timeout_ms == config->timeout_ms)
        return m;
    return NULL;
}

static int build_model(struct xn_models *models, const struct xn_config_model *config, struct table_state *next,
                       struct xn_error *error)
{
    struct xn_network *network = NULL;
    struct entry *entry = NULL;
    int r = xn_network_load(config->path, &network, error);

    if (r < 0)
        return xn_error_prefix(error, r, "model %s", config->path);
    const char *name = config->name ? config->name : network->name;
    if (find(next, name)) {
        r = xn_error_set(error, -EEXIST, "model %s: another model is already called \"%s\"; give one a name of its own",
                         config->path, name);
        xn_network_free(network);
        return r;
    }
    struct xn_model *kept = unchanged(models, config, network);
    if (kept) {
        xn_network_free(network);
        next->models[next->n++] = xn_model_ref(kept);
        return 0;
    }
    r = entry_new(models, config, network, &entry, error);
    if (r < 0)
        return xn_error_prefix(error, r, "model %s", config->path);
    next->models[next->n++] = &entry->model;
    return 0;
}

/* The default model goes first: what xn_models_get answers for NULL. */
static int put_default_first(struct table_state *next, const char *name, struct xn_error *error)
{
    for (uint32_t i = 0; name && i < next->n; i++) {
        if (strcmp(next->models[i]->name, name) != 0)
            continue;
        struct xn_model *chosen = next->models[i];
        memmove(&next->models[1], &next->models[0], i * sizeof(next->models[0]));
        next->models[0] = chosen;
        return 0;
    }
    return name ? xn_error_set(error, -ENOENT, "default_model: no model is called \"%s\"", name) : 0;
}

static bool slot_in_use(const struct xn_models *models, const struct table_state *next, uint32_t slot)
{
    return models->slot_names[slot] && find(next, models->slot_names[slot]);
}

/* Slots of names that stay are kept; a new name takes one that is free, or whose name is no longer served. */
static int assign_slots(struct xn_models *models, struct table_state *next, struct xn_error *error)
{
    for (uint32_t i = 0; i < next->n; i++) {
        struct xn_model *m = next->models[i];
        uint32_t slot = 0, vacant = XN_CONFIG_MODELS_MAX;
        if (m->stats)
            continue; /* kept as it is: others read it */
        for (; slot < XN_CONFIG_MODELS_MAX; slot++) {
            if (models->slot_names[slot] && strcmp(models->slot_names[slot], m->name) == 0)
                break;
            if (vacant == XN_CONFIG_MODELS_MAX && !slot_in_use(models, next, slot))
                vacant = slot;
        }
        if (slot == XN_CONFIG_MODELS_MAX) {
            char *name = xn_strdup(m->name);
            if (!name)
                return xn_error_set(error, -ENOMEM, "no memory");
            slot = vacant; /* there is one: at most XN_CONFIG_MODELS_MAX names are served */
            free(models->slot_names[slot]);
            models->slot_names[slot] = name;
        }
        m->slot = slot;
        m->stats = &models->stats[slot];
    }
    return 0;
}

int xn_models_apply(struct xn_models *models, const struct xn_config *config, struct xn_error *error)
{
    struct table_state next = {.n = 0}, old;
    int r = 0;

    for (uint32_t i = 0; r >= 0 && i < config->n_models; i++)
        r = build_model(models, &config->models[i], &next, error);
    if (r >= 0)
        r = put_default_first(&next, config->default_model, error);
    if (r >= 0)
        r = assign_slots(models, &next, error);
    if (r >= 0) {
        pthread_mutex_lock(&models->models_lock);
        old = models->published;
        models->published = next;
        pthread_mutex_unlock(&models->models_lock);
    } else {
        old = next;
    }
    release(&old);
    xn_models_reap(models);
    return r;
}

struct xn_model *xn_models_get(struct xn_models *models, const char *name)
{
    struct xn_model *model = NULL;

    pthread_mutex_lock(&models->models_lock);
    if (name)
        model = find(&models->published, name);
    else if (models->published.n > 0)
        model = models->published.models[0];
    if (model)
        xn_model_ref(model);
    pthread_mutex_unlock(&models->models_lock);
    return model;
}

uint32_t xn_models_list(struct xn_models *models, struct xn_model **ret_models, uint32_t max)
{
    pthread_mutex_lock(&models->models_lock);
    uint32_t n = XN_MIN(models->published.n, max);
    for (uint32_t i = 0; i < n; i++)
        ret_models[i] = xn_model_ref(models->published.models[i]);
    pthread_mutex_unlock(&models->models_lock);
    return n;
}

void xn_models_free(struct xn_models *models)
{
    if (!models)
        return;
    release(&models->published);
    xn_models_reap(models);
    for (uint32_t i = 0; i < XN_CONFIG_MODELS_MAX; i++)
        free(models->slot_names[i]);
    pthread_mutex_destroy(&models->models_lock);
    free(models);
}
