/* SPDX-License-Identifier: Apache-2.0
 * A host, and what it has in card memory, may be wrong or malicious; the card's process must not care.
 *
 *   - The program is copied before it is looked at: what is checked is what runs.
 *   - No register tells how long it or the stream is. The program is read to its END, at most XN_ISA_DESCRIPTORS_MAX and not beyond memory;
 *     its descriptors say how much of the stream they read. What of that lies beyond memory a simulator is not given, and stops the run.
 *   - The output goes to a buffer of our own first, so that a run that was stopped writes nothing, as after a real reset.
 *
 * Cycles are the cycle model's, which knows the hardware to the cycle, but for simulators that count themselves. */
#include "accel/vcard/job.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/engine/engine.h"

int xn_vcard_worker_init(struct xn_vcard_worker *worker, const struct xn_vcard_options *options,
                         const struct xn_vcard_memory *memory, struct xn_error *error)
{
    *worker = (struct xn_vcard_worker){.options = options, .memory = memory};
    worker->program = malloc(XN_ISA_DESCRIPTORS_MAX * sizeof(*worker->program));
    if (!worker->program)
        return xn_error_set(error, -ENOMEM, "out of memory");
    return xn_vcard_engine_init(&worker->engine, options->engine, &options->geometry, error);
}

void xn_vcard_worker_done(struct xn_vcard_worker *worker)
{
    xn_vcard_engine_done(&worker->engine);
    for (uint32_t i = 0; i < XN_VCARD_CYCLES_KEPT; i++)
        free(worker->kept[i].program);
    free(worker->program);
    free(worker->output);
}

/* ---- cycles -------------------------------------------------------------------------------------------------------- */

static const struct xn_vcard_cycles *find_kept(const struct xn_vcard_worker *w, const struct xn_vcard_arguments *a)
{
    for (uint32_t i = 0; i < XN_VCARD_CYCLES_KEPT; i++) {
        const struct xn_vcard_cycles *kept = &w->kept[i];
        if (kept->program && kept->n == w->n && kept->images == a->images && kept->input_bytes == a->input_bytes &&
            memcmp(kept->program, w->program, w->n * sizeof(*w->program)) == 0)
            return kept;
    }
    return NULL;
}

static void keep(struct xn_vcard_worker *w, const struct xn_vcard_arguments *a, uint64_t cycles)
{
    struct xn_vcard_cycles *kept = &w->kept[w->next_kept++ % XN_VCARD_CYCLES_KEPT];

    free(kept->program);
    *kept = (struct xn_vcard_cycles){malloc(w->n * sizeof(*w->program)), w->n, a->images, a->input_bytes, cycles};
    if (kept->program)
        memcpy(kept->program, w->program, w->n * sizeof(*w->program));
}

static uint64_t model_cycles(struct xn_vcard_worker *w, const struct xn_vcard_arguments *a)
{
    const struct xn_vcard_cycles *kept = find_kept(w, a);
    const struct xn_engine_program program = {.geometry = w->options->geometry,
                                              .descriptors = w->program,
                                              .n = w->n,
                                              .input_bytes = a->input_bytes,
                                              .output_words = a->output_words};

    if (a->images == 0)
        return 0;
    if (kept)
        return kept->cycles;
    const uint64_t cycles = xn_engine_cycles(&program, a->images, NULL);
    keep(w, a, cycles);
    return cycles;
}

/* ---- ranges -------------------------------------------------------------------------------------------------------- */

static struct xn_isa_status status_of(const struct xn_vcard_options *options, uint32_t error, uint32_t descriptor)
{
    struct xn_isa_status status = xn_isa_status_of(&options->geometry);

    status.error = error;
    status.descriptor = descriptor;
    return status;
}

/** The program into w->program, w->n of it with its END. A program without an end is all that the engine would read. False: it goes
 *  beyond memory. */
static bool fetch_program(struct xn_vcard_worker *w, uint64_t address)
{
    const uint64_t room = xn_vcard_memory_left(w->memory, address) / XN_ISA_DESCRIPTOR_BYTES;
    const uint8_t *from = xn_vcard_memory_at(w->memory, address, 0);
    bool in_tail = false;

    if (address % 64 != 0 || !from)
        return false;
    for (w->n = 0; w->n < XN_ISA_DESCRIPTORS_MAX; from += XN_ISA_DESCRIPTOR_BYTES) {
        if (w->n == room)
            return false;
        struct xn_isa_descriptor *d = &w->program[w->n++];
        memcpy(d, from, sizeof(*d));
        if (d->op == XN_ISA_END || (d->op == XN_ISA_TURN && in_tail))
            return true;
        in_tail |= d->op == XN_ISA_TURN;
    }
    return true;
}

/** Bytes of the stream that the program reads, to the first descriptor at which the engine would stop. */
static uint64_t stream_bytes(const struct xn_vcard_worker *w)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < w->n; i++) {
        const struct xn_isa_descriptor *d = &w->program[i];
        if (!xn_isa_has_stream(d))
            continue;
        if (xn_isa_check_shape(d, &w->options->geometry))
            break;
        bytes += xn_isa_ceil(d->channels, XN_ISA_LANES) * xn_isa_group_bytes(d);
    }
    return bytes;
}

/** Room for the run's output, filled with what lies there now. False: no memory. */
static bool take_output(struct xn_vcard_worker *w, const void *from, size_t words)
{
    if (words > w->output_room) {
        int32_t *grown = realloc(w->output, words * sizeof(*grown));
        if (!grown)
            return false;
        w->output = grown;
        w->output_room = words;
    }
    if (words > 0)
        memcpy(w->output, from, words * sizeof(*w->output));
    return true;
}

/** What a simulator is given. Returns 0, or the register whose address is wrong. */
static uint32_t make_job(struct xn_vcard_worker *w, const struct xn_vcard_arguments *a, struct xn_sim_job *ret_job)
{
    static const uint8_t none;
    const uint64_t input_bytes = (uint64_t)a->images * a->input_bytes;
    const uint64_t output_words = (uint64_t)a->images * a->output_words;
    const bool is_too_much = output_words > w->memory->size / sizeof(int32_t);
    const void *output = is_too_much ? NULL : xn_vcard_memory_at(w->memory, a->output, output_words * sizeof(int32_t));
    const void *input = xn_vcard_memory_at(w->memory, a->input, input_bytes);
    const void *stream = xn_vcard_memory_at(w->memory, a->stream, 0);

    if (!fetch_program(w, a->program))
        return XN_ISA_REG_PROGRAM;
    if (a->stream % 64 != 0)
        return XN_ISA_REG_STREAM;
    if (!input && input_bytes > 0)
        return XN_ISA_REG_INPUT;
    if (a->output % 4 != 0 || (!output && output_words > 0) || !take_output(w, output, output_words))
        return XN_ISA_REG_OUTPUT;
    *ret_job = (struct xn_sim_job){.program = w->program,
                                   .program_count = w->n,
                                   .stream = stream ? stream : &none,
                                   .stream_bytes = XN_MIN(stream_bytes(w), xn_vcard_memory_left(w->memory, a->stream)),
                                   .input = input ? input : &none,
                                   .input_bytes = a->input_bytes,
                                   .images = a->images,
                                   .output_words = a->output_words,
                                   .output = w->output};
    return 0;
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

/** What a run would say that computes nothing: the checks of the engine, image 0. */
static struct xn_isa_status check_only(const struct xn_vcard_worker *w, const struct xn_vcard_arguments *a)
{
    for (uint32_t i = 0; a->images > 0 && i < w->n; i++) {
        const uint32_t error = xn_isa_check(&w->program[i], &w->options->geometry, a->input_bytes, a->output_words, 0);
        if (error)
            return status_of(w->options, error, i);
    }
    const uint32_t last = w->program[w->n - 1].op;
    struct xn_isa_status status = last == XN_ISA_END || last == XN_ISA_TURN
                                      ? status_of(w->options, XN_ISA_OK, 0)
                                      : status_of(w->options, XN_ISA_ERROR_LENGTH, XN_ISA_DESCRIPTORS_MAX);
    status.image = a->images;
    return status;
}

void xn_vcard_job_run(struct xn_vcard_worker *worker, const struct xn_vcard_arguments *arguments,
                      struct xn_vcard_result *ret_result)
{
    struct xn_sim_job job;
    const uint32_t wrong = make_job(worker, arguments, &job);
    struct xn_vcard_result result = {.output = worker->output};

    if (wrong) {
        result.status = status_of(worker->options, XN_VCARD_ERROR_BUS, wrong);
    } else if (worker->options->skips_compute) {
        result.status = check_only(worker, arguments);
    } else {
        result.output = worker->output;
        result.output_words = (size_t)arguments->images * arguments->output_words;
        if (worker->engine.run(worker->engine.sim, &job, &result.status) < 0)
            result.status = status_of(worker->options, XN_VCARD_ERROR_BUS, XN_ISA_REG_STREAM);
    }
    if (result.status.error == XN_ISA_OK && result.status.cycles == 0)
        result.status.cycles = model_cycles(worker, arguments);
    *ret_result = result;
}

void xn_vcard_job_publish(const struct xn_vcard_memory *memory, const struct xn_vcard_arguments *arguments,
                          const struct xn_vcard_result *result)
{
    const uint64_t output_bytes = result->output_words * sizeof(int32_t);
    void *output = xn_vcard_memory_at(memory, arguments->output, output_bytes);
    void *status = xn_vcard_memory_at(memory, arguments->status, sizeof(result->status));

    static_assert(sizeof(result->status) == 64, "as in card memory");
    if (output && output_bytes > 0)
        memcpy(output, result->output, output_bytes);
    if (status && arguments->status % 64 == 0)
        memcpy(status, &result->status, sizeof(result->status));
}
