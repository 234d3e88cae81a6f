/* SPDX-License-Identifier: Apache-2.0
 * Where XRT is: xnor-xrt.so, beside the program (a build tree) or in ../lib/xnord from there (an installation), or $XNORD_XRT_MODULE. */
#include "accel/xrt/xrt.h"

#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/program.h"

#define MODULE "xnor-xrt.so"

static pthread_mutex_t module_lock = PTHREAD_MUTEX_INITIALIZER; /* guards both */
static const struct xn_xrt_api *loaded, *replaced;

/** The module in `below` of `folder`; NULL: there is none, or it does not load, which *ret_why tells where it exists. */
static void *open_in(const char *folder, const char *below, char *ret_why, size_t bytes)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof(path), "%s%s/" MODULE, folder, below) >= sizeof(path) || access(path, F_OK) < 0)
        return NULL;
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module)
        snprintf(ret_why, bytes, "%s", dlerror());
    return module;
}

/** BUILD of BUILD/tests/KIND, where test programs lie; NULL of any other folder: what lies above it may be anybody's.
 * Uses up the text. */
static const char *build_of(char *folder)
{
    char *parent = dirname(folder);
    const char *name = strrchr(parent, '/');

    return name && strcmp(name, "/tests") == 0 ? dirname(parent) : NULL;
}

static void *find_module(char *ret_why, size_t bytes)
{
    const char *path = getenv("XNORD_XRT_MODULE");
    char folder[PATH_MAX];

    snprintf(ret_why, bytes, "there is no " MODULE " beside the program or in ../lib/xnord");
    if (path) {
        void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!module)
            snprintf(ret_why, bytes, "%s", dlerror());
        return module;
    }
    xn_program_folder(folder);
    void *module = open_in(folder, "", ret_why, bytes);
    if (!module)
        module = open_in(folder, "/../lib/xnord", ret_why, bytes);
    const char *build = module ? NULL : build_of(folder);
    return build ? open_in(build, "", ret_why, bytes) : module;
}

static int load(struct xn_error *error)
{
    char why[XN_ERROR_TEXT_BYTES / 2];
    const struct xn_xrt_api *(*entry)(void) = NULL;
    void *module = find_module(why, sizeof(why));

    if (!module)
        return xn_error_set(error, -ENODEV,
                            "xrt: cannot load the Xilinx Runtime: %s; install XRT (Debian: libxrt1) and an xnord that "
                            "was built with it, or take kind \"xrt\" out of accelerators",
                            why);
    *(void **)&entry = dlsym(module, XN_XRT_ENTRY);
    const struct xn_xrt_api *api = entry ? entry() : NULL;
    if (!api || api->version != XN_XRT_API_VERSION) {
        dlclose(module);
        return xn_error_set(error, -ENODEV, "xrt: " MODULE " is of another version of xnord: install both of one");
    }
    loaded = api;
    return 0;
}

int xn_xrt_module(const struct xn_xrt_api **ret_api, struct xn_error *error)
{
    pthread_mutex_lock(&module_lock);
    const int r = replaced || loaded ? 0 : load(error);
    if (r == 0)
        *ret_api = replaced ? replaced : loaded;
    pthread_mutex_unlock(&module_lock);
    return r;
}

void xn_xrt_module_replace(const struct xn_xrt_api *api)
{
    pthread_mutex_lock(&module_lock);
    replaced = api;
    pthread_mutex_unlock(&module_lock);
}
