/* SPDX-License-Identifier: Apache-2.0
 * Commands: what XRT's kernel driver does with a command buffer. A command names the units that may run it; it waits in the queue of
 * the least busy one. To start it its arguments are written into the unit's registers, then CONTROL. When the unit interrupts, CONTROL
 * (whose done bit reading clears) and ISR are read in one packet, the interrupt is acknowledged, the command completed and the next
 * one started, all on the reader's thread. States are in hal.h.
 *
 * XRT waits by looking at the state in the buffer whenever xclExecWait returns; every completion lets one xclExecWait return. */
#include "accel/vcard/hal.h"

#include <errno.h>
#include <time.h>

#include <ert.h>
#include <xrt.h>

#include "hls/include/xnor_isa.h"

#define STATE_MASK 0xfu
/** Of a command's data, in words: a unit's control registers, which are not arguments; and EXEC_WRITE's context. */
#define CONTROL_WORDS 4u
#define CONTEXT_WORDS 6u

static struct ert_start_kernel_cmd *packet_of(const struct xn_hal_buffer *buffer)
{
    return buffer->host;
}

/** XRT's threads look at the state without a lock. */
static void set_state(struct xn_hal_buffer *buffer, enum ert_cmd_state state)
{
    uint32_t *header = &packet_of(buffer)->header;

    __atomic_store_n(header, (__atomic_load_n(header, __ATOMIC_RELAXED) & ~STATE_MASK) | (uint32_t)state,
                     __ATOMIC_RELEASE);
}

static void complete_locked(struct xn_hal_device *device, struct xn_hal_buffer *buffer, enum ert_cmd_state state)
{
    set_state(buffer, state);
    device->completions++;
    pthread_cond_broadcast(&device->completed);
}

static uint64_t unit_address(const struct xn_hal_device *device, const struct xn_hal_unit *unit)
{
    return XN_VCARD_UNITS + (uint64_t)(unit - device->units) * XN_VCARD_UNIT_BYTES;
}

/* ---- queues -------------------------------------------------------------------------------------------------------- */

static void push(struct xn_hal_unit *unit, struct xn_hal_buffer *buffer)
{
    buffer->next_command = NULL;
    buffer->is_waiting = true;
    if (unit->last)
        unit->last->next_command = buffer;
    else
        unit->first = buffer;
    unit->last = buffer;
}

static struct xn_hal_buffer *pop(struct xn_hal_unit *unit)
{
    struct xn_hal_buffer *buffer = unit->first;

    if (buffer) {
        unit->first = buffer->next_command;
        if (!unit->first)
            unit->last = NULL;
        buffer->is_waiting = false;
    }
    return buffer;
}

/** Out of the queue, if it waits there. */
static void take_out(struct xn_hal_unit *unit, const struct xn_hal_buffer *buffer)
{
    struct xn_hal_buffer *waiting = unit->first;

    unit->first = unit->last = NULL;
    while (waiting) {
        struct xn_hal_buffer *next = waiting->next_command;
        waiting->is_waiting = false;
        if (waiting != buffer)
            push(unit, waiting);
        waiting = next;
    }
}

static uint32_t length(const struct xn_hal_unit *unit)
{
    uint32_t n = unit->is_busy;

    for (const struct xn_hal_buffer *b = unit->first; b; b = b->next_command)
        n++;
    return n;
}

/* ---- starting ------------------------------------------------------------------------------------------------------ */

/** Messages on their way, a packet at a time. */
struct writer {
    struct xn_hal_device *device;
    struct xn_vcard_message messages[XN_VCARD_PACKET_MESSAGES];
    size_t n;
    int result;
};

static void flush(struct writer *w)
{
    if (w->n > 0 && w->result == 0)
        w->result = xn_hal_send(w->device, w->messages, w->n);
    w->n = 0;
}

static void write_register(struct writer *w, uint64_t address, uint32_t value)
{
    if (w->n == XN_VCARD_PACKET_MESSAGES)
        flush(w);
    w->messages[w->n++] = (struct xn_vcard_message){XN_VCARD_WRITE, 0, address, value};
}

/** Arguments of `buffer`'s command, then start. */
static int write_command(struct xn_hal_device *device, uint64_t base, const struct xn_hal_buffer *buffer)
{
    const struct ert_start_kernel_cmd *packet = packet_of(buffer);
    const uint32_t *words = packet->data + packet->extra_cu_masks;
    const uint32_t n = packet->count - 1u - packet->extra_cu_masks;
    struct writer w = {.device = device};

    if (packet->opcode == ERT_EXEC_WRITE)
        for (uint32_t i = CONTEXT_WORDS; i + 1 < n; i += 2)
            write_register(&w, base + words[i], words[i + 1]);
    else
        for (uint32_t i = CONTROL_WORDS; i < n; i++)
            write_register(&w, base + 4 * (uint64_t)i, words[i]);
    write_register(&w, base + XN_ISA_REG_CONTROL, XN_VCARD_CTRL_START);
    flush(&w);
    return w.result;
}

/** The next waiting command, if there is one and the unit is idle. A card that takes no message is dead: the reader will find out. */
static void start_next_locked(struct xn_hal_device *device, struct xn_hal_unit *unit)
{
    while (!unit->is_busy && unit->first) {
        struct xn_hal_buffer *buffer = pop(unit);
        set_state(buffer, ERT_CMD_STATE_RUNNING);
        if (write_command(device, unit_address(device, unit), buffer) == 0) {
            unit->is_busy = true;
            unit->current = buffer;
        } else {
            complete_locked(device, buffer, ERT_CMD_STATE_ABORT);
        }
    }
}

/* ---- what the card says -------------------------------------------------------------------------------------------- */

void xn_hal_on_interrupt_locked(struct xn_hal_device *device, uint64_t unit)
{
    if (unit >= XN_VCARD_UNITS_MAX)
        return;
    const uint32_t tag = XN_HAL_UNIT_TAGS | (uint32_t)unit << 1;
    const uint64_t base = unit_address(device, &device->units[unit]);
    const struct xn_vcard_message reads[] = {{XN_VCARD_READ, tag, base + XN_ISA_REG_CONTROL, 0},
                                             {XN_VCARD_READ, tag | 1, base + XN_VCARD_REG_ISR, 0}};
    XN_UNUSED const int r = xn_hal_send(device, reads, XN_ARRAY_LEN(reads)); /* a dead card: the reader finds out */
}

void xn_hal_on_register_locked(struct xn_hal_device *device, uint32_t tag, uint32_t value)
{
    struct xn_hal_unit *unit = &device->units[(tag & ~XN_HAL_UNIT_TAGS) >> 1 & (XN_VCARD_UNITS_MAX - 1)];

    if (!(tag & 1)) {
        unit->control = value;
        return;
    }
    if (value && value != XN_VCARD_NOBODY) {
        const struct xn_vcard_message clear = {XN_VCARD_WRITE, 0, unit_address(device, unit) + XN_VCARD_REG_ISR, value};
        XN_UNUSED const int r = xn_hal_send(device, &clear, 1);
    }
    if (unit->is_busy && unit->control & XN_VCARD_CTRL_DONE && unit->control != XN_VCARD_NOBODY) {
        struct xn_hal_buffer *buffer = unit->current;
        unit->is_busy = false;
        unit->current = NULL;
        if (buffer)
            complete_locked(device, buffer, ERT_CMD_STATE_COMPLETED);
    }
    start_next_locked(device, unit);
}

void xn_hal_abort_unit_locked(struct xn_hal_device *device, struct xn_hal_unit *unit)
{
    struct xn_hal_buffer *buffer = unit->current;

    unit->is_busy = false;
    unit->current = NULL;
    if (buffer)
        complete_locked(device, buffer, ERT_CMD_STATE_ABORT);
    while ((buffer = pop(unit)) != NULL)
        complete_locked(device, buffer, ERT_CMD_STATE_ABORT);
}

void xn_hal_abort_all_locked(struct xn_hal_device *device)
{
    for (uint32_t i = 0; i < XN_VCARD_UNITS_MAX; i++)
        xn_hal_abort_unit_locked(device, &device->units[i]);
}

/** What was started before this was heard, also after the card's reset, is stopped by closing and opening the unit in one packet; then its
 *  interrupts are switched on again. */
void xn_hal_on_stopped_locked(struct xn_hal_device *device)
{
    xn_hal_abort_all_locked(device);
    for (uint32_t i = 0; i < XN_VCARD_UNITS_MAX; i++) {
        const uint64_t base = unit_address(device, &device->units[i]);
        const struct xn_vcard_message messages[] = {{XN_VCARD_CLOSE_UNIT, XN_HAL_NO_TAG, i, 0},
                                                    {XN_VCARD_OPEN_UNIT, XN_HAL_NO_TAG, i, 0},
                                                    {XN_VCARD_WRITE, 0, base + XN_VCARD_REG_GIE, 1},
                                                    {XN_VCARD_WRITE, 0, base + XN_VCARD_REG_IER, 1}};
        if (device->units[i].is_open && xn_hal_send(device, messages, XN_ARRAY_LEN(messages)) < 0)
            return; /* a dead card: the reader finds out */
    }
}

void xn_hal_forget_command_locked(struct xn_hal_device *device, struct xn_hal_buffer *buffer)
{
    for (uint32_t i = 0; i < XN_VCARD_UNITS_MAX; i++) {
        struct xn_hal_unit *unit = &device->units[i];
        if (unit->current == buffer)
            unit->current = NULL;
        if (buffer->is_waiting)
            take_out(unit, buffer);
    }
}

/* ---- what XRT calls ------------------------------------------------------------------------------------------------ */

/** The unit that runs it, or NULL. */
static struct xn_hal_unit *runner_of(struct xn_hal_device *device, const struct xn_hal_buffer *buffer)
{
    for (uint32_t i = 0; i < device->n_units; i++)
        if (device->units[i].current == buffer)
            return &device->units[i];
    return NULL;
}

static int execute_locked(struct xn_hal_device *device, struct xn_hal_buffer *buffer)
{
    const struct ert_start_kernel_cmd *packet = packet_of(buffer);
    struct xn_hal_unit *best = NULL;

    if (1u + packet->extra_cu_masks > packet->count || 4 * (packet->count + 1u) > buffer->bytes)
        return -EINVAL;
    if (buffer->is_waiting || runner_of(device, buffer))
        return -EBUSY;
    for (uint32_t i = 0; i < device->n_units; i++) {
        struct xn_hal_unit *unit = &device->units[i];
        if (packet->cu_mask >> i & 1 && unit->is_open && (!best || length(unit) < length(best)))
            best = unit;
    }
    if (!best)
        return -EINVAL;
    set_state(buffer, ERT_CMD_STATE_QUEUED);
    push(best, buffer);
    start_next_locked(device, best);
    return 0;
}

/** The command that `buffer` names completes as aborted. If it runs its unit goes on, to its end or a reset; whether it has come to its end, and
 *  only the interrupt was lost, is looked up. */
static int abort_locked(struct xn_hal_device *device, struct xn_hal_buffer *buffer)
{
    const struct ert_abort_cmd *packet = buffer->host;
    struct xn_hal_buffer *target =
        buffer->bytes < sizeof(*packet) ? NULL : xn_hal_buffer_locked(device, (uint32_t)packet->exec_bo_handle);

    if (!target || !target->is_command)
        return -EINVAL;
    const struct xn_hal_unit *runner = runner_of(device, target);
    if (target->is_waiting || runner) {
        xn_hal_forget_command_locked(device, target);
        if (runner)
            xn_hal_on_interrupt_locked(device, (uint64_t)(runner - device->units));
        complete_locked(device, target, ERT_CMD_STATE_ABORT);
    }
    complete_locked(device, buffer, ERT_CMD_STATE_COMPLETED);
    return 0;
}

int xclExecBuf(xclDeviceHandle handle, xclBufferHandle command)
{
    struct xn_hal_device *device = handle;
    int r = -EINVAL;

    pthread_mutex_lock(&device->lock);
    struct xn_hal_buffer *buffer = xn_hal_buffer_locked(device, command);
    if (device->is_dead)
        r = -ENODEV;
    else if (buffer && buffer->is_command)
        switch (packet_of(buffer)->opcode) {
        case ERT_START_CU:
        case ERT_EXEC_WRITE:
            r = execute_locked(device, buffer);
            break;
        case ERT_ABORT:
            r = abort_locked(device, buffer);
            break;
        case ERT_CONFIGURE:
            complete_locked(device, buffer, ERT_CMD_STATE_COMPLETED);
            r = 0;
            break;
        default:
            r = -EOPNOTSUPP;
        }
    pthread_mutex_unlock(&device->lock);
    return r;
}

static struct timespec in_ms(int ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

/** 0: nothing completed in that time, which is what XRT's own time-outs rest on; 1: something did, or the card is dead. */
int xclExecWait(xclDeviceHandle handle, int timeout_ms)
{
    struct xn_hal_device *device = handle;
    const struct timespec until = in_ms(timeout_ms);
    int r = 0;

    pthread_mutex_lock(&device->lock);
    while (!device->completions && !device->is_dead && r == 0)
        r = pthread_cond_clockwait(&device->completed, &device->lock, CLOCK_MONOTONIC, &until);
    const int got = device->completions > 0 || device->is_dead;
    if (device->completions)
        device->completions--;
    pthread_mutex_unlock(&device->lock);
    return got;
}
