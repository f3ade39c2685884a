/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_kvm - /dev/kvm, one system call per function, one decoded exit per run.
 *
 * WHAT
 *   Opens KVM and checks that it is one to build on; makes VMs, memory slots and vCPUs; wires
 *   eventfds to interrupts and to guest writes; reads the dirty log; runs a vCPU until its next
 *   exit and says what that exit is. Names and numbers are the KVM API's. What only one
 *   architecture has is in tn_kvm_x86.
 *
 * USAGE
 *   struct tn_kvm kvm;
 *   struct tn_kvm_vm vm;
 *   struct tn_kvm_vcpu vcpu;
 *   struct tn_kvm_exit e;
 *   static uint8_t ram[0x10000] __attribute__((aligned(4096)));
 *   bool done = false;
 *
 *   if (tn_kvm_open(&kvm, NULL) < 0)
 *       return 1;
 *   if (tn_kvm_vm_init(&kvm, &vm) < 0 || tn_kvm_set_slot(&vm, 0, 0, sizeof(ram), ram, 0) < 0 ||
 *       tn_kvm_vcpu_init(&kvm, &vm, &vcpu, 0) < 0)
 *       return 2;
 *   while (!done && tn_kvm_run(&vcpu, &e) >= 0) {
 *       if (e.kind == TN_KVM_EXIT_IO && e.io.write)
 *           (void)e.io.data; // e.io.count times e.io.size bytes for e.io.port
 *       else if (e.kind != TN_KVM_EXIT_INTERRUPTED && e.kind != TN_KVM_EXIT_AGAIN)
 *           done = true;
 *   }
 *   tn_kvm_vcpu_close(&vcpu);
 *   tn_kvm_vm_close(&vm);
 *   tn_kvm_close(&kvm);
 *
 * COMPOSITION
 *   Slots come from tn_mem's regions over tn_hostmem's memory. An exit goes to tn_bus by its port
 *   or address. Set the slots before the interrupt chips, and touch no slot after: a chip or an
 *   ioeventfd that was just registered makes the next change of a slot wait for milliseconds.
 *   vCPUs come after the interrupt chips.
 *
 * GUEST TRUST
 *   A guest chooses port, address, width, direction and count of an access, and every byte of its
 *   data; KVM bounds size (1, 2, 4), count (a page of data) and len (1 to 8). The data lies in the
 *   run page, which no guest can reach. The numbers of system events and errors are to report.
 *
 * MEMORY
 *   The caller owns the structs; init to close each holds one descriptor, and a vCPU a mapping of
 *   its run page. What an exit points to is valid until the next tn_kvm_run of that vCPU.
 *
 * THREADS
 *   struct tn_kvm is read-only once open. A vCPU is run by one thread, best always the same one.
 *   tn_kvm_interrupt may be called by any. To stop a vCPU without losing a stop:
 *
 *     who stops it                        the vCPU's thread
 *     1. sets what it is to see           1. tn_kvm_interrupt_clear
 *     2. tn_kvm_interrupt                 2. looks whether it is to stop
 *     3. pthread_kill with a signal that  3. tn_kvm_run, and back to 1
 *        has a handler
 *
 *   If the clear comes after the interrupt, the look sees what was set; if before, tn_kvm_run
 *   returns TN_KVM_EXIT_INTERRUPTED at once, or the signal ends it. Functions on a VM may run on
 *   any thread, at once.
 *
 * CONFIG
 *   TN_KVM_MAX_ROUTES: capacity of struct tn_kvm_routes, 256.
 *
 * SPEC
 *   Linux, Documentation/virt/kvm/api.rst: section 4, by the names of the ioctls the functions'
 *   comments cite; 5 (struct kvm_run); 7 (capabilities that are enabled).
 *
 * LIMITS
 *   Linux 5.4 or later with API version 12. One address space (no SMM slots). A process that was
 *   forked off cannot use its parent's VM.
 */
#ifndef TN_KVM_H
#define TN_KVM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* O_CLOEXEC; of use only before the first system header */
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

#include <linux/kvm.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/*
 * Returns, unless said otherwise: 0, or TN_ESYS with KVM's errno (EBADF on what is closed).
 */

#ifndef TN_KVM_MAX_ROUTES
#define TN_KVM_MAX_ROUTES 256u
#endif
#define TN_KVM_MAX_CPUID 256u /* entries; the kernel takes no more */

#ifdef __x86_64__
/* The kernel's struct kvm_cpuid2, with a capacity. */
struct tn_kvm_cpuid {
    uint32_t nent;
    uint32_t padding;
    struct kvm_cpuid_entry2 entries[TN_KVM_MAX_CPUID];
};
#endif

/* KVM itself. */
struct tn_kvm {
    int fd;          /* -1: closed */
    int missing;     /* after TN_ENODEV: the capability that is not there; 0: KVM is not */
    size_t run_size; /* bytes of a vCPU's run page, KVM_GET_VCPU_MMAP_SIZE */
#ifdef __x86_64__
    struct tn_kvm_cpuid supported; /* KVM_GET_SUPPORTED_CPUID: it takes long, so it is kept here */
#endif
};

/* A virtual machine. */
struct tn_kvm_vm {
    int fd; /* -1: closed */
};

/* A virtual CPU. */
struct tn_kvm_vcpu {
    int fd;              /* -1: closed */
    uint32_t id;         /* its APIC id on x86 */
    struct kvm_run *run; /* shared with KVM */
    size_t run_size;
};

/* What made a vCPU stop. */
enum tn_kvm_exit_kind {
    TN_KVM_EXIT_UNKNOWN = 0, /* none of these: reason says which, vcpu->run has the rest */
    TN_KVM_EXIT_IO,          /* a port was read or written */
    TN_KVM_EXIT_MMIO,        /* an address that no slot has, or a write to read-only memory */
    TN_KVM_EXIT_HLT,         /* only without an interrupt chip in the kernel: it waits there */
    TN_KVM_EXIT_SHUTDOWN,    /* x86: a triple fault */
    TN_KVM_EXIT_SYSTEM_EVENT,
    TN_KVM_EXIT_INTERNAL_ERROR,
    TN_KVM_EXIT_FAIL_ENTRY,
    TN_KVM_EXIT_INTERRUPTED, /* by a signal or tn_kvm_interrupt: look why, and run again */
    TN_KVM_EXIT_AGAIN,       /* woken, but not started: run again, see tn_kvm_run */
    TN_KVM_EXIT_IRQ_WINDOW,  /* x86: the guest takes interrupts now, as was asked for */
    TN_KVM_EXIT_IOAPIC_EOI   /* x86, split chips: the end of a level-triggered interrupt */
};

struct tn_kvm_exit_io {
    uint16_t port;
    uint8_t size;   /* bytes of each access: 1, 2 or 4 */
    bool write;     /* OUT: data is to be consumed; IN: to be filled */
    uint32_t count; /* accesses, > 1 for string instructions */
    uint8_t *data;  /* size * count bytes */
};

struct tn_kvm_exit_mmio {
    uint64_t gpa;
    uint8_t *data; /* 8 bytes; the first len count */
    uint8_t len;   /* 1 to 8, any number */
    bool write;
};

struct tn_kvm_exit_event {
    uint32_t type; /* KVM_SYSTEM_EVENT_SHUTDOWN, _RESET, _CRASH, ... */
    uint32_t ndata;
    const uint64_t *data; /* ndata words */
};

struct tn_kvm_exit_internal {
    uint32_t suberror; /* KVM_INTERNAL_ERROR_EMULATION, ... */
    uint32_t ndata;
    const uint64_t *data; /* ndata words */
};

struct tn_kvm_exit_fail_entry {
    uint64_t reason; /* the hardware's */
    uint32_t cpu;    /* the host's CPU that it happened on */
};

struct tn_kvm_exit_eoi {
    uint8_t vector;
};

struct tn_kvm_exit {
    uint32_t kind;   /* enum tn_kvm_exit_kind */
    uint32_t reason; /* KVM_EXIT_*; 0 for INTERRUPTED and AGAIN */
    union {
        struct tn_kvm_exit_io io;
        struct tn_kvm_exit_mmio mmio;
        struct tn_kvm_exit_event event;
        struct tn_kvm_exit_internal internal;
        struct tn_kvm_exit_fail_entry fail_entry;
        struct tn_kvm_exit_eoi eoi;
    };
};

/*
 * Opens path (NULL: /dev/kvm) and checks what tn_kvm and its architecture's part cannot do without.
 * Returns 0; TN_ENODEV when there is no such device, when it is not KVM with API version 12, or
 * when a capability is missing (k->missing); TN_ESYS otherwise, EACCES for one. k is closed then.
 */
TN_API int tn_kvm_open(struct tn_kvm *k, const char *path);
TN_API void tn_kvm_close(struct tn_kvm *k);

/*
 * The value of a capability (KVM_CAP_*), 0 if KVM does not know it; of a VM, which may differ.
 * KVM_CHECK_EXTENSION
 */
TN_API int tn_kvm_cap(const struct tn_kvm *k, long cap);
TN_API int tn_kvm_vm_cap(const struct tn_kvm_vm *vm, long cap);

/*
 * Enables a capability of the VM; flags are 0. KVM_ENABLE_CAP
 */
TN_API int tn_kvm_enable_cap(struct tn_kvm_vm *vm, uint32_t cap, uint64_t arg0);

/*
 * Makes an empty VM. Closing it takes milliseconds when chips or ioeventfds were registered
 * lately: an owner in a hurry closes on another thread. It lives on until its vCPUs are closed
 * too. KVM_CREATE_VM
 */
TN_API int tn_kvm_vm_init(const struct tn_kvm *k, struct tn_kvm_vm *vm);
TN_API void tn_kvm_vm_close(struct tn_kvm_vm *vm);

/*
 * Puts size bytes at host into the guest's memory at gpa, all multiples of the page; or changes
 * slot's flags; or deletes it (size 0). host stays mapped for as long. flags:
 * KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY. KVM_SET_USER_MEMORY_REGION
 */
TN_API int tn_kvm_set_slot(struct tn_kvm_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size,
                           void *host, uint32_t flags);

/*
 * The pages of slot that were written since the last call, one bit each, in 64-bit words; clears
 * the log, unless KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 is enabled: then tn_kvm_clear_dirty_log does,
 * for those of pages bits from first on (a multiple of 64; pages too, or up to the slot's end)
 * that are set. What userspace writes itself is not in it. KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG
 */
TN_API int tn_kvm_dirty_log(struct tn_kvm_vm *vm, uint32_t slot, uint64_t *bitmap);
TN_API int tn_kvm_clear_dirty_log(struct tn_kvm_vm *vm, uint32_t slot, uint64_t first,
                                  uint32_t pages, uint64_t *bitmap);

/*
 * Interrupts: sets the level of an input (gsi) of the interrupt chips; injects a message, which
 * returns 1, or 0 where the guest blocks it. KVM_IRQ_LINE,
 * KVM_SIGNAL_MSI
 */
TN_API int tn_kvm_irq_line(const struct tn_kvm_vm *vm, uint32_t gsi, bool level);
TN_API int tn_kvm_signal_msi(const struct tn_kvm_vm *vm, uint64_t address, uint32_t data);

/*
 * Makes a signal on eventfd fd raise gsi. flags: 0 (an edge); KVM_IRQFD_FLAG_RESAMPLE (a level,
 * lowered by the guest's end of interrupt, which is signalled on resamplefd);
 * KVM_IRQFD_FLAG_DEASSIGN undoes it. resamplefd is -1 otherwise.
 * KVM_IRQFD
 */
TN_API int tn_kvm_irqfd(struct tn_kvm_vm *vm, int fd, uint32_t gsi, uint32_t flags, int resamplefd);

/*
 * Makes a guest's write of len bytes (1, 2, 4, 8; 0: any) at addr signal eventfd fd, without an
 * exit. flags: KVM_IOEVENTFD_FLAG_PIO (addr is a port), _DATAMATCH (only where datamatch is
 * written), _DEASSIGN (undo; all else as it was given).
 * KVM_IOEVENTFD
 */
TN_API int tn_kvm_ioeventfd(struct tn_kvm_vm *vm, uint64_t addr, uint32_t len, int fd,
                            uint32_t flags, uint64_t datamatch);

/* The kernel's struct kvm_irq_routing, with a capacity. */
struct tn_kvm_routes {
    uint32_t nr;
    uint32_t flags;
    struct kvm_irq_routing_entry entries[TN_KVM_MAX_ROUTES];
};

/*
 * Adds a row: gsi goes to a pin of a chip, or sends a message. Returns 0, or TN_ENOSPC.
 */
TN_API int tn_kvm_route_pin(struct tn_kvm_routes *r, uint32_t gsi, uint32_t chip, uint32_t pin);
TN_API int tn_kvm_route_msi(struct tn_kvm_routes *r, uint32_t gsi, uint64_t address, uint32_t data);

/*
 * Replaces the whole table of where each gsi goes. KVM_SET_GSI_ROUTING
 */
TN_API int tn_kvm_set_routes(struct tn_kvm_vm *vm, const struct tn_kvm_routes *r);

/*
 * Devices in the kernel, and attributes: fd is a device's, a VM's or a vCPU's. create returns the
 * device's descriptor, which the caller closes; has returns 1 or 0. KVM_CREATE_DEVICE,
 * KVM_HAS_DEVICE_ATTR, ...
 */
TN_API int tn_kvm_create_device(struct tn_kvm_vm *vm, uint32_t type);
TN_API int tn_kvm_has_attr(int fd, uint32_t group, uint64_t attr);
TN_API int tn_kvm_get_attr(int fd, uint32_t group, uint64_t attr, void *value);
TN_API int tn_kvm_set_attr(int fd, uint32_t group, uint64_t attr, const void *value);

/*
 * Makes vCPU id and maps its run page. Nothing is left behind after an error. KVM_CREATE_VCPU
 */
TN_API int tn_kvm_vcpu_init(const struct tn_kvm *k, struct tn_kvm_vm *vm, struct tn_kvm_vcpu *vcpu,
                            uint32_t id);
TN_API void tn_kvm_vcpu_close(struct tn_kvm_vcpu *vcpu);

/*
 * Runs the vCPU until its next exit, and decodes it into *e. An IN or an MMIO read completes with
 * the data of the next call, so does every access: call once more, with tn_kvm_interrupt set,
 * before state is saved. TN_KVM_EXIT_INTERRUPTED and _AGAIN are no errors. AGAIN: a second CPU
 * that waits for its start-up IPI was woken up; run it again, and it blocks in the kernel: this is
 * no busy loop. Returns 0; TN_ESYS (EFAULT: a slot without memory behind it, EIO: another
 * process's VM); TN_EBUG: an exit that contradicts itself. *e is zero then. KVM_RUN, section 5
 */
TN_API int tn_kvm_run(struct tn_kvm_vcpu *vcpu, struct tn_kvm_exit *e);

/*
 * The second half of tn_kvm_run: what the run page says now. Returns 0 or TN_EBUG.
 */
TN_API int tn_kvm_decode(const struct tn_kvm_vcpu *vcpu, struct tn_kvm_exit *e);

/*
 * Makes tn_kvm_run complete the access that is under way and return TN_KVM_EXIT_INTERRUPTED, now
 * and until the flag is cleared by the vCPU's own thread. One that is in the guest already needs a
 * signal too: THREADS above.
 */
TN_API void tn_kvm_interrupt(struct tn_kvm_vcpu *vcpu);
TN_API void tn_kvm_interrupt_clear(struct tn_kvm_vcpu *vcpu);

/*
 * Whether the vCPU runs, halts or waits: KVM_MP_STATE_*. KVM_GET_MP_STATE, KVM_SET_MP_STATE
 */
TN_API int tn_kvm_get_mp_state(const struct tn_kvm_vcpu *vcpu, uint32_t *state);
TN_API int tn_kvm_set_mp_state(struct tn_kvm_vcpu *vcpu, uint32_t state);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__GLIBC__) && !defined(__USE_MISC)
#error "tn_kvm.h: compile with -D_GNU_SOURCE, or include it before the system's headers"
#endif

#define TN_KVM_VERSION  12
#define TN_KVM_RETRIES  16u /* of making a VM, which a signal may interrupt */
#define TN_KVM_MAX_DATA 16u /* words in a system event or an internal error */

/* An ioctl with a pointer, or a number: what it returns, or TN_ESYS. */
static inline int tn_kvm_ioctl_(int fd, unsigned long request, const void *arg)
{
    int r = ioctl(fd, request, arg);

    return r < 0 ? TN_ESYS : r;
}

static inline int tn_kvm_ioctl_n_(int fd, unsigned long request, unsigned long arg)
{
    int r = ioctl(fd, request, arg);

    return r < 0 ? TN_ESYS : r;
}

static inline void tn_kvm_close_fd_(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
    errno = saved;
}

static const int tn_kvm_needs_[] = {
    KVM_CAP_USER_MEMORY,    KVM_CAP_DESTROY_MEMORY_REGION_WORKS,
    KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_IRQFD,
    KVM_CAP_IOEVENTFD,      KVM_CAP_CHECK_EXTENSION_VM,
#ifdef __x86_64__
    KVM_CAP_EXT_CPUID,      KVM_CAP_IRQCHIP,
    KVM_CAP_SET_TSS_ADDR,
#endif
};

/* The checks of tn_kvm_open, on a descriptor that may be anything. */
static inline int tn_kvm_check_(struct tn_kvm *k)
{
    int r = tn_kvm_ioctl_n_(k->fd, KVM_GET_API_VERSION, 0);

    if (r != TN_KVM_VERSION)
        return TN_ENODEV;
    for (size_t i = 0; i < sizeof(tn_kvm_needs_) / sizeof(tn_kvm_needs_[0]); i++) {
        if (tn_kvm_cap(k, tn_kvm_needs_[i]) > 0)
            continue;
        k->missing = tn_kvm_needs_[i];
        return TN_ENODEV;
    }
    r = tn_kvm_ioctl_n_(k->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (r < 0)
        return r;
    k->run_size = (size_t)r;
    if (k->run_size < sizeof(struct kvm_run))
        return TN_ENODEV;
#ifdef __x86_64__
    k->supported.nent = TN_KVM_MAX_CPUID;
    return tn_kvm_ioctl_(k->fd, KVM_GET_SUPPORTED_CPUID, &k->supported);
#else
    return TN_OK;
#endif
}

TN_API int tn_kvm_open(struct tn_kvm *k, const char *path)
{
    int r;

    memset(k, 0, sizeof(*k));
    k->fd = open(path ? path : "/dev/kvm", O_RDWR | O_CLOEXEC);
    if (k->fd < 0)
        return errno == ENOENT || errno == ENODEV || errno == ENXIO ? TN_ENODEV : TN_ESYS;
    r = tn_kvm_check_(k);
    if (r < 0)
        tn_kvm_close(k);
    return r;
}

TN_API void tn_kvm_close(struct tn_kvm *k)
{
    tn_kvm_close_fd_(&k->fd);
}

TN_API int tn_kvm_cap(const struct tn_kvm *k, long cap)
{
    return tn_kvm_ioctl_n_(k->fd, KVM_CHECK_EXTENSION, (unsigned long)cap);
}

TN_API int tn_kvm_vm_cap(const struct tn_kvm_vm *vm, long cap)
{
    return tn_kvm_ioctl_n_(vm->fd, KVM_CHECK_EXTENSION, (unsigned long)cap);
}

TN_API int tn_kvm_enable_cap(struct tn_kvm_vm *vm, uint32_t cap, uint64_t arg0)
{
    struct kvm_enable_cap v;

    memset(&v, 0, sizeof(v));
    v.cap = cap;
    v.args[0] = arg0;
    return tn_kvm_ioctl_(vm->fd, KVM_ENABLE_CAP, &v);
}

TN_API int tn_kvm_vm_init(const struct tn_kvm *k, struct tn_kvm_vm *vm)
{
    unsigned tries = 0;

    do {
        vm->fd = ioctl(k->fd, KVM_CREATE_VM, 0ul);
    } while (vm->fd < 0 && errno == EINTR && ++tries < TN_KVM_RETRIES);
    return vm->fd < 0 ? TN_ESYS : TN_OK;
}

TN_API void tn_kvm_vm_close(struct tn_kvm_vm *vm)
{
    tn_kvm_close_fd_(&vm->fd);
}

TN_API int tn_kvm_set_slot(struct tn_kvm_vm *vm, uint32_t slot, uint64_t gpa, uint64_t size,
                           void *host, uint32_t flags)
{
    struct kvm_userspace_memory_region v;

    memset(&v, 0, sizeof(v));
    v.slot = slot;
    v.flags = flags;
    v.guest_phys_addr = gpa;
    v.memory_size = size;
    v.userspace_addr = (uintptr_t)host;
    return tn_kvm_ioctl_(vm->fd, KVM_SET_USER_MEMORY_REGION, &v);
}

TN_API int tn_kvm_dirty_log(struct tn_kvm_vm *vm, uint32_t slot, uint64_t *bitmap)
{
    struct kvm_dirty_log v;

    memset(&v, 0, sizeof(v));
    v.slot = slot;
    v.dirty_bitmap = bitmap;
    return tn_kvm_ioctl_(vm->fd, KVM_GET_DIRTY_LOG, &v);
}

TN_API int tn_kvm_clear_dirty_log(struct tn_kvm_vm *vm, uint32_t slot, uint64_t first,
                                  uint32_t pages, uint64_t *bitmap)
{
    struct kvm_clear_dirty_log v;

    memset(&v, 0, sizeof(v));
    v.slot = slot;
    v.num_pages = pages;
    v.first_page = first;
    v.dirty_bitmap = bitmap;
    return tn_kvm_ioctl_(vm->fd, KVM_CLEAR_DIRTY_LOG, &v);
}

TN_API int tn_kvm_irq_line(const struct tn_kvm_vm *vm, uint32_t gsi, bool level)
{
    struct kvm_irq_level v;

    memset(&v, 0, sizeof(v));
    v.irq = gsi;
    v.level = level;
    return tn_kvm_ioctl_(vm->fd, KVM_IRQ_LINE, &v);
}

TN_API int tn_kvm_signal_msi(const struct tn_kvm_vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_msi v;
    int r;

    memset(&v, 0, sizeof(v));
    v.address_lo = (uint32_t)address;
    v.address_hi = (uint32_t)(address >> 32);
    v.data = data;
    r = tn_kvm_ioctl_(vm->fd, KVM_SIGNAL_MSI, &v);
    return r > 0 ? 1 : r;
}

TN_API int tn_kvm_irqfd(struct tn_kvm_vm *vm, int fd, uint32_t gsi, uint32_t flags, int resamplefd)
{
    struct kvm_irqfd v;

    memset(&v, 0, sizeof(v));
    v.fd = (uint32_t)fd;
    v.gsi = gsi;
    v.flags = flags;
    v.resamplefd = flags & KVM_IRQFD_FLAG_RESAMPLE ? (uint32_t)resamplefd : 0;
    return tn_kvm_ioctl_(vm->fd, KVM_IRQFD, &v);
}

TN_API int tn_kvm_ioeventfd(struct tn_kvm_vm *vm, uint64_t addr, uint32_t len, int fd,
                            uint32_t flags, uint64_t datamatch)
{
    struct kvm_ioeventfd v;

    memset(&v, 0, sizeof(v));
    v.datamatch = datamatch;
    v.addr = addr;
    v.len = len;
    v.fd = fd;
    v.flags = flags;
    return tn_kvm_ioctl_(vm->fd, KVM_IOEVENTFD, &v);
}

/* A new row of the table, zero but for gsi and type; NULL: full. */
static inline struct kvm_irq_routing_entry *tn_kvm_route_(struct tn_kvm_routes *r, uint32_t gsi,
                                                          uint32_t type)
{
    struct kvm_irq_routing_entry *row;

    if (r->nr >= TN_KVM_MAX_ROUTES)
        return NULL;
    row = &r->entries[r->nr++];
    memset(row, 0, sizeof(*row));
    row->gsi = gsi;
    row->type = type;
    return row;
}

TN_API int tn_kvm_route_pin(struct tn_kvm_routes *r, uint32_t gsi, uint32_t chip, uint32_t pin)
{
    struct kvm_irq_routing_entry *row = tn_kvm_route_(r, gsi, KVM_IRQ_ROUTING_IRQCHIP);

    if (!row)
        return TN_ENOSPC;
    row->u.irqchip.irqchip = chip;
    row->u.irqchip.pin = pin;
    return TN_OK;
}

TN_API int tn_kvm_route_msi(struct tn_kvm_routes *r, uint32_t gsi, uint64_t address, uint32_t data)
{
    struct kvm_irq_routing_entry *row = tn_kvm_route_(r, gsi, KVM_IRQ_ROUTING_MSI);

    if (!row)
        return TN_ENOSPC;
    row->u.msi.address_lo = (uint32_t)address;
    row->u.msi.address_hi = (uint32_t)(address >> 32);
    row->u.msi.data = data;
    return TN_OK;
}

TN_API int tn_kvm_set_routes(struct tn_kvm_vm *vm, const struct tn_kvm_routes *r)
{
    return tn_kvm_ioctl_(vm->fd, KVM_SET_GSI_ROUTING, r);
}

TN_API int tn_kvm_create_device(struct tn_kvm_vm *vm, uint32_t type)
{
    struct kvm_create_device v;
    int r;

    memset(&v, 0, sizeof(v));
    v.type = type;
    r = tn_kvm_ioctl_(vm->fd, KVM_CREATE_DEVICE, &v);
    return r < 0 ? r : (int)v.fd;
}

static inline int tn_kvm_attr_(int fd, unsigned long request, uint32_t group, uint64_t attr,
                               const void *value)
{
    struct kvm_device_attr v;

    memset(&v, 0, sizeof(v));
    v.group = group;
    v.attr = attr;
    v.addr = (uintptr_t)value;
    return tn_kvm_ioctl_(fd, request, &v);
}

TN_API int tn_kvm_has_attr(int fd, uint32_t group, uint64_t attr)
{
    int r = tn_kvm_attr_(fd, KVM_HAS_DEVICE_ATTR, group, attr, NULL);

    if (r < 0)
        return errno == EBADF ? r : 0;
    return 1;
}

TN_API int tn_kvm_get_attr(int fd, uint32_t group, uint64_t attr, void *value)
{
    return tn_kvm_attr_(fd, KVM_GET_DEVICE_ATTR, group, attr, value);
}

TN_API int tn_kvm_set_attr(int fd, uint32_t group, uint64_t attr, const void *value)
{
    return tn_kvm_attr_(fd, KVM_SET_DEVICE_ATTR, group, attr, value);
}

TN_API int tn_kvm_vcpu_init(const struct tn_kvm *k, struct tn_kvm_vm *vm, struct tn_kvm_vcpu *vcpu,
                            uint32_t id)
{
    void *run;

    memset(vcpu, 0, sizeof(*vcpu));
    vcpu->id = id;
    vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)id);
    if (vcpu->fd < 0)
        return TN_ESYS;
    run = mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED) {
        tn_kvm_close_fd_(&vcpu->fd);
        return TN_ESYS;
    }
    vcpu->run = (struct kvm_run *)run;
    vcpu->run_size = k->run_size;
    return TN_OK;
}

TN_API void tn_kvm_vcpu_close(struct tn_kvm_vcpu *vcpu)
{
    if (vcpu->run)
        (void)munmap(vcpu->run, vcpu->run_size);
    vcpu->run = NULL;
    tn_kvm_close_fd_(&vcpu->fd);
}

/* Whether size * count bytes at offset lie in the run page. */
static inline bool tn_kvm_io_ok_(const struct tn_kvm_vcpu *vcpu, uint64_t offset, uint32_t size,
                                 uint32_t count)
{
    return (size == 1 || size == 2 || size == 4) && count > 0 && offset < vcpu->run_size &&
           count <= (vcpu->run_size - offset) / size;
}

TN_API int tn_kvm_decode(const struct tn_kvm_vcpu *vcpu, struct tn_kvm_exit *e)
{
    struct kvm_run *run = vcpu->run;

    e->reason = run->exit_reason;
    switch (e->reason) {
    case KVM_EXIT_IO:
        if (!tn_kvm_io_ok_(vcpu, run->io.data_offset, run->io.size, run->io.count))
            break;
        e->kind = TN_KVM_EXIT_IO;
        e->io.port = run->io.port;
        e->io.size = run->io.size;
        e->io.write = run->io.direction == KVM_EXIT_IO_OUT;
        e->io.count = run->io.count;
        e->io.data = (uint8_t *)run + run->io.data_offset;
        return TN_OK;
    case KVM_EXIT_MMIO:
        if (run->mmio.len == 0 || run->mmio.len > sizeof(run->mmio.data))
            break;
        e->kind = TN_KVM_EXIT_MMIO;
        e->mmio.gpa = run->mmio.phys_addr;
        e->mmio.data = run->mmio.data;
        e->mmio.len = (uint8_t)run->mmio.len;
        e->mmio.write = run->mmio.is_write != 0;
        return TN_OK;
    case KVM_EXIT_SYSTEM_EVENT:
        e->kind = TN_KVM_EXIT_SYSTEM_EVENT;
        e->event.type = run->system_event.type;
        e->event.ndata = run->system_event.ndata;
        if (e->event.ndata > TN_KVM_MAX_DATA) /* kernels before 5.19 leave the field alone */
            e->event.ndata = TN_KVM_MAX_DATA;
        e->event.data = (const uint64_t *)(const void *)run->system_event.data;
        return TN_OK;
    case KVM_EXIT_INTERNAL_ERROR:
        e->kind = TN_KVM_EXIT_INTERNAL_ERROR;
        e->internal.suberror = run->internal.suberror;
        e->internal.ndata = run->internal.ndata;
        if (e->internal.ndata > TN_KVM_MAX_DATA)
            e->internal.ndata = TN_KVM_MAX_DATA;
        e->internal.data = (const uint64_t *)(const void *)run->internal.data;
        return TN_OK;
    case KVM_EXIT_FAIL_ENTRY:
        e->kind = TN_KVM_EXIT_FAIL_ENTRY;
        e->fail_entry.reason = run->fail_entry.hardware_entry_failure_reason;
        e->fail_entry.cpu = run->fail_entry.cpu;
        return TN_OK;
    case KVM_EXIT_IOAPIC_EOI:
        e->kind = TN_KVM_EXIT_IOAPIC_EOI;
        e->eoi.vector = run->eoi.vector;
        return TN_OK;
    case KVM_EXIT_HLT:
        e->kind = TN_KVM_EXIT_HLT;
        return TN_OK;
    case KVM_EXIT_SHUTDOWN:
        e->kind = TN_KVM_EXIT_SHUTDOWN;
        return TN_OK;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        e->kind = TN_KVM_EXIT_IRQ_WINDOW;
        return TN_OK;
    case KVM_EXIT_INTR:
        e->kind = TN_KVM_EXIT_INTERRUPTED;
        return TN_OK;
    default:
        e->kind = TN_KVM_EXIT_UNKNOWN;
        return TN_OK;
    }
    memset(e, 0, sizeof(*e));
    return TN_EBUG;
}

TN_API int tn_kvm_run(struct tn_kvm_vcpu *vcpu, struct tn_kvm_exit *e)
{
    if (ioctl(vcpu->fd, KVM_RUN, 0ul) >= 0)
        return tn_kvm_decode(vcpu, e);
    memset(e, 0, sizeof(*e));
    if (errno == EINTR)
        e->kind = TN_KVM_EXIT_INTERRUPTED;
    else if (errno == EAGAIN)
        e->kind = TN_KVM_EXIT_AGAIN;
    else
        return TN_ESYS;
    return TN_OK;
}

TN_API void tn_kvm_interrupt(struct tn_kvm_vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, (uint8_t)1, __ATOMIC_SEQ_CST);
}

TN_API void tn_kvm_interrupt_clear(struct tn_kvm_vcpu *vcpu)
{
    /* An exchange, not a store: it must see what was set before the interrupt that it clears. */
    (void)__atomic_exchange_n(&vcpu->run->immediate_exit, (uint8_t)0, __ATOMIC_SEQ_CST);
}

TN_API int tn_kvm_get_mp_state(const struct tn_kvm_vcpu *vcpu, uint32_t *state)
{
    struct kvm_mp_state v;
    int r;

    memset(&v, 0, sizeof(v));
    r = tn_kvm_ioctl_(vcpu->fd, KVM_GET_MP_STATE, &v);
    *state = r < 0 ? 0 : v.mp_state;
    return r;
}

TN_API int tn_kvm_set_mp_state(struct tn_kvm_vcpu *vcpu, uint32_t state)
{
    struct kvm_mp_state v;

    memset(&v, 0, sizeof(v));
    v.mp_state = state;
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_MP_STATE, &v);
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
