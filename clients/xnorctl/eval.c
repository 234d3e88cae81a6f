/* SPDX-License-Identifier: Apache-2.0
 * `eval`: the accuracy of a labelled set through a running server, as any client sees it.
 *
 * Images of IDX files go as raw tensors where the server says that its input is plain pixels of their size, else as PNG pictures, which the server
 * resizes and scales as training did; images of folders go as they are. Requests are *jobs*, as many as connections: a job is made (images chosen,
 * bytes laid out), sent, and judged by its answer. One that is refused for lack of room waits and goes again; one with several images of which
 * the server refuses one is taken apart, so that each image is judged alone. */
#include <errno.h>
#include <inttypes.h>
#include <spng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "clients/xnorctl/format.h"
#include "clients/xnorctl/labelled.h"
#include "clients/xnorctl/load.h"
#include "clients/xnorctl/options.h"
#include "clients/xnorctl/progress.h"
#include "clients/xnorctl/score.h"
#include "common/clock.h"
#include "common/number.h"

#define CONTROL_TIMEOUT_MS 30000
#define REQUEST_TIMEOUT_S  120
#define FILE_BYTES_MAX     (1u << 30)
#define IMAGES_MAX         1024u /* in a request */
#define LABELS_MAX         1000u /* that a server can be asked for at once: its largest top_k */
#define ANSWER_BYTES       4096u /* room for an answer: these, and for each image */
#define ANSWER_IMAGE_BYTES 2048u
#define ATTEMPTS           8u
#define RETRY_NS           (50 * XN_NS_PER_MS) /* times the attempts so far */
#define KINDS              16u
#define CONFUSION_COLUMNS  20u
#define CONFUSIONS_SHOWN   10u

struct options {
    const char *model, *images, *labels, *split;
    uint64_t limit, concurrency, batch, timeout_ms;
    double expect;
};

enum job_state { FREE, IN_FLIGHT, WAITING };

struct job {
    enum job_state state;
    uint8_t *bytes;
    size_t length;
    uint64_t *images; /* [batch] of the set */
    uint32_t n, attempts;
    uint64_t again_ns; /* WAITING */
};

/* Images that got no class, by why. */
struct failure {
    char kind[24]; /* "429", "connection" */
    char example[XN_ERROR_TEXT_BYTES];
    uint64_t images;
};

struct eval {
    const struct options *options;
    struct xn_ctl *ctl;
    struct xn_client *client;
    struct xn_target target;
    struct xn_set *set;
    const char *model;       /* name */
    uint32_t n_classes;      /* of the model */
    char **labels;           /* [n_classes] of the model, NULL where not known */
    uint32_t *class_of_name; /* folder: [set->n_classes] class of the model */
    bool raw;                /* IDX as tensors */
    char *path;
    uint64_t *order; /* [n] images of the set that are asked, in this order */
    uint64_t n, next_image;
    uint64_t *singles; /* [n] images to be asked alone */
    uint64_t n_singles;
    struct job *jobs; /* [concurrency] */
    uint32_t n_jobs, batch;
    struct xn_score score;
    struct failure failures[KINDS];
    uint32_t n_failures;
    uint64_t failed;
    uint64_t start_ns, end_ns;
    struct xn_progress progress;
};

/* ---- the bytes of a request --------------------------------------------------------------------------------------- */

static uint8_t *encode_png(const struct eval *e, uint64_t image, size_t *ret_bytes, struct xn_error *error)
{
    size_t pixels = (size_t)e->set->h * e->set->w * e->set->c;
    struct spng_ihdr header = {.width = e->set->w,
                               .height = e->set->h,
                               .bit_depth = 8,
                               .color_type = e->set->c == 1 ? SPNG_COLOR_TYPE_GRAYSCALE : SPNG_COLOR_TYPE_TRUECOLOR};
    spng_ctx *png = spng_ctx_new(SPNG_CTX_ENCODER);
    uint8_t *data = NULL;
    int r = SPNG_EMEM;

    if (png) {
        spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1);
        spng_set_option(png, SPNG_IMG_COMPRESSION_LEVEL, 1);
        r = spng_set_ihdr(png, &header);
        if (r == 0)
            r = spng_encode_image(png, e->set->pixels + image * pixels, pixels, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
        if (r == 0)
            data = spng_get_png_buffer(png, ret_bytes, &r);
        spng_ctx_free(png);
    }
    if (!data)
        xn_error_set(error, -EIO, "image %" PRIu64 " cannot be made a PNG: %s", image, spng_strerror(r));
    return data;
}

/* One image as it is sent; NULL: `error` says why not. */
static uint8_t *image_bytes(const struct eval *e, uint64_t image, size_t *ret_bytes, struct xn_error *error)
{
    uint8_t *data;

    if (e->set->paths)
        return xn_file_read(e->set->paths[image], FILE_BYTES_MAX, &data, ret_bytes, error) < 0 ? NULL : data;
    if (!e->raw)
        return encode_png(e, image, ret_bytes, error);
    *ret_bytes = (size_t)e->set->h * e->set->w * e->set->c;
    data = xn_ctl_alloc(*ret_bytes, 1);
    return memcpy(data, e->set->pixels + image * *ret_bytes, *ret_bytes);
}

static void add_failure(struct eval *e, const char *kind, const char *why, uint64_t images)
{
    uint32_t i = 0;

    while (i < e->n_failures && strcmp(e->failures[i].kind, kind) != 0)
        i++;
    if (i == KINDS)
        i--;
    if (i == e->n_failures) {
        e->n_failures++;
        snprintf(e->failures[i].kind, sizeof(e->failures[i].kind), "%s", kind);
        snprintf(e->failures[i].example, sizeof(e->failures[i].example), "%s", why);
    }
    e->failures[i].images += images;
    e->failed += images;
}

/* Lay the job's request out. Images that cannot be read are failures of their own and left out. */
static void lay_out(struct eval *e, struct job *job)
{
    struct xn_piece pieces[IMAGES_MAX];
    struct xn_error error;
    uint32_t n = 0;
    size_t total = 0;

    for (uint32_t i = 0; i < job->n; i++) {
        pieces[n].data = image_bytes(e, job->images[i], &pieces[n].bytes, &error);
        if (!pieces[n].data) {
            add_failure(e, "unreadable", error.text, 1);
            continue;
        }
        total += pieces[n].bytes;
        job->images[n++] = job->images[i];
    }
    job->n = n;
    uint8_t *body = NULL;
    const char *type = "application/octet-stream";
    if (n > 1 && !e->raw) {
        type = XN_MULTIPART_CONTENT_TYPE;
        body = xn_multipart_body(pieces, n, &total);
    } else {
        uint8_t *at = body = xn_ctl_alloc(total, 1);
        for (uint32_t i = 0; i < n; i++)
            at = mempcpy(at, pieces[i].data, pieces[i].bytes);
    }
    free(job->bytes);
    job->bytes = xn_load_post(&e->target, e->path, type, body, total, &job->length);
    job->attempts = 0;
    free(body);
    for (uint32_t i = 0; i < n; i++)
        free((void *)(uintptr_t)pieces[i].data);
}

/* ---- hooks -------------------------------------------------------------------------------------------------------- */

static void send_job(struct eval *e, struct job *job, uint64_t now_ns, struct xn_shot *ret_shot)
{
    job->state = IN_FLIGHT;
    job->attempts++;
    *ret_shot = (struct xn_shot){job->bytes, job->length, now_ns, (uint64_t)(job - e->jobs)};
}

/* A new job of images that have not been asked yet. False where there is none. */
static bool new_job(struct eval *e, struct job *job)
{
    job->n = 0;
    while (job->n == 0 && (e->n_singles > 0 || e->next_image < e->n)) {
        if (e->n_singles > 0) {
            job->images[job->n++] = e->singles[--e->n_singles];
        } else {
            while (job->n < e->batch && e->next_image < e->n)
                job->images[job->n++] = e->order[e->next_image++];
        }
        lay_out(e, job);
    }
    return job->n > 0;
}

static enum xn_load_next next(void *user, uint64_t now_ns, struct xn_shot *ret_shot)
{
    struct eval *e = user;
    struct job *unused = NULL;
    uint64_t again_ns = XN_NEVER_NS;
    bool pending = false;

    for (uint32_t i = 0; i < e->n_jobs; i++) {
        struct job *job = &e->jobs[i];
        if (job->state == WAITING && job->again_ns <= now_ns) {
            send_job(e, job, now_ns, ret_shot);
            return XN_LOAD_SEND;
        }
        pending = pending || job->state != FREE;
        if (job->state == WAITING)
            again_ns = XN_MIN(again_ns, job->again_ns);
        if (job->state == FREE && !unused)
            unused = job;
    }
    if (unused && new_job(e, unused)) {
        send_job(e, unused, now_ns, ret_shot);
        return XN_LOAD_SEND;
    }
    ret_shot->intended_ns = again_ns;
    return pending ? XN_LOAD_LATER : XN_LOAD_END;
}

static uint32_t truth_of(const struct eval *e, uint64_t image)
{
    uint32_t class_index = e->set->classes[image];

    return e->class_of_name ? e->class_of_name[class_index] : class_index;
}

static void judge(struct eval *e, struct job *job, const struct xn_load_result *result)
{
    json_t *answer = json_loadb(result->body, result->body_bytes, 0, NULL),
           *entries = json_object_get(answer, "results");

    if (result->body_cut || json_array_size(entries) != job->n) {
        add_failure(e, "answer", "the answer is not what docs/http-api.md says", job->n);
        json_decref(answer);
        return;
    }
    for (uint32_t i = 0; i < job->n; i++) {
        json_t *class_index = json_object_get(json_array_get(entries, i), "class");
        if (json_is_integer(class_index) && json_integer_value(class_index) >= 0 &&
            json_integer_value(class_index) < e->n_classes)
            xn_score_add(&e->score, truth_of(e, job->images[i]), (uint32_t)json_integer_value(class_index));
        else
            add_failure(e, "answer", "an answer has no class, or one that the model does not have", 1);
    }
    json_decref(answer);
}

static void refused(struct eval *e, struct job *job, const struct xn_load_result *result)
{
    char kind[24], why[XN_ERROR_TEXT_BYTES];
    bool content = result->status == 400 || result->status == 413 || result->status == 415;

    if ((result->status == 429 || result->status == 503) && job->attempts < ATTEMPTS) {
        job->state = WAITING;
        job->again_ns = result->done_ns + job->attempts * RETRY_NS;
        return;
    }
    if (content && job->n > 1) {
        for (uint32_t i = 0; i < job->n; i++)
            e->singles[e->n_singles++] = job->images[i];
        return;
    }
    if (result->status < 0) {
        snprintf(kind, sizeof(kind), "%s", result->status == -ETIMEDOUT ? "timeout" : "connection");
        snprintf(why, sizeof(why), "%s", strerror(-result->status));
    } else {
        snprintf(kind, sizeof(kind), "%d", result->status);
        xn_reply_reason(result->status, result->body, result->body_bytes, why);
    }
    add_failure(e, kind, why, job->n);
}

static void done(void *user, const struct xn_load_result *result)
{
    struct eval *e = user;
    struct job *job = &e->jobs[result->shot->tag];
    char note[32];

    job->state = FREE;
    if (result->status == 200)
        judge(e, job, result);
    else
        refused(e, job, result);
    e->end_ns = result->done_ns;
    snprintf(note, sizeof(note), "accuracy %.2f %%",
             e->score.answered ? 100 * (double)e->score.correct / (double)e->score.answered : 0.0);
    xn_progress_at(&e->progress, e->score.answered + e->failed, note);
}

/* ---- the set and the model ---------------------------------------------------------------------------------------- */

static int load_set(struct eval *e, const char *folder, struct xn_error *error)
{
    const struct options *o = e->options;
    char *images = NULL, *labels = NULL;
    struct stat info;

    if (!folder)
        return xn_set_load_idx(o->images, o->labels, &e->set, error);
    int r = stat(folder, &info) < 0 ? -errno : S_ISDIR(info.st_mode) ? 0 : -ENOTDIR;
    if (r < 0)
        return xn_error_set(error, r, "%s: %s; a labelled set is a folder, or two files with --images and --labels",
                            folder, r == -ENOTDIR ? "not a folder" : strerror(-r));
    if (!xn_set_find_idx(folder, o->split, &images, &labels))
        return xn_set_load_folder(folder, &e->set, error);
    r = xn_set_load_idx(images, labels, &e->set, error);
    free(images);
    free(labels);
    return r;
}

/* --limit: the first of IDX files, which are shuffled; of folders, which are sorted by class, every so many-th. */
static void choose(struct eval *e)
{
    e->n = e->options->limit ? XN_MIN(e->options->limit, e->set->n) : e->set->n;
    e->order = xn_ctl_alloc(e->n, sizeof(*e->order));
    e->singles = xn_ctl_alloc(e->n, sizeof(*e->singles));
    for (uint64_t i = 0; i < e->n; i++)
        e->order[i] = e->set->paths ? i * e->set->n / e->n : i;
}

/* The model's labels are told by an answer that ranks them all. */
static int ask_labels(struct eval *e, struct xn_error *error)
{
    char reason[XN_ERROR_TEXT_BYTES];
    struct xn_reply reply;
    size_t bytes;
    uint8_t *data = image_bytes(e, e->order[0], &bytes, error);

    if (!data)
        return -EIO;
    char *path = xn_infer_path(e->options->model, XN_MIN(e->n_classes, LABELS_MAX), 0);
    int r = xn_client_post(e->client, path, "application/octet-stream", data, bytes, &reply, error);
    free(path);
    free(data);
    if (r < 0)
        return r;
    json_t *answer = json_loadb(reply.body, reply.bytes, 0, NULL), *entry;
    json_t *top = json_object_get(json_array_get(json_object_get(answer, "results"), 0), "top");
    size_t i;
    if (reply.status != 200) {
        xn_reply_reason(reply.status, reply.body, reply.bytes, reason);
        r = xn_error_set(error, -EPROTO, "the first image of %s is refused: %s", e->set->name, reason);
    }
    json_array_foreach(top, i, entry)
    {
        json_int_t class_index = json_integer_value(json_object_get(entry, "class"));
        const char *label = json_string_value(json_object_get(entry, "label"));
        if (label && class_index >= 0 && class_index < e->n_classes && !e->labels[class_index])
            e->labels[class_index] = strdup(label);
    }
    json_decref(answer);
    xn_reply_done(&reply);
    return r;
}

static uint32_t class_called(const struct eval *e, const char *name)
{
    uint64_t number;

    for (uint32_t i = 0; i < e->n_classes; i++) {
        if (e->labels[i] && strcmp(e->labels[i], name) == 0)
            return i;
    }
    /* A label such as "T-shirt/top" cannot name a folder; "0" can. */
    if (xn_number_u64(name, 0, e->n_classes - 1, &number))
        return (uint32_t)number;
    return UINT32_MAX;
}

static void list_labels(const struct eval *e, char *ret, size_t capacity)
{
    size_t used = 0;

    *ret = '\0';
    for (uint32_t i = 0; i < e->n_classes && used < capacity; i++) {
        if (e->labels[i])
            used += (size_t)snprintf(ret + used, capacity - used, "%s%s", used ? ", " : "", e->labels[i]);
    }
}

/* Do the classes of the set exist in the model? */
static int match_classes(struct eval *e, struct xn_error *error)
{
    char labels[256];

    for (uint64_t i = 0; !e->set->class_names && i < e->n; i++) {
        if (e->set->classes[e->order[i]] >= e->n_classes)
            return xn_error_set(
                error, -EINVAL, "%s: image %" PRIu64 " has label %u, but model %s has %u classes (0 to %u)",
                e->set->name, e->order[i], e->set->classes[e->order[i]], e->model, e->n_classes, e->n_classes - 1);
    }
    if (!e->set->class_names)
        return 0;
    e->class_of_name = xn_ctl_alloc(e->set->n_classes, sizeof(*e->class_of_name));
    for (uint32_t i = 0; i < e->set->n_classes; i++) {
        e->class_of_name[i] = class_called(e, e->set->class_names[i]);
        if (e->class_of_name[i] != UINT32_MAX)
            continue;
        list_labels(e, labels, sizeof(labels));
        return xn_error_set(
            error, -EINVAL, "%s: sub-folder \"%s\" is no class of model %s; they are numbers below %u or labels: %s",
            e->set->name, e->set->class_names[i], e->model, e->n_classes, *labels ? labels : "(it has none)");
    }
    return 0;
}

static int choose_encoding(struct eval *e, json_t *model, struct xn_error *error)
{
    json_t *shape = json_object_get(model, "input_shape");
    bool same = json_integer_value(json_array_get(shape, 0)) == e->set->h &&
                json_integer_value(json_array_get(shape, 1)) == e->set->w &&
                json_integer_value(json_array_get(shape, 2)) == e->set->c;

    if (e->set->paths)
        return 0;
    e->raw = same && json_is_true(json_object_get(model, "plain_pixels"));
    if (!e->raw && !json_is_true(json_object_get(model, "takes_images")))
        return xn_error_set(
            error, -EINVAL, "%s has images of %ux%ux%u pixels; model %s takes tensors only, %dx%dx%d %s", e->set->name,
            e->set->h, e->set->w, e->set->c, e->model, (int)json_integer_value(json_array_get(shape, 0)),
            (int)json_integer_value(json_array_get(shape, 1)), (int)json_integer_value(json_array_get(shape, 2)),
            json_string_value(json_object_get(model, "input_type")));
    if (!e->raw && e->set->c != 1 && e->set->c != 3)
        return xn_error_set(error, -EINVAL, "%s: images of %u channels cannot be sent as pictures", e->set->name,
                            e->set->c);
    return 0;
}

static int prepare(struct eval *e, json_t *status, struct xn_error *error)
{
    json_t *model = NULL;

    int r = xn_status_model(status, e->options->model, &model, error);
    if (r < 0)
        return r;
    e->model = json_string_value(json_object_get(model, "name"));
    json_int_t classes = json_integer_value(json_object_get(model, "classes"));
    if (classes < 1 || classes > XN_SET_CLASSES_MAX)
        return xn_error_set(error, -EINVAL, "model %s has %d classes; 1 to %u can be evaluated", e->model, (int)classes,
                            XN_SET_CLASSES_MAX);
    e->n_classes = (uint32_t)classes;
    e->labels = xn_ctl_alloc(e->n_classes, sizeof(*e->labels));
    choose(e);
    r = choose_encoding(e, model, error);
    if (r >= 0)
        r = ask_labels(e, error);
    if (r >= 0)
        r = match_classes(e, error);
    if (r < 0)
        return r;
    e->path = xn_infer_path(e->options->model, 0, e->options->timeout_ms);
    e->batch = (uint32_t)(e->options->batch ? e->options->batch : e->raw ? 16 : 1);
    e->n_jobs = (uint32_t)e->options->concurrency;
    e->jobs = xn_ctl_alloc(e->n_jobs, sizeof(*e->jobs));
    for (uint32_t i = 0; i < e->n_jobs; i++)
        e->jobs[i].images = xn_ctl_alloc(e->batch, sizeof(uint64_t));
    xn_score_init(&e->score, e->n_classes);
    return 0;
}

static int ask_all(struct eval *e, struct xn_error *error)
{
    struct xn_load_config config = {.connections = e->n_jobs,
                                    .timeout_ns = REQUEST_TIMEOUT_S * XN_NS_PER_S,
                                    .body_bytes = ANSWER_BYTES + ANSWER_IMAGE_BYTES * e->batch};
    struct xn_load_hooks hooks = {.user = e, .next = next, .done = done};
    struct xn_load *load = NULL;

    int r = xn_load_new(&e->target, &config, &load, error);
    if (r < 0)
        return r;
    xn_progress_init(&e->progress, "images", e->n);
    e->start_ns = xn_clock_now_ns();
    r = xn_load_run(load, &hooks, error);
    xn_progress_done(&e->progress);
    xn_load_free(load);
    return r;
}

/* ---- results ------------------------------------------------------------------------------------------------------ */

/* Images without an answer count as wrong: a server that answers half of a set has not passed. */
static double accuracy(const struct eval *e)
{
    return (double)e->score.correct / (double)e->n;
}

static bool passed(const struct eval *e)
{
    return e->failed == 0 && (e->options->expect < 0 || 100 * accuracy(e) >= e->options->expect);
}

static double seconds(const struct eval *e)
{
    return (double)(e->end_ns - e->start_ns) / (double)XN_NS_PER_S;
}

static json_t *class_json(const struct eval *e, uint32_t i)
{
    double precision, recall;
    json_t *o =
        json_pack("{s:i, s:s?, s:I, s:I}", "class", (int)i, "label", e->labels[i], "images",
                  (json_int_t)xn_score_of_class(&e->score, i), "correct", (json_int_t)xn_score_at(&e->score, i, i));

    json_object_set_new(o, "precision",
                        xn_score_precision(&e->score, i, &precision) ? json_real(precision) : json_null());
    json_object_set_new(o, "recall", xn_score_recall(&e->score, i, &recall) ? json_real(recall) : json_null());
    return o;
}

static json_t *confusion_json(const struct eval *e)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; i < e->n_classes; i++) {
        json_t *row = json_array();
        for (uint32_t k = 0; k < e->n_classes; k++)
            json_array_append_new(row, json_integer((json_int_t)xn_score_at(&e->score, i, k)));
        json_array_append_new(rows, row);
    }
    return rows;
}

static void print_json(const struct eval *e)
{
    json_t *classes = json_array(), *failures = json_array();

    for (uint32_t i = 0; i < e->n_classes; i++)
        json_array_append_new(classes, class_json(e, i));
    for (uint32_t i = 0; i < e->n_failures; i++)
        json_array_append_new(failures,
                              json_pack("{s:s, s:I, s:s}", "kind", e->failures[i].kind, "images",
                                        (json_int_t)e->failures[i].images, "example", e->failures[i].example));
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:o, s:b}", "url",
                             e->ctl->url, "model", e->model, "set", e->set->name, "sent_as",
                             e->set->paths ? "files"
                             : e->raw      ? "tensors"
                                           : "png",
                             "images", (json_int_t)e->n, "answered", (json_int_t)e->score.answered, "correct",
                             (json_int_t)e->score.correct, "accuracy", accuracy(e), "seconds", seconds(e),
                             "images_per_s", (double)e->score.answered / seconds(e), "classes", classes, "confusion",
                             confusion_json(e), "failures", failures, "passed", passed(e));
    if (e->options->expect >= 0)
        json_object_set_new(root, "expect_percent", json_real(e->options->expect));
    json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(root);
}

static struct xn_words name_of(const struct eval *e, uint32_t class_index)
{
    struct xn_words w;

    if (e->labels[class_index])
        snprintf(w.text, sizeof(w.text), "%.31s", e->labels[class_index]);
    else
        snprintf(w.text, sizeof(w.text), "class %u", class_index);
    return w;
}

static void cell_percent(struct xn_table *t, bool there, double part)
{
    if (there)
        xn_table_cell(t, "%.1f %%", 100 * part);
    else
        xn_table_cell(t, "-");
}

static void print_classes(const struct eval *e)
{
    struct xn_table *t = xn_table_new("rlrrr");

    xn_table_cell(t, "CLASS");
    xn_table_cell(t, "LABEL");
    xn_table_cell(t, "IMAGES");
    xn_table_cell(t, "PRECISION");
    xn_table_cell(t, "RECALL");
    for (uint32_t i = 0; i < e->n_classes; i++) {
        double precision = 0, recall = 0;
        if (xn_score_of_class(&e->score, i) == 0 && xn_score_taken_for(&e->score, i) == 0)
            continue;
        xn_table_cell(t, "%u", i);
        xn_table_cell(t, "%s", name_of(e, i).text);
        xn_table_cell(t, "%" PRIu64, xn_score_of_class(&e->score, i));
        bool there = xn_score_precision(&e->score, i, &precision);
        cell_percent(t, there, precision);
        there = xn_score_recall(&e->score, i, &recall);
        cell_percent(t, there, recall);
    }
    xn_table_end(t, stdout, 0);
}

/* Few classes: the whole table, a row for what an image is, a column for what it was taken for. */
static void print_table(const struct eval *e)
{
    char alignment[CONFUSION_COLUMNS + 2] = "l";

    memset(alignment + 1, 'r', e->n_classes);
    struct xn_table *t = xn_table_new(alignment);
    xn_table_cell(t, "IS \\ TAKEN FOR");
    for (uint32_t i = 0; i < e->n_classes; i++)
        xn_table_cell(t, "%u", i);
    for (uint32_t i = 0; i < e->n_classes; i++) {
        xn_table_cell(t, "%u %s", i, name_of(e, i).text);
        for (uint32_t k = 0; k < e->n_classes; k++)
            xn_table_cell(t, xn_score_at(&e->score, i, k) ? "%" PRIu64 : ".", xn_score_at(&e->score, i, k));
    }
    xn_table_end(t, stdout, 0);
}

/* Many classes: the pairs that are confused most. */
static void print_worst(const struct eval *e)
{
    uint64_t limit = UINT64_MAX;

    puts("most often confused:");
    for (uint32_t shown = 0; shown < CONFUSIONS_SHOWN;) {
        uint64_t most = 0;
        for (uint32_t i = 0; i < e->n_classes; i++)
            for (uint32_t k = 0; k < e->n_classes; k++)
                if (i != k && xn_score_at(&e->score, i, k) < limit)
                    most = XN_MAX(most, xn_score_at(&e->score, i, k));
        if (most == 0)
            return;
        for (uint32_t i = 0; i < e->n_classes; i++)
            for (uint32_t k = 0; k < e->n_classes && shown < CONFUSIONS_SHOWN; k++)
                if (i != k && xn_score_at(&e->score, i, k) == most) {
                    printf("  %" PRIu64 " x %s taken for %s\n", most, name_of(e, i).text, name_of(e, k).text);
                    shown++;
                }
        limit = most;
    }
}

static void print_text(const struct eval *e)
{
    printf("model       %s at %s\n", e->model, e->ctl->url);
    printf("set         %s: %" PRIu64 " images, sent as %s\n", e->set->name, e->n,
           e->set->paths ? "they are"
           : e->raw      ? "raw tensors"
                         : "PNG pictures");
    printf("accuracy    %.2f %% (%" PRIu64 " of %" PRIu64 ")", 100 * accuracy(e), e->score.correct, e->n);
    if (e->options->expect >= 0)
        printf(", %s: %g %% expected", 100 * accuracy(e) >= e->options->expect ? "passed" : "FAILED",
               e->options->expect);
    printf("\ntime        %.2f s, %.0f images/s\n\n", seconds(e), (double)e->score.answered / seconds(e));
    print_classes(e);
    putchar('\n');
    if (e->n_classes <= CONFUSION_COLUMNS)
        print_table(e);
    else
        print_worst(e);
    for (uint32_t i = 0; i < e->n_failures; i++) {
        printf("%s%" PRIu64 " image%s failed (%s), the first: ", i ? "" : "\n", e->failures[i].images,
               e->failures[i].images == 1 ? "" : "s", e->failures[i].kind);
        xn_put_safe(stdout, e->failures[i].example);
        putchar('\n');
    }
}

/* ---- the command -------------------------------------------------------------------------------------------------- */

static int run(struct eval *e, const char *folder, json_t **ret_status, struct xn_error *error)
{
    int r = load_set(e, folder, error);
    if (r >= 0)
        r = xn_target_parse(e->ctl, &e->target, error);
    if (r >= 0)
        r = xn_client_new(e->ctl, CONTROL_TIMEOUT_MS, &e->client, error);
    if (r >= 0)
        r = xn_client_get_json(e->client, "/v1/status", ret_status, error);
    if (r >= 0)
        r = prepare(e, *ret_status, error);
    return r < 0 ? r : ask_all(e, error);
}

static void eval_done(struct eval *e)
{
    for (uint32_t i = 0; i < e->n_jobs; i++) {
        free(e->jobs[i].bytes);
        free(e->jobs[i].images);
    }
    for (uint32_t i = 0; e->labels && i < e->n_classes; i++)
        free(e->labels[i]);
    free(e->jobs);
    free(e->labels);
    free(e->class_of_name);
    free(e->path);
    free(e->order);
    free(e->singles);
    xn_score_done(&e->score);
    xn_set_free(e->set);
    xn_client_free(e->client);
    xn_target_done(&e->target);
}

static void check(struct xn_ctl *ctl, const struct options *o, int n)
{
    if (n > 1 || (n == 1) == (o->images != NULL) || (o->images == NULL) != (o->labels == NULL))
        xn_opt_usage(ctl, "give one FOLDER, or --images FILE with --labels FILE");
}

int xn_ctl_eval(struct xn_ctl *ctl, int argc, char **argv)
{
    struct options o = {.split = "t10k", .concurrency = 8, .expect = -1};
    const struct xn_opt opts[] = {
        {"images", 'i', XN_OPT_TEXT, &o.images, 0, 0, "FILE", "IDX file of images, gzip or plain (with --labels)"},
        {"labels", 'l', XN_OPT_TEXT, &o.labels, 0, 0, "FILE", "IDX file of their labels"},
        {"split", 's', XN_OPT_TEXT, &o.split, 0, 0, "NAME", "of a folder of IDX files: t10k (default) or train"},
        {"limit", 'n', XN_OPT_U64, &o.limit, 1, 1e12, "N",
         "only N images: the first of an IDX file, evenly spread over a folder"},
        {"model", 'm', XN_OPT_TEXT, &o.model, 0, 0, "NAME", "model to ask (default: the server's default)"},
        {"concurrency", 'c', XN_OPT_U64, &o.concurrency, 1, 1024, "N", "connections (default 8)"},
        {"batch", 'b', XN_OPT_U64, &o.batch, 1, IMAGES_MAX, "N",
         "images in a request (default 16 for tensors, 1 for pictures)"},
        {"timeout-ms", 't', XN_OPT_U64, &o.timeout_ms, 1, 600000, "MS", "deadline that the server is asked to keep"},
        {"expect", 'e', XN_OPT_DOUBLE, &o.expect, 0, 100, "PERCENT", "exit with 1 where the accuracy is below this"},
    };
    const struct xn_opt_about about = {
        "[FOLDER]",
        "Measure accuracy on a labelled set through a running server. FOLDER holds MNIST's kind of IDX files, or a\n"
        "sub-folder of pictures for each class, called by label or class number.",
        "Images that get no answer count as wrong. Exit status: 0 measured, and as good as --expect; 1 below it, or "
        "some\n"
        "images failed; 2 wrong command line.\n"
        "\n"
        "  xnorctl eval /usr/share/datasets/fashion-mnist --expect 89",
        false};
    struct eval e = {.options = &o, .ctl = ctl};
    struct xn_error error;
    json_t *status = NULL;
    char **operands;

    int n = xn_opt_parse(ctl, &about, opts, XN_ARRAY_LEN(opts), argc, argv, &operands);
    check(ctl, &o, n);
    int r = run(&e, n ? operands[0] : NULL, &status, &error), result = XN_CTL_FAILED;
    if (r < 0) {
        xn_ctl_fail(ctl, &error);
    } else {
        if (ctl->json)
            print_json(&e);
        else
            print_text(&e);
        result = passed(&e) ? XN_CTL_OK : XN_CTL_FAILED;
    }
    eval_done(&e);
    json_decref(status);
    return result;
}
