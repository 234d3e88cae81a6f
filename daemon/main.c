/* SPDX-License-Identifier: Apache-2.0
 * The program: command line, signals, systemd. All signals are blocked in every thread and read here through a signalfd, so that they are
 * handled as ordinary events between two waits:
 *
 *     SIGTERM, SIGINT  drain, exit 0 (a second one: the wait ends, what is left gets 503, exit 1)
 *     SIGHUP           reload configuration and models (a second one meanwhile: once more, from the beginning)
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "common/clock.h"
#include "common/log.h"
#include "daemon/app.h"
#include "daemon/config.h"

#define TICK_MS  1000
#define DRAIN_MS 5 /* between two looks whether the drain is over */
/* A thread that has not been seen for this long keeps the watchdog from being fed; systemd's own limit (WatchdogSec) comes on top. */
#define STALE_NS (10 * XN_NS_PER_S)
/* What the service manager is told to wait on for, beyond the next tick, or the end of the drain. */
#define EXTEND_US (10 * XN_NS_PER_S / XN_NS_PER_US)

enum { EXIT_USAGE = 2 };

struct options {
    const char *config_path;
    const char *listen[XN_CONFIG_LISTENERS_MAX];
    uint32_t n_listen;
    const char *models[XN_CONFIG_MODELS_MAX];
    uint32_t n_models;
    const char *instances, *threads, *cpu_mask, *log_level;
    const char *port_file;
    bool check_config;
};

static void print_help(FILE *to)
{
    fputs("xnord " XN_VERSION ": inference server for binary neural networks\n"
          "\n"
          "usage: xnord [OPTION]...\n"
          "\n"
          "  -c, --config FILE         configuration (default /etc/xnord/xnord.json where it exists)\n"
          "  -l, --listen ADDR:PORT    listen here instead; [::1]:8000 for IPv6; port 0: the kernel chooses;\n"
          "                            unix:PATH; repeatable\n"
          "  -m, --model [NAME=]FILE   serve this .xnor file instead of the configured models; repeatable\n"
          "      --instances N         CPU instances\n"
          "      --threads N           threads of each CPU instance\n"
          "      --cpu-mask LEVEL      highest instruction set level to use (\"portable\" ...)\n"
          "      --log-level LEVEL     error, warning, info or debug\n"
          "      --port-file FILE      write the port of the first listener here once it is ready\n"
          "      --check-config        check the configuration, say what is wrong, and exit\n"
          "      --print-config-keys   list every configuration key with its type, range and default, as JSON\n"
          "  -V, --version             print the version\n"
          "  -h, --help                this\n"
          "\n"
          "SIGTERM drains and ends; SIGHUP reloads configuration and models. See xnord(8), xnord.json(5).\n",
          to);
}

enum { OPT_INSTANCES = 256, OPT_THREADS, OPT_CPU_MASK, OPT_LOG_LEVEL, OPT_PORT_FILE, OPT_CHECK, OPT_KEYS };

static const struct option long_options[] = {
    {"config", required_argument, NULL, 'c'},
    {"listen", required_argument, NULL, 'l'},
    {"model", required_argument, NULL, 'm'},
    {"instances", required_argument, NULL, OPT_INSTANCES},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"cpu-mask", required_argument, NULL, OPT_CPU_MASK},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"port-file", required_argument, NULL, OPT_PORT_FILE},
    {"check-config", no_argument, NULL, OPT_CHECK},
    {"print-config-keys", no_argument, NULL, OPT_KEYS},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void usage_error(const char *what)
{
    fprintf(stderr, "xnord: %s; see xnord --help\n", what);
    exit(EXIT_USAGE);
}

static void add_option(const char **list, uint32_t *n, uint32_t max, const char *what)
{
    if (*n == max)
        usage_error(what);
    list[(*n)++] = optarg;
}

static void parse_options(int argc, char **argv, struct options *o)
{
    int c;

    while ((c = getopt_long(argc, argv, "c:l:m:Vh", long_options, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->config_path = optarg;
            break;
        case 'l':
            add_option(o->listen, &o->n_listen, XN_CONFIG_LISTENERS_MAX, "too many --listen");
            break;
        case 'm':
            add_option(o->models, &o->n_models, XN_CONFIG_MODELS_MAX, "too many --model");
            break;
        case OPT_INSTANCES:
            o->instances = optarg;
            break;
        case OPT_THREADS:
            o->threads = optarg;
            break;
        case OPT_CPU_MASK:
            o->cpu_mask = optarg;
            break;
        case OPT_LOG_LEVEL:
            o->log_level = optarg;
            break;
        case OPT_PORT_FILE:
            o->port_file = optarg;
            break;
        case OPT_CHECK:
            o->check_config = true;
            break;
        case OPT_KEYS:
            exit(xn_config_dump_keys(stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
        case 'V':
            puts("xnord " XN_VERSION " (" XN_GIT ")");
            exit(EXIT_SUCCESS);
        case 'h':
            print_help(stdout);
            exit(EXIT_SUCCESS);
        default:
            exit(EXIT_USAGE); /* getopt has said why */
        }
    }
    if (optind < argc)
        usage_error("takes no arguments besides options");
}

/* The configuration as file and command line give it; used at start and again at SIGHUP. */
static int read_config(const struct options *o, struct xn_config *config, struct xn_error *error)
{
    static const char default_path[] = "/etc/xnord/xnord.json";
    const char *path = o->config_path ? o->config_path : access(default_path, F_OK) == 0 ? default_path : NULL;
    int r = 0;

    xn_config_init(config);
    if (path)
        r = xn_config_load(config, path, error);
    for (uint32_t i = 0; r >= 0 && i < o->n_listen; i++)
        r = xn_config_set_listen(config, i, o->listen[i], error);
    for (uint32_t i = 0; r >= 0 && i < o->n_models; i++)
        r = xn_config_set_model(config, i, o->models[i], error);
    if (r >= 0 && o->instances)
        r = xn_config_set(config, "accelerators[0].instances", o->instances, error);
    if (r >= 0 && o->threads)
        r = xn_config_set(config, "accelerators[0].threads", o->threads, error);
    if (r >= 0 && o->cpu_mask)
        r = xn_config_set(config, "accelerators[0].cpu_mask", o->cpu_mask, error);
    if (r >= 0 && o->log_level)
        r = xn_config_set(config, "log.level", o->log_level, error);
    if (r >= 0 && config->n_models == 0 && !config->repository.path)
        r = xn_error_set(
            error, -EINVAL,
            "no model to serve: name one in the configuration's \"models\" or with --model FILE, or a folder of them "
            "in \"repository\"");
    if (r < 0)
        xn_config_done(config);
    return r;
}

/* Written under another name and renamed, so that who waits for the file never reads half a number. */
static int write_port_file(const char *path, uint16_t port, struct xn_error *error)
{
    char temporary[4096];
    int n = snprintf(temporary, sizeof(temporary), "%s.%d", path, (int)getpid());
    if (n < 0 || (size_t)n >= sizeof(temporary))
        return xn_error_set(error, -ENAMETOOLONG, "--port-file %s: the path is too long", path);
    FILE *f = fopen(temporary, "we");
    if (!f)
        return xn_error_set(error, -errno, "--port-file %s: %s", path, strerror(errno));
    bool written = fprintf(f, "%u\n", port) > 0;
    if (fclose(f) != 0 || !written || rename(temporary, path) != 0) {
        int r = -errno;
        unlink(temporary);
        return xn_error_set(error, r, "--port-file %s: %s", path, strerror(-r));
    }
    return 0;
}

static int open_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
        return -EINVAL;
    signal(SIGPIPE, SIG_IGN);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* A reload under way; its models are loaded on a thread of their own. */
struct reload {
    bool under_way;
    bool again; /* asked for meanwhile: the configuration may have changed since it was read */
};

static void report_reload(int r, const struct xn_error *error)
{
    if (r < 0)
        xn_log_error("reload failed, everything stays as it was: %s", error->text);
    else
        xn_log_info("reloaded");
    sd_notify(0, "READY=1");
}

static void begin_reload(struct xn_app *app, const struct options *o, struct reload *reload)
{
    struct xn_config config;
    struct xn_error error;

    reload->again = reload->under_way;
    if (reload->under_way)
        return;
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, xn_clock_now_ns() / XN_NS_PER_US);
    int r = read_config(o, &config, &error);
    if (r >= 0) {
        r = xn_app_reload(app, &config, &error);
        if (r < 0)
            xn_config_done(&config);
    }
    if (r < 0)
        report_reload(r, &error);
    else
        reload->under_way = true;
}

static void end_reload(struct xn_app *app, const struct options *o, struct reload *reload)
{
    struct xn_error error;
    int r = xn_app_reload_end(app, &error);

    if (r == -EAGAIN)
        return;
    report_reload(r, &error);
    reload->under_way = false;
    if (reload->again)
        begin_reload(app, o, reload);
}

/* `reloading`: for as long as the server is alive the service manager is to wait for the end of the reload. */
static void tick(struct xn_app *app, uint64_t watchdog_us, bool reloading)
{
    bool alive = xn_app_alive(app, STALE_NS);
    char status[160], extend[64] = "";

    xn_app_status_line(app, status, sizeof(status));
    if (reloading && alive)
        snprintf(extend, sizeof(extend), "EXTEND_TIMEOUT_USEC=%" PRIu64 "\n", (uint64_t)EXTEND_US);
    sd_notifyf(0, "%s%sSTATUS=%s%s", watchdog_us > 0 && alive ? "WATCHDOG=1\n" : "", extend, status,
               reloading ? ", reloading" : "");
}

/* Time between two ticks: a second, or less where the watchdog wants to be fed more often. */
static int tick_period_ms(uint64_t *ret_watchdog_us)
{
    *ret_watchdog_us = 0;
    if (sd_watchdog_enabled(0, ret_watchdog_us) > 0 && *ret_watchdog_us / 2000 < TICK_MS)
        return (int)(*ret_watchdog_us / 2000) + 1;
    return TICK_MS;
}

/* Wait for a signal for up to `ms`, or until other_fd (-1: none) is readable; 0: no signal came. */
static int wait_signal(int signal_fd, int other_fd, int ms)
{
    struct pollfd wait[] = {{.fd = signal_fd, .events = POLLIN}, {.fd = other_fd, .events = POLLIN}};
    struct signalfd_siginfo info;

    if (poll(wait, XN_ARRAY_LEN(wait), ms) <= 0 || !(wait[0].revents & POLLIN) ||
        read(signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return 0;
    return (int)info.ssi_signo;
}

/* Serve until told to stop; returns the signal. */
static int serve(struct xn_app *app, const struct options *o, int signal_fd)
{
    struct reload reload = {.under_way = false};
    uint64_t watchdog_us;
    int tick_ms = tick_period_ms(&watchdog_us);

    for (;;) {
        int signal_number = wait_signal(signal_fd, xn_app_reload_fd(app), tick_ms);
        if (signal_number == SIGHUP)
            begin_reload(app, o, &reload);
        else if (signal_number != 0)
            return signal_number;
        end_reload(app, o, &reload);
        tick(app, watchdog_us, reload.under_way);
    }
}

/* Wait until every admitted request has been answered. Errors: -ETIMEDOUT, -EINTR (a second signal). */
static int await_drained(struct xn_app *app, uint64_t deadline_ns, int signal_fd)
{
    uint64_t watchdog_us, ticked_ns = 0;
    uint64_t tick_ns = (uint64_t)tick_period_ms(&watchdog_us) * XN_NS_PER_MS;

    while (!xn_app_drained(app)) {
        uint64_t now_ns = xn_clock_now_ns();
        if (now_ns >= deadline_ns)
            return -ETIMEDOUT;
        if (now_ns - ticked_ns >= tick_ns) {
            tick(app, watchdog_us, false);
            ticked_ns = now_ns;
        }
        int signal_number = wait_signal(signal_fd, -1, DRAIN_MS);
        if (signal_number == SIGTERM || signal_number == SIGINT)
            return -EINTR;
    }
    return 0;
}

static int stop(struct xn_app *app, int signal_number, int signal_fd)
{
    xn_log_info("%s: draining", signal_number == SIGTERM ? "SIGTERM" : "SIGINT");
    uint64_t deadline_ns = xn_app_drain(app);
    uint64_t now_ns = xn_clock_now_ns(), wait_us = deadline_ns > now_ns ? (deadline_ns - now_ns) / XN_NS_PER_US : 0;
    /* Readiness has failed by now. The wait may be longer than the service manager's, which this never shortens. */
    sd_notifyf(0, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRIu64 "\nSTATUS=draining", wait_us + EXTEND_US);
    int r = await_drained(app, deadline_ns, signal_fd);
    if (r == -EINTR)
        xn_log_warning("drain: ended by a second signal; requests not answered yet get 503");
    else if (r < 0)
        xn_log_warning("drain: drain_timeout_s has passed; requests not answered yet get 503");
    if (!xn_app_free(app))
        _exit(EXIT_FAILURE); /* without taking from under that thread what it uses */
    xn_log_info("stopped");
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct options options = {0};
    struct xn_config config;
    struct xn_error error;
    struct xn_app *app;

    parse_options(argc, argv, &options);
    xn_log_init(XN_LOG_INFO, XN_LOG_AUTO);
    int r = read_config(&options, &config, &error);
    if (options.check_config) {
        if (r < 0)
            fprintf(stderr, "%s\n", error.text);
        else
            printf("%s: good\n", config.path ? config.path : "built-in configuration");
        xn_config_done(&config);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    if (r < 0) {
        xn_log_error("%s", error.text);
        return EXIT_FAILURE;
    }
    xn_log_init(config.log.level, config.log.target);
    int signal_fd = open_signals();
    if (signal_fd < 0) {
        xn_log_error("signals: %s", strerror(-signal_fd));
        return EXIT_FAILURE;
    }
    uint64_t start_ns = xn_clock_now_ns();
    r = xn_app_new(&config, &app, &error);
    if (r >= 0 && options.port_file) {
        r = write_port_file(options.port_file, xn_app_port(app), &error);
        if (r < 0)
            (void)xn_app_free(app);
    }
    if (r < 0) {
        xn_log_error("cannot start: %s", error.text);
        xn_config_done(&config);
        return EXIT_FAILURE;
    }
    xn_log_info("ready on port %u after %" PRIu64 " ms", xn_app_port(app),
                (xn_clock_now_ns() - start_ns) / XN_NS_PER_MS);
    sd_notify(0, "READY=1");
    return stop(app, serve(app, &options, signal_fd), signal_fd);
}
