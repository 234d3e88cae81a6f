/* SPDX-License-Identifier: Apache-2.0
 * Blocks are a list by address; banks are ranges of it. There are some hundred blocks at most, so first fit by walking is fine. */
#include "accel/vcard/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct xn_vcard_block {
    uint64_t address, bytes;
    const void *owner;
    struct xn_vcard_block *next;
};

int xn_vcard_memory_init(struct xn_vcard_memory *memory, uint64_t bytes, uint32_t banks)
{
    const uint64_t bank_bytes = bytes / banks / XN_VCARD_PAGE * XN_VCARD_PAGE, size = bank_bytes * banks;
    const int file = memfd_create("card-memory", MFD_CLOEXEC);
    void *map = file < 0 || ftruncate(file, (off_t)size) < 0
                    ? MAP_FAILED
                    : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);

    if (map == MAP_FAILED) {
        if (file >= 0)
            close(file);
        return -ENOMEM;
    }
    *memory =
        (struct xn_vcard_memory){.file = file, .bytes = map, .size = size, .bank_bytes = bank_bytes, .banks = banks};
    return 0;
}

void xn_vcard_memory_done(struct xn_vcard_memory *memory)
{
    while (memory->blocks) {
        struct xn_vcard_block *next = memory->blocks->next;
        free(memory->blocks);
        memory->blocks = next;
    }
    munmap(memory->bytes, memory->size);
    close(memory->file);
}

uint64_t xn_vcard_memory_left(const struct xn_vcard_memory *memory, uint64_t address)
{
    const uint64_t offset = address - XN_VCARD_MEMORY_BASE;

    return address >= XN_VCARD_MEMORY_BASE && offset < memory->size ? memory->size - offset : 0;
}

void *xn_vcard_memory_at(const struct xn_vcard_memory *memory, uint64_t address, uint64_t bytes)
{
    const uint64_t left = xn_vcard_memory_left(memory, address);

    return left > 0 && bytes <= left ? memory->bytes + (address - XN_VCARD_MEMORY_BASE) : NULL;
}

int xn_vcard_memory_allocate(struct xn_vcard_memory *memory, uint32_t bank, uint64_t bytes, const void *owner,
                             uint64_t *ret_address)
{
    struct xn_vcard_block **at = &memory->blocks;

    if (bank >= memory->banks || bytes == 0)
        return -EINVAL;
    if (bytes > memory->bank_bytes)
        return -ENOMEM;
    const uint64_t begin = XN_VCARD_MEMORY_BASE + bank * memory->bank_bytes, end = begin + memory->bank_bytes;
    const uint64_t room = (bytes + XN_VCARD_PAGE - 1) / XN_VCARD_PAGE * XN_VCARD_PAGE;
    uint64_t address = begin;
    while (*at && (*at)->address < address + room) { /* also past the banks before */
        address = XN_MAX(address, (*at)->address + (*at)->bytes);
        at = &(*at)->next;
    }
    if (address + room > end)
        return -ENOMEM;
    struct xn_vcard_block *block = malloc(sizeof(*block));
    if (!block)
        return -ENOMEM;
    *block = (struct xn_vcard_block){address, room, owner, *at};
    *at = block;
    *ret_address = address;
    return 0;
}

static void drop(struct xn_vcard_memory *memory, struct xn_vcard_block **at)
{
    struct xn_vcard_block *block = *at;

    *at = block->next;
    if (fallocate(memory->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(block->address - XN_VCARD_MEMORY_BASE), (off_t)block->bytes) < 0) {
        /* the pages stay, which costs memory and nothing else */
    }
    free(block);
}

void xn_vcard_memory_free(struct xn_vcard_memory *memory, uint64_t address, const void *owner)
{
    for (struct xn_vcard_block **at = &memory->blocks; *at; at = &(*at)->next) {
        if ((*at)->address == address && (*at)->owner == owner) {
            drop(memory, at);
            return;
        }
    }
}

void xn_vcard_memory_free_all(struct xn_vcard_memory *memory, const void *owner)
{
    for (struct xn_vcard_block **at = &memory->blocks; *at;) {
        if ((*at)->owner == owner)
            drop(memory, at);
        else
            at = &(*at)->next;
    }
}
