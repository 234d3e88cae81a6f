/* SPDX-License-Identifier: Apache-2.0
 * The program: options before the command, the table of commands. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/xnorctl/ctl.h"

static const struct command {
    const char *name;
    int (*run)(struct xn_ctl *ctl, int argc, char **argv);
    const char *help;
} commands[] = {
    {"infer", xn_ctl_infer, "classify pictures or tensors"},
    {"models", xn_ctl_models, "list the models that a server has, and what is wrong with those it has not"},
    {"load", xn_ctl_load, "have a server load models anew"},
    {"unload", xn_ctl_unload, "have a server end the service of models"},
    {"stats", xn_ctl_stats, "show what a server has counted of its models"},
    {"log", xn_ctl_log, "show or set a server's log level"},
    {"status", xn_ctl_status, "say how a server is doing: queues, instances, throughput, energy"},
    {"inspect", xn_ctl_inspect, "check a .xnor file and show what is in it"},
    {"estimate", xn_ctl_estimate, "estimate how fast a .xnor file would be on the FPGA engine"},
    {"run", xn_ctl_run, "run a .xnor file over raw tensors, without a server"},
    {"eval", xn_ctl_eval, "measure accuracy on a labelled set through a server"},
    {"bench", xn_ctl_bench, "put load on a server and measure throughput, latency and energy"},
    {"token", xn_ctl_token, "make a bearer token and its line for a server's file of tokens"},
};

static void print_help(void)
{
    puts("xnorctl " XN_VERSION ": client of xnord, the inference server for binary neural networks\n"
         "\n"
         "usage: xnorctl [OPTION]... COMMAND [OPTION]... [ARGUMENT]...\n");
    for (size_t i = 0; i < XN_ARRAY_LEN(commands); i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].help);
    puts("\n"
         "  -u, --url URL   the server, or unix:PATH (default $XNORD_URL, else " XN_CTL_URL ")\n"
         "  -j, --json      print JSON instead of text for people\n"
         "  -V, --version   print the version\n"
         "  -h, --help      this; xnorctl COMMAND --help has the options of a command\n"
         "\n"
         "Exit status: 0 done, 1 failed (stderr says why), 2 the command line is wrong. See xnorctl(1).");
}

static const struct option long_options[] = {
    {"url", required_argument, NULL, 'u'},
    {"json", no_argument, NULL, 'j'},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void parse_options(struct xn_ctl *ctl, int argc, char **argv)
{
    int c;

    while ((c = getopt_long(argc, argv, "+u:jVh", long_options, NULL)) != -1) {
        switch (c) {
        case 'u':
            ctl->url = optarg;
            break;
        case 'j':
            ctl->json = true;
            break;
        case 'V':
            puts("xnorctl " XN_VERSION " (" XN_GIT ")");
            exit(XN_CTL_OK);
        case 'h':
            print_help();
            exit(XN_CTL_OK);
        default:
            fputs("see xnorctl --help\n", stderr);
            exit(XN_CTL_USAGE);
        }
    }
}

/* A result that did not reach its reader is a failure: a full disk must not look like success. */
static int flush_result(struct xn_ctl *ctl, int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    return status == XN_CTL_OK ? xn_ctl_failf(ctl, "standard output cannot be written: %s", strerror(errno)) : status;
}

int main(int argc, char **argv)
{
    const char *url = getenv("XNORD_URL");
    struct xn_ctl ctl = {.url = url && *url ? url : XN_CTL_URL};

    signal(SIGPIPE, SIG_DFL);
    parse_options(&ctl, argc, argv);
    if (optind == argc) {
        fputs("xnorctl: no command given; see xnorctl --help\n", stderr);
        return XN_CTL_USAGE;
    }
    argc -= optind;
    argv += optind;
    for (size_t i = 0; i < XN_ARRAY_LEN(commands); i++) {
        if (strcmp(argv[0], commands[i].name) == 0) {
            ctl.command = commands[i].name;
            return flush_result(&ctl, commands[i].run(&ctl, argc, argv));
        }
    }
    fprintf(stderr, "xnorctl: no command is called \"%.64s\"; see xnorctl --help\n", argv[0]);
    return XN_CTL_USAGE;
}
