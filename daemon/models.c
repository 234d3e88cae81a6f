/* SPDX-License-Identifier: Apache-2.0
 * The table of served models. `models_lock` guards the published array; under it only pointers are copied and references counted, so
 * xn_models_get costs a request two uncontended atomic operations and never waits for a load.
 *
 *     build (unpublished) -> published (the table's reference) -> replaced or removed (the reference is dropped)
 *                         -> last reference gone: on the retire list -> reaped by main: unloaded, freed
 *
 * A model is unloaded by main alone (xn_models_reap), because unloading may block and the last reference usually goes on an HTTP thread. Slots
 * belong to names: a model reloaded under its name keeps its slot, its statistics and its queue. A slot goes to another name only when no model that
 * had it is alive, so that what is counted by slot is not two names' at once; only where nearly all slots are served and replaced in one step there is no other, and
 * the last requests of the removed model are counted for the new one. */
#include "daemon/models.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"

const char *const xn_energy_source_names[XN_ENERGY_SOURCES] = {"sensor", "estimate", "simulated"};

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
    xn_models_hook hook;
    void *user;
    pthread_mutex_t models_lock;
    struct table_state published; /* guarded by models_lock */
    _Atomic(struct entry *) retired;
    struct xn_model_stats stats[XN_CONFIG_MODELS_MAX];
    /* main only: */
    uint64_t generation;                    /* of the newest model */
    char *slot_names[XN_CONFIG_MODELS_MAX]; /* NULL: never used */
    uint32_t alive[XN_CONFIG_MODELS_MAX];   /* models that have the slot, published or still in use */
};

static struct entry *entry_of(struct xn_model *model)
{
    return XN_CONTAINER_OF(model, struct entry, model);
}

int xn_models_new(struct xn_instances *instances, xn_models_hook hook, void *user, struct xn_models **ret_models)
{
    struct xn_models *models = xn_calloc(1, sizeof(*models));

    if (!models)
        return -ENOMEM;
    models->instances = instances;
    models->hook = hook;
    models->user = user;
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
        if (accel && model->loaded[i])
            xn_accel_backend(accel)->unload(accel, model->loaded[i]);
    }
    if (model->stats)
        entry->table->alive[model->slot]--;
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
                                     .preferred_batch = config->preferred_batch,
                                     .queue_limit = config->queue_limit,
                                     .timeout_ms = config->timeout_ms,
                                     .generation = ++table->generation,
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
        m->preferred_batch == config->preferred_batch && m->queue_limit == config->queue_limit &&
        m->timeout_ms == config->timeout_ms)
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

/* The slot for `name`: its own, else one never used, else that of a name no longer served, of which one whose models are gone comes first. There is one:
 * at most XN_CONFIG_MODELS_MAX names are served. */
static uint32_t find_slot(const struct xn_models *models, const struct table_state *next, const char *name)
{
    uint32_t best = 0, best_rank = UINT32_MAX;

    for (uint32_t slot = 0; slot < XN_CONFIG_MODELS_MAX; slot++) {
        const char *has = models->slot_names[slot];
        if (has && strcmp(has, name) == 0)
            return slot;
        if (has && find(next, has))
            continue;
        uint32_t rank = !has ? 0 : models->alive[slot] == 0 ? 1 : 2;
        if (rank < best_rank) {
            best = slot;
            best_rank = rank;
        }
    }
    assert(best_rank != UINT32_MAX);
    return best;
}

static void reset_stats(struct xn_model_stats *stats)
{
    atomic_store_explicit(&stats->inference_count, 0, memory_order_relaxed);
    atomic_store_explicit(&stats->execution_count, 0, memory_order_relaxed);
    atomic_store_explicit(&stats->success_count, 0, memory_order_relaxed);
    atomic_store_explicit(&stats->fail_count, 0, memory_order_relaxed);
    atomic_store_explicit(&stats->last_inference_ms, 0, memory_order_relaxed);
}

static int assign_slot(struct xn_models *models, const struct table_state *next, struct xn_model *model,
                       struct xn_error *error)
{
    uint32_t slot = find_slot(models, next, model->name);

    if (!models->slot_names[slot] || strcmp(models->slot_names[slot], model->name) != 0) {
        char *name = xn_strdup(model->name);
        if (!name)
            return xn_error_set(error, -ENOMEM, "no memory");
        free(models->slot_names[slot]);
        models->slot_names[slot] = name;
        reset_stats(&models->stats[slot]);
    }
    model->slot = slot;
    model->stats = &models->stats[slot];
    models->alive[slot]++;
    return 0;
}

/* Slots for the new models. Those kept have theirs: others read it. */
static int assign_slots(struct xn_models *models, const struct table_state *next, struct xn_error *error)
{
    int r = 0;

    for (uint32_t i = 0; r >= 0 && i < next->n; i++) {
        if (!next->models[i]->stats)
            r = assign_slot(models, next, next->models[i], error);
    }
    return r;
}

static void publish(struct xn_models *models, const struct table_state *next, struct table_state *ret_old)
{
    for (uint32_t i = 0; models->hook && i < next->n; i++)
        models->hook(models->user, next->models[i]);
    pthread_mutex_lock(&models->models_lock);
    *ret_old = models->published;
    models->published = *next;
    pthread_mutex_unlock(&models->models_lock);
}

int xn_models_apply(struct xn_models *models, const struct xn_config *config, struct xn_error *error)
{
    struct table_state next = {.n = 0}, old;
    int r = 0;

    xn_models_reap(models);
    for (uint32_t i = 0; r >= 0 && i < config->n_models; i++)
        r = build_model(models, &config->models[i], &next, error);
    if (r >= 0)
        r = put_default_first(&next, config->default_model, error);
    if (r >= 0)
        r = assign_slots(models, &next, error);
    if (r >= 0)
        publish(models, &next, &old);
    else
        old = next;
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
