/* SPDX-License-Identifier: Apache-2.0
 * C simulations are built for one geometry each and say so when they are opened, so the right one is found by trying. */
#include "accel/vcard/engine.h"

#include <dlfcn.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "common/macros.h"
#include "common/program.h"

static int open_linked(struct xn_vcard_engine *engine, const struct xn_isa_geometry *geometry, struct xn_error *error)
{
    const char *why = "no memory";

    *engine = (struct xn_vcard_engine){.name = "scalar", .close = xn_sim_close, .run = xn_sim_run};
    engine->sim = xn_sim_open(geometry, &why);
    return engine->sim ? 0 : xn_error_set(error, -ENOENT, "scalar engine: %s", why);
}

static int open_library(struct xn_vcard_engine *engine, const char *path, const struct xn_isa_geometry *geometry,
                        struct xn_error *error)
{
    struct xn_sim *(*open)(const struct xn_isa_geometry *, const char **);
    const char *why = "no memory";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return xn_error_set(error, -ENOENT, "engine: %s", dlerror());
    *engine = (struct xn_vcard_engine){.library = library};
    *(void **)&open = dlsym(library, "xn_sim_open");
    *(void **)&engine->close = dlsym(library, "xn_sim_close");
    *(void **)&engine->run = dlsym(library, "xn_sim_run");
    engine->sim = open && engine->close && engine->run ? open(geometry, &why) : NULL;
    if (engine->sim) {
        snprintf(engine->name, sizeof(engine->name), "%s", path);
        return 0;
    }
    xn_error_set(error, -ENOENT, "engine %s: %s", path, open ? why : "not a simulator");
    dlclose(library);
    return -ENOENT;
}

static int open_simulation_of(struct xn_vcard_engine *engine, const char *pattern,
                              const struct xn_isa_geometry *geometry, struct xn_error *error)
{
    glob_t found;
    int r = -ENOENT;

    if (glob(pattern, 0, NULL, &found) != 0)
        return r;
    for (size_t i = 0; r < 0 && i < found.gl_pathc; i++)
        r = open_library(engine, found.gl_pathv[i], geometry, error);
    globfree(&found);
    return r;
}

/** Beside this program, where the Makefile puts simulations too, or installed. */
static int open_simulation(struct xn_vcard_engine *engine, const struct xn_isa_geometry *geometry,
                           struct xn_error *error)
{
    static const char *const places[] = {".", "../lib/xnord/vcard"};
    char folder[PATH_MAX], pattern[PATH_MAX + 64];
    int r = -ENOENT;

    xn_program_folder(folder);
    for (size_t i = 0; r < 0 && i < XN_ARRAY_LEN(places); i++) {
        snprintf(pattern, sizeof(pattern), "%s/%s/libxnor-sim-hls-*.so", folder, places[i]);
        r = open_simulation_of(engine, pattern, geometry, error);
    }
    return r < 0 ? xn_error_set(error, r, "engine: no C simulation of this geometry is in %s or in ../lib/xnord/vcard",
                                folder)
                 : 0;
}

int xn_vcard_engine_init(struct xn_vcard_engine *engine, const char *which, const struct xn_isa_geometry *geometry,
                         struct xn_error *error)
{
    const bool is_auto = strcmp(which, "auto") == 0;

    if (strcmp(which, "scalar") == 0)
        return open_linked(engine, geometry, error);
    if (!is_auto && strcmp(which, "hls") != 0)
        return open_library(engine, which, geometry, error);
    const int r = open_simulation(engine, geometry, error);
    return r < 0 && is_auto ? open_linked(engine, geometry, error) : r;
}

void xn_vcard_engine_done(struct xn_vcard_engine *engine)
{
    if (engine->sim)
        engine->close(engine->sim);
    if (engine->library)
        dlclose(engine->library);
    engine->sim = NULL;
    engine->library = NULL;
}
