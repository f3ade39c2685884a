/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_mptable - the Intel MultiProcessor table that tells a PC kernel its CPUs and interrupt wiring.
 *
 * WHAT
 *   Writes the MP floating pointer and, right behind it, the configuration table: processors, an
 *   ISA bus, one I/O APIC whose pin n carries interrupt line n, and the local interrupts (ExtINT
 *   on LINT0, NMI on LINT1). For guests that run without ACPI; with ACPI, tn_acpi says the same.
 *
 * USAGE
 *   static uint8_t table[TN_MPTABLE_MAX];
 *   struct tn_mptable_cfg cfg = {0};
 *   int size;
 *
 *   cfg.gpa = 0xf0000;
 *   cfg.cpus = 4;
 *   size = tn_mptable_build(&cfg, table, sizeof(table));
 *   if (size < 0)
 *       return 1;
 *
 * COMPOSITION
 *   The caller copies the result to cfg.gpa with tn_mem_write, and keeps that range out of the
 *   memory map's usable RAM. A kernel searches the first KiB of memory, the KiB at 0x9fc00
 *   (room for 40 CPUs) and 0xf0000 to 0xfffff for the pointer. The wiring is the one that KVM sets
 *   up by default: GSI n to pin n of the I/O APIC.
 *
 * GUEST TRUST
 *   Nothing is read from the guest.
 *
 * MEMORY
 *   The caller owns the buffer: TN_MPTABLE_SIZE(cpus, irqs) bytes, or TN_MPTABLE_MAX for any.
 *
 * THREADS
 *   No state: any thread, at any time.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   Intel MultiProcessor Specification 1.4: 4.1 floating pointer, 4.2 header, 4.3.1 processors,
 *   4.3.2 bus, 4.3.3 I/O APIC, 4.3.4 I/O interrupts, 4.3.5 local interrupts.
 *
 * LIMITS
 *   254 CPUs with 8-bit APIC ids, one I/O APIC, no PCI bus entries, no extended table. Line 2, the
 *   cascade of the two PICs, has no entry.
 */
#ifndef TN_MPTABLE_H
#define TN_MPTABLE_H

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

#define TN_MPTABLE_MAX_CPUS 254u
#define TN_MPTABLE_MAX_IRQS 24u /* the pins of an I/O APIC */

/* Bytes of the table for 1..254 CPUs and 16..24 interrupt lines. */
#define TN_MPTABLE_SIZE(cpus, irqs) (84u + 20u * (cpus) + 8u * (irqs))
#define TN_MPTABLE_MAX              TN_MPTABLE_SIZE(TN_MPTABLE_MAX_CPUS, TN_MPTABLE_MAX_IRQS)

/* What the machine is. All zero but gpa and cpus is the usual one. */
struct tn_mptable_cfg {
    uint64_t gpa;            /* where the buffer will lie: a multiple of 16, all below 1 MiB */
    uint32_t cpus;           /* 1..254; CPU 0 boots */
    const uint8_t *apic_ids; /* one per CPU, 0..254, no two the same; NULL: 0 .. cpus - 1 */
    uint32_t lapic_base;     /* 0: 0xfee00000 */
    uint32_t ioapic_base;    /* 0: 0xfec00000 */
    uint32_t cpu_signature;  /* stepping, model, family, as CPUID(1).EAX; 0: 0x600 */
    uint32_t cpu_features;   /* as CPUID(1).EDX; 0: FPU and APIC */
    uint8_t ioapic_id;       /* no CPU's, not 255; 0: the first free id, cpus by default */
    uint8_t irqs;            /* lines 0 .. irqs - 1 go to the same pins; 16..24; 0: 16 */
};

/*@ logic integer tn_mptable_sum{L}(uint8_t *p, integer n) =
      n <= 0 ? 0 : tn_mptable_sum{L}(p, n - 1) + \at(p[n - 1], L);
    logic integer tn_mptable_size(integer cpus, integer irqs) =
      84 + 20 * cpus + 8 * (irqs == 0 ? 16 : irqs);
*/

/*
 * Writes the floating pointer and the configuration table into buf. Returns the bytes written,
 * TN_MPTABLE_SIZE(cpus, irqs). TN_EINVAL: a number of CPUs or lines out of range, an id that is
 * reserved or used twice, gpa misaligned or the table's end above 1 MiB; TN_ENOSPC: cap is less
 * than the table. buf is then as it was. (4.1, 4.2, 4.3)
 */
/*@ requires \valid_read(cfg) && \valid(buf + (0 .. cap - 1));
    requires cfg->apic_ids != \null && 1 <= cfg->cpus <= 254 ==>
      \valid_read(cfg->apic_ids + (0 .. cfg->cpus - 1));
    requires \separated(buf + (0 .. cap - 1), cfg);
    requires cfg->apic_ids != \null ==>
      \separated(buf + (0 .. cap - 1), cfg->apic_ids + (0 .. cfg->cpus - 1));
    assigns buf[0 .. cap - 1];
    ensures \result == TN_EINVAL || \result == TN_ENOSPC ||
      (\result == tn_mptable_size(cfg->cpus, cfg->irqs) && \result <= cap &&
       cfg->gpa + \result <= 0x100000);
    ensures \result > 0 ==> tn_mptable_sum(buf, 16) % 256 == 0 &&
      tn_mptable_sum(buf + 16, \result - 16) % 256 == 0;
    ensures \forall integer i; (\result < 0 ? 0 : \result) <= i < cap ==> buf[i] == \old(buf[i]); */
TN_API int tn_mptable_build(const struct tn_mptable_cfg *cfg, uint8_t *buf, size_t cap);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_MPTABLE_POINTER_ 16u /* the size of the floating pointer */
#define TN_MPTABLE_HEADER_  44u
#define TN_MPTABLE_CPU_     20u /* a processor's entry; every other is 8 */

/*@ requires \valid_read(cfg) && i < cfg->cpus <= 254;
    requires cfg->apic_ids != \null ==> \valid_read(cfg->apic_ids + (0 .. cfg->cpus - 1));
    assigns \nothing; */
static inline uint8_t tn_mptable_id_(const struct tn_mptable_cfg *cfg, uint32_t i)
{
    return cfg->apic_ids ? cfg->apic_ids[i] : (uint8_t)i;
}

/* Whether one of the first n CPUs has the id. */
/*@ requires \valid_read(cfg) && n <= cfg->cpus <= 254;
    requires cfg->apic_ids != \null ==> \valid_read(cfg->apic_ids + (0 .. cfg->cpus - 1));
    assigns \nothing; */
static inline bool tn_mptable_taken_(const struct tn_mptable_cfg *cfg, uint32_t n, uint8_t id)
{
    /*@ loop invariant 0 <= i <= n; loop assigns i; loop variant n - i; */
    for (uint32_t i = 0; i < n; i++) {
        if (tn_mptable_id_(cfg, i) == id)
            return true;
    }
    return false;
}

/* Checks the ids; returns the I/O APIC's. */
/*@ requires \valid_read(cfg) && cfg->cpus <= 254;
    requires cfg->apic_ids != \null ==> \valid_read(cfg->apic_ids + (0 .. cfg->cpus - 1));
    assigns \nothing;
    ensures \result == TN_EINVAL || 0 <= \result < 255; */
static inline int tn_mptable_ids_(const struct tn_mptable_cfg *cfg)
{
    uint8_t id = cfg->ioapic_id;

    /*@ loop invariant 0 <= i <= cfg->cpus; loop assigns i; loop variant cfg->cpus - i; */
    for (uint32_t i = 0; i < cfg->cpus; i++) {
        uint8_t cpu = tn_mptable_id_(cfg, i);
        if (cpu == 255 || tn_mptable_taken_(cfg, i, cpu))
            return TN_EINVAL;
    }
    if (id == 0) { /* 254 CPUs leave one of 0..254 free */
        /*@ loop assigns id; loop variant 255 - id; */
        while (id < 255 && tn_mptable_taken_(cfg, cfg->cpus, id))
            id++;
    }
    if (id == 255 || tn_mptable_taken_(cfg, cfg->cpus, id))
        return TN_EINVAL;
    return id;
}

/*@ requires n <= 16 && \valid(dst + (0 .. n - 1)) && \valid_read(text + (0 .. n - 1));
    requires \separated(dst + (0 .. n - 1), text + (0 .. n - 1));
    assigns dst[0 .. n - 1]; */
static inline void tn_mptable_text_(uint8_t *dst, const char *text, uint32_t n)
{
    /*@ loop invariant 0 <= i <= n; loop assigns i, dst[0 .. n - 1]; loop variant n - i; */
    for (uint32_t i = 0; i < n; i++)
        dst[i] = (uint8_t)text[i];
}

/* The second half of sealing: puts at p[at] what the sum lacks to a multiple of 256. */
/*@ requires at < len <= 0xffff && \valid(p + (0 .. len - 1));
    requires p[at] == 0 && sum == tn_mptable_sum(p, len);
    assigns p[at];
    ensures tn_mptable_sum(p, len) % 256 == 0; */
static inline void tn_mptable_balance_(uint8_t *p, uint32_t len, uint32_t at, uint32_t sum)
{
    p[at] = (uint8_t)((256 - sum % 256) % 256);
    (void)len;
    /*@ ghost
      uint32_t i = 0;
      /@ loop invariant 0 <= i <= len;
         loop invariant tn_mptable_sum(p, i) ==
           tn_mptable_sum{Pre}(p, i) + (i > at ? p[at] : 0);
         loop assigns i;
         loop variant len - i; @/
      while (i < len)
        i++;
    */
}

/* Makes the bytes sum up to 0 modulo 256 by setting the one at p[at]. */
/*@ requires at < len <= 0xffff && \valid(p + (0 .. len - 1));
    assigns p[at];
    ensures tn_mptable_sum(p, len) % 256 == 0; */
static inline void tn_mptable_seal_(uint8_t *p, uint32_t len, uint32_t at)
{
    uint32_t sum = 0;

    p[at] = 0;
    /*@ loop invariant 0 <= i <= len && 0 <= sum <= 255 * i && sum == tn_mptable_sum(p, i);
        loop assigns i, sum;
        loop variant len - i; */
    for (uint32_t i = 0; i < len; i++)
        sum += p[i];
    tn_mptable_balance_(p, len, at, sum);
}

/* An interrupt's entry (4.3.4, 4.3.5); flags 0: polarity and trigger are the bus's. */
/*@ requires \valid(p + (0 .. 7)); assigns p[0 .. 7]; */
static inline void tn_mptable_irq_(uint8_t *p, uint8_t entry, uint8_t type, uint8_t line,
                                   uint8_t apic, uint8_t pin)
{
    tn_put_(p, 8, 0);
    p[0] = entry;
    p[1] = type;
    p[5] = line; /* p[4] is the source bus: 0, the ISA bus */
    p[6] = apic;
    p[7] = pin;
}

/* The floating pointer (4.1), at p, to the n bytes of table behind it. */
/*@ requires n <= 0xffff && \valid(p + (0 .. 15 + n));
    assigns p[0 .. 15];
    ensures tn_mptable_sum(p, 16) % 256 == 0;
    ensures tn_mptable_sum(p + 16, n) == \old(tn_mptable_sum(p + 16, n)); */
static inline void tn_mptable_pointer_(uint8_t *p, uint32_t n, uint64_t gpa)
{
    tn_mptable_text_(p, "_MP_", 4);
    tn_put_(p + 4, 4, gpa + TN_MPTABLE_POINTER_);
    tn_put_(p + 8, 8, 0); /* feature bytes 0: a table is present, virtual wire mode */
    p[8] = TN_MPTABLE_POINTER_ / 16;
    p[9] = 4; /* revision 1.4 */
    tn_mptable_seal_(p, TN_MPTABLE_POINTER_, 10);
    (void)n;
    /*@ ghost
      uint32_t i = 0;
      /@ loop invariant 0 <= i <= n;
         loop invariant tn_mptable_sum(p + 16, i) == tn_mptable_sum{Pre}(p + 16, i);
         loop assigns i;
         loop variant n - i; @/
      while (i < n)
        i++;
    */
}

/* The header (4.2) of a table of len bytes; its checksum comes last, when all else is there. */
/*@ requires \valid(p + (0 .. 43)); assigns p[0 .. 43]; */
static inline void tn_mptable_header_(uint8_t *p, uint32_t len, uint32_t entries, uint32_t lapic)
{
    tn_mptable_text_(p, "PCMP", 4);
    tn_put_(p + 4, 2, len);
    p[6] = 4; /* revision 1.4 */
    p[7] = 0;
    tn_mptable_text_(p + 8, "TENON   ", 8);
    tn_mptable_text_(p + 16, "VM          ", 12);
    tn_put_(p + 28, 6, 0); /* no OEM table */
    tn_put_(p + 34, 2, entries);
    tn_put_(p + 36, 4, lapic);
    tn_put_(p + 40, 4, 0); /* no extended table */
}

/* A processor's entry (4.3.1). */
/*@ requires \valid(p + (0 .. 19)); assigns p[0 .. 19]; */
static inline void tn_mptable_cpu_(uint8_t *p, uint8_t id, bool boots, uint32_t signature,
                                   uint32_t features)
{
    p[0] = 0;
    p[1] = id;
    p[2] = 0x14;          /* the local APIC's version */
    p[3] = boots ? 3 : 1; /* enabled; the bootstrap processor */
    tn_put_(p + 4, 4, signature);
    tn_put_(p + 8, 4, features);
    tn_put_(p + 12, 8, 0);
}

/* The ISA bus (4.3.2) and the I/O APIC (4.3.3). */
/*@ requires \valid(p + (0 .. 15)); assigns p[0 .. 15]; */
static inline void tn_mptable_bus_(uint8_t *p, uint8_t ioapic_id, uint32_t ioapic_base)
{
    p[0] = 1;
    p[1] = 0;
    tn_mptable_text_(p + 2, "ISA   ", 6);
    p[8] = 2;
    p[9] = ioapic_id;
    p[10] = 0x11; /* the I/O APIC's version */
    p[11] = 1;    /* enabled */
    tn_put_(p + 12, 4, ioapic_base);
}

/* The interrupts: lines to pins (4.3.4), ExtINT and NMI to LINT0 and LINT1 (4.3.5). */
/*@ requires 16 <= irqs <= 24 && \valid(p + (0 .. 8 * irqs + 7));
    assigns p[0 .. 8 * irqs + 7]; */
static inline void tn_mptable_irqs_(uint8_t *p, uint32_t irqs, uint8_t ioapic, uint8_t boot_cpu)
{
    uint32_t at = 0;

    /*@ loop invariant 0 <= i <= irqs && at == 8 * (i > 2 ? i - 1 : i);
        loop assigns i, at, p[0 .. 8 * irqs + 7];
        loop variant irqs - i; */
    for (uint32_t i = 0; i < irqs; i++) {
        if (i == 2)
            continue;
        tn_mptable_irq_(p + at, 3, 0, (uint8_t)i, ioapic, (uint8_t)i);
        at += 8;
    }
    tn_mptable_irq_(p + at, 4, 3, 0, boot_cpu, 0);
    tn_mptable_irq_(p + at + 8, 4, 1, 0, 255, 1); /* 255: every local APIC */
}

/* Writes a table whose configuration and room are checked. */
/*@ requires \valid_read(cfg) && 1 <= cfg->cpus <= 254 && 16 <= irqs <= 24;
    requires size == 84 + 20 * cfg->cpus + 8 * irqs && \valid(buf + (0 .. size - 1));
    requires cfg->apic_ids != \null ==> \valid_read(cfg->apic_ids + (0 .. cfg->cpus - 1));
    requires \separated(buf + (0 .. size - 1), cfg);
    requires cfg->apic_ids != \null ==>
      \separated(buf + (0 .. size - 1), cfg->apic_ids + (0 .. cfg->cpus - 1));
    assigns buf[0 .. size - 1];
    ensures tn_mptable_sum(buf, 16) % 256 == 0;
    ensures tn_mptable_sum(buf + 16, size - 16) % 256 == 0; */
static inline void tn_mptable_write_(const struct tn_mptable_cfg *cfg, uint32_t irqs,
                                     uint8_t ioapic, uint8_t *buf, uint32_t size)
{
    uint32_t signature = cfg->cpu_signature ? cfg->cpu_signature : 0x600;
    uint32_t features = cfg->cpu_features ? cfg->cpu_features : 0x201;
    uint32_t len = size - TN_MPTABLE_POINTER_;
    uint32_t at = TN_MPTABLE_POINTER_ + TN_MPTABLE_HEADER_;
    uint8_t boot_cpu = tn_mptable_id_(cfg, 0);

    tn_mptable_header_(buf + TN_MPTABLE_POINTER_, len, cfg->cpus + irqs + 3,
                       cfg->lapic_base ? cfg->lapic_base : 0xfee00000u);
    /*@ loop invariant 0 <= i <= cfg->cpus && at == 60 + 20 * i;
        loop assigns i, at, buf[0 .. size - 1];
        loop variant cfg->cpus - i; */
    for (uint32_t i = 0; i < cfg->cpus; i++) {
        tn_mptable_cpu_(buf + at, tn_mptable_id_(cfg, i), i == 0, signature, features);
        at += TN_MPTABLE_CPU_;
    }
    tn_mptable_bus_(buf + at, ioapic, cfg->ioapic_base ? cfg->ioapic_base : 0xfec00000u);
    tn_mptable_irqs_(buf + at + 16, irqs, ioapic, boot_cpu);
    tn_mptable_seal_(buf + TN_MPTABLE_POINTER_, len, 7);
    tn_mptable_pointer_(buf, len, cfg->gpa);
}

TN_API int tn_mptable_build(const struct tn_mptable_cfg *cfg, uint8_t *buf, size_t cap)
{
    uint32_t irqs = cfg->irqs ? cfg->irqs : 16;
    uint32_t size;
    int ioapic;

    if (cfg->cpus == 0 || cfg->cpus > TN_MPTABLE_MAX_CPUS || irqs < 16 ||
        irqs > TN_MPTABLE_MAX_IRQS)
        return TN_EINVAL;
    size = TN_MPTABLE_SIZE(cfg->cpus, irqs);
    if (cfg->gpa % 16 != 0 || cfg->gpa > 0x100000 - size)
        return TN_EINVAL;
    ioapic = tn_mptable_ids_(cfg);
    if (ioapic < 0)
        return ioapic;
    if (cap < size)
        return TN_ENOSPC;
    tn_mptable_write_(cfg, irqs, (uint8_t)ioapic, buf, size);
    return (int)size;
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
