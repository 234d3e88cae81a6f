/* SPDX-License-Identifier: Apache-2.0
 * The table of served models. `models_lock` guards the published array; under it only pointers are copied and references counted, so
 * xn_models_get costs a request two uncontended atomic operations and never waits for a load.
 *
 *     build (unpublished) -> published (the table's reference) -> replaced or removed (the reference is dropped)
 *                         -> last reference gone: on the retire list -> reaped: unloaded, freed
 *
 * One thread at a time changes the table, and only it unloads (xn_models_reap), because unloading may block and the last reference usually goes on an HTTP
 * thread. Slots belong to a name and a version: a model reloaded under both keeps its slot, its statistics and its queue. A slot goes to another only when no model
 * that had it is alive, so that what is counted by slot is not two models' at once; only where nearly all slots are served and replaced in one step there is no other,
 * and the last requests of the removed model are counted for the new one. */
#include "daemon/models.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
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
    bool configured;
};

struct table_state {
    struct xn_model
        *models[XN_CONFIG_MODELS_MAX]; /* the default first, versions of a name together, the latest first */
    uint32_t n;
};

/* Whose a slot is. */
struct slot {
    char name[XN_MODEL_NAME_BYTES]; /* "": never used */
    char version[XN_MODEL_VERSION_BYTES];
    uint32_t alive; /* models that have it, published or still in use */
};

struct xn_models {
    struct xn_instances *instances;
    xn_models_hook hook;
    void *user;
    pthread_mutex_t models_lock;
    struct table_state published;            /* guarded by models_lock */
    struct slot slots[XN_CONFIG_MODELS_MAX]; /* guarded by models_lock; written by the changing thread alone */
    char default_name[XN_MODEL_NAME_BYTES];  /* guarded by models_lock; "": the first */
    _Atomic(struct entry *) retired;
    struct xn_model_stats stats[XN_CONFIG_MODELS_MAX];
    uint64_t generation; /* of the newest model; of the changing thread */
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
    if (model->stats) {
        pthread_mutex_lock(&entry->table->models_lock);
        entry->table->slots[model->slot].alive--;
        pthread_mutex_unlock(&entry->table->models_lock);
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

/* Takes `network`. */
static int entry_new(struct xn_models *table, const struct xn_model_source *source, struct xn_network *network,
                     struct entry **ret_entry, struct xn_error *error)
{
    const struct xn_config_model *config = source->config;
    struct entry *entry = xn_calloc(1, sizeof(*entry));

    if (!entry) {
        xn_network_free(network);
        return xn_error_set(error, -ENOMEM, "no memory");
    }
    entry->table = table;
    entry->name = xn_strdup(config->name ? config->name : network->name);
    entry->path = xn_strdup(config->path);
    entry->configured = source->configured;
    entry->model = (struct xn_model){.name = entry->name,
                                     .network = network,
                                     .max_batch = config->max_batch,
                                     .max_delay_us = config->max_delay_us,
                                     .preferred_batch = config->preferred_batch,
                                     .queue_limit = config->queue_limit,
                                     .timeout_ms = config->timeout_ms,
                                     .policy = config->policy,
                                     .generation = ++table->generation,
                                     .instances = table->instances};
    snprintf(entry->model.version, sizeof(entry->model.version), "%s",
             source->version ? source->version : network->version);
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

/* `version` NULL: the latest. */
static struct xn_model *find(const struct table_state *state, const char *name, const char *version)
{
    for (uint32_t i = 0; i < state->n; i++) {
        struct xn_model *m = state->models[i];
        if (strcmp(m->name, name) == 0 && (!version || strcmp(m->version, version) == 0))
            return m;
    }
    return NULL;
}

static void release(struct table_state *state)
{
    for (uint32_t i = 0; i < state->n; i++)
        xn_model_unref(state->models[i]);
    state->n = 0;
}

static bool same_settings(const struct xn_model *m, const struct xn_config_model *config)
{
    return m->max_batch == config->max_batch && m->max_delay_us == config->max_delay_us &&
           m->preferred_batch == config->preferred_batch && m->queue_limit == config->queue_limit &&
           m->timeout_ms == config->timeout_ms && memcmp(&m->policy, &config->policy, sizeof(m->policy)) == 0;
}

/* The published model that is what `source` asks for, byte for byte and setting for setting; NULL: it must be loaded. */
static struct xn_model *unchanged(const struct xn_models *models, const struct xn_model_source *source,
                                  const struct xn_network *network)
{
    const struct xn_config_model *config = source->config;
    struct xn_model *m = find(&models->published, config->name ? config->name : network->name,
                              source->version ? source->version : network->version);

    if (m && entry_of(m)->configured == source->configured && strcmp(entry_of(m)->path, config->path) == 0 &&
        memcmp(m->network->sha256, network->sha256, sizeof(network->sha256)) == 0 && same_settings(m, config))
        return m;
    return NULL;
}

int xn_models_build(struct xn_models *models, const struct xn_model_source *source, struct xn_model **ret_model,
                    struct xn_error *error)
{
    struct xn_network *network = NULL;
    struct entry *entry = NULL;
    int r = xn_network_load(source->config->path, &network, error);

    if (r < 0)
        return r;
    struct xn_model *kept = unchanged(models, source, network);
    if (kept) {
        xn_network_free(network);
        *ret_model = xn_model_ref(kept);
        return 0;
    }
    r = entry_new(models, source, network, &entry, error);
    if (r < 0)
        return r;
    *ret_model = &entry->model;
    return 0;
}

/* The slot for a new model: its own, else one never used, else that of one no longer served, of which one whose models are gone comes first. There is one: at most
 * XN_CONFIG_MODELS_MAX are served. */
static uint32_t find_slot(const struct xn_models *models, const struct table_state *next, const struct xn_model *model)
{
    uint32_t best = 0, best_rank = UINT32_MAX;

    for (uint32_t i = 0; i < XN_CONFIG_MODELS_MAX; i++) {
        const struct slot *slot = &models->slots[i];
        if (strcmp(slot->name, model->name) == 0 && strcmp(slot->version, model->version) == 0)
            return i;
        if (slot->name[0] && find(next, slot->name, slot->version))
            continue;
        uint32_t rank = !slot->name[0] ? 0 : slot->alive == 0 ? 1 : 2;
        if (rank < best_rank) {
            best = i;
            best_rank = rank;
        }
    }
    assert(best_rank != UINT32_MAX);
    return best;
}

static void assign_slot(struct xn_models *models, const struct table_state *next, struct xn_model *model)
{
    uint32_t index = find_slot(models, next, model);
    struct slot *slot = &models->slots[index];
    bool changes_hands = strcmp(slot->name, model->name) != 0 || strcmp(slot->version, model->version) != 0;

    pthread_mutex_lock(&models->models_lock);
    snprintf(slot->name, sizeof(slot->name), "%s", model->name);
    snprintf(slot->version, sizeof(slot->version), "%s", model->version);
    slot->alive++;
    pthread_mutex_unlock(&models->models_lock);
    if (changes_hands)
        xn_model_stats_reset(&models->stats[index]);
    model->slot = index;
    model->stats = &models->stats[index];
}

/* Latest first: versions are decimal numbers, so the longer is the higher once zeros in front are gone. */
static int compare_versions(const struct xn_model *a, const struct xn_model *b)
{
    const char *x = a->version + strspn(a->version, "0"), *y = b->version + strspn(b->version, "0");
    size_t m = strlen(x), n = strlen(y);

    return m != n ? (m > n ? -1 : 1) : -strcmp(x, y);
}

/* Insert `model` behind the others of its name that are later; a new name goes to the end. */
static void insert(struct table_state *next, struct xn_model *model)
{
    uint32_t at = 0;

    while (at < next->n && strcmp(next->models[at]->name, model->name) != 0)
        at++;
    while (at < next->n && strcmp(next->models[at]->name, model->name) == 0 &&
           compare_versions(next->models[at], model) < 0)
        at++;
    memmove(&next->models[at + 1], &next->models[at], (next->n - at) * sizeof(next->models[0]));
    next->models[at] = model;
    next->n++;
}

static void put_default_first(struct table_state *next, const char *name)
{
    struct table_state sorted = {.n = 0};

    for (uint32_t turn = 0; turn < 2; turn++) {
        for (uint32_t i = 0; i < next->n; i++) {
            if ((strcmp(next->models[i]->name, name) == 0) == (turn == 0))
                sorted.models[sorted.n++] = next->models[i];
        }
    }
    *next = sorted;
}

/* Publish `next`, whose references become the table's. Models that were kept have their slots: others read them. */
static void publish(struct xn_models *models, struct table_state *next, const char *default_name)
{
    struct table_state old;

    put_default_first(next, default_name);
    for (uint32_t i = 0; i < next->n; i++) {
        if (next->models[i]->stats)
            continue;
        assign_slot(models, next, next->models[i]);
        if (models->hook)
            models->hook(models->user, next->models[i]);
    }
    pthread_mutex_lock(&models->models_lock);
    old = models->published;
    models->published = *next;
    if (default_name != models->default_name)
        snprintf(models->default_name, sizeof(models->default_name), "%s", default_name);
    pthread_mutex_unlock(&models->models_lock);
    release(&old);
}

static int too_many(struct xn_error *error)
{
    return xn_error_set(error, -E2BIG, "more than %u models would be served", XN_CONFIG_MODELS_MAX);
}

int xn_models_replace(struct xn_models *models, const char *name, struct xn_model **next, uint32_t n,
                      struct xn_error *error)
{
    struct table_state state = {.n = 0};
    uint32_t others = 0, at = 0;

    xn_models_reap(models);
    for (uint32_t i = 0; i < models->published.n; i++)
        others += strcmp(models->published.models[i]->name, name) != 0;
    if (n > XN_CONFIG_MODELS_MAX - others) {
        for (uint32_t i = 0; i < n; i++)
            xn_model_unref(next[i]);
        return too_many(error);
    }
    /* In the place of the old ones: who comes first may be the default. */
    while (at < models->published.n && strcmp(models->published.models[at]->name, name) != 0)
        state.models[state.n++] = xn_model_ref(models->published.models[at++]);
    for (uint32_t i = 0; i < n; i++)
        insert(&state, next[i]);
    for (; at < models->published.n; at++) {
        if (strcmp(models->published.models[at]->name, name) != 0)
            state.models[state.n++] = xn_model_ref(models->published.models[at]);
    }
    publish(models, &state, models->default_name);
    xn_models_reap(models);
    return 0;
}

/* Build entry `config` of the configuration into `next`. */
static int add_configured(struct xn_models *models, struct xn_config_model *config, struct table_state *next,
                          struct xn_error *error)
{
    struct xn_model_source source = {.config = config, .configured = true};
    struct xn_model *model = NULL;
    int r = xn_models_build(models, &source, &model, error);

    if (r < 0)
        return xn_error_prefix(error, r, "model %s", config->path);
    if (find(next, model->name, NULL)) {
        r = xn_error_set(error, -EEXIST, "model %s: another model is already called \"%s\"; give one a name of its own",
                         config->path, model->name);
        xn_model_unref(model);
        return r;
    }
    insert(next, model);
    if (!config->name)
        config->name = xn_strdup(model->name);
    return config->name ? 0 : xn_error_set(error, -ENOMEM, "no memory");
}

/* Models of the repository whose name no configured model has stay. */
static int keep_others(struct xn_models *models, struct table_state *next, struct xn_error *error)
{
    uint32_t n_configured = next->n;

    for (uint32_t i = 0; i < models->published.n; i++) {
        struct xn_model *model = models->published.models[i];
        bool taken = false;
        for (uint32_t k = 0; k < n_configured; k++)
            taken = taken || strcmp(next->models[k]->name, model->name) == 0;
        if (entry_of(model)->configured || taken)
            continue;
        if (next->n == XN_CONFIG_MODELS_MAX)
            return too_many(error);
        next->models[next->n++] = xn_model_ref(model);
    }
    return 0;
}

int xn_models_apply(struct xn_models *models, struct xn_config *config, struct xn_error *error)
{
    const char *default_name = config->default_model;
    struct table_state next = {.n = 0};
    int r = 0;

    xn_models_reap(models);
    for (uint32_t i = 0; r >= 0 && i < config->n_models; i++)
        r = add_configured(models, &config->models[i], &next, error);
    if (r >= 0 && default_name && !config->repository.path && !find(&next, default_name, NULL))
        r = xn_error_set(error, -ENOENT, "default_model: no model is called \"%s\"", default_name);
    if (r >= 0)
        r = keep_others(models, &next, error);
    if (r >= 0)
        publish(models, &next, default_name ? default_name : config->n_models > 0 ? config->models[0].name : "");
    else
        release(&next);
    xn_models_reap(models);
    return r;
}

/* ---- use ---------------------------------------------------------------------------------------------------------- */

struct xn_model *xn_models_get(struct xn_models *models, const char *name, const char *version)
{
    struct xn_model *model = NULL;

    pthread_mutex_lock(&models->models_lock);
    if (!name && models->default_name[0])
        name = models->default_name;
    if (name)
        model = find(&models->published, name, version);
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

static void set_row(struct xn_model_row *row, const char *name, const char *version, enum xn_model_state state)
{
    snprintf(row->name, sizeof(row->name), "%s", name);
    snprintf(row->version, sizeof(row->version), "%s", version);
    row->state = state;
}

uint32_t xn_models_index(struct xn_models *models, struct xn_model_row ret_rows[XN_MODEL_ROWS_MAX])
{
    uint32_t n = 0;

    pthread_mutex_lock(&models->models_lock);
    for (uint32_t i = 0; i < models->published.n; i++)
        set_row(&ret_rows[n++], models->published.models[i]->name, models->published.models[i]->version,
                XN_MODEL_READY);
    for (uint32_t i = 0; i < XN_CONFIG_MODELS_MAX; i++) {
        const struct slot *slot = &models->slots[i];
        if (slot->alive > 0 && !find(&models->published, slot->name, slot->version))
            set_row(&ret_rows[n++], slot->name, slot->version, XN_MODEL_UNLOADING);
    }
    pthread_mutex_unlock(&models->models_lock);
    return n;
}

void xn_models_free(struct xn_models *models)
{
    if (!models)
        return;
    release(&models->published);
    xn_models_reap(models);
    pthread_mutex_destroy(&models->models_lock);
    free(models);
}
