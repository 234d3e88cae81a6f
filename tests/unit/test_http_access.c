/* SPDX-License-Identifier: Apache-2.0
 * Tokens (their file, the header, roles, a list that is replaced under readers) and the table of clients' limits. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "daemon/http/internal.h"

#define HASH_OF_A "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
#define HASH_OF_B "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"

static struct xn_token_list list;
static struct xn_error error;

static int parse(const char *text)
{
    return xn_tokens_parse("t", text, strlen(text), &list, &error);
}

static void test_file(void **state)
{
    (void)state;
    assert_int_equal(parse("# who\n\ncam infer " HASH_OF_A "\r\n  op read,admin\t" HASH_OF_B " # why\n"), 0);
    assert_true(list.required);
    assert_int_equal(list.n, 2);
    assert_string_equal(list.tokens[0].name, "cam");
    assert_int_equal(list.tokens[0].roles, XN_ROLE_INFER);
    assert_int_equal(list.tokens[1].roles, XN_ROLE_READ | XN_ROLE_ADMIN);
    assert_int_equal(xn_tokens_find(&list, "a", 1), 0);
    assert_int_equal(xn_tokens_find(&list, "b", 1), 1);
    assert_int_equal(xn_tokens_find(&list, "c", 1), -1);
    assert_int_equal(xn_tokens_find(&list, "a\0", 2), -1);
    assert_int_equal(parse(""), 0);
    assert_true(list.required && list.n == 0); /* nobody gets in */
}

static void test_file_that_is_wrong(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"cam\n", "t:1: behind the name must come its roles"},
        {"\ncam infer\n", "t:2: behind the roles must come the SHA-256"},
        {"cam infer " HASH_OF_A "0\n", "64 hexadecimal digits"},
        {"cam infer " HASH_OF_A " x\n", "there is more behind the hash"},
        {"cam boss " HASH_OF_A "\n", "its roles: infer, read, admin"},
        {"cam infer, " HASH_OF_A "\n", "its roles"},
        {"cam ,infer " HASH_OF_A "\n", "its roles"},
        {".cam infer " HASH_OF_A "\n", "the name must be"},
        {"c/m infer " HASH_OF_A "\n", "the name must be"},
        {"a infer " HASH_OF_A "\na read " HASH_OF_B "\n", "t:2: a token of that name"},
        {"a infer " HASH_OF_A "\nb read " HASH_OF_A "\n", "t:2: the same token"},
    };

    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++) {
        assert_int_equal(parse(cases[i].text), -EINVAL);
        assert_non_null(strstr(error.text, cases[i].why));
        assert_null(strstr(error.text, "ca978112"));
    }
}

static void test_too_many(void **state)
{
    static char text[(XN_TOKENS_MAX + 1) * 96];
    size_t bytes = 0;

    (void)state;
    for (unsigned i = 0; i < XN_TOKENS_MAX; i++)
        bytes += (size_t)snprintf(text + bytes, sizeof(text) - bytes, "t%u read %064x\n", i, i);
    assert_int_equal(parse(text), 0);
    snprintf(text + bytes, sizeof(text) - bytes, "more read %064x\n", XN_TOKENS_MAX);
    assert_int_equal(parse(text), -E2BIG);
}

static void test_who_may_read_the_file(void **state)
{
    char path[] = "/tmp/xn-tokens-XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a infer " HASH_OF_A "\n", 73), 73);
    assert_int_equal(fchmod(fd, 0640), 0);
    assert_int_equal(xn_tokens_read(path, &list, &error), 0);
    assert_int_equal(list.n, 1);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(fchmod(fd, (mode_t[]){0644, 0660, 0601}[i]), 0);
        assert_int_equal(xn_tokens_read(path, &list, &error), -EPERM);
        assert_non_null(strstr(error.text, "chmod 0600"));
    }
    close(fd);
    unlink(path);
    assert_int_equal(xn_tokens_read(path, &list, &error), -ENOENT);
    assert_int_equal(xn_tokens_read(NULL, &list, &error), 0);
    assert_false(list.required);
}

static void test_header(void **state)
{
    static const struct {
        const char *header, *token;
    } cases[] = {{"Bearer abc", "abc"}, {"bearer  abc \t", "abc"}, {NULL, NULL},         {"", NULL},
                 {"Bearer", NULL},      {"Bearer ", NULL},         {"Bearer a b", NULL}, {"Basic abc", NULL},
                 {"Bearerabc", NULL},   {"xBearer abc", NULL}};
    char longest[7 + XN_TOKEN_BYTES_MAX + 2] = "Bearer ";

    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++) {
        size_t bytes = 0;
        const char *token = xn_tokens_bearer(cases[i].header, &bytes);
        assert_int_equal(token != NULL, cases[i].token != NULL);
        if (token) {
            assert_int_equal(bytes, strlen(cases[i].token));
            assert_memory_equal(token, cases[i].token, bytes);
        }
    }
    size_t bytes;
    memset(longest + 7, 'x', XN_TOKEN_BYTES_MAX);
    assert_non_null(xn_tokens_bearer(longest, &bytes));
    longest[7 + XN_TOKEN_BYTES_MAX] = 'x';
    assert_null(xn_tokens_bearer(longest, &bytes));
}

static void test_roles(void **state)
{
    struct xn_tokens *tokens;
    char name[XN_TOKEN_NAME_BYTES];

    (void)state;
    assert_int_equal(xn_tokens_new(&tokens), 0);
    assert_int_equal(xn_tokens_check(tokens, NULL, XN_ROLE_ADMIN, name, &error), 0); /* none is asked for */
    assert_int_equal(parse("a infer " HASH_OF_A "\nb admin " HASH_OF_B "\n"), 0);
    xn_tokens_apply(tokens, &list);
    assert_int_equal(xn_tokens_check(tokens, NULL, XN_ROLE_ANYONE, name, &error), 0);
    assert_int_equal(xn_tokens_check(tokens, NULL, XN_ROLE_ANY, name, &error), -EACCES);
    assert_int_equal(xn_tokens_check(tokens, "Bearer c", XN_ROLE_ANY, name, &error), -EACCES);
    assert_int_equal(xn_tokens_check(tokens, "Bearer a", XN_ROLE_INFER, name, &error), 0);
    assert_string_equal(name, "a");
    assert_int_equal(xn_tokens_check(tokens, "Bearer a", XN_ROLE_READ, name, &error), -EPERM);
    assert_int_equal(xn_tokens_check(tokens, "Bearer a", XN_ROLE_READ | XN_ROLE_INFER, name, &error), 0);
    assert_int_equal(xn_tokens_check(tokens, "Bearer b", XN_ROLE_READ, name, &error), 0);
    assert_int_equal(parse("b read " HASH_OF_B "\n"), 0);
    xn_tokens_apply(tokens, &list);
    assert_int_equal(xn_tokens_check(tokens, "Bearer a", XN_ROLE_INFER, name, &error), -EACCES);
    assert_int_equal(xn_tokens_check(tokens, "Bearer b", XN_ROLE_INFER, name, &error), -EPERM);
    xn_tokens_free(tokens);
}

struct race {
    struct xn_tokens *tokens;
    atomic_bool ending;
    unsigned wrong;
};

/* "a" is in both lists: it is never turned away, whichever is in force. */
static void *ask(void *user)
{
    struct race *race = user;
    char name[XN_TOKEN_NAME_BYTES];

    while (!atomic_load(&race->ending)) {
        if (xn_tokens_check(race->tokens, "Bearer a", XN_ROLE_INFER, name, NULL) != 0 || strcmp(name, "a") != 0)
            race->wrong++;
    }
    return NULL;
}

static void test_a_new_list_under_readers(void **state)
{
    struct xn_token_list first, second;
    struct race races[2] = {0};
    struct xn_tokens *tokens;
    pthread_t threads[2];

    (void)state;
    assert_int_equal(parse("a infer " HASH_OF_A "\n"), 0);
    first = list;
    assert_int_equal(parse("b infer " HASH_OF_B "\na infer " HASH_OF_A "\n"), 0);
    second = list;
    assert_int_equal(xn_tokens_new(&tokens), 0);
    xn_tokens_apply(tokens, &first);
    for (int i = 0; i < 2; i++) {
        races[i].tokens = tokens;
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &races[i]), 0);
    }
    for (int i = 0; i < 2000; i++)
        xn_tokens_apply(tokens, i % 2 ? &first : &second);
    for (int i = 0; i < 2; i++) {
        atomic_store(&races[i].ending, true);
        pthread_join(threads[i], NULL);
        assert_int_equal(races[i].wrong, 0);
    }
    xn_tokens_free(tokens);
}

/* ---- limits ------------------------------------------------------------------------------------------------------- */

static void test_requests_under_way(void **state)
{
    struct xn_clients *clients;
    struct xn_client_slot *slots[4];
    uint64_t retry_ns;

    (void)state;
    assert_int_equal(xn_clients_new(3, 0, &clients), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(xn_clients_enter(clients, 7, 1, &slots[i], &retry_ns, &error), 0);
    assert_int_equal(xn_clients_enter(clients, 7, 1, &slots[3], &retry_ns, &error), -EUSERS);
    assert_int_equal(retry_ns, 0);
    assert_non_null(strstr(error.text, "limits.client_requests"));
    assert_int_equal(xn_clients_enter(clients, UINT64_C(7) << 40, 1, &slots[3], &retry_ns, &error), 0); /* another */
    xn_clients_leave(slots[3]);
    xn_clients_leave(slots[0]);
    assert_int_equal(xn_clients_enter(clients, 7, 1, &slots[0], &retry_ns, &error), 0);
    xn_clients_free(clients);
}

static void test_requests_a_second(void **state)
{
    struct xn_clients *clients;
    struct xn_client_slot *slot;
    uint64_t now_ns = 5 * XN_NS_PER_S, retry_ns, n = 0;

    (void)state;
    assert_int_equal(xn_clients_new(0, 10, &clients), 0);
    for (; xn_clients_enter(clients, 7, now_ns, &slot, &retry_ns, &error) == 0; n++)
        xn_clients_leave(slot);
    assert_int_equal(n, 10); /* a second's worth at once */
    assert_true(retry_ns > 0 && retry_ns <= XN_NS_PER_S / 10);
    assert_int_equal(xn_clients_enter(clients, 7, now_ns + retry_ns - 1, &slot, &retry_ns, &error), -EUSERS);
    now_ns += XN_NS_PER_S / 10;
    assert_int_equal(xn_clients_enter(clients, 7, now_ns, &slot, &retry_ns, &error), 0);
    xn_clients_leave(slot);
    /* Over ten seconds of asking all the time: ten a second. */
    n = 0;
    for (uint64_t end_ns = now_ns + 10 * XN_NS_PER_S; now_ns < end_ns; now_ns += XN_NS_PER_MS) {
        if (xn_clients_enter(clients, 7, now_ns, &slot, &retry_ns, &error) == 0) {
            xn_clients_leave(slot);
            n++;
        }
    }
    assert_in_range(n, 99, 100);
    xn_clients_free(clients);
}

/* However many clients come, one that has something on account stays counted, and none is refused for the others. */
static void test_the_table_cannot_be_filled(void **state)
{
    struct xn_clients *clients;
    struct xn_client_slot *slot, *held;
    uint64_t retry_ns, now_ns = XN_NS_PER_S;

    (void)state;
    assert_int_equal(xn_clients_new(1, 1, &clients), 0);
    assert_int_equal(xn_clients_enter(clients, xn_client_key(1, "victim", 6), now_ns, &held, &retry_ns, &error), 0);
    for (uint32_t i = 0; i < 100000; i++) {
        assert_int_equal(xn_clients_enter(clients, xn_client_key(1, &i, 4), now_ns, &slot, &retry_ns, &error), 0);
        xn_clients_leave(slot);
    }
    assert_int_equal(xn_clients_enter(clients, xn_client_key(1, "victim", 6), now_ns, &slot, &retry_ns, &error),
                     -EUSERS);
    xn_clients_leave(held);
    /* A second later nothing is on account, and all slots are anybody's: a new client is counted again. */
    now_ns += 2 * XN_NS_PER_S;
    assert_int_equal(xn_clients_enter(clients, xn_client_key(1, "new", 3), now_ns, &slot, &retry_ns, &error), 0);
    assert_non_null(slot);
    assert_int_equal(xn_clients_enter(clients, xn_client_key(1, "new", 3), now_ns, &held, &retry_ns, &error), -EUSERS);
    xn_clients_leave(slot);
    xn_clients_free(clients);
}

struct crowd {
    struct xn_clients *clients;
    atomic_uint inside, most;
};

static void *come_and_go(void *user)
{
    struct crowd *crowd = user;

    for (uint64_t i = 0; i < 20000; i++) {
        struct xn_client_slot *slot;
        uint64_t retry_ns;
        if (xn_clients_enter(crowd->clients, 7, 1, &slot, &retry_ns, NULL) < 0)
            continue;
        unsigned inside = atomic_fetch_add(&crowd->inside, 1) + 1, most = atomic_load(&crowd->most);
        while (inside > most && !atomic_compare_exchange_weak(&crowd->most, &most, inside)) {
        }
        atomic_fetch_sub(&crowd->inside, 1);
        xn_clients_leave(slot);
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    struct crowd crowd = {0};
    struct xn_client_slot *slot;
    pthread_t threads[4];
    uint64_t retry_ns;

    (void)state;
    assert_int_equal(xn_clients_new(2, 0, &crowd.clients), 0);
    for (size_t i = 0; i < XN_ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &crowd), 0);
    for (size_t i = 0; i < XN_ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    assert_in_range(atomic_load(&crowd.most), 1, 2);
    for (int i = 0; i < 2; i++) /* all have left */
        assert_int_equal(xn_clients_enter(crowd.clients, 7, 1, &slot, &retry_ns, &error), 0);
    xn_clients_free(crowd.clients);
}

/* ---- shared memory ------------------------------------------------------------------------------------------------ */

/* "" is a unix socket. */
static struct sockaddr_storage address_of(const char *text)
{
    struct sockaddr_storage storage = {.ss_family = AF_UNIX};
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&storage;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&storage;

    if (strchr(text, ':')) {
        v6->sin6_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
    } else if (text[0]) {
        v4->sin_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, text, &v4->sin_addr), 1);
    }
    return storage;
}

static void test_who_is_on_this_machine(void **state)
{
    static const struct {
        const char *peer, *own;
        bool local;
    } cases[] = {
        {"", "", true},
        {"127.0.0.1", "127.0.0.1", true},
        {"127.9.8.7", "127.0.0.1", true},
        {"192.0.2.1", "192.0.2.1", true}, /* of this machine, by its own address */
        {"192.0.2.2", "192.0.2.1", false},
        {"128.0.0.1", "192.0.2.1", false},
        {"0.0.0.127", "192.0.2.1", false},
        {"::1", "::1", true},
        {"2001:db8::1", "2001:db8::1", true},
        {"2001:db8::2", "2001:db8::1", false},
        {"fe80::1", "::1", false},
        {"::ffff:127.0.0.1", "::ffff:127.0.0.1", true}, /* IPv4 at a socket of :: */
        {"::ffff:192.0.2.2", "::ffff:192.0.2.1", false},
        {"::127.0.0.1", "::ffff:192.0.2.1", false},
    };

    (void)state;
    for (size_t i = 0; i < XN_ARRAY_LEN(cases); i++) {
        struct sockaddr_storage peer = address_of(cases[i].peer), own = address_of(cases[i].own);
        assert_int_equal(xn_http_is_local((struct sockaddr *)&peer, (struct sockaddr *)&own), cases[i].local);
    }
    struct sockaddr_storage unknown = {.ss_family = AF_UNSPEC}, zero = address_of("0.0.0.0");
    assert_false(xn_http_is_local((struct sockaddr *)&zero, (struct sockaddr *)&unknown));
    assert_true(xn_http_is_local(NULL, (struct sockaddr *)&unknown));
}

static void test_who_may_share_memory(void **state)
{
    struct xn_config config = {.shared_memory = XN_SHARED_LOCAL};
    struct xn_link here = {.local = true}, there = {.local = false};

    (void)state;
    assert_int_equal(xn_http_may_share(&config, &here, &error), 0);
    assert_int_equal(xn_http_may_share(&config, &there, &error), -EPERM);
    assert_non_null(strstr(error.text, "set shared_memory to \"on\""));
    assert_int_equal(xn_http_may_share(&config, NULL, &error), -EPERM);
    config.shared_memory = XN_SHARED_ON;
    assert_int_equal(xn_http_may_share(&config, &there, &error), 0);
    assert_int_equal(xn_http_may_share(&config, NULL, &error), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_file_that_is_wrong),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_who_may_read_the_file),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_a_new_list_under_readers),
        cmocka_unit_test(test_requests_under_way),
        cmocka_unit_test(test_requests_a_second),
        cmocka_unit_test(test_the_table_cannot_be_filled),
        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_who_is_on_this_machine),
        cmocka_unit_test(test_who_may_share_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
