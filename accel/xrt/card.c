/* SPDX-License-Identifier: Apache-2.0
 * Cards. The instances of a card share one open device. A reset ends what runs on all of them, so the first instance that asks for one resets and
 * opens the device anew, under the next generation; the others find that theirs is over, and only open their units again. The old
 * device goes when the last unit and buffer made of it does. */
#include "accel/xrt/xrt.h"
#include "common/fault.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct xn_xrt_card {
    struct xn_xrt_card *next;
    const struct xn_xrt_api *api;
    char *name, *path;
    char uuid[XN_XRT_UUID_BYTES], platform[XN_XRT_NAME_BYTES]; /* of the file when it was first read */
    uint32_t users;                                            /* under cards_lock */
    pthread_mutex_t lock; /* guards what follows; held across calls of XRT, which other instances then wait for */
    struct xn_xrt_device *device;
    struct xn_xrt_device_info info;
    _Atomic uint32_t generation; /* written under lock */
    struct xn_xrt_store store;   /* has a lock of its own */
};

static pthread_mutex_t cards_lock =
    PTHREAD_MUTEX_INITIALIZER; /* guards cards; may be held when a card's lock is taken */
static struct xn_xrt_card *cards;

/** Is what the device has loaded the file that the units were chosen from? Another process may have put its own there, or the file have been
 *  replaced since, and its units would be asked for what they are not. */
static int check_uuid(const struct xn_xrt_card *card, struct xn_xrt_device *device, struct xn_error *error)
{
    char uuid[XN_XRT_UUID_BYTES] = "";
    struct xn_xrt_why why;
    const int r = card->api->loaded(device, uuid, &why);

    if (r < 0)
        return xn_error_set(error, r, "xrt: card %s does not say what it has loaded: %s", card->name, why.text);
    if (strcmp(uuid, card->uuid) != 0)
        return xn_error_set(error, -EBUSY,
                            "xrt: card %s has loaded %s and not %s, which %s was: another process has loaded its own, "
                            "or the file was replaced; end that process, then restart",
                            card->name, uuid, card->uuid, card->path);
    return 0;
}

static int load(const struct xn_xrt_card *card, struct xn_xrt_device *device, struct xn_error *error)
{
    struct xn_xrt_device_info info;
    struct xn_xrt_why why;
    const int r = card->api->load(device, card->path, &why);

    if (r == 0)
        return check_uuid(card, device, error);
    if (r == -EBUSY)
        return xn_error_set(error, r,
                            "xrt: cannot load %s into card %s: another process uses it with another file (%s)",
                            card->path, card->name, why.text);
    card->api->info(device, &info);
    return xn_error_set(error, r,
                        "xrt: cannot load %s, built for platform %s, into card %s, %s: %s; it is of another card or "
                        "damaged: build or copy it anew",
                        card->path, card->platform, card->name, info.name, why.text);
}

/** Open the device and load the file. */
static int start(struct xn_xrt_card *card, struct xn_xrt_device **ret_device, struct xn_error *error)
{
    struct xn_xrt_why why;
    struct xn_xrt_device *device;
    int r = card->api->open(card->name, &device, &why);

    if (r < 0)
        return xn_error_set(error, r, "xrt: cannot open card %s: %s", card->name, why.text);
    r = load(card, device, error);
    if (r < 0) {
        card->api->close(device);
        return r;
    }
    *ret_device = device;
    return 0;
}

static void card_free(struct xn_xrt_card *card)
{
    if (!card)
        return;
    if (card->device)
        card->api->close(card->device);
    pthread_mutex_destroy(&card->lock);
    pthread_mutex_destroy(&card->store.lock);
    free(card->name);
    free(card->path);
    free(card);
}

static int card_new(const struct xn_xrt_api *api, const char *device, const char *path,
                    const struct xn_xrt_image *image, struct xn_xrt_card **ret_card, struct xn_error *error)
{
    struct xn_xrt_card *card = xn_calloc(1, sizeof(*card));
    int r = -ENOMEM;

    if (card) {
        pthread_mutex_init(&card->lock, NULL);
        pthread_mutex_init(&card->store.lock, NULL);
        card->api = api;
        card->users = 1;
        memcpy(card->uuid, image->uuid, sizeof(card->uuid));
        memcpy(card->platform, image->platform, sizeof(card->platform));
        card->name = xn_strdup(device);
        card->path = xn_strdup(path);
        if (card->name && card->path)
            r = start(card, &card->device, error);
        else
            (void)xn_error_set(error, r, "xrt: no memory to open card %s", device);
    }
    if (r < 0) {
        card_free(card);
        return r;
    }
    api->info(card->device, &card->info);
    *ret_card = card;
    return 0;
}

static int get_locked(const struct xn_xrt_api *api, const char *device, const char *path,
                      const struct xn_xrt_image *image, struct xn_xrt_card **ret_card, struct xn_error *error)
{
    for (struct xn_xrt_card *card = cards; card; card = card->next) {
        if (card->api != api || strcmp(card->name, device) != 0)
            continue;
        if (strcmp(card->path, path) != 0)
            return xn_error_set(error, -EINVAL,
                                "xrt: card %s is open with %s; it can have no other file at the same time", device,
                                card->path);
        card->users++;
        *ret_card = card;
        return 0;
    }
    const int r = card_new(api, device, path, image, ret_card, error);
    if (r == 0) {
        (*ret_card)->next = cards;
        cards = *ret_card;
    }
    return r;
}

int xn_xrt_card_get(const struct xn_xrt_api *api, const char *device, const char *path,
                    const struct xn_xrt_image *image, struct xn_xrt_card **ret_card, struct xn_error *error)
{
    pthread_mutex_lock(&cards_lock);
    const int r = get_locked(api, device, path, image, ret_card, error);
    pthread_mutex_unlock(&cards_lock);
    return r;
}

void xn_xrt_card_put(struct xn_xrt_card *card)
{
    if (!card)
        return;
    pthread_mutex_lock(&cards_lock);
    const bool last = --card->users == 0;
    if (last) {
        struct xn_xrt_card **at = &cards;
        while (*at != card)
            at = &(*at)->next;
        *at = card->next;
        card_free(card); /* under the lock, so that nobody opens the same card before it is closed */
    }
    pthread_mutex_unlock(&cards_lock);
}

const struct xn_xrt_device_info *xn_xrt_card_info(const struct xn_xrt_card *card)
{
    return &card->info;
}

struct xn_xrt_store *xn_xrt_card_store(struct xn_xrt_card *card)
{
    return &card->store;
}

uint32_t xn_xrt_card_generation(struct xn_xrt_card *card)
{
    return atomic_load_explicit(&card->generation, memory_order_acquire); /* with reset_locked's release */
}

static int reset_locked(struct xn_xrt_card *card, struct xn_error *error)
{
    struct xn_xrt_why why;
    struct xn_xrt_device *device;

    /* What it says does not count: a card that died and came back has nothing to reset. Whether a unit works again is
     * found out by running it. */
    (void)card->api->reset(card->device, &why);
    const int r = start(card, &device, error);
    if (r < 0)
        return r;
    card->api->close(card->device);
    card->device = device;
    atomic_fetch_add_explicit(&card->generation, 1, memory_order_release);
    return 0;
}

int xn_xrt_card_reset(struct xn_xrt_card *card, uint32_t generation, struct xn_error *error)
{
    pthread_mutex_lock(&card->lock);
    const int r = xn_xrt_card_generation(card) == generation ? reset_locked(card, error) : 0;
    pthread_mutex_unlock(&card->lock);
    return r;
}

int xn_xrt_card_unit(struct xn_xrt_card *card, const char *name, struct xn_xrt_unit **ret_unit,
                     uint32_t *ret_generation, struct xn_error *error)
{
    struct xn_xrt_why why;

    pthread_mutex_lock(&card->lock);
    const int r = card->api->unit_open(card->device, XN_XRT_KERNEL, name, ret_unit, &why);
    *ret_generation = xn_xrt_card_generation(card);
    pthread_mutex_unlock(&card->lock);
    return r < 0 ? xn_error_set(error, r, "xrt: cannot open unit %s of card %s: %s%s", name, card->name,
                                r == -EBUSY ? "another process has it: " : "", why.text)
                 : 0;
}
