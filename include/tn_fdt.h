/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_fdt - the flattened device tree that tells a kernel what machine it is on.
 *
 * WHAT
 *   Writes the tree of a machine of tenon: processors, memory, interrupt controller, timer, a 16550
 *   serial port, a clock, a power button, a generation id, virtio-mmio devices, and what the boot
 *   loader says in /chosen. For arm64 and riscv64, which have nothing else, and for x86 kernels
 *   that are built with CONFIG_OF. The bytes are libfdt's to arrange; the same configuration makes
 *   the same bytes.
 *
 * USAGE
 *   static _Alignas(8) uint8_t tree[TN_FDT_MAX];
 *   struct tn_fdt_range ram = {0x40000000, 0x20000000};
 *   struct tn_fdt_cfg cfg = {0};
 *   int64_t size;
 *
 *   cfg.machine = TN_FDT_ARM64;
 *   cfg.cpus = 2;
 *   cfg.ram = &ram;
 *   cfg.nram = 1;
 *   cfg.gic = 3;
 *   cfg.chip[0].gpa = 0x08000000;
 *   cfg.chip[0].size = 0x10000;
 *   cfg.chip[1].gpa = 0x080a0000;
 *   cfg.chip[1].size = 2 * 0x20000;
 *   cfg.uart.gpa = 0x09000000;
 *   cfg.uart.size = 0x1000;
 *   cfg.uart.irq = 1;
 *   cfg.bootargs = "console=ttyS0";
 *   size = tn_fdt_build(&cfg, tree, sizeof(tree));
 *   if (size < 0)
 *       return 1;
 *
 * COMPOSITION
 *   The caller copies the result to guest memory with tn_mem_write, at a multiple of 8, and gives
 *   the kernel its address: x0 on arm64, in the room that tn_boot_arm64_load has kept for it; a1 on
 *   riscv64; on x86 behind a struct setup_data of type SETUP_DTB, 2.
 *   An x86 kernel takes from the tree: the CPUs' APIC ids (before 4.17 it starts the first CPU
 *   only), the I/O APIC and the local APIC, the serial port and the virtio devices. Memory, command
 *   line, initrd and seed it takes from the zero page; the tree may say the same. It wants neither
 *   ACPI tables nor an MP table beside it.
 *   Programs link with libfdt: -lfdt.
 *
 * GUEST TRUST
 *   Nothing is read from the guest. bootargs may come from a user; it can't be more than a string.
 *
 * MEMORY
 *   The caller owns the buffer; TN_FDT_MAX bytes are enough for any configuration. With rng_seed or
 *   kaslr_seed given, the result is as secret as they are, until the kernel wipes its own copy.
 *
 * THREADS
 *   No state: any thread, at any time.
 *
 * CONFIG
 *   TN_DECL_ONLY: the declarations alone, which do without libfdt's header.
 *
 * SPEC
 *   Devicetree Specification 0.4: 2.3 properties, 2.4 interrupts, 3 nodes, 5 the format. Linux,
 *   Documentation/devicetree/bindings: arm/cpus.yaml, arm/psci.yaml, riscv/cpus.yaml,
 *   timer/arm,arch_timer.yaml, interrupt-controller/{arm,gic,arm,gic-v3,sifive,plic-1.0.0,
 *   riscv,cpu-intc,intel,ce4100-ioapic,intel,ce4100-lapic}.yaml, serial/8250.yaml,
 *   rtc/arm,pl031.yaml, clock/fixed-clock.yaml, gpio/pl061-gpio.yaml, input/gpio-keys.yaml,
 *   rng/microsoft,vmgenid.yaml, virtio/mmio.yaml; dt-schema: chosen.yaml,
 *   reserved-memory/reserved-memory.yaml.
 *
 * LIMITS
 *   One interrupt controller and one serial port; no PCI, no NUMA, no caches, no cpu-map. A GICv3
 *   has no ITS and one region of redistributors. A PLIC has machine mode's and supervisor mode's
 *   contexts, in this order for each hart; timer and IPIs of riscv64 are the SBI's, there is no
 *   CLINT. x86 has no HPET and no CMOS clock.
 */
#ifndef TN_FDT_H
#define TN_FDT_H

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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_FDT_MAX_CPUS     512u
#define TN_FDT_MAX_RAM      64u
#define TN_FDT_MAX_VIRTIO   256u
#define TN_FDT_MAX_BOOTARGS 4095u /* without the NUL */
#define TN_FDT_MAX_ISA      255u  /* without the NUL */
#define TN_FDT_MAX_SEED     1024u
#define TN_FDT_MAX          0x80000u     /* bytes: more than any tree has */
#define TN_FDT_LIMIT        (1ull << 52) /* above all addresses */

enum tn_fdt_machine { TN_FDT_ARM64 = 1, TN_FDT_RISCV64, TN_FDT_X86 };

/* Guest physical addresses, the last one below TN_FDT_LIMIT. */
struct tn_fdt_range {
    uint64_t gpa;
    uint64_t size; /* bytes; 0: there is none */
};

/* A device with registers in memory, and an interrupt. */
struct tn_fdt_dev {
    uint64_t gpa;
    uint64_t size; /* bytes; 0: there is none */
    uint32_t irq;  /* arm64: SPI, 0..987; riscv64: source of the PLIC, 1..1023; x86: GSI, 1..23 */
};

#define TN_FDT_POWER_LINE 3u /* of the GPIO controller: high while the power button is pressed */

/*
 * What the machine is. The fields of other machines are zero. No two ranges overlap, be it RAM, a
 * chip's or a device's; that of the virtio devices is from the first one's begin to the last one's
 * end. But the generation id may lie in RAM: inside one range and apart from the initrd. The tree
 * then reserves it, so that no kernel takes it for memory; a kernel does so in whole pages of its
 * own, of up to 64 KiB.
 */
struct tn_fdt_cfg {
    uint32_t machine; /* enum tn_fdt_machine */
    uint32_t cpus;    /* 1..512; with a GICv2 1..8; x86: 1..254; CPU 0 boots */
    /*
     * One per CPU, no two the same. arm64: Aff3 to Aff0 in their places in MPIDR_EL1, the other
     * bits 0; riscv64: hart id, below 2^32; x86: APIC id, 0..254. NULL: 0, 1, 2 ... and on arm64,
     * as KVM numbers them, 16 with the same Aff1: 0 .. 15, 0x100 .. 0x10f ...
     */
    const uint64_t *cpu_reg;
    const struct tn_fdt_range *ram; /* none of size 0 */
    uint32_t nram;                  /* 1..64 */
    uint32_t gic;                   /* arm64: 3 or 2 */
    /*
     * arm64, GICv3: distributor, of at least 0x10000, redistributors, of 0x20000 for each CPU;
     * GICv2: distributor, of at least 0x1000, CPU interface, of 0x2000. riscv64: PLIC, of at least
     * 0x200000 and 0x2000 for each CPU. x86: I/O APIC, local APIC, at least 0x20 and 0x400.
     */
    struct tn_fdt_range chip[2];
    struct tn_fdt_dev uart;         /* at least 8 bytes; x86: of I/O ports, below 0x10000 */
    uint32_t uart_clock;            /* Hz; 0: 1843200 */
    struct tn_fdt_dev rtc;          /* arm64: PL031, at least 0x1000 bytes */
    struct tn_fdt_dev gpio;         /* arm64: PL061, at least 0x1000 bytes, with a power button */
    struct tn_fdt_dev genid;        /* arm64: 16 bytes and zeros, pages of 0x1000; it has edges */
    uint32_t virtio;                /* devices, 0..256; with 0 the next three are not looked at */
    struct tn_fdt_dev virtio_first; /* at least 0x100 bytes */
    uint64_t virtio_stride;         /* from one to the next, at least their size */
    uint32_t virtio_irqs;           /* device i has irq + i % virtio_irqs; 0: each its own */
    uint32_t timebase;              /* riscv64: Hz of the time CSR */
    const char *isa;                /* riscv64: as "rv64imafdc_zicsr"; a-z, 0-9 and _; 5..255 */
    uint32_t mmu;                   /* riscv64: Sv39, 48 or 57, as a number; 0: 39 */
    const char *bootargs;           /* at most 4095 bytes and a NUL; NULL: none */
    uint64_t initrd_gpa;            /* inside one range of RAM */
    uint64_t initrd_len;            /* 0: none */
    const uint8_t *rng_seed;        /* random bytes, for this boot alone */
    size_t rng_seed_len;            /* 0..1024; 0: none */
    uint64_t kaslr_seed;            /* random; 0: none */
};

/*
 * Writes the tree into buf, which is aligned to 8 bytes. Returns the bytes of the blob; TN_EINVAL:
 * a field outside its limits, ranges that overlap, an interrupt that two devices have (virtio
 * devices may share theirs), or buf misaligned: buf is then as it was; TN_ENOSPC: cap is less than
 * the tree; TN_EBUG: libfdt has refused what it was asked. Of min(cap, TN_FDT_MAX) bytes those
 * behind the blob are set to zero, and all after TN_ENOSPC and TN_EBUG. (5)
 */
TN_API int64_t tn_fdt_build(const struct tn_fdt_cfg *cfg, uint8_t *buf, size_t cap);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#if defined(__GNUC__) /* libfdt's header is not written for all the warnings that tenon is */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif
#include <libfdt.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#define TN_FDT_MPIDR_      0xff00ffffffull /* the affinity fields of MPIDR_EL1 */
#define TN_FDT_UART_CLOCK_ 1843200u
#define TN_FDT_APB_CLOCK_  24000000u
#define TN_FDT_DEVICES_    6u /* places before RAM's: two chips, serial port, clock, GPIO, virtio */

/* -- what a configuration must be -- */

/*@ predicate tn_fdt_string{L}(char *s) =
      \exists integer n; 0 <= n && \valid_read(s + (0 .. n)) && s[n] == 0;

    predicate tn_fdt_readable(struct tn_fdt_cfg *cfg) =
      \valid_read(cfg) &&
      (cfg->cpu_reg != \null && cfg->cpus <= 512 ==>
        \valid_read(cfg->cpu_reg + (0 .. cfg->cpus - 1))) &&
      (cfg->nram <= 64 ==> \valid_read(cfg->ram + (0 .. cfg->nram - 1))) &&
      (cfg->isa != \null ==> tn_fdt_string(cfg->isa)) &&
      (cfg->bootargs != \null ==> tn_fdt_string(cfg->bootargs));

    logic integer tn_fdt_reg(struct tn_fdt_cfg *cfg, integer i) =
      cfg->cpu_reg != \null ? cfg->cpu_reg[i] :
      cfg->machine == TN_FDT_ARM64 ? i / 16 * 256 + i % 16 : i;

    predicate tn_fdt_reg_ok(integer machine, integer reg) =
      machine == TN_FDT_ARM64 ? reg / 0x1000000 % 0x100 == 0 && reg < 0x10000000000 :
      machine == TN_FDT_RISCV64 ? reg < 0x100000000 : reg < 255;

    predicate tn_fdt_cpus_ok(struct tn_fdt_cfg *cfg) =
      1 <= cfg->cpus <= 512 && (cfg->machine == TN_FDT_X86 ==> cfg->cpus <= 254) &&
      (cfg->gic == 2 ==> cfg->machine == TN_FDT_X86 || cfg->cpus <= 8) &&
      (\forall integer i; 0 <= i < cfg->cpus ==>
        tn_fdt_reg_ok(cfg->machine, tn_fdt_reg(cfg, i))) &&
      (\forall integer i, j; 0 <= j < i < cfg->cpus ==>
        tn_fdt_reg(cfg, i) != tn_fdt_reg(cfg, j));

    predicate tn_fdt_virtio_ok(struct tn_fdt_cfg *cfg) =
      cfg->virtio <= 256 && (cfg->virtio > 0 ==> cfg->virtio_first.size >= 0x100) &&
      (cfg->virtio > 1 ==> cfg->virtio_first.size <= cfg->virtio_stride <= 0x100000000000);

    logic integer tn_fdt_virtio_gpa(struct tn_fdt_cfg *cfg) =
      cfg->virtio == 0 ? 0 : cfg->virtio_first.gpa;

    logic integer tn_fdt_virtio_size(struct tn_fdt_cfg *cfg) =
      cfg->virtio == 0 ? 0 : cfg->virtio_first.size +
        (cfg->virtio - 1) * (cfg->virtio == 1 ? 0 : cfg->virtio_stride);

    logic integer tn_fdt_gpa(struct tn_fdt_cfg *cfg, integer i) =
      i == 0 ? cfg->chip[0].gpa : i == 1 ? cfg->chip[1].gpa :
      i == 2 ? (cfg->machine == TN_FDT_X86 ? 0 : cfg->uart.gpa) : i == 3 ? cfg->rtc.gpa :
      i == 4 ? cfg->gpio.gpa :
      i == 5 ? tn_fdt_virtio_gpa(cfg) : cfg->ram[i - 6].gpa;

    logic integer tn_fdt_size(struct tn_fdt_cfg *cfg, integer i) =
      i == 0 ? cfg->chip[0].size : i == 1 ? cfg->chip[1].size :
      i == 2 ? (cfg->machine == TN_FDT_X86 ? 0 : cfg->uart.size) : i == 3 ? cfg->rtc.size :
      i == 4 ? cfg->gpio.size :
      i == 5 ? tn_fdt_virtio_size(cfg) : cfg->ram[i - 6].size;

    predicate tn_fdt_apart(integer a, integer an, integer b, integer bn) =
      an == 0 || bn == 0 || a + an <= b || b + bn <= a;

    predicate tn_fdt_places_ok(struct tn_fdt_cfg *cfg) =
      1 <= cfg->nram <= 64 &&
      (\forall integer i; 0 <= i < 6 + cfg->nram ==>
        tn_fdt_gpa(cfg, i) + tn_fdt_size(cfg, i) <= 0x10000000000000) &&
      (\forall integer i; 6 <= i < 6 + cfg->nram ==> tn_fdt_size(cfg, i) > 0) &&
      (\forall integer i, j; 0 <= j < i < 6 + cfg->nram ==>
        tn_fdt_apart(tn_fdt_gpa(cfg, i), tn_fdt_size(cfg, i),
                     tn_fdt_gpa(cfg, j), tn_fdt_size(cfg, j)));

    logic integer tn_fdt_lines(struct tn_fdt_cfg *cfg) =
      cfg->virtio_irqs == 0 || cfg->virtio_irqs > cfg->virtio ? cfg->virtio : cfg->virtio_irqs;

    predicate tn_fdt_has_irqs(integer machine, integer irq, integer count) =
      machine == TN_FDT_ARM64 ? irq >= 0 && irq + count <= 988 :
      machine == TN_FDT_RISCV64 ? irq >= 1 && irq + count <= 1024 : irq >= 1 && irq + count <= 24;

    logic struct tn_fdt_dev tn_fdt_dev(struct tn_fdt_cfg *cfg, integer i) =
      i == 0 ? cfg->uart : i == 1 ? cfg->rtc : i == 2 ? cfg->gpio : cfg->genid;

    predicate tn_fdt_irqs_ok(struct tn_fdt_cfg *cfg) =
      (cfg->virtio > 0 ==>
        tn_fdt_has_irqs(cfg->machine, cfg->virtio_first.irq, tn_fdt_lines(cfg))) &&
      (\forall integer i; 0 <= i < 4 && tn_fdt_dev(cfg, i).size > 0 ==>
        tn_fdt_has_irqs(cfg->machine, tn_fdt_dev(cfg, i).irq, 1) &&
        tn_fdt_apart(tn_fdt_dev(cfg, i).irq, 1, cfg->virtio_first.irq, tn_fdt_lines(cfg))) &&
      (\forall integer i, j; 0 <= j < i < 4 && tn_fdt_dev(cfg, i).size > 0 &&
        tn_fdt_dev(cfg, j).size > 0 ==> tn_fdt_dev(cfg, i).irq != tn_fdt_dev(cfg, j).irq);

    predicate tn_fdt_inside(integer gpa, integer size, struct tn_fdt_range r) =
      r.gpa <= gpa && gpa + size <= r.gpa + r.size;

    predicate tn_fdt_in_ram(struct tn_fdt_cfg *cfg, integer gpa, integer size) =
      \exists integer i; 0 <= i < cfg->nram && tn_fdt_inside(gpa, size, cfg->ram[i]);

    predicate tn_fdt_initrd_ok(struct tn_fdt_cfg *cfg) =
      cfg->initrd_len == 0 || tn_fdt_in_ram(cfg, cfg->initrd_gpa, cfg->initrd_len);

    predicate tn_fdt_genid_ok(struct tn_fdt_cfg *cfg) =
      cfg->genid.gpa % 0x1000 == 0 && cfg->genid.size % 0x1000 == 0 &&
      cfg->genid.gpa + cfg->genid.size <= 0x10000000000000 &&
      tn_fdt_apart(cfg->genid.gpa, cfg->genid.size, cfg->initrd_gpa, cfg->initrd_len) &&
      (\forall integer i; 0 <= i < 6 + cfg->nram ==>
        tn_fdt_apart(cfg->genid.gpa, cfg->genid.size, tn_fdt_gpa(cfg, i), tn_fdt_size(cfg, i)) ||
        (i >= 6 && tn_fdt_inside(cfg->genid.gpa, cfg->genid.size, cfg->ram[i - 6])));
*/

/* The number of a CPU. */
/*@ requires tn_fdt_readable(cfg) && i < cfg->cpus <= 512;
    assigns \nothing;
    ensures \result == tn_fdt_reg(cfg, i); */
static inline uint64_t tn_fdt_cpu_(const struct tn_fdt_cfg *cfg, uint32_t i)
{
    if (cfg->cpu_reg)
        return cfg->cpu_reg[i];
    return cfg->machine == TN_FDT_ARM64 ? i / 16 * 256 + i % 16 : i;
}

/*@ requires \valid_read(cfg);
    assigns \nothing;
    ensures \result == (cfg->machine == TN_FDT_X86 ? 254 : cfg->gic == 2 ? 8 : 512); */
static inline uint32_t tn_fdt_max_cpus_(const struct tn_fdt_cfg *cfg)
{
    if (cfg->machine == TN_FDT_X86)
        return 254;
    return cfg->gic == 2 ? 8 : TN_FDT_MAX_CPUS;
}

/*@ assigns \nothing;
    ensures \result == true <==> tn_fdt_reg_ok(machine, reg); */
static inline bool tn_fdt_cpu_ok_(uint32_t machine, uint64_t reg)
{
    switch (machine) {
    case TN_FDT_ARM64:
        return reg / 0x1000000 % 0x100 == 0 && reg <= TN_FDT_MPIDR_;
    case TN_FDT_RISCV64:
        return reg <= 0xffffffff;
    default:
        return reg <= 254;
    }
}

/*@ requires tn_fdt_readable(cfg);
    assigns \nothing;
    ensures \result == true <==> tn_fdt_cpus_ok(cfg); */
static inline bool tn_fdt_cpus_ok_(const struct tn_fdt_cfg *cfg)
{
    if (cfg->cpus == 0 || cfg->cpus > tn_fdt_max_cpus_(cfg))
        return false;
    /*@ loop invariant 0 <= i <= cfg->cpus;
        loop invariant \forall integer k; 0 <= k < i ==>
          tn_fdt_reg_ok(cfg->machine, tn_fdt_reg(cfg, k));
        loop invariant \forall integer k, j; 0 <= j < k < i ==>
          tn_fdt_reg(cfg, k) != tn_fdt_reg(cfg, j);
        loop assigns i;
        loop variant cfg->cpus - i; */
    for (uint32_t i = 0; i < cfg->cpus; i++) {
        if (!tn_fdt_cpu_ok_(cfg->machine, tn_fdt_cpu_(cfg, i)))
            return false;
        /*@ loop invariant 0 <= j <= i;
            loop invariant \forall integer k; 0 <= k < j ==>
              tn_fdt_reg(cfg, i) != tn_fdt_reg(cfg, k);
            loop assigns j;
            loop variant i - j; */
        for (uint32_t j = 0; j < i; j++) {
            if (tn_fdt_cpu_(cfg, i) == tn_fdt_cpu_(cfg, j))
                return false;
        }
    }
    return true;
}

/*@ requires \valid_read(cfg);
    assigns \nothing;
    ensures \result == true <==> tn_fdt_virtio_ok(cfg); */
static inline bool tn_fdt_virtio_ok_(const struct tn_fdt_cfg *cfg)
{
    if (cfg->virtio == 0)
        return true;
    if (cfg->virtio > TN_FDT_MAX_VIRTIO || cfg->virtio_first.size < 0x100)
        return false;
    return cfg->virtio == 1 || (cfg->virtio_stride <= TN_FDT_LIMIT / TN_FDT_MAX_VIRTIO &&
                                cfg->virtio_first.size <= cfg->virtio_stride);
}

/* From the first virtio device to the end of the last. */
/*@ requires \valid_read(cfg) && tn_fdt_virtio_ok(cfg);
    assigns \nothing;
    ensures \result.gpa == tn_fdt_virtio_gpa(cfg) && \result.size == tn_fdt_virtio_size(cfg); */
static inline struct tn_fdt_range tn_fdt_window_(const struct tn_fdt_cfg *cfg)
{
    struct tn_fdt_range r = {0, 0};

    if (cfg->virtio == 0)
        return r;
    r.gpa = cfg->virtio_first.gpa;
    r.size = cfg->virtio_first.size;
    if (cfg->virtio > 1)
        r.size += (cfg->virtio - 1) * cfg->virtio_stride;
    return r;
}

/* The ith range that nothing else may overlap; its size is 0 when there is no such device. */
/*@ requires tn_fdt_readable(cfg) && i < 6 + cfg->nram && cfg->nram <= 64;
    requires tn_fdt_virtio_ok(cfg);
    assigns \nothing;
    ensures \result.gpa == tn_fdt_gpa(cfg, i) && \result.size == tn_fdt_size(cfg, i); */
static inline struct tn_fdt_range tn_fdt_place_(const struct tn_fdt_cfg *cfg, uint32_t i)
{
    struct tn_fdt_range r = {0, 0};

    if (i < 2)
        return cfg->chip[i];
    if (i >= TN_FDT_DEVICES_)
        return cfg->ram[i - TN_FDT_DEVICES_];
    if (i == 2 && cfg->machine != TN_FDT_X86) { /* there it has ports */
        r.gpa = cfg->uart.gpa;
        r.size = cfg->uart.size;
    } else if (i == 3) {
        r.gpa = cfg->rtc.gpa;
        r.size = cfg->rtc.size;
    } else if (i == 4) {
        r.gpa = cfg->gpio.gpa;
        r.size = cfg->gpio.size;
    } else if (i == 5) {
        r = tn_fdt_window_(cfg);
    }
    return r;
}

/*@ assigns \nothing;
    ensures \result == true <==> gpa + size <= limit; */
static inline bool tn_fdt_below_(uint64_t gpa, uint64_t size, uint64_t limit)
{
    return size <= limit && gpa <= limit - size;
}

/*@ requires a.gpa + a.size <= 0x10000000000000 && b.gpa + b.size <= 0x10000000000000;
    assigns \nothing;
    ensures \result == true <==> tn_fdt_apart(a.gpa, a.size, b.gpa, b.size); */
static inline bool tn_fdt_apart_(struct tn_fdt_range a, struct tn_fdt_range b)
{
    return a.size == 0 || b.size == 0 || a.gpa + a.size <= b.gpa || b.gpa + b.size <= a.gpa;
}

/*@ requires tn_fdt_readable(cfg) && tn_fdt_virtio_ok(cfg);
    assigns \nothing;
    ensures \result == true <==> tn_fdt_places_ok(cfg); */
static inline bool tn_fdt_places_ok_(const struct tn_fdt_cfg *cfg)
{
    if (cfg->nram == 0 || cfg->nram > TN_FDT_MAX_RAM)
        return false;
    /*@ loop invariant 0 <= i <= 6 + cfg->nram;
        loop invariant \forall integer k; 0 <= k < i ==>
          tn_fdt_gpa(cfg, k) + tn_fdt_size(cfg, k) <= 0x10000000000000;
        loop invariant \forall integer k; 6 <= k < i ==> tn_fdt_size(cfg, k) > 0;
        loop invariant \forall integer k, j; 0 <= j < k < i ==>
          tn_fdt_apart(tn_fdt_gpa(cfg, k), tn_fdt_size(cfg, k),
                       tn_fdt_gpa(cfg, j), tn_fdt_size(cfg, j));
        loop assigns i;
        loop variant 6 + cfg->nram - i; */
    for (uint32_t i = 0; i < TN_FDT_DEVICES_ + cfg->nram; i++) {
        struct tn_fdt_range r = tn_fdt_place_(cfg, i);

        if (!tn_fdt_below_(r.gpa, r.size, TN_FDT_LIMIT))
            return false;
        if (r.size == 0 && i >= TN_FDT_DEVICES_)
            return false;
        /*@ loop invariant 0 <= j <= i;
            loop invariant \forall integer k; 0 <= k < j ==>
              tn_fdt_apart(tn_fdt_gpa(cfg, i), tn_fdt_size(cfg, i),
                           tn_fdt_gpa(cfg, k), tn_fdt_size(cfg, k));
            loop assigns j;
            loop variant i - j; */
        for (uint32_t j = 0; j < i; j++) {
            if (!tn_fdt_apart_(r, tn_fdt_place_(cfg, j)))
                return false;
        }
    }
    return true;
}

/*@ requires \valid_read(chip) && align > 0;
    assigns \nothing;
    ensures \result == true <==> chip->size >= least && chip->gpa % align == 0; */
static inline bool tn_fdt_chip_ok_(const struct tn_fdt_range *chip, uint64_t least, uint64_t align)
{
    return chip->size >= least && chip->gpa % align == 0;
}

/*@ requires \valid_read(cfg) && cfg->cpus <= 512;
    assigns \nothing;
    ensures \result == true && cfg->machine == TN_FDT_RISCV64 ==>
      cfg->chip[0].size >= 0x200000 + cfg->cpus * 0x2000 && cfg->chip[1].size == 0;
    ensures \result == true && cfg->machine == TN_FDT_X86 ==>
      cfg->chip[0].size >= 0x20 && cfg->chip[1].size >= 0x400;
    ensures \result == true && cfg->machine == TN_FDT_ARM64 && cfg->gic == 2 ==>
      cfg->chip[0].size >= 0x1000 && cfg->chip[1].size >= 0x2000;
    ensures \result == true && cfg->machine == TN_FDT_ARM64 && cfg->gic != 2 ==>
      cfg->chip[0].size >= 0x10000 && cfg->chip[1].size >= cfg->cpus * 0x20000 &&
      cfg->chip[0].gpa % 0x10000 == 0 && cfg->chip[1].gpa % 0x10000 == 0; */
static inline bool tn_fdt_chips_ok_(const struct tn_fdt_cfg *cfg)
{
    const struct tn_fdt_range *chip = cfg->chip;

    if (cfg->machine == TN_FDT_RISCV64)
        return tn_fdt_chip_ok_(&chip[0], 0x200000 + (uint64_t)cfg->cpus * 0x2000, 0x1000) &&
               chip[1].gpa == 0 && chip[1].size == 0;
    if (cfg->machine == TN_FDT_X86)
        return tn_fdt_chip_ok_(&chip[0], 0x20, 0x400) && tn_fdt_chip_ok_(&chip[1], 0x400, 0x1000);
    if (cfg->gic == 2)
        return tn_fdt_chip_ok_(&chip[0], 0x1000, 0x1000) &&
               tn_fdt_chip_ok_(&chip[1], 0x2000, 0x1000);
    return tn_fdt_chip_ok_(&chip[0], 0x10000, 0x10000) &&
           tn_fdt_chip_ok_(&chip[1], (uint64_t)cfg->cpus * 0x20000, 0x10000);
}

/* The interrupts that the virtio devices share. */
/*@ requires \valid_read(cfg);
    assigns \nothing;
    ensures \result == tn_fdt_lines(cfg) <= cfg->virtio;
    ensures cfg->virtio > 0 <==> \result > 0; */
static inline uint32_t tn_fdt_lines_(const struct tn_fdt_cfg *cfg)
{
    return cfg->virtio_irqs == 0 || cfg->virtio_irqs > cfg->virtio ? cfg->virtio : cfg->virtio_irqs;
}

/* Whether the machine has the interrupts irq .. irq + count - 1; count is at least 1. */
/*@ requires count > 0;
    assigns \nothing;
    ensures \result == true <==> tn_fdt_has_irqs(machine, irq, count); */
static inline bool tn_fdt_has_irqs_(uint32_t machine, uint32_t irq, uint32_t count)
{
    uint32_t first = machine == TN_FDT_ARM64 ? 0 : 1;
    uint32_t end = machine == TN_FDT_ARM64 ? 988 : machine == TN_FDT_RISCV64 ? 1024 : 24;

    return irq >= first && count <= end && irq <= end - count;
}

/* The ith device that has an interrupt of its own. */
/*@ requires \valid_read(cfg);
    assigns \nothing;
    ensures \result == tn_fdt_dev(cfg, i); */
static inline struct tn_fdt_dev tn_fdt_dev_(const struct tn_fdt_cfg *cfg, uint32_t i)
{
    return i == 0 ? cfg->uart : i == 1 ? cfg->rtc : i == 2 ? cfg->gpio : cfg->genid;
}

/*@ requires \valid_read(cfg);
    assigns \nothing;
    ensures \result == true <==> tn_fdt_irqs_ok(cfg); */
static inline bool tn_fdt_irqs_ok_(const struct tn_fdt_cfg *cfg)
{
    uint32_t lines = tn_fdt_lines_(cfg), first = cfg->virtio_first.irq;

    if (lines > 0 && !tn_fdt_has_irqs_(cfg->machine, first, lines))
        return false;
    /*@ loop invariant 0 <= i <= 4;
        loop invariant \forall integer k; 0 <= k < i && tn_fdt_dev(cfg, k).size > 0 ==>
          tn_fdt_has_irqs(cfg->machine, tn_fdt_dev(cfg, k).irq, 1) &&
          tn_fdt_apart(tn_fdt_dev(cfg, k).irq, 1, cfg->virtio_first.irq, tn_fdt_lines(cfg));
        loop invariant \forall integer k, j; 0 <= j < k < i && tn_fdt_dev(cfg, k).size > 0 &&
          tn_fdt_dev(cfg, j).size > 0 ==> tn_fdt_dev(cfg, k).irq != tn_fdt_dev(cfg, j).irq;
        loop assigns i;
        loop variant 4 - i; */
    for (uint32_t i = 0; i < 4; i++) {
        struct tn_fdt_dev d = tn_fdt_dev_(cfg, i);

        if (d.size == 0)
            continue;
        if (!tn_fdt_has_irqs_(cfg->machine, d.irq, 1) || (d.irq >= first && d.irq - first < lines))
            return false;
        /*@ loop invariant 0 <= j <= i;
            loop invariant \forall integer k; 0 <= k < j && tn_fdt_dev(cfg, k).size > 0 ==>
              tn_fdt_dev(cfg, k).irq != tn_fdt_dev(cfg, i).irq;
            loop assigns j;
            loop variant i - j; */
        for (uint32_t j = 0; j < i; j++) {
            struct tn_fdt_dev e = tn_fdt_dev_(cfg, j);

            if (e.size > 0 && e.irq == d.irq)
                return false;
        }
    }
    return true;
}

/* Whether the fields of one machine are as they must be, and those of the others zero. */
/*@ requires \valid_read(cfg);
    assigns \nothing;
    ensures \result == true ==> TN_FDT_ARM64 <= cfg->machine <= TN_FDT_X86;
    ensures \result == true ==> (cfg->machine == TN_FDT_ARM64 <==> cfg->gic != 0);
    ensures \result == true ==> cfg->gic == 0 || cfg->gic == 2 || cfg->gic == 3;
    ensures \result == true ==> (cfg->machine == TN_FDT_RISCV64 <==> cfg->isa != \null);
    ensures \result == true && cfg->machine != TN_FDT_ARM64 ==>
      cfg->rtc.size == 0 && cfg->gpio.size == 0 && cfg->genid.size == 0;
    ensures \result == true && cfg->machine == TN_FDT_X86 ==>
      cfg->uart.gpa + cfg->uart.size <= 0x10000; */
static inline bool tn_fdt_machine_ok_(const struct tn_fdt_cfg *cfg)
{
    bool arm64 = cfg->gic != 0 || cfg->rtc.size != 0 || cfg->gpio.size != 0 || cfg->genid.size != 0;

    switch (cfg->machine) {
    case TN_FDT_ARM64:
        return (cfg->gic == 2 || cfg->gic == 3) && cfg->timebase == 0 && !cfg->isa &&
               cfg->mmu == 0 && (cfg->rtc.size == 0 || cfg->rtc.size >= 0x1000) &&
               (cfg->gpio.size == 0 || cfg->gpio.size >= 0x1000);
    case TN_FDT_RISCV64:
        return !arm64 && cfg->timebase > 0 && cfg->isa &&
               (cfg->mmu == 0 || cfg->mmu == 39 || cfg->mmu == 48 || cfg->mmu == 57);
    case TN_FDT_X86:
        return !arm64 && cfg->timebase == 0 && !cfg->isa && cfg->mmu == 0 &&
               tn_fdt_below_(cfg->uart.gpa, cfg->uart.size, 0x10000);
    default:
        return false;
    }
}

/* The length of a string, or max + 1 when it is more than max. */
/*@ requires tn_fdt_string(text) && max <= 4095;
    assigns \nothing;
    ensures \forall integer k; 0 <= k < \result ==> text[k] != 0;
    ensures \result <= max ? text[\result] == 0 : \result == max + 1;
    ensures \forall integer k; 0 <= k <= \result && k <= max ==> \valid_read(text + k); */
static inline uint32_t tn_fdt_length_(const char *text, uint32_t max)
{
    uint32_t n = 0;

    /*@ loop invariant n <= max + 1;
        loop invariant \forall integer k; 0 <= k < n ==> text[k] != 0 && \valid_read(text + k);
        loop assigns n;
        loop variant max + 1 - n; */
    while (n <= max && text[n] != 0)
        n++;
    return n;
}

/*@ requires tn_fdt_string(isa);
    assigns \nothing;
    ensures \result == true ==> \exists integer n; 5 <= n <= 255 && isa[n] == 0 &&
      \forall integer k; 4 <= k < n ==>
        isa[k] == '_' || 'a' <= isa[k] <= 'z' || '0' <= isa[k] <= '9'; */
static inline bool tn_fdt_isa_ok_(const char *isa)
{
    uint32_t n = tn_fdt_length_(isa, TN_FDT_MAX_ISA);

    if (n < 5 || n > TN_FDT_MAX_ISA)
        return false;
    if (isa[0] != 'r' || isa[1] != 'v' || isa[2] != '6' || isa[3] != '4')
        return false;
    /*@ loop invariant 4 <= i <= n;
        loop invariant \forall integer k; 4 <= k < i ==>
          isa[k] == '_' || 'a' <= isa[k] <= 'z' || '0' <= isa[k] <= '9';
        loop assigns i;
        loop variant n - i; */
    for (uint32_t i = 4; i < n; i++) {
        char c = isa[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_')
            return false;
    }
    return true;
}

/*@ requires r.gpa + r.size <= 0x10000000000000;
    assigns \nothing;
    ensures \result == true <==> tn_fdt_inside(gpa, size, r); */
static inline bool tn_fdt_inside_(uint64_t gpa, uint64_t size, struct tn_fdt_range r)
{
    return gpa >= r.gpa && tn_fdt_below_(gpa - r.gpa, size, r.size);
}

/* Whether one range of RAM has all of it. */
/*@ requires tn_fdt_readable(cfg) && tn_fdt_places_ok(cfg);
    assigns \nothing;
    ensures \result == true <==> tn_fdt_in_ram(cfg, gpa, size); */
static inline bool tn_fdt_in_ram_(const struct tn_fdt_cfg *cfg, uint64_t gpa, uint64_t size)
{
    /*@ loop invariant 0 <= i <= cfg->nram;
        loop invariant \forall integer k; 0 <= k < i ==> !tn_fdt_inside(gpa, size, cfg->ram[k]);
        loop assigns i;
        loop variant cfg->nram - i; */
    for (uint32_t i = 0; i < cfg->nram; i++) {
        /*@ assert tn_fdt_gpa(cfg, 6 + i) == cfg->ram[i].gpa; */
        /*@ assert tn_fdt_size(cfg, 6 + i) == cfg->ram[i].size; */
        if (tn_fdt_inside_(gpa, size, cfg->ram[i]))
            return true;
    }
    return false;
}

/*@ requires tn_fdt_readable(cfg) && tn_fdt_places_ok(cfg);
    assigns \nothing;
    ensures \result == true <==> tn_fdt_initrd_ok(cfg); */
static inline bool tn_fdt_initrd_ok_(const struct tn_fdt_cfg *cfg)
{
    return cfg->initrd_len == 0 || tn_fdt_in_ram_(cfg, cfg->initrd_gpa, cfg->initrd_len);
}

/*@ requires tn_fdt_readable(cfg) && tn_fdt_virtio_ok(cfg) && tn_fdt_places_ok(cfg);
    requires tn_fdt_initrd_ok(cfg);
    assigns \nothing;
    ensures \result == true <==> cfg->genid.size == 0 || tn_fdt_genid_ok(cfg); */
static inline bool tn_fdt_genid_ok_(const struct tn_fdt_cfg *cfg)
{
    struct tn_fdt_range id, initrd;

    id.gpa = cfg->genid.gpa;
    id.size = cfg->genid.size;
    initrd.gpa = cfg->initrd_len > 0 ? cfg->initrd_gpa : 0;
    initrd.size = cfg->initrd_len;
    if (id.size == 0)
        return true;
    /*@ assert \forall integer k; 0 <= k < cfg->nram ==>
          tn_fdt_gpa(cfg, 6 + k) == cfg->ram[k].gpa &&
          tn_fdt_size(cfg, 6 + k) == cfg->ram[k].size &&
          tn_fdt_gpa(cfg, 6 + k) + tn_fdt_size(cfg, 6 + k) <= 0x10000000000000; */
    /*@ assert initrd.gpa + initrd.size <= 0x10000000000000; */
    if (id.gpa % 0x1000 != 0 || id.size % 0x1000 != 0 ||
        !tn_fdt_below_(id.gpa, id.size, TN_FDT_LIMIT) || !tn_fdt_apart_(id, initrd))
        return false;
    /*@ loop invariant 0 <= i <= 6 + cfg->nram;
        loop invariant \forall integer k; 0 <= k < i ==>
          tn_fdt_apart(id.gpa, id.size, tn_fdt_gpa(cfg, k), tn_fdt_size(cfg, k)) ||
          (k >= 6 && tn_fdt_inside(id.gpa, id.size, cfg->ram[k - 6]));
        loop assigns i;
        loop variant 6 + cfg->nram - i; */
    for (uint32_t i = 0; i < TN_FDT_DEVICES_ + cfg->nram; i++) {
        struct tn_fdt_range r = tn_fdt_place_(cfg, i);

        if (!tn_fdt_apart_(id, r) && (i < TN_FDT_DEVICES_ || !tn_fdt_inside_(id.gpa, id.size, r)))
            return false;
    }
    return true;
}

/* Whether every field is inside its limits. */
/*@ requires tn_fdt_readable(cfg);
    assigns \nothing;
    ensures \result == true ==> tn_fdt_cpus_ok(cfg) && tn_fdt_virtio_ok(cfg) &&
      tn_fdt_places_ok(cfg) && tn_fdt_irqs_ok(cfg) && tn_fdt_initrd_ok(cfg) &&
      (cfg->genid.size == 0 || tn_fdt_genid_ok(cfg));
    ensures \result == true ==> TN_FDT_ARM64 <= cfg->machine <= TN_FDT_X86;
    ensures \result == true ==> (cfg->machine == TN_FDT_RISCV64 <==> cfg->isa != \null);
    ensures \result == true ==> cfg->uart.size == 0 || cfg->uart.size >= 8;
    ensures \result == true ==>
      cfg->rng_seed_len <= 1024 && (cfg->rng_seed_len > 0 ==> cfg->rng_seed != \null);
    ensures \result == true && cfg->bootargs != \null ==>
      \exists integer n; 0 <= n <= 4095 && cfg->bootargs[n] == 0; */
static inline bool tn_fdt_ok_(const struct tn_fdt_cfg *cfg)
{
    return tn_fdt_machine_ok_(cfg) && tn_fdt_cpus_ok_(cfg) && tn_fdt_virtio_ok_(cfg) &&
           tn_fdt_places_ok_(cfg) && tn_fdt_chips_ok_(cfg) && tn_fdt_irqs_ok_(cfg) &&
           (cfg->uart.size == 0 || cfg->uart.size >= 8) && tn_fdt_initrd_ok_(cfg) &&
           tn_fdt_genid_ok_(cfg) && (!cfg->isa || tn_fdt_isa_ok_(cfg->isa)) &&
           (!cfg->bootargs ||
            tn_fdt_length_(cfg->bootargs, TN_FDT_MAX_BOOTARGS) <= TN_FDT_MAX_BOOTARGS) &&
           cfg->rng_seed_len <= TN_FDT_MAX_SEED && (cfg->rng_seed_len == 0 || cfg->rng_seed);
}

/* -- the tree as it is written; after an error nothing more is -- */

struct tn_fdt_out_ {
    void *fdt;
    int err; /* libfdt's: the first */
};

static inline void tn_fdt_begin_(struct tn_fdt_out_ *o, const char *name)
{
    if (o->err == 0)
        o->err = fdt_begin_node(o->fdt, name);
}

/* The last hexadecimal digit of a number. */
/*@ assigns \nothing;
    ensures '0' <= \result <= '9' || 'a' <= \result <= 'f';
    ensures \result == (v % 16 < 10 ? '0' + v % 16 : 'a' - 10 + v % 16); */
static inline char tn_fdt_digit_(uint64_t v)
{
    int digit = (int)(v % 16);

    return (char)(digit < 10 ? '0' + digit : 'a' - 10 + digit);
}

#define TN_FDT_NAME_ (31u + 16u + 1u) /* bytes of a node's name, of 31 and 16 characters */

/* Writes a name of at most 31 characters, as "cpu@", and a unit address in hexadecimal. (2.2.1) */
/*@ requires \valid(text + (0 .. 47)) && tn_fdt_string(name);
    requires \separated(text + (0 .. 47), name + (0 .. 30));
    assigns text[0 .. 47];
    ensures \exists integer n; 1 <= n <= 47 && text[n] == 0; */
static inline void tn_fdt_name_(char *text, const char *name, uint64_t unit)
{
    uint32_t n = 0, len = tn_fdt_length_(name, 30); /* 31 when it is more than 30 */
    int shift = 60;

    /*@ loop invariant 0 <= n <= len;
        loop assigns n, text[0 .. 47];
        loop variant len - n; */
    for (; n < len; n++)
        text[n] = name[n];
    /*@ loop invariant 0 <= shift <= 60 && shift % 4 == 0;
        loop assigns shift;
        loop variant shift; */
    while (shift > 0 && unit >> shift == 0)
        shift -= 4;
    /*@ loop invariant -4 <= shift <= 60 && shift % 4 == 0 && n <= 46 - shift / 4;
        loop invariant shift < 60 ==> n + shift / 4 <= 46 && (shift == -4 ==> n >= 1);
        loop assigns shift, n, text[0 .. 47];
        loop variant shift + 4; */
    for (; shift >= 0; shift -= 4)
        text[n++] = tn_fdt_digit_(unit >> shift);
    text[n] = 0;
}

static inline void tn_fdt_begin_at_(struct tn_fdt_out_ *o, const char *name, uint64_t unit)
{
    char text[TN_FDT_NAME_];

    tn_fdt_name_(text, name, unit);
    tn_fdt_begin_(o, text);
}

static inline void tn_fdt_end_(struct tn_fdt_out_ *o)
{
    if (o->err == 0)
        o->err = fdt_end_node(o->fdt);
}

static inline void tn_fdt_bytes_(struct tn_fdt_out_ *o, const char *name, const void *value,
                                 size_t len)
{
    if (o->err == 0)
        o->err = fdt_property(o->fdt, name, value, (int)len);
}

/* A literal: one string, or a list with NULs between. */
#define TN_FDT_TEXT_(o, name, text) tn_fdt_bytes_((o), (name), (text), sizeof(text))

static inline void tn_fdt_flag_(struct tn_fdt_out_ *o, const char *name)
{
    tn_fdt_bytes_(o, name, "", 0);
}

static inline void tn_fdt_string_(struct tn_fdt_out_ *o, const char *name, const char *text)
{
    tn_fdt_bytes_(o, name, text, (size_t)tn_fdt_length_(text, TN_FDT_MAX_BOOTARGS) + 1);
}

static inline void tn_fdt_cells_(struct tn_fdt_out_ *o, const char *name, const uint32_t *cell,
                                 uint32_t n)
{
    void *to = NULL;

    if (o->err == 0)
        o->err = fdt_property_placeholder(o->fdt, name, (int)(4 * n), &to);
    for (uint32_t i = 0; o->err == 0 && i < n; i++)
        fdt32_st((uint8_t *)to + 4 * i, cell[i]);
}

static inline void tn_fdt_u32_(struct tn_fdt_out_ *o, const char *name, uint32_t value)
{
    tn_fdt_cells_(o, name, &value, 1);
}

static inline void tn_fdt_u64_(struct tn_fdt_out_ *o, const char *name, uint64_t value)
{
    uint32_t cell[2] = {(uint32_t)(value >> 32), (uint32_t)value};

    tn_fdt_cells_(o, name, cell, 2);
}

/* One or two ranges of a node that is the root's child: two cells each for address and size. */
static inline void tn_fdt_reg_(struct tn_fdt_out_ *o, const struct tn_fdt_range *range, uint32_t n)
{
    uint32_t cell[8];

    for (uint32_t i = 0; i < n; i++) {
        cell[4 * i] = (uint32_t)(range[i].gpa >> 32);
        cell[4 * i + 1] = (uint32_t)range[i].gpa;
        cell[4 * i + 2] = (uint32_t)(range[i].size >> 32);
        cell[4 * i + 3] = (uint32_t)range[i].size;
    }
    tn_fdt_cells_(o, "reg", cell, 4 * n);
}

static inline void tn_fdt_spaces_(struct tn_fdt_out_ *o, uint32_t address, uint32_t size)
{
    tn_fdt_u32_(o, "#address-cells", address);
    tn_fdt_u32_(o, "#size-cells", size);
}

/* -- the nodes -- */

#define TN_FDT_PHANDLE_CHIP_  1u /* what devices interrupt */
#define TN_FDT_PHANDLE_CLOCK_ 2u /* the PL031's and the PL061's */
#define TN_FDT_PHANDLE_LAPIC_ 3u
#define TN_FDT_PHANDLE_GPIO_  4u
#define TN_FDT_PHANDLE_HART_  16u /* hart 0's own interrupt controller; then the others' */

/*
 * A device's interrupt: edge-triggered, low to high, or level-triggered, active high. A GIC has
 * shared interrupts (0), 1 for such an edge and 4 for such a level. An I/O APIC's are 3 and 1: so
 * Linux programs the pin, whatever older versions of it name these numbers. A PLIC does not tell.
 */
static inline void tn_fdt_irq_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg, uint32_t irq,
                               bool edge)
{
    uint32_t gic[3] = {0, irq, edge ? 1u : 4u}, pin[2] = {irq, edge ? 3u : 1u};

    if (cfg->machine == TN_FDT_ARM64)
        tn_fdt_cells_(o, "interrupts", gic, 3);
    else
        tn_fdt_cells_(o, "interrupts", pin, cfg->machine == TN_FDT_X86 ? 2 : 1);
}

static inline void tn_fdt_device_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg,
                                  const struct tn_fdt_dev *dev, bool edge)
{
    struct tn_fdt_range range = {dev->gpa, dev->size};

    tn_fdt_reg_(o, &range, 1);
    tn_fdt_irq_(o, cfg, dev->irq, edge);
}

static inline void tn_fdt_provider_(struct tn_fdt_out_ *o, uint32_t cells, uint32_t phandle)
{
    tn_fdt_flag_(o, "interrupt-controller");
    tn_fdt_u32_(o, "#interrupt-cells", cells);
    tn_fdt_u32_(o, "#address-cells", 0);
    tn_fdt_u32_(o, "phandle", phandle);
}

static inline void tn_fdt_chosen_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    char path[TN_FDT_NAME_];

    tn_fdt_begin_(o, "chosen");
    if (cfg->bootargs)
        tn_fdt_string_(o, "bootargs", cfg->bootargs);
    if (cfg->initrd_len > 0) {
        tn_fdt_u64_(o, "linux,initrd-start", cfg->initrd_gpa);
        tn_fdt_u64_(o, "linux,initrd-end", cfg->initrd_gpa + cfg->initrd_len);
    }
    if (cfg->rng_seed_len > 0)
        tn_fdt_bytes_(o, "rng-seed", cfg->rng_seed, cfg->rng_seed_len);
    if (cfg->kaslr_seed != 0)
        tn_fdt_u64_(o, "kaslr-seed", cfg->kaslr_seed);
    if (cfg->uart.size > 0) {
        tn_fdt_name_(path, cfg->machine == TN_FDT_X86 ? "/isa@0/serial@i" : "/serial@",
                     cfg->uart.gpa);
        tn_fdt_string_(o, "stdout-path", path);
    }
    tn_fdt_end_(o);
}

static inline void tn_fdt_cpu_arm64_(struct tn_fdt_out_ *o, uint64_t mpidr, uint32_t cells)
{
    TN_FDT_TEXT_(o, "compatible", "arm,armv8");
    if (cells == 2)
        tn_fdt_u64_(o, "reg", mpidr);
    else
        tn_fdt_u32_(o, "reg", (uint32_t)mpidr);
    TN_FDT_TEXT_(o, "enable-method", "psci");
}

static inline void tn_fdt_cpu_riscv64_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg,
                                       uint32_t i)
{
    char mmu[] = "riscv,sv39";

    if (cfg->mmu != 0) {
        mmu[8] = (char)('0' + cfg->mmu / 10);
        mmu[9] = (char)('0' + cfg->mmu % 10);
    }
    TN_FDT_TEXT_(o, "compatible", "riscv");
    tn_fdt_u32_(o, "reg", (uint32_t)tn_fdt_cpu_(cfg, i));
    tn_fdt_string_(o, "riscv,isa", cfg->isa);
    tn_fdt_string_(o, "mmu-type", mmu);
    tn_fdt_begin_(o, "interrupt-controller");
    TN_FDT_TEXT_(o, "compatible", "riscv,cpu-intc");
    tn_fdt_provider_(o, 1, TN_FDT_PHANDLE_HART_ + i);
    tn_fdt_end_(o);
}

static inline void tn_fdt_cpu_x86_(struct tn_fdt_out_ *o, uint32_t apic_id)
{
    tn_fdt_u32_(o, "reg", apic_id);
    tn_fdt_u32_(o, "intel,apic-id", apic_id);
}

/* An MPIDR takes two cells when a CPU has an Aff3; everything else takes one. (cpus.yaml) */
static inline uint32_t tn_fdt_cpu_cells_(const struct tn_fdt_cfg *cfg)
{
    for (uint32_t i = 0; i < cfg->cpus; i++) {
        if (tn_fdt_cpu_(cfg, i) > UINT32_MAX)
            return 2;
    }
    return 1;
}

static inline void tn_fdt_cpus_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    uint32_t cells = tn_fdt_cpu_cells_(cfg);

    tn_fdt_begin_(o, "cpus");
    tn_fdt_spaces_(o, cells, 0);
    if (cfg->machine == TN_FDT_RISCV64)
        tn_fdt_u32_(o, "timebase-frequency", cfg->timebase);
    for (uint32_t i = 0; i < cfg->cpus; i++) {
        uint64_t reg = tn_fdt_cpu_(cfg, i);

        tn_fdt_begin_at_(o, "cpu@", reg);
        TN_FDT_TEXT_(o, "device_type", "cpu");
        if (cfg->machine == TN_FDT_ARM64)
            tn_fdt_cpu_arm64_(o, reg, cells);
        else if (cfg->machine == TN_FDT_RISCV64)
            tn_fdt_cpu_riscv64_(o, cfg, i);
        else
            tn_fdt_cpu_x86_(o, (uint32_t)reg);
        tn_fdt_end_(o);
    }
    tn_fdt_end_(o);
}

static inline void tn_fdt_memory_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    for (uint32_t i = 0; i < cfg->nram; i++) {
        tn_fdt_begin_at_(o, "memory@", cfg->ram[i].gpa);
        TN_FDT_TEXT_(o, "device_type", "memory");
        tn_fdt_reg_(o, &cfg->ram[i], 1);
        tn_fdt_end_(o);
    }
}

static inline void tn_fdt_psci_(struct tn_fdt_out_ *o)
{
    tn_fdt_begin_(o, "psci");
    TN_FDT_TEXT_(o, "compatible", "arm,psci-1.0\0arm,psci-0.2");
    TN_FDT_TEXT_(o, "method", "hvc");
    tn_fdt_end_(o);
}

static inline void tn_fdt_gic_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    tn_fdt_begin_at_(o, "interrupt-controller@", cfg->chip[0].gpa);
    if (cfg->gic == 2)
        TN_FDT_TEXT_(o, "compatible", "arm,cortex-a15-gic");
    else
        TN_FDT_TEXT_(o, "compatible", "arm,gic-v3");
    tn_fdt_reg_(o, cfg->chip, 2);
    tn_fdt_provider_(o, 3, TN_FDT_PHANDLE_CHIP_);
    tn_fdt_end_(o);
}

/* The secure, the non-secure, the virtual, the hypervisor's timer: level-triggered, active low. */
static inline void tn_fdt_timer_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    uint32_t mask = cfg->gic == 2 ? ((1u << cfg->cpus) - 1) << 8 : 0; /* the CPUs that have it */
    uint32_t how = mask | 8;
    uint32_t irqs[12] = {1, 13, how, 1, 14, how, 1, 11, how, 1, 10, how};

    tn_fdt_begin_(o, "timer");
    TN_FDT_TEXT_(o, "compatible", "arm,armv8-timer");
    tn_fdt_cells_(o, "interrupts", irqs, 12);
    tn_fdt_flag_(o, "always-on");
    tn_fdt_end_(o);
}

/* Each hart has two contexts: machine mode's external interrupt, 11, and supervisor mode's, 9. */
static inline void tn_fdt_plic_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    uint32_t sources = tn_fdt_lines_(cfg) > 0 ? cfg->virtio_first.irq + tn_fdt_lines_(cfg) - 1 : 1;
    int size = (int)(16 * cfg->cpus);
    void *to = NULL;

    if (cfg->uart.size > 0 && cfg->uart.irq > sources)
        sources = cfg->uart.irq;
    tn_fdt_begin_at_(o, "interrupt-controller@", cfg->chip[0].gpa);
    TN_FDT_TEXT_(o, "compatible", "sifive,plic-1.0.0\0riscv,plic0");
    tn_fdt_reg_(o, cfg->chip, 1);
    if (o->err == 0)
        o->err = fdt_property_placeholder(o->fdt, "interrupts-extended", size, &to);
    for (uint32_t i = 0; o->err == 0 && i < cfg->cpus; i++) {
        uint8_t *cell = (uint8_t *)to + (size_t)16 * i;

        fdt32_st(cell, TN_FDT_PHANDLE_HART_ + i);
        fdt32_st(cell + 4, 11);
        fdt32_st(cell + 8, TN_FDT_PHANDLE_HART_ + i);
        fdt32_st(cell + 12, 9);
    }
    tn_fdt_u32_(o, "riscv,ndev", sources);
    tn_fdt_provider_(o, 1, TN_FDT_PHANDLE_CHIP_);
    tn_fdt_end_(o);
}

static inline void tn_fdt_apics_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    tn_fdt_begin_at_(o, "interrupt-controller@", cfg->chip[0].gpa);
    TN_FDT_TEXT_(o, "compatible", "intel,ce4100-ioapic");
    tn_fdt_reg_(o, &cfg->chip[0], 1);
    tn_fdt_provider_(o, 2, TN_FDT_PHANDLE_CHIP_);
    tn_fdt_end_(o);
    tn_fdt_begin_at_(o, "interrupt-controller@", cfg->chip[1].gpa);
    TN_FDT_TEXT_(o, "compatible", "intel,ce4100-lapic");
    tn_fdt_reg_(o, &cfg->chip[1], 1);
    tn_fdt_provider_(o, 2, TN_FDT_PHANDLE_LAPIC_);
    tn_fdt_flag_(o, "intel,virtual-wire-mode"); /* there is no IMCR */
    tn_fdt_end_(o);
}

static inline void tn_fdt_uart_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    uint32_t ports[3] = {1, (uint32_t)cfg->uart.gpa, (uint32_t)cfg->uart.size};
    uint32_t all[5] = {1, 0, 0, 0, 0x10000}; /* the bus's port 0 is the CPU's port 0 */
    bool x86 = cfg->machine == TN_FDT_X86;

    if (cfg->uart.size == 0)
        return;
    if (x86) { /* bit 0 of an ISA address's first cell says that it is a port (ISA binding) */
        tn_fdt_begin_(o, "isa@0");
        TN_FDT_TEXT_(o, "compatible", "isa");
        tn_fdt_spaces_(o, 2, 1);
        tn_fdt_cells_(o, "ranges", all, 5);
        tn_fdt_begin_at_(o, "serial@i", cfg->uart.gpa);
        tn_fdt_cells_(o, "reg", ports, 3);
        tn_fdt_irq_(o, cfg, cfg->uart.irq, true);
    } else {
        tn_fdt_begin_at_(o, "serial@", cfg->uart.gpa);
        tn_fdt_device_(o, cfg, &cfg->uart, false);
    }
    TN_FDT_TEXT_(o, "compatible", "ns16550a");
    tn_fdt_u32_(o, "clock-frequency", cfg->uart_clock ? cfg->uart_clock : TN_FDT_UART_CLOCK_);
    tn_fdt_u32_(o, "reg-shift", 0);
    tn_fdt_u32_(o, "reg-io-width", 1);
    tn_fdt_end_(o);
    if (x86)
        tn_fdt_end_(o);
}

/* The clock that PrimeCells' bus interfaces run on has no register: its frequency is all. */
static inline void tn_fdt_clock_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    if (cfg->rtc.size == 0 && cfg->gpio.size == 0)
        return;
    tn_fdt_begin_(o, "apb-pclk");
    TN_FDT_TEXT_(o, "compatible", "fixed-clock");
    tn_fdt_u32_(o, "#clock-cells", 0);
    tn_fdt_u32_(o, "clock-frequency", TN_FDT_APB_CLOCK_);
    TN_FDT_TEXT_(o, "clock-output-names", "clk24mhz");
    tn_fdt_u32_(o, "phandle", TN_FDT_PHANDLE_CLOCK_);
    tn_fdt_end_(o);
}

static inline void tn_fdt_clocked_(struct tn_fdt_out_ *o)
{
    tn_fdt_u32_(o, "clocks", TN_FDT_PHANDLE_CLOCK_);
    TN_FDT_TEXT_(o, "clock-names", "apb_pclk");
}

static inline void tn_fdt_rtc_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    if (cfg->rtc.size == 0)
        return;
    tn_fdt_begin_at_(o, "rtc@", cfg->rtc.gpa);
    TN_FDT_TEXT_(o, "compatible", "arm,pl031\0arm,primecell");
    tn_fdt_device_(o, cfg, &cfg->rtc, false);
    tn_fdt_clocked_(o);
    tn_fdt_end_(o);
}

/* The controller, and the button on one of its lines: active high, KEY_POWER of Linux's input. */
static inline void tn_fdt_gpio_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    uint32_t line[3] = {TN_FDT_PHANDLE_GPIO_, TN_FDT_POWER_LINE, 0};

    if (cfg->gpio.size == 0)
        return;
    tn_fdt_begin_at_(o, "gpio@", cfg->gpio.gpa);
    TN_FDT_TEXT_(o, "compatible", "arm,pl061\0arm,primecell");
    tn_fdt_device_(o, cfg, &cfg->gpio, false);
    tn_fdt_clocked_(o);
    tn_fdt_flag_(o, "gpio-controller");
    tn_fdt_u32_(o, "#gpio-cells", 2);
    tn_fdt_provider_(o, 2, TN_FDT_PHANDLE_GPIO_);
    tn_fdt_end_(o);
    tn_fdt_begin_(o, "gpio-keys");
    TN_FDT_TEXT_(o, "compatible", "gpio-keys");
    tn_fdt_begin_(o, "key-poweroff");
    TN_FDT_TEXT_(o, "label", "Power Button");
    tn_fdt_u32_(o, "linux,code", 116);
    tn_fdt_cells_(o, "gpios", line, 3);
    tn_fdt_end_(o);
    tn_fdt_end_(o);
}

static inline void tn_fdt_genid_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    struct tn_fdt_range range = {cfg->genid.gpa, cfg->genid.size};

    if (range.size == 0)
        return;
    tn_fdt_begin_at_(o, "rng@", range.gpa);
    TN_FDT_TEXT_(o, "compatible", "microsoft,vmgenid");
    tn_fdt_device_(o, cfg, &cfg->genid, true);
    tn_fdt_end_(o);
    if (!tn_fdt_in_ram_(cfg, range.gpa, range.size))
        return;
    tn_fdt_begin_(o, "reserved-memory");
    tn_fdt_spaces_(o, 2, 2);
    tn_fdt_flag_(o, "ranges");
    tn_fdt_begin_at_(o, "rng@", range.gpa);
    tn_fdt_reg_(o, &range, 1);
    tn_fdt_flag_(o, "no-map");
    tn_fdt_end_(o);
    tn_fdt_end_(o);
}

static inline void tn_fdt_virtio_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    for (uint32_t i = 0; i < cfg->virtio; i++) {
        struct tn_fdt_dev dev = cfg->virtio_first;

        dev.gpa += i * cfg->virtio_stride;
        dev.irq += i % tn_fdt_lines_(cfg);
        tn_fdt_begin_at_(o, "virtio@", dev.gpa);
        TN_FDT_TEXT_(o, "compatible", "virtio,mmio");
        tn_fdt_device_(o, cfg, &dev, true);
        tn_fdt_flag_(o, "dma-coherent");
        tn_fdt_end_(o);
    }
}

static inline void tn_fdt_root_(struct tn_fdt_out_ *o, const struct tn_fdt_cfg *cfg)
{
    tn_fdt_begin_(o, "");
    TN_FDT_TEXT_(o, "compatible", "linux,dummy-virt");
    TN_FDT_TEXT_(o, "model", "linux,dummy-virt");
    tn_fdt_spaces_(o, 2, 2);
    tn_fdt_u32_(o, "interrupt-parent", TN_FDT_PHANDLE_CHIP_);
    tn_fdt_chosen_(o, cfg);
    tn_fdt_cpus_(o, cfg);
    tn_fdt_memory_(o, cfg);
    if (cfg->machine == TN_FDT_ARM64) {
        tn_fdt_psci_(o);
        tn_fdt_gic_(o, cfg);
        tn_fdt_timer_(o, cfg);
    } else if (cfg->machine == TN_FDT_RISCV64) {
        tn_fdt_plic_(o, cfg);
    } else {
        tn_fdt_apics_(o, cfg);
    }
    tn_fdt_uart_(o, cfg);
    tn_fdt_clock_(o, cfg);
    tn_fdt_rtc_(o, cfg);
    tn_fdt_gpio_(o, cfg);
    tn_fdt_genid_(o, cfg);
    tn_fdt_virtio_(o, cfg);
    tn_fdt_end_(o);
}

/* What an error of libfdt's is to the caller: he gave too little room, or this module is wrong. */
static inline int tn_fdt_err_(int err)
{
    return err == -FDT_ERR_NOSPACE ? TN_ENOSPC : TN_EBUG;
}

TN_API int64_t tn_fdt_build(const struct tn_fdt_cfg *cfg, uint8_t *buf, size_t cap)
{
    size_t room = cap < TN_FDT_MAX ? cap : TN_FDT_MAX, size = 0;
    struct tn_fdt_out_ o = {buf, 0};

    if ((uintptr_t)buf % 8 != 0 || !tn_fdt_ok_(cfg))
        return TN_EINVAL;
    o.err = fdt_create(buf, (int)room);
    if (o.err == 0)
        o.err = fdt_finish_reservemap(buf);
    tn_fdt_root_(&o, cfg);
    if (o.err == 0)
        o.err = fdt_finish(buf);
    if (o.err == 0) {
        fdt_set_boot_cpuid_phys(buf, (uint32_t)tn_fdt_cpu_(cfg, 0));
        size = fdt_totalsize(buf);
    }
    if (size < room)
        __builtin_memset(buf + size, 0, room - size);
    return o.err == 0 ? (int64_t)size : tn_fdt_err_(o.err);
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
