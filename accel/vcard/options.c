/* SPDX-License-Identifier: Apache-2.0
 * The command line. */
#include "accel/vcard/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "accel/engine/engine.h"
#include "common/number.h"

const char *const xn_vcard_fault_names[XN_VCARD_FAULTS] = {"hang", "crash", "slow", "corrupt", "lost", "refuse"};

enum {
    OPTION_CARDS,
    OPTION_UNITS,
    OPTION_BANKS,
    OPTION_GEOMETRY,
    OPTION_MEMORY,
    OPTION_CLOCK,
    OPTION_TIMING,
    OPTION_PCIE,
    OPTION_SKIP,
    OPTION_BUS_ERROR,
    OPTION_ENGINE,
    OPTION_POWER,
    OPTION_FAULT,
    OPTION_SEED,
    OPTION_SLOW,
    OPTION_REVIVE,
    OPTION_STATS,
    OPTION_HELP,
};

static const struct option names[] = {{"cards", required_argument, NULL, OPTION_CARDS},
                                      {"units", required_argument, NULL, OPTION_UNITS},
                                      {"banks", required_argument, NULL, OPTION_BANKS},
                                      {"geometry", required_argument, NULL, OPTION_GEOMETRY},
                                      {"memory", required_argument, NULL, OPTION_MEMORY},
                                      {"clock", required_argument, NULL, OPTION_CLOCK},
                                      {"timing", required_argument, NULL, OPTION_TIMING},
                                      {"pcie", required_argument, NULL, OPTION_PCIE},
                                      {"skip-compute", no_argument, NULL, OPTION_SKIP},
                                      {"bus-error", required_argument, NULL, OPTION_BUS_ERROR},
                                      {"engine", required_argument, NULL, OPTION_ENGINE},
                                      {"power", required_argument, NULL, OPTION_POWER},
                                      {"fault", required_argument, NULL, OPTION_FAULT},
                                      {"seed", required_argument, NULL, OPTION_SEED},
                                      {"slow-ms", required_argument, NULL, OPTION_SLOW},
                                      {"revive-ms", required_argument, NULL, OPTION_REVIVE},
                                      {"stats", required_argument, NULL, OPTION_STATS},
                                      {"help", no_argument, NULL, OPTION_HELP},
                                      {0}};

const char *xn_vcard_options_help(void)
{
    return "Options:\n"
           "  --cards N          cards (1)\n"
           "  --units N          compute units of a card (1)\n"
           "  --banks N          memory banks of a card; unit n is connected to bank (n - 1) mod N (1)\n"
           "  --geometry G       of the engine: 1T, 2T, 4T or like P8,PI8,PR4,AM12288,RM4096,WB1024 (4T)\n"
           "  --memory MIB       of a card, all banks (1024)\n"
           "  --clock MHZ        of the engine (250)\n"
           "  --timing T         none: as fast as it computes; model: a run lasts its cycles at least (none)\n"
           "  --pcie GB/S        a transfer takes its bytes' time at least (no limit)\n"
           "  --skip-compute     write no output: only the time of a run is simulated\n"
           "  --engine E         auto, hls, scalar, or a library with the entry points of xnor_sim.h (auto)\n"
           "  --bus-error B      an address outside of memory: status or hang (status)\n"
           "  --fault K@N,...    every N runs: hang, crash, slow, corrupt, lost; every N loads: refuse\n"
           "  --seed S           faults at random distances of mean N instead\n"
           "  --slow-ms MS       what slow adds to a run (100)\n"
           "  --revive-ms MS     until a card that crashed is back (1000)\n"
           "  --power IDLE,BUSY[/...]  watts of a card; of the first, the second and so on, the last one's of all "
           "others (10,25)\n"
           "  --stats FILE       keep counters of cards and units, as JSON\n"
           "  --help             this\n";
}

static bool number(const char *text, uint64_t low, uint64_t high, uint32_t *ret)
{
    uint64_t value;

    if (!xn_number_u64(text, low, high, &value))
        return false;
    *ret = (uint32_t)value;
    return true;
}

/** A finite number, not negative, up to `end`. */
static bool decimal(const char *text, char end, double *ret, const char **ret_behind)
{
    char *behind;
    const double value = strtod(text, &behind);

    if (behind == text || *behind != end || !isfinite(value) || value < 0)
        return false;
    *ret = value;
    if (ret_behind)
        *ret_behind = behind + 1;
    return true;
}

static bool one_of(const char *text, const char *no, const char *yes, bool *ret)
{
    *ret = strcmp(text, yes) == 0;
    return *ret || strcmp(text, no) == 0;
}

/** "hang@500,lost@1000" */
static bool faults(const char *text, uint32_t every[XN_VCARD_FAULTS])
{
    while (*text) {
        const size_t n = strcspn(text, "@");
        const size_t digits = text[n] ? strcspn(text + n + 1, ",") : 0;
        char value[16] = {0};
        size_t kind = 0;
        while (kind < XN_VCARD_FAULTS &&
               (strlen(xn_vcard_fault_names[kind]) != n || memcmp(xn_vcard_fault_names[kind], text, n) != 0))
            kind++;
        if (kind == XN_VCARD_FAULTS || digits == 0 || digits >= sizeof(value))
            return false;
        memcpy(value, text + n + 1, digits);
        if (!number(value, 1, UINT32_MAX, &every[kind]))
            return false;
        text += n + 1 + digits;
        text += *text == ',';
    }
    return true;
}

/** "10,25/20,60": of the cards in turn, the last ones of all others. */
static bool power(const char *text, struct xn_vcard_watts watts[XN_VCARD_CARDS_MAX])
{
    struct xn_vcard_watts last = {0};

    for (uint32_t i = 0; i < XN_VCARD_CARDS_MAX; i++) {
        if (text) {
            const char *more = strchr(text, '/');
            if (!decimal(text, ',', &last.idle, &text) || !decimal(text, more ? '/' : '\0', &last.busy, &text))
                return false;
            text = more ? text : NULL;
        }
        watts[i] = last;
    }
    return !text;
}

static bool take_number(int option, const char *value, struct xn_vcard_options *o)
{
    uint32_t mib;

    switch (option) {
    case OPTION_CARDS:
        return number(value, 1, XN_VCARD_CARDS_MAX, &o->cards);
    case OPTION_UNITS:
        return number(value, 1, XN_VCARD_UNITS_MAX, &o->units);
    case OPTION_BANKS:
        return number(value, 1, XN_VCARD_BANKS_MAX, &o->banks);
    case OPTION_CLOCK:
        return number(value, 1, 2000, &o->clock_mhz);
    case OPTION_SLOW:
        return number(value, 0, 3600000, &o->slow_ms);
    case OPTION_REVIVE:
        return number(value, 0, 3600000, &o->revive_ms);
    case OPTION_SEED:
        return xn_number_u64(value, 0, UINT64_MAX, &o->seed);
    default: /* OPTION_MEMORY */
        if (!number(value, 1, 65536, &mib))
            return false;
        o->memory_bytes = (uint64_t)mib << 20;
        return true;
    }
}

static bool take(int option, const char *value, struct xn_vcard_options *o)
{
    double gb_s;

    switch (option) {
    case OPTION_TIMING:
        return one_of(value, "none", "model", &o->is_timed);
    case OPTION_BUS_ERROR:
        return one_of(value, "status", "hang", &o->hangs_on_bus);
    case OPTION_PCIE:
        if (!decimal(value, '\0', &gb_s, NULL) || gb_s > 1000)
            return false;
        o->link_bytes_s = (uint64_t)(gb_s * 1e9);
        return true;
    case OPTION_POWER:
        return power(value, o->watts);
    case OPTION_FAULT:
        return faults(value, o->fault_every);
    case OPTION_SKIP:
        o->skips_compute = true;
        return true;
    case OPTION_ENGINE:
        o->engine = value;
        return true;
    case OPTION_STATS:
        o->stats = value;
        return true;
    default:
        return take_number(option, value, o);
    }
}

int xn_vcard_options_parse(int argc, char **argv, struct xn_vcard_options *ret_options, int *ret_rest,
                           struct xn_error *error)
{
    struct xn_vcard_options o = {.cards = 1,
                                 .units = 1,
                                 .banks = 1,
                                 .memory_bytes = UINT64_C(1024) << 20,
                                 .clock_mhz = 250,
                                 .engine = "auto",
                                 .slow_ms = 100,
                                 .revive_ms = 1000};
    int option, at = 0;
    int r = xn_engine_geometry_parse("4T", &o.geometry, error);

    for (uint32_t i = 0; i < XN_VCARD_CARDS_MAX; i++)
        o.watts[i] = (struct xn_vcard_watts){10, 25};

    opterr = 0;
    optind = 1;
    while (r == 0 && (option = getopt_long(argc, argv, "+:", names, &at)) != -1) {
        if (option == OPTION_HELP)
            return 1;
        if (option == '?' || option == ':')
            return xn_error_set(error, -EINVAL, option == '?' ? "no such option: %s" : "%s needs a value",
                                argv[optind - 1]);
        if (option == OPTION_GEOMETRY)
            r = xn_engine_geometry_parse(optarg, &o.geometry, error);
        else if (!take(option, optarg, &o))
            return xn_error_set(error, -EINVAL, "--%s: not a value for it: \"%s\"", names[at].name, optarg);
    }
    if (r < 0)
        return r;
    if (o.memory_bytes / o.banks < UINT64_C(1) << 20)
        return xn_error_set(error, -EINVAL, "--memory: a bank must have 1 MiB");
    *ret_options = o;
    *ret_rest = optind;
    return 0;
}
