/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_boot_x86 - a kernel image, placed in guest memory, and the first vCPU's registers to enter it.
 *
 * WHAT
 *   Lays out an x86-64 guest's memory (RAM around the MMIO hole, the e820 map, a fixed low
 *   megabyte), writes a kernel, its initrd and its command line into it, with what the boot
 *   protocol wants beside them (the zero page of the 64-bit and the 32-bit Linux protocol, or the
 *   start info of PVH; page tables; a GDT), and says what the first vCPU's registers must be.
 *
 * USAGE
 *   static const uint8_t kernel[64]; // the bytes of a vmlinux or a bzImage
 *   static struct tn_mem mem;        // holds what tn_boot_x86_ram says, see tn_mem.h
 *   struct tn_loader_range ram[2];
 *   struct tn_boot_x86_cfg cfg = {0};
 *   struct tn_boot_x86_cpu cpu;
 *   struct tn_boot_x86_info info;
 *
 *   if (tn_boot_x86_ram(64u << 20, ram) != 1)
 *       return 1; // one range below the hole: tn_mem_add it, and give it to KVM
 *   cfg.kernel = kernel;
 *   cfg.kernel_len = sizeof(kernel);
 *   cfg.cmdline = "console=ttyS0";
 *   cfg.ram_size = 64u << 20;
 *   if (tn_boot_x86_load(&mem, &cfg, &cpu, &info) < 0)
 *       return 2; // info.stage and info.detail say more
 *
 * COMPOSITION
 *   tn_loader reads the image, tn_mem is written to. tn_acpi and tn_mptable fill the areas that
 *   are kept for them here. tn_kvm_x86 turns struct tn_boot_x86_cpu into a vCPU's registers; only
 *   the first vCPU gets them, the others wait for its start-up IPI.
 *
 * GUEST TRUST
 *   The image, the initrd and the command line may be anything. Nothing is read back from guest
 *   memory. The configuration's sizes and pointers are the caller's.
 *
 * MEMORY
 *   About 5 KiB of stack. Guest memory below 1 MiB is laid out so; end is exclusive:
 *
 *     start     end       what
 *     0x00000   0x01000   left alone (vectors and BIOS data area; a PVH vCPU's TSS base is 0)
 *     0x01000   0x02000   GDT
 *     0x06000   0x07000   PVH: start info, module list, memory map
 *     0x07000   0x08000   Linux: the zero page (struct boot_params), but see 0x90000
 *     0x08000   0x09000   a stack, for kernels that are too small to bring their own
 *     0x09000   0x0a000   64-bit Linux: PML4
 *     0x0a000   0x0b000   64-bit Linux: page directory pointers
 *     0x0b000   0x0f000   64-bit Linux: four page directories
 *     0x20000   0x30000   command line, but see 0x90000
 *     0x30000   0x80000   Linux from protocol 2.09 on: setup_data, a device tree
 *     0x90000   0x91000   Linux before protocol 2.02: the zero page, where they look for it
 *     0x91000   0x91100   Linux before protocol 2.02: command line
 *     0x9fc00   0xa0000   extended BIOS data area, reserved in the e820 map
 *     0xe0000   0xf0000   for ACPI tables, reserved in the e820 map
 *     0xf0000   0x100000  for the MP table, reserved in the e820 map
 *     0x100000            kernel and initrd, all below the hole
 *
 *   What a protocol does not use is left alone. The page tables map the low 4 GiB one to one in
 *   pages of 2 MiB: that covers whatever this module places, and unlike pages of 1 GiB they need
 *   no CPUID bit that a machine may hide.
 *
 * THREADS
 *   Pure but for what they are given. Load before any vCPU runs.
 *
 * CONFIG
 *   none.
 *
 * SPEC
 *   The Linux/x86 boot protocol 2.15 (Documentation/arch/x86/boot.rst: "The Real-Mode Kernel
 *   Header", "The Kernel Command Line", "32-bit Boot Protocol", "64-bit Boot Protocol";
 *   zero-page.rst). Xen's x86/HVM direct boot ABI
 *   (docs/misc/pvh.pandoc; hvm/start_info.h, version 1). Intel SDM vol. 3A sections 3.4.5, 4.5
 *   and 8.2.3 (descriptors, 4-level paging, the 64-bit TSS descriptor).
 *
 * LIMITS
 *   16 MiB to 1 TiB of RAM. Kernel and initrd lie below the hole, so together below 3 GiB. No
 *   real-mode Linux protocol, no setup_data but a device tree, no framebuffer. One PVH module. An
 *   image that wants to be loaded below 1 MiB is refused.
 */
#ifndef TN_BOOT_X86_H
#define TN_BOOT_X86_H

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

#include "tn_loader.h"
#include "tn_mem.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/* Guest physical addresses, fixed. The manual has the table of the low megabyte. */
#define TN_BOOT_X86_GDT           0x1000ull
#define TN_BOOT_X86_PVH_INFO      0x6000ull
#define TN_BOOT_X86_ZERO_PAGE     0x7000ull
#define TN_BOOT_X86_STACK_TOP     0x8ff0ull /* where RSP begins: 16 bytes below the page's end */
#define TN_BOOT_X86_PML4          0x9000ull
#define TN_BOOT_X86_PDPT          0xa000ull
#define TN_BOOT_X86_PD            0xb000ull
#define TN_BOOT_X86_CMDLINE       0x20000ull
#define TN_BOOT_X86_CMDLINE_SIZE  0x10000ull /* bytes, the terminating zero included */
#define TN_BOOT_X86_FDT           0x30000ull
#define TN_BOOT_X86_FDT_SIZE      0x50000ull /* bytes, with the 16 of struct setup_data */
#define TN_BOOT_X86_OLD_ZERO_PAGE 0x90000ull /* before protocol 2.02 */
#define TN_BOOT_X86_OLD_CMDLINE   0x91000ull
#define TN_BOOT_X86_EBDA          0x9fc00ull
#define TN_BOOT_X86_EBDA_END      0xa0000ull
#define TN_BOOT_X86_ACPI          0xe0000ull
#define TN_BOOT_X86_ACPI_SIZE     0x10000ull
#define TN_BOOT_X86_MPTABLE       0xf0000ull
#define TN_BOOT_X86_MPTABLE_SIZE  0x10000ull
#define TN_BOOT_X86_HIMEM         0x100000ull /* kernel and initrd from here on */
#define TN_BOOT_X86_HOLE          0xc0000000ull
#define TN_BOOT_X86_HOLE_END      0x100000000ull /* [HOLE, HOLE_END) is for devices, never RAM */

#define TN_BOOT_X86_RAM_MIN (16ull << 20)
#define TN_BOOT_X86_RAM_MAX (1ull << 40)

/* Selectors of the GDT, as the 64-bit protocol names them: __BOOT_CS, __BOOT_DS, and a TSS. */
#define TN_BOOT_X86_CS      0x10
#define TN_BOOT_X86_DS      0x18
#define TN_BOOT_X86_TR      0x20
#define TN_BOOT_X86_GDT_LEN 48u /* two nulls, code, data, and 16 bytes for the TSS */

/*
 * The RAM of a machine with size bytes of it: out[0] from 0 up, out[1] from 4 GiB up for what the
 * hole displaces, size 0 if nothing. Returns how many ranges, 1 or 2; TN_EINVAL unless size is a
 * multiple of 4 KiB in TN_BOOT_X86_RAM_MIN..TN_BOOT_X86_RAM_MAX (both ranges are then empty).
 */
/*@ requires \valid(out + (0 .. 1));
    assigns out[0 .. 1];
    behavior good:
      assumes TN_BOOT_X86_RAM_MIN <= size <= TN_BOOT_X86_RAM_MAX && size % TN_MEM_PAGE == 0;
      ensures \result == (size <= TN_BOOT_X86_HOLE ? 1 : 2);
      ensures out[0].gpa == 0;
      ensures out[0].size == (size <= TN_BOOT_X86_HOLE ? size : TN_BOOT_X86_HOLE);
      ensures out[1].gpa == (\result == 2 ? TN_BOOT_X86_HOLE_END : 0);
      ensures out[1].size > 0 <==> \result == 2;
      ensures out[0].size + out[1].size == size;
      ensures out[0].size % TN_MEM_PAGE == 0 && out[1].size % TN_MEM_PAGE == 0;
    behavior bad:
      assumes !(TN_BOOT_X86_RAM_MIN <= size <= TN_BOOT_X86_RAM_MAX && size % TN_MEM_PAGE == 0);
      ensures \result == TN_EINVAL && out[0].gpa == 0 && out[0].size == 0 && out[1].gpa == 0 &&
        out[1].size == 0;
    complete behaviors;
    disjoint behaviors; */
TN_API int tn_boot_x86_ram(uint64_t size, struct tn_loader_range out[2]);

#define TN_BOOT_X86_E820_RAM      1u
#define TN_BOOT_X86_E820_RESERVED 2u
#define TN_BOOT_X86_E820_MAX      5u /* entries that tn_boot_x86_e820 gives at most */

struct tn_boot_x86_e820_entry {
    uint64_t addr, size;
    uint32_t type;
};

/*
 * The memory map that the guest is told, for size bytes of RAM: sorted, without overlap. Returns
 * the number of entries, 4 or 5; TN_EINVAL as tn_boot_x86_ram, TN_ENOSPC when cap is too small;
 * after an error the first min(cap, TN_BOOT_X86_E820_MAX) entries are zero.
 */
/*@ requires \valid(out + (0 .. cap - 1));
    assigns out[0 .. cap - 1];
    ensures \result < 0 ==> \result == TN_EINVAL || \result == TN_ENOSPC;
    ensures \result >= 0 ==> \result == (size <= TN_BOOT_X86_HOLE ? 4 : 5) && \result <= cap &&
      TN_BOOT_X86_RAM_MIN <= size <= TN_BOOT_X86_RAM_MAX;
    ensures \result >= 0 ==> out[0].addr == 0 && out[0].size == TN_BOOT_X86_EBDA &&
      out[0].type == TN_BOOT_X86_E820_RAM;
    ensures \result >= 0 ==> out[1].addr == out[0].addr + out[0].size &&
      out[1].addr + out[1].size == TN_BOOT_X86_EBDA_END &&
      out[1].type == TN_BOOT_X86_E820_RESERVED;
    ensures \result >= 0 ==> out[2].addr == TN_BOOT_X86_ACPI &&
      out[2].addr + out[2].size == TN_BOOT_X86_HIMEM &&
      out[2].type == TN_BOOT_X86_E820_RESERVED;
    ensures \result >= 0 ==> out[3].addr == TN_BOOT_X86_HIMEM && out[3].size > 0 &&
      out[3].addr + out[3].size <= TN_BOOT_X86_HOLE && out[3].type == TN_BOOT_X86_E820_RAM;
    ensures \result == 4 ==> out[3].addr + out[3].size == size;
    ensures \result == 5 ==> out[4].addr == TN_BOOT_X86_HOLE_END && out[4].size > 0 &&
      out[3].addr + out[3].size + out[4].size == size && out[4].type == TN_BOOT_X86_E820_RAM; */
TN_API int tn_boot_x86_e820(uint64_t size, struct tn_boot_x86_e820_entry *out, uint32_t cap);

enum tn_boot_x86_proto {
    TN_BOOT_X86_AUTO = 0, /* LINUX64 where the image has it, else PVH, else LINUX32 */
    TN_BOOT_X86_LINUX64 = 1,
    TN_BOOT_X86_PVH = 2,
    TN_BOOT_X86_LINUX32 = 3
};

struct tn_boot_x86_cfg {
    const uint8_t *kernel; /* the image as it is in its file */
    size_t kernel_len;
    const uint8_t *initrd; /* NULL: none */
    size_t initrd_len;     /* 0: none */
    const char *cmdline;   /* ends with a zero; NULL: empty */
    uint64_t ram_size;     /* as given to tn_boot_x86_ram */
    uint64_t rsdp;         /* where the ACPI RSDP is; 0: none */
    uint32_t proto;        /* enum tn_boot_x86_proto */
    const uint8_t *fdt;    /* a device tree blob, for a kernel that was built with OF; NULL: none */
    size_t fdt_len;        /* 0: none */
};

/* A segment register with its hidden part: the fields of KVM's struct kvm_segment. */
struct tn_boot_x86_seg {
    uint64_t base;
    uint32_t limit; /* in bytes, the last one that is inside */
    uint16_t selector;
    uint8_t type, present, dpl, db, s, l, g, avl;
};

/* The first vCPU at the kernel's entry. What is not listed keeps its reset value. */
struct tn_boot_x86_cpu {
    uint32_t proto; /* enum tn_boot_x86_proto: what was used, never AUTO */
    uint64_t rip, rsp, rbp, rsi, rbx, rflags;
    uint64_t cr0, cr3, cr4, efer;
    struct tn_boot_x86_seg cs, ds, tr; /* ds is for DS, ES, FS, GS and SS */
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit; /* no IDT: an exception before the kernel has one is fatal */
};

/* How far tn_boot_x86_load came. */
enum tn_boot_x86_stage {
    TN_BOOT_X86_AT_CFG = 0, /* the configuration, or memory that does not fit it */
    TN_BOOT_X86_AT_KERNEL,  /* the image; detail is tn_loader's */
    TN_BOOT_X86_AT_PROTO,   /* the image does not offer the protocol */
    TN_BOOT_X86_AT_CMDLINE, /* too long */
    TN_BOOT_X86_AT_PLACE,   /* no place for the kernel; detail is tn_loader's */
    TN_BOOT_X86_AT_INITRD,  /* no place for the initrd */
    TN_BOOT_X86_AT_FDT,     /* no device tree, one that is too long, or no way to hand it over */
    TN_BOOT_X86_AT_WRITE,   /* never, unless memory changed meanwhile */
    TN_BOOT_X86_AT_END      /* all done */
};

struct tn_boot_x86_info {
    struct tn_loader_plan plan; /* as placed; zero after an error */
    uint64_t initrd_gpa;        /* 0: none */
    uint64_t initrd_size;
    uint32_t cmdline_len; /* without the terminating zero */
    uint32_t stage;       /* enum tn_boot_x86_stage; after an error, where it happened */
    uint32_t detail;      /* after an error, tn_loader's detail of it, and its where */
    uint32_t where;
};

/*
 * Boots on paper: reads the image, finds places, writes guest memory, fills *cpu and *info. mem
 * holds the ranges of tn_boot_x86_ram(cfg->ram_size), zeroed or not. Every check precedes the first
 * write, so that after an error guest memory is as it was; *cpu is then zero, *info too but for
 * stage, detail and where. Returns 0, or
 *   TN_EINVAL  ram_size, proto or a NULL pointer with a length, or mem does not hold that RAM
 *   TN_EUNSUP  the image does not offer cfg->proto, or no protocol that is known here; or there is
 *   a
 *              device tree, and PVH or a protocol before 2.09, which have no setup_data
 *   TN_ERANGE  the command line is longer than its area, or than the kernel takes; the device tree
 *              is longer than TN_BOOT_X86_FDT_SIZE - 16
 *   TN_EFORMAT fdt is no flattened device tree of fdt_len bytes
 *   else what tn_loader_parse, tn_loader_place or tn_loader_place_initrd returned.
 */
TN_API int tn_boot_x86_load(const struct tn_mem *mem, const struct tn_boot_x86_cfg *cfg,
                            struct tn_boot_x86_cpu *cpu, struct tn_boot_x86_info *info);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* Offsets in the zero page; those from 0x1f1 on are the setup header's, whose copy ends below
 * 0x290. boot.rst "The Real-Mode Kernel Header", zero-page.rst. */
#define TN_BOOT_X86_ZP_EXT_MEM_K     0x002u /* before e820: KiB of RAM above 1 MiB, 16 bits */
#define TN_BOOT_X86_ZP_CL_MAGIC      0x020u /* before protocol 2.02 */
#define TN_BOOT_X86_ZP_CL_OFFSET     0x022u /* from the zero page on */
#define TN_BOOT_X86_ZP_RSDP          0x070u
#define TN_BOOT_X86_ZP_EXT_RAMDISK   0x0c0u
#define TN_BOOT_X86_ZP_EXT_RAMDISK_N 0x0c4u
#define TN_BOOT_X86_ZP_EXT_CMDLINE   0x0c8u
#define TN_BOOT_X86_ZP_ALT_MEM_K     0x1e0u /* the same in 32 bits */
#define TN_BOOT_X86_ZP_E820_N        0x1e8u
#define TN_BOOT_X86_ZP_SETUP         0x1f1u
#define TN_BOOT_X86_ZP_BOOT_FLAG     0x1feu
#define TN_BOOT_X86_ZP_HEADER        0x202u
#define TN_BOOT_X86_ZP_VERSION       0x206u
#define TN_BOOT_X86_ZP_LOADER        0x210u
#define TN_BOOT_X86_ZP_LOADFLAGS     0x211u
#define TN_BOOT_X86_ZP_CODE32_START  0x214u
#define TN_BOOT_X86_ZP_RAMDISK       0x218u
#define TN_BOOT_X86_ZP_RAMDISK_N     0x21cu
#define TN_BOOT_X86_ZP_CMDLINE       0x228u
#define TN_BOOT_X86_ZP_ALIGNMENT     0x230u
#define TN_BOOT_X86_ZP_CMDLINE_SIZE  0x238u
#define TN_BOOT_X86_ZP_SETUP_DATA    0x250u
#define TN_BOOT_X86_ZP_SETUP_END     0x290u
#define TN_BOOT_X86_SETUP_DATA       16u /* bytes of struct setup_data before its data */
#define TN_BOOT_X86_ZP_E820          0x2d0u
#define TN_BOOT_X86_ZP_E820_ENTRY    20u

/* Offsets in the page of the PVH start info; the module list and the map follow it. */
#define TN_BOOT_X86_PVH_MODLIST 0x40u
#define TN_BOOT_X86_PVH_MEMMAP  0x80u
#define TN_BOOT_X86_PVH_ENTRY   24u
#define TN_BOOT_X86_PVH_END     0x100u

/*@ requires \valid(to + (0 .. len - 1)) && \valid_read(from + (0 .. len - 1));
    requires \separated(to + (0 .. len - 1), from + (0 .. len - 1));
    assigns to[0 .. len - 1];
    ensures \forall integer i; 0 <= i < len ==> to[i] == from[i]; */
static inline void tn_boot_x86_copy_(uint8_t *to, const uint8_t *from, uint64_t len)
{
    /*@ loop invariant 0 <= i <= len;
        loop invariant \forall integer k; 0 <= k < i ==> to[k] == from[k];
        loop assigns i, to[0 .. len - 1];
        loop variant len - i; */
    for (uint64_t i = 0; i < len; i++)
        to[i] = from[i];
}

/*@ requires \valid(to + (0 .. len - 1));
    assigns to[0 .. len - 1];
    ensures \forall integer i; 0 <= i < len ==> to[i] == 0; */
static inline void tn_boot_x86_zero_(uint8_t *to, uint64_t len)
{
    /*@ loop invariant 0 <= i <= len;
        loop invariant \forall integer k; 0 <= k < i ==> to[k] == 0;
        loop assigns i, to[0 .. len - 1];
        loop variant len - i; */
    for (uint64_t i = 0; i < len; i++)
        to[i] = 0;
}

TN_API int tn_boot_x86_ram(uint64_t size, struct tn_loader_range out[2])
{
    out[0].gpa = out[0].size = 0;
    out[1].gpa = out[1].size = 0;
    if (size < TN_BOOT_X86_RAM_MIN || size > TN_BOOT_X86_RAM_MAX || size % TN_MEM_PAGE != 0)
        return TN_EINVAL;
    if (size <= TN_BOOT_X86_HOLE) {
        out[0].size = size;
        return 1;
    }
    out[0].size = TN_BOOT_X86_HOLE;
    out[1].gpa = TN_BOOT_X86_HOLE_END;
    out[1].size = size - TN_BOOT_X86_HOLE;
    return 2;
}

/*@ requires \valid(e);
    assigns *e;
    ensures e->addr == addr && e->size == size && e->type == type; */
static inline void tn_boot_x86_e820_set_(struct tn_boot_x86_e820_entry *e, uint64_t addr,
                                         uint64_t size, uint32_t type)
{
    e->addr = addr;
    e->size = size;
    e->type = type;
}

TN_API int tn_boot_x86_e820(uint64_t size, struct tn_boot_x86_e820_entry *out, uint32_t cap)
{
    struct tn_loader_range ram[2];
    int n = tn_boot_x86_ram(size, ram);
    uint64_t low = ram[0].size, high = ram[1].size;

    if (n < 0 || cap < 3 + (uint32_t)n) {
        /*@ loop invariant 0 <= i <= cap;
            loop assigns i, out[0 .. cap - 1];
            loop variant cap - i; */
        for (uint32_t i = 0; i < cap && i < TN_BOOT_X86_E820_MAX; i++)
            tn_boot_x86_e820_set_(&out[i], 0, 0, 0);
        return n < 0 ? n : TN_ENOSPC;
    }
    tn_boot_x86_e820_set_(&out[0], 0, TN_BOOT_X86_EBDA, TN_BOOT_X86_E820_RAM);
    tn_boot_x86_e820_set_(&out[1], TN_BOOT_X86_EBDA, TN_BOOT_X86_EBDA_END - TN_BOOT_X86_EBDA,
                          TN_BOOT_X86_E820_RESERVED);
    tn_boot_x86_e820_set_(&out[2], TN_BOOT_X86_ACPI, TN_BOOT_X86_HIMEM - TN_BOOT_X86_ACPI,
                          TN_BOOT_X86_E820_RESERVED);
    tn_boot_x86_e820_set_(&out[3], TN_BOOT_X86_HIMEM, low - TN_BOOT_X86_HIMEM,
                          TN_BOOT_X86_E820_RAM);
    if (n > 1)
        tn_boot_x86_e820_set_(&out[4], TN_BOOT_X86_HOLE_END, high, TN_BOOT_X86_E820_RAM);
    return 3 + n;
}

/* The length of s, or cap when its first cap bytes hold no zero. */
/*@ requires \valid_read(s + (0 .. cap - 1)) ||
      \exists integer k; 0 <= k < cap && s[k] == 0 && \valid_read(s + (0 .. k));
    assigns \nothing;
    ensures \result <= cap;
    ensures \result < cap ==> s[\result] == 0;
    ensures \forall integer k; 0 <= k < \result ==> s[k] != 0; */
static inline uint32_t tn_boot_x86_strlen_(const char *s, uint32_t cap)
{
    uint32_t n = 0;

    /*@ loop invariant 0 <= n <= cap;
        loop invariant \forall integer k; 0 <= k < n ==> s[k] != 0;
        loop assigns n;
        loop variant cap - n; */
    while (n < cap && s[n] != 0)
        n++;
    return n;
}

/* Two bytes of a descriptor, of fields that do not overlap: added, not ORed, since provers know
 * sums. SDM vol. 3A section 3.4.5. */
/*@ requires type < 16 && s < 2 && dpl < 4 && present < 2;
    assigns \nothing;
    ensures \result % 16 == type && \result / 16 % 2 == s;
    ensures \result / 32 % 4 == dpl && \result / 128 == present; */
static inline uint8_t tn_boot_x86_access_(uint32_t type, uint32_t s, uint32_t dpl, uint32_t present)
{
    return (uint8_t)(type + s * 16u + dpl * 32u + present * 128u);
}

/*@ requires limit < 16 && avl < 2 && l < 2 && db < 2 && g < 2;
    assigns \nothing;
    ensures \result % 16 == limit && \result / 16 % 2 == avl && \result / 32 % 2 == l;
    ensures \result / 64 % 2 == db && \result / 128 == g; */
static inline uint8_t tn_boot_x86_flags_(uint32_t limit, uint32_t avl, uint32_t l, uint32_t db,
                                         uint32_t g)
{
    return (uint8_t)(limit + avl * 16u + l * 32u + db * 64u + g * 128u);
}

/* A descriptor's 8 bytes. */
/*@ requires \valid_read(seg) && \valid(p + (0 .. 7)) && \separated(seg, p + (0 .. 7));
    requires seg->base <= 0xffffffff && seg->type < 16 && seg->dpl < 4;
    requires seg->s < 2 && seg->present < 2 && seg->avl < 2 && seg->l < 2 && seg->db < 2;
    requires seg->g < 2 && (seg->g == 0 ==> seg->limit < 0x100000);
    assigns p[0 .. 7];
    ensures \let n = seg->g == 0 ? seg->limit : seg->limit / 4096;
      p[0] == n % 0x100 && p[1] == n / 0x100 % 0x100 && p[6] % 16 == n / 0x10000;
    ensures p[2] == seg->base % 0x100 && p[3] == seg->base / 0x100 % 0x100;
    ensures p[4] == seg->base / 0x10000 % 0x100 && p[7] == seg->base / 0x1000000;
    ensures p[5] % 16 == seg->type && p[5] / 16 % 2 == seg->s;
    ensures p[5] / 32 % 4 == seg->dpl && p[5] / 128 == seg->present;
    ensures p[6] / 16 % 2 == seg->avl && p[6] / 32 % 2 == seg->l;
    ensures p[6] / 64 % 2 == seg->db && p[6] / 128 == seg->g; */
static inline void tn_boot_x86_desc_(const struct tn_boot_x86_seg *seg, uint8_t *p)
{
    uint32_t base = (uint32_t)seg->base;
    uint32_t limit = seg->g ? seg->limit / 4096u : seg->limit;
    uint8_t access = tn_boot_x86_access_(seg->type, seg->s, seg->dpl, seg->present);
    uint8_t flags = tn_boot_x86_flags_(limit / 0x10000u, seg->avl, seg->l, seg->db, seg->g);

    p[0] = (uint8_t)(limit % 0x100u);
    p[1] = (uint8_t)(limit / 0x100u % 0x100u);
    p[2] = (uint8_t)(base % 0x100u);
    p[3] = (uint8_t)(base / 0x100u % 0x100u);
    p[4] = (uint8_t)(base / 0x10000u % 0x100u);
    p[5] = access;
    p[6] = flags;
    p[7] = (uint8_t)(base / 0x1000000u);
}

/* Entry `entry` of page directory `dir`: present, writable, 2 MiB. SDM vol. 3A table 4-18. */
/*@ requires dir < 4 && entry < 512;
    assigns \nothing;
    ensures \result % 0x200000 == 0x83 && \result / 0x200000 == dir * 512 + entry;
    ensures \result - 0x83 <= TN_BOOT_X86_HOLE_END - 0x200000; */
static inline uint64_t tn_boot_x86_pde_(uint32_t dir, uint32_t entry)
{
    return (uint64_t)(dir * 512u + entry) * 0x200000u + 0x83u;
}

/* Whether the plan stays inside the file and inside [lo, hi), with entry in a segment's bytes. The
 * loader has seen to it; what writes guest memory does not rest on that. */
/*@ requires \valid_read(plan) && lo <= hi;
    assigns \nothing;
    ensures \result ==> 0 < plan->nsegs <= TN_LOADER_MAX_SEGS &&
      \forall integer i; 0 <= i < plan->nsegs ==>
        plan->seg[i].file_off + plan->seg[i].file_size <= len &&
        plan->seg[i].file_size <= plan->seg[i].mem_size &&
        lo <= plan->seg[i].gpa && plan->seg[i].gpa + plan->seg[i].mem_size <= hi;
    ensures \result ==> \exists integer i; 0 <= i < plan->nsegs &&
      plan->seg[i].gpa <= entry < plan->seg[i].gpa + plan->seg[i].file_size;
    ensures \result ==> plan->setup_off + plan->setup_len <= len; */
static inline bool tn_boot_x86_plan_ok_(const struct tn_loader_plan *plan, uint64_t len,
                                        uint64_t lo, uint64_t hi, uint64_t entry)
{
    bool inside = false;
    uint32_t i;

    if (plan->nsegs == 0 || plan->nsegs > TN_LOADER_MAX_SEGS)
        return false;
    if (plan->setup_len > len || plan->setup_off > len - plan->setup_len)
        return false;
    /*@ loop invariant 0 <= i <= plan->nsegs;
        loop invariant \forall integer k; 0 <= k < i ==>
          plan->seg[k].file_off + plan->seg[k].file_size <= len &&
          plan->seg[k].file_size <= plan->seg[k].mem_size &&
          lo <= plan->seg[k].gpa && plan->seg[k].gpa + plan->seg[k].mem_size <= hi;
        loop invariant inside ==> \exists integer k; 0 <= k < i &&
          plan->seg[k].gpa <= entry < plan->seg[k].gpa + plan->seg[k].file_size;
        loop assigns i, inside;
        loop variant plan->nsegs - i; */
    for (i = 0; i < plan->nsegs; i++) {
        const struct tn_loader_seg *s = &plan->seg[i];

        if (s->file_size > len || s->file_off > len - s->file_size || s->file_size > s->mem_size)
            return false;
        if (s->gpa < lo || s->gpa > hi || s->mem_size > hi - s->gpa)
            return false;
        if (entry >= s->gpa && entry - s->gpa < s->file_size)
            inside = true;
    }
    return inside;
}

/*
 * Whether the plan's kernel is of a protocol before 2.02: it knows neither cmd_line_ptr nor ESI,
 * but finds the zero page at 0x90000 and the command line by an offset from there.
 */
/*@ requires \valid_read(plan);
    assigns \nothing;
    ensures \result != 0 <==> plan->setup_len > 0 && plan->boot_version < 0x0202; */
static inline bool tn_boot_x86_old_(const struct tn_loader_plan *plan)
{
    return plan->setup_len > 0 && plan->boot_version < 0x0202;
}

/*@ requires \valid_read(plan);
    assigns \nothing;
    ensures \result == TN_BOOT_X86_CMDLINE || \result == TN_BOOT_X86_OLD_CMDLINE; */
static inline uint64_t tn_boot_x86_cmdline_(const struct tn_loader_plan *plan)
{
    return tn_boot_x86_old_(plan) ? TN_BOOT_X86_OLD_CMDLINE : TN_BOOT_X86_CMDLINE;
}

/* The zero page. An ELF image has no setup header: it gets the least that says a boot loader of
 * protocol 2.15 was here. */
/*@ requires \valid(page + (0 .. 4095)) && \valid_read(cfg) && \valid_read(info);
    requires 4 <= n <= TN_BOOT_X86_E820_MAX && \valid_read(map + (0 .. n - 1));
    requires info->plan.setup_off + info->plan.setup_len <= cfg->kernel_len;
    requires \valid_read(cfg->kernel + (0 .. cfg->kernel_len - 1));
    requires 0 < info->plan.nsegs <= TN_LOADER_MAX_SEGS;
    requires \separated(page + (0 .. 4095), cfg, info, map + (0 .. n - 1),
      cfg->kernel + (0 .. cfg->kernel_len - 1));
    assigns page[0 .. 4095]; */
static inline void tn_boot_x86_zero_page_(uint8_t *page, const struct tn_boot_x86_cfg *cfg,
                                          const struct tn_boot_x86_info *info,
                                          const struct tn_boot_x86_e820_entry *map, uint32_t n)
{
    const struct tn_loader_plan *plan = &info->plan;
    uint64_t room = TN_BOOT_X86_ZP_SETUP_END - TN_BOOT_X86_ZP_SETUP;
    uint32_t i;

    tn_boot_x86_zero_(page, 4096);
    if (plan->setup_len > 0) {
        tn_boot_x86_copy_(page + TN_BOOT_X86_ZP_SETUP, cfg->kernel + plan->setup_off,
                          plan->setup_len < room ? plan->setup_len : room);
        tn_put_(page + TN_BOOT_X86_ZP_CODE32_START, 4, plan->seg[0].gpa);
        tn_put_(page + TN_BOOT_X86_ZP_SETUP_DATA, 8, 0); /* the loader's to give */
    } else {
        tn_put_(page + TN_BOOT_X86_ZP_BOOT_FLAG, 2, 0xaa55);
        tn_put_(page + TN_BOOT_X86_ZP_HEADER, 4, 0x53726448); /* "HdrS" */
        tn_put_(page + TN_BOOT_X86_ZP_VERSION, 2, 0x20f);
        tn_put_(page + TN_BOOT_X86_ZP_LOADFLAGS, 1, 1); /* LOADED_HIGH */
        tn_put_(page + TN_BOOT_X86_ZP_ALIGNMENT, 4, 0x1000000);
        tn_put_(page + TN_BOOT_X86_ZP_CMDLINE_SIZE, 4, plan->cmdline_max);
    }
    if (cfg->fdt_len > 0)
        tn_put_(page + TN_BOOT_X86_ZP_SETUP_DATA, 8, TN_BOOT_X86_FDT);
    tn_put_(page + TN_BOOT_X86_ZP_LOADER, 1, 0xff); /* a loader without a number of its own */
    if (tn_boot_x86_old_(plan)) {
        uint64_t kib = map[3].size / 1024; /* what lies from 1 MiB on */

        tn_put_(page + TN_BOOT_X86_ZP_CL_MAGIC, 2, 0xa33f);
        tn_put_(page + TN_BOOT_X86_ZP_CL_OFFSET, 2,
                TN_BOOT_X86_OLD_CMDLINE - TN_BOOT_X86_OLD_ZERO_PAGE);
        tn_put_(page + TN_BOOT_X86_ZP_EXT_MEM_K, 2, kib < 0xffff ? kib : 0xffff);
        tn_put_(page + TN_BOOT_X86_ZP_ALT_MEM_K, 4, kib);
    } else {
        tn_put_(page + TN_BOOT_X86_ZP_CMDLINE, 4, TN_BOOT_X86_CMDLINE);
        tn_put_(page + TN_BOOT_X86_ZP_EXT_CMDLINE, 4, TN_BOOT_X86_CMDLINE >> 32);
    }
    tn_put_(page + TN_BOOT_X86_ZP_RAMDISK, 4, info->initrd_gpa % 0x100000000ull);
    tn_put_(page + TN_BOOT_X86_ZP_RAMDISK_N, 4, info->initrd_size % 0x100000000ull);
    tn_put_(page + TN_BOOT_X86_ZP_EXT_RAMDISK, 4, info->initrd_gpa / 0x100000000ull);
    tn_put_(page + TN_BOOT_X86_ZP_EXT_RAMDISK_N, 4, info->initrd_size / 0x100000000ull);
    tn_put_(page + TN_BOOT_X86_ZP_RSDP, 8, cfg->rsdp);
    tn_put_(page + TN_BOOT_X86_ZP_E820_N, 1, n);
    /*@ loop invariant 0 <= i <= n;
        loop assigns i, page[0 .. 4095];
        loop variant n - i; */
    for (i = 0; i < n; i++) {
        uint8_t *e = page + TN_BOOT_X86_ZP_E820 + i * TN_BOOT_X86_ZP_E820_ENTRY;

        tn_put_(e, 8, map[i].addr);
        tn_put_(e + 8, 8, map[i].size);
        tn_put_(e + 16, 4, map[i].type);
    }
}

/* The PVH start info, its module list and its memory map, which has e820's types. */
/*@ requires \valid(page + (0 .. TN_BOOT_X86_PVH_END - 1)) && \valid_read(cfg);
    requires \valid_read(info);
    requires n <= TN_BOOT_X86_E820_MAX && \valid_read(map + (0 .. n - 1));
    requires \separated(page + (0 .. TN_BOOT_X86_PVH_END - 1), cfg, info, map + (0 .. n - 1));
    assigns page[0 .. TN_BOOT_X86_PVH_END - 1]; */
static inline void tn_boot_x86_pvh_(uint8_t *page, const struct tn_boot_x86_cfg *cfg,
                                    const struct tn_boot_x86_info *info,
                                    const struct tn_boot_x86_e820_entry *map, uint32_t n)
{
    uint64_t modlist = TN_BOOT_X86_PVH_INFO + TN_BOOT_X86_PVH_MODLIST;
    uint32_t i;

    tn_boot_x86_zero_(page, TN_BOOT_X86_PVH_END);
    tn_put_(page, 4, 0x336ec578); /* magic */
    tn_put_(page + 4, 4, 1);      /* version */
    if (info->initrd_size > 0) {
        tn_put_(page + 12, 4, 1);       /* nr_modules */
        tn_put_(page + 16, 8, modlist); /* modlist_paddr */
        tn_put_(page + TN_BOOT_X86_PVH_MODLIST, 8, info->initrd_gpa);
        tn_put_(page + TN_BOOT_X86_PVH_MODLIST + 8, 8, info->initrd_size);
    }
    tn_put_(page + 24, 8, TN_BOOT_X86_CMDLINE);                           /* cmdline_paddr */
    tn_put_(page + 32, 8, cfg->rsdp);                                     /* rsdp_paddr */
    tn_put_(page + 40, 8, TN_BOOT_X86_PVH_INFO + TN_BOOT_X86_PVH_MEMMAP); /* memmap_paddr */
    tn_put_(page + 48, 4, n);                                             /* memmap_entries */
    /*@ loop invariant 0 <= i <= n;
        loop assigns i, page[0 .. TN_BOOT_X86_PVH_END - 1];
        loop variant n - i; */
    for (i = 0; i < n; i++) {
        uint8_t *e = page + TN_BOOT_X86_PVH_MEMMAP + i * TN_BOOT_X86_PVH_ENTRY;

        tn_put_(e, 8, map[i].addr);
        tn_put_(e + 8, 8, map[i].size);
        tn_put_(e + 16, 4, map[i].type);
    }
}

/* A present segment from 0 up; code and data span 4 GiB, a TSS (s = 0) the least it may. */
static inline void tn_boot_x86_seg_(struct tn_boot_x86_seg *seg, uint16_t selector, uint8_t type,
                                    uint8_t s)
{
    seg->base = 0;
    seg->limit = s ? 0xffffffffu : 0x67u;
    seg->selector = selector;
    seg->type = type;
    seg->present = 1;
    seg->dpl = 0;
    seg->db = s;
    seg->s = s;
    seg->l = 0;
    seg->g = s;
    seg->avl = 0;
}

/* The registers. boot.rst "64-bit Boot Protocol": long mode, interrupts off, __BOOT_CS, __BOOT_DS,
 * RSI the zero page; "32-bit Boot Protocol": the same without paging, and EBP, EDI and EBX 0. The
 * direct boot ABI: 32-bit, no paging, EBX the start info, CR4 clear. */
static inline void tn_boot_x86_cpu_(struct tn_boot_x86_cpu *cpu, uint32_t proto, uint64_t entry,
                                    uint64_t zero_page)
{
    __builtin_memset(cpu, 0, sizeof(*cpu));
    cpu->proto = proto;
    cpu->rip = entry;
    cpu->rsp = TN_BOOT_X86_STACK_TOP;
    cpu->rbp = TN_BOOT_X86_STACK_TOP;
    cpu->rflags = 2;                                    /* the bit that is always set */
    cpu->cr0 = 0x11;                                    /* PE, ET */
    tn_boot_x86_seg_(&cpu->cs, TN_BOOT_X86_CS, 0xb, 1); /* execute, read, accessed */
    tn_boot_x86_seg_(&cpu->ds, TN_BOOT_X86_DS, 0x3, 1); /* read, write, accessed */
    tn_boot_x86_seg_(&cpu->tr, TN_BOOT_X86_TR, 0xb, 0); /* busy TSS */
    cpu->gdt_base = TN_BOOT_X86_GDT;
    cpu->gdt_limit = TN_BOOT_X86_GDT_LEN - 1;
    if (proto == TN_BOOT_X86_PVH) {
        cpu->rbx = TN_BOOT_X86_PVH_INFO;
        return;
    }
    cpu->rsi = zero_page;
    if (proto == TN_BOOT_X86_LINUX32) {
        cpu->rbp = 0;
        return;
    }
    cpu->cs.l = 1;
    cpu->cs.db = 0;
    cpu->cr0 |= 0x80000000u; /* PG */
    cpu->cr3 = TN_BOOT_X86_PML4;
    cpu->cr4 = 0x20;   /* PAE */
    cpu->efer = 0x500; /* LME, LMA */
}

/* Page tables: one PML4 entry, four directories of 512 pages of 2 MiB. */
static inline int tn_boot_x86_tables_(const struct tn_mem *mem, uint8_t *page)
{
    uint32_t dir, entry;
    int err;

    tn_boot_x86_zero_(page, 4096);
    tn_put_(page, 8, TN_BOOT_X86_PDPT + 3); /* present, writable */
    err = tn_mem_write(mem, TN_BOOT_X86_PML4, page, 4096);
    for (dir = 0; dir < 4; dir++)
        tn_put_(page + dir * 8, 8, TN_BOOT_X86_PD + dir * 4096u + 3);
    err = err < 0 ? err : tn_mem_write(mem, TN_BOOT_X86_PDPT, page, 4096);
    for (dir = 0; dir < 4; dir++) {
        for (entry = 0; entry < 512; entry++)
            tn_put_(page + entry * 8, 8, tn_boot_x86_pde_(dir, entry));
        err = err < 0 ? err : tn_mem_write(mem, TN_BOOT_X86_PD + dir * 4096u, page, 4096);
    }
    return err;
}

static inline int tn_boot_x86_gdt_(const struct tn_mem *mem, const struct tn_boot_x86_cpu *cpu)
{
    const struct tn_boot_x86_seg *seg[3];
    uint8_t gdt[TN_BOOT_X86_GDT_LEN];
    uint32_t i;

    seg[0] = &cpu->cs;
    seg[1] = &cpu->ds;
    seg[2] = &cpu->tr;
    tn_boot_x86_zero_(gdt, sizeof(gdt));
    for (i = 0; i < 3; i++)
        tn_boot_x86_desc_(seg[i], gdt + seg[i]->selector);
    return tn_mem_write(mem, TN_BOOT_X86_GDT, gdt, sizeof(gdt));
}

/* The one setup_data: next, type SETUP_DTB, len, and the device tree. */
static inline int tn_boot_x86_fdt_(const struct tn_mem *mem, const struct tn_boot_x86_cfg *cfg)
{
    uint8_t head[TN_BOOT_X86_SETUP_DATA];
    int err;

    tn_boot_x86_zero_(head, sizeof(head));
    tn_put_(head + 8, 4, 2); /* SETUP_DTB */
    tn_put_(head + 12, 4, cfg->fdt_len);
    err = tn_mem_write(mem, TN_BOOT_X86_FDT, head, sizeof(head));
    return err < 0 ? err
                   : tn_mem_write(mem, TN_BOOT_X86_FDT + sizeof(head), cfg->fdt, cfg->fdt_len);
}

/* Whether a device tree can be handed over, and is one: its header says how long it is. */
/*@ requires \valid_read(cfg) && \valid_read(cfg->fdt + (0 .. cfg->fdt_len - 1));
    assigns \nothing;
    ensures \result == TN_OK || \result == TN_ERANGE || \result == TN_EFORMAT ||
      \result == TN_EUNSUP;
    ensures \result == TN_ERANGE <==> cfg->fdt_len + TN_BOOT_X86_SETUP_DATA > TN_BOOT_X86_FDT_SIZE;
    ensures \result == TN_OK || \result == TN_EUNSUP <==>
      40 <= cfg->fdt_len <= TN_BOOT_X86_FDT_SIZE - TN_BOOT_X86_SETUP_DATA &&
      cfg->fdt[0] == 0xd0 && cfg->fdt[1] == 0x0d && cfg->fdt[2] == 0xfe && cfg->fdt[3] == 0xed &&
      cfg->fdt_len == cfg->fdt[4] * 0x1000000 + cfg->fdt[5] * 0x10000 + cfg->fdt[6] * 0x100 +
        cfg->fdt[7];
    ensures \result == TN_OK ==> proto != TN_BOOT_X86_PVH && (version == 0 || version >= 0x209);
    ensures \result == TN_EUNSUP ==> proto == TN_BOOT_X86_PVH || 0 < version < 0x209; */
static inline int tn_boot_x86_fdt_ok_(const struct tn_boot_x86_cfg *cfg, uint32_t proto,
                                      uint16_t version)
{
    const uint8_t *p = cfg->fdt;

    if (cfg->fdt_len > TN_BOOT_X86_FDT_SIZE - TN_BOOT_X86_SETUP_DATA)
        return TN_ERANGE;
    /* the header's 40 bytes, big-endian: magic, totalsize */
    if (cfg->fdt_len < 40 || p[0] != 0xd0 || p[1] != 0x0d || p[2] != 0xfe || p[3] != 0xed ||
        cfg->fdt_len != p[4] * 0x1000000u + p[5] * 0x10000u + p[6] * 0x100u + p[7])
        return TN_EFORMAT;
    if (proto == TN_BOOT_X86_PVH || (version > 0 && version < 0x209)) /* 0: an ELF file's */
        return TN_EUNSUP;
    return TN_OK;
}

/* All that goes into guest memory. */
static inline int tn_boot_x86_write_(const struct tn_mem *mem, const struct tn_boot_x86_cfg *cfg,
                                     const struct tn_boot_x86_cpu *cpu,
                                     const struct tn_boot_x86_info *info)
{
    struct tn_boot_x86_e820_entry map[TN_BOOT_X86_E820_MAX];
    int n = tn_boot_x86_e820(cfg->ram_size, map, TN_BOOT_X86_E820_MAX);
    const struct tn_loader_plan *plan = &info->plan;
    uint64_t cmdline = tn_boot_x86_cmdline_(plan);
    uint8_t page[4096];
    uint32_t i;
    int err = n;

    for (i = 0; i < plan->nsegs && err >= 0; i++) {
        const struct tn_loader_seg *s = &plan->seg[i];

        err = tn_mem_write(mem, s->gpa, cfg->kernel + s->file_off, (size_t)s->file_size);
        if (err >= 0) /* what the file does not give is zero, a kernel's .bss for one */
            err = tn_mem_fill(mem, s->gpa + s->file_size, 0, s->mem_size - s->file_size);
    }
    if (err >= 0 && info->initrd_size > 0)
        err = tn_mem_write(mem, info->initrd_gpa, cfg->initrd, cfg->initrd_len);
    if (err >= 0 && info->cmdline_len > 0)
        err = tn_mem_write(mem, cmdline, cfg->cmdline, info->cmdline_len);
    if (err >= 0)
        err = tn_mem_fill(mem, cmdline + info->cmdline_len, 0, 1);
    if (err >= 0)
        err = tn_boot_x86_gdt_(mem, cpu);
    if (err < 0)
        return err;
    if (cpu->proto == TN_BOOT_X86_PVH) {
        tn_boot_x86_pvh_(page, cfg, info, map, (uint32_t)n);
        return tn_mem_write(mem, TN_BOOT_X86_PVH_INFO, page, TN_BOOT_X86_PVH_END);
    }
    if (cfg->fdt_len > 0)
        err = tn_boot_x86_fdt_(mem, cfg);
    tn_boot_x86_zero_page_(page, cfg, info, map, (uint32_t)n);
    if (err >= 0)
        err = tn_mem_write(mem, cpu->rsi, page, sizeof(page));
    return err < 0 || cpu->proto == TN_BOOT_X86_LINUX32 ? err : tn_boot_x86_tables_(mem, page);
}

/* Whether the image offers the protocol. */
/*@ requires \valid_read(plan);
    assigns \nothing;
    ensures \result != 0 <==>
      (proto == TN_BOOT_X86_LINUX64 && plan->has_linux64 != 0) ||
      (proto == TN_BOOT_X86_LINUX32 && plan->has_linux32 != 0) ||
      (proto == TN_BOOT_X86_PVH && plan->has_pvh != 0); */
static inline bool tn_boot_x86_offers_(const struct tn_loader_plan *plan, uint32_t proto)
{
    return (proto == TN_BOOT_X86_LINUX64 && plan->has_linux64) ||
           (proto == TN_BOOT_X86_LINUX32 && plan->has_linux32) ||
           (proto == TN_BOOT_X86_PVH && plan->has_pvh);
}

/* The checks and the plan, up to the first write; info->stage follows. */
static inline int tn_boot_x86_plan_(const struct tn_mem *mem, const struct tn_boot_x86_cfg *cfg,
                                    struct tn_boot_x86_cpu *cpu, struct tn_boot_x86_info *info)
{
    struct tn_loader_plan *plan = &info->plan;
    struct tn_loader_range ram[2], low;
    uint32_t proto = cfg->proto;
    uint64_t entry;
    int n = tn_boot_x86_ram(cfg->ram_size, ram);
    int err;

    if (n < 0 || proto > TN_BOOT_X86_LINUX32 || !cfg->kernel ||
        (!cfg->initrd && cfg->initrd_len > 0) || (!cfg->fdt && cfg->fdt_len > 0))
        return TN_EINVAL;
    if (!tn_mem_holds(mem, 0, ram[0].size) || !tn_mem_holds(mem, ram[1].gpa, ram[1].size))
        return TN_EINVAL;

    info->stage = TN_BOOT_X86_AT_KERNEL;
    err = tn_loader_parse(cfg->kernel, cfg->kernel_len, plan);
    info->detail = plan->detail;
    info->where = plan->where;
    if (err < 0)
        return err;

    info->stage = TN_BOOT_X86_AT_PROTO;
    if (proto == TN_BOOT_X86_AUTO) {
        proto = plan->has_linux64 ? TN_BOOT_X86_LINUX64
                : plan->has_pvh   ? TN_BOOT_X86_PVH
                                  : TN_BOOT_X86_LINUX32;
    }
    if (!tn_boot_x86_offers_(plan, proto))
        return TN_EUNSUP;

    info->stage = TN_BOOT_X86_AT_CMDLINE;
    if (cfg->cmdline)
        info->cmdline_len = tn_boot_x86_strlen_(cfg->cmdline, TN_BOOT_X86_CMDLINE_SIZE);
    if (info->cmdline_len >= TN_BOOT_X86_CMDLINE_SIZE || info->cmdline_len > plan->cmdline_max)
        return TN_ERANGE;

    /* The low megabyte is reserved, and what lies above the hole is out of reach of the page
     * tables and of PVH's 32 bits. */
    info->stage = TN_BOOT_X86_AT_PLACE;
    low.gpa = 0;
    low.size = TN_BOOT_X86_HIMEM;
    err = tn_loader_place(plan, ram, 1, &low, 1);
    info->detail = plan->detail;
    info->where = plan->where;
    if (err < 0)
        return err;
    entry = proto == TN_BOOT_X86_PVH       ? plan->pvh_entry
            : proto == TN_BOOT_X86_LINUX32 ? plan->linux32_entry
                                           : plan->linux64_entry;
    if (!tn_boot_x86_plan_ok_(plan, cfg->kernel_len, TN_BOOT_X86_HIMEM, ram[0].size, entry))
        return TN_EBUG;

    info->stage = TN_BOOT_X86_AT_INITRD;
    if (cfg->initrd_len > 0) {
        err = tn_loader_place_initrd(plan, cfg->initrd_len, ram, 1, &low, 1, &info->initrd_gpa);
        if (err < 0)
            return err;
        info->initrd_size = cfg->initrd_len;
    }

    info->stage = TN_BOOT_X86_AT_FDT;
    if (cfg->fdt_len > 0) {
        err = tn_boot_x86_fdt_ok_(cfg, proto, plan->boot_version);
        if (err < 0)
            return err;
    }
    tn_boot_x86_cpu_(cpu, proto, entry,
                     tn_boot_x86_old_(plan) ? TN_BOOT_X86_OLD_ZERO_PAGE : TN_BOOT_X86_ZERO_PAGE);
    return TN_OK;
}

TN_API int tn_boot_x86_load(const struct tn_mem *mem, const struct tn_boot_x86_cfg *cfg,
                            struct tn_boot_x86_cpu *cpu, struct tn_boot_x86_info *info)
{
    int err;

    __builtin_memset(cpu, 0, sizeof(*cpu));
    __builtin_memset(info, 0, sizeof(*info));
    err = tn_boot_x86_plan_(mem, cfg, cpu, info);
    if (err >= 0) {
        info->stage = TN_BOOT_X86_AT_WRITE;
        err = tn_boot_x86_write_(mem, cfg, cpu, info);
    }
    if (err < 0) {
        uint32_t stage = info->stage, detail = info->detail, where = info->where;

        __builtin_memset(cpu, 0, sizeof(*cpu));
        __builtin_memset(info, 0, sizeof(*info));
        info->stage = stage;
        info->detail = detail;
        info->where = where;
        return err;
    }
    info->stage = TN_BOOT_X86_AT_END;
    return TN_OK;
}
#endif /* TN_DECL_ONLY */
#ifdef __cplusplus
}
#endif
#endif
