/* SPDX-License-Identifier: Apache-2.0
 * The log of slow requests: one structured line each, with where the time went. Off by default, and then one comparison. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "daemon/http/internal.h"

#define STAGES_BYTES 256u

static double ms(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns > from_ns ? (double)(to_ns - from_ns) / (double)XN_NS_PER_MS : 0;
}

/* Of the item that took longest in the queue and on the accelerator: items of one request may ride in different batches. */
static const struct xn_item *last_item(const struct xn_request *request)
{
    const struct xn_item *last = &request->items[0];

    for (uint32_t i = 1; i < request->n_items; i++) {
        if (request->items[i].execute_end_ns > last->execute_end_ns)
            last = &request->items[i];
    }
    return last;
}

/* Only items that have settled with 0 may be read: those of a failed request may still be with an accelerator. */
static void write_stages(const struct xn_call *call, uint64_t now_ns, char *ret, size_t capacity)
{
    const struct xn_request *request = call->request;
    const struct xn_item *item = last_item(request);

    snprintf(ret, capacity,
             "receive %.3f, decode %.3f, queue %.3f, execute %.3f, respond %.3f ms; %" PRIu32
             " images, the last in a batch of %" PRIu32 " on %s",
             ms(request->start_ns, request->received_ns),
             item->decode_start_ns ? ms(item->decode_start_ns, item->queued_ns) : 0,
             ms(item->queued_ns, item->execute_start_ns), ms(item->execute_start_ns, item->execute_end_ns),
             ms(item->execute_end_ns, now_ns), request->n_items, item->batch_size,
             xn_accel_info(call->http->next.instances->accel[item->instance])->name);
}

void xn_slow_log(const struct xn_call *call, int code, const struct xn_error *error)
{
    uint64_t limit_ns = call->http->config->log.slow_ms * XN_NS_PER_MS, now_ns = limit_ns ? xn_clock_now_ns() : 0;
    const struct xn_request *request = call->request;
    char trace_id[XN_TRACE_ID_DIGITS + 1] = "", stages[STAGES_BYTES];

    if (limit_ns == 0 || now_ns - request->start_ns < limit_ns)
        return;
    if (call->traceparent[0])
        memcpy(trace_id, call->traceparent + XN_TRACE_ID_AT, XN_TRACE_ID_DIGITS);
    if (code == 0)
        write_stages(call, now_ns, stages, sizeof(stages));
    else
        snprintf(stages, sizeof(stages), "failed: %.200s", error->text);
    struct xn_log_field fields[] = {
        {"MODEL", request->model->name}, {"REQUEST_ID", call->request_id}, {"TRACE_ID", trace_id}};
    xn_log_fields(XN_LOG_WARNING, fields, XN_ARRAY_LEN(fields), "slow request: %.3f ms: %s",
                  ms(request->start_ns, now_ns), stages);
}
