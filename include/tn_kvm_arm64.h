/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_kvm_arm64 - what KVM has on arm64 only: vCPUs with PSCI, registers one at a time, the GIC.
 *
 * WHAT
 *   Makes a vCPU one that speaks PSCI, and gives it its first state; reads and writes registers by
 *   their KVM id; makes a GICv3 or, where the host has no other, a GICv2. Names and numbers are the
 *   KVM API's. On other architectures this header declares nothing.
 *
 * USAGE
 *   struct tn_kvm kvm;
 *   struct tn_kvm_vm vm;
 *   struct tn_kvm_vcpu vcpu;
 *   struct tn_kvm_arm64_gic gic;
 *   struct tn_kvm_arm64_gic_cfg cfg;
 *   struct tn_boot_arm64_cpu boot = {0x40200000, 0x40000000};
 *
 *   memset(&cfg, 0, sizeof(cfg));
 *   cfg.dist = 0x8000000;
 *   cfg.redist = 0x8100000;
 *   cfg.cpu_if = 0x8010000;
 *   cfg.cpus = 1;
 *   cfg.spis = 32;
 *   if (tn_kvm_open(&kvm, NULL) < 0 || tn_kvm_vm_init(&kvm, &vm) < 0)
 *       return 1;
 *   if (tn_kvm_arm64_gic_init(&gic, &vm, &cfg) < 0 || tn_kvm_vcpu_init(&kvm, &vm, &vcpu, 0) < 0 ||
 *       tn_kvm_arm64_vcpu_init(&vm, &vcpu, tn_kvm_arm64_features(&kvm)) < 0 ||
 *       tn_kvm_arm64_gic_start(&gic) < 0 || tn_kvm_arm64_set_boot(&vcpu, &boot) < 0)
 *       return 2;
 *   tn_kvm_arm64_gic_close(&gic);
 *   tn_kvm_vcpu_close(&vcpu);
 *   tn_kvm_vm_close(&vm);
 *   tn_kvm_close(&kvm);
 *
 * COMPOSITION
 *   On tn_kvm. The order: slots, gic_init, all the vCPUs with tn_kvm_vcpu_init, vcpu_init of each,
 *   gic_start, then irqfds. tn_boot_arm64 makes the first state, tn_fdt tells the guest of it all.
 *
 * GUEST TRUST
 *   Nothing of a guest's is read here but registers, whose values are only passed on.
 *
 * MEMORY
 *   The caller owns the structs; gic_init to gic_close holds one descriptor.
 *
 * THREADS
 *   As tn_kvm: a vCPU's functions belong to the thread that runs it, while it does not run.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Linux, Documentation/virt/kvm/api.rst (KVM_ARM_VCPU_INIT, KVM_SET_ONE_REG, KVM_IRQ_LINE),
 *   devices/arm-vgic-v3.rst and arm-vgic.rst. Arm's DEN0022 (PSCI), IHI 0069 (GIC).
 *
 * LIMITS
 *   No SVE, no PMU, no nested virtualization, no 32-bit EL1, no ITS. A GICv2 serves eight CPUs.
 */
#ifndef TN_KVM_ARM64_H
#define TN_KVM_ARM64_H

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

#include "tn_boot_arm64.h"
#include "tn_kvm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/*
 * Returns, unless said otherwise: 0, or TN_ESYS with KVM's errno (EBADF on what is closed, EINVAL
 * for a value that is refused).
 */

#define TN_KVM_ARM64_MAX_CPUS 512u
#define TN_KVM_ARM64_MAX_SPIS 960u
#define TN_KVM_ARM64_MAX_REGS 1024u /* that a vCPU may have */

/* The ids of a core's registers, for get_reg and set_reg: struct kvm_regs, in words of 32 bits. */
#define TN_KVM_ARM64_CORE(field)                           \
    (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | \
     (uint64_t)(offsetof(struct kvm_regs, field) / sizeof(__u32)))
#define TN_KVM_ARM64_X(n)   (TN_KVM_ARM64_CORE(regs.regs[0]) + 2ull * (n)) /* n: 0 to 30 */
#define TN_KVM_ARM64_PC     TN_KVM_ARM64_CORE(regs.pc)
#define TN_KVM_ARM64_PSTATE TN_KVM_ARM64_CORE(regs.pstate)

/* ---- vCPUs ---- */

/*
 * The features that a vCPU of ours has on this host, bits by KVM_ARM_VCPU_*: PSCI, and pointer
 * authentication where KVM can.
 */
TN_API uint32_t tn_kvm_arm64_features(const struct tn_kvm *k);

/*
 * Gives a vCPU its features, which are the same for all of a VM, and its reset state; any but the
 * first (id 0) is switched off, and waits for the guest's CPU_ON. Again on a vCPU that has run:
 * resets it. KVM_ARM_PREFERRED_TARGET, KVM_ARM_VCPU_INIT
 */
TN_API int tn_kvm_arm64_vcpu_init(const struct tn_kvm_vm *vm, struct tn_kvm_vcpu *vcpu,
                                  uint32_t features);

/*
 * The affinity fields of vCPU id's MPIDR_EL1, as a device tree and PSCI name a CPU.
 */
TN_API uint64_t tn_kvm_arm64_mpidr(uint32_t id);

/*
 * The registers of the first vCPU; the others get theirs by CPU_ON.
 */
TN_API int tn_kvm_arm64_set_boot(struct tn_kvm_vcpu *vcpu, const struct tn_boot_arm64_cpu *cpu);

/*
 * The bytes of a register, by its id: 1 to 256.
 */
TN_API size_t tn_kvm_arm64_reg_size(uint64_t id);

/*
 * One register, of tn_kvm_arm64_reg_size(id) bytes at value. KVM_GET_ONE_REG, KVM_SET_ONE_REG
 */
TN_API int tn_kvm_arm64_get_reg(const struct tn_kvm_vcpu *vcpu, uint64_t id, void *value);
TN_API int tn_kvm_arm64_set_reg(struct tn_kvm_vcpu *vcpu, uint64_t id, const void *value);

/*
 * The ids of all registers. Returns how many; TN_ENOSPC: more than cap, or than
 * TN_KVM_ARM64_MAX_REGS. KVM_GET_REG_LIST
 */
TN_API int tn_kvm_arm64_reg_list(const struct tn_kvm_vcpu *vcpu, uint64_t *list, uint32_t cap);

TN_API int tn_kvm_arm64_get_events(const struct tn_kvm_vcpu *vcpu, struct kvm_vcpu_events *v);
TN_API int tn_kvm_arm64_set_events(struct tn_kvm_vcpu *vcpu, const struct kvm_vcpu_events *v);

/* ---- the interrupt controller ---- */

struct tn_kvm_arm64_gic_cfg {
    uint32_t version; /* 3 or 2; 0: 3 where the host has it, else 2 */
    uint32_t cpus;    /* of the VM, 1 to TN_KVM_ARM64_MAX_CPUS, or 8 with version 2 */
    uint32_t spis;    /* shared interrupts, a multiple of 32 up to TN_KVM_ARM64_MAX_SPIS */
    uint64_t dist;    /* where the distributor is, 64 KiB, a multiple of that */
    uint64_t redist;  /* version 3: the redistributors, 128 KiB for each CPU, likewise */
    uint64_t cpu_if;  /* version 2: the CPU interface, 8 KiB, likewise */
};

struct tn_kvm_arm64_gic {
    int fd; /* -1: closed */
    uint32_t version;
    uint32_t cpus;
    uint32_t spis;
};

/*
 * Makes one, before the vCPUs. Returns 0; TN_EINVAL: cpus, spis or version; TN_ESYS: ENODEV, the
 * host has no such GIC. *gic is closed then. KVM_DEV_TYPE_ARM_VGIC_V3, _V2
 */
TN_API int tn_kvm_arm64_gic_init(struct tn_kvm_arm64_gic *gic, struct tn_kvm_vm *vm,
                                 const struct tn_kvm_arm64_gic_cfg *cfg);
TN_API void tn_kvm_arm64_gic_close(struct tn_kvm_arm64_gic *gic);

/*
 * Completes it, when all vCPUs are there. KVM_DEV_ARM_VGIC_CTRL_INIT
 */
TN_API int tn_kvm_arm64_gic_start(const struct tn_kvm_arm64_gic *gic);

/*
 * Sets the level of a shared interrupt, counted from 0 as in a device tree and as an irqfd's gsi.
 * KVM_IRQ_LINE
 */
TN_API int tn_kvm_arm64_spi(const struct tn_kvm_vm *vm, uint32_t spi, bool level);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#include <errno.h>
#include <string.h>

TN_API uint32_t tn_kvm_arm64_features(const struct tn_kvm *k)
{
    uint32_t features = 1u << KVM_ARM_VCPU_PSCI_0_2;

    if (tn_kvm_cap(k, KVM_CAP_ARM_PTRAUTH_ADDRESS) > 0 &&
        tn_kvm_cap(k, KVM_CAP_ARM_PTRAUTH_GENERIC) > 0)
        features |= 1u << KVM_ARM_VCPU_PTRAUTH_ADDRESS | 1u << KVM_ARM_VCPU_PTRAUTH_GENERIC;
    return features;
}

TN_API int tn_kvm_arm64_vcpu_init(const struct tn_kvm_vm *vm, struct tn_kvm_vcpu *vcpu,
                                  uint32_t features)
{
    struct kvm_vcpu_init v;
    int r;

    memset(&v, 0, sizeof(v));
    r = tn_kvm_ioctl_(vm->fd, KVM_ARM_PREFERRED_TARGET, &v);
    if (r < 0)
        return r;
    v.features[0] = features | (vcpu->id > 0 ? 1u << KVM_ARM_VCPU_POWER_OFF : 0);
    return tn_kvm_ioctl_(vcpu->fd, KVM_ARM_VCPU_INIT, &v);
}

TN_API uint64_t tn_kvm_arm64_mpidr(uint32_t id)
{
    return (id & 0xf) | (id >> 4 & 0xff) << 8 | (id >> 12 & 0xff) << 16;
}

TN_API size_t tn_kvm_arm64_reg_size(uint64_t id)
{
    unsigned shift = (unsigned)((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT);

    return (size_t)1 << (shift < 8 ? shift : 8);
}

TN_API int tn_kvm_arm64_get_reg(const struct tn_kvm_vcpu *vcpu, uint64_t id, void *value)
{
    struct kvm_one_reg v;

    v.id = id;
    v.addr = (uintptr_t)value;
    return tn_kvm_ioctl_(vcpu->fd, KVM_GET_ONE_REG, &v);
}

TN_API int tn_kvm_arm64_set_reg(struct tn_kvm_vcpu *vcpu, uint64_t id, const void *value)
{
    struct kvm_one_reg v;

    v.id = id;
    v.addr = (uintptr_t)value;
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_ONE_REG, &v);
}

TN_API int tn_kvm_arm64_set_boot(struct tn_kvm_vcpu *vcpu, const struct tn_boot_arm64_cpu *cpu)
{
    int r = tn_kvm_arm64_set_reg(vcpu, TN_KVM_ARM64_PC, &cpu->pc);

    return r < 0 ? r : tn_kvm_arm64_set_reg(vcpu, TN_KVM_ARM64_X(0), &cpu->x0);
}

TN_API int tn_kvm_arm64_reg_list(const struct tn_kvm_vcpu *vcpu, uint64_t *list, uint32_t cap)
{
    struct {
        __u64 n;
        __u64 reg[TN_KVM_ARM64_MAX_REGS];
    } v;
    int r;

    v.n = TN_KVM_ARM64_MAX_REGS;
    r = tn_kvm_ioctl_(vcpu->fd, KVM_GET_REG_LIST, &v);
    if (r < 0)
        return errno == E2BIG ? TN_ENOSPC : r;
    if (v.n > cap)
        return TN_ENOSPC;
    for (uint64_t i = 0; i < v.n; i++)
        list[i] = v.reg[i];
    return (int)v.n;
}

TN_API int tn_kvm_arm64_get_events(const struct tn_kvm_vcpu *vcpu, struct kvm_vcpu_events *v)
{
    memset(v, 0, sizeof(*v));
    return tn_kvm_ioctl_(vcpu->fd, KVM_GET_VCPU_EVENTS, v);
}

TN_API int tn_kvm_arm64_set_events(struct tn_kvm_vcpu *vcpu, const struct kvm_vcpu_events *v)
{
    return tn_kvm_ioctl_(vcpu->fd, KVM_SET_VCPU_EVENTS, v);
}

/* The device of a version, with its addresses and its number of interrupts. */
static inline int tn_kvm_arm64_gic_make_(struct tn_kvm_arm64_gic *gic, struct tn_kvm_vm *vm,
                                         const struct tn_kvm_arm64_gic_cfg *cfg, uint32_t version)
{
    bool v3 = version == 3;
    uint64_t dist = cfg->dist, cpu = v3 ? cfg->redist : cfg->cpu_if;
    uint32_t irqs = 32 + cfg->spis;
    int r = tn_kvm_create_device(vm, v3 ? KVM_DEV_TYPE_ARM_VGIC_V3 : KVM_DEV_TYPE_ARM_VGIC_V2);

    if (r < 0)
        return r;
    gic->fd = r;
    gic->version = version;
    r = tn_kvm_set_attr(gic->fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
                        v3 ? KVM_VGIC_V3_ADDR_TYPE_DIST : KVM_VGIC_V2_ADDR_TYPE_DIST, &dist);
    if (r >= 0)
        r = tn_kvm_set_attr(gic->fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
                            v3 ? KVM_VGIC_V3_ADDR_TYPE_REDIST : KVM_VGIC_V2_ADDR_TYPE_CPU, &cpu);
    if (r >= 0)
        r = tn_kvm_set_attr(gic->fd, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &irqs);
    return r;
}

TN_API int tn_kvm_arm64_gic_init(struct tn_kvm_arm64_gic *gic, struct tn_kvm_vm *vm,
                                 const struct tn_kvm_arm64_gic_cfg *cfg)
{
    uint32_t version = cfg->version;
    int r;

    memset(gic, 0, sizeof(*gic));
    gic->fd = -1;
    gic->cpus = cfg->cpus;
    gic->spis = cfg->spis;
    if ((version != 0 && version != 2 && version != 3) || cfg->cpus == 0 ||
        cfg->cpus > (version == 2 ? 8 : TN_KVM_ARM64_MAX_CPUS) || cfg->spis == 0 ||
        cfg->spis % 32 != 0 || cfg->spis > TN_KVM_ARM64_MAX_SPIS)
        return TN_EINVAL;
    r = tn_kvm_arm64_gic_make_(gic, vm, cfg, version ? version : 3);
    if (r < 0 && gic->fd < 0 && version == 0 && errno == ENODEV && cfg->cpus <= 8)
        r = tn_kvm_arm64_gic_make_(gic, vm, cfg, 2);
    if (r < 0)
        tn_kvm_arm64_gic_close(gic);
    return r;
}

TN_API void tn_kvm_arm64_gic_close(struct tn_kvm_arm64_gic *gic)
{
    tn_kvm_close_fd_(&gic->fd);
}

TN_API int tn_kvm_arm64_gic_start(const struct tn_kvm_arm64_gic *gic)
{
    return tn_kvm_set_attr(gic->fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
}

TN_API int tn_kvm_arm64_spi(const struct tn_kvm_vm *vm, uint32_t spi, bool level)
{
    return tn_kvm_irq_line(
        vm, (uint32_t)KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | (32 + spi), level);
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif /* __aarch64__ */
#endif /* TN_KVM_ARM64_H */
