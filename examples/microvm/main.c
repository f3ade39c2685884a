/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * microvm: the reference virtual machine monitor. What comes in is a command line (args.c), what
 * goes out is a guest's console (term.c, output.c), snapshots (snapshot.c), what the user is told
 * (say.c) and an exit code; all between is tn_vm's. This file is the policy for one machine: which
 * signals stop the guest, and how long it may take; forks.c is that for many.
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
#include <time.h>
#include <unistd.h>

#include "arch.h"
#include "microvm.h"
#include "tn_strerror.h"

#define MAX_KEY  4096u          /* bytes of --key's file */
#define GRACE_NS 10000000000ull /* how long a guest may take to shut down when asked to */

uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

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

/* The secret of --key: all bytes of its file. */
static int read_key(struct microvm *m)
{
    int code = read_file(m->args.key, &m->key_file);

    m->key.bytes = m->key_file.bytes;
    m->key.len = m->key_file.len;
    if (code < 0 && (m->key.len < TN_SNAP_KEY_MIN || m->key.len > MAX_KEY)) {
        fprintf(stderr, "microvm: --key %s: it has %zu bytes; 16 to 4096\n", m->args.key,
                m->key.len);
        code = EXIT_INPUT;
    }
    return code;
}

/* ---- signals ---- */

static void kill_all(struct microvm *m)
{
    if (m->forks)
        forks_kill(m->forks);
    else
        (void)tn_vm_kill(&m->vm);
}

int ask(struct tn_vm *vm, bool keys)
{
    return keys ? tn_vm_ctrl_alt_del(vm) : tn_vm_shutdown(vm);
}

/* Whether a guest was there to be asked. */
static bool ask_all(struct microvm *m, bool keys)
{
    return m->forks ? forks_ask(m->forks, keys) : ask(&m->vm, keys) >= 0;
}

static void on_leave(void *ctx)
{
    struct microvm *m = ctx;

    m->leaving = true;
    kill_all(m);
}

static void on_grace_over(void *ctx, uint64_t expirations)
{
    (void)expirations;
    kill_all(ctx);
}

static void on_resize(struct microvm *m)
{
    uint16_t cols, rows;

    term_size(&m->term, &cols, &rows);
    if (m->forks)
        forks_resize(m->forks, cols, rows);
    else
        tn_vm_resize(&m->vm, cols, rows);
}

static void on_snapshot(struct microvm *m)
{
    if (!m->args.snapshot)
        fputs("microvm: SIGUSR1: without --snapshot DIR nothing is saved\n", stderr);
    else if (m->args.snapshot_when)
        fputs("microvm: SIGUSR1: with --snapshot-when it is the console that says when\n", stderr);
    else
        m->wanted = true;
}

/* The first signal asks the guest to shut down, SIGTERM by its power button, SIGINT by
 * ctrl-alt-del; the second ends the machine. */
static void on_signal(void *ctx, uint32_t events)
{
    struct microvm *m = ctx;
    struct signalfd_siginfo info;

    (void)events;
    if (read(m->signals.fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        on_resize(m);
    } else if (info.ssi_signo == SIGUSR1) {
        on_snapshot(m);
    } else if (m->stopping) {
        on_leave(m);
    } else {
        m->stopping = true;
        if (ask_all(m, info.ssi_signo == SIGINT))
            (void)tn_loop_timer_arm(&m->grace, GRACE_NS, 0);
        else
            kill_all(m);
    }
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

/* ---- one machine ---- */

/* A snapshot names the disks; it may be restored from another directory. */
static void name_disks(struct args *args)
{
    for (uint32_t i = 0; args->snapshot && i < args->disks; i++) {
        const char *path = realpath(args->disk[i].path, NULL);

        if (path)
            args->disk[i].path = path;
    }
}

static int boot(struct microvm *m)
{
    struct tn_vm_cfg cfg;
    int r;

    name_disks(&m->args);
    memset(&cfg, 0, sizeof(cfg));
    cfg.memory = m->args.memory;
    cfg.cpus = m->args.cpus;
    cfg.boot = m->args.boot;
    cfg.huge = m->args.hugepages ? TN_HOSTMEM_HUGE_2M : TN_HOSTMEM_HUGE_NONE;
    cfg.track_dirty = m->args.diff;
    cfg.kernel = m->kernel.bytes;
    cfg.kernel_len = m->kernel.len;
    cfg.initrd = m->initrd.bytes;
    cfg.initrd_len = m->initrd.len;
    cfg.fdt = m->dtb.bytes;
    cfg.fdt_len = m->dtb.len;
    cfg.cmdline = m->args.cmdline;
    cfg.console = m->args.console != CONSOLE_NONE;
    cfg.console_in = m->args.virtio_console ? -1 : m->term.in;
    cfg.console_out = m->out;
    cfg.virtio_console = m->args.virtio_console;
    cfg.virtio_in = m->term.in;
    cfg.virtio_out = m->out_too;
    term_size(&m->term, &cfg.cols, &cfg.rows);
    cfg.disk = m->args.disk;
    cfg.disks = m->args.disks;
    cfg.rng = m->args.rng;
    cfg.net = m->args.net;
    cfg.nets = m->args.nets;
    cfg.vsock = m->args.vsock;
    cfg.balloon = m->args.balloon;
    cfg.balloon_size = m->args.balloon_size;
    cfg.packed = m->args.packed;
    cfg.no_indirect = m->args.no_indirect;
    cfg.no_event_idx = m->args.no_event_idx;
    r = tn_vm_init(&m->vm, &m->kvm, &m->loop, &cfg);
    free(m->kernel.bytes);
    free(m->initrd.bytes);
    free(m->dtb.bytes);
    if (r >= 0)
        arch_say_boot(m);
    return r < 0 ? say_refused(m, r) : -1;
}

static int restore(struct microvm *m)
{
    struct tn_vm_clone_cfg cfg;
    char *dir = NULL;
    int code = image_open(m);

    memset(&cfg, 0, sizeof(cfg));
    if (code < 0)
        code = overlays_open(m, &dir);
    if (code < 0) {
        bool hvc = m->image.state.machine.flags & TN_VM_MACHINE_VIRTIO_CONSOLE;

        cfg.console_in = hvc ? -1 : m->term.in;
        cfg.console_out = m->out;
        cfg.virtio_in = m->term.in;
        cfg.virtio_out = m->out_too;
        term_size(&m->term, &cfg.cols, &cfg.rows);
        code = clone_make(m, &m->vm, 0, &cfg, dir);
    }
    overlays_close(m, dir);
    return code;
}

static void on_serial(void *ctx, const uint8_t *bytes, size_t len)
{
    struct microvm *m = ctx;

    m->wanted = match_bytes(&m->match[0], bytes, len) || m->wanted;
}

static void on_hvc(void *ctx, const uint8_t *bytes, size_t len)
{
    struct microvm *m = ctx;

    m->wanted = match_bytes(&m->match[1], bytes, len) || m->wanted;
}

/* Lets the consoles' output pass through our hands, a page at a time: what is said is soon seen. */
static int watch_output(struct microvm *m)
{
    int r = outlet_open(&m->outlet, &m->loop, m->term.out);

    for (uint32_t i = 0; r >= 0 && i < 2; i++) {
        r = pump_open(&m->pump[i], &m->outlet, -1);
        if (r < 0)
            break;
        (void)fcntl(m->pump[i].in, F_SETPIPE_SZ, 4096);
        match_init(&m->match[i], m->args.snapshot_when);
        m->pump[i].seen = i == 0 ? on_serial : on_hvc;
        m->pump[i].ctx = m;
    }
    m->out = m->pump[0].in;
    m->out_too = m->pump[1].in;
    if (r < 0)
        perror("microvm: --snapshot-when");
    return r < 0 ? EXIT_HOST : -1;
}

/*
 * Runs until the machine has ended, or its one snapshot is taken; *taken tells. Returns -1, or the
 * code to exit with.
 */
static int live(struct microvm *m, bool *taken)
{
    int r = tn_vm_start(&m->vm);

    while (r >= 0 && !*taken && tn_vm_wait(&m->vm, 0) == TN_EAGAIN) {
        r = tn_loop_step(&m->loop, -1);
        if (r < 0 || !m->wanted)
            continue;
        m->wanted = false;
        r = snapshot_take(m);
        if (m->args.snapshot_when && r < 0 && r != TN_ESTATE)
            return r == TN_EEXIST ? EXIT_INPUT : EXIT_HOST;
        *taken = m->args.snapshot_when && r >= 0;
        if (!m->args.snapshot_when)
            (void)tn_vm_resume(&m->vm);
        r = TN_OK;
    }
    if (r >= 0)
        return -1;
    fprintf(stderr, "microvm: %s: %s\n", tn_strerror(r), strerror(errno));
    return EXIT_HOST;
}

/*
 * Closes the machine, and waits until its output is where it is to be. What a machine that was
 * saved has not said yet is in the snapshot, and not to be said twice.
 */
static void finish(struct microvm *m, bool taken)
{
    uint32_t pumps = m->args.snapshot_when ? 2 : 0;

    for (uint32_t i = 0; i < pumps; i++) {
        if (taken)
            pump_close(&m->pump[i]);
        else
            pump_drain(&m->pump[i]);
    }
    tn_vm_close(&m->vm);
    for (uint32_t i = 0; i < pumps; i++) {
        pump_drain(&m->pump[i]);
        pump_close(&m->pump[i]);
    }
    while (!outlet_empty(&m->outlet) && !m->leaving && tn_loop_step(&m->loop, -1) >= 0)
        continue;
}

/* What was lost on the way out makes a good end a bad one. */
static int say_lost(const struct microvm *m, int error)
{
    if (error)
        fprintf(stderr, "microvm: console: output was lost: %s\n", strerror(error));
    if (m->vm.devices.lost)
        fprintf(stderr, "microvm: --disk: the last writes are lost: %s\n",
                tn_strerror(m->vm.devices.lost));
    return error ? EXIT_INPUT : m->vm.devices.lost ? EXIT_HOST : EXIT_GUEST_OFF;
}

static int run(struct microvm *m)
{
    bool taken = false;
    int code = -1, error, lost;

    m->out = m->term.out;
    m->out_too = m->term.out_too;
    if (m->args.snapshot_when)
        code = watch_output(m);
    if (code < 0)
        code = m->args.restore ? restore(m) : boot(m);
    if (code >= 0)
        return code;
    code = live(m, &taken);
    if (code < 0)
        code = taken ? EXIT_GUEST_OFF : say_end(&m->vm, -1, m->stopping);
    if (code == EXIT_GUEST_OFF && m->args.snapshot_when && !taken) {
        fputs("microvm: no snapshot: the guest has not said what --snapshot-when waits for\n",
              stderr);
        code = EXIT_NO_SNAPSHOT;
    }
    error = output_error(&m->vm);
    finish(m, taken);
    lost = say_lost(m, error ? error : m->outlet.error);
    tn_vm_image_close(&m->image);
    return code ? code : lost;
}

/* ---- the program ---- */

/* SIGINT and SIGTERM come through the loop; a reader that is gone is no reason to die. */
static int watch_signals(struct microvm *m)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGUSR1);
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

    if (code < 0 && m.args.kernel)
        code = read_file(m.args.kernel, &m.kernel);
    if (code < 0 && m.args.initrd)
        code = read_file(m.args.initrd, &m.initrd);
    if (code < 0 && m.args.dtb)
        code = read_file(m.args.dtb, &m.dtb);
    if (code < 0 && m.args.key)
        code = read_key(&m);
    if (code < 0 && m.args.snapshot)
        code = snapshot_check(&m.args);
    if (code < 0)
        code = open_kvm(&m.kvm);
    if (code < 0)
        code = watch_signals(&m);
    if (code < 0) {
        code = term_open(&m.term, &m.args, &m.loop, on_leave, &m);
        if (code < 0)
            code = m.args.forks ? forks_run(&m) : run(&m);
        term_close(&m.term);
    }
    return code;
}
