/* SPDX-License-Identifier: Apache-2.0
 * `inspect`: a .xnor file, checked whole and shown. Loading it is the check: what is shown has passed. With --engine, the
 * program that it is on the engine. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/engine/engine.h"
#include "clients/xnorctl/format.h"
#include "clients/xnorctl/options.h"
#include "model/network.h"

struct totals {
    size_t parameter_bytes, peak_bytes;
    uint32_t peak_layer;
};

static size_t parameter_bytes(const struct xn_layer *layer)
{
    size_t bytes = 0;

    for (size_t k = 0; k < XN_LAYER_TENSORS_MAX; k++)
        bytes += layer->tensors[k] ? layer->tensors[k]->bytes : 0;
    return bytes;
}

/* Values that are alive while layer i runs: its output, and all made before it that it or a later one reads. */
static size_t live_bytes(const struct xn_network *n, uint32_t i)
{
    size_t bytes = xn_value_bytes(xn_layer_output(n, i));

    for (uint32_t v = 0; v <= i; v++) {
        if (n->values[v].last_use >= i)
            bytes += xn_value_bytes(&n->values[v]);
    }
    return bytes;
}

static struct totals totals_of(const struct xn_network *n)
{
    struct totals t = {0};

    for (uint32_t i = 0; i < n->n_tensors; i++)
        t.parameter_bytes += n->tensors[i].bytes;
    for (uint32_t i = 0; i < n->n_layers; i++) {
        size_t live = live_bytes(n, i);
        if (live > t.peak_bytes) {
            t.peak_bytes = live;
            t.peak_layer = i;
        }
    }
    return t;
}

/* ---- JSON --------------------------------------------------------------------------------------------------------- */

static json_t *value_json(const struct xn_value *v)
{
    return json_pack("{s:[i,i,i], s:s, s:I, s:I, s:I}", "shape", (int)v->h, (int)v->w, (int)v->c, "dtype",
                     xn_dtype_name(v->dtype), "bytes", (json_int_t)xn_value_bytes(v), "min", (json_int_t)v->min, "max",
                     (json_int_t)v->max);
}

static bool has_window(const struct xn_layer *l)
{
    return l->op == XN_OP_CONV || l->op == XN_OP_MAXPOOL || l->op == XN_OP_AVGPOOL;
}

static void add_window(json_t *o, const struct xn_layer *l)
{
    json_object_set_new(o, "kernel", json_pack("[i,i]", (int)l->kernel_h, (int)l->kernel_w));
    json_object_set_new(o, "stride", json_pack("[i,i]", (int)l->stride_h, (int)l->stride_w));
    json_object_set_new(
        o, "pad", json_pack("[i,i,i,i]", (int)l->pad_top, (int)l->pad_left, (int)l->pad_bottom, (int)l->pad_right));
    json_object_set_new(o, "pad_mode", json_string(xn_pad_name(l->pad)));
    if (l->op == XN_OP_CONV)
        json_object_set_new(o, "groups", json_integer(l->groups));
}

static json_t *layer_json(const struct xn_network *n, uint32_t i)
{
    const struct xn_layer *l = &n->layers[i];
    json_t *inputs = json_array();

    for (uint32_t k = 0; k < l->n_inputs; k++)
        json_array_append_new(inputs, json_integer(l->inputs[k]));
    json_t *o = json_pack("{s:i, s:s, s:s, s:o, s:o, s:I, s:I, s:I}", "index", (int)i, "op", xn_op_name(l->op), "name",
                          l->name, "inputs", inputs, "output", value_json(xn_layer_output(n, i)), "parameter_bytes",
                          (json_int_t)parameter_bytes(l), "binary_macs", (json_int_t)(l->binary ? l->macs : 0),
                          "int8_macs", (json_int_t)(l->binary ? 0 : l->macs));
    if (!o) /* a name that is not UTF-8 cannot have been loaded */
        return json_null();
    if (has_window(l))
        add_window(o, l);
    return o;
}

static void print_json(const struct xn_network *n, const char *path)
{
    struct totals totals = totals_of(n);
    json_t *layers = json_array();

    for (uint32_t i = 0; i < n->n_layers; i++)
        json_array_append_new(layers, layer_json(n, i));
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:o?, s:o, s:i, s:o, s:{s:I, s:I, s:I, s:I, s:i}, s:{s:b, s:b}}",
                  "file", path, "name", n->name, "version", n->version, "format", "", "sha256", n->sha256_hex,
                  "file_bytes", (json_int_t)n->file_bytes, "metadata", json_loadb(n->meta_json, n->meta_bytes, 0, NULL),
                  "input", value_json(&n->values[0]), "classes", (int)n->n_classes, "layers", layers, "totals",
                  "binary_macs", (json_int_t)n->binary_macs, "int8_macs", (json_int_t)n->int8_macs, "parameter_bytes",
                  (json_int_t)totals.parameter_bytes, "activation_peak_bytes", (json_int_t)totals.peak_bytes,
                  "activation_peak_layer", (int)totals.peak_layer, "checks", "sha256", 1, "bounds", 1);
    char format[24];
    snprintf(format, sizeof(format), "%u.%u", n->format_major, n->format_minor);
    json_object_set_new(root, "format", json_string(format));
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

static void print_field(const char *title, const char *text)
{
    if (!text || !*text)
        return;
    printf("%-13s", title);
    xn_put_safe(stdout, text);
    putchar('\n');
}

static void print_labels(const struct xn_network *n)
{
    if (!n->labels)
        return;
    printf("%-13s", "labels");
    for (uint32_t i = 0; i < n->n_classes && i < 20; i++) {
        printf("%s", i ? ", " : "");
        xn_put_safe(stdout, n->labels[i]);
    }
    puts(n->n_classes > 20 ? ", ..." : "");
}

static void print_provenance(const struct xn_network *n)
{
    json_t *meta = json_loadb(n->meta_json, n->meta_bytes, 0, NULL), *value;
    json_t *provenance = json_object_get(meta, "provenance");
    const char *key;

    print_field("licence", json_string_value(json_object_get(meta, "license")));
    json_object_foreach(provenance, key, value)
    {
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        print_field(key, text ? text : json_string_value(value));
        free(text);
    }
    json_decref(meta);
}

static void print_input(const struct xn_network *n)
{
    const struct xn_input_spec *in = &n->input;
    static const char *const fits[] = {"stretched", "cropped", "padded"};

    printf("%-13s%ux%ux%u %s (%s)", "input", in->h, in->w, in->channels, xn_dtype_name(in->dtype),
           xn_words_bytes(n->input_bytes).text);
    if (!in->is_image)
        puts(", raw tensors only");
    else
        printf(", from %s pictures %s to size%s\n", in->channels == 1 ? "grey" : "RGB", fits[in->fit],
               in->identity ? ", pixels as they are" : ", scaled as the metadata says");
}

static void cell_window(struct xn_table *t, const struct xn_layer *l)
{
    bool pads = l->pad_top || l->pad_left || l->pad_bottom || l->pad_right;

    if (!has_window(l)) {
        for (int i = 0; i < 4; i++)
            xn_table_cell(t, "%s", "");
        return;
    }
    xn_table_cell(t, "%ux%u", l->kernel_h, l->kernel_w);
    if (l->stride_h == l->stride_w)
        xn_table_cell(t, "%u", l->stride_h);
    else
        xn_table_cell(t, "%ux%u", l->stride_h, l->stride_w);
    if (!pads)
        xn_table_cell(t, "-");
    else if (l->pad_top == l->pad_left && l->pad_top == l->pad_bottom && l->pad_top == l->pad_right)
        xn_table_cell(t, "%u %s", l->pad_top, xn_pad_name(l->pad));
    else
        xn_table_cell(t, "%u,%u,%u,%u %s", l->pad_top, l->pad_left, l->pad_bottom, l->pad_right, xn_pad_name(l->pad));
    if (l->op == XN_OP_CONV)
        xn_table_cell(t, "%u", l->groups);
    else
        xn_table_cell(t, "%s", "");
}

static void print_layer(struct xn_table *t, const struct xn_network *n, uint32_t i)
{
    const struct xn_layer *l = &n->layers[i];
    const struct xn_value *out = xn_layer_output(n, i);
    char inputs[64] = "";

    for (uint32_t k = 0; k < l->n_inputs; k++) {
        size_t used = strlen(inputs);
        snprintf(inputs + used, sizeof(inputs) - used, "%s%u", k ? "," : "", l->inputs[k]);
    }
    xn_table_cell(t, "%u", i + 1);
    xn_table_cell(t, "%s", xn_op_name(l->op));
    xn_table_cell(t, "%s", l->name);
    xn_table_cell(t, "%s", inputs);
    xn_table_cell(t, "%ux%ux%u", out->h, out->w, out->c);
    xn_table_cell(t, "%s", xn_dtype_name(out->dtype));
    cell_window(t, l);
    xn_table_cell(t, "%s", parameter_bytes(l) ? xn_words_bytes(parameter_bytes(l)).text : "");
    xn_table_cell(t, "%s", l->binary && l->macs ? xn_words_count((double)l->macs).text : "");
    xn_table_cell(t, "%s", !l->binary && l->macs ? xn_words_count((double)l->macs).text : "");
    xn_table_cell(t, "%" PRId64 "..%" PRId64, out->min, out->max);
}

static void print_layers(const struct xn_network *n)
{
    static const char *const heading[] = {"VALUE",  "OP",  "NAME",   "FROM",       "OUTPUT",     "TYPE",     "KERNEL",
                                          "STRIDE", "PAD", "GROUPS", "PARAMETERS", "BINARY MAC", "INT8 MAC", "RANGE"};
    struct xn_table *t = xn_table_new("rllllllrlrrrrl");

    for (size_t i = 0; i < XN_ARRAY_LEN(heading); i++)
        xn_table_cell(t, "%s", heading[i]);
    for (uint32_t i = 0; i < n->n_layers; i++)
        print_layer(t, n, i);
    xn_table_end(t, stdout, 0);
}

static void print_text(const struct xn_network *n, const char *path)
{
    struct totals totals = totals_of(n);
    uint64_t macs = n->binary_macs + n->int8_macs;

    printf("%-13s%s, %s, format %u.%u\n", "file", path, xn_words_bytes(n->file_bytes).text, n->format_major,
           n->format_minor);
    printf("%-13s%s, version %s\n", "name", n->name, n->version);
    print_field("description", n->description);
    printf("%-13s%s\n", "sha256", n->sha256_hex);
    print_input(n);
    printf("%-13s%u\n", "classes", n->n_classes);
    print_labels(n);
    print_provenance(n);
    putchar('\n');
    print_layers(n);
    printf("\n%-13s%u layers, %s of parameters, at most %s of values alive (while value %u is made)\n", "totals",
           n->n_layers, xn_words_bytes(totals.parameter_bytes).text, xn_words_bytes(totals.peak_bytes).text,
           totals.peak_layer + 1);
    printf("%-13s%s binary multiply-accumulates an image, %s of other kinds (%.1f %% binary)\n", "",
           xn_words_count((double)n->binary_macs).text, xn_words_count((double)n->int8_macs).text,
           macs ? 100 * (double)n->binary_macs / (double)macs : 0.0);
    printf("%-13sSHA-256 matches; every field is in its limits; no sum can overflow (ranges above are proven)\n",
           "checks");
}

/* ---- the engine --------------------------------------------------------------------------------------------------- */

static int print_program(const struct xn_network *n, const struct xn_isa_geometry *geometry, uint32_t turn,
                         struct xn_error *error)
{
    struct xn_engine_program *program;
    int r = xn_engine_compile(n, geometry, turn, &program, error);

    if (r < 0)
        return r;
    xn_engine_disassemble(program, stdout);
    xn_engine_program_free(program);
    return 0;
}

int xn_ctl_inspect(struct xn_ctl *ctl, int argc, char **argv)
{
    bool engine = false;
    const char *geometry_name = NULL;
    uint64_t turn = XN_ENGINE_TURN;
    const struct xn_opt opts[] = {
        {"engine", 'e', XN_OPT_FLAG, &engine, 0, 0, NULL, "list the program that the network is on the engine"},
        {"geometry", 'g', XN_OPT_TEXT, &geometry_name, 0, 0, "G", XN_CTL_GEOMETRY_HELP},
        {"turn", 't', XN_OPT_U64, &turn, 1, XN_ISA_SIDE_MAX, "N", XN_CTL_TURN_HELP},
    };
    const struct xn_opt_about about = {"FILE.xnor", "Check a network file as a server would, and show what is in it.",
                                       "Exit status: 0 the file is good (--engine: and fits the geometry), 1 it is not "
                                       "(the message names layer, field\n"
                                       "and rule), 2 wrong command line.",
                                       true};
    struct xn_isa_geometry geometry;
    struct xn_network *network = NULL;
    struct xn_error error;
    char **files;
    int r = 0;

    int n = xn_opt_parse(ctl, &about, opts, XN_ARRAY_LEN(opts), argc, argv, &files);
    if (n != 1)
        xn_opt_usage(ctl, "one FILE is needed");
    if (geometry_name && !engine)
        xn_opt_usage(ctl, "--geometry goes with --engine");
    if (engine && ctl->json)
        xn_opt_usage(ctl, "--engine has no JSON");
    if (xn_engine_geometry_parse(geometry_name ? geometry_name : XN_CTL_GEOMETRY, &geometry, &error) < 0)
        xn_opt_usage(ctl, "%s", error.text);
    if (xn_network_load(files[0], &network, &error) < 0) {
        xn_error_prefix(&error, 0, "%s", files[0]);
        return xn_ctl_fail(ctl, &error);
    }
    if (engine)
        r = print_program(network, &geometry, (uint32_t)turn, &error);
    else if (ctl->json)
        print_json(network, files[0]);
    else
        print_text(network, files[0]);
    xn_network_free(network);
    if (r < 0)
        xn_error_prefix(&error, 0, "%s", files[0]);
    return r < 0 ? xn_ctl_fail(ctl, &error) : XN_CTL_OK;
}
