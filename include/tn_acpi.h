/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_acpi - the ACPI tables of a small PC without legacy hardware.
 *
 * WHAT
 *   Writes RSDP, XSDT, FADT, MADT and DSDT into one buffer: hardware-reduced ACPI, the CPUs, one
 *   I/O APIC whose pins are the global interrupts 0 to 23, registers for reset and power off, and
 *   in the DSDT the processors, \_S5 and whatever AML the caller adds. Helpers describe in that AML
 *   a serial port, a virtio-mmio device, a VM generation id, a power button and a generic event
 *   device.
 *
 * USAGE
 *   static uint8_t tables[64 * 1024];
 *   uint8_t body[256];
 *   struct tn_aml a;
 *   struct tn_acpi_cfg cfg = {0};
 *   struct tn_acpi_layout layout;
 *   int64_t len;
 *
 *   tn_aml_init(&a, body, sizeof(body));
 *   tn_aml_scope_begin(&a, "\\_SB");
 *   tn_acpi_aml_uart(&a, 0x3f8, 4, 1);
 *   tn_aml_end(&a);
 *   len = tn_aml_finish(&a);
 *   if (len < 0)
 *       return 1;
 *   cfg.gpa = 0xe0000;
 *   cfg.cpus = 4;
 *   cfg.sleep_control.space = TN_ACPI_IO;
 *   cfg.sleep_control.address = 0x600;
 *   cfg.sleep_status.space = TN_ACPI_IO;
 *   cfg.sleep_status.address = 0x601;
 *   cfg.dsdt = body;
 *   cfg.dsdt_len = (size_t)len;
 *   if (tn_acpi_build(&cfg, tables, sizeof(tables), &layout) < 0)
 *       return 1;
 *
 * COMPOSITION
 *   The caller copies the result to cfg.gpa with tn_mem_write, reports that range as reserved or
 *   ACPI data, and gives the kernel cfg.gpa, where the RSDP lies, in its boot parameters; a kernel
 *   that is told nothing searches 0xe0000 to 0xfffff for it.
 *   A generation id is 16 random bytes, written before the guest starts; who clones the guest, or
 *   runs a saved state of it again, writes 16 others and raises the interrupt of its event. The
 *   edge of the power button's event is one press.
 *   The machine serves the registers that it names here, one byte each: a write for which
 *   tn_acpi_is_s5 holds to the sleep control register is power off; the sleep status register
 *   reads 0 and ignores writes; a write of reset_value to the reset register is a reset.
 *
 * GUEST TRUST
 *   Only tn_acpi_is_s5 takes a guest's number, any.
 *
 * MEMORY
 *   The caller owns the buffer, tn_acpi_size(cfg) bytes, and the AML, which lie apart.
 *
 * THREADS
 *   No state: any thread, at any time.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   ACPI 6.5: 5.2.5.3 RSDP, 5.2.6 headers, 5.2.8 XSDT, 5.2.9 FADT, 5.2.12 MADT, 5.2.11.1 DSDT,
 *   4.8.3.7 sleep registers, 4.8.3.6 reset register, 4.8.2.2.1.2 power button, 5.6.9 generic
 *   event device, 7.4.2 \_Sx, 8.4 processors. Microsoft's Virtual Machine Generation ID (2012).
 *
 * LIMITS
 *   254 CPUs with 8-bit APIC ids; no PIC, PIT, power management timer, fixed buttons, NUMA, PCI.
 */
#ifndef TN_ACPI_H
#define TN_ACPI_H

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

#include "tn_aml.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

#define TN_ACPI_MAX_CPUS 254u
#define TN_ACPI_MAX_DSDT 0x1000000u /* bytes of the caller's AML */
#define TN_ACPI_LIMIT    (1ull << 52)

#define TN_ACPI_MEMORY 0u /* address spaces of registers */
#define TN_ACPI_IO     1u

/* A register of one byte; address 0: there is none. */
struct tn_acpi_reg {
    uint8_t space;
    uint64_t address;
};

/* What the machine is. All zero but gpa and cpus is a machine that cannot be turned off. */
struct tn_acpi_cfg {
    uint64_t gpa;            /* where the buffer will lie: a multiple of 16, all below 2^52 */
    uint32_t cpus;           /* 1..254 */
    const uint8_t *apic_ids; /* one per CPU, 0..254, no two the same; NULL: 0 .. cpus - 1 */
    uint32_t lapic_base;     /* 0: 0xfee00000 */
    uint32_t ioapic_base;    /* 0: 0xfec00000 */
    uint8_t ioapic_id;       /* no CPU's, not 255; 0: the first free id, cpus by default */
    uint8_t reset_value;     /* what resets the machine when written to reset */
    struct tn_acpi_reg reset;
    struct tn_acpi_reg sleep_control; /* both or none of these */
    struct tn_acpi_reg sleep_status;
    bool i8042;          /* there is a keyboard controller */
    bool cmos_rtc;       /* there is a CMOS clock */
    const uint8_t *dsdt; /* AML for the DSDT: whole terms, as tn_aml makes them */
    size_t dsdt_len;
    char oem_id[6];       /* printable ASCII; all zero: "TENON" */
    char oem_table_id[8]; /* the same: "VM" */
};

/* Where the tables are in the buffer. */
struct tn_acpi_part {
    uint32_t offset;
    uint32_t size;
};

struct tn_acpi_layout {
    struct tn_acpi_part rsdp; /* at offset 0, so that its address is cfg.gpa */
    struct tn_acpi_part xsdt;
    struct tn_acpi_part fadt;
    struct tn_acpi_part madt;
    struct tn_acpi_part dsdt;
    uint32_t size; /* of all */
};

/*
 * Bytes that tn_acpi_build will write; TN_EINVAL: no buffer is enough for such a configuration
 * (the number of CPUs, an id reserved or used twice, gpa misaligned or too high, one sleep register
 * without the other, an unknown address space, too much AML, an OEM id that is no text).
 */
TN_API int tn_acpi_size(const struct tn_acpi_cfg *cfg);

/*
 * Writes the tables into buf. Returns the bytes written and fills *layout, which may be NULL. As
 * tn_acpi_size for a bad configuration; TN_ENOSPC: cap is less than that. buf is then as it was,
 * and *layout all zero.
 */
TN_API int tn_acpi_build(const struct tn_acpi_cfg *cfg, uint8_t *buf, size_t cap,
                         struct tn_acpi_layout *layout);

/*
 * Whether a byte written to the sleep control register asks for power off, S5: SLP_EN, bit 5, with
 * the SLP_TYP, bits 4 to 2, that \_S5 names: TN_ACPI_S5, the other bits ignored. (4.8.3.7)
 */
/*@ assigns \nothing;
    ensures \result == true <==> value / 4 % 16 == 13; */
TN_API bool tn_acpi_is_s5(uint8_t value);
#define TN_ACPI_S5 0x34u /* SLP_EN, SLP_TYP 5 */

/*
 * Describes a 16550 serial port as device COMn, n = uid, 1..9: PNP0501, eight ports, and an
 * edge-triggered interrupt, active high. It belongs into the scope \_SB.
 */
TN_API void tn_acpi_aml_uart(struct tn_aml *a, uint16_t port, uint32_t gsi, unsigned uid);

/*
 * Describes a virtio-mmio device as VRnn, nn = uid in hexadecimal, 0..255: LNRO0005, its window,
 * and its interrupt with the flags of tn_aml_interrupt. It belongs into the scope \_SB.
 */
TN_API void tn_acpi_aml_virtio_mmio(struct tn_aml *a, uint64_t base, uint32_t size, uint32_t gsi,
                                    unsigned flags, unsigned uid);

/*
 * Describes a VM generation id as device VGEN: its 16 bytes are at gpa, a multiple of 8, not 0, and
 * all below 2^52; in memory that the guest's map has as reserved, and nothing else in their page.
 * When they have changed the guest is told so by the event TN_ACPI_CHANGED, as by
 * tn_acpi_aml_ged. It belongs into the scope \_SB. (VM Generation ID)
 */
TN_API void tn_acpi_aml_vmgenid(struct tn_aml *a, uint64_t gpa);
#define TN_ACPI_VMGENID_SIZE 16u

/*
 * Describes a power button as device PWRB: the guest is told that somebody pressed it by the event
 * TN_ACPI_PRESSED, as by tn_acpi_aml_ged. It belongs into the scope \_SB. (4.8.2.2.1.2)
 */
TN_API void tn_acpi_aml_power_button(struct tn_aml *a);

/*
 * An event: the edge of an interrupt, from low to high, notifies a device. (5.6.6)
 */
struct tn_acpi_event {
    uint32_t gsi;       /* no other event's */
    const char *device; /* its path, as "\\_SB.VGEN" */
    uint8_t value;      /* what it is told; of 0x80 on it is the device's to say what that means */
};

#define TN_ACPI_CHANGED 0x80u /* a generation id */
#define TN_ACPI_PRESSED 0x80u /* a power button */
#define TN_ACPI_EVENTS  24u   /* at most: the pins of the I/O APIC */

/*
 * Describes the generic event device as GED: 1..TN_ACPI_EVENTS events, whose interrupts belong to
 * no other device. It belongs into the scope \_SB. (5.6.9)
 */
TN_API void tn_acpi_aml_ged(struct tn_aml *a, const struct tn_acpi_event *events, uint32_t count);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

#define TN_ACPI_HEADER_ 36u /* what each table but the RSDP begins with (5.2.6) */
#define TN_ACPI_RSDP_   36u
#define TN_ACPI_FADT_   276u

/*@ logic integer tn_acpi_sum{L}(uint8_t *p, integer n) =
      n <= 0 ? 0 : tn_acpi_sum{L}(p, n - 1) + \at(p[n - 1], L);
*/

/* Whether one of the first n CPUs has the id. */
/*@ requires \valid_read(cfg) && n <= 254;
    requires cfg->apic_ids != \null ==> \valid_read(cfg->apic_ids + (0 .. n - 1));
    assigns \nothing;
    ensures cfg->apic_ids == \null ==> (\result == true <==> id < n);
    ensures cfg->apic_ids != \null ==>
      (\result == true <==> \exists integer i; 0 <= i < n && cfg->apic_ids[i] == id); */
static inline bool tn_acpi_taken_(const struct tn_acpi_cfg *cfg, uint32_t n, uint8_t id)
{
    if (!cfg->apic_ids)
        return id < n;
    /*@ loop invariant 0 <= i <= n && \forall integer k; 0 <= k < i ==> cfg->apic_ids[k] != id;
        loop assigns i;
        loop variant n - i; */
    for (uint32_t i = 0; i < n; i++) {
        if (cfg->apic_ids[i] == id)
            return true;
    }
    return false;
}

/* Checks the ids; returns the I/O APIC's. */
/*@ requires \valid_read(cfg) && cfg->cpus <= 254;
    requires cfg->apic_ids != \null ==> \valid_read(cfg->apic_ids + (0 .. cfg->cpus - 1));
    assigns \nothing;
    ensures \result == TN_EINVAL || 0 <= \result < 255;
    ensures \result >= 0 && cfg->apic_ids != \null ==>
      \forall integer i, j; 0 <= i < j < cfg->cpus ==>
        cfg->apic_ids[i] != cfg->apic_ids[j] && cfg->apic_ids[j] != \result; */
static inline int tn_acpi_ids_(const struct tn_acpi_cfg *cfg)
{
    uint8_t id = cfg->ioapic_id;

    /*@ loop invariant 0 <= i <= cfg->cpus;
        loop invariant cfg->apic_ids != \null ==>
          \forall integer j, k; 0 <= j < k < i ==> cfg->apic_ids[j] != cfg->apic_ids[k];
        loop assigns i;
        loop variant cfg->cpus - i; */
    for (uint32_t i = 0; i < cfg->cpus; i++) {
        uint8_t cpu = cfg->apic_ids ? cfg->apic_ids[i] : (uint8_t)i;
        if (cpu == 255 || tn_acpi_taken_(cfg, i, cpu))
            return TN_EINVAL;
    }
    if (id == 0) { /* 254 CPUs leave one of 0..254 free */
        /*@ loop assigns id; loop variant 255 - id; */
        while (id < 255 && tn_acpi_taken_(cfg, cfg->cpus, id))
            id++;
    }
    if (id == 255 || tn_acpi_taken_(cfg, cfg->cpus, id))
        return TN_EINVAL;
    return id;
}

/* The bytes of AML that describe a processor: more for a _UID that takes two. */
#define TN_ACPI_CPU_(uid) ((uid) < 2 ? 28u : 29u)

/* The bytes of AML before the caller's: \_S5, and the processors in \_SB. */
/*@ requires 1 <= cpus <= 254;
    assigns \nothing;
    ensures 0 <= \result <= 8192; */
static inline uint32_t tn_acpi_head_(uint32_t cpus, bool s5)
{
    uint32_t body = 5 + cpus * TN_ACPI_CPU_(2u) - (cpus < 2 ? 1 : 2);

    return (s5 ? 14u : 0u) + 1 + tn_aml_own_width_(body) + body;
}

/*@ requires \valid(part) && 0 <= at <= 0x2000000 && size <= 0x2000000;
    assigns *part;
    ensures part->offset == at && part->size == size;
    ensures at + size <= \result < at + size + 16 && \result % 16 == 0; */
static inline uint32_t tn_acpi_place_(struct tn_acpi_part *part, uint32_t at, uint32_t size)
{
    part->offset = at;
    part->size = size;
    return (at + size + 15) / 16 * 16;
}

/* The places of the tables, for a number of CPUs and a DSDT that are checked. */
/*@ predicate tn_acpi_layout_ok(struct tn_acpi_layout *l, integer cpus) =
      l->rsdp.offset == 0 && l->rsdp.size == 36 &&
      l->xsdt.offset >= 36 && l->xsdt.size == 52 &&
      l->fadt.offset >= l->xsdt.offset + 52 && l->fadt.size == 276 &&
      l->madt.offset >= l->fadt.offset + 276 && l->madt.size == 62 + 8 * cpus &&
      l->dsdt.offset >= l->madt.offset + l->madt.size && l->dsdt.size >= 36 &&
      l->size == l->dsdt.offset + l->dsdt.size && l->size < 0x2000000;
*/
/*@ requires \valid(l) && 1 <= cpus <= 254 && dsdt_len <= TN_ACPI_MAX_DSDT;
    assigns *l;
    ensures tn_acpi_layout_ok(l, cpus) && l->dsdt.size >= 36 + dsdt_len; */
static inline void tn_acpi_plan_(struct tn_acpi_layout *l, uint32_t cpus, bool s5, size_t dsdt_len)
{
    uint32_t at = tn_acpi_place_(&l->rsdp, 0, TN_ACPI_RSDP_);

    at = tn_acpi_place_(&l->xsdt, at, TN_ACPI_HEADER_ + 2 * 8);
    at = tn_acpi_place_(&l->fadt, at, TN_ACPI_FADT_);
    at = tn_acpi_place_(&l->madt, at, TN_ACPI_HEADER_ + 8 + 8 * cpus + 12 + 6);
    tn_acpi_place_(&l->dsdt, at, TN_ACPI_HEADER_ + tn_acpi_head_(cpus, s5) + (uint32_t)dsdt_len);
    l->size = l->dsdt.offset + l->dsdt.size;
}

/* Whether text is n characters of printable ASCII, or fewer and then zeros. */
/*@ requires n <= 8 && \valid_read(text + (0 .. n - 1)); assigns \nothing; */
static inline bool tn_acpi_is_text_(const char *text, uint32_t n)
{
    bool ended = false;

    /*@ loop invariant 0 <= i <= n; loop assigns i, ended; loop variant n - i; */
    for (uint32_t i = 0; i < n; i++) {
        if (text[i] == 0)
            ended = true;
        else if (ended || text[i] < ' ' || text[i] > '~')
            return false;
    }
    return true;
}

/* Checks the configuration; returns the I/O APIC's id and sets *l, or TN_EINVAL and zeros. */
/*@ requires \valid_read(cfg) && \valid(l) && \separated(cfg, l);
    requires cfg->apic_ids != \null && 1 <= cfg->cpus <= 254 ==>
      \valid_read(cfg->apic_ids + (0 .. cfg->cpus - 1));
    assigns *l;
    ensures \result == TN_EINVAL || (0 <= \result < 255 && 1 <= cfg->cpus <= 254 &&
      tn_acpi_layout_ok(l, cfg->cpus) && l->dsdt.size >= 36 + cfg->dsdt_len &&
      cfg->gpa + l->size <= TN_ACPI_LIMIT); */
static inline int tn_acpi_check_(const struct tn_acpi_cfg *cfg, struct tn_acpi_layout *l)
{
    int ioapic;

    l->size = 0;
    if (cfg->cpus == 0 || cfg->cpus > TN_ACPI_MAX_CPUS || cfg->dsdt_len > TN_ACPI_MAX_DSDT)
        return TN_EINVAL;
    if (cfg->reset.space > TN_ACPI_IO || cfg->sleep_control.space > TN_ACPI_IO ||
        cfg->sleep_status.space > TN_ACPI_IO)
        return TN_EINVAL;
    if ((cfg->sleep_control.address == 0) != (cfg->sleep_status.address == 0))
        return TN_EINVAL;
    if (!tn_acpi_is_text_(cfg->oem_id, 6) || !tn_acpi_is_text_(cfg->oem_table_id, 8))
        return TN_EINVAL;
    ioapic = tn_acpi_ids_(cfg);
    if (ioapic < 0)
        return TN_EINVAL;
    tn_acpi_plan_(l, cfg->cpus, cfg->sleep_control.address != 0, cfg->dsdt_len);
    if (cfg->gpa % 16 != 0 || cfg->gpa > TN_ACPI_LIMIT - l->size)
        return TN_EINVAL;
    return ioapic;
}

TN_API int tn_acpi_size(const struct tn_acpi_cfg *cfg)
{
    struct tn_acpi_layout l;

    if (tn_acpi_check_(cfg, &l) < 0)
        return TN_EINVAL;
    return (int)l.size;
}

/* The second half of sealing: puts at p[at] what the sum lacks to a multiple of 256. */
/*@ requires at < len < 0x2000000 && \valid(p + (0 .. len - 1));
    requires p[at] == 0 && sum == tn_acpi_sum(p, len) % 256;
    assigns p[at];
    ensures tn_acpi_sum(p, len) % 256 == 0; */
static inline void tn_acpi_balance_(uint8_t *p, uint32_t len, uint32_t at, uint8_t sum)
{
    p[at] = (uint8_t)((256 - sum) % 256);
    (void)len;
    /*@ ghost
      uint32_t i = 0;
      /@ loop invariant 0 <= i <= len;
         loop invariant tn_acpi_sum(p, i) == tn_acpi_sum{Pre}(p, i) + (i > at ? p[at] : 0);
         loop assigns i;
         loop variant len - i; @/
      while (i < len)
        i++;
    */
}

/* Makes the bytes sum up to 0 modulo 256 by setting the one at p[at]. */
/*@ requires at < len < 0x2000000 && \valid(p + (0 .. len - 1));
    assigns p[at];
    ensures tn_acpi_sum(p, len) % 256 == 0; */
static inline void tn_acpi_seal_(uint8_t *p, uint32_t len, uint32_t at)
{
    uint32_t sum = 0;

    p[at] = 0;
    /*@ loop invariant 0 <= i <= len && 0 <= sum < 256 && tn_acpi_sum(p, i) >= 0;
        loop invariant sum == tn_acpi_sum(p, i) % 256;
        loop assigns i, sum;
        loop variant len - i; */
    for (uint32_t i = 0; i < len; i++)
        sum = (sum + p[i]) % 256;
    tn_acpi_balance_(p, len, at, (uint8_t)sum);
}

/* A text of at most n characters, padded with blanks. */
/*@ requires n <= 8 && \valid(dst + (0 .. n - 1)) && \valid_read(text + (0 .. n - 1));
    requires \separated(dst + (0 .. n - 1), text + (0 .. n - 1));
    assigns dst[0 .. n - 1]; */
static inline void tn_acpi_text_(uint8_t *dst, const char *text, uint32_t n)
{
    /*@ loop invariant 0 <= i <= n; loop assigns i, dst[0 .. n - 1]; loop variant n - i; */
    for (uint32_t i = 0; i < n; i++)
        dst[i] = text[i] ? (uint8_t)text[i] : (uint8_t)' ';
}

/* A table's header; its checksum, at 9, comes last, when all else is there. (5.2.6) */
/*@ requires \valid(p + (0 .. 35)) && \valid_read(cfg) && \valid_read(signature + (0 .. 3));
    requires \separated(p + (0 .. 35), cfg, signature + (0 .. 3));
    assigns p[0 .. 35]; */
static inline void tn_acpi_header_(uint8_t *p, const struct tn_acpi_cfg *cfg, const char *signature,
                                   uint8_t revision, uint32_t size)
{
    tn_acpi_text_(p, signature, 4);
    tn_put_(p + 4, 4, size);
    p[8] = revision;
    p[9] = 0;
    tn_acpi_text_(p + 10, cfg->oem_id[0] ? cfg->oem_id : "TENON ", 6);
    tn_acpi_text_(p + 16, cfg->oem_table_id[0] ? cfg->oem_table_id : "VM      ", 8);
    tn_put_(p + 24, 4, 1);
    tn_acpi_text_(p + 28, "TENN", 4);
    tn_put_(p + 32, 4, 1);
}

/* The RSDP, with the checksum of its first 20 bytes and that of all. (5.2.5.3) */
/*@ requires \valid(p + (0 .. 35)) && \valid_read(cfg) && \separated(p + (0 .. 35), cfg);
    assigns p[0 .. 35];
    ensures tn_acpi_sum(p, 36) % 256 == 0; */
static inline void tn_acpi_rsdp_(uint8_t *p, const struct tn_acpi_cfg *cfg, uint64_t xsdt)
{
    tn_acpi_text_(p, "RSD PTR ", 8);
    p[8] = 0;
    tn_acpi_text_(p + 9, cfg->oem_id[0] ? cfg->oem_id : "TENON ", 6);
    p[15] = 2; /* revision */
    tn_put_(p + 16, 4, 0);
    tn_put_(p + 20, 4, TN_ACPI_RSDP_);
    tn_put_(p + 24, 8, xsdt);
    tn_put_(p + 32, 4, 0);
    tn_acpi_seal_(p, 20, 8);
    tn_acpi_seal_(p, TN_ACPI_RSDP_, 32);
}

/* A generic address: 12 bytes, all zero where there is no register. (5.2.3.2) */
/*@ requires \valid(p + (0 .. 11)) && \valid_read(reg) && \separated(p + (0 .. 11), reg);
    assigns p[0 .. 11]; */
static inline void tn_acpi_gas_(uint8_t *p, const struct tn_acpi_reg *reg)
{
    tn_put_(p, 4, 0);
    if (reg->address) {
        p[0] = reg->space;
        p[1] = 8; /* bits */
        p[3] = 1; /* accessed as a byte */
    }
    tn_put_(p + 4, 8, reg->address);
}

/* The FADT, revision 6.5; all legacy registers are 0, there are none. (5.2.9) */
/*@ requires \valid(p + (0 .. 275)) && \valid_read(cfg) && \separated(p + (0 .. 275), cfg);
    assigns p[0 .. 275];
    ensures tn_acpi_sum(p, 276) % 256 == 0; */
static inline void tn_acpi_fadt_(uint8_t *p, const struct tn_acpi_cfg *cfg, uint64_t dsdt)
{
    /* WBINVD, PROC_C1, no fixed buttons (2 bits), FIX_RTC, HEADLESS, HW_REDUCED_ACPI */
    uint32_t flags = 1u | 1u << 2 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 12 | 1u << 20;
    unsigned boot = 4; /* VGA not present */

    if (cfg->reset.address)
        flags |= 1u << 10; /* RESET_REG_SUP */
    if (cfg->i8042)
        boot += 2;
    if (!cfg->cmos_rtc)
        boot += 32;
    /*@ loop invariant 0 <= i <= 276; loop assigns i, p[0 .. 275]; loop variant 276 - i; */
    for (uint32_t i = 0; i < TN_ACPI_FADT_; i++)
        p[i] = 0;
    tn_acpi_header_(p, cfg, "FACP", 6, TN_ACPI_FADT_);
    tn_put_(p + 109, 2, boot); /* IAPC_BOOT_ARCH */
    tn_put_(p + 112, 4, flags);
    tn_acpi_gas_(p + 116, &cfg->reset);
    p[128] = cfg->reset_value;
    p[131] = 5;                /* the minor revision */
    tn_put_(p + 140, 8, dsdt); /* X_DSDT */
    tn_acpi_gas_(p + 244, &cfg->sleep_control);
    tn_acpi_gas_(p + 256, &cfg->sleep_status);
    tn_acpi_text_(p + 268, "TENON   ", 8); /* the hypervisor's vendor */
    tn_acpi_seal_(p, TN_ACPI_FADT_, 9);
}

/* The MADT. Interrupts are the pins they say they are: no override, and no PICs. (5.2.12) */
/*@ requires \valid_read(cfg) && 1 <= cfg->cpus <= 254 && size == 62 + 8 * cfg->cpus;
    requires \valid(p + (0 .. size - 1)) && \separated(p + (0 .. size - 1), cfg);
    requires cfg->apic_ids != \null ==> \valid_read(cfg->apic_ids + (0 .. cfg->cpus - 1)) &&
      \separated(p + (0 .. size - 1), cfg->apic_ids + (0 .. cfg->cpus - 1));
    assigns p[0 .. size - 1];
    ensures tn_acpi_sum(p, size) % 256 == 0; */
static inline void tn_acpi_madt_(uint8_t *p, const struct tn_acpi_cfg *cfg, uint8_t ioapic,
                                 uint32_t size)
{
    uint32_t at = TN_ACPI_HEADER_ + 8;

    tn_acpi_header_(p, cfg, "APIC", 6, size);
    tn_put_(p + 36, 4, cfg->lapic_base ? cfg->lapic_base : 0xfee00000u);
    tn_put_(p + 40, 4, 0);
    /*@ loop invariant 0 <= i <= cfg->cpus && at == 44 + 8 * i;
        loop assigns i, at, p[0 .. size - 1];
        loop variant cfg->cpus - i; */
    for (uint32_t i = 0; i < cfg->cpus; i++) {
        p[at] = 0; /* a local APIC */
        p[at + 1] = 8;
        p[at + 2] = (uint8_t)i; /* _UID */
        p[at + 3] = cfg->apic_ids ? cfg->apic_ids[i] : (uint8_t)i;
        tn_put_(p + at + 4, 4, 1); /* enabled */
        at += 8;
    }
    p[at] = 1; /* the I/O APIC */
    p[at + 1] = 12;
    p[at + 2] = ioapic;
    p[at + 3] = 0;
    tn_put_(p + at + 4, 4, cfg->ioapic_base ? cfg->ioapic_base : 0xfec00000u);
    tn_put_(p + at + 8, 4, 0); /* its first global interrupt */
    at += 12;
    p[at] = 4; /* NMI */
    p[at + 1] = 6;
    p[at + 2] = 255; /* at every processor */
    tn_put_(p + at + 3, 2, 0);
    p[at + 5] = 1; /* LINT1 */
    tn_acpi_seal_(p, size, 9);
}

/* The DSDT's own AML. */
static inline int64_t tn_acpi_dsdt_head_(uint8_t *p, size_t cap, uint32_t cpus, bool s5)
{
    struct tn_aml a;
    char name[5] = {'C', 0, 0, 0, 0};

    tn_aml_init(&a, p, cap);
    if (s5) {
        tn_aml_name(&a, "\\_S5");
        tn_aml_package_begin(&a);
        tn_aml_integer(&a, TN_ACPI_S5 / 4 % 8);
        tn_aml_integer(&a, 0);
        tn_aml_integer(&a, 0);
        tn_aml_integer(&a, 0);
        tn_aml_end(&a);
    }
    tn_aml_scope_begin(&a, "\\_SB");
    for (uint32_t i = 0; i < cpus; i++) {
        for (uint32_t k = 1; k < 4; k++)
            name[k] = "0123456789ABCDEF"[i >> (12 - 4 * k) & 15];
        tn_aml_device_begin(&a, name);
        tn_aml_hid(&a, "ACPI0007");
        tn_aml_uid(&a, i);
        tn_aml_end(&a);
    }
    tn_aml_end(&a);
    return tn_aml_finish(&a);
}

TN_API int tn_acpi_build(const struct tn_acpi_cfg *cfg, uint8_t *buf, size_t cap,
                         struct tn_acpi_layout *layout)
{
    struct tn_acpi_layout l;
    int ioapic = tn_acpi_check_(cfg, &l);
    uint8_t *p;
    uint32_t head;

    if (layout)
        __builtin_memset(layout, 0, sizeof(*layout));
    if (ioapic < 0)
        return ioapic;
    if (cap < l.size)
        return TN_ENOSPC;
    head = l.dsdt.size - TN_ACPI_HEADER_ - (uint32_t)cfg->dsdt_len;
    __builtin_memset(buf, 0, l.size);
    p = buf + l.dsdt.offset;
    tn_acpi_header_(p, cfg, "DSDT", 2, l.dsdt.size);
    if (tn_acpi_dsdt_head_(p + TN_ACPI_HEADER_, head, cfg->cpus, cfg->sleep_control.address != 0) !=
        (int64_t)head)
        return TN_EBUG;
    if (cfg->dsdt_len)
        __builtin_memcpy(p + TN_ACPI_HEADER_ + head, cfg->dsdt, cfg->dsdt_len);
    tn_acpi_seal_(p, l.dsdt.size, 9);
    tn_acpi_madt_(buf + l.madt.offset, cfg, (uint8_t)ioapic, l.madt.size);
    tn_acpi_fadt_(buf + l.fadt.offset, cfg, cfg->gpa + l.dsdt.offset);
    p = buf + l.xsdt.offset;
    tn_acpi_header_(p, cfg, "XSDT", 1, l.xsdt.size);
    tn_put_(p + 36, 8, cfg->gpa + l.fadt.offset);
    tn_put_(p + 44, 8, cfg->gpa + l.madt.offset);
    tn_acpi_seal_(p, l.xsdt.size, 9);
    tn_acpi_rsdp_(buf, cfg, cfg->gpa + l.xsdt.offset);
    if (layout)
        *layout = l;
    return (int)l.size;
}

TN_API bool tn_acpi_is_s5(uint8_t value)
{
    return value / 4 % 16 == TN_ACPI_S5 / 4;
}

/* The name of a device from two letters and a number, as two digits. */
static inline void tn_acpi_aml_device_(struct tn_aml *a, const char *letters, unsigned uid)
{
    char name[5];

    name[0] = letters[0];
    name[1] = letters[1];
    name[2] = "0123456789ABCDEFM"[letters[2] ? 16 : uid >> 4 & 15];
    name[3] = "0123456789ABCDEF"[uid & 15];
    name[4] = 0;
    tn_aml_device_begin(a, name);
}

TN_API void tn_acpi_aml_uart(struct tn_aml *a, uint16_t port, uint32_t gsi, unsigned uid)
{
    if (uid < 1 || uid > 9)
        tn_aml_fail(a, TN_EINVAL);
    tn_acpi_aml_device_(a, "COM", uid);
    tn_aml_hid(a, "PNP0501");
    tn_aml_uid(a, uid);
    tn_aml_name(a, "_CRS");
    tn_aml_resources_begin(a);
    tn_aml_io(a, port, 8);
    tn_aml_interrupt(a, gsi, TN_AML_EDGE);
    tn_aml_end(a);
    tn_aml_end(a);
}

TN_API void tn_acpi_aml_virtio_mmio(struct tn_aml *a, uint64_t base, uint32_t size, uint32_t gsi,
                                    unsigned flags, unsigned uid)
{
    if (uid > 255)
        tn_aml_fail(a, TN_EINVAL);
    tn_acpi_aml_device_(a, "VR", uid);
    tn_aml_hid(a, "LNRO0005");
    tn_aml_uid(a, uid);
    tn_aml_name(a, "_CCA");
    tn_aml_integer(a, 1); /* DMA sees what the CPUs wrote */
    tn_aml_name(a, "_CRS");
    tn_aml_resources_begin(a);
    if (size != 0 && base <= UINT32_MAX && size - 1 <= UINT32_MAX - base)
        tn_aml_memory32(a, (uint32_t)base, size, true);
    else
        tn_aml_memory64(a, base, size, true);
    tn_aml_interrupt(a, gsi, flags);
    tn_aml_end(a);
    tn_aml_end(a);
}

TN_API void tn_acpi_aml_vmgenid(struct tn_aml *a, uint64_t gpa)
{
    if (gpa == 0 || gpa % 8 != 0 || gpa > TN_ACPI_LIMIT - TN_ACPI_VMGENID_SIZE)
        tn_aml_fail(a, TN_EINVAL);
    tn_aml_device_begin(a, "VGEN");
    tn_aml_hid(a, "TENN0001");
    tn_aml_name(a, "_CID"); /* guests look for either */
    tn_aml_package_begin(a);
    tn_aml_string(a, "VM_Gen_Counter");
    tn_aml_string(a, "VMGENCTR");
    tn_aml_end(a);
    tn_aml_name(a, "_DDN");
    tn_aml_string(a, "VM_Gen_Counter");
    tn_aml_name(a, "ADDR");
    tn_aml_package_begin(a);
    tn_aml_integer(a, gpa & UINT32_MAX);
    tn_aml_integer(a, gpa >> 32);
    tn_aml_end(a);
    tn_aml_end(a);
}

TN_API void tn_acpi_aml_power_button(struct tn_aml *a)
{
    tn_aml_device_begin(a, "PWRB");
    tn_aml_hid(a, "PNP0C0C");
    tn_aml_uid(a, 0);
    tn_aml_end(a);
}

/* Whether there are as many events as may be, each with an interrupt of its own. */
/*@ requires count <= TN_ACPI_EVENTS ==> \valid_read(events + (0 .. count - 1));
    assigns \nothing;
    ensures \result == true <==> 1 <= count <= TN_ACPI_EVENTS &&
      \forall integer i, j; 0 <= i < j < count ==> events[i].gsi != events[j].gsi; */
static inline bool tn_acpi_events_ok_(const struct tn_acpi_event *events, uint32_t count)
{
    if (count == 0 || count > TN_ACPI_EVENTS)
        return false;
    /*@ loop invariant 0 <= i <= count;
        loop invariant
          \forall integer j, k; 0 <= j < k < i ==> events[j].gsi != events[k].gsi;
        loop assigns i;
        loop variant count - i; */
    for (uint32_t i = 0; i < count; i++) {
        /*@ loop invariant 0 <= j <= i;
            loop invariant \forall integer k; 0 <= k < j ==> events[k].gsi != events[i].gsi;
            loop assigns j;
            loop variant i - j; */
        for (uint32_t j = 0; j < i; j++) {
            if (events[j].gsi == events[i].gsi)
                return false;
        }
    }
    return true;
}

TN_API void tn_acpi_aml_ged(struct tn_aml *a, const struct tn_acpi_event *events, uint32_t count)
{
    if (!tn_acpi_events_ok_(events, count)) {
        tn_aml_fail(a, TN_EINVAL);
        return;
    }
    tn_aml_device_begin(a, "GED");
    tn_aml_hid(a, "ACPI0013");
    tn_aml_uid(a, 0);
    tn_aml_name(a, "_CRS");
    tn_aml_resources_begin(a);
    for (uint32_t i = 0; i < count; i++)
        tn_aml_interrupt(a, events[i].gsi, TN_AML_EDGE);
    tn_aml_end(a);
    tn_aml_method_begin(a, "_EVT", 1, true);
    for (uint32_t i = 0; i < count; i++) {
        tn_aml_if_begin(a);
        tn_aml_operator(a, TN_AML_EQUAL);
        tn_aml_arg(a, 0);
        tn_aml_integer(a, events[i].gsi);
        tn_aml_notify(a);
        tn_aml_path(a, events[i].device);
        tn_aml_integer(a, events[i].value);
        tn_aml_end(a);
    }
    tn_aml_end(a);
    tn_aml_end(a);
}

#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
