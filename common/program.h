/* SPDX-License-Identifier: Apache-2.0
 * Where this program lies: what is installed beside it is found from there. */
#ifndef XN_COMMON_PROGRAM_H
#define XN_COMMON_PROGRAM_H

#include <limits.h>

/** The folder of the running program's file into ret_folder, without a slash at its end; "." where the system does not say. Threads: any. */
void xn_program_folder(char ret_folder[PATH_MAX]);

#endif
