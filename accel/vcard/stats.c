/* SPDX-License-Identifier: Apache-2.0
 * The counters as JSON, replaced in one go, so that a reader sees a whole file. */
#include "accel/vcard/stats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"

static double seconds(const xn_vcard_counter *ns)
{
    return (double)xn_vcard_counted(ns) * 1e-9;
}

static void write_unit(FILE *f, const struct xn_vcard_unit_stats *u, uint32_t index, bool is_last)
{
    fprintf(f,
            "        {\"name\": \"xnor_engine_%u\", \"runs\": %" PRIu64 ", \"images\": %" PRIu64
            ", \"errors\": %" PRIu64 ", \"stopped\": %" PRIu64
            ", \"busy_s\": %.9f, \"idle_s\": %.9f, \"model_s\": %.9f, \"cycles\": %" PRIu64
            ", \"running\": %s, \"faults\": {",
            index + 1, xn_vcard_counted(&u->runs), xn_vcard_counted(&u->images), xn_vcard_counted(&u->errors),
            xn_vcard_counted(&u->stopped), seconds(&u->busy_ns), seconds(&u->idle_ns), seconds(&u->model_ns),
            xn_vcard_counted(&u->cycles), xn_vcard_counted(&u->started_ns) ? "true" : "false");
    for (uint32_t kind = 0; kind < XN_VCARD_REFUSE; kind++)
        fprintf(f, "%s\"%s\": %" PRIu64, kind ? ", " : "", xn_vcard_fault_names[kind],
                xn_vcard_counted(&u->faults[kind]));
    fprintf(f, "}}%s\n", is_last ? "" : ",");
}

static void write_card(FILE *f, const struct xn_vcard_card_stats *c, uint32_t index, uint32_t units, bool is_last)
{
    fprintf(f,
            "    {\"address\": \"%s\", \"energy_j\": %.6f, \"process\": %" PRIu64 ", \"deaths\": %" PRIu64
            ", \"opens\": %" PRIu64 ", \"loads\": %" PRIu64 ", \"refused_loads\": %" PRIu64 ", \"resets\": %" PRIu64
            ",\n      \"units\": [\n",
            xn_vcard_address_of(index).text, (double)xn_vcard_counted(&c->energy_uj) * 1e-6,
            xn_vcard_counted(&c->process), xn_vcard_counted(&c->deaths), xn_vcard_counted(&c->opens),
            xn_vcard_counted(&c->loads), xn_vcard_counted(&c->refused_loads), xn_vcard_counted(&c->resets));
    for (uint32_t i = 0; i < units; i++)
        write_unit(f, &c->units[i], i, i + 1 == units);
    fprintf(f, "      ]}%s\n", is_last ? "" : ",");
}

int xn_vcard_stats_write(const struct xn_vcard_stats *stats, const struct xn_vcard_options *options, const char *path)
{
    char temporary[4096];

    if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
        return -ENAMETOOLONG;
    FILE *f = fopen(temporary, "we");
    if (!f)
        return -errno;
    fprintf(f, "{\n  \"uptime_s\": %.6f, \"clock_mhz\": %u,\n  \"cards\": [\n",
            (double)(xn_clock_now_ns() - stats->start_ns) * 1e-9, options->clock_mhz);
    for (uint32_t i = 0; i < options->cards; i++)
        write_card(f, &stats->cards[i], i, options->units, i + 1 == options->cards);
    fprintf(f, "  ]\n}\n");
    const bool failed = ferror(f);
    if (fclose(f) != 0 || failed || rename(temporary, path) < 0) {
        const int r = errno ? -errno : -EIO;
        unlink(temporary);
        return r;
    }
    return 0;
}

uint64_t xn_vcard_stats_busy_ns(const struct xn_vcard_card_stats *card, uint32_t units, uint64_t now_ns)
{
    uint64_t busy_ns = 0;

    for (uint32_t i = 0; i < units; i++) {
        const uint64_t started_ns = xn_vcard_counted(&card->units[i].started_ns);
        busy_ns +=
            xn_vcard_counted(&card->units[i].busy_ns) + (started_ns && started_ns < now_ns ? now_ns - started_ns : 0);
    }
    return busy_ns;
}
