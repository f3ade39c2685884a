/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_kvm_arm64_state - the whole state of KVM's vCPUs, GIC and clock on arm64, as plain structs.
 *
 * WHAT
 *   Saves a vCPU's registers, all that KVM lists, and the registers of a GICv3; restores them into
 *   a vCPU that is new, or one that has run; carries the guest's time on; and says beforehand what
 *   a host lacks that a saved CPU needs. On other architectures this header declares nothing.
 *
 * USAGE
 *   static struct tn_kvm_arm64_host host;
 *   static struct tn_kvm_arm64_vcpu_state cpu;
 *   struct tn_kvm kvm;
 *   struct tn_kvm_arm64_lack lack;
 *
 *   if (tn_kvm_open(&kvm, NULL) < 0 || tn_kvm_arm64_host_init(&kvm, &host) < 0)
 *       return 1;
 *   // cpu was saved by tn_kvm_arm64_vcpu_save, here or elsewhere
 *   if (tn_kvm_arm64_state_check(&host, &cpu, &lack) < 0)
 *       return 2; // lack says what this host has not got
 *   tn_kvm_close(&kvm);
 *
 * COMPOSITION
 *   On tn_kvm_arm64. A save: stop every vCPU with its last access completed, then the GIC, the
 *   vCPUs, the clock. A restore: the clock, the vCPUs, the GIC. The structs hold no version and no
 *   byte order: who writes them to a file does it field by field.
 *
 * GUEST TRUST
 *   What is restored may come from a file of anybody's: counts, sizes and mp_state are checked
 *   here, all else by KVM, which refuses it, or lets the guest have it: it harms that guest only.
 *   state_check is no defence, it is for hosts that differ.
 *
 * MEMORY
 *   The caller owns all structs, and the array of the GIC's parts that are a CPU's own. 8 KiB of
 *   stack.
 *
 * THREADS
 *   struct tn_kvm_arm64_host is read-only once it is filled. A vCPU's functions belong to the
 *   thread that runs it, while it does not run; the GIC's to any, while no vCPU of the VM runs.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Linux, Documentation/virt/kvm/api.rst (KVM_GET_REG_LIST, KVM_GET_VCPU_EVENTS),
 *   devices/arm-vgic-v3.rst; Arm's IHI 0069, 12.9 (distributor), 12.11 (redistributors), 12.2 (CPU
 *   interface).
 *
 * LIMITS
 *   A GICv3 without an ITS, of up to TN_KVM_ARM64_GIC_SPIS shared interrupts; a GICv2 is refused.
 *   Registers of up to 16 bytes: no SVE. The guest's physical counter is not carried on where KVM
 *   lets it show the host's.
 */
#ifndef TN_KVM_ARM64_STATE_H
#define TN_KVM_ARM64_STATE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* for tn_kvm.h; of use only before the first system header */
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

#include "tn_kvm.h"
#include "tn_kvm_arm64.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/*
 * Returns, unless said otherwise: 0, or TN_ESYS with KVM's errno (EBADF on what is closed, EINVAL
 * for a value that is refused).
 */

/* ---- the host ---- */

/* What this KVM has: the same for every VM of a process. */
struct tn_kvm_arm64_host {
    uint32_t features;   /* of a vCPU of ours, bits by KVM_ARM_VCPU_*; 0: not known */
    uint32_t counter_hz; /* of the generic timers' counter, CNTFRQ_EL0 */
    uint32_t reg_count;
    uint64_t reg[TN_KVM_ARM64_MAX_REGS]; /* ids of a vCPU's registers */
};

/*
 * Asks KVM, with a VM and a vCPU that are closed again: once per process. Returns 0; TN_ENOSPC:
 * more registers than there is room for; TN_ESYS. *host is zero then.
 */
TN_API int tn_kvm_arm64_host_init(const struct tn_kvm *k, struct tn_kvm_arm64_host *host);

/* ---- a vCPU ---- */

/* A register of up to 16 bytes; what it does not have is zero. */
struct tn_kvm_arm64_reg {
    uint64_t id;
    uint64_t value[2]; /* as the guest's memory would have it */
};

/* About 24 KiB. */
struct tn_kvm_arm64_vcpu_state {
    uint32_t features;        /* that it was made with */
    uint32_t mp_state;        /* KVM_MP_STATE_RUNNABLE, or _STOPPED: switched off */
    uint32_t serror;          /* bit 0: an SError is pending, bit 1: with the syndrome below */
    uint64_t serror_syndrome; /* ESR_EL1's ISS */
    uint32_t reg_count;
    struct tn_kvm_arm64_reg reg[TN_KVM_ARM64_MAX_REGS]; /* in the order of a restore */
};
#define TN_KVM_ARM64_SERROR     1u
#define TN_KVM_ARM64_SERROR_ESR 2u

/*
 * Saves a vCPU that does not run, and that has completed its last access (tn_kvm_run). The clock is
 * no part of it. Returns 0; TN_EUNSUP: a register of more than 16 bytes; TN_ESYS.
 */
TN_API int tn_kvm_arm64_vcpu_save(const struct tn_kvm_arm64_host *host,
                                  const struct tn_kvm_vcpu *vcpu,
                                  struct tn_kvm_arm64_vcpu_state *out);

/* The steps of a restore. */
enum tn_kvm_arm64_part {
    TN_KVM_ARM64_PART_NONE = 0,
    TN_KVM_ARM64_PART_STATE, /* the struct itself */
    TN_KVM_ARM64_PART_REGS,
    TN_KVM_ARM64_PART_EVENTS,
    TN_KVM_ARM64_PART_MP_STATE,
    TN_KVM_ARM64_PART_TIME,
    TN_KVM_ARM64_PART_GIC
};

/* What a restore failed at. */
struct tn_kvm_arm64_refused {
    uint32_t part; /* enum tn_kvm_arm64_part */
    uint64_t id;   /* of PART_REGS: the register */
    uint64_t data; /* and the value that KVM does not take, its first 8 bytes */
};

/*
 * Restores a vCPU that does not run, and was made with from->features (tn_kvm_arm64_vcpu_init). One
 * that has run loses all that it had, but for an access that it has not completed. *refused, which
 * may be NULL, names the culprit after an error. Returns 0; TN_EFORMAT: a count, a size or mp_state
 * that no save writes; TN_ESYS: KVM refuses a value. After an error the vCPU is in no state to run,
 * but may be restored.
 */
TN_API int tn_kvm_arm64_vcpu_restore(struct tn_kvm_vcpu *vcpu,
                                     const struct tn_kvm_arm64_vcpu_state *from,
                                     struct tn_kvm_arm64_refused *refused);

/*
 * Completes the access that a vCPU is in the midst of, whatever the guest gets of it, so that its
 * end does not befall the state that is restored next. Leaves tn_kvm_interrupt set. Returns 0,
 * TN_ESYS, or TN_EBUG: it does not end.
 */
TN_API int tn_kvm_arm64_vcpu_drop(struct tn_kvm_vcpu *vcpu);

/* ---- the GIC ---- */

#define TN_KVM_ARM64_GIC_SPIS   64u  /* that a saved GIC may have */
#define TN_KVM_ARM64_GIC_DIST   160u /* words of the distributor */
#define TN_KVM_ARM64_GIC_REDIST 17u  /* words of a redistributor */
#define TN_KVM_ARM64_GIC_ICC    15u  /* registers of a CPU interface */

/* What each CPU has of it. */
struct tn_kvm_arm64_gic_cpu {
    uint32_t redist[TN_KVM_ARM64_GIC_REDIST];
    uint64_t icc[TN_KVM_ARM64_GIC_ICC]; /* those that the hardware lacks are 0 */
};

struct tn_kvm_arm64_gic_state {
    uint32_t spis; /* TN_KVM_ARM64_GIC_SPIS or 32 */
    uint32_t cpus;
    uint32_t dist[TN_KVM_ARM64_GIC_DIST];
    struct tn_kvm_arm64_gic_cpu *cpu; /* the caller's, for cpus of them */
};

/*
 * Save: out->cpu is the caller's, for gic->cpus. Restore into a GIC of the same make that was
 * started. Returns 0; TN_EUNSUP: a GICv2, or more interrupts than a state has room for; TN_EINVAL:
 * a GIC of another make; TN_ESYS.
 */
TN_API int tn_kvm_arm64_gic_save(const struct tn_kvm_arm64_gic *gic,
                                 struct tn_kvm_arm64_gic_state *out);
TN_API int tn_kvm_arm64_gic_restore(const struct tn_kvm_arm64_gic *gic,
                                    const struct tn_kvm_arm64_gic_state *from);

/* ---- time ---- */

/* The clocks, all of one moment. */
struct tn_kvm_arm64_time {
    uint64_t counter;     /* the guest's virtual counter, CNTVCT_EL0 */
    uint64_t realtime_ns; /* CLOCK_REALTIME */
    uint32_t counter_hz;  /* its frequency */
};
#define TN_KVM_ARM64_TIME_MAX_NS 315576000000000000ull /* ten years: more is not believed */

/*
 * Reads the clocks, when no vCPU runs any more; vcpu is any of the VM's. Restore sets the virtual
 * counter of all the VM's vCPUs: it goes on from the save if stopped, else as if the guest had run
 * all the time. A host's clock that went backwards counts as 0. The vCPU's timers come after, with
 * its registers.
 */
TN_API int tn_kvm_arm64_time_save(const struct tn_kvm_arm64_host *host,
                                  const struct tn_kvm_vcpu *vcpu, struct tn_kvm_arm64_time *out);
TN_API int tn_kvm_arm64_time_restore(struct tn_kvm_vcpu *vcpu, const struct tn_kvm_arm64_time *from,
                                     bool stopped);

/* ---- what a host lacks ---- */

enum tn_kvm_arm64_lack_kind {
    TN_KVM_ARM64_LACK_NONE = 0,
    TN_KVM_ARM64_LACK_FEATURE,  /* want has the bits of KVM_ARM_VCPU_* that are missing */
    TN_KVM_ARM64_LACK_COUNTER,  /* the counter's frequency, Hz */
    TN_KVM_ARM64_LACK_REGISTER, /* the register id */
};

struct tn_kvm_arm64_lack {
    uint32_t kind; /* enum tn_kvm_arm64_lack_kind */
    uint64_t id;
    uint64_t want;
    uint64_t have;
};

/*
 * Whether the host has all that a vCPU was saved with. That it has a register does not say that it
 * takes its value: of a CPU of another make it does not, and the restore names it. Returns 0;
 * TN_EUNSUP, with *lack; TN_EFORMAT: a count above its array.
 */
TN_API int tn_kvm_arm64_state_check(const struct tn_kvm_arm64_host *host,
                                    const struct tn_kvm_arm64_vcpu_state *s,
                                    struct tn_kvm_arm64_lack *lack);
TN_API int tn_kvm_arm64_time_check(const struct tn_kvm_arm64_host *host,
                                   const struct tn_kvm_arm64_time *time,
                                   struct tn_kvm_arm64_lack *lack);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#include <errno.h>
#include <string.h>
#include <time.h>

/* ---- the host ---- */

static inline uint32_t tn_kvm_arm64_counter_hz_(void)
{
    uint64_t hz;

    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hz));
    return (uint32_t)hz;
}

TN_API int tn_kvm_arm64_host_init(const struct tn_kvm *k, struct tn_kvm_arm64_host *host)
{
    struct tn_kvm_vm vm;
    struct tn_kvm_vcpu vcpu;
    int r;

    memset(host, 0, sizeof(*host));
    memset(&vcpu, 0, sizeof(vcpu));
    vcpu.fd = -1;
    r = tn_kvm_vm_init(k, &vm);
    if (r >= 0)
        r = tn_kvm_vcpu_init(k, &vm, &vcpu, 0);
    if (r >= 0)
        r = tn_kvm_arm64_vcpu_init(&vm, &vcpu, tn_kvm_arm64_features(k));
    if (r >= 0)
        r = tn_kvm_arm64_reg_list(&vcpu, host->reg, TN_KVM_ARM64_MAX_REGS);
    host->reg_count = r < 0 ? 0 : (uint32_t)r;
    tn_kvm_vcpu_close(&vcpu);
    tn_kvm_vm_close(&vm);
    if (r < 0)
        return r;
    host->features = tn_kvm_arm64_features(k);
    host->counter_hz = tn_kvm_arm64_counter_hz_();
    return TN_OK;
}

/* ---- a vCPU ---- */

/* The counters are the VM's, not a vCPU's: the clock's functions set them. */
static inline bool tn_kvm_arm64_is_time_(uint64_t id)
{
    return id == KVM_REG_ARM_TIMER_CNT || id == KVM_REG_ARM_PTIMER_CNT;
}

TN_API int tn_kvm_arm64_vcpu_save(const struct tn_kvm_arm64_host *host,
                                  const struct tn_kvm_vcpu *vcpu,
                                  struct tn_kvm_arm64_vcpu_state *out)
{
    struct kvm_vcpu_events events;
    int r;

    memset(out, 0, sizeof(*out));
    out->features = host->features;
    for (uint32_t i = 0; i < host->reg_count; i++) {
        struct tn_kvm_arm64_reg *reg = &out->reg[out->reg_count];

        if (tn_kvm_arm64_is_time_(host->reg[i]))
            continue;
        if (tn_kvm_arm64_reg_size(host->reg[i]) > sizeof(reg->value))
            return TN_EUNSUP;
        reg->id = host->reg[i];
        r = tn_kvm_arm64_get_reg(vcpu, reg->id, reg->value);
        if (r < 0)
            return r;
        out->reg_count++;
    }
    r = tn_kvm_arm64_get_events(vcpu, &events);
    if (r < 0)
        return r;
    out->serror = (events.exception.serror_pending ? TN_KVM_ARM64_SERROR : 0) |
                  (events.exception.serror_has_esr ? TN_KVM_ARM64_SERROR_ESR : 0);
    out->serror_syndrome = events.exception.serror_esr;
    return tn_kvm_get_mp_state(vcpu, &out->mp_state);
}

static inline int tn_kvm_arm64_refuse_(struct tn_kvm_arm64_refused *refused, uint32_t part, int r)
{
    if (refused) {
        memset(refused, 0, sizeof(*refused));
        refused->part = r < 0 ? part : (uint32_t)TN_KVM_ARM64_PART_NONE;
    }
    return r;
}

TN_API int tn_kvm_arm64_vcpu_restore(struct tn_kvm_vcpu *vcpu,
                                     const struct tn_kvm_arm64_vcpu_state *from,
                                     struct tn_kvm_arm64_refused *refused)
{
    struct kvm_vcpu_events events;
    int r = TN_OK;

    if (from->reg_count > TN_KVM_ARM64_MAX_REGS ||
        (from->mp_state != KVM_MP_STATE_RUNNABLE && from->mp_state != KVM_MP_STATE_STOPPED))
        return tn_kvm_arm64_refuse_(refused, TN_KVM_ARM64_PART_STATE, TN_EFORMAT);
    for (uint32_t i = 0; i < from->reg_count; i++) {
        const struct tn_kvm_arm64_reg *reg = &from->reg[i];

        if (tn_kvm_arm64_reg_size(reg->id) > sizeof(reg->value) || tn_kvm_arm64_is_time_(reg->id))
            return tn_kvm_arm64_refuse_(refused, TN_KVM_ARM64_PART_STATE, TN_EFORMAT);
        r = tn_kvm_arm64_set_reg(vcpu, reg->id, reg->value);
        if (r < 0) {
            (void)tn_kvm_arm64_refuse_(refused, TN_KVM_ARM64_PART_REGS, r);
            if (refused) {
                refused->id = reg->id;
                refused->data = reg->value[0];
            }
            return r;
        }
    }
    memset(&events, 0, sizeof(events));
    events.exception.serror_pending = !!(from->serror & TN_KVM_ARM64_SERROR);
    events.exception.serror_has_esr = !!(from->serror & TN_KVM_ARM64_SERROR_ESR);
    events.exception.serror_esr = from->serror_syndrome;
    r = tn_kvm_arm64_set_events(vcpu, &events);
    if (r < 0)
        return tn_kvm_arm64_refuse_(refused, TN_KVM_ARM64_PART_EVENTS, r);
    r = tn_kvm_set_mp_state(vcpu, from->mp_state);
    return tn_kvm_arm64_refuse_(refused, TN_KVM_ARM64_PART_MP_STATE, r);
}

TN_API int tn_kvm_arm64_vcpu_drop(struct tn_kvm_vcpu *vcpu)
{
    struct tn_kvm_exit e;

    tn_kvm_interrupt(vcpu);
    for (unsigned tries = 0; tries < 64; tries++) {
        int r = tn_kvm_run(vcpu, &e);

        if (r < 0 || e.kind == TN_KVM_EXIT_INTERRUPTED)
            return r;
    }
    return TN_EBUG;
}

/* ---- the GIC ---- */

/*
 * The registers, in the order of a restore: words from offset on, bits for each interrupt. What is
 * written to a set-enable or set-active register only sets: clear names the one to clear all with.
 */
struct tn_kvm_arm64_gic_row_ {
    uint32_t offset;
    uint32_t bits;  /* for each interrupt; 0: one word */
    uint32_t clear; /* 0: none */
};

static const struct tn_kvm_arm64_gic_row_ tn_kvm_arm64_gicd_[] = {
    {0x0008, 0, 0},      /* GICD_IIDR: what KVM's GIC is like; it wants to be first */
    {0x0000, 0, 0},      /* GICD_CTLR: while it is off, KVM forgets what becomes pending */
    {0x0080, 1, 0},      /* GICD_IGROUPR */
    {0x0c00, 2, 0},      /* GICD_ICFGR */
    {0x0400, 8, 0},      /* GICD_IPRIORITYR */
    {0x6000, 64, 0},     /* GICD_IROUTER */
    {0x0100, 1, 0x0180}, /* GICD_ISENABLER */
    {0x0200, 1, 0},      /* GICD_ISPENDR: of edges; KVM takes zeros too */
    {0x0300, 1, 0x0380}, /* GICD_ISACTIVER */
};

static const struct tn_kvm_arm64_gic_row_ tn_kvm_arm64_gicr_[] = {
    {0x00014, 0, 0},       /* GICR_WAKER */
    {0x10080, 1, 0},       /* GICR_IGROUPR0 */
    {0x10c00, 2, 0},       /* GICR_ICFGR0, 1 */
    {0x10400, 8, 0},       /* GICR_IPRIORITYR */
    {0x10100, 1, 0x10180}, /* GICR_ISENABLER0 */
    {0x10200, 1, 0},       /* GICR_ISPENDR0 */
    {0x10300, 1, 0x10380}, /* GICR_ISACTIVER0 */
    {0x00000, 0, 0},       /* GICR_CTLR */
};

#define TN_KVM_ARM64_ICC_(crm, op2) \
    (3u << 14 | 0u << 11 | 12u << 7 | (uint32_t)(crm) << 3 | (uint32_t)(op2)) /* op0 3, CRn 12 */

static const uint32_t tn_kvm_arm64_icc_[TN_KVM_ARM64_GIC_ICC] = {
    TN_KVM_ARM64_ICC_(12, 5),     /* ICC_SRE_EL1 */
    TN_KVM_ARM64_ICC_(12, 4),     /* ICC_CTLR_EL1 */
    3u << 14 | 4u << 7 | 6u << 3, /* ICC_PMR_EL1 */
    TN_KVM_ARM64_ICC_(8, 3),      /* ICC_BPR0_EL1 */
    TN_KVM_ARM64_ICC_(12, 3),     /* ICC_BPR1_EL1 */
    TN_KVM_ARM64_ICC_(12, 6),     /* ICC_IGRPEN0_EL1 */
    TN_KVM_ARM64_ICC_(12, 7),     /* ICC_IGRPEN1_EL1 */
    TN_KVM_ARM64_ICC_(8, 4),      /* ICC_AP0R0_EL1 */
    TN_KVM_ARM64_ICC_(9, 0),      /* ICC_AP1R0_EL1 */
    TN_KVM_ARM64_ICC_(8, 5),      /* ICC_AP0R1_EL1: from here on with 6 bits of priority */
    TN_KVM_ARM64_ICC_(9, 1),      /* ICC_AP1R1_EL1 */
    TN_KVM_ARM64_ICC_(8, 6),      /* ICC_AP0R2_EL1: from here on with 7 */
    TN_KVM_ARM64_ICC_(9, 2),      /* ICC_AP1R2_EL1 */
    TN_KVM_ARM64_ICC_(8, 7),      /* ICC_AP0R3_EL1 */
    TN_KVM_ARM64_ICC_(9, 3),      /* ICC_AP1R3_EL1 */
};

/* Goes through the registers, reading or writing; the first error stays. */
struct tn_kvm_arm64_gic_io_ {
    int fd;
    bool set;
    int err;
};

static inline void tn_kvm_arm64_gic_reg_(struct tn_kvm_arm64_gic_io_ *io, uint32_t group,
                                         uint64_t attr, void *value)
{
    if (io->err < 0)
        return;
    io->err = io->set ? tn_kvm_set_attr(io->fd, group, attr, value)
                      : tn_kvm_get_attr(io->fd, group, attr, value);
}

/* Of the interrupts [first, first + n), from word[] on; returns how many words that were. */
static inline uint32_t tn_kvm_arm64_gic_row_io_(struct tn_kvm_arm64_gic_io_ *io, uint32_t group,
                                                uint64_t cpu,
                                                const struct tn_kvm_arm64_gic_row_ *row,
                                                uint32_t first, uint32_t n, uint32_t *word)
{
    uint32_t skip = first * row->bits / 32, words = row->bits ? n * row->bits / 32 : 1;

    for (uint32_t i = 0; i < words; i++) {
        uint32_t ones = ~0u;

        if (io->set && row->clear)
            tn_kvm_arm64_gic_reg_(io, group, cpu | (row->clear + 4 * (skip + i)), &ones);
        tn_kvm_arm64_gic_reg_(io, group, cpu | (row->offset + 4 * (skip + i)), &word[i]);
    }
    return words;
}

/* The levels of the lines of 32 interrupts. */
static inline void tn_kvm_arm64_gic_level_(struct tn_kvm_arm64_gic_io_ *io, uint64_t cpu,
                                           uint32_t first, uint32_t *word)
{
    tn_kvm_arm64_gic_reg_(
        io, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
        cpu | (uint64_t)VGIC_LEVEL_INFO_LINE_LEVEL << KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT |
            first,
        word);
}

static inline void tn_kvm_arm64_gic_dist_(struct tn_kvm_arm64_gic_io_ *io, uint32_t spis,
                                          uint32_t *word)
{
    for (uint32_t first = 32; first < 32 + spis; first += 32)
        tn_kvm_arm64_gic_level_(io, 0, first, word++);
    for (size_t i = 0; i < sizeof(tn_kvm_arm64_gicd_) / sizeof(tn_kvm_arm64_gicd_[0]); i++)
        word += tn_kvm_arm64_gic_row_io_(io, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0,
                                         &tn_kvm_arm64_gicd_[i], 32, spis, word);
}

static inline void tn_kvm_arm64_gic_cpu_(struct tn_kvm_arm64_gic_io_ *io, uint32_t id,
                                         struct tn_kvm_arm64_gic_cpu *c)
{
    uint64_t cpu = tn_kvm_arm64_mpidr(id) << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT;
    uint32_t *word = c->redist, icc = 9;

    tn_kvm_arm64_gic_level_(io, cpu, 0, word++);
    for (size_t i = 0; i < sizeof(tn_kvm_arm64_gicr_) / sizeof(tn_kvm_arm64_gicr_[0]); i++)
        word += tn_kvm_arm64_gic_row_io_(io, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, cpu,
                                         &tn_kvm_arm64_gicr_[i], 0, 32, word);
    for (uint32_t i = 0; i < icc; i++) {
        tn_kvm_arm64_gic_reg_(io, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, cpu | tn_kvm_arm64_icc_[i],
                              &c->icc[i]);
        if (i == 1) { /* ICC_CTLR_EL1.PRIbits is one less than their number */
            uint32_t bits = (uint32_t)(c->icc[i] >> 8 & 7) + 1;

            icc = bits >= 7 ? 15 : bits == 6 ? 11 : 9;
        }
    }
}

static inline int tn_kvm_arm64_gic_all_(const struct tn_kvm_arm64_gic *gic, bool set,
                                        struct tn_kvm_arm64_gic_state *s)
{
    struct tn_kvm_arm64_gic_io_ io;

    io.fd = gic->fd;
    io.set = set;
    io.err = TN_OK;
    tn_kvm_arm64_gic_dist_(&io, gic->spis, s->dist);
    for (uint32_t i = 0; i < gic->cpus; i++)
        tn_kvm_arm64_gic_cpu_(&io, i, &s->cpu[i]);
    return io.err < 0 ? io.err : TN_OK;
}

TN_API int tn_kvm_arm64_gic_save(const struct tn_kvm_arm64_gic *gic,
                                 struct tn_kvm_arm64_gic_state *out)
{
    if (gic->version != 3 || gic->spis > TN_KVM_ARM64_GIC_SPIS)
        return TN_EUNSUP;
    out->spis = gic->spis;
    out->cpus = gic->cpus;
    memset(out->dist, 0, sizeof(out->dist));
    memset(out->cpu, 0, gic->cpus * sizeof(*out->cpu));
    return tn_kvm_arm64_gic_all_(gic, false, out);
}

TN_API int tn_kvm_arm64_gic_restore(const struct tn_kvm_arm64_gic *gic,
                                    const struct tn_kvm_arm64_gic_state *from)
{
    if (gic->version != 3)
        return TN_EUNSUP;
    if (from->spis != gic->spis || from->cpus != gic->cpus || from->spis > TN_KVM_ARM64_GIC_SPIS)
        return TN_EINVAL;
    /* Nothing of it is written when registers are set. */
    return tn_kvm_arm64_gic_all_(gic, true, (struct tn_kvm_arm64_gic_state *)(uintptr_t)from);
}

/* ---- time ---- */

static inline uint64_t tn_kvm_arm64_realtime_(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

TN_API int tn_kvm_arm64_time_save(const struct tn_kvm_arm64_host *host,
                                  const struct tn_kvm_vcpu *vcpu, struct tn_kvm_arm64_time *out)
{
    out->counter_hz = host->counter_hz;
    out->realtime_ns = tn_kvm_arm64_realtime_();
    return tn_kvm_arm64_get_reg(vcpu, KVM_REG_ARM_TIMER_CNT, &out->counter);
}

TN_API int tn_kvm_arm64_time_restore(struct tn_kvm_vcpu *vcpu, const struct tn_kvm_arm64_time *from,
                                     bool stopped)
{
    uint64_t now = tn_kvm_arm64_realtime_(),
             ns = now > from->realtime_ns ? now - from->realtime_ns : 0;
    uint64_t counter = from->counter;

    if (ns > TN_KVM_ARM64_TIME_MAX_NS)
        ns = TN_KVM_ARM64_TIME_MAX_NS;
    if (!stopped)
        counter +=
            ns / 1000000000u * from->counter_hz + ns % 1000000000u * from->counter_hz / 1000000000u;
    return tn_kvm_arm64_set_reg(vcpu, KVM_REG_ARM_TIMER_CNT, &counter);
}

/* ---- what a host lacks ---- */

static inline int tn_kvm_arm64_lacks_(struct tn_kvm_arm64_lack *lack, uint32_t kind, uint64_t id,
                                      uint64_t want, uint64_t have)
{
    lack->kind = kind;
    lack->id = id;
    lack->want = want;
    lack->have = have;
    return TN_EUNSUP;
}

TN_API int tn_kvm_arm64_state_check(const struct tn_kvm_arm64_host *host,
                                    const struct tn_kvm_arm64_vcpu_state *s,
                                    struct tn_kvm_arm64_lack *lack)
{
    memset(lack, 0, sizeof(*lack));
    if (s->reg_count > TN_KVM_ARM64_MAX_REGS)
        return TN_EFORMAT;
    if (s->features & ~host->features)
        return tn_kvm_arm64_lacks_(lack, TN_KVM_ARM64_LACK_FEATURE, 0,
                                   s->features & ~host->features, host->features);
    for (uint32_t i = 0; i < s->reg_count; i++) {
        uint32_t k = 0;

        while (k < host->reg_count && host->reg[k] != s->reg[i].id)
            k++;
        if (k == host->reg_count)
            return tn_kvm_arm64_lacks_(lack, TN_KVM_ARM64_LACK_REGISTER, s->reg[i].id,
                                       s->reg[i].value[0], 0);
    }
    return TN_OK;
}

TN_API int tn_kvm_arm64_time_check(const struct tn_kvm_arm64_host *host,
                                   const struct tn_kvm_arm64_time *time,
                                   struct tn_kvm_arm64_lack *lack)
{
    memset(lack, 0, sizeof(*lack));
    if (time->counter_hz == host->counter_hz)
        return TN_OK;
    return tn_kvm_arm64_lacks_(lack, TN_KVM_ARM64_LACK_COUNTER, 0, time->counter_hz,
                               host->counter_hz);
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* __aarch64__ */
#endif /* TN_KVM_ARM64_STATE_H */
