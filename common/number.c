/* SPDX-License-Identifier: Apache-2.0
 * See number.h. strtoull alone would take signs, blanks and what follows the number. */
#include "common/number.h"

#include <errno.h>
#include <stdlib.h>

bool xn_number_u64(const char *text, uint64_t low, uint64_t high, uint64_t *ret)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || value < low || value > high)
        return false;
    *ret = value;
    return true;
}
