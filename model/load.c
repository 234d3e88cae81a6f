/* SPDX-License-Identifier: Apache-2.0
 * From the bytes of an .xnor file to a network, in this order, so that nothing is used before it was checked:
 *
 *     size, magic, version -> SHA-256 -> header's regions -> tensors -> layers (validate.c) -> metadata (meta.c)
 *
 * The file is read into memory of its own rather than mapped: what was verified is what runs. A file that is
 * overwritten in place while the daemon serves can then neither change the network nor end the process with
 * SIGBUS. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fault.h"
#include "model/internal.h"

/* Where a region of the file lies, for the overlap check. */
struct region {
    const char *name;
    uint64_t offset, bytes;
};

static int check_start(struct xn_network_storage *storage, struct xn_error *error)
{
    struct xn_format_header *h = &storage->header;
    const size_t bytes = storage->file_bytes;
    if (bytes < XN_FORMAT_MAGIC_BYTES || memcmp(storage->file, XN_FORMAT_MAGIC, XN_FORMAT_MAGIC_BYTES) != 0)
        return xn_error_set(error, -EBADMSG, "not an .xnor file: it does not begin with the magic bytes");
    if (bytes < sizeof(*h))
        return xn_error_set(error, -EBADMSG, "truncated: %zu bytes, the header alone has %zu", bytes, sizeof(*h));
    memcpy(h, storage->file, sizeof(*h));
    if (h->major != XN_FORMAT_MAJOR)
        return xn_error_set(error, -EPROTONOSUPPORT, "header: format version %u.%u, this reader knows %u.x", h->major,
                            h->minor, XN_FORMAT_MAJOR);
    if (h->file_bytes > bytes)
        return xn_error_set(error, -EBADMSG, "truncated: %zu bytes, the header says %" PRIu64, bytes, h->file_bytes);
    if (h->file_bytes < bytes)
        return xn_error_set(error, -EBADMSG, "header: file_bytes is %" PRIu64 ", the file has %zu", h->file_bytes,
                            bytes);
    return 0;
}

static void to_hex(const uint8_t *bytes, size_t n, char *ret_text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        ret_text[2 * i] = digits[bytes[i] >> 4];
        ret_text[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret_text[2 * n] = '\0';
}

static int check_hash(struct xn_network_storage *storage, struct xn_error *error)
{
    static const uint8_t zeros[SHA256_DIGEST_SIZE];
    const size_t at = offsetof(struct xn_format_header, sha256), after = at + sizeof(zeros);
    struct xn_network *network = &storage->network;
    struct sha256_ctx context;
    sha256_init(&context);
    sha256_update(&context, at, storage->file);
    sha256_update(&context, sizeof(zeros), zeros);
    sha256_update(&context, storage->file_bytes - after, storage->file + after);
    sha256_digest(&context, sizeof(network->sha256), network->sha256);
    to_hex(network->sha256, sizeof(network->sha256), network->sha256_hex);
    if (memcmp(network->sha256, storage->header.sha256, sizeof(network->sha256)) != 0)
        return xn_error_set(error, -EBADMSG, "damaged: the contents have SHA-256 %.16s..., the header says another",
                            network->sha256_hex);
    return 0;
}

static bool all_zero(const void *memory, size_t bytes)
{
    const uint8_t *p = memory;
    for (size_t i = 0; i < bytes; i++)
        if (p[i])
            return false;
    return true;
}

/* Ranges and alignments of the header's fields; of the offsets only alignments, check_regions does the rest. */
static int check_fields(const struct xn_format_header *h, struct xn_error *error)
{
    const struct {
        const char *name;
        uint64_t value, low, high, multiple;
    } fields[] = {
        {"header_bytes", h->header_bytes, sizeof(*h), XN_FORMAT_HEADER_BYTES_MAX, 8},
        {"meta_bytes", h->meta_bytes, 2, XN_META_BYTES_MAX, 1},
        {"layer_count", h->layer_count, 1, XN_LAYERS_MAX, 1},
        {"layer_record_bytes", h->layer_record_bytes, sizeof(struct xn_format_layer), XN_FORMAT_RECORD_BYTES_MAX, 8},
        {"tensor_count", h->tensor_count, 0, XN_TENSORS_MAX, 1},
        {"tensor_record_bytes", h->tensor_record_bytes, sizeof(struct xn_format_tensor), XN_FORMAT_RECORD_BYTES_MAX, 8},
        {"layer_offset", h->layer_offset, 0, UINT64_MAX, 8},
        {"tensor_offset", h->tensor_offset, 0, UINT64_MAX, 8},
        {"data_offset", h->data_offset, 0, UINT64_MAX, XN_FORMAT_ALIGN},
    };
    for (size_t i = 0; i < XN_ARRAY_LEN(fields); i++) {
        if (fields[i].value < fields[i].low || fields[i].value > fields[i].high)
            return xn_error_set(error, -EINVAL, "header: %s is %" PRIu64 ", must be %" PRIu64 "..%" PRIu64,
                                fields[i].name, fields[i].value, fields[i].low, fields[i].high);
        if (fields[i].value % fields[i].multiple != 0)
            return xn_error_set(error, -EINVAL, "header: %s is %" PRIu64 ", must be a multiple of %" PRIu64,
                                fields[i].name, fields[i].value, fields[i].multiple);
    }
    if (!all_zero(h->reserved, sizeof(h->reserved)))
        return xn_error_set(error, -EPROTONOSUPPORT,
                            "header: reserved bytes are in use: the file needs a newer reader (it says version %u.%u)",
                            h->major, h->minor);
    return 0;
}

/* Every region within the file, behind the header, none over another. Products cannot overflow: counts and record
 * sizes are limited. Empty regions are nowhere. */
static int check_regions(const struct xn_format_header *h, struct xn_error *error)
{
    const struct region regions[] = {
        {"header", 0, h->header_bytes},
        {"metadata", h->meta_offset, h->meta_bytes},
        {"layer table", h->layer_offset, (uint64_t)h->layer_count * h->layer_record_bytes},
        {"tensor table", h->tensor_offset, (uint64_t)h->tensor_count * h->tensor_record_bytes},
        {"data", h->data_offset, h->data_bytes},
    };
    for (size_t i = 0; i < XN_ARRAY_LEN(regions); i++) {
        const struct region *a = &regions[i];
        if (a->offset > h->file_bytes || a->bytes > h->file_bytes - a->offset)
            return xn_error_set(error, -EINVAL,
                                "header: %s at %" PRIu64 " with %" PRIu64 " bytes lies outside the file of %" PRIu64,
                                a->name, a->offset, a->bytes, h->file_bytes);
        for (size_t k = 0; k < i; k++) {
            const struct region *b = &regions[k];
            if (a->bytes && b->bytes && a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes)
                return xn_error_set(error, -EINVAL, "header: %s at %" PRIu64 " overlaps the %s, which ends at %" PRIu64,
                                    a->name, a->offset, b->name, b->offset + b->bytes);
        }
    }
    return 0;
}

/* Bytes that dtype and dims need. 0: no such tensor can be. */
static uint64_t tensor_bytes(const struct xn_tensor *t)
{
    uint64_t row = t->dims[1]; /* unused dims are 1 */
    if (t->dtype == XN_DTYPE_BITS)
        row = xn_div_up(row, 64) * sizeof(uint64_t);
    else
        row *= xn_dtype_bytes(t->dtype);
    uint64_t total;
    if (__builtin_mul_overflow(row, (uint64_t)t->dims[0], &total) ||
        __builtin_mul_overflow(total, (uint64_t)t->dims[2], &total) ||
        __builtin_mul_overflow(total, (uint64_t)t->dims[3], &total))
        return 0;
    return total;
}

static int check_tensor_type(uint32_t i, const struct xn_format_tensor *r, struct xn_error *error)
{
    if (r->dtype < XN_DTYPE_BITS || r->dtype > XN_DTYPE_I64)
        return xn_error_set(error, -EPROTONOSUPPORT, "tensor %u: dtype is %u, this reader knows %d..%d", i, r->dtype,
                            XN_DTYPE_BITS, XN_DTYPE_I64);
    if (r->reserved0 || r->reserved1 || r->reserved2)
        return xn_error_set(error, -EPROTONOSUPPORT,
                            "tensor %u: reserved fields are in use: the file needs a newer reader", i);
    if (r->rank < 1 || r->rank > 4)
        return xn_error_set(error, -EINVAL, "tensor %u: rank is %u, must be 1..4", i, r->rank);
    if (r->dtype == XN_DTYPE_BITS && r->rank != 2)
        return xn_error_set(error, -EINVAL, "tensor %u: rank is %u, must be 2 for bits", i, r->rank);
    for (uint32_t d = 0; d < 4; d++) {
        if (r->dims[d] == 0 || (d >= r->rank && r->dims[d] != 1))
            return xn_error_set(error, -EINVAL, "tensor %u: dims[%u] is %u, must be %s", i, d, r->dims[d],
                                d < r->rank ? "1 or more" : "1 behind the rank");
    }
    return 0;
}

/* In the data region, behind the tensor before it, which ended at `after`. */
static int check_tensor_place(const struct xn_format_header *h, uint32_t i, const struct xn_format_tensor *r,
                              const struct xn_tensor *t, uint64_t after, struct xn_error *error)
{
    const uint64_t end = h->data_offset + h->data_bytes, want = tensor_bytes(t);
    if (want == 0 || r->bytes != want)
        return xn_error_set(error, -EINVAL, "tensor %u: bytes is %" PRIu64 ", %s of its dims need %" PRIu64, i,
                            r->bytes, xn_dtype_name(t->dtype), want);
    if (r->offset % XN_FORMAT_ALIGN != 0)
        return xn_error_set(error, -EINVAL, "tensor %u: offset is %" PRIu64 ", must be a multiple of %u", i, r->offset,
                            XN_FORMAT_ALIGN);
    if (r->offset < after)
        return xn_error_set(error, -EINVAL,
                            "tensor %u: offset is %" PRIu64 ", must not be before %" PRIu64 ", where %s", i, r->offset,
                            after, i ? "the tensor before it ends" : "the data begin");
    if (r->offset > end || r->bytes > end - r->offset)
        return xn_error_set(error, -EINVAL,
                            "tensor %u: offset %" PRIu64 " and bytes %" PRIu64 " pass the end of the data at %" PRIu64,
                            i, r->offset, r->bytes, end);
    return 0;
}

/* Rows end in whole words; what no element uses must be 0, so that whole words may be counted and compared. */
static int check_unused_bits(uint32_t i, const struct xn_tensor *t, struct xn_error *error)
{
    const uint32_t used = t->dims[1] % 64;
    const size_t words = xn_div_up(t->dims[1], 64);
    const uint64_t *last = (const uint64_t *)t->data + (words - 1);
    if (used == 0)
        return 0;
    for (uint32_t row = 0; row < t->dims[0]; row++, last += words)
        if (*last >> used)
            return xn_error_set(error, -EINVAL, "tensor %u: row %u has bits set behind its %u elements, must be 0", i,
                                row, t->dims[1]);
    return 0;
}

static int read_tensors(struct xn_network_storage *storage, struct xn_error *error)
{
    const struct xn_format_header *h = &storage->header;
    uint64_t after = h->data_offset;
    storage->tensors = xn_calloc(h->tensor_count, sizeof(*storage->tensors));
    if (!storage->tensors)
        return xn_error_set(error, -ENOMEM, "no memory for %u tensor records", h->tensor_count);
    for (uint32_t i = 0; i < h->tensor_count; i++) {
        struct xn_tensor *t = &storage->tensors[i];
        struct xn_format_tensor record;
        memcpy(&record, storage->file + h->tensor_offset + (size_t)i * h->tensor_record_bytes, sizeof(record));
        int r = check_tensor_type(i, &record, error);
        if (r < 0)
            return r;
        t->dtype = (enum xn_dtype)record.dtype;
        t->rank = record.rank;
        memcpy(t->dims, record.dims, sizeof(t->dims));
        r = check_tensor_place(h, i, &record, t, after, error);
        if (r < 0)
            return r;
        t->bytes = record.bytes;
        t->data = storage->file + record.offset;
        after = record.offset + record.bytes;
        r = t->dtype == XN_DTYPE_BITS ? check_unused_bits(i, t, error) : 0;
        if (r < 0)
            return r;
    }
    storage->network.tensors = storage->tensors;
    storage->network.n_tensors = h->tensor_count;
    return 0;
}

/* Layer records copied out of the file, whose records may be longer than those known here. */
static int read_records(struct xn_network_storage *storage, struct xn_error *error)
{
    const struct xn_format_header *h = &storage->header;
    storage->records = xn_calloc(h->layer_count, sizeof(*storage->records));
    if (!storage->records)
        return xn_error_set(error, -ENOMEM, "no memory for %u layer records", h->layer_count);
    for (uint32_t i = 0; i < h->layer_count; i++)
        memcpy(&storage->records[i], storage->file + h->layer_offset + (size_t)i * h->layer_record_bytes,
               sizeof(*storage->records));
    return 0;
}

static int parse(struct xn_network_storage *storage, struct xn_error *error)
{
    int r = check_start(storage, error);
    if (r == 0)
        r = check_hash(storage, error);
    if (r == 0)
        r = check_fields(&storage->header, error);
    if (r == 0)
        r = check_regions(&storage->header, error);
    if (r == 0)
        r = read_tensors(storage, error);
    if (r == 0)
        r = read_records(storage, error);
    if (r == 0)
        r = xn_validate_layers(storage, error);
    if (r == 0)
        r = xn_meta_read(storage, error);
    if (r < 0)
        return r;
    storage->network.file_bytes = storage->file_bytes;
    storage->network.format_major = storage->header.major;
    storage->network.format_minor = storage->header.minor;
    free(storage->records);
    storage->records = NULL;
    return 0;
}

/* `file` (from xn_calloc_aligned) moves here, on failure too. */
static int load_take(uint8_t *file, size_t bytes, struct xn_network **ret_network, struct xn_error *error)
{
    struct xn_network_storage *storage = xn_calloc(1, sizeof(*storage));
    if (!storage) {
        free(file);
        return xn_error_set(error, -ENOMEM, "no memory for a network");
    }
    storage->file = file;
    storage->file_bytes = bytes;
    const int r = parse(storage, error);
    if (r < 0) {
        xn_network_free(&storage->network);
        return r;
    }
    *ret_network = &storage->network;
    return 0;
}

static int check_file_bytes(uint64_t bytes, struct xn_error *error)
{
    if (bytes > XN_MODEL_FILE_BYTES_MAX)
        return xn_error_set(error, -EFBIG, "%" PRIu64 " bytes, must be %llu at most", bytes, XN_MODEL_FILE_BYTES_MAX);
    return 0;
}

int xn_network_load_memory(const void *data, size_t bytes, struct xn_network **ret_network, struct xn_error *error)
{
    const int r = check_file_bytes(bytes, error);
    if (r < 0)
        return r;
    uint8_t *file = xn_calloc_aligned(bytes, 1);
    if (!file)
        return xn_error_set(error, -ENOMEM, "no memory for the %zu bytes of the file", bytes);
    if (bytes)
        memcpy(file, data, bytes);
    return load_take(file, bytes, ret_network, error);
}

/* Fill `file` from `fd`. A file that shrinks meanwhile is an error; one that grows is cut, and fails its SHA-256. */
static int read_all(int fd, uint8_t *file, size_t bytes, struct xn_error *error)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = XN_FAULT("model.read") ? (errno = EIO, -1) : read(fd, file + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return xn_error_set(error, -EIO, "reading failed at byte %zu: %s", done, strerror(errno));
        if (n == 0)
            return xn_error_set(error, -EIO, "the file shrank to %zu bytes while it was read", done);
        done += (size_t)n;
    }
    return 0;
}

static int load_fd(int fd, struct xn_network **ret_network, struct xn_error *error)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return xn_error_set(error, -EIO, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return xn_error_set(error, -EBADMSG, "not a regular file");
    int r = check_file_bytes((uint64_t)st.st_size, error);
    if (r < 0)
        return r;
    const size_t bytes = (size_t)st.st_size;
    uint8_t *file = xn_calloc_aligned(bytes, 1);
    if (!file)
        return xn_error_set(error, -ENOMEM, "no memory for the %zu bytes of the file", bytes);
    r = read_all(fd, file, bytes, error);
    if (r < 0) {
        free(file);
        return r;
    }
    return load_take(file, bytes, ret_network, error);
}

int xn_network_load(const char *path, struct xn_network **ret_network, struct xn_error *error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* non-blocking: a FIFO must not hang the start */
    if (fd < 0) {
        const int code = errno == ENOENT || errno == EACCES || errno == ENOMEM ? -errno : -EIO;
        return xn_error_set(error, code, "%s: cannot be opened: %s", path, strerror(errno));
    }
    const int r = load_fd(fd, ret_network, error);
    close(fd);
    return r < 0 ? xn_error_prefix(error, r, "%s", path) : 0;
}
