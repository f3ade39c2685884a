/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * forkbench: what a fork of a machine costs on this host, to the clone's first byte of output.
 *
 *     forkbench [-n N] [--live N] [--memory MIB] [--kernel FILE [--cmdline TEXT]]
 *
 * A machine is booted, paused and made an image of; clones of it come from nothing (cold), from a
 * pool of machines that were prepared (pooled), or are put back where they began (reset). The guest
 * is a few bytes that are built in. With --kernel, a Linux for one, it is that, left alone until
 * its console has been silent for a second; its clones are sent a newline, and their first byte is
 * the echo.
 *
 * Exit status: 0; 1 when KVM or a clone failed; 2 for bad usage.
 */
#include "tn_strerror.h"
#include "tn_vm_fork.h"

#include <elf.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#define GO 0x180000 /* the built-in guest speaks when this byte is not 0 */

/* Says 'R', waits for the byte at GO, says '.', sleeps for good. */
static const uint8_t guest_code[] = {
    0xba, 0xf8, 0x03, 0x00, 0x00,                   /*    mov  $0x3f8, %edx */
    0xb0, 'R',  0xee,                               /*    mov  $'R', %al; out %al, (%dx) */
    0xf3, 0x90,                                     /* 1: pause */
    0x80, 0x3c, 0x25, 0x00, 0x00, 0x18, 0x00, 0x00, /*    cmpb $0, GO */
    0x74, 0xf4,                                     /*    je   1b */
    0xb0, '.',  0xee,                               /*    mov  $'.', %al; out %al, (%dx) */
    0xfa, 0xf4, 0xeb, 0xfc,                         /* 2: cli; hlt; jmp 2b */
};

/* As an ELF kernel at 1 MiB. */
static struct {
    Elf64_Ehdr file;
    Elf64_Phdr segment;
    uint8_t code[sizeof(guest_code)];
} guest;

static struct {
    unsigned samples, live;
    uint64_t memory;
    const char *kernel, *cmdline;
} opt = {100, 200, 128ull << 20, NULL, "console=ttyS0 reboot=t panic=-1"};

static struct tn_kvm kvm;
static struct tn_loop loop;
static struct tn_vm golden;
static struct tn_vm_image image;
static struct tn_vm_reaper reaper;
static int in[2],
    out[2]; /* what a clone reads and writes; nothing comes of in's end but newlines */

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Says what failed, and ends. */
static void check(int r, const char *what)
{
    if (r >= 0)
        return;
    fprintf(stderr, "forkbench: %s: %s%s%s\n", what, tn_strerror(r), r == TN_ESYS ? ": " : "",
            r == TN_ESYS ? strerror(errno) : "");
    exit(1);
}

/* Serves the loop until there is output, at most so long; how many bytes came. */
static size_t listen_for(int ms)
{
    double end = now_us() + ms * 1e3;
    struct pollfd p[2] = {{out[0], POLLIN, 0}, {loop.epfd, POLLIN, 0}};
    char bytes[4096];
    ssize_t n = 0;

    while (n <= 0 && now_us() < end && poll(p, 2, ms) > 0) {
        if (p[0].revents)
            n = read(out[0], bytes, sizeof(bytes));
        else
            check(tn_loop_step(&loop, 0), "tn_loop_step");
    }
    return n > 0 ? (size_t)n : 0;
}

/* ---- the golden machine ---- */

static void load(struct tn_vm_cfg *cfg)
{
    FILE *f = opt.kernel ? fopen(opt.kernel, "rb") : NULL;
    uint8_t *bytes = NULL;
    long size;

    if (!opt.kernel) {
        memcpy(guest.file.e_ident, ELFMAG, SELFMAG);
        guest.file.e_ident[EI_CLASS] = ELFCLASS64;
        guest.file.e_ident[EI_DATA] = ELFDATA2LSB;
        guest.file.e_ident[EI_VERSION] = EV_CURRENT;
        guest.file.e_type = ET_EXEC;
        guest.file.e_machine = EM_X86_64;
        guest.file.e_version = EV_CURRENT;
        guest.file.e_ehsize = sizeof(guest.file);
        guest.file.e_phoff = offsetof(__typeof__(guest), segment);
        guest.file.e_phentsize = sizeof(guest.segment);
        guest.file.e_phnum = 1;
        guest.segment.p_type = PT_LOAD;
        guest.segment.p_offset = offsetof(__typeof__(guest), code);
        guest.segment.p_filesz = guest.segment.p_memsz = sizeof(guest.code);
        guest.file.e_entry = guest.segment.p_paddr = guest.segment.p_vaddr = 1 << 20;
        memcpy(guest.code, guest_code, sizeof(guest_code));
        cfg->kernel = (const uint8_t *)&guest;
        cfg->kernel_len = sizeof(guest);
        return;
    }
    if (f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) > 0 && fseek(f, 0, SEEK_SET) == 0 &&
        (bytes = malloc((size_t)size)) != NULL)
        cfg->kernel_len = fread(bytes, 1, (size_t)size, f);
    check(bytes ? TN_OK : TN_ESYS, opt.kernel);
    cfg->kernel = bytes; /* until the end of the program */
    fclose(f);
}

static void make_golden(void)
{
    static const uint8_t go = 1;
    struct tn_vm_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    load(&cfg);
    cfg.memory = opt.memory;
    cfg.cmdline = opt.kernel ? opt.cmdline : NULL;
    cfg.console = true;
    cfg.console_in = -1;
    cfg.console_out = out[1];
    check(tn_vm_init(&golden, &kvm, &loop, &cfg), "tn_vm_init");
    check(tn_vm_start(&golden), "tn_vm_start");
    if (listen_for(10000) == 0)
        check(TN_EAGAIN, "the guest says nothing");
    while (opt.kernel && listen_for(1000) > 0)
        continue;
    check(tn_vm_pause(&golden), "the guest has ended: tn_vm_pause");
    if (!opt.kernel)
        check(tn_mem_write(&golden.mem, GO, &go, 1), "tn_mem_write");
    check(tn_vm_image_take(&image, &golden, NULL), "tn_vm_image_take");
}

/* ---- clones ---- */

/* One that is to be asked has the only input. */
static const struct tn_vm_clone_cfg *clone_cfg(bool asked)
{
    static struct tn_vm_clone_cfg cfg;

    cfg.console_in = asked && opt.kernel ? in[0] : -1;
    cfg.console_out = out[1];
    return &cfg;
}

/* Until a clone that was made at `begin` has spoken: microseconds. */
static double first_byte(struct tn_vm *vm, double begin)
{
    double took;

    check(tn_vm_start(vm), "tn_vm_start");
    if (opt.kernel && write(in[1], "\n", 1) != 1)
        check(TN_ESYS, "write");
    if (listen_for(5000) == 0)
        check(TN_EAGAIN, "a clone says nothing");
    took = now_us() - begin;
    while (opt.kernel && listen_for(20) > 0)
        continue; /* the rest of its answer, off the clock */
    return took;
}

static double cold(void)
{
    static struct tn_vm vm;
    double begin = now_us(), took;

    check(tn_vm_fork(&vm, &kvm, &loop, &image, clone_cfg(true)), "tn_vm_fork");
    took = first_byte(&vm, begin);
    tn_vm_close(&vm);
    return took;
}

static double pooled(void)
{
    static struct tn_vm pool[8];
    static unsigned ready;
    double begin, took;
    struct tn_vm *vm;

    for (unsigned i = 0; ready == 0 && i < 8; i++)
        check(tn_vm_prepare(&pool[i], &kvm, &loop, &image), "tn_vm_prepare");
    ready = ready ? ready : 8;
    vm = &pool[--ready];
    begin = now_us();
    check(tn_vm_adopt(vm, clone_cfg(true)), "tn_vm_adopt");
    took = first_byte(vm, begin);
    tn_vm_close(vm);
    return took;
}

static double reset(void)
{
    static struct tn_vm vm;
    double begin;

    if (!vm.open) {
        check(tn_vm_fork(&vm, &kvm, &loop, &image, clone_cfg(true)), "tn_vm_fork");
        (void)first_byte(&vm, 0);
    }
    check(tn_vm_pause(&vm), "tn_vm_pause");
    begin = now_us();
    check(tn_vm_reset(&vm), "tn_vm_reset");
    return first_byte(&vm, begin);
}

static int order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void row(const char *name, double (*sample)(void))
{
    double *us = calloc(opt.samples, sizeof(*us));

    check(us ? TN_OK : TN_ESYS, "memory");
    (void)sample(); /* warms the caches */
    for (unsigned i = 0; i < opt.samples; i++)
        us[i] = sample();
    qsort(us, opt.samples, sizeof(*us), order);
    printf("%-8s %9.1f %9.1f %9.1f us\n", name, us[(opt.samples - 1) * 50 / 100],
           us[(opt.samples - 1) * 90 / 100], us[(opt.samples - 1) * 99 / 100]);
    free(us);
}

/* ---- many at once ---- */

/* KiB in the line of a file of /proc that begins with name. */
static double proc_kib(const char *path, const char *name)
{
    FILE *f = fopen(path, "r");
    char line[256];
    double kib = 0;

    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtod(line + strlen(name), NULL);
    if (f)
        fclose(f);
    return kib;
}

static void crowd(void)
{
    double pss = proc_kib("/proc/self/smaps_rollup", "Pss:"), begin;
    double available = proc_kib("/proc/meminfo", "MemAvailable:");
    struct tn_vm *vm = calloc(opt.live, sizeof(*vm));

    check(vm ? TN_OK : TN_ESYS, "memory");
    for (unsigned i = 0; i < opt.live; i++) {
        check(tn_vm_fork(&vm[i], &kvm, &loop, &image, clone_cfg(false)), "tn_vm_fork");
        if (!opt.kernel)
            (void)first_byte(&vm[i], 0);
        else
            check(tn_vm_start(&vm[i]), "tn_vm_start");
    }
    printf("\n%u live forks: %.1f KiB each in this process (Pss), %.1f KiB with the kernel's\n",
           opt.live, (proc_kib("/proc/self/smaps_rollup", "Pss:") - pss) / opt.live,
           (available - proc_kib("/proc/meminfo", "MemAvailable:")) / opt.live);
    begin = now_us();
    for (unsigned i = 0; i < opt.live; i++)
        tn_vm_close_to(&vm[i], &reaper);
    tn_vm_reaper_close(&reaper);
    printf("teardown: %.1f us each\n", (now_us() - begin) / opt.live);
    free(vm);
}

static void usage(FILE *f)
{
    fputs(
        "usage: forkbench [-n N] [--live N] [--memory MIB] [--kernel FILE [--cmdline TEXT]]\n"
        "  -n N           samples of each kind (100)\n"
        "  --live N       clones that live at once (200); 0: none\n"
        "  --memory MIB   of the machine (128)\n"
        "  --kernel FILE  an ELF kernel or a bzImage, rather than a few bytes that are built in\n",
        f);
}

static unsigned number(const char *text, unsigned least)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || n < least || n > 1000000) {
        usage(stderr);
        exit(2);
    }
    return (unsigned)n;
}

static void options(int argc, char **argv)
{
    static const struct option names[] = {
        {"live", 1, NULL, 'l'},    {"memory", 1, NULL, 'm'}, {"kernel", 1, NULL, 'k'},
        {"cmdline", 1, NULL, 'c'}, {"help", 0, NULL, 'h'},   {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "n:", names, NULL)) >= 0) {
        if (c == 'n')
            opt.samples = number(optarg, 1);
        else if (c == 'l')
            opt.live = number(optarg, 0);
        else if (c == 'm')
            opt.memory = (uint64_t)number(optarg, 16) << 20;
        else if (c == 'k')
            opt.kernel = optarg;
        else if (c == 'c')
            opt.cmdline = optarg;
        else {
            usage(c == 'h' ? stdout : stderr);
            exit(c == 'h' ? 0 : 2);
        }
    }
    if (optind < argc) {
        usage(stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct rlimit files = {1 << 20, 1 << 20};

    options(argc, argv);
    (void)setrlimit(RLIMIT_NOFILE, &files); /* a clone has four descriptors */
    check(tn_kvm_open(&kvm, NULL), "/dev/kvm");
    check(tn_loop_init(&loop), "tn_loop_init");
    check(tn_vm_reaper_init(&reaper), "tn_vm_reaper_init");
    if (pipe2(in, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0)
        check(TN_ESYS, "pipe");
    make_golden();
    printf("a clone of %llu MiB, to its first byte:\n%-8s %9s %9s %9s\n",
           (unsigned long long)(opt.memory >> 20), "", "p50", "p90", "p99");
    row("cold", cold);
    row("pooled", pooled);
    row("reset", reset);
    if (opt.live > 0)
        crowd();
    return 0;
}
