/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_vm_arch - the half of a machine that knows its architecture, under one name.
 *
 * WHAT
 *   A machine's board and the architecture's half of its state are tn_vm_x86 with tn_vm_x86_state,
 *   or tn_vm_arm64 with tn_vm_arm64_state. They have the same functions; which of the two a program
 *   has is the compiler's target. tn_vm and what is above it say tn_vm_arch.
 *
 * USAGE
 *   struct tn_loader_range ram[TN_VM_ARCH_RAM];
 *
 *   if (tn_vm_arch_ram(1ull << 30, ram) < 0)
 *       return 1;
 *
 * COMPOSITION
 *   Names only. A further architecture is two headers with these functions, and a list here.
 *
 * GUEST TRUST
 *   none.
 *
 * MEMORY
 *   none.
 *
 * THREADS
 *   none.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   x86-64 and arm64: KVM has no others for which there is a board.
 */
#ifndef TN_VM_ARCH_H
#define TN_VM_ARCH_H

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
#if defined(__x86_64__)
#include "tn_vm_x86.h"
#include "tn_vm_x86_state.h"

#define TN_VM_ARCH_RAM          TN_VM_X86_RAM
#define TN_VM_ARCH_MAX_CPUS     TN_VM_X86_MAX_CPUS
#define TN_VM_ARCH_GENID_GPA    TN_VM_X86_GENID_GPA
#define TN_VM_ARCH_FRESH        TN_KVM_X86_FRESH
#define TN_VM_ARCH_LAZY         TN_KVM_X86_LAZY
#define TN_VM_ARCH_TIMED        TN_KVM_X86_TIMED
#define tn_vm_arch_lack         tn_kvm_x86_lack
#define tn_vm_arch_refused      tn_kvm_x86_refused
#define tn_vm_arch              tn_vm_x86
#define tn_vm_arch_ram          tn_vm_x86_ram
#define tn_vm_arch_load         tn_vm_x86_load
#define tn_vm_arch_irqchip      tn_vm_x86_irqchip
#define tn_vm_arch_vcpu         tn_vm_x86_vcpu
#define tn_vm_arch_devices      tn_vm_x86_devices
#define tn_vm_arch_place        tn_vm_x86_place
#define tn_vm_arch_access       tn_vm_x86_access
#define tn_vm_arch_shutdown     tn_vm_x86_shutdown
#define tn_vm_arch_ctrl_alt_del tn_vm_x86_ctrl_alt_del
#define tn_vm_arch_close        tn_vm_x86_close
#define tn_vm_arch_new_id       tn_vm_x86_new_id
#define tn_vm_arch_state        tn_vm_x86_state
#define tn_vm_arch_state_host   tn_vm_x86_state_host
#define tn_vm_arch_state_known  tn_vm_x86_state_known
#define tn_vm_arch_state_check  tn_vm_x86_state_check
#define tn_vm_arch_state_save   tn_vm_x86_state_save
#define tn_vm_arch_state_since  tn_vm_x86_state_since
#define tn_vm_arch_state_vcpu   tn_vm_x86_state_vcpu
#define tn_vm_arch_state_drop   tn_vm_x86_state_drop
#define tn_vm_arch_state_still  tn_vm_x86_state_still
#define tn_vm_arch_state_ports  tn_vm_x86_state_ports
#define tn_vm_arch_state_cpus   tn_vm_x86_state_cpus
#define tn_vm_arch_state_warm   tn_vm_x86_state_warm
#define tn_vm_arch_state_size   tn_vm_x86_state_size
#define tn_vm_arch_state_build  tn_vm_x86_state_build
#define tn_vm_arch_state_parse  tn_vm_x86_state_parse
#define tn_vm_arch_state_close  tn_vm_x86_state_close

#elif defined(__aarch64__)
#include "tn_vm_arm64.h"
#include "tn_vm_arm64_state.h"

#define TN_VM_ARCH_RAM          TN_VM_ARM64_RAM
#define TN_VM_ARCH_MAX_CPUS     TN_VM_ARM64_MAX_CPUS
#define TN_VM_ARCH_GENID_GPA    TN_VM_ARM64_GENID_GPA
#define TN_VM_ARCH_FRESH        TN_VM_ARM64_FRESH
#define TN_VM_ARCH_LAZY         TN_VM_ARM64_LAZY
#define TN_VM_ARCH_TIMED        TN_VM_ARM64_TIMED
#define tn_vm_arch_lack         tn_kvm_arm64_lack
#define tn_vm_arch_refused      tn_kvm_arm64_refused
#define tn_vm_arch              tn_vm_arm64
#define tn_vm_arch_ram          tn_vm_arm64_ram
#define tn_vm_arch_load         tn_vm_arm64_load
#define tn_vm_arch_irqchip      tn_vm_arm64_irqchip
#define tn_vm_arch_vcpu         tn_vm_arm64_vcpu
#define tn_vm_arch_devices      tn_vm_arm64_devices
#define tn_vm_arch_place        tn_vm_arm64_place
#define tn_vm_arch_access       tn_vm_arm64_access
#define tn_vm_arch_shutdown     tn_vm_arm64_shutdown
#define tn_vm_arch_ctrl_alt_del tn_vm_arm64_ctrl_alt_del
#define tn_vm_arch_close        tn_vm_arm64_close
#define tn_vm_arch_new_id       tn_vm_arm64_new_id
#define tn_vm_arch_state        tn_vm_arm64_state
#define tn_vm_arch_state_host   tn_vm_arm64_state_host
#define tn_vm_arch_state_known  tn_vm_arm64_state_known
#define tn_vm_arch_state_check  tn_vm_arm64_state_check
#define tn_vm_arch_state_save   tn_vm_arm64_state_save
#define tn_vm_arch_state_since  tn_vm_arm64_state_since
#define tn_vm_arch_state_vcpu   tn_vm_arm64_state_vcpu
#define tn_vm_arch_state_drop   tn_vm_arm64_state_drop
#define tn_vm_arch_state_still  tn_vm_arm64_state_still
#define tn_vm_arch_state_ports  tn_vm_arm64_state_ports
#define tn_vm_arch_state_cpus   tn_vm_arm64_state_cpus
#define tn_vm_arch_state_warm   tn_vm_arm64_state_warm
#define tn_vm_arch_state_size   tn_vm_arm64_state_size
#define tn_vm_arch_state_build  tn_vm_arm64_state_build
#define tn_vm_arch_state_parse  tn_vm_arm64_state_parse
#define tn_vm_arch_state_close  tn_vm_arm64_state_close

#else
#error "tn_vm_arch: x86-64 and arm64 only"
#endif

#endif /* TN_VM_ARCH_H */
