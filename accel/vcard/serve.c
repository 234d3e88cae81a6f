/* SPDX-License-Identifier: Apache-2.0
 * One process looks after the cards, each a process of its own, so that a card can crash. It has one thread, which waits for signals
 * (of which the end of a child is one) and for the next reading of the counters.
 *
 *     card:  starting --ready--> up --dies--> dead --revive_ms--> starting
 *
 * Signals that end a program go to the command, where there is one; when that ends, so do the cards. */
#include "accel/vcard/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "accel/vcard/axlf.h"
#include "accel/vcard/card.h"
#include "accel/vcard/stats.h"
#include "accel/vcard/sysfs.h"
#include "common/clock.h"
#include "common/program.h"

#define READING_MS   250u  /**< between two writings of counters and power */
#define END_MS       5000u /**< a card that has not ended by then is killed */
#define PATH_BYTES   96u   /**< of the folder: sockets have 108 */
#define EXIT_NO_EXEC 126
#define EXIT_NO_FILE 127

struct keeper {
    const struct xn_vcard_options *options;
    struct xn_vcard_stats *stats; /**< shared with the cards */
    char folder[PATH_BYTES], sysfs[PATH_BYTES + 4];
    bool owns_folder;
    pid_t cards[XN_VCARD_CARDS_MAX];        /**< 0: dead */
    uint64_t lives[XN_VCARD_CARDS_MAX];     /**< processes that a card has had */
    uint64_t revive_ns[XN_VCARD_CARDS_MAX]; /**< when a dead one is due */
    struct xn_vcard_power power[XN_VCARD_CARDS_MAX];
    int signals;
    sigset_t mask_before;
    pid_t command; /**< 0: none */
    int status;    /**< of the program */
    bool ends;
};

static void complain(const char *what, const char *why)
{
    fprintf(stderr, "xnor-vcard: %s: %s\n", what, why);
}

/* ---- cards --------------------------------------------------------------------------------------------------------- */

XN_NORETURN static void be_card(const struct keeper *keeper, uint32_t index, int ready)
{
    struct xn_error error = {0};
    char path[PATH_BYTES + 16];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "xnor-vcard-card");
    close(keeper->signals);
    snprintf(path, sizeof(path), "%s/card-%u", keeper->folder, index);
    const int r = xn_vcard_card_serve(keeper->options, index, keeper->lives[index], path, &keeper->stats->cards[index],
                                      ready, &error);
    if (r < 0)
        complain("card", error.text);
    munmap(keeper->stats, sizeof(*keeper->stats));
    exit(r < 0 ? 1 : 0);
}

/** Start a card and wait until it can be opened. False: it said why not. */
static bool start_card(struct keeper *keeper, uint32_t index)
{
    int ready[2];
    char byte;

    keeper->lives[index]++;
    if (pipe2(ready, O_CLOEXEC) < 0)
        return false;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        close(ready[0]);
        be_card(keeper, index, ready[1]);
    }
    close(ready[1]);
    keeper->cards[index] = child < 0 ? 0 : child;
    const bool is_up = child > 0 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    if (is_up)
        xn_vcard_set(&keeper->stats->cards[index].process, (uint64_t)child);
    return is_up;
}

/** Bring its energy up to now and show its power. */
static void read_power(struct keeper *keeper, uint32_t index)
{
    xn_vcard_power_account(keeper->options, index, &keeper->stats->cards[index], &keeper->power[index]);
    const int r = xn_vcard_sysfs_write(keeper->sysfs, index, &keeper->power[index]);
    if (r < 0)
        complain(keeper->sysfs, strerror(-r));
}

static void on_card_end(struct keeper *keeper, uint32_t index)
{
    struct xn_vcard_card_stats *stats = &keeper->stats->cards[index];

    read_power(keeper, index); /* up to here */
    keeper->cards[index] = 0;
    keeper->revive_ns[index] = xn_clock_now_ns() + keeper->options->revive_ms * XN_NS_PER_MS;
    xn_vcard_set(&stats->process, 0);
    read_power(keeper, index);
    if (!keeper->ends)
        xn_vcard_count(&stats->deaths, 1);
    for (uint32_t i = 0; i < keeper->options->units; i++)
        xn_vcard_set(&stats->units[i].started_ns, 0);
}

static void revive_cards(struct keeper *keeper)
{
    const uint64_t now_ns = xn_clock_now_ns();

    for (uint32_t i = 0; i < keeper->options->cards; i++)
        if (!keeper->cards[i] && now_ns >= keeper->revive_ns[i] && !start_card(keeper, i))
            keeper->revive_ns[i] = now_ns + XN_NS_PER_S; /* its process says why on stderr; try again */
}

/** Ask every card to end, and kill those that do not. */
static void end_cards(struct keeper *keeper)
{
    const uint64_t until_ns = xn_clock_now_ns() + END_MS * XN_NS_PER_MS;

    for (uint32_t i = 0; i < keeper->options->cards; i++)
        if (keeper->cards[i])
            kill(keeper->cards[i], SIGTERM);
    for (uint32_t i = 0; i < keeper->options->cards; i++) {
        while (keeper->cards[i] && waitpid(keeper->cards[i], NULL, WNOHANG) == 0) {
            if (xn_clock_now_ns() > until_ns)
                kill(keeper->cards[i], SIGKILL);
            poll(NULL, 0, 5);
        }
        if (keeper->cards[i])
            on_card_end(keeper, i);
    }
}

/* ---- the command --------------------------------------------------------------------------------------------------- */

/** XRT's folder with our driver: of a build, or installed. */
static bool find_xrt(char *ret_path, size_t n)
{
    static const char *const places[] = {"vcard/xrt", "../lib/xnord/vcard/xrt"};
    char folder[PATH_MAX], driver[PATH_MAX + 128];

    xn_program_folder(folder);
    for (size_t i = 0; i < XN_ARRAY_LEN(places); i++) {
        snprintf(ret_path, n, "%s/%s", folder, places[i]);
        snprintf(driver, sizeof(driver), "%s/lib/libxrt_core.so.2", ret_path);
        if (access(driver, R_OK) == 0)
            return true;
    }
    return false;
}

XN_NORETURN static void be_command(const struct keeper *keeper, char **command, const char *xrt)
{
    char text[PATH_BYTES + 16];

    snprintf(text, sizeof(text), "%u", keeper->options->cards);
    setenv(XN_VCARD_ENV_CARDS, text, 1);
    setenv(XN_VCARD_ENV_FOLDER, keeper->folder, 1);
    snprintf(text, sizeof(text), "%s/xnor.xclbin", keeper->folder);
    setenv(XN_VCARD_ENV_XCLBIN, text, 1);
    setenv(XN_VCARD_ENV_SYSFS, keeper->sysfs, 1);
    setenv("XILINX_XRT", xrt, 1);
    unsetenv("XCL_EMULATION_MODE");
    sigprocmask(SIG_SETMASK, &keeper->mask_before, NULL);
    execvp(command[0], command);
    const int code = errno == ENOENT ? EXIT_NO_FILE : EXIT_NO_EXEC;
    complain(command[0], strerror(errno));
    _exit(code);
}

static bool start_command(struct keeper *keeper, char **command)
{
    char xrt[PATH_MAX + 64];

    if (!find_xrt(xrt, sizeof(xrt))) {
        complain("driver",
                 "no vcard/xrt/lib/libxrt_core.so.2 beside this program or in ../lib/xnord: was it built without XRT?");
        return false;
    }
    fflush(NULL);
    keeper->command = fork();
    if (keeper->command == 0)
        be_command(keeper, command, xrt);
    if (keeper->command > 0)
        return true;
    complain("fork", strerror(errno));
    return false;
}

/* ---- signals ------------------------------------------------------------------------------------------------------- */

static void reap(struct keeper *keeper)
{
    int status;
    pid_t child;

    while ((child = waitpid(-1, &status, WNOHANG)) > 0) {
        if (child == keeper->command) {
            keeper->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            keeper->ends = true;
        }
        for (uint32_t i = 0; i < keeper->options->cards; i++)
            if (child == keeper->cards[i])
                on_card_end(keeper, i);
    }
}

/** A signal from a terminal has reached the command, too. */
static void on_signal(struct keeper *keeper, const struct signalfd_siginfo *info)
{
    if (info->ssi_signo == SIGCHLD)
        reap(keeper);
    else if (!keeper->command)
        keeper->ends = true;
    else if (info->ssi_code != SI_KERNEL)
        kill(keeper->command, (int)info->ssi_signo);
}

static int catch_signals(struct keeper *keeper)
{
    static const int caught[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < XN_ARRAY_LEN(caught); i++)
        sigaddset(&set, caught[i]);
    sigprocmask(SIG_BLOCK, &set, &keeper->mask_before);
    keeper->signals = signalfd(-1, &set, SFD_CLOEXEC);
    return keeper->signals < 0 ? -errno : 0;
}

/* ---- readings ------------------------------------------------------------------------------------------------------ */

static void write_readings(struct keeper *keeper)
{
    const struct xn_vcard_options *o = keeper->options;

    for (uint32_t i = 0; i < o->cards; i++)
        read_power(keeper, i);
    const int r = o->stats ? xn_vcard_stats_write(keeper->stats, o, o->stats) : 0;
    if (r < 0)
        complain(o->stats, strerror(-r));
}

/** Milliseconds until something is due. */
static int wait_ms(const struct keeper *keeper, uint64_t reading_ns)
{
    const uint64_t now_ns = xn_clock_now_ns();
    uint64_t due_ns = reading_ns;

    for (uint32_t i = 0; i < keeper->options->cards; i++)
        if (!keeper->cards[i])
            due_ns = XN_MIN(due_ns, keeper->revive_ns[i]);
    return due_ns <= now_ns ? 0 : (int)((due_ns - now_ns) / XN_NS_PER_MS) + 1;
}

static void keep(struct keeper *keeper)
{
    struct pollfd polled = {keeper->signals, POLLIN, 0};
    uint64_t reading_ns = 0;

    while (!keeper->ends) {
        if (xn_clock_now_ns() >= reading_ns) {
            write_readings(keeper);
            reading_ns = xn_clock_now_ns() + READING_MS * XN_NS_PER_MS;
        }
        struct signalfd_siginfo info;
        if (poll(&polled, 1, wait_ms(keeper, reading_ns)) > 0 &&
            read(keeper->signals, &info, sizeof(info)) == sizeof(info))
            on_signal(keeper, &info);
        if (!keeper->ends)
            revive_cards(keeper);
    }
}

/* ---- beginning and end --------------------------------------------------------------------------------------------- */

static bool write_xclbin(const struct keeper *keeper)
{
    char path[PATH_BYTES + 16];
    void *bytes;
    size_t n;

    if (xn_axlf_make(keeper->options, &bytes, &n) < 0)
        return false;
    snprintf(path, sizeof(path), "%s/xnor.xclbin", keeper->folder);
    FILE *f = fopen(path, "we");
    const bool written = f && fwrite(bytes, 1, n, f) == n;
    const bool ok = f && fclose(f) == 0 && written;
    if (!ok)
        complain(path, strerror(errno));
    free(bytes);
    return ok;
}

static bool make_folder(struct keeper *keeper, const char *folder)
{
    const char *temporary = getenv("TMPDIR");
    const int n = folder ? snprintf(keeper->folder, PATH_BYTES, "%s", folder)
                         : snprintf(keeper->folder, PATH_BYTES, "%s/xnor-vcard-XXXXXX", temporary ? temporary : "/tmp");

    if (n < 0 || (size_t)n >= PATH_BYTES) {
        complain("folder", "its name is too long for sockets");
        return false;
    }
    keeper->owns_folder = !folder;
    if (folder || mkdtemp(keeper->folder)) {
        snprintf(keeper->sysfs, sizeof(keeper->sysfs), "%s/sys", keeper->folder);
        return true;
    }
    complain(keeper->folder, strerror(errno));
    keeper->owns_folder = false;
    return false;
}

static void remove_folder(const struct keeper *keeper)
{
    char path[PATH_BYTES + 16];

    for (uint32_t i = 0; i < keeper->options->cards; i++) { /* of cards that were killed */
        snprintf(path, sizeof(path), "%s/card-%u", keeper->folder, i);
        unlink(path);
    }
    snprintf(path, sizeof(path), "%s/xnor.xclbin", keeper->folder);
    unlink(path);
    xn_vcard_sysfs_remove(keeper->sysfs, keeper->options->cards);
    if (keeper->owns_folder)
        rmdir(keeper->folder);
}

static bool add_to_sysfs(const struct keeper *keeper, uint32_t index)
{
    const int r = xn_vcard_sysfs_add(keeper->sysfs, index);

    if (r < 0)
        complain(keeper->sysfs, strerror(-r));
    return r == 0;
}

static bool start(struct keeper *keeper, const char *folder, char **command)
{
    if (catch_signals(keeper) < 0 || !make_folder(keeper, folder))
        return false;
    bool ok = write_xclbin(keeper);
    for (uint32_t i = 0; ok && i < keeper->options->cards; i++)
        ok = add_to_sysfs(keeper, i) && start_card(keeper, i);
    if (ok)
        write_readings(keeper); /* a sensor is there when its card is */
    if (ok && command)
        ok = start_command(keeper, command);
    return ok;
}

int xn_vcard_serve(const struct xn_vcard_options *options, const char *folder, char **command)
{
    struct keeper keeper = {.options = options, .signals = -1};

    keeper.stats = mmap(NULL, sizeof(*keeper.stats), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (keeper.stats == MAP_FAILED) {
        complain("counters", strerror(errno));
        return 1;
    }
    keeper.stats->start_ns = xn_clock_now_ns();
    if (start(&keeper, folder, command))
        keep(&keeper);
    else
        keeper.status = 1;
    keeper.ends = true;
    end_cards(&keeper);
    if (keeper.sysfs[0])
        write_readings(&keeper);
    if (keeper.folder[0])
        remove_folder(&keeper);
    if (keeper.signals >= 0)
        close(keeper.signals);
    munmap(keeper.stats, sizeof(*keeper.stats));
    return keeper.status;
}
