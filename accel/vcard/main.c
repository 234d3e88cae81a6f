/* SPDX-License-Identifier: Apache-2.0
 * xnor-vcard: FPGA cards that are not there. docs/vcard.md, xnor-vcard(1). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/vcard/axlf.h"
#include "accel/vcard/serve.h"

enum { EXIT_USAGE = 2 };

static void print_help(FILE *out)
{
    fprintf(out,
            "usage: xnor-vcard run [OPTION]... -- COMMAND [ARGUMENT]...\n"
            "       xnor-vcard serve [OPTION]... FOLDER\n"
            "       xnor-vcard xclbin [OPTION]... FILE\n"
            "\n"
            "Virtual FPGA cards behind XRT.\n"
            "  run     start cards, run COMMAND with them, end with its exit status\n"
            "  serve   start cards with their sockets and their xclbin in FOLDER, until SIGTERM or SIGINT\n"
            "  xclbin  write the xclbin of such cards\n"
            "\n"
            "%s",
            xn_vcard_options_help());
}

static int usage(const char *why)
{
    fprintf(stderr, "xnor-vcard: %s\nTry xnor-vcard --help.\n", why);
    return EXIT_USAGE;
}

static int write_xclbin(const struct xn_vcard_options *options, const char *path)
{
    void *bytes;
    size_t n;

    if (xn_axlf_make(options, &bytes, &n) < 0) {
        fprintf(stderr, "xnor-vcard: out of memory\n");
        return 1;
    }
    FILE *f = fopen(path, "we");
    const bool written = f && fwrite(bytes, 1, n, f) == n;
    const bool ok = f && fclose(f) == 0 && written;
    if (!ok)
        fprintf(stderr, "xnor-vcard: %s: %s\n", path, strerror(errno));
    free(bytes);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct xn_vcard_options options;
    struct xn_error error = {0};
    int rest;

    if (argc < 2)
        return usage("run, serve or xclbin?");
    const char *verb = argv[1];
    if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0 || strcmp(verb, "help") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(verb, "--version") == 0 || strcmp(verb, "-V") == 0) {
        printf("xnor-vcard %s (%s)\n", XN_VERSION, XN_GIT);
        return 0;
    }
    const int r = xn_vcard_options_parse(argc - 1, argv + 1, &options, &rest, &error);
    if (r > 0)
        print_help(stdout);
    if (r != 0)
        return r > 0 ? 0 : usage(error.text);
    char **arguments = argv + 1 + rest;
    const int n = argc - 1 - rest;
    if (strcmp(verb, "run") == 0)
        return n < 1 ? usage("run: no command") : xn_vcard_serve(&options, NULL, arguments);
    if (strcmp(verb, "serve") == 0)
        return n != 1 ? usage("serve: one folder") : xn_vcard_serve(&options, arguments[0], NULL);
    if (strcmp(verb, "xclbin") == 0)
        return n != 1 ? usage("xclbin: one file") : write_xclbin(&options, arguments[0]);
    return usage("run, serve or xclbin?");
}
