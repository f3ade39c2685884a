/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_virtio - puts a virtio device into a machine: registers, notifications, interrupts.
 *
 * WHAT
 *   Joins a struct tn_virtio to a bus by virtio-mmio. A driver's notification is an ioeventfd that
 *   the loop serves, an interrupt is an irqfd: neither costs the guest an exit to this process.
 *
 * USAGE
 *   static struct tn_virtio_queue queue[1];
 *   static struct tn_bus_range range[1];
 *   struct tn_bus bus;
 *   struct tn_mem_region table[1];
 *   struct tn_mem mem;
 *   struct tn_virtio_ops ops;
 *   struct tn_virtio_cfg cfg;
 *   struct tn_virtio entropy;
 *   struct tn_vm_virtio slot;
 *   struct tn_loop loop;
 *   struct tn_kvm kvm;
 *   struct tn_kvm_vm vm;
 *
 *   memset(&ops, 0, sizeof(ops));
 *   memset(&cfg, 0, sizeof(cfg));
 *   cfg.device_id = 4;
 *   cfg.queue_size = 64;
 *   cfg.queues = 1;
 *   cfg.queue = queue;
 *   cfg.mem = &mem;
 *   cfg.ops = &ops;
 *   tn_mem_init(&mem, table, 1);
 *   tn_bus_init(&bus, range, 1);
 *   if (tn_virtio_init(&entropy, &cfg) < 0)
 *       return 1;
 *   if (tn_loop_init(&loop) < 0 || tn_kvm_open(&kvm, NULL) < 0 || tn_kvm_vm_init(&kvm, &vm) < 0)
 *       return 2;
 *   if (tn_vm_virtio_init(&slot, &entropy, &vm, &loop, &bus, 0xd0000000, 16) < 0)
 *       return 4;
 *   tn_vm_virtio_close(&slot);
 *
 * COMPOSITION
 *   tn_vm_devices makes the devices that a machine's description asks for, and puts each into its
 *   place with this.
 *
 * GUEST TRUST
 *   The registers are tn_virtio_mmio's.
 *
 * MEMORY
 *   The caller owns all, and keeps it in place until tn_vm_virtio_close. Two file descriptors, and
 *   one for each queue.
 *
 * THREADS
 *   lock guards the device: it is held in every call of the device's ops, and by whoever else calls
 *   into the device. Registers are accessed on the vCPUs' threads, queues served on the loop's.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Virtual I/O Device (VIRTIO) 1.2, section 4.2.
 *
 * LIMITS
 *   The interrupt is an edge: the tables say so to the guest.
 */
#ifndef TN_VM_VIRTIO_H
#define TN_VM_VIRTIO_H

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
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tn_bus.h"
#include "tn_kvm.h"
#include "tn_loop.h"
#include "tn_virtio.h"
#include "tn_virtio_mmio.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

struct tn_vm_virtio;

struct tn_vm_virtio_notify {
    struct tn_vm_virtio *slot;
    uint32_t queue;
    struct tn_loop_event event;
};

/* A device's place in a machine. */
struct tn_vm_virtio {
    struct tn_virtio *v; /* NULL: closed */
    struct tn_virtio_mmio mmio;
    pthread_mutex_t lock; /* guards v, and the device that it is part of */
    struct tn_vm_virtio_notify notify[TN_VIRTIO_MAX_QUEUES];
    int irq; /* eventfd */
};

/*
 * Gives the device the window of TN_VIRTIO_MMIO_SIZE bytes at gpa on bus, and the interrupt gsi of
 * vm, whose interrupt chips exist and have that input. Returns 0; an error of tn_bus_add or
 * tn_virtio_mmio_init; TN_ESYS: no eventfd, or KVM refuses one. *slot is then closed.
 */
TN_API int tn_vm_virtio_init(struct tn_vm_virtio *slot, struct tn_virtio *v, struct tn_kvm_vm *vm,
                             struct tn_loop *loop, struct tn_bus *bus, uint64_t gpa, uint32_t gsi);

/*
 * Resets the device, which ends its I/O, and closes what init opened. After the vCPUs have stopped
 * for good, on the loop's thread: the bus still has the window, and KVM, until the VM is closed,
 * its notifications. Nothing on a closed slot.
 */
TN_API void tn_vm_virtio_close(struct tn_vm_virtio *slot);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

static inline uint64_t tn_vm_virtio_read_(void *ctx, uint64_t off, unsigned width)
{
    struct tn_vm_virtio *slot = (struct tn_vm_virtio *)ctx;
    uint64_t value;

    pthread_mutex_lock(&slot->lock);
    value = tn_virtio_mmio_read(&slot->mmio, off, width);
    pthread_mutex_unlock(&slot->lock);
    return value;
}

static inline void tn_vm_virtio_write_(void *ctx, uint64_t off, unsigned width, uint64_t value)
{
    struct tn_vm_virtio *slot = (struct tn_vm_virtio *)ctx;

    pthread_mutex_lock(&slot->lock);
    tn_virtio_mmio_write(&slot->mmio, off, width, value);
    pthread_mutex_unlock(&slot->lock);
}

static const struct tn_bus_ops tn_vm_virtio_ops_ = {tn_vm_virtio_read_, tn_vm_virtio_write_};

static inline void tn_vm_virtio_on_notify_(void *ctx, uint64_t count)
{
    struct tn_vm_virtio_notify *n = (struct tn_vm_virtio_notify *)ctx;

    (void)count;
    pthread_mutex_lock(&n->slot->lock);
    tn_virtio_notify(n->slot->v, n->queue);
    pthread_mutex_unlock(&n->slot->lock);
}

/* An eventfd only refuses when its count is at its end: an edge is then under way anyway. */
static inline void tn_vm_virtio_irq_(void *ctx, bool level)
{
    struct tn_vm_virtio *slot = (struct tn_vm_virtio *)ctx;

    if (level)
        (void)eventfd_write(slot->irq, 1);
}

TN_API int tn_vm_virtio_init(struct tn_vm_virtio *slot, struct tn_virtio *v, struct tn_kvm_vm *vm,
                             struct tn_loop *loop, struct tn_bus *bus, uint64_t gpa, uint32_t gsi)
{
    int r, saved;

    memset(slot, 0, sizeof(*slot));
    pthread_mutex_init(&slot->lock, NULL);
    slot->v = v;
    slot->irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = slot->irq < 0 ? TN_ESYS : tn_virtio_mmio_init(&slot->mmio, v, tn_vm_virtio_irq_, slot);
    if (r >= 0)
        r = tn_kvm_irqfd(vm, slot->irq, gsi, 0, -1);
    for (uint32_t i = 0; r >= 0 && i < v->cfg.queues; i++) {
        struct tn_vm_virtio_notify *n = &slot->notify[i];

        n->slot = slot;
        n->queue = i;
        r = tn_loop_event_init(&n->event, loop, tn_vm_virtio_on_notify_, n);
        if (r >= 0)
            r = tn_kvm_ioeventfd(vm, gpa + TN_VIRTIO_MMIO_QUEUE_NOTIFY, 4, n->event.source.fd,
                                 KVM_IOEVENTFD_FLAG_DATAMATCH, i);
    }
    if (r >= 0)
        r = tn_bus_add(bus, gpa, TN_VIRTIO_MMIO_SIZE, &tn_vm_virtio_ops_, slot);
    if (r >= 0)
        return TN_OK;
    saved = errno;
    tn_vm_virtio_close(slot);
    errno = saved;
    return r;
}

TN_API void tn_vm_virtio_close(struct tn_vm_virtio *slot)
{
    if (!slot->v)
        return;
    for (uint32_t i = 0; i < TN_VIRTIO_MAX_QUEUES; i++) {
        if (slot->notify[i].slot)
            tn_loop_event_close(&slot->notify[i].event);
    }
    pthread_mutex_lock(&slot->lock);
    tn_virtio_status_write(slot->v, 0);
    pthread_mutex_unlock(&slot->lock);
    if (slot->irq >= 0)
        close(slot->irq);
    pthread_mutex_destroy(&slot->lock);
    slot->v = NULL;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* TN_VM_VIRTIO_H */
