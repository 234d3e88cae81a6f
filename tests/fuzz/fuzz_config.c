/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a configuration file: either it is taken, or there is a message and the defaults are left. */
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xn_config config;
    struct xn_error error = {""};

    xn_config_init(&config);
    int r = xn_config_load_memory(&config, "fuzz/x.json", (const char *)data, size, &error);
    if (r > 0 || (r < 0 && (error.text[0] == '\0' || config.n_models != 0 || config.path)))
        abort();
    if (r == 0 && (config.n_listeners == 0 || config.n_accelerators == 0 || !config.accelerators[0].kind))
        abort();
    xn_config_done(&config);
    return 0;
}
