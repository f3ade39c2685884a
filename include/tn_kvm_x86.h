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
 *   The caller owns every struct and buffer. About 2 KiB of stack.
 *
 * THREADS
 *   A vCPU's functions belong to the thread that runs it, while it does not run. Those of a VM may
 *   be called by any.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Linux, Documentation/virt/kvm/api.rst, section 4; the numbers beside the functions are its.
 *   Intel SDM vol. 2A CPUID (leaves 1, 4, 0bh, 1fh), vol. 3A 11.5.1 (local vector table) and
 *   vol. 4 (MSRs). AMD APM vol. 3 E.4 (leaves 8000_0001h, _0008h, _001dh, _001eh).
 *
 * LIMITS
 *   255 vCPUs of one thread each, in one socket. No performance counters, no SGX, no nested
 *   virtualization, no Xen or Hyper-V interfaces.
 */
#ifndef TN_KVM_X86_H
#define TN_KVM_X86_H

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

/* ---- interrupt chips: before any vCPU, after the memory slots ---- */

/*
 * All chips in the kernel: local APICs, two PICs, an I/O APIC, and the PIT (with a dummy behind
 * port 0x61). 4.24, 4.71
 */
TN_API int tn_kvm_x86_irqchip_full(struct tn_kvm_vm *vm);

/*
 * Only the local APICs are in the kernel; the caller models the I/O APIC of pins inputs, whose
 * end-of-interrupt messages arrive as TN_KVM_EXIT_IOAPIC_EOI, with PICs and PIT as it likes.
 * section 7.5
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
 * Of a vCPU that has not run yet. get fills c as the kernel has it. 4.97, 4.22
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

TN_API int tn_kvm_x86_get_regs(const struct tn_kvm_vcpu *vcpu, struct kvm_regs *v);   /* 4.11 */
TN_API int tn_kvm_x86_set_regs(struct tn_kvm_vcpu *vcpu, const struct kvm_regs *v);   /* 4.12 */
TN_API int tn_kvm_x86_get_sregs(const struct tn_kvm_vcpu *vcpu, struct kvm_sregs *v); /* 4.13 */
TN_API int tn_kvm_x86_set_sregs(struct tn_kvm_vcpu *vcpu, const struct kvm_sregs *v); /* 4.14 */
TN_API int tn_kvm_x86_get_fpu(const struct tn_kvm_vcpu *vcpu, struct kvm_fpu *v);     /* 4.21 */
TN_API int tn_kvm_x86_set_fpu(struct tn_kvm_vcpu *vcpu, const struct kvm_fpu *v);     /* 4.22 */
TN_API int tn_kvm_x86_get_xcrs(const struct tn_kvm_vcpu *vcpu, struct kvm_xcrs *v);   /* 4.44 */
TN_API int tn_kvm_x86_set_xcrs(struct tn_kvm_vcpu *vcpu, const struct kvm_xcrs *v);   /* 4.45 */
TN_API int tn_kvm_x86_get_lapic(const struct tn_kvm_vcpu *vcpu, struct kvm_lapic_state *v);
TN_API int tn_kvm_x86_set_lapic(struct tn_kvm_vcpu *vcpu, const struct kvm_lapic_state *v);
TN_API int tn_kvm_x86_get_events(const struct tn_kvm_vcpu *vcpu, struct kvm_vcpu_events *v);
TN_API int tn_kvm_x86_set_events(struct tn_kvm_vcpu *vcpu, const struct kvm_vcpu_events *v);
TN_API int tn_kvm_x86_get_debugregs(const struct tn_kvm_vcpu *vcpu, struct kvm_debugregs *v);
TN_API int tn_kvm_x86_set_debugregs(struct tn_kvm_vcpu *vcpu, const struct kvm_debugregs *v);

/*
 * With the PDPTEs of a 32-bit guest with PAE; where KVM_CAP_SREGS2 is. 4.131
 */
TN_API int tn_kvm_x86_get_sregs2(const struct tn_kvm_vcpu *vcpu, struct kvm_sregs2 *v);
TN_API int tn_kvm_x86_set_sregs2(struct tn_kvm_vcpu *vcpu, const struct kvm_sregs2 *v);

/*
 * The FPU with all extended state: tn_kvm_x86_xsave_size(vm) bytes, 4096 or more. get and set:
 * TN_EINVAL when size is less than that. 4.42, 4.43, 4.134
 */
TN_API int tn_kvm_x86_xsave_size(const struct tn_kvm_vm *vm);
TN_API int tn_kvm_x86_get_xsave(const struct tn_kvm_vm *vm, const struct tn_kvm_vcpu *vcpu, void *v,
                                size_t size);
TN_API int tn_kvm_x86_set_xsave(const struct tn_kvm_vm *vm, struct tn_kvm_vcpu *vcpu, const void *v,
                                size_t size);

/*
 * The MSRs that make up a vCPU's state: fills list, returns how many, or TN_ENOSPC: more than cap.
 * 4.3
 */
TN_API int tn_kvm_x86_msr_list(const struct tn_kvm *k, uint32_t *list, uint32_t cap);

/*
 * Gets or sets n MSRs by their index, in order, any number of them. Returns how many were done;
 * less than n: msrs[result] was refused, and those after it were not tried. 4.18, 4.19
 */
TN_API int tn_kvm_x86_get_msrs(const struct tn_kvm_vcpu *vcpu, struct kvm_msr_entry *msrs,
                               uint32_t n);
TN_API int tn_kvm_x86_set_msrs(struct tn_kvm_vcpu *vcpu, const struct kvm_msr_entry *msrs,
                               uint32_t n);

/*
 * The frequency of the vCPU's time-stamp counter, kHz; get returns it. Its offset from the host's
 * counter, where KVM has that attribute. 4.55, 4.56, devices/vcpu.rst 4.1
 */
TN_API int tn_kvm_x86_get_tsc_khz(const struct tn_kvm_vcpu *vcpu);
TN_API int tn_kvm_x86_set_tsc_khz(struct tn_kvm_vcpu *vcpu, uint32_t khz);
TN_API int tn_kvm_x86_get_tsc_offset(const struct tn_kvm_vcpu *vcpu, uint64_t *offset);
TN_API int tn_kvm_x86_set_tsc_offset(struct tn_kvm_vcpu *vcpu, uint64_t offset);

/*
 * Without chips in the kernel: injects an external interrupt, when
 * vcpu->run->ready_for_interrupt_injection; set run->request_interrupt_window for
 * TN_KVM_EXIT_IRQ_WINDOW. With the split chips: an interrupt of the PICs. 4.16. nmi: 4.64
 */
TN_API int tn_kvm_x86_inject(struct tn_kvm_vcpu *vcpu, uint32_t vector);
TN_API int tn_kvm_x86_nmi(struct tn_kvm_vcpu *vcpu);

/* ---- a VM's state ---- */

/*
 * The full chips: v->chip_id says which, KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE, _IOAPIC. 4.26, 4.27
 */
TN_API int tn_kvm_x86_get_irqchip(const struct tn_kvm_vm *vm, struct kvm_irqchip *v);
TN_API int tn_kvm_x86_set_irqchip(struct tn_kvm_vm *vm, const struct kvm_irqchip *v);
TN_API int tn_kvm_x86_get_pit2(const struct tn_kvm_vm *vm, struct kvm_pit_state2 *v); /* 4.73 */
TN_API int tn_kvm_x86_set_pit2(struct tn_kvm_vm *vm, const struct kvm_pit_state2 *v); /* 4.74 */

/*
 * The clock that KVM's paravirtual clock shows; set with flags 0 unless KVM_CLOCK_REALTIME is to
 * add the time that went by. 4.29, 4.30
 */
TN_API int tn_kvm_x86_get_clock(const struct tn_kvm_vm *vm, struct kvm_clock_data *v);
TN_API int tn_kvm_x86_set_clock(struct tn_kvm_vm *vm, const struct kvm_clock_data *v);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
