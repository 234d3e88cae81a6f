/* SPDX-License-Identifier: Apache-2.0 */
#include "common/program.h"

#include <string.h>
#include <unistd.h>

void xn_program_folder(char ret_folder[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", ret_folder, PATH_MAX - 1);

    ret_folder[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(ret_folder, '/');
    if (!slash)
        strcpy(ret_folder, ".");
    else
        slash[slash == ret_folder] = '\0'; /* the root keeps its own */
}
