/* SPDX-License-Identifier: Apache-2.0
 * What is known of each name, and one thread that changes it.
 *
 *     seen in the folder -> two looks alike -> loading -> served, or bad with a reason
 *     served -> files changed, two looks alike -> loading, the old one serves on -> replaced; where the new is bad, the old one stays
 *     served -> files gone, or unloaded by a call -> its last request -> unloaded
 *
 * A file that is being written differs from one look to the next, so it is left alone until it is whole; a file that was renamed into its place is taken at the
 * second look. What was tried once, good or bad, is not tried again before its files change or a call asks for it.
 *
 * `repository_lock` guards the queue of jobs and what others read of `known`; the thread xn-models alone writes that, so it reads without the lock. The lock is held for
 * copies only, never while loading. */
#include "daemon/repository.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "daemon/model_config.h"
#include "daemon/repository_scan.h"

#define KNOWN_MAX   (XN_REPOSITORY_NAMES_MAX + XN_CONFIG_MODELS_MAX)
#define BAD_MAX     4u /* versions of a name whose reasons are kept */
#define PATH_BYTES  4352u
#define REAP_NS     XN_NS_PER_S
#define EVERY       XN_CONFIG_MODELS_MAX /* versions of a name that are looked at */
#define CONFIG_FILE "config.json"

struct bad {
    char version[XN_MODEL_VERSION_BYTES]; /* "": all of the name */
    struct xn_error why;
};

struct known {
    char name[XN_MODEL_NAME_BYTES];
    bool configured; /* listed in the configuration; else of the folder */
    bool shadows;    /* configured, and in the folder too, which is not looked at */
    bool unloaded;   /* by a call */
    bool loading;
    uint32_t n_bad;
    struct bad bad[BAD_MAX];
    /* Of the thread alone: */
    struct xn_config_model config; /* configured: name and path are its own */
    struct xn_found found;         /* the folder: as last seen */
    bool seen;                     /* at this look */
    uint64_t tried;                /* mark of what was loaded last; 0: nothing yet */
    char *override;                /* configuration that came with the last load; NULL: none */
};

struct job {
    struct xn_config *reload; /* not NULL: apply it; else: */
    bool load;
    char name[XN_MODEL_NAME_BYTES];
    char *config;
    xn_repository_done done;
    void *user;
};

struct xn_repository {
    struct xn_models *models;
    pthread_mutex_t repository_lock;
    pthread_cond_t changed; /* with repository_lock: a job, a reload, the stop, or its end */
    bool started, stopping, ended;
    pthread_t thread;
    struct job jobs[XN_REPOSITORY_JOBS_MAX]; /* a ring */
    uint32_t first_job, n_jobs;
    struct job reload;   /* goes before them; done NULL: none waits */
    struct job running;  /* done NULL: none is, or it has been refused meanwhile */
    struct known *known; /* [KNOWN_MAX] */
    uint32_t n_known;
    /* Of the thread alone: */
    char *path;
    uint32_t poll_ms, versions;
    struct xn_found *found;       /* [XN_REPOSITORY_NAMES_MAX] of one look */
    struct xn_error folder_error; /* the last that was logged; "": the folder can be read */
    uint64_t logged;              /* generation of the newest model that the log has named */
};

static void lock(struct xn_repository *r)
{
    pthread_mutex_lock(&r->repository_lock);
}

static void unlock(struct xn_repository *r)
{
    pthread_mutex_unlock(&r->repository_lock);
}

/* ---- the log ------------------------------------------------------------------------------------------------------ */

/* What is served now and was not before. */
static void log_new(struct xn_repository *r)
{
    struct xn_model *models[XN_CONFIG_MODELS_MAX];
    uint32_t n = xn_models_list(r->models, models, XN_CONFIG_MODELS_MAX);
    uint64_t newest = r->logged;

    for (uint32_t i = 0; i < n; i++) {
        const struct xn_model *m = models[i];
        struct xn_log_field fields[] = {{"MODEL", m->name}};
        if (m->generation > r->logged)
            xn_log_fields(XN_LOG_INFO, fields, 1, "model %s version %s: %" PRIu32 " classes, sha256 %.16s", m->name,
                          m->version, m->network->n_classes, m->network->sha256_hex);
        newest = XN_MAX(newest, m->generation);
        xn_model_unref(models[i]);
    }
    r->logged = newest;
}

/* What was served before and is not now. Takes the references. */
static void log_removed(struct xn_repository *r, struct xn_model **before, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct xn_log_field fields[] = {{"MODEL", before[i]->name}};
        struct xn_model *now = xn_models_get(r->models, before[i]->name, before[i]->version);
        if (!now)
            xn_log_fields(XN_LOG_INFO, fields, 1, "model %s version %s is no longer served", before[i]->name,
                          before[i]->version);
        xn_model_unref(now);
        xn_model_unref(before[i]);
    }
}

/* The table was changed; `before` is what it held, references that are taken. What nobody uses any more is freed at once. */
static void note_change(struct xn_repository *r, struct xn_model **before, uint32_t n)
{
    log_new(r);
    log_removed(r, before, n);
    xn_models_reap(r->models);
}

static void log_bad(const struct known *known)
{
    struct xn_log_field fields[] = {{"MODEL", known->name}};

    for (uint32_t i = 0; i < known->n_bad; i++) {
        const struct bad *bad = &known->bad[i];
        xn_log_fields(XN_LOG_ERROR, fields, 1, "model %s%s%s is not loaded, what is served of it stays: %s",
                      known->name, bad->version[0] ? " version " : "", bad->version, bad->why.text);
    }
}

/* ---- what is known ------------------------------------------------------------------------------------------------ */

static struct known *find(struct xn_repository *r, const char *name)
{
    for (uint32_t i = 0; i < r->n_known; i++) {
        if (strcmp(r->known[i].name, name) == 0)
            return &r->known[i];
    }
    return NULL;
}

/* There is room: for all that a folder may have, and a configuration. */
static struct known *add(struct xn_repository *r, const char *name)
{
    lock(r);
    assert(r->n_known < KNOWN_MAX);
    struct known *known = &r->known[r->n_known++];
    memset(known, 0, sizeof(*known));
    snprintf(known->name, sizeof(known->name), "%s", name);
    unlock(r);
    return known;
}

static void forget_config(struct known *known)
{
    free(known->config.name);
    free(known->config.path);
    known->config.name = known->config.path = NULL;
}

static void drop(struct xn_repository *r, uint32_t index)
{
    forget_config(&r->known[index]);
    free(r->known[index].override);
    lock(r);
    r->n_known--;
    memmove(&r->known[index], &r->known[index + 1], (r->n_known - index) * sizeof(r->known[0]));
    unlock(r);
}

/* ---- loading one name --------------------------------------------------------------------------------------------- */

/* A load under way. */
struct load {
    struct known *known;
    struct xn_config_model config;
    json_t *documents[2]; /* config.json, and what the call brought */
    struct xn_found_version versions[EVERY];
    uint32_t n_versions;
    struct xn_model *next[EVERY];
    uint32_t n_next;
    struct bad bad[BAD_MAX];
    uint32_t n_bad;
};

static void note_bad(struct load *load, const char *version, const struct xn_error *why)
{
    if (load->n_bad == BAD_MAX)
        return;
    load->bad[load->n_bad].why = *why;
    snprintf(load->bad[load->n_bad++].version, XN_MODEL_VERSION_BYTES, "%s", version);
}

/* NAME/config.json; *ret_text stays NULL where there is none. */
static int read_config_file(const struct xn_repository *r, const struct known *known, char **ret_text,
                            struct xn_error *error)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), "%s/%s/" CONFIG_FILE, r->path, known->name);
    FILE *file = fopen(path, "re");
    if (!file)
        return errno == ENOENT ? 0 : xn_error_set(error, -errno, "%s: %s", path, strerror(errno));
    char *text = xn_calloc(1, XN_MODEL_CONFIG_BYTES_MAX + 2);
    size_t n = text ? fread(text, 1, XN_MODEL_CONFIG_BYTES_MAX + 1, file) : 0;
    bool failed = ferror(file);
    fclose(file);
    if (!text || failed || n > XN_MODEL_CONFIG_BYTES_MAX) {
        free(text);
        return !text    ? xn_error_set(error, -ENOMEM, "no memory")
               : failed ? xn_error_set(error, -EIO, "%s: cannot be read", path)
                        : xn_error_set(error, -EFBIG, "%s: longer than %u bytes", path, XN_MODEL_CONFIG_BYTES_MAX);
    }
    *ret_text = text;
    return 0;
}

/* Settings: the defaults or the configuration's, then config.json's, then the call's. */
static int gather_settings(const struct xn_repository *r, struct load *load, struct xn_error *error)
{
    struct known *known = load->known;
    char *text = NULL;
    int result = 0;

    if (known->configured) {
        load->config = known->config;
    } else {
        xn_config_model_init(&load->config);
        load->config.policy.latest = r->versions;
    }
    load->config.name = known->name;
    if (!known->configured && known->found.folder)
        result = read_config_file(r, known, &text, error);
    if (result >= 0 && text)
        result = xn_model_config_parse(text, strlen(text), &load->config, &load->documents[0], error);
    if (result < 0 && text)
        (void)xn_error_prefix(error, result, "%s/" CONFIG_FILE, known->name);
    free(text);
    if (result >= 0 && known->override)
        result =
            xn_model_config_parse(known->override, strlen(known->override), &load->config, &load->documents[1], error);
    return result;
}

static int gather_versions(const struct xn_repository *r, struct load *load, struct xn_error *error)
{
    const struct known *known = load->known;
    int n;

    if (known->configured) {
        load->versions[0].path = xn_strdup(known->config.path);
        n = load->versions[0].path ? 1 : xn_error_set(error, -ENOMEM, "no memory");
    } else {
        n = xn_scan_versions(r->path, &known->found, load->versions, EVERY, error);
        if (n == 0)
            n = xn_error_set(error, -ENOENT, "%s has no version, which is a folder with a number for its name",
                             known->name);
    }
    load->n_versions = n > 0 ? (uint32_t)n : 0;
    return n < 0 ? n : 0;
}

/* Is version `number` to be served, after so many higher ones? A file that says its version itself always is. */
static bool is_wanted(const struct xn_version_policy *policy, uint64_t number, uint32_t chosen)
{
    if (number == 0)
        return true;
    if (policy->n_listed == 0)
        return chosen < XN_MAX(policy->latest, 1u);
    for (uint32_t i = 0; i < policy->n_listed; i++) {
        if (policy->listed[i] == number)
            return true;
    }
    return false;
}

/* Reasons are read by clients too: files are named as they are called in the folder, not where that is. */
static void shorten(const struct xn_repository *r, struct xn_error *error)
{
    size_t length = r->path ? strlen(r->path) : 0;

    if (length > 0 && strncmp(error->text, r->path, length) == 0 && error->text[length] == '/')
        memmove(error->text, error->text + length + 1, strlen(error->text + length + 1) + 1);
}

static int build(const struct xn_repository *r, const struct load *load, const struct xn_found_version *from,
                 const char *version, struct xn_model **ret_model, struct xn_error *error)
{
    struct xn_config_model config = load->config;
    struct xn_model_source source = {
        .config = &config, .version = version[0] ? version : NULL, .configured = load->known->configured};
    struct xn_model *model = NULL;
    int result;

    if (!from->path[0])
        return xn_error_set(error, -ENOENT,
                            "its folder must have one .xnor file, or several of which one is called model.xnor");
    config.path = from->path;
    result = xn_models_build(r->models, &source, &model, error);
    if (result < 0) {
        shorten(r, error);
        return result;
    }
    for (size_t i = 0; result >= 0 && i < XN_ARRAY_LEN(load->documents); i++) {
        if (load->documents[i])
            result = xn_model_config_check(model, load->documents[i], error);
    }
    if (result < 0)
        xn_model_unref(model);
    else
        *ret_model = model;
    return result;
}

/* Build one version. Where that fails, the one that is served stays. */
static void choose(const struct xn_repository *r, struct load *load, const struct xn_found_version *from)
{
    char version[24] = "";
    struct xn_error why;
    struct xn_model *model = NULL;

    if (from->number > 0)
        snprintf(version, sizeof(version), "%" PRIu64, from->number);
    if (build(r, load, from, version, &model, &why) < 0) {
        note_bad(load, version, &why);
        model = xn_models_get(r->models, load->known->name, version[0] ? version : NULL);
    }
    if (model)
        load->next[load->n_next++] = model;
}

static void load_done(struct load *load)
{
    for (uint32_t i = 0; i < load->n_versions; i++)
        free(load->versions[i].path);
    for (size_t i = 0; i < XN_ARRAY_LEN(load->documents); i++)
        json_decref(load->documents[i]);
    free(load);
}

static void set_outcome(struct xn_repository *r, struct known *known, const struct load *load)
{
    lock(r);
    known->loading = false;
    known->n_bad = load->n_bad;
    memcpy(known->bad, load->bad, sizeof(known->bad));
    unlock(r);
}

/* Load the versions of `known` as its files and settings are now, and serve them. Errors: the first of what was bad. */
static int load_known(struct xn_repository *r, struct known *known, struct xn_error *error)
{
    struct load *load = xn_calloc(1, sizeof(*load));
    struct xn_model *before[XN_CONFIG_MODELS_MAX];
    struct xn_error why = {{0}};

    if (!load)
        return xn_error_set(error, -ENOMEM, "no memory");
    lock(r);
    known->loading = true;
    known->unloaded = false;
    unlock(r);
    known->tried = known->found.mark;
    load->known = known;
    int result = gather_settings(r, load, &why);
    if (result >= 0)
        result = gather_versions(r, load, &why);
    if (result >= 0) {
        for (uint32_t i = 0; i < load->n_versions; i++) {
            if (is_wanted(&load->config.policy, load->versions[i].number, load->n_next))
                choose(r, load, &load->versions[i]);
        }
        if (load->n_next == 0 && load->n_bad == 0)
            xn_error_set(&why, 0, "none of the versions that its version_policy lists is there");
        uint32_t n = xn_models_list(r->models, before, XN_CONFIG_MODELS_MAX);
        result = xn_models_replace(r->models, known->name, load->next, load->n_next, &why);
        note_change(r, before, n);
    }
    if (why.text[0])
        note_bad(load, "", &why);
    set_outcome(r, known, load);
    log_bad(known);
    if (load->n_bad > 0)
        result = xn_error_set(error, result == -ENOMEM ? -ENOMEM : -EINVAL, "model %s: %s", known->name,
                              load->bad[0].why.text);
    load_done(load);
    return result;
}

static int unload_known(struct xn_repository *r, struct known *known, struct xn_error *error)
{
    struct xn_model *before[XN_CONFIG_MODELS_MAX];
    uint32_t n = xn_models_list(r->models, before, XN_CONFIG_MODELS_MAX);
    int result = xn_models_replace(r->models, known->name, NULL, 0, error);

    note_change(r, before, n);
    lock(r);
    known->unloaded = true;
    known->n_bad = 0;
    unlock(r);
    return result;
}

/* ---- the folder --------------------------------------------------------------------------------------------------- */

/* A name that is there at this look. `at_once`: without waiting for a second one. */
static void see(struct xn_repository *r, const struct xn_found *found, bool at_once)
{
    struct known *known = find(r, found->name);
    struct xn_error error;

    if (!known)
        known = add(r, found->name);
    if (known->configured) {
        lock(r);
        known->shadows = true;
        unlock(r);
        return;
    }
    bool steady = at_once || known->found.mark == found->mark;
    known->seen = true;
    known->found = *found;
    if (steady && known->tried != found->mark && !known->unloaded)
        (void)load_known(r, known, &error); /* logged there, and in the index */
}

/* Names that the folder has no more: gone at two looks, they are unloaded and forgotten. */
static void sweep(struct xn_repository *r, bool at_once)
{
    for (uint32_t i = r->n_known; i-- > 0;) {
        struct known *known = &r->known[i];
        struct xn_error error;
        if (known->configured || known->seen)
            continue;
        bool steady = at_once || known->found.mark == 0;
        known->found.mark = 0;
        if (!steady)
            continue;
        (void)unload_known(r, known, &error); /* without models it cannot fail */
        drop(r, i);
    }
}

static void look(struct xn_repository *r, bool at_once)
{
    struct xn_error error = {{0}};
    int n = r->path ? xn_scan_names(r->path, r->found, XN_REPOSITORY_NAMES_MAX, &error) : 0;

    if (n < 0) { /* not a reason to unload: the disk may come back */
        if (strcmp(error.text, r->folder_error.text) != 0)
            xn_log_error("%s; its models stay as they are", error.text);
        r->folder_error = error;
        return;
    }
    r->folder_error.text[0] = '\0';
    for (uint32_t i = 0; i < r->n_known; i++)
        r->known[i].seen = false;
    for (int i = 0; i < n; i++)
        see(r, &r->found[i], at_once);
    sweep(r, at_once);
}

/* ---- the configuration -------------------------------------------------------------------------------------------- */

/* Its models are known from now on, and those of the one before no more. */
static int learn(struct xn_repository *r, const struct xn_config *config)
{
    for (uint32_t i = r->n_known; i-- > 0;) {
        if (r->known[i].configured)
            drop(r, i);
    }
    for (uint32_t i = 0; i < config->n_models; i++) {
        const struct xn_config_model *model = &config->models[i];
        struct known *known = find(r, model->name);
        if (!known)
            known = add(r, model->name);
        free(known->override);
        known->override = NULL;
        known->config = *model;
        known->config.name = xn_strdup(model->name);
        known->config.path = xn_strdup(model->path);
        lock(r);
        known->configured = true;
        known->unloaded = known->shadows = false;
        known->n_bad = 0;
        unlock(r);
        if (!known->config.name || !known->config.path)
            return -ENOMEM;
    }
    return 0;
}

static int apply(struct xn_repository *r, struct xn_config *config, struct xn_error *error)
{
    struct xn_model *before[XN_CONFIG_MODELS_MAX];
    char *path = config->repository.path ? xn_strdup(config->repository.path) : NULL;
    uint32_t n = xn_models_list(r->models, before, XN_CONFIG_MODELS_MAX);
    int result = config->repository.path && !path ? xn_error_set(error, -ENOMEM, "no memory") : 0;

    if (result >= 0)
        result = xn_models_apply(r->models, config, error);
    if (result >= 0) {
        result = learn(r, config);
        if (result < 0)
            xn_error_set(error, result, "no memory");
    }
    note_change(r, before, n);
    if (result < 0) {
        free(path);
        return result;
    }
    bool versions_differ = r->versions != config->repository.versions;
    free(r->path);
    r->path = path;
    r->poll_ms = config->repository.poll_ms;
    r->versions = config->repository.versions;
    for (uint32_t i = 0; i < r->n_known; i++) {
        if (versions_differ || r->known[i].unloaded)
            r->known[i].tried = 0;
        lock(r);
        r->known[i].unloaded = false;
        unlock(r);
    }
    look(r, true);
    return 0;
}

/* ---- the thread --------------------------------------------------------------------------------------------------- */

/* A call that names a model loads it as it is now, whatever the folder was at the last look. */
static void look_at(struct xn_repository *r, const char *name)
{
    struct xn_error error;
    int n = r->path ? xn_scan_names(r->path, r->found, XN_REPOSITORY_NAMES_MAX, &error) : 0;
    struct known *known = find(r, name);

    for (int i = 0; i < n; i++) {
        if (strcmp(r->found[i].name, name) != 0)
            continue;
        known = known ? known : add(r, name);
        if (!known->configured)
            known->found = r->found[i];
        return;
    }
    if (known && !known->configured && n >= 0)
        known->found.mark = 0;
}

static int load_called(struct xn_repository *r, struct job *job, struct xn_error *error)
{
    look_at(r, job->name);
    struct known *known = find(r, job->name);
    if (!known || (!known->configured && known->found.mark == 0))
        return xn_error_set(error, -ENOENT, "no model is called \"%s\" in the repository or the configuration",
                            job->name);
    char *old = known->override;
    known->override = job->config;
    job->config = NULL;
    int result = load_known(r, known, error);
    if (result < 0) { /* what the folder's next change is loaded with is what was last good */
        free(known->override);
        known->override = old;
    } else {
        free(old);
    }
    return result;
}

static int run(struct xn_repository *r, struct job *job, struct xn_error *error)
{
    if (job->reload)
        return apply(r, job->reload, error);
    if (job->load)
        return load_called(r, job, error);
    struct known *known = find(r, job->name);
    if (!known)
        return xn_error_set(error, -ENOENT, "no model is called \"%s\" in the repository or the configuration",
                            job->name);
    return unload_known(r, known, error);
}

static bool take_job_locked(struct xn_repository *r, struct job *ret)
{
    if (r->reload.done) {
        *ret = r->reload;
        r->reload.done = NULL;
        return true;
    }
    if (r->n_jobs == 0)
        return false;
    *ret = r->jobs[r->first_job];
    r->first_job = (r->first_job + 1) % XN_REPOSITORY_JOBS_MAX;
    r->n_jobs--;
    return true;
}

/* Enters and leaves with the lock. Whoever takes r->running answers: this thread, or a stop that no longer waits for it. */
static void do_job_locked(struct xn_repository *r, struct job *job)
{
    struct xn_error error = {{0}};

    r->running = *job;
    unlock(r);
    int status = run(r, job, &error);
    free(job->config);
    lock(r);
    xn_repository_done done = r->running.done;
    r->running.done = NULL;
    unlock(r);
    if (done)
        done(job->user, status, &error);
    lock(r);
}

static void refuse(struct job *job)
{
    struct xn_error error;

    xn_error_set(&error, -ESHUTDOWN, "the server is stopping");
    job->done(job->user, -ESHUTDOWN, &error);
}

static void refuse_waiting_locked(struct xn_repository *r)
{
    struct job job;

    while (take_job_locked(r, &job)) {
        unlock(r);
        free(job.config);
        refuse(&job);
        lock(r);
    }
}

static void wait_locked(struct xn_repository *r, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / XN_NS_PER_S), .tv_nsec = (long)(until_ns % XN_NS_PER_S)};

    pthread_cond_timedwait(&r->changed, &r->repository_lock, &until);
}

static void *thread_main(void *argument)
{
    struct xn_repository *r = argument;
    uint64_t look_ns = xn_clock_now_ns() + r->poll_ms * XN_NS_PER_MS;
    struct job job;

    lock(r);
    while (!r->stopping) {
        uint64_t now_ns = xn_clock_now_ns();
        if (take_job_locked(r, &job)) {
            do_job_locked(r, &job);
        } else if (r->poll_ms > 0 && r->path && now_ns >= look_ns) {
            unlock(r);
            look(r, false);
            lock(r);
            look_ns = xn_clock_now_ns() + r->poll_ms * XN_NS_PER_MS;
        } else {
            unlock(r);
            xn_models_reap(r->models);
            lock(r);
            uint64_t until_ns = now_ns + REAP_NS;
            if (r->poll_ms > 0 && r->path)
                until_ns = XN_MIN(until_ns, look_ns);
            if (r->n_jobs == 0 && !r->reload.done && !r->stopping)
                wait_locked(r, until_ns);
        }
    }
    refuse_waiting_locked(r);
    r->ended = true;
    pthread_cond_broadcast(&r->changed);
    unlock(r);
    return NULL;
}

/* ---- calls -------------------------------------------------------------------------------------------------------- */

static int push(struct xn_repository *r, const struct job *job)
{
    int result = 0;

    lock(r);
    if (r->stopping || !r->started)
        result = -ESHUTDOWN;
    else if (r->n_jobs == XN_REPOSITORY_JOBS_MAX)
        result = -EAGAIN;
    else
        r->jobs[(r->first_job + r->n_jobs++) % XN_REPOSITORY_JOBS_MAX] = *job;
    pthread_cond_broadcast(&r->changed);
    unlock(r);
    if (result < 0)
        free(job->config);
    return result;
}

int xn_repository_load(struct xn_repository *repository, const char *name, char *config, xn_repository_done done,
                       void *user)
{
    struct job job = {.load = true, .config = config, .done = done, .user = user};

    snprintf(job.name, sizeof(job.name), "%s", name);
    return push(repository, &job);
}

int xn_repository_unload(struct xn_repository *repository, const char *name, xn_repository_done done, void *user)
{
    struct job job = {.done = done, .user = user};

    snprintf(job.name, sizeof(job.name), "%s", name);
    return push(repository, &job);
}

int xn_repository_reload(struct xn_repository *repository, struct xn_config *config, xn_repository_done done,
                         void *user)
{
    struct xn_repository *r = repository;
    int result = 0;

    lock(r);
    if (r->stopping || !r->started)
        result = -ESHUTDOWN;
    else if (r->reload.done || (r->running.done && r->running.reload))
        result = -EBUSY;
    else
        r->reload = (struct job){.reload = config, .done = done, .user = user};
    pthread_cond_broadcast(&r->changed);
    unlock(r);
    return result;
}

/* ---- the index ---------------------------------------------------------------------------------------------------- */

struct index {
    struct xn_repository_row *rows;
    uint32_t n;
};

/* The row of a version; version "": any of the name that is served. */
static struct xn_repository_row *find_row(const struct index *index, const char *name, const char *version)
{
    for (uint32_t i = 0; i < index->n; i++) {
        const struct xn_model_row *row = &index->rows[i].model;
        if (strcmp(row->name, name) == 0 &&
            (version[0] ? strcmp(row->version, version) == 0 : row->state == XN_MODEL_READY))
            return &index->rows[i];
    }
    return NULL;
}

static void put_row(struct index *index, const char *name, const char *version, enum xn_model_state state,
                    const char *reason)
{
    struct xn_repository_row *row = find_row(index, name, version);

    if (!row) {
        row = &index->rows[index->n++];
        snprintf(row->model.name, sizeof(row->model.name), "%s", name);
        snprintf(row->model.version, sizeof(row->model.version), "%s", version);
        row->model.state = state;
    }
    snprintf(row->reason, sizeof(row->reason), "%s", reason);
}

static void put_known_locked(struct index *index, const struct known *known)
{
    for (uint32_t i = 0; i < known->n_bad; i++)
        put_row(index, known->name, known->bad[i].version, XN_MODEL_UNAVAILABLE, known->bad[i].why.text);
    if (known->shadows)
        put_row(index, known->name, "", XN_MODEL_UNAVAILABLE,
                "the repository has the name too, and is not looked at: the configuration's model goes first");
    bool any = false;
    for (uint32_t i = 0; i < index->n; i++)
        any = any || strcmp(index->rows[i].model.name, known->name) == 0;
    if (!any && known->loading)
        put_row(index, known->name, "", XN_MODEL_LOADING, "");
    else if (!any)
        put_row(index, known->name, "", XN_MODEL_UNAVAILABLE,
                known->unloaded ? "unloaded" : "not loaded yet: its files are still changing");
}

int xn_repository_index(struct xn_repository *repository, struct xn_repository_row **ret_rows, uint32_t *ret_n)
{
    struct index index = {.n = 0};
    struct xn_model_row rows[XN_MODEL_ROWS_MAX];
    uint32_t n = xn_models_index(repository->models, rows);

    lock(repository);
    index.rows = xn_calloc(n + (size_t)repository->n_known * (BAD_MAX + 1) + 1, sizeof(*index.rows));
    for (uint32_t i = 0; index.rows && i < n; i++)
        index.rows[index.n++].model = rows[i];
    for (uint32_t i = 0; index.rows && i < repository->n_known; i++)
        put_known_locked(&index, &repository->known[i]);
    unlock(repository);
    if (!index.rows)
        return -ENOMEM;
    *ret_rows = index.rows;
    *ret_n = index.n;
    return 0;
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

int xn_repository_new(struct xn_config *config, struct xn_models *models, struct xn_repository **ret_repository,
                      struct xn_error *error)
{
    struct xn_repository *r = xn_calloc(1, sizeof(*r));
    pthread_condattr_t attributes;

    if (!r)
        return xn_error_set(error, -ENOMEM, "no memory for the model repository");
    pthread_mutex_init(&r->repository_lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    r->models = models;
    r->known = xn_calloc(KNOWN_MAX, sizeof(*r->known));
    r->found = xn_calloc(XN_REPOSITORY_NAMES_MAX, sizeof(*r->found));
    int result = r->known && r->found ? apply(r, config, error)
                                      : xn_error_set(error, -ENOMEM, "no memory for the model repository");
    if (result < 0) {
        xn_repository_free(r);
        return result;
    }
    *ret_repository = r;
    return 0;
}

int xn_repository_start(struct xn_repository *repository, struct xn_error *error)
{
    int result = -pthread_create(&repository->thread, NULL, thread_main, repository);

    if (result < 0)
        return xn_error_set(error, result, "thread xn-models: %s", strerror(-result));
    lock(repository);
    repository->started = true;
    unlock(repository);
    pthread_setname_np(repository->thread, "xn-models");
    return 0;
}

void xn_repository_quit(struct xn_repository *repository)
{
    lock(repository);
    repository->stopping = true;
    pthread_cond_broadcast(&repository->changed);
    unlock(repository);
}

bool xn_repository_ended(struct xn_repository *repository)
{
    lock(repository);
    bool ended = !repository->started || repository->ended;
    unlock(repository);
    return ended;
}

bool xn_repository_stop(struct xn_repository *repository, uint64_t until_ns)
{
    struct xn_repository *r = repository;

    if (!r || !r->started)
        return true;
    xn_repository_quit(r);
    lock(r);
    while (!r->ended && xn_clock_now_ns() < until_ns)
        wait_locked(r, until_ns);
    if (!r->ended) { /* it hangs in a load: who waits for that waits no longer */
        struct job job = r->running;
        r->running.done = NULL;
        refuse_waiting_locked(r);
        unlock(r);
        if (job.done)
            refuse(&job);
        return false;
    }
    unlock(r);
    pthread_join(r->thread, NULL);
    r->started = false;
    return true;
}

void xn_repository_free(struct xn_repository *repository)
{
    struct xn_repository *r = repository;

    if (!r)
        return;
    (void)xn_repository_stop(r, XN_NEVER_NS);
    while (r->known && r->n_known > 0)
        drop(r, r->n_known - 1);
    free(r->known);
    free(r->found);
    free(r->path);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->repository_lock);
    free(r);
}
