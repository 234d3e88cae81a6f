/* SPDX-License-Identifier: Apache-2.0
 * From layers to steps. A step is a convolution, fully connected, pooling, concatenation or logits layer, or a chain of
 * element-wise layers; a chain that follows a convolution becomes its epilogue. Chains grow greedily from the layer that
 * heads them. At a value v of the chain:
 *
 *   - every THRESHOLD that reads v joins as a stage that writes bits;
 *   - one SCALE, ADD or RPRELU that reads v continues the chain, if its other input is made by an earlier step; before a convolution is
 *     planned, what makes such an input (a shortcut) is, where it does not need that convolution;
 *   - if anybody else reads v, a stage stores it. The residual stream is such a value: stored once as int16, while its bits go on.
 *
 * A value that no step stores takes no memory. Each stored value lives in the arena from the step that makes it to the last that
 * reads it. A value added to the stream for the last time gives its place to the sum: both are walked pixel by pixel together.
 *
 * A value of bits gets the widest halo that any of its readers pads with, and popcounts of its pixels where the level sums pairs.
 */
#include "accel/cpu/plan.h"
#include "common/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct xn_cpu_blob {
    struct xn_cpu_blob *next;
    XN_ALIGNED(64) uint8_t memory[];
};

#define NO_SLOT UINT32_MAX
#define SCRATCH 3 /* areas that a step may need for itself, or have filled by the step before */

struct builder {
    const struct xn_network *network;
    struct xn_cpu_plan *plan;
    uint32_t *readers;      /* layers, grouped by the value they read */
    uint32_t *first_reader; /* [n_values + 1] into readers */
    bool *done;             /* [n_layers]: a step runs it */
    bool *waiting;          /* [n_layers]: a convolution whose shortcuts are being made */
    uint32_t *visited;      /* [n_layers]: by which search, of n_searches */
    uint32_t n_searches;
    uint32_t *made_by;            /* [n_values]: step */
    uint32_t *last_read_by;       /* [n_values]: step */
    bool *stored;                 /* [n_values] */
    uint32_t *slot_of;            /* [n_values]: NO_SLOT until it has one */
    struct xn_cpu_bits_map *maps; /* [n_values]: of bits; offsets within the slot, until resolved */
    struct xn_cpu_slot *slots;
    uint32_t n_slots;
    uint32_t *scratch; /* [steps][SCRATCH] slots of each step */
};

void *xn_cpu_plan_memory(struct xn_cpu_plan *plan, size_t count, size_t bytes)
{
    size_t total;
    if (!xn_mul_size(count, bytes, &total) || !xn_add_size(total, sizeof(struct xn_cpu_blob), &total))
        return NULL;
    struct xn_cpu_blob *blob = xn_calloc_aligned(1, total);
    if (!blob)
        return NULL;
    blob->next = plan->blobs;
    plan->blobs = blob;
    return blob->memory;
}

/* ---- who reads what --------------------------------------------------------------------------------------------------- */

static void find_readers(struct builder *b)
{
    const struct xn_network *network = b->network;

    for (uint32_t i = 0; i < network->n_layers; i++)
        for (uint32_t k = 0; k < network->layers[i].n_inputs; k++)
            b->first_reader[network->layers[i].inputs[k] + 1]++;
    for (uint32_t v = 0; v < network->n_values; v++)
        b->first_reader[v + 1] += b->first_reader[v];
    /* Filling moves each start to its end, which is the next one's start. */
    for (uint32_t i = 0; i < network->n_layers; i++)
        for (uint32_t k = 0; k < network->layers[i].n_inputs; k++)
            b->readers[b->first_reader[network->layers[i].inputs[k]]++] = i;
    memmove(b->first_reader + 1, b->first_reader, network->n_values * sizeof(uint32_t));
    b->first_reader[0] = 0;
}

/* ---- where bits lie --------------------------------------------------------------------------------------------------- */

/** Widen the halo of value `v` by what layer `i` needs. */
static void need_halo(struct builder *b, uint32_t v, uint32_t i)
{
    const struct xn_layer *layer = &b->network->layers[i];
    struct xn_cpu_bits_map *map = &b->maps[v];

    if (layer->op != XN_OP_CONV)
        return;
    const enum xn_cpu_conv_kind kind = xn_cpu_conv_kind_of(b->plan, i);
    if (kind != XN_CPU_CONV_DW_BITS && (kind != XN_CPU_CONV_BITS || layer->groups > 1))
        return; /* reads a copy */
    map->top = XN_MAX(map->top, layer->pad_top);
    map->left = XN_MAX(map->left, layer->pad_left);
    map->bottom = XN_MAX(map->bottom, layer->pad_bottom);
    map->right = XN_MAX(map->right, layer->pad_right);
    map->counts = map->counts || (kind == XN_CPU_CONV_BITS && b->plan->kernels->bits->pairs);
}

static size_t map_pixels(const struct xn_value *value, const struct xn_cpu_bits_map *map)
{
    return (size_t)(map->top + value->h + map->bottom) * map->pitch;
}

static size_t map_words_bytes(const struct xn_value *value, const struct xn_cpu_bits_map *map)
{
    return xn_align_up(map_pixels(value, map) * map->words * 8 + XN_CPU_MAP_TAIL, 64);
}

static void lay_out_bits(struct builder *b)
{
    for (uint32_t v = 0; v < b->network->n_values; v++) {
        const struct xn_value *value = &b->network->values[v];
        struct xn_cpu_bits_map *map = &b->maps[v];
        if (value->dtype != XN_DTYPE_BITS)
            continue;
        /* Of whole maps always: kernels that fuse chains count what they write. */
        map->counts = b->plan->kernels->bits->pairs && value->h * value->w > 1;
        for (uint32_t k = b->first_reader[v]; k < b->first_reader[v + 1]; k++)
            need_halo(b, v, b->readers[k]);
        map->words = (uint32_t)xn_div_up(value->c, 64);
        map->pitch = map->left + value->w + map->right;
        const size_t first = (size_t)map->top * map->pitch + map->left;
        map->offset = first * map->words * 8;
        map->counts_offset = map_words_bytes(value, map) + first * sizeof(int32_t);
    }
}

/** Bytes of a value in the arena. At most 8 words of halo pixels round each of 2^26 elements: no overflow in 64 bits. */
static size_t stored_bytes(const struct builder *b, uint32_t v)
{
    const struct xn_value *value = &b->network->values[v];
    const struct xn_cpu_bits_map *map = &b->maps[v];

    if (value->dtype != XN_DTYPE_BITS)
        return xn_value_bytes(value) + XN_CPU_MAP_TAIL;
    return map_words_bytes(value, map) + (map->counts ? map_pixels(value, map) * sizeof(int32_t) + XN_CPU_MAP_TAIL : 0);
}

/* ---- chains ----------------------------------------------------------------------------------------------------------- */

static struct xn_cpu_stage *next_stage(struct xn_cpu_chain *chain)
{
    return &chain->stages[chain->n_stages];
}

/** Add layer `i` to the chain of step `step`, its residual being `residual` (a value; 0: none). */
static int add_layer(struct builder *b, uint32_t step, uint32_t i, uint32_t residual)
{
    struct xn_cpu_stage *stage = next_stage(&b->plan->steps[step].chain);
    int r = xn_cpu_pack_stage(b->plan, i, stage);
    if (r < 0)
        return r;
    b->plan->steps[step].chain.n_stages++;
    b->done[i] = true;
    b->made_by[i + 1] = step;
    stage->residual_value = residual;
    if (stage->op == XN_CPU_STAGE_BITS) {
        stage->value = i + 1;
        b->stored[i + 1] = true;
    }
    if (residual)
        b->last_read_by[residual] = step;
    return 0;
}

static void add_store(struct builder *b, uint32_t step, uint32_t value)
{
    struct xn_cpu_chain *chain = &b->plan->steps[step].chain;
    *next_stage(chain) =
        (struct xn_cpu_stage){.op = XN_CPU_STAGE_STORE, .dtype = b->network->values[value].dtype, .value = value};
    chain->n_stages++;
    b->stored[value] = true;
}

/** Is layer `i` one that a chain at `value` can go on with? *ret_residual: its other input, 0 where it has none. */
static bool continues(const struct builder *b, uint32_t i, uint32_t value, uint32_t *ret_residual)
{
    const struct xn_layer *layer = &b->network->layers[i];

    *ret_residual = 0;
    switch (layer->op) {
    case XN_OP_RPRELU:
        return !b->done[i];
    case XN_OP_SCALE:
        *ret_residual = layer->n_inputs == 2 ? layer->inputs[1] : 0;
        return !b->done[i] && layer->inputs[0] == value;
    case XN_OP_ADD:
        *ret_residual = layer->inputs[layer->inputs[0] == value];
        return !b->done[i];
    default:
        return false;
    }
}

/** Can layer `i` go on from `value` in step `step`? Not if it needs what this very step makes, or a later one. */
static bool can_continue(const struct builder *b, uint32_t i, uint32_t value, uint32_t step, uint32_t *ret_residual)
{
    uint32_t residual;
    if (!continues(b, i, value, &residual))
        return false;
    *ret_residual = residual;
    return residual == 0 || (b->done[residual - 1] && b->made_by[residual] < step);
}

/** Let the chain of `step`, now at `value`, take in what follows. */
static int grow_chain(struct builder *b, uint32_t step, uint32_t value)
{
    struct xn_cpu_chain *chain = &b->plan->steps[step].chain;

    while (value) {
        uint32_t next = 0, others = 0, residual = 0, next_residual = 0;
        for (uint32_t k = b->first_reader[value]; k < b->first_reader[value + 1]; k++) {
            const uint32_t i = b->readers[k];
            const bool room = chain->n_stages + 2 < XN_CPU_STAGES_MAX; /* a store and a successor */
            if (room && !b->done[i] && b->network->layers[i].op == XN_OP_THRESHOLD) {
                int r = add_layer(b, step, i, 0);
                if (r < 0)
                    return r;
            } else if (room && !next && can_continue(b, i, value, step, &residual)) {
                next = i + 1;
                next_residual = residual;
            } else {
                others++;
            }
        }
        if (others)
            add_store(b, step, value);
        if (next) {
            int r = add_layer(b, step, next - 1, next_residual);
            if (r < 0)
                return r;
        }
        value = next;
    }
    return 0;
}

/* ---- steps ------------------------------------------------------------------------------------------------------------ */

static void reads(struct builder *b, uint32_t step, uint32_t value)
{
    b->last_read_by[value] = step;
}

static void need_scratch(struct builder *b, uint32_t step, uint32_t which, size_t bytes)
{
    b->slots[b->n_slots] = (struct xn_cpu_slot){.bytes = bytes, .first = step, .last = step};
    b->scratch[step * SCRATCH + which] = b->n_slots++;
}

/** A step that runs layer `i` from now on: its index. */
static uint32_t add_step(struct builder *b, uint32_t i)
{
    const uint32_t step = b->plan->n_steps++;
    b->plan->steps[step].layer = i;
    b->plan->steps[step].h = xn_layer_output(b->network, i)->h;
    return step;
}

/** A step that copies what layer `i` reads. */
static void step_copy(struct builder *b, uint32_t i, const struct xn_cpu_copy *copy)
{
    const uint32_t step = add_step(b, i), value = b->network->layers[i].inputs[0];
    struct xn_cpu_step *s = &b->plan->steps[step];

    s->kind = XN_CPU_STEP_COPY;
    s->h = copy->h;
    s->copy = *copy;
    s->copy.in.value = value;
    reads(b, step, value);
    need_scratch(b, step, 0, copy->bytes);
    b->slots[b->scratch[step * SCRATCH]].last = step + 1;
}

/** Does `chain` write bits to a map that has counts (`counted`), or that has none? */
static bool writes_bits(const struct builder *b, const struct xn_cpu_chain *chain, bool counted)
{
    for (uint32_t k = 0; k < chain->n_stages; k++)
        if (chain->stages[k].op == XN_CPU_STAGE_BITS && b->maps[chain->stages[k].value].counts == counted)
            return true;
    return false;
}

static int make_step(struct builder *b, uint32_t i);

/** Does what layer `i` makes need a convolution whose shortcuts are being made? */
static bool needs_waiting(struct builder *b, uint32_t i)
{
    const struct xn_layer *layer = &b->network->layers[i];

    if (b->waiting[i])
        return true;
    if (b->done[i] || b->visited[i] == b->n_searches)
        return false;
    b->visited[i] = b->n_searches;
    for (uint32_t k = 0; k < layer->n_inputs; k++)
        if (layer->inputs[k] && needs_waiting(b, layer->inputs[k] - 1))
            return true;
    return false;
}

/** Steps for layer `i` and all that it needs, where there are none yet. */
static int make_with_inputs(struct builder *b, uint32_t i)
{
    const struct xn_layer *layer = &b->network->layers[i];
    int r = 0;
    for (uint32_t k = 0; r == 0 && k < layer->n_inputs; k++)
        if (layer->inputs[k] && !b->done[layer->inputs[k] - 1])
            r = make_with_inputs(b, layer->inputs[k] - 1);
    return r < 0 || b->done[i] ? r : make_step(b, i);
}

/** Before convolution `i`: steps for what its chain will add, which may stand behind it in the file. */
static int make_shortcuts(struct builder *b, uint32_t i)
{
    for (uint32_t value = i + 1, next; value; value = next) {
        next = 0;
        for (uint32_t k = b->first_reader[value]; k < b->first_reader[value + 1] && !next; k++) {
            const uint32_t reader = b->readers[k];
            uint32_t residual;
            if (!continues(b, reader, value, &residual))
                continue;
            next = reader + 1;
            b->n_searches++;
            if (!residual || b->done[residual - 1] || needs_waiting(b, residual - 1))
                continue;
            const int r = make_with_inputs(b, residual - 1);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int step_conv(struct builder *b, uint32_t i)
{
    const struct xn_layer *layer = &b->network->layers[i];
    const struct xn_value *out = xn_layer_output(b->network, i);
    struct xn_cpu_conv conv;
    struct xn_cpu_copy copy;
    b->waiting[i] = true;
    int r = make_shortcuts(b, i);
    b->waiting[i] = false;
    b->done[i] = true;
    if (r == 0)
        r = xn_cpu_pack_conv(b->plan, i, &b->maps[layer->inputs[0]], &conv, &copy);
    if (r < 0)
        return r;
    if (copy.bytes)
        step_copy(b, i, &copy);
    const uint32_t step = add_step(b, i);
    struct xn_cpu_step *s = &b->plan->steps[step];
    s->kind = XN_CPU_STEP_CONV;
    s->conv = conv;
    s->chain.c = out->c;
    s->chain.row_pitch = xn_align_up(out->c, XN_CPU_CHUNK);
    b->made_by[i + 1] = step;
    if (copy.bytes) {
        s->conv.in.value = XN_CPU_SCRATCH;
    } else {
        s->conv.in.value = layer->inputs[0];
        reads(b, step, layer->inputs[0]);
    }
    const size_t pixels = (size_t)out->h * out->w * conv.groups;
    if (conv.pairs)
        need_scratch(b, step, 0, pixels * sizeof(int32_t));
    if (conv.bias)
        need_scratch(b, step, 2, pixels * sizeof(uint32_t));
    if (conv.groups > 1)
        need_scratch(b, step, 1, (s->chain.row_pitch + XN_CPU_CHUNK) * XN_CPU_TILE_MAX * sizeof(int32_t));
    r = grow_chain(b, step, i + 1);
    if (r < 0)
        return r;
    /* Chunks of one row may go to different threads where no two of them count the same pixel's bits. */
    s->by_chunk = s->conv.whole && !writes_bits(b, &s->chain, true);
    r = xn_cpu_slice(b->plan, &s->chain, conv.stride_h, conv.stride_w, &s->conv);
    if (r < 0)
        return r;
    r = xn_cpu_narrow(b->plan, &s->chain,
                      !conv.bias || conv.groups > 1 ? XN_CPU_ROWS_NUMBERS
                      : conv.pairs                  ? XN_CPU_ROWS_PAIRS
                                                    : XN_CPU_ROWS_COUNTS,
                      XN_DTYPE_I32, out->min, out->max, &conv);
    if (writes_bits(b, &s->chain, false)) /* kernels that fuse a chain count the bits that they write */
        s->chain.fused = XN_CPU_FUSED_NONE;
    return r;
}

/** Element-wise layers that no convolution took. */
static int step_chain(struct builder *b, uint32_t i)
{
    const struct xn_layer *layer = &b->network->layers[i];
    const struct xn_value *in = xn_layer_input(b->network, i, 0);
    const uint32_t step = add_step(b, i);
    struct xn_cpu_step *s = &b->plan->steps[step];

    s->kind = XN_CPU_STEP_CHAIN;
    s->rows.in.value = layer->inputs[0];
    s->rows.dtype = in->dtype;
    s->rows.w = in->w;
    s->chain.c = in->c;
    s->chain.row_pitch = xn_align_up(in->c, XN_CPU_CHUNK);
    reads(b, step, layer->inputs[0]);
    int r = add_layer(b, step, i, layer->n_inputs == 2 ? layer->inputs[1] : 0);
    if (r == 0 && layer->op != XN_OP_THRESHOLD)
        r = grow_chain(b, step, i + 1);
    if (r < 0)
        return r;
    return xn_cpu_narrow(b->plan, &s->chain, XN_CPU_ROWS_NUMBERS, in->dtype, in->min, in->max, NULL);
}

static int step_pool(struct builder *b, uint32_t i)
{
    const struct xn_layer *layer = &b->network->layers[i];
    const struct xn_value *in = xn_layer_input(b->network, i, 0), *out = xn_layer_output(b->network, i);
    const bool global = layer->op == XN_OP_GLOBAL_AVGPOOL;
    const uint32_t step = add_step(b, i);
    struct xn_cpu_step *s = &b->plan->steps[step];

    s->kind = layer->op == XN_OP_MAXPOOL ? XN_CPU_STEP_MAX_POOL : XN_CPU_STEP_AVERAGE_POOL;
    s->map_pool.in.value = layer->inputs[0];
    s->map_pool.pool = (struct xn_cpu_pool){
        .dtype = in->dtype,
        .out_dtype = out->dtype,
        .in_h = in->h,
        .in_w = in->w,
        .c = in->c,
        .out_h = out->h,
        .out_w = out->w,
        .in_pitch = in->w,
        .out_pitch = out->w,
        .kernel_h = global ? in->h : layer->kernel_h,
        .kernel_w = global ? in->w : layer->kernel_w,
        .stride_h = global ? 1 : layer->stride_h,
        .stride_w = global ? 1 : layer->stride_w,
        .pad_top = global ? 0 : layer->pad_top,
        .pad_left = global ? 0 : layer->pad_left,
        .multiplier = layer->multiplier,
        .shift = layer->shift,
    };
    reads(b, step, layer->inputs[0]);
    b->made_by[i + 1] = step;
    b->stored[i + 1] = true;
    return 0;
}

static int step_concat(struct builder *b, uint32_t i)
{
    const struct xn_layer *layer = &b->network->layers[i];
    const struct xn_value *out = xn_layer_output(b->network, i);
    const uint32_t step = add_step(b, i);
    struct xn_cpu_step *s = &b->plan->steps[step];

    s->kind = XN_CPU_STEP_CONCAT;
    s->concat =
        (struct xn_cpu_concat){.n = layer->n_inputs, .h = out->h, .w = out->w, .out_c = out->c, .dtype = out->dtype};
    for (uint32_t k = 0; k < layer->n_inputs; k++) {
        s->concat.in[k].value = layer->inputs[k];
        s->concat.c[k] = xn_layer_input(b->network, i, k)->c;
        reads(b, step, layer->inputs[k]);
    }
    b->made_by[i + 1] = step;
    b->stored[i + 1] = true;
    return 0;
}

static int step_logits(struct builder *b, uint32_t i)
{
    const struct xn_layer *layer = &b->network->layers[i];
    const struct xn_value *in = xn_layer_input(b->network, i, 0);
    const uint32_t step = add_step(b, i);
    struct xn_cpu_step *s = &b->plan->steps[step];

    s->kind = XN_CPU_STEP_LOGITS;
    s->logits = (struct xn_cpu_logits){.in = {.value = layer->inputs[0]},
                                       .dtype = in->dtype,
                                       .n = in->c,
                                       .m = layer->tensors[0]->data,
                                       .b = layer->tensors[1]->data};
    reads(b, step, layer->inputs[0]);
    return 0;
}

static int make_step(struct builder *b, uint32_t i)
{
    const enum xn_op op = b->network->layers[i].op;

    b->done[i] = op != XN_OP_CONV && op != XN_OP_DENSE; /* which make their shortcuts first */
    switch (op) {
    case XN_OP_CONV:
    case XN_OP_DENSE:
        return step_conv(b, i);
    case XN_OP_THRESHOLD:
    case XN_OP_SCALE:
    case XN_OP_ADD:
    case XN_OP_RPRELU:
        return step_chain(b, i);
    case XN_OP_MAXPOOL:
    case XN_OP_AVGPOOL:
    case XN_OP_GLOBAL_AVGPOOL:
        return step_pool(b, i);
    case XN_OP_CONCAT:
        return step_concat(b, i);
    case XN_OP_LOGITS:
        return step_logits(b, i);
    }
    return -ENOTSUP;
}

/* ---- the arena -------------------------------------------------------------------------------------------------------- */

/** The residual whose place the store at stage `at` can take over; 0: none. It is read here for the last time, by the same
 *  walk over the same pixels, and by no stage after the store. */
static uint32_t inherits(const struct builder *b, uint32_t step, uint32_t at)
{
    const struct xn_cpu_chain *chain = &b->plan->steps[step].chain;
    uint32_t heir = 0;

    if (chain->stages[at].op != XN_CPU_STAGE_STORE || chain->stages[at].dtype != XN_DTYPE_I16)
        return 0;
    for (uint32_t s = 0; s < at; s++) {
        uint32_t v = chain->stages[s].residual_value;
        if (v && b->last_read_by[v] == step)
            heir = v;
    }
    for (uint32_t s = 0; s < chain->n_stages; s++) {
        const bool reads_later = s > at && chain->stages[s].residual_value == heir;
        const bool given_away =
            s < at && chain->stages[s].value && b->slot_of[chain->stages[s].value] == b->slot_of[heir];
        if (reads_later || given_away)
            return 0;
    }
    return heir;
}

static void give_slot(struct builder *b, uint32_t value, uint32_t from)
{
    if (from) {
        b->slot_of[value] = b->slot_of[from];
        struct xn_cpu_slot *slot = &b->slots[b->slot_of[value]];
        slot->last = XN_MAX(slot->last, b->last_read_by[value]);
        return;
    }
    b->slot_of[value] = b->n_slots;
    b->slots[b->n_slots++] = (struct xn_cpu_slot){.bytes = stored_bytes(b, value),
                                                  .first = b->made_by[value],
                                                  .last = XN_MAX(b->last_read_by[value], b->made_by[value])};
}

static void give_slots(struct builder *b)
{
    for (uint32_t step = 0; step < b->plan->n_steps; step++) {
        const struct xn_cpu_step *s = &b->plan->steps[step];
        if (s->kind == XN_CPU_STEP_CONV || s->kind == XN_CPU_STEP_CHAIN) {
            for (uint32_t k = 0; k < s->chain.n_stages; k++)
                if (s->chain.stages[k].value)
                    give_slot(b, s->chain.stages[k].value, inherits(b, step, k));
        } else if (s->kind != XN_CPU_STEP_COPY && b->stored[s->layer + 1]) {
            give_slot(b, s->layer + 1, 0);
        }
    }
}

static size_t offset_of(const struct builder *b, uint32_t value)
{
    return value ? b->slots[b->slot_of[value]].offset : 0;
}

static size_t scratch_offset(const struct builder *b, uint32_t step, uint32_t which)
{
    uint32_t slot = b->scratch[step * SCRATCH + which];
    return slot == NO_SLOT ? 0 : b->slots[slot].offset;
}

/** The map of value `v` in the arena. */
static struct xn_cpu_bits_map map_of(const struct builder *b, uint32_t v)
{
    struct xn_cpu_bits_map map = b->maps[v];
    map.offset += offset_of(b, v);
    map.counts_offset += offset_of(b, v);
    return map;
}

static void resolve_chain(struct builder *b, struct xn_cpu_chain *chain)
{
    for (uint32_t k = 0; k < chain->n_stages; k++) {
        struct xn_cpu_stage *stage = &chain->stages[k];
        stage->out_offset = offset_of(b, stage->value);
        stage->residual_offset = offset_of(b, stage->residual_value);
        if (stage->op == XN_CPU_STAGE_BITS)
            stage->bits = map_of(b, stage->value);
    }
}

static void resolve_source(struct builder *b, struct xn_cpu_source *source)
{
    source->offset = offset_of(b, source->value);
    if (source->value && b->network->values[source->value].dtype == XN_DTYPE_BITS) {
        source->bits = map_of(b, source->value);
        source->offset = source->bits.offset;
    }
}

static void resolve_copy(struct builder *b, uint32_t step, struct xn_cpu_copy *copy)
{
    resolve_source(b, &copy->in);
    copy->offset = scratch_offset(b, step, 0);
    copy->counts_offset += copy->offset;
}

static void resolve_conv(struct builder *b, uint32_t step, struct xn_cpu_conv *conv)
{
    if (conv->in.value == XN_CPU_SCRATCH) {
        const struct xn_cpu_copy *copy = &b->plan->steps[step - 1].copy;
        conv->in.offset = copy->offset;
        conv->counts_origin += copy->counts_offset;
    } else {
        resolve_source(b, &conv->in);
        conv->counts_origin += conv->in.bits.counts_offset;
    }
    conv->in.offset += conv->origin;
    conv->init_offset = scratch_offset(b, step, 0);
    conv->class_offset = scratch_offset(b, step, 2);
    conv->acc_offset = scratch_offset(b, step, 1);
}

static void resolve_offsets(struct builder *b)
{
    for (uint32_t step = 0; step < b->plan->n_steps; step++) {
        struct xn_cpu_step *s = &b->plan->steps[step];
        switch (s->kind) {
        case XN_CPU_STEP_COPY:
            resolve_copy(b, step, &s->copy);
            break;
        case XN_CPU_STEP_CONV:
            resolve_conv(b, step, &s->conv);
            resolve_chain(b, &s->chain);
            break;
        case XN_CPU_STEP_CHAIN:
            resolve_source(b, &s->rows.in);
            resolve_chain(b, &s->chain);
            break;
        case XN_CPU_STEP_MAX_POOL:
        case XN_CPU_STEP_AVERAGE_POOL:
            resolve_source(b, &s->map_pool.in);
            s->map_pool.out_offset = offset_of(b, s->layer + 1);
            s->map_pool.out_bits = map_of(b, s->layer + 1);
            break;
        case XN_CPU_STEP_CONCAT:
            for (uint32_t k = 0; k < s->concat.n; k++)
                resolve_source(b, &s->concat.in[k]);
            s->concat.out_offset = offset_of(b, s->layer + 1);
            s->concat.out_bits = map_of(b, s->layer + 1);
            break;
        case XN_CPU_STEP_LOGITS:
            resolve_source(b, &s->logits.in);
            break;
        }
    }
}

/* ---- all of it -------------------------------------------------------------------------------------------------------- */

static void builder_done(struct builder *b)
{
    free(b->readers);
    free(b->first_reader);
    free(b->done);
    free(b->waiting);
    free(b->visited);
    free(b->made_by);
    free(b->last_read_by);
    free(b->stored);
    free(b->slot_of);
    free(b->maps);
    free(b->slots);
    free(b->scratch);
}

static int builder_init(struct builder *b, const struct xn_network *network, struct xn_cpu_plan *plan)
{
    uint32_t n_inputs = 0;
    for (uint32_t i = 0; i < network->n_layers; i++)
        n_inputs += network->layers[i].n_inputs;
    const size_t values = network->n_values, layers = network->n_layers, steps = 2 * layers; /* a copy each, at most */

    *b = (struct builder){
        .network = network,
        .plan = plan,
        .readers = xn_calloc(n_inputs, sizeof(uint32_t)),
        .first_reader = xn_calloc(values + 1, sizeof(uint32_t)),
        .done = xn_calloc(layers, sizeof(bool)),
        .waiting = xn_calloc(layers, sizeof(bool)),
        .visited = xn_calloc(layers, sizeof(uint32_t)),
        .made_by = xn_calloc(values, sizeof(uint32_t)),
        .last_read_by = xn_calloc(values, sizeof(uint32_t)),
        .stored = xn_calloc(values, sizeof(bool)),
        .slot_of = xn_calloc(values, sizeof(uint32_t)),
        .maps = xn_calloc(values, sizeof(struct xn_cpu_bits_map)),
        .slots = xn_calloc(values + SCRATCH * steps, sizeof(struct xn_cpu_slot)),
        .scratch = xn_calloc(SCRATCH * steps, sizeof(uint32_t)),
    };
    plan->steps = xn_calloc(steps, sizeof(*plan->steps));
    if (!b->readers || !b->first_reader || !b->done || !b->waiting || !b->visited || !b->made_by || !b->last_read_by ||
        !b->stored || !b->slot_of || !b->maps || !b->slots || !b->scratch || !plan->steps)
        return -ENOMEM;
    memset(b->slot_of, 0xff, values * sizeof(uint32_t));
    memset(b->scratch, 0xff, SCRATCH * steps * sizeof(uint32_t));
    find_readers(b);
    lay_out_bits(b);
    return 0;
}

static int build(struct builder *b)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < b->network->n_layers; i++)
        if (!b->done[i])
            r = make_step(b, i);
    if (r < 0)
        return r;
    give_slots(b);
    r = xn_cpu_arena_place(b->slots, b->n_slots, &b->plan->arena_bytes);
    if (r == 0)
        resolve_offsets(b);
    return r;
}

int xn_cpu_plan_new(const struct xn_network *network, const struct xn_cpu_kernels *kernels,
                    struct xn_cpu_plan **ret_plan, struct xn_error *error)
{
    struct builder b = {0};
    struct xn_cpu_plan *plan = xn_calloc(1, sizeof(*plan));
    int r = plan ? 0 : -ENOMEM;

    if (r == 0) {
        plan->network = network;
        plan->kernels = kernels;
        r = builder_init(&b, network, plan);
    }
    if (r == 0)
        r = build(&b);
    builder_done(&b);
    if (r < 0) {
        xn_cpu_plan_free(plan);
        return r == -ENOMEM ? xn_error_set(error, r, "cpu: no memory to load model \"%s\"", network->name)
                            : xn_error_set(error, r, "cpu: model \"%s\" has an operation that this backend cannot run",
                                           network->name);
    }
    *ret_plan = plan;
    return 0;
}

struct xn_cpu_blob *xn_cpu_blob_free(struct xn_cpu_blob *blob)
{
    struct xn_cpu_blob *next = blob->next;
    free(blob);
    return next;
}

void xn_cpu_plan_free(struct xn_cpu_plan *plan)
{
    if (!plan)
        return;
    while (plan->blobs)
        plan->blobs = xn_cpu_blob_free(plan->blobs);
    free(plan->steps);
    free(plan);
}
