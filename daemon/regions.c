/* SPDX-License-Identifier: Apache-2.0
 * See regions.h. The table is an array made at start; regions_lock guards names and counts of it, never a system call.
 *
 * The guard against SIGBUS is one array for the process, of atomics alone, as a signal handler reads it: `start` 0 is a free entry, `end` is written
 * before `start` is. An entry is taken before its region can be touched and cleared after the last one let go, so an address inside a
 * region always finds its entry. */
#include "daemon/regions.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fault.h"

struct xn_regions {
    pthread_mutex_t regions_lock; /* guards which are free, names, bytes_used */
    uint32_t count;               /* that may be registered */
    uint64_t bytes_max, bytes_used;
    struct xn_region *regions; /* [count] */
};

/* ---- the guard ---------------------------------------------------------------------------------------------------- */

struct guard {
    _Atomic uintptr_t start, end; /* of a mapping; start 0: free, 1: being filled */
    atomic_bool lost;
};
#define GUARD_FILLING 1u

static struct guard guards[XN_REGIONS_MAX];
static struct sigaction previous; /* what SIGBUS did before */

_Static_assert(ATOMIC_POINTER_LOCK_FREE == 2 && ATOMIC_BOOL_LOCK_FREE == 2, "a signal handler may read only these");

static struct guard *find_guard(uintptr_t address)
{
    for (size_t i = 0; i < XN_ARRAY_LEN(guards); i++) {
        uintptr_t start = atomic_load_explicit(&guards[i].start, memory_order_acquire); /* partner: set_guard */
        if (start > GUARD_FILLING && address >= start &&
            address < atomic_load_explicit(&guards[i].end, memory_order_relaxed))
            return &guards[i];
    }
    return NULL;
}

/* Fresh pages in the place of the whole mapping; the access is then done again, on them. Other threads may be reading there: they get the fresh pages too, and
 * what they make of them is not used. The bare system call, as a signal handler may do; ThreadSanitizer would take mmap for a write that races with those reads. */
static bool replace(struct guard *guard)
{
    uintptr_t start = atomic_load_explicit(&guard->start, memory_order_relaxed);
    size_t bytes = atomic_load_explicit(&guard->end, memory_order_relaxed) - start;

    atomic_store_explicit(&guard->lost, true, memory_order_release); /* partner: xn_region_lost */
    return syscall(SYS_mmap, start, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != -1;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    int kept = errno;
    struct guard *guard = info->si_code == BUS_ADRERR ? find_guard((uintptr_t)info->si_addr) : NULL;

    if (!guard || !replace(guard)) {
        /* Not ours: what was there before gets it; the default ends the process when the access is done again. */
        if (previous.sa_flags & SA_SIGINFO)
            previous.sa_sigaction(number, info, context);
        else
            (void)sigaction(number, &previous, NULL);
    }
    errno = kept;
}

static void install_handler(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER}, now;

    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, NULL, &now) < 0 || ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_sigbus))
        return;
    previous = now;
    (void)sigaction(SIGBUS, &action, NULL);
}

static struct guard *set_guard(uint8_t *map, size_t bytes)
{
    for (size_t i = 0; i < XN_ARRAY_LEN(guards); i++) {
        uintptr_t free_entry = 0;
        if (!atomic_compare_exchange_strong_explicit(&guards[i].start, &free_entry, GUARD_FILLING, memory_order_acquire,
                                                     memory_order_relaxed))
            continue;
        atomic_store_explicit(&guards[i].lost, false, memory_order_relaxed);
        atomic_store_explicit(&guards[i].end, (uintptr_t)map + bytes, memory_order_relaxed);
        atomic_store_explicit(&guards[i].start, (uintptr_t)map, memory_order_release);
        return &guards[i];
    }
    return NULL;
}

static void clear_guard(struct guard *guard)
{
    if (guard)
        atomic_store_explicit(&guard->start, 0, memory_order_release);
}

/* ---- the table ---------------------------------------------------------------------------------------------------- */

int xn_regions_new(uint32_t count, uint64_t bytes, struct xn_regions **ret_regions)
{
    struct xn_regions *all = xn_calloc(1, sizeof(*all));

    if (!all)
        return -ENOMEM;
    pthread_mutex_init(&all->regions_lock, NULL);
    all->count = XN_MIN(count, XN_REGIONS_MAX);
    all->bytes_max = bytes;
    all->regions = xn_calloc(all->count ? all->count : 1, sizeof(*all->regions));
    if (!all->regions) {
        xn_regions_free(all);
        return -ENOMEM;
    }
    install_handler();
    *ret_regions = all;
    return 0;
}

void xn_regions_free(struct xn_regions *regions)
{
    if (!regions)
        return;
    if (regions->regions)
        (void)xn_regions_unregister(regions, NULL);
    pthread_mutex_destroy(&regions->regions_lock);
    free(regions->regions);
    free(regions);
}

static struct xn_region *find_locked(struct xn_regions *regions, const char *name)
{
    for (uint32_t i = 0; i < regions->count; i++) {
        if (regions->regions[i].own.named && strcmp(regions->regions[i].name, name) == 0)
            return &regions->regions[i];
    }
    return NULL;
}

struct xn_region *xn_regions_get(struct xn_regions *regions, const char *name)
{
    if (!regions || regions->count == 0)
        return NULL;
    pthread_mutex_lock(&regions->regions_lock);
    struct xn_region *region = find_locked(regions, name);
    if (region)
        atomic_fetch_add_explicit(&region->own.refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&regions->regions_lock);
    return region;
}

uint32_t xn_regions_list(struct xn_regions *regions, struct xn_region **ret_regions, uint32_t max)
{
    uint32_t n = 0;

    pthread_mutex_lock(&regions->regions_lock);
    for (uint32_t i = 0; i < regions->count && n < max; i++) {
        struct xn_region *region = &regions->regions[i];
        if (!region->own.named)
            continue;
        atomic_fetch_add_explicit(&region->own.refs, 1, memory_order_relaxed);
        ret_regions[n++] = region;
    }
    pthread_mutex_unlock(&regions->regions_lock);
    return n;
}

bool xn_region_lost(const struct xn_region *region)
{
    return atomic_load_explicit(&region->own.guard->lost, memory_order_acquire);
}

/* Unmapped first: a place is free only when nothing of it is left. */
static void release(struct xn_region *region)
{
    struct xn_regions *all = region->own.all;
    size_t bytes = region->bytes;

    clear_guard(region->own.guard);
    if (region->own.map)
        (void)munmap(region->own.map, region->own.map_bytes);
    region->own.map = NULL;
    region->own.guard = NULL;
    pthread_mutex_lock(&all->regions_lock);
    all->bytes_used -= bytes;
    region->own.all = NULL; /* free */
    pthread_mutex_unlock(&all->regions_lock);
}

void xn_region_unref(struct xn_region *region)
{
    /* Release what this holder wrote; the last one acquires what the others did before it unmaps. */
    if (region && atomic_fetch_sub_explicit(&region->own.refs, 1, memory_order_acq_rel) == 1)
        release(region);
}

uint32_t xn_regions_unregister(struct xn_regions *regions, const char *name)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < regions->count; i++) {
        struct xn_region *region = &regions->regions[i];
        pthread_mutex_lock(&regions->regions_lock);
        bool it = region->own.named && (!name || strcmp(region->name, name) == 0);
        if (it)
            region->own.named = false;
        pthread_mutex_unlock(&regions->regions_lock);
        if (it)
            xn_region_unref(region);
        n += it;
    }
    return n;
}

/* ---- register ----------------------------------------------------------------------------------------------------- */

/* Names of objects, not paths: shm_open itself refuses a slash but the first. */
static bool key_is_sound(const char *key)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/";

    return key[0] && strlen(key) < XN_REGION_KEY_BYTES && key[strspn(key, allowed)] == '\0' && !strstr(key, "..");
}

static int check(const struct xn_regions *regions, const char *name, const char *key, uint64_t offset, uint64_t bytes,
                 struct xn_error *error)
{
    uint64_t end;

    if (regions->count == 0)
        return xn_error_set(error, -EOPNOTSUPP,
                            "shared memory is switched off (shared_memory is \"off\", or limits.shared_regions is 0)");
    if (!name[0] || strlen(name) >= XN_REGION_NAME_BYTES || strchr(name, '/'))
        return xn_error_set(error, -EINVAL, "the name of a shared memory region has 1 to %u bytes, and no \"/\"",
                            XN_REGION_NAME_BYTES - 1);
    if (!key_is_sound(key))
        return xn_error_set(
            error, -EINVAL,
            "key: must be the name of a POSIX shared memory object, of letters, digits, \".\", \"_\" and \"-\"");
    if (bytes == 0 || __builtin_add_overflow(offset, bytes, &end) || end > INT64_MAX)
        return xn_error_set(error, -EINVAL, "byte_size: must be at least 1, and offset + byte_size at most 2^63 - 1");
    return 0;
}

/* A place in the table, with `bytes` counted; not named yet, so nobody else sees it. */
static int reserve(struct xn_regions *regions, const char *name, uint64_t bytes, struct xn_region **ret_region,
                   struct xn_error *error)
{
    struct xn_region *region = NULL;

    pthread_mutex_lock(&regions->regions_lock);
    bool taken = find_locked(regions, name) != NULL, full = bytes > regions->bytes_max - regions->bytes_used;
    for (uint32_t i = 0; !taken && !full && !region && i < regions->count; i++)
        region = regions->regions[i].own.all ? NULL : &regions->regions[i];
    if (region) {
        region->own.all = regions;
        region->bytes = bytes;
        regions->bytes_used += bytes;
    }
    pthread_mutex_unlock(&regions->regions_lock);
    if (taken)
        return xn_error_set(error, -EINVAL, "shared memory region \"%.64s\" is registered already", name);
    if (full)
        return xn_error_set(error, -EFBIG,
                            "%" PRIu64 " bytes are more than limits.shared_bytes = %" PRIu64
                            " leaves; unregister regions that are not used",
                            bytes, regions->bytes_max);
    if (!region)
        return xn_error_set(error, -EAGAIN,
                            "as many shared memory regions as limits.shared_regions = %u allows are registered",
                            regions->count);
    *ret_region = region;
    return 0;
}

/* The object's descriptor, checked to be long enough. */
static int open_object(struct xn_region *region, struct xn_error *error)
{
    struct stat st;
    int fd = shm_open(region->key, O_RDWR | O_CLOEXEC, 0);

    region->writable = fd >= 0;
    if (fd < 0 && (errno == EACCES || errno == EROFS))
        fd = shm_open(region->key, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return xn_error_set(error, -EINVAL, "cannot open shared memory object \"%.128s\": %s", region->key,
                            strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < region->offset + region->bytes) {
        close(fd);
        return xn_error_set(error, -EINVAL,
                            "shared memory object \"%.128s\" does not have the %" PRIu64
                            " + %zu bytes of offset and byte_size",
                            region->key, region->offset, region->bytes);
    }
    return fd;
}

/* Whole pages around the region. */
static int map_object(struct xn_region *region, struct xn_error *error)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), start = region->offset & ~(page - 1);
    int fd = open_object(region, error);

    if (fd < 0)
        return fd;
    region->own.map_bytes = xn_align_up(region->offset + region->bytes - start, page);
    void *map = XN_FAULT("alloc")
                    ? MAP_FAILED
                    : mmap(NULL, region->own.map_bytes, region->writable ? PROT_READ | PROT_WRITE : PROT_READ,
                           MAP_SHARED, fd, (off_t)start);
    close(fd);
    if (map == MAP_FAILED)
        return xn_error_set(error, -EAGAIN, "shared memory object \"%.128s\" cannot be mapped", region->key);
    region->own.map = map;
    region->data = region->own.map + (region->offset - start);
    region->own.guard = set_guard(region->own.map, region->own.map_bytes);
    return region->own.guard ? 0 : xn_error_set(error, -EAGAIN, "too many shared memory regions in this process");
}

/* The name becomes known, unless somebody else was faster. */
static int publish(struct xn_regions *regions, struct xn_region *region, struct xn_error *error)
{
    pthread_mutex_lock(&regions->regions_lock);
    bool taken = find_locked(regions, region->name) != NULL;
    if (!taken) {
        atomic_store_explicit(&region->own.refs, 1, memory_order_relaxed);
        region->own.named = true;
    }
    pthread_mutex_unlock(&regions->regions_lock);
    return taken ? xn_error_set(error, -EINVAL, "shared memory region \"%.64s\" is registered already", region->name)
                 : 0;
}

int xn_regions_register(struct xn_regions *regions, const char *name, const char *key, uint64_t offset, uint64_t bytes,
                        struct xn_error *error)
{
    struct xn_region *region = NULL;
    int r = check(regions, name, key, offset, bytes, error);

    if (r >= 0)
        r = reserve(regions, name, bytes, &region, error);
    if (!region)
        return r;
    memcpy(region->name, name, strlen(name) + 1);
    memcpy(region->key, key, strlen(key) + 1);
    region->offset = offset;
    r = map_object(region, error);
    if (r >= 0)
        r = publish(regions, region, error);
    if (r < 0)
        release(region);
    return r;
}
