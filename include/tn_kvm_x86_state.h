/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_kvm_x86_state - the whole state of KVM's vCPUs, chips and clocks on x86-64, as plain structs.
 *
 * WHAT
 *   Saves a vCPU, the interrupt chips with the PIT, and the clocks into structs whose equal states
 *   are equal bytes; restores them into a vCPU that is new, or one that has run and is to be as it
 *   was; carries the guest's time on; and says beforehand what a host lacks that a saved CPU needs.
 *   The cost of a restore is that of its system calls, so it makes as few as it can.
 *
 * USAGE
 *   struct tn_kvm kvm;
 *   struct tn_kvm_vm vm;
 *   struct tn_kvm_vcpu vcpu;
 *   static struct tn_kvm_x86_host host;
 *   static struct tn_kvm_x86_vcpu_state cpu;
 *   static struct tn_kvm_x86_vm_state chips;
 *   static uint8_t xsave[16384];
 *   struct tn_kvm_x86_time time;
 *   struct tn_kvm_x86_lack lack;
 *   struct tn_kvm_x86_refused refused;
 *   uint64_t shift;
 *
 *   if (tn_kvm_open(&kvm, NULL) < 0 || tn_kvm_x86_host_init(&kvm, &host) < 0)
 *       return 1;
 *   if (tn_kvm_vm_init(&kvm, &vm) < 0 || tn_kvm_x86_irqchip_full(&vm) < 0 ||
 *       tn_kvm_vcpu_init(&kvm, &vm, &vcpu, 0) < 0)
 *       return 2;
 *   // it has run, and is stopped
 *   cpu.xsave = xsave;
 *   cpu.xsave_cap = sizeof(xsave);
 *   if (tn_kvm_x86_vm_save(&vm, &chips) < 0 || tn_kvm_x86_vcpu_save(&host, &vcpu, &cpu) < 0 ||
 *       tn_kvm_x86_time_save(&host, &vm, &vcpu, cpu.tsc_khz, &time) < 0)
 *       return 3;
 *   // here, or in another VM whose vCPU got cpu.cpuid when it was made
 *   if (tn_kvm_x86_state_check(&host, &cpu, &lack) < 0)
 *       return 4; // lack says what this host has not got
 *   if (tn_kvm_x86_vm_still(&vm) < 0 ||
 *       tn_kvm_x86_time_restore(&host, &vm, &vcpu, &time, cpu.tsc_khz, TN_KVM_X86_TIME_REAL,
 *                               &shift) < 0 ||
 *       tn_kvm_x86_vcpu_restore(&host, &vcpu, &cpu, shift, 0, &refused) < 0 ||
 *       tn_kvm_x86_vm_restore(&vm, &chips) < 0)
 *       return 5;
 *
 * COMPOSITION
 *   On tn_kvm_x86. A save: stop every vCPU with its last access completed, then the chips, the
 *   vCPUs, the clocks. A restore: slots and memory first (KVM looks at the guest's pages while it
 *   takes an MSR), then the clocks, the vCPUs, the chips. Of a VM that has run: before all that,
 *   tn_kvm_x86_vcpu_drop of each vCPU and tn_kvm_x86_vm_still. The structs hold no version and no
 *   byte order: who writes them to a file does it field by field.
 *
 * GUEST TRUST
 *   What is restored may come from a file of anybody's: counts, lengths and mp_state are checked
 *   here, all else by KVM, which refuses it, or lets the guest have it: it harms that guest only.
 *   state_check is no defence, it is for hosts that differ.
 *
 * MEMORY
 *   The caller owns all structs and the buffer of the extended state. 30 KiB of stack.
 *
 * THREADS
 *   struct tn_kvm_x86_host is read-only once it is filled. A vCPU's functions belong to the thread
 *   that runs it, while it does not run; the others to any.
 *
 * CONFIG
 *   TN_KVM_X86_STATE_MSRS: how many MSRs a saved vCPU may have, 512.
 *
 * SPEC
 *   Linux, Documentation/virt/kvm/api.rst sections 4 and 5 (kvm_valid_regs), devices/vcpu.rst
 *   section 4 (the TSC's offset), x86/msr.rst. Intel SDM vol. 2A CPUID, vol. 1 13.4 (the XSAVE
 *   area), vol. 3A 11.5.4 (the APIC's timer), 12.11.2 (MTRRs), 16.3.2 (MCA banks). AMD APM vol. 3
 *   appendix E.
 *
 * LIMITS
 *   The full chips in the kernel. No nested virtualization, no Hyper-V or Xen interfaces, no
 *   performance counters but for AMD's first four, no SEV and no TDX.
 *   Of a machine that was restored and has not run, a save is the same bytes but for what time
 *   changes: the current count (0x390) of an APIC timer that runs, and what a timer that fires has
 *   set in an IRR of the local APIC, PIC or I/O APIC. The PIT's counters start anew. A one-shot
 *   APIC timer that has expired fires once more after a restore, as KVM has it: an interrupt may
 *   come twice, none is lost. MSRs that are commands are not state: 0x11 and 0x4b564d00 (KVM
 *   writes the guest's memory), 0x4b564d07; what a guest reads there is 0, or what it wrote last.
 *   Without KVM_VCPU_TSC_OFFSET (Linux before 5.16) the TSC is written instead, and KVM may take a
 *   step back of less than a second for an attempt to synchronize, and ignore it. A KVM with
 *   host.tsc_fixed has no TSC that stands still or moves to another host.
 */
#ifndef TN_KVM_X86_STATE_H
#define TN_KVM_X86_STATE_H

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

#ifdef __x86_64__

#include "tn_kvm.h"
#include "tn_kvm_x86.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/*
 * Returns, unless said otherwise: 0, or TN_ESYS with KVM's errno (EBADF on what is closed, EINVAL
 * for a value that is refused).
 */

#ifndef TN_KVM_X86_STATE_MSRS
#define TN_KVM_X86_STATE_MSRS 512u
#endif

/* ---- the host ---- */

/* What this KVM has that a state is saved and restored with: the same for every VM of a process. */
struct tn_kvm_x86_host {
    uint32_t tsc_khz;    /* of a new vCPU's time-stamp counter */
    uint32_t xsave_size; /* bytes that KVM_SET_XSAVE reads, 4096 or more */
    bool sregs2;         /* KVM_CAP_SREGS2 */
    bool tsc_offset;     /* the attribute KVM_VCPU_TSC_OFFSET */
    bool tsc_control;    /* KVM_CAP_TSC_CONTROL: a vCPU's counter may have another frequency */
    bool tsc_fixed;      /* what is set is ignored: a guest sees the host's counter as it is */
    bool sync_regs;      /* KVM_CAP_SYNC_REGS, for TN_KVM_X86_LAZY */
    uint32_t msr_count;
    struct kvm_msr_entry msr[TN_KVM_X86_STATE_MSRS]; /* in the order of a restore; a new vCPU's */
    struct tn_kvm_cpuid cpuid; /* what KVM supports, and features that it sets by itself */
};

/*
 * Asks KVM, with a VM and a vCPU that are closed again: about a millisecond, once per process, and
 * after any ARCH_REQ_XCOMP_GUEST_PERM. Returns 0; TN_ENOSPC: more MSRs than there is room for;
 * TN_ESYS. *host is zero then.
 */
TN_API int tn_kvm_x86_host_init(const struct tn_kvm *k, struct tn_kvm_x86_host *host);

/* ---- a vCPU ---- */

/* About 20 KiB. Everything but xsave is in the struct. */
struct tn_kvm_x86_vcpu_state {
    struct tn_kvm_cpuid cpuid; /* nothing after entry nent counts */
    struct kvm_regs regs;
    struct kvm_sregs2 sregs; /* of a host without KVM_CAP_SREGS2: flags 0, no pdptrs */
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    uint32_t mp_state;   /* KVM_MP_STATE_RUNNABLE, _UNINITIALIZED, _INIT_RECEIVED or _HALTED */
    uint32_t tsc_khz;    /* of the guest's counter */
    uint64_t tsc_offset; /* the guest's counter minus the host's (scaled to tsc_khz) */
    uint32_t msr_count;
    struct kvm_msr_entry msr[TN_KVM_X86_STATE_MSRS]; /* in the order of a restore */
    uint8_t *xsave;                                  /* the caller's: KVM's struct kvm_xsave */
    size_t xsave_cap; /* the caller's; host.xsave_size or more, to save */
    size_t xsave_len; /* bytes that count */
};

/*
 * How many banks a new vCPU has that report machine checks (KVM gives 32): 1 is best, since each
 * is five MSRs to save and to restore. Before the guest runs. KVM_X86_SETUP_MCE
 */
TN_API int tn_kvm_x86_set_mce_banks(struct tn_kvm_vcpu *vcpu, uint32_t banks);

/*
 * Saves a vCPU that does not run, and that has completed its last access (tn_kvm_run). out->xsave
 * and xsave_cap are the caller's, all else is written; what is not used is zero. Returns 0;
 * TN_ENOSPC: xsave_cap is less than host->xsave_size; TN_ESYS.
 */
TN_API int tn_kvm_x86_vcpu_save(const struct tn_kvm_x86_host *host, const struct tn_kvm_vcpu *vcpu,
                                struct tn_kvm_x86_vcpu_state *out);

/* The steps of a restore. */
enum tn_kvm_x86_part {
    TN_KVM_X86_PART_NONE = 0,
    TN_KVM_X86_PART_STATE, /* the struct itself */
    TN_KVM_X86_PART_SREGS,
    TN_KVM_X86_PART_REGS,
    TN_KVM_X86_PART_XCRS,
    TN_KVM_X86_PART_XSAVE,
    TN_KVM_X86_PART_LAPIC,
    TN_KVM_X86_PART_DEBUGREGS,
    TN_KVM_X86_PART_TSC,
    TN_KVM_X86_PART_MSRS,
    TN_KVM_X86_PART_EVENTS,
    TN_KVM_X86_PART_MP_STATE
};

/* What a restore failed at. */
struct tn_kvm_x86_refused {
    uint32_t part; /* enum tn_kvm_x86_part */
    uint32_t msr;  /* of PART_MSRS, when errno is EINVAL: its index */
    uint64_t data; /* and the value that KVM does not take */
};

enum tn_kvm_x86_restore_flag {
    /* The vCPU was made, got its CPUID, frequency and MCE banks, and nothing else yet: what it has
     * anyway is not set again. */
    TN_KVM_X86_FRESH = 1,
    /* The registers and events wait in the run page for the next tn_kvm_run, which takes no longer
     * for it, and which returns TN_ESYS with EINVAL if KVM refuses them. Until then
     * tn_kvm_x86_vcpu_save sees them, the functions of tn_kvm_x86 do not. */
    TN_KVM_X86_LAZY = 2,
    /* The vCPU was restored from this state, without TN_KVM_X86_LAZY, and has not run: only what
     * time changes is set again: the local APIC, the counter, and a deadline that is armed. */
    TN_KVM_X86_TIMED = 4
};

/*
 * Restores a vCPU that does not run. Its CPUID is set when it is made, by tn_kvm_x86_set_cpuid with
 * from->cpuid; its frequency by tn_kvm_x86_set_tsc_khz, if tn_kvm_x86_tsc_differs. A vCPU that has
 * run loses all that it had, but for an access that it has not completed: tn_kvm_x86_vcpu_drop.
 * tsc_shift comes from tn_kvm_x86_time_restore; flags: enum tn_kvm_x86_restore_flag. *refused,
 * which may be NULL, names the culprit after an error. Returns 0; TN_EINVAL: unknown flags;
 * TN_EFORMAT: a count, a length or mp_state that no save writes; TN_EUNSUP: extended state that is
 * shorter than host->xsave_size, and that is more than 16 KiB; TN_ESYS: KVM refuses a value
 * (EINVAL). After an error the vCPU is in no state to run, but may be restored.
 */
TN_API int tn_kvm_x86_vcpu_restore(const struct tn_kvm_x86_host *host, struct tn_kvm_vcpu *vcpu,
                                   const struct tn_kvm_x86_vcpu_state *from, uint64_t tsc_shift,
                                   uint32_t flags, struct tn_kvm_x86_refused *refused);

/*
 * Completes the access that a vCPU is in the midst of, whatever the guest gets of it, so that its
 * end does not befall the state that is restored next. It may write the guest's memory: restore
 * that after. Leaves tn_kvm_interrupt set. Returns 0, TN_ESYS, or TN_EBUG: it does not end.
 */
TN_API int tn_kvm_x86_vcpu_drop(struct tn_kvm_vcpu *vcpu);

/*
 * Tells the guest of a vCPU with a paravirtual clock that it was stopped, so that its watchdogs
 * don't bark at the time that went by: after the restore. No error where the guest has none.
 * KVM_KVMCLOCK_CTRL
 */
TN_API int tn_kvm_x86_vcpu_was_paused(struct tn_kvm_vcpu *vcpu);

/* ---- the chips ---- */

/* Of the full chips of a VM. */
struct tn_kvm_x86_vm_state {
    struct kvm_irqchip chip[3]; /* by chip_id: KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE, _IOAPIC */
    struct kvm_pit_state2 pit;  /* the counters start anew, so count_load_time is 0 */
};

/*
 * Save the chips before the vCPUs, and restore them after the vCPUs: an interrupt that a timer
 * raises meanwhile, or that was under way, is not lost then. Restore: TN_EFORMAT for a chip_id that
 * is not in its place.
 */
TN_API int tn_kvm_x86_vm_save(const struct tn_kvm_vm *vm, struct tn_kvm_x86_vm_state *out);
TN_API int tn_kvm_x86_vm_restore(struct tn_kvm_vm *vm, const struct tn_kvm_x86_vm_state *from);

/*
 * Stops the PIT. Call it before the vCPUs of a VM that has run are restored: it would else raise
 * interrupts in the midst of that. tn_kvm_x86_vm_restore starts it again.
 */
TN_API int tn_kvm_x86_vm_still(struct tn_kvm_vm *vm);

/* ---- time ---- */

/* The clocks, all of one moment. */
struct tn_kvm_x86_time {
    uint64_t host_tsc;    /* the host's counter (scaled to the guest's frequency) */
    uint64_t realtime_ns; /* CLOCK_REALTIME */
    uint64_t kvmclock_ns; /* what KVM's paravirtual clock shows */
};

enum tn_kvm_x86_time_mode {
    TN_KVM_X86_TIME_STOPPED = 0, /* the guest's time stood still */
    TN_KVM_X86_TIME_REAL         /* it went by as on the host: a guest's wall clock is right then */
};
#define TN_KVM_X86_TIME_MAX_NS 315576000000000000ull /* ten years: more is not believed */

/*
 * Reads the clocks, when no vCPU runs any more. vcpu is any of the VM's, tsc_khz its frequency.
 */
TN_API int tn_kvm_x86_time_save(const struct tn_kvm_x86_host *host, const struct tn_kvm_vm *vm,
                                const struct tn_kvm_vcpu *vcpu, uint32_t tsc_khz,
                                struct tn_kvm_x86_time *out);

/*
 * Sets the VM's paravirtual clock, and *tsc_shift to what is to be added to the saved offset of
 * every vCPU, so that both go on from the moment of the save. vcpu is any of the VM's, tsc_khz the
 * saved frequency. Time never goes backwards: a host's clock that did counts as 0, one that went
 * on by more than TN_KVM_X86_TIME_MAX_NS as that. Returns 0, TN_EINVAL (mode) or TN_ESYS.
 */
TN_API int tn_kvm_x86_time_restore(const struct tn_kvm_x86_host *host, struct tn_kvm_vm *vm,
                                   const struct tn_kvm_vcpu *vcpu,
                                   const struct tn_kvm_x86_time *from, uint32_t tsc_khz,
                                   enum tn_kvm_x86_time_mode mode, uint64_t *tsc_shift);

/* ---- what a host lacks ---- */

enum tn_kvm_x86_lack_kind {
    TN_KVM_X86_LACK_NONE = 0,
    TN_KVM_X86_LACK_VENDOR,  /* the CPU's maker, CPUID leaf 0: want and have are its EBX */
    TN_KVM_X86_LACK_FEATURE, /* bits of a CPUID register: want has those that are missing */
    TN_KVM_X86_LACK_LIMIT,   /* a number in a CPUID register, such as MAXPHYADDR, is too large */
    TN_KVM_X86_LACK_XSAVE,   /* extended state: index is the component, want its offset */
    TN_KVM_X86_LACK_MSR,     /* an MSR that is not zero, want, and that this KVM does not have */
    TN_KVM_X86_LACK_TSC      /* the counter's frequency: want and have are kHz */
};

struct tn_kvm_x86_lack {
    uint32_t kind;     /* enum tn_kvm_x86_lack_kind */
    uint32_t function; /* CPUID: leaf, index, enum tn_kvm_x86_reg */
    uint32_t index;
    uint32_t reg;
    uint32_t msr;
    uint64_t want; /* what the saved state needs */
    uint64_t have; /* what this host has of it */
};

/*
 * Whether a saved vCPU can go on here, before anything runs: CPUID features, limits, extended
 * state, MSRs, the counter's frequency. Topology, caches and names are not compared. Returns 0;
 * TN_EUNSUP: *lack names the first thing that lacks; TN_EFORMAT: a count or a length that no save
 * writes.
 */
TN_API int tn_kvm_x86_state_check(const struct tn_kvm_x86_host *host,
                                  const struct tn_kvm_x86_vcpu_state *s,
                                  struct tn_kvm_x86_lack *lack);

/*
 * Whether a counter of khz needs tn_kvm_x86_set_tsc_khz here: it differs by more than 250 ppm.
 */
TN_API bool tn_kvm_x86_tsc_differs(const struct tn_kvm_x86_host *host, uint32_t khz);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#include <errno.h>
#include <string.h>
#include <time.h>

#define TN_KVM_X86_XSAVE_HEADER 576u   /* the legacy area and the header: the least there can be */
#define TN_KVM_X86_XSAVE_PAD    16384u /* a shorter area is padded with zeros to this at most */
#define TN_KVM_X86_MSR_CALL     255u   /* MSRs that KVM takes in one call */

/* ---- MSRs ---- */

#define TN_KVM_X86_MSR_TSC          0x10u
#define TN_KVM_X86_MSR_MCG_CAP      0x179u
#define TN_KVM_X86_MSR_DEADLINE     0x6e0u
#define TN_KVM_X86_MSR_OLD_KVMCLOCK 0x12u       /* another name of the next */
#define TN_KVM_X86_MSR_KVMCLOCK     0x4b564d01u /* KVM's: x86/msr.rst */
#define TN_KVM_X86_MSR_ASYNC_PF_EN  0x4b564d02u
#define TN_KVM_X86_MSR_ASYNC_PF_INT 0x4b564d06u
#define TN_KVM_X86_MSR_ASYNC_PF_ACK 0x4b564d07u
#define TN_KVM_X86_MSR_MC           0x400u /* four for each of up to 32 banks */
#define TN_KVM_X86_MSR_MC_CTL2      0x280u /* one for each */
#define TN_KVM_X86_MC_BANKS         32u

/* A range of MSRs. */
struct tn_kvm_x86_msr_range_ {
    uint32_t first, last;
};

/* What KVM lists and is no state: time, commands, Hyper-V's, and what nested virtualization can do.
 */
static const struct tn_kvm_x86_msr_range_ tn_kvm_x86_msrs_not_[] = {
    {TN_KVM_X86_MSR_TSC, TN_KVM_X86_MSR_TSC},
    {0x11, 0x11},
    {0xe7, 0xe8}, /* MPERF, APERF */
    {0x480, 0x493},
    {0x40000000, 0x400001ff},
    {0x4b564d00, 0x4b564d00},
    {TN_KVM_X86_MSR_ASYNC_PF_ACK, TN_KVM_X86_MSR_ASYNC_PF_ACK},
};

/* What it does not list, or not always, and a guest can write. */
static const struct tn_kvm_x86_msr_range_ tn_kvm_x86_msrs_too_[] = {
    {0x48, 0x48},   {0x1d9, 0x1d9}, {0x200, 0x20f}, /* SPEC_CTRL, DEBUGCTL; MTRRs */
    {0x250, 0x250}, {0x258, 0x259}, {0x268, 0x26f},
    {0x2ff, 0x2ff}, {0xda0, 0xda0}, {0xc0000103, 0xc0000103}, /* XSS, TSC_AUX */
};

/* What is set last: the deadline wants the APIC and the TSC, page faults their interrupt. */
static inline bool tn_kvm_x86_msr_late_(uint32_t index)
{
    return index == TN_KVM_X86_MSR_ASYNC_PF_EN || index == TN_KVM_X86_MSR_DEADLINE;
}

static inline bool tn_kvm_x86_msr_not_(uint32_t index)
{
    for (size_t i = 0; i < sizeof(tn_kvm_x86_msrs_not_) / sizeof(tn_kvm_x86_msrs_not_[0]); i++) {
        if (index >= tn_kvm_x86_msrs_not_[i].first && index <= tn_kvm_x86_msrs_not_[i].last)
            return true;
    }
    return false;
}

/* One of a bank: banks are numbered, so after one that is not there comes none. */
static inline bool tn_kvm_x86_msr_bank_(uint32_t index)
{
    return (index >= TN_KVM_X86_MSR_MC && index < TN_KVM_X86_MSR_MC + 4 * TN_KVM_X86_MC_BANKS) ||
           (index >= TN_KVM_X86_MSR_MC_CTL2 &&
            index < TN_KVM_X86_MSR_MC_CTL2 + TN_KVM_X86_MC_BANKS);
}

/* The kernel's struct kvm_msrs, with room for a call. */
struct tn_kvm_x86_msr_call_ {
    uint32_t nmsrs, pad;
    struct kvm_msr_entry entries[TN_KVM_X86_MSR_CALL];
};

/* Gets, or sets, n MSRs: returns how many, as KVM does, or TN_ESYS. */
static inline int tn_kvm_x86_msr_io_(int fd, bool set, struct kvm_msr_entry *e, uint32_t n)
{
    struct tn_kvm_x86_msr_call_ v;
    int r;

    v.pad = 0;
    v.nmsrs = tn_kvm_x86_at_most_(n, TN_KVM_X86_MSR_CALL);
    memcpy(v.entries, e, v.nmsrs * sizeof(v.entries[0]));
    r = tn_kvm_ioctl_(fd, set ? KVM_SET_MSRS : KVM_GET_MSRS, &v);
    if (r > 0 && !set)
        memcpy(e, v.entries, (uint32_t)r * sizeof(v.entries[0]));
    return r;
}

/* Gets, or sets, all that KVM lets us; the others are taken out of the list. */
static inline int tn_kvm_x86_msr_sift_(int fd, bool set, struct kvm_msr_entry *e, uint32_t *n)
{
    uint32_t done = 0;

    while (done < *n) {
        uint32_t asked = tn_kvm_x86_at_most_(*n - done, TN_KVM_X86_MSR_CALL), out = 1;
        int r = tn_kvm_x86_msr_io_(fd, set, e + done, asked);

        if (r < 0)
            return r;
        done += (uint32_t)r;
        if ((uint32_t)r == asked)
            continue;
        while (tn_kvm_x86_msr_bank_(e[done].index) && done + out < *n &&
               tn_kvm_x86_msr_bank_(e[done + out].index) && e[done + out].index > e[done].index)
            out++;
        *n -= out;
        memmove(&e[done], &e[done + out], (*n - done) * sizeof(*e));
    }
    return TN_OK;
}

/* Adds one that is state and not there yet. */
static inline int tn_kvm_x86_msr_add_(struct tn_kvm_x86_host *host, uint32_t index)
{
    if (tn_kvm_x86_msr_not_(index))
        return TN_OK;
    for (uint32_t i = 0; i < host->msr_count; i++) {
        if (host->msr[i].index == index)
            return TN_OK;
    }
    if (host->msr_count >= TN_KVM_X86_STATE_MSRS)
        return TN_ENOSPC;
    host->msr[host->msr_count++].index = index;
    return TN_OK;
}

static inline int tn_kvm_x86_msr_add_range_(struct tn_kvm_x86_host *host, uint32_t first,
                                            uint32_t count)
{
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < count; i++)
        r = tn_kvm_x86_msr_add_(host, first + i);
    return r;
}

/* host->msr: all that might be, and then what can be read and written back; with its value. */
static inline int tn_kvm_x86_msr_probe_(const struct tn_kvm *k, const struct tn_kvm_vcpu *vcpu,
                                        struct tn_kvm_x86_host *host)
{
    uint32_t list[TN_KVM_X86_MAX_MSRS], banks;
    struct kvm_msr_entry cap;
    int n = tn_kvm_x86_msr_list(k, list, TN_KVM_X86_MAX_MSRS), r = n;

    for (int i = 0; r >= 0 && i < n; i++) {
        if (!tn_kvm_x86_msr_late_(list[i]))
            r = tn_kvm_x86_msr_add_(host, list[i]);
    }
    for (size_t i = 0; r >= 0 && i < sizeof(tn_kvm_x86_msrs_too_) / sizeof(tn_kvm_x86_msrs_too_[0]);
         i++)
        r = tn_kvm_x86_msr_add_range_(host, tn_kvm_x86_msrs_too_[i].first,
                                      tn_kvm_x86_msrs_too_[i].last - tn_kvm_x86_msrs_too_[i].first +
                                          1);
    memset(&cap, 0, sizeof(cap));
    cap.index = TN_KVM_X86_MSR_MCG_CAP;
    if (r >= 0)
        r = tn_kvm_x86_msr_io_(vcpu->fd, false, &cap, 1);
    banks = r == 1 ? tn_kvm_x86_at_most_((uint32_t)cap.data & 0xff, TN_KVM_X86_MC_BANKS) : 0;
    if (r >= 0)
        r = tn_kvm_x86_msr_add_range_(host, TN_KVM_X86_MSR_MC, 4 * banks);
    if (r >= 0)
        r = tn_kvm_x86_msr_add_range_(host, TN_KVM_X86_MSR_MC_CTL2, banks);
    for (int i = 0; r >= 0 && i < n; i++) {
        if (tn_kvm_x86_msr_late_(list[i]))
            r = tn_kvm_x86_msr_add_(host, list[i]);
    }
    if (r >= 0)
        r = tn_kvm_x86_msr_sift_(vcpu->fd, false, host->msr, &host->msr_count);
    return r < 0 ? r : tn_kvm_x86_msr_sift_(vcpu->fd, true, host->msr, &host->msr_count);
}

/* The place of an MSR in host->msr, msr_count: none. *hint is where the search starts, and then
 * the place after: lists in the same order are walked once. */
static inline uint32_t tn_kvm_x86_msr_find_(const struct tn_kvm_x86_host *host, uint32_t index,
                                            uint32_t *hint)
{
    uint32_t at = *hint;

    for (uint32_t i = 0; i < host->msr_count; i++, at++) {
        if (at >= host->msr_count)
            at = 0;
        if (host->msr[at].index == index) {
            *hint = at + 1;
            return at;
        }
    }
    return host->msr_count;
}

/* ---- CPUID: what must not be missing ---- */

/* A register of features, but for the bits that tell of something else. */
static const struct {
    uint32_t function, index, reg, ignored;
} tn_kvm_x86_features_[] = {
    /* MONITOR and OSXSAVE follow what the guest sets; the count of CPUs is topology */
    {0x1, 0, TN_KVM_X86_ECX, 1u << 3 | 1u << 27},
    {0x1, 0, TN_KVM_X86_EDX, 1u << 28},
    {0x6, 0, TN_KVM_X86_EAX, 0},
    {0x7, 0, TN_KVM_X86_EBX, 1u << 6 | 1u << 13}, /* what the x87 no longer does */
    {0x7, 0, TN_KVM_X86_ECX, 1u << 4},            /* OSPKE follows CR4 */
    {0x7, 0, TN_KVM_X86_EDX, 0},
    {0x7, 1, TN_KVM_X86_EAX, 0},
    {0x7, 1, TN_KVM_X86_EBX, 0},
    {0x7, 1, TN_KVM_X86_ECX, 0},
    {0x7, 1, TN_KVM_X86_EDX, 0},
    {0x7, 2, TN_KVM_X86_EDX, 0},
    {0xd, 0, TN_KVM_X86_EAX, 0},
    {0xd, 0, TN_KVM_X86_EDX, 0},
    {0xd, 1, TN_KVM_X86_EAX, 0},
    {0xd, 1, TN_KVM_X86_ECX, 0},
    {0xd, 1, TN_KVM_X86_EDX, 0},
    {0x14, 0, TN_KVM_X86_EBX, 0},
    {0x14, 0, TN_KVM_X86_ECX, 1u << 31}, /* how addresses are written */
    {0x14, 1, TN_KVM_X86_EBX, 0},
    {0x19, 0, TN_KVM_X86_EBX, 0},
    {0x1e, 1, TN_KVM_X86_EAX, 0},
    {0x24, 0, TN_KVM_X86_EBX, 0xff},          /* a version, see below */
    {0x80000001, 0, TN_KVM_X86_ECX, 1u << 1}, /* CmpLegacy: topology */
    {0x80000001, 0, TN_KVM_X86_EDX, 0},
    {0x80000007, 0, TN_KVM_X86_EBX, 0},
    {0x80000007, 0, TN_KVM_X86_EDX, 0},
    {0x80000008, 0, TN_KVM_X86_EBX, 0},
    {0x8000000a, 0, TN_KVM_X86_EDX, 0},
    {0x8000001f, 0, TN_KVM_X86_EAX, 0},
    {0x80000021, 0, TN_KVM_X86_EAX, 0},
    {0x80000021, 0, TN_KVM_X86_ECX, 0},
    {0x80000022, 0, TN_KVM_X86_EAX, 0},
    {0xc0000001, 0, TN_KVM_X86_EDX, 0},
    {0x40000001, 0, TN_KVM_X86_EAX, 0},
};
#define TN_KVM_X86_FEATURES_ (sizeof(tn_kvm_x86_features_) / sizeof(tn_kvm_x86_features_[0]))

/* A number: ours must be as large. */
static const struct {
    uint32_t function, reg, shift;
} tn_kvm_x86_limits_[] = {
    {0x80000008, TN_KVM_X86_EAX, 0}, /* MAXPHYADDR */
    {0x80000008, TN_KVM_X86_EAX, 8}, /* bits of a linear address */
    {0x24, TN_KVM_X86_EBX, 0},       /* AVX10's version */
    {0xa, TN_KVM_X86_EAX, 0},        /* performance counters: version, number */
    {0xa, TN_KVM_X86_EAX, 8},
};
#define TN_KVM_X86_LIMITS_ (sizeof(tn_kvm_x86_limits_) / sizeof(tn_kvm_x86_limits_[0]))

static inline uint32_t tn_kvm_x86_reg_of_(const struct kvm_cpuid_entry2 *e, uint32_t reg)
{
    struct kvm_cpuid_entry2 copy = *e;

    return *tn_kvm_x86_reg_(&copy, reg);
}

/* Whether an entry answers for an index of a leaf. */
static inline bool tn_kvm_x86_is_leaf_(const struct kvm_cpuid_entry2 *e, uint32_t function,
                                       uint32_t index)
{
    return e->function == function && (!tn_kvm_x86_indexed_(e) || e->index == index);
}

static inline const struct kvm_cpuid_entry2 *tn_kvm_x86_leaf_(const struct tn_kvm_cpuid *c,
                                                              uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < c->nent && i < TN_KVM_MAX_CPUID; i++) {
        if (tn_kvm_x86_is_leaf_(&c->entries[i], function, index))
            return &c->entries[i];
    }
    return NULL;
}

/* A register of the host's, 0 where it has no such leaf. */
static inline uint32_t tn_kvm_x86_host_reg_(const struct tn_kvm_x86_host *host, uint32_t function,
                                            uint32_t index, uint32_t reg)
{
    const struct kvm_cpuid_entry2 *e = tn_kvm_x86_leaf_(&host->cpuid, function, index);

    return e ? tn_kvm_x86_reg_of_(e, reg) : 0;
}

/* A vCPU's CPUID. Before Linux 6.4 KVM_GET_CPUID2 leaves nent as it was, and does not write what
 * comes after the last entry: entries that are zero end the list. */
static inline int tn_kvm_x86_cpuid_of_(const struct tn_kvm_vcpu *vcpu, struct tn_kvm_cpuid *c)
{
    struct kvm_cpuid_entry2 none;
    int r;

    memset(c, 0, sizeof(*c));
    memset(&none, 0, sizeof(none));
    r = tn_kvm_x86_get_cpuid(vcpu, c);
    while (c->nent > 0 && memcmp(&c->entries[c->nent - 1], &none, sizeof(none)) == 0)
        c->nent--;
    return r;
}

/* Some KVMs set bits in a vCPU's CPUID that they do not list as supported: they have them. */
static inline void tn_kvm_x86_cpuid_merge_(struct tn_kvm_cpuid *to, const struct tn_kvm_cpuid *from)
{
    for (size_t i = 0; i < TN_KVM_X86_FEATURES_; i++) {
        uint32_t function = tn_kvm_x86_features_[i].function, reg = tn_kvm_x86_features_[i].reg;
        const struct kvm_cpuid_entry2 *e =
            tn_kvm_x86_leaf_(from, function, tn_kvm_x86_features_[i].index);
        struct kvm_cpuid_entry2 *f =
            tn_kvm_x86_cpuid_find(to, function, tn_kvm_x86_features_[i].index);

        if (e && !f && to->nent < TN_KVM_MAX_CPUID) {
            f = &to->entries[to->nent++];
            memset(f, 0, sizeof(*f));
            f->function = function;
            f->index = tn_kvm_x86_features_[i].index;
            f->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        }
        if (e && f)
            *tn_kvm_x86_reg_(f, reg) |= tn_kvm_x86_reg_of_(e, reg);
    }
}

/* ---- the host ---- */

/* Whether a counter keeps the offset that it gets; of a vCPU that is closed after this. */
static inline bool tn_kvm_x86_tsc_moves_(struct tn_kvm_vcpu *vcpu)
{
    uint64_t was, is;

    if (tn_kvm_x86_get_tsc_offset(vcpu, &was) < 0 ||
        tn_kvm_x86_set_tsc_offset(vcpu, was - ((uint64_t)1 << 40)) < 0 ||
        tn_kvm_x86_get_tsc_offset(vcpu, &is) < 0)
        return true; /* not told, so it is believed */
    return is != was;
}

static inline int tn_kvm_x86_host_ask_(const struct tn_kvm *k, const struct tn_kvm_vm *vm,
                                       struct tn_kvm_vcpu *vcpu, struct tn_kvm_x86_host *host)
{
    const int both = KVM_SYNC_X86_REGS | KVM_SYNC_X86_EVENTS;
    struct tn_kvm_cpuid cpuid;
    int r = tn_kvm_x86_cpuid(k, &cpuid, vcpu->id, 1);

    if (r >= 0)
        r = tn_kvm_x86_set_cpuid(vcpu, &cpuid);
    if (r >= 0)
        r = tn_kvm_x86_cpuid_of_(vcpu, &cpuid);
    if (r < 0)
        return r;
    memcpy(&host->cpuid, &k->supported, sizeof(host->cpuid));
    tn_kvm_x86_cpuid_merge_(&host->cpuid, &cpuid);
    host->sregs2 = tn_kvm_vm_cap(vm, KVM_CAP_SREGS2) > 0;
    host->tsc_control = tn_kvm_vm_cap(vm, KVM_CAP_TSC_CONTROL) > 0;
    host->tsc_offset = tn_kvm_has_attr(vcpu->fd, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET) > 0;
    host->tsc_fixed = host->tsc_offset && !tn_kvm_x86_tsc_moves_(vcpu);
    r = tn_kvm_vm_cap(vm, KVM_CAP_SYNC_REGS);
    host->sync_regs = r >= 0 && (r & both) == both;
    r = tn_kvm_x86_xsave_size(vm);
    host->xsave_size = r < 0 ? 0 : (uint32_t)r;
    if (r >= 0)
        r = tn_kvm_x86_get_tsc_khz(vcpu);
    host->tsc_khz = r < 0 ? 0 : (uint32_t)r;
    return r < 0 ? r : tn_kvm_x86_msr_probe_(k, vcpu, host);
}

TN_API int tn_kvm_x86_host_init(const struct tn_kvm *k, struct tn_kvm_x86_host *host)
{
    struct tn_kvm_vm vm;
    struct tn_kvm_vcpu vcpu;
    int r = tn_kvm_vm_init(k, &vm);

    memset(host, 0, sizeof(*host));
    if (r < 0)
        return r;
    /* Local APICs, for their MSRs, without the chips that take long to close. */
    r = tn_kvm_enable_cap(&vm, KVM_CAP_SPLIT_IRQCHIP, TN_KVM_X86_IOAPIC_PINS);
    if (r >= 0)
        r = tn_kvm_vcpu_init(k, &vm, &vcpu, 0);
    if (r >= 0) {
        r = tn_kvm_x86_host_ask_(k, &vm, &vcpu, host);
        tn_kvm_vcpu_close(&vcpu);
    }
    tn_kvm_vm_close(&vm);
    if (r < 0)
        memset(host, 0, sizeof(*host));
    return r < 0 ? r : TN_OK;
}

/* ---- time ---- */

TN_API bool tn_kvm_x86_tsc_differs(const struct tn_kvm_x86_host *host, uint32_t khz)
{
    uint64_t apart = khz > host->tsc_khz ? khz - host->tsc_khz : host->tsc_khz - khz;

    return apart * 1000000 > (uint64_t)host->tsc_khz * 250;
}

/* The host's counter, as a guest's of offset 0 and khz would show it. */
static inline uint64_t tn_kvm_x86_host_tsc_(const struct tn_kvm_x86_host *host, uint32_t khz)
{
    uint64_t tsc = __builtin_ia32_rdtsc();

    if (host->tsc_khz == 0 || !tn_kvm_x86_tsc_differs(host, khz))
        return tsc;
    return tsc / host->tsc_khz * khz + tsc % host->tsc_khz * khz / host->tsc_khz;
}

static inline int tn_kvm_x86_read_tsc_(const struct tn_kvm_vcpu *vcpu, uint64_t *tsc)
{
    struct kvm_msr_entry e;
    int r;

    memset(&e, 0, sizeof(e));
    e.index = TN_KVM_X86_MSR_TSC;
    r = tn_kvm_x86_msr_io_(vcpu->fd, false, &e, 1);
    *tsc = e.data;
    if (r == 0) {
        errno = EINVAL;
        return TN_ESYS;
    }
    return r;
}

/* The same, as KVM does the sum: the offset is exact then. */
static inline int tn_kvm_x86_base_tsc_(const struct tn_kvm_x86_host *host,
                                       const struct tn_kvm_vcpu *vcpu, uint32_t khz, uint64_t *tsc)
{
    uint64_t offset;
    int r;

    if (!host->tsc_offset || !tn_kvm_x86_tsc_differs(host, khz)) {
        *tsc = tn_kvm_x86_host_tsc_(host, khz);
        return TN_OK;
    }
    r = tn_kvm_x86_get_tsc_offset(vcpu, &offset);
    if (r >= 0)
        r = tn_kvm_x86_read_tsc_(vcpu, tsc);
    *tsc -= offset;
    return r;
}

static inline int tn_kvm_x86_get_offset_(const struct tn_kvm_x86_host *host,
                                         const struct tn_kvm_vcpu *vcpu, uint32_t khz,
                                         uint64_t *offset)
{
    uint64_t tsc;
    int r;

    if (host->tsc_offset)
        return tn_kvm_x86_get_tsc_offset(vcpu, offset);
    tsc = tn_kvm_x86_host_tsc_(host, khz);
    r = tn_kvm_x86_read_tsc_(vcpu, offset);
    *offset -= tsc;
    return r;
}

static inline int tn_kvm_x86_set_offset_(const struct tn_kvm_x86_host *host,
                                         struct tn_kvm_vcpu *vcpu, uint32_t khz, uint64_t offset)
{
    struct kvm_msr_entry e;
    int r;

    if (host->tsc_fixed)
        return TN_OK;
    if (host->tsc_offset)
        return tn_kvm_x86_set_tsc_offset(vcpu, offset);
    memset(&e, 0, sizeof(e));
    e.index = TN_KVM_X86_MSR_TSC;
    e.data = tn_kvm_x86_host_tsc_(host, khz) + offset;
    r = tn_kvm_x86_msr_io_(vcpu->fd, true, &e, 1);
    if (r == 0)
        errno = EINVAL;
    return r == 1 ? TN_OK : TN_ESYS;
}

static inline uint64_t tn_kvm_x86_realtime_(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

TN_API int tn_kvm_x86_time_save(const struct tn_kvm_x86_host *host, const struct tn_kvm_vm *vm,
                                const struct tn_kvm_vcpu *vcpu, uint32_t tsc_khz,
                                struct tn_kvm_x86_time *out)
{
    struct kvm_clock_data clock;
    int r;

    /* One after the other, and kvmclock last: it must not show less than the guest has seen. The
     * triple that KVM_GET_CLOCK may give is no better than this, and not everywhere. */
    r = tn_kvm_x86_base_tsc_(host, vcpu, tsc_khz, &out->host_tsc);
    out->realtime_ns = tn_kvm_x86_realtime_();
    if (r >= 0)
        r = tn_kvm_x86_get_clock(vm, &clock);
    if (r < 0)
        memset(out, 0, sizeof(*out));
    else
        out->kvmclock_ns = clock.clock;
    return r < 0 ? r : TN_OK;
}

TN_API int tn_kvm_x86_time_restore(const struct tn_kvm_x86_host *host, struct tn_kvm_vm *vm,
                                   const struct tn_kvm_vcpu *vcpu,
                                   const struct tn_kvm_x86_time *from, uint32_t tsc_khz,
                                   enum tn_kvm_x86_time_mode mode, uint64_t *tsc_shift)
{
    uint64_t tsc, real, gone = 0;
    struct kvm_clock_data clock;
    int r;

    *tsc_shift = 0;
    if (mode != TN_KVM_X86_TIME_STOPPED && mode != TN_KVM_X86_TIME_REAL)
        return TN_EINVAL;
    r = tn_kvm_x86_base_tsc_(host, vcpu, tsc_khz, &tsc);
    if (r < 0)
        return r;
    real = tn_kvm_x86_realtime_();
    if (mode == TN_KVM_X86_TIME_REAL && real > from->realtime_ns)
        gone = real - from->realtime_ns;
    if (gone > TN_KVM_X86_TIME_MAX_NS)
        gone = TN_KVM_X86_TIME_MAX_NS;
    memset(&clock, 0, sizeof(clock));
    clock.clock = from->kvmclock_ns + gone;
    r = tn_kvm_x86_set_clock(vm, &clock);
    if (r < 0 || host->tsc_fixed)
        return r < 0 ? r : TN_OK;
    *tsc_shift =
        from->host_tsc - tsc + gone / 1000000 * tsc_khz + gone % 1000000 * tsc_khz / 1000000;
    return TN_OK;
}

/* ---- a vCPU: save ---- */

TN_API int tn_kvm_x86_set_mce_banks(struct tn_kvm_vcpu *vcpu, uint32_t banks)
{
    uint64_t cap = banks;

    return tn_kvm_ioctl_(vcpu->fd, KVM_X86_SETUP_MCE, &cap);
}

/* The processor priority follows from the task priority and from what is in service; KVM sums it
 * up when it wants it, and until then the register may be an old one. SDM vol. 3A 11.8.3.1 */
static inline void tn_kvm_x86_fix_ppr_(struct kvm_lapic_state *v)
{
    uint8_t *reg = (uint8_t *)v->regs;
    uint32_t tpr = (uint32_t)tn_get_(reg + 0x80, 4) & 0xff, isrv = 255;

    while (isrv > 0 && !(tn_get_(reg + 0x100 + isrv / 32 * 16, 4) >> isrv % 32 & 1))
        isrv--;
    tn_put_(reg + 0xa0, 4, (tpr & 0xf0) >= (isrv & 0xf0) ? tpr : isrv & 0xf0);
}

static inline int tn_kvm_x86_save_sregs_(const struct tn_kvm_x86_host *host,
                                         const struct tn_kvm_vcpu *vcpu, struct kvm_sregs2 *out)
{
    struct kvm_sregs v;
    int r;

    if (host->sregs2)
        return tn_kvm_x86_get_sregs2(vcpu, out);
    r = tn_kvm_x86_get_sregs(vcpu, &v);
    memcpy(out, &v, offsetof(struct kvm_sregs, interrupt_bitmap)); /* as far as they are alike */
    return r;
}

static inline int tn_kvm_x86_save_msrs_(const struct tn_kvm_x86_host *host,
                                        const struct tn_kvm_vcpu *vcpu,
                                        struct tn_kvm_x86_vcpu_state *out)
{
    struct kvm_msr_entry *old = NULL;
    bool again = false;
    int r;

    out->msr_count = host->msr_count;
    for (uint32_t i = 0; i < host->msr_count; i++)
        out->msr[i].index = host->msr[i].index;
    r = tn_kvm_x86_msr_sift_(vcpu->fd, false, out->msr, &out->msr_count);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < out->msr_count; i++) {
        if (out->msr[i].index == TN_KVM_X86_MSR_OLD_KVMCLOCK)
            old = &out->msr[i];
        again = again || out->msr[i].index == TN_KVM_X86_MSR_KVMCLOCK;
    }
    if (old && again) { /* setting it twice would be twice the work */
        out->msr_count--;
        memmove(old, old + 1, (size_t)(&out->msr[out->msr_count] - old) * sizeof(*old));
    }
    memset(&out->msr[out->msr_count], 0,
           (TN_KVM_X86_STATE_MSRS - out->msr_count) * sizeof(out->msr[0]));
    return TN_OK;
}

/* What a lazy restore has left in the run page is newer than what KVM has. */
static inline void tn_kvm_x86_save_lazy_(const struct tn_kvm_vcpu *vcpu,
                                         struct tn_kvm_x86_vcpu_state *out)
{
    const struct kvm_run *run = vcpu->run;

    if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS)
        out->regs = run->s.regs.regs;
    if (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS)
        memcpy(&out->sregs, &run->s.regs.sregs, offsetof(struct kvm_sregs, interrupt_bitmap));
    if (run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS)
        out->events = run->s.regs.events;
}

TN_API int tn_kvm_x86_vcpu_save(const struct tn_kvm_x86_host *host, const struct tn_kvm_vcpu *vcpu,
                                struct tn_kvm_x86_vcpu_state *out)
{
    uint8_t *xsave = out->xsave;
    size_t cap = out->xsave_cap;
    int r;

    memset(out, 0, sizeof(*out));
    out->xsave = xsave;
    out->xsave_cap = cap;
    if (cap < host->xsave_size)
        return TN_ENOSPC;
    memset(xsave, 0, cap);
    /* These two first: KVM acts on a pending INIT or start-up IPI, and puts a pending exception's
     * payload where it belongs, before it answers. */
    r = tn_kvm_get_mp_state(vcpu, &out->mp_state);
    if (r >= 0)
        r = tn_kvm_x86_get_events(vcpu, &out->events);
    if (r >= 0)
        r = tn_kvm_x86_get_regs(vcpu, &out->regs);
    if (r >= 0)
        r = tn_kvm_x86_save_sregs_(host, vcpu, &out->sregs);
    if (r >= 0)
        r = tn_kvm_x86_get_xcrs(vcpu, &out->xcrs);
    if (r >= 0)
        r = tn_kvm_x86_get_debugregs(vcpu, &out->debugregs);
    /* The deadline before the APIC: where a timer's interrupt is posted at once, one that fires in
     * between is then in both, and not in neither. */
    if (r >= 0)
        r = tn_kvm_x86_save_msrs_(host, vcpu, out);
    if (r >= 0)
        r = tn_kvm_x86_get_lapic(vcpu, &out->lapic);
    if (r >= 0)
        r = tn_kvm_ioctl_(
            vcpu->fd, host->xsave_size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE,
            xsave);
    if (r >= 0)
        r = tn_kvm_x86_get_tsc_khz(vcpu);
    out->tsc_khz = r < 0 ? 0 : (uint32_t)r;
    if (r >= 0)
        r = tn_kvm_x86_get_offset_(host, vcpu, out->tsc_khz, &out->tsc_offset);
    if (r >= 0)
        r = tn_kvm_x86_cpuid_of_(vcpu, &out->cpuid);
    if (r < 0) {
        memset(out, 0, sizeof(*out));
        memset(xsave, 0, cap);
        out->xsave = xsave;
        out->xsave_cap = cap;
        return r;
    }
    out->xsave_len = host->xsave_size;
    tn_kvm_x86_fix_ppr_(&out->lapic);
    tn_kvm_x86_save_lazy_(vcpu, out);
    return TN_OK;
}

/* ---- a vCPU: restore ---- */

/* A restore under way. */
struct tn_kvm_x86_restore_ {
    const struct tn_kvm_x86_host *host;
    struct tn_kvm_vcpu *vcpu;
    const struct tn_kvm_x86_vcpu_state *from;
    bool fresh; /* the vCPU is new */
    bool lazy;  /* the run page has what waits */
    struct tn_kvm_x86_refused refused;
    int r;
};

/* The end of a step; false: it failed. */
static inline bool tn_kvm_x86_step_(struct tn_kvm_x86_restore_ *to, enum tn_kvm_x86_part part,
                                    int r)
{
    to->r = r < 0 ? r : TN_OK;
    if (r < 0)
        to->refused.part = part;
    return r >= 0;
}

/* What no save writes, and KVM would not refuse. */
static inline int tn_kvm_x86_restore_ok_(const struct tn_kvm_x86_vcpu_state *s)
{
    if (s->msr_count > TN_KVM_X86_STATE_MSRS || s->xsave_len > s->xsave_cap ||
        s->xsave_len < TN_KVM_X86_XSAVE_HEADER || s->mp_state > KVM_MP_STATE_HALTED)
        return TN_EFORMAT;
    return TN_OK;
}

/* kvm_sregs of kvm_sregs2. */
static inline void tn_kvm_x86_sregs_(struct kvm_sregs *to, const struct kvm_sregs2 *from)
{
    memset(to, 0, sizeof(*to));
    memcpy(to, from, offsetof(struct kvm_sregs, interrupt_bitmap));
}

static inline int tn_kvm_x86_restore_sregs_(struct tn_kvm_x86_restore_ *to)
{
    const struct kvm_sregs2 *s = &to->from->sregs;
    uint64_t reset = 0xfee00800u | (to->vcpu->id == 0 ? 0x100u : 0); /* IA32_APIC_BASE */
    struct kvm_sregs v;

    /* What can't wait: the APIC's mode must be right before its registers are, and CR8 must not
     * come after a task priority of which it is the upper half only. */
    if (to->lazy && to->fresh && s->apic_base == reset && s->flags == 0 &&
        (to->from->lapic.regs[0x80] & 0xf) == 0) {
        tn_kvm_x86_sregs_(&to->vcpu->run->s.regs.sregs, s);
        to->vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
        return TN_OK;
    }
    if (to->host->sregs2)
        return tn_kvm_x86_set_sregs2(to->vcpu, s);
    tn_kvm_x86_sregs_(&v, s);
    return tn_kvm_x86_set_sregs(to->vcpu, &v);
}

static inline int tn_kvm_x86_restore_regs_(struct tn_kvm_x86_restore_ *to)
{
    if (!to->lazy)
        return tn_kvm_x86_set_regs(to->vcpu, &to->from->regs);
    to->vcpu->run->s.regs.regs = to->from->regs;
    to->vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
    return TN_OK;
}

static inline int tn_kvm_x86_restore_xcrs_(struct tn_kvm_x86_restore_ *to)
{
    const struct kvm_xcrs *x = &to->from->xcrs;

    if (x->nr_xcrs == 0) /* a CPU without XSAVE has none, and none to set */
        return TN_OK;
    if (to->fresh && x->nr_xcrs == 1 && x->flags == 0 && x->xcrs[0].xcr == 0 &&
        x->xcrs[0].value == 1)
        return TN_OK;
    return tn_kvm_x86_set_xcrs(to->vcpu, x);
}

/* KVM reads as much as its own area is long. A longer one of another host has nothing in what is
 * left out, or KVM refuses it, as its header tells. */
static inline int tn_kvm_x86_restore_xsave_(struct tn_kvm_x86_restore_ *to)
{
    const struct tn_kvm_x86_vcpu_state *s = to->from;
    uint8_t padded[TN_KVM_X86_XSAVE_PAD];

    if (s->xsave_len >= to->host->xsave_size)
        return tn_kvm_ioctl_(to->vcpu->fd, KVM_SET_XSAVE, s->xsave);
    if (to->host->xsave_size > sizeof(padded))
        return TN_EUNSUP;
    memcpy(padded, s->xsave, s->xsave_len);
    memset(padded + s->xsave_len, 0, to->host->xsave_size - s->xsave_len);
    return tn_kvm_ioctl_(to->vcpu->fd, KVM_SET_XSAVE, padded);
}

static inline int tn_kvm_x86_restore_debugregs_(struct tn_kvm_x86_restore_ *to)
{
    const struct kvm_debugregs *d = &to->from->debugregs;

    if (to->fresh && (d->db[0] | d->db[1] | d->db[2] | d->db[3] | d->flags) == 0 &&
        d->dr6 == 0xffff0ff0 && d->dr7 == 0x400)
        return TN_OK;
    return tn_kvm_x86_set_debugregs(to->vcpu, d);
}

static inline void tn_kvm_x86_msr_put_(struct tn_kvm_x86_msr_call_ *v, uint32_t index,
                                       uint64_t data)
{
    memset(&v->entries[v->nmsrs], 0, sizeof(v->entries[0]));
    v->entries[v->nmsrs].index = index;
    v->entries[v->nmsrs++].data = data;
}

/* Sets what v has, and empties it. */
static inline int tn_kvm_x86_msr_flush_(struct tn_kvm_x86_restore_ *to,
                                        struct tn_kvm_x86_msr_call_ *v)
{
    uint32_t n = v->nmsrs;
    int r = n ? tn_kvm_ioctl_(to->vcpu->fd, KVM_SET_MSRS, v) : 0;

    v->nmsrs = 0;
    if (r < 0 || (uint32_t)r >= n)
        return r;
    to->refused.msr = v->entries[r].index;
    to->refused.data = v->entries[r].data;
    errno = EINVAL;
    return TN_ESYS;
}

/* Whether an MSR need not be set: a new vCPU has this value, or no vCPU of this host another. */
static inline bool tn_kvm_x86_msr_skip_(const struct tn_kvm_x86_restore_ *to,
                                        const struct kvm_msr_entry *e, uint32_t *hint)
{
    uint32_t at = tn_kvm_x86_msr_find_(to->host, e->index, hint);

    if (at == to->host->msr_count)
        return e->data == 0;
    /* The banks of machine checks are as they were made. */
    return to->fresh && e->data == to->host->msr[at].data && !tn_kvm_x86_msr_bank_(e->index);
}

static inline int tn_kvm_x86_restore_msrs_(struct tn_kvm_x86_restore_ *to)
{
    const struct tn_kvm_x86_vcpu_state *s = to->from;
    struct tn_kvm_x86_msr_call_ v;
    uint32_t hint = 0;
    int r = TN_OK;

    v.nmsrs = v.pad = 0;
    for (uint32_t i = 0; r >= 0 && i < s->msr_count; i++) {
        const struct kvm_msr_entry *e = &s->msr[i];

        if (v.nmsrs + 3 > TN_KVM_X86_MSR_CALL)
            r = tn_kvm_x86_msr_flush_(to, &v);
        if (r < 0 || e->index == TN_KVM_X86_MSR_TSC || tn_kvm_x86_msr_skip_(to, e, &hint))
            continue;
        /* Off, and whatever is under way forgotten; then, with the last acknowledged, on. */
        if (e->index == TN_KVM_X86_MSR_ASYNC_PF_EN && !to->fresh && e->data)
            tn_kvm_x86_msr_put_(&v, e->index, 0);
        tn_kvm_x86_msr_put_(&v, e->index, e->data);
        if (e->index == TN_KVM_X86_MSR_ASYNC_PF_INT && !to->fresh)
            tn_kvm_x86_msr_put_(&v, TN_KVM_X86_MSR_ASYNC_PF_ACK, 1);
    }
    return r < 0 ? r : tn_kvm_x86_msr_flush_(to, &v);
}

static inline bool tn_kvm_x86_no_events_(const struct kvm_vcpu_events *v)
{
    struct kvm_vcpu_events copy = *v, none;

    memset(&none, 0, sizeof(none));
    copy.flags = 0;
    return memcmp(&copy, &none, sizeof(none)) == 0;
}

static inline int tn_kvm_x86_restore_events_(struct tn_kvm_x86_restore_ *to)
{
    const struct kvm_vcpu_events *v = &to->from->events;

    if (to->fresh && tn_kvm_x86_no_events_(v))
        return TN_OK;
    if (!to->lazy)
        return tn_kvm_x86_set_events(to->vcpu, v);
    to->vcpu->run->s.regs.events = *v;
    to->vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
    return TN_OK;
}

static inline int tn_kvm_x86_restore_mp_state_(struct tn_kvm_x86_restore_ *to)
{
    uint32_t reset = to->vcpu->id == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;

    if (to->fresh && to->from->mp_state == reset)
        return TN_OK;
    return tn_kvm_set_mp_state(to->vcpu, to->from->mp_state);
}

/* One that waits for a start-up IPI must not find an older one: reading mp_state consumes it. */
static inline int tn_kvm_x86_forget_sipi_(struct tn_kvm_x86_restore_ *to)
{
    uint32_t state;

    if (to->fresh || to->from->mp_state != KVM_MP_STATE_INIT_RECEIVED)
        return TN_OK;
    return tn_kvm_get_mp_state(to->vcpu, &state);
}

/*
 * The order: the APIC's base (in sregs) before the APIC; the APIC and the TSC before the MSRs, of
 * which the deadline is one; events after the registers, whose setting drops pending exceptions;
 * mp_state last, since events may have made the vCPU latch an INIT.
 */
/* The deadline alone, which is among the last. */
static inline int tn_kvm_x86_restore_deadline_(struct tn_kvm_x86_restore_ *to)
{
    const struct tn_kvm_x86_vcpu_state *s = to->from;
    struct tn_kvm_x86_msr_call_ v;

    v.nmsrs = v.pad = 0;
    for (uint32_t i = s->msr_count; i > 0 && v.nmsrs == 0; i--) {
        if (s->msr[i - 1].index == TN_KVM_X86_MSR_DEADLINE && s->msr[i - 1].data)
            tn_kvm_x86_msr_put_(&v, s->msr[i - 1].index, s->msr[i - 1].data);
    }
    return tn_kvm_x86_msr_flush_(to, &v);
}

/*
 * When the timer's mode changes from or to that of deadlines, KVM forgets the initial count that
 * came with the mode: a vCPU that had another one needs it again.
 */
static inline int tn_kvm_x86_restore_lapic_(const struct tn_kvm_x86_restore_ *to)
{
    const struct kvm_lapic_state *lapic = &to->from->lapic;
    bool counts = tn_get_((const uint8_t *)lapic->regs + 0x380, 4) != 0;
    int r = to->fresh || !counts ? TN_OK : tn_kvm_x86_set_lapic(to->vcpu, lapic);

    return r < 0 ? r : tn_kvm_x86_set_lapic(to->vcpu, lapic);
}

/* What time changes, of a vCPU that has the rest. */
static inline void tn_kvm_x86_restore_timed_(struct tn_kvm_x86_restore_ *to, uint64_t tsc_shift)
{
    const struct tn_kvm_x86_vcpu_state *from = to->from;

    if (tn_kvm_x86_step_(to, TN_KVM_X86_PART_STATE, tn_kvm_x86_restore_ok_(from)) &&
        tn_kvm_x86_step_(to, TN_KVM_X86_PART_LAPIC, tn_kvm_x86_set_lapic(to->vcpu, &from->lapic)) &&
        tn_kvm_x86_step_(to, TN_KVM_X86_PART_TSC,
                         tn_kvm_x86_set_offset_(to->host, to->vcpu, from->tsc_khz,
                                                from->tsc_offset + tsc_shift)))
        (void)tn_kvm_x86_step_(to, TN_KVM_X86_PART_MSRS, tn_kvm_x86_restore_deadline_(to));
}

TN_API int tn_kvm_x86_vcpu_restore(const struct tn_kvm_x86_host *host, struct tn_kvm_vcpu *vcpu,
                                   const struct tn_kvm_x86_vcpu_state *from, uint64_t tsc_shift,
                                   uint32_t flags, struct tn_kvm_x86_refused *refused)
{
    struct tn_kvm_x86_restore_ to;

    memset(&to, 0, sizeof(to));
    to.host = host;
    to.vcpu = vcpu;
    to.from = from;
    to.fresh = (flags & TN_KVM_X86_FRESH) != 0;
    /* A vCPU that waits for its start-up IPI would get the registers after it. */
    to.lazy = (flags & TN_KVM_X86_LAZY) != 0 && host->sync_regs &&
              (from->mp_state == KVM_MP_STATE_RUNNABLE || from->mp_state == KVM_MP_STATE_HALTED);
    vcpu->run->kvm_dirty_regs = 0;
    if (flags & ~(uint32_t)(TN_KVM_X86_FRESH | TN_KVM_X86_LAZY | TN_KVM_X86_TIMED))
        to.r = TN_EINVAL;
    else if (flags & TN_KVM_X86_TIMED)
        tn_kvm_x86_restore_timed_(&to, tsc_shift);
    else if (tn_kvm_x86_step_(&to, TN_KVM_X86_PART_STATE, tn_kvm_x86_restore_ok_(from)) &&
             tn_kvm_x86_step_(&to, TN_KVM_X86_PART_MP_STATE, tn_kvm_x86_forget_sipi_(&to)) &&
             tn_kvm_x86_step_(&to, TN_KVM_X86_PART_SREGS, tn_kvm_x86_restore_sregs_(&to)) &&
             tn_kvm_x86_step_(&to, TN_KVM_X86_PART_REGS, tn_kvm_x86_restore_regs_(&to)) &&
             tn_kvm_x86_step_(&to, TN_KVM_X86_PART_XCRS, tn_kvm_x86_restore_xcrs_(&to)) &&
             tn_kvm_x86_step_(&to, TN_KVM_X86_PART_XSAVE, tn_kvm_x86_restore_xsave_(&to)) &&
             tn_kvm_x86_step_(&to, TN_KVM_X86_PART_LAPIC, tn_kvm_x86_restore_lapic_(&to)) &&
             tn_kvm_x86_step_(&to, TN_KVM_X86_PART_DEBUGREGS, tn_kvm_x86_restore_debugregs_(&to)) &&
             tn_kvm_x86_step_(
                 &to, TN_KVM_X86_PART_TSC,
                 tn_kvm_x86_set_offset_(host, vcpu, from->tsc_khz, from->tsc_offset + tsc_shift)) &&
             tn_kvm_x86_step_(&to, TN_KVM_X86_PART_MSRS, tn_kvm_x86_restore_msrs_(&to)) &&
             tn_kvm_x86_step_(&to, TN_KVM_X86_PART_EVENTS, tn_kvm_x86_restore_events_(&to)))
        (void)tn_kvm_x86_step_(&to, TN_KVM_X86_PART_MP_STATE, tn_kvm_x86_restore_mp_state_(&to));
    if (to.r < 0)
        vcpu->run->kvm_dirty_regs = 0;
    if (refused)
        *refused = to.refused;
    return to.r;
}

TN_API int tn_kvm_x86_vcpu_drop(struct tn_kvm_vcpu *vcpu)
{
    struct tn_kvm_exit e;

    vcpu->run->kvm_dirty_regs = 0;
    tn_kvm_interrupt(vcpu);
    for (unsigned tries = 0; tries < 64; tries++) { /* an access may have several parts */
        int r = tn_kvm_run(vcpu, &e);

        if (r < 0 || e.kind == TN_KVM_EXIT_INTERRUPTED)
            return r;
    }
    return TN_EBUG;
}

TN_API int tn_kvm_x86_vcpu_was_paused(struct tn_kvm_vcpu *vcpu)
{
    int r = tn_kvm_ioctl_n_(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);

    return r < 0 && errno == EINVAL ? TN_OK : r;
}

/* ---- the chips ---- */

TN_API int tn_kvm_x86_vm_save(const struct tn_kvm_vm *vm, struct tn_kvm_x86_vm_state *out)
{
    int r = TN_OK;

    memset(out, 0, sizeof(*out));
    for (uint32_t i = 0; r >= 0 && i < 3; i++) {
        out->chip[i].chip_id = i;
        r = tn_kvm_x86_get_irqchip(vm, &out->chip[i]);
    }
    if (r >= 0)
        r = tn_kvm_x86_get_pit2(vm, &out->pit);
    for (uint32_t i = 0; i < 3; i++)
        out->pit.channels[i].count_load_time = 0;
    if (r < 0)
        memset(out, 0, sizeof(*out));
    return r;
}

TN_API int tn_kvm_x86_vm_restore(struct tn_kvm_vm *vm, const struct tn_kvm_x86_vm_state *from)
{
    int r = TN_OK;

    for (uint32_t i = 0; r >= 0 && i < 3; i++)
        r = from->chip[i].chip_id == i ? tn_kvm_x86_set_irqchip(vm, &from->chip[i]) : TN_EFORMAT;
    return r < 0 ? r : tn_kvm_x86_set_pit2(vm, &from->pit);
}

TN_API int tn_kvm_x86_vm_still(struct tn_kvm_vm *vm)
{
    struct kvm_pit_state2 v;

    memset(&v, 0, sizeof(v));
    v.channels[0].mode = 0xff; /* not programmed, as KVM has it after a reset */
    return tn_kvm_x86_set_pit2(vm, &v);
}

/* ---- what a host lacks ---- */

/* Of one entry of the saved CPUID; true: lack is filled. */
static inline bool tn_kvm_x86_lacks_leaf_(const struct tn_kvm_x86_host *host,
                                          const struct kvm_cpuid_entry2 *e,
                                          struct tn_kvm_x86_lack *lack)
{
    lack->function = e->function;
    lack->index = e->index;
    for (size_t i = 0; i < TN_KVM_X86_FEATURES_; i++) {
        if (!tn_kvm_x86_is_leaf_(e, tn_kvm_x86_features_[i].function,
                                 tn_kvm_x86_features_[i].index))
            continue;
        lack->kind = TN_KVM_X86_LACK_FEATURE;
        lack->reg = tn_kvm_x86_features_[i].reg;
        lack->have = tn_kvm_x86_host_reg_(host, tn_kvm_x86_features_[i].function,
                                          tn_kvm_x86_features_[i].index, lack->reg);
        lack->want = tn_kvm_x86_reg_of_(e, lack->reg) & ~lack->have &
                     ~(uint64_t)tn_kvm_x86_features_[i].ignored;
        if (lack->want)
            return true;
    }
    for (size_t i = 0; i < TN_KVM_X86_LIMITS_; i++) {
        if (e->function != tn_kvm_x86_limits_[i].function)
            continue;
        lack->kind = TN_KVM_X86_LACK_LIMIT;
        lack->reg = tn_kvm_x86_limits_[i].reg;
        lack->want = tn_kvm_x86_reg_of_(e, lack->reg) >> tn_kvm_x86_limits_[i].shift & 0xff;
        lack->have =
            tn_kvm_x86_host_reg_(host, e->function, 0, lack->reg) >> tn_kvm_x86_limits_[i].shift &
            0xff;
        if (lack->want > lack->have)
            return true;
    }
    return false;
}

static inline bool tn_kvm_x86_lacks_vendor_(const struct tn_kvm_x86_host *host,
                                            const struct tn_kvm_x86_vcpu_state *s,
                                            struct tn_kvm_x86_lack *lack)
{
    const struct kvm_cpuid_entry2 *e = tn_kvm_x86_leaf_(&s->cpuid, 0, 0);
    const struct kvm_cpuid_entry2 *h = tn_kvm_x86_leaf_(&host->cpuid, 0, 0);

    lack->kind = TN_KVM_X86_LACK_VENDOR;
    lack->reg = TN_KVM_X86_EBX;
    lack->want = e ? e->ebx : 0;
    lack->have = h ? h->ebx : 0;
    return e && h && (e->ebx != h->ebx || e->ecx != h->ecx || e->edx != h->edx);
}

/* Extended state that is in the area, and that this host has not, or elsewhere. SDM vol. 1 13.4 */
static inline bool tn_kvm_x86_lacks_xsave_(const struct tn_kvm_x86_host *host,
                                           const struct tn_kvm_x86_vcpu_state *s,
                                           struct tn_kvm_x86_lack *lack)
{
    uint64_t in = tn_get_(s->xsave + 512, 8); /* XSTATE_BV */
    uint64_t has = (uint64_t)tn_kvm_x86_host_reg_(host, 0xd, 0, TN_KVM_X86_EDX) << 32 |
                   tn_kvm_x86_host_reg_(host, 0xd, 0, TN_KVM_X86_EAX) | 3; /* x87 and SSE */

    lack->kind = TN_KVM_X86_LACK_XSAVE;
    lack->function = 0xd;
    for (uint32_t i = 0; i < 63; i++) {
        const struct kvm_cpuid_entry2 *e;
        uint64_t size, offset;

        if (!(in >> i & 1) || (i < 2 && (has >> i & 1)))
            continue;
        e = tn_kvm_x86_leaf_(&s->cpuid, 0xd, i);
        lack->index = i;
        lack->want = e ? e->ebx : 0;
        size = tn_kvm_x86_host_reg_(host, 0xd, i, TN_KVM_X86_EAX);
        lack->have = offset = tn_kvm_x86_host_reg_(host, 0xd, i, TN_KVM_X86_EBX);
        if (!(has >> i & 1) || !e || e->ebx != offset || e->eax != size || offset > s->xsave_len ||
            size > s->xsave_len - offset)
            return true;
    }
    return false;
}

TN_API int tn_kvm_x86_state_check(const struct tn_kvm_x86_host *host,
                                  const struct tn_kvm_x86_vcpu_state *s,
                                  struct tn_kvm_x86_lack *lack)
{
    uint32_t hint = 0;

    memset(lack, 0, sizeof(*lack));
    if (tn_kvm_x86_restore_ok_(s) < 0 || s->cpuid.nent > TN_KVM_MAX_CPUID)
        return TN_EFORMAT;
    if (tn_kvm_x86_lacks_vendor_(host, s, lack))
        return TN_EUNSUP;
    memset(lack, 0, sizeof(*lack));
    for (uint32_t i = 0; i < s->cpuid.nent; i++) {
        if (tn_kvm_x86_lacks_leaf_(host, &s->cpuid.entries[i], lack))
            return TN_EUNSUP;
    }
    memset(lack, 0, sizeof(*lack));
    if (tn_kvm_x86_lacks_xsave_(host, s, lack))
        return TN_EUNSUP;
    for (uint32_t i = 0; i < s->msr_count; i++) {
        if (s->msr[i].data == 0 || s->msr[i].index == TN_KVM_X86_MSR_TSC ||
            tn_kvm_x86_msr_find_(host, s->msr[i].index, &hint) < host->msr_count)
            continue;
        memset(lack, 0, sizeof(*lack));
        lack->kind = TN_KVM_X86_LACK_MSR;
        lack->msr = s->msr[i].index;
        lack->want = s->msr[i].data;
        return TN_EUNSUP;
    }
    memset(lack, 0, sizeof(*lack));
    if (!tn_kvm_x86_tsc_differs(host, s->tsc_khz) || host->tsc_control)
        return TN_OK;
    lack->kind = TN_KVM_X86_LACK_TSC;
    lack->want = s->tsc_khz;
    lack->have = host->tsc_khz;
    return TN_EUNSUP;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* __x86_64__ */
#endif
