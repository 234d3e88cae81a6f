/* SPDX-License-Identifier: Apache-2.0
 * Fault injection, and the allocator that every start-up allocation goes through so that it can be made to fail.
 *
 * Armed points live in a small table under one mutex: the build with XN_FAULTS is for tests, where being right
 * matters and speed does not. The build without it has no table at all. */
#include "common/fault.h"

#include <stdlib.h>
#include <string.h>

void *xn_calloc(size_t count, size_t bytes)
{
    size_t total; /* checked here as well: sanitizers end the process where calloc would return NULL */
    if (XN_FAULT("alloc") || !xn_mul_size(count, bytes, &total))
        return NULL;
    return calloc(total ? total : 1, 1);
}

void *xn_calloc_aligned(size_t count, size_t bytes)
{
    size_t total;
    if (XN_FAULT("alloc") || !xn_mul_size(count, bytes, &total) || total > SIZE_MAX - XN_CACHE_LINE)
        return NULL;
    total = xn_align_up(total ? total : 1, XN_CACHE_LINE);
    void *memory = aligned_alloc(XN_CACHE_LINE, total);
    if (memory)
        memset(memory, 0, total);
    return memory;
}

char *xn_strdup(const char *text)
{
    const size_t bytes = strlen(text) + 1;
    char *copy = xn_calloc(bytes, 1);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

#ifdef XN_FAULTS
#include <assert.h>
#include <pthread.h>

#define POINTS_MAX     32u
#define POINT_NAME_MAX 48u

struct point {
    char name[POINT_NAME_MAX]; /* "": free */
    uint64_t passes, nth;      /* nth 0: disarmed, still counts */
    bool forever;
};

static pthread_mutex_t points_lock = PTHREAD_MUTEX_INITIALIZER; /* guards points */
static struct point points[POINTS_MAX];
static pthread_once_t environment_once = PTHREAD_ONCE_INIT;

static struct point *find_locked(const char *name)
{
    for (size_t i = 0; i < POINTS_MAX; i++)
        if (strcmp(points[i].name, name) == 0)
            return &points[i];
    return NULL;
}

static void arm(const char *name, uint64_t nth, bool forever)
{
    assert(strlen(name) < POINT_NAME_MAX);
    pthread_mutex_lock(&points_lock);
    struct point *point = find_locked(name);
    if (!point)
        point = find_locked("");
    assert(point && "POINTS_MAX is too small for this test");
    strcpy(point->name, name);
    point->passes = 0;
    point->nth = nth;
    point->forever = forever;
    pthread_mutex_unlock(&points_lock);
}

/* $XN_FAULT="name:nth[+],..."; what cannot be read is left out, as this is for tests only. */
static void arm_from_environment(void)
{
    const char *text = getenv("XN_FAULT");
    char *copy = text ? strdup(text) : NULL;
    char *state = NULL;
    for (char *item = copy ? strtok_r(copy, ",", &state) : NULL; item; item = strtok_r(NULL, ",", &state)) {
        char *colon = strrchr(item, ':'), *end = NULL;
        if (!colon || colon == item || colon - item >= (ptrdiff_t)POINT_NAME_MAX)
            continue;
        *colon = '\0';
        const unsigned long long nth = strtoull(colon + 1, &end, 10);
        arm(item, nth, *end == '+');
    }
    free(copy);
}

bool xn_fault_hit(const char *name)
{
    pthread_once(&environment_once, arm_from_environment);
    pthread_mutex_lock(&points_lock);
    struct point *point = find_locked(name);
    bool hit = false;
    if (point) {
        point->passes++;
        hit = point->nth && (point->passes == point->nth || (point->forever && point->passes > point->nth));
    }
    pthread_mutex_unlock(&points_lock);
    return hit;
}

void xn_fault_arm(const char *name, uint64_t nth, bool forever)
{
    pthread_once(&environment_once, arm_from_environment); /* so that it cannot overwrite this later */
    arm(name, nth, forever);
}

uint64_t xn_fault_passes(const char *name)
{
    pthread_mutex_lock(&points_lock);
    const struct point *point = find_locked(name);
    const uint64_t passes = point ? point->passes : 0;
    pthread_mutex_unlock(&points_lock);
    return passes;
}
#endif
