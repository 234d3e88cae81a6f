/* SPDX-License-Identifier: Apache-2.0
 * The loader and the reference on files that a fuzzer makes. The SHA-256 is put right first, as no fuzzer would
 * get past it, and so is the magic; a file that loads, and is small, must run with every value within its proven
 * bounds. */
#include <stdlib.h>
#include <string.h>

#include "model/reference.h"
#include "tests/support/xnor_writer.h"

#define RUN_MACS_MAX     (UINT64_C(1) << 20)
#define RUN_ELEMENTS_MAX (UINT64_C(1) << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static bool is_small(const struct xn_network *network)
{
    uint64_t elements = 0;
    for (uint32_t i = 0; i < network->n_values; i++)
        elements += (uint64_t)network->values[i].h * network->values[i].w * network->values[i].c;
    return network->binary_macs + network->int8_macs <= RUN_MACS_MAX && elements <= RUN_ELEMENTS_MAX;
}

static void check_bounds(const struct xn_network *network, const struct xn_reference *reference)
{
    for (uint32_t id = 0; id < network->n_values; id++) {
        const struct xn_value *v = &network->values[id];
        const int32_t *elements = xn_reference_value(reference, id);
        for (size_t i = 0; i < (size_t)v->h * v->w * v->c; i++)
            if (elements[i] < v->min || elements[i] > v->max)
                abort();
    }
}

/* Once on an input that swings between the ends of its type. */
static void run(const struct xn_network *network)
{
    struct xn_reference *reference = NULL;
    uint8_t *input = malloc(network->input_bytes);
    int32_t *logits = malloc(network->n_classes * sizeof(*logits));
    if (input && logits && xn_reference_new(network, &reference) == 0) {
        for (size_t i = 0; i < network->input_bytes; i++)
            input[i] = (uint8_t)(i * 127 + (i >> 3));
        xn_reference_run(reference, input, logits);
        check_bounds(network, reference);
    }
    xn_reference_free(reference);
    free(logits);
    free(input);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct xn_network *network = NULL;
    struct xn_error error;
    uint8_t *file = malloc(bytes + 1);
    if (!file)
        return 0;
    memcpy(file, data, bytes);
    memcpy(file, XN_FORMAT_MAGIC, XN_MIN(bytes, XN_FORMAT_MAGIC_BYTES));
    xn_writer_seal(file, bytes);
    if (xn_network_load_memory(file, bytes, &network, &error) == 0 && is_small(network))
        run(network);
    xn_network_free(network);
    free(file);
    return 0;
}
