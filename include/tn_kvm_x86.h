/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_kvm_x86 - what KVM has on x86-64 only: interrupt chips, CPUID, MSRs, a vCPU's whole state.
 *
 * WHAT
 *   Makes the kernel's interrupt chips, all of them or the local APICs only; turns the CPUID that
 *   KVM supports into that of vCPU i of n, by a table of bits and by the topology; gives the first
 *   vCPU the state that a kernel is entered with; and gets and sets every piece of a vCPU's and a
 *   VM's state, for snapshots.
 *
 * USAGE
 *   struct tn_kvm kvm;
 *   struct tn_kvm_vm vm;
 *   struct tn_kvm_vcpu vcpu;
 *   struct tn_kvm_cpuid cpuid;
 *   struct tn_boot_x86_cpu boot = {0}; // tn_boot_x86_load fills it
 *   uint32_t refused;
 *
 *   if (tn_kvm_open(&kvm, NULL) < 0 || tn_kvm_vm_init(&kvm, &vm) < 0)
 *       return 1;
 *   // the memory slots are set here
 *   if (tn_kvm_x86_irqchip_full(&vm) < 0 || tn_kvm_vcpu_init(&kvm, &vm, &vcpu, 0) < 0)
 *       return 2;
 *   if (tn_kvm_x86_cpuid(&kvm, &cpuid, 0, 1) < 0 || tn_kvm_x86_set_cpuid(&vcpu, &cpuid) < 0 ||
 *       tn_kvm_x86_set_boot_msrs(&vcpu, &refused) < 0 || tn_kvm_x86_set_lint(&vcpu) < 0 ||
 *       tn_kvm_x86_set_boot(&vcpu, &boot) < 0)
 *       return 3;
 *
 * COMPOSITION
 *   On tn_kvm; struct tn_boot_x86_cpu is tn_boot_x86's. The same CPUs are described to the guest by
 *   tn_acpi or tn_mptable: local APIC i is vCPU i. Order: slots, irqchip, vCPUs, for each vCPU
 *   CPUID first; a restore sets sregs, then xcrs before xsave, MSRs after the local APIC, events
 *   and mp_state last.
 *
 * GUEST TRUST
 *   State that is set may come from a snapshot of a hostile guest: KVM checks it, and what it does
 *   not like is TN_ESYS with EINVAL, or an MSR that is not counted. It harms the guest only.
 *
 * MEMORY
 *   The caller owns every struct and buffer. About 5 KiB of stack.
 *
 * THREADS
 *   A vCPU's functions belong to the thread that runs it, while it does not run. Those of a VM may
 *   be called by any.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Linux, Documentation/virt/kvm/api.rst, section 4, by the ioctls' names: tn_kvm_x86_get_regs
 *   is KVM_GET_REGS and so on; devices/vcpu.rst section 4 (the TSC's offset).
 *   Intel SDM vol. 2A CPUID (leaves 1, 4, 0bh, 1fh), vol. 3A 11.5.1 (local vector table) and
 *   vol. 4 (MSRs). AMD APM vol. 3 E.4 (leaves 8000_0001h, _0008h, _001dh, _001eh).
 *
 * LIMITS
 *   255 vCPUs of one thread each, in one socket. No performance counters, no SGX, no nested
 *   virtualization, no Xen or Hyper-V interfaces.
 */
#ifndef TN_KVM_X86_H
#define TN_KVM_X86_H

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

#include "tn_boot_x86.h"
#include "tn_kvm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/*
 * Returns, unless said otherwise: 0, or TN_ESYS with KVM's errno (EBADF on what is closed, EINVAL
 * for a value that is refused).
 */

#define TN_KVM_X86_IDENTITY_MAP 0xfffbc000ull /* a page that Intel's VMX may need for real mode */
#define TN_KVM_X86_TSS          0xfffbd000ull /* three more, for the same; no slot may lie here */
#define TN_KVM_X86_IOAPIC_PINS  24u
#define TN_KVM_X86_MAX_CPUS     255u
#define TN_KVM_X86_MAX_MSRS     1024u /* that a vCPU's state may be made of */

/* ---- interrupt chips: before any vCPU, after the memory slots ---- */

/*
 * All chips in the kernel: local APICs, two PICs, an I/O APIC, and the PIT (with a dummy behind
 * port 0x61). KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2
 */
TN_API int tn_kvm_x86_irqchip_full(struct tn_kvm_vm *vm);

/*
 * Only the local APICs are in the kernel; the caller models the I/O APIC of pins inputs, whose
 * end-of-interrupt messages arrive as TN_KVM_EXIT_IOAPIC_EOI, with PICs and PIT as it likes.
 * KVM_CAP_SPLIT_IRQCHIP
 */
TN_API int tn_kvm_x86_irqchip_split(struct tn_kvm_vm *vm, uint32_t pins);

/*
 * The wiring that the full chips start with, to add to: gsi 0 to 15 to both the PICs and the I/O
 * APIC, 16 to 23 to the I/O APIC only. Returns 0, or TN_ENOSPC.
 */
TN_API int tn_kvm_x86_routes(struct tn_kvm_routes *r);

/* ---- CPUID ---- */

/* One row of a fix-up: (value & ~clear) | set, in one register of a leaf. */
enum tn_kvm_x86_reg { TN_KVM_X86_EAX = 0, TN_KVM_X86_EBX, TN_KVM_X86_ECX, TN_KVM_X86_EDX };
#define TN_KVM_X86_ANY_INDEX 0xffffffffu

struct tn_kvm_x86_fix {
    uint32_t function;
    uint32_t index; /* or TN_KVM_X86_ANY_INDEX */
    uint32_t reg;   /* enum tn_kvm_x86_reg */
    uint32_t clear;
    uint32_t set;
};

/*
 * The CPUID of vCPU cpu (its local APIC's id) of cpus: what KVM supports, without what a guest
 * can't use, with the hypervisor bit, the TSC deadline timer where KVM has it, and the topology.
 * KVM's own leaves from 0x40000000 on stay. Returns 0; TN_EINVAL: cpu >= cpus, or cpus > 255;
 * TN_ENOSPC: KVM supports so many leaves that the topology does not fit. *out is empty then.
 */
TN_API int tn_kvm_x86_cpuid(const struct tn_kvm *k, struct tn_kvm_cpuid *out, uint32_t cpu,
                            uint32_t cpus);

/*
 * Applies n rows to the entries that match; a leaf that is not there is not made.
 */
TN_API void tn_kvm_x86_cpuid_fix(struct tn_kvm_cpuid *c, const struct tn_kvm_x86_fix *fix,
                                 uint32_t n);

/*
 * The entry of a leaf, or NULL; index counts only for leaves that have one.
 */
TN_API struct kvm_cpuid_entry2 *tn_kvm_x86_cpuid_find(struct tn_kvm_cpuid *c, uint32_t function,
                                                      uint32_t index);

/*
 * Of a vCPU that has not run yet. get fills c as the kernel has it.
 */
TN_API int tn_kvm_x86_get_cpuid(const struct tn_kvm_vcpu *vcpu, struct tn_kvm_cpuid *c);
TN_API int tn_kvm_x86_set_cpuid(struct tn_kvm_vcpu *vcpu, const struct tn_kvm_cpuid *c);

/* ---- the state of a CPU that is about to boot ---- */

/*
 * The registers of the first vCPU; those that cpu does not name are zero, or keep what a reset
 * gives them. The others wait for the guest's start-up IPI and get nothing.
 */
TN_API int tn_kvm_x86_set_boot(struct tn_kvm_vcpu *vcpu, const struct tn_boot_x86_cpu *cpu);

/*
 * The MSRs that firmware would have set, of every vCPU: fast string instructions, and memory that
 * is write-back where no MTRR says otherwise. No kernel dies without: one that KVM does not let us
 * set is counted in *refused (may be NULL).
 */
TN_API int tn_kvm_x86_set_boot_msrs(struct tn_kvm_vcpu *vcpu, uint32_t *refused);

/*
 * The local APIC's inputs as firmware leaves them on the first vCPU: LINT0 takes the PICs'
 * interrupts, LINT1 is the NMI.
 */
TN_API int tn_kvm_x86_set_lint(struct tn_kvm_vcpu *vcpu);

/* ---- a vCPU's state ---- */

TN_API int tn_kvm_x86_get_regs(const struct tn_kvm_vcpu *vcpu, struct kvm_regs *v);
TN_API int tn_kvm_x86_set_regs(struct tn_kvm_vcpu *vcpu, const struct kvm_regs *v);
TN_API int tn_kvm_x86_get_sregs(const struct tn_kvm_vcpu *vcpu, struct kvm_sregs *v);
TN_API int tn_kvm_x86_set_sregs(struct tn_kvm_vcpu *vcpu, const struct kvm_sregs *v);
TN_API int tn_kvm_x86_get_fpu(const struct tn_kvm_vcpu *vcpu, struct kvm_fpu *v);
TN_API int tn_kvm_x86_set_fpu(struct tn_kvm_vcpu *vcpu, const struct kvm_fpu *v);
TN_API int tn_kvm_x86_get_xcrs(const struct tn_kvm_vcpu *vcpu, struct kvm_xcrs *v);
TN_API int tn_kvm_x86_set_xcrs(struct tn_kvm_vcpu *vcpu, const struct kvm_xcrs *v);
TN_API int tn_kvm_x86_get_lapic(const struct tn_kvm_vcpu *vcpu, struct kvm_lapic_state *v);
TN_API int tn_kvm_x86_set_lapic(struct tn_kvm_vcpu *vcpu, const struct kvm_lapic_state *v);
TN_API int tn_kvm_x86_get_events(const struct tn_kvm_vcpu *vcpu, struct kvm_vcpu_events *v);
TN_API int tn_kvm_x86_set_events(struct tn_kvm_vcpu *vcpu, const struct kvm_vcpu_events *v);
TN_API int tn_kvm_x86_get_debugregs(const struct tn_kvm_vcpu *vcpu, struct kvm_debugregs *v);
TN_API int tn_kvm_x86_set_debugregs(struct tn_kvm_vcpu *vcpu, const struct kvm_debugregs *v);

/*
 * With the PDPTEs of a 32-bit guest with PAE; where KVM_CAP_SREGS2 is.
 */
TN_API int tn_kvm_x86_get_sregs2(const struct tn_kvm_vcpu *vcpu, struct kvm_sregs2 *v);
TN_API int tn_kvm_x86_set_sregs2(struct tn_kvm_vcpu *vcpu, const struct kvm_sregs2 *v);

/*
 * The FPU with all extended state: tn_kvm_x86_xsave_size(vm) bytes, 4096 or more. get and set:
 * TN_EINVAL when size is less than that. KVM_GET_XSAVE2, KVM_SET_XSAVE
 */
TN_API int tn_kvm_x86_xsave_size(const struct tn_kvm_vm *vm);
TN_API int tn_kvm_x86_get_xsave(const struct tn_kvm_vm *vm, const struct tn_kvm_vcpu *vcpu, void *v,
                                size_t size);
TN_API int tn_kvm_x86_set_xsave(const struct tn_kvm_vm *vm, struct tn_kvm_vcpu *vcpu, const void *v,
                                size_t size);

/*
 * The MSRs that make up a vCPU's state: fills list, returns how many, or TN_ENOSPC: more than cap
 * or TN_KVM_X86_MAX_MSRS. KVM_GET_MSR_INDEX_LIST
 */
TN_API int tn_kvm_x86_msr_list(const struct tn_kvm *k, uint32_t *list, uint32_t cap);

/*
 * Gets or sets n MSRs by their index, in order, any number of them. Returns how many were done;
 * less than n: msrs[result] was refused, and those after it were not tried.
 */
TN_API int tn_kvm_x86_get_msrs(const struct tn_kvm_vcpu *vcpu, struct kvm_msr_entry *msrs,
                               uint32_t n);
TN_API int tn_kvm_x86_set_msrs(struct tn_kvm_vcpu *vcpu, const struct kvm_msr_entry *msrs,
                               uint32_t n);

/*
 * The frequency of the vCPU's time-stamp counter, kHz; get returns it. Its offset from the host's
 * counter, where KVM has that attribute.
 */
TN_API int tn_kvm_x86_get_tsc_khz(const struct tn_kvm_vcpu *vcpu);
TN_API int tn_kvm_x86_set_tsc_khz(struct tn_kvm_vcpu *vcpu, uint32_t khz);
TN_API int tn_kvm_x86_get_tsc_offset(const struct tn_kvm_vcpu *vcpu, uint64_t *offset);
TN_API int tn_kvm_x86_set_tsc_offset(struct tn_kvm_vcpu *vcpu, uint64_t offset);

/*
 * Without chips in the kernel: injects an external interrupt, when
 * vcpu->run->ready_for_interrupt_injection; set run->request_interrupt_window for
 * TN_KVM_EXIT_IRQ_WINDOW. With the split chips: an interrupt of the PICs. KVM_INTERRUPT, KVM_NMI
 */
TN_API int tn_kvm_x86_inject(struct tn_kvm_vcpu *vcpu, uint32_t vector);
TN_API int tn_kvm_x86_nmi(struct tn_kvm_vcpu *vcpu);

/* ---- a VM's state ---- */

/*
 * The full chips: v->chip_id says which, KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE, _IOAPIC.
 */
TN_API int tn_kvm_x86_get_irqchip(const struct tn_kvm_vm *vm, struct kvm_irqchip *v);
TN_API int tn_kvm_x86_set_irqchip(struct tn_kvm_vm *vm, const struct kvm_irqchip *v);
TN_API int tn_kvm_x86_get_pit2(const struct tn_kvm_vm *vm, struct kvm_pit_state2 *v);
TN_API int tn_kvm_x86_set_pit2(struct tn_kvm_vm *vm, const struct kvm_pit_state2 *v);

/*
 * The clock that KVM's paravirtual clock shows; set with flags 0 unless KVM_CLOCK_REALTIME is to
 * add the time that went by.
 */
TN_API int tn_kvm_x86_get_clock(const struct tn_kvm_vm *vm, struct kvm_clock_data *v);
TN_API int tn_kvm_x86_set_clock(struct tn_kvm_vm *vm, const struct kvm_clock_data *v);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#include <errno.h>
#include <string.h>

#define TN_KVM_X86_MSR_BATCH 64u /* MSRs per system call: what fits on the stack */

/* What both arrangements of chips need first. KVM makes a slot of the TSS, so it comes before
 * the chips for the same reason as the guest's slots do. */
static inline int tn_kvm_x86_vmx_pages_(struct tn_kvm_vm *vm)
{
    uint64_t identity = TN_KVM_X86_IDENTITY_MAP;
    int r = tn_kvm_ioctl_(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);

    return r < 0 ? r : tn_kvm_ioctl_n_(vm->fd, KVM_SET_TSS_ADDR, TN_KVM_X86_TSS);
}

TN_API int tn_kvm_x86_irqchip_full(struct tn_kvm_vm *vm)
{
    struct kvm_pit_config pit;
    int r = tn_kvm_x86_vmx_pages_(vm);

    memset(&pit, 0, sizeof(pit));
    pit.flags = KVM_PIT_SPEAKER_DUMMY;
    if (r >= 0)
        r = tn_kvm_ioctl_n_(vm->fd, KVM_CREATE_IRQCHIP, 0);
    if (r >= 0)
        r = tn_kvm_ioctl_(vm->fd, KVM_CREATE_PIT2, &pit);
    return r;
}

TN_API int tn_kvm_x86_irqchip_split(struct tn_kvm_vm *vm, uint32_t pins)
{
    int r = tn_kvm_x86_vmx_pages_(vm);

    return r < 0 ? r : tn_kvm_enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, pins);
}

TN_API int tn_kvm_x86_routes(struct tn_kvm_routes *r)
{
    int err = TN_OK;

    r->nr = r->flags = 0;
    for (uint32_t gsi = 0; err >= 0 && gsi < TN_KVM_X86_IOAPIC_PINS; gsi++) {
        if (gsi < 16)
            err = tn_kvm_route_pin(r, gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
                                   gsi % 8);
        if (err >= 0)
            err = tn_kvm_route_pin(r, gsi, KVM_IRQCHIP_IOAPIC, gsi);
    }
    return err;
}

/* ---- CPUID ---- */

#define TN_KVM_X86_ALL 0xffffffffu

/* What no guest of ours can use, whatever KVM says: what takes more than KVM (SGX an enclave page
 * cache), and counters, whose state no snapshot has. */
static const struct tn_kvm_x86_fix tn_kvm_x86_fixes_[] = {
    /* leaf, index, register, clear, set */
    {0x1, 0, TN_KVM_X86_ECX, 0, 1u << 31},           /* there is a hypervisor */
    {0x1, 0, TN_KVM_X86_ECX, 1u << 3 | 1u << 5, 0},  /* MONITOR, VMX */
    {0x1, 0, TN_KVM_X86_ECX, 1u << 2 | 1u << 15, 0}, /* DTES64, PDCM */
    {0x1, 0, TN_KVM_X86_EDX, 1u << 21, 0},           /* DS */
    {0x6, 0, TN_KVM_X86_EAX, ~(1u << 2), 0},         /* power management, but for ARAT */
    {0x6, 0, TN_KVM_X86_EBX, TN_KVM_X86_ALL, 0},
    {0x6, 0, TN_KVM_X86_ECX, TN_KVM_X86_ALL, 0},
    {0x7, 0, TN_KVM_X86_EBX, 1u << 2, 0},        /* SGX */
    {0x7, 0, TN_KVM_X86_ECX, 1u << 30, 0},       /* SGX launch control */
    {0xa, 0, TN_KVM_X86_EAX, TN_KVM_X86_ALL, 0}, /* performance counters */
    {0xa, 0, TN_KVM_X86_EBX, TN_KVM_X86_ALL, 0},
    {0xa, 0, TN_KVM_X86_ECX, TN_KVM_X86_ALL, 0},
    {0xa, 0, TN_KVM_X86_EDX, TN_KVM_X86_ALL, 0},
    {0x12, TN_KVM_X86_ANY_INDEX, TN_KVM_X86_EAX, TN_KVM_X86_ALL, 0}, /* SGX */
    {0x12, TN_KVM_X86_ANY_INDEX, TN_KVM_X86_EBX, TN_KVM_X86_ALL, 0},
    {0x12, TN_KVM_X86_ANY_INDEX, TN_KVM_X86_ECX, TN_KVM_X86_ALL, 0},
    {0x12, TN_KVM_X86_ANY_INDEX, TN_KVM_X86_EDX, TN_KVM_X86_ALL, 0},
    {0x80000001, 0, TN_KVM_X86_ECX, 1u << 2, 0},             /* SVM */
    {0x80000001, 0, TN_KVM_X86_ECX, 1u << 23 | 1u << 28, 0}, /* AMD's performance counters */
    {0x80000022, 0, TN_KVM_X86_EAX, TN_KVM_X86_ALL, 0},      /* and their second version */
    {0x80000022, 0, TN_KVM_X86_EBX, TN_KVM_X86_ALL, 0},
};

static const struct tn_kvm_x86_fix tn_kvm_x86_deadline_ = {1, 0, TN_KVM_X86_ECX, 0, 1u << 24};
static const struct tn_kvm_x86_fix tn_kvm_x86_no_deadline_ = {1, 0, TN_KVM_X86_ECX, 1u << 24, 0};

static inline uint32_t *tn_kvm_x86_reg_(struct kvm_cpuid_entry2 *e, uint32_t reg)
{
    switch (reg) {
    case TN_KVM_X86_EAX:
        return &e->eax;
    case TN_KVM_X86_EBX:
        return &e->ebx;
    case TN_KVM_X86_ECX:
        return &e->ecx;
    default:
        return &e->edx;
    }
}

static inline bool tn_kvm_x86_indexed_(const struct kvm_cpuid_entry2 *e)
{
    return (e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0;
}

TN_API void tn_kvm_x86_cpuid_fix(struct tn_kvm_cpuid *c, const struct tn_kvm_x86_fix *fix,
                                 uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < c->nent && k < TN_KVM_MAX_CPUID; k++) {
            struct kvm_cpuid_entry2 *e = &c->entries[k];
            uint32_t *reg = tn_kvm_x86_reg_(e, fix[i].reg);

            if (e->function == fix[i].function &&
                (fix[i].index == TN_KVM_X86_ANY_INDEX || !tn_kvm_x86_indexed_(e) ||
                 e->index == fix[i].index))
                *reg = (*reg & ~fix[i].clear) | fix[i].set;
        }
    }
}

TN_API struct kvm_cpuid_entry2 *tn_kvm_x86_cpuid_find(struct tn_kvm_cpuid *c, uint32_t function,
                                                      uint32_t index)
{
    for (uint32_t i = 0; i < c->nent && i < TN_KVM_MAX_CPUID; i++) {
        struct kvm_cpuid_entry2 *e = &c->entries[i];

        if (e->function == function && (!tn_kvm_x86_indexed_(e) || e->index == index))
            return e;
    }
    return NULL;
}

/* Drops every entry of a leaf. */
static inline void tn_kvm_x86_drop_(struct tn_kvm_cpuid *c, uint32_t function)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < c->nent; i++) {
        if (c->entries[i].function != function)
            c->entries[kept++] = c->entries[i];
    }
    c->nent = kept;
}

/* How many bits number n things. */
static inline uint32_t tn_kvm_x86_bits_(uint32_t n)
{
    uint32_t bits = 0;

    while (bits < 31 && (1u << bits) < n)
        bits++;
    return bits;
}

static inline uint32_t tn_kvm_x86_at_most_(uint32_t v, uint32_t max)
{
    return v < max ? v : max;
}

/* Leaves 0bh and 1fh, which are alike: a level of threads, one to a core; a level of cores; the
 * end. SDM vol. 2A CPUID. */
static inline int tn_kvm_x86_levels_(struct tn_kvm_cpuid *c, uint32_t function, uint32_t cpu,
                                     uint32_t cpus)
{
    tn_kvm_x86_drop_(c, function);
    for (uint32_t level = 0; level < 3; level++) {
        struct kvm_cpuid_entry2 *e;

        if (c->nent >= TN_KVM_MAX_CPUID)
            return TN_ENOSPC;
        e = &c->entries[c->nent++];
        memset(e, 0, sizeof(*e));
        e->function = function;
        e->index = level;
        e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        e->eax = level == 1 ? tn_kvm_x86_bits_(cpus) : 0; /* bits of the id up to the next level */
        e->ebx = level == 0 ? 1 : level == 1 ? cpus : 0;  /* CPUs at this level */
        e->ecx = level | (level == 0 ? 1u << 8 : level == 1 ? 2u << 8 : 0); /* its type */
        e->edx = cpu;
    }
    return TN_OK;
}

/* A cache of leaves 4 and 8000_001dh: the first two levels are a CPU's own, others are shared. */
static inline void tn_kvm_x86_cache_(struct kvm_cpuid_entry2 *e, uint32_t cpus)
{
    uint32_t level = e->eax >> 5 & 7, sharing = (1u << tn_kvm_x86_bits_(cpus)) - 1;

    if ((e->eax & 0x1f) == 0) /* the end of the list */
        return;
    e->eax = (e->eax & ~(0xfffu << 14)) | (level < 3 ? 0 : sharing << 14);
    if (e->function == 4)
        e->eax = (e->eax & ~(0x3fu << 26)) | tn_kvm_x86_at_most_(sharing, 0x3f) << 26;
}

/* "AuthenticAMD" and "HygonGenuine". */
static inline bool tn_kvm_x86_is_amd_(const struct kvm_cpuid_entry2 *leaf0)
{
    return (leaf0->ebx == 0x68747541 && leaf0->edx == 0x69746e65 && leaf0->ecx == 0x444d4163) ||
           (leaf0->ebx == 0x6f677948 && leaf0->edx == 0x6e65476e && leaf0->ecx == 0x656e6975);
}

static inline int tn_kvm_x86_topology_(struct tn_kvm_cpuid *c, uint32_t cpu, uint32_t cpus)
{
    const struct kvm_cpuid_entry2 *leaf0 = tn_kvm_x86_cpuid_find(c, 0, 0);
    uint32_t max = leaf0 ? leaf0->eax : 0, bits = tn_kvm_x86_bits_(cpus);
    bool amd = leaf0 && tn_kvm_x86_is_amd_(leaf0);
    int r = TN_OK;

    for (uint32_t i = 0; i < c->nent; i++) {
        struct kvm_cpuid_entry2 *e = &c->entries[i];

        switch (e->function) {
        case 1:
            e->ebx = (e->ebx & 0xffff) | tn_kvm_x86_at_most_(1u << bits, 255) << 16 | cpu << 24;
            e->edx = (e->edx & ~(1u << 28)) | (cpus > 1 ? 1u << 28 : 0); /* the count is valid */
            break;
        case 4:
        case 0x8000001d:
            tn_kvm_x86_cache_(e, cpus);
            break;
        case 0x80000001:
            if (amd) /* CmpLegacy: the count of leaf 1 is one of cores */
                e->ecx = (e->ecx & ~2u) | (cpus > 1 ? 2u : 0);
            break;
        case 0x80000008:
            if (amd)
                e->ecx = (e->ecx & ~0xf0ffu) | bits << 12 | (cpus - 1);
            break;
        case 0x8000001e:
            if (amd) { /* the id, the core's id, node 0 of 1 */
                e->eax = e->ebx = cpu;
                e->ecx = 0;
            }
            break;
        default:
            break;
        }
    }
    tn_kvm_x86_drop_(c, 0x80000026); /* AMD's newer way to say it; what is absent is not used */
    if (max >= 0xb)
        r = tn_kvm_x86_levels_(c, 0xb, cpu, cpus);
    if (r >= 0 && max >= 0x1f)
        r = tn_kvm_x86_levels_(c, 0x1f, cpu, cpus);
    return r;
}

TN_API int tn_kvm_x86_cpuid(const struct tn_kvm *k, struct tn_kvm_cpuid *out, uint32_t cpu,
                            uint32_t cpus)
{
    int r = TN_EINVAL;

    out->nent = out->padding = 0;
    if (cpu < cpus && cpus <= TN_KVM_X86_MAX_CPUS && k->supported.nent <= TN_KVM_MAX_CPUID) {
        out->nent = k->supported.nent;
        memcpy(out->entries, k->supported.entries, out->nent * sizeof(out->entries[0]));
        tn_kvm_x86_cpuid_fix(out, tn_kvm_x86_fixes_,
                             sizeof(tn_kvm_x86_fixes_) / sizeof(tn_kvm_x86_fixes_[0]));
        tn_kvm_x86_cpuid_fix(out,
                             tn_kvm_cap(k, KVM_CAP_TSC_DEADLINE_TIMER) > 0
                                 ? &tn_kvm_x86_deadline_
                                 : &tn_kvm_x86_no_deadline_,
                             1);
        r = tn_kvm_x86_topology_(out, cpu, cpus);
    }
    if (r < 0)
        out->nent = 0;
    return r;
}

TN_API int tn_kvm_x86_get_cpuid(const struct tn_kvm_vcpu *vcpu, struct tn_kvm_cpuid *c)
{
    int r;

    memset(c, 0, sizeof(*c));
    c->nent = TN_KVM_MAX_CPUID;
    r = tn_kvm_ioctl_(vcpu->fd, KVM_GET_CPUID2, c);
    if (r < 0)
        c->nent = 0;
    /* Some kernels leave nent as it was. */
    while (c->nent > 0) {
        const struct kvm_cpuid_entry2 *e = &c->entries[c->nent - 1];

        if (e->function | e->index | e->flags | e->eax | e->ebx | e->ecx | e->edx)
            break;
        c->nent--;
    }
    return r;
}

TN_API int tn_kvm_x86_set_cpuid(struct tn_kvm_vcpu *vcpu, const struct tn_kvm_cpuid *c)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_CPUID2, c);
}

/* ---- the state of a CPU that is about to boot ---- */

static inline void tn_kvm_x86_segment_(struct kvm_segment *to, const struct tn_boot_x86_seg *from)
{
    memset(to, 0, sizeof(*to));
    to->base = from->base;
    to->limit = from->limit;
    to->selector = from->selector;
    to->type = from->type;
    to->present = from->present;
    to->dpl = from->dpl;
    to->db = from->db;
    to->s = from->s;
    to->l = from->l;
    to->g = from->g;
    to->avl = from->avl;
    to->unusable = !from->present;
}

TN_API int tn_kvm_x86_set_boot(struct tn_kvm_vcpu *vcpu, const struct tn_boot_x86_cpu *cpu)
{
    struct kvm_sregs s;
    struct kvm_regs g;
    int r = tn_kvm_x86_get_sregs(vcpu, &s); /* for the APIC's base */

    if (r < 0)
        return r;
    tn_kvm_x86_segment_(&s.cs, &cpu->cs);
    tn_kvm_x86_segment_(&s.ds, &cpu->ds);
    s.es = s.fs = s.gs = s.ss = s.ds;
    tn_kvm_x86_segment_(&s.tr, &cpu->tr);
    s.gdt.base = cpu->gdt_base;
    s.gdt.limit = cpu->gdt_limit;
    s.idt.base = cpu->idt_base;
    s.idt.limit = cpu->idt_limit;
    s.cr0 = cpu->cr0;
    s.cr3 = cpu->cr3;
    s.cr4 = cpu->cr4;
    s.efer = cpu->efer;
    memset(&g, 0, sizeof(g));
    g.rip = cpu->rip;
    g.rsp = cpu->rsp;
    g.rbp = cpu->rbp;
    g.rsi = cpu->rsi;
    g.rbx = cpu->rbx;
    g.rflags = cpu->rflags;
    r = tn_kvm_x86_set_sregs(vcpu, &s);
    return r < 0 ? r : tn_kvm_x86_set_regs(vcpu, &g);
}

/* SDM vol. 4: IA32_MISC_ENABLE bit 0, fast strings; IA32_MTRR_DEF_TYPE, enabled and write-back. */
static const struct {
    uint32_t index;
    uint64_t clear, set;
} tn_kvm_x86_boot_msrs_[] = {
    {0x1a0, 0, 1},
    {0x2ff, 0xcff, 0x806},
};

TN_API int tn_kvm_x86_set_boot_msrs(struct tn_kvm_vcpu *vcpu, uint32_t *refused)
{
    uint32_t bad = 0;
    int r = TN_OK;

    for (size_t i = 0;
         r >= 0 && i < sizeof(tn_kvm_x86_boot_msrs_) / sizeof(tn_kvm_x86_boot_msrs_[0]); i++) {
        struct kvm_msr_entry e;

        memset(&e, 0, sizeof(e));
        e.index = tn_kvm_x86_boot_msrs_[i].index;
        r = tn_kvm_x86_get_msrs(vcpu, &e, 1);
        if (r == 1) {
            e.data = (e.data & ~tn_kvm_x86_boot_msrs_[i].clear) | tn_kvm_x86_boot_msrs_[i].set;
            r = tn_kvm_x86_set_msrs(vcpu, &e, 1);
        }
        bad += r == 0;
    }
    if (refused)
        *refused = r < 0 ? 0 : bad;
    return r < 0 ? r : TN_OK;
}

TN_API int tn_kvm_x86_set_lint(struct tn_kvm_vcpu *vcpu)
{
    struct kvm_lapic_state v;
    uint8_t *reg = (uint8_t *)v.regs;
    int r = tn_kvm_x86_get_lapic(vcpu, &v);

    if (r < 0)
        return r;
    tn_put_(reg + 0x350, 4, 0x700); /* LINT0: ExtINT, edge, not masked */
    tn_put_(reg + 0x360, 4, 0x400); /* LINT1: NMI */
    return tn_kvm_x86_set_lapic(vcpu, &v);
}

/* ---- a vCPU's state ---- */

/* KVM_GET_x into *v, which is zero after an error. */
static inline int tn_kvm_x86_get_(int fd, unsigned long request, void *v, size_t size)
{
    int r = tn_kvm_ioctl_(fd, request, v);

    if (r >= 0)
        return TN_OK;
    memset(v, 0, size);
    return r;
}

TN_API int tn_kvm_x86_get_regs(const struct tn_kvm_vcpu *vcpu, struct kvm_regs *v)
{
    return tn_kvm_x86_get_(vcpu->fd, KVM_GET_REGS, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_regs(struct tn_kvm_vcpu *vcpu, const struct kvm_regs *v)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_REGS, v);
}

TN_API int tn_kvm_x86_get_sregs(const struct tn_kvm_vcpu *vcpu, struct kvm_sregs *v)
{
    return tn_kvm_x86_get_(vcpu->fd, KVM_GET_SREGS, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_sregs(struct tn_kvm_vcpu *vcpu, const struct kvm_sregs *v)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_SREGS, v);
}

TN_API int tn_kvm_x86_get_fpu(const struct tn_kvm_vcpu *vcpu, struct kvm_fpu *v)
{
    return tn_kvm_x86_get_(vcpu->fd, KVM_GET_FPU, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_fpu(struct tn_kvm_vcpu *vcpu, const struct kvm_fpu *v)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_FPU, v);
}

TN_API int tn_kvm_x86_get_xcrs(const struct tn_kvm_vcpu *vcpu, struct kvm_xcrs *v)
{
    return tn_kvm_x86_get_(vcpu->fd, KVM_GET_XCRS, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_xcrs(struct tn_kvm_vcpu *vcpu, const struct kvm_xcrs *v)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_XCRS, v);
}

TN_API int tn_kvm_x86_get_lapic(const struct tn_kvm_vcpu *vcpu, struct kvm_lapic_state *v)
{
    return tn_kvm_x86_get_(vcpu->fd, KVM_GET_LAPIC, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_lapic(struct tn_kvm_vcpu *vcpu, const struct kvm_lapic_state *v)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_LAPIC, v);
}

TN_API int tn_kvm_x86_get_events(const struct tn_kvm_vcpu *vcpu, struct kvm_vcpu_events *v)
{
    return tn_kvm_x86_get_(vcpu->fd, KVM_GET_VCPU_EVENTS, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_events(struct tn_kvm_vcpu *vcpu, const struct kvm_vcpu_events *v)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_VCPU_EVENTS, v);
}

TN_API int tn_kvm_x86_get_debugregs(const struct tn_kvm_vcpu *vcpu, struct kvm_debugregs *v)
{
    return tn_kvm_x86_get_(vcpu->fd, KVM_GET_DEBUGREGS, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_debugregs(struct tn_kvm_vcpu *vcpu, const struct kvm_debugregs *v)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_DEBUGREGS, v);
}

TN_API int tn_kvm_x86_get_sregs2(const struct tn_kvm_vcpu *vcpu, struct kvm_sregs2 *v)
{
    return tn_kvm_x86_get_(vcpu->fd, KVM_GET_SREGS2, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_sregs2(struct tn_kvm_vcpu *vcpu, const struct kvm_sregs2 *v)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_SREGS2, v);
}

TN_API int tn_kvm_x86_xsave_size(const struct tn_kvm_vm *vm)
{
    int r = tn_kvm_vm_cap(vm, KVM_CAP_XSAVE2);
    int least = (int)sizeof(struct kvm_xsave);

    return r < 0 || r > least ? r : least;
}

TN_API int tn_kvm_x86_get_xsave(const struct tn_kvm_vm *vm, const struct tn_kvm_vcpu *vcpu, void *v,
                                size_t size)
{
    int need = tn_kvm_x86_xsave_size(vm), r = TN_EINVAL;

    memset(v, 0, size);
    if (need < 0)
        return need;
    if (size < (size_t)need)
        return r;
    /* The older call writes the first 4096 bytes only. */
    r = (size_t)need > sizeof(struct kvm_xsave) ? tn_kvm_ioctl_(vcpu->fd, KVM_GET_XSAVE2, v)
                                                : tn_kvm_ioctl_(vcpu->fd, KVM_GET_XSAVE, v);
    if (r < 0)
        memset(v, 0, size);
    return r;
}

TN_API int tn_kvm_x86_set_xsave(const struct tn_kvm_vm *vm, struct tn_kvm_vcpu *vcpu, const void *v,
                                size_t size)
{
    int need = tn_kvm_x86_xsave_size(vm);

    if (need < 0)
        return need;
    return size < (size_t)need ? TN_EINVAL : tn_kvm_ioctl_(vcpu->fd, KVM_SET_XSAVE, v);
}

/* The kernel's structs with a flexible array, with room. */
struct tn_kvm_x86_msr_list_ {
    uint32_t nmsrs;
    uint32_t indices[TN_KVM_X86_MAX_MSRS];
};

struct tn_kvm_x86_msrs_ {
    uint32_t nmsrs, pad;
    struct kvm_msr_entry entries[TN_KVM_X86_MSR_BATCH];
};

TN_API int tn_kvm_x86_msr_list(const struct tn_kvm *k, uint32_t *list, uint32_t cap)
{
    struct tn_kvm_x86_msr_list_ v;
    int r;

    v.nmsrs = TN_KVM_X86_MAX_MSRS;
    r = tn_kvm_ioctl_(k->fd, KVM_GET_MSR_INDEX_LIST, &v);
    if (r < 0)
        return errno == E2BIG ? TN_ENOSPC : r;
    if (v.nmsrs > cap)
        return TN_ENOSPC;
    memcpy(list, v.indices, v.nmsrs * sizeof(list[0]));
    return (int)v.nmsrs;
}

TN_API int tn_kvm_x86_get_msrs(const struct tn_kvm_vcpu *vcpu, struct kvm_msr_entry *msrs,
                               uint32_t n)
{
    struct tn_kvm_x86_msrs_ v;
    uint32_t done = 0;
    int r = 0;

    for (; done < n && done < INT32_MAX; done += (uint32_t)r) {
        v.pad = 0;
        v.nmsrs = tn_kvm_x86_at_most_(n - done, TN_KVM_X86_MSR_BATCH);
        memcpy(v.entries, msrs + done, v.nmsrs * sizeof(v.entries[0]));
        r = tn_kvm_ioctl_(vcpu->fd, KVM_GET_MSRS, &v);
        if (r < 0)
            return r;
        memcpy(msrs + done, v.entries, (uint32_t)r * sizeof(v.entries[0]));
        if ((uint32_t)r < v.nmsrs)
            return (int)(done + (uint32_t)r);
    }
    return (int)done;
}

TN_API int tn_kvm_x86_set_msrs(struct tn_kvm_vcpu *vcpu, const struct kvm_msr_entry *msrs,
                               uint32_t n)
{
    struct tn_kvm_x86_msrs_ v;
    uint32_t done = 0;
    int r = 0;

    for (; done < n && done < INT32_MAX; done += (uint32_t)r) {
        v.pad = 0;
        v.nmsrs = tn_kvm_x86_at_most_(n - done, TN_KVM_X86_MSR_BATCH);
        memcpy(v.entries, msrs + done, v.nmsrs * sizeof(v.entries[0]));
        r = tn_kvm_ioctl_(vcpu->fd, KVM_SET_MSRS, &v);
        if (r < 0)
            return r;
        if ((uint32_t)r < v.nmsrs)
            return (int)(done + (uint32_t)r);
    }
    return (int)done;
}

TN_API int tn_kvm_x86_get_tsc_khz(const struct tn_kvm_vcpu *vcpu)
{
    return tn_kvm_ioctl_n_(vcpu->fd, KVM_GET_TSC_KHZ, 0);
}

TN_API int tn_kvm_x86_set_tsc_khz(struct tn_kvm_vcpu *vcpu, uint32_t khz)
{
    return tn_kvm_ioctl_n_(vcpu->fd, KVM_SET_TSC_KHZ, khz);
}

TN_API int tn_kvm_x86_get_tsc_offset(const struct tn_kvm_vcpu *vcpu, uint64_t *offset)
{
    *offset = 0;
    return tn_kvm_get_attr(vcpu->fd, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, offset);
}

TN_API int tn_kvm_x86_set_tsc_offset(struct tn_kvm_vcpu *vcpu, uint64_t offset)
{
    return tn_kvm_set_attr(vcpu->fd, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &offset);
}

TN_API int tn_kvm_x86_inject(struct tn_kvm_vcpu *vcpu, uint32_t vector)
{
    struct kvm_interrupt v;

    v.irq = vector;
    return tn_kvm_ioctl_(vcpu->fd, KVM_INTERRUPT, &v);
}

TN_API int tn_kvm_x86_nmi(struct tn_kvm_vcpu *vcpu)
{
    return tn_kvm_ioctl_n_(vcpu->fd, KVM_NMI, 0);
}

/* ---- a VM's state ---- */

TN_API int tn_kvm_x86_get_irqchip(const struct tn_kvm_vm *vm, struct kvm_irqchip *v)
{
    return tn_kvm_x86_get_(vm->fd, KVM_GET_IRQCHIP, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_irqchip(struct tn_kvm_vm *vm, const struct kvm_irqchip *v)
{
    return tn_kvm_ioctl_(vm->fd, KVM_SET_IRQCHIP, v);
}

TN_API int tn_kvm_x86_get_pit2(const struct tn_kvm_vm *vm, struct kvm_pit_state2 *v)
{
    return tn_kvm_x86_get_(vm->fd, KVM_GET_PIT2, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_pit2(struct tn_kvm_vm *vm, const struct kvm_pit_state2 *v)
{
    return tn_kvm_ioctl_(vm->fd, KVM_SET_PIT2, v);
}

TN_API int tn_kvm_x86_get_clock(const struct tn_kvm_vm *vm, struct kvm_clock_data *v)
{
    return tn_kvm_x86_get_(vm->fd, KVM_GET_CLOCK, v, sizeof(*v));
}

TN_API int tn_kvm_x86_set_clock(struct tn_kvm_vm *vm, const struct kvm_clock_data *v)
{
    return tn_kvm_ioctl_(vm->fd, KVM_SET_CLOCK, v);
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* __x86_64__ */
#endif
