/* SPDX-License-Identifier: Apache-2.0
 * What a run costs on its way through accel/xrt, beyond the calls of XRT that it needs.
 *
 *     xrt_bench [--json] [--seconds S] [FILE.xnor...]      those networks, else the one shipped for Fashion-MNIST and VGG-small
 *
 * Through the real libxrt_coreutil, over the driver of XCL_EMULATION_MODE=noop, for which a run is done when it is started and which keeps no
 * card memory: what is left is what the host spends. In turns, one run in flight:
 *
 *     bare    XRT's C API as a program would call it that knows one network: inputs are copied into the buffer, they and a cleared status are
 *             synced to the card, the number of images is set, start, wait, status and logits are synced back, logits copied out
 *     table   the same through the functions of xnor-xrt.so (accel/xrt/api.h)
 *     path    submit and wait of the backend xrt
 *     copies  of bare, what is not a call: inputs in, logits out
 *
 * Figures are medians of wall time. As the driver's engine writes no status, which the backend would not believe, the bench stands between
 * the backend and three functions of the table: it learns where statuses lie and how many images a run has, and writes the status
 * of a run that went well when it is synced back. That is counted to the path. */
#include <dlfcn.h>
#include <getopt.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ert.h>

#include "accel/vcard/axlf.h"
#include "accel/xrt/xrt.h"
#include "common/clock.h"
#include "tests/support/random_network.h"
#include "tests/support/samples.h"
#include "tests/vcard/bed.h"

#define NETWORKS_MAX 16u
#define SHIPPED      "models/fashion-mnist/fashion-mnist.xnor"
#define WAIT_MS      1000u
#define WAIT_NS      (WAIT_MS * XN_NS_PER_MS)
#define STATUSES_MAX 8u /* that exist at a time: the backend's slots and a probe's */

enum { BARE, TABLE, PATH, COPIES, WAYS };

static double seconds = 1;
static bool json;

static _Noreturn void die(const struct xn_error *error)
{
    fprintf(stderr, "xrt_bench: %s\n", error->text);
    exit(1);
}

/* ---- the driver that does nothing, and what it lacks ---------------------------------------------------------------------------- */

static char folder[] = "/tmp/xrt_bench-XXXXXX", image[sizeof(folder) + 16];

static void remove_folder(void)
{
    char link[sizeof(folder) + 16];

    snprintf(link, sizeof(link), "%s/lib", folder);
    unlink(link);
    unlink(image);
    rmdir(folder);
}

/** XRT finds its drivers in $XILINX_XRT/lib, which on Debian is the folder where its own library lies. */
static void lead_to_driver(void)
{
    char link[sizeof(folder) + 16], library[PATH_MAX];
    Dl_info xrt;

    CHECK(mkdtemp(folder), "%s", folder);
    snprintf(image, sizeof(image), "%s/xnor.xclbin", folder);
    atexit(remove_folder);
    CHECK(dladdr((void *)(uintptr_t)xrtDeviceOpen, &xrt) && realpath(xrt.dli_fname, library), "where is XRT?");
    snprintf(link, sizeof(link), "%s/lib", folder);
    CHECK(symlink(dirname(library), link) == 0, "%s", link);
    setenv("XILINX_XRT", folder, 1);
    setenv("XCL_EMULATION_MODE", "noop", 1);
    setenv(XN_VCARD_ENV_XCLBIN, image, 1);
}

/** The xclbin of a virtual card; a unit for each way. */
static void write_image(struct xn_isa_geometry *ret_geometry)
{
    char *arguments[] = {(char[]){"xclbin"}, (char[]){"--units"}, (char[]){"3"}, NULL};
    struct xn_vcard_options options;
    struct xn_error error;
    void *bytes;
    size_t n;
    int rest;

    if (xn_vcard_options_parse(3, arguments, &options, &rest, &error) < 0)
        die(&error);
    CHECK(xn_axlf_make(&options, &bytes, &n) == 0, "out of memory");
    FILE *file = fopen(image, "wb");
    CHECK(file && fwrite(bytes, 1, n, file) == n && fclose(file) == 0, "%s", image);
    free(bytes);
    *ret_geometry = options.geometry;
}

static struct {
    const struct xn_xrt_api *real;
    struct xn_isa_geometry geometry;
    struct {
        struct xn_xrt_buffer *buffer;
        struct xn_isa_status *host;
    } statuses[STATUSES_MAX];
    uint32_t next; /* the oldest is forgotten: it is a probe's */
    uint32_t images;
} engine;

static int noted_buffer_new(struct xn_xrt_unit *unit, uint32_t argument, uint64_t bytes, int is_cached,
                            struct xn_xrt_buffer **ret_buffer, void **ret_host, struct xn_xrt_why *why)
{
    const int r = engine.real->buffer_new(unit, argument, bytes, is_cached, ret_buffer, ret_host, why);

    for (uint32_t i = 0; r == 0 && i < STATUSES_MAX; i++)
        if (engine.statuses[i].buffer == *ret_buffer)
            engine.statuses[i].buffer = NULL; /* freed since */
    if (r == 0 && argument == XN_XRT_STATUS) {
        engine.statuses[engine.next].buffer = *ret_buffer;
        engine.statuses[engine.next].host = *ret_host;
        engine.next = (engine.next + 1) % STATUSES_MAX;
    }
    return r;
}

static int noted_run_scalar(struct xn_xrt_run *run, uint32_t argument, uint32_t value, struct xn_xrt_why *why)
{
    if (argument == XN_XRT_IMAGES)
        engine.images = value;
    return engine.real->run_scalar(run, argument, value, why);
}

static int answered_buffer_sync(struct xn_xrt_buffer *buffer, int to_device, uint64_t bytes, struct xn_xrt_why *why)
{
    const int r = engine.real->buffer_sync(buffer, to_device, bytes, why);

    for (uint32_t i = 0; r == 0 && !to_device && i < STATUSES_MAX; i++)
        if (engine.statuses[i].buffer == buffer) {
            *engine.statuses[i].host = xn_isa_status_of(&engine.geometry);
            engine.statuses[i].host->image = engine.images;
        }
    return r;
}

static void stand_between(void)
{
    static struct xn_xrt_api table;
    struct xn_error error;

    if (xn_xrt_module(&engine.real, &error) < 0)
        die(&error);
    table = *engine.real;
    table.buffer_new = noted_buffer_new;
    table.run_scalar = noted_run_scalar;
    table.buffer_sync = answered_buffer_sync;
    xn_xrt_module_replace(&table);
}

/* ---- a run, each way ------------------------------------------------------------------------------------------------------------ */

/** What runs: the job of the backend says which images, of which the other ways have the sizes. */
struct work {
    struct xn_accel *accel;
    struct xn_accel_job job;
    uint32_t input_bytes, output_words;
    struct bed_unit bare;
    struct xn_xrt_device *device;
    struct xn_xrt_unit *unit;
    struct xn_accel_model *model; /* of table, as the backend has it */
    struct xn_xrt_store store;    /* of that */
};

static void copy_in(const struct work *w, uint8_t *to)
{
    for (uint32_t i = 0; i < w->job.batch; i++)
        memcpy(to + (size_t)i * w->input_bytes, w->job.inputs[i], w->input_bytes);
}

static void copy_out(const struct work *w, const int32_t *from)
{
    for (uint32_t i = 0; i < w->job.batch; i++)
        memcpy(w->job.outputs[i], from + (size_t)i * w->output_words, w->output_words * sizeof(int32_t));
}

static size_t input_bytes(const struct work *w)
{
    return (size_t)w->job.batch * w->input_bytes;
}

static size_t output_bytes(const struct work *w)
{
    return (size_t)w->job.batch * w->output_words * sizeof(int32_t);
}

static void run_bare(struct work *w)
{
    const struct bed_unit *u = &w->bare;
    int r = 0;

    copy_in(w, u->input.host);
    memset(u->status.host, 0, sizeof(struct xn_isa_status));
    r |= xrtBOSync(u->input.handle, XCL_BO_SYNC_BO_TO_DEVICE, input_bytes(w), 0);
    r |= xrtBOSync(u->status.handle, XCL_BO_SYNC_BO_TO_DEVICE, sizeof(struct xn_isa_status), 0);
    r |= xrtRunSetArg(u->run, ARG_IMAGES, w->job.batch);
    r |= xrtRunStart(u->run);
    CHECK(r == 0 && xrtRunWaitFor(u->run, WAIT_MS) == ERT_CMD_STATE_COMPLETED, "a bare run");
    r |= xrtBOSync(u->status.handle, XCL_BO_SYNC_BO_FROM_DEVICE, sizeof(struct xn_isa_status), 0);
    r |= xrtBOSync(u->output.handle, XCL_BO_SYNC_BO_FROM_DEVICE, output_bytes(w), 0);
    CHECK(r == 0, "a bare run");
    copy_out(w, u->output.host);
}

static void run_table(struct work *w)
{
    const struct xn_xrt_api *api = engine.real;
    const struct xn_xrt_slot *slot = &w->model->slots[0];
    enum xn_xrt_state state = XN_XRT_RUNNING;
    struct xn_xrt_why why;
    int r = 0;

    copy_in(w, slot->input_host);
    memset(slot->status_host, 0, sizeof(*slot->status_host));
    r |= api->buffer_sync(slot->input, 1, input_bytes(w), &why);
    r |= api->buffer_sync(slot->status, 1, sizeof(*slot->status_host), &why);
    r |= api->run_scalar(slot->run, XN_XRT_IMAGES, w->job.batch, &why);
    r |= api->run_start(slot->run, &why);
    r |= api->run_wait(slot->run, WAIT_MS, &state, &why);
    r |= api->buffer_sync(slot->status, 0, sizeof(*slot->status_host), &why);
    r |= api->buffer_sync(slot->output, 0, output_bytes(w), &why);
    CHECK(r == 0 && state == XN_XRT_DONE, "a run through the table");
    copy_out(w, slot->output_host);
}

static void run_path(struct work *w)
{
    const struct xn_accel_backend *xrt = xn_accel_backend(w->accel);
    struct xn_error error;

    if (xrt->submit(w->accel, &w->job, &error) < 0 ||
        xrt->wait(w->accel, &w->job, xn_clock_now_ns() + WAIT_NS, &error) < 0)
        die(&error);
}

static void run_copies(struct work *w)
{
    copy_in(w, w->bare.input.host);
    copy_out(w, w->bare.output.host);
}

/* ---- one network ---------------------------------------------------------------------------------------------------------------- */

static void open_bare(struct work *w, const struct bed_device *device)
{
    w->bare = bed_unit_open(device, 1, 0, 0, input_bytes(w), output_bytes(w));
    bed_start(&w->bare, w->job.batch, w->input_bytes, w->output_words);
    CHECK(bed_wait(&w->bare, WAIT_MS) == ERT_CMD_STATE_COMPLETED, "a bare run");
}

static void open_table(struct work *w, const struct xn_network *network)
{
    const struct xn_xrt_api *api = engine.real;
    struct xn_xrt_place place = {.api = api};
    struct xn_xrt_why why;
    struct xn_error error;

    CHECK(api->open("0", &w->device, &why) == 0 && api->load(w->device, image, &why) == 0 &&
              api->unit_open(w->device, XN_XRT_KERNEL, XN_XRT_KERNEL "_3", &w->unit, &why) == 0,
          "%s", why.text);
    place.unit = w->unit;
    if (xn_xrt_model_new(network, &engine.geometry, w->job.batch, &w->model, &error) < 0 ||
        xn_xrt_model_settle_locked(&w->store, w->model, &place, &error) < 0) /* nobody else has that store */
        die(&error);
    w->input_bytes = w->model->program->input_bytes;
    w->output_words = w->model->program->output_words;
}

static void close_table(struct work *w)
{
    xn_xrt_model_evict_locked(engine.real, &w->store, w->model);
    xn_xrt_model_free(w->model);
    engine.real->unit_close(w->unit);
    engine.real->close(w->device);
}

static void open_path(struct work *w, const struct xn_network *network)
{
    const struct xn_accel_backend *xrt = xn_accel_find("xrt");
    const struct xn_accel_options options = {.device = "0", .image = image, .instances = 1};
    struct xn_error error;

    if (xrt->open(&options, 0, &w->accel, &error) < 0 ||
        xrt->load(w->accel, network, w->job.batch, &w->job.model, &error) < 0)
        die(&error);
}

/** In turns, the first one another each time. */
static void measure(struct work *w, struct samples taken[WAYS])
{
    void (*const ways[WAYS])(struct work *) = {run_bare, run_table, run_path, run_copies};
    const uint64_t end_ns = xn_clock_now_ns() + (uint64_t)(seconds * 1e9);

    for (uint32_t round = 0; round < SAMPLES_MIN || (round < SAMPLES_MAX && xn_clock_now_ns() < end_ns); round++)
        for (uint32_t i = 0; i < WAYS; i++) {
            const uint32_t way = (round + i) % WAYS;
            const uint64_t start_ns = xn_clock_now_ns();
            ways[way](w);
            samples_add(&taken[way], (double)(xn_clock_now_ns() - start_ns));
        }
}

static void print(const struct work *w, const struct xn_network *network, struct samples taken[WAYS])
{
    static bool first = true;
    double us[WAYS];
    uint64_t engine_ns = 0;

    for (uint32_t way = 0; way < WAYS; way++)
        us[way] = samples_percentile(&taken[way], 0.5) / 1e3;
    (void)xn_accel_backend(w->accel)->cost(w->accel, w->job.model, w->job.batch, &engine_ns);
    const double over_us = us[PATH] - us[BARE];
    if (json)
        printf("%s\n  {\"network\": \"%s\", \"batch\": %u, \"samples\": %zu, \"bare_us\": %.3f, \"table_us\": %.3f, "
               "\"path_us\": %.3f, \"copies_us\": %.3f, \"over_us\": %.3f, \"over_share\": %.4f, \"engine_us\": %.1f}",
               first ? "" : ",", network->name, w->job.batch, taken[PATH].n, us[BARE], us[TABLE], us[PATH], us[COPIES],
               over_us, over_us / us[PATH], (double)engine_ns / 1e3);
    else
        printf("%-16s %5u %9.2f %9.2f %9.2f %9.2f %+9.2f %6.1f %% %12.1f\n", network->name, w->job.batch, us[BARE],
               us[TABLE], us[PATH], us[COPIES], over_us, 100 * over_us / us[PATH], (double)engine_ns / 1e3);
    first = false;
    fflush(stdout);
}

/** What the images and their logits are does not matter. */
static void take_tensors(struct work *w, const struct xn_network *network)
{
    const void **inputs = calloc(w->job.batch, sizeof(*inputs));
    int32_t **outputs = calloc(w->job.batch, sizeof(*outputs));

    CHECK(inputs && outputs, "out of memory");
    for (uint32_t i = 0; i < w->job.batch; i++) {
        inputs[i] = calloc(1, network->input_bytes);
        outputs[i] = calloc(network->n_classes, sizeof(int32_t));
        CHECK(inputs[i] && outputs[i], "out of memory");
    }
    w->job.inputs = inputs;
    w->job.outputs = outputs;
}

static void free_tensors(struct work *w)
{
    for (uint32_t i = 0; i < w->job.batch; i++) {
        free((void *)(uintptr_t)w->job.inputs[i]);
        free(w->job.outputs[i]);
    }
    free((void *)(uintptr_t)w->job.inputs);
    free((void *)(uintptr_t)w->job.outputs);
}

static void bench(const struct xn_network *network, uint32_t batch)
{
    static struct samples taken[WAYS];
    struct bed_device device = bed_open(0);
    struct work w = {.job.batch = batch};

    for (uint32_t way = 0; way < WAYS; way++)
        taken[way].n = 0;
    take_tensors(&w, network);
    open_table(&w, network);
    open_bare(&w, &device);
    open_path(&w, network);
    measure(&w, taken);
    print(&w, network, taken);
    xn_accel_backend(w.accel)->close(w.accel);
    bed_unit_close(&w.bare);
    close_table(&w);
    free_tensors(&w);
    bed_close(&device);
}

/* ---- command line --------------------------------------------------------------------------------------------------------------- */

static uint32_t load_networks(char **paths, int n, struct xn_network *networks[NETWORKS_MAX])
{
    struct xn_error error;
    uint32_t count = 0;

    for (int i = 0; i < XN_MAX(n, 1) && count < NETWORKS_MAX; i++)
        if (xn_network_load(n ? paths[i] : SHIPPED, &networks[count++], &error) < 0)
            die(&error);
    if (n == 0)
        networks[count++] = xn_random_vgg_small(1);
    return count;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'}, {"seconds", required_argument, NULL, 's'}, {0}};
    static const uint32_t batches[] = {1, 8, 64};
    struct xn_network *networks[NETWORKS_MAX];
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'j')
            json = true;
        else if (option == 's')
            seconds = strtod(optarg, NULL);
        else
            return 2;
    }
    const uint32_t n = load_networks(argv + optind, argc - optind, networks);
    lead_to_driver();
    write_image(&engine.geometry);
    stand_between();
    if (json)
        printf("{\"driver\": \"noop\", \"runs\": [");
    else
        printf("us a run         batch      bare     table      path    copies      over  of path  model's time\n");
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < XN_ARRAY_LEN(batches); k++)
            bench(networks[i], batches[k]);
        xn_network_free(networks[i]);
    }
    if (json)
        printf("\n]}\n");
    return 0;
}
