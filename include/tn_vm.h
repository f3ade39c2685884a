/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm - the embeddable machine: create, start, pause, resume, stop; many in one process.
 *
 * WHAT
 *   Joins memory, KVM and a board to a machine with a life of its own. tn_vm_start returns; each
 *   vCPU runs on a thread; how the run ended is a value, never the end of the process.
 *
 *                 start            pause
 *     CREATED ------------> RUNNING -----> PAUSED
 *                             |    <-----    |
 *                             |    resume    |
 *          the guest's wish,  v              v
 *          tn_vm_kill:      STOPPED <--------+        KVM or the host failed: FAILED
 *
 * USAGE
 *   struct tn_kvm kvm;
 *   struct tn_loop loop;
 *   struct tn_vm vm;
 *   struct tn_vm_cfg cfg;
 *   static const uint8_t kernel[1] = {0};
 *   static const size_t kernel_len = 1;
 *
 *   memset(&cfg, 0, sizeof(cfg));
 *   cfg.memory = 256ull << 20;
 *   cfg.kernel = kernel;
 *   cfg.kernel_len = kernel_len;
 *   cfg.cmdline = "console=ttyS0";
 *   cfg.console = true;
 *   cfg.console_in = -1;
 *   cfg.console_out = 1;
 *   if (tn_kvm_open(&kvm, NULL) < 0 || tn_loop_init(&loop) < 0)
 *       return 1;
 *   if (tn_vm_init(&vm, &kvm, &loop, &cfg) < 0 || tn_vm_start(&vm) < 0)
 *       return 2;
 *   while (tn_vm_wait(&vm, 0) == TN_EAGAIN)
 *       tn_loop_step(&loop, 100);
 *   tn_vm_close(&vm);
 *
 * COMPOSITION
 *   Glue over tn_hostmem, tn_mem, tn_kvm, the architecture's board (tn_vm_arch) and the virtio
 *   devices (tn_vm_devices). The modules can all be used without it.
 *
 * GUEST TRUST
 *   Nothing that a guest does reaches further than its own struct tn_vm: a machine that goes wrong
 *   ends with a reason.
 *
 * MEMORY
 *   The caller owns struct tn_vm, which does not move while it lives; init allocates an array for
 *   the vCPUs and one for the disks, and maps the RAM; close frees all.
 *
 * THREADS
 *   state_lock guards the life of the machine: start, pause, resume, shutdown, kill and wait may be
 *   called from any thread but a vCPU's. init and close: on the loop's thread, or while it does not
 *   run. The loop may serve many machines.
 *
 * CONFIG
 *   TN_VM_STACK: bytes of stack of a vCPU's thread.
 *
 * LIMITS
 *   tn_vm_init sets a handler that does nothing for cfg.signal where there is none. A graceful
 *   shutdown is a request, which a guest may ignore.
 */
#ifndef TN_VM_H
#define TN_VM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* for layer 3; of use only before the first system header */
#endif

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tn_hostmem.h"
#include "tn_kvm.h"
#include "tn_loop.h"
#include "tn_mem.h"
#include "tn_uffd.h"
#include "tn_vm_arch.h"
#include "tn_vm_board.h"
#include "tn_vm_devices.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#ifndef TN_VM_STACK
#define TN_VM_STACK (256u << 10)
#endif

enum tn_vm_life {
    TN_VM_CLOSED = 0, /* also what a zeroed struct is */
    TN_VM_CREATED,
    TN_VM_RUNNING,
    TN_VM_PAUSED,
    TN_VM_STOPPED,
    TN_VM_FAILED
};

/* How the run ended. */
struct tn_vm_end {
    uint32_t reason; /* enum tn_vm_reason */
    uint32_t cpu;    /* the vCPU that saw it */
    int err;         /* TN_VM_ERROR: enum tn_err, and errno with TN_ESYS */
    int sys_errno;
    uint32_t exit;      /* TN_VM_CRASH, TN_VM_ERROR: KVM's exit reason, 0 if there was none */
    uint64_t detail[4]; /* its numbers: suberror or hardware reason first */
};

struct tn_vm;
struct tn_vm_image;
struct tn_vm_state;

/* A file of memory that several images and machines have views of. */
struct tn_vm_golden {
    uint32_t refs; /* atomic */
    int fd;
    int pagemap; /* /proc/self/pagemap, for the views of this process; -1: it cannot be had */
    pid_t pid;   /* which that is */
};

/* What is left to close of a machine when its loop has done with it. */
struct tn_vm_rest {
    struct tn_vm_rest *next;
    struct tn_kvm_vm kvm_vm;
    struct tn_vm_cpu *cpu;
    uint32_t cpus;
    struct tn_hostmem ram;
    struct tn_vm_golden *golden;
};

/* The snapshot that a diff would be of. */
struct tn_vm_base {
    char *dir; /* NULL: there is none yet */
    uint8_t id[32];
    uint8_t *digests;
    uint64_t *set; /* pages written since */
};

struct tn_vm {
    bool open; /* between init and close */
    struct tn_kvm *kvm;
    struct tn_kvm_vm kvm_vm;
    struct tn_hostmem ram; /* all of it, one range behind the other */
    struct tn_uffd *lazy;  /* what fills it on first touch; NULL: it is there */
    struct tn_mem mem;
    struct tn_mem_region region[TN_VM_ARCH_RAM];
    uint64_t *dirty[TN_VM_ARCH_RAM]; /* with track_dirty: a bit for each page that the host wrote */
    struct tn_vm_arch board;
    struct tn_vm_devices devices;
    struct tn_vm_cpu *cpu;
    uint32_t cpus;
    int signal;
    struct tn_loop *loop;              /* is woken when the machine has ended */
    struct tn_vm_golden *golden;       /* the file that ram is a private view of; NULL: none is */
    struct tn_vm_base *base;           /* with track_dirty: the last snapshot; NULL: none yet */
    const struct tn_vm_image *image;   /* what it is a clone of; NULL: it was booted */
    const struct tn_vm_state *from;    /* the image's */
    bool stopped_clock;                /* its time stood still since the save */
    uint32_t vcpu_flags;               /* of tn_vm_arch_state_cpus, for the next state */
    bool torn;                         /* a reset failed half-way: it is not to run */
    bool restored;                     /* KVM's objects have been given a state already */
    bool fresh;                        /* no instruction has run since it was made, or restored */
    struct tn_vm_arch_refused refused; /* what KVM did not take of a state */

    pthread_mutex_t state_lock; /* guards what follows */
    pthread_cond_t state_cond;  /* state, live or parked changed */
    uint32_t state;             /* enum tn_vm_life */
    uint32_t live;              /* vCPU threads that have not returned */
    uint32_t parked;            /* those that wait in a pause */
    bool pausing;
    struct tn_vm_end end;
};

/*
 * Makes a machine as cfg says: RAM, kernel and tables in it, KVM's objects, devices; nothing runs.
 * kvm and loop outlive it; loop serves the console and wakes when the machine ends. Returns 0, or
 * an error that leaves nothing behind:
 *   TN_EINVAL  memory, cpus or boot outside the limits
 *   TN_ESYS    the host refuses memory, a VM, a vCPU, a descriptor
 *   else what tn_boot_x86_load or tn_boot_arm64_load returned, vm->board.info has where and the
 *   detail; or, for the disk vm->devices.refused - 1, what tn_file_init or tn_file_overlay_init
 *   did.
 */
TN_API int tn_vm_init(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                      const struct tn_vm_cfg *cfg);

/*
 * Starts the vCPUs' threads and returns. 0; TN_ESTATE unless CREATED, and for a clone that was only
 * prepared (tn_vm_fork); TN_ESYS: the host refuses a thread (the machine has FAILED then).
 */
TN_API int tn_vm_start(struct tn_vm *vm);

/*
 * Brings every vCPU to a stop between two instructions, its last access completed; the devices'
 * timers and descriptors go on. Returns 0 when all stand still; TN_ESTATE unless RUNNING, or when
 * the machine ended meanwhile.
 */
TN_API int tn_vm_pause(struct tn_vm *vm);

/*
 * Lets a paused machine go on. 0, or TN_ESTATE unless PAUSED.
 */
TN_API int tn_vm_resume(struct tn_vm *vm);

/*
 * Presses the guest's power button, and returns; a guest that is set up to hear it shuts down and
 * powers off, in its own time; by ACPI on x86, by gpio-keys on arm64. Others ignore it. 0;
 * TN_ESTATE unless RUNNING; TN_ESYS: KVM refuses the interrupt.
 */
TN_API int tn_vm_shutdown(struct tn_vm *vm);

/*
 * Types ctrl-alt-del, and returns; most guests restart then, in order where they are set up so,
 * else at once, and the machine ends with TN_VM_RESET. 0; TN_ESTATE unless RUNNING, or when the
 * guest has turned its keyboard off; TN_ENOSPC when it has not read earlier keys; TN_EUNSUP: the
 * machine has no keyboard (arm64).
 */
TN_API int tn_vm_ctrl_alt_del(struct tn_vm *vm);

/*
 * Ends the machine now, and returns; the reason is TN_VM_KILLED unless another came first. Nothing
 * on one that has ended. 0, or TN_ESTATE when it is closed.
 */
TN_API int tn_vm_kill(struct tn_vm *vm);

/*
 * tn_vm_shutdown, up to grace_ms for the guest to follow, then tn_vm_kill. Returns 0 when the
 * machine has ended, TN_ESTATE when it is closed.
 */
TN_API int tn_vm_stop(struct tn_vm *vm, int grace_ms);

/*
 * Waits up to timeout_ms (-1: for ever, 0: not at all) for the machine to end. Returns enum
 * tn_vm_reason, > 0, and vm->end may be read from then on; TN_EAGAIN: it has not ended; TN_ESTATE
 * when it was never started.
 */
TN_API int tn_vm_wait(struct tn_vm *vm, int timeout_ms);

/*
 * The terminal of hvc0 has another size now. Nothing on a machine without one. On the loop's
 * thread.
 */
TN_API void tn_vm_resize(struct tn_vm *vm, uint16_t cols, uint16_t rows);

/*
 * The machine's state, enum tn_vm_life.
 */
TN_API uint32_t tn_vm_state_read(struct tn_vm *vm);

/*
 * Kills what runs, joins the threads, and frees everything. Nothing on a closed machine.
 */
TN_API void tn_vm_close(struct tn_vm *vm);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* One without a file yet. NULL with errno. */
static inline struct tn_vm_golden *tn_vm_golden_new_(void)
{
    struct tn_vm_golden *g = (struct tn_vm_golden *)calloc(1, sizeof(*g));

    if (g) {
        g->refs = 1;
        g->fd = -1;
        g->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        g->pid = getpid();
    }
    return g;
}

/* Takes fd over, in any case. Returns NULL with errno; also for an fd that is -1. */
static inline struct tn_vm_golden *tn_vm_golden_init_(int fd)
{
    struct tn_vm_golden *g = fd < 0 ? NULL : tn_vm_golden_new_();

    if (g) {
        g->fd = fd;
    } else if (fd >= 0) {
        close(fd);
        errno = ENOMEM;
    }
    return g;
}

static inline struct tn_vm_golden *tn_vm_golden_get_(struct tn_vm_golden *g)
{
    if (g)
        __atomic_fetch_add(&g->refs, 1, __ATOMIC_RELAXED);
    return g;
}

static inline void tn_vm_golden_put_(struct tn_vm_golden *g)
{
    if (g && __atomic_sub_fetch(&g->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        if (g->fd >= 0)
            close(g->fd);
        if (g->pagemap >= 0)
            close(g->pagemap);
        free(g);
    }
}

static inline struct tn_vm_base *tn_vm_base_init_(size_t bytes)
{
    struct tn_vm_base *base = (struct tn_vm_base *)calloc(1, sizeof(*base));

    if (base)
        base->set = (uint64_t *)calloc(1, bytes);
    if (base && base->set)
        return base;
    free(base);
    return NULL;
}

static inline void tn_vm_base_close_(struct tn_vm_base *base)
{
    if (!base)
        return;
    free(base->dir);
    free(base->digests);
    free(base->set);
    free(base);
}

static inline bool tn_vm_over_(const struct tn_vm *vm)
{
    return vm->state == TN_VM_STOPPED || vm->state == TN_VM_FAILED;
}

/*
 * Makes every vCPU leave KVM_RUN, or not enter it. state_lock is held, and what they are to see is
 * set already: a thread clears immediate_exit before it looks at the state.
 */
static inline void tn_vm_kick_(struct tn_vm *vm)
{
    for (uint32_t i = 0; i < vm->cpus; i++) {
        tn_kvm_interrupt(&vm->cpu[i].vcpu);
        if (vm->cpu[i].joinable)
            (void)pthread_kill(vm->cpu[i].thread, vm->signal);
    }
}

/* Keeps the first reason; every thread then finds its way out. */
static inline void tn_vm_finish_(struct tn_vm *vm, const struct tn_vm_end *end)
{
    pthread_mutex_lock(&vm->state_lock);
    if (vm->end.reason == TN_VM_NONE) {
        vm->end = *end;
        tn_vm_kick_(vm);
        pthread_cond_broadcast(&vm->state_cond);
    }
    pthread_mutex_unlock(&vm->state_lock);
}

/* Waits while the machine is to pause; false: the thread is to return. */
static inline bool tn_vm_may_run_(struct tn_vm *vm)
{
    bool run;

    pthread_mutex_lock(&vm->state_lock);
    if (vm->pausing && vm->end.reason == TN_VM_NONE) {
        vm->parked++;
        pthread_cond_broadcast(&vm->state_cond);
        while (vm->pausing && vm->end.reason == TN_VM_NONE)
            pthread_cond_wait(&vm->state_cond, &vm->state_lock);
        vm->parked--;
    }
    run = vm->end.reason == TN_VM_NONE;
    pthread_mutex_unlock(&vm->state_lock);
    return run;
}

/* What an exit that is no access means for the machine. */
static inline void tn_vm_exit_(const struct tn_kvm_exit *e, struct tn_vm_end *end)
{
    const uint64_t *data = NULL;
    uint32_t n = 0;

    end->exit = e->reason;
    end->reason = TN_VM_ERROR;
    end->err = TN_EUNSUP;
    switch (e->kind) {
    case TN_KVM_EXIT_SHUTDOWN:
        end->reason = TN_VM_CRASH;
        break;
    case TN_KVM_EXIT_SYSTEM_EVENT:
        end->detail[0] = e->event.type;
        data = e->event.data;
        n = e->event.ndata;
        end->reason = e->event.type == KVM_SYSTEM_EVENT_SHUTDOWN ? TN_VM_POWEROFF
                      : e->event.type == KVM_SYSTEM_EVENT_RESET  ? TN_VM_RESET
                                                                 : TN_VM_CRASH;
        break;
    case TN_KVM_EXIT_INTERNAL_ERROR:
        end->detail[0] = e->internal.suberror;
        data = e->internal.data;
        n = e->internal.ndata;
        break;
    case TN_KVM_EXIT_FAIL_ENTRY:
        end->detail[0] = e->fail_entry.reason;
        break;
    default:
        break;
    }
    for (uint32_t i = 0; i < n && i < 3; i++)
        end->detail[i + 1] = data[i];
}

static inline void *tn_vm_cpu_main_(void *arg)
{
    struct tn_vm_cpu *cpu = (struct tn_vm_cpu *)arg;
    struct tn_vm *vm = cpu->vm;
    bool whole = true; /* no access is half done */
    struct tn_kvm_exit e;
    struct tn_vm_end end;

    memset(&end, 0, sizeof(end));
    end.cpu = cpu->vcpu.id;
    while (end.reason == TN_VM_NONE) {
        int r;

        /*
         * An access that was just served is completed by the next KVM_RUN: the thread neither
         * parks nor ends before that, and a kick that came meanwhile makes KVM_RUN end there.
         */
        if (whole) {
            tn_kvm_interrupt_clear(&cpu->vcpu);
            if (!tn_vm_may_run_(vm))
                break;
        }
        r = tn_kvm_run(&cpu->vcpu, &e);
        whole = true;
        if (r < 0) {
            end.reason = TN_VM_ERROR;
            end.err = r;
            end.sys_errno = errno;
        } else if (e.kind == TN_KVM_EXIT_IO || e.kind == TN_KVM_EXIT_MMIO) {
            whole = false;
            end.reason = tn_vm_arch_access(&vm->board, &e, cpu->hint);
        } else if (e.kind != TN_KVM_EXIT_INTERRUPTED && e.kind != TN_KVM_EXIT_AGAIN) {
            tn_vm_exit_(&e, &end);
        }
    }
    if (end.reason != TN_VM_NONE)
        tn_vm_finish_(vm, &end);
    pthread_mutex_lock(&vm->state_lock);
    if (--vm->live == 0) {
        vm->state = vm->end.reason == TN_VM_ERROR ? TN_VM_FAILED : TN_VM_STOPPED;
        tn_loop_wake(vm->loop);
    }
    pthread_cond_broadcast(&vm->state_cond);
    pthread_mutex_unlock(&vm->state_lock);
    return NULL;
}

static inline void tn_vm_on_signal_(int signal)
{
    (void)signal;
}

/* A handler is what makes the signal interrupt KVM_RUN; one that is there already is kept. */
static inline int tn_vm_signal_(int signal)
{
    struct sigaction now, then;

    if (sigaction(signal, NULL, &now) < 0)
        return TN_ESYS;
    if (now.sa_handler != SIG_DFL)
        return TN_OK;
    memset(&then, 0, sizeof(then));
    then.sa_handler = tn_vm_on_signal_;
    sigemptyset(&then.sa_mask);
    return sigaction(signal, &then, NULL) < 0 ? TN_ESYS : TN_OK;
}

/* What must be there before anything else. */
static inline int tn_vm_open_(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                              int signal)
{
    pthread_condattr_t clock;

    memset(vm, 0, sizeof(*vm));
    vm->kvm = kvm;
    vm->loop = loop;
    vm->kvm_vm.fd = -1;
    vm->ram.fd = -1;
    vm->signal = signal ? signal : SIGRTMIN;
    pthread_mutex_init(&vm->state_lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&vm->state_cond, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&vm->board.device_lock, NULL);
    vm->open = true;
    vm->fresh = true;
    vm->state = TN_VM_CREATED;
    return tn_vm_signal_(vm->signal);
}

/* Puts vm->ram, which is mapped, to where the guest has it; with track, host writes are marked. */
static inline int tn_vm_ram_(struct tn_vm *vm, bool track)
{
    struct tn_loader_range ram[TN_VM_ARCH_RAM];
    uint64_t at = 0;
    int n = tn_vm_arch_ram(vm->ram.size, ram);
    int r = n < 0 ? n : TN_OK;

    tn_mem_init(&vm->mem, vm->region, TN_VM_ARCH_RAM);
    for (int i = 0; r >= 0 && i < n; at += ram[i++].size) {
        r = tn_mem_add(&vm->mem, ram[i].gpa, vm->ram.ptr + at, ram[i].size);
        if (r < 0 || !track)
            continue;
        vm->dirty[i] = (uint64_t *)calloc(TN_MEM_DIRTY_WORDS(ram[i].size), sizeof(uint64_t));
        r = vm->dirty[i] ? tn_mem_track(&vm->mem, (uint32_t)i, vm->dirty[i]) : TN_ESYS;
    }
    return r;
}

static inline int tn_vm_memory_(struct tn_vm *vm, const struct tn_vm_cfg *cfg)
{
    struct tn_loader_range ram[TN_VM_ARCH_RAM];
    struct tn_hostmem_cfg pages;
    int r = tn_vm_arch_ram(cfg->memory, ram);

    if (r < 0)
        return r;
    memset(&pages, 0, sizeof(pages));
    pages.size = cfg->memory;
    pages.huge = cfg->huge;
    pages.name = "tenon-ram";
    r = tn_hostmem_init(&vm->ram, &pages);
    return r < 0 ? r : tn_vm_ram_(vm, cfg->track_dirty);
}

/* KVM's objects; the slots come before the interrupt chips, which is 7 ms faster on some hosts. */
static inline int tn_vm_kvm_(struct tn_vm *vm, uint32_t cpus)
{
    int r = tn_kvm_vm_init(vm->kvm, &vm->kvm_vm);

    for (uint32_t i = 0; r >= 0 && i < vm->mem.count; i++)
        r = tn_kvm_set_slot(&vm->kvm_vm, i, vm->mem.region[i].gpa, vm->mem.region[i].size,
                            vm->mem.region[i].host, vm->dirty[i] ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    vm->board.cpus = cpus;
    if (r >= 0)
        r = tn_vm_arch_irqchip(&vm->board, &vm->kvm_vm);
    if (r < 0)
        return r;
    vm->cpu = (struct tn_vm_cpu *)calloc(cpus, sizeof(*vm->cpu));
    if (!vm->cpu)
        return TN_ESYS;
    for (uint32_t i = 0; r >= 0 && i < cpus; i++) {
        vm->cpu[i].vm = vm;
        r = tn_kvm_vcpu_init(vm->kvm, &vm->kvm_vm, &vm->cpu[i].vcpu, i);
        if (r < 0)
            break;
        /* What fills lazy memory may end the machine by now, and kicks those that there are. */
        pthread_mutex_lock(&vm->state_lock);
        vm->cpus = i + 1;
        pthread_mutex_unlock(&vm->state_lock);
    }
    vm->vcpu_flags = TN_VM_ARCH_FRESH;
    return r;
}

static inline int tn_vm_devices_(struct tn_vm *vm, const struct tn_vm_cfg *cfg,
                                 struct tn_loop *loop)
{
    struct tn_vm_place place;
    int r = tn_vm_arch_devices(&vm->board, cfg, loop);

    if (r < 0)
        return r;
    tn_vm_arch_place(&vm->board, &place);
    place.ram = &vm->ram;
    place.lazy = vm->lazy != NULL;
    return tn_vm_devices_init(&vm->devices, cfg, &vm->mem, loop, &place);
}

/* Closes what an init that failed has made so far; returns its error. */
static inline int tn_vm_undo_(struct tn_vm *vm, int err)
{
    int saved = errno;

    tn_vm_close(vm);
    errno = saved;
    return err;
}

TN_API int tn_vm_init(struct tn_vm *vm, struct tn_kvm *kvm, struct tn_loop *loop,
                      const struct tn_vm_cfg *cfg)
{
    uint32_t cpus = cfg->cpus ? cfg->cpus : 1;
    int r = tn_vm_open_(vm, kvm, loop, cfg->signal);

    if (r >= 0 &&
        (cpus > TN_VM_ARCH_MAX_CPUS || cpus > (uint32_t)tn_kvm_cap(kvm, KVM_CAP_MAX_VCPUS)))
        r = TN_EINVAL;
    if (r >= 0)
        r = tn_vm_memory_(vm, cfg);
    if (r >= 0)
        r = tn_vm_kvm_(vm, cpus);
    if (r >= 0)
        r = tn_vm_arch_load(&vm->board, &vm->mem, cfg);
    for (uint32_t i = 0; r >= 0 && i < cpus; i++)
        r = tn_vm_arch_vcpu(&vm->board, kvm, &vm->cpu[i].vcpu);
    if (r >= 0)
        r = tn_vm_devices_(vm, cfg, loop);
    return r < 0 ? tn_vm_undo_(vm, r) : TN_OK;
}

/* Makes the vCPUs' threads, which wait until the machine may run. state_lock is held. */
static inline int tn_vm_threads_(struct tn_vm *vm)
{
    pthread_attr_t attr;
    sigset_t all, old;
    int error = 0;

    vm->pausing = true;
    /* A vCPU's thread takes no signal but its own. */
    sigfillset(&all);
    sigdelset(&all, vm->signal);
    pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, TN_VM_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (uint32_t i = 0; i < vm->cpus && !error; i++) {
        error = pthread_create(&vm->cpu[i].thread, &attr, tn_vm_cpu_main_, &vm->cpu[i]);
        vm->cpu[i].joinable = !error;
        vm->live += !error;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return error;
}

/* Lets the threads go. state_lock is held. */
static inline void tn_vm_go_(struct tn_vm *vm)
{
    vm->pausing = false;
    vm->state = TN_VM_RUNNING;
    vm->fresh = false;
    pthread_cond_broadcast(&vm->state_cond);
}

TN_API int tn_vm_start(struct tn_vm *vm)
{
    int error = 0;

    if (!vm->open)
        return TN_ESTATE;
    pthread_mutex_lock(&vm->state_lock);
    if (vm->state != TN_VM_CREATED || (vm->image && !vm->restored) || vm->torn) {
        pthread_mutex_unlock(&vm->state_lock);
        return TN_ESTATE;
    }
    if (vm->live == 0)
        error = tn_vm_threads_(vm);
    tn_vm_go_(vm);
    if (error) {
        vm->end.reason = TN_VM_ERROR;
        vm->end.err = TN_ESYS;
        vm->end.sys_errno = error;
        if (vm->live == 0)
            vm->state = TN_VM_FAILED;
        tn_vm_kick_(vm);
    }
    pthread_mutex_unlock(&vm->state_lock);
    if (error) {
        (void)tn_vm_wait(vm, -1);
        errno = error;
        return TN_ESYS;
    }
    return TN_OK;
}

TN_API int tn_vm_pause(struct tn_vm *vm)
{
    int r = TN_ESTATE;

    if (!vm->open)
        return r;
    pthread_mutex_lock(&vm->state_lock);
    if (vm->state == TN_VM_RUNNING && !vm->pausing && vm->end.reason == TN_VM_NONE) {
        vm->pausing = true;
        tn_vm_kick_(vm);
        while (vm->parked < vm->live && vm->end.reason == TN_VM_NONE)
            pthread_cond_wait(&vm->state_cond, &vm->state_lock);
        if (vm->end.reason == TN_VM_NONE) {
            vm->state = TN_VM_PAUSED;
            r = TN_OK;
        }
    }
    pthread_mutex_unlock(&vm->state_lock);
    return r;
}

TN_API int tn_vm_resume(struct tn_vm *vm)
{
    int r = TN_ESTATE;

    if (!vm->open)
        return r;
    pthread_mutex_lock(&vm->state_lock);
    if (vm->state == TN_VM_PAUSED && vm->end.reason == TN_VM_NONE) {
        tn_vm_go_(vm);
        r = TN_OK;
    }
    pthread_mutex_unlock(&vm->state_lock);
    return r;
}

TN_API int tn_vm_shutdown(struct tn_vm *vm)
{
    if (tn_vm_state_read(vm) != TN_VM_RUNNING)
        return TN_ESTATE;
    return tn_vm_arch_shutdown(&vm->board);
}

TN_API int tn_vm_ctrl_alt_del(struct tn_vm *vm)
{
    if (tn_vm_state_read(vm) != TN_VM_RUNNING)
        return TN_ESTATE;
    return tn_vm_arch_ctrl_alt_del(&vm->board);
}

TN_API int tn_vm_kill(struct tn_vm *vm)
{
    if (!vm->open)
        return TN_ESTATE;
    pthread_mutex_lock(&vm->state_lock);
    if (!tn_vm_over_(vm) && vm->end.reason == TN_VM_NONE) {
        vm->end.reason = TN_VM_KILLED;
        if (vm->live == 0) { /* no thread is there to say that it has ended */
            vm->state = TN_VM_STOPPED;
            tn_loop_wake(vm->loop);
        }
        tn_vm_kick_(vm);
        pthread_cond_broadcast(&vm->state_cond);
    }
    pthread_mutex_unlock(&vm->state_lock);
    return TN_OK;
}

TN_API int tn_vm_wait(struct tn_vm *vm, int timeout_ms)
{
    struct timespec until;
    int r;

    if (!vm->open)
        return TN_ESTATE;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&vm->state_lock);
    r = vm->state == TN_VM_CREATED && vm->end.reason == TN_VM_NONE ? TN_ESTATE : 0;
    while (r == 0 && !tn_vm_over_(vm)) {
        if (timeout_ms == 0)
            break;
        if (timeout_ms < 0)
            r = pthread_cond_wait(&vm->state_cond, &vm->state_lock);
        else
            r = pthread_cond_timedwait(&vm->state_cond, &vm->state_lock, &until);
    }
    if (r >= 0)
        r = tn_vm_over_(vm) ? (int)vm->end.reason : TN_EAGAIN;
    pthread_mutex_unlock(&vm->state_lock);
    return r;
}

TN_API int tn_vm_stop(struct tn_vm *vm, int grace_ms)
{
    int r;

    if (tn_vm_shutdown(vm) == TN_OK && tn_vm_wait(vm, grace_ms) > 0)
        return TN_OK;
    r = tn_vm_kill(vm);
    if (r == TN_OK)
        (void)tn_vm_wait(vm, -1);
    return r;
}

TN_API void tn_vm_resize(struct tn_vm *vm, uint16_t cols, uint16_t rows)
{
    struct tn_vm_hvc *hvc = vm->open ? vm->devices.hvc : NULL;

    if (!hvc)
        return;
    pthread_mutex_lock(&hvc->slot.lock);
    tn_virtio_console_resize(&hvc->model, cols, rows);
    pthread_mutex_unlock(&hvc->slot.lock);
}

TN_API uint32_t tn_vm_state_read(struct tn_vm *vm)
{
    uint32_t state;

    if (!vm->open)
        return TN_VM_CLOSED;
    pthread_mutex_lock(&vm->state_lock);
    state = vm->state;
    pthread_mutex_unlock(&vm->state_lock);
    return state;
}

/* Waits for the threads of a machine that has ended. */
static inline void tn_vm_join_(struct tn_vm *vm)
{
    for (uint32_t i = 0; i < vm->cpus; i++) {
        if (vm->cpu[i].joinable)
            pthread_join(vm->cpu[i].thread, NULL);
        vm->cpu[i].joinable = false;
    }
}

/* The part of a close that concerns the loop; what is left for any thread goes to rest. */
static inline void tn_vm_close_front_(struct tn_vm *vm, struct tn_vm_rest *rest)
{
    (void)tn_vm_kill(vm);
    tn_vm_join_(vm);
    tn_vm_devices_close(&vm->devices);
    tn_vm_arch_close(&vm->board);
    if (vm->lazy) /* it reads the image, which may be closed after this */
        tn_uffd_close(vm->lazy);
    free(vm->lazy);
    rest->next = NULL;
    rest->kvm_vm = vm->kvm_vm;
    rest->cpu = vm->cpu;
    rest->cpus = vm->cpus;
    rest->ram = vm->ram;
    rest->golden = vm->golden;
    for (uint32_t i = 0; i < TN_VM_ARCH_RAM; i++)
        free(vm->dirty[i]);
    tn_vm_base_close_(vm->base);
    pthread_cond_destroy(&vm->state_cond);
    pthread_mutex_destroy(&vm->state_lock);
    pthread_mutex_destroy(&vm->board.device_lock);
    vm->kvm_vm.fd = vm->ram.fd = -1;
    vm->cpu = NULL;
    vm->cpus = 0;
    vm->lazy = NULL;
    vm->golden = NULL;
    vm->base = NULL;
    vm->open = false;
    vm->state = TN_VM_CLOSED;
}

static inline void tn_vm_close_rest_(struct tn_vm_rest *rest)
{
    for (uint32_t i = 0; i < rest->cpus; i++)
        tn_kvm_vcpu_close(&rest->cpu[i].vcpu);
    free(rest->cpu);
    tn_kvm_vm_close(&rest->kvm_vm);
    tn_hostmem_close(&rest->ram);
    tn_vm_golden_put_(rest->golden);
}

TN_API void tn_vm_close(struct tn_vm *vm)
{
    struct tn_vm_rest rest;

    if (!vm->open)
        return;
    tn_vm_close_front_(vm, &rest);
    tn_vm_close_rest_(&rest);
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_H */
