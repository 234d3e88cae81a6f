/* SPDX-License-Identifier: Apache-2.0
 * The table of served models over reloads: what is kept, what is replaced, when the old is unloaded, whose slot is whose, and that a reload that
 * fails changes nothing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/models.h"
#include "tests/support/fake_accel.h"
#include "tests/support/sample_networks.h"

static struct {
    char folder[64];
    struct xn_instances instances;
    struct xn_models *models;
    struct xn_config config;
    char names[XN_CONFIG_MODELS_MAX][32];
    uint32_t n_hooked;
    bool published_at_hook; /* by then somebody could have had it */
} bed;

static void on_hook(void *user, const struct xn_model *model)
{
    struct xn_model *now = xn_models_get(bed.models, model->name, NULL);

    assert_ptr_equal(user, &bed);
    assert_non_null(model->stats);
    bed.published_at_hook = bed.published_at_hook || (now == model && model->generation > bed.n_hooked);
    bed.n_hooked++;
    xn_model_unref(now);
}

static int setup(void **state)
{
    (void)state;
    memset(&bed, 0, sizeof(bed));
    strcpy(bed.folder, "/tmp/xn-test-models-XXXXXX");
    assert_non_null(mkdtemp(bed.folder));
    bed.instances.n = 2;
    bed.instances.accel[0] = fake_accel_new("fake0", 1);
    bed.instances.accel[1] = fake_accel_new("fake1", 1);
    assert_int_equal(xn_models_new(&bed.instances, on_hook, &bed, &bed.models), 0);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    xn_models_free(bed.models);
    for (uint32_t i = 0; i < 2; i++) {
        if (bed.instances.accel[i])
            fake_accel_free(bed.instances.accel[i]);
    }
    snprintf(command, sizeof(command), "rm -r %s", bed.folder);
    assert_int_equal(system(command), 0);
    return 0;
}

/* A file of the folder that holds a network of `version`. */
static char *write_file(const char *file, const char *version)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8], meta[128];
    struct xn_writer *writer = xn_sample_tiny();
    size_t bytes;

    snprintf(path, sizeof(paths[0]), "%s/%s", bed.folder, file);
    snprintf(meta, sizeof(meta), "{\"name\":\"tiny\",\"version\":\"%s\"}", version);
    xn_writer_meta(writer, meta);
    uint8_t *data = xn_writer_finish(writer, &bytes);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    assert_int_equal(fclose(out), 0);
    free(data);
    xn_writer_free(writer);
    return path;
}

static void add(const char *name, char *path)
{
    uint32_t i = bed.config.n_models++;

    snprintf(bed.names[i], sizeof(bed.names[i]), "%s", name);
    bed.config.models[i] = (struct xn_config_model){
        .name = bed.names[i], .path = path, .max_batch = 4, .queue_limit = 8, .timeout_ms = 1000};
}

static int apply(struct xn_error *error)
{
    int r = xn_models_apply(bed.models, &bed.config, error);

    bed.config.n_models = 0;
    bed.config.default_model = NULL;
    return r;
}

static void expect_applied(void)
{
    struct xn_error error = {{0}};

    if (apply(&error) < 0)
        fail_msg("%s", error.text);
}

/* Not counted: a pointer to compare. */
static struct xn_model *peek(const char *name)
{
    struct xn_model *model = xn_models_get(bed.models, name, NULL);

    xn_model_unref(model);
    return model;
}

static void test_names_and_default(void **state)
{
    struct xn_model *list[4];
    (void)state;

    add("a", write_file("a", "1"));
    add("b", write_file("b", "1"));
    expect_applied();
    assert_string_equal(peek(NULL)->name, "a");
    assert_string_equal(peek("b")->name, "b");
    assert_null(peek("c"));
    assert_int_equal(bed.n_hooked, 2);
    assert_false(bed.published_at_hook);
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 2);
    add("a", write_file("a", "1"));
    add("b", write_file("b", "1"));
    bed.config.default_model = (char *)"b";
    expect_applied();
    assert_string_equal(peek(NULL)->name, "b");
    assert_int_equal(xn_models_list(bed.models, list, 4), 2);
    assert_string_equal(list[1]->name, "a");
    xn_model_unref(list[0]);
    xn_model_unref(list[1]);
}

static void test_what_is_unchanged_is_kept(void **state)
{
    struct xn_model *before;
    (void)state;

    add("a", write_file("a", "1"));
    expect_applied();
    before = peek("a");
    add("a", write_file("a", "1"));
    expect_applied();
    assert_ptr_equal(peek("a"), before);
    add("a", write_file("a", "1"));
    bed.config.models[0].max_batch = 5; /* a setting */
    expect_applied();
    assert_ptr_not_equal(peek("a"), before);
    assert_int_equal(peek("a")->max_batch, 5);
    assert_int_equal(fake_accel_loaded(bed.instances.accel[1]), 1);
}

static void test_the_old_lives_until_its_last_request(void **state)
{
    struct xn_model *old, *now;
    (void)state;

    add("a", write_file("a", "1"));
    expect_applied();
    old = xn_models_get(bed.models, "a", NULL);
    atomic_fetch_add(&old->stats->inference_count, 7);
    add("a", write_file("a", "1"));
    bed.config.models[0].max_batch = 5;
    expect_applied();
    now = peek("a");
    assert_ptr_not_equal(now, old);
    assert_int_equal(now->slot, old->slot); /* the same name and version: its queue and its figures go on */
    assert_ptr_equal(now->stats, old->stats);
    assert_int_equal(atomic_load(&now->stats->inference_count), 7);
    assert_true(now->generation > old->generation);
    xn_models_reap(bed.models);
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 2);
    xn_model_unref(old);
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 2); /* whoever lets go does not unload */
    xn_models_reap(bed.models);
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 1);
}

static void test_a_failed_reload_changes_nothing(void **state)
{
    struct xn_model *a, *b;
    struct xn_error error;
    char *broken;
    (void)state;

    add("a", write_file("a", "1"));
    add("b", write_file("b", "1"));
    expect_applied();
    a = peek("a");
    b = peek("b");
    broken = write_file("c", "1");
    assert_int_equal(truncate(broken, 200), 0);
    add("a", write_file("a", "2"));
    add("c", broken);
    assert_true(apply(&error) < 0);
    assert_non_null(strstr(error.text, broken));
    add("a", write_file("a", "2"));
    add("a", write_file("b", "2"));
    assert_int_equal(apply(&error), -EEXIST);
    add("a", write_file("a", "2"));
    bed.config.default_model = (char *)"z";
    assert_int_equal(apply(&error), -ENOENT);
    add("a", (char *)"/nowhere/a.xnor");
    assert_int_equal(apply(&error), -ENOENT);
    assert_non_null(strstr(error.text, "/nowhere/a.xnor"));
    assert_ptr_equal(peek("a"), a);
    assert_ptr_equal(peek("b"), b);
    assert_ptr_equal(peek(NULL), a);
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 2);
    assert_int_equal(atomic_load(&a->refs), 1);
}

static void test_a_slot_is_one_names(void **state)
{
    struct xn_model *old;
    uint32_t slot;
    (void)state;

    add("a", write_file("a", "1"));
    expect_applied();
    old = xn_models_get(bed.models, "a", NULL);
    slot = old->slot;
    atomic_fetch_add(&old->stats->inference_count, 7);
    for (uint32_t i = 0; i < 2 * XN_CONFIG_MODELS_MAX; i++) { /* names come and go; `a` is removed, and still runs */
        char name[16];
        snprintf(name, sizeof(name), "n%u", i);
        add(name, write_file("n", "1"));
        expect_applied();
        assert_int_not_equal(peek(name)->slot, slot);
        assert_int_equal(atomic_load(&peek(name)->stats->inference_count), 0);
        atomic_fetch_add(&peek(name)->stats->inference_count, 1);
    }
    add("a", write_file("a", "1")); /* back again: it has its own */
    expect_applied();
    assert_int_equal(peek("a")->slot, slot);
    assert_int_equal(atomic_load(&peek("a")->stats->inference_count), 7);
    xn_model_unref(old);
}

static struct xn_model *build(const char *name, const char *version)
{
    struct xn_config_model config = {
        .name = (char *)name, .path = write_file(version, "9"), .max_batch = 4, .queue_limit = 8, .timeout_ms = 1000};
    struct xn_model_source source = {.config = &config, .version = version};
    struct xn_model *model = NULL;
    struct xn_error error = {{0}};

    if (xn_models_build(bed.models, &source, &model, &error) < 0)
        fail_msg("%s", error.text);
    return model;
}

static void replace(const char *name, struct xn_model **next, uint32_t n)
{
    struct xn_error error = {{0}};

    if (xn_models_replace(bed.models, name, next, n, &error) < 0)
        fail_msg("%s", error.text);
}

static bool has_row(const char *name, const char *version, enum xn_model_state state)
{
    struct xn_model_row rows[XN_MODEL_ROWS_MAX];
    uint32_t n = xn_models_index(bed.models, rows), found = 0;

    for (uint32_t i = 0; i < n; i++)
        found += strcmp(rows[i].name, name) == 0 && strcmp(rows[i].version, version) == 0 && rows[i].state == state;
    return found == 1;
}

static void test_versions_of_a_name(void **state)
{
    struct xn_model *next[2], *old, *list[8];
    (void)state;

    add("c", write_file("c", "1"));
    expect_applied();
    next[0] = build("m", "9");
    next[1] = build("m", "10");
    replace("m", next, 2);
    assert_string_equal(peek("m")->version, "10"); /* by number, not by text */
    assert_string_equal(peek("c")->version, "1");
    old = xn_models_get(bed.models, "m", "9");
    assert_non_null(old);
    assert_int_not_equal(old->slot, peek("m")->slot);
    assert_null(xn_models_get(bed.models, "m", "8"));
    next[0] = build("m", "10"); /* unchanged: the very same */
    assert_ptr_equal(next[0], peek("m"));
    next[1] = build("m", "11");
    replace("m", next, 2);
    assert_string_equal(peek("m")->version, "11");
    assert_true(has_row("m", "11", XN_MODEL_READY) && has_row("m", "10", XN_MODEL_READY));
    assert_true(has_row("m", "9", XN_MODEL_UNLOADING)); /* a request uses it */
    xn_model_unref(old);
    xn_models_reap(bed.models);
    assert_false(has_row("m", "9", XN_MODEL_UNLOADING));
    assert_string_equal(peek(NULL)->name, "c");
    assert_int_equal(xn_models_list(bed.models, list, 8), 3);
    for (uint32_t i = 0; i < 3; i++)
        xn_model_unref(list[i]);
    replace("m", NULL, 0);
    assert_null(peek("m"));
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 1);
}

static void test_the_repositorys_models_stay_over_a_reload(void **state)
{
    struct xn_model *m;
    (void)state;

    add("c", write_file("c", "1"));
    expect_applied();
    m = build("m", "1");
    replace("m", &m, 1);
    add("d", write_file("d", "1"));
    expect_applied();
    assert_null(peek("c"));
    assert_ptr_equal(peek("m"), m);
    assert_string_equal(peek(NULL)->name, "d");
    add("m", write_file("d", "3")); /* the configuration goes first */
    expect_applied();
    assert_string_equal(peek("m")->version, "3");
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 1);
    replace("m", NULL, 0); /* the default was unloaded: no other takes its place unasked */
    m = build("n", "1");
    replace("n", &m, 1);
    assert_null(peek(NULL));
}

static void test_no_more_than_the_table_holds(void **state)
{
    struct xn_model *next[XN_CONFIG_MODELS_MAX];
    struct xn_error error;
    char version[8];
    (void)state;

    add("c", write_file("c", "1"));
    expect_applied();
    for (uint32_t i = 0; i < XN_CONFIG_MODELS_MAX; i++) {
        snprintf(version, sizeof(version), "%u", i + 1);
        next[i] = build("m", version);
    }
    assert_int_equal(xn_models_replace(bed.models, "m", next, XN_CONFIG_MODELS_MAX, &error), -E2BIG);
    assert_null(peek("m"));
    xn_models_reap(bed.models);
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), 1);
}

static void add_all(const char *prefix)
{
    char name[16];

    for (uint32_t i = 0; i < XN_CONFIG_MODELS_MAX; i++) {
        snprintf(name, sizeof(name), "%s%u", prefix, i);
        add(name, write_file("n", "1"));
    }
}

static void test_all_slots_in_use(void **state)
{
    struct xn_model *held[XN_CONFIG_MODELS_MAX];
    (void)state;

    add_all("a");
    expect_applied();
    assert_int_equal(xn_models_list(bed.models, held, XN_CONFIG_MODELS_MAX), XN_CONFIG_MODELS_MAX);
    add_all("b"); /* all at once, while all the old ones run */
    expect_applied();
    assert_null(peek("a0"));
    for (uint32_t i = 0; i < XN_CONFIG_MODELS_MAX; i++) {
        struct xn_model *model = peek(bed.names[i]);
        assert_in_range(model->slot, 0, XN_CONFIG_MODELS_MAX - 1);
        for (uint32_t k = 0; k < i; k++)
            assert_int_not_equal(model->slot, peek(bed.names[k])->slot);
        xn_model_unref(held[i]);
    }
    xn_models_reap(bed.models);
    assert_int_equal(fake_accel_loaded(bed.instances.accel[0]), XN_CONFIG_MODELS_MAX);
}

static void test_closed_instances_have_unloaded(void **state)
{
    (void)state;

    add("a", write_file("a", "1"));
    expect_applied();
    fake_accel_free(bed.instances.accel[0]);
    bed.instances.accel[0] = NULL; /* the teardown frees the table: it must not unload there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names_and_default, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_unchanged_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_old_lives_until_its_last_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failed_reload_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_slot_is_one_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_versions_of_a_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_repositorys_models_stay_over_a_reload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_more_than_the_table_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_slots_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closed_instances_have_unloaded, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
