/* SPDX-License-Identifier: Apache-2.0
 * See trace.h. */
#include "daemon/http/trace.h"

#include <stdio.h>
#include <string.h>

#define SPAN_AT  36u /* 00-<32 digits>-<16 digits>-<2 digits> */
#define FLAGS_AT 53u
#define LENGTH   55u

/* `n` lower-case hexadecimal digits, not all of them 0 unless `zero`. */
static bool is_hex(const char *text, size_t n, bool zero)
{
    return strspn(text, "0123456789abcdef") >= n && (zero || strspn(text, "0") < n);
}

/* Later versions may go on behind the flags; version ff is none. */
static bool is_valid(const char *text)
{
    size_t n = strlen(text);

    if (n < LENGTH || text[2] != '-' || text[SPAN_AT - 1] != '-' || text[FLAGS_AT - 1] != '-')
        return false;
    if (!is_hex(text, 2, true) || memcmp(text, "ff", 2) == 0 || (n > LENGTH && memcmp(text, "00", 2) == 0))
        return false;
    return is_hex(text + XN_TRACE_ID_AT, XN_TRACE_ID_DIGITS, false) && is_hex(text + SPAN_AT, 16, false) &&
           is_hex(text + FLAGS_AT, 2, true) && (n == LENGTH || text[LENGTH] == '-');
}

bool xn_trace_continue(const char *traceparent, uint64_t span, char ret[XN_TRACEPARENT_BYTES])
{
    ret[0] = '\0';
    if (!traceparent || !is_valid(traceparent))
        return false;
    snprintf(ret, XN_TRACEPARENT_BYTES, "00-%.32s-%016llx-%.2s", traceparent + XN_TRACE_ID_AT, (unsigned long long)span,
             traceparent + FLAGS_AT);
    return true;
}

/* splitmix64: every step of the counter gives another number. */
uint64_t xn_trace_span(uint64_t seed, uint64_t n)
{
    uint64_t z = seed + n * UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return z ? z : 1;
}
