/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_x86_state - the x86-64 half of a machine's state: vCPUs, interrupt chips, clocks, ports.
 *
 * WHAT
 *   Takes from a machine that stands still what is x86-64's own, puts it into another or back into
 *   the same one, and reads and writes it as sections of a snapshot. What all architectures share,
 *   the virtio devices and the machine's make, is tn_vm_state's.
 *
 * USAGE
 *   static struct tn_vm_x86_state state;
 *   struct tn_kvm kvm;
 *   struct tn_kvm_x86_lack lack;
 *
 *   if (tn_kvm_open(&kvm, NULL) < 0 || tn_vm_x86_state_host(&state, &kvm) < 0)
 *       return 1;
 *   if (tn_vm_x86_state_check(&state, &lack) < 0)
 *       return 2; // lack says what this host has not got
 *   tn_vm_x86_state_close(&state);
 *   tn_kvm_close(&kvm);
 *
 * COMPOSITION
 *   On tn_vm_x86's board, tn_kvm_x86_state and tn_vm_records; tn_vm_state, tn_vm_image and
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
 *   Those of tn_kvm_x86_state.
 */
#ifndef TN_VM_X86_STATE_H
#define TN_VM_X86_STATE_H

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

#ifdef __x86_64__

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tn_kvm.h"
#include "tn_kvm_x86.h"
#include "tn_kvm_x86_state.h"
#include "tn_snap.h"
#include "tn_vm_board.h"
#include "tn_vm_records.h"
#include "tn_vm_x86.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

struct tn_vm_x86_state {
    struct tn_kvm_x86_host host; /* where it was saved, or is to be restored; zero: not known */
    struct tn_kvm_x86_time time; /* of the save */
    struct tn_kvm_x86_vcpu_state *cpu;
    uint32_t cpus;
    uint8_t *xsave; /* where theirs is */
    struct tn_kvm_x86_vm_state chips;
    struct tn_uart_state uart;
    struct tn_i8042_state i8042;
};

/*
 * Asks KVM what it has, into s->host: tn_kvm_x86_host_init. _known says whether that was done.
 */
TN_API int tn_vm_x86_state_host(struct tn_vm_x86_state *s, const struct tn_kvm *kvm);
TN_API bool tn_vm_x86_state_known(const struct tn_vm_x86_state *s);

/*
 * Whether the host can run every vCPU of the state: 0, or the errors of tn_kvm_x86_state_check.
 */
TN_API int tn_vm_x86_state_check(const struct tn_vm_x86_state *s, struct tn_kvm_x86_lack *lack);

/*
 * Takes the state of cpus vCPUs at rest and of their board; s->host is known, all else of *s zero.
 * Returns 0 or TN_ESYS; *s is then to be closed.
 */
TN_API int tn_vm_x86_state_save(struct tn_vm_x86_state *s, struct tn_vm_x86 *board,
                                struct tn_vm_cpu *cpu, uint32_t cpus);

/*
 * Makes the time of s that of from, a state of the same machine: none has gone by in between.
 */
TN_API void tn_vm_x86_state_since(struct tn_vm_x86_state *s, const struct tn_vm_x86_state *from);

/*
 * What a new vCPU of the board needs, once, before the state of the one with its number is
 * restored.
 */
TN_API int tn_vm_x86_state_vcpu(struct tn_vm_x86 *board, const struct tn_vm_x86_state *s,
                                struct tn_kvm_vcpu *vcpu);

/*
 * The steps of a restore; those of a machine that has run begin with _drop, if a vCPU has left an
 * access undone, and _still. _warm restores the vCPUs of a machine that is kept for later: _cpus
 * with TN_KVM_X86_TIMED then has less to do. stopped: the guest's time stood still since the save.
 * flags: enum tn_kvm_x86_restore_flag. Return 0, or the first error (*refused, of KVM's).
 */
TN_API int tn_vm_x86_state_drop(struct tn_vm_cpu *cpu, uint32_t cpus);
TN_API int tn_vm_x86_state_still(struct tn_vm_x86 *board);
TN_API int tn_vm_x86_state_ports(struct tn_vm_x86 *board, const struct tn_vm_x86_state *s);
TN_API int tn_vm_x86_state_cpus(struct tn_vm_x86 *board, const struct tn_vm_x86_state *s,
                                struct tn_vm_cpu *cpu, bool stopped, uint32_t flags,
                                struct tn_kvm_x86_refused *refused);
TN_API int tn_vm_x86_state_warm(const struct tn_vm_x86_state *s, struct tn_vm_cpu *cpu,
                                struct tn_kvm_x86_refused *refused);

/*
 * Sections: build writes them, size says how many bytes they need at most. parse reads those of
 * cpus vCPUs, into a struct that is zero, and adds to *sections how many there were; the errors are
 * those of tn_vm_get_*, and TN_ESYS: no memory.
 */
TN_API size_t tn_vm_x86_state_size(const struct tn_vm_x86_state *s);
TN_API void tn_vm_x86_state_build(const struct tn_vm_x86_state *s, struct tn_snap_writer *w);
TN_API int tn_vm_x86_state_parse(struct tn_vm_x86_state *s, const struct tn_snap *snap,
                                 uint32_t cpus, uint32_t *sections);

TN_API void tn_vm_x86_state_close(struct tn_vm_x86_state *s);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* Room for so many CPUs, with xsave bytes for all of them. */
static inline int tn_vm_x86_state_alloc_(struct tn_vm_x86_state *s, uint32_t cpus, size_t xsave)
{
    s->cpu = (struct tn_kvm_x86_vcpu_state *)calloc(cpus, sizeof(*s->cpu));
    s->xsave = (uint8_t *)calloc(1, xsave ? xsave : 1);
    s->cpus = cpus;
    return s->cpu && s->xsave ? TN_OK : TN_ESYS;
}

/* Gives CPU i the bytes [at, at + len) for its extended state; returns where the next one's are. */
static inline size_t tn_vm_x86_state_give_(struct tn_vm_x86_state *s, uint32_t i, size_t at,
                                           size_t len)
{
    s->cpu[i].xsave = s->xsave + at;
    s->cpu[i].xsave_cap = len;
    return at + len;
}

TN_API void tn_vm_x86_state_close(struct tn_vm_x86_state *s)
{
    int saved = errno;

    free(s->cpu);
    free(s->xsave);
    memset(s, 0, sizeof(*s));
    errno = saved;
}

TN_API int tn_vm_x86_state_host(struct tn_vm_x86_state *s, const struct tn_kvm *kvm)
{
    return tn_kvm_x86_host_init(kvm, &s->host);
}

TN_API bool tn_vm_x86_state_known(const struct tn_vm_x86_state *s)
{
    return s->host.xsave_size != 0;
}

TN_API int tn_vm_x86_state_check(const struct tn_vm_x86_state *s, struct tn_kvm_x86_lack *lack)
{
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < s->cpus; i++)
        r = tn_kvm_x86_state_check(&s->host, &s->cpu[i], lack);
    return r;
}

/* ---- save and restore ---- */

TN_API int tn_vm_x86_state_save(struct tn_vm_x86_state *s, struct tn_vm_x86 *board,
                                struct tn_vm_cpu *cpu, uint32_t cpus)
{
    size_t at = 0;
    int r = tn_vm_x86_state_alloc_(s, cpus, cpus * (size_t)s->host.xsave_size);

    for (uint32_t i = 0; r >= 0 && i < cpus; i++)
        at = tn_vm_x86_state_give_(s, i, at, s->host.xsave_size);
    if (r < 0)
        return r;
    pthread_mutex_lock(&board->device_lock);
    tn_uart_save(&board->uart, &s->uart);
    tn_i8042_save(&board->i8042, &s->i8042);
    pthread_mutex_unlock(&board->device_lock);
    r = tn_kvm_x86_vm_save(board->vm, &s->chips);
    for (uint32_t i = 0; r >= 0 && i < cpus; i++)
        r = tn_kvm_x86_vcpu_save(&s->host, &cpu[i].vcpu, &s->cpu[i]);
    if (r >= 0)
        r = tn_kvm_x86_time_save(&s->host, board->vm, &cpu[0].vcpu, s->cpu[0].tsc_khz, &s->time);
    return r;
}

TN_API void tn_vm_x86_state_since(struct tn_vm_x86_state *s, const struct tn_vm_x86_state *from)
{
    s->time = from->time;
    for (uint32_t i = 0; i < s->cpus && i < from->cpus; i++)
        s->cpu[i].tsc_offset = from->cpu[i].tsc_offset;
}

TN_API int tn_vm_x86_state_vcpu(struct tn_vm_x86 *board, const struct tn_vm_x86_state *s,
                                struct tn_kvm_vcpu *vcpu)
{
    const struct tn_kvm_x86_vcpu_state *from = &s->cpu[vcpu->id];
    int r = tn_kvm_x86_set_cpuid(vcpu, &from->cpuid);

    (void)board;
    if (r >= 0 && tn_kvm_x86_tsc_differs(&s->host, from->tsc_khz))
        r = tn_kvm_x86_set_tsc_khz(vcpu, from->tsc_khz);
    return r < 0 ? r : tn_kvm_x86_set_mce_banks(vcpu, 1);
}

TN_API int tn_vm_x86_state_drop(struct tn_vm_cpu *cpu, uint32_t cpus)
{
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < cpus; i++)
        r = tn_kvm_x86_vcpu_drop(&cpu[i].vcpu);
    return r;
}

TN_API int tn_vm_x86_state_still(struct tn_vm_x86 *board)
{
    return tn_kvm_x86_vm_still(board->vm);
}

TN_API int tn_vm_x86_state_ports(struct tn_vm_x86 *board, const struct tn_vm_x86_state *s)
{
    int r;

    pthread_mutex_lock(&board->device_lock);
    r = tn_uart_restore(&board->uart, &s->uart);
    if (r >= 0)
        r = tn_i8042_restore(&board->i8042, &s->i8042);
    pthread_mutex_unlock(&board->device_lock);
    return r;
}

/* Whether a vCPU's guest has KVM's clock, and so may be told that it was stopped. */
static inline bool tn_vm_x86_state_kvmclock_(const struct tn_kvm_x86_vcpu_state *s)
{
    bool on = false;

    for (uint32_t i = 0; i < s->msr_count && i < TN_KVM_X86_STATE_MSRS; i++) {
        if (s->msr[i].index == TN_KVM_X86_MSR_KVMCLOCK ||
            s->msr[i].index == TN_KVM_X86_MSR_OLD_KVMCLOCK)
            on = on || (s->msr[i].data & 1);
    }
    return on;
}

TN_API int tn_vm_x86_state_cpus(struct tn_vm_x86 *board, const struct tn_vm_x86_state *s,
                                struct tn_vm_cpu *cpu, bool stopped, uint32_t flags,
                                struct tn_kvm_x86_refused *refused)
{
    uint64_t shift = 0;
    int r =
        tn_kvm_x86_time_restore(&s->host, board->vm, &cpu[0].vcpu, &s->time, s->cpu[0].tsc_khz,
                                stopped ? TN_KVM_X86_TIME_STOPPED : TN_KVM_X86_TIME_REAL, &shift);

    for (uint32_t i = 0; r >= 0 && i < s->cpus; i++) {
        r = tn_kvm_x86_vcpu_restore(&s->host, &cpu[i].vcpu, &s->cpu[i], shift, flags, refused);
        if (r >= 0 && tn_vm_x86_state_kvmclock_(&s->cpu[i]))
            r = tn_kvm_x86_vcpu_was_paused(&cpu[i].vcpu);
    }
    return r < 0 ? r : tn_kvm_x86_vm_restore(board->vm, &s->chips);
}

TN_API int tn_vm_x86_state_warm(const struct tn_vm_x86_state *s, struct tn_vm_cpu *cpu,
                                struct tn_kvm_x86_refused *refused)
{
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < s->cpus; i++)
        r = tn_kvm_x86_vcpu_restore(&s->host, &cpu[i].vcpu, &s->cpu[i], 0, 0, refused);
    return r;
}

/* ---- to and from sections ---- */

TN_API size_t tn_vm_x86_state_size(const struct tn_vm_x86_state *s)
{
    size_t len = 32u << 10;

    for (uint32_t i = 0; i < s->cpus; i++)
        len += sizeof(*s->cpu) + s->cpu[i].xsave_cap + 1024;
    return len;
}

TN_API void tn_vm_x86_state_build(const struct tn_vm_x86_state *s, struct tn_snap_writer *w)
{
    tn_vm_put_time(w, 0, &s->time);
    tn_vm_put_vcpus(w, s->cpu, s->cpus);
    tn_vm_put_chips(w, 0, &s->chips);
    tn_vm_put_uart(w, 0, &s->uart);
    tn_vm_put_i8042(w, 0, &s->i8042);
}

TN_API int tn_vm_x86_state_parse(struct tn_vm_x86_state *s, const struct tn_snap *snap,
                                 uint32_t cpus, uint32_t *sections)
{
    struct tn_snap_section section;
    size_t xsave = 0, at = 0;
    int r;

    /* A CPU that the file has is worth what is allocated for it. */
    for (uint32_t i = 0; i < cpus; i++) {
        if (!tn_snap_find(snap, TN_VM_SEC_VCPU_LAPIC, i, &section) || section.len < 1024 ||
            !tn_snap_find(snap, TN_VM_SEC_VCPU_XSAVE, i, &section))
            return TN_ESTATE;
        xsave += section.len;
    }
    r = tn_vm_x86_state_alloc_(s, cpus, xsave);
    if (r >= 0)
        r = tn_vm_get_time(snap, 0, &s->time);
    for (uint32_t i = 0; r >= 0 && i < cpus; i++) {
        (void)tn_snap_find(snap, TN_VM_SEC_VCPU_XSAVE, i, &section);
        at = tn_vm_x86_state_give_(s, i, at, section.len);
        r = tn_vm_get_vcpu(snap, i, &s->cpu[i]);
    }
    if (r >= 0)
        r = tn_vm_get_chips(snap, 0, &s->chips);
    if (r >= 0)
        r = tn_vm_get_uart(snap, 0, &s->uart);
    if (r >= 0)
        r = tn_vm_get_i8042(snap, 0, &s->i8042);
    *sections += 1 + 4 + 2 + cpus * (uint32_t)TN_VM_REC_VCPU_PARTS_; /* time, chips, ports, CPUs */
    return r;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* __x86_64__ */
#endif /* TN_VM_X86_STATE_H */
