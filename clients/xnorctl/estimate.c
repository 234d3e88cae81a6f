/* SPDX-License-Identifier: Apache-2.0
 * `estimate`: what a network would take on an engine: the cycle model of its program, times a clock that is planned. One file is shown
 * pass by pass, of several a line each. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "accel/engine/engine.h"
#include "clients/xnorctl/format.h"
#include "clients/xnorctl/options.h"

#define PATH "cycles of the model x planned clock, not placed and routed"

struct estimate {
    const char *file;
    const struct xn_engine_program *program;
    struct xn_engine_cost *costs; /**< [program->n], of a turn */
    uint64_t images, turn;        /**< of a batch; of a turn, at most */
    double clock_hz;
    uint64_t cycles; /**< of all images */
    double images_s;
    uint64_t binary_macs, array_macs; /**< an image; of these, those that the binary array does */
    double stream_bytes;              /**< an image; a tail's are shared */
};

static const char *const op_names[] = {
    [XN_ISA_END] = "end",       [XN_ISA_INPUT] = "input",     [XN_ISA_BINARY] = "binary", [XN_ISA_INT8] = "int8",
    [XN_ISA_VECTOR] = "vector", [XN_ISA_LARGEST] = "largest", [XN_ISA_TURN] = "turn"};
static const char *const bound_names[] = {
    [XN_BOUND_ARRAY] = "array", [XN_BOUND_POST] = "post", [XN_BOUND_MEMORY] = "memory", [XN_BOUND_INPUT] = "input"};

static double binary_lanes(const struct xn_isa_geometry *g)
{
    return (double)g->p * XN_ISA_LANES * XN_ISA_WORD_BITS;
}

/** Multiply-accumulates a cycle of the unit that does pass `i`; 0: none are counted. */
static double lanes_of(const struct xn_engine_program *p, uint32_t i)
{
    switch (p->descriptors[i].op) {
    case XN_ISA_BINARY:
        return binary_lanes(&p->geometry);
    case XN_ISA_INT8:
        return (double)p->geometry.pi * XN_ISA_LANES * XN_ISA_WORD_BYTES;
    default:
        return 0;
    }
}

/** Cycles of a turn, shared by its images. */
static double an_image(const struct estimate *e, uint64_t cycles)
{
    return (double)cycles / e->program->turn;
}

/** Part of its unit's multiply-accumulates that pass `i` uses. */
static double utilisation(const struct estimate *e, uint32_t i)
{
    const double all = lanes_of(e->program, i) * an_image(e, e->costs[i].cycles);

    return all > 0 ? (double)e->program->passes[i].macs / all : 0;
}

static double total_utilisation(const struct estimate *e)
{
    return (double)e->array_macs * (double)e->images / ((double)e->cycles * binary_lanes(&e->program->geometry));
}

static double effective_tops(const struct estimate *e)
{
    return 2 * (double)e->binary_macs * e->images_s / 1e12;
}

static double bandwidth_bytes_s(const struct estimate *e)
{
    const struct xn_engine_program *p = e->program;
    const size_t others = p->input_bytes + p->n * sizeof(*p->descriptors) + p->output_words * 4;

    return (e->stream_bytes + (double)others) * e->images_s;
}

static void make_estimate(struct estimate *e)
{
    const struct xn_engine_program *p = e->program;
    double share = 1;

    e->costs = xn_ctl_alloc(p->n, sizeof(*e->costs));
    e->cycles = xn_engine_cycles(p, (uint32_t)e->images, e->costs);
    e->images_s = (double)e->images * e->clock_hz / (double)e->cycles;
    for (uint32_t i = 0; i < p->n; i++) {
        e->binary_macs += p->passes[i].binary ? p->passes[i].macs : 0;
        e->array_macs += p->descriptors[i].op == XN_ISA_BINARY ? p->passes[i].macs : 0;
        e->stream_bytes += share * (double)p->passes[i].stream_bytes;
        if (p->descriptors[i].op == XN_ISA_TURN)
            share = 1.0 / p->turn;
    }
}

/* ---- JSON --------------------------------------------------------------------------------------------------------- */

static json_t *pass_json(const struct estimate *e, uint32_t i)
{
    const struct xn_engine_program *p = e->program;
    const struct xn_isa_descriptor *d = &p->descriptors[i];
    const struct xn_engine_cost *cost = &e->costs[i];

    return json_pack("{s:s, s:i, s:i, s:[i,i,i], s:I, s:b, s:f, s:f, s:f, s:f, s:s, s:f, s:I}", "op", op_names[d->op],
                     "first_layer", (int)p->passes[i].first_layer, "last_layer", (int)p->passes[i].last_layer, "output",
                     (int)(d->op == XN_ISA_INPUT ? d->height : d->out_h), (int)d->out_w, (int)d->channels, "macs",
                     (json_int_t)p->passes[i].macs, "binary", (int)p->passes[i].binary, "cycles",
                     an_image(e, cost->cycles), "array_cycles", an_image(e, cost->array), "post_cycles",
                     an_image(e, cost->post), "memory_cycles", an_image(e, cost->memory), "bound",
                     bound_names[cost->bound], "utilisation", utilisation(e, i), "stream_bytes",
                     (json_int_t)p->passes[i].stream_bytes);
}

static json_t *estimate_json(const struct estimate *e)
{
    const struct xn_engine_program *p = e->program;
    const struct xn_isa_geometry *g = &p->geometry;
    json_t *passes = json_array();

    for (uint32_t i = 0; i + 1 < p->n; i++)
        json_array_append_new(passes, pass_json(e, i));
    return json_pack(
        "{s:s, s:s, s:{s:i, s:i, s:i, s:i, s:i, s:i}, s:s, s:f, s:I, s:i, s:I, s:f, s:f, s:f, s:f, s:I, s:i, s:i, s:o}",
        "file", e->file, "name", p->network->name, "geometry", "p", (int)g->p, "pi", (int)g->pi, "pr", (int)g->pr,
        "am_rows", (int)g->am_rows, "rm_rows", (int)g->rm_rows, "wb_words", (int)g->wb_words, "path", PATH, "clock_hz",
        e->clock_hz, "images", (json_int_t)e->images, "turn", (int)p->turn, "cycles", (json_int_t)e->cycles,
        "images_per_second", e->images_s, "effective_tops", effective_tops(e), "utilisation", total_utilisation(e),
        "bandwidth_bytes_per_second", bandwidth_bytes_s(e), "stream_bytes", (json_int_t)p->stream_bytes, "am_rows_used",
        (int)p->am_rows_used, "rm_rows_used", (int)p->rm_rows_used, "passes", passes);
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

static void print_pass(struct xn_table *t, const struct estimate *e, uint32_t i)
{
    const struct xn_engine_program *p = e->program;
    const struct xn_isa_descriptor *d = &p->descriptors[i];
    const struct xn_engine_pass *pass = &p->passes[i];
    const struct xn_engine_cost *cost = &e->costs[i];

    xn_table_cell(t, "%u", i);
    if (d->op == XN_ISA_INPUT)
        xn_table_cell(t, "0");
    else if (pass->first_layer == pass->last_layer)
        xn_table_cell(t, "%u", pass->first_layer + 1);
    else
        xn_table_cell(t, "%u..%u", pass->first_layer + 1, pass->last_layer + 1);
    xn_table_cell(t, "%s", op_names[d->op]);
    if (d->kernel_h)
        xn_table_cell(t, "%ux%u", d->kernel_h, d->kernel_w);
    else
        xn_table_cell(t, "%s", "");
    if (d->op == XN_ISA_TURN)
        xn_table_cell(t, "%u images", d->out_w);
    else
        xn_table_cell(t, "%ux%ux%u", d->op == XN_ISA_INPUT ? d->height : d->out_h, d->out_w, d->channels);
    xn_table_cell(t, "%s", pass->macs ? xn_words_count((double)pass->macs).text : "");
    xn_table_cell(t, "%.0f", an_image(e, cost->cycles));
    xn_table_cell(t, "%.0f", an_image(e, cost->array));
    xn_table_cell(t, "%.0f", an_image(e, cost->post));
    xn_table_cell(t, "%.0f", an_image(e, cost->memory));
    xn_table_cell(t, "%s", bound_names[cost->bound]);
    if (lanes_of(p, i) > 0 && pass->macs)
        xn_table_cell(t, "%.1f %%", 100 * utilisation(e, i));
    else
        xn_table_cell(t, "%s", "");
    xn_table_cell(t, "%s", pass->stream_bytes ? xn_words_bytes(pass->stream_bytes).text : "");
}

static void print_text(const struct estimate *e)
{
    static const char *const heading[] = {"PASS",  "VALUES", "OP",     "WINDOW", "OUTPUT",      "MAC",   "CYCLES",
                                          "ARRAY", "POST",   "MEMORY", "BOUND",  "UTILISATION", "STREAM"};
    const struct xn_engine_program *p = e->program;
    struct xn_table *t = xn_table_new("rlllrrrrrrlrr");
    char geometry[160];

    xn_engine_geometry_print(&p->geometry, geometry, sizeof(geometry));
    printf("%s on %s at %.0f MHz\n\n", p->network->name, geometry, e->clock_hz / 1e6);
    for (size_t i = 0; i < XN_ARRAY_LEN(heading); i++)
        xn_table_cell(t, "%s", heading[i]);
    for (uint32_t i = 0; i + 1 < p->n; i++)
        print_pass(t, e, i);
    xn_table_end(t, stdout, 0);
    printf("\n%-13s%" PRIu64 " cycles for %" PRIu64 " images, %.0f an image\n", "cycles", e->cycles, e->images,
           (double)e->cycles / (double)e->images);
    printf("%-13s%.0f images/s, %.2f effective TOPS (two operations a binary multiply-accumulate)\n", "throughput",
           e->images_s, effective_tops(e));
    printf("%-13s%.1f %% of the binary array's %.2f TOPS\n", "utilisation", 100 * total_utilisation(e),
           2 * binary_lanes(&p->geometry) * e->clock_hz / 1e12);
    printf("%-13s%.2f GB/s of the port's %.2f; %s of stream an image\n", "memory", bandwidth_bytes_s(e) / 1e9,
           XN_ISA_BEAT_BYTES * e->clock_hz / 1e9, xn_words_bytes((uint64_t)e->stream_bytes).text);
    printf("%-13sAM %u of %u rows, RM %u of %u rows\n", "", p->am_rows_used, p->geometry.am_rows, p->rm_rows_used,
           p->geometry.rm_rows);
    puts(PATH);
}

static void print_heading(struct xn_table *t)
{
    static const char *const heading[] = {"NETWORK",     "GEOMETRY", "CYCLES AN IMAGE", "IMAGES/S", "TOPS",
                                          "UTILISATION", "GB/S"};

    for (size_t i = 0; i < XN_ARRAY_LEN(heading); i++)
        xn_table_cell(t, "%s", heading[i]);
}

static void print_line(struct xn_table *t, const struct estimate *e)
{
    const struct xn_isa_geometry *g = &e->program->geometry;

    xn_table_cell(t, "%s", e->program->network->name);
    xn_table_cell(t, "P%u PI%u PR%u", g->p, g->pi, g->pr);
    xn_table_cell(t, "%.0f", (double)e->cycles / (double)e->images);
    xn_table_cell(t, "%.0f", e->images_s);
    xn_table_cell(t, "%.2f", effective_tops(e));
    xn_table_cell(t, "%.1f %%", 100 * total_utilisation(e));
    xn_table_cell(t, "%.2f", bandwidth_bytes_s(e) / 1e9);
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

/** Where the estimates go: `list` is for JSON, `table` for several files, none of them for one. */
struct sink {
    json_t *list;
    struct xn_table *table;
};

static int run(const struct xn_ctl *ctl, struct estimate *e, const struct xn_isa_geometry *geometry,
               const struct sink *to)
{
    struct xn_network *network = NULL;
    struct xn_engine_program *program = NULL;
    struct xn_error error;
    int r = xn_network_load(e->file, &network, &error);

    if (r == 0)
        r = xn_engine_compile(network, geometry, (uint32_t)e->turn, &program, &error);
    if (r == 0) {
        e->program = program;
        make_estimate(e);
        if (to->list)
            json_array_append_new(to->list, estimate_json(e));
        else if (to->table)
            print_line(to->table, e);
        else
            print_text(e);
        free(e->costs);
    }
    xn_engine_program_free(program);
    xn_network_free(network);
    if (r < 0)
        xn_error_prefix(&error, 0, "%s", e->file);
    return r < 0 ? xn_ctl_fail(ctl, &error) : XN_CTL_OK;
}

/** All files; one that does not fit is told of and costs the others nothing. `e` has images and clock. */
static int run_all(const struct xn_ctl *ctl, const struct estimate *e, const struct xn_isa_geometry *geometry,
                   char **files, int n)
{
    struct sink to = {.list = ctl->json ? json_array() : NULL,
                      .table = n > 1 && !ctl->json ? xn_table_new("llrrrrr") : NULL};
    int status = XN_CTL_OK;

    if (to.table)
        print_heading(to.table);
    for (int i = 0; i < n; i++) {
        struct estimate one = {.file = files[i], .images = e->images, .turn = e->turn, .clock_hz = e->clock_hz};
        if (run(ctl, &one, geometry, &to) != XN_CTL_OK)
            status = XN_CTL_FAILED;
    }
    if (to.table)
        xn_table_end(to.table, stdout, 0);
    if (n > 1 && !to.list)
        printf("\nat %.0f MHz: " PATH "\n", e->clock_hz / 1e6);
    if (to.list && (n > 1 || status == XN_CTL_OK)) {
        json_dumpf(n > 1 ? to.list : json_array_get(to.list, 0), stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(to.list);
    return status;
}

int xn_ctl_estimate(struct xn_ctl *ctl, int argc, char **argv)
{
    struct estimate e = {.images = 64, .turn = XN_ENGINE_TURN};
    const char *geometry_name = XN_CTL_GEOMETRY;
    double clock_mhz = 250;
    const struct xn_opt opts[] = {
        {"geometry", 'g', XN_OPT_TEXT, &geometry_name, 0, 0, "G", XN_CTL_GEOMETRY_HELP},
        {"clock", 'c', XN_OPT_DOUBLE, &clock_mhz, 1, 10000, "MHZ", "planned clock (250)"},
        {"turn", 't', XN_OPT_U64, &e.turn, 1, XN_ISA_SIDE_MAX, "N", XN_CTL_TURN_HELP},
        {"images", 'n', XN_OPT_U64, &e.images, 1, 1000000, "N", "images of a batch on the card (64)"},
    };
    const struct xn_opt_about about = {
        "FILE.xnor...",
        "Estimate how fast a network would be on the FPGA engine: cycles of the model times a planned clock. One file "
        "is shown\npass by pass, of several a line each.",
        "Exit status: 0 done, 1 a network does not fit the geometry (the message says "
        "what does not), 2 wrong command line.",
        true};
    struct xn_isa_geometry geometry;
    struct xn_error error;
    char **files;

    const int n = xn_opt_parse(ctl, &about, opts, XN_ARRAY_LEN(opts), argc, argv, &files);
    if (n < 1)
        xn_opt_usage(ctl, "a FILE is needed");
    if (xn_engine_geometry_parse(geometry_name, &geometry, &error) < 0)
        xn_opt_usage(ctl, "%s", error.text);
    e.clock_hz = clock_mhz * 1e6;
    return run_all(ctl, &e, &geometry, files, n);
}
