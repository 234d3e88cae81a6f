/* SPDX-License-Identifier: Apache-2.0
 * image_tensor MAX_PIXELS: reads lines "MODEL PICTURE OUTPUT" (paths without blanks), makes the model's input tensor of the picture as the daemon does,
 * with one decoder for all, writes it to OUTPUT, and answers each line with "ok RSS" or "ERROR RSS message": RSS is the resident memory in bytes,
 * ERROR the name of the error. For tests/integration/test_image.py. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/image/image.h"

#define PICTURE_BYTES_MAX (UINT64_C(64) << 20)

static void die(const char *what)
{
    fprintf(stderr, "image_tensor: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* In memory of exactly its size, where a sanitizer sees a read behind its end. */
static uint8_t *read_file(const char *path, size_t *ret_bytes)
{
    FILE *file = fopen(path, "rb");
    long bytes = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;

    if (bytes < 0 || (uint64_t)bytes > PICTURE_BYTES_MAX)
        die(path);
    uint8_t *data = malloc((size_t)bytes + !bytes);
    rewind(file);
    if (!data || fread(data, 1, (size_t)bytes, file) != (size_t)bytes)
        die(path);
    fclose(file);
    *ret_bytes = (size_t)bytes;
    return data;
}

static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");

    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0)
        die(path);
}

static uint64_t resident_bytes(void)
{
    uint64_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (!file || fscanf(file, "%*u %" SCNu64, &pages) != 1)
        die("/proc/self/statm");
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void answer(struct xn_image_decoder *decoder, const char *model, const char *picture, const char *output)
{
    struct xn_network *network;
    struct xn_error error = {{0}};
    size_t bytes;

    if (xn_network_load(model, &network, &error) < 0) {
        fprintf(stderr, "image_tensor: %s: %s\n", model, error.text);
        exit(1);
    }
    uint8_t *data = read_file(picture, &bytes), *tensor = malloc(network->input_bytes);
    if (!tensor)
        die("tensor");
    int r = xn_image_decode(decoder, data, bytes, &network->input, tensor, &error);
    if (r >= 0)
        write_file(output, tensor, network->input_bytes);
    free(tensor);
    free(data);
    xn_network_free(network);
    printf("%s %" PRIu64 " %s\n", r < 0 ? strerrorname_np(-r) : "ok", resident_bytes(), r < 0 ? error.text : "");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[8192], *save = NULL;
    struct xn_image_decoder *decoder;

    if (argc != 2) {
        fprintf(stderr, "usage: image_tensor MAX_PIXELS\n");
        return 2;
    }
    if (xn_image_decoder_new(strtoull(argv[1], NULL, 10), &decoder) < 0)
        return 1;
    while (fgets(line, sizeof(line), stdin)) {
        char *model = strtok_r(line, " \n", &save), *picture = strtok_r(NULL, " \n", &save);
        char *output = strtok_r(NULL, " \n", &save);
        if (!output)
            return 2;
        answer(decoder, model, picture, output);
    }
    xn_image_decoder_free(decoder);
    return 0;
}
