/* SPDX-License-Identifier: Apache-2.0
 * A program for people to read: a line a descriptor. */
#include "accel/engine/engine.h"

#include <inttypes.h>

static const char *const op_names[] = {
    [XN_ISA_END] = "end",       [XN_ISA_INPUT] = "input",     [XN_ISA_BINARY] = "binary", [XN_ISA_INT8] = "int8",
    [XN_ISA_VECTOR] = "vector", [XN_ISA_LARGEST] = "largest", [XN_ISA_TURN] = "turn",
};
static const char *const source_names[] = {
    [XN_ISA_BITS] = "bits",
    [XN_ISA_U8] = "u8",
    [XN_ISA_I8] = "i8",
    [XN_ISA_I16] = "i16",
};

static void put_window(const struct xn_isa_descriptor *d, FILE *out)
{
    fprintf(out, "  %s[%u]+%u %ux%u/%u", d->source == XN_ISA_I16 ? "RM" : "AM", d->base, d->source_group, d->height,
            d->width, d->pitch);
    fprintf(out, " %s x%u", source_names[d->source], d->words);
    if (d->kernel_h > 1 || d->kernel_w > 1 || d->stride_h > 1 || d->stride_w > 1)
        fprintf(out, " window %ux%u stride %ux%u", d->kernel_h, d->kernel_w, d->stride_h, d->stride_w);
    if (d->pad_top || d->pad_left)
        fprintf(out, " pad %u,%u", d->pad_top, d->pad_left);
    if (d->flags & XN_ISA_PAD_MINUS_ONE)
        fputs(" with -1", out);
    if (d->flags & XN_ISA_MAX)
        fputs(" max", out);
    fprintf(out, " -> %ux%ux%u", d->out_h, d->out_w, d->channels);
    if (d->flags & XN_ISA_BATCH && d->op != XN_ISA_LARGEST)
        fputs(" images", out);
}

static void put_post(const struct xn_isa_descriptor *d, FILE *out)
{
    const uint32_t f = d->flags;

    if (f & XN_ISA_SCALE)
        fprintf(out, " scale>>%u", d->shift & 0xff);
    if (f & XN_ISA_RESIDUAL)
        fprintf(out, " +RM[%u]/%u", d->residual_base, d->residual_pitch);
    if (f & XN_ISA_SATURATE)
        fputs(" sat16", out);
    if (f & XN_ISA_RPRELU)
        fputs(" rprelu", out);
    if (f & XN_ISA_STORE)
        fprintf(out, " store RM[%u]/%u", d->stream_base, d->stream_pitch);
    if (f & XN_ISA_SIGN)
        fputs(" sign", out);
    if (f & XN_ISA_QUANTIZE)
        fprintf(out, " %s>>%u", f & XN_ISA_UNSIGNED ? "u8" : "i8", d->shift >> 8);
    if (f & XN_ISA_LOGITS)
        fputs(" logits", out);
    if (f & (XN_ISA_SIGN | XN_ISA_QUANTIZE) || d->op == XN_ISA_LARGEST)
        fprintf(out, " AM[%u]+%u/%u", d->dest_base, d->dest_group, d->dest_pitch);
    if (d->flags & XN_ISA_BATCH && d->op == XN_ISA_LARGEST)
        fprintf(out, " at %u an image, %u wide", d->dest_step, d->dest_width);
}

static void put_line(const struct xn_engine_program *p, uint32_t i, FILE *out)
{
    const struct xn_isa_descriptor *d = &p->descriptors[i];
    const struct xn_engine_pass *pass = &p->passes[i];

    fprintf(out, "%4u %-6s", i, op_names[d->op]);
    if (d->op == XN_ISA_END || d->op == XN_ISA_TURN) {
        fprintf(out, d->op == XN_ISA_TURN ? "  of %u images: from here on once for all of them\n" : "\n", d->out_w);
        return;
    }
    fprintf(out, " %-24s", p->network->layers[pass->first_layer].name);
    if (d->op == XN_ISA_INPUT) {
        fprintf(out, "  %u rows of %u bytes, %u every %u from %d -> AM[%u]/%u %ux%u\n", d->height, d->input_row_bytes,
                d->channels, d->stride_w, -(int)d->pad_left, d->dest_base, d->dest_pitch, d->height, d->out_w);
        return;
    }
    put_window(d, out);
    put_post(d, out);
    if (d->chunk && d->chunk < xn_isa_steps(d))
        fprintf(out, " chunks of %u", d->chunk);
    fprintf(out, "  (layers %u..%u, %" PRIu64 " bytes)\n", pass->first_layer, pass->last_layer, pass->stream_bytes);
}

void xn_engine_disassemble(const struct xn_engine_program *p, FILE *out)
{
    char geometry[160];

    xn_engine_geometry_print(&p->geometry, geometry, sizeof(geometry));
    fprintf(out, "; %s: %s\n", p->network->name, geometry);
    fprintf(out, "; %u passes, %zu bytes of stream, AM %u of %u rows, RM %u of %u rows\n", p->n - 1, p->stream_bytes,
            p->am_rows_used, p->geometry.am_rows, p->rm_rows_used, p->geometry.rm_rows);
    for (uint32_t i = 0; i < p->n; i++)
        put_line(p, i, out);
}
