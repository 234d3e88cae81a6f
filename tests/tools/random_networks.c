/* SPDX-License-Identifier: Apache-2.0
 * random_networks SEED COUNT FOLDER: writes COUNT random networks as N.xnor, an input for each as N.input (bytes), and
 * what the reference makes of it as N.logits (little-endian int32), for witnesses in other languages
 * (tests/integration/test_interpreters.py). */
#include <stdio.h>
#include <stdlib.h>

#include "model/reference.h"
#include "tests/support/random_network.h"

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

static void write_network(const char *folder, unsigned long index, struct xn_random *random)
{
    size_t bytes;
    struct xn_network *network = NULL;
    struct xn_reference *reference = NULL;
    struct xn_error error;
    uint8_t *file = xn_random_network_file(xn_random_next(random), &bytes);
    if (xn_network_load_memory(file, bytes, &network, &error) < 0) {
        fprintf(stderr, "random_networks: network %lu: %s\n", index, error.text);
        exit(1);
    }
    uint8_t *input = malloc(network->input_bytes);
    int32_t *logits = malloc(network->n_classes * sizeof(*logits));
    if (!input || !logits || xn_reference_new(network, &reference) < 0)
        exit(1);
    xn_random_bytes(random, input, network->input_bytes);
    xn_reference_run(reference, input, logits);
    write_file(folder, index, "xnor", file, bytes);
    write_file(folder, index, "input", input, network->input_bytes);
    write_file(folder, index, "logits", logits, network->n_classes * sizeof(*logits));
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
    for (unsigned long i = 0; i < count; i++)
        write_network(argv[3], i, &random);
    return 0;
}
