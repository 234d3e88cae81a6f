/* SPDX-License-Identifier: Apache-2.0
 * The process_* families that Prometheus client libraries have in common. What cannot be read is left out. */
#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "daemon/observe/text.h"

static void one(struct xn_metrics_text *text, const char *name, const char *type, const char *help, double value)
{
    xn_metrics_family(text, name, type, help);
    xn_metrics_sample(text, name, "", value);
}

static void render_memory(struct xn_metrics_text *text)
{
    unsigned long long total, resident;
    double page_bytes = (double)sysconf(_SC_PAGESIZE);
    FILE *file = fopen("/proc/self/statm", "re");

    if (!file)
        return;
    int n = fscanf(file, "%llu %llu", &total, &resident);
    fclose(file);
    if (n != 2)
        return;
    one(text, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
        (double)resident * page_bytes);
    one(text, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", (double)total * page_bytes);
}

static void render_files(struct xn_metrics_text *text)
{
    DIR *folder = opendir("/proc/self/fd");
    struct rlimit limit;
    double n = -1; /* the folder's own descriptor */

    if (folder) {
        for (const struct dirent *entry; (entry = readdir(folder));)
            n += entry->d_name[0] != '.';
        closedir(folder);
        one(text, "process_open_fds", "gauge", "Number of open file descriptors.", n);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        one(text, "process_max_fds", "gauge", "Maximum number of open file descriptors.", (double)limit.rlim_cur);
}

void xn_metrics_text_process(struct xn_metrics_text *text, double start_time_s)
{
    struct timespec cpu;

    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0)
        one(text, "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.",
            (double)cpu.tv_sec + (double)cpu.tv_nsec * 1e-9);
    render_memory(text);
    render_files(text);
    one(text, "process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.",
        start_time_s);
}
