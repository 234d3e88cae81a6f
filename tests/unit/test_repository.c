/* SPDX-License-Identifier: Apache-2.0
 * The model repository: what its folder may look like, which versions are served, that bad files change nothing and are told with their reason, and what calls do. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/log.h"
#include "daemon/repository.h"
#include "daemon/repository_scan.h"
#include "tests/support/fake_accel.h"
#include "tests/support/sample_networks.h"

#define PATIENCE_NS (60 * XN_NS_PER_S) /* for what happens at once */

static struct {
    char folder[64];
    struct xn_instances instances;
    struct xn_models *models;
    struct xn_config config;
    struct xn_repository *repository;
    /* What the last call came to. */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    uint32_t n_ended;
    int status;
    struct xn_error error;
} bed;

static int setup(void **state)
{
    (void)state;
    memset(&bed, 0, sizeof(bed));
    xn_log_init(XN_LOG_ERROR, XN_LOG_STDERR);
    strcpy(bed.folder, "/tmp/xn-test-repository-XXXXXX");
    assert_non_null(mkdtemp(bed.folder));
    bed.instances.n = 1;
    bed.instances.accel[0] = fake_accel_new("fake0", 1);
    assert_int_equal(xn_models_new(&bed.instances, NULL, NULL, &bed.models), 0);
    xn_config_init(&bed.config);
    bed.config.repository.path = strdup(bed.folder);
    bed.config.repository.poll_ms = 1;
    pthread_mutex_init(&bed.lock, NULL);
    pthread_cond_init(&bed.ended, NULL);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    xn_repository_free(bed.repository);
    xn_models_free(bed.models);
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 0);
    fake_accel_free(bed.instances.accel[0]);
    xn_config_done(&bed.config);
    snprintf(command, sizeof(command), "rm -r %s", bed.folder);
    assert_int_equal(system(command), 0);
    return 0;
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static void make_folder(const char *path)
{
    char full[256];

    snprintf(full, sizeof(full), "%s/%s", bed.folder, path);
    assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
}

static void write_text(const char *path, const void *data, size_t bytes)
{
    char full[256], temporary[256];

    snprintf(full, sizeof(full), "%s/%s", bed.folder, path);
    snprintf(temporary, sizeof(temporary), "%s/.new", bed.folder);
    FILE *out = fopen(temporary, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(rename(temporary, full), 0);
}

/* A network whose metadata says `version`; with `good` false cut short. */
static void write_network(const char *path, const char *version, bool good)
{
    char meta[128];
    struct xn_writer *writer = xn_sample_tiny();
    size_t bytes;

    snprintf(meta, sizeof(meta), "{\"name\":\"tiny\",\"version\":\"%s\"}", version);
    xn_writer_meta(writer, meta);
    uint8_t *data = xn_writer_finish(writer, &bytes);
    write_text(path, data, good ? bytes : bytes / 2);
    free(data);
    xn_writer_free(writer);
}

static void remove_file(const char *path)
{
    char full[256];

    snprintf(full, sizeof(full), "%s/%s", bed.folder, path);
    assert_int_equal(remove(full), 0);
}

/* ---- the repository ----------------------------------------------------------------------------------------------- */

static void open_repository(void)
{
    struct xn_error error = {{0}};

    if (xn_repository_new(&bed.config, bed.models, &bed.repository, &error) < 0)
        fail_msg("%s", error.text);
    if (xn_repository_start(bed.repository, &error) < 0)
        fail_msg("%s", error.text);
}

/* The row of a version, or of a name where `version` is "". */
static bool row_of(const char *name, const char *version, struct xn_repository_row *ret)
{
    struct xn_repository_row *rows;
    uint32_t n;
    bool found = false;

    assert_int_equal(xn_repository_index(bed.repository, &rows, &n), 0);
    for (uint32_t i = 0; i < n && !found; i++) {
        found = strcmp(rows[i].model.name, name) == 0 && strcmp(rows[i].model.version, version) == 0;
        *ret = rows[i];
    }
    free(rows);
    return found;
}

static bool is(const char *name, const char *version, enum xn_model_state state, const char *reason)
{
    struct xn_repository_row row;

    return row_of(name, version, &row) && row.model.state == state &&
           (reason[0] ? strstr(row.reason, reason) != NULL : row.reason[0] == '\0');
}

static void await(const char *name, const char *version, enum xn_model_state state, const char *reason)
{
    uint64_t until_ns = xn_clock_now_ns() + PATIENCE_NS;

    while (!is(name, version, state, reason)) {
        if (xn_clock_now_ns() > until_ns)
            fail_msg("%s %s did not come to state %d (%s)", name, version, (int)state, reason);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* between two looks */
    }
}

static void await_gone(const char *name)
{
    uint64_t until_ns = xn_clock_now_ns() + PATIENCE_NS;
    struct xn_model *model;

    while ((model = xn_models_get(bed.models, name, NULL)) != NULL) {
        xn_model_unref(model);
        assert_true(xn_clock_now_ns() < until_ns);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static bool serves(const char *name, const char *version)
{
    struct xn_model *model = xn_models_get(bed.models, name, version);

    xn_model_unref(model);
    return model != NULL;
}

static void done(void *user, int status, const struct xn_error *error)
{
    (void)user;
    pthread_mutex_lock(&bed.lock);
    bed.status = status;
    bed.error = *error;
    bed.n_ended++;
    pthread_cond_signal(&bed.ended);
    pthread_mutex_unlock(&bed.lock);
}

static int await_call(int r)
{
    assert_int_equal(r, 0);
    pthread_mutex_lock(&bed.lock);
    while (bed.n_ended == 0)
        pthread_cond_wait(&bed.ended, &bed.lock);
    bed.n_ended = 0;
    pthread_mutex_unlock(&bed.lock);
    return bed.status;
}

static int load(const char *name, const char *config)
{
    return await_call(xn_repository_load(bed.repository, name, config ? strdup(config) : NULL, done, NULL));
}

static int unload(const char *name)
{
    return await_call(xn_repository_unload(bed.repository, name, done, NULL));
}

static int reload(struct xn_config *config)
{
    return await_call(xn_repository_reload(bed.repository, config, done, NULL));
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */

static void test_both_layouts(void **state)
{
    (void)state;
    write_network("flat.xnor", "4", true);
    make_folder("deep");
    make_folder("deep/2");
    make_folder("deep/10");
    make_folder("deep/x");
    make_folder("deep/03");
    write_network("deep/2/any.xnor", "1", true);
    write_network("deep/10/model.xnor", "1", true);
    write_network("deep/10/other.xnor", "1", false); /* model.xnor is meant */
    write_network("deep/03/model.xnor", "1", true);  /* no number as a number is written */
    write_text("notes.txt", "x", 1);
    write_network(".hidden.xnor", "1", true);
    write_network("no name.xnor", "1", true);
    open_repository();
    assert_true(is("flat", "4", XN_MODEL_READY, ""));
    assert_true(is("deep", "10", XN_MODEL_READY, ""));
    assert_false(serves("deep", "2")); /* the latest alone */
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 2);
}

static void test_several_versions(void **state)
{
    (void)state;
    bed.config.repository.versions = 2;
    make_folder("m");
    for (int version = 1; version <= 3; version++) {
        char path[32];
        snprintf(path, sizeof(path), "m/%d", version);
        make_folder(path);
        strcat(path, "/model.xnor");
        write_network(path, "1", true);
    }
    open_repository();
    assert_true(serves("m", "3") && serves("m", "2") && !serves("m", "1"));
    write_text("m/config.json", "{\"version_policy\":{\"specific\":{\"versions\":[1]}}}", 49);
    await("m", "1", XN_MODEL_READY, "");
    assert_false(serves("m", "3"));
    assert_int_equal(load("m", "{\"version_policy\":{\"all\":{}},\"max_batch_size\":7}"), 0);
    assert_true(serves("m", "3") && serves("m", "2") && serves("m", "1"));
    struct xn_model *model = xn_models_get(bed.models, "m", "2");
    assert_int_equal(model->max_batch, 7);
    xn_model_unref(model);
    assert_int_equal(load("m", NULL), 0); /* config.json again */
    assert_false(serves("m", "3"));
}

static void test_files_come_and_go(void **state)
{
    (void)state;
    open_repository();
    write_network("a.xnor", "1", true);
    await("a", "1", XN_MODEL_READY, "");
    write_network("a.xnor", "2", true);
    await("a", "2", XN_MODEL_READY, "");
    assert_false(serves("a", "1"));
    remove_file("a.xnor");
    await_gone("a");
}

static void test_a_bad_file_changes_nothing(void **state)
{
    struct xn_model *before;
    (void)state;

    write_network("a.xnor", "1", true);
    make_folder("m");
    make_folder("m/1");
    write_network("m/1/model.xnor", "1", true);
    open_repository();
    before = xn_models_get(bed.models, "a", NULL);
    write_network("a.xnor", "2", false);
    await("a", "1", XN_MODEL_READY, "truncated"); /* served, and the reason why not the newer */
    make_folder("m/2");
    write_network("m/2/model.xnor", "1", false);
    await("m", "2", XN_MODEL_UNAVAILABLE, "truncated");
    struct xn_repository_row row;
    assert_true(row_of("m", "2", &row));
    assert_ptr_equal(strstr(row.reason, "m/2/model.xnor: "), row.reason); /* not where the folder is */
    assert_true(is("m", "1", XN_MODEL_READY, ""));
    make_folder("m/3");
    await("m", "3", XN_MODEL_UNAVAILABLE, "one .xnor file");
    write_text("m/config.json", "{\"max_batch_size\":0}", 20);
    await("m", "1", XN_MODEL_READY, "max_batch_size");
    assert_int_equal(load("a", NULL), -EINVAL);
    assert_non_null(strstr(bed.error.text, "truncated"));
    assert_true(serves("a", "1"));
    struct xn_model *now = xn_models_get(bed.models, "a", NULL);
    assert_ptr_equal(now, before);
    xn_model_unref(now);
    xn_model_unref(before);
    write_network("a.xnor", "2", true);
    await("a", "2", XN_MODEL_READY, "");
}

static void test_a_bad_file_at_the_start(void **state)
{
    (void)state;
    write_network("a.xnor", "1", false);
    write_network("b.xnor", "1", true);
    open_repository();
    assert_true(is("a", "", XN_MODEL_UNAVAILABLE, "truncated"));
    assert_true(is("b", "1", XN_MODEL_READY, ""));
}

static void test_calls(void **state)
{
    (void)state;
    bed.config.repository.poll_ms = 0;
    write_network("a.xnor", "1", true);
    open_repository();
    assert_int_equal(unload("a"), 0);
    assert_true(is("a", "", XN_MODEL_UNAVAILABLE, "unloaded"));
    assert_false(serves("a", NULL));
    assert_int_equal(load("a", NULL), 0);
    assert_true(serves("a", "1"));
    write_network("b.xnor", "5", true);
    assert_int_equal(load("b", NULL), 0); /* though nobody has looked at the folder since */
    assert_true(serves("b", "5"));
    assert_int_equal(load("c", NULL), -ENOENT);
    assert_int_equal(unload("c"), -ENOENT);
    assert_int_equal(load("../a", NULL), -ENOENT);
    assert_int_equal(load("a", "{\"platform\":\"xnor\",\"max_batch_size\":3}"), 0);
    assert_int_equal(load("a", "{\"platform\":\"other\"}"), -EINVAL);
    assert_non_null(strstr(bed.error.text, "platform"));
    assert_int_equal(load("a", "{\"sequence_batching\":{}}"), -EINVAL);
    assert_int_equal(load("a", "{"), -EINVAL);
    struct xn_model *model = xn_models_get(bed.models, "a", NULL);
    assert_int_equal(model->max_batch, 3);
    xn_model_unref(model);
}

static void test_unloaded_stays_unloaded(void **state)
{
    (void)state;

    write_network("a.xnor", "1", true);
    write_network("b.xnor", "1", true);
    open_repository();
    assert_int_equal(unload("a"), 0);
    write_network("a.xnor", "2", true);
    write_network("b.xnor", "2", true);
    await("b", "2", XN_MODEL_READY, ""); /* the folder was looked at */
    assert_false(serves("a", NULL));
    assert_int_equal(reload(&bed.config), 0);
    assert_true(serves("a", "2"));
}

static void test_the_configuration_goes_first(void **state)
{
    char path[128];
    struct xn_error error;
    (void)state;

    write_network("a.xnor", "1", true);
    write_network(".kept", "8", true);
    snprintf(path, sizeof(path), "a=%s/.kept", bed.folder);
    assert_int_equal(xn_config_set_model(&bed.config, 0, path, &error), 0);
    open_repository();
    assert_true(is("a", "8", XN_MODEL_READY, "goes first"));
    assert_int_equal(unload("a"), 0);
    assert_false(serves("a", NULL));
    assert_int_equal(load("a", NULL), 0);
    assert_true(serves("a", "8"));
    struct xn_config without;
    xn_config_init(&without);
    without.repository.path = strdup(bed.folder);
    without.repository.poll_ms = 1;
    assert_int_equal(reload(&without), 0);
    xn_config_done(&without);
    assert_true(is("a", "1", XN_MODEL_READY, "")); /* now it is the folder's */
}

static void test_the_stop_answers_what_waits(void **state)
{
    (void)state;
    open_repository();
    assert_false(xn_repository_ended(bed.repository));
    assert_true(xn_repository_stop(bed.repository, XN_NEVER_NS));
    assert_true(xn_repository_ended(bed.repository));
    assert_int_equal(xn_repository_load(bed.repository, "a", strdup("{}"), done, NULL), -ESHUTDOWN);
    assert_int_equal(xn_repository_reload(bed.repository, &bed.config, done, NULL), -ESHUTDOWN);
    assert_int_equal(bed.n_ended, 0);
}

/* Its config.json is a FIFO that nobody writes to: whoever opens it waits. */
static void test_a_load_that_hangs(void **state)
{
    char path[128];

    (void)state;
    bed.config.repository.poll_ms = 0;
    open_repository();
    make_folder("h");
    make_folder("h/1");
    write_network("h/1/model.xnor", "1", true);
    snprintf(path, sizeof(path), "%s/h/config.json", bed.folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(xn_repository_load(bed.repository, "h", NULL, done, NULL), 0);
    await("h", "", XN_MODEL_LOADING, "");
    assert_int_equal(xn_repository_unload(bed.repository, "h", done, NULL), 0);
    assert_int_equal(xn_repository_reload(bed.repository, &bed.config, done, NULL), 0);
    assert_int_equal(xn_repository_reload(bed.repository, &bed.config, done, NULL), -EBUSY);
    assert_int_equal(bed.n_ended, 0);

    assert_false(xn_repository_stop(bed.repository, xn_clock_now_ns()));
    assert_int_equal(bed.n_ended, 3);
    assert_int_equal(bed.status, -ESHUTDOWN);
    assert_false(xn_repository_ended(bed.repository));
    int fd = open(path, O_WRONLY); /* the load goes on, and comes to nothing that anybody hears of */
    assert_true(fd >= 0);
    close(fd);
    assert_true(xn_repository_stop(bed.repository, XN_NEVER_NS));
    assert_int_equal(bed.n_ended, 3);
    bed.n_ended = 0;
}

static void test_no_folder(void **state)
{
    struct xn_error error;
    (void)state;

    free(bed.config.repository.path);
    bed.config.repository.path = strdup("/nowhere/at/all");
    open_repository(); /* it may be mounted later */
    assert_int_equal(xn_scan_names("/nowhere/at/all", NULL, 0, &error), -ENOENT);
    assert_non_null(strstr(error.text, "/nowhere/at/all"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_layouts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_several_versions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_bad_file_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_bad_file_at_the_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unloaded_stays_unloaded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_configuration_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_stop_answers_what_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_load_that_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_folder, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
