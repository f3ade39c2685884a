/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_arm64_state - the arm64 half of a machine's state: vCPUs, the GIC, the clock, ports.
 *
 * WHAT
 *   Takes from a machine that stands still what is arm64's own, puts it into another or back into
 *   the same one, and reads and writes it as sections of a snapshot. What all architectures share,
 *   the virtio devices and the machine's make, is tn_vm_state's. On other architectures this header
 *   declares nothing.
 *
 * USAGE
 *   static struct tn_vm_arm64_state state;
 *   struct tn_kvm kvm;
 *   struct tn_kvm_arm64_lack lack;
 *
 *   if (tn_kvm_open(&kvm, NULL) < 0 || tn_vm_arm64_state_host(&state, &kvm) < 0)
 *       return 1;
 *   if (tn_vm_arm64_state_check(&state, &lack) < 0)
 *       return 2; // lack says what this host has not got
 *   tn_vm_arm64_state_close(&state);
 *   tn_kvm_close(&kvm);
 *
 * COMPOSITION
 *   On tn_vm_arm64's board, tn_kvm_arm64_state and tn_vm_records; tn_vm_state, tn_vm_image and
 *   tn_vm_fork call it by the names of tn_vm_arch. A restore, in this order: _still if the machine
 *   has run, _ports, the virtio devices, _cpus.
 *
 * GUEST TRUST
 *   A state that was parsed may be anybody's: records and models check what they take.
 *
 * MEMORY
 *   The struct allocates what varies with the number of CPUs; close frees it.
 *
 * THREADS
 *   A state belongs to its caller; the board's device_lock is taken here. No vCPU runs meanwhile.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   Those of tn_kvm_arm64_state.
 */
#ifndef TN_VM_ARM64_STATE_H
#define TN_VM_ARM64_STATE_H

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

#ifdef __aarch64__

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tn_kvm.h"
#include "tn_kvm_arm64.h"
#include "tn_kvm_arm64_state.h"
#include "tn_snap.h"
#include "tn_vm_arm64.h"
#include "tn_vm_board.h"
#include "tn_vm_records.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/* What tn_vm_arm64_state_cpus is to do; LAZY is for other architectures, and does nothing here. */
enum tn_vm_arm64_state_flag {
    TN_VM_ARM64_FRESH = 1, /* the vCPUs were made, and no more */
    TN_VM_ARM64_LAZY = 2,
    TN_VM_ARM64_TIMED = 4 /* they have the state already, and did not run: only the time is set */
};

struct tn_vm_arm64_state {
    struct tn_kvm_arm64_host host; /* where it was saved, or is to be restored; zero: not known */
    struct tn_kvm_arm64_time time; /* of the save */
    struct tn_kvm_arm64_vcpu_state *cpu;
    uint32_t cpus;
    struct tn_kvm_arm64_gic_state chips; /* its cpu array is the state's own */
    struct tn_uart_state uart;
    struct tn_rtc_state rtc;
    struct tn_gpio_state gpio;
};

/*
 * Asks KVM what it has, into s->host: tn_kvm_arm64_host_init. _known says whether that was done.
 */
TN_API int tn_vm_arm64_state_host(struct tn_vm_arm64_state *s, const struct tn_kvm *kvm);
TN_API bool tn_vm_arm64_state_known(const struct tn_vm_arm64_state *s);

/*
 * Whether the host can run every vCPU of the state: 0, or the errors of tn_kvm_arm64_state_check.
 */
TN_API int tn_vm_arm64_state_check(const struct tn_vm_arm64_state *s,
                                   struct tn_kvm_arm64_lack *lack);

/*
 * Takes the state of cpus vCPUs at rest and of their board; s->host is known, all else of *s zero.
 * Returns 0; TN_EUNSUP: the host's GIC is one that cannot be saved; TN_ESYS; *s is then to be
 * closed.
 */
TN_API int tn_vm_arm64_state_save(struct tn_vm_arm64_state *s, struct tn_vm_arm64 *board,
                                  struct tn_vm_cpu *cpu, uint32_t cpus);

/*
 * Makes the time of s that of from, a state of the same machine: none has gone by in between.
 */
TN_API void tn_vm_arm64_state_since(struct tn_vm_arm64_state *s,
                                    const struct tn_vm_arm64_state *from);

/*
 * What a new vCPU of the board needs, once, before the state of the one with its number is
 * restored.
 */
TN_API int tn_vm_arm64_state_vcpu(struct tn_vm_arm64 *board, const struct tn_vm_arm64_state *s,
                                  struct tn_kvm_vcpu *vcpu);

/*
 * The steps of a restore; those of a machine that has run begin with _drop, if a vCPU has left an
 * access undone, and _still. _warm restores the vCPUs of a machine that is kept for later: _cpus
 * with TN_VM_ARM64_TIMED then has less to do. stopped: the guest's time stood still since the save.
 * flags: enum tn_vm_arm64_state_flag. Return 0, or the first error (*refused, of KVM's).
 */
TN_API int tn_vm_arm64_state_drop(struct tn_vm_cpu *cpu, uint32_t cpus);
TN_API int tn_vm_arm64_state_still(struct tn_vm_arm64 *board);
TN_API int tn_vm_arm64_state_ports(struct tn_vm_arm64 *board, const struct tn_vm_arm64_state *s);
TN_API int tn_vm_arm64_state_cpus(struct tn_vm_arm64 *board, const struct tn_vm_arm64_state *s,
                                  struct tn_vm_cpu *cpu, bool stopped, uint32_t flags,
                                  struct tn_kvm_arm64_refused *refused);
TN_API int tn_vm_arm64_state_warm(const struct tn_vm_arm64_state *s, struct tn_vm_cpu *cpu,
                                  struct tn_kvm_arm64_refused *refused);

/*
 * Sections: build writes them, size says how many bytes they need at most. parse reads those of
 * cpus vCPUs, into a struct that is zero, and adds to *sections how many there were; the errors are
 * those of tn_vm_get_*, and TN_ESYS: no memory.
 */
TN_API size_t tn_vm_arm64_state_size(const struct tn_vm_arm64_state *s);
TN_API void tn_vm_arm64_state_build(const struct tn_vm_arm64_state *s, struct tn_snap_writer *w);
TN_API int tn_vm_arm64_state_parse(struct tn_vm_arm64_state *s, const struct tn_snap *snap,
                                   uint32_t cpus, uint32_t *sections);

TN_API void tn_vm_arm64_state_close(struct tn_vm_arm64_state *s);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

static inline int tn_vm_arm64_state_alloc_(struct tn_vm_arm64_state *s, uint32_t cpus)
{
    s->cpu = (struct tn_kvm_arm64_vcpu_state *)calloc(cpus, sizeof(*s->cpu));
    s->chips.cpu = (struct tn_kvm_arm64_gic_cpu *)calloc(cpus, sizeof(*s->chips.cpu));
    s->cpus = s->chips.cpus = cpus;
    return s->cpu && s->chips.cpu ? TN_OK : TN_ESYS;
}

TN_API void tn_vm_arm64_state_close(struct tn_vm_arm64_state *s)
{
    int saved = errno;

    free(s->cpu);
    free(s->chips.cpu);
    memset(s, 0, sizeof(*s));
    errno = saved;
}

TN_API int tn_vm_arm64_state_host(struct tn_vm_arm64_state *s, const struct tn_kvm *kvm)
{
    return tn_kvm_arm64_host_init(kvm, &s->host);
}

TN_API bool tn_vm_arm64_state_known(const struct tn_vm_arm64_state *s)
{
    return s->host.features != 0;
}

TN_API int tn_vm_arm64_state_check(const struct tn_vm_arm64_state *s,
                                   struct tn_kvm_arm64_lack *lack)
{
    int r = tn_kvm_arm64_time_check(&s->host, &s->time, lack);

    for (uint32_t i = 0; r >= 0 && i < s->cpus; i++)
        r = tn_kvm_arm64_state_check(&s->host, &s->cpu[i], lack);
    return r;
}

/* ---- save and restore ---- */

TN_API int tn_vm_arm64_state_save(struct tn_vm_arm64_state *s, struct tn_vm_arm64 *board,
                                  struct tn_vm_cpu *cpu, uint32_t cpus)
{
    int r = tn_vm_arm64_state_alloc_(s, cpus);

    if (r < 0)
        return r;
    pthread_mutex_lock(&board->device_lock);
    tn_uart_save(&board->uart, &s->uart);
    tn_rtc_save(&board->rtc, &s->rtc);
    tn_gpio_save(&board->gpio, &s->gpio);
    pthread_mutex_unlock(&board->device_lock);
    r = tn_kvm_arm64_gic_save(&board->gic, &s->chips);
    for (uint32_t i = 0; r >= 0 && i < cpus; i++)
        r = tn_kvm_arm64_vcpu_save(&s->host, &cpu[i].vcpu, &s->cpu[i]);
    return r < 0 ? r : tn_kvm_arm64_time_save(&s->host, &cpu[0].vcpu, &s->time);
}

TN_API void tn_vm_arm64_state_since(struct tn_vm_arm64_state *s,
                                    const struct tn_vm_arm64_state *from)
{
    s->time = from->time;
}

TN_API int tn_vm_arm64_state_vcpu(struct tn_vm_arm64 *board, const struct tn_vm_arm64_state *s,
                                  struct tn_kvm_vcpu *vcpu)
{
    return tn_vm_arm64_vcpu_(board, s->cpu[vcpu->id].features, vcpu);
}

TN_API int tn_vm_arm64_state_drop(struct tn_vm_cpu *cpu, uint32_t cpus)
{
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < cpus; i++)
        r = tn_kvm_arm64_vcpu_drop(&cpu[i].vcpu);
    return r;
}

TN_API int tn_vm_arm64_state_still(struct tn_vm_arm64 *board)
{
    (void)board; /* all timers are the vCPUs' */
    return TN_OK;
}

TN_API int tn_vm_arm64_state_ports(struct tn_vm_arm64 *board, const struct tn_vm_arm64_state *s)
{
    int r;

    pthread_mutex_lock(&board->device_lock);
    r = tn_uart_restore(&board->uart, &s->uart);
    if (r >= 0)
        r = tn_rtc_restore(&board->rtc, &s->rtc);
    if (r >= 0)
        r = tn_gpio_restore(&board->gpio, &s->gpio);
    if (r >= 0 && s->gpio.in & 1u << TN_FDT_POWER_LINE) /* somebody has to let it go */
        r = tn_vm_arm64_press_(board);
    pthread_mutex_unlock(&board->device_lock);
    return r;
}

TN_API int tn_vm_arm64_state_cpus(struct tn_vm_arm64 *board, const struct tn_vm_arm64_state *s,
                                  struct tn_vm_cpu *cpu, bool stopped, uint32_t flags,
                                  struct tn_kvm_arm64_refused *refused)
{
    int r = tn_kvm_arm64_time_restore(&cpu[0].vcpu, &s->time, stopped);

    memset(refused, 0, sizeof(*refused));
    if (r < 0) {
        refused->part = TN_KVM_ARM64_PART_TIME;
        return r;
    }
    if (!(flags & TN_VM_ARM64_TIMED))
        r = tn_vm_arm64_state_warm(s, cpu, refused);
    if (r < 0)
        return r;
    r = tn_kvm_arm64_gic_restore(&board->gic, &s->chips);
    if (r < 0)
        refused->part = TN_KVM_ARM64_PART_GIC;
    return r;
}

TN_API int tn_vm_arm64_state_warm(const struct tn_vm_arm64_state *s, struct tn_vm_cpu *cpu,
                                  struct tn_kvm_arm64_refused *refused)
{
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < s->cpus; i++)
        r = tn_kvm_arm64_vcpu_restore(&cpu[i].vcpu, &s->cpu[i], refused);
    return r;
}

/* ---- to and from sections ---- */

TN_API size_t tn_vm_arm64_state_size(const struct tn_vm_arm64_state *s)
{
    return (32u << 10) + s->cpus * (sizeof(*s->cpu) + sizeof(*s->chips.cpu) + 1024);
}

TN_API void tn_vm_arm64_state_build(const struct tn_vm_arm64_state *s, struct tn_snap_writer *w)
{
    tn_vm_put_arm64_time(w, 0, &s->time);
    for (uint32_t i = 0; i < s->cpus; i++)
        tn_vm_put_arm64_vcpu(w, i, &s->cpu[i]);
    tn_vm_put_gic(w, 0, &s->chips);
    for (uint32_t i = 0; i < s->cpus; i++)
        tn_vm_put_gic_cpu(w, i, &s->chips.cpu[i]);
    tn_vm_put_uart(w, 0, &s->uart);
    tn_vm_put_rtc(w, 0, &s->rtc);
    tn_vm_put_gpio(w, 0, &s->gpio);
}

TN_API int tn_vm_arm64_state_parse(struct tn_vm_arm64_state *s, const struct tn_snap *snap,
                                   uint32_t cpus, uint32_t *sections)
{
    struct tn_kvm_arm64_gic_state chips;
    struct tn_snap_section section;
    int r;

    /* A CPU that the file has is worth what is allocated for it. */
    for (uint32_t i = 0; i < cpus; i++) {
        if (!tn_snap_find(snap, TN_VM_SEC_ARM64_VCPU, i, &section) || section.len < 1024)
            return TN_ESTATE;
    }
    r = tn_vm_arm64_state_alloc_(s, cpus);
    if (r >= 0)
        r = tn_vm_get_arm64_time(snap, 0, &s->time);
    for (uint32_t i = 0; r >= 0 && i < cpus; i++)
        r = tn_vm_get_arm64_vcpu(snap, i, &s->cpu[i]);
    if (r >= 0)
        r = tn_vm_get_gic(snap, 0, &chips);
    if (r >= 0) {
        chips.cpu = s->chips.cpu;
        chips.cpus = cpus;
        s->chips = chips;
    }
    for (uint32_t i = 0; r >= 0 && i < cpus; i++)
        r = tn_vm_get_gic_cpu(snap, i, &s->chips.cpu[i]);
    if (r >= 0)
        r = tn_vm_get_uart(snap, 0, &s->uart);
    if (r >= 0)
        r = tn_vm_get_rtc(snap, 0, &s->rtc);
    if (r >= 0)
        r = tn_vm_get_gpio(snap, 0, &s->gpio);
    *sections += 1 + 1 + 3 + 2 * cpus; /* time, GIC, ports, vCPUs and their parts of the GIC */
    return r;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* __aarch64__ */
#endif /* TN_VM_ARM64_STATE_H */
