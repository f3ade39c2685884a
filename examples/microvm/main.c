/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * microvm: the reference virtual machine monitor. What comes in is a command line (args.c), what
 * goes out is a guest's console (term.c) and an exit code; all between is tn_vm's. This file is the
 * policy: which signals stop the guest, how long it may take, and what the user is told.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "args.h"
#include "term.h"
#include "tn_strerror.h"
#include "tn_vm.h"

#define GRACE_NS 10000000000ull /* how long a guest may take to shut down when asked to */

struct file {
    uint8_t *bytes;
    size_t len;
};

struct microvm {
    struct args args;
    struct file kernel;
    struct file initrd;
    struct tn_kvm kvm;
    struct tn_loop loop;
    struct term term;
    struct tn_vm vm;
    struct tn_loop_source signals;
    struct tn_loop_timer grace;
    bool stopping; /* the guest was asked to shut down */
};

/* Reads all of an open file; one that is mapped could shrink under our hands. */
static int read_all(int fd, struct file *out)
{
    struct stat st;
    ssize_t n;

    if (fstat(fd, &st) < 0)
        return -1;
    if (!S_ISREG(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
        return -1;
    }
    out->len = 0;
    out->bytes = malloc((size_t)st.st_size + 1);
    if (!out->bytes)
        return -1;
    do {
        n = read(fd, out->bytes + out->len, (size_t)st.st_size - out->len);
        out->len += n > 0 ? (size_t)n : 0;
    } while (n > 0 || (n < 0 && errno == EINTR));
    return n < 0 ? -1 : 0;
}

static int read_file(const char *path, struct file *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int r = fd < 0 ? -1 : read_all(fd, out);

    if (r < 0)
        fprintf(stderr, "microvm: %s: %s\n", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return r < 0 ? EXIT_INPUT : -1;
}

static void on_leave(void *ctx)
{
    struct microvm *m = ctx;

    (void)tn_vm_kill(&m->vm);
}

static void on_grace_over(void *ctx, uint64_t expirations)
{
    (void)expirations;
    on_leave(ctx);
}

/* The first signal asks the guest to shut down, the second ends the machine. */
static void on_signal(void *ctx, uint32_t events)
{
    struct microvm *m = ctx;
    struct signalfd_siginfo info;
    uint16_t cols, rows;

    (void)events;
    if (read(m->signals.fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        term_size(&m->term, &cols, &rows);
        tn_vm_resize(&m->vm, cols, rows);
        return;
    }
    if (m->stopping || tn_vm_shutdown(&m->vm) < 0)
        (void)tn_vm_kill(&m->vm);
    else
        (void)tn_loop_timer_arm(&m->grace, GRACE_NS, 0);
    m->stopping = true;
}

static int open_kvm(struct tn_kvm *kvm)
{
    int r = tn_kvm_open(kvm, NULL);

    if (r >= 0)
        return -1;
    if (r == TN_ESYS && errno == EACCES)
        fputs("microvm: /dev/kvm: permission denied; its group, usually kvm, may open it\n",
              stderr);
    else if (errno == ENOENT)
        fputs("microvm: /dev/kvm is missing: no virtualization, or kvm is not loaded\n", stderr);
    else
        fprintf(stderr, "microvm: /dev/kvm: %s: %s\n", tn_strerror(r), strerror(errno));
    return EXIT_NO_KVM;
}

/* One line about a disk that could not be opened. */
static int say_refused_disk(const struct tn_vm_disk_cfg *disk, int err, int sys)
{
    const char *sep = disk->overlay ? " with overlay " : "";
    const char *overlay = disk->overlay ? disk->overlay : "";
    const char *why = tn_strerror(err);

    switch (err) {
    case TN_ESYS:
        why = strerror(sys);
        break;
    case TN_EEXIST:
        why = "in use: another process has locked it";
        break;
    case TN_EINVAL:
        why = "neither a regular file nor a block device";
        break;
    case TN_ERANGE:
        why = "its size is 0, or no multiple of 512 bytes (of the host's block with direct)";
        break;
    case TN_ENODEV:
        why = "its file system cannot do direct (O_DIRECT)";
        break;
    case TN_ENOFIT:
        why = "the base has another size than when the overlay was made";
        break;
    case TN_EFORMAT:
        why = "the overlay is no overlay file";
        break;
    default:
        break;
    }
    fprintf(stderr, "microvm: %s%s%s: %s\n", disk->path, sep, overlay, why);
    return EXIT_INPUT;
}

/* One line about why tn_vm_init refused: what, and the limit. */
static int say_refused(const struct microvm *m, int err)
{
    const struct tn_boot_x86_info *info = &m->vm.board.info;
    int sys = errno;

    if (m->args.cpus > (uint32_t)tn_kvm_cap(&m->kvm, KVM_CAP_MAX_VCPUS)) {
        fprintf(stderr, "microvm: --cpus %" PRIu32 ": this host's limit is %d\n", m->args.cpus,
                tn_kvm_cap(&m->kvm, KVM_CAP_MAX_VCPUS));
        return EXIT_USAGE;
    }
    if (m->vm.devices.refused)
        return say_refused_disk(&m->args.disk[m->vm.devices.refused - 1], err, sys);
    if (err == TN_ESYS && !m->vm.ram.ptr) {
        fprintf(stderr, "microvm: --memory: the host refuses %" PRIu64 " MiB%s: %s\n",
                m->args.memory >> 20, m->args.hugepages ? " of huge pages" : "", strerror(sys));
        return EXIT_HOST;
    }
    if (err == TN_ESYS || err == TN_ENODEV) {
        fprintf(stderr, "microvm: %s: %s\n", tn_strerror(err), strerror(sys));
        return EXIT_HOST;
    }
    switch (info->stage) {
    case TN_BOOT_X86_AT_KERNEL:
    case TN_BOOT_X86_AT_PLACE:
        fprintf(stderr, "microvm: %s: %s (RAM is %" PRIu64 " MiB)\n", m->args.kernel,
                tn_strerror_loader(info->detail), m->args.memory >> 20);
        return EXIT_INPUT;
    case TN_BOOT_X86_AT_PROTO:
        fprintf(stderr, "microvm: %s: the image does not offer the protocol of --boot %s\n",
                m->args.kernel, m->args.boot == TN_BOOT_X86_PVH ? "pvh" : "linux64");
        return EXIT_INPUT;
    case TN_BOOT_X86_AT_CMDLINE:
        fprintf(stderr, "microvm: --cmdline: %zu bytes; the kernel takes fewer\n",
                strlen(m->args.cmdline));
        return EXIT_USAGE;
    case TN_BOOT_X86_AT_INITRD:
        fprintf(stderr,
                "microvm: %s: %zu bytes do not fit beside the kernel in %" PRIu64 " MiB of RAM\n",
                m->args.initrd, m->initrd.len, m->args.memory >> 20);
        return EXIT_INPUT;
    default:
        fprintf(stderr, "microvm: %s\n", tn_strerror(err));
        return EXIT_HOST;
    }
}

/* What the end of the machine means to whoever called us. */
static int say_end(const struct microvm *m)
{
    const struct tn_vm_end *end = &m->vm.end;

    switch (end->reason) {
    case TN_VM_POWEROFF:
        return EXIT_GUEST_OFF;
    case TN_VM_RESET:
        return m->stopping ? EXIT_GUEST_OFF : EXIT_GUEST_RESET;
    case TN_VM_PANIC:
        fputs("microvm: the guest's kernel panicked\n", stderr);
        return EXIT_GUEST_PANIC;
    case TN_VM_CRASH:
        fprintf(stderr, "microvm: the guest crashed: triple fault on vCPU %" PRIu32 "\n", end->cpu);
        return EXIT_GUEST_CRASH;
    case TN_VM_KILLED:
        return EXIT_KILLED;
    default:
        fprintf(stderr,
                "microvm: vCPU %" PRIu32 " failed: %s%s%s, KVM exit %" PRIu32 ", detail %" PRIu64
                "\n",
                end->cpu, tn_strerror(end->err), end->err == TN_ESYS ? ": " : "",
                end->err == TN_ESYS ? strerror(end->sys_errno) : "", end->exit, end->detail[0]);
        return EXIT_HOST;
    }
}

static int run(struct microvm *m)
{
    struct tn_vm_cfg cfg;
    int r, error;

    memset(&cfg, 0, sizeof(cfg));
    cfg.memory = m->args.memory;
    cfg.cpus = m->args.cpus;
    cfg.boot = m->args.boot;
    cfg.huge = m->args.hugepages ? TN_HOSTMEM_HUGE_2M : TN_HOSTMEM_HUGE_NONE;
    cfg.kernel = m->kernel.bytes;
    cfg.kernel_len = m->kernel.len;
    cfg.initrd = m->initrd.bytes;
    cfg.initrd_len = m->initrd.len;
    cfg.cmdline = m->args.cmdline;
    cfg.console = m->args.console != CONSOLE_NONE;
    cfg.console_in = m->args.virtio_console ? -1 : m->term.in;
    cfg.console_out = m->term.out;
    cfg.virtio_console = m->args.virtio_console;
    cfg.virtio_in = m->term.in;
    cfg.virtio_out = m->term.out_too;
    term_size(&m->term, &cfg.cols, &cfg.rows);
    cfg.disk = m->args.disk;
    cfg.disks = m->args.disks;
    cfg.rng = m->args.rng;
    cfg.packed = m->args.packed;
    cfg.no_indirect = m->args.no_indirect;
    cfg.no_event_idx = m->args.no_event_idx;
    r = tn_vm_init(&m->vm, &m->kvm, &m->loop, &cfg);
    free(m->kernel.bytes);
    free(m->initrd.bytes);
    if (r < 0)
        return say_refused(m, r);
    r = tn_vm_start(&m->vm);
    while (r >= 0 && tn_vm_wait(&m->vm, 0) == TN_EAGAIN)
        r = tn_loop_step(&m->loop, -1);
    if (r < 0) {
        fprintf(stderr, "microvm: %s: %s\n", tn_strerror(r), strerror(errno));
        r = EXIT_HOST;
    } else {
        r = say_end(m);
    }
    error = m->vm.board.console.error ? m->vm.board.console.error : m->vm.devices.hvc.console.error;
    if (error) {
        fprintf(stderr, "microvm: console: output was lost: %s\n", strerror(error));
        r = r ? r : EXIT_INPUT;
    }
    tn_vm_close(&m->vm);
    if (m->vm.devices.lost) {
        fprintf(stderr, "microvm: --disk: the last writes are lost: %s\n",
                tn_strerror(m->vm.devices.lost));
        r = r ? r : EXIT_HOST;
    }
    return r;
}

/* SIGINT and SIGTERM come through the loop; a reader that is gone is no reason to die. */
static int watch_signals(struct microvm *m)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    m->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    m->signals.events = EPOLLIN;
    m->signals.fn = on_signal;
    m->signals.ctx = m;
    if (tn_loop_init(&m->loop) < 0 || m->signals.fd < 0 || tn_loop_add(&m->loop, &m->signals) < 0 ||
        tn_loop_timer_init(&m->grace, &m->loop, on_grace_over, m) < 0) {
        perror("microvm");
        return EXIT_HOST;
    }
    return -1;
}

int main(int argc, char **argv)
{
    static struct microvm m;
    int code = args_parse(argc, argv, &m.args);

    if (code < 0)
        code = read_file(m.args.kernel, &m.kernel);
    if (code < 0 && m.args.initrd)
        code = read_file(m.args.initrd, &m.initrd);
    if (code < 0)
        code = open_kvm(&m.kvm);
    if (code < 0)
        code = watch_signals(&m);
    if (code < 0) {
        code = term_open(&m.term, &m.args, &m.loop, on_leave, &m);
        if (code < 0)
            code = run(&m);
        term_close(&m.term);
    }
    return code;
}
