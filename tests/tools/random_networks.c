/* SPDX-License-Identifier: Apache-2.0
 * random_networks SEED COUNT FOLDER: writes COUNT random networks as N.xnor, an input for each as N.input (bytes), and what each
 * implementation in C makes of it as N.WHO.logits (little-endian int32), for witnesses in other languages
 * (tests/integration/test_interpreters.py). WHO is "reference" or "cpu-LEVEL". Prints a line for each WHO; where this processor
 * does not run a level, a line "skip cpu-LEVEL". */
#include <stdio.h>
#include <stdlib.h>

#include "accel/accel.h"
#include "accel/cpu/kernels.h"
#include "common/clock.h"
#include "model/reference.h"
#include "tests/support/random_network.h"

#define LEVELS_MAX 8u

/** The CPU backend, opened once for each level that this processor runs. */
static struct xn_accel *accels[LEVELS_MAX];

static void die(unsigned long index, const struct xn_error *error)
{
    fprintf(stderr, "random_networks: network %lu: %s\n", index, error->text);
    exit(1);
}

static void open_levels(void)
{
    puts("reference");
    if (xn_cpu_levels() > LEVELS_MAX)
        abort();
    for (size_t i = 0; i < xn_cpu_levels(); i++) {
        const char *level = xn_cpu_level_at(i)->level;
        const struct xn_accel_options options = {.threads = 1, .cpu_mask = level};
        struct xn_error error;
        printf("%scpu-%s\n", xn_cpu_level_runs(i) ? "" : "skip ", level);
        if (xn_cpu_level_runs(i) && xn_accel_find("cpu")->open(&options, 0, &accels[i], &error) < 0) {
            fprintf(stderr, "random_networks: cpu %s: %s\n", level, error.text);
            exit(1);
        }
    }
}

static void write_file(const char *folder, unsigned long index, const char *kind, const void *data, size_t bytes)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%lu.%s", folder, index, kind);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) {
        fprintf(stderr, "random_networks: %s cannot be written\n", path);
        exit(1);
    }
}

static void run_level(unsigned long index, struct xn_accel *accel, const struct xn_network *network,
                      const uint8_t *input, int32_t *logits)
{
    const struct xn_accel_backend *backend = xn_accel_backend(accel);
    const void *const inputs[] = {input};
    int32_t *const outputs[] = {logits};
    struct xn_accel_job job = {.batch = 1, .inputs = inputs, .outputs = outputs};
    struct xn_error error;

    if (backend->load(accel, network, 1, &job.model, &error) < 0 || backend->submit(accel, &job, &error) < 0 ||
        backend->wait(accel, &job, XN_NEVER_NS, &error) < 0)
        die(index, &error);
    backend->unload(accel, job.model);
}

static void write_network(const char *folder, unsigned long index, struct xn_random *random)
{
    size_t bytes;
    struct xn_network *network = NULL;
    struct xn_reference *reference = NULL;
    struct xn_error error;
    uint8_t *file = xn_random_network_file(xn_random_next(random), &bytes);
    if (xn_network_load_memory(file, bytes, &network, &error) < 0)
        die(index, &error);
    uint8_t *input = malloc(network->input_bytes);
    int32_t *logits = malloc(network->n_classes * sizeof(*logits));
    if (!input || !logits || xn_reference_new(network, &reference) < 0)
        exit(1);
    xn_random_bytes(random, input, network->input_bytes);
    xn_reference_run(reference, input, logits);
    write_file(folder, index, "xnor", file, bytes);
    write_file(folder, index, "input", input, network->input_bytes);
    write_file(folder, index, "reference.logits", logits, network->n_classes * sizeof(*logits));
    for (size_t i = 0; i < LEVELS_MAX; i++) {
        char kind[64];
        if (!accels[i])
            continue;
        for (uint32_t k = 0; k < network->n_classes; k++)
            logits[k] = INT32_MIN; /* what the backend does not write is seen */
        run_level(index, accels[i], network, input, logits);
        snprintf(kind, sizeof(kind), "cpu-%s.logits", xn_cpu_level_at(i)->level);
        write_file(folder, index, kind, logits, network->n_classes * sizeof(*logits));
    }
    xn_reference_free(reference);
    xn_network_free(network);
    free(logits);
    free(input);
    free(file);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: random_networks SEED COUNT FOLDER\n");
        return 2;
    }
    struct xn_random random = {strtoull(argv[1], NULL, 0)};
    const unsigned long count = strtoul(argv[2], NULL, 10);
    open_levels();
    for (unsigned long i = 0; i < count; i++)
        write_network(argv[3], i, &random);
    for (size_t i = 0; i < LEVELS_MAX; i++)
        if (accels[i])
            xn_accel_backend(accels[i])->close(accels[i]);
    return 0;
}
