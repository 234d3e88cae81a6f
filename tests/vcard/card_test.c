/* SPDX-License-Identifier: Apache-2.0
 * The virtual card through the real XRT, one case a process: `xnor-vcard run OPTIONS -- card_test CASE ARGUMENTS`, as test_vcard.py does.
 * Prints "ok - CASE" and exits 0, or "not ok - ..." and exits 1. */
#include <string.h>

#include "accel/vcard/protocol.h"
#include "tests/vcard/bed.h"

static unsigned cards(void)
{
    const char *text = getenv(XN_VCARD_ENV_CARDS);

    return text ? (unsigned)strtoul(text, NULL, 10) : 0;
}

/** end UNITS: an END program on every unit of every card, whose status tells the geometry. */
static int case_end(int argc, char **argv)
{
    const unsigned units = argc > 0 ? (unsigned)strtoul(argv[0], NULL, 10) : 1;

    for (unsigned card = 0; card < cards(); card++) {
        struct bed_device device = bed_open(card);
        for (unsigned i = 0; i < units; i++) {
            struct bed_unit unit = bed_unit_open(&device, i, 0, 0, 0, 0);
            bed_run_end(&unit);
            bed_run_end(&unit);
            const struct xn_isa_status s = bed_status(&unit);
            printf("# card %u unit %u: P%u PI%u PR%u AM%u RM%u WB%u\n", card, i, s.p, s.pi, s.pr, s.am_rows, s.rm_rows,
                   s.wb_words);
            bed_unit_close(&unit);
        }
        bed_close(&device);
    }
    return 0;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} cases[] = {
    {"end", case_end},           {"network", case_network},     {"memory", case_memory},
    {"hang", case_hang},         {"lost", case_lost},           {"crash", case_crash},
    {"corrupt", case_corrupt},   {"addresses", case_addresses}, {"xclbin", case_xclbin},
    {"refuse", case_refuse},     {"taken", case_taken},         {"busy", case_busy},
    {"reset", case_reset},       {"abort", case_abort},         {"reopen", case_reopen},
    {"bus-hang", case_bus_hang}, {"devices", case_devices},     {"storm", case_storm},
    {"transfer", case_transfer}, {"soak", case_soak},           {"lost-abort", case_lost_abort},
    {"rate", case_rate},         {"saturate", case_saturate},
};

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; argc > 1 && i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (strcmp(argv[1], cases[i].name) != 0)
            continue;
        const int r = cases[i].run(argc - 2, argv + 2);
        printf("%s - %s\n", r == 0 ? "ok" : "not ok", argv[1]);
        return r;
    }
    fprintf(stderr, "usage: card_test CASE [ARGUMENT]...\n");
    return 2;
}
