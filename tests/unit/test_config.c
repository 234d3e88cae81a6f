/* SPDX-License-Identifier: Apache-2.0
 * Configuration: defaults, every rule with the line it names, overrides, and that nothing is kept after a failure.
 * What the JSON Schema says of the same files is compared in tests/integration/test_config.py. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/fault.h"
#include "daemon/config.h"
#include "daemon/config_locate.h"

static int load(struct xn_config *config, const char *text, struct xn_error *error)
{
    return xn_config_load_memory(config, "etc/x.json", text, strlen(text), error);
}

/* `text` is refused with a message that holds `wanted`, and leaves the defaults. */
static void refused(const char *text, const char *wanted)
{
    struct xn_config config;
    struct xn_error error = {""};

    xn_config_init(&config);
    assert_true(load(&config, text, &error) < 0);
    if (!strstr(error.text, wanted))
        fail_msg("for %s\nthe message is   %s\nand should have  %s", text, error.text, wanted);
    assert_int_equal(config.n_models, 0);
    assert_int_equal(config.n_listeners, 1);
    assert_null(config.path);
    xn_config_done(&config);
}

static void test_defaults(void **state)
{
    (void)state;
    struct xn_config config;

    xn_config_init(&config);
    assert_int_equal(config.n_listeners, 1);
    assert_string_equal(config.listeners[0].address, "127.0.0.1");
    assert_int_equal(config.listeners[0].port, 8000);
    assert_int_equal(config.n_models, 0);
    assert_int_equal(config.n_accelerators, 1);
    assert_string_equal(config.accelerators[0].kind, "cpu");
    assert_true(config.accelerators[0].idle_watts < 0);
    assert_int_equal(config.accelerators[0].when_missing, XN_MISSING_REFUSE);
    assert_int_equal(config.http.connections, 1024);
    assert_int_equal(config.limits.body_bytes, 16 << 20);
    assert_string_equal(config.power.hwmon_root, "/sys/class/hwmon");
    assert_int_equal(config.log.level, XN_LOG_INFO);
    assert_int_equal(config.drain_timeout_s, 30);
    xn_config_done(&config);
    xn_config_done(&config); /* again: legal */
}

static void test_reads_everything(void **state)
{
    (void)state;
    static const char text[] =
        "{\"listen\": [{\"address\": \"::1\", \"port\": 0}, {}], \"default_model\": \"b\",\n"
        "\"models\": [{\"name\": \"a\", \"path\": \"a.xnor\", \"max_batch\": 8}, {\"name\": \"b\", \"path\": "
        "\"/b.xnor\"}],\n"
        "\"accelerators\": [{\"kind\": \"cpu\", \"threads\": 2, \"idle_watts\": 1.5, \"busy_watts\": 3}, {\"kind\": "
        "\"xrt\"}],\n"
        "\"http\": {\"connections_per_ip\": 7}, \"limits\": {\"image_pixels\": 1e6}, \"drain_timeout_s\": 1,\n"
        "\"power\": {\"sample_ms\": 50, \"sensors\": [{\"kind\": \"hwmon\", \"match\": \"ina260\", \"domain\": "
        "\"board\"}]},\n"
        "\"log\": {\"level\": \"debug\", \"target\": \"stderr\"}}";
    struct xn_config config;
    struct xn_error error = {""};

    xn_config_init(&config);
    assert_int_equal(load(&config, text, &error), 0);
    assert_string_equal(config.path, "etc/x.json");
    assert_int_equal(config.n_listeners, 2);
    assert_string_equal(config.listeners[0].address, "::1");
    assert_int_equal(config.listeners[0].port, 0);
    assert_int_equal(config.listeners[1].port, 8000);
    assert_string_equal(config.models[0].path, "etc/a.xnor");
    assert_string_equal(config.models[1].path, "/b.xnor");
    assert_int_equal(config.models[0].max_batch, 8);
    assert_int_equal(config.models[1].max_batch, 32);
    assert_string_equal(config.default_model, "b");
    assert_int_equal(config.n_accelerators, 2);
    assert_true(config.accelerators[0].idle_watts == 1.5 && config.accelerators[0].busy_watts == 3);
    assert_string_equal(config.accelerators[1].kind, "xrt");
    assert_int_equal(config.http.connections_per_ip, 7);
    assert_int_equal(config.limits.image_pixels, 1000000);
    assert_int_equal(config.power.n_sensors, 1);
    assert_string_equal(config.power.sensors[0].match, "ina260");
    assert_int_equal(config.log.level, XN_LOG_DEBUG);
    assert_int_equal(config.log.target, XN_LOG_STDERR);
    xn_config_done(&config);
}

static void test_names_key_and_line(void **state)
{
    (void)state;
    refused("{\n \"models\": [\n  {\"path\": \"a\"},\n  {\"path\": \"b\",\n   \"max_batch\": 0}]}",
            "etc/x.json:5: key models[1].max_batch: must be 1..1024, is 0");
    refused("{\"models\": [{\"path\": \"a\", \"max_batch\": 2.5}]}", "must be a whole number 1..1024, is 2.5");
    refused("{\"models\": [{\"path\": \"a\", \"max_batch\": \"4\"}]}", "must be a whole number 1..1024, is \"4\"");
    refused("{\"models\": [{\"path\": \"a\", \"max_batch\": -1}]}", "must be 1..1024, is -1");
    refused("{\"models\":\n[\n{\"name\": \"a\"}]}", "etc/x.json:3: key models[0].path: is missing");
    refused("{\"models\": [{\"path\": \"\"}]}", "key models[0].path: must not be empty");
    refused("{\"models\": [{\"path\": 3}]}", "key models[0].path: must be a string, is 3");
    refused("{\"models\": [\n{\"path\": \"a\", \"name\": \"x\"},\n{\"path\": \"b\", \"name\": \"x\"}]}",
            "etc/x.json:3: key models[1].name: must differ from models[0].name, both are \"x\"");
    refused("{\"models\": [{\"path\": \"a\", \"name\": \"a b\"}]}", "key models[0].name: must be 1..63 characters");
    refused("{\"default_model\": \"z\", \"models\": [{\"path\": \"a\", \"name\": \"x\"}]}",
            "key default_model: must be the name of one of the models, is \"z\"");
    refused("{\"models\": {}}", "key models: must be an array [ ... ], is an object");
    refused("{\"models\": [null]}", "key models[0]: must be an object { ... }, is null");
    refused("{\"listen\": []}", "key listen: must have 1..8 entries, has 0");
    refused("{\"listen\": [{\"address\": \"localhost\"}]}", "must be an IPv4 or IPv6 address");
    refused("{\"listen\": [{\"port\": 65536}]}", "key listen[0].port: must be 0..65535, is 65536");
    refused("{\"listen\": [{}, {}]}", "key listen[1]: is the same as listen[0]");
    refused("{\"accelerators\": []}", "key accelerators: must have 1..16 entries");
    refused("{\"accelerators\": [{\"kind\": \"cpu\", \"when_missing\": \"wait\"}]}",
            "key accelerators[0].when_missing: must be refuse or serve, is \"wait\"");
    refused("{\"accelerators\": [{\"kind\": \"gpu\"}]}", "key accelerators[0].kind: must be cpu or xrt, is \"gpu\"");
    refused("{\"accelerators\": [{\"kind\": \"cpu\", \"busy_watts\": 3}]}", "needs idle_watts beside it");
    refused("{\"accelerators\": [{\"kind\": \"cpu\", \"busy_watts\": 3, \"idle_watts\": 4}]}",
            "must be at least idle_watts");
    refused("{\"log\": {\n\"level\": true}}",
            "etc/x.json:2: key log.level: must be error, warning, info or debug, is true");
    refused("{\"limits\": {\"buffer_bytes\": 2000000}}", "must be at least limits.body_bytes");
    refused("{\"power\": {\"sensors\": [{\"kind\": \"rapl\", \"x\": 1}]}}",
            "key power.sensors[0].x: there is no such key");
}

static void test_unknown_keys(void **state)
{
    (void)state;
    refused("{\n\n\"modles\": []}", "etc/x.json:3: key modles: there is no such key; did you mean \"models\"?");
    refused("{\"http\": {\"conections\": 3}}",
            "key http.conections: there is no such key; did you mean \"connections\"?");
    refused("{\"power\": {\"sensor\": []}}", "did you mean \"sensors\"?");
    refused("{\"wallpaper\": 1}", "key wallpaper: there is no such key; see xnord.json(5)");
    refused("{\"power.sensors\": []}", "there is no such key");
    refused("{\"\": []}", "there is no such key");
}

static void test_syntax(void **state)
{
    (void)state;
    refused("", "etc/x.json:");
    refused("[]", "etc/x.json:1: the configuration must be an object");
    refused("{\n\"http\": {\"threads\": 1,\n\"threads\": 2}}", "etc/x.json:3: duplicate object key near '\"threads\"'");
    refused("{\n\"http\": {},}", "etc/x.json:2:");
    refused("{}\n{}", "etc/x.json:2:");
    refused("{\"models\": \"\xff\"}", "etc/x.json:1:");
    refused("{\"limits\": {\"body_bytes\": 99999999999999999999999}}", "etc/x.json:1:");
    refused("[[[[\n[[[[[[", "etc/x.json:2: arrays and objects nest deeper than 8");
}

static void test_size_limit(void **state)
{
    (void)state;
    size_t bytes = (1u << 20) + 1;
    char *text = malloc(bytes);
    struct xn_config config;
    struct xn_error error = {""};

    memset(text, ' ', bytes);
    text[0] = '{';
    text[bytes - 2] = '}';
    xn_config_init(&config);
    assert_int_equal(xn_config_load_memory(&config, "big", text, bytes, &error), -EFBIG);
    assert_int_equal(xn_config_load_memory(&config, "big", text, bytes - 1, &error), 0);
    xn_config_done(&config);
    free(text);
}

static void test_files(void **state)
{
    (void)state;
    char path[] = "/tmp/xn-config-XXXXXX";
    struct xn_config config;
    struct xn_error error = {""};
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    xn_config_init(&config);
    assert_int_equal(write(fd, "{\"models\": [{\"path\": \"m\"}]}", 27), 27);
    assert_int_equal(xn_config_load(&config, path, &error), 0);
    assert_string_equal(config.path, path);
    assert_string_equal(config.models[0].path, "/tmp/m");
    close(fd);
    unlink(path);
    assert_int_equal(xn_config_load(&config, path, &error), -ENOENT);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(config.n_models, 0);
    assert_int_equal(xn_config_load(&config, "/tmp", &error), -EISDIR);
    xn_config_done(&config);
}

static void test_overrides(void **state)
{
    (void)state;
    struct xn_config config;
    struct xn_error error = {""};

    xn_config_init(&config);
    assert_int_equal(
        load(&config, "{\"models\": [{\"path\": \"m\", \"name\": \"m\"}], \"default_model\": \"m\"}", &error), 0);
    assert_int_equal(xn_config_set_listen(&config, 0, "0.0.0.0:0", &error), 0);
    assert_int_equal(xn_config_set_listen(&config, 1, "[::1]:65535", &error), 0);
    assert_int_equal(xn_config_set_listen(&config, 2, "unix:/run/x:1", &error), 0);
    assert_int_equal(config.n_listeners, 3);
    assert_string_equal(config.listeners[2].unix_path, "/run/x:1");
    assert_int_equal(config.listeners[2].mode, 1);
    assert_null(config.listeners[0].unix_path);
    assert_string_equal(config.listeners[0].address, "0.0.0.0");
    assert_int_equal(config.listeners[0].port, 0);
    assert_string_equal(config.listeners[1].address, "::1");
    assert_int_equal(config.listeners[1].port, 65535);

    assert_int_equal(xn_config_set_model(&config, 0, "x=a=b.xnor", &error), 0);
    assert_int_equal(xn_config_set_model(&config, 1, "./odd=name.xnor", &error), 0);
    assert_int_equal(config.n_models, 2);
    assert_null(config.default_model);
    assert_string_equal(config.models[0].name, "x");
    assert_string_equal(config.models[0].path, "a=b.xnor");
    assert_null(config.models[1].name);
    assert_string_equal(config.models[1].path, "./odd=name.xnor");
    assert_int_equal(config.models[1].max_batch, 32);

    assert_int_equal(xn_config_set(&config, "accelerators[0].threads", "2", &error), 0);
    assert_int_equal(xn_config_set(&config, "log.level", "warning", &error), 0);
    assert_int_equal(xn_config_set(&config, "drain_timeout_s", "3", &error), 0);
    assert_int_equal(xn_config_set(&config, "accelerators[0].cpu_mask", "portable", &error), 0);
    assert_int_equal(xn_config_set(&config, "accelerators[0].cpu_mask", "avx2", &error), 0);
    assert_int_equal(config.accelerators[0].threads, 2);
    assert_string_equal(config.accelerators[0].cpu_mask, "avx2");
    assert_int_equal(config.log.level, XN_LOG_WARNING);
    assert_int_equal(config.drain_timeout_s, 3);
    xn_config_done(&config);
}

static void test_bad_overrides(void **state)
{
    (void)state;
    static const char *const listen[] = {"",
                                         "8000",
                                         ":8000",
                                         "localhost:1",
                                         "1.2.3.4",
                                         "1.2.3.4:",
                                         "1.2.3.4:x",
                                         "1.2.3.4:+1",
                                         "1.2.3.4:1x",
                                         "::1:80",
                                         "1.2.3.4:65536",
                                         "[::1]",
                                         "[]:80",
                                         "[1.2.3.4:80",
                                         "1.2.3.4:99999999999999999999"};
    static const struct {
        const char *key, *value, *wanted;
    } bad[] = {
        {"log.level", "loud", "must be error, warning, info or debug, is \"loud\""},
        {"accelerators[0].threads", "two", "must be a whole number 0..1024, is \"two\""},
        {"accelerators[0].threads", "", "must be a whole number"},
        {"accelerators[0].threads", "nan", "must be a whole number"},
        {"accelerators[0].threads", "1e9", "must be 0..1024"},
        {"accelerators[0].idle_watts", "3", "needs busy_watts"},
        {"accelerators[1].threads", "1", "no such key"},
        {"accelerators.threads", "1", "no such key"},
        {"accelerators[x].threads", "1", "no such key"},
        {"http[0].threads", "1", "no such key"},
        {"http", "1", "no such key"},
        {"", "1", "no such key"},
        {"accelerators[0].cpu_mask", "\xff", "UTF-8"},
    };

    for (size_t i = 0; i < XN_ARRAY_LEN(listen); i++) {
        struct xn_config config;
        struct xn_error error = {""};
        xn_config_init(&config);
        assert_int_equal(xn_config_set_listen(&config, 0, listen[i], &error), -EINVAL);
        assert_non_null(strstr(error.text, "ADDRESS:PORT"));
        xn_config_done(&config);
    }
    for (size_t i = 0; i < XN_ARRAY_LEN(bad); i++) {
        struct xn_config config;
        struct xn_error error = {""};
        xn_config_init(&config);
        assert_int_equal(xn_config_set(&config, bad[i].key, bad[i].value, &error), -EINVAL);
        if (!strstr(error.text, bad[i].wanted))
            fail_msg("%s=%s: %s", bad[i].key, bad[i].value, error.text);
        xn_config_done(&config);
    }
    struct xn_config config;
    struct xn_error error = {""};
    xn_config_init(&config);
    assert_int_equal(xn_config_set_model(&config, 0, "", &error), -EINVAL);
    assert_int_equal(xn_config_set_model(&config, 0, "a=", &error), -EINVAL);
    assert_int_equal(xn_config_set_model(&config, 0, ".x=y", &error), -EINVAL);
    assert_int_equal(xn_config_set_model(&config, 0, "x=y", &error), 0);
    assert_int_equal(xn_config_set_model(&config, 1, "x=z", &error), -EINVAL);
    xn_config_done(&config);
}

static void test_lines(void **state)
{
    (void)state;
    static const char text[] =
        "{\n\"a\": 1,\n\"b\": {\n\"c\": [1,\n2, {\"d\":\n[\n]}]},\n\"s\": \"x\\\"{[\\\\\",\n\"e\": true}";
    static const struct {
        const char *path;
        unsigned line;
    } cases[] = {{"a", 2}, {"b", 3},      {"b.c", 4},    {"b.c[0]", 4}, {"b.c[1]", 5}, {"b.c[2].d", 5}, {"s", 8},
                 {"e", 9}, {"b.nope", 3}, {"b.c[7]", 4}, {"nope", 1},   {"", 1},       {"ab", 1}};

    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++) {
        unsigned line = xn_json_line(text, sizeof(text) - 1, cases[i].path);
        if (line != cases[i].line)
            fail_msg("%s: line %u, not %u", cases[i].path, line, cases[i].line);
    }
    assert_int_equal(xn_json_too_deep("[[1]]", 5, 2), 0);
    assert_int_equal(xn_json_too_deep("[\n[[1]]]", 8, 2), 2);
    assert_int_equal(xn_json_too_deep("\"[[[\"", 5, 1), 0);
}

#ifdef XN_FAULTS
/* Each allocation fails in turn: a clean -ENOMEM, nothing leaked (under ASan), defaults left. */
static void test_no_memory(void **state)
{
    (void)state;
    static const char text[] =
        "{\"listen\": [{\"address\": \"::1\"}], \"models\": [{\"name\": \"a\", \"path\": \"a\"}]}";
    struct xn_config config;
    struct xn_error error;

    xn_config_init(&config);
    for (uint64_t nth = 1;; nth++) {
        xn_fault_arm("alloc", nth, false);
        int r = load(&config, text, &error);
        if (xn_fault_passes("alloc") < nth) {
            assert_int_equal(r, 0);
            assert_true(nth > 4);
            break;
        }
        assert_int_equal(r, -ENOMEM);
        assert_int_equal(config.n_models, 0);
    }
    xn_fault_arm("alloc", 0, false);
    xn_config_done(&config);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_reads_everything),
        cmocka_unit_test(test_names_key_and_line),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_syntax),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_bad_overrides),
        cmocka_unit_test(test_lines),
#ifdef XN_FAULTS
        cmocka_unit_test(test_no_memory),
#endif
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
