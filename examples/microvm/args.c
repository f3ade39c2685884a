/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "args.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tn_boot_x86.h"
#include "tn_vm_x86.h"

static const char help[] =
    "microvm: boots a Linux kernel in a small virtual machine\n"
    "\n"
    "usage: microvm --kernel FILE [option ...]\n"
    "\n"
    "  --kernel FILE     an uncompressed vmlinux (ELF) or a bzImage (vmlinuz)\n"
    "  --initrd FILE     an initial RAM disk or initramfs\n"
    "  --cmdline TEXT    the kernel's command line; default: console=ttyS0 panic=-1\n"
    "  --memory SIZE     RAM, 16M to 1T, a multiple of 4K; suffixes K, M, G, T; default: 256M\n"
    "  --cpus N          virtual CPUs, 1 to 254; default: 1\n"
    "  --console WHERE   the serial port ttyS0: stdio, pty, file:PATH or none; default: stdio\n"
    "  --boot HOW        auto, linux64 or pvh; default: auto (linux64 if the image has it)\n"
    "  --hugepages       back the RAM with the host's pool of 2 MiB pages\n"
    "  --version         print the version\n"
    "  --help            print this\n"
    "\n"
    "With the console on a terminal, Ctrl-A X leaves, Ctrl-A Ctrl-A sends a Ctrl-A. SIGTERM and\n"
    "SIGINT ask the guest to shut down (ctrl-alt-del); after 10 s, or at the second signal, the\n"
    "machine is ended.\n"
    "\n"
    "exit codes: 0 the guest powered off, 2 bad usage, 3 no KVM, 4 a file or what is in it,\n"
    "5 the host failed, 10 the guest asked for a reset, 11 it crashed, 12 it panicked (where its\n"
    "kernel has the pvpanic driver), 13 ended from outside\n";

static int bad(const char *option, const char *value, const char *limit)
{
    fprintf(stderr, "microvm: %s %s: %s\n", option, value, limit);
    return EXIT_USAGE;
}

/* A whole number of the unit that its suffix names, exact or refused. */
static bool parse_size(const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end;
    const char *unit;
    unsigned shift = 0;
    unsigned long long n;

    if (*text < '0' || *text > '9')
        return false;
    n = strtoull(text, &end, 10);
    if (*end) {
        unit = strchr(units, *end);
        if (!unit || end[1])
            return false;
        shift = 10 * (unsigned)(unit - units + 1);
    }
    if (n > UINT64_MAX >> shift)
        return false;
    *out = (uint64_t)n << shift;
    return true;
}

static int parse_memory(const char *value, struct args *out)
{
    static const char limit[] = "RAM is 16M to 1T, a multiple of 4K; suffixes K, M, G, T";
    struct tn_loader_range ram[TN_VM_X86_RAM];

    if (!parse_size(value, &out->memory) || tn_vm_x86_ram(out->memory, ram) < 0)
        return bad("--memory", value, limit);
    return -1;
}

static int parse_cpus(const char *value, struct args *out)
{
    uint64_t n;

    if (!parse_size(value, &n) || n < 1 || n > TN_VM_X86_MAX_CPUS)
        return bad("--cpus", value, "1 to 254 virtual CPUs");
    out->cpus = (uint32_t)n;
    return -1;
}

static int parse_console(const char *value, struct args *out)
{
    if (strcmp(value, "stdio") == 0) {
        out->console = CONSOLE_STDIO;
    } else if (strcmp(value, "pty") == 0) {
        out->console = CONSOLE_PTY;
    } else if (strcmp(value, "none") == 0) {
        out->console = CONSOLE_NONE;
    } else if (strncmp(value, "file:", 5) == 0 && value[5]) {
        out->console = CONSOLE_FILE;
        out->console_path = value + 5;
    } else {
        return bad("--console", value, "stdio, pty, file:PATH or none");
    }
    return -1;
}

static int parse_boot(const char *value, struct args *out)
{
    static const char *const how[] = {"auto", "linux64", "pvh"};

    for (uint32_t i = 0; i < sizeof(how) / sizeof(how[0]); i++) {
        if (strcmp(value, how[i]) == 0) {
            out->boot = i; /* the order of enum tn_boot_x86_proto */
            return -1;
        }
    }
    return bad("--boot", value, "auto, linux64 or pvh");
}

int args_parse(int argc, char **argv, struct args *out)
{
    static const struct option options[] = {
        {"kernel", required_argument, NULL, 'k'},
        {"initrd", required_argument, NULL, 'i'},
        {"cmdline", required_argument, NULL, 'c'},
        {"memory", required_argument, NULL, 'm'},
        {"cpus", required_argument, NULL, 'n'},
        {"console", required_argument, NULL, 't'},
        {"boot", required_argument, NULL, 'b'},
        {"hugepages", no_argument, NULL, 'H'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;

    memset(out, 0, sizeof(*out));
    out->cmdline = "console=ttyS0 panic=-1";
    out->memory = 256ull << 20;
    out->cpus = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        int r = -1;

        switch (option) {
        case 'k':
            out->kernel = optarg;
            break;
        case 'i':
            out->initrd = optarg;
            break;
        case 'c':
            out->cmdline = optarg;
            break;
        case 'm':
            r = parse_memory(optarg, out);
            break;
        case 'n':
            r = parse_cpus(optarg, out);
            break;
        case 't':
            r = parse_console(optarg, out);
            break;
        case 'b':
            r = parse_boot(optarg, out);
            break;
        case 'H':
            out->hugepages = true;
            break;
        case 'v':
            puts("microvm " TENON_VERSION);
            return 0;
        case 'h':
            fputs(help, stdout);
            return 0;
        default: /* getopt_long has said what */
            return EXIT_USAGE;
        }
        if (r >= 0)
            return r;
    }
    if (optind < argc)
        return bad("argument", argv[optind], "not an option; see --help");
    if (!out->kernel) {
        fputs("microvm: --kernel FILE is missing; see --help\n", stderr);
        return EXIT_USAGE;
    }
    return -1;
}
